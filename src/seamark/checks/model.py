"""Checks of a fit: how well it predicts people it has not seen, and what it says of itself: convergence, raters, effects, doubt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.baselines import check_baselines
from seamark.checks.calibration import check_behaviour, check_brier, check_calibration, check_calibration_by, check_distribution
from seamark.checks.comparisons import codes_of, compare, counted
from seamark.checks.fields import by_judgment, check_accuracy_by_field, check_calibration_by_field
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.held_out import (
    answered_cells,
    check_accuracy,
    check_against_people,
    check_log_loss,
    decided_cells,
    figure,
)
from seamark.checks.repeats import check_leakage, shares_answers
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import Z95, Interval, clustered_mean, mean, share
from seamark.models.effects import SlotNumbers
from seamark.models.prediction import Predicted, predict
from seamark.models.result import Fit
from seamark.models.slopes import PSEUDO_RATERS
from seamark.models.utility import squared_rows
from seamark.records import Feedback

Array = NDArray[np.float64]

_DOUBTS = ("noise", "disagreement", "noise_and_disagreement", "ignorance")


def evaluate(fit: Fit, held_out: Feedback, *, train: Feedback | None = None, seed: int = 0) -> Findings:
    """How the fit does on judgments it has not seen, and what it says about raters and about its own doubt.

    Returns whether the fit converged; accuracy, log loss and calibration with intervals clustered by rater or by prompt, sliced by
    rater, prompt, group and field of the judgments, and set against the other raters; the trivial baselines on the same judgments; the raters' reliability;
    and the three doubts. `train` gives the majority baseline and the direction of the length baseline, and is searched for the
    judgments that are called held-out. Where these were fitted themselves, `leakage` is blocking and nothing is called held-out.
    """
    predictions = predict(fit, held_out)
    decided = decided_cells(fit, held_out, predictions)
    each = by_judgment(fit, held_out)
    leakage = check_seen(fit, held_out, train, seed=seed)
    findings = Findings(
        (
            check_convergence(fit),
            *Findings(tuple(leakage)).with_access("outside-the-box"),
            check_placed(fit, held_out, predictions),
            *check_numbers(fit, held_out),
            *check_accuracy(decided, predictions, fit),
            *check_accuracy_by_field(held_out, each),
            *check_against_people(held_out, decided),
            *check_baselines(held_out, decided, train),
            *check_log_loss(answered_cells(fit, held_out, predictions)),
            check_brier(decided),
            *check_calibration(decided),
            *check_calibration_by(decided, fit.utilities(held_out)),
            *check_calibration_by_field(held_out, each),
            *check_distribution(decided, predictions, seed=seed),
            *check_behaviour(fit, held_out, decided),
            check_rater_reliability(fit),
            *check_effects(fit),
            check_doubts(fit, held_out, seed=seed),
            check_variance_split(fit, held_out, seed=seed),
        )
    ).with_access("white-box")
    if leakage[0].verdict != "blocking" or (leakage[0].estimate or 0) < _MOSTLY:
        return findings
    return Findings(tuple(f if f.code.startswith("leakage") else f.reworded({"held-out": "fitted"}) for f in findings))


_MOSTLY = 0.5
"""From this share of judgments that were fitted themselves, the rest is not called held-out either."""


def check_seen(fit: Fit, held_out: Feedback, train: Feedback | None, *, seed: int = 0) -> list[Finding]:
    """Whether the fit has learned from the judgments that it is evaluated on: by fingerprint, and one by one where `train` is given."""
    whole = {"fingerprint": "the judgments that were fitted", "part_of": "the study's whole data, most of which was fitted"}
    prints = {"fingerprint": fit.fingerprint, "part_of": fit.data.get("part_of")}
    for name, words in whole.items():
        if prints[name] == held_out.fingerprint:
            share = 1.0 if name == "fingerprint" else min(1.0, fit.data["n_judgments"] / held_out.n_judgments)
            return [
                Finding(
                    code="leakage", title=f"These are {words}: what is predicted of them says nothing about new judgments.",
                    estimate=share, n=held_out.n_judgments, unit="share", verdict="blocking",
                    reason="The fingerprints are the same. An exact count over the data, so there is no interval.",
                    remedy="Evaluate on judgments that the fit has not seen: seamark study holds some out by itself.",
                )
            ]  # fmt: skip
    if train is None:
        why = "What was fitted is known by its fingerprint alone, which these judgments do not have as a whole."
        return [
            Finding.not_applicable("leakage", "Leakage cannot be looked for.", why, remedy="Give what was fitted as well, with --train.")
        ]
    if fit.basis.features is None:
        why = "A table of values is evaluated on other answers about the same responses, which share prompts and responses on purpose."
        return [Finding.not_applicable("leakage", "Leakage is not at issue.", why)]
    found = check_leakage(train, held_out, seed=seed)
    if found[0].verdict == "blocking" and not shares_answers(train, held_out):
        why = "Both parts share questions, but nobody answered the same one in both: this is about new raters, and says nothing of new questions."
        return [Finding.not_applicable("leakage", "Leakage is not at issue.", why)]
    return found


def check_placed(fit: Fit, held_out: Feedback, predictions: Sequence[Predicted]) -> Finding:
    """How many of the judgments the fit can say anything about."""
    known = np.flatnonzero(fit.basis.rows_for(held_out).known).tolist()
    answered = held_out.judgments.filter(~pl.col("outcome").cast(pl.String).is_in(["cannot_tell", "skipped"]))
    asked = answered.height
    inside = answered.select(pl.col("responses").list.eval(pl.element().is_in(known)).list.all())["responses"].fill_null(value=False)
    placed = int(inside.sum()) if predictions else 0
    share = placed / asked if asked else 0.0
    verdict: Verdict = "blocking" if not placed else "warning" if share < THRESHOLDS.placed_warning else "ok"
    return Finding(
        code="coverage/held-out",
        title=f"The fit can place {'none' if not placed else 'all' if share == 1 else f'{share:.0%}'} of {counted(asked, 'held-out judgment')}.",
        estimate=share, n=asked, unit="share", verdict=verdict,
        reason="A judgment can be placed where the fit knows its responses, or reads their texts, and has a family for its kind. "
        "An exact count over the data, so there is no interval.",
        remedy="Evaluate on responses that the fit can read: those it was fitted to, where they are known by name alone."
        if verdict != "ok" else None,
    )  # fmt: skip


def check_numbers(fit: Fit, held_out: Feedback) -> list[Finding]:
    """For each number that moves judgments in the fit (`Bias`), how many of these judgments have it."""
    answered = replace(held_out, judgments=held_out.judgments.filter(~pl.col("outcome").is_in(["cannot_tell", "skipped"])))
    n, findings = answered.n_judgments, list[Finding]()
    for by in (fit.data.get("biases") or {}) if n else ():
        known = int(SlotNumbers.known(answered, by).sum())
        share = known / n
        how_many = "None" if not known else "All" if known == n else f"{share:.0%}"
        without = "" if known == n else f": {'they' if not known else 'the others'} are predicted as if it were average"
        verdict: Verdict = "ok" if known == n else "warning" if share < THRESHOLDS.placed_warning else "notice"
        findings.append(
            Finding(
                code=f"coverage/bias/{by}", title=f"{how_many} of {counted(n, 'held-out judgment')} {'has' if n == 1 else 'have'} {by}, which the fit takes out (bias by {by}){without}.",
                estimate=share, n=n, unit="share", verdict=verdict,
                reason="A judgment has it where it is known of every response shown. An exact count over the data, so there is no interval.",
                remedy=f"Give {by} of these judgments, as it was given of those fitted, or read accuracy as that without it."
                if verdict != "ok" else None,
            )
        )  # fmt: skip
    return findings


def check_convergence(fit: Fit) -> Finding:
    """Whether the optimiser reached the mode, and how far it still was."""
    if not fit.knows_ignorance:
        why = "It is a reward model that was trained elsewhere, and says nothing of how that ended."
        return Finding.not_applicable("convergence", "Whether the fit converged cannot be told.", why)
    c = fit.convergence
    steps = counted(c.iterations, "iteration")
    step = f"the last step is {c.decrement:.2g} standard errors long"
    verdict: Verdict = "ok" if c.converged else "blocking" if not c.decrement < THRESHOLDS.decrement_blocking else "warning"
    return Finding(
        code="convergence",
        title=f"The fit {'converged' if c.converged else 'did not converge'} after {steps}: {step}, {c.tolerance:.2g} is asked for.",
        estimate=c.decrement if np.isfinite(c.decrement) else None,
        n=c.iterations,
        unit="standard errors",
        verdict=verdict,
        reason=" ".join(("Newton decrement; n counts iterations. A fact about the computation: no interval.", *c.notes)),
        remedy=None
        if c.converged
        else "Allow more iterations (max_iterations), or fit fewer columns; read no estimate until it converges.",
    )


_CLEAR = 0.9
"""Posterior probability above which a rater counts as clearly at chance, or clearly opposed, in the sentence."""


def check_rater_reliability(fit: Fit) -> Finding:
    """How many raters answer at chance, and how many against the majority, by the fit's posterior of each rater's slope."""
    enough = f"with {THRESHOLDS.few_judgments} or more judgments"
    raters = fit.raters.filter(pl.col("n") >= THRESHOLDS.few_judgments).sort("n", descending=True)
    if raters.height < 3 or raters["slope"].is_nan().all():
        unknown = fit.raters.height == 0
        why = "Raters are not known." if unknown else f"It needs at least 3 raters {enough} each, and the Reliability effect."
        title = "The raters' reliability cannot be told."
        return Finding.not_applicable("rater-reliability", title, why, remedy="Record a rater id with every judgment.")
    careless, opposed = raters["p_careless"].to_numpy(), raters["p_opposed"].to_numpy()
    if _information(raters) < THRESHOLDS.raters_told:
        why = f"What the {raters.height:,} raters {enough} answered hardly moves the share from where it starts: any number would be the prior's."
        title = "Who answers at chance cannot be told."
        remedy = "Ask several raters the same questions, or show some of them again."
        return Finding.not_applicable("rater-reliability", title, why, remedy=remedy)
    at_chance = _with_posterior_spread(share(careless), careless)
    verdict = _worst(
        at_chance.estimate,
        blocking=THRESHOLDS.raters_at_chance_blocking,
        warning=THRESHOLDS.raters_at_chance_warning,
        notice=THRESHOLDS.raters_at_chance_notice,
    )
    verdicts = np.where(careless > 0.5, "at chance", np.where(opposed > 0.5, "opposed", "careful"))
    columns = raters.select("rater", "n", "slope", "low", "high", "p_careless", "p_opposed")
    slopes = raters["slope"].to_numpy()
    counts, edges = np.histogram(slopes, bins=30, range=(min(slopes.min(), -1.0), max(slopes.max(), 2.0)))
    return Finding.of(
        at_chance, code="rater-reliability", unit="share", verdict=verdict,
        title=f"About {figure(at_chance, '.0%')} of the {raters.height:,} raters {enough} answer at "
        f"chance ({int((careless > _CLEAR).sum()):,} clearly so); {int((opposed > _CLEAR).sum()):,} clearly against the majority.",
        reason="Posterior probability of a slope of 0, averaged over raters. An opposed rater may be a consistent minority, which one-value data "
        "cannot tell from an adversary.",
        remedy="Look at the raters named in the table; ask for repeated or gold items before excluding anyone." if verdict != "ok" else None,
        source="Seamark's rater model: mixture of careful, at chance and opposed slopes, integrated out",
        details={
            "raters": columns.with_columns(pl.Series("verdict", verdicts)).head(5000).to_dicts(),
            "histogram": [{"low": float(a), "high": float(b), "count": int(c)} for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)],
        },
    )  # fmt: skip


def _information(raters: pl.DataFrame) -> float:
    """Mean over raters of sum_k q_k log(q_k / p_k): q the posterior of careful, at chance and opposed, p where their shares start."""
    posterior = raters.select("p_careful", "p_careless", "p_opposed").to_numpy()
    start = PSEUDO_RATERS * (posterior.max(0) > 0)  # a fit without the opposed has none at the start either
    ratio = np.where(posterior > 0, posterior, 1.0) / np.where(start > 0, start / start.sum(), 1.0)
    return float((posterior * np.log(np.where(posterior > 0, ratio, 1.0))).sum(1).mean())


def _with_posterior_spread(drawn: Interval, probability: Array) -> Interval:
    """The wider of the interval from the draw of raters and the one from the doubt about each of them."""
    half = 1.96 * float(np.sqrt((probability * (1 - probability)).sum()) / len(probability))
    return replace(
        drawn, low=max(0.0, min(drawn.low, drawn.estimate - half)), high=min(1.0, max(drawn.high, drawn.estimate + half))
    )  # fmt: skip


def _worst(value: float, *, blocking: float, warning: float, notice: float) -> Verdict:
    """The most severe verdict whose threshold the value exceeds."""
    return "blocking" if value > blocking else "warning" if value > warning else "notice" if value > notice else "ok"


def check_effects(fit: Fit) -> list[Finding]:
    """Position and length as the model sees them, all else given."""
    findings: list[Finding] = []
    for parameter in fit.parameters:
        code = {"position": "position/fitted", "style: log_characters": "length/fitted"}.get(parameter.name)
        if code is None:
            continue
        logits = f"{parameter.estimate:+.2f} [{parameter.low:.2f}, {parameter.high:.2f}] logits"
        points = 100 / (1 + np.exp(-abs(parameter.estimate))) - 50
        title = {
            "position/fitted": f"All else equal, the response shown first gains {logits}: {points:.0f} points of preference at an even pair.",
            "length/fitted": f"One standard deviation more log length goes along with {logits}, given the other features.",
        }[code]
        findings.append(
            Finding.of(
                Interval(parameter.estimate, parameter.low, parameter.high, fit.data["n_judgments"], 0),
                code=code,
                title=title,
                unit=parameter.unit,
                verdict="notice" if parameter.low > 0 or parameter.high < 0 else "ok",
                reason=f"The wider of the Laplace interval and the sandwich clustered by {fit.data['clustered_by']}.",
            )
        )
    return findings


def check_doubts(fit: Fit, feedback: Feedback, *, limit: int = 5000, seed: int = 0) -> Finding:
    """How the doubt about the next careful judgment divides into noise, disagreement and ignorance, over the pairs compared."""
    if not fit.knows_ignorance:
        why = "It is a reward model that was trained elsewhere, and says nothing of its own doubt."
        return Finding.not_applicable("doubts", "The three doubts cannot be told.", why)
    compared = compare(feedback, seed=seed).most_direct()
    low, high = np.minimum(compared.left, compared.right), np.maximum(compared.left, compared.right)
    pairs = pl.DataFrame({"low": low, "high": high, "prompt": compared.prompt}).filter(pl.col("low") < pl.col("high"))
    pairs = pairs.unique(["low", "high"], keep="first", maintain_order=True)
    if pairs.height == 0:
        return Finding.not_applicable(
            "doubts", "The three doubts are shown for pairs.", "No judgment compares two responses, or implies it."
        )
    if pairs.height > limit:
        pairs = pairs.sample(limit, seed=seed)
    gaps = fit.gaps(feedback, pairs["low"].to_numpy(), pairs["high"].to_numpy())
    keep = gaps.known
    if not keep.any():
        return Finding.not_applicable("doubts", "The three doubts cannot be told.", "The fit can place none of the responses.")
    table = fit.doubts(gaps).with_columns(pl.Series("gap", np.abs(gaps.mean))).filter(pl.Series(keep))
    pairs = pairs.filter(pl.Series(keep))
    total = (table["p"] * (1 - table["p"])).to_numpy()
    shares = {c: float(table[c].sum() / total.sum()) if table[c].null_count() == 0 else None for c in _DOUBTS}
    clusters = {"prompt": pairs["prompt"].to_numpy()}
    if pairs["prompt"].min() == -1:
        clusters = {"response": pairs["low"].to_numpy(), "other response": pairs["high"].to_numpy()}
    interval, how = clustered_mean(table["ignorance"].to_numpy() / total, clusters, weight=total)
    if interval.bounded:  # a share, whose interval by Student's t may leave [0, 1] where there are few prompts
        interval = replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))
    said = {c: f"{s:.0%}" if s >= 0.1 else f"{s:.1%}" for c, s in shares.items() if s is not None}
    split = (
        f"{said['noise']} is noise, {said['disagreement']} disagreement between groups and {said['ignorance']} ignorance"
        if fit.separates
        else f"{said['ignorance']} is ignorance, and {said['noise_and_disagreement']} noise and disagreement together"
    )
    why = (
        f"Law of total variance under the people model {fit.spec['people']['people']}."
        if fit.separates
        else "Noise and disagreement cannot be told apart without groups and several judgments per known rater (or repeats by the same person)."
    )
    return Finding.of(
        interval, code="doubts", title=f"Of the doubt about the next careful judgment, {split}.", unit="share",
        reason=f"Share of ignorance; n counts distinct pairs, each weighing as much as its doubt; {how}. {why}",
        remedy="Ignorance shrinks with more judgments; noise with clearer questions and better raters; disagreement is the charter's to settle.",
        details={
            "shares": shares,
            "logits": {
                "ignorance": float(np.mean(gaps.ignorance[keep])),
                "disagreement": float(np.mean(gaps.disagreement[keep])) if fit.separates else None,
            },
            "by_gap": _by_gap(table),
        },
    )  # fmt: skip


def _by_gap(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The doubts in five bins of equal count by the size of the gap."""
    edges = np.quantile(table["gap"].to_numpy(), np.linspace(0, 1, 6))
    rows: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        part = table.filter((pl.col("gap") >= low) & (pl.col("gap") <= high))
        if part.height:
            rows.append({"gap_low": float(low), "gap_high": float(high), "n": part.height} | {c: part[c].mean() for c in _DOUBTS})
    return rows


