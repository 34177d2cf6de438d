"""The program: its commands in the order of the help, and what becomes of an error."""

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated

import typer

from seamark.cli.catalogues import catalogue
from seamark.cli.checks import (
    assumptions,
    attacks,
    benchmark,
    check_parity,
    diagnose,
    evaluate,
    explain,
    generalise,
    judges,
    mismatch,
    optimise,
    probe,
    repair,
    search,
)
from seamark.cli.governance import audit, campaign, charters, goals
from seamark.cli.people import attribute, dissent, plan, population, simulate
from seamark.cli.steps import export, fit, report, study, train
from seamark.errors import SeamarkError


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"seamark {version('seamark')}")
        raise typer.Exit


app = typer.Typer(
    name="seamark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Turns human feedback into a reward that can be steered by. Start with: seamark study prefs.jsonl -o out"""
    del version  # its callback has answered


for _command in (
    study,
    diagnose,
    assumptions,
    judges,
    fit,
    train,
    evaluate,
    benchmark,
    mismatch,
    generalise,
    probe,
    optimise,
    explain,
    repair,
    search,
    attacks,
    export,
    check_parity,
    report,
    dissent,
    population,
    campaign,
    goals,
    simulate,
    plan,
    attribute,
):
    app.command()(_command)
for _name, _group in {"charter": charters, "audit": audit, "catalogue": catalogue}.items():
    app.add_typer(_group, name=_name)


@cache
def _command_line() -> Callable[..., object]:
    """What the functions' signatures say, read once by a process that calls `main` many times."""
    return typer.main.get_command(app)


_ONE_THREAD = (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE"))


def main() -> None:
    """Run the command line; what the user can put right is one message on stderr and exit status 2."""
    # many small matrices: more threads spin against each other, and on a machine that does other work too made a fit 5 to 20 times
    # slower. Set before numpy and torch load; whoever has idle cores and large tables sets them otherwise.
    # A network is large matrices, and takes them all.
    for name, value in () if sys.argv[1:2] == ["train"] else _ONE_THREAD:
        os.environ.setdefault(name, value)
    try:
        _command_line()(prog_name="seamark")
    except SeamarkError as error:
        _fail(str(error))
    except OSError as error:  # of the machine: a file without permission, a full disk
        place = error.filename if error.filename is not None else "input or output"
        remedy = "Check that it is there, that you may read and write it, and that the disk has room."
        _fail(f"{place}: {error.strerror or error}. {remedy}")


def _fail(message: str) -> None:
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    sys.exit(2)
