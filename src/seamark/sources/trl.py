"""TRL: preference pairs with explicit or implicit prompt, and unpaired preferences (KTO), as text or as conversations.

Source: huggingface.co/docs/trl/dataset_formats. The preferred response has its own field, so the order shown is not known.
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import (
    Row,
    conversation_pair,
    flag,
    has,
    message_prompt,
    messages,
    missing,
    record_format,
    said,
    text,
    word,
)
from seamark.sources.files import Record

_USED = {"prompt", "chosen", "rejected", "completion", "label", "prompt_id", "id"}


_OURS = {"rater", "axis", "strength", "group"}
"""With one of these the table says more than TRL's layout holds, and is read as plain columns."""


def _fits(record: Record) -> bool:
    if _OURS & record.keys():
        return False
    if has(record, "chosen", "rejected"):
        return all(isinstance(record[name], str | list) for name in ("chosen", "rejected")) and not _is_list_of_texts(record["rejected"])
    return has(record, "prompt", "completion", "label")


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _rows(record: Record) -> Sequence[Row]:
    if "completion" in record and "chosen" not in record:
        row = _unpaired(record)
    elif isinstance(record.get("chosen"), list):
        row = _conversations(record)
    else:
        row = _texts(record)
    return [row | {"prompt_id": word(record, "prompt_id"), "id": word(record, "id")}]


_PAIR: Row = {"kind": "pair", "outcome": "left", "order_known": False}


def _texts(record: Record) -> Row:
    chosen, rejected = text(record, "chosen"), text(record, "rejected")
    if record.get("prompt") is not None:
        return _PAIR | _prompt(record) | {"texts": [chosen, rejected]}
    # as TRL's extract_prompt: the common beginning, less the space it may end with
    same = len(_common(chosen, rejected))
    same -= chosen[same - 1 : same] == " "
    return _PAIR | {"prompt": chosen[:same] or None, "texts": [chosen[same:], rejected[same:]]}


def _common(left: str, right: str) -> str:
    """The common beginning; the library function alone compares letter by letter, which is slow for long texts."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return left[:low]


def _conversations(record: Record) -> Row:
    chosen, rejected = messages(record, "chosen"), messages(record, "rejected")
    prompt = record.get("prompt")
    if isinstance(prompt, list):
        before = messages(record, "prompt", least=0)
        if chosen[: len(before)] == before and rejected[: len(before)] == before and len(before) < min(len(chosen), len(rejected)):
            chosen, rejected = chosen[len(before) :], rejected[len(before) :]
        return _PAIR | message_prompt(before) | {"texts": [said(chosen, "chosen"), said(rejected, "rejected")]}
    if isinstance(prompt, str) and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return _PAIR | {"prompt": prompt, "texts": [said(chosen, "chosen"), said(rejected, "rejected")]}
    return _PAIR | conversation_pair(chosen, rejected, ("chosen", "rejected"))


def _unpaired(record: Record) -> Row:
    label = flag(record, "label")
    if label is None:
        raise missing(record, "label")
    shown = record["completion"]
    response = said(messages(record, "completion"), "completion") if isinstance(shown, list) else text(record, "completion")
    return _prompt(record) | {"kind": "thumbs", "texts": [response], "thumb": label}


def _prompt(record: Record) -> Row:
    if isinstance(record.get("prompt"), list):
        return message_prompt(messages(record, "prompt", least=0))
    return {"prompt": text(record, "prompt")}


def _left_out(record: Record) -> str | None:
    extra = [name for name in record if name not in _USED]
    return f"fields not used: {', '.join(extra)}" if extra else None


FORMAT = record_format(
    "trl",
    "TRL preference pairs (prompt, chosen, rejected) or KTO records (prompt, completion, label)",
    fits=_fits,
    rows=_rows,
    note=_left_out,
)
