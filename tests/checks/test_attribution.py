"""The stage where a defect was planted loses most; the bias chain is the one that was worked out."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.attribution import STAGES, Pipeline, attribute, check_attribution, check_bias_gain, runs, welfare
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
    start = time.perf_counter()
    again = CliRunner().invoke(app, asked)
    assert time.perf_counter() - start < 1
    assert again.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()} == kept
    refused = CliRunner().invoke(app, ["attribute", "--weights", "1,2,3"])
    assert "one number for each of the 2 groups" in str(refused.exception)
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


# ---------------------------------------------------------------------------------------------- bias from data to policy


def judged(utility: np.ndarray, rng: np.random.Generator, *, noise: float = 1.0, n: int = 3000) -> tuple[sm.Feedback, np.ndarray]:
    """Pairs of responses to one prompt, (n_prompts, m) utilities, judged with logistic noise; and which response each row is."""
    n_prompts, m = utility.shape
    prompt = np.r_[np.repeat(np.arange(n_prompts), m // 2), rng.integers(n_prompts, size=n)]
    every = np.tile(np.arange(m).reshape(-1, 2), (n_prompts, 1))
    slots = np.vstack([every, [rng.permutation(m)[:2] for _ in range(n)]])
    gap = utility[prompt, slots[:, 0]] - utility[prompt, slots[:, 1]] + noise * rng.logistic(size=len(prompt))
    columns = {
        "kind": ["pair"] * len(prompt), "outcome": np.where(gap > 0, "left", "right").tolist(), "prompt": [f"p{i}" for i in prompt],
        "texts": [[f"{p * m + i}" for i in row] for p, row in zip(prompt, slots, strict=True)],
    }  # fmt: skip
    feedback = sm.Feedback.from_columns(columns, source="judged")
    return feedback, np.array([int(text) for text in feedback.responses["text"].to_list()])


def test_R77_gains_multiply_to_the_end_to_end_effect() -> None:
    """People choose by q + .8 x with logistic noise; the reward is q + 1.6 x without: what of x goes in grows at both steps, as worked out.

    The best of n by q + b x has x at b / sqrt(1 + b^2) times the expected highest of n standard normals: 1.424 of 8, and .564 of 2. People's
    probability of choosing the first at a gap of g is 1 / (1 + exp(-g)), and g is N(0, 2 (1 + b^2)).
    """
    rng = np.random.default_rng(1)
    q, x = rng.normal(size=(2, 300, 8))
    feedback, order = judged(q + 0.8 * x, rng)
    found = check_bias_gain(feedback, (q + 1.6 * x).ravel()[order], x.ravel()[order])
    whole, first, second = found
    assert [f.code for f in found] == ["bias-gain", "bias-gain/reward", "bias-gain/policy"]
    assert whole.estimate == pytest.approx((first.estimate or 0) * (second.estimate or 0))
    effects = whole.details["effects"]
    assert effects["policy"] / effects["people"] == pytest.approx(whole.estimate)
    print(whole.title, first.title, second.title, whole.reason, sep="\n")
    gap = rng.normal(0, np.sqrt(2 * (1 + 0.8**2)), size=400_000)
    by_people = 0.8 / (1 + 0.8**2) * np.mean(gap * np.tanh(gap / 2)) / 2  # E[x_1 - x_2 | gap] = b / (1 + b^2) gap
    share = 1.6 / np.sqrt(1 + 1.6**2)
    truth = {"people": by_people, "reward": share / np.sqrt(np.pi), "policy": share * 1.4236}
    for finding, (to, start) in zip(found, (("policy", "people"), ("reward", "people"), ("policy", "reward")), strict=True):
        assert finding.low is not None
        assert finding.high is not None
        assert finding.low < truth[to] / truth[start] < finding.high
    assert [f.verdict for f in found] == ["notice", "warning", "notice"]


def test_R77_a_reward_that_repeats_the_data_has_a_gain_of_one_and_one_that_discounts_less() -> None:
    """People choose by q + x without noise, and so does the reward: the same choice; one without x carries none."""
    rng = np.random.default_rng(2)
    q, x = rng.normal(size=(2, 120, 6))
    feedback, order = judged(q + x, rng, noise=0.0)
    same = check_bias_gain(feedback, (q + x).ravel()[order], x.ravel()[order])
    assert same.get("bias-gain/reward").estimate == pytest.approx(1)  # type: ignore[union-attr]  # it is there
    blind = check_bias_gain(feedback, q.ravel()[order], x.ravel()[order])
    less = blind.get("bias-gain")
    assert less is not None
    assert less.high is not None
    assert less.high < 1
    assert less.verdict == "ok"


def test_R77_where_the_data_has_no_bias_nothing_is_divided_by_it() -> None:
    rng = np.random.default_rng(3)
    q, x = rng.normal(size=(2, 60, 6))
    feedback, order = judged(q, rng)
    found = check_bias_gain(feedback, q.ravel()[order], x.ravel()[order])
    assert {f.verdict for f in found} == {"not_applicable"}
    assert "no effect that is sure" in (found[0].reason or "")
    flat = check_bias_gain(feedback, q.ravel()[order], np.ones(feedback.n_responses))
    assert "All responses to a prompt have the same length" in (flat[0].reason or "")
    few, rows = judged(q[:5], rng)
    assert "it takes 10" in (check_bias_gain(few, q[:5].ravel()[rows], x[:5].ravel()[rows])[0].reason or "")


@pytest.mark.parametrize("wrong", ["reward", "number"])
def test_columns_of_another_length_are_refused(wrong: str) -> None:
    q = np.random.default_rng(4).normal(size=(20, 4))
    feedback, order = judged(q, np.random.default_rng(4), n=50)
    columns: dict[str, Any] = {"reward": q.ravel()[order], "number": q.ravel()[order]} | {wrong: np.zeros(3)}
    with pytest.raises(InvalidSetting, match=f"{wrong} is"):
        check_bias_gain(feedback, columns["reward"], columns["number"])
