"""What goes along with winning besides the content: where a response was shown, how long it is, how it is written.

Each number is an association. Whether length or style is a taste to keep or a bias to discount is not in the data; the
charter decides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.comparisons import (
    Codes,
    Comparisons,
    bracket,
    bracket_number,
    codes_of,
    combine,
    compact,
    compare,
    counted,
    percent,
)
from seamark.checks.findings import Finding, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import Z95, clustered_share, share
from seamark.models.features import style_features
from seamark.records import Feedback

Floats = NDArray[np.float64]

_LARGEST = 12
_BINS = 8
_STYLE_RESPONSES = 10_000
_STYLE_CHARACTERS = 6_000_000
_RIDGE = 1.0
_FEW = 20
_COLLINEAR = 0.01  # smallest eigenvalue of the correlations: a coefficient's variance is then a hundredfold


def _shown_pairs(feedback: Feedback) -> pl.DataFrame:
    """Pairs whose order is known, with answers: left, right, said, rater, prompt, unit."""
    frame = feedback.judgments
    keep = (pl.col("kind") == "pair") & (pl.col("order_known") == True) & ~pl.col("outcome").is_in(["cannot_tell", "skipped"])  # noqa: E712
    part = frame.filter(keep.fill_null(False))
    left, right = codes_of(part["responses"].list.get(0)), codes_of(part["responses"].list.get(1))
    rater, prompt = codes_of(part["rater"]), codes_of(part["prompt"])
    axis = part["axis"].cast(pl.String).fill_null("").rank("dense").cast(pl.Int64).to_numpy()
    unit = combine(prompt, axis, np.minimum(left, right), np.maximum(left, right))
    return pl.DataFrame({"left": left, "right": right, "rater": rater, "prompt": prompt, "unit": unit}).with_columns(
        part["outcome"].cast(pl.String).alias("said")
    )


def check_position(feedback: Feedback) -> list[Finding]:
    """How often the response shown first is chosen, and whether a rater answers alike in both orders."""
    if not (feedback.judgments["kind"].cast(pl.String) == "pair").any():
        why = "No judgment compares a pair."
        return [Finding.not_applicable("position", "Whether the first-shown response is favoured cannot be measured.", why)]
    shown = _shown_pairs(feedback)
    decided = shown.filter(pl.col("said").is_in(["left", "right"]) & (pl.col("left") != pl.col("right")))
    if not shown.height:
        return [
            Finding.not_applicable(
                "position",
                "Whether the first-shown response is favoured cannot be measured.",
                "The order in which the responses were shown is not known for any pair (order_known is not true), so left and right "
                "are only names.",
                remedy="If left was always shown first, say so: a column order_known that is true in every row (or --columns order_known=NAME). "
                "Else record the order shown, and draw it at random for each judgment.",
            )
        ]
    if not decided.height:
        return [
            Finding.not_applicable(
                "position", "Whether the first-shown response is favoured cannot be measured.", "No pair with a known order has a winner."
            )
        ]
    hits = (decided["said"] == "left").to_numpy().astype(np.float64)
    rater, prompt = decided["rater"].to_numpy(), decided["prompt"].to_numpy()
    interval, clustering = clustered_share(hits, {"rater": rater, "prompt": prompt})
    excludes = interval.low > 0.5 or interval.high < 0.5
    large = abs(interval.estimate - 0.5) >= THRESHOLDS.position_warning
    verdict: Verdict = "warning" if excludes and large else "notice" if excludes else "ok"
    details: dict[str, object] = {"n_order_known": shown.height}
    if (rater >= 0).any():
        ids = feedback.raters["id"].to_list()
        counts = np.bincount(rater[rater >= 0], minlength=feedback.n_raters)
        rows: list[dict[str, object]] = []
        for r in np.argsort(-counts, kind="stable")[:_LARGEST]:
            if counts[r]:
                own = share(hits[rater == r])
                rows.append({"rater": ids[r], "n": own.n, "share": own.estimate, "low": own.low, "high": own.high})
        details["raters"] = rows
    findings = [
        Finding.of(
            interval,
            code="position",
            title=f"The response shown first wins {percent(interval.estimate)} {bracket(interval)} of the decided pairs.",
            unit="share",
            verdict=verdict,
            reason="Decided pairs whose order is known; without a position effect, and with the order drawn at "
            f"random, this is 0.5; {clustering}.",
            remedy="The fit takes it out where it has the position effect, as the default has; in new data draw the order at random."
            if verdict != "ok"
            else None,
            details=details,
        )
    ]
    findings.append(_both_orders(shown))
    return findings


def _both_orders(shown: pl.DataFrame) -> Finding:
    """For a rater who saw a pair in both orders: how often the two answers name the same response."""
    title = "Whether raters answer alike in both orders cannot be measured."
    known = shown.filter((pl.col("rater") >= 0) & (pl.col("left") != pl.col("right")))
    if not known.height:
        return Finding.not_applicable("position/consistency", title, "Without rater ids it is not known who saw a pair in both orders.")
    known = known.with_columns(pl.col("left") < pl.col("right"), said_first=pl.col("said") == "left", said_last=pl.col("said") == "right")
    known = known.rename({"left": "forward"}).unique(["rater", "unit", "forward"], keep="first", maintain_order=True)
    both = known.filter("forward").join(known.filter(~pl.col("forward")), on=["rater", "unit"], suffix="_back")
    if not both.height:
        return Finding.not_applicable("position/consistency", title, "No rater saw the same pair in both orders.")
    same = both.select(
        ((pl.col("said_first") == pl.col("said_last_back")) & (pl.col("said_last") == pl.col("said_first_back"))).alias("same")
    )["same"]
    interval, clustering = clustered_share(
        same.to_numpy().astype(np.float64),
        {"rater": both["rater"].to_numpy(), "prompt": both["prompt"].to_numpy(), "pair": both["unit"].to_numpy()},
    )
    first = int((both["said_first"] & both["said_first_back"]).sum())
    last = int((both["said_last"] & both["said_last_back"]).sum())
    return Finding.of(
        interval,
        code="position/consistency",
        title=f"Shown the same pair in both orders, a rater gives the same answer {percent(interval.estimate)} "
        f"{bracket(interval)} of the time.",
        unit="share",
        verdict="notice" if interval.estimate < THRESHOLDS.consistency_notice else "ok",
        reason=f"Answers include ties; the first answer in each order counts; n counts rater and pair; {clustering}.",
        remedy="Keep both orders of a pair together and let the model read a changed answer as doubt."
        if interval.estimate < THRESHOLDS.consistency_notice
        else None,
        details={"first_both_times": first, "last_both_times": last, "n": both.height},
    )


# ---------------------------------------------------------------------------------------------- length


@dataclass(frozen=True)
class Lengths:
    """Decided comparisons of texts that differ in length."""

    comparisons: Comparisons
    longer_wins: Floats
    """(n,) 1 where the longer one won, else 0."""
    log_ratio: Floats
    """(n,) |log((1 + a) / (1 + b))| of the lengths in characters."""

    def where(self, mask: NDArray[np.bool_]) -> Lengths:
        return Lengths(self.comparisons.where(mask), self.longer_wins[mask], self.log_ratio[mask])

    def most_direct(self) -> Lengths:
        return self.where(self.comparisons.by_directness()[0])

    @property
    def clusters(self) -> dict[str, Codes]:
        return {self.comparisons.topic_name: self.comparisons.topic()}


def find_lengths(feedback: Feedback, comparisons: Comparisons) -> tuple[Lengths | None, str]:
    """Decided comparisons whose texts differ in length, or the reason why there are none."""
    decided = comparisons.decided()
    if not len(decided):
        return None, "No judgment prefers one response to another."
    characters = feedback.responses["text"].str.len_chars().cast(pl.Int64)
    if characters.null_count() == len(characters):
        return None, "The responses have no text."
    n = characters.fill_null(-1).to_numpy()
    a, b = n[decided.left], n[decided.right]
    if not ((a >= 0) & (b >= 0)).any():
        return None, "No comparison is between two responses with text."
    keep = (a >= 0) & (b >= 0) & (a != b)
    if not keep.any():
        return None, "All compared responses have the same length."
    decided, a, b = decided.where(keep), a[keep], b[keep]
    return Lengths(decided, (np.sign(a - b) == decided.sign).astype(np.float64), np.abs(np.log1p(a) - np.log1p(b))), ""


def check_length(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> list[Finding]:
    """How often the longer response wins: in the most direct comparisons, in those implied, and by axis."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    every, why = find_lengths(feedback, comparisons)
    if every is None:
        return [Finding.not_applicable("length", "Whether the longer response wins cannot be measured.", why)]
    first, *others = every.comparisons.by_directness()
    found = every.where(first)
    findings = [_length_finding("length", found, "decided comparisons", {"curve": _curve(found), "x": "absolute log length ratio"})]
    for mask in others:
        implied = every.where(mask)
        kind = Comparisons.KIND_NAMES[implied.comparisons.kind[0]]
        findings.append(_length_finding(f"length/{kind}", implied, f"pairs implied by {kind}s"))
    used = {finding.code for finding in findings}
    if len(comparisons.axes) + bool((every.comparisons.axis < 0).any()) > 1:
        for axis, name in enumerate(comparisons.axes[:_LARGEST]):
            part = every.where(every.comparisons.axis == axis)
            if len(part.longer_wins):
                code = f"length/axis:{name}" if f"length/{name}" in used else f"length/{name}"
                findings.append(_length_finding(code, part.most_direct(), f"decided comparisons on axis {name}"))
    return findings


