"""The report, the card and findings.json: self-contained, escaped, valid, and drawn by a real browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seamark as sm
from seamark.checks.findings import Finding, Findings
from seamark.rendering import Report, charts, documents, drawing, words, write_card, write_findings, write_report

DEV = "Install the extra dev."
Require = Callable[[str, str], Any]
NASTY = "</script><script>alert(1)</script><!-- \u2028 & \"' `|` ]] {{ 7*7 }} \udcff"
"""Every way out of the places where untrusted text stands."""


def fake_raters(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Mostly careful raters, 7% at chance and 1% opposed."""
    rows: list[dict[str, Any]] = []
    for i in range(n):
        kind = rng.choice(["careful", "at chance", "opposed"], p=[0.92, 0.07, 0.01])
        slope = float(
            {"careful": rng.lognormal(0.0, 0.35), "at chance": rng.normal(0.05, 0.08), "opposed": -rng.lognormal(-0.5, 0.2)}[kind]
        )
        judgments = int(rng.integers(8, 400))
        half = 6.0 / math.sqrt(judgments) * 0.35
        rows.append(
            {"rater": f"rater-{i:04d}", "n": judgments, "slope": slope, "low": slope - half, "high": slope + half}
            | {"p_careless": float(kind == "at chance"), "p_opposed": float(kind == "opposed"), "verdict": kind}
        )
    return rows


def fake_checks() -> tuple[Finding, ...]:
    """Findings of checks of reward models and repairs, as these give them."""
    curve = [
        {"n": str(2**k), "kl": (d := 0.8 * k) ** 2, "sqrt_kl": d, "proxy": 0.3 + 0.9 * d, "gold_gain": (g := d * (1.1 - 0.3 * d)), "low": g - 0.2,
         "high": g + 0.2, "ideal_gain": 1.2 * d}
        for k in range(5)
    ]  # fmt: skip
    tilts = [{key: value for key, value in row.items() if key != "n"} | {"1 / beta": f"{k / 2:.2g}"} for k, row in enumerate(curve)]
    ages = ["18-29", "30-49", "50+"]
    cells = [[0.71, 0.66, 0.62], [0.65, 0.7, 0.66], [0.6, 0.64, None]]
    matrix = {"rows": ages, "columns": ages, "estimate": cells} | {
        end: [[None if x is None else x + by for x in row] for row in cells] for end, by in (("low", -0.03), ("high", 0.03))
    }
    share: dict[str, Any] = {"unit": "share"}
    number: dict[str, Any] = {"estimate": 0.72, "low": 0.69, "high": 0.75, "n": 900}
    repaired = [
        {"name": name, "code": name, "unit": unit, "goal": "lower", "before": a, "after": b, "change": b - a, "low": b - a - 0.05, "high": b - a + 0.05, "n": 400,
         "verdict": verdict}
        for name, unit, a, b, verdict in (
            ("accuracy", "share", 0.66, 0.82, "better"), ("calibration error", "share", 0.04, 0.12, "worse"), ("log loss", "nats", 0.61, 0.6, "no clear change"),
        )
    ]  # fmt: skip
    features = [
        {"feature": name, "estimate": x, "low": x - 0.1, "high": x + 0.1, "per_unit": x, "n": 70}
        for name, x in (("log characters", 0.6), ('says "sorry"', -0.3))
    ]
    return (
        Finding(code="optimisation/best-of-n", title="Gold falls.", estimate=1.6, low=0.8, high=2.4, n=200, unit="sqrt nats", details={"curve": curve}),
        Finding(code="optimisation/tilt", title="Gold falls.", estimate=1.6, low=0.8, high=2.4, n=200, unit="sqrt nats", details={"curve": tilts}),
        Finding(
            code="generalisation/prompt", title="New prompts: 66.0%.", **number | share | {"estimate": 0.66, "low": 0.63, "high": 0.69},
            details={"ceiling": number, "rules": {"longer wins": number | {"estimate": 0.61}, "coin": number | {"estimate": 0.5}}},
        ),
        Finding(code="generalisation/rater", title="New raters: 72.0%.", **number | share, details={"rules": {}}),
        Finding(code="generalisation/matrix/age", title="Trained on one age.", **number | share, details=matrix | {"n": [[80] * 3] * 3, "n_train": 300}),
        Finding(code="probe/length", title="Length buys 12 points.", estimate=0.12, low=0.1, high=0.14, n=300, **share, details={"points": 0.12}),
        Finding(code="probe/typos", title="Typos cost 3 points.", estimate=-0.03, low=-0.05, high=-0.01, n=300, **share, details={"points": -0.03}),
        Finding(code="probe/keywords", title="61% of 40 pairs.", estimate=0.61, low=0.5, high=0.7, n=40, **share),
        Finding(
            code="explain/features", title="Length moves it most.", estimate=0.6, low=0.5, high=0.7, n=700, unit="sd of the reward", details={"features": features},
        ),
        Finding(code="repair", title="The repair makes 1 statistic worse.", estimate=1.0, n=3, unit="count", details={"statistics": repaired}),
        *fake_checks_of_models(),
    )  # fmt: skip


