"""Published research sets, in their original layout and as Parquet folders.

Expected numbers are those of the sets' READMEs, or computed in the test from the raw tables by another route.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import seamark.sources as sources
from seamark.errors import InvalidRecord, MissingExtra, UnreadableSource
from seamark.records import Feedback
from seamark.sources import arena_bench, convabuse, dices, fine_grained, hanna, llmbar, mqm, oasst, pandalm, polis, qlora, roscoe, tulu, ukp
from seamark.sources.files import Options, open_source

OURS = [
    m.FORMAT for m in (ukp, tulu, pandalm, fine_grained, dices, hanna, polis, llmbar, qlora, arena_bench, oasst, mqm, convabuse, roscoe)
]

# path, format, judgments, responses (None: texts merge), raters
SETS = [
    ("ukp_convarg", "ukp-convarg", 57_539, None, 3_745),
    ("raw/ukp-convarg1", "ukp-convarg", 150, 30, None),
    ("tulu1_human_eval", "tulu", 3 * 1_150, None, 16),
    ("raw/tulu1", "tulu", 3 * 1_150, None, 16),
    ("pandalm_test", "pandalm", 5 * 999, None, 5),
    ("raw/pandalm/testset-v1.json", "pandalm", 3 * 999, None, 3),
    ("fine_grained_rlhf_dev", "fine-grained", 3_000 + 1_373 + 842, 2_000, 0),
    ("raw/fine-grained-rlhf", "fine-grained", None, 60, 0),
    ("dices_350", "dices", 43_050, 350, 123),
    ("raw/dices", "dices", 43_050, 350, 123),
    ("hanna_scores", "hanna", 1_056 * 18, 1_056, 0),
    ("polis", "polis", None, None, 2_034),
    ("raw/polis/brexit-consensus", "polis", None, 50, 204),
    ("raw/polis", "polis", None, 50, 204),
    ("llmbar", "llmbar", 419 + 58_748, 2 * 419, 1 + 65),
    ("raw/llmbar", "llmbar", 100, 200, 1),
    ("qlora_gpt4_judge", "qlora", 40_026 + 4_480 + 2 * 5_760, None, 1),
    ("raw/qlora", "qlora", 20 + 2 * 20, 40, 1),
    ("arena_bench_v1", "arena-bench", 5_679 + 2_136, None, 1),
    ("raw/arena/arena-bench-v1.model_judgment.claude-2.1.first10.jsonl", "arena-bench", 10, 10, 1),
    ("oasst1_zh_ranked", "oasst", 775, None, 0),
    ("wmt_mqm_ted_ende", "mqm", 8_435, None, 4),
    ("wmt_sxs_mqm_2023_ende", "mqm", 10_970, None, 10),
    ("raw/wmt-mqm/mqm_ted_ende.first300.tsv", "mqm", 299, None, 4),
    ("raw/wmt-mqm/sxs_mqm_generalMT2023_ende.first40.tsv", "mqm", 39, None, 3),
    ("convabuse", "convabuse", None, None, 8),
    ("raw/convabuse", "convabuse", None, None, 8),
    ("roscoe_steps", "roscoe", 4 * 200 + 9 * 881, 200, 0),
]
OTHERS = ["d3code_raters", "hh_rlhf_harmless_test", "raw/hh-rlhf", "raw/llama-factory", "raw/ultrafeedback", "raw/converted-layouts"]
OTHERS += ["raw/arena/arena_hard_battles.jsonl", "raw/arena/arena-bench-v1.model_answer.claude-2.1.first10.jsonl"]


@pytest.fixture(scope="session")
def loaded(real_data: Path) -> Callable[[str], Feedback]:
    """Each set is read once."""
    known: dict[str, Feedback] = {}

    def load(name: str) -> Feedback:
        if name not in known:
            known[name] = sources.load(real_data / name)
        return known[name]

    return load


@pytest.fixture(scope="session")
def table(real_data: Path) -> Callable[[str], pl.DataFrame]:
    return lambda name: pl.read_parquet(real_data / f"{name}.parquet")


@pytest.fixture(scope="session")
def judged(loaded: Any) -> Callable[[str], pl.DataFrame]:
    """The judgments of a set with prompt, texts and rater spelt out."""
    known: dict[str, pl.DataFrame] = {}

    def spell_out(name: str) -> pl.DataFrame:
        if name not in known:
            feedback = loaded(name)
            judgments, texts = feedback.judgments, feedback.responses["text"]
            slots = judgments.with_row_index("row").select("row", "responses").explode("responses")
            slots = slots.select("row", texts.gather(slots["responses"]).alias("texts")).group_by("row", maintain_order=True).agg("texts")
            # gathering from nothing is an error even where nothing is asked for
            prompts, raters = feedback.prompts["text"], feedback.raters["id"]
            known[name] = judgments.with_columns(
                prompts.gather(judgments["prompt"]).alias("prompt_text") if len(prompts) else pl.lit(None).alias("prompt_text"),
                slots["texts"],
                raters.gather(judgments["rater"]).alias("rater_id") if len(raters) else pl.lit(None).alias("rater_id"),
            )
        return known[name]

    return spell_out


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# ---------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(("name", "expected", "judgments", "responses", "raters"), SETS)
def test_set_is_told_and_read_whole(loaded: Any, name: str, expected: str, judgments: int, responses: int, raters: int) -> None:
    feedback = loaded(name)
    assert feedback.report.format == expected
    assert feedback.report.skipped == ()
    if judgments is not None:
        assert feedback.n_judgments == judgments
    if responses is not None:
        assert feedback.n_responses == responses
    if raters is not None:
        assert feedback.n_raters == raters


@pytest.mark.parametrize("name", [name for name, *_ in SETS] + OTHERS)
def test_one_format_at_most_claims_a_source(real_data: Path, name: str) -> None:
    source = open_source(real_data / name, Options())
    claimed = [known.name for known in OURS if known.matches(source)]
    assert claimed == [expected for path, expected, *_ in SETS if path == name]


@pytest.mark.parametrize("name", [known.name for known in OURS])
def test_wrong_format_is_said_so(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / "other.jsonl", [{"colour": "red"}])
    with pytest.raises((UnreadableSource, InvalidRecord), match=r"other\.jsonl"):
        sources.load(path, format=name)


@pytest.mark.parametrize("name", ["raw/tulu1", "raw/polis", "raw/wmt-mqm/sxs_mqm_generalMT2023_ende.first40.tsv", "fine_grained_rlhf_dev"])
def test_round_trip(loaded: Any, tmp_path: Path, name: str) -> None:
    feedback = loaded(name)
    feedback.to_jsonl(tmp_path / "own.jsonl")
    again = sources.load(tmp_path / "own.jsonl")
    assert again.report.format == "seamark"
    assert again.fingerprint == feedback.fingerprint


@pytest.mark.parametrize("name", ["ukp_convarg", "polis", "llmbar", "qlora_gpt4_judge", "hanna_scores"])
def test_table_without_a_needed_column_is_not_claimed(real_data: Path, tmp_path: Path, name: str) -> None:
    """What is read by column must not end in an error of polars."""
    needed = {"worker", "timestamp", "label", "verdict", "score_1", "Human 1 RE"}
    for path in (real_data / name).glob("*.parquet"):
        frame = pl.read_parquet(path)
        frame.drop(set(frame.columns) & needed).write_parquet(tmp_path / path.name)
    with pytest.raises(UnreadableSource):
        sources.load(tmp_path)


# ---------------------------------------------------------------------------------------------- UKP


def test_ukp_votes(loaded: Any, judged: Any, table: Any) -> None:
    feedback, pairs, votes = loaded("ukp_convarg"), table("ukp_convarg/pairs"), table("ukp_convarg/judgments")
    frame = judged("ukp_convarg").with_columns(pl.col("id").str.split("/").list.first().alias("pair_id"))
    counts = frame.group_by("pair_id").agg(*((pl.col("outcome") == o).sum().cast(pl.Int64).alias(o) for o in ("left", "right", "tie")))
    assert counts.height == 11_532
    joined = pairs.join(counts, on="pair_id")
    assert joined.select("left", "right", "tie").rows() == joined.select("n_a1", "n_a2", "n_equal").rows()
    assert frame["rater_id"].to_list() == votes["worker"].to_list()
    assert frame["group"].to_list() == votes["worker_stance"].to_list()
    assert frame["rationale"].to_list() == votes["reason"].to_list()
    assert frame["seconds"].sum() == (votes["submit_time"] - votes["accept_time"]).dt.total_seconds().sum()
    assert frame["time"].dt.replace_time_zone(None).to_list() == votes["submit_time"].to_list()
    assert feedback.n_prompts == 22
    assert frame["provenance"].n_unique() == 11
    assert not frame["order_known"].any()


def test_ukp_longer_argument_wins(judged: Any, table: Any) -> None:
    """Shares as published in the set's README and measured on its tables: .687 of decided votes, .778 of strict decided pairs."""
    lengths = pl.col("texts").list.eval(pl.element().str.len_chars())
    frame = judged("ukp_convarg").with_columns(lengths.list.get(0).alias("left"), lengths.list.get(1).alias("right"))
    frame = frame.filter(pl.col("left") != pl.col("right"))
    decided = frame.filter(pl.col("outcome") != "tie")
    longer = (pl.col("left") > pl.col("right")) == (pl.col("outcome") == "left")
    assert decided.select(longer.mean()).item() == pytest.approx(0.687, abs=5e-4)
    strict = table("ukp_convarg/pairs").filter(pl.col("in_strict") & pl.col("gold").is_in(["a1", "a2"]))
    one = frame.with_columns(pl.col("id").str.split("/").list.first().alias("pair_id")).unique("pair_id").join(strict, on="pair_id")
    assert one.select(((pl.col("left") > pl.col("right")) == (pl.col("gold") == "a1")).mean()).item() == pytest.approx(0.778, abs=5e-4)


