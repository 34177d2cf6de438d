"""LLaMA-Factory: ShareGPT conversations with a chosen and a rejected turn, KTO conversations with a label, and Alpaca pairs.

Source: github.com/hiyouga/LLaMA-Factory, data/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import (
    Row,
    WrongField,
    flag,
    has,
    items,
    mapping,
    message,
    message_prompt,
    messages,
    missing,
    record_format,
    said,
    text,
    text_or_none,
)
from seamark.sources.files import Record

_LABELS = ("label", "kto_tag")


def _fits(record: Record) -> bool:
    turns = record.get("conversations", record.get("messages"))
    if isinstance(turns, list):
        return has(record, "chosen", "rejected") or any(isinstance(record.get(name), bool) for name in _LABELS)
    return has(record, "instruction") and (
        has(record, "chosen", "rejected", "input") or (has(record, "output") and isinstance(record.get("kto_tag"), bool))
    )


def _rows(record: Record) -> Sequence[Row]:
    if "instruction" in record:
        before = alpaca_turns(record)
        if "chosen" in record:
            return [_pair(before, text(record, "chosen"), text(record, "rejected"))]
        return [_thumbs(before, text(record, "output"), record)]
    name = "conversations" if "conversations" in record else "messages"
    turns = _system(record) + messages(record, name)
    if "chosen" in record:
        return [_pair(turns, *(said([message(mapping(record, side), side)], side) for side in ("chosen", "rejected")))]
    if turns[-1]["role"] != "assistant":
        raise WrongField(name, turns[-1], "The last turn is the assistant's, which the label is about.")
    return [_thumbs(turns[:-1], turns[-1]["content"], record)]


def alpaca_turns(record: Record) -> list[dict[str, str]]:
    """The conversation so far of an Alpaca record: system, history, then instruction and input."""
    turns = _system(record)
    for past in items(record, "history", least=0) if record.get("history") else []:
        if not (isinstance(past, list) and len(past) == 2 and all(isinstance(p, str) for p in past)):
            raise WrongField("history", past, "Every entry is a pair of texts: what was asked and what was answered.")
        turns += [{"role": "user", "content": past[0]}, {"role": "assistant", "content": past[1]}]
    asked = "\n".join(part for part in (text(record, "instruction"), text_or_none(record, "input")) if part)
    return [*turns, {"role": "user", "content": asked}]


def _system(record: Record) -> list[dict[str, str]]:
    system = text_or_none(record, "system")
    return [{"role": "system", "content": system}] if system else []


def _pair(before: list[dict[str, str]], chosen: str, rejected: str) -> Row:
    return message_prompt(before) | {"kind": "pair", "texts": [chosen, rejected], "outcome": "left", "order_known": False}


def _thumbs(before: list[dict[str, str]], response: str, record: Record) -> Row:
    name = next(name for name in _LABELS if name in record or name == _LABELS[-1])
    thumb = flag(record, name)
    if thumb is None:
        raise missing(record, "label")
    return message_prompt(before) | {"kind": "thumbs", "texts": [response], "thumb": thumb}


FORMAT = record_format("sharegpt", "LLaMA-Factory conversations with chosen and rejected turns, or with a label", fits=_fits, rows=_rows)
