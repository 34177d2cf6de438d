"""The documents of a study: report.html, findings.json and card.md.

Conventions
-----------
Everything in a `Report` that came from data (file names, rater ids, prompts) is untrusted: it is text everywhere, escaped once, where
it leaves (Jinja's autoescape for HTML, `_embed` for JSON in HTML, `_md` for Markdown). The report is one file that may not
fetch anything: its Content-Security-Policy allows the scripts and the style it was written with, by hash, and nothing else.

The overview says sentences of its own where a number can mean one thing only: a share under `accuracy` and `baseline/...` is the
share of held-out judgments predicted, under `ceiling` the share of answers that the other raters' majority gives, under
`rater-reliability` the share of raters who cannot be told from chance; `doubts` has its shares in the details. For everything else
it repeats the finding's own sentence.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamark.checks.findings import SCHEMA_VERSION, VERDICTS, Finding, Findings
from seamark.governance.disclosure import disclosure_rows, question_rows
from seamark.rendering.charts import draw_sections, tables_behind
from seamark.rendering.words import (
    DOUBTS,
    belongs_to,
    called,
    count,
    figure,
    finite,
    interval_of,
    rows_of,
    runs_of,
    said_decimals,
    sentence,
    spelled,
    typeset,
    with_interval,
)

if TYPE_CHECKING:
    import jinja2  # imported where it is used, as altair is: 0.1 s and 0.7 s that most commands do not need

    from seamark.records import Feedback

DATA_FIELDS = ("n_judgments", "n_responses", "n_prompts", "n_raters", "fingerprint")
"""The fields of `data` in findings.json."""

_TEMPLATES = Path(__file__).parents[1] / "templates"
_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-interpreter.min.js", "report.js")
_HEADINGS = {
    "blocking": "Blocking",
    "warning": "Warnings",
    "notice": "Worth knowing",
    "ok": "Fine",
    "not_applicable": "Not computable from this data",
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
    charter_hash: str = ""
    """Of every choice of the charter; empty where there is none."""
    valid_until: str = ""
    """Last day on which the reward may be used; empty where it does not expire."""
    fit: dict[str, Any]
    """utility, people, outcomes, effects, converged, iterations, decrement, parameters, notes; or the reason why nothing was fitted."""
    skipped: tuple[str, ...] = ()
    """What was left out, each with its reason."""
    notes: tuple[str, ...] = ()
    disclosures: dict[str, str] = field(default_factory=dict)
    """What is disclosed of data labour, feedback and use, by indicator (`seamark.governance.disclosure.INDICATORS`)."""
    answers: dict[str, str] = field(default_factory=dict)
    """Answers to the question bank, by name (`seamark.governance.registers.QUESTIONS`)."""


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
    sections = draw_sections(report.findings)
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
            overview=[typeset(text) for text in _overview(report)],
            counts=_counts(report.data),
            groups=_groups(report.findings),
            badge=_badge(report.findings),
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


def describe_data(feedback: Feedback) -> dict[str, Any]:
    """What findings.json says of the data: its sizes (raters are null where none are recorded) and its fingerprint."""
    return {
        "n_judgments": feedback.n_judgments,
        "n_responses": feedback.n_responses,
        "n_prompts": feedback.n_prompts,
        "n_raters": feedback.n_raters or None,
        "fingerprint": feedback.fingerprint,
    }


def findings_json(data: dict[str, Any], findings: Findings) -> str:
    """The findings as JSON in the shape of findings.schema.json.

    Raises
    ------
    ValueError, TypeError
        A finding holds something that JSON cannot (nan, an array): a bug of the check that made it.
    """
    document = {
        "version": SCHEMA_VERSION,
        "data": {name: data.get(name) for name in DATA_FIELDS},
        "findings": [finding.to_dict() for finding in findings],
    }
    _require_shape(document)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # a lone surrogate becomes the six characters of its JSON escape
    return text.encode("utf-8", "backslashreplace").decode()


def write_findings(report: Report, path: str | Path) -> None:
    """`findings_json` of the report, as a file."""
    Path(path).write_text(findings_json(report.data, report.findings), encoding="utf-8", newline="\n")


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
            board=_board(report.findings),
            disclosures=disclosure_rows(report.disclosures),
            questions=question_rows(report.answers),
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
    named: dict[str, Callable[..., Any]] = {"embed": _embed, "md": _md, "yaml": _yaml, "count": count, "figure": figure, "day": _day}
    filters: Any = environment.filters  # declared as the union of jinja2's own signatures
    filters.update(named | {"interval": interval_of, "bar": _bar, "tables": tables_behind, "said": said_decimals, "typeset": typeset})
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


def _day(created: str) -> str:
    """2026-03-01T10:20:30+00:00 as 2026-03-01 10:20."""
    return created[:16].replace("T", " ") if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", created) else created


_SCALES: dict[str | None, tuple[float, float, str, str]] = {"share": (0.0, 1.0, "0", "100%"), "alpha": (0.0, 1.0, "0", "1")}
"""Units whose ends mean something, and what stands at them; a bar on a scale of its own could not be compared with another."""


def _bar(estimate: Any, low: Any, high: Any, unit: str | None) -> dict[str, Any] | None:
    """Where an interval and its point stand on the unit's scale, from 0 to 100; None without an interval, or where it leaves the scale."""
    if not (finite(estimate) and finite(low) and finite(high)) or unit not in _SCALES:
        return None
    first, last, left, right = _SCALES[unit]
    if not first <= low <= estimate <= high <= last:
        return None

    def place(value: float) -> float:
        return round(2 + 96 * (value - first) / (last - first), 2)

    return {"low": place(low), "high": place(high), "at": place(estimate), "left": left, "right": right}


