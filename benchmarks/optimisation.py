"""What becomes of rewards when policies follow them, on real answers: regret by the ratings themselves, and by a second signal without them.

    SEAMARK_TEST_DATA=... python benchmarks/optimisation.py            prints the table
    SEAMARK_TEST_DATA=... python benchmarks/optimisation.py --write    and writes it to docs/
    SEAMARK_TEST_DATA=... python benchmarks/optimisation.py --only pools    one of its parts: errors, arena, pools, metrics, texts

Arena-bench v1: GPT-4's ratings of about 19 answers to each of 300 questions. A reward is fitted to four fifths of the questions and
scores the answers to the others, in turn, so that every question is scored once by a reward that never saw it. Gold is the answer's mean rating. Beside it stands the regret that
cross-fitting tells (`seamark optimise`), which uses no rating of the questions that are scored.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from reward_quality import DOCS, folds, load, minilm, of_prompts

import seamark as sm
from seamark.checks import check_alarm, check_optimisation, cross_fitted
from seamark.checks.findings import Finding
from seamark.checks.held_out import figure
from seamark.checks.mismatch import associate, pair_accuracy
from seamark.checks.optimisation import trace
from seamark.intervals import mean, mean_share
from seamark.reward import Pool
from seamark.reward.policies import best_of_n
from seamark.simulation.overoptimisation import ERRORS, draw_text_world

Array = NDArray[np.float64]
PARTS = ("errors", "arena", "pools", "metrics", "texts")


def scored(feedback: sm.Feedback, utility: sm.Linear, observation: sm.Observation | None, *, without: tuple[str, ...] = ()) -> Pool:
    """Every rated answer with the value it has for a reward that never saw its question, and its mean rating."""
    prompt, proxy, gold = [], [], []
    for train, held in folds(feedback, "arena", 5):
        fitted = sm.fit(train, utility=utility, observation=observation, require_converged=False)
        rated = (
            held.judgments.select(pl.col("responses").list.first().alias("response"), "rating")
            .group_by("response", maintain_order=True)
            .mean()
        )
        rows = rated["response"].to_numpy()
        proxy.append(fitted.utilities(held, without=without)[rows])
        gold.append(rated["rating"].to_numpy())
        prompt.append(np.array(held.prompts["id"].to_list())[held.responses["prompt"].to_numpy()[rows]])
    return Pool.of(*(np.concatenate(column) for column in (prompt, proxy, gold)))


def length_alone(feedback: sm.Feedback) -> Pool:
    """The same with the length for a reward."""
    length = feedback.responses["text"].str.len_chars().to_numpy().astype(float)
    found = (
        feedback.judgments.select(pl.col("responses").list.first().alias("response"), "rating")
        .group_by("response", maintain_order=True)
        .mean()
    )
    rows = found["response"].to_numpy()
    prompt = np.array(feedback.prompts["id"].to_list())[feedback.responses["prompt"].to_numpy()[rows]]
    return Pool.of(prompt, length[rows], found["rating"].to_numpy())


def accuracy(pool: Pool) -> str:
    """Share of pairs of answers to one question, rated differently, that the proxy puts in their order, with its interval; questions count alike."""
    shares = pair_accuracy(pool)
    return figure(mean(shares[np.isfinite(shares)]), ".3f")


def best_curve(best: Finding) -> list[dict[str, Any]]:
    """The strengths of best-of-n with what they lead to."""
    return best.details["curve"]


def highest(best: Finding) -> str:
    """The n at which gold is highest, by the distance that the finding states."""
    return next(row["n"] for row in best_curve(best) if row["sqrt_kl"] == best.estimate)


CURVES = ["| followed | n | KL | sqrt KL | proxy above the start | gold above the start | at best |", "|" + " --- |" * 7]


def said(f: Finding) -> str:
    """An estimate with its interval."""
    return f"{f.estimate:.3f} [{f.low:.3f}, {f.high:.3f}]"


def two(x: float) -> str:
    """Two decimals, and no -0.00."""
    return f"{round(x, 2) + 0.0:.2f}"


def curve_of(name: str, best: Finding) -> tuple[list[str], str]:
    """Rows of `CURVES`, and whether gold turns, in words."""
    rows = best_curve(best)
    lines = [
        f"| {name} | {row['n']} | {row['kl']:.3f} | {row['sqrt_kl']:.2f} | {two(row['proxy'] - rows[0]['proxy'])} | "
        f"{two(row['gold_gain'])} [{two(row['low'])}, {two(row['high'])}] | {two(row['ideal_gain'])} |"
        for row in rows
    ]
    at, last, fall = highest(best), rows[-1]["n"], best.details["fall"]
    ends = [next(row["n"] for row in rows if row["sqrt_kl"] == end) for end in (best.low, best.high)]
    where = f"highest at n = {at} [{ends[0]}, {ends[1]}]"
    if fall["low"] > 0:
        words = f"{where}, and surely falls: {fall['estimate']:.2f} [{fall['low']:.2f}, {fall['high']:.2f}] below that at n = {last}"
    elif at == last:
        words = f"{where}; it does not turn"
    else:
        words = f"{where}; that it falls after that is not sure: {fall['estimate']:.2f} [{fall['low']:.2f}, {fall['high']:.2f}] below that at n = {last}"
    return lines, f"{name} (n = {best.n}): {words}."


def table(root: Path) -> str:
    """Arena-bench v1: every reward."""
    feedback, encoder = load("arena", root), minilm()
    rewards: dict[str, tuple[Pool, tuple[Pool, Pool] | None]] = {"length alone": (length_alone(feedback), None)}
    forms = {
        "n-grams": (sm.Linear(), None),
        "n-grams, prompts lenient or strict": (sm.Linear(), of_prompts()),
        "frozen vectors": (sm.Linear(encoder), None),
        "frozen vectors, prompts lenient or strict": (sm.Linear(encoder), of_prompts()),
    }
    for name, (utility, observation) in forms.items():
        start = time.perf_counter()
        pools = cross_fitted(feedback, utility=utility, observation=observation).pools
        rewards[name] = scored(feedback, utility, observation), pools
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    lines = [
        f"Arena-bench v1, {feedback.n_judgments:,} ratings of {feedback.n_responses:,} answers to {feedback.n_prompts:,} questions; every answer is scored by a reward that never saw its "
        "question. Policies choose the best of n; gold is the mean rating, of 1 to 10. Intervals are a bootstrap over questions.",
        "",
        "| reward | accuracy | gold above the start, points | highest at n | regret by the ratings | regret by the other signal |",
    ]
    lines.append("|" + " --- |" * 6)
    for name, (pool, pools) in rewards.items():
        found = check_optimisation(pool, gold="the mean rating", unit="points")
        best, regret = found[0], found[1]
        end = best_curve(best)[-1]
        other = check_optimisation(pools)[1] if pools else None
        cells = [
            accuracy(pool),
            f"{end['gold_gain']:.2f} [{end['low']:.2f}, {end['high']:.2f}] of {end['ideal_gain']:.2f} at n = {end['n']}",
            highest(best),
            said(regret),
            said(other) if other else "",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_HUMAN = ("Relevance", "Coherence", "Empathy", "Surprise", "Engagement", "Complexity")
_JUDGED = (" RE ", " CH ", " EM ", " SU ", " EG ", " CX ", "AVG")


def read_metrics(root: Path) -> tuple[list[str], Array, Array, NDArray[np.int64], NDArray[np.str_]]:
    """HANNA: names of the metrics, (n, M) what they say of each story, (n, 3) the mean of six axes by each of its raters, (n,) prompts and systems."""
    # the story that a person wrote is what metrics with a reference compare with: they would choose it always
    frame = pl.read_parquet(root / "hanna_scores" / "scores.parquet").filter(pl.col("model") != "Human")
    left_out = {"model", "prompt_index", *_HUMAN}
    names = [n for n in frame.columns if n not in left_out and not n.startswith("Human") and not any(part in f"{n} " for part in _JUDGED)]
    names = [n for n in names if frame[n].dtype.is_numeric() and frame[n].null_count() == 0 and np.isfinite(frame[n].to_numpy()).all()]
    rated = [frame.select(pl.mean_horizontal([f"Human {k} {part.strip()}" for part in _JUDGED[:6]])).to_series() for k in (1, 2, 3)]
    proxies, ratings = frame.select(names).to_numpy().astype(float), np.stack([r.to_numpy() for r in rated], 1)
    return names, proxies, ratings, frame["prompt_index"].to_numpy().astype(np.int64), frame["model"].to_numpy().astype(str)


@dataclass(frozen=True)
class Judged:
    """What following each metric comes to, prompt by prompt, by the ratings of some raters."""

    right: Array
    """(P, M) share of the pairs of stories in the raters' order; NaN where they rate all alike."""
    gain: Array
    """(2, P, M) gold of the best of all stories, above the start: by the metric, and by its reverse."""
    ideal: Array
    """(P,) by the ratings themselves."""

    @staticmethod
    def of(prompt: NDArray[np.int64], proxies: Array, gold: Array) -> Judged:
        pools = [[Pool.of(prompt, sign * proxy, gold) for proxy in proxies.T] for sign in (1, -1)]
        best = [[best_of_n(pool, [int(np.bincount(pool.prompt).min())]) for pool in some] for some in pools]
        gain = np.stack([np.stack([b.gold[:, 0] - b.start for b in some], 1) for some in best])
        return Judged(np.stack([pair_accuracy(pool) for pool in pools[0]], 1), gain, best[0][0].ideal[:, 0] - best[0][0].start)

    def turned(self, rows: NDArray[np.int64], up: NDArray[np.bool_]) -> tuple[Array, Array, float]:
        """(M,) accuracy and gain over some prompts, of each metric (`up`) or its reverse, and the gain of the ratings."""
        right = np.where(up, self.right[rows], 1 - self.right[rows])
        return np.nanmean(right, 0), np.where(up, self.gain[0][rows], self.gain[1][rows]).mean(0), float(self.ideal[rows].mean())


