"""Checks of a fit: how well it predicts people it has not seen, against the human ceiling and against trivial rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.intervals import Interval, bootstrap, mean, share
from seamark.checks.thresholds import THRESHOLDS
from seamark.models.fitting import Fit
from seamark.models.prediction import Predicted, predict
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_SLICES = 8
"""Largest number of slices reported by group or axis; the largest come first."""


def evaluate(fit: Fit, held_out: Feedback, *, train: Feedback | None = None, seed: int = 0) -> Findings:
    """How the fit does on judgments it has not seen, and what it says about raters and about its own doubt.

    Returns accuracy, log loss and calibration with intervals clustered by rater (by prompt where raters are not known), the
    trivial baselines on the same judgments, slices by rater, prompt and group, the raters' reliability, and the three doubts.
    `train` gives the majority baseline and tells raters seen in training from new ones.
    """
    predictions = predict(fit, held_out)
    findings: list[Finding] = []
    findings += _accuracy(fit, held_out, predictions)
    findings += _baselines(held_out, predictions, train)
    findings += _log_loss(held_out, predictions)
    findings.append(calibration(held_out, predictions))
    findings.append(rater_reliability(fit))
    findings += _fitted_effects(fit)
    findings.append(doubts(fit, held_out, seed=seed))
    return Findings(tuple(findings))


def _decided(predictions: Sequence[Predicted]) -> pl.DataFrame:
    """Decided pairs: p (first wins), won, count, rater, prompt, left, right, group."""
    pairs = [p for p in predictions if p.is_pair]
    if not pairs:
        return pl.DataFrame(schema={"p": pl.Float64, "won": pl.Boolean, "count": pl.Float64, "rater": pl.Int64, "prompt": pl.Int64})
    parts = []
    for p in pairs:
        use = p.is_decided()
        probability, won, count = p.decided()
        parts.append(
            pl.DataFrame(
                {"p": probability, "preference": p.preference[use], "won": won, "count": count, "rater": p.rater[use], "prompt": p.prompt[use],
                 "left": p.shown[use, 0], "right": p.shown[use, 1], "group": p.group[use]}
            )
        )  # fmt: skip
    frame = pl.concat(parts)
    return frame.filter(pl.col("left") != pl.col("right"))


@dataclass(frozen=True)
class _Clusters:
    """Ways in which judgments hang together. An interval takes the one that makes it widest: new people and new prompts both differ."""

    codes: tuple[tuple[str, Codes], ...]

    def select(self, mask: NDArray[np.bool_]) -> _Clusters:
        return _Clusters(tuple((name, code[mask]) for name, code in self.codes))

    def widest(self, measure: Callable[[Codes], Interval]) -> tuple[Interval, str]:
        """The widest interval, and what it is clustered by."""
        return max(((measure(code), name) for name, code in self.codes), key=lambda found: found[0].high - found[0].low)

    def share(self, hits: Array, count: Array) -> tuple[Interval, str]:
        interval, name = self.widest(lambda code: share(hits, cluster=code, weight=count))
        return replace(interval, n=round(count.sum())), name

    def mean(self, values: Array, count: Array) -> tuple[Interval, str]:
        interval, name = self.widest(lambda code: mean(values, cluster=code, weight=count))
        return replace(interval, n=round(count.sum())), name


def _clusters(held_out: Feedback, rater: Codes, prompt: Codes, shown: Codes) -> _Clusters:
    """By rater and by prompt where there are at least three known, else by the response shown first."""
    found = [
        (name, code)
        for name, code, n in (("rater", rater, held_out.n_raters), ("prompt", prompt, held_out.n_prompts))
        if (code < n).mean() > 0.5 and len(np.unique(code)) >= 3
    ]
    return _Clusters(tuple(found) or (("response", shown),))


def _frame_clusters(held_out: Feedback, frame: pl.DataFrame) -> _Clusters:
    return _clusters(held_out, frame["rater"].to_numpy(), frame["prompt"].to_numpy(), frame["left"].to_numpy())


def _hits(p: Array, won: NDArray[np.bool_]) -> Array:
    """1 right, 0 wrong, 1/2 where the prediction is exactly undecided."""
    return np.where(p == 0.5, 0.5, (p > 0.5) == won)


def _measured(code: str, title: str, interval: Interval, unit: str, verdict: Verdict = "ok", **rest: Any) -> Finding:
    return Finding(
        code=code,
        title=title,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        unit=unit,
        verdict=verdict,
        **rest,
    )


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _accuracy(fit: Fit, held_out: Feedback, predictions: Sequence[Predicted]) -> list[Finding]:
    frame = _decided(predictions)
    findings: list[Finding] = []
    rated = [p for p in predictions if not p.is_pair]
    for block in rated[:_SLICES]:
        hit = (block.probs.argmax(1) == block.outcome).astype(float)
        result, unit = _clusters(held_out, block.rater, block.prompt, block.shown[:, 0]).share(hit, block.count)
        findings.append(
            _measured(f"accuracy/{block.name}", f"The likeliest of {block.probs.shape[1]} answers is the one given in {_percent(result)} of held-out {block.name}.",
                      result, "share", reason=f"interval clustered by {unit}", details={"outcomes": int(block.probs.shape[1])})
        )  # fmt: skip
    if frame.height == 0:
        why = "no held-out pair was decided between responses that the fit can place"
        return [Finding.not_applicable("accuracy", "Held-out pair accuracy cannot be computed.", why), *findings]
    p, won, count = frame["p"].to_numpy(), frame["won"].to_numpy(), frame["count"].to_numpy()
    clusters = _frame_clusters(held_out, frame)
    overall, unit = clusters.share(_hits(p, won), count)
    findings.insert(
        0,
        _measured("accuracy", f"On held-out pairs the fit agrees with the rater in {_percent(overall)} of {int(count.sum()):,} decided judgments.", overall, "share",
                  reason=f"interval clustered by {unit} ({overall.n_clusters} of them); ties are left out, an undecided prediction counts half"),
    )  # fmt: skip
    if overall.high < THRESHOLDS.direction_accuracy_blocking:
        findings.append(
            Finding(code="direction", title=f"The fit is wrong more often than right on held-out pairs ({_percent(overall)}): labels of one part look reversed.",
                    estimate=overall.estimate, low=overall.low, high=overall.high, n=overall.n, unit="share", verdict="blocking",
                    reason="a held-out accuracy below one half with its whole interval has no other common cause",
                    remedy="Check which column is the preferred response in each part of the data (chosen/rejected, left/right, A/B).")
        )  # fmt: skip
    else:
        findings.append(
            Finding(code="direction", title="Held-out judgments point the same way as training judgments.", estimate=overall.estimate,
                    low=overall.low, high=overall.high, n=overall.n, unit="share", reason="accuracy is not below one half")
        )  # fmt: skip
    seen = set(fit.raters["rater"].to_list())
    known = np.array([r in seen for r in held_out.raters["id"].to_list()] + [False])[frame["rater"].to_numpy()]
    if known.any() and not known.all():
        for name, mask in (("rater/seen", known), ("rater/new", ~known & (frame["rater"].to_numpy() < held_out.n_raters))):
            if mask.sum() >= 20:
                part, _ = clusters.select(mask).share(_hits(p[mask], won[mask]), count[mask])
                findings.append(_measured(f"accuracy/{name}", f"For {name.split('/')[1]} raters: {_percent(part)}.", part, "share"))
    findings += _spread_over(held_out, frame, "rater", p, won, count)
    findings += _spread_over(held_out, frame, "prompt", p, won, count)
    if len(fit.groups) > 1:
        for code, name in enumerate(fit.groups):
            mask = frame["group"].to_numpy() == code
            if mask.sum() >= 20:
                part, _ = clusters.select(mask).share(_hits(p[mask], won[mask]), count[mask])
                findings.append(_measured(f"accuracy/group/{name}", f"Raters of {name}: {_percent(part)}.", part, "share"))
    return findings


def _spread_over(held_out: Feedback, frame: pl.DataFrame, by: str, p: Array, won: NDArray[np.bool_], count: Array) -> list[Finding]:
    """The mean over raters (or prompts) of their own accuracy: each counts once, however many judgments it has."""
    code = frame[by].to_numpy()
    known = code < (held_out.n_raters if by == "rater" else held_out.n_prompts)
    if len(np.unique(code[known])) < 2:
        return [Finding.not_applicable(f"accuracy/{by}", f"Accuracy by {by} cannot be computed.", f"fewer than two known {by}s")]
    total = np.bincount(code[known], count[known])
    right = np.bincount(code[known], count[known] * _hits(p, won)[known])
    each = right[total > 0] / total[total > 0]
    result = mean(each)
    low, high = np.quantile(each, [0.1, 0.9])
    title = (
        f"Averaged over {len(each):,} {by}s, each counting once: {_percent(result)}; a tenth lie below {low:.0%}, a tenth above {high:.0%}."
    )
    return [_measured(f"accuracy/{by}", title, result, "share", details={"p10": float(low), "p90": float(high)})]


def _baselines(held_out: Feedback, predictions: Sequence[Predicted], train: Feedback | None) -> list[Finding]:
    """Trivial rules on the same judgments, and the paired difference to the fit."""
    frame = _decided(predictions)
    if frame.height == 0:
        return [Finding.not_applicable("baseline", "Baselines cannot be computed.", "no decided held-out pair")]
    p, won, count = frame["p"].to_numpy(), frame["won"].to_numpy(), frame["count"].to_numpy()
    clusters = _frame_clusters(held_out, frame)
    hits = _hits(p, won)
    rules: dict[str, Array] = {}
    texts = held_out.responses["text"]
    if texts.null_count() == 0:
        length = texts.str.len_chars().to_numpy().astype(float)
        difference = length[frame["left"].to_numpy()] - length[frame["right"].to_numpy()]
        # which way length points is learnt from the training part, as the rule's only parameter
        sign = _length_direction(train) if train is not None else 1.0
        if sign:
            rules["longer wins" if sign > 0 else "shorter wins"] = np.where(difference == 0, 0.5, (sign * difference > 0) == won)
    if held_out.has("order_known") and bool(held_out.judgments["order_known"].any()):
        rules["shown first wins"] = won.astype(float)
    rules["coin"] = np.full(len(won), 0.5)
    findings: list[Finding] = []
    best_name, best, margin, best_unit = "", None, None, ""
    for name, rule in rules.items():
        result = clusters.share(rule, count)[0] if name != "coin" else Interval(0.5, 0.5, 0.5, round(count.sum()), len(rule))
        gain, unit = clusters.mean(hits - rule, count)
        title = f"The rule '{name}' is right in {result.estimate:.1%}; the fit is {gain.estimate:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}] better."
        details = {"gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high}
        findings.append(
            _measured(
                f"baseline/{name.replace(' ', '-')}",
                title,
                result,
                "share",
                details=details,
                reason=f"paired difference, clustered by {unit}",
            )
        )
        if best is None or result.estimate > best.estimate:
            best_name, best, margin, best_unit = name, result, gain, unit
    assert best is not None
    assert margin is not None
    below = margin.high < 0
    unclear = not below and margin.low <= 0
    title = (
        f"The fit is below the trivial rule '{best_name}' by {-margin.estimate:.1%} [{-margin.high:.1%}, {-margin.low:.1%}]." if below
        else f"The fit beats the best trivial rule, '{best_name}', by {margin.estimate:.1%} [{margin.low:.1%}, {margin.high:.1%}]." if not unclear
        else f"The fit is not clearly better than the trivial rule '{best_name}' ({margin.estimate:+.1%} [{margin.low:+.1%}, {margin.high:+.1%}])."
    )  # fmt: skip
    blocking = margin.high < THRESHOLDS.accuracy_margin_blocking
    findings.insert(
        0,
        Finding(code="baseline", title=title, estimate=best.estimate, low=best.low, high=best.high, n=best.n, unit="share",
                verdict="blocking" if blocking else "warning" if unclear else "ok",
                reason=f"accuracy of the best trivial rule on the same {best.n:,} judgments; the difference is paired and clustered by {best_unit}",
                remedy="Collect more judgments, or features that carry the content (Linear with an encoder)." if blocking or unclear else None,
                details={"rule": best_name, "gain": margin.estimate, "gain_low": margin.low, "gain_high": margin.high}),
    )  # fmt: skip
    return findings


def _length_direction(train: Feedback) -> float:
    """+1 if the longer response wins more often in decided training pairs, -1 if the shorter, 0 if none differ in length."""
    pairs = train.pairs().filter(pl.col("outcome").is_in(["left", "right"]))
    length = train.responses["text"].str.len_chars().to_numpy().astype(float)
    difference = length[pairs["left"].to_numpy()] - length[pairs["right"].to_numpy()]
    won = pairs["outcome"].to_numpy() == "left"
    longer = ((difference > 0) == won)[difference != 0]
    return 0.0 if not len(longer) else 1.0 if longer.mean() >= 0.5 else -1.0


def _log_loss(held_out: Feedback, predictions: Sequence[Predicted]) -> list[Finding]:
    """Mean negative log probability of what was answered, beside that of the outcomes' overall shares."""
    findings: list[Finding] = []
    losses, references, counts, raters, prompts, shown = [], [], [], [], [], []
    for block in predictions:
        loss = -np.log(np.maximum(block.probs[np.arange(len(block.outcome)), block.outcome], 1e-300))
        shares = np.bincount(block.outcome, block.count, block.probs.shape[1]) + 0.5
        reference = -np.log((shares / shares.sum())[block.outcome])
        losses.append(loss)
        references.append(reference)
        counts.append(block.count)
        raters.append(block.rater)
        prompts.append(block.prompt)
        shown.append(block.shown[:, 0])
    if not losses:
        return [Finding.not_applicable("log-loss", "Log loss cannot be computed.", "the fit can place no held-out judgment")]
    loss, reference, count = (np.concatenate(x) for x in (losses, references, counts))
    clusters = _clusters(held_out, *(np.concatenate(x) for x in (raters, prompts, shown)))
    result, unit = clusters.mean(loss, count)
    gain, _ = clusters.mean(reference - loss, count)
    title = (
        f"Log loss {result.estimate:.3f} [{result.low:.3f}, {result.high:.3f}] nats a judgment, "
        f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] better than always predicting the overall shares of the answers."
    )
    findings.append(
        _measured("log-loss", title, result, "nats", "warning" if gain.high < 0 else "ok",
                  reason=f"all outcomes of the kinds fitted, ties included; the reference knows the held-out shares; clustered by {unit}",
                  details={"gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high})
    )  # fmt: skip
    return findings


def calibration(held_out: Feedback, predictions: Sequence[Predicted]) -> Finding:
    """Do things predicted with 70% happen in 70%? Expected calibration error over ten bins of equal count.

    ECE is biased upwards (noise in each bin counts as error): the title says what a perfectly calibrated fit would show.
    """
    frame = _decided(predictions)
    if frame.height < 50:
        return Finding.not_applicable(
            "calibration", "Calibration cannot be measured.", f"{frame.height} decided held-out pairs; 50 are needed"
        )
    p, won, count = frame["p"].to_numpy(), frame["won"].to_numpy(), frame["count"].to_numpy()
    # orientation is arbitrary where the order is not known: use both, so that the curve is symmetric, and count each once
    chosen = np.maximum(p, 1 - p)
    hit = np.where(p >= 0.5, won, ~won).astype(float)
    order = np.argsort(chosen)
    bins = np.empty(len(order), dtype=np.int64)
    reached = np.cumsum(count[order])
    bins[order] = np.minimum((reached / reached[-1] * 10).astype(int), 9)
    clusters = _frame_clusters(held_out, frame)

    def ece(weight: Array) -> float:
        w = weight * count
        total = np.bincount(bins, w, 10)
        gap = np.abs(np.bincount(bins, w * hit, 10) - np.bincount(bins, w * chosen, 10))
        return float(gap.sum() / total.sum())

    estimate = ece(np.ones(len(p)))
    spans = [(bootstrap(ece, code, rounds=200), name) for name, code in clusters.codes]
    (lower, upper), unit = max(spans, key=lambda found: found[0][1] - found[0][0])
    # the resampled ECE is biased upwards once more: the basic interval reflects the percentiles about the estimate
    low, high = max(0.0, min(2 * estimate - upper, estimate)), max(2 * estimate - lower, estimate)
    rng = np.random.default_rng(0)
    perfect = float(np.mean([_ece_of(bins, count, chosen, rng.random(len(p)) < chosen) for _ in range(50)]))
    rows = []
    for b in range(10):
        mask = bins == b
        if mask.any():
            observed, _ = clusters.select(mask).share(hit[mask], count[mask])
            predicted = float((count[mask] * chosen[mask]).sum() / count[mask].sum())
            rows.append(
                {
                    "predicted": predicted,
                    "observed": observed.estimate,
                    "low": observed.low,
                    "high": observed.high,
                    "n": int(count[mask].sum()),
                }
            )
    verdict: Verdict = "warning" if low > max(2 * perfect, 0.05) else "ok"
    return Finding(
        code="calibration", title=f"Predicted and observed shares differ by {estimate:.1%} on average [{low:.1%}, {high:.1%}]; a perfectly calibrated fit would show {perfect:.1%}.",
        estimate=estimate, low=low, high=high, n=int(count.sum()), unit="share", verdict=verdict,
        reason=f"expected calibration error of the predicted winner, ten bins of equal count; bootstrap over {unit}s",
        remedy="Discount the margins: the fit is too sure or not sure enough." if verdict == "warning" else None,
        source="Guo et al. 2017; bias: Roelofs et al. 2022", details={"bins": rows, "perfect": perfect},
    )  # fmt: skip


def _ece_of(bins: Codes, count: Array, chosen: Array, hit: NDArray[np.bool_]) -> float:
    return float(np.abs(np.bincount(bins, count * hit, 10) - np.bincount(bins, count * chosen, 10)).sum() / count.sum())


def rater_reliability(fit: Fit) -> Finding:
    """How many raters answer at chance, and how many against the majority, by the fit's posterior of each rater's slope."""
    raters = fit.raters.filter(pl.col("n") >= 5)
    if raters.height < 3 or raters["slope"].is_nan().all():
        why = (
            "raters are not known"
            if fit.raters.height == 0
            else "it needs at least 3 raters with 5 or more judgments each, and the Reliability effect"
        )
        return Finding.not_applicable(
            "rater-reliability", "The raters' reliability cannot be told.", why, remedy="Record a rater id with every judgment."
        )
    careless, opposed = raters["p_careless"].to_numpy(), raters["p_opposed"].to_numpy()
    n = raters.height
    at_chance = share(careless)
    # the posterior probabilities carry the doubt about each rater; the draw of raters adds the sampling error
    sd = float(np.sqrt((careless * (1 - careless)).sum()) / n)
    low, high = max(0.0, min(at_chance.low, at_chance.estimate - 1.96 * sd)), min(1.0, max(at_chance.high, at_chance.estimate + 1.96 * sd))
    verdict: Verdict = (
        "blocking"
        if at_chance.estimate > THRESHOLDS.raters_at_chance_blocking
        else "warning"
        if at_chance.estimate > 0.15
        else "notice"
        if at_chance.estimate > 0.05
        else "ok"
    )
    clear = int((careless > 0.9).sum())
    against = int((opposed > 0.9).sum())
    title = f"About {at_chance.estimate:.0%} [{low:.0%}, {high:.0%}] of the {n:,} raters with 5 or more judgments answer at chance ({clear:,} clearly so); {against:,} clearly against the majority."
    table = raters.sort("n", descending=True)
    verdicts = np.where(
        table["p_careless"].to_numpy() > 0.5, "at chance", np.where(table["p_opposed"].to_numpy() > 0.5, "opposed", "careful")
    )
    rows = (
        table.select("rater", "n", "slope", "low", "high", "p_careless", "p_opposed")
        .with_columns(pl.Series("verdict", verdicts))
        .to_dicts()
    )
    slopes = raters["slope"].to_numpy()
    counts, edges = np.histogram(slopes, bins=30, range=(min(slopes.min(), -1.0), max(slopes.max(), 2.0)))
    return Finding(
        code="rater-reliability", title=title, estimate=at_chance.estimate, low=low, high=high, n=n, unit="share", verdict=verdict,
        reason="posterior probability of a slope of 0, averaged over raters; an opposed rater may be a consistent minority, which one-value data cannot tell from an adversary",
        remedy="Look at the raters named in the table; ask for repeated or gold items before excluding anyone." if verdict != "ok" else None,
        source="Seamark's rater model: mixture of careful, at chance and opposed slopes, integrated out",
        details={
            "raters": rows[:5000],
            "histogram": [{"low": float(a), "high": float(b), "count": int(c)} for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)],
        },
    )  # fmt: skip


def _fitted_effects(fit: Fit) -> list[Finding]:
    """Position and length as the model sees them, all else given."""
    findings: list[Finding] = []
    for parameter in fit.parameters:
        code = {"position": "position/fitted", "style: log_characters": "length/fitted"}.get(parameter.name)
        if code is None:
            continue
        shift = 1 / (1 + np.exp(-abs(parameter.estimate))) - 0.5
        title = {
            "position/fitted": f"All else equal, the response shown first gains {parameter.estimate:+.2f} logits ({parameter.low:+.2f} to {parameter.high:+.2f}): "
            f"{100 * shift:.0f} points of preference at an even pair.",
            "length/fitted": f"One standard deviation more log length goes with {parameter.estimate:+.2f} logits ({parameter.low:+.2f} to {parameter.high:+.2f}), given the other features.",
        }[code]
        findings.append(
            Finding(code=code, title=title, estimate=parameter.estimate, low=parameter.low, high=parameter.high, n=fit.data["n_judgments"], unit=parameter.unit,
                    verdict="notice" if parameter.low > 0 or parameter.high < 0 else "ok",
                    reason="the wider of the Laplace interval and the sandwich clustered by " + fit.data["clustered_by"])
        )  # fmt: skip
    return findings


def doubts(fit: Fit, feedback: Feedback, *, limit: int = 5000, seed: int = 0) -> Finding:
    """How the doubt about the next careful judgment divides into noise, disagreement and ignorance, over the pairs judged."""
    pairs = feedback.pairs().select("left", "right").filter(pl.col("left") != pl.col("right")).unique(maintain_order=True)
    if pairs.height == 0:
        return Finding.not_applicable("doubts", "The three doubts are shown for pairs.", "no pair was judged")
    if pairs.height > limit:
        pairs = pairs.sample(limit, seed=seed)
    gaps = fit.gaps(feedback, pairs["left"].cast(pl.Int64).to_numpy(), pairs["right"].cast(pl.Int64).to_numpy())
    keep = gaps.known
    if not keep.any():
        return Finding.not_applicable("doubts", "The three doubts cannot be told.", "the fit can place none of the responses")
    table = fit.doubts(gaps).with_columns(pl.Series("gap", np.abs(gaps.mean))).filter(pl.Series(keep))
    total = (table["p"] * (1 - table["p"])).to_numpy()
    columns = [c for c in ("noise", "disagreement", "noise_and_disagreement", "ignorance") if table[c].null_count() == 0]
    shares: dict[str, float | None] = {c: float(table[c].sum() / total.sum()) for c in columns}
    ignorance = table["ignorance"].to_numpy() / total
    interval = mean(ignorance, weight=total)
    bounded = np.isfinite(interval.low)  # one pair has no spread to tell an interval from
    rows = []
    edges = np.quantile(table["gap"].to_numpy(), np.linspace(0, 1, 6))
    for low, high in itertools.pairwise(edges):
        part = table.filter((pl.col("gap") >= low) & (pl.col("gap") <= high))
        if part.height:
            rows.append(
                {"gap_low": float(low), "gap_high": float(high), "n": part.height}
                | {
                    c: float(part[c].to_numpy().mean()) if c in columns else None
                    for c in ("noise", "disagreement", "noise_and_disagreement", "ignorance")
                }
            )  # type: ignore[arg-type]  # mean of a non-empty float column is a float
    split = (
        f"{shares['noise']:.0%} is noise, {shares['disagreement']:.0%} disagreement between groups and {shares['ignorance']:.0%} ignorance"
        if fit.separates
        else f"{shares['ignorance']:.0%} is ignorance, and {shares['noise_and_disagreement']:.0%} noise and disagreement together"
    )
    why = (
        None
        if fit.separates
        else "noise and disagreement cannot be told apart without groups and several judgments per known rater (or repeats by the same person)"
    )
    return Finding(
        code="doubts", title=f"Of the doubt about the next careful judgment, {split}.", estimate=interval.estimate,
        low=interval.low if bounded else None, high=interval.high if bounded else None, n=table.height, unit="share",
        reason=why or "law of total variance under the people model " + fit.spec["people"]["people"],
        remedy="Ignorance shrinks with more judgments; noise with clearer questions and better raters; disagreement is the charter's to settle.",
        details={
            "shares": {c: shares.get(c) for c in ("noise", "disagreement", "noise_and_disagreement", "ignorance")},
            "logits": {"ignorance": float(np.mean(gaps.ignorance[keep])), "disagreement": float(np.mean(gaps.disagreement[keep])) if fit.separates else None},
            "by_gap": rows,
        },
    )  # fmt: skip
