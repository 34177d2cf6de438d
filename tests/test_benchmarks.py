"""The benchmarks run, at a size where they say nothing: so that they do not rot."""

from __future__ import annotations

import importlib.util
import json
import re
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


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / arguments[0]), *map(str, arguments[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def test_run_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    done = _run("run.py", "load", "--only", "ids", "--sizes", "200", "--runs", "1", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("*.json")
    found = {row["name"]: row for row in json.loads(written.read_text(encoding="utf-8"))["rows"]}
    for name in ("sm.load", "orjson alone", "polars.read_csv alone"):
        assert f"| 200 | {name} |" in done.stdout
        assert found[name]["failed"] == ""
        assert found[name]["runs"][0]["seconds"] > 0
        assert 10 < found[name]["peak_mib"][0] < 4000


def test_a_case_that_fails_or_takes_too_long_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    run = _module("run")
    result, _, why = run.measure("load", tmp_path / "absent.jsonl", 60.0)
    assert result is None
    assert "absent.jsonl" in why
    result, _, why = run.measure("load", tmp_path / "absent.jsonl", 0.01)
    assert (result, why) == (None, "over 0 s")


def test_every_case_of_a_table_exists() -> None:
    run = _module("run")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        cases = _module("cases")
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert {case.case for table in run.TABLES for case in table.cases} == set(cases.CASES)


# ---------------------------------------------------------------------------------------------- speed.py

QUICK = ("alpha",)
"""Rows that are quick at a small size."""
SLOW = ("bt", "bt-strings", "style", "bootstrap", "sparse", "grouped", "annot-thin", "coverage", "drift", "ties", "alpha")
"""With these, every case is run once: the rows of raters differ in their data only."""
PEERS = ("choix", "evalica", "krippendorff", "sklearn", "crowdkit")


@pytest.mark.slow
@pytest.mark.parametrize("rows", [QUICK, SLOW], ids=["quick", "slow"])
def test_speed_measures_resumes_and_writes(tmp_path: Path, rows: tuple[str, ...], require: Callable[[str, str], Any]) -> None:
    for peer in PEERS:
        require(peer, "Install the extra dev: most peers come with it.")
    speed = _module("speed")
    small = ("--n", "2400", "--runs", "1", "--repetitions", "3", "--results", tmp_path)
    done = _run("speed.py", *rows, *small)
    assert done.returncode == 0, done.stderr
    log = tmp_path / "speed.jsonl"
    runs = {(run["row"], run["case"]): run for run in speed.measured(log)}
    chosen = [row for row in speed.ROWS if row.key in rows]
    assert set(runs) == {(row.key, case.name) for row in chosen for case in row.cases}
    unfinished = {key: run.get("failed") or run.get("missing") for key, run in runs.items() if "seconds" not in run}
    # the largest peers come with the extra bench
    unfinished = {key: why for key, why in unfinished.items() if not re.match("ModuleNotFoundError.*(numpyro|jax|whr)", why)}
    # so few votes leave items that won or lost everything, for which choix has no answer; style is a row that says what is missing
    assert {row for row, _ in unfinished} <= {"bt", "bt-strings", "style"}, unfinished
    assert all("choix" in case or "Seamark" in case for _, case in unfinished), unfinished
    for key, run in runs.items():
        if "seconds" in run:
            assert run["seconds"] > 0, key
            assert run["import_s"] > 0, key
            assert -1 < run["peak_mib"] < 4000, key
            assert run["figures"], key
    alphas = [runs["alpha", case.name]["figures"]["alpha"] for case in next(r for r in speed.ROWS if r.key == "alpha").cases]
    assert alphas == pytest.approx([alphas[0]] * 3, abs=1e-12)
    # one model, one answer: without ties a Davidson fit, half a win each and FastChat's loss are the same maximum of likelihood
    if "ties" in rows:
        slope = {name: run["figures"]["slope"] for (row, name), run in runs.items() if row == "ties"}
        half = slope["evalica bradley_terry, half a win each"]
        assert half == pytest.approx(slope["FastChat's method, half a win each"], abs=5e-3)
        assert half < slope["**Seamark**, Davidson"]

    before = log.read_text(encoding="utf-8")
    again = _run("speed.py", *rows, *small)
    assert again.returncode == 0, again.stderr
    assert log.read_text(encoding="utf-8") == before, "what is measured is not measured again"

    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Page\n\n{speed.START}\nwhat stood here before\n{speed.END}\n\nThe rest.\n", encoding="utf-8")
    written = _run("speed.py", "--write", "--results", tmp_path, "--docs", tmp_path)
    assert written.returncode == 0, written.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Page")
    assert text.endswith("The rest.\n")
    assert "what stood here before" not in text
    for row in chosen:
        assert f"### {row.title}" in text
        for case in row.cases:
            assert f"| 2,400 | {case.name} |" in text


def test_every_function_of_a_row_exists() -> None:
    speed = _module("speed")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        data, scoring = (importlib.import_module(name) for name in ("data", "scoring"))
        for row in speed.ROWS:
            assert row.make in data.SETS
            assert callable(getattr(scoring, row.score))
            assert len({case.name for case in row.cases}) == len(row.cases)
            for case in row.cases:
                for name in filter(None, (case.prepare, case.call, case.read)):
                    assert callable(speed._function(name, case.arguments))
        assert len({row.key for row in speed.ROWS}) == len(speed.ROWS)
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_speed_draws_how_time_grows(tmp_path: Path) -> None:
    speed = _module("speed")
    row = speed.ROWS[0]
    runs = [{"row": row.key, "case": c.name, "n": n, "seconds": n / 1e6} for c in row.cases for n in (1000, 10_000)]
    # without the extra bench there are tables only
    assert speed.draw(runs, tmp_path / "speed.svg") == (importlib.util.find_spec("vl_convert") is not None)
    assert not (tmp_path / "speed.svg").exists() or "<svg" in (tmp_path / "speed.svg").read_text(encoding="utf-8")
    assert not speed.draw(runs[:1], tmp_path / "none.svg")


# ---------------------------------------------------------------------------------------------- data


DENSE = {"left": [36, 177, 135, 115, 169], "won": [1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1], "strength": 1.4946296762226245}
ANNOT = ([2890, 3473, 4009, 4932], [1415, 1658, 328, 1936], 51473)


def test_sets_are_those_of_the_reference_generator() -> None:
    """First entries, from the generator that the peers were first measured with."""
    data = _module("data")
    made = data.dense(10_000)
    assert made["left"][:5].tolist() == DENSE["left"]
    assert made["won"][:12].tolist() == DENSE["won"]
    assert made["strength"][0] == pytest.approx(DENSE["strength"], abs=1e-12)
    made = data.annot(100_000)
    assert (made["left"][:4].tolist(), made["rater"][:4].tolist(), int(made["won"].sum())) == ANNOT


def test_data_is_as_it_says() -> None:
    data = _module("data")
    made = data.dense(50_000)
    assert (made["left"] != made["right"]).all()
    assert 0.6 < made["strength"].std() < 1.0
    gap = made["strength"][made["left"]] - made["strength"][made["right"]]
    near = np.abs(gap - 1) < 0.1
    # P(left) = sigmoid(1) = 0.731; three standard errors of about 2,000 judgments are 0.03
    assert abs(made["won"][near].mean() - 0.731) < 0.03
    crowd = data.annot(20_000)
    judged = {frozenset(pair) for pair in zip(crowd["left"].tolist(), crowd["right"].tolist(), strict=True)}
    assert len(judged) == 5000
    assert not judged & {frozenset(pair) for pair in crowd["held"].tolist()}
    assert np.bincount(crowd["kind"]).tolist() == [1200, 400, 300, 100]
    # careful raters side with the better response, opposed ones against it
    better = (crowd["strength"][crowd["left"]] > crowd["strength"][crowd["right"]]) == crowd["won"]
    share = [better[crowd["kind"][crowd["rater"]] == kind].mean() for kind in range(4)]
    assert share[0] > 0.7 > share[1] > 0.52 > share[3]
    assert data.sparse(1000)["strength"].shape == (100,)
    assert len(data.thin(1000)["left"]) == 996


def test_ties_drift_and_length_are_planted() -> None:
    data = _module("data")
    made = data.ties(50_000)
    gap = made["strength"][made["left"]] - made["strength"][made["right"]]
    # Davidson: P(tie) = nu / (nu + 2 cosh(gap / 2)), 0.231 between equals; three standard errors of about 5,000 are 0.018
    assert abs((made["won"][np.abs(gap) < 0.2] == 2).mean() - 0.6 / 2.6) < 0.02
    walk = data.drift(5000)
    assert np.diff(walk["path"], axis=0).std() == pytest.approx(0.04, rel=0.02)
    assert (walk["strength"] == walk["path"][-1]).all()
    assert (np.diff(walk["day"]) >= 0).all()
    made = data.length(30_000)
    longer = made["log_words"][made["left"]] > made["log_words"][made["right"]]
    gap = made["strength"][made["left"]] - made["strength"][made["right"]]
    even = np.abs(gap) < 0.3
    assert made["won"][even & longer].mean() > 0.55 > 0.45 > made["won"][even & ~longer].mean()
    texts = data.texts(made["words"][:50])
    assert [len(text.split()) - 1 for text in texts] == made["words"][:50].tolist()
    assert len(set(texts)) == 50


def test_truth_of_tastes_is_what_many_raters_say() -> None:
    """Shares of votes of 20,000 raters with tastes of their own, fitted by `_bradley_terry`."""
    data = _module("data")
    one = data.tastes(400, repetitions=2, n_items=4)
    assert one["left"].shape == (2, 400)
    rng = np.random.default_rng([7, 400, 4, 0])
    shared = rng.normal(0, 0.8, 4)
    own = shared + rng.normal(0, 0.5, (20_000, 4))
    share = (1 / (1 + np.exp(-(own[:, :, None] - own[:, None, :])))).mean(0)
    assert one["strength"][0] == pytest.approx(data._bradley_terry(share), abs=0.02)
    assert np.abs(one["strength"][0]).max() < np.abs(shared - shared.mean()).max(), "averaged shares are nearer to one half"


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


def _skills_given_values(made: dict[str, Any]) -> np.ndarray:
    """(n_raters,) slopes by penalised logistic regression of each rater's answers on the true gaps: who is how reliable, had we the values."""
    gap = made["strength"][made["left"]] - made["strength"][made["right"]]
    rater, won, n = made["rater"], made["won"].astype(float), len(made["slope"])
    X = np.stack([gap, np.ones_like(gap)], 1)
    b, mean, precision = np.tile([0.8, 0.0], (n, 1)), np.array([0.8, 0.0]), np.diag([1.0, 4.0])
    for _ in range(20):
        p = 1 / (1 + np.exp(-(X * b[rater]).sum(1)))
        gradient = np.stack([np.bincount(rater, x * (won - p), n) for x in X.T], 1) - (b - mean) @ precision
        H = np.stack([np.bincount(rater, x * y * p * (1 - p), n) for x in X.T for y in X.T], 1).reshape(n, 2, 2) + precision
        b += np.linalg.solve(H, gradient[:, :, None])[:, :, 0]
    return b[:, 0]


def test_the_population_study_adds_a_case_to_those_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, study = tmp_path / "population.json", _module("population")
    for case in ("few raters", "columns add up"):
        assert study.main(["--replications", "2", "--cases", case, "--out", str(out)]) == 0
        assert "| multilevel (MRP) |" in capsys.readouterr().out
    cases = json.loads(out.read_text(encoding="utf-8"))["cases"]
    assert [case["case"] for case in cases] == ["columns add up", "few raters"]
    assert all(0 <= row["coverage"][0] <= 1 and row["width"] > 0 for case in cases for row in case["rows"].values())


@pytest.mark.slow
def test_who_is_reliable_is_ranked_as_if_the_values_were_known() -> None:
    """On the crowd of the benchmarks (2,000 raters, 100,000 judgments; three data sets): Spearman's correlation of fitted and true slopes, over
    raters with 5 judgments and more, within .02 of that of a fit which is given the true values."""
    from scipy.stats import spearmanr

    from seamark.models import Observation, Position, Reliability, Tabular, fit

    data, ours = _module("data"), []
    for seed in (4, 104, 204):
        made = data.annot(100_000, seed=seed)
        feedback = sm.Feedback.from_arrays(
            left_id=made["left"], right_id=made["right"], outcome=1 - made["won"], rater=made["rater"], order_known=True,
            names={"outcome": ["left", "right"]},
        )  # fmt: skip
        observation = Observation(effects=(Reliability(), Position()), lapse=False)
        result = fit(feedback, utility=Tabular(), observation=observation, require_identified=False)
        slope = np.full(len(made["slope"]), np.nan)
        slope[result.raters["rater"].cast(pl.Int64).to_numpy()] = result.raters["slope"].to_numpy()
        enough = np.isfinite(slope) & (np.bincount(made["rater"], minlength=len(slope)) >= 5)
        given = _skills_given_values(made)
        ours.append([spearmanr(s[enough], made["slope"][enough]).statistic for s in (slope, given)])
    fitted, known = np.mean(ours, 0)
    print(f"Spearman of slopes {fitted:.3f}, with the true values {known:.3f} (mean of 3)")
    assert fitted > known - 0.02


# ---------------------------------------------------------------------------------------------- plurality.py


@pytest.mark.slow
def test_plurality_measures_resumes_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plurality = _module("plurality")
    monkeypatch.setattr(plurality, "DEVIATIONS", (0.0, 1.2))
    found = plurality.newcomers(0, people=2, alone=1, labels=(0, 1))
    assert found["random/entry/0"] == found["active/entry/0"]
    assert found["best entry"] <= min(found["random entry"], found["active/entry/1"])
    assert found["own fit/5"] > 0
    results = tmp_path / "results.jsonl"
    for _ in range(2):  # the second time there is nothing left to measure
        assert plurality.main(["--parts", "groups", "bubbles", "--seeds", "1", "--results", str(results)]) == 0
        out, err = capsys.readouterr()
    assert err == ""
    assert "| each their own - single |" in out
    assert len(results.read_text(encoding="utf-8").splitlines()) == 2
    (tmp_path / "benchmarks.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit, match="no line"):
        plurality.main(["--write", "--results", str(results), "--docs", str(tmp_path)])
    (tmp_path / "benchmarks.md").write_text(f"before\n{plurality.START}\nold\n{plurality.END}\nafter\n", encoding="utf-8")
    assert plurality.main(["--write", "--results", str(results), "--docs", str(tmp_path)]) == 0
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "### Planted bubbles (1 seeds)" in text
