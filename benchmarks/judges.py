"""Judges on real verdicts: do they follow the substance, the place or the length?

    SEAMARK_TEST_DATA=... python benchmarks/judges.py            prints the tables
    SEAMARK_TEST_DATA=... python benchmarks/judges.py --write    and writes them to docs/

LLMBar: six models, asked in up to 15 ways, in both orders, about 419 pairs whose better output experts agreed on; and what a reward that counts
characters gets on the same pairs. QLoRA: GPT-4 on pairs of answers by several systems, each pair in both orders, without gold.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import seamark as sm
from seamark.checks import Findings, check_judges, score_benchmark
from seamark.intervals import figure, interval_of
from seamark.sources.benchmarks import read_benchmark

DOCS = Path(__file__).resolve().parent.parent / "docs"
START, END = "<!-- judges: written by benchmarks/judges.py --write -->", "<!-- end of judges -->"
PARTS = ("Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut", "Adversarial/Manual")


def rows(found: Findings, code: str) -> dict[str, dict[str, Any]]:
    """The rows of a finding by judge."""
    finding = found.get(f"judges/{code}")
    return {row["judge"]: row for row in finding.details.get("judges", [])} if finding else {}


def share(row: dict[str, Any] | None, prefix: str = "") -> str:
    """An estimate with its interval, in per cent."""
    if not row:
        return ""
    estimate, low, high = (row[f"{prefix}{end}"] for end in ("estimate", "low", "high"))
    return f"{figure(estimate, 'share', low, high)} {interval_of(low, high, 'share')}".strip()


def biases(found: dict[str, Findings]) -> str:
    """A row for each judge: gold, place, both orders, and length against substance."""
    lines = ["| judge | agrees with gold | shown first wins | same answer in both orders | right where the better one is shorter | where it is longer | the difference, points |",
             "|" + " --- |" * 7]  # fmt: skip
    for data, findings in found.items():
        gold, place, both, style = (rows(findings, code) for code in ("gold", "position", "consistency", "style"))
        for judge in place:
            mine = style.get(judge, {})
            lean = f"{100 * mine['lean']:.0f} [{100 * mine['lean_low']:.0f}, {100 * mine['lean_high']:.0f}]" if "lean" in mine else ""
            with_gold = "hard_estimate" in mine
            longer = "" if with_gold or not mine else f"no gold; the longer one wins {share(mine)}"
            cells = (share(gold.get(judge)), share(place[judge]), share(both.get(judge)), share(mine, "hard_") if with_gold else "",
                     share(mine, "easy_") if with_gold else longer, lean)  # fmt: skip
            name = f"**{judge}**" if mine.get("style_not_substance") else judge
            lines.append(f"| {data}: {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parts(findings: Findings, length: Findings) -> str:
    """Agreement with gold part by part, and what length alone gets."""
    lines = ["| LLMBar | " + " | ".join(PARTS) + " |", "|" + " --- |" * (len(PARTS) + 1)]
    gold = findings.get("judges/gold")
    table = {(row["part"].removeprefix("subset:"), row["judge"]): row for row in gold.details["parts"]} if gold else {}
    for judge in rows(findings, "gold"):
        lines.append(f"| {judge} | " + " | ".join(share(table.get((part, judge))) for part in PARTS) + " |")
    scored = {row["part"]: row | {"estimate": row["score"]} for row in length[0].details["parts"]}
    lines.append("| length alone | " + " | ".join(share(scored[part]) for part in PARTS) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables to docs/benchmarks.md as well")
    given = parser.parse_args(arguments)
    root = os.environ.get("SEAMARK_TEST_DATA")
    if not root:
        parser.error("set SEAMARK_TEST_DATA")
    llmbar = check_judges(sm.load(Path(root) / "llmbar"), judges=lambda rater: rater.split("/")[0], by="provenance")
    qlora = check_judges(sm.load(Path(root) / "qlora_gpt4_judge"))
    benchmark = read_benchmark(Path(root) / "llmbar")
    length = score_benchmark(benchmark, [float(len(text)) for text in benchmark.responses])
    made = biases({"LLMBar": llmbar, "QLoRA": qlora}) + "\n\n" + parts(llmbar, length)
    print(made)
    if given.write:
        page = DOCS / "benchmarks.md"
        text = page.read_text(encoding="utf-8")
        said = (
            "`python benchmarks/judges.py --write`. LLMBar: 58,748 verdicts of six models, asked in up to 15 ways, on 419 pairs with gold; QLoRA: 44,506 verdicts of GPT-4. Per cent, ties half; "
            "intervals are clustered by prompt (both orders: by prompt or by way of asking, whichever is wider) and, but for both "
            "orders and differences, hold for all judges of a set at once. A judge in bold is "
            "style, not substance: surely wrong where the better response is the shorter one, and surely right where it is the longer one."
        )
        before, after = text.split(START)[0], text.split(END, 1)[1]
        page.write_text(f"{before}{START}\n\n{said}\n\n{made}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