def test_ukp_xml_says_the_same_as_the_tables(judged: Any, table: Any) -> None:
    raw = judged("raw/ukp-convarg1")
    pairs = table("ukp_convarg/pairs").filter(pl.col("side") == "is-the-school-uniform-a-good-or-bad-idea-_good")
    votes = table("ukp_convarg/judgments").join(pairs, on="pair_id").rows(named=True)
    words = {"a1": "left", "a2": "right", "equal": "tie"}
    expected = {(v["worker"], v["arg1"], v["arg2"], words[v["value"]], v["reason"], v["worker_stance"]) for v in votes}
    found = {(v["rater_id"], *v["texts"], v["outcome"], v["rationale"], v["group"]) for v in raw.rows(named=True)}
    assert len(found) == 150
    assert found <= expected
    assert raw["prompt_text"].unique().to_list() == ["Is the school uniform a good or bad idea? — Good"]


BOMB = """<?xml version="1.0"?>
<!DOCTYPE list [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<list><annotatedArgumentPair>&b;</annotatedArgumentPair></list>"""


@pytest.mark.parametrize(
    ("xml", "problem"),
    [
        (BOMB, "DOCTYPE"),
        ("<!-- " + "x" * 2000 + " -->" + BOMB.split("?>\n")[1], "DOCTYPE"),
        ("<list><annotatedArgumentPair></list>", "malformed"),
        ("<list><annotatedArgumentPair></annotatedArgumentPair></list>", "no vote"),
    ],
)
def test_ukp_xml_that_is_refused(tmp_path: Path, xml: str, problem: str) -> None:
    path = tmp_path / "debate_side.xml"
    path.write_text(xml)
    with pytest.raises(UnreadableSource, match=problem):
        sources.load(path)


