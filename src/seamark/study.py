"""The main job in order: load, diagnose, split, fit, evaluate, aggregate, export, report.

The separate commands take the same steps by the same functions: `read_source` and `choose_model` are theirs too, so that
`seamark fit` of a study's training part gives the study's model.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from seamark.aggregation import Charter
from seamark.checks.charter import check_charter
from seamark.checks.data import diagnose
from seamark.checks.dissent import check_dissent
from seamark.checks.findings import Finding, Findings
from seamark.checks.model import check_leaderboard, evaluate
from seamark.checks.repeats import check_leakage
from seamark.errors import InvalidSetting, MissingExtra, SeamarkError, UnreadableSource, UnwritableOutput
from seamark.governance.access import check_claims
from seamark.governance.constitution import check_register
from seamark.governance.disclosure import known_disclosures, require_indicators
from seamark.governance.log import Entry, append, require_appendable
from seamark.governance.registers import Register
from seamark.models.fitting import fit
from seamark.models.observation import Observation
from seamark.models.people import Groups, People, Same
from seamark.models.result import Fit
from seamark.models.utility import RESIDUALS, Context, Dynamic, Linear, MultiAxis, Tabular, Utility, default_utility
from seamark.outputs import require_folder_place, whole_file, whole_folder
from seamark.progress import Progress
from seamark.records import Feedback, require_usable
from seamark.rendering import Report, describe_data, write_card, write_findings, write_report
from seamark.reward.signal import Signal, export_signal
from seamark.simulation import demo_society
from seamark.sources import load

DEMO = "demo"
"""The source that stands for the built-in simulated study."""


_LEAST = 40
"""Fewer judgments than this are not split: a held-out part of eight would say nothing."""
_MARK = "study.json"
"""The file that tells the folder of a study."""
_CHARTER = "charter.toml"
_OWNED = (
    _MARK, "findings.json", "report.html", "card.md", _CHARTER, "fit/fit.json", "fit/arrays.safetensors", "signal/train.jsonl",
)  # fmt: skip
"""The files of a study, which another study in the same folder replaces."""
_LOGGED = ("findings.json", "fit/arrays.safetensors", "fit/fit.json", "signal/train.jsonl")
"""Those in which nothing says when or where they were made."""
_OF_THE_DAY = ("title", "source", "created", "command", "skipped", "notes")
"""What study.json says of when and where it was made, or in words that may name a path."""
_HELD_OUT_CODES = ("accuracy", "log-loss", "calibration", "baseline")
_FIT_CODES = ("convergence", "rater-reliability", "doubts")
"""What can be said of a fit when nothing was held out."""


@dataclass(frozen=True)
class Study:
    """What a study found and where it put it."""

    report: Report
    fit: Fit | None
    folder: Path
    entry: Entry | None = None
    """The entry of the log that says what was made; None where no log was given."""

    @property
    def findings(self) -> Findings:
        return self.report.findings

    @property
    def exit_code(self) -> int:
        """0 fine, 1 a blocking finding."""
        return 1 if self.findings.blocking else 0


def run_study(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    charter: Charter | None = None,
    split: str | None = None,
    held_out: str | Path | None = None,
    test: float = 0.2,
    axis: str | None = None,
    register: str | Path | None = None,
    log: str | Path | None = None,
    actor: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """The whole study of one source, written to the folder `out`.

    Parameters
    ----------
    source : a path, hf://..., or "demo".
    utility, people, observation : the model; `choose_model` chooses what is left out.
    split : unit of the held-out part (see `Feedback.split`); chosen from the data where not given.
    held_out : a source of its own to evaluate on, instead of a split.
    test : share of the judgments held out.
    axis : study only the judgments on this axis.
    charter : the written-out default where not given; but an edited charter.toml in `out`, from a study before, is kept and used.
    register : file of what people say of stakeholders, criteria, clauses, open questions and working conditions (`Register.from_toml`).
    log, actor : a log of decisions, and who answers for the entry in it. What was made of what (`describe_study`) is appended when the
        folder is in its place, and not again where the study is repeated and makes the same.

    Raises
    ------
    SeamarkError
        If the source cannot be read, `out` holds something that is not of a study, or another edited charter than the one given, or
        cannot be written, or the log is not whole or cannot be written. Nothing is half-written.
    """
    asked = {
        "format": format, "columns": columns, "on_error": on_error, "utility": utility, "people": people, "observation": observation, "charter": charter,
        "split": split, "held_out": held_out, "test": test, "axis": axis, "register": register, "seed": seed,
    }  # fmt: skip
    say = progress or _quietly
    out = Path(out)
    require_folder_place(out, mark=_MARK, owned=_owned(out))
    charter, charter_text = _charter(charter, out)
    charter.require_valid()
    _require_log(log, actor, (out, *(Path(place) for place in (source, held_out) if place is not None and str(place) != DEMO)))
    told = Register.from_toml(register) if register is not None else Register()
    require_indicators(told.disclosures)
    say("reading", 0.0)
    feedback = read_source(source, format=format, columns=columns, on_error=on_error, axis=axis, seed=seed)
    say("splitting", 0.1)
    if held_out is None:
        parts = _split(feedback, utility, split, test, seed)
    else:
        other = read_source(held_out, format=format, columns=columns, on_error=on_error, axis=axis, seed=seed)
        parts = _Parts(feedback, other, f"held out: {held_out}")
    say("diagnosing", 0.15)
    findings = _diagnose(feedback, parts, seed)
    if feedback.has("group"):
        findings += check_dissent(feedback, seed=seed)
    say("fitting", 0.3)
    if people is None and charter.names_groups:
        people = Groups()
    model = choose_model(parts.train, utility=utility, people=people, observation=observation)
    fitted, reason = _fit(charter.weigh(parts.train), model, seed, say)
    if fitted is not None:
        fitted = charter.stamp(fitted, parts.train)
    say("evaluating", 0.75)
    findings = findings + _evaluate(fitted, reason, parts, seed)
    if fitted is not None:
        findings = _with_points(findings, fitted, feedback) + check_leaderboard(fitted, feedback)
        findings = findings + check_charter(fitted, charter, feedback, seed=seed)
        if parts.held_out is not None and held_out is None:  # so that evaluate knows the whole data again
            fitted = replace(fitted, data={**fitted.data, "part_of": feedback.fingerprint})
    findings = findings.with_access("white-box")
    if register is not None:
        findings += check_register(told.model_copy(update={"claims": ()}), feedback, findings)  # the claims wait for the signal
    report = Report(
        title=Path(str(source)).name if source != DEMO else "Simulated study with known truth",
        source=str(source),
        format=feedback.report.format,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=_command(source, out, asked),
        versions=fitted.versions if fitted else {},
        seed=seed,
        data=describe_data(feedback),
        findings=findings,
        charter_toml=charter_text,
        charter_signed=charter.signed,
        charter_hash=charter.hash,
        valid_until=charter.valid_until,
        fit=_describe(fitted) if fitted else {"reason": reason},
        skipped=feedback.report.skipped,
        notes=(*feedback.report.notes, parts.how, *model.notes),
        disclosures=_disclosures(known_disclosures(feedback), told.disclosures),
        answers=told.answers,
    )
    say("writing", 0.9)
    report = _write(report, fitted, feedback, charter, told, out)
    entry = _append(log, actor, out) if log is not None else None
    say("done", 1.0)
    return Study(report, fitted, out, entry)


def _owned(out: Path) -> tuple[str, ...]:
    """The files of a study in `out`, with the population file that its charter brought along."""
    place = out / _CHARTER
    target = Charter.from_toml(place).electorate.target if (out / _MARK).is_file() and place.is_file() else ""
    return (*_OWNED, target) if target else _OWNED


def _charter(given: Charter | None, out: Path) -> tuple[Charter, str]:
    """The charter to use, and its text as it is to be written: an edited one in `out` is not lost.

    Raises
    ------
    SeamarkError
        If the one in `out` cannot be read, or is neither the default nor the one given.
    """
    place = out / _CHARTER
    if not place.is_file():
        charter = given or Charter()
        return charter, charter.to_toml()
    there = Charter.from_toml(place)
    if given is None or given == there:
        # the population file of the one given may have changed
        return given or there, place.read_text(encoding="utf-8")
    if there != Charter():
        remedy = "It has been edited and is not the charter given, so it is not replaced: give that one, move it, or give a new folder."
        raise InvalidSetting("output", str(place), remedy)
    return given, given.to_toml()


def _require_log(log: str | Path | None, actor: str, taken: Iterable[Path]) -> None:
    """Nothing, where an entry can be appended to the log once the work is done."""
    if log is None:
        if actor:
            raise InvalidSetting("actor", actor, "It goes with a log, which says who answers for it: name that as well, or leave it out.")
        return
    place = Path(log).resolve()
    if any(one == place or one in place.parents for one in (path.resolve() for path in taken)):
        raise InvalidSetting("log", str(log), "It is, or lies in, what the study reads or replaces: give it a place of its own.")
    require_appendable(log, actor=actor)


def _append(log: str | Path, actor: str, out: Path) -> Entry:
    """The entry of the study in `out`, new or from when it made the same before."""
    try:
        return append(log, "data", describe_study(out), actor=actor, once=True)
    except OSError as error:
        remedy = f"The study is in {out}, and not in the log: put that right, and run the same again."
        raise UnwritableOutput(str(log), error.strerror or str(error), remedy) from error


def _quietly(_stage: str, _share: float) -> None:
    pass


# ---------------------------------------------------------------------------------------------- steps that commands share


def read_source(
    source: str | Path,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    axis: str | None = None,
    seed: int = 0,
) -> Feedback:
    """The feedback that every step starts from: of a path, of hf://..., or for "demo" of the simulated society of this seed.

    Raises
    ------
    SeamarkError
        If the source cannot be read, has no such axis, or nothing can be learned from it.
    """
    if str(source) == DEMO:
        society = demo_society(seed)
        feedback = replace(society.feedback, report=replace(society.feedback.report, source=DEMO))
    else:
        feedback = load(source, format=format, columns=columns, on_error=on_error)
    if axis is not None:
        known = feedback.judgments["axis"].drop_nulls().unique().sort().to_list()
        if axis not in known:
            raise InvalidSetting("axis", axis, f"The data has {', '.join(known) or 'no axes'}.")
        feedback = feedback.filter(pl.col("axis") == axis)
    require_usable(feedback)
    return feedback


@dataclass(frozen=True)
class ModelChoice:
    """The model that a study fits, with what is to be said about the choice."""

    utility: Utility
    people: People
    observation: Observation
    notes: tuple[str, ...]


def choose_model(
    train: Feedback, *, utility: Utility | None = None, people: People | None = None, observation: Observation | None = None
) -> ModelChoice:
    """What is asked for, and for what is not: groups where at least two are large enough to be told apart, and fewer columns
    where there is less to learn them from."""
    notes: list[str] = []
    if people is None:
        people = Same()
        if train.has("group"):
            counts = train.judgments["group"].drop_nulls().value_counts()
            large = counts.filter(pl.col("count") >= max(200, 0.02 * train.n_judgments))
            if 2 <= large.height <= 6:
                people = Groups("group", min_judgments=int(large["count"].min()))  # type: ignore[arg-type]  # minimum of a non-empty integer column
            elif counts.height >= 2:
                notes.append(
                    f"{counts.height} groups: one population was fitted, since 2 to 6 groups of 200 judgments or more are needed to compare them"
                )
    open_to_choice = isinstance(utility, MultiAxis | Context | Dynamic) and utility.utility is None
    if utility is None or open_to_choice:
        inner = default_utility(train)
        if isinstance(inner, Linear):
            # groups and residuals multiply the parameters; on public data 256 to 1,024 columns did equally well
            room = 1024 if isinstance(people, Same) and not open_to_choice and train.n_responses > RESIDUALS else 256
            residual = None if isinstance(people, Same) or train.n_responses <= 700 else False
            inner = Linear(n_columns=int(np.clip(train.n_responses, 64, room)), residual=residual)
        utility = replace(utility, utility=inner) if isinstance(utility, MultiAxis | Context | Dynamic) else inner
    return ModelChoice(utility, people, observation or Observation(), tuple(notes))


# ---------------------------------------------------------------------------------------------- steps of the study alone


@dataclass(frozen=True)
class _Parts:
    """What is learned from and what is held out."""

    train: Feedback
    held_out: Feedback | None
    how: str
    shared: str = ""
    """Why they are about the same prompts and responses on purpose; empty where they should not be."""


def _split(feedback: Feedback, utility: Utility | None, by: str | None, test: float, seed: int) -> _Parts:
    inside = utility.utility if isinstance(utility, MultiAxis | Context | Dynamic) else utility
    tabular = isinstance(inside or default_utility(feedback), Tabular)
    if by is None:
        if feedback.n_judgments < _LEAST:
            return _Parts(feedback, None, "nothing was held out: too few judgments")
        # a table knows nothing of new responses, so its held-out judgments are about the same ones
        by = "judgment" if tabular else "prompt" if feedback.n_prompts >= 5 else "rater" if feedback.n_raters >= 10 else "judgment"
    train, held = feedback.split(by=by, test=test, seed=seed)
    how = f"{held.n_judgments:,} judgments ({held.n_judgments / feedback.n_judgments:.0%}) held out by {by}"
    shared = ""
    if tabular:
        shared = "A table of values is evaluated on other answers about the same responses, which share prompts and responses on purpose."
    elif by not in ("prompt", "prompt_cluster"):
        shared = f"Judgments were held out by {by}: both parts are about the same prompts on purpose, and say nothing of new ones."
    return _Parts(train, held, how, shared)


def _diagnose(feedback: Feedback, parts: _Parts, seed: int) -> Findings:
    """What the whole data says, and what passes from the training part to the held-out one."""
    found = diagnose(feedback, seed=seed)
    if parts.held_out is None:
        none = Finding.not_applicable("leakage", "Leakage is not at issue.", f"{parts.how[:1].upper()}{parts.how[1:]}.")
        return Findings(tuple(none if f.code == "leakage" else f for f in found)).with_access("outside-the-box")
    leakage = (
        [Finding.not_applicable("leakage", "Leakage is not at issue.", parts.shared)]
        if parts.shared
        else check_leakage(parts.train, parts.held_out, seed=seed)
    )
    return (Findings(tuple(f for f in found if not f.code.startswith("leakage"))) + leakage).with_access("outside-the-box")


def _fit(train: Feedback, model: ModelChoice, seed: int, say: Progress) -> tuple[Fit | None, str]:
    """The fit, or why there is none: a study goes on without."""
    try:
        fitted = fit(
            train, utility=model.utility, people=model.people, observation=model.observation, seed=seed, require_identified=False, require_converged=False,
            progress=lambda i, _decrement: say("fitting", 0.3 + 0.4 * (1 - np.exp(-i / 15))),
        )  # fmt: skip
    except (InvalidSetting, MissingExtra, UnreadableSource):  # what was asked for is wrong, not the data
        raise
    except SeamarkError as error:
        return None, str(error)
    return fitted, ""


def _evaluate(fitted: Fit | None, reason: str, parts: _Parts, seed: int) -> list[Finding]:
    """What the held-out part says of the fit; every code is there, with the reason where it cannot be computed."""
    if fitted is None:
        return [Finding.not_applicable(code, "Nothing was fitted.", reason) for code in (*_HELD_OUT_CODES, *_FIT_CODES)]
    if parts.held_out is not None:
        # what passes from one part to the other was looked for before the fit
        found = evaluate(fitted, parts.held_out, train=parts.train, seed=seed)
        return [f for f in found if not f.code.startswith("leakage")]
    n = parts.train.n_judgments
    why = f"{n} judgment{' is' if n == 1 else 's are'} too few to hold some out; {_LEAST} are needed."
    found = evaluate(fitted, parts.train, train=parts.train, seed=seed)
    kept = [f for f in found if f.code.split("/")[0] in _FIT_CODES or f.code.endswith("/fitted")]
    return kept + [Finding.not_applicable(code, "Nothing was held out.", why) for code in _HELD_OUT_CODES]


def _with_points(findings: Findings, fitted: Fit, feedback: Feedback, *, limit: int = 800) -> Findings:
    """The length finding with utility against length of a sample of responses, for the chart."""
    length = findings.get("length")
    texts = feedback.responses["text"]
    if length is None or length.verdict == "not_applicable" or texts.null_count():
        return findings
    utilities = fitted.utilities(feedback)
    keep = np.flatnonzero(np.isfinite(utilities))
    rng = np.random.default_rng(0)
    keep = np.sort(rng.choice(keep, min(limit, len(keep)), replace=False))
    log_length = np.log1p(texts.str.len_chars().to_numpy())
    points = [{"log_length": round(float(log_length[i]), 4), "utility": round(float(utilities[i]), 4)} for i in keep]
    return Findings(tuple(replace(f, details={**f.details, "points": points}) if f is length else f for f in findings))


def _describe(fitted: Fit) -> dict[str, Any]:
    spec, convergence = fitted.spec, fitted.convergence
    inside = spec["utility"].get("of") or spec["utility"]
    utility = inside["utility"] + (f"({inside['features']})" if "features" in inside else "")
    return {
        "utility": utility if inside is spec["utility"] else f"{spec['utility']['utility']}({utility})",
        "people": spec["people"]["people"]
        + (f" by {_by(spec['people']['by'])}: {', '.join(fitted.groups)}" if "by" in spec["people"] else ""),
        "outcomes": sorted({type(f).__name__ for f in fitted.families.values()}),
        "effects": [_effect_in_words(effect) for effect in spec["observation"]["effects"]],
        "converged": convergence.converged,
        "iterations": convergence.iterations,
        "decrement": convergence.decrement,
        "parameters": [
            *({"name": p.name, "estimate": p.estimate, "low": p.low, "high": p.high, "unit": p.unit} for p in fitted.parameters),
            *({"name": s.label, "estimate": s.sd, "low": s.low, "high": s.high, "unit": s.unit} for s in fitted.spreads),
        ],
        "prior": fitted.prior,
        "notes": [*fitted.notes, *(f"{n:,} {what}: left out of the likelihood" for what, n in fitted.data["left_out"].items())],
    }


def _by(by: str | list[str]) -> str:
    return by if isinstance(by, str) else " and ".join(by)


def _effect_in_words(effect: Mapping[str, Any]) -> str:
    """Position, or Scale(by=team): what was said beside the usual."""
    said = ", ".join(f"{name}={value}" for name, value in effect.items() if name != "effect" and value not in ("", False))
    return effect["effect"] + (f"({said})" if said else "")


def _command(source: str | Path, out: Path, asked: Mapping[str, Any]) -> str:
    """What makes this study again: a shell command, or the Python call where the command line cannot say it."""
    usual = {name: p.default for name, p in inspect.signature(run_study).parameters.items()}
    given = {name: value for name, value in asked.items() if name == "seed" or value != usual[name]}
    if "charter" in given:
        given["charter"] = out / "charter.toml"
    words = {name: _word(name, value) for name, value in given.items()}
    if None not in words.values():
        option = {"people": "groups", "on_error": "on-error", "held_out": "held-out"}
        options = [part for name, word in words.items() for part in (f"--{option.get(name, name)}", str(word))]
        return shlex.join(["seamark", "study", str(source), "-o", str(out), *options])
    call = "".join(f", {name}={_code(name, value)}" for name, value in given.items())
    needed = [f"import {name}\n" for name in ("datetime", "seamark.models") if f"{name}." in call]
    return f"{''.join(needed)}import seamark as sm\n\nsm.run_study({str(source)!r}, {str(out)!r}{call})"


def _word(name: str, value: Any) -> str | None:
    """A setting as the command line takes it; None where it cannot."""
    match name, value:
        case "utility", Tabular():
            return "tabular"
        case "utility", Linear(features=features, bends=bends):
            return features + "+bends" * bends if value == Linear(features, bends=bends) else None
        case "people", Same():
            return "none"
        case "people", Groups(by=by):
            columns = (by,) if isinstance(by, str) else by
            plain = value == Groups(by) and not any("," in column or column != column.strip() for column in columns)
            return ",".join(columns) if plain else None
        case "columns", dict():
            plain = all(not set(",=") & set(ours + theirs) for ours, theirs in value.items())
            return ",".join(f"{ours}={theirs}" for ours, theirs in value.items()) if plain else None
        case "utility" | "people" | "observation" | "test", _:
            return None
        case _:
            return str(value)


def _code(name: str, value: Any) -> str:
    """A setting as Python source."""
    if name == "charter":
        return f"sm.Charter.from_toml({str(value)!r})"
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, Tabular | Linear | Same | Groups):
        return f"sm.{value!r}"
    # what stands inside is written out, too
    return re.sub(r"\b(?=[A-Z]\w*\()", "seamark.models.", repr(value)) if name in ("utility", "people", "observation") else repr(value)


# ---------------------------------------------------------------------------------------------- files


def _disclosures(measured: dict[str, str], stated: Mapping[str, str]) -> dict[str, str]:
    """What the feedback tells of each indicator, and what people say beside it: neither takes the other's place."""
    both = {name: f"{measured[name]}; stated: {text}" for name, text in stated.items() if name in measured}
    return {**measured, **stated, **both}


