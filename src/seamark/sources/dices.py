"""DICES: whether the last reply of a chatbot is unsafe, every conversation rated by many raters.

Read are the original CSV (github.com/google-research-datasets/dices-dataset), the copy in JUDGE-BENCH (one JSON object) and
its Parquet form (items, ratings). Each rating is a thumbs judgment on the axis "safety": thumb is true where the rater found
nothing unsafe.

Q_overall sums up the questions "unsafe because ...", so Yes means UNSAFE. The prompt in the JUDGE-BENCH file words the
question the other way round; the answers there are those of Q_overall all the same. Without rater ids a rater is the position
in the list of scores, which is stable over conversations. The experts' gold label, the majority and the detailed questions
are left out, which a note says.
Source: Aroyo et al. 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from seamark.errors import UnreadableSource
from seamark.sources.fields import (
    Row,
    WrongField,
    has,
    items,
    mapping,
    mappings,
    moment,
    needed_word,
    number,
    profile,
    read_rows,
    text,
    word,
)
from seamark.sources.files import Format, Options, Record, Source

_ABOUT = ("gender", "race", "raw_race", "age", "education", "locale")
_ANSWERS: dict[str, Row] = {"No": {"thumb": True}, "Yes": {"thumb": False}, "Unsure": {"outcome": "cannot_tell"}}


def _is_csv(record: Record) -> bool:
    return has(record, "rater_id", "item_id", "context", "response", "Q_overall")


def _is_judge_bench(record: Record) -> bool:
    return has(record, "dataset", "instances", "annotations") and "dices" in str(record["dataset"]).lower()


def _is_normalised(source: Source) -> bool:
    return (
        {"items", "ratings"} <= set(source.tables)
        and has(source.tables["items"].sample[0], "item_id", "context", "response")
        and has(source.tables["ratings"].sample[0], "item_id", "rater_index", "q_overall")
    )


def _matches(source: Source) -> bool:
    return _is_normalised(source) or any(_is_csv(t.sample[0]) or _is_judge_bench(t.sample[0]) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    source.notes.append("Yes means unsafe; the experts' gold label, the majority and the detailed questions are left out")
    if _is_normalised(source):
        ratings = source.tables["ratings"].frame().with_row_index("line", offset=1)
        texts = source.tables["items"].frame().unique("item_id", keep="first")
        yield _columns(ratings.join(texts, on="item_id", how="left", maintain_order="left"))
        return
    known = [
        (t, rows) for t in source.tables.values() for fits, rows in ((_is_csv, _csv_rows), (_is_judge_bench, _scores)) if fits(t.sample[0])
    ]
    if not known:
        raise UnreadableSource(str(source.path), "this is not DICES", "Its CSV has rater_id, item_id, context, response and Q_overall.")
    for table, rows in known:
        yield from read_rows([table], options, rows)


def _columns(frame: pl.DataFrame) -> dict[str, Any]:
    item, rater, answer = pl.col("item_id").cast(pl.String), "rater" + pl.col("rater_index").cast(pl.String), pl.col("q_overall")
    return frame.select(
        pl.col("line").cast(pl.Int64),
        pl.concat_str(item, rater, separator="/").alias("id"),
        pl.lit("thumbs").alias("kind"),
        pl.col("context").alias("prompt"),
        pl.lit(False).alias("prompt_is_messages"),
        pl.concat_list("response").alias("texts"),
        pl.concat_list(item).alias("ids"),
        pl.when(answer.is_in(["Yes", "No"])).then(pl.lit("answered")).otherwise(answer.replace("Unsure", "cannot_tell")).alias("outcome"),
        pl.when(answer.is_in(["Yes", "No"])).then(answer == "No").alias("thumb"),
        pl.lit("safety").alias("axis"),
        rater.alias("rater"),
        pl.lit("person").alias("rater_kind"),
    ).to_dict()


def _scores(record: Record) -> Sequence[Row]:
    """All ratings of a JUDGE-BENCH file, which is one record."""
    rows: list[Row] = []
    for instance in mappings(record, "instances"):
        shown, scores = mapping(instance, "instance"), mapping(mapping(instance, "annotations"), "safety")
        name = needed_word(instance, "id")
        for k, answer in enumerate(items(scores, "individual_human_scores")):
            row = _thumb(text(shown, "user_prompt"), text(shown, "response"), name, f"rater{k}")
            # the file is a single record: an answer that is none of the three is refused as an outcome, alone
            rows.append(row | _ANSWERS.get(str(answer), {"outcome": str(answer)}))
    return rows


def _csv_rows(record: Record) -> Sequence[Row]:
    rater = needed_word(record, "rater_id")
    answer = text(record, "Q_overall")
    if answer not in _ANSWERS:
        raise WrongField("Q_overall", answer, "Use Yes (unsafe), No or Unsure.")
    row = _thumb(text(record, "context"), text(record, "response"), needed_word(record, "item_id"), rater)
    milliseconds, phase = number(record, "answer_time_ms"), word(record, "phase")
    more = {
        "rater_profile": profile({name: record.get(f"rater_{name}") for name in _ABOUT}),
        "seconds": None if milliseconds is None else milliseconds / 1000,
        "time": moment(record, "answer_timestamp"),
        "provenance": phase and f"phase:{phase}",
    }
    return [row | _ANSWERS[answer] | more]


def _thumb(context: str, response: str, item: str, rater: str) -> Row:
    shown = {"prompt": context, "texts": [response], "ids": [item]}
    return shown | {"id": f"{item}/{rater}", "kind": "thumbs", "axis": "safety", "rater": rater, "rater_kind": "person"}


FORMAT = Format("dices", "DICES: safety of conversations, rated by many (CSV, JUDGE-BENCH JSON, or its tables)", _matches, _read)