def test_ukp_unknown_answer(tmp_path: Path, real_data: Path) -> None:
    published = next((real_data / "raw/ukp-convarg1").glob("*.xml")).read_text()
    path = tmp_path / "debate_side.xml"
    path.write_text(published.replace("<value>equal</value>", "<value>both</value>", 1))
    with pytest.raises(InvalidRecord, match="'both'"):
        sources.load(path)
    assert sources.load(path, on_error="skip").n_judgments == 149


# ---------------------------------------------------------------------------------------------- Tulu


def test_tulu(judged: Any, table: Any) -> None:
    frame, published = judged("tulu1_human_eval"), table("tulu1_human_eval/judgments")
    pairs, thumbs = frame.filter(pl.col("kind") == "pair"), frame.filter(pl.col("kind") == "thumbs")
    assert (pairs["outcome"] == "tie").mean() == pytest.approx(0.33, abs=0.005)
    answers = Counter(zip(pairs["outcome"], pairs["strength"], strict=True))
    words = Counter(published["preference"])
    assert answers["left", 2] == words["a-is-better"]
    assert answers["left", 1] == words["a-is-slightly-better"]
    assert answers["right", 1] == words["b-is-slightly-better"]
    assert answers["right", 2] == words["b-is-better"]
    assert answers["tie", None] == words["tie"]
    assert thumbs["axis"].unique().to_list() == ["acceptable"]
    assert thumbs["thumb"].sum() == sum((published[f"completion_{s}_is_acceptable"] == "yes").sum() for s in "ab")
    assert pairs["models"].to_list() == [list(m) for m in published.select("model_a", "model_b").rows()]
    assert pairs["time"].dt.replace_time_zone(None).to_list() == published["timestamp"].to_list()
    decided = pairs.filter(pl.col("outcome") != "tie").with_columns(pl.col("texts").list.eval(pl.element().str.len_chars()).alias("n"))
    left, right = pl.col("n").list.get(0), pl.col("n").list.get(1)
    longer = decided.filter(left != right).select(((left > right) == (pl.col("outcome") == "left")).mean()).item()
    assert longer == pytest.approx(0.68, abs=0.005)


def test_tulu_sheet_says_the_same_as_the_table(judged: Any) -> None:
    columns = ["id", "kind", "prompt_text", "texts", "models", "outcome", "strength", "thumb", "rater_id", "time"]
    sheet, normal = (judged(name).select(columns).sort("id") for name in ("raw/tulu1", "tulu1_human_eval"))
    # a model once wrote "#N/A", which the table's makers took for no value
    differing = [(a[3], b[3]) for a, b in zip(sheet.rows(), normal.rows(), strict=True) if a != b]
    assert differing == [(["#N/A", "#ERROR!"], ["", "#ERROR!"]), (["#N/A"], [""])]


def test_tulu_without_the_reader_for_excel(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MissingExtra, match=r"seamark\[excel\]"):
        sources.load(real_data / "raw/tulu1/eval_annotations_tulu_1.xlsx")


