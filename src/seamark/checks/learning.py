"""How learning goes: from trained prompts to their neighbours, from few judgments to many, and from the first step of training to too many.

Conventions
-----------
The power law of a learning curve is  loss(n) = floor + scale * n ** -exponent,  n being judgments trained on and the loss nats per decided comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from seamark.checks.comparisons import Codes, codes_of, counted
from seamark.checks.cross_fitting import CrossFit, Job
from seamark.checks.findings import Finding, Verdict
from seamark.checks.held_out import figure, gain
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting, SeamarkError
from seamark.intervals import Interval, clustered_mean, clustered_share, mean
from seamark.records import Feedback, word_vectors

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_PROMPTS = 2000
"""Prompts among which neighbours are looked for, those with most judgments."""
_LEAST = 50
_SIZES = 6
"""Points of a learning curve, each twice the one before."""
_DRAWS = 400
_PATIENCE = 2
"""Steps in a row without a lower held-out loss at which the stop fires."""
_EXPONENTS = np.linspace(0.05, 2.0, 79)
"""Looked at: below, a curve cannot be told from a straight line in log n; above, from a step."""


# ---------------------------------------------------------------------------------------------- prompts and their neighbours


def _sides(feedback: Feedback, seed: int) -> tuple[Codes, Array]:
    """(n_prompts,) 0 and 1 for the two prompts of a pair of neighbours, -1 for the others; and how alike each is to the other (cosine)."""
    side, alike = np.full(feedback.n_prompts + 1, -1), np.zeros(feedback.n_prompts + 1)
    text = feedback.prompts["text"]
    judged = np.bincount(codes_of(feedback.judgments["prompt"].drop_nulls()), minlength=feedback.n_prompts)
    rows = np.flatnonzero(text.is_not_null().to_numpy())
    rows = rows[np.argsort(-judged[rows], kind="stable")[:_PROMPTS]]
    if len(rows) < 2:
        return side, alike
    vectors = word_vectors(text[rows].to_list())
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1.0)
    rng = np.random.default_rng(seed)
    free = np.ones(len(rows), dtype=bool)
    for k in np.argsort(-cosine.max(1), kind="stable").tolist():
        near = np.where(free, cosine[k], -1.0)
        other = int(near.argmax())
        if not free[k] or near[other] <= 0:
            continue
        pair = rng.permutation([k, other])
        side[rows[pair]] = [0, 1]
        alike[rows[pair]] = near[other]
        free[[k, other]] = False
    return side, alike


def plan_neighbours(feedback: Feedback, *, n_folds: int, seed: int) -> list[Job]:
    """Fits to one of each two neighbouring prompts, tested on other judgments of both; both ways round."""
    side, _ = _sides(feedback, seed)
    mine = side[feedback.judgments["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()]
    k = min(n_folds, 3)
    fold = np.random.default_rng(seed).permutation(np.arange(len(mine)) % k)
    if min((mine == s).sum() for s in (0, 1)) < 2 * _LEAST:
        return []
    return [Job("neighbours", str(s), (mine == s) & (fold != part), (mine >= 0) & (fold == part)) for s in (0, 1) for part in range(k)]


def check_neighbours(cross: CrossFit, jobs: Sequence[Job], results: Sequence[pl.DataFrame | SeamarkError]) -> Finding:
    """Accuracy on prompts that were trained on, beside that on the same judgments by a fit that was trained on their neighbours instead.

    Both fits see other judgments than those tested, and about as many; what the first has over the second it has from having seen the prompt.
    """
    title = "Whether what is learned of prompts holds for their neighbours cannot be told."
    good = [r.with_columns(trained=pl.lit(int(job.part))) for job, r in zip(jobs, results, strict=True) if isinstance(r, pl.DataFrame)]
    failed = next((str(r) for r in results if isinstance(r, SeamarkError)), "")
    if not good or failed:
        why = failed or f"Fewer than {2 * _LEAST} judgments are about prompts with texts that have a neighbour."
        return Finding.not_applicable("neighbours", title, why)
    side, alike = _sides(cross.feedback, cross.seed)
    frame = pl.concat(good, how="diagonal").join(cross.asked, on=["row", "first", "second"], how="left", maintain_order="left")
    prompt = frame["prompt"].to_numpy()
    frame = frame.with_columns(own=pl.Series(side[prompt]) == pl.col("trained"), alike=pl.Series(alike[prompt]))
    keys = ["row", "first", "second"]
    own, other = (frame.filter(pl.col("own") == which) for which in (True, False))
    both = own.join(other.select(*keys, "hit", "loss"), on=keys, how="inner", suffix="_other", maintain_order="left")
    if both.height < _LEAST:
        return Finding.not_applicable("neighbours", title, f"{counted(both.height, 'decided comparison')} could be tested.")
    clusters = {"prompt": both["prompt"].to_numpy(), "rater": both["rater"].to_numpy()}
    clusters = {name: code for name, code in clusters.items() if 1 < len(np.unique(code)) < len(code)} or {"prompt": clusters["prompt"]}
    lost, how = clustered_mean((both["hit"] - both["hit_other"]).to_numpy(), clusters)
    here, _ = clustered_share(both["hit"].to_numpy(), clusters)
    there, _ = clustered_share(both["hit_other"].to_numpy(), clusters)
    nats, _ = clustered_mean((both["loss_other"] - both["loss"]).to_numpy(), clusters)
    verdict: Verdict = "ok" if lost.low <= 0 else "warning" if lost.estimate > THRESHOLDS.generalisation_warning else "notice"
    edges = np.quantile(both["alike"].to_numpy(), [0, 1 / 3, 2 / 3, 1])
    thirds = [both.filter((pl.col("alike") >= a) & (pl.col("alike") <= b)) for a, b in pairwise(edges)]
    return Finding.of(
        Interval(100 * lost.estimate, 100 * lost.low, 100 * lost.high, lost.n, lost.n_clusters), code="neighbours", unit="points", verdict=verdict,
        title=f"On prompts that were trained on, the model is right in {figure(here)}; trained on their nearest neighbours instead, in {figure(there)}: "
        f"it is {gain(lost)} where it knows the prompt.",
        reason=f"The same judgments, none of them trained on, by two fits of the same size; neighbours are {counted(int((side == 0).sum()), 'pair')} of prompts "
        f"with similar words (mean cosine {both['alike'].mean():.2f}); {how}.",
        remedy="Part of the accuracy is memory of these prompts: measure with a split by prompt, and collect judgments of more prompts."
        if verdict != "ok" else None,
        details={
            "trained": float(here.estimate), "neighbours": float(there.estimate),
            "log_loss": {"gap": nats.estimate, "low": nats.ends[0], "high": nats.ends[1]},
            "by_similarity": [
                {"low": float(a), "high": float(b), "n": t.height, "gap": float((t["hit"] - t["hit_other"]).mean())}  # type: ignore[arg-type]  # a mean of numbers
                for a, b, t in zip(edges[:-1], edges[1:], thirds, strict=True) if t.height
            ],
        },
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- how much more data would bring


@dataclass(frozen=True)
class PowerLaw:
    """loss(n) = floor + scale * n ** -exponent, for one curve or for many."""

    floor: Array
    scale: Array
    exponent: Array
    """NaN where the loss does not fall."""

    def at(self, n: float) -> Array:
        """The loss with n judgments; the floor where it does not fall."""
        falling = np.where(np.isfinite(self.exponent), self.exponent, 1.0)
        return self.floor + self.scale * n**-falling


def fit_power_law(n: ArrayLike, loss: ArrayLike) -> PowerLaw:
    """Least squares over a grid of exponents (0.05 to 2), floor and scale at 0 or above.

    Parameters
    ----------
    n : (J,) judgments; loss : (J,) or (B, J).

    Source: Hestness et al. 2017 for the form.
    """
    size, y = np.asarray(n, dtype=np.float64), np.atleast_2d(np.asarray(loss, dtype=np.float64))
    if len(size) < 4 or y.shape[1] != len(size) or not (size > 0).all():
        raise InvalidSetting("n", size.tolist(), "Give four sizes or more, all above 0, and a loss for each.")
    best = np.full(len(y), np.inf)
    floor, scale, exponent = y.mean(1), np.zeros(len(y)), np.full(len(y), np.nan)
    best = ((y - floor[:, None]) ** 2).sum(1) * (1 - 1e-9)
    for b in _EXPONENTS:
        x = size**-b
        centred = x - x.mean()
        a = (y @ centred) / (centred @ centred)
        c = y.mean(1) - a * x.mean()
        through = (y @ x) / (x @ x)
        a, c = np.where(c < 0, through, a), np.maximum(c, 0.0)
        error = ((y - c[:, None] - a[:, None] * x) ** 2).sum(1)
        better = (error < best) & (a > 0)
        best = np.where(better, error, best)
        floor, scale, exponent = (np.where(better, new, old) for new, old in ((c, floor), (a, scale), (b, exponent)))
    return PowerLaw(floor, scale, exponent)


def _units(feedback: Feedback) -> tuple[Codes, str]:
    """What is drawn as one: prompts where there are 20, else raters, else judgments."""
    for name, n in (("prompt", feedback.n_prompts), ("rater", feedback.n_raters)):
        if n >= 20:
            return feedback.judgments[name].cast(pl.Int64).fill_null(n).to_numpy(), name
    return np.arange(feedback.n_judgments), "judgment"


def plan_curve(feedback: Feedback, *, n_folds: int, seed: int) -> list[Job]:
    """For each fold of prompts held out, fits to nested halves of the others."""
    code, unit = _units(feedback)
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(code))
    fold = {int(u): k % n_folds for k, u in enumerate(order)}
    held = np.array([fold[int(c)] for c in code])
    jobs: list[Job] = []
    for k in range(n_folds):
        rest = rng.permutation(order[np.arange(len(order)) % n_folds != k])
        for level in range(_SIZES):
            kept = rest[: max(1, round(len(rest) / 2**level))]
            train = np.isin(code, kept) & (held != k)
            if train.sum() >= _LEAST:
                jobs.append(Job("curve", f"{unit} {level}", train, held == k))
    return jobs


def check_curve(cross: CrossFit, jobs: Sequence[Job], results: Sequence[pl.DataFrame | SeamarkError], *, seed: int = 0) -> Finding:
    """Accuracy and log loss on new prompts against the number of judgments, with the exponent of a power law and its interval."""
    title = "How much more judgments would bring cannot be told."
    code, unit = _units(cross.feedback)
    rows: list[pl.DataFrame] = []
    start = -1
    for job, result in zip(jobs, results, strict=True):
        level = int(job.part.rpartition(" ")[2])
        start += level == 0
        if isinstance(result, pl.DataFrame) and result.height:
            rows.append(
                result.select("row", "hit", "loss").with_columns(level=pl.lit(level), repeat=pl.lit(start), n=pl.lit(int(job.train.sum())))
            )
    frame = pl.concat(rows) if rows else None
    complete = (
        []
        if frame is None
        else [level for (level,), part in frame.group_by("level") if part["repeat"].n_unique() == frame["repeat"].n_unique()]
    )
    if frame is None or len(complete) < 4:
        why = f"{counted(len(complete), 'size')} of at least {_LEAST} judgments could be fitted; a curve takes four, each twice the one before."
        return Finding.not_applicable("learning-curve", title, why)
    levels = sorted(complete, key=int, reverse=True)  # type: ignore[arg-type]  # they are numbers
    frame = frame.filter(pl.col("level").is_in(levels)).with_columns(
        unit=pl.Series(code)[frame.filter(pl.col("level").is_in(levels))["row"]]
    )
    cells = frame.group_by("repeat", "unit", "level", maintain_order=True).agg(pl.col("hit", "loss").sum(), pl.len().alias("count"))
    units = cells.select("repeat", "unit").unique(maintain_order=True).with_row_index("i")
    cells = cells.join(units, on=["repeat", "unit"])
    at = {level: j for j, level in enumerate(levels)}
    place = (cells["i"].to_numpy(), np.array([at[level] for level in cells["level"]]))
    sums = {name: np.zeros((units.height, len(levels))) for name in ("hit", "loss", "count")}
    for name, table in sums.items():
        table[place] = cells[name].to_numpy()
    size = np.array([float(frame.filter(pl.col("level") == level)["n"].unique().mean()) for level in levels])  # type: ignore[arg-type]  # a mean of numbers
    repeat = units["repeat"].to_numpy()
    weight = _hierarchical(repeat, np.random.default_rng(seed))
    curves = {name: (weight @ sums[name]) / (weight @ sums["count"]) for name in ("hit", "loss")}
    loss, hit = (sums[name].sum(0) / sums["count"].sum(0) for name in ("loss", "hit"))
    law, drawn = fit_power_law(size, loss), fit_power_law(size, curves["loss"])
    twice = 2 * size[-1]
    ahead = drawn.at(twice)
    points = [
        {"n": float(n), "log_loss": float(y), "low": float(a), "high": float(b), "accuracy": float(h), "accuracy_low": float(c), "accuracy_high": float(d)}
        for n, y, h, (a, b), (c, d) in zip(
            size, loss, hit, np.quantile(curves["loss"], [0.025, 0.975], axis=0).T, np.quantile(curves["hit"], [0.025, 0.975], axis=0).T, strict=True
        )
    ]  # fmt: skip
    ends = (
        f"Log loss on {unit}s never trained on goes from {loss[0]:.3f} with {size[0]:,.0f} judgments to {loss[-1]:.3f} with {size[-1]:,.0f}"
    )
    told = np.isfinite(drawn.exponent)
    details: dict[str, Any] = {"curve": points, "accuracy": f"{hit[0]:.3f} to {hit[-1]:.3f}"}
    reason = (
        f"Fits to nested halves of the {unit}s, tested on a fold of others, {frame['repeat'].n_unique()} times; the bootstrap draws the times and the "
        f"{unit}s tested. Log loss = floor + scale n^-exponent by least squares over exponents of 0.05 to 2."
    )
    if not np.isfinite(law.exponent[0]) or told.mean() < 0.95:
        return Finding(
            code="learning-curve", title=f"{ends}: no fall that is sure, so that more judgments of this kind may bring nothing.",
            estimate=float(loss[-1]), low=points[-1]["low"], high=points[-1]["high"], n=int(sums["count"][:, -1].sum()), unit="nats", verdict="notice",
            reason=f"{reason} In {1 - told.mean():.0%} of the draws the loss does not fall.", source="Hestness et al. 2017", details=details,
            remedy="Look at what the model cannot see (its features) before collecting more judgments.",
        )  # fmt: skip
    low, high = np.quantile(drawn.exponent[told], [0.025, 0.975])
    floor_low, floor_high = np.quantile(drawn.floor, [0.025, 0.975])
    next_low, next_high = np.quantile(ahead, [0.025, 0.975])
    details |= {
        "floor": {"estimate": float(law.floor[0]), "low": float(floor_low), "high": float(floor_high)}, "scale": float(law.scale[0]),
        "twice": {"n": float(twice), "log_loss": float(law.at(twice)[0]), "low": float(next_low), "high": float(next_high)},
    }  # fmt: skip
    wide = low <= _EXPONENTS[0] + 1e-9 and high >= _EXPONENTS[-1] - 1e-9
    return Finding(
        code="learning-curve", estimate=float(law.exponent[0]), low=float(low), high=float(high), n=int(sums["count"][:, -1].sum()), unit="exponent",
        title=f"{ends}, with the exponent {law.exponent[0]:.2f} [{low:.2f}, {high:.2f}]: twice as many would bring it to "
        f"{law.at(twice)[0]:.3f} [{next_low:.3f}, {next_high:.3f}].",
        reason=reason + (" The interval is all exponents looked at: the curve is too short or too noisy to tell." if wide else ""),
        source="Hestness et al. 2017", details=details,
    )  # fmt: skip


def _hierarchical(repeat: Codes, rng: np.random.Generator) -> Array:
    """(draws, n_units) how often each unit is drawn: repeats with replacement, and units within each."""
    names = np.unique(repeat)
    weight = np.zeros((_DRAWS, len(repeat)))
    rows = [np.flatnonzero(repeat == r) for r in names]
    for draw in weight:
        for r in rng.integers(0, len(names), len(names)):
            draw[rows[r]] += rng.multinomial(len(rows[r]), np.full(len(rows[r]), 1 / len(rows[r])))
    return weight


# ---------------------------------------------------------------------------------------------- too many steps


def check_overfitting(steps: ArrayLike, train: ArrayLike, held_out: ArrayLike, *, gold: ArrayLike | None = None) -> Finding:
    """Losses along training, and where to stop: the step of the lowest held-out loss, once two steps in a row have not been lower.

    The rule looks at every step in turn and knows nothing of what comes later. To wait until the rise is more than noise would be to fire after what the
    reward is for has fallen, so that only decides the verdict. The lowest loss is not the highest gold: where what matters is slow to learn, the
    loss of being too sure rises long before gold is at its peak, and the stop comes too early.

    Parameters
    ----------
    steps : (T,) in order; train : (T,) mean loss of what is trained on, nats; held_out : (T, U) loss of each prompt or rater held out, nats.
    gold : (T,) what the reward is for, where somebody knows it: only shown beside, never used by the rule.
    """
    t, inside, outside = (np.asarray(x, dtype=np.float64) for x in (steps, train, held_out))
    if outside.ndim != 2 or len(t) != len(outside) or len(t) != len(inside) or len(t) < 3 or outside.shape[1] < 2:
        raise InvalidSetting(
            "held_out", outside.shape, "Give a row for each of three steps or more, and a column for each of two units or more."
        )
    if not (np.isfinite(outside).all() and np.isfinite(inside).all()):
        raise InvalidSetting("held_out", "values that are not finite", "Leave out the steps at which the loss could not be computed.")
    loss = outside.mean(1)
    fired, best = None, 0
    for k in range(1, len(t)):
        if loss[k] < loss[best]:
            best = k
        elif k - best == _PATIENCE:
            fired = k
            break
    lowest = int(loss.argmin()) if fired is None else best
    gap = mean(outside[-1] - inside[-1])
    curve: list[dict[str, float]] = [
        {"step": float(s), "train": float(a), "held_out": float(b)} for s, a, b in zip(t, inside, loss, strict=True)
    ]
    if gold is not None:
        for row, value in zip(curve, np.asarray(gold, dtype=np.float64), strict=True):
            row["gold"] = float(value)
    details: dict[str, Any] = {"curve": curve, "stop_at": float(t[lowest]), "fired_at": None if fired is None else float(t[fired])}
    rise = mean(outside[-1] - outside[lowest])
    return Finding.of(
        gap, code="overfitting", unit="nats", verdict="ok" if fired is None else "warning" if rise.low > 0 else "notice",
        title=f"At the last step the held-out loss is {gap.estimate:.3f} nats above that of training; "
        + (f"it was lowest at step {t[lowest]:g}, and was seen to rise at step {t[fired]:g}." if fired is not None else "it has not been seen to rise."),
        reason="n counts held-out units. The stop fires where two steps in a row have not been below the lowest so far; a warning where the rise to the end is more than noise.",
        remedy=f"Use the reward of step {t[lowest]:g}." if fired is not None else None, source="Prechelt 1998", details=details,
    )  # fmt: skip
