"""Effects: how circumstances bend a judgment, by shifting a slot, scaling the gap, or making a random click likelier.

Conventions
-----------
Every effect is linear in parameters of its own on one of four scales, so that all of them share one machinery:

    slope     the rater's reliability, integrated out (`slopes`)
    shift     contrast + D f: position, leniency, the source model, tastes of raters, numbers known of a slot, propensity to skip
    scale     contrast * exp(X g): fatigue, guideline, team, stated confidence
    lapse     log odds of a random click + X l: haste

X codes a column of the judgments as numbers around 0 (`Covariate`), so that g = 0 is "no effect" and utilities are those of the
average circumstances. Columns are cut into at most `_BINS` levels: cells with equal levels stay one row with a count. The numbers
of `Bias` are not cut, since that would pull its coefficient towards 0: with them every judgment is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.columns import COVARIATE, covariates_of
from seamark.encoding import pad
from seamark.errors import InvalidSetting
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Role = Literal["scale", "lapse", "position", "leniency", "source"]

_BINS = 12
"""Most levels of a numeric column: within a twelfth of the data an effect moves little."""
PROMPT = "prompt"
"""What `Leniency` may be by that is no column of its own."""


@dataclass(frozen=True)
class Reliability:
    """Scale: how strongly a rater's answers follow the utilities.

    A rater is *careful* (slope normal around 1, cut at 0), *at chance* (slope 0) or, with one population and no groups, *opposed*
    (the mirror image of careful). The shares and the spread are estimated by marginal likelihood, each rater's slope being
    integrated out. Gauge: utilities are in logits of the median careful rater; the sign is the majority's.

    An opposed rater is not called malicious: from one-value data an adversary and a consistent minority look the same.
    """


@dataclass(frozen=True)
class Position:
    """Shift of the slot shown first, in logits, where the order is known."""

    per_rater: bool = False
    """Whether raters differ, with a common spread that is estimated."""
    by: str = ""
    """A column of the judgments (ui_version) whose levels differ in it."""


@dataclass(frozen=True)
class Leniency:
    """Shift of a rater's cut points in ratings and thumbs, in logits; the spread is estimated by marginal likelihood.

    With `by="prompt"` every prompt has a shift of its own, whose spread over prompts is estimated: some questions get high marks
    whatever is answered. What responses are worth is then learnt within prompts, where rewards are compared, and not from which
    questions are easy: not entirely, since what goes along with lenient prompts is told from them only as far as it differs within
    prompts too (Mundlak 1978). It takes several responses to a prompt; a prompt not seen before counts as the mean one.
    """

    by: str = ""
    """A column of the judgments (team, guideline_version) whose levels are lenient in common, or "prompt"."""


@dataclass(frozen=True)
class Source:
    """Shift of a slot by the model that wrote it, beyond what its responses are worth: favour or prejudice, in logits.

    It is relative to the commonest source, as which responses of unknown origin count, and an association: with a table of values
    it is known only as far as models differ more than their responses do.
    """

    by: str = ""
    """A column of the judgments (ui_version) whose levels favour models differently: a screen that flatters one of them."""


@dataclass(frozen=True)
class Taste:
    """Random slopes: raters differ in how much they like a property of responses, in logits per standard deviation.

    What all raters have in common about it belongs to the utility. `of` is a column of the style block, such as log_characters.
    """

    of: str = "log_characters"


@dataclass(frozen=True)
class Bias:
    """Shift of a slot by a number that is known of it in this judgment: contrast + (b + b_r) (x_left - x_right), "style control".

    `by` is a covariate of what was shown (`covariate.length`: how long the text was that this model wrote here), or a numeric field
    of the judgments, which counts for the slot shown first where the order is known, and for a response judged by itself: with
    Bias("position") ratings drift over a session.

    x is in standard deviations: of the difference between two responses shown together (its root mean square, so that it does not
    matter which is called left); of the number itself where responses are judged one at a time, and for a field of the judgments. It
    is 0 at the mean and where it is not known. So b is in logits per standard deviation, and utilities are those at equal x: with the
    covariate at 0.

    What a response is always like belongs to its utility: with a table of values, b is known from how x differs between judgments of
    the same responses. Texts of their own have `Linear`'s style block, and `Taste`.
    """

    by: str
    per_rater: bool = False
    """Whether raters differ in it (random slopes b_r), with a common spread that is estimated."""


@dataclass(frozen=True)
class Scale:
    """The gap counts exp(g x) times as much: x a column of the judgments, standardised, or its levels around their mean, or the mean of
    a covariate over what was shown (noise that goes with the responses: Scale("length") where long ones are judged less well).

    Scale("position") is fatigue over a session, Scale("guideline_version") or Scale("team") a change of instruction,
    Scale("confidence", within_rater=True) stated confidence, which is taken as evidence and never trusted: g is estimated, and
    is 0 where what raters say of their confidence has nothing to do with how well they answer.
    """

    by: str
    within_rater: bool = False
    """Whether a numeric column is taken relative to the rater's own median."""


