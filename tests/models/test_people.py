"""Who values what: latent classes and tastes, axes, contexts and periods are found where they are, and collapse where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from test_effects import PLAIN, POSITION, assert_above_0, auroc, log_loss, planted

from seamark.errors import InvalidSetting
from seamark.models import (
    Context,
    Dynamic,
    Fit,
    Groups,
    MultiAxis,
    Observation,
    Personas,
    Position,
    Reliability,
    Same,
    Tabular,
    Varying,
    fit,
    predict,
)
from seamark.models.people import labels
from seamark.records import Feedback
from seamark.simulation import Axes, Contexts, Drift, Society, Tastes, simulate
from seamark.simulation import Personas as PlantedPersonas

USUAL = Observation(effects=(Reliability(), Position()), lapse=False)
CROWD = {"n_raters": 120, "n_judgments": 3600}


def personas(seed: int = 1, **settings: Any) -> Society:
    return planted(seed, personas=PlantedPersonas((0.7, 0.3), deviation=1.0), **(CROWD | settings))


def membership(result: Fit) -> np.ndarray:
    """(R, L) posterior of each rater's level."""
    L = len(result.groups)
    return result.slope_weights[:-1].reshape(len(result.raters), L, -1).sum(2)


def gaps_by_group(result: Fit, society: Society, at: dict[str, str] | None = None) -> np.ndarray:
    i, j = np.triu_indices(society.feedback.n_responses, 1)
    return result.gaps(society.feedback, i, j, at=at).by_group


def true_gaps(values: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(values), 1)
    return values[i] - values[j]


@pytest.fixture(scope="module")
def two() -> tuple[Society, Fit]:
    society = personas()
    return society, fit(society.feedback, utility=Tabular(), people=Personas(2), observation=POSITION)


def test_personas_are_found(two: tuple[Society, Fit]):
    """30 judgments a rater; two personas whose values differ by as much as responses do."""
    society, result = two
    order = np.argsort(-result.group_share)
    assert result.group_share[order] == pytest.approx([0.7, 0.3], abs=0.12)
    assert (membership(result)[:, order].argmax(1) == society.truth.persona).mean() > 0.9
    truth = true_gaps(society.truth.value[:, None] + society.truth.persona_values)
    found = gaps_by_group(result, society)[:, order]
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.35
    assert result.separates
    assert result.latent is not None
    assert not result.latent.collapsed


def test_one_value_for_all_serves_neither_persona(two: tuple[Society, Fit]):
    """Answers of raters who were seen are foretold better by their persona than by everyone's value."""
    society, result = two
    half = np.arange(society.feedback.n_judgments) % 2 == 0
    train, rest = society.feedback.filter(half), society.feedback.filter(~half)
    scores = []
    for people in (Same(), Personas(2)):
        (p,) = predict(fit(train, utility=Tabular(), people=people, observation=POSITION), rest)
        scores.append(float((np.log(np.take_along_axis(p.probs, p.outcome[:, None], 1)[:, 0]) * p.count).sum() / p.count.sum()))
    assert scores[1] > scores[0] + 0.02
    del result


def test_a_persona_survives_saving(two: tuple[Society, Fit], tmp_path: Any):
    society, result = two
    result.save(tmp_path / "fit")
    again = Fit.load(tmp_path / "fit")
    assert again.latent == result.latent
    assert again.factors[0].levels == ("persona 1", "persona 2")
    assert np.array_equal(gaps_by_group(again, society), gaps_by_group(result, society))
    (a,), (b,) = predict(again, society.feedback), predict(result, society.feedback)
    assert np.abs(a.probs - b.probs).max() < 1e-12


@pytest.mark.parametrize("people", [Personas(2), Varying(1)])
def test_people_who_do_not_differ_raise_the_alarm(people: Personas | Varying):
    """The collapse alarm: with one population, what is left between levels is noise, and the fit says so."""
    for seed in range(2):
        result = fit(planted(seed, **CROWD).feedback, utility=Tabular(), people=people, observation=POSITION)
        assert result.latent is not None
        assert result.latent.collapsed
        assert "hardly be told apart" in result.latent.alarm
        assert any("hardly be told apart" in note for note in result.notes)


