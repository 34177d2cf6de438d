"""The outcome families in closed form: log probability with its derivatives, for the passes that a fit makes hundreds of times.

The formulas of `observation` stay the definition; a test holds these to them through automatic differentiation. They exist because
a second derivative by automatic differentiation costs ten times as much as the one pass here.

Conventions
-----------
Arrays are (n, a) over n cells and a nodes of the integral over raters; families with a contrast of d > 1 dimensions take
(n, a, d). theta (T,) are the family's own parameters; a lapse adds its log odds as the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from seamark.models.observation import PROBIT_SCALE, Choice, Davidson, Link, Outcome, Rating, Strength, Thumbs

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass
class Terms:
    """Log probability of what was answered, and its derivatives."""

    log_prob: Array
    """(n, a)"""
    first: Array
    """(n, a) or (n, a, d): by the contrast."""
    second: Array
    """(n, a) or (n, a, d, d): by the contrast, twice."""
    first_t: Array
    """(n, a, T): by theta."""
    cross: Array
    """(n, a, T): by the contrast and theta; families with d > 1 have no theta."""
    second_t: Callable[[Array], Array]
    """From weights (n, a) to the weighted sum (T, T) of the second derivative by theta."""


def log_prob(family: Outcome, z: Array, outcome: Codes, theta: Array, log_lapse_odds: float | None = None) -> Array:
    """(n, a) log probability of what was answered, and nothing else."""
    if isinstance(family, Choice):
        if family.m > 2:
            plain = _chosen(z - z.max(-1, keepdims=True), outcome)
        elif family.link == "logistic":
            plain = -_softplus(z * (2.0 * outcome - 1)[:, None])
        else:
            plain = np.asarray(log_ndtr(z * ((1 - 2.0 * outcome) / PROBIT_SCALE)[:, None]))
    elif isinstance(family, Davidson):
        half, t = z / 2, theta[0]
        sign = np.where(outcome == 2, 0.0, 1.0 - 2.0 * outcome)[:, None]
        top = np.maximum(np.abs(half), t)
        plain = half * sign + t * (outcome == 2)[:, None] - top
        plain -= np.log(np.exp(half - top) + np.exp(-half - top) + np.exp(t - top))
    else:
        location, cuts, code, _, _ = _ordinal(family, z, outcome, theta)
        plain = _Interval.of(_link(family), location, cuts, code).log_prob
    if log_lapse_odds is None:
        return plain
    lapse = float(_sigmoid(np.float64(log_lapse_odds)))
    return np.log((1 - lapse) * np.exp(plain) + lapse / family.n_outcomes)


def terms(family: Outcome, z: Array, outcome: Codes, theta: Array, log_lapse_odds: float | None = None) -> Terms:
    """Log probability and all derivatives of order one and two."""
    if isinstance(family, Choice):
        plain = _many(z, outcome) if family.m > 2 else _choice(z, outcome, family.link)
    elif isinstance(family, Davidson):
        plain = _davidson(z, outcome, theta)
    else:
        plain = _graded(family, z, outcome, theta)
    return plain if log_lapse_odds is None else _lapsed(plain, family.n_outcomes, log_lapse_odds)


# ---------------------------------------------------------------------------------------------- families


def _no_shape(n: int, a: int) -> tuple[Array, Array, Callable[[Array], Array]]:
    nothing = np.zeros((n, a, 0))
    return nothing, nothing, lambda _: np.zeros((0, 0))


def _choice(z: Array, outcome: Codes, link: Link) -> Terms:
    """One of two: y = 1 where the second was chosen."""
    if link == "logistic":
        small = np.exp(-np.abs(z))
        chosen = np.where(z >= 0, small, 1.0) / (1 + small)  # probability of the second
        log_p = np.minimum(z * (1 - 2.0 * outcome)[:, None], 0) - np.log(1 + small)
        return Terms(log_p, chosen - outcome[:, None], -chosen * (1 - chosen), *_no_shape(*z.shape))
    sign = (1 - 2.0 * outcome)[:, None]
    t = z * (sign / PROBIT_SCALE)
    log_p = np.asarray(log_ndtr(t))
    ratio = np.exp(-0.5 * t * t - 0.5 * np.log(2 * np.pi) - log_p)  # the inverse Mills ratio
    return Terms(log_p, sign * ratio / PROBIT_SCALE, -ratio * (t + ratio) / PROBIT_SCALE**2, *_no_shape(*z.shape))


def _many(z: Array, outcome: Codes) -> Terms:
    """One of more than two: softmax."""
    z = z - z.max(-1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(-1, keepdims=True)
    first = -p
    first[np.arange(len(z)), :, outcome] += 1
    second = p[..., :, None] * p[..., None, :]
    d = z.shape[-1]
    second[..., np.arange(d), np.arange(d)] -= p
    return Terms(_chosen(z, outcome), first, second, *_no_shape(*z.shape[:2]))


def _chosen(z: Array, outcome: Codes) -> Array:
    return np.asarray(np.take_along_axis(z, outcome[:, None, None], -1)[..., 0] - np.log(np.exp(z).sum(-1)))


def _davidson(z: Array, outcome: Codes, theta: Array) -> Terms:
    half, t = z / 2, theta[0]
    top = np.maximum(np.abs(half), t)
    left, right, tie = np.exp(half - top), np.exp(-half - top), np.exp(t - top)
    total = left + right + tie
    tied = (outcome == 2)[:, None]
    sign = np.where(outcome == 2, 0.0, 1.0 - 2.0 * outcome)[:, None]
    log_p = half * sign + t * tied - top - np.log(total)
    lead, tie = (left - right) / total, tie / total
    second_tie = tie * (1 - tie)
    return Terms(
        log_p,
        (sign - lead) / 2,
        -((1 - tie) - lead**2) / 4,
        (tied - tie)[..., None],
        (tie * lead / 2)[..., None],
        lambda weight: -np.array([[(weight * second_tie).sum()]]),
    )


def _graded(family: Outcome, z: Array, outcome: Codes, theta: Array) -> Terms:
    """A latent location cut into grades; derivatives by the cuts first, then by theta through the chain rule."""
    location, cuts, code, jacobian, bend = _ordinal(family, z, outcome, theta)
    part = _Interval.of(_link(family), location, cuts, code)
    sign = -1.0 if isinstance(family, Strength) else 1.0
    T = len(theta)
    # cuts below the lowest and above the highest grade are at infinity and do not move
    padded = np.vstack([np.zeros((1, T)), jacobian, np.zeros((1, T))])
    padded_bend = np.vstack([np.zeros((1, T)), bend, np.zeros((1, T))])
    low, high = padded[code], padded[code + 1]
    first_t = part.high[..., None] * high[:, None] + part.low[..., None] * low[:, None]
    # shifting the location is shifting both cuts the other way
    by_high, by_low = part.high2 + part.both, part.low2 + part.both
    cross = -sign * (by_high[..., None] * high[:, None] + by_low[..., None] * low[:, None])
    second = by_high + by_low

    def second_t(weight: Array) -> Array:
        grades = len(cuts) + 1
        high2, low2, both, up, down = (
            np.bincount(code, weights=np.einsum("na,na->n", weight, v), minlength=grades)
            for v in (part.high2, part.low2, part.both, part.high, part.low)
        )
        above, below = padded[1:], padded[:-1]
        mixed = above.T @ (both[:, None] * below)
        total = above.T @ (high2[:, None] * above) + below.T @ (low2[:, None] * below) + mixed + mixed.T
        return np.asarray(total + np.diag(up @ padded_bend[1:] + down @ padded_bend[:-1]))

    return Terms(part.log_prob, -sign * (part.high + part.low), second, first_t, cross, second_t)


def _link(family: Outcome) -> Link:
    assert isinstance(family, Strength | Rating | Thumbs)
    return family.link


def _ordinal(family: Outcome, z: Array, outcome: Codes, theta: Array) -> tuple[Array, Array, Codes, Array, Array]:
    """(location, cuts (C - 1,), grade codes, d cuts / d theta (C - 1, T), its own derivative by the same theta)."""
    if isinstance(family, Thumbs):
        return z, theta[:1], 1 - outcome, np.ones((1, 1)), np.zeros((1, 1))
    steps = np.exp(theta)
    if isinstance(family, Strength):
        reached = np.tril(np.ones((len(theta), len(theta)))) * steps
        middle = np.zeros((0 if family.ties else 1, len(theta)))
        jacobian = np.vstack([-reached[::-1], middle, reached])
        # outcome 0 is the strongest left, so the latent axis runs from right to left
        return -z, jacobian.sum(1), outcome, jacobian, jacobian
    assert isinstance(family, Rating)
    bend = np.tril(np.ones((len(theta), len(theta)))) * np.where(np.arange(len(theta)) == 0, 0.0, steps)
    jacobian = bend.copy()
    jacobian[:, 0] = 1.0
    return z, theta[0] + bend.sum(1), outcome, jacobian, bend


@dataclass
class _Interval:
    """log P(low cut < location + noise <= high cut), and derivatives by the two cuts. All (n, a)."""

    log_prob: Array
    high: Array
    low: Array
    high2: Array
    low2: Array
    both: Array

    @staticmethod
    def of(link: Link, location: Array, cuts: Array, code: Codes) -> _Interval:
        b = np.append(cuts, np.inf)[code][:, None] - location
        a = np.append(-np.inf, cuts)[code][:, None] - location
        return _Interval._logistic(a, b) if link == "logistic" else _Interval._probit(a / PROBIT_SCALE, b / PROBIT_SCALE)

    @staticmethod
    def _logistic(a: Array, b: Array) -> _Interval:
        # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)) keeps its accuracy far from the cuts
        width = -np.expm1(a - b)
        below, above = _sigmoid(a), _sigmoid(-b)
        extra = np.where(np.isinf(a) | np.isinf(b), 0.0, (1 - width) / width)
        log_p = np.log(width) - _softplus(a) - _softplus(-b)
        both = extra * (1 + extra)
        return _Interval(log_p, above + extra, -below - extra, -above * (1 - above) - both, -below * (1 - below) - both, both)

    @staticmethod
    def _probit(a: Array, b: Array) -> _Interval:
        # on the side where both tails are small
        swap = a + b > 0
        lower, upper = np.where(swap, -b, a), np.where(swap, -a, b)
        log_upper, log_lower = np.asarray(log_ndtr(upper)), np.asarray(log_ndtr(lower))
        log_p = log_upper + np.log1p(-np.exp(log_lower - log_upper))
        c = 0.5 * np.log(2 * np.pi)
        up, down = np.exp(-0.5 * b * b - c - log_p), np.exp(-0.5 * a * a - c - log_p)
        b, a = np.where(np.isinf(b), 0.0, b), np.where(np.isinf(a), 0.0, a)
        s = PROBIT_SCALE
        return _Interval(log_p, up / s, -down / s, (-b * up - up**2) / s**2, (a * down - down**2) / s**2, up * down / s**2)


# ---------------------------------------------------------------------------------------------- lapse


def _lapsed(plain: Terms, n_outcomes: int, log_odds: float) -> Terms:
    """log((1 - e) P + e / C), e = sigmoid(log_odds); r is the probability that the answer was no lapse, given the answer."""
    e = float(_sigmoid(np.float64(log_odds)))
    meant, clicked = (1 - e) * np.exp(plain.log_prob), e / n_outcomes
    mixed = meant + clicked
    r = meant / mixed
    spread = r * (1 - r)
    f, ft = plain.first, plain.first_t
    if f.ndim == 2:
        first, second = r * f, r * plain.second + spread * f * f
        cross = np.concatenate([r[..., None] * plain.cross + (spread * f)[..., None] * ft, -(spread * f)[..., None]], -1)
    else:
        first = r[..., None] * f
        second = r[..., None, None] * plain.second + spread[..., None, None] * (f[..., :, None] * f[..., None, :])
        cross = -(spread[..., None] * f)  # (n, a, d): by the lapse alone, since such families have no theta
    first_t = np.concatenate([r[..., None] * ft, (1 - r - e)[..., None]], -1)

    def second_t(weight: Array) -> Array:
        T = ft.shape[-1]
        out = np.empty((T + 1, T + 1))
        g = ft.reshape(weight.size, T)
        mass = (weight * spread).ravel()
        out[:T, :T] = plain.second_t(weight * r) + g.T @ (mass[:, None] * g)
        out[:T, T] = out[T, :T] = -(mass @ g)
        out[T, T] = mass.sum() - e * (1 - e) * weight.sum()
        return out

    return Terms(np.log(mixed), first, second, first_t, cross, second_t)


def _sigmoid(z: Array | np.float64) -> Array:
    # exp of minus the absolute value never overflows
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, small) / (1 + small))


def _softplus(z: Array) -> Array:
    # log(1 + e) rather than log1p(e), which NumPy does not vectorise; the error is 1e-16 absolutely
    return np.asarray(np.maximum(z, 0) + np.log(1 + np.exp(-np.abs(z))))
