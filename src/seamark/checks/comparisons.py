"""What judgments of every kind say in the same two forms: comparisons of two responses, and answers to a repeated question.

Conventions
-----------
A *comparison* is one rater's order of two responses: `sign` is +1 where `left` is preferred, -1 where `right` is, 0 where
neither is. A pair is one comparison; a choice, a ranking and a set of ratings imply several.
A *unit* is a question that may be answered more than once: the same prompt, the same set of responses in any order, the same
axis and kind. Codes of what is not known are -1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.intervals import Interval
from seamark.records import Feedback

Codes = NDArray[np.int64]

IMPLIED_LIMIT = 300_000
"""At most this many comparisons are taken from rankings, and as many from ratings; above it a uniform sample is drawn."""


def codes_of(series: pl.Series) -> Codes:
    """A column of codes as int64, -1 where it is null."""
    return series.cast(pl.Int64).fill_null(-1).to_numpy()


def code_text(series: pl.Series) -> tuple[Codes, list[str]]:
    """Codes of a text column in order of frequency (-1 for null), and the distinct values."""
    counts = (
        pl.DataFrame({"value": series.cast(pl.String)})
        .drop_nulls()
        .group_by("value")
        .len()
        .sort(["len", "value"], descending=[True, False])
    )
    values = counts["value"].to_list()
    if not values:
        return np.full(len(series), -1, dtype=np.int64), []
    lookup = counts.select("value").with_row_index("code")
    joined = pl.DataFrame({"value": series.cast(pl.String)}).join(lookup, on="value", how="left", maintain_order="left")
    return codes_of(joined["code"]), values


def combine(*columns: NDArray[np.int64]) -> Codes:
    """One code per distinct combination of codes, 0 .. n-1."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    size = 1
    for column in columns:
        if not len(column):
            return code
        low, high = int(column.min()), int(column.max())
        width = high - low + 1
        if width == 1:
            continue
        if size * width >= 2**62:
            code, size = compact(code)
        if size * width >= 2**62:
            column, width = compact(column)
            low = 0
        code = code * width + (column - low)
        size *= width
    return compact(code)[0]


def compact(codes: NDArray[np.int64]) -> tuple[Codes, int]:
    """The same codes numbered 0 .. n-1 without gaps, and n."""
    if not len(codes):
        return codes.astype(np.int64), 0
    low, high = int(codes.min()), int(codes.max())
    if high - low < 4 * len(codes):  # a table is several times faster than sorting
        present = np.zeros(high - low + 1, dtype=bool)
        present[codes - low] = True
        return (np.cumsum(present) - 1)[codes - low], int(present.sum())
    distinct, inverse = np.unique(codes, return_inverse=True)
    return inverse.astype(np.int64), len(distinct)


def pairs_within(group: NDArray[np.int64], *, limit: int, rng: np.random.Generator) -> tuple[Codes, Codes, int]:
    """All pairs of rows with the same group, or a uniform sample of `limit` of them.

    Returns
    -------
    first, second : (n,) rows, first earlier in the data than second; and how many pairs there are in all.
    """
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    n = len(order)
    if n == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0
    ends = np.searchsorted(ordered, ordered, side="right")
    later = ends - np.arange(n) - 1  # rows of the same group that follow
    before = np.cumsum(later) - later
    total = int(later.sum())
    if total <= limit:
        position = np.repeat(np.arange(n), later)
        offset = np.arange(total) - np.repeat(before, later)
    else:
        # drawn with replacement and repeats dropped: the loss is of the order of limit / total
        drawn = np.unique(rng.integers(0, total, size=limit))
        position = np.searchsorted(before + later, drawn, side="right")
        offset = drawn - before[position]
    return order[position], order[position + 1 + offset], total


_DIRECTNESS = (("pair", "choice"), ("ranking",), ("rating",))


