"""The commands about a catalogue of signals, whose entries hold different values."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from seamark.cli.options import AxisOption, ColumnsOption, FormatOption, Json, OnError, Seed, Source, read_feedback
from seamark.cli.printing import finish, print_skipped

catalogue = typer.Typer(no_args_is_help=True, help="Signals of different values, side by side: list, check, match.")
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
            f"  {e.name:<24} {e.values} ({', '.join(e.languages)}; {e.licence}; {e.date}; safe response preferred for "
            f"{one.safety.said('share')} of {one.safety.n:,} prompts)"
        )
    for name, some in found.refused.items():
        typer.echo(f"  not listed: {name}: {' '.join(one.says for one in some)}")
    following = "match" if found.listed else "check"
    typer.echo(f"next: seamark catalogue {following} {folder}{' JUDGMENTS' if found.listed else ''}")


@catalogue.command(name="check")
def check_entries(folder: CatalogueFolder, as_json: Json = False) -> None:
    """Does every entry do what an entry must? Exit status 1 where one may not be listed."""
    from seamark.checks import Finding, Findings
    from seamark.reward.catalogue import Catalogue

    items: list[Finding] = []
    found = Catalogue.open(folder)
    for one in found.conformance:
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
    following = f"seamark catalogue list {folder}" if found.listed else "do what the remedies say, and check again (--json has them)"
    finish(None, Findings(tuple(items)), as_json, following, access="white-box")


@catalogue.command(name="match")
def match_entries(
    folder: CatalogueFolder, source: Source, format: FormatOption = None, columns: ColumnsOption = None, on_error: OnError = "stop",
    axis: AxisOption = None, seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Which entries a person, or the people of a community, hold the values of: by the pairs they decided, few or many."""
    from seamark.reward.catalogue import Catalogue

    found = Catalogue.open(folder)
    judgments = read_feedback(source, format, columns, on_error, axis, seed)
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
    print_skipped(judgments.report.skipped)
