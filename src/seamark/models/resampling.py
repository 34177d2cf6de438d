"""The Bayesian bootstrap: how much a fit moves when the judgments, or those who made them, weigh differently by chance.

It asks nothing of the model but that clusters are exchangeable, so its intervals hold where those of the curvature lean on a model
that is wrong. Prior strengths stay those of the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from seamark.errors import InvalidSetting, NotConverged
from seamark.models.curvature import Dense, Solver, make_solver
from seamark.models.design import Block, Design
from seamark.models.likelihood import Derivatives, Likelihood
from seamark.models.observation import Missing, Observation
from seamark.models.people import People
from seamark.models.posterior import State
from seamark.models.problem import Problem, pose
from seamark.models.result import Fit
from seamark.models.search import Memory, optimise
from seamark.models.threads import on_one_thread
from seamark.models.utility import Utility
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_STEPS = 20
"""Most steps of a round with the curvature of the fit, each of which usually takes most of what is left; where some judgments weigh
several times as much they lead astray, and as many steps with the round's own curvature follow."""
_CLOSE = 0.003
"""A round ends when its step is shorter than this, in standard errors."""
_AT_ONCE = 2_000_000
"""Cells times rounds evaluated at once."""


@dataclass(frozen=True)
class Bootstrap:
    """What the values would have been, had the judgments weighed otherwise."""

    utilities: Array
    """(rounds, n_responses) utility of each response of the feedback, for the mean person, in logits."""
    weights: Array
    """(rounds, k, P) weights of the basis."""
    position: Array
    """(rounds,) logits in favour of the slot shown first; 0 without that effect."""
    by: str
    unsettled: int
    """Rounds that ended on their way: where there are many, intervals are not to be trusted."""

    def gap(self, left: NDArray[np.int64], right: NDArray[np.int64], level: float = 0.95) -> tuple[Array, Array]:
        """(low, high) of the gaps left - right (response codes), by the quantiles of the rounds."""
        gaps = self.utilities[:, left] - self.utilities[:, right]
        low, high = np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    @property
    def se(self) -> Array:
        """(n_responses,) standard deviation of each response's utility about the mean of all."""
        return (self.utilities - self.utilities.mean(1, keepdims=True)).std(0, ddof=1)


