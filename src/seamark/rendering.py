"""What a study says, for people and machines: report.html, findings.json and card.md.

Conventions
-----------
Everything in a `Report` that came from data (file names, rater ids, prompts) is untrusted: it is text everywhere, escaped once, where
it leaves (Jinja's autoescape for HTML, `_embed` for JSON in HTML, `_md` for Markdown). The report is one file that may not
fetch anything: its Content-Security-Policy allows the scripts and the style it was written with, by hash, and nothing else.
Colours of charts are CSS variables, so a chart follows light, dark and print without being drawn again.

The overview says sentences of its own where a number can mean one thing only: a share under `accuracy` and `baseline/...` is the
share of held-out judgments predicted, under `ceiling` the share of answers that the other raters' majority gives, under
`rater-reliability` the share of raters who cannot be told from chance; `doubts` has its shares in the details. For everything else
it repeats the finding's own sentence. Charts come from `Finding.details`; a row that lacks a number or holds one that is not
finite is left out, and a chart without rows is left out, so that a half-filled study still gets its report.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamark.checks.findings import SCHEMA_VERSION, VERDICTS, Finding, Findings

if TYPE_CHECKING:  # imported where it is used, as altair is: 0.1 s and 0.7 s that most commands do not need
    import jinja2

Row = dict[str, Any]
"""One row of a chart's data, JSON-ready."""

MAX_RATERS = 400
"""Raters drawn one by one; beyond it the lines merge into a band and a histogram says more."""
MAX_NAMED_RATERS = 30
"""Raters whose names fit beside the chart."""
MAX_POINTS = 800
DATA_FIELDS = ("n_judgments", "n_responses", "n_prompts", "n_raters", "fingerprint")
"""The fields of `data` in findings.json."""

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-interpreter.min.js", "report.js")
_HEADINGS = {
    "blocking": "Blocking",
    "warning": "Warnings",
    "notice": "Worth knowing",
    "ok": "Fine",
    "not_applicable": "Not computable from this data",
}
_DRAWN = {
    "rater-reliability": ("raters", "histogram"),
    "length": ("curve", "points"),
    "calibration": ("bins",),
    "doubts": ("shares", "logits", "by_gap"),
}
"""Keys of `Finding.details` that have a chart, and so a table twin there."""
_DOUBTS = {
    "noise": ("noise", "var(--c-noise)"),
    "disagreement": ("disagreement", "var(--c-disagreement)"),
    "noise_and_disagreement": ("noise or disagreement", "var(--c-either)"),
    "ignorance": ("ignorance", "var(--c-ignorance)"),
}
_RATERS = {
    "careful": ("var(--c-1)", "circle"),
    "unclear": ("var(--c-0)", "diamond"),
    "at chance": ("var(--c-2)", "square"),
    "opposed": ("var(--c-3)", "triangle-up"),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a study has to say; built by the study, written by the functions below."""

    title: str
    """Usually the file's name."""
    source: str
    format: str
    created: str
    """ISO 8601 date and time."""
    command: str
    """How to get this report again, e.g. seamark study prefs.jsonl -o out --seed 0."""
    versions: dict[str, str]
    seed: int
    data: dict[str, Any]
    """n_judgments, n_responses, n_prompts, n_raters (null where raters are not recorded), fingerprint."""
    findings: Findings
    charter_toml: str
    charter_signed: bool
    fit: dict[str, Any]
    """utility, people, outcomes, effects, converged, iterations, decrement, parameters, notes; or the reason why nothing was fitted."""
    skipped: tuple[str, ...] = ()
    """What was left out, each with its reason."""
    notes: tuple[str, ...] = ()


def write_report(report: Report, path: str | Path) -> None:
    """The report as one self-contained HTML file: no network, light and dark, every chart with a table of the same numbers.

    A picture of it needs no script: chromium --headless --screenshot=report.png --window-size=1200,1400 report.html
    """
    from markupsafe import Markup

    style = _read("report.css")
    scripts = [_read(name) for name in _SCRIPTS]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    sections = _sections(report.findings)
    text = (
        _environment(escape=True)
        .get_template("report.html.j2")
        .render(
            report=report,
            policy=policy,
            style=Markup(style),
            chart_style=json.loads(_read("charts.json")),
            scripts=[Markup(script) for script in scripts],
            licences=_read("vendor/LICENSES.txt"),
            overview=_overview(report),
            counts=_counts(report.data),
            groups=_groups(report.findings),
            tally={verdict: sum(f.verdict == verdict for f in report.findings) for verdict in VERDICTS},
            sections=sections,
            parameters=_parameters(report.fit),
            fit=_fit_facts(report.fit),
            fit_reason=_fit_reason(report.fit),
            fit_notes=[str(note) for note in report.fit.get("notes") or ()],
        )
    )
    # Undecodable bytes of file names arrive as lone surrogates, which UTF-8 refuses.
    Path(path).write_bytes(text.encode("utf-8", "replace"))


def write_findings(report: Report, path: str | Path) -> None:
    """The findings as JSON in the shape of findings.schema.json.

    Raises
    ------
    ValueError, TypeError
        A finding holds something that JSON cannot (nan, an array): a bug of the check that made it.
    """
    document = {
        "version": SCHEMA_VERSION,
        "data": {name: report.data.get(name) for name in DATA_FIELDS},
        "findings": [finding.to_dict() for finding in report.findings],
    }
    _require_shape(document)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # A lone surrogate becomes the six characters of its JSON escape.
    Path(path).write_bytes(text.encode("utf-8", "backslashreplace"))


def write_card(report: Report, path: str | Path) -> None:
    """The reward-model card: Markdown with Hugging Face front matter, saying whose values, by what rule, and what it cannot say."""
    accuracy = report.findings.get("accuracy")
    measured = accuracy if accuracy is not None and accuracy.unit == "share" and accuracy.estimate is not None else None
    hub = re.match(r"hf://datasets/([\w.-]+/[\w.-]+?)(?=[@/]|$)", report.source)
    text = (
        _environment(escape=False)
        .get_template("card.md.j2")
        .render(
            report=report,
            dataset=hub.group(1) if hub else None,
            measured=measured,
            counts=_counts(report.data),
            overview=_overview(report),
            findings=report.findings.by_severity(),
            limits=[f for f in report.findings.by_severity() if f.verdict in ("blocking", "warning")],
            unknown=[f for f in report.findings if f.verdict == "not_applicable"],
            fit=_fit_facts(report.fit),
            fit_reason=_fit_reason(report.fit),
            fence="`" * (3 + max((len(run) for run in re.findall(r"`{3,}", report.charter_toml + report.command)), default=0)),
        )
    )
    Path(path).write_bytes(text.encode("utf-8", "replace"))


# ---------------------------------------------------------------------------------------------------------------- plumbing


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A Content-Security-Policy source that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _environment(*, escape: bool) -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named: dict[str, Callable[..., Any]] = {"embed": _embed, "md": _md, "yaml": _yaml, "count": _count, "figure": _figure, "day": _day}
    filters: Any = environment.filters  # declared as the union of jinja2's own signatures
    filters.update(named | {"interval": _interval, "bar": _bar, "tables": _tables_behind})
    return environment


def _embed(value: Any) -> str:
    """JSON that can stand in a script element: no character of it can end the element or start a comment."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _md(value: Any) -> str:
    """Untrusted text inside a Markdown line or table cell."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|#~$!])", r"\\\1", text)
    # A renderer turns bare addresses into links; an invisible word joiner breaks that, without changing how they read.
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])", "\\1\u2060", text)


