"""Over-optimisation with a shortcut that pays up to a point: who survives it, and who sees it coming.

    python benchmarks/over_optimisation.py --worlds 200             prints the tables (about half an hour on two cores)
    python benchmarks/over_optimisation.py --worlds 200 --write     and writes them to docs/
    python benchmarks/over_optimisation.py --worlds 40 --set        the worlds that thresholds were set on, seeds and families of their own

A world (`seamark.simulation.overoptimisation`) has 2,000 pairs to learn from and a quarter of a million responses to draw best-of-n from, n up to 4,096.
It has a *hump* where gold under the plain linear reward peaks at n >= 16 and then loses more than 5% of what it had gained; it has *none* where
gold never loses more than 1%. Worlds between are drawn and left out, and counted; so are those that peak before 16. Worlds are taken in the
order of their seeds until there are enough, the families in turn. One family, stuffing, was never looked at when anything was set.

Rewards: linear in the features (single; five bootstrap members: mean, worst case, mean less half the variance, Coste et al. 2023), and
Seamark's likelihood with bends: each feature a line and hinges at training quantiles, each feature's bends with a prior strength of their own,
estimated. Penalised is that less one posterior standard deviation, the charter's default; stopped: and no further than its own alarm says.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

import seamark as sm
from seamark.intervals import wilson
from seamark.models.people import Factor
from seamark.models.utility import KNOTS, Basis, hinges_of
from seamark.reward.alarm import RAISED, Alarm, drift, first_above, forecast_means, growth, outlier_index, residual_growth
from seamark.reward.policies import Pool, best_of_n_shares
from seamark.simulation.overoptimisation import FAMILIES, Family, ShortcutWorld, draw_shortcut_world

Array = NDArray[np.float64]

N = tuple(2**k for k in range(13))
HELD_OUT: Family = "stuffing"
_SEED = 10_000
_SEED_TO_SET = 1_000
_MEMBERS, _DRAWS = 5, 400
PEERS = ("single", "mean", "worst case", "variance")
OURS = ("bends", "half penalised", "penalised", "stopped")


# ---------------------------------------------------------------------------------------------- rewards


@dataclass(frozen=True)
class Bends:
    """Lines and hinges of numbers, made from training responses.

    Unlike `Linear(bends=True)`, a hinge may stand at the least that was seen, as it does in counts of which more than one in fifty are 0: a second line, with
    a prior of its own. The figures on the page were made with it.
    """

    mean: Array
    sd: Array
    knots: tuple[Array, ...]
    centre: Array

    @staticmethod
    def of(features: Array) -> Bends:
        mean, sd = features.mean(0), features.std(0)
        knots = tuple(np.unique(np.quantile((features[:, j] - mean[j]) / sd[j], KNOTS)) for j in range(features.shape[1]))
        plain = Bends(mean, sd, knots, np.zeros(sum(map(len, knots))))
        return Bends(mean, sd, knots, plain.columns(features)[:, len(mean) :].mean(0))

    def columns(self, features: Array) -> Array:
        z = (features - self.mean) / self.sd
        return np.hstack([z, hinges_of(z, self.knots) - self.centre])

    @property
    def parts(self) -> tuple[tuple[str, slice], ...]:
        ends = np.cumsum([len(self.mean), *map(len, self.knots)])
        names = ("lines", *(f"bends{j}" for j in range(len(self.knots))))
        return tuple(
            (name, slice(int(end - n), int(end))) for name, end, n in zip(names, ends, [len(self.mean), *map(len, self.knots)], strict=True)
        )


@dataclass(frozen=True)
class Given:
    """A utility linear in given columns; responses are named by their row."""

    columns: Array
    parts: tuple[tuple[str, slice], ...]

    def prepare(self, feedback: sm.Feedback) -> Basis:
        rows = feedback.responses["name"].cast(pl.Int64).to_numpy()
        return Basis(len(rows), self.columns[rows], self.parts, response_ids=tuple(feedback.responses["id"].to_list()))

    def factors(self, feedback: sm.Feedback) -> tuple[Factor, ...]:
        del feedback
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Given"}


def fit_bends(world: ShortcutWorld, bends: Bends) -> tuple[Array, Array]:
    """(P,) posterior mean and (P, S) factor of the posterior covariance of the weights, by Seamark's likelihood."""
    rows = np.arange(len(world.features))
    feedback = sm.Feedback.from_arrays(left_id=rows[::2], right_id=rows[1::2], outcome=world.won)
    columns = bends.columns(world.features)
    fitted = sm.fit(feedback, utility=Given(columns, bends.parts), people=sm.Same(), observation=sm.Observation(effects=()))
    P = columns.shape[1]
    return np.asarray(fitted.weights).ravel()[:P], np.asarray(fitted.factor)[:P]


