"""PandaLM test set: two responses compared by three annotators, and by GPT-3.5 and PandaLM in the tables.

Read are testset-v1.json of github.com/WeOpenML/PandaLM and its Parquet form. A record gives one pair per annotator. The two
models are in alphabetical order, so the order shown is not known. Some responses became true or false in the published JSON;
they are read as the words "true" and "false".
Source: Wang et al., ICLR 2024.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from seamark.sources.fields import Row, WrongField, has, integer, record_format, text, text_or_none, word
from seamark.sources.files import Record

_OUTCOMES = {0: "tie", 1: "left", 2: "right"}
_MODELS = {"gpt35_label": ("gpt-3.5", "gpt35_reason"), "pandalm7b_label": ("pandalm-7b", "pandalm7b_reason")}


def _fits(record: Record) -> bool:
    return has(record, "cmp_key", "instruction", "response1", "response2", "annotator1")


def _rows(record: Record) -> Sequence[Row]:
    asked = [text(record, "instruction"), text_or_none(record, "input")]
    name = word(record, "idx")
    models = [word(record, "model1"), word(record, "model2")]
    if None in models:
        models = [*text(record, "cmp_key").split("_", 1), None][:2]
    shared: Row = {
        "kind": "pair",
        "prompt": "\n\n".join(part for part in asked if part is not None),
        "texts": [_response(record, "response1"), _response(record, "response2")],
        "models": models,
        "order_known": False,
    }
    rows: list[Row] = []
    for field in record:
        if re.fullmatch(r"annotator\d+", field) and record[field] is not None:
            rows.append({"rater": field, "rater_kind": "person", "outcome": _outcome(record, field)})
    for field, (judge, reason) in _MODELS.items():
        if field in record:
            said = {"rater": judge, "rater_kind": "model", "rationale": text_or_none(record, reason)}
            unreadable = {"outcome": "skipped", "reason": "no parseable verdict"}
            rows.append(said | (unreadable if record[field] is None else {"outcome": _outcome(record, field)}))
    return [shared | row | {"id": name and f"{name}/{row['rater']}"} for row in rows]


def _outcome(record: Record, field: str) -> str:
    value = integer(record, field)
    if value not in _OUTCOMES:
        raise WrongField(field, record[field], "Use 0 for a tie, 1 and 2 for the better response.")
    return _OUTCOMES[value]


def _response(record: Record, field: str) -> str:
    value = record.get(field)
    return str(value).lower() if isinstance(value, bool) else text(record, field)


FORMAT = record_format("pandalm", "PandaLM test set: two responses, three annotators, ties", fits=_fits, rows=_rows)
