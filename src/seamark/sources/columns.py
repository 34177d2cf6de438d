"""Plain tables: one judgment a row, with our own names for the columns or a mapping from our names to the table's.

Which columns there are says what a row is: `left` and `right` with `outcome` (or `winner`: also the text, id or model that
won) are a pair, and so are `chosen` and `rejected`; `response` with `rating`, `thumb` or `label` is one judgment for each.
Numbers under other names that begin with a side are covariates of what was shown there: `left_length` and `right_length`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from seamark.columns import COLUMNS, COVARIATE, covariate_of, covariates_from
from seamark.encoding import fold, interleave
from seamark.errors import InvalidSetting
from seamark.sources.fields import (
    Columns,
    Row,
    WrongField,
    flag,
    integer,
    message_prompt,
    messages,
    missing,
    moment,
    number,
    outcome,
    read_rows,
    text,
    word,
)
from seamark.sources.files import Format, Options, Piece, Record, Source

_GETTERS: dict[Any, Callable[[Record, str], Any]] = {
    pl.String: word,
    pl.Int64: integer,
    pl.Float64: number,
    pl.Boolean: flag,
    COLUMNS["time"]: moment,
}
_NOT_SCALAR = ("line", "kind", "prompt", "prompt_is_messages", "rater_profile", "outcome", "best", "worst", "rating", "thumb", "label")
_SCALARS = {name: _GETTERS[kind] for name, kind in COLUMNS.items() if kind in _GETTERS and name not in _NOT_SCALAR}
_TEXTS = ("rationale", "assistance")
_PARTS = ("", "_id", "_model")
_SIDES = tuple(side + part for side in ("left", "right", "chosen", "rejected", "response") for part in _PARTS)
_ANSWERS = ("outcome", "winner", "rating", "thumb", "label")
NAMES = ("prompt", *_SIDES, *_ANSWERS, *_SCALARS)
"""Our names for the columns of a plain table."""


def _matches(source: Source) -> bool:
    return any(_is_judgment(set(table.sample[0])) for table in source.tables.values())


def _is_judgment(names: set[str]) -> bool:
    def shown(side: str) -> bool:
        return bool({side, f"{side}_id"} & names)

    pair = shown("left") and shown("right") and bool({"outcome", "winner"} & names)
    single = shown("response") and bool({"rating", "thumb", "label"} & names)
    return pair or single or (shown("chosen") and shown("rejected"))


def _read(source: Source, options: Options) -> Iterator[Columns]:
    for table in source.tables.values():
        found = list(dict.fromkeys(name for record in table.sample for name in record))
        names = _mapping(options.columns, found)
        if not _is_judgment(set(names)):
            raise InvalidSetting(
                "columns",
                ", ".join(f"{ours}={theirs}" for ours, theirs in names.items()),
                "This does not make a judgment: name left, right and outcome; or chosen and rejected; or response and one of rating, "
                f"thumb and label. The columns of {table.path.name} are {', '.join(found[:30])}.",
            )
        alone = _add_covariates(names, table.sample, found)
        if unused := [name for name in found if name not in names.values()]:
            source.notes.append(f"{table.path.name}: columns not used: {', '.join(unused)}")
        source.notes.extend(f"{table.path.name}: {note}" for note in alone)
        yield from read_rows([table], options, partial(_rows, names), partial(_whole, names))


def _add_covariates(names: dict[str, str], sample: Sequence[Record], found: Sequence[str]) -> list[str]:
    """Adds to the names the columns named after a side that hold numbers and are there for each side shown; a note on each that is not.

    Mostly numbers: a cell that is none is then an error that names its line, and not the end of the column.

    Raises
    ------
    InvalidSetting
        If a covariate was given a side that is not shown, or the second side alone.
    """

    def numeric(name: str) -> bool:
        given = [record for record in sample if record.get(name) not in (None, "")]
        return sum(_is_number(record, name) for record in given) > 0.5 * len(given)

    sides = next(s for s in (("chosen", "rejected"), ("left", "right"), ("response",)) if {s[0], f"{s[0]}_id"} & set(names))
    for ours in filter(covariate_of, [name for name in names if name not in NAMES]):
        first = f"{sides[0]}_{covariate_of(ours)}"
        if ours.partition("_")[0] not in sides:
            raise InvalidSetting("columns", f"{ours}={names[ours]}", f"These judgments show {' and '.join(sides)}: name it {first}.")
        if first not in names:
            remedy = f"Give {first} too; it alone is a difference, that of the first side less the other."
            raise InvalidSetting("columns", f"{ours}={names[ours]}", remedy)
    taken = {*names, *names.values()}
    held = [n for n in found if n not in taken and n not in NAMES and n.partition("_")[0] in sides and covariate_of(n) and numeric(n)]
    notes: list[str] = []
    for name in held:
        each = [f"{side}_{covariate_of(name)}" for side in sides]
        if set(each) <= {*held, *names}:
            names[name] = name
        else:
            other = next(side for side in each if side != name)
            notes.append(
                f"{name} is not used: as a covariate it needs {other} too, a column of numbers; if it is the difference, the first less the "
                f"other, say --columns {each[0]}={name}"
            )
    return notes


def _is_number(record: Record, name: str) -> bool:
    try:
        return number(record, name) is not None
    except WrongField:
        return False


def _mapping(given: Mapping[str, str] | None, found: Sequence[str]) -> dict[str, str]:
    """Our names to the table's: those given, then those that are the same."""
    given = given or {}
    for ours, theirs in given.items():
        if ours not in NAMES and covariate_of(ours) is None:
            raise InvalidSetting("columns", f"{ours}={theirs}", f"{_nearest(ours, NAMES)}The names on the left are {', '.join(NAMES)}.")
        if theirs not in found:
            raise InvalidSetting(
                "columns",
                f"{ours}={theirs}",
                f"There is no column {theirs!r}. {_nearest(theirs, found)}The columns are {', '.join(found[:30])}.",
            )
    taken = set(given.values())
    return dict(given) | {name: name for name in NAMES if name in found and name not in given and name not in taken}


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}? " if near else ""


