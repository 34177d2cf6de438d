"""The study, and its steps as commands of their own: from a source to findings, a fit, a signal or a reward model."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from seamark.cli.options import (
    AxisOption,
    CharterOption,
    ColumnsOption,
    DifferOption,
    EffectOption,
    FailOn,
    FitFolder,
    FormatOption,
    GroupsOption,
    Json,
    OnError,
    PersonasOption,
    Seed,
    Source,
    TastesOption,
    UtilityOption,
    ValidUntil,
    as_options,
    parse_columns,
    parse_differ,
    parse_effects,
    parse_on_error,
    parse_people,
    parse_settings,
    parse_utility,
    read_charter,
    read_feedback,
)
from seamark.cli.printing import print_answer, print_findings, print_skipped, show_progress, stop_at
from seamark.errors import InvalidSetting, MissingExtra


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
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="LOG", help="Append what was made of what to this log of decisions, such as decisions.jsonl."),
    ] = None,
    actor: Annotated[str, typer.Option("--actor", help="With --log: who answers for the entry.")] = "",
    seed: Seed = 0,
    fail_on: FailOn = None,
    as_json: Json = False,
) -> None:
    """The main job: read, diagnose, fit, evaluate, export and report, in one folder."""
    from seamark.rendering import verdict_in_words
    from seamark.study import run_study

    with show_progress(quiet=as_json) as say, as_options(log="log", actor="actor"):
        result = run_study(
            source, out, format=format, columns=parse_columns(columns), on_error=parse_on_error(on_error), utility=parse_differ(differ, parse_utility(utility)),
            people=parse_people(groups, personas, tastes), observation=parse_effects(effect),
            charter=read_charter(charter, valid_until) if charter or valid_until else None, split=split, held_out=held_out, axis=axis, register=register, log=log, actor=actor,
            seed=seed, progress=say,
        )  # fmt: skip
    if as_json:
        typer.echo((result.folder / "findings.json").read_text(encoding="utf-8"), nl=False)
    else:
        print_findings(result.findings)
        print_skipped(result.report.skipped)
        typer.echo(f"\nverdict: {verdict_in_words(result.findings)}")
        typer.echo(f"report: {result.folder / 'report.html'}")
        if result.entry is not None:
            typer.echo(f"log: entry {result.entry.seq} of {log}")
        typer.echo(f"next: open the report; then edit and sign {result.folder / 'charter.toml'} and run the same again, which keeps it")
    raise typer.Exit(1 if stop_at(result.findings, fail_on) else result.exit_code)


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
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    model = choose_model(
        feedback,
        utility=parse_differ(differ, parse_utility(utility)),
        people=parse_people(groups, personas, tastes),
        observation=parse_effects(effect),
    )
    with show_progress(quiet=as_json) as say:
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
    print_skipped(feedback.report.skipped)
    for p in fitted.parameters:
        typer.echo(f"  {p.name:<36} {p.estimate:+8.3f}  [{p.low:+.3f}, {p.high:+.3f}] {p.unit}")
    for s in fitted.spreads:
        typer.echo(f"  {s.label:<36}  {s.sd:7.3f}  [{s.low:.3f}, {s.high:.3f}] {s.unit}")
    for note in (*model.notes, *fitted.notes):
        typer.echo(f"  note: {note}")
    typer.echo(f"next: seamark evaluate {out} HELD_OUT")


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
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    other = read_feedback(held_out, format, columns, on_error, axis, seed) if held_out else None
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
    network = Network(model, str(out), head=head, held_back=held_back, settings=usual | parse_settings(config, setting))
    chosen = choose_model(
        feedback, utility=parse_differ(differ, network), people=parse_people(groups, personas, tastes), observation=parse_effects(effect)
    )
    fitted = seamark.models.fit(
        feedback, utility=chosen.utility, people=chosen.people, observation=chosen.observation, held_out=other, seed=seed
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")):  # one process of several speaks
        return
    fitted.save(out / "fit")
    print_skipped(feedback.report.skipped)
    said = json.loads((out / "seamark.json").read_text(encoding="utf-8"))
    read = said["tokens"]
    print_answer(
        as_json,
        f"{fitted!r}\nreward model: {out}, fit of its last layer: {out / 'fit'}\n"
        f"read {read['forward']:,} tokens an epoch for {read['distinct']:,} distinct ones and {read['judgments']:,.0f} judgments\n"
        f"next: seamark evaluate {out / 'fit'} HELD_OUT; seamark export {out / 'fit'} --to hf -o released; seamark check-parity {out}",
        reward_model=str(out), fit=str(out / "fit"), tokens=read, shares_prompts=said["shares_prompts"], notes=list(fitted.notes),
    )  # fmt: skip
    if not as_json:
        for note in (*chosen.notes, *fitted.notes):
            typer.echo(f"  note: {note}")


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
    """Write the training signal: rows (prompt, chosen, rejected, margin, soft_label, p_chosen, weight, the doubts), or a reward model."""
    from seamark.outputs import require_file_place
    from seamark.reward import export_reward_model, export_signal, open_fit

    if to not in ("rows", "hf"):
        raise InvalidSetting("--to", to, "Use rows or hf.")
    if (to == "hf") != (source is None):
        raise InvalidSetting(
            "SOURCE", source, "Name the judgments whose pairs are written." if to == "rows" else "--to hf needs the fit alone."
        )
    out = out or Path("signal.jsonl" if to == "rows" else "released")
    if source is not None:
        require_file_place(out)
        if any(_holds(place, out) for place in (Path(source), fit)):
            raise InvalidSetting("--out", str(out), "It is, or is part of, what is read, and would be lost. Give another name.")
    chosen = read_charter(charter, valid_until)
    fitted = open_fit(fit)
    inferred = chosen.inferred(fitted)
    stamp = "" if chosen.signed else f"\ncharter {chosen.signature}"
    if inferred:
        named = ", ".join(f"{name} ({weight:.0%} of the electorate)" for name, weight in inferred.items())
        stamp += f"\nno rater: {named}; inferred from other groups"
    signed: dict[str, Any] = {"charter": chosen.title, "charter_signed": chosen.signed, "inferred": inferred}
    if source is None:
        made = export_reward_model(fitted, out, charter=chosen, allow_expired=allow_expired)
        print_answer(
            as_json, f"reward model: {out} (intercept {made['intercept']:+.3f}, in seamark.json){stamp}\nnext: seamark check-parity {out}",
            reward_model=str(out), **made, **signed,
        )  # fmt: skip
        return
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    written = export_signal(fitted, feedback, out, charter=chosen, allow_expired=allow_expired)
    if not as_json:
        print_skipped(feedback.report.skipped)
    print_answer(as_json, f"{written}: {out}{stamp}", signal=str(out), n_rows=written.n_rows, left_out=written.left_out, **signed)


def report(folder: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a finished study.")], as_json: Json = False) -> None:
    """Draw the report and the card of a finished study again."""
    from seamark.study import rewrite_report

    path = rewrite_report(folder)
    print_answer(as_json, f"report: {path}", report=str(path), card=str(folder / "card.md"))


def _holds(place: Path, out: Path) -> bool:
    """Whether `out` is the file `place`, or lies in the folder `place`."""
    place, out = place.resolve(), out.resolve()
    return place.exists() and (out == place or place in out.parents)
