"""Whose values are these? A new person or community placed among several sets of values by a few answers, and what to ask them next.

Conventions
-----------
An *entry* is one set of values that can be served: a group, a persona, a fit under a charter. E entries, B slopes of how carefully
somebody answers, n questions of K possible answers. A person is one entry and one slope, neither of which is known:

    p(e, b | y)  ~  share_e  p(b)  prod_j p(y_j | values of e, slope b)

share_e is of people: how many hold these values before anything is asked. An entry that nobody is known to hold (a mixture) has a small
one, not that of a group (`Catalogue.shares`).
Logarithms are natural and information is in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, kron
from scipy.special import entr, expit, logsumexp

from seamark.errors import InvalidSetting
from seamark.models.people import Factor, columns_of
from seamark.models.prediction import predict
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_NO_MASS = 1e-4
"""A slope of less prior mass than this is not looked at."""
_FOREIGN_SLOPES = np.append(0.0, np.geomspace(1 / 8, 8, 13))
_FOREIGN_SPREAD = 1.0
"""Sd of the log slope where values come from several fits: each has a unit of its own, so a factor of three either way is likely."""
_NODES = np.linspace(-4, 4, 61)
"""Of the gap's normal, in standard deviations, for the trapezoid rule: at a slope of 8 an answer is nearly a step, of which 5
Gauss-Hermite nodes are off by .17 and 31 by .03."""
_AT_CHANCE = 0.1
"""Share of people whose answers follow no values, as the fit assumes before it has seen any."""
_SEEN_BEFORE = 2.0
"""People that the shares of the entries count for when a community is placed: so few that a dozen of its own outweigh them."""
_ROUNDS, _BURNT = 4000, 500


@dataclass(frozen=True)
class Likelihood:
    """How likely somebody's answers are, were they of each entry and as careful as each slope says."""

    log: Array
    """(E, B) log probability of all the answers."""
    slope: Array
    """(B,)"""
    slope_share: Array
    """(B,) of people, before any answer."""
    n: int
    """Answers that it is made of."""
    left_out: int = 0
    """Answers that some entry could not place, or that decide nothing."""


@dataclass(frozen=True)
class Match:
    """Where somebody stands among entries, known by a few answers."""

    names: tuple[str, ...]
    share: Array
    """(E,) of people, before any answer."""
    joint: Array
    """(E, B) posterior of entry and slope; sums to 1."""
    slope: Array
    """(B,)"""
    n: int
    left_out: int = 0

    @property
    def posterior(self) -> Array:
        """(E,) probability of each entry. As weights of a mixture it is the person's expected utility, so that whoever serves the best
        of that mixture loses least in expectation."""
        return self.joint.sum(1)

    @property
    def weights(self) -> dict[str, float]:
        """`posterior` by name: weights for a charter's electorate, or for a mixture of rewards."""
        return {name: float(p) for name, p in zip(self.names, self.posterior, strict=True)}

    @property
    def chosen(self) -> str:
        """The most probable entry; among equals the first."""
        return self.names[int(self.posterior.argmax())]

    @property
    def doubt(self) -> float:
        """Entropy of the posterior, in nats: 0 where the entry is known."""
        return float(entr(self.posterior).sum())

    @property
    def follows(self) -> float | None:
        """Probability that the answers follow some entry's values rather than none (a slope of 0, or below); None where everybody is
        taken to be careful. Low, the person's values are not in the catalogue, or they were not paying attention."""
        return float(self.joint[:, self.slope > 0].sum()) if (self.slope <= 0).any() else None


def match(likelihood: Likelihood, names: Sequence[str], *, share: Array | None = None) -> Match:
    """Where somebody stands, from how likely their answers are under each entry.

    Parameters
    ----------
    share : (E,) of people in each entry before any answer; equal when None.

    Raises
    ------
    InvalidSetting
        If there are not as many names and shares as entries, or the shares are negative or all 0.
    """
    prior = _shares(names, share)
    if len(names) != len(likelihood.log):
        raise InvalidSetting("names", list(names), f"There are {len(likelihood.log)} entries; name each.")
    with np.errstate(divide="ignore"):  # an entry of no share stays impossible
        log_joint = np.log(prior)[:, None] + np.log(likelihood.slope_share) + likelihood.log
    joint = np.exp(log_joint - logsumexp(log_joint))
    return Match(tuple(names), prior, joint, likelihood.slope, likelihood.n, likelihood.left_out)


