"""What a choice costs whom: regret of each group, who gets their own favourite, which decisions other weights would turn.

Conventions
-----------
Q questions with at most M options; G groups (or single people). `utilities` (Q, G, M) are in logits, NaN where a question has fewer
options; `lottery` (Q, M) is the probability with which each option is chosen, as `rules.Decision` has it; `weights` (G,) add up to 1.
Utilities of different groups are compared only with what the same group could have had: no figure here adds logits of one group to
logits of another, unless it takes weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]

_TIE = 1e-9
"""Logits below which two options are the same to somebody: what rounding makes."""
_GRID = 512


@dataclass(frozen=True)
class Served:
    """What each group gets of what is chosen, question by question."""

    received: Array
    """(Q, G) expected utility, in logits."""
    best: Array
    """(Q, G) utility of the group's own favourite."""
    favourite: Array
    """(Q, G) probability that what is chosen is the group's own favourite; of k favourites alike, any will do."""

    @property
    def regret(self) -> Array:
        """(Q, G) logits that the group would gain if it alone chose: 0 is no regret."""
        return self.best - self.received

    def favoured(self, weights: Array) -> Array:
        """(Q,) share of people for whom what is chosen is their own favourite."""
        return self.favourite @ weights


def serve(utilities: Array, lottery: Array) -> Served:
    """What each group gets of what is chosen.

    Raises
    ------
    InvalidSetting
        If an option that a question does not have is chosen, or the probabilities of a question do not add up to 1.
    """
    there = np.isfinite(utilities)
    if (lottery[:, None, :] * ~there > 0).any():
        raise InvalidSetting("lottery", "an option without utilities", "Choose among the options that a question has.")
    off = np.abs(lottery.sum(1) - 1)
    if (off > 1e-6).any():
        raise InvalidSetting("lottery", float(lottery.sum(1)[off.argmax()]), "The probabilities of each question add up to 1.")
    value = np.where(there, utilities, 0.0)
    best = np.where(there, utilities, -np.inf).max(2)
    own = there & (value >= best[:, :, None] - _TIE)
    return Served(np.einsum("qgm,qm->qg", value, lottery), best, np.einsum("qgm,qm->qg", own.astype(float), lottery))


def most_favoured(utilities: Array, weights: Array) -> Array:
    """(Q,) the largest share of people whose favourite any one option is: what plurality reaches, and no rule exceeds.

    A share far below it is a fuzzy average: an option that few would have chosen themselves, where one was there that more would have.
    """
    there = np.isfinite(utilities)
    value = np.where(there, utilities, -np.inf)
    own = there & (value >= value.max(2, keepdims=True) - _TIE)
    return np.einsum("qgm,g->qm", own.astype(float), weights).max(1)


# ---------------------------------------------------------------------------------------------- other weights


def admissible(weights: Array, within: float) -> tuple[Array, Array]:
    """(low, high), each (G,): how small and large the weight of each group may be; infinity admits every weighting.

    Raises
    ------
    InvalidSetting
        If the factor is below 1.
    """
    if not within >= 1:
        raise InvalidSetting("within", within, "Use a factor of 1 or more by which each weight may be larger or smaller, or inf for any.")
    if np.isinf(within):  # a group without weight may have one, too
        return np.zeros(len(weights)), np.ones(len(weights))
    return weights / within, np.minimum(weights * within, 1.0)


def reach(gaps: Array, weights: Array, within: float = np.inf) -> tuple[Array, Array]:
    """(low, high), each (n,): the smallest and the largest mean gap that any admissible weighting gives.

        min and max of sum_g w_g gap_g  over  low_g <= w_g <= high_g,  sum_g w_g = 1

    A linear programme with one equation, solved exactly: every group starts at its least weight, and what is left goes to the groups
    with the smallest (largest) gaps first.

    Parameters
    ----------
    gaps : (n, G) in logits; weights : (G,) of the charter, which add up to 1; within : the factor of `admissible`.

    Source: the continuous knapsack problem (Dantzig 1957).
    """
    least, most = admissible(weights, within)
    out = []
    for sign in (1.0, -1.0):
        order = np.argsort(sign * gaps, axis=1)
        room = (most - least)[order]
        before = np.cumsum(room, axis=1) - room
        given = np.clip(1 - least.sum() - before, 0.0, room)
        out.append(gaps @ least + (given * np.take_along_axis(gaps, order, 1)).sum(1))
    return out[0], out[1]


def turned(utilities: Array, winner: NDArray[np.int64], weights: Array, within: float = np.inf) -> NDArray[np.bool_]:
    """(Q,) whether some admissible weighting of the groups' mean utilities prefers another option to this winner.

    Some weighting makes another option the best exactly where some weighting makes one other option better than the winner.
    """
    _, _, M = utilities.shape
    against = utilities - np.take_along_axis(utilities, winner[:, None, None], 2)  # (Q, G, M)
    there = np.all(np.isfinite(utilities), axis=1)
    out = np.zeros(len(utilities), dtype=bool)
    for option in range(M):
        asked = there[:, option] & (winner != option)
        _, high = reach(against[asked][:, :, option], weights, within)
        out[asked] |= high > _TIE
    return out


