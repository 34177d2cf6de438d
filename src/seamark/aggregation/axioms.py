"""Axioms: does a rule respect majorities, unanimity, clones and its own voters, on these profiles; and does a fitted reward, out of sample?

Condorcet and Pareto are decided: none violated means none is, on these profiles. Clones, monotonicity and participation speak of what
would happen if an option had a copy, or some people voted otherwise; so many could that they are searched: a violation found is proof, and
none found is not. A witness is always a profile on which the rule itself was run, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seamark.aggregation.profiles import TIE, Array, Codes, Mask, Profile
from seamark.aggregation.rules import decide
from seamark.errors import InvalidSetting

Choose = Callable[[Profile], Mask]
"""The winners, (Q, M), of a rule with its settings."""

_STARTS = 3
"""Questions from which a smallest witness is sought."""

_CELLS = 2**22
"""Utilities of altered profiles that are decided at a time."""


@dataclass(frozen=True)
class Witness:
    """A profile that shows a violation, and from which no person and no option can be taken away without losing it."""

    profile: Profile
    """One question."""
    said: str
    """What happens, in one sentence; options are numbered from 0 as in the profile."""


@dataclass(frozen=True)
class AxiomCheck:
    """How often an axiom is violated, of the questions (or pairs of options) that it applies to."""

    axiom: str
    violated: int
    applicable: int
    low: float
    high: float
    """95% interval of the share violated; where several pairs come from one question, clustered by question. 0 to 1 where none applies."""
    questions: Codes
    """Questions with a violation."""
    searched: bool = False
    """Whether violations were looked for among some of the changes that could show one: the share is then a lower bound."""
    witness: Witness | None = None

    @property
    def share(self) -> float | None:
        """Of the applicable; None where none applies."""
        return self.violated / self.applicable if self.applicable else None


def check_axioms(
    profile: Profile, rule: str, *, axioms: Sequence[str] | None = None, witness: bool = True, **settings: Any
) -> tuple[AxiomCheck, ...]:
    """Violations of each axiom by a rule, counted over the questions of a profile.

    Parameters
    ----------
    axioms : of `AXIOMS`; None: all.
    witness : whether to look for the smallest profile that shows each violation.
    settings : those of the rule.

    Raises
    ------
    InvalidSetting
        If there is no such axiom, or `decide` refuses.
    """
    names = tuple(AXIOMS) if axioms is None else tuple(axioms)
    if unknown := [name for name in names if name not in AXIOMS]:
        raise InvalidSetting("axioms", unknown[0], f"The axioms are {', '.join(AXIOMS)}.")

    def choose(of: Profile) -> Mask:
        return decide(of, rule, **settings).winners

    checks: list[AxiomCheck] = []
    for name in names:
        find = AXIOMS[name]
        applicable, said = find(profile, choose)
        wrong = np.flatnonzero([s is not None for s in said])
        low, high = _interval(np.isin(np.arange(len(said)), wrong).astype(float)[applicable], np.ones(int(applicable.sum())))
        shown = _smallest(profile, wrong, find, choose) if witness and len(wrong) else None
        checks.append(AxiomCheck(name, len(wrong), int(applicable.sum()), low, high, wrong, name in SEARCHED, shown))
    return tuple(checks)


def check_scores(scores: Array, profile: Profile) -> tuple[AxiomCheck, ...]:
    """Whether scores respect people who had no part in them: a fitted reward beside the rankings of held-out people on held-out options.

    Three axioms, each with its n: `unanimity`, pairs of options of which everyone prefers one, and `majority`, pairs of which a
    majority does: violated where the scores do not put it higher (equal scores do not); `condorcet-winner`, questions that have one:
    violated where it is not alone at the top.

    Parameters
    ----------
    scores : (Q, M) what the reward gives each option; not NaN where the profile has it.

    Source: Dai & Fleisig 2024 (axioms must hold for what was not seen); Ge et al. 2024 (which of them fitted rewards break).
    """
    if scores.shape != profile.present.shape or np.isnan(scores[profile.present]).any():
        raise InvalidSetting("scores", scores.shape, f"Give a number for each option of {profile.present.shape} that a question has.")
    with np.errstate(invalid="ignore"):
        higher = scores[:, :, None] > scores[:, None] + TIE * np.maximum(1, np.abs(scores[:, None]))
        pairs = {"unanimity": profile.margins > 1 - TIE, "majority": profile.margins > 0}
    checks = [_over_pairs(name, preferred & ~higher, preferred) for name, preferred in pairs.items()]
    top = (higher | ~profile.present[:, None] | np.eye(profile.n_options, dtype=bool)).all(-1) & profile.present
    winner = profile.condorcet
    known = winner >= 0
    missed = known & ~top[np.arange(len(top)), winner]
    low, high = _interval(missed[known].astype(float), np.ones(int(known.sum())))
    return (*checks, AxiomCheck("condorcet-winner", int(missed.sum()), int(known.sum()), low, high, np.flatnonzero(missed)))


def _over_pairs(name: str, wrong: Mask, preferred: Mask) -> AxiomCheck:
    hits, sizes = wrong.sum((1, 2)), preferred.sum((1, 2))
    low, high = _interval(hits[sizes > 0].astype(float), sizes[sizes > 0].astype(float))
    return AxiomCheck(name, int(hits.sum()), int(sizes.sum()), low, high, np.flatnonzero(hits))


def _interval(hits: Array, sizes: Array) -> tuple[float, float]:
    """95% bounds of sum hits / sum sizes, clustered by row: Clopper and Pearson's at the effective n (Korn & Graubard 1998)."""
    from scipy.stats import beta

    k, total = len(hits), float(sizes.sum())
    if total == 0:
        return 0.0, 1.0
    p = float(hits.sum()) / total
    variance = float(((hits - p * sizes) ** 2).sum()) / total**2 * k / max(k - 1, 1)
    # where all rows say the same there is no variance to tell, and each row counts as one
    n = min(p * (1 - p) / variance, total) if variance > 0 else float(k)
    low = float(beta.ppf(0.025, p * n, n - p * n + 1)) if p > 0 else 0.0
    high = float(beta.ppf(0.975, p * n + 1, n - p * n)) if p < 1 else 1.0
    return low, high


