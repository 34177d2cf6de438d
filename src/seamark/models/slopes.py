"""Raters' slopes: their prior, a mixture of careful, at chance and opposed, and the grid on which each is integrated out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, logsumexp

from seamark.models.likelihood import Nodes

Array = NDArray[np.float64]

SHARES = ("careful", "at chance", "opposed")
PSEUDO_RATERS = np.array([4.0, 0.5, 0.5])
"""Prior of the three shares, as if five raters had been seen: keeps a share from being exactly 0 or 1 in small data."""
_SPREAD_PRIOR = (2.0, 0.3)
"""Prior of the spread of careful slopes: as if two raters with spread 0.3 had been seen."""
_WIDEST_SPREAD = 0.5
"""A careful slope is positive with 97.5%. Wider, the prior is half-normal, which has no preferred scale: the gauge would slide."""
GRID = 7
"""Nodes per branch of slopes."""
_SPACING = 1.2
"""Distance of the nodes in standard deviations: the trapezoid rule is then exact to 2e-6 for a Gaussian, over +-3.6 of them."""


@dataclass
class Slopes:
    """Prior and integration grid of the raters' slopes.

    Prior: careful N(1, spread^2) cut at 0, at chance exactly 0, opposed the mirror image of careful. A normal rather than a
    log-normal slope: a log-normal wide enough for the noisy half of a crowd also covers slopes near 0 and swallows those at chance.
    """

    shares: Array
    """careful, at chance, opposed"""
    spread: float
    centre: Array
    """(R, branches) of |slope|"""
    width: Array
    """(R, branches)"""
    level_share: Array = field(default_factory=lambda: np.ones(1))
    """(L,) prior mass of the latent levels; R counts each rater once per level."""
    learnt: bool = False
    """Whether it is estimated."""

    @staticmethod
    def start(n_raters: int, *, opposed: bool, level_share: Array | None = None, learnt: bool = False) -> Slopes:
        branches = 2 if opposed else 1
        shares = np.array([0.85, 0.1, 0.05]) if opposed else np.array([0.9, 0.1, 0.0])
        level_share = np.ones(1) if level_share is None else level_share
        rows = n_raters * len(level_share)
        return Slopes(shares, 0.3, np.ones((rows, branches)), np.full((rows, branches), 0.3), level_share, learnt)

    def turn(self) -> None:
        """Careful becomes opposed and the other way round."""
        self.shares = self.shares[[2, 1, 0]]
        self.centre, self.width = self.centre[:, ::-1].copy(), self.width[:, ::-1].copy()

    def unseen(self) -> Nodes:
        """One rater who is only known by the prior."""
        branches = self.centre.shape[1]
        L = len(self.level_share)
        return Slopes(self.shares, self.spread, np.ones((L, branches)), np.full((L, branches), self.spread), self.level_share).nodes()

    def grid(self) -> Array:
        """(R, branches, GRID) of |slope|; nodes at or below 0 carry no prior."""
        steps = _SPACING * (np.arange(GRID) - (GRID - 1) / 2)
        return self.centre[:, :, None] + self.width[:, :, None] * steps

    def nodes(self) -> Nodes:
        grid = self.grid()
        R, branches, _ = grid.shape
        log_density = -0.5 * ((grid - 1) / self.spread) ** 2 - np.log(self.spread * np.sqrt(2 * np.pi)) - log_ndtr(1 / self.spread)
        share = np.log(np.maximum(self.shares[[0, 2][:branches]], 1e-300))
        mass = np.where(grid > 0, log_density + np.log(_SPACING * self.width[:, :, None]) + share[None, :, None], -np.inf)
        sign = np.array([1.0, -1.0])[:branches]
        slope = np.hstack([np.zeros((R, 1)), (sign[None, :, None] * np.maximum(grid, 0)).reshape(R, -1)])
        prior = np.hstack([np.full((R, 1), np.log(max(self.shares[1], 1e-300))), mass.reshape(R, -1)])
        L = len(self.level_share)
        prior += np.tile(np.log(np.maximum(self.level_share, 1e-300)), R // L)[:, None]
        unknown_prior = np.full((1, slope.shape[1]), -np.inf)
        unknown_prior[0, 0] = 0.0
        return Nodes(np.vstack([slope, np.ones((1, slope.shape[1]))]), np.vstack([prior, unknown_prior]), L)

    def scores(self, posterior: Array) -> Array:
        """(n_raters, 2 or 3) derivative of each rater's log marginal likelihood by the log odds of being at chance (and of being
        opposed) against careful, and by the log spread, from the posterior over all nodes."""
        L, branches = len(self.level_share), self.centre.shape[1]
        R = len(self.centre) // L
        each = posterior[:-1].reshape(R, L, -1)
        by_branch = each[:, :, 1:].reshape(R, L, branches, GRID)
        masses = [each[:, :, 0].sum(1), *([by_branch[:, :, 1].sum((1, 2))] if branches == 2 else [])]
        kinds = [mass - share for mass, share in zip(masses, self.shares[1:], strict=False)]
        cut = np.exp(-0.5 / self.spread**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(1 / self.spread)) / self.spread
        bend = ((self.grid() - 1) / self.spread) ** 2 - 1 + cut
        return np.column_stack([*kinds, (by_branch * bend.reshape(R, L, branches, GRID)).sum((1, 2, 3))])

    def prior_information(self) -> Array:
        """(2 or 3, same) what the pseudo-raters know of the same parameters."""
        shares = self.shares[1 : 1 + self.centre.shape[1]]
        out = np.zeros((len(shares) + 1,) * 2)
        out[:-1, :-1] = PSEUDO_RATERS.sum() * (np.diag(shares) - np.outer(shares, shares))
        out[-1, -1] = 2 * _SPREAD_PRIOR[0]
        return out

    def hyper(self) -> list[float]:
        """What settles when the search does."""
        return [*self.shares, float(np.log(self.spread)), *(self.level_share if self.learnt else ())]

    def update(self, log_joint: Array, seen: NDArray[np.bool_]) -> float:
        """Move shares, spread and grid towards the posterior.

        Returns the mean slope of careful raters, by which the values are to be scaled: scale and slopes are almost exchangeable, so a Newton step and an EM step in turn would creep along that ridge.
        """
        R, branches = self.centre.shape
        L = len(self.level_share)
        people = int(seen.sum())
        seen = np.repeat(seen, L)
        grid = self.grid()
        log_prior = self.nodes().log_prior[:R]
        possible = np.isfinite(log_prior)
        likelihood = np.where(possible, log_joint[:R] - np.where(possible, log_prior, 0.0), -np.inf)
        n0, s0 = _SPREAD_PRIOR
        pseudo = PSEUDO_RATERS if branches == 2 else PSEUDO_RATERS * [1, 1, 0]
        squares = (grid[seen] - 1) ** 2
        # EM to its end: given the likelihood at the nodes a round costs nothing
        joint, by_branch = likelihood, np.zeros((0, branches, GRID))
        for _ in range(100):
            joint = likelihood + self.nodes().log_prior[:R]
            whole = joint[seen].reshape(people, -1)
            posterior = np.exp(whole - np.asarray(logsumexp(whole, axis=1, keepdims=True))).reshape(people * L, -1)
            if self.learnt:
                by_level = posterior.reshape(people, L, -1).sum((0, 2)) + 1.0
                self.level_share = by_level / by_level.sum()
            by_branch = posterior[:, 1:].reshape(-1, branches, GRID)
            mass = np.array([by_branch[:, 0].sum(), posterior[:, 0].sum(), by_branch[:, 1].sum() if branches == 2 else 0.0])
            n, total = mass[0] + mass[2] + n0, float((by_branch * squares).sum()) + n0 * s0**2

            def cost(log_spread: float, n: float = n, total: float = total) -> float:
                return n * (log_spread + log_ndtr(np.exp(-log_spread))) + total / 2 * np.exp(-2 * log_spread)

            spread = float(np.exp(minimize_scalar(cost, bounds=(np.log(0.05), np.log(_WIDEST_SPREAD)), method="bounded").x))
            shares = (mass + pseudo) / (mass + pseudo).sum()
            step = max(float(np.abs(shares - self.shares).max()), abs(np.log(spread / self.spread)))
            self.shares, self.spread = shares, spread
            if step < 1e-3:
                break
        # the grid follows each branch's own posterior; it shrinks by halves, since a grid that is too coarse cannot see its width
        log_w = joint[:, 1:].reshape(R, branches, GRID)
        w = np.exp(log_w - np.asarray(logsumexp(log_w, axis=2, keepdims=True)))
        centre = (w * grid).sum(2)
        width = np.sqrt((w * (grid - centre[:, :, None]) ** 2).sum(2))
        self.centre = np.clip(centre, 0.0, 1 + 4 * self.spread)
        self.width = np.clip(width, self.width / 2, self.spread)
        # the mean of a normal cut at 0 lies a little above 1
        cut = np.exp(-0.5 / self.spread**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(1 / self.spread))
        # by_branch is the posterior of the raters seen, at the grid before it moved
        mean = float((by_branch * grid[seen]).sum() / by_branch.sum()) / (1 + self.spread * cut)
        mean = float(np.clip(mean, 0.5, 2.0)) if by_branch.sum() > 1 else 1.0
        self.centre, self.width = self.centre / mean, self.width / mean
        return mean


@dataclass
class Classes:
    """Latent levels of raters whose slopes are all 1."""

    n_raters: int
    level_share: Array
    learnt: bool

    def nodes(self) -> Nodes:
        L = len(self.level_share)
        prior = np.append(np.tile(np.log(np.maximum(self.level_share, 1e-300)), self.n_raters), 0.0)
        return Nodes(np.ones((self.n_raters * L + 1, 1)), prior[:, None], L)

    def unseen(self) -> Nodes:
        return Classes(1, self.level_share, self.learnt).nodes()

    def hyper(self) -> list[float]:
        return [*self.level_share] if self.learnt else []

    def update(self, log_joint: Array, seen: NDArray[np.bool_]) -> float:
        """Shares by EM; slopes keep their mean of 1."""
        if self.learnt:
            _, posterior = self.nodes().posterior(log_joint)
            mass = posterior[:-1, 0].reshape(self.n_raters, -1)[seen].sum(0) + 1.0
            self.level_share = mass / mass.sum()
        return 1.0