def _curve(found: Lengths) -> list[dict[str, float]]:
    """Wins of the longer in bins of equal count, by how much longer it is."""
    edges = np.unique(np.quantile(found.log_ratio, np.linspace(0, 1, _BINS + 1)))
    position = np.clip(np.searchsorted(edges, found.log_ratio, side="right") - 1, 0, max(len(edges) - 2, 0))
    topic = found.comparisons.topic()
    curve: list[dict[str, float]] = []
    for i in np.unique(position):
        here = position == i
        s = share(found.longer_wins[here], cluster=topic[here])
        high = float(edges[min(i + 1, len(edges) - 1)])
        curve.append({"low": float(edges[i]), "high": high, "share": s.estimate, "share_low": s.low, "share_high": s.high, "n": s.n})
    return curve


def _length_finding(code: str, found: Lengths, what: str, details: dict[str, Any] | None = None) -> Finding:
    interval, clustering = clustered_share(found.longer_wins, found.clusters)
    excludes = interval.low > 0.5 or interval.high < 0.5
    large = abs(interval.estimate - 0.5) >= THRESHOLDS.length_warning
    verdict: Verdict = "warning" if excludes and large else "notice" if excludes else "ok"
    return Finding.of(
        interval,
        code=code,
        title=f"The longer response wins {percent(interval.estimate)} {bracket(interval)} of the {what}.",
        unit="share",
        verdict=verdict,
        reason=f"Length in characters; {_taken_from(found.comparisons)} that differ in length; n counts comparisons; {clustering}.",
        remedy="Say in the charter (effects.style) whether length counts as taste, and check that the fit beats the rule 'longer wins'."
        if verdict != "ok"
        else None,
        details=details,
    )


