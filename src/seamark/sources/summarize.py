"""OpenAI's summarize-from-feedback: comparisons of two summaries of a post, and axis ratings from 1 to 7.

Source: Stiennon et al. 2020 (arXiv 2009.01325); github.com/openai/summarize-from-feedback.
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import (
    Row,
    WrongField,
    has,
    integer,
    mapping,
    mappings,
    missing,
    number,
    record_format,
    text,
    text_or_none,
    word,
)
from seamark.sources.files import Record


def _fits(record: Record) -> bool:
    return isinstance(record.get("info"), dict) and (has(record, "summaries", "choice") or has(record, "summary", "worker"))


def _rows(record: Record) -> Sequence[Row]:
    shared: Row = {"rater": word(record, "worker"), "team": word(record, "batch")} | _prompt(mapping(record, "info"))
    shared["rater_kind"] = "person" if shared["rater"] is not None else None
    if "summaries" not in record:
        return _ratings(record, shared)
    shown = mappings(record, "summaries", least=2)
    choice = integer(record, "choice")
    if choice is None:
        raise missing(record, "choice")
    if len(shown) != 2 or choice not in (0, 1):
        raise WrongField("choice", record["choice"], "There are two summaries, and the choice is 0 or 1.")
    row: Row = {"kind": "pair", "texts": [text(s, "text") for s in shown], "models": [word(s, "policy") for s in shown]}
    extra = mapping(record, "extra")
    row |= {"outcome": ("left", "right")[choice], "confidence": number(extra, "confidence"), "rationale": text_or_none(record, "note")}
    return [shared | row]


def _ratings(record: Record, shared: Row) -> list[Row]:
    summary = mapping(record, "summary")
    row: Row = {
        "kind": "rating",
        "texts": [text(summary, "text")],
        "models": [word(summary, "policy")],
        "scale_low": 1.0,
        "scale_high": 7.0,
    }
    row["rationale"] = text_or_none(summary, "note")
    axes = mapping(summary, "axes")
    given = [(axis, number(axes, axis)) for axis in axes]
    return [shared | row | {"axis": axis} | ({"outcome": "skipped"} if value is None else {"rating": value}) for axis, value in given]


def _prompt(info: Record) -> Row:
    title, subreddit = text_or_none(info, "title"), text_or_none(info, "subreddit")
    body = text_or_none(info, "post") or text_or_none(info, "article")
    if body is None:
        raise missing(info, "post")
    parts = [("SUBREDDIT: r/", subreddit), ("TITLE: ", title), ("POST: ", body)]
    prompt = "\n\n".join(name + value for name, value in parts if value) if subreddit or title else body
    return {"prompt": prompt, "prompt_id": word(info, "id")}


FORMAT = record_format("summarize-from-feedback", "OpenAI summaries: info, summaries, choice, worker", fits=_fits, rows=_rows)
