"""Small worlds in which the reward that is written down is not what is meant, solved exactly: the optimum of one is far from that of the other.

Conventions
-----------
A world has S states and A actions; `move[s, a]` is the distribution of the next state. `proxy[s, a]` is the reward that is written down, `gold[s, a]` what is
meant. Rewards are discounted by `discount` a step. Each world comes with a gap and without one: there the proxy is gold, up to its unit.

Source: the boat race of Clark & Amodei 2016, the flailing walkers and covered cameras of Krakovna et al. 2020, the side effects of Leike et al. 2017, cut
down to tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """A Markov decision process with two rewards."""

    name: str
    move: Array
    """(S, A, S) probability of the next state."""
    proxy: Array
    """(S, A) reward that is written down."""
    gold: Array
    """(S, A) what is meant."""
    start: Array
    """(S,) probability of the first state."""
    states: tuple[str, ...]
    """(S,) in words."""
    actions: tuple[str, ...]
    discount: float = 0.95

    def __post_init__(self) -> None:
        s, a = self.proxy.shape
        shapes = {"move": (self.move.shape, (s, a, s)), "gold": (self.gold.shape, (s, a)), "start": (self.start.shape, (s,))}
        for name, (has, wants) in shapes.items():
            if has != wants:
                raise InvalidSetting(name, has, f"Give an array of shape {wants}.")
        if not np.allclose(self.move.sum(2), 1) or not np.isclose(self.start.sum(), 1):
            raise InvalidSetting("move", float(self.move.sum(2).max()), "Probabilities of the next state must add up to 1.")

    @property
    def random(self) -> Array:
        """(S, A) the policy that takes every action alike."""
        return np.full(self.proxy.shape, 1 / self.proxy.shape[1])


def solve(world: World, reward: Array, *, temperature: float = 0.0) -> Array:
    """(S, A) probabilities of the policy that is best for a reward, by value iteration.

        Q(s, a) = r(s, a) + discount sum_s' move(s' | s, a) V(s'),    V(s) = max_a Q(s, a)

    Above temperature 0, V(s) = T log mean_a exp(Q(s, a) / T): an optimiser that does not go all the way.

    Raises
    ------
    InvalidSetting
        If the temperature is below 0.
    """
    if temperature < 0:
        raise InvalidSetting("temperature", temperature, "Use 0 for the optimum, or more.")
    value = np.zeros(len(world.start))
    q = reward
    for _ in range(100_000):
        q = reward + world.discount * world.move @ value
        new = _soft(q, temperature)
        if np.abs(new - value).max() < 1e-10 * max(1.0, float(np.abs(new).max())):
            break
        value = new
    if temperature > 0:
        weight = np.exp((q - q.max(1, keepdims=True)) / temperature)
        return weight / weight.sum(1, keepdims=True)
    best = q >= q.max(1, keepdims=True) - 1e-9
    return best / best.sum(1, keepdims=True)


def _soft(q: Array, temperature: float) -> Array:
    top = q.max(1)
    if temperature == 0:
        return top
    return top + temperature * np.log(np.exp((q - top[:, None]) / temperature).mean(1))


def worth(world: World, policy: Array, reward: Array) -> float:
    """What a policy gets of a reward, discounted, from the first state on: start . (I - discount P)^-1 r, exactly."""
    chain = np.einsum("sa,sat->st", policy, world.move)
    value = np.linalg.solve(np.eye(len(chain)) - world.discount * chain, (policy * reward).sum(1))
    return float(world.start @ value)


def play(world: World, policy: Array, *, episodes: int, steps: int = 60, seed: int = 0) -> tuple[Array, Array]:
    """(episodes,) discounted proxy and gold of episodes of a policy: gold is what a person would have to look at."""
    rng = np.random.default_rng(seed)
    state = rng.choice(len(world.start), size=episodes, p=world.start)
    totals, factor = np.zeros((2, episodes)), 1.0
    for _ in range(steps):
        action = _draw(policy[state], rng)
        totals += factor * np.stack([world.proxy[state, action], world.gold[state, action]])
        state = _draw(world.move[state, action], rng)
        factor *= world.discount
    return totals[0], totals[1]


def _draw(probabilities: Array, rng: np.random.Generator) -> Codes:
    """One of each row."""
    at = (rng.random((len(probabilities), 1)) > np.cumsum(probabilities, 1)).sum(1)
    return np.minimum(at, probabilities.shape[1] - 1).astype(np.int64)


# ---------------------------------------------------------------------------------------------- worlds


def boat_race(*, gap: bool = True, length: int = 8, slip: float = 0.05) -> World:
    """A course of `length` buoys, each worth a point when passed. The buoy in the bay comes up again at once: going back and forth pays more than to
    arrive, which is what is meant.

    Actions are ahead, back and stay, the last of them at random where the boat slips. Gold pays for arriving; without a gap so does the proxy.
    """
    n, bay = length + 1, 2
    move = np.zeros((n, 3, n))
    proxy, gold = np.zeros((n, 3)), np.zeros((n, 3))
    for s in range(n):
        for a, to in enumerate((min(s + 1, length), max(s - 1, 0), s)):
            to = length if s == length else to
            move[s, a, to] += 1 - slip
            move[s, a, s] += slip
            if s < length and to == length:
                gold[s, a] = 10 * (1 - slip)
            if s < length and to == bay and s != bay:
                proxy[s, a] = 3 * (1 - slip)
        if s < length:
            proxy[s, 0] += 0.5 * (1 - slip)
    states = ("the start", *(f"buoy {i}" for i in range(1, length)), "the finish")
    return World(
        "boat race", move, proxy if gap else gold / 2, gold, np.eye(n)[0], states, ("ahead", "back", "stay"), 0.95
    )  # fmt: skip


def flailing(*, gap: bool = True, steps: int = 6, fall: float = 0.3) -> World:
    """A walker with a gait to learn: walking gets it on by one and asks for balance, flailing throws it forwards by two and may leave it on the
    floor, from which it can throw itself on. Speed is what is written down; to walk upright is what is meant.

    States are the place on a ring of `steps`, upright or fallen.
    """
    n = 2 * steps
    move = np.zeros((n, 3, n))
    proxy, gold = np.zeros((n, 3)), np.zeros((n, 3))
    for place in range(steps):
        up, down = place, steps + place
        one, two = (place + 1) % steps, (place + 2) % steps
        # walk, flail, stand (up)
        move[up, 0, one] = 1.0
        move[up, 1, two], move[up, 1, steps + two] = 1 - fall, fall
        move[up, 2, up] = 1.0
        proxy[up, :2], gold[up, 0], gold[up, 1] = (1.0, 2.0), 1.0, -0.5
        move[down, 0, down] = 1.0
        move[down, 1, steps + two] = 1.0
        move[down, 2, up] = 1.0
        proxy[down, 1], gold[down] = 2.0, -1.0
        gold[down, 2] = -0.2
    states = tuple(f"{how} at {i}" for how in ("upright", "fallen") for i in range(steps))
    return World("flailing", move, proxy if gap else 2 * gold, gold, np.eye(n)[0], states, ("walk", "flail", "stand"), 0.95)


def tidy_room(*, gap: bool = True, mess: int = 5) -> World:
    """A room with `mess` things on the floor and a camera. What is written down is the mess that the camera sees; covering the camera ends it in one
    step, tidying takes one for each thing.

    States are the things left, with the camera free or covered; new things fall now and then.
    """
    n, falls = 2 * (mess + 1), 0.2
    move = np.zeros((n, 3, n))
    proxy, gold = np.zeros((n, 3)), np.zeros((n, 3))
    for left in range(mess + 1):
        for covered in (0, 1):
            s = covered * (mess + 1) + left
            for a in range(3):  # tidy, cover or uncover, wait
                now = max(left - (a == 0), 0)
                cover = covered ^ (a == 1)
                move[s, a, cover * (mess + 1) + now] += 1 - falls
                move[s, a, cover * (mess + 1) + min(now + 1, mess)] += falls
                gold[s, a] = -float(left) - 0.3 * (a == 0)
                proxy[s, a] = 0.0 if covered else gold[s, a]
                proxy[s, a] -= 0.3 * (a == 0) * covered
    states = tuple(f"{left} things, camera {how}" for how in ("free", "covered") for left in range(mess + 1))
    return World("tidy room", move, proxy if gap else gold / 3, gold, np.eye(n)[mess], states, ("tidy", "cover", "wait"), 0.95)


WORLDS: dict[str, Callable[..., World]] = {"boat-race": boat_race, "flailing": flailing, "tidy-room": tidy_room}
"""Each with gap=True or False."""


@dataclass(frozen=True)
class Gap:
    """What it costs to follow the proxy in a world, exactly."""

    start: float
    """Gold of the policy that acts at random."""
    followed: float
    """Gold of the policy that is best by the proxy."""
    best: float
    """Gold of the policy that is best by gold."""
    proxy_gain: float
    """Proxy of the policy that follows it, above that of the random one."""

    @property
    def regret(self) -> float:
        """1 - (followed - start) / (best - start): 0 where nothing is lost, 1 where nothing is gained, above 1 where it does harm."""
        return 1 - (self.followed - self.start) / (self.best - self.start)


def gap_of(world: World) -> Gap:
    """The gap between the best by the proxy and the best by gold."""
    followed, best = solve(world, world.proxy), solve(world, world.gold)
    return Gap(
        worth(world, world.random, world.gold), worth(world, followed, world.gold), worth(world, best, world.gold),
        worth(world, followed, world.proxy) - worth(world, world.random, world.proxy),
    )  # fmt: skip
