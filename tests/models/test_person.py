"""A new person from few judgments: regret falls with each, and is below that of a fit to their judgments alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_effects import planted

from seamark import Feedback
from seamark.errors import InvalidSetting
from seamark.models import Fit, Observation, Personas, Position, Same, Tabular, Varying, fit, predict
from seamark.models.prediction import for_person
from seamark.simulation import Personas as PlantedPersonas
from seamark.simulation import Society, Tastes

POSITION = Observation(effects=(Position(),), lapse=False)
PLAIN = Observation(effects=(), lapse=False)
LABELS = (0, 2, 5, 10, 20)
ALONE = (2, 20)
PEOPLE = 20


@pytest.fixture(scope="module")
def personas() -> tuple[Society, Fit]:
    society = planted(1, personas=PlantedPersonas((0.5, 0.3, 0.2), deviation=1.2), n_raters=120, n_judgments=6000)
    return society, fit(society.feedback, utility=Tabular(), people=Personas(3), observation=POSITION)


@pytest.fixture(scope="module")
def tastes() -> tuple[Society, Fit]:
    society = planted(4, tastes=Tastes(k=1, sd=1.0), n_raters=120, n_judgments=6000)
    return society, fit(society.feedback, utility=Tabular(), people=Varying(1), observation=POSITION)


def answers(values: NDArray[np.float64], names: list[str], n: int, rng: np.random.Generator) -> Feedback:
    """n votes of a person with these values, on pairs drawn at random."""
    left = rng.integers(0, len(values), n)
    right = (left + rng.integers(1, len(values), n)) % len(values)
    won = rng.random(n) < 1 / (1 + np.exp(values[right] - values[left]))
    return Feedback.from_arrays(
        left_id=left, right_id=right, outcome=won.astype(np.int8), rater="new", order_known=False,
        names={"outcome": ["right", "left"], "response": names},
    )  # fmt: skip


def person_of(society: Society, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n_responses,) values of a person drawn from the society."""
    truth = society.truth
    if truth.taste_values.shape[1]:
        return truth.value + truth.taste_values @ rng.standard_normal(truth.taste_values.shape[1])
    shares = np.bincount(truth.persona) / len(truth.persona)
    return truth.value + truth.persona_values[:, rng.choice(len(shares), p=shares)]


def regrets(society: Society, result: Fit, *, alone: bool, people: int) -> dict[int, NDArray[np.float64]]:
    """Per number of labels, (people,) what the response thought best falls short of the best, in logits; with `alone`, of a fit to the
    person's own judgments and nothing else."""
    rng = np.random.default_rng(0)
    feedback = society.feedback
    names = feedback.responses["name"].to_list()
    counts = ALONE if alone else LABELS
    out: dict[int, list[float]] = {n: [] for n in counts}
    for _ in range(people):
        values = person_of(society, rng)
        given = answers(values, names, LABELS[-1], rng)
        for n in counts:
            some = given.filter(np.arange(LABELS[-1]) < n) if n else None
            if not alone:
                u = (for_person(result, some) if some is not None else result).utilities(feedback)
            else:
                assert some is not None
                own = fit(some, utility=Tabular(), observation=PLAIN, require_identified=False, require_converged=False)
                u = np.nan_to_num(own.utilities(feedback))
            best = np.flatnonzero(u >= u.max() - 1e-9)
            out[n].append(float(values.max() - values[best].mean()))
    return {n: np.array(r) for n, r in out.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["personas", "tastes"])
def test_regret_falls_with_the_labels_of_a_new_person(kind: str, request: pytest.FixtureRequest):
    """People who were not in the data: after 20 labels little is lost of what there was to lose, and at no number of labels is their
    own data alone better."""
    society, result = request.getfixturevalue(kind)
    adapted, alone = (regrets(society, result, alone=alone, people=PEOPLE) for alone in (False, True))
    mean = {n: r.mean() for n, r in adapted.items()}
    print(
        kind,
        {n: f"{r.mean():.3f} +- {r.std() / PEOPLE**0.5:.3f}" for n, r in adapted.items()},
        {n: f"{r.mean():.3f}" for n, r in alone.items()},
    )
    assert mean[0] > 0.2, "there is nothing to learn of people who do not differ"
    assert mean[20] < 0.35 * mean[0]
    for few, more in ((0, 2), (2, 10), (0, 20)):
        change = adapted[more] - adapted[few]
        assert change.mean() < 2 * change.std(ddof=1) / np.sqrt(len(change))
    for n in ALONE:
        gain = alone[n] - adapted[n]
        assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain))


