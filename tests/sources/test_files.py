"""Containers, encodings and paths: the same records whatever they come in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import orjson
import polars as pl
import pytest

from seamark.errors import InvalidRecord, InvalidSetting, MissingExtra, UnreadableSource
from seamark.records import Feedback
from seamark.sources import FORMATS, load
from seamark.sources import files as files_module
from seamark.sources.files import Options, open_source

ROWS = [
    {"prompt": "Name a colour.", "chosen": "Blue — naïve?", "rejected": "Seven."},
    {"prompt": "Name a fruit.", "chosen": "Apple", "rejected": 'Car, or "bus"\nor train'},
    {"prompt": "Name a bird.", "chosen": "Owl", "rejected": ""},
]


def lines(rows: list[dict[str, object]], end: bytes = b"\n") -> bytes:
    return b"".join(orjson.dumps(row) + end for row in rows)


@pytest.fixture
def expected(tmp_path: Path) -> str:
    path = tmp_path / "expected.jsonl"
    path.write_bytes(lines(ROWS))
    return load(path).fingerprint


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("a.jsonl", lines(ROWS), None),
        ("a.ndjson", lines(ROWS), None),
        ("a.json", lines(ROWS), None),
        ("A.JSONL", lines(ROWS), None),
        ("bom.jsonl", b"\xef\xbb\xbf" + lines(ROWS), "byte order mark"),
        ("crlf.jsonl", lines(ROWS, b"\r\n"), "Windows line ends"),
        ("blank.jsonl", lines(ROWS, b"\n\n  \n"), None),
        ("unterminated.jsonl", lines(ROWS).rstrip(), None),
        ("array.json", orjson.dumps(ROWS), "JSON array"),
        ("array.jsonl", json.dumps(ROWS, indent=2).encode(), "JSON array"),
        ("array-bom.json", b"\xef\xbb\xbf" + orjson.dumps(ROWS), "JSON array"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS)), None),
        ("a.json.gz", gzip.compress(orjson.dumps(ROWS)), "JSON array"),
    ],
)
def test_json_containers(tmp_path: Path, expected: str, name: str, content: bytes, note: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    feedback = load(path)
    assert feedback.fingerprint == expected
    assert feedback.report.format == "trl"
    if note is None:
        assert feedback.report.notes == ()
    else:
        assert any(note in said for said in feedback.report.notes)


@pytest.mark.parametrize(
    ("name", "separator", "note"),
    [("a.csv", ",", None), ("a.csv", ";", "separated by ';'"), ("a.tsv", "\t", None), ("a.csv.gz", ",", None)],
)
def test_flat_containers(tmp_path: Path, expected: str, name: str, separator: str, note: str | None) -> None:
    path = tmp_path / name
    text = pl.DataFrame(ROWS).write_csv(separator=separator)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else b"\xef\xbb\xbf" + text.encode())
    feedback = load(path)
    assert feedback.fingerprint == expected
    assert note is None or any(note in said for said in feedback.report.notes)


def test_parquet(tmp_path: Path, expected: str) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").fingerprint == expected


def test_a_folder_of_shards(tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text("# A set")
    (folder / ".hidden.jsonl").write_text("not read")
    (folder / "part-0.jsonl").write_bytes(lines(ROWS[:2]))
    (folder / "part-1.jsonl").write_bytes(lines(ROWS[2:]))
    assert load(folder).fingerprint == expected


def test_subfolders_are_read_where_the_folder_has_only_these(tmp_path: Path, expected: str) -> None:
    for name, rows in (("a", ROWS[:1]), ("b", ROWS[1:])):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "train.jsonl").write_bytes(lines(rows))
    source = open_source(tmp_path / "set", Options())
    assert list(source.tables) == ["a/train", "b/train"]
    assert load(tmp_path / "set").fingerprint == expected


def test_tsv_without_quoting_keeps_lone_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('prompt\tchosen\trejected\nsay\t"Hello" he said\t"\nmore\tx\ty\n')
    feedback = load(path)
    assert feedback.responses["text"].to_list() == ['"Hello" he said', '"', "x", "y"]


def test_csv_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('left,right,outcome\na,"b\nc",left\nd,e,left\n')
    (table,) = open_source(path, Options()).tables.values()
    assert [found for _, found in table.batches()] == [[2, 4]]


def test_a_repeated_column_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y,x\n1,2,3\n")
    (table,) = open_source(path, Options()).tables.values()
    assert table.sample == [{"x": "1", "y": "2", "x (2)": "3"}]


def test_frames_of_each_container(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,score\n007,\n008,2\n")
    (tmp_path / "b.jsonl").write_text('{"id": "007"}\n{"id": "008", "score": 2.5}\n')
    pl.DataFrame({"id": ["007", "008"], "score": [None, 2]}).write_parquet(tmp_path / "c.parquet")
    tables = open_source(tmp_path, Options()).tables
    assert tables["a"].frame().to_dicts() == [{"id": "007", "score": None}, {"id": "008", "score": "2"}]
    assert tables["b"].frame()["score"].to_list() == [None, 2.5]
    assert tables["c"].frame()["score"].to_list() == [None, 2]


def test_batches_are_bounded_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "BATCH", 7)
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(20)]))
    (table,) = open_source(path, Options()).tables.values()
    assert [found for _, found in table.batches()] == [list(range(1, 8)), list(range(8, 15)), list(range(15, 21))]
    seen: list[int] = []
    assert load(path, progress=seen.append).n_judgments == 20
    assert seen == [7, 14, 20]


def test_progress_counts_records_not_judgments(tmp_path: Path) -> None:
    record = {"prompt": "p", "response": "r", "helpfulness": 1, "correctness": 2, "coherence": 3, "complexity": 4, "verbosity": 0}
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([record, record | {"response": "s"}]))
    seen: list[int] = []
    assert load(path, progress=seen.append).n_judgments == 10
    assert seen == [2]


def test_our_own_parquet_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(ROWS))
    feedback = load(path)
    feedback.to_parquet(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.fingerprint == feedback.fingerprint
    assert again.report.format == "seamark"


class _Hub:
    """Stands for the huggingface_hub module: its snapshot_download hands back a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, ""

    def snapshot_download(self, repo_id: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        if repo_id != "owner/name":
            raise OSError("404 Client Error")
        assert repo_type == "dataset"
        assert "*.parquet" in allow_patterns
        self.asked = repo_id
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Hub:
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# A set")
    pl.DataFrame(ROWS[:2]).write_parquet(folder / "data" / "train-00000-of-00001.parquet")
    pl.DataFrame(ROWS[2:]).write_parquet(folder / "data" / "test-00000-of-00001.parquet")
    found = _Hub(folder)
    monkeypatch.setattr("importlib.import_module", lambda name: found if name == "huggingface_hub" else pytest.fail(name))
    return found


def test_a_data_set_of_the_hub(hub: _Hub) -> None:
    whole = load("hf://owner/name")
    assert hub.asked == "owner/name"
    assert whole.n_judgments == 3
    assert whole.report.source == "hf://owner/name"
    assert load("hf://owner/name:test").n_judgments == 1
    assert load("hf://owner/name:train").n_judgments == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://owner/none", "cannot be downloaded"),
        ("hf://what", "does not name a data set"),
        ("hf://owner/name:dev", "no file that can be read"),
    ],
)
def test_hub_trouble(hub: _Hub, name: str, message: str) -> None:
    assert hub.folder.is_dir()
    with pytest.raises(UnreadableSource, match=message):
        load(name)


