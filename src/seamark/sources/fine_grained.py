"""Fine-Grained RLHF, question answering: four predictions per question, all six compared, and the errors in the first.

Read are the nested JSON of github.com/allenai/FineGrainedRLHF and its Parquet form (questions, preferences, span_errors,
missing_info). A comparison gives a pair, in the order published; an error a label on the axis "error" with its span in
prediction 1; a piece of missing information a label on the axis "missing". Workers are not named.

The prompt is the question alone. The passages the workers could consult, the reference answer and the corrected prediction
(written by the worker, judged by nobody) are left out, which a note says.
Source: Wu et al., NeurIPS 2023.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, count
from typing import Any

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, has, integer, items, mapping, mappings, needed_word, read_rows, text, word
from seamark.sources.files import Format, Options, Record, Source

_OUTCOMES = {0: "tie", 1: "left", 2: "right"}
_PAIRS = tuple(combinations((1, 2, 3, 4), 2))
_NOTE = (
    "the passages shown, the reference answer and the corrected prediction 1 are left out; "
    "in the published data the first prediction of a pair wins more often"
)


def _fits(record: Record) -> bool:
    return has(record, "question", "prediction 1", "prediction 4", "feedback", "preference")


def _is_normalised(source: Source) -> bool:
    return (
        {"questions", "preferences"} <= set(source.tables)
        and has(source.tables["questions"].sample[0], "q_id", "question", "prediction_1", "prediction_4")
        and has(source.tables["preferences"].sample[0], "q_id", "a", "b", "preference")
    )


def _matches(source: Source) -> bool:
    return _is_normalised(source) or any(any(map(_fits, t.sample)) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    source.notes.append(_NOTE)
    if _is_normalised(source):
        yield from _read_tables(source, options)
        return
    nested = [t for t in source.tables.values() if any(map(_fits, t.sample))]
    if not nested:
        raise UnreadableSource(
            str(source.path), "this is not the feedback of Fine-Grained RLHF", "Give train_feedback.json or dev_feedback.json."
        )
    numbers = count()
    yield from read_rows(nested, options, lambda record: _nested_rows(record, str(next(numbers))))


# ---------------------------------------------------------------------------------------------- nested JSON


def _nested_rows(record: Record, name: str) -> Sequence[Row]:
    shown = {k: text(record, f"prediction {k}") for k in (1, 2, 3, 4)}
    question = {"prompt": text(record, "question"), "prompt_id": name}
    answers = items(record, "preference", least=0)
    if len(answers) != len(_PAIRS):
        raise WrongField("preference", answers, "Give six answers, for the pairs 1-2, 1-3, 1-4, 2-3, 2-4 and 3-4.")
    rows = [question | _pair(name, shown, a, b, answer) for (a, b), answer in zip(_PAIRS, answers, strict=True)]
    feedback = mapping(record, "feedback")
    first = question | {"texts": [shown[1]], "ids": [f"{name}/1"]}
    rows += [first | _error(e, "error type", e.get("explanation")) for e in mappings(feedback, "errors", least=0)]
    rows += [first | _missing(e, "error type", e.get("sentence_id")) for e in mappings(feedback, "missing-info", least=0)]
    return rows


# ---------------------------------------------------------------------------------------------- tables


def _read_tables(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    questions = {str(r["q_id"]): r for records, _ in source.tables["questions"].batches() for r in records}

    def asked(record: Record) -> tuple[str, dict[int, str], Row]:
        name = needed_word(record, "q_id")
        if name not in questions:
            raise WrongField("q_id", name, "There is no such row in questions.")
        question = questions[name]
        return name, {k: text(question, f"prediction_{k}") for k in (1, 2, 3, 4)}, {"prompt": text(question, "question"), "prompt_id": name}

    def pair(record: Record) -> Sequence[Row]:
        name, shown, question = asked(record)
        a, b = integer(record, "a"), integer(record, "b")
        if a not in shown or b not in shown:
            raise WrongField("a" if a not in shown else "b", record, "Use 1 to 4.")
        return [question | _pair(name, shown, a, b, record.get("preference"))]

    def error(record: Record) -> Sequence[Row]:
        name, shown, question = asked(record)
        explained = record.get("explanation")
        first = {"texts": [shown[1]], "ids": [f"{name}/1"]}
        return [question | first | _error(record, "error_type", _decoded(explained))]

    def missing(record: Record) -> Sequence[Row]:
        name, shown, question = asked(record)
        sentences = record.get("sentence_id")
        first = {"texts": [shown[1]], "ids": [f"{name}/1"]}
        return [question | first | _missing(record, "error_type", _decoded(sentences))]

    for name, rows in (("preferences", pair), ("span_errors", error), ("missing_info", missing)):
        if name in source.tables:
            yield from read_rows([source.tables[name]], options, rows)


# ---------------------------------------------------------------------------------------------- the three kinds of feedback


def _pair(name: str, shown: Mapping[int, str], a: int, b: int, answer: object) -> Row:
    if answer not in (0, 1, 2):
        raise WrongField("preference", answer, "Use 0 for no preference, 1 and 2 for the better prediction.")
    return {
        "id": f"{name}/{a}-{b}",
        "kind": "pair",
        "texts": [shown[a], shown[b]],
        "ids": [f"{name}/{a}", f"{name}/{b}"],
        "order_known": True,
        "outcome": _OUTCOMES[int(answer)],
    }


def _error(error: Record, type_field: str, explanation: object) -> Row:
    start, end = integer(error, "start"), integer(error, "end")
    label = {"kind": "label", "target": "span", "axis": "error", "label": needed_word(error, type_field)}
    return label | {"span_start": start, "span_end": end, "rationale": _said(explanation)}


def _missing(info: Record, type_field: str, sentences: object) -> Row:
    place = f"passage {word(info, 'passage_id')}, sentence {_said(sentences)}"
    return {"kind": "label", "target": "response", "axis": "missing", "label": needed_word(info, type_field), "rationale": place}


def _decoded(value: object) -> object:
    """The tables hold these cells as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) and value else None
    except json.JSONDecodeError:
        return value


def _said(value: object) -> str | None:
    """Free text; a place in the passages is kept as compact JSON."""
    return (value or None) if isinstance(value, str) or value is None else json.dumps(value, separators=(",", ":"))


FORMAT = Format("fine-grained", "Fine-Grained RLHF: four predictions compared, error spans, missing information", _matches, _read)