@dataclass(frozen=True)
class Crossed:
    """Metrics turned by some raters on one half of the prompts and judged by the others on the other half; the halves swap."""

    up: NDArray[np.bool_]
    """(2, M) whether each metric is followed as it is, by the half that decides."""
    order: NDArray[np.int64]
    """(2, M) metrics in order of their regret there, the least first."""
    accuracy: Array
    regret: Array
    """(M,) where they are judged, the halves together."""
    spearman: tuple[float, float]
    """Of regret with accuracy where they are judged, and with accuracy where they were turned (the mean of both halves)."""


def cross(first: Judged, second: Judged, halves: Sequence[NDArray[np.int64]]) -> Crossed:
    """Turned by `first` on each half, judged by `second` on the other."""
    ups, orders, told, found = [], [], [], []
    for learn, test in (halves, halves[::-1]):
        up = np.nanmean(first.right[learn], 0) >= 0.5
        right, gain, ideal = first.turned(learn, up)
        ups.append(up)
        orders.append(np.argsort(-gain / ideal, kind="stable"))
        told.append(right)
        found.append((len(test), *second.turned(test, up)))
    n = np.array([f[0] for f in found], dtype=float)
    accuracy, gain, ideal = (np.average(np.stack([np.asarray(f[k]) for f in found]), axis=0, weights=n) for k in (1, 2, 3))
    elsewhere = [associate(t, 1 - f[2] / f[3]).spearman for t, f in zip(told, found, strict=True)]
    regret = 1 - gain / ideal
    return Crossed(np.stack(ups), np.stack(orders), accuracy, regret, (associate(accuracy, regret).spearman, float(np.mean(elsewhere))))


