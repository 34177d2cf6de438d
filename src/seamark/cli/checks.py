"""The checks as commands: of data, of fits, and of any reward model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamark.cli.options import (
    AxisOption,
    ColumnsOption,
    EffectOption,
    FailOn,
    FormatOption,
    GroupsOption,
    Into,
    Json,
    OnError,
    Seed,
    Source,
    Timeout,
    UtilityOption,
    as_options,
    parse_effects,
    parse_people,
    parse_utility,
    read_feedback,
)
from seamark.cli.printing import finish, show_progress
from seamark.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seamark.checks import Findings
    from seamark.progress import Progress
    from seamark.records import Feedback
    from seamark.reward import Reward
    from seamark.reward.scorers import Scorer


ModelPlace = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A reward model: the folder of a fit or model, OWNER/NAME, an address, python:FILE.py:FUNCTION, or a table of prompt, response and score.",
    ),
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="A file of what was scored: what is there is not scored again, so a stopped run goes on.")
]


def diagnose(
    source: Source, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    held_out: Annotated[str | None, typer.Option("--held-out", help="A held-out source, to look for leakage.")] = None,
    seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Is this data fit to learn from?"""
    import seamark.checks

    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    other = read_feedback(held_out, format, columns, on_error, axis, seed) if held_out else None
    with show_progress(quiet=as_json):
        found = seamark.checks.diagnose(feedback, held_out=other, seed=seed)
    finish(feedback, found, as_json, f"seamark study {source} -o out", access="outside-the-box", fail_on=fail_on, into=into)


