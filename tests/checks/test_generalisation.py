"""Planted shifts, memorisers, gibberish and learning curves are found; what carries over is not said to be lost; a stopped run goes on to the same end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sentences import assert_written
from typer.testing import CliRunner

import seamark as sm
from seamark.checks import check_generalisation, cross_fitting
from seamark.checks.agreement import check_ceiling
from seamark.checks.findings import Finding, Findings
from seamark.checks.generalisation import check_support
from seamark.checks.learning import check_overfitting, fit_power_law
from seamark.cli import app
from seamark.errors import InvalidSetting
from seamark.models import Observation, Tabular, fit, predict
from seamark.models.prediction import Predicted
from seamark.records import Feedback
from seamark.simulation import Contexts, simulate

WORDS = sm.Linear(n_columns=32, residual=False)
PLAIN = Observation(effects=())


def found(findings: Findings, code: str) -> Finding:
    finding = findings.get(code)
    assert finding is not None, code
    return finding


def differing(disagreement: float, *, seed: int = 1, shares: tuple[float, float] = (0.7, 0.3)) -> Feedback:
    """Two groups of raters, of whom nobody is careless, that like other responses."""
    return simulate(
        n_prompts=15, n_raters=30, n_judgments=1200, group_shares=shares, disagreement=disagreement, careless=0.0, opposed=0.0, seed=seed
    ).feedback  # fmt: skip


# ------------------------------------------------------------------------------------ shifts


def test_R16_a_random_split_hides_a_planted_shift_that_the_group_split_shows() -> None:
    settings: dict[str, Any] = {"by": ["group"], "utility": Tabular(), "observation": PLAIN, "n_folds": 2}
    shifted = check_generalisation(differing(2.0), **settings)
    alike = check_generalisation(differing(0.0), **settings)
    random, group = found(shifted, "generalisation/random"), found(shifted, "generalisation/group")
    lost = group.details["difference"]["accuracy"]
    matrix = found(shifted, "generalisation/matrix/group")
    print(random.title, group.title, matrix.title, matrix.details["estimate"], sep="\n")
    assert random.verdict == "ok", "nothing is wrong with single judgments held out"
    assert group.verdict == "warning"
    assert lost["high"] < 0
    assert lost["estimate"] < -0.05
    assert shifted[0].code == "generalisation"
    assert shifted[0].verdict == "warning"
    assert matrix.verdict == "warning"
    cells = np.array(matrix.details["estimate"])
    assert (np.diag(cells) > cells[~np.eye(2, dtype=bool)].max()).all(), "each group is told best by its own"
    same = found(alike, "generalisation/group").details["difference"]["accuracy"]
    assert same["low"] < 0.01
    assert same["high"] > -0.01
    assert found(alike, "generalisation/matrix/group").verdict == "ok"
    for findings in (shifted, alike):
        json.loads(findings.to_json())
        for finding in findings:
            assert_written(finding)


@pytest.mark.slow
def test_a_shift_of_context_is_found_in_a_field_that_holds_it() -> None:
    """Values that are opposite in two contexts."""
    feedback = simulate(
        n_prompts=60, n_judgments=1200, spread=0.3, contexts=Contexts(deviation=2.0), careless=0.0, opposed=0.0, seed=3
    ).feedback
    findings = check_generalisation(feedback, by=["pair_type", "time"], utility=WORDS, observation=PLAIN, n_folds=3)
    assert found(findings, "generalisation/pair_type").details["difference"]["accuracy"]["high"] < 0
    assert found(findings, "generalisation/matrix/pair_type").verdict == "warning"
    later = found(findings, "generalisation/time").details["difference"]["accuracy"]
    assert later["low"] < 0.02
    assert later["high"] > -0.05, "contexts do not change with time"


def test_every_split_keeps_what_it_holds_out_from_what_it_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unit of the part tested, nor any later judgment, is in what its fit has seen; every judgment is tested once, by source once for each model."""
    feedback = simulate(n_prompts=60, n_raters=30, n_judgments=900, sources=(0.0, 0.3, 0.6, 0.9), tie=None, seed=4).feedback
    jobs: list[cross_fitting.Job] = []

    def kept(self: cross_fitting.CrossFit, some: list[cross_fitting.Job], _: Any = None) -> list[pl.DataFrame]:
        jobs.extend(some)
        return [
            self.asked.filter(pl.Series(j.test)[self.asked["row"]]).select(
                "row", "first", "second", p=pl.lit(0.5), hit=pl.lit(0.5), loss=pl.lit(0.7), support=pl.lit(1.0), placed=pl.lit(value=True)
            )
            for j in some
        ]

    monkeypatch.setattr(cross_fitting.CrossFit, "run", kept)
    check_generalisation(feedback, by=["prompt", "prompt_cluster", "rater", "group", "source", "time"], n_folds=4)
    time = feedback.judgments["time"].to_numpy()
    for job in jobs:
        assert not (job.train & job.test).any()
        if job.part.startswith("random") or " by " in job.split or job.split == "random":
            continue
        if job.split == "time":
            assert time[job.train].max() < time[job.test].min()
        elif job.split == "source":
            shown = feedback.judgments["models"]
            names = set(shown.filter(pl.Series(job.train)).explode().to_list())
            assert job.part not in names
            assert all(job.part in models for models in shown.filter(pl.Series(job.test)).to_list())
        else:
            unit = feedback.units(job.split)
            assert not set(unit[job.train]) & set(unit[job.test])
    for name in ("random", "prompt", "prompt_cluster", "rater", "group"):
        own = [j for j in jobs if j.split == name and not j.part.startswith("random")]
        assert (np.sum([j.test for j in own], axis=0) == 1).all(), name


