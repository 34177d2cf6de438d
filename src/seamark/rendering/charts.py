"""What a report draws: findings as charts, each with a table of the same numbers.

Charts come from `Finding.details`; a chart without rows is left out. Those of reward models are in `reward_charts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from seamark.checks.findings import Finding, Findings
from seamark.rendering.drawing import (
    Chart,
    Row,
    Table,
    altair_api,
    as_spec,
    bin_in_words,
    cells_of,
    coloured,
    details_of,
    draw_curve,
    draw_intervals,
    estimates_of,
    frame_of,
    line_at,
    over_rows,
    scale_of,
    tips_of,
)
from seamark.rendering.reward_charts import (
    draw_attacks,
    draw_benchmark,
    draw_features,
    draw_judges,
    draw_optimisation,
    draw_probes,
    draw_repair,
    draw_stages,
)
from seamark.rendering.words import DOUBTS, belongs_to, count, figure, finite, plain, rows_of, runs_of, spelled

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
    "judges/*": ("judges",),
    "optimisation/alarm": ("curve",),
    "optimisation/ignorance": ("curve",),
    "optimisation/outliers": ("curve",),
    "optimisation/drift": ("curve",),
    "optimisation/residual": ("curve",),
    "learning-curve": ("curve",),
    "decay": ("curve",),
}
"""Keys of `Finding.details` that have a chart, and so a table twin there; * is any end of a code."""
_PRESSED = ("usefulness", "optimisation/best-of-n", "optimisation/tilt", "optimisation/regret", "optimisation/alarm")
_RATERS = {
    "careful": ("var(--c-1)", "circle"),
    "unclear": ("var(--c-0)", "diamond"),
    "at chance": ("var(--c-2)", "square"),
    "opposed": ("var(--c-3)", "triangle-up"),
}


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
        ("generalisation", "Does it hold for what is new?", "Generalisation", ("generalisation", "decay"), _draw_generalisation),
        ("benchmark", "What it scores on published benchmarks", "Benchmarks", ("benchmark",), draw_benchmark),
        ("judges", "Do model judges follow the substance?", "Judges", ("judges/gold", "judges/style"), draw_judges),
        ("probes", "What the reward pays for besides content", "Probes", ("probe",), draw_probes),
        (
            "explain",
            "Why the reward decides as it does",
            "Explained",
            ("explain/features", "explain/fidelity", "explain/influence", "explain/counterfactual"),
            draw_features,
        ),
        ("optimisation", "Does the reward survive optimisation?", "Optimisation", _PRESSED, draw_optimisation),
        ("attacks", "Loopholes and attacks", "Attacks", ("loophole", "attacks/regression", "attacks/open"), draw_attacks),
        ("repair", "What the repair changed", "Repair", ("repair",), draw_repair),
        ("attribution", "Where most is lost between people and policy", "Lost where", ("attribution",), draw_stages),
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


def _draw_raters(findings: Findings) -> list[Chart | None]:
    """Each rater's slope, sorted; and all slopes as a histogram where there are too many to draw."""
    details = details_of(findings, "rater-reliability")
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

    alt = altair_api()
    named = len(rows) <= MAX_NAMED_RATERS
    along, across = ("y", "x") if named else ("x", "y")
    slope = scale_of("slope", "slope (1 = a careful rater)", domain=[first - margin, last + margin], nice=False)
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
    colour = coloured("verdict", {name: _RATERS[name][0] for name in present})
    shape = alt.Shape("verdict", type="nominal", scale=alt.Scale(domain=present, range=[_RATERS[name][1] for name in present]))
    number = ("slope", "number")
    tips = tips_of(rater=("rater", "text"), slope=number, low=("low", "number"), high=("high", "number"), n=("judgments", "count"))
    axis = {"x": alt.X, "y": alt.Y}[across]
    layers = [
        line_at(0, across, (1, 0)),
        line_at(1, across),
        over_rows()
        .mark_rule(clip=True, opacity=0.55)
        .encode(**{along: order, across: axis(**slope | {"field": "low"}), f"{across}2": "high:Q"}, color=colour, tooltip=tips),
        over_rows()
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
    cells = [(str(row["rater"]), str(row["verdict"]), *cells_of(row | {"estimate": row["slope"]})) for row in rows]
    columns = ("rater", "verdict", "slope", "95% interval", "judgments")
    height: Any = {"step": 20} if named else 300
    charts: list[Chart | None] = [
        Chart(
            code="rater-slopes",
            title="How much each rater can be relied on",
            text=text,
            specs=[as_spec(alt.layer(*layers), rows, text, height=height)],
            table=Table(caption="Raters", columns=columns, rows=cells, texts=(0, 1)),
        )
    ]
    bins = rows_of(details, "histogram", "low", "high", "count")
    if bins and len(everyone) > MAX_RATERS:
        tips = tips_of(low=("from", "number"), high=("to", "number"), count=("raters", "count"))
        bars = over_rows().mark_rect(color="var(--c-1)", stroke="var(--card)", strokeWidth=1).encode(
            x=alt.X(**scale_of("low", "slope (1 = a careful rater)", ticks=8)),
                x2="high",
                y=alt.Y(**scale_of("count", "raters", zero=True, ticks=4)),
            y2=alt.Y2Datum(0),
            tooltip=tips,
        )  # fmt: skip
        text = f"How many of all {count(sum(row['count'] for row in bins))} raters have a slope in each range."
        cells = [(figure(float(row["low"])), figure(float(row["high"])), count(row["count"])) for row in bins]
        spec = as_spec(alt.layer(bars, line_at(0, "x", (1, 0)), line_at(1, "x")), bins, text, height=180)
        table = Table(caption="Slopes of all raters", columns=("from", "to", "raters"), rows=cells, texts=())
        charts.append(Chart(code="rater-histogram", title="All raters", text=text, specs=[spec], table=table))
    return charts


def _draw_length(findings: Findings) -> list[Chart | None]:
    """How often the longer response wins, utility against length, and what style goes along with winning."""
    alt = altair_api()
    details = details_of(findings, "length")
    charts: list[Chart | None] = []
    curve = rows_of(details, "curve", "share", optional=("low", "high", "share_low", "share_high", "n"))
    if curve:
        axis = str(details.get("x") or "difference in length")
        times = "log" in axis and "ratio" in axis
        for row in curve:
            ends = [math.exp(end) if times and end is not None and abs(end) < 50 else end for end in (row["low"], row["high"])]
            row["range"] = bin_in_words(ends[0], ends[1])
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
        share = scale_of(
            "share",
            "wins of the longer",
            share=True,
            ticks=5,
            domain=frame_of(curve, ("share", "share_low", "share_high"), 0.5),
            nice=False,
        )
        bounds = {"share_low": ("low", "share"), "share_high": ("high", "share")}
        tips = tips_of(range=("longer by", "text"), share=("wins", "share"), **bounds, n=("comparisons", "count"))
        layers = [
            line_at(0.5, "y"),
            over_rows().mark_line(color="var(--c-1)", opacity=0.35).encode(x=x, y=alt.Y(**share)),
            over_rows()
            .mark_rule(color="var(--c-1)")
            .encode(x=x, y=alt.Y(**share | {"field": "share_low"}), y2="share_high:Q", tooltip=tips),
            over_rows().mark_point(color="var(--c-1)").encode(x=x, y=alt.Y(**share), tooltip=tips),
        ]
        shown = [{"estimate": row["share"], "low": row["share_low"], "high": row["share_high"], "n": row["n"]} for row in curve]
        cells = [(str(row["range"]), *cells_of(estimate, "share")) for row, estimate in zip(curve, shown, strict=True)]
        columns = ("times as long" if times else axis, "wins of the longer", "95% interval", "comparisons")
        table = Table(caption="Wins by difference in length", columns=columns, rows=cells)
        spec = as_spec(alt.layer(*layers), curve, text, height=240)
        charts.append(Chart(code="length-wins", title="Does the longer response win?", text=text, specs=[spec], table=table))
    points = rows_of(details, "points", "log_length", "utility")[:MAX_POINTS]
    if points:
        for row in points:
            row["characters"] = max(1, round(math.expm1(min(row["log_length"], 50.0))))
        text = f"The fitted utility of {len(points):,} responses against their length."
        dots = over_rows().mark_point(color="var(--c-1)", opacity=0.4, size=24).encode(
            x=alt.X(**scale_of("characters", "length in characters (each step doubles)", ticks=6, type="log", base=2, nice=False)),
            y=alt.Y(**scale_of("utility", "utility (logits)", ticks=5)),
            tooltip=tips_of(characters=("characters", "count"), utility=("utility", "number")),
        )  # fmt: skip
        cells = [(count(row["characters"]), figure(float(row["utility"]))) for row in points]
        table = Table(caption="Utility and length", columns=("characters", "utility (logits)"), rows=cells, texts=())
        charts.append(
            Chart(code="length-utility", title="Utility against length", text=text, specs=[as_spec(dots, points, text)], table=table)
        )
    style = findings.get("style")
    effects = rows_of(details_of(findings, "style"), "effects", "estimate", optional=("low", "high", "n"), text=("feature",))
    charts.append(
        draw_intervals(
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
    alt = altair_api()
    rows = rows_of(details_of(findings, "calibration"), "bins", "predicted", "observed", optional=("low", "high", "n"))
    if not rows:
        return []
    x = alt.X(**scale_of("predicted", "predicted share", share=True, domain=[0, 1], padding=0, nice=False))
    y = scale_of("observed", "observed share", share=True, domain=[0, 1], nice=False)
    bounds = {"low": ("low", "share"), "high": ("high", "share")}
    tips = tips_of(predicted=("predicted", "share"), observed=("observed", "share"), **bounds, n=("judgments", "count"))
    ends = alt.Chart(alt.InlineData(values=[{"p": 0}, {"p": 1}]))
    layers = [
        ends.mark_line(color="var(--ink-3)", strokeDash=[4, 3], strokeWidth=1).encode(x="p:Q", y="p:Q"),
        over_rows().mark_rule(color="var(--c-1)").encode(x=x, y=alt.Y(**y | {"field": "low"}), y2="high:Q", tooltip=tips),
        over_rows().mark_point(color="var(--c-1)", size=60).encode(x=x, y=alt.Y(**y), tooltip=tips),
    ]
    text = (
        "Held-out judgments, grouped by what the fit predicted. On the dashed line it kept its promise; "
        "flatter than the line it was too sure, steeper too cautious. The bars count the judgments behind each point."
    )
    specs = [as_spec(alt.layer(*layers), rows, text, height=320)]
    if all(row["n"] is not None for row in rows):
        x = alt.X(**scale_of("predicted", None, share=True, domain=[0, 1], padding=0, nice=False))
        bars = (
            over_rows()
            .mark_bar(color="var(--c-0)", size=10)
            .encode(x=x, y=alt.Y(**scale_of("n", "judgments", zero=True, ticks=2)), tooltip=tips)
        )
        specs.append(as_spec(bars, rows, "Number of held-out judgments behind each point.", height=80))
    cells = [(figure(float(row["predicted"]), "share"), *cells_of(row | {"estimate": row["observed"]}, "share")) for row in rows]
    table = Table(caption="Calibration", columns=("predicted", "observed", "95% interval", "judgments"), rows=cells, texts=())
    return [Chart(code="calibration-curve", title="Does 70% mean 70%?", text=text, specs=specs, table=table, narrow=True)]


def _draw_doubts(findings: Findings) -> list[Chart | None]:
    """Shares of the doubt: over all judgments, and by how far apart the two responses are."""
    alt = altair_api()
    details = details_of(findings, "doubts")
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
        bar = over_rows().mark_bar(size=34).encode(
            x=alt.X(**scale_of("share", "share of the doubt", share=True, nice=False), stack="normalize"),
            color=coloured("doubt", {name: DOUBTS[key][1] for key, name in names.items()}),
            order="order:Q",
            tooltip=tips_of(doubt=("doubt", "text"), share=("share", "share")),
        )  # fmt: skip
        sizes = {key: figure(float(logits[key])) if finite(logits.get(key)) else "–" for key in names}
        cells = [(DOUBTS[key][0], figure(float(shares[key]), "share"), sizes[key]) for key in names]
        table = Table(caption="Shares of the doubt", columns=("doubt", "share", "in logits"), rows=cells)
        specs = [as_spec(bar, rows, text, height=40)]
        charts.append(Chart(code="doubt-shares", title="What the doubt is made of", text=text, specs=specs, table=table))
    gaps = rows_of(details, "by_gap", optional=("gap_low", "gap_high", *DOUBTS, "n"))
    present = [key for key in DOUBTS if any(row[key] is not None for row in gaps)]
    if present:
        for row in gaps:
            whole = sum(row[key] or 0.0 for key in present)
            row["gap"] = bin_in_words(row["gap_low"], row["gap_high"])
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
        bars = over_rows().mark_bar().encode(
            x=alt.X("gap", type="nominal", sort=None, title="gap (logits)", axis={"labelAngle": 0, "grid": False, "labelOverlap": True}),
            y=alt.Y(**scale_of("share", "share of the doubt", share=True, ticks=5), stack="normalize"),
            color=coloured("doubt", {DOUBTS[key][0]: DOUBTS[key][1] for key in present}),
            order="order:Q",
            tooltip=tips_of(gap=("gap", "text"), doubt=("doubt", "text"), share=("share", "share"), n=("n", "count")),
        )  # fmt: skip
        cells = [(str(row["gap"]), *(figure(row["shares"].get(key), "share") for key in present), count(row["n"])) for row in gaps]
        table = Table(caption="Doubt by gap", columns=("gap (logits)", *(DOUBTS[key][0] for key in present), "n"), rows=cells)
        specs = [as_spec(bars, rows, text, height=260)]
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
        for row in estimates_of(found, code):
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
    chart = draw_intervals(
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
        for row in rows_of(details_of(findings, "leaderboard"), "board", "utility", optional=("low", "high", "n"), text=("name",))
    ]
    if not rows:
        return []
    first = f" The first {MAX_BOARD} are drawn; the table has all {len(rows):,}." if len(rows) > MAX_BOARD else ""
    chart = draw_intervals(
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
    cells = [(str(row["label"]), *cells_of(row)) for row in rows]
    return [replace(chart, table=Table(caption=chart.title, columns=("name", "utility (logits)", "95% interval", "judgments"), rows=cells))]


def _draw_asking(findings: Findings) -> list[Chart | None]:
    """What describes the asking rather than the responses: position, ties, coverage; and agreement with its slices."""
    rows: list[Row] = []
    for code in ("position", "ties", "coverage", "intransitivity", "identical-pairs", "duplicates"):
        found = [f for f in findings if belongs_to(f, code) and f.unit == "share"]
        name = code.replace("-", " ")
        rows += [row | {"label": f"{name}: {row['label']}" if row["label"] else name} for row in estimates_of(found, code)]
        own = findings.get(code)
        if own is not None and own.unit != "share" and finite(own.details.get("estimate_share")):
            rows.append({"label": name, "estimate": own.details["estimate_share"], "low": None, "high": None, "n": own.n})
    shares = draw_intervals(
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
    parts = [row | {"label": row["label"] or "all"} for row in estimates_of([f for f in agreement if f.unit == unit], "agreement")]
    alphas = draw_intervals(
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
        for row in details_of(findings, "regret").get("groups", [])
        if finite(row.get("regret"))
    ]
    rules = [
        {"label": row["rule"], "estimate": row["worst_group"], "low": None, "high": None, "n": None}
        for row in details_of(findings, "compromise").get("rules", [])
        if finite(row.get("worst_group"))
    ]
    kept = [
        {"label": row["group"], "estimate": row["kept"], "low": row["low"], "high": row["high"], "n": row["n"]}
        for row in details_of(findings, "outvoted").get("groups", [])
        if finite(row.get("kept"))
    ]
    return [
        draw_intervals(
            loses, code="regret-groups", title="What each group loses by the charter's choices", axis="logits a prompt", reference=0.0, share=False,
            text="Mean regret against the group's own favourites, with 95% intervals over prompts; 0 (dashed) is what it would have chosen itself.",
        ),
        draw_intervals(
            sorted(rules, key=lambda row: -row["estimate"]), code="rules-worst", title="What the worst-off group gets, rule by rule", axis="logits",
            reference=0.0, share=False, text="Mean over prompts of the utility to the group that is worst off, from its mean over the responses (dashed).",
        ),
        draw_intervals(
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
    bars = draw_intervals(
        rows, code="generalisation-splits", title="How well are judgments predicted that are new in one way?", axis="share of held-out judgments", reference=0.5,
        share=True, colours=colours,
        text="Each part predicted by a fit to the others, with 95% intervals, beside the other raters of the same question and the best trivial rule; 50% (dashed) is a coin.",
    )  # fmt: skip
    learning = draw_curve(
        rows_of(details_of(findings, "learning-curve"), "curve", "n", "log_loss", optional=("low", "high")), x="n", y="log_loss", code="learning-curve",
        title="What more judgments bring", along="judgments learned from (each step doubles)", axis="log loss on what is new, nats",
        text="Log loss on prompts, or raters, that were never trained on, with 95% intervals, by the number of judgments learned from. Where it is flat more judgments of this kind bring nothing.",
    )  # fmt: skip
    age = details_of(findings, "decay")
    ageing = [
        {"label": f"{row['age']:.3g} x {age.get('period')}", "estimate": row["accuracy"], **{key: row[key] for key in ("low", "high", "n")}}
        for row in rows_of(age, "curve", "age", "accuracy", optional=("low", "high", "n"))
    ]  # fmt: skip
    old = draw_intervals(
        ageing, code="decay", title="How a fit ages", axis="share of later judgments", reference=0.5, share=True,
        text="Accuracy of fits to one part of the time on what was judged later, by its age, with 95% intervals: not the same judgments at each age, as the sentence above has them.",
    )  # fmt: skip
    return [bars, learning, old, *(_draw_matrix(f) for f in findings if f.code.startswith("generalisation/matrix/"))]


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
    alt = altair_api()
    title, text = (
        f"Trained on one {by}, tested on another",
        f"Share of judgments predicted; a row is the {by} that was trained on, a column the one tested. The table has the intervals.",
    )
    # by place and not by name: see `draw_intervals`
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
    tips = tips_of(
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
        over_rows().mark_rect(color="var(--c-1)").encode(x=x, y=y, opacity=tint, tooltip=tips),
        over_rows().mark_text(color="var(--ink)").encode(x=x, y=y, text="said:N", tooltip=tips),
    ]
    cells = [(row["row"], row["column"], *cells_of(row, "share")) for row in rows]
    table = Table(caption=title, columns=("trained on", "tested on", "predicted", "95% interval", "n"), rows=cells, texts=(0, 1))
    return Chart(
        code=f"matrix-{found.code.rpartition('/')[2]}",
        title=title,
        text=text,
        specs=[as_spec(alt.layer(*layers), rows, text, height={"step": 30})],
        table=table,
    )


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
