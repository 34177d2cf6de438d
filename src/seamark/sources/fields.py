"""Fields of one record, read strictly: the value has the type it should have, or the error names the field and the remedy.

A format is then a function from a record to its rows (dicts named as in `columns.COLUMNS`), made into a `Format` by
`record_format`; what is wrong with one record is caught, placed and, if so wished, skipped here.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from seamark.errors import InvalidRecord
from seamark.sources.files import BATCH, Format, Options, Piece, Record, Source, Table

Row = dict[str, Any]

_LISTS = ("texts", "ids", "models", "acts", "revisions_of")
_LARGEST = 2**63 - 1


class WrongField(Exception):
    """A field that cannot be used; the reader of the table adds the place."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(name)
        self.name, self.value, self.remedy = name, value, remedy


# ---------------------------------------------------------------------------------------------- formats made of rows


Columns = Mapping[str, Any]
"""A batch of `columns.COLUMNS`: lists or polars columns, one entry per judgment."""


def record_format(
    name: str,
    description: str,
    *,
    fits: Callable[[Record], bool],
    rows: Callable[[Record], Sequence[Row]],
    whole: Callable[[Piece], Columns | None] | None = None,
    note: Callable[[Record], str | None] = lambda _: None,
) -> Format:
    """A format whose records each give some rows, whatever table they stand in.

    `whole` reads many records at once, or says None where they are to be read one by one; `note` says, from the first record,
    what the format leaves out.
    """

    def read(source: Source, options: Options) -> Iterator[Columns]:
        chosen = [table for table in source.tables.values() if _fits_mostly(table, fits)] or list(source.tables.values())
        if passed_over := [table.name for table in source.tables.values() if table not in chosen]:
            source.notes.append(f"not {name} and passed over: {', '.join(passed_over)}")
        if chosen and (said := note(chosen[0].sample[0])):
            source.notes.append(said)
        return read_rows(chosen, options, rows, whole)

    return Format(name, description, lambda source: any(_fits_mostly(t, fits) for t in source.tables.values()), read)


def _fits_mostly(table: Table, fits: Callable[[Record], bool]) -> bool:
    """Half of the sample is enough, so that a defective record is reported as such and does not hide the format."""
    return 2 * sum(fits(record) for record in table.sample) >= len(table.sample) > 0


def read_rows(
    tables: Iterable[Table],
    options: Options,
    rows: Callable[[Record], Sequence[Row]],
    whole: Callable[[Piece], Columns | None] | None = None,
) -> Iterator[Columns]:
    """Batches of columns from the rows of each record; where `whole` can read them all at once, from that."""
    for table in tables:
        if whole is None:
            for records, lines in table.batches():
                if made := _rows_of(table, records, lines, options, rows):
                    yield columns_of(made)
            continue
        for piece in table.pieces():
            if (found := whole(piece)) is not None:
                yield {**found, "line": pl.Series(piece.lines, dtype=pl.Int64)}
                continue
            records = piece.records()
            for start in range(0, len(records), BATCH):
                part = slice(start, start + BATCH)
                if made := _rows_of(table, records[part], piece.lines[part], options, rows):
                    yield columns_of(made)


