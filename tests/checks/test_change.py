"""Change over time: no alarm when only the mix of raters or questions changes, planted times and rates found, and what each way to fit is good for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from seamark import Feedback, simulate
from seamark.checks import Backtest, backtest, change, check_change, check_direction, find_change, watch
from seamark.errors import InvalidSetting
from seamark.intervals import wilson
from seamark.models import Dynamic, Fit, Observation, Tabular, by_age, fit
from seamark.simulation.settings import Drift

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PLAIN = Observation(effects=(), lapse=False)
TURN = 120
"""Day of the planted jump."""


def votes(
    seed: int, *, n: int = 1500, items: int = 12, days: int = 200, jump: float = 0.0, slope: float = 0.0, mix: float = 0.0,
    batches: bool = False, named: bool = True, part: bool = False,
) -> Feedback:  # fmt: skip
    """Votes of 40 raters in two groups that value items oppositely (sd 1); `mix` is the change of the log odds of the second group from the
    first day to the last, `batches` brings other items in each quarter, `jump` and `slope` (sd, logits; the latter over the whole time)
    move all values in common, with `part` only those of judgments on one of two axes."""
    rng = np.random.default_rng([seed, n, items])
    value, move = rng.normal(0, 0.8, items), rng.normal(0, 1, items)
    taste = rng.normal(0, 1, (2, items))
    taste -= taste.mean(0)
    rater = rng.integers(0, 40, n)
    group, axis = rater % 2, rng.integers(0, 2, n)
    k = mix * (group - 0.5)
    u = rng.random(n)
    time = u if mix == 0 else np.log1p(u * np.expm1(k)) / k
    day = np.floor(time * days)
    left = rng.integers(0, items, n)
    right = (left + rng.integers(1, items, n)) % items
    if batches:
        size = items // 4
        batch = (day * 4 // days).astype(np.int64) * size
        left, right = batch + left % size, batch + (left + 1 + right % (size - 1)) % size
    moved = (jump * (day >= TURN) + slope * day / days) * (axis == 0 if part else 1)
    values = value + taste[group] + moved[:, None] * move
    rows = np.arange(n)
    won = rng.random(n) < 1 / (1 + np.exp(values[rows, right] - values[rows, left]))
    return made(left, right, won, day, rater, rng, group=[f"g{g}" for g in group] if named else None, axis=[f"axis {a}" for a in axis])


def made(left: Any, right: Any, won: Any, day: Any, rater: Any, rng: np.random.Generator, **more: Any) -> Feedback:
    times = pl.Series(
        [START + int(d) * DAY + timedelta(seconds=int(s)) for d, s in zip(day, rng.integers(0, 86400, len(day)), strict=True)]
    )
    names = {"outcome": ["right", "left"], "response": [f"{i:03d}" for i in range(int(max(left.max(), right.max())) + 1)]}
    return Feedback.from_arrays(
        left_id=left, right_id=right, outcome=won.astype(np.int8), time=times, rater=rater, names=names,
        **{name: column for name, column in more.items() if column is not None},
    )  # fmt: skip


def alarms(seeds: range, **settings: Any) -> tuple[int, tuple[float, float]]:
    """Data sets with p at most 5%, and the 95% interval of their share."""
    found = sum(find_change(votes(seed, **settings), flips=199)[0].p <= 0.05 for seed in seeds)
    return found, wilson(found, len(seeds))


# ------------------------------------------------------------------------------------ whether


def test_a_mix_of_raters_that_changes_is_no_change():
    """R90: the second group comes to dominate (log odds by 4), known by name or not; of 12 data sets, where 5% are alarms at most 3 are."""
    for settings in ({"mix": 4.0}, {"mix": 4.0, "batches": True, "named": False}):
        found, _ = alarms(range(12), **settings)
        assert found <= 3, settings


def test_a_planted_change_is_found():
    """Of sd 1 logit: 9 of 10 at least, as a jump or gradually; and the estimate's intervals hold it."""
    for settings in ({"jump": 1.0}, {"slope": 2.0}):
        found = [find_change(votes(seed, n=2000, **settings), flips=199)[0] for seed in range(10)]
        assert sum(c.p <= 0.05 for c in found) >= 9
        if "slope" in settings:
            assert np.mean([c.gradual for c in found]) > 0.5
        else:
            truth = START + TURN * DAY
            assert not any(c.gradual for c in found)
            assert sum(c.earliest <= truth <= c.latest for c in found) >= 8  # type: ignore[operator]  # not None where found
            assert np.median([abs((c.when - truth).days) for c in found]) <= 5  # type: ignore[operator]
            assert np.mean([(c.latest - c.earliest).days for c in found]) < 50  # type: ignore[operator]


