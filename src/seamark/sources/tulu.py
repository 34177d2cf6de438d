"""Tulu 1 human evaluation: which of two completions is better and by how much, and whether each is acceptable.

Read are the published Excel sheet (github.com/allenai/open-instruct) and the same columns as a table. A row gives one pair
(slightly better has strength 1 of 2) and, on the axis "acceptable", a thumbs judgment per completion that has an answer.
Completion a was shown first. A tie may mean that both are bad: the thumbs say so.
Source: Wang et al., NeurIPS 2023 (How Far Can Camels Go?).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from seamark.errors import MissingExtra, UnreadableSource
from seamark.sources.fields import Row, WrongField, flag, has, missing, moment, needed_word, read_rows, text, word
from seamark.sources.files import Format, Options, Record, Source, Table

_OUTCOMES: dict[str, Row] = {
    "a-is-better": {"outcome": "left", "strength": 2, "strength_levels": 2},
    "a-is-slightly-better": {"outcome": "left", "strength": 1, "strength_levels": 2},
    "tie": {"outcome": "tie"},
    "b-is-slightly-better": {"outcome": "right", "strength": 1, "strength_levels": 2},
    "b-is-better": {"outcome": "right", "strength": 2, "strength_levels": 2},
}


def _fits(record: Record) -> bool:
    return has(record, "prompt", "completion_a", "completion_b", "completion_a_is_acceptable", "preference")


def _is_sheet(path: Path) -> bool:
    """Whether an Excel file has our columns; told without the optional reader, so that its absence can be reported."""
    if path.suffix.lower() != ".xlsx" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as parts:
        for name in parts.namelist():
            if name == "xl/sharedStrings.xml" or name.startswith("xl/worksheets/sheet"):
                with parts.open(name) as stream:
                    if b"completion_a_is_acceptable" in stream.read(2**20):
                        return True
    return False


def _matches(source: Source) -> bool:
    return any(any(map(_fits, t.sample)) for t in source.tables.values()) or any(map(_is_sheet, source.files))


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    tables = [t for t in source.tables.values() if any(map(_fits, t.sample))]
    tables += [_sheet(path) for path in source.files if _is_sheet(path)]
    if not tables:
        wanted = "prompt, completion_a, completion_b, completion_a_is_acceptable and preference"
        raise UnreadableSource(str(source.path), "this is not the evaluation of Tulu 1", f"Its columns are {wanted}.")
    yield from read_rows(tables, options, _rows)


def _sheet(path: Path) -> Table:
    if find_spec("fastexcel") is None:
        raise MissingExtra("excel", "Reading an Excel file")
    # two columns of the published sheet are empty, so that their type cannot be told
    frame = pl.read_excel(path, schema_overrides={"instance_quality": pl.String, "comment": pl.String})
    records = frame.to_dicts()
    if not records or not _fits(records[0]):
        raise UnreadableSource(str(path), "the first sheet is not the evaluation", "Put the sheet with the column 'preference' first.")
    return Table(path.stem, path, records[:1], lambda: iter([(records, list(range(2, len(records) + 2)))]))


def _rows(record: Record) -> Sequence[Row]:
    answer = needed_word(record, "preference")
    if answer not in _OUTCOMES:
        raise WrongField("preference", answer, f"Use one of {', '.join(_OUTCOMES)}.")
    asked = {
        "prompt": text(record, "prompt"),
        "prompt_id": word(record, "instance_id"),
        "rater": word(record, "evaluator"),
        "rater_kind": "person",
        "time": moment(record, "timestamp"),
    }
    shown = [_completion(record, side) for side in "ab"]
    models = [word(record, f"model_{side}") for side in "ab"]
    name = word(record, "id")
    pair = {"id": name, "kind": "pair", "texts": shown, "models": models, "order_known": True}
    rows = [asked | pair | _OUTCOMES[answer]]
    for k, side in enumerate("ab"):
        acceptable = flag(record, f"completion_{side}_is_acceptable")
        if acceptable is not None:
            thumb = {"id": name and f"{name}/{side}", "kind": "thumbs", "axis": "acceptable", "thumb": acceptable}
            rows.append(asked | thumb | {"texts": shown[k : k + 1], "models": models[k : k + 1]})
    return rows


def _completion(record: Record, side: str) -> str:
    """A completion may be empty, and is then null in the tables."""
    name = f"completion_{side}"
    if name not in record:
        raise missing(record, name)
    return "" if record[name] is None else text(record, name)


FORMAT = Format("tulu", "Tulu 1 human evaluation: preference with strength, and acceptability (Excel, or its table)", _matches, _read)
