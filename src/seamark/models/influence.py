"""Which judgments a decision of a fit rests on: what its gap would be, had some of them not been made.

To first order, without fitting again. At the mode x of the log posterior, whose judgment j counts w_j,

    d gap / d w_j = u . d/dx E[log p(y_j | x)],     H u = d gap / dx

H being the observed curvature with the raters' slopes integrated out, and E the mean over their posterior, which moves with x as well.
Leaving j out moves the gap by -d gap / d w_j. Prior strengths, and how raters' slopes are spread, stay those of the fit. `leave_out` finds
the modes themselves, to see how far the first order holds; `refit` estimates everything anew.

Source: Koh & Liang 2017 (influence functions, after Cook & Weisberg 1982); for sets of judgments that turn a decision, Broderick, Giordano &
Meager 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.models.curvature import make_solver
from seamark.models.observation import Missing, Observation
from seamark.models.people import People
from seamark.models.posterior import State
from seamark.models.prediction import decided_sides
from seamark.models.problem import Problem
from seamark.models.resampling import mover, originals, starting_point
from seamark.models.result import Fit
from seamark.models.search import optimise
from seamark.models.threads import on_one_thread
from seamark.models.utility import Utility
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_CLOSE = 1e-7
"""Last step of a mode, in standard errors: one judgment of thousands moves a gap by little."""
_STEP = 1e-3
"""Longest move of a parameter over which derivatives are measured, by central differences."""
_SOLVED = 1e-5
_ITERATIONS = 200


@dataclass(frozen=True)
class Influence:
    """What gaps of a fit owe to each judgment."""

    left: Codes
    right: Codes
    """(n,) response codes of the gaps asked about."""
    gap: Array
    """(n,) utility gap left - right for the mean person, in logits."""
    cells: pl.DataFrame
    """Judgments, equal ones by the same rater as one row: count, kind (block of the likelihood), rater (code; n_raters where not known),
    shown (response codes), winner (response code; null where none won, or the answer is no choice of two)."""
    change: Array
    """(cells, n) logits that one judgment less adds to each gap, to first order."""
    unsettled: int
    """Gaps whose linear equations were not solved to the last digit asked for."""
    problem: Problem = field(repr=False)
    state: State = field(repr=False)
    _gaps: Array = field(repr=False)
    """(size, n) derivative of the gaps by the parameters."""
    _origin: list[Codes] = field(repr=False)
    """Per block, the row of `cells` that each cell is."""
    _move: Callable[[list[Array]], tuple[Array, int]] = field(repr=False)

    def rows(self, cell: int) -> Codes:
        """The judgments of a cell, by position in the feedback fitted; none are named where the answer is no choice of two."""
        wanted = self.cells.row(cell, named=True)
        if wanted["winner"] is None:
            return np.zeros(0, dtype=np.int64)
        given = self.problem.given
        one, two = wanted["shown"]
        won = "left" if wanted["winner"] == one else "right"
        rater = None if wanted["rater"] >= given.n_raters else wanted["rater"]
        as_shown = (pl.col("left") == one) & (pl.col("right") == two) & (pl.col("outcome") == won)
        if self.problem.feedback is not given:  # pairs that were counted are turned so that equal ones are one
            lost = "right" if won == "left" else "left"
            as_shown |= (pl.col("left") == two) & (pl.col("right") == one) & (pl.col("outcome") == lost)
        pairs = given.pairs().with_columns(pl.col("outcome").cast(pl.String)).filter(as_shown & pl.col("rater").eq_missing(pl.lit(rater)))
        return pairs["row"].to_numpy().astype(np.int64)

    def fewest(self, gap: int) -> Codes:
        """The cells, those that matter most first, that turn the decision about a gap when all their judgments are left out, to first
        order: as few judgments as can do it. All that hold it where even they do not."""
        push = -np.sign(self.gap[gap]) * self.change[:, gap]
        order = np.argsort(-push, kind="stable")
        order = order[push[order] > 0]
        reached = np.cumsum((push * self.cells["count"].to_numpy())[order])
        return order[: int((reached < abs(self.gap[gap])).sum()) + 1].astype(np.int64)

    def predicted(self, cells: Codes) -> Array:
        """(n,) the gaps without all judgments of some cells, to first order."""
        return self.gap + self.cells["count"].to_numpy()[cells] @ self.change[cells]

    @on_one_thread
    def leave_out(self, sets: Sequence[Codes], *, whole: bool = True) -> Array:
        """(len(sets), n) the gaps without the judgments of each set of cells, or without one judgment of each where not `whole`; strengths
        of priors as in the fit."""
        counts = [self._without(cells, whole=whole) for cells in sets]
        found, _ = self._move([np.stack([c[b] for c in counts]) for b in range(len(self._origin))])
        return found @ self._gaps

    @on_one_thread
    def refit(self, cells: Codes, *, seed: int = 0) -> Array:
        """(n,) the gaps of a fit without all judgments of some cells, from the beginning: strengths of priors and all."""
        likelihood = self.problem.likelihood.weighed(self._without(cells, whole=True))
        state = optimise(replace(self.problem, likelihood=likelihood), max_iterations=200, tolerance=1e-4, seed=seed)
        return state.x @ self._gaps

    def _without(self, cells: Codes, *, whole: bool) -> list[Array]:
        out = np.zeros(len(self.cells), dtype=bool)
        out[cells] = True
        likelihood = self.problem.likelihood
        counts = [c.block.count for c in likelihood.cells]
        return [np.where(out[o], 0.0 if whole else np.maximum(n - 1, 0.0), n) for n, o in zip(counts, self._origin, strict=True)]


@on_one_thread
def influence(
    feedback: Feedback,
    left: Codes,
    right: Codes,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    require_identified: bool = True,
    start: Fit | None = None,
    seed: int = 0,
) -> Influence:
    """What the gaps between some responses owe to each judgment, by a fit to all of them.

    Parameters
    ----------
    left, right : (n,) response codes.
    utility, people, observation, start : as in `fit`.

    Raises
    ------
    InvalidSetting
        If values move.
    NotConverged
        If the fit did not converge.
    """
    problem, state = starting_point(feedback, utility, people, observation, require_identified, seed, start)
    likelihood, design = problem.likelihood, problem.likelihood.design
    move = mover(problem, state, "judgment", close=_CLOSE)
    counts = [c.block.count for c in likelihood.cells]
    state = replace(state, x=move([n[None] for n in counts])[0][0], derivatives=None)
    gaps = _derivatives_of_gaps(problem, state, left, right)
    origin, frames, total = [], list[pl.DataFrame](), 0
    for c in likelihood.cells:
        own = originals(c.block, design)
        first = np.flatnonzero(own == np.arange(len(own)))
        place = np.zeros(len(own), dtype=np.int64)
        place[first] = total + np.arange(len(first))
        origin.append(place[own])
        total += len(first)
        winner = np.full(len(own), -1)
        if c.block.name.startswith("pair") and not isinstance(c.block.family, Missing):
            one, two = decided_sides(c.block.family)
            winner = np.where(np.isin(c.block.outcome, one), c.block.shown[:, 0], winner)
            winner = np.where(np.isin(c.block.outcome, two), c.block.shown[:, 1], winner)
        frames.append(
            pl.DataFrame(
                {
                    "count": c.block.count[first],
                    "rater": c.block.rater[first],
                    "shown": c.block.shown[first].tolist(),
                    "winner": winner[first],
                },
                schema_overrides={"shown": pl.List(pl.Int64)},
            ).with_columns(kind=pl.lit(c.block.name), winner=pl.when(pl.col("winner") >= 0).then(pl.col("winner")))
        )
    change, unsettled = np.zeros((total, len(left))), 0
    for g in range(len(left)):
        along, settled = _solve(problem, state, gaps[:, g])
        unsettled += not settled
        step = _STEP / max(float(np.abs(along).max()), 1e-300)
        ends = [_expected(problem, state, state.x + sign * step * along) for sign in (1, -1)]
        for place, ahead, behind in zip(origin, *ends, strict=True):
            np.add.at(change[:, g], place, -(ahead - behind) / (2 * step))
    return Influence(left, right, state.x @ gaps, pl.concat(frames), change, unsettled, problem, state, gaps, origin, move)


def _derivatives_of_gaps(problem: Problem, state: State, left: Codes, right: Codes) -> Array:
    """(size, n) of the mean person's gaps by the parameters."""
    likelihood, design = problem.likelihood, problem.likelihood.design
    belongs, counts = state.posterior.sum(1), np.zeros(len(design.loadings))
    for c in likelihood.cells:
        np.add.at(counts, c.group, belongs[c.block.who] * c.block.count)
    z = counts / counts.sum() @ design.loadings
    contrast = np.zeros((design.n_responses, len(left)))
    contrast[left, np.arange(len(left))] += 1
    contrast[right, np.arange(len(left))] -= 1
    out = np.zeros((likelihood.size, len(left)))
    out[likelihood.values] = np.kron(z[:, None], likelihood.basis.transpose_times(contrast))
    return out * likelihood.free[:, None]


