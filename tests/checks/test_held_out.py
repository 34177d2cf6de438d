"""Losses, slices and the comparison with people against plain loops."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from sentences import assert_written

from seamark.checks.agreement import check_ceiling, left_out
from seamark.checks.calibration import check_calibration
from seamark.checks.comparisons import compare
from seamark.checks.findings import Finding
from seamark.checks.held_out import answered_cells, check_accuracy, check_against_people, check_log_loss, decided_cells
from seamark.intervals import clustered_mean, clustered_share, mean
from seamark.models import Fit, Observation, Tabular, fit, predict
from seamark.records import Feedback

PLAIN = Observation(effects=(), lapse=False)


def judged(n: int = 400, *, n_raters: int = 15, n_items: int = 8, seed: int = 0, **more: list[Any]) -> Feedback:
    """Pairs of items of which the later is mostly better, each judged by several raters."""
    rng = np.random.default_rng(seed)
    rows = [(rng.choice(n_items, 2, replace=False), int(rng.integers(n_raters))) for _ in range(n)]
    wins = [rng.random() < 1 / (1 + math.exp(0.7 * (b - a))) for (a, b), _ in rows]
    return Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "ids": [[f"i{a}", f"i{b}"] for (a, b), _ in rows],
            "outcome": ["left" if w else "right" for w in wins],
            "rater": [f"r{r}" for _, r in rows],
            **more,
        }
    )  # fmt: skip


def chosen_first(n: int = 300, **more: list[Any]) -> Feedback:
    """The same with the winner always listed left, as in chosen / rejected files."""
    feedback = judged(n, seed=1)
    names = feedback.responses["name"].to_list()
    shown = [r if o == "left" else r[::-1] for r, o in feedback.judgments["responses", "outcome"].iter_rows()]
    return Feedback.from_columns({"kind": ["pair"] * n, "ids": [[names[r] for r in s] for s in shown], "outcome": ["left"] * n, **more})


def table(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert_written(finding)
        finding.to_dict()
    return {f.code: f for f in findings}


def log_loss(feedback: Feedback, result: Fit | None = None) -> dict[str, Finding]:
    result = result or fit(feedback, utility=Tabular(), observation=PLAIN)
    return table(check_log_loss(answered_cells(result, feedback, predict(result, feedback))))


# ------------------------------------------------------------------------------------ log loss


def test_the_reference_does_not_know_where_the_chosen_response_is_listed():
    """With every winner on the left, 'left' is no news where the order is not known: the reference is a coin."""
    finding = log_loss(chosen_first())["log-loss"]
    assert finding.verdict == "ok"
    assert finding.details["gain"] == pytest.approx(math.log(2) - finding.estimate, abs=1e-9)  # type: ignore[operator]
    assert finding.details["gain_low"] > 0
    assert "better than" in finding.title
    known = log_loss(chosen_first(order_known=[True] * 300))["log-loss"]  # here it is what people answered
    assert known.details["gain"] == pytest.approx(-math.log(300.5 / 301) - known.estimate, abs=1e-9)  # type: ignore[operator]
    assert "worse than" in known.title
    assert "-" not in known.title.split("judgment, ")[1]


def test_the_reference_pools_mirrored_strengths():
    strength = [1 + i % 2 for i in range(300)]
    feedback = chosen_first(strength=strength, strength_levels=[2] * 300)
    result = fit(feedback, utility=Tabular(), observation=PLAIN)
    cells = answered_cells(result, feedback, predict(result, feedback))
    # four outcomes; the two strengths are equally frequent, and left and right share alike
    assert cells["reference"] == pytest.approx(np.full(len(cells), math.log(4)), abs=1e-6)


def test_ties_keep_their_own_share():
    outcomes = ["left"] * 60 + ["tie"] * 40
    feedback = Feedback.from_columns({"kind": ["pair"] * 100, "ids": [["a", "b"], ["b", "c"]] * 50, "outcome": outcomes})
    result = fit(feedback, observation=PLAIN)
    cells = answered_cells(result, feedback, predict(result, feedback))
    expected = {0: 30.5 / 101.5, 2: 40.5 / 101.5}
    references = sorted({round(float(np.exp(-r)), 9) for r in cells["reference"]})
    assert references == pytest.approx(sorted(expected.values()), abs=1e-8)


def test_stages_of_rankings_are_compared_with_one_in_m():
    n = 60
    feedback = Feedback.from_columns(
        {"kind": ["ranking"] * n, "ids": [["a", "b", "c"]] * n, "outcome": ["answered"] * n, "ranks": [[1, 2, 3], [1, 3, 2]] * (n // 2)}
    )
    result = fit(feedback, observation=PLAIN)
    cells = answered_cells(result, feedback, predict(result, feedback))
    assert {round(float(np.exp(r)), 6) for r in cells["reference"]} == {2.0, 3.0}
    assert table(check_log_loss(cells))["log-loss"].verdict == "ok"


# ------------------------------------------------------------------------------------ slices


def test_slices_count_each_rater_once():
    feedback = judged()
    result = fit(feedback, utility=Tabular(), observation=PLAIN)
    predictions = predict(result, feedback)
    cells = decided_cells(result, feedback, predictions)
    sums: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for rater, count, p, won in zip(cells["rater"], cells["count"], cells["p"], cells["won"], strict=True):
        chosen = max(p, 1 - p)
        hit = won if p >= 0.5 else not won
        for i, value in enumerate((count, count * hit, -count * math.log(p if won else 1 - p), count * 100 * (hit - chosen))):
            sums[rater][i] += value
    each = np.array([[s[1] / s[0], s[2] / s[0], s[3] / s[0]] for s in sums.values()])
    found = table([*check_accuracy(cells, predictions, result), *check_calibration(cells)]) | log_loss(feedback, result)
    for column, code in enumerate(("accuracy/rater", "log-loss/rater", "calibration/rater")):
        finding = found[code]
        assert finding.estimate == pytest.approx(each[:, column].mean())
        assert finding.n == 15
        assert finding.details["p10"] == pytest.approx(np.quantile(each[:, column], 0.1))
        assert "a tenth lie below" in finding.title
        assert len(finding.details["slices"]) == 12
        assert finding.details["slices"][0]["n"] == max(s[0] for s in sums.values())
    assert found["log-loss/rater"].low < found["log-loss"].estimate < found["log-loss/rater"].high  # type: ignore[operator]


def test_deciles_of_units_judged_once_are_left_out():
    """The accuracy of one judgment is 0 or 1: a tenth below 0% and a tenth above 100% says nothing."""
    n = 120
    feedback = judged(n, rater=[f"r{i}" for i in range(n)])
    result = fit(feedback, utility=Tabular(), observation=PLAIN)
    predictions = predict(result, feedback)
    cells = decided_cells(result, feedback, predictions)
    finding = table(check_accuracy(cells, predictions, result))["accuracy/rater"]
    assert finding.n == n
    assert "tenth" not in finding.title
    assert "p10" not in finding.details


def test_a_slice_that_cannot_be_made_is_said_once():
    feedback = chosen_first()
    result = fit(feedback, utility=Tabular(), observation=PLAIN)
    predictions = predict(result, feedback)
    cells = decided_cells(result, feedback, predictions)
    found = table([*check_accuracy(cells, predictions, result), *check_calibration(cells)]) | log_loss(feedback, result)
    assert found["accuracy/rater"].verdict == "not_applicable"
    assert "log-loss/rater" not in found
    assert "calibration/rater" not in found


# ------------------------------------------------------------------------------------ against people


def test_left_out_against_loops():
    """The majority of the other raters of a pair, ties and repeated answers included."""
    rng = np.random.default_rng(0)
    n = 120
    shown = [list(rng.choice(list("abc"), 2, replace=False)) for _ in range(n)]
    outcomes = rng.choice(["left", "right", "tie"], n, p=[0.45, 0.35, 0.2]).tolist()
    raters = [f"r{i}" for i in rng.integers(0, 25, n)]
    feedback = Feedback.from_columns({"kind": ["pair"] * n, "ids": shown, "outcome": outcomes, "rater": raters})
    first: dict[tuple[frozenset[str], str], str | None] = {}
    for pair, outcome, rater in zip(shown, outcomes, raters, strict=True):
        first.setdefault((frozenset(pair), rater), {"left": pair[0], "right": pair[1], "tie": None}[outcome])
    hits, chances = [], []
    for (pair, rater), answer in first.items():
        others = [a for (p, r), a in first.items() if p == pair and r != rater]
        if answer is None or not others:
            continue
        votes = Counter(a for a in others if a is not None)
        k, against = votes[answer], sum(votes.values()) - votes[answer]
        hits.append(0.5 if k == against else float(k > against))
        chances.append((k + 1) / (k + against + 2))
    scored, hit, alike = left_out(compare(feedback))
    assert len(scored) == len(hit) == len(hits)
    assert sorted(hit) == sorted(hits)
    assert sorted(alike) == pytest.approx(sorted(chances))
    assert check_ceiling(feedback).estimate == pytest.approx(np.mean(hits))


def test_the_fit_and_people_predict_the_same_judgments():
    """Many judgments of few pairs: the fit and the majority of the others name the same winner nearly always."""
    feedback = judged(600, n_items=4, n_raters=200)
    result = fit(feedback, utility=Tabular(), observation=PLAIN)
    cells = decided_cells(result, feedback, predict(result, feedback))
    found = table(check_against_people(feedback, cells))
    ahead = found["accuracy/ceiling"]
    assert ahead.unit == "points"
    assert ahead.details["ceiling"] == pytest.approx(check_ceiling(feedback).estimate, abs=1e-12)
    assert ahead.estimate == pytest.approx(100 * (ahead.details["fit"] - ahead.details["ceiling"]))
    assert ahead.low <= 0 <= ahead.high  # type: ignore[operator]
    loss = found["log-loss/ceiling"]
    assert loss.details["fit"] < loss.details["ceiling"] < math.log(2)
    assert loss.estimate == pytest.approx(loss.details["ceiling"] - loss.details["fit"])


def test_without_a_second_rater_there_is_no_ceiling():
    feedback = judged(30, n_items=60, rater=[f"r{i}" for i in range(30)])
    result = fit(feedback, utility=Tabular(), observation=PLAIN, require_identified=False)
    cells = decided_cells(result, feedback, predict(result, feedback))
    for finding in table(check_against_people(feedback, cells)).values():
        assert finding.verdict == "not_applicable"


# ------------------------------------------------------------------------------------ intervals


def test_the_widest_clustering_counts():
    """Ten copies of each value: clustered by where they come from the interval is that of the values, however else they are grouped."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    source = np.repeat(np.arange(50), 10)
    interval, how = clustered_mean(np.repeat(values, 10), {"rater": np.arange(500) % 25, "prompt": source})
    assert how == "interval clustered by prompt"
    plain = mean(values)
    assert (interval.low, interval.high) == pytest.approx((plain.low, plain.high))


def test_few_prompts_are_not_hidden_behind_many_raters():
    """Four prompts that differ, 200 raters who do not: the interval is that of the prompts, or new prompts would seem known."""
    prompt, rater = np.repeat(np.arange(4), 200), np.tile(np.arange(200), 4)
    hits = (np.random.default_rng(0).random(800) < np.array([0.4, 0.6, 0.8, 0.9])[prompt]).astype(float)
    found, how = clustered_share(hits, {"rater": rater, "prompt": prompt})
    assert found.high - found.low > 0.25
    assert "clustered by prompt (only 4)" in how
    same, said = clustered_share((np.arange(800) % 3 > 0).astype(float), {"rater": rater, "prompt": prompt})
    assert "clustered by rater, for these 4 prompts only" in said
    assert same.high - same.low < 0.1
