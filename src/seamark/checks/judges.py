"""Judges audited: which response is right by gold, which was shown first, which is longer, and which of these a judge follows.

Conventions
-----------
A *judge* is a rater that is a model, or several such (one model with several prompts). *Gold* is the majority of people on the same two
responses to the same prompt. A tie of the judge is half right; an answer without a verdict is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm

from seamark.checks.comparisons import codes_of, combine, counted, percent
from seamark.checks.confounds import check_position
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, mean, share
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FEW = 20
_TITLES = {
    "gold": "Agreement with gold cannot be told.", "position": "Whether judges favour what is shown first cannot be told.",
    "consistency": "Whether judges answer alike in both orders cannot be told.", "style": "Whether judges follow length against substance cannot be told.",
}  # fmt: skip


@dataclass(frozen=True)
class _Verdicts:
    """Pairs that judges compared."""

    judge: Codes
    names: tuple[str, ...]
    prompt: Codes
    first: Array
    """(n,) 1 where the response on the left won, 1/2 a tie, else 0."""
    ordered: Mask
    """Whether left was shown first."""
    right: Array
    """(n,) 1 where the response that gold prefers won, 1/2 a tie, else 0; NaN without gold."""
    gold_is_longer: Array
    """(n,) 1 or -1; 0 where there is no gold, no text, or the lengths are equal."""
    longer: Array
    """(n,) 1 where the longer response won, 1/2 a tie, else 0; NaN where neither is."""
    part: tuple[str | None, ...]

    def measure(self, what: Array, mask: Mask, z: float) -> Interval | None:
        rows = mask & np.isfinite(what)
        return share(what[rows], cluster=self.prompt[rows], z=z) if rows.any() else None


def check_judges(feedback: Feedback, *, judges: Mapping[str, str] | Callable[[str], str] | None = None, by: str | None = None) -> Findings:
    """Do judges follow the substance, or the place and the length?

    Parameters
    ----------
    feedback : pairs judged by models, and, for gold, by people.
    judges : from the id of a rater to the judge it is counted as, such as ``lambda rater: rater.split("/")[0]``; every rater by itself where not given.
    by : a field of the judgments, such as provenance, whose values agreement with gold is shown for.

    Returns
    -------
    judges/gold : agreement with gold, judge by judge and part by part; the lowest judge is the estimate.
    judges/position : how often the response shown first wins; the judge furthest from a half.
    judges/consistency : how often a judge names the same response in both orders; the lowest.
    judges/style : agreement with gold where the better response is the shorter one, beside where it is the longer one, and how far apart these are.
        The lowest of the first.

    Where one judge of several is named, its interval is Bonferroni's over judges. Intervals are clustered by prompt.

    Raises
    ------
    InvalidSetting
        If `by` is no field of the judgments.
    """
    if by is not None and by not in feedback.judgments.columns:
        raise InvalidSetting("by", by, "Use a field of the judgments, such as provenance.")
    found = _verdicts(feedback, judges, by)
    if found is None:
        why = "No pair was judged by a model (rater kind 'model')."
        return Findings(tuple(Finding.not_applicable(f"judges/{name}", title, why) for name, title in _TITLES.items()))
    verdicts, n_lost = found
    return Findings((_gold(verdicts, n_lost, by), _position(verdicts), _consistency(feedback, verdicts, judges), _style(verdicts)))


def _judge_of(feedback: Feedback, judges: Mapping[str, str] | Callable[[str], str] | None) -> list[str | None]:
    """The judge of each rater, None of people."""
    kinds = feedback.raters["kind"].cast(pl.String).to_list()
    ids = feedback.raters["id"].to_list()
    known = judges or {}
    named = {i: known(i) if callable(known) else known.get(i, i) for i in ids}
    return [named[i] if kind == "model" else None for i, kind in zip(ids, kinds, strict=True)]


def _verdicts(feedback: Feedback, judges: Mapping[str, str] | Callable[[str], str] | None, by: str | None) -> tuple[_Verdicts, int] | None:
    """What judges said, beside gold and length; and how many answers had no verdict."""
    frame = feedback.judgments.filter((pl.col("kind") == "pair") & (pl.col("responses").list.len() == 2))
    left, right = (codes_of(frame["responses"].list.get(k)) for k in (0, 1))
    prompt, rater = codes_of(frame["prompt"]), codes_of(frame["rater"])
    said = frame["outcome"].cast(pl.String).to_numpy()
    won = np.select([said == "left", said == "right", said == "tie"], [1.0, 0.0, 0.5], np.nan)
    of_rater = _judge_of(feedback, judges)
    names = tuple(dict.fromkeys(name for name in of_rater if name is not None))
    place = {name: k for k, name in enumerate(names)}
    code = np.array([place.get(name or "", -1) for name in of_rater] + [-1], dtype=np.int64)[rater]
    mine = (code >= 0) & (left != right)
    if not (mine & np.isfinite(won)).any():
        return None
    low, high = np.minimum(left, right), np.maximum(left, right)
    unit = combine(prompt, low, high)
    # for the lower response of a pair: votes by people, more less
    people = (code < 0) & (rater >= 0) & (won != 0.5) & np.isfinite(won)
    for_low = np.where(left == low, 2 * won - 1, 1 - 2 * won)
    net = np.bincount(unit[people], for_low[people], int(unit.max()) + 1)[unit]
    characters = feedback.responses["text"].str.len_chars().cast(pl.Int64).fill_null(-1).to_numpy()
    a, b = characters[low], characters[high]
    longer_low = np.where((a >= 0) & (b >= 0), np.sign(a - b), 0)
    low_won = np.where(left == low, won, 1 - won)
    rows = mine & np.isfinite(won)
    parts = frame[by].cast(pl.String).to_list() if by else [None] * frame.height
    return _Verdicts(
        code[rows], names, combine(np.where(prompt >= 0, prompt, unit + 1 + prompt.max(initial=0)))[rows], won[rows],
        (frame["order_known"] == True).fill_null(False).to_numpy()[rows],  # noqa: E712 - a polars column
        np.where(net == 0, np.nan, np.where(net > 0, low_won, 1 - low_won))[rows], (np.sign(net) * longer_low)[rows].astype(np.float64),
        np.where(longer_low == 0, np.nan, np.where(longer_low > 0, low_won, 1 - low_won))[rows], tuple(p for p, r in zip(parts, rows, strict=True) if r),
    ), int((mine & ~np.isfinite(won)).sum())  # fmt: skip


def _each(verdicts: _Verdicts, what: Array, mask: Mask | None = None) -> dict[str, Interval]:
    """By judge, at Bonferroni's level over judges."""
    z = float(norm.ppf(1 - 0.025 / len(verdicts.names)))
    whole = np.ones(len(what), dtype=bool) if mask is None else mask
    measured = {name: verdicts.measure(what, whole & (verdicts.judge == k), z) for k, name in enumerate(verdicts.names)}
    return {name: found for name, found in measured.items() if found is not None}


