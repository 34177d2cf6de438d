"""Whose values, how weighted: the charter, and the collective utility it makes of a fit."""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from seamark.errors import Expired, SeamarkError
from seamark.models.result import Fit, Gaps
from seamark.records import Feedback


class InvalidCharter(SeamarkError):
    """A charter file cannot be used."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Electorate(BaseModel):
    """Who counts, and how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: Literal["all"] = "all"
    """Everyone who answered counts; `weights` says how much."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """Weight per group; groups not named weigh 0. Empty: each group weighs as many raters as it has."""


class Effects(BaseModel):
    """What is taste and counts, and what is nuisance and is discounted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: Literal["discount"] = "discount"
    """Where a response was shown is never a property of the response."""
    style: Literal["count", "discount"] = "count"
    """Whether length, formatting and stock phrases count in the reward. An association may be taste or bias: this is the claim."""


class Charter(BaseModel):
    """How many people's values become one reward. The default is written out in every report; nothing is implied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    title: str = "Default charter"
    rule: Literal["expected-utility"] = "expected-utility"
    """How the distribution of utilities over people becomes one: their mean, weighted by the electorate."""
    ignorance_penalty: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """lambda: a score is the mean minus lambda times the ignorance, in logits. 1 is one posterior standard deviation."""
    electorate: Electorate = Electorate()
    effects: Effects = Effects()
    authors: tuple[str, ...] = ()
    """Who answers for these choices. Empty: unsigned, not releasable."""
    date: str = ""
    valid_until: str = ""
    """Last day on which the reward may be used, ISO 8601 (UTC): feedback is of its time. Empty: it does not expire."""
    rationale: str = (
        "Everyone counts alike, utilities are averaged, position is discounted, style counts as taste. Nobody has decided this yet."
    )

    @field_validator("valid_until", mode="before")
    @classmethod
    def _day(cls, given: object) -> object:
        """A date of TOML or Python as text; other text than a date is an error."""
        if isinstance(given, dt.date):
            if isinstance(given, dt.datetime):
                given = (given.astimezone(dt.UTC) if given.tzinfo else given).date()
            return given.isoformat()
        if isinstance(given, str) and given:
            try:
                dt.date.fromisoformat(given)
            except ValueError:
                raise ValueError("Use a date such as 2026-12-31, or nothing") from None
        return given

    @property
    def expired(self) -> bool:
        """Whether its last day has passed."""
        return bool(self.valid_until) and dt.date.fromisoformat(self.valid_until) < dt.datetime.now(dt.UTC).date()

    def require_valid(self) -> None:
        """Refuse a charter whose last day has passed.

        Raises
        ------
        Expired
            With the date.
        """
        if self.expired:
            raise Expired(self.title, self.valid_until)

    @property
    def signed(self) -> bool:
        """Whether somebody put their name to it."""
        return any(author.strip() for author in self.authors)

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def without(self) -> tuple[str, ...]:
        """Parts of the utility that do not count."""
        return ("style",) if self.effects.style == "discount" else ()

    def group_weights(self, fit: Fit) -> dict[str, float] | None:
        """Weights for `Fit.gaps` and `Fit.utilities`; None for the groups' own sizes.

        Raises
        ------
        InvalidCharter
            If a group is named that the fit does not have.
        """
        if not self.electorate.weights:
            return None
        for name in self.electorate.weights:
            if name not in fit.groups:
                raise InvalidCharter("charter", f"electorate.weights names group {name!r}", f"The fit has {', '.join(fit.groups)}.")
        if sum(self.electorate.weights.values()) <= 0:
            raise InvalidCharter("charter", "the weights of the electorate add up to 0", "Give at least one group a positive weight.")
        return dict(self.electorate.weights)

    def to_toml(self) -> str:
        """The charter as a file to edit, every choice written out."""
        weights = "\n".join(f"{_quoted(name)} = {weight}" for name, weight in sorted(self.electorate.weights.items()))
        authors = ", ".join(_quoted(a) for a in self.authors)
        return f"""# Whose values, how weighted, how conflicts are settled. Sign it by naming its authors; unsigned it is not releasable.
version = {self.version}
title = {_quoted(self.title)}
authors = [{authors}]
date = {_quoted(self.date)}
valid_until = {_quoted(self.valid_until)}  # last day on which the reward may be used, such as 2026-12-31; empty: it does not expire
rationale = {_quoted(self.rationale)}
rule = {_quoted(self.rule)}  # mean utility over the electorate
ignorance_penalty = {self.ignorance_penalty}  # score = mean - penalty x ignorance, in logits

[electorate]
groups = {_quoted(self.electorate.groups)}  # everyone who answered

[electorate.weights]  # a weight per group; empty: each group weighs as many raters as it has
{weights}

[effects]
position = {_quoted(self.effects.position)}  # where a response was shown never counts
style = {_quoted(self.effects.style)}  # count: length and formatting are taste; discount: they are nuisance
"""

    @staticmethod
    def from_toml(path: str | Path) -> Charter:
        """Read a charter file.

        Raises
        ------
        InvalidCharter
            If it is no TOML, or a key or value is not known; an unknown key names the nearest known one.
        """
        path = Path(path)
        try:
            record = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidCharter(str(path), str(error), "A charter is a TOML file; seamark charter writes the default one.") from None
        try:
            return Charter.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                model = (
                    {"electorate": Electorate, "effects": Effects}.get(str(first["loc"][0]), Charter) if len(first["loc"]) > 1 else Charter
                )
                near = difflib.get_close_matches(key.rpartition(".")[2], list(model.model_fields), n=1, cutoff=0)
                raise InvalidCharter(str(path), f"unknown key {key}", f"The nearest known key is {near[0]}.") from None
            raise InvalidCharter(str(path), f"{key} is {first.get('input')!r}", f"{first['msg']}.{_choices(first['loc'])}") from None


def _choices(place: tuple[int | str, ...]) -> str:
    """What a key of the charter does, for whoever gave it a value that it does not take."""
    *table, name = map(str, place) if place else ("",)
    model: Any = {"electorate": Electorate, "effects": Effects}.get(table[0]) if table else Charter
    if model is None or name not in model.model_fields:
        return ""
    allowed = get_args(model.model_fields[name].annotation)
    words = ", ".join(repr(choice) for choice in allowed if isinstance(choice, str))
    only = " in this version" if len(allowed) == 1 else ""
    return f" It can be {words}{only}." if words else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def collective_gaps(fit: Fit, charter: Charter, feedback: Feedback, left: NDArray[np.int64], right: NDArray[np.int64]) -> Gaps:
    """The gaps of pairs under the charter: its electorate, and only the parts that it counts."""
    return fit.gaps(feedback, left, right, group_weights=charter.group_weights(fit), without=charter.without())
