"""What docs/charter.md shows is what is read and run: every file, every audit command and every block of Python on it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamark.aggregation import Target
from seamark.cli import main
from seamark.governance import read
from seamark.governance.disclosure import Rules, report_for, require_indicators
from seamark.governance.log import KINDS
from seamark.governance.mandate import count_ballots
from seamark.governance.registers import Register
from seamark.records import Feedback

PAGE = (Path(__file__).parents[2] / "docs" / "charter.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page shows, and prefs.jsonl of raters whom its populations know."""
    for _, name, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    _prefs().to_jsonl(tmp_path / "prefs.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _prefs() -> Feedback:
    rng = np.random.default_rng(0)
    cells = [("18-30", "Woman"), ("18-30", "Man"), ("50+", "Woman"), ("50+", "Man")]
    u = rng.normal(size=(10, 4))
    rows: list[tuple[int, int, int, int]] = []
    for rater in range(24):
        for _ in range(30):
            left, right = rng.choice(4, 2, replace=False)
            rows.append((rater, int(rng.integers(10)), int(left), int(right)))
    columns: dict[str, Any] = {
        "kind": ["pair"] * len(rows),
        "ids": [[f"{p}.{left}", f"{p}.{right}"] for _, p, left, right in rows],
        "prompt": [f"Question {p}?" for _, p, *_ in rows],
        "outcome": ["left" if u[p, left] + rng.logistic() > u[p, right] else "right" for _, p, left, right in rows],
        "rater": [f"rater {r}" for r, *_ in rows],
        "rater_profile": [json.dumps(dict(zip(("age", "gender"), cells[r % 4], strict=True))) for r, *_ in rows],
    }
    return Feedback.from_columns(columns)


def test_its_files_are_read(folder: Path) -> None:
    assert {name for _, name, _ in BLOCKS if name} == {"census.csv", "margins.csv", "register.toml", "rules.toml"}
    census, margins = Target.read(folder / "census.csv"), Target.read(folder / "margins.csv")
    assert census.cells is not None
    assert margins.cells is None
    assert {c: census.margins[c] == pytest.approx(margins.margins[c]) for c in census.columns} == dict.fromkeys(margins.columns, True)
    register = Register.from_toml(folder / "register.toml")
    require_indicators(register.disclosures)
    assert all(getattr(register, part) for part in Register.model_fields)  # nothing is left out of the example
    Rules.from_toml(folder / "rules.toml")


def test_its_entries_are_appended_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for kind, _, text in BLOCKS if kind == "sh" for line in text.splitlines() if " poll.jsonl" in line]
    assert len(lines) > 5
    for line in lines:
        monkeypatch.setattr("sys.argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, line
    said = " ".join(capsys.readouterr().out.split())
    assert "entered by somebody else than the voter: entry 4: Clerk for v4" in said
    count = count_ballots(read(folder / "poll.jsonl"), "p1")
    assert (count.votes, count.n_carried, count.n_abstained, count.left_out) == ({"group A": 2, "group B": 1}, 1, 1, ())
    report = report_for("public", read(folder / "poll.jsonl"), rules=Rules.from_toml(folder / "rules.toml"))
    assert "group B" not in json.dumps(report)


def test_every_kind_of_entry_is_on_it_with_its_fields() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PAGE.partition("| kind | fields |")[2].partition("\n\n")[0], re.MULTILINE))
    assert set(rows) == set(KINDS)
    for kind, fields in KINDS.items():
        assert all(f"`{name}`" in rows[kind] for name in fields), kind


def test_its_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (folder / "census.csv").is_file()
    blocks = [text for kind, _, text in BLOCKS if kind == "python"]
    for text in blocks:
        exec(compile(text, "charter.md", "exec"), {})
    said = capsys.readouterr().out
    assert "the population" in said
    assert "unanimity: violated in 0 of 2" in said
    assert "condorcet-winner: violated in 2 of 2" in said
