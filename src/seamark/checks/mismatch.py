"""Three objectives that are taken for one: how accurate a reward model is, how far a policy climbs its reward, and what evaluation says of the policy.

That they go together is measured here, with an interval and the number of pairs of reward model and policy behind it, in place of assumed
(Lambert & Calandra 2023). And reward models are ranked by what following them leads to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from seamark.checks.comparisons import counted
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.intervals import Z95, figure, interval_of
from seamark.reward.policies import Policies, Pool, best_of_n, usual_size
from seamark.sources.files import Options, open_source

Array = NDArray[np.float64]

_DRAWS = 1000
_FEW = 4
"""Fewer pairs of numbers have no interval of a correlation."""
_FEW_PROMPTS = 10


@dataclass(frozen=True)
class Association:
    """How two columns go together."""

    pearson: float
    pearson_low: float
    pearson_high: float
    spearman: float
    spearman_low: float
    spearman_high: float
    n: int


def associate(x: ArrayLike, y: ArrayLike) -> Association:
    """Pearson and Spearman correlations (ties share ranks) with Fisher's intervals.

    The standard error of atanh r is 1 / sqrt(n - 3); of a rank correlation sqrt((1 + r^2 / 2) / (n - 3)) (Bonett & Wright 2000). NaN where a
    column does not vary; below 4 rows the ends are -1 and 1. Ranks that agree wholly are taken half a step (an exchange of neighbours) short of it.

    Parameters
    ----------
    x, y : (n,) rows in which either is NaN are left out.

    Source: Fisher 1921; Bonett & Wright 2000, eq. 3.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    a, b, n = a[known], b[known], int(known.sum())
    found: list[tuple[float, float, float]] = []
    for one, other, ranks in ((a, b, False), (rankdata(a), rankdata(b), True)):
        if n < 2 or not np.ptp(one) or not np.ptp(other):
            found.append((float("nan"), float("nan"), float("nan")))
            continue
        r = float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0))
        if n < _FEW:
            found.append((r, -1.0, 1.0))
            continue
        half = Z95 * np.sqrt((1 + r * r / 2 if ranks else 1.0) / (n - 3))
        # ranks that agree wholly have a correlation of 1 however few they are: half a step short of it, the interval tells few from many
        most = 1 - 6 / (n * (n * n - 1)) if ranks else 1 - 1e-15
        centre = np.arctanh(np.clip(r, -most, most))
        found.append((r, min(r, float(np.tanh(centre - half))), max(r, float(np.tanh(centre + half)))))
    (a_value, a_low, a_high), (b_value, b_low, b_high) = found
    return Association(a_value, a_low, a_high, b_value, b_low, b_high, n)


_BLANK = ("", "na", "n/a", "nan", "none", "null", "-")


def read_objectives(path: str | Path) -> tuple[dict[str, Array], list[str] | None]:
    """The columns of a table for `check_mismatch`, NaN where a cell is empty, and the names of its rows where a column of words has them.

    The first column that holds no numbers, or a first column that holds some beside words, is that of the names; all others hold numbers.

    Raises
    ------
    UnreadableSource
        If it is no table (CSV, TSV, JSON lines, JSON, Parquet), or has fewer than two columns of numbers.
    InvalidRecord
        If another column holds something that is no number.
    """
    source = open_source(Path(path), Options())
    if len(source.tables) != 1:
        raise UnreadableSource(
            str(path), f"{len(source.tables)} tables", "Give one file, with a row for each pair of reward model and policy."
        )
    (table,) = source.tables.values()
    records = [(record, line) for batch, lines in table.batches() for record, line in zip(batch, lines, strict=True)]
    columns: dict[str, Array] = {}
    names: list[str] | None = None
    for place, column in enumerate(dict.fromkeys(name for record, _ in records for name in record)):
        cells = [record.get(column) for record, _ in records]
        values = [_number(cell) for cell in cells]
        wrong = [i for i, value in enumerate(values) if value is None]
        if wrong and names is None and (place == 0 or all(value is None or np.isnan(value) for value in values)):
            names = ["" if cell is None else str(cell) for cell in cells]
        elif wrong:
            remedy = "Write a number, or leave it empty; the names of the rows stand in the first column of words."
            raise InvalidRecord(str(path), records[wrong[0]][1], column, cells[wrong[0]], remedy)
        else:
            columns[column] = np.array(values, dtype=np.float64)
    if len(columns) < 2:
        said = f"numbers stand in {counted(len(columns), 'column')} ({', '.join(columns) or 'none'})"
        raise UnreadableSource(str(path), said, "Give two objectives or more, a column each.")
    return columns, names