def _row(name: str, found: Interval) -> dict[str, Any]:
    return {
        "judge": name,
        "estimate": found.estimate,
        "low": found.ends[0],
        "high": found.ends[1],
        "n": found.n,
        "n_prompts": found.n_clusters,
    }


_HOW = "Clustered by prompt, Bonferroni over judges"


def _gold(verdicts: _Verdicts, n_lost: int, by: str | None) -> Finding:
    each = _each(verdicts, verdicts.right)
    if not each:
        return Finding.not_applicable("judges/gold", _TITLES["gold"], "No pair that a model judged was also judged by people.")
    worst, best = min(each, key=lambda j: each[j].estimate), max(each, key=lambda j: each[j].estimate)
    lowest = each[worst]
    parts: list[dict[str, Any]] = []
    for part in dict.fromkeys(p for p in verdicts.part if p is not None):
        mine = np.array([p == part for p in verdicts.part])
        parts += [{"part": part, **_row(name, found)} for name, found in _each(verdicts, verdicts.right, mine).items()]
    below = [name for name, found in each.items() if found.high < 0.5]
    return Finding.of(
        lowest, code="judges/gold", unit="share", verdict="warning" if lowest.low <= 0.5 else "ok",
        title=f"Of {counted(len(each), 'judge')}, {best} agrees most with gold, {each[best].said('share')}"
        + (f", and {worst} least, {lowest.said('share')}" if len(each) > 1 else "") + "; chance is 50%.",
        reason=f"Pairs that people judged too, ties half. {_HOW}. {counted(n_lost, 'answer')} had no verdict and {'is' if n_lost == 1 else 'are'} left out.",
        remedy=f"Do not use as a judge: {', '.join(below) or worst}." if lowest.low <= 0.5 else None,
        details={"judges": [_row(name, found) for name, found in each.items()], "by": by, "parts": parts, "no_verdict": n_lost},
    )  # fmt: skip


