"""Plain tables read in whole columns: the same as record by record, and record by record where something is odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seamark.errors import InvalidSetting, SeamarkError
from seamark.records import Feedback
from seamark.sources import columns, files, load

WORDS = ["", "a", "b", "left", "Model A", "7", "1.5", "yes", "é😀", " x "]
VALUES: dict[str, list[Any]] = {
    "left": WORDS,
    "right": WORDS,
    "left_id": ["a", "b", "7", ""],
    "right_id": ["a", "b", "7", ""],
    "left_model": ["gpt", ""],
    "outcome": ["left", "Right", "tie", "a", "b", "", "1", "0"],
    "winner": ["a", "b", "7", "tie", "", "left"],
    "chosen": WORDS,
    "rejected": WORDS,
    "response": WORDS,
    "rating": ["1", "2.5", " 3 ", ""],
    "thumb": ["up", "no", "TRUE", ""],
    "label": ["x", "7", ""],
    "prompt": ["Why?", ""],
    "prompt_id": ["p", "q", ""],
    "rater": ["r", "7", ""],
    "group": ["g", ""],
    "strength": ["1", "2", "3.0", ""],
    "weight": ["1", "0.5", "1e0", ""],
    "time": ["2024-05-31T12:00:00Z", "2024-05-31", "1717156800", ""],
    "seconds": ["3", "0.25", ""],
    "order_known": ["1", "false", ""],
    "left_length": ["10", "2.5", ""],
    "right_length": ["7.25", "-3", ""],
}
SHAPES = [
    ("left", "right", "outcome"),
    ("left_id", "right_id", "winner", "outcome"),
    ("left", "right", "left_id", "right_id", "left_model", "winner"),
    ("left_id", "right_id", "left_length", "right_length", "winner"),
    ("chosen", "rejected"),
    ("response", "rating"),
    ("response", "thumb", "outcome"),
    ("response", "label"),
    ("response", "rating", "label"),
]
MORE = ("prompt", "prompt_id", "rater", "group", "strength", "weight", "time", "seconds", "order_known")


def result(path: Path, *, on_error: str = "skip") -> tuple[str, ...]:
    """The fingerprint and what was left out, or the error."""
    try:
        feedback = load(path, format="columns", on_error=on_error)  # type: ignore[arg-type]  # one of the two words
    except SeamarkError as error:
        return (str(error),)
    return (feedback.fingerprint, *feedback.report.skipped, *feedback.report.notes)


def compared(path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether whole columns were read at least once; asserts that it made no difference."""
    seen: list[bool] = []
    whole = columns._whole

    def watched(names: Any, piece: Any) -> Any:
        found = whole(names, piece)
        seen.append(found is not None)
        return found

    for on_error in ("skip", "stop"):
        with monkeypatch.context() as patch:
            patch.setattr(columns, "_whole", watched)
            quick = result(path, on_error=on_error)
            patch.setattr(columns, "_whole", lambda _names, _piece: None)
            assert quick == result(path, on_error=on_error)
    return any(seen)


def test_covariates_are_numbers_of_both_sides(tmp_path: Path) -> None:
    """A column of one side alone is a difference where it is named so, and else not used; nor are words."""
    path = tmp_path / "t.csv"
    path.write_text("left_id,right_id,outcome,left_length,right_length,left_note,right_note,d\na,b,left,3,5,x,y,2\nb,c,right,4,,x,y,-1\n")
    read = load(path)
    assert [name for name in read.judgments.columns if name.startswith("covariate")] == ["covariate.length"]
    assert read.judgments["covariate.length"].to_list() == [[3, 5], [4, None]]
    assert read.report.notes == ("t.csv: columns not used: left_note, right_note, d",)
    named = {"left_d": "d", "left_id": "left_id", "right_id": "right_id", "outcome": "outcome"}
    assert load(path, columns=named).judgments["covariate.d"].to_list() == [[1, -1], [-0.5, 0.5]]
    rows = [{"left_id": "a", "right_id": "b", "outcome": "left", "left_length": 3, "right_length": 5, "more": [1]}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load(tmp_path / "t.jsonl").judgments["covariate.length"].to_list() == [[3, 5]]


def test_a_covariate_of_one_side_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("left_id,right_id,outcome,left_length,right_price,response_time\na,b,left,3,5,9\nb,c,right,4,2,8\n")
    read = load(path)
    assert not [name for name in read.judgments.columns if name.startswith("covariate")]
    unused, *notes = read.report.notes
    assert unused == "t.csv: columns not used: left_length, right_price, response_time"
    assert [note.partition(":")[2] for note in notes] == [
        " left_length is not used: as a covariate it needs right_length too, a column of numbers; if it is the difference, the first less the "
        "other, say --columns left_length=left_length",
        " right_price is not used: as a covariate it needs left_price too, a column of numbers; if it is the difference, the first less the "
        "other, say --columns left_price=right_price",
    ]
    assert load(path, columns={"left_length": "left_length"}).judgments["covariate.length"].to_list() == [[1.5, -1.5], [2, -2]]
    both = {"left_length": "left_length", "right_length": "right_price"}
    assert load(path, columns=both).judgments["covariate.length"].to_list() == [[3, 5], [4, 2]]
    with pytest.raises(InvalidSetting, match="Give left_price too"):
        load(path, columns={"right_price": "right_price"})
    with pytest.raises(InvalidSetting, match="show left and right: name it left_time"):
        load(path, columns={"response_time": "response_time"})


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
@pytest.mark.parametrize("shape", SHAPES)
def test_same_as_record_by_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[str, ...], seed: int, clean: bool) -> None:
    rng = np.random.default_rng([seed, len(shape), clean])
    names = [*shape, *(name for name in MORE if rng.random() < 0.5)]
    n = 12

    def pick(name: str) -> list[str]:
        usable = [v for v in VALUES[name] if v not in ("", "7", " x ")] if clean else VALUES[name]
        return [usable[i] for i in rng.integers(0, len(usable), n)]

    table = {name: pick(name) for name in names}
    if clean and "winner" in table:
        table["winner"] = [("a", "b", "tie")[i] for i in rng.integers(0, 3, n)]
    frame = pl.DataFrame(table)
    frame.write_csv(tmp_path / "t.csv", quote_style="never")
    frame.write_csv(tmp_path / "u.csv", quote_style="always")
    frame.write_parquet(tmp_path / "t.parquet")
    rows = [{k: v for k, v in row.items() if v != "" or rng.random() < 0.5} for row in frame.to_dicts()]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    typed = [{k: int(v) if v in ("1", "2", "7") else float(v) if v in ("1.5", "2.5", "0.5") else v for k, v in row.items()} for row in rows]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, typed)))
    read = [compared(tmp_path / name, monkeypatch) for name in ("t.csv", "u.csv", "t.parquet", "t.jsonl", "v.jsonl")]
    if clean and shape[-1] != "label" and shape != SHAPES[-1]:
        assert all(read[:4])