def check_variance_split(fit: Fit, feedback: Feedback, *, seed: int = 0) -> Finding:
    """How the variance of utility gaps divides over what all share, what each circumstance (context, axis, period) adds, what people add, and the noise of an answer.

    With z a combination of the values, the variance of its gaps over the pairs compared is the mean of (z . gap)^2 plus the posterior variance of
    z . gap, so that what little data has shrunk is not lost; parts of circumstances and of people weigh by how often they occur. One answer adds
    pi^2 / 3, the variance of the logistic.
    """
    title = "What utility gaps vary by cannot be told."
    if not fit.knows_ignorance or fit.basis.walk is not None:
        return Finding.not_applicable("variance-split", title, "It takes a posterior over values that do not move.")
    compared = compare(feedback, seed=seed).most_direct()
    left, right = np.minimum(compared.left, compared.right), np.maximum(compared.left, compared.right)
    pairs = pl.DataFrame({"left": left, "right": right, "prompt": compared.prompt}).filter(pl.col("left") != pl.col("right"))
    pairs = pairs.unique(["left", "right"], keep="first", maintain_order=True)
    rows = fit.basis.rows_for(feedback)
    known = rows.known[pairs["left"].to_numpy()] & rows.known[pairs["right"].to_numpy()]
    pairs = pairs.filter(pl.Series(known))
    if pairs.height < 2:
        return Finding.not_applicable("variance-split", title, "The fit can place fewer than two pairs.")
    a, b = pairs["left"].to_numpy(), pairs["right"].to_numpy()

    def variance(z: Array) -> Array:
        if not z.any():
            return np.zeros(len(a))
        value, spread = rows.times((z @ fit.weights)[:, None])[:, 0], rows.times(fit.factor_for(z))
        new = (rows.new[a] + rows.new[b]) * fit.new_variance(z)
        return (value[a] - value[b]) ** 2 + squared_rows(spread[a] - spread[b]) + new

    share, everyone = fit.group_share, fit.loadings[: len(fit.groups)]
    usual = fit.circumstances(None)
    parts = {"item": variance(share @ everyone + usual)}
    for factor in fit.factors:
        if factor.name in ("group", "persona", "taste"):
            parts["people"] = sum((w * variance(z - share @ everyone) for w, z in zip(share, everyone, strict=True)), np.zeros(len(a)))
        else:
            each = [fit.circumstances({factor.name: level}) - usual for level in factor.levels]
            weights = factor.share if factor.share.sum() > 0 else np.full(len(each), 1 / len(each))
            parts[factor.name] = sum((w * variance(z) for w, z in zip(weights / weights.sum(), each, strict=True)), np.zeros(len(a)))
    parts["noise of an answer"] = np.full(len(a), np.pi**2 / 3)
    total = sum(parts.values(), np.zeros(len(a)))
    clusters = {"prompt": pairs["prompt"].to_numpy()} if (pairs["prompt"] >= 0).all() else {"response": a}
    found = {
        name: clustered_mean(part / total.mean() - total * part.mean() / total.mean() ** 2, clusters)[0] for name, part in parts.items()
    }
    shares = {name: float(part.mean() / total.mean()) for name, part in parts.items()}
    ends = {
        name: {
            "share": shares[name],
            "low": max(0.0, shares[name] + i.low),
            "high": min(1.0, shares[name] + i.high),
            "variance": float(parts[name].mean()),
        }
        for name, i in found.items()
    }
    main = next((name for name in parts if name not in ("item", "people", "noise of an answer")), "people" if "people" in parts else "item")
    said = ", ".join(f"{shares[name]:.0%} {'what all share' if name == 'item' else name.removeprefix('context:')}" for name in parts)
    unknown = " People are taken as alike (Same), so what they differ by is in the noise." if "people" not in parts else ""
    return Finding(
        code="variance-split", title=f"Of the variance of utility gaps and one answer to them: {said}.", estimate=shares[main], low=ends[main]["low"],
        high=ends[main]["high"], n=pairs.height, unit="share", access="white-box", details={"parts": ends},
        reason=f"The share of {main}; n counts distinct pairs; intervals by the delta method over {next(iter(clusters))}s, given the fit's prior strengths.{unknown}",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- a leaderboard

_BOARD = 500
"""More responses or models than this are no leaderboard, but a data set."""


def check_leaderboard(fit: Fit, feedback: Feedback) -> list[Finding]:
    """The utilities of the models that wrote the responses, or of responses known by name alone; nothing where there is neither."""
    board = _by_name(fit, feedback) if not feedback.responses["text"].is_not_null().any() else None
    board = _by_model(fit, feedback) if board is None else board
    if board is None or board[0].height < 2:
        return []
    table, what, reason = board
    table = table.sort("utility", descending=True)
    first, last = table.row(0, named=True), table.row(-1, named=True)
    return [
        Finding(
            code="leaderboard",
            title=f"Of {counted(table.height, what)}, {first['name']} has the highest utility, {first['utility']:+.2f} "
            f"[{first['low']:.2f}, {first['high']:.2f}] logits, and {last['name']} the lowest, {last['utility']:+.2f} "
            f"[{last['low']:.2f}, {last['high']:.2f}].",
            estimate=first["utility"], low=first["low"], high=first["high"], n=table.height, unit="logits",
            reason=f"A gap of 1 is a preference of 73%. The first of many is partly so by luck; {reason} n counts {what}s.",
            details={"board": table.to_dicts()},
        )
    ]  # fmt: skip


def _by_name(fit: Fit, feedback: Feedback) -> tuple[pl.DataFrame, str, str] | None:
    """Responses without text, each with its own value."""
    utility = fit.utilities(feedback)
    known = np.isfinite(utility)
    if not 2 <= known.sum() <= _BOARD:
        return None
    half = Z95 * fit.ignorance(feedback)
    judged = np.bincount(codes_of(feedback.judgments["responses"].explode()), minlength=feedback.n_responses)
    names = feedback.responses.select(pl.coalesce("name", "id").cast(pl.String).alias("name"))["name"]
    table = pl.DataFrame({"name": names, "utility": utility, "low": utility - half, "high": utility + half, "n": judged})
    return table.filter(pl.Series(known)), "response", "intervals are those of the posterior, about the average response."


def _by_model(fit: Fit, feedback: Feedback) -> tuple[pl.DataFrame, str, str] | None:
    """Models, each with the mean utility of the responses that it wrote."""
    if not feedback.has("models"):
        return None
    shown = feedback.judgments.select("responses", "models").drop_nulls().explode("responses", "models").drop_nulls()
    shown = shown.select(pl.col("responses").cast(pl.Int64).alias("response"), pl.col("models").cast(pl.String).alias("name"))
    utility = fit.utilities(feedback)
    written = shown.group_by("name", "response", maintain_order=True).len()
    written = written.with_columns(pl.Series("utility", utility[written["response"].to_numpy()])).filter(pl.col("utility").is_finite())
    if not 2 <= written["name"].n_unique() <= _BOARD:
        return None
    rows: list[dict[str, Any]] = []
    for (name,), part in written.group_by("name", maintain_order=True):
        found = mean(part["utility"].to_numpy())
        if found.bounded:
            rows.append({"name": name, "utility": found.estimate, "low": found.low, "high": found.high, "n": int(part["len"].sum())})
    if not rows:
        return None
    reason = "the mean over the responses that a model wrote, whose prompts differ between models; intervals are over its responses."
    return pl.DataFrame(rows), "model", reason
