"""The command line as a person and as a script sees it: exit status, one message for what went wrong, JSON, quiet when piped."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seamark as sm
from seamark.cli import app, main
from seamark.cli.options import parse_people
from seamark.models import Groups
from seamark.reward.scorers import texts_of
from seamark.simulation import Style, demo_society

Require = Callable[[str, str], Any]
SCHEMA = json.loads((Path(sm.__file__).parent / "findings.schema.json").read_text(encoding="utf-8"))
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
    feedback = sm.simulate(n_prompts=40, n_raters=18, n_judgments=1000, careless=0.0, opposed=0.0, seed=2).feedback
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
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", ["seamark", "fit", str(work / "train.jsonl"), "-o", str(work / "fit")])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    assert re.match(r"Fit\(Linear, \w+, \w+; [\d,]+ judgments, \d+ iterations\)\n", said.getvalue())
    assert "next: seamark evaluate" in said.getvalue()
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


def test_blocking_is_1(call, work: Path, fitted: Path) -> None:
    code, out, err = call("evaluate", fitted, work / "reversed.jsonl")
    assert code == 1
    assert re.search(r"^blocking +direction", out, re.MULTILINE)
    assert err == ""


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


@pytest.mark.parametrize("n", [2, 300])
@pytest.mark.parametrize("command", ["study", "diagnose", "fit"])
def test_nothing_usable_left(call, tmp_path: Path, command: str, n: int) -> None:
    source = tmp_path / "in.csv"
    source.write_text("left,right,outcome\n" + "".join(f"same {i},same {i},left\n" for i in range(n)), encoding="utf-8")
    args = [] if command == "diagnose" else ["-o", tmp_path / "out"]
    code, out, err = call(command, source, *args)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: \S*in\.csv: nothing can be learned from any of its {n} judgments: .*\n", err)
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


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
    assert "give a new folder" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("command", ["study", "fit", "export", "charter", "simulate"])
@pytest.mark.parametrize("place", ["three.csv/out", "kept"])
def test_output_that_cannot_be_written_is_2(call, work: Path, fitted: Path, tmp_path: Path, command: str, place: str) -> None:
    """Inside a file, which no permission allows; and where something else is: a folder for a file, a file for a folder."""
    (tmp_path / "three.csv").write_text("mine", encoding="utf-8")
    if command in ("study", "fit"):
        (tmp_path / "kept").write_text("mine", encoding="utf-8")
    else:
        (tmp_path / "kept").mkdir()
    source = {"study": [work / "train.jsonl"], "fit": [work / "train.jsonl"], "export": [fitted, work / "held.jsonl"]}.get(command, [])
    words = [command, "init"] if command == "charter" else [command]
    code, out, err = call(*words, *source, "-o", tmp_path / place)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(tmp_path / place) in err
    assert re.search(r"Give |give a|folder", err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "three.csv"]
    assert (tmp_path / "three.csv").read_text(encoding="utf-8") == "mine"


def test_a_disk_that_fails_is_2(call, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine refuses is one message, also where nobody expected it."""

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(sm.Fit, "save", full)
    code, out, err = call("fit", work / "held.jsonl", "--utility", "tabular", "-o", tmp_path / "fit")
    assert (code, out) == (2, "")
    assert err.startswith("error: somewhere: No space left on device. Check")


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


def test_diagnose_json(call, work: Path, require: Require) -> None:
    code, out, err = call("diagnose", work / "train.jsonl", "--held-out", work / "held.jsonl", "--json")
    document = json.loads(out)
    assert code == 0
    assert err == ""
    require("jsonschema", "Install the extra dev.").validate(document, SCHEMA)
    assert {f["code"] for f in document["findings"]} >= JSON_CODES | {"leakage"}
    assert document["data"]["fingerprint"] == sm.load(work / "train.jsonl").fingerprint


