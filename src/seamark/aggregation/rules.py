"""Rules: what to choose, given what each person thinks of the options. Ties and "no consensus" are results, never errors.

Conventions
-----------
Shapes are those of `profiles`: Q questions, N people, M options, G groups. Scores are NaN for absent options; higher is better.
`reference` says from where a person's utilities are measured, for rules that compare people: see `profiles.against`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import numpy as np

from seamark.aggregation import pairwise
from seamark.aggregation.profiles import TIE, Array, Floats, Mask, Profile, Transform, against, own_mean
from seamark.errors import InvalidSetting

Reference = Literal["given", "mean"] | int


@dataclass(frozen=True)
class Decision:
    """What a rule says, question by question."""

    rule: str
    scores: Array
    """(Q, M) the rule's own figure for each option, higher is better; NaN where an option is absent or fell below the floor."""
    lottery: Array
    """(Q, M) probability of each option: the lottery's own where the rule is one, else the same for each winner; zeros without a winner."""
    winners: Mask
    """(Q, M) options that may be chosen: all that are tied for the best score, or that have a part in the lottery."""
    status: tuple[str, ...]
    """(Q,) "decided", one winner; "tie", several; "no consensus", none, or several where majorities run in a circle or rules that are
    mixed have no winner in common."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the rule was told."""

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.status.count(s):,} {s}" for s in ("decided", "tie", "no consensus"))
        return f"Decision({self.rule}: {counts})"


@dataclass(frozen=True)
class Floor:
    """What an option must reach to be considered at all: a veto of groups, or of a share of the people."""

    least: float
    """Logits above the `reference`."""
    over: Literal["everyone", "groups"] = "everyone"
    """Who must reach it: all people together, or each group by itself."""
    quantile: float | None = None
    """The share of these people who may fall below; None: their mean must reach it."""
    groups: tuple[int, ...] | None = None
    """Codes of the groups that have a veto; None: each."""
    reference: Reference = "given"

    def __post_init__(self) -> None:
        if not np.isfinite(self.least):
            raise InvalidSetting("least", self.least, "Give a finite number of logits.")
        if self.over not in ("everyone", "groups"):
            raise InvalidSetting("over", self.over, "Use everyone or groups.")
        if self.quantile is not None:
            _between(self.quantile, "quantile")
        if self.groups is not None and self.over != "groups":
            raise InvalidSetting("groups", self.groups, 'Only over="groups" has groups with a veto.')

    def fails(self, profile: Profile) -> Mask:
        """(Q, M) present options that do not reach it."""
        _require_utilities(profile, "floor")
        of = against(self.reference)
        if self.over == "everyone":
            reached = profile.average(of) if self.quantile is None else profile.quantile(self.quantile, of)
            return (reached < self.least - TIE) & profile.present
        means, _ = profile.group_average(of)
        who = range(profile.n_groups) if self.groups is None else self.groups
        if not set(who) <= set(range(profile.n_groups)):
            raise InvalidSetting("groups", self.groups, f"The profile has groups 0 to {profile.n_groups - 1}.")
        fails = np.zeros(profile.present.shape, dtype=bool)
        for g in who:
            reached = means[:, g]
            if self.quantile is not None:
                assert profile.groups is not None
                reached = profile.quantile(self.quantile, of, member=profile.groups == g)
            with np.errstate(invalid="ignore"):  # nobody of the group counts in the question: nothing to veto with
                fails |= reached < self.least - TIE
        return fails & profile.present