def _yaml(value: Any) -> str:
    """A YAML scalar: JSON's strings are YAML's double-quoted ones."""
    return json.dumps(str(value).encode("utf-8", "replace").decode())


def _require_shape(document: dict[str, Any]) -> None:
    """Fail on what findings.schema.json would refuse; the schema itself is checked in the tests, so jsonschema stays out of the core."""
    for name in DATA_FIELDS[:3]:
        if not isinstance(document["data"][name], int):
            raise ValueError(f"findings.json: data.{name} is {document['data'][name]!r}, not a count")
    for finding in document["findings"]:
        if finding["verdict"] not in VERDICTS:
            raise ValueError(f"finding {finding['code']}: verdict is {finding['verdict']!r}")
        if finding["verdict"] == "not_applicable" and (finding["estimate"] is not None or not finding["reason"]):
            raise ValueError(f"finding {finding['code']}: not applicable takes a reason and no estimate")


# ---------------------------------------------------------------------------------------------------------- numbers to text


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> str:
    return f"{value:,.0f}" if _finite(value) else "–"


def _decimals(value: float, low: Any, high: Any) -> int:
    """Digits after the point: as many as half the interval has to its first digit, one more where that is a 1; else three in all."""
    if _finite(low) and _finite(high) and high > low:
        place = math.floor(math.log10((high - low) / 2))
        return min(4, max(0, -place + ((high - low) / 2 < 2 * 10.0**place)))
    return min(4, max(0, 2 - math.floor(math.log10(abs(value))))) if value else 2


def _percent(value: float, *, fine: bool) -> str:
    """A share as per cent, with one decimal if fine; 0% and 100% are kept for shares that are exactly that."""
    text = f"{100 * value:.{1 if fine and value not in (0, 1) else 0}f}"
    if 0 < value < 1 and float(text) in (0, 100):
        text = f"{100 * value:.1f}"
        if float(text) in (0, 100):
            return "<0.1%" if value < 0.5 else ">99.9%"
    return f"{text}%"


def _figure(value: Any, unit: str | None = None, low: Any = None, high: Any = None) -> str:
    """A number as people read it: shares as per cent, counts with separators, others to the digits their interval allows."""
    if not _finite(value):
        return "–"
    if unit == "count" or (isinstance(value, int) and unit != "share"):
        return f"{value:,.0f}".replace("-", "−")
    decimals = _decimals(value, low, high)
    if unit == "share":
        fine = high - low < 0.1 if _finite(low) and _finite(high) else 0 < abs(value) < 0.1
        return _percent(value, fine=fine).replace("-", "−")
    return f"{value:,.{decimals}f}".replace("-", "−")


def _interval(low: Any, high: Any, unit: str | None = None) -> str:
    """The 95% interval in words, or nothing."""
    if not (_finite(low) and _finite(high)):
        return ""
    return f"{_figure(float(low), unit, low, high)} to {_figure(float(high), unit, low, high)}"


def _with_interval(finding: Finding, units: str = "") -> str:
    """Estimate, interval and n in one phrase: 71.2% (69.0% to 73.4%, n = 3,201)."""
    inside = [_interval(finding.low, finding.high, finding.unit)] if _interval(finding.low, finding.high, finding.unit) else []
    if finding.n is not None:
        inside.append(f"n = {finding.n:,}{' ' + units if units else ''}")
    number = _figure(finding.estimate, finding.unit, finding.low, finding.high)
    return f"{number} ({', '.join(inside)})" if inside else number


def _day(created: str) -> str:
    """2026-03-01T10:20:30+00:00 as 2026-03-01 10:20."""
    return created[:16].replace("T", " ") if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", created) else created


def _plain(value: Any) -> str:
    """A cell of a table about which nothing is known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _finite(value):
        return _count(value) if isinstance(value, int) else _figure(value)
    return "–" if value is None or isinstance(value, float) else str(value)


def _bar(estimate: Any, low: Any, high: Any, unit: str | None) -> dict[str, float] | None:
    """Where an interval, its point and its zero stand on a line from 0 to 100; None where there is no interval to draw."""
    if not (_finite(estimate) and _finite(low) and _finite(high)):
        return None
    first, last = min(low, estimate, 0.0), max(high, estimate, 0.0)
    if unit == "share" and first >= 0 and last <= 1:
        first, last = 0.0, 1.0
    elif first == last:
        return None
    elif first < 0 < last:  # both signs: centre the zero, so that bars of one table compare
        first, last = -max(-first, last), max(-first, last)

    def place(value: float) -> float:
        return round(2 + 96 * (value - first) / (last - first), 2)

    return {"low": place(low), "high": place(high), "at": place(estimate), "zero": place(0.0)}


# -------------------------------------------------------------------------------------------------------- parts of the page


def _counts(data: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers under the title."""
    names = {"n_judgments": "judgments", "n_responses": "responses", "n_prompts": "prompts", "n_raters": "raters"}
    return [(_count(data.get(key)) if data.get(key) else "not recorded", name) for key, name in names.items()]