def _position(verdicts: _Verdicts) -> Finding:
    each = _each(verdicts, verdicts.first, verdicts.ordered)
    if not each:
        return Finding.not_applicable("judges/position", _TITLES["position"], "The order shown is not known for any pair.")
    biased = [name for name, f in each.items() if f.low > 0.5 or f.high < 0.5]
    # the furthest of those that surely are biased, else of all: a judge of few verdicts may lie far off by chance
    worst = max(biased or each, key=lambda j: abs(each[j].estimate - 0.5))
    found = each[worst]
    far = bool(biased) and abs(found.estimate - 0.5) >= THRESHOLDS.position_warning
    verdict: Verdict = "warning" if far else "notice" if biased else "ok"
    of_which = (
        f"{len(biased)} that surely favour a place, of {len(each)} judges"
        if biased
        else f"{len(each)} judges, none of which surely favours a place"
    )
    among = f", the furthest from a half of {of_which}" if len(each) > 1 else ""
    return Finding.of(
        found, code="judges/position", unit="share", verdict=verdict,
        title=f"{worst}: the response shown first wins {found.said('share')}{among}.",
        reason=f"Pairs whose order is known, ties half; without a bias, and with both orders asked, 50%. {_HOW}.",
        remedy="Ask every pair in both orders, and take a changed answer for a tie." if verdict != "ok" else None,
        details={"judges": [_row(name, f) for name, f in each.items()]},
    )  # fmt: skip


def _consistency(feedback: Feedback, verdicts: _Verdicts, judges: Mapping[str, str] | Callable[[str], str] | None) -> Finding:
    """`check_position` of each judge's own answers says how often both orders agree."""
    of_rater = [*_judge_of(feedback, judges), None]
    rater = codes_of(feedback.judgments["rater"])
    each: dict[str, Finding] = {}
    for name in verdicts.names:
        mine = np.array([judge == name for judge in of_rater])[rater]
        both = next((f for f in check_position(feedback.filter(mine)) if f.code == "position/consistency" and f.estimate is not None), None)
        if both is not None:
            each[name] = both
    if not each:
        return Finding.not_applicable("judges/consistency", _TITLES["consistency"], "No judge saw the same pair in both orders.")
    worst = min(each, key=lambda j: each[j].estimate or 0.0)
    found = each[worst]
    rows = [{"judge": name, "estimate": f.estimate, "low": f.low, "high": f.high, **f.details} for name, f in each.items()]
    low = (found.estimate or 0.0) < THRESHOLDS.consistency_notice
    interval = Interval(found.estimate or 0.0, found.low or 0.0, found.high or 1.0, found.n or 0, found.n or 0)
    return replace(
        found, code="judges/consistency", verdict="notice" if low else "ok", details={"judges": rows},
        title=f"Asked in both orders, {'the judge' if len(each) == 1 else f'the least consistent of {len(each)} judges,'} {worst}{'' if len(each) == 1 else ','} gives the same "
        f"answer {interval.said('share')} of the time.",
        remedy="Ask both orders, and take a changed answer for a tie." if low else None,
    )  # fmt: skip


