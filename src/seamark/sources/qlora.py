"""QLoRA's evaluation and FastChat reviews: GPT-4 compares two answers, or scores both, each pair in both orders.

Read are the reviews as JSON lines (github.com/artidoro/qlora, FastChat's layout) and their Parquet form (vicuna_pairwise,
vicuna_scored_vs_gpt35, oa_pairwise, with vicuna_questions and vicuna_responses). System 1 was shown first. A verdict gives a
pair, the two scores of a review two ratings from 1 to 10. What could not be read as a verdict or score (-1 in the reviews), and
a score of 0, is skipped, with the reason. Answers without text in the source are named "question/system" (in raw reviews: by
their answer id).
Source: Dettmers et al., NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, has, missing, needed_word, number, read_rows, text_or_none, word
from seamark.sources.files import Format, Options, Record, Source, Table

_JUDGE = "gpt-4"
_VERDICTS = {"1": "left", "2": "right", "tie": "tie", "invalid": "skipped"}
_SCORES = {1: "left", 2: "right", 3: "tie", 0: "tie"}
_LOW, _HIGH = 1.0, 10.0
_NO_VERDICT, _NO_SCORE, _OFF_SCALE = "no parseable verdict", "no parseable score", "the score lies outside 1 to 10"


def _is_review(record: Record) -> bool:
    return has(record, "review_id", "question_id", "answer1_id", "answer2_id", "text", "score")


def _is_verdict(record: Record) -> bool:
    return has(record, "question_id", "system_1", "system_2", "verdict")


def _is_scored(record: Record) -> bool:
    return has(record, "question_id", "system_1", "system_2", "score_1", "score_2")


def _matches(source: Source) -> bool:
    return any(any(map(fits, t.sample)) for t in source.tables.values() for fits in (_is_review, _is_verdict, _is_scored))


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    if not _matches(source):
        raise UnreadableSource(str(source.path), "these are not reviews by GPT-4", "Give FastChat's reviews, or the folder of tables.")
    for table in source.tables.values():
        if any(map(_is_verdict, table.sample)):
            yield _verdicts(_with_texts(source, table))
        elif any(map(_is_scored, table.sample)):
            yield _ratings(_with_texts(source, table))
        elif any(map(_is_review, table.sample)):
            yield from read_rows([table], options, _review_rows(table))


# ---------------------------------------------------------------------------------------------- tables


def _with_texts(source: Source, table: Table) -> pl.DataFrame:
    """The table with line, question, response_1 and response_2, null where the source does not have them."""
    frame = table.frame().with_row_index("line", offset=1).with_columns(pl.col("question_id").cast(pl.String))
    if "review" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("review"))
    family = table.name.rsplit("/", 1)[-1].split("_")[0]
    questions, responses = (source.tables.get(f"{family}_{what}") for what in ("questions", "responses"))
    if questions is None:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("question"))
    else:
        frame = frame.join(_keyed(questions, "question_id", "question"), on="question_id", how="left", maintain_order="left")
    for k in (1, 2):
        if responses is None:
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(f"response_{k}"))
        else:
            texts = _keyed(responses, "question_id", "system", "response").rename({"system": f"system_{k}", "response": f"response_{k}"})
            frame = frame.join(texts, on=["question_id", f"system_{k}"], how="left", maintain_order="left")
    return frame


def _keyed(table: Table, *columns: str) -> pl.DataFrame:
    """The columns, of which all but the last are the key."""
    if not has(table.sample[0], *columns):
        raise UnreadableSource(str(table.path), f"it lacks one of {', '.join(columns)}", "Check how it was written.")
    return table.frame().select(pl.col(column).cast(pl.String) for column in columns).unique(columns[:-1], keep="first")


def _asked() -> list[pl.Expr]:
    return [
        pl.col("line").cast(pl.Int64),
        pl.col("question").alias("prompt"),
        pl.when(pl.col("question").is_not_null()).then(pl.lit(False)).alias("prompt_is_messages"),
        pl.col("question_id").alias("prompt_id"),
        pl.lit(_JUDGE).alias("rater"),
        pl.lit("model").alias("rater_kind"),
        pl.col("review").alias("rationale"),
    ]


def _verdicts(frame: pl.DataFrame) -> dict[str, Any]:
    names = [pl.concat_str("question_id", f"system_{k}", separator="/") for k in (1, 2)]
    some = pl.any_horizontal(pl.col("response_1", "response_2").is_not_null())
    return frame.select(
        *_asked(),
        pl.concat_str("question_id", "system_1", "system_2", separator="/").alias("id"),
        pl.lit("pair").alias("kind"),
        pl.when(some).then(pl.concat_list("response_1", "response_2")).alias("texts"),
        pl.concat_list(*names).alias("ids"),
        pl.concat_list("system_1", "system_2").alias("models"),
        pl.lit(True).alias("order_known"),
        pl.col("verdict").cast(pl.String).replace(_VERDICTS).alias("outcome"),
        pl.when(pl.col("verdict") == "invalid").then(pl.lit(_NO_VERDICT)).alias("reason"),
    ).to_dict()


def _ratings(frame: pl.DataFrame) -> dict[str, Any]:
    sides: list[pl.DataFrame] = []
    for k in (1, 2):
        score, text = pl.col(f"score_{k}").cast(pl.Float64, strict=False), pl.col(f"response_{k}")
        usable = score.is_between(_LOW, _HIGH)
        sides.append(
            frame.select(
                *_asked(),
                pl.concat_str("question_id", "system_1", "system_2", pl.lit(str(k)), separator="/").alias("id"),
                pl.lit("rating").alias("kind"),
                pl.when(text.is_not_null()).then(pl.concat_list(text)).alias("texts"),
                pl.concat_list(pl.concat_str("question_id", f"system_{k}", separator="/")).alias("ids"),
                pl.concat_list(f"system_{k}").alias("models"),
                pl.when(usable).then(pl.lit("answered")).otherwise(pl.lit("skipped")).alias("outcome"),
                pl.when(usable).then(score).alias("rating"),
                pl.when(usable).then(None).when(score >= 0).then(pl.lit(_OFF_SCALE)).otherwise(pl.lit(_NO_SCORE)).alias("reason"),
                pl.lit(_LOW).alias("scale_low"),
                pl.lit(_HIGH).alias("scale_high"),
            )
        )
    return pl.concat(sides).sort("line", maintain_order=True).to_dict()


# ---------------------------------------------------------------------------------------------- FastChat reviews


def _review_rows(table: Table) -> Any:
    """The reader of one file of reviews; which model judged is only in the file's name."""
    named = any(judge in table.path.name.lower() for judge in ("gpt-4", "gpt4"))

    def rows(record: Record) -> Sequence[Row]:
        if "score" not in record:
            raise missing(record, "score")
        name, score = needed_word(record, "review_id"), record["score"]
        reviewer = word(record, "reviewer_id")
        shared: Row = {
            "prompt_id": needed_word(record, "question_id"),
            "rater": _JUDGE if named else reviewer and f"reviewer {reviewer}",
            "rater_kind": "model",
            "rationale": text_or_none(record, "text"),
        }
        answers = [needed_word(record, f"answer{k}_id") for k in (1, 2)]
        if isinstance(score, list):
            if len(score) != 2:
                raise WrongField("score", score, "Give a score for each of the two answers.")
            return [shared | _rating(name, answers[k], k, score[k]) for k in (0, 1)]
        value = number(record, "score")
        verdict = {"outcome": _SCORES[int(value)]} if value in _SCORES else {"outcome": "skipped", "reason": _NO_VERDICT}
        return [shared | verdict | {"id": name, "kind": "pair", "ids": answers, "order_known": True}]

    return rows


def _rating(name: str, answer: str, k: int, score: object) -> Row:
    value = number({"score": score}, "score")
    row: Row = {"id": f"{name}/{k + 1}", "kind": "rating", "ids": [answer], "scale_low": _LOW, "scale_high": _HIGH}
    if value is not None and _LOW <= value <= _HIGH:
        return row | {"rating": value}
    return row | {"outcome": "skipped", "reason": _NO_SCORE if value is None or value < 0 else _OFF_SCALE}


FORMAT = Format("qlora", "GPT-4 as judge: verdicts and scores on two answers (FastChat reviews, or QLoRA's tables)", _matches, _read)
