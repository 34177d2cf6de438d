"""Optimisation under control: tilts and gradient steps that keep to a KL budget, a floor of entropy and a step size, exactly, over pools.

Conventions
-----------
As in `policies`: a pool has responses to prompts, KL is in nats from the start policy, a mean over prompts. Entropy is in nats, that of the
prompt that has least: a mean would hide a collapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from seamark.errors import InvalidSetting
from seamark.reward.policies import Pool

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

Keep = Literal["all", "best", "best-random", "best-worst"]
KEEPS: tuple[Keep, ...] = ("all", "best", "best-random", "best-worst")
"""Which of the responses drawn to a prompt a policy learns from."""


@dataclass(frozen=True)
class Guards:
    """What a policy must keep to."""

    kl: float | None = None
    """Most mean KL from the start policy, nats."""
    entropy: float | None = None
    """Least entropy of any prompt's policy, nats."""
    step: float | None = None
    """Most that one step changes a logit."""

    def __post_init__(self) -> None:
        for name, value in (("kl", self.kl), ("entropy", self.entropy), ("step", self.step)):
            if value is not None and (not np.isfinite(value) or value < 0 or (name == "step" and value == 0)):
                raise InvalidSetting(name, value, "Use a number above 0." if name == "step" else "Use 0 or more, in nats.")

    def hold(self, kl: float, entropy: float) -> bool:
        return (self.kl is None or kl <= self.kl) and (self.entropy is None or entropy >= self.entropy)


@dataclass(frozen=True)
class Tilted:
    """The tilt that reaches furthest within the guards."""

    inverse_beta: float
    """1 / beta; 0 is the start policy."""
    probability: Array
    """(n,) of each response, given its prompt."""
    kl: float
    entropy: float
    proxy: float
    gold: float
    """Means over prompts."""
    bound: Literal["kl", "entropy", "none"]
    """Which guard it stands at; none where the pool ends first."""


def tilt_to(pool: Pool, *, kl: float | None = None, entropy: float | None = None) -> Tilted:
    """The strongest tilt, start(y) exp(proxy(y) / beta), whose mean KL stays under a budget and whose entropy keeps to a floor in every prompt.

    KL grows with 1 / beta; the entropy of a prompt rises at most where the start policy is uneven, and the first crossing counts.

    Parameters
    ----------
    kl, entropy : nats; one of them, or both.

    Raises
    ------
    InvalidSetting
        If neither is given, or the start policy itself has less entropy than the floor.
    """
    guards = Guards(kl, entropy)
    if kl is None and entropy is None:
        raise InvalidSetting("kl", None, "Give a KL budget, a floor of entropy, or both.")
    logits = _Policy.start(pool)
    if entropy is not None and logits.entropy < entropy:
        raise InvalidSetting("entropy", entropy, f"The start policy has {logits.entropy:.3f} nats in one prompt; give a lower floor.")
    spread = max(float(np.ptp(pool.proxy)), 1e-12)
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e5, 200) / spread])
    inside = 0.0
    for one in grid[1:]:
        if not guards.hold(*_measures(pool, one)):
            inside = _crossing(pool, guards, inside, float(one))
            break
        inside = float(one)
    end = _Policy.tilted(pool, inside)
    # the numbers that were asked for are kept to, not to 12 digits but wholly
    bound: Literal["kl", "entropy", "none"] = "none"
    if inside < grid[-1]:
        bound = "kl" if kl is not None and end.kl > kl * (1 - 1e-4) - 1e-9 else "entropy"
    return Tilted(inside, end.probability, end.kl, end.entropy, end.mean(pool.proxy), end.mean(pool.gold), bound)


def _measures(pool: Pool, inverse_beta: float) -> tuple[float, float]:
    policy = _Policy.tilted(pool, inverse_beta)
    return policy.kl, policy.entropy


def _crossing(pool: Pool, guards: Guards, inside: float, outside: float) -> float:
    """The last strength within the guards."""

    def slack(strength: float) -> float:
        kl, entropy = _measures(pool, strength)
        return min(np.inf if guards.kl is None else guards.kl - kl, np.inf if guards.entropy is None else entropy - guards.entropy)

    if slack(inside) <= 0:
        return inside
    found = float(brentq(slack, inside, outside, xtol=1e-12))  # type: ignore[arg-type]  # it is a float here
    while slack(found) < 0:
        found = inside + (found - inside) * (1 - 1e-9)
    return found


@dataclass(frozen=True)
class _Policy:
    """A policy over a pool, and how far it is from the start."""

    prompt: Codes
    log_start: Array
    log_probability: Array

    @staticmethod
    def start(pool: Pool) -> _Policy:
        return _Policy(pool.prompt, pool.log_start, pool.log_start)

    @staticmethod
    def tilted(pool: Pool, inverse_beta: float) -> _Policy:
        return _Policy.start(pool).moved(pool.proxy * inverse_beta)

    def moved(self, change: Array) -> _Policy:
        """Its logits changed by (n,)."""
        logits = self.log_probability + change
        top = np.full(int(self.prompt.max()) + 1, -np.inf)
        np.maximum.at(top, self.prompt, logits)
        logits = logits - top[self.prompt]
        return _Policy(self.prompt, self.log_start, logits - np.log(np.bincount(self.prompt, np.exp(logits)))[self.prompt])

    @property
    def probability(self) -> Array:
        return np.exp(self.log_probability)

    @property
    def kl(self) -> float:
        return max(float(np.bincount(self.prompt, self.probability * (self.log_probability - self.log_start)).mean()), 0.0)

    @property
    def entropy(self) -> float:
        return float(-np.bincount(self.prompt, self.probability * self.log_probability).max())

    def mean(self, value: Array) -> float:
        return float(np.bincount(self.prompt, self.probability * value).mean())


