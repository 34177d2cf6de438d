"""Gaps that a reward makes between groups of people and texts: matched pairs before and after alignment, countries and languages, slices
in which it points the wrong way, blandness, homogenisation, and how contexts weigh the axes.

Scores may be those of any reward model: all of this takes arrays. A score that is not finite, and a level that is None, is not known: such
rows are left out and counted, and a level that has no others is named. What cannot be what it is said to be is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control, rankdata, t

from seamark.aggregation.regret import diversity, groups_served
from seamark.checks.comparisons import codes_of, compact, counted, percent
from seamark.checks.confounds import clustered_logistic
from seamark.checks.findings import Finding
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, bootstrap, mean, wilson
from seamark.models.features import style_features
from seamark.models.result import Fit
from seamark.records import Feedback

_FEWEST = 5
_DRAWS = 499
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


_ENGLISH = frozenset(re.findall(r"\w+", "the and to that it with you this are not have from or but if your can which would they"))
"""Words that English texts are full of (a fifth of what is written) and that its neighbours hardly share."""
_LEAST_ENGLISH = 0.05


def _numbers(name: str, value: Floats, n_axes: int) -> Floats:
    """The array as float64, of so many axes."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidSetting(name, str(value)[:80], f"Give an array of numbers with {_axes(n_axes)}.") from None
    if array.ndim != n_axes:
        raise InvalidSetting(f"The shape of {name}", array.shape, f"Give an array with {_axes(n_axes)}.")
    return array


def _axes(n: int) -> str:
    return f"{n} ax{'i' if n == 1 else 'e'}s"


def _named(groups: Sequence[str | None], n: int, what: str) -> tuple[list[str], Codes]:
    """The different names, and the code of each row; -1 where there is none (None)."""
    if len(groups) != n:
        raise InvalidSetting(what, f"{len(groups):,} of them", f"Give one for each of the {n:,} rows.")
    there = np.array([g is not None for g in groups], dtype=bool)
    names, found = np.unique(np.array([str(g) for g in groups if g is not None], dtype=str), return_inverse=True)
    code = np.full(n, -1, dtype=np.int64)
    code[there] = found
    return names.tolist(), code


def _nothing_of(names: Sequence[str]) -> str:
    """Of which levels nothing is said, as the end of a title."""
    return f" Nothing can be told of {', '.join(names)}." if names else ""


def _p_of_zero(interval: Interval) -> float:
    """Two-sided p of the hypothesis that a mean with this t interval is 0."""
    half = (interval.high - interval.low) / 2
    if not np.isfinite(half) or half <= 0:
        return 1.0 if interval.estimate == 0 or not np.isfinite(half) else 0.0
    freedom = interval.n_clusters - 1
    return float(2 * t.sf(abs(interval.estimate) / (half / t.ppf(0.975, freedom)), freedom))


