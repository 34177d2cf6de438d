"""Argilla records: fields shown and the users' responses to questions, as exported by version 1 (a list) and 2 (by question).

With one response shown, a number is a rating, a word a label. With several, a ranking orders the fields and a word may name
the field that is better. Answers about several responses at once that are neither are left out, and the report says so.
Source: docs.argilla.io (FeedbackRecord; rg.Record.to_dict).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from seamark.sources.fields import Row, WrongField, integer, mapping, mappings, message_prompt, messages, read_rows, said, text, word
from seamark.sources.files import Format, Options, Record, Source

_PROMPTS = ("prompt", "instruction", "question", "query", "input", "context")


def _fits(record: Record) -> bool:
    return isinstance(record.get("fields"), dict) and isinstance(record.get("responses"), list | dict)


def _matches(source: Source) -> bool:
    return any(2 * sum(map(_fits, table.sample)) >= len(table.sample) for table in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    return read_rows(source.tables.values(), options, partial(_rows, source.notes))


def _rows(notes: list[str], record: Record) -> list[Row]:
    fields = mapping(record, "fields")
    prompt_name = next((name for name in _PROMPTS if name in fields), None)
    shown = [name for name, value in fields.items() if name != prompt_name and isinstance(value, str | list)]
    if not shown:
        raise WrongField("fields", fields, "There is no field besides the prompt that could be a response.")
    shared: Row = _prompt(fields, prompt_name) | {"prompt_id": word(record, "external_id") or word(record, "id")}
    texts = [said(messages(fields, name), name) if isinstance(fields[name], list) else text(fields, name) for name in shown]
    rows: list[Row] = []
    for rater, question, value in _answers(record):
        answer = _answer(question, value, texts, shown)
        if answer is None:
            note = f"answers to {question!r} are about several responses at once and were left out"
            if note not in notes:
                notes.append(note)
            continue
        rows += [shared | {"texts": texts, "rater": rater, "rater_kind": "person" if rater else None, "axis": question} | a for a in answer]
    return rows


def _prompt(fields: Record, name: str | None) -> Row:
    if name is None or fields[name] is None:
        return {"prompt": None}
    return message_prompt(messages(fields, name)) if isinstance(fields[name], list) else {"prompt": text(fields, name)}


def _answers(record: Record) -> Iterator[tuple[str | None, str, object]]:
    """(rater, question, value) of every answer that was submitted."""
    if isinstance(record.get("responses"), dict):
        for question in record["responses"]:
            for given in mappings(record["responses"], question, least=0):
                if given.get("status") in (None, "submitted"):
                    yield word(given, "user_id"), question, given.get("value")
        return
    for given in mappings(record, "responses", least=0):
        if given.get("status") in (None, "submitted"):
            for question, answer in mapping(given, "values").items():
                yield word(given, "user_id"), question, answer.get("value") if isinstance(answer, dict) else answer


def _answer(question: str, value: object, texts: Sequence[str], shown: Sequence[str]) -> list[Row] | None:
    if value is None:
        return []
    if isinstance(value, list) and value and all(isinstance(v, dict) and "rank" in v for v in value):
        return [_ranking(question, value, shown)] if len(texts) > 1 else None
    if len(texts) == 1:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return [{"kind": "rating", "rating": float(value)}]
        labels = value if isinstance(value, list) else [value]
        return [{"kind": "label", "label": word({question: label}, question)} for label in labels]
    places = [_plain(name) for name in shown]
    if isinstance(value, str) and _plain(value) in places:
        place = places.index(_plain(value))
        return [{"kind": "pair", "outcome": ("left", "right")[place]} if len(texts) == 2 else {"kind": "choice", "best": place}]
    return None


def _ranking(question: str, value: list[Record], shown: Sequence[str]) -> Row:
    ranks = {_plain(word(v, "value") or ""): integer(v, "rank") for v in value}
    found = [ranks.get(_plain(name)) for name in shown]
    if None in found:
        raise WrongField(question, value, f"A ranking has a rank for each of {', '.join(shown)}.")
    return {"kind": "ranking", "ranks": found}


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


FORMAT = Format("argilla", "Argilla records: fields, responses", _matches, _read)