@dataclass(frozen=True)
class Lapse:
    """Log odds of a random click move with a column of the judgments: Lapse("seconds") is haste, on the logarithm of the time taken
    relative to the rater's own median."""

    by: str = "seconds"
    within_rater: bool = True


@dataclass(frozen=True)
class Missingness:
    """Whether a pair is answered at all: "cannot tell" and "skipped" as outcomes whose log odds are m + m_r - c L(gap).

    L(gap) = log cosh(gap / 2): close calls are skipped more often where c > 0; m_r differs by rater. Without it they are left out,
    which biases nothing as long as gap and rater alone decide (given its gap, a pair that is answered is answered like any other), and
    loses what a skipped pair tells: that it was close.

    Source: a selection model of data missing not at random (Heckman 1979; Diggle & Kenward 1994).
    """


Effect = Reliability | Position | Leniency | Source | Taste | Bias | Scale | Lapse | Missingness
EFFECTS: dict[str, type[Any]] = {c.__name__: c for c in (Reliability, Position, Leniency, Source, Taste, Bias, Scale, Lapse, Missingness)}


# ---------------------------------------------------------------------------------------------- columns as numbers


@dataclass(frozen=True)
class Covariate:
    """A column of the judgments as numbers around 0, learnt on one set of judgments and applicable to any."""

    by: str
    role: Role
    within_rater: bool
    levels: tuple[str, ...]
    """Of a column of names, the commonest, with which the others are compared, first; of prompts, their ids; empty where it holds numbers."""
    edges: tuple[float, ...]
    """Upper bounds of all bins but the last, where it holds numbers."""
    table: tuple[tuple[float, ...], ...]
    """Per level, and last for a level not known, the numbers: one, or one per level but the first of a column of names; empty for prompts,
    each of which has a parameter of its own."""

    @property
    def width(self) -> int:
        return len(self.table[0])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.by}={level} (against {self.levels[0]})" for level in self.levels[1:]) or (self.by,)

    def codes(self, feedback: Feedback) -> Codes:
        """(n_judgments,) row of `table` of each judgment; of prompts, place in `levels`, and behind the last for others."""
        if self.by == PROMPT:
            place = {name: code for code, name in enumerate(self.levels)}
            of_prompt = np.array([place.get(name, len(place)) for name in feedback.prompts["id"].to_list()] + [len(place)], dtype=np.int64)
            return of_prompt[_prompts(feedback)]
        if self.levels:
            lookup = pl.DataFrame({"level": pl.Series(self.levels), "code": pl.Series(range(len(self.levels)), dtype=pl.Int64)})
            given = feedback.judgments[self.by].cast(pl.String).alias("level").to_frame()
            return given.join(lookup, on="level", how="left", maintain_order="left")["code"].fill_null(len(self.levels)).to_numpy()
        if not (self.by in feedback.judgments.columns or _of_slots(feedback, self.by)):
            return np.full(feedback.n_judgments, len(self.table) - 1)
        values = _numbers(feedback, self.by, self.within_rater)
        codes = np.searchsorted(np.array(self.edges), values, side="left")
        return np.where(np.isnan(values), len(self.table) - 1, codes)

    @staticmethod
    def read(feedback: Feedback, by: str, role: Role, *, within_rater: bool) -> Covariate | None:
        """The covariate that this column makes; None where it says the same of every judgment.

        Raises
        ------
        InvalidSetting
            If there is no such column.
        """
        if by == PROMPT and role == "leniency":
            shown = feedback.judgments.select("prompt", pl.col("responses").list.get(0, null_on_oob=True)).drop_nulls().unique()
            several = shown["prompt"].value_counts().filter(pl.col("count") > 1)["prompt"].sort().to_list()
            # with one response to each prompt, how high a question is rated and what its answer is worth are the same thing
            ids = feedback.prompts["id"].to_list()
            return Covariate(by, role, False, tuple(ids[p] for p in several), (), ()) if len(several) > 1 else None
        named = by in feedback.judgments.columns and by not in ("rater", "prompt") and not feedback.judgments[by].dtype.is_temporal()
        if not (named or _of_slots(feedback, by)) or (named and feedback.judgments[by].dtype.is_nested()):
            there = [name.removeprefix(COVARIATE) for name in covariates_of(feedback.judgments.columns)]
            raise InvalidSetting(
                f"by ({role})", by, "Use a field of the judgments such as guideline_version, team, position, seconds or confidence, or a covariate "
                f"of what was shown ({', '.join(there) or 'this data has none'}).",
            )  # fmt: skip
        if named and not feedback.judgments[by].dtype.is_numeric():
            column = feedback.judgments[by]
            counts = column.cast(pl.String).drop_nulls().value_counts().sort(by).sort("count", descending=True, maintain_order=True)
            if counts.height < 2:
                return None
            # the commonest level is what the others are compared with: parameters of all would be known up to a constant only
            share = counts["count"].to_numpy() / counts["count"].sum()
            table = np.vstack([np.eye(len(share))[:, 1:] - share[1:], np.zeros((1, len(share) - 1))])
            return Covariate(by, role, False, tuple(counts[by].to_list()), (), tuple(map(tuple, table.tolist())))
        values = _numbers(feedback, by, within_rater)
        known = values[~np.isnan(values)]
        distinct = np.unique(known)
        if len(distinct) < 2:
            return None
        if len(distinct) <= _BINS:
            edges = distinct[:-1]
        else:
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
            edges = edges[edges < distinct[-1]]
        code = np.searchsorted(edges, known, side="left")
        count = np.bincount(code, minlength=len(edges) + 1)
        level = np.bincount(code, weights=known, minlength=len(edges) + 1) / np.maximum(count, 1)
        mean = float(known.mean())
        sd = float(np.sqrt((count * (level - mean) ** 2).sum() / count.sum()))
        table = [*((level - mean) / sd).tolist(), 0.0]
        return Covariate(by, role, within_rater, (), tuple(edges.tolist()), tuple((x,) for x in table))

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "levels": list(self.levels), "edges": list(self.edges), "table": [list(row) for row in self.table]}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Covariate:
        table = tuple(tuple(row) for row in record["table"])
        return Covariate(record["by"], record["role"], record["within_rater"], tuple(record["levels"]), tuple(record["edges"]), table)


