"""What charts are made of: Altair, a scale, a tooltip, a table of the same numbers; and the chart that most findings take.

Colours are CSS variables, so a chart follows light, dark and print without being drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seamark.checks.findings import Finding, Findings
from seamark.rendering.words import count, figure, finite, interval_of, spelled

Row = dict[str, Any]
"""One row of a chart's data, JSON-ready."""


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


def altair_api() -> Any:
    """Altair, imported when the first chart is drawn; Any, because its generated signatures refuse shared keyword arguments."""
    import altair

    return altair


def over_rows() -> Any:
    """A chart over the rows that `as_spec` adds."""
    return altair_api().Chart(altair_api().NamedData(name="rows"))


def as_spec(chart: Any, rows: Sequence[Row], description: str, *, height: Any = 260) -> dict[str, Any]:
    """A Vega-Lite document with its data; without $schema, which is a web address."""
    # Rows come in afterwards and the tests validate the specification: doing it here would cost each report a second.
    spec = chart.properties(width="container", height=height).to_dict(validate=False)
    del spec["$schema"]
    spec["datasets"] = spec.get("datasets", {}) | {"rows": rows}
    spec.pop("config", None)  # one style for all charts: templates/charts.json, which report.js passes to Vega-Lite
    return spec | {"description": description, "autosize": {"type": "fit-x", "contains": "padding"}}


def scale_of(name: str, title: str | None, *, share: bool = False, ticks: int = 6, **scale: Any) -> dict[str, Any]:
    """A numeric axis as keyword arguments of alt.X and alt.Y."""
    axis = {"tickCount": ticks} | ({"format": "%"} if share else {"format": ",d"} if scale.get("type") == "log" else {})
    return {"field": name, "type": "quantitative", "title": title, "scale": {"zero": False} | scale, "axis": axis}


def line_at(value: float, axis: str, dash: tuple[int, int] = (4, 3)) -> Any:
    """A reference line."""
    alt = altair_api()
    line = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color="var(--ink-3)", strokeDash=list(dash), strokeWidth=1)
    # `alt.datum` is a mapping, of which altair looks up the class at the price of half of the chart; so with `alt.value` below
    return line.encode(**{axis: {"x": alt.XDatum, "y": alt.YDatum}[axis](value)})


def tips_of(**fields: tuple[str, str]) -> list[Any]:
    """What the pointer shows: field = (title, kind of number)."""
    formats = {"share": ".1%", "number": ",.3~f", "count": ",.0f"}
    kinds = {kind: {"type": "quantitative", "format": text} for kind, text in formats.items()} | {"text": {"type": "nominal"}}
    return [altair_api().Tooltip(field=name, title=title, **kinds[kind]) for name, (title, kind) in fields.items()]


def coloured(field: str, colours: dict[str, str], **legend: Any) -> Any:
    alt = altair_api()
    return alt.Color(field, type="nominal", scale=alt.Scale(domain=list(colours), range=list(colours.values())), **legend)


def cells_of(row: Row, unit: str | None = None) -> tuple[str, str, str]:
    """Estimate, interval and n of a row, for tables."""
    low, high = row.get("low"), row.get("high")
    return figure(float(row["estimate"]), unit, low, high), interval_of(low, high, unit) or "–", count(row.get("n"))


def details_of(findings: Findings, code: str) -> dict[str, Any]:
    found = findings.get(code)
    return found.details if found else {}


def estimates_of(found: Iterable[Finding], code: str) -> list[Row]:
    """Findings of one check as rows; the label is what follows the code's slash."""
    return [
        {"label": spelled(f.code[len(code) + 1 :]), "estimate": f.estimate, "low": f.low, "high": f.high, "n": f.n}
        for f in found
        if finite(f.estimate)
    ]


