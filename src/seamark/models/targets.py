"""Losses of one labelled pair: soft targets, margins and flips as one formula, and the noise channel beside it.

Conventions
-----------
h is the gap of a pair as labelled, in logits: the utility of the response marked better less that of the other, so h > 0 agrees
with the label. In direct preference optimisation h = beta (log pi(a) / ref(a) - log pi(b) / ref(b)). A loss is in nats, one per
pair, neither summed nor averaged. h is a float64 array or a torch tensor; what comes back is of its kind, device and precision,
and autograd follows it. Parameters are numbers or arrays that broadcast against h. e is the probability that a label is flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.models.privacy import flip_rate

if TYPE_CHECKING:
    from torch import Tensor

Number = float | NDArray[np.float64]
T = TypeVar("T", NDArray[np.float64], "Tensor")


def _alike(h: Any, *parameters: Any) -> tuple[Any, ...]:
    """The library h belongs to, then h and the parameters as its arrays: what we use is spelt alike in NumPy and torch."""
    if isinstance(h, np.ndarray | float):
        return np, *(np.asarray(x, np.float64) for x in (h, *parameters))
    import torch

    return torch, h, *(torch.as_tensor(x, dtype=h.dtype, device=h.device) for x in parameters)


def _log_sum(xp: Any, a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)); torch's logaddexp has no second derivative where the two are far apart, its logsumexp has."""
    return np.logaddexp(a, b) if xp is np else xp.logsumexp(xp.stack(xp.broadcast_tensors(a, b)), 0)


def _log_sigmoid(xp: Any, x: Any) -> Any:
    return -_log_sum(xp, xp.zeros_like(x), -x)


def _require(holds: bool | NDArray[np.bool_], name: str, value: Number, remedy: str) -> None:
    if not np.all(holds):
        raise InvalidSetting(name, value, remedy)


@dataclass(frozen=True)
class Target:
    """What a label asks of the gap: loss(h) = softplus(-g) + c g, with g = k h - m.

    For 0 < c < 1 the loss is least where sigmoid(g) = 1 - c. It is convex in h for every c, and bounded below only for
    0 <= c <= 1. Since p softplus(-g) + (1 - p) softplus(g) = softplus(-g) + (1 - p) g, every soft or mixed label is a c.

    >>> robust(0.2).loss(np.array([-1.0, 1.0])).round(4)
    array([ 1.6466, -0.0201])
    """

    k: Number = 1.0
    """Slope: how strongly this label follows the gap."""
    m: Number = 0.0
    """Margin by which the label's side should win, in logits."""
    c: Number = 0.0
    """Weight moved to the other label; negative: taken from it."""

    def loss(self, h: T) -> T:
        """softplus(-g) + c g, in nats."""
        xp, gap, k, m, c = _alike(h, self.k, self.m, self.c)
        g = k * gap - m
        return c * g - _log_sigmoid(xp, g)

    def gradient(self, h: T) -> T:
        """Its derivative in h: k (c - sigmoid(-g))."""
        xp, gap, k, m, c = _alike(h, self.k, self.m, self.c)
        return k * (c - xp.exp(_log_sigmoid(xp, m - k * gap)))


@dataclass(frozen=True)
class Channel:
    """A label that passed a noisy channel: loss(h) = -log[(1 - 2 e) sigmoid(h) + e], the label being flipped with probability e.

    Preferred to `robust` for inference. Both find the utilities behind the flips, but this is the likelihood of the label that was
    observed: its two probabilities sum to 1 and its loss lies between -log(1 - e) and -log e. So it needs no norm bound, has
    posteriors and standard errors, no larger asymptotic variance, and e may be estimated too. The price: it is not convex in h.

    Source: Patrini et al. 2017 (forward correction). A share 2 e of uniformly random clicks is the same channel: the 10% that
    Christiano et al. 2017 assume are e = .05.
    """

    e: Number | Tensor
    """In [0, 1/2]. A tensor, which may be learned, is not checked: its parametrisation must keep it there."""

    def __post_init__(self) -> None:
        if isinstance(self.e, np.ndarray | float | int):
            _require((self.e >= 0) & (self.e <= 0.5), "e", self.e, "A flip rate is in [0, 1/2]; above it, swap the labels and pass 1 - e.")

    def loss(self, h: T) -> T:
        """-log[(1 - e) sigmoid(h) + e sigmoid(-h)], in nats."""
        xp, gap, e = _alike(h, self.e)
        with np.errstate(divide="ignore"):  # log 0 = -inf is meant: without flips the second term is nothing
            kept, flipped = xp.log1p(-e), xp.log(e)
        return -_log_sum(xp, kept + _log_sigmoid(xp, gap), flipped + _log_sigmoid(xp, -gap))

    def gradient(self, h: T) -> T:
        """Its derivative in h: -(1 - 2 e) sigmoid(h) sigmoid(-h) / p, p the probability of the label."""
        xp, gap, e = _alike(h, self.e)
        return (2 * e - 1) * xp.exp(_log_sigmoid(xp, gap) + _log_sigmoid(xp, -gap) + self.loss(gap))


def channel_loss(h: T, e: Number | Tensor) -> T:
    """`Channel(e).loss(h)`, for a flip rate that is learned along the way."""
    return Channel(e).loss(h)


