"""Fits of societies with known truth: estimates within stated errors, intervals that cover, failures that are named.

Seeds are fixed. Where an assertion has a rate of false alarms it is stated: how often a correct fit would fail over seeds.
Chi-square statistics use the posterior covariance of the gaps, so that correlated errors are counted once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import optimize, stats
from scipy.sparse import issparse
from scipy.special import expit, log_expit

from seamark.errors import InvalidSetting, NotConverged, NotIdentified, SeamarkError, UnreadableSource
from seamark.models import (
    Choice,
    Davidson,
    Fit,
    Groups,
    Leniency,
    Linear,
    Observation,
    Position,
    Rating,
    Reliability,
    Same,
    Tabular,
    Thumbs,
    curvature,
    fit,
    posterior,
    predict,
    problem,
    search,
)
from seamark.models.design import build_design, costs_as_preferences
from seamark.models.likelihood import Likelihood, Nodes
from seamark.models.observation import Luce, Outcome, rao_kupper
from seamark.models.people import Strata
from seamark.models.result import Parameter
from seamark.records import Feedback
from seamark.simulation import Society, simulate

PLAIN = Observation(effects=(), lapse=False)
SHOWN = Observation(effects=(Position(),), lapse=False)


def leaderboard(seed: int, **settings: Any) -> Society:
    """Entries without text, of one population of careful raters unless said otherwise."""
    usual = {
        "text": False, "n_prompts": 10, "n_responses": 12, "n_raters": 20, "n_judgments": 600, "groups": 1, "disagreement": 0.0,
        "careless": 0.0, "opposed": 0.0, "lapse": 0.0,
    }  # fmt: skip
    return simulate(**(usual | settings), seed=seed)


def _number(result: Fit, name: str) -> Parameter:
    return next(p for p in result.parameters if p.name == name)


def _gaps_of(feedback: Feedback, result: Fit) -> Any:
    """Gaps of neighbours 0-1, 1-2, ...: a basis of all gaps."""
    n = feedback.n_responses
    return result.gaps(feedback, np.arange(n - 1), np.arange(1, n))


def _chi_square(society: Society, result: Fit) -> float:
    """p-value of the true gaps under the posterior of all gaps, for a Tabular fit of one population."""
    n = society.feedback.n_responses
    D = np.eye(n - 1, n) - np.eye(n - 1, n, k=1)
    error = D @ (result.weights[0] - society.truth.value)
    covariance = D @ result.factor @ result.factor.T @ D.T
    return float(stats.chi2.sf(error @ np.linalg.solve(covariance, error), n - 1))


def _finite(result: Fit) -> None:
    for name in ("weights", "factor", "shape", "slope_nodes", "slope_weights", "group_share"):
        assert np.isfinite(getattr(result, name)).all(), name
    for p in result.parameters:
        assert np.isfinite([p.estimate, p.se, p.low, p.high]).all(), p
        assert p.se >= 0
    assert all(np.isfinite(v) for v in result.prior.values())
    assert np.abs(result.slope_weights.sum(1) - 1).max() < 1e-9
    assert 0 <= result.lapse < 1


# ------------------------------------------------------------------------------------ recovery


@pytest.fixture(scope="module")
def crowd() -> tuple[Society, Fit]:
    """A leaderboard judged by a crowd with careless and opposed raters, lapses and a position effect."""
    society = leaderboard(1, n_raters=30, n_judgments=1500, careless=0.2, opposed=0.1, lapse=0.02, position=0.5)
    return society, fit(society.feedback)


def test_recovers_the_utilities(crowd: tuple[Society, Fit]):
    """11 gaps jointly within their posterior; false alarms 1e-3."""
    society, result = crowd
    assert _chi_square(society, result) > 1e-3
    assert np.corrcoef(result.utilities(society.feedback), society.truth.value)[0, 1] > 0.95


def test_recovers_position_and_ties(crowd: tuple[Society, Fit]):
    """Within 3.3 of the wider standard errors; false alarms 1e-3 each."""
    society, result = crowd
    position, tie = _number(result, "position"), _number(result, "pair: log_tie")
    assert abs(position.estimate - society.truth.position) < 3.3 * position.wider
    assert abs(tie.estimate - (society.truth.log_tie or 0)) < 3.3 * tie.wider
    # and these standard errors say something: 1,500 judgments give about 1 / sqrt(1500 / 4) = 0.05
    assert 0.03 < position.wider < 0.12
    assert 0.03 < tie.wider < 0.15
    assert position.estimate > 0.25


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    return float(stats.mannwhitneyu(score[positive], score[~positive]).statistic / (positive.sum() * (~positive).sum()))


def test_finds_careless_and_opposed_raters(crowd: tuple[Society, Fit]):
    """50 judgments a rater: a slope of 0 and one of 1 differ by about 5 standard errors, so the ranking is nearly perfect."""
    society, result = crowd
    kind = society.truth.rater_kind
    careless = _auc(result.raters["p_careless"].to_numpy(), kind == "careless")
    opposed = _auc(result.raters["p_opposed"].to_numpy(), kind == "opposed")
    correlation = float(np.corrcoef(result.raters["slope"], society.truth.slope)[0, 1])
    print(f"AUC careless {careless:.3f}, opposed {opposed:.3f}; correlation of slopes {correlation:.3f}")
    assert careless > 0.93
    assert opposed > 0.97
    assert correlation > 0.85
    assert np.abs(result.raters.select("p_careful", "p_careless", "p_opposed").sum_horizontal().to_numpy() - 1).max() < 1e-9
    assert (result.raters["low"] <= result.raters["slope"]).all()
    assert (result.raters["slope"] <= result.raters["high"]).all()


def test_the_shares_of_raters_are_near_the_planted_ones(crowd: tuple[Society, Fit]):
    """20% careless and 10% opposed of 30; the prior of five raters pulls to 80%, 10%, 10%; three raters of 30 allowed."""
    _, result = crowd
    assert result.prior["share at chance"] == pytest.approx(0.2, abs=0.1)
    assert result.prior["share opposed"] == pytest.approx(0.1, abs=0.1)
    assert sum(v for name, v in result.prior.items() if name.startswith("share")) == pytest.approx(1, abs=1e-12)


def test_with_careless_raters_reliability_sharpens_the_fit():
    """Half the raters at chance: a fit that knows raters can differ is nearer the truth, and does not shrink the careful ones' scale."""
    society = leaderboard(5, n_raters=30, n_judgments=1500, careless=0.5)
    truth = society.truth.value - society.truth.value.mean()

    def error(observation: Observation) -> float:
        u = fit(society.feedback, observation=observation).utilities(society.feedback)
        return float(np.sqrt(np.mean((u - u.mean() - truth) ** 2)))

    assert error(Observation(effects=(Reliability(), Position()), lapse=False)) < 0.75 * error(SHOWN)


@pytest.fixture(scope="module")
def texts() -> tuple[Society, Feedback, Feedback, Fit]:
    """Texts whose words show their value, longer ones preferred a little; held-out prompts."""
    society = simulate(n_prompts=70, n_raters=20, n_judgments=2000, groups=1, disagreement=0.0, length=0.5, position=0.3, seed=5)
    train, test = society.feedback.split(by="prompt", seed=0)
    return society, train, test, fit(train, utility=Linear(n_columns=256))


def test_recovers_the_length_coefficient(texts: tuple[Society, Feedback, Feedback, Fit]):
    """Within 3.3 of the wider standard errors; false alarms 1e-3. Both are per standard deviation of log length."""
    _, _, _, result = texts
    length = _number(result, "style: log_characters")
    assert abs(length.estimate - 0.5) < 3.3 * length.wider
    assert length.low > 0
    assert length.unit == "logits per sd"


def test_linear_beats_longer_wins_and_the_majority_on_held_out_prompts(texts: tuple[Society, Feedback, Feedback, Fit]):
    """Paired difference of hits over decided held-out pairs above 2 standard errors.

    No training majority speaks about the texts of prompts not seen: the majority that is left is that of the side, left or right.
    """
    _, train, test, result = texts
    assert not set(train.responses["text"]) & set(test.responses["text"])
    length = test.responses["text"].str.len_chars().to_numpy().astype(float)
    (block,) = predict(result, test)
    p, won, count = block.decided()
    shown = block.shown[block.is_decided()]
    difference = length[shown[:, 0]] - length[shown[:, 1]]
    rule = np.where(difference == 0, 0.5, (difference > 0) == won)
    decided = train.judgments["outcome"].is_in(["left", "right"])
    left_wins = (train.judgments["outcome"].filter(decided) == "left").mean()
    majority = (won if left_wins is not None and left_wins > 0.5 else ~won).astype(float)
    for baseline in (rule, majority):
        gain = np.repeat(((p > 0.5) == won) - baseline, count.astype(int))
        assert len(gain) > 200
        assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
        assert gain.mean() > 0.05


# ------------------------------------------------------------------------------------ intervals


def _textbook(seed: int, n_judgments: int, n: int = 12) -> tuple[Feedback, np.ndarray]:
    """Pairs exactly by the model: values N(0, 1.2^2), Davidson ties at -1, position 0.3; values by response code.

    Societies of `simulate` also have raters of different slopes, which fits without Reliability do not know about.
    """
    rng = np.random.default_rng(seed)
    u = rng.normal(0, 1.2, n)
    shown = np.array([rng.permutation(n)[:2] for _ in range(n_judgments)])
    gap = u[shown[:, 0]] - u[shown[:, 1]] + 0.3
    weight = np.stack([np.exp(gap / 2), np.exp(-gap / 2), np.full(len(gap), np.exp(-1.0))], 1)
    drawn = (rng.random((len(gap), 1)) * weight.sum(1, keepdims=True) > np.cumsum(weight, 1)).sum(1)
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * n_judgments,
            "ids": [[f"r{a}", f"r{b}"] for a, b in shown],
            "outcome": np.array(["left", "right", "tie"])[drawn].tolist(),
            "order_known": [True] * n_judgments,
        }
    )
    return feedback, u[[int(name[1:]) for name in feedback.responses["name"].to_list()]]


