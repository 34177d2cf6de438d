"""The outcome families in closed form: log probability with its derivatives, for the passes that a fit makes hundreds of times.

The formulas of `observation` stay the definition; a test holds these to them through automatic differentiation. They exist because
a second derivative by automatic differentiation costs ten times as much as the one pass here.

Conventions
-----------
Arrays are (a, n) over a nodes of the integral over raters and n cells, so that what belongs to a cell broadcasts along memory;
families with a contrast of d > 1 dimensions take (a, n, d). theta (T,) are the family's own parameters; a lapse adds its log odds
as the last one. Where log p is not concave (`Missing`, and scales of the gap) second derivatives are their expected values, that is
minus the Fisher information, so that a Newton step always climbs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from seamark.models.observation import PROBIT_SCALE, Choice, Davidson, Link, Luce, Missing, Outcome, Rating, Strength, Thumbs

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass
class Terms:
    """Log probability of what was answered, and its derivatives."""

    log_prob: Array
    """(a, n)"""
    first: Array
    """(a, n) or (a, n, d): by the contrast."""
    second: Array
    """(a, n) or (a, n, d, d): by the contrast, twice."""
    first_t: Array
    """(T, a, n): by theta."""
    cross: Array
    """(T, a, n) or (T, a, n, d): by the contrast and theta."""
    second_t: Callable[[Array], Array]
    """From weights (a, n) to the weighted sum (T, T) of the second derivative by theta."""


def log_prob(family: Outcome, z: Array, outcome: Codes, theta: Array, log_lapse_odds: float | Array | None = None) -> Array:
    """(a, n) log probability of what was answered, and nothing else."""
    if isinstance(family, Choice):
        if family.m > 2:
            plain = _chosen(z, outcome)
        elif family.link == "logistic":
            plain = _log_sigmoid(z * (1 - 2.0 * outcome))
        else:
            plain = np.asarray(log_ndtr(z * ((1 - 2.0 * outcome) / PROBIT_SCALE)))
    elif isinstance(family, Davidson):
        plain = _davidson_log_prob(z, outcome, theta[0])[0]
    elif isinstance(family, Luce):
        A, B = family.log_linear
        plain = _chosen(z @ A.T + B @ theta, outcome)
    elif isinstance(family, Missing):
        plain = _log_sigmoid(_odds(z, theta)[0] * (2.0 * outcome - 1))
    else:
        location, cuts, code, _, _ = _ordinal(family, z, outcome, theta)
        plain = _Interval.of(_link(family), location, cuts, code).log_prob
    return plain if log_lapse_odds is None else diluted(plain, family.n_outcomes, _sigmoid(np.asarray(log_lapse_odds)))


def diluted(log_prob: Array, n_outcomes: int, share: float | Array) -> Array:
    """log((1 - e) P + e / C) in place of log P, where a share e of the answers is any of the C at random. Writes over its input."""
    np.exp(log_prob, out=log_prob)
    log_prob *= 1 - share
    log_prob += share / n_outcomes
    return np.log(log_prob, out=log_prob)


def terms(family: Outcome, z: Array, outcome: Codes, theta: Array, log_lapse_odds: float | Array | None = None) -> Terms:
    """Log probability and all derivatives of order one and two."""
    if isinstance(family, Choice):
        plain = _many(z, outcome) if family.m > 2 else _choice(z, outcome, family.link)
    elif isinstance(family, Davidson):
        plain = _davidson(z, outcome, theta)
    elif isinstance(family, Luce):
        plain = _luce(family, z, outcome, theta)
    elif isinstance(family, Missing):
        plain = _missing(z, outcome, theta)
    else:
        plain = _graded(family, z, outcome, theta)
    return plain if log_lapse_odds is None else _lapsed(plain, family.n_outcomes, _sigmoid(np.asarray(log_lapse_odds)))


def randomised(found: Terms, n_outcomes: int, share: Array) -> Terms:
    """The same where a known share (n,) of the answers was replaced by any of the C at random: `_lapsed`, its rate being no parameter."""
    T, out = len(found.first_t), _lapsed(found, n_outcomes, share)

    def second_t(weight: Array) -> Array:
        return out.second_t(weight)[:T, :T]

    return replace(out, first_t=out.first_t[:T], cross=out.cross[:T], second_t=second_t)


# ---------------------------------------------------------------------------------------------- families


def _no_shape(z: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    nothing = np.zeros((0, *z.shape))
    return nothing[:, :, :], nothing, lambda _: np.zeros((0, 0))


def _choice(z: Array, outcome: Codes, link: Link) -> Terms:
    """One of two: y = 1 where the second was chosen."""
    sign = 1 - 2.0 * outcome
    if link == "logistic":
        t = z * sign
        small = np.exp(-np.abs(t))
        missed: Array = np.where(t >= 0, small, 1.0)  # probability of the other answer
        small += 1
        missed /= small
        log_p = np.minimum(t, 0, out=t)
        log_p -= np.log(small, out=small)
        first: Array = missed * sign
        missed *= missed - 1
        return Terms(log_p, first, missed, *_no_shape(z))
    t = z * (sign / PROBIT_SCALE)
    log_p = np.asarray(log_ndtr(t))
    ratio = np.exp(-0.5 * t * t - 0.5 * np.log(2 * np.pi) - log_p)  # the inverse Mills ratio
    return Terms(log_p, sign * ratio / PROBIT_SCALE, -ratio * (t + ratio) / PROBIT_SCALE**2, *_no_shape(z))


def _many(z: Array, outcome: Codes) -> Terms:
    """One of more than two: softmax."""
    z = z - z.max(-1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(-1, keepdims=True)
    first = -p
    first[:, np.arange(len(outcome)), outcome] += 1
    second = p[..., :, None] * p[..., None, :]
    d = z.shape[-1]
    second[..., np.arange(d), np.arange(d)] -= p
    return Terms(_chosen(z, outcome), first, second, np.zeros((0, *z.shape[:2])), np.zeros((0, *z.shape)), lambda _: np.zeros((0, 0)))


def _chosen(z: Array, outcome: Codes) -> Array:
    z = z - z.max(-1, keepdims=True)
    return np.asarray(z[:, np.arange(len(outcome)), outcome] - np.log(np.exp(z).sum(-1)))


def _luce(family: Luce, z: Array, outcome: Codes, theta: Array) -> Terms:
    """Log weights A z + B theta: derivatives are moments of A and B under the probabilities."""
    A, B = family.log_linear
    log_weight = z @ A.T + B @ theta
    p = np.exp(log_weight - log_weight.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean, mean_t = p @ A, p @ B
    second = mean[..., :, None] * mean[..., None, :] - np.einsum("anc,cd,ce->ande", p, A, A, optimize=True)
    cross = mean_t[..., None] * mean[..., None, :] - np.einsum("anc,ct,cd->antd", p, B, A, optimize=True)

    def second_t(weight: Array) -> Array:
        return np.asarray(np.einsum("an,ant,anu->tu", weight, mean_t, mean_t) - (B * np.einsum("an,anc->c", weight, p)[:, None]).T @ B)

    first_t = np.moveaxis(B[outcome] - mean_t, -1, 0)
    return Terms(_chosen(log_weight, outcome), A[outcome] - mean, second, first_t, np.moveaxis(cross, 2, 0), second_t)


def _odds(z: Array, theta: Array) -> tuple[Array, Array]:
    """(log odds of no answer, log cosh of half the gap)."""
    half = np.abs(z[..., 0]) / 2
    log_cosh = half + np.log1p(np.exp(-2 * half)) - np.log(2)
    return theta[0] + z[..., 1] - theta[1] * log_cosh, log_cosh


def _missing(z: Array, outcome: Codes, theta: Array) -> Terms:
    """One predictor, logistic: everything follows from its derivatives by gap, propensity, m and c."""
    odds, log_cosh = _odds(z, theta)
    p = _sigmoid(odds)
    one = np.ones_like(odds)
    by_z = np.stack([-theta[1] * np.tanh(z[..., 0] / 2) / 2, one], -1)
    by_t = np.stack([one, -log_cosh])
    error, information = outcome - p, p * (1 - p)
    return Terms(
        _log_sigmoid(odds * (2.0 * outcome - 1)),
        error[..., None] * by_z,
        -information[..., None, None] * by_z[..., :, None] * by_z[..., None, :],
        error * by_t,
        -(information * by_t)[..., None] * by_z,
        lambda weight: -np.einsum("an,tan,uan->tu", weight * information, by_t, by_t),
    )


def with_scales(plain: Terms, scaled: Array, covariates: Array, mine: slice) -> Terms:
    """The terms of a contrast c = exp(g x) s + shift, with those of g put before row `mine.start` of theta.

    scaled (a, n[, d]) is exp(g x) s, covariates (n, C) is x. By g, log p changes as along the contrast, by s exp(g x) x.
    """
    many = scaled.ndim == 3
    at = mine.start
    X = covariates.T[:, None]  # (C, 1, n)
    along = (plain.first * scaled).sum(-1) if many else plain.first * scaled
    bend = np.einsum("ande,ane->and", plain.second, scaled) if many else plain.second * scaled
    twice = (bend * scaled).sum(-1) if many else bend * scaled
    cross_t = (plain.cross * scaled).sum(-1) if many else plain.cross * scaled  # (T, a, n)
    first_t = np.concatenate([plain.first_t[:at], along * X, plain.first_t[at:]])
    cross = np.concatenate([plain.cross[:at], bend * (X[..., None] if many else X), plain.cross[at:]])

    def second_t(weight: Array) -> Array:
        T, C = len(plain.first_t), len(X)
        own = plain.second_t(weight)
        both = np.einsum("an,tan,nc->tc", weight, cross_t, covariates)
        scale = np.einsum("an,nc,nd->cd", weight * twice, covariates, covariates)
        out = np.zeros((T + C, T + C))
        old = np.r_[0:at, at + C : T + C]
        new = np.arange(at, at + C)
        out[np.ix_(old, old)], out[np.ix_(new, new)] = own, scale
        out[np.ix_(old, new)], out[np.ix_(new, old)] = both, both.T
        return out

    return Terms(plain.log_prob, plain.first, plain.second, first_t, cross, second_t)


def with_lapse_covariates(plain: Terms, covariates: Array) -> Terms:
    """The terms of log lapse odds l0 + l x, l0 being the last of theta and l put before it; covariates (n, C) is x."""
    X = covariates.T[:, None]
    last = plain.first_t[-1:]
    first_t = np.concatenate([plain.first_t[:-1], last * X, last])
    many = plain.cross.ndim == 4
    cross = np.concatenate([plain.cross[:-1], plain.cross[-1:] * (X[..., None] if many else X), plain.cross[-1:]])

    def second_t(weight: Array) -> Array:
        T, C = len(plain.first_t), len(X)
        with_one = np.vstack([covariates.T, np.ones((1, len(covariates)))])
        out = np.zeros((T + C, T + C))
        out[: T - 1, : T - 1] = plain.second_t(weight)[:-1, :-1]
        for i, x in enumerate(with_one):
            moved = plain.second_t(weight * x)
            out[: T - 1, T - 1 + i] = out[T - 1 + i, : T - 1] = moved[:-1, -1]
            for j, y in enumerate(with_one[: i + 1]):
                out[T - 1 + i, T - 1 + j] = out[T - 1 + j, T - 1 + i] = plain.second_t(weight * (x * y))[-1, -1]
        return out

    return Terms(plain.log_prob, plain.first, plain.second, first_t, cross, second_t)


def _davidson_log_prob(z: Array, outcome: Codes, t: float) -> tuple[Array, Array, Array]:
    """(log probability, P(left) - P(right), P(tie)), the largest exponent taken out."""
    half = np.abs(z) / 2
    top = np.maximum(half, t)
    weaker = np.exp(-half - top)
    stronger = np.exp(half - top)
    tie = np.exp(t - top)
    total = stronger + weaker + tie
    sign = np.where(outcome == 2, 0.0, 1.0 - 2.0 * outcome)
    log_p = z * (sign / 2) + t * (outcome == 2) - top - np.log(total)
    return log_p, np.copysign(stronger - weaker, z) / total, tie / total


def _davidson(z: Array, outcome: Codes, theta: Array) -> Terms:
    log_p, lead, tie = _davidson_log_prob(z, outcome, theta[0])
    sign = np.where(outcome == 2, 0.0, 1.0 - 2.0 * outcome)
    decided = 1 - tie
    second_tie = tie * decided
    return Terms(
        log_p,
        (sign - lead) / 2,
        (lead * lead - decided) / 4,
        ((outcome == 2) - tie)[None],
        (tie * lead / 2)[None],
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
    low, high = padded[code].T, padded[code + 1].T  # (T, n)
    # shifting the location is shifting both cuts the other way
    by_high, by_low = part.high2 + part.both, part.low2 + part.both

    def second_t(weight: Array) -> Array:
        grades = len(cuts) + 1
        high2, low2, both, up, down = (
            np.bincount(code, weights=np.einsum("an,an->n", weight, v), minlength=grades)
            for v in (part.high2, part.low2, part.both, part.high, part.low)
        )
        above, below = padded[1:], padded[:-1]
        mixed = above.T @ (both[:, None] * below)
        total = above.T @ (high2[:, None] * above) + below.T @ (low2[:, None] * below) + mixed + mixed.T
        return np.asarray(total + np.diag(up @ padded_bend[1:] + down @ padded_bend[:-1]))

    return Terms(
        part.log_prob,
        -sign * (part.high + part.low),
        by_high + by_low,
        part.high * high[:, None] + part.low * low[:, None],
        -sign * (by_high * high[:, None] + by_low * low[:, None]),
        second_t,
    )


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
    """log P(low cut < location + noise <= high cut), and derivatives by the two cuts. All (a, n)."""

    log_prob: Array
    high: Array
    low: Array
    high2: Array
    low2: Array
    both: Array

    @staticmethod
    def of(link: Link, location: Array, cuts: Array, code: Codes) -> _Interval:
        b = np.append(cuts, np.inf)[code] - location
        a = np.append(-np.inf, cuts)[code] - location
        return _Interval._logistic(a, b) if link == "logistic" else _Interval._probit(a / PROBIT_SCALE, b / PROBIT_SCALE)

    @staticmethod
    def _logistic(a: Array, b: Array) -> _Interval:
        # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)) keeps its accuracy far from the cuts
        width = -np.expm1(a - b)
        below, above = _sigmoid(a), _sigmoid(-b)
        extra = np.where(np.isinf(a) | np.isinf(b), 0.0, (1 - width) / width)
        log_p = np.log(width) + _log_sigmoid(-a) + _log_sigmoid(b)
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


def _lapsed(plain: Terms, n_outcomes: int, e: Array) -> Terms:
    """log((1 - e) P + e / C), e () or (n,), with its log odds as one more parameter; r is the probability that the answer was no lapse,
    given the answer."""
    r = np.exp(plain.log_prob)
    r *= 1 - e
    mixed = r + e / n_outcomes
    r /= mixed
    spread = r * (1 - r)
    f, ft = plain.first, plain.first_t
    T = len(ft)
    many = f.ndim == 3
    own, own_spread = (r[..., None], spread[..., None]) if many else (r, spread)
    along = own_spread * f
    outer = along[..., :, None] * f[..., None, :] if many else along * f
    second = (own[..., None] if many else own) * plain.second
    second += outer
    first_t = np.empty((T + 1, *r.shape))
    first_t[:T] = r * ft
    np.subtract(1 - e, r, out=first_t[T])
    cross = np.empty((T + 1, *f.shape))
    cross[:T] = own * plain.cross + along * (ft[..., None] if many else ft)
    np.negative(along, out=cross[T])

    def second_t(weight: Array) -> Array:
        out = np.empty((T + 1, T + 1))
        g = ft.reshape(T, weight.size)
        mass = (weight * spread).ravel()
        out[:T, :T] = plain.second_t(weight * r) + (g * mass) @ g.T
        out[:T, T] = out[T, :T] = -(g @ mass)
        out[T, T] = mass.sum() - (weight * (e * (1 - e))).sum()
        return out

    return Terms(np.log(mixed, out=mixed), own * f, second, first_t, cross, second_t)


def _sigmoid(z: Array) -> Array:
    # exp of minus the absolute value never overflows
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, small) / (1 + small))


def _log_sigmoid(z: Array) -> Array:
    # log(1 + e) rather than log1p(e), which NumPy does not vectorise; the error is 1e-16 absolutely
    small = np.exp(-np.abs(z))
    small += 1
    return np.asarray(np.minimum(z, 0) - np.log(small, out=small))
