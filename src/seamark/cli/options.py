"""The options that commands share, and what the library is given for each.

What several commands take has one name and one help text here. A text that cannot be used is said of the option that it was given by.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seamark.errors import InvalidSetting

if TYPE_CHECKING:
    from seamark.aggregation import Charter
    from seamark.checks import Findings
    from seamark.models.observation import Observation
    from seamark.models.people import People
    from seamark.models.utility import Utility
    from seamark.records import Feedback

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a folder, hf://OWNER/NAME, or demo (a simulated study).")]
FormatOption = Annotated[str | None, typer.Option("--format", help="The layout of the source; told from its fields where not given.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", help="For plain tables: prompt=question,left=answer_a,right=answer_b,outcome=vote")
]
OnError = Annotated[str, typer.Option("--on-error", help="stop at the first bad record, or skip it and report it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
UtilityOption = Annotated[
    str | None,
    typer.Option(
        "--utility",
        help="hash, tabular, or the name or path of a text encoder, chosen from the data where not given; with +bends (hash+bends) what style is worth may bend.",
    ),
]
GroupsOption = Annotated[
    str | None,
    typer.Option(
        "--groups", help="Field that holds the raters' group; several, as profile.age,profile.gender, for cells; none for one population."
    ),
]
PersonasOption = Annotated[int | None, typer.Option("--personas", help="Fit this many latent classes of raters with values of their own.")]
TastesOption = Annotated[int | None, typer.Option("--tastes", help="Let raters' tastes vary in this many continuous directions (1 or 2).")]
DifferOption = Annotated[
    str | None,
    typer.Option("--differ", help="Values differ by axis, by context:FIELD (context:pair_type), or move by period:DAYS (period:30)."),
]
EffectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--effect",
        help="Beside the usual effects: scale:FIELD (position is fatigue; guideline_version, team, confidence), lapse:seconds, "
        "position:raters, position:FIELD, leniency:FIELD (team; prompt, where several responses to each are rated), source, "
        "source:FIELD (ui_version), taste:NAME (taste:log_characters), bias:NAME (a covariate of what was shown: style "
        "control), or bias:NAME:raters. May be given again.",
    ),
]
CharterOption = Annotated[Path | None, typer.Option("--charter", help="A charter.toml; the written-out default where not given.")]
ValidUntil = Annotated[
    str | None, typer.Option("--valid-until", help="Last day on which the reward may be used (2026-12-31), in place of the charter's.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Ask the reward model no more when it takes longer than this for 256 texts.")
]
FitFolder = Annotated[Path, typer.Argument(metavar="FIT", help="The folder of a fit or reward model, or the hub name of one, OWNER/NAME.")]
AxisOption = Annotated[str | None, typer.Option("--axis", help="Use only the judgments on this axis.")]


def _known_gates(expressions: list[str] | None) -> list[str] | None:
    """The same, where they can be read: said before any work is done."""
    if expressions:
        from seamark.checks.gates import parse_gates

        parse_gates(expressions)
    return expressions


@dataclass(frozen=True)
class IntoStudy:
    """A finished study, which takes the findings of the command that runs."""

    folder: Path
    context: typer.Context | None = None

    def __call__(self, findings: Findings) -> Path:
        """Adds them, under the command and all that it was asked, but for what only says how."""
        from seamark.study import add_findings

        assert self.context is not None
        words: list[str] = []
        for parameter in self.context.command.params:
            given = self.context.params.get(parameter.name or "")
            option = None if parameter.param_type_name == "argument" else parameter.opts[0]
            if option in _ONLY_HOW or given in (None, parameter.default) or given == []:
                continue
            if given is True:
                words.append(str(option))
                continue
            for value in given if isinstance(given, list | tuple) else (given,):
                words += [str(value)] if option is None else [str(option), str(value)]
        return add_findings(self.folder, findings, command=self.context.command_path, subject=shlex.join(words))


_ONLY_HOW = ("--into", "--fail-on", "--json", "--cache", "--resume", "--timeout", "--out", "--mark-patched")
"""Options that change nothing in what is found."""


def _known_study(context: typer.Context, into: IntoStudy | None) -> IntoStudy | None:
    if into is None:
        return None
    from seamark.study import read_findings

    with as_options(folder="into"):
        read_findings(into.folder)
    return replace(into, context=context)


FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        metavar="EXPR",
        callback=_known_gates,
        help='Exit with 1 on this as well: warning, a code (probe/length; "in quotes" where it has spaces or colons), probe/*:warning, or accuracy.low<0.6; several are joined by or.',
    ),
]
Into = Annotated[
    IntoStudy | None,
    typer.Option(
        "--into", metavar="STUDY", parser=lambda folder: IntoStudy(Path(folder)), callback=_known_study,
        help="Add the findings to the report of this finished study, in place of what the same command said about the same before.",
    ),
]  # fmt: skip


def read_feedback(source: str, format: str | None, columns: str | None, on_error: str, axis: str | None, seed: int) -> Feedback:
    """The feedback of a source, as these options say that it is to be read."""
    from seamark.study import read_source

    return read_source(source, format=format, columns=parse_columns(columns), on_error=parse_on_error(on_error), axis=axis, seed=seed)


@contextmanager
def as_options(**options: str) -> Generator[None]:
    """Errors about these arguments, said of the options that they were given by."""
    try:
        yield
    except InvalidSetting as error:
        if error.name not in options:
            raise
        raise InvalidSetting(f"--{options[error.name]}", error.value, error.remedy) from None


def read_charter(path: Path | None, valid_until: str | None) -> Charter:
    """The charter given or the default one, with the last day given."""
    from seamark.aggregation import Charter

    chosen = Charter.from_toml(path) if path else Charter()
    if valid_until is None:
        return chosen
    try:
        dated = chosen.dated(valid_until)
    except ValueError:
        raise InvalidSetting("--valid-until", valid_until, "Use a date such as 2026-12-31.") from None
    if chosen.valid_until and dated.valid_until > chosen.valid_until:
        raise InvalidSetting("--valid-until", valid_until, f"The charter says {chosen.valid_until}: its authors put it off, not an option.")
    return dated


def parse_columns(text: str | None) -> dict[str, str] | None:
    """Our names of columns and those of the table."""
    if text is None:
        return None
    mapping: dict[str, str] = {}
    for part in text.split(","):
        ours, sign, theirs = part.partition("=")
        if not sign or not ours.strip() or not theirs.strip():
            raise InvalidSetting("--columns", text, "Write it as prompt=question,left=answer_a,right=answer_b,outcome=vote.")
        mapping[ours.strip()] = theirs.strip()
    return mapping


def parse_on_error(text: str) -> Literal["stop", "skip"]:
    """The same, where it is one of the two."""
    if text == "stop" or text == "skip":
        return text
    raise InvalidSetting("--on-error", text, "Use stop or skip.")


def parse_settings(
    config: Path | None, given: list[str] | None, *, option: str = "--set", example: str = "weight_decay=0.1"
) -> dict[str, Any]:
    """Settings of a file, then those given one by one; a value is JSON, or else text."""
    found: dict[str, Any] = {}
    if config is not None:
        try:
            found = tomllib.loads(config.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidSetting("--config", str(config), f"It is not TOML ({error}).") from None
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InvalidSetting(option, text, f"Write it as NAME=VALUE, as in {option} {example}.")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found


def parse_utility(text: str | None) -> Utility | None:
    """The utility that --utility names; None leaves the choice to the data."""
    if text is None:
        return None
    from seamark.models.utility import Linear, Tabular

    if text in ("hash", "tabular"):
        return Tabular() if text == "tabular" else Linear(text)
    if text.endswith("+bends"):
        inside = parse_utility(text.removesuffix("+bends"))
        if not isinstance(inside, Linear):
            raise InvalidSetting(
                "--utility", text, "Style bends beside features of texts: hash+bends, or an encoder's name or path and +bends."
            )
        return replace(inside, bends=True)
    if not Path(text).expanduser().is_dir() and not text.startswith((".", "/", "~")) and find_spec("transformers") is None:
        remedy = (
            "It is not hash or tabular. If it is an encoder of the Hugging Face hub, install what reads those: pip install 'seamark[lm]'"
        )
        raise InvalidSetting("--utility", text, remedy)
    return Linear(text)


def parse_people(groups: str | None, personas: int | None, tastes: int | None) -> People | None:
    """How people differ, by the one option given; None leaves the choice to the data."""
    from seamark.models.people import Groups, Personas, Same, Varying

    given = [name for name, value in (("--groups", groups), ("--personas", personas), ("--tastes", tastes)) if value is not None]
    if len(given) > 1:
        raise InvalidSetting(" and ".join(given), "", "Give one of them: people differ in one way at a time.")
    if personas is not None:
        return Personas(personas)
    if tastes is not None:
        return Varying(tastes)
    if groups is None or groups == "none":
        return None if groups is None else Same()
    columns = tuple(column.strip() for column in groups.split(","))
    if "" in columns:
        raise InvalidSetting("--groups", groups, "Write it as group, or for cells of several columns as profile.age,profile.gender.")
    return Groups(columns[0] if len(columns) == 1 else columns)


def parse_differ(text: str | None, utility: Utility | None) -> Utility | None:
    """The utility, its values differing by what --differ names."""
    if text is None:
        return utility
    from datetime import timedelta

    from seamark.models.utility import Context, Dynamic, Linear, MultiAxis, Tabular

    assert utility is None or isinstance(utility, Tabular | Linear)
    what, _, by = text.partition(":")
    if what == "axis" and not by:
        return MultiAxis(utility)
    if what == "context" and by:
        return Context(by, utility)
    try:
        if what == "period" and float(by) > 0:
            return Dynamic(timedelta(days=float(by)), utility)
    except (ValueError, OverflowError):
        pass
    raise InvalidSetting("--differ", text, "Use axis, context:FIELD, or period:DAYS with a number of days above 0.")


def parse_effects(effects: list[str] | None) -> Observation | None:
    """The usual effects, with those that --effect adds."""
    if not effects:
        return None
    from seamark.models.effects import Bias, Lapse, Leniency, Position, Scale, Source, Taste
    from seamark.models.observation import Observation

    usual = list(Observation().effects)
    position = next(i for i, e in enumerate(usual) if isinstance(e, Position))
    for text in effects:
        what, _, by = text.partition(":")
        if what == "scale" and by:
            usual.append(Scale(by, within_rater=by in ("confidence", "seconds")))
        elif what == "lapse" and by:
            usual.append(Lapse(by))
        elif what == "position" and by == "raters":
            usual[position] = replace(usual[position], per_rater=True)  # type: ignore[call-arg]  # it is a Position
        elif what == "position" and by:
            usual[position] = replace(usual[position], by=by)  # type: ignore[call-arg]  # it is a Position
        elif text == "source" or (what == "source" and by):
            usual.append(Source(by))
        elif what == "leniency" and by:
            if Leniency() not in usual:
                raise InvalidSetting("--effect", text, "Leniency differs by one field at the most.")
            usual[usual.index(Leniency())] = Leniency(by)
        elif what == "bias" and by:
            usual.append(Bias(by.removesuffix(":raters"), per_rater=by.endswith(":raters")))
        elif what == "taste":
            usual.append(Taste(by) if by else Taste())
        else:
            raise InvalidSetting(
                "--effect",
                text,
                "Use scale:FIELD, lapse:FIELD, position:raters, position:FIELD, leniency:FIELD, source, source:FIELD, taste:NAME, bias:NAME or bias:NAME:raters.",
            )
    return Observation(effects=tuple(usual))
