"""What a judgment is, and `Feedback`: many judgments as dictionary-encoded columns.

Conventions
-----------
A *judgment* is one rater's answer about one or more *responses* to a *prompt*, in the order shown.
Readers hand over batches of *columns* (`COLUMNS` below): one list per field, one entry per judgment, None where the
data does not say. Absence is represented, never invented.

Codes are row numbers: `judgments["responses"]` holds rows of `responses`, `judgments["prompt"]` rows of `prompts`,
`judgments["rater"]` rows of `raters`. A response with text is identified by (prompt, text), so a text that is judged many
times is held, and later encoded, once. A response without text (an image, a leaderboard entry) is identified by its id alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.outputs import whole_file, whole_folder

FORMAT_VERSION = 1
_MARK = "seamark.json"
"""The file that tells a folder written by `Feedback.to_parquet`."""

KINDS = ("pair", "choice", "ranking", "rating", "thumbs", "label")
"""pair: which of two; choice: best (and worst) of k; ranking: k in order, ties allowed; rating: a number on a scale;
thumbs: up or down; label: a nominal category."""

OUTCOMES = ("left", "right", "tie", "both_bad", "cannot_tell", "skipped", "answered")
"""What was answered. `left` is the response shown first. Kinds other than pair use answered, both_bad (choice: none is
acceptable), cannot_tell and skipped; the answer itself is in best, ranks, rating, thumb or label."""

TARGETS = ("response", "span", "critique", "principle")
ACTS = ("answer", "ask_back", "refuse")
MEASURES = ("preference", "reward", "cost")
RATER_KINDS = ("person", "model", "rule")

COLUMNS: dict[str, Any] = {
    # where the record came from
    "line": pl.Int64,
    "id": pl.String,
    "kind": pl.String,
    # what was shown: prompt text, or a JSON list of {"role", "content"} when prompt_is_messages
    "prompt": pl.String,
    "prompt_is_messages": pl.Boolean,
    "prompt_id": pl.String,
    # one entry per response, in the order shown; parallel lists (null where the field is unknown for all of them)
    "texts": pl.List(pl.String),
    "ids": pl.List(pl.String),
    "models": pl.List(pl.String),
    "acts": pl.List(pl.String),
    "revisions_of": pl.List(pl.String),
    "order_known": pl.Boolean,
    # what was answered
    "outcome": pl.String,
    "reason": pl.String,
    "strength": pl.Int64,
    "strength_levels": pl.Int64,
    "best": pl.Int64,
    "worst": pl.Int64,
    "ranks": pl.List(pl.Int64),
    "rating": pl.Float64,
    "scale_low": pl.Float64,
    "scale_high": pl.Float64,
    "thumb": pl.Boolean,
    "label": pl.String,
    "axis": pl.String,
    "measure": pl.String,
    "target": pl.String,
    "span_start": pl.Int64,
    "span_end": pl.Int64,
    "pair_type": pl.String,
    # who answered
    "rater": pl.String,
    "rater_kind": pl.String,
    "rater_profile": pl.String,
    "group": pl.String,
    # how
    "ui_version": pl.String,
    "guideline_version": pl.String,
    "team": pl.String,
    "time": pl.Datetime("us", "UTC"),
    "seconds": pl.Float64,
    "session": pl.String,
    "position": pl.Int64,
    "confidence": pl.Float64,
    "rationale": pl.String,
    "assistance": pl.String,
    "provenance": pl.String,
    "weight": pl.Float64,
    "privacy": pl.String,
}
"""The fields of a batch of columns and their types. `prompt`, `texts` and `ids` identify prompts and responses; `group` is
the rater's group at this judgment (it may change); `rater_profile` is a JSON object; `strength` runs from 1 (slightly) to
`strength_levels`; `ranks` has 1 for the best and equal numbers for ties; `seconds` is active time; `measure` says whether a
number is a preference, a reward or a cost (never mixed in one fit)."""

_CODED = (
    "line",
    "prompt",
    "prompt_is_messages",
    "prompt_id",
    "texts",
    "ids",
    "acts",
    "revisions_of",
    "rater",
    "rater_kind",
    "rater_profile",
)
_JUDGMENT_COLUMNS = tuple(name for name in COLUMNS if name not in _CODED)


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


# ---------------------------------------------------------------------------------------------- columns


def to_frame(columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """A frame of `COLUMNS` from a batch of columns; fields not given are null.

    Raises
    ------
    ValueError
        Our own bug: an unknown field or lists of unequal length.
    """
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise ValueError(f"unknown columns {sorted(unknown)}")
    n = len(next(iter(columns.values()))) if columns else 0
    return pl.DataFrame([_series(name, columns.get(name, [None] * n), dtype) for name, dtype in COLUMNS.items()])


def _series(name: str, values: Sequence[Any], dtype: Any) -> pl.Series:
    """A typed column; lists are built flat and folded, which is many times faster than row by row."""
    if not isinstance(dtype, pl.List) or isinstance(values, pl.Series):
        return pl.Series(name, values, dtype=dtype, strict=False)
    known = [v is not None for v in values]
    lists = [v for v in values if v is not None]
    flat = pl.Series([item for v in lists for item in v], dtype=dtype.inner, strict=False)
    folded = _fold(flat, np.fromiter((len(v) for v in lists), dtype=np.int64, count=len(lists)))
    if all(known):
        return folded.alias(name)
    rows = np.where(known, np.cumsum(known) - 1, -1)
    return folded.gather(pl.Series(rows).replace(-1, None).cast(pl.UInt32)).alias(name)


def _fold(flat: pl.Series, lengths: NDArray[np.int64]) -> pl.Series:
    """Consecutive runs of `flat` as lists."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    some = pl.DataFrame({"row": row, "value": flat}).group_by("row", maintain_order=True).agg("value")
    if some.height == len(lengths):
        return some["value"]
    every = pl.DataFrame({"row": np.arange(len(lengths))}).join(some, on="row", how="left", maintain_order="left")
    return every.select(pl.col("value").fill_null(pl.lit([], dtype=pl.List(flat.dtype))))["value"]


