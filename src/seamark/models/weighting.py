"""Judgments that count more or less: by their age, or by how likely it was that the rater had been shown what the model says.

Conventions
-----------
Each function gives the same judgments with another `weight`, which any fit then takes. Intervals of weighted judgments are those of the
sandwich or of `bootstrap`; the curvature takes a weight for a number of judgments.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from seamark.errors import InvalidSetting
from seamark.records import Feedback

Array = NDArray[np.float64]

LEAST_PROPENSITY = 0.01
"""A judgment never stands for more than a hundred."""


def by_age(feedback: Feedback, half_life: timedelta, *, at: datetime | None = None) -> Feedback:
    """The judgments up to `at` (left out: the last one), with weights that halve with every `half_life` of age.

    There is no usual half-life: it says how fast opinions are taken to fade, which `backtest` compares and the charter's authors decide.

    Raises
    ------
    InvalidSetting
        If the half-life is not positive, or a judgment has no time.
    """
    if half_life <= timedelta(0):
        raise InvalidSetting("half_life", str(half_life), "Use a positive timedelta, such as timedelta(days=90).")
    time = feedback.judgments["time"]
    if time.null_count():
        raise InvalidSetting(
            "feedback", f"{time.null_count():,} judgments without a time", "Leave them out, or record when they were made."
        )
    last = time.max() if at is None else at
    assert isinstance(last, datetime)
    if (last.tzinfo is None) != (time.dtype.time_zone is None):  # type: ignore[attr-defined]  # it is a Datetime
        raise InvalidSetting("at", str(at), "Give it a time zone, as the times of judgments have one (datetime(..., tzinfo=UTC)).")
    kept = feedback.filter((time <= last).to_numpy())
    age = (last - kept.judgments["time"]).dt.total_microseconds().to_numpy() / (half_life / timedelta(microseconds=1))
    return _weighed(kept, np.exp2(-age))


def by_exposure(feedback: Feedback, exposed: ArrayLike, propensity: ArrayLike) -> Feedback:
    """The judgments of raters who had not been exposed, weighted for all: by 1 / (1 - propensity).

    Raters who were shown what the model says may adopt it (or tire of it), and a model shows its style to those who like it. Leaving the
    exposed out would leave their taste out; weights that make up for them give the values that people would have without exposure.
    It takes propensities that were logged, that no judgment be sure to be exposed, and that nothing else differ between raters of the
    same propensity.

    Parameters
    ----------
    exposed
        (n_judgments,) whether the rater had been shown the model's words before the judgment.
    propensity
        (n_judgments,) the probability of that, as logged by what decided it.

    Raises
    ------
    InvalidSetting
        If shapes differ, a propensity is no probability, or one is so near 1 that the unexposed cannot stand for the exposed.

    Source: Horvitz & Thompson 1952; Robins, Hernan & Brumback 2000.
    """
    shown, p = np.asarray(exposed), np.asarray(propensity, dtype=np.float64)
    n = feedback.n_judgments
    if shown.shape != (n,) or p.shape != (n,):
        raise InvalidSetting("exposed, propensity", (shown.shape, p.shape), f"Give one of each for the {n:,} judgments.")
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidSetting("propensity", float(p[~((p >= 0) & (p <= 1))][0]), "It is a probability, 0 to 1.")
    if (1 - p).min() < LEAST_PROPENSITY:
        raise InvalidSetting(
            "propensity",
            float(p.max()),
            f"Above {1 - LEAST_PROPENSITY:g} nobody is left unexposed; leave these questions out, or expose fewer.",
        )
    hidden = ~shown.astype(bool)
    if not hidden.any():
        raise InvalidSetting("exposed", "all", "Nobody is left who had not been exposed; no weight can make up for that.")
    weight = 1 / (1 - p[hidden])
    return _weighed(feedback.filter(hidden), weight / weight.mean())


def _weighed(feedback: Feedback, by: Array) -> Feedback:
    own = feedback.judgments["weight"].fill_null(1.0).to_numpy()
    return replace(feedback, judgments=feedback.judgments.with_columns(pl.Series("weight", own * by)))
