"""What other people would have decided: the counterfactual jury, and juries of a few drawn from many.

A reward learnt from a pool decides for everyone as the pool would. `counterfactual_juries` learns it again from other pools and counts
the decisions that flip, beside those that flip when as many raters are drawn from everyone by lot: two pools that think alike flip as
many as that, and only what is more has to do with who was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from seamark.aggregation.population import effective_size
from seamark.errors import InvalidSetting
from seamark.models.observation import Observation
from seamark.models.people import Same
from seamark.models.resampling import reweigh
from seamark.models.utility import Utility
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Jury:
    """What one pool would have decided otherwise than everyone."""

    pool: str
    n_raters: int
    """Raters with a weight above 0."""
    effective: float
    """Kish's size of the weights."""
    n_decisions: int
    """Pairs of responses that somebody of the pool judged."""
    flipped: float
    """Share of them in which the pool prefers the other response than everyone does."""
    by_lot: float
    """The same for as many raters, weighed alike, drawn from everyone by lot: what flips because fewer were asked, or others."""
    by_lot_high: float
    """95% quantile of the draws."""
    beyond: float
    """flipped - by_lot: what flips because of who was asked."""
    low: float
    high: float
    """95% interval of `beyond`: over prompts, which are what the decisions are drawn from, and over the luck of who was asked."""
    p: float
    """Permutation test of pools that think alike: how often a draw flips as many."""
    p_floor: float
    """The least that so many draws can show."""
    n_winners: int
    """Prompts of which the pool judged two responses or more."""
    winners_flipped: float
    """Share of them in which another of the responses that the pool judged is the best; NaN without any."""
    winners_by_lot: float
    pairs: pl.DataFrame
    """left, right (codes of responses), prompt, flipped (null where the pool did not judge the pair), by_lot (share of draws)."""

    def __str__(self) -> str:
        return (
            f"{self.pool}: {self.flipped:.1%} of {self.n_decisions:,} pairs flip, {self.by_lot:.1%} by lot; beyond that "
            f"{self.beyond:+.1%} [{self.low:+.1%}, {self.high:+.1%}], p = {self.p:.3g} (no less than {self.p_floor:.3g} can be shown)"
        )


def other_pools(raters: pl.DataFrame, column: str, *, min_raters: int = 5) -> dict[str, Array]:
    """Pools to ask in place of everyone, as weights (n_raters,): each level of a column alone and left out, and all levels alike.

    Raises
    ------
    InvalidSetting
        If fewer than two levels have `min_raters` raters.
    """
    if column not in raters.columns:
        raise InvalidSetting("column", column, f"The raters have {', '.join(raters.columns)}.")
    given = raters[column].cast(pl.String)
    count = given.drop_nulls().value_counts(sort=True)
    levels = sorted(count.filter(pl.col("count") >= min_raters)[column].to_list())
    if len(levels) < 2:
        raise InvalidSetting("column", column, f"Fewer than two of its levels have {min_raters} raters.")
    one = {level: (given == level).fill_null(value=False).to_numpy().astype(float) for level in levels}
    alike = np.sum([mine / mine.sum() for mine in one.values()], axis=0)
    pools = {f"only {level}": mine for level, mine in one.items()}
    known = given.is_not_null().to_numpy().astype(float)
    if len(one) > 2:  # of two, what is left is the other
        pools |= {f"without {level}": known - mine for level, mine in one.items()}
    return pools | {"all alike": alike * (alike > 0).sum() / alike.sum()}


