"""What a charter costs whom: regret of groups, fuzzy averages, what other weights and other rules would choose, what nothing settles.

A decision is the choice of the charter's rule among the responses to one prompt. Groups are those of the fit, with what it says each
values; intervals are over prompts, and say nothing of how sure the fit is of a group's values, except where posteriors are named.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_SEARCH = ("kemeny", "ranked-pairs", "instant-runoff")
"""Rules whose ties or orders are searched, which takes long with many options."""
_FEW = 8
_SHARE = 0.1
"""Of quantile and cvar, where they are compared and the charter has no share; the finding says it."""


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
    if len(fit.groups) < 2:
        return _untold("The fit has one kind of people: fit with groups (people=Groups(...)) or personas to see who differs.")
    if not len(laid):
        return _untold("No prompt has two responses that the fit knows.")
    n_prompts = len(laid)
    if n_prompts > _MOST:
        laid = laid[np.sort(np.random.default_rng(seed).permutation(n_prompts)[:_MOST])]
    decision = found.decide(laid)
    where = f"{counted(len(laid), 'prompt')}" + (f", drawn at random of {n_prompts:,} (seed {seed})" if len(laid) < n_prompts else "")
    chosen = decision.lottery.sum(1) > 0
    if not chosen.any():
        return _untold(f"The rule {charter.rule} chose nothing in {where}.")
    # what the rule sees: utilities less the penalty, of what meets the floors
    utilities = take(found.prudent, laid)
    utilities = np.where(((laid >= 0) & found.vetoed[laid])[:, None, :], np.nan, utilities)
    here = _Here(found, laid[chosen], utilities[chosen], decision.lottery[chosen], ids_of(feedback), where)
    return Findings(
        (
            _regret(here, decision), _favourite(here), _compromise(here), _weights_turn(here), _rules_turn(here), _unsettled(here, fit, feedback),
        )
    )  # fmt: skip


def _untold(reason: str) -> Findings:
    return Findings(tuple(Finding.not_applicable(code, title, reason) for code, title in _CODES.items()))


@dataclass(frozen=True)
class _Here:
    """Prompts in which something was chosen."""

    found: Collective
    laid: Codes
    """(Q, M) responses."""
    utilities: Floats
    """(Q, G, M) what the rule sees."""
    lottery: Floats
    names: list[str]
    where: str

    @property
    def profile(self) -> Profile:
        return Profile(self.utilities, self.found.weights, np.arange(len(self.found.weights)))

    def by(self, rule: str) -> Decision:
        """What another rule would choose, or this one."""
        charter = self.found.charter
        settings: dict[str, Any] = (
            {"share": charter.share or _SHARE} if rule in ("quantile", "cvar") else {"parts": charter.parts} if rule == "mixture" else {}
        )
        return decide(self.profile, rule, **settings)

    @property
    def rules(self) -> list[str]:
        """The rules that are compared: a mixture only where it is the charter's own, and those that search orders where there are few options."""
        few = self.utilities.shape[2] <= _FEW
        own = self.found.charter.rule
        return [r for r in get_args(Rule) if r == own or (r != "mixture" and (few or r not in _SEARCH))]


def ids_of(feedback: Feedback) -> list[str]:
    """Ids of the responses."""
    return feedback.responses["id"].to_list()


def _regret(here: _Here, decision: Decision) -> Finding:
    found, regret = here.found, serve(here.utilities, here.lottery).regret
    rows: list[dict[str, Any]] = []
    for g, name in enumerate(found.names):
        own = mean(regret[:, g])
        low, high = own.ends
        rows.append({"group": name, "weight": float(found.weights[g]), "regret": own.estimate, "low": low, "high": high})
    worst = int(regret.mean(0).argmax())
    undecided = sum(s == "no consensus" for s in decision.status)
    high = regret[:, worst].mean() > THRESHOLDS.regret_notice
    out = "" if found.weights[worst] > 0 else ", which does not count in the electorate,"
    return Finding.of(
        mean(regret[:, worst]), code="regret", unit="logits", verdict="notice" if high else "ok",
        title=f"By the rule {found.charter.rule}, {found.names[worst]}{out} loses most: {regret[:, worst].mean():.2f} logits a prompt against its own "
        f"favourites; the mean person of the electorate loses {float(regret.mean(0) @ found.weights):.2f}.",
        reason=f"{here.where}; the choice's utility to the group, less the best it could have had, among responses that meet the floors. In "
        f"{counted(undecided, 'prompt')} the rule found no consensus.",
        remedy="Compare rules and weights (rules-turn, weights-turn), or set floors.groups." if high else None,
        details={"groups": rows, "undecided": undecided},
    )  # fmt: skip