def fake_checks_of_models() -> tuple[Finding, ...]:
    """Findings of benchmarks, judges, searches and attacks, and two curves, as their checks give them; a judge and a way have hostile names."""

    def share(code: str, estimate: float, **details: Any) -> Finding:
        return Finding(
            code=code, title=f"{code}.", estimate=estimate, low=estimate - 0.06, high=estimate + 0.06, n=200, unit="share", details=details
        )

    def row(estimate: float, side: str = "", **more: Any) -> dict[str, Any]:
        return {f"{side}estimate": estimate, f"{side}low": estimate - 0.06, f"{side}high": estimate + 0.06, f"{side}n": 90} | more

    good, bad = (row(0.9, "hard_", judge="good") | row(0.88, "easy_")), (row(0.2, "hard_", judge=NASTY) | row(0.8, "easy_"))
    way = {"kind": NASTY, "n": 40, "proxy": 0.8, "disowned_by": "gold", "judged": {"gold": -0.6, "an ensemble": None}}
    curve = [{"n": 2**k, "gain": 0.3 * k, "low": 0.2 * k, "high": 0.4 * k} for k in range(6)]
    drifts = [{"n": 2**k, "value": 0.3 * k, "low": 0.2 * k, "high": 0.4 * k} for k in range(4)]
    losses = [
        {"n": 100.0 * 2**k, "log_loss": 0.65 - 0.03 * k, "low": 0.6 - 0.03 * k, "high": 0.7 - 0.03 * k, "accuracy": 0.6} for k in range(4)
    ]
    return (
        share("benchmark", 0.7, benchmark="rewardbench2", chance=0.25), share("benchmark/Math", 0.6, chance=0.25, weight=1), share("benchmark/Ties", 0.8, chance=0.01, weight=1),
        share("benchmark/length-only", 0.4), share("benchmark/style", 0.5, easy=0.8), share("benchmark/worst", 0.6), share("benchmark/best-of-k", 0.6),
        share("judges/gold", 0.5, judges=[row(0.9, judge="good"), row(0.5, judge=NASTY)], by=None, parts=[]),
        share("judges/position", 0.8, judges=[row(0.5, judge="good"), row(0.8, judge=NASTY)]), share("judges/style", 0.2, judges=[good, bad], longer=[]),
        Finding(code="loophole", title="A loophole.", estimate=1.0, n=3, unit="count"),
        Finding(code="loophole/insertion", title="Insertion.", estimate=-0.6, low=-0.8, high=-0.4, n=40, unit="sd", details={"ways": [way, way | {"proxy": None}]}),
        share("attacks/insertion", 0.9), Finding(code="attacks/open", title="9 of 10 work.", estimate=9.0, n=10, unit="count"), share("attacks/role play", 0.1),
        share("optimisation/alarm", 0.4, curve=curve, stop_at=8), Finding(code="optimisation/drift", title="It drifts.", estimate=0.9, unit="sd", details={"curve": drifts}),
        Finding(code="learning-curve", title="More brings little.", estimate=0.3, low=0.1, high=0.5, n=400, unit="exponent", details={"curve": losses}),
        Finding(code="decay", title="Age costs.", estimate=0.3, low=0.1, high=0.5, n=400, unit="points per day", details={
            "period": "day", "curve": [{"age": 2.0 * k, "accuracy": 0.8 - 0.05 * k, "low": 0.7 - 0.05 * k, "high": 0.9 - 0.05 * k, "n": 50} for k in range(1, 4)]}),
        Finding(code="attribution", title="Most is lost.", estimate=0.9, low=0.7, high=1.0, n=20, unit="share"),
        *(Finding(code=f"attribution/{stage}", title="Gains.", estimate=x, low=x - 1, high=x + 1, n=20, unit="points") for stage, x in (("asked", 1.5), ("observed", 7.0))),
        *(Finding(code=f"usefulness/{name}", title="Gains.", estimate=x, low=x - 0.2, high=x + 0.2, n=90, unit="logits") for name, x in ((NASTY, 1.2), ("b", 0.4))),
    )  # fmt: skip


