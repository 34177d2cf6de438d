"""What is measured, one case per process: `python benchmarks/cases.py CASE FILE` prints one JSON object.

A case does what its library needs before the clock starts (imports), then times one call.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data

Result = dict[str, Any]


def _clock(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


# ---------------------------------------------------------------------------------------------- loading and studies


def _load(path: Path) -> Result:
    from seamark import load

    feedback, seconds = _clock(lambda: load(path))
    return {"seconds": seconds, "n_responses": feedback.n_responses}


def _read_plain(path: Path) -> Result:
    """The floor: a fast parser over the same bytes, keeping nothing of ours."""
    import orjson
    import polars as pl

    def lines() -> int:
        with path.open("rb") as stream:
            return sum(1 for line in stream if orjson.loads(line))

    rows, seconds = _clock(lines if path.suffix == ".jsonl" else lambda: pl.read_csv(path).height)
    return {"seconds": seconds, "rows": rows}


def _study(path: Path) -> Result:
    import seamark as sm

    stages: dict[str, float] = {}
    state = ["importing", time.perf_counter()]

    def progress(stage: str, _share: float) -> None:
        now = time.perf_counter()
        stages[state[0]] = stages.get(state[0], 0.0) + now - state[1]
        state[:] = [stage, now]

    out = path.with_suffix(".study")
    study, seconds = _clock(lambda: sm.run_study(path, out, progress=progress))
    accuracy = study.findings.get("accuracy")
    return {
        "seconds": seconds,
        "stages": {name: round(s, 2) for name, s in stages.items()},
        "converged": study.fit is not None and study.fit.convergence.converged,
        "held_out": None if accuracy is None else accuracy.estimate,
        "n_held_out": None if accuracy is None else accuracy.n,
    }


CASES: dict[str, Callable[[Path], Result]] = {"load": _load, "parse": _read_plain, "study": _study}


# ---------------------------------------------------------------------------------------------- files of a run


def make(kind: str, path: Path, n: int) -> None:
    """Write the data set or file that a case reads."""
    if kind == "dialogues":
        data.write_dialogues(path, n)
    elif kind == "society":
        import seamark as sm

        n_prompts = min(3000, max(20, n // 20))
        sm.simulate(n_prompts=n_prompts, n_raters=max(20, n // 50), n_judgments=n).feedback.to_jsonl(path)
    else:
        data.write_ids(path, data.SETS[kind](n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help=f"make:SET, or one of {', '.join(CASES)}")
    parser.add_argument("path", type=Path)
    parser.add_argument("--n", type=int, default=0, help="judgments, for make")
    arguments = parser.parse_args()
    if arguments.case.startswith("make:"):
        make(arguments.case.removeprefix("make:"), arguments.path, arguments.n)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        json.dump(CASES[arguments.case](arguments.path), sys.stdout)


if __name__ == "__main__":
    main()
