"""A planted population and a skewed pool: do post-stratification, raking and multilevel regression find what the population prefers?

    python benchmarks/population.py                             200 replications of each case, about ten minutes
    python benchmarks/population.py --cases "few raters"        one case; what the results file has of the others stays
    python benchmarks/population.py --write                     the table of docs/benchmarks.md from the results file

People differ by age (4 levels), gender (2), region (3) and schooling (2). What they prefer of a pair is planted in logits: a value of
the pair, a deviation per level of the columns, a deviation of the cell beside them, and a taste of each person. The pool is drawn with chances that
differ up to 80 to 1 between cells; some cells are never drawn at all. Every rater judges every pair once. Estimated is, for each of
the pairs, the share of the population that would prefer the left one, whose truth is known to the simulation's integral.

Cases: *columns add up* (no deviation of cells), *cells differ* (an interaction of .3 logits), *few raters* (100 in place of 300), *the
wrong columns* (the answers differ by schooling, and so does the pool, and nobody adjusts for it). Shown are the mean error in the
direction in which the pool differs from the population (without the luck of who was drawn from it), the root mean square error, and
how often the 90% interval holds the truth; the bounds in brackets are 95% and cluster by replication.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.aggregation.population import Target, post_stratify, preferences, rake, rater_profiles, unweighted
from seamark.models import Groups, Observation, Tabular, fit
from seamark.records import Feedback

Array = NDArray[np.float64]
HERE = Path(__file__).parent
RESULTS = HERE / "results" / "population.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
COLUMNS = {"age": ("18-29", "30-44", "45-64", "65+"), "gender": ("woman", "man"), "region": ("north", "south", "west")}
SPREADS = {"age": 0.6, "gender": 0.3, "region": 0.4}
"""Standard deviation of the deviations of a column's levels, logits."""
N_PAIRS = 12
TASTE = 0.5
_SLOW = "multilevel, cells"
METHODS = {
    "raw": "raw",
    "cells": "post-stratified",
    "cells, covered": "post-stratified, of the part of the population that is covered",
    "cells, worst": "post-stratified, whatever empty cells think",
    "raked": "raked",
    "multilevel": "multilevel (MRP)",
    "multilevel, cells": "multilevel with a deviation per cell",
}


@dataclass(frozen=True)
class Case:
    name: str
    n_raters: int = 300
    interaction: float = 0.0
    schooling: float = 0.0
    """Logits between people with and without; where there are any, three quarters of the pool have it and half of the population."""


CASES = (
    Case("columns add up"),
    Case("cells differ", interaction=0.3),
    Case("few raters", n_raters=100),
    Case("the wrong columns", schooling=1.0),
)


@dataclass(frozen=True)
class World:
    """A population, the pool that came of it, and what is true."""

    feedback: Feedback
    target: Target
    answers: Array
    """(n_raters, n_pairs) 1 where the left one was preferred."""
    truth: Array
    """(n_pairs,) share of the population that prefers the left one."""
    covered: Array
    """(n_pairs,) the same of those in cells where somebody answered."""
    drawn: Array
    """(n_pairs,) the same of those whom the pool is drawn from, as often as they are."""
    empty: int


def plant(case: Case, seed: int) -> World:
    rng = np.random.default_rng(seed)
    cells = np.array(list(product(*(range(len(levels)) for levels in COLUMNS.values()))))
    n = len(cells)
    share = rng.dirichlet(np.full(n, 3.0))
    value = rng.normal(0, 0.7, N_PAIRS) + sum(
        rng.normal(0, spread, (len(COLUMNS[name]), N_PAIRS))[cells[:, j]] for j, (name, spread) in enumerate(SPREADS.items())
    )
    value = value + case.interaction * rng.normal(0, 1, (n, N_PAIRS))
    # the young, men and the north answer; of four cells nobody does
    odds = np.exp(-0.8 * cells[:, 0] + 0.8 * cells[:, 1] - 0.6 * cells[:, 2])
    odds[rng.choice(n, 4, replace=False, p=(1 / odds) / (1 / odds).sum())] = 0.0
    chance = share * odds
    where = rng.choice(n, case.n_raters, p=chance / chance.sum())
    direction = case.schooling * rng.choice([-1, 1], N_PAIRS)
    here = 0.75 if case.schooling else 0.5
    schooled = rng.random(case.n_raters) < here
    gaps = value[where] + direction * (schooled[:, None] - 0.5) + TASTE * rng.normal(size=(case.n_raters, N_PAIRS))
    answers = (rng.random(gaps.shape) < 1 / (1 + np.exp(-gaps))).astype(float)
    x, w = np.polynomial.hermite_e.hermegauss(21)
    each = value[..., None, None] + direction[:, None, None] * np.array([-0.5, 0.5])[:, None] + TASTE * x
    by_cell = 1 / (1 + np.exp(-each)) @ (w / w.sum())  # (cells, pairs, schooling)
    present = np.unique(where)
    covered = share[present] @ by_cell[present].mean(-1) / share[present].sum()
    truth, drawn = share @ by_cell.mean(-1), chance / chance.sum() @ (by_cell @ np.array([1 - here, here]))
    names = [{c: COLUMNS[c][i] for c, i in zip(COLUMNS, cell, strict=True)} for cell in cells]
    r, p = np.divmod(np.arange(answers.size), N_PAIRS)
    profile = [json.dumps(names[c]) for c in where]
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * answers.size, "ids": [[f"left {i}", f"right {i}"] for i in p], "prompt": [f"pair {i}" for i in p],
            "outcome": np.where(answers.ravel() == 1, "left", "right").tolist(), "rater": [f"rater {i}" for i in r], "rater_profile": [profile[i] for i in r],
        }
    )  # fmt: skip
    target = Target.of(pl.DataFrame(names).with_columns(share=share))
    return World(feedback, target, answers, truth, covered, drawn, n - len(present))


