"""What cannot be read: every class of it has a message with the file, the place, the value and what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import polars as pl
import pytest

from seamark.errors import InvalidRecord, InvalidSetting, SeamarkError, UnreadableSource
from seamark.sources import files as files_module
from seamark.sources import load

GOOD = orjson.dumps({"prompt": "p", "chosen": "yes", "rejected": "no"}) + b"\n"


def refused(path: Path, **settings: object) -> str:
    with pytest.raises(SeamarkError) as caught:
        load(path, **settings)  # pyright: ignore[reportArgumentType]
    message = str(caught.value)
    assert path.name in message
    return message


@pytest.mark.parametrize(
    ("name", "content", "problem", "remedy"),
    [
        ("empty.jsonl", b"", "the file is empty", "Check how it was written"),
        ("blank.jsonl", b"\n \n", "the file is empty", "Check how it was written"),
        ("empty.csv", b"", "the file is empty", "Check how it was written"),
        ("header.csv", b"left,right,outcome\n", "there is no record in it", "Check how it was written"),
        ("empty.json", b"[]", "there is no record in it", "Check how it was written"),
        ("a.txt", b"hello", "does not say what kind of file", ".jsonl"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "does not say what kind of file", "unpack .zst"),
        ("cut.jsonl.gz", gzip.compress(GOOD * 5000, 0)[:-400], "damaged or cut off", "Copy or download it again"),
        ("not.jsonl.gz", GOOD, "damaged or cut off", "Copy or download it again"),
        ("utf16.jsonl", GOOD.decode().encode("utf-16"), "UTF-16", "Save it as UTF-8"),
        ("binary.jsonl", b"{\0\0\0", "not text", "Check that the name"),
        (
            "latin1.csv",
            "left,right,outcome\ncaf\xe9,b,left\n".encode("latin-1"),
            "line 2 is not UTF-8 (byte 0xe9)",
            "iconv -f WINDOWS-1252 -t UTF-8 latin1.csv",
        ),
        ("text.parquet", b"PAR1 nothing", "not a Parquet file", "Check how it was written"),
        ("array.json", b'[{"prompt": "p", "chosen": NaN}]', "malformed JSON", "NaN"),
        ("array.json", b'[{"prompt": "p"},\n {"chosen"', "malformed JSON", "mend it at that place"),
    ],
)
def test_unreadable(tmp_path: Path, name: str, content: bytes, problem: str, remedy: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for on_error in ("stop", "skip"):
        with pytest.raises(UnreadableSource) as caught:
            load(path, on_error=on_error)
        assert str(path) in str(caught.value)
        assert problem in caught.value.problem
        assert remedy in caught.value.remedy


def test_a_missing_file_names_the_one_that_looks_alike(tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_bytes(GOOD)
    assert "there is no such file" in refused(tmp_path / "vots.jsonl")
    assert "Did you mean" in refused(tmp_path / "vots.jsonl")
    assert "Check the path" in refused(tmp_path / "elsewhere" / "zzz.csv")
    with pytest.raises(UnreadableSource, match="not a usable path"):
        load(tmp_path / ("x" * 5000 + ".jsonl"))


def test_a_folder_with_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text("# nothing")
    assert "no file that can be read" in refused(tmp_path / "set")


@pytest.mark.parametrize(
    ("bad", "field", "said"),
    [
        (b'{"prompt": "p", "chosen": "a"', "record", "This is not JSON"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN}', "record", "NaN"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": Infinity}', "record", "NaN"),
        (b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}', "record", "not UTF-8; save the file as UTF-8"),
        (b'["p", "a", "b"]', "record", "Every line is one JSON object"),
        (b"12", "record", "Every line is one JSON object"),
        (b'{"prompt": "p", "chosen": "a", "rejectd": "b"}', "rejected", "there is 'rejectd'"),
        (b'{"prompt": "p", "chosen": 7, "rejected": "b"}', "chosen", "Give a text"),
        (b'{"prompt": {}, "chosen": "a", "rejected": "b"}', "prompt", "Give a text"),
        (b'{"prompt": "p", "chosen": [{"role": 1}], "rejected": [{"role": 1}]}', "chosen", "a role and a content"),
        (b'{"prompt": "p", "chosen": [{"role": "user", "content": "x"}], "rejected": []}', "rejected", "at least 1"),
        (b'{"prompt": "p", "completion": "x", "label": "maybe"}', "label", "true or false"),
        (b'{"prompt": "p", "completion": "x", "label": null}', "label", "needed"),
    ],
)
def test_a_bad_line_is_named_and_can_be_skipped(tmp_path: Path, bad: bytes, field: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + bad + b"\n" + GOOD)
    with pytest.raises(InvalidRecord) as caught:
        load(path)
    assert (caught.value.line, caught.value.field) == (2, field)
    said_first = "" if field == "record" else f"field '{field}' is "
    assert str(caught.value).startswith(f"{path}, line 2: {said_first}")
    assert "field 'record'" not in str(caught.value)
    assert said in str(caught.value)
    feedback = load(path, on_error="skip")
    assert feedback.n_judgments == 2
    assert len(feedback.report.skipped) == 1
    assert "line 2" in feedback.report.skipped[0]


def test_a_line_too_long_is_refused_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "LONGEST_LINE", 2**20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b'{"prompt": "' + b"x" * 5 * 2**20 + b'"}\n' + GOOD)
    message = refused(path)
    assert "line 2" in message
    assert "A line may have 1 MB" in message
    assert len(message) < 400
    feedback = load(path, on_error="skip")
    assert feedback.n_judgments == 2
    assert feedback.judgments.height == 2


def test_a_line_of_50_mb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b'{"prompt": "' + b"x" * 50_000_000 + b'"}\n')
    assert "A line may have 32 MB" in refused(path)


def test_a_bad_first_line_is_no_different(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "p",\n' + GOOD * 2)
    assert "line 1" in refused(path)
    assert load(path, on_error="skip").n_judgments == 2


def test_nothing_usable_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{\n" * 3)
    assert "malformed JSON" in refused(path)
    path.write_bytes(b'{"prompt": "p", "chosen": 1, "rejected": "x"}\n' * 3)
    with pytest.raises(UnreadableSource, match=r"none of its 3 records is usable.*line 1"):
        load(path, on_error="skip")


def test_an_unknown_layout_lists_fields_formats_and_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(orjson.dumps({"promt": "p", "choosen": "a", "rejectedd": "b"}))
    message = refused(path)
    for part in (
        "promt, choosen, rejectedd",
        "'promt' instead of 'prompt'",
        "'choosen' instead of 'chosen'",
        "--format",
        "Say which column is what: --columns left=",
        "docs/formats.md",
    ):
        assert part in message
    assert "hh-rlhf" not in message
    assert "none" in refused_format(tmp_path)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("question,answer_a,answer_b,vote", "prompt=question,left=answer_a,right=answer_b,outcome=vote"),
        ("id,Response 1,Response 2,Preference,worker_id", "'left=Response 1,right=Response 2,outcome=Preference,rater=worker_id'"),
        ("first_text,second_text,better", "left=first_text,right=second_text,outcome=better"),
        ("alpha,beta", "left=COLUMN_OF_ONE,right=COLUMN_OF_OTHER,outcome=COLUMN_OF_THE_ANSWER"),
    ],
)
def test_an_unknown_layout_comes_with_columns_to_copy(tmp_path: Path, header: str, columns: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(header + "\n" + ",".join("x" for _ in header.split(",")) + "\n")
    assert f"--columns {columns}. " in refused(path)


def refused_format(folder: Path) -> str:
    (folder / "b.xml").write_text("<a/>")
    return refused(folder / "b.xml")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"left": "answr_a", "right": "answer_b", "outcome": "vote"}, "There is no column 'answr_a'. Did you mean 'answer_a'?"),
        ({"lefft": "answer_a", "right": "answer_b", "outcome": "vote"}, "Did you mean 'left'?"),
        ({"left": "answer_a", "right": "answer_b"}, "does not make a judgment"),
    ],
)
def test_a_mapping_that_does_not_fit(tmp_path: Path, columns: dict[str, str], said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("answer_a,answer_b,vote\nx,y,A\n")
    with pytest.raises(InvalidSetting) as caught:
        load(path, columns=columns)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("header", "row", "line", "field"),
    [
        ("left,right,outcome", "a,b,sideways", 3, "outcome"),
        ("left,right,outcome", "a,b,", 3, "outcome"),
        ("left,right,outcome", "a,b", 3, "record"),
        ("left,right,outcome", "a,b,left,extra", 3, "record"),
    ],
)
def test_a_bad_row_of_a_pair_table(tmp_path: Path, header: str, row: str, line: int, field: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\na,b,left\n{row}\n")
    with pytest.raises(InvalidRecord) as caught:
        load(path)
    assert (caught.value.line, caught.value.field) == (line, field)
    assert load(path, on_error="skip").n_judgments == 1


@pytest.mark.parametrize("rating", ["nan", "inf", "-Infinity", "1e999", "high"])
def test_a_rating_that_is_no_finite_number(tmp_path: Path, rating: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"response,rating\nx,1\ny,{rating}\n")
    message = refused(path)
    assert "line 3" in message
    assert f"field 'rating' is '{rating}'" in message
    assert "finite number" in message
    assert load(path, on_error="skip").n_judgments == 1


def test_a_rating_that_is_no_number_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"response": ["x", "y"], "rating": [1.0, float("nan")]}).write_parquet(path)
    assert "line 2: field 'rating' is nan" in refused(path)


def test_what_the_records_check_refuses_has_the_line_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("response,rating,scale_low,scale_high\nx,1,1,5\ny,9,1,5\n")
    message = refused(path)
    assert "line 3: field 'rating' is 9.0" in message
    assert "outside its scale" in message
    feedback = load(path, on_error="skip")
    assert (feedback.n_judgments, len(feedback.report.skipped)) == (1, 1)


def test_the_setting_of_on_error_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    with pytest.raises(InvalidSetting, match="Use 'stop' or 'skip'"):
        load(tmp_path / "a.jsonl", on_error="ignore")  # pyright: ignore[reportArgumentType]


def test_a_damaged_folder_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    load(tmp_path / "a.jsonl").to_parquet(tmp_path / "saved")
    (tmp_path / "saved" / "responses.parquet").unlink()
    assert "not a Seamark data folder" in refused(tmp_path / "saved")
