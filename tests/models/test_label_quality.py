"""Labels judged by fits that never saw them: planted flips found, rates recovered, in-sample gaps shown to mislead; and what softening buys."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from seamark.errors import InvalidSetting
from seamark.models import Linear, Observation, Reliability, Tabular, fit
from seamark.models.label_quality import LabelQuality, _rates, cross_fitted, posterior_flip, softened
from seamark.models.targets import soft_label
from seamark.records import Feedback
from seamark.simulation import Society, simulate

Array = NDArray[np.float64]
PLAIN = Observation(effects=(), lapse=False)
LAPSE = Observation(effects=(), lapse=True)


def board(flips: float, seed: int, *, n: int = 2500) -> Society:
    """Votes on a leaderboard of 60 by 40 careful raters of one mind, a share of them turned round."""
    return simulate(
        n_prompts=50, n_responses=60, n_raters=40, n_judgments=n, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, position=0.0,
        spread=2.0, tie=None, lapse=0.0, text=False, reversed_labels=flips, seed=seed,
    )  # fmt: skip


def texts(flips: float, seed: int, *, n_prompts: int = 200, n: int = 2500) -> Society:
    """The same of texts, four per prompt, and length liked for itself."""
    return simulate(
        n_prompts=n_prompts, n_responses=4, n_raters=40, n_judgments=n, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, position=0.0,
        spread=2.0, tie=None, lapse=0.0, reversed_labels=flips, seed=seed,
    )  # fmt: skip


def auc(score: Array, flipped: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Probability that a flip has a higher score than another label, with its 95% interval (Hanley & McNeil 1982)."""
    n, m = int(flipped.sum()), int((~flipped).sum())
    a = float(stats.mannwhitneyu(score[flipped], score[~flipped]).statistic / (n * m))
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    half = 1.96 * np.sqrt((a * (1 - a) + (n - 1) * (q1 - a**2) + (m - 1) * (q2 - a**2)) / (n * m))
    return a, a - half, a + half


@cache
def _judged(kind: str) -> tuple[Society, LabelQuality]:
    if kind == "board":
        society = board(0.2, 1)
        return society, cross_fitted(society.feedback, utility=Tabular(), observation=PLAIN, by="judgment")
    society = texts(0.2, 1)
    return society, cross_fitted(society.feedback, utility=Linear(n_columns=24), observation=PLAIN)


@pytest.mark.parametrize("kind", ["board", "texts"])
def test_planted_flips_are_found(kind: str):
    """2,500 labels, about 500 of them turned round: the flips rank higher, and their number and rate are what was planted."""
    society, quality = _judged(kind)
    flipped, p = society.truth.reversed, quality.frame["p_flip"].to_numpy()
    assert quality.n == len(p) == 2500
    a, low, high = auc(p, flipped)
    print(f"{kind}: AUC {a:.3f} [{low:.3f}, {high:.3f}], n {len(p)}; flips {flipped.sum()}, sum of p_flip {p.sum():.0f}")
    assert low > 0.8
    assert quality.flip_rate_low < flipped.mean() < quality.flip_rate_high
    assert abs(p.sum() - flipped.sum()) < len(p) * (quality.flip_rate_high - quality.flip_rate_low) / 2
    # in bins of p: the share of flips
    order = np.argsort(p)
    for part in np.array_split(order, 5):
        assert abs(flipped[part].mean() - p[part].mean()) < 4 * np.sqrt(0.25 / len(part)) + 0.02
    # a fit without lapses took flips for noise: its gaps count several times over
    assert quality.scale > 1.5


def test_no_flips_are_found_where_there_are_none():
    quality = cross_fitted(board(0.0, 1).feedback, utility=Tabular(), observation=PLAIN, by="judgment")
    assert quality.flip_rate < 0.02
    assert quality.flip_rate_high < 0.06
    assert 0.7 < quality.scale < 1.4


def test_gaps_of_a_fit_of_the_same_labels_would_miss_most_flips():
    """Why in-sample gaps are refused: 4 societies of 600 labels, about 120 of them flips. The fit agrees with more of the flips than fits
    that never saw them do, its loss on the labels is too small, and the rate of flips that its gaps leave over is a fraction of it.
    Their order is no worse: in-sample gaps rank labels as well (AUC)."""
    found = []
    for seed in range(1, 5):
        society = board(0.2, seed, n=600)
        quality = cross_fitted(society.feedback, utility=Tabular(), observation=PLAIN, by="judgment")
        pairs = society.feedback.pairs()
        sign = np.where(pairs["outcome"] == "left", 1.0, -1.0)
        left, right = (pairs[name].to_numpy().astype(np.int64) for name in ("left", "right"))
        inside = fit(society.feedback, utility=Tabular(), observation=PLAIN).gaps(society.feedback, left, right)
        e = _rates(sign * inside.mean, inside.ignorance, np.ones(len(sign))).rate()[0]
        flipped = society.truth.reversed
        for rate, h in ((e, sign * inside.mean), (quality.flip_rate, quality.frame["strength"].to_numpy())):
            found.append((rate, (h > 0)[flipped].mean(), np.logaddexp(0, -h).mean(), auc(-h, flipped)[0]))
    inside, outside = np.array(found).reshape(4, 2, 4).mean(0)
    print("rate, agreement with flips, loss, AUC: in sample", inside.round(3), "out of fold", outside.round(3))
    assert inside[0] < 0.5 * outside[0]
    assert outside[0] == pytest.approx(0.2, abs=0.06)
    assert inside[1] > outside[1] + 0.03
    assert inside[2] < outside[2] - 0.03
    assert abs(inside[3] - outside[3]) < 0.03