# -------------------------------------------------------------------------------------------------------- parts of the page


def _counts(data: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers under the title."""
    names = {"n_judgments": "judgments", "n_responses": "responses", "n_prompts": "prompts", "n_raters": "raters"}
    return [(count(data.get(key)) if data.get(key) else "not recorded", name) for key, name in names.items()]


def _groups(findings: Findings) -> list[tuple[str, str, list[Finding]]]:
    """Findings by severity: verdict, heading, findings in the order of the checks."""
    groups = [(verdict, _HEADINGS[verdict], [f for f in findings if f.verdict == verdict]) for verdict in VERDICTS]
    return [group for group in groups if group[2]]


def _overview(report: Report) -> list[str]:
    """Five to eight sentences a newcomer can read."""
    data, findings = report.data, report.findings
    people = f"{data['n_raters']:,} raters gave" if data.get("n_raters") else "Raters who are not named gave"
    sentences = [
        f"{people} {count(data.get('n_judgments'))} judgments of {count(data.get('n_responses'))} responses "
        f"to {count(data.get('n_prompts'))} prompts."
    ]
    missing: list[str] = []
    composers: dict[str, tuple[str, Callable[[Finding, Findings], str | None]]] = {
        "rater-reliability": ("how careful the raters are", _say_raters),
        "ceiling": ("how far people agree", _say_ceiling),
        "length": ("what length explains", lambda f, _: sentence(f.title)),
        "accuracy": ("how well the fit predicts new judgments", _say_accuracy),
        "doubts": ("what kind of doubt is left", _say_doubts),
    }
    for code, (name, compose) in composers.items():
        # the study's own come first; what another run found is not to be compared with it
        run = next((run for run in runs_of(findings) if run.get(code)), findings)
        finding = run.get(code)
        if finding is None:
            missing.append(name)
        elif finding.verdict != "not_applicable":
            sentences.append(compose(finding, run) or sentence(finding.title))
    unknown = [f for f in findings if f.verdict == "not_applicable"]
    if unknown:
        reasons = [(f.reason or "no reason given").split(". ")[0].strip().rstrip(".") for f in unknown[:3]]
        first = [f"{called(f)} ({reason[:1].lower()}{reason[1:]})" for f, reason in zip(unknown, reasons, strict=False)]
        more = f"; and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        sentences.append(f"Not computable from this data: {'; '.join(first)}{more}.")
    if missing:
        sentences.append(f"Not checked: {', '.join(missing)}.")
    added = [f for f in findings.blocking if f.about]
    if added:
        sentences.append(
            f"Of what was checked later, {len(added)} finding{'s are' if len(added) > 1 else ' is'} blocking: {', '.join(map(called, added[:4]))}."
        )
    blocking = findings.own.blocking
    open_question = too_little(findings.own)
    if blocking:
        what = ", ".join(called(f) for f in blocking[:4]) + ("" if len(blocking) <= 4 else ", ...")
        verdict = f"{len(blocking)} finding{'s stand' if len(blocking) > 1 else ' stands'} in the way of using this data: {what}"
    elif open_question:
        verdict = f"Too little to tell whether this data can be used: {open_question}"
    else:
        signal = findings.get("signal")
        empty = signal is not None and not signal.estimate
        verdict = (
            "There is no row to train on; nothing else found stands in the way of using this data"
            if empty
            else "Nothing found stands in the way of using this data"
        )
    charter = "" if report.charter_signed else "; nobody has signed the charter yet, so the reward is not releasable"
    sentences.append(f"{verdict}{charter}.")
    return sentences


_COIN = 0.5


def too_little(findings: Findings) -> str:
    """Why it cannot be said that the data can be used: nothing measured, or nothing learned; empty where it can."""
    measured = [f for f in findings if (f.code == "accuracy" or f.code.startswith("accuracy/")) and f.estimate is not None]
    if not measured:
        accuracy = findings.get("accuracy")
        why = (accuracy.reason if accuracy is not None else None) or "held-out accuracy was not computed"
        return f"{why[:1].lower()}{why[1:]}".rstrip(".")
    pairs = findings.get("accuracy")
    if pairs is not None and pairs.unit == "share" and pairs.low is not None and pairs.low <= _COIN:
        return "on held-out pairs the fit is not clearly better than a coin"
    return ""


def _badge(findings: Findings) -> tuple[str, str]:
    """The verdict on the whole, as a class and in words: green only where something was measured and nothing is in the way."""
    findings = findings.own
    n_warnings = sum(f.verdict == "warning" for f in findings)
    if findings.blocking:
        return "blocking", f"{len(findings.blocking)} blocking"
    if too_little(findings):
        return "not_applicable", "too little to tell"
    if n_warnings:
        return "warning", f"{n_warnings} warning{'s' if n_warnings > 1 else ''}"
    return "ok", "fine"


def verdict_in_words(findings: Findings) -> str:
    """The badge and what it rests on, for a terminal."""
    why = too_little(findings.own) if not findings.own.blocking else ""
    return _badge(findings)[1] + (f": {why}" if why else "")


def _board(findings: Findings) -> list[dict[str, Any]]:
    """The rows of the leaderboard, if there is one."""
    found = findings.get("leaderboard")
    return rows_of(found.details, "board", "utility", optional=("low", "high", "n"), text=("name",)) if found is not None else []


def _say_raters(finding: Finding, _: Findings) -> str | None:
    if finding.unit != "share" or finding.estimate is None:
        return None
    opposed = sum(row["verdict"] == "opposed" for row in rows_of(finding.details, "raters", "slope", text=("verdict",)))
    against = f"; {opposed:,} answer{'s' if opposed == 1 else ''} against the others" if opposed else ""
    return f"About {with_interval(finding, 'raters')} of the raters look random{against}."


def _say_ceiling(finding: Finding, findings: Findings) -> str | None:
    if finding.unit != "share" or finding.estimate is None:
        return None
    text = f"The majority of the other raters gives a rater's answer {with_interval(finding)} of the time"
    fit = findings.get("accuracy")
    if fit is not None and fit.unit == "share" and (fit.estimate or 0.0) > finding.estimate:
        return f"{text}; a fit that pools many questions can do better than the few raters of one."
    return f"{text}: the ceiling that human agreement sets."


def _say_accuracy(finding: Finding, findings: Findings) -> str | None:
    if finding.unit != "share" or finding.estimate is None:
        return None
    leakage = findings.get("leakage")
    seen = leakage is not None and leakage.verdict == "blocking"
    text = f"The fit predicts {with_interval(finding)} of {'judgments that it may have learned from' if seen else 'held-out judgments'}"
    baselines = [f for f in findings if belongs_to(f, "baseline") and f.unit == "share" and f.estimate is not None]
    if not baselines:
        return f"{text}; no baseline was computed to compare it with."
    best = max(baselines, key=lambda f: f.estimate or 0.0)
    name = spelled(best.code.partition("/")[2]) or str(best.details.get("rule") or "")
    text += f"; the best baseline{f' ({name})' if name else ''} gets {figure(best.estimate, 'share', best.low, best.high)}"
    gain, low, high = (best.details.get(key) for key in ("gain", "gain_low", "gain_high"))
    if isinstance(gain, float) and isinstance(low, float) and isinstance(high, float):
        # paired on the same judgments: sharper than two intervals
        ends = sorted((100 * low, 100 * high) if gain >= 0 else (-100 * low, -100 * high))
        between = f"[{ends[0]:.1f}, {ends[1]:.1f}]".replace("-", "−")
        return f"{text}, so the fit is {abs(100 * gain):.1f} points {between} {'better' if gain >= 0 else 'worse'}."
    if finding.low is None or finding.high is None or best.low is None or best.high is None:
        return f"{text}."
    if finding.low > best.high:
        return f"{text}, clearly less."
    if finding.high < best.low:
        return f"{text}, clearly more."
    return f"{text}, and their intervals overlap."


def _say_doubts(finding: Finding, _: Findings) -> str | None:
    shares = finding.details.get("shares")
    parts = [(name, shares[key]) for key, (name, _) in DOUBTS.items() if finite(shares.get(key))] if isinstance(shares, dict) else []
    if not parts:
        return None
    listed = [f"{figure(float(share), 'share')} is {name}" for name, share in parts]
    return f"Of the doubt about the next careful judgment, {', '.join(listed[:-1])}{' and ' if listed[:-1] else ''}{listed[-1]}."


def _fit_reason(fit: dict[str, Any]) -> str:
    return "" if fit.get("utility") else sentence(str(fit.get("reason") or "Nothing was fitted; the study gives no reason"))


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
    if finite(steps):
        words += f" after {count(steps)} iterations"
    if finite(decrement):
        words += f", Newton decrement {decrement:.1e}"
    return [*facts, ("convergence", words)]


def _parameters(fit: dict[str, Any]) -> list[dict[str, Any]]:
    return rows_of(fit, "parameters", "estimate", optional=("low", "high"), text=("name", "unit"))[:200]