def _problems() -> list[tuple[str, pl.Expr, str]]:
    """(field, expression that is true where the field is wrong, remedy); order is the order of report."""
    n_shown = pl.coalesce(pl.col("texts").list.len(), pl.col("ids").list.len()).fill_null(0)
    kind, outcome = pl.col("kind"), pl.col("outcome")
    answered = outcome == "answered"
    unnamed = (
        pl.when(pl.col("texts").is_null())
        .then(pl.col("ids").list.drop_nulls().list.len().fill_null(0) < n_shown)
        .when(pl.col("ids").is_null())
        .then(pl.col("texts").list.drop_nulls().list.len() < n_shown)
        .otherwise(pl.lit(False))
    )

    def not_in(column: str, allowed: Sequence[str]) -> pl.Expr:
        return pl.col(column).is_not_null() & ~pl.col(column).is_in(list(allowed))

    def not_finite(column: str) -> pl.Expr:
        return pl.col(column).is_not_null() & ~pl.col(column).is_finite()

    def outside(column: str) -> pl.Expr:
        return pl.col(column).is_not_null() & ((pl.col(column) < 0) | (pl.col(column) >= n_shown))

    return [
        ("kind", kind.is_null() | ~kind.is_in(list(KINDS)), f"Use one of {', '.join(KINDS)}."),
        ("outcome", outcome.is_null() | ~outcome.is_in(list(OUTCOMES)), f"Use one of {', '.join(OUTCOMES)}."),
        ("responses", (n_shown < 1) | unnamed, "Every response needs a text or an id."),
        ("responses", (kind == "pair") & (n_shown != 2), "A pair has exactly two responses."),
        ("responses", kind.is_in(["choice", "ranking"]) & (n_shown < 2), "A choice or ranking has at least two responses."),
        ("responses", kind.is_in(["rating", "thumbs", "label"]) & (n_shown != 1), "A rating, thumbs or label has exactly one response."),
        ("outcome", (kind == "pair") & answered, "A pair is answered left, right, tie, both_bad, cannot_tell or skipped."),
        ("outcome", (kind != "pair") & outcome.is_in(["left", "right", "tie"]), "left, right and tie are answers to a pair; use answered."),
        (
            "outcome",
            kind.is_in(["rating", "thumbs", "label", "ranking"]) & (outcome == "both_bad"),
            "both_bad is an answer to a pair or a choice.",
        ),
        ("rating", not_finite("rating"), "A rating is a finite number."),
        ("rating", (kind == "rating") & answered & pl.col("rating").is_null(), "An answered rating needs a number."),
        (
            "rating",
            (pl.col("rating") < pl.col("scale_low")) | (pl.col("rating") > pl.col("scale_high")),
            "The rating lies outside its scale.",
        ),
        ("thumb", (kind == "thumbs") & answered & pl.col("thumb").is_null(), "An answered thumbs needs true or false."),
        ("label", (kind == "label") & answered & pl.col("label").is_null(), "An answered label needs a category."),
        ("best", (kind == "choice") & answered & pl.col("best").is_null(), "An answered choice needs the index of the best response."),
        ("best", outside("best"), "The index must point at a response shown (0 is the first)."),
        ("worst", outside("worst"), "The index must point at a response shown (0 is the first)."),
        ("worst", pl.col("worst").is_not_null() & (pl.col("worst") == pl.col("best")), "Best and worst must differ."),
        (
            "ranks",
            (kind == "ranking") & answered & (pl.col("ranks").list.len().fill_null(0) != n_shown),
            "An answered ranking needs one rank per response.",
        ),
        ("ranks", pl.col("ranks").is_not_null() & (pl.col("ranks").list.min() < 1), "Ranks start at 1."),
        (
            "ranks",
            pl.col("ranks").is_not_null() & (pl.col("ranks").list.drop_nulls().list.len() < pl.col("ranks").list.len()),
            "Every response needs a rank.",
        ),
        ("scale_low", pl.col("scale_low").is_null() != pl.col("scale_high").is_null(), "Give both ends of the scale, or neither."),
        ("span_start", pl.col("span_start").is_null() != pl.col("span_end").is_null(), "Give both ends of the span, or neither."),
        (
            "strength",
            pl.col("strength").is_not_null()
            & ((pl.col("strength") < 1) | (pl.col("strength") > pl.col("strength_levels").fill_null(2**31))),
            "Strength runs from 1 to strength_levels.",
        ),
        ("weight", not_finite("weight") | (pl.col("weight") < 0), "A weight is a finite number, 0 or more."),
        ("seconds", not_finite("seconds") | (pl.col("seconds") < 0), "Seconds are a finite number, 0 or more."),
        ("confidence", not_finite("confidence"), "Confidence is a finite number."),
        ("measure", not_in("measure", MEASURES), f"Use one of {', '.join(MEASURES)}."),
        ("target", not_in("target", TARGETS), f"Use one of {', '.join(TARGETS)}."),
        ("rater_kind", not_in("rater_kind", RATER_KINDS), f"Use one of {', '.join(RATER_KINDS)}."),
        (
            "acts",
            pl.col("acts").is_not_null()
            & (pl.col("acts").list.set_difference(pl.lit([*ACTS, None], dtype=pl.List(pl.String))).list.len() > 0),
            f"Use one of {', '.join(ACTS)}.",
        ),
    ]


