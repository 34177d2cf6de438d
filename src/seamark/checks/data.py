"""`diagnose`: is this data fit to learn from? What is there, what is missing, and every check on data in order.

Every judgment counts once here; `weight` belongs to the fit.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.agreement import check_agreement, check_ceiling, check_self_agreement
from seamark.checks.change import check_change
from seamark.checks.comparisons import (
    Codes,
    Comparisons,
    bracket,
    codes_of,
    combine,
    compact,
    compare,
    counted,
    percent,
    question_units,
)
from seamark.checks.confounds import check_length, check_position, check_style
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.graph import check_connectivity, check_intransitivity
from seamark.checks.repeats import check_duplicates, check_identical_pairs, check_ids, check_leakage, check_near_duplicates, text_keys
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import clustered_share
from seamark.records import COLUMNS, Feedback

_COUNTED = "An exact count over the data, so there is no interval."
_SHOWN = 12
_TENTH = 10
"""With fewer there is no tenth of them."""


def diagnose(feedback: Feedback, *, held_out: Feedback | None = None, seed: int = 0) -> Findings:
    """What the data can and cannot say, as findings.

    Parameters
    ----------
    feedback : the judgments to learn from.
    held_out : the judgments kept for evaluation, to look for leakage.
    seed : for the checks that draw a bounded sample or a bootstrap; each says so.

    Examples
    --------
    >>> from seamark.records import Feedback
    >>> two = Feedback.from_columns({"kind": ["pair"] * 2, "prompt": ["Why?"] * 2, "texts": [["a", "bb"]] * 2,
    ...                              "outcome": ["left", "right"], "rater": ["r1", "r2"]})
    >>> diagnose(two).get("ceiling").estimate
    0.0
    """
    comparisons = compare(feedback, seed=seed)
    keys = text_keys(feedback.responses["text"])
    return Findings(
        (
            *check_coverage(feedback, comparisons=comparisons),
            check_missing_fields(feedback),
            check_source(feedback),
            *check_ties(feedback),
            *check_agreement(feedback, comparisons=comparisons, seed=seed),
            check_ceiling(feedback, comparisons=comparisons, seed=seed),
            *check_self_agreement(feedback, comparisons=comparisons, seed=seed),
            *check_position(feedback),
            *check_length(feedback, comparisons=comparisons, seed=seed),
            check_style(feedback, comparisons=comparisons, seed=seed),
            *check_connectivity(feedback, comparisons=comparisons, seed=seed),
            check_intransitivity(feedback, comparisons=comparisons, seed=seed),
            *check_change(feedback, comparisons=comparisons, seed=seed),
            check_duplicates(feedback, comparisons=comparisons),
            check_near_duplicates(feedback, keys=keys, seed=seed),
            check_ids(feedback),
            check_identical_pairs(feedback, keys=keys),
            *check_leakage(feedback, held_out, seed=seed),
        )
    ).with_access("outside-the-box")


# ---------------------------------------------------------------------------------------------- coverage


def _histogram(counts: NDArray[np.int64]) -> dict[str, int]:
    """How many units have 1, 2, ... 9, 10 or more."""
    binned = np.bincount(np.minimum(counts, 10), minlength=11)
    return {("10+" if i == 10 else str(i)): int(binned[i]) for i in range(11) if binned[i]}


def check_coverage(feedback: Feedback, *, comparisons: Comparisons | None = None) -> list[Finding]:
    """How much there is of everything, and how unevenly it is spread."""
    frame = feedback.judgments
    prompt, rater = codes_of(frame["prompt"]), codes_of(frame["rater"])
    unit, n_units = compact(question_units(feedback) if comparisons is None else comparisons.question)
    per_unit = np.bincount(unit, minlength=n_units)
    n = feedback.n_judgments
    mean = n / n_units
    parts = [counted(n, "judgment"), counted(feedback.n_responses, "response")]
    parts += [counted(size, noun) for size, noun in ((feedback.n_prompts, "prompt"), (feedback.n_raters, "rater")) if size]
    once = float((per_unit == 1).mean())
    details: dict[str, object] = {
        "judgments_per_question": _histogram(per_unit),
        "kinds": dict(frame["kind"].cast(pl.String).value_counts(sort=True).iter_rows()),
    }
    return [
        Finding(
            code="coverage",
            title=f"{', '.join(parts)}; {mean:.1f} judgments per question on average, {percent(once)} of questions have one.",
            estimate=mean,
            n=n_units,
            unit="judgments per question",
            reason=f"n counts questions: same prompt, responses, axis and kind. {_COUNTED}",
            details=details,
        ),
        _prompt_coverage(feedback, prompt),
        _response_coverage(feedback),
        *_rater_coverage(feedback, rater, unit, n_units),
    ]


def _prompt_coverage(feedback: Feedback, prompt: Codes) -> Finding:
    known = prompt[prompt >= 0]
    if not len(known):
        return Finding.not_applicable("coverage/prompts", "How narrow the prompts are cannot be measured.", "No judgment has a prompt.")
    per_prompt = np.bincount(known)
    counts = np.sort(per_prompt[per_prompt > 0])[::-1]
    tenth = max(1, round(0.1 * len(counts)))
    top = float(counts[:tenth].sum() / counts.sum())
    effective = float(counts.sum() ** 2 / (counts.astype(np.float64) ** 2).sum())
    narrow = len(counts) >= _TENTH and top > THRESHOLDS.narrow_notice
    few = effective < THRESHOLDS.few_prompts_notice
    largest = np.argsort(-per_prompt, kind="stable")[:_SHOWN]
    ids = feedback.prompts["id"].to_list()
    return Finding(
        code="coverage/prompts",
        title="All judgments are about one prompt."
        if len(counts) == 1
        else f"The judgments are about {len(counts):,} prompts, worth {effective:,.1f} equally frequent ones; the largest "
        f"{'tenth ' if len(counts) >= _TENTH else ''}has {percent(top)} of the judgments.",
        estimate=effective,
        n=len(known),
        unit="prompts",
        verdict="notice" if narrow or few else "ok",
        reason=f"Effective number (sum n)^2 / sum n^2; n counts judgments with a prompt, {int((prompt < 0).sum()):,} have none. {_COUNTED}",
        remedy="Conclusions hold for these prompts: collect others before relying on them elsewhere." if narrow or few else None,
        details={
            "share_largest_tenth": top,
            "judgments_per_prompt": _histogram(counts),
            "largest": [{"prompt": ids[i], "n": int(per_prompt[i])} for i in largest if per_prompt[i]],
        },
    )


def _response_coverage(feedback: Feedback) -> Finding:
    shown = codes_of(feedback.judgments["responses"].explode())
    per_response = np.bincount(shown, minlength=feedback.n_responses)
    home = codes_of(feedback.responses["prompt"])
    details: dict[str, object] = {"judgments_per_response": _histogram(per_response)}
    words = f"A response is judged {per_response.mean():.1f} times on average"
    if (home >= 0).any():
        per_prompt = np.bincount(home[home >= 0])
        per_prompt = per_prompt[per_prompt > 0]
        details["responses_per_prompt"] = _histogram(per_prompt)
        words += f"; a prompt has {per_prompt.mean():.1f} responses"
    few = float((per_response == 1).mean())
    return Finding(
        code="coverage/responses",
        title=f"{words}; {percent(few)} of responses are judged once.",
        estimate=float(per_response.mean()),
        n=feedback.n_responses,
        unit="judgments per response",
        reason=f"n counts distinct responses. {_COUNTED}",
        details=details,
    )


def _rater_coverage(feedback: Feedback, rater: Codes, unit: Codes, n_units: int) -> list[Finding]:
    known = rater[rater >= 0]
    if not len(known):
        why = "The data has no rater ids."
        return [
            Finding.not_applicable(
                "coverage/raters", "How the judgments are spread over raters is not known.", why, remedy="Record a rater id."
            )
        ]
    counts = np.bincount(known, minlength=feedback.n_raters)
    ordered = np.sort(counts)[::-1]
    tenth = max(1, round(0.1 * len(ordered)))
    top = float(ordered[:tenth].sum() / ordered.sum())
    few = int((counts < THRESHOLDS.few_judgments).sum())
    seats = np.unique(combine(unit[rater >= 0], known), return_index=True)[1]
    per_unit = np.bincount(unit[rater >= 0][seats], minlength=n_units)
    per_unit = per_unit[per_unit > 0]
    dominated = len(ordered) >= _TENTH and top > THRESHOLDS.top_raters_notice
    ids = feedback.raters["id"].to_list()
    verdict: Verdict = "notice" if dominated or feedback.n_raters == 1 else "ok"
    most_active = (
        f"tenth of raters ({tenth:,} of {feedback.n_raters:,})" if feedback.n_raters >= _TENTH else f"of {feedback.n_raters} raters"
    )
    one = (
        "One rater gave all judgments" if feedback.n_raters == 1 else f"The most active {most_active} gave {percent(top)} of the judgments"
    )
    return [
        Finding(
            code="coverage/raters",
            title=f"{one}; {counted(few, 'rater')} gave fewer than {THRESHOLDS.few_judgments}; a question has "
            f"{per_unit.mean():.1f} raters on average.",
            estimate=top,
            n=len(known),
            unit="share",
            verdict=verdict,
            reason=f"n counts judgments with a rater id, {int((rater < 0).sum()):,} have none. {_COUNTED}",
            remedy="What is learned is the standard of these few: weight raters by the charter, or ask others."
            if verdict != "ok"
            else None,
            details={
                "n_few": few,
                "raters_per_question": _histogram(per_unit),
                "largest": [{"rater": ids[i], "n": int(counts[i])} for i in np.argsort(-counts, kind="stable")[:_SHOWN]],
            },
        )
    ]


# ---------------------------------------------------------------------------------------------- fields that are not there

_RULED_OUT: dict[str, tuple[tuple[str, ...], str]] = {
    "rater": ((), "reliability of raters, agreement between them, and telling noise from disagreement"),
    "prompt": ((), "held-out prompts, and whether the prompts are narrow"),
    "texts": ((), "length, style, and any utility that is read from the text"),
    "order_known": (("pair", "choice"), "whether the response shown first is favoured"),
    "time": ((), "drift of the raters' standard, and splits by time"),
    "seconds": ((), "haste: whether quick answers are noisier"),
    "session": ((), "fatigue within a sitting"),
    "group": ((), "disagreement between groups, and who loses under a common reward"),
    "models": ((), "whether the source model is favoured, and splits by source"),
    "confidence": ((), "whether raters know when they are unsure"),
    "strength": (("pair",), "how much better the preferred response is"),
    "axis": ((), "which value a judgment is about"),
    "scale_low": (("rating",), "where the ends of the scale lie"),
    "guideline_version": ((), "changes of the guideline"),
    "ui_version": ((), "changes of the interface"),
    "rationale": ((), "the reasons raters gave"),
}


def check_missing_fields(feedback: Feedback) -> Finding:
    """Which fields the data does not have, and what that rules out."""
    kinds = set(feedback.judgments["kind"].cast(pl.String).unique().to_list())
    known = {name: _share_known(feedback, name) for name in COLUMNS if name not in ("line", "kind", "outcome")}
    absent = [name for name, share in known.items() if share == 0]
    missing: list[dict[str, str]] = []
    for name, (only, consequence) in _RULED_OUT.items():
        gone = known[name] == 0 and not (name == "prompt" and known["prompt_id"] > 0)
        if gone and (not only or kinds & set(only)):
            missing.append({"field": name, "rules_out": consequence})
    words = "; ".join(f"{m['field']} (rules out {m['rules_out']})" for m in missing[:3])
    rest = f"; and {', '.join(m['field'] for m in missing[3:])}" if len(missing) > 3 else ""
    title = f"The data does not say {words}{rest}." if missing else "No field that a check needs is missing."
    return Finding(
        code="missing-fields",
        title=title,
        estimate=float(len(missing)),
        n=len(known),
        unit="count",
        verdict="notice" if missing else "ok",
        reason="Fields that no judgment has; nothing is filled in for them. A list of facts: no interval.",
        remedy="Collect these fields, if the question needs them." if missing else None,
        details={"missing": missing, "absent": absent, "partly_known": {name: share for name, share in known.items() if 0 < share < 1}},
    )


def check_source(feedback: Feedback) -> Finding:
    """What was noted while reading: byte order mark, line ends, columns that are not used, records left out."""
    notes, skipped = feedback.report.notes, feedback.report.skipped
    said = [*([f"{counted(len(skipped), 'record')} left out"] if skipped else []), *notes]
    more = f"; and {counted(len(said) - 3, 'more note')}" if len(said) > 3 else ""
    return Finding(
        code="missing-fields/source",
        title=f"While reading: {'; '.join(said[:3])}{more}." if said else "Nothing was out of the ordinary while reading.",
        estimate=float(len(notes) + len(skipped)),
        n=feedback.n_judgments + len(skipped),
        unit="count",
        verdict="notice" if said else "ok",
        reason="Notes of the reader and records left out; n counts judgments and records left out. A list of facts: no interval.",
        remedy="Check that nothing was left out or misread that you need." if said else None,
        details={"notes": list(notes), "skipped": list(skipped[:_SHOWN]), "n_skipped": len(skipped)},
    )


def _share_known(feedback: Feedback, name: str) -> float:
    """The share of judgments (responses, prompts, raters) for which a field is known."""
    tables = {
        "prompt": (feedback.prompts, "text"),
        "prompt_is_messages": (feedback.prompts, "is_messages"),
        "prompt_id": (feedback.prompts, "name"),
        "texts": (feedback.responses, "text"),
        "ids": (feedback.responses, "name"),
        "acts": (feedback.responses, "act"),
        "revisions_of": (feedback.responses, "revision_of"),
        "rater_kind": (feedback.raters, "kind"),
        "rater_profile": (feedback.raters, "profile"),
    }
    if name == "order_known":  # false says that the order is not known
        return float(feedback.judgments["order_known"].fill_null(False).sum()) / feedback.n_judgments
    table, column = tables.get(name, (feedback.judgments, name))
    return 1 - table[column].null_count() / table.height if table.height else 0.0


# ---------------------------------------------------------------------------------------------- answers without a winner

_UNDECIDED = {
    "ties": ("tie", "Ties"),
    "ties/both_bad": ("both_bad", "Both bad"),
    "ties/cannot_tell": ("cannot_tell", "Cannot tell"),
    "ties/skipped": ("skipped", "Skipped"),
}


def check_ties(feedback: Feedback) -> list[Finding]:
    """The shares of pairs that ended in a tie, in both bad, in cannot tell, and that were skipped."""
    pairs = feedback.judgments.filter(pl.col("kind").cast(pl.String) == "pair")
    if not pairs.height:
        return [Finding.not_applicable("ties", "There are no ties to count.", "No judgment compares a pair.")]
    clusters = {"rater": codes_of(pairs["rater"]), "prompt": codes_of(pairs["prompt"])}
    said = pairs["outcome"].cast(pl.String)
    out: list[Finding] = []
    for code, (outcome, words) in _UNDECIDED.items():
        hits = (said == outcome).to_numpy().astype(np.float64)
        if not hits.any():
            out.append(
                Finding(
                    code=code,
                    title=f"{words}: none of {counted(pairs.height, 'pair')}.",
                    estimate=0.0,
                    n=pairs.height,
                    unit="share",
                    reason="n counts judgments of pairs. Whether the interface offered this answer is not in the "
                    "data, so there is no interval.",
                )
            )
            continue
        interval, clustering = clustered_share(hits, clusters)
        many = interval.estimate > THRESHOLDS.undecided_notice
        every = bool(hits.all())
        out.append(
            Finding.of(
                interval,
                code=code,
                title=f"{words}: {percent(interval.estimate)} {bracket(interval)} of {counted(pairs.height, 'pair')}.",
                unit="share",
                verdict="warning" if every else "notice" if many else "ok",
                reason=f"n counts judgments of pairs; {clustering}.",
                remedy="No pair says which response is better: check which column holds the answer, and what its values mean."
                if every
                else "Keep these answers: the default fit has ties as an answer of their own, and what is left out of a fit is counted there."
                if many
                else None,
            )
        )
    return out