def _covered(feedback: Feedback, truth: np.ndarray, observation: Observation, levels: Sequence[float]) -> tuple[np.ndarray, int]:
    """How many of the disjoint gaps 0-1, 2-3, ... lie within their interval at each level, and of how many."""
    left = np.arange(0, len(truth) - 1, 2)
    gaps = fit(feedback, observation=observation).gaps(feedback, left, left + 1)
    z = np.abs(gaps.mean - (truth[left] - truth[left + 1])) / gaps.ignorance
    return np.array([(z < stats.norm.ppf(0.5 + level / 2)).sum() for level in levels]), len(left)


def _within_binomial(hit: int, total: int, level: float, *, slack: float = 0.0) -> bool:
    """Whether the count lies in the central 99.9% of a binomial, widened by a share of the total."""
    low, high = stats.binom.interval(0.999, total, level)
    return bool(low - slack * total <= hit <= high + slack * total)


def test_gap_intervals_cover():
    """20 fits of 6 disjoint gaps: 80% intervals cover 80%, within binomial bounds; false alarms 1e-3."""
    results = [_covered(*_textbook(seed, 300), SHOWN, [0.8]) for seed in range(20)]
    hit, total = sum(int(h[0]) for h, _ in results), sum(n for _, n in results)
    print(f"80% intervals cover {hit} of {total}")
    assert _within_binomial(hit, total, 0.8)


@pytest.mark.slow
def test_gap_intervals_cover_in_many_fits():
    """200 fits of 6 disjoint gaps; false alarms 1e-3 at each of three levels."""
    levels = (0.5, 0.8, 0.95)
    results = [_covered(*_textbook(seed, 300), SHOWN, levels) for seed in range(1000, 1200)]
    total = sum(n for _, n in results)
    for level, hit in zip(levels, sum(h for h, _ in results), strict=True):
        print(f"{level:.0%} intervals cover {hit / total:.1%} of {total}")
        assert _within_binomial(int(hit), total, level)


@pytest.mark.slow
def test_gap_intervals_cover_with_raters_of_all_kinds():
    """60 fits with raters' slopes estimated; false alarms 1e-3 at each of three levels.

    The gauge (logits of the median careful rater) is estimated as well, and log-normal slopes are taken for normal ones: 3 points
    of coverage are allowed for that.
    """
    levels = (0.5, 0.8, 0.95)
    results = []
    for seed in range(1000, 1060):
        society = leaderboard(seed, n_raters=30, n_judgments=1200, careless=0.2, opposed=0.05, lapse=0.02)
        results.append(_covered(society.feedback, society.truth.value, Observation(), levels))
    total = sum(n for _, n in results)
    for level, hit in zip(levels, sum(h for h, _ in results), strict=True):
        print(f"{level:.0%} intervals cover {hit / total:.1%} of {total}")
        assert _within_binomial(int(hit), total, level, slack=0.03)


@pytest.mark.slow
def test_effects_are_calibrated_in_many_fits():
    """Position and tie over 200 fits: standardised errors of mean 0 within 3.3 / sqrt(200) and of sd 1 within 17% (3.3 x 1 / sqrt(400))."""
    errors: dict[str, list[float]] = {"position": [], "pair: log_tie": []}
    for seed in range(2000, 2200):
        feedback, _ = _textbook(seed, 300)
        result = fit(feedback, observation=SHOWN)
        for name, truth in (("position", 0.3), ("pair: log_tie", -1.0)):
            p = _number(result, name)
            errors[name].append((p.estimate - truth) / p.se)
    for name, z in errors.items():
        print(f"{name}: standardised errors have mean {np.mean(z):+.2f}, sd {np.std(z):.2f}")
        assert abs(np.mean(z)) < 3.3 / np.sqrt(200) + 0.1  # 0.1: the prior pulls position (sd 1) and tie (sd 2) a little
        assert np.std(z) == pytest.approx(1, abs=0.17)


def test_the_intervals_use_the_wider_standard_error():
    one = Parameter("position", 1.0, 0.1, 0.2, "logits")
    assert (one.low, one.high) == (1 - 1.96 * 0.2, 1 + 1.96 * 0.2)
    assert replace(one, se_sandwich=None).wider == 0.1


def test_sandwich_widens_where_raters_differ_in_what_they_prefer():
    """Two camps of opposite position habits: judgments of a rater are alike, so clusters carry less than their count.

    The Laplace error takes 3,000 independent judgments; the sandwich sees 30 raters whose habits differ with sd 1.
    """
    society = leaderboard(3, n_raters=30, n_judgments=3000, position=0.0, tie=None)
    rng = np.random.default_rng(0)
    frame = society.feedback.judgments
    habit = rng.normal(0, 1, 30)[frame["rater"].cast(pl.Int64).to_numpy()]
    shown = np.array(frame["responses"].to_list())
    u = society.truth.value[shown]
    outcome = np.where(rng.random(len(habit)) < expit(u[:, 0] - u[:, 1] + habit), "left", "right")
    feedback = replace(society.feedback, judgments=frame.with_columns(pl.Series("outcome", outcome, dtype=frame["outcome"].dtype)))
    position = _number(fit(feedback, observation=SHOWN), "position")
    assert position.se_sandwich is not None
    assert position.se_sandwich > 2 * position.se
    assert position.se_sandwich == pytest.approx(1 / np.sqrt(30), rel=0.5)  # sd of the habits over the root of the raters


def test_no_sandwich_from_a_handful_of_raters():
    society = leaderboard(3, n_raters=4)
    result = fit(society.feedback, observation=SHOWN)
    assert all(p.se_sandwich is None for p in result.parameters)
    assert any("fewer than 10 raters" in note for note in result.notes)


# ------------------------------------------------------------------------------------ the mode and the prior


