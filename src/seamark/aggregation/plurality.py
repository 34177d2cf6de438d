"""Several sets of values served side by side: who is shown what, what it is worth to whom, and whether anybody still meets the rest.

Conventions
-----------
An *entry* is one set of values that can be served: a group, a persona, a fit under a charter. Q prompts, E entries, at most M options of
a prompt. Values are logits less their mean over the prompt's options, so that 0 is an option drawn at random and what an entry
thinks of the prompt itself does not count; NaN where a prompt has fewer options. `served` (Q, E, M) is the probability that a person of
an entry is shown an option: rows sum to 1. Intervals are over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import entr

from seamark.aggregation.charter import Charter, Electorate
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, mean, mean_share
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]

PATIENCE = 0.5
"""p of rank-biased overlap: the probability of looking one rank further down. Few options are shown at a time, and at .9 the common
end of two short lists would make any two of them alike."""


# ---------------------------------------------------------------------------------------------- what each thinks of the same


@dataclass(frozen=True)
class Views:
    """What each of several entries thinks of the same options, prompt by prompt."""

    names: tuple[str, ...]
    share: Array
    """(E,) of people; sums to 1."""
    values: Array
    """(Q, E, M) see the conventions."""
    response: NDArray[np.int64]
    """(Q, M) code of each option among the responses; -1 where a prompt has fewer."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """(Q, M) where there is an option."""
        return self.response >= 0


def views_of(utilities: Array, feedback: Feedback, *, names: Sequence[str], share: Array | None = None) -> Views:
    """The views of entries on the prompts of which all of them can place at least two responses.

    Parameters
    ----------
    utilities
        (n_responses, E) logits; NaN where an entry cannot place a response, which is then no option for anybody.
    share
        (E,) of people; equal when None.

    Raises
    ------
    InvalidSetting
        If the shapes do not agree, or no prompt has two responses that all entries can place.
    """
    if utilities.shape != (feedback.n_responses, len(names)):
        raise InvalidSetting("utilities", utilities.shape, f"Give {feedback.n_responses} responses by {len(names)} entries.")
    prompt = feedback.responses["prompt"].cast(pl.Int64).fill_null(-1).to_numpy()  # entries of a leaderboard share one
    usable = np.isfinite(utilities).all(1)
    rows = np.flatnonzero(usable)[np.argsort(prompt[usable], kind="stable")]
    _, start, count = np.unique(prompt[rows], return_index=True, return_counts=True)
    start, count = start[count > 1], count[count > 1]
    if not len(start):
        raise InvalidSetting("feedback", repr(feedback), "No prompt has two responses that every entry can place.")
    place = start[:, None] + np.arange(count.max())
    response = np.where(np.arange(count.max()) < count[:, None], rows[np.minimum(place, len(rows) - 1)], -1)
    values = np.where((response >= 0)[:, None, :], utilities[response].transpose(0, 2, 1), np.nan)
    weights = np.ones(len(names)) if share is None else np.asarray(share, dtype=np.float64)
    return Views(tuple(names), weights / weights.sum(), values - np.nanmean(values, axis=2, keepdims=True), response)


def views_of_fit(fit: Fit, feedback: Feedback, *, without: tuple[str, ...] = ()) -> Views:
    """The views of a fit's groups, personas or tastes, with their shares; `without` names parts of the utility that do not count."""
    each = [fit.utilities(feedback, group_weights={name: 1.0}, without=without) for name in fit.groups]
    return views_of(np.stack(each, 1), feedback, names=fit.groups, share=fit.group_share)


# ---------------------------------------------------------------------------------------------- one signal each, or mixed


def charters_for(
    fit: Fit, charter: Charter, *, mixtures: Mapping[str, Mapping[str, float]] | None = None, authors: Sequence[str] = ()
) -> dict[str, Charter]:
    """The charter with one group's values at a time, for each group that counts, and with those of each mixture: as many signals of one fit.

    A mixture is exact: utilities are linear in the weights, so it lies between its groups on every gap, prefers what all of them prefer,
    and its ignorance is that of the weighted values, correlations between groups counted.

    Parameters
    ----------
    mixtures : by name, weights of groups; they sum to 1.
    authors : who signs these, on the day that `charter` is of. Its own authors signed other weights, so they are not taken over.

    Raises
    ------
    InvalidSetting
        If a mixture has the name of a group, weights of groups that are not there or do not count, or weights that do not sum to 1.
    """
    counted = fit.groups if charter.electorate.groups == "all" else tuple(n for n in fit.groups if n in charter.electorate.groups)
    asked: dict[str, Mapping[str, float]] = {name: {name: 1.0} for name in counted}
    for name, weights in (mixtures or {}).items():
        if name in asked:
            raise InvalidSetting("mixtures", name, "It is the name of a group already; give the mixture another.")
        asked[name] = require_weights(f"mixtures[{name!r}]", weights, counted)
    whole = charter.electorate.model_dump() | {"weighting": "named", "target": ""}
    return {
        name: charter.model_copy(
            update={
                "title": f"{charter.title}: {name}",
                "rationale": _rationale(weights, charter.title),
                "authors": tuple(authors),
                "electorate": Electorate.model_validate(whole | {"weights": dict(weights)}),
            }
        )
        for name, weights in asked.items()
    }


