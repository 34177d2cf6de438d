"""Axioms: known cases of each rule, every count and witness beside naive code, and rewards that meet people they have not seen."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from seamark.aggregation.axioms import AXIOMS, SEARCHED, AxiomCheck, check_axioms, check_scores
from seamark.aggregation.profiles import Profile
from seamark.aggregation.rules import RULES, decide
from seamark.errors import InvalidSetting

RESOLUTE = {"mixture": {"parts": {"borda": 1, "maximin": 1}}}


def ballots(**counts: float) -> Profile:
    options = sorted(next(iter(counts)))
    return Profile.of_rankings(np.array([[o.index(c) + 1 for c in options] for o in counts]), weights=np.array(list(counts.values())))


def people(**counts: int) -> Profile:
    """As many people as counted, each of weight 1."""
    options = sorted(next(iter(counts)))
    return Profile.of_rankings(np.array([[o.index(c) + 1 for c in options] for o, n in counts.items() for _ in range(n)]))


@pytest.fixture(scope="module")
def societies() -> Profile:
    rng = np.random.default_rng(0)
    return Profile(rng.normal(size=(80, 9, 4)), groups=rng.integers(0, 3, 9))


def checks(profile: Profile, rule: str, **settings: Any) -> dict[str, AxiomCheck]:
    return {check.axiom: check for check in check_axioms(profile, rule, **RESOLUTE.get(rule, {}), **settings)}


def won(profile: Profile, rule: str) -> set[int]:
    return set(np.flatnonzero(decide(profile, rule, **RESOLUTE.get(rule, {})).winners[0]).tolist())


# ---------------------------------------------------------------------------------------------- known cases

OBEYED: dict[str, tuple[str, ...]] = {
    # Condorcet consistent, clone-proof, monotone (Tideman 1987; Zavist & Tideman 1989; Brandl, Brandt & Seedig 2016)
    "ranked-pairs": ("condorcet-winner", "condorcet-loser", "pareto", "clones", "monotonicity"),
    "maximal-lottery": ("condorcet-winner", "condorcet-loser", "pareto", "clones"),
    "kemeny": ("condorcet-winner", "condorcet-loser", "pareto", "monotonicity"),
    "copeland": ("condorcet-winner", "condorcet-loser", "pareto", "monotonicity"),
    "borda": ("condorcet-loser", "pareto", "monotonicity", "participation"),
    "bradley-terry": ("condorcet-loser", "pareto", "monotonicity", "participation"),
    "instant-runoff": ("condorcet-loser", "pareto"),
    "expected-utility": ("pareto", "clones", "monotonicity", "participation"),
    "nash": ("pareto", "monotonicity", "participation"),
}
BROKEN: dict[str, tuple[str, ...]] = {
    "borda": ("condorcet-winner", "clones"),
    "bradley-terry": ("condorcet-winner", "clones"),
    "copeland": ("clones",),
    "kemeny": ("clones",),
    "instant-runoff": ("condorcet-winner",),
    "expected-utility": ("condorcet-winner",),
    "median": ("condorcet-winner", "participation"),
    "maximin": ("condorcet-winner", "participation"),
}


@pytest.mark.parametrize("rule", OBEYED)
def test_rules_obey_what_they_are_proved_to_obey(rule: str, societies: Profile) -> None:
    for check in check_axioms(societies, rule, axioms=OBEYED[rule]):
        assert check.violated == 0, check
        assert check.witness is None


@pytest.mark.parametrize("rule", BROKEN)
def test_rules_break_what_they_are_known_to_break(rule: str, societies: Profile) -> None:
    """N24: the table of axioms has the violations that are known, each with a witness."""
    for check in check_axioms(societies, rule, axioms=BROKEN[rule]):
        assert check.violated > 0, check
        assert len(check.questions) == check.violated
        assert check.witness is not None


def test_instant_runoff_is_hurt_by_support() -> None:
    """39 A>B>C, 35 B>C>A, 26 C>A>B: C goes, A beats B by 65 to 35. If ten of B's backers raise A to the top, B goes with 25 before C (26),
    and C beats A by 51 to 49 (the textbook case of Wikipedia's article on monotonicity, which takes Fishburn & Brams' idea)."""
    profile = people(ABC=39, BCA=35, CAB=26)
    assert won(profile, "instant-runoff") == {0}
    lifted = people(ABC=49, BCA=25, CAB=26)
    assert won(lifted, "instant-runoff") == {2}
    (check,) = check_axioms(profile, "instant-runoff", axioms=["monotonicity"])
    assert (check.violated, check.applicable, check.searched) == (1, 1, True)
    assert check.witness is not None
    assert check.witness.profile.n_people < 100
    assert "put option 0 first" in check.witness.said


def test_staying_away_helps_in_instant_runoff() -> None:
    """25 A>B>C, 24 B>C>A, 46 C>A>B: B goes, C wins. Two of the 25 stay away: A (23) goes, and B, whom they prefer to C, wins by 47 to 46."""
    assert won(people(ABC=25, BCA=24, CAB=46), "instant-runoff") == {2}
    assert won(people(ABC=23, BCA=24, CAB=46), "instant-runoff") == {1}
    (check,) = check_axioms(people(ABC=25, BCA=24, CAB=46), "instant-runoff", axioms=["participation"])
    assert (check.violated, check.applicable) == (1, 1)
    assert check.witness is not None
    assert check.witness.profile.n_people < 95


def test_a_clone_is_found_in_the_case_that_names_it() -> None:
    """Evaluation 2.4: A 55%, B 45%, B copied: Bradley-Terry (as Borda) moves from A to B."""
    profile = ballots(AB=0.55, BA=0.45)
    for rule, violated in {"bradley-terry": 1, "borda": 1, "maximal-lottery": 0, "ranked-pairs": 0, "instant-runoff": 0}.items():
        assert checks(profile, rule)["clones"].violated == violated, rule


# ---------------------------------------------------------------------------------------------- counts and witnesses


def naive_winner(profile: Profile, q: int, *, loser: bool = False) -> int | None:
    u = profile.utilities[q]
    sign = -1 if loser else 1
    for i in range(u.shape[1]):
        if all(sign * sum(np.sign(row[i] - row[j]) for row in u) > 0 for j in range(u.shape[1]) if j != i):
            return i
    return None


@pytest.mark.parametrize("rule", ["borda", "approval", "median", "instant-runoff"])
def test_counts_agree_with_a_loop(rule: str) -> None:
    profile = Profile(np.random.default_rng(2).integers(0, 5, size=(60, 4, 3)).astype(float))
    found = checks(profile, rule, witness=False)
    wrong = dict.fromkeys(("condorcet-winner", "condorcet-loser", "pareto"), 0)
    applicable = dict(wrong)
    for q in range(60):
        winners = won(Profile(profile.utilities[q : q + 1]), rule)
        winner, loser = naive_winner(profile, q), naive_winner(profile, q, loser=True)
        applicable["condorcet-winner"] += winner is not None
        wrong["condorcet-winner"] += winner is not None and winners != {winner}
        applicable["condorcet-loser"] += loser is not None
        wrong["condorcet-loser"] += loser is not None and loser in winners
        dominated = {j for i, j in permutations(range(3), 2) if all(row[i] > row[j] for row in profile.utilities[q])}
        applicable["pareto"] += bool(dominated)
        wrong["pareto"] += bool(dominated & winners)
    for name, count in wrong.items():
        assert (found[name].violated, found[name].applicable) == (count, applicable[name]), name


def test_unanimity_is_broken_by_what_looks_at_one_person_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule here respects unanimity, so the check meets one that does not: the least liked wins."""
    monkeypatch.setitem(RULES, "borda", lambda profile: replace(copeland(profile), scores=-copeland(profile).scores))
    copeland: Callable[[Profile], Any] = RULES["copeland"]
    (check,) = check_axioms(ballots(ABC=2, BAC=1), "borda", axioms=["pareto"])
    assert (check.violated, check.applicable) == (1, 1)
    assert check.witness is not None
    assert check.witness.profile.utilities.shape == (1, 1, 2)
    assert re.fullmatch(r"Everyone prefers option . to option ., which may win", check.witness.said)


