"""The alarm: golds that the data leave credible foresee a fall, and what else is looked at moves where it should."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import seamark as sm
from seamark.checks import check_alarm
from seamark.errors import InvalidSetting
from seamark.reward.alarm import drift, first_above, forecast, forecast_means, growth, outlier_index, residual_growth
from seamark.reward.policies import Pool, best_of_n_shares
from seamark.simulation.overoptimisation import FAMILIES, draw_shortcut_world

Array = NDArray[np.float64]
N = tuple(2**k for k in range(9))


def world(n: int = 20_000, seed: int = 0) -> tuple[Array, Array]:
    """Two features, the second heavy-tailed; and how often best-of-n by their sum gives each response."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.normal(size=n), rng.standard_t(4, size=n)])
    pool = Pool.of(np.zeros(n), features.sum(1), np.zeros(n))
    return features, best_of_n_shares(pool, N)


def test_shares_are_those_of_draws() -> None:
    rng = np.random.default_rng(1)
    proxy = np.r_[rng.integers(0, 4, 8), rng.integers(0, 3, 6)].astype(float)  # with ties
    prompt = np.repeat([0, 1], [8, 6])
    shares = best_of_n_shares(Pool.of(prompt, proxy, proxy), (1, 3))
    counts = np.zeros((14, 2))
    for k, n in enumerate((1, 3)):
        for _ in range(4000):
            for start, m in ((0, 8), (8, 6)):
                drawn = start + rng.permutation(m)[:n]
                best = drawn[proxy[drawn] == proxy[drawn].max()]
                counts[rng.choice(best), k] += 1
    np.testing.assert_allclose(shares, counts / 4000, atol=0.03)
    np.testing.assert_allclose(shares.sum(0), 2)


def test_a_fall_that_the_draws_know_is_foreseen_before_it() -> None:
    features, chosen = world()
    rng = np.random.default_rng(2)
    bend = rng.normal(0.12, 0.02, size=200)  # how much too much of the second costs
    draws = features[:, :1] + features[:, 1:] - bend * np.maximum(features[:, 1:], 0) ** 2
    truth = chosen.T @ (features.sum(1) - 0.12 * np.maximum(features[:, 1], 0) ** 2)
    alarm = forecast(chosen, draws)
    assert alarm.raised
    assert alarm.fall > 0.95
    assert alarm.at is not None
    assert 1 < alarm.at < truth.argmax()
    np.testing.assert_allclose(alarm.gain, truth - truth[0], atol=0.1)
    assert (alarm.low <= alarm.gain).all()
    assert (alarm.gain <= alarm.high).all()
    np.testing.assert_allclose(forecast_means(chosen.T @ draws).gain, alarm.gain)


def test_where_no_draw_falls_there_is_no_alarm_however_large_the_doubt() -> None:
    features, chosen = world()
    slopes = np.random.default_rng(3).uniform(0.2, 3, size=(2, 200))
    alarm = forecast(chosen, features @ slopes)
    assert (alarm.raised, alarm.at, alarm.fall) == (False, None, 0.0)
    assert alarm.peak == len(N) - 1


def test_draws_of_another_pool_are_refused() -> None:
    features, chosen = world(n=1000)
    with pytest.raises(InvalidSetting, match="two golds or more for each of the 1,000 responses"):
        forecast(chosen, features[:-1])
    with pytest.raises(InvalidSetting, match="three strengths"):
        forecast(chosen[:, :2], features)


def test_N37_outliers_rise_before_gold_falls() -> None:
    """Gold is the sum less what the heavy tail costs; what is chosen leaves the training cloud one doubling after the other, from the first."""
    features, chosen = world()
    gold = chosen.T @ (features.sum(1) - 0.1 * np.maximum(features[:, 1], 0) ** 2)
    reference = world(n=2000, seed=5)[0]
    index = outlier_index(chosen, features, reference)
    assert index[0] == pytest.approx(1, abs=0.15)
    assert (np.diff(index)[1:] > 0).all()
    doubled = first_above(index, 2.0)
    assert doubled is not None
    assert doubled < gold.argmax()
    light = np.random.default_rng(6).normal(size=features.shape)  # with light tails it stays near what extremes of a cloud are
    flat = outlier_index(best_of_n_shares(Pool.of(np.zeros(len(light)), light.sum(1), light[:, 0]), N), light, light)
    assert flat[-1] < index[-1] / 2


def test_drift_and_growth_are_those_of_closed_forms() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(50_000, 4))
    chosen = best_of_n_shares(Pool.of(np.zeros(len(x)), x[:, 0], x[:, 0]), (1, 2, 4))
    moved = drift(chosen, x)
    # the mean of the larger of two normals is 1 / sqrt(pi); one feature of four moves
    assert moved[0] == pytest.approx(0, abs=1e-12)
    assert moved[1] == pytest.approx(1 / np.sqrt(np.pi) / 2, abs=0.01)
    assert growth(chosen, np.exp(x[:, 0]))[1] == pytest.approx(float(np.exp(x[:, 0]) @ chosen[:, 1] / np.exp(x[:, 0]).mean()))


