"""Values that walk: paths at any date, with intervals that cover, beside a naive reference, and with all other parts of the model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from seamark import Feedback
from seamark.errors import InvalidSetting
from seamark.models import Dynamic, Fit, Groups, Observation, Position, Reliability, Scale, Tabular, bootstrap, curvature, fit, predict

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PLAIN = Observation(effects=(), lapse=False)


def votes(
    seed: int, *, n: int, items: int, days: int, step: float, sd: float = 0.8, after: int = 40, gap: bool = False, **more: Any
) -> tuple[Feedback, NDArray[np.float64]]:
    """Votes on pairs of items whose strengths walk from day to day, and the strengths (days + after, items); with `gap` the middle
    third of the days has no vote, and each item stays away for long."""
    rng = np.random.default_rng([seed, n, items])
    path = rng.normal(0, sd, items) + np.vstack([np.zeros(items), rng.normal(0, step, (days + after - 1, items)).cumsum(0)])
    day = rng.integers(0, days, n)
    if gap:
        day = np.where((day > days // 3) & (day < 2 * days // 3), rng.choice([0, days // 3, 2 * days // 3, days - 1], n), day)
    day[:2] = 0, days - 1
    left = rng.integers(0, items, n)
    right = (left + rng.integers(1, items, n)) % items
    rater = rng.integers(0, 40, n)
    push, slope = more.get("position", 0.0), more.get("slope", np.ones(40))[rater]
    won = rng.random(n) < 1 / (1 + np.exp(-(slope * (path[day, left] - path[day, right]) + push)))
    at = [START + int(d) * DAY + timedelta(hours=int(h)) for d, h in zip(day, rng.integers(0, 24, n), strict=True)]
    at[0] = START
    feedback = Feedback.from_arrays(
        left_id=left, right_id=right, outcome=won.astype(np.int8), time=pl.Series(at), rater=rater, order_known=True,
        names={"outcome": ["right", "left"], "response": [f"{i:03d}" for i in range(items)]},
    )  # fmt: skip
    return feedback, path


def order(feedback: Feedback) -> NDArray[np.int64]:
    return np.array([int(name) for name in feedback.responses["name"].to_list()])


def on(day: int) -> dict[str, str]:
    return {"period": (START + day * DAY).isoformat()}


def walked(feedback: Feedback, **settings: Any) -> Fit:
    return fit(feedback, **{"utility": Dynamic(DAY, Tabular()), "observation": PLAIN} | settings)


def test_the_mode_is_that_of_a_naive_posterior():
    """Every response on every day, the prior written out as increments: the slow way to the same paths, variances and step."""
    feedback, _ = votes(1, n=300, items=3, days=12, step=0.3, after=0)
    result = walked(feedback, tolerance=1e-8)
    v0, s2 = result.prior["values_sd"] ** 2, result.prior["values of period_sd"] ** 2
    frame = feedback.judgments
    shown = np.array(frame["responses"].to_list())
    sign = np.where((frame["outcome"] == "left").to_numpy(), 1.0, -1.0)
    day = ((frame["time"] - START).dt.total_days()).to_numpy()
    design = np.zeros((len(day), 12, 3))
    design[np.arange(len(day)), day, shown[:, 0]] += sign
    design[np.arange(len(day)), day, shown[:, 1]] -= sign
    X = design.reshape(len(day), -1)
    first = {r: min(d for d, pair in zip(day, shown, strict=True) if r in pair) for r in range(3)}
    prior = np.zeros((36, 36))
    for r in range(3):
        prior[first[r] * 3 + r, first[r] * 3 + r] += 1 / v0
        for d in range(1, 12):
            e = np.zeros(36)
            e[d * 3 + r], e[(d - 1) * 3 + r] = 1, -1
            prior += np.outer(e, e) / s2

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        g = X @ x
        return np.logaddexp(0, -g).sum() + 0.5 * x @ prior @ x, -X.T @ (1 / (1 + np.exp(g))) + prior @ x

    found = minimize(loss, np.zeros(36), jac=True, method="BFGS", options={"gtol": 1e-7}).x
    p = 1 / (1 + np.exp(-X @ found))
    covariance = np.linalg.inv(prior + (X.T * (p * (1 - p))) @ X).reshape(12, 3, 12, 3)
    found = found.reshape(12, 3)
    # the last two columns are the doubt about the two prior variances, which the reference takes as known
    known = replace(result, factor=result.factor[:, :-2])
    for d in range(12):
        np.testing.assert_allclose(result.utilities(feedback, at=on(d)), found[d], atol=1e-4)
        np.testing.assert_allclose(known.ignorance(feedback, at=on(d)) ** 2, np.diag(covariance[d, :, d]), rtol=2e-3)


@pytest.mark.parametrize("gap", [False, True])
def test_draws_agree_with_one_matrix(gap: bool, monkeypatch: pytest.MonkeyPatch):
    """Paths solved one by one, with conjugate gradients between them, against everything in one matrix."""
    feedback, _ = votes(2, n=1500, items=8, days=60, step=0.1, gap=gap)
    dense = walked(feedback)
    monkeypatch.setattr(curvature, "_DENSE_WALK", 10)
    drawn = walked(feedback)
    assert any("draws" in note for note in drawn.notes)
    assert drawn.prior["values of period_sd"] == pytest.approx(dense.prior["values of period_sd"], rel=0.07)
    assert drawn.prior["values_sd"] == pytest.approx(dense.prior["values_sd"], rel=0.05)
    i, j = np.triu_indices(8, 1)
    for d in (0, 25, 30, 59, 80):
        a, b = dense.gaps(feedback, i, j, at=on(d)), drawn.gaps(feedback, i, j, at=on(d))
        np.testing.assert_allclose(b.mean, a.mean, atol=0.1 * a.ignorance.mean())
        assert np.sqrt(((b.ignorance / a.ignorance - 1) ** 2).mean()) < 0.15
        assert (b.ignorance / a.ignorance).mean() == pytest.approx(1, abs=0.1)


def covered(seeds: range, dates: tuple[int, ...], **settings: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per seed and day, how often 95% intervals of gaps hold the truth, and the mean sd."""
    hits, widths = np.zeros((len(seeds), len(dates))), np.zeros((len(seeds), len(dates)))
    for row, seed in enumerate(seeds):
        feedback, path = votes(seed, **settings)
        result = walked(feedback)
        i, j = np.triu_indices(feedback.n_responses, 1)
        for column, day in enumerate(dates):
            truth = path[day, order(feedback)]
            gaps = result.gaps(feedback, i, j, at=on(day))
            hits[row, column] = (np.abs(gaps.mean - truth[i] + truth[j]) < 1.96 * gaps.ignorance).mean()
            widths[row, column] = gaps.ignorance.mean()
    return hits, widths


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 1500, "items": 8, "days": 60, "step": 0.1},
        pytest.param({"n": 6000, "items": 30, "days": 120, "step": 0.06}, marks=pytest.mark.slow),
    ],
)
def test_intervals_cover_on_any_date(settings: dict[str, Any]):
    """Judged days, days without a judgment, and up to a month after the last; the interval is over data sets."""
    last = settings["days"] - 1
    dates = (0, last // 2, last, last + 10, last + 30)
    hits, widths = covered(range(20), dates, gap=True, **settings)
    mean, se = hits.mean(0), hits.std(0, ddof=1) / np.sqrt(len(hits))
    assert (np.abs(mean - 0.95) < 3 * np.maximum(se, 0.008)).all(), (mean, se)
    # they widen where nobody judged, and the longer after the last judgment the more
    assert widths[:, 1].mean() > widths[:, 2].mean()
    assert (np.diff(widths.mean(0)[2:]) > 0).all()


@pytest.mark.slow
def test_the_size_of_a_step_is_found_whatever_the_period():
    """Steps of .06 a day are .06 sqrt(7) a week; and where nothing moves, none are found."""
    found = []
    for seed in range(10):
        feedback, _ = votes(seed, n=6000, items=20, days=140, step=0.06, after=0)
        found.append([walked(feedback, utility=Dynamic(timedelta(days=d), Tabular())).prior["values of period_sd"] for d in (1, 7)])
    ratio = np.log(np.array(found) / (0.06 * np.sqrt([1, 7])))
    assert (np.abs(ratio.mean(0)) < 3 * ratio.std(0, ddof=1) / np.sqrt(len(found)) + 0.05).all(), np.exp(ratio.mean(0))
    still, _ = votes(3, n=6000, items=20, days=140, step=0.0, after=0)
    assert walked(still).prior["values of period_sd"] < 0.3 * 0.06


def test_position_reliability_and_covariates_are_fitted_with_the_paths():
    """Raters a third as sharp, a push of .4 to the first: found within their intervals, and the paths with them."""
    slope = np.where(np.arange(40) < 20, 1.0, 0.33)
    feedback, path = votes(4, n=12000, items=12, days=250, step=0.06, after=0, position=0.4, slope=slope, sd=1.2)
    hour = feedback.judgments["time"].dt.hour() >= 12
    feedback = replace(
        feedback, judgments=feedback.judgments.with_columns(pair_type=pl.when(hour).then(pl.lit("pm")).otherwise(pl.lit("am")))
    )
    result = walked(feedback, observation=Observation(effects=(Reliability(), Position(), Scale("pair_type")), lapse=False))
    by_name = {p.name: p for p in result.parameters}
    push = next(p for name, p in by_name.items() if name == "position" or name.startswith("position:"))
    assert push.low < 0.4 < push.high
    assert next(abs(p.estimate) for name, p in by_name.items() if name.startswith("scale")) < 0.2
    sharp = result.raters.sort("rater", descending=False)
    number = np.array([int(r) for r in sharp["rater"].to_list()])
    assert sharp["slope"].to_numpy()[number < 20].mean() > 2 * sharp["slope"].to_numpy()[number >= 20].mean()
    for day in (0, 125, 249):
        u = result.utilities(feedback, at=on(day))
        assert np.corrcoef(u, path[day, order(feedback)])[0, 1] > 0.93


def test_groups_have_paths_of_their_own():
    one, path = votes(5, n=5000, items=10, days=60, step=0.05, after=0)
    two, other = votes(6, n=5000, items=10, days=60, step=0.05, after=0)
    frame = pl.concat([one.judgments.with_columns(group=pl.lit("a")), two.judgments.with_columns(group=pl.lit("b"))])
    codes = {name: i for i, name in enumerate(one.responses["name"].to_list())}
    moved = np.array([codes[name] for name in two.responses["name"].to_list()])
    lists = [r if k < 5000 else [int(moved[x]) for x in r] for k, r in enumerate(frame["responses"].to_list())]
    both = replace(one, judgments=frame.with_columns(pl.Series("responses", lists).cast(frame["responses"].dtype)))
    result = walked(both, people=Groups())
    i, j = np.triu_indices(10, 1)
    for day in (10, 50):
        found = result.gaps(both, i, j, at=on(day)).by_group
        for g, truth in enumerate((path, other)):
            t = truth[day, order(both)]
            assert np.corrcoef(found[:, g], t[i] - t[j])[0, 1] > 0.9


def test_predictions_follow_the_date_and_survive_saving(tmp_path: Any):
    feedback, path = votes(7, n=8000, items=10, days=100, step=0.12, after=0)
    late = feedback.judgments["time"] >= START + 80 * DAY
    train, test = feedback.filter(~late.to_numpy()), feedback.filter(late.to_numpy())
    half = feedback.filter(np.arange(8000) % 2 == 0)
    rest = feedback.filter(np.arange(8000) % 2 == 1)
    result = walked(half)
    score = []
    for found in (result, fit(half, utility=Tabular(), observation=PLAIN)):
        p, won, _ = predict(found, rest)[0].decided()
        score.append(np.log(np.where(won, p, 1 - p)).mean())
    assert score[0] > score[1] + 0.01
    # long after what was seen, predictions come closer to one half
    found = walked(train)
    near, far = (predict(found, replace(test, judgments=test.judgments.with_columns(time=pl.lit(START + d * DAY))))[0] for d in (79, 400))
    assert np.abs(far.probs[:, 0] - 0.5).mean() < np.abs(near.probs[:, 0] - 0.5).mean()
    assert set(near.shown.ravel().tolist()) <= set(range(test.n_responses))
    result.save(tmp_path / "fit")
    again = Fit.load(tmp_path / "fit")
    assert np.array_equal(again.utilities(rest, at=on(33)), result.utilities(rest, at=on(33)))
    assert np.array_equal(again.ignorance(rest, at=on(150)), result.ignorance(rest, at=on(150)))
    assert np.abs(predict(again, rest)[0].probs - predict(result, rest)[0].probs).max() < 1e-12
    assert np.isfinite(result.support(rest)).all()
    del path


def test_a_search_starts_from_an_earlier_walk():
    feedback, _ = votes(8, n=4000, items=10, days=100, step=0.1, after=0)
    first = walked(feedback)
    again = walked(feedback, start=first)
    assert again.convergence.iterations < first.convergence.iterations
    np.testing.assert_allclose(again.utilities(feedback), first.utilities(feedback), atol=0.02)


def test_what_walks_are_not_for():
    feedback, _ = votes(9, n=400, items=5, days=50, step=0.1, after=0)
    result = walked(feedback)
    with pytest.raises(InvalidSetting, match="Use a date"):
        result.utilities(feedback, at={"period": "spring"})
    with pytest.raises(InvalidSetting, match="do not move"):
        bootstrap(feedback, utility=Dynamic(DAY, Tabular()), observation=PLAIN)
    with pytest.raises(InvalidSetting, match="one period"):
        walked(feedback, utility=Dynamic(timedelta(days=300), Tabular()))
    unknown = np.arange(400) % 4 == 0
    some = replace(feedback, judgments=feedback.judgments.with_columns(time=pl.when(~pl.Series(unknown)).then(pl.col("time"))))
    assert any("100 judgments without a time" in note for note in walked(some).notes)