def fake_report(n_raters: int = 1104, seed: int = 0, *, separable: bool = True) -> Report:
    """A report as a study of a public preference set would give it."""
    rng = np.random.default_rng(seed)
    raters = fake_raters(n_raters, rng)
    counts, edges = np.histogram([row["slope"] for row in raters], bins=24)
    edges_of_length = [0.0, 0.06, 0.13, 0.22, 0.34, 0.5, 0.75, 1.6]
    curve = [
        {"low": low, "high": high, "share": (s := 0.52 + 0.025 * i), "share_low": s - 0.025, "share_high": s + 0.025, "n": 3731}
        for i, (low, high) in enumerate(pairwise(edges_of_length))
    ]
    lengths = rng.normal(5.4, 0.8, 800)
    bins = [
        {
            "predicted": p,
            "observed": p - 0.12 * (p - 0.5),
            "low": p - 0.12 * (p - 0.5) - 0.03,
            "high": p - 0.12 * (p - 0.5) + 0.03,
            "n": int(700 - 800 * abs(p - 0.5)),
        }
        for p in np.linspace(0.08, 0.92, 10).tolist()
    ]
    shares = (
        {"noise": 0.61, "disagreement": 0.25, "noise_and_disagreement": None, "ignorance": 0.14}
        if separable
        else {"noise": None, "disagreement": None, "noise_and_disagreement": 0.86, "ignorance": 0.14}
    )
    by_gap = []
    for i in range(6):
        ignorance = 0.3 - 0.04 * i
        parts = (0.5 * (1 - ignorance) + 0.03 * i, 0.5 * (1 - ignorance) - 0.03 * i)
        split = dict(zip(("noise", "disagreement"), parts, strict=True)) | {"noise_and_disagreement": None}
        joint = {"noise": None, "disagreement": None, "noise_and_disagreement": sum(parts)}
        by_gap.append(
            {"gap_low": i * 0.5, "gap_high": (i + 1) * 0.5 if i < 5 else None, "ignorance": ignorance, "n": 900 - 100 * i}
            | (split if separable else joint)
        )
    findings = (
        Finding(
            code="agreement",
            title="Raters agree more than chance: Krippendorff's alpha is 0.41 (0.38 to 0.44).",
            estimate=0.41,
            low=0.38,
            high=0.44,
            n=5120,
            unit="alpha",
            verdict="notice",
            reason="Over 5,120 items judged at least twice; resampled by prompt.",
            remedy="Have the items with most dissent judged again.",
            source="Krippendorff 2004",
            details={
                "axes": [
                    {"axis": "helpful", "estimate": 0.44, "low": 0.4, "high": 0.48, "n": 2600},
                    {"axis": "harmless", "estimate": 0.36, "low": 0.31, "high": 0.41, "n": 2520},
                ]
            },
        ),
        Finding(
            code="ceiling",
            title="A rater predicts another rater's answer 77.4% of the time.",
            estimate=0.774,
            low=0.762,
            high=0.786,
            n=5120,
            unit="share",
            reason="Leave-one-rater-out majority; resampled by prompt.",
        ),
        Finding(
            code="rater-reliability",
            title="7.2% of raters cannot be told from coins.",
            estimate=0.072,
            low=0.055,
            high=0.089,
            n=n_raters,
            unit="share",
            verdict="warning",
            reason="Share of raters whose slope's 95% interval holds 0; n counts raters.",
            remedy="Look at the raters listed as at chance before paying or weighing them.",
            details={
                "raters": raters,
                "histogram": [
                    {"low": float(a), "high": float(b), "count": int(c)} for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
                ],
            },
        ),
        Finding(
            code="position",
            title="The first of two responses wins 52.6% of the time, whatever it says.",
            estimate=0.526,
            low=0.518,
            high=0.534,
            n=28104,
            unit="share",
            verdict="notice",
            reason="Slot effect in the fitted model, as a share for two equal responses.",
            details={"estimate_share": 0.526},
        ),
        Finding(
            code="length",
            title="The longer response wins 61.3% of the time (60.2% to 62.4%).",
            estimate=0.613,
            low=0.602,
            high=0.624,
            n=26120,
            unit="share",
            verdict="warning",
            reason="Pairs whose lengths differ by at least a tenth; clustered by prompt.",
            remedy="Declare length a taste or a nuisance in the charter; the report prints both answers.",
            details={
                "curve": curve,
                "x": "absolute log length ratio",
                "points": [
                    {"log_length": float(x), "utility": float(0.5 * (x - 5.4) + e)}
                    for x, e in zip(lengths, rng.normal(0, 0.8, 800), strict=True)
                ],
            },
        ),
        Finding(
            code="style",
            title="Lists and headings are worth 0.31 logits together.",
            estimate=0.31,
            low=0.24,
            high=0.38,
            n=28104,
            unit="logits",
            verdict="notice",
            details={
                "effects": [
                    {"feature": name, "estimate": e, "low": e - 0.07, "high": e + 0.07}
                    for name, e in (("log length", 0.42), ("lists", 0.19), ("headings", 0.12), ("bold", 0.03), ("apology", -0.22))
                ]
            },
        ),
        Finding(
            code="duplicates", title="0.3% of judgments repeat another.", estimate=0.003, low=0.0024, high=0.0037, n=28104, unit="share"
        ),
        Finding(
            code="identical-pairs", title="No pair shows the same text twice.", estimate=0.0, low=0.0, high=0.0001, n=28104, unit="share"
        ),
        Finding(
            code="leakage",
            title="1.8% of held-out prompts also occur in train.",
            estimate=0.018,
            low=0.014,
            high=0.023,
            n=3201,
            unit="share",
            verdict="blocking",
            reason="Prompts compared after folding case and white space.",
            remedy="Split by prompt: data.split(by='prompt').",
        ),
        Finding(
            code="coverage",
            title="The largest tenth of prompts holds 31% of the judgments.",
            estimate=0.31,
            low=0.29,
            high=0.33,
            n=4102,
            unit="share",
        ),
        Finding.not_applicable("intransitivity", "Cycles cannot be counted.", "no three responses were all compared with each other"),
        Finding(code="ties", title="12.4% of judgments are ties.", estimate=0.124, low=0.12, high=0.128, n=28104, unit="share"),
        Finding(
            code="connectivity",
            title="All responses with text are connected through their features.",
            estimate=1,
            n=28104,
            unit="count",
            reason="A count; an interval has no meaning.",
        ),
        Finding.not_applicable(
            "missing-fields",
            "Time per judgment cannot be studied.",
            "the source has no duration field",
            remedy="Record when a question was shown and when it was answered.",
        ),
        Finding(
            code="accuracy",
            title="71.2% of held-out judgments are predicted.",
            estimate=0.712,
            low=0.694,
            high=0.73,
            n=3201,
            unit="share",
            reason="Held-out prompts; ties left out; clustered by prompt.",
        ),
        Finding(
            code="accuracy/new-raters",
            title="68.9% for raters not seen in training.",
            estimate=0.689,
            low=0.65,
            high=0.728,
            n=640,
            unit="share",
        ),
        Finding(code="log-loss", title="Log-loss is 0.561 nats.", estimate=0.561, low=0.548, high=0.574, n=3201, unit="nats"),
        Finding(
            code="calibration",
            title="Predictions are 1.7 points too sure on average.",
            estimate=0.017,
            low=0.009,
            high=0.026,
            n=3201,
            unit="share",
            details={"bins": bins},
        ),
        Finding(
            code="baseline/longer",
            title="Choosing the longer response predicts 61.0%.",
            estimate=0.61,
            low=0.592,
            high=0.628,
            n=3201,
            unit="share",
        ),
        Finding(
            code="baseline/first",
            title="Choosing the first response predicts 52.1%.",
            estimate=0.521,
            low=0.503,
            high=0.539,
            n=3201,
            unit="share",
        ),
        Finding(
            code="doubts",
            title="Most of the doubt is noise.",
            estimate=0.61,
            low=0.57,
            high=0.65,
            n=3201,
            unit="share",
            details={
                "shares": shares,
                "logits": {"noise": 1.1, "disagreement": 0.72, "noise_and_disagreement": None, "ignorance": 0.31},
                "by_gap": by_gap,
            },
        ),
        *fake_checks(),
    )
    return Report(
        title="oasst_prefs.jsonl",
        source="/data/oasst_prefs.jsonl",
        format="seamark",
        created="2026-03-01T10:20:30+00:00",
        command="seamark study oasst_prefs.jsonl -o out --seed 0",
        versions={"seamark": "0.1.0", "torch": "2.9.0", "python": "3.11.2"},
        seed=seed,
        data={"n_judgments": 28104, "n_responses": 12011, "n_prompts": 4102, "n_raters": n_raters, "fingerprint": "sha256:" + "ab12" * 16},
        findings=Findings(findings),
        charter_toml='version = 1\nname = "default"\n\n[population]\nweights = "one person, one weight"\n\n[rule]\naggregate = "mean"\n',
        charter_signed=False,
        fit={
            "utility": "Linear(hash)",
            "people": "Same()",
            "outcomes": ["pair: Davidson"],
            "effects": ["Reliability", "Position"],
            "converged": True,
            "iterations": 14,
            "decrement": 3.1e-9,
            "parameters": [
                {"name": "position", "estimate": 0.104, "low": 0.07, "high": 0.138, "unit": "logits"},
                {"name": "tie propensity", "estimate": -1.21, "low": -1.25, "high": -1.17, "unit": "logits"},
                {"name": "lapse", "estimate": 0.031, "low": 0.02, "high": 0.044, "unit": "share"},
            ],
            "notes": ["Ridge strength 1.0 chosen by evidence."],
        },
        skipped=("probe: no reward model was given",),
        notes=("612 judgments had no winner and were read as ties.",),
    )


def nasty_report() -> Report:
    """The same with hostile text in every place that data can reach."""
    report = fake_report(12)
    findings = [
        replace(
            f,
            title=f"{f.title} {NASTY}",
            reason=NASTY,
            remedy=NASTY,
            source=NASTY,
            details=f.details | {"note": NASTY, "rows": [{NASTY: NASTY}]},
        )
        for f in report.findings
    ]
    raters = [row | {"rater": NASTY + row["rater"]} for row in report.findings[2].details["raters"]]
    findings[2] = replace(findings[2], details={"raters": raters})
    return replace(
        report,
        title=NASTY,
        source=NASTY,
        format=NASTY,
        command=NASTY,
        versions={NASTY: NASTY},
        charter_toml=NASTY,
        notes=(NASTY,),
        skipped=(NASTY,),
        findings=Findings(tuple(findings)),
        fit=report.fit | {"utility": NASTY, "notes": [NASTY], "parameters": [{"name": NASTY, "estimate": 1.0, "unit": NASTY}]},
    )


