"""What fits that did not see a judgment say of it, and what other people do, set beside it: by counting, and by one fit made by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seamark import simulate
from seamark.checks.cross_fitting import CrossFit, Job, kept, settings_of
from seamark.models import Observation, Same, Tabular, fit

PLAIN = {"utility": Tabular(), "people": Same(), "observation": Observation(effects=())}


def crossed() -> CrossFit:
    return CrossFit(feedback=simulate(n_prompts=8, n_responses=3, n_raters=6, n_judgments=260, tie=None, seed=3).feedback, **PLAIN)


def test_what_others_say_is_counted_without_the_rater() -> None:
    """The share of the other raters' first answers to the same question: a majority, and -log (k + 1) / (n + 2) of the k of n who agree."""
    found = crossed()
    frame = found.feedback.judgments
    answers: dict[tuple[int, ...], dict[int, int]] = {}
    rows: dict[int, tuple[tuple[int, ...], int, int]] = {}
    for row, ((left, right), outcome, rater) in enumerate(frame.select("responses", "outcome", "rater").iter_rows()):
        question = tuple(sorted((left, right)))
        said = question[0] if (outcome == "left") == (left == question[0]) else question[1]
        if rater not in answers.setdefault(question, {}):
            answers[question][rater] = said
            rows[row] = question, rater, said
    told = {
        row: (majority, surprise) for row, majority, surprise in found.asked.select("row", "majority", "surprise").drop_nulls().iter_rows()
    }
    expected = {}
    for row, (question, rater, said) in rows.items():
        others = [answer for other, answer in answers[question].items() if other != rater]
        if others:
            agree = Counter(others)[said]
            expected[row] = np.sign(2 * agree - len(others)) / 2 + 0.5, -np.log((agree + 1) / (len(others) + 2))
    assert told.keys() == expected.keys()
    assert len(told) > 50
    for row, (majority, surprise) in expected.items():
        assert told[row] == (majority, pytest.approx(surprise))


def test_predictions_are_those_of_a_fit_to_the_rest() -> None:
    """By Bradley and Terry: p = 1 / (1 + exp(-gap)); a response that the fit has not seen is a coin's toss."""
    found = crossed()
    n = found.feedback.n_judgments
    test = np.arange(n) % 4 == 0
    unseen = found.feedback.judgments["responses"].list.contains(0).to_numpy()
    job = Job("by hand", "a quarter, and all about one response", ~test & ~unseen, test | unseen)
    frame = found.predicted(job)
    rest = fit(found.feedback.filter(job.train), **PLAIN, require_converged=False)
    value = dict(zip(rest.basis.response_ids, rest.utilities(found.feedback.filter(job.train)).tolist(), strict=True))
    names = found.feedback.responses["id"].to_list()
    assert frame["row"].to_list() == np.flatnonzero(job.test).tolist()
    assert not frame["placed"].all()
    for first, second, won, p, hit, loss, placed in zip(
        frame["first"],
        frame["second"],
        found.asked.filter(pl.Series(job.test))["won"],
        frame["p"],
        frame["hit"],
        frame["loss"],
        frame["placed"],
        strict=True,
    ):
        assert placed == (names[first] in value and names[second] in value)
        if not placed:
            assert (p, hit, loss) == (0.5, 0.5, pytest.approx(np.log(2)))
            continue
        gap = value[names[first]] - value[names[second]]
        assert hit == (won == (gap > 0))
        assert loss == pytest.approx(-np.log(p if won else 1 - p))
        assert abs(p - 1 / (1 + np.exp(-gap))) < 0.05, "but for what the fit does not know"


def test_what_was_made_is_read_again_for_the_same_parts_and_settings_alone(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> pl.DataFrame:
        made.append(len(made))
        return pl.DataFrame({"value": [len(made)]})

    feedback = crossed().feedback
    one, two = (settings_of(feedback, Tabular(), None, None, seed) for seed in (0, 1))
    part = np.arange(feedback.n_judgments) % 2 == 0
    first = kept(tmp_path, one, (part, ~part), make)
    assert kept(tmp_path, one, (part, ~part), make).equals(first)
    assert made == [0]
    for settings, masks in ((two, (part, ~part)), (one, (~part, part)), (one, (part,))):
        assert not kept(tmp_path, settings, masks, make).equals(first)
    assert len(made) == 4
    assert kept(None, one, (part, ~part), make)["value"].to_list() == [5], "without a folder nothing is kept"
    for path in tmp_path.glob("*.parquet"):
        path.write_bytes(b"torn")
    assert kept(tmp_path, one, (part, ~part), make)["value"].to_list() == [6]
