"""Numbers, names and tables of findings as people read them.

What a check puts into `Finding.details` is not trusted to be complete: a row that lacks a number or holds one that is not finite
is left out, so that a half-filled study still gets its report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from seamark.checks.findings import Finding, Findings
from seamark.intervals import count, figure, finite, interval_of

DOUBTS = {
    "noise": ("noise", "var(--c-noise)"),
    "disagreement": ("disagreement", "var(--c-disagreement)"),
    "noise_and_disagreement": ("noise or disagreement", "var(--c-either)"),
    "ignorance": ("ignorance", "var(--c-ignorance)"),
}
"""Key in the details of the doubts: its name, and its colour."""


def with_interval(finding: Finding, units: str = "") -> str:
    """Estimate, interval and n in one phrase: 71.2% [69.0, 73.4] (n = 3,201)."""
    decimals = said_decimals(finding)
    number = figure(finding.estimate, finding.unit, finding.low, finding.high, decimals=decimals)
    interval = interval_of(finding.low, finding.high, finding.unit, decimals=decimals)
    n = f"(n = {finding.n:,}{' ' + units if units else ''})" if finding.n is not None else ""
    return " ".join(part for part in (number, interval, n) if part)


def said_decimals(finding: Finding) -> int | None:
    """Digits after the point with which the finding's own sentence gives its estimate, so that both show one number; None where it does not."""
    if not finite(finding.estimate):
        return None
    share = finding.unit == "share"
    value = abs(finding.estimate or 0.0) * (100 if share else 1)
    found: list[int] = []
    for digits, sign, end in re.findall(r"(\d[\d,]*(?:\.\d+)?)(%?)(?: [a-z]+)?(?: \[[+-]?([\d.,]*\d))?", finding.title):
        places, places_of_end = (len(number.partition(".")[2]) for number in (digits, end))
        if bool(sign) == share and f"{value:,.{places}f}" == digits:
            found.append(max(places, places_of_end))  # 54% [52.7, 55.2] leaves a zero out
    return max(found, default=None)


def typeset(text: str) -> str:
    """A sentence of a check with proper minus signs, and without the marks of code."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "−", text).replace("`", "")


def plain(value: Any) -> str:
    """A cell of a table about which nothing is known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if finite(value):
        return count(value) if isinstance(value, int) else figure(value)
    return "–" if value is None or isinstance(value, float) else str(value)


def spelled(code: str) -> str:
    """accuracy/new-raters as people write it."""
    return code.replace("/", ": ").replace("-", " ").replace("_", " ")


def sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."


def belongs_to(finding: Finding, code: str) -> bool:
    """Whether a finding is this check's or one of its slices."""
    return finding.code == code or finding.code.startswith(f"{code}/")


def called(finding: Finding) -> str:
    """A finding's code as people write it, and of which run it is where a later command has added it."""
    return spelled(finding.code) + (f" ({finding.about})" if finding.about else "")


def runs_of(findings: Findings) -> list[Findings]:
    """A study's own findings, and those of each command that has added some."""
    runs: dict[str, list[Finding]] = {}
    for f in findings:
        runs.setdefault(f.about, []).append(f)
    return [Findings(tuple(run)) for run in runs.values()]


def rows_of(
    details: dict[str, Any], key: str, *required: str, optional: Sequence[str] = (), text: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of a table in `details` whose required numbers are there; other numbers become None, texts become strings."""
    table = details.get(key)
    rows: list[dict[str, Any]] = []
    for row in table if isinstance(table, list | tuple) else ():
        if isinstance(row, dict) and all(finite(row.get(name)) for name in required):
            numbers = {name: row[name] if finite(row.get(name)) else None for name in (*required, *optional)}
            rows.append(numbers | {name: "" if row.get(name) is None else str(row[name]) for name in text})
    return rows
