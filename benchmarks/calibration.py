"""Do intervals cover as often as they say? Truth drawn from the prior, answers from the model, fitted, counted.

    python benchmarks/calibration.py                      resume where the results file stands, up to the targets of every cell
    python benchmarks/calibration.py --budget-hours 0.5   the same for half an hour
    python benchmarks/calibration.py --cells 0 7 wrong    some cells, by number, by a word of their name
    python benchmarks/calibration.py --again 100          a hundred batches of earlier code once more: are their fits what they were?
    python benchmarks/calibration.py --quick              a few fits of a few cells, to see that it runs
    python benchmarks/calibration.py --write              the tables of docs/calibration.md, and what models/coverage.py ships

A *cell* is a composition of outcome family, effects, people and utility. Cells are a pairwise covering array: any two parts that make
sense together meet in at least one of them. For each fit a truth is drawn and kept beside what the fit says of it:

    z = (truth - estimate) / standard error        a 90% interval covers where |z| < 1.645

Gaps of one fit depend on each other, so a fit gives one gap, of a pair drawn at random, to the test; the mean coverage over five disjoint
pairs is shown beside it. Truths and answers are made in `truths`.

Source: Cook, Gelman & Rubin 2006; Talts et al. 2018 (simulation-based calibration). We look at z, not at ranks among posterior draws,
since an interval is mean +- 1.645 sd; and at coverage under fixed hyperparameters (`truths.SD`), not averaged over their vague priors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from scipy import stats
from truths import FACTORS, Cell, Composition, World, all_cells, observation_of, people_of, world

from seamark.errors import SeamarkError
from seamark.models import Fit, fit
from seamark.records import Feedback

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "calibration.jsonl"
PAGE = HERE.parent / "docs" / "calibration.md"
SHIPPED = HERE.parent / "src" / "seamark" / "models" / "coverage.py"

HARNESS = 1
"""Raised whenever truths or designs change: batches of another harness are not counted."""
BATCH = 10
"""Fits per line of the results file: what is lost when the run is killed."""
MANY, SOME, WRONG = 2000, 500, 200
"""Fits per cell: where one takes less than `FAST` seconds; elsewhere; of what is wrong on purpose."""
SAME = 0.05
"""By how much a z may move between two states of the code, and the fit be the same."""
FAST = 0.1
GUESS = {"Same": 3.0, "Groups": 5.0, "Personas": 15.0, "Varying": 60.0}
"""Seconds that a first batch may take."""
LEVEL = 1.645
"""Half width of a 90% interval, in standard errors."""
BAND = (0.88, 0.92)
ALPHA = 0.01
PAIRS = 5
"""Disjoint pairs whose mean coverage is shown beside that of the one that is tested."""

# ---------------------------------------------------------------------------------------------- one fit


def measure(cell: Cell, number: int) -> dict[str, Any]:
    """What fit `number` of a cell says beside the truth: z by quantity; or how it failed."""
    w = world(cell.truth, [HARNESS, cell.number, number])
    feedback = w.feedback
    if cell.copies > 1:
        feedback = replace(feedback, judgments=feedback.judgments.with_columns(weight=np.full(feedback.n_judgments, float(cell.copies))))
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = fit(feedback, utility=w.utility, people=people_of(cell.fitted), observation=observation_of(cell.fitted))
        except (SeamarkError, ArithmeticError, ValueError, IndexError, KeyError, AssertionError, np.linalg.LinAlgError) as error:
            return {"number": number, "failed": f"{type(error).__name__}: {str(error)[:120]}"}
    out = _compared(found, w, feedback, number)
    return out | {
        "seconds": time.perf_counter() - begun,
        "iterations": found.convergence.iterations,
        "warnings": sorted({f"{v.category.__name__}: {str(v.message)[:60]}" for v in warned}),
    }


def _compared(found: Fit, w: World, feedback: Feedback, number: int) -> dict[str, Any]:
    place = {name: i for i, name in enumerate(w.names)}
    code = np.array([place[name] for name in feedback.responses["name"].to_list()])
    rng = np.random.default_rng([number, 1])
    order = rng.permutation(len(code))
    left, right = order[: 2 * PAIRS : 2], order[1 : 2 * PAIRS : 2]
    out: dict[str, Any] = {"number": number, "z": {}, "covered": {}, "sandwich": {}}
    for quantity, values in w.values.items():
        gaps = found.gaps(feedback, left, right, **w.asked.get(quantity, {}))
        z = (values[code][left] - values[code][right] - gaps.mean) / gaps.ignorance
        out["z"][quantity] = float(z[0])
        out["covered"][quantity] = float((np.abs(z) < LEVEL).mean())
    told = {p.name: p for p in found.parameters}
    # a grade that nobody gave, or too few unanswered pairs: the fit has other parameters than the truth
    out["absent"] = sorted(set(w.parameters) - set(told))
    for name, truth in w.parameters.items():
        if name in told:
            p = told[name]
            out["z"][name] = (truth - p.estimate) / p.se
            if p.se_sandwich is not None:
                out["sandwich"][name] = (truth - p.estimate) / max(p.wider, 1e-12)
    return out


def measure_batch(task: tuple[Cell, int]) -> dict[str, Any]:
    """A line of the results file: fits `first` to `first + BATCH - 1` of a cell."""
    cell, first = task
    torch.set_num_threads(1)
    begun = time.perf_counter()
    fits = [measure(cell, first + i) for i in range(BATCH)]
    return {
        "harness": HARNESS, "code": code_fingerprint(), "cell": cell.number, "truth": asdict(cell.truth), "fitted": asdict(cell.fitted),
        "copies": cell.copies, "wrong": cell.wrong, "first": first, "n": BATCH, "wall_s": time.perf_counter() - begun, "fits": fits,
    }  # fmt: skip


@cache
def code_fingerprint() -> str:
    """Of the likelihood and its fitting, as they were when this process began: results of other code are told apart."""
    digest = hashlib.sha256()
    for path in sorted((HERE.parent / "src" / "seamark" / "models").glob("*.py")):
        if path != SHIPPED:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


# ---------------------------------------------------------------------------------------------- the run


def read_results(path: Path, cells: Sequence[Cell]) -> dict[int, list[dict[str, Any]]]:
    """Batches by cell: those of this harness whose composition is still that of the cell."""
    wanted = {c.number: (asdict(c.truth), asdict(c.fitted), c.copies) for c in cells}
    found: dict[int, dict[int, dict[str, Any]]] = {c.number: {} for c in cells}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for text in lines:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed
        if line["harness"] == HARNESS and wanted.get(line["cell"]) == (line["truth"], line["fitted"], line["copies"]):
            found[line["cell"]][line["first"]] = line  # the newest, where it was measured again
    return {number: list(batches.values()) for number, batches in found.items()}


def measured_again(path: Path) -> tuple[int, int]:
    """(fits that two states of the code have made, those of them whose every z moved by less than SAME)."""
    first: dict[tuple[int, int], dict[str, Any]] = {}
    fits, same = 0, 0
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            line = json.loads(text)
            before = first.setdefault((line["cell"], line["first"]), line)
            if before["code"] != line["code"] and before["harness"] == line["harness"] and before["truth"] == line["truth"]:
                for one, other in zip(before["fits"], line["fits"], strict=True):
                    fits += 1
                    z, now = one.get("z", {}), other.get("z", {})
                    same += z.keys() == now.keys() and all(abs(z[name] - now[name]) < SAME for name in z)
    return fits, same


def seconds_per_fit(batches: Sequence[Mapping[str, Any]]) -> float:
    """Median, which a busy machine moves least."""
    taken = [f["seconds"] for b in batches for f in b["fits"] if "seconds" in f]
    return float(np.median(taken)) if taken else np.inf


def target(cell: Cell, batches: Sequence[Mapping[str, Any]]) -> int:
    """Fits wanted: 2,000 where they are quick, 500 elsewhere; what is wrong on purpose shows in fewer."""
    if cell.wrong:
        return WRONG
    return MANY if seconds_per_fit(batches) < FAST else SOME


def tasks(cells: Sequence[Cell], done: Mapping[int, Sequence[Mapping[str, Any]]], fits: int = 0) -> Iterator[tuple[Cell, int]]:
    """Batches still to be done. The next is of the cell that will have had the least time after it: whenever the run is stopped, the quick
    cells are known well and the slow ones somewhat."""
    begun = {c.number: {b["first"] for b in done[c.number]} for c in cells}

    def after(cell: Cell) -> float:
        """Seconds that the cell will have had after one more batch."""
        batches = done[cell.number]
        each = BATCH * seconds_per_fit(batches) if batches else GUESS[cell.truth.people]
        return sum(b["wall_s"] for b in batches) + (len(begun[cell.number]) - len(batches) + 1) * each

    while True:
        wanted = []
        for cell in cells:
            first = next((i for i in range(0, fits or target(cell, done[cell.number]), BATCH) if i not in begun[cell.number]), None)
            if first is not None:
                wanted.append((after(cell), cell.number, first, cell))
        if not wanted:
            return
        _, number, first, cell = min(wanted)
        begun[number].add(first)
        yield cell, first


def run(
    cells: Sequence[Cell], path: Path, *, budget_s: float, processes: int, fits: int = 0, fresh: bool = False, again: int = 0
) -> dict[int, list[dict[str, Any]]]:
    """Fit until all targets are reached or the budget is spent; each finished batch is on disk before the next is counted.

    `fresh` measures again what was measured with other code, `again` so many batches of it, drawn at random, and nothing else.
    """
    code_fingerprint()  # before anybody can edit what has been imported
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n"):
        with path.open("a", encoding="utf-8") as cut:  # killed while it wrote a line: the next must begin on its own
            cut.write("\n")
    done = read_results(path, cells)
    if fresh:
        done = {number: [b for b in batches if b["code"] == code_fingerprint()] for number, batches in done.items()}
    end = time.monotonic() + budget_s
    total = sum((fits or target(c, done[c.number])) // BATCH - len(done[c.number]) for c in cells)
    wanted: Iterable[tuple[Cell, int]] = tasks(cells, done, fits)
    if again:
        old = [(c, b["first"]) for c in cells for b in done[c.number] if b["code"] != code_fingerprint()]
        total = min(again, len(old))
        wanted = [old[i] for i in np.random.default_rng(0).permutation(len(old))[:total]]

    def until_spent() -> Iterator[tuple[Cell, int]]:
        for task in wanted:
            if time.monotonic() > end:
                return
            yield task

    columns = (TextColumn("{task.description:.60}"), BarColumn(), TextColumn("{task.completed}/{task.total} batches"), TimeElapsedColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress, path.open("a", encoding="utf-8") as out:
        bar = progress.add_task("calibration", total=total)

        def keep(line: dict[str, Any]) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()
            done[line["cell"]].append(line)
            cell = next(c for c in cells if c.number == line["cell"])
            progress.update(bar, advance=1, description=cell.name)
            if not sys.stderr.isatty():
                print(f"{datetime.now():%H:%M:%S} {line['wall_s'] / BATCH:6.2f} s/fit {line['first']:5d} {cell.name}", file=sys.stderr)

        if processes == 1:
            for task in until_spent():
                keep(measure_batch(task))
            return done
        waiting, more = set[Future[dict[str, Any]]](), until_spent()
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            while True:
                # no further ahead than there are processes: what comes next depends on what has been found
                waiting |= {pool.submit(measure_batch, task) for task in islice(more, processes - len(waiting))}
                if not waiting:
                    break
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for line in ready:
                    keep(line.result())
    return done


# ---------------------------------------------------------------------------------------------- what it shows


@dataclass(frozen=True)
class Coverage:
    """How often the intervals of one quantity in one cell held the truth."""

    cell: Cell
    quantity: str
    n: int
    covered: int
    mean: float
    sd: float
    """Of z, with the truth drawn from the prior: 0 and 1 where posteriors are right."""
    low: float = 0.0
    high: float = 1.0
    """Holm-corrected 99% interval of the coverage."""
    p: float = 1.0
    passes: bool = True
    over_gaps: float | None = None
    """Mean coverage over all gaps looked at."""

    @property
    def share(self) -> float:
        return self.covered / self.n


def p_value(covered: int, n: int) -> float:
    """Of the coverage lying in BAND: twice the tail beyond the nearer end, so that p > a where the 1 - a interval meets the band."""
    low, high = BAND
    if covered < low * n:
        return float(min(1.0, 2 * stats.binom.cdf(covered, n, low)))
    if covered > high * n:
        return float(min(1.0, 2 * stats.binom.sf(covered - 1, n, high)))
    return 1.0


def judged(found: Sequence[Coverage]) -> list[Coverage]:
    """With Holm's correction over all that are given: pass, and the interval at the level that decided (Holm 1979)."""
    out: list[Coverage | None] = [None] * len(found)
    rejecting = True
    for rank, i in enumerate(np.argsort([c.p for c in found], kind="stable")):
        c, alpha = found[i], ALPHA / (len(found) - rank)
        rejecting = rejecting and c.p <= alpha
        low = 0.0 if c.covered == 0 else float(stats.beta.ppf(alpha / 2, c.covered, c.n - c.covered + 1))
        high = 1.0 if c.covered == c.n else float(stats.beta.ppf(1 - alpha / 2, c.covered + 1, c.n - c.covered))
        out[i] = replace(c, low=low, high=high, passes=not rejecting)
    return [c for c in out if c is not None]


