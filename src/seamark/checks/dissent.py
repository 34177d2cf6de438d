"""Do groups of people answer differently, beyond chance and beyond strictness, and who is outvoted?

Conventions
-----------
An answer is a number: +1 or -1 for a pair (which response of the question) or thumbs, 0 for a tie, the rating itself for ratings. A
*block* is what is permuted as a whole: a rater, or a rater's answers in one stratum where the group of a rater differs by stratum (a
stance differs by debate). What item and strictness explain is taken from answers, so that a group that is stricter everywhere is no
finding: in logits where answers are yes or no, then by means.

Labels of blocks are permuted, within strata; p counts the true arrangement too (Phipson & Smyth 2010), so it is never below 1 / (draws
+ 1), nor below 1 / (arrangements that differ), which few raters make few: this floor is printed beside every p. Groups that were made from
the answers themselves differ by construction, and are not tested (`derived`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import gammaln
from scipy.stats import false_discovery_control

from seamark.aggregation.consensus import tally
from seamark.aggregation.regret import one_mode
from seamark.checks.comparisons import Codes, codes_of, combine, compact, counted, percent, question_units
from seamark.checks.findings import Finding, Findings
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting, SeamarkError
from seamark.intervals import Z95, beginning, bootstrap, clustered_share, share
from seamark.models.people import labels
from seamark.records import Feedback

Floats = NDArray[np.float64]

_DRAWS = 4999
_EXACT = 5000
"""Where labels can be arranged in no more ways than this, all are tried."""
_STRAY = 0.1
"""Share of answers in another group than the rater's commonest (people are not always sure of their stance) that is put up with."""
_SHOWN = 20
_VALUES = 12
_CELLS = 3_000_000
_FILLED = 0.1


@dataclass(frozen=True)
class Answers:
    """Numeric answers of known people in groups."""

    value: Floats
    item: Codes
    """(n,) question, from 0."""
    block: Codes
    """(n,) what is permuted as a whole, from 0."""
    group_of: Codes
    """(n_blocks,) group of each block: where people said several, the commonest."""
    stratum_of: Codes
    """(n_blocks,) blocks are permuted within it: the values of `within`, and who answered connected questions."""
    groups: tuple[str, ...]
    rater: Codes
    response: Codes
    """(n,) a response of the question, by which it is named."""
    kind: str

    @property
    def n_items(self) -> int:
        return int(self.item.max()) + 1

    @property
    def group(self) -> Codes:
        """(n,) group of each answer."""
        return self.group_of[self.block]


def answers_by(feedback: Feedback, *, by: str | None = "group", within: str = "", least: int = 5) -> Answers:
    """The answers of the commonest kind by raters in groups of at least `least` raters.

    None puts everyone into one group. `within` names a field (prompt, ...) in whose values the group of a rater may differ.

    Raises
    ------
    InvalidSetting
        If fewer than two groups have so many raters, or a rater is in several groups and `within` does not tell them apart.
    """
    group_label = pl.Series("by", ["everyone"] * feedback.n_judgments) if by is None else labels(feedback, by).alias("by")
    feedback_rows = feedback.judgments.with_columns(group_label, pl.Series("unit", question_units(feedback)))
    low = pl.col("responses").list.min()
    first = pl.col("responses").list.first()
    side = pl.when(pl.col("outcome") == "left").then(1.0).when(pl.col("outcome") == "right").then(-1.0).otherwise(0.0)
    value = (
        pl.when(pl.col("kind") == "thumbs")
        .then(2.0 * pl.col("thumb").cast(pl.Float64) - 1)
        .when(pl.col("kind") == "pair")
        .then(side * pl.when(first == low).then(1.0).otherwise(-1.0))
        .when(pl.col("kind") == "rating")
        .then(pl.col("rating"))
    )
    stratum = labels(feedback, within, setting="within").fill_null("") if within else pl.Series([""] * feedback.n_judgments)
    frame = feedback_rows.with_columns(stratum.alias("stratum"))
    frame = frame.filter(pl.col("by").is_not_null() & pl.col("rater").is_not_null() & ~pl.col("outcome").is_in(["cannot_tell", "skipped"]))
    frame = frame.with_columns(value.alias("value"), low.cast(pl.Int64).alias("low")).drop_nulls("value")
    kinds = frame["kind"].cast(pl.String).value_counts(sort=True)["kind"].to_list()
    if kinds:
        frame = frame.filter(pl.col("kind").cast(pl.String) == kinds[0])
    large = frame.group_by("by").agg(pl.col("rater").n_unique().alias("n")).filter(pl.col("n") >= least)["by"]
    frame = frame.filter(pl.col("by").is_in(large.to_list()))
    if frame["by"].n_unique() < (1 if by is None else 2):
        raise InvalidSetting("by", by, f"Fewer than two groups have {least} known raters.")
    names = sorted(frame["by"].unique().to_list())
    rater, group = codes_of(frame["rater"]), np.searchsorted(names, frame["by"].to_numpy().astype(str)).astype(np.int64)
    stratum_code = compact(np.unique(frame["stratum"].to_numpy().astype(str), return_inverse=True)[1])[0]
    n_raters = int(rater.max(initial=-1)) + 1
    of_rater = np.bincount(rater * len(names) + group, minlength=n_raters * len(names)).reshape(n_raters, -1).argmax(1)
    if (of_rater[rater] == group).mean() >= 1 - _STRAY:
        # a rater's answers depend on each other whatever they are about, so that who is of one group everywhere is permuted whole
        stratum_code = np.zeros_like(stratum_code)
    block, n_blocks = compact(combine(rater, stratum_code))
    group_of = np.bincount(block * len(names) + group, minlength=n_blocks * len(names)).reshape(n_blocks, -1).argmax(1)
    stratum_of = np.zeros(n_blocks, dtype=np.int64)
    stratum_of[block] = stratum_code
    stray = float((group_of[block] != group).mean())
    if stray > _STRAY:
        remedy = "name with `within` the field that it depends on (such as prompt)"
        raise InvalidSetting("by", by, f"{percent(stray)} of the answers are not of their rater's commonest group: {remedy}.")
    item, n_items = compact(frame["unit"].to_numpy())
    # people who answered nothing in common, not even through others, could not have had each other's place
    met = csr_array((np.ones(len(block)), (block, n_blocks + item)), shape=(n_blocks + n_items, n_blocks + n_items))
    apart = connected_components(met, directed=False)[1][:n_blocks]
    stratum_of = compact(combine(stratum_of, apart.astype(np.int64)))[0]
    return Answers(
        frame["value"].to_numpy(),
        item,
        block,
        group_of.astype(np.int64),
        stratum_of,
        tuple(names),
        rater,
        frame["low"].to_numpy(),
        kinds[0],
    )


