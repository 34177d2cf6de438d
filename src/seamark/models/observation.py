"""How a judgment answers to utilities: outcome family x effects x lapse, by composition.

Conventions
-----------
A judgment shows m slots with utilities s (n, m), in logits of a careful rater, already scaled and shifted by the effects. The
family's *contrast* c = K s (n, d) is all that its probabilities depend on: the gap for a pair, the utility itself for a
rating. `log_prob` takes contrasts (..., n, d), outcome codes (n,) and the family's own parameters theta (size,), and returns
(..., n); leading dimensions are nodes of an integral over raters. Everything here is torch, float64, so that gradients and
curvatures follow from the one formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.models.effects import EFFECTS, Bias, Effect, Lapse, Leniency, Missingness, Position, Reliability, Scale, Taste

if TYPE_CHECKING:
    from torch import Tensor


Link = Literal["logistic", "probit"]
"""Noise behind the gap: logistic (Bradley-Terry) or normal (Thurstone)."""

PROBIT_SCALE = 1.702
"""Standard deviation of the normal noise of the probit link: utilities stay in logits, the two links being within .0095 of each other.

Source: Camilli 1994, Origin of the scaling constant d = 1.7 in item response theory."""


class Outcome(Protocol):
    """An outcome family: how likely each answer is, given the contrast of the slots."""

    @property
    def size(self) -> int:
        """How many parameters of its own it has."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """A name per parameter."""
        ...

    @property
    def n_outcomes(self) -> int: ...

    def start(self) -> NDArray[np.float64]:
        """Where the parameters start, and the centre of their weak prior (sd 2, in the scale of theta)."""
        ...

    def contrast(self, m: int) -> NDArray[np.float64]:
        """K (d, m), which takes the utilities of m slots to the contrast."""
        ...

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        """Log probability of the outcomes (n,) that were answered: (..., n, d) -> (..., n)."""
        ...


def log_probs(family: Outcome, contrast: Tensor, theta: Tensor) -> Tensor:
    """Log probability of every outcome of a family: (..., n, d) -> (..., n, n_outcomes)."""
    import torch

    n = contrast.shape[-2]
    return torch.stack([family.log_prob(contrast, torch.full((n,), code), theta) for code in range(family.n_outcomes)], -1)


@dataclass(frozen=True)
class Choice:
    """One of m is chosen: P(i) = exp(s_i) / sum_j exp(s_j).

    With two slots this is Bradley-Terry; a ranking is a sequence of such choices (Plackett-Luce), tied ranks by Breslow's
    approximation. Outcomes: the index of the slot chosen.

    Source: Bradley & Terry 1952; Thurstone 1927 for probit; Luce 1959; Plackett 1975; Breslow 1974 for ties.
    """

    m: int = 2
    worst: bool = False
    """Whether the slot chosen is the worst: the utilities enter with the sign turned."""
    link: Link = "logistic"
    """probit is Thurstone's case V, for two slots only."""

    def __post_init__(self) -> None:
        if self.link == "probit" and self.m > 2:
            raise InvalidSetting("Choice(link=)", self.link, "A choice among more than two has no closed form under probit; use logistic.")

    @property
    def size(self) -> int:
        return 0

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def n_outcomes(self) -> int:
        return self.m

    def start(self) -> NDArray[np.float64]:
        return np.zeros(0)

    def contrast(self, m: int) -> NDArray[np.float64]:
        sign = -1.0 if self.worst else 1.0
        return sign * (np.array([[1.0, -1.0]]) if m == 2 else np.eye(m))

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002  # Choice has no parameters
        import torch

        if self.m == 2:
            return _log_cdf(self.link, contrast[..., 0] * (1 - 2 * outcome))
        chosen = outcome.expand(contrast.shape[:-1])[..., None]
        return torch.log_softmax(contrast, -1).gather(-1, chosen)[..., 0]