def test_labels_wanted_is_enough_and_no_more_than_twice_enough():
    """The number the fit names is checked by asking that many: memberships are then right about nine times out of ten."""
    pilot = personas(2)
    wanted = fit(pilot.feedback, utility=Tabular(), people=Personas(2), observation=POSITION).latent
    assert wanted is not None
    assert wanted.labels_wanted is not None
    rate = []
    for n in (wanted.labels_wanted, max(1, wanted.labels_wanted // 4)):
        society = personas(2, n_raters=150, n_judgments=150 * n)
        result = fit(society.feedback, utility=Tabular(), people=Personas(2), observation=POSITION)
        order = np.argsort(-result.group_share)
        rate.append(float((membership(result)[:, order].argmax(1) == society.truth.persona).mean()))
    assert rate[0] > 0.85
    assert rate[1] < rate[0]


def test_three_personas_with_careless_raters():
    society = planted(
        3, personas=PlantedPersonas((0.4, 0.35, 0.25), deviation=1.2), n_raters=150, n_judgments=7500, careless=0.1, n_responses=15
    )
    observation = Observation(effects=(Reliability(), Position()), lapse=False)
    result = fit(society.feedback, utility=Tabular(), people=Personas(3), observation=observation)
    truth = true_gaps(society.truth.value[:, None] + society.truth.persona_values)
    found = gaps_by_group(result, society)
    best = min(np.sqrt(((found[:, list(p)] - truth) ** 2).mean()) for p in permutations(range(3)))
    assert best < 0.5
    careless = society.truth.rater_kind == "careless"
    assert result.raters["p_careless"].to_numpy()[careless].mean() > 0.8
    assert (result.raters["p_opposed"].to_numpy() == 0).all()  # with personas slopes are positive


def told_apart(seed: int, conflict: bool) -> tuple[float, bool]:
    """Log likelihood that two personas gain on one population, in nats, and whether the fit of personas says that they collapsed."""
    kinds = PlantedPersonas((0.6, 0.4), deviation=0.7) if conflict else None
    society = planted(seed, n_raters=40, n_judgments=1200, n_responses=8, careless=0.1, personas=kinds)
    one, two = (
        fit(society.feedback, utility=Tabular(), people=p, observation=USUAL, require_converged=False) for p in (Same(), Personas(2))
    )
    assert two.latent is not None
    return two.convergence.log_likelihood - one.convergence.log_likelihood, two.latent.collapsed


LEVEL, GAIN = 0.05, 8.0
"""Nominal size, and the gain in log likelihood from which on two personas count as found."""


def test_conflict_is_told_from_noise():
    """40 raters with 30 judgments each, a tenth at chance and slopes that differ: 2 societies of two personas, 4 of one population.

    Two personas gain 31 nats or more where they are planted, and less than 8 where raters differ in their noise alone. The collapse alarm
    has no nominal size: it may stay silent where there is nothing to tell apart (see the slow test)."""
    planted_gain = [told_apart(seed, conflict=True) for seed in range(2)]
    noise_gain = [told_apart(seed, conflict=False) for seed in range(4)]
    print("gain, conflict:", np.round([g for g, _ in planted_gain], 1), "noise:", np.round([g for g, _ in noise_gain], 1))
    assert min(gain for gain, _ in planted_gain) > 2 * GAIN
    assert not any(collapsed for _, collapsed in planted_gain)
    assert max(gain for gain, _ in noise_gain) < GAIN


@pytest.mark.slow
def test_size_of_the_conflict_alarm():
    """200 societies that are noise alone. A gain of 8 nats or more is found in less than a twentieth of them, by the exact upper 95% bound;
    8 was set after 200 others, in which the gain had quantiles 3.7, 5.0 and 7.0 at .9, .95 and .99; found here 0 of 200, at most .018. The
    collapse alarm keeps no such size, a negative result: it stays silent, as if personas had been found, in more than a twentieth of the
    societies, by the exact lower bound; found 46 of 200, .23 [.17, .29]."""
    found = [told_apart(3000 + seed, conflict=False) for seed in range(200)]
    silent, large = sum(not collapsed for _, collapsed in found), sum(gain > GAIN for gain, _ in found)
    bounds = [stats.binomtest(k, 200).proportion_ci() for k in (silent, large)]
    print(f"collapse alarm silent in {silent} of 200 {bounds[0]}; gain above {GAIN} in {large} {bounds[1]}; quantiles of the gain",
          np.quantile([g for g, _ in found], [0.5, 0.9, 0.95, 0.99, 1]).round(2))  # fmt: skip
    assert bounds[1].high < LEVEL
    assert bounds[0].low > LEVEL


@pytest.mark.parametrize("k", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_tastes_are_found(k: int):
    society = planted(4, tastes=Tastes(k=k, sd=1.0), n_raters=120, n_judgments=6000)
    result = fit(society.feedback, utility=Tabular(), people=Varying(k, points=7), observation=POSITION)
    assert result.latent is not None
    assert not result.latent.collapsed
    assert result.separates
    # spread of gaps over people, which does not depend on how tastes are turned
    i, j = np.triu_indices(society.feedback.n_responses, 1)
    found = result.gaps(society.feedback, i, j).disagreement
    T = society.truth.taste_values
    truth = np.sqrt(((T[i] - T[j]) ** 2).sum(1))
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    assert found.mean() / truth.mean() == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one other question", "a question of one's own"])
def test_misreaders_are_ranked_by_their_slope_and_not_set_apart(shared: bool):
    """A fifth of 60 raters answer another question on 3 prompts of 10 (values that have nothing to do with the right ones): 6% of answers.

    Partly a negative result. Slopes tell misreaders, whose answers follow the right question seven times in ten: AUROC above .75 by its
    interval over 6 societies of 100 judgments a rater. But they are not isolated: the lapse rate, which is the same for all, takes up
    about .4 of the 6%, and two personas do not come out as misreaders and the rest: one of the two holds most of them, but its share is
    .4 where theirs is .2. There is no term for a rater by a prompt.
    """
    rows: list[list[float]] = []
    for seed in range(6):
        society = planted(seed, n_raters=60, n_judgments=6000, position=0.0)
        rng, frame = np.random.default_rng(seed), society.feedback.judgments
        rater, prompt = frame["rater"].to_numpy(), frame["prompt"].to_numpy()
        shown = np.array(frame["responses"].to_list())
        misreads, odd = rng.permutation(60) < 12, rng.permutation(10) < 3
        wrong = misreads[rater] & odd[prompt]
        n = society.feedback.n_responses
        other = 1.2 * (np.tile(rng.normal(size=n), (60, 1)) if shared else rng.normal(size=(60, n)))
        gap = other[rater, shown[:, 0]] - other[rater, shown[:, 1]]
        answer = np.where(rng.random(len(gap)) < 1 / (1 + np.exp(-gap)), "left", "right")
        outcome = pl.Series(np.where(wrong, answer, frame["outcome"].to_numpy()))
        feedback = replace(society.feedback, judgments=frame.with_columns(outcome=outcome))
        slopes = fit(feedback, utility=Tabular(), observation=Observation(effects=(Reliability(),), lapse=True))
        classes = fit(feedback, utility=Tabular(), people=Personas(2), observation=Observation(effects=(), lapse=False))
        member = membership(classes)
        told = max(auroc(member[:, k], misreads) for k in (0, 1))
        rows.append([auroc(-slopes.raters["slope"].to_numpy(), misreads), slopes.lapse / wrong.mean(), told, classes.group_share.min()])
    x = np.array(rows)
    half = stats.t.ppf(0.975, 5) * x.std(0, ddof=1) / np.sqrt(6)
    print("AUROC of slopes, lapse over share misread, AUROC of a persona, its share:", x.mean(0).round(3), "+-", half.round(3))
    assert x[:, 0].mean() - half[0] > 0.75
    assert x[:, 1].mean() + half[1] < 0.75
    assert x[:, 2].mean() - half[2] > 0.75
    assert x[:, 3].mean() - half[3] > 0.2


# ------------------------------------------------------------------------------------ axes, contexts, periods


def test_axes_share_what_they_share():
    """Each axis is judged on half of the responses; what is shared carries over to the other half."""
    society = planted(5, axes=Axes(deviation=0.4), n_judgments=4000, n_responses=16)
    frame = society.feedback.judgments
    hidden = np.array([axis == "honest" and max(r) >= 8 for axis, r in zip(frame["axis"], frame["responses"].to_list(), strict=True)])
    result = fit(society.feedback.filter(~hidden), utility=MultiAxis(Tabular()), observation=POSITION)
    names = list(result.factors[0].levels)
    assert names == ["harmless", "helpful", "honest"]
    for name in names:
        number = ("helpful", "honest", "harmless").index(name)
        u = result.utilities(society.feedback, at={"axis": name})
        v = society.truth.value + society.truth.axis_values[:, number]
        assert np.corrcoef(u, v)[0, 1] > 0.93
    alone = fit(
        society.feedback.filter(~hidden & (frame["axis"] == "honest").to_numpy()), utility=Tabular(), observation=POSITION,
        require_identified=False,
    )  # fmt: skip
    assert alone.basis.n_responses == 8  # by itself the axis says nothing of the other half
    assert result.prior["values of axis_sd"] == pytest.approx(0.4, abs=0.2)


@pytest.mark.parametrize("deviation", [0.0, 0.5])
def test_what_one_number_for_all_axes_loses(deviation: float):
    """Held-out log loss of one value for all axes less that of a value for each: what collapsing them costs, in nats a judgment.

    Half of 3,000 judgments about two axes, 6 societies. Expected: 0 where the axes are one, up to what fitting deviations that are not
    there costs; above 0 where they deviate by .5 logits. There the planted deviations are recovered, and the one value has none of them:
    it foretells both axes alike.
    """
    gain, found = [], []
    for seed in range(6):
        society = planted(seed, axes=Axes(("helpful", "honest"), deviation=deviation), n_judgments=3000)
        half = np.random.default_rng(seed).random(3000) < 0.5
        train, rest = society.feedback.filter(half), society.feedback.filter(~half)
        axes, one = (fit(train, utility=u, observation=POSITION) for u in (MultiAxis(Tabular()), Tabular()))
        gain.append(log_loss(one, rest) - log_loss(axes, rest))
        deviations = axes.utilities(society.feedback, at={"axis": "helpful"}) - axes.utilities(society.feedback, at={"axis": "honest"})
        truth = society.truth.axis_values[:, 0] - society.truth.axis_values[:, 1]
        found.append(np.corrcoef(deviations, truth)[0, 1] if deviation else np.abs(deviations).mean())
        with pytest.raises(InvalidSetting, match="differ by nothing"):
            one.utilities(society.feedback, at={"axis": "honest"})
    if deviation:
        assert_above_0(gain, "log loss of one value less that of a value for each axis")
        assert np.min(found) > 0.85
    else:
        print(f"cost of axes that are one: {-np.mean(gain):.4f} +- {np.std(gain, ddof=1) / np.sqrt(6):.4f} nats")
        assert abs(np.mean(gain)) + 2 * np.std(gain, ddof=1) / np.sqrt(6) < 0.004
        assert np.max(found) < 0.3


def test_weights_of_axes_are_recovered():
    """Overall judgments by .8 helpful + .4 honest, two axes that have nothing to do with each other: regressing the values fitted to the
    overall judgments on those of the two axes gives .8 and .4, each within a 95% interval over 8 societies (12 responses, 2,000 judgments
    an axis). One value for all judgments has lost the weaker axis: its correlation with it is the lower, below that of its own."""
    names, weights = ("helpful", "honest", "overall"), np.array([0.8, 0.4])
    found, lost = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        value = rng.normal(size=(12, 2))
        value = np.column_stack([value, value @ weights])
        left, axis = rng.integers(12, size=6000), rng.integers(3, size=6000)
        right = (left + rng.integers(1, 12, size=6000)) % 12
        won = rng.random(6000) < 1 / (1 + np.exp(value[right, axis] - value[left, axis]))
        feedback = Feedback.from_arrays(left_id=left, right_id=right, outcome=won, axis=np.array(names)[axis])
        observation = Observation(effects=(), lapse=False)
        axes, one = (fit(feedback, utility=u, observation=observation) for u in (MultiAxis(Tabular()), Tabular()))
        u = np.column_stack([axes.utilities(feedback, at={"axis": name}) for name in names])
        u = u - u.mean(0)
        found.append(np.linalg.lstsq(u[:, :2], u[:, 2], rcond=None)[0])
        honest = value[feedback.responses["name"].cast(int).to_numpy(), 1]
        lost.append(np.corrcoef(u[:, 1], honest)[0, 1] - np.corrcoef(one.utilities(feedback), honest)[0, 1])
    mean, half = np.mean(found, 0), stats.t.ppf(0.975, 7) * np.std(found, 0, ddof=1) / np.sqrt(8)
    print(f"weights {mean.round(3)} +- {half.round(3)}")
    assert (np.abs(mean - weights) < half).all()
    assert (half < 0.1).all()
    assert_above_0(lost, "correlation with the weaker axis, of its own values less of the one value")


def test_contexts_interact():
    society = planted(6, contexts=Contexts(deviation=0.8))
    result = fit(society.feedback, utility=Context("pair_type", Tabular()), observation=POSITION)
    for number, name in enumerate(("work", "leisure")):
        u = result.utilities(society.feedback, at={"context": name})
        v = society.truth.value + society.truth.context_values[:, number]
        assert np.corrcoef(u, v)[0, 1] > 0.97
    with pytest.raises(InvalidSetting, match="leisure, work"):
        result.utilities(society.feedback, at={"context": "sport"})
    with pytest.raises(InvalidSetting, match="differ by context"):
        result.utilities(society.feedback, at={"axis": "helpful"})


MONTH = timedelta(days=30)


def _path(result: Fit, society: Society) -> np.ndarray:
    """(n_responses, periods) utility in each period, centred."""
    periods = result.factors[-1].levels
    u = np.stack([result.utilities(society.feedback, at={"period": p}) for p in periods], 1)
    return u - u.mean(0)


def test_values_that_move_are_followed():
    society = planted(7, drift=Drift(value_sd=0.25), n_judgments=8000)
    moving = fit(society.feedback, utility=Dynamic(MONTH, Tabular()), observation=POSITION)
    assert moving.prior["values of period_sd"] == pytest.approx(0.25, abs=0.1)
    truth = society.truth.value[:, None] + society.truth.drift
    found = _path(moving, society)[:, : truth.shape[1]]
    error = np.sqrt(((found - (truth - truth.mean(0))) ** 2).mean())
    still = fit(society.feedback, utility=Tabular(), observation=POSITION).utilities(society.feedback)
    static = np.sqrt((((still - still.mean())[:, None] - (truth - truth.mean(0))) ** 2).mean())
    assert error < 0.6 * static
    last = moving.utilities(society.feedback)  # left out, the period is the last
    assert np.corrcoef(last, truth[:, -1])[0, 1] > 0.95


def test_a_mix_of_raters_that_moves_is_no_drift_of_values():
    """Careless raters come to dominate: slopes take it up, and the steps of the values stay small."""
    society = planted(8, drift=Drift(careless=4.0), careless=0.3, n_judgments=8000)
    observation = Observation(effects=(Reliability(), Position()), lapse=False)
    result = fit(society.feedback, utility=Dynamic(MONTH, Tabular()), observation=observation)
    path = _path(result, society)
    assert np.abs(np.diff(path, axis=1)).mean() < 0.06
    assert np.corrcoef(path[:, 0], path[:, -1])[0, 1] > 0.98
    # groups that come and go are taken up by groups
    society = simulate(**(PLAIN | {"groups": 2, "disagreement": 1.0, "n_judgments": 8000, "drift": Drift(groups=4.0)}), seed=8)
    steps = []
    for people in (Same(), Groups()):
        result = fit(society.feedback, utility=Dynamic(MONTH, Tabular()), people=people, observation=POSITION)
        steps.append(np.abs(np.diff(_path(result, society), axis=1)).mean())
    assert steps[1] < 0.5 * steps[0]


def test_periods_take_times():
    society = planted(9, n_judgments=300)
    with pytest.raises(InvalidSetting, match="one period"):
        fit(society.feedback, utility=Dynamic(timedelta(days=3000), Tabular()))
    without = replace(society.feedback, judgments=society.feedback.judgments.with_columns(time=None))
    with pytest.raises(InvalidSetting, match="time"):
        fit(without, utility=Dynamic(MONTH, Tabular()))


def test_latent_people_take_raters():
    society = planted(9, n_judgments=300)
    unknown = replace(society.feedback, judgments=society.feedback.judgments.with_columns(rater=None))
    del unknown
    with pytest.raises(InvalidSetting, match="Use 2 to 20"):
        Personas(1)
    with pytest.raises(InvalidSetting, match="Use 1 or 2"):
        Varying(3)


def _profiled(*profiles: dict[str, Any] | None) -> Feedback:
    """One judgment by a rater of each profile."""
    n = len(profiles)
    columns = {
        "kind": ["pair"] * n,
        "prompt": ["p"] * n,
        "texts": [["a", "b"]] * n,
        "outcome": ["left"] * n,
        "rater": [f"r{i}" for i in range(n)],
    }
    return Feedback.from_columns(columns | {"rater_profile": [None if p is None else json.dumps(p) for p in profiles]})


def test_a_profile_is_read_by_its_whole_name():
    """A name with a comma, a space or a dot is that column, and no other one that it begins with."""
    feedback = _profiled({"gender": "woman", "age group": "old", "a.b": "c", "it's": "d"}, None)
    for name, level in (("gender", "woman"), ("age group", "old"), ("a.b", "c"), ("it's", "d"), ("gender,profile.age", None)):
        assert feedback.rater_profile(name).to_list() == [level, None]
    assert feedback.profile_names == ("a.b", "age group", "gender", "it's")


def test_a_column_that_no_rater_has_names_the_nearest():
    feedback = _profiled({"gender": "woman"}, {"gender": "man"})
    assert labels(feedback, "profile.gender").to_list() == ["woman", "man"]
    for by in ("profile.gendre", "profile.gender,profile.nosuch"):
        with pytest.raises(InvalidSetting, match=r"not known of any rater; the nearest that is known is profile\.gender"):
            labels(feedback, by)
    with pytest.raises(InvalidSetting, match="the nearest known is group"):
        labels(feedback, "gruop")
    with pytest.raises(InvalidSetting, match="none has a profile"):
        labels(_profiled(None), "profile.gender")
    with pytest.raises(InvalidSetting, match=r"group is 'profile\.nosuch'"):
        fit(feedback, utility=Tabular(), people=Groups(by=("profile.gender", "profile.nosuch"), min_judgments=1))


# ------------------------------------------------------------------------------------ the three doubts against personas that are known


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (6, 7))])
def test_a_minority_is_no_crowd_at_chance(seed: int):
    """With reliability, a minority of 3 in 10 was once taken for raters at chance: a mode a thousand nats below that found from the truth."""
    society = personas(seed, n_judgments=14_400)
    result = fit(society.feedback, utility=Tabular(), people=Personas(2), observation=USUAL)
    order = np.argsort(-result.group_share)
    assert (membership(result)[:, order].argmax(1) == society.truth.persona).all()
    assert result.prior["share at chance"] < 0.02
    from_truth = fit(
        society.feedback, utility=Tabular(), people=Personas(2), observation=USUAL,
        start=fit(society.feedback, utility=Tabular(), people=Personas(2), observation=POSITION),
    )  # fmt: skip
    assert result.convergence.log_likelihood == pytest.approx(from_truth.convergence.log_likelihood, abs=2)