def test_a_change_on_one_axis_is_told_from_the_other():
    """The level of error is over all parts together."""
    of = [{c.name: c.p for c in find_change(votes(s, n=3000, jump=1.2, part=True), by="axis", flips=199)} for s in range(5)]
    assert sum(c["axis 0"] <= 0.05 for c in of) >= 4
    assert sum(c["axis 1"] <= 0.05 for c in of) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"mix": 4.0}, {"mix": 4.0, "batches": True}, {"mix": 4.0, "named": False}])
def test_the_size_of_the_test(settings: dict[str, Any]):
    """200 data sets: the interval of the share of false alarms at 5% reaches below 7%."""
    found, (low, _) = alarms(range(200), **settings)
    assert low < 0.07, found


@pytest.mark.slow
def test_societies_of_texts_raise_more_alarms_than_they_should():
    """Six comparisons a response, careless and opposed raters, two sittings each: the test at 5% is liberal there, as docs/findings.md says
    (8 of 60), which is why a finding is a warning from 1% only; groups that come and go over a year raise none."""
    for drift, disagreement, most in ((None, 0.5, 0.25), (Drift(months=12, groups=4.0), 1.0, 0.1)):
        made = [simulate(n_prompts=80, n_raters=40, n_judgments=2000, seed=s, drift=drift, disagreement=disagreement) for s in range(60)]
        assert sum(find_change(society.feedback, flips=199)[0].p <= 0.05 for society in made) <= most * 60


def test_what_cannot_tell_says_so():
    feedback = votes(0, n=300)
    timeless = replace(feedback, judgments=feedback.judgments.with_columns(time=None))
    assert check_change(timeless)[0].verdict == "not_applicable"
    assert "No judgment has a time" in (check_change(timeless)[0].reason or "")
    with pytest.raises(InvalidSetting, match="100 are needed"):
        find_change(feedback.filter(np.arange(300) < 50))
    nobody = replace(feedback, judgments=feedback.judgments.with_columns(rater=None))
    assert "cannot be told from one of values" in (check_change(nobody)[0].reason or "")


def test_the_finding_has_the_time():
    finding = check_change(votes(1, n=3000, jump=0.7))[0]
    assert (finding.code, finding.verdict, finding.n) == ("change", "warning", 3000)
    assert finding.low is not None
    assert finding.low > 0
    assert "2024-" in finding.title
    assert finding.details["earliest"][:10] <= "2024-04-30" <= finding.details["latest"][:10]


def test_neither_size_nor_day_is_given_where_the_statistic_cannot_tell_them(monkeypatch: pytest.MonkeyPatch):
    """Beyond a logit the statistic saturates; with few comparisons of a response even the day would be a guess."""
    large = check_change(votes(1, n=3000, jump=1.5))[0]
    assert "by 1 logit or more" in large.title
    assert large.low is None
    assert large.details["when"] is not None
    monkeypatch.setattr(change, "_OFTEN", 10_000)
    thin = check_change(votes(1, n=3000, jump=1.5))[0]
    assert "too few to say when and by how much" in thin.title
    assert (thin.low, thin.details["when"]) == (None, None)


# ------------------------------------------------------------------------------------ as feedback arrives


def test_an_alarm_comes_soon_after_a_planted_change():
    """R95: a look every 30 days, seven in all, 15 votes a day, values jump by sd 1 on day 120: the alarm comes at the first look after it or
    the second, never before, and of 4 without a change at most one alarms at some look."""
    settings: dict[str, Any] = {"every": 30 * DAY, "looks": 7}
    late = []
    for seed in range(4):
        last = watch(votes(seed, n=3000, jump=1.0), **settings)[-1]
        late.append((last.until - START).days - TURN if last.alarm else 200)
    assert min(late) > 0
    assert max(late) <= 60
    assert sum(watch(votes(seed, n=3000), **settings)[-1].alarm for seed in range(4)) <= 1


# ------------------------------------------------------------------------------------ how fits age

Path = NDArray[np.float64]


def on(path: Path, seed: int, n: int) -> Feedback:
    """Votes on items whose values are path (days, items)."""
    rng = np.random.default_rng([seed, n])
    days, items = path.shape
    day, left = rng.integers(0, days, n), rng.integers(0, items, n)
    right = (left + rng.integers(1, items, n)) % items
    won = rng.random(n) < 1 / (1 + np.exp(path[day, right] - path[day, left]))
    return made(left, right, won, day, rng.integers(0, 40, n), rng, order_known=True)


def walking(seed: int, *, step: float, items: int = 15) -> Path:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.8, items) + np.vstack([np.zeros(items), rng.normal(0, step, (359, items)).cumsum(0)])