def coverage(cell: Cell, batches: Sequence[Mapping[str, Any]], *, kind: str = "z") -> list[Coverage]:
    """Of each quantity of a cell, not yet judged; `kind` sandwich is that of parameters with the wider standard error.

    A fit counts once: of parameters of a kind, such as those of several source models, it gives the first.
    """
    fits = [f for b in batches for f in b["fits"] if "failed" not in f]
    found: dict[str, list[float]] = {}
    for f in fits:
        first: dict[str, float] = {}
        for name, z in f[kind].items():
            first.setdefault(parameter_kind(name), z)
        for name, z in first.items():
            found.setdefault(name, []).append(z)
    out = []
    for name, values in found.items():
        z = np.array(values)
        hit = int((np.abs(z) < LEVEL).sum())
        over = [f["covered"][name] for f in fits if name in f["covered"]] if kind == "z" else []
        mean = float(np.mean(over)) if over else None
        out.append(Coverage(cell, name, len(z), hit, float(z.mean()), float(z.std()), p=p_value(hit, len(z)), over_gaps=mean))
    return out


def families_of_tests(cells: Sequence[Cell], done: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, list[Coverage]]:
    """Judged coverage: of gaps of the mean person; of gaps of one group or level; of named parameters by curvature, and by the wider error.

    Holm's correction is over the right cells of each of the four; the cells wrong on purpose are judged among the gaps.
    """
    every = [c for cell in cells if done.get(cell.number) for c in coverage(cell, done[cell.number])]
    wider = [c for cell in cells if done.get(cell.number) and not cell.wrong for c in coverage(cell, done[cell.number], kind="sandwich")]
    return {
        "gap": judged([c for c in every if c.quantity == "gap"]),
        "level": judged([c for c in every if c.quantity in ("group", "level") and not c.cell.wrong]),
        "parameter": judged([c for c in every if c.quantity not in ("gap", "group", "level") and not c.cell.wrong]),
        "wider": judged(wider),
    }


