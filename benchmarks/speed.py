"""Seamark and its peers on the same data: seconds, memory, and how near each comes to the truth.

    python benchmarks/speed.py                   every row that has not been measured yet
    python benchmarks/speed.py bt ties           some rows (--list says which there are)
    python benchmarks/speed.py --n 2000 --runs 1 all at one small size, to see that they run
    python benchmarks/speed.py --write           the tables and the picture of docs/, from what has been measured

A measurement is a fresh process: imports (timed apart), a warm-up on small data, the library's own input from arrays ("input",
timed apart), then the call. Shown is the median of --runs (five); what takes more than 30 seconds is run once. "x" is the seconds of the row
over Seamark's; "x with input" the same with the making of the input. Memory is the peak of the call above what the imports left.
Every finished run is a line of benchmarks/results/speed.jsonl, and is not run again: remove the file, or lines of it, to measure
anew. Times compare within one machine only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results"
START, END = "<!-- speed: written by benchmarks/speed.py --write -->", "<!-- end of speed -->"
PACKAGES = (
    "seamark",
    "numpy",
    "scipy",
    "polars",
    "torch",
    "choix",
    "evalica",
    "crowd-kit",
    "scikit-learn",
    "numpyro",
    "jax",
    "whr",
    "krippendorff",
)
SMALL = 2000
"""Judgments of the warm-up."""


@dataclass(frozen=True)
class Case:
    """One library on one row."""

    name: str
    prepare: str
    """Function of ours or peers (module.function) that makes its input from a set."""
    call: str
    """Function that is timed."""
    read: str = ""
    """Function from what the call gave, and the set, to strengths by item code; else they are what the call gave."""
    modules: tuple[str, ...] = ()
    """What it imports."""
    largest: float = 1e7
    why: str = ""
    """Why it is not run beyond that."""
    once: bool = False
    """Whether one run is enough: it takes minutes."""
    arguments: tuple[Any, ...] = ()
    """Where prepare or call are themselves made by a function (its name ends in ()): its arguments."""


@dataclass(frozen=True)
class Row:
    """The same task for all cases; the first is what ratios refer to."""

    key: str
    title: str
    make: str
    """Name of the set in data.SETS."""
    sizes: tuple[float, ...]
    figures: tuple[tuple[str, str], ...]
    """(heading, format) of what `score` gives."""
    cases: tuple[Case, ...]
    score: str
    note: str = ""
    seeds: int = 1
    """Data sets that the runs are spread over."""


_TORCH = ("seamark.models", "seamark.models.fitting", "torch")
_BT = (("RMSE", ".4f"), ("slope", ".3f"))
_PAIRS = (("RMSE", ".3f"), ("pair accuracy", ".4f"))
_HELD = (("accuracy on pairs nobody judged", ".4f"),)
_COVER = (("coverage of 95% intervals", ".3f"), ("standard error", ".3f"), ("ms a fit", ".3g"))
_SQUARE = "a matrix of items x items"
_SKLEARN = ("sklearn.linear_model", "scipy.sparse")
_LOGISTIC = (
    Case("scikit-learn LogisticRegression, C=1e4, tol=1e-8", "peers.design", "peers.logistic()", "", _SKLEARN, arguments=(1e4, 1e-8)),
    Case(
        "scikit-learn LogisticRegression, told the true prior (C=1), tol=1e-8",
        "peers.design",
        "peers.logistic()",
        "",
        _SKLEARN,
        arguments=(1.0, 1e-8),
    ),
)
_PANDAS = ("pandas", "scipy.optimize", "scipy.special")
_CROWD = ("crowdkit.aggregation", *_SKLEARN)
_OURS = Case("**Seamark**", "ours.feedback", "ours.fit", "ours.strengths", _TORCH)

ROWS: tuple[Row, ...] = (
    Row(
        "bt",
        "Bradley-Terry, 200 items, from integer codes",
        "dense",
        (1e4, 1e5, 1e6, 1e7),
        _BT,
        (
            _OURS,
            Case("choix ilsr_pairwise_dense (counts given)", "peers.wins", "peers.choix_dense", "", ("choix",)),
            Case(
                "evalica bradley_terry",
                "peers.evalica_lists",
                "peers.evalica_fit()",
                "peers.evalica_logits",
                ("evalica",),
                arguments=("bradley_terry",),
            ),
            Case("FastChat's method", "peers.arena_codes", "peers.fastchat", "peers.fastchat_logits", _PANDAS),
            Case("scikit-learn LogisticRegression", "peers.design", "peers.logistic()", "", _SKLEARN, arguments=(1e4,)),
        ),
        "recovery",
        "With intervals for Seamark; the others give none.",
    ),
    Row(
        "bt-strings",
        "The same, from columns of names",
        "dense",
        (1e4, 1e5, 1e6, 1e7),
        _BT,
        (
            Case("**Seamark**", "ours.strings", "ours.fit_strings", "ours.strengths", _TORCH),
            Case("choix, names coded by pandas", "peers.arena_names", "peers.choix_from_names", "read.pairs", ("choix", "pandas")),
            Case(
                "evalica bradley_terry",
                "peers.evalica_names",
                "peers.evalica_fit()",
                "peers.evalica_logits",
                ("evalica",),
                arguments=("bradley_terry",),
            ),
            Case("FastChat's method", "peers.arena_names", "peers.fastchat", "peers.fastchat_logits", _PANDAS),
            Case("scikit-learn LogisticRegression", "peers.arena_names", "peers.logistic_from_names", "read.pairs", ("pandas", *_SKLEARN)),
        ),
        "recovery",
    ),
    Row(
        "bootstrap",
        "Bradley-Terry with 100 bootstrap rounds, 200 items",
        "dense",
        (1e6,),
        (("mean se / error", ".2f"),),
        (
            Case("**Seamark** bootstrap", "ours.feedback", "ours.bootstrap", "read.ours_rounds", _TORCH),
            Case(
                "FastChat's method (a process per core)", "peers.arena_codes", "peers.fastchat_bootstrap", "read.fastchat_rounds", _PANDAS
            ),
            Case("evalica bootstrap, percentile", "peers.evalica_lists", "peers.evalica_bootstrap", "read.evalica_rounds", ("evalica",)),
        ),
        "spread",
        "The figure is the mean bootstrap standard error of a strength over its root mean square error: 1 where both are right.",
    ),
    Row(
        "sparse",
        "Sparse: 20 comparisons an item",
        "sparse",
        (1e6,),
        _PAIRS,
        (
            _OURS,
            *_LOGISTIC,
            Case("FastChat's method", "peers.arena_codes", "peers.fastchat", "peers.fastchat_logits", _PANDAS),
            Case("choix mm_pairwise, alpha 0.1", "peers.votes", "peers.choix_mm", "", ("choix",)),
        ),
        "recovery",
        f"evalica and the other functions of choix need {_SQUARE}.",
    ),
    Row(
        "grouped",
        "Preference data: responses meet within their prompt of four only",
        "grouped",
        (1e5, 1e6),
        _PAIRS,
        (
            _OURS,
            *_LOGISTIC,
            Case("FastChat's method", "peers.arena_codes", "peers.fastchat", "peers.fastchat_logits", _PANDAS),
        ),
        "recovery_within",
        f"choix finds no answer where items meet in parts, and evalica needs {_SQUARE}.",
    ),
    Row(
        "style",
        "Style control: 200 items, four covariates of the texts of a vote",
        "style",
        (1e6,),
        (*_BT, ("first coefficient (true 0.45)", ".3f")),
        (
            Case("**Seamark**", "ours.style_columns", "ours.style", "ours.style_of", _TORCH),
            Case("FastChat's method", "peers.style_table", "peers.fastchat_style", "read.style_of", _PANDAS),
            Case(
                "scikit-learn LogisticRegression",
                "peers.style_design",
                "peers.logistic()",
                "read.style_weights",
                _SKLEARN,
                arguments=(1e4,),
            ),
        ),
        "style",
    ),
    *(
        Row(
            key,
            title,
            make,
            (size,),
            _HELD,
            (
                Case("**Seamark**, raters' reliability and position", "ours.feedback", "ours.fit_raters", "ours.strengths", _TORCH),
                Case("**Seamark**, raters ignored", "ours.feedback", "ours.fit", "ours.strengths", _TORCH),
                Case("FastChat's method", "peers.arena_codes", "peers.fastchat", "peers.fastchat_logits", _PANDAS),
                Case("crowd-kit DawidSkene, then Bradley-Terry", "peers.tasks", "peers.dawid_skene", "", _CROWD),
                Case("crowd-kit NoisyBradleyTerry", "peers.labelled", "peers.noisy_bradley_terry", "read.crowd", _CROWD, once=True),
                Case("NumPyro SVI, own model", "peers.coded", "peers.numpyro_svi", "", ("jax", "numpyro", "numpyro.infer")),
                Case("*oracle: the true slopes and shifts known*", "peers.coded", "peers.oracle", "", ("scipy.optimize", "scipy.special")),
                *more,
            ),
            "held_out",
            note,
            seeds=seeds,
        )
        for key, title, make, size, seeds, note, more in (
            ("annot-1e5", "2,000 raters of mixed reliability, 20 judgments a pair", "annot", 1e5, 1, "", ()),
            (
                "annot-1e6",
                "The same, 200 judgments a pair",
                "annot",
                1e6,
                1,
                "",
                (
                    Case(
                        "evalica bradley_terry",
                        "peers.evalica_lists",
                        "peers.evalica_fit()",
                        "peers.evalica_logits",
                        ("evalica",),
                        arguments=("bradley_terry",),
                    ),
                ),
            ),
            ("annot-thin", "The same raters, three judgments a pair, five data sets", "thin", 1e5, 5, f"evalica needs {_SQUARE}.", ()),
        )
    ),
    Row(
        "ties",
        "Ties: 50 items, Davidson's model is true",
        "ties",
        (1e5,),
        (*_BT,),
        (
            Case("**Seamark**, Davidson", "ours.feedback", "ours.fit", "ours.strengths", _TORCH),
            Case(
                "evalica newman", "peers.evalica_lists", "peers.evalica_fit()", "peers.evalica_logits", ("evalica",), arguments=("newman",)
            ),
            Case(
                "evalica bradley_terry, half a win each",
                "peers.evalica_lists",
                "peers.evalica_fit()",
                "peers.evalica_logits",
                ("evalica",),
                arguments=("bradley_terry",),
            ),
            Case("FastChat's method, half a win each", "peers.arena_codes", "peers.fastchat", "peers.fastchat_logits", _PANDAS),
        ),
        "recovery",
        "The slope of the strengths on the truth: half a win each keeps the order and flattens the scale.",
        seeds=5,
    ),
    Row(
        "coverage",
        "Coverage where 40 raters differ in taste: 20 items, 4,000 votes, gaps of all pairs",
        "tastes",
        (4000,),
        _COVER,
        (
            Case("**Seamark**, intervals of the fit", "peers.each()", "ours.intervals", "", _TORCH, arguments=("ours.feedback", 200)),
            Case(
                "**Seamark**, the wider of that and the sandwich by rater",
                "peers.each()",
                "ours.sandwich_intervals",
                "",
                _TORCH,
                arguments=("ours.feedback", 200),
            ),
            Case(
                "**Seamark**, bootstrap of raters", "peers.each()", "ours.bootstrap_intervals", "", _TORCH, arguments=("ours.feedback", 200)
            ),
            Case(
                "FastChat's method, bootstrap of votes",
                "peers.each()",
                "peers.fastchat_intervals",
                "",
                _PANDAS,
                arguments=("peers.arena_codes", 40),
            ),
            Case(
                "evalica bootstrap of votes",
                "peers.each()",
                "peers.evalica_intervals",
                "",
                ("evalica",),
                arguments=("peers.evalica_lists", 40),
            ),
        ),
        "coverage",
        "Truth is what a Bradley-Terry fit to endlessly many raters would find. 200 repetitions for Seamark, 40 for the others.",
    ),
    Row(
        "drift",
        "Strengths that walk at random over a year, 100 items",
        "drift",
        (1e4, 1e5),
        (("RMSE of the last day", ".3f"), ("judgments / s", ",.0f")),
        (
            Case("**Seamark**, Dynamic, daily periods, step estimated", "ours.feedback", "ours.fit_path", "ours.last_strengths", _TORCH),
            Case("whr, 20 sweeps, true step given", "peers.games", "peers.whole_history", "peers.last_ratings", ("whr",)),
        ),
        "last_day",
    ),
    Row(
        "alpha",
        "Krippendorff's alpha, 2,000 raters, 5,000 units or more",
        "agreement",
        (1e5, 1e6),
        (("alpha", ".12f"),),
        (
            Case("**Seamark**, from the long table", "ours.long_table", "ours.alpha", "", ("seamark.checks.agreement",)),
            Case("evalica alpha, from the dense table", "peers.units_by_raters_frame", "peers.evalica_alpha", "", ("evalica", "pandas")),
            Case("krippendorff, from the dense table", "peers.units_by_raters", "peers.krippendorff_alpha", "", ("krippendorff",)),
        ),
        "value",
    ),
)


# ---------------------------------------------------------------------------------------------- one measurement (a process of its own)


def child(row: Row, case: Case, path: Path, small: Path) -> dict[str, Any]:
    """Import, warm up, prepare, call, score."""
    start = time.perf_counter()
    for module in case.modules:
        importlib.import_module(module)
    import_s = time.perf_counter() - start
    import numpy as np
    import scoring

    prepare, call = _function(case.prepare, case.arguments), _function(case.call, case.arguments)
    read = _function(case.read, ()) if case.read else (lambda found, _made: found)
    base = _held()
    with contextlib.suppress(ValueError):  # some peers cannot fit so few judgments, and are warm all the same
        call(prepare(dict(np.load(small))))
    made = dict(np.load(path))
    start = time.perf_counter()
    given = prepare(made)
    input_s = time.perf_counter() - start
    _forget_peak()
    cpu = time.process_time()
    start = time.perf_counter()
    found = call(given)
    seconds = time.perf_counter() - start
    peak = _peak()
    cpu_s = time.process_time() - cpu
    figures = getattr(scoring, row.score)(made, read(found, made), seconds)
    times = {"seconds": seconds, "cpu_s": cpu_s, "input_s": input_s, "import_s": import_s}
    return {**times, "peak_mib": (peak - base) / 2**20, "import_mib": base / 2**20, "figures": figures}


def _function(name: str, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """module.function; with () after it, what it makes of the arguments (which may be such names themselves)."""
    module, function = name.removesuffix("()").rsplit(".", 1)
    found = getattr(importlib.import_module("scoring" if module == "read" else module), function)
    if not name.endswith("()"):
        return found
    return found(*(_function(a, ()) if isinstance(a, str) and a.startswith(("ours.", "peers.")) else a for a in arguments))


def _held() -> int:
    """Bytes of memory held now."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return _peak()


