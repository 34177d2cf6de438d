"""Policies that follow a reward, exactly, over pools of responses: what optimisation makes of it, without training anything.

Conventions
-----------
A pool has responses to n_prompts prompts, each with a `proxy`, the reward that a policy follows, and a `gold`, what it should have
followed. The start policy draws a response to a prompt uniformly, or by given weights. A prompt counts as one, however many responses
it has. KL divergences are in nats, from the start policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.special import gammaln

from seamark.errors import InvalidSetting, UnreadableSource

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


_SPARED = 0.1
"""Share of the prompts, those with the fewest responses, that may be left out so that the others can be optimised further."""


def usual_size(sizes: NDArray[np.int64]) -> int:
    """How many responses nine prompts in ten have, at least two: one prompt with few would make the policies of all prompts weak."""
    return max(2, int(np.quantile(sizes, _SPARED, method="lower")))


@dataclass(frozen=True)
class Pool:
    """Responses to choose from."""

    prompt: Codes
    """(n,) code of each response's prompt, from 0."""
    proxy: Array
    """(n,) the reward that is followed."""
    gold: Array
    """(n,) what it stands for, in any unit."""
    log_start: Array
    """(n,) log probability of each response under the start policy, given its prompt."""

    @staticmethod
    def of(prompt: ArrayLike, proxy: ArrayLike, gold: ArrayLike, *, weight: ArrayLike | None = None) -> Pool:
        """A pool from columns.

        Parameters
        ----------
        prompt : (n,) anything that tells prompts apart.
        proxy, gold : (n,) finite numbers.
        weight : (n,) how likely the start policy gives each response, up to a factor per prompt; alike where left out.

        Raises
        ------
        InvalidSetting
            If columns differ in length, hold what is not finite, or there is nothing to choose from.
        """
        _, code = np.unique(np.asarray(prompt), return_inverse=True)
        code = code.astype(np.int64)
        columns = {"proxy": np.asarray(proxy, dtype=np.float64), "gold": np.asarray(gold, dtype=np.float64)}
        columns["weight"] = np.ones(len(code)) if weight is None else np.asarray(weight, dtype=np.float64)
        for name, column in columns.items():
            if column.shape != code.shape:
                raise InvalidSetting(name, column.shape, f"Give one number for each of the {len(code):,} responses.")
            if not np.isfinite(column).all() or (name == "weight" and (column <= 0).any()):
                row = int(np.flatnonzero(~np.isfinite(column) | ((name == "weight") & (column <= 0)))[0])
                raise InvalidSetting(
                    f"{name}[{row}]", float(column[row]), "Leave out responses without a score, and those that are never given."
                )
        if not len(code) or np.bincount(code).max() < 2:
            raise InvalidSetting(
                "prompt", f"{len(code):,} responses", "Give at least two responses to a prompt: else there is nothing to choose."
            )
        total = np.bincount(code, columns["weight"])
        return Pool(code, columns["proxy"], columns["gold"], np.log(columns["weight"] / total[code]))

    @staticmethod
    def read(path: str | Path, *, proxy: str = "proxy") -> Pool:
        """The pool of a file of scores: CSV, TSV, JSONL or Parquet with columns prompt, proxy (or another name for it), gold and, if responses
        are not alike under the start policy, weight.

        Raises
        ------
        UnreadableSource
            If the file cannot be read or lacks a column.
        InvalidSetting
            As `of` does; rows are counted from 0.
        """
        frame = read_scores(path, proxy=proxy)
        if (null := frame["prompt"].null_count()) or frame["prompt"].dtype.is_nested():
            raise UnreadableSource(
                str(path), f"{null} rows have no prompt" if null else "prompts are no plain values", "Give each row its prompt."
            )
        weight = frame["weight"].to_numpy() if "weight" in frame.columns else None
        return Pool.of(frame["prompt"].to_numpy(), frame[proxy].to_numpy(), frame["gold"].to_numpy(), weight=weight)

    @property
    def n_prompts(self) -> int:
        return int(self.prompt.max()) + 1

    @property
    def uneven(self) -> bool:
        """Whether some responses to a prompt are likelier than others under the start policy."""
        return bool(np.ptp(self.log_start + np.log(np.bincount(self.prompt))[self.prompt]) > 1e-9)

    def only(self, prompts: NDArray[np.bool_]) -> Pool:
        """The responses to some prompts, (n_prompts,), which are numbered anew."""
        rows = prompts[self.prompt]
        return Pool((np.cumsum(prompts) - 1)[self.prompt[rows]], self.proxy[rows], self.gold[rows], self.log_start[rows])

    def turned(self) -> Pool:
        """The pool in which gold is what is followed: the best that a policy of the same strength can do."""
        return Pool(self.prompt, self.gold, self.gold, self.log_start)