def _rows(names: Mapping[str, str], record: Record) -> list[Row]:
    # errors then name the table's own column
    ours = {name: record.get(theirs) for name, theirs in names.items()}
    try:
        return _judgments(ours)
    except WrongField as wrong:
        raise WrongField(names.get(wrong.name, wrong.name), wrong.value, wrong.remedy) from None


def _judgments(record: Record) -> list[Row]:
    row: Row = {name: get(record, name) for name, get in _SCALARS.items() if name in record}
    for low, high in (("scale_low", "scale_high"), ("span_start", "span_end")):
        if (row.get(low) is None) != (row.get(high) is None):
            raise missing(record, low if row.get(low) is None else high)
    if isinstance(record.get("prompt"), list):
        row |= message_prompt(messages(record, "prompt"))
    elif "prompt" in record:
        row["prompt"] = text(record, "prompt") if record["prompt"] is not None else None
    if "chosen" in record or "chosen_id" in record:
        return [row | _shown(record, "chosen", "rejected") | {"kind": "pair", "outcome": "left", "order_known": False}]
    if "left" in record or "left_id" in record:
        return [row | _shown(record, "left", "right") | {"kind": "pair", "outcome": _winner(record)}]
    row |= _shown(record, "response")
    rows = [row | {"kind": kind, name: get(record, name)} for kind, name, get in _SINGLE if record.get(name) not in (None, "")]
    if not rows:
        if outcome_given := word(record, "outcome"):
            kind = next(kind for kind, name, _ in _SINGLE if name in record)
            return [row | {"kind": kind, "outcome": outcome_given}]
        raise missing(record, next(name for _, name, _ in _SINGLE if name in record))
    return rows


_SINGLE: tuple[tuple[str, str, Callable[[Record, str], Any]], ...] = (
    ("rating", "rating", number),
    ("thumbs", "thumb", flag),
    ("label", "label", word),
)


def _shown(record: Record, *sides: str) -> Row:
    """Texts, ids and models of the sides, as far as there are columns for them."""
    row: Row = {}
    if sides[0] in record:
        row["texts"] = [text(record, side) for side in sides]
    for part, field in (("_id", "ids"), ("_model", "models")):
        if any(side + part in record for side in sides):
            row[field] = [word(record, side + part) for side in sides]
    for name in dict.fromkeys(filter(None, map(covariate_of, record))):
        values = [number(record, f"{side}_{name}") for side in sides]
        if len(sides) == 2 and f"{sides[1]}_{name}" not in record:  # one column is the difference
            values = [None, None] if values[0] is None else [values[0] / 2, -values[0] / 2]
        row[COVARIATE + name] = values
    return row


