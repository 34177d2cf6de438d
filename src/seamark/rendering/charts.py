"""What a report draws: findings as charts, each with a table of the same numbers.

Charts come from `Finding.details`; a chart without rows is left out. Colours are CSS variables, so a chart follows light, dark
and print without being drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seamark.checks.findings import Finding, Findings
from seamark.rendering.words import DOUBTS, belongs_to, count, figure, finite, interval_of, plain, rows_of, runs_of, spelled

Row = dict[str, Any]
"""One row of a chart's data, JSON-ready."""

MAX_RATERS = 400
"""Raters drawn one by one; beyond it the lines merge into a band and a histogram says more."""
MAX_NAMED_RATERS = 30
"""Raters whose names fit beside the chart."""
MAX_POINTS = 800
MAX_BOARD = 60
"""Lines of the leaderboard that are drawn; its table has all."""
_DRAWN = {
    "rater-reliability": ("raters", "histogram"),
    "length": ("curve", "points"),
    "calibration": ("bins",),
    "doubts": ("shares", "logits", "by_gap"),
    "leaderboard": ("board",),
    "regret": ("groups",),
    "outvoted": ("groups",),
    "optimisation/best-of-n": ("curve",),
    "optimisation/tilt": ("curve",),
    "generalisation/matrix/*": ("rows", "columns", "estimate", "low", "high", "n"),
    "explain/features": ("features",),
    "repair": ("statistics",),
}
"""Keys of `Finding.details` that have a chart, and so a table twin there; * is any end of a code."""
_PRESSED = ("optimisation/best-of-n", "optimisation/tilt", "optimisation/regret")
_CHANGES = {"better": "var(--c-1)", "worse": "var(--c-2)", "no clear change": "var(--c-0)"}
_RATERS = {
    "careful": ("var(--c-1)", "circle"),
    "unclear": ("var(--c-0)", "diamond"),
    "at chance": ("var(--c-2)", "square"),
    "opposed": ("var(--c-3)", "triangle-up"),
}


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
    about: str = ""
    """Of what a later command has added, that command and what it was about."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one part of the report shows."""

    code: str
    title: str
    short: str
    """Its name in the navigation."""
    lead: list[Finding]
    """Findings whose sentences open the section."""
    charts: list[Chart]


def draw_sections(findings: Findings) -> list[Section]:
    """The sections that have something to draw; what later commands have added to a study is drawn beside it, each run by itself."""
    parts: tuple[tuple[str, str, str, tuple[str, ...], Callable[[Findings], list[Chart | None]]], ...] = (
        ("raters", "The raters", "Raters", ("rater-reliability",), _draw_raters),
        ("length", "Length and style", "Length and style", ("length", "style"), _draw_length),
        ("calibration", "Calibration", "Calibration", ("calibration",), _draw_calibration),
        ("doubts", "The three doubts", "Doubts", ("doubts",), _draw_doubts),
        ("whose", "Whose values: what the charter's choices cost whom", "Whose values", ("regret", "unsettled", "outvoted"), _draw_whose),
        ("accuracy", "Accuracy, ceiling and baselines", "Accuracy", ("accuracy",), _draw_accuracy),
        ("leaderboard", "Leaderboard", "Leaderboard", ("leaderboard",), _draw_board),
        ("generalisation", "Does it hold for what is new?", "Generalisation", ("generalisation",), _draw_generalisation),
        ("probes", "What the reward pays for besides content", "Probes", ("probe",), _draw_probes),
        (
            "explain",
            "Why the reward decides as it does",
            "Explained",
            ("explain/features", "explain/fidelity", "explain/influence", "explain/counterfactual"),
            _draw_features,
        ),
        ("optimisation", "Does the reward survive optimisation?", "Optimisation", _PRESSED, _draw_optimisation),
        ("repair", "What the repair changed", "Repair", ("repair",), _draw_repair),
        ("asking", "How the questions were asked and answered", "Asking", ("position", "agreement"), _draw_asking),
    )
    sections: list[Section] = []
    for code, title, short, leads, draw in parts:
        lead: list[Finding] = []
        charts: list[Chart] = []
        for number, run in enumerate(runs_of(findings)):
            if drawn := [_of_run(chart, number, run[0].about) for chart in draw(run) if chart is not None]:
                lead += [found for found in map(run.get, leads) if found is not None and found.verdict != "not_applicable"]
                charts += drawn
        if charts:
            sections.append(Section(code=code, title=title, short=short, lead=lead, charts=charts))
    return sections


