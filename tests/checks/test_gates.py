"""Expressions that say what is to stop a pipeline."""

from __future__ import annotations

import pytest

from seamark.checks.findings import Finding, Findings
from seamark.checks.gates import parse_gates, stopped
from seamark.errors import InvalidSetting

FINDINGS = Findings(
    (
        Finding(code="accuracy", title="", estimate=0.63, low=0.58, high=0.68, n=100),
        Finding(code="probe/length", title="", estimate=1.2, low=0.9, high=1.5, n=50, verdict="warning"),
        Finding(code="probe/typos", title="", estimate=0.1, low=0.0, high=0.2, n=50, verdict="notice"),
        Finding(code="signal", title="", estimate=4.0, n=4),
        Finding.not_applicable("ceiling", "", "nobody judged twice"),
        Finding(code='calibration/a: b, "c" or d', title="", estimate=0.4, low=0.3, high=0.5, n=9, verdict="warning"),
        Finding(code="calibration/x[1]?", title="", estimate=float("nan"), low=float("nan"), n=9),
    )
)


@pytest.mark.parametrize(
    ("expression", "n"),
    [
        ("blocking", 0), ("warning", 2), ("notice", 3),
        ('"calibration/a: b, ""c"" or d"', 1), ('"calibration/a: b, ""c"" or d":blocking', 0), ('"calibration/a: b, ""c"" or d".low<0.35', 1),
        ('"calibration/a: b, ""c"" or d">0.45 or "calibration/a*":warning,"probe/length"', 2),
        ("calibration/x[1]?>0", 1), ("calibration/x[1]?.low<9", 1), ("calibration/x[1]?", 0),
        ("probe/length", 1), ("accuracy", 0), ("probe/*", 2), ("probe/*:warning", 1), ("probe/typos:warning", 0), ("*:warning", 2),
        ("accuracy<0.6", 0), ("accuracy.low<0.6", 1), ("accuracy.low < 60%", 1), ("accuracy>=0.63", 1), ("accuracy.high<=0.67", 0),
        ("probe/length>1 or accuracy.low<0.6", 2), ("probe/length>1,probe/length>1.1", 1),
        ("signal.low<1", 1), ("ceiling", 1), ("ceiling<1", 1), ("ceil*:blocking", 0),
    ],
)  # fmt: skip
def test_what_stops(expression: str, n: int) -> None:
    assert len(stopped(parse_gates([expression]), FINDINGS)) == n


def test_reasons_say_what_was_found() -> None:
    assert stopped(parse_gates(["accuracy.low<0.6 or ceiling"]), FINDINGS) == ["accuracy.low is 0.5800", "ceiling cannot be computed"]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "accuracy<",
        "accuracy<high",
        "probe:sometimes",
        "accuracy.low",
        "accuracy.low:warning",
        "a b",
        "<3",
        "a == 2",
        '"a',
        'a"b',
        '"":warning',
    ],
)
def test_what_cannot_be_read(expression: str) -> None:
    with pytest.raises(InvalidSetting):
        parse_gates([expression])


def test_a_gate_about_nothing_does_not_let_pass() -> None:
    with pytest.raises(InvalidSetting, match="the nearest is probe/length"):
        stopped(parse_gates(["prob/length"]), FINDINGS)
    with pytest.raises(InvalidSetting, match=r'the nearest is "calibration/a: b, ""c"" or d"'):
        stopped(parse_gates(['"calibration/a: b, c or d"']), FINDINGS)
