"""What we care about, beside what is rewarded: a file of goals, each mapped to terms of the reward or to what is watched beside it.

A goals.toml says for each goal which terms of the reward stand for it, and which checks watch over it without being in the reward.

    [[goals]]
    name = "honest"
    text = "Answers are true, and say when they are not sure."
    rewarded = ["axis:honest"]
    watched = ["calibration", "loophole"]

Terms of a reward: `overall` of a fit without axes, `axis:NAME`, `style` where length, formatting and stock phrases count, `floor:group:NAME` and
`floor:axis:NAME`. What a goal is worth that is mapped to a term, whether the term measures it, nothing here can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seamark.aggregation import Charter
from seamark.checks.comparisons import counted
from seamark.checks.findings import Finding, Findings
from seamark.errors import SeamarkError
from seamark.governance.registers import Text, read_form
from seamark.models.result import Fit

_SHOWN = 5


class InvalidGoals(SeamarkError):
    """A file of goals cannot be used."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")


class Goal(BaseModel):
    """One thing that we care about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    text: Text
    """What is meant, so that somebody else can tell whether it was reached."""
    rewarded: tuple[Text, ...] = ()
    """Terms of the reward that stand for it."""
    watched: tuple[Text, ...] = ()
    """Codes of findings, or other measures, that are looked at and not in the reward."""

    @property
    def mapped(self) -> bool:
        return bool(self.rewarded or self.watched)


class Goals(BaseModel):
    """All of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    goals: Annotated[tuple[Goal, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_once(self) -> Goals:
        names = [goal.name for goal in self.goals]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"goals has {twice!r} more than once; a name stands for one goal")
        return self

    @staticmethod
    def from_toml(path: str | Path) -> Goals:
        """Read a file of goals.

        Raises
        ------
        InvalidGoals
            If it is no TOML, holds no goal, or a key or value is not known; an unknown key names the nearest known one.
        """
        what = "Goals are a TOML file of [[goals]] with name, text and rewarded."
        return read_form(path, Goals, wrong=InvalidGoals, what=what, parts={"goals": Goal})


def reward_terms(fit: Fit | None = None, charter: Charter | None = None) -> tuple[str, ...]:
    """What the reward is made of, in words that goals can name: of a fit under a charter, of a fit alone, or of a charter alone."""
    chosen = charter or Charter()
    axes: Sequence[str] = ()
    if fit is not None:
        axes = next((factor.levels for factor in fit.factors if factor.name == "axis"), ())
    counted_axes = [name for name, weight in chosen.axes.items() if weight > 0] if chosen.axes else list(axes)
    styled = fit is None or any(name == "style" for name, _ in fit.basis.parts)
    return (
        *([f"axis:{name}" for name in counted_axes] or ["overall"]),
        *(("style",) if styled and chosen.effects.style == "count" else ()),
        *(f"floor:group:{name}" for name in chosen.floors.groups),
        *(f"floor:axis:{name}" for name in chosen.floors.axes),
    )


def check_goals(goals: Goals, terms: Sequence[str] | None = None) -> Findings:
    """Whether each goal has something in the reward that stands for it, and each term of the reward a goal.

    Parameters
    ----------
    terms : of the reward (`reward_terms`); None where there is none yet.

    Returns
    -------
    `goals/unmapped` : goals that neither the reward nor a check stands for, *blocking* if there are any.
    `goals/absent` : terms that goals name and the reward does not have, *blocking* if there are any.
    `goals/watched` : goals that are only watched, a *notice*: optimisation is free to give them up.
    `goals/unasked` : terms of the reward that no goal asks for, a *notice*.

    Source: the optimisation intent and oversight metrics of Gilbert et al. 2022.
    """
    n = len(goals.goals)
    unmapped = [goal.name for goal in goals.goals if not goal.mapped]
    watched = [goal.name for goal in goals.goals if goal.watched and not goal.rewarded]
    about = "n is goals; a count of facts: no interval. Whether a term measures its goal is not looked at."
    found = [
        Finding(
            code="goals/unmapped", estimate=float(len(unmapped)), n=n, unit="count", verdict="blocking" if unmapped else "ok",
            title=f"{len(unmapped)} of {counted(n, 'goal')} {'has' if len(unmapped) == 1 else 'have'} nothing in the reward, and no check watches over "
            f"{'it' if len(unmapped) == 1 else 'them'}: {_some(unmapped)}."
            if unmapped else f"Each of {counted(n, 'goal')} has a term of the reward, or a check that watches over it.",
            reason=about, remedy="Name in `rewarded` what stands for it, or in `watched` what looks at it; or collect judgments about it." if unmapped else None,
            source="Gilbert et al. 2022",
            details={"goals": [goal.model_dump(mode="json") for goal in goals.goals], "terms": list(terms) if terms is not None else None},
        ),
        Finding(
            code="goals/watched", estimate=float(len(watched)), n=n, unit="count", verdict="notice" if watched else "ok",
            title=f"{len(watched)} of {counted(n, 'goal')} {'is' if len(watched) == 1 else 'are'} watched and not rewarded" + (f": {_some(watched)}." if watched else "."),
            reason=about, remedy="Look at what watches over them after each optimisation, which is free to give them up." if watched else None,
        ),
    ]  # fmt: skip
    if terms is None:
        why = "No fit and no charter is given, so nobody knows what the reward is made of."
        missing = ("absent", "unasked")
        return Findings(
            (*found, *(Finding.not_applicable(f"goals/{code}", "Goals are not held against a reward.", why) for code in missing))
        )
    named = [term for goal in goals.goals for term in goal.rewarded]
    absent = [f"{term} (of {goal.name})" for goal in goals.goals for term in goal.rewarded if term not in terms]
    unasked = [term for term in terms if term not in named]
    has = f"The reward has {', '.join(terms)}."
    found += [
        Finding(
            code="goals/absent", estimate=float(len(absent)), n=len(named), unit="count", verdict="blocking" if absent else "ok",
            title=f"{len(absent)} of {counted(len(named), 'term')} that goals name {'is' if len(absent) == 1 else 'are'} not in the reward: {_some(absent)}."
            if absent else f"The reward has all {counted(len(named), 'term')} that goals name.",
            reason="n is terms that goals name; a count of facts: no interval.", remedy=f"{has} Name one of these, or put the term into the charter." if absent else None,
        ),
        Finding(
            code="goals/unasked", estimate=float(len(unasked)), n=len(terms), unit="count", verdict="notice" if unasked else "ok",
            title=f"{len(unasked)} of {counted(len(terms), 'term')} of the reward {'is' if len(unasked) == 1 else 'are'} there for no goal: {_some(unasked)}."
            if unasked else f"Each of {counted(len(terms), 'term')} of the reward is there for a goal.",
            reason="n is terms of the reward; a count of facts: no interval.", remedy="Say which goal wants them, or take them out of the charter." if unasked else None,
        ),
    ]  # fmt: skip
    return Findings(tuple(found))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
