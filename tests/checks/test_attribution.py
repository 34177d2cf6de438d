"""The stage where a defect was planted loses most."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seamark.checks.attribution import STAGES, Pipeline, attribute, check_attribution, runs, welfare
from seamark.cli import app
from seamark.errors import InvalidSetting

ORDINARY = Pipeline(
    asked={"group_shares": (0.55, 0.45)}, observed={"position": 0.3, "length": 0.2, "careless": 0.05, "lapse": 0.02},
    represented={"unexplained": 0.1, "n_columns": 32}, optimised=5,
)  # fmt: skip
"""Something is a little wrong at every stage."""
SMALL = {"n_prompts": 36, "n_raters": 12, "n_judgments": 500}
PLANTED: dict[str, Pipeline] = {
    "asked": replace(ORDINARY, asked={"group_shares": (0.97, 0.03)}),
    "observed": replace(ORDINARY, observed={"position": 0.3, "length": 2.5, "careless": 0.05, "lapse": 0.02}),
    "represented": replace(ORDINARY, represented={"unexplained": 0.8, "n_columns": 32}),
    "aggregated": replace(ORDINARY, aggregated={0: 0.0, 1: 1.0}),
    "optimised": replace(ORDINARY, optimised=2),
}


def test_R4_the_stage_of_a_planted_defect_loses_most() -> None:
    stage, stages = "observed", ("observed", "aggregated", "optimised")
    found = attribute(runs(replace(PLANTED[stage], size=SMALL)), stages, seeds=range(2))
    assert {stages[k] for k in found.first} == {stage}
    said = check_attribution(found)
    assert stage in said[0].title
    assert said[0].estimate == 1.0
    assert {f.code for f in said[1:]} == {f"attribution/{name}" for name in stages}
    assert json.loads(said.to_json())


def test_where_nothing_is_lost_no_stage_is_named() -> None:
    said = check_attribution(attribute(lambda _ideal, _seed: 1.0, ("a", "b"), seeds=range(3)))
    assert said[0].title == "No stage loses anything: the ideal version of none gains welfare."
    assert said[0].remedy is None
    assert said[0].estimate == 0.0


def test_R4_the_command_finds_the_planted_stage_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Who has a weight is not who the population is: that is where most is lost."""
    small = ["--prompts", "36", "--raters", "12", "--judgments", "400", "--features", "16", "--societies", "2"]
    asked = ["attribute", *small, "--weights", "0,1", "--population", "0.9,0.1", "--resume", str(tmp_path / "kept"), "--json"]
    first = CliRunner().invoke(app, asked)
    assert first.exit_code == 0, first.output
    findings = {f["code"]: f for f in json.loads(first.stdout)["findings"]}
    assert set(findings) == {"attribution", *(f"attribution/{stage}" for stage in STAGES)}
    assert "Most is lost where it is aggregated" in findings["attribution"]["title"]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    assert len(kept) == 2
    again = CliRunner().invoke(app, asked)
    assert again.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()} == kept
    refused = CliRunner().invoke(app, ["attribute", "--weights", "1,2,3"])
    assert "one number for each of the 2 groups" in str(refused.exception)
    for wrong, said in ((["--plant", "n_prompts=20"], "not how answers are observed"), (["--best-of", "9"], "There are 6 responses")):
        refused = CliRunner().invoke(app, ["attribute", *wrong])
        assert said in str(refused.exception)
    refused = CliRunner().invoke(app, ["attribute", "--asked", "some,most"])
    assert "--asked is 'some,most'" in str(refused.exception)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_R4_a_planted_defect_is_ranked_first_in_19_of_20_societies(stage: str) -> None:
    """12 societies with the defect, beside small ones at every stage; the goal of 95% allows for one of them, by luck."""
    found = attribute(runs(PLANTED[stage]), STAGES, seeds=range(100, 112))
    first = [STAGES[k] for k in found.first]
    print(stage, first.count(stage), dict(zip(STAGES, found.gain.mean(0).round(3).tolist(), strict=True)), found.actual.mean().round(3))
    assert first.count(stage) >= 11, first


def test_R4_gains_that_are_known_are_found() -> None:
    """A pipeline that is a sum: each stage's ideal version gains what it was made to lose, and the ranking has its interval over seeds."""
    loss = {"a": 0.3, "b": 0.1, "c": 0.0}

    def run(ideal: frozenset[str], seed: int) -> float:
        luck = np.random.default_rng(seed).normal(0, 0.05, size=3)
        return 1 - sum(value + x for (name, value), x in zip(loss.items(), luck, strict=True) if name not in ideal)

    found = attribute(run, tuple(loss), seeds=range(30))
    said = check_attribution(found)
    assert said[0].details["first"] == {"a": 30, "b": 0, "c": 0}
    assert said[0].low == pytest.approx(0.886, abs=1e-3)
    for finding, truth in zip(said[1:], loss.values(), strict=True):
        assert finding.low is not None
        assert finding.high is not None
        assert finding.low < 100 * truth < finding.high
    assert [f.verdict for f in said[1:]] == ["notice", "notice", "ok"]
    assert said[0].details["rest"] == pytest.approx(0)
    with pytest.raises(InvalidSetting, match="two or more"):
        attribute(run, ("a",), seeds=range(3))


def test_an_ideal_pipeline_gets_most_of_what_can_be_had() -> None:
    ideal = welfare(replace(ORDINARY, size=SMALL), ideal=frozenset(STAGES), seed=3)
    assert ideal == runs(Pipeline(size=SMALL))(frozenset(), 3), "stages that are ideal are those of the ideal pipeline"
    assert 0.6 < ideal <= 1