def _prompts(feedback: Feedback) -> Codes:
    """(n_judgments,) prompt of each judgment, n_prompts where there is none."""
    return feedback.judgments["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()


# ---------------------------------------------------------------------------------------------- numbers of slots


@dataclass(frozen=True)
class SlotNumbers:
    """Numbers of the slots that judgments show, in standard deviations."""

    values: Array
    """(C, slots of all judgments in a row)"""
    first: Codes
    """(n_judgments + 1,) where each judgment's slots begin."""
    of_order: NDArray[np.bool_]
    """(C,) whether it counts for a slot only because it was shown first."""

    @staticmethod
    def scales(feedback: Feedback, effects: Iterable[Effect]) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
        """(mean and sd of each number that a `Bias` asks for, those that say the same of every slot).

        Raises
        ------
        InvalidSetting
            If there is no such number.
        """
        found: dict[str, tuple[float, float]] = {}
        constant: list[str] = []
        for by in dict.fromkeys(effect.by for effect in effects if isinstance(effect, Bias)):
            mean, sd = _centre(feedback, by)
            if sd > 1e-12 * abs(mean):
                found[by] = (mean, sd)
            else:
                constant.append(by)
        return found, tuple(constant)

    @staticmethod
    def one_sided(feedback: Feedback, names: Iterable[str]) -> list[str]:
        """A note for each of the numbers that some judgments have of one of the responses they show, and not of another."""
        notes: list[str] = []
        lengths = feedback.judgments["responses"].list.len().cast(pl.Int64).to_numpy()
        for by in names:
            if not _of_slots(feedback, by) or not (unknown := np.isnan(_flat(feedback, by, lengths))).any():
                continue
            lacking = np.bincount(np.repeat(np.arange(len(lengths)), lengths), weights=unknown, minlength=len(lengths))
            if n := int(((lacking > 0) & (lacking < lengths)).sum()):
                notes.append(
                    f"{by} is known of only some of the responses shown in {n:,} of {len(lengths):,} judgments, and taken to be average for the "
                    f"others: give it for all of them (left_{by} and right_{by}), or for none"
                )
        return notes

    @staticmethod
    def known(feedback: Feedback, by: str) -> NDArray[np.bool_]:
        """(n_judgments,) whether the number that a `Bias` is by is known, of every response shown."""
        if _of_slots(feedback, by):
            lengths = feedback.judgments["responses"].list.len().cast(pl.Int64).to_numpy()
            unknown = np.isnan(_flat(feedback, by, lengths))
            return np.bincount(np.repeat(np.arange(len(lengths)), lengths), weights=unknown, minlength=len(lengths)) == 0
        if by not in feedback.judgments.columns:
            return np.zeros(feedback.n_judgments, dtype=bool)
        return ~np.isnan(_numbers(feedback, by, within_rater=False))

    @staticmethod
    def read(feedback: Feedback, scales: Mapping[str, tuple[float, float]]) -> SlotNumbers | None:
        """The numbers of these judgments on given scales, 0 where nothing is known; None where nothing is known at all."""
        lengths = feedback.judgments["responses"].list.len().cast(pl.Int64).to_numpy()
        first = np.concatenate([[0], np.cumsum(lengths)])
        values = np.zeros((len(scales), int(first[-1])))
        of_order, known = np.zeros(len(scales), dtype=bool), False
        for column, (by, (mean, sd)) in enumerate(scales.items()):
            if _of_slots(feedback, by):
                given, rows = _flat(feedback, by, lengths), slice(None)
            elif by in feedback.judgments.columns:
                given, rows, of_order[column] = _numbers(feedback, by, within_rater=False), first[:-1][lengths > 0], True
                given = given[lengths > 0]
            else:
                continue
            given = given - mean
            given /= sd
            given[np.isnan(given)] = 0.0
            values[column, rows] = given
            known = True
        return SlotNumbers(values, first, of_order) if known else None

    def contrasts(self, K: Array, rows: Codes, places: Codes | None, ordered: Array) -> Array:
        """(n, d, C) contrasts K (d, m) of the slots `places` (n, m) of judgments `rows` (n,), the first m where not given; `ordered` (n,)
        is 1 where the order counts. In memory each number's lie side by side."""
        n, m = len(rows), K.shape[1]
        if places is None and self.values.shape[1] == n * m and n == len(self.first) - 1 and (rows[:-1] < rows[1:]).all():
            slots = self.values.reshape(-1, n, m)  # all slots, in order
        else:
            slots = self.values[:, self.first[rows][:, None] + (np.arange(m) if places is None else places)]
        if self.of_order.any():
            slots = np.where(self.of_order[:, None, None], slots * ordered[:, None], slots)
        out = np.zeros((len(self.values), n, len(K)))
        for d, weights in enumerate(K):
            for slot in np.flatnonzero(weights):
                out[..., d] += weights[slot] * slots[..., slot]
        return np.moveaxis(out, 0, -1)


def _of_slots(feedback: Feedback, by: str) -> bool:
    return COVARIATE + by in feedback.judgments.columns


def _flat(feedback: Feedback, by: str, lengths: Codes) -> Array:
    """(slots,) a covariate, NaN where it is not known."""
    return pad(feedback.judgments[COVARIATE + by], lengths).cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _centre(feedback: Feedback, by: str) -> tuple[float, float]:
    """(mean, sd) of a number that is known of slots or judgments, as `Bias` has them."""
    if not _of_slots(feedback, by):
        if by not in feedback.judgments.columns or not feedback.judgments[by].dtype.is_numeric():
            there = [name.removeprefix(COVARIATE) for name in covariates_of(feedback.judgments.columns)]
            raise InvalidSetting(
                "Bias(by=)",
                by,
                f"The covariates of what was shown are {', '.join(there) or 'none'}; fields are position, seconds, confidence. A table has a "
                f"covariate in a column for each side, left_{by} and right_{by}; one column with the difference is named with "
                f"--columns left_{by}=COLUMN.",
            )
        known = _numbers(feedback, by, within_rater=False)
        known = known[~np.isnan(known)]
        return (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
    lengths = feedback.judgments["responses"].list.len().cast(pl.Int64).to_numpy()
    flat = _flat(feedback, by, lengths)
    if (lengths == 2).all() and not np.isnan(flat).any():
        return float(flat.mean()), float(np.sqrt(((flat[::2] - flat[1::2]) ** 2).mean()))
    here = ~np.isnan(flat)
    if not here.any():
        return 0.0, 0.0
    mean, judgment = float(flat[here].mean()), np.repeat(np.arange(len(lengths)), lengths)[here]
    centred = flat[here] - mean
    count = np.bincount(judgment)
    about = centred - (np.bincount(judgment, weights=centred) / np.maximum(count, 1))[judgment]
    several = count[judgment] > 1
    if not several.any():
        return mean, float(np.sqrt((centred**2).mean()))
    # the mean square difference of two of k is twice their variance, with k - 1
    within = np.bincount(judgment, weights=about**2)[count > 1] / (count[count > 1] - 1)
    return mean, float(np.sqrt(2 * within.mean()))


def _numbers(feedback: Feedback, by: str, within_rater: bool) -> Array:
    """(n_judgments,) the column, or the mean of a covariate over the slots; times on a log scale, NaN where it is null."""
    column = pl.col(by).cast(pl.Float64) if by in feedback.judgments.columns else pl.col(COVARIATE + by).list.mean()
    if by == "seconds":
        column = column.clip(lower_bound=0.1).log()
    if within_rater:
        column = column - column.median().over("rater")
    return feedback.judgments.select(column.alias("value"))["value"].fill_null(float("nan")).to_numpy()
