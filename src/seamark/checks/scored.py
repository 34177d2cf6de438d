"""What is wrong with a reward model's answers before anything is made of them: a finding each, never a crash."""

from __future__ import annotations

from seamark.checks.comparisons import counted
from seamark.checks.findings import Finding, Verdict
from seamark.intervals import shown
from seamark.reward.scorers import Scored

_SAME = 1e-3
"""Largest difference, in standard deviations of the scores, that the order of summation makes in float32."""
_EXACT = "An exact count, so there is no interval."
_SHOWN = 3


def check_scored(scored: Scored) -> list[Finding]:
    """Whether the scores can be used: `scorer` says how many there are; then what failed, was infinite, was left out, is the same for all
    texts, or changed when it was asked for again. Blocking where nothing can be told from what is left."""
    n = scored.n_distinct
    usable = n - scored.failed - scored.infinite - scored.abstained
    nothing = usable < 2 or scored.constant
    findings = [_count("scorer", usable, n, f"The reward model scored {usable:,} of {counted(n, 'distinct text')}.", "blocking" if nothing and n else "ok",
        "Look at the findings below: with no scores, or one score for all, there is nothing to check." if nothing else None)]  # fmt: skip
    if scored.failed:
        said = "; ".join(shown(problem) for problem in scored.problems[:_SHOWN])
        ended = " It was asked no more after that." if scored.died else ""
        findings.append(_count("scorer/failed", scored.failed, n, f"For {counted(scored.failed, 'text')} there is no score: {said}.{ended}",
            "blocking" if scored.died else "warning", "Score these texts by hand; then run again: with --cache what was scored is kept."))  # fmt: skip
    elif scored.problems:  # a call for many texts failed, and calls for fewer did not
        said = "; ".join(shown(problem) for problem in scored.problems[:_SHOWN])
        findings.append(_count("scorer/batches", len(scored.problems), n, f"Calls for several texts failed, and their texts were scored in smaller calls: {said}.",
            "warning", "Give one score for each text, in their order: what is scored alone is right only if the scorer reads one text as it reads many."))  # fmt: skip
    if scored.infinite:
        findings.append(_count("scorer/infinite", scored.infinite, n, f"{counted(scored.infinite, 'text')} had an infinite score, which is not used.",
            "warning", "A score must be a finite number: look for an overflow in half precision, or the log of 0."))  # fmt: skip
    if scored.abstained:
        findings.append(_count("scorer/abstained", scored.abstained, n, f"The reward model gave {counted(scored.abstained, 'text')} no score.",
            "warning" if scored.abstained > n / 2 else "notice", "See which these are: a reward that abstains out of its support is right to, a NaN is a fault."))  # fmt: skip
    if scored.constant:
        findings.append(_count("scorer/constant", usable, n, f"All {counted(usable, 'text')} have the same score.", "blocking",
            "Check that the head was loaded, and that it reads the response and not only the prompt."))  # fmt: skip
    if scored.drift > _SAME:
        moved = Finding(
            code="scorer/drift", title=f"Texts that were scored twice differ by up to {scored.drift:.2g} standard deviations of the scores.",
            estimate=scored.drift, n=n, unit="sd", verdict="warning",
            reason="A few texts were scored again in the opposite order. The largest difference among these, so there is no interval.",
            remedy="Switch off dropout (model.eval()) and sampling; pad so that a text's neighbours do not change its score.",
        )  # fmt: skip
        findings.append(moved)
    return findings


def _count(code: str, k: int, n: int, title: str, verdict: Verdict, remedy: str | None) -> Finding:
    return Finding(
        code=code,
        title=title,
        estimate=float(k),
        n=n,
        unit="count",
        verdict=verdict,
        reason=f"n counts distinct texts. {_EXACT}",
        remedy=remedy,
    )
