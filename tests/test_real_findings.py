"""What the fit says of real people, held to truths planted among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seamark.checks import evaluate
from seamark.models import Tabular, fit
from seamark.records import COLUMNS, Feedback
from seamark.sources import load


def _with_planted(feedback: Feedback, *, n_raters: int, n_each: int, seed: int) -> Feedback:
    """The same judgments, and those of raters who answer questions of the data at random."""
    rng = np.random.default_rng(seed)
    frame = feedback.judgments
    texts, names = feedback.responses["text"].to_list(), feedback.responses["name"].to_list()
    prompts, raters = feedback.prompts["text"].to_list(), feedback.raters["id"].to_list()
    shown, asked, by = frame["responses"].to_list(), frame["prompt"].to_list(), frame["rater"].to_list()
    rows = [(j, raters[by[j]], frame["outcome"][j]) for j in range(frame.height)]
    for planted in range(n_raters):
        answers = rng.choice(["left", "right", "tie"], n_each, p=[0.385, 0.385, 0.23])
        rows += [
            (int(j), f"planted {planted}", str(a)) for j, a in zip(rng.choice(frame.height, n_each, replace=False), answers, strict=True)
        ]
    columns = {
        "kind": ["pair"] * len(rows),
        "prompt": [prompts[asked[j]] for j, _, _ in rows],
        "prompt_is_messages": [False] * len(rows),
        "texts": [[texts[r] for r in shown[j]] for j, _, _ in rows],
        "ids": [[names[r] for r in shown[j]] for j, _, _ in rows],
        "outcome": [outcome for _, _, outcome in rows],
        "rater": [rater for _, rater, _ in rows],
    }
    assert set(columns) <= set(COLUMNS)
    return Feedback.from_columns(columns)


@pytest.fixture(scope="module")
def debates(real_data: Path) -> Feedback:
    """Three of the eleven debates of UKPConvArg1."""
    feedback = load(real_data / "ukp_convarg")
    some = sorted(feedback.judgments["provenance"].unique().to_list())[:3]
    return feedback.filter(pl.col("provenance").is_in(some))


def test_careless_raters_planted_among_real_ones_are_found(debates: Feedback):
    """40 raters with 40 random answers each, among real workers with 15 or more.

    AUC of the posterior of answering at chance, planted against real, is above .9; a clean crowd is not accused.
    """
    fitted = fit(_with_planted(debates, n_raters=40, n_each=40, seed=0), utility=Tabular(), require_identified=False)
    table = fitted.raters.filter(pl.col("n") >= 15)
    planted = table["rater"].str.starts_with("planted").to_numpy()
    score = table["p_careless"].to_numpy()
    auc = float((score[planted][:, None] > score[~planted][None, :]).mean())
    print(f"AUC of {planted.sum()} planted against {(~planted).sum()} real raters: {auc:.3f}")
    assert planted.sum() == 40
    assert auc > 0.9
    assert score[planted].mean() > 0.5
    assert score[~planted].mean() < 0.1


def test_a_rater_table_without_planted_raters_accuses_few(debates: Feedback):
    fitted = fit(debates, utility=Tabular(), require_identified=False)
    finding = next(f for f in evaluate(fitted, debates) if f.code == "rater-reliability")
    assert finding.estimate is not None
    assert finding.estimate < 0.1
    assert finding.verdict in ("ok", "notice")