def test_figures_are_those_of_plain_fits() -> None:
    """The rater split by hand: one fit without each part, its predictions counted; people are the ceiling of `check_ceiling`."""
    feedback = simulate(n_prompts=30, n_raters=5, n_judgments=500, tie=None, seed=5).feedback
    findings = check_generalisation(feedback, by=["rater"], utility=Tabular(), observation=PLAIN, n_folds=3)
    split = found(findings, "generalisation/rater")
    rater = feedback.judgments["rater"].to_numpy()
    ids = np.array(feedback.raters["id"].to_list())
    hits = 0.0
    for part in split.details["parts"]:
        mine = np.isin(ids[rater], [part["part"]])
        fitted = fit(feedback.filter(~mine), utility=Tabular(), observation=PLAIN, require_converged=False)
        p, won, count = _decided(predict(fitted, feedback.filter(mine)))
        hits += float((count * np.where(p == 0.5, 0.5, (p > 0.5) == won)).sum())
        assert part["accuracy"] * part["n"] == pytest.approx((count * np.where(p == 0.5, 0.5, (p > 0.5) == won)).sum())
    assert split.n == feedback.n_judgments
    assert split.estimate == pytest.approx(hits / feedback.n_judgments)
    ceiling = check_ceiling(feedback)
    assert split.details["ceiling"]["estimate"] == pytest.approx(ceiling.estimate, abs=0.02), "repeats by a rater count each, there once"
    assert set(split.details["rules"]) == {"coin", "length", "shown first wins", "training majority"}
    assert split.details["rules"]["coin"]["estimate"] == 0.5


def _decided(predictions: list[Predicted]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [block.decided() for block in predictions]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]  # three of them


def test_what_cannot_be_split_says_why_and_bad_settings_are_named() -> None:
    n = 240
    rng = np.random.default_rng(0)
    pairs = [rng.choice(12, 2, replace=False) for _ in range(n)]
    bare = Feedback.from_columns(
        {"kind": ["pair"] * n, "ids": [[f"m{a}", f"m{b}"] for a, b in pairs], "outcome": ["left" if a < b else "right" for a, b in pairs]}
    )
    findings = check_generalisation(bare, observation=PLAIN, n_folds=3)
    assert found(findings, "generalisation/random").estimate == pytest.approx(1.0, abs=0.1)
    for name in ("prompt", "prompt_cluster", "rater", "group", "source", "axis", "pair_type", "time"):
        assert found(findings, f"generalisation/{name}").verdict == "not_applicable", name
    assert found(findings, "neighbours").verdict == "not_applicable"
    with pytest.raises(InvalidSetting, match="shoe_size"):
        check_generalisation(bare, by=["shoe_size"])
    with pytest.raises(InvalidSetting, match="n_folds"):
        check_generalisation(bare, n_folds=1)
    few = bare.filter(np.arange(n) < 30)
    assert [f.verdict for f in check_generalisation(few)] == ["not_applicable"]


