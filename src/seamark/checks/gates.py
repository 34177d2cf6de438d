"""Gates: which findings are to stop a pipeline, as an expression that whoever runs it writes down.

Conventions
-----------
    EXPR   =  TERM or TERM or ...
    TERM   =  VERDICT                    warning: any finding as grave as that, or graver
           |  CODE                       probe/length: that finding is not ok (a notice, a warning or blocking)
           |  CODE:VERDICT               probe/*:warning
           |  CODE[.low|.high] OP NUMBER accuracy.low < 0.6, with <, <=, > and >=; per cent as shares

A code may hold * for any characters; findings that are not computable then pass. One with spaces, commas, colons or quotes stands in quotes,
doubled inside: "calibration/a: b":warning. A gate that names one finding and cannot be told, because it is not computable or has no such
number, does not let pass: nothing was shown.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from seamark.checks.findings import VERDICTS, Finding, Findings
from seamark.errors import InvalidSetting
from seamark.intervals import figure

Severity = Literal["blocking", "warning", "notice"]
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CODE = r'(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<code>[^\s<>:"]+?))'
_TERM = re.compile(_CODE + r"(?:\.(?P<end>low|high))?\s*(?:(?P<op><=|>=|<|>)\s*(?P<number>\S+)|:\s*(?P<verdict>\S+))?")
_BETWEEN = re.compile(r'(?:\s+or\s+|,)(?=(?:[^"]*"[^"]*")*[^"]*$)')
"""What joins terms: after it, quotes come in pairs."""
_REMEDY = 'Write it as warning, probe/length, probe/*:warning, "probe/a: b" or accuracy.low<0.6; several are joined by or.'


@dataclass(frozen=True)
class Gate:
    """One term of an expression."""

    said: str
    code: str
    """May hold *; * alone for all findings."""
    verdict: Severity = "notice"
    """The mildest verdict that fails."""
    end: Literal["estimate", "low", "high"] = "estimate"
    compare: str = ""
    """Of a term about a number, how it is compared; else empty."""
    number: float = 0.0

    def names(self, finding: Finding) -> bool:
        """Whether it is about the finding."""
        return re.fullmatch(".*".join(map(re.escape, self.code.split("*"))), finding.code, re.DOTALL) is not None

    def stops(self, finding: Finding) -> str:
        """Why the finding does not pass; empty where it does."""
        if finding.verdict == "not_applicable":
            # a verdict on whatever there is, is about what was found; who names a finding wants it
            return "" if "*" in self.code else f"{finding.code} cannot be computed"
        if not self.compare:
            failed = VERDICTS.index(finding.verdict) <= VERDICTS.index(self.verdict)
            return f"{finding.code} is {finding.verdict}" if failed else ""
        value = getattr(finding, self.end)
        if value is None or math.isnan(value):
            return f"{finding.code} has no {self.end}"
        shown = f"{finding.code}{'' if self.end == 'estimate' else '.' + self.end} is {figure(value, decimals=4)}"
        return shown if _COMPARE[self.compare](value, self.number) else ""


def parse_gates(expressions: Sequence[str]) -> tuple[Gate, ...]:
    """The terms of expressions, any of which stops.

    Raises
    ------
    InvalidSetting
        If one cannot be read.
    """
    gates: list[Gate] = []
    for expression in expressions:
        for term in _BETWEEN.split(expression.strip()):
            found = _TERM.fullmatch(term.strip())
            if found is None:
                raise InvalidSetting("--fail-on", expression, _REMEDY)
            quoted, verdict, number = found["quoted"], found["verdict"], found["number"]
            code = found["code"] if quoted is None else quoted.replace('""', '"')
            if quoted is None and verdict is None and number is None and found["end"] is None and code in get_args(Severity):
                gates.append(Gate(term, "*", code))  # type: ignore[arg-type]  # it is one of the severities
                continue
            if verdict is not None and (verdict not in get_args(Severity) or found["end"]):
                raise InvalidSetting("--fail-on", expression, f"A verdict is one of {', '.join(get_args(Severity))}.")
            if number is None:
                if found["end"]:
                    raise InvalidSetting("--fail-on", expression, _REMEDY)
                gates.append(Gate(term, code, verdict or "notice"))  # type: ignore[arg-type]  # as above
                continue
            try:
                value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
            except ValueError:
                raise InvalidSetting("--fail-on", expression, f"{number!r} is no number. {_REMEDY}") from None
            gates.append(Gate(term, code, end=found["end"] or "estimate", compare=found["op"], number=value))  # type: ignore[arg-type]  # as above
    return tuple(gates)


def stopped(gates: Sequence[Gate], findings: Findings) -> list[str]:
    """Why the findings do not pass, a reason each; none where they do.

    Raises
    ------
    InvalidSetting
        If a gate names a finding that is not there: it would let everything pass.
    """
    reasons: list[str] = []
    for gate in gates:
        named = [f for f in findings if gate.names(f)]
        if not named and gate.code != "*":
            near = difflib.get_close_matches(gate.code, [f.code for f in findings], n=1, cutoff=0)
            raise InvalidSetting(
                "fail_on", gate.said.strip(), f"No finding here has this code{f'; the nearest is {_written(near[0])}' if near else ''}."
            )
        reasons += [reason for f in named if (reason := gate.stops(f))]
    return list(dict.fromkeys(reasons))


def _written(code: str) -> str:
    """A code as an expression names it."""
    return code if re.fullmatch(r'[^\s<>:",]+', code) else '"' + code.replace('"', '""') + '"'