def doubts_against_truth(seeds: range, shares: tuple[float, ...], **settings: Any) -> dict[str, tuple[float, float]]:
    """Mean over societies and standard error of: squared errors of gaps over their ignorance squared, how often the interval of p holds
    the exact one, disagreement and response noise over the exact ones, errors of p away from one half, and ignorance."""
    rows: dict[str, list[float]] = {name: [] for name in ("error", "covered", "disagreement", "noise", "p", "ignorance")}
    for seed in seeds:
        society = planted(seed, personas=PlantedPersonas(shares, deviation=1.0), **(CROWD | settings))
        result = fit(society.feedback, utility=Tabular(), people=Personas(len(shares)), observation=USUAL)
        i, j = np.triu_indices(society.feedback.n_responses, 1)
        by_persona = true_gaps(society.truth.value[:, None] + society.truth.persona_values)
        share = np.array(shares)
        gap = by_persona @ share
        p = (1 / (1 + np.exp(-by_persona))) @ share
        names = society.feedback.responses["name"].to_list()
        said = [result.compare(names[a], names[b]) for a, b in zip(i, j, strict=True)]
        found = {name: np.array([getattr(c, name) for c in said]) for name in ("p", "low", "high", "gap", "ignorance", "disagreement")}
        rows["error"].append(float(((found["gap"] - gap) ** 2).mean() / (found["ignorance"] ** 2).mean()))
        rows["covered"].append(float(((found["low"] < p) & (p < found["high"])).mean()))
        rows["disagreement"].append(float(found["disagreement"].mean() / np.sqrt(by_persona**2 @ share - gap**2).mean()))
        rows["noise"].append(said[0].response_noise / (np.pi / np.sqrt(3) / society.truth.slope.mean()))
        rows["p"].append(float(((found["p"] - p) * np.sign(p - 0.5)).mean()))
        rows["ignorance"].append(float(found["ignorance"].mean()))
    return {name: (float(np.mean(x)), float(np.std(x, ddof=1) / np.sqrt(len(x)))) for name, x in rows.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("shares", "settings"), [((0.7, 0.3), {}), ((0.5, 0.3, 0.2), {}), ((0.6, 0.4), {"careless": 0.2})])
