"""How what was learned ages: fits to one part of the time, tested on all that came later.

Fits of different age are compared on the same later judgments, and each learned from as many, so that neither harder questions nor more data pass for age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import t as student

from seamark.checks.comparisons import Codes, codes_of, counted
from seamark.checks.cross_fitting import CrossFit, Job
from seamark.checks.findings import Finding
from seamark.errors import SeamarkError
from seamark.intervals import clustered_mean, clustered_share, figure, interval_of
from seamark.records import Feedback

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST = 50
"""Judgments that a fit learns from, and comparisons that fits of several ages are compared on."""
_PERIODS = (("30 days", timedelta(days=30)), ("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))
"""Of which the first that the whole time holds twice is what age is counted in."""


def time_blocks(feedback: Feedback, n_blocks: int) -> tuple[Codes, tuple[str, ...]]:
    """(n_judgments,) blocks of time of equal count, -1 where it is not known, and when each begins; no names where times are too few."""
    time = feedback.judgments["time"]
    known = time.is_not_null().to_numpy()
    if time.n_unique() < n_blocks + 1:
        return np.full(len(known), -1), ()
    micro = time.fill_null(strategy="min").dt.epoch("us").to_numpy()
    edges = np.quantile(micro[known], np.linspace(0, 1, n_blocks + 1)[1:-1])
    block = np.where(known, np.searchsorted(edges, micro, side="left"), -1)
    dates = [time.filter(pl.Series(block == k)).min() for k in range(n_blocks)]
    return block, tuple(f"from {date:%Y-%m-%d %H:%M}" if date is not None else "" for date in dates)


def plan_decay(feedback: Feedback, *, n_folds: int, seed: int) -> list[Job]:
    """A fit to each block of time but the last, tested on all later ones."""
    # a fit may be good or bad by itself: many small ones tell more of age than few large ones
    block, names = time_blocks(feedback, max(3, min(2 * n_folds, feedback.n_judgments // (2 * _LEAST))))
    jobs = [Job("decay", str(k), block == k, block > k) for k in range(len(names) - 1)]
    jobs = [job for job in jobs if job.train.sum() >= _LEAST]
    least, rng = min((int(job.train.sum()) for job in jobs), default=0), np.random.default_rng(seed)

    def as_many(train: Mask) -> Mask:
        """Where many judgments have one time, blocks are of different size."""
        some = np.zeros(len(train), dtype=bool)
        some[rng.choice(np.flatnonzero(train), least, replace=False)] = True
        return some

    return [replace(job, train=as_many(job.train)) for job in jobs]


def check_decay(cross: CrossFit, jobs: Sequence[Job], results: Sequence[pl.DataFrame | SeamarkError]) -> Finding:
    """What age costs: the slope of being right on the age of the fit, within each later judgment.

    With a_k the age of fit k at a judgment and h_k whether it was right, both less their means over the fits that are older than the judgment, the loss
    is  -sum a_k h_k / sum a_k^2  over all judgments. The interval is the wider of the one clustered by rater and prompt, and of the jackknife over fits.
    """
    title = "How what was learned ages cannot be told."
    feedback = cross.feedback
    time = feedback.judgments["time"].dt.epoch("us").to_numpy() / 6e7
    rows = [
        result.select("row", "first", "second", "hit").with_columns(fit=pl.lit(int(job.part)), learned=pl.lit(float(np.nanmean(time[job.train]))))
        for job, result in zip(jobs, results, strict=True)
        if isinstance(result, pl.DataFrame) and result.height
    ]  # fmt: skip
    if not rows:
        why = f"It takes judgments whose times are known and spread, {_LEAST} or more in each part."
        return Finding.not_applicable("decay", title, why, remedy="Record when each judgment was made.")
    span = float(np.nanmax(time) - np.nanmin(time))
    words, minutes = next(((w, p / timedelta(minutes=1)) for w, p in _PERIODS if span >= 2 * (p / timedelta(minutes=1))), ("minute", 1.0))
    keys = ["row", "first", "second"]
    frame = pl.concat(rows).with_columns(age=(pl.Series(time)[pl.concat(rows)["row"]] - pl.concat(rows)["learned"]) / minutes)
    frame = frame.filter(pl.len().over(keys) > 1)
    fits = frame["fit"].unique().to_list()
    n = frame.select(keys).unique().height
    if n < _LEAST or len(fits) < 3:
        why = f"{counted(n, 'comparison')} could be predicted by fits of different age; {_LEAST} and three fits are needed."
        return Finding.not_applicable("decay", title, why)
    loss, parts = _slope(frame)
    of = parts.select(pl.col("row")).to_series().to_numpy()
    codes = {name: codes_of(feedback.judgments[name])[of] for name in ("rater", "prompt")}
    clusters = {name: code for name, code in codes.items() if (code >= 0).all() and len(np.unique(code)) > 1} or {"judgment": of}
    found, how = clustered_mean(parts["slope"].to_numpy(), clusters, weight=parts["weight"].to_numpy())
    without = np.array([_slope(frame.filter(pl.col("fit") != k))[0] for k in fits])
    half = float(student.ppf(0.975, len(fits) - 1) * np.sqrt((len(fits) - 1) / len(fits) * ((without - without.mean()) ** 2).sum()))
    low, high = (100 * end for end in (min(found.low, loss - half), max(found.high, loss + half)))
    points = 100 * loss
    if low == high:
        return Finding.not_applicable("decay", title, "Fits of every age are right about the same judgments.")
    surely = low > 0
    sure = "." if surely else ": a gain that is sure." if high < 0 else ": none that is sure."
    return Finding(
        code="decay", estimate=points, low=low, high=high, n=n, unit=f"points per {words}", verdict="notice" if surely else "ok",
        title=f"With each {words} of age a fit {'loses' if points >= 0 else 'gains'} {figure(abs(points), None, low, high)} points of accuracy on the same later judgments, "
        f"a loss of {interval_of(low, high)}{sure}",
        reason=f"Fits to {len(fits)} blocks of time, of as many judgments each, tested on what came later; n counts comparisons that several of them predicted. Slope on age within each; "
        f"the wider of the {how} and the one of the jackknife over fits. Where other things are asked about as time goes on, that is part of age.",
        remedy="Learn again from recent judgments as often as that asks for, or let values move (Dynamic)." if surely else None,
        details={"period": words, "curve": _curve(frame, feedback)},
    )  # fmt: skip


def _slope(frame: pl.DataFrame) -> tuple[float, pl.DataFrame]:
    """What a period of age costs, as a share, and per comparison: row, slope and weight, whose weighted mean it is."""
    keys = ["row", "first", "second"]
    apart = frame.with_columns(a=pl.col("age") - pl.col("age").mean().over(keys), h=pl.col("hit") - pl.col("hit").mean().over(keys))
    parts = apart.group_by(keys, maintain_order=True).agg(weight=(pl.col("a") ** 2).sum(), moved=-(pl.col("a") * pl.col("h")).sum())
    parts = parts.filter(pl.col("weight") > 0).with_columns(slope=pl.col("moved") / pl.col("weight"))
    return float(parts.select(pl.col("moved").sum() / pl.col("weight").sum()).item()), parts


def _curve(frame: pl.DataFrame, feedback: Feedback) -> list[dict[str, float]]:
    """Accuracy by age, in five bins of equal count: of all judgments that fits of that age were asked about, which are not the same ones."""
    age = frame["age"].to_numpy()
    bins = np.searchsorted(np.quantile(age, [0.2, 0.4, 0.6, 0.8]), age, side="right")
    rater = codes_of(feedback.judgments["rater"])[frame["row"].to_numpy()]
    out: list[dict[str, float]] = []
    for b in np.unique(bins):
        mine = bins == b
        hit, _ = clustered_share(frame["hit"].to_numpy()[mine], {"rater": rater[mine]})
        out.append({"age": float(age[mine].mean()), "accuracy": hit.estimate, "low": hit.low, "high": hit.high, "n": int(mine.sum())})
    return out
