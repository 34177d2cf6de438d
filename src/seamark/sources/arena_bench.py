"""Arena-bench v1: answers graded from 1 to 10 by GPT-4, and a table of battles of the later Arena-Hard.

Read are model_judgment files of github.com/lmarena/arena-hard-auto before its first release (question and answer are in the
judge's prompt) and the Parquet form (judgments, questions, battles_arena_hard). A grade that could not be read is skipped, with
the reason. A battle names responses "question/model" without text; its judge and the order shown are not published.
The judge saw a reference answer that was rewritten between runs, so grades of different runs (`provenance`) differ in standard.
Source: Li et al. 2024.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, has, missing, moment, needed_word, number, read_rows, text, text_or_none, word
from seamark.sources.files import Format, Options, Record, Source

_JUDGE = {"rater": "gpt-4", "rater_kind": "model"}
_SHOWN = re.compile(
    r"\[Question\]\n(.*?)\n\n\[The Start of .*\[The Start of Assistant's Answer\]\n(.*)\n\[The End of Assistant's Answer\]", re.DOTALL
)
_WINNERS = {"model_a": "left", "model_b": "right", "tie": "tie", "tie (bothbad)": "both_bad"}


def _is_grade(record: Record) -> bool:
    return has(record, "question_id", "model", "answer", "score", "judgment", "reference_md5")


def _is_raw(record: Record) -> bool:
    if "judge" in record or "turn" in record:  # MT-bench
        return False
    return has(record, "question_id", "model", "user_prompt", "judgment", "score") and "[The Start of" in str(record["user_prompt"])


def _is_battle(record: Record) -> bool:
    return set(record) == {"question_id", "model_a", "model_b", "winner"}


def _matches(source: Source) -> bool:
    return any(any(map(_is_grade, t.sample)) or any(map(_is_raw, t.sample)) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    if not _matches(source):
        remedy = "Give a model_judgment file whose records have user_prompt, judgment and score, or the folder of tables."
        raise UnreadableSource(str(source.path), "these are not the grades of Arena-bench", remedy)
    questions: dict[str, str] = {}
    for table in source.tables.values():
        if has(table.sample[0], "question_id", "question"):
            questions |= {str(r["question_id"]): r["question"] for records, _ in table.batches() for r in records}
    for table in source.tables.values():
        if any(map(_is_grade, table.sample)):
            yield from read_rows([table], options, partial(_grade, questions))
        elif any(map(_is_raw, table.sample)):
            yield from read_rows([table], options, _raw_grade)
        elif any(map(_is_battle, table.sample)):
            yield from read_rows([table], options, _battle)


def _grade(questions: Mapping[str, str], record: Record) -> Sequence[Row]:
    question = needed_word(record, "question_id")
    if question not in questions:
        raise WrongField("question_id", question, "There is no such row in questions.")
    run, version = word(record, "run_file"), word(record, "run_sha")
    more = {"time": moment(record, "tstamp"), "provenance": run and f"run:{run}@{version}"}
    return [_graded(record, question, questions[question], text(record, "answer")) | more]


def _raw_grade(record: Record) -> Sequence[Row]:
    shown = _SHOWN.search(text(record, "user_prompt"))
    if shown is None:
        raise WrongField("user_prompt", record["user_prompt"], "It holds [Question] and [The Start of Assistant's Answer].")
    return [_graded(record, needed_word(record, "question_id"), shown[1], shown[2])]


def _graded(record: Record, question: str, asked: str, answer: str) -> Row:
    if "score" not in record:
        raise missing(record, "score")
    model, score = needed_word(record, "model"), number(record, "score")
    usable = score is not None and 1 <= score <= 10
    grade: Row = {"rating": score} if usable else {"outcome": "skipped", "reason": "no valid score"}
    shown = {"prompt": asked, "prompt_id": question, "texts": [answer], "ids": [f"{question}/{model}"], "models": [model]}
    scale = {"kind": "rating", "scale_low": 1.0, "scale_high": 10.0, "rationale": text_or_none(record, "judgment")}
    return shown | scale | _JUDGE | grade


def _battle(record: Record) -> Sequence[Row]:
    question, winner = needed_word(record, "question_id"), text(record, "winner")
    if winner not in _WINNERS:
        raise WrongField("winner", winner, f"Use one of {', '.join(_WINNERS)}.")
    models = [needed_word(record, "model_a"), needed_word(record, "model_b")]
    shown = {"prompt_id": question, "ids": [f"{question}/{model}" for model in models], "models": models, "order_known": False}
    return [shown | {"kind": "pair", "outcome": _WINNERS[winner]}]


FORMAT = Format("arena-bench", "Arena-bench v1: answers graded 1 to 10 by GPT-4 (model_judgment, or its tables)", _matches, _read)
