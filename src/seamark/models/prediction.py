"""What a fit expects people to answer: `predict` gives, for every judgment, the probability of each possible outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.models.design import Block, build_design
from seamark.models.observation import Choice, Davidson, Observation, Outcome, Strength, lapsed, log_probs
from seamark.models.people import Crowd, Groups
from seamark.models.result import Fit
from seamark.models.utility import squared_rows
from seamark.records import Feedback

Array = NDArray[np.float64]

_CHUNK = 1_000_000


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

    def decided(self) -> tuple[Array, NDArray[np.bool_], Array]:
        """For pairs that were decided: probability that the first wins given that one does, whether it did, the count."""
        first, second = _sides(self.family)
        left, right = self.probs[:, first].sum(1), self.probs[:, second].sum(1)
        won, lost = np.isin(self.outcome, first), np.isin(self.outcome, second)
        use = won | lost
        return (left / (left + right))[use], won[use], self.count[use]

    def is_decided(self) -> NDArray[np.bool_]:
        first, second = _sides(self.family)
        return np.isin(self.outcome, [*first, *second])

    @property
    def is_pair(self) -> bool:
        return isinstance(self.family, Davidson | Strength) or (isinstance(self.family, Choice) and self.shown.shape[1] == 2)


def _sides(family: Outcome) -> tuple[list[int], list[int]]:
    """Outcome codes that mean the first and the second response of a pair."""
    if isinstance(family, Strength):
        n = family.n_outcomes
        return list(range(family.levels)), list(range(n - family.levels, n))
    return [0], [1]


def predict(fit: Fit, feedback: Feedback) -> list[Predicted]:
    """Predictions for all judgments of `feedback` whose responses the fit can place and whose kind it has a family for.

    The utilities' posterior is integrated out (5 Gauss-Hermite nodes), and so is the rater's slope: over its posterior for
    raters that were seen, over the prior for others. Contrasts of more than one dimension use the mean utilities.
    """
    rows = fit.basis.rows_for(feedback)
    placed = pl.element().is_in(np.flatnonzero(rows.known).tolist())
    usable = feedback.judgments.select(pl.col("responses").list.eval(placed).list.all())["responses"]
    # the judgments alone are filtered: codes stay those of the feedback that was given
    feedback = replace(feedback, judgments=feedback.judgments.filter(usable.fill_null(value=False)))
    if feedback.n_judgments == 0:
        return []
    crowd = _crowd(fit, feedback)
    design = build_design(feedback, Observation(), crowd, known=fit.families)
    seen = {rater: code for code, rater in enumerate(fit.raters["rater"].to_list())}
    fitted_rater = np.array([seen.get(r, len(seen)) for r in feedback.raters["id"].to_list()] + [len(seen)])
    leniency = np.append(np.nan_to_num(fit.raters["leniency"].to_numpy()), 0.0)  # null where the fit has no leniency, which is a shift of 0
    G = len(crowd.names)
    prompts = feedback.responses["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()
    out: list[Predicted] = []
    U = rows.times(fit.weights.T) @ fit.loadings[:G].T
    new_variance = fit.prior.get("residual_sd", 0.0) ** 2 * rows.new
    spread = {}
    for g in range(G):
        spread[g] = rows.times(fit.factor_for(fit.loadings[g]))
    for block in design.blocks:
        response, group = block.shown // G, block.shown[:, 0] % G
        K = block.family.contrast(block.shown.shape[1])
        scaled = U[response, group[:, None]] @ K.T
        sd = np.zeros_like(scaled)
        if len(K) == 1:
            for g in range(G):
                mine = np.flatnonzero(group == g)
                for start in range(0, len(mine), 20_000):
                    part = mine[start : start + 20_000]
                    difference = sum(weight * spread[g][response[part, slot]] for slot, weight in enumerate(K[0]))
                    sd[part, 0] = np.sqrt(squared_rows(difference) + new_variance[response[part]].sum(1))
        rater = fitted_rater[block.rater]
        shift = (block.ordered[:, None] * K[:, 0]) * fit.position if not block.lenient else leniency[rater][:, None]
        probs = _integrate(fit, block, scaled, sd, shift, fit.slope_nodes[rater], fit.slope_weights[rater])
        preference = np.full(len(rater), np.nan)
        if len(K) == 1 and not block.lenient:
            one = np.ones((len(rater), 1))
            plain = _integrate(fit, block, scaled, sd, np.zeros_like(shift), one, one)
            first, second = _sides(block.family)
            preference = plain[:, first].sum(1) / (plain[:, first].sum(1) + plain[:, second].sum(1))
        out.append(
            Predicted(
                block.name,
                block.family,
                probs,
                block.outcome,
                block.count,
                response,
                block.rater,
                group,
                prompts[response[:, 0]],
                preference,
            )
        )
    return out


def _crowd(fit: Fit, feedback: Feedback) -> Crowd:
    """Groups of the judgments in the fit's terms."""
    people = fit.spec["people"]
    if people["people"] == "Same":
        return Crowd(fit.groups, np.zeros(feedback.n_judgments, dtype=np.int64), fit.loadings)
    labels = Groups(by=people["by"]).labels(feedback).to_list()
    lookup = {name: code for code, name in enumerate(fit.groups)}
    group = np.array([lookup.get(label, len(fit.groups)) for label in labels], dtype=np.int64)
    return Crowd((*fit.groups, ""), group, fit.loadings)


def _integrate(fit: Fit, block: Block, scaled: Array, sd: Array, shift: Array, slopes: Array, weights: Array) -> Array:
    """(n, n_outcomes) probabilities averaged over slopes (n, Q) and the utilities' posterior."""
    import torch

    family = block.family
    points, mass = np.polynomial.hermite_e.hermegauss(5) if scaled.shape[1] == 1 else (np.zeros(1), np.ones(1))
    mass = mass / mass.sum()
    shape = torch.from_numpy(np.ascontiguousarray(fit.shape))
    lapse = shape[-1] if fit.spec["observation"]["lapse"] else None
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
                p = torch.exp(lapsed(log_probs(family, contrast, shape[fit.shapes[block.name]]), family.n_outcomes, lapse))
                out[rows] += w * (weight * p).sum(0).numpy()
    return out
