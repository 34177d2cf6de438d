"""`diagnose` as a whole: coverage numbers, missing fields, ties, clean data, and data with next to nothing in it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sentences import assert_written

from seamark.checks.data import check_coverage, check_missing_fields, check_source, check_ties, diagnose
from seamark.checks.findings import VERDICTS
from seamark.checks.thresholds import THRESHOLDS, Thresholds
from seamark.columns import KINDS
from seamark.records import Feedback, LoadReport
from seamark.sources import load


def clean(seed: int = 0, n_prompts: int = 60, n_raters: int = 30) -> Feedback:
    """Four texts a prompt, all six pairs judged by three of the raters, who are good; order drawn at random; nothing but content counts."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"word{i}" for i in range(500)]
    columns: dict[str, list] = {name: [] for name in ("kind", "prompt", "texts", "outcome", "rater", "order_known")}
    for _prompt in range(n_prompts):
        texts = [" ".join(rng.choice(vocabulary, int(rng.integers(20, 60)))) for _ in range(4)]
        utility = rng.normal(0, 2.5, 4)
        prompt = " ".join(rng.choice(vocabulary, 15))
        for i in range(4):
            for j in range(i):
                for rater in rng.choice(n_raters, 3, replace=False):
                    a, b = (i, j) if rng.random() < 0.5 else (j, i)
                    wins = rng.random() < 1 / (1 + np.exp(utility[b] - utility[a]))
                    row = ("pair", prompt, [texts[a], texts[b]], "left" if wins else "right", f"r{rater}", True)
                    for name, value in zip(columns, row, strict=True):
                        columns[name].append(value)
    return Feedback.from_columns(columns)


def assert_sound(findings) -> None:
    """Every number has its n, lies in its interval and is finite; every absence has its reason."""
    codes = [f.code for f in findings]
    assert len(codes) == len(set(codes))
    for f in findings:
        assert f.verdict in VERDICTS
        assert_written(f)
        assert f.reason, f.code
        f.to_dict()
        if f.verdict == "not_applicable":
            assert f.estimate is None
            continue
        assert f.estimate is not None, f.code
        assert f.n is not None, f.code
        assert f.unit is not None, f.code
        if f.low is None or f.high is None:
            assert "no interval" in f.reason.lower(), f.code
        else:
            assert f.low - 1e-12 <= f.estimate <= f.high + 1e-12, f.code
    json.dumps(json.loads(findings.to_json()), allow_nan=False)


def test_clean_data_is_not_flagged():
    train, test = clean().split(by="prompt", seed=1)
    findings = diagnose(train, held_out=test)
    assert_sound(findings)
    flagged = [str(f) for f in findings if f.verdict in ("warning", "blocking")]
    assert not flagged
    assert findings.get("ceiling").estimate > 0.75
    assert findings.get("leakage").estimate == 0
    assert findings.get("intransitivity").estimate < 0.1


def test_same_seed_same_findings():
    feedback = clean(n_prompts=10)
    assert diagnose(feedback, seed=3).to_json() == diagnose(feedback, seed=3).to_json()


ANSWER = {
    "pair": {"outcome": "left"},
    "choice": {"best": 0},
    "ranking": {"ranks": [1, 2]},
    "rating": {"rating": 3.0},
    "thumbs": {"thumb": True},
    "label": {"label": "x"},
}


def one(kind: str, *, texts: bool, outcome: str | None = None, n: int = 1, rater: bool = True) -> Feedback:
    shown = ["a", "b"] if kind in ("pair", "choice", "ranking") else ["a"]
    columns = {"kind": [kind] * n, ("texts" if texts else "ids"): [shown] * n, "outcome": ["answered"] * n}
    columns |= {name: [value] * n for name, value in ANSWER[kind].items()}
    if outcome:
        columns["outcome"] = [outcome] * n
    if rater:
        columns["rater"] = [f"r{i}" for i in range(n)]
    return Feedback.from_columns(columns)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("rater", [True, False])
def test_next_to_nothing(kind, texts, n, rater):
    feedback = one(kind, texts=texts, n=n, rater=rater)
    findings = diagnose(feedback, held_out=feedback)
    assert_sound(findings)
    if n == 1:
        assert findings.get("agreement").verdict == "not_applicable"
        assert findings.get("ceiling").verdict == "not_applicable"