@dataclass(frozen=True)
class Davidson:
    """Pair with ties: P(left), P(right), P(tie) proportional to exp(gap/2), exp(-gap/2), exp(theta).

    theta is the log tie propensity: at gap 0 the odds of a tie against left are exp(theta). Outcomes: left, right, tie.

    Source: Davidson 1970, equation 2.4, with nu = exp(theta).
    """

    @property
    def size(self) -> int:
        return 1

    @property
    def names(self) -> tuple[str, ...]:
        return ("log_tie",)

    @property
    def n_outcomes(self) -> int:
        return 3

    def start(self) -> NDArray[np.float64]:
        return np.array([-1.0])

    def contrast(self, m: int) -> NDArray[np.float64]:  # noqa: ARG002  # the protocol's signature
        return np.array([[1.0, -1.0]])

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        import torch

        half = contrast[..., 0] / 2
        # the largest exponent is taken out as a constant: a shift that autograd followed would lose the curvature at 0
        top = torch.maximum(half.detach().abs(), theta.detach()[0])
        total = torch.exp(half - top) + torch.exp(-half - top) + torch.exp(theta[0] - top)
        sign = torch.where(outcome == 2, 0.0, 1.0 - 2.0 * outcome).to(half.dtype)
        return half * sign + theta[0] * (outcome == 2) - top - torch.log(total)


def _log_cdf(link: Link, z: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.logsigmoid(z) if link == "logistic" else torch.special.log_ndtr(z / PROBIT_SCALE)


def _interval_log_prob(link: Link, location: Tensor, cuts: Tensor, outcome: Tensor) -> Tensor:
    """log P(cut_c-1 < location + noise <= cut_c): (..., n), (C - 1,), (n,) -> (..., n)."""
    import torch

    far = torch.full_like(cuts[:1], 1e4)
    upper, lower = torch.cat([cuts, far])[outcome] - location, torch.cat([-far, cuts])[outcome] - location
    if link == "logistic":
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) keeps its accuracy far from the cuts, where the
        # difference of two sigmoids is zero in floating point
        width = torch.cat([2 * far, cuts[1:] - cuts[:-1], 2 * far])
        return _log_cdf(link, upper) + _log_cdf(link, -lower) + torch.log(-torch.expm1(-width))[outcome]
    # on the side where both tails are small
    swap = (upper + lower).detach() > 0
    a, b = torch.where(swap, -upper, lower), torch.where(swap, -lower, upper)
    log_b = _log_cdf(link, b)
    return log_b + torch.log(-torch.expm1(_log_cdf(link, a) - log_b))


@dataclass(frozen=True)
class Strength:
    """Pair with graded strength: the gap plus logistic noise, cut at symmetric thresholds.

    Outcomes: left by `levels`, ..., left by 1, [tie], right by 1, ..., right by `levels`.
    theta are logs of the distances between thresholds, from the middle outwards.

    With one level this is Rao & Kupper's model of ties (Glenn & David's under probit): P(left) = F(gap - exp(theta)).

    Source: Agresti 1992 (adjacent and cumulative paired-comparison models; this is the cumulative one); Rao & Kupper 1967;
    Glenn & David 1960.
    """

    levels: int
    ties: bool = True
    link: Link = "logistic"

    @property
    def size(self) -> int:
        return self.levels if self.ties else self.levels - 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"log_step_{i}" for i in range(self.size))

    @property
    def n_outcomes(self) -> int:
        return 2 * self.levels + self.ties

    def start(self) -> NDArray[np.float64]:
        return np.full(self.size, -0.5)

    def contrast(self, m: int) -> NDArray[np.float64]:  # noqa: ARG002  # the protocol's signature
        return np.array([[1.0, -1.0]])

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        import torch

        steps = torch.cumsum(torch.exp(theta), 0)
        middle = theta.new_zeros(0 if self.ties else 1)
        # outcome 0 is the strongest left, so the latent axis runs from right to left: use -gap
        return _interval_log_prob(self.link, -contrast[..., 0], torch.cat([-steps.flip(0), middle, steps]), outcome)


@dataclass(frozen=True)
class Rating:
    """A grade on an ordered scale: P(grade <= c) = sigmoid(cut_c - s), s the utility plus the rater's leniency.

    `grades` are the values of the scale in order; a continuous scale is cut into at most ten grades at its quantiles.
    theta: the first cut, then logs of the distances between cuts. Rater cut points: each rater shifts all cuts by their
    leniency, which is estimated with a common spread.

    Source: McCullagh 1980.
    """

    edges: tuple[float, ...]
    """Upper bounds of all grades but the last."""
    scale: str = ""
    """The axis and scale this belongs to; ratings on different scales have cut points of their own."""
    link: Link = "logistic"

    @property
    def size(self) -> int:
        return len(self.edges)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple("cut_0" if i == 0 else f"log_step_{i}" for i in range(self.size))

    @property
    def n_outcomes(self) -> int:
        return len(self.edges) + 1

    def start(self) -> NDArray[np.float64]:
        return np.concatenate([[-1.0], np.zeros(self.size - 1)])

    def contrast(self, m: int) -> NDArray[np.float64]:  # noqa: ARG002  # the protocol's signature
        return np.array([[1.0]])

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        import torch

        cuts = theta[0] + torch.cat([theta.new_zeros(1), torch.cumsum(torch.exp(theta[1:]), 0)])
        return _interval_log_prob(self.link, contrast[..., 0], cuts, outcome)


