"""The likelihood once more, naively: plain loops over judgments and plain probabilities, from the equations and nothing else.

Nothing here comes from `seamark.models`; only the records of a `Feedback` are read, so that the design (codes, stages of a
ranking, cut points per scale) is checked together with the formulas. Utilities are of order 1: nothing guards against overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class World:
    """What judgments come from: utility (n_responses, n_groups), the parameters of the families, slopes at nodes (R + 1, Q)."""

    utility: NDArray[np.float64]
    slope: NDArray[np.float64]
    log_prior: NDArray[np.float64]
    position: float = 0.0
    leniency: Mapping[int, float] = field(default_factory=dict)
    lapse: float = 0.0
    log_tie: float = -1.0
    steps: Sequence[float] = ()
    """Logs of the distances between the thresholds of graded pairs; empty: pairs are not graded."""
    levels: int = 1
    rating: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Per scale, the first cut and the logs of the distances between the cuts."""
    grades: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Per scale, the grades in order."""
    thumbs: float = 0.0


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def normal(z: float) -> float:
    """Noise of the probit link: normal with standard deviation 1.702."""
    return 0.5 * math.erfc(-z / 1.702 / math.sqrt(2))


def intervals(cuts: Sequence[float], location: float, cdf: Callable[[float], float] = sigmoid) -> list[float]:
    """P(cut_c-1 < location + e <= cut_c) for noise e with this distribution function, lowest interval first."""
    reached = [cdf(cut - location) for cut in cuts] + [1.0]
    return [b - a for a, b in zip([0.0, *reached[:-1]], reached, strict=True)]


def choice(s: Sequence[float]) -> list[float]:
    """Luce: P(i) = exp(s_i) / sum_j exp(s_j)."""
    total = sum(math.exp(u) for u in s)
    return [math.exp(u) / total for u in s]


def davidson(gap: float, log_tie: float) -> list[float]:
    """Davidson 1970: left, right, tie proportional to pi_1, pi_2, nu sqrt(pi_1 pi_2)."""
    one, two = math.exp(gap), 1.0
    tie = math.exp(log_tie) * math.sqrt(one * two)
    return [one / (one + two + tie), two / (one + two + tie), tie / (one + two + tie)]


def strength(gap: float, log_steps: Sequence[float], *, ties: bool, cdf: Callable[[float], float] = sigmoid) -> list[float]:
    """Cumulative logit with symmetric thresholds: strongest left first, strongest right last."""
    distance, up = 0.0, []
    for step in log_steps:
        distance += math.exp(step)
        up.append(distance)
    cuts = [-t for t in reversed(up)] + ([] if ties else [0.0]) + up
    return list(reversed(intervals(cuts, gap, cdf)))


def rating_cuts(theta: Sequence[float]) -> list[float]:
    cuts = [theta[0]]
    for log_step in theta[1:]:
        cuts.append(cuts[-1] + math.exp(log_step))
    return cuts


def ranking_stages(ranks: Sequence[int]) -> list[tuple[list[int], int]]:
    """(slots still there, the one chosen) for each stage; tied members are each chosen against what is ranked below (Breslow)."""
    stages = []
    for i, rank in enumerate(ranks):
        rivals = [j for j in range(len(ranks)) if ranks[j] > rank]
        if rivals:
            stages.append(([i, *rivals], i))
    return stages


def answers(row: Mapping[str, object], world: World, slope: float, group: int) -> Iterable[tuple[list[float], int]]:
    """(probabilities of the possible answers, the one given) for each answer in a judgment."""
    kind, rater = row["kind"], row["rater"]
    v = [slope * world.utility[r, group] for r in row["responses"]]  # type: ignore[attr-defined]
    first = world.position if row["order_known"] else 0.0
    lenient = 0.0 if rater is None else world.leniency.get(int(rater), 0.0)  # type: ignore[call-overload]
    if kind == "pair":
        gap, outcome = v[0] - v[1] + first, row["outcome"]
        if not world.steps:
            yield davidson(gap, world.log_tie), ("left", "right", "tie").index(str(outcome))
        elif row["strength"] is None and outcome != "tie":
            yield choice([gap, 0.0]), ("left", "right").index(str(outcome))
        else:
            order = [("left", k) for k in range(world.levels, 0, -1)] + [("tie", None)] + [("right", k) for k in range(1, world.levels + 1)]
            yield strength(gap, world.steps, ties=True), order.index((str(outcome), row["strength"]))  # type: ignore[arg-type]
    elif kind == "choice":
        best, worst = row["best"], row["worst"]
        yield choice([u + (first if i == 0 else 0.0) for i, u in enumerate(v)]), best  # type: ignore[misc]
        if worst is not None:
            rest = [i for i in range(len(v)) if i != best]
            if len(rest) > 1:
                yield choice([-v[i] for i in rest]), rest.index(worst)  # type: ignore[arg-type]
    elif kind == "ranking":
        for slots, chosen in ranking_stages(row["ranks"]):  # type: ignore[arg-type]
            yield choice([v[i] for i in slots]), slots.index(chosen)
    elif kind == "rating":
        scale = str(row["axis"] or "")
        yield intervals(rating_cuts(world.rating[scale]), v[0] + lenient), list(world.grades[scale]).index(row["rating"])  # type: ignore[arg-type]
    else:
        up = sigmoid(v[0] + lenient - world.thumbs)
        yield [up, 1 - up], 0 if row["thumb"] else 1


def rater_log_likelihood(rows: Sequence[Mapping[str, object]], groups: Sequence[int], world: World) -> NDArray[np.float64]:
    """(R + 1, Q): log probability of each rater's answers at each node of the slope; the last row is of raters not known."""
    R, Q = world.slope.shape
    total = np.zeros((R, Q))
    for row, group in zip(rows, groups, strict=True):
        rater = R - 1 if row["rater"] is None else int(row["rater"])  # type: ignore[call-overload]
        weight = 1.0 if row["weight"] is None else float(row["weight"])  # type: ignore[arg-type]
        for q in range(Q):
            for p, given in answers(row, world, world.slope[rater, q], group):
                total[rater, q] += weight * math.log((1 - world.lapse) * p[given] + world.lapse / len(p))
    return total


def log_likelihood(rows: Sequence[Mapping[str, object]], groups: Sequence[int], world: World) -> float:
    """sum_r log sum_q prior[r, q] exp(log likelihood of r at q)."""
    total = rater_log_likelihood(rows, groups, world)
    return sum(math.log(sum(math.exp(a + b) for a, b in zip(*pair, strict=True))) for pair in zip(total, world.log_prior, strict=True))
