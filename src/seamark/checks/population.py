"""Who answered, beside the population that is to be represented: gaps, cells that nobody speaks for, and what weighing does and costs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any

import polars as pl

from seamark.aggregation.population import Target, Weights, post_stratify, rake, rater_profiles, representation
from seamark.checks.comparisons import counted, percent
from seamark.checks.findings import Finding, Findings
from seamark.models.people import cell_name
from seamark.records import Feedback

_SHOWN = 50
_MISSED = 0.0005
"""A weighted share further than this from the population's misses it: shares of a census are printed with three digits."""
_MANY = 10_000
"""More combinations of levels than this are not gone through."""
_COLUMNS = ("column", "level", "target", "n", "sample", "judgments", "gap", "gap_low", "gap_high", "weighted", "residual")


def check_population(feedback: Feedback, target: Target, *, unseen: bool = False) -> Findings:
    """How the raters differ from a target population, whom it has and they lack, and what weighing them does: whether weighted shares
    are the population's, who does not count, and how many raters the weighed ones are worth.

    Weights are those of post-stratification where the target has cells, and of raking where it has margins of several columns. Raking
    that did not converge is *blocking*: its weights stand for no population.

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
    table, nobody = representation(raters, target, weights), _combinations(raters, target)
    found = (
        _pool(table, target, raters.height), _empty(weights, target, nobody), _shares(table, weights, target, nobody),
        _uncounted(weights, target), _size(weights),
    )  # fmt: skip
    return Findings(found).with_access("outside-the-box")


def _combinations(raters: pl.DataFrame, target: Target) -> list[str]:
    """Where only margins of several columns are known, which of the combinations of their levels no rater has."""
    levels = [[level for level, share in margin.items() if share > 0] for margin in target.margins.values()]
    if target.cells is not None or len(levels) == 1 or prod(map(len, levels)) > _MANY:
        return []
    there = set(raters.select(pl.col(target.columns).cast(pl.String)).drop_nulls().iter_rows())
    return [cell_name(cell) for cell in product(*levels) if cell not in there]


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


def _empty(weights: Weights, target: Target, nobody: list[str]) -> Finding:
    names = sorted(weights.empty, key=lambda name: -weights.empty[name])
    what = "cell" if weights.method == "post-stratification" else "level"
    said = "; ".join(f"{name} ({percent(weights.empty[name])})" for name in names[:5]) + ("; ..." if len(names) > 5 else "")
    title = f"Every {what} of the population has somebody to speak for it."
    if names:
        title = f"Nobody speaks for {counted(len(names), what)} of the population, {percent(1 - weights.covered)} of it: {said}."
    elif nobody:
        title = f"Every level of the population has somebody to speak for it, but no rater is {_or(nobody)}."
    return Finding(
        code="empty-cells", estimate=float(len(names)), n=len(weights.values), unit="count", verdict="warning" if names else "notice" if nobody else "ok",
        title=title,
        reason=f"{what[:1].upper()}{what[1:]}s of {target.source} without a rater; a count of facts: no interval. They are named, and nothing is put in their place."
        + (" How many people have several of its levels at once, margins do not say." if what == "level" else ""),
        remedy="Ask people of these, or say whom the reward does not speak for." if names or nobody else None,
        details={"cells": weights.empty, "combinations": nobody[:_SHOWN]},
    )  # fmt: skip


def _shares(table: pl.DataFrame, weights: Weights, target: Target, nobody: list[str]) -> Finding:
    """Whether the raters, weighed, are of each level as often as the population is."""
    rows = table.filter(pl.col("residual").is_not_null()).select("column", "level", "target", "weighted", "residual").to_dicts()
    if not rows:
        return Finding.not_applicable("weighted-shares", "Weighted shares cannot be told.", "Fewer than two raters have a weight.")
    rows.sort(key=lambda row: (-round(abs(row["residual"]), 9), row["residual"]))  # of two as far off, the one that is too few
    left = {name: next(row for row in rows if row["column"] == name) for name in target.columns}
    missed, most = [row for row in rows if abs(row["residual"]) > _MISSED], rows[0]
    failed = bool(missed) and not weights.converged
    title = f"Weighed by {weights.method}, the raters have each of {counted(len(rows), 'level')} as often as the population."
    if missed:
        over = ", ".join(f"{name} {percent(abs(row['residual']))} ({row['level']})" for name, row in left.items() if row in missed)
        title = (
            f"{'Raking did not converge: weighed' if failed else f'Weighed by {weights.method}'}, {percent(most['weighted'])} of the raters have "
            f"{most['column']} {most['level']}, of the population {percent(most['target'])}. By margin, at most so much is left over: {over}."
        )
    what = f"Ask people who are {_or(nobody)}" if nobody else "Ask people of the cells that are empty"
    return Finding(
        code="weighted-shares", title=title, estimate=most["residual"], n=int(weights.counted.sum()), unit="share",
        verdict="blocking" if failed else "warning" if missed else "ok",
        reason=f"Weighted share less that of {target.source}, of the level where it is largest; n is raters with a weight. These weights have these "
        "shares: no interval."
        + (f" {counted(weights.rounds, 'round')} of raking left {weights.error:.2g} of a share." if weights.method == "raking" else ""),
        remedy=f"{what}, join levels, or leave out a column." + (" No weights of these raters meet these margins: do not use those found." if failed else "")
        if missed else None,
        details={"converged": weights.converged, "left": {name: abs(row["residual"]) for name, row in left.items()}, "levels": rows[:_SHOWN]},
    )  # fmt: skip


def _uncounted(weights: Weights, target: Target) -> Finding:
    """Whom weighing leaves without a say: raters outside the population, of next to no weight, or of unknown profile."""
    faint, outside, n = sum(weights.faint.values()), sum(weights.outside.values()), len(weights.values)
    parts = [f"{outside:,} in cells that {target.source} does not have ({_cells(weights.outside)})"] if outside else []
    parts += [f"{faint:,} whom {weights.method} leaves no weight or next to none ({_cells(weights.faint)})"] if faint else []
    parts += [f"{weights.unknown:,} of unknown profile"] if weights.unknown else []
    lost = outside + faint + weights.unknown
    return Finding(
        code="uncounted-raters", estimate=float(lost), n=n, unit="count", verdict="warning" if outside or faint else "notice" if lost else "ok",
        title=f"Weighed, {lost:,} of {counted(n, 'rater')} count for nothing: {'; '.join(parts)}." if lost else f"Weighed, all {counted(n, 'rater')} count.",
        reason="Raters without a weight, or with no more than a thousandth of the mean; n is raters. A count of facts: no interval.",
        remedy="Put their cells into the population file if it has such people; a weight of nothing by raking says that the margins do not go with the raters."
        if outside or faint else "Ask them for their profile, or leave the column out." if lost else None,
        details={"outside": weights.outside, "faint": weights.faint, "unknown": weights.unknown},
    )  # fmt: skip


def _size(weights: Weights) -> Finding:
    n = int(weights.counted.sum())
    return Finding(
        code="effective-raters", estimate=weights.effective_size, n=n, unit="count", verdict="notice" if weights.effective_size < n / 2 else "ok",
        title=f"Weighed by {weights.method}, {counted(n, 'rater')} tell as much as {weights.effective_size:.0f} of equal weight would.",
        reason="Kish's effective size, (sum of weights)^2 / sum of squares: an upper bound where answers go with the weights. A count of facts: no "
        "interval.",
        source="Kish 1965",
        remedy="Raters with large weights decide much: more people like them would tell more." if weights.effective_size < n / 2 else None,
    )  # fmt: skip


def _cells(raters: Mapping[str, int]) -> str:
    """The largest cells, each with its number of raters."""
    named = [f"{cell}: {n:,}" for cell, n in list(raters.items())[:5]]
    return ", ".join(named) + (f" and {len(raters) - 5:,} more" if len(raters) > 5 else "")


def _or(names: list[str]) -> str:
    """The first of some names: a, b or c."""
    *before, last = [*names[:5], *([f"one of {len(names) - 5:,} more"] if len(names) > 5 else [])]
    return f"{', '.join(before)} or {last}" if before else last
