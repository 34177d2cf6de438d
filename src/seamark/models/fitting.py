"""`fit`: the posterior mode of the one likelihood, its prior strengths, its uncertainty; `Fit`: what it found, frozen.

The mode is found by Newton steps on the marginal posterior (raters' slopes integrated out); between the steps the prior
variances move to the maximum of the marginal likelihood (MacKay 1992, equation 4.20) and the shares and spread of the slopes
by EM. Then the hyperparameters are frozen and the steps go on until the first-order condition holds.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array, diags_array, hstack
from scipy.special import log_ndtr, logsumexp

from seamark.errors import NotConverged, NotIdentified, UnreadableSource
from seamark.models.design import Design, build_design, comparison_parts
from seamark.models.likelihood import Likelihood, Nodes
from seamark.models.observation import Observation, Outcome, Reliability, outcome_from_dict, outcome_to_dict
from seamark.models.people import Groups, People, Same
from seamark.models.utility import Basis, FeatureMap, Utility, default_utility
from seamark.records import Feedback

Array = NDArray[np.float64]

DENSE = 2500
"""Up to this many parameters the covariance comes from one dense matrix; beyond it (Tabular only) from draws."""
SPARSE = 1500
"""From this many parameters the steps of a Tabular fit solve a sparse system by conjugate gradients."""

EXACT = 2500
"""Up to this many value parameters the covariance is kept whole; beyond it as DRAWS draws from it (3% error of a sd)."""

DRAWS = 512

SHARES = ("careful", "at chance", "opposed")
_PSEUDO_RATERS = np.array([4.0, 0.5, 0.5])
"""Prior of the three shares, as if five raters had been seen: keeps a share from being exactly 0 or 1 in small data."""
_SPREAD_PRIOR = (2.0, 0.3)
"""Prior of the spread of careful slopes: as if two raters with spread 0.3 had been seen."""
_ROUNDS = 15
"""Most updates of the hyperparameters; they usually settle, to 5% of a variance, in 5 to 15."""
_SETTLED = 1.0
"""Hyperparameters move only while the Newton decrement is below this, in standard errors."""
_WIDEST_SPREAD = 0.5
"""A careful slope is positive with 97.5%. Wider, the prior is half-normal, which has no preferred scale: the gauge would slide."""
_GRID = 7
"""Nodes per branch of slopes."""
_SPACING = 1.2
"""Distance of the nodes in standard deviations: the trapezoid rule is then exact to 2e-6 for a Gaussian, over +-3.6 of them."""


# ---------------------------------------------------------------------------------------------- raters' slopes


@dataclass
class _Slopes:
    """Prior and integration grid of the raters' slopes.

    Prior: careful N(1, spread^2) cut at 0, at chance exactly 0, opposed the mirror image of careful. A normal rather than a
    log-normal slope: a log-normal wide enough for the noisy half of a crowd also covers slopes near 0 and swallows those at chance.
    """

    shares: Array
    """careful, at chance, opposed"""
    spread: float
    centre: Array
    """(R, branches) of |slope|"""
    width: Array
    """(R, branches)"""

    @staticmethod
    def start(n_raters: int, *, opposed: bool) -> _Slopes:
        branches = 2 if opposed else 1
        shares = np.array([0.85, 0.1, 0.05]) if opposed else np.array([0.9, 0.1, 0.0])
        return _Slopes(shares, 0.3, np.ones((n_raters, branches)), np.full((n_raters, branches), 0.3))

    def unseen(self) -> Nodes:
        """One rater who is only known by the prior."""
        branches = self.centre.shape[1]
        return _Slopes(self.shares, self.spread, np.ones((1, branches)), np.full((1, branches), self.spread)).nodes()

    def grid(self) -> Array:
        """(R, branches, _GRID) of |slope|; nodes at or below 0 carry no prior."""
        steps = _SPACING * (np.arange(_GRID) - (_GRID - 1) / 2)
        return self.centre[:, :, None] + self.width[:, :, None] * steps

    def nodes(self) -> Nodes:
        grid = self.grid()
        R, branches, _ = grid.shape
        log_density = -0.5 * ((grid - 1) / self.spread) ** 2 - np.log(self.spread * np.sqrt(2 * np.pi)) - log_ndtr(1 / self.spread)
        share = np.log(np.maximum(self.shares[[0, 2][:branches]], 1e-300))
        mass = np.where(grid > 0, log_density + np.log(_SPACING * self.width[:, :, None]) + share[None, :, None], -np.inf)
        sign = np.array([1.0, -1.0])[:branches]
        slope = np.hstack([np.zeros((R, 1)), (sign[None, :, None] * np.maximum(grid, 0)).reshape(R, -1)])
        prior = np.hstack([np.full((R, 1), np.log(max(self.shares[1], 1e-300))), mass.reshape(R, -1)])
        unknown_prior = np.full((1, slope.shape[1]), -np.inf)
        unknown_prior[0, 0] = 0.0
        return Nodes(np.vstack([slope, np.ones((1, slope.shape[1]))]), np.vstack([prior, unknown_prior]))

    def update(self, log_joint: Array, seen: NDArray[np.bool_]) -> float:
        """Move shares, spread and grid towards the posterior.

        Returns the mean slope of careful raters, by which the values are to be scaled: scale and slopes are almost exchangeable, so a Newton step and an EM step in turn would creep along that ridge.
        """
        R, branches = self.centre.shape
        grid = self.grid()
        log_prior = self.nodes().log_prior[:R]
        possible = np.isfinite(log_prior)
        likelihood = np.where(possible, log_joint[:R] - np.where(possible, log_prior, 0.0), -np.inf)
        n0, s0 = _SPREAD_PRIOR
        pseudo = _PSEUDO_RATERS if branches == 2 else _PSEUDO_RATERS * [1, 1, 0]
        squares = (grid[seen] - 1) ** 2
        # EM to its end: given the likelihood at the nodes a round costs nothing
        joint, by_branch = likelihood, np.zeros((0, branches, _GRID))
        for _ in range(100):
            joint = likelihood + self.nodes().log_prior[:R]
            posterior = np.exp(joint[seen] - _log_sums(joint[seen])[:, None])
            by_branch = posterior[:, 1:].reshape(-1, branches, _GRID)
            mass = np.array([by_branch[:, 0].sum(), posterior[:, 0].sum(), by_branch[:, 1].sum() if branches == 2 else 0.0])
            n, total = mass[0] + mass[2] + n0, float((by_branch * squares).sum()) + n0 * s0**2

            def cost(log_spread: float, n: float = n, total: float = total) -> float:
                return n * (log_spread + log_ndtr(np.exp(-log_spread))) + total / 2 * np.exp(-2 * log_spread)

            spread = float(np.exp(minimize_scalar(cost, bounds=(np.log(0.05), np.log(_WIDEST_SPREAD)), method="bounded").x))
            shares = (mass + pseudo) / (mass + pseudo).sum()
            step = max(float(np.abs(shares - self.shares).max()), abs(np.log(spread / self.spread)))
            self.shares, self.spread = shares, spread
            if step < 1e-3:
                break
        # the grid follows each branch's own posterior; it shrinks by halves, since a grid that is too coarse cannot see its width
        log_w = joint[:, 1:].reshape(R, branches, _GRID)
        w = np.exp(log_w - np.asarray(logsumexp(log_w, axis=2, keepdims=True)))
        centre = (w * grid).sum(2)
        width = np.sqrt((w * (grid - centre[:, :, None]) ** 2).sum(2))
        self.centre = np.clip(centre, 0.0, 1 + 4 * self.spread)
        self.width = np.clip(width, self.width / 2, self.spread)
        # the mean of a normal cut at 0 lies a little above 1
        cut = np.exp(-0.5 / self.spread**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(1 / self.spread))
        # by_branch is the posterior of the raters seen, at the grid before it moved
        mean = float((by_branch * grid[seen]).sum() / by_branch.sum()) / (1 + self.spread * cut)
        mean = float(np.clip(mean, 0.5, 2.0)) if by_branch.sum() > 1 else 1.0
        self.centre, self.width = self.centre / mean, self.width / mean
        return mean


# ---------------------------------------------------------------------------------------------- linear algebra


@dataclass
class _Curvature:
    """A positive definite matrix that solves: dense by Cholesky, sparse by conjugate gradients."""

    matrix: Any
    factor: Any = None
    root: Any = None
    """B with B B' the matrix, where it is sparse."""

    @staticmethod
    def of(matrix: Any, root: Any = None) -> _Curvature:
        if isinstance(matrix, np.ndarray):
            ridge = 0.0
            scale = float(np.abs(np.diag(matrix)).max())
            while True:
                try:
                    return _Curvature(matrix, cho_factor(matrix + ridge * np.eye(len(matrix)) if ridge else matrix, lower=True))
                except np.linalg.LinAlgError:
                    # far from the mode a shape parameter may curve the wrong way: damp (Levenberg 1944)
                    ridge = max(10 * ridge, 1e-8 * scale)
        return _Curvature(csr_array(matrix), root=root)

    def solve(self, right: Array) -> Array:
        if self.factor is not None:
            return cho_solve(self.factor, right)
        return _conjugate_gradients(self.matrix, right)

    def inverse_factor(self, rng: np.random.Generator, draws: int) -> Array:
        """F with F F' the inverse: exact when dense, else `draws` draws from it."""
        if self.factor is not None:
            return solve_triangular(self.factor[0], np.eye(len(self.factor[0])), lower=True, check_finite=False).T
        return _sampled_factor(self.matrix, self.root, rng, draws)


