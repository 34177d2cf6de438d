"""From fit and charter to one reward: hand-solved rules, floors that veto, pairs and prompts that agree."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from seamark.aggregation import Charter, Collective, Electorate, Floors, InvalidCharter, collective_gaps
from seamark.aggregation.charter import POINTWISE, Rule
from seamark.aggregation.collective import VETO, lay_out, require_meetable, take, weighted_median
from seamark.models import Fit, Groups, MultiAxis, Observation, Personas, Position, Tabular, Varying, fit
from seamark.records import Feedback
from seamark.simulation import Axes, Society, simulate

PLAIN = Observation(effects=(Position(),), lapse=False)
RULES = [r for r in get_args(Rule) if r != "mixture"]


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    apart: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "n_raters": 30, "group_shares": (0.7, 0.3), "disagreement": 1.5}
    society = simulate(n_prompts=12, n_responses=5, n_judgments=2500, **apart, seed=1)
    return society, fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)


def _prompts(feedback: Feedback) -> np.ndarray:
    return feedback.responses["prompt"].cast(int).to_numpy().astype(np.int64)


def _charter(rule: str, **more: Any) -> Charter:
    share = {"share": 0.4} if rule in ("quantile", "cvar") else {}
    return Charter.model_validate({"rule": rule, "ignorance_penalty": 0.0} | share | more)


def by_hand(by_person: np.ndarray, weights: np.ndarray, charter: Charter | None = None, shortfall: np.ndarray | None = None) -> Collective:
    n = by_person.shape[1]
    names = tuple(f"g{i}" for i in range(len(weights)))
    nothing = np.zeros(n) if shortfall is None else shortfall
    return Collective(charter or _charter("expected-utility"), by_person, weights, names, weights @ by_person, np.zeros(n), nothing)


def test_the_default_is_the_mean_less_ignorance(divided: tuple[Society, Fit]):
    society, result = divided
    found = Collective.of(result, Charter(ignorance_penalty=2.0), society.feedback)
    expected = result.utilities(society.feedback) - 2.0 * result.ignorance(society.feedback)
    assert found.scores(_prompts(society.feedback)) == pytest.approx(expected)
    assert found.weights @ found.by_person == pytest.approx(found.mean)


def test_pointwise_rules_by_hand():
    """Three kinds of people of weight .5, .3 and .2, and one response worth 3, 0 and -1 to them."""
    value, weights = np.array([[3.0], [0.0], [-1.0]]), np.array([0.5, 0.3, 0.2])
    worth = {"expected-utility": 1.3, "median": 0.0, "quantile": 0.0, "cvar": -0.5, "maximin": -1.0}
    assert set(worth) == set(POINTWISE)
    for rule, expected in worth.items():
        assert by_hand(value, weights, _charter(rule)).scores(np.zeros(1, dtype=np.int64))[0] == pytest.approx(expected), rule


def test_rules_that_choose_score_within_a_prompt():
    """51% A > B > C, 49% B > C > A: Borda chooses B and Copeland A; a response that is alone has no score."""
    by_person = np.array([[2.0, 1.0, 0.0, 5.0], [0.0, 2.0, 1.0, 5.0]])
    prompt, weights = np.array([0, 0, 0, 1]), np.array([0.51, 0.49])
    for rule, winner in (("borda", 1), ("copeland", 0), ("maximal-lottery", 0)):
        scores = by_hand(by_person, weights, _charter(rule)).scores(prompt)
        assert int(np.nanargmax(scores)) == winner
        assert np.isnan(scores[3])


@pytest.mark.parametrize("rule", RULES)
def test_pairs_are_decided_as_prompts_of_two(rule: str, divided: tuple[Society, Fit]):
    society, result = divided
    charter = _charter(rule)
    found = Collective.of(result, charter, society.feedback)
    left, right = np.arange(0, 40), np.arange(1, 41)
    margin = found.margins(left, right)
    decided = found.decide(np.stack([left, right], axis=1))
    assert (np.sign(margin) == decided.winners[:, 0].astype(int) - decided.winners[:, 1]).all()
    swapped = found.margins(right, left)
    assert swapped == pytest.approx(-margin, abs=1e-9)


def test_one_kind_of_people_leaves_every_rule_the_same_choice():
    """R33 of the trivial kind: where nobody differs there is nothing to aggregate."""
    society = simulate(n_prompts=8, n_responses=4, n_judgments=600, groups=1, disagreement=0.0, seed=3)
    result = fit(society.feedback, utility=Tabular(), observation=PLAIN)
    laid = lay_out(_prompts(society.feedback), np.ones(society.feedback.n_responses, dtype=bool))
    winners = {rule: Collective.of(result, _charter(rule), society.feedback).decide(laid).winners for rule in RULES if rule != "approval"}
    assert all((w == winners["expected-utility"]).all() for w in winners.values())


# ------------------------------------------------------------------------------------ floors


def test_what_is_below_a_floor_loses_to_what_is_not():
    by_person = np.array([[5.0, 1.0, 0.0], [-2.0, 0.5, 0.0]])
    found = by_hand(by_person, np.array([0.9, 0.1]), shortfall=np.array([2.0, 0.0, 0.0]))
    scores = found.scores(np.zeros(3, dtype=np.int64))
    assert scores == pytest.approx([4.3 - VETO - 2.0, 0.95, 0.0])
    decided = found.decide(np.array([[0, 1, 2]]))
    assert decided.winners.tolist() == [[False, True, False]]
    nobody = by_hand(by_person, np.array([0.9, 0.1]), shortfall=np.ones(3)).decide(np.array([[0, 1, 2]]))
    assert nobody.status == ("no consensus",)


@pytest.mark.parametrize("rule", ["copeland", "kemeny", "instant-runoff", "maximal-lottery", "borda", "nash"])
def test_a_veto_is_below_all_that_is_allowed_and_no_option_for_it(rule: str):
    """Eight responses of which the best is vetoed: the others score as if it were not there."""
    rng = np.random.default_rng(1)
    by_person = rng.normal(size=(3, 8))
    by_person[:, 0] += 3
    weights, prompt = np.array([0.5, 0.3, 0.2]), np.zeros(8, dtype=np.int64)
    scores = by_hand(by_person, weights, _charter(rule), np.array([0.1, *[0.0] * 7])).scores(prompt)
    alone = by_hand(by_person[:, 1:], weights, _charter(rule)).scores(prompt[1:])
    assert scores[1:] == pytest.approx(alone)
    assert scores[0] == pytest.approx(alone.min() - VETO - 0.1)


def test_margins_of_rules_that_see_utilities():
    """Nash may prefer what the majority does not: the margin has the sign of its choice and the size of the mean gap."""
    by_person = np.array([[8.0, 0.0], [-0.2, 0.0], [-0.2, 0.0]])
    margin = by_hand(by_person, np.array([0.4, 0.3, 0.3]), _charter("nash")).margins(np.array([0]), np.array([1]))
    assert margin == pytest.approx([0.4 * 8 - 0.6 * 0.2])


def test_floors_of_groups_and_of_pairs(divided: tuple[Society, Fit]):
    society, result = divided
    B = result.groups[1]
    floor = float(np.median(result.by_person(society.feedback)[1]))
    charter = _charter("expected-utility", floors=Floors(groups={B: floor}))
    found = Collective.of(result, charter, society.feedback)
    below = result.by_person(society.feedback)[1] < floor
    assert ((found.shortfall > 0) == below).all()
    left, right = np.flatnonzero(below)[:10], np.flatnonzero(~below)[:10]
    assert (found.margins(left, right) < 0).all()
    assert (found.margins(left[:5], left[5:]) == 0).all()


def test_a_floor_that_nobody_meets_is_refused(divided: tuple[Society, Fit]):
    society, result = divided
    charter = _charter("expected-utility", floors=Floors(groups={result.groups[0]: 50.0}))
    with pytest.raises(InvalidCharter, match=r"no response of 60 meets the floors \(group A 50 logits\); the nearest misses by"):
        require_meetable(Collective.of(result, charter, society.feedback), _prompts(society.feedback))


# ------------------------------------------------------------------------------------ electorate and axes


def test_an_electorate_of_some_groups(divided: tuple[Society, Fit]):
    society, result = divided
    charter = _charter("expected-utility", electorate=Electorate(groups=(result.groups[1],)))
    found = Collective.of(result, charter, society.feedback)
    assert found.weights.tolist() == [0.0, 1.0]
    left, right = np.arange(0, 40), np.arange(1, 41)
    gaps = collective_gaps(result, charter, society.feedback, left, right)
    assert found.margins(left, right) == pytest.approx(gaps.mean)
    ranked = Collective.of(result, _charter("copeland", electorate=Electorate(groups=(result.groups[1],))), society.feedback)
    assert ranked.margins(left, right) == pytest.approx(gaps.mean)  # one group is its own majority
    assert found.mean == pytest.approx(result.by_person(society.feedback)[1])


def test_axes_are_weighed_exactly():
    """R32: the charter's trade-off is linear in the axes, so that half and half lies half-way."""
    society = simulate(n_prompts=10, n_responses=4, n_judgments=1500, axes=Axes(("helpful", "harmless")), seed=4)
    result = fit(society.feedback, utility=MultiAxis(Tabular()), observation=PLAIN)
    one, two, both = (
        Collective.of(result, _charter("expected-utility", axes=axes), society.feedback).mean
        for axes in ({"helpful": 1.0}, {"harmless": 1.0}, {"helpful": 0.25, "harmless": 0.75})
    )
    assert both == pytest.approx(0.25 * one + 0.75 * two)
    assert np.abs(one - two).max() > 0.3
    with pytest.raises(InvalidCharter, match=r"axes names axis 'brief'.*helpful"):
        Collective.of(result, _charter("expected-utility", axes={"brief": 1.0}), society.feedback)
    floor = _charter("expected-utility", floors=Floors(axes={"harmless": 0.0}))
    found = Collective.of(result, floor, society.feedback)
    assert ((found.shortfall > 0) == (two < 0)).all()