def draw_intervals(
    rows: list[Row], *, code: str, title: str, text: str, axis: str, reference: float, share: bool, colours: dict[str, str] | None = None,
    percent: bool = False, beside: str = "",
) -> Chart | None:  # fmt: skip
    """Points with intervals, one line each, in the order given; `percent` writes shares that may be below 0 as such, `beside` is a number of the rows
    that a tick marks, such as chance."""
    if not rows:
        return None
    alt = altair_api()
    domain = frame_of(rows, ("estimate", "low", "high", *([beside] if beside else [])), reference, limit=share)
    as_share = share or percent
    x = scale_of("estimate", axis, share=as_share, domain=domain, nice=False)
    # Sorting by a list of labels would write them into a Vega expression, which untrusted text could break; a number cannot.
    rows = [row | {"order": place} for place, row in enumerate(rows)]
    y = alt.Y("label", type="nominal", sort=alt.EncodingSortField("order"), title=None, axis={"labelLimit": 230, "grid": False})
    colour: Any = alt.ColorValue("var(--c-1)")
    if colours:
        colour = coloured(
            "kind", {kind: value for kind, value in colours.items() if any(row.get("kind") == kind for row in rows)}, legend=None
        )
    kind = "share" if as_share else "number"
    more = {beside: (beside, kind)} if beside else {}
    tips = tips_of(label=("what", "text"), estimate=("estimate", kind), low=("low", kind), high=("high", kind), n=("n", "count"), **more)
    layers = [line_at(reference, "x"), over_rows().mark_point(size=70).encode(x=alt.X(**x), y=y, color=colour, tooltip=tips)]
    if any(row.get("low") is not None and row.get("high") is not None for row in rows):
        ends = {"x": alt.X(**x | {"field": "low"}), "x2": "high:Q"}
        layers.insert(1, over_rows().mark_rule(strokeWidth=2.5).encode(**ends, y=y, color=colour, tooltip=tips))
    if beside:
        layers.insert(
            1, over_rows().mark_tick(color="var(--ink-3)", thickness=2, size=16).encode(x=alt.X(**x | {"field": beside}), y=y, tooltip=tips)
        )
    unit = "share" if as_share else None
    cells = [(str(row["label"]), *cells_of(row, unit), *([figure(row[beside], unit)] if beside else [])) for row in rows]
    table = Table(caption=title, columns=("what", "estimate", "95% interval", "n", *([beside] if beside else [])), rows=cells)
    return Chart(code=code, title=title, text=text, specs=[as_spec(alt.layer(*layers), rows, text, height={"step": 26})], table=table)


def frame_of(rows: list[Row], fields: Sequence[str], reference: float, *, limit: bool = True) -> list[float]:
    """Ends of an axis that holds every number and the reference, with some room; shares stay near 0 to 1."""
    numbers = [reference, *(row[name] for row in rows for name in fields if row.get(name) is not None)]
    first, last = min(numbers), max(numbers)
    room = 0.06 * (last - first) or 0.05
    if not limit:
        return [first - room, last + room]
    return [max(-0.02, min(0.4, first - room)), min(1.02, max(0.6, last + room))]


def bin_in_words(low: float | None, high: float | None) -> str:
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


def draw_curve(
    rows: list[Row], *, x: str, y: str, code: str, title: str, text: str, along: str, axis: str, stop: float | None = None
) -> Chart | None:
    """A line in a band against a size that doubles; a dashed line where one should stop."""
    if not rows:
        return None
    alt = altair_api()
    across = alt.X(**scale_of(x, along, type="log", base=2, nice=False))
    up = scale_of(y, axis, ticks=5, domain=frame_of(rows, (y, "low", "high"), rows[0][y], limit=False), nice=False)
    tips = tips_of(**{x: (x, "count"), y: (axis, "number"), "low": ("low", "number"), "high": ("high", "number")})
    layers = [
        over_rows().mark_area(color="var(--c-1)", opacity=0.18).encode(x=across, y=alt.Y(**up | {"field": "low"}), y2="high:Q"),
        over_rows().mark_line(color="var(--c-1)").encode(x=across, y=alt.Y(**up)),
        over_rows().mark_point(color="var(--c-1)").encode(x=across, y=alt.Y(**up), tooltip=tips),
        *([line_at(stop, "x")] if stop is not None else []),
    ]
    cells = [(count(row[x]), *cells_of(row | {"estimate": row[y]})[:2]) for row in rows]
    table = Table(caption=title, columns=(along, axis, "95% interval"), rows=cells, texts=())
    return Chart(code=code, title=title, text=text, specs=[as_spec(alt.layer(*layers), rows, text, height=240)], table=table)
