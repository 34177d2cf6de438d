"""From a fit and a charter to one reward: the electorate's utilities, and what the charter's rule makes of them.

A *person* here is what the fit can tell apart: a group, a persona, a grid point of taste, each with its weight in the electorate. A rule
that scores a response by itself (`POINTWISE`) says the same whatever else is on offer. The others choose among the responses to one
prompt: their scores mean something within the prompt alone, so that a response that is alone has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.aggregation.charter import POINTWISE, Charter, InvalidCharter
from seamark.aggregation.profiles import Profile
from seamark.aggregation.rules import Decision, decide
from seamark.models.result import Fit, Gaps
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

VETO = 10.0
"""Logits that a response below a floor loses beside its shortfall: 1 in 22,000 would choose it, and trainers can still count with it."""


@dataclass(frozen=True)
class Collective:
    """What an electorate thinks of the responses of a feedback."""

    charter: Charter
    by_person: Array
    """(G, n_responses) utility to each group, persona or taste of the fit, of what counts, in logits; NaN where not known. Those that the
    electorate leaves out are there with weight 0: they pay, too."""
    weights: Array
    """(G,) of the electorate; they add up to 1."""
    names: tuple[str, ...]
    mean: Array
    """(n_responses,) utility to the mean person, logits."""
    ignorance: Array
    """(n_responses,) posterior sd of it; NaN where there is no posterior."""
    shortfall: Array
    """(n_responses,) logits by which the response misses the floors, all together; 0 where it meets them."""

    @staticmethod
    def of(fit: Fit, charter: Charter, feedback: Feedback) -> Collective:
        """What the electorate of a charter thinks of the responses of a feedback.

        Raises
        ------
        InvalidCharter
            If the charter names groups or axes that the fit does not have.
        """
        charter.require_weighed(fit)
        if charter.rule == "maximin" and any(f.name == "taste" for f in fit.factors):
            problem = (
                "rule is 'maximin', and the people of the fit are points on a scale of tastes, of which the outermost would decide alone"
            )
            raise InvalidCharter("charter", problem, "Use cvar or quantile with a share, or fit groups or personas.")
        asked, without, at = charter.group_weights(fit), charter.without(), charter.at(fit)
        by_person = fit.by_person(feedback, without=without, at=at)
        weights = fit.group_share if asked is None else np.array([asked.get(name, 0.0) for name in fit.groups])
        mean = fit.utilities(feedback, group_weights=asked, without=without, at=at)
        ignorance = fit.ignorance(feedback, group_weights=asked, without=without, at=at)
        shortfall = np.zeros(feedback.n_responses)
        for name, least in charter.floors.groups.items():
            shortfall += _missed(least, by_person[fit.groups.index(name)])
        for name, least in charter.floors.axes.items():
            shortfall += _missed(least, fit.utilities(feedback, group_weights=asked, without=without, at={"axis": name}))
        return Collective(charter, by_person, weights, fit.groups, mean, ignorance, shortfall)

    @property
    def prudent(self) -> Array:
        """(G, n_responses) utilities less the charter's penalty for ignorance, where there is a posterior to be ignorant by."""
        known = np.isfinite(self.ignorance)
        return self.by_person - self.charter.ignorance_penalty * np.where(known, self.ignorance, 0.0)

    @property
    def vetoed(self) -> NDArray[np.bool_]:
        """(n_responses,) whether a response is below a floor."""
        return self.shortfall > 0

    def scores(self, prompt: Codes) -> Array:
        """(n_responses,) the reward: the rule's score of prudent utilities; NaN where there is none.

        What is vetoed is no option for the others. It scores `VETO` and its shortfall below what it would have scored by itself, or, of rules
        that are not `POINTWISE`, below the worst that is allowed.

        Parameters
        ----------
        prompt : (n_responses,) code of each response's prompt. Rules that are not `POINTWISE` score a response among those to its prompt.
        """
        value = self.prudent
        known = np.all(np.isfinite(value), axis=0)
        out = np.full(value.shape[1], np.nan)
        if not known.any():
            return out
        if self.charter.rule in POINTWISE:
            out[known] = self._decide(value[:, known].T[:, :, None]).scores[:, 0]
            return np.where(self.vetoed, out - VETO - self.shortfall, out)
        laid = lay_out(prompt, known)
        laid = laid[(laid >= 0).sum(1) > 1]
        if not len(laid):
            return out
        there = laid >= 0
        veto = there & self.vetoed[laid]
        found = self._decide(take(value, laid), veto).scores
        allowed = there & ~veto & np.isfinite(found)
        worst = np.where(allowed.any(1), np.where(allowed, found, np.inf).min(1), 0.0)[:, None]
        found = np.where(veto, worst - VETO - self.shortfall[laid], found)
        out[laid[there]] = found[there]
        return out

    def decide(self, laid: Codes) -> Decision:
        """What the rule chooses in each question. laid (Q, M) holds codes of responses, -1 where a question has fewer.

        Responses below a floor are removed first; where nothing is left there is no consensus.
        """
        return self._decide(take(self.prudent, laid), (laid >= 0) & self.vetoed[laid])

    def _decide(self, utilities: Array, vetoed: NDArray[np.bool_] | None = None) -> Decision:
        profile = Profile(utilities, self.weights, np.arange(len(self.weights)))
        if vetoed is not None and vetoed.any():
            profile = profile.without(vetoed)
        charter = self.charter
        settings: dict[str, Any] = (
            {"share": charter.share} if charter.share is not None else {"parts": charter.parts} if charter.parts else {}
        )
        return decide(profile, charter.rule, **settings)

    def margins(self, left: Codes, right: Codes) -> Array:
        """(n,) by how much the charter prefers left to right, in logits; 0 where it is tied, or both are below a floor.

        Of a rule that scores responses by themselves, the difference of the scores without penalty. The others decide each pair as a prompt of
        two; their size is that of the weighted median over people of the gap where they see rankings only, and of the mean gap where they see
        utilities (nash, mixture).
        """
        gap = (self.by_person[:, left] - self.by_person[:, right]).T
        if self.charter.rule == "expected-utility":
            margin = gap @ self.weights
        elif self.charter.rule in POINTWISE:
            known = np.all(np.isfinite(self.by_person), axis=0)
            score = np.full(len(known), np.nan)
            score[known] = self._decide(self.by_person[:, known].T[:, :, None]).scores[:, 0]
            margin = score[left] - score[right]
        else:
            known = np.all(np.isfinite(gap), axis=1)
            margin = np.full(len(gap), np.nan)
            winners = self._decide(take(self.by_person, np.stack([left, right], axis=1)[known])).winners
            ranks = self.charter.rule not in ("nash", "mixture")
            size = weighted_median(gap[known], self.weights) if ranks else gap[known] @ self.weights
            margin[known] = (winners[:, 0].astype(float) - winners[:, 1]) * np.abs(size)
        by_floor = self.vetoed[right].astype(float) - self.vetoed[left]
        # what is vetoed loses to what is not; of two that are, neither wins
        return np.where(self.vetoed[left] & self.vetoed[right], 0.0, np.where(by_floor != 0, by_floor * VETO, margin))