def _style(verdicts: _Verdicts) -> Finding:
    """Substance against length: right where the better one is the shorter, and where it is the longer."""
    hard, easy = (_each(verdicts, verdicts.right, verdicts.gold_is_longer == side) for side in (-1, 1))
    longer = _each(verdicts, verdicts.longer)
    rows: list[dict[str, Any]] = [_row(name, found) | {"what": "the longer one wins"} for name, found in longer.items()]
    enough = [name for name in hard if name in easy and min(hard[name].n_clusters, easy[name].n_clusters) >= _FEW]
    if not enough:
        if not longer:
            return Finding.not_applicable(
                "judges/style", _TITLES["style"], "No two responses that a judge compared have texts of different length."
            )
        name = max(longer, key=lambda j: abs(longer[j].estimate - 0.5))
        found = longer[name]
        far = abs(found.estimate - 0.5) >= THRESHOLDS.length_warning and (found.low > 0.5 or found.high < 0.5)
        return Finding.of(
            found, code="judges/style", unit="share", verdict="notice" if far else "ok", details={"judges": rows},
            title=f"{name} prefers the longer response {found.said('share')}; without gold it cannot be told whether it is right to.",
            reason=f"Pairs of texts that differ in length, ties half. {_HOW}.",
        )  # fmt: skip
    table: list[dict[str, Any]] = []
    for k, name in enumerate(verdicts.names):
        if name not in enough:
            continue
        lean = _lean(verdicts, verdicts.judge == k)
        table.append({"judge": name, **{f"{what}_{end}": getattr(f[name], end) for what, f in (("hard", hard), ("easy", easy)) for end in ("estimate", "low", "high", "n")},
                      "lean": lean[0], "lean_low": lean[1], "lean_high": lean[2],
                      "style_not_substance": hard[name].high < 0.5 < easy[name].low})  # fmt: skip
    worst = min(enough, key=lambda j: hard[j].estimate)
    found = hard[worst]
    styled = [row["judge"] for row in table if row["style_not_substance"]]
    return Finding.of(
        found, code="judges/style", unit="share", verdict="warning" if styled else "ok", source="Feuer et al. 2025",
        title=(f"Style, not substance: {', '.join(styled)}. " if styled else f"None of {counted(len(enough), 'judge')} follows length against substance. ")
        + f"{worst} is right in {found.said('share')} where the better response is the shorter one, and in {easy[worst].said('share')} where it is the longer one.",
        reason=f"Pairs with gold whose texts differ in length, ties half. Said of a judge that is surely below a half in the first and surely above in the second. {_HOW}. "
        f"Over all judges the better response is the longer one in {percent(float((verdicts.gold_is_longer > 0).sum() / max((verdicts.gold_is_longer != 0).sum(), 1)))} of verdicts.",
        remedy="Ask for length to be left aside, control for it, or use another judge." if styled else None,
        details={"judges": table, "longer": rows},
    )  # fmt: skip


def _lean(verdicts: _Verdicts, mine: Mask) -> tuple[float, float, float]:
    """How much more often it is right where the better response is the longer one: 0 for a judge that is fair, and for one that tosses coins.

    A pair is one or the other, so the two shares are of different prompts and their intervals add up in squares.
    """
    easy, hard = (
        mean(verdicts.right[rows], cluster=verdicts.prompt[rows]) for rows in (mine & (verdicts.gold_is_longer == side) for side in (1, -1))
    )
    half = float(np.hypot(easy.high - easy.estimate, hard.high - hard.estimate))
    gap = easy.estimate - hard.estimate
    return gap, gap - half, gap + half
