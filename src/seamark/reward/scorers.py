"""Any reward model as one function of prompts and responses, and scoring that outlives what is wrong with it.

Conventions
-----------
A *scorer* is called with prompts and responses, as many of either, and gives one number for each; None or NaN where it gives none. What
it is (a fit, a checkpoint, a server, a function, a table) the rest of the house cannot tell.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from seamark.errors import InvalidSetting, SeamarkError, UnreadableSource
from seamark.progress import Progress
from seamark.records import Feedback
from seamark.reward.signal import Reward, Text

Array = NDArray[np.float64]
Scorer = Callable[[Sequence[Text], Sequence[str]], ArrayLike | Sequence[float | None]]
"""prompts, responses -> (n,) numbers."""

_BATCH = 256
"""Texts to a call: enough for a language model to sort them by length, few enough that a stopped run loses little."""
TIMEOUT_S = 600.0
"""Seconds that a call may take."""
_AGAIN = 8
"""Texts that are scored a second time, in the opposite order."""
_GIVEN_UP = 3
"""Calls in a row that fail for a text by itself, after which nobody is asked any more."""
# a text that looks like a number is a text, and a score is a number however late its point comes
_read_csv = partial(pl.read_csv, infer_schema_length=None, schema_overrides={"prompt": pl.String, "response": pl.String})
_READERS: dict[str, Callable[..., pl.DataFrame] | None] = {
    ".csv": _read_csv, ".tsv": partial(_read_csv, separator="\t"), ".jsonl": None, ".ndjson": None, ".parquet": pl.read_parquet,
}  # fmt: skip
"""By the end of a table's name; None for JSON lines, which are read here."""


@dataclass(frozen=True)
class Scored:
    """What a scorer says of n texts, and what was wrong with its answers."""

    values: Array
    """(n,) NaN where there is none."""
    lost: NDArray[np.bool_]
    """(n,) where there is none because the call failed, or the score was infinite; where only `values` has none, the scorer abstained."""
    n_distinct: int
    """Distinct (prompt, response) that were scored."""
    n_cached: int = 0
    """Of these, those that an earlier run had scored."""
    abstained: int = 0
    """Distinct texts for which it gave None or NaN."""
    infinite: int = 0
    """Distinct texts that it gave an infinite score, which is not used."""
    failed: int = 0
    """Distinct texts for which the call failed, or gave another number of scores."""
    problems: tuple[str, ...] = ()
    """What went wrong, in its own words, each once."""
    drift: float = 0.0
    """Largest difference between two scores of one text, in standard deviations of all; 0 where it was not scored twice."""
    died: bool = False
    """Whether it was asked no more, having failed too often or taken too long."""

    @property
    def constant(self) -> bool:
        """Whether two texts or more have scores, and all the same one."""
        found = self.values[np.isfinite(self.values)]
        return self.n_distinct > 1 and len(found) > 1 and bool((found == found[0]).all())


# ---------------------------------------------------------------------------------------------- what can be opened


def open_scorer(place: str | Path, *, template: str | None = None) -> Scorer:
    """The reward model at a place, as a scorer.

    Parameters
    ----------
    place :
        - the folder of a fit; the folder or hub name, OWNER/NAME, of a reward model that transformers reads;
        - an address: what ends in /classify is sent messages, as vLLM and SGLang take them; any other path {"prompts": [...],
          "responses": [...]} and answers {"scores": [...]} or {"rewards": [...]};
        - python:MODULE:FUNCTION or python:FILE.py:FUNCTION, which is imported and called: code is run;
        - a table with columns prompt, response and score (CSV, TSV, JSONL, Parquet); other texts have no score.
    template : for an address, the checkpoint whose chat template makes the text that is sent, in the shapes of `check_parity`.

    Raises
    ------
    UnreadableSource, InvalidSetting
        If nothing there can score.
    """
    text = str(place)
    if text.startswith(("http://", "https://")):
        return _template_server(text, template) if template else _server(text)
    if template:
        raise InvalidSetting("template", template, "It is for addresses: a folder has its own.")
    if text.startswith("python:"):
        return _function(text)
    if Path(text).suffix.lower() in _READERS and not Path(text).is_dir():
        return _table(Path(text))
    return Reward(text)


def gives_scores_only(place: str) -> bool:
    """Whether a place is that of an address, a function or a table: all that is known of it is its scores."""
    path = Path(place)
    return place.startswith(("http://", "https://", "python:")) or (path.suffix.lower() in _READERS and not path.is_dir())