def test_tulu_unanswered_acceptability_and_unknown_preference(tmp_path: Path) -> None:
    record = {"prompt": "Hi", "completion_a": "Hello", "completion_b": "Hey", "completion_a_is_acceptable": "yes", "preference": "tie"}
    feedback = sources.load(write_jsonl(tmp_path / "a.jsonl", [record]))
    assert feedback.judgments["kind"].to_list() == ["pair", "thumbs"]
    with pytest.raises(InvalidRecord, match="a-is-better"):
        sources.load(write_jsonl(tmp_path / "b.jsonl", [record | {"preference": "maybe"}]))


# ---------------------------------------------------------------------------------------------- PandaLM, Fine-Grained


def test_pandalm(loaded: Any, judged: Any, table: Any) -> None:
    frame, published = judged("pandalm_test"), table("pandalm_test/pairs")
    words = {0: "tie", 1: "left", 2: "right", None: "skipped"}
    columns = {f"annotator{k}": f"annotator{k}" for k in (1, 2, 3)} | {"gpt-3.5": "gpt35_label", "pandalm-7b": "pandalm7b_label"}
    for rater, column in columns.items():
        assert frame.filter(pl.col("rater_id") == rater)["outcome"].to_list() == [words[v] for v in published[column]]
    kinds = dict(loaded("pandalm_test").raters.select("id", "kind").rows())
    assert kinds == dict.fromkeys(("annotator1", "annotator2", "annotator3"), "person") | dict.fromkeys(("gpt-3.5", "pandalm-7b"), "model")
    assert not frame["order_known"].any()


def test_pandalm_json_says_the_same_as_the_table(judged: Any) -> None:
    columns = ["id", "prompt_text", "texts", "models", "outcome", "rater_id"]
    raw = judged("raw/pandalm/testset-v1.json").select(columns)
    normal = judged("pandalm_test").filter(pl.col("rater_id").str.starts_with("annotator")).select(columns)
    assert raw.rows() == normal.rows()
    assert raw["texts"].explode().is_in(["true"]).sum() == 3 * (4 + 2)  # the JSON slip, for three annotators each


def test_fine_grained(loaded: Any, judged: Any, table: Any) -> None:
    frame = judged("fine_grained_rlhf_dev")
    outcomes = Counter(frame.filter(pl.col("kind") == "pair")["outcome"])
    assert outcomes == {"left": 1_577, "right": 1_039, "tie": 384}
    spans = frame.filter(pl.col("target") == "span")
    marked = [row["texts"][0][row["span_start"] : row["span_end"]] for row in spans.rows(named=True)]
    assert marked == table("fine_grained_rlhf_dev/span_errors")["span"].to_list()
    assert Counter(spans["label"]) == Counter(table("fine_grained_rlhf_dev/span_errors")["error_type"])
    assert Counter(frame["axis"].drop_nulls()) == {"error": 1_373, "missing": 842}
    # four answers, all six compared
    assert frame.filter(pl.col("kind") == "pair").group_by("prompt_text").len()["len"].unique().to_list() == [6]
    assert any("corrected" in note for note in loaded("fine_grained_rlhf_dev").report.notes)


def test_fine_grained_json_says_the_same_as_the_tables(judged: Any) -> None:
    columns = ["kind", "prompt_text", "texts", "outcome", "axis", "label", "span_start", "span_end", "rationale"]
    raw, normal = (judged(name).select(columns) for name in ("raw/fine-grained-rlhf", "fine_grained_rlhf_dev"))
    normal = normal.filter(pl.col("prompt_text").is_in(raw["prompt_text"].unique().to_list()))
    assert sorted(map(repr, raw.rows())) == sorted(map(repr, normal.rows()))


# ---------------------------------------------------------------------------------------------- DICES, HANNA


@pytest.mark.parametrize("name", ["dices_350", "raw/dices"])
def test_dices_majority_and_gold(judged: Any, table: Any, name: str) -> None:
    """The majority of the raters agrees with the experts on 65 % of the items, and Yes is unsafe."""
    items, frame = table("dices_350/items"), judged(name)
    counts = frame.with_columns(pl.col("id").str.split("/").list.first().cast(pl.Int64).alias("item_id")).group_by("item_id")
    counted = counts.agg(
        (pl.col("thumb") == False).sum().cast(pl.Int64).alias("unsafe"),  # noqa: E712 - an expression
        pl.col("thumb").sum().cast(pl.Int64).alias("safe"),
        (pl.col("outcome") == "cannot_tell").sum().cast(pl.Int64).alias("unsure"),
    )
    joined = items.join(counted, on="item_id")
    assert joined.select("unsafe", "safe", "unsure").rows() == joined.select("n_yes", "n_no", "n_unsure").rows()
    agreed = joined.select(((pl.col("unsafe") > pl.col("safe")) == (pl.col("expert_gold") == "Yes")).mean()).item()
    assert agreed == pytest.approx(0.65, abs=0.005)
    assert frame.group_by("rater").len()["len"].unique().to_list() == [350]


def test_dices_copies_agree(loaded: Any) -> None:
    assert loaded("dices_350").fingerprint == loaded("raw/dices").fingerprint


