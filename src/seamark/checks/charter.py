"""What a charter costs whom: regret of groups, fuzzy averages, what other weights and other rules would choose, what nothing settles.

A decision is the choice of the charter's rule among the responses to one prompt. Groups are those of the fit, with what it says each
values; intervals are over prompts, and say nothing of how sure the fit is of a group's values, except where posteriors are named.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from seamark.aggregation.charter import Charter, Rule
from seamark.aggregation.collective import Collective, lay_out, require_meetable, take
from seamark.aggregation.profiles import Profile
from seamark.aggregation.regret import irreconcilable, most_favoured, serve, turned
from seamark.aggregation.rules import Decision, decide, welfare
from seamark.checks.comparisons import codes_of, counted, percent
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import mean, share
from seamark.models.result import Fit
from seamark.records import Feedback

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_CODES = {
    "regret": "What each group loses by the choices cannot be told.",
    "own-favourite": "For how many the choice is their own favourite cannot be told.",
    "compromise": "Whether choices are dominated cannot be told.",
    "weights-turn": "What other weights would choose cannot be told.",
    "rules-turn": "What other rules would choose cannot be told.",
    "unsettled": "Which conflicts no weighting settles cannot be told.",
}
_SHOWN = 20
_MOST = 2000
"""Prompts that are looked at."""
_KEMENY = 8


def check_charter(fit: Fit, charter: Charter, feedback: Feedback, *, seed: int = 0) -> Findings:
    """Who pays for the choices that a charter makes among the responses of a feedback; every code is there, with the reason where it
    cannot be computed.

    Raises
    ------
    InvalidCharter
        If the charter names groups or axes that the fit does not have, or floors that no response meets.
    """
    prompt = codes_of(feedback.responses["prompt"])
    found = Collective.of(fit, charter, feedback)
    require_meetable(found, prompt)
    laid = lay_out(prompt, np.all(np.isfinite(found.by_person), axis=0))
    laid = laid[(laid >= 0).sum(1) > 1] if laid.size else laid
    reason = ""
    if len(found.weights) < 2:
        reason = "The fit has one kind of people: fit with groups (people=Groups(...)) or personas to see who differs."
    elif not len(laid):
        reason = "No prompt has two responses that the fit knows."
    if reason:
        return Findings(tuple(Finding.not_applicable(code, title, reason) for code, title in _CODES.items()))
    n_prompts = len(laid)
    if n_prompts > _MOST:
        laid = laid[np.sort(np.random.default_rng(seed).permutation(n_prompts)[:_MOST])]
    decision = found.decide(laid)
    where = f"{counted(len(laid), 'prompt')}" + (f", drawn at random of {n_prompts:,} (seed {seed})" if len(laid) < n_prompts else "")
    chosen = np.array([s != "no consensus" or lottery.sum() > 0 for s, lottery in zip(decision.status, decision.lottery, strict=True)])
    if not chosen.any():
        reason = f"The rule {charter.rule} chose nothing in {where}."
        return Findings(tuple(Finding.not_applicable(code, title, reason) for code, title in _CODES.items()))
    utilities, lottery, laid = take(found.by_person, laid)[chosen], decision.lottery[chosen], laid[chosen]
    names = ids_of(feedback)
    return Findings(
        (
            _regret(found, utilities, lottery, where, decision),
            _favourite(found, utilities, lottery, where),
            _compromise(found, utilities, where),
            _weights_turn(found, utilities, lottery, laid, names, where),
            _rules_turn(found, laid, where),
            _unsettled(fit, found, feedback, utilities, laid, names, where),
        )
    )


def ids_of(feedback: Feedback) -> list[str]:
    """Ids of the responses."""
    return feedback.responses["id"].to_list()


def _regret(found: Collective, utilities: Floats, lottery: Floats, where: str, decision: Decision) -> Finding:
    regret = serve(utilities, lottery).regret
    rows: list[dict[str, Any]] = []
    for g, name in enumerate(found.names):
        own = mean(regret[:, g])
        rows.append({"group": name, "weight": float(found.weights[g]), "regret": own.estimate, "low": own.low, "high": own.high})
    worst = int(regret.mean(0).argmax())
    undecided = sum(s == "no consensus" for s in decision.status)
    return Finding.of(
        mean(regret[:, worst]), code="regret", unit="logits", verdict="notice" if regret[:, worst].mean() > THRESHOLDS.regret_notice else "ok",
        title=f"By the rule {found.charter.rule}, {found.names[worst]} loses most: {regret[:, worst].mean():.2f} logits a prompt against its own "
        f"favourites; the mean person loses {float(regret.mean(0) @ found.weights):.2f}.",
        reason=f"{where}; the choice's utility to the group, less the best it could have had. Utilities are less the charter's penalty for "
        f"ignorance. In {counted(undecided, 'prompt')} the rule found no consensus.",
        remedy="Compare rules and weights (rules-turn, weights-turn), or set floors.groups." if regret[:, worst].mean() > THRESHOLDS.regret_notice else None,
        details={"groups": rows, "undecided": undecided},
    )  # fmt: skip


def _favourite(found: Collective, utilities: Floats, lottery: Floats, where: str) -> Finding:
    favoured = serve(utilities, lottery).favoured(found.weights)
    could = most_favoured(utilities, found.weights)
    interval = mean(favoured)
    fuzzy = float(could.mean() - favoured.mean())
    return Finding.of(
        interval, code="own-favourite", unit="share", verdict="notice" if fuzzy > THRESHOLDS.fuzzy_notice else "ok",
        title=f"What is chosen is the own favourite of {percent(interval.estimate)} of the people; one choice a prompt could be that of "
        f"{percent(float(could.mean()))}.",
        reason=f"{where}; people are the groups of the fit with their weights. A share far below what is possible is a fuzzy average: what few "
        "would have chosen themselves.",
        remedy="Look at the prompts where it differs most: a rule that follows majorities, or several signals, may serve people better."
        if fuzzy > THRESHOLDS.fuzzy_notice else None,
        details={"possible": float(could.mean())},
    )  # fmt: skip


def _compromise(found: Collective, utilities: Floats, where: str) -> Finding:
    profile = Profile(utilities, found.weights, np.arange(len(found.weights)))
    rows: list[dict[str, Any]] = []
    dominated = np.zeros(len(utilities))
    for rule in _rules(found.charter, utilities.shape[2]):
        outcome = welfare(profile, decide(profile, rule, **_settings(found.charter, rule)))
        served = {"mean": outcome.mean, "worst_group": outcome.worst_group, "nash": outcome.nash}
        rows.append(
            {"rule": rule} | {name: float(np.nanmean(x)) for name, x in served.items()} | {"dominated": int(outcome.dominated.sum())}
        )
        if rule == found.charter.rule:
            dominated = outcome.dominated.astype(float)
    own = next(row for row in rows if row["rule"] == found.charter.rule)
    best = max(rows, key=lambda row: row["worst_group"])
    n = int(dominated.sum())
    return Finding.of(
        share(dominated), code="compromise", unit="share", verdict="warning" if n else "ok",
        title=f"{counted(n, 'choice')} of {len(utilities):,} {'is' if n == 1 else 'are'} dominated: another response is better for every group. "
        f"The worst-off group gets {own['worst_group']:.2f} logits under {own['rule']} and {best['worst_group']:.2f} under {best['rule']}.",
        reason=f"{where}; logits from each group's mean over the responses, the mean over prompts. What is dominated satisfies no one, and no "
        "weighting asks for it.",
        remedy="Use a rule that never chooses what is dominated: expected-utility, maximin or nash." if n else None,
        details={"rules": rows},
    )  # fmt: skip


def _settings(charter: Charter, rule: str) -> dict[str, Any]:
    if rule in ("quantile", "cvar"):
        return {"share": charter.share or 0.1}
    return {"parts": charter.parts} if rule == "mixture" else {}


def _rules(charter: Charter, n_options: int) -> list[str]:
    """The rules that are compared; a mixture only where it is the charter's own."""
    return [
        r for r in get_args(Rule) if (r != "mixture" or charter.rule == r) and (r != "kemeny" or n_options <= _KEMENY or charter.rule == r)
    ]


