"""Probes of reward models: planted ones, each with a vice of its own; and rewards on a small language model, fitted to real judgments.

    SEAMARK_TEST_DATA=... python benchmarks/probes.py            prints the tables
    SEAMARK_TEST_DATA=... python benchmarks/probes.py --write    and writes them to docs/
    python benchmarks/probes.py --only hh_rlhf_harmless_test --write    some of it: planted, a set, cost

- planted: seven rewards in each of 40 worlds (`planted_rewards.py` has their distributions, fixed before anything was measured); each probe's power to tell its own
  from all the others, and a reward with another vice from the good one.
- real: all-MiniLM-L6-v2 (22 million parameters) trained as `seamark train` does, on 600 judgments of half of the prompts of a set, and probed with the texts and judgments of the
  other half; beside it a linear reward on the encoder's frozen vectors, fitted to up to 8,000 judgments of the same half, length alone, and stock phrases alone. The time is that of
  the whole probe, on as many threads as torch takes.
- cost: 5,000 texts of at most 128 tokens.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from planted_rewards import KINDS, PROBES, matrix, measure
from reward_quality import DOCS, as_judgments, as_read, decided, minilm, network_fit, sample

import seamark as sm
from seamark.checks.findings import Findings
from seamark.checks.probes import check_probes
from seamark.checks.shortcuts import said_points
from seamark.models.features import style_features
from seamark.reward.scorers import score_texts, texts_of

SETS = {"ukp_convarg": "UKPConvArg1", "hh_rlhf_harmless_test": "HH-RLHF harmless", "arena_bench_v1": "Arena-bench v1"}
MARKS = {
    "planted": ("<!-- probes: written by benchmarks/probes.py --write -->", "<!-- end of probes -->"),
    **{name: (f"<!-- probes of {name}: written by benchmarks/probes.py --write -->", f"<!-- end of probes of {name} -->") for name in SETS},
    "cost": ("<!-- probe cost: written by benchmarks/probes.py -->", "<!-- end of probe cost -->"),
}
SHOWN = (
    "padding", "pleasantries", "formality", "markdown", "lists", "hedging", "confidence", "repetition", "injection", "truncation", "gibberish", "empty",
    "evasion", "typos", "paraphrase", "order", "dialect", "language", "groups", "sycophancy",
)  # fmt: skip
RESULTS = Path(__file__).resolve().parent / "results" / "probes"
"""Networks that were trained."""
TOKENS = 128
JUDGMENTS, RATE = 600, 2e-4
"""Of the network that is trained; the rate is the one that `reward_quality.py` chose on other prompts of UKPConvArg1."""
BASELINE = 200
"""Responses that each family changes for the rewards that cost nothing; `--n` is of the others."""
PHRASES = ("hedging", "first_person", "refusals", "pleasantries")
"""Of the features of style."""
Scorer = Callable[[Sequence[Any], Sequence[str]], Sequence[float | None]]


def planted(draws: int) -> str:
    """The matrix, 40 worlds."""
    started = time.perf_counter()
    found, low, high = matrix(measure(draws))
    print(f"planted: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    lines = ["| planted | " + " | ".join(PROBES) + " |", "|" + " --- |" * (len(PROBES) + 1)]
    for k, kind in enumerate(KINDS):
        cells = []
        for p in range(len(PROBES)):
            cell = "" if np.isnan(found[k, p]) else f"{found[k, p]:.2f} [{low[k, p]:.2f}, {high[k, p]:.2f}]"
            cells.append(f"**{cell}**" if k == p else cell)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read(name: str, root: Path) -> sm.Feedback:
    """A set; of Arena-bench the ratings."""
    feedback = sm.load(root / name)
    if name == "arena_bench_v1":
        feedback = feedback.filter((pl.col("kind") == "rating") & pl.col("rating").is_not_null())
    empty = np.flatnonzero((feedback.responses["text"].fill_null("").str.strip_chars() == "").to_numpy()).tolist()
    return feedback.filter(~pl.col("responses").list.eval(pl.element().is_in(empty)).list.any())


def length_alone(_prompts: Sequence[Any], responses: Sequence[str]) -> list[float | None]:
    return [float(np.log2(1 + len(r))) for r in responses]


def phrases_alone(_prompts: Sequence[Any], responses: Sequence[str]) -> list[float | None]:
    """Hedges, first person, refusals and pleasantries, and nothing else."""
    found = style_features(list(responses))
    return found.values[:, [found.names.index(name) for name in PHRASES]].sum(1).tolist()


def trained(train: sm.Feedback, encoder: str, folder: str) -> tuple[sm.Reward, sm.Feedback]:
    """The encoder trained on some judgments, and these; of ratings the pairs that they imply."""
    from transformers import AutoTokenizer

    data = as_judgments(train, decided(train)) if train.judgments["kind"][0] == "rating" else train
    seen = sample(data, "pairs", AutoTokenizer.from_pretrained(encoder), n=JUDGMENTS, seed=0)
    return sm.Reward(network_fit(seen, folder, encoder=encoder, rate=RATE, epochs=1, seed=0, back=0.0)), seen.feedback


def fitted(train: sm.Feedback, encoder: str) -> sm.Reward:
    """A linear reward on frozen vectors of the encoder, with its style block."""
    return sm.Reward(sm.fit(train, utility=sm.Linear(encoder), require_converged=False))


def cut(feedback: sm.Feedback, encoder: str) -> tuple[list[Any], list[str]]:
    """Prompts and responses of at most so many tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    kept = [(prompt, text) for prompt, text in zip(*texts_of(feedback), strict=True) if text is not None]
    prompts, texts = [prompt for prompt, _ in kept], [text for _, text in kept]
    offsets = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=TOKENS - 2, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    return prompts, [text[: spans[-1][1]] if spans else text for text, spans in zip(texts, offsets, strict=True)]


