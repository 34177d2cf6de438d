"""Is a reward more reliable in some of its range, so that a policy should learn from that alone?

The share of gold's variance that the reward explains (R squared) rises where only high and low rewards are kept, *whatever* the noise: a
wider range explains more. That a region is less reliable is said by the spread of what the reward does not explain, reward by reward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as fisher

from seamark.checks.comparisons import counted
from seamark.checks.findings import Finding, Findings
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import bootstrap
from seamark.reward.controls import KEEPS, Keep, keep_weights
from seamark.reward.policies import Pool

Array = NDArray[np.float64]

_BINS = 5
_FEW = 20
_LEAST = 3
"""Responses of a fifth: about a line through two nothing spreads."""
_ROUNDS = 200


def r_squared(proxy: ArrayLike, gold: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Share of the (weighted) variance of gold that a straight line in the proxy explains; NaN where either does not vary.

    Source: Shen & Zhang 2024, eq. 5.
    """
    x, y = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    x, y = x - (w * x).sum() / w.sum(), y - (w * y).sum() / w.sum()
    spread = (w * x * x).sum() * (w * y * y).sum()
    return float((w * x * y).sum() ** 2 / spread) if spread > 0 else float("nan")


def kept(pool: Pool, keep: Keep) -> Array:
    """(n,) weight that each response has among those that `keep_weights` keeps, all responses of a prompt being drawn at once."""
    weight = np.zeros(len(pool.prompt))
    order = np.lexsort((-pool.proxy, pool.prompt))
    start = 0
    for n in np.bincount(pool.prompt):
        weight[order[start : start + n]] = keep_weights(int(n), keep) if n > 1 else 1.0
        start += n
    return weight


def check_filtration(pool: Pool, *, seed: int = 0) -> Findings:
    """What keeping some of the responses does to how well rewards tell gold, and whether rewards differ in reliability at all.

    Parameters
    ----------
    pool : responses with reward and gold.

    Returns
    -------
    filtration : R squared of all responses, and of those that each way of keeping keeps.
    filtration/reliability : the spread of gold about what the reward says, in fifths of the reward. A notice where the fifths differ; where they do not, a rise of R squared is that of the range.

    Raises
    ------
    InvalidSetting
        If all rewards, or all gold, are equal.

    Source: Shen & Zhang 2024; Brown & Forsythe 1974.
    """
    if not np.ptp(pool.proxy) or not np.ptp(pool.gold):
        raise InvalidSetting("pool", "constant", "Rewards and gold must vary.")
    if pool.n_prompts < _FEW:
        why = f"There are {counted(pool.n_prompts, 'prompt')}; an interval takes {_FEW}."
        return Findings(
            tuple(
                Finding.not_applicable(code, "How reliable rewards are cannot be told.", why)
                for code in ("filtration", "filtration/reliability")
            )
        )
    residual = _residuals(pool)
    rows: list[dict[str, Any]] = []
    for keep in KEEPS:
        weight = kept(pool, keep)
        explained = r_squared(pool.proxy, pool.gold, weight)
        if not np.isfinite(explained):  # all that is kept has one reward, or one gold
            continue
        low, high = bootstrap(lambda w, weight=weight: r_squared(pool.proxy, pool.gold, w * weight), pool.prompt, rounds=_ROUNDS, seed=seed)
        spread, spread_low, spread_high = _spread_of(residual, weight, pool.prompt, seed)
        rows.append({"keep": keep, "r_squared": explained, "low": low, "high": high, "spread": spread, "spread_low": spread_low, "spread_high": spread_high})  # fmt: skip
    reliability = _reliability(pool, residual, seed)
    best = max(rows, key=lambda row: row["r_squared"])
    rise = best["r_squared"] - rows[0]["r_squared"]
    found = Finding(
        code="filtration", estimate=float(best["r_squared"]), low=float(best["low"]), high=float(best["high"]), n=pool.n_prompts, unit="share",
        title=f"Kept {best['keep']}, rewards explain {best['r_squared']:.0%} of gold's variance, against {rows[0]['r_squared']:.0%} of all responses'"
        + ("." if rise <= 0 or best["spread"] is None else f"; what they leave unexplained is {best['spread']:.2f} times as far spread there, "
           + ("so they are more reliable there." if best["spread_high"] < 1 else "so that is the wider range, not a more reliable reward.")),
        reason="R squared of a straight line, over what is kept of each prompt's responses; bootstrap over prompts, which are n. It rises with the range that is kept, "
        "so it does not say by itself that rewards are unreliable elsewhere: filtration/reliability does.",
        source="Shen & Zhang 2024", details={"keeps": rows},
    )  # fmt: skip
    return Findings((found, reliability))