def _percent(c: Coverage) -> str:
    return f"{100 * c.share:.1f} [{100 * c.low:.0f}, {100 * c.high:.0f}]"


def _row(*entries: object) -> str:
    return "| " + " | ".join(str(e) for e in entries) + " |"


def tables(cells: Sequence[Cell], done: Mapping[int, Sequence[Mapping[str, Any]]], again: tuple[int, int] = (0, 0)) -> str:
    """The measured part of the page, in Markdown; `again` is what `measured_again` found."""
    found = families_of_tests(cells, done)
    level = {(c.cell.number, c.quantity): c for c in found["level"]}
    codes = sorted({b["code"] for batches in done.values() for b in batches})
    fits = sum(len(b["fits"]) for batches in done.values() for b in batches)
    right = [c for c in found["gap"] if not c.cell.wrong]
    out = [
        f"{fits:,} fits of {len(right)} compositions and {len(found['gap']) - len(right)} made wrong on purpose; "
        f"{len(codes)} state{'s' if len(codes) > 1 else ''} of the code ({', '.join(codes)}).",
        *([f"{again[0]:,} fits were made once more by later code: in {again[1]:,} no z moved by {SAME}."] if again[0] else []),
        "",
        f"Gaps of the mean person: {sum(c.passes for c in right)} of {len(right)} compositions pass; pooled, "
        f"{100 * sum(c.covered for c in right) / max(sum(c.n for c in right), 1):.1f}% of {sum(c.n for c in right):,} intervals cover.",
        "",
        "| | outcome | utility | people | effects | n | covers % | over 5 gaps % | z mean | z sd | of a group or level % | s/fit | failed | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in right:
        f = c.cell.fitted
        batches = done[c.cell.number]
        beside = [level[c.cell.number, q] for q in ("group", "level") if (c.cell.number, q) in level]
        failed = sum("failed" in one for b in batches for one in b["fits"])
        half = 1.96 / np.sqrt(c.n)
        out.append(
            _row(
                c.cell.number,
                f.outcome,
                f.utility,
                f.people,
                ", ".join(f.effects) or "none",
                c.n,
                _percent(c),
                f"{100 * (c.over_gaps or 0):.1f}",
                f"{c.mean:+.2f} ± {half:.2f}",
                f"{c.sd:.2f} ± {half / np.sqrt(2):.2f}",
                "; ".join(f"{b.quantity} {_percent(b)}{'' if b.passes else ' **fails**'}" for b in beside),
                f"{seconds_per_fit(batches):.2f}",
                failed or "",
                "pass" if c.passes else "**fails**",
            )
        )
    out += ["", "Made wrong on purpose, which must fail:", "", "| | n | covers % | z sd | |", "|---|---|---|---|---|"]
    for c in found["gap"]:
        if c.cell.wrong:
            out.append(
                _row(c.cell.wrong, c.n, _percent(c), f"{c.sd:.2f}", "passes: the criterion is blind" if c.passes else "fails, as it must")
            )
    out += [
        "",
        "By part, over all compositions that have it (gaps of the mean person; clustered by fit):",
        "",
        "| part | compositions | n | covers % | z sd |",
        "|---|---|---|---|---|",
    ]
    for name, levels in FACTORS.items():
        for value in levels:
            if not value and name in ("shift", "scale", "lapse", "missing", "slope"):
                continue
            mine = [c for c in right if getattr(c.cell.fitted, name) == value]
            if mine:
                n, hit = sum(c.n for c in mine), sum(c.covered for c in mine)
                low, high = stats.binomtest(hit, n).proportion_ci(0.95)
                spread = np.sqrt(sum(c.n * (c.sd**2 + c.mean**2) for c in mine) / n)
                out.append(_row(value, len(mine), n, f"{100 * hit / n:.1f} [{100 * low:.0f}, {100 * high:.0f}]", f"{spread:.2f}"))
    out += _parameter_table(found)
    crashed: dict[str, set[int]] = {}
    for number, batches in done.items():
        for b in batches:
            for one in b["fits"]:
                if "failed" in one:
                    crashed.setdefault(re.sub(r"\d[\d.e+-]*", "#", one["failed"])[:90], set()).add(number)
    if crashed:
        out += ["", "Fits that ended in an error (they are not counted above):", ""]
        out += [f"- `{text}` in compositions {', '.join(map(str, sorted(where)))}" for text, where in sorted(crashed.items())]
    return "\n".join(out)


def parameter_kind(name: str) -> str:
    """Parameters that are the same thing in different blocks and levels."""
    for pattern, kind in (
        (r"scale: team=.*", "scale by names"),
        (r"scale: position", "scale by number"),
        (r"source: .*", "source"),
        (r"(rating|thumbs)/.*: (log_step|cut).*", r"\1: \2"),
        (r"(pair/strength): log_step.*", r"\1: log_step"),
        (r"(ranking)/best of \d: (\w+)", r"\1: \2"),
    ):
        if re.fullmatch(pattern, name):
            return re.sub(pattern, kind, name)
    return name


def _parameter_table(found: Mapping[str, list[Coverage]]) -> list[str]:
    out = [
        "", "Named parameters (90% intervals; by the curvature, and by the wider of that and the sandwich):", "",
        "| parameter | compositions | n | curvature % | z mean | z sd | wider % | compositions where it fails |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    kinds = dict.fromkeys(c.quantity for c in found["parameter"])
    for kind in kinds:
        mine = [c for c in found["parameter"] if c.quantity == kind]
        wide = [c for c in found["wider"] if c.quantity == kind]
        n = sum(c.n for c in mine)
        z = sum(c.n * c.mean for c in mine) / n
        spread = np.sqrt(max(sum(c.n * (c.sd**2 + c.mean**2) for c in mine) / n - z**2, 0))
        share = 100 * sum(c.covered for c in mine) / n
        wider = f"{100 * sum(c.covered for c in wide) / sum(c.n for c in wide):.1f}" if wide else ""
        bad = sorted({c.cell.number for c in mine if not c.passes})
        out.append(
            _row(kind, len({c.cell.number for c in mine}), n, f"{share:.1f}", f"{z:+.2f}", f"{spread:.2f}", wider, ", ".join(map(str, bad)))
        )
    return out


def shipped(cells: Sequence[Cell], done: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    """The literal of `models/coverage.py`: what failed, with what was measured."""
    found = families_of_tests(cells, done)
    rows = []
    for kind in ("gap", "level", "parameter"):
        for c in found[kind]:
            if not c.passes and not c.cell.wrong:
                f = c.cell.fitted
                effects = tuple(sorted(f.effects))
                entry = (f.outcome, f.utility, f.people, effects, c.quantity, c.n, round(c.share, 3), round(c.low, 3), round(c.high, 3))
                rows.append(f"    Failed{entry!r},".replace("'", '"'))
    return "\n".join(["FAILED: tuple[Failed, ...] = (", *rows, ")"])


def _between(text: str, start: str, end: str, new: str) -> str:
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{new}\n{end}{after}"


def write(cells: Sequence[Cell], done: Mapping[int, Sequence[Mapping[str, Any]]], again: tuple[int, int]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_between(page, "<!-- measured -->", "<!-- end -->", "\n" + tables(cells, done, again) + "\n"), encoding="utf-8")
    code = SHIPPED.read_text(encoding="utf-8")
    SHIPPED.write_text(_between(code, "# fmt: off", "# fmt: on", shipped(cells, done)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget-hours", type=float, default=8.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", nargs="*", default=[], help="numbers, or words of their names")
    parser.add_argument("--fits", type=int, default=0, help="fits per cell, in place of 500, or 2,000 where they are quick")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured with other code")
    parser.add_argument("--again", type=int, default=0, metavar="BATCHES", help="measure only so many batches of earlier code once more")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="10 fits of the bare cell and of one wrong on purpose; nothing is kept")
    parser.add_argument("--list", action="store_true", help="only say which cells there are")
    parser.add_argument("--write", action="store_true", help="only write docs/calibration.md and models/coverage.py from the results")
    given = parser.parse_args()
    cells = all_cells()
    if given.write:
        write(cells, read_results(given.results, cells), measured_again(given.results))
        return
    if given.cells:
        cells = [c for c in cells if any(str(c.number) == w or (not w.isdigit() and w in c.name) for w in given.cells)]
    if given.list:
        for cell in cells:
            print(cell.number, cell.name)
        return
    if given.quick:
        cells = [c for c in cells if c.fitted == Composition() and (not c.wrong or c.copies > 1)]
        given.fits, given.results = BATCH, Path(os.devnull)
    done = run(
        cells, given.results, budget_s=3600 * given.budget_hours, processes=given.processes, fits=given.fits, fresh=given.fresh,
        again=given.again,
    )  # fmt: skip
    done = read_results(given.results, cells) if given.again else done
    print(tables(cells, done, measured_again(given.results)))


if __name__ == "__main__":
    main()
