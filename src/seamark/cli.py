"""The command line: parse, call one public function, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seamark.errors import InvalidSetting, MissingExtra, SeamarkError

if TYPE_CHECKING:
    from seamark.aggregation import Charter
    from seamark.checks import Findings
    from seamark.models.observation import Observation
    from seamark.models.people import People
    from seamark.models.utility import Utility
    from seamark.records import Feedback


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"seamark {version('seamark')}")
        raise typer.Exit


def _show_settings(asked: bool) -> None:
    if asked:
        from seamark.simulation import table_of_settings

        for name, usual in table_of_settings():
            typer.echo(f"{name:<26}{usual}")
        raise typer.Exit


app = typer.Typer(
    name="seamark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    typer.Option("--utility", help="hash, tabular, or the name or path of a text encoder; chosen from the data where not given."),
]
GroupsOption = Annotated[str | None, typer.Option("--groups", help="Field that holds the raters' group, or none for one population.")]
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
        "position:raters, position:FIELD, leniency:FIELD (team), source, source:FIELD (ui_version), taste:NAME (taste:log_characters), bias:NAME (a covariate of what was shown: style "
        "control), or bias:NAME:raters. May be given again.",
    ),
]
CharterOption = Annotated[Path | None, typer.Option("--charter", help="A charter.toml; the written-out default where not given.")]
ValidUntil = Annotated[
    str | None, typer.Option("--valid-until", help="Last day on which the reward may be used (2026-12-31), in place of the charter's.")
]
FitFolder = Annotated[Path, typer.Argument(metavar="FIT", help="The folder of a fit.")]
AxisOption = Annotated[str | None, typer.Option("--axis", help="Use only the judgments on this axis.")]


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Turns human feedback into a reward that can be steered by. Start with: seamark study prefs.jsonl -o out"""
    del version  # its callback has answered