def _favourite(here: _Here) -> Finding:
    weights = here.found.weights
    favoured, could = serve(here.utilities, here.lottery).favoured(weights), most_favoured(here.utilities, weights)
    interval = mean(favoured)
    fuzzy = float(could.mean() - favoured.mean()) > THRESHOLDS.fuzzy_notice
    return Finding.of(
        interval, code="own-favourite", unit="share", verdict="notice" if fuzzy else "ok",
        title=f"What is chosen is the own favourite of {percent(interval.estimate)} of the people; one choice a prompt could be that of "
        f"{percent(float(could.mean()))}.",
        reason=f"{here.where}; people are the groups of the fit with their weights, and favourites are among responses that meet the floors. A share "
        "far below what is possible is a fuzzy average: what few would have chosen themselves.",
        remedy="Look at the prompts where it differs most: a rule that follows majorities, or several signals, may serve people better."
        if fuzzy else None,
        details={"possible": float(could.mean())},
    )  # fmt: skip


def _compromise(here: _Here) -> Finding:
    own_rule = here.found.charter.rule
    rows: list[dict[str, Any]] = []
    dominated = np.zeros(len(here.utilities))
    for rule in here.rules:
        outcome = welfare(here.profile, here.by(rule), reference="given")
        served = {"mean": outcome.mean, "worst_group": outcome.worst_group, "nash": outcome.nash}
        rows.append(
            {"rule": rule} | {name: float(np.nanmean(x)) if np.isfinite(x).any() else None for name, x in served.items()}
            | {"dominated": int(outcome.dominated.sum())}
        )  # fmt: skip
        if rule == own_rule:
            dominated = outcome.dominated.astype(float)
    own = next(row for row in rows if row["rule"] == own_rule)
    best = max((row for row in rows if row["worst_group"] is not None), key=lambda row: row["worst_group"])
    n = int(dominated.sum())
    return Finding.of(
        share(dominated), code="compromise", unit="share", verdict="warning" if n else "ok",
        title=f"{counted(n, 'choice')} of {len(dominated):,} {'is' if n == 1 else 'are'} dominated: another response is better for every group. "
        f"The worst-off group gets {own['worst_group']:.2f} logits under {own_rule} and {best['worst_group']:.2f} under {best['rule']}.",
        reason=f"{here.where}, the mean over prompts; logits from the average training response, which is no zero that groups share: a group that thinks "
        f"less of everything looks worse off. Of quantile and cvar the share is {here.found.charter.share or _SHARE}. What is dominated satisfies no "
        "one, and no weighting asks for it.",
        remedy="Use a rule that never chooses what is dominated: expected-utility, maximin or nash." if n else None, details={"rules": rows},
    )  # fmt: skip


def _weights_turn(here: _Here) -> Finding:
    found = here.found
    if found.charter.rule != "expected-utility":
        return Finding.not_applicable(
            "weights-turn", _CODES["weights-turn"],
            f"It is worked out for expected-utility only, where utilities are linear in the weights; the rule is {found.charter.rule}.",
        )  # fmt: skip
    winner, within = here.lottery.argmax(1), found.charter.electorate.within
    hit, any_hit = turned(here.utilities, winner, found.weights, within), turned(here.utilities, winner, found.weights)
    interval = share(hit.astype(float))
    admitted = "of any size" if np.isinf(within) else f"up to {within:g} times larger or smaller"
    many = interval.estimate > THRESHOLDS.turned_notice
    return Finding.of(
        interval, code="weights-turn", unit="share", verdict="notice" if many else "ok",
        title=f"{counted(int(hit.sum()), 'choice')} of {len(hit):,} ({percent(interval.estimate)}) would be another under weights {admitted}; under any "
        f"weights, {int(any_hit.sum()):,}.",
        reason=f"{here.where}; a linear programme over the weights of all groups of the fit, which add up to 1. The penalty for ignorance stays that of "
        "the charter's weights.",
        remedy="These choices are the charter's, not the data's: whoever signs it answers for them." if hit.any() else None,
        details={"chosen": [here.names[here.laid[i, winner[i]]] for i in np.flatnonzero(hit)], "n_any": int(any_hit.sum())},
    )  # fmt: skip