def _rows_of(
    table: Table, records: Sequence[Record], lines: Sequence[int], options: Options, rows: Callable[[Record], Sequence[Row]]
) -> list[Row]:
    made: list[Row] = []
    for record, line in zip(records, lines, strict=True):
        try:
            new = rows(record)
        except WrongField as wrong:
            options.fail(InvalidRecord(str(table.path), line, wrong.name, wrong.value, wrong.remedy))
            continue
        for row in new:
            row["line"] = line
        made += new
    return made


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows turned into columns; what is implied by other fields, or says nothing, is set as `Judgment.to_columns` does."""
    names = {name: None for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in names}
    for name in _LISTS:
        if name in columns:
            columns[name] = [v if v is not None and any(x is not None for x in v) else None for v in columns[name]]
    if "prompt" in columns:
        given = columns.get("prompt_is_messages") or [None] * len(rows)
        columns["prompt_is_messages"] = [None if p is None else bool(m) for p, m in zip(columns["prompt"], given, strict=True)]
    columns.setdefault("outcome", [])
    columns["outcome"] = ["answered" if v is None else v for v in columns["outcome"] or [None] * len(rows)]
    return columns


# ---------------------------------------------------------------------------------------------- one field


def has(record: Record, *names: str) -> bool:
    """Whether the record has all of the fields."""
    return all(name in record for name in names)


def missing(record: Mapping[str, Any], name: str) -> WrongField:
    """The error for a field that is not there or is null."""
    near = difflib.get_close_matches(name, [key for key in record if key != name], n=1)
    return WrongField(name, record.get(name), f"The field is needed{f'; there is {near[0]!r}' if near else ''}.")


def text(record: Mapping[str, Any], name: str) -> str:
    """A text that must be there; it may be empty."""
    value = record.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        raise missing(record, name)
    raise WrongField(name, value, "Give a text.")


def text_or_none(record: Mapping[str, Any], name: str) -> str | None:
    """A text, or None where there is none or it is empty."""
    return (text(record, name) or None) if record.get(name) is not None else None


def word(record: Mapping[str, Any], name: str) -> str | None:
    """An id or category: a text, or a number as it would be written."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongField(name, value, "Give a text or a number.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def needed_word(record: Mapping[str, Any], name: str) -> str:
    """An id or category that must be there."""
    value = word(record, name)
    if value is None:
        raise missing(record, name)
    return value


def number(record: Mapping[str, Any], name: str) -> float | None:
    """A finite number, possibly written as text."""
    value = record.get(name)
    if value is None or value == "":
        return None
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise WrongField(name, value, "Give a finite number, or leave the field out.")
    return found


def needed_number(record: Mapping[str, Any], name: str) -> float:
    """A finite number that must be there."""
    value = number(record, name)
    if value is None:
        raise missing(record, name)
    return value


def integer(record: Mapping[str, Any], name: str) -> int | None:
    """A whole number, possibly written as text."""
    value = number(record, name)
    if value is not None and (not value.is_integer() or abs(value) >= 2**53):
        raise WrongField(name, record[name], "Give a whole number.")
    return None if value is None else int(value)


_FLAGS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "up": True, "down": False}


def flag(record: Mapping[str, Any], name: str) -> bool | None:
    """True or false, also as 1 and 0, or as one of the words true, false, yes, no, up, down."""
    value = record.get(name)
    if value is None or value == "":
        return None
    found = _FLAGS.get(str(word(record, name) if isinstance(value, float) else value).strip().lower())
    if found is None:
        raise WrongField(name, value, "Give true or false.")
    return found


def moment(record: Mapping[str, Any], name: str) -> datetime | None:
    """A time: ISO 8601 (UTC where it does not say), or seconds or milliseconds since 1970."""
    value = record.get(name)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, str) and not _is_number(value):
            found = datetime.fromisoformat(value.strip())
        else:
            seconds = number(record, name) or 0.0
            found = datetime.fromtimestamp(seconds / 1000 if abs(seconds) > 1e11 else seconds, UTC)
        # the year 1 in a zone east of Greenwich is before the first day there is
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise WrongField(name, value, "Give a time like 2024-05-31T12:00:00Z, or seconds since 1970.") from None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def items(record: Mapping[str, Any], name: str, *, least: int = 1) -> list[Any]:
    """A list of at least so many items."""
    value = record.get(name)
    if value is None:
        raise missing(record, name)
    if not isinstance(value, list) or len(value) < least:
        raise WrongField(name, value, f"Give a list of at least {least}.")
    return value


def mappings(record: Mapping[str, Any], name: str, *, least: int = 1) -> list[Record]:
    """A list of objects."""
    found = items(record, name, least=least)
    if not all(isinstance(item, dict) for item in found):
        raise WrongField(name, found, "Give a list of objects.")
    return found


def mapping(record: Mapping[str, Any], name: str) -> Record:
    """An object; empty where there is none."""
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WrongField(name, value, "Give an object.")
    return value


def profile(values: Mapping[str, Any]) -> str | None:
    """A rater's profile as stored: scalars only, sorted, what is not known left out."""
    known = {k: v for k, v in values.items() if isinstance(v, str | int | float | bool) and v != ""}
    return json.dumps(known, sort_keys=True, ensure_ascii=False) if known else None