@pytest.mark.parametrize("rule", ["borda", "kemeny", "instant-runoff", "median", "maximin", "expected-utility", "mixture"])
def test_witnesses_show_what_they_say_and_cannot_be_smaller(rule: str, societies: Profile) -> None:
    for check in check_axioms(societies, rule, **RESOLUTE.get(rule, {})):
        if check.witness is None:
            assert check.violated == 0
            continue
        small = check.witness.profile
        settings = RESOLUTE.get(rule, {})

        def broken(profile: Profile, axiom: str = check.axiom, settings: dict[str, Any] = settings) -> int:
            return check_axioms(profile, rule, axioms=[axiom], witness=False, **settings)[0].violated

        assert broken(small) == 1
        n = small.n_people
        for leaves in range(n) if n > 1 else ():
            stay = np.delete(np.arange(n), leaves)
            assert small.weights is not None
            assert small.groups is not None
            fewer = Profile(small.utilities[:, stay], small.weights[stay], small.groups[stay])
            if (fewer.groups is not None and (fewer.groups >= 0).any()) or rule not in ("maximin", "mixture"):
                assert broken(fewer) == 0


def test_the_share_has_an_interval_and_an_n(societies: Profile) -> None:
    """Clopper and Pearson's for 4 of 10 is [.122, .738]; none of 10, [0, .308]; and none at all says nothing."""
    check = checks(societies, "borda", witness=False)["condorcet-winner"]
    assert check.share is not None
    assert 0 < check.low < check.share < check.high < 1
    same = Profile(np.tile(ballots(AB=2, BA=1).utilities, (10, 1, 1)), np.array([2.0, 1.0]))
    found = check_scores(np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 4), same)[1]
    assert (found.violated, found.applicable) == (4, 10)
    # the variance of ten questions is estimated, so their effective number is 9, not 10
    assert found.low == pytest.approx(0.1, abs=0.03)
    assert found.high == pytest.approx(0.75, abs=0.03)
    none = check_scores(np.array([[1.0, 0.0]] * 10), same)[1]
    assert (none.low, none.violated) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 10))
    nothing = checks(ballots(ABC=1, BCA=1, CAB=1), "borda", witness=False)["condorcet-winner"]
    assert (nothing.applicable, nothing.share, nothing.low, nothing.high) == (0, None, 0, 1)