# ---------------------------------------------------------------------------------------------- what each axiom asks

Found = tuple[Mask, list[str | None]]
"""(Q,) whether the axiom applies, and per question what violates it, if anything."""


def _condorcet_winner(profile: Profile, choose: Choose) -> Found:
    """Who beats every other one wins, alone. Source: Condorcet 1785."""
    winner, won = profile.condorcet, choose(profile)
    wrong = (winner >= 0) & (won != (np.arange(profile.n_options) == winner[:, None])).any(-1)
    return winner >= 0, [
        f"Option {c} beats every other one by majority, and {_named(won[q])} wins" if wrong[q] else None for q, c in enumerate(winner)
    ]


def _condorcet_loser(profile: Profile, choose: Choose) -> Found:
    """Who loses to every other one does not win."""
    loser, won = profile.condorcet_loser, choose(profile)
    wrong = (loser >= 0) & won[np.arange(len(won)), loser]
    return loser >= 0, [f"Option {c} loses to every other one by majority, and may win" if wrong[q] else None for q, c in enumerate(loser)]


def _pareto(profile: Profile, choose: Choose) -> Found:
    """What everyone likes less than some other option does not win."""
    with np.errstate(invalid="ignore"):
        everyone = profile.margins > 1 - TIE
    wrong = everyone & choose(profile)[:, None]
    said: list[str | None] = [None] * profile.n_questions
    for q, better, worse in np.argwhere(wrong):
        said[q] = f"Everyone prefers option {better} to option {worse}, which may win"
    return np.asarray(everyone.any((1, 2))), said


def _clones(profile: Profile, choose: Choose) -> Found:
    """A near-copy of an option changes nothing but which of the two: others win as before, and one of the two where the first did.

    Each option is copied twice: everyone likes the copy a little less, or every other person a little more. A little is less than any
    difference that the person sees. Source: Tideman 1987.
    """
    before = choose(profile)
    applies = profile.present.sum(-1) > 1
    said: list[str | None] = [None] * profile.n_questions
    for option in range(profile.n_options):
        asked = np.flatnonzero(applies & profile.present[:, option])
        for kind in ("that everyone likes a little less", "that every other person likes a little more"):
            for some in _portions(asked, profile):
                after = choose(_with_copy(_select(profile, some), option, mixed=kind.startswith("that every other")))
                either = after[:, option] | after[:, -1]
                others = np.arange(profile.n_options) != option
                wrong = (after[:, :-1] != before[some])[:, others].any(-1) | (either != before[some, option])
                for at in np.flatnonzero(wrong):
                    then = _named(after[at])
                    said[some[at]] = (
                        f"{_named(before[some[at]])} wins; with a copy of option {option} {kind} (option {profile.n_options}), {then} does"
                    )
    return applies, said


