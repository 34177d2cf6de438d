"""Compositions to be calibrated, and truths drawn from their priors with answers drawn from the model.

Conventions
-----------
Nothing here goes through the fitting code: utilities, effects and slopes are written out again from the equations, and answers are
drawn from `observation.log_probs`, so that `calibration` compares two accounts of the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from seamark.models.effects import Effect, Lapse, Leniency, Missingness, Position, Reliability, Scale, Source
from seamark.models.observation import (
    Choice,
    Davidson,
    Luce,
    Missing,
    Observation,
    Outcome,
    Rating,
    Strength,
    Thumbs,
    lapsed,
    log_probs,
    rao_kupper,
)
from seamark.models.people import Factor, Groups, People, Personas, Same, Varying
from seamark.models.slopes import Slopes
from seamark.models.utility import Basis, Context, Dynamic, MultiAxis, Rows, Tabular, Utility
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

# ---------------------------------------------------------------------------------------------- compositions

PAIR = ("Choice", "Choice probit", "Davidson", "rao_kupper", "Strength", "both bad")
SEVERAL = ("choice of 4", "best-worst")
RANKED = ("ranking", "ranking with ties")
SINGLE = ("Rating", "Thumbs")

FACTORS: dict[str, tuple[str, ...]] = {
    "outcome": (*PAIR, *SEVERAL, *RANKED, *SINGLE),
    "utility": ("Tabular", "Linear", "MultiAxis", "Context", "Dynamic"),
    "people": ("Same", "Groups", "Personas", "Varying"),
    "slope": ("", "reliability"),
    "shift": ("", "position", "position per rater", "leniency", "source"),
    "scale": ("", "scale by names", "scale by number"),
    "lapse": ("", "lapse", "lapse by seconds"),
    "missing": ("", "missingness"),
}
"""Effects are grouped by the scale they act on (see `seamark.models.effects`): with one column of eleven effects, each of 12 outcomes
would take up to 11 cells, more than the 60 there may be; and effects of different kinds would never meet."""


@dataclass(frozen=True)
class Composition:
    outcome: str = "Choice"
    utility: str = "Tabular"
    people: str = "Same"
    slope: str = ""
    shift: str = ""
    scale: str = ""
    lapse: str = ""
    missing: str = ""

    @property
    def effects(self) -> tuple[str, ...]:
        return tuple(e for e in (self.slope, self.shift, self.scale, self.lapse, self.missing) if e)

    @property
    def name(self) -> str:
        return " / ".join((self.outcome, self.utility, self.people, ", ".join(self.effects) or "no effects"))

    @property
    def sensible(self) -> bool:
        """Position needs slots in an order, leniency cut points, missingness pairs; elsewhere the library leaves them out."""
        if self.shift.startswith("position") and self.outcome not in (*PAIR, *SEVERAL):
            return False
        if self.shift == "leniency" and self.outcome not in SINGLE:
            return False
        return not self.missing or self.outcome in PAIR

    @property
    def latent(self) -> bool:
        return self.people in ("Personas", "Varying")


SEEDED = (
    Composition(),
    Composition("Davidson", slope="reliability", shift="position", lapse="lapse"),
    Composition("Choice", utility="Linear", slope="reliability", shift="position", lapse="lapse"),
    Composition("Rating", slope="reliability", shift="leniency", lapse="lapse"),
)
"""The bare model, and what `fit` does by default with leaderboards, texts and ratings."""


def covering_array() -> list[Composition]:
    """60 sensible compositions in which any two levels that make sense together meet; each outcome meets each utility once.

    Greedy: cell by cell the composition that adds most pairs, of those the one with the fewest effects, ties broken at random; over
    again with the next seed until no pair is left.
    """
    names = list(FACTORS)
    possible = [c for c in (Composition(*levels) for levels in product(*FACTORS.values())) if c.sensible]

    def pairs(c: Composition) -> set[tuple[str, str, str, str]]:
        return {(a, getattr(c, a), b, getattr(c, b)) for a, b in combinations(names, 2)}

    covered = {c: pairs(c) for c in possible}
    every = set().union(*covered.values()).difference(*(covered[c] for c in SEEDED))
    seeded = {(c.outcome, c.utility) for c in SEEDED}
    options = {g: [c for c in possible if (c.outcome, c.utility) == g] for g in product(*list(FACTORS.values())[:2]) if g not in seeded}
    for seed in range(100):
        rng, missing, chosen = np.random.default_rng(seed), set(every), list(SEEDED)
        for i in rng.permutation(len(options)):
            mine = list(options.values())[i]
            gain = np.array([len(covered[c] & missing) - 0.01 * len(c.effects) for c in mine]) + 1e-4 * rng.random(len(mine))
            chosen.append(mine[int(np.argmax(gain))])
            missing -= covered[chosen[-1]]
        if not missing:
            return sorted(chosen, key=lambda c: [levels.index(getattr(c, name)) for name, levels in FACTORS.items()])
    raise AssertionError("no seed covers all pairs in this many compositions")


@dataclass(frozen=True)
class Cell:
    """What is drawn, and what is fitted; in all but the cells wrong on purpose the same."""

    number: int
    truth: Composition
    fitted: Composition
    wrong: str = ""
    """What is wrong on purpose."""
    copies: int = 1
    """How many times each judgment is said to count."""

    @property
    def name(self) -> str:
        return f"wrong on purpose: {self.wrong}" if self.wrong else self.fitted.name


def all_cells() -> list[Cell]:
    right = covering_array()
    bare = Composition()
    wrong = (
        ("raters whose tastes vary, fitted as one", replace(bare, people="Varying"), 1),
        ("raters of all kinds, fitted without reliability", replace(bare, slope="reliability"), 1),
        ("each judgment counted ten times", bare, 10),
    )
    cells = [Cell(i, c, c) for i, c in enumerate(right)]
    return cells + [Cell(len(right) + i, truth, bare, text, copies) for i, (text, truth, copies) in enumerate(wrong)]


# ---------------------------------------------------------------------------------------------- truth

SD = {
    "values": 1.0,
    "residual": 0.3,
    "group": 0.5, "axis": 0.5, "context": 0.5,
    "period": 0.3,
    "persona": 0.7, "taste": 0.7,
    "position": 0.5, "position of raters": 0.5,
    "leniency": 0.5,
    "source": 0.3,
    "propensity": 0.5,
    "shape": 0.3,
    "scale": 0.3,
    "haste": 0.5,
    "lapse": 1.0,
}  # fmt: skip
"""Standard deviations that truths are drawn with, in logits. They are those that the fit starts from (`search._usual_variance`) to
within a factor of 2; position, shapes, scales and hastes lie well within their wider fixed priors (sd 1 and 2), so that data sets are
of the kind people have."""

N_RATERS = 24
N_SOURCES = 4
N_PERIODS = 3
N_LEVELS = 2
"""Of axes and contexts."""
EVERY = timedelta(days=7)
START = datetime(2024, 1, 1, tzinfo=UTC)
PACE = np.array([2.5, 5.0, 10.0, 20.0, 40.0])
"""Seconds: the same five for each rater, equally often, so that the logarithm relative to the rater's median takes five values."""


