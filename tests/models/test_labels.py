"""Nominal labels: the published example, a naive reference, recovery and coverage, pooling, gold, more labels later, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import digamma, softmax
from test_reproductions import ANAESTHETISTS, PUBLISHED_CLASSES, PUBLISHED_ERROR_RATES, dawid_skene

from seamark.errors import InvalidSetting, NotConverged, SeamarkError
from seamark.models.labels import CANNOT_TELL, LabelFit, fit_labels
from seamark.records import Feedback

Array = NDArray[np.float64]


def _labels(
    item: np.ndarray, rater: np.ndarray, label: np.ndarray, axis: list[str] | None = None, changed: dict[str, Any] | None = None
) -> Feedback:
    given = {
        "kind": ["label"] * len(item),
        "ids": [[f"item {i:05d}"] for i in item],
        "rater": [f"rater {r:03d}" for r in rater],
        "label": [str(k) for k in label],
        "outcome": ["answered"] * len(item),
    }
    return Feedback.from_columns(given | ({"axis": axis} if axis else {}) | (changed or {}))


def _order(fitted: LabelFit, feedback: Feedback) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the items and of the raters, in the order of the fit."""
    name = dict(zip(feedback.responses["id"].to_list(), feedback.responses["name"].to_list(), strict=True))
    return np.array([int(name[unit].split()[1]) for unit in fitted.units]), np.array([int(r.split()[1]) for r in fitted.raters])


def _anaesthetists() -> Feedback:
    answers = np.array([[int(c) for c in row] for row in ANAESTHETISTS.split()])
    item, column = np.indices(answers.shape)
    return _labels(item.ravel(), np.array([0, 0, 0, 1, 2, 3, 4])[column.ravel()], answers.ravel())


def _society(n_items: int, per_item: int, n_raters: int, seed: int) -> tuple[Feedback, NDArray[np.int64], Array, Array]:
    """Labels by raters whose rows are Dirichlet(1, 1, 1) with 6 more on the diagonal; classes, matrices (R, 3, 3), shares."""
    rng = np.random.default_rng(seed)
    share = np.array([0.5, 0.3, 0.2])
    pi = np.stack([[rng.dirichlet(1 + 6 * row) for row in np.eye(3)] for _ in range(n_raters)])
    truth = rng.choice(3, n_items, p=share)
    item = np.repeat(np.arange(n_items), per_item)
    rater = np.concatenate([rng.choice(n_raters, per_item, replace=False) for _ in range(n_items)])
    label = (np.cumsum(pi[rater, truth[item]], 1) < rng.random((len(item), 1))).sum(1)
    return _labels(item, rater, label), truth, pi, share


# ---------------------------------------------------------------------------------------------- against the literature and by hand


def test_dawid_and_skene_1979():
    """All published estimates, to the two decimals given, and the naive reference, to the tolerance of the search."""
    fitted = fit_labels(_anaesthetists(), pooling=0.0)
    np.testing.assert_allclose(fitted.shares, [0.40, 0.42, 0.11, 0.07], atol=0.005)
    np.testing.assert_allclose(fitted.confusion[:5], PUBLISHED_ERROR_RATES, atol=0.005)
    assert "".join(fitted.classes[k] for k in fitted.posterior.argmax(1)) == PUBLISHED_CLASSES
    answers = np.array([[int(c) - 1 for c in row] for row in ANAESTHETISTS.split()])
    counts = np.zeros((45, 5, 4))
    for column, observer in enumerate([0, 0, 0, 1, 2, 3, 4]):
        counts[np.arange(45), observer, answers[:, column]] += 1
    share, errors, posterior = dawid_skene(counts)
    np.testing.assert_allclose(fitted.shares, share, atol=1e-5)
    np.testing.assert_allclose(fitted.confusion[:5], errors, atol=1e-5)
    np.testing.assert_allclose(fitted.posterior, posterior, atol=1e-5)
    joint = np.log(share) + np.einsum("iol,ojl->ij", counts, np.log(np.maximum(errors, 1e-12)))
    assert fitted.log_likelihood == pytest.approx(float(np.log(np.exp(joint).sum(1)).sum()), abs=1e-4)