def _missed(least: float, value: Array) -> Array:
    """Logits by which values miss a floor; 0 for what is not known."""
    return np.where(value < least, least - value, 0.0)


def collective_gaps(fit: Fit, charter: Charter, feedback: Feedback, left: Codes, right: Codes) -> Gaps:
    """The gaps of pairs under the charter: its electorate, and only the parts that it counts."""
    return fit.gaps(feedback, left, right, group_weights=charter.group_weights(fit), without=charter.without(), at=charter.at(fit))


def require_meetable(found: Collective, prompt: Codes) -> None:
    """Refuse floors that no response to any prompt meets.

    Raises
    ------
    InvalidCharter
        With the floors.
    """
    known = np.all(np.isfinite(found.by_person), axis=0)
    if known.any() and found.vetoed[known].all():
        floors = {**found.charter.floors.groups, **found.charter.floors.axes}
        said = ", ".join(f"{name} {least:g}" for name, least in floors.items())
        least = float(found.shortfall[known].min())
        raise InvalidCharter(
            "charter", f"no response of {int(known.sum()):,} meets the floors ({said} logits); the nearest misses by {least:.2g}",
            f"Lower them: responses to {len(np.unique(prompt[known])):,} prompts are known.",
        )  # fmt: skip


def lay_out(prompt: Codes, known: NDArray[np.bool_]) -> Codes:
    """(Q, M) codes of the known responses to each prompt (a code below 0 is none), in the order of prompts; -1 where there are fewer."""
    codes = np.flatnonzero(known & (prompt >= 0))
    codes = codes[np.argsort(prompt[codes], kind="stable")]
    _, start, count = np.unique(prompt[codes], return_index=True, return_counts=True)
    out = np.full((len(count), int(count.max(initial=0))), -1, dtype=np.int64)
    slot = np.arange(len(codes)) - np.repeat(start, count)
    out[np.repeat(np.arange(len(count)), count), slot] = codes
    return out


def take(by_person: Array, laid: Codes) -> Array:
    """(Q, G, M) utilities of laid-out responses, NaN where a question has fewer."""
    return np.where((laid >= 0)[:, None, :], by_person[:, laid].transpose(1, 0, 2), np.nan)


def weighted_median(values: Array, weights: Array) -> Array:
    """(n,) median over columns (n, G): half of the weight lies to either side; the middle of two where it falls between them."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, 1)
    below = np.cumsum(weights[order], axis=1)
    half = below[:, -1:] / 2
    low = np.take_along_axis(ordered, (below < half - 1e-12).sum(1)[:, None], 1)[:, 0]
    high = np.take_along_axis(ordered, np.minimum((below <= half + 1e-12).sum(1), values.shape[1] - 1)[:, None], 1)[:, 0]
    return (low + high) / 2
