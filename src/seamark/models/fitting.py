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
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import brentq
from scipy.sparse import csr_array, hstack
from scipy.special import logsumexp

from seamark.errors import InvalidSetting, NotConverged, NotIdentified, UnreadableSource
from seamark.models.curvature import DENSE, DRAWS, Blocks, Components, Dense, Iterative, Solver, make_solver, spread
from seamark.models.design import Design, build_design, comparison_parts
from seamark.models.likelihood import Derivatives, Likelihood, Nodes
from seamark.models.observation import Observation, Outcome, Reliability, outcome_from_dict, outcome_to_dict
from seamark.models.people import Groups, People, Same
from seamark.models.slopes import GRID, SHARES, Slopes
from seamark.models.utility import Basis, FeatureMap, Utility, default_utility, squared_rows
from seamark.outputs import whole_folder
from seamark.records import Feedback, require_usable

Array = NDArray[np.float64]

_ROUNDS = 15
"""Most updates of the hyperparameters; they usually settle, to 5% of a variance, in 5 to 15."""
_SETTLED = 0.1
"""Hyperparameters move only while the Newton decrement is below this, in standard errors."""
_KEPT = 512
"""Draws that stand for a covariance of more than DENSE values (3% error of a standard deviation)."""
_PARTS_NAMED = 20
"""Parts of a cut comparison graph that the error lists, the largest first."""
_VAGUE = 1.5
"""Prior sd of the logarithm of a prior variance: a factor of 20 either way is likely enough."""
_STALE = 4
"""With features, the curvature of the values is worked out afresh after this many steps, and at the start and the end."""

# ---------------------------------------------------------------------------------------------- result


