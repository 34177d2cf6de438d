"""What a judgment is, and `Feedback`: many judgments as dictionary-encoded columns.

Conventions
-----------
A *judgment* is one rater's answer about one or more *responses* to a *prompt*, in the order shown.
Absence is represented, never invented. The fields of a batch of judgments are in `columns`.

Codes are row numbers: `judgments["responses"]` holds rows of `responses`, `judgments["prompt"]` rows of `prompts`,
`judgments["rater"]` rows of `raters`. A response with text is identified by (prompt, text), so a text that is judged many
times is held, and later encoded, once. A response without text (an image, a leaderboard entry) is identified by its id alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from seamark.arrays import ArrayLike, read_arrays
from seamark.columns import COLUMNS, COVARIATE, JUDGMENT_COLUMNS, KIND, OUTCOME, check_frame, completed, covariates_of, to_frame
from seamark.encoding import Coded, content_hashes, encode, first_known, first_value, fold, pad, renumber, to_index, written
from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.outputs import whole_file, whole_folder

FORMAT_VERSION = 1
_MARK = "seamark.json"
"""The file that tells a folder written by `Feedback.to_parquet`."""

# ---------------------------------------------------------------------------------------------- one record


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError("must be a finite number")
    return value


_Number = Annotated[float, BeforeValidator(_finite)]
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Record):
    """One turn of a conversation."""

    role: str
    content: str


class Response(_Record):
    """One response as shown."""

    text: str | None = None
    id: str | None = None
    """Name of a response without text (an image, a leaderboard entry), or of one with text."""
    model: str | None = None
    """The source model that wrote it."""
    act: Literal["answer", "ask_back", "refuse"] | None = None
    revision_of: str | None = None
    """Id of the response that this one edits or revises."""
    covariates: dict[str, _Number] | None = None
    """What is known about it as it was shown here, by name: the length of this text of a model that writes many, its price, ..."""

    @field_validator("covariates")
    @classmethod
    def _each_named(cls, covariates: dict[str, float] | None) -> dict[str, float] | None:
        if "" in (covariates or ()):
            raise ValueError("a covariate needs a name, as length in {'length': 412}")
        return covariates

    @model_validator(mode="after")
    def _named(self) -> Response:
        if self.text is None and self.id is None:
            raise ValueError("a response needs a text or an id")
        return self


class Rater(_Record):
    """Who answered."""

    id: str
    kind: Literal["person", "model", "rule"] | None = None
    group: str | None = None
    profile: dict[str, str | int | float | bool | None] | None = None


class Judgment(_Record):
    """One judgment: the record of Seamark's own JSONL, one per line."""

    kind: Literal["pair", "choice", "ranking", "rating", "thumbs", "label"]
    responses: tuple[Response, ...] = Field(min_length=1)
    prompt: str | tuple[Message, ...] | None = None
    prompt_id: str | None = None
    id: str | None = None
    order_known: bool | None = None
    outcome: Literal["left", "right", "tie", "both_bad", "cannot_tell", "skipped", "answered"] = "answered"
    reason: str | None = None
    strength: _Whole | None = None
    strength_levels: _Whole | None = None
    best: _Whole | None = None
    worst: _Whole | None = None
    ranks: tuple[_Whole, ...] | None = None
    rating: _Number | None = None
    scale: tuple[_Number, _Number] | None = None
    thumb: bool | None = None
    label: str | None = None
    axis: str | None = None
    measure: Literal["preference", "reward", "cost"] | None = None
    target: Literal["response", "span", "critique", "principle"] | None = None
    span: tuple[_Whole, _Whole] | None = None
    pair_type: str | None = None
    rater: Rater | None = None
    ui_version: str | None = None
    guideline_version: str | None = None
    team: str | None = None
    time: datetime | None = None
    seconds: _Number | None = None
    session: str | None = None
    position: _Whole | None = None
    confidence: _Number | None = None
    rationale: str | None = None
    assistance: str | None = None
    provenance: str | None = None
    weight: _Number | None = None
    privacy: str | None = None

    def to_columns(self) -> dict[str, Any]:
        """One row of `COLUMNS`, without `line` and what was not given."""
        shown = self.responses
        row = {"outcome": self.outcome} | {name: getattr(self, name) for name in self.model_fields_set - _NESTED}
        names = dict.fromkeys(name for r in shown for name in r.covariates or ())
        row |= {COVARIATE + name: [(r.covariates or {}).get(name) for r in shown] for name in names}
        messages = None if self.prompt is None or isinstance(self.prompt, str) else [m.model_dump() for m in self.prompt]
        row |= {
            "prompt": json.dumps(messages, ensure_ascii=False) if messages is not None else self.prompt,
            "prompt_is_messages": messages is not None if self.prompt is not None else None,
            "texts": _unless_empty([r.text for r in shown]),
            "ids": _unless_empty([r.id for r in shown]),
            "models": _unless_empty([r.model for r in shown]),
            "acts": _unless_empty([r.act for r in shown]),
            "revisions_of": _unless_empty([r.revision_of for r in shown]),
            "time": self.time if self.time is None or self.time.tzinfo else self.time.replace(tzinfo=UTC),
        }
        if self.scale is not None:
            row |= {"scale_low": self.scale[0], "scale_high": self.scale[1]}
        if self.span is not None:
            row |= {"span_start": self.span[0], "span_end": self.span[1]}
        if self.rater is not None:
            profile = self.rater.profile
            row |= {
                "rater": self.rater.id,
                "rater_kind": self.rater.kind,
                "group": self.rater.group,
                "rater_profile": json.dumps(profile, sort_keys=True, ensure_ascii=False) if profile is not None else None,
            }
        return row


