"""Chatbot Arena battles: two models answer the same user, who votes; with the conversations, or with the models' names only.

Without texts a response is the model, as on a leaderboard. Model A is shown on the left.
Source: Zheng et al. 2023 (arXiv 2306.05685); the one-hot layout is lmarena-ai/arena-human-preference-55k.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from seamark.sources.fields import (
    Row,
    WrongField,
    conversation_pair,
    flag,
    has,
    message_prompt,
    messages,
    moment,
    needed_word,
    outcome,
    record_format,
    word,
)
from seamark.sources.files import Record

_ONE_HOT = {"winner_model_a": "left", "winner_model_b": "right", "winner_tie": "tie"}
_CONVERSATIONS = (("conversation_a", "conversation_b"), ("messages_a", "messages_b"))


def _fits(record: Record) -> bool:
    return has(record, "model_a", "model_b") and (has(record, "winner") or has(record, *_ONE_HOT))


def _rows(record: Record) -> Sequence[Row]:
    names = [needed_word(record, "model_a"), needed_word(record, "model_b")]
    row: Row = {"kind": "pair", "models": names, "order_known": True, "outcome": _winner(record, names)}
    row |= {"time": moment(record, "tstamp"), "prompt_id": word(record, "question_id"), "session": word(record, "conversation_id")}
    row |= judge(record)
    for sides in _CONVERSATIONS:
        if has(record, *sides) and record[sides[0]] is not None:
            return [row | conversation_pair(messages(record, sides[0]), messages(record, sides[1]), sides)]
    if has(record, "prompt", "response_a", "response_b"):
        return [row | _lists(record) | {"prompt_id": word(record, "id")}]
    return [row | {"ids": names}]


def _winner(record: Record, names: list[str]) -> str:
    if "winner" not in record and has(record, *_ONE_HOT):
        voted = [answer for name, answer in _ONE_HOT.items() if flag(record, name)]
        if len(voted) != 1:
            raise WrongField(
                "winner_model_a", record["winner_model_a"], "Exactly one of winner_model_a, winner_model_b and winner_tie is 1."
            )
        return voted[0]
    if record.get("winner") in names and names[0] != names[1]:
        return ("left", "right")[names.index(record["winner"])]
    return outcome(record, "winner")


def _lists(record: Record) -> Row:
    """Prompt and responses as JSON lists of turns within a cell, as in the Kaggle files; plain texts are taken as such."""

    def turns(name: str) -> list[str]:
        value = record[name]
        if isinstance(value, str):
            try:
                decoded = orjson.loads(value)
            except orjson.JSONDecodeError:
                decoded = None
            value = decoded if isinstance(decoded, list) else [value]
        if not isinstance(value, list) or not value:
            raise WrongField(name, record[name], "Give a text or a list of turns.")
        return ["" if turn is None else str(turn) for turn in value]

    asked, left, right = turns("prompt"), turns("response_a"), turns("response_b")
    conversations = [
        [turn for q, a in zip(asked, side, strict=False) for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
        for side in (left, right)
    ]
    if len(asked) == 1:
        return message_prompt(conversations[0][:1]) | {"texts": [left[0], right[0]]}
    return conversation_pair(conversations[0], conversations[1], ("response_a", "response_b"))


_PEOPLE = ("arena_user", "expert", "author", "human")
_MODELS = ("gpt", "claude", "gemini", "llama", "deepseek", "qwen", "mistral")


def judge(record: Record) -> Row:
    """The rater fields from FastChat's `judge`: a name, or a model's name with the name of the judging prompt."""
    value = record.get("judge")
    version = None
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value, version = value[0], "/".join(value[1:]) or None
    name = word({"judge": value}, "judge")
    if name is None:
        return {}
    kind = "person" if name.startswith(_PEOPLE) else "model" if version or name.lower().startswith(_MODELS) else None
    return {"rater": name, "rater_kind": kind, "guideline_version": version}


FORMAT = record_format("arena", "Chatbot Arena battles: model_a, model_b, winner, with or without conversations", fits=_fits, rows=_rows)