@dataclass(frozen=True)
class Convergence:
    """How the optimiser ended."""

    converged: bool
    iterations: int
    decrement: float
    """sqrt(g' A^-1 g / size) at the end: root mean square of the last Newton step, in standard errors of the step's own metric."""
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
class Comparison:
    """What a fit says about two responses. Doubts in logits can move alone; their shares of the variance add up to 1."""

    p: float
    """Probability that a person drawn from the population prefers the first, answering carefully once."""
    low: float
    """p at the 2.5% and 97.5% ends of the posterior of the mean gap: an interval for ignorance alone."""
    high: float
    gap: float
    """Utility gap for the mean person, in logits."""
    ignorance: float
    """Posterior sd of that gap: what more judgments would lower."""
    disagreement: float | None
    """Sd over people of the gap; None where the data cannot tell it from noise."""
    response_noise: float
    """Sd, in logits, of what an answer of a typical rater adds to the gap: pi / sqrt(3) for a careful one without lapses."""
    shares: dict[str, float | None]
    """noise, disagreement, ignorance (or noise_and_disagreement): shares of p (1 - p)."""


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
    factor: Array | csr_array
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
        variance = squared_rows(rows.times(self._seen_factor(group_weights, without))) + rows.new * self._new_variance
        return np.where(rows.known, np.sqrt(variance), np.nan)

    @property
    def _new_variance(self) -> float:
        """Variance that a new response has beyond its features."""
        return self.prior.get("residual_sd", 0.0) ** 2

    def factor_for(self, z: Array) -> Any:
        """(P, r), sparse or dense: factor of the covariance of the weights of a person with these loadings (k,)."""
        P = self.weights.shape[1]
        return sum(z[a] * self.factor[a * P : (a + 1) * P] for a in np.flatnonzero(z))

    def _seen_factor(self, group_weights: Mapping[str, float] | None, without: tuple[str, ...]) -> Any:
        """(P, r) factor of the covariance of the mean person's weights, without the named parts."""
        z, _ = self._population(group_weights)
        seen = self.factor_for(z)
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
            variance[part] = squared_rows(placed[left[part]] - placed[right[part]])
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

    def compare(self, a: str, b: str, *, prompt: str | None = None, group_weights: Mapping[str, float] | None = None) -> Comparison:
        """How likely a person drawn from the population prefers `a` to `b`, and what the doubt about it is made of.

        `a` and `b` are texts (under `prompt`, where they were judged under one), or ids of responses without text.

        Raises
        ------
        InvalidSetting
            If the fit can say nothing about one of them: a table knows its own responses only.
        """
        named = self.basis.features is None and not self._knows_texts(a, b, prompt)
        asked = Feedback.from_columns({"kind": ["pair"], "ids" if named else "texts": [[a, b]], "prompt": [prompt], "outcome": ["left"]})
        codes = np.array([asked.judgments["responses"][0]]).T
        known = self.basis.rows_for(asked).known[codes[:, 0]]
        for given, found in zip((a, b), known, strict=True):
            if not found:
                raise InvalidSetting("compare", given, "It is not among the responses fitted; a Linear fit can speak about new texts.")
        gaps = self.gaps(asked, codes[0], codes[1], group_weights=group_weights)
        row = self.doubts(gaps).row(0, named=True)
        p = row.pop("p")
        move = 1.96 * gaps.ignorance[0]
        low, high = (float(gaps.share @ (1 / (1 + np.exp(-(gaps.by_group[0] + step))))) for step in (-move, move))
        slope = self.slope_nodes[:-1] * self.slope_weights[:-1]
        typical = (1 - self.lapse) * (float(np.abs(slope.sum(1)).mean()) if len(slope) else 1.0)
        return Comparison(
            p, low, high, float(gaps.mean[0]), float(gaps.ignorance[0]), float(gaps.disagreement[0]) if self.separates else None,
            float(np.pi / np.sqrt(3) / max(typical, 1e-9)), {name: v if v is None else v / (p * (1 - p)) for name, v in row.items()},
        )  # fmt: skip

    def _knows_texts(self, a: str, b: str, prompt: str | None) -> bool:
        asked = Feedback.from_columns({"kind": ["pair"], "texts": [[a, b]], "prompt": [prompt], "outcome": ["left"]})
        return bool(self.basis.rows_for(asked).known.all())

    def support(self, feedback: Feedback) -> Array:
        """(n_responses,) how far the data, rather than the prior, speaks about each response: 1 - posterior / prior variance.

        0 means that nothing in the data bears on it; NaN that the response cannot be placed at all.
        """
        rows = self.basis.rows_for(feedback)
        P = self.weights.shape[1]
        prior = np.zeros(P)
        for name, columns in self.basis.parts:
            prior[columns] = self.prior[f"{name}_sd"] ** 2
        posterior = squared_rows(rows.times(self.factor[:P])) + rows.new * self._new_variance
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

        arrays: dict[str, NDArray[Any]] = {
            "loadings": self.loadings, "group_share": self.group_share, "weights": self.weights,
            "shape": self.shape, "slope_nodes": self.slope_nodes, "slope_weights": self.slope_weights,
        }  # fmt: skip
        if isinstance(self.factor, csr_array):
            parts = {"data": self.factor.data, "indices": self.factor.indices, "indptr": self.factor.indptr}
            arrays |= {f"factor.{name}": value for name, value in parts.items()} | {"factor.shape": np.array(self.factor.shape)}
        else:
            arrays["factor"] = self.factor
        for name in self.raters.columns[1:]:
            arrays[f"raters.{name}"] = self.raters[name].cast(pl.Float64).to_numpy()
        if self.basis.features is not None:
            arrays |= {f"features.{name}": value for name, value in self.basis.features.to_arrays().items()}
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
        with whole_folder(Path(folder), mark="fit.json") as fresh:
            # written by us, so that the file gets the permissions of its folder's other files
            (fresh / "arrays.safetensors").write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
            (fresh / "fit.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")

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
            weights=arrays["weights"], factor=_stored_factor(arrays), position=record["position"], shape=arrays["shape"], lapse=record["lapse"],
            parameters=tuple(Parameter(**p) for p in record["parameters"]),
            raters=raters.select("rater", *_RATER_COLUMNS), slope_nodes=arrays["slope_nodes"], slope_weights=arrays["slope_weights"],
            prior=record["prior"], convergence=Convergence(**convergence), data=record["data"], separates=record["separates"],
            notes=tuple(record["notes"]), versions=record["versions"],
        )  # fmt: skip


