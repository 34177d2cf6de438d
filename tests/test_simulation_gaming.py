"""Gaming worlds: optimisers find the exploit that is there, a few gold labels show it, and a world without a gap is left alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from seamark.checks.loopholes import check_exploit
from seamark.errors import InvalidSetting
from seamark.simulation.gaming import WORLDS, World, gap_of, play, solve, worth

EXPLOIT = {"boat-race": ("buoy 3", "back"), "flailing": ("upright at 0", "flail"), "tidy-room": ("5 things, camera free", "cover")}
DRAWS = 8
LABELS = 10
"""Episodes of each policy that somebody looks at."""


def verdict(world: World, seed: int) -> str:
    """What the detector says from 200 episodes by the proxy, of which somebody has looked at ten of either policy."""
    before = play(world, world.random, episodes=200, seed=2 * seed)
    after = play(world, solve(world, world.proxy), episodes=200, seed=2 * seed + 1)
    return check_exploit(before[0], after[0], before[1][:LABELS], after[1][:LABELS]).verdict


@pytest.mark.parametrize("name", WORLDS)
def test_R50_the_optimiser_finds_the_exploit_and_the_detector_flags_it(name: str) -> None:
    """Following the proxy leads below acting at random, by gold; ten labels of either policy show it in each draw."""
    world = WORLDS[name]()
    gap = gap_of(world)
    print(name, gap, round(gap.regret, 2))
    assert gap.proxy_gain > 0
    assert gap.followed < gap.start < gap.best
    state, action = EXPLOIT[name]
    policy = solve(world, world.proxy)
    assert world.actions[int(policy[world.states.index(state)].argmax())] == action
    assert {verdict(world, seed) for seed in range(DRAWS)} <= {"warning", "blocking"}


@pytest.mark.parametrize("name", WORLDS)
def test_R50_a_world_without_a_gap_is_not_flagged(name: str) -> None:
    """The proxy is gold in another unit: whoever follows it gets the most of gold, and no draw is flagged."""
    world = WORLDS[name](gap=False)
    gap = gap_of(world)
    assert gap.followed == pytest.approx(gap.best)
    assert gap.best > gap.start
    assert {verdict(world, seed) for seed in range(DRAWS)} == {"ok"}


@pytest.mark.parametrize("name", WORLDS)
def test_R50_a_shaped_reward_has_no_gap(name: str) -> None:
    """gold + discount phi(s') - phi(s) is another reward with the same best policy (Ng, Harada & Russell 1999), whatever phi."""
    world = WORLDS[name](gap=False)
    phi = np.random.default_rng(1).normal(0, 3, size=len(world.start))
    shaped = replace(world, proxy=world.gold + world.discount * world.move @ phi - phi[:, None])
    assert gap_of(shaped).regret == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("name", WORLDS)
def test_a_stronger_optimiser_gets_more_of_the_proxy(name: str) -> None:
    """From the random policy to the optimum, and gold turns on the way."""
    world = WORLDS[name]()
    heat = (300.0, 3.0, 1.0, 0.3, 0.05, 0.0)
    policies = [solve(world, world.proxy, temperature=t) for t in heat]
    proxy = [worth(world, policy, world.proxy) for policy in policies]
    gold = [worth(world, policy, world.gold) for policy in policies]
    print(name, np.round(proxy, 2), np.round(gold, 2))
    assert proxy[0] == pytest.approx(worth(world, world.random, world.proxy), rel=0.05)
    assert (np.diff(proxy) > -1e-9).all()
    assert gold[-1] == pytest.approx(min(gold))


def test_the_optimum_is_the_best_of_all_policies() -> None:
    """Of a world small enough to try every policy that always does the same."""
    rng = np.random.default_rng(2)
    move = rng.dirichlet(np.ones(4), size=(4, 2))
    reward = rng.normal(size=(4, 2))
    world = World("any", move, reward, reward, np.eye(4)[0], tuple("abcd"), ("x", "y"), 0.9)
    every = [worth(world, np.eye(2)[list(choice)], reward) for choice in product((0, 1), repeat=4)]
    assert worth(world, solve(world, reward), reward) == pytest.approx(max(every))


def test_episodes_are_worth_what_was_worked_out() -> None:
    world = WORLDS["tidy-room"]()
    policy = solve(world, world.proxy, temperature=1.0)
    proxy, gold = play(world, policy, episodes=2000, steps=250, seed=3)
    for found, reward in ((proxy, world.proxy), (gold, world.gold)):
        assert found.mean() == pytest.approx(worth(world, policy, reward), abs=4 * found.std() / np.sqrt(2000))


def test_worlds_that_cannot_be_are_refused() -> None:
    world = WORLDS["flailing"]()
    with pytest.raises(InvalidSetting, match="gold is"):
        replace(world, gold=world.gold[:2])
    with pytest.raises(InvalidSetting, match="add up to 1"):
        replace(world, move=world.move * 0.9)
    with pytest.raises(InvalidSetting, match="temperature is -1"):
        solve(world, world.gold, temperature=-1)