def test_personas_are_people(divided: tuple[Society, Fit]):
    society, _ = divided
    result = fit(society.feedback, utility=Tabular(), people=Personas(2), observation=PLAIN, require_converged=False)
    found = Collective.of(result, _charter("maximin"), society.feedback)
    assert found.scores(_prompts(society.feedback)) == pytest.approx(result.by_person(society.feedback).min(0))


# ------------------------------------------------------------------------------------ parts


def test_laid_out_prompts():
    prompt, known = np.array([2, 0, 2, -1, 0, 2, 5]), np.array([True, True, False, True, True, True, True])
    laid = lay_out(prompt, known)
    assert laid.tolist() == [[1, 4], [0, 5], [6, -1]]
    taken = take(np.arange(14.0).reshape(2, 7), laid)
    assert taken[1].tolist() == [[0.0, 5.0], [7.0, 12.0]]
    assert np.isnan(taken[2, :, 1]).all()
    assert lay_out(np.array([-1]), np.array([True])).shape == (0, 0)


def test_weighted_median_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    weights = np.array([1, 2, 3, 2]) / 8
    values = rng.normal(size=(20, 4)).round(1)
    naive = [float(np.median(np.repeat(row, [1, 2, 3, 2]))) for row in values]
    assert weighted_median(values, weights) == pytest.approx(naive)


def test_points_on_a_scale_of_tastes_have_no_worst_off(divided: tuple[Society, Fit]):
    society, _ = divided
    result = fit(society.feedback, utility=Tabular(), people=Varying(1), observation=PLAIN, require_converged=False)
    with pytest.raises(InvalidCharter, match="points on a scale of tastes"):
        Collective.of(result, _charter("maximin"), society.feedback)
    assert np.isfinite(Collective.of(result, _charter("cvar"), society.feedback).scores(_prompts(society.feedback))).all()


def test_a_fit_that_was_not_weighed_by_the_charter_is_refused(divided: tuple[Society, Fit]):
    society, result = divided
    charter = _charter("expected-utility", recency={"rule": "stable-core"})
    with pytest.raises(InvalidCharter, match="the judgments of the fit were weighed by 'none'"):
        Collective.of(result, charter, society.feedback)
    stamped = charter.stamp(result, society.feedback)
    assert stamped.fingerprint == society.feedback.fingerprint
    assert Collective.of(stamped, charter, society.feedback).weights.sum() == pytest.approx(1)
    with pytest.raises(InvalidCharter, match="recency is 'none'"):
        Collective.of(stamped, _charter("borda"), society.feedback)
