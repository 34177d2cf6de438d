"""Whose values, how weighted: the charter, and the collective utility it makes of a fit."""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import tomllib
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, Strict, ValidationError, field_validator, model_validator

from seamark.errors import Expired, SeamarkError
from seamark.models.result import Fit
from seamark.records import Feedback


class InvalidCharter(SeamarkError):
    """A charter file cannot be used."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")


Number = Annotated[float, Strict()]
"""A number of TOML: true is none, which would count as 1."""
Count = Annotated[int, Strict(), Field(ge=1)]
Weight = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Part = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[Number, Field(allow_inf_nan=False)]

Rule = Literal[
    "expected-utility", "median", "quantile", "cvar", "maximin",
    "borda", "copeland", "kemeny", "ranked-pairs", "instant-runoff", "maximal-lottery", "approval", "nash", "mixture",
]  # fmt: skip
POINTWISE = ("expected-utility", "median", "quantile", "cvar", "maximin")
"""Rules that give a response a score whatever it is compared with; the others choose among the responses to a prompt."""
UNDECIDED = "Everyone counts alike, utilities are averaged, position is discounted, style counts as taste. Nobody has decided this yet."
"""The rationale of the default charter, under which no name is a signature."""
SUM = 1e-6
"""How far weights that must add up to 1 may be from it."""


class Electorate(BaseModel):
    """Who counts, and how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: Literal["all"] | tuple[str, ...] = "all"
    """Everyone who answered counts; or the groups that do."""
    weighting: Literal["sizes", "equal", "target", "named"] = "sizes"
    """How much each group counts: as many raters as it has; all groups alike; as in the population of `target`; or as `weights` says."""
    target: str = ""
    """A file of the population that is to be represented (`seamark.aggregation.Target`), beside the charter: cells, or margins, to which
    groups are raked."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """Weight per group; they add up to 1, and groups not named weigh 0."""
    within: Number = Field(default=2.0, ge=1)
    """Weights up to so many times larger or smaller are admissible, too: reports list what they would decide otherwise. inf: any."""

    @field_validator("target")
    @classmethod
    def _beside(cls, given: str) -> str:
        if given and (Path(given).name != given or "\\" in given or given in (".", "..")):
            raise ValueError("Use the name of a file beside the charter, without a folder")
        return given

    @model_validator(mode="after")
    def _agree(self) -> Electorate:
        if (self.weighting == "named") != bool(self.weights):
            said = "no weights are given" if self.weighting == "named" else f"weighting is {self.weighting!r} and weights are given"
            raise ValueError(f'{said}; weighting = "named" goes with [electorate.weights]')
        if (self.weighting == "target") != bool(self.target):
            said = "no target is given" if self.weighting == "target" else f"weighting is {self.weighting!r} and a target is given"
            raise ValueError(f'{said}; weighting = "target" goes with a target')
        if self.weights and abs(sum(self.weights.values()) - 1) > SUM:
            raise ValueError(f"the weights add up to {sum(self.weights.values()):.6g}; they must add up to 1")
        if self.groups != "all":
            if not self.groups:
                raise ValueError('groups is empty; name who counts, or write groups = "all"')
            if twice := sorted({name for name in self.groups if self.groups.count(name) > 1}):
                raise ValueError(f"groups names {twice[0]!r} twice; name each group once, and say in weights how much it counts")
            if strangers := sorted(set(self.weights) - set(self.groups)):
                raise ValueError(f"weights are given to {', '.join(strangers)}, which groups does not name")
        return self


class Effects(BaseModel):
    """What is taste and counts, and what is nuisance and is discounted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: Literal["discount"] = "discount"
    """Where a response was shown is never a property of the response."""
    style: Literal["count", "discount"] = "count"
    """Whether length, formatting and stock phrases count in the reward. An association may be taste or bias: this is the claim."""


class Recency(BaseModel):
    """How much judgments count by when they were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["none", "half-life", "stable-core"] = "none"
    """All alike; half as much every `half_life_days` before the last; or no month more than the month in the middle, by judgments."""
    half_life_days: Weight = 0.0

    @model_validator(mode="after")
    def _agree(self) -> Recency:
        if (self.rule == "half-life") != (self.half_life_days > 0):
            raise ValueError(
                f'rule is {self.rule!r} and half_life_days is {self.half_life_days:g}; rule = "half-life" goes with a number of days'
            )
        return self


class Floors(BaseModel):
    """Below which no response may fall, in logits: it is vetoed, whatever others think of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: dict[str, Finite] = Field(default_factory=dict)
    """Least utility to each group."""
    axes: dict[str, Finite] = Field(default_factory=dict)
    """Least utility on each axis, for the mean person of the electorate."""