@on_one_thread
def bootstrap(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    rounds: int = 100,
    by: Literal["judgment", "rater", "prompt"] | None = None,
    require_identified: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Bootstrap:
    """Fits to the same judgments, weighed anew in each round: Dirichlet weights over judgments, raters or prompts (Rubin 1981).

    Parameters
    ----------
    by
        What is weighed as one. Left out: raters where most judgments have one, else judgments, of which equal ones share a gamma weight.
        Judgments whose rater or prompt is not known are weighed one by one.
    progress
        Called with (rounds done, rounds).

    Raises
    ------
    InvalidSetting
        If there are fewer than two rounds, raters or prompts to weigh, or values move.
    NotConverged
        If the fit that the rounds start from has not converged.
    """
    if by not in (None, "judgment", "rater", "prompt"):
        raise InvalidSetting("by", by, "Use judgment, rater or prompt.")
    if rounds < 2:
        raise InvalidSetting("rounds", rounds, "A spread takes two at least, and an interval a hundred.")
    problem, state = starting_point(feedback, utility, people, observation, require_identified, seed)
    rng = np.random.default_rng(seed)
    seen = problem.seen
    by = by or ("rater" if (seen > 0).sum() >= 2 and seen.sum() > 0.5 * problem.likelihood.design.n_judgments else "judgment")
    return _rounds(problem, state, by, rounds, lambda some: _weights(problem, by, some.stop - some.start, rng), progress)


@on_one_thread
def reweigh(
    feedback: Feedback,
    weights: Array,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    require_identified: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Bootstrap:
    """Fits to the same judgments in which each rater's count as often as their weight says: what another pool would have said.

    Judgments of raters who are not known count in none. Prior strengths stay those of the fit to all.

    Parameters
    ----------
    weights : (rounds, n_raters), 1 for a rater who counts as they do in the data and 0 for one who does not at all.

    Raises
    ------
    InvalidSetting
        If the weights are of another shape, negative or all 0 in a round, or values move.
    NotConverged
        If the fit that the rounds start from has not converged.
    """
    if weights.ndim != 2 or weights.shape[1] != feedback.n_raters:
        raise InvalidSetting("weights", weights.shape, f"Give an array (rounds, {feedback.n_raters}): a weight per rater in each round.")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any(1).all():
        raise InvalidSetting("weights", float(weights.min()), "They must be 0 or more, and in each round somebody's must be above 0.")
    problem, state = starting_point(feedback, utility, people, observation, require_identified, seed)
    known = np.hstack([weights, np.zeros((len(weights), 1))])

    def count(some: slice) -> list[Array]:
        return [known[some][:, c.block.rater] * c.block.count for c in problem.likelihood.cells]

    return _rounds(problem, state, "rater", len(weights), count, progress)


def starting_point(
    feedback: Feedback,
    utility: Utility | None,
    people: People | None,
    observation: Observation | None,
    require_identified: bool,
    seed: int,
    start: Fit | None = None,
) -> tuple[Problem, State]:
    """The fit that rounds start from, as a likelihood and its mode; found sooner from an earlier fit of the same."""
    problem = pose(feedback, utility=utility, people=people, observation=observation, require_identified=require_identified)
    if problem.likelihood.basis.walk is not None:
        raise InvalidSetting(
            "bootstrap", "Dynamic", "It takes values that do not move; the intervals of a fit hold for others (fit(..., cluster=))."
        )
    state = optimise(problem, max_iterations=200, tolerance=1e-4, seed=seed, start=start)
    if not state.convergence.converged:
        raise NotConverged(state.convergence.iterations, state.convergence.decrement, state.convergence.tolerance)
    return problem, state


def _rounds(
    problem: Problem,
    state: State,
    by: str,
    rounds: int,
    weigh: Callable[[slice], list[Array]],
    progress: Callable[[int, int], None] | None,
) -> Bootstrap:
    """The modes under the weights of some rounds at a time."""
    likelihood = problem.likelihood
    found, unsettled = np.empty((rounds, likelihood.size)), 0
    move = mover(problem, state, by)
    step = max(1, _AT_ONCE // max(sum(len(c.group) for c in likelihood.cells), 1))
    for start in range(0, rounds, step):
        some = slice(start, min(start + step, rounds))
        found[some], left = move(weigh(some))
        unsettled += left
        if progress is not None:
            progress(some.stop, rounds)
    k, P = likelihood.design.loadings.shape[1], likelihood.basis.n_columns
    weights = found[:, : likelihood.n_values].reshape(rounds, k, P)
    # cells stand once for each latent level, and count as far as their rater belongs to it
    belongs = state.posterior.sum(1)
    counts = np.zeros(len(likelihood.design.loadings))
    for c in likelihood.cells:
        np.add.at(counts, c.group, belongs[c.block.who])
    z = counts / counts.sum() @ likelihood.design.loadings
    values = likelihood.basis.times(np.einsum("a,rap->pr", z, weights)).T
    place = likelihood.part("position")
    return Bootstrap(values, weights, found[:, place].mean(1) if place else np.zeros(rounds), by, unsettled)


def _weights(problem: Problem, by: str, rounds: int, rng: np.random.Generator) -> list[Array]:
    """Per block, (rounds, n) weights of the cells, of mean their count."""
    cells, design = problem.likelihood.cells, problem.likelihood.design
    # a sum of n exponential weights is a gamma variate of shape n
    alone = [rng.standard_gamma(c.block.count, (rounds, len(c.block.count)))[:, originals(c.block, design)] for c in cells]
    if by == "judgment":
        return alone
    if by == "rater":
        code, n = [c.block.rater for c in cells], design.n_raters
        several = (problem.seen > 0).sum() >= 2
    else:
        prompt = problem.feedback.responses["prompt"].cast(pl.Int64).fill_null(problem.feedback.n_prompts).to_numpy()
        code, n = [prompt[c.block.shown[:, 0]] for c in cells], problem.feedback.n_prompts
        several = len(np.unique(np.concatenate(code))) >= 2
    if not several:
        raise InvalidSetting(
            "by",
            by,
            f"The {'responses' if by == 'prompt' else 'judgments'} have fewer than two {by}s; use another of judgment, rater and prompt.",
        )
    each = rng.standard_exponential((rounds, n + 1))
    return [np.where(k < n, each[:, k] * c.block.count, own) for c, k, own in zip(cells, code, alone, strict=True)]


def originals(block: Block, design: Design) -> Codes:
    """(n,) the first copy of each cell, which stands once for each latent level of its rater."""
    every = np.arange(len(block.who))
    if design.levels == 1:
        return every
    # cells are sorted by rater and level, and each level has the same cells in the same order
    starts = np.searchsorted(block.who, np.arange(design.n_raters * design.levels + 1))
    first = starts[np.minimum(block.rater, design.n_raters) * design.levels]
    return np.where(block.rater < design.n_raters, first + every - starts[block.who], every)


def mover(problem: Problem, state: State, by: str, *, close: float = _CLOSE) -> Callable[[list[Array]], tuple[Array, int]]:
    """What takes weights of the cells, (rounds, n) per block, to the modes under them (rounds, size), and the number of rounds that did not
    reach theirs: a last step shorter than `close`, in standard errors."""
    likelihood = problem.likelihood
    derivatives = likelihood.derivatives(state.x, state.nodes, state.posterior)
    solver = make_solver(
        likelihood, derivatives, state.prior.precision, state.components, np.random.default_rng(0), open_=state.prior.open_
    )
    if state.slopes is None and isinstance(solver, Dense) and all(_plain(likelihood)):
        return _all_at_once(likelihood, state, solver, by, close, derivatives)

    def move(weights: list[Array]) -> tuple[Array, int]:
        rounds = [_one(likelihood, state, solver, [w[b] for w in weights], by, close, derivatives) for b in range(len(weights[0]))]
        return np.stack([x for x, _ in rounds]), sum(not settled for _, settled in rounds)

    return move


def _one(
    likelihood: Likelihood, state: State, solver: Solver, counts: list[Array], by: str, close: float, here: Derivatives
) -> tuple[Array, bool]:
    """(size,) the mode where cells count so much, and whether it was reached, from the mode of the fit with its curvature; slopes and latent levels integrated out.

    A rater's weight multiplies the log marginal likelihood, so what is known of the rater's slope does not move with it; weights of
    judgments count within it.
    """
    weighed = likelihood.weighed(counts)
    of_slopes = likelihood if by == "rater" else weighed
    rng = np.random.default_rng(0)
    for own in (False, True):
        x, memory = state.x.copy(), Memory()
        for _ in range(_STEPS):
            _, posterior = state.nodes.posterior(of_slopes.rater_log_likelihood(x, state.nodes) + state.nodes.log_prior)
            d = weighed.derivatives(x, state.nodes, posterior, stale=None if own else here)
            gradient = d.gradient - state.prior.pull(x)
            if own:
                solver = make_solver(weighed, d, state.prior.precision, state.components, rng, open_=state.prior.open_)
            step = memory.step(x, gradient, solver)
            x = x + step * min(1.0, 2.0 / max(float(np.abs(step[likelihood.shape]).max(initial=0.0)), 1e-9))
            if np.sqrt(abs(float(gradient @ step)) / len(step)) < close:
                return x, True
    return x, False


def _all_at_once(
    likelihood: Likelihood, state: State, solver: Dense, by: str, close: float, here: Derivatives
) -> Callable[[list[Array]], tuple[Array, int]]:
    """The same for slopes of 1 and one matrix, all rounds side by side."""
    free = likelihood.free
    factor = cho_factor(solver.matrix, lower=True)
    incidence = [
        csr_array((c.sign, (c.edge, np.arange(len(c.edge)))), shape=(len(likelihood.edges.left), len(c.edge))) for c in likelihood.cells
    ]

    def gradient(x: Array, weights: list[Array]) -> Array:
        """(size, rounds) of the weighed log posterior, at x (size, rounds)."""
        out = -state.prior.pull(x)
        by_edge = np.zeros((len(likelihood.edges.left), x.shape[1]))
        gap = likelihood.edge_gaps(x)
        for c, D, weight in zip(likelihood.cells, incidence, weights, strict=True):
            z = (c.sign[:, None] * gap[c.edge] + c.D.times(x[likelihood.shifts])).T
            first, shape = likelihood.scores(c, z, x)
            first = (weight * first).T
            by_edge += D @ first
            out[likelihood.shifts] += c.D.transpose_times(first)
            out[likelihood.shape] += np.einsum("an,tan->ta", weight, shape)
        out[likelihood.values] += likelihood.edge_sums(by_edge)
        return out

    def move(weights: list[Array]) -> tuple[Array, int]:
        rounds = len(weights[0])
        x, far = np.repeat(state.x[:, None], rounds, axis=1), np.ones(rounds, dtype=bool)
        for _ in range(_STEPS):
            slope = gradient(x, weights)[free]
            step = cho_solve(factor, slope)
            x[free] += step
            far = ~(np.sqrt(np.abs(slope * step).sum(0) / len(step)) < close)
            if not far.any():
                break
        unsettled = 0
        for b in np.flatnonzero(far):
            x[:, b], settled = _one(likelihood, state, solver, [w[b] for w in weights], by, close, here)
            unsettled += not settled
        return x.T, unsettled

    return move


def _plain(likelihood: Likelihood) -> list[bool]:
    """Per block, whether all rounds can be evaluated at once: one contrast, and parameters that are the same for all cells."""
    return [c.scalar and c.scale is None and c.haste is None and not isinstance(c.block.family, Missing) for c in likelihood.cells]
