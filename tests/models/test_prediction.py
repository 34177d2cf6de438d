"""Predictions are the model's integrals: over the utilities' posterior, over each rater's slope, in the order shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import reference
from scipy import integrate, stats

from seamark.models import (
    Choice,
    Davidson,
    Fit,
    Groups,
    Leniency,
    Observation,
    Position,
    Rating,
    Reliability,
    Strength,
    Tabular,
    Thumbs,
    fit,
    predict,
)
from seamark.records import Feedback
from seamark.simulation import Society, simulate


def _society(seed: int, **settings: Any) -> Society:
    usual = {"text": False, "n_prompts": 10, "n_responses": 10, "n_raters": 20, "n_judgments": 600, "groups": 1, "disagreement": 0.0}
    return simulate(**(usual | settings), seed=seed)


@pytest.fixture(scope="module")
def plain() -> tuple[Society, Fit]:
    society = _society(1, n_judgments=300)
    return society, fit(society.feedback, observation=Observation(effects=(Position(),), lapse=True))


@pytest.fixture(scope="module")
def reliable() -> tuple[Society, Fit]:
    society = _society(2, n_judgments=1200, careless=0.2, opposed=0.1)
    return society, fit(society.feedback)


@pytest.fixture(scope="module")
def mixed() -> tuple[Society, Fit]:
    society = _society(3, kinds=("pair", "choice", "ranking", "rating", "thumbs"), groups=2, disagreement=0.5)
    return society, fit(society.feedback, people=Groups(), observation=Observation(effects=(Position(), Leniency())))


def test_probabilities_are_the_integral_over_the_posterior_of_the_gap(plain: tuple[Society, Fit]):
    """Against adaptive quadrature of the naive formulas; 5 Gauss-Hermite nodes at sd up to 1 are good to 1e-4."""
    society, result = plain
    (block,) = predict(result, society.feedback)
    left, right = block.shown[:, 0], block.shown[:, 1]
    gaps = result.gaps(society.feedback, left, right)
    assert gaps.ignorance.max() < 1
    log_tie = float(result.shape[0])
    for i in range(0, len(left), 29):

        def p(z: float, outcome: int, i: int = i) -> float:
            one = reference.davidson(gaps.mean[i] + gaps.ignorance[i] * z + result.position, log_tie)[outcome]
            return ((1 - result.lapse) * one + result.lapse / 3) * float(stats.norm.pdf(z))

        for outcome in range(3):
            expected = integrate.quad(p, -8, 8, args=(outcome,))[0]
            assert block.probs[i, outcome] == pytest.approx(expected, abs=1e-4)


def test_probabilities_sum_to_1(reliable: tuple[Society, Fit], mixed: tuple[Society, Fit]):
    """Also for contrasts of several dimensions; rounding of up to 30 weights."""
    for society, result in (reliable, mixed):
        for block in predict(result, society.feedback):
            assert np.abs(block.probs.sum(1) - 1).max() < 1e-9
            assert block.probs.min() > 0
            assert np.isfinite(block.probs).all()
            assert block.probs.shape == (len(block.outcome), block.family.n_outcomes)


def test_every_answer_is_predicted_once(reliable: tuple[Society, Fit], mixed: tuple[Society, Fit]):
    society, result = reliable
    assert sum(block.count.sum() for block in predict(result, society.feedback)) == society.feedback.n_judgments
    society, result = mixed
    kinds = dict(society.feedback.judgments["kind"].value_counts().iter_rows())
    total: dict[str, float] = {}
    for block in predict(result, society.feedback):
        kind = block.name.split("/")[0]
        total[kind] = total.get(kind, 0) + block.count.sum()
    assert {k: total[k] for k in ("pair", "choice", "rating", "thumbs")} == {k: kinds[k] for k in ("pair", "choice", "rating", "thumbs")}
    assert total["ranking"] >= 2 * kinds["ranking"]  # a ranking of m is m - 1 choices


def _ask(society: Society, left: str, right: str, rater: str | None, *, order_known: bool = True, group: str | None = None) -> Feedback:
    del society
    return Feedback.from_columns(
        {"kind": ["pair"], "ids": [[left, right]], "outcome": ["left"], "rater": [rater], "order_known": [order_known], "group": [group]}
    )


def _first_wins(result: Fit, feedback: Feedback) -> float:
    (block,) = predict(result, feedback)
    return float(block.decided()[0][0])


def _best_and_worst(society: Society, result: Fit) -> tuple[str, str]:
    u = result.utilities(society.feedback)
    names = society.feedback.responses["name"].to_list()
    return names[int(u.argmax())], names[int(u.argmin())]


def test_each_rater_answers_as_they_are(reliable: tuple[Society, Fit]):
    """Best against worst: careful raters choose the best, careless ones toss a coin, opposed ones the worst, a new one in between."""
    society, result = reliable
    best, worst = _best_and_worst(society, result)
    raters = result.raters

    def of(column: str) -> float:
        return _first_wins(result, _ask(society, best, worst, raters["rater"][int(raters[column].arg_max() or 0)], order_known=False))

    careful, careless, opposed = of("p_careful"), of("p_careless"), of("p_opposed")
    new = _first_wins(result, _ask(society, best, worst, "somebody else", order_known=False))
    unknown = _first_wins(result, _ask(society, best, worst, None, order_known=False))
    assert careful > 0.85
    assert careless == pytest.approx(0.5, abs=0.15)
    assert opposed < 0.2
    assert careless < new < careful
    assert unknown == new


def test_the_click_and_the_preference_each_win_on_their_own_target():
    """Two outputs: what this rater will click here, and what a careful one prefers, of 6 societies with a favour of 1 logit for the first,
    15% lapses and a tenth of the raters at chance; half of 2,400 judgments are held out.

    Scored by held-out log loss of the clicks, `probs` wins; by divergence from the true sigmoid(gap) of the same pairs, `preference`. What
    is lost by taking one for the other is about .06 nats either way, and 95% intervals over societies exclude 0.
    """
    on_clicks, on_truth = [], []
    for seed in range(6):
        society = _society(
            seed, n_responses=12, n_raters=40, n_judgments=2400, position=1.0, lapse=0.15, careless=0.1, opposed=0.0, tie=None
        )  # fmt: skip
        half = np.random.default_rng(seed).random(2400) < 0.5
        train, rest = society.feedback.filter(half), society.feedback.filter(~half)
        (p,) = predict(fit(train, utility=Tabular(), observation=Observation(effects=(Reliability(), Position()), lapse=True)), rest)
        value = dict(zip(society.feedback.responses["id"], society.truth.value, strict=True))
        v = np.array([value[i] for i in rest.responses["id"]])[p.shown]
        truth = 1 / (1 + np.exp(v[:, 1] - v[:, 0]))

        def loss(q: np.ndarray, target: np.ndarray, count: np.ndarray = p.count) -> float:
            """Cross-entropy of a probability that the first is preferred."""
            return float(-(target * np.log(q) + (1 - target) * np.log(1 - q)) @ count / count.sum())

        click = p.probs[:, 0]
        clicked = (p.outcome == 0).astype(float)
        on_clicks.append(loss(p.preference, clicked) - loss(click, clicked))
        on_truth.append(loss(click, truth) - loss(p.preference, truth))
    for gain, name in ((on_clicks, "clicks"), (on_truth, "truth")):
        half_width = stats.t.ppf(0.975, 5) * np.std(gain, ddof=1) / np.sqrt(6)
        print(f"on the {name}: {np.mean(gain):.4f} +- {half_width:.4f} nats, 6 societies, 1,200 held out in each")
        assert np.mean(gain) - half_width > 0.02


def test_position_counts_only_where_the_order_is_known(plain: tuple[Society, Fit]):
    society, result = plain
    a, b = _best_and_worst(society, result)
    known = _first_wins(result, _ask(society, a, b, None))
    blind = _first_wins(result, _ask(society, a, b, None, order_known=False))
    assert result.position > 0
    assert known > blind
    other = _first_wins(result, _ask(society, b, a, None, order_known=False))
    assert blind + other == pytest.approx(1, abs=1e-12)


def test_preference_is_free_of_position_rater_and_ties(reliable: tuple[Society, Fit]):
    society, result = reliable
    a, b = _best_and_worst(society, result)
    careless = result.raters["rater"][int(result.raters["p_careless"].arg_max() or 0)]
    values = [predict(result, _ask(society, a, b, rater))[0].preference[0] for rater in (careless, None, "new")]
    assert max(values) - min(values) < 1e-12
    turned = predict(result, _ask(society, b, a, careless))[0].preference[0]
    assert values[0] + turned == pytest.approx(1, abs=1e-12)
    assert values[0] > 0.5


def test_decided_conditions_on_a_decision(plain: tuple[Society, Fit]):
    society, result = plain
    (block,) = predict(result, society.feedback)
    p, won, count = block.decided()
    use = block.is_decided()
    assert use.sum() == len(p) == len(won) == len(count)
    assert (block.outcome[~use] == 2).all()
    assert np.abs(p - (block.probs[:, 0] / (block.probs[:, 0] + block.probs[:, 1]))[use]).max() < 1e-15
    assert (won == (block.outcome[use] == 0)).all()


def test_graded_pairs_are_decided_by_side():
    rng = np.random.default_rng(0)
    n = 200
    shown = np.array([rng.permutation(5)[:2] for _ in range(n)])
    strength = rng.integers(1, 4, n)
    tie = rng.random(n) < 0.2
    outcome = np.where(tie, "tie", np.where(shown[:, 0] + rng.logistic(size=n) > shown[:, 1], "left", "right"))
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "ids": [[f"r{a}", f"r{b}"] for a, b in shown],
            "outcome": outcome.tolist(),
            "strength": [None if t else int(s) for t, s in zip(tie, strength, strict=True)],
            "strength_levels": [3] * n,
        }
    )
    result = fit(feedback, observation=Observation(effects=(), lapse=False))
    (block,) = predict(result, feedback)
    assert block.family == Strength(levels=3)
    assert block.is_pair
    p, won, count = block.decided()
    left, right = block.probs[:, :3].sum(1), block.probs[:, 4:].sum(1)
    assert np.abs(p - (left / (left + right))[block.is_decided()]).max() < 1e-15
    assert count[won].sum() == (outcome == "left").sum()
    assert count[~won].sum() == (outcome == "right").sum()


def test_what_is_a_pair(mixed: tuple[Society, Fit]):
    society, result = mixed
    pair = {type(b.family) if not isinstance(b.family, Choice) else b.family.m: b.is_pair for b in predict(result, society.feedback)}
    assert pair[Davidson] is True
    assert pair[2] is True
    assert pair[3] is False
    assert pair[Rating] is False
    assert pair[Thumbs] is False


def test_predictions_are_calibrated_in_the_large(reliable: tuple[Society, Fit]):
    """The mean predicted share of each outcome is the observed one: false alarms 3e-3 (three outcomes at 3.3 standard errors)."""
    society, result = reliable
    more = _society(2, n_judgments=1200, careless=0.2, opposed=0.1)
    assert more.feedback.fingerprint == society.feedback.fingerprint  # the generator is repeatable
    (block,) = predict(result, society.feedback)
    total = block.count.sum()
    for outcome in range(3):
        expected = (block.count * block.probs[:, outcome]).sum()
        sd = np.sqrt((block.count * block.probs[:, outcome] * (1 - block.probs[:, outcome])).sum())
        assert abs(block.count[block.outcome == outcome].sum() - expected) < 3.3 * sd
    assert total == 1200


def test_responses_and_kinds_that_the_fit_does_not_know_are_left_out(plain: tuple[Society, Fit]):
    society, result = plain
    a, b = _best_and_worst(society, result)
    foreign = Feedback.from_columns(
        {
            "kind": ["pair", "pair", "thumbs"],
            "ids": [[a, b], [a, "never seen"], [a]],
            "outcome": ["left", "right", "answered"],
            "thumb": [None, None, True],
        }
    )
    (block,) = predict(result, foreign)
    assert block.name == "pair"
    assert block.count.tolist() == [1.0]
    assert predict(result, Feedback.from_columns({"kind": ["pair"], "ids": [["x", "y"]], "outcome": ["left"]})) == []


def test_codes_are_those_of_the_feedback_that_was_given(plain: tuple[Society, Fit]):
    """Also where a judgment before it cannot be placed."""
    society, result = plain
    a, b = _best_and_worst(society, result)
    columns = {"kind": ["pair", "pair"], "ids": [["never seen", a], [a, b]], "outcome": ["left", "right"], "rater": ["ann", "ben"]}
    foreign = Feedback.from_columns(columns)
    (block,) = predict(result, foreign)
    assert foreign.responses["name"].gather(block.shown[0]).to_list() == [a, b]
    assert foreign.raters["id"].gather(block.rater).to_list() == ["ben"]


def test_ties_are_read_as_the_fit_reads_them():
    """A fit of decided pairs has no outcome for ties: they are left out of its predictions."""
    society = _society(4, n_judgments=300)
    result = fit(society.feedback, observation=Observation(outcomes={"pair": Choice()}, effects=(), lapse=False))
    (block,) = predict(result, society.feedback)
    assert block.count.sum() == society.feedback.judgments["outcome"].is_in(["left", "right"]).sum()
    assert block.probs.shape[1] == 2


def test_people_of_a_group_answer_for_their_group():
    society = _society(5, groups=2, disagreement=1.5, n_judgments=1200)
    result = fit(society.feedback, people=Groups(), observation=Observation(effects=(), lapse=False))
    names = society.feedback.responses["name"].to_list()
    left, right = np.triu_indices(len(names), 1)
    gaps = result.gaps(society.feedback, left, right)
    i = int(np.abs(gaps.by_group[:, 0] - gaps.by_group[:, 1]).argmax())
    pair = names[left[i]], names[right[i]]
    one, two = (_first_wins(result, _ask(society, *pair, None, group=name)) for name in result.groups)
    nobody = _first_wins(result, _ask(society, *pair, None, group="a group never seen"))
    assert (one - two) * (gaps.by_group[i, 0] - gaps.by_group[i, 1]) > 0
    assert abs(one - two) > 0.3
    assert min(one, two) < nobody < max(one, two)


def test_leniency_moves_ratings_and_not_pairs():
    society = _society(6, kinds=("pair", "rating"), leniency=1.5, n_judgments=800)
    result = fit(society.feedback, observation=Observation(effects=(Leniency(),), lapse=False))
    kind, lenient = result.raters["rater"].to_list(), result.raters["leniency"].to_numpy()
    name = society.feedback.responses["name"][0]

    def grade(rater: str) -> float:
        answer = {"outcome": ["answered"], "rating": [3.0], "scale_low": [1.0], "scale_high": [5.0]}
        asked = Feedback.from_columns({"kind": ["rating"], "ids": [[name]], "rater": [rater], **answer})
        (block,) = predict(result, asked)
        return float(block.probs[0] @ np.arange(1, 6))

    high, low = kind[int(lenient.argmax())], kind[int(lenient.argmin())]
    assert grade(high) > grade("somebody else") > grade(low)
    other = society.feedback.responses["name"][1]
    assert _first_wins(result, _ask(society, name, other, high)) == _first_wins(result, _ask(society, name, other, low))


def test_prediction_does_not_look_at_the_answers(reliable: tuple[Society, Fit]):
    society, result = reliable
    frame = society.feedback.judgments
    outcome = frame["outcome"].replace({"left": "right", "right": "left"})
    turned = replace(society.feedback, judgments=frame.with_columns(outcome.alias("outcome")))
    (a,), (b,) = predict(result, society.feedback), predict(result, turned)
    one = pl.DataFrame({"l": a.shown[:, 0], "r": a.shown[:, 1], "rater": a.rater, "p": a.probs[:, 0].round(12)}).unique()
    two = pl.DataFrame({"l": b.shown[:, 0], "r": b.shown[:, 1], "rater": b.rater, "p": b.probs[:, 0].round(12)}).unique()
    assert one.sort("l", "r", "rater").equals(two.sort("l", "r", "rater"))