def evaluate(
    model: ModelPlace,
    source: Source, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop",
    train: Annotated[str | None, typer.Option("--train", help="What it was trained on, from which the trivial rules learn as well.")] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Scores of an address, function or table are logits of preference: whether they are calibrated as they are.")
    ] = False,
    template: Annotated[str | None, typer.Option("--template", help="For an address, the checkpoint whose chat template makes the text.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="A file of what was scored: a run that was stopped goes on from it.")] = None,
    timeout: Timeout = 600.0, axis: AxisOption = None, seed: Seed = 0, fail_on: FailOn = None, into: Into = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Does a fit, or any reward model, predict judgments it has not seen?"""
    import seamark.checks
    from seamark.checks.foreign import evaluate_scores
    from seamark.reward import open_fit
    from seamark.reward.scorers import gives_scores_only, open_scorer, scorer_name

    outside = gives_scores_only(model)
    with as_options(template="template"):
        scorer = open_scorer(model, template=template) if outside else None
    fitted = None
    if not outside:
        for name, value in {"--logits": logits, "--template": template, "--cache": cache}.items():
            if value:
                raise InvalidSetting(name, value, "It is for addresses, functions and tables: leave it out.")
        fitted = open_fit(model)
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    learned = read_feedback(train, format, columns, on_error, axis, seed) if train else None
    if fitted is not None:
        with show_progress(quiet=as_json):
            findings = seamark.checks.evaluate(fitted, feedback, train=learned, seed=seed)
        finish(
            feedback, findings, as_json, f"seamark export {model} {source} -o signal.jsonl", access="white-box", fail_on=fail_on, into=into
        )
    assert scorer is not None
    with show_progress(quiet=as_json) as say, as_options(timeout_s="timeout"):
        findings = evaluate_scores(
            scorer, feedback, train=learned, logits=logits, seed=seed, cache=cache, name=scorer_name(model), timeout_s=timeout, progress=say
        )
    finish(feedback, findings, as_json, f"seamark probe {model} {source}", access="black-box", fail_on=fail_on, into=into)


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
    seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Does a saved reward model give the same scores in Seamark, transformers, TRL and on a server?"""
    import seamark.checks

    for name, value in {"--train": train, "--format": format, "--columns": columns, "--axis": axis}.items():
        if source is None and value is not None:
            raise InvalidSetting(name, value, "It is about judgments: name their SOURCE as well, or leave it out.")
    judgments = read_feedback(source, format, columns, on_error, axis, seed) if source is not None else None
    learned = read_feedback(train, format, columns, on_error, axis, seed) if train is not None else None
    with show_progress(quiet=as_json) as say, as_options(url="url", tolerance="tolerance"):
        findings = seamark.checks.check_parity(
            checkpoint, url=url, judgments=judgments, train=learned, tolerance=tolerance, seed=seed, progress=say
        )  # fmt: skip
    following = "do what the remedies say, and check again (--json has them)" if findings.blocking else None
    finish(judgments, findings, as_json, following, access="white-box", fail_on=fail_on, into=into)


def optimise(
    source: Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="Judgments of texts: two signals fitted to them judge each other.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Any reward model that did not learn from SOURCE, to which a signal fitted to SOURCE is gold. Repeat it to rank several."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", help="Instead of SOURCE, a table of responses with columns prompt, proxy and gold; or policy (before or after), proxy and, of some, gold.")
    ] = None,
    proxies: Annotated[
        list[str] | None, typer.Option("--proxy", metavar="COLUMN", help="Of --scores, the column that is followed. Repeat it to rank several.")
    ] = None,
    fitted: Annotated[
        Path | None, typer.Option("--fit", help="A fit: what it foresees, without gold, of policies that follow it, or --model, over SOURCE's responses.")
    ] = None,
    cache: Cache = None, timeout: Timeout = 600.0,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Keep finished fits of SOURCE alone here; a run that was stopped goes on from there.")
    ] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", utility: UtilityOption = None,
    groups: GroupsOption = None, effect: EffectOption = None, axis: AxisOption = None, seed: Seed = 0, fail_on: FailOn = None, into: Into = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """What becomes of the reward when policies follow it: gold along best-of-n and KL-tilted policies, and where it turns; or which reward is worth following."""
    from seamark.checks.optimisation import check_scorers
    from seamark.reward.scorers import open_scorer, scorer_name

    if (source is None) == (scores is None):
        raise InvalidSetting("SOURCE", source, "Name judgments, or a table of scores with --scores.")
    if scores is not None:
        _refuse("It is about judgments; leave it out with --scores.", model=models, fit=fitted, cache=cache, resume=resume, format=format, columns=columns,
                utility=utility, groups=groups, effect=effect, axis=axis)  # fmt: skip
        finish(None, _follow_columns(scores, proxies or ["proxy"], seed), as_json, None, access="black-box", fail_on=fail_on, into=into)
    assert source is not None
    _refuse("It is a column of --scores.", proxy=proxies)
    if models or fitted:
        _refuse("It is of the two signals that are fitted to SOURCE alone.", resume=resume)
    if not models:
        _refuse("It is of scores, which --model gives.", cache=cache)
    if fitted is not None:
        _refuse("The fit has its own; leave it out with --fit.", utility=utility, groups=groups, effect=effect)
        if len(models or ()) > 1:
            raise InvalidSetting("--model", models, "With --fit, name the one that is followed.")
    scorers = {scorer_name(model): open_scorer(model) for model in models or ()}
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    with show_progress(quiet=as_json) as say, as_options(utility="utility", people="groups", timeout_s="timeout"):
        scoring: dict[str, Any] = {"cache": cache, "timeout_s": timeout, "seed": seed, "progress": say}
        if fitted is not None:
            findings = _foresee(fitted, scorers, feedback, **scoring)
        else:
            spec: dict[str, Any] = {"utility": parse_utility(utility), "people": parse_people(groups, None, None), "observation": parse_effects(effect)}  # fmt: skip
            if scorers:
                findings = check_scorers(scorers, feedback, **spec, **scoring)
            else:
                findings, gold = _follow_signals(feedback, resume=resume, **spec, seed=seed, progress=say)
                if not as_json:
                    typer.echo(f"gold: {gold}\n")
    finish(feedback, findings, as_json, None, access="black-box" if scorers and fitted is None else "white-box", fail_on=fail_on, into=into)


def _refuse(remedy: str, **given: object) -> None:
    """An error about the first of these options that was given."""
    if wrong := next((name for name, value in given.items() if value is not None), None):
        raise InvalidSetting(f"--{wrong}", given[wrong], remedy)


def _follow_columns(scores: Path, proxies: "Sequence[str]", seed: int) -> "Findings":
    """Of a table of scores: what following each column leads to; or, of one that tells before and after, whether the policy exploits its reward."""
    from seamark.checks import Findings
    from seamark.checks.loopholes import check_exploit_table
    from seamark.checks.optimisation import check_rewards
    from seamark.reward import Pool

    exploit = check_exploit_table(scores, proxy=proxies[0])
    if exploit is None:
        return check_rewards({name: Pool.read(scores, proxy=name) for name in proxies}, seed=seed)
    if len(proxies) > 1:
        raise InvalidSetting("--proxy", proxies, "With a column policy, name the one that the policy followed.")
    return Findings((exploit,))


def _foresee(
    fitted: Path, scorers: "Mapping[str, Scorer]", feedback: "Feedback", *, seed: int, progress: "Progress", **scoring: Any
) -> "Findings":
    """What a fit foresees of policies that follow it, or the reward model given."""
    import numpy as np

    from seamark.checks import Findings, check_alarm
    from seamark.checks.amplification import bias_gain_unknown
    from seamark.checks.foresight import unforeseen
    from seamark.checks.scored import check_scored
    from seamark.reward import open_fit
    from seamark.reward.scorers import score_responses

    judge, faults, values = open_fit(fitted), Findings(()), None
    for name, scorer in scorers.items():
        values, scored = score_responses(scorer, feedback, np.arange(feedback.n_responses), name=name, progress=progress, **scoring)
        faults = Findings(tuple(check_scored(scored)))
    if faults.blocking:
        why = faults.blocking[0].title
        return unforeseen(why) + bias_gain_unknown(why) + faults
    return check_alarm(judge, feedback, scores=values, seed=seed, progress=progress) + faults


def _follow_signals(feedback: "Feedback", *, seed: int, **settings: Any) -> "tuple[Findings, str]":
    """What following either of two cross-fitted signals leads to, the other being gold; and what that gold is."""
    from seamark.checks import check_optimisation, cross_fitted
    from seamark.checks.amplification import check_bias_gain

    signals = cross_fitted(feedback, seed=seed, **settings)
    pools = signals.pools
    findings = check_optimisation(pools, gold="the other signal", seed=seed) + check_bias_gain(signals.feedback, signals.values, seed=seed)
    return findings, f"{signals.how}, over {pools[0].n_prompts:,} prompts"


def benchmark(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A fit, a reward model (folder, hub name or address), python:MODULE:FUNCTION, or a table of prompt, response and score."
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A published benchmark as downloaded: a file, or a folder of files.")],
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="rewardbench, rewardbench2, rmb, rm-bench, ppe, judgebench or llmbar; told from the fields where not given."),
    ] = None,
    template: Annotated[str | None, typer.Option("--template", help="For an address, the checkpoint whose chat template makes the text.")] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FILE", help="What has been scored is kept here (JSONL), so that a run that was stopped goes on.")
    ] = None,
    timeout: Timeout = 600.0, seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """What a reward model scores on a published benchmark, with intervals, chance, and what length alone gets."""
    from seamark.checks import Finding, Findings, score_benchmark
    from seamark.checks.scored import check_scored
    from seamark.reward.scorers import open_scorer, score_texts, scorer_name
    from seamark.sources.benchmarks import read_benchmark

    with as_options(kind="kind", template="template"):
        found = read_benchmark(file, kind=kind)
        scorer = open_scorer(model, template=template)
    with show_progress(quiet=as_json) as say, as_options(timeout_s="timeout"):
        scored = score_texts(scorer, *found.texts(), cache=cache, name=scorer_name(model), timeout_s=timeout, progress=say)
    if not as_json:
        typer.echo(
            f"{found.kind}: {found.n_items:,} items, {scored.n_distinct:,} distinct texts, {scored.n_cached:,} of them from the cache\n"
        )
    if scored.died:
        why = f"The reward model was asked no more after {scored.failed:,} of {scored.n_distinct:,} texts had failed; what is left unscored would count as wrong."
        findings = Findings((Finding.not_applicable("benchmark", "The benchmark cannot be scored.", why), *check_scored(scored)))
    else:
        findings = score_benchmark(found, scored.values, seed=seed) + check_scored(scored)
    finish(None, findings, as_json, None, access="black-box", fail_on=fail_on, into=into)


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A fit, a reward model, an address, python:FILE.py:FUNCTION or a table of scores.")],
    source: Source,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop",
    pair: Annotated[int | None, typer.Option("--pair", help="The decision about this pair: the N-th judgment of SOURCE that compares two, from 1.")] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="Decisions between responses to this prompt, by id or name. Repeat it.")] = None,
    influence: Annotated[
        bool, typer.Option("--influence", help="Also which judgments decisions rest on: MODEL is a fit, and SOURCE what was fitted.")
    ] = False,
    top: Annotated[int, typer.Option("--top", help="Features, and judgments, that are listed.")] = 20,
    cache: Annotated[Path | None, typer.Option("--cache", help="File of what was scored; a run that was stopped goes on.")] = None,
    timeout: Timeout = 600.0, axis: AxisOption = None, seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Why does a reward decide as it does: which features move it, which judgments it rests on, what edits would turn it?"""
    from seamark.checks.explanations import decisions_of, explain_fit
    from seamark.checks.explanations import explain as explained
    from seamark.reward import open_fit
    from seamark.reward.scorers import open_scorer, scorer_name

    if influence and not (Path(model) / "fit.json").is_file():
        raise InvalidSetting("--influence", model, "It takes the folder of a fit, whose judgments can be left out.")
    scorer = open_scorer(model)
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    with as_options(pair="pair", prompt="prompt"):
        pairs = decisions_of(feedback, pair=pair, prompts=prompt or ())
    with show_progress(quiet=as_json) as say, as_options(timeout_s="timeout"):
        findings = explained(
            scorer, feedback, pairs=pairs, top=top, cache=cache, name=scorer_name(model), timeout_s=timeout, seed=seed, progress=say
        ).with_access("black-box")
        if influence:
            say("refitting", 0.0)
            findings += (replace(explain_fit(open_fit(model), feedback, pairs=pairs, top=top, seed=seed), access="white-box"),)
    finish(feedback, findings, as_json, None, access="black-box", fail_on=fail_on, into=into)


def repair(
    source: Source,
    operations: Annotated[
        list[str],
        typer.Option(
            "--with", metavar="OPERATION",
            help="reweight (reweight:raters, :duplicates, :prompts), relabel, discount:style (or position, leniency, source, NAME), abstain (abstain:0.2), "
            "penalise (penalise:2). Repeat it; they are done in this order.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the repaired fit of all judgments, with its charter.toml.")] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", utility: UtilityOption = None,
    groups: GroupsOption = None, effect: EffectOption = None,
    plain: Annotated[bool, typer.Option("--plain", help="Before the repair, fit as most trainers do: no reliability, no position, no lapses.")] = False,
    axis: AxisOption = None, seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Repair a reward and prove it again: every statistic before and after, on the same held-out judgments, and what got worse."""
    from seamark.checks.repairs import check_repair, mend
    from seamark.checks.repairs import repair as repaired
    from seamark.models.observation import Observation
    from seamark.models.people import Groups
    from seamark.outputs import require_folder_place
    from seamark.study import choose_model

    if plain and effect:
        raise InvalidSetting("--plain", effect, "It leaves effects out: give one of --plain and --effect.")
    if out is not None:
        require_folder_place(out, mark="fit.json")
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    observation = Observation(effects=(), lapse=False) if plain else parse_effects(effect)
    with show_progress(quiet=as_json) as say, as_options(**{"utility": "utility", "people": "groups", "with": "with"}):
        model = choose_model(feedback, utility=parse_utility(utility), people=parse_people(groups, None, None), observation=observation)
        people = model.people
        if groups is None and isinstance(people, Groups):  # chosen by the sizes of the whole, of which three tenths are gold
            people = replace(people, min_judgments=people.min_judgments // 5)
        found = repaired(
            feedback, operations, utility=model.utility, people=people, observation=model.observation, seed=seed, progress=say
        )  # fmt: skip
        if out is not None:
            say("fitting", 0.95)
            fitted, charter = mend(found, feedback, operations)
            charter.stamp(fitted, feedback).save(out)
            charter.write(out)
    if not as_json:
        typer.echo(f"{found}\n")
    following = f"seamark evaluate {out} HELD_OUT" if out is not None else None
    findings = check_repair(found, named=" then ".join(operations))
    finish(feedback, findings, as_json, following, access="white-box", fail_on=fail_on, into=into)


def generalise(
    source: Source,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="What is to be new: prompt, prompt_cluster, rater, group, source, axis, time, a field (pair_type, provenance, profile.age, "
            "covariate.length), neighbours, curve, decay. May be given again; all that the data allows where not given.",
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="Parts of a split with many values.")] = 5,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Keep finished fits here; a run that was stopped goes on from there.")
    ] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", utility: UtilityOption = None,
    groups: GroupsOption = None, effect: EffectOption = None, axis: AxisOption = None, seed: Seed = 0, fail_on: FailOn = None,
    into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Does what was learned hold for new prompts, raters, groups, models, contexts and times?"""
    from seamark.checks import check_generalisation

    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    with show_progress(quiet=as_json) as say, as_options(by="by", n_folds="folds", utility="utility", people="groups"):
        findings = check_generalisation(
            feedback, by=by, utility=parse_utility(utility), people=parse_people(groups, None, None), observation=parse_effects(effect),
            n_folds=folds, seed=seed, progress=say, resume=resume,
        )  # fmt: skip
    finish(feedback, findings, as_json, None, access="white-box", fail_on=fail_on, into=into)


def assumptions(
    source: Source,
    fit: Annotated[Path | None, typer.Option("--fit", help="A fit of this source, which says how close the questions are that were left open.")] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """What learning a reward from this feedback takes for granted, with the data's word on each; the channel; and the raters' habits."""
    from seamark.checks import Findings, check_assumptions
    from seamark.checks.assumptions import check_channel
    from seamark.checks.psychology import check_psychology, check_rationality
    from seamark.reward import open_fit

    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    with show_progress(quiet=as_json):
        ledger = check_assumptions(feedback, open_fit(fit) if fit is not None else None, seed=seed)
        habits = check_psychology(feedback, seed=seed) + check_rationality(feedback)
        findings = Findings((*ledger, check_channel(feedback, seed=seed), *habits))
    finish(feedback, findings, as_json, f"seamark study {source} -o out", access="outside-the-box", fail_on=fail_on, into=into)


def search(
    model: ModelPlace, source: Source,
    gold: Annotated[
        str | None,
        typer.Option("--gold", help="Another reward model, as judge; or judgments, for a signal fitted to the judgments of SOURCE."),
    ] = None,
    ensemble: Annotated[
        list[str] | None, typer.Option("--ensemble", help="A reward model fitted as MODEL was, whose doubts are a judge; give two or more.")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option("--candidates", help="What a policy writes: JSONL with prompt and response.")
    ] = None,
    budget: Annotated[int, typer.Option("--budget", help="Distinct texts that MODEL is asked about.")] = 2000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to keep the attacks that work (JSONL); those there stay.")] = None,
    cache: Cache = None, timeout: Timeout = 600.0, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None,
    seed: Seed = 0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Can texts be written that the reward model likes and a judge does not? Keeps those that can."""
    from datetime import UTC, datetime

    from seamark.checks.attacks import attacks_of, read_attacks, write_attacks
    from seamark.checks.loopholes import check_loopholes, pool_of, read_candidates, search_loopholes
    from seamark.outputs import require_file_place
    from seamark.reward import Reward
    from seamark.reward.scorers import open_scorer, scorer_name

    for place in (out, cache):
        if place is not None:
            require_file_place(place)
    scorer = open_scorer(model)
    policy = read_candidates(candidates) if candidates is not None else None
    kept = read_attacks(out) if out is not None and out.exists() else ()
    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    members = [open_scorer(place) for place in ensemble or ()]
    knows = isinstance(scorer, Reward) and scorer.fit.knows_ignorance
    with show_progress(quiet=as_json) as say, as_options(budget="budget", ensemble="ensemble", timeout_s="timeout"):
        if gold == "judgments":
            from seamark.models import fit as fitted

            if isinstance(scorer, Reward) and scorer.fit.fingerprint == feedback.fingerprint:
                raise InvalidSetting(
                    "--gold", gold, "MODEL was fitted to these judgments, and would judge itself: give other judgments as SOURCE."
                )
            judge = Reward(fitted(feedback, require_converged=False, seed=seed))
        else:
            judge = open_scorer(gold) if gold is not None else None
        found = search_loopholes(
            scorer, *pool_of(feedback), gold=judge if not isinstance(judge, Reward) else _mean_of(judge), ensemble=members,
            ignorance=_ignorance_of(scorer) if knows and isinstance(scorer, Reward) else None, policy=policy, budget=budget, seed=seed, progress=say,
            cache=cache, name=scorer_name(model), timeout_s=timeout,
        )  # fmt: skip
    made = attacks_of(found, artefact=model, found_on=datetime.now(UTC).date().isoformat())
    if out is not None and made:
        write_attacks(list({(repr(a.prompt), a.response): a for a in (*made, *kept)}.values()), out)
    following = f"mend the reward, then seamark attacks MODEL {out}" if out is not None and made else None
    finish(feedback, check_loopholes(found), as_json, following, access="black-box", fail_on=fail_on, into=into)