@pytest.mark.parametrize("outcome", ["tie", "both_bad", "cannot_tell", "skipped"])
@pytest.mark.parametrize("n", [1, 5])
def test_nothing_but_undecided(outcome, n):
    findings = diagnose(one("pair", texts=True, outcome=outcome, n=n))
    assert_sound(findings)
    for code in ("ceiling", "position", "length", "style", "intransitivity", "agreement"):
        assert findings.get(code).verdict == "not_applicable", code


def test_one_rater_only():
    feedback = clean(n_prompts=10).filter(pl.col("rater") == 0)
    findings = diagnose(feedback)
    assert_sound(findings)
    assert findings.get("agreement").verdict == "not_applicable"
    assert "One rater" in findings.get("coverage/raters").title


def test_kinds_mixed():
    frames = [one(kind, texts=True, n=3) for kind in KINDS]
    columns = {}
    for name in ("kind", "outcome", "best", "ranks", "rating", "thumb", "label"):
        columns[name] = [v for f in frames for v in f.judgments[name].to_list()]
    columns["texts"] = [[f.responses["text"][r] for r in row] for f in frames for row in f.judgments["responses"].to_list()]
    columns["rater"] = [f"r{i}" for _f in frames for i in range(3)]
    columns["prompt"] = ["p"] * 18
    assert_sound(diagnose(Feedback.from_columns(columns)))