def irreconcilable(p: Array, *, rate: float = 0.05) -> NDArray[np.bool_]:
    """(n,) pairs on which no weighting contents everyone: one group surely prefers the first, and another surely the second.

    Both must hold of some group each: the larger of the two smallest tails, times the number of groups, at a false discovery rate.

    Parameters
    ----------
    p : (n, G) posterior probability that each group's gap is above 0; rate : expected share of pairs named wrongly.

    Source: Bonferroni over groups, an intersection-union test (Berger 1982) of the two sides, Benjamini & Hochberg 1995 over pairs.
    """
    return contested(np.stack([p.min(1, initial=1.0), (1 - p).min(1, initial=1.0)], axis=1), p.shape[1], rate=rate)


def contested(tail: Array, looks: int | NDArray[np.int64], *, rate: float = 0.05) -> NDArray[np.bool_]:
    """(Q,) questions in which every option surely loses, for some group, to one that it prefers: whichever is chosen, somebody surely loses.

    No weights enter, and one option that may content everyone settles the question. Of two options it is `irreconcilable`.

    Parameters
    ----------
    tail : (Q, M) the smallest posterior probability, over groups and the options that each is compared with, that the option is no worse
        to that group; NaN where a question has fewer options. looks : number, or (Q,), of the probabilities that the smallest is of.
    rate : expected share of questions named wrongly.

    Source: Bonferroni over groups and options, an intersection-union test (Berger 1982) over the options of a question, Benjamini &
    Hochberg 1995 over questions.
    """
    if not len(tail):
        return np.zeros(0, dtype=bool)
    least_sure = np.where(np.isnan(tail), 0.0, tail).max(1) * looks
    return false_discovery_control(np.minimum(least_sure, 1.0)) <= rate


def shared(p: Array, *, rate: float = 0.05) -> NDArray[np.bool_]:
    """(n,) pairs of which every group surely prefers the first: the largest tail of all groups, at a false discovery rate over pairs."""
    return false_discovery_control((1 - p).max(1)) <= rate if len(p) else np.zeros(0, dtype=bool)


def pareto(values: Array) -> NDArray[np.bool_]:
    """(n,) options that no other equals or exceeds on every axis and exceeds on one. values (n, A), higher is better."""
    at_least = np.all(values[None] >= values[:, None], axis=2)
    more = np.any(values[None] > values[:, None], axis=2)
    return ~np.any(at_least & more, axis=1)


# ---------------------------------------------------------------------------------------------- diversity


def diversity(lottery: Array) -> Array:
    """(Q,) effective number of options: exp of the entropy of what is chosen; 1 where it is always the same.

    Source: Hill 1973, the number of order 1.
    """
    p = np.where(lottery > 0, lottery, 1.0)
    return np.exp(-(lottery * np.log(p)).sum(1))


def groups_served(utilities: Array, lottery: Array) -> float:
    """Effective number of groups whose favourites are chosen, over all questions: G where all are served alike, 1 where one alone is.

    exp of the entropy of each group's share of the probability with which favourites of groups are chosen.
    """
    total = serve(utilities, lottery).favourite.sum(0)
    if not total.any():
        return 0.0
    share = total / total.sum()
    return float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()))


def one_mode(values: Array, *, rounds: int = 200, seed: int = 0) -> float:
    """p-value of the hypothesis that values (n,) of people have one mode: small where tastes cluster around two or more.

    The critical bandwidth is the narrowest Gaussian kernel whose density estimate has one mode. Samples of that density, scaled to the
    variance of the data, seldom need a wider one where there is one mode. The test is known to be conservative.

    Source: Silverman 1981.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < 10 or np.ptp(x) == 0:
        return 1.0
    critical = _critical_bandwidth(x)
    rng = np.random.default_rng(seed)
    shrink = 1 / np.sqrt(1 + critical**2 / x.var())
    wider = 0
    for _ in range(rounds):
        drawn = rng.choice(x, len(x))
        smooth = x.mean() + shrink * (drawn - x.mean() + critical * rng.standard_normal(len(x)))
        wider += _modes(smooth, critical) > 1
    return (wider + 1) / (rounds + 1)


def _critical_bandwidth(x: Array) -> float:
    """By bisection: a Gaussian kernel's modes only become fewer as it widens."""
    low, high = 1e-3 * np.ptp(x), float(np.ptp(x))
    for _ in range(30):
        middle = np.sqrt(low * high)
        low, high = (low, middle) if _modes(x, middle) <= 1 else (middle, high)
    return float(high)


def _modes(x: Array, bandwidth: float) -> int:
    """Local maxima of the kernel density estimate on a grid."""
    grid = np.linspace(x.min() - bandwidth, x.max() + bandwidth, _GRID)
    edges = np.linspace(grid[0], grid[-1], 2 * _GRID + 1)
    count, _ = np.histogram(x, edges)  # binned: a grid finer than any kernel that is tried
    centre = (edges[1:] + edges[:-1]) / 2
    used = count > 0
    density = np.exp(-0.5 * ((grid[:, None] - centre[used]) / bandwidth) ** 2) @ count[used]
    rising = np.sign(np.diff(density))
    rising = rising[rising != 0]
    return int(((rising[:-1] > 0) & (rising[1:] < 0)).sum())