def fit_linear(gaps: Array, won: NDArray[np.bool_], weight: Array | None = None) -> Array:
    """(P,) Bradley & Terry's fit by logistic regression, with a ridge of .01."""
    weight = np.ones(len(won)) if weight is None else weight
    sign = np.where(won, 1.0, -1.0)

    def loss(b: Array) -> tuple[float, Array]:
        m = sign * (gaps @ b)
        return float((weight * np.logaddexp(0, -m)).sum() + 0.005 * b @ b), -gaps.T @ (weight * sign * expit(-m)) + 0.01 * b

    return minimize(loss, np.zeros(gaps.shape[1]), jac=True, method="L-BFGS-B").x


# ---------------------------------------------------------------------------------------------- one world


def hump(gain: Array) -> str:
    """What gold does under the plain reward, (K,) above the start."""
    peak = int(gain.argmax())
    lost = (gain[peak] - gain[-1]) / max(gain[peak], 1e-12)
    if lost < 0.01:
        return "none"
    return "early" if N[peak] < 16 else "hump" if lost > 0.05 else "between"


@lru_cache(maxsize=1)
def by_rank(n_pool: int) -> Array:
    """(n_pool, K) how often best-of-n gives the response of each rank, the worst first: rewards of worlds are never equal."""
    rank = np.arange(n_pool)
    return best_of_n_shares(Pool.of(np.zeros(n_pool), rank, rank), N)


Task = tuple[Family, int, bool, int, tuple[str, ...]]
"""Family, seed, whether the shortcut is inside the training support, size of the pool, and the kinds of worlds that are still wanted."""


def run_world(task: Task) -> dict[str, Any]:
    """Gold along best-of-n under each reward, and what each signal says without it; of a world that is not wanted, its kind alone."""
    family, seed, inside, n_pool, wanted = task
    world = draw_shortcut_world(family, seed=seed, inside=inside, n_pool=n_pool)
    bends = Bends.of(world.features)
    lines, pool = ((f - bends.mean) / bends.sd for f in (world.features, world.pool))
    gaps = lines[::2] - lines[1::2]
    rng = np.random.default_rng([seed, 1])
    single = fit_linear(gaps, world.won)

    ranked = by_rank(n_pool)

    def along(proxy: Array) -> Array:
        return ranked.T @ world.gold[np.argsort(proxy)]

    curves = {"single": along(pool @ single)}
    kind = hump(curves["single"] - curves["single"][0])
    out: dict[str, Any] = {"family": family, "seed": seed, "inside": inside, "kind": kind}
    if kind not in wanted:
        return out
    weights = [rng.multinomial(len(gaps), np.full(len(gaps), 1 / len(gaps))).astype(float) for _ in range(_MEMBERS)]
    members = pool @ np.stack([fit_linear(gaps, world.won, w) for w in weights], 1)
    spread = members.std(1)
    for name, proxy in zip(PEERS[1:], (members.mean(1), members.min(1), members.mean(1) - 0.5 * spread**2), strict=True):
        curves[name] = along(proxy)
    start = time.perf_counter()
    mean, factor = fit_bends(world, bends)
    out["fit_s"] = time.perf_counter() - start
    draws = mean[:, None] + factor @ np.random.default_rng([seed, 2]).normal(size=(factor.shape[1], _DRAWS))
    chosen, columns = np.empty_like(ranked), bends.columns(world.pool)
    chosen[np.argsort(pool @ single)] = ranked
    reward, sd = columns @ mean, np.sqrt(((columns @ factor) ** 2).sum(1))
    curves |= {"bends": along(reward), "half penalised": along(reward - sd / 2), "penalised": along(reward - sd)}
    alarm = forecast_means((chosen.T @ columns) @ draws, least=2)
    own = np.empty_like(ranked)
    own[np.argsort(reward - sd)] = ranked
    stop = forecast_means((own.T @ columns) @ draws, least=2)
    at = len(N) - 1 if stop.at is None else stop.at
    curves["stopped"] = np.r_[curves["penalised"][: at + 1], np.full(len(N) - 1 - at, curves["penalised"][at])]
    out |= {
        "curves": {name: (c - c[0]).tolist() for name, c in curves.items()},
        "alarm": _alarm(alarm),
        "signals": {
            "ignorance": growth(chosen, sd).tolist(),
            "ensemble spread": growth(chosen, spread).tolist(),
            "outlier index": outlier_index(chosen, pool, lines).tolist(),
            "feature drift": drift(chosen, pool).tolist(),
            "residuals by reward": residual_growth(
                chosen, pool @ single, pair=np.column_stack([lines[::2] @ single, lines[1::2] @ single]), won=world.won
            ).tolist(),
        },
        "right": float(np.mean((gaps @ single > 0) == world.won)),
    }
    return out


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {"fall": alarm.fall, "at": alarm.at, "raised": alarm.raised}


