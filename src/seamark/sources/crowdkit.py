"""Crowd-Kit: who gave which label to which task, or said which of two items wins.

Items are known by their names alone. Source: crowd-kit.readthedocs.io.
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import Row, WrongField, has, needed_word, outcome, record_format
from seamark.sources.files import Record

_WORKERS = ("worker", "performer")


def _fits(record: Record) -> bool:
    return any(name in record for name in _WORKERS) and "label" in record and (has(record, "task") or has(record, "left", "right"))


def _rows(record: Record) -> Sequence[Row]:
    rater = needed_word(record, "performer" if "performer" in record else "worker")
    label = needed_word(record, "label")
    if "left" not in record:
        return [{"kind": "label", "ids": [needed_word(record, "task")], "label": label, "rater": rater}]
    shown = [needed_word(record, "left"), needed_word(record, "right")]
    try:
        answer = ("left", "right")[shown.index(label)] if label in shown else outcome(record, "label")
    except WrongField:
        raise WrongField("label", label, f"The label is the item that won: {shown[0]!r} or {shown[1]!r}.") from None
    return [{"kind": "pair", "ids": shown, "outcome": answer, "rater": rater, "order_known": True}]


FORMAT = record_format("crowd-kit", "Crowd-Kit tables: worker, task, label, or worker, left, right, label", fits=_fits, rows=_rows)