class Charter(BaseModel):
    """How many people's values become one reward. The default is written out in every report; nothing is implied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[int, Strict()] = 1
    title: str = "Default charter"
    rule: Rule = "expected-utility"
    """How the distribution of utilities over people becomes one choice (`seamark.aggregation.rules`)."""
    share: Number | None = Field(default=None, gt=0, lt=1)
    """Of the rules quantile and cvar: the share of people that is worst off."""
    parts: dict[str, Part] = Field(default_factory=dict)
    """Of the rule mixture: the weight of each rule; they add up to 1."""
    ignorance_penalty: Weight = 1.0
    """lambda: a score is the mean minus lambda times the ignorance, in logits. 1 is one posterior standard deviation."""
    electorate: Electorate = Electorate()
    axes: dict[str, Weight] = Field(default_factory=dict)
    """Weight of each axis; they add up to 1. Empty: axes count as they were judged."""
    effects: Effects = Effects()
    recency: Recency = Recency()
    floors: Floors = Floors()
    authors: tuple[str, ...] = ()
    """Who answers for these choices. Fewer than `signatures`, or without a date and a rationale of their own: unsigned, not releasable."""
    signatures: Count = 1
    """How many different people must answer for it."""
    date: str = ""
    """Day on which they signed, ISO 8601."""
    valid_until: str = ""
    """Last day on which the reward may be used, ISO 8601 (UTC): feedback is of its time. Empty: it does not expire."""
    rationale: str = UNDECIDED
    """Why these choices, in the words of those who sign."""

    _folder: Path = PrivateAttr(default=Path())
    """Beside which the target is looked for."""

    def __eq__(self, other: object) -> bool:
        """Charters that say the same are equal, wherever they lie."""
        return isinstance(other, Charter) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(self.to_toml())

    @model_validator(mode="after")
    def _agree(self) -> Charter:
        if (self.rule in ("quantile", "cvar")) != (self.share is not None):
            said = "no share is given" if self.share is None else f"a share of {self.share} is given"
            raise ValueError(f"rule is {self.rule!r} and {said}; share goes with quantile and cvar, and they with it")
        if (self.rule == "mixture") != bool(self.parts):
            raise ValueError(
                f"rule is {self.rule!r} and {len(self.parts)} parts are given; [parts] go with the rule mixture, and it with them"
            )
        known = [name for name in get_args(Rule) if name not in ("mixture", "quantile", "cvar")]
        if strangers := sorted(set(self.parts) - set(known)):
            raise ValueError(f"parts names {strangers[0]!r}; a mixture is of {', '.join(known)}")
        for name, weights in (("parts", self.parts), ("axes", self.axes)):
            if weights and abs(sum(weights.values()) - 1) > SUM:
                raise ValueError(f"the weights of {name} add up to {sum(weights.values()):.6g}; they must add up to 1")
        return self

    @field_validator("date", "valid_until", mode="before")
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

    def dated(self, valid_until: str) -> Charter:
        """The same charter with another last day.

        Raises
        ------
        ValueError
            If it is no date.
        """
        other = Charter.model_validate(self.model_dump() | {"valid_until": valid_until})
        other._folder = self._folder
        return other

    def differences(self, other: Charter) -> list[tuple[str, Any, Any]]:
        """(choice, mine, theirs) of every choice that differs, in the order of the file."""

        def flat(record: dict[str, Any], place: str = "") -> dict[str, Any]:
            out: dict[str, Any] = {}
            for name, value in record.items():
                out |= flat(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
            return out

        mine, theirs = (
            flat(one.model_dump(mode="json")) | ({"population": hashlib.sha256(data).hexdigest()} if (data := one.target_bytes()) else {})
            for one in (self, other)
        )
        return [(k, mine.get(k), theirs.get(k)) for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]

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
    def unsigned_for(self) -> tuple[str, ...]:
        """What is missing for it to be signed: names, a day, a rationale of one's own."""
        names = len({person(author) for author in self.authors} - {""})
        return (
            *((f"{names} of {self.signatures} author{'' if self.signatures == 1 else 's'}",) if names < self.signatures else ()),
            *(() if self.date else ("no date",)),
            *(() if self.rationale.strip() else ("no rationale",)),
            *(("the rationale is the default charter's",) if " ".join(self.rationale.split()) == UNDECIDED else ()),
        )

    @property
    def signed(self) -> bool:
        """Whether as many different people as it takes put their name to it, with the day and a rationale of their own."""
        return not self.unsigned_for

    @property
    def signature(self) -> str:
        """Whether it is signed, in words, and if not, for want of what."""
        return "signed" if self.signed else f"unsigned ({'; '.join(self.unsigned_for)}): not releasable"

    @property
    def hash(self) -> str:
        """Of every choice, and of the population file where there is one: another file under the same name is another charter."""
        choices = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(choices.encode() + b"\0" + (self.target_bytes() or b"")).hexdigest()

    @property
    def target_path(self) -> Path | None:
        """Where its population file lies, beside the file that it was read from; None where it names none."""
        return self._folder / self.electorate.target if self.electorate.target else None

    def target_bytes(self) -> bytes | None:
        """The population file as it is.

        Raises
        ------
        InvalidCharter
            If it is no file, or a link: a charter that somebody else wrote reads nothing but what lies beside it.
        """
        path = self.target_path
        if path is None:
            return None
        if path.is_symlink() or not path.is_file():
            raise InvalidCharter(str(path), "there is no such population file", "Put the file itself beside the charter.")
        return path.read_bytes()

    def write(self, folder: str | Path, *, text: str | None = None) -> Path:
        """Write charter.toml, and its population file beside it, so that the charter can be read again there.

        `text` is the charter as its authors wrote it, with their comments; the choices written out where it is None.
        """
        folder = Path(folder)
        place, target = folder / "charter.toml", self.target_bytes()
        if target is not None:
            (folder / self.electorate.target).write_bytes(target)
        place.write_text(self.to_toml() if text is None else text, encoding="utf-8")
        return place

    def without(self) -> tuple[str, ...]:
        """Parts of the utility that do not count."""
        return ("style",) if self.effects.style == "discount" else ()

    def at(self, fit: Fit) -> dict[str, dict[str, float]] | None:
        """The axes asked about, for `Fit.gaps` and `Fit.utilities`; None for all as they were judged.

        Raises
        ------
        InvalidCharter
            If an axis is named that the fit does not have.
        """
        axes = next((f.levels for f in fit.factors if f.name == "axis"), ())
        for place, names in (("axes", self.axes), ("floors.axes", self.floors.axes)):
            for name in names:
                if name not in axes:
                    has = f"The fit has {', '.join(axes)}." if axes else "The fit has no axes: fit with MultiAxis."
                    raise InvalidCharter("charter", f"{place} names axis {name!r}", has)
        return {"axis": dict(self.axes)} if self.axes else None

    def group_weights(self, fit: Fit) -> dict[str, float] | None:
        """Weights for `Fit.gaps` and `Fit.utilities`; None for the groups' own sizes.

        Raises
        ------
        InvalidCharter
            If a group is named that the fit does not have, or the population file does not go with the fit's groups.
        """
        chosen = self.electorate
        named = {"electorate.weights": chosen.weights, "electorate.groups": () if chosen.groups == "all" else chosen.groups}
        for place, names in (*named.items(), ("floors.groups", self.floors.groups)):
            for name in names:
                if name not in fit.groups:
                    raise InvalidCharter("charter", f"{place} names group {name!r}", f"The fit has {', '.join(fit.groups)}.")
        match chosen.weighting:
            case "named":
                weights = dict(chosen.weights)
            case "equal":
                weights = dict.fromkeys(fit.groups, 1.0)
            case "target":
                from seamark.aggregation.population import Target, cell_weights

                self.target_bytes()
                target = Target.read(self._folder / chosen.target)
                weights, lost = cell_weights(fit, target)
                if lost:
                    named = ", ".join(f"{name!r} ({share:.1%})" for name, share in sorted(lost.items(), key=lambda x: -x[1])[:5])
                    problem = f"the population has cells that the fit does not know: {named}"
                    near = difflib.get_close_matches(next(iter(lost)), fit.groups, n=1, cutoff=0)[0]
                    remedy = f"The nearest known is {near!r}. Ask people of these cells, or leave them out of {chosen.target} and say so."
                    raise InvalidCharter("charter", problem, remedy)
            case "sizes":
                if chosen.groups == "all":
                    return None
                weights = dict(zip(fit.groups, fit.group_share.tolist(), strict=True))
        if chosen.groups != "all":
            weights = {name: weight for name, weight in weights.items() if name in chosen.groups}
        total = sum(weights.values())
        if total <= 0:
            raise InvalidCharter("charter", "the weights of the electorate add up to 0", "Give at least one group a positive weight.")
        return {name: weight / total for name, weight in weights.items()}

    def inferred(self, fit: Fit) -> dict[str, float]:
        """The groups that no rater is of and that count all the same, each with its weight in the electorate (0: by a floor alone).

        What they value is inferred from the other groups, so that these speak for them.
        """
        weights = self.group_weights(fit) or {}  # by their sizes, they have none
        return {name: weights.get(name, 0.0) for name in fit.inferred if weights.get(name, 0.0) > 0 or name in self.floors.groups}

    def stamp(self, fit: Fit, train: Feedback) -> Fit:
        """A fit of `weigh(train)` with what it was weighed by, under the fingerprint of the judgments as they were made."""
        return replace(fit, trained_on=train, data={**fit.data, "recency": self.recency.model_dump()})

    def require_weighed(self, fit: Fit) -> None:
        """Refuse a fit whose judgments were not weighed as `recency` says.

        Raises
        ------
        InvalidCharter
            With both.
        """
        done = fit.data.get("recency", Recency().model_dump())
        if done != self.recency.model_dump():
            problem = f"recency is {self.recency.rule!r}, and the judgments of the fit were weighed by {done['rule']!r}"
            raise InvalidCharter(
                "charter", problem, "Fit under this charter: seamark fit --charter, or fit(charter.weigh(train)) and stamp."
            )

    @property
    def names_groups(self) -> bool:
        """Whether it says anything of groups, so that a fit needs them."""
        return bool(self.electorate.groups != "all" or self.electorate.weights or self.electorate.target or self.floors.groups)

    def weigh(self, feedback: Feedback) -> Feedback:
        """The judgments as they are to be fitted: each with the weight that `recency` gives it; none weighs more than it did.

        Raises
        ------
        InvalidCharter
            If recency counts and a judgment has no time.
        """
        if self.recency.rule == "none":
            return feedback
        time = feedback.judgments["time"]
        if n := time.null_count():
            problem = f"recency is {self.recency.rule!r}, and {n:,} of {len(time):,} judgments have no time"
            raise InvalidCharter("charter", problem, 'Leave them out, or write rule = "none".')
        if self.recency.rule == "half-life":
            age = (time.max() - time).dt.total_seconds() / 86_400  # type: ignore[operator]  # times are not null here
            factor = 0.5 ** (age / self.recency.half_life_days)
        else:
            month = time.dt.truncate("1mo")
            size = month.to_frame("month").select(pl.len().over("month").alias("n"))["n"]
            middle = float(month.value_counts()["count"].median())  # type: ignore[arg-type]  # of counts, which are numbers
            factor = (middle / size).clip(upper_bound=1.0)
        weight = feedback.judgments["weight"].cast(pl.Float64).fill_null(1.0) * factor
        return replace(feedback, judgments=feedback.judgments.with_columns(weight.alias("weight")))

    def to_toml(self) -> str:
        """The charter as a file to edit, every choice written out."""
        chosen = self.electorate
        authors = ", ".join(_quoted(a) for a in self.authors)
        groups = _quoted("all") if chosen.groups == "all" else f"[{', '.join(map(_quoted, chosen.groups))}]"
        # what has no value in TOML is left out, and said in a comment
        share = f"share = {self.share}" if self.share is not None else "# share = 0.1"
        return f"""# Whose values, how weighted, how conflicts are settled. Sign it by naming its authors; unsigned it is not releasable.
version = {self.version}
title = {_quoted(self.title)}
authors = [{authors}]
signatures = {self.signatures}  # how many different people must answer for it, by name, date and a rationale of their own
date = {_quoted(self.date)}
valid_until = {_quoted(self.valid_until)}  # last day on which the reward may be used, such as 2026-12-31; empty: it does not expire
rationale = {_quoted(self.rationale)}
rule = {_quoted(self.rule)}  # {", ".join(get_args(Rule))}
{share}  # of quantile and cvar alone: the share of people that is worst off
ignorance_penalty = {self.ignorance_penalty}  # score = utility - penalty x ignorance, in logits

[parts]  # of the rule mixture alone: the weight of each rule; they add up to 1
{_table(self.parts)}

[electorate]
groups = {groups}  # everyone who answered, or a list of groups
weighting = {_quoted(chosen.weighting)}  # sizes: as many raters as each has; equal; target: as in a population file; named: as below
target = {_quoted(chosen.target)}  # file of the population, beside this one; of weighting target alone
within = {chosen.within}  # weights up to so many times larger or smaller are admissible, too; inf: any are

[electorate.weights]  # of weighting named alone: a weight per group; they add up to 1
{_table(chosen.weights)}

[axes]  # a weight per axis; they add up to 1. Empty: axes count as they were judged
{_table(self.axes)}

[effects]
position = {_quoted(self.effects.position)}  # where a response was shown never counts
style = {_quoted(self.effects.style)}  # count: length and formatting are taste; discount: they are nuisance

[recency]
rule = {_quoted(self.recency.rule)}  # none: judgments count alike; half-life; stable-core: months count alike
half_life_days = {self.recency.half_life_days}  # of half-life alone: days after which a judgment counts half

[floors.groups]  # least utility to a group, in logits: below it a response is vetoed
{_table(self.floors.groups)}

[floors.axes]  # least utility on an axis
{_table(self.floors.axes)}
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
            record = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte-order mark
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidCharter(str(path), str(error), "A charter is a TOML file; seamark charter init writes the default one.") from None
        try:
            charter = Charter.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"] if part not in _VARIANTS)
            if first["type"] == "value_error" and (not key or key in _TABLES):
                said, _, remedy = str(first["ctx"]["error"] if "ctx" in first else first["msg"]).partition("; ")
                problem = f"{key}: {said}" if key else said
                raise InvalidCharter(
                    str(path), problem, f"{remedy[:1].upper()}{remedy[1:]}." if remedy else "Say one or the other."
                ) from None
            if first["type"] == "extra_forbidden":
                model = _TABLES.get(str(first["loc"][0]), Charter) if len(first["loc"]) > 1 else Charter
                near = difflib.get_close_matches(key.rpartition(".")[2], list(model.model_fields), n=1, cutoff=0)
                raise InvalidCharter(str(path), f"unknown key {key}", f"The nearest known key is {near[0]}.") from None
            choices = _choices(first["loc"], first.get("input"))
            remedy = choices or f"{str(first['msg']).removeprefix('Value error, ')}."
            if key == "electorate.groups":
                remedy = 'Write "all", or a list of groups.'
            raise InvalidCharter(str(path), f"{key} is {first.get('input')!r}", remedy) from None
        charter._folder = path.parent  # where its own files are, which no field of it says
        return charter


def person(name: str) -> str:
    """A name by which people are told apart: without what cannot be seen, in one case, with single spaces."""
    shown = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return " ".join(shown.split()).casefold()


_TABLES: dict[str, type[BaseModel]] = {"electorate": Electorate, "effects": Effects, "recency": Recency, "floors": Floors}
_VARIANTS = ("literal['all']", "tuple[str, ...]")
"""What pydantic adds to the place of a value that may be of two kinds."""


def _choices(place: tuple[int | str, ...], given: object) -> str:
    """What a key of the charter can be, for whoever gave it a value that it does not take; empty where it is not one of a few words."""
    *table, name = map(str, place) if place else ("",)
    model: Any = _TABLES.get(table[0]) if table else Charter
    if model is None or name not in model.model_fields:
        return ""
    allowed = [choice for choice in get_args(model.model_fields[name].annotation) if isinstance(choice, str)]
    near = difflib.get_close_matches(given, allowed, n=1) if isinstance(given, str) else []
    only = " in this version" if len(allowed) == 1 else ""
    words = ", ".join(map(repr, allowed))
    return (f"The nearest is {near[0]!r}. " if near else "") + f"It can be {words}{only}." if words else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _table(values: dict[str, float]) -> str:
    return "\n".join(f"{_quoted(name)} = {value}" for name, value in sorted(values.items()))
