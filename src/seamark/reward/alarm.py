"""The alarm: whether a policy that follows the reward will go too far, told without gold.

Conventions
-----------
As in `policies`: a pool has responses, a policy gives some of them more often the stronger it is. `chosen` is (n, K), how often each of n
responses is given at each of K strengths, the start policy first; `best_of_n_shares` and `tilt` make it. *Draws* are (n, S): what S
equally credible golds say of each response, as draws from the posterior of a fit, or the members of an ensemble. Gains are above the
start policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]

TOLERANCE = 0.01
"""Share of the highest gain that may be lost before a fall counts as one."""
RAISED = 0.25
"""Probability of a fall from which the alarm is raised: on 63 worlds drawn to set it (seeds of their own, three of four families) it
gave two false alarms, and .2 five. On worlds drawn afterwards it gave more, see docs/benchmarks.md."""
_EARLY = 0.01
"""Of the draws in which gold falls, the share whose peak may lie before the strength that the alarm allows."""


@dataclass(frozen=True)
class Alarm:
    """What credible golds say of policies of growing strength."""

    gain: Array
    """(K,) posterior mean."""
    low: Array
    high: Array
    """(K,) 95% of the draws."""
    fall: float
    """Probability that gold at the strongest lies below its highest by more than `TOLERANCE` of the gain there."""
    raised: bool
    at: int | None
    """Index of the strength at which the alarm goes off: one before the earliest hundredth of the falling draws has its peak; None where it is not
    raised. A policy that stops here has, as far as the draws know, not begun to fall."""
    peak: int
    """Index of the strength at which the mean gain is highest."""


def forecast(chosen: Array, draws: Array, *, raised: float = RAISED, least: int = 0) -> Alarm:
    """Where gold will turn, by golds that the data leave credible.

        G_s(k) = sum_i chosen_ik draws_is - sum_i chosen_i0 draws_is

    Parameters
    ----------
    chosen : (n, K) each column sums to 1.
    draws : (n, S) in any unit, S >= 2.
    raised : probability of a fall from which the alarm goes off.
    least : index before which it does not go off.

    Raises
    ------
    InvalidSetting
        If shapes do not agree, or there are fewer than three strengths.
    """
    if chosen.ndim != 2 or draws.ndim != 2 or len(chosen) != len(draws) or draws.shape[1] < 2:
        raise InvalidSetting("draws", draws.shape, f"Give two golds or more for each of the {len(chosen):,} responses.")
    return forecast_means(chosen.T @ draws, raised=raised, least=least)


def forecast_means(means: Array, *, raised: float = RAISED, least: int = 0) -> Alarm:
    """`forecast` from (K, S) what each gold says of each policy: where values are linear in features, a policy's mean features suffice.

    Raises
    ------
    InvalidSetting
        If there are fewer than three strengths.
    """
    if means.ndim != 2 or len(means) < 3:
        raise InvalidSetting("chosen", means.shape, "Give three strengths or more, the start policy first.")
    gain = means - means[0]
    top, peak = gain.max(0), gain.argmax(0)
    # of rewards that are all the same, rounding alone is left of every gain
    falls = (top - gain[-1] > TOLERANCE * top) & (top > 1e-9 * np.abs(means).max(initial=1.0))
    share = float(falls.mean())
    at = max(least, int(np.quantile(peak[falls], _EARLY, method="lower")) - 1) if share >= raised else None
    low, high = np.quantile(gain, [0.025, 0.975], axis=1)
    mean = gain.mean(1)
    return Alarm(mean, low, high, share, at is not None, at, int(mean.argmax()))


# ---------------------------------------------------------------------------------------------- what is looked at besides


def growth(chosen: Array, values: ArrayLike) -> Array:
    """(K,) mean of a value over what each policy gives, as a multiple of the start policy's: of the ignorance (n,), or of the spread over the
    members of an ensemble.
    """
    means = np.asarray(chosen.T @ np.asarray(values, dtype=np.float64))
    return means / max(float(means[0]), 1e-12)


def outlyingness(features: Array, reference: Array) -> Array:
    """(n,) squared Mahalanobis distance of each response from the training responses, by the number of features: 1 is usual.

    Parameters
    ----------
    features : (n, P); reference : (m, P) of the training responses.

    Source: Miao et al. 2024 and 2025, who count outliers in the space of a bottleneck; the covariance is shrunk to a sphere (Ledoit & Wolf
    2004).
    """
    centre = reference.mean(0)
    factor = np.linalg.cholesky(np.linalg.inv(_shrunk(reference - centre)))
    return (((features - centre) @ factor) ** 2).mean(1)


def outlier_index(chosen: Array, features: Array, reference: Array) -> Array:
    """(K,) mean `outlyingness` of what each policy gives: 1 where it is like the training responses."""
    return np.asarray(chosen.T @ outlyingness(features, reference))


def drift(chosen: Array, features: Array) -> Array:
    """(K,) how far the mean features of each policy are from the start policy's: root mean square over features, in its standard deviations."""
    means = chosen.T @ features
    spread = np.sqrt(np.maximum(chosen[:, 0] @ features**2 - means[0] ** 2, 1e-24))
    return np.sqrt((((means - means[0]) / spread) ** 2).mean(1))


def residual_growth(chosen: Array, reward: Array, *, pair: Array, won: NDArray[np.bool_], bins: int = 20) -> Array:
    """(K,) mean squared residual of training pairs of the reward that each policy gives, as a multiple of the start policy's: whether the
    reward is less trustworthy where optimisation goes.

        residual_j = (won_j - p_j) / sqrt(p_j (1 - p_j)),    p_j = 1 / (1 + exp(-(pair_j0 - pair_j1)))

    Parameters
    ----------
    reward : (n,) logits.
    pair : (m, 2) reward of the two responses of each training pair; a pair counts in the bins of both.
    won : (m,) whether the first was preferred.
    bins : equally filled bins of the rewards in `pair`.

    Source: instead of Shen & Zhang's R2 by reward region (2024), which a mere range effect also moves.
    """
    p = 1 / (1 + np.exp(-np.clip(pair[:, 0] - pair[:, 1], -30, 30)))
    squared = (won - p) ** 2 / (p * (1 - p))
    edges = np.unique(np.quantile(pair, np.linspace(0, 1, bins + 1)[1:-1]))
    code = np.searchsorted(edges, pair)
    total = np.bincount(code.ravel(), np.repeat(squared, 2), minlength=len(edges) + 1)
    mean = total / np.maximum(np.bincount(code.ravel(), minlength=len(edges) + 1), 1)
    return growth(chosen, mean[np.searchsorted(edges, reward)])


def first_above(signal: Sequence[float] | Array, threshold: float) -> int | None:
    """Index of the first strength at which a signal exceeds a threshold; None where it never does."""
    above = np.flatnonzero(np.asarray(signal) > threshold)
    return int(above[0]) if len(above) else None


def _shrunk(centred: Array) -> Array:
    """Ledoit & Wolf's estimate of a covariance."""
    m, p = centred.shape
    sample = centred.T @ centred / m
    mean = np.trace(sample) / p
    far = float(((sample - mean * np.eye(p)) ** 2).sum()) / p
    noise = float(((centred**2).T @ (centred**2) / m - sample**2).sum()) / p / m
    weight = min(noise / far, 1.0) if far > 0 else 1.0
    return weight * mean * np.eye(p) + (1 - weight) * sample + 1e-12 * mean * np.eye(p)
