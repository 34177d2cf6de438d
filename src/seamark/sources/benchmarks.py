"""Published benchmarks of reward models, read from their files as they are downloaded: nothing is fetched, nothing is rewritten.

Layouts read, each told from its fields: RewardBench (prompt, chosen, rejected, subset; prior sets by the name of the file), RewardBench 2
(lists chosen and rejected, num_correct), RM-Bench (lists of three styles, domain), RMB (bon_best and loser_list, or chosen and reject),
PPE (response_1, response_2, ... with scores, or with a winner), JudgeBench (response_A, response_B, label) and LLMBar (output_1, output_2,
label). A file or a folder of files, JSON, JSON lines or Parquet.
Source: github.com/allenai/reward-bench, THU-KEG/RM-Bench, Zhou-Zoey/RMB-Reward-Model-Benchmark, lmarena/PPE, ScalerLab/JudgeBench and
princeton-nlp/LLMBar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.sources.fields import WrongField, has, integer, missing, needed_word, text, word
from seamark.sources.files import Options, Record, Source, Table, open_source

Kind = Literal["rewardbench", "rewardbench2", "rmb", "rm-bench", "ppe", "judgebench", "llmbar"]
KINDS: tuple[Kind, ...] = ("rewardbench", "rewardbench2", "rmb", "rm-bench", "ppe", "judgebench", "llmbar")
Prompt = str | Sequence[dict[str, Any]]
Codes = NDArray[np.int64]

PRIOR_SETS = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
"""Preference sets older than RewardBench, a file each."""
STYLES = ("concise", "detailed", "markdown")
"""Of RM-Bench, in the order of its lists."""


@dataclass(frozen=True)
class Benchmark:
    """Items, each a prompt with right and wrong responses."""

    kind: Kind
    prompts: tuple[Prompt, ...]
    """(n_items,) a text, or messages."""
    subsets: tuple[str, ...]
    """(n_items,) domain, scenario or part that the item belongs to."""
    names: tuple[str, ...]
    """(n_items,) what the item is called; ties of RewardBench 2 and the reference they go with by it."""
    item: Codes
    """(n,) row of each response's item."""
    responses: tuple[str, ...]
    """(n,)"""
    correct: NDArray[np.bool_]
    """(n,) whether a response is right."""
    style: Codes
    """(n,) which of `STYLES` it is written in; -1 where nobody said."""
    pairs: Codes
    """(n_pairs, 2) rows of a right and a wrong response to one prompt that are compared."""
    notes: tuple[str, ...] = ()
    """What was passed over."""

    @property
    def n_items(self) -> int:
        return len(self.prompts)

    def texts(self) -> tuple[list[Prompt], list[str]]:
        """(n,) prompts and responses, as a scorer takes them."""
        return [self.prompts[i] for i in self.item], list(self.responses)


@dataclass(frozen=True)
class _Item:
    """One item, before it is laid out in columns."""

    prompt: Prompt
    subset: str
    right: Sequence[str]
    wrong: Sequence[str]
    name: str = ""
    order: Sequence[bool] | None = None
    """Whether each response is right, where they are interleaved."""
    pairs: Sequence[tuple[int, int]] | None = None
    """Positions of a right and a wrong one, where not all are compared."""


def read_benchmark(path: str | Path, *, kind: str | None = None) -> Benchmark:
    """The benchmark in a file or folder.

    Parameters
    ----------
    kind : which of `KINDS`; told from the fields where not given. Tables of a folder that are not of this kind are passed over.

    Raises
    ------
    UnreadableSource
        If it is none of them, or of several kinds.
    InvalidRecord
        If an item lacks what its kind needs.
    InvalidSetting
        If `kind` is not one of them.
    """
    asked: Kind | None = next((known for known in KINDS if kind == known), None)
    if kind is not None and asked is None:
        raise InvalidSetting("kind", kind, f"Use one of {', '.join(KINDS)}.")
    source = open_source(Path(path), Options())
    told: dict[str, Kind | None] = {table.name: _kind_of(table) for table in source.tables.values()}
    chosen_kind = asked if asked is not None else _only(path, source, told)
    chosen = [table for table in source.tables.values() if told[table.name] == chosen_kind] or list(source.tables.values())
    passed_over = [table.name for table in source.tables.values() if table not in chosen]
    reader = _READERS[chosen_kind]
    items: list[_Item] = []
    for table in chosen:
        within = _inner_name(table) if len(chosen) > 1 or _plain(table.name) in PRIOR_SETS else None
        for records, lines in table.batches():
            for record, line in zip(records, lines, strict=True):
                try:
                    items.append(reader(record, within or "", within or _inner_name(table)))
                except WrongField as wrong:
                    raise InvalidRecord(str(table.path), line, wrong.name, wrong.value, wrong.remedy) from None
    notes = (f"passed over: {', '.join(passed_over)}",) if passed_over else ()
    return _laid_out(chosen_kind, items, notes)


