"""Polis: agree, disagree or pass on the statements of a conversation, with opinion groups and times.

Read are the exported folder (comments.csv, votes.csv, participants-votes.csv, summary.csv; or a folder of such folders) and the
Parquet form of several conversations (comments, votes, participants). Agree is thumbs up, disagree thumbs down, pass "cannot
tell". The prompt is the conversation: its topic where the summary is there, else its name (in an export, the folder's).

Of several votes by one voter on one statement the last one counts, as in Polis; a note says how many were replaced. Groups are
clusters of these very votes, not independent of them. Which statements a voter saw was chosen by Polis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

import polars as pl

from seamark.errors import UnreadableSource
from seamark.sources.fields import has
from seamark.sources.files import Format, Options, Source, Table

_TABLES = {
    "votes": ("conversation", "timestamp", "comment_id", "voter_id", "vote"),
    "comments": ("conversation", "comment_id", "comment_body"),
    "participants": ("conversation", "participant", "group_id"),
}
_KEY = ["conversation", "voter_id", "comment_id"]


def _is_normalised(source: Source) -> bool:
    return all(name in source.tables and has(source.tables[name].sample[0], *columns) for name, columns in _TABLES.items()) and isinstance(
        source.tables["votes"].sample[0]["timestamp"], datetime
    )


def _exports(source: Source) -> list[Table]:
    """The tables of votes of exported folders."""
    return [
        table
        for name, table in source.tables.items()
        if PurePath(name).name == "votes" and has(table.sample[0], "timestamp", "comment-id", "voter-id", "vote")
    ]


def _matches(source: Source) -> bool:
    return _is_normalised(source) or bool(_exports(source))


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:  # noqa: ARG001 - what is wrong shows in the outcome
    frames = [_normalised(source)] if _is_normalised(source) else [_exported(source, table) for table in _exports(source)]
    if not frames:
        raise UnreadableSource(str(source.path), "there are no votes of Polis", "Give the exported folder with votes.csv and comments.csv.")
    replaced = 0
    for frame in frames:
        # the file is not in order of time
        last = frame.sort("time", "line", nulls_last=False).unique(_KEY, keep="last", maintain_order=True).sort("line")
        replaced += frame.height - last.height
        yield _columns(last)
    if replaced:
        source.notes.append(f"{replaced:,} votes were replaced by a later vote of the same voter on the same statement")


def _normalised(source: Source) -> pl.DataFrame:
    votes = source.tables["votes"].frame().with_row_index("line", offset=1)
    statement, voter = ["conversation", "comment_id"], ["conversation", "voter_id"]
    texts = source.tables["comments"].frame().select(*statement, "comment_body").unique(statement, keep="first")
    people = source.tables["participants"].frame().rename({"participant": "voter_id"})
    return (
        votes.join(texts, on=statement, how="left", maintain_order="left")
        .join(people.select(*voter, "group_id").unique(voter, keep="first"), on=voter, how="left", maintain_order="left")
        .with_columns(pl.col("conversation").alias("topic"), pl.col("timestamp").dt.replace_time_zone("UTC").alias("time"))
    )


def _exported(source: Source, votes: Table) -> pl.DataFrame:
    """The votes of one export, with the columns of the Parquet form."""
    folder = PurePath(votes.name).parent
    others = {name: source.tables.get(str(folder / name)) for name in ("comments", "participants-votes", "summary")}
    conversation = votes.path.resolve().parent.name
    stamp = pl.col("timestamp").cast(pl.Int64, strict=False)
    frame = (
        votes.frame()
        .with_row_index("line", offset=2)
        .rename({"comment-id": "comment_id", "voter-id": "voter_id"})
        .with_columns(
            pl.lit(conversation).alias("conversation"),
            pl.lit(_topic(others["summary"]) or conversation).alias("topic"),
            # the oldest exports count seconds, the others milliseconds
            pl.from_epoch(pl.when(stamp < 10**11).then(stamp * 1000).otherwise(stamp), "ms").dt.replace_time_zone("UTC").alias("time"),
        )
    )
    if (comments := others["comments"]) is not None:
        texts = comments.frame().select(pl.col("comment-id").alias("comment_id"), pl.col("comment-body").alias("comment_body"))
        frame = frame.join(texts.unique("comment_id", keep="first"), on="comment_id", how="left", maintain_order="left")
    else:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("comment_body"))
    if (participants := others["participants-votes"]) is not None:
        groups = participants.frame().select(pl.col("participant").alias("voter_id"), pl.col("group-id").alias("group_id"))
        return frame.join(groups.unique("voter_id", keep="first"), on="voter_id", how="left", maintain_order="left")
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias("group_id"))


def _topic(summary: Table | None) -> str | None:
    """The summary has a name and a value per row and no header, so that its first row, the topic, is read as one."""
    if summary is None:
        return None
    header = list(summary.sample[0])
    return header[1] if len(header) == 2 and header[0] == "topic" else None


def _columns(frame: pl.DataFrame) -> dict[str, Any]:
    vote = pl.col("vote").cast(pl.Int64, strict=False)
    statement = pl.concat_str("conversation", pl.col("comment_id").cast(pl.String), separator="/")
    voter = pl.concat_str("conversation", pl.col("voter_id").cast(pl.String), separator="/")
    return frame.select(
        pl.col("line").cast(pl.Int64),
        pl.concat_str(statement, pl.col("voter_id").cast(pl.String), separator="/").alias("id"),
        pl.lit("thumbs").alias("kind"),
        pl.col("topic").alias("prompt"),
        pl.lit(False).alias("prompt_is_messages"),
        pl.col("conversation").alias("prompt_id"),
        pl.when(pl.col("comment_body").is_not_null()).then(pl.concat_list("comment_body")).alias("texts"),
        pl.concat_list(statement).alias("ids"),
        # a vote that is none of the three shows up as an outcome that is refused
        pl.when(vote.is_in([1, -1]))
        .then(pl.lit("answered"))
        .when(vote == 0)
        .then(pl.lit("cannot_tell"))
        .otherwise(pl.col("vote").cast(pl.String))
        .alias("outcome"),
        pl.when(vote.is_in([1, -1])).then(vote == 1).alias("thumb"),
        voter.alias("rater"),
        pl.lit("person").alias("rater_kind"),
        pl.concat_str("conversation", pl.col("group_id").cast(pl.String), separator="/").alias("group"),
        pl.col("time").dt.cast_time_unit("us"),
    ).to_dict()


FORMAT = Format(
    "polis", "Polis: agree, disagree or pass on statements (exported CSV folder, or its tables)", _matches, _read, derived=("group",)
)