# ---------------------------------------------------------------------------------------------- the field's names


def bradley_terry() -> Target:
    """-log sigmoid(h) (Bradley & Terry 1952); with the gap of a policy, DPO (Rafailov et al. 2023)."""
    return Target()


def label_smoothing(e: Number) -> Target:
    """-(1 - e) log sigmoid(h) - e log sigmoid(-h): the target is 1 - e, where Szegedy et al. 2016 would have 1 - e / 2."""
    _require((e >= 0) & (e <= 0.5), "e", e, "Smoothing is in [0, 1/2].")
    return Target(c=e)


def cdpo(e: Number) -> Target:
    """Conservative DPO, which is label smoothing by the flip rate (Mitchell 2023); unlike `robust` it shrinks the gaps."""
    return label_smoothing(e)


def soft_label(p: Number) -> Target:
    """-p log sigmoid(h) - (1 - p) log sigmoid(-h): the label holds with probability p (Bai et al. 2022; Lee et al. 2023)."""
    _require((p >= 0) & (p <= 1), "p", p, "A soft label is a probability, in [0, 1].")
    return Target(c=1 - p)


def flip() -> Target:
    """-log sigmoid(-h): the label is taken to be wrong (Wang et al. 2024, for pairs of the least preference strength)."""
    return Target(c=1.0)


def adaptive_margin(m: Number) -> Target:
    """-log sigmoid(h - m): the side marked better should win by m logits (Touvron et al. 2023).

    Wang et al. 2024 take for m the mean gap an ensemble gives the pair, which should not have been fitted to that pair.
    """
    return Target(m=m)


def robust(e: Number) -> Target:
    """[(1 - e) softplus(-h) - e softplus(h)] / (1 - 2 e): its mean over flips at rate e is the loss of the clean label.

    It is not bounded below: far out it falls by e / (1 - 2 e) per logit of h, without end. Fit it within a norm bound (`project`),
    under a prior or with early stopping: when e is set above the true rate, or in a table a pair was answered alike more often
    than 1 - e, there may be no finite optimum. InvalidSetting for e outside [0, 1/2).

    Source: Ray Chowdhury, Kini & Natarajan 2024 (rDPO), by the unbiased estimator of Natarajan et al. 2013, lemma 1.
    """
    _require((e >= 0) & (e < 0.5), "e", e, "A flip rate is in [0, 1/2): labels flipped half the time carry nothing to correct.")
    return Target(c=-e / (1 - 2 * e))


def label_dp(epsilon: Number) -> Target:
    """Loss for labels under randomised response: `robust(flip_rate(epsilon))`, unbounded like it.

    The same function as the "shift and scale" of Zhou, Wu & Orabona 2025, -log(1 - s(t)) - (z + s(epsilon) - 1) c(epsilon) t with
    s the sigmoid, c(epsilon) = (exp(epsilon) + 1) / (exp(epsilon) - 1), t the gap before the label z in {0, 1} is looked at.
    """
    return robust(flip_rate(epsilon))


def beta_rapl(q: Number) -> Target:
    """-log sigmoid(beta h), beta = max(0, logit q), for a label that is right with probability q in [0, 1) (Singhal et al. 2024)."""
    _require((np.asarray(q) >= 0) & (np.asarray(q) < 1), "q", q, "Reliability is in [0, 1): certainty has no finite slope.")
    better = np.maximum(q, 0.5)
    return Target(k=np.log(better / (1 - better)))


def eps_rapl(q: Number) -> Channel:
    """-log[p sigmoid(h) + (1 - p) / 2], p = max(0, 2 q - 1): the channel with e = min(1/2, 1 - q) (Singhal et al. 2024)."""
    _require((np.asarray(q) >= 0) & (np.asarray(q) <= 1), "q", q, "Reliability is a probability, in [0, 1].")
    return Channel(1 - np.maximum(q, 0.5))


def margin_rapl(q: Number) -> Target:
    """-log sigmoid(h - m), m = 1 for q <= 1/2 and max(0, 1 - logit q) above (Singhal et al. 2024, their margin variant).

    Mind the sign: as published, the less reliable a label is the wider the gap it asks for.
    """
    _require((np.asarray(q) >= 0) & (np.asarray(q) <= 1), "q", q, "Reliability is a probability, in [0, 1].")
    held = np.clip(q, 0.5, 1 - 1e-9)  # beyond, the margin is 0 as it is from .731 on
    return Target(m=np.maximum(0.0, 1 - np.log(held / (1 - held))))


def project(theta: T, bound: float) -> T:
    """The nearest parameters whose norm is at most `bound`: after each step, what a fit of `robust` or `label_dp` needs.

    With features of norm at most 1 this keeps |h| within `bound`. Zhou, Wu & Orabona 2025 assume such a bound throughout; their
    error grows with 2 + exp(bound) + exp(-bound), so it should be no wider than utilities are believed to reach.
    """
    _require(0 < bound < np.inf, "bound", bound, "A norm bound is a positive number of logits.")
    xp, point, limit = _alike(theta, bound)
    return point * (limit / xp.maximum(xp.linalg.norm(point), limit))