def _number(cell: object) -> float | None:
    """The number in a cell, NaN where it is empty; None where it is something else."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _BLANK):
        return float("nan")
    try:
        value = float(cell) if isinstance(cell, str | int | float) and not isinstance(cell, bool) else float("inf")
    except ValueError:
        return None
    return None if np.isinf(value) else value


def check_mismatch(table: Mapping[str, Sequence[float] | Array], *, names: Sequence[str] | None = None) -> Findings:
    """Do the objectives go together? One row for each pair of reward model and policy, one column for each objective.

    Parameters
    ----------
    table : by name, (n,) numbers that should rise together, such as accuracy of the reward model, reward that the policy reached, evaluation of the policy;
        NaN where one was not measured. Two columns or more.
    names : (n,) what the rows are called.

    Returns
    -------
    mismatch : the register: in how many pairs of objectives more of one surely goes with more of the other.
    mismatch/A/B : of each pair, Pearson's and Spearman's correlations with intervals, and which row carries Pearson's most. Blocking where more of one surely goes with less of the
        other by both; a warning where it is not sure that they go together by both.

    Raises
    ------
    InvalidSetting
        If there are fewer than two columns, or they differ in length.
    """
    columns = {name: np.asarray(column, dtype=np.float64) for name, column in table.items()}
    if len(columns) < 2:
        raise InvalidSetting("table", list(columns), "Give two objectives or more, a column each.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or (names is not None and len(names) != next(iter(lengths.values()))):
        raise InvalidSetting("table", lengths, "Give each column, and names, a value for each row.")
    found = [_pair(one, other, columns[one], columns[other], names) for one, other in combinations(columns, 2)]
    measured = [f for f in found if f.verdict != "not_applicable"]
    if not measured:
        return Findings(
            (
                Finding.not_applicable("mismatch", "Whether the objectives go together cannot be told.", "No two have 4 rows that vary."),
                *found,
            )
        )
    agree = [f for f in measured if f.verdict == "ok"]
    n_rows = next(iter(lengths.values()))
    register = Finding(
        code="mismatch", estimate=len(agree) / len(measured), n=len(measured), unit="share",
        verdict="ok" if len(agree) == len(measured) else "warning",
        title=f"Of {counted(len(measured), 'pair')} of objectives, measured on {counted(n_rows, 'pair')} of reward model and policy, {len(agree)} surely go together, by value and by rank.",
        reason="A count, which has no interval; each pair has its own.",
        remedy=None if len(agree) == len(measured) else "Choose by the objective that counts, evaluation of the policy; a proxy that does not go with it chooses at random.",
        source="Lambert & Calandra 2023",
        details={"objectives": list(columns), "pairs": [{"code": f.code, **f.details} for f in measured]},
    )  # fmt: skip
    return Findings((register, *found))


def _pair(one: str, other: str, x: Array, y: Array, names: Sequence[str] | None) -> Finding:
    code = f"mismatch/{one}/{other}"
    a = associate(x, y)
    if a.n < _FEW or np.isnan(a.pearson):
        why = f"{counted(a.n, 'row')} have both; an interval takes {_FEW}." if a.n < _FEW else "One of them is the same in all rows."
        return Finding.not_applicable(code, f"Whether {one} goes with {other} cannot be told.", why)
    up, up_ranks = a.pearson_low > 0, a.spearman_low > 0
    down, down_ranks = a.pearson_high < 0, a.spearman_high < 0
    verdict: Verdict = "ok" if up and up_ranks else "blocking" if down and down_ranks else "warning"
    said = (
        f"more {one} goes with more {other}" if verdict == "ok"
        else f"more {one} goes with less {other}" if verdict == "blocking"
        else f"a few rows carry it: by rank {one} says nothing sure of {other}" if up or down
        else f"by value it is not sure that {one} goes with {other}" if up_ranks or down_ranks
        else f"{one} says nothing sure of {other}"
    )  # fmt: skip
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    without = [associate(np.delete(x[rows], i), np.delete(y[rows], i)).pearson for i in range(len(rows))]
    # the row without which the value is furthest from what it is
    far = int(np.nanargmax(np.abs(np.array(without) - a.pearson))) if not np.isnan(without).all() else 0
    called = str(names[rows[far]]) if names is not None else f"row {rows[far]}"
    return Finding(
        code=code, estimate=a.pearson, low=a.pearson_low, high=a.pearson_high, n=a.n, unit="correlation", verdict=verdict, source="Lambert & Calandra 2023",
        title=f"{one[:1].upper()}{one[1:]} and {other}: correlation {_said(a.pearson, a.pearson_low, a.pearson_high)}, of ranks {_said(a.spearman, a.spearman_low, a.spearman_high)}, "
        f"over {a.n}; {said}.",
        reason=f"Pearson's and Spearman's correlation (ties share ranks) with Fisher's intervals, rows taken as independent. Without {called} Pearson's is {without[far]:.2f}.",
        remedy=None if verdict == "ok" else f"Do not choose by {one} where {other} is what counts.",
        details={"pearson": a.pearson, "pearson_low": a.pearson_low, "pearson_high": a.pearson_high, "spearman": a.spearman,
                 "spearman_low": a.spearman_low, "spearman_high": a.spearman_high, "n": a.n, "without": called, "pearson_without": float(without[far])},
    )  # fmt: skip


def _said(value: float, low: float, high: float) -> str:
    return f"{figure(value, None, low, high, decimals=3)} {interval_of(low, high, decimals=2)}"


# ---------------------------------------------------------------------------------------------- by what following leads to


def pair_accuracy(pool: Pool) -> Array:
    """(n_prompts,) share of pairs of a prompt's responses with different gold that the proxy puts in gold's order, equal proxies half; NaN where
    gold is the same for all."""
    shares = np.full(pool.n_prompts, np.nan)
    order = np.argsort(pool.prompt, kind="stable")
    for p, rows in enumerate(np.split(order, np.cumsum(np.bincount(pool.prompt))[:-1])):
        gap, right = (column[rows][:, None] - column[rows] for column in (pool.proxy, pool.gold))
        if (told := right > 0).any():
            shares[p] = ((gap > 0) + 0.5 * (gap == 0))[told].mean()
    return shares


def objectives(pools: Mapping[str, Pool], *, n: int | None = None) -> dict[str, Array]:
    """The three objectives of reward models over the same pools, for `check_mismatch`.

    Parameters
    ----------
    pools : by reward model, pools of the same prompts and gold.
    n : of best-of-n, the policy that follows each; the fewest responses that a prompt has where not given.

    Returns
    -------
    accuracy : (k,) of the reward model, on pairs within prompts, which count alike.
    climbed : (k,) reward that the policy gains over the start, in standard deviations of the reward within prompts.
    evaluation : (k,) gold that it gains.
    usefulness : (k,) what it gains as a share of what following gold gains (the normalised drop ratio; 1 less the regret).
    """
    followed = _followed(pools, n)
    columns: dict[str, list[float]] = {"accuracy": [], "climbed": [], "evaluation": [], "usefulness": []}
    for name, pool in pools.items():
        policy = followed[name]
        counts = np.bincount(pool.prompt)
        start = np.bincount(pool.prompt, pool.proxy) / counts
        spread = np.sqrt(((pool.proxy - start[pool.prompt]) ** 2).mean())
        columns["accuracy"].append(float(np.nanmean(pair_accuracy(pool))))
        columns["climbed"].append(float((policy.proxy[:, -1] - start).mean() / spread) if spread > 0 else 0.0)
        columns["evaluation"].append(float((policy.gold[:, -1] - policy.start).mean()))
        columns["usefulness"].append(1 - float(policy.regret()[-1]))
    return {name: np.array(column) for name, column in columns.items()}


def _usual(pools: Mapping[str, Pool]) -> tuple[Mapping[str, Pool], int]:
    """The same without the prompts that have fewer responses than usual, and how many these are."""
    sizes = np.bincount(next(iter(pools.values())).prompt) if pools else np.zeros(0, dtype=np.int64)
    if not len(sizes) or any(len(np.bincount(pool.prompt)) != len(sizes) for pool in pools.values()):
        return pools, 0  # said by `_followed`
    kept = sizes >= usual_size(sizes)
    return {name: pool.only(kept) for name, pool in pools.items()}, int((~kept).sum())


def _followed(pools: Mapping[str, Pool], n: int | None) -> dict[str, Policies]:
    if not pools:
        raise InvalidSetting("pools", {}, "Give a pool for each reward model.")
    first = next(iter(pools.values()))
    for name, pool in pools.items():
        if pool.n_prompts != first.n_prompts or len(pool.gold) != len(first.gold) or not np.array_equal(pool.gold, first.gold):
            raise InvalidSetting(f"pools[{name!r}]", f"{pool.n_prompts} prompts", "Give pools of the same prompts, responses and gold.")
    most = int(np.bincount(first.prompt).min())
    return {name: best_of_n(pool, [1, n or most]) for name, pool in pools.items()}


def rank_rewards(pools: Mapping[str, Pool], *, n: int | None = None, unit: str = "units", seed: int = 0) -> Findings:
    """Reward models by what following them leads to, with intervals; not by their accuracy.

    Parameters
    ----------
    pools : by reward model, pools of the same prompts and gold with its rewards as the proxy.
    n : of best-of-n; the fewest responses that a prompt has where not given.
    unit : of gold.

    Returns
    -------
    usefulness : the most useful reward model, what it gains, how sure it is that it is the most useful, and what choosing by accuracy would forgo.
    usefulness/NAME : of each, in order: the gold that best-of-n by it gains over the start, beside its accuracy and its regret.

    Raises
    ------
    InvalidSetting
        If the pools are not of the same prompts, responses and gold.
    """
    pools, left_out = _usual(pools) if n is None else (pools, 0)
    followed = _followed(pools, n)
    names = list(pools)
    strength = int(next(iter(followed.values())).strength[-1])
    gains = np.stack([followed[name].gold[:, -1] - followed[name].start for name in names])
    right = np.stack([pair_accuracy(pools[name]) for name in names])
    n_prompts = gains.shape[1]
    if n_prompts < _FEW_PROMPTS:
        why = f"There are {counted(n_prompts, 'prompt')}; an interval takes {_FEW_PROMPTS}."
        return Findings((Finding.not_applicable("usefulness", "Which reward model is most useful cannot be told.", why),))
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, n_prompts, (_DRAWS, n_prompts))
    drawn = np.stack([gains[:, rows].mean(1) for rows in draws])
    gain, accuracy = gains.mean(1), np.nanmean(right, axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    accurate = np.array([np.nanmean(right[:, rows], axis=1) for rows in draws])
    accuracy_low, accuracy_high = np.nanquantile(accurate, [0.025, 0.975], axis=0)
    top = np.bincount(drawn.argmax(1), minlength=len(names)) / _DRAWS
    order = np.argsort(-gain, kind="stable")
    best, favourite = int(order[0]), int(accuracy.argmax())
    forgone = drawn[:, best] - drawn[:, favourite]
    lost = (float(gain[best] - gain[favourite]), float(np.quantile(forgone, 0.025)), float(np.quantile(forgone, 0.975)))
    rows = [
        {"reward": names[k], "gain": float(gain[k]), "low": float(low[k]), "high": float(high[k]), "most_useful": float(top[k]), "accuracy": float(accuracy[k]),
         "accuracy_low": float(accuracy_low[k]), "accuracy_high": float(accuracy_high[k]), "regret": float(followed[names[k]].regret()[-1])}
        for k in order
    ]  # fmt: skip
    said = f"{figure(float(gain[best]), None, low[best], high[best])} {interval_of(low[best], high[best])} {unit}"
    clear = best != favourite and lost[1] > 0
    by_accuracy = (
        "It is the most accurate as well." if best == favourite
        else f"The most accurate, {names[favourite]} ({accuracy[favourite]:.1%} of pairs against {accuracy[best]:.1%}), gains {lost[0]:.2f} {interval_of(lost[1], lost[2], decimals=2)} less."
    )  # fmt: skip
    headline = Finding(
        code="usefulness", estimate=float(gain[best]), low=float(low[best]), high=float(high[best]), n=n_prompts, unit=unit,
        verdict="blocking" if high[best] <= 0 else "warning" if clear or low[best] <= 0 else "ok",
        title=f"Of {counted(len(names), 'reward model')}, {names[best]} is the most useful: best of {strength} by it gains {said}, and it comes first in {top[best]:.0%} of resamples. {by_accuracy}",
        reason="Gold of what best-of-n chooses, above that of a response drawn at random; bootstrap over prompts, which are n and the same for all. The first of several is first "
        f"partly by luck: its own interval is too high, its share of resamples says how sure the order is.{f' {left_out} prompts with fewer responses left out.' if left_out else ''}",
        remedy="Optimise against none of them." if high[best] <= 0 else f"Choose {names[best]}, not {names[favourite]}." if clear else None,
        source="Wen et al. 2024", details={"rewards": rows, "n": strength, "forgone": lost[0], "forgone_low": lost[1], "forgone_high": lost[2]},
    )  # fmt: skip
    each = [
        Finding(
            code=f"usefulness/{row['reward']}", estimate=row["gain"], low=row["low"], high=row["high"], n=n_prompts, unit=unit, verdict="blocking" if row["high"] < 0 else "ok",
            title=f"{place}. {row['reward']}: best of {strength} gains {figure(row['gain'], None, row['low'], row['high'])} {interval_of(row['low'], row['high'])} {unit}, regret "
            f"{row['regret']:.2f}; right in {row['accuracy']:.1%} of pairs.",
            reason="As above.", remedy="Following it does harm." if row["high"] < 0 else None, details=row,
        )
        for place, row in enumerate(rows, start=1)
    ]  # fmt: skip
    return Findings((headline, *each))