def counterfactual_juries(
    feedback: Feedback,
    pools: Mapping[str, Array],
    *,
    utility: Utility | None = None,
    observation: Observation | None = None,
    draws: int = 99,
    seed: int = 0,
) -> tuple[Jury, ...]:
    """What each pool would have decided, had the reward been learnt from it: one utility for all, as a reward model has.

    Every pool is fitted again with its raters' weights, and so are `draws` of the same weights dealt to raters by lot. A pair
    is a decision where responses were compared (or are of one prompt) and somebody with a weight judged one of them against another;
    the prompt's winner is the best of those that the pool judged.

    Parameters
    ----------
    pools : per name, (n_raters,) weights of the feedback's raters, such as `Weights.values` or those of `other_pools`.

    Raises
    ------
    InvalidSetting
        If weights are of another length, or there is nothing to decide.

    Source: the question is Kirk et al. 2024 (PRISM) section 4; the reference by lot is a permutation test (Fisher 1935).
    """
    if draws < 9:
        raise InvalidSetting("draws", draws, "With fewer than 9 draws nothing can be told from luck.")
    left, right, prompt, judged = _decisions(feedback)
    n = feedback.n_raters
    for name, weights in pools.items():
        if weights.shape != (n,):
            raise InvalidSetting(f"pools[{name!r}]", weights.shape, f"Give a weight for each of the {n} raters.")
    rng = np.random.default_rng(seed)
    asked = (np.bincount(feedback.judgments["rater"].drop_nulls().cast(pl.Int64), minlength=n) > 0).nonzero()[0]
    dealt: list[Array] = [np.ones((1, n))]
    for weights in pools.values():
        by_lot = np.zeros((draws, n))
        for row in by_lot:
            row[asked] = rng.permutation(weights[asked])
        dealt.append(np.vstack([weights, by_lot]))
    found = reweigh(
        feedback, np.vstack(dealt), utility=utility, people=Same(), observation=observation, require_identified=False, seed=seed
    ).utilities
    everyone, rest = found[0], found[1:]
    out: list[Jury] = []
    for i, (name, weights) in enumerate(pools.items()):
        mine = slice(i * (draws + 1), (i + 1) * (draws + 1))
        counted = (judged.T @ (dealt[i + 1] > 0).T.astype(float) > 0).T  # (1 + draws, pairs)
        flips = ((rest[mine][:, left] > rest[mine][:, right]) != (everyone[left] > everyone[right])) & counted
        best, told = _winners(everyone, rest[mine], left, right, prompt, counted)
        out.append(_jury(name, weights[asked], flips, counted, best, told, (left, right, prompt)))
    return tuple(out)


def _decisions(feedback: Feedback) -> tuple[Codes, Codes, Codes, csr_array]:
    """Pairs of responses that were judged together, their prompt (-1: none), and who judged each: (n_raters, pairs)."""
    frame = feedback.judgments.select(pl.col("rater").cast(pl.Int64), "responses").drop_nulls("rater").with_row_index("row")
    shown = frame.filter(pl.col("responses").list.len() > 1).explode("responses").with_columns(pl.col("responses").cast(pl.Int64))
    pairs = shown.join(shown, on="row").filter(pl.col("responses") < pl.col("responses_right"))
    found = pairs.select("rater", left="responses", right="responses_right").unique(maintain_order=True)
    each = found.select("left", "right").unique(maintain_order=True).with_row_index("pair")
    if each.height == 0:
        raise InvalidSetting("feedback", repr(feedback), "No known rater compared two responses, so there is nothing to decide.")
    code = found.join(each, on=["left", "right"], how="left")
    at = (code["rater"].to_numpy(), code["pair"].cast(pl.Int64).to_numpy())
    judged = csr_array((np.ones(len(code)), at), shape=(feedback.n_raters, each.height))
    left, right = each["left"].to_numpy(), each["right"].to_numpy()
    prompt = feedback.responses["prompt"].cast(pl.Int64).fill_null(-1).to_numpy()
    return left, right, np.where(prompt[left] == prompt[right], prompt[left], -1), judged


