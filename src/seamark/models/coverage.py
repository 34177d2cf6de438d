"""Which compositions have intervals that are known not to cover as often as they say, by simulation, and how a fit says so.

The data below is written by `benchmarks/calibration.py --write`, which draws truths from the prior, fits, and counts
(docs/calibration.md). It holds what was measured and failed; that something is not listed does not say that it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from seamark.columns import COLUMNS
from seamark.models.observation import Choice, Luce, Missing, Outcome, Rating, Strength, Thumbs


@dataclass(frozen=True)
class Failed:
    """90% intervals of one quantity, in one composition, that did not cover 88% to 92% of simulated truths."""

    outcome: str
    utility: str
    people: str
    effects: tuple[str, ...]
    quantity: str
    """gap (of the mean person), group or level (the gap of one), or the name of a parameter."""
    n: int
    """Fits."""
    covered: float
    low: float
    """99% interval of the coverage, Holm-corrected."""
    high: float


# fmt: off
FAILED: tuple[Failed, ...] = (
    Failed("rao_kupper", "Context", "Same", ("lapse by seconds", "position", "scale by names"), "lapse (log odds)", 270, 0.781, 0.669, 0.871),
    Failed("choice of 4", "Dynamic", "Groups", ("lapse", "source"), "lapse (log odds)", 320, 0.791, 0.689, 0.872),
    Failed("Thumbs", "Context", "Same", ("lapse", "leniency"), "lapse (log odds)", 690, 0.801, 0.735, 0.858),
)
# fmt: on


def unsupported(spec: Mapping[str, Any], families: Mapping[str, Outcome]) -> str | None:
    """What is known to be wrong with the intervals of fits like this one, in a sentence or two; None where nothing is known.

    Parameters
    ----------
    spec, families
        Those of a `Fit`: the parts that were asked for, and the outcome families of its blocks.
    """
    parts = _composition(spec, families)
    if parts is None:
        return None
    named = {"gap": "utility gaps", "group": "the gaps of one group", "level": "the gaps at one axis, context or period"}
    said = [
        f"90% intervals of {named.get(f.quantity, f.quantity)} are too {'narrow' if f.covered < 0.9 else 'wide'}: "
        f"they covered {f.covered:.0%} [{f.low:.0%}, {f.high:.0%}] of {f.n:,} simulated truths in fits of this composition"
        for f in FAILED
        if (f.outcome, f.utility, f.people, frozenset(f.effects)) == parts
    ]
    return "; ".join(said) + " (docs/calibration.md)" if said else None


def _composition(spec: Mapping[str, Any], families: Mapping[str, Outcome]) -> tuple[str, str, str, frozenset[str]] | None:
    """(outcome, utility, people, effects) in the words of the data above; None for what the simulations do not have."""
    outcomes = {_outcome(name, family, families) for name, family in families.items() if not isinstance(family, Missing)}
    if len(outcomes) != 1:
        return None  # kinds of judgments mixed
    outcome = outcomes.pop()
    effects: set[str] = {"lapse"} if spec["observation"]["lapse"] else set()
    applies = {
        "Position": outcome not in ("Rating", "Thumbs") and not outcome.startswith("ranking"),
        "Leniency": outcome in ("Rating", "Thumbs"),
        "Missingness": "pair/answered" in families,
    }
    for effect in spec["observation"]["effects"]:
        name = effect["effect"]
        if not applies.get(name, True):
            continue
        word = _effect(effect)
        if word is None:
            return None
        if word == "lapse by seconds":
            if "lapse" not in effects:
                continue  # there is no lapse that could move
            effects.remove("lapse")
        effects.add(word)
    return outcome, str(spec["utility"]["utility"]), str(spec["people"]["people"]), frozenset(effects)


def _outcome(name: str, family: Outcome, families: Mapping[str, Outcome]) -> str:
    if isinstance(family, Rating | Thumbs):
        return type(family).__name__
    if name.startswith("choice/"):
        return "best-worst" if any(other.startswith("choice/worst") for other in families) else "choice of 4"
    if name.startswith("ranking/"):
        return "ranking with ties" if any(isinstance(f, Luce) for f in families.values()) else "ranking"
    if isinstance(family, Strength):
        return "rao_kupper" if family.levels == 1 else "Strength"
    if isinstance(family, Luce):
        return "both bad"
    return "Choice probit" if isinstance(family, Choice) and family.link == "probit" else type(family).__name__


def _effect(effect: Mapping[str, Any]) -> str | None:
    name = effect["effect"]
    if name == "Position":
        return None if effect.get("by") else "position per rater" if effect["per_rater"] else "position"
    if name == "Scale":
        dtype = COLUMNS.get(effect["by"], pl.String)
        return "scale by number" if pl.Series(dtype=dtype).dtype.is_numeric() else "scale by names"
    if name == "Lapse":
        return "lapse by seconds"
    if name == "Leniency":
        return None if effect.get("by") else "leniency"
    known = {"Reliability": "reliability", "Source": "source", "Missingness": "missingness"}
    return known.get(name)