def _penalised(society: Society, result: Fit, observation: Observation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the log posterior at the fit, curvature given the slopes, and what is missing of it, from the documented priors.

    A lapse is at the mode of its marginal posterior: the centre of its prior is the state's, which the test below it holds to a reference.
    """
    feedback = society.feedback
    basis = Tabular().prepare(feedback)
    likelihood = Likelihood(build_design(feedback, observation, Strata.of([], feedback)), basis, observation)
    x = np.concatenate([result.weights.ravel(), result.shifts, result.shape])
    assert len(x) == likelihood.size
    precision, centre = np.ones(likelihood.size), np.zeros(likelihood.size)
    precision[likelihood.values] = 1 / result.prior["values_sd"] ** 2
    precision[likelihood.shape] = 1 / 2**2
    centre[likelihood.shape] = likelihood.shape_start()
    if observation.lapse:
        precision[-1] = 1.0
        posed = problem.pose(feedback, utility=None, people=None, observation=observation, require_identified=True)
        centre[-1] = search.optimise(posed, max_iterations=200, tolerance=1e-4, seed=0).prior.centre[-1]
    nodes = Nodes(result.slope_nodes, np.zeros_like(result.slope_nodes))
    d = likelihood.derivatives(x, nodes, result.slope_weights)
    missing, _ = likelihood.score_products(x, nodes, result.slope_weights)
    return d.gradient - precision * (x - centre), d.whole() + np.diag(precision), missing


@pytest.mark.parametrize(
    "observation",
    [PLAIN, SHOWN, Observation(effects=(Position(),), lapse=True), Observation(effects=(Reliability(), Position()), lapse=True)],
    ids=["plain", "position", "lapse", "reliability"],
)
def test_first_order_condition_holds_at_the_fit(observation: Observation):
    """The gradient of the log posterior is 0 up to the stated tolerance of 1e-4 standard errors (the Newton decrement)."""
    society = leaderboard(7, n_judgments=800, careless=0.2)
    result = fit(society.feedback, observation=observation)
    gradient, curvature, _ = _penalised(society, result, observation)
    assert np.sqrt(gradient @ np.linalg.solve(curvature, gradient) / len(gradient)) < 1e-4
    assert result.convergence.decrement < result.convergence.tolerance == 1e-4


def test_the_covariance_knows_that_slopes_are_not_known():
    """It is the inverse of the observed information (Louis 1982), not of the larger one given the slopes: 1% of the largest entry."""
    society = leaderboard(7, n_judgments=800, careless=0.2)
    observation = Observation(effects=(Reliability(), Position()), lapse=True)
    result = fit(society.feedback, observation=observation)
    _, curvature, missing = _penalised(society, result, observation)
    n = society.feedback.n_responses
    observed, given = np.linalg.inv(curvature - missing)[:n, :n], np.linalg.inv(curvature)[:n, :n]
    # the last two columns are the doubts about the prior's strength and about the scale
    factor, scale = result.factor[:, :-2], result.factor[:, -1]
    assert np.abs(factor @ factor.T - observed).max() < 0.01 * np.abs(observed).max()
    # and then the doubt about the scale that all values share, which is along the values themselves
    assert abs(scale @ result.weights[0]) > 0.9999 * np.linalg.norm(scale) * np.linalg.norm(result.weights[0])
    assert 0.02 < np.linalg.norm(scale) / np.linalg.norm(result.weights[0]) < 0.3
    assert np.abs(given - observed).max() > 0.1 * np.abs(observed).max()  # there is something to tell apart


def test_one_judgment_per_pair_equals_the_map_by_another_optimiser():
    """Documented meaning of the prior: values are N(0, values_sd^2), so the mode minimises sum -log sigmoid(gap) + |u|^2 / (2 sd^2).

    The fit stops within 1e-3 standard errors; these are below 1 logit.
    """
    rng = np.random.default_rng(0)
    n = 12
    u = rng.normal(0, 1.5, n)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    won = [rng.random() < expit(u[i] - u[j]) for i, j in pairs]
    feedback = Feedback.from_columns(
        {"kind": ["pair"] * len(pairs), "ids": [[f"r{i}", f"r{j}"] for i, j in pairs], "outcome": ["left" if w else "right" for w in won]}
    )
    result = fit(feedback, observation=PLAIN)
    sd = result.prior["values_sd"]
    code = {name: c for c, name in enumerate(feedback.responses["name"].to_list())}
    i, j = np.array([[code[f"r{a}"], code[f"r{b}"]] for a, b in pairs]).T
    sign = np.where(won, 1.0, -1.0)

    def cost(x: np.ndarray) -> float:
        return float(-log_expit(sign * (x[i] - x[j])).sum() + (x**2).sum() / (2 * sd**2))

    best = optimize.minimize(cost, np.zeros(n), method="BFGS", options={"gtol": 1e-7}).x
    assert np.abs(result.utilities(feedback) - best).max() < 1e-3
    # and the covariance is the inverse of the curvature there
    gap = best[i] - best[j]
    curvature = np.eye(n) / sd**2
    for a, b, w in zip(i, j, expit(gap) * expit(-gap), strict=True):
        curvature[[a, b], [a, b]] += w
        curvature[[a, b], [b, a]] -= w
    inverse = np.linalg.inv(curvature)
    covariance = result.factor[:, :-1] @ result.factor[:, :-1].T
    assert np.abs(covariance - inverse).max() < 2e-3 * covariance.max()
    # and besides, how the mode moves with log sd^2 (central differences), times the sd that log sd^2 is documented to have
    around = []
    for step in (0.05, -0.05):
        sd = result.prior["values_sd"] * np.exp(step / 2)
        around.append(optimize.minimize(cost, best, method="BFGS", options={"gtol": 1e-7}).x)
    well_determined = n - np.trace(inverse) / result.prior["values_sd"] ** 2
    doubt = (around[0] - around[1]) / 0.1 / np.sqrt(well_determined**2 / (2 * n) + 1 / 1.5**2)
    assert np.abs(result.factor[:, -1] - doubt).max() < 0.01 * np.abs(doubt).max()
    assert np.abs(doubt).max() > 0.05


def test_the_estimated_sd_is_a_maximum_of_the_marginal_likelihood():
    """Laplace's, written out here for plain Bradley-Terry, with log sd^2 ~ N(0, 1.5^2); settled within 2%, asserted within 4%.

    It lies above what MacKay's update alone comes to rest at, where sd^2 is the mean posterior second moment.
    """
    society = leaderboard(8, n_responses=24, n_judgments=600, spread=1.5, position=0.0, tie=None)
    feedback = society.feedback
    result = fit(feedback, observation=PLAIN)
    i, j = np.array(feedback.judgments["responses"].to_list()).T
    sign = np.where((feedback.judgments["outcome"] == "left").to_numpy(), 1.0, -1.0)
    n = feedback.n_responses

    def mode(v: float) -> tuple[np.ndarray, np.ndarray]:
        u = np.zeros(n)
        for _ in range(50):
            gap = u[i] - u[j]
            g = sign * expit(-sign * gap)
            w = expit(gap) * expit(-gap)
            A = np.eye(n) / v
            np.add.at(A, (i, i), w)
            np.add.at(A, (j, j), w)
            np.add.at(A, (i, j), -w)
            np.add.at(A, (j, i), -w)
            u = u + np.linalg.solve(A, np.bincount(i, g, n) - np.bincount(j, g, n) - u / v)
        return u, A

    def minus_log_marginal(log_v: float) -> float:
        v = float(np.exp(log_v))
        u, A = mode(v)
        fits = log_expit(sign * (u[i] - u[j])).sum() - u @ u / (2 * v) - n / 2 * log_v - log_v**2 / (2 * 1.5**2)
        return float(-fits + np.linalg.slogdet(A)[1] / 2)

    best = optimize.minimize_scalar(minus_log_marginal, bounds=(-2, 3), method="bounded").x
    assert result.prior["values_sd"] == pytest.approx(np.exp(best / 2), rel=0.04)
    u, A = mode(result.prior["values_sd"] ** 2)
    assert result.prior["values_sd"] ** 2 > 1.02 * (u @ u + np.trace(np.linalg.inv(A))) / n
    # 24 values estimate their sd within 1 / sqrt(48) = 14%, three times that allowed
    assert result.prior["values_sd"] == pytest.approx(1.5, rel=0.42)


def test_a_lapse_is_where_its_marginal_likelihood_is_largest():
    """Laplace's, with values integrated out, written out here: log p(u^(l), l) - log det A(u^(l), l) / 2 over the log odds l.

    It settles within 5% of its standard error, asserted within 8%. The joint mode of u and l lies lower by several times that.
    """
    society = leaderboard(8, n_responses=24, n_judgments=300, spread=1.5, position=0.0, tie=None, lapse=0.1)
    feedback = society.feedback
    result = fit(feedback, observation=Observation(effects=(), lapse=True))
    i, j = np.array(feedback.judgments["responses"].to_list()).T
    sign = np.where((feedback.judgments["outcome"] == "left").to_numpy(), 1.0, -1.0)
    n, v = feedback.n_responses, result.prior["values_sd"] ** 2

    def fall(u: np.ndarray, log_odds: float) -> float:
        p = (1 - expit(log_odds)) * expit(sign * (u[i] - u[j])) + expit(log_odds) / 2
        return float(-np.log(p).sum() + u @ u / (2 * v) + (log_odds + 4) ** 2 / 2)

    def profile(log_odds: float) -> tuple[float, np.ndarray]:
        e = expit(log_odds)

        def gradient(u: np.ndarray) -> np.ndarray:
            s = expit(sign * (u[i] - u[j]))
            g = sign * (1 - e) * s * (1 - s) / ((1 - e) * s + e / 2)
            return u / v - np.bincount(i, g, n) + np.bincount(j, g, n)

        found = optimize.minimize(fall, np.zeros(n), args=(log_odds,), jac=lambda u, _: gradient(u), method="BFGS", options={"gtol": 1e-7})
        A = np.column_stack([(gradient(found.x + h) - gradient(found.x - h)) / 2e-4 for h in 1e-4 * np.eye(n)])
        return float(found.fun), A

    def minus_log_marginal(log_odds: float) -> float:
        cost, A = profile(log_odds)
        return cost + float(np.linalg.slogdet(A)[1]) / 2

    best = optimize.minimize_scalar(minus_log_marginal, bounds=(-7, 0), method="bounded").x
    joint = optimize.minimize_scalar(lambda log_odds: profile(log_odds)[0], bounds=(-7, 0), method="bounded").x
    lapse = _number(result, "lapse (log odds)")
    assert lapse.estimate == pytest.approx(best, abs=0.08 * lapse.se)
    assert best - joint > 0.3 * lapse.se


@pytest.mark.parametrize("cut", [curvature.DENSE, 0], ids=["one matrix", "blocks"])
def test_log_determinant_of_all_but_the_nuisance_parameters(cut: int, monkeypatch: pytest.MonkeyPatch):
    """By Cholesky of the one matrix, and by blocks and their Schur complement, as NumPy has it of the whole matrix."""
    monkeypatch.setattr(curvature, "DENSE", cut)
    feedback, _ = _textbook(72, 400)
    observation = Observation(effects=(Position(),), lapse=True)
    basis = Tabular().prepare(feedback)
    likelihood = Likelihood(build_design(feedback, observation, Strata.of([], feedback)), basis, observation)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.5, likelihood.size)
    d = likelihood.derivatives(x, Nodes.fixed(feedback.n_raters), np.ones((feedback.n_raters + 1, 1)))
    precision = rng.uniform(1, 2, likelihood.size)
    solver = curvature.make_solver(likelihood, d, precision, curvature.Components.of(likelihood, d), rng)
    assert isinstance(solver, curvature.Blocks if cut == 0 else curvature.Dense)
    known = likelihood.nuisance
    assert known.tolist() == [likelihood.size - 1]
    rest = np.setdiff1d(np.arange(likelihood.size), known)
    whole = d.whole() + np.diag(precision)
    assert solver.log_det(known) == pytest.approx(np.linalg.slogdet(whole[np.ix_(rest, rest)])[1], abs=1e-8)


def test_where_nothing_was_preferred_the_values_shrink_to_nothing():
    """Coin flips carry no value: the estimated sd, and with it every gap, goes towards 0 rather than fitting the noise."""
    society = leaderboard(9, spread=0.0, n_judgments=1500)
    result = fit(society.feedback, observation=SHOWN)
    assert result.prior["values_sd"] < 0.2
    assert np.abs(_gaps_of(society.feedback, result).mean).max() < 0.3


# ------------------------------------------------------------------------------------ convergence, identification, extremes


def test_not_converged_is_raised_and_can_be_allowed(tmp_path: Path):
    society = leaderboard(2)
    with pytest.raises(NotConverged, match="after 2 iterations") as caught:
        fit(society.feedback, max_iterations=2)
    assert caught.value.iterations == 2
    result = fit(society.feedback, max_iterations=2, require_converged=False)
    assert "NOT CONVERGED" in repr(result)
    result.save(tmp_path)
    assert json.loads((tmp_path / "fit.json").read_text())["convergence"]["converged"] is False
    assert "NOT CONVERGED" in repr(Fit.load(tmp_path))


def test_convergence_is_reported():
    society = leaderboard(2)
    seen: list[tuple[int, float]] = []
    result = fit(society.feedback, progress=lambda i, d: seen.append((i, d)))
    assert result.convergence.converged
    assert "NOT CONVERGED" not in repr(result)
    assert [i for i, _ in seen] == list(range(1, result.convergence.iterations + 1))
    assert seen[-1][1] == result.convergence.decrement


def test_a_cut_graph_is_named():
    society = leaderboard(4, n_components=2, n_responses=8)
    with pytest.raises(NotIdentified, match="the comparison graph is cut") as caught:
        fit(society.feedback)
    assert len(caught.value.parts) == 2
    assert all("entry-" in part for part in caught.value.parts)
    result = fit(society.feedback, require_identified=False)
    assert any("cut in 2 parts" in note for note in result.notes)
    _finite(result)


def test_separation_stays_finite():
    """A beats B beats C always: the maximum of the likelihood is at infinity, the mode is not."""
    pairs = [["a", "b"], ["b", "c"], ["a", "c"]] * 40
    feedback = Feedback.from_columns({"kind": ["pair"] * 120, "ids": pairs, "outcome": ["left"] * 120, "order_known": [True] * 120})
    result = fit(feedback)
    _finite(result)
    a, b, c = (result.utilities(feedback)[feedback.responses["name"].to_list().index(x)] for x in "abc")
    assert a > b > c
    assert a - c < 50


def test_all_ties_stay_finite():
    """Nobody ever decides: the tie propensity is held by its prior, and no response is better."""
    feedback = Feedback.from_columns({"kind": ["pair"] * 30, "ids": [["a", "b"], ["b", "c"], ["a", "c"]] * 10, "outcome": ["tie"] * 30})
    result = fit(feedback)
    _finite(result)
    assert np.abs(_gaps_of(feedback, result).mean).max() < 0.01


def test_a_single_judgment_can_be_fitted():
    feedback = Feedback.from_columns({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"]})
    result = fit(feedback)
    _finite(result)
    gaps = result.gaps(feedback, np.array([0]), np.array([1]))
    assert 0 < gaps.mean[0] < gaps.ignorance[0] * 2


@pytest.mark.parametrize(
    "people",
    [
        pytest.param(Same(), id="same"),
        pytest.param(Groups(), id="groups"),
    ],
)
def test_the_sparse_path_agrees_with_the_dense_one(people: Same | Groups, monkeypatch: pytest.MonkeyPatch):
    """Beyond DENSE parameters: conjugate gradients and 128 draws. A sd from 128 draws errs by 1 / sqrt(256) = 6%, a mean of 199 by less."""
    settings: dict[str, Any] = {"groups": 2, "disagreement": 0.5} if isinstance(people, Groups) else {}
    society = leaderboard(71, n_responses=200, n_judgments=2000, n_raters=40, **settings)
    dense = fit(society.feedback, observation=SHOWN, people=people)
    monkeypatch.setattr(curvature, "DENSE", 5)
    sparse = fit(society.feedback, observation=SHOWN, people=people)
    assert any("draws" in note for note in sparse.notes)
    one, two = _gaps_of(society.feedback, dense), _gaps_of(society.feedback, sparse)
    for name in ("values_sd", *(["values of group_sd"] if isinstance(people, Groups) else [])):
        assert sparse.prior[name] == pytest.approx(dense.prior[name], rel=0.1)
    assert np.sqrt(np.mean((one.mean - two.mean) ** 2)) < 0.2 * one.ignorance.mean()
    assert (two.ignorance / one.ignorance).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_standard_errors_from_draws_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch):
    """Of each of 3,000 values that hang together, within 5% (found: 1.4% at most)."""
    society = leaderboard(72, n_responses=3000, n_judgments=30_000, tie=None, position=0.0)
    plain = Observation(effects=(), lapse=False)
    drawn = fit(society.feedback, utility=Tabular(), observation=plain, require_identified=False)
    assert any("draws" in note for note in drawn.notes)
    for module in (curvature, posterior):
        monkeypatch.setattr(module, "DENSE", 10_000)
    whole = fit(society.feedback, utility=Tabular(), observation=plain, require_identified=False)
    assert not any("draws" in note for note in whole.notes)
    assert np.abs(drawn.ignorance(society.feedback) / whole.ignorance(society.feedback) - 1).max() < 0.05


@pytest.mark.parametrize("n_responses", [60, 400])
def test_a_lapse_alone_in_the_border_does_not_throw_the_fit(n_responses: int, monkeypatch: pytest.MonkeyPatch):
    """At the start a lapse has no curvature of its own and some with the values: what is left of it then curves the wrong way."""
    monkeypatch.setattr(curvature, "DENSE", 5)
    society = leaderboard(3, n_responses=n_responses, n_judgments=10 * n_responses, tie=None, position=0.0)
    result = fit(society.feedback, observation=Observation(effects=(), lapse=True))
    assert result.convergence.converged
    assert result.convergence.iterations < 40
    assert np.corrcoef(result.utilities(society.feedback), society.truth.value)[0, 1] > 0.6


@pytest.mark.parametrize("observation", [SHOWN, Observation()], ids=["position", "everything"])
@pytest.mark.parametrize("people", [Same(), Groups()], ids=["same", "groups"])
def test_blocks_agree_with_the_dense_matrix(people: Same | Groups, observation: Observation, monkeypatch: pytest.MonkeyPatch):
    """Responses that meet in prompts only: the same mode, and gaps within a prompt as uncertain. With slopes to be known, blocks
    take scores to be linear in them, and 64 draws stand for the columns of 40 raters: 10% of a standard error allowed, 1% on average."""
    settings: dict[str, Any] = {"groups": 2, "disagreement": 0.5} if isinstance(people, Groups) else {}
    society = simulate(text=True, n_prompts=30, n_responses=4, n_raters=40, n_judgments=1500, careless=0.2, seed=5, **settings)
    feedback = society.feedback
    dense = fit(feedback, utility=Tabular(), observation=observation, people=people)
    monkeypatch.setattr(curvature, "DENSE", 5)
    blocks = fit(feedback, utility=Tabular(), observation=observation, people=people)
    assert issparse(blocks.factor)
    prompt = feedback.responses["prompt"].cast(pl.Int64).to_numpy()
    left, right = (a for a in np.triu_indices(len(prompt), 1))
    left, right = left[prompt[left] == prompt[right]], right[prompt[left] == prompt[right]]
    one, two = dense.gaps(feedback, left, right), blocks.gaps(feedback, left, right)
    assert np.abs(one.mean - two.mean).max() < 0.05 * one.ignorance.mean()
    ratio = two.ignorance / one.ignorance
    slack = 1e-3 if observation is SHOWN else 0.1
    assert np.abs(ratio - 1).max() < slack
    assert abs(ratio.mean() - 1) < max(1e-3, 0.1 * slack)
    for a, b in zip(dense.parameters, blocks.parameters, strict=True):
        assert b.se == pytest.approx(a.se, rel=max(1e-3, slack / 2))
        assert (b.se_sandwich or 0) == pytest.approx(a.se_sandwich or 0, rel=max(1e-3, slack / 2))


def test_draws_of_the_covariance_keep_its_size(monkeypatch: pytest.MonkeyPatch):
    """Beyond DENSE values the covariance is 512 draws: 3% error of each sd, here within 3.3 of that."""
    feedback, _ = _textbook(72, 400)
    whole = fit(feedback, observation=SHOWN)
    monkeypatch.setattr(posterior, "DENSE", 5)
    drawn = fit(feedback, observation=SHOWN)
    assert np.abs(whole.weights - drawn.weights).max() == 0
    ratio = _gaps_of(feedback, drawn).ignorance / _gaps_of(feedback, whole).ignorance
    assert np.abs(ratio - 1).max() < 0.11


def test_repeating_the_fit_repeats_it_exactly():
    society = leaderboard(2, careless=0.2)
    one, two = fit(society.feedback), fit(society.feedback)
    assert (one.weights == two.weights).all()
    assert (one.factor == two.factor).all()


# ------------------------------------------------------------------------------------ a model wrong on purpose


def test_leaving_out_position_is_caught_on_held_out_judgments():
    """Planted 1.2 logits for the first slot: without Position, held-out log loss is worse by more than 3 paired standard errors,
    and responses shown first win more often than predicted by more than 3 standard errors."""
    society = leaderboard(11, n_judgments=1500, position=1.2, tie=None)
    train, test = society.feedback.split(by="judgment", test=0.3, seed=0)

    def held_out(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
        (block,) = predict(fit(train, observation=observation), test)
        times = block.count.astype(int)
        loss = -np.log(block.probs[np.arange(len(times)), block.outcome])
        surplus = (block.outcome == 0) - block.probs[:, 0]
        return np.repeat(loss, times), np.repeat(surplus, times)

    (right, fair), (wrong, surplus) = held_out(SHOWN), held_out(PLAIN)

    def z(x: np.ndarray) -> float:
        return float(x.mean() / (x.std() / np.sqrt(len(x))))

    assert z(wrong - right) > 3
    assert z(surplus) > 3
    assert abs(z(fair)) < 3.3


# ------------------------------------------------------------------------------------ files


def _same(one: Fit, two: Fit, feedback: Feedback) -> None:
    """Equal predictions, up to 1e-12."""
    left, right = np.arange(feedback.n_responses - 1), np.arange(1, feedback.n_responses)
    a, b = one.gaps(feedback, left, right), two.gaps(feedback, left, right)
    for name in ("mean", "ignorance", "by_group", "disagreement"):
        assert np.abs(getattr(a, name) - getattr(b, name)).max() <= 1e-12
    assert np.abs(one.utilities(feedback) - two.utilities(feedback)).max() <= 1e-12
    assert np.abs(one.ignorance(feedback) - two.ignorance(feedback)).max() <= 1e-12
    assert np.abs(one.support(feedback) - two.support(feedback)).max() <= 1e-12
    assert one.doubts(a).equals(two.doubts(b))
    for x, y in zip(predict(one, feedback), predict(two, feedback), strict=True):
        assert x.name == y.name
        assert x.family == y.family
        assert np.abs(x.probs - y.probs).max() <= 1e-12
    assert one.parameters == two.parameters
    assert one.raters.equals(two.raters)
    assert repr(one) == repr(two)


def _round_trip(result: Fit, feedback: Feedback, folder: Path) -> None:
    result.save(folder)
    assert {p.name for p in folder.iterdir()} == {"fit.json", "arrays.safetensors"}
    for path in folder.iterdir():
        head = path.read_bytes()
        assert b"\x80\x04\x95" not in head[:64]  # the frame that opens a pickle
        assert not head.startswith(b"PK")  # a zip, as torch and NumPy write pickles
    _same(result, Fit.load(folder), feedback)


def test_saved_table_gives_the_same_predictions(crowd: tuple[Society, Fit], tmp_path: Path):
    _round_trip(crowd[1], crowd[0].feedback, tmp_path / "new" / "fit")


def test_saved_features_give_the_same_predictions(texts: tuple[Society, Feedback, Feedback, Fit], tmp_path: Path):
    _round_trip(texts[3], texts[2], tmp_path)


def test_saved_groups_and_kinds_give_the_same_predictions(mixed: tuple[Society, Fit], tmp_path: Path):
    _round_trip(mixed[1], mixed[0].feedback, tmp_path)


def test_loading_something_else_is_named(tmp_path: Path):
    with pytest.raises(UnreadableSource, match="not a fitted model"):
        Fit.load(tmp_path / "nothing")
    (tmp_path / "fit.json").write_text("{", encoding="utf-8")
    with pytest.raises(UnreadableSource, match="Give the fit/ folder"):
        Fit.load(tmp_path)


# ------------------------------------------------------------------------------------ other families and links


def test_rao_kupper_fits_ungraded_pairs_with_ties():
    """The tie threshold is recovered where ties are planted by it: 3,000 judgments, within 3.3 standard errors."""
    rng = np.random.default_rng(0)
    u = rng.normal(0, 1, 10)
    i = rng.integers(0, 10, 3000)
    j = (i + rng.integers(1, 10, 3000)) % 10
    latent = u[i] - u[j] + rng.logistic(size=3000)
    outcome = np.where(np.abs(latent) < 0.6, "tie", np.where(latent > 0, "left", "right")).tolist()
    feedback = Feedback.from_columns(
        {"kind": ["pair"] * 3000, "ids": [[f"r{a}", f"r{b}"] for a, b in zip(i, j, strict=True)], "outcome": outcome}
    )
    result = fit(feedback, observation=Observation(outcomes={"pair": rao_kupper()}, effects=(), lapse=False))
    (threshold,) = result.parameters
    assert abs(threshold.estimate - np.log(0.6)) < 3.3 * threshold.se
    order = [int(name[1:]) for name in feedback.responses["name"].to_list()]
    gap = result.utilities(feedback) - u[order]
    assert np.abs(gap - gap.mean()).max() < 4 * result.ignorance(feedback).mean()
    assert sum(b.count.sum() for b in predict(result, feedback)) == 3000


@pytest.mark.parametrize("kind", ["pair", "rating", "thumbs"])
def test_the_probit_link_tells_nearly_the_same(kind: str):
    """The links are within .0095 of each other in probability, so utilities agree within about 6% and log likelihoods within 1%."""
    families: dict[str, Outcome] = {"pair": Choice(link="probit"), "rating": Rating((), link="probit"), "thumbs": Thumbs(link="probit")}
    society = leaderboard(5, kinds=(kind,), n_judgments=1500, tie=None, position=0.0)
    one = fit(society.feedback, observation=PLAIN)
    two = fit(society.feedback, observation=Observation(outcomes={kind: families[kind]}, effects=(), lapse=False))
    assert {getattr(f, "link", "") for f in two.families.values()} == {"probit"}
    a, b = _gaps_of(society.feedback, one).mean, _gaps_of(society.feedback, two).mean
    assert np.corrcoef(a, b)[0, 1] > 0.998
    assert (a @ b) / (a @ a) == pytest.approx(1, abs=0.08)
    assert two.convergence.log_likelihood == pytest.approx(one.convergence.log_likelihood, rel=0.01)


# ------------------------------------------------------------------------------------ the three doubts


def _doubt(result: Fit, feedback: Feedback) -> pl.DataFrame:
    return result.doubts(_gaps_of(feedback, result))


def test_doubts_add_up(crowd: tuple[Society, Fit], divided: tuple[Society, Fit]):
    """noise + disagreement + ignorance = p (1 - p) exactly: the same quadrature serves all of them."""
    for society, result in (crowd, divided):
        table = _doubt(result, society.feedback)
        p = table["p"].to_numpy()
        parts = table.select(pl.exclude("p")).fill_null(0.0).to_numpy()
        assert np.abs(parts.sum(1) - p * (1 - p)).max() < 1e-12
        assert parts.min() >= 0


def test_doubts_match_a_simulation(divided: tuple[Society, Fit]):
    """Persons drawn by group share, parameters by their posterior: 400,000 draws give p within 5 x 1 / sqrt(4e5) = 0.004."""
    society, result = divided
    gaps = _gaps_of(society.feedback, result)
    table = result.doubts(gaps)
    rng = np.random.default_rng(0)
    person = rng.choice(len(result.groups), 400_000, p=result.group_share)
    z = rng.normal(size=400_000)
    for i in range(3):
        s = expit(gaps.by_group[i, person] + gaps.ignorance[i] * z)
        assert table["p"][i] == pytest.approx(s.mean(), abs=0.004)
        assert table["noise"][i] == pytest.approx((s * (1 - s)).mean(), abs=0.004)


def test_noise_and_disagreement_are_not_told_apart_without_groups(crowd: tuple[Society, Fit]):
    society, result = crowd
    assert not result.separates
    table = _doubt(result, society.feedback)
    assert table["noise"].null_count() == table.height
    assert table["disagreement"].null_count() == table.height
    assert table["noise_and_disagreement"].null_count() == 0


def test_more_judgments_shrink_ignorance_and_not_noise():
    """Eight times the judgments: posterior sd down by about sqrt(8) = 2.8 (at least 1.8, as the prior helps the small fit);
    what is left of the doubt is noise, which no number of judgments removes."""
    society = leaderboard(12, n_judgments=3200)
    few = society.feedback.filter(np.arange(3200) < 400)
    assert few.responses["name"].to_list() == society.feedback.responses["name"].to_list()
    small, large = (fit(f, observation=SHOWN) for f in (few, society.feedback))
    ratio = _gaps_of(few, small).ignorance / _gaps_of(society.feedback, large).ignorance
    assert ratio.min() > 1.8
    before, after = _doubt(small, few), _doubt(large, society.feedback)
    assert (after["ignorance"] < before["ignorance"]).all()
    truth = society.truth.value
    s = expit(truth[:-1] - truth[1:])
    noise = (s * (1 - s)).mean()
    assert after["noise_and_disagreement"].mean() == pytest.approx(noise, rel=0.15)
    assert after["ignorance"].mean() < 0.05 * noise


def test_support_grows_with_judgments():
    society = leaderboard(12, n_judgments=1600)
    few = society.feedback.filter(np.arange(1600) < 100)
    rare, often = (fit(f, observation=SHOWN).support(f) for f in (few, society.feedback))
    assert ((rare >= 0) & (rare <= 1)).all()
    assert rare.mean() < often.mean()
    assert often.min() > 0.7


# ------------------------------------------------------------------------------------ groups


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    """Two groups that differ by 1 logit, root mean square from their mean."""
    society = leaderboard(21, groups=2, disagreement=1.0, n_raters=30, n_judgments=2400, n_responses=14)
    return society, fit(society.feedback, people=Groups(), observation=SHOWN)


def test_groups_recover_planted_disagreement(divided: tuple[Society, Fit]):
    society, result = divided
    truth = society.truth.value_by_group
    gaps = _gaps_of(society.feedback, result)
    planted = (truth[:-1] - truth[1:])[:, 0] - (truth[:-1] - truth[1:])[:, 1]
    found = gaps.by_group[:, 0] - gaps.by_group[:, 1]
    assert result.groups == society.truth.group_names
    assert np.corrcoef(planted, found)[0, 1] > 0.85
    # sd over two equal groups is half their difference; partial pooling shrinks it a little
    assert gaps.disagreement.mean() == pytest.approx(np.abs(planted).mean() / 2, rel=0.35)
    assert result.separates
    assert _doubt(result, society.feedback)["disagreement"].mean() > 0.01


def test_groups_that_do_not_differ_are_pooled(divided: tuple[Society, Fit]):
    society = leaderboard(22, groups=2, disagreement=0.0, n_raters=30, n_judgments=2400, n_responses=14)
    result = fit(society.feedback, people=Groups(), observation=SHOWN)
    gaps = _gaps_of(society.feedback, result)
    assert gaps.disagreement.mean() < 0.12
    assert result.prior["values of group_sd"] < 0.4 * divided[1].prior["values of group_sd"]
    # and the shared values are those of a fit that knows no groups
    same = _gaps_of(society.feedback, fit(society.feedback, observation=SHOWN))
    assert np.abs(gaps.mean - same.mean).max() < 0.15


def test_with_groups_no_rater_is_opposed(divided: tuple[Society, Fit]):
    """Slopes are positive when values differ by group: a minority is not turned into evidence for the majority."""
    society, _ = divided
    result = fit(society.feedback, people=Groups(), observation=Observation(effects=(Reliability(),), lapse=False))
    assert result.prior["share opposed"] == 0
    assert (result.raters["p_opposed"] == 0).all()
    assert (result.slope_nodes >= 0).all()


def test_a_group_weighs_as_many_raters_as_it_has():
    society = leaderboard(23, groups=2, disagreement=1.0, group_shares=(0.8, 0.2), n_raters=30, n_judgments=1500)
    result = fit(society.feedback, people=Groups(), observation=SHOWN)
    assert result.group_share.tolist() == [0.8, 0.2]
    everyone = result.utilities(society.feedback)
    alone = [result.utilities(society.feedback, group_weights={name: 1.0}) for name in result.groups]
    assert np.abs(everyone - (0.8 * alone[0] + 0.2 * alone[1])).max() < 1e-12


def test_groups_differ_in_features_and_not_in_residuals():
    """With texts judged often, each has a value of its own beside its features; a group has none."""
    society = simulate(n_prompts=15, n_raters=20, n_judgments=900, groups=2, disagreement=1.0, careless=0.0, opposed=0.0, seed=24)
    result = fit(society.feedback, utility=Linear(n_columns=32, residual=True), people=Groups(), observation=SHOWN)
    _finite(result)
    own = dict(result.basis.parts)["residual"]
    assert np.abs(result.weights[1:, own]).max() == 0
    assert np.abs(result.weights[0, own]).max() > 0
    factor = result.factor.reshape(*result.weights.shape, -1)
    assert np.abs(factor[1:, own]).max() == 0
    support = result.support(society.feedback)
    assert ((support > 0) & (support <= 1)).all()


def test_a_new_response_has_the_residual_variance():
    """What its features do not say about a new text is not known: its ignorance holds the residual's variance whole."""
    society = simulate(n_prompts=20, n_raters=10, n_judgments=900, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, seed=25)
    result = fit(society.feedback, utility=Linear(n_columns=32, residual=True), observation=SHOWN)
    text = society.feedback.responses["text"][0]
    new = Feedback.from_columns({"kind": ["thumbs"], "outcome": ["skipped"], "prompt": ["another prompt"], "texts": [[text]]})
    assert result.prior["residual_sd"] > 0.05
    assert result.ignorance(new)[0] >= result.prior["residual_sd"]
    assert result.ignorance(society.feedback)[0] < result.ignorance(new)[0]


# ------------------------------------------------------------------------------------ kinds of judgment

KINDS = ("pair", "choice", "ranking", "rating", "thumbs")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_recovers_values(kind: str):
    """All kinds measure logits of one utility. The scale of 1 is met within 0.25: 20 raters' slopes of sd 0.25 move it by 6%, the
    estimate's own error is 6 to 8%, shrinkage takes about 5%."""
    society = leaderboard(32, kinds=(kind,), n_judgments=1200, leniency=0.5, position=0.0 if kind == "ranking" else 0.3)
    result = fit(society.feedback, observation=Observation(effects=(Position(), Leniency()), lapse=True))
    _finite(result)
    assert np.corrcoef(result.utilities(society.feedback), society.truth.value)[0, 1] > 0.95
    slope = np.polyfit(society.truth.value, result.utilities(society.feedback), 1)[0]
    assert slope == pytest.approx(1, abs=0.25)


def test_leniency_recovers_the_raters_shifts():
    society = leaderboard(32, kinds=("rating",), n_judgments=1500, leniency=1.0)
    result = fit(society.feedback, observation=Observation(effects=(Leniency(),), lapse=False))
    assert np.corrcoef(result.raters["leniency"], society.truth.leniency)[0, 1] > 0.9
    assert result.prior["leniency_sd"] == pytest.approx(society.truth.leniency.std(), rel=0.3)


def _graded(seed: int, n: int = 900) -> tuple[Feedback, np.ndarray]:
    """Pairs with three strengths and ties from the latent logistic story, thresholds at 0.3, 1.0, 2.0; values by response code."""
    rng = np.random.default_rng(seed)
    u = rng.normal(0, 1.2, 12)
    shown = np.array([rng.permutation(12)[:2] for _ in range(n)])
    latent = u[shown[:, 0]] - u[shown[:, 1]] + rng.logistic(size=n)
    level = np.searchsorted([0.3, 1.0, 2.0], np.abs(latent))
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "ids": [[f"r{a}", f"r{b}"] for a, b in shown],
            "outcome": ["tie" if k == 0 else "left" if x > 0 else "right" for k, x in zip(level, latent, strict=True)],
            "strength": [None if k == 0 else int(k) for k in level],
            "strength_levels": [3] * n,
        }
    )
    return feedback, u[[int(name[1:]) for name in feedback.responses["name"].to_list()]]