def check_matched_pairs(base: Floats, aligned: Floats, groups: Sequence[str], *, template: Sequence[str] | None = None) -> Finding:
    """Does a reward treat a text otherwise when it names one identity instead of another, and did alignment change that?

    Parameters
    ----------
    base, aligned : (n, 2) scores before and after alignment of the text that names the group, and of its match that does not.
    groups : (n,) the identity named; template : (n,) what the texts have in common, by which intervals are clustered.

    Source: minimal pairs as in counterfactual fairness (Kusner et al. 2017); harms carried from base to aligned models, Ovalle et al. 2024.
    """
    base, aligned = _numbers("base", base, 2), _numbers("aligned", aligned, 2)
    for name, scores in (("base", base), ("aligned", aligned)):
        if scores.shape != (len(base), 2):
            raise InvalidSetting(f"The shape of {name}", scores.shape, f"Give two scores for each pair: ({len(base)}, 2).")
    all_names, code = _named(groups, len(base), "groups")
    cluster = None if template is None else _named(template, len(base), "template")[1]
    known = np.all(np.isfinite(base) & np.isfinite(aligned), axis=1) & (code >= 0)
    if cluster is not None:
        known &= cluster >= 0
    n_lost = int((~known).sum())
    # a t interval of a few differences that happen to be equal has no width
    enough = np.bincount(code[known], minlength=len(all_names)) >= _FEWEST
    names, untold = ([name for name, e in zip(all_names, enough, strict=True) if e == wanted] for wanted in (True, False))
    before, after = base[:, 0] - base[:, 1], aligned[:, 0] - aligned[:, 1]
    rows: list[dict[str, Any]] = []
    for name in names:
        mine = known & (code == all_names.index(name))
        own = None if cluster is None else cluster[mine]
        found = {what: mean(x[mine], cluster=own) for what, x in (("base", before), ("aligned", after), ("change", after - before))}
        ends = {f"{what}_{end}": value for what, i in found.items() for end, value in zip(("low", "high"), i.ends, strict=True)}
        rows.append(
            {"group": name, "n": int(mine.sum()), "p": _p_of_zero(found["aligned"])}
            | {what: i.estimate for what, i in found.items()}
            | ends
        )
    if not rows:
        return Finding.not_applicable(
            "matched-pairs",
            "Whether identities are treated alike cannot be told.",
            f"No group has {_FEWEST} pairs with finite scores; {counted(n_lost, 'pair')} of {len(base):,} {'has' if n_lost == 1 else 'have'} none, or no group.",
        )
    q = false_discovery_control([row["p"] for row in rows])
    for row, value in zip(rows, q.tolist(), strict=True):
        row["q"] = value
        # inherited: there before, there after, and to the same side
        clear = row["base_low"] is not None and (row["base_low"] > 0 or row["base_high"] < 0)
        row["inherited"] = bool(value <= THRESHOLDS.false_discoveries and clear and row["base"] * row["aligned"] > 0)
    worst = max(rows, key=lambda row: abs(row["aligned"]))
    hit = [row["group"] for row in rows if row["q"] <= THRESHOLDS.false_discoveries]
    inherited = [row["group"] for row in rows if row["inherited"]]
    return Finding(
        code="matched-pairs", estimate=worst["aligned"], low=worst["aligned_low"], high=worst["aligned_high"], n=worst["n"], unit="logits",
        verdict="warning" if hit else "ok",
        title=f"Naming {worst['group']} moves the aligned score by {worst['aligned']:+.2f} and moved the base score by {worst['base']:+.2f}; "
        f"{counted(len(hit), 'group')} of {len(rows)} {'is' if len(hit) == 1 else 'are'} treated otherwise, {len(inherited)} of them already before."
        + (f" {counted(n_lost, 'pair')} of {len(base):,} could not be used." if n_lost else "") + _nothing_of(untold),
        reason=f"Matched pairs that differ in the identity alone, groups with {_FEWEST} or more; {counted(n_lost, 'pair')} without finite scores, group or "
        f"template left out; a t interval{' clustered by template' if template is not None else ''}; groups are "
        f"named at a false discovery rate of {percent(THRESHOLDS.false_discoveries)}.",
        remedy="What the base model brought along is not mended by more feedback of the same kind: ask for judgments of these pairs." if hit else None,
        source="Benjamini & Hochberg 1995", details={"groups": rows, "left_out": n_lost, "untold": untold},
    )  # fmt: skip