def _of_run(chart: Chart, number: int, about: str) -> Chart:
    """A chart of what was added says of which run it is; its code, by which the page refers to it, is no other's."""
    return replace(chart, code=f"run-{number}-{chart.code}", about=about) if about else chart


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
    axis = {"tickCount": ticks} | ({"format": "%"} if share else {"format": ",d"} if scale.get("type") == "log" else {})
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
    return figure(float(row["estimate"]), unit, low, high), interval_of(low, high, unit) or "–", count(row.get("n"))


def _details(findings: Findings, code: str) -> dict[str, Any]:
    found = findings.get(code)
    return found.details if found else {}


def _draw_raters(findings: Findings) -> list[Chart | None]:
    """Each rater's slope, sorted; and all slopes as a histogram where there are too many to draw."""
    details = _details(findings, "rater-reliability")
    everyone = rows_of(details, "raters", "slope", optional=("low", "high", "n"), text=("rater", "verdict"))
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
    bins = rows_of(details, "histogram", "low", "high", "count")
    if bins and len(everyone) > MAX_RATERS:
        tips = _tips(low=("from", "number"), high=("to", "number"), count=("raters", "count"))
        bars = _chart().mark_rect(color="var(--c-1)", stroke="var(--card)", strokeWidth=1).encode(
            x=alt.X(**_scale("low", "slope (1 = a careful rater)", ticks=8)),
                x2="high",
                y=alt.Y(**_scale("count", "raters", zero=True, ticks=4)),
            y2=alt.Y2Datum(0),
            tooltip=tips,
        )  # fmt: skip
        text = f"How many of all {count(sum(row['count'] for row in bins))} raters have a slope in each range."
        cells = [(figure(float(row["low"])), figure(float(row["high"])), count(row["count"])) for row in bins]
        spec = _spec(alt.layer(bars, _line_at(0, "x", (1, 0)), _line_at(1, "x")), bins, text, height=180)
        table = Table(caption="Slopes of all raters", columns=("from", "to", "raters"), rows=cells, texts=())
        charts.append(Chart(code="rater-histogram", title="All raters", text=text, specs=[spec], table=table))
    return charts


def _draw_length(findings: Findings) -> list[Chart | None]:
    """How often the longer response wins, utility against length, and what style goes along with winning."""
    alt = _altair()
    details = _details(findings, "length")
    charts: list[Chart | None] = []
    curve = rows_of(details, "curve", "share", optional=("low", "high", "share_low", "share_high", "n"))
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
    points = rows_of(details, "points", "log_length", "utility")[:MAX_POINTS]
    if points:
        for row in points:
            row["characters"] = max(1, round(math.expm1(min(row["log_length"], 50.0))))
        text = f"The fitted utility of {len(points):,} responses against their length."
        dots = _chart().mark_point(color="var(--c-1)", opacity=0.4, size=24).encode(
            x=alt.X(**_scale("characters", "length in characters (each step doubles)", ticks=6, type="log", base=2, nice=False)),
            y=alt.Y(**_scale("utility", "utility (logits)", ticks=5)),
            tooltip=_tips(characters=("characters", "count"), utility=("utility", "number")),
        )  # fmt: skip
        cells = [(count(row["characters"]), figure(float(row["utility"]))) for row in points]
        table = Table(caption="Utility and length", columns=("characters", "utility (logits)"), rows=cells, texts=())
        charts.append(
            Chart(code="length-utility", title="Utility against length", text=text, specs=[_spec(dots, points, text)], table=table)
        )
    style = findings.get("style")
    effects = rows_of(_details(findings, "style"), "effects", "estimate", optional=("low", "high", "n"), text=("feature",))
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
    rows = rows_of(_details(findings, "calibration"), "bins", "predicted", "observed", optional=("low", "high", "n"))
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
    cells = [(figure(float(row["predicted"]), "share"), *_cells(row | {"estimate": row["observed"]}, "share")) for row in rows]
    table = Table(caption="Calibration", columns=("predicted", "observed", "95% interval", "judgments"), rows=cells, texts=())
    return [Chart(code="calibration-curve", title="Does 70% mean 70%?", text=text, specs=specs, table=table, narrow=True)]