def _groups(findings: Findings) -> list[tuple[str, str, list[Finding]]]:
    """Findings by severity: verdict, heading, findings in the order of the checks."""
    groups = [(verdict, _HEADINGS[verdict], [f for f in findings if f.verdict == verdict]) for verdict in VERDICTS]
    return [group for group in groups if group[2]]


def _words(code: str) -> str:
    """accuracy/new-raters as people write it."""
    return code.replace("/", ": ").replace("-", " ").replace("_", " ")


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."


def _overview(report: Report) -> list[str]:
    """Five to eight sentences a newcomer can read."""
    data, findings = report.data, report.findings
    people = f"{data['n_raters']:,} raters gave" if data.get("n_raters") else "Raters who are not named gave"
    sentences = [
        f"{people} {_count(data.get('n_judgments'))} judgments of {_count(data.get('n_responses'))} responses "
        f"to {_count(data.get('n_prompts'))} prompts."
    ]
    missing: list[str] = []
    composers: dict[str, tuple[str, Callable[[Finding, Findings], str | None]]] = {
        "rater-reliability": ("how careful the raters are", _say_raters),
        "ceiling": ("how far people agree", _say_ceiling),
        "length": ("what length explains", lambda f, _: _sentence(f.title)),
        "accuracy": ("how well the fit predicts new judgments", _say_accuracy),
        "doubts": ("what kind of doubt is left", _say_doubts),
    }
    for code, (name, compose) in composers.items():
        finding = findings.get(code)
        if finding is None:
            missing.append(name)
        elif finding.verdict != "not_applicable":
            sentences.append(compose(finding, findings) or _sentence(finding.title))
    unknown = [f for f in findings if f.verdict == "not_applicable"]
    if unknown:
        reasons = [(f.reason or "no reason given").split(". ")[0].strip().rstrip(".") for f in unknown[:3]]
        first = [f"{_words(f.code)} ({reason[:1].lower()}{reason[1:]})" for f, reason in zip(unknown, reasons, strict=False)]
        more = f"; and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        sentences.append(f"Not computable from this data: {'; '.join(first)}{more}.")
    if missing:
        sentences.append(f"Not checked: {', '.join(missing)}.")
    blocking = findings.blocking
    if blocking:
        what = ", ".join(_words(f.code) for f in blocking[:4]) + ("" if len(blocking) <= 4 else ", ...")
        verdict = f"{len(blocking)} finding{'s stand' if len(blocking) > 1 else ' stands'} in the way of using this data: {what}"
    else:
        verdict = "Nothing found stands in the way of using this data"
    charter = "" if report.charter_signed else "; nobody has signed the charter yet, so the reward is not releasable"
    sentences.append(f"{verdict}{charter}.")
    return sentences


def _say_raters(finding: Finding, _: Findings) -> str | None:
    if finding.unit != "share" or finding.estimate is None:
        return None
    opposed = sum(row["verdict"] == "opposed" for row in _rows(finding.details, "raters", "slope", text=("verdict",)))
    against = f"; {opposed:,} answer{'s' if opposed == 1 else ''} against the others" if opposed else ""
    return f"About {_with_interval(finding, 'raters')} of the raters look random{against}."


def _say_ceiling(finding: Finding, findings: Findings) -> str | None:
    if finding.unit != "share" or finding.estimate is None:
        return None
    text = f"The majority of the other raters gives a rater's answer {_with_interval(finding)} of the time"
    fit = findings.get("accuracy")
    if fit is not None and fit.unit == "share" and (fit.estimate or 0.0) > finding.estimate:
        return f"{text}; a fit that pools many questions can do better than the few raters of one."
    return f"{text}: the ceiling that human agreement sets."


def _say_accuracy(finding: Finding, findings: Findings) -> str | None:
    if finding.unit != "share" or finding.estimate is None:
        return None
    text = f"The fit predicts {_with_interval(finding)} of held-out judgments"
    baselines = [f for f in findings if _is(f, "baseline") and f.unit == "share" and f.estimate is not None]
    if not baselines:
        return f"{text}; no baseline was computed to compare it with."
    best = max(baselines, key=lambda f: f.estimate or 0.0)
    name = _words(best.code.partition("/")[2]) or str(best.details.get("rule") or "")
    text += f"; the best baseline{f' ({name})' if name else ''} gets {_figure(best.estimate, 'share', best.low, best.high)}"
    gain, low, high = (best.details.get(key) for key in ("gain", "gain_low", "gain_high"))
    if (
        isinstance(gain, float) and isinstance(low, float) and isinstance(high, float)
    ):  # paired on the same judgments: sharper than two intervals
        points = f"{100 * gain:+.1f} points better ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")
        return f"{text}, so the fit is {points}."
    if finding.low is None or finding.high is None or best.low is None or best.high is None:
        return f"{text}."
    if finding.low > best.high:
        return f"{text}, clearly less."
    if finding.high < best.low:
        return f"{text}, clearly more."
    return f"{text}, and their intervals overlap."


def _say_doubts(finding: Finding, _: Findings) -> str | None:
    shares = finding.details.get("shares")
    parts = [(name, shares[key]) for key, (name, _) in _DOUBTS.items() if _finite(shares.get(key))] if isinstance(shares, dict) else []
    if not parts:
        return None
    listed = [f"{_figure(float(share), 'share')} is {name}" for name, share in parts]
    return f"Of the doubt about the next careful judgment, {', '.join(listed[:-1])}{' and ' if listed[:-1] else ''}{listed[-1]}."


