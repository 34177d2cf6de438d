"""The benchmarks run, at a size where they say nothing: so that they do not rot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

import seamark as sm

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("part", "title", "rows"),
    [("load", "dialogues", ["sm.load", "orjson alone"]), ("fit", "leaderboard", ["sm.fit, Tabular, with intervals", "evalica newman"])],
)
def test_run_prints_a_table_and_writes_json(
    tmp_path: Path, part: str, title: str, rows: list[str], require: Callable[[str, str], Any]
) -> None:
    if part == "fit":
        require("evalica", "Install the extra dev: the peers come with it.")
    command = [sys.executable, str(BENCHMARKS / "run.py"), part, "--only", title, "--sizes", "200", "--runs", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("*.json")
    found = {row["name"]: row for row in json.loads(written.read_text(encoding="utf-8"))["rows"]}
    for name in rows:
        assert f"| 200 | {name} |" in done.stdout
        assert found[name]["failed"] == ""
        assert found[name]["runs"][0]["seconds"] > 0
        assert 10 < found[name]["peak_mib"][0] < 4000


def test_a_case_that_fails_or_takes_too_long_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    run = _module("run")
    result, _, why = run.measure("seamark", tmp_path / "absent.npz", 60.0)
    assert result is None
    assert "absent.npz" in why
    result, _, why = run.measure("seamark", tmp_path / "absent.npz", 0.01)
    assert (result, why) == (None, "over 0 s")


def test_every_case_of_a_table_exists() -> None:
    run = _module("run")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        cases = _module("cases")
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert {case.case for table in run.TABLES for case in table.cases} == set(cases.CASES)


def test_data_is_as_it_says() -> None:
    data = _module("data")
    made = data.leaderboard(50_000)
    assert (made["left"] != made["right"]).all()
    assert 0.6 < made["strength"].std() < 1.0
    gap = made["strength"][made["left"]] - made["strength"][made["right"]]
    near = np.abs(gap - 1) < 0.1
    # P(left) = sigmoid(1) = 0.731; three standard errors of about 2,000 judgments are 0.03
    assert abs(made["won"][near].mean() - 0.731) < 0.03
    crowd = data.crowd(20_000)
    judged = {frozenset(pair) for pair in zip(crowd["left"].tolist(), crowd["right"].tolist(), strict=True)}
    assert len(judged) == 5000
    assert not judged & {frozenset(pair) for pair in crowd["held"].tolist()}
    assert np.bincount(crowd["kind"]).tolist() == [1200, 400, 300, 100]
    # careful raters side with the better response, opposed ones against it
    better = (crowd["strength"][crowd["left"]] > crowd["strength"][crowd["right"]]) == crowd["won"]
    share = [better[crowd["kind"][crowd["rater"]] == kind].mean() for kind in range(4)]
    assert share[0] > 0.7 > share[1] > 0.52 > share[3]
    assert data.sparse(1000)["strength"].shape == (100,)


def test_debates_counts_what_it_says() -> None:
    debates = _module("debates")
    rows = [("x", "yy", "left"), ("x", "yy", "left"), ("yy", "x", "left"), ("x", "yy", "tie"), ("x", "zzz", "right"), ("x", "x", "left")]
    n = len(rows)
    feedback = sm.Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "prompt": ["p"] * n,
            "texts": [[left, right] for left, right, _ in rows],
            "outcome": [outcome for *_, outcome in rows],
            "provenance": ["debate:a"] * n,
        }
    )
    # decided judgments of different texts: x x y | z; longer wins tells the third and the last right
    # pairs: {x, yy} goes to x by 2 to 1, told wrong; {x, zzz} to zzz, told right
    found = debates.accuracies(feedback, debates.longer_wins(feedback, feedback))
    assert found == {"judgments": (0.5, 4), "pairs": (0.5, 2)}
    assert feedback.filter(pl.col("provenance") == "debate:a").n_judgments == n


def test_interval_over_debates() -> None:
    """t(0.975, 2) = 4.3027; sd of 1, 2, 3 is 1: 2 -+ 4.3027 / sqrt(3)."""
    assert _module("debates").interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-3)
