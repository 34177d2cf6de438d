"""Files and folders as tables of records: paths, compression, encodings and containers are known here and nowhere else.

Conventions
-----------
A *record* is one decoded JSON object, CSV row or Parquet row. Its *line* is what an editor shows: the line of a JSONL or CSV
file (the line where a row begins), the record number, from 1, of a JSON array or a Parquet table.
CSV cells are text as written; an empty cell is "" in a record and null in a frame.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import polars as pl

from seamark.errors import InvalidRecord, UnreadableSource

BATCH = 20_000
"""Records per batch."""
SAMPLE = 20
"""Records looked at to tell the format."""
LONGEST_LINE = 32 * 2**20
"""Bytes: a longer line is a broken file more often than a record, and would be held in memory several times over."""

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", ".parquet")
RAW_SUFFIXES = (".xml", ".xlsx")

_BOM = b"\xef\xbb\xbf"

Record = dict[str, Any]
Batch = tuple[list[Record], list[int]]


@dataclass(frozen=True)
class Options:
    """What the caller of `load` asked for, and where what goes wrong is put."""

    columns: Mapping[str, str] | None = None
    """Our field names to those of the file."""
    on_error: Literal["stop", "skip"] = "stop"
    skipped: list[str] = field(default_factory=list[str])
    """One message per record left out."""

    def fail(self, error: InvalidRecord) -> None:
        """Raise the error, or note it and let the reader go on with the next record.

        Raises
        ------
        InvalidRecord
            Unless `on_error` is skip.
        """
        if self.on_error == "stop":
            raise error
        self.skipped.append(str(error))


@dataclass(frozen=True)
class Table:
    """One stream of records."""

    name: str
    """File name without its suffixes; within a folder, with the subfolder."""
    path: Path
    sample: list[Record]
    """The first records that can be read, at most `SAMPLE`."""
    read: Callable[[], Iterator[Batch]]

    def batches(self) -> Iterator[Batch]:
        """The records and their lines, about `BATCH` at a time."""
        return self.read()

    def frame(self) -> pl.DataFrame:
        """The whole table: Parquet with its types, CSV as text, JSON with inferred types."""
        if self.path.suffix == ".parquet":
            with _unpacked(self.path):
                return pl.read_parquet(self.path)
        records = [record for records, _ in self.batches() for record in records]
        if _suffix(self.path) in (".csv", ".tsv"):
            names = list(records[0]) if records else []
            return pl.DataFrame({name: [r[name] or None for r in records] for name in names}, schema=dict.fromkeys(names, pl.String))
        return pl.from_dicts(records, infer_schema_length=None, strict=False)


@dataclass(frozen=True)
class Source:
    """A file or folder, opened."""

    path: Path
    tables: dict[str, Table]
    """By name: one for a file, several for a folder."""
    files: tuple[Path, ...] = ()
    """Files that are not tables (XML, Excel), for the formats that know them."""
    notes: list[str] = field(default_factory=list[str])
    """What was readable but odd; formats add to it."""


@dataclass(frozen=True)
class Format:
    """A layout of feedback that can be told apart and read."""

    name: str
    """The word given to --format."""
    description: str
    """One line."""
    matches: Callable[[Source], bool]
    read: Callable[[Source, Options], Iterator[Mapping[str, Sequence[Any]]]]
    """Batches of `records.COLUMNS` columns, always with `line`."""


# ---------------------------------------------------------------------------------------------- opening


def open_source(path: Path, options: Options) -> Source:
    """The tables of a file, or of a folder (hidden files and documentation are passed over).

    Raises
    ------
    UnreadableSource
        If there is nothing to read, or it is not what its name says.
    InvalidRecord
        If not one record of a file can be read.
    """
    try:
        if path.is_dir():
            return _open_folder(path, options)
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a null character
        raise UnreadableSource(str(path), f"not a usable path ({error})", "Check the name.") from None
    if not exists:
        raise UnreadableSource(str(path), "there is no such file or folder", _look_alike(path))
    if path.suffix.lower() in RAW_SUFFIXES:
        return Source(path, {}, (path,))
    if _suffix(path) not in TABLE_SUFFIXES:
        raise UnreadableSource(str(path), "its name does not say what kind of file it is", _known_suffixes())
    notes: list[str] = []
    return Source(path, {_stem(path): _open_table(path, _stem(path), options, notes)}, (), notes)


def _open_folder(folder: Path, options: Options) -> Source:
    usable = _usable(folder.iterdir())
    if not usable:
        usable = _usable(p for p in folder.rglob("*") if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    tables: dict[str, Table] = {}
    notes: list[str] = []
    for path in (p for p in usable if _suffix(p) in TABLE_SUFFIXES):
        name = str(path.relative_to(folder).parent / _stem(path))
        name = str(path.relative_to(folder)) if name in tables else name
        if path.stat().st_size:
            tables[name] = _open_table(path, name, options, notes)
        else:
            notes.append(f"{path.name} is empty and was passed over")
    files = tuple(p for p in usable if _suffix(p) not in TABLE_SUFFIXES)
    if not tables and not files:
        raise UnreadableSource(str(folder), "the folder has no file that can be read", _known_suffixes())
    return Source(folder, tables, files, notes)


def _usable(paths: Iterable[Path]) -> list[Path]:
    suffixes = (*TABLE_SUFFIXES, *RAW_SUFFIXES)
    return sorted(p for p in paths if p.is_file() and not p.name.startswith(".") and _suffix(p) in suffixes)


def _open_table(path: Path, name: str, options: Options, notes: list[str]) -> Table:
    suffix = _suffix(path)
    if suffix == ".parquet":
        with _unpacked(path):
            sample = pl.scan_parquet(path, glob=False).head(SAMPLE).collect().to_dicts()
        if not sample:
            raise UnreadableSource(str(path), "the table has no rows", "Check how it was written.")
        return Table(name, path, sample, lambda: _parquet_batches(path))
    with _unpacked(path) as stream:
        head = stream.peek(4096)[:4096] if isinstance(stream, io.BufferedReader) else b""
    _check_encoding(path, head, notes)
    if suffix in (".csv", ".tsv"):
        read = _csv_reader(path, options, head.removeprefix(_BOM), notes)
    else:
        read = _json_reader(path, options, head.removeprefix(_BOM), notes)
    return Table(name, path, _sample(path, read, options), read)


def _sample(path: Path, read: Callable[[], Iterator[Batch]], options: Options) -> list[Record]:
    """The first good records; bad ones are left for the reading proper to report."""
    before = len(options.skipped)
    lenient = Options(on_error="skip")
    records = next(_limited(path, read, lenient), ([], []))[0] if False else []
    del options.skipped[before:]
    return records