def _fit_reason(fit: dict[str, Any]) -> str:
    return "" if fit.get("utility") else _sentence(str(fit.get("reason") or "Nothing was fitted; the study gives no reason"))


def _fit_facts(fit: dict[str, Any]) -> list[tuple[str, str]]:
    """What was fitted and whether it got there."""
    if _fit_reason(fit):
        return []
    facts = [("utility", str(fit["utility"]))]
    for name in ("people", "outcomes", "effects"):
        value = fit.get(name)
        if isinstance(value, dict):
            value = [f"{kind}: {family}" for kind, family in value.items()]
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) or "none"
        facts.append((name, str(value) if value else "none"))
    converged, steps, decrement = fit.get("converged"), fit.get("iterations"), fit.get("decrement")
    words = {True: "converged", False: "did NOT converge", None: "not stated"}[converged if isinstance(converged, bool) else None]
    if _finite(steps):
        words += f" after {_count(steps)} iterations"
    if _finite(decrement):
        words += f", Newton decrement {decrement:.1e}"
    return [*facts, ("convergence", words)]


def _parameters(fit: dict[str, Any]) -> list[dict[str, Any]]:
    return _rows(fit, "parameters", "estimate", optional=("low", "high"), text=("name", "unit"))[:200]


def _is(finding: Finding, code: str) -> bool:
    """Whether a finding is this check's or one of its slices."""
    return finding.code == code or finding.code.startswith(f"{code}/")


def _rows(
    details: dict[str, Any], key: str, *required: str, optional: Sequence[str] = (), text: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of a table in `details` whose required numbers are there; other numbers become None, texts become strings."""
    table = details.get(key)
    rows: list[dict[str, Any]] = []
    for row in table if isinstance(table, list | tuple) else ():
        if isinstance(row, dict) and all(_finite(row.get(name)) for name in required):
            numbers = {name: row[name] if _finite(row.get(name)) else None for name in (*required, *optional)}
            rows.append(numbers | {name: "" if row.get(name) is None else str(row[name]) for name in text})
    return rows


# ------------------------------------------------------------------------------------------------------------------ charts


@dataclass(frozen=True, kw_only=True)
class Table:
    """A chart's twin, or the numbers behind a finding: text only."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    texts: tuple[int, ...] = (0,)
    """Columns of words; the others are aligned as numbers."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture with the same numbers as a table."""

    code: str
    title: str
    text: str
    """How to read it."""
    specs: list[dict[str, Any]]
    """Vega-Lite; drawn under each other."""
    table: Table
    narrow: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    code: str
    title: str
    short: str
    """Its name in the navigation."""
    lead: list[Finding]
    """Findings whose sentences open the section."""
    charts: list[Chart]


def _sections(findings: Findings) -> list[Section]:
    """The sections that have something to draw."""
    parts = [
        ("raters", "The raters", "Raters", ("rater-reliability",), _draw_raters(findings)),
        ("length", "Length and style", "Length and style", ("length", "style"), _draw_length(findings)),
        ("calibration", "Calibration", "Calibration", ("calibration",), _draw_calibration(findings)),
        ("doubts", "The three doubts", "Doubts", ("doubts",), _draw_doubts(findings)),
        ("accuracy", "Accuracy, ceiling and baselines", "Accuracy", ("accuracy",), _draw_accuracy(findings)),
        ("asking", "How the questions were asked and answered", "Asking", ("position", "agreement"), _draw_asking(findings)),
    ]
    sections: list[Section] = []
    for code, title, short, leads, drawn in parts:
        charts = [chart for chart in drawn if chart is not None]
        if charts:
            lead = [found for found in map(findings.get, leads) if found is not None and found.verdict != "not_applicable"]
            sections.append(Section(code=code, title=title, short=short, lead=lead, charts=charts))
    return sections


def _altair() -> Any:
    """Altair, imported when the first chart is drawn; Any, because its generated signatures refuse shared keyword arguments."""
    import altair

    return altair


def _chart() -> Any:
    """A chart over the rows that `_spec` adds."""
    return _altair().Chart(_altair().NamedData(name="rows"))


def _spec(chart: Any, rows: Sequence[Row], description: str, *, height: Any = 260) -> dict[str, Any]:
    """A Vega-Lite document with its data; without $schema, which is a web address."""
    # Rows come in afterwards and the tests validate the specification: doing it here would cost each report a second.
    spec = chart.properties(width="container", height=height).to_dict(validate=False)
    del spec["$schema"]
    spec["datasets"] = spec.get("datasets", {}) | {"rows": rows}
    spec.pop("config", None)  # one style for all charts: templates/charts.json, which report.js passes to Vega-Lite
    return spec | {"description": description, "autosize": {"type": "fit-x", "contains": "padding"}}


def _scale(name: str, title: str | None, *, share: bool = False, ticks: int = 6, **scale: Any) -> dict[str, Any]:
    """A numeric axis as keyword arguments of alt.X and alt.Y."""
    axis = {"tickCount": ticks} | ({"format": "%"} if share else {})
    return {"field": name, "type": "quantitative", "title": title, "scale": {"zero": False} | scale, "axis": axis}


def _line_at(value: float, axis: str, dash: tuple[int, int] = (4, 3)) -> Any:
    """A reference line."""
    alt = _altair()
    line = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color="var(--ink-3)", strokeDash=list(dash), strokeWidth=1)
    return line.encode(**{axis: alt.datum(value)})


def _tips(**fields: tuple[str, str]) -> list[Any]:
    """What the pointer shows: field = (title, kind of number)."""
    formats = {"share": ".1%", "number": ",.3~f", "count": ",.0f"}
    kinds = {kind: {"type": "quantitative", "format": text} for kind, text in formats.items()} | {"text": {"type": "nominal"}}
    return [_altair().Tooltip(field=name, title=title, **kinds[kind]) for name, (title, kind) in fields.items()]


