"""Optimisation keeps to its KL budget, its floor of entropy and its step size, on a reward with planted spikes as well."""

from __future__ import annotations

import numpy as np
import pytest

from seamark.errors import InvalidSetting
from seamark.reward import Pool
from seamark.reward.controls import KEEPS, Guards, follow, keep_weights, tilt_to
from seamark.reward.policies import tilt


def spiky(seed: int = 0, *, n_prompts: int = 40, m: int = 12) -> Pool:
    """Every prompt has one response that the reward loves (+50) and that is worth nothing."""
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=(n_prompts, m))
    proxy = gold.copy()
    proxy[np.arange(n_prompts), rng.integers(0, m, n_prompts)] += 50
    return Pool.of(np.repeat(np.arange(n_prompts), m), proxy.ravel(), gold.ravel())


def calm(seed: int = 0, *, uneven: bool = False) -> Pool:
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=30 * 8)
    return Pool.of(
        np.repeat(np.arange(30), 8), gold + rng.normal(size=len(gold)), gold, weight=1 + rng.random(len(gold)) if uneven else None
    )


@pytest.mark.parametrize("make", [spiky, calm, lambda: calm(uneven=True)])
@pytest.mark.parametrize("budget", [0.05, 0.5, 1.5])
def test_R115_the_realised_kl_of_a_tilt_is_the_budget_and_not_above(make: object, budget: float) -> None:
    """As far as it goes, and no further; checked against `tilt` at the same beta."""
    pool = make()  # type: ignore[operator]  # one of the makers above
    found = tilt_to(pool, kl=budget)
    assert found.kl <= budget
    if found.bound == "kl":
        assert found.kl == pytest.approx(budget, rel=1e-3)
    policies = tilt(pool, [1 / found.inverse_beta])
    assert policies.kl[0] == pytest.approx(found.kl, abs=1e-9)
    assert policies.gold[:, 0].mean() == pytest.approx(found.gold)
    np.testing.assert_allclose(np.bincount(pool.prompt, found.probability), 1)


def test_R115_the_floor_of_entropy_holds_under_a_spiky_reward() -> None:
    """Without a floor a tilt that follows the spike puts everything on it: the entropy of every prompt is near 0. With a floor of 1 nat none is below, and the floor is what binds."""
    pool = spiky()
    free = tilt_to(pool, kl=np.log(12) - 1e-6)
    assert free.entropy < 0.05
    held = tilt_to(pool, kl=np.log(12) - 1e-6, entropy=1.0)
    assert held.bound == "entropy"
    assert held.entropy == pytest.approx(1.0, abs=1e-3)
    assert held.entropy >= 1.0
    entropy = -np.bincount(pool.prompt, held.probability * np.log(held.probability))
    assert entropy.min() == pytest.approx(held.entropy)
    assert tilt_to(pool, entropy=1.0).inverse_beta == pytest.approx(held.inverse_beta)
    gentle = tilt_to(pool, kl=0.01, entropy=1.0)
    assert gentle.bound == "kl"
    assert gentle.kl <= 0.01


@pytest.mark.parametrize("keep", KEEPS)
def test_R115_gradient_steps_keep_every_guard_at_every_step(keep: str) -> None:
    """A rate that is far too high (8 logits for an advantage of 1) on spikes: without guards the policy collapses; with them KL, entropy and step size hold at every step that is logged."""
    pool = spiky()
    guards = Guards(kl=0.8, entropy=0.9, step=0.5)
    free = follow(pool, keep="all", steps=40, rate=8.0)
    assert free.entropy[-1] < 0.2
    assert free.kl[-1] > 1.0
    assert free.step.max() > 2
    held = follow(pool, keep=keep, steps=40, rate=8.0, guards=guards)  # type: ignore[arg-type]  # one of KEEPS
    assert (held.kl <= guards.kl).all()
    assert (held.entropy >= guards.entropy).all()
    assert (held.step <= guards.step + 1e-12).all()
    assert held.shortened.any()
    assert len(held.kl) == len(held.gold) == 41
    assert held.kl[0] == 0
    assert held.proxy[-1] > held.proxy[0]
    again = follow(pool, keep=keep, steps=40, rate=8.0, guards=guards)  # type: ignore[arg-type]
    np.testing.assert_array_equal(held.probability, again.probability)


def test_without_a_guard_that_binds_nothing_changes() -> None:
    pool = calm()
    free, loose = follow(pool, steps=30), follow(pool, steps=30, guards=Guards(kl=100.0, entropy=0.0, step=1e6))
    np.testing.assert_array_equal(free.gold, loose.gold)
    assert not loose.shortened.any()
    assert free.gold[-1] > free.gold[0] + 0.3


def test_the_gradient_is_that_of_the_expected_reward() -> None:
    """Many first steps from one policy, averaged: logits of good responses rise, of bad ones fall, in proportion to p (r - mean r)."""
    pool = calm(n := 1)
    del n
    moved = np.zeros(len(pool.prompt))
    for seed in range(400):
        p = follow(pool, steps=1, rate=0.05, seed=seed).probability
        logits = np.log(p)
        moved += logits - (np.bincount(pool.prompt, logits) / np.bincount(pool.prompt))[pool.prompt]
    expected = pool.proxy - (np.bincount(pool.prompt, pool.proxy) / np.bincount(pool.prompt))[pool.prompt]
    assert np.corrcoef(moved, expected)[0, 1] > 0.9


def test_what_is_kept_of_the_responses_drawn() -> None:
    np.testing.assert_allclose(keep_weights(5, "all"), [0.2] * 5)
    np.testing.assert_allclose(keep_weights(5, "best"), [1, 0, 0, 0, 0])
    np.testing.assert_allclose(keep_weights(5, "best-random"), [0.5] + [0.125] * 4)
    np.testing.assert_allclose(keep_weights(5, "best-worst"), [0.5, 0, 0, 0, 0.5])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tilt_to(calm()),
        lambda: tilt_to(calm(), kl=-1.0),
        lambda: tilt_to(calm(), entropy=3.0),
        lambda: follow(calm(), n=1),
        lambda: follow(calm(), keep="worst"),  # type: ignore[arg-type]  # what is tested
        lambda: Guards(step=0.0),
    ],
)
def test_settings_that_cannot_be_kept(wrong: object) -> None:
    with pytest.raises(InvalidSetting):
        wrong()  # type: ignore[operator]  # it is called
