"""`evaluate` against planted defects: each must be found under its own code, and a clean society must pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sentences import assert_written

from seamark.checks import model
from seamark.checks.calibration import check_calibration
from seamark.checks.comparisons import compare
from seamark.checks.findings import Finding, Findings
from seamark.checks.held_out import decided_cells
from seamark.checks.model import check_convergence, check_doubts, check_leaderboard, check_rater_reliability, evaluate
from seamark.checks.thresholds import THRESHOLDS
from seamark.models import Bias, Fit, Groups, Leniency, Linear, Observation, Position, Reliability, Tabular, fit, predict
from seamark.records import Feedback
from seamark.simulation import Society, Style, simulate

PLAIN = Observation(effects=(Position(),), lapse=False)
CODES = {
    "accuracy", "accuracy/ceiling", "accuracy/prompt", "accuracy/rater", "baseline", "baseline/coin", "baseline/longer-wins",
    "baseline/shown-first-wins", "brier", "calibration", "calibration/gap", "calibration/reward", "distribution", "calibration/prompt", "calibration/rater", "convergence", "coverage/held-out",
    "direction", "doubts", "leakage", "leakage/near-prompts", "leakage/prompts", "leakage/responses", "length/fitted", "log-loss",
    "log-loss/ceiling", "log-loss/prompt", "log-loss/rater", "position/fitted", "rater-reliability",
    "accuracy/time", "behaviour/click", "behaviour/preference", "calibration/time", "variance-split",
}  # fmt: skip
"""Codes are what machines and the published schema hold on to: a change here is a change for them."""


def _turned(feedback: Feedback, rows: np.ndarray | None = None) -> Feedback:
    """Left and right reversed in some judgments, as when chosen and rejected columns are mixed up."""
    frame = feedback.judgments
    other = frame["outcome"].replace({"left": "right", "right": "left"})
    where = pl.Series(np.ones(frame.height, dtype=bool) if rows is None else rows)
    return replace(feedback, judgments=frame.with_columns(pl.when(where).then(other).otherwise(frame["outcome"]).alias("outcome")))


@pytest.fixture(scope="module")
def clean() -> tuple[Society, Feedback, Feedback, Fit, Findings]:
    society = simulate(n_prompts=80, n_raters=20, n_judgments=2500, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, seed=1)
    train, test = society.feedback.split(by="prompt", seed=0)
    result = fit(train, utility=Linear(n_columns=256))
    return society, train, test, result, evaluate(result, test, train=train)


def _board(seed: int, **settings: Any) -> tuple[Feedback, Feedback]:
    usual = {
        "text": False, "n_prompts": 15, "n_responses": 12, "n_raters": 20, "n_judgments": 1500, "groups": 1, "disagreement": 0.0,
        "careless": 0.0, "opposed": 0.0,
    }  # fmt: skip
    return simulate(**(usual | settings), seed=seed).feedback.split(by="judgment", test=0.3, seed=0)


def _get(findings: Findings, code: str) -> Finding:
    found = findings.get(code)
    assert found is not None, code
    return found


# ------------------------------------------------------------------------------------ a clean society


def test_a_clean_society_has_nothing_blocking(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    findings = clean[-1]
    assert findings.blocking == ()
    assert _get(findings, "direction").verdict == "ok"
    assert _get(findings, "baseline").verdict == "ok"
    assert _get(findings, "rater-reliability").verdict in ("ok", "notice")
    assert _get(findings, "calibration").verdict == "ok"
    assert _get(findings, "log-loss").verdict == "ok"


def test_codes_are_stable(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    codes = [f.code for f in clean[-1]]
    assert set(codes) == CODES
    assert len(codes) == len(set(codes))


def test_every_number_has_an_interval_and_an_n(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    for finding in clean[-1]:
        assert finding.estimate is not None
        assert finding.n is not None
        assert finding.n > 0
        if finding.code == "convergence" or finding.code.startswith(("leakage", "coverage")):
            assert "no interval" in (finding.reason or "")
            continue
        assert finding.low is not None
        assert finding.high is not None
        assert finding.low - 1e-12 <= finding.estimate <= finding.high + 1e-12, finding.code
        assert np.isfinite([finding.estimate, finding.low, finding.high]).all()
    clean[-1].to_json()


def test_sentences_are_sentences(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    for finding in clean[-1]:
        assert_written(finding)


def test_accuracy_is_the_share_of_decided_pairs_called_right(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    _, _, test, result, findings = clean
    (block,) = predict(result, test)
    p, won, count = block.decided()
    expected = (count * ((p > 0.5) == won)).sum() / count.sum()
    finding = _get(findings, "accuracy")
    assert finding.estimate == pytest.approx(expected, abs=1e-12)
    assert finding.n == count.sum()
    loss = -np.log(block.probs[np.arange(len(block.outcome)), block.outcome])
    assert _get(findings, "log-loss").estimate == pytest.approx((block.count * loss).sum() / block.count.sum(), abs=1e-12)


def test_the_baseline_is_the_best_trivial_rule(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    findings = clean[-1]
    rules = {f.code: f.estimate for f in findings if f.code.startswith("baseline/")}
    best = _get(findings, "baseline")
    assert best.estimate == max(rules.values())  # type: ignore[type-var]
    assert rules["baseline/coin"] == 0.5
    assert best.details["gain"] == pytest.approx(_get(findings, "accuracy").estimate - best.estimate, abs=1e-9)  # type: ignore[operator]
    assert best.details["gain_low"] > 0


def test_planted_length_and_position_are_in_their_intervals(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    """1.96 standard errors each, taken 1.7 times wider: false alarms 1e-3."""
    for code, truth in (("length/fitted", 0.4), ("position/fitted", 0.3)):
        finding = _get(clean[-1], code)
        half = (finding.high - finding.low) / 2  # type: ignore[operator]
        assert abs(finding.estimate - truth) < 1.7 * half  # type: ignore[operator]
        assert finding.verdict == "notice"


def test_a_clean_society_is_calibrated(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    """The error is not above what a perfectly calibrated fit shows by more than 3 points."""
    finding = _get(clean[-1], "calibration")
    assert finding.estimate < finding.details["perfect"] + 0.03  # type: ignore[operator]
    assert sum(row["n"] for row in finding.details["bins"]) == finding.n


# ------------------------------------------------------------------------------------ planted defects


def test_reversed_labels_of_one_part_block(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    """The held-out part has chosen and rejected exchanged, the training part has not."""
    _, train, test, result, _ = clean
    findings = evaluate(result, _turned(test), train=train)
    direction = _get(findings, "direction")
    assert direction.verdict == "blocking"
    assert direction.high is not None
    assert direction.high < 0.5
    assert "reversed" in direction.title
    assert direction in findings.blocking


def test_reversed_labels_of_a_training_part_block():
    """Two in three training judgments reversed: the fit learns the wrong direction, and the held-out part says so.

    Reliability is left out, since with it whoever answers the wrong way round is an opposed rater.
    """
    train, test = _board(2)
    rows = np.random.default_rng(0).random(train.n_judgments) < 0.85
    findings = evaluate(fit(_turned(train, rows), observation=PLAIN), test)
    assert _get(findings, "direction").verdict == "blocking"


def test_coin_flips_are_not_reversed_labels():
    """An accuracy about one half, with an interval on both sides of it, is no evidence of a direction."""
    train, test = _board(14, spread=0.0, n_judgments=900)
    findings = evaluate(fit(train, observation=PLAIN), test)
    accuracy = _get(findings, "accuracy")
    assert accuracy.low < 0.5 < accuracy.high  # type: ignore[operator]
    assert _get(findings, "direction").verdict == "not_applicable"


def test_raters_at_chance_block():
    train, test = _board(3, careless=0.7, n_judgments=2000)
    findings = evaluate(fit(train), test)
    finding = _get(findings, "rater-reliability")
    assert finding.verdict == "blocking"
    assert finding.estimate == pytest.approx(0.7, abs=0.15)
    at_chance = [row for row in finding.details["raters"] if row["verdict"] == "at chance"]
    assert len(at_chance) == pytest.approx(14, abs=3)


def test_few_raters_at_chance_do_not_block():
    train, test = _board(4, careless=0.2, n_judgments=2000)
    finding = _get(evaluate(fit(train), test), "rater-reliability")
    assert finding.verdict in ("notice", "warning")
    assert finding.low <= 0.2 <= finding.high  # type: ignore[operator]


def test_less_accurate_than_a_trivial_rule_blocks():
    """Planted 2.5 logits for the first slot, in a fit that does not know about slots: 'shown first wins' does better."""
    train, test = _board(5, position=2.5, tie=None)
    blind = evaluate(fit(train, observation=Observation(effects=(), lapse=False)), test)
    finding = _get(blind, "baseline")
    assert finding.verdict == "blocking"
    assert finding.details["rule"] == "shown first wins"
    assert finding.details["gain_high"] < 0
    knowing = evaluate(fit(train, observation=PLAIN), test)
    assert _get(knowing, "baseline").verdict != "blocking"


def test_too_sure_a_fit_is_not_calibrated():
    """Values blown up five times are caught by the calibration error; the fit as it was is not."""
    train, test = _board(6, n_judgments=2500)
    result = fit(train, observation=PLAIN)
    sure = replace(result, weights=5 * result.weights)
    plain = check_calibration(decided_cells(result, test, predict(result, test)))[0]
    assert plain.verdict == "ok"
    assert plain.details["temperature"][1] < 1 < plain.details["temperature"][2]
    findings = Findings(tuple(check_calibration(decided_cells(sure, test, predict(sure, test)))))
    finding = _get(findings, "calibration")
    assert finding.verdict == "warning"
    assert finding.low is not None
    assert finding.low > 0.1
    heat, cool, hot = finding.details["temperature"]  # the posterior's doubt hides some of the five
    print(f"temperature {heat:.2f} [{cool:.2f}, {hot:.2f}]")
    assert 3.5 < heat < 6.5
    assert cool > 2
    assert hot > heat
    by_rater = _get(findings, "calibration/rater")
    assert by_rater.high < -0.1  # type: ignore[operator]
    assert "less often than predicted" in by_rater.title


def test_new_raters_are_told_from_seen_ones():
    society = simulate(text=False, n_prompts=10, n_responses=10, n_raters=20, n_judgments=1200, groups=1, disagreement=0.0, seed=7)
    seen, new = society.feedback.split(by="rater", test=0.3, seed=0)
    train, test = seen.split(by="judgment", seed=0)
    result = fit(train)
    names = set(test.raters["id"]) | set(new.raters["id"])
    ids = society.feedback.raters["id"]
    held = society.feedback.judgments["rater"].cast(pl.Int64).to_numpy()
    times = test.judgments["time"].to_list() + new.judgments["time"].to_list()
    rows = society.feedback.judgments["time"].is_in(times).to_numpy() & np.isin(held, np.flatnonzero(ids.is_in(list(names)).to_numpy()))
    findings = evaluate(result, society.feedback.filter(rows))
    assert findings.get("accuracy/rater/seen") is not None
    assert findings.get("accuracy/rater/new") is not None
    counts = [_get(findings, f"accuracy/rater/{name}").n or 0 for name in ("seen", "new")]
    assert sum(counts) == _get(findings, "accuracy").n


# ------------------------------------------------------------------------------------ what cannot be computed says so


def test_without_pairs_accuracy_is_of_the_kinds_there_are():
    train, test = _board(8, kinds=("rating", "thumbs"), n_judgments=600)
    findings = evaluate(fit(train, observation=Observation(effects=(Leniency(),))), test)
    assert _get(findings, "accuracy").verdict == "not_applicable"
    assert _get(findings, "baseline").verdict == "not_applicable"
    found = {f.code for f in findings if f.code.startswith("accuracy/") and f.verdict != "not_applicable"}
    assert found == {"accuracy/rating/[1.0, 5.0]", "accuracy/thumbs"}
    assert _get(findings, "accuracy/ceiling").verdict == "not_applicable"
    findings.to_json()


def test_nothing_that_can_be_placed():
    train, _ = _board(9, n_judgments=200)
    foreign = Feedback.from_columns({"kind": ["pair"] * 3, "ids": [["x", "y"]] * 3, "outcome": ["left"] * 3})
    findings = evaluate(fit(train, utility=Tabular(), observation=PLAIN), foreign)
    for code in ("accuracy", "baseline", "log-loss", "calibration", "doubts", "rater-reliability"):
        finding = _get(findings, code)
        assert finding.verdict == "not_applicable"
        assert finding.estimate is None
        assert finding.reason


@pytest.mark.parametrize("kind", ["pair", "ranking", "rating", "thumbs"])
def test_one_held_out_judgment(kind: str):
    """No spread, so no interval: the finding says so instead of an infinite one."""
    train, test = _board(15, kinds=(kind,), n_judgments=300, tie=None)
    findings = evaluate(fit(train, observation=Observation(effects=(Leniency(),))), test.filter(np.arange(len(test)) == 0), train=train)
    for finding in findings:
        assert_written(finding)
        if finding.estimate is not None and finding.low is None:
            assert "no interval" in (finding.reason or "").lower()
    assert "Infinity" not in findings.to_json()


def test_reliability_without_rater_ids_says_why():
    train, _ = _board(10, n_judgments=200)
    nobody = Feedback.from_columns(
        {
            "kind": ["pair"] * 90,
            "ids": [["a", "b"], ["b", "c"], ["a", "c"]] * 30,
            "outcome": ["left", "left", "left", "right", "left", "left"] * 15,
        }
    )
    assert check_rater_reliability(fit(nobody)).reason == "Raters are not known."
    finding = check_rater_reliability(fit(train, observation=PLAIN))
    assert finding.verdict == "not_applicable"
    assert "Reliability" in (finding.reason or "")


def test_doubts_are_separated_by_groups_only():
    settings: dict[str, Any] = {"groups": 2, "disagreement": 1.0}
    train, test = _board(11, **settings)
    apart = _get(evaluate(fit(train, people=Groups(), observation=PLAIN), test), "doubts").details["shares"]
    together = _get(evaluate(fit(train, observation=PLAIN), test), "doubts").details["shares"]
    assert apart["noise_and_disagreement"] is None
    assert apart["noise"] + apart["disagreement"] + apart["ignorance"] == pytest.approx(1, abs=1e-9)
    assert together["noise"] is None
    assert together["disagreement"] is None
    assert together["noise_and_disagreement"] + together["ignorance"] == pytest.approx(1, abs=1e-9)
    assert apart["disagreement"] > 0.03


def test_accuracy_is_reported_by_group():
    train, test = _board(12, groups=2, disagreement=1.0)
    findings = evaluate(fit(train, people=Groups(), observation=Observation(effects=(Reliability(), Position()), lapse=False)), test)
    for measure in ("accuracy", "log-loss", "calibration"):
        parts = [f for f in findings if f.code.startswith(f"{measure}/group/")]
        assert [f.code for f in parts] == [f"{measure}/group/group A", f"{measure}/group/group B"]
        if measure != "calibration":  # the groups make up the whole
            whole = _get(findings, measure)
            assert sum(f.estimate * f.n for f in parts) / sum(f.n for f in parts) == pytest.approx(whole.estimate)  # type: ignore[operator]


# ------------------------------------------------------------------------------------ convergence, thresholds, doubts


def test_convergence_is_a_finding(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    result = clean[3]
    assert _get(clean[-1], "convergence").verdict == "ok"
    for decrement, verdict in ((0.5, "warning"), (2.0, "blocking"), (float("inf"), "blocking"), (float("nan"), "blocking")):
        stuck = replace(result, convergence=replace(result.convergence, converged=False, decrement=decrement))
        finding = check_convergence(stuck)
        assert finding.verdict == verdict
        assert "did not converge" in finding.title
        finding.to_dict()


def test_thresholds_are_where_the_verdict_changes(
    clean: tuple[Society, Feedback, Feedback, Fit, Findings], monkeypatch: pytest.MonkeyPatch
):
    """A number written into a check instead of the table would not move with it."""
    finding = _get(clean[-1], "rater-reliability")
    low = finding.estimate - 1e-9  # type: ignore[operator]
    for name in ("notice", "warning", "blocking"):
        table = replace(THRESHOLDS, raters_at_chance_notice=low, raters_at_chance_warning=2.0, raters_at_chance_blocking=2.0)
        monkeypatch.setattr(model, "THRESHOLDS", replace(table, **{f"raters_at_chance_{name}": low}))
        assert check_rater_reliability(clean[3]).verdict == name
    monkeypatch.setattr(model, "THRESHOLDS", replace(THRESHOLDS, few_judgments=10**6))
    assert "1000000 or more" in (check_rater_reliability(clean[3]).reason or "")


def test_doubts_are_clustered_and_say_so(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    """The interval is that of a mean over prompts, each weighing as much as the doubt of its pairs."""
    _, _, test, result, findings = clean
    finding = _get(findings, "doubts")
    assert "clustered by prompt" in (finding.reason or "")
    assert "n counts distinct pairs" in (finding.reason or "")
    pairs = sorted({(min(a, b), max(a, b)) for a, b in test.judgments["responses"].to_list() if a != b})
    assert finding.n == len(pairs)
    table = result.doubts(result.gaps(test, *np.array(pairs).T))
    weight = (table["p"] * (1 - table["p"])).to_numpy()
    estimate = table["ignorance"].sum() / weight.sum()
    assert finding.estimate == pytest.approx(estimate)
    prompt = test.responses["prompt"].to_numpy()[[a for a, _ in pairs]]
    residual = np.bincount(prompt, table["ignorance"].to_numpy() - estimate * weight)
    k = len(np.unique(prompt))
    se = np.sqrt((residual**2).sum() * k / (k - 1)) / weight.sum()
    assert k == 16
    assert (finding.high - finding.low) / 2 == pytest.approx(2.1314 * se, rel=1e-3)  # type: ignore[operator]  # 97.5% of t with 15 df


def test_doubts_of_rankings_and_ratings_use_what_they_imply():
    for kinds in (("ranking",), ("rating",)):
        train, test = _board(13, kinds=kinds, n_judgments=600)
        finding = check_doubts(fit(train, observation=Observation(effects=(Leniency(),))), test)
        assert finding.verdict == "ok"
        assert finding.n == len({frozenset(pair) for pair in zip(compare(test).left, compare(test).right, strict=True)})
        assert 0 < finding.details["shares"]["ignorance"] < 1


# ------------------------------------------------------------------------------------ judgments that were fitted


def test_what_was_fitted_is_not_held_out(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    """By its fingerprint, by that of the whole data of which a part was fitted, and one by one."""
    society, train, test, result, _ = clean
    part = replace(result, data={**result.data, "part_of": society.feedback.fingerprint})
    for fitted, feedback, given in (
        (result, train, None),
        (part, society.feedback, None),
        (result, society.feedback, train),
        (result, train.filter(np.arange(train.n_judgments) % 2 == 0), train),
    ):
        findings = evaluate(fitted, feedback, train=given)
        leakage = _get(findings, "leakage")
        assert leakage.verdict == "blocking"
        assert leakage.estimate > 0.5  # type: ignore[operator]
        for finding in findings:
            assert finding.code.startswith("leakage") or "eld-out" not in finding.title + str(finding.reason), finding
    assert _get(evaluate(result, test), "leakage").verdict == "not_applicable"


def test_new_raters_on_known_questions_are_no_leak(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    society = clean[0]
    train, test = society.feedback.split(by="rater", test=0.3, seed=0)
    leakage = _get(evaluate(fit(train, observation=PLAIN), test, train=train), "leakage")
    assert leakage.verdict == "not_applicable"
    assert "new raters" in str(leakage.reason)


def test_judgments_that_cannot_be_placed_block():
    train, _ = _board(5)
    elsewhere = simulate(text=False, n_prompts=15, n_responses=12, n_judgments=200, seed=99).feedback
    other = replace(elsewhere, responses=elsewhere.responses.with_columns(pl.format("other {}", "id").alias("id")))
    findings = evaluate(fit(train, utility=Tabular(), observation=PLAIN), other)
    placed = _get(findings, "coverage/held-out")
    assert (placed.verdict, placed.estimate) == ("blocking", 0.0)
    assert "none of 200" in placed.title
    assert _get(findings, "accuracy").verdict == "not_applicable"


def test_judgments_without_the_numbers_that_the_fit_takes_out_are_told():
    train, test = _board(5, style=Style())
    result = fit(train, utility=Tabular(), observation=Observation(effects=(Position(), Bias("length"), Bias("position")), lapse=False))
    column = pl.col("covariate.length")
    third = test.judgments.with_columns(pl.when(pl.int_range(pl.len()) % 3 == 0).then(column))
    for judgments, share, verdict, said in (
        (test.judgments, 1.0, "ok", "All of 450 held-out judgments have length, which the fit takes out (bias by length)."),
        (third, 1 / 3, "warning", "33% of 450 held-out judgments have length"),
        (test.judgments.drop("covariate.length"), 0.0, "warning", "None of 450 held-out judgments have length"),
    ):
        findings = evaluate(result, replace(test, judgments=judgments))
        finding = _get(findings, "coverage/bias/length")
        assert (finding.verdict, finding.estimate, finding.n) == (verdict, share, 450)
        assert finding.title.startswith(said)
        assert ("as if it were average" in finding.title) == (share < 1)
        assert _get(findings, "coverage/bias/position").verdict == "ok"


def test_raters_who_say_nothing_of_each_other_cannot_be_told():
    """Nobody preferred anything: the share at chance would be the prior's, about 10%."""
    judged = Feedback.from_columns(
        {
            "kind": ["pair"] * 200, "prompt": [f"q{i}" for i in range(200)], "texts": [[f"one {i}", f"two {i}"] for i in range(200)],
            "outcome": ["tie"] * 200, "rater": [f"r{i % 12}" for i in range(200)],
        }
    )  # fmt: skip
    finding = _get(evaluate(fit(judged), judged), "rater-reliability")
    assert finding.verdict == "not_applicable"
    assert "prior" in str(finding.reason)


