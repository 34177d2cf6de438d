"""The Bayesian bootstrap against refits with the same weights, the sandwich, and the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_effects import planted

from seamark.errors import InvalidSetting
from seamark.models import Observation, Personas, Position, Reliability, Same, Tabular, bootstrap, fit
from seamark.models.problem import pose
from seamark.models.resampling import _weights, mover
from seamark.models.search import optimise
from seamark.simulation import Society, Tastes, simulate

POSITION = Observation(effects=(Position(),), lapse=False)


def prompted(**settings: Any) -> Society:
    """Responses that belong to a prompt each, as those of a leaderboard do not."""
    return simulate(n_prompts=40, n_responses=4, n_raters=60, groups=1, disagreement=0.0, careless=0.0, seed=3, **settings)


@pytest.mark.parametrize("kinds", [("pair",), ("pair", "rating")])
@pytest.mark.parametrize("by", ["judgment", "rater", "prompt"])
def test_a_round_is_the_fit_to_the_weighed_judgments(by: str, kinds: tuple[str, ...]):
    """Against Newton's method run to its end on the weighed likelihood; priors frozen. Within 2% of a standard error."""
    problem = pose(
        (prompted if by == "prompt" else planted)(n_judgments=1500, kinds=kinds, tie=-1.0).feedback,
        utility=Tabular(),
        people=None,
        observation=POSITION,
        require_identified=True,
    )
    state = optimise(problem, max_iterations=100, tolerance=1e-6, seed=0)
    weights = _weights(problem, by, 3, np.random.default_rng(3))
    assert all((w >= 0).all() for w in weights)
    assert all(w.std() > 0.1 for w in weights)
    found, unsettled = mover(problem, state, by)(weights)
    assert not unsettled
    for b in range(3):
        cells = tuple(replace(c.block, count=w[b]) for c, w in zip(problem.likelihood.cells, weights, strict=True))
        weighed = replace(problem.likelihood, design=replace(problem.likelihood.design, blocks=cells))
        x = state.x.copy()
        for _ in range(20):
            d = weighed.derivatives(x, state.nodes, state.posterior)
            curvature = d.whole() + np.diag(state.prior.precision)
            x += np.linalg.solve(curvature, d.gradient - state.prior.pull(x))
        se = np.sqrt(np.diag(np.linalg.inv(curvature)))
        assert np.abs((found[b] - x) / se).max() < 0.02


def test_judgment_weights_give_the_intervals_of_the_curvature_where_the_model_is_right():
    """300 rounds: the standard error of a standard deviation is 4%."""
    society = planted(n_judgments=5000)
    result = fit(society.feedback, utility=Tabular(), observation=POSITION)
    found = bootstrap(society.feedback, utility=Tabular(), observation=POSITION, rounds=300, by="judgment", seed=1)
    i, j = np.triu_indices(12, 1)
    spread = (found.utilities[:, i] - found.utilities[:, j]).std(0)
    assert np.mean(spread / result.gaps(society.feedback, i, j).ignorance) == pytest.approx(1.0, abs=0.05)
    low, high = found.gap(i, j)
    gaps = society.truth.value[i] - society.truth.value[j]
    assert ((low < gaps) & (gaps < high)).mean() > 0.8
    assert found.se.shape == (12,)


def test_rater_weights_widen_where_raters_have_tastes():
    society = planted(tastes=Tastes(sd=1.0))
    spread = {
        by: bootstrap(society.feedback, utility=Tabular(), observation=POSITION, rounds=200, by=by, seed=2).se.mean()  # type: ignore[arg-type]
        for by in ("judgment", "rater")
    }
    assert spread["rater"] > 1.3 * spread["judgment"]


def test_the_same_seed_gives_the_same_rounds():
    society = planted(n_judgments=500)
    seen: list[int] = []
    one = bootstrap(
        society.feedback, utility=Tabular(), observation=POSITION, rounds=10, by="rater", seed=5, progress=lambda done, _: seen.append(done)
    )
    assert seen[-1] == 10
    two = bootstrap(society.feedback, utility=Tabular(), observation=POSITION, rounds=10, by="rater", seed=5)
    assert np.array_equal(one.utilities, two.utilities)


@pytest.mark.parametrize(
    ("observation", "people"),
    [
        (Observation(effects=(Reliability(), Position()), lapse=True), Same()),
        (POSITION, Personas(2)),
    ],
    ids=["reliability and lapses", "personas"],
)
@pytest.mark.parametrize("by", ["judgment", "rater"])
def test_a_round_with_slopes_or_levels_is_where_the_weighed_marginal_has_no_gradient(by: str, observation: Observation, people: Personas):
    """By central differences of the marginal likelihood itself, each rater's multiplied by its weight, or each judgment's within it."""
    society = planted(n_judgments=1500, careless=0.15)
    problem = pose(society.feedback, utility=Tabular(), people=people, observation=observation, require_identified=True)
    state = optimise(problem, max_iterations=200, tolerance=1e-5, seed=0)
    likelihood, rng = problem.likelihood, np.random.default_rng(3)
    each = rng.standard_exponential(likelihood.design.n_raters + 1)
    if by == "rater":
        weights = [each[c.block.rater] * c.block.count for c in likelihood.cells]
    else:
        weights = _weights(problem, "judgment", 1, rng)
        weights = [w[0] for w in weights]
    (x,), unsettled = mover(problem, state, by)([w[None] for w in weights])
    assert not unsettled
    assert np.abs(x - state.x).max() > 0.02
    weighed = likelihood.weighed(weights)

    def value(x: np.ndarray) -> float:
        joint = (likelihood if by == "rater" else weighed).rater_log_likelihood(x, state.nodes) + state.nodes.log_prior
        marginal, _ = state.nodes.posterior(joint)
        total = marginal @ each if by == "rater" else marginal.sum()
        return float(total) - state.prior.penalty(x)

    slope = np.array([(value(x + e) - value(x - e)) / 2e-4 for e in 1e-4 * np.eye(len(x))])
    d = likelihood.derivatives(state.x, state.nodes, state.posterior)
    se = np.sqrt(np.diag(np.linalg.inv(d.whole() + np.diag(state.prior.precision))))
    assert np.abs(slope * se).max() < 0.05