def read_scores(path: str | Path, *, proxy: str = "proxy", keys: Sequence[str] = ("prompt",)) -> pl.DataFrame:
    """A file of scores: CSV, TSV, JSONL or Parquet. Columns proxy, gold and weight are numbers, NaN where empty.

    Parameters
    ----------
    proxy : the name of that column.
    keys : columns that say what a row is about, of which one has to be there.

    Raises
    ------
    UnreadableSource
        If the file cannot be read, lacks a column, or has words among the numbers.
    """
    path = Path(path)
    readers = {
        ".csv": partial(pl.read_csv, infer_schema_length=None), ".tsv": partial(pl.read_csv, separator="\t", infer_schema_length=None),
        ".jsonl": partial(pl.read_ndjson, infer_schema_length=None), ".ndjson": partial(pl.read_ndjson, infer_schema_length=None),
        ".parquet": pl.read_parquet,
    }  # fmt: skip
    if (reader := readers.get(path.suffix.lower())) is None:
        raise UnreadableSource(str(path), f"a file of scores ends in {', '.join(readers)}", "Give one of these.")
    try:
        frame: pl.DataFrame = reader(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UnreadableSource(str(path), str(error).splitlines()[0], f"Give a table with columns {keys[0]}, {proxy} and gold.") from None
    key = next((name for name in keys if name in frame.columns), keys[0])
    if lacking := [name for name in (key, proxy, "gold") if name not in frame.columns]:
        raise UnreadableSource(
            str(path), f"no column {lacking[0]!r} among {', '.join(frame.columns)}", f"Name its columns {key}, {proxy} and gold."
        )
    numbers = [name for name in (proxy, "gold", "weight") if name in frame.columns]
    if words := [name for name in numbers if not frame[name].dtype.is_numeric()]:
        value = frame[words[0]].drop_nulls().first()
        raise UnreadableSource(str(path), f"column {words[0]!r} holds {value!r}, which is no number", "Write numbers, with a point.")
    return frame.with_columns(pl.col(numbers).cast(pl.Float64).fill_null(float("nan")))


@dataclass(frozen=True)
class Policies:
    """What policies of growing strength lead to."""

    strength: Array
    """(K,) n of best-of-n, or 1 / beta of a tilt."""
    kl: Array
    """(K,) mean over prompts."""
    proxy: Array
    """(n_prompts, K) mean reward of what is given."""
    gold: Array
    """(n_prompts, K)"""
    ideal: Array
    """(n_prompts, K) gold of policies as strong that follow gold itself."""
    start: Array
    """(n_prompts,) gold of the start policy."""

    def regret(self, rows: Codes | None = None) -> Array:
        """(K,) 1 - (J(proxy) - J(start)) / (J(gold) - J(start)): 0 where following the proxy is as good as following gold, 1 where it
        gains nothing, above 1 where it does harm; NaN where nothing can be gained. Of the prompts `rows`, with repeats, or all.

        Source: the normalised drop ratio of Wen et al. 2024, from 1.
        """
        rows = np.arange(len(self.start)) if rows is None else rows
        start = self.start[rows].mean()
        gain = self.ideal[rows].mean(0) - start
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(gain > 1e-12, 1 - (self.gold[rows].mean(0) - start) / gain, np.nan)


def best_of_n(pool: Pool, n: Sequence[int]) -> Policies:
    """The best by proxy of n responses drawn from a prompt's, for each n: unbiased for the policy whose samples the pool is.

        E gold = sum_i C(i - 1, n - 1) / C(m, n) gold_(i),     i = 1 .. m in ascending order of the proxy,

    the mean over all draws of n of the m responses without replacement; responses of equal proxy are as likely. KL is log n - (n - 1) / n,
    that of a policy whose rewards are never equal, else a bound (Beirami et al. 2024).

    Raises
    ------
    InvalidSetting
        If n is below 1, above what every prompt has, or responses are not alike under the start policy.

    Source: the estimator that Nakano et al. 2021 use, as a U-statistic (Hoeffding 1948).
    """
    asked = np.asarray(n, dtype=np.int64)
    given, ideal = best_of_n_shares(pool, n), best_of_n_shares(pool.turned(), n)
    kl = np.log(asked) - (asked - 1) / asked
    start = _means(pool, pool.gold)
    by = csr_array((np.ones(len(pool.prompt)), (pool.prompt, np.arange(len(pool.prompt)))))
    proxy, gold, best = (
        np.asarray(by @ (value[:, None] * w)) for value, w in ((pool.proxy, given), (pool.gold, given), (pool.gold, ideal))
    )
    return Policies(asked.astype(np.float64), kl, proxy, gold, best, start)


def best_of_n_shares(pool: Pool, n: Sequence[int]) -> Array:
    """(n_responses, K) how often best-of-n by proxy gives each response to its prompt, for each n.

    Raises
    ------
    InvalidSetting
        As `best_of_n` does.
    """
    counts = np.bincount(pool.prompt)
    asked = np.asarray(n, dtype=np.int64)
    if (asked < 1).any() or asked.max() > counts.min():
        wrong = int(asked[(asked < 1) | (asked > counts.min())][0])
        raise InvalidSetting("n", wrong, f"Use 1 to {int(counts.min())}, the fewest responses that a prompt has here.")
    if pool.uneven:
        raise InvalidSetting("weight", "uneven", "Best-of-n draws from a pool of samples, which count alike; use tilt for weights.")
    order = np.lexsort((pool.proxy, pool.prompt))
    first = np.r_[0, np.cumsum(counts)[:-1]]
    sorted_shares = np.zeros((len(order), len(asked)))
    for m in np.unique(counts):
        rows = first[counts == m][:, None] + np.arange(m)
        sorted_shares[rows] = np.stack([_chosen(int(m), int(k)) for k in asked], 1)
    # any response of an equal proxy may come first: they share what they have together
    level = np.r_[True, (np.diff(pool.proxy[order]) != 0) | (np.diff(pool.prompt[order]) != 0)]
    if not level.all():
        start = np.flatnonzero(level)
        sizes = np.diff(np.r_[start, len(order)])
        sorted_shares = np.repeat(np.add.reduceat(sorted_shares, start) / sizes[:, None], sizes, axis=0)
    out = np.empty_like(sorted_shares)
    out[order] = sorted_shares
    return out


def tilt(pool: Pool, beta: Sequence[float]) -> Policies:
    """The policies that KL-regularised training would end in if it could: start(y) exp(proxy(y) / beta), normalised over a prompt's
    responses, for each beta.

    Raises
    ------
    InvalidSetting
        If beta is not above 0.

    Source: the optimum of E proxy - beta KL (Korbak et al. 2022, eq. 3).
    """
    asked = np.asarray(beta, dtype=np.float64)
    if not np.isfinite(asked).all() or (asked <= 0).any():
        raise InvalidSetting("beta", asked.tolist(), "Use numbers above 0.")

    kl, proxy, gold, ideal = ([] for _ in range(4))
    for b in asked:
        weight, far = _tilted(pool, pool.proxy, float(b))
        kl.append(far)
        proxy.append(np.bincount(pool.prompt, weight * pool.proxy))
        gold.append(np.bincount(pool.prompt, weight * pool.gold))
        ideal.append(np.bincount(pool.prompt, _as_far(pool, far) * pool.gold))
    return Policies(1 / asked, np.array(kl), np.stack(proxy, 1), np.stack(gold, 1), np.stack(ideal, 1), _means(pool, pool.gold))


def _tilted(pool: Pool, reward: Array, beta: float) -> tuple[Array, float]:
    """(n,) probability of each response, and the mean KL over prompts."""
    log_weight = pool.log_start + reward / beta
    top = np.full(pool.n_prompts, -np.inf)
    np.maximum.at(top, pool.prompt, log_weight)
    log_weight = log_weight - top[pool.prompt]
    log_weight = log_weight - np.log(np.bincount(pool.prompt, np.exp(log_weight)))[pool.prompt]
    weight = np.exp(log_weight)
    return weight, float(np.bincount(pool.prompt, weight * (log_weight - pool.log_start)).mean())


def _as_far(pool: Pool, kl: float) -> Array:
    """(n,) probabilities under the policy that follows gold to the same mean KL, or as far as it can."""
    spread = max(float(np.ptp(pool.gold)), 1e-12)
    low, high = np.log(spread) - 14.0, np.log(spread) + 14.0

    def short(log_beta: float) -> float:
        return _tilted(pool, pool.gold, float(np.exp(log_beta)))[1] - kl

    if short(low) <= 0:
        return _tilted(pool, pool.gold, float(np.exp(low)))[0]
    log_beta = high if short(high) >= 0 else float(brentq(short, low, high, xtol=1e-6))  # type: ignore[arg-type]  # it is a float here
    return _tilted(pool, pool.gold, float(np.exp(log_beta)))[0]


@lru_cache(maxsize=32)  # policies over one large pool ask for the same again and again
def _chosen(m: int, n: int) -> Array:
    """(m,) how likely each of m responses in ascending order is the best of n drawn without replacement."""
    i = np.arange(1, m + 1, dtype=np.float64)
    log_share = np.full(m, -np.inf)
    can = i >= n
    log_share[can] = gammaln(i[can]) - gammaln(n) - gammaln(i[can] - n + 1) - (gammaln(m + 1) - gammaln(n + 1) - gammaln(m - n + 1))
    return np.exp(log_share)


def _means(pool: Pool, value: Array) -> Array:
    return np.bincount(pool.prompt, np.exp(pool.log_start) * value).astype(np.float64, copy=False)
