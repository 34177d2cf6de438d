"""The search for the mode of the posterior, and for the prior strengths at the maximum of the marginal likelihood.

Newton steps on the marginal posterior (raters' slopes integrated out); between the steps the prior variances move to the maximum
of the marginal likelihood (MacKay 1992, equation 4.20) and the shares and spread of the slopes by EM. Then the
hyperparameters are frozen and the steps go on until the first-order condition holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.optimize import brentq
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from seamark.models.curvature import Blocks, Components, Dense, Solver, make_solver, one_matrix, without_prior
from seamark.models.likelihood import Derivatives, Likelihood, Nodes
from seamark.models.people import Factor, Same, parts_of
from seamark.models.posterior import VAGUE, Prior, State
from seamark.models.problem import Problem
from seamark.models.result import Convergence, Fit
from seamark.models.slopes import SHARES, Classes, Slopes
from seamark.models.utility import Basis
from seamark.models.walks import Walk

Array = NDArray[np.float64]

_ROUNDS = 15
"""Most updates of the hyperparameters; they usually settle, to 5% of a variance, in 5 to 15."""
_SETTLED = 0.1
"""Hyperparameters move only while the Newton decrement is below this, in standard errors."""
_ATTEMPTS = 4
"""Placements of raters in latent levels that are followed for a few steps."""
_EXACT = 500
"""Up to this many parameters in one matrix, its determinant is worked out again for each nuisance parameter in turn."""
_NEAR, _BENT = 1e-3, 0.05
"""Steps of a nuisance parameter, in logits or log units, over which a term's slope and its change are measured."""
_MANY = 1000
"""With more cells than this for each parameter the search starts with some of them."""
_SAID = 0.005
"""Where less than this share of a part's prior variance is left, the variance is estimated without the term that costs two passes."""
_THINNED = 8
"""Of so many cells, one."""
_ROUGHLY = 0.1
"""How near the mode of the thinned data is looked for, in its own standard errors; those of all data are a third."""
_STALE = 4
"""With features, the curvature of the values is worked out afresh after this many steps, and at the start and the end."""


def _parts(likelihood: Likelihood, factors: Sequence[Factor]) -> list[tuple[str, NDArray[np.int64]]]:
    """Named index sets of x that share a prior variance to be estimated."""
    P = likelihood.basis.n_columns
    parts: list[tuple[str, NDArray[np.int64]]] = []
    for name, columns in likelihood.basis.parts:
        index = np.arange(P)[columns]
        blocks = [(name, index)]
        if name != "residual":
            for factor, mine in parts_of(factors).items():
                blocks.append((f"{name} of {factor}", np.concatenate([a * P + index for a in mine])))
        if (walk := likelihood.basis.walk) is not None:
            first = [(label, mine[walk.begins[mine % P]]) for label, mine in blocks]
            blocks = first + [(f"{label} of period", mine[~walk.begins[mine % P]]) for label, mine in blocks]
        parts += blocks
    for s in likelihood.parts:
        if s.estimated:
            parts.append((s.name, np.arange(likelihood.n_values + s.start, likelihood.n_values + s.stop)))
    return parts


def _same_map(one: Basis, two: Basis) -> bool:
    """Whether two bases make the same columns of a text."""
    if one.features is None or two.features is None:
        return False
    a, b = one.features.to_arrays(), two.features.to_arrays()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _mean_square(basis: Basis, index: NDArray[np.int64]) -> float:
    """Mean over responses of the squared length of their columns in a part."""
    columns = np.unique(index % basis.n_columns)
    assert basis.matrix is not None
    inside = columns[columns < basis.matrix.shape[1]]
    return float((basis.matrix[:, inside] ** 2).sum(1).mean()) if len(inside) else 1.0


