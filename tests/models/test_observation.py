"""The contract every outcome family keeps, what it becomes in special cases, and two sets of published numbers.

Where chance decides, the seed is fixed, and the stated rate is how often a correct family would fail over seeds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from scipy import optimize, stats

from seamark.errors import InvalidSetting
from seamark.models.observation import (
    Choice,
    Davidson,
    Leniency,
    Luce,
    Missing,
    Observation,
    Outcome,
    Position,
    Rating,
    Reliability,
    Strength,
    Thumbs,
    lapsed,
    log_probs,
    outcome_from_dict,
    outcome_to_dict,
)

FAMILIES = [
    pytest.param(Choice(), 2, [], id="choice of 2"),
    pytest.param(Choice(m=4), 4, [], id="choice of 4"),
    pytest.param(Choice(m=2, worst=True), 2, [], id="worst of 2"),
    pytest.param(Choice(m=3, worst=True), 3, [], id="worst of 3"),
    pytest.param(Davidson(), 2, [-0.4], id="davidson"),
    pytest.param(Strength(levels=1, ties=False), 2, [], id="strength 1"),
    pytest.param(Strength(levels=1), 2, [-0.7], id="strength 1 with ties"),
    pytest.param(Strength(levels=3), 2, [-0.7, 0.1, -0.2], id="strength 3 with ties"),
    pytest.param(Strength(levels=2, ties=False), 2, [0.3], id="strength 2"),
    pytest.param(Rating(edges=(1.0, 2.0, 3.0, 4.0), scale="[1, 5]"), 1, [-1.4, 0.2, -0.3, 0.4], id="rating of 5"),
    pytest.param(Rating(edges=(0.0,)), 1, [0.3], id="rating of 2"),
    pytest.param(Thumbs(scale="helpful"), 1, [-0.6], id="thumbs"),
    pytest.param(Choice(link="probit"), 2, [], id="choice of 2, probit"),
    pytest.param(Strength(levels=1, link="probit"), 2, [-0.7], id="strength 1 with ties, probit"),
    pytest.param(Strength(levels=2, ties=False, link="probit"), 2, [0.3], id="strength 2, probit"),
    pytest.param(Rating(edges=(1.0, 2.0, 3.0), link="probit"), 1, [-1.4, 0.2, -0.3], id="rating of 4, probit"),
    pytest.param(Thumbs(link="probit"), 1, [-0.6], id="thumbs, probit"),
    pytest.param(Luce(2, most=2, none=True), 2, [-0.5, 0.3], id="both bad"),
    pytest.param(Luce(4, most=3), 4, [-0.7, -1.5], id="luce of 4 with ties"),
    pytest.param(Luce(3, none=True), 3, [0.4], id="luce of 3 or none"),
]
families = pytest.mark.parametrize(("family", "m", "theta"), FAMILIES)
comparisons = pytest.mark.parametrize(("family", "m", "theta"), [p for p in FAMILIES if p.values[1] > 1])
pairs = pytest.mark.parametrize(("family", "m", "theta"), [p for p in FAMILIES if p.values[1] == 2])
LAPSE = torch.tensor(-2.0, dtype=torch.float64)


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64))


def _log_probs(family: Outcome, s: Any, theta: Any, lapse: torch.Tensor | None = None) -> torch.Tensor:
    """(n, n_outcomes) for utilities s (n, m) of the slots shown."""
    s = _tensor(s)
    contrast = s @ _tensor(family.contrast(s.shape[-1])).T
    return lapsed(log_probs(family, contrast, _tensor(theta)), family.n_outcomes, lapse)


def _probs(family: Outcome, s: Any, theta: Any) -> np.ndarray:
    return np.exp(_log_probs(family, s, theta).numpy())


def _utilities(m: int, n: int = 40) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, (n, m))


def _by_reference(family: Any, s: Any, theta: list[float]) -> list[float]:
    """The probabilities of one judgment by the naive formulas of tests/reference.py."""
    if isinstance(family, Davidson):
        return reference.davidson(s[0] - s[1], theta[0])
    if isinstance(family, Luce):
        p = list(reference.davidson_luce(s, theta[: family.most - 1]).values())
        if not family.none:
            return p
        # the odds of none against the first slot alone
        none = math.exp(theta[-1]) * p[0] / math.exp(s[0])
        return [q / (1 + none) for q in (*p, none)]
    cdf = reference.normal if family.link == "probit" else reference.sigmoid
    if isinstance(family, Choice) and family.link == "probit":
        return [cdf(s[0] - s[1]), cdf(s[1] - s[0])]
    if isinstance(family, Choice):
        return reference.choice([-u for u in s] if family.worst else list(s))
    if isinstance(family, Strength):
        return reference.strength(s[0] - s[1], theta, ties=family.ties, cdf=cdf)
    if isinstance(family, Rating):
        return reference.intervals(reference.rating_cuts(theta), s[0], cdf)
    return [cdf(s[0] - theta[0]), cdf(theta[0] - s[0])]


# ------------------------------------------------------------------------------------ the contract


def test_utilities_of_these_tests_spread():
    """The generator reaches gaps far enough for both tails: sd 2 within 15% (its standard error over 160 draws is 6%)."""
    assert _utilities(4).std() == pytest.approx(2.0, rel=0.15)


@families
def test_sizes_agree(family: Outcome, m: int, theta: list[float]):
    assert family.size == len(theta) == len(family.names) == len(family.start())
    assert _log_probs(family, _utilities(m), theta).shape == (40, family.n_outcomes)
    assert family.contrast(m).shape[1] == m


@families
@pytest.mark.parametrize("lapse", [None, LAPSE], ids=["no lapse", "lapse"])
def test_outcomes_sum_to_1(family: Outcome, m: int, theta: list[float], lapse: torch.Tensor | None):
    """Tolerance: up to 9 terms of relative rounding 2e-16 each, through exp and log."""
    total = torch.exp(_log_probs(family, _utilities(m), theta, lapse)).sum(-1)
    assert np.abs(total.numpy() - 1).max() < 1e-13


@families
def test_probabilities_are_those_of_the_reference(family: Outcome, m: int, theta: list[float]):
    """Tolerance: the reference subtracts two sigmoids, which costs it 1e-16 absolutely."""
    s = _utilities(m)
    expected = np.array([_by_reference(family, row, theta) for row in s])
    assert np.abs(_probs(family, s, theta) - expected).max() < 1e-14


@families
def test_a_lapse_mixes_with_a_uniform_click(family: Outcome, m: int, theta: list[float]):
    s = _utilities(m)
    e = 1 / (1 + math.exp(2.0))
    expected = (1 - e) * _probs(family, s, theta) + e / family.n_outcomes
    assert np.abs(torch.exp(_log_probs(family, s, theta, LAPSE)).numpy() - expected).max() < 1e-14


@pytest.mark.parametrize(("family", "m", "theta"), [p for p in FAMILIES if p.values[1] > 1 and not getattr(p.values[0], "none", False)])
def test_gauge_a_constant_added_to_all_utilities_changes_nothing(family: Outcome, m: int, theta: list[float]):
    """Tolerance: adding 7 rounds the utilities at 1e-15, which the slope of at most 1 passes on."""
    s = _utilities(m)
    assert np.abs(_probs(family, s + 7, theta) - _probs(family, s, theta)).max() < 1e-14


@pytest.mark.parametrize(("family", "m", "theta"), [p for p in FAMILIES if p.values[1] == 1])
def test_gauge_a_constant_added_to_utility_and_cuts_changes_nothing(family: Outcome, m: int, theta: list[float]):
    s = _utilities(m)
    moved = [theta[0] + 7, *theta[1:]]
    assert np.abs(_probs(family, s + 7, moved) - _probs(family, s, theta)).max() < 1e-14


@pairs
def test_swapping_left_and_right_swaps_the_outcomes(family: Any, m: int, theta: list[float]):
    assert m == 2
    s = _utilities(2)
    swap = {Choice: [1, 0], Davidson: [1, 0, 2], Luce: [1, 0, 2, 3]}.get(type(family), list(range(family.n_outcomes))[::-1])
    assert np.abs(_probs(family, s[:, ::-1].copy(), theta) - _probs(family, s, theta)[:, swap]).max() < 1e-15


@pytest.mark.parametrize("family", [Luce(2, most=2, none=True), Luce(3, none=True)], ids=["both bad", "none of three"])
def test_gauge_with_an_outside_option_a_constant_added_to_utilities_and_its_weight_changes_nothing(family: Luce):
    s, theta = _utilities(family.m), [-0.5, 0.3][-family.size :]
    assert np.abs(_probs(family, s + 7, [*theta[:-1], theta[-1] + 7]) - _probs(family, s, theta)).max() < 1e-14


def test_luce_becomes_davidson_and_choice():
    """Nesting: without none, two slots with ties are Davidson; without ties it is a choice; none that nobody picks changes nothing."""
    s = _utilities(2)
    assert np.abs(_probs(Luce(2, most=2), s, [-0.4]) - _probs(Davidson(), s, [-0.4])).max() < 1e-14
    assert np.abs(_probs(Luce(2, most=2, none=True), s, [-0.4, -60.0])[:, :3] - _probs(Davidson(), s, [-0.4])).max() < 1e-14
    s = _utilities(4)
    assert np.abs(_probs(Luce(4), s, []) - _probs(Choice(m=4), s, [])).max() < 1e-14
    assert np.abs(_probs(Luce(4, most=3), s, [-60.0, -60.0])[:, :4] - _probs(Choice(m=4), s, [])).max() < 1e-14


MISSING = Missing()


def test_pairs_are_missing_at_random_where_the_fall_is_0():
    c = np.random.default_rng(3).normal(0, 2, (50, 2))
    p = np.exp(log_probs(MISSING, _tensor(c), _tensor([-1.0, 0.0])).numpy())
    assert np.abs(p[:, 1] - 1 / (1 + np.exp(1.0 - c[:, 1]))).max() < 1e-14
    assert np.abs(p.sum(1) - 1).max() < 1e-14


def test_close_calls_are_missing_more_often_where_the_fall_is_positive():
    gaps = np.array([0.0, 1.0, -1.0, 3.0, 30.0])
    c = np.stack([gaps, np.zeros(5)], 1)
    odds = np.diff(log_probs(MISSING, _tensor(c), _tensor([-1.0, 1.5])).numpy(), axis=1)[:, 0]
    assert odds == pytest.approx([-1.0 - 1.5 * math.log(math.cosh(g / 2)) for g in gaps], rel=1e-12)


@pytest.mark.parametrize("worst", [False, True])
def test_permuting_the_slots_of_a_choice_permutes_its_outcomes(worst: bool):
    s, order = _utilities(4), [2, 0, 3, 1]
    family = Choice(m=4, worst=worst)
    assert np.abs(_probs(family, s[:, order], []) - _probs(family, s, [])[:, order]).max() < 1e-15


def test_turning_a_scale_round_turns_the_grades_round():
    """P(grade c | s, cuts) = P(grade C - c | -s, -cuts), because the logistic density is symmetric."""
    family = Rating(edges=(1.0, 2.0, 3.0))
    cuts = np.array([-1.0, 0.2, 2.5])
    s = _utilities(1)

    def theta(c: np.ndarray) -> list[float]:
        return [c[0], *np.log(np.diff(c))]

    assert np.abs(_probs(family, -s, theta(-cuts[::-1])) - _probs(family, s, theta(cuts))[:, ::-1]).max() < 1e-14


@families
def test_nodes_of_an_integral_are_leading_dimensions(family: Outcome, m: int, theta: list[float]):
    """(nodes, n, d) gives (nodes, n): each node is what it would be alone, up to the rounding of a vector instruction."""
    s = _utilities(m, 6)
    contrast = _tensor(np.stack([s, -2 * s, 0 * s]) @ family.contrast(m).T)
    outcome = torch.arange(6) % family.n_outcomes
    together = family.log_prob(contrast, outcome, _tensor(theta))
    assert together.shape == (3, 6)
    for node in range(3):
        for row in range(6):
            alone = family.log_prob(contrast[node, row : row + 1], outcome[row : row + 1], _tensor(theta))
            assert abs(float(alone[0] - together[node, row])) < 1e-14


@families
@pytest.mark.parametrize("lapse", [None, LAPSE], ids=["no lapse", "lapse"])
def test_derivatives_match_finite_differences(family: Outcome, m: int, theta: list[float], lapse: torch.Tensor | None):
    """First derivatives against differences of values, second against differences of first ones, for contrast and theta alike.

    Central differences with h = 1e-5 err by h^2 f'''/6 < 1e-10 and by rounding 1e-16 |f| / h < 1e-10; tolerance 1e-8.
    """
    K = family.contrast(m)
    d, n_theta = K.shape[0], len(theta)
    h = 1e-5

    def value(z: torch.Tensor, outcome: int) -> torch.Tensor:
        return lapsed(family.log_prob(z[None, :d], torch.tensor([outcome]), z[d:]), family.n_outcomes, lapse)[0]

    for point in _utilities(m, 4) @ K.T:
        z = np.concatenate([point, theta])
        for outcome in range(family.n_outcomes):
            here = _tensor(z).requires_grad_(True)
            (gradient,) = torch.autograd.grad(value(here, outcome), here, create_graph=True)
            hessian = torch.stack([torch.autograd.grad(g, here, retain_graph=True)[0] for g in gradient]).numpy()
            for i in range(d + n_theta):
                step = np.zeros(d + n_theta)
                step[i] = h
                up, down = _tensor(z + step).requires_grad_(True), _tensor(z - step).requires_grad_(True)
                above, below = value(up, outcome), value(down, outcome)
                assert abs(float(above.detach() - below.detach()) / (2 * h) - float(gradient[i].detach())) < 1e-8
                slope_up, slope_down = torch.autograd.grad(above, up)[0], torch.autograd.grad(below, down)[0]
                assert np.abs((slope_up - slope_down).numpy() / (2 * h) - hessian[i]).max() < 1e-8


@families
def test_log_probability_is_concave_in_the_contrast(family: Outcome, m: int, theta: list[float]):
    """Newton's matrix is positive: no eigenvalue of the Hessian of any log probability lies above rounding."""
    for point in _utilities(m, 6) @ family.contrast(m).T:
        for outcome in range(family.n_outcomes):

            def value(c: torch.Tensor, outcome: int = outcome) -> torch.Tensor:
                return family.log_prob(c[None], torch.tensor([outcome]), _tensor(theta))[0]

            hessian = torch.autograd.functional.hessian(value, _tensor(point))
            assert float(torch.linalg.eigvalsh(hessian).max()) < 1e-12


@families
@pytest.mark.parametrize("lapse", [None, LAPSE], ids=["no lapse", "lapse"])
@pytest.mark.parametrize("size", [800.0, -800.0])
def test_extreme_gaps_stay_finite(family: Outcome, m: int, theta: list[float], lapse: torch.Tensor | None, size: float):
    """exp(800) overflows; log probabilities are then about -800, and gradients at most 1 in size; a normal tail is quadratic."""
    lowest, steepest = (-1.2e5, 800 / 1.702**2 + 1) if getattr(family, "link", "") == "probit" else (-1700, 1)
    s = np.zeros((1, m))
    s[0, 0] = size
    contrast = (_tensor(s) @ _tensor(family.contrast(m)).T).requires_grad_(True)
    answers = lapsed(log_probs(family, contrast, _tensor(theta)), family.n_outcomes, lapse)
    assert torch.isfinite(answers).all()
    assert float(answers.detach().min()) >= lowest
    assert float(torch.exp(answers.detach()).sum()) == pytest.approx(1, abs=1e-12)
    for outcome in range(family.n_outcomes):
        (gradient,) = torch.autograd.grad(answers[0, outcome], contrast, retain_graph=True)
        assert float(gradient.abs().max()) <= steepest + 1e-12


def _drawn(family: Any, s: np.ndarray, theta: list[float], n: int, rng: np.random.Generator) -> np.ndarray:
    """n outcomes by the family's story: noisy utilities compared or cut where it has one, else the inverse of its distribution."""
    probit = getattr(family, "link", "logistic") == "probit"
    noise = 1.702 * rng.normal(size=n) if probit else rng.logistic(size=n)
    if isinstance(family, Choice):
        return (s[0] - s[1] + noise < 0).astype(int) if probit else ((-s if family.worst else s) + rng.gumbel(size=(n, len(s)))).argmax(1)
    if isinstance(family, Strength):
        up = np.cumsum(np.exp(theta))
        cuts = np.concatenate([-up[::-1], [] if family.ties else [0.0], up])
        return len(cuts) - np.searchsorted(cuts, s[0] - s[1] + noise)
    if isinstance(family, Rating):
        return np.searchsorted(theta[0] + np.concatenate([[0.0], np.cumsum(np.exp(theta[1:]))]), s[0] + noise)
    if isinstance(family, Thumbs):
        return np.where(s[0] + noise > theta[0], 0, 1)
    return np.searchsorted(np.cumsum(_by_reference(family, s, theta)), rng.random(n))


@families
def test_samples_agree_with_the_probabilities(family: Outcome, m: int, theta: list[float]):
    """Chi-square of 20,000 draws at each of three points; false alarms: 3e-4 for a correct family (three tests at 1e-4)."""
    rng = np.random.default_rng(2)
    for s in np.random.default_rng(3).normal(0, 0.8, (3, m)):
        counts = np.bincount(_drawn(family, s, theta, 20_000, rng), minlength=family.n_outcomes)
        expected = 20_000 * _probs(family, s[None], theta)[0]
        assert stats.chisquare(counts, expected).pvalue > 1e-4


# ------------------------------------------------------------------------------------ nested models


def test_davidson_without_ties_is_choice():
    """nu = exp(-60) leaves 9e-27 for ties."""
    s = _utilities(2)
    both = _probs(Davidson(), s, [-60.0])
    assert np.abs(both[:, :2] - _probs(Choice(), s, [])).max() < 1e-15
    assert both[:, 2].max() < 1e-25


def test_davidson_given_a_decision_is_choice():
    """P(left) / (P(left) + P(right)) = sigmoid(gap) for every nu: ties take from both sides in proportion."""
    s = _utilities(2)
    p = _probs(Davidson(), s, [1.3])
    assert np.abs(p[:, 0] / (p[:, 0] + p[:, 1]) - _probs(Choice(), s, [])[:, 0]).max() < 1e-14


def test_strength_of_one_level_without_ties_is_choice():
    s = _utilities(2)
    assert np.abs(_probs(Strength(levels=1, ties=False), s, []) - _probs(Choice(), s, [])).max() < 1e-15


def test_strength_of_one_level_with_ties_is_rao_kupper():
    """Rao & Kupper 1967: P(left) = pi_1 / (pi_1 + nu pi_2), with log nu the one threshold."""
    s = _utilities(2)
    one, two, nu = np.exp(s[:, 0]), np.exp(s[:, 1]), math.exp(math.exp(-0.7))
    p = _probs(Strength(levels=1), s, [-0.7])
    assert np.abs(p[:, 0] - one / (one + nu * two)).max() < 1e-14
    assert np.abs(p[:, 2] - two / (two + nu * one)).max() < 1e-14


def test_strength_adds_up_to_choice():
    """Without ties, the levels of one side add up to Bradley-Terry, wherever the thresholds lie."""
    s = _utilities(2)
    p = _probs(Strength(levels=3, ties=False), s, [0.4, -0.9])
    assert np.abs(p[:, :3].sum(1) - _probs(Choice(), s, [])[:, 0]).max() < 1e-14


def test_choice_of_two_slots_is_the_general_choice_of_two():
    s = _utilities(2)
    general = torch.log_softmax(_tensor(s), -1).numpy()
    assert np.abs(_log_probs(Choice(m=2), s, []).numpy() - general).max() < 1e-14


def test_choice_of_many_given_two_of_them_is_choice_of_two():
    """Luce's axiom: the odds of two slots do not depend on the others."""
    s = _utilities(4)
    p = _probs(Choice(m=4), s, [])
    assert np.abs(p[:, 1] / (p[:, 1] + p[:, 3]) - _probs(Choice(), s[:, [1, 3]], [])[:, 0]).max() < 1e-14


def test_the_worst_of_two_is_the_other_of_the_best():
    s = _utilities(2)
    assert np.abs(_probs(Choice(worst=True), s, []) - _probs(Choice(), s, [])[:, ::-1]).max() < 1e-15


def test_a_rating_of_two_grades_is_thumbs():
    s = _utilities(1)
    assert np.abs(_probs(Rating(edges=(0.0,)), s, [0.3])[:, ::-1] - _probs(Thumbs(), s, [0.3])).max() < 1e-14


def test_no_lapse_is_the_limit_of_a_small_one():
    s = _utilities(2)
    tiny = _log_probs(Davidson(), s, [-0.4], torch.tensor(-60.0, dtype=torch.float64))
    assert np.abs((tiny - _log_probs(Davidson(), s, [-0.4])).numpy()).max() < 1e-15


# ------------------------------------------------------------------------------------ published and derived numbers

BASEBALL = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
"""Wins of row over column: Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore; 13 games a pair."""


def test_golden_bradley_terry_baseball():
    """American League East 1987: Agresti 2002, Categorical Data Analysis, 2nd ed., section 10.6.2, table 10.10.

    The maximum likelihood estimates printed there, with Baltimore at 0: 1.58, 1.44, 1.29, 1.25, 1.11, 0.68. Derivation: at the
    maximum each team's expected wins equal its observed wins (the likelihood equations of an exponential family), which is
    asserted too, so that the numbers do not rest on the book alone.
    """
    wins = np.array(BASEBALL, dtype=float)
    assert (wins + wins.T + 13 * np.eye(7) == 13).all()
    i, j = np.nonzero(wins)

    def cost(u: np.ndarray) -> tuple[float, np.ndarray]:
        full = torch.cat([_tensor(u), torch.zeros(1, dtype=torch.float64)]).requires_grad_(True)
        gap = (full[i] - full[j])[:, None]
        won, nothing = torch.zeros(len(i), dtype=torch.long), torch.zeros(0, dtype=torch.float64)
        value = -(_tensor(wins[i, j]) * Choice().log_prob(gap, won, nothing)).sum()
        (gradient,) = torch.autograd.grad(value, full)
        return float(value.detach()), gradient.numpy()[:-1]

    u = np.append(optimize.minimize(cost, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-8}).x, 0.0)
    assert np.abs(u[:-1] - [1.58, 1.44, 1.29, 1.25, 1.11, 0.68]).max() <= 0.005 + 1e-6  # printed to two decimals
    expected = 13 / (1 + np.exp(u[None, :] - u[:, None]))
    np.fill_diagonal(expected, 0)
    assert np.abs(expected.sum(1) - wins.sum(1)).max() < 1e-5


def test_golden_davidson_two_items():
    """Two items with a, b wins and t ties: the model is saturated, so the estimates reproduce the observed shares.

    From Davidson 1970, equation 2.4: P(left) / P(right) = pi_1 / pi_2 and P(tie)^2 / (P(left) P(right)) = nu^2, hence
    gap = log(a / b) and theta = log(t / sqrt(a b)). With 45, 20, 15: gap = log 2.25, theta = log(15 / 30) = -log 2.
    """
    p = _probs(Davidson(), [[math.log(2.25), 0.0]], [-math.log(2)])
    assert np.abs(p[0] - np.array([45, 20, 15]) / 80).max() < 1e-15


def test_golden_plackett_luce():
    """Worths 3, 2, 1: the order 1 > 2 > 3 has probability 3/6 x 2/3 = 1/3 (Plackett 1975)."""
    worth = np.log([[3.0, 2.0, 1.0]])
    p = _probs(Choice(m=3), worth, [])[0, 0] * _probs(Choice(), worth[:, 1:], [])[0, 0]
    assert p == pytest.approx(1 / 3, abs=1e-15)


# ------------------------------------------------------------------------------------ declarations


@families
def test_description_round_trip(family: Outcome, m: int, theta: list[float]):
    import json

    del m, theta
    assert outcome_from_dict(json.loads(json.dumps(outcome_to_dict(family)))) == family


def test_observation_states_its_effects():
    observation = Observation(effects=(Reliability(), Position()), lapse=False)
    effects = [{"effect": "Reliability"}, {"effect": "Position", "per_rater": False, "by": ""}]
    assert observation.to_dict() == {"effects": effects, "lapse": False}
    assert Observation.from_dict(observation.to_dict()) == observation
    assert observation.with_effect(Position)
    assert not observation.with_effect(Leniency)


def test_an_unknown_effect_is_refused():
    with pytest.raises(InvalidSetting, match="Use Reliability"):
        Observation(effects=("position",))  # type: ignore[arg-type]