def _with_copy(profile: Profile, option: int, *, mixed: bool) -> Profile:
    """The profile with one more option, that nobody sees another option between it and the one it copies."""
    u = profile.utilities
    own = u[:, :, option, None]
    with np.errstate(invalid="ignore"):
        step = np.where(u != own, np.abs(u - own), np.inf).min(-1)
    # a thousandth of a logit at most: a near-copy is nearly as good
    step = np.where(np.isfinite(step), np.minimum(step / 3, 1e-3), 1e-3)
    sign = np.where(np.arange(profile.n_people) % 2 == 1, 1.0, -1.0) if mixed else -1.0
    copy = own[:, :, 0].astype(np.float64) + sign * step
    return replace(profile, utilities=np.concatenate([u.astype(np.float64), copy[:, :, None]], -1))


def _monotonicity(profile: Profile, choose: Choose) -> Found:
    """Who wins still wins after some people like it better. Searched: some of each rival's supporters put it first."""
    return _search(profile, choose, _lifts)


def _participation(profile: Profile, choose: Choose) -> Found:
    """Nobody gets what they prefer by staying away. Searched: some of those who prefer a rival to the winner stay away.

    Only where there is one winner, before and after: whether one prefers one set of winners to another is not said by a ranking.
    Source: Fishburn & Brams 1983; Moulin 1988.
    """
    return _search(profile, choose, _absences)


Change = tuple[Profile, Callable[[Mask], bool], str]
"""One question altered, whether its winners then violate the axiom, and what was changed."""


def _search(profile: Profile, choose: Choose, changes: Callable[[Profile, int], Iterator[Change]]) -> Found:
    """Questions with one winner, altered in many ways, the altered ones decided together."""
    won = choose(profile)
    applies = (won.sum(-1) == 1) & (profile.present.sum(-1) > 1)
    said: list[str | None] = [None] * profile.n_questions
    batch: list[tuple[int, Change]] = []

    def settle() -> None:
        if not batch:
            return
        altered = [change[0] for _, change in batch]
        joined = replace(
            profile,
            utilities=np.concatenate([p.utilities for p in altered]),
            weights=np.stack([np.ones(p.n_people) if p.weights is None else p.weights.reshape(-1) for p in altered]),
        )
        for (q, (_, violates, what)), winners in zip(batch, choose(joined), strict=True):
            if said[q] is None and violates(winners):
                said[q] = f"Option {won[q].argmax()} wins; {what}, {_named(winners)} does"
        batch.clear()

    for q in np.flatnonzero(applies):
        for change in changes(_select(profile, np.array([q])), int(won[q].argmax())):
            batch.append((int(q), change))
            if len(batch) * profile.n_people * profile.n_options > _CELLS:
                settle()
    settle()
    return applies, said


def _lifts(one: Profile, winner: int) -> Iterator[Change]:
    u, w = one.utilities[0], _person_weights(one)
    best = np.where(np.isnan(u), -np.inf, u).max(-1)
    for rival in np.flatnonzero(one.present[0]):
        backers = np.flatnonzero((u[:, rival] == best) & (u[:, winner] < best) & (w > 0))
        for n in _sizes(len(backers)):
            lifted = one.utilities.copy()
            lifted[0, backers[:n], winner] = best[backers[:n]] + 1
            what = f"after {n} of those who put option {rival} first put option {winner} first"
            yield replace(one, utilities=lifted), lambda won: not won[winner], what


def _absences(one: Profile, winner: int) -> Iterator[Change]:
    u, w = one.utilities[0], _person_weights(one)
    for rival in np.flatnonzero(one.present[0]):
        with np.errstate(invalid="ignore"):
            prefer = np.flatnonzero((u[:, rival] > u[:, winner]) & (w > 0))
        for n in _sizes(len(prefer)):
            left = w.copy()
            left[prefer[:n]] = 0
            if not left.any():
                continue
            what = f"if {n} of those who prefer option {rival} to it stay away"
            yield replace(one, weights=left), lambda won, rival=int(rival): bool(won[rival] and won.sum() == 1), what