@dataclass
class Search:
    """Where the search for the mode stands: the point, its priors, the posterior of the slopes there."""

    likelihood: Likelihood
    slopes: Slopes | Classes | None
    x: Array
    prior: Prior
    variances: dict[str, float]
    usual: dict[str, float]
    """Prior variances that the search starts from."""
    parts: list[tuple[str, NDArray[np.int64]]]
    nodes: Nodes
    tilt: Array
    """Of the log posterior along each nuisance parameter: what its marginal posterior rises by where the joint one does not."""
    heed: Array
    """Share of a change of the tilt that is made, so that the parameter lands where the tilt will be."""
    told: Array = field(default_factory=lambda: np.zeros(0))
    """The tilt, in standard errors that it moves its parameter by."""
    moves: dict[str, float] = field(default_factory=dict)
    """Last move of the logarithm of each variance."""
    value: float = -np.inf
    posterior: Array = field(default_factory=lambda: np.zeros((0, 0)))
    log_joint: Array = field(default_factory=lambda: np.zeros((0, 0)))
    ahead: Derivatives | None = None
    """Derivatives where we stand, if they are known already."""
    determined: dict[str, float] = field(default_factory=dict)
    """How many parameters of each part the data determines."""
    fallen: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each part, what `_falls` found last, and at which variance."""

    @staticmethod
    def start(likelihood: Likelihood, slopes: Slopes | Classes | None, factors: Sequence[Factor]) -> Search:
        size = likelihood.size
        x, centre = np.zeros(size), np.zeros(size)
        x[likelihood.shape] = centre[likelihood.shape] = likelihood.shape_start()
        precision = np.full(size, 1.0)  # position: sd 1 logit, an effect that moves 50% to 73%
        precision[likelihood.shape] = 0.25  # shape: sd 2 around the start
        for name, index in likelihood.circumstances:
            # a gap that a circumstance doubles or halves lies 1.4 sd out, and odds of a lapse that it makes 2.7 times as large 1: with a
            # wider prior and little data, values shrink to nothing while one level's scale grows without end
            precision[index] = 4.0 if name.startswith("scale") else 1.0
        if likelihood.observation.lapse:
            precision[size - 1] = 1.0
        parts = _parts(likelihood, factors)
        usual = {name: _usual_variance(likelihood, name, index) for name, index in parts}
        nodes = slopes.nodes() if slopes else Nodes.fixed(likelihood.design.n_raters)
        tilt = np.zeros(len(likelihood.nuisance))
        prior = Prior(centre, precision, np.zeros((size, 0)), likelihood.basis.walk, likelihood.n_values)
        search = Search(likelihood, slopes, x, prior, dict(usual), usual, parts, nodes, tilt, np.zeros(0))
        search._set_precision()
        return search

    def _set_precision(self) -> None:
        for name, index in self.parts:
            self.prior.precision[index] = 1 / self.variances[name]

    def objective(self, x: Array, posterior: Array | None = None) -> tuple[float, Array, Array]:
        """(log posterior with slopes integrated out, posterior of the slopes, log joint)."""
        if self.slopes is None:
            joint = self.likelihood.rater_log_likelihood(x, self.nodes)
            value, posterior = float(joint.sum()), np.ones_like(joint)
        else:
            joint = self.likelihood.rater_log_likelihood(x, self.nodes, posterior) + self.nodes.log_prior
            marginal, posterior = self.nodes.posterior(joint)
            value = float(marginal.sum())
        return value - self.prior.penalty(x), posterior, joint

    def leave_open(self, directions: Array) -> None:
        """Take the prior away along these directions, and from no others."""
        before = self.prior.penalty(self.x)
        self.prior.open_ = directions
        self.value += before - self.prior.penalty(self.x)

    @property
    def _walk(self) -> Walk | None:
        return self.likelihood.basis.walk

    def look(self) -> None:
        """Evaluate where we stand, at all nodes."""
        self.value, self.posterior, self.log_joint = self.objective(self.x)

    def take_up(self, earlier: Fit, problem: Problem) -> None:
        """Start where an earlier fit ended: what is the same there and here is taken over, by name."""
        likelihood, feedback = self.likelihood, problem.feedback
        k, P = likelihood.design.loadings.shape[1], likelihood.basis.n_columns
        if likelihood.basis.matrix is None and earlier.basis.matrix is None and len(earlier.weights) == k:
            rows = earlier.basis.rows_for(feedback)
            if likelihood.basis.walk is not None and earlier.basis.walk is not None:
                walk, before = likelihood.basis.walk, earlier.basis.walk
                rows = earlier.basis.walk_rows(earlier.basis.numbers(problem.given)[walk.response], before.periods_at(walk))
            self.x[likelihood.values] = np.where(rows.known, rows.times(earlier.weights.T).T, 0.0).ravel()
        elif likelihood.basis.matrix is not None and earlier.weights.shape == (k, P) and _same_map(likelihood.basis, earlier.basis):
            self.x[likelihood.values] = earlier.weights.ravel()
        row = {name: i for i, name in enumerate(earlier.raters["rater"].to_list())}
        rater = np.array([row.get(name, -1) for name in feedback.raters["id"].to_list()], dtype=np.int64)
        before = {s.name: s for s in earlier.shift_parts}
        for s in likelihood.parts:
            if s.name in before and s.per_rater:
                old = earlier.shifts[before[s.name].start : before[s.name].stop]
                self.x[likelihood.n_values + s.start : likelihood.n_values + s.stop] = np.where(rater >= 0, old[rater], 0.0)
            elif s.name in before and s.names == before[s.name].names:
                self.x[likelihood.n_values + s.start : likelihood.n_values + s.stop] = earlier.shifts[
                    before[s.name].start : before[s.name].stop
                ]
        for c in likelihood.cells:
            if earlier.families.get(c.block.name) == c.block.family:
                self.x[likelihood.shape][c.shape] = earlier.shape[earlier.shapes[c.block.name]]
        for name, _ in self.parts:
            if f"{name}_sd" in earlier.prior:
                self.variances[name] = max(earlier.prior[f"{name}_sd"], 1e-3) ** 2
        if isinstance(self.slopes, Slopes) and "slope_spread" in earlier.prior:
            self.slopes.spread = earlier.prior["slope_spread"]
            self.slopes.shares = np.array([earlier.prior[f"share {name}"] for name in SHARES])
            self.nodes = self.slopes.nodes()
        self._set_precision()
        self.look()

    def go_to(self, near: State) -> None:
        """Start where the search with some of the judgments ended."""
        self.x, self.variances, self.prior = near.x, dict(near.variances), near.prior
        self._set_precision()
        mine, start = self.likelihood.nuisance, np.zeros_like(self.x)
        start[self.likelihood.shape] = self.likelihood.shape_start()
        self.tilt = (self.prior.centre - start)[mine] * self.prior.precision[mine]
        self.look()

    def part_levels(self, latent: Factor, rng: np.random.Generator) -> None:
        """Tell the latent levels apart, since all of them start alike and nothing would ever part them.

        Raters are placed by what their scores have in common under the shared value, and the values of each level are those that
        its raters ask for. Several placements are followed for a few steps; the likeliest is kept.

        Nobody is at chance until levels are apart: a minority whose values differ much from the shared one looks as if it were, and
        once its slopes are 0 it has no say in what its level values (a mode a thousand nats below the best, in 3 of 10 simulated
        crowds of 84 and 36 raters with 120 judgments each).
        """
        likelihood, L, R = self.likelihood, self.nodes.levels, self.likelihood.design.n_raters
        components = Components.of(likelihood, likelihood.derivatives(self.x, self.nodes, self.posterior))

        def climb(steps: int, posterior: Array | None = None) -> None:
            for _ in range(steps):
                d = likelihood.derivatives(self.x, self.nodes, self.posterior if posterior is None else posterior)
                step = make_solver(likelihood, d, self.prior.precision, components, rng).solve(d.gradient - self.prior.pull(self.x))
                if posterior is None:
                    self.advance(step)
                else:
                    values = likelihood.values
                    self.x[values] += np.clip(step[values], -2.0, 2.0)

        everyone = self.nodes
        if isinstance(self.slopes, Slopes):
            prior = everyone.log_prior.copy()
            prior[:-1, 0] = -np.inf  # the last row is that of raters not known
            self.nodes = replace(everyone, log_prior=prior)
            self.look()
        careful = self.nodes
        climb(4)
        shared = self.x.copy()
        scores = likelihood.cluster_scores(shared, self.nodes, self.posterior)[:R, : likelihood.basis.n_columns]
        size = np.asarray(abs(scores).sum(1)).ravel()
        scale = np.sqrt(np.asarray((scores**2 if isinstance(scores, np.ndarray) else scores.power(2)).sum(0)).ravel())
        scaled = scores @ diags_array(1 / np.maximum(scale, 1e-9))
        k = min(latent.loadings.shape[1], min(scaled.shape) - 1)
        left, singular, _ = svds(csr_array(scaled) if not isinstance(scaled, np.ndarray) else scaled, k=k, rng=rng)
        place = np.asarray(left) * np.asarray(singular) / np.sqrt(np.maximum(size, 1e-9))[:, None]
        place = (place / np.maximum(place.std(0), 1e-12))[:, ::-1]
        best: tuple[float, Array, Array] | None = None
        for attempt in range(_ATTEMPTS):
            if latent.learnt:
                start = place if attempt < _ATTEMPTS - 1 else rng.standard_normal(place.shape)
                level = np.asarray(kmeans2(start + 1e-9 * rng.standard_normal(start.shape), L, minit="++", rng=rng)[1])
            else:
                signs = rng.choice([-1.0, 1.0], place.shape[1]) if attempt else 1.0
                level = np.argmin(((place[:, None] * signs - latent.loadings[:-1][None]) ** 2).sum(2), axis=1)
            placed = np.zeros((R, L, self.posterior.shape[1]))
            slopes = self.posterior[:-1].reshape(R, L, -1).sum(1)
            placed[np.arange(R), level] = slopes
            self.x, self.nodes = shared.copy(), careful
            climb(2, np.vstack([placed.reshape(R * L, -1), self.posterior[-1:]]))
            self.nodes = everyone
            self.look()
            climb(6)
            if best is None or self.value > best[0]:
                best = (self.value, self.x, level)
        assert best is not None
        self.x = best[1]
        self.look()

    def advance(self, step: Array) -> bool:
        """Go along the step, halving it until the objective does not fall; False where it always does."""
        # logarithms of scales and cut points: a step of more than 2 leaves all that the curvature knows of
        length = min(1.0, 2.0 / max(float(np.abs(step[self.likelihood.shape]).max(initial=0.0)), 1e-9))
        for _ in range(30):
            candidate = self.x + length * step
            # with slopes of 1 one pass gives derivatives and objective, and hardly a full step is refused
            known = self.slopes is None and length == 1 and self.likelihood.basis.matrix is None
            ahead = self.likelihood.derivatives(candidate, self.nodes, self.posterior) if known else None
            # a short step moves little of the slopes' posterior: nodes that carry none of it are left out
            value, posterior, joint = self.objective(candidate, self.posterior)
            if value >= self.value - 1e-10 * abs(self.value):
                self.x, self.value, self.posterior, self.log_joint, self.ahead = candidate, value, posterior, joint, ahead
                return True
            length /= 2
        return False

    def update_priors(self, solver: Solver) -> None:
        """Prior variances towards the maximum of the marginal likelihood: MacKay 1992, equation 4.20.

        He takes the curvature as fixed. That is right for a mean-field posterior, which values and slopes have together; for values
        alone the marginal likelihood is Laplace's, and lacks a term (`_falls`).
        """
        variance = solver.variances()
        if not isinstance(solver, Dense):  # the one matrix has the prior taken away along what is open
            variance = variance + (self.prior.opened(solver.solve) ** 2).sum(1)
        # where the data says nearly all, the curvature's fall is less than what the search stops at
        # (the level of all values it never tells)
        open_ends = any(variance[index].sum() > (1 + _SAID * len(index)) * self.variances[name] for name, index in self.parts)
        falls = self._falls(solver) if open_ends and not self.slopes else {}
        y = self.prior.coordinates(self.x)
        for name, index in self.parts:
            inside = self.prior.open_[index]
            n = len(index) - float((inside**2).sum())
            undetermined = variance[index].sum() / self.variances[name] * n / len(index)
            well_determined = float(np.clip(n - undetermined, 1e-3 * n, n))
            well_determined = max(well_determined + falls.get(name, 0.0), 0.1 * well_determined)
            self.determined[name] = well_determined
            squares = max(float((y[index] ** 2).sum() - ((inside.T @ y[index]) ** 2).sum()), 0.0)
            new = _weighed(squares, well_determined, self.usual[name])
            self.variances[name] = self._ahead(name, np.log(new / self.variances[name]))
        self._set_precision()

    def _falls(self, solver: Solver) -> dict[str, float]:
        """Per part, tr(A^-1 dA/dx dx/dlog v): how log |A| changes with the prior variance because the mode moves, by dx = A^-1 x / v.

        The curvature of a choice falls as gaps grow. Left out, a prior sd of 1 is estimated as .88 from 20 judgments a response,
        and everything is pulled too far towards 0 (the bias of penalised quasi-likelihood, Breslow & Lin 1995).
        """
        if self._walk is not None and self.fallen and all(abs(np.log(v / self.fallen[n][1])) < 0.7 for n, v in self.variances.items()):
            return {name: found for name, (found, _) in self.fallen.items()}  # they hardly change, and cost as much as a step
        doubt = solver.traced(self.likelihood)
        here = self.ahead.by_edge if self.ahead else self.likelihood.edge_curvature(self.x, self.nodes, self.posterior)
        falls: dict[str, float] = {}
        for name, index in self.parts:
            along = solver.solve(self.prior.pull(self.x, index))
            size = np.sqrt((along**2).mean())
            if size > 0:
                ahead = self.likelihood.edge_curvature(self.x + 1e-3 / size * along, self.nodes, self.posterior)
                falls[name] = float(doubt @ (ahead - here)) * size / 1e-3
        self.fallen = {name: (found, self.variances[name]) for name, found in falls.items()}
        return falls

    def _ahead(self, name: str, move: float) -> float:
        """The variance after a move of its logarithm, and where a series of moves is going if they shrink by a steady factor (Aitken 1926)."""
        last = self.moves.get(name, 0.0)
        rate = move / last if last else 0.0
        self.moves[name] = move
        if 0.2 < rate < 0.95:
            move += float(np.clip(move * rate / (1 - rate), -1.0, 1.0))
            self.moves.pop(name)  # the next two moves measure the rate afresh
        return self.variances[name] * float(np.exp(move))

    def update_nuisance(self, solver: Solver, components: Components | None, rng: np.random.Generator) -> None:
        """Scales, lapses and what leads to no answer, t, towards the mode of log p(x^(t), t) - log det A(x^(t), t) / 2: of their marginal
        posterior by Laplace, A being the curvature of all else and x^ its mode (the adjusted profile of Cox & Reid 1987).

        The joint mode is not where they are: values that shrink cost nothing under their prior, and a scale, or fewer lapses, make up
        for it. Of the second term the slope is held until the next round. It tilts the log posterior, which is to say that
        it moves the centre of t's prior, and all else stays as it is.
        """
        mine = self.likelihood.nuisance
        if not len(mine):
            return
        unit = np.zeros((len(mine), len(self.x)))
        unit[np.arange(len(mine)), mine] = 1.0
        doubt = np.column_stack([solver.solve(one) for one in unit])
        variance = doubt[mine].diagonal()
        follow = doubt @ np.linalg.inv(doubt[mine])  # dx^/dt
        exact = isinstance(solver, Blocks) or (isinstance(solver, Dense) and len(solver.matrix) <= _EXACT)
        if exact:

            def term(x: Array) -> float:
                d = self.likelihood.derivatives(x, self.nodes, self.posterior)
                there = make_solver(self.likelihood, d, self.prior.precision, components, rng, whole=False, open_=self.prior.open_)
                assert isinstance(there, Blocks | Dense)
                return -0.5 * there.log_det(mine)
        else:
            traced = solver.traced(self.likelihood)

            def term(x: Array) -> float:
                # to first order, by the curvature along edges
                return -0.5 * float(traced @ self.likelihood.edge_curvature(x, self.nodes, self.posterior))

        here = term(self.x)
        if not len(self.heed) and exact:
            # the tilt falls as a scale follows it, and would go to and fro: Newton's step has the curvature of both terms
            bend = [term(self.x + _BENT * f) - 2 * here + term(self.x - _BENT * f) for f in follow.T]
            self.heed = 1 / np.clip(1 - variance * np.array(bend) / _BENT**2, 1.0, 5.0)
        elif not len(self.heed):
            scales = [index for name, index in self.likelihood.circumstances if name.startswith("scale")]
            self.heed = np.where(np.isin(mine, scales), 0.5, 1.0)
        tilt = np.array([term(self.x + _NEAR * f) - here for f in follow.T]) / _NEAR
        moved = self.heed * (tilt - self.tilt)
        self.tilt += moved
        self.prior.centre[mine] += moved / self.prior.precision[mine]
        self.told = self.tilt * np.sqrt(variance)

    def update_slopes(self, solver: Solver, seen: NDArray[np.bool_], rng: np.random.Generator) -> None:
        """Shares and spread by EM; then the values' own uncertainty as a prior on the nodes."""
        assert self.slopes is not None
        likelihood, slopes = self.likelihood, self.slopes
        self.look()
        mean = slopes.update(self.log_joint, seen)
        self.x[likelihood.values] *= mean
        for name, index in self.parts:
            if index[0] < likelihood.n_values:
                self.variances[name] *= mean**2
        self._set_precision()
        if isinstance(slopes, Slopes) and slopes.shares[2] > slopes.shares[0]:
            # the sign of the scale is the majority's
            self.x[likelihood.values] *= -1
            slopes.turn()
        self.nodes = slopes.nodes()
        _, posterior, _ = self.objective(self.x)
        offset = likelihood.uncertainty_offset(self.x, self.nodes, mean**2 * solver.gap_variances(likelihood, rng), posterior)
        self.nodes = replace(self.nodes, log_prior=self.nodes.log_prior + offset)

    @property
    def slack(self) -> float:
        """How little a log variance may still move: half the precision that its part's parameters give it, between .3% and 5%."""
        # of many steps in time few are determined by data
        determined = [len(index) if self._walk is None else max(self.determined.get(name, 1.0), 1.0) for name, index in self.parts]
        return float(np.clip(0.5 * np.sqrt(2 / max(determined)), 0.003, 0.05 if self._walk is None else 0.02))

    def hyper(self) -> Array:
        logs = [np.log(max(v, 1e-4)) for v in self.variances.values()]
        return np.array([*logs, *self.told, *(self.slopes.hyper() if self.slopes else ())])


