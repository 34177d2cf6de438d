"""Rules that look at majorities only: Copeland, Kemeny, ranked pairs, the maximal lottery, and what Bradley-Terry makes of shares.

Conventions
-----------
margins : (Q, M, M), share that prefers i to j less the share that prefers j to i; NaN where either is absent.
present : (Q, M) options that a question has. Scores are NaN where absent; lotteries and winners are 0 and False there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from seamark.aggregation.profiles import TIE, Array, Mask
from seamark.errors import InvalidSetting

KEMENY_LIMIT = 12
"""Options that Kemeny is exact for: 2^M subsets are gone through, M steps each."""

_SUPPORTS_LIMIT = 10
"""Options up to which the support of a lottery is found by going through all of odd size."""

_ORDERS_LIMIT = 50_000
"""Partial orders that the ties of one question may lead ranked pairs through."""


def borda(margins: Array, present: Mask) -> Array:
    """(Q, M) mean share that an option gets against each of the others, half of the ties: in [0, 1].

    With one option it is 1/2. Source: Borda 1781; as a win share, Siththaranjan, Laidlaw & Hadfield-Menell 2024.
    """
    others = np.maximum(present.sum(-1, keepdims=True) - 1, 1)
    return np.where(present, 0.5 + _known(margins).sum(-1) / (2 * others), np.nan)


def copeland(margins: Array, present: Mask) -> Array:
    """(Q, M) majorities won less majorities lost. Source: Copeland 1951."""
    return np.where(present, np.sign(_known(margins)).sum(-1), np.nan)


def kemeny(margins: Array, present: Mask) -> Array:
    """(Q, M) agreement of the best order that has this option first: the sum of margins of each option over those below it.

    g(S), the agreement of the best order of a set, is max over i in S of sum_j m_ij + g(S without i); exact, in 2^M M steps that are
    each taken for all questions at once. Source: Kemeny 1959; the recursion, Held & Karp 1962.

    Raises
    ------
    InvalidSetting
        If there are more options than `KEMENY_LIMIT`.
    """
    m = margins.shape[1]
    if m > KEMENY_LIMIT:
        remedy = f"Kemeny is exact to {KEMENY_LIMIT} options here and there are {m}; take fewer, or ranked-pairs, which resembles it."
        raise InvalidSetting("rule", "kemeny", remedy)
    found = np.empty(present.shape)
    step = max(1, 2**22 // 2**m)  # questions at a time: the table has 2^M rows
    for start in range(0, len(margins), step):
        at = slice(start, start + step)
        over = np.moveaxis(_known(margins[at]), 0, -1)  # (M, M, q): absent options have no margins, and go anywhere
        best = np.zeros((2**m, over.shape[-1]))
        for subset in range(1, 2**m):
            members = [i for i in range(m) if subset >> i & 1]
            best[subset] = np.max([over[i, members].sum(0) + best[subset ^ (1 << i)] for i in members], axis=0)
        whole = 2**m - 1
        found[at] = np.stack([over[i].sum(0) + best[whole ^ (1 << i)] for i in range(m)], -1)
    return np.where(present, found, np.nan)


def smith(margins: Array, present: Mask) -> Mask:
    """(Q, M) the Smith set: the fewest options that each beat every option outside."""
    m = margins.shape[1]
    with np.errstate(invalid="ignore"):
        reaches = (margins >= 0) & present[:, :, None] & present[:, None]
    for k in range(m):  # Warshall's closure
        reaches |= reaches[:, :, k, None] & reaches[:, k, None, :]
    return (reaches | ~present[:, None]).all(-1) & present


def ranked_pairs(margins: Array, present: Mask) -> Mask:
    """(Q, M) options that come first when majorities are locked in from the largest margin down, whatever would close a circle left out.

    Where margins are equal, an option wins that comes first under some order of them (Tideman's own reading; a lot decides among
    them, `Decision.lottery`). Pairs that are tied come last, either way round. Source: Tideman 1987; Zavist & Tideman 1989.

    Only an option can win that answers each of its losses by a path of majorities as strong (the Split Cycle winners, of Holliday &
    Pacuit 2023). Where there are several, the orders are followed up, among the Smith set.

    Raises
    ------
    InvalidSetting
        If equal margins could be ordered in too many ways to follow them all.
    """
    over = _known(margins)
    path = np.maximum(over, 0)
    for k in range(margins.shape[1]):  # Floyd and Warshall's: the widest path, whose weakest majority is strongest
        path = np.maximum(path, np.minimum(path[:, :, k, None], path[:, k, None, :]))
    winners = (path >= over.transpose(0, 2, 1)).all(-1) & present
    several = np.flatnonzero(winners.sum(-1) > 1)
    core = smith(margins[several], present[several])
    for q, inside in zip(several, core, strict=True):
        options = np.flatnonzero(inside)
        first = _first_in_some_order(margins[q][np.ix_(options, options)], set(np.flatnonzero(winners[q, options]).tolist()))
        winners[q] = False
        winners[q, options[first]] = True
    return winners


def _first_in_some_order(margins: Array, candidates: set[int]) -> list[int]:
    """Which of the candidates are first under some order of locking equal margins; (k, k) margins, all of them known.

    A state is who is above whom so far, as a bit set of those below each option, and which of the edges at hand are to be blocked.
    Locking adds and never takes away: what is blocked stays blocked, and who has someone above is out. Each edge that a circle runs
    through is either locked or blocked, so that every outcome of a level is met once, and not once for every order that leads to it.
    """
    k = len(margins)
    strengths = sorted({float(s) for s in margins[margins > 0]}, reverse=True)
    levels = [[(int(i), int(j)) for i, j in np.argwhere(margins == s)] for s in strengths]
    todo: list[tuple[int, tuple[int, ...], frozenset[tuple[int, int]]]] = [(0, (0,) * k, frozenset())]
    seen, winners = set(todo), set[int]()
    while todo and winners < candidates:
        level, below, blocked = todo.pop()
        top = {i for i in range(k) if not any(b >> i & 1 for b in below)}
        if not top & candidates - winners:
            continue
        if level == len(levels):
            # the pairs that are left are tied, and may be locked either way: any order that extends this one is reached
            winners |= top
            continue
        free = [(i, j) for i, j in levels[level] if not (below[i] >> j & 1 or below[j] >> i & 1 or (i, j) in blocked)]
        whole = below
        for i, j in free:
            whole = _locked(whole, i, j)
        if any(not whole[j] >> i & 1 for i, j in blocked):
            continue  # nothing is left that could block it
        for i, j in free:
            if not whole[j] >> i & 1:  # no circle runs through it
                below = _locked(below, i, j)
        open_ = [(i, j) for i, j in free if not (below[i] >> j & 1 or below[j] >> i & 1)]
        if open_:
            i, j = max(open_, key=lambda edge: edge[1] in top)  # deciding who is out first leaves least to decide
            states = ((level, below, blocked | {(i, j)}), (level, _locked(below, i, j), blocked))
        else:
            states = ((level + 1, below, frozenset[tuple[int, int]]()),)
        for state in states:
            if state not in seen:
                seen.add(state)
                todo.append(state)
        if len(seen) > _ORDERS_LIMIT:
            remedy = f"{k} options have so many equal margins that their orders cannot all be followed; take kemeny or maximal-lottery."
            raise InvalidSetting("rule", "ranked-pairs", remedy)
    return sorted(winners)


def _locked(below: tuple[int, ...], i: int, j: int) -> tuple[int, ...]:
    """Who is below whom once i is above j."""
    gained = below[j] | 1 << j
    return tuple(b | gained if a == i or b >> i & 1 else b for a, b in enumerate(below))


# ---------------------------------------------------------------------------------------------- the maximal lottery


def maximal_lottery(margins: Array, present: Mask) -> Array:
    """(Q, M) the lottery that no other beats on average: p >= 0, sum p = 1, p' M >= 0.

    Where several lotteries are such (there are ties), it is the one nearest to giving every option the same, the least sum of p^2:
    there is one such, whatever the order of the options. Source: Kreweras 1965; Fishburn 1984; supports, Fisher & Ryan 1992.

    A Condorcet winner gets all. Otherwise the support of a unique lottery has an odd number k of options and p is the kernel of their
    margins: p_i is in proportion to the Pfaffian of the others', which for a circle of three are the opposite margins. All odd
    supports are tried, for all questions at once; p is unique if it loses to no option and beats each outside of its support.
    """
    m = margins.shape[1]
    over = _known(margins)
    lottery = np.zeros(present.shape)
    only = (np.where(np.isnan(margins) | np.eye(m, dtype=bool), 1, over) > TIE).all(-1) & present
    lottery[only] = 1
    todo = np.flatnonzero(~only.any(-1) & present.any(-1))
    if m <= _SUPPORTS_LIMIT and len(todo):
        lottery[todo] = _by_support(over[todo], present[todo])
        todo = todo[lottery[todo].sum(-1) < 0.5]
    for q in todo:
        lottery[q, present[q]] = _least_squares_lottery(over[q][np.ix_(present[q], present[q])])
    return lottery


def _by_support(over: Array, present: Mask) -> Array:
    """(Q, M) the lottery where it is unique and its support is odd, which is so but for ties; else zeros."""
    q, m = present.shape
    pfaffian: dict[tuple[int, ...], Array] = {(): np.ones(q)}
    for size in range(2, m, 2):
        for first, *rest in combinations(range(m), size):
            parts = ((-1) ** k * over[:, first, j] * pfaffian[(*rest[:k], *rest[k + 1 :])] for k, j in enumerate(rest))
            pfaffian[(first, *rest)] = sum(parts, np.zeros(q))
    found = np.zeros((q, m))
    for support in _odd(m):
        p = np.zeros((q, m))
        for k, i in enumerate(support):
            p[:, i] = (-1) ** k * pfaffian[(*support[:k], *support[k + 1 :])]
        total = p.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            p /= total[:, None]
        inside = np.isin(np.arange(m), support)
        payoff = np.einsum("qi,qij->qj", p, over)
        # absent options have margins of 0 and would seem to be tied
        outside_beaten = ((payoff > TIE) | inside | ~present).all(-1)
        sound = (p[:, inside] > TIE).all(-1) & (np.abs(payoff[:, inside]) < TIE).all(-1) & outside_beaten & present[:, inside].all(-1)
        found[sound] = p[sound]
    return found


def _odd(m: int) -> Iterator[tuple[int, ...]]:
    for size in range(3, m + 1, 2):
        yield from combinations(range(m), size)


def _least_squares_lottery(over: Array) -> Array:
    """(k,) the lottery with the least sum of squares among those that lose to no option; (k, k) margins.

    Wolfe's (1976) way to the point of a polytope that is nearest to 0: the nearest of the hull of some corners, then the corner that
    is nearest in its direction, by a linear programme, until no corner is nearer.
    """
    from scipy.optimize import linprog, nnls

    k = len(over)
    corners = np.zeros((k, 0))
    p = np.zeros(k)
    for _ in range(100 * k):
        found = linprog(p, A_ub=-over.T, b_ub=np.zeros(k), A_eq=np.ones((1, k)), b_eq=[1.0], bounds=(0, None), method="highs")
        assert found.status == 0, f"a symmetric game has a solution: {found.message}"
        if corners.shape[1] and found.fun >= p @ p - TIE:
            break
        corners = np.column_stack([corners, np.where(found.x < TIE, 0, found.x)])
        # nearest of the hull: the multiple of the sum of 1 is that of least squares whatever its length
        weight, _ = nnls(np.vstack([corners, np.ones(corners.shape[1])]), np.append(np.zeros(k), 1.0))
        p = corners @ (weight / weight.sum())
    return p / p.sum()


# ---------------------------------------------------------------------------------------------- Bradley-Terry


def bradley_terry(margins: Array, present: Mask, pairs: Array | None = None, *, ridge: float) -> Array:
    """(Q, M) logits, mean 0, of the Bradley-Terry model that fits the shares best: what a reward model without people would learn.

        minimise  - sum_{i<j} n_ij [P_ij log s(u_i - u_j) + P_ji log s(u_j - u_i)] + ridge / 2 sum_i u_i^2,   P = (1 + margin) / 2

    Parameters
    ----------
    pairs : (M, M) or (Q, M, M) how often each pair is asked, n_ij; None: all alike. Symmetric.
    ridge : keeps logits finite where all agree; the smaller, the larger they are then.

    Newton's method for all questions at once; the gradient is checked at the end.
    """
    m = margins.shape[1]
    asked = (present[:, :, None] & present[:, None] & ~np.eye(m, dtype=bool)).astype(float) * (1 if pairs is None else pairs)
    share = asked * (1 + _known(margins)) / 2
    u, slope = np.zeros(present.shape), np.zeros(present.shape)
    for _ in range(200):
        p = 1 / (1 + np.exp(u[:, None] - u[:, :, None]))
        slope = (share - asked * p).sum(-1) - ridge * u
        if np.abs(slope).max(initial=0) < 1e-11:
            break
        w = asked * p * (1 - p)
        curvature = -w
        curvature[:, range(m), range(m)] += w.sum(-1) + ridge
        # the common level of each question is free but for the ridge: a constant in every entry pins it without moving the differences
        step = np.linalg.solve(curvature + 1 / m, slope[:, :, None])[:, :, 0]
        u += step * np.minimum(1, 2 / np.maximum(np.abs(step).max(-1, keepdims=True), 1e-300))
    else:
        assert np.abs(slope).max() < 1e-8, "Bradley-Terry did not converge"
    u -= np.where(present, u, 0).sum(-1, keepdims=True) / np.maximum(present.sum(-1, keepdims=True), 1)
    return np.where(present, u, np.nan)


def _known(margins: Array) -> NDArray[np.float64]:
    """The margins with 0 for options that are absent: whoever uses it masks by what is present."""
    return np.where(np.isnan(margins), 0, margins)