def match_person(fit: Fit, judgments: Feedback) -> Match:
    """Where one person stands among the groups, personas or tastes of a fit, by all of its observation model.

    For latent levels it is the posterior of `for_person`; it also places people among groups that a column told in training.

    Raises
    ------
    InvalidSetting
        If values do not differ by people, or the judgments name several raters.
    """
    if judgments.judgments["rater"].n_unique() > 1:
        named = judgments.judgments["rater"].n_unique()
        raise InvalidSetting(
            "judgments", f"those of {named} raters, or of one and of some not known", "Give those of one person at a time."
        )
    return match(likelihood_of(fit, judgments), fit.groups, share=fit.group_share)


def unmatched(fit: Fit) -> Match:
    """Where anybody stands among the groups, personas or tastes of a fit before any answer: for `information` of a first question.

    Raises
    ------
    InvalidSetting
        If values do not differ by people.
    """
    slope, share = _slopes(fit)
    return match(Likelihood(np.zeros((len(fit.groups), len(slope))), slope, share, 0), fit.groups, share=fit.group_share)


@dataclass(frozen=True)
class Community:
    """How a community divides among entries: shares of its people, with 95% intervals."""

    names: tuple[str, ...]
    mean: Array
    """(E,) sums to 1: weights of the mixture that speaks for it."""
    low: Array
    high: Array
    members: Array
    """(N, E) posterior of each person's entry."""
    n: int
    """Answers of all its people."""

    @property
    def weights(self) -> dict[str, float]:
        """`mean` by name."""
        return {name: float(w) for name, w in zip(self.names, self.mean, strict=True)}


def match_community(likelihoods: Sequence[Likelihood], names: Sequence[str], *, share: Array | None = None, seed: int = 0) -> Community:
    """How the people of a community divide among entries, from a few answers of each.

        w ~ Dirichlet(c share),   z_i ~ w,   p(y_i | z_i) with i's slope integrated out

    w is not the mean of the people's own posteriors: that would hold those of whom little is known to the shares of elsewhere. It is
    drawn by Gibbs sampling, each person's entry and the weights in turn.

    Source: Diebolt & Robert 1994, with the components known.
    """
    prior = _shares(names, share)
    if not likelihoods:
        raise InvalidSetting("likelihoods", [], "A community has people; give the answers of at least one.")
    log = np.array([logsumexp(one.log + np.log(one.slope_share), axis=1) for one in likelihoods])
    chance = np.exp(log - log.max(1, keepdims=True))
    rng = np.random.default_rng(seed)
    weights, drawn, members = prior, np.empty((_ROUNDS, len(names))), np.zeros_like(chance)
    for step in range(-_BURNT, _ROUNDS):
        own = chance * weights
        own /= own.sum(1, keepdims=True)
        entry = (rng.random((len(own), 1)) > own.cumsum(1)[:, :-1]).sum(1)
        weights = rng.dirichlet(_SEEN_BEFORE * prior + np.bincount(entry, minlength=len(names)) + 1e-12)
        if step >= 0:
            drawn[step] = weights
            members += own / _ROUNDS
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Community(tuple(names), drawn.mean(0), low, high, members, sum(one.n for one in likelihoods))


def _shares(names: Sequence[str], share: Array | None) -> Array:
    given = np.ones(len(names)) if share is None else np.asarray(share, dtype=np.float64)
    if given.shape != (len(names),) or not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise InvalidSetting("share", given.tolist(), f"Give {len(names)} numbers of 0 or more, one for each entry, not all 0.")
    return given / given.sum()


# ---------------------------------------------------------------------------------------------- how likely the answers are


def likelihood_of(fit: Fit, judgments: Feedback) -> Likelihood:
    """How likely the answers are under each group, persona or taste of one fit: its families, effects and slopes, the utilities' own
    doubt integrated out judgment by judgment.

    Raises
    ------
    InvalidSetting
        If values do not differ by people.
    """
    people, slope, slope_share = _people(fit), *_slopes(fit)
    anybody = _by_nobody(judgments)
    log, counted = np.zeros((len(people.levels), len(slope))), 0.0
    for e, b, certain in _certain(fit, people, slope):
        found = predict(certain, anybody)
        log[e, b] = sum(float(p.count @ np.log(np.maximum(_of(p.probs, p.outcome), 1e-300))) for p in found)
        counted = sum(float(p.count.sum()) for p in found)
    n = min(judgments.n_judgments, round(counted))
    return Likelihood(log, slope, slope_share, n, judgments.n_judgments - n)