def test_graded_strength_recovers_values_and_thresholds():
    """Thresholds within 3.3 standard errors of 0.3, 0.7 and 1.0 apart; false alarms 1e-3 each."""
    feedback, u = _graded(33)
    result = fit(feedback, observation=PLAIN)
    assert np.corrcoef(result.utilities(feedback), u)[0, 1] > 0.97
    for k, step in enumerate((0.3, 0.7, 1.0)):
        p = _number(result, f"pair/strength: log_step_{k}")
        assert abs(p.estimate - np.log(step)) < 3.3 * p.wider


def test_strength_says_more_than_its_direction():
    """The same judgments without their strength give wider gaps."""
    feedback, _ = _graded(34)
    plain = replace(feedback, judgments=feedback.judgments.with_columns(pl.lit(None, dtype=pl.Int64).alias("strength")))
    graded, bare = (fit(f, observation=PLAIN) for f in (feedback, plain))
    assert _gaps_of(feedback, graded).ignorance.mean() < _gaps_of(plain, bare).ignorance.mean()


@pytest.fixture(scope="module")
def mixed() -> tuple[Society, Fit]:
    society = leaderboard(41, kinds=KINDS, groups=2, disagreement=0.6, n_judgments=900, lapse=0.02)
    return society, fit(society.feedback, people=Groups())


