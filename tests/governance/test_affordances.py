"""What an interface lets people say, and how many bits of value come through a click."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import seamark as sm
from seamark.errors import InvalidSetting
from seamark.governance import read, verify
from seamark.governance.affordances import Sheet, check_information, check_sheets, information_per_click, log_sheet
from seamark.models.prediction import predict
from seamark.simulation import Society

PLAIN = {"careless": 0.0, "opposed": 0.0, "groups": 1, "disagreement": 0.0, "position": 0.0}


@pytest.fixture(scope="module")
def mixed() -> tuple[Society, sm.Fit]:
    """One society asked in three forms, in equal shares."""
    society = sm.simulate(
        text=False, n_prompts=40, n_responses=6, n_raters=30, n_judgments=9000, kinds=("pair", "rating", "thumbs"), seed=1, **PLAIN
    )
    return society, sm.fit(society.feedback)


# ---------------------------------------------------------------------------------------------- sheets

SHEET = """
interface = "v2"
requests = ["a click on one of two answers"]
encourages = ["quick clicks"]
discourages = ["reasons: the field is folded away"]
refuses = ["saying that both are wrong"]
"""


def test_N15_a_sheet_is_read_logged_and_held_against_the_feedback(tmp_path: Path) -> None:
    (tmp_path / "sheet.toml").write_text(SHEET, encoding="utf-8")
    sheet = Sheet.from_toml(tmp_path / "sheet.toml")
    log_sheet(tmp_path / "log.jsonl", sheet, actor="Ana")
    assert verify(tmp_path / "log.jsonl").ok
    assert Sheet.model_validate_json(pl.Series([read(tmp_path / "log.jsonl")[0].body]).struct.json_encode()[0]) == sheet
    feedback = sm.simulate(text=False, n_prompts=2, n_raters=3, n_judgments=30, seed=0).feedback
    assert check_sheets([sheet], feedback).verdict == "not_applicable"
    versions = pl.Series("ui_version", ["v1"] * 10 + ["v2"] * 20)
    two = replace(feedback, judgments=feedback.judgments.with_columns(versions))
    found = check_sheets([sheet], two)
    assert (found.verdict, found.estimate, found.n) == ("notice", 1.0, 2)
    assert "v1 has no sheet" in found.title
    assert found.details["judgments"] == {"v1": 10, "v2": 20}
    blank = check_sheets([sheet, Sheet(interface="v1", encourages=("clicks",))], two)
    assert "the sheet of v1 refuses and discourages nothing" in blank.title
    assert check_sheets([sheet, Sheet(interface="v1", refuses=("reasons",))], two).verdict == "ok"


def test_a_wrong_sheet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sheet.toml"
    for text, said in (
        (SHEET.replace("refuses", "refuse"), "Keys are interface, requests"),
        ("[", "cannot be read as TOML"),
        ('interface = ""', "interface"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidSetting, match=said):
            Sheet.from_toml(path)


# ---------------------------------------------------------------------------------------------- bits per click


def entropy(p: list[float]) -> float:
    return -sum(x * math.log2(x) for x in p if x > 0)


def test_N15_bits_agree_with_loops_over_the_predictions(mixed: tuple[Society, sm.Fit]) -> None:
    society, fit = mixed
    some = society.feedback.filter(np.arange(9000) < 600)
    nobody = replace(some, judgments=some.judgments.with_columns(rater=pl.lit(None, dtype=pl.UInt32), order_known=pl.lit(value=False)))
    expected = {}
    for block in predict(fit, nobody):
        rows = [(list(p), n) for p, n in zip(block.probs.tolist(), block.count.tolist(), strict=True)]
        if block.is_pair:  # first wins, second wins, tie
            rows += [([p[1], p[0], p[2]], n) for p, n in rows]
        total = sum(n for _, n in rows)
        average = [sum(n * p[a] for p, n in rows) / total for a in range(len(rows[0][0]))]
        expected[block.name] = entropy(average) - sum(n * entropy(p) for p, n in rows) / total
    found = information_per_click(fit, some)
    assert {i.kind: pytest.approx(i.bits, abs=1e-12) for i in found} == expected
    assert len(found) == 3
    for i in found:
        assert 0 < i.low < i.bits < i.high < i.most


def test_N15_bits_are_those_of_the_society(mixed: tuple[Society, sm.Fit]) -> None:
    """From the planted values by the formulas of the simulation: thumbs sigmoid(u), pairs with ties, lapses; intervals hold them."""
    society, fit = mixed
    truth, e = society.truth, society.truth.lapse
    found = {i.kind.split("/")[0]: i for i in information_per_click(fit, society.feedback)}
    frame, slope = society.feedback.judgments, float(np.exp(np.log(truth.slope).mean()))
    answers: dict[str, list[list[float]]] = {"pair": [], "thumbs": []}
    for kind, shown in frame.select(pl.col("kind").cast(pl.String), "responses").iter_rows():
        u = [slope * float(truth.value[i]) for i in shown]
        if kind == "thumbs":
            up = 1 / (1 + math.exp(-u[0]))
            answers[kind].append([(1 - e) * up + e / 2, (1 - e) * (1 - up) + e / 2])
        elif kind == "pair":
            assert truth.log_tie is not None
            for gap in (u[0] - u[1], u[1] - u[0]):
                w = [math.exp(gap / 2), math.exp(-gap / 2), math.exp(truth.log_tie)]
                answers[kind].append([(1 - e) * x / sum(w) + e / 3 for x in w])
    for kind, rows in answers.items():
        bits = entropy([float(x) for x in np.mean(rows, axis=0)]) - float(np.mean([entropy(row) for row in rows]))
        assert found[kind].low < bits < found[kind].high, (kind, bits, found[kind])


def test_N15_thumbs_alone_lose_information(mixed: tuple[Society, sm.Fit]) -> None:
    """Of the three forms thumbs tell the least per click."""
    society, fit = mixed
    found = check_information(fit, society.feedback)
    of = {f.code.split("/")[1]: f for f in found}
    assert set(of) == {"pair", "rating", "thumbs"}
    bits = {kind: f.estimate or 0.0 for kind, f in of.items()}
    assert bits["thumbs"] < min(bits["pair"], bits["rating"])
    assert of["thumbs"].details["lost"] == pytest.approx(1 - bits["thumbs"] / max(bits.values()))
    assert of["thumbs"].details["lost"] > 0.2
    assert "less than one of kind" in of["thumbs"].title


@pytest.mark.slow
def test_N15_as_many_thumbs_recover_less() -> None:
    """The same societies asked by 600 clicks on 30 responses: the squared error of the utilities is larger with thumbs than with ratings
    or pairs, by more than twice the standard error of the paired difference."""
    error: dict[str, list[float]] = {"thumbs": [], "pair": [], "rating": []}
    for kind, errors in error.items():
        for seed in range(8):
            one = sm.simulate(text=False, n_responses=30, n_raters=20, n_judgments=600, kinds=(kind,), seed=seed, **PLAIN)
            apart = sm.fit(one.feedback).utilities(one.feedback) - one.truth.value
            errors.append(float(apart.var()))
    for other in ("rating", "pair"):
        more = np.subtract(error["thumbs"], error[other])
        assert more.mean() > 2 * more.std(ddof=1) / np.sqrt(len(more)), (other, error)


def test_N15_clicks_that_follow_nothing_tell_nothing() -> None:
    society = sm.simulate(
        n_prompts=30, n_responses=3, n_raters=15, n_judgments=1500, kinds=("thumbs",), **(PLAIN | {"careless": 1.0}), seed=3
    )
    (found,) = information_per_click(sm.fit(society.feedback, utility=sm.Linear(n_columns=16)), society.feedback)
    assert found.bits < 0.02
    assert found.clusters == "30 prompts"
    (finding,) = check_information(sm.fit(society.feedback, utility=sm.Linear(n_columns=16)), society.feedback)
    assert finding.details["lost"] is None  # one form alone has nothing to be compared with
