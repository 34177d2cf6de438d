"""Where a reward is right and where it is not, where it is too sure and where not sure enough: by each field of the judgments that varies.

Conventions
-----------
Cells are those of `held_out`, one per decided comparison, with the row of its judgment. A *slice* is the cells of one value of a field; intervals
of a field's slices hold together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm

from seamark.checks.cross_fitting import CrossFit
from seamark.checks.decay import time_blocks
from seamark.checks.findings import Finding, Verdict
from seamark.checks.generalisation import fields_of, values_of
from seamark.checks.held_out import Cells, figure
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import Z95, Interval
from seamark.records import Feedback

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BLOCKS = 5
"""Of time, of equal count."""
_LEAST = 50
"""Comparisons of a value, below which it is no slice."""
_SHOWN = 12
"""Values of a field that are looked at; the largest."""


def by_judgment(held_out: Feedback, cells: Cells, *, seed: int = 0) -> Cells:
    """The cells of a fit's predictions, of which equal judgments share one, as one for each judgment, with its row."""
    keys = ["first", "second", "rater", "won"]
    told = cells.frame.unique(keys, keep="first", maintain_order=True).drop("count", "prompt", "ordered")
    asked = CrossFit(feedback=held_out, seed=seed).asked.join(told, on=keys, how="inner", maintain_order="left")
    return replace(cells, frame=asked.with_columns(count=pl.lit(1.0)))


def check_accuracy_by_field(held_out: Feedback, cells: Cells) -> list[Finding]:
    """For each field, the slice in which the reward is right least often: `accuracy/FIELD`. A warning where it surely is wrong more often than right,
    a notice where it surely is right less often than elsewhere."""
    return [_accuracy(name, cells, masks, n_left) for name, masks, n_left in _slices(held_out, cells)]


def check_calibration_by_field(held_out: Feedback, cells: Cells) -> list[Finding]:
    """For each field, the slice in which the predicted winner wins least as often as predicted: `calibration/FIELD`. A notice where that surely is
    not chance, a warning where it is by more than a few points, too."""
    return [_calibration(name, cells, masks, n_left) for name, masks, n_left in _slices(held_out, cells)]


def _slices(held_out: Feedback, cells: Cells) -> Iterator[tuple[str, dict[str, Mask], int]]:
    """Each field with two slices or more, the cells of its largest values, and how many other values occur."""
    row = cells["row"]
    for name in fields_of(held_out):
        if name in ("prompt", "rater") or (name == "group" and len(cells.names["group"]) > 1):
            continue  # said of each in `accuracy/prompt`, `accuracy/rater` and `accuracy/group/NAME`
        if name == "source":
            shown = held_out.judgments["models"]
            found = {
                str(model): shown.list.contains(model).fill_null(value=False).to_numpy()[row]
                for model in shown.explode().drop_nulls().unique().sort().to_list()
            }
        else:
            try:
                code, names = time_blocks(held_out, _BLOCKS) if name == "time" else values_of(held_out, name)
            except InvalidSetting:
                continue  # the judgments have no such field
            found = {value: code[row] == k for k, value in enumerate(names)}
        large = sorted((value for value in found if found[value].sum() >= _LEAST), key=lambda value: -found[value].sum())
        left = sum(bool(mask.any()) for mask in found.values()) - len(large[:_SHOWN])
        if len(large) > 1:
            yield name, {value: found[value] for value in large[:_SHOWN]}, left


def _words(name: str) -> str:
    return name.removeprefix("profile.").removeprefix("covariate.").replace("_", " ")


def _wider(masks: dict[str, Mask]) -> float:
    """How much wider intervals of all slices together are."""
    return float(norm.ppf(1 - 0.025 / len(masks))) / Z95


def _together(rows: list[dict[str, Any]], n_left: int) -> str:
    return f"{len(rows)}{f', {n_left} with fewer comparisons left out' if n_left else ''}; intervals hold for all of them together (Bonferroni)."