def _weights_turn(found: Collective, utilities: Floats, lottery: Floats, laid: Codes, names: list[str], where: str) -> Finding:
    if found.charter.rule != "expected-utility":
        return Finding.not_applicable(
            "weights-turn", _CODES["weights-turn"],
            f"It is exact for expected-utility only, where utilities are linear in the weights; the rule is {found.charter.rule}.",
        )  # fmt: skip
    winner, within = lottery.argmax(1), found.charter.electorate.within
    hit, any_hit = turned(utilities, winner, found.weights, within), turned(utilities, winner, found.weights)
    interval = share(hit.astype(float))
    admitted = "of any size" if np.isinf(within) else f"up to {within:g} times larger or smaller"
    return Finding.of(
        interval, code="weights-turn", unit="share", verdict="notice" if interval.estimate > THRESHOLDS.turned_notice else "ok",
        title=f"{counted(int(hit.sum()), 'choice')} of {len(hit):,} ({percent(interval.estimate)}) would be another under weights {admitted}; under any "
        f"weights, {int(any_hit.sum()):,}.",
        reason=f"{where}. Exact: a linear programme over the weights of the groups, which add up to 1.",
        remedy="These choices are the charter's, not the data's: whoever signs it answers for them." if hit.any() else None,
        details={"chosen": [names[laid[i, winner[i]]] for i in np.flatnonzero(hit)], "n_any": int(any_hit.sum())},
    )  # fmt: skip


