"""Charts of what checks say of reward models: probes, features, optimisation, repairs, benchmarks, attacks and judges."""

from __future__ import annotations

from seamark.checks.findings import Findings
from seamark.rendering.drawing import (
    Chart,
    Row,
    Table,
    altair_api,
    as_spec,
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
from seamark.rendering.words import belongs_to, figure, finite, rows_of, spelled

_CHANGES = {"better": "var(--c-1)", "worse": "var(--c-2)", "no clear change": "var(--c-0)"}
_BESIDES = (
    ("ignorance", "How uncertain is what is chosen?", "times the start's", "Posterior standard deviation of what policies choose"),
    (
        "outliers",
        "How far out is what is chosen?",
        "times the start's",
        "Distance, among the features, of what policies choose from what was judged",
    ),
    (
        "drift",
        "How far have features moved?",
        "standard deviations",
        "Mean features of what policies choose, from those of the start policy",
    ),
    (
        "residual",
        "Where do answers contradict the reward?",
        "times the start's",
        "How much answers contradict rewards like those that policies choose",
    ),
)
"""Code, title, axis and text of what is looked at besides the alarm."""


def draw_probes(findings: Findings) -> list[Chart | None]:
    """All probes on one scale, the largest first."""
    found = [
        f
        for f in findings
        if f.code.startswith("probe/") and f.code.count("/") == 1 and f.unit == "share" and finite(f.details.get("points"))
    ]
    rows = sorted(estimates_of(found, "probe"), key=lambda row: -row["estimate"])
    chart = draw_intervals(
        rows, code="probe-points", title="How much preference each trick buys", axis="percentage points of preference", reference=0.0, share=False, percent=True,
        text="By how much a change that leaves the substance alone moves preference against the other responses to the prompt, with 95% intervals; 0 (dashed) is "
        "not at all. Where a text should be worth the same, it is the mean size of the change either way.",
    )  # fmt: skip
    return [chart]


def draw_features(findings: Findings) -> list[Chart | None]:
    """Which readable features move the reward."""
    rows = rows_of(details_of(findings, "explain/features"), "features", "estimate", optional=("low", "high", "n"), text=("feature",))
    return [
        draw_intervals(
            [row | {"label": row["feature"]} for row in rows], code="explain-features", title="What moves the reward", reference=0.0, share=False,
            axis="standard deviations of the reward",
            text="By one standard deviation of each feature within prompts, all others given; 95% intervals that hold for all features at once. An association is not a cause.",
        )
    ]  # fmt: skip


def draw_optimisation(findings: Findings) -> list[Chart | None]:
    """Gold, and the reward that is followed, along policies of growing strength."""
    alt = altair_api()
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
        x = alt.X(**scale_of("sqrt_kl", "square root of the KL from the start", ticks=6))
        ends = [end for row in rows for end in (row["low"], row["high"], row["gold_gain"], row["ideal_gain"], 0.0) if end is not None]
        y = scale_of("gold_gain", "gold gained", ticks=5, domain=[min(ends), max(ends)])
        number = {
            field: (title, "number")
            for field, title in (("sqrt_kl", "sqrt KL"), ("gold_gain", "gold gained"), ("low", "low"), ("high", "high"))
        }
        tips = tips_of(strength=("strength", "text"), **number, ideal_gain=("at best", "number"), proxy_gain=("reward gained", "number"))
        gold = [
            line_at(0, "y", (1, 0)),
            over_rows().mark_area(color="var(--c-1)", opacity=0.18).encode(x=x, y=alt.Y(**y | {"field": "low"}), y2="high:Q"),
            over_rows().mark_line(color="var(--ink-3)", strokeDash=[4, 3]).encode(x=x, y=alt.Y(**y | {"field": "ideal_gain"})),
            over_rows().mark_line(color="var(--c-1)").encode(x=x, y=alt.Y(**y)),
            over_rows().mark_point(color="var(--c-1)").encode(x=x, y=alt.Y(**y), tooltip=tips),
        ]
        text = (
            f"What {words} lead to: gold above the start with 95% intervals, and at best (dashed) what a policy as strong that follows gold itself would gain; "
            "below it what the reward, in its own units, believes to have gained."
        )
        specs = [as_spec(alt.layer(*gold), rows, text, height=240)]
        if all(row["proxy_gain"] is not None for row in rows):
            believed = (
                over_rows()
                .mark_line(color="var(--c-2)", point=True)
                .encode(x=x, y=alt.Y(**scale_of("proxy_gain", "reward gained", ticks=3)), tooltip=tips)
            )
            specs.append(as_spec(believed, rows, text, height=110))
        cells = [
            (str(row["strength"]), figure(row["sqrt_kl"]), *cells_of({"estimate": row["gold_gain"], "low": row["low"], "high": row["high"]})[:2],
             figure(row["ideal_gain"]), figure(row["proxy_gain"]))
            for row in rows
        ]  # fmt: skip
        title = f"What following the reward leads to: {name.replace('-', ' ')}"
        columns = ("strength", "sqrt KL", "gold gained", "95% interval", "at best", "reward gained")
        charts.append(
            Chart(code=f"optimisation-{name}", title=title, text=text, specs=specs, table=Table(caption=title, columns=columns, rows=cells))
        )
    ranked = [f for f in findings if f.code.startswith("usefulness/")]
    charts.append(
        draw_intervals(
            estimates_of(ranked, "usefulness"), code="usefulness", title="Which reward is worth following", axis=f"gold gained ({ranked[0].unit})" if ranked else "", reference=0.0, share=False,
            text="What the best of n by each reward gains over the start by gold, with 95% intervals; the most useful first.",
        )
    )  # fmt: skip
    alarm = details_of(findings, "optimisation/alarm")
    stop = alarm.get("stop_at")
    charts.append(
        draw_curve(
            rows_of(alarm, "curve", "n", "gain", optional=("low", "high")), x="n", y="gain", code="optimisation-alarm", title="What the fit foresees without gold",
            along="best of n by the reward", axis="gain over the start (logits)", stop=stop if finite(stop) else None,
            text="Gain of the utilities that the data leave credible, with the band that holds 95% of them, as policies follow the reward harder"
            + ("; the dashed line is where to stop." if finite(stop) else "."),
        )
    )  # fmt: skip
    charts += [
        draw_curve(
            rows_of(details_of(findings, f"optimisation/{name}"), "curve", "n", "value", optional=("low", "high")), x="n", y="value", code=f"optimisation-{name}",
            title=title, along="best of n by the reward", axis=axis, text=f"{text}, with 95% intervals. It rises also where optimisation does no harm.",
        )
        for name, title, axis, text in _BESIDES
    ]  # fmt: skip
    return charts


def draw_stages(findings: Findings) -> list[Chart | None]:
    """What the ideal version of each stage gains."""
    rows = sorted(estimates_of((f for f in findings if f.code.startswith("attribution/")), "attribution"), key=lambda row: -row["estimate"])
    chart = draw_intervals(
        rows, code="attribution-stages", title="What each stage costs", axis="points of what can be had", reference=0.0, share=False,
        text="What welfare gains where one stage alone is made ideal, with 95% intervals over simulated societies. Stages mend each other, so that gains need not add up.",
    )  # fmt: skip
    return [chart]


def draw_benchmark(findings: Findings) -> list[Chart | None]:
    """The whole and its parts with their chance, and what a reward that counts characters gets."""
    colours = {"the reward": "var(--c-1)", "length alone": "var(--c-0)"}
    rows: list[Row] = []
    for f in findings:
        part = f.code.partition("/")[2]
        if (
            not belongs_to(f, "benchmark")
            or f.unit != "share"
            or not finite(f.estimate)
            or part in ("style", "unscored", "worst", "best-of-k")
        ):
            continue
        alone = part == "length-only"
        label = "length alone" if alone else spelled(part) or str(f.details.get("benchmark") or "overall")
        chance = f.details.get("chance")
        rows.append({"label": label, "kind": "length alone" if alone else "the reward", "estimate": f.estimate, "low": f.low, "high": f.high, "n": f.n,
                     "chance": chance if finite(chance) else None})  # fmt: skip
    chances = [row["chance"] for row in rows if row["chance"] is not None]
    chart = draw_intervals(
        rows, code="benchmark-scores", title="Scores and chance", axis="score", reference=chances[0] if chances else 0.5, share=True, colours=colours,
        beside="chance" if chances else "",
        text="Scores by the benchmark's own rules with 95% intervals; a tick marks the chance of each part, the dashed line that of the whole. Grey is what counting characters gets.",
    )  # fmt: skip
    return [chart]


def draw_judges(findings: Findings) -> list[Chart | None]:
    """Each judge: agreement with people, the place, and substance against length."""
    charts: list[Chart | None] = []
    for name, title, axis, text in (
        (
            "gold",
            "Which judges agree with people?",
            "agreement with the majority of people",
            "Ties are half right; 50% (dashed) is a coin.",
        ),
        (
            "position",
            "Which judges favour a place?",
            "wins of what is shown first",
            "Without a bias, and with both orders asked, 50% (dashed).",
        ),
    ):
        rows = rows_of(details_of(findings, f"judges/{name}"), "judges", "estimate", optional=("low", "high", "n"), text=("judge",))
        charts.append(
            draw_intervals(
                [row | {"label": row["judge"]} for row in rows], code=f"judges-{name}", title=title, axis=axis, reference=0.5, share=True,
                text=f"Shares with 95% intervals that hold for all judges at once. {text}",
            )
        )  # fmt: skip
    colours = {"the shorter is better": "var(--c-2)", "the longer is better": "var(--c-1)", "the longer one wins": "var(--c-0)"}
    ends, details = ("estimate", "low", "high", "n"), details_of(findings, "judges/style")
    names = [f"{side}_{end}" for side in ("hard", "easy") for end in ends]
    sides = [
        {"label": f"{kind}: {row['judge']}", "kind": kind} | {end: row[f"{side}_{end}"] for end in ends}
        for row in rows_of(details, "judges", "hard_estimate", "easy_estimate", optional=names, text=("judge",))
        for side, kind in (("hard", "the shorter is better"), ("easy", "the longer is better"))
    ]
    plain = rows_of(details, "judges", "estimate", optional=ends[1:], text=("judge",))
    charts.append(
        draw_intervals(
            sides or [row | {"label": row["judge"], "kind": "the longer one wins"} for row in plain], code="judges-style", title="Substance or length?",
            axis="agreement with people" if sides else "wins of the longer one", reference=0.5, share=True, colours=colours,
            text="Where the better response is the shorter one, and where it is the longer one, with 95% intervals: a judge that follows length is below a half (dashed) in the first and above it in "
            "the second." if sides else "How often the longer response wins; without people's word it may be right to. With 95% intervals.",
        )
    )  # fmt: skip
    return charts


def draw_attacks(findings: Findings) -> list[Chart | None]:
    """What ways of rewriting do to the reward and to its judges; and how many attacks of each family work."""
    rows: list[Row] = []
    for f in findings:
        ways = f.details.get("ways") if f.code.startswith("loophole/") else None
        for way in ways if isinstance(ways, list | tuple) else ():
            judged = way.get("judged") if isinstance(way, dict) else None
            for judge, change in judged.items() if isinstance(judged, dict) else ():
                if finite(change) and finite(way.get("proxy")):
                    found = "disowned" if way.get("disowned_by") == judge else "not surely"
                    row = {
                        "move": spelled(f.code.partition("/")[2]),
                        "kind": str(way.get("kind", "")),
                        "judge": str(judge),
                        "verdict": found,
                    }
                    rows.append(row | {"proxy": way["proxy"], "change": change})
    families = [
        row
        for row in estimates_of([f for f in findings if f.code.startswith("attacks/") and f.unit == "share"], "attacks")
        if 0 <= row["estimate"] <= 1
    ]
    attacks = draw_intervals(
        families, code="attack-families", title="Which families of attacks work?", axis="share of attacks that work", reference=0.0, share=True,
        text="Attacks that were kept, run on this reward model: an attack works where the reward likes it better than the honest text it was made from. 95% intervals by prompt.",
    )  # fmt: skip
    return [_draw_ways(rows), attacks]


def _draw_ways(rows: list[Row]) -> Chart | None:
    if not rows:
        return None
    alt = altair_api()
    colours = {"disowned": "var(--c-2)", "not surely": "var(--c-0)"}
    x = scale_of("proxy", "change of the reward (sd)", domain=frame_of(rows, ("proxy",), 0.0, limit=False), nice=False)
    y = scale_of("change", "change by the judge (sd)", ticks=5, domain=frame_of(rows, ("change",), 0.0, limit=False), nice=False)
    tips = tips_of(
        move=("move", "text"),
        kind=("way", "text"),
        judge=("judge", "text"),
        proxy=("reward", "number"),
        change=("judge's change", "number"),
    )
    points = (
        over_rows()
        .mark_point(size=80)
        .encode(
            x=alt.X(**x),
            y=alt.Y(**y),
            color=coloured("verdict", {name: value for name, value in colours.items() if any(row["verdict"] == name for row in rows)}),
            tooltip=tips,
        )
    )
    title = "What rewriting does to the reward, and to its judges"
    text = "Each way of rewriting honest texts, by what it does to the reward and to a judge who was not asked in the search; a loophole lies to the right of 0 and below it."
    cells = [(row["move"], row["kind"], row["judge"], figure(row["proxy"]), figure(row["change"]), row["verdict"]) for row in rows]
    columns = ("move", "way", "judge", "reward", "judge's change", "judge disowns it")
    return Chart(
        code="loophole-ways",
        title=title,
        text=text,
        specs=[as_spec(alt.layer(line_at(0, "x", (1, 0)), line_at(0, "y", (1, 0)), points), rows, text, height=300)],
        table=Table(caption=title, columns=columns, rows=cells, texts=(0, 1, 2, 5)),
    )


def draw_repair(findings: Findings) -> list[Chart | None]:
    """Before and after, statistics of one scale together."""
    rows = rows_of(
        details_of(findings, "repair"),
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
    alt = altair_api()
    rows = [
        row | {"order": place, "verdict": row["verdict"] if row["verdict"] in _CHANGES else "no clear change"}
        for place, row in enumerate(rows)
    ]
    x = scale_of("before", axis, domain=frame_of(rows, ("before", "after"), rows[0]["before"], limit=False), nice=False)
    y = alt.Y("name", type="nominal", sort=alt.EncodingSortField("order"), title=None, axis={"labelLimit": 230, "grid": False})
    colour = coloured("verdict", {name: value for name, value in _CHANGES.items() if any(row["verdict"] == name for row in rows)})
    numbers = {key: (key, "number") for key in ("before", "after", "change", "low", "high")}
    tips = tips_of(name=("what", "text"), **numbers, n=("n", "count"))
    layers = [
        over_rows().mark_rule(strokeWidth=2.5).encode(x=alt.X(**x), x2="after:Q", y=y, color=colour, tooltip=tips),
        over_rows().mark_point(size=70, filled=False).encode(x=alt.X(**x), y=y, color=colour, tooltip=tips),
        over_rows().mark_point(size=80).encode(x=alt.X(**x | {"field": "after"}), y=y, color=colour, tooltip=tips),
    ]
    text = "Hollow before the repair, full after it. What got better or worse for sure is coloured; the table has the changes with their intervals."
    cells = [
        (row["name"], *(figure(row[key], row["unit"]) for key in ("before", "after")), *cells_of(row | {"estimate": row["change"]}, row["unit"]), row["verdict"])
        for row in rows
    ]  # fmt: skip
    table = Table(
        caption="Before and after", columns=("what", "before", "after", "change", "95% interval", "n", "verdict"), rows=cells, texts=(0, 6)
    )
    return Chart(
        code=code,
        title="Before and after the repair",
        text=text,
        specs=[as_spec(alt.layer(*layers), rows, text, height={"step": 28})],
        table=table,
    )