def _colour(field: str, colours: dict[str, str], **legend: Any) -> Any:
    alt = _altair()
    return alt.Color(field, type="nominal", scale=alt.Scale(domain=list(colours), range=list(colours.values())), **legend)


def _cells(row: Row, unit: str | None = None) -> tuple[str, str, str]:
    """Estimate, interval and n of a row, for tables."""
    low, high = row.get("low"), row.get("high")
    return _figure(float(row["estimate"]), unit, low, high), _interval(low, high, unit) or "–", _count(row.get("n"))


def _details(findings: Findings, code: str) -> dict[str, Any]:
    found = findings.get(code)
    return found.details if found else {}


def _draw_raters(findings: Findings) -> list[Chart | None]:
    """Each rater's slope, sorted; and all slopes as a histogram where there are too many to draw."""
    details = _details(findings, "rater-reliability")
    everyone = _rows(details, "raters", "slope", optional=("low", "high", "n"), text=("rater", "verdict"))
    if not everyone:
        return []
    chosen = sorted(everyone, key=lambda row: -(row["n"] or 0))[:MAX_RATERS]
    rows: list[Row] = []
    for rank, row in enumerate(sorted(chosen, key=lambda row: row["slope"]), 1):
        verdict = row["verdict"].replace("_", " ").replace("-", " ")
        rows.append(row | {"rank": rank, "verdict": verdict if verdict in _RATERS else "unclear"})
    present = [name for name in _RATERS if any(row["verdict"] == name for row in rows)]
    # One rater with three judgments has an interval that would flatten everybody else's: the frame holds all slopes and 96% of the ends.
    ends = sorted(end for row in rows for end in (row["low"], row["high"]) if end is not None) or [0.0]
    cut = len(ends) // 50
    first, last = min(rows[0]["slope"], ends[cut], 0.0), max(rows[-1]["slope"], ends[-1 - cut], 0.0)
    margin = 0.04 * (last - first or 1.0)

    alt = _altair()
    named = len(rows) <= MAX_NAMED_RATERS
    along, across = ("y", "x") if named else ("x", "y")
    slope = _scale("slope", "slope (1 = a careful rater)", domain=[first - margin, last + margin], nice=False)
    ranks: dict[str, Any] = {
        "title": "raters, from the lowest slope to the highest",
        "axis": {"grid": False, "tickCount": 8},
        "scale": {"nice": False},
    }
    if named:
        order = alt.Y(
            "rater",
            type="nominal",
            sort=alt.EncodingSortField("rank", order="descending"),
            title=None,
            axis={"labelLimit": 180, "grid": False},
        )
    else:
        order = alt.X("rank", type="quantitative", **ranks)
    colour = _colour("verdict", {name: _RATERS[name][0] for name in present})
    shape = alt.Shape("verdict", type="nominal", scale=alt.Scale(domain=present, range=[_RATERS[name][1] for name in present]))
    number = ("slope", "number")
    tips = _tips(rater=("rater", "text"), slope=number, low=("low", "number"), high=("high", "number"), n=("judgments", "count"))
    axis = {"x": alt.X, "y": alt.Y}[across]
    layers = [
        _line_at(0, across, (1, 0)),
        _line_at(1, across),
        _chart()
        .mark_rule(clip=True, opacity=0.55)
        .encode(**{along: order, across: axis(**slope | {"field": "low"}), f"{across}2": "high:Q"}, color=colour, tooltip=tips),
        _chart()
        .mark_point(size=46 if named else 20)
        .encode(**{along: order, across: axis(**slope)}, color=colour, shape=shape, tooltip=tips),
    ]
    found = findings.get("rater-reliability")
    total = max(len(everyone), found.n or 0) if found else len(everyone)
    drawn = f"{len(rows):,} raters" if total == len(rows) else f"the {len(rows):,} of {total:,} raters with the most judgments"
    counted = ", ".join(f"{sum(row['verdict'] == name for row in rows):,} {name}" for name in present)
    text = (
        f"Slopes of {drawn} with 95% intervals: {counted}. At 0 (solid line) answers do not depend on the responses; "
        "below 0 they run against the others; 1 (dashed) is a careful rater."
    )
    if cut and (ends[0] < first or ends[-1] > last):
        text += " Intervals that leave the frame are cut at its edge; the table has them in full."
    cells = [(str(row["rater"]), str(row["verdict"]), *_cells(row | {"estimate": row["slope"]})) for row in rows]
    columns = ("rater", "verdict", "slope", "95% interval", "judgments")
    height: Any = {"step": 20} if named else 300
    charts: list[Chart | None] = [
        Chart(
            code="rater-slopes",
            title="How much each rater can be relied on",
            text=text,
            specs=[_spec(alt.layer(*layers), rows, text, height=height)],
            table=Table(caption="Raters", columns=columns, rows=cells, texts=(0, 1)),
        )
    ]
    bins = _rows(details, "histogram", "low", "high", "count")
    if bins and len(everyone) > MAX_RATERS:
        tips = _tips(low=("from", "number"), high=("to", "number"), count=("raters", "count"))
        bars = _chart().mark_rect(color="var(--c-1)", stroke="var(--card)", strokeWidth=1).encode(
            x=alt.X(**_scale("low", "slope (1 = a careful rater)", ticks=8)),
                x2="high",
                y=alt.Y(**_scale("count", "raters", zero=True, ticks=4)),
            y2=alt.Y2Datum(0),
            tooltip=tips,
        )  # fmt: skip
        text = f"How many of all {_count(sum(row['count'] for row in bins))} raters have a slope in each range."
        cells = [(_figure(float(row["low"])), _figure(float(row["high"])), _count(row["count"])) for row in bins]
        spec = _spec(alt.layer(bars, _line_at(0, "x", (1, 0)), _line_at(1, "x")), bins, text, height=180)
        table = Table(caption="Slopes of all raters", columns=("from", "to", "raters"), rows=cells, texts=())
        charts.append(Chart(code="rater-histogram", title="All raters", text=text, specs=[spec], table=table))
    return charts


