"""Other pools, other decisions: what flips beyond luck is found where it is planted, and not where pools agree."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest

from seamark.aggregation.juries import Jury, counterfactual_juries, jury_sizes, other_pools
from seamark.aggregation.population import rater_profiles
from seamark.errors import InvalidSetting
from seamark.models import Observation, Position, Tabular, fit
from seamark.models.resampling import reweigh
from seamark.records import Feedback
from seamark.simulation import simulate

PLAIN = Observation(effects=(Position(),), lapse=False)


def asked(seed: int, disagreement: float, n_prompts: int = 15) -> Feedback:
    crowd: dict[str, Any] = {"n_raters": 40, "group_shares": (0.6, 0.4), "careless": 0.0, "opposed": 0.0}
    return simulate(n_prompts=n_prompts, n_responses=3, n_judgments=60 * n_prompts, disagreement=disagreement, **crowd, seed=seed).feedback


def juries(feedback: Feedback, draws: int = 39) -> dict[str, Jury]:
    pools = other_pools(rater_profiles(feedback, ["group"]), "group")
    return {jury.pool: jury for jury in counterfactual_juries(feedback, pools, utility=Tabular(), observation=PLAIN, draws=draws)}


def test_a_round_is_the_fit_to_the_judgments_of_the_pool():
    """Weights of 0 and 1 against Newton's method on a feedback from which the others were taken out, at the same prior strengths."""
    feedback = asked(0, 1.0).filter(pl.col("outcome").is_in(["left", "right"]))
    rng = np.random.default_rng(0)
    mine = rng.random(feedback.n_raters) < 0.5
    found = reweigh(feedback, np.stack([np.ones(feedback.n_raters), mine.astype(float)]), utility=Tabular(), observation=PLAIN)
    whole = fit(feedback, utility=Tabular(), observation=PLAIN)
    assert found.utilities[0] == pytest.approx(whole.utilities(feedback), abs=0.01)
    kept = feedback.filter(mine[feedback.judgments["rater"].cast(pl.Int64).to_numpy()])
    assert found.unsettled == 0
    value = _mode(kept, whole.prior["values_sd"] ** 2)
    names = {text: i for i, text in enumerate(zip(feedback.responses["prompt"], feedback.responses["text"], strict=True))}
    prompt = feedback.prompts["text"].to_list()
    place = [
        names[prompt.index(kept.prompts["text"][p]), text] for p, text in zip(kept.responses["prompt"], kept.responses["text"], strict=True)
    ]
    assert found.utilities[1][place] == pytest.approx(value, abs=0.02)


def _mode(feedback: Feedback, variance: float) -> np.ndarray:
    """Values, beside position, of Bradley & Terry's model by Newton's method."""
    pairs = feedback.pairs()
    left, right = pairs["left"].cast(pl.Int64).to_numpy(), pairs["right"].cast(pl.Int64).to_numpy()
    won = pairs["outcome"].to_numpy() == "left"
    X = np.zeros((len(left), feedback.n_responses + 1))
    X[np.arange(len(left)), left] += 1
    X[np.arange(len(left)), right] -= 1
    X[:, -1] = 1
    precision = np.append(np.full(feedback.n_responses, 1 / variance), 1.0)
    x = np.zeros(X.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-X @ x))
        x += np.linalg.solve((X.T * (p * (1 - p))) @ X + np.diag(precision), X.T @ (won - p) - precision * x)
    return x[:-1]


def test_nothing_flips_beyond_luck_where_pools_agree():
    """R29. Six societies without disagreement: the mean over them is within 2.6 of its standard errors of 0, and no more than 3 of the
    18 permutation tests are below .05 (binomial: once in a hundred)."""
    found = [jury for seed in range(6) for jury in juries(asked(seed, 0.0)).values()]
    beyond = np.array([jury.beyond for jury in found]).reshape(6, -1).mean(1)
    assert abs(beyond.mean()) < 2.6 * beyond.std(ddof=1) / np.sqrt(6) + 0.005
    assert sum(jury.p < 0.05 for jury in found) <= 3
    assert np.mean([jury.low <= 0 <= jury.high for jury in found]) > 0.8
    assert np.mean([jury.flipped for jury in found]) > 0.01  # what luck alone does


