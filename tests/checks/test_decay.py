"""How a fit ages: worlds whose values walk and worlds whose values stay, and the slope by a plain loop."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sentences import assert_written
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.cross_fitting import CrossFit
from seamark.checks.decay import check_decay, plan_decay
from seamark.cli import app
from seamark.simulation import Drift


def world(value_sd: float, *, n_judgments: int = 2400, seed: int = 0) -> sm.Feedback:
    return sm.simulate(
        n_prompts=8, n_responses=4, n_raters=40, n_judgments=n_judgments, groups=1, tie=None, text=False, careless=0.0, opposed=0.0, position=0.0,
        lapse=0.0, drift=Drift(months=6, value_sd=value_sd), seed=seed,
    ).feedback  # fmt: skip


def decay(feedback: sm.Feedback) -> sm.checks.Finding:
    cross = CrossFit(feedback=feedback, utility=sm.Tabular(), observation=sm.Observation(effects=()))
    jobs = plan_decay(feedback, n_folds=5, seed=0)
    finding = check_decay(cross, jobs, cross.run(jobs))
    assert_written(finding)
    return finding


def test_R89_values_that_walk_make_a_fit_age_and_values_that_stay_do_not() -> None:
    """A walk may come back, so that one world alone need not say so."""
    moving, still = ([decay(world(sd, seed=seed)) for seed in (1, 2, 3)] for sd in (0.9, 0.0))
    print(*moving, *still, sep="\n")
    assert min(f.estimate or 0.0 for f in moving) > max(f.estimate or 0.0 for f in still)
    assert {f.verdict for f in still} == {"ok"}
    sure = [f for f in moving if f.verdict == "notice"]
    assert sure
    for finding in sure:
        assert finding.low is not None
        assert finding.low > 0
        assert finding.unit == "points per 30 days"
        ages, right = (np.array([row[key] for row in finding.details["curve"]]) for key in ("age", "accuracy"))
        assert (np.diff(ages) > 0).all()
        assert right[0] > right[-1]


def test_the_slope_is_that_of_a_plain_loop() -> None:
    feedback = world(0.9, n_judgments=900)
    cross = CrossFit(feedback=feedback, utility=sm.Tabular(), observation=sm.Observation(effects=()))
    jobs = plan_decay(feedback, n_folds=3, seed=0)
    results = cross.run(jobs)
    finding = check_decay(cross, jobs, results)
    time = feedback.judgments["time"].dt.epoch("us").to_numpy() / (30 * 24 * 3600e6)
    seen: dict[int, list[tuple[float, float]]] = {}
    for job, result in zip(jobs, results, strict=True):
        assert not isinstance(result, Exception)
        for row, hit in result.select("row", "hit").iter_rows():
            seen.setdefault(row, []).append((time[row] - time[job.train].mean(), hit))
    above = below = 0.0
    for pairs in seen.values():
        age, hit = np.array(pairs).T
        above -= ((age - age.mean()) * (hit - hit.mean())).sum()
        below += ((age - age.mean()) ** 2).sum()
    assert finding.estimate == pytest.approx(100 * above / below)
    assert finding.n == sum(len(pairs) > 1 for pairs in seen.values())


def test_the_command_says_where_there_are_no_times(tmp_path: Path) -> None:
    feedback = world(0.0, n_judgments=300)
    replace(feedback, judgments=feedback.judgments.with_columns(time=pl.lit(None, dtype=feedback.judgments["time"].dtype))).to_jsonl(
        tmp_path / "prefs.jsonl"
    )
    run = CliRunner().invoke(app, ["generalise", str(tmp_path / "prefs.jsonl"), "--by", "decay", "--utility", "tabular"])
    assert run.exit_code == 0, run.output
    assert "How what was learned ages cannot be told" in run.stdout


def test_fits_learn_from_as_many_where_many_judgments_have_one_time() -> None:
    feedback = world(0.0, n_judgments=600)
    minute = np.arange(600) // 60  # ten blocks a second apart, but for the first three, which are one
    minute[:180] = 0
    time = pl.Series([datetime(2026, 1, 1, 0, 0, int(m)) for m in minute]).cast(feedback.judgments["time"].dtype)
    feedback = replace(feedback, judgments=feedback.judgments.with_columns(time=time))
    jobs = plan_decay(feedback, n_folds=5, seed=0)
    sizes = {int(job.train.sum()) for job in jobs}
    assert len(jobs) > 2
    assert len(sizes) == 1
    assert all(not (job.train & job.test).any() for job in jobs)


@pytest.mark.slow
def test_where_values_stay_age_is_called_a_loss_in_one_of_forty() -> None:
    """The interval has two sides: a loss that is not there is sure in 2.5%, and at most in what luck allows of 40."""
    lows = [decay(world(0.0, n_judgments=900, seed=seed)).low for seed in range(40)]
    wrong = sum(low > 0 for low in lows if low is not None)
    print(wrong)
    assert wrong <= 4