def _draw_doubts(findings: Findings) -> list[Chart | None]:
    """Shares of the doubt: over all judgments, and by how far apart the two responses are."""
    alt = _altair()
    details = _details(findings, "doubts")
    shares: dict[str, Any] = details["shares"] if isinstance(details.get("shares"), dict) else {}
    logits: dict[str, Any] = details["logits"] if isinstance(details.get("logits"), dict) else {}
    charts: list[Chart | None] = []
    names = {key: f"{DOUBTS[key][0]} {figure(float(shares[key]), 'share')}" for key in DOUBTS if finite(shares.get(key))}
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
            color=_colour("doubt", {name: DOUBTS[key][1] for key, name in names.items()}),
            order="order:Q",
            tooltip=_tips(doubt=("doubt", "text"), share=("share", "share")),
        )  # fmt: skip
        sizes = {key: figure(float(logits[key])) if finite(logits.get(key)) else "–" for key in names}
        cells = [(DOUBTS[key][0], figure(float(shares[key]), "share"), sizes[key]) for key in names]
        table = Table(caption="Shares of the doubt", columns=("doubt", "share", "in logits"), rows=cells)
        specs = [_spec(bar, rows, text, height=40)]
        charts.append(Chart(code="doubt-shares", title="What the doubt is made of", text=text, specs=specs, table=table))
    gaps = rows_of(details, "by_gap", optional=("gap_low", "gap_high", *DOUBTS, "n"))
    present = [key for key in DOUBTS if any(row[key] is not None for row in gaps)]
    if present:
        for row in gaps:
            whole = sum(row[key] or 0.0 for key in present)
            row["gap"] = _range(row["gap_low"], row["gap_high"])
            row["shares"] = {key: row[key] / whole for key in present if row[key] is not None and whole > 0}
        rows = [
            {"gap": row["gap"], "doubt": DOUBTS[key][0], "share": row["shares"][key], "order": order, "n": row["n"]}
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
            color=_colour("doubt", {DOUBTS[key][0]: DOUBTS[key][1] for key in present}),
            order="order:Q",
            tooltip=_tips(gap=("gap", "text"), doubt=("doubt", "text"), share=("share", "share"), n=("n", "count")),
        )  # fmt: skip
        cells = [(str(row["gap"]), *(figure(row["shares"].get(key), "share") for key in present), count(row["n"])) for row in gaps]
        table = Table(caption="Doubt by gap", columns=("gap (logits)", *(DOUBTS[key][0] for key in present), "n"), rows=cells)
        specs = [_spec(bars, rows, text, height=260)]
        charts.append(Chart(code="doubt-gaps", title="Where the doubt lies", text=text, specs=specs, table=table))
    return charts


def _draw_accuracy(findings: Findings) -> list[Chart | None]:
    """The ceiling, the fit, its slices and the baselines on one scale."""
    colours = {"human ceiling": "var(--c-3)", "the fit": "var(--c-1)", "baseline": "var(--c-0)"}
    rows: list[Row] = []
    for kind, code in zip(colours, ("ceiling", "accuracy", "baseline"), strict=True):
        found = [f for f in findings if belongs_to(f, code) and f.unit == "share"]
        if code == "baseline" and len(found) > 1:  # the check's own finding repeats the best of its slices
            found = [f for f in found if f.code != code]
        for row in _estimates(found, code):
            part = {"rater": "mean over raters", "prompt": "mean over prompts"}.get(row["label"], row["label"])
            rows.append(row | {"label": f"{kind}: {part}" if part else kind, "kind": kind})
        if code == "accuracy" and len(found) == 1:
            words = ("slice", "name", "label", "value")
            slices = rows_of(found[0].details, "slices", "estimate", optional=("low", "high", "n"), text=words)
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


