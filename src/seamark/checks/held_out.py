"""Held-out judgments beside what the fit predicted of them: accuracy and log loss, in slices and against people.

Conventions
-----------
A *cell* is all equal judgments by one rater; `count` says how many. In a decided pair, p is the probability that the first
response wins given that one of the two does, and `won` says whether it did. Codes are those of the held-out feedback; n_raters
and n_prompts stand for a rater or prompt that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.agreement import left_out
from seamark.checks.comparisons import Codes, compare, counted
from seamark.checks.findings import Finding
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import FEW_CLUSTERS, Interval, clustered_mean, clustered_share, mean, mean_share
from seamark.models.observation import Choice, Davidson, Strength
from seamark.models.prediction import Predicted
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_KINDS_SHOWN = 8
"""Largest number of kinds other than pairs that get an accuracy of their own; the largest come first."""
_UNITS_SHOWN = 12
"""Raters or prompts in the table of a slice; those with most judgments come first."""
_ENOUGH = 20
"""Cells that a group, or the raters seen or new, must have to be a slice."""


# ---------------------------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Cells:
    """Held-out judgments with what was predicted of them, one row per cell."""

    frame: pl.DataFrame
    """count, rater, prompt, group, first (response shown first), loss (nats), and what is scored; row (of the judgment) where cells are kept apart."""
    names: Mapping[str, tuple[str, ...]]
    """Ids of the raters and prompts, and names of the groups, by code."""

    def __len__(self) -> int:
        return self.frame.height

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.frame[column].to_numpy()

    @property
    def n(self) -> int:
        """Judgments."""
        return round(self["count"].sum())

    def where(self, mask: Mask) -> Cells:
        return replace(self, frame=self.frame.filter(pl.Series(mask)))

    def known(self, by: str) -> Mask:
        """Whether the rater, prompt or group is known."""
        return self[by] < len(self.names[by])

    @property
    def clusters(self) -> dict[str, Codes]:
        """Rater and prompt where most are known (the rest is one more); where neither has enough values, the response shown first."""
        found: dict[str, Codes] = {by: self[by] for by in ("rater", "prompt") if len(self) and self.known(by).mean() > 0.5}
        if all(len(np.unique(code)) < FEW_CLUSTERS for code in found.values()):
            found["response"] = self["first"]
        return found

    def share(self, hits: Array) -> tuple[Interval, str]:
        """The mean of values in [0, 1] over judgments, and how it is clustered."""
        interval, how = clustered_share(hits, self.clusters, weight=self["count"])
        return replace(interval, n=self.n), how

    def mean(self, values: Array) -> tuple[Interval, str]:
        """The mean of any values over judgments, and how it is clustered."""
        interval, how = clustered_mean(values, self.clusters, weight=self["count"])
        return replace(interval, n=self.n), how


_SHAPE = {"count": pl.Float64, "rater": pl.Int64, "prompt": pl.Int64, "group": pl.Int64, "first": pl.Int64, "loss": pl.Float64}
_OF_PAIRS = {"second": pl.Int64, "p": pl.Float64, "won": pl.Boolean, "hit": pl.Float64, "ordered": pl.Boolean}


def _frame(block: Predicted, rows: Mask, **more: NDArray[Any]) -> pl.DataFrame:
    columns = {"count": block.count, "rater": block.rater, "prompt": block.prompt, "group": block.group, "first": block.shown[:, 0]}
    if (block.row >= 0).all():
        columns["row"] = block.row
    return pl.DataFrame({name: column[rows] for name, column in columns.items()} | more)


def _cells(fit: Fit, held_out: Feedback, parts: Sequence[pl.DataFrame], shape: Mapping[str, Any]) -> Cells:
    names = {"rater": tuple(held_out.raters["id"]), "prompt": tuple(held_out.prompts["id"]), "group": fit.groups}
    return Cells(pl.concat(parts) if parts else pl.DataFrame(schema=shape), names)


def decided_cells(fit: Fit, held_out: Feedback, predictions: Sequence[Predicted]) -> Cells:
    """Pairs of two different responses with a winner."""
    parts: list[pl.DataFrame] = []
    for block in predictions:
        if not block.is_pair:
            continue
        use = block.is_decided() & (block.shown[:, 0] != block.shown[:, 1])
        p, won, _ = block.decided()
        p, won = p[use[block.is_decided()]], won[use[block.is_decided()]]
        if isinstance(block.family, Choice) and block.family.worst:  # who is chosen as the worst has lost
            p, won = 1 - p, ~won
        hit = np.where(p == 0.5, 0.5, ((p > 0.5) == won).astype(np.float64))  # a prediction that is exactly undecided is half right
        loss = -np.log(np.maximum(np.where(won, p, 1 - p), 1e-300))
        ordered = _order_known(held_out, block)[use]
        parts.append(_frame(block, use, loss=loss, second=block.shown[use, 1], p=p, won=won, hit=hit, ordered=ordered))
    return _cells(fit, held_out, parts, _SHAPE | _OF_PAIRS)


def answered_cells(fit: Fit, held_out: Feedback, predictions: Sequence[Predicted]) -> Cells:
    """All judgments that the fit has a family for, with the loss of the fit and of a reference that knows only shares."""
    parts: list[pl.DataFrame] = []
    for block in predictions:
        loss = -np.log(np.maximum(block.probs[np.arange(len(block.outcome)), block.outcome], 1e-300))
        reference = -np.log(_reference(block, _order_known(held_out, block)))
        parts.append(_frame(block, np.ones(len(loss), dtype=bool), loss=loss, reference=reference))
    return _cells(fit, held_out, parts, _SHAPE | {"reference": pl.Float64})


def _order_known(held_out: Feedback, block: Predicted) -> Mask:
    """Per row, whether the order shown is known for every pair behind it; never for choices and stages of rankings."""
    if not block.name.startswith("pair") or not held_out.has("order_known"):
        return np.zeros(len(block.outcome), dtype=bool)
    shown = ("left", "right", "rater")
    pairs = held_out.pairs().select(
        *(pl.col(name).cast(pl.Int64).fill_null(held_out.n_raters) for name in shown), known=pl.col("order_known").fill_null(False)
    )
    rows = pl.DataFrame(dict(zip(shown, (block.shown[:, 0], block.shown[:, 1], block.rater), strict=True)))
    known = rows.join(pairs.group_by(shown).agg(pl.col("known").all()), on=shown, how="left", maintain_order="left")["known"]
    return known.fill_null(False).to_numpy()


def _reference(block: Predicted, ordered: Mask) -> Array:
    """(n,) share of each row's answer among the held-out answers, half a judgment added to each.

    Where left and right are only names, an answer and its mirror image share what both have; a choice, or a stage of a
    ranking, out of m has 1 / m. Otherwise a source that lists the chosen response first would give the reference the answers.
    """
    k = block.probs.shape[1]
    if isinstance(block.family, Choice) and not block.name.startswith("pair"):
        return np.full(len(block.outcome), 1 / k)
    mirror = np.arange(k)
    if isinstance(block.family, Strength):
        mirror = mirror[::-1]
    elif isinstance(block.family, Davidson | Choice):
        mirror[:2] = [1, 0]
    out = np.ones(len(block.outcome))
    for rows, pooled in ((ordered, False), (~ordered, True)):
        counts = np.bincount(block.outcome[rows], block.count[rows], k) + 0.5
        counts = (counts + counts[mirror]) / 2 if pooled else counts
        out[rows] = (counts / counts.sum())[block.outcome[rows]]
    return out


# ---------------------------------------------------------------------------------------------- words


def figure(interval: Interval, form: str = ".1%") -> str:
    """62.8% [58.3, 67.1]."""
    spread = interval.bounded and interval.high > interval.low
    low, high = (f"{end:{form}}".removesuffix("%") for end in (interval.low, interval.high))
    return f"{interval.estimate:{form}}" + (f" [{low}, {high}]" if spread else "")


def gain(interval: Interval, *, unit: str = "points", better: str = "better", worse: str = "worse") -> str:
    """How much better or worse, without a sign: 6.9 points [1.7, 12.2] better."""
    scale, digits = (100, 1) if unit == "points" else (1, 3)
    sign = -1 if interval.estimate < 0 else 1
    low, high = sorted((sign * scale * interval.low, sign * scale * interval.high))
    bounds = f" [{low:.{digits}f}, {high:.{digits}f}]" if interval.bounded else ""
    return f"{sign * scale * interval.estimate:.{digits}f} {unit}{bounds} {better if sign > 0 else worse}"


def gain_details(interval: Interval) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval.bounded else (None, None)
    return {"gain": interval.estimate, "gain_low": low, "gain_high": high}


# ---------------------------------------------------------------------------------------------- slices


@dataclass(frozen=True)
class Measure:
    """What is averaged in a slice, and how it reads."""

    code: str
    words: Callable[[Interval], str]
    unit: str
    form: str
    low: float
    high: float


_ACCURACY = Measure("accuracy", lambda found: f"accuracy {figure(found)}", "share", ".1%", 0.0, 1.0)
_LOG_LOSS = Measure("log-loss", lambda found: f"log loss {figure(found, '.3f')} nats", "nats", ".3f", 0.0, np.inf)


def slices(measure: Measure, cells: Cells, values: Array) -> list[Finding]:
    """By rater, by prompt, and for each group that is large enough."""
    findings = [found for by in ("rater", "prompt") for found in _by_unit(measure, cells, values, by)]
    if len(cells.names["group"]) > 1:
        for code, name in enumerate(cells.names["group"]):
            findings += _part(measure, cells, values, cells["group"] == code, f"group/{name}", f"Raters of {name}")
    return findings


def _part(measure: Measure, cells: Cells, values: Array, mask: Mask, name: str, words: str) -> list[Finding]:
    """The finding about one part, if it is large enough."""
    if mask.sum() < _ENOUGH:
        return []
    part = cells.where(mask)
    result, how = part.share(values[mask]) if measure is _ACCURACY else part.mean(values[mask])
    title = f"{words}: {measure.words(result)}, in {counted(part.n, 'judgment')}."
    return [Finding.of(result, code=f"{measure.code}/{name}", title=title, unit=measure.unit, reason=f"{how[:1].upper()}{how[1:]}.")]


def _by_unit(measure: Measure, cells: Cells, values: Array, by: str) -> list[Finding]:
    """The mean over raters or prompts of their own mean: each counts once, however many judgments it has."""
    code, known, count = cells[by], cells.known(by), cells["count"]
    total = np.bincount(code[known], count[known])
    units = np.flatnonzero(total)
    if len(units) < 2:
        # said once, not for every measure
        why = f"Fewer than two {by}s are known."
        return [Finding.not_applicable(f"accuracy/{by}", f"Slices by {by} cannot be computed.", why)] if measure is _ACCURACY else []
    each = np.bincount(code[known], count[known] * values[known])[units] / total[units]
    result = mean_share(each) if measure is _ACCURACY else mean(each)
    result = replace(result, low=max(result.low, measure.low), high=min(result.high, measure.high))
    title = f"Averaged over {counted(len(units), by)}, each counting once: {measure.words(result)}"
    often = total[units] >= THRESHOLDS.few_judgments  # the mean of one or two judgments is 0, 1/2 or 1
    details: dict[str, Any] = {}
    if often.sum() >= FEW_CLUSTERS:
        details["p10"], details["p90"] = (float(q) for q in np.quantile(each[often], [0.1, 0.9]))
        title += (
            f"; of the {often.sum():,} with {THRESHOLDS.few_judgments} judgments or more, a tenth lie below "
            f"{details['p10']:{measure.form}}, a tenth above {details['p90']:{measure.form}}"
        )
    largest = np.argsort(-np.where(often, total[units], 0), kind="stable")[: min(_UNITS_SHOWN, int(often.sum()))]
    details["slices"] = [{by: cells.names[by][units[i]], "estimate": float(each[i]), "n": round(float(total[units[i]]))} for i in largest]
    reason = f"n counts {by}s, which are taken as independent; the table has those with the most judgments."
    return [Finding.of(result, code=f"{measure.code}/{by}", title=f"{title}.", unit=measure.unit, reason=reason, details=details)]


# ---------------------------------------------------------------------------------------------- accuracy


def check_accuracy(cells: Cells, predictions: Sequence[Predicted] = (), fit: Fit | None = None) -> list[Finding]:
    """How often the fit names what was answered: on pairs, on other kinds, for raters that it knows and new ones, and in slices."""
    kinds = sorted((p for p in predictions if not p.is_pair), key=lambda p: -p.count.sum())[:_KINDS_SHOWN]
    others = [_likeliest(block, cells) for block in kinds]
    if not len(cells):
        why = "No held-out pair was decided between responses that the fit can place."
        return [Finding.not_applicable("accuracy", "Held-out pair accuracy cannot be computed.", why), *others]
    overall, how = cells.share(cells["hit"])
    title = f"On held-out pairs the fit agrees with the rater in {figure(overall)} of {counted(cells.n, 'decided judgment')}."
    reason = f"Ties are left out, an undecided prediction counts half; {how}."
    accuracy = Finding.of(overall, code="accuracy", title=title, unit="share", reason=reason)
    return [
        accuracy,
        *others,
        _direction(overall),
        *(_familiarity(fit, cells) if fit is not None else ()),
        *slices(_ACCURACY, cells, cells["hit"]),
    ]


def _likeliest(block: Predicted, cells: Cells) -> Finding:
    """How often the likeliest of several answers is the one given."""
    all_rows = np.ones(len(block.outcome), dtype=bool)
    own = replace(cells, frame=_frame(block, all_rows))
    result, how = own.share((block.probs.argmax(1) == block.outcome).astype(np.float64))
    k = block.probs.shape[1]
    title = f"Of {k} possible answers the likeliest is the one given in {figure(result)} of {counted(own.n, 'held-out judgment')}, {block.name}."
    reason = f"A guess is right in {1 / k:.0%}; {how}."
    return Finding.of(result, code=f"accuracy/{block.name}", title=title, unit="share", reason=reason, details={"outcomes": k})


def _direction(accuracy: Interval) -> Finding:
    reversed_labels = accuracy.high < THRESHOLDS.direction_accuracy_blocking
    if not reversed_labels and accuracy.low <= THRESHOLDS.direction_accuracy_blocking:
        why = f"The interval of the held-out accuracy, {figure(accuracy)}, holds 50%."
        return Finding.not_applicable(
            "direction", "Whether held-out judgments point the same way as training judgments cannot be told.", why
        )
    return Finding.of(
        accuracy, code="direction", unit="share", verdict="blocking" if reversed_labels else "ok",
        title=f"The fit is wrong more often than right on held-out pairs ({figure(accuracy)}): labels of one part look reversed."
        if reversed_labels else "Held-out judgments point the same way as training judgments.",
        reason="A held-out accuracy below one half with its whole interval has no other common cause."
        if reversed_labels else "Held-out accuracy is above one half with its whole interval.",
        remedy="Check which column is the preferred response in each part of the data (chosen/rejected, left/right, A/B)."
        if reversed_labels else None,
    )  # fmt: skip


def _familiarity(fit: Fit, cells: Cells) -> list[Finding]:
    """Accuracy for raters whom the fit knows and for new ones, where there are both."""
    seen = set(fit.raters["rater"].to_list())
    known = np.array([r in seen for r in cells.names["rater"]] + [False])[cells["rater"]]
    if not known.any() or known.all():
        return []
    parts = {"seen": known, "new": ~known & cells.known("rater")}
    return [f for name, mask in parts.items() for f in _part(_ACCURACY, cells, cells["hit"], mask, f"rater/{name}", f"For {name} raters")]


# ---------------------------------------------------------------------------------------------- log loss


def check_log_loss(cells: Cells, asked: str = "All outcomes of the kinds fitted, ties included.") -> list[Finding]:
    """Mean negative log probability of what was answered, beside that of the answers' overall shares; `asked` says what was."""
    if not len(cells):
        return [Finding.not_applicable("log-loss", "Log loss cannot be computed.", "The fit can place no held-out judgment.")]
    result, how = cells.mean(cells["loss"])
    better, _ = cells.mean(cells["reference"] - cells["loss"])
    words = gain(better, unit="nats", better="better than", worse="worse than")
    overall = Finding.of(
        result, code="log-loss", unit="nats", verdict="warning" if better.high < 0 else "ok",
        title=f"Log loss {figure(result, '.3f')} nats a judgment, {words} always predicting the overall shares of the answers.",
        reason=f"{asked} The reference knows the held-out shares, but not which side won where the "
        f"order shown is not known (left and right share alike), nor which of m was chosen (1 / m). {how[:1].upper()}{how[1:]}.",
        details=gain_details(better),
    )  # fmt: skip
    return [overall, *slices(_LOG_LOSS, cells, cells["loss"])]