def test_all_kinds_fit_together(mixed: tuple[Society, Fit]):
    society, result = mixed
    _finite(result)
    assert {name.split("/")[0] for name in result.families} == set(KINDS)
    assert np.corrcoef(result.utilities(society.feedback), society.truth.value)[0, 1] > 0.9


def test_mixed_kinds_in_one_fit_beat_either_alone():
    """300 pairs and 300 ratings over three societies: the root mean square error of the gaps is smaller together than apart."""
    error = {"pair": 0.0, "rating": 0.0, "both": 0.0}
    ignorance = dict(error)
    observation = Observation(effects=(Position(), Leniency()), lapse=False)
    for seed in range(50, 53):
        society = leaderboard(seed, kinds=("pair", "rating"))
        for name in error:
            kinds = ["pair", "rating"] if name == "both" else [name]
            part = society.feedback.filter(society.feedback.judgments["kind"].is_in(kinds).to_numpy())
            row = {r: i for i, r in enumerate(society.feedback.responses["name"].to_list())}
            truth = society.truth.value[[row[r] for r in part.responses["name"].to_list()]]
            gaps = _gaps_of(part, fit(part, observation=observation))
            error[name] += float(((gaps.mean - (truth[:-1] - truth[1:])) ** 2).mean())
            ignorance[name] += float(gaps.ignorance.mean())
    assert error["both"] < min(error["pair"], error["rating"])
    assert ignorance["both"] < 0.85 * min(ignorance["pair"], ignorance["rating"])