def likelihood_of_choices(gap: Array, gap_sd: Array, first: NDArray[np.bool_], *, left_out: int = 0) -> Likelihood:
    """How likely decided pairs are under entries of several fits, by one observation for all: an entry is to win by its values, not
    because the people it was fitted to tied less often.

        p(first | e, b) = E sigmoid(b g),   g ~ N(gap_e, gap_sd_e^2)

    Parameters
    ----------
    gap, gap_sd : (n, E) logits, first less second, and how sure each entry is of it; first : (n,) whether the first was preferred.
    """
    p = choice_probs(gap, gap_sd)[..., 0]
    of_answer = np.where(first[:, None, None], p, 1 - p)
    mass = np.exp(-0.5 * (np.log(_FOREIGN_SLOPES[1:]) / _FOREIGN_SPREAD) ** 2)
    slope_share = np.concatenate([[_AT_CHANCE], (1 - _AT_CHANCE) * mass / mass.sum()])
    return Likelihood(np.log(np.maximum(of_answer, 1e-300)).sum(0), _FOREIGN_SLOPES, slope_share, len(gap), left_out)


def choice_probs(gap: Array, gap_sd: Array) -> Array:
    """(n, E, B, 2) probability of either side of pairs, as `likelihood_of_choices` has it."""
    mass = np.exp(-0.5 * _NODES**2)
    drawn = gap[..., None] + gap_sd[..., None] * _NODES  # (n, E, nodes)
    p = expit(_FOREIGN_SLOPES[:, None] * drawn[:, :, None, :]) @ (mass / mass.sum())
    return np.stack([p, 1 - p], -1)


# ---------------------------------------------------------------------------------------------- what to ask next


def question_probs(fit: Fit, feedback: Feedback, left: Codes, right: Codes) -> Array:
    """(n, E, B, K) probability of each answer to each pair of responses (codes), were it asked of a person of each group, persona or
    taste with each slope; NaN where a response cannot be placed."""
    people, (slope, _) = _people(fit), _slopes(fit)
    asked = _questions(feedback, left, right)
    place = {pair: i for i, pair in enumerate(zip(left.tolist(), right.tolist(), strict=True))}
    if len(place) < len(left):
        raise InvalidSetting("left, right", f"{len(left) - len(place)} pairs given twice", "Name each question once.")
    out: Array | None = None
    for e, b, certain in _certain(fit, people, slope):
        for p in predict(certain, asked):
            if out is None:
                out = np.full((len(left), len(people.levels), len(slope), p.family.n_outcomes), np.nan)
            out[[place[pair] for pair in map(tuple, p.shown.tolist())], e, b] = p.probs
    if out is None:
        raise InvalidSetting("left, right", len(left), "The fit can place none of these pairs; a table knows its own responses only.")
    return out


def information(matched: Match, probs: Array) -> Array:
    """(n,) expected information that the answer to each question has of the person's entry, in nats; NaN where it is not known.

        I(y; e) = H(sum_e p_e p(y | e)) - sum_e p_e H(p(y | e)),   p(y | e) = sum_b p(b | e) p(y | e, b)

    A question that every entry answers alike says nothing, however unsure the answer; so does one that only tells how careful the
    person is.

    Parameters
    ----------
    probs : (n, E, B, K) of `question_probs`, or of `choice_probs`.

    Source: Lindley 1956; BALD (Houlsby et al. 2011).
    """
    posterior = matched.posterior
    within = matched.joint / np.maximum(posterior, 1e-300)[:, None]
    by_entry = np.einsum("nebk,eb->nek", probs, within)
    overall = np.einsum("nek,e->nk", by_entry, posterior)
    return np.maximum(entr(overall).sum(-1) - entr(by_entry).sum(-1) @ posterior, 0.0)


def updated(matched: Match, probs: Array) -> Match:
    """The match after one more answer, of which `probs` (E, B) says how likely it was."""
    joint = matched.joint * probs
    return replace(matched, joint=joint / joint.sum(), n=matched.n + 1)


