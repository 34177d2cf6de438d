"""A repair helps what it is for and harms nothing else; one that is wrong on purpose is called worse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.findings import Findings
from seamark.checks.repairs import Plan, Repair, check_repair, read_step, repair
from seamark.cli import app
from seamark.errors import InvalidSetting
from seamark.models.effects import Leniency, Position
from seamark.records import Feedback
from seamark.simulation import Society

PLAIN = sm.Observation(effects=(), lapse=False)
"""As most trainers fit: Bradley & Terry."""
UTILITY = sm.Linear(n_columns=64, residual=False)
CLEAN = {
    "n_prompts": 200, "n_responses": 4, "n_judgments": 1600, "n_raters": 40, "groups": 1, "tie": None, "careless": 0.0, "opposed": 0.0,
    "position": 0.0, "length": 0.0, "lapse": 0.0,
}  # fmt: skip


def planted(seed: int = 3, **defect: Any) -> Society:
    return sm.simulate(**(CLEAN | {"seed": seed} | defect))


def repaired(society: Society, *operations: Any, feedback: Feedback | None = None, checks: bool = False) -> Repair:
    found = repair(feedback or society.feedback, operations, utility=UTILITY, observation=PLAIN, gold=society.truth.value, checks=checks)
    print(f"{found}\n")
    return found


def row(found: Repair, name: str) -> Any:
    return next(r for r in found.rows if r.name == name)


def by_length(plan: Plan) -> Plan:
    """Everything relabelled: the longer one wins."""
    characters = plan.learn.responses["text"].str.len_chars().to_numpy()
    shown = np.array(plan.learn.judgments["responses"].to_list())
    winner = pl.Series("outcome", np.where(characters[shown[:, 0]] > characters[shown[:, 1]], "left", "right"))
    return replace(
        plan, learn=replace(plan.learn, judgments=plan.learn.judgments.with_columns(winner.cast(plan.learn.judgments["outcome"].dtype)))
    )


def copied(society: Society, times: int = 15) -> tuple[Feedback, int]:
    """The judgments, some of which are turned round and stand there many times, as a broken export would leave them."""
    frame = society.feedback.judgments
    rows = np.random.default_rng(0).choice(len(frame), 100, replace=False)
    outcome = pl.col("outcome").cast(pl.String).replace({"left": "right", "right": "left"}).cast(frame["outcome"].dtype)
    wrong = frame[rows].with_columns(outcome)
    many = [wrong.with_columns(id=pl.lit(None, dtype=pl.String)) if "id" in frame.columns else wrong] * times
    return replace(society.feedback, judgments=pl.concat([frame, *many])), 100 * (times - 1)


def test_R58_discounting_style_takes_a_planted_love_of_length_out() -> None:
    found = repaired(planted(length=1.5), "discount:style")
    assert row(found, "length").verdict == "better"
    assert row(found, "length").after < row(found, "length").before / 2
    assert row(found, "accuracy").verdict == "better"
    assert row(found, "regret").verdict == "better"
    assert not found.worse


def test_R58_reweighting_takes_raters_at_chance_out() -> None:
    found = repaired(planted(careless=0.4), "reweight")
    chance = row(found, "at-chance")
    assert chance.before > 0.2
    assert chance.after < 0.6 * chance.before
    assert chance.verdict == "better"
    assert row(found, "log-loss").verdict == "better"
    assert not found.worse


def test_R58_reweighting_takes_repeats_out() -> None:
    society = planted()
    feedback, n = copied(society)
    found = repaired(society, "reweight:duplicates", feedback=feedback)
    assert row(found, "repeated").before == pytest.approx(n / feedback.n_judgments, rel=0.1)
    assert row(found, "repeated").after == 0
    assert row(found, "accuracy").verdict == "better"
    assert not found.worse


@pytest.mark.slow
def test_R58_relabelling_takes_reversed_labels_out() -> None:
    """Responses are far enough apart that a label which is the wrong way round shows."""
    society = planted(reversed_labels=0.2, spread=4.0, n_judgments=2000)
    found = repaired(society, "relabel")
    frame = found.plan.learn.judgments.select("responses", "outcome", pl.col("weight").fill_null(1.0))
    shown = np.array(frame["responses"].to_list())
    value, won = society.truth.value, (frame["outcome"].cast(pl.String) == "left").to_numpy()
    probability = 1 / (1 + np.exp(value[shown[:, 1]] - value[shown[:, 0]]))
    against = np.where(won, 1 - probability, probability)
    weight = frame["weight"].to_numpy()
    given = found.start.learn.judgments
    shown = np.array(given["responses"].to_list())
    won = (given["outcome"].cast(pl.String) == "left").to_numpy()
    probability = 1 / (1 + np.exp(value[shown[:, 1]] - value[shown[:, 0]]))
    before, after = np.where(won, 1 - probability, probability).mean(), (weight * against).sum() / weight.sum()
    print(found.plan.notes, f"weight on labels against the truth {before:.3f} to {after:.3f}")
    assert after < before - 0.03
    assert 0.05 < found.plan.flips < 0.3
    assert not found.worse


def test_R58_a_repair_that_is_wrong_on_purpose_is_called_worse() -> None:
    found = repaired(planted(), by_length)
    assert {"accuracy", "log-loss", "calibration", "length", "regret"} <= {r.name for r in found.worse}
    assert not found.better
    findings = check_repair(found, named="by length")
    assert findings[0].verdict == "warning"
    assert findings[0].title.startswith(f"by length makes {len(found.worse)} statistics worse: accuracy")
    assert json.loads(Findings(tuple(findings)).to_json())
    assert {r["verdict"] for r in findings[0].details["statistics"]} == {"worse", "no clear change"}


def test_R58_every_check_is_made_before_and_after() -> None:
    """What was a reward of substance follows length alone after it: the evaluation and the probes both say so."""
    found = repaired(planted(n_prompts=60, n_judgments=800), by_length, checks=True)
    finding = check_repair(found).get("repair/checks")
    assert finding is not None
    assert finding.verdict == "notice"
    table = {check["check"]: check for check in finding.details["checks"]}
    assert finding.n == len(table) > 20
    assert table["accuracy"]["after"] < table["accuracy"]["before"] - 0.05
    turned = {
        code
        for code, check in table.items()
        if (check["verdict_before"], check["verdict"]) in (("ok", "warning"), ("notice", "warning"), ("ok", "notice"))
    }
    print(finding.title, turned)
    assert any(code.startswith("probe/") for code in turned)
    assert any(not code.startswith("probe") for code in turned)
    assert check_repair(replace(found, checks=())).get("repair/checks") is None


@pytest.mark.slow
def test_R58_a_repair_of_what_is_not_broken_changes_nothing_for_sure() -> None:
    found = repaired(planted(), "penalise", "abstain:0.05", "reweight:prompts")
    assert not found.worse
    assert check_repair(found)[0].verdict in ("notice", "ok")


@pytest.mark.slow
def test_without_gold_the_held_out_judgments_are_and_what_they_cannot_see_is_said() -> None:
    """Where raters love length, a reward that discounts it agrees less with raters: worse, by the only gold there is."""
    society = planted(length=1.5)
    found = repair(society.feedback, ["discount:style"], utility=UTILITY, observation=PLAIN, checks=False)
    print(found)
    assert found.gold == "the held-out signal"
    assert row(found, "accuracy").verdict == "worse"
    assert row(found, "length").verdict == "better"
    lines = str(found).splitlines()
    assert lines[0].split() == ["before", "after", "change"]
    assert lines[1].startswith("accuracy ")
    assert lines[1].endswith("worse")


def test_abstaining_costs_coverage() -> None:
    found = repaired(planted(n_judgments=600), "abstain:0.6")
    assert row(found, "coverage").after < row(found, "coverage").before == 1
    assert row(found, "coverage").verdict == "worse"


def test_effects_that_are_discounted_enter_the_observation() -> None:
    plan = Plan(planted(n_judgments=200).feedback, UTILITY, observation=PLAIN)
    for name, effect in (("position", Position), ("leniency", Leniency)):
        assert read_step(f"discount:{name}")(plan).observation.with_effect(effect)  # type: ignore[union-attr]  # it has one
    usual = read_step("discount:position")(replace(plan, observation=sm.Observation()))
    assert usual.notes == ("position was taken out already",)
    for wrong in ("mend", "abstain:2", "penalise:-1", "discount", "abstain:x"):
        with pytest.raises(InvalidSetting, match="with"):
            read_step(wrong)
    with pytest.raises(InvalidSetting, match="block of length and style"):
        read_step("discount:style")(replace(plan, utility=sm.Tabular()))


def test_a_table_of_values_is_repaired_too() -> None:
    society = sm.simulate(n_responses=12, n_prompts=10, text=False, n_judgments=900, n_raters=30, careless=0.4, tie=None, seed=1)
    found = repair(society.feedback, ["reweight"], utility=sm.Tabular(), observation=PLAIN, gold=society.truth.value, checks=False)
    print(found)
    assert row(found, "at-chance").after < row(found, "at-chance").before
    assert any("length" in why for why in found.absent)
    with pytest.raises(InvalidSetting, match="Give one number"):
        repair(society.feedback, ["reweight"], gold=np.zeros(3))
    with pytest.raises(InvalidSetting, match="at least one"):
        repair(society.feedback, [])


def test_the_command_repairs_and_writes(tmp_path: Path) -> None:
    society = planted(careless=0.3, n_judgments=400, n_prompts=30)
    society.feedback.to_jsonl(tmp_path / "prefs.jsonl")
    arguments = [
        "repair",
        str(tmp_path / "prefs.jsonl"),
        "--with",
        "reweight",
        "--with",
        "discount:style",
        "--plain",
        "--out",
        str(tmp_path / "mended"),
    ]
    run = CliRunner().invoke(app, [*arguments, "--json", "--fail-on", "repair/at-chance<0"])
    codes = [f["code"] for f in json.loads(run.stdout)["findings"]]
    assert codes[0] == "repair"
    assert {"repair/at-chance", "repair/checks"} <= set(codes)
    assert "stopped by --fail-on" in run.stderr
    assert (tmp_path / "mended" / "fit.json").exists()
    assert sm.Charter.from_toml(tmp_path / "mended" / "charter.toml").effects.style == "discount"
    run = CliRunner().invoke(app, ["repair", str(tmp_path / "prefs.jsonl"), "--with", "mend"])
    assert isinstance(run.exception, InvalidSetting)
    assert "--with" in str(run.exception)


def test_groups_that_the_whole_is_large_enough_for_are_repaired_from_a_part(tmp_path: Path) -> None:
    """The size that a group takes was chosen for all judgments, of which seven tenths are learned from."""
    sm.simulate(n_prompts=40, n_judgments=600, n_raters=30, groups=2, seed=1).feedback.to_jsonl(tmp_path / "prefs.jsonl")
    run = CliRunner().invoke(app, ["repair", str(tmp_path / "prefs.jsonl"), "--with", "penalise", "--utility", "tabular", "--json"])
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    assert json.loads(run.stdout)["findings"][0]["code"] == "repair"
