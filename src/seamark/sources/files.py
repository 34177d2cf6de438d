"""Files and folders as tables of records: paths, compression, encodings and containers are known here and nowhere else.

Conventions
-----------
A *record* is one decoded JSON object, CSV row or Parquet row. Its *line* is what an editor shows: the line of a JSONL or CSV
file (the line where a row begins), the record number, from 1, of a JSON array or a Parquet table.
CSV cells are text as written; an empty cell is "" in a record and null in a frame.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import polars as pl

from seamark.errors import InvalidRecord, UnreadableSource

BATCH = 20_000
"""Records per batch."""
PIECE = 200_000
"""Records per piece: whole columns cost some milliseconds however short they are."""
BLOCK = 2**22
"""Bytes read at a time."""
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


Reader = Callable[[Options, int], Iterator[Batch]]


@dataclass(frozen=True)
class Piece:
    """Some records of a table, to be read field by field or one by one."""

    lines: Sequence[int]
    column: Callable[[str], Sequence[Any] | pl.Series]
    """A field of all records, None where a record does not have it."""
    records: Callable[[], list[Record]]


PieceReader = Callable[[Options, int], Iterator[Piece]]


@dataclass(frozen=True)
class Table:
    """One stream of records."""

    name: str
    """File name without its suffixes; within a folder, with the subfolder."""
    path: Path
    sample: list[Record]
    """The first records that can be read, at most `SAMPLE`."""
    read: Callable[[], Iterator[Batch]]
    cut: Callable[[], Iterator[Piece]] | None = None

    def batches(self) -> Iterator[Batch]:
        """The records and their lines, about `BATCH` at a time."""
        return self.read()

    def pieces(self) -> Iterator[Piece]:
        """The same, for formats that read whole columns; where records need not be made, many more at a time."""
        return map(_piece, self.batches()) if self.cut is None else self.cut()

    def frame(self) -> pl.DataFrame:
        """The whole table: Parquet with its types, CSV as text, JSON with inferred types."""
        if _suffix(self.path) == ".parquet":
            return _parquet(self.path)
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
    read: Callable[[Source, Options], Iterator[Mapping[str, Sequence[Any] | pl.Series]]]
    """Batches of `columns.COLUMNS` columns, always with `line`."""
    derived: tuple[str, ...] = ()
    """As in `LoadReport`."""


# ---------------------------------------------------------------------------------------------- opening


def open_source(path: Path, options: Options, *, split: str | None = None) -> Source:
    """The tables of a file, or of a folder (hidden files and documentation are passed over).

    With `split`, only the files of a folder that have this word in their name or subfolder.

    Raises
    ------
    UnreadableSource
        If there is nothing to read, or it is not what its name says.
    InvalidRecord
        If not one record of a file can be read.
    """
    try:
        if path.is_dir():
            return _open_folder(path, options, split)
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


def _open_folder(folder: Path, options: Options, split: str | None) -> Source:
    usable = _usable(folder.iterdir())
    if not usable:
        usable = _usable(p for p in folder.rglob("*") if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    if split is not None:
        asked = re.compile(rf"(?:^|[^a-z]){re.escape(split)}(?:[^a-z]|$)")
        usable = [p for p in usable if asked.search(str(p.relative_to(folder)))]
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
    if not path.stat().st_size:
        raise UnreadableSource(str(path), "the file is empty", "Check how it was written.")
    cut: PieceReader | None = None
    if _suffix(path) == ".parquet":
        read: Reader = partial(_parquet_batches, path)
        cut = partial(_parquet_pieces, path)
    else:
        with _unpacked(path) as stream:
            head = stream.read(2**16)
        if not head.removeprefix(_BOM).strip():
            raise UnreadableSource(str(path), "the file is empty", "Check how it was written.")
        _look_at(path, head, notes)
        if _suffix(path) in (".csv", ".tsv"):
            read, cut = _csv_readers(path, head.removeprefix(_BOM), notes)
        else:
            read = _json_reader(path, notes)
    sample = next(read(Options(on_error="skip"), SAMPLE), ([], []))[0]
    if not sample:
        for _ in read(options, BATCH):  # raises at the first bad record, unless these are to be skipped
            pass
        raise UnreadableSource(str(path), "there is no record in it", "Check how it was written.")
    return Table(name, path, sample, partial(read, options, BATCH), None if cut is None else partial(cut, options, PIECE))


def _piece(batch: Batch) -> Piece:
    """Records that are decoded one by one anyway, as a piece."""
    records, lines = batch

    def column(name: str) -> list[Any]:
        return [record.get(name) for record in records]

    return Piece(lines, column, lambda: records)


def _look_at(path: Path, head: bytes, notes: list[str]) -> None:
    """Refuse what is not text; note what is odd about it."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableSource(str(path), "the text is UTF-16", "Save it as UTF-8.")
    if b"\0" in head[:4096]:
        raise UnreadableSource(str(path), "this is not text", "Check that the name ends in what the file is.")
    if head.startswith(_BOM):
        notes.append(f"{path.name} begins with a byte order mark")
    if b"\r\n" in head:
        notes.append(f"{path.name} has Windows line ends")