def _draw_board(findings: Findings) -> list[Chart | None]:
    """Who is how good: models or named responses, from the best."""
    rows = [
        row | {"label": row["name"], "estimate": row["utility"]}
        for row in rows_of(_details(findings, "leaderboard"), "board", "utility", optional=("low", "high", "n"), text=("name",))
    ]
    if not rows:
        return []
    first = f" The first {MAX_BOARD} are drawn; the table has all {len(rows):,}." if len(rows) > MAX_BOARD else ""
    chart = _draw_intervals(
        rows[:MAX_BOARD],
        code="leaderboard-intervals",
        title="From the best to the worst",
        text="Utilities with 95% intervals; a gap of 1 is a preference of 73%. Where intervals overlap widely the order is not to be read."
        + first,
        axis="utility (logits)",
        reference=0.0,
        share=False,
    )
    if chart is None:
        return []
    cells = [(str(row["label"]), *_cells(row)) for row in rows]
    return [replace(chart, table=Table(caption=chart.title, columns=("name", "utility (logits)", "95% interval", "judgments"), rows=cells))]


def _draw_asking(findings: Findings) -> list[Chart | None]:
    """What describes the asking rather than the responses: position, ties, coverage; and agreement with its slices."""
    rows: list[Row] = []
    for code in ("position", "ties", "coverage", "intransitivity", "identical-pairs", "duplicates"):
        found = [f for f in findings if belongs_to(f, code) and f.unit == "share"]
        name = code.replace("-", " ")
        rows += [row | {"label": f"{name}: {row['label']}" if row["label"] else name} for row in _estimates(found, code)]
        own = findings.get(code)
        if own is not None and own.unit != "share" and finite(own.details.get("estimate_share")):
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
    agreement = [f for f in findings if belongs_to(f, "agreement") and f.unit != "share"]
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


def _draw_whose(findings: Findings) -> list[Chart | None]:
    """What each group loses, what each would get by other rules, and how much of each group's majorities is kept."""
    loses = [
        {
            "label": f"{row['group']} (inferred)" if row.get("inferred") else row["group"],
            "estimate": row["regret"],
            "low": row["low"],
            "high": row["high"],
            "n": None,
        }
        for row in _details(findings, "regret").get("groups", [])
        if finite(row.get("regret"))
    ]
    rules = [
        {"label": row["rule"], "estimate": row["worst_group"], "low": None, "high": None, "n": None}
        for row in _details(findings, "compromise").get("rules", [])
        if finite(row.get("worst_group"))
    ]
    kept = [
        {"label": row["group"], "estimate": row["kept"], "low": row["low"], "high": row["high"], "n": row["n"]}
        for row in _details(findings, "outvoted").get("groups", [])
        if finite(row.get("kept"))
    ]
    return [
        _draw_intervals(
            loses, code="regret-groups", title="What each group loses by the charter's choices", axis="logits a prompt", reference=0.0, share=False,
            text="Mean regret against the group's own favourites, with 95% intervals over prompts; 0 (dashed) is what it would have chosen itself.",
        ),
        _draw_intervals(
            sorted(rules, key=lambda row: -row["estimate"]), code="rules-worst", title="What the worst-off group gets, rule by rule", axis="logits",
            reference=0.0, share=False, text="Mean over prompts of the utility to the group that is worst off, from its mean over the responses (dashed).",
        ),
        _draw_intervals(
            kept, code="outvoted-groups", title="How much of each group's majorities the majority of everyone keeps", axis="share", reference=1.0,
            share=True, text="Questions on which the group has a strict majority, with 95% intervals.",
        ),
    ]  # fmt: skip