def test_residuals_grow_where_the_reward_is_wrong_and_only_there() -> None:
    rng = np.random.default_rng(8)
    reward = rng.normal(size=(40_000, 2)) * 1.2
    pool = rng.normal(size=20_000) * 1.2
    chosen = best_of_n_shares(Pool.of(np.zeros(len(pool)), pool, pool), N)
    for wrong in (False, True):
        value = np.where(reward > 1.5, -reward, reward) if wrong else reward
        won = rng.random(len(reward)) < 1 / (1 + np.exp(-(value[:, 0] - value[:, 1])))
        grown = residual_growth(chosen, pool, pair=reward, won=won)
        assert (grown[-1] > 2) == wrong
        assert wrong or np.abs(grown - 1).max() < 0.15


# ---------------------------------------------------------------------------------------------- worlds


@pytest.mark.parametrize("family", FAMILIES)
def test_worlds_are_answered_by_the_law_of_their_gold(family: str) -> None:
    found = draw_shortcut_world(family, seed=3, n_pairs=20_000, n_pool=20_000)  # type: ignore[arg-type]  # it is one of them
    assert found.features.shape == (40_000, 9)
    again = draw_shortcut_world(family, seed=3, n_pairs=20_000, n_pool=20_000)  # type: ignore[arg-type]  # as above
    np.testing.assert_array_equal(found.won, again.won)
    # what separates winners in the pairs separates gold in the pool, where the shortcut is not extreme
    side = np.where(found.won[:, None], 1, -1) * (found.features[::2] - found.features[1::2])
    inside = np.abs(found.pool[:, -1] - np.median(found.pool[:, -1])) < 2
    slopes = np.linalg.lstsq(np.column_stack([np.ones(inside.sum()), found.pool[inside, :-1]]), found.gold[inside], rcond=None)[0][1:]
    assert np.corrcoef(side.mean(0)[:-1], slopes)[0, 1] > 0.95
    outside = draw_shortcut_world(family, seed=3, n_pool=20_000, inside=False)  # type: ignore[arg-type]  # as above
    assert outside.features[:, -1].max() < found.features[:, -1].max()


@pytest.fixture(scope="module")
def study():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import over_optimisation

        yield over_optimisation
    finally:
        sys.path.remove(folder)


def test_one_world_that_turns_and_one_that_does_not(study) -> None:
    """Two of the worlds that thresholds were set on."""
    turned = study.run_world(("turning", 1009, True, 2**15, ("hump", "none")))
    straight = study.run_world(("turning", 1004, True, 2**15, ("hump", "none")))
    for found, kind in ((turned, "hump"), (straight, "none")):
        assert found["kind"] == kind, found["curves"]["single"]
        curves = {name: np.array(c) for name, c in found["curves"].items()}
        assert curves["penalised"][-1] >= 0.99 * curves["penalised"].max()
        assert curves["penalised"][-1] >= 0.9 * curves["single"].max()
        assert found["alarm"]["raised"] == (kind == "hump")
    assert turned["curves"]["single"][-1] < 0
    assert 1 < turned["alarm"]["at"] < np.argmax(turned["curves"]["single"])


def test_a_fit_foresees_where_its_own_doubt_leads() -> None:
    society = sm.simulate(n_prompts=30, n_responses=8, n_judgments=900, groups=1, seed=1)
    fitted = sm.fit(society.feedback, utility=sm.Linear(n_columns=32), people=sm.Same(), observation=sm.Observation(effects=()))
    found = check_alarm(fitted, society.feedback)
    besides = ["ignorance", "outliers", "drift", "residual"]
    assert [f.code for f in found] == [
        "optimisation/alarm",
        *(f"optimisation/{name}" for name in besides),
        "bias-gain",
        "bias-gain/reward",
        "bias-gain/policy",
    ]
    assert found[0].verdict == "notice", "a straight fit cannot doubt that more is better, and says so"
    assert "cannot doubt that more" in (found[0].reason or "")
    assert [row["n"] for row in found[0].details["curve"]] == [1, 2, 4, 8]
    draws = fitted.draws(society.feedback, 4000, seed=0)
    np.testing.assert_allclose(draws.mean(1), fitted.utilities(society.feedback), atol=0.1)
    np.testing.assert_allclose(draws.std(1), fitted.ignorance(society.feedback), rtol=0.12)
    few = society.feedback.filter(np.arange(len(society.feedback)) < 20)
    assert check_alarm(fitted, few)[0].verdict == "not_applicable"