@contextmanager
def _unpacked(path: Path) -> Generator[IO[bytes]]:
    """The bytes of a file, decompressed; trouble of any kind names the file."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                yield io.BufferedReader(stream)  # pyright: ignore[reportArgumentType]: GzipFile is a readable raw stream
        else:
            with path.open("rb") as stream:
                yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableSource(str(path), f"the compressed file is damaged or cut off ({error})", "Copy or download it again.") from None
    except OSError as error:
        raise UnreadableSource(str(path), f"it cannot be read ({error})", "Check the file and its permissions.") from None


# ---------------------------------------------------------------------------------------------- JSON


def _json_reader(path: Path, notes: list[str]) -> Reader:
    """JSON lines, or one array, or one object over many lines: told by the first lines, not by the name."""
    with _unpacked(path) as stream:
        first_lines = [stream.readline(LONGEST_LINE + 1) for _ in range(5)]
    first_lines[0] = first_lines[0].removeprefix(_BOM)
    told = [line for line in first_lines if line.strip()]
    whole_lines = sum(_is_json(line) for line in told)
    if not told or len(told[0]) > LONGEST_LINE or whole_lines > 1 or (whole_lines == 1 and not told[0].startswith(b"[")):
        return partial(_line_batches, path)
    whole = _whole_json(path)
    notes.append(f"{path.name} is one JSON {'array' if isinstance(whole, list) else 'object'} instead of lines")
    return partial(_array_batches, path, whole if isinstance(whole, list) else [whole])


def _is_json(raw: bytes) -> bool:
    """Whether a line is an object or a list by itself; an indented one is part of something larger."""
    try:
        return raw[:1] in (b"{", b"[") and orjson.loads(raw) is not None
    except orjson.JSONDecodeError:
        return False


def _whole_json(path: Path) -> object:
    with _unpacked(path) as stream:
        raw = stream.read().removeprefix(_BOM)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UnreadableSource(str(path), f"malformed JSON ({error})", _JSON_REMEDY) from None


_JSON_REMEDY = "JSON is UTF-8 text and has no NaN, Infinity or trailing commas; mend it at that place, or write one object per line."


def _array_batches(path: Path, records: list[Any], options: Options, size: int) -> Iterator[Batch]:
    for start in range(0, len(records), size):
        batch = records[start : start + size]
        lines = list(range(start + 1, start + len(batch) + 1))
        if not all(isinstance(record, dict) for record in batch):
            for record, line in zip(batch, lines, strict=True):
                if not isinstance(record, dict):
                    options.fail(InvalidRecord(str(path), line, "record", record, "Every element of the array is an object."))
            kept = [i for i, record in enumerate(batch) if isinstance(record, dict)]
            batch, lines = [batch[i] for i in kept], [lines[i] for i in kept]
        if batch:
            yield batch, lines


def _line_batches(path: Path, options: Options, size: int) -> Iterator[Batch]:
    records: list[Record] = []
    lines: list[int] = []
    line = 1
    with _unpacked(path) as stream:
        for raws in _lines(stream):
            if line == 1:
                raws[0] = raws[0].removeprefix(_BOM)
            try:  # almost always every line is a record
                found = [orjson.loads(raw) for raw in raws]
                whole = set(map(type, found)) == {dict} and max(map(len, raws)) <= LONGEST_LINE
            except orjson.JSONDecodeError:
                found, whole = [], False
            if whole:
                records += found
                lines += range(line, line + len(raws))
            else:
                for at, raw in enumerate(raws, line):
                    record = _decoded(path, at, raw, options)
                    if record is not None:
                        records.append(record)
                        lines.append(at)
            line += len(raws)
            done = 0
            while len(records) - done >= size:
                yield records[done : done + size], lines[done : done + size]
                done += size
            if done:
                records, lines = records[done:], lines[done:]
    if records:
        yield records, lines


def _decoded(path: Path, line: int, raw: bytes, options: Options) -> Record | None:
    """The record in one line; None where there is none, or a bad one that is left out."""
    if len(raw) > LONGEST_LINE:
        remedy = f"A line may have {LONGEST_LINE // 2**20} MB; write one record per line."
        options.fail(InvalidRecord(str(path), line, "record", _shown(raw), remedy))
        return None
    if raw.isspace() or not raw:
        return None
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        options.fail(_malformed(path, line, raw, error))
        return None
    if not isinstance(record, dict):
        options.fail(InvalidRecord(str(path), line, "record", record, "Every line is one JSON object."))
        return None
    return record


def _lines(stream: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines of a file, some at a time, without their ends; of one that is too long, no more than shows that it is."""
    rest = b""
    while block := stream.read(BLOCK):
        block = rest + block
        *lines, rest = block.split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines.append(rest)
            while (more := stream.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                pass
            rest = b""
        if lines:
            yield lines
    if rest:
        yield [rest]


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _malformed(path: Path, line: int, raw: bytes, error: orjson.JSONDecodeError) -> InvalidRecord:
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return InvalidRecord(
            str(path), line, "record", _shown(raw[wrong.start :]), f"Byte {wrong.start + 1} is not UTF-8; {_utf8_remedy(path)}"
        )
    return InvalidRecord(
        str(path), line, "record", _shown(raw[max(0, error.pos - 20) :]), f"This is not JSON ({error.msg}). {_JSON_REMEDY}"
    )


def _utf8_remedy(path: Path) -> str:
    return (
        f"save the file as UTF-8; if it is Latin-1 (older Windows and Excel): iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
    )


def _not_utf8(path: Path) -> int:
    """The first line that is not UTF-8; the decoder itself reads far ahead of the rows."""
    with _unpacked(path) as stream:
        for line, raw in enumerate(stream, 1):
            try:
                raw.decode()
            except UnicodeDecodeError:
                return line
    raise AssertionError("asked of a file that is UTF-8")


def _shown(raw: bytes) -> str:
    return raw[:80].decode(errors="replace").strip()


# ---------------------------------------------------------------------------------------------- CSV


def _csv_readers(path: Path, head: bytes, notes: list[str]) -> tuple[Reader, PieceReader]:
    if _suffix(path) == ".tsv":
        delimiter = "\t"
    else:
        header = head.split(b"\n", 1)[0]
        delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
        if delimiter != ",":
            notes.append(f"{path.name} is separated by {delimiter!r} instead of commas")
    # most TSV has no quoting at all, and then a lone quotation mark must not swallow lines
    quoted = delimiter != "\t" or re.search(rb'(?:^|\t|\n)"(?:[^"]|"")*(?:""|\n|\t)(?:[^"]|"")*"(?:\t|\r?\n|$)', head) is not None
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    read = partial(_csv_batches, path, delimiter, quoting)
    return read, partial(_csv_pieces, path, delimiter, read)


def _csv_pieces(path: Path, delimiter: str, read: Reader, options: Options, size: int) -> Iterator[Piece]:
    """Pieces of a file in which every line is a row of as many cells as the header; any other is read row by row from its beginning."""
    frames: list[pl.DataFrame] = []
    rest = b""
    names: list[str] = []
    with _unpacked(path) as stream:
        while block := stream.read(16 * BLOCK):
            block = rest + block
            end = block.rfind(b"\n") + 1
            block, rest = block[:end], block[end:]
            frame = None
            if not names:
                header, _, block = block.removeprefix(_BOM).partition(b"\n")
                header = header.removesuffix(b"\r")
                if b'"' in header or b"\r" in header or _text(header) is None:
                    break
                names = _header(header.decode().split(delimiter))
            if block and (frame := _plain_rows(block, delimiter, len(names))) is None:
                break
            if frame is not None:
                frames.append(frame)
        else:
            if rest and names and (frame := _plain_rows(rest + b"\n", delimiter, len(names))) is not None:
                frames.append(frame)
                rest = b""
            if not rest:
                yield from _frame_pieces(frames, names, size)
                return
    frames.clear()
    yield from map(_piece, read(options, BATCH))


def _plain_rows(block: bytes, delimiter: str, n_columns: int) -> pl.DataFrame | None:
    """Whole lines without quotation marks as columns of text, or None where some line is not a plain row."""
    n = block.count(b"\n")
    returns = block.count(b"\r")
    if b'"' in block or b"\0" in block or b"\n\n" in block or block.startswith((b"\n", b"\r\n")):
        return None
    if returns:
        if returns != block.count(b"\r\n") or b"\n\r" in block:
            return None
        block = block.replace(b"\r\n", b"\n")
    if n_columns < 2 or block.count(delimiter.encode()) != n * (n_columns - 1):
        return None
    try:  # no row has more cells than the header here, and so, by their number, none has fewer
        frame = pl.read_csv(
            block,
            has_header=False,
            separator=delimiter,
            quote_char=None,
            schema={f"column_{i}": pl.String for i in range(n_columns)},
            truncate_ragged_lines=False,
        )
    except pl.exceptions.PolarsError:
        return None
    return frame.with_columns(pl.all().fill_null("")) if frame.height == n else None


def _frame_pieces(frames: Sequence[pl.DataFrame], names: Sequence[str], size: int) -> Iterator[Piece]:
    line = 2
    for frame in frames:
        for part in frame.rename(dict(zip(frame.columns, names, strict=False))).iter_slices(size):
            yield _frame_piece(part, range(line, line + part.height))
            line += part.height


def _frame_piece(frame: pl.DataFrame, lines: Sequence[int]) -> Piece:
    def column(name: str) -> pl.Series:
        return frame[name] if name in frame.columns else pl.Series([None]).new_from_index(0, frame.height)

    return Piece(lines, column, frame.to_dicts)


def _csv_batches(path: Path, delimiter: str, quoting: Literal[0, 3], options: Options, size: int) -> Iterator[Batch]:
    # process-wide in the csv module; its default of 128 KiB is less than a long dialogue
    csv.field_size_limit(LONGEST_LINE)
    records: list[Record] = []
    lines: list[int] = []
    with _unpacked(path) as stream:
        rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=delimiter, quoting=quoting)
        try:
            names = _header(next(rows))
            line = rows.line_num + 1
            for cells in rows:
                if len(cells) == len(names):
                    records.append(dict(zip(names, cells, strict=True)))
                    lines.append(line)
                elif cells:
                    remedy = (
                        f"The header has {len(names)} columns and this row {len(cells)}; quote cells that hold {delimiter!r} or a line end."
                    )
                    options.fail(InvalidRecord(str(path), line, "record", delimiter.join(cells), remedy))
                line = rows.line_num + 1
                if len(records) == size:
                    yield records, lines
                    records, lines = [], []
        except csv.Error as error:
            raise UnreadableSource(
                str(path), f"malformed CSV near line {rows.line_num} ({error})", "Check the quotation marks there."
            ) from None
        except UnicodeDecodeError as error:
            shown, place = error.object[error.start : error.start + 1].hex(), _not_utf8(path)
            raise UnreadableSource(
                str(path), f"line {place} is not UTF-8 (byte 0x{shown})", f"To make it so, {_utf8_remedy(path)}"
            ) from None
        except StopIteration:
            return
    if records:
        yield records, lines