def test_parquet_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    when = pl.Series(["2024-05-31 12:00:00", None, "2024-06-01 00:00:00"]).str.to_datetime(time_unit="ms")
    frame = pl.DataFrame(
        {
            "left_id": pl.Series([1, 2, 3], dtype=pl.Int16),
            "right_id": pl.Series(["a", "b", "c"], dtype=pl.Categorical),
            "winner": ["a", "2", "tie"],
            "time": when,
            "weight": pl.Series([1, 2, 3], dtype=pl.UInt8),
            "order_known": [True, None, False],
            "strength": [1.0, 2.0, None],
            "rater": [10.0, 11.5, None],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    compared(tmp_path / "t.parquet", monkeypatch)
    frame.select("left_id", "right_id", "time", "weight", "order_known", "strength", "rater", outcome=pl.lit("left")).write_parquet(
        tmp_path / "u.parquet"
    )
    assert compared(tmp_path / "u.parquet", monkeypatch)
    assert load(tmp_path / "u.parquet").raters["id"].to_list() == ["10", "11.5"]


@pytest.mark.parametrize(
    "body",
    [
        "a,b,left\n",
        "a,b,left",
        "a,b,left\r\nc,d,right\r\n",
        "a,b,left\n\nc,d,right\n",
        "a,b,left\n\n",
        '"a,x",b,left\nc,d,right\n',
        "a,b\nc,d,right\n",
        "a,b,left,z\nc,d,right\n",
        "a,b\nc,d,right,z\n",
        ",,\na,b,left\n",
        "a,b,\xff\n",
        "a\rb,c,left\n",
        " a , b ,left\n",
        "NA,null,left\n",
        "",
    ],
)
@pytest.mark.parametrize("header", ["left,right,outcome\n", "\ufeffleft,right,outcome\r\n", '"left",right,outcome\n'])
def test_csv_that_is_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, body: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(header.encode() + body.encode("latin-1"))
    if body:
        compared(path, monkeypatch)
    monkeypatch.setattr(files, "BLOCK", 1)  # every line in a block of its own
    if body:
        compared(path, monkeypatch)


@pytest.mark.parametrize("block", [1, 7, 64, 2**22])
def test_json_lines_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    rows = [{"left_id": f"i{i}", "right_id": "x" * i, "outcome": "left"} for i in range(1, 30)]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "t.jsonl").write_text(text.replace("\n", "\n\n", 1) + "\n\n[1]\nnot json\n" + json.dumps(rows[0]))
    expected = load(tmp_path / "t.jsonl", on_error="skip")
    monkeypatch.setattr(files, "BLOCK", block)
    found = load(tmp_path / "t.jsonl", on_error="skip")
    assert found.fingerprint == expected.fingerprint
    assert found.report == expected.report
    assert [message.split(":")[0].rsplit(" ", 1)[1] for message in found.report.skipped] == ["32", "33"]
    assert found.n_judgments == 30


def test_a_bad_row_is_found_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("left_id,right_id,outcome,weight\n" + "a,b,left,1\n" * 50 + "a,b,won,1\n" + "a,b,left,heavy\n" + "a,b,left,1\n")
    feedback = load(path, on_error="skip")
    assert isinstance(feedback, Feedback)
    assert feedback.n_judgments == 51
    assert ["line 52" in feedback.report.skipped[0], "line 53" in feedback.report.skipped[1]] == [True, True]
