"""MQM: errors that professional raters marked in translations, with category and severity.

Read are the TSV files of github.com/google/wmt-mqm-human-evaluation (the marked text stands between <v> and </v>; the
side-by-side files also have a column of metadata with times) and their Parquet form (errors, translations, sources). A row gives
a label judgment of the translation: the label is the severity, the axis the category up to the slash, the whole category the
reason. A rater who found nothing gives the label "No-error" without axis. "HOTW-test" rows, attention checks with an error
planted in the text, have the axis "HOTW-test" and the label Found or Missed.

The span is counted in characters of the translation without tags. The tables have the marked text but not its place, which is
told where that text occurs once; where it does not, and for an error marked in the source alone, there is no span.
The seconds of the side-by-side files include pauses.
Source: Freitag et al. 2021.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, has, mapping, moment, needed_word, number, read_rows, text, text_or_none, word
from seamark.sources.files import Format, Options, Record, Source

_OPEN, _CLOSE = "<v>", "</v>"
_NO_ERROR, _CHECK = "No-error", "HOTW-test"


def _is_tsv(record: Record) -> bool:
    return has(record, "system", "doc", "rater", "source", "target", "category", "severity")


def _is_normalised(source: Source) -> bool:
    return (
        {"errors", "translations", "sources"} <= set(source.tables)
        and has(source.tables["errors"].sample[0], "system", "seg_id", "rater", "category", "severity", "target_span")
        and has(source.tables["translations"].sample[0], "system", "seg_id", "target")
    )


def _matches(source: Source) -> bool:
    return _is_normalised(source) or any(_is_tsv(t.sample[0]) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    if _is_normalised(source):
        yield from _read_tables(source, options)
        return
    tables = [t for t in source.tables.values() if _is_tsv(t.sample[0])]
    if not tables:
        raise UnreadableSource(
            str(source.path), "this is not MQM", "Its columns are system, doc, rater, source, target, category and severity."
        )
    for table in tables:
        # rater1 of one file is another person than rater1 of the next
        yield from read_rows([table], options, partial(_tagged_row, f"{table.name}/" if len(tables) > 1 else ""))


# ---------------------------------------------------------------------------------------------- TSV


def _tagged_row(raters_of: str, record: Record) -> Sequence[Row]:
    segment = word(record, "globalSegId") or word(record, "seg_id") or word(record, "segId")
    target, start, end = _untag(record, "target")
    metadata = _metadata(record)
    spent = [number(step, "timeMS") for step in mapping(metadata, "timing").values() if isinstance(step, dict)]
    more: Row = {"time": moment(metadata, "timestamp")}
    if spent:
        more["seconds"] = sum(ms or 0.0 for ms in spent) / 1000
    row = _label(record, _untag(record, "source")[0], target, segment, start, end)
    return [row | more | {"rater": raters_of + row["rater"], "provenance": f"doc:{text(record, 'doc')}"}]


def _untag(record: Record, name: str) -> tuple[str, int | None, int | None]:
    """The text without tags, and where the marked part begins and ends (of several parts, the first and the last)."""
    tagged = text(record, name)
    plain = tagged.replace(_OPEN, "").replace(_CLOSE, "")
    if _OPEN not in tagged:
        return plain, None, None
    if _CLOSE not in tagged:
        raise WrongField(name, tagged, "Close <v> with </v>.")
    return plain, tagged.index(_OPEN), len(plain) - (len(tagged) - tagged.rindex(_CLOSE) - len(_CLOSE))


def _metadata(record: Record) -> Record:
    raw = text_or_none(record, "metadata")
    try:
        found = orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        raise WrongField("metadata", raw, "Give a JSON object.") from None
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------------------------------------- tables


def _read_tables(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    records = {name: [r for part, _ in source.tables[name].batches() for r in part] for name in ("translations", "sources")}
    targets = {(r["system"], r["seg_id"]): r["target"] for r in records["translations"]}
    sources = {r["seg_id"]: r for r in records["sources"]}
    counted: Counter[str] = Counter()
    yield from read_rows([source.tables["errors"]], options, partial(_table_row, targets, sources, counted))
    if lost := counted["lost"]:
        source.notes.append(f"{lost:,} marked texts occur more than once in the translation (or not as such), so they have no span")


def _table_row(targets: Mapping[Any, str], sources: Mapping[Any, Record], counted: Counter[str], record: Record) -> Sequence[Row]:
    segment = record.get("seg_id")
    if (record.get("system"), segment) not in targets or segment not in sources:
        raise WrongField("seg_id", segment, "There is no such row in translations or sources.")
    target, marked = targets[record["system"], segment], text_or_none(record, "target_span")
    start = end = None
    if marked is not None:
        start = target.find(marked)
        if start < 0 or start != target.rfind(marked):
            counted["lost"] += 1
            start = None
        else:
            end = start + len(marked)
    milliseconds = number(record, "timing_ms")
    more = {
        "time": moment(record, "timestamp"),
        "seconds": None if milliseconds is None else milliseconds / 1000,
        "provenance": f"doc:{record.get('doc') or sources[segment].get('doc')}",
    }
    row = _label(record, text(sources[segment], "source"), target, str(segment), start, end)
    return [row | more | {"target": "response" if marked is None else "span"}]


# ---------------------------------------------------------------------------------------------- both


def _label(record: Record, source: str, target: str, segment: str | None, start: int | None, end: int | None) -> Row:
    system, category, severity = needed_word(record, "system"), needed_word(record, "category"), needed_word(record, "severity")
    row: Row = {
        "kind": "label",
        "prompt": source,
        "prompt_id": segment,
        "texts": [target],
        "ids": [segment and f"{segment}/{system}"],
        "models": [system],
        "rater": needed_word(record, "rater"),
        "rater_kind": "person",
        "target": "response" if start is None else "span",
        "span_start": start,
        "span_end": end,
    }
    if severity == _NO_ERROR or category == _NO_ERROR:
        return row | {"label": _NO_ERROR}
    if severity == _CHECK:
        return row | {"axis": _CHECK, "label": category}
    return row | {"axis": category.split("/")[0], "label": severity, "reason": category}


FORMAT = Format("mqm", "MQM: errors marked in translations, with category and severity (TSV, or its tables)", _matches, _read)