def _rules_turn(found: Collective, laid: Codes, where: str) -> Finding:
    utilities = take(found.prudent, laid)
    profile = Profile(utilities, found.weights, np.arange(len(found.weights)))
    own = decide(profile, found.charter.rule, **_settings(found.charter, found.charter.rule)).winners
    rows: list[dict[str, Any]] = []
    differ = np.zeros(len(laid), dtype=bool)
    for rule in _rules(found.charter, utilities.shape[2]):
        if rule == found.charter.rule:
            continue
        other = decide(profile, rule, **_settings(found.charter, rule))
        apart = ~(own & other.winners).any(1)
        differ |= apart
        rows.append(
            {"rule": rule, "other": int(apart.sum()), "no_consensus": other.status.count("no consensus"), "tie": other.status.count("tie")}
        )
    interval = share(differ.astype(float))
    most = max(rows, key=lambda row: row["other"])
    return Finding.of(
        interval, code="rules-turn", unit="share", verdict="notice" if interval.estimate > THRESHOLDS.turned_notice else "ok",
        title=f"In {int(differ.sum()):,} of {counted(len(laid), 'prompt')} ({percent(interval.estimate)}) some other rule would choose otherwise than "
        f"{found.charter.rule}; {most['rule']} most often, in {most['other']:,}.",
        reason=f"{where}. Other rules have no winner in common with this one; floors are left out of the comparison.",
        details={"rules": rows},
    )  # fmt: skip


def _unsettled(fit: Fit, found: Collective, feedback: Feedback, utilities: Floats, laid: Codes, names: list[str], where: str) -> Finding:
    code = "unsettled"
    if not fit.knows_ignorance:
        return Finding.not_applicable(code, _CODES[code], "There is no posterior: the fit does not say how sure it is of a group's values.")
    order = np.argsort(-np.einsum("qgm,g->qm", np.nan_to_num(utilities, nan=-np.inf), found.weights), axis=1)
    rows = np.arange(len(laid))
    left, right = laid[rows, order[:, 0]], laid[rows, order[:, 1]]
    p = np.empty((len(laid), len(found.names)))
    charter = found.charter
    for g, name in enumerate(found.names):
        gaps = fit.gaps(feedback, left, right, group_weights={name: 1.0}, without=charter.without(), at=charter.at(fit))
        p[:, g] = ndtr(gaps.mean / np.maximum(gaps.wider, 1e-12))
    hit = irreconcilable(p)
    interval = share(hit.astype(float))
    verdict: Verdict = "notice" if hit.any() else "ok"
    return Finding.of(
        interval, code=code, unit="share", verdict=verdict,
        title=f"In {int(hit.sum()):,} of {counted(len(hit), 'prompt')} ({percent(interval.estimate)}) one group surely prefers the best response to the "
        "next, and another surely the next: no weighting contents both.",
        reason=f"{where}; the two responses that the mean person likes best. Sure is a posterior probability of 97.5% of the group's gap, by the "
        "wider of posterior and sandwich.",
        remedy="Say in the charter how such conflicts are settled, or keep several signals (seamark catalogue)." if hit.any() else None,
        details={"pairs": [[names[left[i]], names[right[i]]] for i in np.flatnonzero(hit)[:_SHOWN]]},
    )  # fmt: skip
