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
from pathlib import Path

import numpy as np
import polars as pl
from reward_quality import DOCS, folds, load, minilm, of_prompts

import seamark as sm
from seamark.checks import check_alarm, check_optimisation, cross_fitted
from seamark.checks.held_out import figure
from seamark.checks.mismatch import associate, pair_accuracy
from seamark.checks.optimisation import trace
from seamark.intervals import mean, mean_share
from seamark.reward import Pool
from seamark.reward.policies import best_of_n
from seamark.simulation.overoptimisation import ERRORS, draw_text_world

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


def accuracy(pool: Pool) -> float:
    """Share of pairs of answers to one question, rated differently, that the proxy puts in their order; questions count alike."""
    shares = []
    for p in range(pool.n_prompts):
        rows = pool.prompt == p
        gap, right = (x[rows][:, None] - x[rows] for x in (pool.proxy, pool.gold))
        if (told := right > 0).any():
            shares.append(((gap > 0) + 0.5 * (gap == 0))[told].mean())
    return float(np.mean(shares))


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
        end = best.details["curve"][-1]
        other = check_optimisation(pools)[1] if pools else None
        cells = [
            f"{accuracy(pool):.3f}",
            f"{end['gold_gain']:.2f} [{end['low']:.2f}, {end['high']:.2f}] of {end['ideal_gain']:.2f} at n = {end['n']}",
            f"{next(row['n'] for row in best.details['curve'] if row['sqrt_kl'] == best.estimate)}",
            f"{regret.estimate:.3f} [{regret.low:.3f}, {regret.high:.3f}]",
            f"{other.estimate:.3f} [{other.low:.3f}, {other.high:.3f}]" if other else "",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_HUMAN = ("Relevance", "Coherence", "Empathy", "Surprise", "Engagement", "Complexity")
_JUDGED = (" RE ", " CH ", " EM ", " SU ", " EG ", " CX ", "AVG")


def metrics_as_proxies(root: Path) -> str:
    """HANNA: each automatic metric followed over the stories of ten systems, by people's mean rating on six axes."""
    # the story that a person wrote is what metrics with a reference compare with: they would choose it always
    frame = pl.read_parquet(root / "hanna_scores" / "scores.parquet").filter(pl.col("model") != "Human")
    gold = frame.select(pl.mean_horizontal(_HUMAN)).to_series().to_numpy()
    left_out = {"model", "prompt_index", *_HUMAN}
    names = [n for n in frame.columns if n not in left_out and not n.startswith("Human") and not any(part in f"{n} " for part in _JUDGED)]
    names = [n for n in names if frame[n].dtype.is_numeric() and frame[n].null_count() == 0 and np.isfinite(frame[n].to_numpy()).all()]
    rows = []
    for name in names:
        proxy = frame[name].to_numpy().astype(float)
        pool = Pool.of(frame["prompt_index"].to_numpy(), proxy, gold)
        if accuracy(pool) < 0.5:  # a distance, or an error: the smaller the better
            pool = Pool.of(frame["prompt_index"].to_numpy(), -proxy, gold)
        found = check_optimisation(pool, gold="people's rating", unit="points")
        rows.append((name, accuracy(pool), found[1], found[0]))
    right, regret = np.array([r[1] for r in rows]), np.array([r[2].estimate for r in rows])
    related = associate(right, regret)
    rows.sort(key=lambda r: r[2].estimate)
    shown = [*rows[:4], *rows[len(rows) // 2 - 1 : len(rows) // 2 + 1], *rows[-4:]]
    falls = sum(r[3].verdict in ("warning", "blocking") for r in rows)
    lines = [
        f"HANNA: {len(rows)} automatic metrics, each turned so that it agrees with people more often than not, followed over the stories of ten systems to each of "
        f"{pool.n_prompts} prompts. Gold is people's mean rating (three raters, six axes, 1 to 5). Accuracy and regret: Spearman {related.spearman:.2f} "
        f"[{related.spearman_low:.2f}, {related.spearman_high:.2f}], n = {len(rows)}. Gold surely falls before n = 10 for {falls}. The four with least regret, two in the middle, the four with most:",
        "",
        "| metric | accuracy | best of 10 forgoes |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {a:.3f} | {r.estimate:.3f} [{r.low:.3f}, {r.high:.3f}] |" for name, a, r, _ in shown]
    return "\n".join(lines)


def other_pools(root: Path) -> str:
    """Cross-fitted gold over other real pools."""
    lines = [
        "Cross-fitted gold (`seamark optimise SOURCE --utility hash`): two signals of n-grams, each the judge of policies that follow the other. Gains in logits of the judging signal.",
        "",
        "| pool | how | gain by best of n | highest at n | regret by the other signal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, folder in {
        "QLoRA, answers judged by GPT-4": "qlora_gpt4_judge",
        "Fine-grained RLHF, 4 answers": "fine_grained_rlhf_dev",
    }.items():
        feedback = sm.load(root / folder)
        signals = cross_fitted(feedback, utility=sm.Linear())
        pools = signals.pools
        best, regret = check_optimisation(pools, gold="the other signal")[:2]
        print(f"{name}: {best.title}", file=sys.stderr, flush=True)
        end = best.details["curve"][-1]
        top = next(row["n"] for row in best.details["curve"] if row["sqrt_kl"] == best.estimate)
        lines.append(
            f"| {name}: {pools[0].n_prompts:,} prompts, {len(pools[0].prompt):,} responses | {signals.how} | {end['gold_gain']:.2f} [{end['low']:.2f}, {end['high']:.2f}] of "
            f"{end['ideal_gain']:.2f} at n = {end['n']} | {top} | {regret.estimate:.3f} [{regret.low:.3f}, {regret.high:.3f}] |"
        )
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