def _server(url: str) -> Scorer:
    from seamark.reward.paths import messages_of, post_json

    def ask(prompts: Sequence[Text], responses: Sequence[str]) -> Sequence[float | None]:
        if url.rstrip("/").endswith("/classify"):
            both = zip(prompts, responses, strict=True)
            asked = [post_json(url, {"messages": messages_of(p, r), "use_activation": False}) for p, r in both]
            return [float(answer["data"][0]["probs"][0]) for answer in asked]
        given = [p if isinstance(p, str) else list(p) for p in prompts]
        answer = post_json(url, {"prompts": given, "responses": list(responses)})
        return answer["scores"] if "scores" in answer else answer["rewards"]

    return ask


def _template_server(url: str, checkpoint: str) -> Scorer:
    from seamark.reward.paths import by_http

    return lambda prompts, responses: by_http(checkpoint, list(zip(prompts, responses, strict=True)), url).scores


def _function(place: str) -> Scorer:
    """The function that python:WHERE:NAME names."""
    where, _, name = place.removeprefix("python:").rpartition(":")
    remedy = "Write python:MODULE:FUNCTION or python:FILE.py:FUNCTION; it is called with prompts and responses."
    if not where or not name:
        raise InvalidSetting("MODEL", place, remedy)
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if "" not in sys.path:
                sys.path.insert(0, "")
            module = importlib.import_module(where)
        found: Any = getattr(module, name)
    except Exception as error:  # whatever the code of somebody else raises
        raise UnreadableSource(place, f"{type(error).__name__}: {error}", remedy) from None
    if not callable(found):
        raise UnreadableSource(place, f"{name} is no function", remedy)
    return cast("Scorer", found)


def _table(path: Path) -> Scorer:
    """Scores by prompt and response; prompts of several messages may be these, or their JSON."""
    remedy = "Give a table with columns prompt, response and score."
    reader = _READERS[path.suffix.lower()]
    try:
        frame = reader(path) if reader is not None else _lines_of(path)
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise UnreadableSource(str(path), str(error).splitlines()[0], remedy) from None
    if lacking := [name for name in ("prompt", "response", "score") if name not in frame.columns]:
        raise UnreadableSource(
            str(path), f"no column {lacking[0]!r} among {', '.join(frame.columns)}", "Name its columns prompt, response and score."
        )
    if not frame["score"].dtype.is_numeric():
        value = frame["score"].drop_nulls().first()
        raise UnreadableSource(str(path), f"column 'score' holds {value!r}, which is no number", "Write numbers, with a point.")
    held: dict[tuple[str, str], float | None] = {}
    scores = frame["score"].cast(pl.Float64)
    for prompt, response, score in zip(frame["prompt"], frame["response"], scores, strict=True):
        key = _held_prompt(prompt), "" if response is None else str(response)
        if held.setdefault(key, score) != score:
            raise UnreadableSource(str(path), f"two scores for one response ({held[key]!r}, {score!r})", "Give each response one score.")
    return lambda prompts, responses: [held.get((_key(p), r)) for p, r in zip(prompts, responses, strict=True)]


def _lines_of(path: Path) -> pl.DataFrame:
    """JSON lines as they are: some prompts may be texts and others messages."""
    rows: list[Any] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            rows.append(None)
        if not isinstance(rows[-1], dict):
            raise UnreadableSource(
                str(path), f"line {number} is no record ({line[:60]!r})", 'Write {"prompt": ..., "response": ..., "score": ...}.'
            )
    names = dict.fromkeys(name for row in rows for name in row if name in ("prompt", "response", "score"))
    columns = {name: [row.get(name) for row in rows] for name in names}
    scores = columns.pop("score", None)
    frame = pl.DataFrame({name: pl.Series(name, values, dtype=pl.Object) for name, values in columns.items()})
    return frame if scores is None else frame.with_columns(pl.Series("score", scores, strict=False))


def _held_prompt(prompt: object) -> str:
    """A prompt of a table as `_key` has it; in columns of messages, those without a field that others have hold null there."""
    if isinstance(prompt, pl.Series):
        prompt = prompt.to_list()
    if isinstance(prompt, list) and all(isinstance(turn, Mapping) for turn in cast("list[object]", prompt)):
        return _key(
            [{name: value for name, value in turn.items() if value is not None} for turn in cast("list[Mapping[str, Any]]", prompt)]
        )
    return "" if prompt is None else str(prompt)


def recalled(prompts: Sequence[Text], responses: Sequence[str], values: ArrayLike) -> Scorer:
    """A scorer that says of these texts what was said before, and nothing of others.

    Parameters
    ----------
    prompts, responses, values : (n,) NaN where there was none.
    """
    held = {(_key(p), r): float(v) for p, r, v in zip(prompts, responses, np.asarray(values, dtype=np.float64), strict=True)}
    return lambda prompts, responses: [held.get((_key(p), r)) for p, r in zip(prompts, responses, strict=True)]