def bare_report() -> Report:
    """A study that could do next to nothing."""
    return replace(
        fake_report(3),
        findings=Findings(()),
        fit={},
        skipped=(),
        notes=(),
        versions={},
        charter_toml="",
        charter_signed=True,
        data={"n_judgments": 0, "n_responses": 0, "n_prompts": 0, "n_raters": None, "fingerprint": None},
    )


def written(report: Report, folder: Path) -> str:
    write_report(report, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def scripts_of(page: str) -> list[tuple[str, str]]:
    """Attributes and text of each script element, as an HTML parser cuts them: up to the first closing tag."""
    return re.findall(r"<script([^>]*)>(.*?)</script", page, flags=re.DOTALL)


def specs_of(page: str) -> dict[str, dict[str, Any]]:
    """The charts' specifications by the element they are drawn in."""
    return {re.findall(r'data-chart="([^"]+)"', head)[0]: json.loads(text) for head, text in scripts_of(page) if "data-chart" in head}


def outside_scripts(page: str) -> str:
    return re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)


# ------------------------------------------------------------------------------------------------------------ findings.json


def schema() -> dict[str, Any]:
    return json.loads((Path(sm.__file__).parent / "findings.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("make", [fake_report, nasty_report, bare_report])
def test_findings_follow_their_schema(make: Any, tmp_path: Path, require: Require) -> None:
    jsonschema = require("jsonschema", DEV)
    jsonschema.Draft202012Validator.check_schema(schema())
    write_findings(make(), tmp_path / "findings.json")
    document = json.loads((tmp_path / "findings.json").read_bytes())
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert [f["code"] for f in document["findings"]] == [f.code for f in make().findings]


def test_schema_refuses_what_the_contract_forbids(tmp_path: Path, require: Require) -> None:
    jsonschema = require("jsonschema", DEV)
    write_findings(fake_report(3), tmp_path / "findings.json")
    document = json.loads((tmp_path / "findings.json").read_bytes())
    valid = jsonschema.Draft202012Validator(schema()).is_valid
    assert valid(document)
    for change in (
        {"verdict": "fine"},
        {"estimate": "0.5"},
        {"code": "Accuracy!"},
        {"extra": 1},
        {"verdict": "not_applicable"},
        {"title": ""},
    ):
        assert not valid(document | {"findings": [document["findings"][0] | change]}), change
    assert not valid(document | {"data": {}})
    assert not valid(document | {"version": 2})


@pytest.mark.parametrize(
    "finding",
    [
        Finding(code="x", title="x", estimate=math.nan),
        Finding(code="x", title="x", details={"a": [math.inf]}),
        Finding(code="x", title="x", verdict="fine"),  # type: ignore[arg-type]  # wrong on purpose
        Finding(code="x", title="x", verdict="not_applicable"),
    ],
)
def test_findings_that_json_or_the_schema_refuse_raise(finding: Finding, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_findings(replace(bare_report(), findings=Findings((finding,))), tmp_path / "findings.json")


# ------------------------------------------------------------------------------------------------------------------- report


def test_report_refers_to_nothing_outside(tmp_path: Path) -> None:
    page = written(fake_report(), tmp_path)
    markup = outside_scripts(page)
    for name, value in re.findall(r"""\s(src|href|action|data|poster|srcset|xlink:href|formaction)\s*=\s*["']?([^"'\s>]*)""", markup):
        assert value.startswith("#"), f"{name}={value}"
    assert not re.search(r"<(link|iframe|img|object|embed|base|video|audio)\b", markup)
    style = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)[0]
    assert not re.search(r"@import|url\(|@font-face", style)
    assert not any("sourceMappingURL" in text for _, text in scripts_of(page))
    assert "$schema" not in json.dumps(specs_of(page))


def test_policy_allows_the_written_scripts_and_style_by_hash_and_nothing_else(tmp_path: Path) -> None:
    page = written(fake_report(3), tmp_path)
    policy = html.unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[0])
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    code = [text for head, text in scripts_of(page) if "json" not in head]
    assert rules["script-src"].split() == [source(text) for text in code]
    assert rules["style-src"] == source(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)[0])
    assert not re.search(r"\sstyle\s*=|\son\w+\s*=", outside_scripts(page))


@pytest.mark.parametrize("name", documents._SCRIPTS)
def test_scripts_can_stand_in_a_script_element(name: str) -> None:
    text = documents._read(name)
    assert "</script" not in text.lower()
    assert "<!--" not in text


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    page = written(nasty_report(), tmp_path)
    assert len(scripts_of(page)) == len(scripts_of(written(fake_report(12), tmp_path)))
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "\u2028" not in "".join(text for _, text in scripts_of(page))
    assert "{{ 7*7 }}" in page
    rater = specs_of(page)["chart-rater-slopes-1"]["datasets"]["rows"][0]["rater"]
    assert rater.startswith(NASTY)


def test_no_untrusted_text_in_vega_expressions(tmp_path: Path) -> None:
    """Data stands in the data sets alone: anywhere else Vega-Lite may write it into an expression."""
    for spec in specs_of(written(nasty_report(), tmp_path)).values():
        assert "alert" not in json.dumps({key: value for key, value in spec.items() if key not in ("datasets", "description")})


def test_report_stays_small_with_thousands_of_raters(tmp_path: Path) -> None:
    page = written(fake_report(5000), tmp_path)
    assert len(page.encode()) < 3_000_000
    specs = specs_of(page)
    drawn = specs["chart-rater-slopes-1"]["datasets"]["rows"]
    assert len(drawn) == charts.MAX_RATERS
    assert sum(row["count"] for row in specs["chart-rater-histogram-1"]["datasets"]["rows"]) == 5000
    kept = min(row["n"] for row in drawn)
    everyone = next(f for f in fake_report(5000).findings if f.code == "rater-reliability").details["raters"]
    assert sum(row["n"] > kept for row in everyone) < charts.MAX_RATERS


def test_rendering_is_fast(tmp_path: Path) -> None:
    report = fake_report(400)
    written(report, tmp_path)  # imports altair and jinja2
    start = time.process_time()
    written(report, tmp_path)
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("report", [fake_report(), fake_report(24, separable=False)], ids=["many", "few"])
def test_every_chart_has_a_table_with_the_same_numbers(report: Report, tmp_path: Path) -> None:
    page = written(report, tmp_path)
    figures = re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) == sum(len(section.charts) for section in charts.draw_sections(report.findings)) > 8
    for figure in figures:
        assert re.search(r"<details class=\"twin\">.*<table>", figure, flags=re.DOTALL)
    for section in charts.draw_sections(report.findings):
        for chart in section.charts:
            rows = chart.specs[0]["datasets"]["rows"]
            n_rows = len({row["gap"] for row in rows}) if chart.code == "doubt-gaps" else len(rows)  # a table row holds all its doubts
            assert len(chart.table.rows) == n_rows, chart.code
            assert all(len(row) == len(chart.table.columns) for row in chart.table.rows)
            assert chart.text.endswith(".")


