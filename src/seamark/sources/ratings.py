"""Ratings on several axes: HelpSteer (five axes from 0 to 4) and UltraFeedback (four axes from 1 to 5, with rationales).

Each axis is a judgment of its own. A rating that was not given ("N/A") is kept as cannot_tell.
Source: Wang et al. 2023 (arXiv 2311.09528); Cui et al. 2023 (arXiv 2310.01377).
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import (
    Row,
    has,
    mapping,
    mappings,
    missing,
    needed_number,
    number,
    record_format,
    text,
    text_or_none,
    word,
)
from seamark.sources.files import Record

_HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def _helpsteer_fits(record: Record) -> bool:
    return has(record, "prompt", "response", *_HELPSTEER)


def _helpsteer_rows(record: Record) -> Sequence[Row]:
    shared: Row = {
        "kind": "rating",
        "prompt": text(record, "prompt"),
        "texts": [text(record, "response")],
        "scale_low": 0.0,
        "scale_high": 4.0,
    }
    return [shared | {"axis": axis, "rating": needed_number(record, axis)} for axis in _HELPSTEER]


def _ultrafeedback_fits(record: Record) -> bool:
    shown = record.get("completions")
    return has(record, "instruction") and isinstance(shown, list) and any(isinstance(c, dict) and "annotations" in c for c in shown)


def _ultrafeedback_rows(record: Record) -> Sequence[Row]:
    rows: list[Row] = []
    prompt = text(record, "instruction")
    for completion in mappings(record, "completions"):
        shared: Row = {
            "kind": "rating",
            "prompt": prompt,
            "texts": [text(completion, "response")],
            "models": [word(completion, "model")],
        }
        for axis, given in mapping(completion, "annotations").items():
            for annotation in given if isinstance(given, list) else [given]:
                rows.append(shared | _annotation(axis, mapping({axis: annotation}, axis)))
        overall = number(completion, "overall_score")
        if overall is not None:
            scale: Row = {"scale_low": 1.0, "scale_high": 10.0, "rationale": text_or_none(completion, "critique")}
            rows.append(shared | {"axis": "overall", "rating": overall} | scale)
    return rows


def _annotation(axis: str, given: Record) -> Row:
    row: Row = {"axis": axis, "scale_low": 1.0, "scale_high": 5.0}
    reasons = [text_or_none(given, name) for name in ("Rationale", "Rationale For Rating")]
    row["rationale"] = "\n\n".join(reason for reason in reasons if reason) or None
    if "Rating" not in given:
        raise missing(given, "Rating")
    if given["Rating"] in ("N/A", None):
        return row | {"outcome": "cannot_tell"}
    return row | {"rating": needed_number(given, "Rating")}


HELPSTEER = record_format(
    "helpsteer", "HelpSteer ratings from 0 to 4: prompt, response, " + ", ".join(_HELPSTEER), fits=_helpsteer_fits, rows=_helpsteer_rows
)
ULTRAFEEDBACK = record_format(
    "ultrafeedback",
    "UltraFeedback: instruction and completions with annotations per axis",
    fits=_ultrafeedback_fits,
    rows=_ultrafeedback_rows,
)
