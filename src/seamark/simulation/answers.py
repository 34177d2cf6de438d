"""What is answered: the probability of each answer given the slots a rater sees, and the answers drawn from it.

Conventions
-----------
n judgments show up to 4 slots each. The columns of the probabilities (n, width) are the answers there are:

    pair      left, right, tie, both bad; with L graded strengths: left by L, ..., left by 1, tie, right by 1, ..., right by L, both bad
    choice    the slots, then "none is acceptable"
    ranking   the sets that can come first: each slot, then pairs of slots, then triples, in the order of `SETS`
    rating    grades 1 to 5;      thumbs    up, down;      label    the classes

`Answers.code` holds the column that was answered, or for a ranking each slot's rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.simulation.settings import MAX_SHOWN, Missing

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]

RATING_CUTS = (-2.0, -0.7, 0.7, 2.0)
"""Cut points between the grades 1 to 5, in logits; symmetric, so that the middle grade is the most common."""
NONE = MAX_SHOWN
"""Column of "none is acceptable" among the answers to a choice."""
SETS = tuple(c for size in (1, 2, 3) for c in combinations(range(MAX_SHOWN), size))
"""The slots that can share a rank, singles first."""
_MEMBERS = np.array([[slot in c for slot in range(MAX_SHOWN)] for c in SETS], dtype=np.float64)
_SIZES = _MEMBERS.sum(1).astype(np.int64)
ANSWERED, CANNOT_TELL, SKIPPED = 0, 1, 2


@dataclass(frozen=True)
class Forms:
    """Which answers there are, and their propensities."""

    tie: float | None
    bad: float | None
    strength: Array
    """(thresholds,) positive and rising; empty where pairs are not graded."""
    rank_ties: Array
    """Log propensity of ties of two, of three; empty for none."""
    worst: bool
    n_classes: int

    @staticmethod
    def of(settings: Mapping[str, Any], n_classes: int) -> Forms:
        strength, ties = (np.array(settings[name], dtype=np.float64) for name in ("strength", "rank_ties"))
        return Forms(settings["tie"], settings["bad"], strength, ties, settings["worst"], n_classes)

    @property
    def levels(self) -> int:
        """Of strength; 0 where pairs are not graded."""
        return len(self.strength) + (self.tie is None) if len(self.strength) else 0

    @property
    def bad_code(self) -> int:
        """Column of "both bad" among the answers to a pair."""
        return 2 * self.levels + 1 if self.levels else 3

    @property
    def tie_code(self) -> int:
        return self.levels if self.levels else 2

    @property
    def n_sets(self) -> int:
        """How many of `SETS` can share a rank."""
        return int((1 + len(self.rank_ties) >= _SIZES).sum())

    @property
    def width(self) -> int:
        return max(5, self.bad_code + (self.bad is not None), self.n_sets, self.n_classes)

    def possible(self, kind: NDArray[np.str_], present: Flags) -> Flags:
        """(n, width) the answers that a random click may give."""
        out = np.zeros((len(kind), self.width), dtype=bool)
        pair = kind == "pair"
        out[pair, : 2 * self.levels + 1 if self.levels else 3] = True
        out[pair, self.tie_code] = self.tie is not None
        choice, ranking = kind == "choice", kind == "ranking"
        out[choice, :MAX_SHOWN] = present[choice]
        out[ranking, : self.n_sets] = self.sets_left(present[ranking])
        if self.bad is not None:
            out[pair, self.bad_code] = True
            out[choice, NONE] = True
        out[kind == "rating", :5] = True
        out[kind == "thumbs", :2] = True
        out[kind == "label", : self.n_classes] = True
        return out

    def sets_left(self, left: Flags) -> Flags:
        """(n, n_sets) the sets all of whose slots are left."""
        members = _MEMBERS[: self.n_sets]
        return left.astype(np.float64) @ members.T == _SIZES[: self.n_sets]


@dataclass(frozen=True, eq=False)
class Seen:
    """What each rater reacts to."""

    kind: NDArray[np.str_]
    present: Flags
    """(n, 4)"""
    slots: Array
    """(n, 4) s, 0 where nothing is shown."""
    single: Array
    """(n,) for what is judged by itself: scaled utility with leniency."""
    confusion: Array
    """(n, C) P(label | the class of the response) of the rater; no rows where there are no labels."""
    lapse: Array
    """(n,)"""


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered."""

    code: Codes
    """(n, 4) column of the probabilities in the first place, or each slot's rank."""
    worst: Codes
    """(n,) slot, -1 for none."""