# ---------------------------------------------------------------------------------------------- a fit, of one kind of person


def _people(fit: Fit) -> Factor:
    people = next((f for f in fit.factors if f.name in ("group", "persona", "taste")), None)
    if people is None:
        raise InvalidSetting("fit", fit.spec["people"]["people"], "Values do not differ by people; fit Groups, Personas or Varying.")
    return people


def _slopes(fit: Fit) -> tuple[Array, Array]:
    """Slopes of a rater not seen before and their shares; those of next to no share are left out."""
    people = _people(fit)
    L = len(people.levels) if people.latent else 1
    share = fit.slope_weights[-1].reshape(L, -1).sum(0)
    slope = fit.slope_nodes[-1].reshape(L, -1)[0]  # the grid of an unseen rater is the same at every level
    kept = share > _NO_MASS
    return slope[kept], share[kept] / share[kept].sum()


def _certain(fit: Fit, people: Factor, slope: Array) -> list[tuple[int, int, Fit]]:
    """Entry, slope, and the fit as it is for whoever is known to be of that entry and as careful as that."""
    out: list[tuple[int, int, Fit]] = []
    R = len(fit.slope_nodes)
    for e in range(len(people.levels)):
        lone = of_one_mind(fit, np.eye(len(people.levels))[e])
        for b, value in enumerate(slope):
            out.append((e, b, replace(lone, slope_nodes=np.full((R, 1), value), slope_weights=np.ones((R, 1)))))
    return out


def of_one_mind(fit: Fit, share: Array) -> Fit:
    """The fit of people who all weigh the groups' values by `share` (E,), for `predict`: nobody differs from anybody in it.

    With W the k values and z = share . loadings the person's weights of those of the groups, the shared value becomes W_0 + z W_groups
    and its covariance follows; axes, contexts and periods stay. How far data or prior speaks (`support`) is that of the fit it is from.
    """
    people = _people(fit)
    mine, (k, P) = columns_of(fit.factors)[people.name], fit.weights.shape
    kept = [c for c in range(k) if c not in mine]
    take = np.zeros((len(kept), k))
    take[np.arange(len(kept)), kept] = 1.0
    take[0, list(mine)] = share @ people.loadings[:-1]

    def taken(factor: Array | csr_array) -> Array | csr_array:
        if isinstance(factor, csr_array):
            return csr_array(kron(csr_array(take), csr_array((np.ones(P), (np.arange(P), np.arange(P))))) @ factor)
        return np.einsum("ab,bpr->apr", take, factor.reshape(k, P, -1)).reshape(len(kept) * P, -1)

    prior = fit.prior
    if fit.basis.walk is not None:  # the step of the shared value is now that of the person's
        z = np.zeros(k)
        z[0], z[list(mine)] = 1.0, take[0, list(mine)]
        prior = prior | {"values of period_sd": float(np.sqrt(fit.new_variance(z)))}
    return replace(
        fit, factors=tuple(f for f in fit.factors if f is not people), weights=take @ fit.weights, factor=taken(fit.factor), robust=None,
        prior=prior,
    )  # fmt: skip


def _by_nobody(judgments: Feedback) -> Feedback:
    """The judgments as of somebody who was not in the fit."""
    return replace(judgments, judgments=judgments.judgments.with_columns(rater=pl.lit(None, dtype=judgments.judgments["rater"].dtype)))


def _questions(feedback: Feedback, left: Codes, right: Codes) -> Feedback:
    """The pairs as judgments of nobody, about the responses of `feedback`, whose codes stay; the order shown is not known."""
    schema = feedback.judgments.schema
    given: Mapping[str, object] = {
        "kind": ["pair"] * len(left), "outcome": ["left"] * len(left), "order_known": [False] * len(left),
        "responses": np.stack([left, right], 1).tolist(), "prompt": feedback.responses["prompt"].gather(left).to_list(),
    }  # fmt: skip
    columns = {name: given.get(name, [None] * len(left)) for name in schema if not name.startswith("covariate.")}
    return replace(feedback, judgments=pl.DataFrame(columns, schema={name: schema[name] for name in columns}))


def _of(probs: Array, outcome: Codes) -> Array:
    return np.take_along_axis(probs, outcome[:, None], 1)[:, 0]