def _draw_generalisation(findings: Findings) -> list[Chart | None]:
    """Each way to be new: the model beside people and the best rule; then what was trained here and tested there."""
    colours = {"human ceiling": "var(--c-3)", "the model": "var(--c-1)", "rule": "var(--c-0)"}
    rows: list[Row] = []
    for f in findings:
        split = f.code.removeprefix("generalisation/")
        if split == f.code or "/" in split or f.unit != "share" or not finite(f.estimate):
            continue
        rows.append({"label": spelled(split), "kind": "the model", "estimate": f.estimate, "low": f.low, "high": f.high, "n": f.n})
        ceiling, rules = f.details.get("ceiling"), f.details.get("rules")
        beside: list[tuple[str, str, Row]] = [("human ceiling", "people", ceiling)] if isinstance(ceiling, dict) else []
        told: list[tuple[float, str, Row]] = []
        for name, rule in rules.items() if isinstance(rules, dict) else ():
            if isinstance(rule, dict) and finite(rule.get("estimate")):
                told.append((rule["estimate"], str(name), rule))
        if told:
            _, name, rule = max(told, key=lambda one: one[0])
            beside.append(("rule", f"'{name}'", rule))
        for kind, words, row in beside:
            if finite(row.get("estimate")):
                rows.append({"label": f"{spelled(split)}: {words}", "kind": kind} | {k: row[k] if finite(row.get(k)) else None for k in ("estimate", "low", "high", "n")})  # fmt: skip
    bars = _draw_intervals(
        rows, code="generalisation-splits", title="How well are judgments predicted that are new in one way?", axis="share of held-out judgments", reference=0.5,
        share=True, colours=colours,
        text="Each part predicted by a fit to the others, with 95% intervals, beside the other raters of the same question and the best trivial rule; 50% (dashed) is a coin.",
    )  # fmt: skip
    return [bars, *(_draw_matrix(f) for f in findings if f.code.startswith("generalisation/matrix/"))]


def _draw_matrix(found: Finding) -> Chart | None:
    """Trained on a row, tested on a column: shares as numbers on a tint."""
    details, by = found.details, spelled(found.code.rpartition("/")[2])
    across, down = (details.get(key) if isinstance(details.get(key), list) else [] for key in ("columns", "rows"))

    def cell(key: str, i: int, j: int) -> float | None:
        try:
            value = details[key][i][j]
        except (KeyError, IndexError, TypeError):
            return None
        return value if finite(value) else None

    rows: list[Row] = []
    for i, row in enumerate(down or []):
        for j, column in enumerate(across or []):
            numbers = {key: cell(key, i, j) for key in ("estimate", "low", "high", "n")}
            if numbers["estimate"] is not None:
                text = figure(float(numbers["estimate"]), "share", decimals=0)
                rows.append({"row": str(row), "column": str(column), "i": i, "j": j, "said": text} | numbers)
    if not rows:
        return None
    alt = _altair()
    title, text = (
        f"Trained on one {by}, tested on another",
        f"Share of judgments predicted; a row is the {by} that was trained on, a column the one tested. The table has the intervals.",
    )
    # by place and not by name: see `_draw_intervals`
    x = alt.X(
        "column",
        type="nominal",
        sort=alt.EncodingSortField("j", op="min"),
        title=f"tested on {by}",
        axis={"labelAngle": -40, "labelLimit": 120, "grid": False},
    )
    y = alt.Y(
        "row", type="nominal", sort=alt.EncodingSortField("i", op="min"), title=f"trained on {by}", axis={"labelLimit": 160, "grid": False}
    )
    tips = _tips(
        row=("trained on", "text"),
        column=("tested on", "text"),
        estimate=("predicted", "share"),
        low=("low", "share"),
        high=("high", "share"),
        n=("n", "count"),
    )
    values = [float(row["estimate"]) for row in rows]
    tint = alt.Opacity(
        "estimate",
        type="quantitative",
        legend=None,
        scale=alt.Scale(domain=[min(values), max(max(values), min(values) + 0.01)], range=[0.06, 0.6]),
    )
    layers = [
        _chart().mark_rect(color="var(--c-1)").encode(x=x, y=y, opacity=tint, tooltip=tips),
        _chart().mark_text(color="var(--ink)").encode(x=x, y=y, text="said:N", tooltip=tips),
    ]
    cells = [(row["row"], row["column"], *_cells(row, "share")) for row in rows]
    table = Table(caption=title, columns=("trained on", "tested on", "predicted", "95% interval", "n"), rows=cells, texts=(0, 1))
    return Chart(
        code=f"matrix-{found.code.rpartition('/')[2]}",
        title=title,
        text=text,
        specs=[_spec(alt.layer(*layers), rows, text, height={"step": 30})],
        table=table,
    )