@pytest.mark.parametrize("answer", ["missing", "answer"])
def test_the_pooled_fit_is_what_plain_updates_come_to(answer: Any):
    """Class probabilities and expected logs in turn, unit by unit and label by label, with gold, weights and unknown raters."""
    rng = np.random.default_rng(0)
    item, rater, label, weight = rng.integers(0, 12, 90), rng.integers(0, 5, 90), rng.integers(0, 3, 90), rng.integers(1, 4, 90)
    label = np.where(rng.random(90) < 0.5, item % 3, label)
    outcome = np.where(rng.random(90) < 0.1, "cannot_tell", "answered")
    names = [None if r == 4 else f"rater {r}" for r in rater]
    feedback = _labels(item, rater, label, changed={"outcome": outcome.tolist(), "rater": names, "weight": weight.astype(float)})
    fitted = fit_labels(feedback, cannot_tell=answer, gold={"item 00003": "0", "item 00004": "2"}, tolerance=1e-9)
    items, raters = _order(fitted, feedback)
    alpha, L = fitted.alpha, 4 if answer == "answer" else 3
    assert fitted.labels == (("0", "1", "2", CANNOT_TELL) if answer == "answer" else ("0", "1", "2"))
    cells = [(i, r, 3 if o == "cannot_tell" else k, w) for i, r, k, w, o in zip(item, rater, label, weight, outcome, strict=True)]
    cells = [cell for cell in cells if cell[2] < L]
    q = np.zeros((12, 3))
    for i, _, k, w in cells:
        q[i, : min(k, 3)], q[i] = q[i, : min(k, 3)], q[i] + (w * np.eye(3)[k] if k < 3 else 0)
    q /= q.sum(1, keepdims=True)
    gold = {3: np.eye(3)[0], 4: np.eye(3)[2]}
    for _ in range(400):
        for i, row in gold.items():
            q[i] = row
        N = np.zeros((5, 3, L))
        for i, r, k, w in cells:
            N[r, :, k] += w * q[i]
        log_pi = digamma(N + alpha) - digamma((N + alpha).sum(2, keepdims=True))
        joint = np.tile(np.log(q.mean(0)), (12, 1))
        for i, r, k, w in cells:
            joint[i] += w * log_pi[r, :, k]
        q = softmax(joint, axis=1)
    for i, row in gold.items():
        q[i] = row
    np.testing.assert_allclose(fitted.posterior, q[items], atol=1e-6)
    of = [*raters, 4]
    np.testing.assert_allclose(fitted.counts, N[of], atol=1e-5)
    np.testing.assert_allclose(fitted.confusion, ((N + alpha) / (N + alpha).sum(2, keepdims=True))[of], atol=1e-6)


@pytest.mark.parametrize("pooling", [0.0, 3.0, None])
def test_every_step_raises_the_bound(pooling: float | None):
    """And at the end a plain step moves no class probability by more than the tolerance."""
    feedback, *_ = _society(300, 3, 30, 0)
    fitted = fit_labels(feedback, pooling=pooling, tolerance=1e-8)
    assert np.diff(fitted.history).min() > -1e-9
    again = fit_labels(feedback, pooling=pooling, tolerance=1e-10)
    np.testing.assert_allclose(fitted.posterior, again.posterior, atol=1e-5)
    np.testing.assert_allclose(fitted.confusion.sum(2), 1, atol=1e-12)
    if pooling is not None:
        np.testing.assert_allclose(fitted.alpha.sum(1), pooling, atol=1e-12)


# ---------------------------------------------------------------------------------------------- recovery


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
    """40 raters with 200 labels each: accuracies within 3.5 binomial standard errors, 34 items in 35 right."""
    feedback, truth, good = _crowd(8000)
    fitted = fit_labels(feedback)
    items, raters = _order(fitted, feedback)
    assert (fitted.posterior.argmax(1) == truth[items]).mean() > 0.97
    error = fitted.accuracy["accuracy"].to_numpy() - good[raters]
    assert np.abs(error).max() < 3.5 * np.sqrt(0.25 / 200) + 0.02
    assert set(np.argsort(fitted.accuracy["accuracy"].to_numpy())[:4]) == {raters.tolist().index(r) for r in range(4)}