def scorer_name(place: str | Path) -> str:
    """A name under which scores can be kept: the place, and where it is a file or folder, what is in it by sizes and times, so that another model
    in its place does not get its scores."""
    where = Path(str(place).removeprefix("python:").rpartition(":")[0] if str(place).startswith("python:") else place)
    files = sorted(p for p in where.rglob("*") if p.is_file()) if where.is_dir() else [where] if where.is_file() else []
    inside = "\n".join(f"{p.relative_to(where)} {(s := p.stat()).st_size} {s.st_mtime_ns}" for p in files)
    return f"{place}\n{hashlib.blake2b(inside.encode(), digest_size=16).hexdigest()}" if files else str(place)


def _key(prompt: Text) -> str:
    # role before content, in whichever order a file has them
    return (
        prompt if isinstance(prompt, str) else json.dumps([dict(sorted(turn.items(), reverse=True)) for turn in prompt], ensure_ascii=False)
    )


# ---------------------------------------------------------------------------------------------- scoring


@dataclass
class _Tally:
    """What has gone wrong so far."""

    in_a_row: int = 0
    died: bool = False
    problems: dict[str, None] = field(default_factory=dict)


def score_texts(
    scorer: Scorer,
    prompts: Sequence[Text],
    responses: Sequence[str],
    *,
    batch: int = _BATCH,
    timeout_s: float = TIMEOUT_S,
    cache: str | Path | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> Scored:
    """The scores of texts, whatever the scorer does: each distinct (prompt, response) is scored once, and some a second time.

    A call that raises, or gives another number of scores, is made again for halves of its texts, down to single ones: what is wrong
    with one text loses that one. A call that takes longer than `timeout_s`, or three single texts in a row that fail, end it: what
    is left has no score.

    Parameters
    ----------
    prompts, responses : (n,)
    batch : texts to a call.
    timeout_s : seconds that a call may take.
    cache : a file (JSONL) of what was scored; what it holds is not scored again, and what is new is appended batch by batch, so that a run
        that was stopped goes on.
    name : of the scorer, in the cache: scores under another name are not used.

    Raises
    ------
    InvalidSetting
        If there are not as many prompts as responses, or no time.
    UnreadableSource
        If the cache is no such file.
    """
    if len(prompts) != len(responses):
        raise InvalidSetting("prompts", len(prompts), f"There are {len(responses)} responses; give one prompt for each.")
    if not timeout_s > 0:
        raise InvalidSetting("timeout_s", timeout_s, "Give the seconds that a call may take, more than 0.")
    place: dict[tuple[str, str], int] = {}
    code = np.array([place.setdefault((_key(p), r), len(place)) for p, r in zip(prompts, responses, strict=True)], dtype=np.int64)
    first = [int(i) for i in np.unique(code, return_index=True)[1]]  # codes are in order of appearance
    found = np.full(len(place), np.nan)
    keys = [_digest(name, *pair) for pair in place] if cache is not None else []
    held = _read_cache(Path(cache)) if cache is not None else {}
    known = np.array([key in held for key in keys] or [False] * len(place), dtype=bool)
    found[known] = [np.nan if held[keys[i]] is None else held[keys[i]] for i in np.flatnonzero(known)]
    # batches of like length: a language model reads pads as well
    todo = sorted((int(i) for i in np.flatnonzero(~known)), key=lambda i: len(responses[first[i]]))
    tally = _Tally()
    asked: list[int] = []
    lost = ~known
    for start in range(0, len(todo), batch):
        rows = todo[start : start + batch]
        found[rows], lost[rows] = _call(scorer, [prompts[first[i]] for i in rows], [responses[first[i]] for i in rows], timeout_s, tally)
        asked += rows
        if tally.died:
            break
        if cache is not None:
            # what failed is asked for again by the next run
            _append(Path(cache), ((keys[i], float(found[i])) for i in rows if not lost[i] and not np.isinf(found[i])))
        if progress:
            progress("scoring", (start + len(rows)) / len(todo))
    infinite = np.isinf(found)
    found[infinite] = np.nan
    failed = int(lost.sum())
    drift, spread = 0.0, float(np.nanstd(found)) if np.isfinite(found).any() else 0.0
    scored = [i for i in asked if np.isfinite(found[i])]
    if scored and not tally.died and spread > 0:
        again = [scored[int(i)] for i in np.unique(np.linspace(0, len(scored) - 1, _AGAIN).astype(int))][::-1]
        second, _ = _call(scorer, [prompts[first[i]] for i in again], [responses[first[i]] for i in again], timeout_s, _Tally())
        drift = float(np.nanmax(np.abs(second - found[again]), initial=0.0)) / spread
    return Scored(
        found[code], (lost | infinite)[code], len(place), int(known.sum()), int(np.isnan(found).sum()) - failed - int(infinite.sum()), int(infinite.sum()), failed,
        tuple(tally.problems), drift, tally.died,
    )  # fmt: skip


def texts_of(feedback: Feedback) -> tuple[list[Text], list[str | None]]:
    """(n_responses,) the prompt of each response, empty where it is not known, and its text, None where there is none, as scorers take them."""
    prompts: list[Text] = [
        "" if text is None else json.loads(text) if messages else text
        for text, messages in feedback.prompts.select("text", "is_messages").iter_rows()
    ]
    rows = feedback.responses.select("prompt", "text").rows()
    return ["" if code is None else prompts[code] for code, _ in rows], [text for _, text in rows]


def score_responses(scorer: Scorer, feedback: Feedback, rows: NDArray[np.int64], **settings: Any) -> tuple[Array, Scored]:
    """The scores of some responses of feedback, (n_responses,) NaN elsewhere, and how it went; settings are those of `score_texts`."""
    prompts, texts = texts_of(feedback)
    asked = [(row, text) for row in rows.tolist() if (text := texts[row]) is not None]
    scored = score_texts(scorer, [prompts[row] for row, _ in asked], [text for _, text in asked], **settings)
    values = np.full(feedback.n_responses, np.nan)
    values[[row for row, _ in asked]] = scored.values
    return values, scored


def _call(
    scorer: Scorer, prompts: Sequence[Text], responses: Sequence[str], timeout_s: float, tally: _Tally
) -> tuple[Array, NDArray[np.bool_]]:
    """(n,) scores, and where there is none because the call failed."""
    n = len(responses)
    out, lost = np.full(n, np.nan), np.ones(n, dtype=bool)
    if tally.died:
        return out, lost
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(scorer(prompts, responses))
        except BaseException as error:  # whatever the code of somebody else raises, SystemExit too
            answer.append(error)

    # a thread of its own: a call that does not come back cannot be ended, but it can be left
    worker = threading.Thread(target=ask, daemon=True)
    worker.start()
    worker.join(min(timeout_s, threading.TIMEOUT_MAX))
    if not answer:
        tally.died = True
        tally.problems[f"it did not answer within {timeout_s:g} s"] = None
        return out, lost
    problem = _problem(answer[0], n)
    if problem is None:
        tally.in_a_row = 0
        return _numbers(answer[0]), ~lost
    tally.problems[problem] = None
    if n == 1:
        tally.in_a_row += 1
        tally.died = tally.in_a_row >= _GIVEN_UP
        return out, lost
    half = n // 2
    for part in (slice(0, half), slice(half, n)):
        out[part], lost[part] = _call(scorer, prompts[part], responses[part], timeout_s, tally)
    return out, lost


def _problem(answer: Any, n: int) -> str | None:
    """What is wrong with an answer as a whole."""
    if isinstance(answer, BaseException):
        said = str(answer).strip().splitlines()
        return said[0] if said and isinstance(answer, SeamarkError) else f"{type(answer).__name__}: {said[0][:200] if said else ''}"
    try:
        shape = _numbers(answer).shape
    except (TypeError, ValueError):
        return f"it gave {type(answer).__name__} in place of numbers"
    return None if shape == (n,) else f"it gave {_sized(shape)} for {n:,} texts"


def _sized(shape: tuple[int, ...]) -> str:
    return f"{shape[0]:,} score{'' if shape[0] == 1 else 's'}" if len(shape) == 1 else f"an array of shape {shape}"


def _numbers(answer: Any) -> Array:
    # tensors on a device, or with a gradient, do not turn into arrays by themselves
    answer = answer.detach().cpu() if type(answer).__module__.startswith("torch") else answer
    if isinstance(answer, list | tuple):
        answer = [np.nan if one is None else one for one in answer]
    return np.asarray(answer, dtype=np.float64)


# ---------------------------------------------------------------------------------------------- what was scored before


def _digest(name: str, prompt: str, response: str) -> str:
    return hashlib.blake2b("\x1f".join((name, prompt, response)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _read_cache(path: Path) -> Mapping[str, float | None]:
    """Scores by digest; a last line that was cut off is left out."""
    if not path.exists():
        return {}
    held: dict[str, float | None] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSource(str(path), str(error), "Give a file that an earlier run has written, or a new one.") from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            held[str(record["key"])] = None if record["score"] is None else float(record["score"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise UnreadableSource(
                str(path), f"line {number} is no score ({line[:60]!r})", "Give a file that an earlier run has written, or a new one."
            ) from None
    return held


def _append(path: Path, scores: Iterator[tuple[str, float]]) -> None:
    with path.open("ab+") as file:
        if end := file.tell():
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            if whole < end:  # a run was stopped in the middle of a line
                file.truncate(whole)
        lines = (json.dumps({"key": key, "score": score if np.isfinite(score) else None}) + "\n" for key, score in scores)
        file.write("".join(lines).encode())
