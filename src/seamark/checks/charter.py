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
from seamark.aggregation.regret import contested, most_favoured, serve, turned
from seamark.aggregation.rules import Decision, decide, welfare
from seamark.checks.comparisons import codes_of, counted, percent
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import beginning, mean, share
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
    itself = (_expiry(charter), _inferred(fit, charter))
    laid = lay_out(prompt, np.all(np.isfinite(found.by_person), axis=0))
    laid = laid[(laid >= 0).sum(1) > 1] if laid.size else laid
    if len(fit.groups) < 2:
        return _untold(itself, "The fit has one kind of people: fit with groups (people=Groups(...)) or personas to see who differs.")
    if not len(laid):
        return _untold(itself, "No prompt has two responses that the fit knows.")
    n_prompts = len(laid)
    if n_prompts > _MOST:
        laid = laid[np.sort(np.random.default_rng(seed).permutation(n_prompts)[:_MOST])]
    decision = found.decide(laid)
    where = f"{counted(len(laid), 'prompt')}" + (f", drawn at random of {n_prompts:,} (seed {seed})" if len(laid) < n_prompts else "")
    chosen = decision.lottery.sum(1) > 0
    if not chosen.any():
        return _untold(itself, f"The rule {charter.rule} chose nothing in {where}.")
    # what the rule sees: utilities less the penalty, of what meets the floors
    utilities = take(found.prudent, laid)
    utilities = np.where(((laid >= 0) & found.vetoed[laid])[:, None, :], np.nan, utilities)
    texts = feedback.responses["text"].to_list()
    here = _Here(found, fit.inferred, laid[chosen], utilities[chosen], decision.lottery[chosen], ids_of(feedback), texts, where)
    unsettled = _unsettled(fit, found, laid, feedback, where)
    return Findings(
        (*itself, _regret(here, decision), _favourite(here), _compromise(here), _weights_turn(here), _rules_turn(here), unsettled)
    ).with_access("white-box")


def _untold(itself: tuple[Finding, ...], reason: str) -> Findings:
    return Findings((*itself, *(Finding.not_applicable(code, title, reason) for code, title in _CODES.items()))).with_access("white-box")


def _expiry(charter: Charter) -> Finding:
    if not charter.valid_until:
        title = "The charter has no last day: a reward under it does not expire."
    else:
        title = f"The charter {'was' if charter.expired else 'is'} valid until {charter.valid_until}{', which has passed' if charter.expired else ''}."
    return Finding(
        code="expiry", title=title, verdict="blocking" if charter.expired else "ok", reason="Read in the charter; nothing is estimated.",
        remedy="Fit current feedback and sign a charter with a new valid_until: nothing is exported or scored after it." if charter.expired else None,
        details={"charter": charter.title, "hash": charter.hash, "signature": charter.signature, "valid_until": charter.valid_until},
    )  # fmt: skip


