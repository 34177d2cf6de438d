"""The commands about who decides: charters, and the record of decisions."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    as_options,
    parse_settings,
    read_feedback,
)
from seamark.cli.printing import finish, print_answer
from seamark.errors import InvalidSetting

if TYPE_CHECKING:
    from seamark.checks import Finding

charters = typer.Typer(no_args_is_help=True, help="Whose values, how weighted: write, check, compare and show charters.")
CharterFile = Annotated[Path, typer.Argument(metavar="CHARTER", help="A charter.toml.")]


@charters.command("init")
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
    print_answer(
        as_json, f"charter: {out}\nnext: edit it, sign it, then seamark charter check {out}", charter=str(out), charter_signed=False
    )


@charters.command("check")
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
    head = f"{chosen.title}: {chosen.signature}{', expired' if chosen.expired else ''}\nhash: {chosen.hash}"
    if fit is not None:
        fitted = open_fit(fit)
        chosen.group_weights(fitted)
        chosen.at(fitted)
        chosen.require_weighed(fitted)
        if source is not None:
            feedback = read_feedback(source, format, columns, on_error, axis, seed)
            found = check_charter(fitted, chosen, feedback, seed=seed)
            if not as_json:  # findings.json has them in the details of expiry
                typer.echo(f"{head}\n")
            following = "sign a charter that is of today" if chosen.expired else f"seamark export {fit} {source} --charter {charter}"
            finish(feedback, found, as_json, following, access="white-box")
            return
    print_answer(
        as_json, head, charter=str(charter), title=chosen.title, charter_signed=chosen.signed, unsigned_for=list(chosen.unsigned_for),
        expired=chosen.expired, hash=chosen.hash,
    )  # fmt: skip
    raise typer.Exit(1 if chosen.expired else 0)


@charters.command("diff")
def charter_diff(
    one: CharterFile, other: Annotated[Path, typer.Argument(metavar="OTHER", help="The one it is compared with.")], as_json: Json = False
) -> None:
    """Which choices differ between two charters."""
    from seamark.aggregation import Charter

    changes = Charter.from_toml(one).differences(Charter.from_toml(other))
    lines = [f"{name}: {mine!r} -> {theirs!r}" for name, mine, theirs in changes] or ["They make the same choices."]
    print_answer(as_json, "\n".join(lines), changes=[{"choice": name, "one": mine, "other": theirs} for name, mine, theirs in changes])


@charters.command("show")
def charter_show(charter: CharterFile, as_json: Json = False) -> None:
    """Print a charter with every choice written out, those too that its file leaves to the default."""
    from seamark.aggregation import Charter

    chosen = Charter.from_toml(charter)
    print_answer(as_json, f"{chosen.to_toml()}\n# hash: {chosen.hash}", charter=chosen.model_dump(mode="json"), hash=chosen.hash)


# ---------------------------------------------------------------------------------------------- the record of decisions

audit = typer.Typer(no_args_is_help=True, help="The record of decisions: append to it, verify it, hand it out, release by it.")

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
    """Append one entry to the log, if all of it is as it was written; the entry is on the disk when this returns."""
    from seamark.governance import append, append_charter, require_appendable

    require_appendable(log, actor=actor)
    body = parse_settings(None, said, option="--say", example="reason=duplicate")
    if kind == "charter" and charter is None:
        raise InvalidSetting("--charter", "", "An entry of kind charter has the whole of one: give the file, --charter charter.toml.")
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
    print_answer(as_json, f"entry {entry.seq} of {log}\nhead: {entry.seq + 1}:{entry.hash}", **entry.model_dump())


@audit.command(name="head")
def audit_head(log: Log, as_json: Json = False) -> None:
    """Print where the log ends: published, it shows a later cut or rewriting."""
    from seamark.governance import BrokenLog, verify

    found = verify(log)
    if found.problem not in (None, "torn"):
        raise BrokenLog(str(log), found.message)
    print_answer(as_json, str(found.head), n=found.head.n, hash=found.head.hash)


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
    print_answer(
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
    print_answer(as_json, f"for an auditor: {out}\nhead: {head}\nnext: seamark audit verify {out}", folder=str(out), head=str(head))


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
    from seamark.governance import read
    from seamark.governance.mandate import check_ballots, count_ballots

    counted = count_ballots(read(log), poll)
    chosen = Charter.from_toml(charter).electorate if charter is not None else None
    found = check_ballots(counted, chosen.weights, weighting=chosen.weighting) if chosen is not None else check_ballots(counted)
    if not as_json:
        typer.echo("\n".join(f"  {option:<24} {n:,}" for option, n in counted.votes.items()))
    finish(None, found, as_json, None, access="outside-the-box")


@audit.command(name="card")
def audit_card(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study.")],
    log: Annotated[Path | None, typer.Argument(metavar="[LOG]", help="The log that it was released in.")] = None,
    as_json: Json = False,
) -> None:
    """Does a sealed card say what the files say, and are both as they were released? Exit status 1 where not."""
    from seamark.governance import read
    from seamark.governance.release import check_card, check_release

    found = check_card(study) if log is None else check_release(study, read(log))
    finish(None, found, as_json, None, access="outside-the-box")


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
        print_answer(
            as_json, "\n".join(["not releasable:", *(f"  {reason}" for reason in refused.reasons)]), released=False, reasons=refused.reasons
        )
        raise typer.Exit(1) from None
    print_answer(as_json, f"released: {entry.body['hash']}\nhead: {entry.seq + 1}:{entry.hash}", released=True, **entry.model_dump())


def campaign(
    file: Annotated[
        Path, typer.Argument(metavar="CAMPAIGN", help="A campaign.toml: the questions it answers, and the file of its attempts.")
    ],
    claims: Annotated[
        Path | None, typer.Option("--claims", help="A register whose [[claims]] are held against what the campaign, and --study, have found.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="With --claims, a finished study, whose findings are evidence as well.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="With --claims, where to export them (CSV): claim, scope, evidence and gap. Not where one must not be made."),
    ] = None,
    fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """What a red-team campaign shows: is its record whole, what did it find, how much has it not seen, and what may be claimed?"""
    from seamark.checks import Findings
    from seamark.governance.access import check_claims, export_claims
    from seamark.governance.campaigns import Campaign, check_campaign, read_attempts
    from seamark.governance.registers import Register
    from seamark.study import read_findings

    for name, value in {"--study": study, "--out": out}.items():
        if claims is None and value is not None:
            raise InvalidSetting(name, str(value), "It goes with claims: name their file with --claims, or leave it out.")
    asked = Campaign.from_toml(file)
    attempts = read_attempts(file.parent / asked.attempts) if asked.attempts else ()
    findings = check_campaign(asked, attempts).with_access("black-box")
    if claims is not None:
        made = Register.from_toml(claims).claims
        if not made:
            raise InvalidSetting(
                "--claims", str(claims), "It makes no claims: write [[claims]] with name, text, needs, evidence and scope."
            )
        with as_options(folder="study", claims="claims"):
            kept = read_findings(study) if study is not None else ()
            # what the study has of this campaign is of before
            found = [f for f in kept if not f.code.startswith("claim/") and not _of_campaign(f, file)]
            evidence = Findings((*findings, *found))
            checked = check_claims(made, evidence)
        findings += checked
        if out is not None and checked.blocking:
            typer.echo(f"{out} is not written: a claim in it must not be made\n", err=True)
        elif out is not None:
            export_claims(made, evidence, out)
            if not as_json:
                typer.echo(f"claims: {out}\n")
    finish(None, findings, as_json, None, access="black-box", fail_on=fail_on, into=into)


def _of_campaign(finding: "Finding", file: Path) -> bool:
    """Whether a study has it from this command about this campaign, whatever else was asked then."""
    return finding.details.get("command") == "seamark campaign" and shlex.split(str(finding.details.get("subject")))[:1] == [str(file)]


def goals(
    file: Annotated[Path, typer.Argument(metavar="GOALS", help="A goals.toml: what we care about, and which terms of the reward stand for it.")],
    place: Annotated[
        Path | None, typer.Argument(metavar="[FIT|CHARTER]", help="The folder of a fit, or a charter.toml, whose terms they are held against.")
    ] = None,
    charter: Annotated[Path | None, typer.Option("--charter", help="With FIT, the charter that makes one reward of it.")] = None,
    fail_on: FailOn = None, into: Into = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Does something in the reward stand for everything that we care about, and nothing else?"""
    from seamark.aggregation import Charter
    from seamark.governance.goals import Goals, check_goals, reward_terms

    asked = Goals.from_toml(file)
    terms = None
    if place is not None and place.suffix == ".toml":
        if charter is not None:
            raise InvalidSetting("--charter", str(charter), f"{place} is a charter already; give one of them.")
        terms = reward_terms(charter=Charter.from_toml(place))
    elif place is not None:
        from seamark.reward import open_fit

        terms = reward_terms(open_fit(place), Charter.from_toml(charter) if charter is not None else None)
    elif charter is not None:
        terms = reward_terms(charter=Charter.from_toml(charter))
    finish(None, check_goals(asked, terms), as_json, None, access="outside-the-box", fail_on=fail_on, into=into)