def _unless_empty(values: list[Any]) -> list[Any] | None:
    return None if values.count(None) == len(values) else values


_NESTED = {"responses", "prompt", "scale", "span", "rater", "time"}
"""Fields of a judgment that are several columns."""


def parse_judgment(record: object, *, source: str, line: int | None) -> Judgment:
    """The judgment in one decoded JSON record.

    Raises
    ------
    InvalidRecord
        With the first field that is wrong.
    """
    try:
        return Judgment.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "record"
        value = None if first["type"] == "missing" else first.get("input")
        raise InvalidRecord(source, line, name, value, first["msg"] + ".") from None


# ---------------------------------------------------------------------------------------------- many records


@dataclass(frozen=True)
class LoadReport:
    """How a source was read."""

    source: str = ""
    format: str = ""
    skipped: tuple[str, ...] = ()
    """One message per record left out under `on_error="skip"`."""
    notes: tuple[str, ...] = ()
    """What was readable but odd: byte order mark, repeated ids, ..."""
    derived: tuple[str, ...] = ()
    """Fields that were made from the judgments themselves, such as opinion groups: that answers go with them is by construction."""


@dataclass(frozen=True)
class Feedback:
    """Many judgments, with the prompts, responses and raters they are about.

    Build it with `seamark.load`, `Feedback.from_columns` or `Feedback.from_judgments`.
    """

    judgments: pl.DataFrame
    """One row per judgment: `prompt`, `responses` (list) and `rater` are codes (null: not known); the rest as in COLUMNS,
    with kind and outcome as enumerations, and covariates of the responses shown (`covariate.NAME`: lists of numbers)."""
    responses: pl.DataFrame
    """One row per distinct response: id (content id), name (id given), prompt (code, null for id-only), text, act, revision_of."""
    prompts: pl.DataFrame
    """One row per distinct prompt: id (content id), name (id given), text, is_messages."""
    raters: pl.DataFrame
    """One row per rater: id, kind, profile (JSON object)."""
    report: LoadReport = field(default_factory=LoadReport)

    # ------------------------------------------------------------------ building

    @staticmethod
    def from_judgments(judgments: Iterable[Judgment]) -> Feedback:
        """Feedback from judgments made in Python."""
        rows = [j.to_columns() for j in judgments]
        given = dict.fromkeys(covariates_of([name for row in rows for name in row]))
        return Feedback.from_columns({name: [row.get(name) for row in rows] for name in (*COLUMNS, *given) if name != "line"})

    @staticmethod
    def from_columns(
        columns: Mapping[str, Sequence[Any] | pl.Series] | pl.DataFrame,
        *,
        source: str = "columns",
        on_error: Literal["stop", "skip"] = "stop",
        report: LoadReport | None = None,
    ) -> Feedback:
        """Feedback from a batch of columns (see `COLUMNS`), or from a frame of them.

        Raises
        ------
        InvalidRecord
            At the first judgment that is not valid, unless `on_error` is skip.
        UnreadableSource
            If nothing usable is left.
        """
        frame = completed(columns) if isinstance(columns, pl.DataFrame) else to_frame(columns)
        frame, skipped = check_frame(frame, source=source, on_error=on_error)
        report = report or LoadReport(source=source)
        report = replace(report, skipped=report.skipped + tuple(skipped))
        if frame.height == 0:
            raise UnreadableSource(source, "no usable judgment is left", "Check the format (--format) and the columns (--columns).")
        return _encode(frame, report)

    @staticmethod
    def from_arrays(
        *,
        names: Mapping[str, Sequence[str]] | None = None,
        source: str = "arrays",
        on_error: Literal["stop", "skip"] = "stop",
        report: LoadReport | None = None,
        **columns: ArrayLike,
    ) -> Feedback:
        """Feedback from arrays of one kind of judgment, one entry per judgment and no Python per row: tens of millions in seconds.

        Parameters
        ----------
        columns
            Arrays of shape (n,): NumPy, polars, Arrow, pandas or lists; or one value for all judgments. The names are those of a plain
            table (docs/formats.md). Pairs: `left` and `right` are texts, `left_id` and `right_id` names (of models on a leaderboard, of
            images), `left_model` and `right_model` source models, and `outcome` is a word of `OUTCOMES`, or whether the left one was
            preferred. One response: `response`, `response_id`, `response_model`, with `rating`, `thumb` or `label`. Any kind: `prompt`,
            `prompt_id`, `rater`, and every scalar field of `COLUMNS` (`group`, `axis`, `strength`, `weight`, `time`, `seconds`, ...).
            Numbers under any other name that begins with a side are covariates of what was shown there: `left_length` and `right_length`
            are the covariate `length`; `left_length` alone is the difference, left less right.
        names
            What whole numbers stand for, by field: response, model, prompt, rater, outcome, ... ``{"response": ["gpt", "llama"],
            "outcome": ["right", "left", "tie"]}``; -1 is not known. Whole numbers without names are names themselves, as text.
        source, on_error, report
            As in `from_columns`.

        Returns
        -------
        Feedback
            The same as `from_columns` makes of the same judgments.

        Raises
        ------
        InvalidRecord
            At the first judgment that is not valid, unless `on_error` is skip.
        InvalidSetting
            If the arrays do not make a judgment, are of unequal length, or are of a type that cannot be read.
        UnreadableSource
            If nothing usable is left.

        Examples
        --------
        >>> votes = Feedback.from_arrays(left_id=np.array([0, 1]), right_id=np.array([1, 2]), outcome=np.array([True, False]))
        >>> votes, votes.responses["name"].to_list(), votes.judgments["outcome"].to_list()
        (Feedback(2 judgments, 3 responses, 0 prompts, 0 raters), ['0', '1', '2'], ['left', 'right'])
        """
        found = read_arrays(columns, names or {}, source=source, on_error=on_error)
        report = report or LoadReport(source=source)
        report = replace(report, skipped=report.skipped + tuple(found.messages))
        return _assemble(found.frame, found.n_shown, text=found.text, name=found.name, coded=found.coded, report=report)

    # ------------------------------------------------------------------ sizes and views

    @property
    def n_judgments(self) -> int:
        return self.judgments.height

    @property
    def n_responses(self) -> int:
        return self.responses.height

    @property
    def n_prompts(self) -> int:
        return self.prompts.height

    @property
    def n_raters(self) -> int:
        return self.raters.height

    def __len__(self) -> int:
        return self.n_judgments

    def __repr__(self) -> str:
        return (
            f"Feedback({self.n_judgments:,} judgments, {self.n_responses:,} responses, "
            f"{self.n_prompts:,} prompts, {self.n_raters:,} raters)"
        )

    def has(self, column: str) -> bool:
        """Whether the field is known for at least one judgment."""
        return column in self.judgments.columns and self.judgments[column].null_count() < self.n_judgments

    def pairs(self) -> pl.DataFrame:
        """The judgments of kind pair as flat columns: row (position in `judgments`), left, right (codes), and the rest."""
        frame = self.judgments.with_row_index("row").filter(pl.col("kind") == "pair")
        left, right = frame["responses"].explode(empty_as_null=False).to_numpy().reshape(-1, 2).T
        return frame.with_columns(pl.Series("left", left), pl.Series("right", right))

    # ------------------------------------------------------------------ parts

    def filter(self, rows: pl.Expr | NDArray[np.bool_]) -> Feedback:
        """The judgments for which the expression (over `judgments`) or mask holds, and only what they mention."""
        mask = pl.Series(rows) if isinstance(rows, np.ndarray) else rows
        return _compact(replace(self, judgments=self.judgments.filter(mask)))

    def split(self, *, by: str = "prompt", test: float = 0.2, seed: int = 0) -> tuple[Feedback, Feedback]:
        """Train and test parts that share no prompt (or rater, group, time, source, prompt_cluster; judgment: plain rows).

        Whole units go to one side; the test side gets about the share `test` of the judgments. `time` puts the latest last.

        Raises
        ------
        InvalidSetting
            If the unit is unknown, or there are fewer than two of it.
        """
        if not 0 < test < 1:
            raise InvalidSetting("test", test, "Use a share between 0 and 1.")
        if by == "time":
            if not self.has("time"):
                raise InvalidSetting("by", by, "The data has no times; split by prompt or rater.")
            order = self.judgments["time"].fill_null(strategy="min").to_numpy().argsort(kind="stable")
            held = np.zeros(self.n_judgments, dtype=bool)
            held[order[self.n_judgments - max(1, round(test * self.n_judgments)) :]] = True
            return self.filter(~held), self.filter(held)
        unit = self.units(by)
        counts = np.bincount(unit)
        if len(counts) < 2:
            raise InvalidSetting("by", by, f"There is only one {by.replace('_', ' ')}; split by something that varies, or by judgment.")
        order = np.random.default_rng(seed).permutation(len(counts))
        # stop at the unit whose inclusion brings the share nearest to the wish, keeping both sides non-empty
        reached = np.cumsum(counts[order])
        cut = int(np.argmin(np.abs(reached - test * self.n_judgments)[:-1])) + 1
        held = np.isin(unit, order[:cut])
        return self.filter(~held), self.filter(held)

    def units(self, by: str) -> NDArray[np.int64]:
        """A code per judgment for what it is to be grouped by: prompt, rater, group, source, prompt_cluster or judgment.

        Judgments for which it is not known form one unit. `source` is the set of source models shown.
        """
        frame = self.judgments
        if by == "judgment":
            return np.arange(self.n_judgments)
        if by in ("prompt", "rater"):
            series = frame[by].cast(pl.Int64).fill_null(-1)
        elif by == "prompt_cluster":
            clusters = np.append(cluster_texts(self.prompts["text"].fill_null("").to_list()), -1)
            series = pl.Series(clusters[frame["prompt"].cast(pl.Int64).fill_null(-1).to_numpy()])
        elif by == "source":
            series = frame["models"].list.sort().list.join("|", ignore_nulls=True).fill_null("")
        elif by in frame.columns and frame[by].dtype == pl.String:
            series = frame[by].cast(pl.String).fill_null("")
        else:
            raise InvalidSetting("by", by, "Use prompt, rater, group, time, source, prompt_cluster, judgment or a text field.")
        return encode([series]).codes.ravel().astype(np.int64)

    def rater_profile(self, name: str) -> pl.Series:
        """A column of the raters' profiles, one entry per rater (null where not known)."""
        quote = '"' if "'" in name else "'"  # without quotes the path would end at a space or a comma, at another column
        return self.raters["profile"].str.json_path_match(f"$[{quote}{name}{quote}]")

    @property
    def profile_names(self) -> tuple[str, ...]:
        """The columns of the raters' profiles, sorted."""
        return tuple(sorted({name for profile in self.raters["profile"].drop_nulls().unique() for name in json.loads(profile)}))

    # ------------------------------------------------------------------ identity

    @cached_property
    def fingerprint(self) -> str:
        """A 256-bit hash (BLAKE2b) of all judgments in order; the same for the same content however it was stored."""
        total = hashlib.blake2b(f"seamark-feedback-{FORMAT_VERSION}".encode(), digest_size=32)
        prompt = _row_digests(self.prompts.select(pl.col("name"), pl.col("text"), pl.col("is_messages").cast(pl.String)))
        response = _row_digests(self.responses.select("name", "text", "act", "revision_of"))
        rater = _row_digests(self.raters.select("id", "kind", "profile"))
        coded = {"prompt": prompt, "responses": response, "rater": rater}
        for name in sorted(self.judgments.columns):
            series = self.judgments[name]
            if series.null_count() == len(series):
                continue  # an absent field and a field that is null throughout are the same content
            total.update(name.encode())
            for piece in _column_bytes(series, coded.get(name)):
                total.update(piece)
        return total.hexdigest()

    # ------------------------------------------------------------------ files

    def to_jsonl(self, path: str | Path) -> None:
        """Write Seamark's own JSONL: one `Judgment` per line, fields that are not known left out."""
        texts, names = self.responses["text"].to_list(), self.responses["name"].to_list()
        acts, revisions = self.responses["act"].to_list(), self.responses["revision_of"].to_list()
        prompts = self.prompts.to_dicts()
        raters = [
            {"id": r["id"], "kind": r["kind"], "profile": json.loads(r["profile"]) if r["profile"] else None}
            for r in self.raters.to_dicts()
        ]
        with whole_file(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as out:
            for row in self.judgments.iter_rows(named=True):
                models = row.pop("models") or [None] * len(row["responses"])
                numbers = {name.removeprefix(COVARIATE): row.pop(name) for name in covariates_of(list(row))}
                shown = [
                    {"text": texts[r], "id": names[r], "model": m, "act": acts[r], "revision_of": revisions[r]}
                    for r, m in zip(row.pop("responses"), models, strict=True)
                ]
                for slot, response in enumerate(shown):
                    known = {name: values[slot] for name, values in numbers.items() if values is not None and values[slot] is not None}
                    response["covariates"] = known or None
                record = {"kind": row.pop("kind"), "responses": [_known(s) for s in shown]}
                if (code := row.pop("prompt")) is not None:
                    prompt = prompts[code]
                    record["prompt"] = json.loads(prompt["text"]) if prompt["is_messages"] else prompt["text"]
                    record["prompt_id"] = prompt["name"]
                if (code := row.pop("rater")) is not None:
                    record["rater"] = _known(raters[code] | {"group": row.pop("group")})
                for low, high, name in (("scale_low", "scale_high", "scale"), ("span_start", "span_end", "span")):
                    bounds = [row.pop(low), row.pop(high)]
                    record[name] = bounds if None not in bounds else None
                if row["time"] is not None:
                    row["time"] = row["time"].isoformat()
                out.write(json.dumps(_known(record | row), ensure_ascii=False) + "\n")

    def to_parquet(self, folder: str | Path) -> None:
        """Write a folder of four Parquet tables, which `seamark.load` reads without loss."""
        with whole_folder(folder, mark=_MARK) as fresh:
            for name in ("judgments", "responses", "prompts", "raters"):
                getattr(self, name).write_parquet(fresh / f"{name}.parquet", compression="zstd")
            record = {"seamark": "feedback", "version": FORMAT_VERSION, "fingerprint": self.fingerprint}
            (fresh / _MARK).write_text(json.dumps(record), encoding="utf-8")

    @staticmethod
    def from_parquet(folder: str | Path) -> Feedback:
        """Read what `to_parquet` wrote.

        Raises
        ------
        UnreadableSource
            If a table is missing or the content does not match its fingerprint.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / _MARK).read_text(encoding="utf-8"))
            tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("judgments", "responses", "prompts", "raters")}
            tables["judgments"] = tables["judgments"].with_columns(pl.col("kind").cast(KIND), pl.col("outcome").cast(OUTCOME))
            fingerprint = meta["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise UnreadableSource(str(folder), f"not a Seamark data folder ({error})", "Write one with Feedback.to_parquet.") from None
        feedback = Feedback(**tables, report=LoadReport(source=str(folder), format="seamark"))
        if feedback.fingerprint != fingerprint:
            raise UnreadableSource(str(folder), "the tables do not match their fingerprint", "The folder was changed; write it again.")
        return feedback


def require_usable(feedback: Feedback) -> None:
    """Nothing, where at least one judgment says something about value: an answered rating, thumbs or label, or an answered
    comparison of two different responses.

    Raises
    ------
    UnreadableSource
        If there is none, as when every pair shows one text twice, or every question was skipped.
    """
    answered = feedback.judgments.filter(~pl.col("outcome").is_in(["cannot_tell", "skipped"]))
    if answered["kind"].is_in(["rating", "thumbs", "label"]).any():
        return
    shown = answered["responses"]
    if (shown.list.min() != shown.list.max()).any():
        return
    n, skipped = feedback.n_judgments, feedback.n_judgments - answered.height
    raise UnreadableSource(
        feedback.report.source or "the feedback",
        f"nothing can be learned from {'its only judgment' if n == 1 else f'any of its {n:,} judgments'}: "
        f"{answered.height:,} compare a text with itself, {skipped:,} were skipped or answered 'cannot tell'",
        "Check which fields hold the two responses and the answer (--format, --columns).",
    )


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def _encode(frame: pl.DataFrame, report: LoadReport) -> Feedback:
    """Ids to integers, once."""
    n_shown = frame.select(pl.coalesce(pl.col("texts").list.len(), pl.col("ids").list.len()).cast(pl.Int64))["texts"].to_numpy()

    def slots(name: str) -> pl.Series | None:
        return pad(frame[name], n_shown) if frame[name].null_count() < frame.height else None

    texts, ids = slots("texts"), slots("ids")
    return _assemble(
        frame,
        n_shown,
        text=None if texts is None else encode([texts]),
        name=None if ids is None else encode([ids]),
        act=slots("acts"),
        revision_of=slots("revisions_of"),
        report=report,
    )


def _assemble(
    frame: pl.DataFrame,
    n_shown: NDArray[np.int64],
    *,
    text: Coded | None,
    name: Coded | None,
    act: pl.Series | None = None,
    revision_of: pl.Series | None = None,
    coded: Mapping[str, Coded] | None = None,
    report: LoadReport,
) -> Feedback:
    """The four tables, from the columns of the judgments and the contents of the slots, all judgments' slots in a row.

    `coded` has prompt, prompt_id and rater where they are coded already; else they are columns of the frame.
    """
    given = {column: encode([frame[column]]) for column in ("prompt", "prompt_id", "rater") if column in frame.columns}
    given = {column: known for column, known in (given | dict(coded or {})).items() if len(known.values)}
    prompt, prompts = _prompts(frame, given.get("prompt"), given.get("prompt_id"))
    slot_prompt = None if prompt is None or text is None else np.repeat(prompt, n_shown)
    response, responses = _responses(text, name, slot_prompt, prompts["id"])
    n = len(responses)
    responses = responses.with_columns(
        *(
            (pl.lit(None, dtype=pl.String) if values is None else first_known(values, response, n)).alias(column)
            for column, values in (("act", act), ("revision_of", revision_of))
        )
    )
    rater = given.get("rater")
    who = None if rater is None else rater.codes.ravel()
    ids = pl.Series([], dtype=pl.String) if rater is None else rater.values
    raters = pl.DataFrame({"id": ids}).with_columns(
        *(
            pl.lit(None, dtype=pl.String).alias(column)
            if who is None or from_column not in frame.columns
            else first_known(frame[from_column], who, len(ids)).alias(column)
            for column, from_column in (("kind", "rater_kind"), ("profile", "rater_profile"))
        )
    )
    judgments = frame.select(*JUDGMENT_COLUMNS, *map(_known_somewhere, frame.select(covariates_of(frame.columns)))).with_columns(
        (pl.lit(None, dtype=pl.UInt32) if prompt is None else to_index(prompt)).alias("prompt"),
        fold(to_index(response), n_shown).alias("responses"),
        (pl.lit(None, dtype=pl.UInt32) if who is None else to_index(who)).alias("rater"),
    )
    return Feedback(judgments, responses, prompts, raters, report)


def _known_somewhere(numbers: pl.Series) -> pl.Series:
    """Lists of numbers, null where none of them is known: there is one way of knowing nothing."""
    if not numbers.drop_nulls().explode(empty_as_null=False).null_count():
        return numbers
    known = pl.col(numbers.name).list.drop_nulls().list.len() > 0
    return numbers.to_frame().select(pl.when(known).then(pl.col(numbers.name)))[numbers.name]


def _prompts(frame: pl.DataFrame, text: Coded | None, name: Coded | None) -> tuple[NDArray[np.int32] | None, pl.DataFrame]:
    """The prompt of each judgment (None: no prompt is known), and the prompts: by text where there is one, else by the id given."""
    schema = {"id": pl.String, "name": pl.String, "text": pl.String, "is_messages": pl.Boolean}
    n_texts = 0 if text is None else len(text.values)
    if text is not None and name is not None:
        key = np.where(text.codes >= 0, text.codes, np.where(name.codes >= 0, name.codes + n_texts, -1))
        both = renumber([key[:, 0]], n_texts + len(name.values))
        code, order = both.codes.ravel(), both.values
    elif text is not None or name is not None:
        only = text if text is not None else name
        assert only is not None
        code, order = only.codes.ravel(), pl.Series(np.arange(len(only.values)))
    else:
        return None, pl.DataFrame(schema=schema)
    n = len(order)
    nothing = pl.Series([], dtype=pl.String)
    contents = pl.concat(["t:" + (nothing if text is None else text.values), "i:" + (nothing if name is None else name.values)])
    is_messages = pl.Series([None], dtype=pl.Boolean).new_from_index(0, n)
    if "prompt_is_messages" in frame.columns:
        is_messages = first_known(frame["prompt_is_messages"], code, n)
    table = {
        "id": written(content_hashes(contents.gather(order))),
        "name": pl.Series([None], dtype=pl.String).new_from_index(0, n) if name is None else first_value(name, code, n),
        "text": pl.Series([None], dtype=pl.String).new_from_index(0, n) if text is None else first_value(text, code, n),
        "is_messages": is_messages,
    }
    return code, pl.DataFrame(table, schema=schema)


def _responses(
    text: Coded | None, name: Coded | None, prompt: NDArray[np.int32] | None, prompt_ids: pl.Series
) -> tuple[NDArray[np.int32], pl.DataFrame]:
    """The response of each slot, and the responses: by prompt and text where there is a text, else by the id given."""
    schema = {"id": pl.String, "name": pl.String, "prompt": pl.UInt32, "text": pl.String}
    if text is None:
        assert name is not None
        ids = written(content_hashes("id\x1f" + name.values))
        named = pl.DataFrame({"id": ids, "name": name.values}, schema={"id": pl.String, "name": pl.String})
        return name.codes.ravel(), named.with_columns(_absent_prompt(), pl.lit(None, dtype=pl.String).alias("text"))
    n_texts, n_scopes = len(text.values), len(prompt_ids) + 1
    words = text.codes.ravel()
    if prompt is None and (words >= 0).all():
        code, content, scope = words, np.arange(n_texts), np.full(n_texts, -1)
    else:
        key = words.astype(np.int64)
        if prompt is not None:
            key += (prompt.astype(np.int64) + 1) * n_texts
        if name is not None:
            key = np.where(words >= 0, key, n_scopes * n_texts + name.codes.ravel())
        distinct = encode([pl.Series(key)])
        code, key = distinct.codes.ravel(), distinct.values.to_numpy()
        is_text = key < n_scopes * n_texts
        scope = np.where(is_text, key // max(n_texts, 1) - 1, -2)
        content = np.where(is_text, key % max(n_texts, 1), -1)
    n = len(content)
    texts = text.values.gather(to_index(content))
    names = pl.Series([None], dtype=pl.String).new_from_index(0, n) if name is None else first_value(name, code, n)
    scopes = pl.concat([pl.Series(["id", ""]), prompt_ids]).gather(scope + 2)
    hashed = pl.DataFrame({"scope": scopes, "content": texts.fill_null(names)}).select(pl.concat_str("scope", "content", separator="\x1f"))
    table = {"id": written(content_hashes(hashed.to_series())), "name": names, "prompt": to_index(np.maximum(scope, -1)), "text": texts}
    return code, pl.DataFrame(table, schema=schema)


def _absent_prompt() -> pl.Expr:
    return pl.lit(None, dtype=pl.UInt32).alias("prompt")


def _compact(feedback: Feedback) -> Feedback:
    """Drop prompts, responses and raters that no judgment mentions; keep the order of the rest."""
    judgments = feedback.judgments
    used = np.zeros(feedback.n_responses, dtype=bool)
    used[judgments["responses"].explode().to_numpy()] = True
    prompts_used = np.zeros(feedback.n_prompts, dtype=bool)
    prompts_used[judgments["prompt"].drop_nulls().to_numpy()] = True
    raters_used = np.zeros(feedback.n_raters, dtype=bool)
    raters_used[judgments["rater"].drop_nulls().to_numpy()] = True

    def renumber(mask: NDArray[np.bool_]) -> pl.Series:
        return pl.Series(np.maximum(np.cumsum(mask) - 1, 0)).cast(pl.UInt32)

    prompt_map, response_map, rater_map = renumber(prompts_used), renumber(used), renumber(raters_used)
    lengths = judgments["responses"].list.len().to_numpy()
    flat = response_map.gather(judgments["responses"].explode())
    folded = fold(flat, lengths.astype(np.int64))
    judgments = judgments.with_columns(
        (prompt_map.gather(judgments["prompt"]) if feedback.n_prompts else judgments["prompt"]).alias("prompt"),
        folded.alias("responses"),
        (rater_map.gather(judgments["rater"]) if feedback.n_raters else judgments["rater"]).alias("rater"),
    )
    responses = feedback.responses.filter(pl.Series(used))
    if feedback.n_prompts:
        responses = responses.with_columns(prompt_map.gather(responses["prompt"]).alias("prompt"))
    return replace(
        feedback,
        judgments=judgments,
        responses=responses,
        prompts=feedback.prompts.filter(pl.Series(prompts_used)),
        raters=feedback.raters.filter(pl.Series(raters_used)),
    )


def _row_digests(table: pl.DataFrame) -> NDArray[np.uint64]:
    joined = table.select(pl.concat_str([pl.col(c).fill_null("\x00") for c in table.columns], separator="\x1f"))
    return content_hashes(joined.to_series())


def _column_bytes(series: pl.Series, digests: NDArray[np.uint64] | None) -> Iterator[bytes | memoryview]:
    """Canonical bytes of a column, in pieces: null mask, then values; codes and text as content hashes."""
    if series.null_count():
        yield np.packbits(series.is_null().to_numpy()).tobytes()
    if series.dtype.base_type() == pl.List:
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        yield (lengths[:1] if (lengths == lengths[0]).all() else lengths).tobytes()
        yield from _column_bytes(series.drop_nulls().explode(empty_as_null=False), digests)
    elif digests is not None:
        table = np.append(digests, np.uint64(0))
        codes = series.fill_null(len(digests)).to_numpy()
        yield from (table[codes[i : i + 2**20]].data for i in range(0, len(codes), 2**20))
    elif series.dtype.base_type() in (pl.String, pl.Enum):
        coded = encode([series])
        # which strings there are, in order of appearance, and where: a code takes as few bytes as their number allows
        yield content_hashes(coded.values).tobytes()
        yield coded.codes.ravel().astype(np.min_scalar_type(-len(coded.values) - 1)).data
    elif series.dtype == pl.Boolean:
        yield np.packbits(series.fill_null(value=False).to_numpy()).tobytes()
    else:
        series = series.dt.epoch("us") if series.dtype.base_type() == pl.Datetime else series
        yield np.ascontiguousarray(series.cast(pl.Float64).fill_null(0.0).to_numpy()).data


def word_vectors(texts: Sequence[str]) -> NDArray[np.float64]:
    """(n, 512) hashed words of each text, weighed by how rare they are, of length 1: texts on the same topic point the same way."""
    n = len(texts)
    counts = np.zeros((n, 512))
    for row, text in enumerate(texts):
        for word in set(text.lower().split()):
            counts[row, int.from_bytes(hashlib.blake2b(word.encode(), digest_size=2).digest(), "little") % 512] += 1
    frequency = (counts > 0).sum(0)
    # a word of one text only says nothing about which others are near
    counts *= np.where(frequency > 1, np.log(n / np.maximum(frequency, 1)), 0.0)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)


def cluster_texts(texts: Sequence[str], *, n_clusters: int | None = None, seed: int = 0) -> NDArray[np.int64]:
    """A cluster per text: spherical k-means on hashed word counts.

    Neighbouring prompts (same topic, paraphrases) fall together, so that a split by cluster keeps them on one side.
    """
    n = len(texts)
    k = min(n_clusters or max(2, min(50, n // 10)), n)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    counts = word_vectors(texts)
    rng = np.random.default_rng(seed)
    best, best_fit = np.zeros(n, dtype=np.int64), -np.inf
    for _ in range(5):
        centres = counts[rng.choice(n, k, replace=False)]
        label = np.zeros(n, dtype=np.int64)
        for _ in range(20):
            label = np.argmax(counts @ centres.T, axis=1)
            sums = np.zeros_like(centres)
            np.add.at(sums, label, counts)
            centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        fit = float((counts * centres[label]).sum())
        if fit > best_fit:
            best, best_fit = label, fit
    return best