@dataclass(frozen=True)
class Comparisons:
    """All comparisons in the data, one entry each."""

    row: Codes
    """Judgment that it comes from (of two ratings: the earlier)."""
    left: Codes
    right: Codes
    """Responses; left was listed first."""
    sign: Codes
    """+1 left preferred, -1 right preferred, 0 neither (tie, both bad, equal ratings or ranks)."""
    prompt: Codes
    rater: Codes
    axis: Codes
    kind: Codes
    """Row of `KIND_NAMES`."""
    axes: tuple[str, ...]
    notes: tuple[str, ...]
    """What was sampled or left out, in words."""
    sampled: bool
    question: Codes
    """(n_judgments,) the unit of each judgment, see `question_units`; not one per comparison."""

    KIND_NAMES = ("pair", "choice", "ranking", "rating")

    def __len__(self) -> int:
        return len(self.row)

    def where(self, mask: NDArray[np.bool_]) -> Comparisons:
        """The comparisons for which the mask holds."""
        return replace(
            self,
            row=self.row[mask],
            left=self.left[mask],
            right=self.right[mask],
            sign=self.sign[mask],
            prompt=self.prompt[mask],
            rater=self.rater[mask],
            axis=self.axis[mask],
            kind=self.kind[mask],
        )

    def decided(self) -> Comparisons:
        """Those with a winner."""
        return self.where(self.sign != 0)

    def by_directness(self) -> list[NDArray[np.bool_]]:
        """Masks of what somebody stated (pairs, choices), what rankings imply and what ratings imply, as far as they occur.

        Two ratings by one rater imply an order, but nobody compared; many are implied, and pooled with answers to "which is
        better?" they drown them.
        """
        masks = [np.isin(self.kind, [self.KIND_NAMES.index(name) for name in names]) for names in _DIRECTNESS]
        return [mask for mask in masks if mask.any()]

    def most_direct(self) -> Comparisons:
        """The first of `by_directness`."""
        return self.where(self.by_directness()[0]) if len(self) else self

    def units(self) -> Codes:
        """A code per comparison for its question: prompt, axis and the two responses in any order."""
        return combine(self.prompt, self.axis, np.minimum(self.left, self.right), np.maximum(self.left, self.right))

    @property
    def topic_name(self) -> str:
        """What `topic` is, in words."""
        return "prompt" if (self.prompt >= 0).all() else "prompt or, without one, pair"

    def topic(self) -> Codes:
        """What repeats: the prompt, or the two responses where there is no prompt."""
        if not len(self) or (self.prompt >= 0).all():
            return self.prompt
        own = combine(np.minimum(self.left, self.right), np.maximum(self.left, self.right))
        return np.where(self.prompt >= 0, self.prompt, own + 1 + int(self.prompt.max()))