def _only(path: str | Path, source: Source, told: dict[str, Kind | None]) -> Kind:
    """The one kind that the tables are of."""
    kinds: list[Kind] = [kind for kind in KINDS if kind in told.values()]
    if len(kinds) > 1:
        raise UnreadableSource(str(path), f"these are several benchmarks ({', '.join(kinds)})", "Say which with kind (--kind).")
    if not kinds:
        some = ", ".join(sorted({name for table in source.tables.values() for name in table.sample[0]})[:12])
        raise UnreadableSource(str(path), f"no benchmark has these fields ({some})", f"Known are {', '.join(KINDS)}; see --kind.")
    return kinds[0]


def _laid_out(kind: Kind, items: Sequence[_Item], notes: tuple[str, ...]) -> Benchmark:
    item, responses, correct, style, pairs = [], [], [], [], []
    for row, it in enumerate(items):
        right = list(it.order) if it.order is not None else [True] * len(it.right) + [False] * len(it.wrong)
        texts = list(it.right) + list(it.wrong)
        start = len(responses)
        compared = it.pairs
        if compared is None:
            good, bad = ([i for i, r in enumerate(right) if r == side] for side in (True, False))
            compared = [(i, j) for i in good for j in bad]
        pairs += [(start + i, start + j) for i, j in compared]
        item += [row] * len(texts)
        responses += texts
        correct += right
        style += [i % 3 for i in range(6)] if kind == "rm-bench" else [-1] * len(texts)
    return Benchmark(
        kind, tuple(it.prompt for it in items), tuple(it.subset for it in items), tuple(it.name for it in items),
        np.array(item, dtype=np.int64), tuple(responses), np.array(correct, dtype=bool), np.array(style, dtype=np.int64),
        np.array(pairs, dtype=np.int64).reshape(-1, 2), notes,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- what a file is


def _kind_of(table: Table) -> Kind | None:
    """The kind that half of the table's first records have."""
    found = [_kind_of_record(record, table) for record in table.sample]
    return next((kind for kind in KINDS if 2 * found.count(kind) >= len(found)), None)


def _kind_of_record(record: Record, table: Table) -> Kind | None:
    lists = isinstance(record.get("chosen"), list) and isinstance(record.get("rejected"), list)
    if has(record, "bon_best", "loser_list") or has(record, "conversation_input", "chosen", "reject"):
        return "rmb"
    if has(record, "question", "response_A", "response_B", "label"):
        return "judgebench"
    if has(record, "input", "output_1", "output_2", "label"):
        return "llmbar"
    if has(record, "prompt", "response_1", "response_2") and (has(record, "scores") or has(record, "winner")):
        return "ppe"
    if lists and has(record, "prompt", "num_correct"):
        return "rewardbench2"
    if lists and has(record, "prompt") and len(record["chosen"]) == len(record["rejected"]) == 3 and isinstance(record["chosen"][0], str):
        return "rm-bench"
    if has(record, "prompt", "chosen", "rejected") and (has(record, "subset") or _plain(table.name) in PRIOR_SETS):
        return "rewardbench"
    return None


def _plain(name: str) -> str:
    """A table's own name, without its folders and the numbers of a part."""
    return re.sub(r"-\d+-of-\d+$", "", name.rsplit("/", 1)[-1])


def _inner_name(table: Table) -> str:
    """What a table is about: its own name, or its folder's where all are called dataset."""
    name = re.sub(r"[./]dataset$", "", table.name)
    return table.path.parent.name if name == "dataset" else _plain(name) if _plain(name) in PRIOR_SETS else name


# ---------------------------------------------------------------------------------------------- items
# a reader takes a record, the name of its table where there are several, and that name in any case


def _rewardbench(record: Record, within: str, _: str) -> _Item:
    subset = within if within in PRIOR_SETS else needed_word(record, "subset")
    return _Item(_prompt(record, "prompt"), subset, [_answer(record, "chosen")], [_answer(record, "rejected")], word(record, "id") or "")


def _rewardbench2(record: Record, _within: str, _: str) -> _Item:
    right, wrong = _texts(record, "chosen"), _texts(record, "rejected")
    n = integer(record, "num_correct")
    if n != len(right) or not wrong:
        raise WrongField("num_correct", n, f"There are {len(right)} chosen and {len(wrong)} rejected responses.")
    return _Item(_prompt(record, "prompt"), needed_word(record, "subset"), right, wrong, word(record, "id") or "")


def _rm_bench(record: Record, within: str, name: str) -> _Item:
    right, wrong = _texts(record, "chosen"), _texts(record, "rejected")
    if len(right) != 3 or len(wrong) != 3:
        field = "chosen" if len(right) != 3 else "rejected"
        raise WrongField(field, record[field], f"Give three responses: {', '.join(STYLES)}.")
    domain = word(record, "domain") or re.sub(r"_filtered$", "", within or name)
    return _Item(_prompt(record, "prompt"), domain, right, wrong, word(record, "id") or "")


def _rmb(record: Record, within: str, name: str) -> _Item:
    path = word(record, "category_path") or within or name
    prompt = _prompt(record, "conversation_input")
    if "bon_best" in record:
        losers = record.get("loser_list")
        if not isinstance(losers, list) or not losers:
            raise WrongField("loser_list", losers, "Give a list of one or more responses that lose.")
        return _Item(prompt, _goal("best-of-n", path), [_of(record["bon_best"], "bon_best")], [_of(x, "loser_list") for x in losers], path)
    return _Item(prompt, _goal("pairs", path), [_of(record.get("chosen"), "chosen")], [_of(record.get("reject"), "reject")], path)


def _goal(what: str, path: str) -> str:
    """pairs, helpfulness."""
    found = re.search(r"help|harm", path.lower())
    return f"{what}, {'helpfulness' if found[0] == 'help' else 'harmlessness'}" if found else what


def _ppe(record: Record, within: str, name: str) -> _Item:
    domain = within or next((w for f in ("domain", "category", "type", "language") if (w := word(record, f))), name)
    prompt, called = _prompt(record, "prompt"), word(record, "question_id") or ""
    if "scores" not in record:
        winner = needed_word(record, "winner")
        texts = [_answer(record, "response_1"), _answer(record, "response_2")]
        if winner not in ("model_a", "model_b"):  # a tie has nothing to be right about
            return _Item(prompt, domain, texts, [], called, [False, False], [])
        return _Item(prompt, domain, texts, [], called, [winner == "model_a", winner == "model_b"])
    scores = record["scores"]
    if not isinstance(scores, list) or not scores:
        raise WrongField("scores", scores, "Give for each response whether it is right.")
    texts = [_answer(record, f"response_{i + 1}") for i in range(len(scores))]
    right = [bool(s) for s in scores]
    given = record.get("sampled_conflict_pairs")
    if given is not None and not _pairs_of_places(given, len(texts)):
        raise WrongField("sampled_conflict_pairs", given, f"Give a list of pairs of places, from 0 to {len(texts) - 1}, of two responses.")
    pairs = None if given is None else [(i, j) if right[i] else (j, i) for i, j in given if right[i] != right[j]]
    return _Item(prompt, domain, texts, [], called, right, pairs)


def _pairs_of_places(value: object, n: int) -> bool:
    """Whether it is a list of pairs of numbers from 0 to n - 1."""
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(i) is int and 0 <= i < n for i in pair)
        for pair in cast("list[object]", value)
    )