def _write(report: Report, fitted: Fit | None, feedback: Feedback, charter: Charter, told: Register, out: Path) -> Report:
    """Everything into a folder beside `out`, then into its place; returns the report with what became of the signal, and of the claims."""
    with whole_folder(out, mark=_MARK, owned=_owned(out)) as folder:
        if fitted is not None:
            fitted.save(folder / "fit")
            written = export_signal(fitted, feedback, folder / "signal" / "train.jsonl", charter=charter)
            report = replace(report, findings=Findings((*report.findings, _signal_finding(written))))
        report = replace(report, findings=Findings((*report.findings, *check_claims(told.claims, report.findings))))
        write_findings(report, folder / "findings.json")
        write_report(report, folder / "report.html")
        write_card(report, folder / "card.md")
        charter.write(folder, text=report.charter_toml)
        manifest = {k: v for k, v in vars(report).items() if k != "findings"}
        text = json.dumps({"seamark": "study", "version": 1, **manifest}, ensure_ascii=False, indent=1)
        (folder / _MARK).write_bytes(text.encode("utf-8", "backslashreplace"))  # undecodable bytes of file names are lone surrogates
    return report


def _signal_finding(written: Signal) -> Finding:
    """How many rows there are to train on, and why not more."""
    return Finding(
        code="signal",
        title=f"The training signal has {written}.",
        estimate=float(written.n_rows),
        n=written.n_rows + sum(written.left_out.values()),
        unit="count",
        verdict="ok" if written.n_rows else "warning",
        reason="A row per pair of responses that was judged; n counts such pairs. A count of facts: no interval.",
        remedy=None
        if written.n_rows
        else "There is nothing to train on: give the responses' texts, and judgments that choose between two.",
        details={"left_out": written.left_out},
        access="white-box",
    )