def test_the_posterior_is_that_of_bayes(personas: tuple[Society, Fit]):
    """Against the sum written out: with slopes of 1, share times the product of the answers' probabilities under each persona."""
    society, result = personas
    given = answers(
        society.truth.value + society.truth.persona_values[:, 2], society.feedback.responses["name"].to_list(), 6, np.random.default_rng(3)
    )
    found = for_person(result, given)
    shown = np.array(given.judgments["responses"].to_list())
    gaps = result.gaps(given, shown[:, 0], shown[:, 1])
    sign = np.where((given.judgments["outcome"] == "left").to_numpy(), 1.0, -1.0)
    own = [result.factor_for(z) for z in result.loadings[:3]]
    rows = result.basis.rows_for(given).index
    points, weight = np.polynomial.hermite_e.hermegauss(5)
    expected = result.group_share.copy()
    for g, factor in enumerate(own):
        sd = np.sqrt(((factor[rows[shown[:, 0]]] - factor[rows[shown[:, 1]]]) ** 2).sum(1))
        p = (1 / (1 + np.exp(-sign[:, None] * (gaps.by_group[:, g, None] + sd[:, None] * points)))) @ (weight / weight.sum())
        expected[g] *= p.prod()
    np.testing.assert_allclose(found.group_share, expected / expected.sum(), rtol=1e-6)
    # what is foretold of a rater not seen before is what this person would say
    (asked,) = predict(found, given)
    by_hand = np.zeros(6)
    for g, factor in enumerate(own):
        sd = np.sqrt(((factor[rows[shown[:, 0]]] - factor[rows[shown[:, 1]]]) ** 2).sum(1))
        by_hand += found.group_share[g] * (
            (1 / (1 + np.exp(-(gaps.by_group[:, g, None] + sd[:, None] * points)))) @ (weight / weight.sum())
        )
    order = {tuple(s): p for s, p in zip(shown.tolist(), by_hand, strict=True)}
    np.testing.assert_allclose(asked.probs[:, 0], [order[tuple(s)] for s in asked.shown.tolist()], rtol=1e-6)


def test_posteriors_are_as_sure_as_they_are_right(personas: tuple[Society, Fit]):
    """Over 80 new people with 5 labels each: the mean probability given to their persona equals how sure the posterior says it is."""
    society, result = personas
    rng = np.random.default_rng(5)
    names = society.feedback.responses["name"].to_list()
    order = np.argsort(-result.group_share)
    hit, sure = [], []
    for _ in range(80):
        persona = rng.choice(3, p=[0.5, 0.3, 0.2])
        share = for_person(result, answers(society.truth.value + society.truth.persona_values[:, persona], names, 5, rng)).group_share[
            order
        ]
        hit.append(float(share.argmax() == persona))
        sure.append(share.max())
    error = np.array(hit) - np.array(sure)
    assert abs(error.mean()) < 3 * error.std(ddof=1) / np.sqrt(80)
    assert np.mean(hit) > 0.7


def test_whom_it_cannot_be_asked_of(personas: tuple[Society, Fit]):
    society, result = personas
    with pytest.raises(InvalidSetting, match="one person at a time"):
        for_person(result, society.feedback)
    same = fit(society.feedback, utility=Tabular(), people=Same(), observation=POSITION)
    with pytest.raises(InvalidSetting, match="Personas or Varying"):
        for_person(same, society.feedback)
    nothing: Any = Feedback.from_arrays(left_id=["x"], right_id=["y"], outcome=["left"], rater="new")
    np.testing.assert_allclose(for_person(result, nothing).group_share, result.group_share)
