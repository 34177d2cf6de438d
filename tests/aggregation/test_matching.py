"""A newcomer is placed as Bayes' rule written out places them, and is served better with each answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit
from scipy.stats import ttest_rel

from seamark.aggregation.matching import (
    Likelihood,
    Match,
    choice_probs,
    information,
    likelihood_of,
    likelihood_of_choices,
    match,
    match_community,
    match_person,
    of_one_mind,
    question_probs,
    unmatched,
    updated,
)
from seamark.aggregation.plurality import serve_own, views_of, views_of_fit, worth
from seamark.errors import InvalidSetting
from seamark.models import Fit, Groups, Observation, Personas, Reliability, Same, Tabular, fit
from seamark.models.prediction import for_person
from seamark.records import Feedback
from seamark.simulation import Personas as Planted
from seamark.simulation import Society, simulate

Array = NDArray[np.float64]
PLAIN = Observation(effects=(), lapse=False)
USUAL: dict[str, Any] = {
    "text": False, "n_prompts": 10, "n_responses": 12, "n_raters": 60, "n_judgments": 3600, "careless": 0.0, "opposed": 0.0, "lapse": 0.0,
    "tie": None, "position": 0.0,
}  # fmt: skip


def _answers(fitted: Society, values: Array, n: int, rng: np.random.Generator, slope: float = 1.0) -> Feedback:
    """n votes of a person with these values, on pairs drawn at random."""
    left = rng.integers(0, len(values), n)
    right = (left + rng.integers(1, len(values), n)) % len(values)
    won = rng.random(n) < expit(slope * (values[left] - values[right]))
    names = {"outcome": ["right", "left"], "response": fitted.feedback.responses["name"].to_list()}
    return Feedback.from_arrays(left_id=left, right_id=right, outcome=won.astype(np.int8), rater="new", order_known=False, names=names)


@pytest.fixture(scope="module")
def groups() -> tuple[Society, Fit]:
    society = simulate(**USUAL, group_shares=(0.7, 0.3), disagreement=1.0, seed=3)
    return society, fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)


@pytest.fixture(scope="module")
def personas() -> tuple[Society, Fit]:
    society = simulate(**USUAL | {"careless": 0.1}, groups=1, disagreement=0.0, personas=Planted((0.6, 0.4), deviation=1.2), seed=4)
    observed = Observation(effects=(Reliability(),), lapse=True)
    return society, fit(society.feedback, utility=Tabular(), people=Personas(2), observation=observed)


# ------------------------------------------------------------------------------------ the posterior


def test_a_newcomer_is_placed_among_groups_by_bayes(groups: tuple[Society, Fit]):
    """Against the sum written out, pair by pair: share times the product over answers of E sigmoid(gap), the gap normal."""
    society, result = groups
    given = _answers(society, society.truth.value_by_group[:, 1], 7, np.random.default_rng(0))
    found = match_person(result, given)
    x, w = np.polynomial.hermite_e.hermegauss(5)
    expected = result.group_share.copy()
    for g, name in enumerate(result.groups):
        u = result.utilities(given, group_weights={name: 1.0})
        z = result.loadings[g]
        factor = result.factor_for(z)
        rows = result.basis.rows_for(given).index
        for (a, b), outcome in zip(given.judgments["responses"].to_list(), given.judgments["outcome"].to_list(), strict=True):
            sd = float(np.sqrt(((factor[rows[a]] - factor[rows[b]]) ** 2).sum()))
            sign = 1.0 if outcome == "left" else -1.0
            expected[g] *= sum(wi * expit(sign * (u[a] - u[b] + xi * sd)) for xi, wi in zip(x, w / w.sum(), strict=True))
    assert np.abs(found.posterior - expected / expected.sum()).max() < 1e-9
    assert (found.n, found.left_out, found.follows) == (7, 0, None)
    assert found.chosen == result.groups[int(expected.argmax())]
    assert found.weights == pytest.approx(dict(zip(result.groups, found.posterior, strict=True)))


def test_among_latent_levels_it_is_the_posterior_of_for_person(personas: tuple[Society, Fit]):
    """Slopes integrated over all answers at once, lapses and all: the same sum by two routes."""
    society, result = personas
    given = _answers(society, society.truth.value + society.truth.persona_values[:, 1], 9, np.random.default_rng(1))
    assert np.abs(match_person(result, given).posterior - for_person(result, given).group_share).max() < 1e-9


def test_answers_at_random_follow_nobody(personas: tuple[Society, Fit]):
    """A coin's 40 answers make it less likely that they follow any entry than it was before; those of a person make it near 1."""
    society, result = personas
    values = society.truth.value + society.truth.persona_values[:, 0]
    before = unmatched(result)
    coin = match_person(result, _answers(society, values, 40, np.random.default_rng(2), slope=0.0))
    person = match_person(result, _answers(society, values, 40, np.random.default_rng(2)))
    assert before.follows is not None
    assert coin.follows is not None
    assert person.follows is not None
    assert coin.follows < 0.5 * before.follows
    assert person.follows > 0.99


