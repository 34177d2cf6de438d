"""Criteria that mean something, criteria that conflict, principles that a group opposes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import seamark as sm
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.constitution import (
    check_conflicts,
    check_criteria,
    check_principles,
    conflict_matrix,
    conflicts,
    principle_support,
    require_defined,
)
from seamark.governance.registers import Criterion, Principle, Register
from seamark.records import Feedback
from seamark.simulation.settings import Axes
from seamark.sources import load

DEFINED = Register(
    criteria=(
        Criterion(axis="helpful", version=1, definition="Does what was asked.", authors=("Ana",), guidelines=("g1",)),
        Criterion(axis="harmless", version=2, definition="Hurts nobody.", authors=("Ben",), guidelines=("g2",)),
    )
)


def get(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None, code
    return finding


def pairs(*rows: tuple[Any, ...]) -> Feedback:
    """Pairs from (rater, axis, left, right, outcome), one prompt."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("rater", "axis", "left", "right", "outcome"))}
    texts = list(zip(columns.pop("left"), columns.pop("right"), strict=True))
    return Feedback.from_columns(
        {"kind": ["pair"] * len(rows), "prompt": ["Why?"] * len(rows), "texts": [list(t) for t in texts], **columns}
    )


# ---------------------------------------------------------------------------------------------- N18: definitions


def test_N18_an_axis_without_a_definition_is_blocking() -> None:
    data = pairs(("1", "helpful", "a", "b", "left"), ("1", "honest", "a", "b", "left"), ("2", "honest", "a", "b", "left"))
    found = get(check_criteria(DEFINED, data), "criteria/undefined")
    assert (found.verdict, found.estimate, found.n, found.details["undefined"]) == ("blocking", 1.0, 2, {"honest": 2})
    assert "honest (2 judgments)" in found.title
    only = get(check_criteria(DEFINED, data.filter(pl.col("axis") == "helpful")), "criteria/undefined")
    assert (only.verdict, only.details["versions"]) == ("ok", {"helpful": 1})


def test_N18_judgments_that_name_no_axis_need_a_definition_too() -> None:
    data = pairs(("1", None, "a", "b", "left"))
    assert get(check_criteria(DEFINED, data), "criteria/undefined").details["undefined"] == {"overall": 1}
    overall = Register(criteria=(Criterion(axis="overall", version=1, definition="Better on the whole.", authors=("Ana",)),))
    assert get(check_criteria(overall, data), "criteria/undefined").verdict == "ok"


def test_N18_collection_does_not_begin_with_an_undefined_criterion() -> None:
    require_defined(DEFINED, ["helpful", "harmless"])
    with pytest.raises(InvalidSetting, match=r"axis is 'honest'\. Define it"):
        require_defined(DEFINED, ["helpful", "honest"])


def test_N18_judgments_under_a_guideline_without_the_definition() -> None:
    rows = [("1", "helpful", "a", "b", "left"), ("1", "harmless", "a", "b", "left"), ("2", "harmless", "a", "b", "left")]
    data = pairs(*rows)
    assert get(check_criteria(DEFINED, data), "criteria/shown").verdict == "not_applicable"
    told = data.judgments.with_columns(pl.Series("guideline_version", ["g1", "g1", "g2"]))
    found = get(check_criteria(DEFINED, Feedback(told, data.responses, data.prompts, data.raters)), "criteria/shown")
    assert (found.verdict, found.estimate, found.n) == ("warning", pytest.approx(1 / 3), 3)
    assert found.details["unseen"] == [{"axis": "harmless", "guideline": "g1", "n": 1}]


# ---------------------------------------------------------------------------------------------- N18: conflict