# ---------------------------------------------------------------------------------------------- gradient steps


@dataclass(frozen=True)
class Steps:
    """What became of a policy, step by step; the first entry is the start."""

    kl: Array
    entropy: Array
    proxy: Array
    gold: Array
    """(T + 1,) means over prompts; entropy is the least of any prompt."""
    step: Array
    """(T + 1,) largest change of a logit in the step."""
    shortened: NDArray[np.bool_]
    """(T + 1,) whether a guard shortened the step."""
    probability: Array
    """(n,) of each response in the end."""


def keep_weights(n: int, keep: Keep) -> Array:
    """(n,) how likely a policy learns from each of n responses drawn to a prompt, the best by reward first.

    all: alike. best: the first. best-random: the first half the time, else any other. best-worst: the first or the last.

    Source: Shen & Zhang 2024, section 3.
    """
    weight = np.zeros(n)
    if keep == "all":
        weight[:] = 1 / n
    elif keep == "best":
        weight[0] = 1.0
    elif keep == "best-random":
        weight[0], weight[1:] = 0.5, 0.5 / (n - 1)
    else:
        weight[0], weight[-1] = 0.5, 0.5
    return weight


def follow(
    pool: Pool, *, keep: Keep = "all", n: int = 5, steps: int = 200, rate: float = 0.5, guards: Guards | None = None, seed: int = 0
) -> Steps:
    """Policy gradient on the proxy, a policy of its own for each prompt: in each step n responses to a prompt are drawn, one of them is kept, and its logit
    moves with its advantage.

        logits += rate A (e_y - p),   A = (r_y - mean r) / sd r over the responses kept in the step

    A step that would break a guard is halved until it does not; one that cannot be short enough is not made.

    Parameters
    ----------
    keep : which of the n responses the policy learns from (`keep_weights`).
    rate : change of a logit for an advantage of 1.
    guards : what the policy keeps to; nothing where not given.

    Raises
    ------
    InvalidSetting
        If `n` is below 2 or `keep` is unknown.
    """
    if n < 2:
        raise InvalidSetting("n", n, "Draw two responses or more.")
    if keep not in KEEPS:
        raise InvalidSetting("keep", keep, f"Use one of {', '.join(KEEPS)}.")
    guards = guards or Guards()
    rng = np.random.default_rng(seed)
    policy = _Policy.start(pool)
    weights = keep_weights(n, keep)
    order = np.argsort(pool.prompt, kind="stable")
    counts = np.bincount(pool.prompt)
    first = np.r_[0, np.cumsum(counts)[:-1]]
    rows: list[tuple[float, ...]] = [(policy.kl, policy.entropy, policy.mean(pool.proxy), policy.mean(pool.gold), 0.0, 0.0)]
    for _ in range(steps):
        mine = _draw(policy.probability[order], counts, first, n, rng)
        reward = pool.proxy[order][mine]
        ranked = np.take_along_axis(mine, np.argsort(-reward, axis=1, kind="stable"), axis=1)
        kept = order[ranked[np.arange(len(counts)), rng.choice(n, len(counts), p=weights)]]
        advantage = pool.proxy[kept] - pool.proxy[kept].mean()
        scale = advantage.std()
        change = -(rate * advantage / scale if scale > 0 else 0.0 * advantage)[pool.prompt] * policy.probability
        change[kept] += rate * advantage / scale if scale > 0 else 0.0
        largest = float(np.abs(change).max())
        factor = 1.0 if guards.step is None or largest <= guards.step else guards.step / largest
        shortened = factor < 1
        moved = policy.moved(factor * change)
        for _ in range(40):
            if guards.hold(moved.kl, moved.entropy):
                break
            factor, shortened = factor / 2, True
            moved = policy.moved(factor * change)
        else:
            factor, moved = 0.0, policy
        policy = moved
        rows.append((policy.kl, policy.entropy, policy.mean(pool.proxy), policy.mean(pool.gold), factor * largest, float(shortened)))
    kl, entropy, proxy, gold, step, cut = np.array(rows).T
    return Steps(kl, entropy, proxy, gold, step, cut > 0, policy.probability)


def _draw(probability: Array, counts: Codes, first: Codes, n: int, rng: np.random.Generator) -> Codes:
    """(n_prompts, n) positions drawn with replacement from each prompt's own policy, responses sorted by prompt."""
    before = np.cumsum(probability)
    base = before[first] - probability[first]
    asked = base[:, None] + rng.random((len(counts), n)) * (before[first + counts - 1] - base)[:, None]
    found = np.searchsorted(before, asked, side="right")
    return np.clip(found, first[:, None], (first + counts - 1)[:, None])