def gaps(seen: Seen) -> Array:
    """(n,) how clear the question is to the rater: s_left - s_right, the best slot less the second, or the single utility."""
    several = (seen.kind == "choice") | (seen.kind == "ranking")
    ordered = np.sort(np.where(seen.present, seen.slots, -np.inf), axis=1)
    lead = np.where(several, ordered[:, -1], 0.0) - np.where(several, ordered[:, -2], 0.0)
    return np.select([seen.kind == "pair", several], [seen.slots[:, 0] - seen.slots[:, 1], lead], seen.single)


def probabilities(seen: Seen, forms: Forms) -> Array:
    """(n, width) of the answers, lapse included, rows summing to 1 and padded with 0."""
    p = np.zeros((len(seen.kind), forms.width))
    s = seen.slots
    pair = seen.kind == "pair"
    if forms.levels:
        p[pair, : forms.bad_code + (forms.bad is not None)] = _graded(s[pair], forms)
    else:
        gap = (s[:, 0] - s[:, 1])[pair]
        weight = [gap / 2, -gap / 2, np.full(len(gap), -np.inf if forms.tie is None else forms.tie)]
        if forms.bad is not None:
            weight.append(forms.bad - s[pair, :2].mean(1))
        p[pair, : len(weight)] = _shares(np.stack(weight, 1))
    choice, ranking = seen.kind == "choice", seen.kind == "ranking"
    slots = np.where(seen.present, s, -np.inf)
    if forms.bad is not None:
        p[choice, : NONE + 1] = _shares(np.column_stack([slots[choice], np.full(int(choice.sum()), forms.bad)]))
    else:
        p[choice, :MAX_SHOWN] = _shares(slots[choice])
    p[ranking, : forms.n_sets] = _stage(s[ranking], seen.present[ranking], forms)
    rating, thumbs, label = seen.kind == "rating", seen.kind == "thumbs", seen.kind == "label"
    below = _sigmoid(np.array(RATING_CUTS) - seen.single[rating, None])
    p[rating, :5] = np.diff(below, axis=1, prepend=0.0, append=1.0)
    p[thumbs, 0] = _sigmoid(seen.single[thumbs])
    p[thumbs, 1] = _sigmoid(-seen.single[thumbs])
    if label.any():
        p[label, : forms.n_classes] = seen.confusion[label]
    return lapsed(p, forms.possible(seen.kind, seen.present), seen.lapse)


def lapsed(p: Array, possible: Flags, lapse: Array) -> Array:
    """Mixed with a uniformly random click."""
    lapse = lapse[:, None]
    return (1 - lapse) * p + lapse * possible / np.maximum(possible.sum(1, keepdims=True), 1)


def _graded(s: Array, forms: Forms) -> Array:
    """Cumulative logistic with thresholds symmetric around 0; "both bad" is chosen first, against the better of the two."""
    steps = forms.strength
    cuts = np.concatenate([-steps[::-1], [] if forms.tie is not None else [0.0], steps])
    gap = s[:, 0] - s[:, 1]
    # the latent axis runs from the strongest left to the strongest right
    below = _sigmoid(cuts + gap[:, None])
    p = np.diff(below, axis=1, prepend=0.0, append=1.0)
    if forms.tie is None:
        p = np.insert(p, forms.levels, 0.0, axis=1)
    if forms.bad is None:
        return p
    bad = _shares(np.column_stack([s[:, :2], np.full(len(s), forms.bad)]))[:, 2:]
    return np.hstack([p * (1 - bad), bad])