def _draw_length(findings: Findings) -> list[Chart | None]:
    """How often the longer response wins, utility against length, and what style goes along with winning."""
    alt = _altair()
    details = _details(findings, "length")
    charts: list[Chart | None] = []
    curve = _rows(details, "curve", "share", optional=("low", "high", "share_low", "share_high", "n"))
    if curve:
        axis = str(details.get("x") or "difference in length")
        times = "log" in axis and "ratio" in axis
        for row in curve:
            ends = [math.exp(end) if times and end is not None and abs(end) < 50 else end for end in (row["low"], row["high"])]
            row["range"] = _range(ends[0], ends[1])
        text = (
            "How often the longer of two responses wins, by how much longer it is. A flat line at 50% would mean that length plays no part."
        )
        x = alt.X(
            "range",
            type="nominal",
            sort=None,
            title="times as long" if times else axis,
            axis={"labelAngle": 0, "labelOverlap": True, "grid": False},
        )
        share = _scale(
            "share", "wins of the longer", share=True, ticks=5, domain=_frame(curve, ("share", "share_low", "share_high"), 0.5), nice=False
        )
        bounds = {"share_low": ("low", "share"), "share_high": ("high", "share")}
        tips = _tips(range=("longer by", "text"), share=("wins", "share"), **bounds, n=("comparisons", "count"))
        layers = [
            _line_at(0.5, "y"),
            _chart().mark_line(color="var(--c-1)", opacity=0.35).encode(x=x, y=alt.Y(**share)),
            _chart().mark_rule(color="var(--c-1)").encode(x=x, y=alt.Y(**share | {"field": "share_low"}), y2="share_high:Q", tooltip=tips),
            _chart().mark_point(color="var(--c-1)").encode(x=x, y=alt.Y(**share), tooltip=tips),
        ]
        shown = [{"estimate": row["share"], "low": row["share_low"], "high": row["share_high"], "n": row["n"]} for row in curve]
        cells = [(str(row["range"]), *_cells(estimate, "share")) for row, estimate in zip(curve, shown, strict=True)]
        columns = ("times as long" if times else axis, "wins of the longer", "95% interval", "comparisons")
        table = Table(caption="Wins by difference in length", columns=columns, rows=cells)
        spec = _spec(alt.layer(*layers), curve, text, height=240)
        charts.append(Chart(code="length-wins", title="Does the longer response win?", text=text, specs=[spec], table=table))
    points = _rows(details, "points", "log_length", "utility")[:MAX_POINTS]
    if points:
        text = f"The fitted utility of {len(points):,} responses against the logarithm of their length."
        dots = _chart().mark_point(color="var(--c-1)", opacity=0.4, size=24).encode(
            x=alt.X(**_scale("log_length", "log length", ticks=8)),
            y=alt.Y(**_scale("utility", "utility (logits)", ticks=5)),
            tooltip=_tips(log_length=("log length", "number"), utility=("utility", "number")),
        )  # fmt: skip
        cells = [(_figure(float(row["log_length"])), _figure(float(row["utility"]))) for row in points]
        table = Table(caption="Utility and length", columns=("log length", "utility (logits)"), rows=cells, texts=())
        charts.append(
            Chart(code="length-utility", title="Utility against length", text=text, specs=[_spec(dots, points, text)], table=table)
        )
    style = findings.get("style")
    effects = _rows(_details(findings, "style"), "effects", "estimate", optional=("low", "high", "n"), text=("feature",))
    charts.append(
        _draw_intervals(
            [row | {"label": row["feature"].replace("_", " ")} for row in effects],
            code="style-effects",
            title="What formatting goes along with winning",
            text="Each feature of style, the others held fixed. An association is not a cause.",
            axis=(style.unit if style else None) or "logits",
            reference=0.0,
            share=False,
        )
    )
    return charts


def _draw_calibration(findings: Findings) -> list[Chart | None]:
    """Predicted against observed, with the number of judgments behind each point."""
    alt = _altair()
    rows = _rows(_details(findings, "calibration"), "bins", "predicted", "observed", optional=("low", "high", "n"))
    if not rows:
        return []
    x = alt.X(**_scale("predicted", "predicted share", share=True, domain=[0, 1], padding=0, nice=False))
    y = _scale("observed", "observed share", share=True, domain=[0, 1], nice=False)
    bounds = {"low": ("low", "share"), "high": ("high", "share")}
    tips = _tips(predicted=("predicted", "share"), observed=("observed", "share"), **bounds, n=("judgments", "count"))
    ends = alt.Chart(alt.InlineData(values=[{"p": 0}, {"p": 1}]))
    layers = [
        ends.mark_line(color="var(--ink-3)", strokeDash=[4, 3], strokeWidth=1).encode(x="p:Q", y="p:Q"),
        _chart().mark_rule(color="var(--c-1)").encode(x=x, y=alt.Y(**y | {"field": "low"}), y2="high:Q", tooltip=tips),
        _chart().mark_point(color="var(--c-1)", size=60).encode(x=x, y=alt.Y(**y), tooltip=tips),
    ]
    text = (
        "Held-out judgments, grouped by what the fit predicted. On the dashed line it kept its promise; "
        "flatter than the line it was too sure, steeper too cautious. The bars count the judgments behind each point."
    )
    specs = [_spec(alt.layer(*layers), rows, text, height=320)]
    if all(row["n"] is not None for row in rows):
        x = alt.X(**_scale("predicted", None, share=True, domain=[0, 1], padding=0, nice=False))
        bars = (
            _chart()
            .mark_bar(color="var(--c-0)", size=10)
            .encode(x=x, y=alt.Y(**_scale("n", "judgments", zero=True, ticks=2)), tooltip=tips)
        )
        specs.append(_spec(bars, rows, "Number of held-out judgments behind each point.", height=80))
    cells = [(_figure(float(row["predicted"]), "share"), *_cells(row | {"estimate": row["observed"]}, "share")) for row in rows]
    table = Table(caption="Calibration", columns=("predicted", "observed", "95% interval", "judgments"), rows=cells, texts=())
    return [Chart(code="calibration-curve", title="Does 70% mean 70%?", text=text, specs=specs, table=table, narrow=True)]


