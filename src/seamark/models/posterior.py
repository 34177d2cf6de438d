"""The posterior around its mode: where it was found, and the covariance of what was estimated there.

A covariance is the inverse of the observed curvature, and besides one column for each thing that the curvature takes as known and
is not: the strength of each prior, and the scale that raters' slopes leave open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array, hstack

from seamark.errors import SeamarkError
from seamark.models.curvature import DENSE, DRAWS, Blocks, Components, Dense, Iterative, make_solver, spread
from seamark.models.likelihood import Derivatives, Likelihood, Nodes
from seamark.models.result import VAGUE, Convergence
from seamark.models.slopes import Classes, Slopes
from seamark.models.walks import Walk

Array = NDArray[np.float64]

_KEPT = 512
"""Draws that stand for a covariance of more than DENSE values (3% error of a standard deviation)."""


@dataclass
class Prior:
    """Normal, and independent in its coordinates: the parameters themselves, but of values that move their steps (`walks`)."""

    centre: Array
    """(size,) where a parameter is taken at the mode of its marginal posterior, moved so that this is the mode."""
    precision: Array
    """(size,) of the coordinates."""
    open_: Array
    """(size, r) orthonormal directions along which there is none."""
    walk: Walk | None
    n_values: int

    def coordinates(self, x: Array) -> Array:
        if self.walk is None:
            return x
        return np.concatenate([self.walk.coordinates(x[: self.n_values]), x[self.n_values :]])

    def pull(self, x: Array, index: NDArray[np.int64] | slice = slice(None)) -> Array:
        """What it pulls x (size,) or (size, B) by, or that of some coordinates: minus the gradient of its logarithm."""
        y = self.coordinates((x.T - self.centre).T)
        pulled = np.zeros_like(y)
        pulled[index] = (self.precision[index] * y[index].T).T
        if self.walk is not None:
            pulled = np.concatenate([self.walk.transposed(pulled[: self.n_values]), pulled[self.n_values :]])
        return np.asarray(pulled - self.open_ @ (self.open_.T @ pulled)) if self.open_.size else pulled

    def opened(self, solve: Callable[[Array], Array]) -> Array:
        """(size, r) columns that taking it away along the open directions O adds to a covariance A^-1 that has it there (Woodbury 1950):
        S (1 / p - O' S)^-1 S' with S = A^-1 O, values having one precision p."""
        if not self.open_.size:
            return self.open_
        solved, p = np.column_stack([solve(direction) for direction in self.open_.T]), float(self.precision[0])
        left = np.eye(self.open_.shape[1]) / p - self.open_.T @ solved
        curve, axes = np.linalg.eigh((left + left.T) / 2)
        return solved @ axes / np.sqrt(np.maximum(curve, 1e-9 / p))

    def penalty(self, x: Array) -> float:
        return 0.5 * float((x - self.centre) @ self.pull(x))


@dataclass
class State:
    """Where the search for the mode ended."""

    x: Array
    nodes: Nodes
    posterior: Array
    prior: Prior
    variances: dict[str, float]
    parts: list[tuple[str, NDArray[np.int64]]]
    """Named index sets of x that share a prior variance which was estimated."""
    slopes: Slopes | Classes | None
    components: Components | None
    convergence: Convergence
    derivatives: Derivatives | None
    """At x, where they are known."""


@dataclass(frozen=True)
class Covariance:
    """Of what was estimated: the posterior's, and the sandwich, which holds where answers of one cluster share what the model leaves out."""

    factor: Array | csr_array
    """(n_values, r): the values' is factor @ factor.T."""
    se: Array
    """(size,)"""
    sandwich: Array | None
    """(size,) standard errors, NaN where there is none."""
    robust: NDArray[np.float32] | None
    """(n_values, r) factor of the values' sandwich."""
    notes: list[str]


def covariance(
    likelihood: Likelihood,
    state: State,
    cluster: NDArray[np.int64] | None,
    seen: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    clustered: bool = True,
) -> Covariance:
    """How far what was found at the mode is known.

    `cluster` (n_responses,) is what the sandwich takes as independent, raters where it is None; `seen` (n_raters,) who has answered.
    There is no sandwich unless `clustered`.
    """
    known, columns = _at_known_priors(likelihood, state, cluster, rng, clustered=clustered)
    columns = np.column_stack([columns, _scale_doubt(likelihood, state, seen, known.se)])
    columns = columns[:, columns.any(0)]
    shared, factor = columns[likelihood.values], known.factor
    factor = csr_array(hstack([factor, csr_array(shared)])) if isinstance(factor, csr_array) else np.hstack([factor, shared])
    return replace(known, factor=factor, se=np.sqrt(known.se**2 + (columns**2).sum(1)))


def _prior_doubt(state: State, solve: Callable[[Array], Array], variance: Array) -> Array:
    """(size, parts): what not knowing the prior variances v adds to the covariance, as one column per part (Kass & Steffey 1989).

    A column is dx/dlog v times the sd of log v. The mode moves by A^-1 x / v along the part. Its n parameters, g of them
    well-determined, have information 1/2 tr((1 - A^-1 / v)^2) about log v, which is at least g^2 / 2n; the vague prior adds its own.
    """
    columns = np.zeros((len(state.x), len(state.parts)))
    for column, (_, index) in zip(columns.T, state.parts, strict=True):
        n = len(index)
        well_determined = float(np.clip(n - state.prior.precision[index] @ variance[index], 0.0, n))
        column[:] = solve(state.prior.pull(state.x, index)) / np.sqrt(well_determined**2 / (2 * n) + 1 / VAGUE**2)
    return columns


def _at_known_priors(
    likelihood: Likelihood, state: State, cluster: NDArray[np.int64] | None, rng: np.random.Generator, *, clustered: bool
) -> tuple[Covariance, Array]:
    """(what takes the priors as known, and where the matrix is not one, as holding along all directions; further columns of the covariance)."""
    derivatives = state.derivatives or likelihood.derivatives(state.x, state.nodes, state.posterior)
    solver = make_solver(likelihood, derivatives, state.prior.precision, state.components, rng, open_=state.prior.open_)
    if isinstance(solver, Dense):
        return _dense(likelihood, state, solver.matrix, cluster, rng, clustered=clustered)
    if isinstance(solver, Iterative):
        factor = solver.values_factor(rng, DRAWS)
        se = np.sqrt(np.concatenate([(factor**2).sum(1), solver.corner_variances()]))
        note = (
            f"uncertainty from {DRAWS} draws, raters' slopes taken as known, no sandwich: {likelihood.size:,} parameters that hang together"
        )
        opened = state.prior.opened(solver.solve)
        return Covariance(factor, se, None, None, [note]), np.hstack([opened, _prior_doubt(state, solver.solve, solver.variances())])
    notes: list[str] = []
    if state.nodes.levels > 1:
        notes.append("raters' classes and slopes are taken as known: too many values for the whole covariance")
    elif state.slopes is not None:
        # the slopes join the border, so that not knowing them widens what depends on them (Louis 1982)
        C, precision = likelihood.slope_border(state.x, state.nodes, state.posterior)
        n = likelihood.n_values
        corner = np.block([[solver.corner, C[n:].toarray()], [C[n:].T.toarray(), np.diag(precision)]])
        solver = Blocks(
            solver.components,
            solver.values,
            csr_array(hstack([solver.border, C[:n]])),
            corner,
            np.ones(len(corner), dtype=bool),
            np.zeros(0),
        )
    factor = solver.values_factor(rng)
    se = np.sqrt(solver.variances()[: likelihood.size])
    more = np.zeros(solver.border.shape[1] - (likelihood.size - likelihood.n_values))  # type: ignore[index]  # scipy types the shape as optional

    def solve(right: Array) -> Array:
        return solver.solve(np.append(right, more))[: likelihood.size]

    opened = state.prior.opened(solve)
    columns = np.hstack([opened, _prior_doubt(state, solve, se**2)])
    shared = np.concatenate([likelihood.n_values + np.flatnonzero(~likelihood.of_many), np.arange(likelihood.shape.start, likelihood.size)])
    sandwich = np.full(likelihood.size, np.nan)
    if len(shared) and clustered:
        scores = likelihood.cluster_scores(state.x, state.nodes, state.posterior, cluster)
        rows = solver.rows(shared - likelihood.n_values)[:, : likelihood.size] + opened[shared] @ opened.T
        sandwich[shared] = np.sqrt(((scores @ rows.T) ** 2).sum(0))
    notes.append(f"no sandwich for the {likelihood.n_values:,} values, which are too many")
    return Covariance(factor, se, sandwich, None, notes), columns


def _scale_doubt(likelihood: Likelihood, state: State, seen: NDArray[np.bool_], se: Array) -> Array:
    """(size,) along the values: the doubt about the scale that they share.

    The scale is known as far as the prior of the slopes is: the more raters may be at chance, the larger the values must be. The
    covariance takes that prior as known; what not knowing it adds to the variance of the log scale is read off the information of
    scale and prior together, from the raters' scores (the empirical Fisher information; Berndt, Hall, Hall & Hausman 1974).
    """
    along = np.zeros_like(se)
    if not isinstance(state.slopes, Slopes) or likelihood.design.n_raters == 0:
        return along
    values = state.x[likelihood.values]
    by_rater = likelihood.cluster_scores(state.x, state.nodes, state.posterior)[: likelihood.design.n_raters, likelihood.values]
    scores = np.column_stack([by_rater @ values, state.slopes.scores(state.posterior)])[seen]
    information = scores.T @ scores
    information[1:, 1:] += state.slopes.prior_information()
    own, across = float(information[0, 0]), information[0, 1:]
    if own < 1e-9:
        return along  # values of 0 have no scale
    left = own - float(across @ np.linalg.solve(information[1:, 1:], across))
    along[likelihood.values] = values * np.sqrt(max(1 / max(left, 1e-3 * own) - 1 / own, 0.0))
    return along


def _root(inner: Array) -> Array:
    """(n, n) R with R R' = inner, which has no rank but that of the clusters."""
    diagonal = np.diag_indices_from(inner)
    inner[diagonal] += 1e-10 * inner[diagonal].max() + 1e-300
    try:
        return np.asarray(np.linalg.cholesky(inner), dtype=np.float64)
    except np.linalg.LinAlgError:  # by rounding
        curve, axes = np.linalg.eigh((inner + inner.T) / 2)
        return axes * np.sqrt(np.maximum(curve, 0.0))


def _dense(
    likelihood: Likelihood, state: State, expected: Array, cluster: NDArray[np.int64] | None, rng: np.random.Generator, *, clustered: bool
) -> tuple[Covariance, Array]:
    """The same where everything fits in one matrix (over the free parameters)."""
    notes: list[str] = []
    free = likelihood.free
    observed, meat = likelihood.score_products(state.x, state.nodes, state.posterior, cluster, clustered=clustered)
    if not free.all():
        observed = observed[np.ix_(free, free)]
        meat = None if meat is None else meat[np.ix_(free, free)]
    np.subtract(expected, observed, out=observed)
    try:
        lower = np.linalg.cholesky(observed)
    except np.linalg.LinAlgError:
        notes.append("the observed information is not positive definite; intervals use the expected one, which is too sure")
        try:
            lower = np.linalg.cholesky(expected)
        except np.linalg.LinAlgError:
            raise SeamarkError(
                "the curvature at the mode is not positive definite: the data does not tell some effects from others. Leave out those that were "
                "added last, or those with more levels than there are judgments for."
            ) from None
    del observed
    # cov = L^-T L^-1, so L^-T is a factor of it
    factor = solve_triangular(lower, np.eye(len(lower)), lower=True, overwrite_b=True, check_finite=False).T
    del lower
    se = np.sqrt((factor**2).sum(1))
    coordinates = (state.prior.coordinates(spread(factor, free)) ** 2).sum(1)
    columns = _prior_doubt(state, lambda pulled: spread(factor @ (factor.T @ pulled[free]), free), coordinates)
    sandwich = robust = None
    if meat is not None:  # F (F' M F) F'
        root = factor @ _root(factor.T @ meat @ factor)
        sandwich = spread(np.sqrt((root**2).sum(1)), free)
        # a standard error needs no more than single precision
        robust = spread(root, free)[: likelihood.n_values].astype(np.float32)
        del root
    del meat
    values = spread(factor, free)[: likelihood.n_values]
    if values.shape[1] > DENSE:
        values = values @ rng.standard_normal((values.shape[1], _KEPT)) / np.sqrt(_KEPT)
        notes.append(f"the covariance of {likelihood.n_values:,} values is kept as {_KEPT} draws")
    return Covariance(values, spread(se, free), sandwich, robust, notes), columns