def _stage(s: Array, left: Flags, forms: Forms) -> Array:
    """(n, n_sets) which slots come next out of those left (Plackett-Luce, with ties Davidson-Luce); rows with none left are 0.

    A set S has weight exp(delta_|S| + mean of s over S), delta_1 = 0: Firth, Kosmidis & Turner 2019, equation 2.
    """
    if not len(forms.rank_ties):
        return _shares(np.where(left, s, -np.inf))
    n = forms.n_sets
    delta = np.concatenate([[0.0], forms.rank_ties])[_SIZES[:n] - 1]
    return _shares(np.where(forms.sets_left(left), delta + s @ _MEMBERS[:n].T / _SIZES[:n], -np.inf))


def draw_answers(seen: Seen, forms: Forms, p: Array, uniform: Array, for_worst: Array) -> Answers:
    """Answers from their probabilities and (n, 4) uniform numbers, of which a ranking uses one per stage."""
    n = len(p)
    code = np.zeros((n, MAX_SHOWN), dtype=np.int64)
    code[:, 0] = draw(p, uniform[:, 0])
    ranking = np.flatnonzero(seen.kind == "ranking")
    left, first = seen.present[ranking].copy(), code[ranking, 0]
    code[ranking] = 0
    s, lapse = seen.slots[ranking], seen.lapse[ranking]
    members = _MEMBERS.astype(bool)
    for stage in range(MAX_SHOWN):
        rows = np.flatnonzero(left.any(1))
        if stage:
            possible = forms.sets_left(left[rows])
            pick = draw(lapsed(_stage(s[rows], left[rows], forms), possible, lapse[rows]), uniform[ranking[rows], stage])
        else:
            pick = first[rows]
        chosen = members[pick]
        code[ranking[rows]] += (stage + 1) * chosen
        left[rows] &= ~chosen
    return Answers(code, _draw_worst(seen, forms, code[:, 0], for_worst))


def _draw_worst(seen: Seen, forms: Forms, best: Codes, uniform: Array) -> Codes:
    """The worst of those that are left beside the best: P(i) proportional to exp(-s_i), with the lapse of the judgment."""
    worst = np.full(len(best), -1, dtype=np.int64)
    if forms.worst:
        rows = np.flatnonzero((seen.kind == "choice") & (best < NONE))
        left = seen.present[rows].copy()
        left[np.arange(len(rows)), best[rows]] = False
        p = lapsed(_shares(np.where(left, -seen.slots[rows], -np.inf)), left, seen.lapse[rows])
        worst[rows] = draw(p, uniform[rows])
    return worst


def leave_open(missing: Missing, gap: Array, propensity: Array) -> Array:
    """(n, 2) probability of "cannot tell" and of "skipped"."""
    against = propensity - missing.gap * np.logaddexp(gap / 2, -gap / 2)
    weight = [np.exp(m + against) if m is not None else np.zeros(len(gap)) for m in (missing.cannot_tell, missing.skipped)]
    return np.stack(weight, 1) / (1 + weight[0] + weight[1])[:, None]


# ------------------------------------------------------------------------------------ what is recorded instead


