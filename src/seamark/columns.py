"""What a batch of columns holds, and the rules that every judgment obeys.

Conventions
-----------
Readers hand over batches of *columns* (`COLUMNS` below): one list per field, one entry per judgment, None where the data does
not say. A field that nothing is known about is one null, whatever the number of judgments: it takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.encoding import fold, interleave, to_index
from seamark.errors import InvalidRecord

KINDS = ("pair", "choice", "ranking", "rating", "thumbs", "label")
"""pair: which of two; choice: best (and worst) of k; ranking: k in order, ties allowed; rating: a number on a scale;
thumbs: up or down; label: a nominal category."""

OUTCOMES = ("left", "right", "tie", "both_bad", "cannot_tell", "skipped", "answered")
"""What was answered. `left` is the response shown first. Kinds other than pair use answered, both_bad (choice: none is
acceptable), cannot_tell and skipped; the answer itself is in best, ranks, rating, thumb or label."""

KIND, OUTCOME = pl.Enum(KINDS), pl.Enum(OUTCOMES)
"""The types of these two columns of `judgments`: a byte a row instead of a text."""

TARGETS = ("response", "span", "critique", "principle")
ACTS = ("answer", "ask_back", "refuse")
MEASURES = ("preference", "reward", "cost")
RATER_KINDS = ("person", "model", "rule")
PRIVACY = r"(?:none|randomised_response\(\s*epsilon\s*=\s*([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)\s*\))(?:\s*;\s*cleaned\s*=\s*(before|after|never))?"
"""What `privacy` may say, as a regular expression of its epsilon and when labels were cleaned: see `seamark.models.privacy.Privacy`."""
PRIVACY_FORM = "Write randomised_response(epsilon=1.0); cleaned=before (or after, never), or none."

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
number is a preference, a reward or a cost (never mixed in one fit). Beside these there may be any number of covariates: see
`COVARIATE`."""

COVARIATE = "covariate."
"""Columns whose names begin so, `covariate.length`, hold a number for each response as it was shown in this judgment, in the order
shown: what its text was like, where the response is the model that wrote it. Lists of numbers, null where not known."""
NUMBERS = pl.List(pl.Float64)
"""The type of such a column."""


def dtype_of(name: str) -> Any:
    """The type of a column of a batch."""
    return NUMBERS if name.startswith(COVARIATE) else COLUMNS[name]


def covariates_of(names: Sequence[str]) -> list[str]:
    """Those of the columns that are covariates of slots."""
    return [name for name in names if name.startswith(COVARIATE) and name != COVARIATE]


_NOT_COVARIATES = ("", "id", "model")
"""What else a column named after a side holds: left_id, left_model."""


def covariate_of(name: str) -> str | None:
    """The covariate that a column named after a side holds: length for left_length. None where it holds another thing."""
    side, _, rest = name.partition("_")
    return rest if side in ("left", "right", "chosen", "rejected", "response") and rest not in _NOT_COVARIATES else None


def covariates_from(given: Mapping[str, pl.Series], sides: Sequence[str], n: int) -> dict[str, pl.Series]:
    """Covariates as lists, from columns (n,) named after the sides; that of the first of two sides alone is the difference."""
    out: dict[str, pl.Series] = {}
    unknown = pl.Series([None], dtype=pl.Float64).new_from_index(0, n)
    for name in dict.fromkeys(filter(None, map(covariate_of, given))):
        numbers = [given.get(f"{side}_{name}", unknown) for side in sides]
        if len(sides) == 2 and f"{sides[1]}_{name}" not in given:
            numbers = [numbers[0] / 2, -numbers[0] / 2]
        out[COVARIATE + name] = fold(interleave(numbers), np.full(n, len(sides), dtype=np.int64))
    return out


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
JUDGMENT_COLUMNS = tuple(name for name in COLUMNS if name not in _CODED)
"""Those that `Feedback.judgments` keeps as they are."""


# ---------------------------------------------------------------------------------------------- frames


def to_frame(columns: Mapping[str, Sequence[Any] | pl.Series]) -> pl.DataFrame:
    """A frame of `COLUMNS` from a batch of columns; fields not given are null.

    Raises
    ------
    ValueError
        Our own bug: an unknown field or lists of unequal length.
    """
    unknown = set(columns) - set(COLUMNS) - set(covariates_of(list(columns)))
    if unknown:
        raise ValueError(f"unknown columns {sorted(unknown)}")
    return completed(pl.DataFrame([_series(name, values, dtype_of(name)) for name, values in columns.items()]))


