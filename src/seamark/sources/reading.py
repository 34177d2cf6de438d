"""Which layout a source has, and `load`, which reads it whatever that is."""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from seamark.columns import COLUMNS, to_frame
from seamark.errors import InvalidSetting, UnreadableSource
from seamark.records import Feedback, LoadReport
from seamark.sources import (
    alpaca_eval,
    arena,
    arena_bench,
    argilla,
    convabuse,
    crowdkit,
    dices,
    fastchat,
    fine_grained,
    hanna,
    hh_rlhf,
    hub,
    labelstudio,
    llmbar,
    mqm,
    oasst,
    pandalm,
    polis,
    prism,
    qlora,
    ranked,
    ratings,
    roscoe,
    seamark,
    sharegpt,
    summarize,
    trl,
    tulu,
    ukp,
)
from seamark.sources import columns as plain
from seamark.sources.files import Format, Options, Source, open_source

FORMATS: tuple[Format, ...] = (
    seamark.FORMAT,
    ukp.FORMAT,
    tulu.FORMAT,
    pandalm.FORMAT,
    fine_grained.FORMAT,
    dices.FORMAT,
    convabuse.FORMAT,
    roscoe.FORMAT,
    hanna.FORMAT,
    polis.FORMAT,
    llmbar.FORMAT,
    qlora.FORMAT,
    arena_bench.FORMAT,
    oasst.FORMAT,
    mqm.FORMAT,
    prism.FORMAT,
    summarize.FORMAT,
    ratings.HELPSTEER,
    ratings.ULTRAFEEDBACK,
    alpaca_eval.FORMAT,
    fastchat.FORMAT,
    arena.FORMAT,
    labelstudio.FORMAT,
    argilla.FORMAT,
    hh_rlhf.FORMAT,
    sharegpt.FORMAT,
    ranked.BEST_OF_N,
    ranked.RANKED,
    trl.FORMAT,
    crowdkit.FORMAT,
    plain.FORMAT,
)
"""Every layout, those told apart by more before those told apart by less."""


def load(
    source: str | Path,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    progress: Callable[[int], None] | None = None,
) -> Feedback:
    """The feedback in a file, a folder or a data set of the Hugging Face hub.

    Parameters
    ----------
    source
        A JSONL, JSON, CSV, TSV or Parquet file (JSON and CSV also as .gz), a folder of them, a folder written by
        `Feedback.to_parquet`, or "hf://owner/name" with ":split" after it where only one split is wanted.
    format
        Name of the layout (see `FORMATS`); told from the fields where not given.
    columns
        Our field names to the file's column names, for plain tables: ``{"left": "answer_a", "right": "answer_b", "outcome": "vote"}``.
    on_error
        "stop" raises at the first bad record; "skip" leaves bad records out and lists them in `Feedback.report.skipped`.
    progress
        Called after each batch with the number of records read so far.

    Returns
    -------
    Feedback
        With `report` saying which layout it was, what was skipped and what was odd.

    Raises
    ------
    UnreadableSource
        If the source or its layout cannot be made out.
    InvalidRecord
        If a record cannot be understood, unless `on_error` is skip.
    InvalidSetting
        If `format` or `on_error` is not a known word.
    """
    if on_error not in ("stop", "skip"):
        raise InvalidSetting("on_error", on_error, "Use 'stop' or 'skip'.")
    name = str(source)
    path, split = hub.download(name) if name.startswith(hub.SCHEME) else (Path(source), None)
    if seamark.is_saved(path) and format in (None, seamark.FORMAT.name):
        return Feedback.from_parquet(path)
    options = Options(columns=columns, on_error=on_error)
    opened = open_source(path, options, split=split)
    chosen = _named(format) if format is not None else _detected(opened, options)
    parts: list[pl.DataFrame] = []
    n_records = 0
    for batch in chosen.read(opened, options):
        part = to_frame(batch)
        parts.append(part)
        n_records += part["line"].n_unique()
        if progress is not None:
            progress(n_records)
    # batches may differ in the covariates they have
    frame = pl.concat(parts, how="diagonal") if parts else to_frame(dict.fromkeys(COLUMNS, ()))
    if not parts and options.skipped:
        raise UnreadableSource(
            name,
            f"none of its {len(options.skipped):,} records is usable",
            f"The first: {options.skipped[0]} Check --format and --columns.",
        )
    report = LoadReport(name, chosen.name, tuple(options.skipped), tuple(opened.notes), chosen.derived)
    return Feedback.from_columns(frame, source=name, on_error=on_error, report=report)


def _named(name: str) -> Format:
    for known in FORMATS:
        if known.name == name:
            return known
    names = [known.name for known in FORMATS]
    near = difflib.get_close_matches(name, names, n=1)
    raise InvalidSetting("format", name, (f"Did you mean {near[0]!r}? " if near else "") + f"Use one of {', '.join(names)}.")


def _detected(source: Source, options: Options) -> Format:
    if options.columns is not None:
        return _named("columns")
    for known in FORMATS:
        if known.matches(source):
            return known
    found = list(dict.fromkeys(field for table in source.tables.values() for record in table.sample for field in record))
    raise UnreadableSource(
        str(source.path),
        f"its layout is not known; its fields are {', '.join(found[:20]) or 'none'}{', ...' if len(found) > 20 else ''}",
        f"{_near_fields(found)}Say which column is what: {_suggestion(found)}. Or name its layout with --format; docs/formats.md lists them.",
    )


_PROMPTS = ("prompt", "question", "query", "instruction", "input", "context")
_VOTES = ("vote", "outcome", "winner", "preference", "preferred", "choice", "better", "label", "answer", "verdict", "judgment", "judgement")
_RATERS = ("rater", "annotator", "worker", "user", "judge", "annotator_id", "worker_id", "user_id", "rater_id")
_SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("one", "two"))


def _suggestion(found: list[str]) -> str:
    """A --columns to copy, from names that look right; a name in capitals stands for what cannot be guessed."""
    lower = {name.lower(): name for name in found}
    left, right = "COLUMN_OF_ONE", "COLUMN_OF_OTHER"
    for name, (a, b) in itertools.product(lower, _SIDES):
        head, mark, tail = name.rpartition(a)
        alone = not head[-1:].isalpha() and not tail[:1].isalpha() if len(a) == 1 and a.isalpha() else True
        if mark and alone and head + b + tail in lower:
            left, right = lower[name], lower[head + b + tail]
            break
    taken = {left, right}

    def among(names: tuple[str, ...]) -> str | None:
        return next((lower[name] for name in names if name in lower and lower[name] not in taken), None)

    said = {
        "prompt": among(_PROMPTS),
        "left": left,
        "right": right,
        "outcome": among(_VOTES) or "COLUMN_OF_THE_ANSWER",
        "rater": among(_RATERS),
    }
    return "--columns " + shlex.quote(",".join(f"{ours}={theirs}" for ours, theirs in said.items() if theirs))


def _near_fields(found: list[str]) -> str:
    """Misspelt names of fields that would have told the layout."""
    near = {name: difflib.get_close_matches(name, _TELLING, n=1, cutoff=0.8) for name in found if name not in _TELLING}
    meant = [f"{name!r} instead of {hits[0]!r}" for name, hits in near.items() if hits]
    return f"Is it {', '.join(meant)}? " if meant else ""


_TELLING = (*plain.NAMES, "completion", "conversations", "messages", "preference", "model_a", "model_b", "worker", "instruction", "output")