@app.command()
def study(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report, the findings, the fit and the signal.")],
    format: FormatOption = None,
    columns: ColumnsOption = None,
    on_error: OnError = "stop",
    utility: UtilityOption = None,
    groups: GroupsOption = None,
    personas: PersonasOption = None,
    tastes: TastesOption = None,
    differ: DifferOption = None,
    effect: EffectOption = None,
    charter: CharterOption = None,
    valid_until: ValidUntil = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Unit of the held-out part: prompt, rater, group, time, source, prompt_cluster, judgment.")
    ] = None,
    held_out: Annotated[str | None, typer.Option("--held-out", help="A source of its own to evaluate on.")] = None,
    axis: AxisOption = None,
    register: Annotated[
        Path | None, typer.Option("--register", help="A register.toml: stakeholders, criteria, clauses, claims, disclosures, answers.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The main job: read, diagnose, fit, evaluate, export and report, in one folder."""
    from seamark.rendering import verdict_in_words
    from seamark.study import run_study

    with _progress(quiet=as_json) as say:
        result = run_study(
            source, out, format=format, columns=_columns(columns), on_error=_on_error(on_error), utility=_differ(differ, _utility(utility)),
            people=_people(groups, personas, tastes), observation=_observation(effect),
            charter=_chosen(charter, valid_until) if charter or valid_until else None, split=split, held_out=held_out, axis=axis, register=register, seed=seed, progress=say,
        )  # fmt: skip
    if as_json:
        typer.echo((result.folder / "findings.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print_findings(result.findings)
        _print_skipped(result.report.skipped)
        typer.echo(f"\nverdict: {verdict_in_words(result.findings)}")
        typer.echo(f"report: {result.folder / 'report.html'}")
        typer.echo(f"next: open the report; then edit and sign {result.folder / 'charter.toml'} and run the same again, which keeps it")
    raise typer.Exit(result.exit_code)


@app.command()
def diagnose(
    source: Source, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    held_out: Annotated[str | None, typer.Option("--held-out", help="A held-out source, to look for leakage.")] = None,
    seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Is this data fit to learn from?"""
    import seamark.checks

    feedback = _read(source, format, columns, on_error, axis, seed)
    other = _read(held_out, format, columns, on_error, axis, seed) if held_out else None
    _finish(feedback, seamark.checks.diagnose(feedback, held_out=other, seed=seed), as_json, f"seamark study {source} -o out")


@app.command()
def fit(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the fit.")],
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop",
    utility: UtilityOption = None, groups: GroupsOption = None, personas: PersonasOption = None, tastes: TastesOption = None,
    differ: DifferOption = None, effect: EffectOption = None,
    charter: Annotated[Path | None, typer.Option("--charter", help="A charter.toml by whose recency judgments are weighed.")] = None,
    axis: AxisOption = None, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Fit the feedback model that a study would, to all of the source."""
    import seamark.models
    from seamark.aggregation import Charter
    from seamark.outputs import require_folder_place
    from seamark.study import choose_model

    require_folder_place(out, mark="fit.json")
    feedback = _read(source, format, columns, on_error, axis, seed)
    model = choose_model(
        feedback, utility=_differ(differ, _utility(utility)), people=_people(groups, personas, tastes), observation=_observation(effect)
    )
    with _progress(quiet=as_json) as say:
        chosen = Charter.from_toml(charter) if charter else Charter()
        fitted = seamark.models.fit(
            chosen.weigh(feedback), utility=model.utility, people=model.people, observation=model.observation, seed=seed,
            progress=lambda i, _: say("fitting", min(0.95, i / 60)),
        )  # fmt: skip
        fitted = chosen.stamp(fitted, feedback)
    fitted.save(out)
    if as_json:
        typer.echo((out / "fit.json").read_text(encoding="utf-8"))
        return
    typer.echo(repr(fitted))
    _print_skipped(feedback.report.skipped)
    for p in fitted.parameters:
        typer.echo(f"  {p.name:<36} {p.estimate:+8.3f}  [{p.low:+.3f}, {p.high:+.3f}] {p.unit}")
    for s in fitted.spreads:
        typer.echo(f"  {s.label:<36}  {s.sd:7.3f}  [{s.low:.3f}, {s.high:.3f}] {s.unit}")
    for note in (*model.notes, *fitted.notes):
        typer.echo(f"  note: {note}")
    typer.echo(f"next: seamark evaluate {out} HELD_OUT")


@app.command()
def train(
    source: Source,
    model: Annotated[str, typer.Option("--model", help="Folder or hub name of a language model, reward model or encoder to start from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the reward model; a run that was stopped goes on from there.")],
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    held_out: Annotated[str | None, typer.Option("--held-out", help="A source of its own, evaluated at the end of each epoch.")] = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the judgments.")] = 1.0,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")] = 1e-5,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of a batch on one device, pads included.")] = 4096,
    max_length: Annotated[int | None, typer.Option("--max-length", help="Most tokens of a conversation.")] = None,
    cut: Annotated[bool, typer.Option("--cut", help="Cut the oldest tokens of longer conversations, in place of refusing them.")] = False,
    head: Annotated[str, typer.Option("--head", help="linear, mean_variance, categorical, bottleneck, odin or ensemble.")] = "linear",
    lora: Annotated[int, typer.Option("--lora", help="Train adapters of this rank in place of all weights; 0: all weights.")] = 0,
    labels: Annotated[
        str, typer.Option("--labels", help="given; or soft, weight or flip: by how likely cross-fitted gaps make each label a flip.")
    ] = "given",
    held_back: Annotated[float, typer.Option("--held-back", help="Share of prompts kept for the last layer's fit alone.")] = 0.0,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of further settings (those of transformers' Trainer).")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One of them. Repeat it.")] = None,
    groups: GroupsOption = None, personas: PersonasOption = None, tastes: TastesOption = None, differ: DifferOption = None,
    effect: EffectOption = None, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Train a language model as a reward model on judgments of any kind, then fit its last layer with intervals.

    On several devices or machines: accelerate launch [...] -m seamark train SOURCE --model MODEL -o OUT
    """
    import seamark.models
    from seamark.models.utility import Network
    from seamark.study import choose_model

    if find_spec("transformers") is None or find_spec("accelerate") is None:
        raise MissingExtra("lm", "Training a language model")
    feedback = _read(source, format, columns, on_error, axis, seed)
    other = _read(held_out, format, columns, on_error, axis, seed) if held_out else None
    if labels == "soft" or labels == "weight" or labels == "flip":
        from seamark.models.label_quality import cross_fitted, softened

        quality = cross_fitted(feedback, seed=seed)
        feedback = softened(feedback, quality, how=labels)
        if not as_json:
            low, high = quality.flip_rate_low, quality.flip_rate_high
            typer.echo(f"labels flipped: {quality.flip_rate:.1%} [{low:.1%}, {high:.1%}] of {quality.n:,}, by fits that did not see them")
    elif labels != "given":
        raise InvalidSetting("--labels", labels, "Use given, soft, weight or flip.")
    usual: dict[str, Any] = {"num_train_epochs": epochs, "learning_rate": learning_rate, "tokens_per_batch": tokens, "seed": seed}
    usual |= {"lora_r": lora} if lora else {}
    usual |= ({"max_length": max_length} if max_length else {}) | ({"overlong": "cut"} if cut else {})
    usual |= {"disable_tqdm": as_json or not sys.stderr.isatty()}
    network = Network(model, str(out), head=head, held_back=held_back, settings=usual | _settings(config, setting))
    chosen = choose_model(
        feedback, utility=_differ(differ, network), people=_people(groups, personas, tastes), observation=_observation(effect)
    )
    fitted = seamark.models.fit(
        feedback, utility=chosen.utility, people=chosen.people, observation=chosen.observation, held_out=other, seed=seed
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")):  # one process of several speaks
        return
    fitted.save(out / "fit")
    _print_skipped(feedback.report.skipped)
    said = json.loads((out / "seamark.json").read_text(encoding="utf-8"))
    read = said["tokens"]
    _say(
        as_json,
        f"{fitted!r}\nreward model: {out}, fit of its last layer: {out / 'fit'}\n"
        f"read {read['forward']:,} tokens an epoch for {read['distinct']:,} distinct ones and {read['judgments']:,.0f} judgments\n"
        f"next: seamark evaluate {out / 'fit'} HELD_OUT; seamark export {out / 'fit'} --to hf -o released; seamark check-parity {out}",
        reward_model=str(out), fit=str(out / "fit"), tokens=read, shares_prompts=said["shares_prompts"], notes=list(fitted.notes),
    )  # fmt: skip
    if not as_json:
        for note in (*chosen.notes, *fitted.notes):
            typer.echo(f"  note: {note}")


@app.command()
def evaluate(
    fit: FitFolder, source: Source, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop",
    train: Annotated[str | None, typer.Option("--train", help="What was fitted, from which the trivial rules learn as well.")] = None,
    axis: AxisOption = None, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Does the fit predict judgments it has not seen?"""
    import seamark.checks
    from seamark.reward import open_fit

    fitted = open_fit(fit)
    feedback = _read(source, format, columns, on_error, axis, seed)
    learned = _read(train, format, columns, on_error, axis, seed) if train else None
    findings = seamark.checks.evaluate(fitted, feedback, train=learned, seed=seed)
    _finish(feedback, findings, as_json, f"seamark export {fit} {source} -o signal.jsonl")


@app.command()
def export(
    fit: FitFolder,
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Judgments whose pairs are written; not with --to hf.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSONL file of TRL-ready rows (signal.jsonl), or with --to hf a folder (released).")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", help="rows: preferences for TRL; hf: a reward model that transformers, TRL, OpenRLHF and vLLM load.")
    ] = "rows",
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", charter: CharterOption = None,
    valid_until: ValidUntil = None,
    allow_expired: Annotated[bool, typer.Option("--allow-expired", help="Write it although the charter's valid_until has passed.")] = False,
    axis: AxisOption = None, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Write the training signal: rows (prompt, chosen, rejected, margin, p_chosen, weight, the doubts), or a reward model."""
    from seamark.outputs import require_file_place
    from seamark.reward import export_reward_model, export_signal, open_fit

    if to not in ("rows", "hf"):
        raise InvalidSetting("--to", to, "Use rows or hf.")
    if (to == "hf") != (source is None):
        raise InvalidSetting(
            "SOURCE", source, "Name the judgments whose pairs are written." if to == "rows" else "--to hf needs the fit alone."
        )
    out = out or Path("signal.jsonl" if to == "rows" else "released")
    chosen = _chosen(charter, valid_until)
    stamp = "" if chosen.signed else "\ncharter unsigned: not releasable"
    signed: dict[str, Any] = {"charter": chosen.title, "charter_signed": chosen.signed}
    if source is None:
        made = export_reward_model(open_fit(fit), out, charter=chosen, allow_expired=allow_expired)
        _say(
            as_json, f"reward model: {out} (intercept {made['intercept']:+.3f}, in seamark.json){stamp}\nnext: seamark check-parity {out}",
            reward_model=str(out), **made, **signed,
        )  # fmt: skip
        return
    require_file_place(out)
    if any(_holds(place, out) for place in (Path(source), fit)):
        raise InvalidSetting("--out", str(out), "It is, or is part of, what is read, and would be lost. Give another name.")
    feedback = _read(source, format, columns, on_error, axis, seed)
    written = export_signal(open_fit(fit), feedback, out, charter=chosen, allow_expired=allow_expired)
    if not as_json:
        _print_skipped(feedback.report.skipped)
    _say(as_json, f"{written}: {out}{stamp}", signal=str(out), n_rows=written.n_rows, left_out=written.left_out, **signed)


@app.command(name="check-parity")
def check_parity(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="The folder, or hub name, of a reward model.")],
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Judgments, of which some responses are scored; built-in conversations otherwise.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="A server of the checkpoint: http://HOST:PORT/classify, /get_reward or /v1/score/evaluation.")
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="What it was trained on, to look for overlap with SOURCE.")] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Difference that is let pass, in standard deviations of the scores; 0.001 in float32.")
    ] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Does a saved reward model give the same scores in Seamark, transformers, TRL and on a server?"""
    import seamark.checks

    for name, value in {"--train": train, "--format": format, "--columns": columns, "--axis": axis}.items():
        if source is None and value is not None:
            raise InvalidSetting(name, value, "It is about judgments: name their SOURCE as well, or leave it out.")
    judgments = _read(source, format, columns, on_error, axis, seed) if source is not None else None
    learned = _read(train, format, columns, on_error, axis, seed) if train is not None else None
    with _progress(quiet=as_json) as say, _as_options(url="url", tolerance="tolerance"):
        findings = seamark.checks.check_parity(
            checkpoint, url=url, judgments=judgments, train=learned, tolerance=tolerance, seed=seed, progress=say
        )  # fmt: skip
    _finish(judgments, findings, as_json, "do what the remedies say, and check again (--json has them)" if findings.blocking else None)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a finished study.")], as_json: Json = False) -> None:
    """Draw the report and the card of a finished study again."""
    from seamark.study import rewrite_report

    path = rewrite_report(folder)
    _say(as_json, f"report: {path}", report=str(path), card=str(folder / "card.md"))


charter_app = typer.Typer(no_args_is_help=True, help="Whose values, how weighted: write, check, compare and show charters.")
app.add_typer(charter_app, name="charter")
CharterFile = Annotated[Path, typer.Argument(metavar="CHARTER", help="A charter.toml.")]


@charter_app.command("init")
def charter_init(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write it.")] = Path("charter.toml"), as_json: Json = False
) -> None:
    """Write the default charter, every choice spelled out, as a file to edit and sign."""
    from seamark.aggregation import Charter
    from seamark.outputs import whole_file

    if out.exists():
        raise InvalidSetting("--out", str(out), "It exists; a charter is not overwritten. Give another name.")
    with whole_file(out) as fresh:
        fresh.write_text(Charter().to_toml(), encoding="utf-8")
    _say(as_json, f"charter: {out}\nnext: edit it, sign it, then seamark charter check {out}", charter=str(out), charter_signed=False)


@charter_app.command("check")
def charter_check(
    charter: CharterFile,
    fit: Annotated[Path | None, typer.Argument(metavar="FIT", help="The folder of a fit whose groups and axes it is to go with.")] = None,
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Judgments about whose responses it is to decide.")] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None, seed: Seed = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Is it a charter; does it go with a fit; and what do its choices cost whom?"""
    from seamark.aggregation import Charter
    from seamark.checks import check_charter
    from seamark.reward import open_fit

    chosen = Charter.from_toml(charter)
    state = "signed" if chosen.signed else "unsigned: not releasable"
    if fit is not None:
        fitted = open_fit(fit)
        chosen.group_weights(fitted)
        chosen.at(fitted)
        if source is not None:
            feedback = _read(source, format, columns, on_error, axis, seed)
            _finish(
                feedback, check_charter(fitted, chosen, feedback, seed=seed), as_json, f"seamark export {fit} {source} --charter {charter}"
            )
            return
    _say(
        as_json, f"{chosen.title}: {state}{', expired' if chosen.expired else ''}\nhash: {chosen.hash}",
        charter=str(charter), title=chosen.title, charter_signed=chosen.signed, expired=chosen.expired, hash=chosen.hash,
    )  # fmt: skip


@charter_app.command("diff")
def charter_diff(
    one: CharterFile, other: Annotated[Path, typer.Argument(metavar="OTHER", help="The one it is compared with.")], as_json: Json = False
) -> None:
    """Which choices differ between two charters."""
    from seamark.aggregation import Charter

    changes = Charter.from_toml(one).differences(Charter.from_toml(other))
    lines = [f"{name}: {mine!r} -> {theirs!r}" for name, mine, theirs in changes] or ["They make the same choices."]
    _say(as_json, "\n".join(lines), changes=[{"choice": name, "one": mine, "other": theirs} for name, mine, theirs in changes])


@charter_app.command("show")
def charter_show(charter: CharterFile, as_json: Json = False) -> None:
    """Print a charter with every choice written out, those too that its file leaves to the default."""
    from seamark.aggregation import Charter

    chosen = Charter.from_toml(charter)
    _say(as_json, f"{chosen.to_toml()}\n# hash: {chosen.hash}", charter=chosen.model_dump(mode="json"), hash=chosen.hash)


@app.command()
def dissent(
    source: Source,
    by: Annotated[str, typer.Option("--by", help="What tells groups of people apart: group, profile.age, ...")] = "group",
    within: Annotated[str, typer.Option("--within", help="A field on which the group of a rater depends, such as prompt.")] = "",
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None, seed: Seed = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """What do groups of people disagree about, who is outvoted, and what bridges them?"""
    from seamark.checks import check_dissent

    feedback = _read(source, format, columns, on_error, axis, seed)
    _finish(feedback, check_dissent(feedback, by=by, within=within, seed=seed), as_json, f"seamark study {source} --groups {by} -o out")


@app.command()
def population(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A population file: cells (age,gender,share) or margins (column,level,share).")],
    unseen: Annotated[bool, typer.Option("--unseen", help="Levels of the population that no rater has are no slip of spelling.")] = False,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Who answered, beside the population that is to be represented."""
    from seamark.aggregation import Target
    from seamark.checks import check_population

    feedback = _read(source, format, columns, on_error, None, seed)
    found = check_population(feedback, Target.read(target), unseen=unseen)
    _finish(feedback, found, as_json, f'seamark charter init, with weighting = "target" and target = "{target.name}"')


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file to write.")],
    judgments: Annotated[int, typer.Option(help="How many judgments.")] = 6000,
    raters: Annotated[int, typer.Option(help="How many raters.")] = 60,
    prompts: Annotated[int, typer.Option(help="How many prompts, with 4 responses each.")] = 200,
    careless: Annotated[float, typer.Option(help="Share of raters who answer at chance.")] = 0.1,
    position: Annotated[float, typer.Option(help="Advantage of the response shown first, in logits.")] = 0.3,
    plant: Annotated[
        list[str] | None,
        typer.Option(
            "--plant", metavar="NAME=VALUE", help="Plant anything else: fatigue=0.4, kinds=pair,rating, drift.months=6; repeat it."
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_show_settings, help="List what can be planted, and exit.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write the judgments of a simulated society with known truth."""
    from seamark.rendering import describe_data
    from seamark.simulation import read_settings
    from seamark.simulation import simulate as make

    del listing  # its callback has answered
    if out.exists():
        raise InvalidSetting("--out", str(out), "It exists; what is there is not overwritten. Give another name.")
    usual: dict[str, Any] = {
        "n_judgments": judgments,
        "n_raters": raters,
        "n_prompts": prompts,
        "careless": careless,
        "position": position,
        "seed": seed,
    }
    society = make(**(usual | read_settings(plant or [])))
    society.feedback.to_jsonl(out)
    following = f"{society!r}: {out}\nnext: seamark study {out} -o out"
    _say(as_json, following, judgments=str(out), seed=seed, data=describe_data(society.feedback))


@app.command()
def plan(
    source: Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="A pilot, which the assumptions are estimated from.")] = None,
    width: Annotated[
        float | None, typer.Option("--width", help="Width of the 95% interval, low to high; logits, or a probability for win rates.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="For mean_win_rate, what may be spent, in place of the width.")] = None,
    target: Annotated[
        str,
        typer.Option(
            help="gap: of two responses; group: in each group; win_rate: how often one is preferred; mean_win_rate: one system to another."
        ),
    ] = "gap",
    prompts: Annotated[
        int | None, typer.Option(help="Prompts to be judged; those of the pilot, or 100; for mean_win_rate, as many as are best.")
    ] = None,
    responses: Annotated[int | None, typer.Option(help="Responses to each, of which all pairs are asked about; the pilot's, or 4; for mean_win_rate 2.")] = None,
    per_rater: Annotated[int, typer.Option(help="Most judgments that one rater gives.")] = 100,
    rater_cost: Annotated[float, typer.Option(help="Cost of a rater.")] = 0.0,
    judgment_cost: Annotated[float, typer.Option(help="Cost of a judgment.")] = 1.0,
    prompt_cost: Annotated[float, typer.Option(help="Cost of a prompt and its responses.")] = 0.0,
    equal_groups: Annotated[bool, typer.Option("--equal-groups", help="As many raters from each of several groups, not by their share.")] = False,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume", metavar="NAME=VALUE",
            help="spread, disagreement, careless, slope_spread, log_tie or lapse; or group.NAME=SHARE. Repeat it.",
        ),
    ] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """How many raters and judgments it takes until intervals are as narrow as wanted, and what is cheapest."""
    from seamark.simulation import plan as make
    from seamark.simulation import read_assumptions
    from seamark.simulation.planning import counted

    unread = {"--format": format, "--columns": columns, "--axis": axis, "--on-error": on_error if on_error != "stop" else None}
    for name, value in unread.items():
        if source is None and value is not None:
            raise InvalidSetting(name, value, "It says how a pilot is read: name the pilot as well, or leave it out.")
    pilot = _read(source, format, columns, on_error, axis, seed) if source is not None else None
    with _as_options(
        n_prompts="prompts", n_responses="responses", max_per_rater="per-rater", cost_per_rater="rater-cost", cost_per_judgment="judgment-cost",
        cost_per_prompt="prompt-cost", width="width", budget="budget", target="target", equal_groups="equal-groups",
    ):  # fmt: skip
        made = make(
            pilot, width=width, budget=budget, target=target, assumptions=read_assumptions(assume or []), n_prompts=prompts,
            n_responses=responses, max_per_rater=per_rater, cost_per_rater=rater_cost, cost_per_judgment=judgment_cost,
            cost_per_prompt=prompt_cost, equal_groups=equal_groups, seed=seed,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(made.to_dict(), ensure_ascii=False))
        return
    typer.echo(str(made))
    best = made.cheapest
    what = f"{counted(best.n_judgments, 'judgment')} on {counted(best.n_prompts, 'prompt')} from {counted(best.n_raters, 'rater')}"
    typer.echo(f"\nnext: collect {what}, then seamark study prefs.jsonl -o out")


# ---------------------------------------------------------------------------------------------- the record of decisions

audit = typer.Typer(
    name="audit", no_args_is_help=True, help="The record of decisions: append to it, verify it, hand it out, release by it."
)
app.add_typer(audit, name="audit")

Log = Annotated[Path, typer.Argument(metavar="LOG", help="The log, a file of JSON lines such as decisions.jsonl.")]
Actor = Annotated[str, typer.Option("--actor", help="Who answers for it.")]


@audit.command(name="append")
def audit_append(
    log: Log,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="charter, data, exclusion, override, sign-off, near-miss, incident, ballot, note, ...")
    ],
    actor: Actor,
    said: Annotated[
        list[str] | None, typer.Option("--say", metavar="NAME=VALUE", help="A field of the entry; a value may be JSON. Repeat it.")
    ] = None,
    charter: Annotated[Path | None, typer.Option("--charter", help="For the kind charter, the file; for sign-off, what is signed.")] = None,
    as_json: Json = False,
) -> None:
    """Append one entry to the log; it is on the disk when this returns."""
    from seamark.governance import append, append_charter

    body = _settings(None, said, option="--say", example="reason=duplicate")
    if charter is not None:
        from seamark.aggregation import Charter

        signed = Charter.from_toml(charter)
        if kind not in ("charter", "sign-off", "withdrawal"):
            raise InvalidSetting("--charter", str(charter), "It goes with the kinds charter, sign-off and withdrawal.")
        if kind == "charter" and said:
            raise InvalidSetting("--say", said[0], "A charter is appended as it is; say more in an entry of its own, of the kind note.")
        body |= {"subject": signed.hash}
        entry = append_charter(log, signed, actor=actor) if kind == "charter" else append(log, kind, body, actor=actor)
    else:
        entry = append(log, kind, body, actor=actor)
    _say(as_json, f"entry {entry.seq} of {log}\nhead: {entry.seq + 1}:{entry.hash}", **entry.model_dump())


@audit.command(name="head")
def audit_head(log: Log, as_json: Json = False) -> None:
    """Print where the log ends: published, it shows a later cut or rewriting."""
    from seamark.governance import BrokenLog, verify

    found = verify(log)
    if found.problem not in (None, "torn"):
        raise BrokenLog(str(log), found.message)
    _say(as_json, str(found.head), n=found.head.n, hash=found.head.hash)


@audit.command(name="verify")
def audit_verify(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The log, or a folder that seamark audit export wrote.")],
    head: Annotated[str | None, typer.Option("--head", help="A head that was published, as seamark audit head prints it.")] = None,
    as_json: Json = False,
) -> None:
    """Is the log as it was written? Names the first entry that is not, and exits with 1."""
    from seamark.governance import Head, verify, verify_export

    of_folder = verify_export(log) if log.is_dir() else ()
    found = verify(log / "log.jsonl" if log.is_dir() else log, head=Head.parse(head) if head is not None else None)
    wrong = [*of_folder, *([found.message] if not found.ok and not of_folder else [])]
    n = len(found.entries)
    said = "whole" if not wrong else "\n".join(f"broken: {sentence}" for sentence in wrong)
    _say(
        as_json, f"{said}\n{n:,} {'entry' if n == 1 else 'entries'} can be relied on, head {found.head}",
        ok=not wrong, problem=found.problem, place=found.place, wrong=wrong, n=n, head=str(found.head),
    )  # fmt: skip
    raise typer.Exit(1 if wrong else 0)


@audit.command(name="export")
def audit_export(
    log: Log,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the auditor.")],
    access: Annotated[
        list[str], typer.Option("--access", help="What comes with it: black-box, grey-box, white-box, outside-the-box. Repeat it.")
    ],
    withheld: Annotated[list[str] | None, typer.Option("--withheld", help="What is not given, in words. Repeat it.")] = None,
    as_json: Json = False,
) -> None:
    """Write the log, its charters and their hashes for an auditor, with the access that is given."""
    from seamark.checks.findings import ACCESS
    from seamark.governance import export_audit

    levels = dict(zip(map(str, ACCESS), ACCESS, strict=True))
    if unknown := [level for level in access if level not in levels]:
        raise InvalidSetting("--access", unknown[0], f"Use {', '.join(ACCESS)}.")
    head = export_audit(log, out, access=[levels[level] for level in access], withheld=withheld or ())
    _say(as_json, f"for an auditor: {out}\nhead: {head}\nnext: seamark audit verify {out}", folder=str(out), head=str(head))


@audit.command(name="report")
def audit_report(
    log: Log,
    to: Annotated[str, typer.Option("--to", help="public, peer or regulator.")],
    study: Annotated[Path | None, typer.Option("--study", help="The folder of a study, whose findings go with it.")] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="A TOML file of what each recipient is shown; the usual rules where not given.")
    ] = None,
) -> None:
    """Print the log, and the findings of a study, as one recipient is shown them: JSON with what is redacted marked so."""
    from seamark.governance import read
    from seamark.governance.disclosure import Rules, report_for
    from seamark.study import read_findings

    if to != "public" and to != "peer" and to != "regulator":
        raise InvalidSetting("--to", to, "Use public, peer or regulator.")
    found = read_findings(study) if study is not None else ()
    chosen = Rules.from_toml(rules) if rules is not None else None
    typer.echo(json.dumps(report_for(to, read(log), found, rules=chosen), ensure_ascii=False, indent=1))


@audit.command(name="ballots")
def audit_ballots(
    log: Log,
    poll: Annotated[str, typer.Argument(metavar="POLL", help="Name of the poll.")],
    charter: Annotated[
        Path | None, typer.Option("--charter", help="A charter whose weights are to be those ballots; the turnout alone where not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the ballots of a poll, and hold the weights of a charter against them. Exit status 1 where they are others."""
    from seamark.aggregation import Charter
    from seamark.checks import Findings
    from seamark.governance import read
    from seamark.governance.mandate import check_ballots, count_ballots

    counted = count_ballots(read(log), poll)
    weights = Charter.from_toml(charter).electorate.weights if charter is not None else counted.weights
    found = check_ballots(counted, weights)
    kept = found if charter is not None else Findings(tuple(f for f in found if f.code != "ballots/weights"))
    if not as_json:
        typer.echo("\n".join(f"  {option:<24} {n:,}" for option, n in counted.votes.items()))
    _finish(None, kept, as_json, None)


@audit.command(name="card")
def audit_card(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study.")],
    log: Annotated[Path | None, typer.Argument(metavar="[LOG]", help="The log that it was released in.")] = None,
    as_json: Json = False,
) -> None:
    """Does a sealed card say what the files say, and are both as they were released? Exit status 1 where not."""
    from seamark.governance import read
    from seamark.governance.release import check_card, check_release

    _finish(None, check_card(study) if log is None else check_release(study, read(log)), as_json, None)


@audit.command(name="release")
def audit_release(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a finished study.")],
    log: Log,
    actor: Actor,
    sign_offs: Annotated[int, typer.Option("--sign-offs", help="How many people beside the proposer must have signed the charter.")] = 0,
    override: Annotated[str, typer.Option("--override", help="Why it is released although findings are blocking; this is logged.")] = "",
    as_json: Json = False,
) -> None:
    """Release a study: seal its card with the hashes of its files, check what must be, and put it into the log."""
    from seamark.governance.release import NotReleasable, release

    try:
        entry = release(study, log, actor=actor, n_sign_offs=sign_offs, override=override)
    except NotReleasable as refused:
        _say(
            as_json, "\n".join(["not releasable:", *(f"  {reason}" for reason in refused.reasons)]), released=False, reasons=refused.reasons
        )
        raise typer.Exit(1) from None
    _say(as_json, f"released: {entry.body['hash']}\nhead: {entry.seq + 1}:{entry.hash}", released=True, **entry.model_dump())


# ---------------------------------------------------------------------------------------------- parsing and printing


def _read(source: str, format: str | None, columns: str | None, on_error: str, axis: str | None, seed: int) -> Feedback:
    from seamark.study import read_source

    return read_source(source, format=format, columns=_columns(columns), on_error=_on_error(on_error), axis=axis, seed=seed)


@contextmanager
def _as_options(**options: str) -> Generator[None]:
    """Errors about these arguments, said of the options that they were given by."""
    try:
        yield
    except InvalidSetting as error:
        if error.name not in options:
            raise
        raise InvalidSetting(f"--{options[error.name]}", error.value, error.remedy) from None


def _chosen(path: Path | None, valid_until: str | None) -> Charter:
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


def _columns(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    mapping: dict[str, str] = {}
    for part in text.split(","):
        ours, sign, theirs = part.partition("=")
        if not sign or not ours.strip() or not theirs.strip():
            raise InvalidSetting("--columns", text, "Write it as prompt=question,left=answer_a,right=answer_b,outcome=vote.")
        mapping[ours.strip()] = theirs.strip()
    return mapping


def _on_error(text: str) -> Literal["stop", "skip"]:
    if text == "stop" or text == "skip":
        return text
    raise InvalidSetting("--on-error", text, "Use stop or skip.")


def _settings(config: Path | None, given: list[str] | None, *, option: str = "--set", example: str = "weight_decay=0.1") -> dict[str, Any]:
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


def _utility(text: str | None) -> Utility | None:
    if text is None:
        return None
    from seamark.models.utility import Linear, Tabular

    if text in ("hash", "tabular"):
        return Tabular() if text == "tabular" else Linear(text)
    if not Path(text).expanduser().is_dir() and not text.startswith((".", "/", "~")) and find_spec("transformers") is None:
        remedy = (
            "It is not hash or tabular. If it is an encoder of the Hugging Face hub, install what reads those: pip install 'seamark[lm]'"
        )
        raise InvalidSetting("--utility", text, remedy)
    return Linear(text)


def _people(groups: str | None, personas: int | None, tastes: int | None) -> People | None:
    from seamark.models.people import Groups, Personas, Same, Varying

    given = [name for name, value in (("--groups", groups), ("--personas", personas), ("--tastes", tastes)) if value is not None]
    if len(given) > 1:
        raise InvalidSetting(" and ".join(given), "", "Give one of them: people differ in one way at a time.")
    if personas is not None:
        return Personas(personas)
    if tastes is not None:
        return Varying(tastes)
    return None if groups is None else Same() if groups == "none" else Groups(groups)


def _differ(text: str | None, utility: Utility | None) -> Utility | None:
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


def _observation(effects: list[str] | None) -> Observation | None:
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


def _holds(place: Path, out: Path) -> bool:
    """Whether `out` is the file `place`, or lies in the folder `place`."""
    place, out = place.resolve(), out.resolve()
    return place.exists() and (out == place or place in out.parents)


def _print_skipped(skipped: Sequence[str]) -> None:
    """How many records were left out, and the first of them."""
    if skipped:
        typer.echo(f"\nleft out: {len(skipped):,} record{'' if len(skipped) == 1 else 's'}; the first: {skipped[0]}")


def _say(as_json: bool, text: str, **facts: object) -> None:
    """What was written where: a line for people, an object for machines."""
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)


def _finish(feedback: Feedback | None, findings: Findings, as_json: bool, following: str | None) -> None:
    """Print findings, as a table or in the shape of findings.json, and exit with what they say."""
    if as_json:
        from seamark.rendering import describe_data, findings_json

        nothing = {"n_judgments": 0, "n_responses": 0, "n_prompts": 0}
        typer.echo(findings_json(describe_data(feedback) if feedback is not None else nothing, findings), nl=False)
    else:
        _print_findings(findings)
        _print_skipped(feedback.report.skipped if feedback is not None else ())
        if following:
            typer.echo(f"\nnext: {following}")
    raise typer.Exit(1 if findings.blocking else 0)


_COLOURS = {"blocking": "bold red", "warning": "yellow", "notice": "cyan", "ok": "green", "not_applicable": "dim"}


def _print_findings(findings: Findings) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("verdict", "code", "finding"):
        table.add_column(name, overflow="fold")
    for f in findings.by_severity():
        detail = f.title if f.verdict != "not_applicable" else f"{f.title} {f.reason}"
        table.add_row(Text(f.verdict.replace("_", " "), style=_COLOURS[f.verdict]), Text(f.code), Text(detail))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)


@contextmanager
def _progress(*, quiet: bool) -> Generator[Callable[[str, float], None]]:
    """A progress bar on a terminal, nothing when piped."""
    if quiet or not sys.stderr.isatty():
        yield lambda _stage, _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)


# ---------------------------------------------------------------------------------------------- a catalogue of signals

catalogue = typer.Typer(name="catalogue", no_args_is_help=True, help="Signals of different values, side by side: list, check, match.")
app.add_typer(catalogue, name="catalogue")

CatalogueFolder = Annotated[Path, typer.Argument(metavar="CATALOGUE", help="A folder with catalogue.toml, probes.jsonl and its entries.")]


@catalogue.command(name="list")
def list_entries(folder: CatalogueFolder, as_json: Json = False) -> None:
    """The entries that conform, whose values they are, and how safe: what is below the shared floor is not listed, and it is said why."""
    from seamark.reward.catalogue import Catalogue

    found = Catalogue.open(folder)
    if as_json:
        entries = [one.entry.model_dump() | {"signed_by": one.charter.authors} for one in found.listed]
        refused = {name: [one.says for one in some] for name, some in found.refused.items()}
        typer.echo(
            json.dumps({"title": found.terms.title, "floor": found.terms.floor, "entries": entries, "refused": refused}, ensure_ascii=False)
        )
        return
    typer.echo(f"{found.terms.title}: {len(found.listed)} listed, {len(found.refused)} not")
    for one in found.listed:
        e = one.entry
        typer.echo(
            f"  {e.name:<24} {e.values} ({', '.join(e.languages)}; {e.licence}; {e.date}; safe response preferred on {one.safety} of the probes)"
        )
    for name, some in found.refused.items():
        typer.echo(f"  not listed: {name}: {' '.join(one.says for one in some)}")
    typer.echo(f"next: seamark catalogue match {folder} JUDGMENTS")


@catalogue.command(name="check")
def check_entries(folder: CatalogueFolder, as_json: Json = False) -> None:
    """Does every entry do what an entry must? Exit status 1 where one may not be listed."""
    from seamark.checks import Finding, Findings
    from seamark.reward.catalogue import Catalogue

    items: list[Finding] = []
    for one in Catalogue.open(folder).conformance:
        code, title = f"catalogue/{one.entry}/{one.check}", f"{one.entry}: {one.says}"
        if one.passed is None:
            items.append(Finding.not_applicable(code, title, "The terms of the catalogue let that pass."))
            continue
        figure = one.figure
        bounds = (figure.estimate, figure.low, figure.high, figure.n) if figure else (None, None, None, None)
        items.append(
            Finding(
                code=code, title=title, estimate=bounds[0], low=bounds[1], high=bounds[2], n=bounds[3], unit="share" if figure else None,
                verdict="ok" if one.passed else "blocking", remedy=one.remedy or None,
                reason="Over prompts of the probes; Wilson interval." if figure else "Looked at, not estimated.",
            )
        )  # fmt: skip
    _finish(None, Findings(tuple(items)), as_json, f"seamark catalogue list {folder}")


@catalogue.command(name="match")
def match_entries(
    folder: CatalogueFolder, source: Source, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop",
    axis: AxisOption = None, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Which entries a person, or the people of a community, hold the values of: by the pairs they decided, few or many."""
    from seamark.reward.catalogue import Catalogue

    found = Catalogue.open(folder)
    judgments = _read(source, format, columns, on_error, axis, seed)
    if judgments.n_raters <= 1:
        one = found.match(judgments)
        rows = [(name, p, None, None) for name, p in one.weights.items()]
        facts: dict[str, Any] = {"n": one.n, "left_out": one.left_out, "chosen": one.chosen, "follows": one.follows}
        said = f"{one.n} decided pairs of one person; nearest: {one.chosen}; {one.follows:.0%} likely to follow any of the entries"
    else:
        many = found.match_people(judgments, seed=seed)
        rows = list(zip(many.names, many.mean.tolist(), many.low.tolist(), many.high.tolist(), strict=True))
        facts = {"n": many.n, "people": len(many.members), "seed": seed}
        said = f"{many.n:,} decided pairs of {len(many.members)} people"
    if as_json:
        weights = [{"entry": name, "weight": mean, "low": low, "high": high} for name, mean, low, high in rows]
        typer.echo(json.dumps({"weights": weights} | facts, ensure_ascii=False))
        return
    typer.echo(said)
    for name, mean, low, high in rows:
        typer.echo(f"  {name:<24} {mean:6.3f}" + ("" if low is None else f"  [{low:.3f}, {high:.3f}]"))
    _print_skipped(judgments.report.skipped)


_ONE_THREAD = (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE"))


def main() -> None:
    """Run the command line; what the user can put right is one message on stderr and exit status 2."""
    # many small matrices: more threads spin against each other, and on a machine that does other work too made a fit 5 to 20 times
    # slower. Set before numpy and torch load; whoever has idle cores and large tables sets them otherwise.
    # A network is large matrices, and takes them all.
    for name, value in () if sys.argv[1:2] == ["train"] else _ONE_THREAD:
        os.environ.setdefault(name, value)
    try:
        app(prog_name="seamark")
    except SeamarkError as error:
        _fail(str(error))
    except OSError as error:  # of the machine: a file without permission, a full disk
        place = error.filename if error.filename is not None else "input or output"
        remedy = "Check that it is there, that you may read and write it, and that the disk has room."
        _fail(f"{place}: {error.strerror or error}. {remedy}")


def _fail(message: str) -> None:
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
