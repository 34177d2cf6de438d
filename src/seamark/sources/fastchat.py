"""FastChat's MT-bench judgments by a judge model: pairs judged in both orders, and single grading from 1 to 10.

The texts are in other files, so a response is the model. A failed judgment is kept as skipped.
Source: Zheng et al. 2023; github.com/lm-sys/FastChat, llm_judge/common.py (g2 is the game with the sides swapped, and its
winner is already named by model).
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.arena import judge
from seamark.sources.fields import Row, WrongField, has, integer, moment, needed_number, needed_word, record_format, text_or_none, word
from seamark.sources.files import Record

_WINNERS = {"model_1": 0, "model_2": 1}


def _fits(record: Record) -> bool:
    return has(record, "model_1", "model_2", "g1_winner", "g2_winner") or has(record, "question_id", "model", "judge", "score")


def _rows(record: Record) -> Sequence[Row]:
    turn = integer(record, "turn")
    question = word(record, "question_id")
    # the second turn is another prompt
    row: Row = {"prompt_id": f"{question}/turn-{turn}" if turn and turn > 1 else question, "time": moment(record, "tstamp")} | judge(record)
    if "model_1" not in record:
        return [row | _grade(record)]
    names = [needed_word(record, "model_1"), needed_word(record, "model_2")]
    games = [_game(record, "g1", names), _game(record, "g2", names)]
    return [row | game for game in games]


def _game(record: Record, game: str, names: list[str]) -> Row:
    said = needed_word(record, f"{game}_winner")
    if said not in (*_WINNERS, "tie", "error"):
        raise WrongField(f"{game}_winner", said, "Use model_1, model_2, tie or error.")
    swapped = game == "g2"
    outcome = {"tie": "tie", "error": "skipped"}.get(said) or ("left", "right")[_WINNERS[said] ^ swapped]
    shown = names[::-1] if swapped else names
    rationale = text_or_none(record, f"{game}_judgment")
    return {"kind": "pair", "ids": shown, "models": shown, "order_known": True, "outcome": outcome, "rationale": rationale}


def _grade(record: Record) -> Row:
    score = needed_number(record, "score")
    names = [needed_word(record, "model")]
    row: Row = {"kind": "rating", "ids": names, "models": names, "scale_low": 1.0, "scale_high": 10.0}
    row["rationale"] = text_or_none(record, "judgment")
    return row | ({"outcome": "skipped"} if score < 0 else {"rating": score})


FORMAT = record_format(
    "fastchat", "MT-bench judgments: model_1, model_2, g1_winner, g2_winner, or question_id, model, judge, score", fits=_fits, rows=_rows
)