@pytest.mark.parametrize(
    ("draws", "accuracy", "cells"), [(0, (0.95, 0.995), 0.90), pytest.param(200, (0.925, 0.97), 0.90, marks=pytest.mark.slow)]
)
def test_coverage_of_the_intervals(draws: int, accuracy: tuple[float, float], cells: float):
    """The hard case: 300 raters, 2,000 units, three labels a unit, 20 labels a rater, 9% of the units wrong at best.

    95% intervals, over 5 societies of 300 raters. Found over 20: for accuracy .989 from the information and .949 from draws, which are a fifth
    shorter; for cells of the matrices .931 and .936. Expected class probabilities: .947 against .909 right, .908 from draws.
    """
    held, inside, sure, right = [], [], [], []
    for seed in range(5):
        feedback, truth, pi, share = _society(2000, 3, 300, seed)
        fitted = fit_labels(feedback, draws=draws)
        items, raters = _order(fitted, feedback)
        true = np.einsum("c,rcc->r", share, pi)[raters]
        held.append((fitted.accuracy["low"].to_numpy() <= true) & (true <= fitted.accuracy["high"].to_numpy()))
        for k in range(0, 300, 10):
            mine = fitted.of(fitted.raters[k])
            inside.append((mine.low <= pi[raters[k]]) & (pi[raters[k]] <= mine.high))
        sure.append(fitted.posterior.max(1).mean())
        right.append((fitted.posterior.argmax(1) == truth[items]).mean())
    assert accuracy[0] < np.mean(held) < accuracy[1]
    assert np.mean(inside) > cells
    assert np.mean(sure) - np.mean(right) == pytest.approx(0.0 if draws else 0.038, abs=0.015)


def test_how_raters_differ_is_estimated():
    """Dirichlet(7, 1, 1) and its like, from 20 labels a rater: the whole 9 to a third, the diagonal share 7/9 to .04."""
    feedback, *_ = _society(2000, 3, 300, 1)
    alpha = fit_labels(feedback).alpha
    np.testing.assert_allclose(alpha.sum(1), 9, rtol=0.4)
    np.testing.assert_allclose(np.diag(alpha) / alpha.sum(1), 7 / 9, atol=0.05)


def test_pooling_helps_where_raters_gave_few_labels():
    """5 labels a rater: matrices of their own fit noise; judged by the crowd, more items come out right (mean of 5 sets)."""
    right: dict[float | None, float] = {0.0: 0.0, 5.0: 0.0, None: 0.0}
    for seed in range(5):
        feedback, truth, _ = _crowd(1500, n_raters=300, n_items=300, seed=seed)
        for pooling in right:
            fitted = fit_labels(feedback, pooling=pooling, max_iterations=5000)
            right[pooling] += (fitted.posterior.argmax(1) == truth[_order(fitted, feedback)[0]]).mean() / 5
    assert min(right[5.0], right[None]) > right[0.0] + 0.02


def test_a_rater_without_labels_and_one_not_seen():
    feedback = _anaesthetists()
    more = Feedback.from_columns({"kind": ["label"], "ids": [["item 00000"]], "rater": ["rater 009"], "outcome": ["skipped"]})
    fitted = fit_labels(feedback).add(_labels(np.array([1]), np.array([3]), np.array([3])))
    assert fitted.accuracy["skipped"].sum() == 0
    with pytest.raises(SeamarkError, match="labels of 0 judgments"):
        fitted.add(more)
    both = Feedback.from_columns(
        {"kind": ["label"] * 4, "ids": [["a"], ["a"], ["b"], ["b"]], "rater": ["x", "y", "x", "z"], "label": ["u", "u", "v", None],
         "outcome": ["answered"] * 3 + ["skipped"]}
    )  # fmt: skip
    small = fit_labels(both)
    row = small.accuracy.row(small.raters.index("z"), named=True)
    assert (row["n"], row["accuracy"], row["low"], row["skipped"]) == (0, None, None, 1)
    new, silent = small.of(None), small.of("z")
    np.testing.assert_allclose(new.matrix, silent.matrix, atol=1e-12)
    np.testing.assert_allclose(new.low, silent.low, atol=1e-9)
    assert new.n.sum() == 0
    assert new.to_frame().columns == ["class", "label", "p", "low", "high", "n"]
    with pytest.raises(InvalidSetting, match="none of the 3 raters"):
        small.of("w")
    with pytest.raises(InvalidSetting, match="Without pooling"):
        fit_labels(both, pooling=0).of(None)


