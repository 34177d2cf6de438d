"""Costs, rewards and preferences: three things that are not each other, and the named assumptions that turn one into another.

Conventions
-----------
A *preference* is how often one response is chosen over another: a share, of a pair, with no unit and no zero. A *reward* is a number
per response, in a stated unit, of which more is better and only differences mean anything. A *cost* is a number per response in a
stated unit, of which less is better, with a zero that means nothing was spent or hurt.

They add up among themselves, in the same unit. Anything else is a TypeError when it runs and an error of the type checker before.
There is no conversion but the functions below: each is named after what it assumes, and the result keeps the assumption.

Source: Lambert, Gilbert & Zick 2023 (costs and rewards are functions from control and conditioning; preferences drift, depend on
context and need not be comparable; von Neumann and Morgenstern's theorem licenses a number only under assumptions that text breaks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Costs:
    """What is spent or hurt, per response: less is better."""

    values: Array
    """(n,) at least 0, in `unit`."""
    unit: str
    assumptions: tuple[str, ...] = ()
    """What was assumed to get here, in order; empty: measured as such."""

    __array_ufunc__ = None  # else NumPy would add the numbers of one to another, or to a plain array

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _numbers("costs", self.values))
        if (self.values < 0).any():
            raise InvalidSetting("costs", float(self.values.min()), "A cost is at least 0; what is gained is a reward.")
        _require_unit("costs", self.unit)

    def __add__(self, other: Costs) -> Costs:
        if not isinstance(other, Costs):  # pyright: ignore[reportUnnecessaryIsInstance]  # for those who run without a type checker
            return NotImplemented
        _require_same(self.unit, other.unit)
        return Costs(self.values + other.values, self.unit, _joined(self.assumptions, other.assumptions))


@dataclass(frozen=True, eq=False)
class Rewards:
    """How good each response is: more is better, and only differences mean anything."""

    values: Array
    """(n,) in `unit`."""
    unit: str
    """logits, for utilities of a fit."""
    assumptions: tuple[str, ...] = ()

    __array_ufunc__ = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _numbers("rewards", self.values))
        _require_unit("rewards", self.unit)

    def __add__(self, other: Rewards) -> Rewards:
        if not isinstance(other, Rewards):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        _require_same(self.unit, other.unit)
        return Rewards(self.values + other.values, self.unit, _joined(self.assumptions, other.assumptions))

    def __sub__(self, other: Rewards) -> Rewards:
        if not isinstance(other, Rewards):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        _require_same(self.unit, other.unit)
        return Rewards(self.values - other.values, self.unit, _joined(self.assumptions, other.assumptions))


@dataclass(frozen=True, eq=False)
class Preferences:
    """How often the first of two responses is chosen over the second, per pair. They do not add up: nothing is defined by a sum of them."""

    values: Array
    """(n,) shares, 0 to 1."""
    assumptions: tuple[str, ...] = ()

    __array_ufunc__ = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _numbers("preferences", self.values))
        outside = (self.values < 0) | (self.values > 1)
        if outside.any():
            raise InvalidSetting("preferences", float(self.values[outside][0]), "A preference is a share, from 0 to 1.")

    def reversed(self) -> Preferences:
        """The same pairs, the second over the first."""
        return Preferences(1 - self.values, self.assumptions)


# ---------------------------------------------------------------------------------------------- conversions, each by its assumption


def preferences_assuming_bradley_terry(first: Rewards, second: Rewards) -> Preferences:
    """Preferences that rewards imply if people choose by the logistic of the difference: p = 1 / (1 + exp(second - first)).

    Assumes that the reward is all that a choice depends on: not the context, the order, the other options or the person.

    Raises
    ------
    InvalidSetting
        If the rewards are not in logits: on another scale the difference has no such meaning.
    """
    _require_same(first.unit, second.unit)
    if first.unit != "logits":
        raise InvalidSetting(
            "unit", first.unit, "Bradley-Terry's choice is a function of a difference in logits; fit one (seamark.fit) first."
        )
    said = "choices depend on the difference of rewards alone, by the logistic (Bradley & Terry 1952)"
    gap = first.values - second.values
    values = np.where(gap >= 0, 1 / (1 + np.exp(-np.abs(gap))), np.exp(-np.abs(gap)) / (1 + np.exp(-np.abs(gap))))
    return Preferences(values, _joined(first.assumptions, second.assumptions, (said,)))


def gaps_assuming_bradley_terry(preferences: Preferences) -> Rewards:
    """The difference of rewards, first less second, in logits, that would make people choose so: log(p / (1 - p)).

    Assumes that all who chose share one reward and differ by noise alone: disagreement is read as a small difference.

    Raises
    ------
    InvalidSetting
        If all chose alike in some pair: the difference would be infinite, and what is lacking is data.
    """
    p = preferences.values
    settled = (p == 0) | (p == 1)
    if settled.any():
        raise InvalidSetting(
            "preferences", float(p[settled][0]), "All chose alike, so no finite difference says it; fit a model with a prior (seamark.fit)."
        )
    said = "everyone shares one reward; choices differ by logistic noise alone (Bradley & Terry 1952)"
    return Rewards(np.log(p) - np.log1p(-p), "logits", _joined(preferences.assumptions, (said,)))


def rewards_assuming_exchange(costs: Costs, *, rate: float, unit: str) -> Rewards:
    """What costs take from the reward, if one unit of cost is worth `rate` units of reward: -rate x cost.

    Assumes that cost and reward make up for each other, at one rate, at every level and for everybody. Who sets the rate decides whose
    loss is worth whose gain: it belongs in a charter.

    Parameters
    ----------
    rate : units of reward per unit of cost, above 0.
    unit : of the reward.
    """
    _require_rate(rate)
    said = f"one {costs.unit} of cost is made up for by {rate:g} {unit} of reward, at every level and for everybody"
    return Rewards(-rate * costs.values, unit, _joined(costs.assumptions, (said,)))


def costs_assuming_best_forgone(rewards: Rewards, *, rate: float, unit: str) -> Costs:
    """What is lost by each response against the best one here, if a unit of reward is worth `rate` units of cost: rate x (max - reward).

    Assumes that the best of these responses could have been had, and that nothing else was at stake.
    """
    _require_rate(rate)
    said = f"the best of the {len(rewards.values)} responses could be had; one {rewards.unit} of reward is worth {rate:g} {unit}"
    lost = rewards.values.max(initial=-np.inf) - rewards.values if len(rewards.values) else rewards.values
    return Costs(rate * lost, unit, _joined(rewards.assumptions, (said,)))


def _numbers(name: str, values: Any) -> Array:
    found = np.array(values, dtype=np.float64)  # a copy: who made it keeps their own
    if found.ndim != 1 or not np.isfinite(found).all():
        raise InvalidSetting(name, values, "Give a list of finite numbers.")
    found.setflags(write=False)
    return found


def _require_unit(name: str, unit: str) -> None:
    if not unit.strip():
        raise InvalidSetting(f"unit of {name}", unit, "Name the unit: numbers without one cannot be added.")


def _require_same(one: str, other: str) -> None:
    if one != other:
        raise InvalidSetting("unit", other, f"The other is in {one}; bring both to one unit first.")


def _require_rate(rate: float) -> None:
    if not (np.isfinite(rate) and rate > 0):
        raise InvalidSetting("rate", rate, "Use a number above 0.")


def _joined(*assumptions: Sequence[str]) -> tuple[str, ...]:
    """All of them in order, each once."""
    return tuple(dict.fromkeys(a for some in assumptions for a in some))