@pytest.mark.parametrize("seed", range(6))
def test_random_data_never_breaks(seed):
    """Fields missing here and there, odd texts, unknown raters and prompts."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(120):
        kind = str(rng.choice(KINDS))
        many = kind in ("pair", "choice", "ranking")
        k = 2 if kind == "pair" else int(rng.integers(2, 5)) if many else 1
        shown = [str(rng.choice(["", "a", "A ", "ünï", "long text " * 5, "**b**", "\n"])) for _ in range(k)]
        row = {"kind": kind, "texts": shown, "outcome": "answered", **ANSWER[kind]}
        if kind == "pair":
            row["outcome"] = str(rng.choice(["left", "right", "tie", "both_bad", "skipped"]))
            row["strength"] = int(rng.integers(1, 4)) if rng.random() < 0.5 else None
        if kind == "choice" and rng.random() < 0.3:
            row |= {"outcome": "both_bad", "best": None}
        if kind == "ranking":
            row["ranks"] = [int(v) for v in rng.integers(1, 3, k)]
        if kind == "rating":
            row["rating"] = float(rng.integers(1, 6))
        for name, values in {"rater": ["x", "y", "X"], "prompt": ["p", "q"], "axis": ["h", "s"], "group": ["g1", "g2"]}.items():
            if rng.random() < 0.7:
                row[name] = str(rng.choice(values))
        row["order_known"] = bool(rng.random() < 0.5)
        rows.append(row)
    names = {name for row in rows for name in row}
    feedback = Feedback.from_columns({name: [row.get(name) for row in rows] for name in names})
    half = np.arange(len(feedback)) % 2 == 0
    assert_sound(diagnose(feedback.filter(half), held_out=feedback.filter(~half)))


# ------------------------------------------------------------------------------------ coverage, fields, ties


def test_coverage_numbers():
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * 6,
            "prompt": ["p", "p", "p", "p", "q", "r"],
            "texts": [["a", "b"], ["b", "a"], ["a", "c"], ["a", "b"], ["a", "b"], ["a", "b"]],
            "outcome": ["left"] * 6,
            "rater": ["x", "y", "x", "x", "x", "y"],
        }
    )
    found = {f.code: f for f in check_coverage(feedback)}
    assert found["coverage"].estimate == pytest.approx(6 / 4)
    assert found["coverage"].details["judgments_per_question"] == {"1": 3, "3": 1}
    assert found["coverage/prompts"].estimate == pytest.approx(36 / (16 + 1 + 1))
    assert found["coverage/prompts"].details["share_largest_tenth"] == pytest.approx(4 / 6)
    assert found["coverage/responses"].estimate == pytest.approx(12 / 7)
    assert found["coverage/responses"].details["responses_per_prompt"] == {"2": 2, "3": 1}
    assert found["coverage/raters"].estimate == pytest.approx(4 / 6)
    assert found["coverage/raters"].details["n_few"] == 2
    assert found["coverage/raters"].details["raters_per_question"] == {"1": 3, "2": 1}


def test_narrow_prompts_and_few_raters_are_noticed():
    n = 200
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "prompt": [f"p{max(0, i - 150)}" for i in range(n)],
            "texts": [["a", "b"]] * n,
            "outcome": ["left"] * n,
            "rater": [f"r{max(0, i - 150)}" for i in range(n)],
        }
    )
    found = {f.code: f for f in check_coverage(feedback)}
    assert found["coverage/prompts"].verdict == "notice"
    assert found["coverage/raters"].verdict == "notice"


def test_missing_fields_are_named_with_what_they_rule_out():
    finding = check_missing_fields(one("pair", texts=False, rater=False))
    missing = {m["field"]: m["rules_out"] for m in finding.details["missing"]}
    assert {"rater", "order_known", "time", "seconds", "group", "confidence", "texts", "prompt"} <= set(missing)
    assert "reliability" in missing["rater"]
    assert "drift" in missing["time"]
    assert "ids" not in finding.details["absent"]
    assert "rating" in finding.details["absent"]
    with_rater = check_missing_fields(one("pair", texts=True))
    assert not {"rater", "texts"} & {m["field"] for m in with_rater.details["missing"]}
    unknown_order = Feedback.from_columns({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"], "order_known": [False]})
    assert "order_known" in {m["field"] for m in check_missing_fields(unknown_order).details["missing"]}
    rated = {m["field"] for m in check_missing_fields(one("rating", texts=True)).details["missing"]}
    assert "scale_low" in rated
    assert not {"order_known", "strength"} & rated


def test_what_was_odd_while_reading_is_a_finding(tmp_path):
    """A byte order mark, Windows line ends and a record left out are facts about the data; without any the finding is ok."""
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    lines = [json.dumps(good), json.dumps(good | {"chosen": 3}), json.dumps(good | {"prompt": "q"})]
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    finding = diagnose(load(path, on_error="skip")).get("missing-fields/source")
    assert finding.verdict == "notice"
    assert "1 record left out" in finding.title
    assert "byte order mark" in finding.title
    assert "Windows line ends" in finding.title
    assert finding.details["n_skipped"] == 1
    assert finding.n == 3
    assert_written(finding)
    assert check_source(one("pair", texts=True)).verdict == "ok"
    many = Feedback.from_columns(
        {"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"]}, report=LoadReport("f", "g", (), tuple("abcdef"))
    )
    assert "and 3 more notes" in check_source(many).title


def test_few_prompts_are_noticed_from_the_table(monkeypatch):
    feedback = clean(n_prompts=12)
    assert check_coverage(feedback)[1].verdict == "ok"
    monkeypatch.setattr("seamark.checks.data.THRESHOLDS", replace(THRESHOLDS, few_prompts_notice=13.0))
    assert check_coverage(feedback)[1].verdict == "notice"


def test_tie_shares_are_separate_numbers():
    outcomes = ["left"] * 4 + ["tie"] * 3 + ["both_bad"] * 2 + ["skipped"]
    feedback = Feedback.from_columns({"kind": ["pair"] * 10, "ids": [[f"a{i}", "b"] for i in range(10)], "outcome": outcomes})
    found = {f.code: f for f in check_ties(feedback)}
    assert [found[c].estimate for c in ("ties", "ties/both_bad", "ties/cannot_tell", "ties/skipped")] == [0.3, 0.2, 0.0, 0.1]
    assert found["ties/cannot_tell"].low is None
    assert check_ties(one("rating", texts=True))[0].verdict == "not_applicable"


def test_thresholds_are_one_frozen_table():
    assert isinstance(THRESHOLDS, Thresholds)
    with pytest.raises(AttributeError):
        THRESHOLDS.leakage_blocking = 0.5  # type: ignore[misc]  # the point of the test


@pytest.mark.slow
def test_speed():
    """1e5 judgments in 3 s on an idle core; three times that is allowed for a busy one."""
    rng = np.random.default_rng(0)
    n = 100_000
    item = rng.integers(0, 5_000, (n, 2))
    item[:, 1] += item[:, 0] == item[:, 1]
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "ids": [[f"i{a}", f"i{b}"] for a, b in item.tolist()],
            "outcome": np.where(rng.random(n) < 0.5, "left", "right").tolist(),
            "rater": [f"r{i}" for i in rng.integers(0, 2_000, n)],
            "order_known": [True] * n,
        }
    )
    start = time.process_time()
    diagnose(feedback)
    assert time.process_time() - start < 9