def _fifths(pool: Pool) -> NDArray[np.int64]:
    cut = np.quantile(pool.proxy, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.searchsorted(cut, pool.proxy, side="right").astype(np.int64)


def _residuals(pool: Pool) -> Array:
    """(n,) gold less a line in the reward within its fifth: a bend of gold on the reward is no noise."""
    fifth = _fifths(pool)
    residual = np.zeros(len(fifth))
    for b in np.unique(fifth):
        mine = fifth == b
        x, y = pool.proxy[mine], pool.gold[mine]
        slope = np.polyfit(x, y, 1) if np.ptp(x) else np.array([0.0, y.mean()])
        residual[mine] = y - np.polyval(slope, x)
    # what rounding leaves of a gold that the line tells wholly is no noise
    return np.where(np.abs(residual) > 1e-9 * np.ptp(pool.gold), residual, 0.0)


def _spread_of(residual: Array, weight: Array, prompt: NDArray[np.int64], seed: int) -> tuple[float | None, float | None, float | None]:
    """Standard deviation of residuals among what is kept, as a ratio to that among all, with its interval; None where nothing is left to spread."""
    if not residual.any():
        return None, None, None

    def ratio(w: Array) -> float:
        whole = (w * residual**2).sum() / w.sum()
        return float(np.sqrt((w * weight * residual**2).sum() / (w * weight).sum() / whole)) if whole > 0 else float("nan")

    low, high = bootstrap(ratio, prompt, rounds=_ROUNDS, seed=seed)
    return ratio(np.ones(len(residual))), low, high


def _reliability(pool: Pool, residual: Array, seed: int) -> Finding:
    """Residual spread by fifths of the reward, and the test that they differ."""
    code = "filtration/reliability"
    fifth = _fifths(pool)
    counts = np.bincount(fifth, minlength=_BINS)
    present = np.flatnonzero(counts >= _LEAST)  # rewards that are tied fill one fifth and leave others empty
    if len(present) < 2:
        why = "Nearly all rewards are tied: they do not fall into fifths."
        return Finding.not_applicable(code, "Whether rewards are more reliable in some of their range cannot be told.", why)
    sd = np.array([residual[fifth == b].std() for b in present])
    rows = np.isin(fifth, present)
    p = _alike(residual[rows], fifth[rows], pool.prompt[rows])
    worst, least = int(present[sd.argmax()]) + 1, int(present[sd.argmin()]) + 1

    def ratio(weight: Array) -> float:
        found = [np.sqrt(np.average(residual[m] ** 2, weights=weight[m])) for b in present if weight[m := fifth == b].sum() > 0]
        return float(max(found) / min(found)) if min(found) > 0 else float("nan")

    differ = p < THRESHOLDS.false_discoveries
    estimate, low, high = None, None, None
    if sd.min() > 0:
        estimate = float(sd.max() / sd.min())
        low, high = bootstrap(ratio, pool.prompt, rounds=_ROUNDS, seed=seed)
        where = f"Gold spreads {estimate:.2f} times as far about the rewards of fifth {worst} (1 the lowest) as where it spreads least"
    elif sd.max() > 0:
        where = f"Gold spreads furthest about the rewards of fifth {worst} (1 the lowest), and not at all in fifth {least}"
    else:
        where = "Gold does not spread about the rewards in any fifth"
    return Finding(
        code=code, estimate=estimate, low=low, high=high, n=pool.n_prompts, unit="ratio", verdict="notice" if differ else "ok",
        title=f"{where} (p = {p:.2g}): " + ("rewards are not as reliable everywhere." if differ else "no sign that rewards are less reliable anywhere."),
        reason="Standard deviation of gold about a line in each fifth of the reward; the test is Brown and Forsythe's, clustered by prompt; the interval, a bootstrap over prompts, is of "
        "the largest ratio, which is above 1 by choice."
        + ("" if estimate is not None else " No ratio and no interval: the least is 0."),
        remedy="Let the policy learn from the fifths that are reliable (follow with keep), or discount the others." if differ else None,
        source="Brown & Forsythe 1974; Liang & Zeger 1986",
        details={"fifths": [{"fifth": int(b) + 1, "sd": float(s), "n": int(counts[b])} for b, s in zip(present, sd, strict=True)], "p": p},
    )  # fmt: skip


def _alike(residual: Array, part: NDArray[np.int64], prompt: NDArray[np.int64]) -> float:
    """p-value of Brown and Forsythe's test that residuals spread alike in all parts, responses to one prompt taken together.

    Of z = |residual - median of its part|, W = (C m)' (C V C')^-1 C m, with m the means of z by part, V their covariance from what they are
    without each prompt (the jackknife, which few prompts need), and C the contrasts; W (G - q) / (q (G - 1)) is compared with F(q, G - q) for G prompts and q contrasts.
    """
    code = np.unique(part, return_inverse=True)[1]
    n = np.bincount(code)
    far = np.abs(residual - np.array([np.median(residual[code == k]) for k in range(len(n))])[code])
    middle = np.bincount(code, far) / n
    cluster = np.unique(prompt, return_inverse=True)[1]
    n_clusters = int(cluster.max()) + 1
    sums, share = np.zeros((2, n_clusters, len(n)))
    np.add.at(sums, (cluster, code), far - middle[code])
    np.add.at(share, (cluster, code), 1 / n[code])
    if share.max() == 1:  # a part of one prompt
        return 1.0
    moved = sums / n / (1 - share)
    contrast = np.diff(np.eye(len(n)), axis=0)
    gap = contrast @ middle
    covariance = contrast @ (moved.T @ moved) @ contrast.T * (n_clusters - 1) / n_clusters
    q = int(np.linalg.matrix_rank(covariance))  # parts in which nothing spreads are alike without doubt
    if not 0 < q < n_clusters:
        return 1.0
    w = float(gap @ np.linalg.pinv(covariance) @ gap)
    return float(fisher.sf(w * (n_clusters - q) / (q * (n_clusters - 1)), q, n_clusters - q))