# ---------------------------------------------------------------------------------------------- gold, and those who cannot tell


def test_gold_turns_a_crowd_that_means_the_opposite():
    """9 of 12 raters take 0 for 1: alone the majority is believed, with 30 of 200 units known all come out right."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    item, rater = np.repeat(np.arange(200), 6), np.concatenate([rng.choice(12, 6, replace=False) for _ in range(200)])
    label = np.where(rng.random(1200) < 0.9, truth[item], 1 - truth[item])
    label = np.where(rater < 9, 1 - label, label)
    feedback = _labels(item, rater, label)
    gold = {f"item {i:05d}": str(truth[i]) for i in range(30)}
    blind, told = fit_labels(feedback), fit_labels(feedback, gold=gold)
    items, _ = _order(told, feedback)
    assert (blind.posterior.argmax(1) == truth[items]).mean() < 0.2
    assert (told.posterior.argmax(1) == truth[items]).mean() > 0.97
    by_id = fit_labels(feedback, gold={told.units[k]: str(truth[i]) for k, i in enumerate(items) if i < 30})
    np.testing.assert_array_equal(by_id.posterior, told.posterior)


def test_gold_chosen_by_class_can_stay_out_of_the_shares():
    """9 units in 10 are of class 0; 100 gold units are half and half: counted in, the share of class 1 would be .23."""
    rng = np.random.default_rng(1)
    truth = np.concatenate([np.arange(100) % 2, (rng.random(200) < 0.1).astype(int)])
    item, rater = np.repeat(np.arange(300), 4), rng.integers(0, 10, 1200)
    label = np.where(rng.random(1200) < 0.85, truth[item], 1 - truth[item])
    feedback = _labels(item, rater, label)
    gold = {f"item {i:05d}": str(truth[i]) for i in range(100)}
    assert fit_labels(feedback, gold=gold).shares[1] == pytest.approx(0.23, abs=0.03)
    assert fit_labels(feedback, gold=gold, gold_in_shares=False).shares[1] == pytest.approx(truth[100:].mean(), abs=0.03)
    with pytest.raises(InvalidSetting, match="All units are gold"):
        fit_labels(feedback, gold={f"item {i:05d}": str(truth[i]) for i in range(300)}, gold_in_shares=False)


def test_cannot_tell_is_counted_and_can_be_an_answer():
    """Units of class 1 are the hard ones: half the answers to them are "cannot tell", a twentieth elsewhere. Read as an answer that
    says much about the class; left out it says nothing. Either way it is counted, rater by rater."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 600)
    item, rater = np.repeat(np.arange(600), 3), rng.integers(0, 15, 1800)
    label = np.where(rng.random(1800) < 0.7, truth[item], 1 - truth[item])
    unsure = rng.random(1800) < np.where(truth[item] == 1, 0.5, 0.05)
    outcome = np.where(unsure, "cannot_tell", "answered").tolist()
    given = [None if u else str(k) for u, k in zip(unsure, label, strict=True)]
    feedback = _labels(item, rater, label, changed={"outcome": outcome, "label": given})
    right = {}
    for answer in ("missing", "answer"):
        fitted = fit_labels(feedback, cannot_tell=answer)  # type: ignore[arg-type]  # one of the two
        items, _ = _order(fitted, feedback)
        known = ~np.isnan(fitted.posterior[:, 0])
        right[answer] = float((fitted.posterior[known].argmax(1) == truth[items][known]).mean())
        assert fitted.accuracy["cannot_tell"].sum() == unsure.sum()
    assert fitted.labels == ("0", "1", CANNOT_TELL)
    assert fitted.confusion.shape == (16, 2, 3)
    assert fitted.confusion[:-1, 1, 2].mean() == pytest.approx(0.5, abs=0.1)
    assert known.all()
    assert right["answer"] > right["missing"] + 0.05


def test_classes_that_nobody_gave():
    fitted = fit_labels(_anaesthetists(), classes=["1", "2", "3", "4", "5"])
    assert fitted.shares[4] < 0.01
    with pytest.raises(InvalidSetting, match="'4'"):
        fit_labels(_anaesthetists(), classes=["1", "2", "3"])