def _mean_of(reward: "Reward") -> "Scorer":
    """What a fit says of any text, without abstaining: a judge that keeps silent would spare what is strange."""
    return lambda prompts, responses: reward.score(prompts, responses).mean


def _ignorance_of(reward: "Reward") -> "Scorer":
    return lambda prompts, responses: reward.score(prompts, responses).ignorance


def attacks(
    model: ModelPlace,
    file: Annotated[Path, typer.Argument(metavar="ATTACKS", help="Attacks that were kept (JSONL), by seamark search --out or by hand.")],
    before: Annotated[
        list[str] | None,
        typer.Option("--before", metavar="OLD_MODEL", help="A release before MODEL, to see what the patch did beside it. Repeat it, the oldest first."),
    ] = None,
    mark_patched: Annotated[
        str | None, typer.Option("--mark-patched", metavar="RELEASE", help="Write into ATTACKS that those which do not work were put right in RELEASE.")
    ] = None,
    cache: Cache = None, timeout: Timeout = 600.0, fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Do attacks that worked before work on this reward model? What was put right and works again stops a pipeline."""
    from seamark.checks import attacks as kept
    from seamark.checks.patches import check_patches
    from seamark.checks.scored import check_scored
    from seamark.reward.scorers import open_scorer, scorer_name

    known = kept.read_attacks(file)
    releases = {place: open_scorer(place) for place in (*(before or ()), model)}
    if len(releases) != len(before or ()) + 1:
        raise InvalidSetting("--before", before, "A release stands there twice: give each once, the oldest first, and none that is MODEL.")
    names = [scorer_name(place) for place in releases]
    with show_progress(quiet=as_json) as say, as_options(timeout_s="timeout"):
        heard = [
            kept.outcomes(scorer, known, progress=say, cache=cache, name=name, timeout_s=timeout)
            for scorer, name in zip(releases.values(), names, strict=True)
        ]
        gain, scored = heard[-1]
        findings = kept.tell_attacks(known, gain, scored)
        if before:
            findings += check_patches(list(releases.values()), known, heard=heard, names=names, cache=cache, timeout_s=timeout)
    if mark_patched is not None and not any(
        fault.verdict == "blocking" for fault in check_scored(scored)
    ):  # else nothing was shown to resist
        kept.write_attacks(kept.mark_patched(known, gain, mark_patched), file)
    finish(None, findings, as_json, None, access="black-box", fail_on=fail_on, into=into)


def probe(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A fit or reward model (folder or hub name), an address, python:MODULE:FUNCTION or python:FILE.py:FUNCTION (its code is run), or a table of scores.",
        ),
    ],
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Judgments that it was not trained on: their texts are probed, and it is measured by them; built-in texts otherwise.")
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Only this probe: padding, lists, sycophancy, refusal, phrases, ... May be given again; all where not given.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Responses that each family changes; with 200 about 5,000 texts are scored.")] = 200,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help='More minimal pairs, such as a model has written: JSON lines of {"family", "prompt", "original", "changed"}.')
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="Judgments that it was trained on, to see what it remembers.")] = None,
    template: Annotated[
        str | None, typer.Option("--template", metavar="CHECKPOINT", help="For an address, the checkpoint whose chat template makes the text that is sent.")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="A file of what was scored: a run that was stopped goes on from it.")] = None,
    timeout: Timeout = 600.0,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None, seed: Seed = 0,
    fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """What does any reward model really reward? Minimal pairs of texts, both ways, and what its scores give away."""
    from seamark.checks.perturbations import read_pairs
    from seamark.checks.probes import check_probes
    from seamark.reward.scorers import open_scorer, scorer_name

    for name, value in {"--format": format, "--columns": columns, "--axis": axis}.items():
        if source is None and train is None and value is not None:
            raise InvalidSetting(name, value, "It is about judgments: name their SOURCE as well, or leave it out.")
    with as_options(families="family", n="n", template="template", timeout_s="timeout"):
        more = read_pairs(pairs) if pairs is not None else ()
        scorer = open_scorer(model, template=template)
        judgments = read_feedback(source, format, columns, on_error, axis, seed) if source is not None else None
        learned = read_feedback(train, format, columns, on_error, axis, seed) if train is not None else None
        with show_progress(quiet=as_json) as say:
            findings = check_probes(
                scorer, judgments=judgments, train=learned, families=family, pairs=more, n=n, seed=seed, progress=say, cache=cache, name=scorer_name(model),
                timeout_s=timeout,
            )  # fmt: skip
    finish(judgments, findings, as_json, None, access="black-box", fail_on=fail_on, into=into)


def judges(
    source: Source,
    by: Annotated[
        str | None, typer.Option("--by", metavar="FIELD", help="Agreement with people also in parts: by provenance, pair_type, team or another field.")
    ] = None,
    format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop", axis: AxisOption = None, seed: Seed = 0,
    fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Do model judges follow the substance, or the place and the length? SOURCE has pairs that models judged, and people for the gold."""
    from seamark.checks import check_judges

    feedback = read_feedback(source, format, columns, on_error, axis, seed)
    with show_progress(quiet=as_json), as_options(by="by"):
        findings = check_judges(feedback, by=by)
    finish(feedback, findings, as_json, None, access="outside-the-box", fail_on=fail_on, into=into)


def mismatch(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="A row for each pair of reward model and policy, a column of numbers for each objective; names first.")
    ],
    lower: Annotated[
        list[str] | None, typer.Option("--lower", metavar="COLUMN", help="An objective of which less is better, such as a loss: it is turned round, and called -COLUMN. Repeat it.")
    ] = None,
    fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Do accuracy of reward models, the reward that policies reach and evaluation of the policies go together?"""
    from seamark.checks.mismatch import check_mismatch, read_objectives
    from seamark.intervals import shown

    objectives, names = read_objectives(table)
    for name in lower or ():
        if name not in objectives:
            raise InvalidSetting("--lower", name, f"The objectives of {table} are {', '.join(objectives)}.")
        objectives = {f"-{one}" if one == name else one: -values if one == name else values for one, values in objectives.items()}
    findings = check_mismatch(objectives, names=names)
    if not as_json:
        typer.echo(f"objectives: {', '.join(map(shown, objectives))}{'' if names is None else '; the first column has the names'}\n")
    finish(None, findings, as_json, None, access="outside-the-box", fail_on=fail_on, into=into)
