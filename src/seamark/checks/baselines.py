"""Rules that need no model, on held-out pairs: what a fit has to beat before it has learned anything."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.comparisons import Codes, compare
from seamark.checks.confounds import find_lengths
from seamark.checks.findings import Finding
from seamark.checks.held_out import Cells, figure, gain, gain_details
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import Interval
from seamark.records import Feedback

Array = NDArray[np.float64]


def check_baselines(held_out: Feedback, cells: Cells, train: Feedback | None) -> list[Finding]:
    """The best rule beside the fit, then each rule; differences are paired on the same judgments."""
    if not len(cells):
        return [Finding.not_applicable("baseline", "Baselines cannot be computed.", "No held-out pair was decided.")]
    rules, absent = rule_hits(held_out, cells, train)
    measured = {name: _measure(cells, name, hits) for name, hits in rules.items()}
    best = max(measured, key=lambda name: measured[name][0].estimate)
    result, margin, how = measured[best]
    blocking = margin.high < THRESHOLDS.accuracy_margin_blocking
    unclear = not blocking and margin.low <= THRESHOLDS.accuracy_margin_blocking
    title = (
        f"The fit is {gain(margin, better='above', worse='below')} the trivial rule '{best}'."
        if blocking
        else f"The fit is not clearly better than the trivial rule '{best}': it is {gain(margin)}."
        if unclear
        else f"The fit is {gain(margin)} than the best trivial rule, '{best}'."
    )
    title = f"{title[:-1]}; the rule is right in {figure(result)}."  # fmt: skip
    headline = Finding.of(
        result, code="baseline", title=title, unit="share", verdict="blocking" if blocking else "warning" if unclear else "ok",
        reason=f"Accuracy of the best trivial rule on the same judgments; the difference is paired, {how}."
        + "".join(f" The rule '{name}' was not tried: {why}." for name, why in absent.items()),
        remedy="Collect more judgments, or features that carry the content (Linear with an encoder)." if blocking or unclear else None,
        details={"rule": best} | gain_details(margin),
    )  # fmt: skip
    return [headline, *(_finding(name, *found) for name, found in measured.items())]


def _measure(cells: Cells, name: str, hits: Array) -> tuple[Interval, Interval, str]:
    """The rule's accuracy, the fit's gain over it, and how the gain is clustered."""
    accuracy = Interval(0.5, 0.5, 0.5, cells.n, 0) if name == "coin" else cells.share(hits)[0]
    return accuracy, *cells.mean(cells["hit"] - hits)


def _finding(name: str, accuracy: Interval, margin: Interval, how: str) -> Finding:
    return Finding.of(
        accuracy, code=f"baseline/{name.replace(' ', '-')}", unit="share", details=gain_details(margin),
        title=f"The rule '{name}' is right in {figure(accuracy)}; the fit is {gain(margin)}.",
        reason=f"On the same judgments as the fit; the difference is paired, {how}.",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- the rules


def rule_hits(held_out: Feedback, cells: Cells, train: Feedback | None) -> tuple[dict[str, Array], dict[str, str]]:
    """Hits of each rule (1, 0, or 1/2 where it says nothing), and why a rule was not tried."""
    rules: dict[str, Array] = {}
    absent: dict[str, str] = {}
    name, favoured = _by_length(held_out, cells, train)
    if favoured is None:
        absent["longer wins"] = name
    else:
        rules[name] = _hits(favoured, cells)
    if cells["ordered"].any():
        rules["shown first wins"] = _hits(np.where(cells["ordered"], 1.0, 0.0), cells)
    else:
        absent["shown first wins"] = "the order shown is not known"
    if train is None:
        absent["training majority"] = "no training part was given"
    elif (favoured := _by_majority(held_out, cells, train)).any():
        rules["training majority"] = _hits(favoured, cells)
    else:
        absent["training majority"] = "nothing in train favours a held-out response"
    rules["coin"] = np.full(len(cells), 0.5)
    return rules, absent


def _hits(favoured: Array, cells: Cells) -> Array:
    """How right it is to favour the first response (above 0), the second (below 0) or neither."""
    return np.where(favoured == 0, 0.5, (favoured > 0) == cells["won"])


def _by_length(held_out: Feedback, cells: Cells, train: Feedback | None) -> tuple[str, Array | None]:
    """The name of the rule and whom it favours, or why there is none; the training part says which way length points."""
    length = held_out.responses["text"].str.len_chars().cast(pl.Int64).fill_null(-1).to_numpy()
    a, b = length[cells["first"]], length[cells["second"]]
    difference = np.where((a >= 0) & (b >= 0), a - b, 0).astype(np.float64)  # without both texts the rule says nothing
    if not difference.any():
        return "no held-out texts differ in length", None
    if train is None:
        return "longer wins", difference
    found, why = find_lengths(train, compare(train))
    if found is None:
        return f"of the training part, {why[:1].lower()}{why[1:].removesuffix('.')}", None
    longer = found.most_direct().longer_wins.mean() >= 0.5
    return ("longer wins", difference) if longer else ("shorter wins", -difference)


def _by_majority(held_out: Feedback, cells: Cells, train: Feedback) -> Array:
    """Whom the training part favours: the majority on the same pair in either order, else the larger share of comparisons won."""
    compared = compare(train).most_direct().decided()
    compared = compared.where(compared.left != compared.right)
    rows = {name: row for row, name in enumerate(held_out.responses["id"])}
    code = np.array([rows.get(name, -1) for name in train.responses["id"]], dtype=np.int64)
    left, right = code[compared.left], code[compared.right]
    known = (left >= 0) & (right >= 0)
    pair, inverse = np.unique(_pair_key(left[known], right[known], len(rows)), return_inverse=True)
    net = np.bincount(inverse, (compared.sign * np.sign(right - left))[known], len(pair))  # above 0: the lower code wins
    asked = _pair_key(cells["first"], cells["second"], len(rows))
    place = np.minimum(np.searchsorted(pair, asked), max(len(pair) - 1, 0))
    same = np.where(pair[place] == asked, net[place], 0.0) if len(pair) else np.zeros(len(asked))
    same = same * np.sign(cells["second"] - cells["first"])
    winner, loser = np.where(compared.sign > 0, left, right), np.where(compared.sign > 0, right, left)
    won, lost = (np.bincount(ids[ids >= 0], minlength=len(rows)) for ids in (winner, loser))
    share = np.divide(won, won + lost, out=np.full(len(rows), 0.5), where=won + lost > 0)
    return np.where(same != 0, same, share[cells["first"]] - share[cells["second"]])


def _pair_key(a: Codes, b: Codes, n: int) -> Codes:
    return np.minimum(a, b) * n + np.maximum(a, b)