def _conjugate_gradients(A: csr_array, right: Array, *, tolerance: float = 1e-8, limit: int = 2000) -> Array:
    """Solve A X = B for all columns at once, with Jacobi preconditioning."""
    B = right[:, None] if right.ndim == 1 else right
    inverse = 1.0 / np.asarray(A.diagonal(), dtype=np.float64)[:, None]
    solution = np.zeros_like(B)
    residual = B.copy()
    z = inverse * residual
    direction = z.copy()
    rz = (residual * z).sum(0)
    target = tolerance**2 * np.maximum(rz, 1e-300)
    for _ in range(limit):
        Ad = A @ direction
        step = rz / np.maximum((direction * Ad).sum(0), 1e-300)
        solution += step * direction
        residual -= step * Ad
        z = inverse * residual
        new = (residual * z).sum(0)
        if (new <= target).all():
            break
        direction = z + (new / np.maximum(rz, 1e-300)) * direction
        rz = new
    return solution[:, 0] if right.ndim == 1 else solution


# ---------------------------------------------------------------------------------------------- result


@dataclass(frozen=True)
class Convergence:
    """How the optimiser ended."""

    converged: bool
    iterations: int
    decrement: float
    """sqrt(g' A^-1 g) at the end: the length of the last Newton step in standard errors of the step's own metric."""
    tolerance: float
    log_likelihood: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """An estimate with two 95% intervals: from the curvature (Laplace) and clustered by who answered (sandwich)."""

    name: str
    estimate: float
    se: float
    se_sandwich: float | None
    unit: str

    @property
    def low(self) -> float:
        return self.estimate - 1.96 * self.wider

    @property
    def high(self) -> float:
        return self.estimate + 1.96 * self.wider

    @property
    def wider(self) -> float:
        """The larger of the two standard errors: neither may be trusted to be too small."""
        return max(self.se, self.se_sandwich or 0.0)