def test_kinds_with_and_without_parameters_fit_without_a_lapse():
    """Rankings have no parameters of their own, pairs with ties have one."""
    society = leaderboard(42, kinds=("pair", "ranking"), n_judgments=300)
    _finite(fit(society.feedback, observation=PLAIN))


def _costs() -> Feedback:
    rng = np.random.default_rng(0)
    n = 200
    which = rng.integers(0, 5, n)
    cost = np.clip(np.round(which + rng.normal(0, 0.7, n)) + 1, 1, 5)
    return Feedback.from_columns(
        {
            "kind": ["rating"] * n,
            "ids": [[f"r{k}"] for k in which],
            "outcome": ["answered"] * n,
            "rating": cost.tolist(),
            "scale_low": [1.0] * n,
            "scale_high": [5.0] * n,
            "measure": ["cost"] * n,
            "rater": [f"p{k % 7}" for k in range(n)],
        }
    )


def test_costs_are_refused_unless_turned_into_preferences():
    feedback = _costs()
    with pytest.raises(SeamarkError, match="costs_as_preferences"):
        fit(feedback)
    turned = costs_as_preferences(feedback)
    u = fit(turned).utilities(turned)
    order = [turned.responses["name"].to_list().index(f"r{k}") for k in range(5)]
    assert (np.diff(u[order]) < 0).all()  # r0 costs least, so it is preferred most


def test_costs_without_a_scale_cannot_be_turned():
    feedback = _costs()
    frame = feedback.judgments.with_columns(pl.lit(None, dtype=pl.Float64).alias("scale_low"))
    with pytest.raises(SeamarkError, match="State its scale"):
        costs_as_preferences(replace(feedback, judgments=frame))


def test_what_cannot_be_fitted_is_counted():
    society = leaderboard(2, n_judgments=300)
    frame = society.feedback.judgments
    outcome = frame["outcome"].to_list()
    outcome[:20] = ["cannot_tell"] * 15 + ["skipped"] * 5
    outcome[20:30] = ["both_bad"] * 10
    feedback = replace(society.feedback, judgments=frame.with_columns(pl.Series("outcome", outcome, dtype=frame["outcome"].dtype)))
    result = fit(feedback, observation=replace(SHOWN, outcomes={"pair": Davidson()}))
    assert result.data["left_out"] == {"cannot tell or skipped": 20}
    assert any("10 'both bad' answers enter as ties" in note for note in result.notes)
    assert fit(feedback, observation=SHOWN).families["pair"] == Luce(2, most=2, none=True)
    with pytest.raises(SeamarkError, match="nothing can be learned"):
        fit(feedback.filter(np.arange(300) < 20))


def test_a_scale_of_which_one_grade_was_used_is_left_out_and_counted():
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"kind": ["rating"] * 60, "ids": [[f"r{i % 6}"] for i in range(60)], "outcome": ["answered"] * 60}
    columns |= {"axis": ["tone"] * 20 + ["help"] * 40, "rating": [3.0] * 20 + rng.integers(1, 6, 40).astype(float).tolist()}
    result = fit(Feedback.from_columns(columns), utility=Tabular())
    assert result.data["left_out"] == {"ratings on a scale with one grade": 20}
    assert set(result.families) == {"rating/help"}


