"""Who pays: hand-solved cases, and linear programmes and loops as references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from seamark.aggregation.regret import (
    admissible,
    contested,
    diversity,
    groups_served,
    irreconcilable,
    most_favoured,
    one_mode,
    pareto,
    reach,
    serve,
    shared,
    turned,
)
from seamark.errors import InvalidSetting

# two groups, three options: each group's own favourite, and a compromise
TWO = np.array([[[3.0, 2.0, 0.0], [0.0, 2.0, 3.0]]])
COMPROMISE = np.array([[0.0, 1.0, 0.0]])


def test_regret_of_two_groups_by_hand():
    """R30: what a group alone would have had, less what it gets."""
    served = serve(TWO, COMPROMISE)
    assert served.regret.tolist() == [[1.0, 1.0]]
    served = serve(TWO, np.array([[0.5, 0.0, 0.5]]))
    assert served.received.tolist() == [[1.5, 1.5]]
    assert served.regret.tolist() == [[1.5, 1.5]]
    assert serve(TWO, np.array([[1.0, 0.0, 0.0]])).regret.tolist() == [[0.0, 3.0]]


def test_a_compromise_is_nobodys_favourite():
    """R33: the share for whom what is chosen is their own top, beside the most that one option could reach."""
    weights = np.array([0.6, 0.4])
    assert serve(TWO, COMPROMISE).favoured(weights).tolist() == [0.0]
    assert most_favoured(TWO, weights).tolist() == [0.6]
    tied = np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 0.5]]])
    assert serve(tied, COMPROMISE).favoured(weights).tolist() == [1.0]


def test_bimodal_tastes_raise_the_alarm_and_unimodal_ones_do_not():
    """R33: five options on a line; people like what is near them, and the option with the highest mean is chosen."""
    rng = np.random.default_rng(0)
    place = np.linspace(-2, 2, 5)

    def shares(ideal: np.ndarray) -> tuple[float, float]:
        utilities = -((ideal[None, :, None] - place) ** 2)
        weights = np.full(len(ideal), 1 / len(ideal))
        lottery = np.eye(5)[[int((utilities[0].T @ weights).argmax())]]
        return float(serve(utilities, lottery).favoured(weights)[0]), float(most_favoured(utilities, weights)[0])

    two = np.concatenate([rng.normal(-2, 0.3, 200), rng.normal(2, 0.3, 200)])
    one = rng.normal(0, 0.5, 400)
    got, could = shares(two)
    assert got < 0.1 < 0.4 < could
    got, could = shares(one)
    assert got == pytest.approx(could)
    assert could > 0.6
    assert one_mode(two, rounds=99) < 0.05 < one_mode(one, rounds=99)


def test_one_mode_seldom_says_two_of_one():
    """Size: of 60 samples of one mode, at p <= .05, no more than a binomial with .05 gives once in 1,000 times; it is conservative."""
    rng = np.random.default_rng(1)
    wrong = sum(one_mode(rng.normal(size=80), rounds=39, seed=s) <= 0.05 for s in range(60))
    assert wrong <= 10
    right = sum(one_mode(np.concatenate([rng.normal(-2, 1, 60), rng.normal(2, 1, 60)]), rounds=39, seed=s) <= 0.05 for s in range(20))
    assert right >= 10


def test_one_mode_of_hardly_anyone():
    assert one_mode(np.ones(50)) == one_mode(np.array([1.0, 2.0])) == 1.0


def test_options_that_are_not_there_cannot_be_chosen():
    ragged = np.array([[[1.0, np.nan], [0.0, np.nan]]])
    assert serve(ragged, np.array([[1.0, 0.0]])).regret.tolist() == [[0.0, 0.0]]
    with pytest.raises(InvalidSetting, match="an option without utilities"):
        serve(ragged, np.array([[0.0, 1.0]]))
    with pytest.raises(InvalidSetting, match="add up to 1"):
        serve(TWO, np.array([[0.5, 0.0, 0.0]]))


# ------------------------------------------------------------------------------------ weights


def _programme(gap: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    bounds = list(zip(low, high, strict=True))
    least, most = (linprog(sign * gap, A_eq=np.ones((1, len(gap))), b_eq=[1.0], bounds=bounds).fun for sign in (1, -1))
    return least, -most


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 6), within=st.one_of(st.just(np.inf), st.floats(1, 5)))
def test_reach_is_the_linear_programme(seed: int, groups: int, within: float):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(groups))
    gaps = rng.normal(size=(3, groups)).round(1)
    low, high = reach(gaps, weights, within)
    bounds = admissible(weights, within)
    for i, gap in enumerate(gaps):
        assert (low[i], high[i]) == pytest.approx(_programme(gap, *bounds), abs=1e-9)
    assert (low <= gaps @ weights + 1e-12).all()
    assert (high >= gaps @ weights - 1e-12).all()


def test_a_factor_below_one_is_refused():
    with pytest.raises(InvalidSetting, match="1 or more"):
        reach(np.zeros((1, 2)), np.array([0.5, 0.5]), 0.5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_turned_is_what_a_search_of_weights_finds(seed: int):
    """R60: every decision that any admissible weighting flips; here all weightings of three groups on a grid."""
    rng = np.random.default_rng(seed)
    utilities = rng.normal(size=(8, 3, 4))
    weights = rng.dirichlet(np.ones(3) * 3)
    winner = np.einsum("qgm,g->qm", utilities, weights).argmax(1)
    grid = np.array([(a, b, 40 - a - b) for a in range(41) for b in range(41 - a)]) / 40
    low, high = admissible(weights, 2.0)
    grid = grid[((grid >= low) & (grid <= high)).all(1)]
    found = turned(utilities, winner, weights, 2.0)
    searched = (np.einsum("qgm,wg->qwm", utilities, grid).argmax(2) != winner[:, None]).any(1)
    assert (found | ~searched).all()  # the grid has holes, so it finds no more
    assert turned(utilities, winner, weights, 1.0).sum() == 0
    any_weights = turned(utilities, winner, weights)
    own = utilities.argmax(2) != winner[:, None]
    assert (any_weights >= own.any(1)).all()


def test_what_no_weighting_settles():
    p = np.array([[0.999, 0.001], [0.999, 0.5], [0.999, 0.999], [0.3, 0.6]])
    assert irreconcilable(p).tolist() == [True, False, False, False]
    assert shared(p).tolist() == [False, False, True, False]
    assert not irreconcilable(np.array([[0.99, 0.01], [0.9, 0.5], [0.9, 0.9], [0.3, 0.6]])).any()  # .01 twice over, times four pairs
    assert irreconcilable(np.zeros((0, 2))).tolist() == shared(np.zeros((0, 2))).tolist() == []


def test_one_option_that_may_content_everyone_settles_a_question():
    """Every option must surely lose for somebody; absent options do not count; looks are paid for; of two options it is a pair."""
    nan = float("nan")
    tail = np.array([[1e-5, 1e-6, 1e-5], [1e-5, 1e-6, 0.3], [1e-5, 1e-6, nan], [0.5, 0.5, 0.5]])
    assert contested(tail, 4).tolist() == [True, False, True, False]
    assert contested(tail, np.array([4, 4, 10_000, 4])).tolist() == [True, False, False, False]
    p = np.random.default_rng(3).beta(0.1, 0.1, (200, 3))
    pairs = np.stack([p.min(1), (1 - p).min(1)], axis=1)
    assert (irreconcilable(p) == contested(pairs, 3)).all()
    assert 0 < irreconcilable(p).sum() < 200
    assert contested(np.zeros((0, 2)), 3).tolist() == []


def test_sure_conflicts_are_named_at_the_rate():
    """Of 200 pairs without conflict the largest tail is uniform; of 100 sets of them hardly any names one."""
    rng = np.random.default_rng(8)
    assert sum(irreconcilable(rng.random((200, 3))).any() for _ in range(100)) <= 5


def test_pareto_front_by_pairs():
    """R32: what no other option beats on every axis."""
    values = np.random.default_rng(2).normal(size=(30, 2)).round(1)
    naive = [not any((other >= own).all() and (other > own).any() for other in values) for own in values]
    assert pareto(values).tolist() == naive
    assert 1 < sum(naive) < 30


# ------------------------------------------------------------------------------------ diversity


def test_diversity_drops_under_a_mode_seeking_optimiser():
    """R31: a policy tilted towards the mean's favourite serves fewer options, and fewer groups."""
    rng = np.random.default_rng(3)
    utilities = rng.normal(size=(200, 4, 6))
    reward = utilities.mean(1)

    def tilted(beta: float) -> np.ndarray:
        weight = np.exp(beta * (reward - reward.max(1, keepdims=True)))
        return weight / weight.sum(1, keepdims=True)

    before, some, after = (diversity(tilted(beta)).mean() for beta in (0.0, 2.0, 50.0))
    assert before == pytest.approx(6.0)
    assert before > some > after > 0.999
    one_group = np.eye(6)[utilities[:, 0].argmax(1)]
    assert groups_served(utilities, tilted(0.0)) > 3.9
    assert groups_served(utilities, one_group) < groups_served(utilities, tilted(50.0))
    assert groups_served(np.array([[[1.0, 0.0], [1.0, 0.0]]]), np.array([[0.0, 1.0]])) == 0.0


def test_a_normal_density_has_one_mode_at_its_own_bandwidth():
    x = norm.ppf((np.arange(200) + 0.5) / 200)
    assert one_mode(x, rounds=19) > 0.05