# ---------------------------------------------------------------------------------------------- against people


def check_against_people(held_out: Feedback, cells: Cells) -> list[Finding]:
    """The fit and the other raters of a question, each predicting the rater left out, on the same held-out judgments of pairs.

    The others' majority gives the accuracy (the `ceiling`), and their shares the log loss: (k + 1) / (n + 2) where k of the n
    others who decided gave the answer (Laplace's rule of succession).
    """
    compared = compare(held_out)
    scored, majority, alike = left_out(compared.where((compared.kind == 0) & (compared.left != compared.right)))
    keys = ("first", "second", "rater", "won")
    people = pl.DataFrame(
        {
            "first": scored.left,
            "second": scored.right,
            "rater": np.where(scored.rater < 0, held_out.n_raters, scored.rater),
            "won": scored.sign > 0,
            "majority": majority,
            "surprise": -np.log(alike),
        }
    )
    fitted = cells.frame.group_by(keys, maintain_order=True).agg(pl.col("hit", "loss").mean(), pl.col("prompt", "group").first())
    both = replace(cells, frame=people.join(fitted, on=keys, maintain_order="left").with_columns(count=pl.lit(1.0)))
    if not len(both):
        title, why = (
            "The fit cannot be compared with people.",
            "No held-out pair was decided by a rater whose question others answered too.",
        )
        return [Finding.not_applicable(code, title, why) for code in ("accuracy/ceiling", "log-loss/ceiling")]
    ahead, how = both.mean(both["hit"] - both["majority"])
    saved, also = both.mean(both["surprise"] - both["loss"])
    where = f"On {counted(both.n, 'held-out judgment')} of questions that others answered too"
    return [
        Finding.of(
            replace(ahead, estimate=100 * ahead.estimate, low=100 * ahead.low, high=100 * ahead.high), code="accuracy/ceiling", unit="points",
            title=f"{where}, the fit names the rater's answer in {both['hit'].mean():.1%} and the majority of the others in "
            f"{both['majority'].mean():.1%}: the fit is {gain(ahead)}.",
            reason=f"Paired difference, fit less majority, in percentage points; a split majority counts half; {how}.",
            details={"fit": float(both["hit"].mean()), "ceiling": float(both["majority"].mean())},
        ),
        Finding.of(
            saved, code="log-loss/ceiling", unit="nats",
            title=f"{where}, the log loss of decided answers is {both['loss'].mean():.3f} nats for the fit and "
            f"{both['surprise'].mean():.3f} for the shares of the others: the fit is {gain(saved, unit='nats')}.",
            reason=f"Paired difference, others less fit; k of n others predict (k + 1) / (n + 2); {also}.",
            details={"fit": float(both["loss"].mean()), "ceiling": float(both["surprise"].mean())},
        ),
    ]  # fmt: skip
