"""Checks of a fit: how well it predicts people it has not seen, and what it says of itself: convergence, raters, effects, doubt."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.baselines import check_baselines
from seamark.checks.comparisons import compare, counted
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.held_out import (
    answered_cells,
    check_accuracy,
    check_against_people,
    check_calibration,
    check_log_loss,
    decided_cells,
)
from seamark.checks.intervals import Interval, clustered_mean, share
from seamark.checks.thresholds import THRESHOLDS
from seamark.models.fitting import Fit
from seamark.models.prediction import predict
from seamark.records import Feedback

Array = NDArray[np.float64]

_DOUBTS = ("noise", "disagreement", "noise_and_disagreement", "ignorance")


def evaluate(fit: Fit, held_out: Feedback, *, train: Feedback | None = None, seed: int = 0) -> Findings:
    """How the fit does on judgments it has not seen, and what it says about raters and about its own doubt.

    Returns whether the fit converged; accuracy, log loss and calibration with intervals clustered by rater or by prompt, sliced by
    rater, prompt and group and set against the other raters; the trivial baselines on the same judgments; the raters' reliability;
    and the three doubts. `train` gives the majority baseline and the direction of the length baseline.
    """
    predictions = predict(fit, held_out)
    decided = decided_cells(fit, held_out, predictions)
    return Findings(
        (
            check_convergence(fit),
            *check_accuracy(fit, predictions, decided),
            *check_against_people(held_out, decided),
            *check_baselines(held_out, decided, train),
            *check_log_loss(answered_cells(fit, held_out, predictions)),
            *check_calibration(decided),
            check_rater_reliability(fit),
            *check_effects(fit),
            check_doubts(fit, held_out, seed=seed),
        )
    )


def check_convergence(fit: Fit) -> Finding:
    """Whether the optimiser reached the mode, and how far it still was."""
    c = fit.convergence
    steps = counted(c.iterations, "iteration")
    step = f"the last step is {c.decrement:.2g} standard errors long"
    verdict: Verdict = "ok" if c.converged else "blocking" if not c.decrement < THRESHOLDS.decrement_blocking else "warning"
    return Finding(
        code="convergence",
        title=f"The fit {'converged' if c.converged else 'did not converge'} after {steps}: {step}, {c.tolerance:.2g} is asked for.",
        estimate=c.decrement if np.isfinite(c.decrement) else None,
        n=c.iterations,
        unit="standard errors",
        verdict=verdict,
        reason=" ".join(("Newton decrement; n counts iterations. A fact about the computation: no interval.", *c.notes)),
        remedy=None
        if c.converged
        else "Allow more iterations (max_iterations), or fit fewer columns; read no estimate until it converges.",
    )


_CLEAR = 0.9
"""Posterior probability above which a rater counts as clearly at chance, or clearly opposed, in the sentence."""


def check_rater_reliability(fit: Fit) -> Finding:
    """How many raters answer at chance, and how many against the majority, by the fit's posterior of each rater's slope."""
    enough = f"with {THRESHOLDS.few_judgments} or more judgments"
    raters = fit.raters.filter(pl.col("n") >= THRESHOLDS.few_judgments).sort("n", descending=True)
    if raters.height < 3 or raters["slope"].is_nan().all():
        unknown = fit.raters.height == 0
        why = "Raters are not known." if unknown else f"It needs at least 3 raters {enough} each, and the Reliability effect."
        title = "The raters' reliability cannot be told."
        return Finding.not_applicable("rater-reliability", title, why, remedy="Record a rater id with every judgment.")
    careless, opposed = raters["p_careless"].to_numpy(), raters["p_opposed"].to_numpy()
    at_chance = _with_posterior_spread(share(careless), careless)
    verdict = _worst(
        at_chance.estimate,
        blocking=THRESHOLDS.raters_at_chance_blocking,
        warning=THRESHOLDS.raters_at_chance_warning,
        notice=THRESHOLDS.raters_at_chance_notice,
    )
    verdicts = np.where(careless > 0.5, "at chance", np.where(opposed > 0.5, "opposed", "careful"))
    columns = raters.select("rater", "n", "slope", "low", "high", "p_careless", "p_opposed")
    slopes = raters["slope"].to_numpy()
    counts, edges = np.histogram(slopes, bins=30, range=(min(slopes.min(), -1.0), max(slopes.max(), 2.0)))
    return Finding.of(
        at_chance, code="rater-reliability", unit="share", verdict=verdict,
        title=f"About {at_chance.estimate:.0%} [{at_chance.low:.0%}, {at_chance.high:.0%}] of the {raters.height:,} raters {enough} answer at "
        f"chance ({int((careless > _CLEAR).sum()):,} clearly so); {int((opposed > _CLEAR).sum()):,} clearly against the majority.",
        reason="Posterior probability of a slope of 0, averaged over raters. An opposed rater may be a consistent minority, which one-value data "
        "cannot tell from an adversary.",
        remedy="Look at the raters named in the table; ask for repeated or gold items before excluding anyone." if verdict != "ok" else None,
        source="Seamark's rater model: mixture of careful, at chance and opposed slopes, integrated out",
        details={
            "raters": columns.with_columns(pl.Series("verdict", verdicts)).head(5000).to_dicts(),
            "histogram": [{"low": float(a), "high": float(b), "count": int(c)} for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)],
        },
    )  # fmt: skip


def _with_posterior_spread(drawn: Interval, probability: Array) -> Interval:
    """The wider of the interval from the draw of raters and the one from the doubt about each of them."""
    half = 1.96 * float(np.sqrt((probability * (1 - probability)).sum()) / len(probability))
    return replace(
        drawn, low=max(0.0, min(drawn.low, drawn.estimate - half)), high=min(1.0, max(drawn.high, drawn.estimate + half))
    )  # fmt: skip


def _worst(value: float, *, blocking: float, warning: float, notice: float) -> Verdict:
    """The most severe verdict whose threshold the value exceeds."""
    return "blocking" if value > blocking else "warning" if value > warning else "notice" if value > notice else "ok"


def check_effects(fit: Fit) -> list[Finding]:
    """Position and length as the model sees them, all else given."""
    findings: list[Finding] = []
    for parameter in fit.parameters:
        code = {"position": "position/fitted", "style: log_characters": "length/fitted"}.get(parameter.name)
        if code is None:
            continue
        logits = f"{parameter.estimate:+.2f} logits ({parameter.low:+.2f} to {parameter.high:+.2f})"
        points = 100 / (1 + np.exp(-abs(parameter.estimate))) - 50
        title = {
            "position/fitted": f"All else equal, the response shown first gains {logits}: {points:.0f} points of preference at an even pair.",
            "length/fitted": f"One standard deviation more log length goes with {logits}, given the other features.",
        }[code]
        findings.append(
            Finding.of(
                Interval(parameter.estimate, parameter.low, parameter.high, fit.data["n_judgments"], 0),
                code=code,
                title=title,
                unit=parameter.unit,
                verdict="notice" if parameter.low > 0 or parameter.high < 0 else "ok",
                reason=f"The wider of the Laplace interval and the sandwich clustered by {fit.data['clustered_by']}.",
            )
        )
    return findings


def check_doubts(fit: Fit, feedback: Feedback, *, limit: int = 5000, seed: int = 0) -> Finding:
    """How the doubt about the next careful judgment divides into noise, disagreement and ignorance, over the pairs compared."""
    compared = compare(feedback, seed=seed).most_direct()
    low, high = np.minimum(compared.left, compared.right), np.maximum(compared.left, compared.right)
    pairs = pl.DataFrame({"low": low, "high": high, "prompt": compared.prompt}).filter(pl.col("low") < pl.col("high"))
    pairs = pairs.unique(["low", "high"], keep="first", maintain_order=True)
    if pairs.height == 0:
        return Finding.not_applicable(
            "doubts", "The three doubts are shown for pairs.", "No judgment compares two responses, or implies it."
        )
    if pairs.height > limit:
        pairs = pairs.sample(limit, seed=seed)
    gaps = fit.gaps(feedback, pairs["low"].to_numpy(), pairs["high"].to_numpy())
    keep = gaps.known
    if not keep.any():
        return Finding.not_applicable("doubts", "The three doubts cannot be told.", "The fit can place none of the responses.")
    table = fit.doubts(gaps).with_columns(pl.Series("gap", np.abs(gaps.mean))).filter(pl.Series(keep))
    pairs = pairs.filter(pl.Series(keep))
    total = (table["p"] * (1 - table["p"])).to_numpy()
    shares = {c: float(table[c].sum() / total.sum()) if table[c].null_count() == 0 else None for c in _DOUBTS}
    clusters = {"prompt": pairs["prompt"].to_numpy()}
    if pairs["prompt"].min() == -1:
        clusters = {"response": pairs["low"].to_numpy(), "other response": pairs["high"].to_numpy()}
    interval, how = clustered_mean(table["ignorance"].to_numpy() / total, clusters, weight=total)
    split = (
        f"{shares['noise']:.0%} is noise, {shares['disagreement']:.0%} disagreement between groups and {shares['ignorance']:.0%} ignorance"
        if fit.separates
        else f"{shares['ignorance']:.0%} is ignorance, and {shares['noise_and_disagreement']:.0%} noise and disagreement together"
    )
    why = (
        f"Law of total variance under the people model {fit.spec['people']['people']}."
        if fit.separates
        else "Noise and disagreement cannot be told apart without groups and several judgments per known rater (or repeats by the same person)."
    )
    return Finding.of(
        interval, code="doubts", title=f"Of the doubt about the next careful judgment, {split}.", unit="share",
        reason=f"Share of ignorance; n counts distinct pairs, each weighing as much as its doubt; {how}. {why}",
        remedy="Ignorance shrinks with more judgments; noise with clearer questions and better raters; disagreement is the charter's to settle.",
        details={
            "shares": shares,
            "logits": {
                "ignorance": float(np.mean(gaps.ignorance[keep])),
                "disagreement": float(np.mean(gaps.disagreement[keep])) if fit.separates else None,
            },
            "by_gap": _by_gap(table),
        },
    )  # fmt: skip


def _by_gap(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The doubts in five bins of equal count by the size of the gap."""
    edges = np.quantile(table["gap"].to_numpy(), np.linspace(0, 1, 6))
    rows: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        part = table.filter((pl.col("gap") >= low) & (pl.col("gap") <= high))
        if part.height:
            rows.append({"gap_low": float(low), "gap_high": float(high), "n": part.height} | {c: part[c].mean() for c in _DOUBTS})
    return rows