def metrics_as_proxies(root: Path) -> str:
    """HANNA: each automatic metric followed over the stories of ten systems, by people who had no part in turning it."""
    names, proxies, ratings, prompt, system = read_metrics(root)
    rng = np.random.default_rng(0)
    code = np.unique(prompt, return_inverse=True)[1]
    side = rng.permutation(np.arange(code.max() + 1) % 2)
    halves = [np.flatnonzero(side == k) for k in (0, 1)]
    dealt = np.take_along_axis(ratings, rng.permuted(np.tile(np.arange(3), (len(ratings), 1)), axis=1), axis=1)
    one, others = dealt[:, 0], dealt[:, 1:].mean(1)
    first, second = Judged.of(prompt, proxies, one), Judged.of(prompt, proxies, others)
    found = cross(first, second, halves)
    drawn = [cross(first, second, [rng.choice(half, len(half)) for half in halves]) for _ in range(1000)]
    # draws that repeat prompts carry their noise twice, which weakens every drawn correlation: of the draws only their spread is used
    wide = 1.96 * np.arctanh([d.spearman for d in drawn]).std(0, ddof=1)
    centre = np.arctanh(found.spearman)
    related = [
        f"{r:.2f} [{low:.2f}, {high:.2f}]"
        for r, low, high in zip(found.spearman, np.tanh(centre - wide), np.tanh(centre + wide), strict=True)
    ]
    standard = (proxies - proxies.mean(0)) / proxies.std(0)

    def pool(metric: Sequence[int]) -> Pool:
        """A metric for each half that decides, followed over the other half."""
        followed = [np.where(found.up[turn, m], 1, -1) * standard[:, m] for turn, m in enumerate(metric)]
        return Pool.of(prompt, np.where(side[code] == 1, *followed), others)

    gold = "the other raters' rating"
    every = [check_optimisation(pool((m, m)), gold=gold, unit="points")[0] for m in range(len(names))]
    falls = sum(f.verdict in ("warning", "blocking") for f in every)
    m = len(names)
    shown = [*range(4), m // 2 - 1, m // 2, *range(m - 4, m)]
    n = int(np.bincount(code).min())
    rows: list[str] = []
    curves: dict[str, Finding] = {}
    for place in shown:
        chosen = found.order[:, place].tolist()
        followed = pool(chosen)
        best, regret = check_optimisation(followed, gold=gold, unit="points")[:2]
        curves[f"metric {place + 1} of {m}"] = best
        rows.append(f"| {place + 1} | {' / '.join(dict.fromkeys(names[c] for c in chosen))} | {accuracy(followed)} | {said(regret)} |")
    systems = [[rating[system == name].mean() for name in np.unique(system)] for rating in (one, others)]
    alike = associate(*systems)
    person = Pool.of(prompt, (one - one.mean()) / one.std(), others)
    best, regret = check_optimisation(person, gold=gold, unit="points")[:2]
    rows.append(f"| | the one rater | {accuracy(person)} | {said(regret)} |")
    asked = {name: curves[name] for name in (f"metric 1 of {m}", f"metric {m // 2} of {m}", f"metric {m} of {m}")} | {"the one rater": best}
    drawings = [curve_of(name, f) for name, f in asked.items()]
    return "\n".join(
        [
            f"HANNA: {m} automatic metrics followed over the stories of {n} systems to each of {len(side)} prompts. People rate six axes from 1 to 5. One of a story's three raters, "
            "drawn for each story, decides on one half of the prompts whether more or less of a metric is better; the mean of the other two is gold on the other half; then the halves swap. "
            f"Regret and accuracy by that gold over {m} metrics: Spearman {related[0]}; regret by that gold, and accuracy by the one rater on the half that decides: {related[1]} "
            f"(bootstrap over the {len(side)} prompts, all metrics together and turned anew, so that near-duplicates move as one; its standard error on Fisher's scale). "
            f"Gold surely falls before n = {n} for {falls} of {m} (simultaneous 97.5% bounds for each metric). Metrics in order of their regret on the half that decides, the first name where the "
            "one half decides and the second where the other does, as they are judged on the other half:",
            "",
            f"| place | metric | accuracy | best of {n} forgoes |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"The {alike.n} systems' means by the one rater and by the other two: correlation {alike.pearson:.2f} [{alike.pearson_low:.2f}, {alike.pearson_high:.2f}], n = {alike.n} systems.",
            "",
            "The same along best-of-n; proxies in standard deviations, gold in points.",
            "",
            *CURVES,
            *(line for lines, _ in drawings for line in lines),
            "",
            *(f"- {words[0].upper()}{words[1:]}" for _, words in drawings),
        ]
    )


def other_pools(root: Path) -> str:
    """Cross-fitted gold over real pools; of Arena-bench also gold by the ratings."""
    lines = [
        "Cross-fitted gold (`seamark optimise SOURCE --utility hash`): two signals of n-grams, each the judge of policies that follow the other. Gains in logits of the judging signal.",
        "",
        "| pool | how | gain by best of n | highest at n | regret by the other signal |",
        "| --- | --- | --- | --- | --- |",
    ]
    curves: list[tuple[list[str], str]] = []
    arena = load("arena", root)
    for name, feedback in {
        "Arena-bench, answers rated by GPT-4": arena,
        "QLoRA, answers judged by GPT-4": sm.load(root / "qlora_gpt4_judge"),
        "Fine-grained RLHF, 4 answers": sm.load(root / "fine_grained_rlhf_dev"),
    }.items():
        start = time.perf_counter()
        signals = cross_fitted(feedback, utility=sm.Linear())
        pools = signals.pools
        best, regret = check_optimisation(pools, gold="the other signal")[:2]
        print(f"{name}: {time.perf_counter() - start:.0f} s, {best.title}", file=sys.stderr, flush=True)
        end = best_curve(best)[-1]
        lines.append(
            f"| {name}: {pools[0].n_prompts:,} prompts, {len(pools[0].prompt):,} responses | {signals.how} | {end['gold_gain']:.2f} [{end['low']:.2f}, {end['high']:.2f}] of "
            f"{end['ideal_gain']:.2f} at n = {end['n']} | {highest(best)} | {said(regret)} |"
        )
        curves.append(curve_of(name.split(",")[0], best))
    rated = check_optimisation(scored(arena, sm.Linear(), None), gold="the mean rating", unit="points")[0]
    curves.append(curve_of("Arena-bench, gold the ratings", rated))
    lines += [
        "",
        "The same along best-of-n, with exact KL (log n - (n - 1) / n): proxy and gold in logits of the two signals, in the last pool the proxy in logits and gold in points of the ratings "
        "of questions that the reward never saw; *at best* is what following gold itself gains. Intervals of each n by itself, a bootstrap over prompts, which are n.",
        "",
        *CURVES,
        *(line for some, _ in curves for line in some),
        "",
        *(f"- {words}" for _, words in curves),
    ]
    return "\n".join(lines)


def errors(draws: int) -> str:
    """Rewards of equal accuracy, and what following them forgoes."""
    rng = np.random.default_rng(7)
    gold = rng.normal(size=(draws, 256))
    prompt = np.repeat(np.arange(draws), 256)
    lines = [
        f"Equal accuracy, unequal policy: gold is N(0, 1), {draws:,} prompts with 256 responses; proxies differ in where their error lies (`seamark.simulation.overoptimisation.ERRORS`). "
        "Intervals are a bootstrap over prompts.",
        "",
        "| error of the proxy | accuracy on pairs | best of 64 forgoes |",
        "| --- | --- | --- |",
    ]
    for name, make in ERRORS.items():
        pool = Pool.of(prompt, make(rng, gold).ravel(), gold.ravel())
        right = mean(pair_accuracy(pool))
        regret, low, high = trace(best_of_n(pool, [1, 64])).regret
        lines.append(f"| {name} | {figure(right, '.4f')} | {regret:.3f} [{low:.3f}, {high:.3f}] |")
    return "\n".join(lines)


def texts(draws: int) -> str:
    """Rewards of texts without bends and with them, and the alarm that the second gives about the first."""
    rows: list[dict[str, float | str]] = []
    for seed in range(100, 100 + draws):
        for turns in (np.random.default_rng(seed).uniform(1.2, 2.0), np.inf):
            world = draw_text_world(seed=seed, turns=turns)
            prompt = world.feedback.responses["prompt"].to_numpy()
            values = []
            for bends in (False, True):
                utility = sm.Linear(n_columns=256, bends=bends, residual=False)
                fitted = sm.fit(
                    world.feedback, utility=utility, people=sm.Same(), observation=sm.Observation(effects=()), require_converged=False
                )
                values.append(fitted.utilities(world.feedback))
            plain, bent = (check_optimisation(Pool.of(prompt, value, world.gold))[0] for value in values)
            alarm = check_alarm(fitted, world.feedback, scores=values[0])[0]
            curve = plain.details["curve"]
            gains = [row["gold_gain"] for row in curve]
            peak = int(np.argmax(gains))
            stop = alarm.details["stop_at"]
            # the alarm looks at powers of two up to the usual pool
            at = len(gains) - 1 if stop is None else max(k for k, row in enumerate(curve) if int(str(row["n"]).replace(",", "")) <= stop)
            rows.append({
                "falls": float(gains[peak] - gains[-1] > 0.01 * gains[peak]), "plain": gains[-1], "bent": bent.details["curve"][-1]["gold_gain"], "peak": gains[peak],
                "raised": float(alarm.verdict == "warning"), "stopped": gains[at], "own": float(check_alarm(fitted, world.feedback)[0].verdict == "warning"),
                "own falls": float(bent.details["fall"]["estimate"] > 0.01 * bent.details["curve"][-1]["gold_gain"]),
            })  # fmt: skip
    frame = pl.DataFrame(rows)
    lines = [
        f"Texts (`seamark.simulation.overoptimisation.draw_text_world`, {len(rows)} worlds: 40 prompts with 64 texts, 3,000 pairs): length pays up to a point, drawn anew in each, or "
        "always. A reward linear in style follows it too far; `Linear(bends=True)` learns where it turns, and says so of the other (`seamark optimise SOURCE --fit BENT --model PLAIN`), "
        "without gold. Gold above the start, in logits.",
        "",
        "| following the straight reward, gold | worlds | at its end | at its peak | where the alarm says stop | with bends, at the end | alarm about the straight one | "
        "alarm about the bent one | gold of the bent one falls |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for falls, words in ((1.0, "falls before the last n"), (0.0, "rises to the last n")):
        part = frame.filter(pl.col("falls") == falls)
        if not part.height:
            continue
        said = [figure(mean(part[name].to_numpy()), ".2f") for name in ("plain", "peak", "stopped", "bent")]
        shares = [figure(mean_share(part[name].to_numpy()), ".0%") for name in ("raised", "own", "own falls")]
        lines.append(f"| {words} | {part.height} | {' | '.join(said)} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the parts to docs/benchmarks.md as well")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--draws", type=int, default=40, help="worlds of texts of either kind")
    given = parser.parse_args(arguments)
    root = os.environ.get("SEAMARK_TEST_DATA")
    if not root and given.only not in ("errors", "texts"):
        parser.error("set SEAMARK_TEST_DATA")
    place = Path(root or "")
    made_by = {
        "errors": lambda: errors(20 * given.draws), "arena": lambda: table(place), "pools": lambda: other_pools(place),
        "metrics": lambda: metrics_as_proxies(place), "texts": lambda: texts(given.draws),
    }  # fmt: skip
    for part in PARTS if given.only is None else (given.only,):
        made = made_by[part]()
        print(made, flush=True)
        if given.write:
            page = DOCS / "benchmarks.md"
            before, start, rest = page.read_text(encoding="utf-8").partition(
                f"<!-- optimisation {part}: written by benchmarks/optimisation.py --write -->"
            )
            _, end, after = rest.partition(f"<!-- end of optimisation {part} -->")
            page.write_text(f"{before}{start}\n\n{made}\n\n{end}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
