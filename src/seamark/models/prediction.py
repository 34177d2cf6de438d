"""What a fit expects people to answer: `predict` gives, for every judgment, the probability of each possible outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.models.design import Block, build_design, columns_of_role, tastes
from seamark.models.observation import Missing, Observation, Outcome, decided_sides, lapsed, log_probs
from seamark.models.people import Strata
from seamark.models.result import Fit
from seamark.models.shifts import shift_matrix
from seamark.models.utility import squared_rows
from seamark.records import Feedback

Array = NDArray[np.float64]

_CHUNK = 1_000_000
_NO_MASS = 1e-4
"""A slope and level of less prior mass than this are not looked at for a new person."""


@dataclass(frozen=True)
class Predicted:
    """Predictions for one block of judgments (equal judgments are one row with a count)."""

    name: str
    family: Outcome
    probs: Array
    """(n, n_outcomes) probability of each answer by the rater asked, in the place and order shown."""
    outcome: NDArray[np.int64]
    """(n,) what was answered."""
    count: Array
    shown: NDArray[np.int64]
    """(n, m) response codes of the feedback predicted."""
    rater: NDArray[np.int64]
    """(n,) rater codes of the feedback predicted; n_raters where not known."""
    group: NDArray[np.int64]
    prompt: NDArray[np.int64]
    """(n,) prompt codes of the first response; n_prompts where there is none."""
    preference: Array
    """(n,) for pairs, the probability that a careful rater with no position effect, made to decide, prefers the first; else NaN."""
    row: NDArray[np.int64]
    """(n,) judgment of each row where equal ones are kept apart, else -1."""

    def decided(self) -> tuple[Array, NDArray[np.bool_], Array]:
        """For pairs that were decided: probability that the first wins given that one does, whether it did, the count."""
        first, second = decided_sides(self.family)
        left, right = self.probs[:, first].sum(1), self.probs[:, second].sum(1)
        won, lost = np.isin(self.outcome, first), np.isin(self.outcome, second)
        use = won | lost
        return (left / (left + right))[use], won[use], self.count[use]

    def is_decided(self) -> NDArray[np.bool_]:
        first, second = decided_sides(self.family)
        return np.isin(self.outcome, [*first, *second])

    @property
    def is_pair(self) -> bool:
        return self.shown.shape[1] == 2


def predict(fit: Fit, feedback: Feedback, *, apart: bool = False) -> list[Predicted]:
    """Predictions for all judgments of `feedback` whose responses the fit can place and whose kind it has a family for; with `apart` equal ones
    are not counted as one, and each says which judgment it is.

    The utilities' posterior is integrated out (5 Gauss-Hermite nodes), and so is the rater's slope: over its posterior for
    raters that were seen, over the prior for others. Contrasts of more than one dimension use the mean utilities. A number that moves
    judgments (`Bias`) and is not known here counts as average; `evaluate` says of how many judgments.
    """
    rows = fit.basis.rows_for(feedback)
    placed = pl.element().is_in(np.flatnonzero(rows.known).tolist())
    usable = feedback.judgments.select(pl.col("responses").list.eval(placed).list.all())["responses"]
    # the judgments alone are filtered: codes stay those of the feedback that was given
    usable = usable.fill_null(value=False)
    kept = np.flatnonzero(usable.to_numpy())
    feedback = replace(feedback, judgments=feedback.judgments.filter(usable))
    if feedback.n_judgments == 0:
        return []
    observation = Observation.from_dict(fit.spec["observation"])
    factors, given, of_node = fit.factors, feedback, None
    if (walk := fit.basis.walk) is not None:  # a response at a time is a response of its own
        factors = tuple(f for f in factors if f.name != "period")
        of_node, period, feedback = walk.nodes_of(feedback)
        rows = fit.basis.walk_rows(fit.basis.numbers(given)[of_node], period)
    strata = Strata.of(factors, feedback)
    design = build_design(
        feedback, observation, strata, covariates=fit.covariates, sources=fit.sources, biases=fit.data.get("biases"), known=fit.families,
        repeated=False, apart=apart,
    )  # fmt: skip
    design = replace(design, tastes=tastes(feedback, observation, fit.data["tastes"])[0])
    seen = {rater: code for code, rater in enumerate(fit.raters["rater"].to_list())}
    fitted_rater = np.array([seen.get(r, len(seen)) for r in feedback.raters["id"].to_list()] + [len(seen)])
    prompts = feedback.responses["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()
    U = rows.times(fit.weights.T) @ strata.loadings.T
    spread = {g: rows.times(fit.factor_for(z)) for g, z in enumerate(strata.loadings)}
    L = strata.levels
    out: list[Predicted] = []
    for block in design.blocks:
        if isinstance(block.family, Missing):
            continue
        m = block.shown.shape[1]
        K = block.family.contrast(m)
        rater = fitted_rater[block.rater]
        n, d = len(rater), len(K)
        shift = np.zeros((n, d))
        if fit.shift_parts:
            D = shift_matrix(block, K, fit.shift_parts, design, rater, len(seen))
            shift = D.times(fit.shifts).reshape(n, d)
        scale = np.ones(n)
        if g := _circumstances(fit, "scale"):
            scale = np.exp(columns_of_role(block, design, "scale") @ fit.shape[g[0] : g[-1] + 1])
        lapse = None
        if observation.lapse:
            lapse = np.full(n, fit.shape[-1])
            if g := _circumstances(fit, "lapse"):
                lapse += columns_of_role(block, design, "lapse") @ fit.shape[g[0] : g[-1] + 1]
        pair = m == 2 and not block.lenient
        probs, plain = np.zeros((n, block.family.n_outcomes)), np.zeros((n, block.family.n_outcomes))
        Q = fit.slope_nodes.shape[1] // L
        own = fit.slope_weights[rater]
        for level in range(L):
            group = block.group if L == 1 else block.group + level
            scaled = U[block.shown, group[:, None]] @ K.T
            sd = np.zeros((n, d))
            if d == 1:
                for g in np.unique(group).tolist():
                    mine = np.flatnonzero(group == g)
                    for start in range(0, len(mine), 20_000):
                        part = mine[start : start + 20_000]
                        difference = sum(weight * spread[g][block.shown[part, slot]] for slot, weight in enumerate(K[0]))
                        new = rows.new[block.shown[part]].sum(1) * fit.new_variance(strata.loadings[g])
                        sd[part, 0] = np.sqrt(squared_rows(difference) + new)
            mine = slice(level * Q, (level + 1) * Q)
            slopes = fit.slope_nodes[rater, mine] * scale[:, None]
            probs += _integrate(fit, block, scaled, sd, shift, slopes, own[:, mine], lapse)
            if pair:
                weight = own[:, mine].sum(1, keepdims=True)
                plain += _integrate(
                    fit,
                    block,
                    scaled,
                    sd,
                    np.zeros_like(shift),
                    np.ones((n, 1)),
                    weight,
                    None if lapse is None else np.full(n, fit.shape[-1]),
                )
        probs += block.replaced[:, None] * (1 / block.family.n_outcomes - probs)
        preference = np.full(n, np.nan)
        if pair:
            first, second = decided_sides(block.family)
            preference = plain[:, first].sum(1) / (plain[:, first].sum(1) + plain[:, second].sum(1))
        out.append(
            Predicted(
                block.name,
                block.family,
                probs,
                block.outcome,
                block.count,
                block.shown if of_node is None else of_node[block.shown],
                block.rater,
                block.group // (L + 1) if L > 1 else block.group,
                prompts[block.shown[:, 0]],
                preference,
                np.where(block.row >= 0, kept[block.row], -1),
            )
        )
    return out


def _circumstances(fit: Fit, role: str) -> range:
    """Where in the shape the parameters of scales or of lapses stand."""
    widths = {r: sum(c.width for c in fit.covariates if c.role == r) for r in ("scale", "lapse")}
    start = sum(f.size for f in fit.families.values()) + (widths["scale"] if role == "lapse" else 0)
    return range(start, start + widths[role])


def _integrate(
    fit: Fit, block: Block, scaled: Array, sd: Array, shift: Array, slopes: Array, weights: Array, lapse_odds: Array | None
) -> Array:
    """(n, n_outcomes) probabilities averaged over slopes (n, Q) and the utilities' posterior."""
    import torch

    family = block.family
    points, mass = np.polynomial.hermite_e.hermegauss(5) if scaled.shape[1] == 1 else (np.zeros(1), np.ones(1))
    mass = mass / mass.sum()
    shape = torch.from_numpy(np.ascontiguousarray(fit.shape))
    lapses = None if lapse_odds is None else torch.from_numpy(lapse_odds)
    n, Q = slopes.shape
    out = np.zeros((n, family.n_outcomes))
    step = max(1, _CHUNK // Q)
    with torch.no_grad():
        for start in range(0, n, step):
            rows = slice(start, start + step)
            slope = torch.from_numpy(slopes[rows].T[..., None].copy())
            weight = torch.from_numpy(weights[rows].T[..., None].copy())
            for point, w in zip(points, mass, strict=True):
                contrast = slope * torch.from_numpy(scaled[rows] + point * sd[rows]) + torch.from_numpy(shift[rows])
                p = torch.exp(
                    lapsed(
                        log_probs(family, contrast, shape[fit.shapes[block.name]]),
                        family.n_outcomes,
                        None if lapses is None else lapses[rows, None],
                    )
                )
                out[rows] += w * (weight * p).sum(0).numpy()
    return out


def for_person(fit: Fit, judgments: Feedback) -> Fit:
    """The fit as it is for one person, known by a few judgments: whose values they share is a posterior instead of the shares of all.

        p(l, b | y) ~ share_l p(b) prod_j p(y_j | values of level l, slope b)

    over the latent levels l (personas, or points of the taste grid) and slopes b, the utilities' own doubt integrated out judgment by
    judgment. `utilities`, `gaps`, `compare`, a `Reward` and `predict` for a rater not seen before then speak of this person, and
    *disagreement* is what is not known of who they are. With no judgments that can be placed it is everybody's fit.

    Parameters
    ----------
    judgments
        Of one person, from one to as many as there are, about responses that the fit can place.

    Raises
    ------
    InvalidSetting
        If values do not differ by latent levels, or the judgments name several raters.

    Source: the posterior that Variational Preference Learning (Poddar et al. 2024) has an encoder approximate; it takes no training here.
    """
    latent = next((f for f in fit.factors if f.latent), None)
    if latent is None:
        raise InvalidSetting(
            "fit", fit.spec["people"]["people"], "Few judgments place a person among Personas or Varying tastes; fit those."
        )
    if judgments.judgments["rater"].n_unique() > 1:
        named = judgments.judgments["rater"].n_unique()
        raise InvalidSetting(
            "judgments", f"those of {named} raters, or of one and of some not known", "Give those of one person at a time."
        )
    prior = fit.slope_weights[-1]
    log_posterior = np.full(len(prior), -np.inf)
    nobody = replace(judgments, judgments=judgments.judgments.with_columns(rater=pl.lit(None, dtype=judgments.judgments["rater"].dtype)))
    for node in np.flatnonzero(prior > _NO_MASS):
        certain = replace(fit, slope_weights=np.vstack([fit.slope_weights[:-1], np.eye(len(prior))[node]]))
        log_posterior[node] = np.log(prior[node])
        for p in predict(certain, nobody):
            log_posterior[node] += float(p.count @ np.log(np.maximum(np.take_along_axis(p.probs, p.outcome[:, None], 1)[:, 0], 1e-300)))
    posterior = np.exp(log_posterior - log_posterior.max())
    posterior /= posterior.sum()
    share = posterior.reshape(len(latent.levels), -1).sum(1)
    factors = tuple(replace(f, share=share) if f is latent else f for f in fit.factors)
    return replace(fit, factors=factors, slope_weights=np.vstack([fit.slope_weights[:-1], posterior]))
