"""Plain tables: one judgment a row, with our own names for the columns or a mapping from our names to the table's.

Which columns there are says what a row is: `left` and `right` with `outcome` (or `winner`: also the text, id or model that
won) are a pair, and so are `chosen` and `rejected`; `response` with `rating`, `thumb` or `label` is one judgment for each.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from seamark.columns import COLUMNS
from seamark.errors import InvalidSetting
from seamark.sources.fields import (
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
from seamark.sources.files import Format, Options, Record, Source

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


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
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
        if unused := [name for name in found if name not in names.values()]:
            source.notes.append(f"{table.path.name}: columns not used: {', '.join(unused)}")
        yield from read_rows([table], options, partial(_rows, names))


def _mapping(given: Mapping[str, str] | None, found: Sequence[str]) -> dict[str, str]:
    """Our names to the table's: those given, then those that are the same."""
    given = given or {}
    for ours, theirs in given.items():
        if ours not in NAMES:
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


FORMAT = Format("columns", "plain tables with columns such as prompt, left, right, outcome (see --columns)", _matches, _read)