def _forget_peak() -> None:
    """From here on, so that what came before the call does not count; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


# ---------------------------------------------------------------------------------------------- runs


def measured(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def data_file(row: Row, n: int, seed: int, folder: Path, repetitions: int) -> Path:
    """The set, made once: in this order of names so that rows share them."""
    import data
    import numpy as np

    path = folder / f"{row.make}-{n}-{seed}{f'-{repetitions}' if row.make == 'tastes' else ''}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        more = {"seed": data.SETS[row.make].__kwdefaults__["seed"] + 100 * seed}
        if row.make == "tastes":
            more["repetitions"] = repetitions
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **data.SETS[row.make](n, **more))
        partial.rename(path)
    return path


def run(row: Row, case: Case, path: Path, small: Path, timeout_s: float) -> dict[str, Any]:
    """What a process of its own reports, or why it does not."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", row.key, case.name, str(path), str(small)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=HERE)
    late = threading.Timer(timeout_s, lambda: os.killpg(process.pid, signal.SIGKILL))
    late.start()
    out, errors = process.communicate()
    timed_out = not late.is_alive()
    late.cancel()
    if process.returncode == 0:
        return json.loads(out.decode().splitlines()[-1])
    said = errors.decode(errors="replace").strip().splitlines()
    last = said[-1] if said else f"exit {process.returncode}"
    if last.startswith("NotImplementedError"):
        return {"missing": last.partition(": ")[2]}
    return {"failed": f"over {timeout_s:.0f} s" if timed_out else last[:160]}