def _draw_doubts(findings: Findings) -> list[Chart | None]:
    """Shares of the doubt: over all judgments, and by how far apart the two responses are."""
    alt = _altair()
    details = _details(findings, "doubts")
    shares: dict[str, Any] = details["shares"] if isinstance(details.get("shares"), dict) else {}
    logits: dict[str, Any] = details["logits"] if isinstance(details.get("logits"), dict) else {}
    charts: list[Chart | None] = []
    names = {key: f"{_DOUBTS[key][0]} {_figure(float(shares[key]), 'share')}" for key in _DOUBTS if _finite(shares.get(key))}
    if names:
        rows: list[Row] = [{"doubt": name, "share": shares[key], "order": order} for order, (key, name) in enumerate(names.items())]
        text = (
            "What the doubt about the next careful judgment is made of. Noise: the same person might answer otherwise. "
            "Disagreement: people differ. Ignorance: too little was asked."
        )
        if "noise_and_disagreement" in names:
            text += " Noise and disagreement cannot be told apart here, which takes several judgments per named rater: they are one band."
        bar = _chart().mark_bar(size=34).encode(
            x=alt.X(**_scale("share", "share of the doubt", share=True, nice=False), stack="normalize"),
            color=_colour("doubt", {name: _DOUBTS[key][1] for key, name in names.items()}),
            order="order:Q",
            tooltip=_tips(doubt=("doubt", "text"), share=("share", "share")),
        )  # fmt: skip
        sizes = {key: _figure(float(logits[key])) if _finite(logits.get(key)) else "–" for key in names}
        cells = [(_DOUBTS[key][0], _figure(float(shares[key]), "share"), sizes[key]) for key in names]
        table = Table(caption="Shares of the doubt", columns=("doubt", "share", "in logits"), rows=cells)
        specs = [_spec(bar, rows, text, height=40)]
        charts.append(Chart(code="doubt-shares", title="What the doubt is made of", text=text, specs=specs, table=table))
    gaps = _rows(details, "by_gap", optional=("gap_low", "gap_high", *_DOUBTS, "n"))
    present = [key for key in _DOUBTS if any(row[key] is not None for row in gaps)]
    if present:
        for row in gaps:
            whole = sum(row[key] or 0.0 for key in present)
            row["gap"] = _range(row["gap_low"], row["gap_high"])
            row["shares"] = {key: row[key] / whole for key in present if row[key] is not None and whole > 0}
        rows = [
            {"gap": row["gap"], "doubt": _DOUBTS[key][0], "share": row["shares"][key], "order": order, "n": row["n"]}
            for row in gaps
            for order, key in enumerate(present)
            if key in row["shares"]
        ]
        text = (
            "The same by how far apart the two responses are. Ignorance about pairs with a small gap is what the next questions can remove."
        )
        bars = _chart().mark_bar().encode(
            x=alt.X("gap", type="nominal", sort=None, title="gap (logits)", axis={"labelAngle": 0, "grid": False, "labelOverlap": True}),
            y=alt.Y(**_scale("share", "share of the doubt", share=True, ticks=5), stack="normalize"),
            color=_colour("doubt", {_DOUBTS[key][0]: _DOUBTS[key][1] for key in present}),
            order="order:Q",
            tooltip=_tips(gap=("gap", "text"), doubt=("doubt", "text"), share=("share", "share"), n=("n", "count")),
        )  # fmt: skip
        cells = [(str(row["gap"]), *(_figure(row["shares"].get(key), "share") for key in present), _count(row["n"])) for row in gaps]
        table = Table(caption="Doubt by gap", columns=("gap (logits)", *(_DOUBTS[key][0] for key in present), "n"), rows=cells)
        specs = [_spec(bars, rows, text, height=260)]
        charts.append(Chart(code="doubt-gaps", title="Where the doubt lies", text=text, specs=specs, table=table))
    return charts


def _draw_accuracy(findings: Findings) -> list[Chart | None]:
    """The ceiling, the fit, its slices and the baselines on one scale."""
    colours = {"human ceiling": "var(--c-3)", "the fit": "var(--c-1)", "baseline": "var(--c-0)"}
    rows: list[Row] = []
    for kind, code in zip(colours, ("ceiling", "accuracy", "baseline"), strict=True):
        found = [f for f in findings if _is(f, code) and f.unit == "share"]
        if code == "baseline" and len(found) > 1:  # the check's own finding repeats the best of its slices
            found = [f for f in found if f.code != code]
        for row in _estimates(found, code):
            part = {"rater": "mean over raters", "prompt": "mean over prompts"}.get(row["label"], row["label"])
            rows.append(row | {"label": f"{kind}: {part}" if part else kind, "kind": kind})
        if code == "accuracy" and len(found) == 1:
            words = ("slice", "name", "label", "value")
            slices = _rows(found[0].details, "slices", "estimate", optional=("low", "high", "n"), text=words)
            rows += [row | {"label": f"the fit: {next((row[word] for word in words if row[word]), '?')}", "kind": kind} for row in slices]
    text = (
        "Share of held-out judgments predicted, with 95% intervals; 50% (dashed) is a coin. The human ceiling is how often the majority "
        "of the other raters gives a rater's answer; with few raters per question, a fit that pools many questions can pass it."
    )
    axis = "share of held-out judgments"
    chart = _draw_intervals(
        rows,
        code="accuracy-intervals",
        title="How well are new judgments predicted?",
        text=text,
        axis=axis,
        reference=0.5,
        share=True,
        colours=colours,
    )
    return [chart]