def _draw_probes(findings: Findings) -> list[Chart | None]:
    """All probes on one scale, the largest first."""
    found = [
        f
        for f in findings
        if f.code.startswith("probe/") and f.code.count("/") == 1 and f.unit == "share" and finite(f.details.get("points"))
    ]
    rows = sorted(_estimates(found, "probe"), key=lambda row: -row["estimate"])
    chart = _draw_intervals(
        rows, code="probe-points", title="How much preference each trick buys", axis="percentage points of preference", reference=0.0, share=False, percent=True,
        text="By how much a change that leaves the substance alone moves preference against the other responses to the prompt, with 95% intervals; 0 (dashed) is "
        "not at all. Where a text should be worth the same, it is the mean size of the change either way.",
    )  # fmt: skip
    return [chart]


def _draw_features(findings: Findings) -> list[Chart | None]:
    """Which readable features move the reward."""
    rows = rows_of(_details(findings, "explain/features"), "features", "estimate", optional=("low", "high", "n"), text=("feature",))
    return [
        _draw_intervals(
            [row | {"label": row["feature"]} for row in rows], code="explain-features", title="What moves the reward", reference=0.0, share=False,
            axis="standard deviations of the reward",
            text="By one standard deviation of each feature within prompts, all others given; 95% intervals that hold for all features at once. An association is not a cause.",
        )
    ]  # fmt: skip


def _draw_optimisation(findings: Findings) -> list[Chart | None]:
    """Gold, and the reward that is followed, along policies of growing strength."""
    alt = _altair()
    charts: list[Chart | None] = []
    for name, words in (("best-of-n", "the best of n by the reward"), ("tilt", "policies tilted by the reward")):
        found = findings.get(f"optimisation/{name}")
        rows = rows_of(
            found.details if found else {}, "curve", "sqrt_kl", "gold_gain", optional=("low", "high", "proxy", "ideal_gain"), text=("n", "1 / beta")
        )  # fmt: skip
        if not rows:
            continue
        start = rows[0]["proxy"]
        rows = [
            row
            | {"strength": str(row["n"] or row["1 / beta"]), "proxy_gain": None if None in (row["proxy"], start) else row["proxy"] - start}
            for row in rows
        ]
        x = alt.X(**_scale("sqrt_kl", "square root of the KL from the start", ticks=6))
        ends = [end for row in rows for end in (row["low"], row["high"], row["gold_gain"], row["ideal_gain"], 0.0) if end is not None]
        y = _scale("gold_gain", "gold gained", ticks=5, domain=[min(ends), max(ends)])
        number = {
            field: (title, "number")
            for field, title in (("sqrt_kl", "sqrt KL"), ("gold_gain", "gold gained"), ("low", "low"), ("high", "high"))
        }
        tips = _tips(strength=("strength", "text"), **number, ideal_gain=("at best", "number"), proxy_gain=("reward gained", "number"))
        gold = [
            _line_at(0, "y", (1, 0)),
            _chart().mark_area(color="var(--c-1)", opacity=0.18).encode(x=x, y=alt.Y(**y | {"field": "low"}), y2="high:Q"),
            _chart().mark_line(color="var(--ink-3)", strokeDash=[4, 3]).encode(x=x, y=alt.Y(**y | {"field": "ideal_gain"})),
            _chart().mark_line(color="var(--c-1)").encode(x=x, y=alt.Y(**y)),
            _chart().mark_point(color="var(--c-1)").encode(x=x, y=alt.Y(**y), tooltip=tips),
        ]
        text = (
            f"What {words} lead to: gold above the start with 95% intervals, and at best (dashed) what a policy as strong that follows gold itself would gain; "
            "below it what the reward, in its own units, believes to have gained."
        )
        specs = [_spec(alt.layer(*gold), rows, text, height=240)]
        if all(row["proxy_gain"] is not None for row in rows):
            believed = (
                _chart()
                .mark_line(color="var(--c-2)", point=True)
                .encode(x=x, y=alt.Y(**_scale("proxy_gain", "reward gained", ticks=3)), tooltip=tips)
            )
            specs.append(_spec(believed, rows, text, height=110))
        cells = [
            (str(row["strength"]), figure(row["sqrt_kl"]), *_cells({"estimate": row["gold_gain"], "low": row["low"], "high": row["high"]})[:2],
             figure(row["ideal_gain"]), figure(row["proxy_gain"]))
            for row in rows
        ]  # fmt: skip
        title = f"What following the reward leads to: {name.replace('-', ' ')}"
        columns = ("strength", "sqrt KL", "gold gained", "95% interval", "at best", "reward gained")
        charts.append(
            Chart(code=f"optimisation-{name}", title=title, text=text, specs=specs, table=Table(caption=title, columns=columns, rows=cells))
        )
    return charts