def run_all(rows: Iterable[Row], given: argparse.Namespace) -> None:
    """Whatever has not been measured yet, a line for each run."""
    log = given.results / "speed.jsonl"
    given.results.mkdir(parents=True, exist_ok=True)
    done = {(r["row"], r["case"], r["n"], r["run"]): r for r in measured(log)}
    for row in rows:
        sizes = sorted({min(int(size), given.n) for size in row.sizes}) if given.n else [int(size) for size in row.sizes]
        for n in sizes:
            for case in row.cases:
                if n > case.largest:
                    continue
                for index in range(given.runs):
                    key = (row.key, case.name, n, index)
                    if key not in done:
                        seed = index % row.seeds
                        path = data_file(row, n, seed, given.results / "data", given.repetitions)
                        small = data_file(row, min(n, SMALL), seed, given.results / "data", min(given.repetitions, 2))
                        found = run(row, case, path, small, given.timeout)
                        done[key] = {"row": row.key, "case": case.name, "n": n, "run": index, "seed": seed, **machine(), **found}
                        with log.open("a", encoding="utf-8") as out:
                            out.write(json.dumps(done[key]) + "\n")
                    last = done[key]
                    shown = f"{last['seconds']:.3g} s" if "seconds" in last else last.get("missing") or last.get("failed")
                    print(f"{row.key:12} {n:>10,}  {case.name:48} run {index + 1}: {shown}", file=sys.stderr, flush=True)
                    if case.once or "seconds" not in last or (last["seconds"] > given.once_above and row.seeds == 1):
                        break


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
    }