def check_representation_gap(scores: Floats, levels: Sequence[str], *, by: str, reference: dict[str, float] | None = None) -> Finding:
    """Scores by dialect, language or country: the largest gap between two of them, and the rank correlation with a reference figure.

    Parameters
    ----------
    scores : (n,); levels : (n,) what each belongs to; by : what levels are, in words (country).
    reference : a figure per level, such as how well a country is thought of elsewhere. Tied figures share their mean rank.

    Source: Ryan, Held & Yang 2024, who rank countries by reward and compare with opinion polls.
    """
    scores = _numbers("scores", scores, 1)
    all_names, code = _named(levels, len(scores), "levels")
    if reference is not None:
        if bad := [name for name, figure in reference.items() if not np.isfinite(figure)]:
            raise InvalidSetting(f"reference of {bad[0]!r}", reference[bad[0]], "Give finite figures, and leave out what is not known.")
        if not set(reference) & set(all_names):
            raise InvalidSetting(
                "reference", sorted(reference)[:5], f"It names no {by} that is scored, such as {', '.join(all_names[:5])}."
            )
    known_rows = np.isfinite(scores) & (code >= 0)
    n_lost = int((~known_rows).sum())
    there = np.bincount(code[known_rows], minlength=len(all_names)) > 0
    names, untold = ([name for name, t in zip(all_names, there, strict=True) if t == wanted] for wanted in (True, False))
    scores, code = scores[known_rows], compact(code[known_rows])[0]
    if len(names) < 2:
        reason = f"Only {names[0]} has finite scores." if names else "No row has a finite score and a level."
        return Finding.not_applicable("representation-gap", f"Whether scores differ by {by} cannot be told.", reason)
    parts = [mean(scores[code == g]) for g in range(len(names))]
    order = np.argsort([p.estimate for p in parts])
    low, high = int(order[0]), int(order[-1])

    def gap(weights: Floats) -> float:
        total = np.bincount(code, weights=weights, minlength=len(names))
        means = np.divide(
            np.bincount(code, weights=weights * scores, minlength=len(names)), total, out=np.full(len(names), np.nan), where=total > 0
        )
        return float(means[high] - means[low])

    bounds = bootstrap(gap, np.arange(len(scores)))
    rng, size = np.random.default_rng(0), np.bincount(code)
    drawn = [np.ptp(np.bincount(code, weights=rng.permutation(scores)) / size) for _ in range(_DRAWS)]
    p = (1 + sum(d >= np.ptp([part.estimate for part in parts]) - 1e-12 for d in drawn)) / (_DRAWS + 1)
    rho, n_ranked = None, 0
    if reference is not None:
        known = [g for g, name in enumerate(names) if name in reference]
        n_ranked = len(known)
        if n_ranked >= 3:
            ours, theirs = (rankdata(x) for x in ([parts[g].estimate for g in known], [reference[names[g]] for g in known]))
            if np.ptp(ours) > 0 and np.ptp(theirs) > 0:
                rho = float(np.corrcoef(ours, theirs)[0, 1])
    said = (
        f" Its ranks go with the reference's with a Spearman correlation of {rho:.3f} over {n_ranked} (ties share ranks; no interval)."
        if rho is not None
        else f" No rank correlation: the reference has {n_ranked} of them, and it takes 3 that differ."
        if reference is not None
        else ""
    )
    estimate = parts[high].estimate - parts[low].estimate
    return Finding(
        code="representation-gap", estimate=estimate, low=bounds[0], high=bounds[1], n=len(scores), unit="logits",
        verdict="notice" if p <= THRESHOLDS.false_discoveries else "ok",
        title=f"Of {len(names):,} levels of {by}, {names[high]} is scored {estimate:.2f} above {names[low]} (p = {p:.2g}).{said}{_nothing_of(untold)}",
        reason=f"The largest gap of all is large by choice: its interval (bootstrap over rows) is too narrow at the lower end, and p is of the largest gap "
        f"where levels are permuted, {1 / (_DRAWS + 1):.2g} at least. {counted(n_lost, 'row')} without a finite score or a level left out; details have each level.",
        source="Ryan et al. 2024",
        details={"levels": [{by: names[g], "score": parts[g].estimate, "low": parts[g].ends[0], "high": parts[g].ends[1], "n": parts[g].n}
                            for g in order[::-1]], "spearman": rho, "left_out": n_lost, "untold": untold},
    )  # fmt: skip