# ---------------------------------------------------------------------------------------------- conversations


def messages(record: Mapping[str, Any], name: str, *, least: int = 1) -> list[dict[str, str]]:
    """The turns of a conversation as role and content; ShareGPT's from and value are understood."""
    turns: list[dict[str, str]] = []
    for turn in mappings(record, name, least=least):
        turns.append(message(turn, name))
    return turns


_ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}


def message(turn: Record, name: str) -> dict[str, str]:
    """One turn as role and content."""
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise WrongField(name, turn, "Every turn has a role and a content, both texts.")
    return {"role": _ROLES.get(role, role), "content": content}


def message_prompt(turns: Sequence[Mapping[str, str]]) -> Row:
    """The prompt fields for a conversation so far."""
    if not turns:
        return {"prompt": None}
    return {"prompt": json.dumps(list(turns), ensure_ascii=False), "prompt_is_messages": True}


def said(turns: Sequence[Mapping[str, str]], name: str) -> str:
    """The response in the turns after the prompt: what the assistant said, with any turns of others marked as such.

    >>> turns = [("assistant", "One."), ("user", "More?"), ("assistant", "Two.")]
    >>> said([{"role": role, "content": content} for role, content in turns], "chosen")
    'One.\\n\\nHuman: More?\\n\\nAssistant: Two.'
    """
    if not any(turn["role"] == "assistant" for turn in turns):
        raise WrongField(name, list(turns), "The response is a turn of the assistant.")
    if all(turn["role"] == "assistant" for turn in turns):
        return "\n\n".join(turn["content"] for turn in turns)
    names = {"assistant": "Assistant", "user": "Human"}
    first = 0 if turns[0]["role"] != "assistant" else 1
    rest = [f"\n\n{names.get(turn['role'], turn['role'])}: {turn['content']}" for turn in turns[first:]]
    return (turns[0]["content"] if first else "") + "".join(rest)


def shared_turns(left: Sequence[Mapping[str, str]], right: Sequence[Mapping[str, str]]) -> int:
    """How many turns two conversations share at their beginning, leaving each at least one."""
    most = max(min(len(left), len(right)) - 1, 0)
    return next((i for i in range(most) if left[i] != right[i]), most)


def conversation_pair(left: Sequence[dict[str, str]], right: Sequence[dict[str, str]], names: tuple[str, str]) -> Row:
    """Prompt and texts of two conversations that begin alike; the prompt ends where they part, or with the last question."""
    n = shared_turns(left, right)
    if left[n:] and left[n]["role"] != "assistant" and left[n]["role"] == right[n]["role"] and left[n] == right[n]:
        n += 1
    return message_prompt(left[:n]) | {"texts": [said(left[n:], names[0]), said(right[n:], names[1])]}


# ---------------------------------------------------------------------------------------------- answers

_OUTCOME_WORDS = {
    "left": ("left", "a", "1", "model_a", "model_1", "output_1", "response_a", "response_1", "answer_a", "answer_1", "first"),
    "right": ("right", "b", "2", "model_b", "model_2", "output_2", "response_b", "response_2", "answer_b", "answer_2", "second"),
    "tie": ("tie", "equal", "draw", "0", "1.5", "same", "no_preference", "indifferent", "tied"),
    "both_bad": ("both_bad", "bothbad", "tie_(bothbad)", "tie_(both_bad)", "neither"),
    "cannot_tell": ("cannot_tell", "unsure", "unknown", "dont_know", "don't_know"),
    "skipped": ("skipped", "skip", "pass"),
}
_OUTCOMES = {word: outcome for outcome, words in _OUTCOME_WORDS.items() for word in words}


def outcome(record: Mapping[str, Any], name: str) -> str:
    """The answer to a pair, from the words in use for it."""
    value = needed_word(record, name)
    found = _OUTCOMES.get(value.strip().lower().replace(" ", "_").replace("-", "_"))
    if found is None:
        raise WrongField(
            name, record[name], "Use left, right, tie, both_bad, cannot_tell or skipped (a/b, 1/2 and model_a/model_b are understood)."
        )
    return found