def _winners(
    everyone: Array, rest: Array, left: Codes, right: Codes, prompt: Codes, counted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(rounds, prompts) whether another response is the best of those judged, and whether any were."""
    names, place = np.unique(prompt, return_inverse=True)
    flips, told = np.zeros((len(rest), len(names)), dtype=bool), np.zeros((len(rest), len(names)), dtype=bool)
    for r in range(len(rest)):
        use = counted[r]
        option = np.concatenate([left[use], right[use]])
        of = np.concatenate([place[use], place[use]])
        first = []
        for values in (everyone, rest[r]):
            order = np.lexsort((-values[option], of))
            head = np.unique(of[order], return_index=True)[1]
            first.append(option[order][head])
        here = np.unique(of)
        told[r, here], flips[r, here] = True, first[0] != first[1]
    return flips, told & (names != -1)


def _jury(
    name: str,
    weights: Array,
    flips: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    best: NDArray[np.bool_],
    told: NDArray[np.bool_],
    pairs: tuple[Codes, Codes, Codes],
) -> Jury:
    left, right, prompt = pairs
    own, n = counted[0], int(counted[0].sum())
    if n == 0:
        raise InvalidSetting("pools", name, "Nobody in it compared two responses.")
    rates = flips.sum(1) / np.maximum(counted.sum(1), 1)
    times = counted[1:].sum(0)
    by_lot = np.divide(flips[1:].sum(0), times, out=np.zeros(len(times)), where=times > 0)
    # decisions of a prompt stand and fall together; a pair that has no prompt is one of its own
    beyond = flips[0, own] - by_lot[own]
    unit = np.unique(np.where(prompt[own] >= 0, prompt[own], -2 - np.arange(n)), return_inverse=True)[1]
    k = int(unit.max()) + 1
    centred = np.bincount(unit, weights=beyond - beyond.mean(), minlength=k)
    over_prompts = float((centred**2).sum()) / n**2 * k / max(k - 1, 1)
    # a single prompt says nothing of how others would have gone
    half = _Z95 * float(np.sqrt(over_prompts + rates[1:].var(ddof=1))) if k > 1 else 1.0
    draws = len(flips) - 1
    mean = float(beyond.mean())
    winners = int(told[0].sum())
    later = told[1:].sum()
    frame = pl.DataFrame({"left": left, "right": right, "prompt": prompt, "flipped": flips[0], "judged": own, "by_lot": by_lot})
    frame = frame.with_columns(pl.when("judged").then("flipped").alias("flipped"), pl.col("prompt").replace(-1, None)).drop("judged")
    return Jury(
        name, int((weights > 0).sum()), effective_size(weights), n, float(rates[0]), float(by_lot[own].mean()),
        float(np.quantile(rates[1:], 0.95)), mean, mean - half, mean + half, (1 + int((rates[1:] >= rates[0]).sum())) / (draws + 1), 1 / (draws + 1),
        winners, float(best[0][told[0]].mean()) if winners else float("nan"), float(best[1:][told[1:]].mean()) if later else float("nan"), frame,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- a few of many


def jury_sizes(
    utilities: Array,
    sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100),
    *,
    pool: Array | None = None,
    population: Array | None = None,
    juries: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """What juries of n raters are worth: each chooses the option it rates best on average, and everyone lives with it.

        welfare = sum_i w_i u_i(a), a = argmax_a mean over the jury of u(a)

    Parameters
    ----------
    utilities : (n_raters, n_options), in any unit; NaN where a rater did not rate an option, who then does not count for it.
    pool : (n_raters,) chance of being drawn, up to a factor; equal when None. Members of one jury are drawn without replacement.
    population : (n_raters,) w, how much each counts in the welfare, as `Weights.values`; equal when None.

    Returns
    -------
    size, welfare (mean over juries) with low and high (95%, of the Monte Carlo mean), p5 and p95 (of single juries), best (welfare of the
    best option), regret (best - welfare), n (juries).

    Raises
    ------
    InvalidSetting
        If a size is larger than the pool, weights are of another length or negative, or an option was rated by nobody that counts.

    Source: Kirk et al. 2024 (PRISM): "whose welfare", juries drawn from a population.
    """
    if utilities.ndim != 2 or utilities.shape[1] < 2 or juries < 2:
        raise InvalidSetting("utilities", utilities.shape, "Give (n_raters, n_options) of two options or more, and two juries or more.")
    n = len(utilities)
    pool, population = (np.ones(n) if w is None else w for w in (pool, population))
    for name, weights in {"pool": pool, "population": population}.items():
        if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
            raise InvalidSetting(name, weights.shape, f"Give {n} weights that are 0 or more.")
    there = np.flatnonzero(pool > 0)
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= len(there):
        raise InvalidSetting("sizes", sizes, f"Use 1 to {len(there)}, the raters of the pool.")
    rated = np.isfinite(utilities)
    given = np.where(rated, utilities, 0.0)
    weight = population @ rated
    if (weight <= 0).any():
        raise InvalidSetting("utilities", int(np.flatnonzero(weight <= 0)[0]), "Nobody of the population rated this option.")
    welfare = population @ given / weight
    rng = np.random.default_rng(seed)
    # the largest of log w + Gumbel are a draw without replacement with chances w (Efraimidis & Spirakis 2006)
    keys = np.log(pool[there]) + rng.gumbel(size=(juries, len(there)))
    order = there[np.argsort(-keys, axis=1)[:, : max(sizes)]]
    rows: list[dict[str, float]] = []
    for size in sizes:
        total, count = given[order[:, :size]].sum(1), rated[order[:, :size]].sum(1)
        said = np.divide(total, count, out=np.full(total.shape, -np.inf), where=count > 0)
        top = said == said.max(1, keepdims=True)
        # a jury that is of two minds draws lots, and so does one that rated nothing
        got = (top @ welfare) / top.sum(1)
        half = _Z95 * float(got.std(ddof=1)) / np.sqrt(juries)
        mean = float(got.mean())
        low, high = np.quantile(got, [0.05, 0.95])
        rows.append(
            {"size": size, "welfare": mean, "low": mean - half, "high": mean + half, "p5": float(low), "p95": float(high),
             "best": float(welfare.max()), "regret": float(welfare.max()) - mean, "n": juries}
        )  # fmt: skip
    return pl.DataFrame(rows)