def _sizes(n: int) -> list[int]:
    """1, 2, 3, 4, 5, 6, 8, 10, ... a quarter more each time, and all: what turns an election is often a narrow range."""
    sizes: list[int] = []
    while not sizes or sizes[-1] < n:
        sizes.append(min(n, sizes[-1] + max(1, sizes[-1] // 4)) if sizes else min(1, n))
        if n == 0:
            return []
    return sizes


AXIOMS: dict[str, Callable[[Profile, Choose], Found]] = {
    "condorcet-winner": _condorcet_winner,
    "condorcet-loser": _condorcet_loser,
    "pareto": _pareto,
    "clones": _clones,
    "monotonicity": _monotonicity,
    "participation": _participation,
}
SEARCHED = ("clones", "monotonicity", "participation")
"""Axioms of which violations are searched for."""


# ---------------------------------------------------------------------------------------------- witnesses


def _smallest(profile: Profile, wrong: Codes, find: Callable[[Profile, Choose], Found], choose: Choose) -> Witness | None:
    """The smallest violation that taking people and options away leads to, from the first few questions with the fewest options."""
    first = wrong[np.argsort(profile.present[wrong].sum(-1), kind="stable")[:_STARTS]]
    found = [_shrunk(_select(profile, np.array([q])), find, choose) for q in first]
    return min((w for w in found if w is not None), key=lambda w: w.profile.n_people * w.profile.n_options, default=None)


def _shrunk(one: Profile, find: Callable[[Profile, Choose], Found], choose: Choose) -> Witness | None:
    """What is left of a question when people go in halves, quarters, ... and then one by one, with options, as long as it still shows it.

    Source: Zeller & Hildebrandt 2002.
    """

    def shows(some: Profile) -> str | None:
        return find(some, choose)[1][0]

    one = _restrict(one, np.flatnonzero(_person_weights(one) > 0), np.flatnonzero(one.present[0]))
    if shows(one) is None:
        return None  # every other person of those who count is not every other person of all
    part = max(1, one.n_people // 2)
    while True:
        start, smaller = 0, False
        while start < one.n_people and one.n_people > 1:
            stay = np.r_[0:start, min(start + part, one.n_people) : one.n_people]
            if len(stay) and shows(less := _restrict(one, stay, np.arange(one.n_options))) is not None:
                one, smaller = less, True
            else:
                start += part
        for option in range(one.n_options - 1, -1, -1):
            stay = np.delete(np.arange(one.n_options), option)
            if part == 1 and one.n_options > 2 and shows(less := _restrict(one, np.arange(one.n_people), stay)) is not None:
                one, smaller = less, True
        if part == 1 and not smaller:
            said = shows(one)
            assert said is not None
            return Witness(one, said)
        part = max(1, part // 2)


def _restrict(one: Profile, people: Codes, options: Codes) -> Profile:
    """The people and options named, of one question; a profile that nobody counts in is left as it is."""
    weights = _person_weights(one)[people]
    if not weights.any():
        return one
    groups = None if one.groups is None else one.groups[people]
    return replace(one, utilities=one.utilities[:, people][:, :, options], weights=weights, groups=groups)


def _select(profile: Profile, questions: Codes) -> Profile:
    weights = profile.weights if profile.weights is None or profile.weights.ndim == 1 else profile.weights[questions]
    return replace(profile, utilities=profile.utilities[questions], weights=weights)


def _person_weights(one: Profile) -> Array:
    """(N,) weights in a profile of one question."""
    return np.ones(one.n_people) if one.weights is None else one.weights.reshape(-1).copy()


def _portions(questions: Codes, profile: Profile) -> Iterator[Codes]:
    """Some of the questions at a time, so that their copies fit."""
    step = max(1, _CELLS // (profile.n_people * (profile.n_options + 1)))
    for start in range(0, len(questions), step):
        yield questions[start : start + step]


def _named(winners: Mask) -> str:
    """Winners in words."""
    found = [str(c) for c in np.flatnonzero(winners)]
    return f"option {found[0]}" if len(found) == 1 else f"one of options {', '.join(found)}" if found else "no option"