def test_folds_share_no_prompt_and_a_label_does_not_move_its_own_gap():
    society, quality = _judged("texts")
    frame = society.feedback.pairs().select("row", "prompt").join(quality.frame, on="row")
    assert frame.group_by("prompt").agg(pl.col("fold").n_unique())["fold"].max() == 1
    small = texts(0.2, 3, n_prompts=40, n=300).feedback
    before = cross_fitted(small, utility=Linear(n_columns=8), observation=PLAIN)
    mine = (before.frame["fold"] == 0).to_numpy()
    other = pl.col("outcome").cast(pl.String).replace({"left": "right", "right": "left"}).cast(small.judgments["outcome"].dtype)
    turned = small.judgments.with_columns(pl.when(pl.Series(mine)).then(other).otherwise(pl.col("outcome")).alias("outcome"))
    after = cross_fitted(Feedback(turned, small.responses, small.prompts, small.raters), utility=Linear(n_columns=8), observation=PLAIN)
    np.testing.assert_array_equal(after.frame["gap"].to_numpy()[mine], before.frame["gap"].to_numpy()[mine])
    np.testing.assert_array_equal(after.frame["strength"].to_numpy()[mine], -before.frame["strength"].to_numpy()[mine])
    assert not np.allclose(after.frame["gap"].to_numpy()[~mine], before.frame["gap"].to_numpy()[~mine])


def test_the_posterior_is_bayes_rule_over_what_is_not_known_of_the_gap():
    rng = np.random.default_rng(0)
    for h, sd, e, t in ((1.0, 0.0, 0.2, 1.0), (-2.0, 1.5, 0.1, 0.7), (3.0, 0.5, 0.3, 2.0)):
        draws = expit(t * rng.normal(h, sd, 400_000))
        expected = e * (1 - draws).mean() / ((1 - e) * draws.mean() + e * (1 - draws).mean())
        assert posterior_flip(np.array([h]), np.array([sd]), e, t)[0] == pytest.approx(expected, abs=2e-3)
    # the surer the disagreement the likelier the flip, and a gap that is not known says little
    sure, vague = posterior_flip(np.array([-4.0, -4.0]), np.array([0.1, 4.0]), 0.2)
    assert sure > vague > 0.2


def test_position_is_not_taken_for_flips():
    """Raters who favour the first by 1.5 logits: with that in the model, no flips are seen."""
    society = simulate(
        n_prompts=50, n_responses=60, n_raters=40, n_judgments=3000, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, position=1.5,
        spread=2.0, tie=None, lapse=0.0, text=False, seed=4,
    )  # fmt: skip
    from seamark.models import Position

    quality = cross_fitted(society.feedback, utility=Tabular(), observation=Observation(effects=(Position(),), lapse=False), by="judgment")
    assert quality.flip_rate < 0.03
    assert 0.8 < quality.scale < 1.3


# ---------------------------------------------------------------------------------------------- softening


def mixed() -> Feedback:
    """120 votes on 8 items, ids and weights given, with ties, skips and ratings between."""
    rng = np.random.default_rng(5)
    left = rng.integers(0, 8, 120)
    right = (left + rng.integers(1, 8, 120)) % 8
    outcome = np.where(rng.random(120) < expit(0.6 * (left - right)), "left", "right").astype(object)
    outcome[::10], outcome[5::40] = "tie", "skipped"
    rows = [
        {"kind": "pair", "ids": [f"i{a}", f"i{b}"], "outcome": o, "id": f"j{i}", "weight": 1.0 + i % 3, "rating": None}
        for i, (a, b, o) in enumerate(zip(left, right, outcome, strict=True))
    ]
    rows += [
        {"kind": "rating", "ids": [f"i{a}"], "outcome": "answered", "id": f"r{a}", "weight": None, "rating": float(a % 5 + 1)}
        for a in range(8)
    ]
    return Feedback.from_columns({name: [row[name] for row in rows] for name in rows[0]})


