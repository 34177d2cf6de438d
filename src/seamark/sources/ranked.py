"""Lists of responses: the best of N with the others, lists given best first, and NeMo-RL completions with ranks.

The order shown is not known: these layouts put the answer into the order.
Source: LLaMA-Factory's ranking layout; docs.nvidia.com/nemo/rl (preference datasets).
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from seamark.sources.fields import (
    Row,
    WrongField,
    has,
    integer,
    items,
    mappings,
    message_prompt,
    messages,
    missing,
    record_format,
    said,
    text,
    word,
)
from seamark.sources.files import Record
from seamark.sources.sharegpt import alpaca_turns

_BEST, _OTHERS = ("bon_best", "chosen"), ("loser_list", "rejected")


def _best_fits(record: Record) -> bool:
    others = [record[name] for name in _OTHERS if name in record]
    texts = bool(others) and isinstance(others[0], list) and all(isinstance(item, str) for item in others[0])
    return texts and any(isinstance(record.get(name), str) for name in _BEST)


def _best_rows(record: Record) -> Sequence[Row]:
    best = next((name for name in _BEST if name in record), _BEST[0])
    others = next((name for name in _OTHERS if name in record), _OTHERS[0])
    shown = [text(record, best), *_texts(record, others)]
    row: Row = {"kind": "choice", "texts": shown, "best": 0, "order_known": False, "prompt_id": word(record, "prompt_id")}
    if isinstance(record.get("prompt"), list):
        return [row | message_prompt(messages(record, "prompt"))]
    return [row | {"prompt": text(record, "prompt") if record.get("prompt") is not None else None}]


def _texts(record: Record, name: str, *, least: int = 1) -> list[str]:
    found = items(record, name, least=least)
    if not all(isinstance(item, str) for item in found):
        raise WrongField(name, found, "Give a list of texts.")
    return found


def _list_fits(record: Record) -> bool:
    if has(record, "context", "completions"):
        return isinstance(record["completions"], list) and all(isinstance(c, dict) and "rank" in c for c in record["completions"])
    return has(record, "instruction") and any(isinstance(record.get(name), list) for name in ("output", "ranked_outputs"))


def _list_rows(record: Record) -> Sequence[Row]:
    if has(record, "context", "completions"):
        return [_nemo(record)]
    if isinstance(record.get("history"), str):
        record = record | {"history": _decoded(record, "history")}
    outputs = _texts(record, "ranked_outputs" if "ranked_outputs" in record else "output", least=2)
    row: Row = {"kind": "ranking", "texts": outputs, "ranks": list(range(1, len(outputs) + 1)), "order_known": False}
    return [row | message_prompt(alpaca_turns(record)) | {"prompt_id": word(record, "item_id")}]


def _decoded(record: Record, name: str) -> object:
    """A JSON list within a cell."""
    try:
        return orjson.loads(record[name] or "[]")
    except orjson.JSONDecodeError:
        raise WrongField(name, record[name], "Give a JSON list.") from None


def _nemo(record: Record) -> Row:
    shown = mappings(record, "completions", least=2)
    ranks: list[int] = []
    for completion in shown:
        rank = integer(completion, "rank")
        if rank is None:
            raise missing(completion, "rank")
        ranks.append(rank)
    texts = [
        said(messages(c, "completion"), "completion") if isinstance(c.get("completion"), list) else text(c, "completion") for c in shown
    ]
    row: Row = {"kind": "ranking", "texts": texts, "ranks": [rank - min(ranks) + 1 for rank in ranks], "order_known": False}
    context = record["context"]
    return row | (message_prompt(messages(record, "context")) if isinstance(context, list) else {"prompt": text(record, "context")})


BEST_OF_N = record_format(
    "best-of-n",
    "the best response and a list of the others: prompt, chosen or bon_best, rejected or loser_list",
    fits=_best_fits,
    rows=_best_rows,
)
RANKED = record_format(
    "ranked", "lists best first (instruction, output), or completions with ranks (context, completions)", fits=_list_fits, rows=_list_rows
)
