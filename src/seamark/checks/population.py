"""Who answered, beside the population that is to be represented: gaps, cells that nobody speaks for, and what weighing costs."""

from __future__ import annotations

from typing import Any

from seamark.aggregation.population import Target, Weights, post_stratify, rake, rater_profiles, representation
from seamark.checks.comparisons import counted, percent
from seamark.checks.findings import Finding, Findings
from seamark.records import Feedback

_SHOWN = 50
_COLUMNS = ("column", "level", "target", "n", "sample", "judgments", "gap", "gap_low", "gap_high", "weighted", "residual")


def check_population(feedback: Feedback, target: Target, *, unseen: bool = False) -> Findings:
    """How the raters differ from a target population, which of its cells are empty, and how many raters the weighed ones are worth.

    Weights are those of post-stratification where the target has cells, and of raking where it has margins of several columns.

    Parameters
    ----------
    unseen : whether the target may have levels that no rater has. Otherwise they are taken for a slip of spelling.

    Raises
    ------
    InvalidSetting
        If a column of the target is known of no rater.
    InvalidCharter
        If a level of the target is not in the data, unless `unseen`.
    """
    raters = rater_profiles(feedback, target.columns)
    cells = target.cells is not None or len(target.margins) == 1
    weights = (post_stratify if cells else rake)(raters, target, unseen=unseen)
    how = "post-stratification" if cells else "raking"
    return Findings((_pool(representation(raters, target, weights), target, raters.height), _empty(weights, target), _size(weights, how)))


def _pool(table: Any, target: Target, n_raters: int) -> Finding:
    rows = table.select([name for name in _COLUMNS if name in table.columns]).to_dicts()
    known = [row for row in rows if row["gap"] is not None]
    if not known:
        return Finding.not_applicable("pool", "How the raters differ from the population cannot be told.", "No rater's profile is known.")
    most = max(known, key=lambda row: abs(row["gap"]))
    apart = most["gap_low"] is not None and (most["gap_low"] > 0 or most["gap_high"] < 0)
    return Finding(
        code="pool", estimate=most["gap"], low=most["gap_low"], high=most["gap_high"], n=n_raters, unit="share", verdict="notice" if apart else "ok",
        title=f"Of the raters {percent(most['sample'])} have {most['column']} {most['level']}, of the population {percent(most['target'])}: the largest "
        f"difference of {counted(len(rows), 'level')}.",
        reason=f"Over {counted(n_raters, 'rater')} against {target.source}; the 90% interval is of this level alone, and the largest of many is large by "
        "choice. What a pool is not adjusted for may differ as much.",
        remedy="Weigh answers by the population (charter: weighting target; Groups by these columns), and ask people who are missing." if apart else None,
        details={"levels": rows[:_SHOWN]},
    )  # fmt: skip


def _empty(weights: Weights, target: Target) -> Finding:
    names = sorted(weights.empty, key=lambda name: -weights.empty[name])
    said = "; ".join(f"{name} ({percent(weights.empty[name])})" for name in names[:5]) + ("; ..." if len(names) > 5 else "")
    return Finding(
        code="empty-cells", estimate=float(len(names)), n=len(weights.values), unit="count", verdict="warning" if names else "ok",
        title=f"Nobody speaks for {counted(len(names), 'cell')} of the population, {percent(1 - weights.covered)} of it: {said}." if names
        else "Every cell of the population has somebody to speak for it.",
        reason=f"Cells of {target.source} without a rater; a count of facts: no interval. They are named, and nothing is put in their place."
        + (f" {counted(weights.unknown, 'rater')} of unknown profile count for none." if weights.unknown else ""),
        remedy="Ask people of these cells, or say whom the reward does not speak for." if names else None, details={"cells": weights.empty},
    )  # fmt: skip


def _size(weights: Weights, how: str) -> Finding:
    n = int((weights.values > 0).sum())
    return Finding(
        code="effective-raters", estimate=weights.effective_size, n=n, unit="count", verdict="notice" if weights.effective_size < n / 2 else "ok",
        title=f"Weighed by {how}, {counted(n, 'rater')} tell as much as {weights.effective_size:.0f} of equal weight would.",
        reason="Kish's effective size, (sum of weights)^2 / sum of squares: an upper bound where answers go with the weights. A count of facts: no "
        "interval." + ("" if weights.converged else f" Raking did not converge: {weights.error:.2g} of a share is left."),
        source="Kish 1965",
        remedy="Raters with large weights decide much: more people like them would tell more." if weights.effective_size < n / 2 else None,
    )  # fmt: skip