def _winner(record: Record) -> str:
    """The answer as a word, or as what stands on the side that won."""
    name = "outcome" if record.get("outcome") not in (None, "") else "winner" if "winner" in record else "outcome"
    said = record.get(name)
    if said not in (None, ""):
        for part in _PARTS:
            left, right = record.get(f"left{part}"), record.get(f"right{part}")
            if left != right and said in (left, right):
                return "left" if said == left else "right"
    return outcome(record, name)


# ---------------------------------------------------------------------------------------------- whole columns


class _Unlike(Exception):
    """Something that only record by record can be read, or be told to be wrong."""


def _whole(names: Mapping[str, str], piece: Piece) -> Columns | None:
    """What `_rows` makes of each record, a field at a time; None where a value is nested, of more types than one, or wrong."""
    try:
        return whole_rows({ours: piece.column(theirs) for ours, theirs in names.items()})
    except (_Unlike, WrongField):
        return None


def whole_rows(given: Columns) -> Columns:
    """Plain columns under our names as a batch of `columns.COLUMNS`, without `line`.

    Raises
    ------
    WrongField, _Unlike
        Where the records are to be read one by one.
    """
    columns = {name: _typed(name, values) for name, values in given.items()}
    n = len(next(iter(columns.values())))
    out = {name: _read_as(columns[name], get, COLUMNS[name]) for name, get in _SCALARS.items() if name in columns}
    for low, high in (("scale_low", "scale_high"), ("span_start", "span_end")):
        one, two = out.get(low), out.get(high)
        if (one is None) != (two is None) or (one is not None and two is not None and (one.is_null() != two.is_null()).any()):
            raise _Unlike
    if "prompt" in columns:
        prompt = columns["prompt"]
        out["prompt"] = prompt.cast(pl.String) if prompt.dtype == pl.String or prompt.dtype == pl.Null else _unlike()
        out["prompt_is_messages"] = pl.DataFrame({"prompt": prompt}).select(
            pl.when(pl.col("prompt").is_not_null()).then(pl.lit(value=False))
        )["literal"]

    def same(value: str) -> pl.Series:
        return pl.Series([value]).new_from_index(0, n)

    if "chosen" in columns or "chosen_id" in columns:
        never = pl.Series([False]).new_from_index(0, n)
        return out | _lists(columns, n, "chosen", "rejected") | {"kind": same("pair"), "outcome": same("left"), "order_known": never}
    if "left" in columns or "left_id" in columns:
        return out | _lists(columns, n, "left", "right") | {"kind": same("pair"), "outcome": _winners(columns, n)}
    out |= _lists(columns, n, "response")
    ((kind, name, get), *others) = [single for single in _SINGLE if single[1] in columns]
    if others:
        raise _Unlike
    answer = _read_as(columns[name], get, COLUMNS[name])
    unknown = answer.is_null()
    said = same("answered")
    if unknown.any():
        if "outcome" not in columns:
            raise _Unlike
        words = _read_as(columns["outcome"], word, pl.String)
        if (words.is_null() & unknown).any():
            raise _Unlike
        said = pl.DataFrame({"words": words, "said": said, "unknown": unknown}).select(pl.when("unknown").then("words").otherwise("said"))[
            "words"
        ]
    return out | {"kind": same(kind), name: answer, "outcome": said}


def _unlike() -> pl.Series:
    raise _Unlike


def _typed(name: str, values: Sequence[Any] | pl.Series) -> pl.Series:
    """Values of one scalar type."""
    try:
        column = values if isinstance(values, pl.Series) else pl.Series(name, values)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        raise _Unlike from None
    if column.dtype.base_type() in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if column.dtype.is_integer() and column.dtype != pl.UInt64:
        return column.cast(pl.Int64)
    plain = column.dtype.is_numeric() and column.dtype.base_type() != pl.Decimal
    return column if plain or column.dtype.base_type() in (pl.String, pl.Boolean, pl.Null, pl.Datetime) else _unlike()