def _inferred(fit: Fit, charter: Charter) -> Finding:
    code = "inferred-groups"
    if len(fit.groups) < 2:
        return Finding.not_applicable(
            code, "Whether a group counts that nobody speaks for cannot be told.", "The fit has one kind of people."
        )
    found = charter.inferred(fit)
    weight = sum(found.values())
    title = (
        f"{counted(len(found), 'group')} that {'counts has' if len(found) == 1 else 'count have'} no rater: "
        f"{', '.join(sorted(found, key=lambda name: -found[name])[:5])}{', ...' if len(found) > 5 else ''}, {percent(weight)} of the electorate. What "
        f"{'it values' if len(found) == 1 else 'they value'} is inferred from the others."
        if found
        else "Every group that counts has raters."
    )
    return Finding(
        code=code, title=title, estimate=weight, n=len(fit.groups), unit="share", verdict="warning" if found else "ok", details={"groups": found},
        reason="n counts groups of the fit. What a cell without raters values is added up from those of its columns, that is from other people's "
        "answers; it is a weight, and has no interval.",
        remedy="Ask people of these cells, or leave them out of the electorate and say so in the charter." if found else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Here:
    """Prompts in which something was chosen."""

    found: Collective
    inferred: tuple[str, ...]
    """Groups that no rater is of."""
    laid: Codes
    """(Q, M) responses."""
    utilities: Floats
    """(Q, G, M) what the rule sees."""
    lottery: Floats
    names: list[str]
    texts: list[str | None]
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
    def said_of_share(self) -> str:
        """By which share quantile and cvar are compared, and who set it."""
        own = self.found.charter.share
        return f" Of quantile and cvar the share is {own or _SHARE}{', of the charter' if own else ', which the charter does not set'}."

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
        row = {"group": name, "weight": float(found.weights[g]), "regret": own.estimate, "low": low, "high": high}
        rows.append(row | {"inferred": name in here.inferred})
    worst = int(regret.mean(0).argmax())
    undecided = sum(s == "no consensus" for s in decision.status)
    high = regret[:, worst].mean() > THRESHOLDS.regret_notice
    out = "" if found.weights[worst] > 0 else ", which does not count in the electorate,"
    if found.names[worst] in here.inferred:
        out = f", whose values are inferred from others{out or ','}"
    return Finding.of(
        mean(regret[:, worst]), code="regret", unit="logits", verdict="notice" if high else "ok",
        title=f"By the rule {found.charter.rule}, {found.names[worst]}{out} loses most: {regret[:, worst].mean():.2f} logits a prompt against its own "
        f"favourites; the mean person of the electorate loses {float(regret.mean(0) @ found.weights):.2f}.",
        reason=f"{here.where}; the choice's utility to the group, less the best it could have had, among responses that meet the floors. In "
        f"{counted(undecided, 'prompt')} the rule found no consensus."
        + (f" Inferred from other groups, having no rater: {', '.join(here.inferred)}." if here.inferred else ""),
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
    dominated, tied = np.zeros(len(here.utilities)), 0
    for rule in here.rules:
        decision = here.by(rule)
        outcome = welfare(here.profile, decision, reference="given")
        served = {"mean": outcome.mean, "worst_group": outcome.worst_group, "nash": outcome.nash}
        rows.append(
            {"rule": rule} | {name: float(np.nanmean(x)) if np.isfinite(x).any() else None for name, x in served.items()}
            | {"dominated": int(outcome.dominated.sum())}
        )  # fmt: skip
        if rule == own_rule:
            dominated = outcome.dominated.astype(float)
            tied = sum(status == "tie" for status, hit in zip(decision.status, outcome.dominated, strict=True) if hit)
    own = next(row for row in rows if row["rule"] == own_rule)
    best = max((row for row in rows if row["worst_group"] is not None), key=lambda row: row["worst_group"])
    n = int(dominated.sum())
    by_lot = f" ({tied:,} of them by the lot among winners that are tied)" if tied else ""
    gains = best["worst_group"] - own["worst_group"] >= 0.005  # less is no difference in the figures shown
    return Finding.of(
        share(dominated), code="compromise", unit="share", verdict="warning" if n else "ok",
        title=f"{counted(n, 'choice')} of {len(dominated):,} {'is' if n == 1 else 'are'} dominated{by_lot}: another response is better for every "
        f"group. The worst-off group gets {own['worst_group']:.2f} logits under {own_rule}"
        + (f" and {best['worst_group']:.2f} under {best['rule']}." if gains else ", and no more under any other rule."),
        reason=f"{here.where}, the mean over prompts; logits from the average training response, which is no zero that groups share: a group that thinks "
        f"less of everything looks worse off.{here.said_of_share} What is dominated satisfies no one, and no weighting asks for it.",
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
        details={
            "chosen": [here.names[response] for response in here.laid[hit, winner[hit]].tolist()],
            "texts": [None if (text := here.texts[response]) is None else beginning(text) for response in here.laid[hit, winner[hit]].tolist()],
            "n_any": int(any_hit.sum()),
        },
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
        f"{own_rule}" + (f"; {most['rule']} most often, in {most['other']:,}." if most["other"] else "."),
        reason=f"{here.where}, with the charter's floors and penalty. Otherwise is no winner in common.{here.said_of_share}"
        + (f" With more than {_FEW} responses to a prompt {', '.join(left_out)} were not tried." if left_out else ""),
        details={"rules": rows},
    )  # fmt: skip


def _unsettled(fit: Fit, found: Collective, laid: Codes, feedback: Feedback, where: str) -> Finding:
    code = "unsettled"
    charter = found.charter
    if not fit.knows_ignorance:
        return Finding.not_applicable(code, _CODES[code], "There is no posterior: the fit does not say how sure it is of a group's values.")
    there = (laid >= 0) & ~found.vetoed[laid]
    laid, there = laid[there.sum(1) > 1], there[there.sum(1) > 1]
    asked = [(g, name) for g, name in enumerate(found.names) if name not in fit.inferred]
    if not len(laid) or len(asked) < 2:
        what = "No prompt has two responses that meet the floors." if len(asked) > 1 else "Fewer than two groups have raters."
        return Finding.not_applicable(code, _CODES[code], what)
    tail = np.where(there, 1.0, np.nan)
    favourites = np.empty((len(laid), len(asked)), dtype=np.int64)
    for place, (g, name) in enumerate(asked):
        # neither the penalty nor the mean enters: both go by the charter's weights
        best = np.where(there, found.by_person[g][laid], -np.inf).argmax(1)
        own = favourites[:, place] = np.take_along_axis(laid, best[:, None], 1)[:, 0]
        rest = there & (laid != own[:, None])
        left = np.broadcast_to(own[:, None], laid.shape)[rest]
        gaps = fit.gaps(feedback, left, laid[rest], group_weights={name: 1.0}, without=charter.without(), at=charter.at(fit))
        tail[rest] = np.minimum(tail[rest], ndtr(-gaps.mean / np.maximum(gaps.wider, 1e-12)))
    hit = contested(tail, len(asked) * (there.sum(1) - 1), rate=THRESHOLDS.false_discoveries)
    interval = share(hit.astype(float))
    verdict: Verdict = "notice" if hit.any() else "ok"
    names = ids_of(feedback)
    return Finding.of(
        interval, code=code, unit="share", verdict=verdict,
        title=f"In {int(hit.sum()):,} of {counted(len(hit), 'prompt')} ({percent(interval.estimate)}) every response surely costs some group: whichever is "
        "chosen, somebody would surely rather have another, so that no weighting contents all.",
        reason=f"{where}; among responses that meet the floors, each against the favourite of each group, whatever the groups weigh. Sure is by the "
        f"posterior of the group's gap (the wider of posterior and sandwich), at a false discovery rate of {percent(THRESHOLDS.false_discoveries)} over "
        "prompts, corrected for the number of groups and responses.",
        remedy="Say in the charter how such conflicts are settled, or keep several signals (seamark catalogue)." if hit.any() else None,
        details={
            "prompts": [
                {name: names[own] for (_, name), own in zip(asked, favourites[i].tolist(), strict=True)} for i in np.flatnonzero(hit)[:_SHOWN]
            ]
        },
    )  # fmt: skip
