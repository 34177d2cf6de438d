"""Goals and what is rewarded: nothing that we care about is left out unseen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import seamark as sm
from seamark.aggregation import Charter
from seamark.cli import app
from seamark.errors import InvalidSetting
from seamark.governance.goals import Goal, Goals, InvalidGoals, check_goals, reward_terms
from seamark.simulation import Axes

HONEST = Goal(name="honest", text="Answers are true.", rewarded=("axis:honest",))
KIND = Goal(name="kind", text="Nobody is hurt.", watched=("patch/harm",))
OPEN = Goal(name="lively", text="It is a pleasure to read.")
TERMS = ("axis:honest", "style")


def test_R49_a_goal_that_nothing_stands_for_is_an_error() -> None:
    found = {f.code: f for f in check_goals(Goals(goals=(HONEST, KIND, OPEN)), TERMS)}
    assert found["goals/unmapped"].verdict == "blocking"
    assert found["goals/unmapped"].title == "1 of 3 goals has nothing in the reward, and no check watches over it: lively."
    assert found["goals/watched"].verdict == "notice"
    assert "kind" in found["goals/watched"].title
    assert found["goals/unasked"].verdict == "notice"
    assert found["goals/unasked"].title == "1 of 2 terms of the reward is there for no goal: style."
    assert found["goals/absent"].verdict == "ok"
    whole = Goals(goals=(HONEST, Goal(name="neat", text="It is well set out.", rewarded=("style",))))
    assert {f.verdict for f in check_goals(whole, TERMS)} == {"ok"}


def test_R49_a_goal_mapped_to_what_is_not_in_the_reward_is_an_error() -> None:
    found = check_goals(Goals(goals=(HONEST,)), ("overall",))
    absent = found.get("goals/absent")
    assert absent is not None
    assert absent.verdict == "blocking"
    assert "axis:honest (of honest)" in absent.title
    assert "The reward has overall." in (absent.remedy or "")


def test_without_a_reward_the_goals_are_looked_at_alone() -> None:
    found = check_goals(Goals(goals=(HONEST, OPEN)))
    assert [f.verdict for f in found] == ["blocking", "ok", "not_applicable", "not_applicable"]
    assert json.loads(found.to_json())


def test_the_terms_of_a_reward_are_those_that_count() -> None:
    assert reward_terms(charter=Charter()) == ("overall", "style")
    chosen = Charter.model_validate(
        {
            "axes": {"honest": 1.0, "helpful": 0.0},
            "effects": {"style": "discount"},
            "floors": {"groups": {"nurses": -1.0}, "axes": {"harmless": 0.0}},
        }
    )
    assert reward_terms(charter=chosen) == ("axis:honest", "floor:group:nurses", "floor:axis:harmless")
    society = sm.simulate(n_prompts=12, n_responses=3, n_raters=8, n_judgments=300, axes=Axes(("honest", "helpful")), seed=1)
    fit = sm.fit(society.feedback, utility=sm.MultiAxis(sm.Linear(n_columns=8, residual=None)), require_converged=False)
    assert reward_terms(fit) == ("axis:helpful", "axis:honest", "style")
    bare = sm.fit(society.feedback, utility=sm.Tabular(), require_converged=False)
    assert reward_terms(bare) == ("overall",), "a table of responses has no style"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[goals", "Goals are a TOML file"),
        ("title = 'x'", "goals is"),
        ("goals = []", "goals is"),
        ('[[goals]]\nname = "a"\ntext = "A"\nrewardet = []', "unknown key goals.0.rewardet. The nearest known key is rewarded"),
        ('[[goals]]\nname = " "\ntext = "A"', "goals.0.name is ' '"),
        ('[[goals]]\nname = "a"\ntext = "A"\n[[goals]]\nname = "a"\ntext = "B"', "'a' more than once"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "goals.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidGoals, match=said):
        Goals.from_toml(tmp_path / "goals.toml")
    with pytest.raises(InvalidGoals, match="nowhere"):
        Goals.from_toml(tmp_path / "nowhere")


def test_the_command_holds_goals_against_a_charter_or_a_fit(tmp_path: Path) -> None:
    run = CliRunner().invoke
    goals, charter, fit = tmp_path / "goals.toml", tmp_path / "charter.toml", tmp_path / "fit"
    goals.write_text('[[goals]]\nname = "good"\ntext = "People like it."\nrewarded = ["overall"]\n', encoding="utf-8-sig")
    charter.write_text(Charter().to_toml(), encoding="utf-8")
    done = run(app, ["goals", str(goals), str(charter), "--json"])
    assert done.exit_code == 0, done.output
    found = {f["code"]: f["verdict"] for f in json.loads(done.stdout)["findings"]}
    assert found == {"goals/unmapped": "ok", "goals/watched": "ok", "goals/absent": "ok", "goals/unasked": "notice"}
    assert run(app, ["goals", str(goals), str(charter), "--fail-on", "goals/unasked"]).exit_code == 1
    feedback = sm.simulate(n_prompts=10, n_responses=3, n_judgments=200, text=False, seed=2).feedback
    sm.fit(feedback, utility=sm.Tabular(), require_converged=False).save(fit)
    assert run(app, ["goals", str(goals), str(fit), "--charter", str(charter)]).exit_code == 0
    goals.write_text('[[goals]]\nname = "good"\ntext = "People like it."\n', encoding="utf-8")
    assert run(app, ["goals", str(goals)]).exit_code == 1
    with pytest.raises(InvalidSetting, match="a charter already"):
        run(app, ["goals", str(goals), str(charter), "--charter", str(charter)], catch_exceptions=False)


def test_the_goals_on_the_page_of_findings_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    block = page.split("### goals\n")[1].split("```toml\n")[1].split("```")[0]
    (tmp_path / "goals.toml").write_text(block, encoding="utf-8")
    found = check_goals(Goals.from_toml(tmp_path / "goals.toml"), reward_terms(charter=Charter()))
    assert not found.blocking
    assert np.isfinite(found[0].estimate or 0.0)
