"""What commands print: findings as a table or as JSON, what was written where, and how far the work is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from seamark.checks import Findings
    from seamark.checks.findings import Access
    from seamark.records import Feedback


def print_skipped(skipped: Sequence[str]) -> None:
    """How many records were left out, and the first of them."""
    if skipped:
        typer.echo(f"\nleft out: {len(skipped):,} record{'' if len(skipped) == 1 else 's'}; the first: {skipped[0]}")


def print_answer(as_json: bool, text: str, **facts: object) -> None:
    """What was written where: a line for people, an object for machines."""
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)


def finish(
    feedback: Feedback | None,
    findings: Findings,
    as_json: bool,
    following: str | None,
    *,
    access: Access,
    fail_on: Sequence[str] | None = None,
    into: Callable[[Findings], Path] | None = None,
) -> None:
    """Print findings, as a table or in the shape of findings.json, and exit with what they say.

    Parameters
    ----------
    access : what the command had access to; findings that say something of their own keep it.
    fail_on : expressions of findings that count as failures, too.
    into : adds them to the report of a finished study, and says where that is.
    """
    findings = findings.with_access(access)
    if as_json:
        from seamark.rendering import describe_data, findings_json

        nothing = {"n_judgments": 0, "n_responses": 0, "n_prompts": 0}
        typer.echo(findings_json(describe_data(feedback) if feedback is not None else nothing, findings), nl=False)
    else:
        print_findings(findings)
        print_skipped(feedback.report.skipped if feedback is not None else ())
        if following:
            typer.echo(f"\nnext: {following}")
    if into is not None:  # when all is said: a study that takes no more findings loses nothing
        typer.echo(f"\nreport: {into(findings)}", err=as_json)
    raise typer.Exit(1 if stop_at(findings, fail_on) or findings.blocking else 0)


def stop_at(findings: Findings, fail_on: Sequence[str] | None) -> bool:
    """Whether expressions of --fail-on stop here; says why."""
    from seamark.checks.gates import parse_gates, stopped
    from seamark.intervals import shown

    reasons = stopped(parse_gates(fail_on or ()), findings)
    for reason in reasons:
        typer.echo(f"stopped by --fail-on: {shown(reason)}", err=True)
    return bool(reasons)


_COLOURS = {"blocking": "bold red", "warning": "yellow", "notice": "cyan", "ok": "green", "not_applicable": "dim"}


def print_findings(findings: Findings) -> None:
    """A table of them, the gravest first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seamark.intervals import shown  # loads numpy, which a start has no use for

    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("verdict", "code", "finding"):
        table.add_column(name, overflow="fold")
    for f in findings.by_severity():
        detail = f.title if f.verdict != "not_applicable" else f"{f.title} {f.reason}"
        # names of raters, families and files are other people's text
        table.add_row(Text(f.verdict.replace("_", " "), style=_COLOURS[f.verdict]), Text(shown(f.code)), Text(shown(detail)))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)


@contextmanager
def show_progress(*, quiet: bool) -> Generator[Callable[[str, float], None]]:
    """A progress bar on a terminal, nothing when piped: moving to and fro until somebody says how far the work is."""
    if quiet or not sys.stderr.isatty():
        yield lambda _stage, _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from seamark.progress import listening

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("working", total=None)

        def say(stage: str, share: float) -> None:
            bar.update(task, description=stage, completed=share, total=1.0)

        with listening(say):
            yield say