def _taken_from(comparisons: Comparisons) -> str:
    """What the comparisons are, in words: stated by somebody, or implied by rankings or ratings; and what was sampled."""
    kinds = [comparisons.KIND_NAMES[k] for k in np.unique(comparisons.kind)]
    words = "answers to pairs and choices" if {"pair", "choice"} & set(kinds) else f"pairs of responses in {' and '.join(kinds)}s"
    notes = [note for note in comparisons.notes if any(f"{kind}s" in note for kind in kinds if kind != "pair")]
    return words + (f" ({'; '.join(notes)})" if notes else "")


# ---------------------------------------------------------------------------------------------- style


def check_style(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> Finding:
    """How strongly each style feature goes along with winning, given the others."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    title = "Whether style goes along with winning cannot be measured."
    text = feedback.responses["text"]
    known = text.is_not_null().to_numpy()
    decided = comparisons.decided()
    decided = decided.where(known[decided.left] & known[decided.right] & (decided.left != decided.right)).most_direct()
    if not len(decided):
        why = "The responses have no text." if not known.any() else "No judgment prefers one text to another."
        return Finding.not_applicable("style", title, why)
    taken = _taken_from(decided)
    decided, kept = _bounded(decided, text, seed)
    if kept is not None:
        taken += f", of which {len(decided):,} of {kept:,}, about responses drawn at random (seed {seed}), keep the cost bounded"
    used = np.unique(np.concatenate([decided.left, decided.right]))
    features = style_features(text[used].to_list())
    difference = features.values[np.searchsorted(used, decided.left)] - features.values[np.searchsorted(used, decided.right)]
    wins = (decided.sign > 0).astype(np.float64)
    topic = compact(decided.topic())[0]
    differs = (np.abs(difference) > 1e-12).sum(0)
    enough = np.flatnonzero(differs >= _FEW)
    n_topics = int(topic.max()) + 1
    if not len(enough) or n_topics < 2 * len(enough):
        asked = f"{counted(len(decided), 'comparison')} over {counted(n_topics, 'prompt')}"
        why = f"Too few: {asked} cannot carry {counted(len(features.names), 'feature')}."
        return Finding.not_applicable("style", title, why)
    scale = np.sqrt((difference**2).mean(0))
    x = difference[:, enough] / scale[enough]
    beta, se = clustered_logistic(x, wins, topic)
    effects = [
        _effect(features.names[column], difference[:, column], wins, topic, float(beta[j]), float(Z95 * se[j]))
        for j, column in enumerate(enough)
    ]
    # what is clear leads: a feature that is rare has a large coefficient by chance
    effects.sort(key=lambda e: (e["low"] <= 0 <= e["high"], -abs(e["estimate"])))
    top = effects[0]
    estimate, low, high = (top[key] for key in ("estimate", "low", "high"))
    clear = [e for e in effects if e["low"] > 0 or e["high"] < 0]
    beyond = [e for e in effects if max(e["low"], -e["high"]) > THRESHOLDS.style_warning]
    verdict: Verdict = "warning" if beyond else "notice" if clear else "ok"
    left_out = [features.names[i] for i in range(len(features.names)) if i not in set(enough.tolist())]
    reason = (
        f"An association given the other features, not a cause, in {taken}: logistic regression of the winner on differences in style, per standard "
        f"deviation of the difference, ridge {_RIDGE:g}, no intercept; intervals from the sandwich variance clustered "
        f"by prompt ({n_topics:,}). "
        "In the table, share is how often the response with more of a feature wins, without regard to the others. "
    )
    correlation = x.T @ x / len(x)
    if float(np.linalg.eigvalsh(correlation)[0]) < _COLLINEAR:
        reason += "Some features go together so closely here that the ridge, not the data, shares the effect out among them. "
    if left_out:
        reason += f"Left out, because they differ in fewer than {_FEW} comparisons: {', '.join(left_out).replace('_', ' ')}. "
    return Finding(
        code="style",
        title=_strongest(str(top["feature"]).replace("_", " "), estimate, low, high, len(effects), len(clear)),
        estimate=estimate,
        low=low,
        high=high,
        n=len(decided),
        unit="logits per standard deviation",
        verdict=verdict,
        reason=reason.strip(),
        remedy="Say in the charter (effects.style) whether it counts: style is a block of its own in the fit." if verdict != "ok" else None,
        details={"effects": effects},
    )


def _strongest(feature: str, estimate: float, low: float, high: float, n: int, n_clear: int) -> str:
    """The sentence about the largest effect: winning or losing by its sign, and nothing where no interval leaves out 0."""
    size = f"{estimate:+.2f} {bracket_number(low, high)} logits per standard deviation, given the others"
    if low <= 0 <= high:
        return f"None of {counted(n, 'style feature')} clearly goes along with winning or losing; the largest, {feature}: {size}."
    way = "winning" if estimate > 0 else "losing"
    return f"Of {counted(n, 'style feature')}, {feature} goes along with {way} most: {size}; {n_clear} {'is' if n_clear == 1 else 'are'} clearly not zero."


def _effect(name: str, difference: Floats, wins: Floats, topic: Codes, beta: float, half: float) -> dict[str, Any]:
    """A row of the table: the coefficient, and how often more of the feature wins, without regard to the others."""
    here = np.abs(difference) > 1e-12
    alone = share(((difference[here] > 0) == (wins[here] > 0)).astype(np.float64), cluster=topic[here])
    return {
        "feature": name, "estimate": beta, "low": beta - half, "high": beta + half, "share": alone.estimate, "share_low": alone.low,
        "share_high": alone.high, "n": alone.n, "unit_difference": float(np.sqrt((difference**2).mean())),
    }  # fmt: skip


def _bounded(decided: Comparisons, text: pl.Series, seed: int) -> tuple[Comparisons, int | None]:
    """The comparisons about at most so many responses and characters, by drawing topics; and how many there were, if fewer are left."""
    used = np.unique(np.concatenate([decided.left, decided.right]))
    characters = np.zeros(len(text), dtype=np.int64)
    characters[used] = text[used].str.len_chars().fill_null(0).cast(pl.Int64).to_numpy()
    if len(used) <= _STYLE_RESPONSES and characters.sum() <= _STYLE_CHARACTERS:
        return decided, None
    order = np.random.default_rng(seed).permutation(len(decided))
    shown = np.stack([decided.left[order], decided.right[order]], 1).ravel()
    first = np.zeros(len(shown), dtype=bool)
    first[np.unique(shown, return_index=True)[1]] = True
    responses, cost = np.cumsum(first), np.cumsum(np.where(first, characters[shown], 0))
    fits = (responses <= _STYLE_RESPONSES) & (cost <= _STYLE_CHARACTERS)
    n = max(int(fits.sum()) // 2, 1)
    mask = np.zeros(len(decided), dtype=bool)
    mask[order[:n]] = True
    return decided.where(mask), len(decided)


def clustered_logistic(x: Floats, y: Floats, cluster: Codes) -> tuple[Floats, Floats]:
    """Ridge logistic coefficients without intercept, and cluster-robust standard errors.

    b maximises sum log sigma((2 y - 1) x b) - ridge |b|^2 / 2 (Newton, halving steps); V = H^-1 (sum_g s_g s_g') H^-1 G / (G - 1)
    with s_g the score of cluster g (Liang & Zeger 1986).
    """
    n, k = x.shape
    beta = np.zeros(k)
    eye = _RIDGE * np.eye(k)

    def loss(b: Floats) -> float:
        return float(np.logaddexp(0, -(2 * y - 1) * (x @ b)).sum() + _RIDGE * (b @ b) / 2)

    hessian = eye + x.T @ x / 4
    value = loss(beta)
    for _ in range(50):
        p = _sigmoid(x @ beta)
        gradient = x.T @ (p - y) + _RIDGE * beta
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + eye
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-10 * n:
            break
        length = 1.0
        while loss(beta - length * step) > value and length > 1e-6:
            length /= 2
        beta = beta - length * step
        value = loss(beta)
    residual = x * (y - _sigmoid(x @ beta))[:, None]
    g = int(cluster.max()) + 1
    scores = np.stack([np.bincount(cluster, weights=residual[:, j], minlength=g) for j in range(k)], 1)
    inverse = np.linalg.inv(hessian)
    variance = inverse @ (scores.T @ scores) @ inverse * g / max(g - 1, 1)
    return beta, np.sqrt(np.diag(variance))


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))
