"""Weights are a policy: what others that are as defensible would have decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from seamark.aggregation.admissible import Admissible, flipping_weights, sensitivity
from seamark.errors import InvalidSetting


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n_groups=st.integers(1, 6))
def test_R60_the_extremes_are_those_of_a_linear_programme(seed: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(n_groups))
    low, high = share * rng.uniform(0, 1, n_groups), share + (1 - share) * rng.uniform(0, 1, n_groups)
    admissible = Admissible(tuple(map(str, range(n_groups))), low, high)
    gaps = rng.normal(size=(4, n_groups))
    found = sensitivity(gaps, admissible)
    for row in range(4):
        least, most = (
            sign * linprog(sign * gaps[row], A_eq=np.ones((1, n_groups)), b_eq=[1], bounds=list(zip(low, high, strict=True))).fun
            for sign in (1, -1)
        )
        assert found.lowest[row] == pytest.approx(least, abs=1e-9)
        assert found.highest[row] == pytest.approx(most, abs=1e-9)
        for weights, value in zip(flipping_weights(gaps[row], admissible), (least, most), strict=True):
            assert weights.sum() == pytest.approx(1)
            assert ((weights >= low - 1e-12) & (weights <= high + 1e-12)).all()
            assert weights @ gaps[row] == pytest.approx(value, abs=1e-9)


def test_R60_every_decision_that_admissible_weights_flip_is_listed() -> None:
    """Two groups, by hand: at most 1/4 for the second, a gap of -1 to its +2 is 1/4 * 2 - 3/4 = -1/4, so it does not flip; +4 does."""
    gaps = np.array([[-1.0, 2.0], [-1.0, 4.0], [1.0, 1.0], [-1.0, 3.0]])
    free = sensitivity(gaps, Admissible.of(("a", "b")))
    assert free.flipped.tolist() == [True, True, False, True]
    assert free.lowest.tolist() == gaps.min(1).tolist()
    bounded = sensitivity(gaps, Admissible.of(("a", "b"), {"b": (0.0, 0.25)}))
    assert bounded.highest.tolist() == [-0.25, 0.25, 1.0, 0.0]
    assert bounded.flipped.tolist() == [False, True, False, False]
    near = Admissible.around(("a", "b"), np.array([9.0, 1.0]), factor=2.0)
    assert near.low.tolist() == [0.45, 0.05]
    assert near.high.tolist() == [1.0, 0.2]
    assert not sensitivity(gaps, near).flipped[0]


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ({"c": (0.0, 1.0)}, "bounds is 'c'. It is no group; the groups are a, b"),
        ({"a": (0.6, 0.5)}, "weights of a is"),
        ({"a": (0.0, 0.3), "b": (0.0, 0.3)}, "No weights within these bounds sum to 1"),
        ({"a": (0.7, 1.0), "b": (0.7, 1.0)}, "No weights within these bounds sum to 1"),
    ],
)
def test_bounds_that_nothing_meets_are_refused(bounds: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        Admissible.of(("a", "b"), bounds)
    with pytest.raises(InvalidSetting, match="one column for each of the 2 groups"):
        sensitivity(np.zeros((3, 3)), Admissible.of(("a", "b")))