def test_raters_weigh_as_the_sandwich_says_where_reliability_is_fitted():
    """Both take raters as exchangeable; 100 rounds know a standard error to 7%."""
    society = planted(n_judgments=4000, careless=0.15)
    observation = Observation(effects=(Reliability(), Position()), lapse=False)
    result = fit(society.feedback, utility=Tabular(), observation=observation)
    found = bootstrap(society.feedback, utility=Tabular(), observation=observation, rounds=100, seed=1)
    position = next(p for p in result.parameters if p.name == "position")
    assert position.se_sandwich is not None
    assert found.position.std() == pytest.approx(position.se_sandwich, rel=0.3)


# ------------------------------------------------------------------------------------ updates, clusters, the first-order condition


@pytest.mark.parametrize("effects", [(Position(),), (Reliability(), Position())], ids=["plain", "reliability"])
def test_an_update_is_the_batch_fit(effects: tuple):
    """Judgments and raters that are new; equal to the fit of everything from nothing within a twentieth of a standard error."""
    society = planted(careless=0.15 if len(effects) > 1 else 0.0, n_judgments=4000)
    observation = Observation(effects=effects, lapse=False)
    early = society.feedback.filter(np.arange(4000) < 3000)
    before = fit(early, utility=Tabular(), observation=observation)
    batch = fit(society.feedback, utility=Tabular(), observation=observation)
    update = fit(society.feedback, utility=Tabular(), observation=observation, start=before)
    i, j = np.triu_indices(12, 1)
    a, b = (r.gaps(society.feedback, i, j) for r in (batch, update))
    assert np.abs((a.mean - b.mean) / a.ignorance).max() < 0.05
    assert np.abs(a.ignorance / b.ignorance - 1).max() < 0.02
    assert update.convergence.iterations <= batch.convergence.iterations


def test_intervals_can_cluster_by_prompt():
    society = planted(n_prompts=40)
    by = {c: fit(society.feedback, utility=Tabular(), observation=POSITION, cluster=c) for c in ("rater", "prompt", None)}  # type: ignore[arg-type]
    assert by["rater"].data["clustered_by"] == by[None].data["clustered_by"] == "rater"
    assert by["prompt"].data["clustered_by"] == "prompt"
    assert by["rater"].parameters[0].se_sandwich != by["prompt"].parameters[0].se_sandwich
    assert np.array_equal(by["rater"].weights, by["prompt"].weights)


def test_a_plain_fit_ends_where_the_gradient_is_nothing():
    result = fit(planted(n_judgments=20_000).feedback, utility=Tabular(), observation=Observation(effects=(), lapse=False))
    assert result.convergence.gradient < 1e-9


def test_copies_of_a_judgment_weigh_the_same_in_all_latent_levels():
    society = planted(n_judgments=600)
    problem = pose(society.feedback, utility=Tabular(), people=Personas(3), observation=POSITION, require_identified=True)
    (weights,) = _weights(problem, "judgment", 2, np.random.default_rng(1))
    block = problem.likelihood.cells[0].block
    levels = block.who - block.rater * 3
    for rater in range(3):
        mine = block.rater == rater
        first, *others = (weights[:, mine & (levels == level)] for level in range(3))
        assert len(np.unique(first)) == first.size > 4
        assert all(np.array_equal(first, other) for other in others)


def test_judgments_of_raters_that_are_not_known_are_weighed_one_by_one():
    """Nine of ten judgments without a rater: the default is by judgment, and by rater is as wide as that and wider."""
    society = planted(n_judgments=2000)
    frame = society.feedback.judgments
    hidden = frame.with_columns(rater=pl.when(pl.int_range(frame.height) % 10 == 0).then("rater").otherwise(None))
    feedback = replace(society.feedback, judgments=hidden)
    usual = bootstrap(feedback, utility=Tabular(), observation=POSITION, rounds=100, seed=2)
    assert usual.by == "judgment"
    by_rater = bootstrap(feedback, utility=Tabular(), observation=POSITION, rounds=100, by="rater", seed=2)
    assert by_rater.se.mean() > 0.85 * usual.se.mean()
    alone = replace(society.feedback, judgments=frame.with_columns(rater=pl.lit(None, dtype=frame["rater"].dtype)))
    with pytest.raises(InvalidSetting, match="fewer than two raters"):
        bootstrap(alone, utility=Tabular(), observation=POSITION, by="rater")


def test_what_a_bootstrap_cannot_do_is_refused():
    society = planted(n_judgments=200)
    for bad in ({"by": "raters"}, {"rounds": 1}, {"rounds": -1}):
        with pytest.raises(InvalidSetting):
            bootstrap(society.feedback, utility=Tabular(), observation=POSITION, **bad)