@dataclass(frozen=True)
class Fixed:
    """Linear on given features of named responses, each also with a value of its own (as `Linear` does where texts are judged often)."""

    names: tuple[str, ...]
    matrix: Array
    """(n, P)"""

    def prepare(self, feedback: Feedback) -> Basis:
        place = {name: i for i, name in enumerate(self.names)}
        matrix = self.matrix[[place[name] for name in feedback.responses["name"].to_list()]]
        n, P = matrix.shape
        ids = tuple(feedback.responses["id"].to_list())
        basis = Basis(n, matrix, (("content", slice(0, P)), ("residual", slice(P, P + n))), response_ids=ids)
        rows = Rows(matrix, np.arange(n), np.ones(n, dtype=bool), np.zeros(n), np.zeros(n, dtype=bool))
        basis._last.append((feedback.responses, rows))  # there is no text to make features of
        return basis

    def factors(self, feedback: Feedback) -> tuple[Factor, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Linear"}


@dataclass
class World:
    """One truth, the judgments it gave, and what a fit will be asked."""

    feedback: Feedback
    utility: Utility
    parameters: dict[str, float]
    """By the name that `Fit.parameters` has."""
    values: dict[str, Array]
    """(n_responses,) utility by response name order: of the mean person, and of a group or level asked about."""
    names: tuple[str, ...]
    asked: dict[str, dict[str, dict[str, Any]]]
    """Per quantity beside the mean person, arguments of `Fit.gaps`."""


def judgments_per_rater(c: Composition) -> int:
    """A multiple of 5 (see `PACE`); half as many again where raters' tastes are to be found."""
    base = 20 if c.outcome in (*PAIR, *SINGLE) else 10
    return base * 3 // 2 if c.latent else base


def draw(family: Outcome, slots: Array, theta: Array, odds: Array | None, rng: np.random.Generator) -> Codes:
    """(n,) an answer to each row of slots (n, m), from the family's own log probabilities and a random click."""
    contrast = torch.from_numpy(slots @ family.contrast(slots.shape[1]).T)
    log_p = log_probs(family, contrast, torch.from_numpy(theta))
    log_p = lapsed(log_p, family.n_outcomes, None if odds is None else torch.from_numpy(odds)[:, None])
    reached = np.cumsum(np.exp(log_p.numpy()), 1)
    assert np.abs(reached[:, -1] - 1).max() < 1e-9
    return (rng.random((len(slots), 1)) > reached[:, :-1]).sum(1)


def families_of(c: Composition) -> dict[str, Outcome]:
    """Families of pairs by kind, as given to `Observation`; the others are the default of their kind."""
    pairs: dict[str, Outcome] = {
        "Choice": Choice(), "Choice probit": Choice(link="probit"), "Davidson": Davidson(), "rao_kupper": rao_kupper(),
        "Strength": Strength(levels=2), "both bad": Luce(2, most=2, none=True),
    }  # fmt: skip
    return {"pair": pairs[c.outcome]} if c.outcome in PAIR else {}


def world(c: Composition, seed: Sequence[int]) -> World:
    """A truth and its judgments."""
    rng = np.random.default_rng(seed)
    n_responses = 20 if c.utility == "Linear" else 12
    per_rater = judgments_per_rater(c)
    n = N_RATERS * per_rater
    m = 1 if c.outcome in SINGLE else 2 if c.outcome in PAIR else 3 if c.outcome == "ranking with ties" else 4
    rater = np.repeat(np.arange(N_RATERS), per_rater)
    shown = rng.random((n, n_responses)).argsort(1)[:, :m]
    names = tuple(f"r{i}" for i in range(n_responses))
    columns: dict[str, Any] = {
        "rater": [f"p{r}" for r in rater],
        "ids": [[names[i] for i in row] for row in shown],
        "order_known": [True] * n,
    }
    known: dict[str, float] = {}

    # ---- values: V_0, and deviations D (k, n_responses) weighed by loadings (n, k)
    matrix = rng.standard_normal((n_responses, 5)) / np.sqrt(5)

    def values(sd: float, k: int) -> Array:
        if c.utility == "Linear":
            return rng.normal(0, sd, (k, 5)) @ matrix.T
        return rng.normal(0, sd, (k, n_responses))

    shared = values(SD["values"], 1)[0]
    if c.utility == "Linear":
        shared += rng.normal(0, SD["residual"], n_responses)
    u = shared[shown]
    mean, at_level = shared.copy(), {}
    asked: dict[str, dict[str, Any]] = {}
    if c.people == "Groups":
        D = values(SD["group"], 2)
        u += D[(rater % 2)[:, None], shown]
        mean += D.mean(0)
        columns["group"] = [f"g{r % 2}" for r in rater]
        at_level["group"] = (D[0] - D.mean(0), {"group_weights": {"g0": 1.0}})
    elif c.people == "Personas":
        D, share = values(SD["persona"], 2), rng.dirichlet([2.0, 2.0])
        u += D[rng.choice(2, N_RATERS, p=share)[rater][:, None], shown]
        mean += share @ D
    elif c.people == "Varying":
        u += rng.standard_normal(N_RATERS)[rater, None] * values(SD["taste"], 1)[0][shown]
    if c.utility in ("MultiAxis", "Context"):
        factor, column = ("axis", "axis") if c.utility == "MultiAxis" else ("context", "pair_type")
        D, level = values(SD[factor], N_LEVELS), rng.integers(N_LEVELS, size=n)
        u += D[level[:, None], shown]
        average = np.bincount(level, minlength=N_LEVELS) / n @ D
        mean += average
        columns[column] = [f"{factor[0]}{x}" for x in level]
        at_level["level"] = (D[1] - average, {"at": {factor: f"{factor[0]}1"}})
    elif c.utility == "Dynamic":
        walk = np.vstack([np.zeros(n_responses), np.cumsum(values(SD["period"], N_PERIODS - 1), 0)])
        period = rng.permutation(np.arange(n) % N_PERIODS)
        u += walk[period[:, None], shown]
        mean += walk[-1]
        offset = rng.random(n)
        offset[np.argmin(period)] = 0.0  # the first period begins at its first judgment, and all must begin where they do
        columns["time"] = [START + EVERY * (int(p) + 0.999 * o) for p, o in zip(period, offset, strict=True)]
        at_level["level"] = (walk[1] - walk[-1], {"at": {"period": f"{START + EVERY:%Y-%m-%d %H:%M}"}})
    asked_values = {"gap": mean} | {name: mean + deviation for name, (deviation, _) in at_level.items()}
    asked = {name: arguments for name, (_, arguments) in at_level.items()}

    # ---- effects: c = slope exp(g x) K u + shifts
    slope = np.ones(N_RATERS)
    if c.slope:
        start = Slopes.start(1, opposed=c.people == "Same")
        careful = np.abs(stats.truncnorm.rvs(-1 / start.spread, np.inf, 1.0, start.spread, N_RATERS, random_state=rng))
        slope = careful * rng.choice([1.0, 0.0, -1.0], N_RATERS, p=start.shares)
    plain = slope[rater, None] * u
    s = plain.copy()
    if c.scale == "scale by names":
        team = rng.integers(3, size=n)
        count = np.bincount(team, minlength=3)
        reference = int(np.argmax(count))  # the commonest, with which the fit compares the others
        g = rng.normal(0, SD["scale"], 3)
        g[reference] = 0.0
        x = np.eye(3)[team] - count / n
        s *= np.exp(x @ g)[:, None]
        columns["team"] = [f"t{t}" for t in team]
        known |= {f"scale: team=t{t} (against t{reference})": float(g[t]) for t in range(3) if t != reference}
    elif c.scale == "scale by number":
        place = np.tile(np.arange(5), n // 5)
        g = rng.normal(0, SD["scale"])
        s *= np.exp(g * (place - place.mean()) / place.std())[:, None]
        columns["position"] = place.tolist()
        known["scale: position"] = g
    lenient, placed = np.zeros(n), np.zeros(n)
    if c.shift.startswith("position"):
        first = rng.normal(0, SD["position"])
        known["position"] = first
        own = rng.normal(0, SD["position of raters"], N_RATERS) if c.shift == "position per rater" else np.zeros(N_RATERS)
        placed = first + own[rater]
    elif c.shift == "leniency":
        lenient = rng.normal(0, SD["leniency"], N_RATERS)[rater]
    elif c.shift == "source":
        favour = rng.normal(0, SD["source"], N_SOURCES)
        reference = int(np.argmax(np.bincount((shown % N_SOURCES).ravel())))
        favour[reference] = 0.0
        s += favour[shown % N_SOURCES]
        columns["models"] = [[f"m{i % N_SOURCES}" for i in row] for row in shown]
        known |= {f"source: m{i}": float(v) for i, v in enumerate(favour) if i != reference}
    s += lenient[:, None]
    s[:, 0] += placed
    odds: Array | None = None
    if c.lapse:
        base = rng.normal(-4.0, SD["lapse"])
        odds = np.full(n, base)
        known["lapse (log odds)"] = base
        if c.lapse == "lapse by seconds":
            pace = np.concatenate([rng.permutation(np.tile(np.arange(5), per_rater // 5)) for _ in range(N_RATERS)])
            haste = rng.normal(0, SD["haste"])
            x = np.log(PACE)[pace]
            odds += haste * (x - x.mean()) / x.std()
            columns["seconds"] = PACE[pace].tolist()
            known["lapse: seconds"] = haste

    # ---- answers
    def shape(block: str, family: Outcome) -> Array:
        theta = family.start() + rng.normal(0, SD["shape"], family.size)
        known.update({f"{block}: {name}": float(v) for name, v in zip(family.names, theta, strict=True)})
        return theta

    kind = (
        "pair"
        if c.outcome in PAIR
        else {"Rating": "rating", "Thumbs": "thumbs"}.get(c.outcome, "ranking" if c.outcome in RANKED else "choice")
    )
    columns |= {"kind": [kind] * n}
    if kind == "pair":
        columns |= _pairs(c, s, plain, rater, odds, shape, rng)
    elif kind == "choice":
        best = draw(Choice(m=4), s, np.zeros(0), odds, rng)
        columns |= {"best": best.tolist(), "outcome": ["answered"] * n}
        if c.outcome == "best-worst":
            rest = np.array([[i for i in range(4) if i != b] for b in best])
            # a position effect is of the first choice only: the worst is chosen from slots no longer in order
            s[:, 0] -= placed
            worst = draw(Choice(m=3, worst=True), np.take_along_axis(s, rest, 1), np.zeros(0), odds, rng)
            columns["worst"] = rest[np.arange(n), worst].tolist()
    elif kind == "ranking":
        columns |= {"ranks": _ranks(c, s, odds, shape, rng).tolist(), "outcome": ["answered"] * n}
    else:
        levels = np.array(columns.get("axis", [""] * n))
        answer = np.zeros(n, dtype=np.int64)
        for level in np.unique(levels):
            mine = levels == level
            axis = f"/{level}" if level else ""
            family: Outcome = Rating((1.0, 2.0, 3.0, 4.0)) if kind == "rating" else Thumbs()
            theta = shape(f"rating/{level}" if kind == "rating" else f"thumbs{axis}", family)
            answer[mine] = draw(family, s[mine], theta, None if odds is None else odds[mine], rng)
        columns |= {"rating": (answer + 1.0).tolist()} if kind == "rating" else {"thumb": (answer == 0).tolist()}
        columns["outcome"] = ["answered"] * n
    feedback = Feedback.from_columns(columns)
    return World(feedback, _utility(c, names, matrix), known, asked_values, names, asked)


def _pairs(
    c: Composition, s: Array, plain: Array, rater: Codes, odds: Array | None, shape: Any, rng: np.random.Generator
) -> dict[str, Any]:
    family = families_of(c)["pair"]
    n = len(s)
    code = draw(family, s, shape("pair/strength" if isinstance(family, Strength) else "pair", family), odds, rng)
    out: dict[str, Any] = {}
    if isinstance(family, Strength):
        k = family.levels
        outcome = np.select([code < k, code == k], ["left", "tie"], "right")
        if k > 1:
            away = np.abs(code - k)
            out |= {"strength": [int(a) if a else None for a in away], "strength_levels": [k] * n}
    else:
        outcome = np.array(["left", "right", "tie", "both_bad"])[code]
    if c.missing:
        theta = shape("pair/answered", Missing())
        propensity = rng.normal(0, SD["propensity"], N_RATERS)[rater]
        # whether one answers depends on the gap that one sees, before position, source and scale; no click is at random
        silent = draw(_Silent(), np.column_stack([plain, propensity]), theta, None, rng) == 1
        outcome = np.where(silent, "skipped", outcome)
        if "strength" in out:
            out["strength"] = [None if quiet else v for v, quiet in zip(out["strength"], silent, strict=True)]
    return out | {"outcome": outcome.tolist()}


class _Silent:
    """`Missing` with the rater's propensity as a third slot."""

    n_outcomes = 2

    def contrast(self, m: int) -> Array:  # noqa: ARG002  # the protocol's signature
        return np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])

    def log_prob(self, contrast: torch.Tensor, outcome: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return Missing().log_prob(contrast, outcome, theta)


def _ranks(c: Composition, s: Array, odds: Array | None, shape: Any, rng: np.random.Generator) -> Codes:
    """(n, m) ranks: who is first, then who is first of those left, until nobody is; up to two share a rank where ties are allowed."""
    n, m = s.shape
    ties = c.outcome == "ranking with ties"
    families: dict[int, Outcome] = {k: Luce(k, most=2) if ties else Choice(m=k) for k in range(2, m + 1)}
    theta = {k: shape(f"ranking/best of {k}", family) for k, family in families.items()}
    ranks, left = np.zeros((n, m), dtype=np.int64), np.ones((n, m), dtype=bool)
    for place in range(1, m + 1):
        size = left.sum(1)
        for k, family in families.items():
            mine = np.flatnonzero(size == k)
            if not len(mine):
                continue
            slots = np.nonzero(left[mine])[1].reshape(-1, k)
            code = draw(family, np.take_along_axis(s[mine], slots, 1), theta[k], None if odds is None else odds[mine], rng)
            sets = family.sets if isinstance(family, Luce) else [(i,) for i in range(k)]
            member = np.array([[i in members for i in range(k)] for members in sets])[code]
            row, column = np.nonzero(member)
            ranks[mine[row], slots[row, column]] = place
        ranks[(size == 1)[:, None] & left] = place
        left = ranks == 0
    return ranks


def _utility(c: Composition, names: tuple[str, ...], matrix: Array) -> Utility:
    return {
        "Tabular": Tabular(), "Linear": Fixed(names, matrix), "MultiAxis": MultiAxis(utility=Tabular()),
        "Context": Context(utility=Tabular(), by="pair_type"), "Dynamic": Dynamic(utility=Tabular(), every=EVERY),
    }[c.utility]  # fmt: skip


def observation_of(c: Composition) -> Observation:
    effects: dict[str, Effect] = {
        "reliability": Reliability(), "position": Position(), "position per rater": Position(per_rater=True), "leniency": Leniency(),
        "source": Source(), "scale by names": Scale("team"), "scale by number": Scale("position"), "lapse by seconds": Lapse(),
        "missingness": Missingness(),
    }  # fmt: skip
    return Observation(outcomes=families_of(c), effects=tuple(effects[e] for e in c.effects if e in effects), lapse=bool(c.lapse))


def people_of(c: Composition) -> People:
    return {"Same": Same(), "Groups": Groups(), "Personas": Personas(2), "Varying": Varying(1)}[c.people]