def completed(frame: pl.DataFrame) -> pl.DataFrame:
    """All of `COLUMNS`, in their order, and covariates; a field that nothing is known about is one null, however many rows there are."""
    if not frame.width:
        return pl.DataFrame(schema=COLUMNS)
    every = [*COLUMNS, *covariates_of(frame.columns)]
    known = {name for name in frame.columns if frame[name].null_count() < frame.height}
    kept = known or set(frame.columns)  # a literal has no length of its own: something else must give it
    return frame.select(pl.col(name) if name in kept else absent(name) for name in every)


def absent(name: str) -> pl.Expr:
    """A field that nothing is known about."""
    return pl.lit(None, dtype=dtype_of(name)).alias(name)


def _series(name: str, values: Sequence[Any] | pl.Series, dtype: Any) -> pl.Series:
    """A typed column; lists are built flat and folded, which is many times faster than row by row."""
    if not isinstance(dtype, pl.List) or isinstance(values, pl.Series):
        return pl.Series(name, values, dtype=dtype, strict=False)
    lists = [v for v in values if v is not None]
    flat = pl.Series([item for v in lists for item in v], dtype=dtype.inner, strict=False)
    folded = fold(flat, np.fromiter(map(len, lists), dtype=np.int64, count=len(lists)))
    if len(lists) == len(values):
        return folded.alias(name)
    known = np.fromiter((v is not None for v in values), dtype=bool, count=len(values))
    return folded.gather(to_index(np.where(known, np.cumsum(known) - 1, -1))).alias(name)


# ---------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True)
class Fault:
    """What is wrong with some rows: a field, the rows, and what to do."""

    name: str
    rows: pl.Expr
    remedy: str


def _problems(covariates: Sequence[str]) -> list[tuple[str, pl.Expr, str]]:
    """(field, expression that is true where the field is wrong, remedy); order is the order of report.

    Beside `COLUMNS` they read n_shown (responses shown), unnamed (one of them has neither text nor id) and uneven (the lists differ).
    """
    n_shown = pl.col("n_shown")
    kind, outcome = pl.col("kind"), pl.col("outcome")
    answered = outcome == "answered"

    def not_in(column: str, allowed: Sequence[str]) -> pl.Expr:
        return pl.col(column).is_not_null() & ~pl.col(column).is_in(list(allowed))

    def not_finite(column: str) -> pl.Expr:
        return pl.col(column).is_not_null() & ~pl.col(column).is_finite()

    def outside(column: str) -> pl.Expr:
        return pl.col(column).is_not_null() & ((pl.col(column) < 0) | (pl.col(column) >= n_shown))

    return [
        ("kind", kind.is_null(), f"Use one of {', '.join(KINDS)}."),
        ("outcome", outcome.is_null(), f"Use one of {', '.join(OUTCOMES)}."),
        ("responses", (n_shown < 1) | pl.col("unnamed"), "Every response needs a text or an id."),
        ("responses", pl.col("uneven"), "Texts and ids name the same responses; give as many of one as of the other."),
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
        ("privacy", ~pl.col("privacy").str.strip_chars().str.contains(f"^(?:{PRIVACY})$"), PRIVACY_FORM),
        ("measure", not_in("measure", MEASURES), f"Use one of {', '.join(MEASURES)}."),
        ("target", not_in("target", TARGETS), f"Use one of {', '.join(TARGETS)}."),
        ("rater_kind", not_in("rater_kind", RATER_KINDS), f"Use one of {', '.join(RATER_KINDS)}."),
        (
            "acts",
            pl.col("acts").is_not_null()
            & (pl.col("acts").list.set_difference(pl.lit([*ACTS, None], dtype=pl.List(pl.String))).list.len() > 0),
            f"Use one of {', '.join(ACTS)}.",
        ),
        *((name, pl.col(name).list.len() != n_shown, "Give one number per response, None where it is not known.") for name in covariates),
        *(
            # the sum is finite where all are, and many times faster than looking at each
            (name, ~pl.col(name).list.sum().is_finite(), "Give finite numbers, None where it is not known.")
            for name in covariates
        ),
    ]


