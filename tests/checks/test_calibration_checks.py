"""Calibration by gap and level, against the distribution of people's answers, and of the click and the preference behind it, each with a truth planted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sentences import assert_written

from seamark.checks.calibration import check_behaviour, check_brier, check_calibration_by, check_distribution, shares_of
from seamark.checks.findings import Finding, Findings
from seamark.checks.held_out import Cells, decided_cells
from seamark.checks.model import check_variance_split
from seamark.errors import InvalidSetting
from seamark.models import Context, Groups, Observation, Position, Reliability, Tabular, fit, predict
from seamark.models.prediction import Predicted
from seamark.records import Feedback
from seamark.simulation import Contexts, simulate

PLAIN = Observation(effects=(), lapse=False)


def cells_of(p: np.ndarray, yes: np.ndarray, count: np.ndarray) -> Cells:
    """Questions 0, 1, ... with two responses each: so many of `count` preferred the first, of whom p was predicted."""
    parts = []
    for won, n in ((True, yes), (False, count - yes)):
        k = np.arange(len(p))
        right = np.where(won, p, 1 - p)
        parts.append(pl.DataFrame({
            "count": n.astype(float), "rater": np.zeros(len(p), dtype=np.int64), "prompt": k, "group": np.zeros(len(p), dtype=np.int64), "first": 2 * k, "second": 2 * k + 1,
            "p": p, "won": np.full(len(p), won), "loss": -np.log(right), "hit": np.where(p == 0.5, 0.5, right > 0.5), "ordered": np.ones(len(p), dtype=bool),
        }).filter(pl.col("count") > 0))  # fmt: skip
    return Cells(pl.concat(parts), {"rater": ("one",), "prompt": tuple(map(str, range(len(p)))), "group": ("everyone",)})


def drawn(
    rng: np.random.Generator, *, n: int = 400, asked: int = 5, sd: float = 1.2, heat: float = 1.0, scatter: float = 0.0
) -> tuple[Cells, np.ndarray, np.ndarray]:
    """Cells, the true shares pi, and the predicted ones: log odds of pi divided by `heat`, with noise of sd `scatter`."""
    odds = sd * rng.normal(size=n)
    pi = 1 / (1 + np.exp(-odds))
    q = 1 / (1 + np.exp(-(odds / heat + scatter * rng.normal(size=n))))
    count = np.full(n, asked)
    return cells_of(q, rng.binomial(count, pi), count), pi, q


def one(findings: list[Finding] | Findings) -> Finding:
    for finding in findings:
        assert_written(finding)
    Findings(tuple(findings)).to_json()
    return findings[0]


# ------------------------------------------------------------------------------------ against the distribution


@pytest.mark.slow
def test_the_distance_to_the_true_shares_is_found_without_seeing_them() -> None:
    """Of 25 sets of 300 questions with five answers, the root mean square of q - pi lies in 95% of the intervals, and the estimate is unbiased."""
    rng = np.random.default_rng(0)
    held, squared, true = [], [], []
    for _ in range(25):
        cells, pi, q = drawn(rng, n=300, scatter=0.6)
        finding = one(check_distribution(cells, []))
        rms = float(np.sqrt(((q - pi) ** 2).mean()))
        held.append((finding.low or 0) <= rms <= (finding.high or 0))
        squared.append((finding.estimate or 0) ** 2)
        true.append(rms**2)
    print(np.mean(held), np.mean(squared), np.mean(true))
    assert np.mean(held) >= 0.85
    assert np.mean(squared) == pytest.approx(np.mean(true), rel=0.12)


def test_shares_that_are_right_are_called_so_and_too_sure_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    right = one(check_distribution(drawn(rng)[0], []))
    sure = one(check_distribution(drawn(rng, heat=0.4)[0], []))
    assert right.verdict == "ok"
    assert (right.estimate or 0) < 0.05
    assert right.details["explained"] > 0.95
    assert sure.verdict == "warning"
    assert (sure.low or 0) > 0.05
    variation = right.details["total_variation"]
    assert variation["observed"] == pytest.approx(variation["least"], rel=0.05), "few answers scatter about a share that is right"
    crossed = right.details["cross_entropy"]
    assert crossed["own_entropy"] < crossed["estimate"] < crossed["other_raters"], (
        "who knows the shares beats four other raters, not the answers themselves"
    )
    assert crossed["own_entropy"] < crossed["own_entropy_corrected"]


def test_people_who_scatter_about_what_was_predicted_are_seen_as_dispersion() -> None:
    """Beta-binomial answers with rho = 0.2 about the predicted share; and binomial ones."""
    rng = np.random.default_rng(2)
    q, count = rng.uniform(0.3, 0.7, 600), np.full(600, 5)
    for rho in (0.0, 0.2):
        pi = rng.beta(q * 4, (1 - q) * 4) if rho else q
        found = one(check_distribution(cells_of(q, rng.binomial(count, pi), count), [])).details["dispersion"]
        assert found["low"] < rho < found["high"]
        assert found["high"] - found["low"] < 0.15


def test_thumbs_have_shares_as_well_and_few_answers_have_none() -> None:
    rng = np.random.default_rng(3)
    up = rng.random((40, 12)) < 1 / (1 + np.exp(-rng.normal(size=(40, 1))))
    rows = [(i, r) for i in range(40) for r in range(12)]
    feedback = Feedback.from_columns({
        "kind": ["thumbs"] * len(rows), "outcome": ["answered"] * len(rows), "ids": [[f"item {i}"] for i, _ in rows], "thumb": [bool(up[i, r]) for i, r in rows],
        "rater": [f"r{r}" for _, r in rows],
    })  # fmt: skip
    fitted = fit(feedback, utility=Tabular(), observation=PLAIN)
    predictions = predict(fitted, feedback)
    (shares,) = shares_of(decided_cells(fitted, feedback, predictions), predictions)
    assert shares.what == "response"
    assert sorted(shares.observed) == pytest.approx(sorted(up.mean(1)))
    assert one(check_distribution(decided_cells(fitted, feedback, predictions), predictions)).code == "distribution"
    few = cells_of(np.full(10, 0.6), np.full(10, 3), np.full(10, 5))
    assert one(check_distribution(few, [])).verdict == "not_applicable"


# ------------------------------------------------------------------------------------ by bins


def test_a_reward_that_is_wrong_at_one_level_only_is_found_there() -> None:
    """Calibrated everywhere but in the fifth with the highest reward, where it is far too sure."""
    rng = np.random.default_rng(4)
    n = 1500
    level, gap = rng.normal(size=n), 1.5 * rng.normal(size=n)
    top = level > np.quantile(level, 0.8)
    pi = 1 / (1 + np.exp(-np.where(top, 0.1 * gap, gap)))
    cells = cells_of(1 / (1 + np.exp(-gap)), rng.binomial(1, pi), np.ones(n, dtype=int))
    utility = np.column_stack([level + gap / 2, level - gap / 2]).ravel()
    _, by_reward = check_calibration_by(cells, utility)
    assert by_reward.verdict == "warning"
    assert by_reward.details["bins"][-1]["high"] < 0
    assert all(row["low"] < 0 < row["high"] for row in by_reward.details["bins"][:-1])
    assert (by_reward.estimate or 0) < -10
    right = cells_of(1 / (1 + np.exp(-gap)), rng.binomial(1, 1 / (1 + np.exp(-gap))), np.ones(n, dtype=int))
    for finding in check_calibration_by(right, utility):
        assert_written(finding)
        assert finding.verdict == "ok"


def test_brier_is_that_of_its_definition() -> None:
    cells = cells_of(np.array([0.9, 0.2]), np.array([3, 1]), np.array([4, 2]))
    finding = check_brier(cells)
    assert finding.estimate == pytest.approx((3 * 0.01 + 0.81 + 0.64 + 0.04) / 6)
    assert finding.n == 6
    assert_written(finding)


# ------------------------------------------------------------------------------------ the click and the preference


def shown_both_ways(*, position: float, seed: int = 5) -> tuple[Feedback, np.ndarray]:
    """Pairs of 12 items in both orders, and their values in the order of the responses."""
    rng = np.random.default_rng(seed)
    value = 0.7 * rng.normal(size=12)
    rows = [(a, b) for a in range(12) for b in range(12) if a != b for _ in range(12)]
    won = [rng.random() < 1 / (1 + math.exp(-(value[a] - value[b] + position))) for a, b in rows]
    feedback = Feedback.from_columns({
        "kind": ["pair"] * len(rows), "ids": [[f"i{a}", f"i{b}"] for a, b in rows], "outcome": ["left" if w else "right" for w in won],
        "order_known": [True] * len(rows), "rater": [f"r{k % 20}" for k in range(len(rows))],
    })  # fmt: skip
    return feedback, value[[int(name[1:]) for name in feedback.responses["name"]]]


def test_R76_the_click_predicts_clicks_and_the_preference_what_is_preferred() -> None:
    feedback, value = shown_both_ways(position=1.2)
    train, test = feedback.split(by="judgment", test=0.5, seed=1)
    fitted = fit(train, utility=Tabular(), observation=Observation(effects=(Position(),), lapse=False))
    cells = decided_cells(fitted, test, predict(fitted, test))
    worth = dict(zip(feedback.responses["id"], value, strict=True))
    gold = np.array([worth[name] for name in test.responses["id"]])
    for target in (None, gold):
        click, preference = check_behaviour(fitted, test, cells, gold=target)
        for finding in (click, preference):
            assert_written(finding)
        assert (click.low or 0) > 0, "position is part of behaviour"
        assert preference.details["gain_low"] > 0, "and none of what is preferred"
        assert (preference.low or 0) > 0.7
    plain, _ = shown_both_ways(position=0.0)
    fair = fit(plain, utility=Tabular(), observation=PLAIN)
    click, preference = check_behaviour(fair, plain, decided_cells(fair, plain, predict(fair, plain)))
    assert abs(click.estimate or 0) < 0.01, "without a position effect both say the same"
    with pytest.raises(InvalidSetting):
        check_behaviour(fair, plain, decided_cells(fair, plain, predict(fair, plain)), gold=[1.0])


def test_without_both_orders_and_gold_the_preference_has_no_target() -> None:
    feedback, _ = shown_both_ways(position=0.5)
    one_way = feedback.filter(pl.col("responses").list.get(0) < pl.col("responses").list.get(1))
    fitted = fit(one_way, utility=Tabular(), observation=PLAIN)
    assert [f.verdict for f in check_behaviour(fitted, one_way, decided_cells(fitted, one_way, predict(fitted, one_way)))] == [
        "ok",
        "not_applicable",
    ]


# ------------------------------------------------------------------------------------ what gaps vary by


@pytest.mark.parametrize(("deviation", "disagreement"), [(0.8, 0.5), (0.2, 0.9)])
def test_R15_the_shares_of_item_rater_and_context_are_recovered(deviation: float, disagreement: float) -> None:
    """Within five points of the shares in the truth, over the pairs that were asked."""
    society = simulate(
        n_prompts=25, n_judgments=8000, contexts=Contexts(deviation=deviation), disagreement=disagreement, length=0.0, careless=0.0, opposed=0.0, position=0.0, tie=None,
        lapse=0.0, seed=1,
    )  # fmt: skip
    fitted = fit(
        society.feedback,
        utility=Context("pair_type", Tabular()),
        people=Groups("group"),
        observation=Observation(effects=(Reliability(),), lapse=False),
        require_converged=False,
    )
    finding = check_variance_split(fitted, society.feedback)
    assert_written(finding)
    truth, pairs = society.truth, society.feedback.pairs().unique(["left", "right"])

    def squared(v: np.ndarray) -> float:
        return float(((v[pairs["left"].to_numpy()] - v[pairs["right"].to_numpy()]) ** 2).mean())

    parts: dict[str, Any] = {
        "item": squared(truth.value), "context": np.mean([squared(c) for c in truth.context_values.T]),
        "people": np.mean([squared(g - truth.value) for g in truth.value_by_group.T]), "noise of an answer": np.pi**2 / 3,
    }  # fmt: skip
    total = sum(parts.values())
    found = {name: row["share"] for name, row in finding.details["parts"].items()}
    print({name: (round(found[name], 3), round(part / total, 3)) for name, part in parts.items()})
    assert sum(found.values()) == pytest.approx(1)
    for name, part in parts.items():
        assert found[name] == pytest.approx(part / total, abs=0.05), name


def test_who_takes_people_as_alike_is_told_so() -> None:
    feedback, _ = shown_both_ways(position=0.0)
    fitted = fit(feedback, utility=Tabular(), observation=PLAIN)
    assert "Same" in (check_variance_split(fitted, feedback).reason or "")
    assert check_variance_split(replace(fitted, factor=fitted.factor[:, :0]), feedback).verdict == "not_applicable"  # type: ignore[call-overload]  # dense here


def test_names_of_blocks_stay_those_of_predict() -> None:
    """Shares read `Predicted.probs` of thumbs as up first."""
    assert {"probs", "outcome", "count", "shown", "prompt"} <= set(Predicted.__dataclass_fields__)