@dataclass(frozen=True)
class Gaps:
    """What is known about utility gaps of n pairs, in logits."""

    mean: Array
    """(n,) gap for the mean person of the population."""
    ignorance: Array
    """(n,) posterior sd of that mean gap."""
    by_group: Array
    """(n, G) mean gap for each named group (one column for everyone)."""
    disagreement: Array
    """(n,) sd over people of the gap."""
    known: NDArray[np.bool_]
    """(n,) whether both responses are within what the fit can speak about."""
    share: Array
    """(G,) weight of each group in the population asked about."""


@dataclass(frozen=True)
class Fit:
    """A fitted feedback model: values of responses, people, raters, and how sure it is. Made by `fit`; saved and loaded whole."""

    spec: dict[str, Any]
    """Utility, people and observation as asked for."""
    basis: Basis
    groups: tuple[str, ...]
    """Names of the groups, in the order of `group_share`; ("everyone",) for Same."""
    loadings: Array
    """Z (n_groups + 1 if a judgment's group may be unknown, k)."""
    group_share: Array
    """(n named groups,) share of the raters (or of the judgments, where raters are not known)."""
    families: dict[str, Outcome]
    shapes: dict[str, slice]
    """Where each family's parameters sit in `shape`."""
    weights: Array
    """W (k, P)."""
    factor: Array
    """(k * P, r): covariance of W.ravel() is factor @ factor.T."""
    position: float
    shape: Array
    lapse: float
    """Probability of a random click."""
    parameters: tuple[Parameter, ...]
    raters: pl.DataFrame
    """Per rater: rater, n, slope, low, high, p_careful, p_careless, p_opposed, leniency, leniency_se."""
    slope_nodes: Array
    """(R + 1, Q) where each rater's slope was evaluated."""
    slope_weights: Array
    """(R + 1, Q): posterior of each rater's slope; the last row is that of a rater not seen before."""
    prior: dict[str, float]
    """Estimated prior strengths: sd per part of the values, spread and shares of the slopes, sd of leniency."""
    convergence: Convergence
    data: dict[str, Any]
    separates: bool
    """Whether noise and disagreement can be told apart (groups, and raters known by several judgments each)."""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        state = "" if self.convergence.converged else ", NOT CONVERGED"
        names = ", ".join(sorted({type(f).__name__ for f in self.families.values()}))
        return (
            f"Fit({self.spec['utility']['utility']}, {self.spec['people']['people']}, {names}; "
            f"{self.data['n_judgments']:,} judgments, {self.convergence.iterations} iterations{state})"
        )

    # ------------------------------------------------------------------ values

    def _population(self, group_weights: Mapping[str, float] | None) -> tuple[Array, Array]:
        """z of the mean person (k,), and the weight of each named group (G,)."""
        if group_weights is None:
            share = self.group_share
        else:
            share = np.array([float(group_weights.get(name, 0.0)) for name in self.groups])
            share = share / share.sum()
        return share @ self.loadings[: len(self.groups)], share

    def utilities(self, feedback: Feedback, *, group_weights: Mapping[str, float] | None = None, without: tuple[str, ...] = ()) -> Array:
        """(n_responses,) utility for the mean person, in logits; NaN where a response is not known.

        `without` names parts of the basis (style) that are not to count.
        """
        rows = self.basis.rows_for(feedback)
        z, _ = self._population(group_weights)
        return np.where(rows.known, rows.times((z @ self._kept(without))[:, None])[:, 0], np.nan)

    def ignorance(self, feedback: Feedback, *, group_weights: Mapping[str, float] | None = None, without: tuple[str, ...] = ()) -> Array:
        """(n_responses,) posterior sd of each response's utility for the mean person, in logits; NaN where not known."""
        rows = self.basis.rows_for(feedback)
        variance = (rows.times(self._seen_factor(group_weights, without)) ** 2).sum(1) + rows.new * self._new_variance
        return np.where(rows.known, np.sqrt(variance), np.nan)

    @property
    def _new_variance(self) -> float:
        """Variance that a new response has beyond its features."""
        return self.prior.get("residual_sd", 0.0) ** 2

    def _seen_factor(self, group_weights: Mapping[str, float] | None, without: tuple[str, ...]) -> Array:
        """(P, r) factor of the covariance of the mean person's weights, without the named parts."""
        z, _ = self._population(group_weights)
        k, P = self.weights.shape
        seen = np.tensordot(z, self.factor.reshape(k, P, -1), 1)
        for name, columns in self.basis.parts:
            if name in without:
                seen[columns] = 0.0
        return seen

    def _kept(self, without: tuple[str, ...]) -> Array:
        """W with the columns of the named parts set to 0."""
        weights = self.weights.copy()
        for name, columns in self.basis.parts:
            if name in without:
                weights[:, columns] = 0.0
        return weights

    def gaps(
        self,
        feedback: Feedback,
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        *,
        group_weights: Mapping[str, float] | None = None,
        without: tuple[str, ...] = (),
    ) -> Gaps:
        """Utility gaps left - right between responses of `feedback` (codes), with their ignorance and disagreement."""
        rows = self.basis.rows_for(feedback)
        _, share = self._population(group_weights)
        kept = self._kept(without)
        named = self.loadings[: len(self.groups)]
        values = rows.times(kept.T) @ named.T  # (n_responses, G)
        by_group = values[left] - values[right]
        seen = self._seen_factor(group_weights, without)
        placed = rows.times(seen)
        variance = np.empty(len(left))
        for start in range(0, len(left), 20_000):
            part = slice(start, start + 20_000)
            variance[part] = ((placed[left[part]] - placed[right[part]]) ** 2).sum(1)
        variance += (rows.new[left] + rows.new[right]) * self._new_variance
        mean = by_group @ share
        disagreement = np.sqrt(np.maximum((by_group**2) @ share - mean**2, 0.0))
        return Gaps(mean, np.sqrt(variance), by_group, disagreement, rows.known[left] & rows.known[right], share)

    def doubts(self, gaps: Gaps) -> pl.DataFrame:
        """The doubt about the next careful judgment of each pair, as shares of variance that add up.

        pbar (1 - pbar) = noise + disagreement + ignorance, by the law of total variance, at reference reliability (slope 1), no
        lapse and no position. Where noise and disagreement cannot be told apart both are null and
        `noise_and_disagreement` holds their sum. The integral over the posterior uses 15 Gauss-Hermite nodes of the mean gap,
        the gaps of the groups moving with it.
        """
        x, w = np.polynomial.hermite_e.hermegauss(15)
        w = w / w.sum()
        share = gaps.share
        s = 1 / (1 + np.exp(-(gaps.by_group[:, :, None] + gaps.ignorance[:, None, None] * x)))  # (n, G, nodes)
        over_people = np.einsum("ngq,g->nq", s, share)
        p = over_people @ w
        noise = np.einsum("ngq,g,q->n", s * (1 - s), share, w)
        disagreement = (np.einsum("ngq,g->nq", s**2, share) - over_people**2) @ w
        ignorance = (over_people**2) @ w - p**2
        apart = self.separates
        n = len(p)
        return pl.DataFrame(
            {
                "p": p,
                "noise": noise if apart else [None] * n,
                "disagreement": np.maximum(disagreement, 0.0) if apart else [None] * n,
                "noise_and_disagreement": [None] * n if apart else noise + np.maximum(disagreement, 0.0),
                "ignorance": np.maximum(ignorance, 0.0),
            },
            schema_overrides=dict.fromkeys(("noise", "disagreement", "noise_and_disagreement"), pl.Float64),
        )

    def support(self, feedback: Feedback) -> Array:
        """(n_responses,) how far the data, rather than the prior, speaks about each response: 1 - posterior / prior variance.

        0 means that nothing in the data bears on it; NaN that the response cannot be placed at all.
        """
        rows = self.basis.rows_for(feedback)
        k, P = self.weights.shape
        prior = np.zeros(P)
        for name, columns in self.basis.parts:
            prior[columns] = self.prior[f"{name}_sd"] ** 2
        posterior = (rows.times(self.factor.reshape(k, P, -1)[0]) ** 2).sum(1) + rows.new * self._new_variance
        squared = replace(rows, columns=None if rows.columns is None else rows.columns**2)
        before = squared.times(prior[:, None])[:, 0] + rows.new * self._new_variance
        return np.where(
            rows.outside,
            0.0,
            np.where(rows.known & (before > 0), np.clip(1 - posterior / np.where(before > 0, before, 1.0), 0.0, 1.0), np.nan),
        )

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> None:
        """Write fit.json and arrays.safetensors; `Fit.load` gives the same predictions."""
        from safetensors.numpy import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {
            "loadings": self.loadings, "group_share": self.group_share, "weights": self.weights, "factor": self.factor,
            "shape": self.shape, "slope_nodes": self.slope_nodes, "slope_weights": self.slope_weights,
        }  # fmt: skip
        for name in self.raters.columns[1:]:
            arrays[f"raters.{name}"] = self.raters[name].cast(pl.Float64).to_numpy()
        if self.basis.features is not None:
            arrays |= {f"features.{name}": value for name, value in self.basis.features.to_arrays().items()}
        # written by us, so that the file gets the permissions of its folder's other files
        (folder / "arrays.safetensors").write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
        features = self.basis.features
        record = {
            "seamark": "fit",
            "version": 1,
            "spec": self.spec,
            "groups": self.groups,
            "families": {name: outcome_to_dict(f) for name, f in self.families.items()},
            "shapes": {name: [s.start, s.stop] for name, s in self.shapes.items()},
            "position": self.position,
            "lapse": self.lapse,
            "parameters": [vars(p) for p in self.parameters],
            "rater_ids": self.raters["rater"].to_list(),
            "prior": self.prior,
            "convergence": vars(self.convergence),
            "data": self.data,
            "separates": self.separates,
            "notes": self.notes,
            "versions": self.versions,
            "basis": {
                "n_responses": self.basis.n_responses,
                "parts": [[name, s.start, s.stop] for name, s in self.basis.parts],
                "response_ids": self.basis.response_ids,
                "features": features.features if features else None,
                "style_names": features.style_names if features else [],
            },
        }
        (folder / "fit.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: str | Path) -> Fit:
        """Read what `save` wrote.

        Raises
        ------
        UnreadableSource
            If the folder does not hold a fit.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            record = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "arrays.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise UnreadableSource(
                str(folder), f"not a fitted model ({error})", "Give the fit/ folder that seamark fit or study wrote."
            ) from None
        b = record["basis"]
        features = None
        if b["features"] is not None:
            held = {name.removeprefix("features."): value for name, value in arrays.items() if name.startswith("features.")}
            features = FeatureMap.from_arrays(b["features"], b["style_names"], held)
        matrix = None if features is None else np.zeros((0, len(features.style_mean) + len(features.content_mean)))
        basis = Basis(b["n_responses"], matrix, tuple((n, slice(i, j)) for n, i, j in b["parts"]), features, tuple(b["response_ids"]))
        raters = pl.DataFrame(
            {"rater": pl.Series(record["rater_ids"], dtype=pl.String)}
            | {name.removeprefix("raters."): value for name, value in arrays.items() if name.startswith("raters.")}
        )
        convergence = record["convergence"] | {"notes": tuple(record["convergence"]["notes"])}
        return Fit(
            spec=record["spec"], basis=basis, groups=tuple(record["groups"]), loadings=arrays["loadings"], group_share=arrays["group_share"],
            families={name: outcome_from_dict(f) for name, f in record["families"].items()},
            shapes={name: slice(*s) for name, s in record["shapes"].items()},
            weights=arrays["weights"], factor=arrays["factor"], position=record["position"], shape=arrays["shape"], lapse=record["lapse"],
            parameters=tuple(Parameter(**p) for p in record["parameters"]),
            raters=raters.select("rater", *_RATER_COLUMNS), slope_nodes=arrays["slope_nodes"], slope_weights=arrays["slope_weights"],
            prior=record["prior"], convergence=Convergence(**convergence), data=record["data"], separates=record["separates"],
            notes=tuple(record["notes"]), versions=record["versions"],
        )  # fmt: skip


_RATER_COLUMNS = ("n", "slope", "low", "high", "p_careful", "p_careless", "p_opposed", "leniency", "leniency_se")


# ---------------------------------------------------------------------------------------------- fit


def fit(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-3,
    require_converged: bool = True,
    require_identified: bool = True,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """The feedback model: who values what, how reliable each rater is, how sure we are.

    Parameters
    ----------
    utility, people, observation
        The parts of the model. Left out: Linear on hashed n-grams where all responses have texts, else Tabular; Same; the
        outcome families of the kinds present, with reliability, position, leniency and lapse.
    tolerance
        Largest Newton decrement at the end, in standard errors.
    progress
        Called with (iteration, decrement).

    Raises
    ------
    NotConverged
        If the first-order condition does not hold in time, unless `require_converged` is False.
    NotIdentified
        If id-only responses fall in parts that no judgment connects, unless `require_identified` is False.
    """
    utility = utility or default_utility(feedback)
    people = people or Same()
    observation = observation or Observation()
    crowd = people.assign(feedback)
    design = build_design(feedback, observation, crowd)
    basis = utility.prepare(feedback)
    notes = list(design.notes)
    if basis.matrix is None:
        notes += _check_identified(feedback, design, require_identified)
    likelihood = Likelihood(design, basis, observation)
    seen = _judgments_per_rater(design)
    reliable = observation.with_effect(Reliability) and _reliability_is_learnable(seen)
    if observation.with_effect(Reliability) and not reliable:
        notes.append("rater reliability is not fitted: it needs at least 3 raters with 5 or more judgments each")
    slopes = _Slopes.start(design.n_raters, opposed=isinstance(people, Same)) if reliable else None
    state = _optimise(likelihood, slopes, seen > 0, max_iterations, tolerance, np.random.default_rng(seed), progress)
    if not state.convergence.converged and require_converged:
        raise NotConverged(state.convergence.iterations, state.convergence.decrement, tolerance)
    return _result(feedback, likelihood, state, utility, people, crowd.names, notes, seen, seed)


def _check_identified(feedback: Feedback, design: Design, required: bool) -> list[str]:
    """Id-only responses are meant to be compared with each other: their graph must hang together."""
    alone = feedback.responses["text"].is_null().to_numpy()
    if not alone.any():
        return []
    part = comparison_parts(design)[alone]
    names = np.array(feedback.responses["name"].to_list(), dtype=object)[alone]
    # responses that were only ever rated, or that meet within a prompt only, form parts by design of the data
    if feedback.n_prompts > 1 and not _shared_across_prompts(feedback):
        return []
    codes, counts = np.unique(part, return_counts=True)
    if len(codes) < 2:
        return []
    parts = []
    for code in codes[np.argsort(-counts)]:
        members = names[part == code]
        shown = ", ".join(str(m) for m in members[:4]) + (f", ... ({len(members)} responses)" if len(members) > 4 else "")
        parts.append("{" + shown + "}")
    if required:
        raise NotIdentified(
            parts, "Collect judgments across the parts, or fit each part on its own (require_identified=False sets each to mean 0)."
        )
    return [f"the comparison graph is cut in {len(codes)} parts; utilities are comparable within a part only"]


def _shared_across_prompts(feedback: Feedback) -> bool:
    """Whether some response is judged under several prompts."""
    pairs = feedback.judgments.select("prompt", "responses").explode("responses").drop_nulls("prompt").unique()
    return pairs.height > pairs["responses"].n_unique()


def _judgments_per_rater(design: Design) -> Array:
    total = np.zeros(design.n_raters + 1)
    for block in design.blocks:
        total += np.bincount(block.rater, weights=block.count, minlength=design.n_raters + 1)
    return total[:-1]


def _reliability_is_learnable(seen: Array) -> bool:
    return int((seen >= 5).sum()) >= 3


@dataclass
class _State:
    x: Array
    nodes: Nodes
    posterior: Array
    log_joint: Array
    information: _Curvature
    """Curvature with priors, given the slopes."""
    precision: Array
    variances: dict[str, float]
    slopes: _Slopes | None
    convergence: Convergence


def _parts(likelihood: Likelihood) -> list[tuple[str, NDArray[np.int64]]]:
    """Named index sets of x that share a prior variance to be estimated."""
    k, P = likelihood.design.loadings.shape[1], likelihood.basis.n_columns
    parts: list[tuple[str, NDArray[np.int64]]] = []
    for name, columns in likelihood.basis.parts:
        index = np.arange(P)[columns]
        parts.append((name, index))
        if k > 1 and name != "residual":
            parts.append((f"{name} of groups", np.concatenate([a * P + index for a in range(1, k)])))
    if likelihood.has_leniency:
        parts.append(("leniency", np.arange(likelihood.leniency.start, likelihood.leniency.stop)))
    return parts


def _log_sums(joint: Array) -> Array:
    """(R,) log of the sum over nodes of exp(joint)."""
    return np.asarray(logsumexp(joint, axis=1))


def _mean_square(basis: Basis, index: NDArray[np.int64]) -> float:
    """Mean over responses of the squared length of their columns in a part."""
    columns = np.unique(index % basis.n_columns)
    assert basis.matrix is not None
    inside = columns[columns < basis.matrix.shape[1]]
    return float((basis.matrix[:, inside] ** 2).sum(1).mean()) if len(inside) else 1.0


def _optimise(
    likelihood: Likelihood,
    slopes: _Slopes | None,
    seen: NDArray[np.bool_],
    max_iterations: int,
    tolerance: float,
    rng: np.random.Generator,
    progress: Callable[[int, float], None] | None,
) -> _State:
    size, free = likelihood.size, likelihood.free
    sparse = size > SPARSE and likelihood.basis.matrix is None
    parts = _parts(likelihood)
    x = np.zeros(size)
    centre = np.zeros(size)
    x[likelihood.shape] = centre[likelihood.shape] = likelihood.shape_start()
    precision = np.full(size, 1.0)  # position: sd 1 logit, an effect that moves 50% to 73%
    precision[likelihood.shape] = 0.25  # shape: sd 2 around the start
    if likelihood.observation.lapse:
        precision[size - 1] = 1.0
    variances: dict[str, float] = {}
    for name, index in parts:
        # start from utilities of about unit variance
        scale = 1.0 if likelihood.basis.matrix is None or name == "leniency" else _mean_square(likelihood.basis, index)
        variances[name] = 1.0 / max(scale, 1e-12)
        if "of groups" in name or name == "residual":
            variances[name] *= 0.1
        precision[index] = 1 / variances[name]

    def objective(x: Array, nodes: Nodes) -> tuple[float, Array, Array]:
        joint = likelihood.rater_log_likelihood(x, nodes) + nodes.log_prior
        marginal = _log_sums(joint)
        posterior = np.exp(joint - marginal[:, None])
        return float(marginal.sum() - 0.5 * (precision * (x - centre) ** 2).sum()), posterior, joint

    nodes = slopes.nodes() if slopes else Nodes.fixed(likelihood.design.n_raters)
    value, posterior, joint = objective(x, nodes)
    frozen, decrement, iteration, settled, rounds, hyper = False, np.inf, 0, 0, 0, np.zeros(0)
    curvature = _Curvature(np.eye(1))
    for iteration in range(1, max_iterations + 1):
        d = likelihood.derivatives(x, nodes, posterior, sparse=sparse)
        gradient = d.gradient - precision * (x - centre)
        information = d.information + (diags_array(precision).tocsr() if sparse else np.diag(precision))
        root = hstack([d.root, diags_array(np.sqrt(precision))]).tocsr() if sparse else None
        curvature = _Curvature.of(information if free.all() else information[np.ix_(free, free)], root)
        step = np.zeros(size)
        step[free] = curvature.solve(gradient[free])
        decrement = float(np.sqrt(max(gradient @ step, 0.0)))
        if progress is not None:
            progress(iteration, decrement)
        if frozen and decrement < tolerance:
            break
        length, moved = 1.0, False
        for _ in range(30):
            candidate = x + length * step
            new = objective(candidate, nodes)
            if new[0] >= value - 1e-10 * abs(value):
                x, (value, posterior, joint), moved = candidate, new, True
                break
            length /= 2
        if not moved:
            break
        if frozen or (decrement > _SETTLED and iteration < max_iterations // 2):
            # prior strengths are read off a mode, not off the way to it
            continue
        factor = _spread_rows(curvature.inverse_factor(rng, 32), free)
        inverse = (factor**2).sum(1)
        for name, index in parts:
            well_determined = float(np.clip(len(index) - inverse[index].sum() / variances[name], 1e-3 * len(index), len(index)))
            new_variance = float(np.clip((x[index] ** 2).sum() / well_determined, 1e-6, 1e4))
            variances[name] = new_variance
            precision[index] = 1 / new_variance
        if slopes is not None:
            mean = slopes.update(joint, seen)
            x[likelihood.values] *= mean
            for name, index in parts:
                if name != "leniency":
                    variances[name] *= mean**2
                    precision[index] = 1 / variances[name]
            if slopes.shares[2] > slopes.shares[0]:
                # the sign of the scale is the majority's
                x[likelihood.values] *= -1
                slopes.shares = slopes.shares[[2, 1, 0]]
                slopes.centre, slopes.width = slopes.centre[:, ::-1].copy(), slopes.width[:, ::-1].copy()
            nodes = slopes.nodes()
            # the utilities' own uncertainty, as a prior on the nodes; frozen with the other hyperparameters
            spread = likelihood.contrast_variances(mean * factor[: likelihood.n_values])
            nodes = Nodes(nodes.slope, nodes.log_prior + likelihood.uncertainty_offset(x, nodes, spread))
        value, posterior, joint = objective(x, nodes)
        now = [np.log(max(v, 1e-4)) for v in variances.values()] + ([*slopes.shares, np.log(slopes.spread)] if slopes else [])
        settled = settled + 1 if len(hyper) and np.abs(np.array(now) - hyper).max() < 0.05 else 0
        hyper = np.array(now)
        rounds += 1
        if settled >= 2 or rounds >= _ROUNDS or iteration >= max_iterations // 2:
            frozen = True
    # converged only if the loop ended by the first-order condition
    converged = frozen and decrement < tolerance
    return _State(
        x, nodes, posterior, joint, curvature, precision, variances, slopes,
        Convergence(converged, iteration, decrement, tolerance, float(_log_sums(joint).sum())),
    )  # fmt: skip


def _covariance(
    likelihood: Likelihood, state: _State, cluster: NDArray[np.int64] | None, rng: np.random.Generator
) -> tuple[Array, Array, Array | None, list[str]]:
    """(factor of the values' covariance, se of all parameters, sandwich se of all parameters or None, notes)."""
    notes: list[str] = []
    n_values = likelihood.n_values
    if likelihood.size > DENSE and likelihood.basis.matrix is None:
        factor = state.information.inverse_factor(rng, DRAWS // 4)
        se = np.sqrt((factor**2).sum(1))
        notes.append(
            f"uncertainty from {DRAWS // 4} draws, raters' slopes taken as known, no sandwich: {likelihood.size:,} parameters are too many for a dense covariance"
        )
        return factor[:n_values], se, None, notes
    free = likelihood.free
    observed, meat = likelihood.score_products(state.x, state.nodes, state.posterior, cluster)
    expected = likelihood.derivatives(state.x, state.nodes, state.posterior, sparse=False).information
    if not free.all():
        observed, meat, expected = observed[np.ix_(free, free)], meat[np.ix_(free, free)], expected[np.ix_(free, free)]
    expected[np.diag_indices_from(expected)] += state.precision[free]
    np.subtract(expected, observed, out=observed)
    try:
        lower = np.linalg.cholesky(observed)
    except np.linalg.LinAlgError:
        notes.append("the observed information is not positive definite; intervals use the expected one, which is too sure")
        lower = np.linalg.cholesky(expected)
    del observed, expected
    # cov = L^-T L^-1, so L^-T is a factor of it
    factor = solve_triangular(lower, np.eye(len(lower)), lower=True, overwrite_b=True, check_finite=False).T
    del lower
    se = np.sqrt((factor**2).sum(1))
    # diag(F (F' M F) F')
    inner = factor.T @ meat @ factor
    sandwich = np.sqrt(np.maximum(((factor @ inner) * factor).sum(1), 0.0))
    del inner, meat
    factor, se, sandwich = _spread_rows(factor, free), _spread_rows(se, free), _spread_rows(sandwich, free)
    values = factor[:n_values]
    if n_values > EXACT:
        values = values @ rng.standard_normal((values.shape[1], DRAWS)) / np.sqrt(DRAWS)
        notes.append(f"the covariance of {n_values:,} values is kept as {DRAWS} draws")
    return values, se, sandwich, notes


def _spread_rows(values: Array, free: NDArray[np.bool_]) -> Array:
    """Rows for all parameters from rows for the free ones; fixed parameters have none of the variance."""
    if free.all():
        return values
    out = np.zeros((len(free), *values.shape[1:]))
    out[free] = values
    return out


def _sampled_factor(A: csr_array, root: csr_array, rng: np.random.Generator, draws: int) -> Array:
    """Draws from N(0, A^-1), scaled so that F F' estimates it: solve A z = B e, where B B' = A and e is white.

    Source: Papandreou & Yuille 2010 (perturb and solve).
    """
    size, width_of_noise = A.shape[0], root.shape[1]  # type: ignore[index]  # scipy types the shape as optional
    out = np.empty((size, draws))
    for start in range(0, draws, 32):
        width = min(32, draws - start)
        out[:, start : start + width] = _conjugate_gradients(A, root @ rng.standard_normal((width_of_noise, width)), tolerance=1e-4)
    return out / np.sqrt(draws)


def _result(
    feedback: Feedback, likelihood: Likelihood, state: _State, utility: Utility, people: People, names: tuple[str, ...],
    notes: list[str], seen: Array, seed: int,
) -> Fit:  # fmt: skip
    design, basis, observation = likelihood.design, likelihood.basis, likelihood.observation
    rng = np.random.default_rng(seed + 1)
    prompts = feedback.responses["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()
    known = design.n_raters >= 2 and float(seen.sum()) > 0.5 * design.n_judgments
    cluster = None if known else prompts
    factor, se, sandwich, more = _covariance(likelihood, state, cluster, rng)
    notes += more
    k, P = design.loadings.shape[1], basis.n_columns
    x = state.x
    if sandwich is not None and (design.n_raters if known else feedback.n_prompts) < 10:
        sandwich = None
        notes.append("no sandwich interval: fewer than 10 raters, or prompts where raters are not known")

    def parameter(name: str, index: int, unit: str = "logits") -> Parameter:
        return Parameter(name, float(x[index]), float(se[index]), None if sandwich is None else float(sandwich[index]), unit)

    parameters: list[Parameter] = []
    if likelihood.has_position:
        parameters.append(parameter("position", likelihood.shifts.start))
    for c in likelihood.cells:
        for offset, name in enumerate(c.block.family.names):
            parameters.append(parameter(f"{c.block.name}: {name}", likelihood.shape.start + c.shape.start + offset, "logits"))
    if observation.lapse:
        parameters.append(parameter("lapse (log odds)", likelihood.size - 1))
    if basis.features is not None:
        for column, name in enumerate(basis.features.style_names):
            if np.isfinite(basis.features.style_sd[column]):
                parameters.append(parameter(f"style: {name}", column, "logits per sd"))
    named = tuple(n for n in names if n)
    group = np.concatenate([c.group for c in likelihood.cells])
    count = np.concatenate([c.block.count for c in likelihood.cells])
    rater = np.concatenate([c.block.rater for c in likelihood.cells])
    # one person, one vote: a group weighs as many raters as it has; without raters, as many judgments
    if known:
        pairs = np.unique(np.stack([rater, group]), axis=1)
        share = np.bincount(pairs[1], minlength=len(names))[: len(named)].astype(float)
    else:
        share = np.bincount(group, weights=count, minlength=len(names))[: len(named)]
    nodes, posterior = state.nodes, state.posterior.copy()
    if state.slopes is not None:
        # a rater not seen before: the prior, on a grid of its own
        fresh = state.slopes.unseen()
        weights = np.exp(fresh.log_prior[0])
        nodes = Nodes(np.vstack([nodes.slope[:-1], fresh.slope[:1]]), nodes.log_prior)
        posterior[-1] = weights / weights.sum()
    prior = {f"{name}_sd": float(np.sqrt(v)) for name, v in state.variances.items()}
    if state.slopes is not None:
        prior |= {"slope_spread": state.slopes.spread} | {f"share {n}": float(s) for n, s in zip(SHARES, state.slopes.shares, strict=True)}
    repeated = known and float(np.median(seen[seen > 0])) >= 2
    return Fit(
        spec={"utility": utility.to_dict(), "people": people.to_dict(), "observation": observation.to_dict(), "seed": seed},
        basis=basis,
        groups=named,
        loadings=design.loadings,
        group_share=share / share.sum(),
        families={c.block.name: c.block.family for c in likelihood.cells},
        shapes={c.block.name: c.shape for c in likelihood.cells},
        weights=x[likelihood.values].reshape(k, P),
        factor=factor,
        position=float(x[likelihood.shifts.start]) if likelihood.has_position else 0.0,
        shape=x[likelihood.shape],
        lapse=float(1 / (1 + np.exp(-x[-1]))) if observation.lapse else 0.0,
        parameters=tuple(parameters),
        raters=_rater_table(feedback, likelihood, state, seen, se),
        slope_nodes=nodes.slope,
        slope_weights=posterior,
        prior=prior,
        convergence=state.convergence,
        data={
            "fingerprint": feedback.fingerprint,
            "n_judgments": feedback.n_judgments,
            "n_responses": feedback.n_responses,
            "n_prompts": feedback.n_prompts,
            "n_raters": feedback.n_raters,
            "left_out": dict(design.left_out),
            "clustered_by": "rater" if known else "prompt",
        },
        separates=isinstance(people, Groups) and repeated,
        notes=tuple(notes),
        versions={name: version(name) for name in ("seamark", "numpy", "scipy", "polars", "torch")} | {"python": platform.python_version()},
    )


def _rater_table(feedback: Feedback, likelihood: Likelihood, state: _State, seen: Array, se: Array) -> pl.DataFrame:
    R = likelihood.design.n_raters
    slope, posterior = state.nodes.slope[:R], state.posterior[:R]
    nothing = np.full(R, np.nan)
    if state.slopes is not None:
        mean = (slope * posterior).sum(1)
        order = np.argsort(slope, axis=1)
        ordered, weight = np.take_along_axis(slope, order, 1), np.take_along_axis(posterior, order, 1)
        reached = np.cumsum(weight, 1)
        low = ordered[np.arange(R), np.minimum((reached < 0.025).sum(1), slope.shape[1] - 1)] if R else nothing
        high = ordered[np.arange(R), np.minimum((reached < 0.975).sum(1), slope.shape[1] - 1)] if R else nothing
        careless, careful = posterior[:, 0], posterior[:, 1 : 1 + _GRID].sum(1)
        opposed = posterior[:, 1 + _GRID :].sum(1)
    else:
        mean = low = high = careless = careful = opposed = nothing
    leniency = state.x[likelihood.leniency] if likelihood.has_leniency else nothing
    leniency_se = se[likelihood.leniency] if likelihood.has_leniency else nothing
    columns = (seen, mean, low, high, careful, careless, opposed, leniency, leniency_se)
    return pl.DataFrame(
        {"rater": feedback.raters["id"]} | {name: np.asarray(c, dtype=float) for name, c in zip(_RATER_COLUMNS, columns, strict=True)}
    )
