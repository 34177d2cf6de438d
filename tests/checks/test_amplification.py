"""How a bias grows from people to reward to policy is told as it was planted, and nothing is divided by nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sentences import assert_written

import seamark as sm
from seamark.checks.amplification import check_bias_gain
from seamark.checks.optimisation import check_scorers
from seamark.errors import InvalidSetting
from seamark.reward.scorers import Scorer
from seamark.simulation.overoptimisation import draw_text_world


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
    assert [f.verdict for f in found] == ["notice"] * 3


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


def test_people_who_answer_with_noise_are_no_proof_against_the_reward() -> None:
    """A reward that is what people value, without their noise, has a gain, and is not accused for it."""
    rng = np.random.default_rng(5)
    q, x = rng.normal(size=(2, 150, 6))
    feedback, order = judged(q + x, rng, noise=2.0)
    same = check_bias_gain(feedback, (q + x).ravel()[order], x.ravel()[order]).get("bias-gain/reward")
    assert same is not None
    assert (same.low or 0) > 1.1
    assert same.verdict == "notice"
    assert same.remedy is None
    assert "answer with noise" in (same.reason or "")


def test_several_rewards_count_as_their_mean_and_prompts_with_few_responses_do_not_weaken_the_policy() -> None:
    rng = np.random.default_rng(6)
    q, x = rng.normal(size=(2, 60, 6))
    feedback, order = judged(q + x, rng, n=1500)
    one, two, number = (q + x).ravel()[order], (q + 2 * x).ravel()[order], x.ravel()[order]
    each = [check_bias_gain(feedback, reward, number)[0].details["effects"] for reward in (one, two)]
    both = check_bias_gain(feedback, np.stack([one, two], 1), number)[0].details["effects"]
    for who in ("people", "reward", "policy"):
        assert both[who] == pytest.approx((each[0][who] + each[1][who]) / 2)
    prompt = feedback.responses["prompt"].to_numpy()
    few = np.where((prompt == 3) & (np.arange(len(prompt)) != np.flatnonzero(prompt == 3)[:2].max()), np.nan, one)
    few[np.flatnonzero(prompt == 3)[:2]] = 0.0
    found = check_bias_gain(feedback, few, number)[0]
    assert found.details["n"] == 6
    assert found.n == 59
    assert "1 prompt with fewer than 6 responses left out." in (found.reason or "")


def test_each_reward_model_has_a_bias_gain_of_its_own_for_length() -> None:
    """Length pays up to a point: the reward that counts characters takes more of it than gold does."""
    world = draw_text_world(seed=2, turns=0.5, n_prompts=30, n_responses=10, n_pairs=1500)
    worth = dict(zip(world.feedback.responses["text"].to_list(), world.gold.tolist(), strict=True))
    scorers: dict[str, Scorer] = {
        "long": lambda _, texts: [len(text) for text in texts],
        "gold\nprint": lambda _, texts: [worth[text] for text in texts],
    }
    found = check_scorers(scorers, world.feedback, utility=sm.Linear(n_columns=32, residual=False), people=sm.Same())
    said = {f.code: f for f in found if f.code.startswith("bias-gain")}
    assert set(said) == {f"{code}/{name}" for code in ("bias-gain", "bias-gain/reward", "bias-gain/policy") for name in ("long", "gold")}
    long, gold = (said[f"bias-gain/reward/{name}"].estimate for name in ("long", "gold"))
    assert long is not None
    assert gold is not None
    assert long > gold > 0
    assert said["bias-gain/reward/long"].title.startswith("By long: from people to the reward the bias for length is multiplied by ")
    for finding in said.values():
        assert_written(finding)


@pytest.mark.parametrize("wrong", ["reward", "number"])
def test_columns_of_another_length_are_refused(wrong: str) -> None:
    q = np.random.default_rng(4).normal(size=(20, 4))
    feedback, order = judged(q, np.random.default_rng(4), n=50)
    columns: dict[str, Any] = {"reward": q.ravel()[order], "number": q.ravel()[order]} | {wrong: np.zeros(3)}
    with pytest.raises(InvalidSetting, match=f"{wrong} is"):
        check_bias_gain(feedback, columns["reward"], columns["number"])