def test_planted_disagreement_flips_decisions():
    found = juries(asked(1, 1.5, 40), draws=99)
    for jury in (found["only group A"], found["only group B"]):
        assert jury.p <= 0.05
        assert jury.flipped > jury.by_lot_high
    minority = found["only group B"]
    assert minority.low > 0.02
    assert minority.p == minority.p_floor == 0.01
    assert minority.winners_flipped > minority.winners_by_lot
    assert minority.flipped > found["only group A"].flipped  # everyone is mostly group A
    assert (minority.n_raters, minority.effective) == (16, 16)
    table = minority.pairs
    assert table["flipped"].drop_nulls().mean() == pytest.approx(minority.flipped)
    assert table["flipped"].count() == minority.n_decisions <= table.height == 120
    assert "no less than 0.01 can be shown" in str(minority)


def test_the_same_seed_gives_the_same_jury():
    feedback = asked(2, 1.0)
    one, two = (juries(feedback, draws=9)["only group A"] for _ in range(2))
    assert one.pairs.equals(two.pairs)
    assert (one.low, one.p) == (two.low, two.p)


def test_other_pools_are_the_levels_alone_without_and_alike():
    raters = pl.DataFrame({"group": ["a"] * 6 + ["b"] * 12 + ["c"] * 6 + [None]})
    pools = other_pools(raters, "group")
    assert list(pools) == ["only a", "only b", "only c", "without a", "without b", "without c", "all alike"]
    assert pools["without b"].sum() == 12
    alike = pools["all alike"]
    assert [alike[raters["group"].eq_missing(name).to_numpy()].sum() for name in "abc"] == pytest.approx([8, 8, 8])
    assert alike[-1] == pools["without a"][-1] == 0
    with pytest.raises(InvalidSetting, match="Fewer than two"):
        other_pools(raters, "group", min_raters=10)


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(40), np.zeros(40)])
def test_weights_that_are_none_are_refused(weights: np.ndarray):
    with pytest.raises(InvalidSetting, match="weight"):
        counterfactual_juries(asked(0, 0.0), {"odd": weights}, utility=Tabular(), observation=PLAIN, draws=9)


# ------------------------------------------------------------------------------------ a few of many


def test_juries_of_a_few_against_all_of_them():
    """Every jury of 3 of 8 raters, listed: the mean over 4,000 drawn ones is within 4 standard errors."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(8, 4))
    u[2, 1] = np.nan
    w = rng.uniform(0.5, 2, 8)
    welfare = np.array([np.average(u[~np.isnan(u[:, a]), a], weights=w[~np.isnan(u[:, a])]) for a in range(4)])
    every = [welfare[np.nanmean(u[list(jury)], axis=0).argmax()] for jury in combinations(range(8), 3)]
    found = jury_sizes(u, (1, 3, 8), population=w, juries=4000).row(1, named=True)
    assert found["welfare"] == pytest.approx(np.mean(every), abs=4 * np.std(every) / np.sqrt(4000))
    assert np.mean(np.array(every) < found["p5"] - 1e-9) < 0.065  # of 56 juries 1.8% each
    assert np.mean(np.array(every) < found["p5"] + 1e-9) > 0.035
    assert found["best"] == pytest.approx(welfare.max())


def test_who_is_drawn_matters_as_much_as_how_many():
    """Half of the people like one option and half the other, and a third is second for all: a jury of one half never finds it."""
    u = np.array([[1.0, -1.0, 0.5]] * 50 + [[-1.0, 1.0, 0.5]] * 50)
    found = jury_sizes(u, (1, 50), juries=200)
    own = jury_sizes(u, (1, 50), pool=np.repeat([1.0, 0.0], 50), juries=200)
    assert found["welfare"].to_list() == pytest.approx([0.0, 0.5], abs=1e-9)
    assert own["welfare"].to_list() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert own["regret"].to_list() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sizes": (0,)}, "Use 1 to 4"),
        ({"sizes": (5,)}, "Use 1 to 4"),
        ({"sizes": (2,), "pool": np.array([1.0, 0, 0, 0])}, "Use 1 to 1"),
        ({"sizes": (1,), "population": np.ones(3)}, "population is"),
        ({"sizes": (1,), "population": np.array([1.0, 1, 1, -1])}, "population is"),
    ],
)
def test_juries_that_cannot_be_are_refused(given: dict[str, Any], said: str):
    with pytest.raises(InvalidSetting, match=said):
        jury_sizes(np.ones((4, 2)), **given)