def check_against_gold(gap: Floats, slices: Sequence[str]) -> Finding:
    """In which slices does a reward prefer what is known to be worse? A sign test of each.

    Parameters
    ----------
    gap : (n,) score of the response known to be better less that of the worse; slices : (n,) what kind of probe it is.
    """
    gap = _numbers("gap", gap, 1)
    names, code = _named(slices, len(gap), "slices")
    known = np.isfinite(gap) & (code >= 0)
    n_lost = int((~known).sum())
    if not known.any():
        return Finding.not_applicable(
            "against-gold", "Whether the reward points the wrong way cannot be told.", "No probe has finite scores and a slice."
        )
    rows: list[dict[str, Any]] = []
    for s, name in enumerate(names):
        mine = gap[known & (code == s)]
        n, right = int((mine != 0).sum()), int((mine > 0).sum())
        low, high = wilson(right, n)
        p = binomtest(right, n, alternative="less").pvalue if n else 1.0
        rows.append({"slice": name, "right": right / n if n else None, "low": low, "high": high, "n": n, "p": float(p), "q": 1.0})
    usable = [row for row in rows if row["n"]]
    if not usable:
        return Finding.not_applicable("against-gold", "Whether the reward points the wrong way cannot be told.", "All probes are tied.")
    for row, q in zip(usable, false_discovery_control([row["p"] for row in usable]).tolist(), strict=True):
        row["q"] = q
    against = [row["slice"] for row in usable if row["q"] <= THRESHOLDS.false_discoveries]
    worst = min(usable, key=lambda row: row["right"])
    untold = [row["slice"] for row in rows if not row["n"]]
    return Finding(
        code="against-gold", estimate=worst["right"], low=worst["low"], high=worst["high"], n=worst["n"], unit="share",
        verdict="blocking" if against else "notice" if untold else "ok",
        title=f"In {counted(len(against), 'slice')} of {len(rows)} the reward prefers what is worse; in {worst['slice']} it is right in "
        f"{percent(worst['right'])} [{100 * worst['low']:.0f}, {100 * worst['high']:.0f}]." + _nothing_of(untold),
        reason=f"A sign test per slice against one half, at a false discovery rate of {percent(THRESHOLDS.false_discoveries)}; ties are left out, "
        f"and {counted(n_lost, 'probe')} without a finite score or a slice.",
        remedy=f"Do not optimise against it in {', '.join(against)}: look for reversed labels or a proxy that is learnt there." if against
        else "Ask of these slices what the reward scores, or leave them out." if untold else None,
        details={"slices": rows, "left_out": n_lost, "untold": untold},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- what becomes of variety


def evasion(texts: Sequence[str]) -> Floats:
    """(n,) how evasive texts are: hedges per 100 words and refusals, each less and over what is usual among these texts; 0 is the mean.

    It counts English phrases and reads no meaning: careful words that are called for count as well.
    """
    found = style_features(texts)
    names = list(found.names)
    parts = np.stack([found.values[:, names.index(name)] for name in ("hedging", "refusals")], axis=1).astype(np.float64)
    spread = parts.std(0)
    return ((parts - parts.mean(0)) / np.where(spread > 0, spread, 1.0)).mean(1)


def _english(texts: Sequence[str]) -> float:
    """Share of all words that are of `_ENGLISH`."""
    words = [word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())]
    return sum(word in _ENGLISH for word in words) / max(len(words), 1)


