"""The main job in order: load, diagnose, split, fit, evaluate, aggregate, export, report."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from seamark.aggregation import Charter
from seamark.checks.data import diagnose
from seamark.checks.findings import Finding, Findings
from seamark.checks.model import evaluate
from seamark.errors import InvalidSetting, NotConverged, SeamarkError
from seamark.models.fitting import Fit, fit
from seamark.models.people import Groups, People, Same
from seamark.models.utility import RESIDUALS, Linear, Tabular, Utility, default_utility
from seamark.records import Feedback
from seamark.rendering import Report, write_card, write_findings, write_report
from seamark.reward.signal import export_signal
from seamark.simulation import demo_society
from seamark.sources import load

DEMO = "demo"
"""The source that stands for the built-in simulated study."""

Progress = Callable[[str, float], None]
"""Called with what is being done and how far the whole is, 0 to 1."""

_LEAST = 40
"""Fewer judgments than this are not split: a held-out part of eight would say nothing."""


@dataclass(frozen=True)
class Study:
    """What a study found and where it put it."""

    report: Report
    fit: Fit | None
    folder: Path

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
    charter: Charter | None = None,
    split: str | None = None,
    held_out: str | Path | None = None,
    test: float = 0.2,
    axis: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """The whole study of one source, written to the folder `out`.

    Parameters
    ----------
    source : a path, hf://..., or "demo".
    split : unit of the held-out part (see `Feedback.split`); chosen from the data where not given.
    held_out : a source of its own to evaluate on, instead of a split.
    axis : study only the judgments on this axis.

    Raises
    ------
    SeamarkError
        If the source cannot be read, or `out` holds something that is not a study. Nothing is half-written.
    """
    say = progress or _quietly
    out = Path(out)
    _require_replaceable(out)
    command = _command(source, out, {
        "format": format, "columns": ",".join(f"{k}={v}" for k, v in columns.items()) if columns else None,
        "on-error": on_error if on_error != "stop" else None,
        "utility": None if utility is None else utility.features if isinstance(utility, Linear) else "tabular",
        "groups": None if people is None else people.by if isinstance(people, Groups) else "none",
        "charter": out / "charter.toml" if charter is not None else None, "split": split, "held-out": held_out, "axis": axis, "seed": seed,
    })  # fmt: skip
    say("reading", 0.0)
    feedback = _read(source, format, columns, on_error, seed)
    if axis is not None:
        feedback = _only_axis(feedback, axis)
    notes = list(feedback.report.notes)
    say("splitting", 0.1)
    if held_out is not None:
        train, test_part, how = feedback, load(held_out, format=format, columns=columns, on_error=on_error), f"held out: {held_out}"
    else:
        train, test_part, how = _split(feedback, utility, split, test, seed)
    notes.append(how)
    say("diagnosing", 0.15)
    findings = diagnose(feedback if held_out is None else train, held_out=None, seed=seed)
    if test_part is not None:
        if held_out is None and isinstance(utility or default_utility(feedback), Tabular):
            why = "a table of values is evaluated on other answers about the same responses, which share prompts and responses on purpose"
            found = [Finding.not_applicable("leakage", "Leakage is not at issue.", why)]
        else:
            found = diagnose_leakage(train, test_part, seed)
        findings = Findings(tuple(f for f in findings if not f.code.startswith("leakage"))) + found
    say("fitting", 0.3)
    fitted: Fit | None = None
    reason = ""
    utility, people, more = _choose_model(train, utility, people)
    notes += more
    try:
        fitted = fit(
            train, utility=utility, people=people, seed=seed, require_identified=False, require_converged=False,
            progress=lambda i, _decrement: say("fitting", 0.3 + 0.4 * (1 - np.exp(-i / 15))),
        )  # fmt: skip
    except (NotConverged, InvalidSetting):
        raise
    except SeamarkError as error:
        reason = str(error)
    say("evaluating", 0.75)
    if fitted is None:
        findings = findings + [Finding.not_applicable(code, "Nothing was fitted.", reason) for code in _MODEL_CODES]
    elif test_part is None:
        why = f"{feedback.n_judgments} judgments are too few to hold some out; {_LEAST} are needed"
        held = evaluate(fitted, train, train=train, seed=seed)
        kept = [f for f in held if f.code.split("/")[0] in ("rater-reliability", "doubts") or f.code.endswith("/fitted")]
        findings = (
            findings
            + kept
            + [Finding.not_applicable(c, "Nothing was held out.", why) for c in ("accuracy", "log-loss", "calibration", "baseline")]
        )
    else:
        findings = findings + evaluate(fitted, test_part, train=train, seed=seed)
    if fitted is not None:
        findings = _with_points(findings, fitted, feedback)
    charter = charter or Charter()
    report = Report(
        title=Path(str(source)).name if source != DEMO else "Simulated study with known truth",
        source=str(source),
        format=feedback.report.format,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        versions=fitted.versions if fitted else {},
        seed=seed,
        data={
            "n_judgments": feedback.n_judgments, "n_responses": feedback.n_responses, "n_prompts": feedback.n_prompts,
            "n_raters": feedback.n_raters or None, "fingerprint": feedback.fingerprint,
        },
        findings=findings,
        charter_toml=charter.to_toml(),
        charter_signed=charter.signed,
        fit=_describe(fitted) if fitted else {"reason": reason},
        skipped=feedback.report.skipped,
        notes=tuple(notes),
    )  # fmt: skip
    say("writing", 0.9)
    _write(report, fitted, feedback, charter, out)
    say("done", 1.0)
    return Study(report, fitted, out)


def _quietly(_stage: str, _share: float) -> None:
    pass


_MODEL_CODES = ("accuracy", "log-loss", "calibration", "baseline", "rater-reliability", "doubts")


def diagnose_leakage(train: Feedback, held_out: Feedback, seed: int) -> list[Finding]:
    """The leakage findings between two parts."""
    from seamark.checks.repeats import check_leakage

    return check_leakage(train, held_out, seed=seed)


def _read(
    source: str | Path, format: str | None, columns: Mapping[str, str] | None, on_error: Literal["stop", "skip"], seed: int
) -> Feedback:
    if str(source) == DEMO:
        society = demo_society(seed)
        return replace(society.feedback, report=replace(society.feedback.report, source=DEMO, format="simulation"))
    return load(source, format=format, columns=columns, on_error=on_error)


def _only_axis(feedback: Feedback, axis: str) -> Feedback:
    known = feedback.judgments["axis"].drop_nulls().unique().sort().to_list()
    if axis not in known:
        raise InvalidSetting("axis", axis, f"The data has {', '.join(known) or 'no axes'}.")
    return feedback.filter(pl.col("axis") == axis)


def _split(feedback: Feedback, utility: Utility | None, by: str | None, test: float, seed: int) -> tuple[Feedback, Feedback | None, str]:
    """Train and held-out parts, and how they were made."""
    if by is None:
        if feedback.n_judgments < _LEAST:
            return feedback, None, "nothing was held out: too few judgments"
        tabular = isinstance(utility or default_utility(feedback), Tabular)
        # a table knows nothing of new responses, so its held-out judgments are about the same ones
        by = "judgment" if tabular else "prompt" if feedback.n_prompts >= 5 else "rater" if feedback.n_raters >= 10 else "judgment"
    train, held = feedback.split(by=by, test=test, seed=seed)
    return train, held, f"{held.n_judgments:,} judgments ({held.n_judgments / feedback.n_judgments:.0%}) held out by {by}"


def _choose_model(train: Feedback, utility: Utility | None, people: People | None) -> tuple[Utility, People, list[str]]:
    """Groups where at least two are large enough to be told apart; fewer columns where there is less to learn them from."""
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
    if utility is None:
        utility = default_utility(train)
        if isinstance(utility, Linear):
            # groups and residuals multiply the parameters; on public data 256 to 1,024 columns did equally well
            room = 1024 if isinstance(people, Same) and train.n_responses > RESIDUALS else 256
            residual = None if isinstance(people, Same) or train.n_responses <= 700 else False
            utility = Linear(n_columns=int(np.clip(train.n_responses, 64, room)), residual=residual)
    return utility, people, notes


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
    features = spec["utility"].get("features")
    return {
        "utility": spec["utility"]["utility"] + (f"({features})" if features else ""),
        "people": spec["people"]["people"] + (f" by {spec['people']['by']}: {', '.join(fitted.groups)}" if "by" in spec["people"] else ""),
        "outcomes": sorted({type(f).__name__ for f in fitted.families.values()}),
        "effects": list(spec["observation"]["effects"]),
        "converged": convergence.converged,
        "iterations": convergence.iterations,
        "decrement": convergence.decrement,
        "parameters": [{"name": p.name, "estimate": p.estimate, "low": p.low, "high": p.high, "unit": p.unit} for p in fitted.parameters],
        "prior": fitted.prior,
        "notes": [*fitted.notes, *(f"{n:,} {what}: left out of the likelihood" for what, n in fitted.data["left_out"].items())],
    }


def _command(source: str | Path, out: Path, options: Mapping[str, Any]) -> str:
    """The shell command that makes this study again."""
    words = ["seamark", "study", str(source), "-o", str(out)]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


# ---------------------------------------------------------------------------------------------- files


def _require_replaceable(out: Path) -> None:
    """`out` may be replaced only if it is an earlier study, or empty."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "study.json").is_file()):
        raise InvalidSetting("output", str(out), "It exists and is not a study; give a new folder.")