_JUDGEBENCH = {"mmlu": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "mathematics", "livecodebench": "coding"}


def _judgebench(record: Record, _within: str, _: str) -> _Item:
    source, label = word(record, "source") or "", text(record, "label")
    if label not in ("A>B", "B>A"):
        raise WrongField("label", label, "Use A>B or B>A.")
    a, b = text(record, "response_A"), text(record, "response_B")
    subset = next((part for begin, part in _JUDGEBENCH.items() if source.startswith(begin)), source or "all")
    right, wrong = (a, b) if label == "A>B" else (b, a)
    return _Item(_prompt(record, "question"), subset, [right], [wrong], word(record, "pair_id") or "")


def _llmbar(record: Record, within: str, name: str) -> _Item:
    label = integer(record, "label")
    if label not in (1, 2):
        raise WrongField("label", record.get("label"), "Use 1 or 2 for the better output.")
    texts = [text(record, f"output_{k}") for k in (1, 2)]
    return _Item(
        text(record, "input"), word(record, "subset") or within or name, [texts[label - 1]], [texts[2 - label]], word(record, "idx") or ""
    )


_READERS: dict[Kind, Callable[[Record, str, str], _Item]] = {
    "rewardbench": _rewardbench, "rewardbench2": _rewardbench2, "rmb": _rmb, "rm-bench": _rm_bench, "ppe": _ppe,
    "judgebench": _judgebench, "llmbar": _llmbar,
}  # fmt: skip


# ---------------------------------------------------------------------------------------------- fields


def _prompt(record: Record, name: str) -> Prompt:
    """A text, or messages; a single message by the user is its text."""
    value = record.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        raise missing(record, name)
    if not isinstance(value, list) or not all(isinstance(turn, dict) and has(turn, "role", "content") for turn in value):
        raise WrongField(name, value, "Give a text, or messages with role and content.")
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in value]
    return turns[0]["content"] if len(turns) == 1 and turns[0]["role"] == "user" else turns


def _answer(record: Record, name: str) -> str:
    """A text, or what the last of several messages says."""
    value = record.get(name)
    if isinstance(value, list) and value and isinstance(value[-1], dict) and isinstance(value[-1].get("content"), str):
        return value[-1]["content"]
    return text(record, name)


def _texts(record: Record, name: str) -> list[str]:
    value = record.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise WrongField(name, value, "Give a list of texts.")
    return value


def _of(value: object, name: str) -> str:
    """The answer of one of RMB's responses."""
    if not isinstance(value, Mapping) or not isinstance(value.get("answer"), str):
        raise WrongField(name, value, "Give a response with the field answer.")
    return value["answer"]
