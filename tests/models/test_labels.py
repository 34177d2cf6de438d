"""Nominal labels: the published example, recovery of planted confusion, pooling of raters with few labels, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from test_reproductions import ANAESTHETISTS, PUBLISHED_CLASSES, PUBLISHED_ERROR_RATES

from seamark.errors import InvalidSetting, SeamarkError
from seamark.models.labels import fit_labels
from seamark.records import Feedback


def _labels(item: np.ndarray, rater: np.ndarray, label: np.ndarray, axis: list[str] | None = None) -> Feedback:
    columns = {
        "kind": ["label"] * len(item),
        "ids": [[f"item {i:05d}"] for i in item],
        "rater": [f"rater {r:03d}" for r in rater],
        "label": [str(k) for k in label],
        "outcome": ["answered"] * len(item),
    }
    return Feedback.from_columns(columns | ({"axis": axis} if axis else {}))


def test_dawid_and_skene_1979():
    """All published estimates, to the two decimals given."""
    answers = np.array([[int(c) for c in row] for row in ANAESTHETISTS.split()])
    item, column = np.indices(answers.shape)
    fitted = fit_labels(_labels(item.ravel(), np.array([0, 0, 0, 1, 2, 3, 4])[column.ravel()], answers.ravel()), pseudo=0.0)
    np.testing.assert_allclose(fitted.shares, [0.40, 0.42, 0.11, 0.07], atol=0.005)
    np.testing.assert_allclose(fitted.confusion[:5], PUBLISHED_ERROR_RATES, atol=0.005)
    assert "".join(fitted.classes[k] for k in fitted.posterior.argmax(1)) == PUBLISHED_CLASSES


def _crowd(n_labels: int, n_raters: int = 40, *, n_items: int = 400, seed: int = 0) -> tuple[Feedback, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n_items, p=[0.5, 0.3, 0.2])
    good = rng.uniform(0.5, 0.95, n_raters)
    good[:4] = 1 / 3  # at chance
    item, rater = rng.integers(0, n_items, n_labels), rng.integers(0, n_raters, n_labels)
    right = rng.random(n_labels) < good[rater]
    label = np.where(right, truth[item], (truth[item] + rng.integers(1, 3, n_labels)) % 3)
    return _labels(item, rater, label), truth, good


def test_planted_confusion_is_recovered():
    """40 raters with 200 labels each: accuracies within 3.3 binomial standard errors, 34 items in 35 right."""
    feedback, truth, good = _crowd(8000)
    fitted = fit_labels(feedback)
    order = [int(name.split()[1]) for name in feedback.responses["name"].to_list()]
    assert (fitted.posterior.argmax(1) == truth[order]).mean() > 0.97
    raters = [int(name.split()[1]) for name in fitted.accuracy["rater"].to_list()]
    error = fitted.accuracy["accuracy"].to_numpy() - good[raters]
    assert np.abs(error).max() < 3.5 * np.sqrt(0.25 / 200) + 0.02
    inside = (fitted.accuracy["low"].to_numpy() <= good[raters]) & (good[raters] <= fitted.accuracy["high"].to_numpy())
    assert inside.mean() > 0.85
    assert set(np.argsort(fitted.accuracy["accuracy"].to_numpy())[:4]) == {raters.index(r) for r in range(4)}


def test_pooling_helps_where_raters_gave_few_labels():
    """5 labels a rater: matrices of their own fit noise; judged by the crowd, more items come out right (mean of 5 sets)."""
    right = {0.0: 0.0, 5.0: 0.0}
    for seed in range(5):
        feedback, truth, _ = _crowd(1500, n_raters=300, n_items=300, seed=seed)
        order = [int(name.split()[1]) for name in feedback.responses["name"].to_list()]
        for pseudo in right:
            right[pseudo] += (fit_labels(feedback, pseudo=pseudo, max_iterations=5000).posterior.argmax(1) == truth[order]).mean() / 5
    assert right[5.0] > right[0.0] + 0.02


def test_labels_that_answer_several_questions():
    item = np.arange(40) % 10
    axis = ["tone"] * 20 + ["topic"] * 20
    feedback = _labels(item, np.arange(40) % 4, np.arange(40) % 2, axis)
    with pytest.raises(InvalidSetting, match="The labels answer 2 questions"):
        fit_labels(feedback)
    assert fit_labels(feedback, axis="tone").classes == ("0", "1")
    with pytest.raises(SeamarkError, match="labels of 0 classes"):
        fit_labels(feedback, axis="nonsense")
