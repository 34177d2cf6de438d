"""What real people disagree about: opinion groups of Polis, stances in UKPConvArg1, and the raters of DICES-350.

    SEAMARK_TEST_DATA=... python benchmarks/people.py           the tables, to standard output
    SEAMARK_TEST_DATA=... python benchmarks/people.py --write   and into docs/benchmarks.md

About two minutes. Every figure has a test that recounts it from the files by other means (tests/aggregation/test_consensus.py,
tests/checks/test_dissent.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

import seamark as sm
from seamark.aggregation.consensus import tally
from seamark.checks.dissent import answers_by, check_dissent, rater_clusters

DOCS = Path(__file__).resolve().parent.parent / "docs"
START, END = "<!-- real people: written by benchmarks/people.py --write -->", "<!-- end of real people -->"


def polis(root: Path) -> list[str]:
    """Statements of each conversation by opinion group."""
    feedback = sm.load(root / "polis")
    names = feedback.responses["name"].to_list()
    lines = [
        "### Polis: statements by opinion group",
        "",
        "| conversation | groups | statements | carried by a sure majority of every group | one group for, another against | decided otherwise with equal "
        "weights | turned by some weighting | by weights up to 2 times |",
        "|" + " --- |" * 8,
    ]
    total = np.zeros(6, dtype=int)
    for one in tally(feedback):
        equal = np.full(len(one.groups), 1 / len(one.groups))
        counts = np.array(
            [
                len(one.statement), one.bridging().sum(), one.irreconcilable().sum(), (one.decision() != one.decision(equal)).sum(),
                one.turned().sum(), one.turned(2.0).sum(),
            ]
        )  # fmt: skip
        total += counts
        sizes = " and ".join(f"{n:.0f}" for n in one.size)
        lines.append(f"| {names[one.statement[0]].rpartition('/')[0]} | {sizes} | " + " | ".join(f"{n:,}" for n in counts) + " |")
    lines += ["| all | | " + " | ".join(f"{n:,}" for n in total) + " |", ""]
    lines.append(
        "Sure is at a false discovery rate of 5% over the statements of a conversation. Groups were made by Polis from the votes themselves, so that they differ "
        "by construction: no p-value is given. On the 369 statements for which Polis published its group-informed consensus, ours is the same to 1e-12."
    )
    return lines


def stances(root: Path) -> list[str]:
    """Judges for and against the side argued for."""
    found = check_dissent(sm.load(root / "ukp_convarg"), within="prompt")
    lines = ["### UKPConvArg1: what judges of the same, the opposite and no stance find convincing", ""]
    return lines + [f"- {found.get(code).title}" for code in ("group-conflict", "group-items", "cohesion", "outvoted")]


def raters(root: Path) -> list[str]:
    """Kinds of raters in a complete matrix."""
    feedback = sm.load(root / "dices_350")
    answers = answers_by(feedback, by=None)
    lines = [
        "### DICES-350: kinds of raters, and whose majorities are kept",
        "",
        "123 raters, each of 350 conversations. k-means of raters by their answers; stability is the adjusted Rand index between clusterings of two halves of "
        "the conversations (95% of splits), beside its 97.5% percentile with answers dealt at random. Kept: of a kind's strict majorities in the other half, the share "
        "that the majority of everyone keeps (mean and sd over splits).",
        "",
        "| answers | kinds | sizes | called safe | stability | at random | kept, largest kind first |",
        "|" + " --- |" * 7,
    ]
    for centred, what in ((True, "less each rater's strictness"), (False, "as they are")):
        for k in (2, 3):
            found = rater_clusters(answers, k=k, centred=centred)
            sizes = ", ".join(str(n) for n in np.bincount(found.member, minlength=k))
            safe = ", ".join(f"{(answers.value[found.member[answers.block] == c] > 0).mean():.0%}" for c in range(k))
            kept = ", ".join(f"{a:.2f} ({s:.2f})" for a, s in zip(found.kept, found.kept_se, strict=True))
            lines.append(
                f"| {what} | {k} | {sizes} | {safe} | {found.stability:.2f} [{found.low:.2f}, {found.high:.2f}] | {found.null:.2f} | {kept} |"
            )
    return [*lines, "", "The public copy has no demographics, so that no group of people can be named."]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md, for --write")
    given = parser.parse_args(arguments)
    root = os.environ.get("SEAMARK_TEST_DATA")
    if not root:
        parser.error("set SEAMARK_TEST_DATA")
    text = "\n".join([*polis(Path(root)), "", *stances(Path(root)), "", *raters(Path(root))])
    print(text)
    if given.write:
        page = given.docs / "benchmarks.md"
        old = page.read_text(encoding="utf-8")
        block = f"{START}\n{text}\n{END}"
        if START in old:
            block = old[: old.index(START)] + block + old[old.index(END) + len(END) :]
        else:
            block = f"{old.rstrip()}\n\n## What real people disagree about\n\n`SEAMARK_TEST_DATA=... python benchmarks/people.py --write`\n\n{block}\n"
        page.write_text(block, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
