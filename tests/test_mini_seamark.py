"""The one-page example agrees with the library that it explains; that the examples run is in test_docs.py."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import seamark as sm

PAGE = Path(__file__).parents[1] / "examples" / "mini_seamark.py"


def test_mini_seamark_fits_on_a_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    assert "import seamark" not in text


@pytest.fixture(scope="module")
def both() -> SimpleNamespace:
    """The page and the library, fitted to the same simulated leaderboard with two groups and a few raters at chance."""
    society = sm.simulate(
        text=False, n_responses=12, n_prompts=40, n_raters=40, n_judgments=4000, tie=None, lapse=0.0, opposed=0.0,
        careless=0.1, disagreement=0.5, seed=3,
    )  # fmt: skip
    feedback = society.feedback
    frame = feedback.judgments
    name, rater = feedback.responses["name"].to_list(), feedback.raters["id"].to_list()
    records = [
        {"rater": rater[r], "group": g, "first": name[a], "second": name[b], "winner": name[a] if said == "left" else name[b]}
        for (a, b), r, g, said in frame.select("responses", pl.col("rater").cast(pl.Int64), "group", "outcome").iter_rows()
    ]
    mini = SimpleNamespace(**runpy.run_path(str(PAGE)))
    data, names = mini.read(json.dumps(r) for r in records)
    model = mini.fit(data, len(names["thing"]), len(names["rater"]), len(names["group"]))
    fitted = sm.fit(
        feedback,
        utility=sm.Tabular(),
        people=sm.Groups(),
        observation=sm.Observation(effects=(sm.Reliability(), sm.Position()), lapse=False),
    )
    here = {n: i for i, n in enumerate(names["thing"])}
    there = {n: i for i, n in enumerate(name)}
    pairs = [(a, b) for a in names["thing"] for b in names["thing"] if a < b]
    a, b = (np.array([here[p[i]] for p in pairs]) for i in (0, 1))
    left, right = (np.array([there[p[i]] for p in pairs]) for i in (0, 1))
    return SimpleNamespace(
        mini=mini, model=model, names=names, fit=fitted, a=a, b=b, gaps=fitted.gaps(feedback, left, right), rater=rater, society=society,
    )  # fmt: skip


def test_page_and_library_agree_about_gaps(both: SimpleNamespace) -> None:
    by_group, mean, sd = both.mini.gap(both.model, both.a, both.b)
    assert tuple(both.names["group"]) == both.fit.groups
    for page, library, most in ((mean, both.gaps.mean, 0.03), (by_group, both.gaps.by_group, 0.05), (sd, both.gaps.ignorance, 0.02)):
        rms = float(np.sqrt(np.mean((page - library) ** 2)))
        assert rms < most
    assert np.corrcoef(mean, both.gaps.mean)[0, 1] > 0.999
    assert mean.std() > 0.5  # there is something to agree about


def test_page_and_library_agree_about_raters_and_position(both: SimpleNamespace) -> None:
    order = [both.fit.raters["rater"].to_list().index(r) for r in both.names["rater"]]
    slope = both.fit.raters["slope"].to_numpy()[order]
    assert np.corrcoef(both.model["slope"], slope)[0, 1] > 0.99
    assert float(np.abs(both.model["slope"] - slope).max()) < 0.1
    assert abs(both.model["position"] - both.fit.position) < 0.01


def test_page_and_library_agree_about_doubts(both: SimpleNamespace) -> None:
    p, noise, disagreement, ignorance = both.mini.doubts(both.model, both.a, both.b)
    table = both.fit.doubts(both.gaps)
    for page, library in ((p, "p"), (noise, "noise"), (disagreement, "disagreement"), (ignorance, "ignorance")):
        assert float(np.abs(page - table[library].to_numpy()).max()) < 0.01
    assert float(np.abs(noise + disagreement + ignorance - p * (1 - p)).max()) < 1e-12
    assert float(disagreement.max()) > 0.01


def test_page_reward_is_value_less_ignorance(both: SimpleNamespace) -> None:
    score, value, sd = both.mini.reward(both.model, penalty=2.0)
    assert float(np.abs(score - (value - 2 * sd)).max()) < 1e-12
    assert abs(float(value.mean())) < 1e-9