# ---------------------------------------------------------------------------------------------- many worlds

SET_THRESHOLDS = {
    "ignorance": 30.9, "ensemble spread": 8.69, "outlier index": 24.0, "feature drift": 4.17, "residuals by reward": 1.64,
}  # fmt: skip
"""Where each signal counts as an alarm: the 95% quantile of its highest value in worlds without a hump, as --set prints it (63 of these)."""


def draw_worlds(
    n: int, *, families: Sequence[Family], seed: int, inside: bool = True, n_pool: int = 2**18, processes: int = 2, kept: Path | None = None
) -> list[dict[str, Any]]:
    """All worlds up to those that make n with a hump and n without; what an earlier run has drawn is read from `kept`."""
    found = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept and kept.exists() else []
    numbers = ((family, seed + k) for k in count() for family in families)
    done = [next(numbers) for _ in found]
    assert done == [(w["family"], w["seed"]) for w in found], f"{kept} holds other worlds: delete it"
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        while wanted := tuple(kind for kind in ("hump", "none") if sum(w["kind"] == kind for w in found) < n):
            batch: list[Task] = [(*next(numbers), inside, n_pool, wanted) for _ in range(4 * processes)]
            for world in pool.imap(run_world, batch):
                found.append(world)
                if kept:
                    kept.parent.mkdir(exist_ok=True)
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(world) + "\n")
            kinds = {kind: sum(w["kind"] == kind for w in found) for kind in ("hump", "none", "between", "early")}
            print(f"\r{len(found)} worlds: {kinds}   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def first(found: Sequence[dict[str, Any]], kind: str, n: int) -> list[dict[str, Any]]:
    return [w for w in found if w["kind"] == kind][:n]


def thresholds(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The 95% quantile, over worlds without a hump, of each signal's highest value; and of the probability of a fall."""
    none = [w for w in found if w["kind"] == "none"]
    highest = {name: [max(w["signals"][name]) for w in none] for name in SET_THRESHOLDS} | {"fall": [w["alarm"]["fall"] for w in none]}
    return {name: float(np.quantile(values, 0.95)) for name, values in highest.items()}


def share(hits: Sequence[bool]) -> str:
    k, n = sum(hits), len(hits)
    low, high = wilson(k, n)
    return f"{k / n:.1%} [{100 * low:.0f}, {100 * high:.0f}]" if n else "-"


def survival(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """For each reward: how often gold at the end is within 1% of its own peak, and at least 90% of the best peer's peak; both; medians."""
    rows: list[tuple[str, ...]] = []
    for name in (*PEERS, *OURS, "constant"):
        curves = [np.zeros(len(N)) if name == "constant" else np.array(w["curves"][name]) for w in found]
        best = [max(max(w["curves"][peer]) for peer in PEERS) for w in found]
        kept = [bool(c[-1] >= 0.99 * c.max()) for c in curves]
        much = [bool(c[-1] >= 0.9 * b) for c, b in zip(curves, best, strict=True)]
        both = [k and m for k, m in zip(kept, much, strict=True)]
        of_best = np.median([c[-1] / b for c, b in zip(curves, best, strict=True)])
        worst = np.quantile([c[-1] / b for c, b in zip(curves, best, strict=True)], 0.05)
        rows.append((name, share(kept), share(much), share(both), f"{of_best:.2f}", f"{worst:.2f}"))
    return rows


def alarms(humps: Sequence[dict[str, Any]], nones: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """For each alarm: how often it goes off after n = 2 and before the peak, how far before, and how often where there is no hump."""

    def at(world: dict[str, Any], name: str) -> int | None:
        if name == "always":
            return 2
        if name == "never":
            return None
        return world["alarm"]["at"] if name == "forecast" else first_above(world["signals"][name], SET_THRESHOLDS[name])

    rows: list[tuple[str, ...]] = []
    for name in ("forecast", *SET_THRESHOLDS, "always", "never"):
        peaks = [int(np.argmax(w["curves"]["single"])) for w in humps]
        gone = [at(w, name) for w in humps]
        timely = [g is not None and 1 < g < peak for g, peak in zip(gone, peaks, strict=True)]
        lead = [peak - g for g, peak, ok in zip(gone, peaks, timely, strict=True) if ok and g is not None]
        late = [g is not None and g >= peak for g, peak in zip(gone, peaks, strict=True)]
        false = [at(w, name) is not None for w in nones]
        rows.append((name, share(timely), share(late), f"{np.median(lead):.0f} doublings" if lead else "-", share(false)))
    return rows


def tables(found: Sequence[dict[str, Any]], n: int, outside: Sequence[dict[str, Any]], n_outside: int) -> str:
    humps, nones = first(found, "hump", n), first(found, "none", n)
    lines: list[str] = []

    def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines.extend(
            ["", title, "", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]
        )

    drawn = {kind: sum(w["kind"] == kind for w in found) for kind in ("hump", "none", "between", "early")}
    lines.append(
        f"{len(found)} worlds drawn: {drawn['hump']} with a hump, {drawn['none']} without, {drawn['between']} between, {drawn['early']} that peak "
        f"before n = 16. The first {len(humps)} and {len(nones)} count. Shares with 95% intervals over worlds. Held out, never looked at "
        f"when thresholds were set: {HELD_OUT}."
    )
    header = ("reward", "within 1% of its own peak", "90% of the best peer's peak", "both", "median of that", "worst twentieth")
    table(f"Gold at n = 4,096, {len(humps)} worlds with a hump", header, survival(humps))
    table(f"Gold at n = 4,096, {len(nones)} worlds without", header, survival(nones))
    table(f"The same, all {len(humps) + len(nones)}", header, survival([*humps, *nones]))
    own = [[w for w in ws if w["family"] == HELD_OUT] for ws in (humps, nones)]
    if all(own):
        table(f"The same, the {sum(map(len, own))} worlds of the family held out", header, survival([*own[0], *own[1]]))
    columns = ("alarm", "after n = 2 and before the peak", "too late", "lead (median)", "false, without a hump")
    table("Alarms on the plain linear reward", columns, alarms(humps, nones))
    if all(own):
        table("The same, the family held out", columns, alarms(*own))
    if outside:
        far = first(outside, "hump", n_outside), first(outside, "none", n_outside)
        table(
            f"Shortcut beyond what anyone was asked about: {len(far[0])} worlds with a hump, {len(far[1])} without",
            header,
            survival([*far[0], *far[1]]),
        )
        table("Alarms there", columns, alarms(*far))
    fits = [w["fit_s"] for w in found if "fit_s" in w]
    lines += [
        "",
        f"A fit with bends takes {np.median(fits):.2f} s (median). The plain reward is right about {np.mean([w['right'] for w in humps]):.1%} of its pairs.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--outside", type=int, default=0, help="worlds of either kind with the shortcut outside the training support")
    parser.add_argument("--set", action="store_true", help="draw the worlds on which thresholds are set, and print these")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pool", type=int, default=2**18)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    results = Path(__file__).parent / "results"
    options: dict[str, Any] = {"processes": asked.processes, "n_pool": asked.pool}
    if asked.set:
        families = tuple(f for f in FAMILIES if f != HELD_OUT)
        found = draw_worlds(asked.worlds, families=families, seed=_SEED_TO_SET, kept=results / "over_optimisation_set.jsonl", **options)
        print(json.dumps({name: round(value, 3) for name, value in thresholds(found).items()}, indent=1))
        print(f"RAISED is {RAISED}")
        print(tables(found, asked.worlds, [], 0))
        return
    found = draw_worlds(asked.worlds, families=FAMILIES, seed=_SEED, kept=results / "over_optimisation.jsonl", **options)
    outside: list[dict[str, Any]] = []
    if asked.outside:
        outside = draw_worlds(
            asked.outside, families=FAMILIES, seed=_SEED, inside=False, kept=results / "over_optimisation_outside.jsonl", **options
        )
    text = tables(found, asked.worlds, outside, asked.outside)
    print(text)
    if asked.write:
        page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- over_optimisation -->\n")
        _, _, after = rest.partition("<!-- /over_optimisation -->")
        page.write_text(f"{before}<!-- over_optimisation -->\n{text}\n<!-- /over_optimisation -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