def check_blandness(texts: Sequence[str], chosen: NDArray[np.bool_], prompt: Codes) -> Finding:
    """Is what is chosen more evasive than what is not, prompt by prompt? Its phrases are English: not applicable to other languages.

    Parameters
    ----------
    texts : (n,) responses; chosen : (n,) whether the reward would choose it; prompt : (n,) code of its prompt, negative where it is not
        known.
    """
    chosen, prompt = np.asarray(chosen), np.asarray(prompt)
    for name, given, kinds, what in (("chosen", chosen, "b", "True or False"), ("prompt", prompt, "iu", "an integer code")):
        if given.shape != (len(texts),) or given.dtype.kind not in kinds:
            raise InvalidSetting(name, f"{given.dtype} {given.shape}", f"Give {what} for each of the {len(texts):,} texts.")
    title = "Whether evasive responses win cannot be told."
    known = np.array([text is not None for text in texts], dtype=bool) & (prompt >= 0)  # pyright: ignore[reportUnnecessaryComparison]
    texts, chosen, prompt = [text for text, k in zip(texts, known, strict=True) if k], chosen[known], prompt[known]
    n_lost = int((~known).sum())
    code, k = compact(prompt)
    n_in, n_out = (np.bincount(code[side], minlength=k) for side in (chosen, ~chosen))
    use = (n_in > 0) & (n_out > 0)
    if not use.any():
        return Finding.not_applicable("blandness", title, "No prompt has both chosen and other responses.")
    if (english := _english(texts)) < _LEAST_ENGLISH:
        reason = f"Its phrases are English, and of the words of these texts {percent(english)} are the commonest of English, where a fifth is usual."
        return Finding.not_applicable("blandness", title, reason)
    score = evasion(texts)
    if not np.ptp(score):
        return Finding.not_applicable(
            "blandness", title, "None of these texts has a hedge or a refusal that it knows; it knows English ones."
        )
    sums = [np.bincount(code[side], weights=score[side], minlength=k) for side in (chosen, ~chosen)]
    difference = mean(sums[0][use] / n_in[use] - sums[1][use] / n_out[use])
    clear = difference.low > 0
    return Finding.of(
        difference, code="blandness", unit="sd", verdict="notice" if clear else "ok",
        title=f"What is chosen is {abs(difference.estimate):.2f} sd {'more' if difference.estimate > 0 else 'less'} evasive than what is not, over "
        f"{counted(difference.n, 'prompt')}.",
        reason="English hedges per 100 words and refusals, standardised over these texts; a t interval over prompts. Phrases are counted, meaning is not "
        f"read; {counted(n_lost, 'response')} without text or prompt left out.",
        remedy="Look at prompts where people differ: a hedge may be the response that offends nobody. Several answers may serve better than one "
        "(rule maximal-lottery, seamark catalogue)." if clear else None,
    )  # fmt: skip


