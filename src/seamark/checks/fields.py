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
from numpy.typing import NDArray
from scipy.stats import t as student

from seamark.checks.decay import time_blocks
from seamark.checks.findings import Finding, Verdict
from seamark.checks.generalisation import fields_of, values_of
from seamark.checks.held_out import Cells, decided_cells, figure
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import Interval
from seamark.models.prediction import predict
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BLOCKS = 5
"""Of time, of equal count."""
_LEAST = 50
"""Comparisons of a value, below which it is no slice."""
_SHOWN = 12
"""Values of a field that are looked at; the largest."""


def by_judgment(fit: Fit, held_out: Feedback) -> Cells:
    """The decided cells of a fit, one for each judgment, with its row."""
    return decided_cells(fit, held_out, predict(fit, held_out, apart=True))


def check_accuracy_by_field(held_out: Feedback, cells: Cells) -> list[Finding]:
    """For each field, the slice in which the reward is right least often: `accuracy/FIELD`. A warning where it surely is wrong more often than right,
    a notice where it surely is right less often than elsewhere."""
    return [_accuracy(name, cells, masks, n_left) for name, masks, n_left in _slices(held_out, cells)]


def check_calibration_by_field(held_out: Feedback, cells: Cells) -> list[Finding]:
    """For each field, the slice in which predictions are most clearly off: `calibration/FIELD`. A notice where one surely is, a warning where one
    is by more than a few points."""
    return [_calibration(name, cells, masks, n_left) for name, masks, n_left in _slices(held_out, cells)]


def _slices(held_out: Feedback, cells: Cells) -> Iterator[tuple[str, dict[str, Mask], int]]:
    """Each field with two slices or more, the cells of its largest values, and how many other values occur."""
    if not len(cells):
        return
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
            if name == "time":  # parts of a quick collection begin in the same minute
                names = tuple(f"part {k + 1}, {start}" for k, start in enumerate(names))
            found = {value: code[row] == k for k, value in enumerate(names)}
        large = sorted((value for value in found if found[value].sum() >= _LEAST), key=lambda value: -found[value].sum())
        left = sum(bool(mask.any()) for mask in found.values()) - len(large[:_SHOWN])
        if len(large) > 1:
            yield name, {value: found[value] for value in large[:_SHOWN]}, left


def _words(name: str) -> str:
    return name.removeprefix("profile.").removeprefix("covariate.").replace("_", " ")


def _widened(found: Interval, k: int, low: float, high: float) -> Interval:
    """The interval as one of k that hold together, within [low, high]."""
    if not found.bounded:
        return replace(found, low=low, high=high)
    free = max((found.n_clusters or found.n) - 1, 1)
    wider = float(student.ppf(1 - 0.025 / k, free) / student.ppf(0.975, free))
    ends = (found.estimate + wider * (end - found.estimate) for end in (found.low, found.high))
    return replace(found, **dict(zip(("low", "high"), np.clip(list(ends), low, high).tolist(), strict=True)))


def _together(rows: list[dict[str, Any]], n_left: int) -> str:
    return f"{len(rows)}{f', {n_left} with fewer comparisons left out' if n_left else ''}; intervals hold for all of them together (Bonferroni)."


def _details(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"slices": [{name: row["value"]} | {key: row[key] for key in ("estimate", "low", "high", "n")} for row in rows]}


def _accuracy(name: str, cells: Cells, masks: dict[str, Mask], n_left: int) -> Finding:
    rows: list[dict[str, Any]] = []
    below: list[str] = []
    for value, mask in masks.items():
        part, rest = cells.where(mask), cells.where(~mask)
        found = _widened(part.share(part["hit"])[0], len(masks), 0.0, 1.0)
        rows.append({"value": value, "estimate": found.estimate, "low": found.low, "high": found.high, "n": part.n})
        if len(rest):
            mine, other = (_widened(some.mean(some["hit"])[0], len(masks), 0.0, 1.0) for some in (part, rest))
            half = float(np.hypot(mine.high - mine.low, other.high - other.low)) / 2
            below += [value] if mine.estimate + half < other.estimate else []
    wrong = [row for row in rows if row["high"] < 0.5]
    worst, best = min(wrong or rows, key=lambda row: row["estimate"]), max(rows, key=lambda row: row["estimate"])
    verdict: Verdict = "warning" if wrong else "notice" if below else "ok"
    said, most = (f"{row['value']} ({figure(Interval(row['estimate'], row['low'], row['high'], row['n'], 0))})" for row in (worst, best))
    least = f"wrong more often than right on {said}" if wrong else f"right least often on {said}"
    return Finding(
        code=f"accuracy/{name}", estimate=worst["estimate"], low=worst["low"], high=worst["high"], n=worst["n"], unit="share", verdict=verdict,
        title=f"By {_words(name)}, the fit is {least} and {'right ' if wrong else ''}most often on {most}.",
        reason=f"The lowest{' that surely is wrong' if wrong else ''} of {_together(rows, n_left)} "
        + (f"Surely below the others: {', '.join(below)}." if below else "None is surely below the others."),
        remedy=f"On {worst['value']} a policy that follows it is led away from what people prefer: leave it out, or mend the reward there." if wrong else None,
        details=_details(name, rows),
    )  # fmt: skip


def _calibration(name: str, cells: Cells, masks: dict[str, Mask], n_left: int) -> Finding:
    p, won = cells["p"], cells["won"]
    excess = 100 * (np.where(p >= 0.5, won, ~won) - np.maximum(p, 1 - p))
    rows: list[dict[str, Any]] = []
    for value, mask in masks.items():
        part = cells.where(mask)
        found = _widened(part.mean(excess[mask])[0], len(masks), -100.0, 100.0)
        rows.append({"value": value, "estimate": found.estimate, "low": found.low, "high": found.high, "n": part.n})
    off = [row for row in rows if row["low"] > 0 or row["high"] < 0]
    grave = [row for row in off if abs(row["estimate"]) > 100 * THRESHOLDS.calibration_warning]
    worst = max(grave or rows, key=lambda row: abs(row["estimate"]) / max(row["high"] - row["low"], 1e-12))
    said = (
        f"the predicted winner wins {abs(worst['estimate']):.1f} points {'more' if worst['estimate'] > 0 else 'less'} often than predicted"
    )
    return Finding(
        code=f"calibration/{name}", estimate=worst["estimate"], low=worst["low"], high=worst["high"], n=worst["n"], unit="points",
        verdict="warning" if grave else "notice" if off else "ok",
        title=f"By {_words(name)}, predictions are most clearly off on {worst['value']}: there {said} [{worst['low']:.1f}, {worst['high']:.1f}]"
        + ("." if off else ", which may be chance."),
        reason=f"The slice whose deviation is largest in standard errors, of {_together(rows, n_left)}",
        remedy=f"What is predicted on {worst['value']} is not what happens: look at the slices before its probabilities are used there." if grave else None,
        details=_details(name, rows),
    )  # fmt: skip
