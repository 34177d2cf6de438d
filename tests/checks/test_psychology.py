"""Every habit that is planted is found, under its own name and no other; without it nothing is found more often than one time in twenty."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sentences import assert_written

from seamark.checks.findings import Findings
from seamark.checks.psychology import Riddles, check_psychology, check_rationality, own_triples
from seamark.errors import InvalidSetting
from seamark.records import Feedback
from seamark.simulation.psychology import simulate_pairs, simulate_ratings, simulate_riddles

TERMS = ("anchoring", "contrast", "halo", "satisficing")


def found(feedback: Feedback) -> dict[str, Any]:
    findings = check_psychology(feedback)
    findings.to_json()
    for finding in findings:
        assert_written(finding)
    return {f.code.partition("/")[2]: f for f in findings}


@pytest.mark.parametrize("term", TERMS)
def test_N4_each_term_has_a_generator_and_an_estimator_that_finds_it_alone(term: str) -> None:
    planted = {"anchoring": 0.35, "contrast": 0.35, "halo": 0.5, "satisficing": 0.5}[term]
    if term == "satisficing":
        without, with_it = (found(simulate_pairs(satisficing=x, seed=3))[term] for x in (0.0, planted))
        assert with_it.low > 0
        assert with_it.estimate == pytest.approx(planted, abs=0.12)
        assert without.low < 0 < without.high
        return
    with_it = found(simulate_ratings(**{term: planted}, n_axes=2, n_responses=80, seed=4))
    without = found(simulate_ratings(n_axes=2, n_responses=80, seed=4))
    sign = -1 if term == "contrast" else 1
    assert sign * with_it[term].estimate == pytest.approx(planted, abs=0.12)
    assert with_it[term].verdict == "notice"
    assert without[term].verdict == "ok"
    for other in ("anchoring", "contrast", "halo"):
        if other != term:
            assert abs(with_it[other].estimate) < 0.12, f"{term} is not {other}"


@pytest.mark.slow
def test_without_a_habit_little_is_found() -> None:
    """30 data sets without any: intervals leave out 0 in at most 17% for each term (20 raters are few clusters), and the mean is 0."""
    outside: dict[str, list[bool]] = {term: [] for term in TERMS}
    means: dict[str, list[float]] = {term: [] for term in TERMS}
    for seed in range(30):
        findings = found(simulate_ratings(n_axes=2, seed=seed)) | {"satisficing": found(simulate_pairs(seed=seed))["satisficing"]}
        for term in TERMS:
            outside[term].append(not findings[term].low < 0 < findings[term].high)
            means[term].append(findings[term].estimate)
    print({term: (np.mean(outside[term]), np.mean(means[term])) for term in TERMS})
    for term in TERMS:
        assert np.mean(outside[term]) <= 0.17, term
        assert abs(np.mean(means[term])) < 0.03, term


def test_what_the_data_does_not_have_is_said() -> None:
    pairs = found(simulate_pairs(n_raters=8, n_judgments=40))
    assert {t: pairs[t].verdict for t in ("anchoring", "contrast", "halo")} == dict.fromkeys(
        ("anchoring", "contrast", "halo"), "not_applicable"
    )
    ratings = simulate_ratings(n_raters=8, n_responses=30)
    assert found(ratings)["halo"].verdict == "not_applicable", "one axis"
    unordered = Feedback.from_columns({
        "kind": ["rating"] * 240, "outcome": ["answered"] * 240, "ids": [[f"i{k // 8}"] for k in range(240)], "rating": [float(k % 5) for k in range(240)],
        "scale_low": [0.0] * 240, "scale_high": [4.0] * 240, "rater": [f"r{k % 8}" for k in range(240)],
    })  # fmt: skip
    assert "order" in (found(unordered)["anchoring"].reason or "")
    with pytest.raises(InvalidSetting):
        simulate_ratings(anchoring=1.5)


def test_N28_a_planted_irrational_rater_is_found_and_nobody_else() -> None:
    pairs, riddles = (
        simulate_pairs(irrational=1, n_raters=12, n_responses=9, n_judgments=144, seed=5),
        Riddles(**simulate_riddles(neglect=1, fallacy=1, n_raters=12, seed=5)),
    )
    findings = check_rationality(pairs, riddles)
    findings.to_json()
    for finding in findings:
        assert_written(finding)
        assert [row["rater"] for row in finding.details["raters"]] == ["rater 0"], finding.code
        assert finding.verdict == "notice"
    sound = check_rationality(
        simulate_pairs(n_raters=12, n_responses=9, n_judgments=144, seed=6), Riddles(**simulate_riddles(n_raters=12, seed=6))
    )
    assert [finding.details["raters"] for finding in sound] == [[], [], []]
    weight = sound.get("rationality/base-rates")
    assert weight is not None
    assert (weight.low or 0) < 1 < (weight.high or 0), "who follows Bayes' rule has weight 1"


def test_triples_are_those_of_a_plain_loop() -> None:
    feedback = simulate_pairs(n_raters=3, n_responses=5, n_judgments=10, seed=7)
    last: dict[tuple[str, str, str], bool] = {}
    names = feedback.responses["name"].to_list()
    for shown, outcome, rater in feedback.judgments["responses", "outcome", "rater"].iter_rows():
        a, b = (names[r] for r in shown)
        last[(str(rater), a, b)] = outcome == "left"
        last[(str(rater), b, a)] = outcome != "left"
    cycles = total = 0
    for rater in {key[0] for key in last}:
        for i, a in enumerate(names):
            for j, b in enumerate(names[i + 1 :], i + 1):
                for c in names[j + 1 :]:
                    total += 1
                    cycles += last[rater, a, b] == last[rater, b, c] == last[rater, c, a]
    triples = own_triples(feedback)
    assert len(triples.cycle) == total
    assert int(triples.cycle.sum()) == cycles
    nothing = check_rationality(None, None)
    assert isinstance(nothing, Findings)
    assert {f.verdict for f in nothing} == {"not_applicable"}
    assert len(own_triples(feedback.filter(pl.col("rater").is_null() | (pl.col("position") < 1))).cycle) == 0