def _write(report: Report, fitted: Fit | None, feedback: Feedback, charter: Charter, out: Path) -> None:
    """Everything into a folder beside `out`, then into its place: a reader never sees half a study."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / "study"
        folder.mkdir()
        write_findings(report, folder / "findings.json")
        write_report(report, folder / "report.html")
        write_card(report, folder / "card.md")
        (folder / "charter.toml").write_text(charter.to_toml(), encoding="utf-8")
        if fitted is not None:
            fitted.save(folder / "fit")
            export_signal(fitted, feedback, folder / "signal" / "train.jsonl", charter=charter)
        manifest = {k: v for k, v in vars(report).items() if k != "findings"}
        (folder / "study.json").write_text(
            json.dumps({"seamark": "study", "version": 1, **manifest}, ensure_ascii=False, indent=1), encoding="utf-8"
        )
        if out.exists():
            shutil.move(str(out), str(Path(temporary) / "previous"))
        shutil.move(str(folder), str(out))


def rewrite_report(folder: str | Path) -> Path:
    """Draw report.html and card.md of a finished study again; returns the path of the report.

    Raises
    ------
    InvalidSetting
        If the folder does not hold a study.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))["findings"]
    except (OSError, ValueError, KeyError):
        raise InvalidSetting("folder", str(folder), "It is not a study; make one with seamark study.") from None
    fields = {k: v for k, v in manifest.items() if k not in ("seamark", "version")}
    fields |= {"skipped": tuple(fields["skipped"]), "notes": tuple(fields["notes"])}
    report = Report(findings=Findings(tuple(Finding(**f) for f in found)), **fields)
    write_report(report, folder / "report.html")
    write_card(report, folder / "card.md")
    return folder / "report.html"