def _draw_repair(findings: Findings) -> list[Chart | None]:
    """Before and after, statistics of one scale together."""
    rows = rows_of(
        _details(findings, "repair"),
        "statistics",
        "before",
        "after",
        "change",
        optional=("low", "high", "n"),
        text=("name", "unit", "verdict"),
    )
    parts = {"scale": ("share", "ratio", "correlation"), "nats": ("nats", "sqrt nats")}
    return [
        _draw_changes([row for row in rows if row["unit"] in units], code=f"repair-{part}", axis=" or ".join(units))
        for part, units in parts.items()
    ]


def _draw_changes(rows: list[Row], *, code: str, axis: str) -> Chart | None:
    """A hollow point before, a full one after, and a line between, in the order given."""
    if not rows:
        return None
    alt = _altair()
    rows = [
        row | {"order": place, "verdict": row["verdict"] if row["verdict"] in _CHANGES else "no clear change"}
        for place, row in enumerate(rows)
    ]
    x = _scale("before", axis, domain=_frame(rows, ("before", "after"), rows[0]["before"], limit=False), nice=False)
    y = alt.Y("name", type="nominal", sort=alt.EncodingSortField("order"), title=None, axis={"labelLimit": 230, "grid": False})
    colour = _colour("verdict", {name: value for name, value in _CHANGES.items() if any(row["verdict"] == name for row in rows)})
    numbers = {key: (key, "number") for key in ("before", "after", "change", "low", "high")}
    tips = _tips(name=("what", "text"), **numbers, n=("n", "count"))
    layers = [
        _chart().mark_rule(strokeWidth=2.5).encode(x=alt.X(**x), x2="after:Q", y=y, color=colour, tooltip=tips),
        _chart().mark_point(size=70, filled=False).encode(x=alt.X(**x), y=y, color=colour, tooltip=tips),
        _chart().mark_point(size=80).encode(x=alt.X(**x | {"field": "after"}), y=y, color=colour, tooltip=tips),
    ]
    text = "Hollow before the repair, full after it. What got better or worse for sure is coloured; the table has the changes with their intervals."
    cells = [
        (row["name"], *(figure(row[key], row["unit"]) for key in ("before", "after")), *_cells(row | {"estimate": row["change"]}, row["unit"]), row["verdict"])
        for row in rows
    ]  # fmt: skip
    table = Table(
        caption="Before and after", columns=("what", "before", "after", "change", "95% interval", "n", "verdict"), rows=cells, texts=(0, 6)
    )
    return Chart(
        code=code,
        title="Before and after the repair",
        text=text,
        specs=[_spec(alt.layer(*layers), rows, text, height={"step": 28})],
        table=table,
    )


def _estimates(found: Iterable[Finding], code: str) -> list[Row]:
    """Findings of one check as rows; the label is what follows the code's slash."""
    return [
        {"label": spelled(f.code[len(code) + 1 :]), "estimate": f.estimate, "low": f.low, "high": f.high, "n": f.n}
        for f in found
        if finite(f.estimate)
    ]


