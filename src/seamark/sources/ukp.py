"""UKPConvArg1: which of two arguments for the same side of a debate is more convincing, with the single crowd votes.

Read are the XML files of github.com/UKPLab/acl2016-convincing-arguments (one per side) and their Parquet form (judgments,
pairs, arguments). The prompt is the side: "title — stance", then the description where the site had one.

The seconds are those of the whole assignment, idle time included. A1 and A2 are the names the workers saw, but which of them
stood first is not published. The workers' competence is left out: it was computed from these very votes.
Source: Habernal & Gurevych, ACL 2016.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.parsers import expat

import polars as pl

from seamark.errors import UnreadableSource
from seamark.sources.fields import has
from seamark.sources.files import Format, Options, Source

_OUTCOMES = {"a1": "left", "a2": "right", "equal": "tie"}
_TABLES = {
    "judgments": ("pair_id", "worker", "assignment_id", "accept_time", "submit_time", "value", "reason", "worker_stance"),
    "pairs": ("pair_id", "debate", "side", "debate_title", "debate_description", "arg1_id", "arg2_id", "arg1", "arg2"),
    "arguments": ("side", "stance"),
}
_TIME = "%Y-%m-%d %H:%M:%S%.f UTC"


def _matches(source: Source) -> bool:
    return _is_normalised(source) or any(map(_is_xml, source.files))


def _is_normalised(source: Source) -> bool:
    return all(name in source.tables and has(source.tables[name].sample[0], *columns) for name, columns in _TABLES.items()) and all(
        isinstance(source.tables["judgments"].sample[0][name], datetime) for name in ("accept_time", "submit_time")
    )


def _is_xml(path: Path) -> bool:
    if path.suffix.lower() != ".xml":
        return False
    with path.open("rb") as stream:
        return b"<annotatedArgumentPair" in stream.read(4096)


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:  # noqa: ARG001 - what is wrong shows in the outcome
    if _is_normalised(source):
        pairs = source.tables["pairs"].frame().unique("pair_id", keep="first", maintain_order=True)
        sides = source.tables["arguments"].frame().select("side", "stance").unique("side", keep="first", maintain_order=True)
        votes = source.tables["judgments"].frame().with_row_index("line", offset=1)
        frame = votes.join(pairs.join(sides, on="side", how="left"), on="pair_id", how="left", maintain_order="left")
        if same := pairs.filter(pl.col("arg1") == pl.col("arg2")).height:
            source.notes.append(f"{same} pairs show the same text twice")
        yield _columns(frame)
        return
    files = [path for path in source.files if _is_xml(path)]
    if not files:
        raise UnreadableSource(
            str(source.path), "these are not the arguments of UKPConvArg1", "Give its XML files, or the folder of tables."
        )
    for path in files:
        yield _columns(_xml_frame(path))


def _columns(frame: pl.DataFrame) -> dict[str, Any]:
    title = pl.concat_str("debate_title", "stance", separator=" — ", ignore_nulls=True)
    accepted, submitted = pl.col("accept_time"), pl.col("submit_time")
    return frame.select(
        pl.col("line").cast(pl.Int64),
        pl.concat_str("pair_id", "assignment_id", separator="/").alias("id"),
        pl.lit("pair").alias("kind"),
        pl.concat_str(title, "debate_description", separator="\n\n", ignore_nulls=True).alias("prompt"),
        pl.lit(False).alias("prompt_is_messages"),
        pl.col("side").alias("prompt_id"),
        pl.concat_list("arg1", "arg2").alias("texts"),
        pl.concat_list("arg1_id", "arg2_id").alias("ids"),
        pl.lit(False).alias("order_known"),
        pl.col("value").replace(_OUTCOMES).alias("outcome"),
        pl.col("worker").alias("rater"),
        pl.lit("person").alias("rater_kind"),
        pl.col("worker_stance").alias("group"),
        submitted.dt.replace_time_zone("UTC").dt.cast_time_unit("us").alias("time"),
        ((submitted - accepted).dt.total_milliseconds() / 1000).alias("seconds"),
        pl.col("assignment_id").alias("session"),
        pl.col("reason").alias("rationale"),
        ("debate:" + pl.col("debate")).alias("provenance"),
    ).to_dict()


# ---------------------------------------------------------------------------------------------- XML


def _xml_frame(path: Path) -> pl.DataFrame:
    """One row per vote, named as in the tables; the file's name is the side."""
    _refuse_doctype(path)
    side = path.name.split(".")[0]
    rows: list[dict[str, str | None]] = []
    try:
        for _, pair in ET.iterparse(path):
            if pair.tag != "annotatedArgumentPair":
                continue
            shared = {
                "pair_id": f"{side}/{pair.findtext('id')}",
                "side": side,
                "debate": side.split("_")[0],
                "debate_title": pair.findtext("debateMetaData/title"),
                "debate_description": pair.findtext("debateMetaData/description") or None,
                "stance": pair.findtext("arg1/stance"),
                **{f"arg{k}": pair.findtext(f"arg{k}/text") for k in (1, 2)},
                **{f"arg{k}_id": pair.findtext(f"arg{k}/id") for k in (1, 2)},
            }
            for vote in pair.iterfind("mTurkAssignments/mTurkAssignment"):
                named = {
                    "worker": "turkID",
                    "assignment_id": "assignmentId",
                    "accept_time": "assignmentAcceptTime",
                    "submit_time": "assignmentSubmitTime",
                    "value": "value",
                    "reason": "reason",
                    "worker_stance": "workerStance",
                }
                rows.append(shared | {ours: vote.findtext(theirs) for ours, theirs in named.items()})
            pair.clear()
    except ET.ParseError as error:
        raise UnreadableSource(str(path), f"malformed XML ({error})", "Copy or download it again.") from None
    if not rows:
        raise UnreadableSource(str(path), "there is no vote in it", "Give the corpus with the single crowd votes (mTurkAssignments).")
    times = [pl.col(name).str.to_datetime(_TIME, strict=False) for name in ("accept_time", "submit_time")]
    return pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String)).with_columns(times).with_row_index("line", offset=1)


class _RootReached(Exception):
    pass


def _refuse_doctype(path: Path) -> None:
    """Stop at a DOCTYPE, where entities are declared that grow without bound; none can follow the first element."""

    def refuse(*_: object) -> None:
        raise UnreadableSource(str(path), "the XML has a DOCTYPE", "Remove the declaration; the published files have none.")

    def stop(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(2**16):
                parser.Parse(chunk)
    except _RootReached:
        pass
    except expat.ExpatError as error:
        raise UnreadableSource(str(path), f"malformed XML ({error})", "Copy or download it again.") from None


FORMAT = Format("ukp-convarg", "UKPConvArg1: arguments of a debate compared by crowd workers (XML, or its tables)", _matches, _read)
