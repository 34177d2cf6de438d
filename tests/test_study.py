"""The main job on small data: every file is there and agrees with the others, planted defects block, odd data finishes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest

import seamark as sm
from seamark.aggregation import Electorate
from seamark.cli import main
from seamark.errors import InvalidSetting, UnreadableSource, UnwritableOutput
from seamark.governance import BrokenLog, append, read, verify
from seamark.study import Study, _command, choose_model, describe_study, read_source, rewrite_report, run_study

SCHEMA = json.loads((Path(sm.__file__).parent / "findings.schema.json").read_text(encoding="utf-8"))
SIGNAL_KEYS = {
    "charter", "prompt", "chosen", "rejected", "margin", "soft_label", "p_chosen", "weight", "noise", "disagreement", "noise_and_disagreement", "ignorance",
}  # fmt: skip
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def society(**settings: Any) -> sm.Feedback:
    return sm.simulate(**({"n_prompts": 40, "n_raters": 18, "n_judgments": 900, "seed": 1} | settings)).feedback


def saved(feedback: sm.Feedback, path: Path) -> Path:
    feedback.to_jsonl(path)
    return path


def verdicts(study: Study) -> dict[str, str]:
    return {f.code: f.verdict for f in study.findings}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(society(), tmp_path_factory.mktemp("data") / "small.jsonl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(society(n_judgments=200, n_prompts=15, n_raters=8), tmp_path_factory.mktemp("data") / "tiny.jsonl")


@pytest.fixture(scope="module")
def study(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run_study(small, tmp_path_factory.mktemp("studies") / "out", seed=0)


# ---------------------------------------------------------------------------------------------- what a study leaves behind


def test_every_file_is_there(study: Study) -> None:
    found = {str(p.relative_to(study.folder)) for p in study.folder.rglob("*") if p.is_file()}
    assert found == {
        "report.html", "findings.json", "card.md", "charter.toml", "study.json",
        "fit/fit.json", "fit/arrays.safetensors", "signal/train.jsonl",
    }  # fmt: skip


def test_nothing_is_left_beside_it(study: Study) -> None:
    assert [p.name for p in study.folder.parent.iterdir()] == ["out"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX here")
def test_others_may_read_what_the_umask_allows(study: Study) -> None:
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in study.folder.rglob("*") if p.is_file()}
    assert len(set(modes.values())) == 1, modes


def test_findings_keep_to_the_schema(study: Study) -> None:
    document = json.loads((study.folder / "findings.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert [f["code"] for f in document["findings"]] == [f.code for f in study.findings]


def test_codes_are_unique(study: Study) -> None:
    codes = [f.code for f in study.findings]
    assert len(codes) == len(set(codes))


def test_every_estimate_has_an_interval_and_n_or_says_why(study: Study) -> None:
    for f in study.findings:
        if f.estimate is not None:
            assert f.n is not None, f.code
            assert f.low is not None or f.reason, f.code
        else:
            assert f.reason, f.code


def test_report_needs_no_network(study: Study) -> None:
    page = (study.folder / "report.html").read_text(encoding="utf-8")
    assert len(page) < 2_000_000
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert not re.findall(r"""url\(\s*["']?https?:|@import|<link[^>]+stylesheet""", page)
    assert "</html>" in page


def test_fit_predicts_the_same_after_loading(study: Study, small: Path) -> None:
    feedback = sm.load(small)
    loaded = sm.Fit.load(study.folder / "fit")
    assert study.fit is not None
    assert np.array_equal(loaded.utilities(feedback), study.fit.utilities(feedback))
    assert np.array_equal(loaded.ignorance(feedback), study.fit.ignorance(feedback))
    assert loaded.raters.equals(study.fit.raters)
    assert repr(loaded) == repr(study.fit)
    from seamark.models import predict

    for before, after in zip(predict(study.fit, feedback), predict(loaded, feedback), strict=True):
        assert np.array_equal(before.probs, after.probs)


def test_signal_rows(study: Study, small: Path) -> None:
    rows = [json.loads(line) for line in (study.folder / "signal" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    feedback = sm.load(small)
    said = list(zip(feedback.judgments["responses"].to_list(), feedback.judgments["outcome"].to_list(), strict=True))
    pairs = {tuple(sorted(codes)) for codes, outcome in said if outcome != "tie"}
    assert len(rows) == len(pairs)
    for row in rows:
        assert set(row) == SIGNAL_KEYS
        assert row["margin"] >= 0
        assert 0.5 <= row["p_chosen"] <= 1
        if row["noise"] is None:
            assert row["disagreement"] is None
            parts = row["noise_and_disagreement"]
        else:
            assert row["noise_and_disagreement"] is None
            parts = row["noise"] + row["disagreement"]
        assert abs(parts + row["ignorance"] - 1) < 1e-5
    assert sum(row["weight"] for row in rows) == sum(tuple(sorted(codes)) in pairs for codes, _ in said)


def test_the_same_seed_gives_the_same_study(study: Study, small: Path, tmp_path: Path) -> None:
    again = run_study(small, tmp_path / "again", seed=0)
    assert again.findings.to_json() == study.findings.to_json()
    name = Path("signal") / "train.jsonl"
    assert (again.folder / name).read_bytes() == (study.folder / name).read_bytes()


def test_report_can_be_drawn_again(study: Study) -> None:
    before = (study.folder / "report.html").read_text(encoding="utf-8")
    (study.folder / "report.html").unlink()
    assert rewrite_report(study.folder) == study.folder / "report.html"
    assert (study.folder / "report.html").read_text(encoding="utf-8") == before


def test_progress_goes_up_to_one(tiny: Path, tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    run_study(tiny, tmp_path / "out", utility=sm.Linear(n_columns=16), progress=lambda stage, share: said.append((stage, share)))
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert said[0] == ("reading", 0.0)
    assert said[-1] == ("done", 1.0)


def test_the_charter_given_is_the_one_used(tiny: Path, tmp_path: Path) -> None:
    charter = sm.Charter(
        title="Ours",
        authors=("Ada",),
        date="2026-01-01",
        rationale="We met and chose this.",
        ignorance_penalty=2.0,
        electorate=Electorate(),
    )
    made = run_study(tiny, tmp_path / "out", charter=charter, utility=sm.Linear(n_columns=16))
    assert sm.Charter.from_toml(made.folder / "charter.toml") == charter
    assert made.report.charter_signed


# ---------------------------------------------------------------------------------------------- where it may write


def test_an_earlier_study_is_replaced_whole(study: Study, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(study.folder, out)
    (out / "report.html").write_text("from before", encoding="utf-8")
    run_study(small, out, utility=sm.Linear(n_columns=16))
    assert (out / "report.html").read_text(encoding="utf-8") != "from before"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_foreign_files_in_a_study_are_named_and_kept(study: Study, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(study.folder, out)
    for name in ("notes.txt", "signal/mine.jsonl"):
        (out / name).write_text("years of work", encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"notes\.txt, signal/mine\.jsonl, which would be lost"):
        run_study(small, out)
    assert (out / "notes.txt").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_a_study_is_left_alone(small: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work", encoding="utf-8")
    else:
        out.write_text("years of work", encoding="utf-8")
    with pytest.raises(InvalidSetting, match="give a new folder"):
        run_study(small, out)
    assert "years of work" in (out / "thesis.tex" if kind == "folder" else out).read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(small: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(UnwritableOutput, match=r"out: cannot be written"):
        run_study(small, tmp_path / "file" / "out", progress=lambda stage, _share: said.append(stage))
    assert said == []


def test_a_study_that_fails_while_writing_leaves_the_earlier_one(
    study: Study, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_settings: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    shutil.copytree(study.folder, out)
    before = (out / "study.json").read_bytes()
    monkeypatch.setattr("seamark.study.write_card", full)
    with pytest.raises(UnwritableOutput, match="No space left"):
        run_study(small, out, utility=sm.Linear(n_columns=16))
    assert (out / "study.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_study_that_fails_leaves_the_earlier_one(study: Study, tmp_path: Path) -> None:
    before = (study.folder / "study.json").read_bytes()
    with pytest.raises(sm.SeamarkError):
        run_study(tmp_path / "missing.jsonl", study.folder)
    assert (study.folder / "study.json").read_bytes() == before


# ---------------------------------------------------------------------------------------------- planted defects


def reversed_labels(feedback: sm.Feedback) -> sm.Feedback:
    said = pl.col("outcome").cast(pl.String)
    turned = feedback.judgments.with_columns(said.replace({"left": "right", "right": "left"}).alias("outcome"))
    return sm.Feedback(turned, feedback.responses, feedback.prompts, feedback.raters, feedback.report)


def _cut(tmp_path: Path) -> dict[str, Any]:
    return {"source": saved(society(text=False, n_responses=8, n_components=2, n_prompts=30), tmp_path / "cut.jsonl")}


def _leaked(tmp_path: Path) -> dict[str, Any]:
    train, held = society(n_judgments=1500).split(by="judgment", test=0.2, seed=0)
    return {"source": saved(train, tmp_path / "train.jsonl"), "held_out": saved(held, tmp_path / "held.jsonl")}


def _careless(tmp_path: Path) -> dict[str, Any]:
    feedback = society(careless=0.75, opposed=0.0, n_judgments=4000, n_raters=40, text=False, n_responses=10, tie=None)
    return {"source": saved(feedback, tmp_path / "careless.jsonl")}


def _reversed(tmp_path: Path) -> dict[str, Any]:
    train, held = society(n_judgments=1500, careless=0.0, opposed=0.0).split(by="prompt", test=0.2, seed=0)
    return {"source": saved(train, tmp_path / "train.jsonl"), "held_out": saved(reversed_labels(held), tmp_path / "held.jsonl")}


def _below_baseline(tmp_path: Path) -> dict[str, Any]:
    """Trained where the shorter wins and judged where the longer does: a trivial rule knows more."""
    rng = np.random.default_rng(0)

    def rows(n: int, longer: bool, prefix: str) -> Rows:
        out: Rows = []
        for i in range(n):
            short, long = f"{prefix} answer {i} yes", f"{prefix} answer {i} " + "and then some more of it " * int(rng.integers(2, 6))
            left_long = bool(rng.random() < 0.5)
            texts = [long, short] if left_long else [short, long]
            out.append(
                {"kind": "pair", "prompt": f"{prefix} question {i}", "responses": [{"text": t} for t in texts], "order_known": True,
                 "outcome": "left" if left_long == longer else "right", "rater": {"id": f"r{i % 12}"}}
            )  # fmt: skip
        return out

    train = write(tmp_path / "train.jsonl", rows(300, False, "train"))
    # the rule that is learnt from the training part fails as well; where the response was shown does not
    held = rows(120, True, "held")
    for row in held:
        row["responses"] = row["responses"] if row["outcome"] == "left" else row["responses"][::-1]
        row["outcome"] = "left"
    return {"source": train, "held_out": write(tmp_path / "held.jsonl", held)}


DEFECTS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "cut comparison graph": (_cut, "connectivity"),
    "held-out leakage": (_leaked, "leakage"),
    "most raters at chance": (_careless, "rater-reliability"),
    "reversed held-out labels": (_reversed, "direction"),
    "below a trivial rule": (_below_baseline, "baseline"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defect_blocks(defect: str, tmp_path: Path) -> None:
    plant, code = DEFECTS[defect]
    made = run_study(**plant(tmp_path), out=tmp_path / "out")
    assert verdicts(made)[code] == "blocking", made.findings
    assert made.exit_code == 1
    blocked = next(f for f in made.findings.blocking if f.code == code)
    assert blocked.remedy


def test_a_clean_leaderboard_does_not_block(tmp_path: Path) -> None:
    """Without text it is split by judgment: the same questions are on both sides on purpose."""
    feedback = society(text=False, n_responses=8, n_prompts=30, n_judgments=1500)
    made = run_study(saved(feedback, tmp_path / "board.jsonl"), tmp_path / "out")
    assert not made.findings.blocking, made.findings
    assert verdicts(made)["accuracy"] == "ok"


def test_a_split_that_shares_prompts_on_purpose_does_not_block(tmp_path: Path) -> None:
    """With two prompts the study holds out raters: that both parts are about the same texts is then no leak."""
    made = run_study(saved(society(n_prompts=2, n_raters=30), tmp_path / "two.jsonl"), tmp_path / "out", utility=sm.Linear(n_columns=32))
    leakage = made.findings.get("leakage")
    assert leakage is not None
    assert leakage.verdict == "not_applicable"
    assert "held out by rater" in str(leakage.reason)
    assert not [f for f in made.findings.blocking if f.code.startswith("leakage")]


def test_nothing_blocks_without_a_defect(study: Study) -> None:
    assert not study.findings.blocking, study.findings
    assert study.exit_code == 0


# ---------------------------------------------------------------------------------------------- odd but readable


def _pair(i: int, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "pair", "prompt": f"question {i % 7}", "responses": [{"text": f"first answer {i % 5}"}, {"text": f"a second one {i % 3}"}],
        "outcome": "left" if i % 3 else "right",
    } | fields  # fmt: skip


ODD: dict[str, tuple[Rows, tuple[str, ...]]] = {
    "one judgment": ([_pair(0)], ("agreement", "accuracy", "calibration", "rater-reliability")),
    "one rater": ([_pair(i, rater={"id": "ann"}) for i in range(60)], ("rater-reliability", "ceiling")),
    "all ties": ([_pair(i, outcome="tie", rater={"id": f"r{i % 4}"}) for i in range(60)], ("accuracy", "baseline", "calibration")),
    "id only": (
        [_pair(i, prompt=None, responses=[{"id": "xyz"[i % 3]}, {"id": "xyz"[(i + 1) % 3]}], rater={"id": f"r{i % 5}"}) for i in range(80)],
        ("length", "style"),
    ),
    "some identical pairs": (
        [_pair(i, rater={"id": f"r{i % 4}"}) for i in range(30)] + [_pair(i, responses=[{"text": f"same {i}"}] * 2) for i in range(30)],
        (),
    ),
    "nominal labels only": (
        [
            {"kind": "label", "prompt": "q", "responses": [{"text": f"a{i % 9}"}], "label": "xyz"[i % 3], "rater": {"id": f"r{i % 4}"}}
            for i in range(60)
        ],
        ("accuracy", "log-loss", "calibration", "baseline", "rater-reliability", "doubts"),
    ),
    "always the same answer": ([_pair(i, outcome="left", rater={"id": f"r{i % 4}"}) for i in range(60)], ()),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_finishes(name: str, tmp_path: Path) -> None:
    rows, not_applicable = ODD[name]
    made = run_study(write(tmp_path / "odd.jsonl", rows), tmp_path / "out")
    assert made.exit_code in (0, 1)
    found = verdicts(made)
    for code in not_applicable:
        assert found[code] == "not_applicable", (code, found[code])
    document = json.loads((made.folder / "findings.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert (made.folder / "report.html").is_file()
    assert (made.folder / "card.md").is_file()


NOTHING_LEFT: dict[str, Rows] = {
    "two identical pairs": [_pair(i, responses=[{"text": f"same {i}"}] * 2) for i in range(2)],
    "300 identical pairs": [_pair(i, responses=[{"text": f"same {i}"}] * 2, rater={"id": f"r{i % 4}"}) for i in range(300)],
    "identical ids": [_pair(i, responses=[{"id": "x"}] * 2) for i in range(20)],
    "identical rankings": [
        {"kind": "ranking", "prompt": "q", "responses": [{"text": "same"}] * 3, "ranks": [1, 2, 3]} for _ in range(20)
    ],
    "all skipped": [_pair(i, outcome="skipped") for i in range(50)],
    "all unanswered ratings": [
        {"kind": "rating", "prompt": "q", "responses": [{"text": f"a{i}"}], "outcome": "cannot_tell"} for i in range(20)
    ],
    "identical or skipped": [_pair(i, responses=[{"text": "same"}] * 2) if i % 2 else _pair(i, outcome="cannot_tell") for i in range(50)],
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING_LEFT)
def test_nothing_usable_left_is_refused(name: str, tmp_path: Path) -> None:
    source = write(tmp_path / "none.jsonl", NOTHING_LEFT[name])
    with pytest.raises(UnreadableSource, match=r"none\.jsonl: nothing can be learned from any of its \d+ judgments"):
        run_study(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["none.jsonl"]


@pytest.mark.parametrize(
    "answer",
    [
        _pair(0, outcome="tie"),
        _pair(0, outcome="both_bad"),
        {"kind": "rating", "prompt": "q", "responses": [{"text": "a"}], "rating": 3},
        {"kind": "thumbs", "prompt": "q", "responses": [{"text": "a"}], "thumb": True},
        {"kind": "label", "prompt": "q", "responses": [{"text": "a"}], "label": "x"},
        {"kind": "ranking", "prompt": "q", "responses": [{"text": "a"}, {"text": "a"}, {"text": "b"}], "ranks": [1, 2, 3]},
    ],
    ids=["tie", "both bad", "rating", "thumbs", "label", "ranking"],
)  # fmt: skip
def test_one_usable_judgment_is_enough_to_read(answer: dict[str, Any], tmp_path: Path) -> None:
    assert read_source(write(tmp_path / "a.jsonl", [*NOTHING_LEFT["all skipped"], answer])).n_judgments == 51


def test_an_axis_without_anything_usable_is_refused(tmp_path: Path) -> None:
    rows = [_pair(i, axis="help") for i in range(20)] + [_pair(i, axis="harm", outcome="skipped") for i in range(20)]
    assert read_source(write(tmp_path / "a.jsonl", rows), axis="help").n_judgments == 20
    with pytest.raises(UnreadableSource, match="20 were skipped"):
        read_source(tmp_path / "a.jsonl", axis="harm")


# ---------------------------------------------------------------------------------------------- the steps are the study


def test_the_held_out_source_is_cut_to_the_axis_too(tmp_path: Path) -> None:
    """On the axis harm the held-out answers are turned round; asked about help, the study must not see them."""
    train, held = society(n_judgments=1500, careless=0.0, opposed=0.0).split(by="prompt", test=0.2, seed=0)
    rows = [
        json.loads(line) for part in (held, reversed_labels(held)) for line in saved(part, tmp_path / "x").read_text("utf-8").splitlines()
    ]
    n = held.n_judgments
    both = write(tmp_path / "held.jsonl", [row | {"axis": "help" if i < n else "harm"} for i, row in enumerate(rows)])
    learned = write(
        tmp_path / "train.jsonl",
        [json.loads(line) | {"axis": "help"} for line in saved(train, tmp_path / "x").read_text("utf-8").splitlines()],
    )
    made = run_study(learned, tmp_path / "out", held_out=both, axis="help", utility=sm.Linear(n_columns=64))
    accuracy = made.findings.get("accuracy")
    assert accuracy is not None
    assert accuracy.n is not None
    assert accuracy.n <= n
    assert verdicts(made)["direction"] == "ok"


def test_the_choice_of_the_model(small: Path) -> None:
    """Two groups of at least 200 judgments are compared; 7 are not; what is asked for is kept."""
    feedback = sm.load(small)
    chosen = choose_model(feedback)
    assert chosen.people == sm.Groups("group", min_judgments=int(feedback.judgments["group"].value_counts()["count"].min()))  # type: ignore[arg-type]
    assert chosen.utility == sm.Linear(n_columns=min(feedback.n_responses, 256))
    assert chosen.notes == ()
    many = choose_model(society(groups=7, n_judgments=3000, n_raters=40))
    assert many.people == sm.Same()
    assert "one population was fitted" in many.notes[0]
    asked = choose_model(feedback, utility=sm.Tabular(), people=sm.Same())
    assert (asked.utility, asked.people, asked.notes) == (sm.Tabular(), sm.Same(), ())


# ---------------------------------------------------------------------------------------------- how to get it again

REPRODUCED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "seamark study 'my data.jsonl' -o 'the study' --seed 0"),
    "shell": (
        {"utility": sm.Tabular(), "people": sm.Same(), "split": "judgment", "seed": 3},
        "seamark study 'my data.jsonl' -o 'the study' --utility tabular --groups none --split judgment --seed 3",
    ),
    "cells": (
        {"people": sm.Groups(by=("profile.age", "profile.gender"))},
        "seamark study 'my data.jsonl' -o 'the study' --groups profile.age,profile.gender --seed 0",
    ),
    "an encoder's defaults": ({"utility": sm.Linear()}, "seamark study 'my data.jsonl' -o 'the study' --utility hash --seed 0"),
    "bends": ({"utility": sm.Linear(bends=True)}, "seamark study 'my data.jsonl' -o 'the study' --utility hash+bends --seed 0"),
    "a share": ({"test": 0.3}, "import seamark as sm\n\nsm.run_study('my data.jsonl', 'the study', test=0.3, seed=0)"),
    "columns": (
        {"utility": sm.Linear(n_columns=16, style=False, residual=True, seed=2)},
        "import seamark as sm\n\nsm.run_study('my data.jsonl', 'the study', "
        "utility=sm.Linear(features='hash', style=False, bends=False, n_columns=16, residual=True, seed=2), seed=0)",
    ),
    "groups": (
        {"utility": sm.Linear(n_columns=16), "people": sm.Groups("group", min_judgments=50)},
        "import seamark as sm\n\nsm.run_study('my data.jsonl', 'the study', utility=sm.Linear(features='hash', style=True, bends=False, n_columns=16, "
        "residual=None, seed=0), people=sm.Groups(by='group', min_judgments=50, interaction=False), seed=0)",
    ),
}


@pytest.mark.parametrize("name", REPRODUCED)
def test_how_to_get_it_again(name: str) -> None:
    settings, expected = REPRODUCED[name]
    assert _command("my data.jsonl", Path("the study"), settings | {"seed": settings.get("seed", 0)}) == expected


@pytest.mark.parametrize("name", ["shell", pytest.param("columns", marks=pytest.mark.slow)])
def test_what_the_report_says_gives_the_same_findings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed at a shell in this process; the Python in one of its own."""
    settings, expected = REPRODUCED[name]
    monkeypatch.chdir(tmp_path)
    made = run_study(saved(society(n_judgments=300, n_prompts=20, n_raters=8), Path("my data.jsonl")), "the study", **settings)
    Path("the study", "findings.json").write_text("gone", encoding="utf-8")
    assert made.report.command == expected
    card = Path("the study", "card.md").read_text(encoding="utf-8")
    assert f"```{'python' if name == 'columns' else 'sh'}\n{expected}\n```" in card
    if name == "columns":
        status = subprocess.run([sys.executable, "-c", expected], capture_output=True, text=True).returncode
    else:
        monkeypatch.setattr(sys, "argv", shlex.split(expected))
        with pytest.raises(SystemExit) as ended:
            main()
        status = int(ended.value.code or 0)
    assert status == made.exit_code
    assert json.loads(Path("the study", "findings.json").read_text(encoding="utf-8"))["findings"] == json.loads(made.findings.to_json())


# ---------------------------------------------------------------------------------------------- the log of decisions

QUICK: dict[str, Any] = {"utility": sm.Linear(n_columns=16), "people": sm.Same()}


def test_R67_a_study_says_in_the_log_what_it_made_of_what(tiny: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    append(log, "note", {"text": "the project begins"}, actor="Ana")
    charter = sm.Charter(title="Whose", authors=("Ana",), date="2026-01-01", rationale="We met and chose this.")
    made = run_study(tiny, tmp_path / "out", charter=charter, log=log, actor="Ana", **QUICK)
    assert verify(log).ok
    assert read(log)[1:] == (made.entry,)
    assert made.entry is not None
    assert (made.entry.kind, made.entry.actor, made.entry.seq) == ("data", "Ana", 1)
    said = made.entry.body
    assert (said["fingerprint"], said["source"]) == (sm.load(tiny).fingerprint, "tiny.jsonl")
    assert (said["study"]["charter"], said["study"]["signed"]) == (charter.hash, True)
    assert said["study"]["blocking"] == [f.code for f in made.findings.blocking]
    assert set(said["study"]["files"]) == {"findings.json", "fit/fit.json", "fit/arrays.safetensors", "signal/train.jsonl"}
    for name, hash in said["study"]["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == hash
    assert describe_study(tmp_path / "out") == said
    assert str(tmp_path) not in log.read_text(encoding="utf-8")


def test_R67_a_study_repeated_unchanged_is_in_the_log_once(tiny: Path, tmp_path: Path) -> None:
    """Wherever it is put; what it makes otherwise, or another person answers for, is an entry of its own."""
    log, elsewhere = tmp_path / "decisions.jsonl", tmp_path / "copied"
    elsewhere.mkdir()
    first = run_study(tiny, tmp_path / "out", log=log, actor="Ana", **QUICK).entry
    append(log, "note", {"text": "between"}, actor="Ana")
    before = log.read_bytes()
    assert run_study(tiny, tmp_path / "out", log=log, actor="Ana", **QUICK).entry == first
    assert run_study(shutil.copy(tiny, elsewhere), elsewhere / "other", log=log, actor="Ana", **QUICK).entry == first
    assert log.read_bytes() == before
    changed = run_study(tiny, tmp_path / "out", charter=sm.Charter(title="Another"), log=log, actor="Ana", **QUICK).entry
    assert changed is not None
    assert (changed.seq, changed.body["fingerprint"]) == (2, sm.load(tiny).fingerprint)
    by_another = run_study(tiny, tmp_path / "out", charter=sm.Charter(title="Another"), log=log, actor="Ben", **QUICK).entry
    assert by_another is not None
    assert (by_another.seq, by_another.body) == (3, changed.body)
    assert verify(log).ok


def _edited(log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"begins", b"ended!"))


def _a_folder(log: Path) -> None:
    log.unlink()
    log.mkdir()


def _under_a_file(log: Path) -> None:
    log.unlink()
    log.parent.rmdir()
    log.parent.write_text("", encoding="utf-8")


REFUSED: dict[str, tuple[Callable[[Path], object] | None, dict[str, Any], type[Exception], str]] = {
    "edited": (_edited, {}, BrokenLog, r"decisions\.jsonl: entry 0 was edited.*seamark audit verify"),
    "a folder": (_a_folder, {}, UnwritableOutput, r"decisions\.jsonl: cannot be written \(it is not a file\)\. Give"),
    "under a file": (_under_a_file, {}, UnwritableOutput, r"decisions\.jsonl: cannot be written"),
    "in the study": (None, {"log": "out/decisions.jsonl"}, InvalidSetting, "log is .*what the study reads or replaces"),
    "the source": (None, {"log": "prefs.jsonl"}, InvalidSetting, "log is .*what the study reads or replaces"),
    "nobody": (None, {"actor": " "}, InvalidSetting, "actor is ' '.*Name who answers"),
    "not UTF-8": (None, {"actor": "\udcff"}, InvalidSetting, "actor is .*UTF-8"),
    "no log": (None, {"log": None}, InvalidSetting, "actor is 'Ana'.*name that as well"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_R67_a_log_that_cannot_be_appended_to_is_refused_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, given, error, said = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "logs" / "decisions.jsonl"
    append(log, "note", {"text": "the project begins"}, actor="Ana")
    if change is not None:
        change(log)
    Path("prefs.jsonl").write_text("not read", encoding="utf-8")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(error, match=said):
        run_study("prefs.jsonl", "out", **{"log": log, "actor": "Ana"} | given)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not Path("out").exists()


def test_R67_no_entry_without_its_study_and_a_missing_one_is_made_up_for(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails on the way: outputs first, then the entry; running the same again gives it."""
    log, out = tmp_path / "decisions.jsonl", tmp_path / "out"

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("seamark.study.write_card", full)
        with pytest.raises(UnwritableOutput):
            run_study(tiny, out, log=log, actor="Ana", **QUICK)
    assert not log.exists()
    assert not out.exists()
    with monkeypatch.context() as patched:
        patched.setattr("seamark.study.append", full)
        with pytest.raises(UnwritableOutput, match=r"No space left.*The study is in .*out, and not in the log.*run the same again"):
            run_study(tiny, out, log=log, actor="Ana", **QUICK)
    assert (out / "report.html").is_file()
    assert not log.exists()
    assert run_study(tiny, out, log=log, actor="Ana", **QUICK).entry == read(log)[0]


def test_a_study_of_which_nothing_can_be_fitted_is_in_the_log_too(tmp_path: Path) -> None:
    source = write(tmp_path / "two.jsonl", [_pair(0), _pair(1)])
    made = run_study(source, tmp_path / "out", log=tmp_path / "decisions.jsonl", actor="Ana")
    assert made.entry is not None
    assert made.entry.body["study"]["files"].keys() >= {"findings.json"}
    with pytest.raises(InvalidSetting, match="not a study"):
        describe_study(tmp_path)


# ---------------------------------------------------------------------------------------------- what is in the folder already


def test_an_edited_charter_is_kept_and_used(study: Study, small: Path, tmp_path: Path) -> None:
    quick = sm.Linear(n_columns=16)
    place = shutil.copytree(study.folder, tmp_path / "out") / "charter.toml"
    edited = place.read_text(encoding="utf-8").replace("authors = []", 'authors = ["Ada"]  # since Tuesday').replace("1.0", "2.0")
    edited = edited.replace('date = ""', "date = 2026-01-06").replace("Nobody has decided this yet.", "Ada has decided this.")
    place.write_text(edited, encoding="utf-8")
    again = run_study(small, tmp_path / "out", utility=quick)
    assert place.read_text(encoding="utf-8") == edited
    assert again.report.charter_signed
    assert "since Tuesday" in again.report.charter_toml
    with pytest.raises(InvalidSetting, match="has been edited"):
        run_study(small, tmp_path / "out", utility=quick, charter=sm.Charter(title="Another"))
    assert place.read_text(encoding="utf-8") == edited
    place.write_text("rule = 3", encoding="utf-8")
    with pytest.raises(sm.SeamarkError, match="rule is 3"):
        run_study(small, tmp_path / "out", utility=quick)


def test_evaluating_on_the_whole_data_of_a_study_is_a_leak(study: Study, small: Path) -> None:
    leakage = sm.evaluate(sm.Fit.load(study.folder / "fit"), sm.load(small)).get("leakage")
    assert leakage is not None
    assert leakage.verdict == "blocking"


def test_the_signal_says_what_was_left_out(tmp_path: Path) -> None:
    made = run_study(saved(society(text=False, n_responses=8, n_prompts=30), tmp_path / "board.jsonl"), tmp_path / "out")
    signal = made.findings.get("signal")
    assert signal is not None
    assert (signal.verdict, signal.estimate) == ("warning", 0.0)
    assert "without text" in signal.title
    assert made.findings.get("leaderboard") is not None
    assert "Leaderboard" in (made.folder / "card.md").read_text(encoding="utf-8")


def _tied(i: int) -> dict[str, Any]:
    return _pair(i, outcome="tie")


@pytest.mark.parametrize("n", [1, 200])
def test_nothing_measured_is_never_fine(tmp_path: Path, n: int) -> None:
    made = run_study(write(tmp_path / "in.jsonl", [_tied(i) if n > 1 else _pair(i) for i in range(n)]), tmp_path / "out")
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert "too little to tell</span>" in page
    assert 'badge ok"' not in page
    assert "Nothing found stands in the way" not in page
