"""Outputs are there whole or not at all, and nothing that is not ours is replaced."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import polars as pl
import pytest

from seamark.aggregation import Charter
from seamark.errors import InvalidSetting, UnwritableOutput
from seamark.models import Tabular, fit
from seamark.outputs import require_file_place, require_folder_place, whole_file, whole_folder
from seamark.records import Feedback
from seamark.reward.signal import export_signal
from seamark.simulation import simulate


class Halfway(Exception):
    """What goes wrong in the middle of writing."""


def fail_within(*contexts: AbstractContextManager[Path], error: Exception) -> None:
    """Write something, then fail."""
    with ExitStack() as stack:
        for context in contexts:
            fresh = stack.enter_context(context)
        (fresh / "mark.json" if fresh.is_dir() else fresh).write_text("half", encoding="utf-8")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with whole_file(path) as fresh:
        fresh.write_text("one", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "one"
    with whole_file(path) as fresh:
        fresh.write_text("two", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "one"
    assert path.read_text(encoding="utf-8") == "two"
    assert names(path.parent) == ["a.txt"]


def test_a_file_that_fails_halfway_leaves_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    for name in ("a.txt", "b.txt"):
        with pytest.raises(Halfway):
            fail_within(whole_file(tmp_path / name), error=Halfway())
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "one"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "kept" / "a.txt")
    with whole_file(tmp_path / "link") as fresh:
        fresh.write_text("two", encoding="utf-8")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept" / "a.txt").read_text(encoding="utf-8") == "two"


def test_a_device_is_written_to_and_not_replaced() -> None:
    with whole_file(os.devnull) as fresh:
        fresh.write_text("gone", encoding="utf-8")
    assert not Path(os.devnull).is_file()


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with whole_folder(tmp_path / "out", mark="mark.json") as fresh:
            (fresh / "mark.json").write_text(text, encoding="utf-8")
            (fresh / text).touch()
        assert names(tmp_path / "out") == ["mark.json", text]
    with pytest.raises(Halfway):
        fail_within(whole_folder(tmp_path / "out", mark="mark.json"), error=Halfway())
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "mark.json").read_text(encoding="utf-8") == "two"


def test_the_working_folder_can_be_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with whole_folder(".", mark="mark.json") as fresh:
        (fresh / "mark.json").touch()
    assert names(tmp_path / "empty") == ["mark.json"]


@pytest.mark.parametrize("what", ["a folder of something else", "a file"])
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "a file":
        out.write_text("mine", encoding="utf-8")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine", encoding="utf-8")
    feedback = simulate(n_prompts=5, n_judgments=50, n_raters=5).feedback
    with pytest.raises(InvalidSetting, match="give a new folder"):
        feedback.to_parquet(out)
    assert (out if what == "a file" else out / "thesis.tex").read_text(encoding="utf-8") == "mine"
    assert names(tmp_path) == ["out"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Inside a file: not even the superuser may."""
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "x" / "a.txt"
    for ask in (require_file_place, lambda path: require_folder_place(path, mark="m")):
        with pytest.raises(UnwritableOutput) as caught:
            ask(inside)
        assert str(caught.value).startswith(f"{inside}: cannot be written (Not a directory). Give a path")
    with pytest.raises(UnwritableOutput, match="it is a folder"), whole_file(tmp_path):
        pass
    assert names(tmp_path) == ["file"]


def test_a_full_disk_names_what_was_asked_for(tmp_path: Path) -> None:
    """Also where it is a file within a folder that runs out of room: its temporary name is nobody's business."""
    (tmp_path / "there").mkdir()
    full = OSError(28, "No space left on device", "temporary name")
    for contexts in (
        [whole_folder(tmp_path / "out", mark="m")],
        [whole_folder(tmp_path / "out", mark="m"), whole_file(tmp_path / "there" / "a")],
    ):
        with pytest.raises(UnwritableOutput, match=r"out: cannot be written \(No space left on device\)"):
            fail_within(*contexts, error=full)
    assert names(tmp_path) == ["there"]
    assert names(tmp_path / "there") == []


def test_asking_leaves_nothing(tmp_path: Path) -> None:
    require_file_place(tmp_path / "new" / "a")
    require_folder_place(tmp_path / "new" / "b", mark="m")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a"])
def test_feedback_is_written_whole(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second writing that fails halfway leaves the first, which still reads."""
    feedback = simulate(n_prompts=5, n_judgments=50, n_raters=5).feedback
    write = Feedback.to_jsonl if name == "a.jsonl" else Feedback.to_parquet
    write(feedback, tmp_path / name)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*_args: object, **_settings: object) -> None:
        raise Halfway

    monkeypatch.setattr("seamark.records._known", fail)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(Halfway):
        write(simulate(n_prompts=5, n_judgments=60, n_raters=5).feedback, tmp_path / name)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_signal_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = simulate(n_prompts=5, n_judgments=100, n_raters=5).feedback
    fitted = fit(feedback, utility=Tabular())
    export_signal(fitted, feedback, tmp_path / "train.jsonl")
    before = (tmp_path / "train.jsonl").read_bytes()
    rows = iter(range(3))

    def fail(*_args: object, **_settings: object) -> str:
        if next(rows) == 2:
            raise Halfway
        return "{}"

    monkeypatch.setattr("seamark.reward.signal.json.dumps", fail)
    with pytest.raises(Halfway):
        export_signal(fitted, feedback, tmp_path / "train.jsonl", charter=Charter())
    assert names(tmp_path) == ["train.jsonl"]
    assert (tmp_path / "train.jsonl").read_bytes() == before
