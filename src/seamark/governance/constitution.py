"""What words mean and whose principles they are: criteria without a definition, criteria that conflict, principles that a group opposes.

Conventions
-----------
The conflict of two axes a and b is measured question by question (one prompt, two responses, judged on both). With p_a the probability
that a rater orders the two one way on axis a, over orders by different raters,

    c_ab = p_a (1 - p_b) + p_b (1 - p_a)         how often an order by a and an order by b disagree
    c_aa = 2 p_a (1 - p_a)                       how often two raters disagree on a alone: noise and differing taste
    c_ab - (c_aa + c_bb) / 2 = (p_a - p_b)^2     conflict beyond what raters disagree about anyway

so that careless raters raise c_ab, and not the excess. Each is estimated without bias from the votes of a question, questions count
alike, and intervals are clustered by prompt.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.comparisons import Comparisons, compare
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.access import check_claims
from seamark.governance.registers import Register, check_clauses, check_questions, check_stakeholders
from seamark.intervals import Interval, clustered_mean, clustered_share, wilson
from seamark.records import Feedback

OVERALL = "overall"
"""The axis of judgments that name none."""
_FEW = 10
"""From this many voters on a group's majority is told; below it, a lone voice would be a majority."""


def check_register(register: Register, feedback: Feedback, findings: Sequence[Finding] = ()) -> Findings:
    """The register held against the feedback: stakeholders, open questions, clauses, criteria and their conflicts, principles, and its
    claims against the findings that there are."""
    return Findings(
        (
            check_stakeholders(register, feedback),
            check_questions(register),
            *check_clauses(register, feedback),
            *check_criteria(register, feedback),
            *check_conflicts(feedback),
            *(check_principles(feedback, register) if register.principles else ()),
            *check_claims(register.claims, findings),
        )
    ).with_access("outside-the-box")


# ---------------------------------------------------------------------------------------------- criteria


def require_defined(register: Register, axes: Iterable[str]) -> None:
    """Nothing, where every axis that raters are to be asked about has a definition: to be asked before collecting.

    Raises
    ------
    InvalidSetting
        With the first axis that has none.
    """
    for axis in axes:
        if register.criterion(axis) is None:
            raise InvalidSetting(
                "axis", axis, "Define it in [[criteria]] of the register before anybody is asked: raters would judge by words of their own."
            )


def check_criteria(register: Register, feedback: Feedback) -> Findings:
    """Whether the axes of the feedback mean something.

    Returns `criteria/undefined`, blocking where judgments are on an axis without a definition; and `criteria/shown`, a warning where
    judgments were made under a guideline that no version of the definition says it was shown in.

    Source: Dahlgren Lindström et al. 2024 (helpful, honest and harmless are left to each worker to interpret).
    """
    counts = feedback.judgments.group_by(pl.col("axis").fill_null(OVERALL)).len().sort("axis")
    of_axis = {str(axis): int(n) for axis, n in counts.iter_rows()}
    undefined = {axis: n for axis, n in of_axis.items() if register.criterion(axis) is None}
    named = "; ".join(f"{axis} ({n:,} judgments)" for axis, n in undefined.items())
    versions = {axis: found.version for axis in of_axis if (found := register.criterion(axis)) is not None}
    first = Finding(
        code="criteria/undefined",
        title=f"{len(undefined)} of {len(of_axis)} axes have no definition: {named}." if undefined else f"Each of the {len(of_axis)} axes has a definition.",
        estimate=float(len(undefined)), n=len(of_axis), unit="count", verdict="blocking" if undefined else "ok",
        reason=f"n is axes; judgments that name none are on the axis {OVERALL}. A count of facts: no interval.",
        remedy="Write what raters were told it means, with a version and authors, in [[criteria]] of the register." if undefined else None,
        source="Dahlgren Lindström et al. 2024", details={"undefined": undefined, "versions": versions}, access="outside-the-box",
    )  # fmt: skip
    return Findings((first, _check_shown(register, feedback)))