def check_frame(frame: pl.DataFrame, *, source: str, on_error: Literal["stop", "skip"] = "stop") -> tuple[pl.DataFrame, list[str]]:
    """The frame with only valid judgments, and one message per judgment left out.

    Raises
    ------
    InvalidRecord
        At the first invalid judgment, unless `on_error` is skip.
    """
    # a rule about a field that no judgment has cannot fail; "kind", "outcome" and "responses" always run
    absent = {name for name in frame.columns if frame[name].null_count() == frame.height} - {"kind", "outcome"}
    rules = [
        rule
        for rule in _problems()
        if rule[0] not in absent or rule[0] in ("rating", "thumb", "label", "best", "ranks", "scale_low", "span_start")
    ]
    any_bad = frame.select(pl.any_horizontal(expr.fill_null(False) for _, expr, _ in rules).alias("bad"))["bad"]
    if not any_bad.any():
        return frame, []
    wrong = frame.filter(any_bad)
    broken = wrong.select(expr.fill_null(False).alias(str(i)) for i, (_, expr, _) in enumerate(rules)).to_numpy()
    messages: list[str] = []
    for row in range(wrong.height):
        name, _, remedy = rules[int(broken[row].argmax())]
        value = wrong["texts" if name == "responses" else name][row]
        error = InvalidRecord(source, wrong["line"][row], name, value.to_list() if isinstance(value, pl.Series) else value, remedy)
        if on_error == "stop":
            raise error
        messages.append(str(error))
    return frame.filter(~any_bad), messages


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


def _digests(values: Iterable[str | None]) -> NDArray[np.uint64]:
    """A 64-bit content hash per string; null hashes as itself."""
    return np.array(
        [0 if v is None else int.from_bytes(hashlib.blake2b(v.encode(), digest_size=8).digest(), "little") for v in values],
        dtype=np.uint64,
    )


def _codes(series: pl.Series) -> tuple[NDArray[np.int64], pl.Series]:
    """Codes in order of first appearance (-1 for null) and the distinct values."""
    distinct = series.drop_nulls().unique(maintain_order=True)
    lookup = pl.DataFrame({"value": distinct, "code": np.arange(len(distinct), dtype=np.int64)})
    codes = pl.DataFrame({"value": series}).join(lookup, on="value", how="left", maintain_order="left")["code"]
    return codes.fill_null(-1).to_numpy(), distinct