def test_the_fit_of_one_mind_says_what_the_weighted_fit_says(groups: tuple[Society, Fit]):
    """Utilities and ignorance of any weighting, from dense and from sparse covariance alike."""
    society, result = groups
    weights = dict(zip(result.groups, (0.2, 0.8), strict=True))
    for given in (result, replace(result, factor=csr_array(result.factor))):
        lone = of_one_mind(given, np.array([0.2, 0.8]))
        assert lone.groups == ("everyone",)
        for name in ("utilities", "ignorance"):
            expected = getattr(result, name)(society.feedback, group_weights=weights)
            assert np.abs(getattr(lone, name)(society.feedback) - expected).max() < 1e-9


def test_an_answer_at_a_time_is_all_of_them_at_once(personas: tuple[Society, Fit]):
    society, result = personas
    given = _answers(society, society.truth.value, 5, np.random.default_rng(5))
    shown = np.array(given.judgments["responses"].to_list())
    probs = question_probs(result, given, *shown.T)
    one = unmatched(result)
    for j, outcome in enumerate(given.judgments["outcome"].to_list()):
        one = updated(one, probs[j, :, :, 0 if outcome == "left" else 1])
    whole = match_person(result, given)
    assert np.abs(one.joint - whole.joint).max() < 1e-9
    assert one.n == whole.n == 5


def test_what_cannot_be_placed_is_left_out_and_counted(groups: tuple[Society, Fit]):
    _, result = groups
    foreign = Feedback.from_arrays(left_id=["x", "y"], right_id=["y", "z"], outcome=["left", "right"])
    found = match_person(result, foreign)
    assert (found.n, found.left_out) == (0, 2)
    assert np.abs(found.posterior - result.group_share).max() < 1e-12
    with pytest.raises(InvalidSetting, match="none of these pairs"):
        question_probs(result, foreign, np.array([0]), np.array([1]))


def test_errors_say_what_to_do(groups: tuple[Society, Fit]):
    society, result = groups
    with pytest.raises(InvalidSetting, match="one person at a time"):
        match_person(result, society.feedback)
    same = fit(society.feedback, utility=Tabular(), people=Same(), observation=PLAIN)
    with pytest.raises(InvalidSetting, match="fit Groups, Personas or Varying"):
        likelihood_of(same, society.feedback)
    some = Likelihood(np.zeros((2, 1)), np.ones(1), np.ones(1), 0)
    with pytest.raises(InvalidSetting, match="2 entries; name each"):
        match(some, ["a"])
    for share in (np.array([1.0]), np.array([-1.0, 2.0]), np.zeros(2), np.array([np.nan, 1.0])):
        with pytest.raises(InvalidSetting, match="one for each entry"):
            match(some, ["a", "b"], share=share)
    with pytest.raises(InvalidSetting, match="A community has people"):
        match_community([], ["a"])
    with pytest.raises(InvalidSetting, match="Name each question once"):
        question_probs(result, society.feedback, np.array([0, 0]), np.array([1, 1]))


# ------------------------------------------------------------------------------------ entries of several fits


def test_choices_are_judged_by_one_observation_for_all():
    """Against a fine grid of the gap's normal and the slopes written out; an entry that is sure and wrong loses more than one that is not."""
    gap, sd = np.array([[2.0, -1.0], [0.5, 0.5]]), np.array([[0.5, 0.1], [1.0, 0.3]])
    probs = choice_probs(gap, sd)
    assert np.abs(probs.sum(-1) - 1).max() < 1e-12
    x = np.linspace(-8, 8, 4001)
    w = np.exp(-0.5 * x**2) / np.exp(-0.5 * x**2).sum()
    found = likelihood_of_choices(gap, sd, np.array([True, False]))
    for e in range(2):
        for b, slope in enumerate(found.slope):
            by_hand = [float(expit(slope * (gap[j, e] + sd[j, e] * x)) @ w) for j in range(2)]
            assert np.abs(probs[:, e, b, 0] - by_hand).max() < 1e-3
            assert abs(found.log[e, b] - np.log(probs[0, e, b, 0] * probs[1, e, b, 1])) < 1e-12
    assert abs(found.slope_share.sum() - 1) < 1e-12
    sure, unsure = (likelihood_of_choices(np.array([[3.0]]), np.array([[s]]), np.array([False])).log[0, -1] for s in (0.0, 3.0))
    assert sure < unsure


