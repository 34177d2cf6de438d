"""How far a label can be trusted: every label of a pair judged by fits that never saw it, and judgments softened by what they say.

Conventions
-----------
h is the gap of a pair as labelled, in logits: the side marked better less the other, position included where the order is known. A
label is a flip with probability e, whatever is compared, and h is known as N(mean, sd^2) from the fits of the other folds:

    P(label) = (1 - e) E sigmoid(t h) + e E sigmoid(-t h)                    p_flip = e E sigmoid(-t h) / P(label)

both over the posterior of e and t as well.

t is how much the gaps out of fold are to count: 1 where they are as sure as they say. It must be estimated beside e. A fit without
lapses takes flips for noise and shrinks its gaps until nothing is left that a flip would explain; t undoes that, and tells the two
apart by whether answers grow surer with the gap or level off at 1 - e.

Never in sample: a model that was fitted to a label has moved towards it. Its gaps rank labels as well, but leave a fraction of the flips
over (a rate of .06 where .2 was planted and .15 found out of fold; 4 simulations of 600 votes). There is no way here to judge labels by
a fit of the same judgments, and `softened` takes only what was found out of fold for the very judgments it softens.

When to use it. For the export to a trainer that takes labels as they come, and to find labels for a second look. In simulations with
flips planted at random (12 societies each; 600 votes on 60 entries, and 1,300 labels of texts), it changed the order of responses
nowhere: accuracy against the truth was within .003 of that of plain labels, and no interval of the difference, to plain Bradley-Terry
or to `Observation(lapse=True)`, was clear of 0. It changes the size of gaps. At 20% flips soft labels missed clean answers by .150
instead of .173 nats (votes) and by .109 instead of .154 (texts), at 35% of texts by .202 instead of .235; a lapse, whose prior expects
few, left .171, .151 and .234. It is not free: of 600 votes with 35% flips the rate cannot be told, and soft labels were worse than
plain ones (.288 beside .275); without flips how="weight" cost .011 +- .011 (votes) and .004 +- .003 (texts).

Flips that go with a rater are Reliability's. A flip rate is told from plain noise by pairs that are far apart; where gaps are small it
is anything between 0 and the noise, which `flip_rate_low` and `flip_rate_high` say.

Margins are the other use of such gaps (Wang et al. 2024; Touvron et al. 2023): `seamark.models.targets.adaptive_margin` with
`strength`, or the margin column of an export.

Source: Wang et al. 2024 (Secrets of RLHF II), whose preference strength is the mean gap of an ensemble fitted to the pair itself; ours
is cross-fitted. Wang et al. 2024 (EMNLP Findings 234) adjust the loss by the gap as training goes on; read as a weight for each label by
the posterior probability that it is a flip, theirs is `softened(how="soft")`, and repeated it is EM for the lapse of `Observation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from seamark.columns import OUTCOME
from seamark.errors import InvalidSetting
from seamark.models.fitting import fit
from seamark.models.observation import Observation
from seamark.models.utility import Utility
from seamark.records import Feedback

Array = NDArray[np.float64]

_PRIOR_E = (-2.0, 2.0)
"""Centre and sd of the log odds of 2 e, as in `distributional`: a flip rate of .06, between .001 and .44 with probability .95."""
_PRIOR_T = 1.5
"""Sd of log t around 0: flips at 40% shrink small gaps by 1 - 2 e, to a fifth, which is one of them."""
_REACH_E, _REACH_T = (-8.0, 7.0), (-2.5, 4.0)
_GRID, _ZOOMS = (33, 25), 3
"""Log odds of 2 e and log t that are looked at, points on either axis, and how often the grid closes in on where the mass is."""
_NODES = 9
_LEAST = 50
"""Labels from which on a flip rate is estimated: of fewer, its prior would be what is read."""


@dataclass(frozen=True)
class LabelQuality:
    """What fits of the other folds say of the labels of pairs."""

    frame: pl.DataFrame
    """One row per pair judgment, as `Feedback.pairs()`: row (position in `judgments`), fold, gap (left - right, logits), gap_sd, strength
    (gap in the label's direction), agrees, p_flip. Null: gap and gap_sd where the fit cannot place a response; the rest also where
    neither side won."""
    flip_rate: float
    """e, its posterior mean: that of labels which tell nothing of it is its prior's, .11."""
    flip_rate_low: float
    flip_rate_high: float
    """95% interval of e, given the gaps; labels count as independent."""
    scale: float
    """t, its geometric mean: below 1, gaps out of fold were surer than the labels bear out; gaps times t are those of clean labels."""
    n: int
    """Labels it was estimated from."""
    fingerprint: str
    """Of the judgments it is about."""
    by: str
    folds: int
    seed: int


def cross_fitted(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    observation: Observation | None = None,
    folds: int = 5,
    by: Literal["prompt", "prompt_cluster", "rater", "judgment"] = "prompt",
    seed: int = 0,
) -> LabelQuality:
    """Gap, agreement and probability of being a flip of each pair's label, by fits to the judgments of other folds.

    Parameters
    ----------
    utility, observation
        As in `fit`. Fits that never saw a prompt place its responses by their texts, so `by="prompt"` takes `Linear`.
    by
        What is held out as a whole. prompt: nothing of the prompt was seen, which finds what the features can tell. judgment: the
        answers of others to the same question count, which finds more where questions are asked repeatedly, and is what ids without
        texts allow; a rater's own second answer to it is then seen too.

    Raises
    ------
    InvalidSetting
        If there are fewer than two folds, or fewer units than folds; or if fewer than 50 labels of pairs can be judged.
    """
    if folds < 2:
        raise InvalidSetting("folds", folds, "Use at least 2: a label must be judged by a fit that has not seen it.")
    if by not in ("prompt", "prompt_cluster", "rater", "judgment"):
        raise InvalidSetting("by", by, "Use prompt, prompt_cluster, rater or judgment.")
    unit = feedback.units(by)
    n_units = int(unit.max()) + 1
    if n_units < folds:
        raise InvalidSetting("folds", folds, f"There are {n_units} {by.replace('_', ' ')}s; use fewer folds, or hold out by judgment.")
    fold = (np.random.default_rng(seed).permutation(n_units) % folds)[unit]
    pairs = feedback.pairs().select("row", "left", "right", "outcome", "order_known", "weight")
    rows, left, right = (pairs[name].to_numpy().astype(np.int64) for name in ("row", "left", "right"))
    gap, sd, first = np.full(len(rows), np.nan), np.full(len(rows), np.nan), np.zeros(len(rows))
    for f in range(folds):
        mine = fold[rows] == f
        if not mine.any():
            continue
        fitted = fit(feedback.filter(fold != f), utility=utility, observation=observation, require_identified=False, seed=seed)
        found = fitted.gaps(feedback, left[mine], right[mine])
        gap[mine], sd[mine] = np.where(found.known, found.mean, np.nan), np.where(found.known, found.ignorance, np.nan)
        first[mine] = fitted.position
    side = pairs["outcome"].cast(pl.String).replace_strict({"left": 1.0, "right": -1.0}, default=None, return_dtype=pl.Float64)
    sign = side.to_numpy().astype(np.float64)
    weight = pairs["weight"].fill_null(1.0).to_numpy()
    ordered = pairs["order_known"].fill_null(value=False).to_numpy()
    judged = np.isfinite(sign) & np.isfinite(gap) & (left != right) & (weight > 0)
    if judged.sum() < _LEAST:
        raise InvalidSetting(
            "by",
            by,
            f"Only {int(judged.sum())} labels of pairs can be judged by fits that saw nothing of their {by.replace('_', ' ')}, and {_LEAST} "
            "are needed. Responses without texts, or with Tabular values, are not known to such fits: use Linear, or by='judgment'.",
        )
    h = sign * (gap + np.where(ordered, first, 0.0))
    rates = _rates(h[judged], sd[judged], weight[judged])
    p = np.full(len(h), np.nan)
    p[judged] = rates.flips(h[judged], sd[judged])
    frame = pl.DataFrame(
        {"row": rows, "fold": fold[rows], "gap": gap, "gap_sd": sd, "strength": sign * gap, "agrees": sign * gap > 0, "p_flip": p}
    ).with_columns(pl.when(pl.Series(judged)).then(pl.col("agrees")), pl.col("gap", "gap_sd", "strength", "p_flip").fill_nan(None))
    return LabelQuality(frame, *rates.rate(), rates.scale(), int(judged.sum()), feedback.fingerprint, by, folds, seed)


def softened(feedback: Feedback, quality: LabelQuality, *, how: Literal["soft", "weight", "flip"] = "soft") -> Feedback:
    """The judgments, with labels of pairs that count as far as they are believed.

    soft: each becomes two, of weights 1 - p_flip and p_flip, the second with the answer turned round; their loss is that of the soft
    target 1 - p_flip. weight: one of weight 1 - 2 p_flip, or 0 below, so that a coin's worth of doubt carries nothing. flip: turned round
    where p_flip > 1/2 (Wang et al. 2024 flip the lowest share by strength). Weights multiply those given. Judgments without a p_flip
    are as they were: other kinds, ties, answers that fits of the other folds could not judge.

    Raises
    ------
    InvalidSetting
        If `quality` is not about these very judgments, or there is no such way.
    """
    if how not in ("soft", "weight", "flip"):
        raise InvalidSetting("how", how, "Use soft, weight or flip.")
    if quality.fingerprint != feedback.fingerprint:
        raise InvalidSetting(
            "quality",
            f"about other judgments (of fingerprint {quality.fingerprint[:12]}...)",
            "Soften the judgments that were given to cross_fitted, before any are left out or changed.",
        )
    judged = quality.frame.drop_nulls("p_flip")
    doubt = np.zeros(feedback.n_judgments)
    doubt[judged["row"].to_numpy()] = judged["p_flip"].to_numpy()
    given = feedback.judgments["weight"].fill_null(1.0).to_numpy()
    frame = feedback.judgments
    if how == "weight":
        return replace(feedback, judgments=frame.with_columns(weight=pl.Series(given * np.maximum(1 - 2 * doubt, 0.0))))
    if how == "flip":
        return replace(feedback, judgments=_turned(frame, doubt > 0.5))
    halves = [frame.with_columns(weight=pl.Series(given * (1 - doubt))), _turned(frame, doubt > 0)]
    # an id names one judgment: the half that was turned round has none
    halves[1] = halves[1].with_columns(pl.lit(None, dtype=pl.String).alias("id"), weight=pl.Series(given * doubt)).filter(doubt > 0)
    order = np.argsort(np.concatenate([np.arange(len(frame)), np.flatnonzero(doubt > 0)]), kind="stable")
    return replace(feedback, judgments=pl.concat(halves)[order])


def _turned(frame: pl.DataFrame, where: NDArray[np.bool_]) -> pl.DataFrame:
    """The judgments, left and right exchanged in the answers of some."""
    outcome = pl.col("outcome").cast(pl.String)
    other = outcome.replace({"left": "right", "right": "left"})
    return frame.with_columns(pl.when(pl.Series(where)).then(other).otherwise(outcome).cast(OUTCOME).alias("outcome"))


def posterior_flip(h: Array, sd: Array, e: float, t: float = 1.0) -> Array:
    """(n,) probability that labels of gap h ~ N(mean, sd^2) in their direction are flips, flips being a share e of all."""
    right, wrong = _agreement(h, sd, t)
    return e * wrong / ((1 - e) * right + e * wrong)


def _agreement(h: Array, sd: Array, t: float) -> tuple[Array, Array]:
    """(n,) E sigmoid(t h) and E sigmoid(-t h)."""
    x, w = np.polynomial.hermite_e.hermegauss(_NODES)
    z = t * (h[:, None] + sd[:, None] * x)
    w = w / w.sum()
    return expit(z) @ w, expit(-z) @ w


@dataclass(frozen=True)
class _Rates:
    """Posterior of e and t on a grid."""

    log_odds: Array
    """(A,) of 2 e."""
    log_t: Array
    """(B,)"""
    mass: Array
    """(A, B), sums to 1."""

    def flips(self, h: Array, sd: Array) -> Array:
        """(n,) p_flip, over what is not known of e and t."""
        total = np.zeros(len(h))
        for j, t in enumerate(np.exp(self.log_t)):
            right, wrong = _agreement(h, sd, float(t))
            for i in np.flatnonzero(self.mass[:, j] > 1e-7):
                e = expit(self.log_odds[i]) / 2
                total += self.mass[i, j] * e * wrong / ((1 - e) * right + e * wrong)
        return total

    def rate(self) -> tuple[float, float, float]:
        """Posterior mean of e, and its 2.5% and 97.5% quantiles."""
        marginal = self.mass.sum(1)
        low, high = np.interp([0.025, 0.975], np.cumsum(marginal) - marginal / 2, self.log_odds)
        return float(marginal @ expit(self.log_odds) / 2), float(expit(low) / 2), float(expit(high) / 2)

    def scale(self) -> float:
        """Geometric mean of t."""
        return float(np.exp(self.mass.sum(0) @ self.log_t))


def _rates(h: Array, sd: Array, weight: Array) -> _Rates:
    """e and t from labels of gap h ~ N(mean, sd^2) in their direction.

    A mode would not do: many flips among gaps that hardly tell, and few among gaps that tell less, explain the same answers, and the
    posterior may have a peak for each.
    """
    found = _on_grid(h, sd, weight, _REACH_E, _REACH_T)
    for _ in range(_ZOOMS):
        ends: list[tuple[float, float]] = []
        for axis, grid in enumerate((found.log_odds, found.log_t)):
            seen = np.flatnonzero(found.mass.sum(1 - axis) > 1e-5)
            ends.append((float(grid[max(seen[0] - 1, 0)]), float(grid[min(seen[-1] + 1, len(grid) - 1)])))
        found = _on_grid(h, sd, weight, *ends)
    return found


def _on_grid(h: Array, sd: Array, weight: Array, reach_e: tuple[float, float], reach_t: tuple[float, float]) -> _Rates:
    odds, log_t = np.linspace(*reach_e, _GRID[0]), np.linspace(*reach_t, _GRID[1])
    value = np.empty(_GRID)
    for j, t in enumerate(np.exp(log_t)):
        right, wrong = _agreement(h, sd, float(t))
        value[:, j] = [weight @ np.log((1 - e) * right + e * wrong) for e in expit(odds) / 2]
    value -= 0.5 * ((odds - _PRIOR_E[0]) / _PRIOR_E[1])[:, None] ** 2 + 0.5 * (log_t / _PRIOR_T) ** 2
    mass = np.exp(value - value.max())
    return _Rates(odds, log_t, mass / mass.sum())