def check_frame(frame: pl.DataFrame, *, source: str, on_error: Literal["stop", "skip"] = "stop") -> tuple[pl.DataFrame, list[str]]:
    """The frame with only valid judgments, kind and outcome as their enumerations, and one message per judgment left out.

    Raises
    ------
    InvalidRecord
        At the first invalid judgment, unless `on_error` is skip.
    """
    n_texts, n_ids = pl.col("texts").list.len(), pl.col("ids").list.len()
    lacking = [pl.col(name).list.len() > pl.col(name).list.drop_nulls().list.len() for name in ("texts", "ids")]
    told = frame.with_columns(
        pl.col("kind").cast(KIND, strict=False),
        pl.col("outcome").cast(OUTCOME, strict=False),
        pl.coalesce(n_texts, n_ids).fill_null(0).alias("n_shown"),
        (n_texts != n_ids).fill_null(value=False).alias("uneven"),
        pl.when(pl.col("texts").is_null()).then(lacking[1]).otherwise(lacking[0]).fill_null(value=False).alias("unnamed"),
    )
    if told["unnamed"].any():  # a response without text may yet have an id
        told = told.with_columns(pl.Series("unnamed", _unnamed(told)))

    def value(name: str, row: int) -> Any:
        if name == "responses":
            name = "ids" if frame["texts"][row] is None else "texts"
        return frame[name][row]

    bad, messages = bad_rows(told, value, source=source, on_error=on_error)
    told = told.drop("n_shown", "unnamed", "uneven")
    return (told if bad is None else told.filter(~bad)), messages


def _unnamed(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether a judgment shows a response that has neither text nor id."""
    both = frame["texts"].is_not_null() & frame["ids"].is_not_null() & ~frame["uneven"]
    out = frame["unnamed"].to_numpy().copy()
    rows = np.flatnonzero((frame["unnamed"] & both).to_numpy())
    part = frame[rows]
    named = part["texts"].explode(empty_as_null=False).is_not_null() | part["ids"].explode(empty_as_null=False).is_not_null()
    out[rows] = ~np.minimum.reduceat(named.to_numpy(), _starts(part["n_shown"])) if len(rows) else False
    return out


def _starts(lengths: pl.Series) -> NDArray[np.int64]:
    size = lengths.cast(pl.Int64).to_numpy()
    return np.cumsum(size) - size


def bad_rows(
    told: pl.DataFrame, value: Callable[[str, int], Any], *, source: str, on_error: Literal["stop", "skip"], faults: Sequence[Fault] = ()
) -> tuple[pl.Series | None, list[str]]:
    """Which judgments break a rule (None: none does), and a message for each.

    `told` has the columns that `_problems` reads; `value` gives a field of a row as it was given; `faults` were found before.
    """
    # a rule about a field that no judgment has cannot fail; "kind", "outcome" and "responses" always run
    covariates = covariates_of(told.columns)
    unknown = {name for name in (*COLUMNS, *covariates) if name not in told.columns or told[name].null_count() == told.height} - {
        "kind",
        "outcome",
    }
    needed = ("rating", "thumb", "label", "best", "ranks", "scale_low", "span_start")
    rules = [
        Fault(name, expr.fill_null(value=False), remedy)
        for name, expr, remedy in _problems(covariates)
        if name not in unknown or name in needed
    ]
    bad = told.select(pl.any_horizontal(rule.rows for rule in rules).alias("bad"))["bad"]
    for fault in faults:
        bad |= told.select(fault.rows.alias("bad"))["bad"]
    if not bad.any():
        return None, []
    rows = np.flatnonzero(bad.to_numpy())
    rows = rows[:1] if on_error == "stop" else rows
    rules = [*faults, *rules]
    broken = told.with_columns(rule.rows.alias(f"broken {i}") for i, rule in enumerate(rules))[rows]
    lines = broken["line"].to_list() if "line" in broken.columns else [None] * len(rows)
    which = broken.select(f"broken {i}" for i in range(len(rules))).to_numpy().argmax(1)
    messages: list[str] = []
    for row, line, index in zip(rows.tolist(), lines, which.tolist(), strict=True):
        shown = value(rules[index].name, row)
        shown = shown.to_list() if isinstance(shown, pl.Series) else shown
        error = InvalidRecord(source, row + 1 if line is None else line, rules[index].name, shown, rules[index].remedy)
        if on_error == "stop":
            raise error
        messages.append(str(error))
    return bad, messages
