"""HANNA: stories of eleven systems rated from 1 to 5 on six axes, three ratings per story and axis.

Read is the table of scores of github.com/dig-team/hanna-benchmark-asg, whose columns "Human 1 RE" to "Human 3 CX" hold the
ratings. The stories themselves are not in it: a response is "system/prompt". The rater is not known: the three columns are
slots that different workers filled, not persons; the id ends in the slot.
The scores of language models and the automatic metrics, which nobody judged, are left out, which a note says.
Source: Chhun et al., COLING 2022 and TACL 2024.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from seamark.errors import UnreadableSource
from seamark.sources.fields import has
from seamark.sources.files import Format, Options, Record, Source

_AXES = {"RE": "relevance", "CH": "coherence", "EM": "empathy", "SU": "surprise", "EG": "engagement", "CX": "complexity"}
_SLOTS = [f"Human {slot} {axis}" for axis in _AXES for slot in (1, 2, 3)]


def _fits(record: Record) -> bool:
    return has(record, "model", "prompt_index", *_SLOTS)


def _matches(source: Source) -> bool:
    return any(_fits(t.sample[0]) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:  # noqa: ARG001 - a cell that is no number is null
    tables = [t for t in source.tables.values() if _fits(t.sample[0])]
    if not tables:
        raise UnreadableSource(
            str(source.path), "these are not the scores of HANNA", "Its columns are model, prompt_index and Human 1 RE to 3 CX."
        )
    for table in tables:
        frame = table.frame()
        judges = {m[1] for c in frame.columns if (m := re.fullmatch(r"(.+) (?:RE|AVG) \d", c)) and not m[1].startswith("Human")}
        source.notes.append(f"the automatic metrics and the scores of {len(judges)} language models are left out")
        yield _columns(frame.with_row_index("line", offset=1))


def _columns(frame: pl.DataFrame) -> dict[str, Any]:
    story = pl.concat_str("model", "prompt_index", separator="/")
    long = (
        frame.select("line", "model", "prompt_index", *(pl.col(c).cast(pl.Float64, strict=False) for c in _SLOTS))
        .unpivot(_SLOTS, index=["line", "model", "prompt_index"], value_name="rating")
        .with_columns(pl.col("variable").str.slice(-2).replace(_AXES).alias("axis"), pl.col("variable").str.slice(6, 1).alias("slot"))
        .filter(pl.col("rating").is_not_null())
        .sort("line", maintain_order=True)
    )
    return long.select(
        pl.col("line").cast(pl.Int64),
        pl.concat_str(story, "axis", "slot", separator="/").alias("id"),
        pl.lit("rating").alias("kind"),
        pl.col("prompt_index").cast(pl.String).alias("prompt_id"),
        pl.concat_list(story).alias("ids"),
        pl.concat_list("model").alias("models"),
        pl.lit("answered").alias("outcome"),
        "rating",
        pl.lit(1.0).alias("scale_low"),
        pl.lit(5.0).alias("scale_high"),
        "axis",
    ).to_dict()


FORMAT = Format("hanna", "HANNA: stories rated on six axes, three ratings each", _matches, _read)