@pytest.mark.slow
def test_ratings_are_tested_by_the_orders_they_imply() -> None:
    feedback = simulate(n_prompts=30, n_raters=10, n_judgments=1000, kinds=("rating",), careless=0.0, opposed=0.0, seed=6).feedback
    findings = check_generalisation(feedback, by=["prompt"], utility=WORDS, n_folds=2)
    assert (found(findings, "generalisation/prompt").low or 0) > 0.55


# ------------------------------------------------------------------------------------ resuming


def test_a_run_that_was_stopped_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = simulate(n_prompts=10, n_raters=6, n_judgments=240, tie=None, seed=7).feedback
    settings: dict[str, Any] = {"by": ["group"], "utility": Tabular(), "observation": PLAIN, "n_folds": 2}
    whole = check_generalisation(feedback, **settings)
    asked = 0
    plain = cross_fitting.CrossFit.fit

    def dies(self: cross_fitting.CrossFit, train: Feedback) -> Any:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise KeyboardInterrupt
        return plain(self, train)

    with monkeypatch.context() as patch:
        patch.setattr(cross_fitting.CrossFit, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            check_generalisation(feedback, resume=tmp_path, **settings)
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    shares: list[float] = []
    with monkeypatch.context() as patch:
        made: list[int] = []
        patch.setattr(cross_fitting.CrossFit, "fit", lambda self, train: (made.append(1), plain(self, train))[1])
        again = check_generalisation(feedback, resume=tmp_path, progress=lambda _, share: shares.append(share), **settings)
        total = len(list(tmp_path.glob("*.parquet")))
        assert len(made) == total - 3, "finished fits are not made again"
        assert shares == sorted(shares)
        assert again.to_json() == whole.to_json()
        made.clear()
        assert check_generalisation(feedback, resume=tmp_path, **settings).to_json() == whole.to_json()
        assert not made
        patch.setattr(cross_fitting.CrossFit, "fit", dies)
        asked = 3
        with pytest.raises(KeyboardInterrupt):  # other settings are other fits
            check_generalisation(feedback, resume=tmp_path, **settings | {"seed": 1})
    for broken in sorted(tmp_path.glob("*.parquet"))[::2]:
        broken.write_bytes(b"torn")
    assert check_generalisation(feedback, resume=tmp_path, **settings).to_json() == whole.to_json()


# ------------------------------------------------------------------------------------ neighbours, support


def test_R8_a_memoriser_shows_a_gap_to_its_neighbours_and_a_generaliser_does_not() -> None:
    society = simulate(n_prompts=50, n_raters=20, n_judgments=1800, unexplained=0.0, careless=0.0, opposed=0.0, seed=8)
    settings: dict[str, Any] = {"by": ["neighbours"], "observation": PLAIN, "n_folds": 2}
    memoriser = found(check_generalisation(society.feedback, utility=Tabular(), **settings), "neighbours")
    reader = found(check_generalisation(society.feedback, utility=WORDS, **settings), "neighbours")
    print(memoriser.title, reader.title, sep="\n")
    assert memoriser.verdict == "warning"
    assert (memoriser.low or 0) > 5
    assert memoriser.details["neighbours"] == 0.5, "it knows nothing of prompts that it has not seen"
    assert reader.verdict == "ok"
    assert abs(reader.estimate or 0) < 3
    assert (reader.low or 0) < 0.5


def test_R7_responses_out_of_support_are_predicted_worse_than_others() -> None:
    """A fifth of the test pairs are of texts in other words, whose better one the fit cannot know; its own flag tells them."""
    rng = np.random.default_rng(9)
    good, bad = ["clear", "helpful", "exact", "kind"], ["vague", "useless", "wrong", "rude"]

    def text(words: list[str]) -> str:
        return " ".join([*rng.choice(words, 4), *rng.choice(["answer", "question", "point", "case"], 6)])

    def strange() -> str:
        return "".join(chr(int(c)) for c in rng.integers(0x4E00, 0x9000, 12))

    def pairs(n: int, share: float) -> Feedback:
        rows = [
            (strange(), strange(), rng.random() < 0.5) if rng.random() < share else (text(good), text(bad), rng.random() < 0.9)
            for _ in range(n)
        ]
        turned = rng.random(n) < 0.5
        return Feedback.from_columns({
            "kind": ["pair"] * n, "prompt": [f"question {k % 40}" for k in range(n)], "texts": [[b, a] if t else [a, b] for (a, b, _), t in zip(rows, turned, strict=True)],
            "outcome": ["left" if w != t else "right" for (_, _, w), t in zip(rows, turned, strict=True)], "rater": [f"r{k % 15}" for k in range(n)],
        })  # fmt: skip

    train, test = pairs(500, 0.0), pairs(800, 0.2)
    cross = cross_fitting.CrossFit(feedback=test, utility=WORDS, observation=PLAIN)
    fitted = cross.fit(train)
    support = fitted.support(test)
    asked = cross.asked
    u = fitted.utilities(test)
    gap = u[asked["first"].to_numpy()] - u[asked["second"].to_numpy()]
    frame = asked.with_columns(
        hit=pl.Series(np.where(gap == 0, 0.5, ((gap > 0) == asked["won"].to_numpy()).astype(float))),
        support=pl.Series(np.minimum(support[asked["first"].to_numpy()], support[asked["second"].to_numpy()])),
    )
    finding = check_support(frame)
    print(finding.title)
    flagged, others = finding.details["error_flagged"], finding.details["error_others"]
    assert flagged["low"] > others["high"]
    assert (finding.low or 0) > 0.5
    shuffled = check_support(frame.with_columns(support=frame["support"].shuffle(seed=1)))
    assert (shuffled.low or 0) < 0.5 < (shuffled.high or 0), "a flag dealt at random tells nothing"


# ------------------------------------------------------------------------------------ learning


def test_N3_the_exponent_of_a_learning_curve_is_found_with_its_interval() -> None:
    n = 100 * 2.0 ** np.arange(7)
    exact = fit_power_law(n, 0.45 + 3 * n**-0.6)
    assert exact.exponent[0] == pytest.approx(0.6, abs=0.03)
    assert exact.floor[0] == pytest.approx(0.45, abs=0.01)
    rng = np.random.default_rng(10)
    noisy = fit_power_law(n, 0.45 + 3 * n**-0.6 + 0.001 * rng.normal(size=(300, 7)))
    low, high = np.quantile(noisy.exponent, [0.025, 0.975])
    assert low < 0.6 < high
    assert high - low < 0.2
    flat = fit_power_law(n, np.full((1, 7), 0.6))
    assert np.isnan(flat.exponent[0])
    rising = fit_power_law(n, 0.4 + 1e-4 * n)
    assert np.isnan(rising.exponent[0]), "a loss that rises has no exponent"
    with pytest.raises(InvalidSetting):
        fit_power_law([1, 2], [0.1, 0.2])


@pytest.mark.slow
def test_N3_a_society_from_which_there_is_much_to_learn_has_a_curve_that_falls() -> None:
    feedback = simulate(n_prompts=250, n_raters=30, n_judgments=6000, spread=2.0, careless=0.0, opposed=0.0, seed=11).feedback
    finding = found(check_generalisation(feedback, by=["curve"], utility=WORDS, observation=PLAIN, n_folds=4), "learning-curve")
    print(finding.title)
    loss = [point["log_loss"] for point in finding.details["curve"]]
    assert loss[-1] < loss[0] - 0.02
    assert finding.unit == "exponent"
    assert finding.low is not None
    assert finding.low <= (finding.estimate or 0) <= (finding.high or 0)
    assert finding.details["twice"]["low"] <= loss[-1] + 0.02
    nothing = differing(0.0).judgments.with_columns(
        outcome=pl.Series(np.random.default_rng(0).choice(["left", "right"], 1200)).cast(differing(0.0).judgments["outcome"].dtype)
    )
    from dataclasses import replace

    noise = found(
        check_generalisation(replace(differing(0.0), judgments=nothing), by=["curve"], utility=WORDS, observation=PLAIN, n_folds=4),
        "learning-curve",
    )
    assert noise.verdict == "notice" or (noise.low or 0) < 0.1, "from coins nothing is learned"


def descent(seed: int, *, steps: int = 60, n: int = 120, d: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps of gradient descent on few noisy comparisons: training loss, held-out losses of 200 prompts, and expected gold of the best of 16 by the reward."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(d)
    truth[:5] = 1.5
    x, other = rng.normal(size=(n, d)), rng.normal(size=(600, d))
    won, held = (rng.random(len(z)) < 1 / (1 + np.exp(-z @ truth)) for z in (x, other))
    sign, turn = np.where(won != (rng.random(n) < 0.1), 1.0, -1.0), np.where(held, 1.0, -1.0)
    w, grid = np.zeros(d), np.unique(np.round(np.geomspace(1, 3000, steps)).astype(int))
    train, outside, gold = [], [], []
    for t in range(1, grid[-1] + 1):
        w = w + 0.3 * (x * (sign / (1 + np.exp(sign * (x @ w))))[:, None]).mean(0)
        if t in grid:
            train.append(np.logaddexp(0, -sign * (x @ w)).mean())
            outside.append(np.logaddexp(0, -turn * (other @ w)).reshape(200, 3).mean(1))
            gold.append(1.766 * (w @ truth) / np.linalg.norm(w))  # expected largest of 16 normals, times the slope of gold on the reward
    return grid.astype(float), np.array(train), np.array(outside), np.array(gold)


def test_R6_the_stop_fires_before_gold_falls_on_a_planted_run() -> None:
    """Eight runs that overfit: the rule, which does not see gold, fires before that has fallen to 95% of its peak."""
    ends = []
    for seed in range(8):
        steps, train, outside, gold = descent(seed)
        finding = check_overfitting(steps, train, outside, gold=gold)
        assert_written(finding)
        assert finding.verdict == "warning"
        at = int(np.flatnonzero(steps == finding.details["fired_at"])[0])
        fallen = np.flatnonzero((gold < 0.95 * gold.max()) & (np.arange(len(gold)) > gold.argmax()))
        assert at < np.append(fallen, len(gold))[0], "the stop fires before gold falls"
        assert gold[at] > 0.95 * gold.max(), "and not long before its peak"
        ends.append(gold[-1] / gold.max())
    assert np.mean(ends) < 0.85, "the runs do overfit"


def test_a_run_that_does_not_overfit_is_not_stopped() -> None:
    rng = np.random.default_rng(12)
    steps = np.arange(1, 21)
    outside = 0.5 + 1 / steps[:, None] + 0.3 * rng.normal(size=50)  # prompts differ, and all fall
    finding = check_overfitting(steps, 0.5 + 1 / steps, outside)
    assert finding.verdict == "ok"
    assert finding.details["fired_at"] is None
    with pytest.raises(InvalidSetting):
        check_overfitting([1, 2], [1, 2], [[1.0, 2.0], [1.0, 2.0]])


# ------------------------------------------------------------------------------------ command, real data


def test_the_command_prints_findings_and_goes_on(tmp_path: Path) -> None:
    simulate(n_prompts=10, n_raters=6, n_judgments=240, tie=None, seed=7).feedback.to_jsonl(tmp_path / "prefs.jsonl")
    arguments = ["generalise", str(tmp_path / "prefs.jsonl"), "--by", "rater", "--utility", "tabular", "--folds", "2"]
    more = ["--resume", str(tmp_path / "kept"), "--json", "--fail-on", "generalisation/random.estimate<0.99"]
    first = CliRunner().invoke(app, [*arguments, *more])
    assert first.exit_code == 1, first.output
    codes = {f["code"] for f in json.loads(first.stdout)["findings"]}
    assert {"generalisation", "generalisation/random", "generalisation/rater"} <= codes
    assert list((tmp_path / "kept").glob("*.parquet"))
    assert CliRunner().invoke(app, [*arguments, *more]).stdout == first.stdout
    wrong = CliRunner().invoke(app, ["generalise", str(tmp_path / "prefs.jsonl"), "--by", "shoe_size"])
    assert isinstance(wrong.exception, InvalidSetting)
    assert "--by" in str(wrong.exception)


@pytest.mark.slow
def test_a_debate_never_seen_costs_more_than_single_judgments_do(real_data: Path) -> None:
    """A sixth of UKPConvArg1's votes: votes on one debate say little of another, for n-grams."""
    votes = sm.load(real_data / "ukp_convarg")
    votes = votes.filter(np.arange(len(votes)) % 6 == 0)
    findings = check_generalisation(
        votes, by=["provenance"], utility=sm.Linear(n_columns=256, residual=False), observation=PLAIN, n_folds=3
    )
    debate = found(findings, "generalisation/provenance")
    print(debate.title)
    assert len(debate.details["parts"]) == 11
    assert debate.details["difference"]["accuracy"]["high"] < 0
    assert debate.details["ceiling"]["estimate"] > 0.65
