"""The command line as a person and as a script sees it: exit status, one message for what went wrong, JSON, quiet when piped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seamark as sm
from seamark.cli import app, main

JSON_CODES = {"coverage", "missing-fields", "agreement", "ceiling", "position", "length", "duplicates"}


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with pipes for output."""
    env = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")}
    return subprocess.run([sys.executable, "-m", "seamark", *map(str, args)], capture_output=True, text=True, env=env)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """In this process: (exit status, stdout, stderr)."""

    def _call(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seamark", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return _call


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl, held.jsonl, and reversed.jsonl, which is held.jsonl with the winners swapped."""
    folder = tmp_path_factory.mktemp("cli")
    feedback = sm.simulate(n_prompts=40, n_raters=20, n_judgments=1500, careless=0.0, opposed=0.0, seed=2).feedback
    train, held = feedback.split(by="prompt", test=0.2, seed=0)
    train.to_jsonl(folder / "train.jsonl")
    held.to_jsonl(folder / "held.jsonl")
    text = (folder / "held.jsonl").read_text(encoding="utf-8")
    swapped = {"left": "right", "right": "left"}
    turned = re.sub(r'"outcome": ?"(left|right)"', lambda m: f'"outcome":"{swapped[m[1]]}"', text)
    assert turned != text
    (folder / "reversed.jsonl").write_text(turned, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def fitted(work: Path) -> Path:
    done = run("fit", work / "train.jsonl", "-o", work / "fit")
    assert done.returncode == 0, done.stderr
    assert re.match(r"Fit\(Linear, \w+, \w+; [\d,]+ judgments, \d+ iterations\)\n", done.stdout)
    assert "next: seamark evaluate" in done.stdout
    return work / "fit"


# ---------------------------------------------------------------------------------------------- exit status


def test_fine_is_0_and_quiet(work: Path, tmp_path: Path) -> None:
    done = run("study", work / "train.jsonl", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("verdict")
    assert f"report: {tmp_path / 'out' / 'report.html'}" in done.stdout
    assert "next: " in done.stdout


def test_blocking_is_1(work: Path, fitted: Path) -> None:
    done = run("evaluate", fitted, work / "reversed.jsonl")
    assert done.returncode == 1
    assert re.search(r"^blocking +direction", done.stdout, re.MULTILINE)
    assert done.stderr == ""


def test_bad_data_is_2_with_one_message(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    good = {"kind": "pair", "prompt": "q", "responses": [{"text": "a"}, {"text": "b"}], "outcome": "left"}
    bad.write_text(json.dumps(good) + "\n" + json.dumps(good | {"outcome": "lefft"}) + "\n", encoding="utf-8")
    done = run("study", bad, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    message = done.stderr.strip()
    assert "\n" not in message
    assert message.startswith("error: ")
    assert "Traceback" not in message
    for part in ("bad.jsonl", "line 2", "outcome", "lefft"):
        assert part in message
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize("text", ["", "not json\n", '{"a": 1}\n', "\x00\x01", '{"prompt": "q", "chosen": 1, "rejected": []}\n'])
@pytest.mark.parametrize("command", ["study", "diagnose", "fit"])
def test_unreadable_data(call, tmp_path: Path, command: str, text: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(text, encoding="utf-8")
    args = [] if command == "diagnose" else ["-o", tmp_path / "out"]
    code, out, err = call(command, source, *args)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--on-error", "carry-on"], "--on-error"),
        (["--columns", "prompt"], "--columns"),
        (["--format", "tulip"], "tulu"),
        (["--split", "moon"], "moon"),
        (["--axis", "charm"], "charm"),
        (["--groups", "shoe_size"], "shoe_size"),
        (["--charter", "missing.toml"], "missing.toml"),
        (["--held-out", "missing.jsonl"], "missing.jsonl"),
        (["--utility", "./no-such-encoder"], "no-such-encoder"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_bad_setting_is_2_and_named(call, work: Path, tmp_path: Path, extra: list[str], named: str) -> None:
    code, out, err = call("study", work / "train.jsonl", "-o", tmp_path / "out", *extra)
    assert (code, out) == (2, "")
    assert named in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args", [["study"], ["study", "demo"], ["conquer"], ["study", "demo", "-o", "x", "--fast"], ["fit", "demo", "--seed", "x", "-o", "x"]]
)
def test_bad_usage_is_2(call, args: list[str]) -> None:
    code, out, err = call(*args)
    assert code == 2
    assert out == ""
    assert "Usage: " in err


def test_a_foreign_folder_is_not_replaced(call, work: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    code, _, err = call("study", work / "train.jsonl", "-o", tmp_path)
    assert code == 2
    assert "not a study" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_what_is_not_a_fit(call, work: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "fit.json").write_text(content, encoding="utf-8")
    code, out, err = call("evaluate", tmp_path, work / "held.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_what_is_not_a_study(call, tmp_path: Path) -> None:
    code, _, err = call("report", tmp_path)
    assert code == 2
    assert "not a study" in err


# ---------------------------------------------------------------------------------------------- each command


def test_diagnose_json(call, work: Path) -> None:
    code, out, err = call("diagnose", work / "train.jsonl", "--held-out", work / "held.jsonl", "--json")
    found = json.loads(out)
    assert code == 0
    assert err == ""
    assert {f["code"] for f in found} >= JSON_CODES | {"leakage"}


def test_evaluate_json(call, work: Path, fitted: Path) -> None:
    code, out, _ = call("evaluate", fitted, work / "held.jsonl", "--json")
    assert code == 0
    accuracy = next(f for f in json.loads(out) if f["code"] == "accuracy")
    assert accuracy["low"] < accuracy["estimate"] < accuracy["high"]


def test_fit_json(call, work: Path, tmp_path: Path) -> None:
    code, out, _ = call("fit", work / "held.jsonl", "--utility", "tabular", "-o", tmp_path / "fit", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "fit" / "fit.json").read_text(encoding="utf-8"))


def test_study_json_and_report(call, work: Path, tmp_path: Path) -> None:
    code, out, err = call("study", work / "held.jsonl", "--utility", "tabular", "-o", tmp_path / "out", "--json")
    assert code in (0, 1)
    assert err == ""
    assert json.loads(out) == json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8"))
    (tmp_path / "out" / "report.html").unlink()
    code, out, _ = call("report", tmp_path / "out")
    assert code == 0
    assert out == f"report: {tmp_path / 'out' / 'report.html'}\n"
    assert (tmp_path / "out" / "report.html").is_file()


def test_export(call, work: Path, fitted: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", fitted, work / "held.jsonl", "-o", tmp_path / "signal.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "signal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert code == 0
    assert f"{len(rows):,} rows" in out
    assert "unsigned" in out
    assert {"prompt", "chosen", "rejected", "margin", "p_chosen", "weight", "ignorance"} <= set(rows[0])


def test_charter_is_written_once_and_read_back(call, work: Path, tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    assert call("charter", "-o", path)[0] == 0
    assert sm.Charter.from_toml(path) == sm.Charter()
    code, _, err = call("charter", "-o", path)
    assert code == 2
    assert "not overwritten" in err
    path.write_text(path.read_text(encoding="utf-8").replace("ignorance_penalty", "ignorance_penaltie"), encoding="utf-8")
    code, _, err = call("study", work / "train.jsonl", "-o", tmp_path / "out", "--charter", path)
    assert code == 2
    assert "ignorance_penalty" in err


def test_simulate_writes_what_study_reads(call, tmp_path: Path) -> None:
    code, out, _ = call("simulate", "-o", tmp_path / "made.jsonl", "--judgments", "120", "--raters", "6", "--prompts", "10")
    assert code == 0
    assert "next: seamark study" in out
    feedback = sm.load(tmp_path / "made.jsonl")
    assert (feedback.n_judgments, feedback.n_raters, feedback.n_prompts) == (120, 6, 10)


def test_columns_and_skip(call, tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    rows = [f"q{i},yes {i},no {i},{'left' if i % 4 else 'sideways'}" for i in range(8)]
    table.write_text("question,a,b,vote\n" + "\n".join(rows) + "\n", encoding="utf-8")
    columns = "prompt=question,left=a,right=b,outcome=vote"
    code, out, _ = call("diagnose", table, "--columns", columns, "--on-error", "skip", "--json")
    assert code == 0
    coverage = next(f for f in json.loads(out) if f["code"] == "coverage")
    assert coverage["title"].startswith("6 judgments")
    assert call("diagnose", table, "--columns", columns)[0] == 2


def test_every_command_and_option_has_help() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
    import typer

    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]  # a group has commands
        for parameter in command.params:
            assert getattr(parameter, "help", None), (command.name, parameter.name)