def _rules_turn(here: _Here) -> Finding:
    own_rule = here.found.charter.rule
    own = here.lottery > 0
    rows: list[dict[str, Any]] = []
    differ = np.zeros(len(own), dtype=bool)
    for rule in here.rules:
        if rule == own_rule:
            continue
        other = here.by(rule)
        apart = ~np.any(own & other.winners, axis=1)
        differ |= apart
        rows.append(
            {"rule": rule, "other": int(apart.sum()), "no_consensus": other.status.count("no consensus"), "tie": other.status.count("tie")}
        )
    left_out = [r for r in _SEARCH if r not in here.rules]
    interval = share(differ.astype(float))
    most = max(rows, key=lambda row: row["other"])
    return Finding.of(
        interval, code="rules-turn", unit="share", verdict="notice" if interval.estimate > THRESHOLDS.turned_notice else "ok",
        title=f"In {int(differ.sum()):,} of {counted(len(own), 'prompt')} ({percent(interval.estimate)}) some other rule would choose otherwise than "
        f"{own_rule}; {most['rule']} most often, in {most['other']:,}.",
        reason=f"{here.where}, with the charter's floors and penalty. Otherwise is no winner in common."
        + (f" With more than {_FEW} responses to a prompt {', '.join(left_out)} were not tried." if left_out else ""),
        details={"rules": rows},
    )  # fmt: skip


def _unsettled(here: _Here, fit: Fit, feedback: Feedback) -> Finding:
    code = "unsettled"
    charter = here.found.charter
    if not fit.knows_ignorance:
        return Finding.not_applicable(code, _CODES[code], "There is no posterior: the fit does not say how sure it is of a group's values.")
    liked = np.where(np.isfinite(here.utilities[:, 0]), np.einsum("qgm,g->qm", here.utilities, here.found.weights), -np.inf)
    order = np.argsort(-liked, axis=1)
    rows = np.arange(len(order))
    two = np.isfinite(liked[rows, order[:, 1]])
    if not two.any():
        return Finding.not_applicable(code, _CODES[code], "No prompt has two responses that meet the floors.")
    left, right = here.laid[rows, order[:, 0]][two], here.laid[rows, order[:, 1]][two]
    p = np.empty((len(left), len(here.found.names)))
    for g, name in enumerate(here.found.names):
        gaps = fit.gaps(feedback, left, right, group_weights={name: 1.0}, without=charter.without(), at=charter.at(fit))
        p[:, g] = ndtr(gaps.mean / np.maximum(gaps.wider, 1e-12))
    hit = irreconcilable(p, rate=THRESHOLDS.false_discoveries)
    interval = share(hit.astype(float))
    verdict: Verdict = "notice" if hit.any() else "ok"
    return Finding.of(
        interval, code=code, unit="share", verdict=verdict,
        title=f"In {int(hit.sum()):,} of {counted(len(hit), 'prompt')} ({percent(interval.estimate)}) one group surely prefers the best response to the "
        "next, and another surely the next: no weighting contents both.",
        reason=f"{here.where}; the two responses that the mean person likes best. Sure is by the posterior of each group's gap (the wider of posterior and "
        f"sandwich), at a false discovery rate of {percent(THRESHOLDS.false_discoveries)} over prompts, corrected for the number of groups.",
        remedy="Say in the charter how such conflicts are settled, or keep several signals (seamark catalogue)." if hit.any() else None,
        details={"pairs": [[here.names[left[i]], here.names[right[i]]] for i in np.flatnonzero(hit)[:_SHOWN]]},
    )  # fmt: skip
