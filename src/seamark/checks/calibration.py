"""Does what is predicted with 70% happen in 70%? By gap, by level of the reward, and for the whole distribution of people's answers.

Conventions
-----------
Cells are those of `held_out`. A *question* is one pair of responses, or one response that is put up or down, and its *share* is how many of the
people who decided it preferred the response with the lower code (or put it up). pi is the share that all people would give, q what is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from seamark.checks.comparisons import Codes, counted
from seamark.checks.findings import Finding, Verdict
from seamark.checks.held_out import Cells, Measure, figure, gain, gain_details, slices
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, bootstrap, clustered_mean, clustered_share
from seamark.models.observation import Thumbs
from seamark.models.prediction import Predicted
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]

_BINS = 10
_LEAST_CALIBRATION = 50
_LEAST_QUESTIONS = 20
"""Questions that several people decided, below which their distribution is not looked at."""
_SEVERAL = 3
"""People who decided a question, below which its share says too little."""


def _in_shares(points: Interval) -> Interval:
    return replace(points, estimate=points.estimate / 100, low=points.low / 100, high=points.high / 100)


_CALIBRATION = Measure(
    "calibration",
    lambda found: (
        f"the predicted winner wins {gain(_in_shares(found), better='more often than predicted', worse='less often than predicted')}"
    ),
    "points",
    "+.1f",
    -100.0,
    100.0,
)


# ---------------------------------------------------------------------------------------------- calibration


def check_calibration(cells: Cells) -> list[Finding]:
    """Do things predicted with 70% happen in 70%? Expected calibration error over ten bins of equal count.

    ECE is biased upwards (noise in each bin counts as error): the title says what a perfectly calibrated fit would show.
    """
    if cells.n < _LEAST_CALIBRATION:
        why = f"There are {counted(cells.n, 'decided held-out pair')}; {_LEAST_CALIBRATION} are needed."
        return [Finding.not_applicable("calibration", "Calibration cannot be measured.", why)]
    # orientation is arbitrary where the order is not known: the predicted winner is the same whichever is called first
    p, won, count = cells["p"], cells["won"], cells["count"]
    chosen, hit = np.maximum(p, 1 - p), np.where(p >= 0.5, won, ~won).astype(np.float64)
    bins = np.empty(len(p), dtype=np.int64)
    order = np.argsort(chosen)
    reached = np.cumsum(count[order])
    bins[order] = np.minimum((reached / reached[-1] * _BINS).astype(int), _BINS - 1)

    estimate = _ece(bins, count, chosen, hit)
    spans = [(bootstrap(lambda w: _ece(bins, w * count, chosen, hit), code, rounds=200), name) for name, code in cells.clusters.items()]
    (lower, upper), unit = max(spans, key=lambda found: found[0][1] - found[0][0])
    # the resampled ECE is biased upwards once more: the basic interval reflects the percentiles about the estimate
    low, high = max(0.0, min(2 * estimate - upper, estimate)), min(1.0, max(2 * estimate - lower, estimate))
    odds = np.log(np.clip(chosen, 1e-12, 1 - 1e-12) / np.clip(1 - chosen, 1e-12, 1))
    heats = [bootstrap(lambda w: _temperature(w * count, odds, hit), code, rounds=200) for code in cells.clusters.values()]
    heat, (cool, hot) = _temperature(count, odds, hit), max(heats, key=lambda found: found[1] - found[0])
    unsure = "too sure" if cool > 1 else "not sure enough" if hot < 1 else "as sure as it is right, by temperature"
    rng = np.random.default_rng(0)
    perfect = float(np.mean([_ece(bins, count, chosen, (rng.random(len(p)) < chosen).astype(np.float64)) for _ in range(50)]))
    verdict: Verdict = "warning" if low > max(THRESHOLDS.calibration_times_perfect * perfect, THRESHOLDS.calibration_warning) else "ok"
    overall = Finding.of(
        Interval(estimate, low, high, cells.n, 0), code="calibration", unit="share", verdict=verdict,
        title=f"Predicted and observed shares differ by {estimate:.1%} on average [{100 * low:.1f}, {100 * high:.1f}]; "
        f"a perfectly calibrated fit would show {perfect:.1%}.",
        reason=f"Expected calibration error of the predicted winner, ten bins of equal count; bootstrap over {unit}s. "
        f"The fit is {unsure}: log odds divided by {heat:.2f} [{cool:.2f}, {hot:.2f}] predict best.",
        remedy=None if verdict != "warning"
        else "Look at the bins: some shares are predicted too high and others too low." if cool <= 1 <= hot
        else f"Divide its log odds by {heat:.2f}, and look for what makes it so (noise that is not modelled, raters that answer alike).",
        source="Guo et al. 2017; bias: Roelofs et al. 2022",
        details={"bins": _curve(cells, bins, chosen, hit), "perfect": perfect, "temperature": [heat, cool, hot]},
    )  # fmt: skip
    return [overall, *slices(_CALIBRATION, cells, 100 * (hit - chosen))]


def _temperature(count: Array, odds: Array, hit: Array) -> float:
    """T by which log odds (n,) >= 0 are divided to predict `hit` best: 1 where they are calibrated, more where they are too sure (Guo et al.
    2017). Between 1/20 and 20."""
    b = 1.0
    for _ in range(60):
        p = 1 / (1 + np.exp(-b * odds))
        slope, curve = float(count @ (odds * (hit - p))), float(count @ (odds**2 * p * (1 - p)))
        step = float(np.clip(slope / max(curve, 1e-12), -0.5, 0.5))
        b = float(np.clip(b + step, 0.05, 20.0))
        if abs(step) < 1e-6:
            break
    return 1 / b


def _ece(bins: Codes, count: Array, chosen: Array, hit: Array) -> float:
    gap = np.abs(np.bincount(bins, count * hit, _BINS) - np.bincount(bins, count * chosen, _BINS))
    return float(gap.sum() / count.sum())


def _curve(cells: Cells, bins: Codes, chosen: Array, hit: Array) -> list[dict[str, float]]:
    """Predicted and observed share in each bin."""
    rows: list[dict[str, float]] = []
    for b in np.unique(bins):
        part = cells.where(bins == b)
        observed, _ = part.share(hit[bins == b])
        predicted = float(np.average(chosen[bins == b], weights=part["count"]))
        rows.append({"predicted": predicted, "observed": observed.estimate, "low": observed.low, "high": observed.high, "n": part.n})
    return rows


# ---------------------------------------------------------------------------------------------- by gap, and by level of the reward


def check_brier(cells: Cells) -> Finding:
    """Mean squared difference between what was predicted and what happened; 0.25 is a coin's."""
    if not len(cells):
        return Finding.not_applicable(
            "brier", "The Brier score cannot be computed.", "The fit can place no held-out pair that was decided."
        )
    score = (cells["p"] - cells["won"]) ** 2
    result, how = cells.mean(score)
    better, _ = cells.mean(0.25 - score)
    return Finding.of(
        result, code="brier", unit="squared share", verdict="warning" if better.high < 0 else "ok", source="Brier 1950",
        title=f"Brier score {figure(result, '.3f')} on {counted(cells.n, 'decided held-out judgment')}; a coin's is 0.25, which is "
        f"{'higher' if better.estimate >= 0 else 'lower'} by {figure(replace(better, estimate=abs(better.estimate)) if better.estimate >= 0 else better, '.3f')}.",
        reason=f"Mean squared difference between the predicted probability and the answer; {how}.", details=gain_details(better),
    )  # fmt: skip


