"""Which combinations of factor levels a set of probes covers, and how few probes would cover them all.

Conventions
-----------
A design is an array (n, k) of codes: n probes, k factors, each with levels 0 .. levels[k] - 1. A *t-way combination* is t factors with a
level of each; a design covers it if some row has these levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting

Codes = NDArray[np.int64]
_CANDIDATES = 20
"""Rows that are tried for each row of a covering array: more make it little shorter (Cohen et al. 1997 use 50)."""


def coverage(design: Codes, levels: Sequence[int], t: int) -> tuple[int, int]:
    """(combinations of t factors' levels that occur, combinations that there are).

    >>> coverage(np.array([[0, 0], [1, 1]]), (2, 2), 2)
    (2, 4)
    """
    _check(levels, t)
    found = 0
    for columns in combinations(range(len(levels)), t):
        code = np.zeros(len(design), dtype=np.int64)
        for c in columns:
            code = code * levels[c] + design[:, c]
        found += len(np.unique(code))
    return found, sum(int(np.prod([levels[c] for c in columns])) for columns in combinations(range(len(levels)), t))


def fewest(levels: Sequence[int], t: int) -> int:
    """A bound from below on the rows of any covering array: the product of the t largest numbers of levels."""
    _check(levels, t)
    return int(np.prod(sorted(levels)[-t:]))


def covering_array(levels: Sequence[int], t: int, *, seed: int = 0) -> Codes:
    """(n, k) rows that cover every t-way combination, few but not the fewest.

    Row by row, the best of some candidates: each starts from a combination that is not covered yet, and takes for the other factors in random
    order the level that covers most with those that it has.

    Source: Cohen, Dalal, Fredman & Patton 1997 (AETG).

    Raises
    ------
    InvalidSetting
        If t is not between 1 and the number of factors, or a factor has no level.
    """
    _check(levels, t)
    rng = np.random.default_rng(seed)
    k = len(levels)
    open_ = {columns: np.ones([levels[c] for c in columns], dtype=bool) for columns in combinations(range(k), t)}
    rows: list[Codes] = []
    while left := [columns for columns, cells in open_.items() if cells.any()]:
        best, most = np.zeros(k, dtype=np.int64), -1
        for _ in range(_CANDIDATES):
            columns = left[rng.integers(len(left))]
            cells = np.argwhere(open_[columns])
            row = np.full(k, -1, dtype=np.int64)
            row[list(columns)] = cells[rng.integers(len(cells))]
            for c in rng.permutation([c for c in range(k) if row[c] < 0]).tolist():
                gain = np.zeros(levels[c])
                for columns, cells in open_.items():
                    if c in columns and all(row[d] >= 0 for d in columns if d != c):
                        gain += cells[tuple(slice(None) if d == c else row[d] for d in columns)]
                row[c] = rng.choice(np.flatnonzero(gain == gain.max()))
            covers = sum(bool(cells[tuple(row[list(columns)])]) for columns, cells in open_.items())
            if covers > most:
                best, most = row, covers
        for columns, cells in open_.items():
            cells[tuple(best[list(columns)])] = False
        rows.append(best)
    return np.array(rows, dtype=np.int64).reshape(len(rows), k)


def spread_sample(strata: Codes, n: int, *, rng: np.random.Generator) -> Codes:
    """Rows, n at the most, that cover combinations of factors as evenly as the data allows: strata (rows of codes) take turns.

    Parameters
    ----------
    strata : (N, k) factor levels of what can be drawn.
    """
    order = rng.permutation(len(strata))
    _, code = np.unique(strata[order], axis=0, return_inverse=True)
    by_turn = np.argsort(code.ravel(), kind="stable")
    sizes = np.bincount(code.ravel())
    turn = np.empty(len(order), dtype=np.int64)
    turn[by_turn] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[np.argsort(turn, kind="stable")[:n]])


def _check(levels: Sequence[int], t: int) -> None:
    if not 1 <= t <= len(levels):
        raise InvalidSetting("t", t, f"There are {len(levels)} factors; use 1 to that many.")
    if min(levels) < 1:
        raise InvalidSetting("levels", tuple(levels), "Every factor needs a level.")