def compare(feedback: Feedback, *, seed: int = 0) -> Comparisons:
    """Every comparison that the judgments state or imply.

    pair: one. choice: the best against every other, every other against the worst. ranking: all pairs of slots. rating and
    thumbs: all pairs of different responses to one prompt that one rater rated on one axis and scale; without rater ids, that
    anyone rated. A higher number is preferred, unless the measure is cost. Judgments about spans, critiques or principles and
    those that are skipped or "cannot tell" give none.
    """
    rng = np.random.default_rng(seed)
    frame = feedback.judgments
    axis, axes = code_text(frame["axis"])
    prompt, rater = codes_of(frame["prompt"]), codes_of(frame["rater"])
    on_response = frame.select(pl.col("target").is_null() | (pl.col("target") == "response"))["target"].to_numpy()
    kinds = frame["kind"].cast(pl.String)
    answered = frame.select(~pl.col("outcome").is_in(["cannot_tell", "skipped"]))["outcome"].to_numpy()
    parts: list[tuple[Codes, Codes, Codes, Codes, int]] = []  # row, left, right, sign, kind
    notes: list[str] = []

    def rows_of(*names: str) -> Codes:
        return np.flatnonzero(kinds.is_in(list(names)).to_numpy() & answered & on_response)

    def note(what: str, kept: int, total: int) -> None:
        if kept < total:
            notes.append(f"{kept:,} of the {total:,} pairs implied by {what} were drawn at random (seed {seed})")

    rows = rows_of("pair")
    if len(rows):
        part = frame[rows]
        sign = part.select((pl.col("outcome") == "left").cast(pl.Int64) - (pl.col("outcome") == "right").cast(pl.Int64))
        parts.append(
            (rows, codes_of(part["responses"].list.get(0)), codes_of(part["responses"].list.get(1)), sign.to_series().to_numpy(), 0)
        )

    rows = rows_of("choice", "ranking")
    if len(rows):
        part = frame[rows]
        n_shown = part["responses"].list.len().cast(pl.Int64).to_numpy()
        response = codes_of(part["responses"].explode())
        owner = np.repeat(np.arange(len(rows)), n_shown)
        slot = np.arange(len(response)) - np.repeat(np.cumsum(n_shown) - n_shown, n_shown)
        is_ranking = (part["kind"].cast(pl.String) == "ranking").to_numpy()
        best, worst = codes_of(part["best"]), codes_of(part["worst"])
        # a choice is a ranking with three levels: the best, the others, the worst; both_bad has one level and says nothing
        level = np.where(slot == best[owner], 0, np.where(slot == worst[owner], 2, 1))
        known = np.where(is_ranking, part["ranks"].is_not_null().to_numpy(), best >= 0)
        if (is_ranking & known).any():
            level[(is_ranking & known)[owner]] = part.filter(pl.Series(is_ranking & known))["ranks"].explode().to_numpy()
        for kind, name, mask in ((1, "choices", ~is_ranking & known), (2, "rankings", is_ranking & known)):
            slots = np.flatnonzero(mask[owner])
            first, second, total = pairs_within(owner[slots], limit=IMPLIED_LIMIT, rng=rng)
            note(name, len(first), total)
            first, second = slots[first], slots[second]
            sign = np.sign(level[second] - level[first])
            keep = sign != 0 if kind == 1 else np.ones(len(sign), dtype=bool)  # two that were not chosen are not a tie
            parts.append((rows[owner[first]][keep], response[first][keep], response[second][keep], sign[keep].astype(np.int64), kind))

    rows = rows_of("rating", "thumbs")
    if len(rows):
        part = frame[rows].select(
            value=pl.when(pl.col("kind").cast(pl.String) == "thumbs").then(pl.col("thumb").cast(pl.Float64)).otherwise(pl.col("rating"))
            * pl.when(pl.col("measure").cast(pl.String) == "cost").then(-1.0).otherwise(1.0),
            response=pl.col("responses").list.get(0),
        )
        response, value = codes_of(part["response"]), part["value"].to_numpy()
        scale = [code_text(frame[name][rows])[0] for name in ("kind", "measure", "scale_low", "scale_high")]
        group = combine(prompt[rows], axis[rows], rater[rows], *scale)
        first, second, total = pairs_within(group, limit=IMPLIED_LIMIT, rng=rng)
        note("ratings", len(first), total)
        keep = response[first] != response[second]
        first, second = first[keep], second[keep]
        parts.append((rows[first], response[first], response[second], np.sign(value[first] - value[second]).astype(np.int64), 3))
        if (rater[rows] < 0).any() and keep.any():
            notes.append("ratings without rater ids were compared across raters")

    if parts:
        row, left, right, sign = (np.concatenate([p[i] for p in parts]) for i in range(4))
        kind = np.repeat([p[4] for p in parts], [len(p[0]) for p in parts]).astype(np.int64)
    else:
        row = left = right = sign = kind = np.zeros(0, dtype=np.int64)
    sampled = any("drawn at random" in n for n in notes)
    return Comparisons(
        row, left, right, sign, prompt[row], rater[row], axis[row], kind, tuple(axes), tuple(notes), sampled, question_units(feedback)
    )


def question_units(feedback: Feedback) -> Codes:
    """A code per judgment for its unit; judgments of the same unit ask the same question."""
    frame = feedback.judgments
    columns = [codes_of(frame["prompt"]), *response_sets(frame)]
    for name in ("kind", "axis", "measure", "target"):
        if name == "kind" or feedback.has(name):
            columns.append(code_text(frame[name])[0])
    for name in ("span_start", "span_end"):
        if feedback.has(name):
            columns.append(codes_of(frame[name]))
    return combine(*columns)


def response_sets(frame: pl.DataFrame) -> list[Codes]:
    """Columns that are equal exactly where the sets of responses are: lowest, highest and, of three or more, all."""
    shown = frame["responses"]
    low, high = codes_of(shown.list.min()), codes_of(shown.list.max())
    if int(shown.list.len().max() or 0) <= 2:  # type: ignore[arg-type]  (a list length is an int)
        return [low, high]
    joined = frame.select(pl.col("responses").list.sort().cast(pl.List(pl.String)).list.join(","))["responses"]
    return [code_text(joined)[0]]


def counted(n: int, noun: str) -> str:
    """1 prompt, 2,310 prompts."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def percent(value: float) -> str:
    """A share in words: 0.724 is 72.4%, 0.5 is 50%, 0.0042 is 0.42%."""
    points = 100 * value
    return f"{points:.2g}%" if 0 < points < 1 else f"{points:.1f}".removesuffix(".0") + "%"


def bracket(interval: Interval) -> str:
    """[low, high] of a share in per cent."""
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def bracket_number(low: float, high: float) -> str:
    return f"[{low:.2f}, {high:.2f}]"