def test_ratings_that_are_all_one_grade_are_said_to_be_so():
    columns: dict[str, Any] = {"kind": ["rating"] * 40, "ids": [[f"r{i % 6}"] for i in range(40)], "outcome": ["answered"] * 40}
    with pytest.raises(SeamarkError, match=r"all 40 ratings are 3, and one grade .* Collect ratings that differ"):
        fit(Feedback.from_columns(columns | {"rating": [3.0] * 40}), utility=Tabular())
    each = columns | {"axis": ["tone"] * 20 + ["help"] * 20, "rating": [3.0] * 20 + [5.0] * 20}
    with pytest.raises(SeamarkError, match=r"on each of their scales all 40 ratings are the same"):
        fit(Feedback.from_columns(each), utility=Tabular())
    with pytest.raises(SeamarkError, match=r"fitted: 20 cannot tell or skipped; 20 ratings on a scale with one grade\. Check"):
        fit(Feedback.from_columns(columns | {"rating": [3.0] * 40, "outcome": ["answered", "skipped"] * 20}), utility=Tabular())
    with pytest.raises(SeamarkError, match="all 40 have weight 0"):
        fit(Feedback.from_columns(columns | {"rating": [3.0, 4.0] * 20, "weight": [0.0] * 40}), utility=Tabular())


# ------------------------------------------------------------------------------------ invariance


def _by_name(feedback: Feedback, values: np.ndarray) -> dict[str, float]:
    return dict(zip(feedback.responses["name"].to_list(), values.tolist(), strict=True))


def _rebuilt(feedback: Feedback, order: np.ndarray, *, swap: np.ndarray | None = None) -> Feedback:
    """The same judgments in another order, made anew from columns; where `swap`, left and right change places with the outcome."""
    names, raters = feedback.responses["name"].to_list(), feedback.raters["id"].to_list()
    rows = feedback.judgments.to_dicts()
    ids, outcome = [], []
    turned = {"left": "right", "right": "left"}
    for j in order.tolist():
        slots, answer = [names[r] for r in rows[j]["responses"]], rows[j]["outcome"]
        if swap is not None and swap[j]:
            slots, answer = slots[::-1], turned.get(answer, answer)
        ids.append(slots)
        outcome.append(answer)
    return Feedback.from_columns(
        {
            "kind": ["pair"] * len(order),
            "ids": ids,
            "outcome": outcome,
            "rater": [raters[rows[j]["rater"]] for j in order.tolist()],
            "order_known": [True] * len(order),
        }
    )


def test_the_order_of_rows_does_not_matter():
    """Tolerance: sums in another order differ by rounding, which the path to a mode known within 1e-3 errors hardly amplifies."""
    society = leaderboard(61, careless=0.2)
    rng = np.random.default_rng(0)
    one = _rebuilt(society.feedback, np.arange(600))
    two = _rebuilt(society.feedback, rng.permutation(600))
    a, b = fit(one), fit(two)
    left, right = _by_name(one, a.utilities(one)), _by_name(two, b.utilities(two))
    assert max(abs(left[k] - right[k]) for k in left) < 1e-6
    left, right = _by_name(one, a.ignorance(one)), _by_name(two, b.ignorance(two))
    assert max(abs(left[k] - right[k]) for k in left) < 1e-6
    assert _number(a, "position").estimate == pytest.approx(_number(b, "position").estimate, abs=1e-6)


def test_swapping_left_and_right_with_the_outcome_turns_only_position_round():
    society = leaderboard(62, position=0.4)
    order = np.arange(600)
    one, two = _rebuilt(society.feedback, order), _rebuilt(society.feedback, order, swap=np.ones(600, dtype=bool))
    a, b = fit(one, observation=SHOWN), fit(two, observation=SHOWN)
    left, right = _by_name(one, a.utilities(one)), _by_name(two, b.utilities(two))
    assert max(abs(left[k] - right[k]) for k in left) < 1e-6
    assert _number(a, "position").estimate == pytest.approx(-_number(b, "position").estimate, abs=1e-6)


def test_without_position_swapping_some_pairs_changes_nothing():
    society = leaderboard(63)
    order = np.arange(600)
    one, two = _rebuilt(society.feedback, order), _rebuilt(society.feedback, order, swap=np.arange(600) % 3 == 0)
    a, b = fit(one, observation=PLAIN), fit(two, observation=PLAIN)
    left, right = _by_name(one, a.utilities(one)), _by_name(two, b.utilities(two))
    assert max(abs(left[k] - right[k]) for k in left) < 1e-6


def _mirrored(feedback: Feedback, swap: np.ndarray) -> Feedback:
    """The same judgments made anew from columns, of any kind; where `swap` the slots are in the reverse order, and the answer with them."""
    names, raters = feedback.responses["name"].to_list(), feedback.raters["id"].to_list()
    turned = {"left": "right", "right": "left"}
    columns: dict[str, list[Any]] = {}
    for row, back in zip(feedback.judgments.to_dicts(), swap, strict=True):
        slots, last = [names[r] for r in row["responses"]], len(row["responses"]) - 1
        new = {name: row[name] for name in ("kind", "outcome", "strength", "strength_levels", "ranks", "best", "worst") if name in row}
        if back:
            slots = slots[::-1]
            new["outcome"] = turned.get(new["outcome"], new["outcome"])
            new |= {name: last - new[name] for name in ("best", "worst") if new.get(name) is not None}
            new |= {"ranks": new["ranks"][::-1]} if new.get("ranks") is not None else {}
        for name, value in (new | {"ids": slots, "rater": raters[row["rater"]]}).items():
            columns.setdefault(name, []).append(value)
    return Feedback.from_columns(columns)


@pytest.mark.parametrize(
    "settings",
    [
        {"tie": 0.0},
        {"tie": -0.5, "bad": -0.5},
        {"tie": -0.5, "strength": (0.4, 1.2)},
        {"tie": None, "strength": (0.6, 1.5)},
        {"kinds": ("ranking",)},
        {"kinds": ("ranking",), "rank_ties": (-0.5, -1.0)},
        {"kinds": ("choice",), "worst": True},
        {"kinds": ("pair", "ranking", "choice"), "tie": -0.5},
    ],
    ids=["ties", "both bad", "strength with ties", "strength", "rankings", "rankings with ties", "best and worst", "kinds together"],
)
def test_the_order_of_slots_changes_nothing_where_it_is_not_modelled(settings: dict[str, Any]):
    """Half of the judgments with their slots in the reverse order and the answer turned with them: the same values, doubts and
    parameters, with reliabilities and lapses."""
    n = 300
    society = leaderboard(67, careless=0.2, n_judgments=n, **settings)
    swap = np.arange(n) % 2 == 0
    assert any(len(set(row)) > 1 for row in society.feedback.judgments["responses"].to_list())
    observation = Observation(effects=(Reliability(),), lapse=True)
    one, two = _mirrored(society.feedback, np.zeros(n, dtype=bool)), _mirrored(society.feedback, swap)
    assert one.judgments["responses"].to_list() != two.judgments["responses"].to_list()
    a, b = (fit(feedback, observation=observation, tolerance=1e-6) for feedback in (one, two))
    for left, right in (
        (_by_name(one, a.utilities(one)), _by_name(two, b.utilities(two))),
        (_by_name(one, a.ignorance(one)), _by_name(two, b.ignorance(two))),
        ({p.name: p.estimate for p in a.parameters}, {p.name: p.estimate for p in b.parameters}),
    ):
        assert left.keys() == right.keys()
        assert max(abs(left[k] - right[k]) for k in left) < 1e-5


def test_exchanging_winners_and_losers_turns_the_values_round():
    society = leaderboard(64, tie=None)
    frame = society.feedback.judgments
    other = frame["outcome"].replace({"left": "right", "right": "left"})
    turned = replace(society.feedback, judgments=frame.with_columns(other.alias("outcome")))
    a, b = fit(society.feedback, observation=PLAIN), fit(turned, observation=PLAIN)
    assert np.abs(a.weights + b.weights).max() < 1e-6


def test_a_weight_of_2_is_a_judgment_twice():
    society = leaderboard(65, n_judgments=300)
    frame = society.feedback.judgments
    twice = replace(society.feedback, judgments=frame.vstack(frame))
    weighed = replace(society.feedback, judgments=frame.with_columns(pl.lit(2.0).alias("weight")))
    a, b = fit(twice, observation=SHOWN), fit(weighed, observation=SHOWN)
    assert np.abs(a.weights - b.weights).max() < 1e-9


def test_explicit_outcomes_drop_ties():
    """Observation(outcomes={"pair": Choice()}) fits the decided pairs alone."""
    society = leaderboard(66)
    result = fit(society.feedback, observation=Observation(outcomes={"pair": Choice()}, effects=(), lapse=False))
    assert [type(f) for f in result.families.values()] == [Choice]
    decided = society.feedback.filter(society.feedback.judgments["outcome"].is_in(["left", "right"]).to_numpy())
    assert set(decided.responses["name"]) == set(society.feedback.responses["name"])
    left = _by_name(society.feedback, result.utilities(society.feedback))
    right = _by_name(decided, fit(decided, observation=PLAIN).utilities(decided))
    assert max(abs(left[k] - right[k]) for k in left) < 1e-6


# ------------------------------------------------------------------------------------ the three doubts


DOUBTS = {"n_responses": 8, "n_raters": 60, "groups": 2, "spread": 1.0}


def _doubts(*, reps: int = 4, **settings: Any) -> dict[str, float]:
    """Root mean square over pairs and `reps` societies of each doubt, in logits, as fitted and as planted."""
    out = {"ignorance": [], "disagreement": [], "planted disagreement": [], "response noise": [], "planted slope": []}
    for seed in range(reps):
        society = leaderboard(100 + seed, **(DOUBTS | {"disagreement": 0.5, "n_judgments": 4000, "tie": None} | settings))
        feedback = society.feedback
        result = fit(feedback, people=Groups())
        gaps = _gaps_of(feedback, result)
        left, right = np.triu_indices(feedback.n_responses, 1)
        by_group = society.truth.value_by_group[left] - society.truth.value_by_group[right]
        names = feedback.responses["name"].to_list()
        out["ignorance"].append(gaps.ignorance)
        out["disagreement"].append(gaps.disagreement)
        out["planted disagreement"].append(by_group.std(1))
        out["response noise"].append([result.compare(names[0], names[1]).response_noise])
        out["planted slope"].append([society.truth.slope.mean()])
    return {name: float(np.sqrt(np.mean(np.concatenate(values) ** 2))) for name, values in out.items()}


