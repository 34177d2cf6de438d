"""Does what is learned of arguments hold elsewhere, and does the model know how people divide? On real votes.

    SEAMARK_TEST_DATA=... python benchmarks/generalisation.py            prints the tables
    SEAMARK_TEST_DATA=... python benchmarks/generalisation.py --write    and writes them to docs/

UKPConvArg1: votes on which of two arguments is more convincing, by random parts, debate (each of 11 left out in turn), rater, stance of the rater and
time; HH-RLHF harmless by prompt and Tulu 1 by source model. Rewards are linear in frozen vectors of the responses and in style. DICES: 123 raters of each
conversation, of which the shares that called it safe are predicted for conversations never seen.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from reward_quality import DOCS, minilm

import seamark as sm
from seamark.checks import Finding, Findings, check_generalisation
from seamark.checks.calibration import check_distribution
from seamark.checks.held_out import decided_cells
from seamark.models import predict

START, END = "<!-- generalisation: written by benchmarks/generalisation.py --write -->", "<!-- end of generalisation -->"
SETS = {
    "UKPConvArg1": ("ukp_convarg", ("provenance", "rater", "group", "time")),
    "HH-RLHF harmless": ("hh_rlhf_harmless_test", ("prompt",)),
    "Tulu 1": ("tulu1_human_eval", ("prompt", "source")),
}
NAMES = {"random": "single judgments", "provenance": "debate", "group": "stance of the rater", "source": "source model"}


def usable(feedback: sm.Feedback) -> sm.Feedback:
    """Without texts that are empty, which no method can use."""
    empty = np.flatnonzero((feedback.responses["text"].fill_null("").str.strip_chars() == "").to_numpy()).tolist()
    return feedback.filter(~pl.col("responses").list.eval(pl.element().is_in(empty)).list.any())


def interval(row: dict[str, float], *, scale: float = 100, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    ends = f" [{scale * row['low']:{form}}, {scale * row['high']:{form}}]" if row.get("low") is not None else ""
    return f"{scale * row['estimate']:{form}}{ends}"


def rows(name: str, findings: Findings) -> list[str]:
    """One line of the table for each split."""
    lines: list[str] = []
    for f in findings:
        if f.code.count("/") != 1 or "accuracy" not in f.details:
            continue
        split = f.code.partition("/")[2]
        d = f.details
        rules = d["rules"]
        best = max(rules, key=lambda rule: rules[rule]["estimate"])
        people = interval(d["ceiling"]) if "ceiling" in d else ""
        differs = interval(d["difference"]["accuracy"], signed=True) if "difference" in d else ""
        what = f"{NAMES.get(split, split)} ({d['n_parts']})"
        lines.append(
            f"| {name} | {what} | {f.n:,} | {interval(d['accuracy'])} | {d['log_loss']['estimate']:.3f} | {differs} | {people} | {rules[best]['estimate'] * 100:.1f} ({best}) |"
        )
    return lines


def matrices(name: str, findings: Findings) -> list[str]:
    """Trained on one stance and tested on another."""
    found = [f for f in findings if f.code.startswith("generalisation/matrix/") and "rows" in f.details]
    lines: list[str] = []
    for f in found:
        d = f.details
        lines += [
            f"\n{name}, trained on as many judgments of each ({d['n_train']:,}). {f.title}\n",
            "| trained on | " + " | ".join(d["columns"]) + " |",
            "|" + " --- |" * (1 + len(d["columns"])),
        ]
        for k, row in enumerate(d["rows"]):
            told = [
                f"{100 * e:.1f} [{100 * a:.1f}, {100 * b:.1f}]" for e, a, b in zip(d["estimate"][k], d["low"][k], d["high"][k], strict=True)
            ]
            lines.append(f"| {row} | " + " | ".join(told) + " |")
    return lines


def shares(root: Path, encoder: str) -> list[str]:
    """How well the share of people is told, on debates and conversations never seen: UKP's five votes a pair, DICES' 123 raters a conversation."""
    lines = [
        "| set | questions | people each | distance of the predicted share, points | told of how shares vary | log loss | other raters | least |",
        "|" + " --- |" * 8,
    ]
    votes = usable(sm.load(root / "ukp_convarg"))
    debates = sorted(votes.judgments["provenance"].unique().to_list())
    apart = pl.col("provenance").is_in(debates[::3])
    conversations = usable(sm.load(root / "dices_350"))
    item = conversations.judgments["responses"].list.first().to_numpy()
    for name, train, test in (
        ("UKPConvArg1, a third of the debates", votes.filter(~apart), votes.filter(apart)),
        ("DICES-350, a third of the conversations", conversations.filter(item % 3 != 0), conversations.filter(item % 3 == 0)),
    ):
        fitted = sm.fit(train, utility=sm.Linear(encoder), require_converged=False)
        predictions = predict(fitted, test)
        f: Finding = check_distribution(decided_cells(fitted, test, predictions), predictions)[0]
        if f.estimate is None:
            lines.append(f"| {name} | {f.reason} |" + " |" * 6)
            continue
        d, crossed = f.details, f.details["cross_entropy"]
        print(f"{name}: {f.title} {f.verdict}", file=sys.stderr, flush=True)
        lines.append(
            f"| {name} | {f.n:,} | {d['people']:.0f} | {interval({'estimate': f.estimate, 'low': f.low or 0.0, 'high': f.high or 0.0})} | {d['explained']:.0%} | "
            f"{crossed['estimate']:.3f} | {crossed['other_raters']:.3f} | {crossed['own_entropy']:.3f} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables to docs/benchmarks.md as well")
    parser.add_argument("--resume", type=Path, help="folder of finished fits")
    given = parser.parse_args(arguments)
    root = os.environ.get("SEAMARK_TEST_DATA")
    if not root:
        parser.error("set SEAMARK_TEST_DATA")
    encoder, table, below = (
        minilm(),
        ["| set | new (parts) | n | accuracy, % | log loss | less random, points | other raters, % | best rule, % |", "|" + " --- |" * 8],
        list[str](),
    )
    for name, (folder, by) in SETS.items():
        start = time.perf_counter()
        feedback = usable(sm.load(Path(root) / folder))
        observation = sm.Observation(effects=(sm.models.Position(),))
        findings = check_generalisation(
            feedback, by=by, utility=sm.Linear(encoder), observation=observation, n_folds=3, resume=given.resume,
            progress=lambda what, share: print(f"  {what} {share:.0%}", file=sys.stderr, flush=True),
        )  # fmt: skip
        table += rows(name, findings)
        below += matrices(name, findings)
        print(f"{name}: {time.perf_counter() - start:.0f} s\n{findings}", file=sys.stderr, flush=True)
    made = "\n".join([*table, *below, "", "How people divide, told for what was never seen:", "", *shares(Path(root), encoder)])
    print(made)
    if given.write:
        page = DOCS / "benchmarks.md"
        text = page.read_text(encoding="utf-8")
        said = (
            "`python benchmarks/generalisation.py --write`. Rewards linear in frozen vectors and style, three folds or one value left out at a time. "
            "Each comparison is predicted by a fit that never saw its debate, rater, ... ; by time, by a fit to what came before. The difference to a "
            "random split is paired on the same judgments, and where the split trains on less, so does the random one. Intervals are clustered by what is held "
            "out, rater or prompt, the widest. Other raters: the majority of those who answered the same question."
        )
        page.write_text(f"{text.split(START)[0]}{START}\n\n{said}\n\n{made}\n\n{END}{text.split(END, 1)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