def test_three_doubts_agree_with_personas_that_are_known(shares: tuple[float, ...], settings: dict[str, Any]):
    """20 societies each. Exact: p and the spread of gaps over the personas and their shares; an answer's noise is that of a careful one over
    the mean slope; ignorance is exact where errors are as large as it says. Four times the judgments by the same raters halve
    ignorance and leave the others."""
    few, many = (doubts_against_truth(range(20), shares, n_judgments=n, **settings) for n in (3600, 14_400))
    for found in (few, many):
        print({name: f"{mean:.3f} +- {se:.3f}" for name, (mean, se) in found.items()})
        assert abs(found["error"][0] - 1) < 3 * found["error"][1], found
        assert abs(found["covered"][0] - 0.95) < 3 * max(found["covered"][1], 0.01), found
        assert abs(found["disagreement"][0] - 1) < 3 * found["disagreement"][1] + 0.02, found
        assert abs(found["noise"][0] - 1) < 3 * found["noise"][1] + 0.03, found
        assert abs(found["p"][0]) < 3 * found["p"][1] + 0.005, found
    assert many["ignorance"][0] / few["ignorance"][0] == pytest.approx(0.55, abs=0.1)
    assert many["disagreement"][0] == pytest.approx(few["disagreement"][0], abs=0.06)
    assert many["noise"][0] == pytest.approx(few["noise"][0], abs=0.06)