# ---------------------------------------------------------------------------------------------- findings


def check_dissent(feedback: Feedback, *, by: str = "group", within: str = "", derived: bool = False, seed: int = 0) -> Findings:
    """What groups of raters disagree about, who is outvoted, and which statements bridge them; every code is there, with the reason where
    it cannot be computed.

    Parameters
    ----------
    by, within : the field that tells groups apart, and one on which the group of a rater depends.
    derived : whether the groups were made from these answers, as clusters of opinion are: they then differ by construction, and no test of
        whether they do is made. What a reader says of its own fields (Polis) counts as said.

    Raises
    ------
    InvalidSetting
        If `by` or `within` is no column.
    """
    out: list[Finding] = []
    derived = derived or by in feedback.report.derived
    try:
        answers = answers_by(feedback, by=by, within=within)
    except SeamarkError as error:
        for setting, column in (("by", by), ("within", within)):
            if column:
                labels(feedback, column, setting=setting)  # a column that is not there is an error, not a finding
        out += [Finding.not_applicable(code, title, str(error)) for code, title in _NEEDS_GROUPS.items()]
    else:
        reason = _nothing_to_tell(answers)
        if reason:
            out += [Finding.not_applicable(code, title, reason) for code, title in _NEEDS_GROUPS.items()]
        elif derived:
            out += [Finding.not_applicable(code, _NEEDS_GROUPS[code], _BY_CONSTRUCTION.format(by=by)) for code in _TESTS]
            out.append(_outvoted(answers, by))
        else:
            found = interactions(answers, seed=seed)
            out += [
                _conflict(found, answers, by),
                _items(found, answers, feedback, by),
                _cohesion_finding(answers, by, seed),
                _outvoted(answers, by),
            ]
    return Findings((*out, *_statements(feedback, by, derived), _kinds_of_raters(feedback, seed))).with_access("outside-the-box")


