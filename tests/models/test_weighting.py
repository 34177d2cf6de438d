"""Weights by age and by exposure: what they are, what they refuse, and that adjusted values are those of people who were not exposed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from seamark import Feedback
from seamark.checks import check_exposure
from seamark.errors import InvalidSetting
from seamark.models import Observation, Tabular, by_age, by_exposure, fit

START = datetime(2024, 1, 1, tzinfo=UTC)
PLAIN = Observation(effects=(), lapse=False)


def test_weights_halve_with_every_half_life():
    days = [0, 10, 20, 30]
    feedback = Feedback.from_arrays(
        left_id=["a"] * 4, right_id=["b"] * 4, outcome=["left"] * 4, time=pl.Series([START + timedelta(days=d) for d in days]),
        weight=[1.0, 1.0, 2.0, 1.0],
    )  # fmt: skip
    recent = by_age(feedback, timedelta(days=10))
    np.testing.assert_allclose(recent.judgments["weight"].to_numpy(), [1 / 8, 1 / 4, 1, 1])
    until = by_age(feedback, timedelta(days=10), at=START + timedelta(days=20))
    np.testing.assert_allclose(until.judgments["weight"].to_numpy(), [1 / 4, 1 / 2, 2])
    with pytest.raises(InvalidSetting, match="positive"):
        by_age(feedback, timedelta(0))
    with pytest.raises(InvalidSetting, match="4 judgments without a time"):
        by_age(Feedback.from_arrays(left_id=["a"] * 4, right_id=["b"] * 4, outcome=["left"] * 4), timedelta(days=1))
    for exposed, propensity, words in (([1], [0.5], "for the 4"), ([0] * 4, [0.5, 2, 0, 0], "probability"), ([0] * 4, [1.0] * 4, "nobody")):
        with pytest.raises(InvalidSetting, match=words):
            by_exposure(feedback, exposed, propensity)


def adapted(seed: int, *, adapts: float, n: int = 4000, items: int = 8) -> tuple[Feedback, Feedback, np.ndarray, np.ndarray]:
    """Votes on items, half of them in the model's style, which one group of raters likes and the other does not; the model shows itself
    mostly to those who like it, and who was shown it likes its style `adapts` logits more. And the same votes without exposure."""
    rng = np.random.default_rng([seed, 94])
    rater = rng.integers(0, 60, n)
    likes = rater % 2 == 0
    propensity = np.where(likes, 0.8, 0.2)
    exposed = rng.random(n) < propensity
    value, style = rng.normal(0, 0.5, items), np.arange(items) % 2
    left = rng.integers(0, items, n)
    right = (left + rng.integers(1, items, n)) % items
    draw = rng.random(n)
    made = []
    for moved in (adapts, 0.0):
        liking = np.where(likes, 0.8, -0.8) + moved * exposed
        gap = value[left] - value[right] + liking * (style[left] - style[right])
        won = draw < 1 / (1 + np.exp(-gap))
        names = {"outcome": ["right", "left"], "response": [str(i) for i in range(items)]}
        made.append(Feedback.from_arrays(left_id=left, right_id=right, outcome=won.astype(np.int8), rater=rater, names=names))
    return made[0], made[1], exposed, propensity


def liking(feedback: Feedback) -> float:
    """By how much the mean item in the model's style is worth more, logits."""
    styled = np.array([int(name) % 2 for name in feedback.responses["name"].to_list()], dtype=bool)
    values = fit(feedback, utility=Tabular(), observation=PLAIN).utilities(feedback)
    return float(values[styled].mean() - values[~styled].mean())


def test_planted_adaptation_biases_naive_not_adjusted():
    """R94: the error of the style's value against the same votes without exposure, over 10 data sets, with the interval of its mean. Leaving out
    the exposed errs the other way, since they are those who like the style."""
    errors, alarms, false = [], 0, 0
    for seed in range(10):
        feedback, without, exposed, propensity = adapted(seed, adapts=1.0)
        truth = liking(without)
        adjusted = by_exposure(feedback, exposed, propensity)
        errors.append([liking(f) - truth for f in (feedback, feedback.filter(~exposed), adjusted)])
        alarms += check_exposure(feedback, exposed, propensity).verdict == "warning"
        false += check_exposure(without, exposed, propensity).verdict == "warning"
    mean, half = np.mean(errors, 0), 2.26 * np.std(errors, 0, ddof=1) / np.sqrt(10)
    assert mean[0] - half[0] > 0.25, (mean, half)
    assert mean[1] + half[1] < -0.25, (mean, half)
    assert abs(mean[2]) < half[2], (mean, half)
    assert half[2] < 0.12
    assert alarms == 10
    assert false <= 2  # of 10 at 5%
