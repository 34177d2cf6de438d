"""What a pilot says about raters and responses in general: the assumptions of a plan, read off its pairs.

A rough sketch of the model that `seamark.models` fits, in NumPy: each pair of responses has, within a group, a gap x ~ N(0, V) of its
own; each rater is at chance or has a slope N(1, tau^2); an answer follows Davidson's model with a lapse. Gaps and slopes are held
independent given the data (mean field) and found in turn with V, tau, the share at chance, tie propensity and position by EM. How alike
the gaps of two groups are is then the correlation that makes their answers to the same pairs likeliest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.records import Feedback
from seamark.simulation.planning import Answering, Assumptions

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_MOST = 40_000
"""Judgments read; more say nothing new about a handful of numbers."""
_LEAST = 100
_ROUNDS = 200
_GROUP = 30
"""Judgments a group needs to be one, as in `seamark.models.people.Groups`."""
_GRID = np.linspace(-3.5, 3.5, 21)
"""Gaps, in standard deviations."""
_DENSITY = np.exp(-0.5 * _GRID**2) / np.exp(-0.5 * _GRID**2).sum()
_SLOPES = np.concatenate([[0.0], np.linspace(0.1, 2.2, 15)])
_LAPSE = Assumptions().lapse
_NATS = 4.0
"""What a rater's answers must say about whether they are at chance: V / 8 each, for small gaps."""
_USUAL_RATERS, _USUAL_SPREAD = 2.0, 0.3
"""Prior of the spread of slopes: as if so many raters with that spread had been seen."""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs as codes: an *edge* is two responses within a group."""

    edge: Codes
    rater: Codes
    turned: Codes
    """1 where the response of the lower code was shown second."""
    answer: Codes
    """Left, right, tie, in the order of the edge."""
    edge_pair: Codes
    """(E,) the two responses of each edge, whatever the group."""
    edge_group: Codes
    groups: dict[str, float]
    """Share of the raters of each group, or of the judgments where raters are not known."""
    n_raters: int


def estimate_assumptions(pilot: Feedback) -> tuple[Assumptions, list[str]]:
    """The assumptions that the pilot supports, and notes on what it cannot say.

    Raises
    ------
    InvalidSetting
        If it has fewer than 100 answered pairs.
    """
    pairs = _read(pilot)
    notes: list[str] = []
    E, R, J = len(pairs.edge_pair), pairs.n_raters, len(pairs.edge)
    if J < 1.5 * E:
        notes.append(f"the pilot has {J / E:.1f} judgments per pair: without repeats, spread and reliability are hard to tell apart")
    reliable = R >= 3 and J >= 5 * R
    if not reliable:
        notes.append("reliability is assumed, not estimated: it takes 3 raters with 5 judgments each")
    # few judgments of each pair let "nobody is careless and values are alike" and its opposite both look right from nearby
    found = max((_search(pairs, careless, V, reliable) for careless, V in ((0.1, 2.0), (0.4, 6.0))), key=lambda f: f.bound)
    if reliable and J / R * found.V / 8 < _NATS:
        notes.append(
            "the raters of the pilot answered too little, or about too small gaps, to tell careless ones from values that are alike"
        )
    if not found.settled:
        notes.append("the estimates had not quite settled")
    spread, disagreement = _apart(pairs, found.log_given, found.V)
    if len(pairs.groups) == 1 and pilot.judgments["group"].n_unique() > 1:
        notes.append(f"groups with fewer than {_GROUP} judgments are not planned for")
    settled = Assumptions(spread, disagreement, pairs.groups, found.careless, found.tau, found.log_tie, _LAPSE)
    return settled, [f"assumptions estimated from {J:,} pairs by {R:,} raters; lapse {_LAPSE:.0%} is assumed", *notes]


@dataclass(frozen=True, eq=False)
class _Found:
    V: float
    tau: float
    careless: float
    log_tie: float | None
    log_given: Array
    """(E, gaps) expected log likelihood of the answers about each edge."""
    bound: float
    """On the log likelihood, from below."""
    settled: bool


def _search(pairs: _Pairs, careless: float, variance: float, reliable: bool) -> _Found:
    """EM from these shares and variance; with `reliable` False the raters are those of the prior."""
    E, R = len(pairs.edge_pair), pairs.n_raters
    tau, position, settled = _USUAL_SPREAD, 0.0, False
    log_tie = -1.0 if (pairs.answer == 2).any() else None
    q_rater = np.tile(_slope_prior(careless if reliable else 0.1, tau), (R, 1))
    q_edge, log_given, bound = np.tile(_DENSITY, (E, 1)), np.zeros((E, len(_GRID))), -np.inf
    for round_ in range(_ROUNDS):
        each = _log_table(variance, log_tie, position)[pairs.turned, :, :, pairs.answer]  # (J, gaps, slopes)
        log_given = _sums(np.einsum("jka,ja->jk", each, q_rater[pairs.rater]), pairs.edge, E)
        joint = log_given + np.log(_DENSITY)
        q_edge = _normalised(joint)
        bound = float((q_edge * (joint - np.log(np.maximum(q_edge, 1e-300)))).sum())
        if reliable:
            prior = np.log(_slope_prior(careless, tau))
            bound += float((q_rater * (prior - np.log(np.maximum(q_rater, 1e-300)))).sum())
            q_rater = _normalised(_sums(np.einsum("jka,jk->ja", each, q_edge[pairs.edge]), pairs.rater, R) + prior)
            careless = float((q_rater[:, 0].sum() + 0.5) / (R + 5))
            careful = q_rater[:, 1:]
            squares = float((careful * (_SLOPES[1:] - 1) ** 2).sum()) + _USUAL_RATERS * _USUAL_SPREAD**2
            tau = float(np.clip(np.sqrt(squares / (careful.sum() + _USUAL_RATERS)), 0.05, 0.5))
        moved = float((q_edge @ _GRID**2).mean())
        variance *= float(np.clip(moved, 0.5, 2.0)) ** 1.5  # a step beyond the EM step, which creeps
        counts = np.zeros((2, len(_GRID), len(_SLOPES), 3))
        for side in (0, 1):
            for answer in range(3):
                rows = (pairs.turned == side) & (pairs.answer == answer)
                counts[side, :, :, answer] = q_edge[pairs.edge[rows]].T @ q_rater[pairs.rater[rows]]
        log_tie, position, step = _step(counts, variance, log_tie, position)
        if round_ > 10 and abs(np.log(moved)) < 1e-3 and step < 1e-3:
            settled = True
            break
    return _Found(variance, tau, careless, log_tie, log_given, bound, settled)


def _read(pilot: Feedback) -> _Pairs:
    frame = pilot.pairs().filter(pl.col("outcome").is_in(["left", "right", "tie"]) & (pl.col("left") != pl.col("right")))
    if frame.height < _LEAST:
        raise InvalidSetting("pilot", f"{frame.height} answered pairs", f"A pilot takes {_LEAST}; or give the assumptions yourself.")
    if frame.height > _MOST:
        frame = frame.sample(_MOST, seed=0)  # whole raters or pairs would be better; at this size it makes no difference
    known = frame["group"].value_counts().drop_nulls().filter(pl.col("count") >= _GROUP)["group"].sort().to_list()
    names = known if len(known) > 1 else ["everyone"]
    if len(known) > 1:
        frame = frame.filter(pl.col("group").is_in(known))
    group = np.array([names.index(g) for g in frame["group"]]) if len(known) > 1 else np.zeros(frame.height, dtype=np.int64)
    left, right = frame["left"].cast(pl.Int64).to_numpy(), frame["right"].cast(pl.Int64).to_numpy()
    turned = (left > right).astype(np.int64)
    said = frame["outcome"].replace_strict({"left": 0, "right": 1, "tie": 2}, return_dtype=pl.Int64).to_numpy()
    answer = np.where((said < 2) & (turned == 1), 1 - said, said)
    pair = np.minimum(left, right) * pilot.n_responses + np.maximum(left, right)
    keys, edge = np.unique(pair * len(names) + group, return_inverse=True)
    rater = frame["rater"].cast(pl.Int64).to_numpy() if frame["rater"].null_count() == 0 else np.zeros(frame.height, dtype=np.int64)
    found, rater = np.unique(rater, return_inverse=True)
    people = np.unique(np.stack([rater, group]), axis=1)[1] if len(found) >= 2 else group
    share = np.bincount(people, minlength=len(names)) / len(people)
    return _Pairs(
        edge, rater, turned, answer, keys // len(names), keys % len(names), dict(zip(names, share.tolist(), strict=True)), len(found)
    )


def _slope_prior(careless: float, tau: float) -> Array:
    """(slopes,) prior mass."""
    mass = np.exp(-0.5 * ((_SLOPES[1:] - 1) / tau) ** 2) + 1e-12
    return np.concatenate([[max(careless, 1e-3)], (1 - max(careless, 1e-3)) * mass / mass.sum()])


def _log_table(V: float, log_tie: float | None, position: float) -> Array:
    """(2, gaps, slopes, 3) log probability of each answer in the order of the edge, by whether it was shown turned round."""
    gap = np.sqrt(V) * _GRID[:, None] * _SLOPES
    straight, _ = Answering(log_tie, _LAPSE).probabilities(gap + position)
    turned, _ = Answering(log_tie, _LAPSE).probabilities(gap - position)
    return np.log(np.maximum(np.stack([straight, turned]), 1e-12))


def _step(counts: Array, V: float, log_tie: float | None, position: float) -> tuple[float | None, float, float]:
    """Tie propensity and position a step nearer to where the expected counts are likeliest, and the length of the step."""
    h = 1e-3

    def value(tie: float | None, where: float) -> float:
        return float((counts * _log_table(V, tie, where)).sum())

    here = value(log_tie, position)
    up, down = value(log_tie, position + h), value(log_tie, position - h)
    move = float(np.clip((up - down) * h / 2 / max(2 * here - up - down, 1e-9), -0.5, 0.5))
    longest = abs(move)
    if log_tie is not None:
        up, down = value(log_tie + h, position), value(log_tie - h, position)
        tie_move = float(np.clip((up - down) * h / 2 / max(2 * here - up - down, 1e-9), -0.5, 0.5))
        log_tie, longest = log_tie + tie_move, max(longest, abs(tie_move))
    return log_tie, position + move, longest


def _apart(pairs: _Pairs, log_given: Array, V: float) -> tuple[float, float]:
    """(spread, disagreement) from the correlation of groups' gaps that makes the answers to pairs that several groups saw likeliest.

    Gaps are x_g = sqrt(V) (sqrt(rho) c + sqrt(1 - rho) d_g); c and d are summed over the grid.
    """
    from scipy.interpolate import CubicSpline

    G, total = len(pairs.groups), V / 2
    if G < 2:
        return float(np.sqrt(total)), 0.0
    _, number, seen = np.unique(pairs.edge_pair, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(seen[number] > 1)
    if not len(rows):
        return float(np.sqrt(total)), 0.0
    code = np.unique(number[rows], return_inverse=True)[1]
    # a chord would cut the tops of likelihoods narrower than the grid
    smooth = CubicSpline(_GRID, log_given[rows] - log_given[rows].max(1, keepdims=True), axis=1)
    steps = np.linspace(0.0, 1.0, 21)
    values: list[float] = []
    for rho in steps:
        at = np.sqrt(rho) * _GRID[:, None] + np.sqrt(1 - rho) * _GRID  # (c, d)
        given = smooth(np.clip(at, _GRID[0], _GRID[-1]))  # (rows, c, d)
        by_common = np.log(np.exp(given) @ _DENSITY)  # (rows, c)
        joint = _sums(by_common, code, int(code.max()) + 1)
        values.append(float(np.log(np.exp(joint - joint.max(1, keepdims=True)) @ _DENSITY).sum() + joint.max(1).sum()))
    best = int(np.argmax(values))
    rho = float(steps[best])
    if 0 < best < len(steps) - 1:
        a, b, c = values[best - 1 : best + 2]
        rho += 0.5 * (a - c) / (a - 2 * b + c) * float(steps[1])
    apart = (1 - rho) * total * (G - 1) / G
    return float(np.sqrt(max(total - apart, 1e-4))), float(np.sqrt(apart))


def _sums(values: Array, code: Codes, n: int) -> Array:
    """(n, columns) sums of rows by code."""
    return np.stack([np.bincount(code, weights=column, minlength=n).astype(np.float64) for column in values.T], 1)


def _normalised(log_mass: Array) -> Array:
    mass = np.exp(log_mass - log_mass.max(1, keepdims=True))
    return mass / mass.sum(1, keepdims=True)
