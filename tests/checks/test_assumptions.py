"""Each assumption that is planted wrong is named, and no other; those that hold pass at the size they are tested at; the channel's scores go with its defects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sentences import assert_written
from typer.testing import CliRunner

import seamark as sm
from seamark.checks import check_assumptions, diagnose
from seamark.checks.assumptions import ASSUMPTIONS, check_channel, check_scalar
from seamark.checks.findings import Finding, Findings
from seamark.cli import app
from seamark.models import Observation, Tabular, fit
from seamark.records import Feedback
from seamark.simulation import Drift, Missing, simulate
from seamark.simulation.psychology import simulate_ratings


def found(findings: Findings, name: str) -> Finding:
    finding = findings.get(f"assumption/{name}")
    assert finding is not None, name
    return finding


def tournament(*, cycle: float = 0.0, n: int = 9, votes: int = 12, spread: float = 1.0, seed: int = 0) -> Feedback:
    """Every pair of n items judged so many times: P(i over j) = sigmoid(v_i - v_j + cycle), the cycle added where j comes within half a circle after i."""
    rng = np.random.default_rng(seed)
    value = spread * rng.normal(size=n)
    rows = [(i, j) for i in range(n) for j in range(i) for _ in range(votes)]
    gap = np.array([value[i] - value[j] + cycle * (1 if (j - i) % n <= n // 2 else -1) for i, j in rows])
    won = rng.random(len(rows)) < 1 / (1 + np.exp(-gap))
    return Feedback.from_columns({
        "kind": ["pair"] * len(rows), "ids": [[f"item {i}", f"item {j}"] for i, j in rows], "outcome": ["left" if w else "right" for w in won],
    })  # fmt: skip


# ------------------------------------------------------------------------------------ one scale


def test_R35_a_planted_cycle_is_detected() -> None:
    assert [check_scalar(tournament(cycle=0.8, seed=s), seed=s).verdict for s in range(4)] == ["warning"] * 4
    finding = check_scalar(tournament(cycle=0.8))
    assert_written(finding)
    assert (finding.low or 0) > 1, "more than the upper end of noise"
    assert finding.details["p_second_dimension"] <= 0.05
    assert "noise" in finding.title


@pytest.mark.slow
@pytest.mark.parametrize(("n", "votes", "spread"), [(9, 6, 1.0), (6, 3, 2.0), (12, 2, 0.5)])
def test_R35_transitive_data_passes_at_nominal_size(n: int, votes: int, spread: float) -> None:
    """80 tournaments that follow one scale: p is 0.05 or less in 5% [99%: at most 12.5%], and 0.5 or less in about half; in less where few
    votes make few outcomes, of which many tie."""
    p = np.array(
        [check_scalar(tournament(n=n, votes=votes, spread=spread, seed=s), seed=s).details.get("p_cycles", 1.0) for s in range(80)]
    )
    print(n, votes, spread, (p <= 0.05).mean(), (p <= 0.5).mean())
    assert (p <= 0.05).mean() <= 0.125
    assert (0.35 if votes * n > 20 else 0.0) <= (p <= 0.5).mean() <= 0.65


def test_reversing_cycles_keeps_every_response_s_wins_and_reaches_all_outcomes_alike() -> None:
    """Three items, each pair judged twice: chains visit every outcome with the same wins as often as its answers can be arranged."""
    from seamark.checks.assumptions import _shuffled, _Triangles

    edges = np.array([[0, 2, 1]])  # ij, jl, il of the pairs 01, 02, 12
    asked = np.array([2, 2, 2])
    start = np.array([1, 1, 1])
    table = _Triangles(
        start, asked, np.array([0, 0, 1]), np.array([1, 2, 2]), edges, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 3
    )
    chains = _shuffled(table, np.repeat(start[None], 6000, 0), np.zeros(40, dtype=np.int64), np.random.default_rng(0))
    wins = np.stack([chains[:, 0] + chains[:, 1], 2 - chains[:, 0] + chains[:, 2], 4 - chains[:, 1] - chains[:, 2]], 1)
    assert (wins == [2, 2, 2]).all()
    # (1, 1, 1) can be arranged in 2 * 2 * 2 ways, the two whole cycles in one each
    assert (chains == 1).all(1).mean() == pytest.approx(0.8, abs=0.02)


def test_pairs_decided_once_cannot_tell() -> None:
    finding = check_scalar(tournament(votes=1))
    assert finding.verdict == "not_applicable"
    assert "once" in (finding.reason or "")


# ------------------------------------------------------------------------------------ the ledger


def clean() -> Feedback:
    return simulate(
        n_prompts=60, n_raters=20, n_judgments=2400, groups=1, careless=0.0, opposed=0.0, missing=Missing(cannot_tell=-3.0), seed=1
    ).feedback


def ranked(n: int = 300) -> Feedback:
    """All six pairs of four responses a prompt, answered by one ranking."""
    rng = np.random.default_rng(2)
    rows: list[tuple[int, int, int, bool]] = []
    for k in range(n):
        score = rng.normal(size=4)
        rows += [(k, a, b, bool(score[a] > score[b])) for a in range(4) for b in range(a)]
    return Feedback.from_columns({
        "kind": ["pair"] * len(rows), "prompt": [f"question {k}" for k, *_ in rows], "ids": [[f"{k}/{a}", f"{k}/{b}"] for k, a, b, _ in rows],
        "outcome": ["left" if w else "right" for *_, w in rows],
    })  # fmt: skip


def drifting() -> Feedback:
    """A leaderboard on which the order turns round half-way."""
    rng = np.random.default_rng(3)
    value, n = rng.normal(size=8), 2400
    pairs = np.array([rng.choice(8, 2, replace=False) for _ in range(n)])
    sign = np.where(np.arange(n) < n // 2, 1.0, -0.6)
    won = rng.random(n) < 1 / (1 + np.exp(-sign * (value[pairs[:, 0]] - value[pairs[:, 1]])))
    days = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 12, 31), eager=True, interval="3h").dt.replace_time_zone("UTC")
    return Feedback.from_columns({
        "kind": ["pair"] * n, "ids": [[f"item {a}", f"item {b}"] for a, b in pairs], "outcome": ["left" if w else "right" for w in won],
        "time": days[:n].to_list(), "rater": [f"r{k % 25}" for k in rng.integers(0, 25, n)],
    })  # fmt: skip


def apart() -> Feedback:
    """Two leaderboards that nobody compares."""
    one, two = tournament(n=5, votes=4), tournament(n=5, votes=4, seed=1)
    names = [
        [["a", "b"][k] + one.responses["name"][r] for r in shown]
        for k, f in enumerate((one, two))
        for shown in f.judgments["responses"].to_list()
    ]
    outcomes = [*one.judgments["outcome"].cast(pl.String), *two.judgments["outcome"].cast(pl.String)]
    return Feedback.from_columns({"kind": ["pair"] * len(names), "ids": names, "outcome": outcomes})


def evading() -> Feedback:
    """Close calls are left open far more often."""
    return simulate(
        n_prompts=10,
        n_raters=20,
        n_judgments=2400,
        groups=1,
        spread=2.0,
        careless=0.0,
        opposed=0.0,
        missing=Missing(cannot_tell=-1.5, gap=1.5),
        seed=4,
    ).feedback


PLANTED: dict[str, Any] = {
    "transitivity": lambda: tournament(cycle=0.8), "independence": ranked, "stationarity": drifting, "comparability": apart, "ignorability": evading,
}  # fmt: skip


@pytest.mark.parametrize("name", ASSUMPTIONS)
def test_R113_a_violated_assumption_appears_as_such(name: str) -> None:
    findings = check_assumptions(PLANTED[name]())
    json.loads(findings.to_json())
    for finding in findings:
        if finding.code != "assumption/stationarity":  # read off another check, whose reason begins a sentence with p
            assert_written(finding)
    assert {f.code.partition("/")[2] for f in findings[1:]} == set(ASSUMPTIONS)
    assert found(findings, name).verdict in ("notice", "warning", "blocking"), found(findings, name).title
    assert findings[0].code == "assumption"
    assert name in findings[0].details["in doubt"]
    assert name in findings[0].title
    if name != "transitivity":
        others = set(findings[0].details["in doubt"]) - {name}
        assert not others, f"planted {name} alone"


def test_R113_data_in_which_they_hold_is_not_accused() -> None:
    findings = check_assumptions(clean())
    assert findings[0].verdict == "ok"
    assert set(findings[0].details["in doubt"]) == set()
    assert {"transitivity", "stationarity", "comparability"} <= set(findings[0].details["not contradicted by the data"])


def test_what_cannot_be_computed_says_why_and_other_findings_are_read() -> None:
    bare = Feedback.from_columns({"kind": ["pair"] * 3, "ids": [["a", "b"]] * 3, "outcome": ["left"] * 3})
    for finding in check_assumptions(bare)[1:]:
        if finding.verdict == "not_applicable":
            assert finding.reason, finding.code
    assert found(check_assumptions(bare), "ignorability").verdict == "not_applicable"
    feedback = clean()
    diagnosed = diagnose(feedback)
    read = check_assumptions(feedback, found=diagnosed)
    assert found(read, "stationarity").title == diagnosed.get("change").title  # type: ignore[union-attr]  # it is there
    assert [f.title for f in read] == [f.title for f in check_assumptions(feedback)]
    fitted = fit(feedback, utility=Tabular(), observation=Observation(effects=()), require_converged=False)
    assert "the fit's gap" in (found(check_assumptions(feedback, fitted, found=diagnosed), "ignorability").reason or "")


def test_raters_who_use_a_scale_otherwise_are_seen_in_comparability() -> None:
    even, uneven = (
        found(check_assumptions(simulate_ratings(leniency=x, n_raters=12, n_responses=30)), "comparability") for x in (0.0, 1.5)
    )
    assert even.verdict == "ok"
    assert uneven.verdict == "notice"
    assert uneven.details["scale_use"]["estimate"] == pytest.approx(1.5**2 / (1.5**2 + 1 + 0.49), abs=0.25)


@pytest.mark.slow
def test_real_pairs_made_of_rankings_are_found_not_to_be_independent(real_data: Path) -> None:
    """QA-Feedback: no cycle among its triples; UKPConvArg1, where people answered pair by pair, has them."""
    answers = check_assumptions(sm.load(real_data / "fine_grained_rlhf_dev"))
    finding = found(answers, "independence")
    assert finding.verdict == "warning"
    assert finding.details["cycles"] == 0
    assert finding.details["triples"] > 1000


# ------------------------------------------------------------------------------------ the channel


def score(feedback: Feedback, name: str) -> float:
    finding = check_channel(feedback)
    assert_written(finding)
    scores = finding.details["scores"]
    assert set(scores) == {"reliability", "information", "coverage", "bias", "drift", "missingness"}
    row = scores[name]
    assert row["low"] <= row["estimate"] <= row["high"], name
    return float(row["estimate"])


def society(**settings: Any) -> Feedback:
    usual: dict[str, Any] = {
        "n_prompts": 20,
        "n_raters": 20,
        "n_judgments": 2400,
        "groups": 1,
        "careless": 0.0,
        "opposed": 0.0,
        "spread": 1.5,
        "seed": 6,
    }
    return simulate(**usual | settings).feedback


DEFECTS: dict[str, tuple[str, list[dict[str, Any]], int]] = {
    "reliability": ("careless", [{"careless": c} for c in (0.0, 0.3, 0.7)], -1),
    "information": ("careless", [{"careless": c} for c in (0.0, 0.3, 0.7)], -1),
    "coverage": ("prompts", [{"n_prompts": n} for n in (60, 20, 5)], -1),
    "bias": ("position", [{"position": p} for p in (0.0, 0.6, 1.5)], 1),
    "drift": ("months", [{"n_prompts": 6, "n_judgments": 3000, "drift": Drift(months=6, value_sd=v)} for v in (0.0, 0.2, 0.5)], 1),
    "missingness": ("missing", [{"missing": Missing(cannot_tell=m)} for m in (-5.0, -2.0, -0.5)], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_R5_every_score_of_the_channel_is_monotone_in_its_planted_defect(name: str) -> None:
    what, levels, sign = DEFECTS[name]
    scores = np.array([score(society(**level), name) for level in levels])
    print(name, what, scores.round(3))
    assert (np.diff(sign * scores) > 0).all()


def test_the_command_prints_the_ledger(tmp_path: Path) -> None:
    ranked().to_jsonl(tmp_path / "prefs.jsonl")
    result = CliRunner().invoke(app, ["assumptions", str(tmp_path / "prefs.jsonl"), "--json", "--fail-on", "assumption/independence"])
    assert result.exit_code == 1, result.output
    codes = {f["code"] for f in json.loads(result.stdout)["findings"]}
    assert {"assumption", "channel", *(f"assumption/{n}" for n in ASSUMPTIONS), "psychology/halo", "rationality/transitivity"} <= codes