def _details(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"slices": [{name: row["value"]} | {key: row[key] for key in ("estimate", "low", "high", "n")} for row in rows]}


def _accuracy(name: str, cells: Cells, masks: dict[str, Mask], n_left: int) -> Finding:
    wider = _wider(masks)
    rows: list[dict[str, Any]] = []
    for value, mask in masks.items():
        part, rest = cells.where(mask), cells.where(~mask)
        found, behind = _widened(part.share(part["hit"])[0], wider), part.mean(part["hit"])[0]
        other = rest.mean(rest["hit"])[0] if len(rest) else behind
        half = wider * float(np.hypot(behind.high - behind.low, other.high - other.low)) / 2
        rows.append({
            "value": value, "estimate": found.estimate, "low": found.low, "high": found.high, "n": part.n,
            "surely_below": bool(len(rest)) and found.estimate + half < other.estimate,
        })  # fmt: skip
    worst, best = (pick(rows, key=lambda row: row["estimate"]) for pick in (min, max))
    wrong = worst["high"] < 0.5
    below = [row["value"] for row in rows if row["surely_below"]]
    verdict: Verdict = "warning" if wrong else "notice" if below else "ok"
    said, most = (f"{row['value']} ({figure(Interval(row['estimate'], row['low'], row['high'], row['n'], 0))})" for row in (worst, best))
    title = f"By {_words(name)}, the fit is right least often on {said} and most often on {most}"
    return Finding(
        code=f"accuracy/{name}", estimate=worst["estimate"], low=worst["low"], high=worst["high"], n=worst["n"], unit="share", verdict=verdict,
        title=f"{title}: there it is wrong more often than right." if wrong else f"{title}.",
        reason=f"The lowest of {_together(rows, n_left)} "
        + (f"Surely below the others: {', '.join(below)}." if below else "None is surely below the others."),
        remedy=f"On {worst['value']} a policy that follows it is led away from what people prefer: leave it out, or mend the reward there." if wrong else None,
        details=_details(name, rows),
    )  # fmt: skip


def _widened(interval: Interval, wider: float) -> Interval:
    low, high = (interval.estimate + wider * (end - interval.estimate) for end in (interval.low, interval.high))
    return replace(interval, low=max(low, 0.0), high=min(high, 1.0))


def _calibration(name: str, cells: Cells, masks: dict[str, Mask], n_left: int) -> Finding:
    wider, p, won = _wider(masks), cells["p"], cells["won"]
    excess = 100 * (np.where(p >= 0.5, won, ~won) - np.maximum(p, 1 - p))
    rows: list[dict[str, Any]] = []
    for value, mask in masks.items():
        part = cells.where(mask)
        found, _ = part.mean(excess[mask])
        half = wider * (found.high - found.low) / 2
        rows.append({"value": value, "estimate": found.estimate, "low": found.estimate - half, "high": found.estimate + half, "n": part.n})
    worst = max(rows, key=lambda row: abs(row["estimate"]) / max(row["high"] - row["low"], 1e-12))
    off = worst["low"] > 0 or worst["high"] < 0
    grave = off and abs(worst["estimate"]) > 100 * THRESHOLDS.calibration_warning
    said = (
        f"the predicted winner wins {abs(worst['estimate']):.1f} points {'more' if worst['estimate'] > 0 else 'less'} often than predicted"
    )
    return Finding(
        code=f"calibration/{name}", estimate=worst["estimate"], low=worst["low"], high=worst["high"], n=worst["n"], unit="points",
        verdict="warning" if grave else "notice" if off else "ok",
        title=f"By {_words(name)}, predictions are farthest off on {worst['value']}: there {said} [{worst['low']:.1f}, {worst['high']:.1f}]"
        + ("." if off else ", which may be chance."),
        reason=f"The slice whose deviation is largest in standard errors, of {_together(rows, n_left)}",
        remedy=f"What is predicted on {worst['value']} is not what happens: look at the slices before its probabilities are used there." if grave else None,
        details=_details(name, rows),
    )  # fmt: skip