def _rationale(weights: Mapping[str, float], title: str) -> str:
    """Why a signal of these weights: the charter's own rationale is of other weights."""
    who = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items() if weight > 0)
    counts = f"{next(iter(weights))} alone counts" if len(weights) == 1 else f"Of groups there count {who}"
    return f"{counts}: one signal of several, so that people may choose by whose values. All else is as the charter {title!r} has it."


def require_weights(what: str, weights: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The weights above 0, of which there must be some, of known names, that sum to 1.

    Raises
    ------
    InvalidSetting
        If a name is not known, a weight is negative or no number, or they do not sum to 1.
    """
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise InvalidSetting(what, unknown[0], f"Use {', '.join(names)}.")
    values = np.array(list(weights.values()), dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > 1e-6:
        raise InvalidSetting(what, dict(weights), "Give numbers of 0 or more that sum to 1.")
    return {name: float(weight) for name, weight in weights.items() if weight > 0}


# ---------------------------------------------------------------------------------------------- who is shown what


def serve_own(views: Views) -> Array:
    """(Q, E, M): everybody their own entry's favourite, equal favourites alike often."""
    return _favourites(views.values)


def serve_one(views: Views, weights: Array | None = None) -> Array:
    """(Q, E, M): everybody the favourite of the weighted mean, by the entries' shares when None: one reward for all."""
    w = views.share if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
    return _to_all(_favourites(np.einsum("qem,e->qm", views.values, w)), views)


def serve_maximin(views: Views) -> Array:
    """(Q, E, M): everybody the option whose worst-off entry is least badly off, max_m min_e (u_em - max u_e).

    Each entry is counted from its own favourite. Counted from each fit's own zero, whoever thinks least of the prompt as a whole would
    decide alone; counted from the mean of the options, so would whoever's options have been copied most often.

    Source: Rawls 1971, and as regret, Savage 1951; as a policy, Chakraborty et al. 2024 (MaxMin-RLHF).
    """
    regret = np.nanmax(views.values, axis=2, keepdims=True) - views.values
    return _to_all(_favourites(-regret.max(1)), views)


def _favourites(values: Array) -> Array:
    """(..., M): probability 1 shared by the options of the largest value; 0 where there is no option."""
    best = values >= np.nanmax(values, axis=-1, keepdims=True) - 1e-12
    return best / best.sum(-1, keepdims=True)


def _to_all(shown: Array, views: Views) -> Array:
    return np.repeat(shown[:, None, :], len(views.names), axis=1)


@dataclass(frozen=True)
class Worth:
    """What one entry's people get out of what they are shown."""

    name: str
    share: float
    gain: Interval
    """Logits above an option drawn at random."""
    regret: Interval
    """Logits below their own favourite."""


def worth(views: Views, served: Array) -> tuple[Worth, ...]:
    """What each entry's people get, by their own values: all of them, the smallest as well.

    Parameters
    ----------
    views : what they truly think, or are estimated to.
    served : (Q, E, M) what they are shown, whatever it was chosen by.

    Raises
    ------
    InvalidSetting
        If `served` is not of the views' prompts, entries and options.
    """
    _require_served(views, served)
    gain = np.nansum(views.values * served, axis=2)
    regret = np.nanmax(views.values, axis=2) - gain
    return tuple(Worth(name, float(views.share[e]), mean(gain[:, e]), mean(regret[:, e])) for e, name in enumerate(views.names))


def _require_served(views: Views, served: Array) -> None:
    if served.shape != views.values.shape:
        raise InvalidSetting("served", served.shape, f"It is of prompts, entries and options: {views.values.shape}.")
    if (np.where(views.present[:, None, :], 0.0, served) > 0).any() or np.abs(served.sum(2) - 1).max() > 1e-9:
        raise InvalidSetting("served", "other", "Each row is a probability of the prompt's options and sums to 1.")


# ---------------------------------------------------------------------------------------------- value bubbles


@dataclass(frozen=True)
class Bubbles:
    """How far people are shown only what they like, and each entry's people something else. All figures are in [0, 1]."""

    separation: Interval
    """How much what somebody is shown tells of whose values they are served: mutual information of entry and option shown, over the
    entropy of the entries' shares. 0 where everybody is shown the same, 1 where no two entries ever are."""
    same: Interval
    """Probability that two people of different entries are shown the same option under the same prompt."""
    disliked: Interval
    """Share of what people are shown that their own entry thinks worse of than of an option drawn at random."""
    exposure: Interval
    """Entropy of what one person is shown under a prompt, over that of all its options: 0 where it is always the same one."""
    disagreement: Interval
    """Share of pairs of options that two people of different entries put in opposite order: what the values bring, whatever is shown."""
    overlap: Interval
    """Rank-biased overlap of the orders of two people of different entries: 1 where they agree, the first places weighing most. It
    depends on how many options there are."""
    same_by_pair: pl.DataFrame
    """entry, other, same, overlap, disagreement: the means for each two entries."""


def bubbles(views: Views, served: Array | None = None) -> Bubbles:
    """The value-bubble meter: for people matched to entries, how far what they are shown keeps them apart.

    The first four are of what is shown, the last two of the values alone. One shared signal over entries that disagree is no bubble
    (separation 0, disagreement above it); neither are separate signals of entries that agree.

    Parameters
    ----------
    served : (Q, E, M) what people are shown; each entry's own favourite when None.

    Raises
    ------
    InvalidSetting
        If `served` is not of the views' prompts, entries and options.

    Source: mutual information as the generalised Jensen-Shannon divergence (Lin 1991); rank-biased overlap, Webber et al. 2010, eq. 32.
    """
    shown = serve_own(views) if served is None else served
    _require_served(views, shown)
    share, E = views.share, len(views.names)
    spread = float(entr(share).sum())
    apart = entr(np.einsum("qem,e->qm", shown, share)).sum(1) - entr(shown).sum(2) @ share
    separation = np.clip(apart / spread, 0.0, 1.0) if spread > 0 else np.zeros(len(shown))
    options = views.present.sum(1)
    exposure = (entr(shown).sum(2) @ share) / np.log(options)
    disliked = np.einsum("qem,e->q", shown * (views.values < -1e-12), share)
    one, two = np.triu_indices(E, 1)
    if E == 1:  # two people of one entry
        one = two = np.zeros(1, dtype=np.int64)
    met = share[one] * share[two]
    met = met / met.sum() if met.sum() > 0 else np.full(len(one), 1 / len(one))
    same = np.einsum("qpm,qpm->qp", shown[:, one], shown[:, two])
    ranks = _ranks(views.values)
    overlap = rank_biased_overlap(ranks[:, one], ranks[:, two], options)
    opposed = _opposed(views.values[:, one], views.values[:, two])
    by_pair = pl.DataFrame(
        {
            "entry": [views.names[i] for i in one], "other": [views.names[i] for i in two],
            "same": same.mean(0), "overlap": overlap.mean(0), "disagreement": opposed.mean(0),
        }
    )  # fmt: skip
    return Bubbles(
        mean_share(separation), mean_share(same @ met), mean_share(np.clip(disliked, 0, 1)), mean_share(np.clip(exposure, 0, 1)),
        mean_share(opposed @ met), mean_share(overlap @ met), by_pair,
    )  # fmt: skip


def _ranks(values: Array) -> NDArray[np.int64]:
    """(Q, E, M) place of each option, best 0; absent ones come last."""
    order = np.argsort(np.where(np.isnan(values), np.inf, -values), axis=-1, kind="stable")
    return np.argsort(order, axis=-1, kind="stable")


def rank_biased_overlap(one: NDArray[np.int64], two: NDArray[np.int64], options: NDArray[np.int64], *, p: float = PATIENCE) -> Array:
    """(Q, n) overlap of orders of the same options, extrapolated beyond the last.

        A_M p^M + (1 - p) / p sum_d A_d p^d,   A_d the share of either's first d that both have there

    Parameters
    ----------
    one, two : (Q, n, M) places, best 0; options : (Q,) how many of the M there are.

    Source: Webber, Moffat & Zobel 2010, equation 32.
    """
    depth = np.arange(1, one.shape[-1] + 1)
    both = (np.maximum(one, two)[..., None] < depth).sum(-2)  # (Q, n, depths): options that both have by then
    within = depth <= options[:, None]
    terms = np.where(within[:, None, :], both / depth * p**depth, 0.0)
    return p ** options[:, None] + (1 - p) / p * terms.sum(-1)  # A_M is 1: both lists hold all options


def _opposed(one: Array, two: Array) -> Array:
    """(Q, n) share of pairs of options put in opposite order; a tie of either counts half."""
    i, j = np.triu_indices(one.shape[-1], 1)
    signs = np.sign(one[..., i] - one[..., j]) * np.sign(two[..., i] - two[..., j])
    return np.nanmean(np.where(np.isnan(signs), np.nan, (1 - signs) / 2), axis=-1)
