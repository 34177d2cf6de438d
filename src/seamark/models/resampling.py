"""The Bayesian bootstrap: how much a fit moves when the judgments, or those who made them, weigh differently by chance.

It asks nothing of the model but that clusters are exchangeable, so its intervals hold where those of the curvature lean on a model
that is wrong. Prior strengths stay those of the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from seamark.errors import InvalidSetting, NotConverged
from seamark.models.curvature import Dense, Solver, make_solver
from seamark.models.fitting import Memory, Problem, optimise, pose
from seamark.models.likelihood import Likelihood
from seamark.models.observation import Missing, Observation
from seamark.models.people import People
from seamark.models.posterior import State
from seamark.models.threads import on_one_thread
from seamark.models.utility import Utility
from seamark.records import Feedback

Array = NDArray[np.float64]

_STEPS = 30
"""Most steps of a round with the fit's own curvature, each of which takes most of what is left."""
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
        What is weighed as one. Left out: raters where the judgments have them, else judgments, of which equal ones share a gamma weight.
    progress
        Called with (rounds done, rounds).

    Raises
    ------
    InvalidSetting
        If there are no raters or prompts to weigh, or values move.
    NotConverged
        If the fit that the rounds start from has not converged.
    """
    problem = pose(feedback, utility=utility, people=people, observation=observation, require_identified=require_identified)
    if problem.likelihood.basis.walk is not None:
        raise InvalidSetting(
            "bootstrap", "Dynamic", "It takes values that do not move; the intervals of a fit hold for others (fit(..., cluster=))."
        )
    state = optimise(problem, max_iterations=200, tolerance=1e-4, seed=seed)
    if not state.convergence.converged:
        raise NotConverged(state.convergence.iterations, state.convergence.decrement, state.convergence.tolerance)
    rng = np.random.default_rng(seed)
    by = by or ("rater" if problem.likelihood.design.n_raters > 1 else "judgment")
    found = np.empty((rounds, problem.likelihood.size))
    move = _mover(problem, state, by)
    step = max(1, _AT_ONCE // max(sum(len(c.group) for c in problem.likelihood.cells), 1))
    for start in range(0, rounds, step):
        some = slice(start, min(start + step, rounds))
        found[some] = move(_weights(problem, by, some.stop - some.start, rng))
        if progress is not None:
            progress(some.stop, rounds)
    likelihood = problem.likelihood
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
    return Bootstrap(values, weights, found[:, place].mean(1) if place else np.zeros(rounds), by)


def _weights(problem: Problem, by: str, rounds: int, rng: np.random.Generator) -> list[Array]:
    """Per block, (rounds, n) weights of the cells, of mean their count."""
    cells, design = problem.likelihood.cells, problem.likelihood.design
    if by == "judgment":
        # a sum of n exponential weights is a gamma variate of shape n
        return [rng.standard_gamma(c.block.count, (rounds, len(c.block.count))) for c in cells]
    if by == "rater":
        if design.n_raters < 2:
            raise InvalidSetting("by", by, "The judgments have no raters; use judgment or prompt.")
        each = np.hstack([rng.standard_exponential((rounds, design.n_raters)), np.ones((rounds, 1))])
        return [each[:, c.block.rater] * c.block.count for c in cells]
    prompts = problem.feedback.responses["prompt"].to_numpy()
    if problem.feedback.n_prompts < 2:
        raise InvalidSetting("by", by, "The judgments have no prompts; use judgment or rater.")
    each = np.hstack([rng.standard_exponential((rounds, problem.feedback.n_prompts)), np.ones((rounds, 1))])
    return [each[:, np.nan_to_num(prompts.astype(float), nan=-1).astype(int)[c.block.shown[:, 0]]] * c.block.count for c in cells]


def _mover(problem: Problem, state: State, by: str) -> Callable[[list[Array]], Array]:
    """What takes weights of the cells to the modes under them, (rounds, size)."""
    likelihood = problem.likelihood
    derivatives = likelihood.derivatives(state.x, state.nodes, state.posterior)
    solver = make_solver(
        likelihood, derivatives, state.prior.precision, state.components, np.random.default_rng(0), open_=state.prior.open_
    )
    if state.slopes is None and isinstance(solver, Dense) and all(_plain(likelihood)):
        return _all_at_once(likelihood, state, solver)

    def move(weights: list[Array]) -> Array:
        return np.stack([_one(likelihood, state, solver, [w[b] for w in weights], by) for b in range(len(weights[0]))])

    return move


def _one(likelihood: Likelihood, state: State, solver: Solver, counts: list[Array], by: str) -> Array:
    """(size,) the mode where cells count so much, from the mode of the fit with its curvature; slopes and latent levels integrated out.

    A rater's weight multiplies the log marginal likelihood, so what is known of the rater's slope does not move with it; weights of
    judgments count within it.
    """
    weighed = likelihood.weighed(counts)
    of_slopes = likelihood if by == "rater" else weighed
    x, memory = state.x.copy(), Memory()
    for _ in range(_STEPS):
        _, posterior = state.nodes.posterior(of_slopes.rater_log_likelihood(x, state.nodes) + state.nodes.log_prior)
        gradient = weighed.derivatives(x, state.nodes, posterior).gradient - state.prior.pull(x)
        step = memory.step(x, gradient, solver)
        x = x + step * min(1.0, 2.0 / max(float(np.abs(step[likelihood.shape]).max(initial=0.0)), 1e-9))
        if np.sqrt(max(float(gradient @ step), 0.0) / len(step)) < _CLOSE:
            break
    return x


def _all_at_once(likelihood: Likelihood, state: State, solver: Dense) -> Callable[[list[Array]], Array]:
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

    def move(weights: list[Array]) -> Array:
        rounds = len(weights[0])
        x = np.repeat(state.x[:, None], rounds, axis=1)
        for _ in range(_STEPS):
            slope = gradient(x, weights)[free]
            step = cho_solve(factor, slope)
            x[free] += step
            if np.sqrt((slope * step).sum(0).max() / len(step)) < _CLOSE:
                break
        return x.T

    return move


def _plain(likelihood: Likelihood) -> list[bool]:
    """Per block, whether all rounds can be evaluated at once: one contrast, and parameters that are the same for all cells."""
    return [c.scalar and c.scale is None and c.haste is None and not isinstance(c.block.family, Missing) for c in likelihood.cells]