@dataclass
class Memory:
    """What earlier steps told of the curvature that the solver leaves out: raters' slopes not being known (L-BFGS, Nocedal 1980)."""

    pairs: list[tuple[Array, Array]] = field(default_factory=list)
    """(step, fall of the gradient along it), newest last."""
    last: tuple[Array, Array] | None = None

    def step(self, x: Array, gradient: Array, solver: Solver) -> Array:
        if self.last is not None:
            moved, fell = x - self.last[0], self.last[1] - gradient
            if moved @ fell > 1e-12 * np.sqrt((moved @ moved) * (fell @ fell)):
                self.pairs = [*self.pairs[-9:], (moved, fell)]
        self.last = (x, gradient)
        q = gradient.copy()
        along = []
        for moved, fell in reversed(self.pairs):
            along.append(moved @ q / (moved @ fell))
            q -= along[-1] * fell
        step = solver.solve(q)
        for (moved, fell), a in zip(self.pairs, reversed(along), strict=True):
            step += (a - fell @ step / (moved @ fell)) * moved
        return step


def _weighed(squares: float, well_determined: float, usual: float) -> float:
    """The v at which squares / v = well_determined + 2 log(v / usual) / VAGUE^2: MacKay's, with a vague log-normal prior on v.

    Without one, little data ends in a variance of 0, that is in being certain that nothing matters.
    """

    def excess(log_v: float) -> float:
        return well_determined + 2 * log_v / VAGUE**2 - squares / usual * np.exp(-log_v)

    log_v = brentq(excess, -40, 40)
    assert isinstance(log_v, float)
    return usual * float(np.exp(log_v))


