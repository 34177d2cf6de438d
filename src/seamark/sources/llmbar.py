"""LLMBar: which of two outputs follows the instruction, agreed on by experts, and the verdicts of language models on them.

Read are dataset.json of github.com/princeton-nlp/LLMBar and its Parquet form (pairs, judge_verdicts). The gold label is a pair
by the rater "expert", output 1 on the left, whose order shown is not known. A verdict is a pair by the rater "judge/prompting"
in the order shown to it; one without a winner is "cannot tell". Prompting in several calls gives a verdict per call.
Source: Zeng et al., ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, has, integer, read_rows, text
from seamark.sources.files import Format, Options, Record, Source


def _fits(record: Record) -> bool:
    return has(record, "input", "output_1", "output_2", "label") and "instruction" not in record


def _is_verdict(record: Record) -> bool:
    return has(record, "subset", "idx", "judge", "prompting", "call", "winner") and isinstance(record.get("swapped"), bool)


def _is_normalised(source: Source) -> bool:
    pairs = source.tables.get("pairs")
    return pairs is not None and _fits(pairs.sample[0]) and has(pairs.sample[0], "subset", "idx")


def _matches(source: Source) -> bool:
    return any(any(map(_fits, t.sample)) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    if not _matches(source):
        raise UnreadableSource(str(source.path), "this is not LLMBar", "Its fields are input, output_1, output_2 and label.")
    if not _is_normalised(source):
        yield from read_rows((t for t in source.tables.values() if any(map(_fits, t.sample))), options, _gold)
        return
    name = pl.concat_str("subset", pl.col("idx").cast(pl.String), separator="/")
    pairs = source.tables["pairs"].frame().with_columns(name.alias("name")).unique("name", keep="first", maintain_order=True)
    gold = pairs.with_row_index("line", offset=1).select(
        "line",
        "name",
        "input",
        *_shown(pl.lit(False)),
        pl.lit(False).alias("order_known"),
        pl.col("label").cast(pl.String).replace({"1": "left", "2": "right"}).alias("outcome"),
        pl.lit("expert").alias("rater"),
        pl.lit("person").alias("rater_kind"),
    )
    yield _columns(gold, pl.col("name"))
    verdicts = source.tables.get("judge_verdicts")
    if verdicts is None or not _is_verdict(verdicts.sample[0]):
        return
    frame = verdicts.frame().with_row_index("line", offset=1).with_columns(name.alias("name"))
    rater = pl.concat_str("judge", "prompting", separator="/")
    swapped, winner = pl.col("swapped"), pl.col("winner").cast(pl.String)
    judged = frame.join(pairs.select("name", "input", "output_1", "output_2"), on="name", how="left", maintain_order="left").select(
        "line",
        "name",
        "input",
        "call",
        "swapped",
        *_shown(swapped),
        pl.lit(True).alias("order_known"),
        pl.when(winner.is_null())
        .then(pl.lit("cannot_tell"))
        .when(winner.is_in(["1", "2"]))
        .then(pl.when((winner == "2") == swapped).then(pl.lit("left")).otherwise(pl.lit("right")))
        .otherwise(winner)
        .alias("outcome"),
        rater.alias("rater"),
        pl.lit("model").alias("rater_kind"),
    )
    order = pl.when(swapped).then(pl.lit("2-1")).otherwise(pl.lit("1-2"))
    yield _columns(judged, pl.concat_str("name", "rater", order, pl.col("call").cast(pl.String), separator="/"))


def _shown(swapped: pl.Expr) -> list[pl.Expr]:
    """The outputs and their names in the order shown."""
    names = [pl.col("name") + f"/output_{k}" for k in (1, 2)]
    return [
        pl.when(swapped).then(pl.concat_list("output_2", "output_1")).otherwise(pl.concat_list("output_1", "output_2")).alias("texts"),
        pl.when(swapped).then(pl.concat_list(*names[::-1])).otherwise(pl.concat_list(*names)).alias("ids"),
    ]


def _columns(frame: pl.DataFrame, name: pl.Expr) -> dict[str, Any]:
    return frame.select(
        pl.col("line").cast(pl.Int64),
        name.alias("id"),
        pl.lit("pair").alias("kind"),
        pl.col("input").alias("prompt"),
        pl.lit(False).alias("prompt_is_messages"),
        pl.col("name").alias("prompt_id"),
        "texts",
        "ids",
        "order_known",
        "outcome",
        "rater",
        "rater_kind",
        ("subset:" + pl.col("name").str.replace(r"/\d+$", "")).alias("provenance"),
    ).to_dict()


def _gold(record: Record) -> Sequence[Row]:
    label = integer(record, "label")
    if label not in (1, 2):
        raise WrongField("label", record.get("label"), "Use 1 or 2 for the better output.")
    shown = {"prompt": text(record, "input"), "texts": [text(record, "output_1"), text(record, "output_2")], "order_known": False}
    return [shown | {"kind": "pair", "outcome": "left" if label == 1 else "right", "rater": "expert", "rater_kind": "person"}]


FORMAT = Format("llmbar", "LLMBar: two outputs with a gold label, and verdicts of model judges", _matches, _read)
