"""OpenAssistant replies in rank order: a conversation and two to ten replies, best first.

Read is the Parquet form (items: history, instruction, ranked_outputs). A record gives one ranking; several persons' rankings
were merged into it before it was published, so there is no rater, and the order shown is not known.
Source: Koepf et al. 2023 (OASST1).
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from seamark.sources.fields import Row, WrongField, has, items, message_prompt, record_format, text, word
from seamark.sources.files import Record


def _fits(record: Record) -> bool:
    return has(record, "history", "instruction", "ranked_outputs")


def _rows(record: Record) -> Sequence[Row]:
    replies = items(record, "ranked_outputs", least=2)
    turns = [{"role": role, "content": said} for both in _history(record) for role, said in zip(("user", "assistant"), both, strict=True)]
    turns.append({"role": "user", "content": text(record, "instruction")})
    ranking = {"kind": "ranking", "texts": replies, "ranks": list(range(1, len(replies) + 1)), "order_known": False}
    return [ranking | message_prompt(turns) | {"id": word(record, "item_id")}]


def _history(record: Record) -> list[list[str]]:
    """The earlier turns as [user, assistant], written as JSON in the table."""
    value = record["history"]
    try:
        turns = orjson.loads(value or "[]") if isinstance(value, str) else value or []
    except orjson.JSONDecodeError:
        raise WrongField("history", value, "Give a JSON list of [user, assistant].") from None
    if not isinstance(turns, list) or not all(isinstance(t, list) and len(t) == 2 and all(isinstance(s, str) for s in t) for t in turns):
        raise WrongField("history", value, "Give a list of [user, assistant].")
    return turns


FORMAT = record_format("oasst", "OpenAssistant: replies to a conversation, best first", fits=_fits, rows=_rows)
