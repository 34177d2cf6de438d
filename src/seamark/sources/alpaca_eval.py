"""AlpacaEval annotations: two outputs and a preference between 1 (output_1) and 2 (output_2).

A fraction is the judge's probability of the second output plus 1: the nearer side is taken and the probability kept as confidence.
The annotators shuffle the outputs and the file does not say how, so the order shown is not known.
Source: github.com/tatsu-lab/alpaca_eval.
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import Row, WrongField, has, number, record_format, text, text_or_none, word
from seamark.sources.files import Record


def _fits(record: Record) -> bool:
    return has(record, "instruction", "output_1", "output_2", "preference")


def _rows(record: Record) -> Sequence[Row]:
    models = [word(record, "generator_1"), word(record, "generator_2")]
    annotator = word(record, "annotator")
    row: Row = {"kind": "pair", "prompt": text(record, "instruction"), "texts": [text(record, "output_1"), text(record, "output_2")]}
    row |= {"models": models, "order_known": False, "rater": annotator, "seconds": number(record, "time_per_example")}
    if annotator is not None:
        row["rater_kind"] = "person" if "human" in annotator.lower() else "model"
    raw = record.get("raw_completion")
    row["rationale"] = text_or_none(record, "raw_completion") if isinstance(raw, str) else None
    return [row | _answer(record)]


def _answer(record: Record) -> Row:
    preference = number(record, "preference")
    if preference is None:
        return {"outcome": "skipped"}
    if preference in (0.0, 1.5):
        return {"outcome": "tie"}
    if not 1 <= preference <= 2:
        raise WrongField(
            "preference", record["preference"], "Use 1 for output_1, 2 for output_2, 1.5 or 0 for a tie, or a fraction between."
        )
    outcome = "left" if preference < 1.5 else "right"
    confidence = max(2 - preference, preference - 1)
    return {"outcome": outcome, "confidence": confidence if confidence < 1 else None}


FORMAT = record_format("alpaca-eval", "AlpacaEval annotations: instruction, output_1, output_2, preference", fits=_fits, rows=_rows)