def _stored_factor(arrays: Mapping[str, NDArray[Any]]) -> Array | csr_array:
    if "factor" in arrays:
        return arrays["factor"]
    parts = (arrays["factor.data"], arrays["factor.indices"], arrays["factor.indptr"])
    return csr_array(parts, shape=tuple(arrays["factor.shape"].tolist()))


_RATER_COLUMNS = ("n", "slope", "low", "high", "p_careful", "p_careless", "p_opposed", "leniency", "leniency_se")


# ---------------------------------------------------------------------------------------------- fit


def fit(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
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
        Largest root mean square of a Newton step at the end, in standard errors.
    progress
        Called with (iteration, decrement).

    Raises
    ------
    NotConverged
        If the first-order condition does not hold in time, unless `require_converged` is False.
    NotIdentified
        If id-only responses fall in parts that no judgment connects, unless `require_identified` is False.
    """
    require_usable(feedback)
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
    slopes = Slopes.start(design.n_raters, opposed=isinstance(people, Same)) if reliable else None
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
    if required:
        parts = []
        for code in codes[np.argsort(-counts)][:_PARTS_NAMED]:
            members = names[part == code]
            shown = ", ".join(str(m) for m in members[:4]) + (f", ... ({len(members)} responses)" if len(members) > 4 else "")
            parts.append("{" + shown + "}")
        if len(codes) > _PARTS_NAMED:
            parts.append(f"and {len(codes) - _PARTS_NAMED:,} more")
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
    precision: Array
    variances: dict[str, float]
    slopes: Slopes | None
    components: Components | None
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


@dataclass
class _Search:
    """Where the search for the mode stands: the point, its priors, the posterior of the slopes there."""

    likelihood: Likelihood
    slopes: Slopes | None
    x: Array
    centre: Array
    precision: Array
    variances: dict[str, float]
    usual: dict[str, float]
    """Prior variances that the search starts from."""
    parts: list[tuple[str, NDArray[np.int64]]]
    nodes: Nodes
    moves: dict[str, float] = field(default_factory=dict)
    """Last move of the logarithm of each variance."""
    value: float = -np.inf
    posterior: Array = field(default_factory=lambda: np.zeros((0, 0)))
    log_joint: Array = field(default_factory=lambda: np.zeros((0, 0)))

    @staticmethod
    def start(likelihood: Likelihood, slopes: Slopes | None) -> _Search:
        size = likelihood.size
        x, centre = np.zeros(size), np.zeros(size)
        x[likelihood.shape] = centre[likelihood.shape] = likelihood.shape_start()
        precision = np.full(size, 1.0)  # position: sd 1 logit, an effect that moves 50% to 73%
        precision[likelihood.shape] = 0.25  # shape: sd 2 around the start
        if likelihood.observation.lapse:
            precision[size - 1] = 1.0
        parts = _parts(likelihood)
        usual = {name: _usual_variance(likelihood, name, index) for name, index in parts}
        nodes = slopes.nodes() if slopes else Nodes.fixed(likelihood.design.n_raters)
        search = _Search(likelihood, slopes, x, centre, precision, dict(usual), usual, parts, nodes)
        search._set_precision()
        search.look()
        return search

    def _set_precision(self) -> None:
        for name, index in self.parts:
            self.precision[index] = 1 / self.variances[name]

    def objective(self, x: Array, posterior: Array | None = None) -> tuple[float, Array, Array]:
        """(log posterior with slopes integrated out, posterior of the slopes, log joint)."""
        if self.slopes is None:
            joint = self.likelihood.rater_log_likelihood(x, self.nodes)
            value, posterior = float(joint.sum()), np.ones_like(joint)
        else:
            joint = self.likelihood.rater_log_likelihood(x, self.nodes, posterior) + self.nodes.log_prior
            marginal = _log_sums(joint)
            value, posterior = float(marginal.sum()), np.exp(joint - marginal[:, None])
        return value - 0.5 * float((self.precision * (x - self.centre) ** 2).sum()), posterior, joint

    def look(self) -> None:
        """Evaluate where we stand, at all nodes."""
        self.value, self.posterior, self.log_joint = self.objective(self.x)

    def advance(self, step: Array) -> bool:
        """Go along the step, halving it until the objective does not fall; False where it always does."""
        length = 1.0
        for _ in range(30):
            candidate = self.x + length * step
            # a short step moves little of the slopes' posterior: nodes that carry none of it are left out
            value, posterior, joint = self.objective(candidate, self.posterior)
            if value >= self.value - 1e-10 * abs(self.value):
                self.x, self.value, self.posterior, self.log_joint = candidate, value, posterior, joint
                return True
            length /= 2
        return False

    def update_priors(self, solver: Solver) -> None:
        """Prior variances towards the maximum of the marginal likelihood: MacKay 1992, equation 4.20.

        He takes the curvature as fixed. That is right for a mean-field posterior, which values and slopes have together; for values
        alone the marginal likelihood is Laplace's, and lacks a term (`_falls`).
        """
        variance = solver.variances()
        falls = {} if self.slopes else self._falls(solver)
        for name, index in self.parts:
            undetermined = variance[index].sum() / self.variances[name]
            well_determined = float(np.clip(len(index) - undetermined, 1e-3 * len(index), len(index)))
            well_determined = max(well_determined + falls.get(name, 0.0), 0.1 * well_determined)
            new = _weighed(float((self.x[index] ** 2).sum()), well_determined, self.usual[name])
            self.variances[name] = self._ahead(name, np.log(new / self.variances[name]))
        self._set_precision()

    def _falls(self, solver: Solver) -> dict[str, float]:
        """Per part, tr(A^-1 dA/dx dx/dlog v): how log |A| changes with the prior variance because the mode moves, by dx = A^-1 x / v.

        The curvature of a choice falls as gaps grow. Left out, a prior sd of 1 is estimated as .88 from 20 judgments a response,
        and everything is pulled too far towards 0 (the bias of penalised quasi-likelihood, Breslow & Lin 1995).
        """
        doubt = solver.traced(self.likelihood)
        here = self.likelihood.edge_curvature(self.x, self.nodes, self.posterior)
        falls: dict[str, float] = {}
        for name, index in self.parts:
            pull = np.zeros_like(self.x)
            pull[index] = self.precision[index] * self.x[index]
            along = solver.solve(pull)
            size = np.sqrt((along**2).mean())
            if size > 0:
                ahead = self.likelihood.edge_curvature(self.x + 1e-3 / size * along, self.nodes, self.posterior)
                falls[name] = float(doubt @ (ahead - here)) * size / 1e-3
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

    def update_slopes(self, solver: Solver, seen: NDArray[np.bool_], rng: np.random.Generator) -> None:
        """Shares and spread by EM; then the values' own uncertainty as a prior on the nodes."""
        assert self.slopes is not None
        likelihood, slopes = self.likelihood, self.slopes
        self.look()
        mean = slopes.update(self.log_joint, seen)
        self.x[likelihood.values] *= mean
        for name in self.variances:
            if name != "leniency":
                self.variances[name] *= mean**2
        self._set_precision()
        if slopes.shares[2] > slopes.shares[0]:
            # the sign of the scale is the majority's
            self.x[likelihood.values] *= -1
            slopes.turn()
        self.nodes = slopes.nodes()
        _, posterior, _ = self.objective(self.x)
        offset = likelihood.uncertainty_offset(self.x, self.nodes, mean**2 * solver.gap_variances(likelihood, rng), posterior)
        self.nodes = Nodes(self.nodes.slope, self.nodes.log_prior + offset)

    @property
    def slack(self) -> float:
        """How little a log variance may still move: half the precision that its part's parameters give it, 5% at most."""
        return min(0.05, 0.5 * np.sqrt(2 / max(len(index) for _, index in self.parts)))

    def hyper(self) -> Array:
        slopes = [*self.slopes.shares, np.log(self.slopes.spread)] if self.slopes else []
        return np.array([np.log(max(v, 1e-4)) for v in self.variances.values()] + slopes)


@dataclass
class _Memory:
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
    """The v at which squares / v = well_determined + 2 log(v / usual) / _VAGUE^2: MacKay's, with a vague log-normal prior on v.

    Without one, little data ends in a variance of 0, that is in being certain that nothing matters.
    """

    def excess(log_v: float) -> float:
        return well_determined + 2 * log_v / _VAGUE**2 - squares / usual * np.exp(-log_v)

    log_v = brentq(excess, -40, 40)
    assert isinstance(log_v, float)
    return usual * float(np.exp(log_v))


def _usual_variance(likelihood: Likelihood, name: str, index: NDArray[np.int64]) -> float:
    """Prior variance of a part's parameters that gives utilities a variance of about 1, a tenth of that what is beside a main part."""
    scale = 1.0 if likelihood.basis.matrix is None or name == "leniency" else _mean_square(likelihood.basis, index)
    return (0.1 if "of groups" in name or name == "residual" else 1.0) / max(scale, 1e-12)


def _optimise(
    likelihood: Likelihood,
    slopes: Slopes | None,
    seen: NDArray[np.bool_],
    max_iterations: int,
    tolerance: float,
    rng: np.random.Generator,
    progress: Callable[[int, float], None] | None,
) -> _State:
    search = _Search.start(likelihood, slopes)
    frozen, decrement, iteration, settled, rounds, hyper = False, np.inf, 0, 0, 0, np.zeros(0)
    components: Components | None = None
    solver: Solver | None = None
    derivatives: Derivatives | None = None
    memory, age = _Memory(), 0
    for iteration in range(1, max_iterations + 1):
        lent = derivatives if likelihood.basis.matrix is not None and 0 < age < _STALE and iteration > 3 else None
        derivatives = likelihood.derivatives(search.x, search.nodes, search.posterior, stale=lent)
        age = age + 1 if lent else 1
        if components is None and likelihood.basis.matrix is None:
            components = Components(derivatives.values)
        gradient = derivatives.gradient - search.precision * (search.x - search.centre)
        if solver is None or not frozen or not lent:  # priors move no more: a matrix that is lent is also factored already
            solver = make_solver(likelihood, derivatives, search.precision, components, rng)
        plain = solver.solve(gradient)
        decrement = float(np.sqrt(max(gradient @ plain, 0.0) / len(plain)))
        step = memory.step(search.x, gradient, solver) if frozen else plain
        if progress is not None:
            progress(iteration, decrement)
        if frozen and decrement < tolerance:
            search.look()
            break
        if not search.advance(step):
            if not lent and not memory.pairs:
                break
            memory, age = _Memory(), 0  # the lent curvature was too old, or memory misled
            continue
        if frozen or (decrement > _SETTLED and iteration < max_iterations // 2):
            # prior strengths are read off a mode, not off the way to it
            continue
        search.update_priors(solver)
        if slopes is not None:
            search.update_slopes(solver, seen, rng)
        search.look()
        now = search.hyper()
        settled = settled + 1 if len(hyper) and np.abs(now - hyper).max() < search.slack else 0
        hyper = now
        rounds += 1
        if settled >= (2 if slopes else 1) or rounds >= _ROUNDS or iteration >= max_iterations // 2:
            frozen, age = True, 0
    # converged only if the loop ended by the first-order condition
    converged = frozen and decrement < tolerance
    return _State(
        search.x, search.nodes, search.posterior, search.precision, search.variances, slopes, components,
        Convergence(converged, iteration, decrement, tolerance, float(_log_sums(search.log_joint).sum())),
    )  # fmt: skip


def _covariance(
    likelihood: Likelihood, state: _State, cluster: NDArray[np.int64] | None, rng: np.random.Generator
) -> tuple[Array | csr_array, Array, Array | None, list[str]]:
    """(factor of the values' covariance, se of all parameters, sandwich se of all parameters or None, notes)."""
    derivatives = likelihood.derivatives(state.x, state.nodes, state.posterior)
    solver = make_solver(likelihood, derivatives, state.precision, state.components, rng)
    if isinstance(solver, Dense):
        return _dense_covariance(likelihood, state, solver.matrix, cluster, rng)
    if isinstance(solver, Iterative):
        factor = solver.values_factor(rng, DRAWS)
        se = np.concatenate([np.sqrt((factor**2).sum(1)), np.sqrt(solver.variances()[likelihood.n_values :])])
        note = (
            f"uncertainty from {DRAWS} draws, raters' slopes taken as known, no sandwich: {likelihood.size:,} parameters that hang together"
        )
        return factor, se, None, [note]
    notes: list[str] = []
    if state.slopes is not None:
        # the slopes join the border, so that not knowing them widens what depends on them (Louis 1982)
        C, precision = likelihood.slope_border(state.x, state.nodes, state.posterior)
        n = likelihood.n_values
        corner = np.block([[solver.corner, C[n:].toarray()], [C[n:].T.toarray(), np.diag(precision)]])
        solver = Blocks(solver.components, solver.values, csr_array(hstack([solver.border, C[:n]])), corner)
    factor = solver.values_factor(rng)
    se = np.sqrt(solver.variances()[: likelihood.size])
    shared = np.array(
        [
            *range(likelihood.n_values, likelihood.n_values + int(likelihood.has_position)),
            *range(*likelihood.shape.indices(likelihood.size)),
        ]
    )
    sandwich = np.full(likelihood.size, np.nan)
    if len(shared):
        scores = likelihood.cluster_scores(state.x, state.nodes, state.posterior, cluster)
        rows = solver.rows(shared - likelihood.n_values)[:, : likelihood.size]
        sandwich[shared] = np.sqrt(((scores @ rows.T) ** 2).sum(0))
    notes.append(f"no sandwich for the {likelihood.n_values:,} values, which are too many")
    return factor, se, sandwich, notes


def _dense_covariance(
    likelihood: Likelihood, state: _State, expected: Array, cluster: NDArray[np.int64] | None, rng: np.random.Generator
) -> tuple[Array, Array, Array, list[str]]:
    """The same where everything fits in one matrix (over the free parameters)."""
    notes: list[str] = []
    free = likelihood.free
    observed, meat = likelihood.score_products(state.x, state.nodes, state.posterior, cluster)
    if not free.all():
        observed, meat = observed[np.ix_(free, free)], meat[np.ix_(free, free)]
    np.subtract(expected, observed, out=observed)
    try:
        lower = np.linalg.cholesky(observed)
    except np.linalg.LinAlgError:
        notes.append("the observed information is not positive definite; intervals use the expected one, which is too sure")
        lower = np.linalg.cholesky(expected)
    del observed
    # cov = L^-T L^-1, so L^-T is a factor of it
    factor = solve_triangular(lower, np.eye(len(lower)), lower=True, overwrite_b=True, check_finite=False).T
    del lower
    se = np.sqrt((factor**2).sum(1))
    # diag(F (F' M F) F')
    inner = factor.T @ meat @ factor
    sandwich = np.sqrt(np.maximum(((factor @ inner) * factor).sum(1), 0.0))
    del inner, meat
    values = spread(factor, free)[: likelihood.n_values]
    if values.shape[1] > DENSE:
        values = values @ rng.standard_normal((values.shape[1], _KEPT)) / np.sqrt(_KEPT)
        notes.append(f"the covariance of {likelihood.n_values:,} values is kept as {_KEPT} draws")
    return values, spread(se, free), spread(sandwich, free), notes


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
        return Parameter(
            name, float(x[index]), float(se[index]), None if sandwich is None or np.isnan(sandwich[index]) else float(sandwich[index]), unit
        )

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
        versions=_versions(),
    )


@cache
def _versions() -> dict[str, str]:
    """What the fit was made with; reading it takes longer than a small fit."""
    return {name: version(name) for name in ("seamark", "numpy", "scipy", "polars", "torch")} | {"python": platform.python_version()}


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
        careless, careful = posterior[:, 0], posterior[:, 1 : 1 + GRID].sum(1)
        opposed = posterior[:, 1 + GRID :].sum(1)
    else:
        mean = low = high = careless = careful = opposed = nothing
    leniency = state.x[likelihood.leniency] if likelihood.has_leniency else nothing
    leniency_se = se[likelihood.leniency] if likelihood.has_leniency else nothing
    columns = (seen, mean, low, high, careful, careless, opposed, leniency, leniency_se)
    return pl.DataFrame(
        {"rater": feedback.raters["id"]} | {name: np.asarray(c, dtype=float) for name, c in zip(_RATER_COLUMNS, columns, strict=True)}
    )
