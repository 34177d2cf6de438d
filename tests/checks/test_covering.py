"""Combinations are counted, and a covering array covers them all in few rows."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from seamark.checks.covering import coverage, covering_array, fewest, spread_sample
from seamark.errors import InvalidSetting


@pytest.mark.parametrize(("levels", "t"), [((2, 2, 2), 2), ((3, 3, 3, 3), 2), ((5, 4, 3, 2), 2), ((4, 3, 2, 2), 3), ((3, 2), 1)])
def test_R80_a_covering_array_covers_every_combination_in_few_rows(levels: tuple[int, ...], t: int) -> None:
    """Counted the slow way; no array has fewer rows than the product of the t largest numbers of levels, and all combinations of all factors are
    more."""
    rows = covering_array(levels, t, seed=1)
    seen = {(c, tuple(row[list(c)])) for row in rows for c in combinations(range(len(levels)), t)}
    wanted = {(c, v) for c in combinations(range(len(levels)), t) for v in product(*(range(levels[i]) for i in c))}
    assert seen == wanted
    assert coverage(rows, levels, t) == (len(wanted), len(wanted))
    print(levels, t, len(rows), fewest(levels, t), np.prod(levels))
    assert fewest(levels, t) <= len(rows) <= 1.4 * fewest(levels, t)
    assert len(rows) < np.prod(levels) or t == len(levels)
    np.testing.assert_array_equal(rows, covering_array(levels, t, seed=1))
    # one row less covers less
    assert coverage(rows[:-1], levels, t)[0] < len(wanted)


def test_R80_known_sizes() -> None:
    """Three factors of two levels: 4 rows (an orthogonal array); four of three: 9 (Cohen et al. 1997 find 9), and a greedy search a few more."""
    assert len(covering_array((2, 2, 2), 2)) == fewest((2, 2, 2), 2) == 4
    assert fewest((3, 3, 3, 3), 2) == 9
    assert len(covering_array((3, 3, 3, 3), 2)) <= 12


def test_a_sample_takes_turns() -> None:
    strata = np.repeat([[0], [1], [2]], [100, 10, 2], axis=0)
    chosen = spread_sample(strata, 12, rng=np.random.default_rng(0))
    assert np.bincount(strata[chosen, 0]).tolist() == [5, 5, 2]
    assert len(spread_sample(strata, 500, rng=np.random.default_rng(0))) == 112


def test_what_cannot_be_covered_is_an_error() -> None:
    for levels, t in (((2, 2), 3), ((2, 0), 1), ((2, 2), 0)):
        with pytest.raises(InvalidSetting):
            covering_array(levels, t)