def _header(cells: Sequence[str]) -> list[str]:
    """Column names; a comment in the last cell is none (Google's MQM files have one), and names that come again get a number."""
    names = [cell.strip() for cell in (cells[:-1] if cells[-1:] and cells[-1].startswith("# ") else cells)]
    return [name if names.index(name) == i else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]


# ---------------------------------------------------------------------------------------------- Parquet


def _parquet_batches(path: Path, options: Options, size: int) -> Iterator[Batch]:  # noqa: ARG001 - a Reader; no row is bad by itself
    start = 1
    for part in _parquet(path, SAMPLE if size == SAMPLE else None).iter_slices(size):
        yield part.to_dicts(), list(range(start, start + part.height))
        start += part.height


def _parquet_pieces(path: Path, options: Options, size: int) -> Iterator[Piece]:  # noqa: ARG001 - as above
    start = 1
    for part in _parquet(path).iter_slices(size):
        yield _frame_piece(part, range(start, start + part.height))
        start += part.height


def _parquet(path: Path, n_rows: int | None = None) -> pl.DataFrame:
    with _unpacked(path):
        try:
            return pl.read_parquet(path, n_rows=n_rows, glob=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
            raise UnreadableSource(str(path), f"this is not a Parquet file ({error})", "Check how it was written.") from None


# ---------------------------------------------------------------------------------------------- names


def _suffix(path: Path) -> str:
    """The suffix that tells the container, without .gz."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if Path(name).suffix == ".gz" else Path(name).suffix


def _stem(path: Path) -> str:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def _look_alike(path: Path) -> str:
    """A remedy that names the file probably meant."""
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Check the path."


def _known_suffixes() -> str:
    return f"Give a file or folder with {', '.join(TABLE_SUFFIXES)} (JSON and CSV also as .gz); unpack .zst, .zip and .tar first."