def decide(profile: Profile, rule: str, *, floor: Floor | None = None, **settings: Any) -> Decision:
    """What a rule chooses in each question.

    Parameters
    ----------
    rule : one of `RULES`.
    floor : options that do not reach it are removed before the rule sees the profile; where none is left there is no consensus.
    settings : those of the rule: the keyword arguments of its function in `RULES`.

    Raises
    ------
    InvalidSetting
        If there is no such rule or setting, or the profile lacks what the rule needs (utilities, groups, few enough options).
    """
    if rule not in RULES:
        raise InvalidSetting("rule", rule, f"The rules are {', '.join(RULES)}.")
    takes = [p for p in inspect.signature(RULES[rule]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p.name for p in takes]
    if lacking := [p.name for p in takes if p.default is p.empty and p.name not in settings]:
        raise InvalidSetting(lacking[0], None, f"Rule {rule} needs it; see seamark.aggregation.rules.{RULES[rule].__name__}.")
    if unknown := sorted(set(settings) - set(known)):
        has = f"has {', '.join(known)}" if known else "has no settings"
        raise InvalidSetting(unknown[0], settings[unknown[0]], f"Rule {rule} {has}.")
    said = dict(settings) | ({} if floor is None else {"floor": floor})
    if floor is not None and (fails := floor.fails(profile)).any():
        profile = profile.without(fails)
    outcome = RULES[rule](profile, **settings)
    with np.errstate(invalid="ignore"):
        best = np.where(profile.present, outcome.scores, -np.inf).max(-1, keepdims=True)
        near = TIE * np.maximum(1, np.abs(best))
        winners = (outcome.scores >= best - near) & profile.present if outcome.lottery is None else outcome.lottery > 0
    count = winners.sum(-1)
    lottery = winners / np.maximum(count, 1)[:, None] if outcome.lottery is None else outcome.lottery
    several = count > 1
    apart = outcome.apart if outcome.apart is not None else profile.cyclic if several.any() else several
    status = np.select([count == 0, several & apart, several], ["no consensus", "no consensus", "tie"], "decided")
    return Decision(rule, outcome.scores, lottery, winners, tuple(status.tolist()), said)


@dataclass(frozen=True)
class Outcome:
    """What a rule returns; `decide` makes winners of it."""

    scores: Array
    lottery: Array | None = None
    apart: Mask | None = None
    """(Q,) whether several winners are more than a tie; None: where majorities run in a circle."""


def _require_utilities(profile: Profile, rule: str) -> None:
    if profile.ordinal:
        ordinal = ", ".join(name for name in RULES if name not in CARDINAL)
        raise InvalidSetting("rule", rule, f"It needs utilities, and rankings do not say how much better; use {ordinal}.")


def _between(share: float, name: str) -> None:
    if not (isinstance(share, Real) and 0 < share < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidSetting(name, share, "It is a share of the people, above 0 and below 1.")


# ---------------------------------------------------------------------------------------------- utilities


def expected_utility(profile: Profile) -> Outcome:
    """Mean utility over people, logits. Source: Bentham's sum; Harsanyi 1955."""
    _require_utilities(profile, "expected-utility")
    return Outcome(profile.average())


def quantile(profile: Profile, *, share: float = 0.1, reference: Reference = "given") -> Outcome:
    """The utility that all but a share of the people reach, logits."""
    _require_utilities(profile, "quantile")
    _between(share, "share")
    return Outcome(profile.quantile(share, against(reference)))


def median(profile: Profile, *, reference: Reference = "given") -> Outcome:
    """The median utility over people (the lower of two), logits."""
    _require_utilities(profile, "median")
    return Outcome(profile.quantile(0.5, against(reference)))


def cvar(profile: Profile, *, share: float = 0.1, reference: Reference = "given") -> Outcome:
    """Mean utility of the worst-off share of the people, for each option by itself, logits.

    With q the quantile at the share a: q - E[(q - u)+] / a, exact also where the share cuts through a person's weight.
    Source: Rockafellar & Uryasev 2000.
    """
    _require_utilities(profile, "cvar")
    _between(share, "share")
    of = against(reference)
    level = profile.quantile(share, of)
    return Outcome(level - profile.shortfall(level, of) / share)


def maximin(profile: Profile, *, reference: Reference = "given") -> Outcome:
    """The mean utility of the group that is worst off with the option, logits. Source: Rawls 1971, over groups."""
    _require_utilities(profile, "maximin")
    means, _ = profile.group_average(against(reference))
    return Outcome(_worst(means))


def nash(
    profile: Profile,
    *,
    over: Literal["people", "groups"] = "people",
    benefit: Literal["probability", "given"] = "probability",
    reference: Reference = "mean",
) -> Outcome:
    """The Nash product as a geometric mean: exp of sum_n w_n log b_n, with b_n > 0 what the option is worth to person (or group) n.

    Logits have no zero, and exp(u) as the benefit would give the sum of utilities back. So the benefit is the probability that the
    person prefers the option to where they stand without an agreement, s(u - d): d is their mean over the options, or one of these.
    It is concave in gains and steep in losses, bounded, and unmoved by what is added to all of a person's utilities; unlike in Nash's
    own axioms the scale counts, as logits of a careful answer have one. `given`: utilities are benefits already (money, areas).

    Source: Nash 1950; weighted over groups, Moore, Choi & Levine 2024, prod_g u_g^w_g with the utilities given.
    """
    _require_utilities(profile, "nash")
    if over not in ("people", "groups"):
        raise InvalidSetting("over", over, "Use people or groups.")
    if benefit not in ("probability", "given"):
        raise InvalidSetting("benefit", benefit, "Use probability or given.")
    if benefit == "given" and (profile.utilities <= 0).any():
        least = float(np.nanmin(profile.utilities))
        raise InvalidSetting("utilities", least, "Benefits that are given are above 0; use benefit='probability' for logits.")
    zero = against(reference)

    def log_benefit(u: Floats) -> Floats:
        return np.log(u) if benefit == "given" else _log_probability(u, zero)

    if over == "people":
        return Outcome(np.exp(profile.average(log_benefit)))
    means, sizes = profile.group_average(lambda u: np.exp(log_benefit(u)))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(sizes[:, :, None] > 0, sizes[:, :, None] * np.log(means), 0.0)
    return Outcome(np.where(profile.present, np.exp(logs.sum(1)), np.nan))


def approval(profile: Profile, *, threshold: float | Literal["mean"] = "mean") -> Outcome:
    """The share of people who approve: whose utility is above their own mean over the options, or above a number of logits.

    Source: Brams & Fishburn 1978; above the mean is the best answer of who thinks all options alike in their chances (Weber 1978).
    """
    _require_utilities(profile, "approval")
    if threshold != "mean" and not np.isfinite(threshold):
        raise InvalidSetting("threshold", threshold, "Use 'mean' or a finite number of logits.")

    def approves(u: Floats) -> Mask:
        # whoever is indifferent approves of nothing, whichever way their mean is rounded
        level = np.float64(threshold) if threshold != "mean" else own_mean(u)
        return u > level + TIE * (1 + np.abs(level))

    return Outcome(np.where(profile.present, profile.average(approves), np.nan))


# ---------------------------------------------------------------------------------------------- rankings


def borda(profile: Profile) -> Outcome:
    """Mean share that the option gets against each other one, half of the ties."""
    return Outcome(pairwise.borda(profile.margins, profile.present))


def copeland(profile: Profile) -> Outcome:
    """Majorities won less majorities lost."""
    return Outcome(pairwise.copeland(profile.margins, profile.present))


def kemeny(profile: Profile) -> Outcome:
    """Sum of the margins that the best order with this option first agrees with."""
    return Outcome(pairwise.kemeny(profile.margins, profile.present))


def ranked_pairs(profile: Profile) -> Outcome:
    """1 for the options that come first under some order of equal margins, else 0."""
    won = pairwise.ranked_pairs(profile.margins, profile.present)
    return Outcome(np.where(profile.present, won.astype(float), np.nan))


def instant_runoff(profile: Profile) -> Outcome:
    """How many options leave before this one, at best, by fewest first choices.

    Ties for the fewest are followed up one by one (parallel universes); tied first choices split the vote. Source: Hare; ties in
    ballots, Delemazure & Peters 2024 ("split-IRV").
    """
    return Outcome(profile.eliminations())


def maximal_lottery(profile: Profile) -> Outcome:
    """The lottery that no other beats on average; scores are its probabilities."""
    lottery = pairwise.maximal_lottery(profile.margins, profile.present)
    return Outcome(np.where(profile.present, lottery, np.nan), lottery)


def bradley_terry(profile: Profile, *, pairs: Array | None = None, ridge: float = 1e-9) -> Outcome:
    """Logits of plain Bradley-Terry, fitted to the shares: what a reward model that knows no people learns. For comparison.

    `pairs`, (M, M) or (Q, M, M), says how often each pair is asked; with all alike its order is Borda's.
    """
    if pairs is not None:
        m = profile.n_options
        fits = pairs.shape in ((m, m), (profile.n_questions, m, m)) and np.isfinite(pairs).all() and (pairs >= 0).all()
        if not fits or (pairs != np.swapaxes(pairs, -1, -2)).any():
            raise InvalidSetting("pairs", pairs.shape, "Give a symmetric matrix of numbers not negative, options by options.")
    if ridge <= 0:
        raise InvalidSetting("ridge", ridge, "Where all agree the logits are infinite without one; give a small positive number.")
    return Outcome(pairwise.bradley_terry(profile.margins, profile.present, pairs, ridge=ridge))


def mixture(profile: Profile, *, parts: Mapping[str, float], settings: Mapping[str, Mapping[str, Any]] | None = None) -> Outcome:
    """Rules by lot: the weighted mean of the rules' lotteries. (Scores of different rules have no common unit to add them in.)

    Parameters
    ----------
    parts : weight of each rule, positive; they are divided by their sum.
    settings : per rule, its own.
    """
    if not isinstance(parts, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidSetting("parts", parts, "Give the weight of each rule by its name, such as {'maximin': 0.5, 'borda': 0.5}.")
    given = dict(settings or {})
    if not parts or any(not (np.isfinite(w) and w > 0) for w in parts.values()):
        raise InvalidSetting("parts", dict(parts), "Give at least one rule, and a positive weight to each.")
    if "mixture" in parts:
        raise InvalidSetting("parts", dict(parts), "A mixture is of other rules.")
    if stray := sorted(set(given) - set(parts)):
        raise InvalidSetting("settings", stray[0], f"It has no part {stray[0]}.")
    decisions = {name: decide(profile, name, **given.get(name, {})) for name in parts}
    total = sum(parts.values())
    lottery = sum((w / total * decisions[name].lottery for name, w in parts.items()), np.zeros(profile.present.shape))
    common = np.logical_and.reduce([d.winners for d in decisions.values()]).any(-1)
    return Outcome(np.where(profile.present, lottery, np.nan), lottery, apart=~common)


RULES: dict[str, Callable[..., Outcome]] = {
    "expected-utility": expected_utility,
    "borda": borda,
    "bradley-terry": bradley_terry,
    "copeland": copeland,
    "kemeny": kemeny,
    "ranked-pairs": ranked_pairs,
    "instant-runoff": instant_runoff,
    "maximal-lottery": maximal_lottery,
    "approval": approval,
    "median": median,
    "quantile": quantile,
    "cvar": cvar,
    "maximin": maximin,
    "nash": nash,
    "mixture": mixture,
}
CARDINAL = ("expected-utility", "approval", "median", "quantile", "cvar", "maximin", "nash")
"""Rules that need utilities; the others look at rankings only. (A mixture needs what its parts need.)"""


# ---------------------------------------------------------------------------------------------- what a choice is worth


@dataclass(frozen=True)
class Welfare:
    """What is chosen, seen from three sides: is it a compromise that serves, or one that satisfies no one?"""

    mean: Array
    """(Q,) mean utility over the people of the groups, logits; of a lottery, the expectation. NaN where nothing is chosen."""
    worst_group: Array
    """(Q,) mean utility of the group that is worst off, logits."""
    nash: Array
    """(Q,) geometric mean over groups, weighted by size, of the groups' mean benefit, in (0, 1] (`nash`, over groups)."""
    dominated: Mask
    """(Q,) whether some one option is better for every group."""
    better: Array
    """(Q,) by how much that option is better for the group that gains least, logits; not positive where none dominates."""


def welfare(profile: Profile, decision: Decision, *, reference: Reference = "mean") -> Welfare:
    """How a decision serves the mean, the worst-off group, and all groups together; and whether it is dominated.

    Every group's utility of a lottery is its expectation. Utilities are measured from the `reference`, which does not change what
    dominates what.
    """
    _require_utilities(profile, "welfare")
    zero = against(reference)
    means, sizes = profile.group_average(zero)
    benefit, _ = profile.group_average(lambda u: np.exp(_log_probability(u, zero)))
    chosen = decision.lottery[:, None]
    none = decision.winners.sum(-1) == 0
    known = sizes > 0

    def expected(of: Array) -> Array:
        return np.where(known, np.where(profile.present[:, None], of * chosen, 0).sum(-1), np.nan)  # (Q, G)

    utility = expected(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(known, sizes * np.log(expected(benefit)), 0).sum(-1)
        gain = np.where(known[:, :, None] & profile.present[:, None], means - utility[:, :, None], np.inf).min(1)
        better = np.where(profile.present, gain, -np.inf).max(-1)
    return Welfare(
        mean=np.where(none, np.nan, np.where(known, sizes * utility, 0).sum(-1)),
        worst_group=np.where(none, np.nan, np.where(known, utility, np.inf).min(-1)),
        nash=np.where(none, np.nan, np.exp(logs)),
        dominated=~none & (better > TIE),
        better=np.where(none, np.nan, better),
    )


def _log_probability(u: Floats, zero: Transform | None) -> Floats:
    """log s(u - d), without overflow; numpy's logaddexp takes four times as long."""
    gap = u if zero is None else zero(u)
    return np.minimum(gap, 0) - np.log1p(np.exp(-np.abs(gap)))


def _worst(means: Array) -> Array:
    """(Q, M) the least over groups, (Q, G, M), of those that count."""
    least = np.where(np.isnan(means), np.inf, means).min(1)
    return np.where(np.isinf(least), np.nan, least)