def test_the_interval_is_wider_where_pairs_come_from_one_question() -> None:
    """Ten questions of ten pairs that stand or fall together say as much as ten pairs, not as a hundred."""
    orders = np.tile(np.arange(5.0, 0, -1), (10, 1))
    profile = Profile(np.repeat(orders[:, None], 3, 1))
    scores = orders * np.where(np.arange(10) < 3, -1, 1)[:, None]
    unanimity = check_scores(scores, profile)[0]
    assert (unanimity.violated, unanimity.applicable) == (30, 100)
    assert unanimity.low < 0.09
    assert unanimity.high > 0.6
    assert unanimity.questions.tolist() == [0, 1, 2]


def test_searched_axioms_say_so(societies: Profile) -> None:
    for name, check in checks(societies, "borda", witness=False).items():
        assert check.searched == (name in SEARCHED)
    with pytest.raises(InvalidSetting, match=r"axioms is 'fairness'. The axioms are condorcet-winner"):
        check_axioms(societies, "borda", axioms=["fairness"])
    with pytest.raises(InvalidSetting, match="scores is"):
        check_scores(np.zeros((2, 2)), societies)


@pytest.mark.parametrize("rule", ["borda", "maximin"])
def test_weights_and_absences_reach_every_axiom(rule: str) -> None:
    """Weights by question, an absent option, portions of one question: the same counts as question by question."""
    rng = np.random.default_rng(5)
    u, w = rng.normal(size=(12, 6, 4)), rng.integers(0, 3, size=(12, 6)) + np.eye(6)[:1]
    u[:5, :, 3] = np.nan
    groups = np.array([0, 1, 0, 1, 0, 1])
    whole = checks(Profile(u, w, groups), rule, witness=False)
    for name in AXIOMS:
        alone = [check_axioms(Profile(u[q : q + 1], w[q : q + 1], groups), rule, axioms=[name], witness=False)[0] for q in range(12)]
        assert whole[name].violated == sum(c.violated for c in alone), name
        assert whole[name].applicable == sum(c.applicable for c in alone), name
        assert whole[name].questions.tolist() == [q for q, c in enumerate(alone) if c.violated]


# ---------------------------------------------------------------------------------------------- out of sample


def test_a_fitted_reward_meets_people_and_options_it_has_not_seen() -> None:
    """A majority of 60% likes what the other 40% like much less: a reward fitted to mean utility follows the 40% on new options.

    Utilities are linear in two features; the reward is least squares on the mean utility of 40 options, and is asked about 200 questions
    of 3 new options and 50 new people. A reward fitted to those alone whose first taste is positive respects the majority.
    """
    rng = np.random.default_rng(0)

    def tastes(n: int) -> Any:
        direction = np.where(rng.random(n)[:, None] < 0.6, [1.0, 0.5], [-4.0, 0.5])
        return direction + 0.1 * rng.normal(size=(n, 2))

    seen, x = tastes(50), rng.normal(size=(40, 2))
    mean = np.linalg.lstsq(x, (x @ seen.T).mean(1), rcond=None)[0]
    majority = np.linalg.lstsq(x, (x @ seen[seen[:, 0] > 0].T).mean(1), rcond=None)[0]
    new = rng.normal(size=(200, 3, 2))
    held_out = Profile(np.einsum("qmk,nk->qnm", new, tastes(50)))
    by_mean, by_majority = ({c.axiom: c for c in check_scores(new @ weights, held_out)} for weights in (mean, majority))
    for name in ("majority", "condorcet-winner"):
        assert by_mean[name].low > 0.5, name
        assert by_majority[name].high < 0.1, name
    assert by_mean["unanimity"].applicable > 20
    assert by_mean["unanimity"].high < 0.2  # a mean cannot go against all, but these are other people
    against_all = check_scores(-(new @ mean), held_out)[0]
    assert against_all.violated > 0.9 * against_all.applicable


def test_scores_are_checked_pair_by_pair() -> None:
    """A > B for all, A > C for two of three, B > C for two of three; a reward that ties A and B, and puts C last."""
    profile = people(ABC=2, CAB=1)
    unanimity, majority, top = check_scores(np.array([[1.0, 1.0, 0.0]]), profile)
    assert (unanimity.violated, unanimity.applicable) == (1, 1)
    assert (majority.violated, majority.applicable) == (1, 3)
    assert (top.violated, top.applicable) == (1, 1)
    assert [c.violated for c in check_scores(np.array([[2.0, 1.0, 0.0]]), profile)] == [0, 0, 0]
    assert math.isclose(check_scores(np.array([[0.0, 1.0, 2.0]]), profile)[1].share or 0, 1.0)