def read_findings(folder: str | Path) -> Findings:
    """The findings of a finished study.

    Raises
    ------
    InvalidSetting
        If the folder does not hold a study.
    """
    try:
        found = json.loads((Path(folder) / "findings.json").read_text(encoding="utf-8"))["findings"]
        return Findings(tuple(Finding(**f) for f in found))
    except (OSError, ValueError, KeyError, TypeError):
        raise _no_study(Path(folder)) from None


def describe_study(folder: str | Path) -> dict[str, Any]:
    """What a log is told of a finished study, read from its files; nothing in it says when or in which folder the study was made.

    Returns
    -------
    dict
        The body of an entry of kind data: `fingerprint` and `source` (its name, without the folder), and of the `study` the hash of its
        `charter`, whether that is `signed`, SHA-256 of its `files` (findings, fit, signal), SHA-256 of what the `report` says beside
        these (study.json without what depends on the day and place, as JSON with sorted keys), and the codes of `blocking` findings.

    Raises
    ------
    InvalidSetting
        If the folder does not hold a study.
    """
    folder = Path(folder)
    blocking = [f.code for f in read_findings(folder).blocking]
    try:
        manifest = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        source = str(manifest["source"])
        lasting = json.dumps({name: value for name, value in manifest.items() if name not in _OF_THE_DAY}, sort_keys=True)
        made = {
            "charter": manifest["charter_hash"],
            "signed": manifest["charter_signed"],
            "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _LOGGED if (folder / name).is_file()},
            "report": hashlib.sha256(lasting.encode()).hexdigest(),
            "blocking": blocking,
        }
        fingerprint = manifest["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _no_study(folder) from None
    name = source if source.startswith("hf://") else Path(source).name or source
    # undecodable bytes of a file name are lone surrogates, which no log can hold
    return {"fingerprint": fingerprint, "source": name.encode("utf-8", "backslashreplace").decode(), "study": made}


def _no_study(folder: Path) -> InvalidSetting:
    return InvalidSetting("folder", str(folder), "It is not a study; make one with seamark study.")


def rewrite_report(folder: str | Path) -> Path:
    """Draw report.html and card.md of a finished study again; returns the path of the report.

    Raises
    ------
    InvalidSetting
        If the folder does not hold a study.
    """
    folder = Path(folder)
    report = _read_report(folder)
    with whole_file(folder / "report.html") as fresh:
        write_report(report, fresh)
    with whole_file(folder / "card.md") as fresh:
        write_card(report, fresh)
    return folder / "report.html"


def add_findings(folder: str | Path, findings: Findings, *, command: str = "", subject: str = "") -> Path:
    """Put the findings of a later check into a finished study: findings.json, report.html and card.md; returns the path of the report.

    The same command about the same subject replaces what it said before; what the study itself said, and other commands, stays beside it, under the
    same codes too.

    Parameters
    ----------
    command, subject : what was run, and the model, benchmark or data that it was about, in the words that it was asked for with. Both stand in the
        details of each finding, beside `added`.

    Raises
    ------
    InvalidSetting
        If the folder does not hold a study.
    """
    folder = Path(folder)
    report = _read_report(folder)
    mark = {"added": True, "command": command, "subject": subject}
    kept = [f for f in report.findings if any(f.details.get(name) != value for name, value in mark.items())]
    report = replace(report, findings=Findings((*kept, *(replace(f, details={**f.details, **mark}) for f in findings))))
    with whole_file(folder / "findings.json") as path:
        write_findings(report, path)
    return rewrite_report(folder)


def _read_report(folder: Path) -> Report:
    try:
        manifest = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        fields = {k: v for k, v in manifest.items() if k not in ("seamark", "version")}
        fields |= {"skipped": tuple(fields["skipped"]), "notes": tuple(fields["notes"])}
        return Report(findings=read_findings(folder), **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _no_study(folder) from None