def randomise(answers: Answers, kind: NDArray[np.str_], present: Flags, forms: Forms, epsilon: float, u: Array) -> tuple[Answers, Flags]:
    """Randomised response: the answer, or with probability C / (exp(epsilon) + C - 1) any of the C answers there are.

    So the true one is recorded with odds of exp(epsilon) against each other one (Warner 1965; Kairouz et al. 2016). An answer is a
    whole ranking, or best and worst together. `u` (n, 2) are uniform numbers. Also returns where it was replaced.
    """
    code, worst, replaced = answers.code.copy(), answers.worst.copy(), np.zeros(len(kind), dtype=bool)
    n_shown = present.sum(1)
    for what in np.unique(kind):
        for m in np.unique(n_shown[kind == what]):
            rows = np.flatnonzero((kind == what) & (n_shown == m))
            table = np.array(_every_answer(str(what), int(m), forms), dtype=np.int64)
            hit = rows[u[rows, 0] < len(table) / (np.exp(epsilon) + len(table) - 1)]
            pick = table[(u[hit, 1] * len(table)).astype(np.int64)]
            code[hit], worst[hit], replaced[hit] = pick[:, :MAX_SHOWN], pick[:, MAX_SHOWN], True
    return Answers(code, worst), replaced


def _every_answer(kind: str, m: int, forms: Forms) -> list[tuple[int, ...]]:
    """Every answer to a question with m slots: its code and the worst."""
    if kind == "ranking":
        ranks = [r for r in product(range(1, m + 1), repeat=m) if _dense(r, forms)]
        return [(*r, *[0] * (MAX_SHOWN - m), -1) for r in ranks]
    if kind == "choice" and forms.worst and m > 1:
        every = [(best, 0, 0, 0, worst) for best, worst in permutations(range(m), 2)]
        return every + ([(NONE, 0, 0, 0, -1)] if forms.bad is not None else [])
    present = np.arange(MAX_SHOWN) < m
    possible = forms.possible(np.array([kind]), present[None])[0]
    return [(int(c), 0, 0, 0, -1) for c in np.flatnonzero(possible)]


def _dense(ranks: Sequence[int], forms: Forms) -> bool:
    """Whether these ranks run from 1 without a hole, no more sharing one than may."""
    counts = np.bincount(ranks)[1:]
    return bool((counts > 0).all() and counts.max() <= 1 + len(forms.rank_ties))


def turn_round(answers: Answers, kind: NDArray[np.str_], n_shown: Codes, forms: Forms, flipped: Flags) -> Answers:
    """The answers recorded the wrong way round where flipped: sides, ranks, grades and thumbs are mirrored, best and worst change
    places, and a choice without a worst or a label moves on by one. Ties, and what is all bad, stay."""
    code, worst = answers.code.copy(), answers.worst.copy()
    one = answers.code[:, 0]
    sides = np.array([1, 0]) if not forms.levels else 2 * forms.levels - np.arange(2 * forms.levels + 1)
    stays = (kind == "choice") & (one == NONE) | (kind == "pair") & (one >= len(sides))
    both = worst >= 0
    other = np.select(
        [kind == "pair", (kind == "choice") & both, kind == "choice", kind == "rating", kind == "thumbs"],
        [sides[np.minimum(one, len(sides) - 1)], worst, (one + 1) % np.maximum(n_shown, 1), 4 - one, 1 - one],
        (one + 1) % max(forms.n_classes, 1),
    )
    simple = flipped & (kind != "ranking") & ~stays
    code[simple, 0] = other[simple]
    worst = np.where(simple & both, one, worst)
    ranked = flipped & (kind == "ranking")
    code[ranked] = np.where(code[ranked] > 0, code[ranked].max(1, keepdims=True) + 1 - code[ranked], 0)
    return replace(answers, code=code, worst=worst)


# ------------------------------------------------------------------------------------ sums


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def _shares(log_weight: Array) -> Array:
    """Rows proportional to exp(log_weight); a row of -inf becomes 0."""
    top = log_weight.max(1, keepdims=True, initial=-1e300)
    weight = np.exp(log_weight - top)
    return weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)


def draw(p: Array, uniform: Array) -> Codes:
    """An option per row."""
    total = np.cumsum(p, axis=1)
    return (uniform[:, None] * total[:, -1:] >= total).sum(1)