def test_charts_are_valid_vega_lite(tmp_path: Path) -> None:
    import altair as alt

    specs, joined = (specs_of(written(report, tmp_path)) for report in (fake_report(3), fake_report(3, separable=False)))
    for spec in (*specs.values(), *(spec for name, spec in joined.items() if name.startswith("chart-doubt"))):
        (alt.LayerChart if "layer" in spec else alt.Chart).from_dict(spec, validate=True)
    alt.Chart.from_dict({"mark": "point", "data": {"values": []}, "config": json.loads(documents._read("charts.json"))}, validate=True)


def test_joined_band_where_noise_and_disagreement_cannot_be_told_apart(tmp_path: Path) -> None:
    page = written(fake_report(24, separable=False), tmp_path)
    rows = specs_of(page)["chart-doubt-shares-1"]["datasets"]["rows"]
    assert [row["doubt"] for row in rows] == ["noise or disagreement 86%", "ignorance 14%"]
    assert "cannot be told apart" in page
    assert "86% is noise or disagreement and 14% is ignorance" in page


def test_lengths_given_as_log_ratios_are_shown_as_times() -> None:
    curve = [{"low": 0.0, "high": math.log(2), "share": 0.5, "n": 9}, {"low": math.log(2), "high": math.log(4), "share": 0.7, "n": 9}]
    finding = Finding(code="length", title="x", details={"curve": curve, "x": "absolute log length ratio"})
    chart = charts._draw_length(Findings((finding,)))[0]
    assert chart is not None
    assert [row[0] for row in chart.table.rows] == ["1 to 2", "2 to 4"]
    assert chart.table.columns[0] == "times as long"


@pytest.mark.parametrize("first", range(8))
def test_report_without_some_findings(first: int, tmp_path: Path) -> None:
    """Each finding is gone from one report, and those that stand beside it are there: every eighth goes."""
    report = fake_report(3)
    gone = [f.code for f in report.findings][first::8]
    page = written(replace(report, findings=Findings(tuple(f for f in report.findings if f.code not in gone))), tmp_path)
    assert set(gone).isdisjoint(re.findall('<code class="code">([^<]+)</code>', page))


@pytest.mark.parametrize(
    "junk",
    [
        None,
        3,
        "x",
        [],
        {},
        [None],
        [{}],
        [{"slope": math.nan, "estimate": None}],
        {"noise": "much"},
        [[1, 2], [3]],
        [{"low": 1, "high": [2]}],
    ],
    ids=repr,
)
def test_malformed_details_never_break_the_report(junk: Any, tmp_path: Path) -> None:
    report = fake_report(3)
    names = (
        "raters", "histogram", "curve", "points", "bins", "shares", "logits", "by_gap", "effects", "slices", "other", "rows", "columns", "estimate", "features", "statistics",
        "ceiling", "rules",
    )  # fmt: skip
    findings = Findings(tuple(replace(f, details=dict.fromkeys(names, junk)) for f in report.findings))
    page = written(replace(report, findings=findings), tmp_path)
    assert "<h2" in page


def test_bare_report_says_what_is_missing(tmp_path: Path) -> None:
    page = written(bare_report(), tmp_path)
    for text in (
        "not recorded",
        "Not checked: how careful the raters are",
        "Nothing was fitted",
        "No charter was given",
        "Nothing: every step ran",
    ):
        assert text in page
    assert 'class="chart"' not in page


def test_badge_and_stamp(tmp_path: Path) -> None:
    page = written(fake_report(3), tmp_path)
    assert "1 blocking" in page
    assert "unsigned: not releasable" in page
    fine = replace(
        fake_report(3), charter_signed=True, findings=Findings(tuple(f for f in fake_report(3).findings if f.verdict != "blocking"))
    )
    page = written(fine, tmp_path)
    assert re.search(r'class="badge warning">.*?2 warnings</span>', page)
    assert "not releasable" not in page
    clean = replace(fine, findings=Findings(tuple(f for f in fine.findings if f.verdict != "warning")))
    assert re.search(r'class="badge ok">.*?fine</span>', written(clean, tmp_path))


def test_the_badge_is_green_only_where_something_was_measured() -> None:
    accuracy = Finding(code="accuracy", title="x", estimate=0.6, low=0.55, high=0.65, n=100, unit="share")
    unclear = replace(accuracy, low=0.45)
    nothing = Finding.not_applicable("accuracy", "x", "Nothing was held out.")
    no_rows = Finding(code="signal", title="x", estimate=0.0, n=0, unit="count", verdict="warning")
    assert documents._badge(Findings((accuracy,))) == ("ok", "fine")
    assert documents._badge(Findings((accuracy, no_rows))) == ("warning", "1 warning")
    assert "There is no row to train on; nothing else" in overview(accuracy, no_rows)
    for findings, why in (
        ((), "held-out accuracy was not computed"),
        ((nothing,), "nothing was held out"),
        ((unclear,), "not clearly better than a coin"),
    ):
        assert documents._badge(Findings(findings)) == ("not_applicable", "too little to tell")
        assert why in overview(*findings)
        assert "Nothing found stands" not in overview(*findings)
        assert why in documents.verdict_in_words(Findings(findings))


def test_the_large_number_is_that_of_the_sentence() -> None:
    def said(title: str, estimate: float, unit: str | None) -> str:
        finding = Finding(code="x", title=title, estimate=estimate, low=estimate - 0.01, high=estimate + 0.01, n=9, unit=unit)
        return words.figure(estimate, unit, finding.low, finding.high, decimals=words.said_decimals(finding))

    assert said("Log loss 0.824 [0.786, 0.862] nats", 0.82441, "nats") == "0.824"
    assert said("worth 299.9 equally frequent ones of 300", 299.94, "prompts") == "299.9"
    assert said("wins 54% [52.7, 55.2] of the 54", 0.53996, "share") == "54.0%"
    assert said("0.2 points [-1.0, 2.0] less often", -0.21, "points") == "−0.2"
    assert said("no number of its own", 0.5, "share") == "50.0%"