def test_softened_judgments_are_those_that_were_given_with_less_belief():
    feedback = mixed()
    quality = cross_fitted(feedback, utility=Tabular(), observation=PLAIN, by="judgment", folds=4)
    frame, given = quality.frame, feedback.judgments
    won = frame["row"].to_numpy()[frame["p_flip"].is_not_null().to_numpy()]
    assert set(given["outcome"][won.tolist()]) == {"left", "right"}
    assert frame.filter(pl.col("p_flip").is_null())["agrees"].null_count() == frame["p_flip"].null_count() > 0
    p = np.zeros(len(given))
    p[won] = frame["p_flip"].drop_nulls().to_numpy()
    weight = given["weight"].fill_null(1.0).to_numpy()

    soft = softened(feedback, quality).judgments
    assert len(soft) == len(given) + len(won)
    assert soft["weight"].sum() == pytest.approx(weight.sum())
    kept = soft.filter(pl.col("id").is_not_null())
    assert kept["id"].to_list() == given["id"].to_list()
    assert kept["outcome"].to_list() == given["outcome"].to_list()
    np.testing.assert_allclose(kept["weight"].to_numpy(), weight * (1 - p))
    turned = soft.filter(pl.col("id").is_null())
    np.testing.assert_allclose(turned["weight"].to_numpy(), (weight * p)[won])
    opposite = {"left": "right", "right": "left"}
    assert turned["outcome"].to_list() == [opposite[o] for o in given["outcome"][won.tolist()]]
    assert turned["responses"].to_list() == given["responses"][won.tolist()].to_list()
    places = soft.with_row_index()
    assert places.filter(pl.col("id").is_null())["index"].to_list() == [int(w) + i + 1 for i, w in enumerate(won)]  # behind its other half

    less = softened(feedback, quality, how="weight").judgments
    np.testing.assert_allclose(less["weight"].to_numpy(), weight * np.maximum(1 - 2 * p, 0))
    assert less.drop("weight").equals(given.drop("weight"))

    flipped = softened(feedback, quality, how="flip").judgments
    changed = (flipped["outcome"].cast(pl.String) != given["outcome"].cast(pl.String)).to_numpy()
    assert np.array_equal(changed, p > 0.5)
    assert flipped.drop("outcome").equals(given.drop("outcome"))


def test_the_loss_of_softened_judgments_is_that_of_the_soft_target():
    feedback = mixed()
    quality = cross_fitted(feedback, utility=Tabular(), observation=PLAIN, by="judgment", folds=4)
    utility = np.random.default_rng(0).normal(size=feedback.n_responses)

    def gaps(f: Feedback) -> tuple[Array, Array]:
        pairs = f.pairs().filter(pl.col("outcome").is_in(["left", "right"]))
        sign = np.where(pairs["outcome"] == "left", 1.0, -1.0)
        return sign * (utility[pairs["left"].to_numpy()] - utility[pairs["right"].to_numpy()]), pairs["weight"].fill_null(1.0).to_numpy()

    h, weight = gaps(feedback)
    p = quality.frame["p_flip"].drop_nulls().to_numpy()
    expected = float(weight @ soft_label(1 - p).loss(h))
    h2, weight2 = gaps(softened(feedback, quality))
    assert float(weight2 @ np.logaddexp(0, -h2)) == pytest.approx(expected)


def test_in_sample_and_other_judgments_are_refused():
    feedback = mixed()
    for folds, words in ((1, "has not seen it"), (0, "has not seen it"), (500, "There are 128 judgments")):
        with pytest.raises(InvalidSetting, match=words):
            cross_fitted(feedback, utility=Tabular(), folds=folds, by="judgment")
    with pytest.raises(InvalidSetting, match="Use prompt"):
        cross_fitted(feedback, by="team")  # type: ignore[arg-type]
    society = texts(0.0, 1, n_prompts=40, n=300).feedback
    with pytest.raises(InvalidSetting, match="use Linear, or by='judgment'"):
        cross_fitted(society, utility=Tabular(), observation=PLAIN)  # no value of a response is known to fits without its prompt
    quality = cross_fitted(feedback, utility=Tabular(), observation=PLAIN, by="judgment", folds=4)
    with pytest.raises(InvalidSetting, match="about other judgments"):
        softened(feedback.filter(np.arange(feedback.n_judgments) > 0), quality)
    with pytest.raises(InvalidSetting, match="soft, weight or flip"):
        softened(feedback, quality, how="hard")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- what it buys

ARMS = ("plain", "soft", "weight", "flip", "lapse", "lapse and reliability", "plain times t")


