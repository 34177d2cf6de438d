"""The commands about the people who judge: what divides them, whom they stand for, how many to ask, and a simulated society of them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from seamark.cli.options import (
    AxisOption,
    ColumnsOption,
    FailOn,
    FormatOption,
    Into,
    Json,
    OnError,
    Seed,
    Source,
    as_options,
    read_feedback,
)
from seamark.cli.printing import finish, print_answer, show_progress
from seamark.errors import InvalidSetting


def _show_settings(asked: bool) -> None:
    if asked:
        from seamark.simulation import table_of_settings

        for name, usual in table_of_settings():
            typer.echo(f"{name:<26}{usual}")
        raise typer.Exit


def dissent(
    source: Source,
    by: Annotated[str, typer.Option("--by", help="What tells groups of people apart: group, profile.age, ...")] = "group",
    within: Annotated[str, typer.Option("--within", help="A field on which the group of a rater depends, such as prompt.")] = "",
    derived: Annotated[
        bool, typer.Option("--derived", help="The groups were made from these answers (clusters of opinion), so that they differ by construction.")
    ] = False,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None, seed: Seed = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """What do groups of people disagree about, who is outvoted, and what bridges them?"""
    from seamark.checks import check_dissent

    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    with as_options(by="by", within="within"):
        found = check_dissent(feedback, by=by, within=within, derived=derived, seed=seed)
    # values of groups that were made from these answers would be read off the answers twice
    apart = "" if derived or by in feedback.report.derived else f" --groups {by}"
    finish(feedback, found, as_json, f"seamark study {source}{apart} -o out", access="outside-the-box")


def population(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A population file: cells (age,gender,share) or margins (column,level,share).")],
    unseen: Annotated[bool, typer.Option("--unseen", help="Levels of the population that no rater has are no slip of spelling.")] = False,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Who answered, beside the population that is to be represented."""
    from seamark.aggregation import Target
    from seamark.checks import check_population

    feedback = read_feedback(source, format, columns, on_error, None, seed)
    found = check_population(feedback, Target.read(target), unseen=unseen)
    following = f'seamark charter init, with weighting = "target" and target = "{target.name}"'
    finish(feedback, found, as_json, None if found.blocking else following, access="outside-the-box")


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
    print_answer(as_json, following, judgments=str(out), seed=seed, data=describe_data(society.feedback))


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
    pilot = read_feedback(source, format, columns, on_error, axis, seed) if source is not None else None
    with as_options(
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


def attribute(
    population: Annotated[
        str, typer.Option("--population", metavar="SHARES", help="Shares of the groups of people that the reward is for.")
    ] = "0.5,0.5",
    asked: Annotated[str | None, typer.Option("--asked", metavar="SHARES", help="Who was asked: shares of the same groups among the raters.")] = None,
    plant: Annotated[
        list[str] | None,
        typer.Option("--plant", metavar="NAME=VALUE", help="How answers are observed: careless=0.2, length=1, position=0.3, opposed, lapse, reversed_labels, fatigue. Repeat it."),
    ] = None,
    columns: Annotated[int, typer.Option("--features", min=1, help="How responses are represented: features of their texts.")] = 48,
    unexplained: Annotated[float, typer.Option("--unexplained", min=0.0, max=1.0, help="And the share of what they are worth that no text shows.")] = 0.0,
    weights: Annotated[str | None, typer.Option("--weights", metavar="WEIGHTS", help="How people are aggregated: a weight for each group; as many as it has raters otherwise.")] = None,
    best_of: Annotated[int | None, typer.Option("--best-of", min=1, help="How the reward is optimised: best of so many; of all responses otherwise.")] = None,
    prompts: Annotated[int, typer.Option(help="How many prompts, half of which are judged.")] = 100,
    responses: Annotated[int, typer.Option(min=2, help="Responses to each.")] = 6,
    raters: Annotated[int, typer.Option(help="How many raters.")] = 40,
    judgments: Annotated[int, typer.Option(help="How many judgments.")] = 3000,
    societies: Annotated[int, typer.Option("--societies", min=2, help="How many simulated societies.")] = 20,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="FOLDER", help="Keep finished societies here; a run that was stopped goes on from there.")] = None,
    seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Where is most lost on the way from people to policy? In simulated societies, each stage of a way like yours is made ideal in turn."""
    from seamark.checks.attribution import OBSERVED, STAGES, Pipeline, check_attribution, runs
    from seamark.checks.attribution import attribute as ablate
    from seamark.simulation import read_settings

    shares = _numbers("--population", population)
    of_group = {"--asked": asked, "--weights": weights}
    given = {name: _numbers(name, text) for name, text in of_group.items() if text is not None}
    for name, values in given.items():
        if len(values) != len(shares):
            raise InvalidSetting(name, of_group[name], f"Give one number for each of the {len(shares)} groups of --population.")
    if best_of is not None and best_of > responses:
        raise InvalidSetting("--best-of", best_of, f"There are {responses} responses to choose from: give no more, or more --responses.")
    observed = read_settings(plant or [])
    if other := sorted(set(observed) - set(OBSERVED)):
        raise InvalidSetting("--plant", other[0], f"It is not how answers are observed; that are {', '.join(OBSERVED)}.")
    pipeline = Pipeline(
        population=shares, asked={"group_shares": given["--asked"]} if "--asked" in given else {}, observed=observed,
        represented={"n_columns": columns, "unexplained": unexplained},
        aggregated=dict(enumerate(given["--weights"])) if "--weights" in given else None, optimised=best_of,
        size={"n_prompts": prompts, "n_responses": responses, "n_raters": raters, "n_judgments": judgments},
    )  # fmt: skip
    with show_progress(quiet=as_json) as say:
        found = ablate(runs(pipeline), STAGES, seeds=range(seed, seed + societies), resume=resume, settings=repr(pipeline), progress=say)
    finish(None, check_attribution(found), as_json, None, access="outside-the-box", fail_on=fail_on, into=into)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Shares, or weights, written with commas; they add up to 1."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 <= x < float("inf") for x in found) or not sum(found):
        raise InvalidSetting(option, text, "Write numbers with commas, none below 0 and one above: 0.7,0.3.")
    return tuple(x / sum(found) for x in found)
