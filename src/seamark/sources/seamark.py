"""Seamark's own JSONL: one `Judgment` per line. (Its Parquet folder is read by `Feedback.from_parquet`.)"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seamark.columns import KINDS
from seamark.errors import InvalidRecord
from seamark.records import Judgment, parse_judgment
from seamark.sources.fields import columns_of
from seamark.sources.files import Format, Options, Record, Source

_FIELDS = set(Judgment.model_fields)


def _fits(record: Record) -> bool:
    shown = record.get("responses")
    if not isinstance(shown, list) or "kind" not in record or not all(isinstance(r, dict) and {"text", "id"} & set(r) for r in shown):
        return False
    return record["kind"] in KINDS or len(_FIELDS & set(record)) == len(record)


def _matches(source: Source) -> bool:
    return bool(source.tables) and all(sum(map(_fits, t.sample)) * 2 >= len(t.sample) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    for table in source.tables.values():
        for records, lines in table.batches():
            rows: list[dict[str, Any]] = []
            for record, line in zip(records, lines, strict=True):
                try:
                    row = parse_judgment(record, source=str(table.path), line=line).to_columns()
                except InvalidRecord as error:
                    options.fail(error)
                    continue
                rows.append(row | {"line": line})
            if rows:
                yield columns_of(rows)


FORMAT = Format("seamark", "Seamark's own JSONL: kind, responses and the answer", _matches, _read)


def is_saved(path: Path) -> bool:
    """Whether this is a folder written by `Feedback.to_parquet`."""
    return os.path.isfile(path / "seamark.json")
