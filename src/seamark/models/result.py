"""`Fit`: what a fit found, frozen: values, people, raters, how sure it is of each, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from seamark.errors import InvalidSetting, UnreadableSource
from seamark.models.effects import Covariate
from seamark.models.observation import Outcome, outcome_from_dict, outcome_to_dict
from seamark.models.people import Factor, columns_of, parts_of
from seamark.models.shifts import Shift
from seamark.models.utility import Basis, Rows, squared_rows
from seamark.outputs import whole_folder
from seamark.records import Feedback

Array = NDArray[np.float64]

At = Mapping[str, str | Mapping[str, float]]
"""The axis, context or period asked about: {"axis": "helpful"}; or several with weights that add up to 1, {"axis": {"helpful": 0.7, "kind": 0.3}}."""

VAGUE = 1.5
"""Prior sd of the logarithm of a prior variance: a factor of 20 either way is likely enough."""


@dataclass(frozen=True)
class Convergence:
    """How the optimiser ended."""

    converged: bool
    iterations: int
    decrement: float
    """sqrt(g' A^-1 g / size) at the end: root mean square of the last Newton step, in standard errors of the step's own metric."""
    tolerance: float
    gradient: float
    """The first-order condition: largest derivative of the log posterior by any parameter at the end, per judgment."""
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
class Spread:
    """How much raters, or prompts, differ in an effect: the sd over them, with a 95% interval."""

    name: str
    """leniency, leniency of prompts, position of raters, bias by NUMBER of raters, ..."""
    sd: float
    low: float
    high: float
    n: int
    """Raters or prompts it was estimated from."""
    unit: str

    @property
    def label(self) -> str:
        """bias by length, sd over 40 raters: its name in a table of parameters."""
        what, _, of = self.name.partition(" of ")
        return f"{what}, sd over {self.n:,} {of or 'raters'}"


@dataclass(frozen=True)
class Latent:
    """How well the latent levels of raters (personas, tastes) can be told apart."""

    information: float
    """Mean over raters of what their answers said of their level, in nats (the divergence of the posterior from the prior)."""
    wanted: float
    """Nats that settle the level: the entropy of the shares of personas; for tastes, halving the doubt about each."""
    labels_per_rater: float
    """Median judgments of a rater."""
    labels_wanted: int | None
    """Judgments from which on a careful rater's persona is known with probability .9, or their taste to half its spread; None where
    1,000 would not do."""
    collapsed: bool
    """Whether the levels are hardly told apart: raters' answers said less than a fifth of what is wanted, or it would take more than
    four times as many of them."""
    alarm: str
    """What to do about it; empty where all is well."""


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
    sandwich: Array | None = None
    """(n,) standard error of the mean gap by the sandwich, clustered by rater or prompt (Liang & Zeger 1986): it counts that a rater's answers
    share what the model leaves out, such as a taste of their own under `Same`, and does not count what the prior leaves open where there is
    little data. None where it was not worked out, or a response is new."""

    @property
    def wider(self) -> Array:
        """(n,) the larger of ignorance and sandwich: neither may be trusted to be too small."""
        return self.ignorance if self.sandwich is None else np.maximum(self.ignorance, self.sandwich)


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
    trained_on: Feedback | str = field(repr=False)
    """The judgments fitted, or their fingerprint where the fit was loaded."""
    factors: tuple[Factor, ...]
    """What values differ by, beside the responses: people, axes, contexts, periods."""
    families: dict[str, Outcome]
    shapes: dict[str, slice]
    """Where each family's parameters sit in `shape`."""
    weights: Array
    """W (k, P)."""
    factor: Array | csr_array
    """(k * P, r): covariance of W.ravel() is factor @ factor.T."""
    robust: NDArray[np.float32] | None
    """(k * P, r): the same of the sandwich, by raters or prompts; None where it was not worked out."""
    shifts: Array
    """(S,) all shifts; `shift_parts` says which they are."""
    shift_parts: tuple[Shift, ...]
    covariates: tuple[Covariate, ...]
    """Circumstances that scale the gap, make a lapse likelier, or move the effect of position."""
    sources: tuple[str, ...]
    """Source models whose favour, compared with the commonest, is a shift."""
    shape: Array
    lapse: float
    """Probability of a random click."""
    parameters: tuple[Parameter, ...]
    raters: pl.DataFrame
    """Per rater: rater, n, slope, low, high, p_careful, p_careless, p_opposed, leniency, leniency_se."""
    slope_nodes: Array
    """(R + 1, L Q) where each rater's slope was evaluated, for each of L latent levels in turn."""
    slope_weights: Array
    """(R + 1, L Q): posterior of each rater's level and slope; the last row is that of a rater not seen before."""
    prior: dict[str, float]
    """Estimated prior strengths: sd per part of the values, spread and shares of the slopes, sd of leniency."""
    convergence: Convergence
    data: dict[str, Any]
    separates: bool
    """Whether noise and disagreement can be told apart (groups, and raters known by several judgments each)."""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    latent: Latent | None = None
    """What was learnt of the latent levels of raters, where people have them."""

    @cached_property
    def fingerprint(self) -> str:
        """Of the judgments fitted; hashing many takes longer than fitting them, so it waits until it is asked for."""
        return self.trained_on if isinstance(self.trained_on, str) else self.trained_on.fingerprint

    def __repr__(self) -> str:
        state = "" if self.convergence.converged else ", NOT CONVERGED"
        names = ", ".join(sorted({type(f).__name__ for f in self.families.values()}))
        return (
            f"Fit({self.spec['utility']['utility']}, {self.spec['people']['people']}, {names}; "
            f"{self.data['n_judgments']:,} judgments, {self.convergence.iterations} iterations{state})"
        )

    @property
    def knows_ignorance(self) -> bool:
        """Whether there is a posterior: a reward model that was trained elsewhere comes without one."""
        return isinstance(self.factor, csr_array) or self.factor.shape[1] > 0

    # ------------------------------------------------------------------ people

    @property
    def _people(self) -> Factor | None:
        return next((f for f in self.factors if f.name in ("group", "persona", "taste")), None)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of people that values differ by; ("everyone",) where they do not."""
        return self._people.levels if self._people else ("everyone",)

    @property
    def group_share(self) -> Array:
        """(G,) share of the raters (or of the judgments, where raters are not known) in each group."""
        return self._people.share if self._people else np.ones(1)

    @property
    def inferred(self) -> tuple[str, ...]:
        """Groups, cells of several columns, that no rater is of: their values are made of the others', and nobody of theirs was asked."""
        people = self._people
        if people is None or people.latent:
            return ()
        return tuple(name for name, share in zip(people.levels, people.share.tolist(), strict=True) if share == 0)

    @property
    def loadings(self) -> Array:
        """(G + 1, k) how each group weighs the k values, leaving out axes, contexts and periods; the last row is a group not known."""
        rows = np.zeros((len(self.groups) + 1, len(self.weights)))
        rows[:, 0] = 1.0
        if self._people:
            mine = columns_of(self.factors)[self._people.name]
            rows[:, mine.start : mine.stop] = self._people.loadings
        return rows

    def circumstances(self, at: At | None) -> Array:
        """(k,) what the axis, context and period asked about add to the loadings of everyone.

        Left out, an axis or context is the mean over the judgments', a period the last.
        """
        place, out = columns_of(self.factors), np.zeros(len(self.weights))
        if at is not None and not isinstance(at, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidSetting("at", at, 'Use a mapping such as {"period": "2024-05-31"}.')
        asked = dict(at or {})
        for f in self.factors:
            if f is self._people:
                continue
            if f.name == "period" and self.basis.walk is not None:
                asked.pop("period", None)  # any date will do
                continue
            said = asked.pop(f.name, f.levels[-1] if f.name == "period" else None)
            weights = {said: 1.0} if isinstance(said, str) else dict(said or {})
            if said is not None and not (weights and abs(sum(weights.values()) - 1) < 1e-6):
                raise InvalidSetting(f"at[{f.name!r}]", said, "Name one level, or give weights of levels that add up to 1.")
            for level in weights:
                if level not in f.levels:
                    raise InvalidSetting(f"at[{f.name!r}]", level, f"Use one of {', '.join(f.levels)}.")
            share = f.share if said is None else np.array([weights.get(level, 0.0) for level in f.levels])
            mine = place[f.name]
            out[mine.start : mine.stop] = share @ f.loadings[:-1]
        if asked:
            raise InvalidSetting("at", sorted(asked), f"The fit's values differ by {', '.join(place) or 'nothing'}.")
        return out

    def _rows(self, feedback: Feedback, at: At | None) -> Rows:
        """The rows of the basis in the period asked about."""
        walk, asked = self.basis.walk, at.get("period") if isinstance(at, Mapping) else None
        if walk is not None and asked is not None and not isinstance(asked, str):
            raise InvalidSetting("at['period']", asked, "Values of a table that move are asked about at one date.")
        return self.basis.rows_for(feedback, None if walk is None or asked is None else walk.period_at(str(asked)))

    @property
    def spreads(self) -> tuple[Spread, ...]:
        """How much raters differ in each effect that is theirs (`Position(per_rater=True)`, `Leniency`, `Bias(per_rater=True)`, ...), and
        prompts in theirs.

            log v ~ N(log v^, 1 / (g^2 / 2n + 1 / s^2)),  g = sum_r f_r^2 / v^

        v is the variance over n raters, f_r a rater's own effect and s the sd of the vague prior of log v. At its estimate v^, g is how
        many of the n effects the data determines (MacKay 1992).
        """
        found: list[Spread] = []
        for part in self.shift_parts:
            sd = self.prior.get(f"{part.name}_sd", 0.0) if part.of_many else 0.0
            own = self.shifts[part.start : part.stop]
            n = int(np.count_nonzero(own))
            if sd and n:
                determined = min(float(own @ own) / sd**2, float(n))
                step = 1.96 / 2 / np.sqrt(determined**2 / (2 * n) + 1 / VAGUE**2)
                unit = "logits per sd" if part.name.startswith(("bias", "taste")) else "logits"
                found.append(Spread(part.name, sd, float(sd * np.exp(-step)), float(sd * np.exp(step)), n, unit))
        return tuple(found)

    @property
    def position(self) -> float:
        """Logits in favour of the slot shown first, for the mean rater; 0 where there is no such effect."""
        return next((float(self.shifts[s.start]) for s in self.shift_parts if s.name == "position"), 0.0)

    # ------------------------------------------------------------------ values

    def _population(self, group_weights: Mapping[str, float] | None, at: At | None = None) -> tuple[Array, Array]:
        """z of the mean person (k,), and the weight of each named group (G,)."""
        if group_weights is None:
            share = self.group_share
        else:
            share = np.array([float(group_weights.get(name, 0.0)) for name in self.groups])
            share = share / share.sum()
        return share @ self.loadings[: len(self.groups)] + self.circumstances(at), share

    def utilities(
        self,
        feedback: Feedback,
        *,
        group_weights: Mapping[str, float] | None = None,
        without: tuple[str, ...] = (),
        at: At | None = None,
    ) -> Array:
        """(n_responses,) utility for the mean person, in logits; NaN where a response is not known.

        `without` names parts of the basis (style) that are not to count; `at` says the axis, context or period ({"axis": "helpful"}).
        Of the values of a table that move, the period can be any date, before, between or after the judgments: {"period": "2024-05-31"}.
        """
        rows = self._rows(feedback, at)
        z, _ = self._population(group_weights, at)
        return np.where(rows.known, rows.times((z @ self._kept(without))[:, None])[:, 0], np.nan)

    def by_person(self, feedback: Feedback, *, without: tuple[str, ...] = (), at: At | None = None) -> Array:
        """(G, n_responses) utility for each of `groups` (groups, personas, grid points of taste), in logits; NaN where not known."""
        rows = self._rows(feedback, at)
        named = self.loadings[: len(self.groups)] + self.circumstances(at)
        return np.where(rows.known, named @ rows.times(self._kept(without).T).T, np.nan)

    def ignorance(
        self,
        feedback: Feedback,
        *,
        group_weights: Mapping[str, float] | None = None,
        without: tuple[str, ...] = (),
        at: At | None = None,
    ) -> Array:
        """(n_responses,) posterior sd of each response's utility for the mean person, in logits; NaN where not known."""
        rows = self._rows(feedback, at)
        if not self.knows_ignorance:
            return np.full(feedback.n_responses, np.nan)
        z, _ = self._population(group_weights, at)
        variance = squared_rows(rows.times(self._seen_factor(group_weights, without, at))) + rows.new * self.new_variance(z)
        return np.where(rows.known, np.sqrt(variance), np.nan)

    def new_variance(self, z: Array) -> float:
        """Variance that a new response has beyond its features, for a person with these loadings (k,); where values move, of a step."""
        if self.basis.walk is None:
            return self.prior.get("residual_sd", 0.0) ** 2
        own = [f for f in self.factors if f.name != "period"]
        total = z[0] ** 2 * self.prior["values of period_sd"] ** 2
        for name, mine in parts_of(own).items():
            total += float((z[mine.start : mine.stop] ** 2).sum()) * self.prior[f"values of {name} of period_sd"] ** 2
        return float(total)

    def factor_for(self, z: Array, *, robust: bool = False) -> Any:
        """(P, r), sparse or dense: factor of the covariance of the weights of a person with these loadings (k,), or of their sandwich."""
        P, factor = self.weights.shape[1], self.robust if robust else self.factor
        assert factor is not None
        return sum(z[a] * factor[a * P : (a + 1) * P] for a in np.flatnonzero(z))

    def _seen_factor(
        self,
        group_weights: Mapping[str, float] | None,
        without: tuple[str, ...],
        at: At | None = None,
        *,
        robust: bool = False,
    ) -> Any:
        """(P, r) factor of the covariance of the mean person's weights, without the named parts."""
        z, _ = self._population(group_weights, at)
        seen = self.factor_for(z, robust=robust)
        for name, columns in self.basis.parts:
            if name.partition(":")[0] in without:  # the bends of style go with it
                seen[columns] = 0.0
        return seen

    def mean_weights(
        self, group_weights: Mapping[str, float] | None = None, *, without: tuple[str, ...] = (), at: At | None = None
    ) -> Array:
        """(P,) weights of the columns of the basis for the mean person."""
        z, _ = self._population(group_weights, at)
        return z @ self._kept(without)

    def _kept(self, without: tuple[str, ...]) -> Array:
        """W with the columns of the named parts set to 0."""
        weights = self.weights.copy()
        for name, columns in self.basis.parts:
            if name.partition(":")[0] in without:  # the bends of style go with it
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
        at: At | None = None,
    ) -> Gaps:
        """Utility gaps left - right between responses of `feedback` (codes), with their ignorance and disagreement."""
        rows = self._rows(feedback, at)
        z, share = self._population(group_weights, at)
        kept = self._kept(without)
        named = self.loadings[: len(self.groups)] + self.circumstances(at)
        values = rows.times(kept.T) @ named.T  # (n_responses, G)
        by_group = values[left] - values[right]
        variance = _apart(rows.times(self._seen_factor(group_weights, without, at)), left, right)
        variance += (rows.new[left] + rows.new[right]) * self.new_variance(z)
        mean = by_group @ share
        disagreement = np.sqrt(np.maximum((by_group**2) @ share - mean**2, 0.0))
        known = rows.known[left] & rows.known[right]
        sandwich = None
        if self.robust is not None and not (rows.new[left] + rows.new[right]).any():
            sandwich = np.sqrt(_apart(rows.times(self._seen_factor(group_weights, without, at, robust=True)), left, right))
        return Gaps(mean, np.sqrt(variance), by_group, disagreement, known, share, sandwich)

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

    def compare(
        self,
        a: str,
        b: str,
        *,
        prompt: str | None = None,
        group_weights: Mapping[str, float] | None = None,
        at: At | None = None,
    ) -> Comparison:
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
        gaps = self.gaps(asked, codes[0], codes[1], group_weights=group_weights, at=at)
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

    def draws(
        self,
        feedback: Feedback,
        n: int,
        *,
        group_weights: Mapping[str, float] | None = None,
        without: tuple[str, ...] = (),
        at: At | None = None,
        seed: int = 0,
    ) -> Array:
        """(n_responses, n) utilities of the mean person that the data leave credible, drawn from the posterior; NaN where unknown.

        Raises
        ------
        InvalidSetting
            If the fit does not know how sure it is, as a reward model that was trained elsewhere does not.
        """
        if not self.knows_ignorance:
            raise InvalidSetting("fit", "a reward model that was trained elsewhere", "It does not say how sure it is; fit judgments.")
        rng = np.random.default_rng(seed)
        rows = self._rows(feedback, at)
        seen = rows.times(self._seen_factor(group_weights, without, at))
        mean = rows.times(self.mean_weights(group_weights, without=without, at=at)[:, None])
        beyond = np.sqrt(np.maximum(rows.new * self.new_variance(self._population(group_weights, at)[0]), 0.0))
        drawn = mean + seen @ rng.normal(size=(seen.shape[1], n)) + beyond[:, None] * rng.normal(size=(len(beyond), n))
        return np.where(rows.known[:, None], drawn, np.nan)

    def support(self, feedback: Feedback) -> Array:
        """(n_responses,) how far the data, rather than the prior, speaks about each response: 1 - posterior / prior variance.

        0 means that nothing in the data bears on it; NaN that the response cannot be placed at all.
        """
        rows = self.basis.rows_for(feedback)
        P = self.weights.shape[1]
        if not self.knows_ignorance:  # as far as anyone can tell
            return np.where(rows.known, 1.0, np.nan)
        prior, beyond = np.zeros(P), self.new_variance(np.eye(len(self.weights))[0])
        for name, columns in self.basis.parts:
            prior[columns] = self.prior[f"{name}_sd"] ** 2
        if self.basis.walk is not None:
            prior += beyond * self.basis.walk.since()
        posterior = squared_rows(rows.times(self.factor[:P])) + rows.new * beyond
        squared = replace(rows, columns=None if rows.columns is None else rows.columns**2)
        before = squared.times(prior[:, None])[:, 0] + rows.new * beyond
        return np.where(
            rows.outside,
            0.0,
            np.where(rows.known & (before > 0), np.clip(1 - posterior / np.where(before > 0, before, 1.0), 0.0, 1.0), np.nan),
        )

    # ------------------------------------------------------------------ files

    def reading(self, features: str) -> Fit:
        """The same fit, whose features are read by the model in another folder."""
        assert self.basis.features is not None
        return replace(self, basis=replace(self.basis, features=replace(self.basis.features, features=features)))

    def save(self, folder: str | Path) -> None:
        """Write fit.json and arrays.safetensors; `Fit.load` gives the same predictions."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {
            "weights": self.weights, "shifts": self.shifts,
            "shape": self.shape, "slope_nodes": self.slope_nodes, "slope_weights": self.slope_weights,
        }  # fmt: skip
        if isinstance(self.factor, csr_array):
            parts = {"data": self.factor.data, "indices": self.factor.indices, "indptr": self.factor.indptr}
            arrays |= {f"factor.{name}": value for name, value in parts.items()} | {"factor.shape": np.array(self.factor.shape)}
        else:
            arrays["factor"] = self.factor
        if self.robust is not None:
            arrays["robust"] = self.robust
        for name in self.raters.columns[1:]:
            arrays[f"raters.{name}"] = self.raters[name].cast(pl.Float64).to_numpy()
        basis, features = self.basis.to_record()
        arrays |= features
        record = {
            "seamark": "fit",
            "version": 2,
            "spec": self.spec,
            "factors": [f.to_dict() for f in self.factors],
            "shift_parts": [vars(part) for part in self.shift_parts],
            "covariates": [c.to_dict() for c in self.covariates],
            "sources": self.sources,
            "latent": vars(self.latent) if self.latent else None,
            "families": {name: outcome_to_dict(f) for name, f in self.families.items()},
            "shapes": {name: [s.start, s.stop] for name, s in self.shapes.items()},
            "lapse": self.lapse,
            "parameters": [vars(p) for p in self.parameters],
            "rater_ids": self.raters["rater"].to_list(),
            "prior": self.prior,
            "convergence": vars(self.convergence),
            "data": self.data | {"fingerprint": self.fingerprint},
            "separates": self.separates,
            "notes": self.notes,
            "versions": self.versions,
            "basis": basis,
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
        if record.get("version") != 2:
            raise UnreadableSource(
                str(folder), f"a fit of format {record.get('version')!r}, not 2", "Fit the data again with this version of Seamark."
            )
        raters = pl.DataFrame(
            {"rater": pl.Series(record["rater_ids"], dtype=pl.String)}
            | {name.removeprefix("raters."): value for name, value in arrays.items() if name.startswith("raters.")}
        )
        convergence = record["convergence"] | {"notes": tuple(record["convergence"]["notes"])}
        return Fit(
            spec=record["spec"], basis=Basis.from_record(record["basis"], arrays), trained_on=record["data"]["fingerprint"], factors=tuple(Factor.from_dict(f) for f in record["factors"]),
            shifts=arrays["shifts"], shift_parts=tuple(Shift(**part | {"names": tuple(part["names"])}) for part in record["shift_parts"]),
            covariates=tuple(Covariate.from_dict(c) for c in record["covariates"]), sources=tuple(record["sources"]),
            latent=Latent(**record["latent"]) if record["latent"] else None,
            families={name: outcome_from_dict(f) for name, f in record["families"].items()},
            shapes={name: slice(*s) for name, s in record["shapes"].items()},
            weights=arrays["weights"], factor=_stored_factor(arrays), robust=arrays.get("robust"), shape=arrays["shape"], lapse=record["lapse"],
            parameters=tuple(Parameter(**p) for p in record["parameters"]),
            raters=raters.select("rater", *RATER_COLUMNS), slope_nodes=arrays["slope_nodes"], slope_weights=arrays["slope_weights"],
            prior=record["prior"], convergence=Convergence(**convergence), data=record["data"], separates=record["separates"],
            notes=tuple(record["notes"]), versions=record["versions"],
        )  # fmt: skip


def _apart(placed: Any, left: NDArray[np.int64], right: NDArray[np.int64]) -> Array:
    """(n,) variance of the gaps, from a factor (n_responses, r) of the covariance of utilities."""
    out = np.empty(len(left))
    for start in range(0, len(left), 20_000):
        part = slice(start, start + 20_000)
        out[part] = squared_rows(placed[left[part]] - placed[right[part]])
    return out


def _stored_factor(arrays: Mapping[str, NDArray[Any]]) -> Array | csr_array:
    if "factor" in arrays:
        return arrays["factor"]
    parts = (arrays["factor.data"], arrays["factor.indices"], arrays["factor.indptr"])
    return csr_array(parts, shape=tuple(arrays["factor.shape"].tolist()))


RATER_COLUMNS = ("n", "slope", "low", "high", "p_careful", "p_careless", "p_opposed", "leniency", "leniency_se")


_TRIED = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
"""Judgments per rater that are tried, by simulation."""


def latent_summary(latent: Factor, membership: Array, seen: Array, gaps: Array, count: Array, rng: np.random.Generator) -> Latent:
    """How well levels are told apart: membership (R, L) posterior, seen (R,) judgments, gaps (n, L) of judged pairs with their count (n,)."""
    judged = seen > 0
    share = np.maximum(latent.share, 1e-12)
    p = np.maximum(membership[judged], 1e-300)
    information = float((p * np.log(p / share)).sum(1).mean())
    k = latent.loadings.shape[1]
    wanted = float(-(share * np.log(share)).sum()) if latent.learnt else k * float(np.log(2))
    labels = float(np.median(seen[judged]))
    needed = _labels_wanted(latent, gaps, count, rng) if len(gaps) else None
    collapsed = information < 0.2 * wanted or needed is None or needed > 4 * max(labels, 1)
    alarm = ""
    if collapsed:
        remedy = f"about {needed} judgments of a rater would tell" if needed else "no number of judgments up to 1,000 of a rater would tell"
        alarm = (
            f"{latent.name}s can hardly be told apart: a rater's {labels:.0f} judgments (median) say {information:.2f} of the {wanted:.2f} nats "
            f"that would settle their {latent.name}; {remedy}, if people differ as estimated"
        )
    return Latent(information, wanted, labels, needed, collapsed, alarm)


def _labels_wanted(latent: Factor, gaps: Array, count: Array, rng: np.random.Generator) -> int | None:
    """Judgments of a careful rater that settle their level, from 400 simulated raters who judge the pairs of the data."""
    n_raters, most = 400, _TRIED[-1]
    level = rng.choice(len(latent.share), n_raters, p=latent.share / latent.share.sum())
    log_posterior = np.tile(np.log(np.maximum(latent.share, 1e-12)), (n_raters, 1))
    truth, weights = latent.loadings[:-1][level], count / count.sum()
    done = 0
    for n in _TRIED:
        asked = rng.choice(len(gaps), (n_raters, n - done), p=weights)
        g = gaps[asked]  # (raters, judgments, L)
        own = np.take_along_axis(g, level[:, None, None].repeat(n - done, 1), 2)
        sign = np.where(rng.random(own.shape) < 1 / (1 + np.exp(-own)), 1.0, -1.0)
        log_posterior -= np.logaddexp(0, -sign * g).sum(1)
        done = n
        posterior = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
        posterior /= posterior.sum(1, keepdims=True)
        off = ((posterior @ latent.loadings[:-1] - truth) ** 2).mean()
        settled = posterior.max(1).mean() >= 0.9 if latent.learnt else off <= 0.25
        if settled:
            return n
    assert done == most
    return None