def naive_conflict(data: Feedback, a: str, b: str) -> tuple[float, float, int, int]:
    """Rate and excess of pairwise judgments by loops over pairs of judgments; and over how many questions."""
    orders: dict[tuple[int, frozenset[int]], dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for prompt, rater, axis, shown, outcome in data.judgments.select("prompt", "rater", "axis", "responses", "outcome").iter_rows():
        if outcome in ("left", "right"):
            orders[prompt, frozenset(shown)][axis].append((rater, shown[0 if outcome == "left" else 1]))
    rates, excesses = [], []
    for found in orders.values():
        cross = [(x, y) for x in found[a] for y in found[b]]
        apart = [(x, y) for x, y in cross if x[0] != y[0]]
        if not cross:
            continue
        rates.append(np.mean([x[1] != y[1] for x, y in apart or cross]))
        within = [[x[1] != y[1] for x, y in itertools.combinations(found[axis], 2) if x[0] != y[0]] for axis in (a, b)]
        if apart and all(within):
            excesses.append(rates[-1] - (np.mean(within[0]) + np.mean(within[1])) / 2)
    return float(np.mean(rates)), float(np.mean(excesses)) if excesses else float("nan"), len(rates), len(excesses)


@pytest.mark.parametrize("seed", range(4))
def test_N18_conflict_agrees_with_loops_over_the_judgments(seed: int) -> None:
    society = sm.simulate(
        n_prompts=5, n_responses=3, n_raters=6, n_judgments=220, axes=Axes(names=("helpful", "harmless"), deviation=1.0), seed=seed
    )
    (found,) = conflicts(society.feedback)
    rate, excess, n, n_excess = naive_conflict(society.feedback, "harmless", "helpful")
    assert found.excess is not None
    assert (found.first, found.second, found.rate.n, found.excess.n) == ("harmless", "helpful", n, n_excess)
    assert found.rate.estimate == pytest.approx(rate, abs=1e-12)
    assert found.excess.estimate == pytest.approx(excess, abs=1e-12)
    assert found.rate.low < rate < found.rate.high


def test_N18_one_rater_per_axis_leaves_the_noise_unknown() -> None:
    (found,) = conflicts(
        pairs(("1", "x", "a", "b", "left"), ("2", "y", "a", "b", "right"), ("1", "x", "a", "c", "tie"), ("2", "y", "a", "c", "left"))
    )
    assert (found.rate.estimate, found.rate.n, found.excess) == (1.0, 1, None)
    finding = check_conflicts(pairs(("1", "x", "a", "b", "left"), ("2", "y", "a", "b", "right")))[0]
    assert "how much of it is noise cannot be told" in finding.title


def test_N18_one_person_alone_still_shows_a_conflict() -> None:
    """Two orders by the same rater are used where a question has no others."""
    (found,) = conflicts(pairs(("1", "x", "a", "b", "left"), ("1", "y", "a", "b", "right")))
    assert (found.rate.estimate, found.excess) == (1.0, None)
    (apart,) = conflicts(pairs(("1", "x", "a", "b", "left"), ("1", "y", "a", "b", "right"), ("2", "y", "a", "b", "left")))
    assert apart.rate.estimate == 0.0


def test_N18_noise_is_not_conflict() -> None:
    """The same values on both axes, careless raters: axes disagree often, and the excess over 20 societies is 0 within its error."""
    excesses, rates = [], []
    for seed in range(20):
        society = sm.simulate(
            n_prompts=15, n_responses=3, n_raters=15, n_judgments=900, careless=0.4, groups=1, disagreement=0.0, position=0.0,
            axes=Axes(names=("helpful", "harmless"), deviation=0.0), seed=seed,
        )  # fmt: skip
        (found,) = conflicts(society.feedback)
        assert found.excess is not None
        rates.append(found.rate.estimate)
        excesses.append(found.excess.estimate)
    assert np.mean(rates) > 0.3
    assert abs(np.mean(excesses)) < 4 * np.std(excesses, ddof=1) / np.sqrt(20)
    assert np.std(excesses, ddof=1) < 0.05


def test_N18_a_planted_conflict_is_found_at_its_size() -> None:
    """The estimate covers the mean of (p_a - p_b)^2 of the society's own probabilities; careless raters are part of p."""
    society = sm.simulate(
        n_prompts=40, n_responses=3, n_raters=40, n_judgments=8000, careless=0.0, opposed=0.0, groups=1, disagreement=0.0, position=0.0, length=0.0,
        axes=Axes(names=("helpful", "harmless"), deviation=1.5), seed=5,
    )  # fmt: skip
    truth: dict[tuple[int, frozenset[int]], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    frame = society.feedback.judgments.with_columns(pl.Series("p", society.truth.probabilities[:, :2].tolist()))
    for prompt, axis, shown, (left, right) in frame.select("prompt", "axis", "responses", "p").iter_rows():
        first = left / (left + right)
        truth[prompt, frozenset(shown)][axis].append(first if shown[0] < shown[1] else 1 - first)
    planted = np.mean([(np.mean(by["helpful"]) - np.mean(by["harmless"])) ** 2 for by in truth.values() if len(by) == 2])
    finding = check_conflicts(society.feedback)[0]
    assert finding.verdict == "notice"
    assert finding.details["excess_low"] < planted < finding.details["excess_high"]
    assert finding.details["excess_low"] > 0.05
    assert planted > 0.1


def test_N18_the_matrix_of_six_axes_of_stories(real_data: Path) -> None:
    """HANNA: three ratings of each story on six axes; the rate of two axes against plain loops over the ratings."""
    data = load(real_data / "hanna_scores")
    some = data.filter(pl.col("prompt") < 12)
    found = conflicts(some)
    assert len(found) == 15
    axes = ("coherence", "complexity", "empathy", "engagement", "relevance", "surprise")
    matrix = conflict_matrix(found, axes)
    assert np.isnan(np.diag(matrix)).all()
    assert np.array_equal(matrix, matrix.T, equal_nan=True)
    ratings: dict[tuple[int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for prompt, axis, shown, rating in some.judgments.select("prompt", "axis", "responses", "rating").iter_rows():
        ratings[prompt, axis][shown[0]].append(rating)
    rates = []
    for prompt in range(12):
        a, b = ratings[prompt, "relevance"], ratings[prompt, "empathy"]
        for i, j in itertools.combinations(sorted(a), 2):
            up_a, up_b = (np.sign(np.subtract.outer(x[i], x[j])).ravel() for x in (a, b))
            up_a, up_b = up_a[up_a != 0], up_b[up_b != 0]
            if len(up_a) and len(up_b):
                rates.append(float((up_a[:, None] != up_b[None, :]).mean()))
    assert matrix[2, 4] == pytest.approx(np.mean(rates), abs=1e-12)
    assert 0.3 < matrix[2, 4] < 0.5


def test_without_two_axes_there_is_nothing_to_compare() -> None:
    assert check_conflicts(pairs(("1", "x", "a", "b", "left")))[0].verdict == "not_applicable"


# ---------------------------------------------------------------------------------------------- R98: principles


def votes(*rows: tuple[str, str, str | None, bool | None]) -> Feedback:
    """Thumbs from (voter, principle, group, thumb); None passes."""
    return Feedback.from_columns({
        "kind": ["thumbs"] * len(rows), "rater": [r[0] for r in rows], "ids": [[r[1]] for r in rows], "group": [r[2] for r in rows],
        "thumb": [r[3] for r in rows], "outcome": ["answered" if r[3] is not None else "skipped" for r in rows], "target": ["principle"] * len(rows),
    })  # fmt: skip


def test_R98_a_principle_that_a_groups_majority_opposes_is_listed_with_n_and_interval() -> None:
    city = [(f"c{i}", "open data", "city", i < 18) for i in range(20)]
    land = [(f"l{i}", "open data", "land", i < 2) for i in range(12)]
    few = [(f"l{i}", "short words", "land", False) for i in range(9)]
    data = votes(*city, *land, *few, ("l12", "open data", "land", None))
    register = Register(principles=(Principle(id="open data", text="Data should be open.", authors=("Ana", "Ben")),))
    found = check_principles(data, register)
    opposed = get(found, "principles/opposed")
    assert (opposed.verdict, opposed.estimate, opposed.n) == ("warning", 1.0, 2)
    assert "open data by land (17% [5%, 45%] agree, n = 12)" in opposed.title
    rows = {(row["principle"], row["group"]): row for row in opposed.details["support"]}
    assert rows["open data", "land"]["authors"] == ["Ana", "Ben"]
    assert rows["open data", "land"]["passed"] == 1
    assert rows["open data", "land"]["opposed"]
    assert not rows["open data", "city"]["opposed"]
    assert not rows["short words", "land"]["opposed"]  # nine voters: too few to call it a majority
    authors = get(found, "principles/authors")
    assert (authors.verdict, authors.details["anonymous"]) == ("notice", ["short words"])


def test_R98_the_last_vote_counts_once() -> None:
    data = votes(*[(f"v{i}", "p", "g", True) for i in range(10)], *[(f"v{i}", "p", "g", False) for i in range(10)])
    (support,) = principle_support(data)
    assert (support.n, support.share, support.opposed) == (10, 0.0, True)


def test_R98_without_votes_it_says_so() -> None:
    assert check_principles(pairs(("1", "x", "a", "b", "left")))[0].verdict == "not_applicable"


def test_R98_statements_of_a_real_conversation_that_a_group_opposes(real_data: Path) -> None:
    """Polis: per statement and opinion group, counted anew from the votes' own table; Wilson's interval written out."""
    data = load(real_data / "polis")
    people = pl.read_parquet(real_data / "polis" / "participants.parquet").select("conversation", "participant", "group_id")
    group = {(conversation, person): g for conversation, person, g in people.unique(["conversation", "participant"], keep="first").rows()}
    last: dict[tuple[str, int, int], int] = {}
    votes = pl.read_parquet(real_data / "polis" / "votes.parquet").sort("timestamp", maintain_order=True)
    for conversation, _, comment, voter, vote in votes.iter_rows():
        last[conversation, comment, voter] = vote
    counted: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for (conversation, comment, voter), vote in last.items():
        g = group.get((conversation, voter))
        counted[f"{conversation}/{comment}", "" if g is None else f"{conversation}/{g}"][{1: 0, -1: 1, 0: 2}[vote]] += 1
    support = {(s.principle, s.group): s for s in principle_support(data)}
    opposed = set()
    for key, s in support.items():
        yes, no, passed = counted[key]
        assert (s.n, s.n_passed) == (yes + no, passed), key
        if s.n:
            assert s.share == yes / s.n
            z2 = 1.959963984540054**2  # Wilson 1927, written out
            high = (s.share + z2 / (2 * s.n) + np.sqrt(z2 * (s.share * (1 - s.share) / s.n + z2 / (4 * s.n**2)))) / (1 + z2 / s.n)
            assert s.high == pytest.approx(min(1.0, high), abs=1e-9)
            opposed |= {key[0]} if s.n >= 10 and high < 0.5 else set()
    finding = get(check_principles(data), "principles/opposed")
    assert (finding.estimate, finding.n) == (len(opposed), len({principle for principle, _ in support}))
    assert len(opposed) > 50
