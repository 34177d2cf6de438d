"""What other weights would have decided: the electorate's weights are a policy, and a policy has a range that is defensible.

Conventions
-----------
`by_group` is (n, G): the utility gap of n pairs in each of G groups, in logits, as in `Gaps.by_group`. Weights w are of G groups, at
least 0, and sum to 1. The weights that are *admissible* lie between bounds stated per group:

    W = {w : low <= w <= high, sum w = 1},    the gap under w is by_group @ w

A decision (which of two responses is better) is *flipped* by the admissible weights where some of them make its gap positive and some
negative. Over W the gap is linear, so its extremes are found exactly: all that is free goes to the groups with the largest gap first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Admissible:
    """Bounds on the weight of each group, as shares."""

    groups: tuple[str, ...]
    low: Array
    """(G,)"""
    high: Array
    """(G,)"""

    def __post_init__(self) -> None:
        for name, low, high in zip(self.groups, self.low, self.high, strict=True):
            if not 0 <= low <= high <= 1:
                raise InvalidSetting(f"weights of {name}", (float(low), float(high)), "Give shares from 0 to 1, the lower first.")
        if self.low.sum() > 1 + 1e-9 or self.high.sum() < 1 - 1e-9:
            said = f"from {self.low.sum():g} to {self.high.sum():g}"
            raise InvalidSetting("weights in all", said, "No weights within these bounds sum to 1; widen them.")

    @staticmethod
    def of(groups: Sequence[str], bounds: Mapping[str, tuple[float, float]] | None = None) -> Admissible:
        """Bounds by name of the group; anything from 0 to 1 for groups not named.

        Raises
        ------
        InvalidSetting
            If a group is not known, or nothing lies within the bounds.
        """
        bounds = bounds or {}
        for name in bounds:
            if name not in groups:
                raise InvalidSetting("bounds", name, f"It is no group; the groups are {', '.join(groups)}.")
        low, high = np.array([bounds.get(name, (0.0, 1.0)) for name in groups], dtype=np.float64).reshape(-1, 2).T
        return Admissible(tuple(groups), low, high)

    @staticmethod
    def around(groups: Sequence[str], weights: Array, *, factor: float) -> Admissible:
        """All weights that give each group between 1/factor and factor times its share."""
        if not factor >= 1:
            raise InvalidSetting("factor", factor, "Use 1 or more: 2 is from half to twice its share.")
        share = weights / weights.sum()
        return Admissible(tuple(groups), share / factor, np.minimum(share * factor, 1.0))


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What the admissible weights do to each decision."""

    lowest: Array
    """(n,) smallest gap under admissible weights, logits."""
    highest: Array
    """(n,) largest."""

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """(n,) whether some admissible weights prefer the one response and some the other."""
        return (self.lowest < 0) & (self.highest > 0)


def sensitivity(by_group: Array, admissible: Admissible) -> Sensitivity:
    """The extremes of each gap over all admissible weights.

    Parameters
    ----------
    by_group : (n, G) gaps, logits, columns in the order of `admissible.groups`.

    Raises
    ------
    InvalidSetting
        If there are not as many columns as groups.
    """
    if by_group.ndim != 2 or by_group.shape[1] != len(admissible.groups):
        raise InvalidSetting("by_group", by_group.shape, f"Give one column for each of the {len(admissible.groups)} groups.")
    return Sensitivity(-_highest(-by_group, admissible), _highest(by_group, admissible))


def flipping_weights(gaps: Array, admissible: Admissible) -> tuple[Array, Array]:
    """((G,), (G,)) admissible weights under which the gap of one pair, (G,) by group, is lowest and highest: who would decide it so."""
    return _filled(-gaps[None], admissible)[0], _filled(gaps[None], admissible)[0]


def _highest(by_group: Array, admissible: Admissible) -> Array:
    return (by_group * _filled(by_group, admissible)).sum(1)


def _filled(by_group: Array, admissible: Admissible) -> Array:
    """(n, G) the admissible weights with the largest gap: each group has its least, and the rest goes to the best first."""
    order = np.argsort(-by_group, axis=1, kind="stable")
    room = (admissible.high - admissible.low)[order]
    before = np.cumsum(room, axis=1) - room
    given = np.clip(1 - admissible.low.sum() - before, 0, room)
    weights = np.empty_like(by_group)
    np.put_along_axis(weights, order, admissible.low[order] + given, axis=1)
    return weights
