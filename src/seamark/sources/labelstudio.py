"""Label Studio's JSON export: tasks with data and annotations, whose results are pairwise, choices, rating or a comment.

The export does not say which data fields were shown where: the prompt and the responses are told by their usual names, or by
`columns` (prompt, left, right, response) together with format="label-studio".
Source: labelstud.io/guide/export and /tags (Pairwise, Choices, Rating, TextArea).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from seamark.sources.fields import (
    Row,
    WrongField,
    mapping,
    mappings,
    moment,
    needed_number,
    number,
    outcome,
    read_rows,
    text,
    word,
)
from seamark.sources.files import Format, Options, Record, Source

_PROMPTS = ("prompt", "question", "instruction", "query", "input", "context", "task")


def _fits(record: Record) -> bool:
    annotations = record.get("annotations")
    if not isinstance(record.get("data"), dict) or not isinstance(annotations, list):
        return False
    return all(isinstance(a, dict) and isinstance(a.get("result"), list) for a in annotations)


def _matches(source: Source) -> bool:
    return any(2 * sum(map(_fits, table.sample)) >= len(table.sample) for table in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    unread: Counter[str] = Counter()
    yield from read_rows(source.tables.values(), options, partial(_rows, options.columns or {}, unread))
    source.notes.extend(f"{count:,} results of type {kind!r} are left out: they are not read" for kind, count in unread.items())


def _rows(names: Mapping[str, str], unread: Counter[str], record: Record) -> list[Row]:
    data = mapping(record, "data")
    prompt_name = names.get("prompt") or next((name for name in _PROMPTS if isinstance(data.get(name), str)), None)
    row: Row = {"prompt": text(data, prompt_name) if prompt_name else None, "prompt_id": word(record, "id")}
    sides = [names[side] for side in ("left", "right", "response") if side in names]
    shown = sides or [name for name, value in data.items() if isinstance(value, str) and name != prompt_name]
    rows: list[Row] = []
    for annotation in mappings(record, "annotations", least=0):
        rows += _annotation(annotation, data, shown, row | _rater(annotation), unread)
    return rows


def _rater(annotation: Record) -> Row:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    rater = word({"completed_by": by}, "completed_by")
    row: Row = {"rater": rater, "rater_kind": "person" if rater is not None else None, "id": word(annotation, "id")}
    return row | {"seconds": number(annotation, "lead_time"), "time": moment(annotation, "created_at")}


def _annotation(annotation: Record, data: Record, shown: Sequence[str], shared: Row, unread: Counter[str]) -> list[Row]:
    results = mappings(annotation, "result", least=0)
    if annotation.get("was_cancelled"):
        return [shared | _responses(data, shown, 2) | {"kind": "pair", "outcome": "skipped"}] if len(shown) == 2 else []
    comments = [str(part) for r in results if r.get("type") == "textarea" for part in _listed(mapping(r, "value").get("text"))]
    shared = shared | {"rationale": "\n\n".join(comments) or None}
    rows: list[Row] = []
    for result in results:
        value, axis, kind = mapping(result, "value"), word(result, "from_name"), result.get("type")
        if kind == "pairwise":
            rows.append(shared | _responses(data, shown, 2) | {"kind": "pair", "outcome": outcome(value, "selected"), "order_known": True})
        elif kind == "rating":
            rows.append(shared | _responses(data, shown, 1) | {"kind": "rating", "rating": needed_number(value, "rating"), "axis": axis})
        elif kind == "choices":
            for choice in _listed(value.get("choices")):
                rows.append(
                    shared | _responses(data, shown, 1) | {"kind": "label", "label": word({"choices": choice}, "choices"), "axis": axis}
                )
        elif kind != "textarea":
            unread[str(kind)] += 1
    return rows


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _responses(data: Record, shown: Sequence[str], n: int) -> Row:
    if len(shown) != n:
        remedy = "Say which fields are the responses: format='label-studio' with columns " + ("left and right." if n == 2 else "response.")
        raise WrongField(
            "data", list(data), f"{n} text field{'s' * (n > 1)} besides the prompt {'are' if n > 1 else 'is'} needed. {remedy}"
        )
    return {"texts": [text(data, name) for name in shown]}


FORMAT = Format("label-studio", "Label Studio JSON export: data, annotations", _matches, _read)