def test_dices_one_bad_score_is_skipped_alone(tmp_path: Path, real_data: Path) -> None:
    record = json.loads((real_data / "raw/dices/dices_350_crowdsourced.judge-bench.json").read_text())
    record["instances"] = record["instances"][:2]
    record["instances"][1]["annotations"]["safety"]["individual_human_scores"][5] = "Perhaps"
    path = write_jsonl(tmp_path / "dices.json", [record])
    with pytest.raises(InvalidRecord, match="Perhaps"):
        sources.load(path)
    assert sources.load(path, on_error="skip").n_judgments == 2 * 123 - 1


def test_dices_csv(tmp_path: Path) -> None:
    """The original layout, by the description in the data's README (the file itself could not be had)."""
    row = {
        "id": "0",
        "rater_id": "296516135663390",
        "rater_gender": "Woman",
        "rater_race": "Black/African American",
        "rater_age": "gen z",
        "rater_education": "College degree or higher",
        "phase": "Phase1",
        "item_id": "0",
        "answer_time_ms": "260532.0",
        "answer_timestamp": "2022-11-09 10:00:00",
        "context": "USER: Hi\nLAMDA: Hello",
        "response": "How are you?",
        "safety_gold": "No",
        "Q2_harmful_content_overall": "No",
        "Q_overall": "Yes",
    }
    rows = [row, row | {"rater_id": "7", "Q_overall": "No", "rater_race": ""}, row | {"rater_id": "8", "Q_overall": "Unsure"}]
    with (tmp_path / "diverse_safety_350.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(row))
        writer.writeheader()
        writer.writerows(rows)
    feedback = sources.load(tmp_path / "diverse_safety_350.csv")
    assert feedback.report.format == "dices"
    assert feedback.judgments["thumb"].to_list() == [False, True, None]
    assert feedback.judgments["outcome"].to_list() == ["answered", "answered", "cannot_tell"]
    assert feedback.judgments["seconds"][0] == 260.532
    assert feedback.judgments["time"][0] == datetime(2022, 11, 9, 10, tzinfo=UTC)
    assert feedback.rater_profile("race").to_list() == ["Black/African American", None, "Black/African American"]
    assert feedback.rater_profile("education").to_list() == ["College degree or higher"] * 3
    with (tmp_path / "diverse_safety_350.csv").open("a", newline="") as out:
        csv.DictWriter(out, list(row)).writerow(row | {"Q_overall": "Perhaps"})
    with pytest.raises(InvalidRecord, match="unsafe"):
        sources.load(tmp_path / "diverse_safety_350.csv")


def test_hanna(loaded: Any, table: Any) -> None:
    """The published means of the three ratings come out per story and axis."""
    feedback, scores = loaded("hanna_scores"), table("hanna_scores/scores")
    means = feedback.judgments.with_columns(pl.col("responses").list.first().alias("r")).group_by("r", "axis").agg(pl.col("rating").mean())
    names = feedback.responses["name"].to_list()
    found = {(names[r], axis): mean for r, axis, mean in means.rows()}
    axes = ["Relevance", "Coherence", "Empathy", "Surprise", "Engagement", "Complexity"]
    for row in scores.rows(named=True):
        for axis in axes:
            assert found[f"{row['model']}/{row['prompt_index']}", axis.lower()] == pytest.approx(row[axis], abs=0.01)
    assert feedback.n_prompts == 96
    assert any("5 language models" in note for note in feedback.report.notes)


# ---------------------------------------------------------------------------------------------- Polis


def test_polis(loaded: Any, judged: Any, table: Any) -> None:
    feedback, votes = loaded("polis"), table("polis/votes")
    frame = judged("polis")
    final: dict[tuple[Any, ...], int] = {}
    for row in votes.with_row_index().sort("timestamp", "index").rows(named=True):
        final[row["conversation"], row["voter_id"], row["comment_id"]] = row["vote"]
    assert feedback.n_judgments == len(final)
    assert frame["thumb"].sum() == sum(v == 1 for v in final.values())
    assert (frame["outcome"] == "cannot_tell").sum() == sum(v == 0 for v in final.values())
    assert any(str(votes.height - len(final)) in note for note in feedback.report.notes)
    # the published totals of agreement per statement
    agrees = table("polis/comments").select(pl.format("{}/{}", "conversation", "comment_id").alias("name"), "agrees")
    counted = frame.with_columns(pl.col("id").str.replace(r"/\d+$", "").alias("name")).group_by("name").agg(pl.col("thumb").sum())
    assert agrees.join(counted, on="name").select(pl.corr("agrees", "thumb")).item() > 0.999
    groups = {
        f"{c}/{p}": None if g is None else f"{c}/{g}"
        for c, p, g in table("polis/participants").select("conversation", "participant", "group_id").rows()
    }
    assert frame["group"].to_list() == [groups[r] for r in frame["rater_id"]]


def test_polis_export_says_the_same_as_the_tables(judged: Any) -> None:
    columns = ["id", "texts", "outcome", "thumb", "rater_id", "group", "time"]
    raw = judged("raw/polis/brexit-consensus")
    normal = judged("polis").filter(pl.col("id").str.starts_with("brexit-consensus/"))
    assert raw.select(columns).sort("id").rows() == normal.select(columns).sort("id").rows()
    assert raw["prompt_text"].unique().to_list() == ["Can there be consensus on Brexit?"]


def test_polis_vote_that_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "talk"
    folder.mkdir()
    (folder / "votes.csv").write_text("timestamp,datetime,comment-id,voter-id,vote\n1500232652930,x,0,0,1\n1500232652931,x,0,1,2\n")
    with pytest.raises(InvalidRecord, match=r"line 3.*'2'"):
        sources.load(folder)
    feedback = sources.load(folder, on_error="skip")
    assert feedback.responses["name"].to_list() == ["talk/0"]
    assert feedback.judgments["group"].to_list() == [None]


# ---------------------------------------------------------------------------------------------- model judges


def test_llmbar(judged: Any, table: Any) -> None:
    pairs, verdicts = table("llmbar/pairs"), table("llmbar/judge_verdicts")
    frame = judged("llmbar")
    gold = frame.filter(pl.col("rater_id") == "expert")
    better = [row["texts"][0 if row["outcome"] == "left" else 1] for row in gold.rows(named=True)]
    assert better == [row[f"output_{row['label']}"] for row in pairs.rows(named=True)]
    # how often each judge is right, from the texts chosen here and from the winners in the table
    best = {frozenset((row["input"], row["output_1"], row["output_2"])): row[f"output_{row['label']}"] for row in pairs.rows(named=True)}
    right: Counter[str] = Counter()
    for row in frame.filter(pl.col("rater_id") != "expert").rows(named=True):
        if row["outcome"] in ("left", "right"):
            chosen = row["texts"][0 if row["outcome"] == "left" else 1]
            right[row["rater_id"]] += chosen == best[frozenset((row["prompt_text"], *row["texts"]))]
    labelled = verdicts.join(pairs.select("subset", "idx", "label"), on=["subset", "idx"])
    expected = labelled.group_by(pl.format("{}/{}", "judge", "prompting").alias("rater")).agg((pl.col("winner") == pl.col("label")).sum())
    assert right == dict(expected.rows())
    assert (frame["outcome"] == "cannot_tell").sum() == verdicts["winner"].null_count() == 134
    judged = frame.filter(pl.col("rater_id") != "expert")
    assert judged["order_known"].all()
    assert not gold["order_known"].any()
    first = verdicts.filter(pl.col("winner").is_not_null()).select(((pl.col("winner") == 2) == pl.col("swapped")).sum()).item()
    assert (judged["outcome"] == "left").sum() == first


def test_qlora_consistency_of_orders(loaded: Any) -> None:
    """Both orders of a pair give the same verdict in 68 % of the OA comparisons (README of the set; none counts as a verdict)."""
    frame = loaded("qlora_gpt4_judge").judgments.filter((pl.col("kind") == "pair") & pl.col("rationale").is_null())
    assert frame.height == 40_026
    verdict: dict[tuple[str, ...], str | None] = {}
    for name, models, outcome in frame.select("id", "models", "outcome").rows():
        winner = {"left": models[0], "right": models[1], "tie": "tie"}.get(outcome)
        verdict[name.split("/")[0], *models] = winner
    same = [winner == verdict[q, b, a] for (q, a, b), winner in verdict.items() if a < b]
    assert len(same) == 20_013
    assert sum(same) / len(same) == pytest.approx(0.68, abs=0.005)


def test_qlora(judged: Any, table: Any) -> None:
    frame = judged("qlora_gpt4_judge")
    vicuna = frame.filter((pl.col("kind") == "pair") & pl.col("rationale").is_not_null())
    assert Counter(vicuna["outcome"]) == {"left": 2_512, "right": 1_355, "tie": 600, "skipped": 13}
    responses = {(q, s): r for q, s, r in table("qlora_gpt4_judge/vicuna_responses").rows()}
    published = table("qlora_gpt4_judge/vicuna_pairwise").rows(named=True)
    assert vicuna["texts"].to_list() == [[responses[r["question_id"], r[f"system_{k}"]] for k in (1, 2)] for r in published]
    scored, ratings = table("qlora_gpt4_judge/vicuna_scored_vs_gpt35"), frame.filter(pl.col("kind") == "rating")
    total = sum(scored[f"score_{k}"].filter(scored[f"score_{k}"] >= 1).sum() for k in (1, 2))
    assert ratings["rating"].sum() == total
    assert Counter(ratings["reason"].drop_nulls()) == {"no parseable score": 120, "the score lies outside 1 to 10": 11}
    assert frame.filter(pl.col("outcome") == "skipped")["reason"].null_count() == 0
    assert frame.filter(pl.col("kind") == "pair")["order_known"].all()


def test_fastchat_reviews(loaded: Any, table: Any) -> None:
    raw = loaded("raw/qlora").judgments
    words = {"1": "left", "2": "right", "tie": "tie"}
    verdicts = {
        r["review"]: words[r["verdict"]] for r in table("qlora_gpt4_judge/vicuna_pairwise").rows(named=True) if r["verdict"] in words
    }
    pairs = raw.filter(pl.col("kind") == "pair")
    assert pairs["outcome"].to_list() == [verdicts[text] for text in pairs["rationale"]]
    scores = {r["review"]: [r["score_1"], r["score_2"]] for r in table("qlora_gpt4_judge/vicuna_scored_vs_gpt35").rows(named=True)}
    ratings = raw.filter(pl.col("kind") == "rating")
    assert ratings["rating"].to_list() == [score for text in ratings["rationale"].to_list()[::2] for score in scores[text]]


def test_fastchat_review_without_verdict(tmp_path: Path) -> None:
    review = {"review_id": "r", "question_id": 1, "answer1_id": "a", "answer2_id": "b", "reviewer_id": 3, "text": "?", "score": -1}
    feedback = sources.load(write_jsonl(tmp_path / "review.jsonl", [review, review | {"review_id": "s", "score": [-1, 7]}]))
    assert feedback.judgments["outcome"].to_list() == ["skipped", "skipped", "answered"]
    assert feedback.raters["id"].to_list() == ["reviewer 3"]


def test_a_defective_first_record_does_not_hide_the_format(tmp_path: Path, real_data: Path) -> None:
    for name in ("raw/qlora", "raw/llmbar", "raw/arena/arena-bench-v1.model_judgment.claude-2.1.first10.jsonl", "raw/fine-grained-rlhf"):
        path = real_data / name
        text = (path if path.is_file() else sorted(path.iterdir())[0]).read_text()
        records = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        records[0].pop("score" if "score" in records[0] else "label" if "label" in records[0] else "preference")
        feedback = sources.load(write_jsonl(tmp_path / "damaged.jsonl", records), on_error="skip")
        assert feedback.report.format == sources.load(path).report.format
        assert "line 1:" in feedback.report.skipped[0]


def test_arena_bench(judged: Any, table: Any) -> None:
    frame, published = judged("arena_bench_v1"), table("arena_bench_v1/judgments")
    grades = frame.filter(pl.col("kind") == "rating")
    assert grades["rating"].to_list() == published["score"].to_list()
    assert grades["texts"].list.first().to_list() == published["answer"].to_list()
    assert (grades["outcome"] == "skipped").sum() == 45
    questions = dict(table("arena_bench_v1/questions").rows())
    assert grades["prompt_text"].to_list() == [questions[q] for q in published["question_id"]]
    battles = frame.filter(pl.col("kind") == "pair")
    assert Counter(battles["outcome"]) == {"right": 1_758, "left": 347, "tie": 31}


def test_arena_bench_raw_grades_are_among_those_of_the_tables(judged: Any) -> None:
    columns = ["rating", "prompt_text", "texts", "models"]
    raw = judged("raw/arena/arena-bench-v1.model_judgment.claude-2.1.first10.jsonl").select(columns).rows()
    normal = judged("arena_bench_v1").filter(pl.col("kind") == "rating").select(columns).rows()
    assert {repr(row) for row in raw} <= {repr(row) for row in normal}


# ---------------------------------------------------------------------------------------------- rankings and spans


def test_oasst(loaded: Any, judged: Any, table: Any) -> None:
    feedback, published = loaded("oasst1_zh_ranked"), table("oasst1_zh_ranked/items")
    frame = judged("oasst1_zh_ranked")
    assert frame["texts"].to_list() == published["ranked_outputs"].to_list()
    assert frame["ranks"].to_list() == [list(range(1, len(r) + 1)) for r in published["ranked_outputs"].to_list()]
    assert sum(k * (k - 1) // 2 for k in frame["ranks"].list.len()) == 1_809
    turns = [json.loads(p) for p in frame["prompt_text"]]
    assert [t[-1] for t in turns] == [{"role": "user", "content": i} for i in published["instruction"]]
    assert [len(t) for t in turns] == [2 * len(json.loads(h)) + 1 for h in published["history"]]
    assert feedback.prompts["is_messages"].all()


@pytest.mark.parametrize("name", ["wmt_mqm_ted_ende", "wmt_sxs_mqm_2023_ende"])
def test_mqm_tables(judged: Any, table: Any, name: str) -> None:
    frame, errors = judged(name), table(f"{name}/errors")
    for row, error in zip(frame.rows(named=True), errors.rows(named=True), strict=True):
        if row["span_start"] is not None:
            assert row["texts"][0][row["span_start"] : row["span_end"]] == error["target_span"]
    placed = frame["span_start"].is_not_null()
    assert placed.sum() > 0.5 * errors["target_span"].is_not_null().sum()
    assert (frame["label"] == "No-error").sum() == (errors["severity"] == "No-error").sum()
    assert frame["rater_id"].to_list() == errors["rater"].to_list()
    if "timing_ms" in errors.columns:
        assert frame["seconds"].sum() == pytest.approx(errors["timing_ms"].sum() / 1000)
        assert Counter(frame.filter(pl.col("axis") == "HOTW-test")["label"]) == {"Found": 220, "Missed": 25}


def test_mqm_tsv_spans(judged: Any, real_data: Path) -> None:
    for name in ("mqm_ted_ende.first300.tsv", "sxs_mqm_generalMT2023_ende.first40.tsv"):
        frame = judged(f"raw/wmt-mqm/{name}")
        lines = (real_data / "raw/wmt-mqm" / name).read_text().split("\n")[1:-1]
        for row, line in zip(frame.rows(named=True), lines, strict=True):
            marked = re.search("<v>(.*)</v>", line.split("\t")[6])
            found = None if row["span_start"] is None else row["texts"][0][row["span_start"] : row["span_end"]]
            assert found == (marked and marked[1])
            assert "<v>" not in row["texts"][0]


@pytest.mark.parametrize(
    ("raw", "normal"),
    [("mqm_ted_ende.first300.tsv", "wmt_mqm_ted_ende"), ("sxs_mqm_generalMT2023_ende.first40.tsv", "wmt_sxs_mqm_2023_ende")],
)
def test_mqm_tsv_says_the_same_as_the_tables(judged: Any, raw: str, normal: str) -> None:
    columns = ["prompt_text", "texts", "models", "axis", "label", "reason", "rater_id", "seconds", "time"]
    known = {repr(row) for row in judged(normal).select(columns).rows()}
    assert {repr(row) for row in judged(f"raw/wmt-mqm/{raw}").select(columns).rows()} <= known


def test_mqm_quotation_marks_are_text(tmp_path: Path) -> None:
    header = "system\tdoc\tglobalSegId\trater\tsource\ttarget\tcategory\tseverity\n"
    rows = ['A\td\t1\tr1\t"Open\t"<v>Offen</v>\tStyle/Awkward\tMinor\n', 'A\td\t2\tr1\t"Said" he\tEr "sagte"\tNo-error\tNo-error\n']
    (tmp_path / "mqm.tsv").write_text(header + "".join(rows))
    feedback = sources.load(tmp_path / "mqm.tsv")
    assert feedback.responses["text"].to_list() == ['"Offen', 'Er "sagte"']
    assert feedback.judgments.select("axis", "label", "span_start", "span_end", "target").rows() == [
        ("Style", "Minor", 1, 6, "span"),
        (None, "No-error", None, None, "response"),
    ]


def test_mqm_raters_of_two_files_are_kept_apart(loaded: Any) -> None:
    assert loaded("raw/wmt-mqm").n_raters == 4 + 3


def test_convabuse(judged: Any, table: Any) -> None:
    frame, published = judged("convabuse"), table("convabuse/judgments")
    ratings = frame.filter(pl.col("kind") == "rating")
    assert ratings["rating"].to_list() == published["severity"].to_list()
    ticked = published.select(pl.col("^(type|target|direction).*$").cast(pl.Int64)).sum_horizontal().sum()
    assert (frame["kind"] == "label").sum() == ticked
    assert ratings.group_by("prompt", "responses", "rater").len().select((pl.col("len") - 1).sum()).item() >= 357
    units = dict(table("convabuse/units").select("unit_id", "user").rows())
    assert ratings["texts"].list.first().to_list() == [units[u] for u in published["unit_id"]]


def test_convabuse_csv_is_among_the_tables(judged: Any) -> None:
    columns = ["prompt_text", "texts", "kind", "axis", "label", "rating", "rater_id"]
    raw, normal = (Counter(map(repr, judged(name).select(columns).rows())) for name in ("raw/convabuse", "convabuse"))
    # two judgments of "Yes" stand under "yes" in the file that the tables were made from
    assert (raw - normal).total() == 2


def test_roscoe(judged: Any, table: Any) -> None:
    frame, steps = judged("roscoe_steps"), table("roscoe_steps/steps")
    spans = frame.filter(pl.col("target") == "span")
    grammar = spans.filter(pl.col("axis") == "grammar")
    assert [r["texts"][0][r["span_start"] : r["span_end"]] for r in grammar.rows(named=True)] == steps["step"].to_list()
    assert Counter(spans["axis"]) == dict.fromkeys(
        (
            "arithmetic",
            "coherency_and_logic",
            "commonsense",
            "factuality",
            "final_answer",
            "grammar",
            "hallucination",
            "redundancy",
            "repetition",
        ),
        881,
    )
    assert not frame["prompt_text"].str.contains("Solution").any()
    quality = frame.filter(pl.col("axis") == "overall_quality")
    assert Counter(quality["rating"]) == {5: 104, 2: 51, 1: 38, 4: 5, 3: 2}


def test_folder_that_holds_more_than_one_set_is_not_mixed(real_data: Path, tmp_path: Path) -> None:
    """A stray file beside the tables changes nothing."""
    shutil.copytree(real_data / "pandalm_test", tmp_path / "set")
    write_jsonl(tmp_path / "set" / "stray.jsonl", [{"colour": "red"}])
    assert sources.load(tmp_path / "set").n_judgments == 5 * 999