def _first(values: pl.Series, codes: NDArray[np.int64], n: int) -> pl.Series:
    """Per code, the first value that is not null."""
    frame = pl.DataFrame({"code": codes, "value": values}).filter((pl.col("code") >= 0) & pl.col("value").is_not_null())
    first = frame.unique("code", keep="first", maintain_order=True)
    return pl.DataFrame({"code": np.arange(n, dtype=np.int64)}).join(first, on="code", how="left", maintain_order="left")["value"]


@dataclass(frozen=True)
class Feedback:
    """Many judgments, with the prompts, responses and raters they are about.

    Build it with `seamark.load`, `Feedback.from_columns` or `Feedback.from_judgments`.
    """

    judgments: pl.DataFrame
    """One row per judgment: `prompt`, `responses` (list) and `rater` are codes (null: not known); the rest as in COLUMNS."""
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
        return Feedback.from_columns({name: [row.get(name) for row in rows] for name in COLUMNS if name != "line"})

    @staticmethod
    def from_columns(
        columns: Mapping[str, Sequence[Any]] | pl.DataFrame,
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
        frame = columns if isinstance(columns, pl.DataFrame) else to_frame(columns)
        frame, skipped = check_frame(frame, source=source, on_error=on_error)
        report = report or LoadReport(source=source)
        report = replace(report, skipped=report.skipped + tuple(skipped))
        if frame.height == 0:
            raise UnreadableSource(source, "no usable judgment is left", "Check the format (--format) and the columns (--columns).")
        return _encode(frame, report)

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
        shown = pl.col("responses")
        return frame.with_columns(shown.list.get(0).alias("left"), shown.list.get(1).alias("right"))

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
        return _codes(series)[0]

    def rater_profile(self, name: str) -> pl.Series:
        """A column of the raters' profiles, one entry per rater (null where not known)."""
        return self.raters["profile"].str.json_path_match(f"$.{name}")

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
            total.update(_column_bytes(series, coded.get(name)))
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
                shown = [
                    {"text": texts[r], "id": names[r], "model": m, "act": acts[r], "revision_of": revisions[r]}
                    for r, m in zip(row.pop("responses"), models, strict=True)
                ]
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
    # prompts: by text where there is one, else by the id given
    key = pl.when(pl.col("prompt").is_not_null()).then(pl.lit("t:") + pl.col("prompt")).otherwise(pl.lit("i:") + pl.col("prompt_id"))
    prompt, distinct = _codes(frame.select(key.alias("key"))["key"])
    n_prompts = len(distinct)
    prompts = pl.DataFrame(
        {
            "id": [f"{d:016x}" for d in _digests(distinct)],
            "name": _first(frame["prompt_id"], prompt, n_prompts),
            "text": _first(frame["prompt"], prompt, n_prompts),
            "is_messages": _first(frame["prompt_is_messages"], prompt, n_prompts),
        },
        schema={"id": pl.String, "name": pl.String, "text": pl.String, "is_messages": pl.Boolean},
    )
    # responses: explode the slots, code them, fold them back
    n_shown = frame.select(pl.coalesce(pl.col("texts").list.len(), pl.col("ids").list.len()).cast(pl.Int64))["texts"].to_numpy()
    judgment = np.repeat(np.arange(frame.height), n_shown)
    slots = pl.DataFrame({"prompt": pl.Series(prompt[judgment])}).with_columns(
        _exploded(frame, "texts", n_shown).alias("text"),
        _exploded(frame, "ids", n_shown).alias("name"),
        _exploded(frame, "acts", n_shown).alias("act"),
        _exploded(frame, "revisions_of", n_shown).alias("revision_of"),
    )
    has_text = pl.col("text").is_not_null()
    slots = slots.with_columns(
        pl.when(has_text).then(pl.col("prompt")).otherwise(-2).alias("scope"),
        pl.when(has_text).then(pl.col("text")).otherwise(pl.col("name")).alias("content"),
    )
    distinct_slots = slots.select("scope", "content").unique(maintain_order=True).with_row_index("code")
    code = slots.join(distinct_slots, on=["scope", "content"], how="left", maintain_order="left")["code"].to_numpy().astype(np.int64)
    n_responses = distinct_slots.height
    scope = distinct_slots["scope"].to_numpy()
    texts = _first(slots["text"], code, n_responses)
    content = distinct_slots["content"].to_list()
    prompt_ids = ["", *prompts["id"].to_list()]
    responses = pl.DataFrame(
        {
            "id": [
                f"{d:016x}"
                for d in _digests(f"{prompt_ids[s + 1] if s >= -1 else 'id'}\x1f{c}" for s, c in zip(scope, content, strict=True))
            ],
            "name": _first(slots["name"], code, n_responses),
            "prompt": pl.Series(np.where(scope >= 0, scope, -1)).replace(-1, None).cast(pl.UInt32),
            "text": texts,
            "act": _first(slots["act"], code, n_responses),
            "revision_of": _first(slots["revision_of"], code, n_responses),
        },
        schema_overrides={"name": pl.String, "text": pl.String, "act": pl.String, "revision_of": pl.String},
    )
    rater, rater_ids = _codes(frame["rater"])
    raters = pl.DataFrame(
        {
            "id": rater_ids,
            "kind": _first(frame["rater_kind"], rater, len(rater_ids)),
            "profile": _first(frame["rater_profile"], rater, len(rater_ids)),
        },
        schema={"id": pl.String, "kind": pl.String, "profile": pl.String},
    )
    judgments = frame.select(_JUDGMENT_COLUMNS).with_columns(
        pl.Series("prompt", prompt).replace(-1, None).cast(pl.UInt32),
        _fold(pl.Series(code.astype(np.uint32)), n_shown).alias("responses"),
        pl.Series("rater", rater).replace(-1, None).cast(pl.UInt32),
    )
    return Feedback(judgments, responses, prompts, raters, report)


def _exploded(frame: pl.DataFrame, name: str, n_shown: NDArray[np.int64]) -> pl.Series:
    """One entry per slot; a null list gives a null for each of its slots."""
    series = frame[name]
    total = int(n_shown.sum())
    if series.null_count() == len(series):
        return pl.Series(name, [None] * total, dtype=pl.String)
    known = series.is_not_null().to_numpy()
    out = np.full(total, -1, dtype=np.int64)
    values = series.drop_nulls().explode(empty_as_null=False)
    out[np.repeat(known, n_shown)] = np.arange(len(values))
    return values.gather(pl.Series(out).replace(-1, None).cast(pl.UInt32))


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
    folded = _fold(flat, lengths.astype(np.int64))
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
    return _digests(joined.to_series())


def _column_bytes(series: pl.Series, digests: NDArray[np.uint64] | None) -> bytes:
    """Canonical bytes of a column: null mask, then values; codes and text as content hashes."""
    mask = np.packbits(series.is_null().to_numpy()).tobytes() if series.null_count() else b""
    if series.dtype.base_type() == pl.List:
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        told = lengths[:1] if (lengths == lengths[0]).all() else lengths
        return mask + told.tobytes() + _column_bytes(series.drop_nulls().explode(empty_as_null=False), digests)
    if digests is not None:
        table = np.append(digests, np.uint64(0))
        return mask + table[series.cast(pl.Int64).fill_null(-1).to_numpy()].tobytes()
    if series.dtype == pl.String:
        codes, distinct = _codes(series)
        # which strings there are, in order of appearance, and where: a code takes as few bytes as their number allows
        return mask + _digests(distinct).tobytes() + codes.astype(np.min_scalar_type(-len(distinct) - 1)).tobytes()
    if series.dtype == pl.Boolean:
        return mask + np.packbits(series.fill_null(value=False).to_numpy()).tobytes()
    if series.dtype.base_type() == pl.Datetime:
        series = series.dt.epoch("us")
    return mask + np.ascontiguousarray(series.cast(pl.Float64).fill_null(0.0).to_numpy()).tobytes()


def cluster_texts(texts: Sequence[str], *, n_clusters: int | None = None, seed: int = 0) -> NDArray[np.int64]:
    """A cluster per text: spherical k-means on hashed word counts.

    Neighbouring prompts (same topic, paraphrases) fall together, so that a split by cluster keeps them on one side.
    """
    n = len(texts)
    k = min(n_clusters or max(2, min(50, n // 10)), n)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    counts = np.zeros((n, 512))
    for row, text in enumerate(texts):
        for word in set(text.lower().split()):
            counts[row, int.from_bytes(hashlib.blake2b(word.encode(), digest_size=2).digest(), "little") % 512] += 1
    frequency = (counts > 0).sum(0)
    # a word of one text only says nothing about which others are near
    counts *= np.where(frequency > 1, np.log(n / np.maximum(frequency, 1)), 0.0)
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
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
