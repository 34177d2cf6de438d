"""What is looked at besides the alarm rises where a shift was planted, stays where none was, and says why where it cannot be told."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sentences import assert_written

import seamark as sm
from seamark.checks import check_alarm
from seamark.checks.findings import Finding, Findings
from seamark.checks.foresight import FORESEEN, _Way
from seamark.reward.alarm import drift, growth, outlier_index
from seamark.reward.policies import Pool, best_of_n_shares
from seamark.simulation.overoptimisation import TextWorld, draw_text_world

PLAIN = {"people": sm.Same(), "observation": sm.Observation(effects=()), "require_converged": False}
SIGNALS = ("optimisation/outliers", "optimisation/drift", "optimisation/residual")


def of(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None, code
    return finding


def learned(turns: float, *, n_pairs: int = 4000) -> tuple[TextWorld, sm.Fit]:
    world = draw_text_world(seed=2, turns=turns, n_prompts=16, n_responses=40, n_pairs=n_pairs)
    return world, sm.fit(world.feedback, utility=sm.Linear(n_columns=32, residual=False), **PLAIN)


@pytest.fixture(scope="module")
def too_long() -> tuple[TextWorld, sm.Fit]:
    """Longer is better up to a length, beyond which it costs."""
    return learned(1.0)


def lengths(world: TextWorld) -> np.ndarray:
    return world.feedback.responses["text"].str.len_chars().log().to_numpy()


def test_following_length_leaves_what_was_judged_and_following_chance_does_not(too_long: tuple[TextWorld, sm.Fit]) -> None:
    world, fit = too_long
    said: list[float] = []
    found = check_alarm(fit, world.feedback, scores=lengths(world), progress=lambda _, share: said.append(share))
    assert said == sorted(said)
    assert len(said) > 3
    outliers, moved = of(found, "optimisation/outliers"), of(found, "optimisation/drift")
    assert (outliers.verdict, moved.verdict) == ("notice", "notice")
    assert re.search(r"most of all in log (characters|words per sentence) \(\+2\.\d\d\)", moved.title), moved.title
    assert "that it learned from" in (outliers.reason or "")
    for finding in found:
        assert_written(finding)
    chance = check_alarm(fit, world.feedback, scores=np.random.default_rng(0).normal(size=world.feedback.n_responses))
    for code in SIGNALS[:2]:
        finding = of(chance, code)
        assert finding.verdict == "ok", finding.title
        assert finding.low is not None
        assert finding.low <= float(code == "optimisation/outliers") <= (finding.high or 0)


def test_figures_are_those_of_the_signals_themselves(too_long: tuple[TextWorld, sm.Fit]) -> None:
    """The ratio of the outlier index, and the root mean square of the drift, along best-of-n over the two columns of style that vary here."""
    world, fit = too_long
    found = check_alarm(fit, world.feedback, scores=lengths(world))
    columns = fit.basis.rows_for(world.feedback).columns
    assert columns is not None
    style = columns[:, : len(fit.basis.features.style_names)]  # type: ignore[union-attr]  # it has features
    style = style[:, style.std(0) > 1e-9]
    prompt = world.feedback.responses["prompt"].to_numpy()
    strengths = [row["n"] for row in of(found, "optimisation/alarm").details["curve"]]
    rows = np.bincount(prompt)[prompt] >= 4
    chosen = best_of_n_shares(Pool.of(prompt[rows], lengths(world)[rows], prompt[rows]), strengths) / len(np.unique(prompt))
    index = outlier_index(chosen, style[rows], style)
    values = {code: [row["value"] for row in of(found, code).details["curve"]] for code in SIGNALS[:2]}
    np.testing.assert_allclose(values["optimisation/outliers"], index / index[0])
    np.testing.assert_allclose(values["optimisation/drift"], drift(chosen, style[rows]), atol=0.02)
    assert values["optimisation/drift"][0] == 0


def test_answers_contradict_a_reward_where_more_turns_harmful(too_long: tuple[TextWorld, sm.Fit]) -> None:
    for world, fit, harmful in ((*too_long, True), (*learned(np.inf), False)):
        found = of(check_alarm(fit, world.feedback, scores=lengths(world)), "optimisation/residual")
        assert found.verdict == ("notice" if harmful else "ok"), found.title
        assert found.details["curve"][0]["value"] == 1
        assert "logistic regression" in (found.reason or "")
        assert harmful or (found.low or 2) < 1 < (found.high or 0)
    own = of(check_alarm(fit, world.feedback), "optimisation/residual")
    assert "logistic regression" not in (own.reason or ""), "a fit's utilities are logits as they are"
    assert own.verdict == "ok"


def test_what_cannot_be_told_says_why(too_long: tuple[TextWorld, sm.Fit]) -> None:
    world, fit = too_long
    backwards = of(check_alarm(fit, world.feedback, scores=-world.gold), "optimisation/residual")
    assert "do not follow the scores" in (backwards.reason or "")
    few = world.feedback.filter(np.arange(world.feedback.n_judgments) < 150)
    assert "decide 146 pairs of these" in (of(check_alarm(fit, few), "optimisation/residual").reason or "")
    table = sm.fit(world.feedback, utility=sm.Tabular(), **PLAIN)
    found = check_alarm(table, world.feedback)
    for code in SIGNALS[:2]:
        assert "table of values" in (of(found, code).reason or "")
    assert of(found, "optimisation/alarm").estimate is not None
    none = check_alarm(fit, world.feedback.filter(np.arange(world.feedback.n_judgments) < 5))
    assert {f.code: f.verdict for f in none if f.code in FORESEEN} == dict.fromkeys(FORESEEN, "not_applicable")


def test_intervals_of_what_is_watched_cover() -> None:
    """Best of 4 by a normal reward: the mean of exp(reward / 2) of what is chosen, as a multiple of the start's, over 200 pools of 25 prompts."""
    rng = np.random.default_rng(1)
    many = rng.normal(size=(200_000, 4)).max(1)
    truth = np.exp(many / 2).mean() / np.exp(1 / 8)
    inside = []
    for seed in range(200):
        reward = rng.normal(size=25 * 12)
        pool = Pool.of(np.repeat(np.arange(25), 12), reward, reward)
        way = _Way(pool, [1, 4], best_of_n_shares(pool, [1, 4]), seed)
        _, low, high = way.multiples(lambda keep, chosen, p=pool: growth(chosen, np.exp(p.proxy / 2)[keep[p.prompt]]))[:, 1]
        inside.append(low < truth < high)
    print(f"{np.mean(inside):.3f}")
    assert 0.9 <= np.mean(inside) <= 0.99