def _nothing_to_tell(answers: Answers) -> str:
    """Why groups cannot be compared question by question; empty where they can."""
    met = np.unique(answers.item * len(answers.groups) + answers.group)
    by_two = np.bincount(met // len(answers.groups), minlength=answers.n_items) > 1
    if not by_two.any():
        return "No question was answered by two groups."
    asked = np.unique(answers.block[by_two[answers.item]] * answers.n_items + answers.item[by_two[answers.item]])
    if np.bincount(asked // answers.n_items).max() < 2:
        return "Each rater answered at most one question that another group answered, too, so that taste cannot be told from strictness."
    return ""


_NEEDS_GROUPS = {
    "group-conflict": "Whether groups differ beyond chance cannot be told.",
    "group-items": "Items on which groups differ cannot be named.",
    "cohesion": "Whether groups agree with themselves more than with others cannot be told.",
    "outvoted": "Whom majority vote outvotes cannot be told.",
}


_TESTS = ("group-conflict", "group-items", "cohesion")
"""What is found by a test of whether groups differ."""
_BY_CONSTRUCTION = "The groups of {by} were made from these answers: they differ by construction, and no p-value says anything of them."
_IF_DERIVED = " Of groups that were made from these answers (clusters of opinion) it says nothing: say so with --derived (derived=True)."


def _beyond(floor: float) -> str:
    """What is printed beside every p-value."""
    return f"no p-value can be below {floor:.2g}"


def _floor(floor: float, *, exact: bool, what: str) -> str:
    how = "all arrangements of the labels were tried" if exact else f"labels of {what} were permuted"
    return f"{how[:1].upper()}{how[1:]}; {_beyond(floor)}.{_IF_DERIVED}"


def _texts_of(feedback: Feedback, codes: Codes) -> list[dict[str, str | None]]:
    """Of responses, the id and the beginning of the text."""
    chosen = feedback.responses[codes]
    return [
        {"response": str(id_), "text": None if text is None else beginning(text)}
        for id_, text in zip(chosen["id"].to_list(), chosen["text"].to_list(), strict=True)
    ]


def _quoted(row: dict[str, Any], name: str = "response") -> str:
    """An id, and the text in quotes where there is one."""
    return str(row[name]) + (f" “{row['text']}”" if row["text"] else "")


def _conflict(found: Interactions, answers: Answers, by: str) -> Finding:
    real = found.overall_p <= THRESHOLDS.false_discoveries
    return Finding(
        code="group-conflict", estimate=found.explained, low=found.low, high=found.high, n=answers.n_items, unit="share",
        verdict="notice" if real else "ok",
        title=f"Beyond strictness, {by} goes with {percent(max(found.explained, 0.0))} of the variance of answers to the same question "
        f"(p = {found.overall_p:.2g}; {_beyond(found.floor)}): "
        + ("groups disagree about what they were asked, unless they were made from these answers." if real else "no conflict beyond chance."),
        reason=f"{counted(len(answers.value), 'answer')} ({answers.kind}) to {counted(answers.n_items, 'question')} by {len(answers.groups)} groups, "
        "centred by question and rater; what permuted labels explain is taken off, so that it can be below 0. "
        + _floor(found.floor, exact=found.exact, what="raters") + " The interval is over questions.",
        remedy="Fit the groups apart (people=Groups(...)), and let the charter say how they are weighed." if real else None,
        source="Phipson & Smyth 2010 (permutation p-values)", details={"p": found.overall_p, "floor": found.floor, "groups": list(answers.groups)},
    )  # fmt: skip


def _items(found: Interactions, answers: Answers, feedback: Feedback, by: str) -> Finding:
    order = np.argsort(found.p, kind="stable")
    named = int((found.q <= THRESHOLDS.false_discoveries).sum())
    first = np.zeros(answers.n_items, dtype=np.int64)
    first[answers.item[::-1]] = answers.response[::-1]
    rows: list[dict[str, Any]] = [
        text
        | {"p": float(found.p[i]), "q": float(found.q[i])}
        | {f"mean {g}": None if np.isnan(m) else float(m) for g, m in zip(answers.groups, found.means[i], strict=True)}
        | {f"n {g}": int(n) for g, n in zip(answers.groups, found.counts[i], strict=True)}
        for i, text in zip(order[:_SHOWN], _texts_of(feedback, first[order[:_SHOWN]]), strict=True)
    ]
    reachable = found.floor * answers.n_items <= THRESHOLDS.false_discoveries
    return Finding(
        code="group-items", estimate=float(named), n=answers.n_items, unit="count", verdict="notice" if named else "ok",
        title=f"{counted(named, 'question')} of {answers.n_items:,} {'is' if named == 1 else 'are'} answered differently by {by} beyond strictness, "
        f"at a false discovery rate of {percent(THRESHOLDS.false_discoveries)}; {_beyond(found.floor)}."
        + (f" The clearest is about {_quoted(rows[0])}." if named else ""),
        reason="A count of facts: no interval. " + _floor(found.floor, exact=found.exact, what="raters")
        + ("" if reachable else f" With {answers.n_items:,} questions a single one would need {THRESHOLDS.false_discoveries / answers.n_items:.1g}, so one that "
           "stands alone cannot be found."),
        source="Benjamini & Hochberg 1995", details={"questions": rows, "floor": found.floor},
    )  # fmt: skip


def _cohesion_finding(answers: Answers, by: str, seed: int) -> Finding:
    code = "cohesion"
    if len(np.unique(answers.value)) > _VALUES:
        return Finding.not_applicable(code, _NEEDS_GROUPS[code], f"There are more than {_VALUES} different answers.")
    found = cohesion(answers, seed=seed)
    apart = found.inside - found.across
    if not np.isfinite(apart).any():
        return Finding.not_applicable(
            code, _NEEDS_GROUPS[code], "No group has two who answered the same, and somebody of another group with them."
        )
    sure = found.q <= THRESHOLDS.false_discoveries
    top = int(np.nanargmax(np.where(sure, apart, np.nan) if sure.any() else apart))
    n_sure, index = int(sure.sum()), found.index[top]
    ratio = (
        f"the group association index is {index:.2f}, and 1 the baseline" if np.isfinite(index) else "too little across for a stable ratio"
    )
    figures = f"alpha is {found.inside[top]:.2f} within {answers.groups[top]} and {found.across[top]:.2f} with the others ({ratio})"
    return Finding(
        code=code, estimate=float(apart[top]), n=len(answers.value), unit="alpha", verdict="notice" if sure.any() else "ok",
        title=(
            f"{counted(n_sure, 'group')} of {len(answers.groups)} {'agrees' if n_sure == 1 else 'agree'} with "
            f"{'itself' if n_sure == 1 else 'themselves'} more than with the others, unless made from these answers: {figures}"
            if sure.any()
            else f"No group agrees with itself more than with the others beyond chance: at most {figures}"
        ) + f"; q = {found.q[top]:.2g}, and {_beyond(found.floor)}.",
        reason=f"Krippendorff's alpha within a group of {by} less the agreement across; no interval, but a test by permutation. Their ratio, the group association "
        f"index, is given where the agreement across is clear of 0. {_floor(found.floor, exact=found.exact, what='raters')}",
        source="Prabhakaran et al. 2024 (GRASP)",
        details={"groups": [
            {"group": g, "inside": _number(found.inside[i]), "across": _number(found.across[i]), "index": _number(found.index[i]),
             "p": float(found.p[i]), "q": float(found.q[i])} for i, g in enumerate(answers.groups)
        ], "floor": found.floor},
    )  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def majorities_kept(answers: Answers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(everyone (n_items,), groups (n_items, G)): the sign of the majority, 0 for a tie or nobody. A rater's answers to an item count once."""
    table, _ = _table(answers, answers.value)
    votes = table.copy()
    votes.data = np.sign(votes.data)
    groups = np.stack([np.sign((answers.group_of == g).astype(float) @ votes) for g in range(len(answers.groups))], axis=1)
    return np.sign(np.asarray(votes.sum(0)).ravel()).astype(np.int64), groups.astype(np.int64)


def _outvoted(answers: Answers, by: str) -> Finding:
    code = "outvoted"
    if answers.kind == "rating":
        return Finding.not_applicable(code, _NEEDS_GROUPS[code], "Ratings have no majority.")
    everyone, groups = majorities_kept(answers)
    # of a question that one group alone answered its majority is everyone's
    several = (groups != 0).sum(1) > 1
    rows: list[dict[str, Any]] = []
    for g, name in enumerate(answers.groups):
        decided = (groups[:, g] != 0) & several
        if decided.any():
            kept = share((everyone == groups[:, g])[decided].astype(float))
            rows.append({"group": name, "kept": kept.estimate, "low": kept.low, "high": kept.high, "n": kept.n})
    if not rows:
        return Finding.not_applicable(code, _NEEDS_GROUPS[code], "No group has a majority on anything.")
    rows.sort(key=lambda row: row["kept"])
    least, most = rows[0], rows[-1]
    return Finding(
        code=code, estimate=least["kept"], low=least["low"], high=least["high"], n=least["n"], unit="share",
        verdict="notice" if least["high"] < most["low"] else "ok",
        title=f"The majority of everyone keeps {percent(least['kept'])} [{100 * least['low']:.0f}, {100 * least['high']:.0f}] of the majorities of "
        f"{least['group']}, and {percent(most['kept'])} [{100 * most['low']:.0f}, {100 * most['high']:.0f}] of those of {most['group']}.",
        reason=f"Questions on which the group and another have strict majorities; a tie of everyone keeps none. Groups are those of {by}; n counts questions, "
        "and the interval is over questions. A small group has less of a say in everyone's majority, which is what this shows.",
        remedy="Say in the charter whether a majority may outvote a group everywhere (rule, floors)." if least["high"] < most["low"] else None,
        details={"groups": rows},
    )  # fmt: skip


def _statements(feedback: Feedback, by: str, derived: bool) -> list[Finding]:
    """Of yes-or-no judgments: what bridges the groups, what divides them, and what another population would decide."""
    titles = {
        "bridging": "Statements that bridge groups cannot be told.",
        "irreconcilable": "Statements on which no weighting agrees cannot be told.",
        "other-population": "What another population would decide cannot be told.",
    }
    try:
        tallies = tally(feedback, by=by)
    except SeamarkError as error:
        return [Finding.not_applicable(code, title, str(error)) for code, title in titles.items()]
    n = sum(len(t.statement) for t in tallies)

    def some(mask_of: str, order_of: str) -> list[dict[str, Any]]:
        frames = [t.to_frame().filter(pl.col(mask_of)).sort(order_of, descending=True) for t in tallies]
        rows = [row for frame in frames for row in frame.to_dicts()][:_SHOWN]
        texts = _texts_of(feedback, np.array([row["statement"] for row in rows], dtype=np.int64))
        return [row | {"statement": one["response"], "text": one["text"]} for row, one in zip(rows, texts, strict=True)]

    def named(rows: list[dict[str, Any]], as_in: str) -> str:
        return f" {as_in} {_quoted(rows[0], 'statement')}." if rows else ""

    def count(mask: list[NDArray[np.bool_]]) -> tuple[int, Floats, Codes]:
        return int(sum(m.sum() for m in mask)), np.concatenate(mask).astype(float), np.repeat(np.arange(len(mask)), [len(m) for m in mask])

    where = f"{counted(n, 'statement')} of {counted(len(tallies), 'conversation')}"
    bridging, hits, conversation = count([t.bridging() for t in tallies])
    apart, apart_hits, _ = count([t.irreconcilable() for t in tallies])
    alike = [np.full(len(t.groups), 1 / len(t.groups)) for t in tallies]
    equal, equal_hits, _ = count([t.decision() != t.decision(w) for t, w in zip(tallies, alike, strict=True)])
    sure = [(t.decision(sure=True), t.decision(w, sure=True)) for t, w in zip(tallies, alike, strict=True)]
    equal_sure, _, _ = count([(other != own) & (other != 0) for own, other in sure])
    turned, _, _ = count([t.turned() for t in tallies])
    how = (
        f"Groups are those of {by}. By the posterior of each group's majority (uniform prior), at a false discovery rate of {percent(THRESHOLDS.false_discoveries)} over the "
        "statements of a conversation; passes are no votes."
    )
    if derived:
        how += f" The groups of {by} were made from these votes: that they differ is by construction."
    bridges, divides = some("bridging", "consensus"), some("irreconcilable", "consensus")
    widths = [clustered_share(h, {"conversation": conversation})[0] for h in (hits, apart_hits, equal_hits)]
    return [
        Finding.of(
            widths[0], code="bridging", unit="share", title=f"{bridging:,} of {where} have a sure majority in every group." + named(bridges, "The first is"),
            reason=how, source="Small et al. 2021 (group-informed consensus)", details={"statements": bridges},
        ),
        Finding.of(
            widths[1], code="irreconcilable", unit="share", verdict="notice" if apart else "ok",
            title=f"On {apart:,} of {where} one group surely agrees and another surely disagrees: no weighting of groups contents both."
            + named(divides, "One of them is"), reason=how, remedy="Leave them undecided, or let people choose: an average of both is nobody's." if apart else None,
            details={"statements": divides},
        ),
        Finding.of(
            widths[2], code="other-population", unit="share", verdict="notice" if equal else "ok",
            title=f"Were groups of equal weight, and not weighed by size, {equal:,} of {where} would be decided otherwise. Where a group whose majority "
            f"is not sure counts as split, equal weights would turn {equal_sure:,}, and some weighting or other {turned:,}.",
            reason="Each group's share that agrees, weighted by group, against a half; a group's size is the people who voted on anything. The first figure "
            "takes each share as it is, however few voted; the other two are of the same majorities, so that the last is at least the one before.",
            details={"equal": equal, "equal_sure": equal_sure, "some_weighting": turned},
        ),
    ]  # fmt: skip


def _kinds_of_raters(feedback: Feedback, seed: int) -> Finding:
    code = "rater-kinds"
    title = "Whether there are kinds of raters cannot be told."
    try:
        answers = answers_by(feedback, by=None)
    except SeamarkError as error:
        return Finding.not_applicable(code, title, str(error))
    shape = (len(answers.group_of), answers.n_items)
    told = np.ptp(answers.value) > 0
    filled = len(np.unique(answers.block * shape[1] + answers.item)) / (shape[0] * shape[1])
    if not told:
        return Finding.not_applicable(code, title, "Everyone gives the same answer to everything.")
    if shape[0] < 20 or shape[1] < 20 or filled < _FILLED or shape[0] * shape[1] > _CELLS:
        reason = (
            f"It takes 20 raters and 20 questions, a tenth of which each rater answered in the mean, and at most {_CELLS:,} cells; "
            f"{counted(shape[0], 'rater')} answered {percent(filled)} of {counted(shape[1], 'question')}."
        )
        return Finding.not_applicable(code, title, reason)
    found = rater_clusters(answers, seed=seed)
    size = np.bincount(found.member, minlength=2)
    real = found.p <= THRESHOLDS.false_discoveries and found.stability >= THRESHOLDS.kinds_notice
    return Finding(
        code=code, estimate=found.stability, low=found.low, high=found.high, n=shape[0], unit="ratio", verdict="notice" if real else "ok",
        title=f"Two kinds of raters ({size[0]:,} and {size[1]:,}) are found again from other questions with an adjusted Rand index of "
        f"{found.stability:.2f}; without kinds it would be below {found.null:.2f}.",
        reason="Clusters (k-means) of answers less each rater's strictness, from halves of the questions; the interval is over splits. "
        f"The majority of everyone keeps {percent(found.kept[0])} of the majorities of the larger kind and {percent(found.kept[1])} of the smaller's. "
        f"That raters lie around one point on the first component has p = {found.p_one_mode:.2g} (Silverman 1981).",
        remedy="Fit the kinds: people=Personas(2)." if real else None, source="Lange et al. 2004; Hubert & Arabie 1985",
        details={"sizes": size.tolist(), "null": found.null, "p": found.p, "kept": found.kept.tolist(), "kept_se": found.kept_se.tolist(), "p_one_mode": found.p_one_mode},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- permutations


@dataclass(frozen=True)
class Arrangements:
    """Labels of blocks as they might have been."""

    labels: Codes
    """(B, n_blocks); the first row is the true one where all arrangements were tried."""
    floor: float
    """Smallest p-value that they allow."""
    exact: bool

    def p(self, drawn: Floats, observed: Floats | float) -> Floats:
        """P-values of statistics that are large where groups differ: drawn (B, ...), observed (...)."""
        beyond = (drawn >= np.asarray(observed) * (1 - 1e-12) - 1e-12).sum(0)
        return beyond / len(drawn) if self.exact else (beyond + 1) / (len(drawn) + 1)


def arrange(group_of: Codes, stratum_of: Codes, *, draws: int = _DRAWS, seed: int = 0) -> Arrangements:
    """Permutations of labels within strata: all of them where there are two groups in one stratum and few arrangements."""
    n, one = len(group_of), int((group_of == group_of.min()).sum())
    if len(np.unique(stratum_of)) == 1 and len(np.unique(group_of)) == 2 and comb(n, one) <= _EXACT:
        other = int(group_of.max())
        rows = np.full((comb(n, one), n), other, dtype=np.int64)
        for row, chosen in enumerate(combinations(range(n), one)):
            rows[row, list(chosen)] = int(group_of.min())
        return Arrangements(rows, 1 / len(rows), exact=True)
    rng = np.random.default_rng(seed)
    order = np.argsort(stratum_of, kind="stable")
    rows = np.empty((draws, n), dtype=np.int64)
    sorted_groups, sorted_strata = group_of[order], stratum_of[order]
    for b in range(draws):
        rows[b, order] = sorted_groups[np.argsort(sorted_strata + rng.random(n))]
    return Arrangements(rows, max(1 / (draws + 1), 1 / _ways(group_of, stratum_of)), exact=False)


def _ways(group_of: Codes, stratum_of: Codes) -> float:
    """In how many ways labels can be arranged within strata: a product of multinomials."""
    total = 0.0
    for stratum in np.unique(stratum_of):
        sizes = np.unique(group_of[stratum_of == stratum], return_counts=True)[1]
        total += gammaln(sizes.sum() + 1) - gammaln(sizes + 1).sum()
    return float(np.exp(min(total, 700.0)))


# ---------------------------------------------------------------------------------------------- group by item


@dataclass(frozen=True)
class Interactions:
    """How much groups differ in each item, beyond their strictness."""

    means: Floats
    """(n_items, G) mean answer of each group; NaN where it gave none."""
    counts: NDArray[np.int64]
    """(n_items, G) answers."""
    statistic: Floats
    """(n_items,) sum of squares between groups, of centred answers, in units of their variance in the item."""
    p: Floats
    q: Floats
    """(n_items,) p by permutation, and the false discovery rate at which the item would be named."""
    floor: float
    exact: bool
    overall_p: float
    """Of the mean statistic: whether groups differ at all."""
    explained: float
    """Share of the variance of centred answers that goes with the group in the item, less what permuted labels explain."""
    low: float
    high: float


def interactions(answers: Answers, *, draws: int = _DRAWS, seed: int = 0) -> Interactions:
    """Group x item interactions (differential item functioning) with p-values by permutation of people.

    Labels are permuted over blocks, so that a rater's answers, which depend on each other, stay together. Answers of one block to one
    item are averaged.

    Source: differential item functioning as in Holland & Wainer 1993; false discoveries as in Benjamini & Hochberg 1995.
    """
    n_items, G, n_blocks = answers.n_items, len(answers.groups), len(answers.group_of)
    raw, count = _table(answers, answers.value)
    centred = _centre(raw if answers.kind == "rating" else _less_strictness(raw))
    seen = csr_array((np.ones_like(centred.data), centred.indices, centred.indptr), shape=centred.shape)
    variance = np.asarray(centred.multiply(centred).sum(0)).ravel() / np.maximum(np.asarray(seen.sum(0)).ravel(), 1)
    # where everyone answers alike nothing differs; what is left there is how often people were asked
    spread = _centre_items(raw)
    usable = (np.bincount(raw.indices, weights=spread.data**2, minlength=n_items) > 1e-9) & (variance > 1e-12)
    arrangements = arrange(answers.group_of, answers.stratum_of, draws=draws, seed=seed)

    by_item, seen_by_item = centred.T.tocsr(), seen.T.tocsr()
    sums, weight = np.asarray(centred.sum(0)).ravel(), np.asarray(seen.sum(0)).ravel()

    def between(rows: Codes) -> tuple[Floats, Floats]:
        """(n_items, B) sum of squares between groups in units of the item's variance, and groups present less one."""
        squares = np.repeat(-(sums**2 / np.maximum(weight, 1))[:, None], len(rows), 1)
        groups = np.full_like(squares, -1.0)
        total, n = np.repeat(sums[:, None], len(rows), 1), np.repeat(weight[:, None], len(rows), 1)
        for g in range(G):
            if g < G - 1:  # what is left is of the last group
                mine = np.ascontiguousarray((rows == g).T, dtype=np.float64)
                own, own_n = by_item @ mine, seen_by_item @ mine
                total, n = total - own, n - own_n
            else:
                own, own_n = total, n
            squares += own**2 / np.maximum(own_n, 1)
            groups += own_n > 0
        return np.where(usable[:, None], squares / np.where(usable, variance, 1.0)[:, None], 0.0), groups * usable[:, None]

    squares, free = (x[:, 0] for x in between(answers.group_of[None]))
    beyond, overall = np.zeros(n_items), []
    step = max(1, 4_000_000 // (n_items + n_blocks))
    for start in range(0, len(arrangements.labels), step):
        drawn, drawn_free = between(arrangements.labels[start : start + step])
        beyond += (drawn >= (squares * (1 - 1e-12) - 1e-12)[:, None]).sum(1)
        # per group that is there: who answered what may go with the group, and arranged otherwise fewer groups meet in an item
        overall.append(drawn.sum(0) / np.maximum(drawn_free.sum(0), 1))
    B = len(arrangements.labels)
    drawn_ratio = np.concatenate(overall)
    p = np.where(usable, beyond / B if arrangements.exact else (beyond + 1) / (B + 1), 1.0)
    by_chance = float(drawn_ratio.mean())

    def explained(w: Floats) -> float:
        return float((w * (squares - free * by_chance)).sum() / max((w * weight * usable).sum(), 1e-300))

    low, high = bootstrap(explained, np.arange(n_items), seed=seed)
    means, counts = np.full((n_items, G), np.nan), np.zeros((n_items, G), dtype=np.int64)
    for g in range(G):
        mine = (answers.group_of == g).astype(np.float64)
        n = mine @ count
        counts[:, g] = n
        means[:, g] = np.divide(mine @ raw.multiply(count), n, out=np.full(n_items, np.nan), where=n > 0)
    # two groups of one size can change names, which this statistic does not see
    sizes = np.bincount(answers.group_of, minlength=G)
    alike = 2 if arrangements.exact and G == 2 and sizes[0] == sizes[1] else 1
    return Interactions(
        means, counts, squares, p, false_discovery_control(p), alike * arrangements.floor, arrangements.exact,
        float(arrangements.p(drawn_ratio, float(squares.sum() / max(free.sum(), 1)))), explained(np.ones(n_items)), low, high,
    )  # fmt: skip


def _table(answers: Answers, value: Floats) -> tuple[csr_array, csr_array]:
    """(blocks x items) mean answer and number of answers; a mean of 0 keeps its place."""
    shape = (len(answers.group_of), answers.n_items)
    key, where, n = np.unique(answers.block * shape[1] + answers.item, return_inverse=True, return_counts=True)
    rows, columns = np.divmod(key, shape[1])
    indptr = np.searchsorted(rows, np.arange(shape[0] + 1))
    mean = np.bincount(where, weights=value) / n
    return csr_array((mean, columns, indptr), shape=shape), csr_array((n.astype(float), columns, indptr), shape=shape)


def _less_strictness(table: csr_array, *, ridge: float = 0.1, steps: int = 60) -> csr_array:
    """Answers in [-1, 1] less what the rater's strictness and the item explain in logits, y - expit(a_r + b_i) (Rasch 1960).

    Yes and no cannot be added up: a stricter group differs less, in points, where everyone says yes, which is no interaction. `ridge`
    keeps people who always say yes finite.
    """
    rater, item, (n_raters, n_items) = _rows(table), table.indices, _shape(table)
    y, a, b = (table.data + 1) / 2, np.zeros(n_raters), np.zeros(n_items)
    for _ in range(steps):
        for code, part in ((item, b), (rater, a)):
            p = 1 / (1 + np.exp(-a[rater] - b[item]))
            step = np.bincount(code, weights=y - p, minlength=len(part)) - ridge * part
            part += step / (np.bincount(code, weights=p * (1 - p), minlength=len(part)) + ridge)
    return csr_array((2 * (y - 1 / (1 + np.exp(-a[rater] - b[item]))), item, table.indptr), shape=table.shape)


def _centre(table: csr_array) -> csr_array:
    """Without the mean of each item, and then without the mean of each block, over what was answered."""
    out = _centre_items(table)
    row, n = _rows(table), _shape(table)[0]
    out.data = out.data - (np.bincount(row, weights=out.data, minlength=n) / np.maximum(np.bincount(row, minlength=n), 1))[row]
    return out


def _centre_items(table: csr_array) -> csr_array:
    out, item, n = table.copy(), table.indices, _shape(table)[1]
    out.data = out.data - (np.bincount(item, weights=out.data, minlength=n) / np.maximum(np.bincount(item, minlength=n), 1))[item]
    return out


def _shape(table: csr_array) -> tuple[int, int]:
    assert table.shape is not None
    return table.shape


def _rows(table: csr_array) -> Codes:
    """(n,) the row of each entry."""
    return np.repeat(np.arange(_shape(table)[0]), np.diff(table.indptr))


# ---------------------------------------------------------------------------------------------- cohesion


@dataclass(frozen=True)
class Cohesion:
    """Does a group agree with itself more than with the others?"""

    inside: Floats
    """(G,) Krippendorff's alpha of each group's answers."""
    across: Floats
    """(G,) cross-replication reliability of the group with everyone else."""
    across_sd: Floats
    """(G,) sd of the same over arrangements of the labels: how far off it may be with so many people."""
    p: Floats
    q: Floats
    floor: float
    exact: bool

    @property
    def index(self) -> Floats:
        """(G,) group association index: inside / across; 1 is the baseline. NaN where `across` is not clear of 0: no ratio over it has an
        interval then that ends (Fieller 1954)."""
        clear = self.across > Z95 * self.across_sd
        return np.where(clear, self.inside / np.where(clear, self.across, 1.0), np.nan)


def cohesion(answers: Answers, *, draws: int = 499, seed: int = 0) -> Cohesion:
    """In-group and cross-group cohesion with nominal distance, tested on their difference by permutation of people.

        across = 1 - D_o / D_e,  D_o = sum_i n_i m_i [disagreeing pairs across] / sum_i n_i m_i,
        D_e the disagreement of a random answer of the group with a random one of the others

    Source: Prabhakaran et al. 2024 (GRASP); Wong, Paritosh & Aroyo 2021 (cross-replication reliability). Theirs tests the ratio; the
    difference orders arrangements alike where both are positive, and is defined where they are not.
    """
    # one answer of a block to an item: what people say twice is no agreement with others
    first = np.unique(answers.block * answers.n_items + answers.item, return_index=True)[1]
    block, item = answers.block[first], answers.item[first]
    values, code = np.unique(answers.value[first], return_inverse=True)
    if len(values) > _VALUES:
        raise InvalidSetting("answers", f"{len(values)} different values", f"Cohesion is of at most {_VALUES} different answers.")
    shape = (len(answers.group_of), answers.n_items)
    one_hot = [csr_array((np.ones(int((code == c).sum())), (block[code == c], item[code == c])), shape=shape) for c in range(len(values))]
    total = np.stack([np.asarray(m.sum(0)).ravel() for m in one_hot], axis=1)  # (items, K)

    def measure(rows: Codes, g: int) -> tuple[Floats, Floats]:
        """(B,) inside and across of group g."""
        mine = np.stack([(rows == g).astype(float) @ m for m in one_hot], axis=2)  # (B, items, K)
        return _alpha(mine), _across(mine, total - mine)

    G = len(answers.groups)
    observed = np.array([[x[0] for x in measure(answers.group_of[None], g)] for g in range(G)])
    arrangements = arrange(answers.group_of, answers.stratum_of, draws=draws, seed=seed)
    step = max(1, 20_000_000 // (answers.n_items * len(values)))
    p, across_sd = np.ones(G), np.zeros(G)
    for g in range(G):
        parts = [measure(arrangements.labels[s : s + step], g) for s in range(0, len(arrangements.labels), step)]
        inside, across = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        p[g] = float(arrangements.p(inside - across, float(observed[g, 0] - observed[g, 1])))
        across_sd[g] = float(across.std())
    return Cohesion(observed[:, 0], observed[:, 1], across_sd, p, false_discovery_control(p), arrangements.floor, arrangements.exact)


def _alpha(counts: Floats) -> Floats:
    """(B,) Krippendorff's nominal alpha of counts (B, items, K)."""
    m = counts.sum(2)
    several = m > 1
    pairs = (m**2 - (counts**2).sum(2)) / np.where(several, m - 1, 1.0)
    n_c = (counts * several[:, :, None]).sum(1)
    n = n_c.sum(1)
    observed = (pairs * several).sum(1) / np.maximum(n, 1)
    expected = (n**2 - (n_c**2).sum(1)) / np.maximum(n * (n - 1), 1)
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1.0), np.nan)


def _across(mine: Floats, others: Floats) -> Floats:
    """(B,) cross-replication reliability of two sets of counts (B, items, K)."""
    pairs = mine.sum(2) * others.sum(2)
    same = (mine * others).sum(2)
    a, b = mine * (pairs > 0)[:, :, None], others * (pairs > 0)[:, :, None]
    p_a, p_b = a.sum(1), b.sum(1)
    agree = (p_a * p_b).sum(1) / np.maximum(p_a.sum(1) * p_b.sum(1), 1e-300)
    observed = 1 - same.sum(1) / np.maximum(pairs.sum(1), 1e-300)
    return np.where(agree < 1, 1 - observed / np.where(agree < 1, 1 - agree, 1.0), np.nan)


# ---------------------------------------------------------------------------------------------- clusters of raters


@dataclass(frozen=True)
class Clusters:
    """Kinds of raters that their answers show."""

    member: Codes
    """(n_blocks,) cluster of each rater, from all items; the largest is 0."""
    stability: float
    """Adjusted Rand index of clusterings from two halves of the items, mean over splits: 1 is the same clusters, 0 chance."""
    low: float
    high: float
    """Percentiles over splits."""
    null: float
    """97.5% percentile of the same where each item's answers are dealt to raters anew: what no kinds at all would give."""
    p: float
    kept: Floats
    """(k,) share of the items on which a cluster has a strict majority that the majority of everyone keeps; clusters from one half of the
    items, majorities from the other."""
    kept_se: Floats
    """(k,) its sd over splits."""
    p_one_mode: float
    """Of the hypothesis that raters lie around one point on their first principal component (`regret.one_mode`)."""


def rater_clusters(answers: Answers, *, k: int = 2, centred: bool = True, splits: int = 40, seed: int = 0) -> Clusters:
    """k-means of raters by their answers, as far as items left out tell the same kinds of raters.

    `centred` takes the strictness of each rater out; else strict and lenient raters are kinds, too.

    Source: stability as in Lange et al. 2004; adjusted Rand index of Hubert & Arabie 1985.
    """
    raw, _ = _table(answers, answers.value)
    table = _centre(raw).toarray() if centred else _centre_items(raw).toarray()
    answered = _seen(raw).toarray().astype(bool)
    value = raw.toarray()
    rng = np.random.default_rng(seed)
    stability, null, kept = [], [], []
    for _ in range(splits):
        half = rng.permutation(table.shape[1]) < table.shape[1] // 2
        one, two = _kinds(table[:, half], k, rng), _kinds(table[:, ~half], k, rng)
        stability.append(_rand_index(one, two))
        dealt = _dealt(table, answered, rng)
        null.append(_rand_index(_kinds(dealt[:, half], k, rng), _kinds(dealt[:, ~half], k, rng)))
        kept.append(_kept(np.sign(value[:, ~half]), answered[:, ~half], one, k))
    found = np.array(stability)
    low, high = np.quantile(found, [0.025, 0.975])
    beyond = (np.array(null) >= found.mean()).sum()
    with np.errstate(invalid="ignore"):
        mean, se = np.nanmean(kept, axis=0), np.nanstd(kept, axis=0, ddof=1)
    return Clusters(
        _kinds(table, k, rng), float(found.mean()), float(low), float(high), float(np.quantile(null, 0.975)),
        float((beyond + 1) / (splits + 1)), mean, se, one_mode(_components(table, 1, rng)[:, 0], seed=seed),
    )  # fmt: skip


def _seen(table: csr_array) -> csr_array:
    return csr_array((np.ones_like(table.data), table.indices, table.indptr), shape=table.shape)


def _kinds(table: Floats, k: int, rng: np.random.Generator) -> Codes:
    """(n,) k-means on the first principal components, the best of several starts; the largest cluster is 0."""
    from scipy.cluster.vq import kmeans2

    space = _components(table, k, rng)
    best, least = np.zeros(len(table), dtype=np.int64), np.inf
    for _ in range(8):
        centre, code = kmeans2(space, k, minit="++", rng=rng)
        inertia = float(((space - centre[code]) ** 2).sum())
        if inertia < least:
            best, least = code.astype(np.int64), inertia
    order = np.argsort(-np.bincount(best, minlength=k), kind="stable")
    return np.argsort(order)[best]


def _components(table: Floats, k: int, rng: np.random.Generator) -> Floats:
    """(n, k) principal components, the largest last."""
    from scipy.sparse.linalg import svds

    u, s, _ = svds(table, k=min(k, *(n - 1 for n in table.shape)), rng=rng)
    return np.asarray(u) * np.asarray(s)


def _dealt(table: Floats, answered: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Each item's answers dealt to the raters who answered it."""
    out = table.copy()
    for item in range(table.shape[1]):
        rows = np.flatnonzero(answered[:, item])
        out[rows, item] = table[rng.permutation(rows), item]
    return out


def _kept(sign: Floats, answered: NDArray[np.bool_], member: Codes, k: int) -> list[float]:
    """Of each cluster: share of its majorities that everyone's majority keeps."""
    everyone = np.sign((sign * answered).sum(0))
    out = []
    for c in range(k):
        own = np.sign((sign * answered)[member == c].sum(0))
        out.append(float((everyone == own)[own != 0].mean()) if (own != 0).any() else np.nan)
    return out


def _rand_index(one: Codes, two: Codes) -> float:
    """Adjusted Rand index of two clusterings."""
    n = len(one)
    table = np.zeros((int(one.max()) + 1, int(two.max()) + 1))
    np.add.at(table, (one, two), 1)

    def pairs(x: Floats) -> float:
        return float((x * (x - 1)).sum() / 2)

    together, rows, columns, total = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), n * (n - 1) / 2
    expected, most = rows * columns / total, (rows + columns) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