def estimates(world: World, methods: Collection[str]) -> dict[str, tuple[Array, Array, Array]]:
    """Per method (estimate, low, high), each (n_pairs,); those that follow from another come with it."""
    feedback, target = world.feedback, world.target
    raters = rater_profiles(feedback, target.columns)
    out: dict[str, tuple[Array, Array, Array]] = {}
    cells = post_stratify(raters, target, unseen=True)
    for name, weights in {"raw": unweighted(raters.height), "cells": cells, "raked": rake(raters, target, unseen=True)}.items():
        if name not in methods:
            continue
        found = [weights.mean(y, bounds=(0.0, 1.0)) for y in world.answers.T]
        out[name] = (np.array([f.estimate for f in found]), np.array([f.low for f in found]), np.array([f.high for f in found]))
        if name == "cells":
            out["cells, covered"] = out[name]
            out["cells, worst"] = (out[name][0], np.array([f.worst_low for f in found]), np.array([f.worst_high for f in found]))
    place = {name: i for i, name in enumerate(feedback.responses["name"].to_list())}
    left, right = (np.array([place[f"{side} {i}"] for i in range(N_PAIRS)]) for side in ("left", "right"))
    for name, interaction in {"multilevel": False, "multilevel, cells": True}.items():
        if name not in methods:
            continue
        people = Groups(target.columns, interaction=interaction)
        fitted = fit(feedback, utility=Tabular(), people=people, observation=Observation(effects=(), lapse=False))
        found = preferences(fitted, feedback, left, right, target)
        out[name] = (found.share, found.low, found.high)
    return out


def run(case: Case, replications: int, seed: int, methods: Collection[str] = tuple(METHODS)) -> dict[str, Any]:
    errors: dict[str, list[list[float]]] = {name: [] for name in METHODS if name in methods}
    holds: dict[str, list[list[bool]]] = {name: [] for name in errors}
    widths: dict[str, list[float]] = {name: [] for name in errors}
    empty: list[int] = []
    start = time.perf_counter()
    for i in range(replications):
        world = plant(case, seed + i)
        empty.append(world.empty)
        found = estimates(world, methods)
        sign = np.sign(world.drawn - world.truth)
        for name in errors:
            estimate, low, high = found[name]
            truth = world.covered if name == "cells, covered" else world.truth
            errors[name].append(((estimate - truth) * sign).tolist())
            holds[name].append(((low <= truth) & (truth <= high)).tolist())
            widths[name].append(float((high - low).mean()))
    rows = {name: _summary(np.array(errors[name]), np.array(holds[name]), widths[name]) for name in errors}
    return {
        "case": case.name, "seed": seed, "replications": replications, "raters": case.n_raters, "empty": float(np.mean(empty)), "rows": rows,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def _summary(errors: Array, holds: NDArray[np.bool_], widths: list[float]) -> dict[str, Any]:
    """Means over replications and pairs, with 1.96 standard errors of the means of replications."""

    def mean(values: Array) -> list[float]:
        each = values.mean(1)
        half = 1.96 * float(each.std(ddof=1)) / np.sqrt(len(each))
        return [float(each.mean()), float(each.mean()) - half, float(each.mean()) + half]

    squares = mean(errors**2)
    return {
        "bias": mean(errors), "rmse": [float(np.sqrt(max(v, 0.0))) for v in squares], "coverage": mean(holds.astype(float)),
        "width": float(np.mean(widths)),
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for case in found["cases"]:
        lines += [
            f"\n### {case['case'].capitalize()}\n",
            f"{case['replications']} replications (seeds from {case['seed']}) of {case['raters']} raters and {N_PAIRS} pairs; "
            f"{case['empty']:.1f} of 24 cells empty on average.\n",
            "| estimate | bias towards the pool | RMSE | 90% interval holds the truth | its width |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, row in case["rows"].items():
            b, r, c = (f"{row[k][0]:.3f} [{row[k][1]:.3f}, {row[k][2]:.3f}]" for k in ("bias", "rmse", "coverage"))
            lines.append(f"| {METHODS[name]} | {b} | {r} | {c} | {row['width']:.3f} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    page = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- population -->", "<!-- end of population -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    made = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first replication; the others follow")
    parser.add_argument("--cases", nargs="+", choices=[c.name for c in CASES], default=[c.name for c in CASES])
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--write", action="store_true", help="only write docs/benchmarks.md from the results file")
    given = parser.parse_args(arguments)
    if given.write:
        write()
        return 0
    given.out.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(given.out.read_text(encoding="utf-8"))["cases"] if given.out.exists() else []
    done: dict[str, Any] = {case["case"]: case for case in before}
    for case in CASES:
        if case.name in given.cases:
            # a deviation per cell takes most of the time, and where cells do not differ it comes to nothing
            methods = [name for name in METHODS if name != _SLOW or case.interaction]
            done[case.name] = run(case, given.replications, given.seed, methods)
            found = {"cases": [done[c.name] for c in CASES if c.name in done]}
            given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(table({"cases": [done[case.name]]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