# ---------------------------------------------------------------------------------------------- more labels later


@pytest.mark.parametrize("pooling", [0.0, None])
def test_labels_added_later_come_to_the_fit_of_all_at_once(pooling: float | None):
    """New units, new raters, more about old ones, gold later on: equal to the tolerance, in no more steps. Without a prior this takes
    enough labels a rater that the likelihood has one maximum in reach."""
    whole, *_ = _society(600, 5, 40, 3) if pooling is None else _society(250, 12, 15, 3)
    rows = np.arange(whole.n_judgments) < 2_800
    first, second = whole.filter(rows), whole.filter(~rows)
    gold = {"item 00240": "0"}
    at_once = fit_labels(whole, pooling=pooling, gold=gold, tolerance=1e-9)
    before = fit_labels(first, pooling=pooling, tolerance=1e-9)
    later = before.add(second, gold=gold)
    place = [later.units.index(unit) for unit in at_once.units]
    people = [later.raters.index(rater) for rater in at_once.raters]
    np.testing.assert_allclose(later.alpha, at_once.alpha, rtol=1e-9)
    np.testing.assert_allclose(later.posterior[place], at_once.posterior, atol=1e-6)
    np.testing.assert_allclose(later.confusion[people], at_once.confusion[:-1], atol=1e-6)
    assert later.log_likelihood == pytest.approx(at_once.log_likelihood, abs=1e-6)
    assert later.iterations <= at_once.iterations


def test_a_class_added_later():
    """Labels of a class not seen before start the search afresh."""
    feedback = _anaesthetists()
    known = feedback.judgments["label"].to_numpy() != "4"
    part = fit_labels(feedback.filter(known))
    assert part.classes == ("1", "2", "3")
    later, at_once = part.add(feedback.filter(~known)), fit_labels(feedback)
    assert later.classes == at_once.classes
    place = [later.units.index(unit) for unit in at_once.units]
    np.testing.assert_allclose(later.posterior[place], at_once.posterior, atol=1e-4)


# ---------------------------------------------------------------------------------------------- use and refusals


def test_entropy_and_table():
    fitted = fit_labels(_anaesthetists())
    expected = -(fitted.posterior * np.log(np.maximum(fitted.posterior, 1e-300))).sum(1)
    np.testing.assert_allclose(fitted.entropy, expected, atol=1e-12)
    table = fitted.to_frame()
    assert table.height == 45
    assert table.columns == ["unit", "class", "p", "entropy", "p_1", "p_2", "p_3", "p_4"]
    assert (table["p"] >= 0.25).all()
    silent = Feedback.from_columns(
        {"kind": ["label"] * 3, "ids": [["a"], ["b"], ["c"]], "label": ["u", "v", None], "outcome": ["answered", "answered", "skipped"]}
    )
    fitted = fit_labels(silent)
    assert np.isnan(fitted.entropy).tolist() == [False, False, True]
    assert fitted.to_frame().height == 2


def test_labels_that_answer_several_questions():
    item = np.arange(40) % 10
    axis = ["tone"] * 20 + ["topic"] * 20
    feedback = _labels(item, np.arange(40) % 4, np.arange(40) % 2, axis)
    with pytest.raises(InvalidSetting, match="The labels answer 2 questions"):
        fit_labels(feedback)
    assert fit_labels(feedback, axis="tone").classes == ("0", "1")
    with pytest.raises(SeamarkError, match="labels of 0 classes"):
        fit_labels(feedback, axis="nonsense")


def test_refusals():
    feedback = _anaesthetists()
    for pooling in (-1.0, np.inf, np.nan):
        with pytest.raises(InvalidSetting, match="pooling"):
            fit_labels(feedback, pooling=pooling)
    with pytest.raises(InvalidSetting, match="draws"):
        fit_labels(feedback, draws=-1)
    with pytest.raises(InvalidSetting, match="No response has this id"):
        fit_labels(feedback, gold={"nothing": "1"})
    with pytest.raises(NotConverged):
        fit_labels(feedback, max_iterations=2)
    with pytest.raises(InvalidSetting, match="already"):
        fit_labels(_labels(np.arange(2), np.arange(2), np.array([CANNOT_TELL, "u"])), cannot_tell="answer")