def _draw_asking(findings: Findings) -> list[Chart | None]:
    """What describes the asking rather than the responses: position, ties, coverage; and agreement with its slices."""
    rows: list[Row] = []
    for code in ("position", "ties", "coverage", "intransitivity", "identical-pairs", "duplicates"):
        found = [f for f in findings if _is(f, code) and f.unit == "share"]
        name = code.replace("-", " ")
        rows += [row | {"label": f"{name}: {row['label']}" if row["label"] else name} for row in _estimates(found, code)]
        own = findings.get(code)
        if own is not None and own.unit != "share" and _finite(own.details.get("estimate_share")):
            rows.append({"label": name, "estimate": own.details["estimate_share"], "low": None, "high": None, "n": own.n})
    shares = _draw_intervals(
        [row for row in rows if 0 <= row["estimate"] <= 1],
        code="asking-shares",
        title="Position, ties and what was asked about",
        text="Shares with 95% intervals; what each is a share of stands in its finding. Position plays no part at 50% (dashed).",
        axis="share",
        reference=0.5,
        share=True,
    )
    agreement = [f for f in findings if _is(f, "agreement") and f.unit != "share"]
    unit = agreement[0].unit if agreement else None
    parts = [row | {"label": row["label"] or "all"} for row in _estimates([f for f in agreement if f.unit == unit], "agreement")]
    alphas = _draw_intervals(
        parts if len(parts) > 1 else [],
        code="agreement-parts",
        title="Agreement between raters, part by part",
        text="1 is full agreement, 0 (dashed) what chance alone would give.",
        axis=unit or "agreement",
        reference=0.0,
        share=False,
    )
    return [shares, alphas]


def _estimates(found: Iterable[Finding], code: str) -> list[Row]:
    """Findings of one check as rows; the label is what follows the code's slash."""
    return [
        {"label": _words(f.code[len(code) + 1 :]), "estimate": f.estimate, "low": f.low, "high": f.high, "n": f.n}
        for f in found
        if _finite(f.estimate)
    ]


def _draw_intervals(
    rows: list[Row], *, code: str, title: str, text: str, axis: str, reference: float, share: bool, colours: dict[str, str] | None = None
) -> Chart | None:
    """Points with intervals, one line each, in the order given."""
    if not rows:
        return None
    alt = _altair()
    domain = _frame(rows, ("estimate", "low", "high"), reference, limit=share)
    x = _scale("estimate", axis, share=share, domain=domain, nice=False)
    # Sorting by a list of labels would write them into a Vega expression, which untrusted text could break; a number cannot.
    rows = [row | {"order": place} for place, row in enumerate(rows)]
    y = alt.Y("label", type="nominal", sort=alt.EncodingSortField("order"), title=None, axis={"labelLimit": 230, "grid": False})
    colour: Any = alt.value("var(--c-1)")
    if colours:
        colour = _colour(
            "kind", {kind: value for kind, value in colours.items() if any(row.get("kind") == kind for row in rows)}, legend=None
        )
    kind = "share" if share else "number"
    tips = _tips(label=("what", "text"), estimate=("estimate", kind), low=("low", kind), high=("high", kind), n=("n", "count"))
    layers = [_line_at(reference, "x"), _chart().mark_point(size=70).encode(x=alt.X(**x), y=y, color=colour, tooltip=tips)]
    if any(row.get("low") is not None and row.get("high") is not None for row in rows):
        ends = {"x": alt.X(**x | {"field": "low"}), "x2": "high:Q"}
        layers.insert(1, _chart().mark_rule(strokeWidth=2.5).encode(**ends, y=y, color=colour, tooltip=tips))
    cells = [(str(row["label"]), *_cells(row, "share" if share else None)) for row in rows]
    table = Table(caption=title, columns=("what", "estimate", "95% interval", "n"), rows=cells)
    return Chart(code=code, title=title, text=text, specs=[_spec(alt.layer(*layers), rows, text, height={"step": 26})], table=table)


def _frame(rows: list[Row], fields: Sequence[str], reference: float, *, limit: bool = True) -> list[float]:
    """Ends of an axis that holds every number and the reference, with some room; shares stay near 0 to 1."""
    numbers = [reference, *(row[name] for row in rows for name in fields if row.get(name) is not None)]
    first, last = min(numbers), max(numbers)
    room = 0.06 * (last - first) or 0.05
    if not limit:
        return [first - room, last + room]
    return [max(-0.02, min(0.4, first - room)), min(1.02, max(0.6, last + room))]


def _range(low: float | None, high: float | None) -> str:
    """A bin in words; open ends have no number."""

    def short(value: float) -> str:
        return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")

    if low is None or high is None:
        return "all" if low is high else f"{short(low)} or more" if low is not None else f"below {short(high or 0.0)}"
    return f"{short(low)} to {short(high)}"


def _tables_behind(finding: Finding) -> list[Table]:
    """The tables in a finding's details that no chart shows; the first rows of long ones, findings.json has them all."""
    tables: list[Table] = []
    facts: list[tuple[str, ...]] = []
    for key, value in finding.details.items():
        if key in _DRAWN.get(finding.code, ()):
            continue
        name = str(key).replace("_", " ")
        items: list[Any] = list(value) if isinstance(value, list | tuple) else []
        rows = [row for row in items if isinstance(row, dict)]
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column, cell in row.items() if not isinstance(cell, dict | list)))[:10]
            caption = name + (f" (first 50 of {len(rows):,}; all are in findings.json)" if len(rows) > 50 else "")
            cells = [tuple(_plain(row.get(column)) for column in columns) for row in rows[:50]]
            texts = tuple(i for i, column in enumerate(columns) if any(isinstance(row.get(column), str) for row in rows[:50]))
            headings = tuple(str(column).replace("_", " ") for column in columns)
            tables.append(Table(caption=caption, columns=headings, rows=cells, texts=texts))
        elif isinstance(value, dict):
            facts += [(f"{name}: {part}", _plain(cell)) for part, cell in value.items() if not isinstance(cell, dict | list)][:50]
        elif items:
            facts.append((name, ", ".join(_plain(cell) for cell in items[:20]) + (", ..." if len(items) > 20 else "")))
        elif not isinstance(value, list | tuple):
            facts.append((name, _plain(value)))
    return [Table(caption="", columns=("what", "value"), rows=facts, texts=(0, 1)), *tables] if facts else tables