def test_a_leaderboard_is_drawn_and_listed(tmp_path: Path) -> None:
    board = [{"name": f"<model {i}>", "utility": 2.0 - i / 10, "low": 1.5 - i / 10, "high": 2.5 - i / 10, "n": 40} for i in range(80)]
    found = Finding(code="leaderboard", title="x", estimate=2.0, low=1.5, high=2.5, n=80, unit="logits", details={"board": board})
    report = replace(fake_report(3), findings=Findings((*fake_report(3).findings, found)))
    page = written(report, tmp_path)
    assert "&lt;model 79&gt;" in page
    assert "The first 60 are drawn; the table has all 80." in page
    write_card(report, tmp_path / "card.md")
    assert "&lt;model 79&gt;" in (tmp_path / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.00994, 0.44, "0.01 to 0.44"),
        (1.1e-7, 0.2, "0 to 0.2"),
        (1.001, 1.095, "1 to 1.09"),
        (12.2, 40.0, "12 to 40"),
        (0.0011, 0.0024, "0.0011 to 0.0024"),
    ],
)
def test_bins_have_the_digits_that_their_width_needs(low: float, high: float, shown: str) -> None:
    assert drawing.bin_in_words(low, high) == shown


def charts_of(*found: Finding) -> dict[str, charts.Chart]:
    return {chart.code: chart for section in charts.draw_sections(Findings(found)) for chart in section.charts}


def test_optimisation_is_drawn_as_gold_and_as_what_the_reward_believes() -> None:
    drawn = charts_of(*fake_checks())
    for name, first in (("best-of-n", "1"), ("tilt", "0")):
        chart = drawn[f"optimisation-{name}"]
        gold, believed = chart.specs
        rows = gold["datasets"]["rows"]
        assert [row["proxy_gain"] for row in rows] == pytest.approx([0.9 * row["sqrt_kl"] for row in rows]), "above the start"
        assert believed["datasets"]["rows"] == rows
        assert chart.table.rows[0][0] == first
        assert chart.table.rows[2][2:4] == ("0.99", "[0.79, 1.19]")


def test_generalisation_is_drawn_beside_people_and_the_best_rule_and_matrices_as_numbers_on_a_tint() -> None:
    drawn = charts_of(*fake_checks())
    assert [row[0] for row in drawn["generalisation-splits"].table.rows] == ["prompt", "prompt: people", "prompt: 'longer wins'", "rater"]
    matrix = drawn["matrix-age"]
    assert matrix.table.rows[1] == ("18-29", "30-49", "66.0%", "[63.0, 69.0]", "80")
    assert len(matrix.table.rows) == 8, "what was not measured is left out"
    assert [row["said"] for row in matrix.specs[0]["datasets"]["rows"]][:3] == ["71%", "66%", "62%"]
    behind = charts.tables_behind(fake_checks()[4])
    assert [row[0] for table in behind for row in table.rows] == ["n train"], "the chart has the rest"


def test_probes_features_and_repairs_are_drawn() -> None:
    drawn = charts_of(*fake_checks())
    assert [row[:2] for row in drawn["probe-points"].table.rows] == [("length", "12.0%"), ("typos", "−3.0%")], (
        "points only, the largest first"
    )
    assert [row[0] for row in drawn["explain-features"].table.rows] == ["log characters", 'says "sorry"']
    scale, nats = drawn["repair-scale"], drawn["repair-nats"]
    assert [row[0] for row in scale.table.rows] == ["accuracy", "calibration error"]
    assert scale.table.rows[0][1:4] == ("66%", "82%", "16.0%")
    assert scale.table.rows[0][-1] == "better"
    assert [row["verdict"] for row in scale.specs[0]["datasets"]["rows"]] == ["better", "worse"]
    assert [row[0] for row in nats.table.rows] == ["log loss"]


def test_benchmarks_are_drawn_beside_their_chance_and_length_alone() -> None:
    chart = charts_of(*fake_checks())["benchmark-scores"]
    assert chart.table.columns == ("what", "estimate", "95% interval", "n", "chance")
    assert chart.table.rows == [
        ("rewardbench2", "70%", "[64, 76]", "200", "25%"), ("Math", "60%", "[54, 66]", "200", "25%"), ("Ties", "80%", "[74, 86]", "200", "1.0%"),
        ("length alone", "40%", "[34, 46]", "200", "–"),
    ]  # fmt: skip
    (spec,) = chart.specs
    assert {layer["mark"]["type"] for layer in spec["layer"]} == {"rule", "tick", "point"}
    assert [row["kind"] for row in spec["datasets"]["rows"]][-1] == "length alone"


def test_judges_are_drawn_one_by_one_and_both_sides_of_style() -> None:
    drawn = charts_of(*fake_checks())
    assert [row[:2] for row in drawn["judges-gold"].table.rows] == [("good", "90%"), (NASTY, "50%")]
    assert [row[1] for row in drawn["judges-position"].table.rows] == ["50%", "80%"]
    style = drawn["judges-style"].table.rows
    assert [row[:3] for row in style[:2]] == [
        ("the shorter is better: good", "90%", "[84, 96]"),
        ("the longer is better: good", "88%", "[82, 94]"),
    ]
    assert [row[1] for row in style[2:]] == ["20%", "80%"]
    alone = Finding(
        code="judges/style", title="x", estimate=0.7, low=0.6, high=0.8, n=9, unit="share",
        details={"judges": [{"judge": "j", "estimate": 0.7, "low": 0.6, "high": 0.8, "n": 9, "what": "the longer one wins"}]},
    )  # fmt: skip
    assert charts_of(alone)["judges-style"].table.rows == [("j", "70%", "[60, 80]", "9")]
    assert "without people's word" in charts_of(alone)["judges-style"].text


def test_loopholes_lie_right_and_below_and_attacks_are_shares_of_families() -> None:
    drawn = charts_of(*fake_checks())
    assert drawn["loophole-ways"].table.rows == [("insertion", NASTY, "gold", "0.800", "−0.600", "disowned")], (
        "what has no number is left out"
    )
    assert [row[:3] for row in drawn["attack-families"].table.rows] == [("insertion", "90%", "[84, 96]"), ("role play", "10%", "[4, 16]")]