# ------------------------------------------------------------------------------------ leaderboards


def test_a_leaderboard_orders_names_by_utility():
    society = simulate(text=False, n_prompts=15, n_responses=12, n_judgments=2000, careless=0.0, opposed=0.0, seed=4)
    result = fit(society.feedback)
    (finding,) = check_leaderboard(result, society.feedback)
    rows = finding.details["board"]
    assert [row["utility"] for row in rows] == sorted(result.utilities(society.feedback), reverse=True)
    assert all(row["low"] < row["utility"] < row["high"] for row in rows)
    assert sum(row["n"] for row in rows) == 2 * society.feedback.n_judgments
    assert finding.n == 12
    assert rows[0]["name"] in finding.title


def test_models_are_ordered_by_the_mean_of_their_responses(clean: tuple[Society, Feedback, Feedback, Fit, Findings]):
    society, _, _, result, _ = clean
    assert check_leaderboard(result, society.feedback) == []
    models = [[("ada", "ben")[code % 2] for code in shown] for shown in society.feedback.judgments["responses"].to_list()]
    named = replace(society.feedback, judgments=society.feedback.judgments.with_columns(pl.Series("models", models)))
    (finding,) = check_leaderboard(result, named)
    utility = result.utilities(society.feedback)
    shown = np.unique([code for codes in society.feedback.judgments["responses"].to_list() for code in codes])
    expected = {name: utility[shown[shown % 2 == side]].mean() for side, name in enumerate(("ada", "ben"))}
    assert {row["name"]: row["utility"] for row in finding.details["board"]} == pytest.approx(expected)