# ---------------------------------------------------------------------------------------------- tables


def table(row: Row, runs: list[dict[str, Any]]) -> str:
    """A row of the report: every case at every size."""
    heads = [
        "judgments",
        "what",
        "seconds",
        "x",
        "x with input",
        "input s",
        "import s",
        "peak MiB",
        *(name for name, _ in row.figures),
        "runs",
    ]
    lines = [f"### {row.title}", "", *([row.note, ""] if row.note else []), "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for n in sorted({r["n"] for r in runs if r["row"] == row.key}):
        found = {case.name: [r for r in runs if (r["row"], r["case"], r["n"]) == (row.key, case.name, n)] for case in row.cases}
        base = [r for r in found[row.cases[0].name] if "seconds" in r]
        for case in row.cases:
            good = [r for r in found[case.name] if "seconds" in r]
            cells = [f"{n:,}", case.name]
            if not good:
                bad = next((f"missing: {r['missing']}" if "missing" in r else r["failed"] for r in found[case.name]), case.why or "not run")
                lines.append("| " + " | ".join([*cells, bad.replace("|", "/"), *[""] * (len(heads) - 3)]) + " |")
                continue
            seconds, whole = median(r["seconds"] for r in good), median(r["seconds"] + r["input_s"] for r in good)
            cells.append(f"{seconds:.3g}")
            cells.append(f"{seconds / median(r['seconds'] for r in base):.2g}" if base else "")
            cells.append(f"{whole / median(r['seconds'] + r['input_s'] for r in base):.2g}" if base else "")
            cells += [
                f"{median(r['input_s'] for r in good):.2g}",
                f"{median(r['import_s'] for r in good):.2g}",
                f"{median(r['peak_mib'] for r in good):,.0f}",
            ]
            for name, form in row.figures:
                values = [r["figures"][name] for r in good if name in r["figures"]]
                cell = format(sum(values) / len(values), form) if values else ""
                if row.seeds > 1 and len({r["seed"] for r in good}) > 1:
                    mean = sum(values) / len(values)
                    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
                    cell += f" +- {format(spread, form)}"
                cells.append(cell)
            lines.append("| " + " | ".join([*cells, str(len(good))]) + " |")
    return "\n".join(lines)


def report(rows: Iterable[Row], runs: list[dict[str, Any]], picture: bool) -> str:
    """All that has been measured."""
    known = [row for row in rows if any(r["row"] == row.key for r in runs)]
    where = runs[-1] if runs else machine()
    named = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    parts = [
        "`python benchmarks/speed.py`, then `python benchmarks/speed.py --write`. Seconds are medians over fresh processes, so many as the last column "
        "says, after a warm-up; x is the ratio to Seamark's; memory is the peak of the call above the imports. "
        f"Python {where['python']}, {named}; load of the machine while measuring {min(r['load'] for r in runs):g} to {max(r['load'] for r in runs):g}."
    ]
    if picture:
        parts.append("![Seconds of a fit by number of judgments](speed.svg)")
    return "\n\n".join([*parts, *(table(row, runs) for row in known)])


def draw(runs: list[dict[str, Any]], path: Path) -> bool:
    """How the time of a Bradley-Terry fit grows; whether it could be drawn."""
    try:
        import altair as alt
        import polars as pl
        import vl_convert
    except ImportError:
        return False
    points = [
        {"what": r["case"].strip("*"), "judgments": r["n"], "seconds": r["seconds"], "from": row.title.split(", ")[-1]}
        for row in ROWS[:2]
        for r in runs
        if r["row"] == row.key and "seconds" in r
    ]
    if len({p["judgments"] for p in points}) < 2:
        return False
    axis = alt.Axis(format="~s")
    chart = (
        alt.Chart(pl.DataFrame(points).group_by("what", "judgments", "from").agg(pl.col("seconds").median()))
        .mark_line(point=True)
        .encode(
            alt.X("judgments:Q", scale=alt.Scale(type="log"), axis=axis),
            alt.Y("seconds:Q", scale=alt.Scale(type="log"), axis=axis),
            alt.Color("what:N", title=None),
            alt.Column("from:N", title=None),
        )
        .properties(width=300, height=240)
    )
    path.write_text(vl_convert.vegalite_to_svg(chart.to_dict()), encoding="utf-8")
    return True


def write(given: argparse.Namespace, rows: Iterable[Row]) -> None:
    """The part of docs/benchmarks.md between the marks."""
    runs = measured(given.results / "speed.jsonl")
    if not runs:
        raise SystemExit("nothing has been measured yet; run without --write first")
    page = given.docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"{page} has no line {START!r} and {END!r} to write between")
    before, after = text.split(START)[0], text.split(END, 1)[1]
    page.write_text(f"{before}{START}\n\n{report(rows, runs, draw(runs, given.docs / 'speed.svg'))}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="what to measure (default: everything)")
    parser.add_argument("--list", action="store_true", help="the rows, and end")
    parser.add_argument("--n", type=int, default=0, help="at most so many judgments, whatever the sizes of the rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--once-above", type=float, default=30.0, help="seconds above which a case is run once")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a process is stopped")
    parser.add_argument("--repetitions", type=int, default=200, help="data sets of the row coverage")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished runs and the data")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md, for --write")
    parser.add_argument("--write", action="store_true", help="write the tables of what has been measured, and measure nothing")
    parser.add_argument("--child", nargs=4, metavar=("ROW", "CASE", "DATA", "SMALL"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.results = given.results.resolve()  # a child runs in another folder
    known = {row.key: row for row in ROWS}
    if given.child:
        key, name, path, small = given.child
        case = next(case for case in known[key].cases if case.name == name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(child(known[key], case, Path(path), Path(small))))
        return 0
    if given.list:
        print("\n".join(f"{row.key:12} {row.title}" for row in ROWS))
        return 0
    if unknown := set(given.rows) - set(known):
        parser.error(f"unknown row {sorted(unknown)[0]!r}; use {', '.join(known)}")
    chosen = [known[key] for key in given.rows] or list(ROWS)
    if given.write:
        write(given, ROWS)
        return 0
    run_all(chosen, given)
    runs = measured(given.results / "speed.jsonl")
    print("\n\n".join(table(row, runs) for row in chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