def test_the_unit_of_an_entry_does_not_decide():
    """Entries that say the same in other units, 3 to 1, are told apart far less than entries that disagree."""
    rng = np.random.default_rng(0)
    gap = rng.normal(size=(200, 1))
    first = rng.random(200) < expit(gap[:, 0])
    units = match(likelihood_of_choices(np.hstack([gap, 3 * gap]), np.zeros((200, 2)), first), ["logits", "thirds"])
    values = match(likelihood_of_choices(np.hstack([gap, rng.normal(size=(200, 1))]), np.zeros((200, 2)), first), ["right", "other"])
    assert units.posterior.max() < 0.9
    assert values.posterior[0] > 0.999


# ------------------------------------------------------------------------------------ communities


def test_a_community_divides_as_its_posterior_does():
    """Two entries: the posterior of the one share on a fine grid, Beta prior times the product of the people's mixtures."""
    rng = np.random.default_rng(1)
    log = np.log(rng.uniform(0.05, 1.0, (12, 2)))
    people = [Likelihood(row[:, None], np.ones(1), np.ones(1), 3) for row in log]
    found = match_community(people, ["a", "b"], share=np.array([0.3, 0.7]), seed=0)
    w = (np.arange(20_000) + 0.5) / 20_000
    density = (
        w ** (2 * 0.3 - 1) * (1 - w) ** (2 * 0.7 - 1) * np.prod(np.outer(w, np.exp(log[:, 0])) + np.outer(1 - w, np.exp(log[:, 1])), 1)
    )
    density /= density.sum()
    cumulative = density.cumsum()
    assert abs(found.mean[0] - w @ density) < 0.02
    assert abs(found.low[0] - w[(cumulative < 0.025).sum()]) < 0.04
    assert abs(found.high[0] - w[(cumulative < 0.975).sum()]) < 0.04
    assert found.n == 36
    assert abs(found.mean.sum() - 1) < 1e-12
    assert found.weights["b"] == found.mean[1]


def test_a_community_unlike_the_rest_is_seen_from_few_labels_each(groups: tuple[Society, Fit]):
    """R105: 60 people of whom nine in ten hold the minority's values, with five answers each. Their shares are found within the interval;
    the mean of the people's own posteriors, each held to the shares of elsewhere, is off by more."""
    society, result = groups
    rng = np.random.default_rng(7)
    held = np.repeat([0, 1], [6, 54])
    people = [likelihood_of(result, _answers(society, society.truth.value_by_group[:, g], 5, rng)) for g in held]
    found = match_community(people, result.groups, share=result.group_share, seed=0)
    assert found.low[1] < 0.9 < found.high[1]
    alone = np.mean([match(one, result.groups, share=result.group_share).posterior[1] for one in people])
    assert abs(found.mean[1] - 0.9) < abs(alone - 0.9)
    assert ((found.members[:, 1] > 0.5) == (held == 1)).mean() > 0.8


# ------------------------------------------------------------------------------------ what to ask


def test_information_is_what_the_answer_is_expected_to_tell():
    """Against its other definition, expected divergence of the posterior from what is believed, question by question and answer by answer."""
    rng = np.random.default_rng(2)
    probs = rng.dirichlet(np.ones(3), (6, 4, 2))  # 6 questions, 4 entries, 2 slopes, 3 answers
    matched = Match(tuple("abcd"), np.full(4, 0.25), rng.dirichlet(np.ones(8)).reshape(4, 2), np.array([0.5, 1.0]), 0)
    for q, found in enumerate(information(matched, probs)):
        expected = 0.0
        for k in range(3):
            joint = matched.joint * probs[q, :, :, k]
            after = joint.sum(1) / joint.sum()
            expected += joint.sum() * float((after * np.log(after / matched.posterior)).sum())
        assert abs(found - expected) < 1e-12
    assert (information(matched, probs) < matched.doubt).all()


def test_a_question_that_all_answer_alike_tells_nothing():
    """Nor does one by which only careful and careless people differ. The other: half of the people answer .9 or .1, half at chance, so
    .7 against .3, and ln 2 less the entropy of that is told."""
    matched = Match(("a", "b"), np.full(2, 0.5), np.full((2, 2), 0.25), np.array([0.0, 1.0]), 0)
    alike = np.broadcast_to(np.array([[0.5, 0.5], [0.9, 0.1]]), (2, 2, 2))
    apart = np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.1, 0.9]]])
    found = information(matched, np.stack([alike, apart]))
    assert found[0] < 1e-12
    assert abs(found[1] - (np.log(2) + 0.7 * np.log(0.7) + 0.3 * np.log(0.3))) < 1e-12