def _posterior(problem: Problem, state: State, x: Array) -> Array:
    """Of the raters' slopes at x."""
    return state.nodes.posterior(problem.likelihood.rater_log_likelihood(x, state.nodes) + state.nodes.log_prior)[1]


def _expected(problem: Problem, state: State, x: Array) -> list[Array]:
    """Per block, (n,) expected log probability of one judgment of each cell."""
    return problem.likelihood.cell_log_likelihood(x, state.nodes, _posterior(problem, state, x))


def _solve(problem: Problem, state: State, right: Array) -> tuple[Array, bool]:
    """H^-1 right by conjugate gradients, H from differences of the gradient; what solves the steps of the search preconditions."""
    likelihood, free = problem.likelihood, problem.likelihood.free
    here = likelihood.derivatives(state.x, state.nodes, _posterior(problem, state, state.x))
    solver = make_solver(likelihood, here, state.prior.precision, state.components, np.random.default_rng(0), open_=state.prior.open_)

    def gradient(x: Array) -> Array:
        found = likelihood.derivatives(x, state.nodes, _posterior(problem, state, x), stale=here)
        return found.gradient - state.prior.pull(x)

    def curved(v: Array) -> Array:
        step = _STEP / max(float(np.abs(v).max()), 1e-300)
        return (gradient(state.x - step * v) - gradient(state.x + step * v)) / (2 * step) * free

    out, residual = np.zeros_like(right), right * free
    z = solver.solve(residual)
    direction, rz = z.copy(), float(residual @ z)
    first = rz
    for _ in range(_ITERATIONS):
        if not rz > _SOLVED**2 * first:
            return out, True
        bent = curved(direction)
        step = rz / float(direction @ bent)
        out += step * direction
        residual = residual - step * bent
        z = solver.solve(residual)
        rz, before = float(residual @ z), rz
        direction = z + rz / before * direction
    return out, False
