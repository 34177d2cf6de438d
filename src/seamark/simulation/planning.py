"""How many raters and judgments an interval of a wanted width takes, and what is cheapest.

The width is that of the interval which `seamark.fit` with `Tabular()` values would report, worked out from Fisher information
instead of data. For pairs of the responses of a prompt, with values v ~ N(0, S) over groups (spread and disagreement), answers by
Davidson's model with a lapse, and raters of slope 0 (careless) or N(1, slope_spread^2):

    A    = S^-1 (x) I + blockdiag_g( sum over pairs of n_e rho(n) I(gap_e) d_e d_e' )      values, given the slopes
    cov  = (A - Q K Q')^-1,   q_g = sum_e n_e I(gap_e) gap_e d_e                           less what not knowing the slopes takes

I(gap) is the information of one careful judgment. rho(n) is the share of it that a judgment by a rater with n judgments is worth: less
Louis' (1982) missing information, the variance of the score over the posterior of the slope. K is what the judgments of a rater lack
together: the scale of the values, known only as far as the mean slope of the raters is. Both are expectations over raters drawn with
a fixed seed. Gaps and the numbers of judgments per pair (Poisson, as when pairs are drawn at random) are drawn in the same way, with
the same random numbers for every design.

The mean win rate of two systems over a population of prompts is another thing: more prompts narrow it, as more answers to the same
prompts do not beyond what prompts differ. With q_i the chance that an answer to prompt i prefers the first, P prompts and n answers
to each by raters drawn anew, y an answer (1, 1/2 or 0),

    var(mean) = var(q_i) / P + (var(y) - var(q_i)) / (P n)                                two-stage sampling (Cochran 1977, section 10.3)

for systems that are as good as each other, of which the variance is the largest.

Not in it: uncertainty of tie propensity, lapse, position and prior strengths, which a design large enough for its values pins down;
what features of texts add (`Linear` takes fewer judgments); people who differ within their group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.records import Feedback
from seamark.simulation.settings import read_written

Array = NDArray[np.float64]
TARGETS: dict[str, str] = {
    "gap": "the gap of two responses to a prompt, for the mean person",
    "group": "the gap of two responses to a prompt, for the people of each group",
    "win_rate": "the probability that a person prefers the one to the other",
    "mean_win_rate": "the share of answers that prefer one system's response to another's, ties half, over prompts like these",
}
_REPEATS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)
"""Judgments of a prompt that are tried where the number of prompts is open."""
_Z = 1.96
_BLOCKS = 192
"""Prompts drawn for the expectation: their mean width is then known to 1% or so."""
_ANSWERS = 40_000
"""Answers drawn for the information of raters."""
_NODES = 9
_MOST_RATERS = 1_000_000
_MOST_RESPONSES = 200
_MOST_EACH = 5000
_FEW_RATERS = 10
"""Fewer than these say little about people beyond them."""
_RATERS_PER_GROUP = 3
"""Fewer tell nothing of raters in general; `fit` does not estimate reliability from fewer either."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted: guesses, or estimates from a pilot (`estimate_assumptions`)."""

    spread: float = 1.2
    """Standard deviation over responses of the value that all groups share, logits."""
    disagreement: float = 0.0
    """Root mean square over responses and groups of (a group's value - the mean of the groups), logits."""
    group_shares: Mapping[str, float] = field(default_factory=lambda: {"everyone": 1.0})
    """Share of each group in the population, and among the raters."""
    careless: float = 0.1
    """Share of raters who answer at chance."""
    slope_spread: float = 0.25
    """Standard deviation of the slopes of careful raters."""
    log_tie: float | None = -1.0
    """Log tie propensity; None where ties are not possible."""
    lapse: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.spread < math.inf:
            raise InvalidSetting("spread", self.spread, "The standard deviation of values is above 0.")
        if not 0 <= self.disagreement < math.inf:
            raise InvalidSetting("disagreement", self.disagreement, "A root mean square is 0 or more.")
        if not self.group_shares or not all(0 < s < math.inf for s in self.group_shares.values()):
            raise InvalidSetting("group_shares", dict(self.group_shares), "Give one positive share per group.")
        total = sum(self.group_shares.values())
        object.__setattr__(self, "group_shares", {name: share / total for name, share in self.group_shares.items()})
        for name in ("careless", "lapse"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidSetting(name, getattr(self, name), "Use a share of at least 0 and below 1.")
        if not 0 <= self.slope_spread <= 0.5:
            raise InvalidSetting("slope_spread", self.slope_spread, "Use 0 to 0.5: a wider spread has careful raters at or below 0.")
        if self.log_tie is not None and not math.isfinite(self.log_tie):
            raise InvalidSetting("log_tie", self.log_tie, "Use a finite number, or None for no ties.")
        if len(self.group_shares) == 1 and self.disagreement:
            raise InvalidSetting("disagreement", self.disagreement, "One group does not disagree; give the shares of the groups.")


@dataclass(frozen=True)
class Option:
    """One way to reach the width."""

    judgments_per_rater: int
    """Of who gives most."""
    n_raters: int
    n_judgments: int
    judgments_per_pair: float
    """Mean over the pairs of responses of a prompt."""
    half_width: float
    """Expected, in the unit of the target: logits, or probability."""
    cost: float
    raters_by_group: Mapping[str, int]
    half_width_by_group: Mapping[str, float]
    """Of the gap within each group, logits; of a mean win rate, its own within each group."""
    n_prompts: int
    """To be judged."""


def counted(n: int, noun: str) -> str:
    """1 rater, 2,310 raters."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


@dataclass(frozen=True)
class Plan:
    """How to reach an interval of a wanted width, at least cost."""

    target: str
    width: float
    """Wanted, from the low end of the 95% interval to the high one."""
    n_prompts: int
    n_responses: int
    options: tuple[Option, ...]
    """Those that can be had, by judgments per rater, ascending."""
    assumptions: Assumptions
    costs: Mapping[str, float]
    """Per rater, and per judgment."""
    notes: tuple[str, ...] = ()

    @property
    def cheapest(self) -> Option:
        return min(self.options, key=lambda o: (o.cost, o.n_judgments))

    @property
    def half_width(self) -> float:
        """Expected, of the cheapest option."""
        return self.cheapest.half_width

    def to_frame(self) -> pl.DataFrame:
        """One row per option; columns raters_GROUP and half_width_GROUP where there are groups."""
        rows: list[dict[str, Any]] = []
        for o in self.options:
            row = {f.name: getattr(o, f.name) for f in fields(o) if not f.name.endswith("by_group")}
            if len(o.raters_by_group) > 1:
                row |= {f"raters_{name}": n for name, n in o.raters_by_group.items()}
                row |= {f"half_width_{name}": w for name, w in o.half_width_by_group.items()}
            rows.append(row | {"cheapest": o is self.cheapest})
        return pl.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        options = [{f.name: getattr(o, f.name) for f in fields(o)} | {"cheapest": o is self.cheapest} for o in self.options]
        return {
            "target": self.target, "width": self.width, "n_prompts": self.n_prompts, "n_responses": self.n_responses, "options": options,
            "assumptions": {f.name: getattr(self.assumptions, f.name) for f in fields(self.assumptions)},
            "costs": dict(self.costs), "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        a, best = self.assumptions, self.cheapest
        unit = "" if self.target.endswith("win_rate") else " logit" if self.width == 1 else " logits"
        many = "any number of prompts" if len({o.n_prompts for o in self.options}) > 1 else counted(self.n_prompts, "prompt")
        whose = "win rate" if self.target == "mean_win_rate" else "gap"
        lines = [
            f"a 95% interval {self.width:.4g}{unit} wide, for {TARGETS[self.target]}",
            f"{many} with {self.n_responses} responses each; values sd {a.spread:.2f}, {a.careless:.0%} careless, "
            f"slopes sd {a.slope_spread:.2f}, {'no ties' if a.log_tie is None else f'log tie propensity {a.log_tie:.2f}'}, "
            f"lapse {a.lapse:.0%}" + (f", disagreement {a.disagreement:.2f}" if len(a.group_shares) > 1 else ""),
            "",
            "  judgments/rater   raters   judgments   per pair   half width         cost    prompts",
        ]
        for o in self.options:
            mark = "  <- cheapest" if o is best and len(self.options) > 1 else ""
            lines.append(
                f"  {o.judgments_per_rater:15,} {o.n_raters:8,} {o.n_judgments:11,} {o.judgments_per_pair:10.2f} {o.half_width:12.3f} "
                f"{o.cost:12,.2f} {o.n_prompts:10,}{mark}"
            )
        if len(best.raters_by_group) > 1:
            lines += ["", f"  group                raters   half width of the {whose} within it"]
            lines += [f"  {name:<18} {n:8,} {best.half_width_by_group[name]:12.3f}" for name, n in best.raters_by_group.items()]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def plan(
    pilot: Feedback | None = None,
    *,
    width: float | None = None,
    budget: float | None = None,
    target: str = "gap",
    assumptions: Assumptions | Mapping[str, Any] | None = None,
    n_prompts: int | None = None,
    n_responses: int | None = None,
    max_per_rater: int = 100,
    cost_per_rater: float = 0.0,
    cost_per_judgment: float = 1.0,
    cost_per_prompt: float = 0.0,
    equal_groups: bool = False,
    seed: int = 0,
) -> Plan:
    """How many raters and judgments of pairs it takes until a 95% interval is as narrow as wanted, and which way is cheapest.

    Parameters
    ----------
    pilot : judgments of the same kind, from which the assumptions are estimated where they are not given.
    width : from the low end of the interval to the high one; logits, or a probability for win rates. The mean over pairs is planned.
    budget : for mean_win_rate, what may be spent, in place of the width: the narrowest interval for it.
    target : gap, group (in the group where it is widest), win_rate, or mean_win_rate: see `TARGETS`.
    assumptions : what raters and responses are like, or some of it; the rest is estimated from the pilot, or is the default of
        `Assumptions`.
    n_prompts, n_responses : prompts to be judged and responses to each, of which all pairs are asked about; those of the pilot, or
        100 prompts with 4 responses. A leaderboard is one prompt with as many responses as it has entries. For mean_win_rate there are two
        responses, and the plan says how many prompts unless you do: the interval of a gap does not narrow with more of them.
    max_per_rater : most judgments that one rater gives.
    cost_per_rater, cost_per_judgment, cost_per_prompt : in any currency.
    equal_groups : recruit as many raters from each group, instead of by their share, where there are several.
    seed : of the draws that the expectations are taken over.

    Raises
    ------
    InvalidSetting
        If a number cannot be used, or has no place beside the others; or nothing reaches the width, not even a million raters.

    Examples
    --------
    >>> reached = plan(width=1.5, n_prompts=50, max_per_rater=50, cost_per_rater=10.0)
    >>> reached.cheapest.judgments_per_rater
    50
    """
    if target not in TARGETS:
        raise InvalidSetting("target", target, f"Use {', '.join(TARGETS)}.")
    if budget is not None and target != "mean_win_rate":
        raise InvalidSetting(
            "budget", budget, f"A budget is planned for the target mean_win_rate; for {target}, give the width that is wanted."
        )
    if width is not None and budget is not None:
        raise InvalidSetting("budget", budget, "Give a width or a budget: the one says what the other has to be.")
    if width is None and budget is None:
        raise InvalidSetting("width", width, f"Give the width that is wanted{', or a budget' if target == 'mean_win_rate' else ''}.")
    if width is not None and (not 0 < width < math.inf or (target.endswith("win_rate") and width >= 1)):
        raise InvalidSetting("width", width, "A width is above 0; that of a win rate is below 1.")
    if budget is not None and not 0 < budget < math.inf:
        raise InvalidSetting("budget", budget, "A budget is above 0.")
    prices = (("cost_per_rater", cost_per_rater), ("cost_per_judgment", cost_per_judgment), ("cost_per_prompt", cost_per_prompt))
    for name, value in prices:
        if not 0 <= value < math.inf:
            raise InvalidSetting(name, value, "A cost is 0 or more.")
    mean = target == "mean_win_rate"
    if mean and n_responses not in (None, 2):
        raise InvalidSetting("n_responses", n_responses, "A mean win rate compares two systems: there are 2 responses to each prompt.")
    for name, value, least in (
        ("n_prompts", n_prompts, 2 if mean else 1),
        ("n_responses", n_responses, 2),
        ("max_per_rater", max_per_rater, 1),
    ):
        if value is not None and value < least:
            open_ = ", or leave it open" if name == "n_prompts" and mean else ""
            raise InvalidSetting(name, value, f"Use a whole number of {least} or more{open_}.")
    notes: list[str] = []
    assumed = Assumptions()
    if isinstance(assumptions, Assumptions):
        assumed = assumptions
    else:
        if pilot is not None:
            from seamark.simulation.pilot import estimate_assumptions

            assumed, notes = estimate_assumptions(pilot)
        unknown = set(assumptions or {}) - {f.name for f in fields(Assumptions)}
        if unknown:
            raise InvalidSetting("assumptions", sorted(unknown), f"Use {', '.join(f.name for f in fields(Assumptions))}.")
        assumed = replace(assumed, **(assumptions or {}))
    if equal_groups and len(assumed.group_shares) == 1:
        remedy = "The assumptions have one group; give the shares of several (group_shares; --assume group.NAME=SHARE), or a pilot that has them."
        raise InvalidSetting("equal_groups", equal_groups, remedy)
    costs = {"per rater": cost_per_rater, "per judgment": cost_per_judgment, "per prompt": cost_per_prompt}
    if target == "mean_win_rate":
        found = _items(assumed, costs, width, budget, n_prompts, max_per_rater, equal_groups=equal_groups, seed=seed)
        if not found:
            raise _out_of_reach(assumed, costs, width, budget, n_prompts, max_per_rater, equal_groups=equal_groups, seed=seed)
        best = min(found, key=(lambda o: (o.cost, o.n_judgments)) if budget is None else (lambda o: (o.half_width, o.cost)))
        wanted = 2 * best.half_width if width is None else width
        if best.n_raters < _FEW_RATERS:
            notes.append(
                f"the width takes answers to be of raters drawn anew; what {counted(best.n_raters, 'rater')} may have in common is not in it: "
                f"have {_FEW_RATERS} or more, by fewer judgments of each"
            )
        kept = found if budget is None else (best,)
        return Plan(target, wanted, best.n_prompts, 2, kept, assumed, costs, tuple(notes))
    assert width is not None
    if pilot is not None:
        per_prompt = pilot.responses["prompt"].drop_nulls().value_counts()["count"]
        n_prompts = max(len(per_prompt), 1) if n_prompts is None else n_prompts
        n_responses = n_responses or (round(float(per_prompt.mean())) if len(per_prompt) else pilot.n_responses)  # type: ignore[arg-type]  # polars types mean() loosely
    n_prompts, n_responses = n_prompts or 100, n_responses or 4
    if n_responses < 2:  # of the pilot
        raise InvalidSetting("n_responses", n_responses, "The pilot has one response to a prompt; say how many there will be, 2 or more.")
    if max_per_rater > _MOST_EACH:
        raise InvalidSetting("max_per_rater", max_per_rater, f"Use {_MOST_EACH:,} or fewer: a slope is known by then.")
    if n_responses > _MOST_RESPONSES:
        raise InvalidSetting("n_responses", n_responses, f"Plan for {_MOST_RESPONSES}, of which all pairs are asked about, or fewer.")
    design = Design(assumed, n_prompts, n_responses, equal_groups=equal_groups, seed=seed)
    options: list[Option] = []
    per_rater = sorted({max(1, round(max_per_rater * share)) for share in (1, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)})
    for n in per_rater:
        raters = _fewest(design, n, target, width / 2)
        if raters is None:
            notes.append(f"with {n:,} judgments per rater, not even {_MOST_RATERS:,} raters reach the width")
            continue
        reached = design.widths(raters, n)
        judgments = sum(raters.values()) * n
        options.append(
            Option(
                judgments_per_rater=n,
                n_raters=sum(raters.values()),
                n_judgments=judgments,
                judgments_per_pair=judgments / design.n_pairs,
                half_width=reached.of(target),
                cost=cost_per_rater * sum(raters.values()) + cost_per_judgment * judgments + cost_per_prompt * n_prompts,
                raters_by_group=raters,
                half_width_by_group=dict(zip(assumed.group_shares, reached.group.tolist(), strict=True)),
                n_prompts=n_prompts,
            )
        )
    if not options:
        raise InvalidSetting("width", width, f"Not even {_MOST_RATERS:,} raters reach it. Ask for a wider interval, or for fewer prompts.")
    if len(assumed.group_shares) > 1 and min(options[-1].raters_by_group.values()) < _FEW_RATERS:
        notes.append(f"a group with fewer than {_FEW_RATERS} raters says little about people beyond these")
    if target == "group" and len(assumed.group_shares) == 1:
        notes.append("there is one group, whose gap is that of everybody; give the shares of several for their own")
    return Plan(target, width, n_prompts, n_responses, tuple(options), assumed, costs, tuple(notes))


def _items(
    a: Assumptions, costs: Mapping[str, float], width: float | None, budget: float | None, n_prompts: int | None, most: int, *,
    equal_groups: bool, seed: int,
) -> tuple[Option, ...]:  # fmt: skip
    """The ways to a mean win rate, by judgments of a prompt: the prompts that the width takes, or that the budget buys."""
    shares = dict.fromkeys(a.group_shares, 1 / len(a.group_shares)) if equal_groups else dict(a.group_shares)
    between, total, by_group = _win_rate_variances(a, np.array(list(shares.values())), seed)
    options: list[Option] = []
    for n in _REPEATS:
        variance = between + (total - between) / n  # of a prompt's mean
        if n_prompts is not None:
            prompts = n_prompts
        elif width is not None:
            prompts = max(2, math.ceil(variance / (width / 2 / _Z) ** 2))
        else:
            assert budget is not None
            each = costs["per prompt"] + n * (costs["per judgment"] + costs["per rater"] / most)
            prompts = int(budget / each) if each > 0 else 0
        raters = _recruited(prompts, n, shares, most)
        cost = costs["per rater"] * sum(raters.values()) + costs["per judgment"] * prompts * n + costs["per prompt"] * prompts
        while budget is not None and cost > budget and prompts > 2 and n_prompts is None:  # raters come whole
            prompts -= max(1, prompts // 500)
            raters = _recruited(prompts, n, shares, most)
            cost = costs["per rater"] * sum(raters.values()) + costs["per judgment"] * prompts * n + costs["per prompt"] * prompts
        half = _Z * math.sqrt(variance / prompts) if prompts >= 2 else math.inf
        if (
            prompts < 2
            or sum(raters.values()) > _MOST_RATERS
            or (budget is not None and cost > budget)
            or (width is not None and half > width / 2 * 1.0001)
        ):
            continue
        groups = {
            name: float(_Z * math.sqrt((own_between + (own_total - own_between) / max(n * share, 1e-9)) / prompts)) if n * share >= 1
            else float(_Z * math.sqrt(own_total / (prompts * n * share)))
            for (name, share), (own_between, own_total) in zip(shares.items(), by_group, strict=True)
        }  # fmt: skip
        busiest = max(math.ceil(prompts * n * share / raters[name] - 1e-9) for name, share in shares.items())
        options.append(Option(busiest, sum(raters.values()), prompts * n, float(n), half, cost, raters, groups, prompts))
    return tuple(options)


def _out_of_reach(
    a: Assumptions, costs: Mapping[str, float], width: float | None, budget: float | None, n_prompts: int | None, most: int, *,
    equal_groups: bool, seed: int,
) -> InvalidSetting:  # fmt: skip
    """Why there is no way to a mean win rate, and what to do about it."""
    shares = dict.fromkeys(a.group_shares, 1 / len(a.group_shares)) if equal_groups else dict(a.group_shares)
    if budget is not None:
        if not any(costs.values()):
            return InvalidSetting(
                "budget", budget, "Nothing costs anything: say what a judgment, a rater or a prompt costs, or give a width."
            )
        prompts = n_prompts or 2
        raters = sum(_recruited(prompts, 1, shares, most).values())
        least = costs["per rater"] * raters + (costs["per judgment"] + costs["per prompt"]) * prompts
        if least > budget:
            what = f"{counted(prompts, 'prompt')} with one judgment of each, by {counted(raters, 'rater')}"
            return InvalidSetting("budget", budget, f"The least that can be bought, {what}, costs {least:,.2f}.")
        return InvalidSetting("budget", budget, f"It buys more than {_MOST_RATERS:,} raters: plan for less, or give a width.")
    assert width is not None
    if n_prompts is not None:
        between, total, _ = _win_rate_variances(a, np.array(list(shares.values())), seed)
        variance = between + (total - between) / _REPEATS[-1]
        narrowest, wanted = 2 * _Z * math.sqrt(variance / n_prompts), math.ceil(variance / (width / 2 / _Z) ** 2)
        if narrowest > width:
            remedy = f"Give {wanted:,} prompts or more, leave their number open, or ask for a wider interval."
            return InvalidSetting(
                "width", width, f"With {n_prompts:,} prompts it is {narrowest:.3f} at least, since prompts differ. {remedy}"
            )
    return InvalidSetting(
        "width", width, f"Not even {_MOST_RATERS:,} raters reach it. Ask for a wider interval, or for more of each rater."
    )


def _recruited(prompts: int, n: int, shares: Mapping[str, float], most: float) -> dict[str, int]:
    """Raters by group: enough for their judgments, and for nobody to answer a prompt twice."""
    return {name: max(math.ceil(prompts * n * share / most), math.ceil(n * share)) for name, share in shares.items()}


def _win_rate_variances(a: Assumptions, shares: Array, seed: int) -> tuple[float, float, list[tuple[float, float]]]:
    """(variance over prompts of the chance that an answer prefers the first, variance of an answer), of all and of each group."""
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    design = Design(replace(a, group_shares=dict(zip(a.group_shares, shares.tolist(), strict=True))), 2, 2, seed=seed)
    G = len(shares)
    root = np.linalg.cholesky(design._prior + 1e-9 * np.eye(G))
    gap = np.sqrt(2) * rng.standard_normal((20_000, G)) @ root.T  # (prompts, G)
    level = (np.arange(20) + 0.5) / 20
    slope = np.append(np.abs(1 + a.slope_spread * ndtri(level)), 0.0)
    mass = np.append(np.full(20, (1 - a.careless) / 20), a.careless)
    p, _ = design._answering.probabilities(slope[:, None, None] * gap)
    p = np.einsum("q,qbgo->bgo", mass, p)
    won, squared = p[..., 0] + p[..., 2] / 2, p[..., 0] + p[..., 2] / 4
    each = [(float(won[:, g].var()), float(squared[:, g].mean() - won[:, g].mean() ** 2)) for g in range(G)]
    return float((won @ shares).var()), float((squared @ shares).mean() - (won @ shares).mean() ** 2), each


def read_assumptions(texts: Sequence[str]) -> dict[str, Any]:
    """Assumptions written as NAME=VALUE, the groups' shares as group.NAME=SHARE.

    Raises
    ------
    InvalidSetting
        If a name is not known, or a value cannot be read.

    Examples
    --------
    >>> read_assumptions(["careless=0.2", "group.young=0.3", "group.old=0.7"])
    {'careless': 0.2, 'group_shares': {'young': 0.3, 'old': 0.7}}
    """
    defaults = {f.name: f.default for f in fields(Assumptions) if f.name != "group_shares"}
    shares: dict[str, float] = {}
    plain: list[str] = []
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if name == "group.":
            raise InvalidSetting("assumptions", text, "Name the group: group.NAME=SHARE.")
        if name.startswith("group."):
            shares[name.removeprefix("group.")] = read_written([f"share={value}"], {"share": 1.0})["share"]
        else:
            plain.append(text)
    return read_written(plain, defaults) | ({"group_shares": shares} if shares else {})


def _fewest(design: Design, n: int, target: str, half: float) -> dict[str, int] | None:
    """Raters by group, as few as reach the half width with n judgments each."""
    low, high = 0, _RATERS_PER_GROUP
    while design.widths(design.recruited(high), n).of(target) > half:
        low, high = high, 2 * high
        if high > _MOST_RATERS:
            return None
    while high - low > max(1, high // 500):
        middle = (low + high) // 2
        low, high = (low, middle) if design.widths(design.recruited(middle), n).of(target) <= half else (middle, high)
    return design.recruited(high)


# ------------------------------------------------------------------------------------ information


@dataclass(frozen=True)
class Widths:
    """Mean half widths of 95% intervals over the pairs of responses of a prompt."""

    gap: float
    """Of the mean person, logits."""
    group: Array
    """(G,) of each group, logits."""
    win_rate: float
    """Of the probability that a person prefers the one to the other."""

    def of(self, target: str) -> float:
        return {"gap": self.gap, "group": float(self.group.max()), "win_rate": self.win_rate}[target]


@dataclass(frozen=True)
class Answering:
    """What an answer says about the gap: Davidson's model with a lapse."""

    log_tie: float | None
    lapse: float

    def probabilities(self, gap: Array) -> tuple[Array, Array]:
        """(..., 3) probabilities of left, right, tie, and their derivatives by the gap."""
        w = np.stack([gap / 2, -gap / 2, np.full_like(gap, -np.inf if self.log_tie is None else self.log_tie)], -1)
        w = np.exp(w - w.max(-1, keepdims=True))
        p = w / w.sum(-1, keepdims=True)
        lean = np.array([0.5, -0.5, 0.0])
        slope = p * (lean - (p * lean).sum(-1, keepdims=True))
        possible = np.array([1.0, 1.0, 0.0 if self.log_tie is None else 1.0])
        return (1 - self.lapse) * p + self.lapse * possible / possible.sum(), (1 - self.lapse) * slope

    def information(self, gap: Array) -> Array:
        """Fisher information of one answer about the gap, per squared logit."""
        p, slope = self.probabilities(gap)
        return (slope**2 / np.maximum(p, 1e-300)).sum(-1)


@dataclass(frozen=True)
class Design:
    """Prompts with all pairs of their responses asked about, by any number of raters."""

    assumptions: Assumptions
    n_prompts: int
    n_responses: int
    equal_groups: bool = False
    seed: int = 0

    @property
    def n_pairs(self) -> int:
        return self.n_prompts * self.n_responses * (self.n_responses - 1) // 2

    def recruited(self, size: int) -> dict[str, int]:
        """Raters by group, the smallest group having `size` of them."""
        shares = self.assumptions.group_shares
        if self.equal_groups:
            return dict.fromkeys(shares, size)
        least = min(shares.values())
        return {name: round(size * share / least) for name, share in shares.items()}

    @cached_property
    def _answering(self) -> Answering:
        return Answering(self.assumptions.log_tie, self.assumptions.lapse)

    @cached_property
    def _prior(self) -> Array:
        """S (G, G): covariance over groups of a response's values."""
        a = self.assumptions
        G = len(a.group_shares)
        around = np.eye(G) - 1 / G
        return a.spread**2 * np.ones((G, G)) + (a.disagreement**2 * G / (G - 1) * around if G > 1 else 0.0)

    @cached_property
    def _drawn(self) -> tuple[Array, Array, Array, Array]:
        """Values (B, G, m), uniform numbers for the counts (B, G, pairs), normal ones for the estimates (B, G m), and incidence of the
        pairs (pairs, m)."""
        rng = np.random.default_rng(self.seed)
        G, m = len(self.assumptions.group_shares), self.n_responses
        blocks = int(np.clip(_BLOCKS * 12 // (m * (m - 1)), 1, _BLOCKS))
        root = np.linalg.cholesky(self._prior + 1e-9 * np.eye(G))
        values = np.einsum("gh,bhm->bgm", root, rng.normal(size=(blocks, G, m)))
        left, right = np.triu_indices(m, 1)
        D = np.zeros((len(left), m))
        D[np.arange(len(left)), left], D[np.arange(len(left)), right] = 1.0, -1.0
        return values, rng.random((blocks, G, len(left))), rng.normal(size=(blocks, G * m)), D

    @cached_property
    def _known(self) -> dict[int, tuple[float, float]]:
        return {}

    def rater_information(self, n: int) -> tuple[float, float]:
        """(rho, i) of a rater with n judgments: the share of a careful judgment's information that each of them is worth, and the
        information that all of them give about the scale which all raters share."""
        if n not in self._known:
            self._known[n] = self._rater_information(n)
        return self._known[n]

    def _rater_information(self, n: int) -> tuple[float, float]:
        from scipy.special import ndtri

        a, answering = self.assumptions, self._answering
        rng = np.random.default_rng(self.seed + 1)
        R = max(40, _ANSWERS // n)
        # raters at the quantiles of their distribution: drawn, their mix would differ from one n to the next
        level = (np.arange(R) + 0.5) / R
        careful = level >= a.careless
        slope = np.where(careful, np.abs(1 + a.slope_spread * ndtri(np.clip((level - a.careless) / (1 - a.careless), 1e-9, 1))), 0.0)
        gap = np.sqrt(2 * np.diag(self._prior).mean()) * rng.normal(size=(R, n))
        p, _ = answering.probabilities(slope[:, None] * gap)
        answer = (rng.random((R, n, 1)) > np.cumsum(p, -1)[..., :-1]).sum(-1)
        at_one = answering.information(gap)
        along = float((at_one * gap**2).mean())
        # as fine as what n answers tell of a slope, or the grid would know it better than the answers do
        points = int(np.clip(math.ceil(5 * a.slope_spread * math.sqrt(n * along) / 0.8), _NODES, 8 * _NODES))
        steps = np.linspace(-2.5, 2.5, points) if a.slope_spread > 0 else np.zeros(1)
        nodes = np.concatenate([[0.0], np.maximum(1 + a.slope_spread * steps, 1e-3)])
        mass = np.exp(-0.5 * steps**2)
        log_joint = np.tile(np.log(np.maximum(np.concatenate([[a.careless], (1 - a.careless) * mass / mass.sum()]), 1e-300)), (R, 1))
        score, info = np.empty((len(nodes), R, n)), np.empty((len(nodes), R, n))
        for q, b in enumerate(nodes):
            p, s = answering.probabilities(b * gap)
            given, falls = (np.take_along_axis(x, answer[..., None], -1)[..., 0] for x in (p, s))
            log_joint[:, q] += np.log(given).sum(1)
            score[q], info[q] = b * falls / given, b**2 * (s**2 / np.maximum(p, 1e-300)).sum(-1)
        posterior = np.exp(log_joint - log_joint.max(1, keepdims=True))
        posterior = (posterior / posterior.sum(1, keepdims=True)).T  # (nodes, R)
        own = np.einsum("qr,qrj->rj", posterior, score**2) - np.einsum("qr,qrj->rj", posterior, score) ** 2
        worth = np.einsum("qr,qrj->rj", posterior, info) - own
        rho = float(np.clip(worth.sum() / at_one.sum(), 1e-6, 1.0))
        # about the scale, what a careful rater says is n t / (1 + tau^2 n t), t = E[I(gap) gap^2]: the slope estimated, then its mean.
        # Of that, so much is left by not knowing for sure who is careful: Louis' difference again, without the spread of slopes, whose
        # own difference would be one of large and nearly equal sums
        sure = 1 - posterior[0]
        whole = (
            sure * n * along - sure * posterior[0] * ((posterior[1:, :, None] * score[1:] * gap).sum((0, 2)) / np.maximum(sure, 1e-12)) ** 2
        )
        left = float(np.clip(whole.sum() / max(careful.sum() * n * along, 1e-300), 1e-3, 1.0))
        return rho, left * (1 - a.careless) * n * along / (1 + a.slope_spread**2 * n * along)

    def widths(self, raters: Mapping[str, int], n: int) -> Widths:
        """Expected half widths with so many raters of each group, n judgments each."""
        from scipy.stats import poisson

        values, u, z, D = self._drawn
        B, G, m = values.shape
        share = np.array(list(self.assumptions.group_shares.values()))
        count = np.array(list(raters.values()), dtype=np.float64)
        rho, on_scale = self.rater_information(n)
        drawn = poisson.ppf(u, (count * n / self.n_pairs)[None, :, None])
        prior = np.kron(self._prior + 1e-9 * np.eye(G), np.eye(m))
        precision = np.linalg.inv(prior)

        def known(gaps: Array) -> tuple[Array, Array]:
            """Weight of each pair, and the covariance of the values (B, G m, G m), given the slopes, at these gaps (B, G, pairs)."""
            weight = drawn * self._answering.information(gaps)
            A = np.tile(precision, (B, 1, 1))
            for g in range(G):
                mine = slice(g * m, (g + 1) * m)
                A[:, mine, mine] += rho * (D.T * weight[:, g, None]) @ D
            return weight, np.asarray(np.linalg.inv(A), dtype=np.float64)

        # a fit looks at the information where its estimates are, which are nearer to each other than the values: their covariance is
        # what the prior has more than the posterior
        _, cov = known(values @ D.T)
        curve, axes = np.linalg.eigh(prior - cov)
        estimates = np.einsum("bij,bj,bj->bi", axes, np.sqrt(np.maximum(curve, 0.0)), np.einsum("bji,bj->bi", axes, z))
        gaps = estimates.reshape(B, G, m) @ D.T
        weight, cov = known(gaps)
        Q = np.zeros((B, G * m, G))
        for g in range(G):
            Q[:, g * m : (g + 1) * m, g] = (weight[:, g] * gaps[:, g]) @ D
        through = cov @ Q
        # K takes from the information along the values themselves, rho T, all that raters' slopes leave no trace of: R i is left
        T = np.maximum(np.einsum("bgp,bgp->g", weight, gaps**2) * self.n_prompts / B, 1e-9)
        taken = np.maximum(rho * T - count * on_scale, 1e-9 * T)
        scale = np.linalg.inv(np.diag(T**2 / taken) - np.einsum("big,bih->gh", Q, through) * self.n_prompts / B)
        each = np.stack([np.kron(np.eye(G)[g], D) for g in range(G)])  # (G, pairs, G m)
        mean = np.einsum("g,gpi->pi", share, each)

        def sd(rows: Array) -> Array:
            """(B, pairs) of contrasts (pairs, G m)."""
            along = rows @ through
            return np.sqrt(((rows @ cov) * rows).sum(-1) + ((along @ scale) * along).sum(-1))

        ignorance = sd(mean)
        move = _Z * ignorance[:, None]
        high, low = (np.einsum("g,bgp->bp", share, 1 / (1 + np.exp(-(gaps + step)))) for step in (move, -move))
        return Widths(
            gap=float(_Z * ignorance.mean()),
            group=np.array([_Z * sd(each[g]).mean() for g in range(G)]),
            win_rate=float((high - low).mean() / 2),
        )