# ------------------------------------------------------------------------------------ cells


def crossed(seed: int, n_raters: int = 240, n_pairs: int = 20) -> tuple[Feedback, np.ndarray]:
    """Raters of 4 ages and 3 regions, and the gaps (12, n_pairs) of the cells: ages differ by .9 logits, regions by .2."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(0, 0.8, n_pairs) + (rng.normal(0, 0.9, (4, 1, n_pairs)) + rng.normal(0, 0.2, (1, 3, n_pairs)))
    age, region = rng.integers(0, 4, n_raters), rng.integers(0, 3, n_raters)
    gone = (age == 3) & (region == 2)  # nobody is both
    region[gone] = 0
    won = rng.random((n_raters, n_pairs)) < 1 / (1 + np.exp(-gaps[age, region]))
    r, p = np.divmod(np.arange(won.size), n_pairs)
    profile = [json.dumps({"age": f"age {a}", "region": f"region {b}"}) for a, b in zip(age, region, strict=True)]
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * won.size, "ids": [[f"left {i}", f"right {i}"] for i in p], "prompt": [f"pair {i}" for i in p],
            "outcome": np.where(won.ravel(), "left", "right").tolist(), "rater": [f"rater {i}" for i in r], "rater_profile": [profile[i] for i in r],
        }
    )  # fmt: skip
    return feedback, gaps.reshape(12, n_pairs)


CELLS = Groups(("profile.age", "profile.region"))
BARE = Observation(effects=(), lapse=False)


def cell_gaps(result: Fit, feedback: Feedback, n_pairs: int = 20) -> Any:
    place = {name: i for i, name in enumerate(feedback.responses["name"].to_list())}
    left, right = (np.array([place[f"{side} {i}"] for i in range(n_pairs)]) for side in ("left", "right"))
    return result.gaps(feedback, left, right)


@pytest.fixture(scope="module")
def cells() -> tuple[Feedback, np.ndarray, Fit]:
    feedback, gaps = crossed(0)
    return feedback, gaps, fit(feedback, utility=Tabular(), people=CELLS, observation=BARE)


def test_cells_add_up_the_deviations_of_their_columns(cells: tuple[Feedback, np.ndarray, Fit]):
    feedback, truth, result = cells
    assert result.groups == tuple(f"age {a} · region {b}" for a in range(4) for b in range(3))
    found = cell_gaps(result, feedback).by_group.T
    corners = found.reshape(4, 3, -1)
    assert np.abs(corners[0, 0] + corners[1, 1] - corners[0, 1] - corners[1, 0]).max() < 1e-9
    assert result.group_share[11] == 0
    assert result.group_share.sum() == pytest.approx(1)
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.36
    assert np.sqrt(((found[11] - truth[11]) ** 2).mean()) < 0.5  # nobody answered there


def test_each_column_has_a_spread_of_its_own(cells: tuple[Feedback, np.ndarray, Fit]):
    """Of gaps between two responses, whose deviations have the spread of one times sqrt 2; 80 and 60 deviations tell it to about a tenth
    and, beside their noise, a half."""
    prior = cells[2].prior
    assert prior["values of group by profile.age_sd"] * np.sqrt(2) == pytest.approx(0.9, abs=0.2)
    assert prior["values of group by profile.region_sd"] * np.sqrt(2) == pytest.approx(0.2, abs=0.12)


@pytest.mark.slow
def test_intervals_of_cells_hold_the_truth():
    """90% intervals of 20 replications of 240 gaps; cells of a replication share their columns, 7 of them, so about 20 x 20 x 7 / 2 are
    independent, and three binomial standard errors of .9 are .024. Empty cells, 400 gaps, are counted apart: .045."""
    hits, empty = [], []
    for seed in range(20):
        feedback, truth = crossed(100 + seed)
        result = fit(feedback, utility=Tabular(), people=CELLS, observation=BARE)
        for c, name in enumerate(result.groups):
            place = {n: i for i, n in enumerate(feedback.responses["name"].to_list())}
            left, right = (np.array([place[f"{side} {i}"] for i in range(20)]) for side in ("left", "right"))
            gaps = result.gaps(feedback, left, right, group_weights={name: 1.0})
            (empty if c == 11 else hits).append(np.abs(gaps.mean - truth[c]) < 1.645 * gaps.wider)
    assert np.mean(hits) == pytest.approx(0.9, abs=0.04)
    assert np.mean(hits) > 0.9 - 0.024
    assert np.mean(empty) > 0.9 - 0.045


def test_an_interaction_doubts_what_columns_do_not_tell():
    rng = np.random.default_rng(5)
    feedback, _ = crossed(1)
    both = fit(feedback, utility=Tabular(), people=replace(CELLS, interaction=True), observation=BARE)
    assert both.spec["people"] == {"people": "Groups", "by": ["profile.age", "profile.region"], "min_judgments": 30, "interaction": True}
    assert both.prior["values of group by cell_sd"] > 0
    plain = fit(feedback, utility=Tabular(), people=CELLS, observation=BARE)
    place = rng.permutation(feedback.n_responses)[:20]
    empty = {"group_weights": {"age 3 · region 2": 1.0}}
    doubt = [result.gaps(feedback, place[:10], place[10:], **empty).ignorance for result in (plain, both)]
    assert (doubt[1] > doubt[0]).all()


def test_cells_survive_saving_and_predict(cells: tuple[Feedback, np.ndarray, Fit], tmp_path: Any):
    feedback, _, result = cells
    result.save(tmp_path / "fit")
    again = Fit.load(tmp_path / "fit")
    assert again.factors[0].by == ("profile.age", "profile.region")
    assert again.factors[0].parts == result.factors[0].parts
    assert again.spec == result.spec
    assert np.array_equal(cell_gaps(again, feedback).by_group, cell_gaps(result, feedback).by_group)
    (a,), (b,) = predict(again, feedback), predict(result, feedback)
    assert np.abs(a.probs - b.probs).max() < 1e-12
    twice = fit(feedback, utility=Tabular(), people=CELLS, observation=BARE)
    assert np.array_equal(twice.weights, result.weights)


def test_fits_saved_before_there_were_cells_load(cells: tuple[Feedback, np.ndarray, Fit], tmp_path: Any):
    feedback, _, _ = cells
    result = fit(feedback, utility=Tabular(), people=Groups("profile.age"), observation=BARE)
    assert result.spec["people"] == {"people": "Groups", "by": "profile.age", "min_judgments": 30}
    result.save(tmp_path / "fit")
    path = tmp_path / "fit" / "fit.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for factor in record["factors"]:
        del factor["parts"]
    path.write_text(json.dumps(record), encoding="utf-8")
    again = Fit.load(tmp_path / "fit")
    assert np.array_equal(cell_gaps(again, feedback).by_group, cell_gaps(result, feedback).by_group)


def test_a_rater_of_whom_a_column_is_not_known_is_of_no_cell():
    feedback, _ = crossed(2)
    raters = feedback.raters.with_columns(
        profile=pl.when(pl.col("id") == "rater 0").then(pl.lit('{"age": "age 0"}')).otherwise(pl.col("profile"))
    )
    codes = CELLS.factor(feedback).codes(replace(feedback, raters=raters))
    mine = (feedback.judgments["rater"] == feedback.raters["id"].to_list().index("rater 0")).to_numpy()
    assert (codes[mine] == 12).all()
    assert (codes[~mine] < 12).all()


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (("profile.age",), "two columns or more"),
        (("profile.age", "profile.age"), "each once"),
        (("profile.age", "profile.income"), "not known of any rater; the nearest that is known is profile.age"),
    ],
)
def test_cells_that_cannot_be_are_refused(by: tuple[str, ...], said: str, cells: tuple[Feedback, np.ndarray, Fit]):
    with pytest.raises(InvalidSetting, match=said):
        Groups(by).factor(cells[0])
    with pytest.raises(InvalidSetting, match="two columns or more to interact"):
        Groups("profile.age", interaction=True)


def test_cells_of_one_name_are_refused():
    levels = [("a · b", "c"), ("a", "b · c")] * 40
    given: dict[str, Any] = {
        "kind": ["thumbs"] * 80,
        "outcome": ["answered"] * 80,
        "texts": [[f"{i}"] for i in range(80)],
        "thumb": [True] * 80,
    }
    profile = [json.dumps({"one": one, "two": two}) for one, two in levels]
    feedback = Feedback.from_columns(given | {"rater": [f"rater {i}" for i in range(80)], "rater_profile": profile})
    with pytest.raises(InvalidSetting, match="same name"):
        Groups(("profile.one", "profile.two")).factor(feedback)
