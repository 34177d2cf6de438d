"""The likelihood once more, naively: plain loops over judgments and plain probabilities, from the equations and nothing else.

Nothing here comes from `seamark.models`; only the records of a `Feedback` are read, so that the design (codes, stages of a
ranking, cut points per scale) is checked together with the formulas. Utilities are of order 1: nothing guards against overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

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
    log_none: float | None = None
    """Log weight of "both bad" in pairs; None where such answers count as ties."""
    ties: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Per number of slots of a ranking's stage, log tie propensities of two, three, ... tied responses."""
    missing: tuple[float, float] | None = None
    """Log odds of no answer at gap 0, and how they fall with log cosh of half the gap."""
    propensity: Mapping[int, float] = field(default_factory=dict)
    position_of_raters: Mapping[int, float] = field(default_factory=dict)
    position_by: Mapping[str, float] = field(default_factory=dict)
    """Logits for the slot shown first at each ui_version."""
    source: Mapping[str, float] = field(default_factory=dict)
    liked: Sequence[float] = ()
    """A property of each response that raters differ in liking; empty: none."""
    taste: Mapping[int, float] = field(default_factory=dict)
    scale: float = 0.0
    """Log scale of the gap per standard deviation of confidence."""
    confidence: tuple[float, float] = (0.0, 1.0)
    """Mean and standard deviation of confidence."""
    bias: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """Per covariate of what was shown, and per field of the judgments: logits per sd, the mean and the sd."""
    bias_of_raters: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    haste: Mapping[str, float] = field(default_factory=dict)
    """What the log odds of a lapse gain at each team."""


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


def davidson_luce(s: Sequence[float], log_ties: Sequence[float]) -> dict[tuple[int, ...], float]:
    """Firth, Kosmidis & Turner 2019: P(set S of size d) proportional to delta_d (product of strengths)^(1/d)."""
    weight = {}
    for size, log_tie in enumerate([0.0, *log_ties], start=1):
        for members in combinations(range(len(s)), size):
            product = math.prod(math.exp(s[i]) for i in members)
            weight[members] = math.exp(log_tie) * product ** (1 / size)
    return {members: w / sum(weight.values()) for members, w in weight.items()}


