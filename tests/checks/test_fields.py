"""Where a reward is right, and where it is too sure: slices that are planted, and the same by a naive count."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sentences import assert_written
from test_foreign import WORTH, judged, of, scoring

import seamark as sm
from seamark.checks.fields import by_judgment
from seamark.checks.foreign import evaluate_scores
from seamark.checks.held_out import decided_cells
from seamark.models.prediction import predict
from seamark.models.utility import Tabular


@pytest.fixture(scope="module")
def fitted() -> sm.Fit:
    return sm.fit(judged(20), utility=Tabular())


def test_R36_a_fit_is_wrong_on_the_axis_that_was_turned(fitted: sm.Fit) -> None:
    found = sm.checks.evaluate(fitted, judged(20, turned="tone", seed=1))
    right, sure = of(found, "accuracy/axis"), of(found, "calibration/axis")
    assert right.verdict == sure.verdict == "warning"
    assert "wrong more often than right on tone" in right.title
    assert "most clearly off on tone" in sure.title
    assert sure.high is not None
    assert sure.high < -10
    for finding in (right, sure):
        assert_written(finding)


def test_slices_of_a_fit_are_those_of_each_value_alone() -> None:
    """Everybody is asked about the same pair on two axes, which the fit tells apart: each slice is what predicting its judgments alone gives."""
    rng = np.random.default_rng(0)
    texts = np.array(list(WORTH)).reshape(120, 4)[:30]
    worth = {"tone": WORTH, "facts": dict(zip(WORTH, rng.permutation(list(WORTH.values())), strict=True))}
    rows: list[dict[str, str]] = []
    for rater in range(16):
        for p in range(30):
            left, right = texts[p, rng.permutation(4)[:2]]
            for axis, value in worth.items():
                won = rng.random() < expit(2 * (value[left] - value[right]))
                rows.append(
                    {
                        "prompt": f"prompt {p}",
                        "left": left,
                        "right": right,
                        "outcome": "left" if won else "right",
                        "axis": axis,
                        "rater": f"r{rater}",
                    }
                )
    frame = pl.DataFrame(rows)
    feedback = sm.Feedback.from_arrays(**{name: frame[name].to_list() for name in frame.columns})
    learned, held_out = feedback.split(by="judgment", test=0.4, seed=0)
    fitted = sm.fit(learned, utility=sm.MultiAxis(Tabular()))
    found = sm.checks.evaluate(fitted, held_out)
    for axis in worth:
        part = replace(held_out, judgments=held_out.judgments.filter(pl.col("axis").cast(pl.String) == axis))
        cells = decided_cells(fitted, part, predict(fitted, part))
        excess = 100 * (np.where(cells["p"] >= 0.5, cells["won"], ~cells["won"]) - np.maximum(cells["p"], 1 - cells["p"]))
        for code, value in (("accuracy/axis", cells["hit"]), ("calibration/axis", excess)):
            (row,) = (row for row in of(found, code).details["slices"] if row["axis"] == axis)
            assert row["estimate"] == pytest.approx(np.average(value, weights=cells["count"]))
            assert row["n"] == cells.n


@pytest.mark.parametrize("kinds", [("pair",), ("ranking",), ("pair", "ranking"), ("choice",)], ids=" ".join)
def test_slices_add_up_to_what_was_decided(kinds: tuple[str, ...]) -> None:
    society = sm.simulate(n_prompts=30, n_raters=12, n_judgments=500, kinds=kinds, groups=1, seed=1)
    fitted = sm.fit(society.feedback, utility=Tabular())
    cells = decided_cells(fitted, society.feedback, predict(fitted, society.feedback))
    each = by_judgment(fitted, society.feedback)
    assert each.n == cells.n
    if len(cells):
        assert each["hit"].mean() == pytest.approx(np.average(cells["hit"], weights=cells["count"]))
        kind = society.feedback.judgments["kind"].cast(pl.String).to_numpy()[each["row"]]
        assert set(kind) <= set(kinds)


def test_a_large_slice_that_surely_is_wrong_comes_before_a_small_one_that_may_be() -> None:
    """40% of 50 may be chance, 42% of 2,000 is not."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    for axis, right, n in (("small", 0.4, 50), ("large", 0.42, 2000), ("fine", 0.8, 400)):
        for k in range(n):
            a, b = rng.permutation(2)
            text = (f"worse {axis} {k}", f"better {axis} {k}")
            won = (b == 0) == (k < right * n)
            rows.append(
                {
                    "prompt": f"{axis} {k}",
                    "left": text[a],
                    "right": text[b],
                    "outcome": "left" if won else "right",
                    "axis": axis,
                    "rater": f"r{k % 40}",
                }
            )
    frame = pl.DataFrame(rows)
    feedback = sm.Feedback.from_arrays(**{name: frame[name].to_list() for name in frame.columns})
    finding = of(evaluate_scores(lambda _, texts: [float(t.startswith("better")) for t in texts], feedback), "accuracy/axis")
    assert finding.verdict == "warning"
    assert "wrong more often than right on large" in finding.title


def test_parts_of_the_time_that_begin_in_one_minute_are_told_apart() -> None:
    feedback = judged(20)
    start = pl.Series(np.arange(feedback.n_judgments) * 20_000)  # microseconds apart: 48 seconds in all
    time = start.cast(pl.Duration("us")) + datetime(2026, 1, 1)
    found = evaluate_scores(
        scoring(1.0), replace(feedback, judgments=feedback.judgments.with_columns(time=time.cast(feedback.judgments["time"].dtype)))
    )
    slices = of(found, "accuracy/time").details["slices"]
    assert [row["time"] for row in slices] == [f"part {k}, from 2026-01-01 00:00" for k in range(1, 6)]
    assert sum(row["n"] for row in slices) == feedback.n_judgments


def test_R17_a_reward_model_that_is_too_sure_about_some_prompts_is_said_to_be() -> None:
    """Scores of half of the responses are three times what people make of them: those of one source model."""
    feedback = judged(20)
    texts = feedback.responses["text"].to_list()
    models = ["loud" if text.endswith(tuple(f"of {p}" for p in range(60))) else "plain" for text in texts]
    shown = pl.Series([[models[r] for r in pair] for pair in feedback.judgments["responses"].to_list()])
    told = replace(feedback, judgments=feedback.judgments.with_columns(models=shown.cast(feedback.judgments["models"].dtype)))
    plain = dict(zip(texts, models, strict=True))
    found = evaluate_scores(lambda _, responses: [WORTH[r] * (3 if plain[r] == "loud" else 1) for r in responses], told, logits=True)
    finding = of(found, "calibration/source")
    assert finding.verdict == "warning"
    assert "most clearly off on loud: there the predicted winner wins" in finding.title
    assert of(evaluate_scores(scoring(1.0), told, logits=True), "calibration/source").verdict == "ok"