def test_without_the_hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra, match=r"seamark\[hub\]"):
        load("hf://owner/name")


def test_formats_have_distinct_names_and_say_what_they_are() -> None:
    names = [known.name for known in FORMATS]
    assert len(set(names)) == len(names)
    assert all(known.description and "\n" not in known.description for known in FORMATS)


# ---------------------------------------------------------------------------------------------- readable but defective


def test_unknown_fields_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([row | {"score_chosen": 3.0, "margin": 1} for row in ROWS]))
    assert load(path).report.notes == ("fields not used: score_chosen, margin",)


def test_identical_responses_and_repeats_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"prompt": "p", "chosen": "x", "rejected": "x"}] * 2 + [{"prompt": "p", "chosen": "x", "rejected": "y"}]))
    feedback = load(path)
    assert feedback.n_judgments == 3
    assert feedback.judgments["responses"].to_list() == [[0, 0], [0, 0], [0, 1]]


def test_ids_that_look_alike_stay_distinct(tmp_path: Path) -> None:
    # upper and lower case, and the two Unicode forms of é
    raters = ["Ann", "ann", "Ren\u00e9", "Rene\u0301"]
    path = tmp_path / "a.csv"
    path.write_text("left,right,outcome,rater\n" + "".join(f"a,b,left,{r}\n" for r in raters), encoding="utf-8")
    feedback = load(path)
    assert feedback.raters["id"].to_list() == raters
    feedback.to_jsonl(tmp_path / "again.jsonl")
    assert load(tmp_path / "again.jsonl").fingerprint == feedback.fingerprint


def test_responses_without_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("left_id,right_id,outcome\nimg1,img2,left\nimg2,img3,tie\n")
    feedback = load(path)
    assert feedback.responses["text"].null_count() == 3
    assert feedback.responses["name"].to_list() == ["img1", "img2", "img3"]


def test_a_defective_minority_does_not_hide_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"prompt": "p", "chosen": "x"}, *ROWS]))
    with pytest.raises(InvalidRecord, match=r"a\.jsonl, line 1: field 'rejected' is None"):
        load(path)
    assert load(path, on_error="skip").n_judgments == 3


def test_a_format_can_be_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(ROWS))
    assert load(path, format="columns").report.format == "columns"
    with pytest.raises(InvalidSetting, match="Did you mean 'trl'"):
        load(path, format="trll")
    with pytest.raises(InvalidRecord, match="line 1: field 'kind' is"):
        load(path, format="seamark")


def test_jsonl_and_parquet_hold_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(ROWS))
    feedback = load(path)
    feedback.to_parquet(tmp_path / "p")
    Feedback.from_parquet(tmp_path / "p").to_jsonl(tmp_path / "b.jsonl")
    assert load(tmp_path / "b.jsonl").fingerprint == feedback.fingerprint