def _usual_variance(likelihood: Likelihood, name: str, index: NDArray[np.int64]) -> float:
    """Prior variance of a part's parameters that gives utilities a variance of about 1, a tenth of that what is beside a main part."""
    shift = index[0] >= likelihood.n_values
    scale = 1.0 if likelihood.basis.matrix is None or shift else _mean_square(likelihood.basis, index)
    if name.endswith((" of persona", " of taste")):
        return 0.5 / max(scale, 1e-12)  # raters who hardly differ are never told apart: start where they do
    if (walk := likelihood.basis.walk) is not None and name.endswith(" of period"):
        return min(0.1, 1 / max(walk.last, 1))  # however short the periods, values may move by about 1 over all of them
    beside = (" of " in name and not shift) or name == "residual" or name.startswith(("position", "taste", "source", "bias", "leniency by"))
    return (0.1 if beside else 1.0) / max(scale, 1e-12)


def optimise(
    problem: Problem,
    *,
    max_iterations: int,
    tolerance: float,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
    start: Fit | None = None,
) -> State:
    """The mode of the posterior, and the prior strengths at the maximum of the marginal likelihood."""
    likelihood, strata, seen, factors = problem.likelihood, problem.strata, problem.seen > 0, problem.strata.factors
    rng = np.random.default_rng(seed)
    slopes = None
    if problem.reliable:
        opposed = isinstance(problem.people, Same)
        slopes = Slopes.start(likelihood.design.n_raters, opposed=opposed, level_share=strata.share, learnt=strata.learnt)
    elif strata.latent is not None:
        slopes = Classes(likelihood.design.n_raters, strata.share, strata.learnt)
    search = Search.start(likelihood, slopes, factors)
    hyper = np.zeros(0)
    if start is not None:
        search.take_up(start, problem)
    elif slopes is None and sum(len(c.group) for c in likelihood.cells) > _MANY * likelihood.size:
        # few of the cells tell where to start, as nearly as a few steps with all of them would
        fewer = replace(problem, likelihood=likelihood.thinned(_THINNED))
        near = optimise(fewer, max_iterations=max_iterations, tolerance=_ROUGHLY, seed=seed)
        search.go_to(near)
        hyper = search.hyper()
    else:
        search.look()
    frozen, decrement, iteration, settled, rounds = False, np.inf, 0, 0, 0
    components: Components | None = None
    solver: Solver | None = None
    derivatives: Derivatives | None = None
    gradient, lent = np.zeros(likelihood.size), None
    memory, age = Memory(), 0
    if search.nodes.levels > 1 and start is None:
        search.part_levels(next(f for f in factors if f.latent), rng)
    for iteration in range(1, max_iterations + 1):
        lent = derivatives if likelihood.basis.matrix is not None and 0 < age < _STALE and iteration > 3 else None
        derivatives = search.ahead or likelihood.derivatives(search.x, search.nodes, search.posterior, stale=lent)
        age = age + 1 if lent else 1
        if iteration == 1:
            components = Components.to_search(likelihood, derivatives)
        if not frozen:
            search.leave_open(without_prior(derivatives, likelihood))
        gradient = derivatives.gradient - search.prior.pull(search.x)
        if solver is None or not frozen or not lent:  # priors move no more: a matrix that is lent is also factored already
            solver = make_solver(likelihood, derivatives, search.prior.precision, components, rng, whole=False, open_=search.prior.open_)
        exact = slopes is None and one_matrix(likelihood) and (isinstance(solver, Dense) or not likelihood.loose.any())
        plain = solver.solve(gradient)
        decrement = float(np.sqrt(max(gradient @ plain, 0.0) / len(plain)))
        step = memory.step(search.x, gradient, solver) if frozen else plain
        if progress is not None:
            progress(iteration, decrement)
        if frozen and decrement < (1e-3 * tolerance if exact else tolerance):
            search.look()
            break
        if not search.advance(step):
            if not lent and not memory.pairs:
                break  # rounding, if the decrement is small
            memory, age = Memory(), 0  # the lent curvature was too old, or memory misled
            continue
        if frozen or (decrement > _SETTLED and iteration < max_iterations // 2):
            # prior strengths are read off a mode, not off the way to it
            continue
        search.update_priors(solver)
        search.update_nuisance(solver, components, rng)
        if slopes is not None:
            search.update_slopes(solver, seen, rng)
        search.look()
        now = search.hyper()
        settled = settled + 1 if len(hyper) and np.abs(now - hyper).max() < search.slack else 0
        hyper = now
        rounds += 1
        if settled >= (2 if slopes or search.likelihood.basis.walk else 1) or rounds >= _ROUNDS or iteration >= max_iterations // 2:
            frozen, age = True, 0
    # converged only if the loop ended by the first-order condition
    converged = frozen and decrement < tolerance
    return State(
        search.x, search.nodes, search.posterior, search.prior, search.variances, search.parts, slopes,
        None if one_matrix(likelihood) else components,
        Convergence(
            converged, iteration, decrement, tolerance, float(np.abs(gradient).max() / likelihood.design.n_judgments),
            float(search.nodes.posterior(search.log_joint)[0].sum()),
        ),
        derivatives if converged and slopes is None and not lent else None,
    )  # fmt: skip
