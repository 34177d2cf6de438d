"""Time and peak memory of reading files, beside their parsers, and of whole studies. (Fits beside their peers: speed.py.)

    python benchmarks/run.py                       everything
    python benchmarks/run.py load --sizes 1e4 1e5  some of it

Every measurement is a fresh process (its peak memory includes Python, the library and the data); shown are the median of the runs
and, for seconds, their range. A ratio is the row's seconds over Seamark's. Times of one machine compare within one run only.
This process imports nothing big: on Linux a child starts with its parent's peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("seamark", "numpy", "polars", "orjson", "torch")


@dataclass(frozen=True)
class Case:
    """A row of a table."""

    name: str
    case: str


@dataclass(frozen=True)
class Table:
    """Cases on the same file; the first is what ratios refer to."""

    part: str
    title: str
    make: str
    suffix: str
    cases: tuple[Case, ...]
    sizes: tuple[float, ...] | None = None
    """Only these, whatever sizes are asked for, if they are not smaller."""


TABLES = (
    Table(
        "load", "Load dialogues (HH-RLHF layout, JSONL)", "dialogues", ".jsonl", (Case("sm.load", "load"), Case("orjson alone", "parse"))
    ),
    Table("load", "Load ids (JSONL)", "annot", ".jsonl", (Case("sm.load", "load"), Case("orjson alone", "parse"))),
    Table("load", "Load ids (CSV)", "annot", ".csv", (Case("sm.load", "load"), Case("polars.read_csv alone", "parse"))),
    Table("study", "Whole study, ids, 200 items (target: 30 s, 2 GiB)", "dense", ".jsonl", (Case("run_study", "study"),), (1e5,)),
    Table("study", "Whole study, ids, 10,000 items (target: 30 s, 2 GiB)", "sparse", ".jsonl", (Case("run_study", "study"),), (1e5,)),
    Table("study", "Whole study, ids, 2,000 raters (target: 30 s, 2 GiB)", "annot", ".jsonl", (Case("run_study", "study"),), (1e5,)),
    Table(
        "study", "Whole study, texts, simulated society (target: 30 s, 2 GiB)", "society", ".jsonl", (Case("run_study", "study"),), (1e5,)
    ),
)


@dataclass
class Row:
    """One case at one size."""

    table: str
    name: str
    n: int
    runs: list[dict[str, Any]] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    failed: str = ""

    def seconds(self) -> list[float]:
        return [run["seconds"] for run in self.runs]


def measure(case: str, path: Path, timeout_s: float) -> tuple[dict[str, Any] | None, float, str]:
    """(what the case reported, peak MiB, why it failed) of one fresh process."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "cases.py"), case, str(path)], stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        # wait4 gives the peak of this very child, where getrusage(RUSAGE_CHILDREN) gives the largest of all so far
        late = threading.Timer(timeout_s, lambda: os.killpg(process.pid, signal.SIGKILL))
        late.start()
        assert process.stdout is not None
        out = process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        timed_out = not late.is_alive()
        late.cancel()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    peak = usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    if process.returncode != 0:
        return None, peak, f"over {timeout_s:.0f} s" if timed_out else (said[-1] if said else f"exit {process.returncode}")
    return json.loads(out), peak, ""


def run_table(table: Table, sizes: list[int], *, runs: int, timeout_s: float, folder: Path) -> list[Row]:
    """All cases of a table at all sizes."""
    rows: list[Row] = []
    if table.sizes is not None:
        sizes = [min(int(size), max(sizes)) for size in table.sizes]
    for n in sizes:
        path = folder / f"{table.make}-{n}{table.suffix}"
        making = [sys.executable, str(HERE / "cases.py"), f"make:{table.make}", str(path), "--n", str(n)]
        if not path.exists() and subprocess.run(making, check=False).returncode != 0:
            rows += [Row(table.title, case.name, n, failed="its data could not be made") for case in table.cases]
            continue
        for case in table.cases:
            row = Row(table.title, case.name, n)
            rows.append(row)
            for _ in range(runs):
                start = time.perf_counter()
                result, peak, row.failed = measure(case.case, path, timeout_s)
                if result is None:
                    break
                row.runs.append(result)
                row.peak_mib.append(peak)
                if time.perf_counter() - start > 60:  # a long case is run once, and says so
                    break
            print(f"  {n:>9,}  {case.name}: {row.failed or f'{median(row.seconds()):.3f} s'}", file=sys.stderr, flush=True)
    return rows


_SHOWN = (
    ("held-out accuracy", "held_out", ".4f"),
    ("n held out", "n_held_out", ",d"),
    ("converged", "converged", ""),
    ("stages s", "stages", ""),
)


def markdown(rows: list[Row]) -> str:
    """A table of one kind of rows."""
    extra = [(title, key, form) for title, key, form in _SHOWN if any(key in run for row in rows for run in row.runs)]
    header = [
        "judgments",
        "what",
        "seconds",
        "range",
        "runs",
        "ratio",
        "peak MiB",
        *(title for title, _, _ in extra),
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    first = {row.n: row for row in reversed(rows)}
    for row in rows:
        cells = [f"{row.n:,}", row.name]
        if row.failed or not row.runs:
            lines.append("| " + " | ".join([*cells, row.failed[:90].replace("|", "/"), *[""] * (len(header) - 3)]) + " |")
            continue
        seconds = row.seconds()
        base = median(first[row.n].seconds()) if first[row.n].runs else None
        cells += [f"{median(seconds):.3g}", f"{min(seconds):.3g}-{max(seconds):.3g}", str(len(seconds))]
        cells.append(f"{median(seconds) / base:.3g}" if base else "")
        cells.append(f"{median(row.peak_mib):,.0f}")
        for _, key, form in extra:
            values = [run.get(key) for run in row.runs]
            known = [v for v in values if v is not None]
            cells.append("" if not known else format(median(known), form) if form and form != ",d" else _plain(known[0], form))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(value: Any, form: str) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {s}" for name, s in value.items())
    return format(value, form)


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        **versions,
    }


def main(arguments: list[str] | None = None) -> int:
    parts = list(dict.fromkeys(table.part for table in TABLES))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to run: {', '.join(parts)} (default: all)")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e4, 1e5, 1e6], help="numbers of judgments")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case; one that takes over a minute is run once")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a case is stopped")
    parser.add_argument("--only", default="", help="only tables whose title contains this")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder for the JSON file")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; use {', '.join(parts)}")
    sizes = sorted({int(size) for size in given.sizes})
    where = machine()
    print(f"Seamark benchmarks: {', '.join(f'{k} {v}' for k, v in where.items())}\n")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="seamark-bench-") as folder:
        for table in TABLES:
            if (given.parts and table.part not in given.parts) or given.only.lower() not in table.title.lower():
                continue
            print(table.title, file=sys.stderr, flush=True)
            made = run_table(table, sizes, runs=given.runs, timeout_s=given.timeout, folder=Path(folder))
            rows += made
            print(f"### {table.title}\n\n{markdown(made)}\n", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{time.strftime('%Y%m%dT%H%M%S')}-{'-'.join(given.parts) or 'all'}.json"
    path.write_text(json.dumps({"machine": where, "rows": [asdict(row) for row in rows]}, indent=1), encoding="utf-8")
    print(f"Written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