def static(feedback: Feedback) -> Fit:
    return fit(feedback, utility=Tabular(), observation=PLAIN)


def test_the_rate_of_a_planted_drift_is_recovered():
    """R89: steps of .04 a day add .048 logits^2 in 30 days to the distance of current values from the fit's; the mean over data sets
    is within its interval of that. (Log loss need not grow: values that walk apart are easier to tell.) Without steps the rate is 0."""
    rates = {}
    for step in (0.04, 0.0):
        runs = [backtest(on(walking(s, step=step, items=40), s, 15000), {"all": static}, cuts=3, horizon=120 * DAY) for s in range(4)]
        rates[step] = np.array([run.rate["step"][0] for run in runs])
        if step:
            # of one data set: over those that vote, the realised walks being what they are
            assert sum(run.rate["step_low"][0] < 0.048 < run.rate["step_high"][0] for run in runs) >= 3
            assert (runs[0].curve["n"] > 500).all()
            assert (runs[0].curve["accuracy_low"] < runs[0].curve["accuracy"]).all()
    mean, se = rates[0.04].mean(), rates[0.04].std(ddof=1) / 2
    assert abs(mean - 0.048) < 3.2 * se
    assert mean > 0.025
    assert abs(rates[0.0].mean()) < 0.012


WAYS: dict[str, Callable[[Feedback], Fit]] = {
    "stable core": static,
    "half-life": lambda data: static(by_age(data, 5 * DAY)),
    "walk": lambda data: fit(data, utility=Dynamic(10 * DAY, Tabular()), observation=PLAIN),
}


def fad(seed: int) -> Path:
    """Values that stand still, but for five weeks before the cut."""
    path = np.tile(np.random.default_rng(seed).normal(0, 0.8, 15), (360, 1))
    path[150:185] += np.random.default_rng(seed + 100).normal(0, 1.5, 15)
    return path


def upset(seed: int) -> Path:
    """Values that are others from twelve days before the cut on."""
    path = np.tile(np.random.default_rng(seed).normal(0, 0.8, 15), (360, 1))
    path[168:] = np.random.default_rng(seed + 200).normal(0, 1.5, 15)
    return path


@pytest.mark.parametrize(("winner", "path"), [("stable core", fad), ("half-life", upset), ("walk", lambda seed: walking(seed, step=0.06))])
def test_each_way_wins_where_values_move_as_it_says(winner: str, path: Callable[[int], Path]):
    """R93: log loss on the 60 days after the cut, over four data sets; and what is steadier is said as well."""
    loss = dict.fromkeys(WAYS, 0.0)
    for seed in range(4):
        tested: Backtest = backtest(on(path(seed), seed, 6000), WAYS, cuts=2 if winner == "walk" else 1, horizon=60 * DAY)
        for row in tested.summary.iter_rows(named=True):
            loss[row["way"]] += row["log_loss"] / 4
            assert row["gain"] is not None
            if winner != "stable core" and row["way"] == winner and seed == 0:
                assert row["gain_low"] > 0
        if winner == "walk":
            restless = dict(tested.summary.select("way", "restless").iter_rows())
            assert restless["stable core"] < restless["walk"]
    assert min(loss, key=lambda way: loss[way]) == winner, loss


def test_backtest_says_what_it_takes():
    with pytest.raises(InvalidSetting, match="horizon"):
        backtest(votes(0, n=200), {"all": static}, horizon=150 * DAY)


def test_a_stale_fit_points_the_other_way_on_a_planted_topic():
    """R91: on one of three axes values are reversed in current feedback; the factor there is below 0 with its interval, elsewhere about 1."""
    rng = np.random.default_rng(3)
    value = rng.normal(0, 1, 10)

    def answers(n: int, sign: NDArray[np.float64], day: int) -> Feedback:
        left, axis = rng.integers(0, 10, n), rng.integers(0, 3, n)
        right = (left + rng.integers(1, 10, n)) % 10
        won = rng.random(n) < 1 / (1 + np.exp(sign[axis] * (value[right] - value[left])))
        return made(left, right, won, np.full(n, day), rng.integers(0, 30, n), rng, axis=[("a", "b", "c")[i] for i in axis])

    stale = static(answers(2000, np.ones(3), 0))
    found = {f.code: f for f in check_direction(stale, answers(1500, np.array([1.0, -1.0, 1.0]), 300), by="axis")}
    turned = found["stale/axis/b"]
    assert turned.verdict == "warning"
    assert turned.high is not None
    assert turned.high < 0
    assert "opposite" in turned.title
    for name in ("a", "c"):
        same = found[f"stale/axis/{name}"]
        assert same.low is not None
        assert same.high is not None
        assert 0 < same.low < 1 < same.high
        assert same.verdict == "ok"
