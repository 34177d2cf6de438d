"""Where a reward is right, and where it is too sure: slices that are planted, and the same by a naive count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
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
    assert "least often on tone" in right.title
    assert "farthest off on tone" in sure.title
    assert sure.high is not None
    assert sure.high < -10
    for finding in (right, sure):
        assert_written(finding)


def test_slices_of_a_fit_are_plain_counts(fitted: sm.Fit) -> None:
    held_out = judged(20, seed=1)
    cells = decided_cells(fitted, held_out, predict(fitted, held_out))
    each = by_judgment(held_out, cells)
    assert len(each) == held_out.n_judgments == cells.n
    assert each["hit"].mean() == pytest.approx(np.average(cells["hit"], weights=cells["count"]))
    found = sm.checks.evaluate(fitted, held_out)
    assert of(found, "accuracy/axis").verdict == "ok"
    axis = held_out.judgments["axis"].cast(pl.String).to_numpy()[each["row"]]
    p, won, hit = each["p"], each["won"], each["hit"]
    excess = 100 * (np.where(p >= 0.5, won, ~won) - np.maximum(p, 1 - p))
    for code, naive in (("accuracy/axis", hit), ("calibration/axis", excess)):
        finding = of(found, code)
        assert {row["axis"]: row["estimate"] for row in finding.details["slices"]} == {
            name: pytest.approx(naive[axis == name].mean()) for name in ("tone", "facts")
        }


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
    assert "farthest off on loud: there the predicted winner wins" in finding.title
    assert of(evaluate_scores(scoring(1.0), told, logits=True), "calibration/source").verdict == "ok"