def answers(row: Mapping[str, object], world: World, slope: float, group: int) -> Iterable[tuple[list[float], int]]:
    """(probabilities of the possible answers, the one given) for each answer in a judgment."""
    kind, rater = row["kind"], None if row["rater"] is None else int(row["rater"])  # type: ignore[call-overload]
    confidence = row.get("confidence")
    sure = 0.0 if confidence is None else (float(confidence) - world.confidence[0]) / world.confidence[1]  # type: ignore[arg-type]
    scaled = slope * math.exp(world.scale * sure)
    plain = [world.utility[r, group] for r in row["responses"]]  # type: ignore[attr-defined]
    own_taste = 0.0 if rater is None or not world.liked else world.taste.get(rater, 0.0)
    tasty = [own_taste * world.liked[r] if world.liked else 0.0 for r in row["responses"]]  # type: ignore[attr-defined]
    models = row.get("models") or [None] * len(plain)
    favour = [0.0 if m is None else world.source.get(str(m), 0.0) for m in models]  # type: ignore[attr-defined]
    v = [scaled * u + f + t for u, f, t in zip(plain, favour, tasty, strict=True)]
    alone = 0.0
    first = 0.0
    for name, (weight, mean, sd) in world.bias.items():
        own = 0.0 if rater is None else world.bias_of_raters.get(name, {}).get(rater, 0.0)
        if f"covariate.{name}" in row:
            known = row[f"covariate.{name}"] or [None] * len(v)
            v = [u + (0.0 if x is None else (weight + own) * (x - mean) / sd) for u, x in zip(v, known, strict=True)]  # type: ignore[call-overload]
        elif row[name] is not None:
            moved = (weight + own) * (float(row[name]) - mean) / sd  # type: ignore[arg-type]
            alone += moved
            first += moved if row["order_known"] else 0.0
    if row["order_known"]:
        own = 0.0 if rater is None else world.position_of_raters.get(rater, 0.0)
        first += world.position + own + world.position_by.get(str(row.get("ui_version")), 0.0)
    lenient = 0.0 if rater is None else world.leniency.get(rater, 0.0)
    if kind == "pair" and world.missing is not None:
        m, fall = world.missing
        propensity = 0.0 if rater is None else world.propensity.get(rater, 0.0)
        silent = sigmoid(m + propensity - fall * math.log(math.cosh((slope * (plain[0] - plain[1]) + tasty[0] - tasty[1]) / 2)))
        yield [1 - silent, silent], int(row["outcome"] in ("cannot_tell", "skipped"))
    if row["outcome"] in ("cannot_tell", "skipped"):
        return
    if kind == "pair":
        gap, outcome = v[0] - v[1] + first, row["outcome"]
        if world.log_none is not None:
            left, right = v[0] + first, v[1]
            weights = [math.exp(left), math.exp(right), math.exp(world.log_tie + (left + right) / 2), math.exp(world.log_none)]
            yield [w / sum(weights) for w in weights], ("left", "right", "tie", "both_bad").index(str(outcome))
        elif not world.steps:
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
        ranks: Sequence[int] = row["ranks"]  # type: ignore[assignment]
        for rank in sorted(set(ranks)):
            slots = [i for i in range(len(ranks)) if ranks[i] >= rank]
            tied = tuple(slots.index(i) for i in slots if ranks[i] == rank)
            log_ties = world.ties.get(len(slots), ())
            if len(slots) > 1 and len(tied) <= 1 + len(log_ties):
                p = davidson_luce([v[i] for i in slots], log_ties)
                yield list(p.values()), list(p).index(tied)
            elif len(tied) < len(slots):  # Breslow: each of those tied is chosen against those ranked worse
                for i in (slots[j] for j in tied):
                    rivals = sorted([i, *(j for j in slots if ranks[j] > rank)])
                    p = davidson_luce([v[j] for j in rivals], world.ties.get(len(rivals), ()))
                    yield list(p.values()), list(p).index((rivals.index(i),))
    elif kind == "rating":
        scale = str(row["axis"] or "")
        yield intervals(rating_cuts(world.rating[scale]), v[0] + alone + lenient), list(world.grades[scale]).index(row["rating"])  # type: ignore[arg-type]
    else:
        up = sigmoid(v[0] + alone + lenient - world.thumbs)
        yield [up, 1 - up], 0 if row["thumb"] else 1


def rater_log_likelihood(rows: Sequence[Mapping[str, object]], groups: Sequence[int], world: World, levels: int = 1) -> NDArray[np.float64]:
    """(R L + 1, Q): log probability of each rater's answers at each node of the slope and level; the last row is of raters not known.

    With L levels, `groups` are the rows of the utilities at the first level, and those of a rater not known come after the last.
    """
    R, Q = world.slope.shape
    total = np.zeros((R, Q))
    for row, group in zip(rows, groups, strict=True):
        weight = 1.0 if row["weight"] is None else float(row["weight"])  # type: ignore[arg-type]
        for level in range(levels):
            if row["rater"] is None:
                where, mine = R - 1, group + (levels if levels > 1 else 0)
                if level:
                    continue
            else:
                where, mine = int(row["rater"]) * levels + level, group + level  # type: ignore[call-overload]
            for q in range(Q):
                for i, (p, given) in enumerate(answers(row, world, world.slope[where, q], mine)):
                    silence = i == 0 and world.missing is not None and row["kind"] == "pair"
                    odds = (
                        math.log(world.lapse / (1 - world.lapse)) + world.haste.get(str(row.get("team")), 0.0) if world.lapse else -math.inf
                    )
                    lapse = 0.0 if silence or not world.lapse else sigmoid(odds)
                    total[where, q] += weight * math.log((1 - lapse) * p[given] + lapse / len(p))
    return total


def log_likelihood(rows: Sequence[Mapping[str, object]], groups: Sequence[int], world: World, levels: int = 1) -> float:
    """sum_r log sum_lq prior[rl, q] exp(log likelihood of r at l and q)."""
    total = rater_log_likelihood(rows, groups, world, levels)
    known = len(total) - 1
    value = math.log(sum(math.exp(a + b) for a, b in zip(total[-1], world.log_prior[-1], strict=True)))
    for start in range(0, known, levels):
        mine = slice(start, start + levels)
        value += math.log(sum(math.exp(a + b) for a, b in zip(total[mine].ravel(), world.log_prior[mine].ravel(), strict=True)))
    return value