def check_calibration_by(cells: Cells, value: Array) -> list[Finding]:
    """Calibration by the size of the predicted gap, and by the level of the reward: the mean value, (n_responses,), of the two responses."""
    if cells.n < 2 * _LEAST_CALIBRATION:
        return []  # said once, by `calibration`
    chosen = np.maximum(cells["p"], 1 - cells["p"])
    gap = np.log(np.clip(chosen, 0.5, 1 - 1e-12) / np.clip(1 - chosen, 1e-12, 0.5))
    level = (value[cells["first"]] + value[cells["second"]]) / 2
    found = [_by_bin(cells, gap, "gap", "predicted gap", np.array([0.5, 1.0, 2.0]))]
    known = np.isfinite(level)
    if known.all() and level.std() > 0:
        found.append(
            _by_bin(
                cells, level, "reward", "mean reward of the two", np.asarray(np.quantile(level, [0.2, 0.4, 0.6, 0.8]), dtype=np.float64)
            )
        )
    return found


def _by_bin(cells: Cells, value: Array, name: str, words: str, edges: Array) -> Finding:
    """How often the predicted winner wins beside how often it should, in bins of something in logits."""
    p, won = cells["p"], cells["won"]
    excess = 100 * (np.where(p >= 0.5, won, ~won) - np.maximum(p, 1 - p))
    bins = np.searchsorted(edges, value, side="right")
    present = [b for b in np.unique(bins).tolist() if (bins == b).sum() >= _LEAST_CALIBRATION]
    if not present:
        return Finding.not_applicable(
            f"calibration/{name}", f"Calibration by the {words} cannot be measured.", f"No bin has {_LEAST_CALIBRATION} cells."
        )
    wider = norm.ppf(1 - 0.025 / len(present)) / norm.ppf(0.975)
    rows: list[dict[str, Any]] = []
    for b in present:
        part = cells.where(bins == b)
        found, _ = part.mean(excess[bins == b])
        half = wider * (found.high - found.low) / 2
        rows.append({
            "low_edge": float(value[bins == b].min()), "high_edge": float(value[bins == b].max()), "n": part.n, "excess": found.estimate,
            "low": found.estimate - half, "high": found.estimate + half,
        })  # fmt: skip
    worst = max(rows, key=lambda row: abs(row["excess"]) / max(row["high"] - row["low"], 1e-12))
    off = worst["low"] > 0 or worst["high"] < 0
    verdict: Verdict = "ok" if not off else "warning" if abs(worst["excess"]) > 100 * THRESHOLDS.calibration_warning else "notice"
    where = f"between {worst['low_edge']:.2f} and {worst['high_edge']:.2f} logits"
    often = "more" if worst["excess"] > 0 else "less"
    said = f"the predicted winner wins {abs(worst['excess']):.1f} points {often} often than predicted"
    return Finding(
        code=f"calibration/{name}", estimate=worst["excess"], low=worst["low"], high=worst["high"], n=cells.n, unit="points", verdict=verdict,
        title=f"Where the {words} is {where}, {said} [{worst['low']:.1f}, {worst['high']:.1f}]; "
        + ("no bin is surely off." if not off else "it is the bin that is off most clearly."),
        reason=f"The bin whose deviation is largest in standard errors, of {len(rows)}; intervals hold for all bins together (Bonferroni). n counts judgments of all bins.",
        remedy="What is predicted there is not what happens: look at the bins before using the reward at this level." if verdict == "warning" else None,
        details={"bins": rows},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- against the distribution of answers


@dataclass(frozen=True)
class Shares:
    """Questions that several people decided."""

    predicted: Array
    """(n,) q, mean over who was asked."""
    yes: Array
    """(n,) people who preferred the response with the lower code, or put it up."""
    asked: Array
    """(n,) people who decided."""
    question: Codes
    prompt: Codes
    """(n,) n_prompts where it is not known."""
    what: str
    """pair or response."""

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def observed(self) -> Array:
        return self.yes / self.asked

    @property
    def squared_distance(self) -> Array:
        """(n,) unbiased for (q - pi)^2: (q - s)^2 - s (1 - s) / (n - 1), s the observed share of n answers."""
        s = self.observed
        return (self.predicted - s) ** 2 - s * (1 - s) / (self.asked - 1)

    @property
    def clusters(self) -> dict[str, Codes]:
        found = {self.what: np.arange(len(self)), "prompt": self.prompt}
        return {name: code for name, code in found.items() if len(np.unique(code)) > 1}


def shares_of(cells: Cells, predictions: Sequence[Predicted]) -> list[Shares]:
    """What was predicted of the shares of each question that three people or more decided: of pairs, and of responses put up or down."""
    parts: list[tuple[str, pl.DataFrame]] = []
    if len(cells):
        turned = cells["first"] > cells["second"]
        parts.append(("pair", pl.DataFrame({
            "low": np.minimum(cells["first"], cells["second"]), "high": np.maximum(cells["first"], cells["second"]),
            "q": np.where(turned, 1 - cells["p"], cells["p"]), "yes": np.where(turned, ~cells["won"], cells["won"]).astype(float),
            "count": cells["count"], "prompt": cells["prompt"],
        })))  # fmt: skip
    thumbs = [p for p in predictions if isinstance(p.family, Thumbs)]
    if thumbs:
        frames = [
            pl.DataFrame({"low": p.shown[:, 0], "high": p.shown[:, 0], "q": p.probs[:, 0], "yes": (p.outcome == 0).astype(float), "count": p.count, "prompt": p.prompt})
            for p in thumbs
        ]  # fmt: skip
        parts.append(("response", pl.concat(frames)))
    found: list[Shares] = []
    for what, frame in parts:
        by = frame.group_by("low", "high", maintain_order=True).agg(
            q=(pl.col("q") * pl.col("count")).sum() / pl.col("count").sum(), yes=(pl.col("yes") * pl.col("count")).sum(),
            asked=pl.col("count").sum(), prompt=pl.col("prompt").first(),
        ).filter(pl.col("asked") >= _SEVERAL)  # fmt: skip
        if by.height >= _LEAST_QUESTIONS:
            q, yes, asked = (by[name].to_numpy() for name in ("q", "yes", "asked"))
            found.append(Shares(q, yes, asked, np.arange(by.height), by["prompt"].to_numpy(), what))
    return found


def check_distribution(cells: Cells, predictions: Sequence[Predicted], *, seed: int = 0) -> list[Finding]:
    """Whether the fit knows how people divide over a question, and not only which side has the majority.

    Source: beta-binomial dispersion (Williams 1982); entropy of small samples (Miller 1955).
    """
    found = shares_of(cells, predictions)
    if not found:
        why = f"Fewer than {_LEAST_QUESTIONS} held-out questions were decided by {_SEVERAL} people or more."
        return [Finding.not_applicable("distribution", "Whether predicted shares are those of people's answers cannot be told.", why)]
    return [_distribution(shares, seed, suffix="" if k == 0 else f"/{shares.what}") for k, shares in enumerate(found)]


def _distribution(shares: Shares, seed: int, suffix: str) -> Finding:
    s, q, n = shares.observed, np.clip(shares.predicted, 1e-9, 1 - 1e-9), shares.asked
    centre = 0.5 if shares.what == "pair" else float(np.average(s, weights=n))
    spread = (centre - s) ** 2 - s * (1 - s) / (n - 1)
    distance = shares.squared_distance

    def widest(statistic: Any) -> tuple[float, float]:
        spans = [bootstrap(statistic, code, rounds=300, seed=seed) for code in shares.clusters.values()]
        return max(spans, key=lambda ends: ends[1] - ends[0])

    def rms(weight: Array) -> float:
        return float(np.sqrt(max(np.average(distance, weights=weight), 0.0))) if weight.sum() else float("nan")

    def dispersion(weight: Array) -> float:
        extra = (shares.yes - n * q) ** 2 - n * q * (1 - q)
        return float((weight @ extra) / (weight @ (n * (n - 1) * q * (1 - q)))) if weight.sum() else float("nan")

    ones = np.ones(len(shares))
    low, high = widest(rms)
    rho = (dispersion(ones), *widest(dispersion))
    rng = np.random.default_rng(seed)
    told = 1 - distance.mean() / spread.mean() if spread.mean() > 0 else 0.0
    variation = float(np.abs(q - s).mean())
    drawn = rng.binomial(n.astype(int), q, (50, len(q)))
    least = float(np.abs(drawn / n - q).mean())
    entropy = _entropy(s)
    crossed = -(s * np.log(q) + (1 - s) * np.log(1 - q))
    others = -(s * np.log(np.maximum(shares.yes, 1e-9) / (n + 1)) + (1 - s) * np.log(np.maximum(n - shares.yes, 1e-9) / (n + 1)))
    nats, _ = clustered_mean(crossed, shares.clusters, weight=n)
    people = {
        "own_entropy": float(np.average(entropy, weights=n)), "own_entropy_corrected": float(np.average(np.minimum(entropy + 1 / (2 * n), np.log(2)), weights=n)),
        "other_raters": float(np.average(others, weights=n)),
    }  # fmt: skip
    folded = shares.what == "pair"
    side, seen = (np.maximum(q, 1 - q), np.where(q >= 0.5, s, 1 - s)) if folded else (q, s)
    bins = (np.argsort(np.argsort(side, kind="stable"), kind="stable") * _BINS) // len(side)
    curve: list[dict[str, float]] = []
    for b in np.unique(bins):
        mine = bins == b
        observed, _ = clustered_share(seen[mine], {name: code[mine] for name, code in shares.clusters.items()}, weight=n[mine])
        curve.append({"predicted": float(np.average(side[mine], weights=n[mine])), "observed": observed.estimate, "low": observed.low, "high": observed.high, "n": int(mine.sum())})  # fmt: skip
    off = float(np.average([abs(row["predicted"] - row["observed"]) for row in curve], weights=[row["n"] for row in curve]))
    perfect = _perfect(side, n, max(rho[0], 0.0), bins, rng)
    surely = sum(row["low"] > row["predicted"] or row["high"] < row["predicted"] for row in curve)
    verdict: Verdict = "ok"
    if off > max(THRESHOLDS.calibration_warning, THRESHOLDS.calibration_times_perfect * perfect) and surely > 1:
        verdict = "warning"
    return Finding(
        code=f"distribution{suffix}", estimate=rms(ones), low=low, high=high, n=len(shares), unit="share", verdict=verdict,
        title=f"Over {counted(len(shares), shares.what)} that {n.mean():.1f} people decided on average, the predicted share of people lies {rms(ones):.1%} [{100 * low:.1f}, "
        f"{100 * high:.1f}] from the true one (root mean square), which tells {told:.0%} of how the shares vary; log loss {nats.estimate:.3f} nats an answer, that of "
        f"the other raters' shares {people['other_raters']:.3f}, and no less than {people['own_entropy']:.3f} is possible.",
        reason=f"The noise of few answers is taken off; n counts questions; bootstrap over {' and '.join(shares.clusters)}s, the wider. By bins, predicted and observed shares "
        f"differ by {off:.1%} on average, where shares that are right but as dispersed (rho {rho[0]:.2f}) would by {perfect:.1%}. The least is the entropy of the observed shares.",
        remedy="Some shares are predicted too high and others too low: look at the bins." if verdict == "warning" else None,
        source="Williams 1982; Miller 1955",
        details={
            "people": float(n.mean()),
            "bins": curve, "explained": float(told), "dispersion": {"estimate": rho[0], "low": rho[1], "high": rho[2]},
            "total_variation": {"observed": variation, "least": least}, "cross_entropy": {"estimate": nats.estimate, "low": nats.ends[0], "high": nats.ends[1]} | people,
            "calibration_error": off, "perfect": perfect,
        },
    )  # fmt: skip


def _entropy(share: Array) -> Array:
    p = np.clip(share, 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def _perfect(q: Array, n: Array, rho: float, bins: Codes, rng: np.random.Generator) -> float:
    """The binned error of shares that are right on average, people's own scattering about them as much as was seen (beta-binomial)."""
    if rho > 1e-6:
        precision = 1 / min(rho, 0.999) - 1
        pi = rng.beta(np.maximum(q * precision, 1e-6), np.maximum((1 - q) * precision, 1e-6), (50, len(q)))
    else:
        pi = np.broadcast_to(q, (50, len(q)))
    s = rng.binomial(n.astype(int), pi) / n
    errors = [np.abs((np.bincount(bins, n * row) - np.bincount(bins, n * q)) / np.bincount(bins, n)) for row in s]
    return float(np.mean([np.average(e, weights=np.bincount(bins)) for e in errors]))


# ---------------------------------------------------------------------------------------------- the click, and the preference behind it


def check_behaviour(
    fit: Fit, held_out: Feedback, cells: Cells, *, gold: ArrayLike | None = None, without: tuple[str, ...] = ()
) -> list[Finding]:
    """Two outputs, each on its own target: the predicted click on clicks, and the preference behind it on what does not depend on how it was shown.

    The click is the probability of the answer as shown, position and rater included; the preference is the sign of the utility gap of the mean
    person, without the parts of the utility named in `without`. Its target is `gold`, or else the answers to pairs that were shown in both orders,
    each order counting alike.

    Parameters
    ----------
    gold : (n_responses,) what each response is worth, where somebody knows it.
    without : parts of the utility that are no value (style).
    """
    if not len(cells):
        why = "The fit can place no held-out pair that was decided."
        return [
            Finding.not_applicable(f"behaviour/{name}", "Clicks and preferences cannot be told apart.", why)
            for name in ("click", "preference")
        ]
    first, second = cells["first"], cells["second"]
    value = fit.utilities(held_out, without=without)
    gap = value[first] - value[second]
    shift = np.log(np.clip(cells["p"], 1e-12, 1 - 1e-12) / np.clip(1 - cells["p"], 1e-12, 1 - 1e-12))
    plain = 1 / (1 + np.exp(-gap))
    loss = -np.log(np.maximum(np.where(cells["won"], plain, 1 - plain), 1e-300))
    better, how = cells.mean(loss - cells["loss"])
    hit = np.where(gap == 0, 0.5, (gap > 0) == cells["won"])
    click = Finding.of(
        better, code="behaviour/click", unit="nats", verdict="ok",
        title=f"As a prediction of clicks, the click model's log loss is {gain(better, unit='nats')} than that of the preference alone, on "
        f"{counted(cells.n, 'decided held-out judgment')}.",
        reason=f"Paired difference; what position, the rater and the parts left out add to the prediction of behaviour; {how}.",
        details={"click": float(np.average(cells["loss"], weights=cells["count"])), "preference": float(np.average(loss, weights=cells["count"])),
                 "accuracy": {"click": float(np.average(cells["hit"], weights=cells["count"])), "preference": float(np.average(hit, weights=cells["count"]))}},
    )  # fmt: skip
    return [click, _preference(cells, gap, shift, gold)]


def _preference(cells: Cells, gap: Array, shift: Array, gold: ArrayLike | None) -> Finding:
    """Direction of the preference, and of the click, against the target of the preference."""
    title, code = "Whether the preference behind the clicks is right cannot be told.", "behaviour/preference"
    if gold is not None:
        worth = np.asarray(gold, dtype=np.float64)
        if worth.ndim != 1 or len(worth) <= max(cells["first"].max(), cells["second"].max()):
            raise InvalidSetting("gold", worth.shape, "Give one number for each response of the held-out feedback.")
        target, use, words = worth[cells["first"]] - worth[cells["second"]], np.ones(len(cells), dtype=bool), "what responses are worth"
    else:
        turned = cells["first"] > cells["second"]
        frame = cells.frame.select("count", low=pl.min_horizontal("first", "second"), high=pl.max_horizontal("first", "second"), turned=pl.Series(turned),
                                   yes=pl.Series(cells["won"] != turned, dtype=pl.Float64), ordered="ordered").with_row_index("i")  # fmt: skip
        each = frame.filter("ordered").group_by("low", "high", "turned").agg(pl.col("yes").mean())
        both = each.group_by("low", "high").agg(pl.col("yes").mean(), pl.len()).filter(pl.col("len") == 2)
        share = frame.join(both.select("low", "high", balanced="yes"), on=["low", "high"], how="left", maintain_order="left")["balanced"]
        target = np.where(turned, -1.0, 1.0) * (share.fill_null(0.5).to_numpy() - 0.5)
        use, words = share.is_not_null().to_numpy() & (target != 0), "answers to pairs shown in both orders, which count alike"
    use &= (target != 0) & np.isfinite(gap)
    if use.sum() < _LEAST_CALIBRATION:
        why = "No gold values were given, and too few pairs were shown in both orders, the order being known."
        return Finding.not_applicable(code, title, why, remedy="Show some pairs in both orders.")
    part = cells.where(use)
    right = [np.where(x[use] == 0, 0.5, (x[use] > 0) == (target[use] > 0)).astype(np.float64) for x in (gap, shift)]
    ahead, how = part.mean(right[0] - right[1])
    found, _ = part.share(right[0])
    return Finding.of(
        found, code=code, unit="share", verdict="warning" if ahead.high < 0 else "ok",
        title=f"As a statement of what is preferred, the preference has the right direction in {figure(found)} of {counted(part.n, 'judgment')}, "
        f"{gain(ahead)} than the predicted click.",
        reason=f"Against {words}; the difference is paired; {how}.", details={"click": float(np.average(right[1], weights=part["count"]))} | gain_details(ahead),
    )  # fmt: skip