def _draw_intervals(
    rows: list[Row], *, code: str, title: str, text: str, axis: str, reference: float, share: bool, colours: dict[str, str] | None = None,
    percent: bool = False,
) -> Chart | None:  # fmt: skip
    """Points with intervals, one line each, in the order given; `percent` writes shares that may be below 0 as such."""
    if not rows:
        return None
    alt = _altair()
    domain = _frame(rows, ("estimate", "low", "high"), reference, limit=share)
    as_share = share or percent
    x = _scale("estimate", axis, share=as_share, domain=domain, nice=False)
    # Sorting by a list of labels would write them into a Vega expression, which untrusted text could break; a number cannot.
    rows = [row | {"order": place} for place, row in enumerate(rows)]
    y = alt.Y("label", type="nominal", sort=alt.EncodingSortField("order"), title=None, axis={"labelLimit": 230, "grid": False})
    colour: Any = alt.value("var(--c-1)")
    if colours:
        colour = _colour(
            "kind", {kind: value for kind, value in colours.items() if any(row.get("kind") == kind for row in rows)}, legend=None
        )
    kind = "share" if as_share else "number"
    tips = _tips(label=("what", "text"), estimate=("estimate", kind), low=("low", kind), high=("high", kind), n=("n", "count"))
    layers = [_line_at(reference, "x"), _chart().mark_point(size=70).encode(x=alt.X(**x), y=y, color=colour, tooltip=tips)]
    if any(row.get("low") is not None and row.get("high") is not None for row in rows):
        ends = {"x": alt.X(**x | {"field": "low"}), "x2": "high:Q"}
        layers.insert(1, _chart().mark_rule(strokeWidth=2.5).encode(**ends, y=y, color=colour, tooltip=tips))
    cells = [(str(row["label"]), *_cells(row, "share" if as_share else None)) for row in rows]
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

    ends = [abs(end) for end in (low, high) if end is not None]
    width = (high - low) if low is not None and high is not None else max(ends, default=1.0)
    # a width of 0.43 is told by two digits after the point, one of 30 by none; a third is of use only to narrow bins
    decimals = min(6 if width < 0.02 else 2, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 2

    def short(value: float) -> str:
        text = f"{value:,.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text.replace("-", "−")

    if low is None or high is None:
        return "all" if low is high else f"{short(low)} or more" if low is not None else f"below {short(high or 0.0)}"
    return f"{short(low)} to {short(high)}"


def tables_behind(finding: Finding) -> list[Table]:
    """The tables in a finding's details that no chart shows; the first rows of long ones, findings.json has them all."""
    tables: list[Table] = []
    facts: list[tuple[str, ...]] = []
    drawn = next(
        (keys for code, keys in _DRAWN.items() if finding.code == code or (code[-1] == "*" and finding.code.startswith(code[:-1]))), ()
    )
    for key, value in finding.details.items():
        if key in drawn or (finding.about and key in ("added", "command", "subject")):  # which stand beside its code
            continue
        name = str(key).replace("_", " ")
        items: list[Any] = list(value) if isinstance(value, list | tuple) else []
        rows = [row for row in items if isinstance(row, dict)]
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column, cell in row.items() if not isinstance(cell, dict | list)))[:10]
            caption = name + (f" (first 50 of {len(rows):,}; all are in findings.json)" if len(rows) > 50 else "")
            cells = [tuple(plain(row.get(column)) for column in columns) for row in rows[:50]]
            texts = tuple(i for i, column in enumerate(columns) if any(isinstance(row.get(column), str) for row in rows[:50]))
            headings = tuple(str(column).replace("_", " ") for column in columns)
            tables.append(Table(caption=caption, columns=headings, rows=cells, texts=texts))
        elif isinstance(value, dict):
            facts += [(f"{name}: {part}", plain(cell)) for part, cell in value.items() if not isinstance(cell, dict | list)][:50]
        elif items:
            facts.append((name, ", ".join(plain(cell) for cell in items[:20]) + (", ..." if len(items) > 20 else "")))
        elif not isinstance(value, list | tuple):
            facts.append((name, plain(value)))
    return [Table(caption="", columns=("what", "value"), rows=facts, texts=(0, 1)), *tables] if facts else tables