@pytest.mark.slow
def test_each_doubt_moves_alone():
    """Four times the judgments, by four times the raters, halve ignorance and leave the others; careful raters lower response noise and, through information,
    ignorance, never disagreement; a society twice as divided moves disagreement, and ignorance through information alone. Allowances are
    3 standard errors over 4 societies.

    Ignorance is not left quite alone there, a negative result: gaps of a group then have the variance 2 + 2 x 1 instead of 2 + 2 x .25, an
    answer tells of them in proportion to E[p (1 - p)] = .25 / sqrt(1 + variance / 1.6^2), and so ignorance is 1.07 times as large."""
    base = _doubts(careless=0.3)
    more = _doubts(careless=0.3, n_judgments=16_000, n_raters=240)
    better = _doubts(careless=0.0)
    wider = _doubts(careless=0.3, disagreement=1.0)
    assert more["ignorance"] / base["ignorance"] == pytest.approx(0.5, abs=0.12)
    assert more["disagreement"] == pytest.approx(base["disagreement"], abs=0.12)
    assert more["response noise"] == pytest.approx(base["response noise"], rel=0.12)
    assert better["response noise"] < 0.8 * base["response noise"]
    assert better["ignorance"] < 0.95 * base["ignorance"]
    assert better["disagreement"] == pytest.approx(base["disagreement"], abs=0.12)
    assert wider["disagreement"] / base["disagreement"] == pytest.approx(2, abs=0.4)
    assert wider["response noise"] == pytest.approx(base["response noise"], rel=0.12)
    print(f"ignorance of a society twice as divided: {wider['ignorance'] / base['ignorance']:.3f} times")
    assert wider["ignorance"] / base["ignorance"] == pytest.approx(1.07, abs=0.12)
    for one in (base, more, better, wider):
        assert one["disagreement"] == pytest.approx(one["planted disagreement"], rel=0.25)
        # an answer's noise is that of a careful one, over the mean slope of the raters
        assert one["response noise"] == pytest.approx(np.pi / np.sqrt(3) / one["planted slope"], rel=0.2)


def test_compare_says_what_the_parts_say():
    society = leaderboard(101, **(DOUBTS | {"disagreement": 0.7, "n_judgments": 3000}))
    result = fit(society.feedback, people=Groups())
    a, b = society.feedback.responses["name"].to_list()[:2]
    one, other = result.compare(a, b), result.compare(b, a)
    assert one.p == pytest.approx(1 - other.p)
    assert (one.low, one.high) == (pytest.approx(1 - other.high), pytest.approx(1 - other.low))
    assert one.low < one.p < one.high
    assert one.disagreement is not None
    assert sum(v for v in one.shares.values() if v is not None) == pytest.approx(1)
    first = result.compare(a, b, group_weights={result.groups[0]: 1.0})
    assert first.disagreement == 0
    with pytest.raises(InvalidSetting, match="not among the responses fitted"):
        result.compare(a, "nobody")


def test_compare_reads_texts():
    society = simulate(n_prompts=20, n_judgments=1200, groups=1, disagreement=0.0, seed=3)
    feedback = society.feedback
    shown = feedback.judgments["responses"][0].to_list()
    texts, prompt = feedback.responses["text"].gather(shown).to_list(), feedback.prompts["text"][feedback.judgments["prompt"][0]]
    table = fit(feedback, utility=Tabular())
    expected = table.gaps(feedback, np.array(shown[:1]), np.array(shown[1:])).mean[0]
    assert table.compare(texts[0], texts[1], prompt=prompt).gap == pytest.approx(expected)
    assert table.compare(texts[0], texts[1], prompt=prompt).disagreement is None
    linear = fit(feedback, utility=Linear(n_columns=64))
    assert 0 < linear.compare("A new answer, never judged.", texts[1], prompt=prompt).p < 1


def test_a_fit_keeps_to_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    from threadpoolctl import threadpool_info, threadpool_limits

    def pools() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen: list[set[int]] = []
    society = leaderboard(5, n_responses=5, n_judgments=100)
    with threadpool_limits(2, user_api="blas"):
        before = pools()
        for told in (None, "2"):
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if told:
                monkeypatch.setenv("OMP_NUM_THREADS", told)
            fit(society.feedback, progress=lambda *_: seen.append(pools()))
            assert seen[-1] == ({1} if told is None else before)
        assert pools() == before


# ------------------------------------------------------------------------------------ the sandwich of gaps


def test_the_sandwich_of_gaps_is_that_of_the_scores_and_survives_a_file(tmp_path: Path):
    """A^-1 (sum over raters of outer products of scores) A^-1, seen through the contrasts of gaps."""
    society = leaderboard(3, n_raters=15, n_judgments=900, tie=None)
    feedback = society.feedback
    result = fit(feedback, utility=Tabular(), observation=PLAIN)
    n = feedback.n_responses
    i, j = np.triu_indices(n, 1)
    u = result.utilities(feedback)
    frame = feedback.judgments.filter(pl.col("outcome").is_in(["left", "right"]))
    shown = np.array(frame["responses"].to_list())
    left, right, rater = shown[:, 0], shown[:, 1], frame["rater"].to_physical().to_numpy()
    won = (frame["outcome"].cast(pl.String) == "left").to_numpy().astype(float)
    p = 1 / (1 + np.exp(u[right] - u[left]))
    X = np.zeros((len(left), n))
    X[np.arange(len(left)), left] += 1
    X[np.arange(len(left)), right] -= 1
    A = X.T @ (X * (p * (1 - p))[:, None]) + np.eye(n) / result.prior["values_sd"] ** 2
    scores = np.zeros((feedback.n_raters, n))
    np.add.at(scores, rater, X * (won - p)[:, None])
    covariance = np.linalg.solve(A, scores.T @ scores) @ np.linalg.inv(A)
    contrast = np.eye(n)[i] - np.eye(n)[j]
    expected = np.sqrt(np.einsum("en,nm,em->e", contrast, covariance, contrast))
    found = result.gaps(feedback, i, j).sandwich
    assert found == pytest.approx(expected, rel=1e-3)
    result.save(tmp_path / "fit")
    assert Fit.load(tmp_path / "fit").gaps(feedback, i, j).sandwich == pytest.approx(found, rel=1e-6)


def test_few_clusters_and_large_tables_have_no_sandwich_of_gaps(monkeypatch: pytest.MonkeyPatch):
    society = leaderboard(4, n_raters=4)
    assert fit(society.feedback, utility=Tabular(), observation=PLAIN).gaps(society.feedback, np.array([0]), np.array([1])).sandwich is None
    monkeypatch.setattr(curvature, "DENSE", 5)
    many = leaderboard(5)
    assert fit(many.feedback, utility=Tabular(), observation=PLAIN).gaps(many.feedback, np.array([0]), np.array([1])).sandwich is None


def test_raters_with_tastes_need_the_sandwich():
    """40 raters whose own values differ from the shared ones (sd .5), read as if all were one: 95% intervals of gaps cover too seldom by the
    posterior, and within three standard errors of 95% (over 40 data sets), or above .925, by the sandwich over raters."""
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        value, taste, n = rng.normal(0, 0.8, 20), rng.normal(0, 0.5, (40, 20)), 4000
        left = rng.integers(0, 20, n)
        right = (left + rng.integers(1, 20, n)) % 20
        rater = rng.permutation(n) % 40
        own = value + taste[rater]
        won = rng.random(n) < 1 / (1 + np.exp(own[np.arange(n), right] - own[np.arange(n), left]))
        feedback = Feedback.from_arrays(
            left_id=left, right_id=right, outcome=np.where(won, 0, 1), rater=rater, names={"outcome": ["left", "right"]}
        )
        result = fit(feedback, utility=Tabular(), observation=PLAIN)
        i, j = np.triu_indices(20, 1)
        order = [int(name) for name in feedback.responses["name"].to_list()]
        # shares of votes averaged over tastes are nearer to one half than those of the mean taste: a gap g counts about g / sqrt(1 + .35 * 2 * .25)
        truth = value[order] / np.sqrt(1 + 0.346 * 2 * 0.25)
        gaps = result.gaps(feedback, i, j)
        error = np.abs(gaps.mean - (truth[i] - truth[j]))
        shares.append([(error < 1.96 * gaps.ignorance).mean(), (error < 1.96 * gaps.wider).mean()])
    plain, sandwich = np.mean(shares, 0)
    se = np.std(shares, 0)[1] / np.sqrt(len(shares))
    print(f"95% intervals cover {plain:.3f} by the posterior, {sandwich:.3f} +- {1.96 * se:.3f} by the sandwich over raters (40 data sets)")
    assert plain < 0.92 < sandwich + 1e-9
    assert sandwich > 0.95 - 3 * se or sandwich > 0.925


def test_many_parameters_and_few_clusters_have_a_sandwich_all_the_same():
    """The scores of 30 raters have a rank far below the number of parameters, and rounding may take the rest."""
    society = leaderboard(6, n_raters=30, n_responses=60, n_judgments=900)
    result = fit(society.feedback, utility=Tabular(), observation=Observation(effects=(Position(per_rater=True),), lapse=False))
    gaps = result.gaps(society.feedback, np.arange(20), np.arange(20, 40))
    assert gaps.sandwich is not None
    assert np.isfinite(gaps.wider).all()
    assert (gaps.wider >= gaps.ignorance).all()