def test_evaluate_json(call, work: Path, fitted: Path, require: Require) -> None:
    code, out, _ = call("evaluate", fitted, work / "held.jsonl", "--json")
    document = json.loads(out)
    assert code == 0
    require("jsonschema", "Install the extra dev.").validate(document, SCHEMA)
    accuracy = next(f for f in document["findings"] if f["code"] == "accuracy")
    assert accuracy["low"] < accuracy["estimate"] < accuracy["high"]
    assert document["data"]["n_judgments"] == sm.load(work / "held.jsonl").n_judgments


def test_the_steps_are_the_study(call, work: Path, fitted: Path, tmp_path: Path) -> None:
    """`fit` of the training part and `evaluate` with it give the model and the findings of a study with the same held-out part."""
    call("study", work / "train.jsonl", "--held-out", work / "held.jsonl", "-o", tmp_path / "out")
    studied, alone = sm.Fit.load(tmp_path / "out" / "fit"), sm.Fit.load(fitted)
    assert studied.spec == alone.spec
    assert alone.spec["people"]["people"] == "Groups"
    train = sm.load(work / "train.jsonl")
    assert np.abs(studied.utilities(train) - alone.utilities(train)).max() == 0
    _, out, _ = call("evaluate", fitted, work / "held.jsonl", "--train", work / "train.jsonl", "--json")
    found = {f["code"]: f for f in json.loads(out)["findings"]}
    whole = {f["code"]: f for f in json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8"))["findings"]}
    assert {"accuracy", "baseline", "calibration", "doubts", "rater-reliability"} <= set(found)
    assert all(whole[code] == finding for code, finding in found.items())


def test_the_training_part_tells_which_way_length_points(call, tmp_path: Path) -> None:
    """Shorter wins in training and in the held-out part: without the training part the rule 'longer wins' is the only one to try."""
    rows = [f"q{i},a{i} yes,a{i} yes and much else besides,left,r{i % 6}" for i in range(60)]
    for name, part in (("train", rows[:40]), ("held", rows[40:])):
        (tmp_path / f"{name}.csv").write_text("prompt,left,right,outcome,rater\n" + "\n".join(part) + "\n", encoding="utf-8")
    assert call("fit", tmp_path / "train.csv", "-o", tmp_path / "fit")[0] == 0
    args = ("evaluate", tmp_path / "fit", tmp_path / "held.csv", "--json")
    codes = [{f["code"] for f in json.loads(call(*args, *more)[1])["findings"]} for more in ((), ("--train", tmp_path / "train.csv"))]
    assert "baseline/longer-wins" in codes[0]
    assert "baseline/shorter-wins" in codes[1]


@pytest.mark.parametrize("command", ["study", "diagnose", "fit", "evaluate", "export"])
def test_an_unknown_axis_names_the_axes(call, fitted: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "in.csv").write_text(
        "left,right,outcome,axis\n" + "".join(f"a{i},b{i},left,{'help' if i % 2 else 'harm'}\n" for i in range(8)), encoding="utf-8"
    )
    first = [fitted] if command in ("evaluate", "export") else []
    out = ["-o", tmp_path / "out"] if command in ("study", "fit", "export") else []
    code, shown, err = call(command, *first, tmp_path / "in.csv", *out, "--axis", "helpfulness")
    assert (code, shown) == (2, "")
    assert "axis is 'helpfulness'. The data has harm, help." in err


def test_the_seed_reaches_the_demo(call, tmp_path: Path) -> None:
    first, second = (demo_society(seed).feedback.fingerprint for seed in (0, 1))
    assert first != second
    assert json.loads(call("diagnose", "demo", "--json")[1])["data"]["fingerprint"] == first
    assert call("fit", "demo", "--utility", "tabular", "--groups", "none", "--seed", "1", "-o", tmp_path / "fit")[0] == 0
    assert sm.Fit.load(tmp_path / "fit").fingerprint == second


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
    code, out, _ = call("report", tmp_path / "out", "--json")
    assert (code, json.loads(out)) == (0, {"report": str(tmp_path / "out" / "report.html"), "card": str(tmp_path / "out" / "card.md")})


def test_export(call, work: Path, fitted: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", fitted, work / "held.jsonl", "-o", tmp_path / "signal.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "signal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert code == 0
    assert f"{len(rows):,} rows" in out
    assert "unsigned" in out
    assert {"prompt", "chosen", "rejected", "margin", "p_chosen", "weight", "ignorance"} <= set(rows[0])
    _, out, _ = call("export", fitted, work / "held.jsonl", "-o", tmp_path / "again.jsonl", "--json")
    assert json.loads(out) == {
        "signal": str(tmp_path / "again.jsonl"), "n_rows": len(rows), "left_out": {}, "charter": "Default charter", "charter_signed": False, "inferred": {},
    }  # fmt: skip
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "signal.jsonl").read_bytes()


def test_a_reward_is_valid_until(call, work: Path, fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "signal.jsonl"
    code, _, err = call("export", fitted, work / "held.jsonl", "-o", out, "--valid-until", "2020-01-31")
    assert code == 2
    assert "valid until 2020-01-31, which has passed" in err
    assert not out.exists()
    code, _, err = call("export", fitted, work / "held.jsonl", "-o", out, "--valid-until", "soon")
    assert (code, "Use a date such as" in err) == (2, True)
    assert call("export", fitted, work / "held.jsonl", "-o", out, "--valid-until", "2020-01-31", "--allow-expired")[0] == 0
    assert json.loads(out.read_text(encoding="utf-8").splitlines()[0])["valid_until"] == "2020-01-31"
    code, _, err = call("study", work / "held.jsonl", "-o", tmp_path / "out", "--valid-until", "2020-01-31")
    assert (code, "has passed" in err) == (2, True)
    call("study", work / "held.jsonl", "-o", tmp_path / "out", "--valid-until", "2099-12-31")
    assert 'valid_until = "2099-12-31"' in (tmp_path / "out" / "charter.toml").read_text(encoding="utf-8")
    assert "**Valid until 2099-12-31.**" in (tmp_path / "out" / "card.md").read_text(encoding="utf-8")


def test_charter_is_written_once_and_read_back(call, work: Path, tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    code, out, _ = call("charter", "init", "-o", path, "--json")
    assert (code, json.loads(out)) == (0, {"charter": str(path), "charter_signed": False})
    assert sm.Charter.from_toml(path) == sm.Charter()
    code, _, err = call("charter", "init", "-o", path)
    assert code == 2
    assert "not overwritten" in err
    path.write_text(path.read_text(encoding="utf-8").replace("ignorance_penalty", "ignorance_penaltie"), encoding="utf-8")
    code, _, err = call("study", work / "train.jsonl", "-o", tmp_path / "out", "--charter", path)
    assert code == 2
    assert "ignorance_penalty" in err


def test_charters_are_checked_compared_and_shown(call, work: Path, fitted: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    call("charter", "init", "-o", one)
    two.write_text('rule = "maximin"\nauthors = ["A. Person"]', encoding="utf-8")
    code, out, _ = call("charter", "check", one)
    assert code == 0
    assert "unsigned (0 of 1 author; no date; the rationale is the default charter's): not releasable" in out
    assert sm.Charter.from_toml(one).hash in out
    code, out, _ = call("charter", "diff", one, two, "--json")
    assert {c["choice"]: (c["one"], c["other"]) for c in json.loads(out)["changes"]} == {
        "rule": ("expected-utility", "maximin"),
        "authors": ([], ["A. Person"]),
    }
    assert "same choices" in call("charter", "diff", one, one)[1]
    assert json.loads(call("charter", "show", two, "--json")[1])["charter"]["electorate"]["weighting"] == "sizes"
    code, out, _ = call("charter", "check", two, fitted, work / "held.jsonl", "--json")
    assert code == 0
    assert {"regret", "unsettled"} <= {f["code"] for f in json.loads(out)["findings"]}
    two.write_text("[floors.groups]\nnobody = 1.0", encoding="utf-8")
    code, _, err = call("charter", "check", two, fitted)
    assert (code, "floors.groups names group 'nobody'" in err) == (2, True)


def test_a_charter_is_checked_alike_with_and_without_judgments(call, work: Path, fitted: Path, tmp_path: Path) -> None:
    """Signature, hash and expiry are said whatever else is given, and a fit that was weighed otherwise is refused."""
    place, given = tmp_path / "charter.toml", ((), (fitted,), (fitted, work / "held.jsonl"))
    place.write_text(
        'valid_until = "2020-01-31"\nauthors = ["Ada"]\nsignatures = 2\ndate = 2019-01-01\nrationale = "Ours."\n', encoding="utf-8"
    )
    for more in given:
        code, out, _ = call("charter", "check", place, *more)
        assert code == 1
        assert "Default charter: unsigned (1 of 2 authors): not releasable, expired\nhash: " + sm.Charter.from_toml(place).hash in out
    code, out, _ = call("charter", "check", place, fitted, work / "held.jsonl", "--json")
    expiry = next(f for f in json.loads(out)["findings"] if f["code"] == "expiry")
    assert (code, expiry["verdict"], expiry["details"]["hash"]) == (1, "blocking", sm.Charter.from_toml(place).hash)
    place.write_text('[recency]\nrule = "stable-core"\n', encoding="utf-8")
    for more in given[1:]:
        code, _, err = call("charter", "check", place, *more)
        assert (code, "recency is 'stable-core'" in err) == (2, True)
    code, _, err = call("charter", "check", place, tmp_path / "nofit", "demo")
    assert (code, "there is no such folder" in err) == (2, True)


def test_export_names_who_nobody_speaks_for(call, tmp_path: Path) -> None:
    said = [
        {"kind": "pair", "prompt": f"p{i % 5}", "responses": [{"text": f"one {i % 5}"}, {"text": f"two {i % 5}"}], "outcome": "left" if i % 3 else "right",
         "rater": {"id": f"r{i % 12}", "profile": {"age": "old" if i % 12 < 4 else "young", "sex": "f" if i % 12 > 7 else "m"}}}
        for i in range(300)
    ]  # fmt: skip
    source = tmp_path / "prefs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    assert call("fit", source, "--groups", "profile.age,profile.sex", "--utility", "tabular", "-o", tmp_path / "fit")[0] == 0
    assert json.loads((tmp_path / "fit" / "fit.json").read_text(encoding="utf-8"))["spec"]["people"]["by"] == ["profile.age", "profile.sex"]
    (tmp_path / "charter.toml").write_text('[electorate]\nweighting = "equal"\n', encoding="utf-8")
    asked = ("export", tmp_path / "fit", source, "-o", tmp_path / "signal.jsonl", "--charter", tmp_path / "charter.toml")
    assert "no rater: old · f (25% of the electorate); inferred from other groups" in call(*asked)[1]
    assert json.loads(call(*asked, "--json")[1])["inferred"] == {"old · f": 0.25}


def test_several_columns_are_cells_and_none_is_dropped(call, work: Path) -> None:
    """A comma names columns; one that no rater has is an error, of fit and of dissent alike."""
    assert parse_people("profile.age, profile.gender", None, None) == Groups(by=("profile.age", "profile.gender"))
    assert parse_people("group", None, None) == Groups()
    code, _, err = call("fit", work / "held.jsonl", "--groups", "group,", "-o", work / "none")
    assert (code, "--groups is 'group,'" in err) == (2, True)
    code, _, err = call("fit", work / "held.jsonl", "--groups", "group,profile.nosuch", "-o", work / "none")
    assert (code, "group is 'profile.nosuch'. It is not known of any rater" in err) == (2, True)
    code, _, err = call("dissent", work / "held.jsonl", "--by", "profile.nosuch")
    assert (code, "--by is 'profile.nosuch'. It is not known of any rater" in err) == (2, True)
    for given, named in ((), True), (("--derived",), False):  # a study by groups made from the answers would read these twice
        _, out, _ = call("dissent", work / "held.jsonl", *given)
        assert ("next: seamark study" in out, "--groups group -o out" in out) == (True, named)


def test_simulate_writes_what_study_reads(call, tmp_path: Path) -> None:
    code, out, _ = call("simulate", "-o", tmp_path / "made.jsonl", "--judgments", "120", "--raters", "6", "--prompts", "10")
    assert code == 0
    assert "next: seamark study" in out
    feedback = sm.load(tmp_path / "made.jsonl")
    assert (feedback.n_judgments, feedback.n_raters, feedback.n_prompts) == (120, 6, 10)
    sizes = ["--judgments", "120", "--raters", "6", "--prompts", "10"]
    code, out, _ = call("simulate", "-o", tmp_path / "again.jsonl", *sizes, "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["judgments"], told["seed"]) == (str(tmp_path / "again.jsonl"), 0)
    assert told["data"] == {
        "n_judgments": 120,
        "n_responses": feedback.n_responses,
        "n_prompts": 10,
        "n_raters": 6,
        "fingerprint": feedback.fingerprint,
    }


def test_columns_and_skip(call, tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    rows = [f"q{i},yes {i},no {i},{'left' if i % 4 else 'sideways'}" for i in range(8)]
    table.write_text("question,a,b,vote\n" + "\n".join(rows) + "\n", encoding="utf-8")
    columns = "prompt=question,left=a,right=b,outcome=vote"
    code, out, _ = call("diagnose", table, "--columns", columns, "--on-error", "skip", "--json")
    assert code == 0
    coverage = next(f for f in json.loads(out)["findings"] if f["code"] == "coverage")
    assert coverage["title"].startswith("6 judgments")
    assert call("diagnose", table, "--columns", columns)[0] == 2


def test_every_command_and_option_has_help() -> None:
    import typer

    commands = list(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]  # a group has commands
    named = {f"{one.name} {name}".strip(): inner for one in commands for name, inner in getattr(one, "commands", {"": one}).items()}
    for name, command in named.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), (name, parameter.name)
        # what a recipient is shown is JSON in any case
        assert name == "audit report" or any("--json" in parameter.opts for parameter in command.params), name


def test_version(call) -> None:
    code, out, _ = call("--version")
    assert (code, out) == (0, f"seamark {sm.__version__}\n")


def test_export_does_not_overwrite_what_it_reads(call, work: Path, fitted: Path) -> None:
    before = (work / "held.jsonl").read_bytes()
    for place in (work / "held.jsonl", fitted / "fit.json"):
        code, _, err = call("export", fitted, work / "held.jsonl", "-o", place)
        assert code == 2
        assert "would be lost" in err
    assert (work / "held.jsonl").read_bytes() == before


def test_R67_a_study_goes_into_the_log_once_and_not_into_a_broken_one(call, work: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    asked = ["study", work / "held.jsonl", "-o", tmp_path / "out", "--utility", "tabular", "--log", log]
    code, out, err = call(*asked)
    assert (code, out) == (2, "")
    assert err == "error: --actor is ''. Name who answers for this entry.\n"
    for _ in range(2):
        code, out, err = call(*asked, "--actor", "Ana")
        assert code in (0, 1), err
        assert f"\nlog: entry 0 of {log}\n" in out
        assert call("audit", "verify", log)[1].startswith("whole\n1 entry can be relied on")
    report = (tmp_path / "out" / "report.html").read_bytes()
    log.write_bytes(log.read_bytes().replace(b"Ana", b"Ben"))
    broken = log.read_bytes()
    code, out, err = call(*asked, "--actor", "Ana")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {log}: entry 0 was edited")
    assert err.count("\n") == 1
    assert log.read_bytes() == broken
    assert (tmp_path / "out" / "report.html").read_bytes() == report


def test_simulate_does_not_overwrite(call, tmp_path: Path) -> None:
    (tmp_path / "made.jsonl").write_text("mine", encoding="utf-8")
    code, _, err = call("simulate", "-o", tmp_path / "made.jsonl")
    assert code == 2
    assert "not overwritten" in err
    assert (tmp_path / "made.jsonl").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("command", ["diagnose", "study"])
def test_skipped_records_are_counted_on_the_terminal(call, tmp_path: Path, command: str) -> None:
    pair = {"kind": "pair", "prompt": "q", "outcome": "left"}
    rows = [pair | {"responses": [{"text": f"a{i}"}, {"text": f"b{i}"}]} for i in range(5)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "in.jsonl").write_text("\n".join([lines[0], "{", *lines[1:], "[]"]) + "\n", encoding="utf-8")
    args = ["-o", tmp_path / "out"] if command == "study" else []
    _, out, _ = call(command, tmp_path / "in.jsonl", "--on-error", "skip", *args)
    assert re.search(r"^left out: 2 records; the first: \S*in\.jsonl, line 2: ", out, re.MULTILINE)


def test_an_unknown_utility_names_those_there_are(call, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seamark.cli.options.find_spec", lambda _name: None)
    code, _, err = call("fit", work / "train.jsonl", "-o", tmp_path / "out", "--utility", "nope")
    assert code == 2
    assert "not hash or tabular" in err
    assert "seamark[lm]" in err


def test_evaluating_on_what_was_fitted_blocks(call, work: Path, fitted: Path) -> None:
    code, out, _ = call("evaluate", fitted, work / "train.jsonl")
    assert code == 1
    assert re.search(r"^blocking +leakage ", out, re.MULTILINE)
    assert "held-out pairs" not in out
    assert "On fitted pairs the fit agrees" in out


def test_style_control_is_named_on_the_command_line(call: Any, tmp_path: Path) -> None:
    """Covariates go from a society to JSONL to a fit, which says what they do; one that is not there is named."""
    society = sm.simulate(
        text=False, n_responses=8, n_raters=12, n_judgments=1500, groups=1, careless=0.0, opposed=0.0, style=Style((0.8,)), seed=3
    )
    society.feedback.to_jsonl(tmp_path / "votes.jsonl")
    status, out, err = call("fit", tmp_path / "votes.jsonl", "--effect", "bias:length:raters", "-o", tmp_path / "fit")
    assert status == 0, err
    assert re.search(r"bias by length, sd over 12 raters +[0-9.]+  \[[0-9.]+, [0-9.]+\] logits per sd", out)
    fit = sm.Fit.load(tmp_path / "fit")
    (found,) = [p for p in fit.parameters if p.name == "bias by length"]
    assert found.unit == "logits per sd"
    assert abs(found.estimate / fit.data["biases"]["length"][1] - 0.8) < 4 * found.wider
    assert "bias by length of raters_sd" in fit.prior
    status, _, err = call("fit", tmp_path / "votes.jsonl", "--effect", "bias:lenght", "-o", tmp_path / "other")
    assert status == 2
    assert "The covariates of what was shown are length" in err
    assert "left_lenght and right_lenght" in err
    twice = ("--effect", "bias:length", "--effect", "bias:length:raters")
    status, _, err = call("fit", tmp_path / "votes.jsonl", *twice, "-o", tmp_path / "other")
    assert status == 2
    assert "Give Bias of length once" in err
    status, out, err = call("study", tmp_path / "votes.jsonl", "--effect", "bias:length:raters", "-o", tmp_path / "study")
    assert status == 0, err
    assert "bias by length, sd over 12 raters" in (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert "coverage/bias/length" in out


def test_train_a_reward_model_export_it_and_check_it(tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the guide to reward models, one after the other, as a new user types them."""
    from small_models import save_small, small_tokenizer

    work = tmp_path
    train, held = sm.simulate(n_prompts=12, n_raters=8, n_judgments=200, careless=0.0, opposed=0.0, seed=2).feedback.split(
        by="prompt", test=0.25
    )
    train.to_jsonl(work / "train.jsonl")
    held.to_jsonl(work / "held.jsonl")
    monkeypatch.setenv("SEAMARK_CACHE", str(tmp_path / "cache"))
    base, out, released = save_small(tmp_path / "base", tokenizer=small_tokenizer()), tmp_path / "rm", tmp_path / "released"
    quick = ("--set", "use_cpu=true", "--tokens", "8192")
    code, said, log = call("train", work / "train.jsonl", "--model", base, "-o", out, "--held-out", work / "held.jsonl", *quick, "--json")
    assert code == 0
    record = json.loads(said)
    assert record["shares_prompts"] is True
    assert record["tokens"]["forward"] <= 1.05 * record["tokens"]["distinct"]
    assert '"eval_accuracy"' in log
    assert not (out / "training").exists()
    assert not [p for p in out.rglob("*") if p.suffix in (".pt", ".bin", ".pkl", ".pth")]
    code, said, _ = call(
        "train", work / "train.jsonl", "--model", base, "-o", out, "--held-out", work / "held.jsonl", *quick
    )  # done: only told again
    assert code == 0
    assert "reward model:" in said
    code, said, _ = call("evaluate", out / "fit", work / "held.jsonl", "--train", work / "train.jsonl", "--json")
    assert code == 0
    assert {"accuracy", "doubts"} <= {f["code"] for f in json.loads(said)["findings"]}
    code, said, _ = call("export", out / "fit", "--to", "hf", "-o", released)
    assert code == 0
    assert "seamark check-parity" in said
    assert call("export", out / "fit", "--to", "hf", "-o", out)[0] == 2  # over what is read
    assert call("export", out / "fit", "--to", "hf", work / "held.jsonl")[0] == 2
    code, said, _ = call("evaluate", released, work / "held.jsonl")
    assert code == 0
    code, said, _ = call("check-parity", released, work / "held.jsonl", "--json")
    assert not [f for f in json.loads(said)["findings"] if f["verdict"] == "blocking"], said
    code, _, error = call("train", work / "held.jsonl", "--model", base, "-o", out, *quick)
    assert code == 2
    assert "It holds a reward model of other judgments or settings" in error
    code, _, error = call("train", work / "held.jsonl", "--model", base, "-o", tmp_path / "other", "--set", "nonsense")
    assert code == 2
    assert "Write it as NAME=VALUE" in error


def test_findings_of_a_later_check_go_into_the_report_and_stop_a_pipeline(call, work: Path, tmp_path: Path) -> None:
    study, scores = tmp_path / "study", tmp_path / "scores.csv"
    assert call("study", work / "held.jsonl", "-o", study, "--utility", "tabular")[0] in (0, 1)
    scores.write_text("prompt,proxy,gold\n" + "".join(f"{i // 4},{i % 4},{i % 4}\n" for i in range(80)))
    asked = ("optimise", "--scores", scores, "--into", study)
    status, out, err = call(*asked)
    assert (status, err) == (0, "")
    assert f"report: {study / 'report.html'}" in out
    found = json.loads((study / "findings.json").read_text())["findings"]
    assert sum(f["code"] == "optimisation/best-of-n" for f in found) == 1
    assert "optimisation/best-of-n" in (study / "report.html").read_text()
    status, _, err = call(*asked, "--fail-on", "optimisation/best-of-n > -1")  # what was there of it is replaced
    assert status == 1
    assert "stopped by --fail-on: optimisation/best-of-n is" in err
    assert len(json.loads((study / "findings.json").read_text())["findings"]) == len(found)
    status, out, err = call("optimise", "--scores", scores, "--fail-on", "optimisation ~ 3")
    assert (status, out) == (2, "")
    assert "--fail-on is 'optimisation ~ 3'" in err
    status, out, err = call("optimise", "--scores", scores, "--into", tmp_path)
    assert (status, out) == (2, "")
    assert "--into is" in err
    status, _, err = call("evaluate", "nothing", work / "held.jsonl", "--fail-on", "warning:often")
    assert status == 2
    assert "--fail-on" in err


def test_what_later_commands_add_stands_side_by_side_and_is_replaced_by_the_same_again(call, tmp_path: Path) -> None:
    """Two models on two benchmarks, and two pools of scores, share all their codes; which is about what is told in every document, as text."""
    study, nasty = tmp_path / "study", tmp_path / "<b>`x`|\u202e.jsonl"
    feedback = sm.simulate(n_prompts=12, n_raters=8, n_judgments=60, seed=2).feedback
    feedback.to_jsonl(tmp_path / "prefs.jsonl")
    assert call("study", tmp_path / "prefs.jsonl", "-o", study, "--utility", "tabular")[0] in (0, 1)
    own = len(json.loads((study / "findings.json").read_text())["findings"])
    rows = [{"prompt": f"p{i}", "chosen": f"yes {i}", "rejected": f"no {i}", "subset": "hep-go", "id": i} for i in range(30)]
    good, bad, plain = (tmp_path / name for name in ("good.csv", "bad.csv", "bench.jsonl"))
    for path in (plain, nasty):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for path, sign in ((good, 1), (bad, -1)):
        texts = [(row["prompt"], text, sign * (text[0] == "y")) for row in rows for text in (row["chosen"], row["rejected"])]
        path.write_text("prompt,response,score\n" + "".join(",".join(map(str, text)) + "\n" for text in texts))

    def said() -> dict[tuple[str, str], float]:
        found = json.loads((study / "findings.json").read_text())["findings"]
        assert sum(not f["details"].get("added") for f in found) == own
        return {(f["details"]["command"], f["details"]["subject"]): f["estimate"] for f in found if f["code"] == "benchmark"}

    asked = {(m, b): ("benchmark", m, b, "--into", study) for m in (good, bad) for b in (plain, nasty)}
    for args in asked.values():
        assert call(*args)[0] in (0, 1)
    assert said() == {("seamark benchmark", shlex.join(map(str, key))): float(key[0] == good) for key in asked}
    total = len(json.loads((study / "findings.json").read_text())["findings"])
    bad.write_text(good.read_text())
    assert call(*asked[bad, plain])[0] == 0
    assert said()["seamark benchmark", f"{bad} {plain}"] == 1, "the same again replaces"
    for name, sign in (("one", 1), ("two", -1)):
        scores = tmp_path / f"{name}.csv"
        scores.write_text("prompt,proxy,gold\n" + "".join(f"{i // 4},{sign * (i % 4)},{i % 4}\n" for i in range(80)))
        assert call("optimise", "--scores", scores, "--into", study)[0] in (0, 1)
    found = json.loads((study / "findings.json").read_text())["findings"]
    assert sorted(f["details"]["subject"] for f in found if f["code"] == "optimisation/best-of-n") == [
        f"--scores {tmp_path / name}.csv" for name in ("one", "two")
    ]
    assert len(said()) == 4, "another command wipes nothing"
    assert len(found) > total
    page, card = ((study / name).read_text(encoding="utf-8") for name in ("report.html", "card.md"))
    shown = "&lt;b&gt;`x`|\\u202e.jsonl"
    assert page.count(f"seamark benchmark {good} {plain}</bdi>") > 1
    assert shown in page
    assert "<b>`x`" not in page + card
    assert f"benchmark (seamark benchmark {bad}" in re.sub(r"\\(.)", r"\1", card)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert sum(re.fullmatch(r"figure-run-\d-optimisation-best-of-n", i) is not None for i in ids) == 2, "each pool has its chart"
    _, sealed, _ = call("audit", "card", study, "--json")
    assert {f["code"]: f["verdict"] for f in json.loads(sealed)["findings"]}["card/numbers"] == "ok", (
        "the card's rows are those of the findings"
    )
    table = tmp_path / "scores.jsonl"
    records = [{"prompt": p, "response": text, "score": len(text)} for p, text in zip(*texts_of(feedback), strict=True) if text is not None]
    table.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    call("evaluate", table, tmp_path / "prefs.jsonl", "--into", study)
    both = [f for f in json.loads((study / "findings.json").read_text(encoding="utf-8"))["findings"] if f["code"] == "accuracy"]
    assert [bool(f["details"].get("added")) for f in both] == [False, True], (
        "the study's own accuracy stays, another model's stands beside it"
    )