def check_homogenisation(before: Floats, after: Floats, utilities: Floats | None = None) -> Finding:
    """How much variety optimisation leaves: the effective number of responses that a policy gives, before and after.

    Parameters
    ----------
    before, after : (Q, M) probability of each response; utilities : (Q, G, M) of groups, to see whose favourites are left.
    """
    before, after = _numbers("before", before, 2), _numbers("after", after, 2)
    if before.shape != after.shape:
        raise InvalidSetting("The shape of after", after.shape, f"Give it for the prompts and responses of before, {before.shape}.")
    if utilities is not None:
        utilities = _numbers("utilities", utilities, 3)
        if (utilities.shape[0], utilities.shape[2]) != before.shape:
            raise InvalidSetting(
                "The shape of utilities", utilities.shape, f"Give prompts, groups and responses, for those of before, {before.shape}."
            )
    known = ~np.any(np.isnan(before + after), axis=1)
    for name, p in (("before", before), ("after", after)):
        wrong = known & ((p < 0).any(1) | ~(np.abs(p.sum(1) - 1) <= 1e-6))
        if wrong.any():
            q = int(wrong.argmax())
            raise InvalidSetting(
                f"{name}[{q}]", p[q].tolist(), f"Give probabilities of 0 or more that sum to 1; these sum to {p[q].sum():.3g}."
            )
    n_lost = int((~known).sum())
    if not known.any():
        return Finding.not_applicable(
            "homogenisation", "What optimisation does to variety cannot be told.", "No prompt has all its probabilities."
        )
    before, after, utilities = before[known], after[known], None if utilities is None else utilities[known]
    one, two = diversity(before), diversity(after)
    ratio = mean(np.log(two) - np.log(one))
    share = {what: groups_served(utilities, p) for what, p in (("before", before), ("after", after))} if utilities is not None else {}
    lost = ratio.high < 0
    groups = f" Of groups' favourites it serves {share['before']:.1f} groups' worth before and {share['after']:.1f} after." if share else ""
    return Finding.of(
        ratio, code="homogenisation", unit="nats", verdict="notice" if lost else "ok",
        title=f"The effective number of responses to a prompt goes from {one.mean():.2f} to {two.mean():.2f} (a factor of {np.exp(ratio.estimate):.2f})."
        + groups + (f" {counted(n_lost, 'prompt')} of {len(known):,} had a probability that is not known, and {'is' if n_lost == 1 else 'are'} left out." if n_lost else ""),
        reason=f"The effective number is exp of the entropy of what the policy answers (Hill 1973), {counted(len(one), 'prompt')}; the estimate is the mean log ratio with a t "
        "interval.",
        remedy="Optimise less (a smaller best-of-n or tilt), or sample from several signals." if lost else None,
        details={"before": float(one.mean()), "after": float(two.mean()), "groups_served": share},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- axes in context


def check_trade_offs(fit: Fit, overall: Feedback, *, by: str) -> Finding:
    """How overall judgments weigh the axes of a fit, context by context: does the right balance depend on the context?

        P(left preferred overall | context c) = expit(sum_a beta_ca (V_a(left) - V_a(right)))

    Parameters
    ----------
    fit : a fit with axes (`MultiAxis`); overall : pairs judged overall, in contexts; by : the field that says which context.

    Raises
    ------
    InvalidSetting
        If the fit has no axes or the judgments no such field.
    """
    axes = next((f.levels for f in fit.factors if f.name == "axis"), ())
    if len(axes) < 2:
        raise InvalidSetting("fit", "without axes", "Fit with MultiAxis, on judgments of several axes.")
    if by not in overall.judgments.columns:
        raise InvalidSetting("by", by, "Use a field of the judgments, such as pair_type.")
    rows = overall.judgments.filter((pl.col("kind") == "pair") & pl.col("outcome").is_in(["left", "right"]) & pl.col(by).is_not_null())
    if not rows.height:
        return Finding.not_applicable("trade-offs", "How contexts weigh the axes cannot be told.", f"No decided pair has a {by}.")
    left, right = (codes_of(rows["responses"].list.get(i)) for i in (0, 1))
    value = np.stack([fit.utilities(overall, at={"axis": axis}) for axis in axes], axis=1)
    x, won = value[left] - value[right], (rows["outcome"] == "left").to_numpy().astype(np.float64)
    known = np.isfinite(x).all(1)
    contexts, code = _named(rows[by].cast(pl.String).to_list(), len(x), by)
    table: list[dict[str, Any]] = []
    for c, name in enumerate(contexts):
        mine = known & (code == c)
        if mine.sum() < 10 * len(axes):
            continue
        prompt = codes_of(rows["prompt"])[mine]
        # without prompts each judgment stands for itself
        beta, se = clustered_logistic(x[mine], won[mine], compact(np.where(prompt < 0, -1 - np.arange(len(prompt)), prompt))[0])
        table.append({"context": name, "n": int(mine.sum())} | {
            axis: {"weight": float(b), "low": float(b - 1.96 * s), "high": float(b + 1.96 * s)} for axis, b, s in zip(axes, beta, se, strict=True)
        })  # fmt: skip
    if not table:
        reason = f"No context has {10 * len(axes)} decided pairs that the fit can place."
        return Finding.not_applicable("trade-offs", "How contexts weigh the axes cannot be told.", reason)
    first = max(table, key=lambda row: row["n"])
    top = {row["context"]: max(axes, key=lambda a: row[a]["weight"]) for row in table}
    switch = any(
        one[a]["low"] > one[b]["high"] and other[b]["low"] > other[a]["high"]
        for one in table for other in table for a in axes for b in axes if a != b
    )  # fmt: skip
    weight = first[top[first["context"]]]
    return Finding(
        code="trade-offs", estimate=weight["weight"], low=weight["low"], high=weight["high"], n=int(known.sum()), unit="logits",
        verdict="notice" if switch else "ok",
        title="; ".join(f"In {c}, {a} weighs most" for c, a in top.items()) + (": the balance depends on the context." if switch else "."),
        reason="Logistic regression of overall choices on the axes' gaps, context by context, clustered by prompt; the estimate is the largest weight in "
        f"{first['context']}. What the axes' values are not sure of biases weights towards 0.",
        remedy="Give each context a charter of its own, or fit with Context." if switch else None, details={"contexts": table},
    )  # fmt: skip