def _check_shown(register: Register, feedback: Feedback) -> Finding:
    told = {axis: {g for c in register.criteria if c.axis == axis for g in c.guidelines} for axis in {c.axis for c in register.criteria}}
    known = feedback.judgments.filter(pl.col("guideline_version").is_not_null()).select(
        pl.col("axis").fill_null(OVERALL), "guideline_version"
    )
    known = known.filter(pl.col("axis").is_in(list(told)))
    if not known.height:
        reason = "The judgments on defined axes do not say which version of the guideline raters saw (guideline_version)."
        return Finding.not_applicable("criteria/shown", "Whether raters were shown the definitions", reason)
    counts = known.group_by("axis", "guideline_version").len().sort("axis", "guideline_version").rows()
    unseen = [(axis, guideline, n) for axis, guideline, n in counts if guideline not in told[axis]]
    n_unseen = sum(n for *_, n in unseen)
    return Finding(
        code="criteria/shown",
        title=f"{n_unseen:,} of {known.height:,} judgments were made under a guideline in which no definition of their axis is said to be shown"
        + (f": {unseen[0][0]} under {unseen[0][1]}." if unseen else "."),
        estimate=n_unseen / known.height, n=known.height, unit="share", verdict="warning" if unseen else "ok",
        reason="By `guidelines` of the criteria, all versions; of the judgments whose guideline is known. An exact count: no interval.",
        remedy="Name in `guidelines` where the definition was shown; judgments made without it follow the raters' own." if unseen else None,
        details={"unseen": [{"axis": axis, "guideline": guideline, "n": n} for axis, guideline, n in unseen]}, access="outside-the-box",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- conflict between criteria


@dataclass(frozen=True)
class Conflict:
    """How two axes order the same responses."""

    first: str
    second: str
    rate: Interval
    """c_ab: how often an order by one and an order by the other disagree. n is questions."""
    excess: Interval | None
    """(p_a - p_b)^2: what is beyond raters' disagreement on one axis; None where no question has two raters on each."""
    clustering: str


def conflicts(feedback: Feedback, *, seed: int = 0) -> list[Conflict]:
    """Conflict of each two axes of the feedback, from pairs, choices, rankings and ratings alike; ties order nothing.

    Orders by the same rater are left out, unless a question has no others: one person's two answers share that person's taste, whereas
    c_aa is between people. Where raters are not known, nothing can be left out, each judgment counts as somebody else's, and the excess is too low
    as far as one person's taste shows on both axes.
    """
    found = compare(feedback, seed=seed).decided()
    # whoever is not known is somebody else each time, on every axis
    found = replace(found, rater=np.where(found.rater >= 0, found.rater, -1 - np.arange(len(found))))
    codes = [code for code in range(len(found.axes)) if (found.axis == code).any()]
    votes = {code: _votes(found.where(found.axis == code)) for code in codes}
    out: list[Conflict] = []
    for a, b in itertools.combinations(sorted(codes, key=lambda code: found.axes[code]), 2):
        both = votes[a].join(votes[b], on=["low", "high", "topic", "rater"], how="full", coalesce=True, suffix="_b").fill_null(0)
        if (conflict := _conflict(both, found.axes[a], found.axes[b])) is not None:
            out.append(conflict)
    return out


def _votes(found: Comparisons) -> pl.DataFrame:
    """One row per question and rater: how often they ordered it one way (x) and the other (y)."""
    low, high = np.minimum(found.left, found.right), np.maximum(found.left, found.right)
    x = np.where(found.left == low, found.sign, -found.sign) > 0
    frame = pl.DataFrame(
        {"low": low, "high": high, "topic": found.topic(), "rater": found.rater, "x": x.astype(np.float64), "y": (~x).astype(np.float64)}
    )
    return frame.group_by("low", "high", "topic", "rater").agg(pl.col("x").sum(), pl.col("y").sum())


def _conflict(both: pl.DataFrame, first: str, second: str) -> Conflict | None:
    x, y, u, v = (pl.col(name) for name in ("x", "y", "x_b", "y_b"))
    own = {"cross": x * v + y * u, "cross_n": (x + y) * (u + v), "a": 2 * x * y, "a_n": (x + y) ** 2, "b": 2 * u * v, "b_n": (u + v) ** 2}
    sums = both.group_by("low", "high", "topic").agg(
        x.sum(), y.sum(), u.sum(), v.sum(), *(expression.sum().alias(f"own_{name}") for name, expression in own.items())
    )
    # over all pairs of orders, less those that one rater gave twice
    q = sums.sort("low", "high", "topic").select(
        "topic",
        *((own[name] - (pl.col(f"own_{name}") if name in ("a", "b", "a_n", "b_n") else 0)).alias(name) for name in own),
        (own["cross"] - pl.col("own_cross")).alias("others"),
        (own["cross_n"] - pl.col("own_cross_n")).alias("others_n"),
    ).filter(pl.col("cross_n") > 0)  # fmt: skip
    if not q.height:
        return None
    column = {name: q[name].to_numpy() for name in q.columns}
    apart = column["others_n"] > 0
    rate = np.where(apart, column["others"] / np.where(apart, column["others_n"], 1), column["cross"] / column["cross_n"])
    whole, how = clustered_share(rate, {"prompt": column["topic"]})
    told = apart & (column["a_n"] > 0) & (column["b_n"] > 0)
    excess = None
    if told.any():
        floor = (column["a"][told] / column["a_n"][told] + column["b"][told] / column["b_n"][told]) / 2
        excess, _ = clustered_mean(rate[told] - floor, {"prompt": column["topic"][told]})
    return Conflict(first, second, whole, excess, how)


def check_conflicts(feedback: Feedback, *, seed: int = 0) -> Findings:
    """How often criteria order the same responses against each other: one finding per two axes, `conflict/A-B`.

    The estimate is the rate; the title says how much of it is beyond raters' disagreement on one axis. *Notice* where that excess is
    clearly above 0: then which axis counts for how much is a decision for the charter.
    """
    found = conflicts(feedback, seed=seed)
    if not found:
        reason = "No two responses were ordered on two axes."
        return Findings((Finding.not_applicable("conflict", "Whether criteria conflict", reason),))
    return Findings(tuple(_conflict_finding(conflict) for conflict in found))


def _conflict_finding(conflict: Conflict) -> Finding:
    a, b, excess = conflict.first, conflict.second, conflict.excess
    title = f"{a} and {b} order two responses against each other in {conflict.rate.estimate:.1%} of cases"
    if excess is None:
        title += "; how much of it is noise cannot be told."
    else:
        bounds = f" [{excess.low:.3f}, {excess.high:.3f}]" if excess.bounded else ""
        title += f"; beyond what raters disagree about anyway: {excess.estimate:.3f}{bounds}."
    clear = excess is not None and excess.bounded and excess.low > 0
    return Finding.of(
        conflict.rate, code=f"conflict/{a}-{b}", title=title, unit="share", verdict="notice" if clear else "ok",
        reason=f"n is questions (two responses ordered on both axes), which count alike; {conflict.clustering}. Orders by different raters, ties left out.",
        remedy="No weighting of the two suits both: say in the charter which comes first, and show both." if clear else None,
        source="Dahlgren Lindström et al. 2024",
        details={
            "axes": [a, b],
            "excess": None if excess is None else excess.estimate,
            "excess_low": excess.low if excess is not None and excess.bounded else None,
            "excess_high": excess.high if excess is not None and excess.bounded else None,
            "excess_n": 0 if excess is None else excess.n,
        },
    )  # fmt: skip


def conflict_matrix(found: Iterable[Conflict], axes: tuple[str, ...]) -> NDArray[np.float64]:
    """(n_axes, n_axes) rates of conflict as a symmetric matrix; NaN where two axes never met, and on the diagonal."""
    place = {axis: i for i, axis in enumerate(axes)}
    matrix = np.full((len(axes), len(axes)), np.nan)
    for conflict in found:
        i, j = place[conflict.first], place[conflict.second]
        matrix[i, j] = matrix[j, i] = conflict.rate.estimate
    return matrix


# ---------------------------------------------------------------------------------------------- principles


@dataclass(frozen=True)
class Support:
    """What one group says of one principle."""

    principle: str
    text: str
    authors: tuple[str, ...]
    group: str
    n: int
    """Voters of the group, each with the last vote, who said yes or no."""
    n_passed: int
    """Voters who passed."""
    share: float
    """Who agreed, of those who said yes or no."""
    low: float
    high: float

    @property
    def opposed(self) -> bool:
        """Whether a majority of the group is clearly against it."""
        return self.n >= _FEW and self.high < 0.5


def principle_support(feedback: Feedback, register: Register | None = None) -> list[Support]:
    """Support for each principle in each group, from votes with the thumb; passing (skipped, cannot tell) is counted apart.

    Principles are the responses that are voted on: those of judgments whose target is a principle, or all where no judgment says so.
    Authors are those of the register, by the name of the response. A voter counts once per principle, with the last vote, in the group
    of that vote.
    """
    votes = feedback.judgments.with_row_index("row").filter(pl.col("kind") == "thumbs")
    if (votes["target"] == "principle").any():
        votes = votes.filter(pl.col("target") == "principle")
    voter = pl.coalesce(pl.col("rater").cast(pl.Int64), -1 - pl.col("row").cast(pl.Int64))
    last = votes.select(pl.col("responses").list.first().alias("response"), voter.alias("voter"), "group", "thumb", "time", "row")
    last = last.sort("time", "row", nulls_last=False).unique(["response", "voter"], keep="last")
    counts = (
        last.group_by("response", pl.col("group").fill_null(""))
        .agg(pl.col("thumb").count().alias("n"), pl.col("thumb").sum().alias("yes"), pl.col("thumb").null_count().alias("passed"))
        .sort("response", "group")
    )
    names = feedback.responses["name"].fill_null(feedback.responses["id"]).to_list()
    texts = feedback.responses["text"].fill_null("").to_list()
    written = {p.id: p for p in (register or Register()).principles}
    out: list[Support] = []
    for response, group, n, yes, passed in counts.iter_rows():
        low, high = wilson(yes, n)
        known = written.get(names[response])
        text, authors = (known.text, known.authors) if known else (texts[response], ())
        out.append(Support(names[response], text, authors, group, n, passed, yes / n if n else float("nan"), low, high))
    return out


def check_principles(feedback: Feedback, register: Register | None = None) -> Findings:
    """Which principles a group's majority opposes, and which nobody answers for.

    Returns `principles/opposed`: each principle against which the whole interval of a group of ten or more voters lies, with its n and
    interval, in the details; the title has the clearest ones. `principles/authors`: principles without a named author.
    """
    support = principle_support(feedback, register)
    if not support:
        reason = "Nobody voted on a principle: there are no thumbs, or none on what is marked as a principle."
        return Findings((Finding.not_applicable("principles/opposed", "Whether a group opposes a principle", reason),))
    told = [s for s in support if s.n >= _FEW]
    opposed = sorted((s for s in told if s.opposed), key=lambda s: s.high)
    principles = list(dict.fromkeys(s.principle for s in support))
    against = list(dict.fromkeys(s.principle for s in opposed))
    shown = "; ".join(
        f"{s.principle} by {s.group or 'voters of no group'} ({s.share:.0%} [{s.low:.0%}, {s.high:.0%}] agree, n = {s.n:,})"
        for s in opposed[:3]
    )
    rows = [{"principle": s.principle, "text": s.text, "authors": list(s.authors), "group": s.group, "n": s.n, "passed": s.n_passed,
             "agree": s.share if s.n else None, "low": s.low, "high": s.high, "opposed": s.opposed} for s in support]  # fmt: skip
    anonymous = [s.principle for s in {s.principle: s for s in support}.values() if not s.authors]
    return Findings(
        (
            Finding(
                code="principles/opposed",
                title=f"{len(against)} of {len(principles)} principles are opposed by the majority of a group" + (f": {shown}." if opposed else "."),
                estimate=float(len(against)), n=len(principles), unit="count", verdict="warning" if opposed else "ok" if told else "notice",
                reason=f"n is principles. A group opposes one where the 95% interval (Wilson) of those who agree lies below one half and {_FEW} or more "
                f"voted; {len(support) - len(told):,} of {len(support):,} pairs of group and principle have fewer. A count: no interval of its own. "
                "Intervals are one by one: of many, one in forty is too low by luck.",
                remedy="Put it to those who oppose it, or say in the charter why it holds against them." if opposed else None,
                details={"support": rows}, access="outside-the-box",
            ),
            Finding(
                code="principles/authors",
                title=f"{len(anonymous)} of {len(principles)} principles have no named author.",
                estimate=float(len(anonymous)), n=len(principles), unit="count", verdict="notice" if anonymous else "ok",
                reason="n is principles; authors are those of the register. A count of facts: no interval.",
                remedy="Say in [[principles]] of the register who wrote each." if anonymous else None,
                details={"anonymous": anonymous[:200]}, access="outside-the-box",
            ),
        )
    )  # fmt: skip