def test_what_the_fit_foresees_and_what_more_judgments_bring_are_curves() -> None:
    drawn = charts_of(*fake_checks())
    alarm, learning = drawn["optimisation-alarm"], drawn["learning-curve"]
    assert [row[0] for row in alarm.table.rows] == ["1", "2", "4", "8", "16", "32"]
    assert alarm.table.rows[3][1:] == ("0.9", "[0.6, 1.2]")
    assert "the dashed line is where to stop" in alarm.text
    assert [layer["mark"]["type"] for layer in alarm.specs[0]["layer"]] == ["area", "line", "point", "rule"]
    assert drawn["optimisation-drift"].table.rows[-1] == ("8", "0.9", "[0.6, 1.2]")
    assert "optimisation-outliers" not in drawn
    assert [row[0] for row in learning.table.rows] == ["100", "200", "400", "800"]
    assert [layer["mark"]["type"] for layer in learning.specs[0]["layer"]] == ["area", "line", "point"], "nowhere to stop"
    calm = Finding(
        code="optimisation/alarm", title="x", estimate=0.1, n=400, unit="share", details={"curve": [{"n": 1, "gain": 0.0}], "stop_at": None}
    )
    assert charts_of(calm)["optimisation-alarm"].table.rows == [("1", "0.00", "–")]


def test_age_stages_and_usefulness_are_intervals() -> None:
    drawn = charts_of(*fake_checks())
    assert [row[:2] for row in drawn["decay"].table.rows] == [("2 x day", "75%"), ("4 x day", "70%"), ("6 x day", "65%")]
    assert [row[0] for row in drawn["attribution-stages"].table.rows] == ["observed", "asked"], "the costliest first"
    assert [row[1:3] for row in drawn["usefulness"].table.rows] == [("1.20", "[1.00, 1.40]"), ("0.4", "[0.2, 0.6]")]


def test_unconverged_fit_says_so(tmp_path: Path) -> None:
    report = replace(fake_report(3), fit=fake_report(3).fit | {"converged": False})
    assert "did NOT converge after 14 iterations" in written(report, tmp_path)


# ------------------------------------------------------------------------------------------------------------------ overview


def overview(*findings: Finding) -> str:
    return " ".join(documents._overview(replace(fake_report(3), findings=Findings(findings))))


def test_overview_has_five_to_eight_sentences_made_of_the_estimates() -> None:
    sentences = documents._overview(fake_report())
    assert 5 <= len(sentences) <= 8
    assert all(sentence.endswith(".") for sentence in sentences)
    text = " ".join(sentences)
    for part in (
        "1,104 raters gave 28,104 judgments",
        "About 7.2% [5.5, 8.9] (n = 1,104 raters)",
        "77.4%",
        "71.2% [69.4, 73.0] (n = 3,201)",
        "(longer) gets 61.0%, clearly less",
        "61% is noise, 25% is disagreement and 14% is ignorance",
        "Not computable from this data: intransitivity",
    ):
        assert part in text


def test_overview_compares_with_the_best_baseline_by_intervals() -> None:
    fit = Finding(code="accuracy", title="x", estimate=0.6, low=0.55, high=0.65, n=100, unit="share")
    near, above = (
        Finding(code="baseline/longer", title="x", estimate=e, low=e - 0.02, high=e + 0.02, n=100, unit="share") for e in (0.58, 0.8)
    )
    assert "their intervals overlap" in overview(fit, near)
    assert "clearly more" in overview(fit, near, above)
    assert "no baseline was computed" in overview(fit)
    paired = replace(near, code="baseline", details={"rule": "longer wins", "gain": 0.02, "gain_low": -0.01, "gain_high": 0.05})
    assert "(longer wins) gets 58.0%, so the fit is 2.0 points [−1.0, 5.0] better." in overview(fit, paired)
    below = replace(near, code="baseline", details={"rule": "longer wins", "gain": -0.027, "gain_low": -0.04, "gain_high": -0.014})
    assert "so the fit is 2.7 points [1.4, 4.0] worse." in overview(fit, below)


def test_overview_calls_human_agreement_a_ceiling_only_where_it_is_one() -> None:
    ceiling = Finding(code="ceiling", title="x", estimate=0.7, low=0.68, high=0.72, n=100, unit="share")
    below, above = (Finding(code="accuracy", title="x", estimate=e, low=e - 0.02, high=e + 0.02, n=100, unit="share") for e in (0.6, 0.8))
    assert "the ceiling that human agreement sets" in overview(ceiling, below)
    assert "ceiling" not in overview(ceiling, above)


def test_best_baseline_is_drawn_once() -> None:
    codes = ("baseline", "baseline/longer-wins", "accuracy/rater")
    findings = tuple(Finding(code=code, title="x", estimate=0.6, low=0.5, high=0.7, n=9, unit="share") for code in codes)
    chart = charts._draw_accuracy(Findings(findings))[0]
    assert chart is not None
    assert [row[0] for row in chart.table.rows] == ["the fit: mean over raters", "baseline: longer wins"]


def test_overview_repeats_the_finding_where_its_unit_is_another() -> None:
    assert "Mean slope is 0.8." in overview(Finding(code="rater-reliability", title="Mean slope is 0.8", estimate=0.8, unit="logits"))
    text = overview(Finding.not_applicable("accuracy", "x", "Too few prompts to hold any out. Much detail follows."))
    assert "accuracy (too few prompts to hold any out)" in text


# ------------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "unit", "low", "high", "text"),
    [
        (0.712, "share", 0.694, 0.73, "71.2%"),
        (0.712, "share", 0.5, 0.9, "71%"),
        (0.25, "share", None, None, "25%"),
        (0.0003, "share", None, None, "<0.1%"),
        (0.9997, "share", 0.9995, 0.9999, ">99.9%"),
        (0.0, "share", 0.0, 0.01, "0%"),
        (1.0, "share", 0.98, 1.0, "100%"),
        (-0.021, "share", -0.04, -0.002, "−2.1%"),
        (0.41, "alpha", 0.38, 0.44, "0.41"),
        (0.5612, "nats", 0.5482, 0.5742, "0.561"),
        (-1.21, "logits", -1.25, -1.17, "−1.21"),
        (12345.0, "count", None, None, "12,345"),
        (12345, None, None, None, "12,345"),
        (1234.5, "seconds", 1100.0, 1300.0, "1,234"),
        (math.nan, "share", None, None, "–"),
        (None, None, None, None, "–"),
        (True, None, None, None, "–"),
        (0.0, None, None, None, "0.00"),
    ],
)
def test_numbers_read_well(value: Any, unit: str | None, low: float | None, high: float | None, text: str) -> None:
    assert words.figure(value, unit, low, high) == text


def test_interval_bars_share_a_scale() -> None:
    assert documents._bar(0.5, 0.25, 0.75, "share") == {"low": 26.0, "high": 74.0, "at": 50.0, "left": "0", "right": "100%"}
    assert documents._bar(0.5, -1.0, 2.0, "logits") is None, "its ends would mean nothing"
    assert documents._bar(0.5, None, 0.7, "share") is None
    assert documents._bar(-0.1, -0.2, 0.1, "alpha") is None


