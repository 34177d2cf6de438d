r"""ROSCOE: chains of reasoning judged as a whole and step by step.

Read is the Parquet form (overall, responses, steps) of the copy in JUDGE-BENCH. The text a rater saw holds instructions, the
question, a reference solution and the response; the question alone is the prompt. A step gives, per kind of error, a label "yes"
(present) or "no" with the step as its span; the whole response two ratings from 1 to 5 and two labels. Raters are not named.
Source: Golovneva et al., ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, has, needed_number, needed_word, read_rows, text
from seamark.sources.files import Format, Options, Record, Source

_QUESTION, _SOLUTION, _RESPONSE, _END = "CONTEXT:\n", "\n\\Solution:", "\nGENERATED RESPONSE:\n", "\nJudge the generated response:"
_ERRORS = (
    "grammar",
    "factuality",
    "coherency_and_logic",
    "final_answer",
    "hallucination",
    "redundancy",
    "repetition",
    "commonsense",
    "arithmetic",
)
_RATINGS, _LABELS = ("overall_quality", "coherency"), ("missing_steps", "contradiction")


def _matches(source: Source) -> bool:
    return (
        {"overall", "responses", "steps"} <= set(source.tables)
        and has(source.tables["overall"].sample[0], "text", *_RATINGS, *_LABELS)
        and has(source.tables["responses"].sample[0], "response_id", "context")
        and has(source.tables["steps"].sample[0], "response_id", "step", *_ERRORS)
    )


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    if not _matches(source):
        raise UnreadableSource(
            str(source.path), "these are not the judgments of ROSCOE", "Give the folder with overall, responses and steps."
        )
    source.notes.append("the instructions and the reference solution that the raters saw are left out")
    yield from read_rows([source.tables["overall"]], options, _whole)
    contexts = {str(r["response_id"]): r for records, _ in source.tables["responses"].batches() for r in records}

    def step(record: Record) -> Sequence[Row]:
        name = needed_word(record, "response_id")
        if name not in contexts:
            raise WrongField("response_id", name, "There is no such row in responses.")
        return _step(_shown(contexts[name], "context"), record)

    yield from read_rows([source.tables["steps"]], options, step)


def _whole(record: Record) -> Sequence[Row]:
    shown = _shown(record, "text")
    scale = {"kind": "rating", "scale_low": 1.0, "scale_high": 5.0}
    rows = [shown | scale | {"axis": axis, "rating": needed_number(record, axis)} for axis in _RATINGS]
    return rows + [shown | {"kind": "label", "axis": axis, "label": needed_word(record, axis)} for axis in _LABELS]


def _step(shown: Row, record: Record) -> Sequence[Row]:
    step = text(record, "step")
    start = shown["texts"][0].find(step)
    place = {"target": "span", "span_start": start, "span_end": start + len(step)} if start >= 0 else {"target": "span"}
    return [shown | place | {"kind": "label", "axis": axis, "label": needed_word(record, axis)} for axis in _ERRORS]


def _shown(record: Record, name: str) -> Row:
    """Question and response, out of the text that a rater saw."""
    before, found, response = text(record, name).partition(_RESPONSE)
    if not found:
        raise WrongField(name, record[name], f"The response follows after {_RESPONSE.strip()!r}.")
    question = before.partition(_QUESTION)[2].partition(_SOLUTION)[0].removeprefix("Question:").strip()
    return {"prompt": question, "texts": [response.partition(_END)[0].strip()]}


FORMAT = Format("roscoe", "ROSCOE: reasoning judged as a whole and step by step (its tables)", _matches, _read)