def _read_as(column: pl.Series, get: Callable[[Record, str], Any], dtype: Any) -> pl.Series:
    """What the reader of a field makes of each value: at once where that is plain, else value by value, each distinct one once."""
    found = column.dtype
    if found == pl.Null:
        return column.cast(dtype)
    if get is word and found == pl.String:
        return pl.DataFrame({"value": column}).select(pl.when(pl.col("value") != "").then("value"))["value"]
    if get is word and found.is_integer():
        return column.cast(pl.String)
    if get is number and found.is_numeric():
        return column.cast(pl.Float64) if column.is_finite().all() else _unlike()
    if get is flag and found == pl.Boolean:
        return column
    if get is integer and found.is_integer():
        return column.cast(pl.Int64) if column.is_between(-(2**53), 2**53, closed="none").all() else _unlike()
    if get is moment and isinstance(found, pl.Datetime):
        zoned = column.dt.replace_time_zone("UTC") if found.time_zone is None else column.dt.convert_time_zone("UTC")
        return zoned.cast(dtype)
    distinct = column.drop_nulls().unique()
    read = pl.Series([get({"": value}, "") for value in distinct.to_list()], dtype=dtype)
    return column.replace_strict(distinct, read, default=None, return_dtype=dtype)


def _lists(columns: Mapping[str, pl.Series], n: int, *sides: str) -> dict[str, pl.Series]:
    """`_shown`, of all records."""
    out: dict[str, pl.Series] = {}
    lengths = np.full(n, len(sides), dtype=np.int64)
    if sides[0] in columns:
        texts = [columns[side] if side in columns else _unlike() for side in sides]
        if any(column.dtype != pl.String or column.null_count() for column in texts):
            raise _Unlike
        out["texts"] = fold(interleave(texts), lengths)
    for part, field in (("_id", "ids"), ("_model", "models")):
        if not any(side + part in columns for side in sides):
            continue
        words = [
            _read_as(columns[side + part], word, pl.String)
            if side + part in columns
            else pl.Series([None], dtype=pl.String).new_from_index(0, n)
            for side in sides
        ]
        out[field] = fold(interleave(words), lengths)
        if all(column.null_count() for column in words):
            known = pl.DataFrame({str(i): column.is_not_null() for i, column in enumerate(words)}).with_columns(out[field].alias("list"))
            out[field] = known.select(pl.when(pl.any_horizontal(pl.exclude("list"))).then("list"))["list"]
    numbers = {name: _read_as(column, number, pl.Float64) for name, column in columns.items() if covariate_of(name)}
    return out | covariates_from(numbers, sides, n)


def _winners(columns: Mapping[str, pl.Series], n: int) -> pl.Series:
    """`_winner`, of all records."""
    nothing = pl.Series([None], dtype=pl.Null).new_from_index(0, n)
    said = columns.get("outcome", nothing)
    if "winner" in columns:
        other = columns["winner"]
        if said.dtype == pl.Null:
            said = other
        elif other.dtype == said.dtype:
            empty = pl.col("said").is_null() | (pl.col("said") == "") if said.dtype == pl.String else pl.col("said").is_null()
            said = pl.DataFrame({"said": said, "other": other}).select(pl.when(empty).then("other").otherwise("said"))["other"]
        else:
            raise _Unlike
    if said.dtype == pl.String:
        said = _read_as(said, word, pl.String)
    frame = pl.DataFrame({"said": said})
    answer = pl.lit(None, dtype=pl.String)
    for part in reversed(_PARTS):
        left, right = columns.get(f"left{part}", nothing), columns.get(f"right{part}", nothing)
        if {left.dtype, right.dtype, said.dtype} - {pl.Null, pl.String, pl.Int64}:
            raise _Unlike  # what is equal to what is then a matter of Python's types
        # a text and a number are never equal; nothing is equal to nothing
        differ = left.ne_missing(right) if left.dtype == right.dtype else left.is_not_null() | right.is_not_null()
        for side, column in (("right", right), ("left", left)):
            if column.dtype == said.dtype != pl.Null:
                hit = pl.lit(differ & (column == said).fill_null(value=False))
                answer = pl.when(hit).then(pl.lit(side)).otherwise(answer)
    decided = frame.select(answer.alias("answer"))["answer"]
    open_ = decided.is_null()
    if not open_.any():
        return decided
    rest = said.filter(open_)
    if rest.null_count():
        raise _Unlike
    words = _read_as(rest, outcome, pl.String)
    if words.null_count():
        raise _Unlike
    if open_.all():
        return words
    place = (open_.cast(pl.Int64).cum_sum() - 1).to_numpy()
    full = words.gather(np.maximum(place, 0))
    return pl.DataFrame({"decided": decided, "word": full}).select(pl.coalesce("decided", "word"))["decided"]


FORMAT = Format("columns", "plain tables with columns such as prompt, left, right, outcome (see --columns)", _matches, _read)