# ---------------------------------------------------------------------------------------------------------------------- card


@pytest.mark.parametrize("make", [fake_report, nasty_report, bare_report])
def test_card_has_front_matter_and_no_empty_field(make: Any, tmp_path: Path) -> None:
    write_card(make(), tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    for tag in ("seamark", "reward-model", "rlhf"):
        assert f"\n- {tag}\n" in front
    assert "license" not in front
    tables = [line for line in body.splitlines() if line.startswith("|") and line != "| | |"]
    assert len(tables) > 10
    for line in tables:
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        assert all(cell.strip() for cell in cells), line
    for heading in (
        "The data",
        "Whose values, by what rule",
        "Intended use",
        "What was fitted",
        "Limits",
        "Access",
        "Findings",
        "How to get this again",
    ):
        text = body.split(f"## {heading}\n")[1].split("\n## ")[0]
        assert len(text.strip()) > 20, heading
    for word in ("black-box", "outside-the-box"):
        assert word in body
    assert "None" not in body
    assert card.endswith("\n")


def test_card_front_matter_is_yaml_with_the_measured_accuracy(tmp_path: Path, require: Require) -> None:
    yaml = require("yaml", DEV)
    write_card(replace(nasty_report(), source="hf://datasets/org/prefs@abc/*.parquet"), tmp_path / "card.md")
    front = yaml.safe_load((tmp_path / "card.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["datasets"] == ["org/prefs"]
    result = front["model-index"][0]["results"][0]
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.712, "name": "Held-out accuracy"}
    assert result["dataset"]["type"] == "org/prefs"


def test_card_is_stamped_and_keeps_untrusted_text_as_text(tmp_path: Path) -> None:
    write_card(nasty_report(), tmp_path / "card.md")
    body = (tmp_path / "card.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    assert "Unsigned: not releasable." in body
    outside_fences = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside_fences
    report = replace(fake_report(3), charter_toml='x = """\n```\n````\n"""', charter_signed=True)
    write_card(report, tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "`````toml" in card
    assert "not releasable" not in card


def test_addresses_in_a_card_are_not_links() -> None:
    assert "https://" not in documents._md("see https://evil.example")
    assert documents._md("a|b *c* [d](e) <f>") == r"a\|b \*c\* \[d\](e) &lt;f&gt;"


# ------------------------------------------------------------------------------------------------------------------- imports


def test_slow_libraries_are_imported_only_when_a_report_is_written() -> None:
    import subprocess
    import sys

    code = "import sys, seamark.rendering; print(sorted({'altair', 'jinja2', 'torch'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------------------- browser

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


@pytest.fixture(scope="module")
def browser(chromium: str, require: Require) -> Iterator[Any]:
    playwright = require("playwright.sync_api", DEV)
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield opened
        opened.close()


class Visit:
    """A page that was opened, with what it complained of and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.chart')].every(c => c.dataset.drawn || c.classList.contains('failed'))"
        )

    def colour(self, selector: str, name: str) -> str:
        return self.page.evaluate("([s, n]) => getComputedStyle(document.querySelector(s))[n]", [selector, name])


@pytest.mark.parametrize(
    ("make", "width", "scheme"),
    [
        (fake_report, 390, "dark"),
        (nasty_report, 1200, "light"),
        (bare_report, 800, "light"),
        *(
            pytest.param(make, width, scheme, marks=pytest.mark.slow)
            for make, width, scheme in (
                (fake_report, 390, "light"), (nasty_report, 1200, "dark"), (bare_report, 800, "dark"),
                (fake_report, 1200, "light"), (fake_report, 1200, "dark"),
            )
        ),
    ],
)  # fmt: skip
def test_browser_draws_every_chart_without_a_complaint_or_request(browser: Any, tmp_path: Path, make: Any, width: int, scheme: str) -> None:
    write_report(make(), tmp_path / "report.html")
    visit = Visit(browser, tmp_path / "report.html", color_scheme=scheme, viewport={"width": width, "height": 900})
    page = visit.page
    page.wait_for_timeout(200)
    assert visit.complaints == []
    assert visit.requests == [(tmp_path / "report.html").as_uri()]
    assert (
        page.locator(".chart svg").count()
        == page.locator(".chart").count()
        == len(specs_of((tmp_path / "report.html").read_text(encoding="utf-8")))
    )
    marks = page.evaluate(
        "() => [...document.querySelectorAll('.chart svg')].map(s => s.querySelectorAll('[role=graphics-symbol] path, path').length)"
    )
    assert all(count > 3 for count in marks)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.close()


def test_browser_colours_follow_scheme_toggle_and_print(browser: Any, tmp_path: Path) -> None:
    write_report(fake_report(50), tmp_path / "report.html")
    visit = Visit(browser, tmp_path / "report.html", color_scheme="dark")
    page, point = visit.page, "#chart-style-effects-1 .mark-symbol path"
    dark, paper = visit.colour(point, "fill"), visit.colour("body", "backgroundColor")
    page.click("#theme")  # auto to light
    light = visit.colour(point, "fill")
    assert light != dark
    assert visit.colour("body", "backgroundColor") != paper
    page.click("#theme")
    assert (visit.colour(point, "fill"), visit.colour("body", "backgroundColor")) == (dark, paper)
    page.emulate_media(media="print", color_scheme="dark")
    assert visit.colour(point, "fill") == light
    assert visit.colour("body", "backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 20_000
    page.close()


def test_browser_policy_stops_foreign_code_and_network(browser: Any, tmp_path: Path) -> None:
    write_report(fake_report(3), tmp_path / "report.html")
    visit = Visit(browser, tmp_path / "report.html")
    visit.page.evaluate("() => { const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s); }")
    assert visit.page.evaluate("window.hit") is None
    assert visit.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'went', () => 'stopped')") == "stopped"
    assert any("Content Security Policy" in text for text in visit.complaints)
    visit.page.close()


def test_browser_keyboard_reaches_the_tables(browser: Any, tmp_path: Path) -> None:
    write_report(fake_report(3), tmp_path / "report.html")
    visit = Visit(browser, tmp_path / "report.html")
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the overview"
    summary = page.locator("details.twin summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.twin table").first.is_visible()
    assert page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i)") == []
    page.close()


def test_browser_without_scripts_shows_words_and_tables(browser: Any, tmp_path: Path) -> None:
    write_report(fake_report(3), tmp_path / "report.html")
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator(".overview li").count() >= 5
    assert page.locator("noscript").first.is_visible()
    assert not page.locator("#theme").is_visible()
    page.locator("details.twin summary").first.click()
    assert page.locator("details.twin table").first.is_visible()
    page.close()