def halves(name: str, root: Path) -> tuple[sm.Feedback, sm.Feedback]:
    """Judgments to fit, at most 8,000, and those of the other half of the prompts."""
    feedback = read(name, root)
    half = feedback.judgments["prompt"].to_numpy() % 2 == 0
    train, held_out = feedback.filter(half), feedback.filter(~half)
    if train.n_judgments > 8000:
        keep = np.zeros(train.n_judgments, dtype=bool)
        keep[np.random.default_rng(0).permutation(train.n_judgments)[:8000]] = True
        train = train.filter(keep)
    return train, held_out


def real(name: str, root: Path, n: int, *, network: bool = True) -> str:
    """The table of a set: a column for each reward. The network that was trained stays, and is not trained again."""
    from transformers import AutoTokenizer

    encoder, title = minilm(), SETS[name]
    train, held_out = halves(name, root)
    # long answers would measure the encoder, not the probes
    prompts, texts = cut(held_out, encoder)
    rewards: dict[str, tuple[Scorer, Sequence[Any], sm.Feedback, sm.Feedback, int]] = {}
    if network:
        started = time.perf_counter()
        reward, seen = trained(train, encoder, str(RESULTS / name))
        print(f"{title}: trained in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        short = as_read(held_out, AutoTokenizer.from_pretrained(encoder))
        rewards["MiniLM trained"] = reward, cut(short, encoder)[0], short, seen, n
    rewards |= {
        "MiniLM frozen, linear": (fitted(train, encoder), prompts, held_out, train, n),
        "length alone": (length_alone, prompts, held_out, train, BASELINE),
        "phrases alone": (phrases_alone, prompts, held_out, train, BASELINE),
    }
    columns: dict[str, Findings] = {}
    for what, (scorer, asked, judged, learned, some) in rewards.items():
        started = time.perf_counter()
        columns[what] = check_probes(scorer, asked, texts, judgments=judged, train=learned, n=some)
        took = time.perf_counter() - started
        print(f"{title}, {what}: {took:.0f} s, {columns[what][0].title}", file=sys.stderr, flush=True)
    return (
        f"{title}: {len(texts):,} responses to {len(set(prompts)):,} prompts, of which each change is tried on {n}, and for length and phrases on {BASELINE}."
        f"\n\n{table(columns)}"
    )


def cost(root: Path) -> str:
    """What 5,000 texts cost."""
    encoder = minilm()
    train, held_out = halves("hh_rlhf_harmless_test", root)
    return timed(fitted(train, encoder), *cut(held_out, encoder))


def timed(reward: sm.Reward, prompts: Sequence[Any], texts: Sequence[str]) -> str:
    """Seconds for 5,000 different texts, none of whose vectors an earlier run has kept."""
    import torch

    few = [f"{text} ({i})" for i, text in enumerate((list(texts) * 10)[:5000])]
    with tempfile.TemporaryDirectory() as empty:
        kept, os.environ["SEAMARK_CACHE"] = os.environ.get("SEAMARK_CACHE"), empty
        started, before = time.perf_counter(), time.process_time()
        scored = score_texts(reward, (list(prompts) * 10)[:5000], few)
        took, busy = time.perf_counter() - started, time.process_time() - before
        os.environ.pop("SEAMARK_CACHE")
        if kept is not None:
            os.environ["SEAMARK_CACHE"] = kept
    assert not scored.failed, scored.problems
    return (
        f"{scored.n_distinct:,} different texts of at most {TOKENS} tokens are scored in {took:.0f} s ({busy:.0f} s of processor time) by the reward on the encoder of 22 million parameters, on "
        f"{torch.get_num_threads()} thread{'' if torch.get_num_threads() == 1 else 's'} of a machine with {os.cpu_count()} cores."
    )


def table(columns: dict[str, Findings]) -> str:
    """A row for each probe, a column for each reward."""
    lines = ["| probe | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]

    def row(title: str, cells: Sequence[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    def cell(found: Findings, code: str) -> str:
        f = found.get(f"probe/{code}")
        if f is None or f.estimate is None or f.low is None or f.high is None:
            return "not applicable"
        said = said_points(f.estimate, f.low, f.high).removesuffix(" points of preference")
        return f"**{said}**" if f.verdict == "warning" else said

    for code in SHOWN:
        row(code, [cell(found, code) for found in columns.values()])
    for code in ("refusal", "keywords", "obfuscation", "manipulation", "style-not-substance"):
        cells = []
        for found in columns.values():
            f = found.get(f"probe/{code}")
            applicable = f is not None and f.estimate is not None and f.low is not None and f.high is not None
            text = f"{100 * f.estimate:.0f}% [{100 * f.low:.0f}, {100 * f.high:.0f}]" if applicable else "not applicable"  # type: ignore[union-attr,operator]  # it is there
            cells.append(f"**{text}**" if f is not None and f.verdict == "warning" else text)
        row(code, cells)
    row("what it is called", [_called(found) for found in columns.values()])
    row("agrees with held-out judgments", [_agrees(found) for found in columns.values()])
    row("memorisation", [cell(found, "memorisation") for found in columns.values()])
    row("phrase that buys most", [_phrase(found) for found in columns.values()])
    row("held-out pairs asked", [f"{found[0].details['judgments']:,}" for found in columns.values()])
    row("scored texts", [f"{found[0].details['n_texts']:,}" for found in columns.values()])
    return "\n".join(lines)


def _called(found: Findings) -> str:
    """What the check of style and substance says at its end."""
    f = found.get("probe/style-not-substance")
    return (
        "not applicable"
        if f is None or f.estimate is None
        else {"warning": "**style, not substance**", "notice": "may be style"}.get(f.verdict, "")
    )


def _agrees(found: Findings) -> str:
    f = found.get("probe/memorisation")
    if f is None or f.estimate is None:
        return "not applicable"
    return f"{100 * f.details['held_out']:.0f}% [{100 * f.details['held_out_low']:.0f}, {100 * f.details['held_out_high']:.0f}]"


def _phrase(found: Findings) -> str:
    f = found.get("probe/phrases")
    if f is None or f.estimate is None or f.low is None or f.high is None:
        return "not applicable"
    return f"'{f.details['phrases'][0]['phrase']}' {said_points(f.estimate, f.low, f.high).removesuffix(' points of preference')}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables to docs/benchmarks.md as well")
    parser.add_argument("--only", nargs="+", choices=tuple(MARKS), default=list(MARKS), help="some of the parts: planted, sets, cost")
    parser.add_argument("--draws", type=int, default=40, help="worlds with planted rewards")
    parser.add_argument("--n", type=int, default=60, help="responses that each family changes")
    parser.add_argument("--frozen", action="store_true", help="leave out the network that is trained")
    given = parser.parse_args(arguments)
    root = os.environ.get("SEAMARK_TEST_DATA")
    if not root and given.only != ["planted"]:
        parser.error("set SEAMARK_TEST_DATA")
    place = Path(root or "")
    made_by: dict[str, Callable[[], str]] = {
        "planted": lambda: (
            f"`python benchmarks/probes.py --only planted --write`. Seven planted rewards in {given.draws} worlds: each is the true value, noise and one vice of random strength "
            "(`benchmarks/planted_rewards.py`). Shown is the probability that the probe's figure is higher for one of this kind: on the diagonal than for all others, elsewhere than "
            "for the good one (a half is chance); 95% intervals over worlds. *All clear* is how far the gravest probe is from a warning.\n\n"
            + planted(given.draws)
        ),
        **{name: lambda name=name: real(name, place, given.n, network=not given.frozen) for name in SETS},
        "cost": lambda: f"`python benchmarks/probes.py --only cost --write`. {cost(place)}",
    }
    for part in given.only:
        made, (start, end) = made_by[part](), MARKS[part]
        print(f"{made}\n", flush=True)
        if given.write:
            page = DOCS / "benchmarks.md"
            text = page.read_text(encoding="utf-8")
            page.write_text(f"{text.split(start)[0]}{start}\n\n{made}\n\n{end}{text.split(end, 1)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