def _arms(kind: str, flips: float, seed: int) -> Array:
    """(7 arms, 2): accuracy of the gaps against the truth, and nats by which they miss a careful rater's clean answers; of texts on
    prompts that no fit saw, of the leaderboard on all pairs."""
    if kind == "texts":
        society = texts(flips, seed, n_prompts=240, n=2000)
        feedback, _ = society.feedback.split(test=1 / 3, seed=seed)
        utility, by, repeated = Linear(n_columns=24), "prompt", set(feedback.responses["id"])
        new = ~society.feedback.responses["id"].is_in(repeated).to_numpy()
        prompt = society.feedback.responses["prompt"].to_numpy()
        left, right = np.nonzero(np.triu(new[:, None] & new & (prompt[:, None] == prompt), 1))
    else:
        society = board(flips, seed, n=600)
        feedback, utility, by = society.feedback, Tabular(), "judgment"
        left, right = np.triu_indices(feedback.n_responses, 1)
    true = society.truth.utility_by_group[:, 0]
    h = true[left] - true[right]
    quality = cross_fitted(feedback, utility=utility, observation=PLAIN, by=by, seed=seed)  # type: ignore[arg-type]
    given = [(feedback, PLAIN), *((softened(feedback, quality, how=how), PLAIN) for how in ("soft", "weight", "flip"))]  # type: ignore[arg-type]
    given += [(feedback, LAPSE), (feedback, Observation(effects=(Reliability(),)))]
    found = []
    gaps = [
        fit(judgments, utility=utility, observation=observation, require_identified=False).gaps(society.feedback, left, right).mean
        for judgments, observation in given
    ]
    for gap in [*gaps, quality.scale * gaps[0]]:
        miss = expit(h) * (np.logaddexp(0, -gap) - np.logaddexp(0, -h)) + expit(-h) * (np.logaddexp(0, gap) - np.logaddexp(0, h))
        found.append((np.mean((gap > 0) == (h > 0)), miss.mean()))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(("flips", "n"), [(0.05, 2500), (0.2, 2500), (0.35, 2500), (0.35, 10_000)])
def test_intervals_of_the_flip_rate(flips: float, n: int):
    """30 leaderboards of n votes: rate found, coverage of its interval, and flips found beside those planted. At 35% of 2,500 votes the
    gaps out of fold hardly tell a flip from noise, and the prior, which holds few flips likelier, is what is read."""
    found = []
    for seed in range(30):
        society = board(flips, 200 + seed, n=n)
        quality = cross_fitted(society.feedback, utility=Tabular(), observation=PLAIN, by="judgment")
        p, true = quality.frame["p_flip"].to_numpy(), society.truth.reversed.mean()
        held = quality.flip_rate_low <= true <= quality.flip_rate_high
        found.append((quality.flip_rate, held, p.mean() - true, auc(p, society.truth.reversed)[0]))
    rate, held, off, area = np.array(found).T
    half = 2.045 * off.std(ddof=1) / np.sqrt(30)
    print(
        f"\n{flips:.0%} of {n}: rate {rate.mean():.3f} (sd {rate.std(ddof=1):.3f}), held {held.sum():.0f} of 30, sum of p_flip less flips, "
        f"per label {off.mean():+.4f} +- {half:.4f}, AUC {area.mean():.3f}"
    )
    if (flips, n) == (0.35, 2500):
        assert off.mean() < -0.05
    else:
        assert held.sum() >= 25  # of 30 at 95%, fewer than 26 have probability .016
        assert abs(off.mean()) < half + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("flips", [0.0, 0.2, 0.35])
@pytest.mark.parametrize("kind", ["board", "texts"])
def test_what_softening_buys(kind: str, flips: float):
    """Accuracy against the truth, and the loss against clean answers, with and without softening; 12 societies, paired differences."""
    runs = np.stack([_arms(kind, flips, 100 + seed) for seed in range(12)])
    t = stats.t.ppf(0.975, 11) / np.sqrt(12)
    print(f"\n{kind}, {flips:.0%} flips, 12 societies: accuracy, less plain; nats missed, less plain")
    for i, arm in enumerate(ARMS):
        mean, d = runs[:, i].mean(0), runs[:, i] - runs[:, 0]
        m, half = d.mean(0), t * d.std(0, ddof=1)
        print(f"  {arm:>22}: {mean[0]:.4f}, {m[0]:+.4f} +- {half[0]:.4f}; {mean[1]:.4f}, {m[1]:+.4f} +- {half[1]:.4f}")
    for i, arm in enumerate(ARMS[1:4], 1):
        d = runs[:, i] - runs[:, 4]
        m, half = d.mean(0), t * d.std(0, ddof=1)
        print(f"  {arm:>10} less lapse: {m[0]:+.4f} +- {half[0]:.4f}; {m[1]:+.4f} +- {half[1]:.4f}")
    soft = runs[:, 1, 0] - runs[:, 4, 0]
    assert soft.mean() - t * soft.std(ddof=1) < 0.01  # what the docstring says: no gain over the likelihood
