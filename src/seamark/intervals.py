"""Intervals that respect who answered: judgments by one rater, or about one prompt, are not independent. And how numbers and texts are
written in sentences."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A point estimate with the bounds of its 95% interval."""

    estimate: float
    low: float
    high: float
    n: int
    n_clusters: int

    @property
    def bounded(self) -> bool:
        """Whether there was more than one value (or cluster) to tell the spread from."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """(low, high) for JSON, which has no infinity: (None, None) where one value has no spread."""
        return (self.low, self.high) if self.bounded else (None, None)

    def said(self, unit: str | None = None) -> str:
        """As sentences have it: 98% [91, 100]; the number alone where one value has no spread."""
        number = figure(self.estimate, unit, self.low, self.high)
        return " ".join(part for part in (number, interval_of(self.low, self.high, unit)) if part)


def wilson(successes: float, n: float, *, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share; sound at 0 and 1 and for small n.

    Source: Wilson 1927.
    """
    if n <= 0:
        return 0.0, 1.0
    p, z2 = successes / n, z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # at 0 and 1 the bound is exact; rounding would leave 1e-17 behind
    return float(max(0.0, centre - half)) if p > 0 else 0.0, float(min(1.0, centre + half)) if p < 1 else 1.0


def share(
    hits: NDArray[np.float64],
    *,
    cluster: NDArray[np.int64] | None = None,
    weight: NDArray[np.float64] | None = None,
    stratum: NDArray[np.int64] | None = None,
    z: float = Z95,
) -> Interval:
    """The weighted mean of values in [0, 1], with an interval clustered by `cluster`.

    The cluster-robust variance of the ratio sum(w x) / sum(w) gives an effective n, which goes into Wilson's interval, so
    that the bounds stay within [0, 1] and do not collapse when all values agree.

    Parameters
    ----------
    hits, weight : (n,); cluster : (n,) code of the unit that repeats (rater or prompt).
    stratum : (n,) code of the part whose share of the weight is fixed beforehand: how parts differ is then no noise.
    z : quantile of the normal distribution at the upper end.

    Source: Korn & Graubard 1998 (effective sample size in a score interval).
    """
    w = np.ones(len(hits)) if weight is None else weight
    total = float(w.sum())
    p = float((w * hits).sum() / total)
    c = np.arange(len(hits)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    k = int(c.max()) + 1
    centre: float | NDArray[np.float64] = p
    if stratum is not None:
        s = np.unique(stratum, return_inverse=True)[1]
        centre = (np.bincount(s, w * hits) / np.bincount(s, w))[s]
    residual = np.bincount(c, weights=w * (hits - centre), minlength=k)
    variance = float((residual**2).sum()) / total**2 * k / max(k - 1, 1)
    n_effective = min(p * (1 - p) / variance, float(len(hits))) if variance > 0 else float(k)
    low, high = wilson(p * n_effective, n_effective, z=z)
    return Interval(p, low, high, len(hits), k)


def mean(values: NDArray[np.float64], *, cluster: NDArray[np.int64] | None = None, weight: NDArray[np.float64] | None = None) -> Interval:
    """The weighted mean of any values, with a t interval whose variance is clustered (degrees of freedom: clusters - 1)."""
    from scipy.stats import t

    w = np.ones(len(values)) if weight is None else weight
    total = float(w.sum())
    m = float((w * values).sum() / total)
    c = np.arange(len(values)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    k = int(c.max()) + 1
    residual = np.bincount(c, weights=w * (values - m), minlength=k)
    se = float(np.sqrt((residual**2).sum()) / total * np.sqrt(k / max(k - 1, 1)))
    half = float(t.ppf(0.975, k - 1)) * se if k > 1 else float("inf")
    return Interval(m, m - half, m + half, len(values), k)


def mean_share(shares: NDArray[np.float64]) -> Interval:
    """The mean of independent shares (one per rater, say), with Wilson's interval at the effective n and Student's quantile for few."""
    from scipy.stats import t

    k, p = len(shares), float(shares.mean())
    variance = float(shares.var(ddof=1)) / k if k > 1 else 0.0
    n_effective = p * (1 - p) / variance if variance > 0 else float(k)
    low, high = wilson(p * n_effective, n_effective, z=float(t.ppf(0.975, max(k - 1, 1))))
    return Interval(p, low, high, k, k)


FEW_CLUSTERS = 10
"""With fewer clusters the cluster-robust variance is noisy and tends to be small (Cameron & Miller 2015), and the numbers speak for
these raters or prompts only, which the finding then says."""

Clusters = Mapping[str, NDArray[np.int64]]
"""What repeats, in words (rater, prompt), and its (n,) codes."""


def clustered_share(hits: NDArray[np.float64], clusters: Clusters, *, weight: NDArray[np.float64] | None = None) -> tuple[Interval, str]:
    """`share` with the widest of the intervals clustered by each of `clusters`, and how it was clustered in words."""
    return _widest(lambda code: share(hits, cluster=code, weight=weight), clusters)


def clustered_mean(values: NDArray[np.float64], clusters: Clusters, *, weight: NDArray[np.float64] | None = None) -> tuple[Interval, str]:
    """`mean` with the widest of the intervals clustered by each of `clusters`, and how it was clustered in words."""
    return _widest(lambda code: mean(values, cluster=code, weight=weight), clusters)


def _widest(measure: Callable[[NDArray[np.int64] | None], Interval], clusters: Clusters) -> tuple[Interval, str]:
    """New people and new prompts both differ, so the widest interval counts, few clusters or not.

    A cluster that is not known throughout (-1), or has one value, is left out. Where fewer than `FEW_CLUSTERS` do not widen the
    interval, their small number is said all the same.
    """
    found = {name: measure(code) for name, code in clusters.items() if len(code) and (code >= 0).all()}
    usable = {name: f for name, f in found.items() if f.n_clusters > 1}
    if not usable:
        return measure(None), "interval takes judgments as independent"
    name = max(usable, key=lambda key: usable[key].high - usable[key].low)
    only = f" (only {found[name].n_clusters})" if found[name].n_clusters < FEW_CLUSTERS else ""
    few = [
        f"{f.n_clusters} {other}{'s' if f.n_clusters > 1 else ''}"
        for other, f in found.items()
        if other != name and f.n_clusters < FEW_CLUSTERS
    ]
    return usable[name], f"interval clustered by {name}{only}" + (f", for {_these(few)} only" if few else "")


def _these(few: list[str]) -> str:
    return f"{'this' if few[0].startswith('1 ') else 'these'} {' and '.join(few)}"


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], float], cluster: NDArray[np.int64], *, rounds: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic(weights)` when clusters are drawn with replacement.

    `statistic` takes one weight per row and returns a number (NaN: not computable in this round, left out).
    """
    c = np.unique(cluster, return_inverse=True)[1]
    k = int(c.max()) + 1
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.multinomial(k, np.full(k, 1 / k))[c].astype(float)) for _ in range(rounds)])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


# ---------------------------------------------------------------------------------------------- as people read them


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    return f"{value:,.0f}" if finite(value) else "–"


def _decimals(value: float, low: Any, high: Any) -> int:
    """Digits after the point: as many as half the interval has to its first digit, one more where that is a 1; else three in all."""
    if finite(low) and finite(high) and high > low:
        place = math.floor(math.log10((high - low) / 2))
        return min(4, max(0, -place + ((high - low) / 2 < 2 * 10.0**place)))
    return min(4, max(0, 2 - math.floor(math.log10(abs(value))))) if value else 2


def _percent(value: float, *, fine: bool) -> str:
    """A share as per cent, with one decimal if fine; 0% and 100% are kept for shares that are exactly that."""
    text = f"{100 * value:.{1 if fine and value not in (0, 1) else 0}f}"
    if 0 < value < 1 and float(text) in (0, 100):
        text = f"{100 * value:.1f}"
        if float(text) in (0, 100):
            return "<0.1%" if value < 0.5 else ">99.9%"
    return f"{text}%"


def figure(value: Any, unit: str | None = None, low: Any = None, high: Any = None, *, decimals: int | None = None) -> str:
    """A number as people read it: shares as per cent, counts with separators, others to the digits their interval allows."""
    if not finite(value):
        return "–"
    if unit == "count" or (isinstance(value, int) and unit != "share"):
        return f"{value:,.0f}".replace("-", "−")
    if decimals is not None:
        text = f"{100 * value:,.{decimals}f}%" if unit == "share" else f"{value:,.{decimals}f}"
        return text.replace("-", "−")
    decimals = _decimals(value, low, high)
    if unit != "share" and 0 < abs(value) < 0.001 and not finite(low):
        return f"{value:.1e}".replace("-", "−")
    if unit == "share":
        fine = high - low < 0.1 if finite(low) and finite(high) else 0 < abs(value) < 0.1
        return _percent(value, fine=fine).replace("-", "−")
    return f"{value:,.{decimals}f}".replace("-", "−")


def interval_of(low: Any, high: Any, unit: str | None = None, *, decimals: int | None = None) -> str:
    """The 95% interval as the sentences write it, [59.7, 63.7], or nothing."""
    if not (finite(low) and finite(high)):
        return ""
    ends = (figure(float(end), unit, low, high, decimals=decimals).removesuffix("%") for end in (low, high))
    return f"[{', '.join(ends)}]"


def is_hidden(c: str) -> bool:
    """Whether a character moves a terminal's cursor, turns the direction of reading, or cannot be seen."""
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def shown(text: str) -> str:
    """Text that somebody else wrote, with what a terminal would obey written out."""
    return "".join(f"\\u{ord(c):04x}" if is_hidden(c) or unicodedata.category(c)[0] == "C" else c for c in text)


def beginning(text: str, *, most: int = 60) -> str:
    """The beginning of a text on one line, as `shown`, cut at a word where there is one."""
    line = shown(" ".join(text[: 4 * most].split()))
    if len(line) <= most:
        return line
    cut = line[: most + 1].rpartition(" ")[0]
    return (cut if len(cut) > most // 2 else line[:most]) + "..."