def test_regret_falls_with_labels_and_faster_where_they_are_chosen():
    """R105: 80 people who were not in the data, of three planted personas; regret in logits of the persona's own true values.

    With no labels the persona chosen is no better than a fixed one; each label helps; the mixture that the posterior weighs never loses to
    the population's mean; questions chosen by information are ahead of random ones after three; a fit to the person's ten labels alone
    is behind all of it.
    """
    settings: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "lapse": 0.0, "tie": None, "position": 0.0, "length": 0.0, "spread": 1.0}
    society = simulate(
        n_prompts=20, n_raters=90, n_judgments=6300, groups=1, disagreement=0.0, personas=Planted((0.5, 0.3, 0.2), 1.2), **settings, seed=1
    )
    result = fit(society.feedback, utility=Tabular(), people=Personas(3), observation=PLAIN)
    views = views_of_fit(result, society.feedback)
    i, j = np.triu_indices(4, 1)
    left, right = views.response[:, i].ravel(), views.response[:, j].ravel()
    probs = question_probs(result, society.feedback, left, right)
    shares = np.bincount(society.truth.persona, minlength=3) / len(society.truth.persona)
    rng = np.random.default_rng(0)
    labels, people = (0, 1, 3, 10), 80
    chosen = {policy: np.zeros((people, len(labels))) for policy in ("random", "active")}
    mixed = np.zeros((people, len(labels)))
    mean, alone = np.zeros(people), np.zeros(people)
    texts, prompts = society.feedback.responses["text"].to_list(), society.feedback.prompts["text"].to_list()
    prompt = society.feedback.responses["prompt"].to_list()
    for person in range(people):
        values = society.truth.value + society.truth.persona_values[:, rng.choice(3, p=shares)]
        own = views_of(values[:, None], society.feedback, names=["newcomer"])
        first = rng.random(len(left)) < expit(values[left] - values[right])
        order = rng.permutation(len(left))

        def regret(scores: Array, own: Any = own) -> float:
            return worth(own, serve_own(replace(own, values=scores[:, None])))[0].regret.estimate

        by_entry = [regret(views.values[:, e]) for e in range(3)]
        mean[person] = regret(np.einsum("qem,e->qm", views.values, views.share))
        for policy, found in chosen.items():
            matched, asked = unmatched(result), np.zeros(len(left), dtype=bool)
            for n in range(max(labels) + 1):
                if n in labels:
                    found[person, labels.index(n)] = by_entry[int(matched.posterior.argmax())]
                    if policy == "random":
                        mixed[person, labels.index(n)] = regret(np.einsum("qem,e->qm", views.values, matched.posterior))
                best = int(np.where(asked, -1.0, information(matched, probs)).argmax()) if policy == "active" else int(order[n])
                asked[best] = True
                matched = updated(matched, probs[best, :, :, 0 if first[best] else 1])
        if person < 10:
            ten = order[:10]
            judged = Feedback.from_columns(
                {
                    "kind": ["pair"] * 10, "prompt": [prompts[prompt[r]] for r in left[ten]], "outcome": np.where(first[ten], "left", "right").tolist(),
                    "texts": [[texts[a], texts[b]] for a, b in zip(left[ten], right[ten], strict=True)],
                }
            )  # fmt: skip
            fitted = fit(judged, utility=Tabular(), observation=PLAIN, require_identified=False, require_converged=False)
            scores = views_of(np.nan_to_num(fitted.utilities(society.feedback))[:, None], society.feedback, names=["own"])
            alone[person] = regret(scores.values[:, 0])
    said = {policy: dict(zip(labels, found.mean(0).round(3).tolist(), strict=True)) for policy, found in chosen.items()}
    print(said, "mixture", mixed.mean(0).round(3), "mean", mean.mean().round(3), "alone", alone[:10].mean().round(3))
    for found in (chosen["random"], chosen["active"], mixed):
        for few, more in ((0, 2), (0, 3), (1, 3)):
            assert ttest_rel(found[:, few], found[:, more], alternative="greater").pvalue < 0.05
    assert chosen["active"][:, 3].mean() < 0.1 * chosen["active"][:, 0].mean()
    assert ttest_rel(chosen["random"][:, 2], chosen["active"][:, 2], alternative="greater").pvalue < 0.01
    assert np.abs(mixed[:, 0] - mean).max() < 1e-12
    assert ttest_rel(mean, mixed[:, 3], alternative="greater").pvalue < 0.01
    assert ttest_rel(alone[:10], mixed[:10, 3], alternative="greater").pvalue < 0.01
