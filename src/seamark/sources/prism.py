"""PRISM: people rate the responses of several models from 1 to 100 and choose one to go on with.

Every score is a rating; where the responses to one message are all there and one was chosen, the choice is a judgment too.
The survey gives the raters' profiles and the conversations the time, where these tables are in the folder.
Source: Kirk et al. 2024 (arXiv 2404.16019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from seamark.errors import InvalidRecord
from seamark.sources.fields import (
    Row,
    WrongField,
    columns_of,
    flag,
    has,
    moment,
    needed_number,
    needed_word,
    profile,
    text,
    word,
)
from seamark.sources.files import Format, Options, Record, Source, Table

_T = TypeVar("_T")
_SCALE: Row = {"scale_low": 1.0, "scale_high": 100.0}


def _is_utterances(table: Table) -> bool:
    return has(table.sample[0], "utterance_id", "conversation_id", "user_id", "model_response", "score")


def _matches(source: Source) -> bool:
    return any(_is_utterances(table) for table in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    tables = list(source.tables.values())
    profiles = _by_id(tables, options, "user_id", "age", lambda record: profile(_flat(record)))
    times = _by_id(tables, options, "conversation_id", "conversation_history", lambda record: moment(record, "generated_datetime"))
    for table in [t for t in tables if _is_utterances(t)] or tables:
        shown: dict[tuple[str, str], list[tuple[Row, bool]]] = {}
        for records, lines in table.batches():
            rows: list[Row] = []
            for record, line in zip(records, lines, strict=True):
                try:
                    row = _rating(record)
                    turn = word(record, "interaction_id") or f"{row['session']}/{word(record, 'turn')}"
                    chosen = flag(record, "if_chosen")
                except WrongField as wrong:
                    options.fail(InvalidRecord(str(table.path), line, wrong.name, wrong.value, wrong.remedy))
                    continue
                row |= {"rater_profile": profiles.get(row["rater"]), "time": times.get(row["session"]), "line": line}
                rows.append(row)
                shown.setdefault((row["rater"], turn), []).append((row, bool(chosen)))
            if rows:
                yield columns_of(rows)
        choices = [_choice(turn) for turn in shown.values() if len(turn) > 1 and sum(chosen for _, chosen in turn) == 1]
        if choices:
            yield columns_of(choices)


def _rating(record: Record) -> Row:
    row: Row = {"kind": "rating", "prompt": text(record, "user_prompt"), "texts": [text(record, "model_response")]}
    row |= {"ids": [needed_word(record, "utterance_id")], "models": [word(record, "model_name")], "rating": needed_number(record, "score")}
    row |= {"rater": needed_word(record, "user_id"), "rater_kind": "person", "session": needed_word(record, "conversation_id")}
    return row | _SCALE


def _choice(turn: list[tuple[Row, bool]]) -> Row:
    first = turn[0][0]
    shared = {name: first[name] for name in ("prompt", "rater", "rater_kind", "rater_profile", "session", "time", "line")}
    lists = {name: [row[name][0] for row, _ in turn] for name in ("texts", "ids", "models")}
    return shared | lists | {"kind": "choice", "best": next(i for i, (_, chosen) in enumerate(turn) if chosen)}


def _by_id(tables: Sequence[Table], options: Options, name: str, other: str, value: Callable[[Record], _T]) -> dict[str, _T]:
    """A value per record of the table that has both fields, by the first field."""
    found: dict[str, _T] = {}
    for table in tables:
        if not has(table.sample[0], name, other):
            continue
        for records, lines in table.batches():
            for record, line in zip(records, lines, strict=True):
                try:
                    found[needed_word(record, name)] = value(record)
                except WrongField as wrong:
                    options.fail(InvalidRecord(str(table.path), line, wrong.name, wrong.value, wrong.remedy))
    return found


def _flat(record: Record) -> Record:
    """Answers one level down, as in location: {birth_country}, get the name location_birth_country."""
    flat: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": answer for inner, answer in value.items()}
        elif name != "user_id":
            flat[name] = value
    return flat


FORMAT = Format("prism", "PRISM: utterances with scores from 1 to 100, and the survey", _matches, _read)