@dataclass(frozen=True)
class Thumbs:
    """Up or down: P(up) = F(s - theta), s the utility plus the rater's leniency. Outcomes: up, down."""

    scale: str = ""
    link: Link = "logistic"

    @property
    def size(self) -> int:
        return 1

    @property
    def names(self) -> tuple[str, ...]:
        return ("cut",)

    @property
    def n_outcomes(self) -> int:
        return 2

    def start(self) -> NDArray[np.float64]:
        return np.zeros(1)

    def contrast(self, m: int) -> NDArray[np.float64]:  # noqa: ARG002  # the protocol's signature
        return np.array([[1.0]])

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        return _log_cdf(self.link, (contrast[..., 0] - theta[0]) * (1 - 2 * outcome))


@dataclass(frozen=True)
class Luce:
    """A choice in which up to `most` may tie for the best, and none may be good enough.

    P(S) is proportional to exp(delta_|S| + mean of s over S) for a set S of at most `most` of the m slots, and exp(theta_none) for
    none of them. With most = 1 this is `Choice`; with two slots and most = 2 it is `Davidson`, which with none answers "both bad". A
    ranking with ties is a sequence of such choices. An answer "none" says something of the level of utilities, not of gaps alone.

    Outcomes: the sets by size, then by their slots; last, none. theta: delta_2, ..., delta_most, then theta_none.

    Source: Firth, Kosmidis & Turner 2019 (Davidson-Luce), equation 3; none as an outside option: McFadden 1974.
    """

    m: int
    most: int = 1
    none: bool = False

    @property
    def size(self) -> int:
        return self.most - 1 + self.none

    @property
    def names(self) -> tuple[str, ...]:
        ties = ("log_tie",) if self.most == 2 else tuple(f"log_tie_{i}" for i in range(2, self.most + 1))
        return (*ties, *(("log_none",) if self.none else ()))

    @property
    def sets(self) -> list[tuple[int, ...]]:
        """Slots of each outcome; empty for none."""
        some = [s for size in range(1, self.most + 1) for s in combinations(range(self.m), size)]
        return [*some, ()] if self.none else some

    @property
    def n_outcomes(self) -> int:
        return sum(comb(self.m, size) for size in range(1, self.most + 1)) + self.none

    def start(self) -> NDArray[np.float64]:
        return np.array([-1.0] * (self.most - 1) + [0.0] * self.none)

    def contrast(self, m: int) -> NDArray[np.float64]:
        return np.eye(m)

    @cached_property
    def log_linear(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(A (n_outcomes, m), B (n_outcomes, size)): log weights are A s + B theta."""
        A, B = np.zeros((self.n_outcomes, self.m)), np.zeros((self.n_outcomes, self.size))
        for code, members in enumerate(self.sets):
            if not members:
                B[code, -1] = 1.0
                continue
            A[code, list(members)] = 1 / len(members)
            if len(members) > 1:
                B[code, len(members) - 2] = 1.0
        return A, B

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        import torch

        A, B = (torch.from_numpy(part) for part in self.log_linear)
        log_weight = contrast @ A.T + B @ theta
        chosen = outcome.expand(contrast.shape[:-1])[..., None]
        return torch.log_softmax(log_weight, -1).gather(-1, chosen)[..., 0]


@dataclass(frozen=True)
class Missing:
    """Whether a pair was answered: log odds of no answer are m + m_r - c log cosh(gap / 2). Outcomes: answered, not.

    The contrast has two dimensions: the gap, and the rater's propensity m_r. theta: m, c; with c = 0 answers are missing at random.
    """

    @property
    def size(self) -> int:
        return 2

    @property
    def names(self) -> tuple[str, ...]:
        return ("log_odds", "fall")

    @property
    def n_outcomes(self) -> int:
        return 2

    def start(self) -> NDArray[np.float64]:
        return np.array([-2.0, 0.0])

    def contrast(self, m: int) -> NDArray[np.float64]:  # noqa: ARG002  # the protocol's signature
        return np.array([[1.0, -1.0], [0.0, 0.0]])

    def log_prob(self, contrast: Tensor, outcome: Tensor, theta: Tensor) -> Tensor:
        import torch

        half = contrast[..., 0].abs() / 2
        log_cosh = half + torch.log1p(torch.exp(-2 * half)) - np.log(2)
        odds = theta[0] + contrast[..., 1] - theta[1] * log_cosh
        return torch.nn.functional.logsigmoid(odds * (2 * outcome - 1))


def rao_kupper(link: Link = "logistic") -> Strength:
    """Pair with ties within a threshold: P(left) = F(gap - exp(theta)), P(tie) the rest. It is `Strength` of one level.

    Where Davidson's ties depend on the product of the strengths, these depend on how far the gap lies from 0.

    Source: Rao & Kupper 1967; Glenn & David 1960 for probit.
    """
    return Strength(levels=1, link=link)


@dataclass(frozen=True)
class Observation:
    """How judgments come about: an outcome family per kind, effects, and a lapse.

    `outcomes` left empty means the families of the kinds present in the data. With `lapse`, an answer is a uniformly random
    click with an estimated probability, whatever the utilities.
    """

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    effects: tuple[Effect, ...] = (Reliability(), Position(), Leniency(), Missingness())
    lapse: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "effects", tuple(self.effects))
        for effect in self.effects:
            if type(effect) not in EFFECTS.values():  # a caller without a type checker
                raise InvalidSetting("effects", effect, f"Use {', '.join(f'{name}()' for name in EFFECTS)}.")
        found: dict[tuple[str, str], Effect] = {}
        for effect in self.effects:
            of = effect.by if isinstance(effect, Bias | Scale | Lapse) else effect.of if isinstance(effect, Taste) else ""
            kind = type(effect).__name__
            if (first := found.get((kind, of))) is not None:
                raise InvalidSetting("effects", f"{first} and {effect}", f"Give {kind}{of and f' of {of}'} once.")
            found[kind, of] = effect

    def with_effect(self, kind: type) -> bool:
        return any(isinstance(effect, kind) for effect in self.effects)

    def to_dict(self) -> dict[str, Any]:
        return {"effects": [{"effect": type(effect).__name__} | vars(effect) for effect in self.effects], "lapse": self.lapse}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Observation:
        """What `to_dict` described; the outcome families are the fit's own."""
        effects = [EFFECTS[e["effect"]](**{k: v for k, v in e.items() if k != "effect"}) for e in record["effects"]]
        return Observation(effects=tuple(effects), lapse=record["lapse"])


FAMILIES: dict[str, type[Any]] = {family.__name__: family for family in (Choice, Davidson, Luce, Strength, Rating, Thumbs, Missing)}


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """JSON-ready description of an outcome family; see `outcome_from_dict`."""
    values = {f.name: getattr(outcome, f.name) for f in fields(outcome)}  # type: ignore[arg-type]  # families are dataclasses
    return {"family": type(outcome).__name__, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def outcome_from_dict(record: Mapping[str, Any]) -> Outcome:
    """The outcome family that `outcome_to_dict` described."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k != "family"}
    return FAMILIES[record["family"]](**values)


def lapsed(log_prob: Tensor, n_outcomes: int, log_lapse_odds: Tensor | None) -> Tensor:
    """Log probability mixed with a uniformly random click: log((1 - e) p + e / C), e = sigmoid(log_lapse_odds)."""
    if log_lapse_odds is None:
        return log_prob
    import torch

    lapse = torch.sigmoid(log_lapse_odds)
    # the sum is at least e / C, so the exponential may underflow without harm
    return torch.log((1 - lapse) * torch.exp(log_prob) + lapse / n_outcomes)


def decided_sides(family: Outcome) -> tuple[list[int], list[int]]:
    """Outcome codes that mean the first and the second response of a pair."""
    if isinstance(family, Strength):
        n = family.n_outcomes
        return list(range(family.levels)), list(range(n - family.levels, n))
    return [0], [1]
