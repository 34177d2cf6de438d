"""The well-known layouts: each on a real file, or on one shaped as published, with facts that can be checked by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from seamark.errors import InvalidRecord, UnreadableSource
from seamark.records import Feedback
from seamark.sources import load

Write = Any


@pytest.fixture
def made(tmp_path: Path) -> Write:
    """Records to Feedback by way of a JSONL file; the layout is told by itself, and a round trip changes nothing."""

    def make(*records: Mapping[str, Any], expect: str, **settings: Any) -> Feedback:
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
        feedback = load(path, **settings)
        assert feedback.report.format == expect
        return round_trip(feedback, tmp_path)

    return make


def round_trip(feedback: Feedback, folder: Path) -> Feedback:
    feedback.to_jsonl(folder / "again.jsonl")
    again = load(folder / "again.jsonl")
    assert again.report.format == "seamark"
    assert again.fingerprint == feedback.fingerprint
    return feedback


def shown(feedback: Feedback, judgment: int = 0) -> list[str | None]:
    """Texts in the order shown, or names where there is no text."""
    rows = feedback.judgments["responses"][judgment].to_list()
    return [feedback.responses["text"][r] if feedback.responses["text"][r] is not None else feedback.responses["name"][r] for r in rows]


def column(feedback: Feedback, name: str) -> Sequence[Any]:
    return feedback.judgments[name].to_list()


# ---------------------------------------------------------------------------------------------- HH-RLHF


def test_hh_rlhf_raw_and_parquet_are_the_same(real_data: Path, tmp_path: Path) -> None:
    """2,312 pairs; in 55 % of them the chosen response has fewer characters (README of the set)."""
    raw = load(real_data / "raw" / "hh-rlhf" / "harmless-base-test.jsonl.gz")
    table = load(real_data / "hh_rlhf_harmless_test")
    for feedback in (raw, table):
        assert feedback.report.format == "hh-rlhf"
        assert (feedback.n_judgments, feedback.n_responses, feedback.n_prompts, feedback.n_raters) == (2312, 4624, 2310, 0)
        pairs = feedback.pairs()
        assert set(pairs["outcome"]) == {"left"}
        assert set(pairs["order_known"]) == {False}
        length = feedback.responses["text"].str.len_chars().to_numpy()
        shorter = length[pairs["left"].to_numpy()] < length[pairs["right"].to_numpy()]
        assert round(100 * shorter.mean()) == 55
    assert raw.prompts["text"].to_list() == table.prompts["text"].to_list()
    assert raw.responses["text"].to_list() == table.responses["text"].to_list()
    assert raw.prompts["text"].str.starts_with("\n\nHuman: ").all()
    assert int((raw.responses["text"] == "").sum()) == 4
    round_trip(raw, tmp_path)


def test_hh_rlhf_where_the_dialogues_share_no_turn(tmp_path: Path) -> None:
    good = {"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Hi\n\nAssistant: B"}
    bad = good | {"rejected": "\n\nHuman: Bye\n\nAssistant: B"}
    path = tmp_path / "a.jsonl"
    path.write_bytes(orjson.dumps(good) + b"\n" + orjson.dumps(bad))
    with pytest.raises(InvalidRecord, match="share no 'Assistant:' turn"):
        load(path)


# ---------------------------------------------------------------------------------------------- TRL and LLaMA-Factory


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_trl_explicit_prompt(made: Write) -> None:
    feedback = made({"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "prompt_id": "p1"}, expect="trl")
    assert feedback.prompts["text"].to_list() == ["The sky is"]
    assert feedback.prompts["name"].to_list() == ["p1"]
    assert shown(feedback) == [" blue.", " green."]
    assert column(feedback, "order_known") == [False]


def test_trl_implicit_prompt_is_the_common_beginning(made: Write) -> None:
    feedback = made({"chosen": "The sky is blue.", "rejected": "The sky is green."}, {"chosen": "x", "rejected": "y"}, expect="trl")
    assert feedback.prompts["text"].to_list() == ["The sky is"]
    assert shown(feedback) == [" blue.", " green."]
    assert column(feedback, "prompt") == [0, None]


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_trl_conversations(made: Write, explicit: bool, whole: bool) -> None:
    asked = [turn("system", "Be brief."), turn("user", "Which colour?")]
    before = asked if whole or not explicit else []
    record: dict[str, Any] = {side: [*before, turn("assistant", answer)] for side, answer in (("chosen", "Blue."), ("rejected", "Green."))}
    feedback = made({"prompt": asked} | record if explicit else record, expect="trl")
    assert json.loads(feedback.prompts["text"][0]) == asked
    assert feedback.prompts["is_messages"].to_list() == [True]
    assert shown(feedback) == ["Blue.", "Green."]


def test_trl_prompt_text_with_whole_conversations(made: Write) -> None:
    """The layout of ultrafeedback_binarized: prompt repeats the first turn."""
    record = {
        "prompt": "Hi",
        "chosen": [turn("user", "Hi"), turn("assistant", "A")],
        "rejected": [turn("user", "Hi"), turn("assistant", "B")],
    }
    feedback = made(record | {"score_chosen": 8.0, "score_rejected": 2.0}, expect="trl")
    assert json.loads(feedback.prompts["text"][0]) == [turn("user", "Hi")]
    assert feedback.report.notes == ("fields not used: score_chosen, score_rejected",)


def test_kto(made: Write) -> None:
    feedback = made(
        {"prompt": "p", "completion": "x", "label": True},
        {"prompt": [turn("user", "q")], "completion": [turn("assistant", "y")], "label": False},
        expect="trl",
    )
    assert column(feedback, "kind") == ["thumbs", "thumbs"]
    assert column(feedback, "thumb") == [True, False]
    assert feedback.responses["text"].to_list() == ["x", "y"]


def test_llama_factory_pairs(real_data: Path, tmp_path: Path) -> None:
    feedback = load(real_data / "raw" / "llama-factory" / "dpo_en_demo.first10.json")
    assert feedback.report.format == "sharegpt"
    assert (feedback.n_judgments, feedback.n_prompts, feedback.n_responses) == (10, 10, 20)
    assert json.loads(feedback.prompts["text"][0])[-1]["role"] == "user"
    assert str(shown(feedback)[0]).startswith("That sounds like a fun and engaging idea!")
    round_trip(feedback, tmp_path)


def test_llama_factory_kto(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "raw" / "llama-factory" / "kto_en_demo.first10.json"
    feedback = load(path)
    assert column(feedback, "thumb") == [record["label"] for record in json.loads(path.read_text())]
    round_trip(feedback, tmp_path)


def test_llama_factory_alpaca(made: Write) -> None:
    record = {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4", "system": "Be exact.", "history": [["Hi", "Hello"]]}
    feedback = made(record, expect="sharegpt")
    turns = [("system", "Be exact."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add.\n1 2")]
    assert json.loads(feedback.prompts["text"][0]) == [turn(*t) for t in turns]


# ---------------------------------------------------------------------------------------------- lists


def test_llama_factory_ranked(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "raw" / "llama-factory" / "oaast_rm_zh.first20.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    feedback = load(path)
    assert feedback.n_judgments == 20
    assert set(column(feedback, "kind")) == {"ranking"}
    assert [len(ranks) for ranks in column(feedback, "ranks")] == [len(record["output"]) for record in records]
    assert shown(feedback) == records[0]["output"]
    assert column(feedback, "ranks")[0] == [1, 2, 3, 4]
    round_trip(feedback, tmp_path)


def test_best_of_n(made: Write) -> None:
    feedback = made(
        {"prompt": "p", "bon_best": "x", "loser_list": ["y", "z"]},
        {"prompt": [turn("user", "q")], "chosen": "x", "rejected": ["y"]},
        expect="best-of-n",
    )
    assert column(feedback, "kind") == ["choice", "choice"]
    assert column(feedback, "best") == [0, 0]
    assert shown(feedback) == ["x", "y", "z"]


def test_nemo_ranks(made: Write) -> None:
    completions = [{"rank": rank, "completion": [turn("assistant", text)]} for rank, text in ((1, "b"), (0, "a"), (1, "c"))]
    feedback = made({"context": [turn("user", "q")], "completions": completions}, expect="ranked")
    assert column(feedback, "ranks") == [[2, 1, 2]]
    assert shown(feedback) == ["b", "a", "c"]


# ---------------------------------------------------------------------------------------------- arena


def test_arena_with_conversations(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "raw" / "converted-layouts" / "tulu1_in_chatbot_arena_layout.first60.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    feedback = load(path)
    assert feedback.report.format == "arena"
    assert feedback.n_judgments == 60
    words = {"model_a": "left", "model_b": "right", "tie": "tie", "tie (bothbad)": "both_bad"}
    assert column(feedback, "outcome") == [words[record["winner"]] for record in records]
    assert column(feedback, "models")[0] == ["tulu_65B", "chatgpt"]
    assert set(feedback.raters["kind"]) == {"person"}
    assert feedback.raters["id"].to_list() == list(dict.fromkeys(record["judge"] for record in records))
    assert shown(feedback) == [records[0][f"conversation_{side}"][-1]["content"] for side in "ab"]
    assert column(feedback, "order_known") == [True] * 60
    round_trip(feedback, tmp_path)


def test_arena_without_texts(real_data: Path, tmp_path: Path) -> None:
    feedback = load(real_data / "raw" / "arena" / "arena_hard_battles.jsonl")
    assert feedback.n_judgments == 2136
    assert feedback.responses["text"].null_count() == feedback.n_responses
    assert set(feedback.responses["name"]) == {name for models in column(feedback, "models") for name in models}
    table = load(real_data / "arena_bench_v1" / "battles_arena_hard.parquet", format="arena")
    assert table.fingerprint == feedback.fingerprint
    round_trip(feedback, tmp_path)


def test_arena_words_and_turns(made: Write) -> None:
    conversation = [turn("user", "q"), turn("assistant", "a"), turn("user", "more"), turn("assistant", "b")]
    base = {"question_id": "q1", "model_a": "m", "model_b": "n", "judge": "arena_user_1", "tstamp": 1682351448.5}
    words = ["model_a", "model_b", "tie", "tie (bothbad)", "both_bad", "bothbad"]
    sides = {"conversation_a": conversation, "conversation_b": [*conversation[:1], turn("assistant", "c")]}
    feedback = made(*(base | sides | {"winner": word} for word in words), expect="arena")
    assert column(feedback, "outcome") == ["left", "right", "tie", "both_bad", "both_bad", "both_bad"]
    assert shown(feedback) == ["a\n\nHuman: more\n\nAssistant: b", "c"]
    assert column(feedback, "time")[0].isoformat() == "2023-04-24T15:50:48.500000+00:00"


def test_arena_one_hot(made: Write) -> None:
    record = {"id": 65089, "model_a": "m", "model_b": "n", "prompt": '["q"]', "response_a": '["a"]', "response_b": "[null]"}
    record |= {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    feedback = made(record, expect="arena")
    assert column(feedback, "outcome") == ["right"]
    assert shown(feedback) == ["a", ""]
    assert feedback.prompts["name"].to_list() == ["65089"]


def test_fastchat_pairs_are_two_games(made: Write) -> None:
    base = {"question_id": 81, "model_1": "m", "model_2": "n", "judge": ["gpt-4", "pair-v2"], "tstamp": 1687222035.0}
    record = base | {"g1_winner": "model_1", "g2_winner": "model_1", "g1_judgment": "[[A]]", "g2_judgment": "[[B]]", "turn": 1}
    feedback = made(record, record | {"g1_winner": "tie", "g2_winner": "error", "turn": 2}, expect="fastchat")
    # the same model wins both games, from the other side in the second
    assert column(feedback, "outcome") == ["left", "right", "tie", "skipped"]
    assert [shown(feedback, i) for i in range(2)] == [["m", "n"], ["n", "m"]]
    assert column(feedback, "rationale")[:2] == ["[[A]]", "[[B]]"]
    assert column(feedback, "guideline_version") == ["pair-v2"] * 4
    assert feedback.prompts["name"].to_list() == ["81", "81/turn-2"]
    assert feedback.raters.to_dicts() == [{"id": "gpt-4", "kind": "model", "profile": None}]


def test_fastchat_grades(made: Write) -> None:
    base = {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "tstamp": 1687222035.0, "turn": 1}
    feedback = made(base | {"score": 7.5}, base | {"score": -1}, expect="fastchat")
    assert column(feedback, "rating") == [7.5, None]
    assert column(feedback, "outcome") == ["answered", "skipped"]
    assert column(feedback, "scale_high") == [10.0, 10.0]


def test_alpaca_eval(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "raw" / "converted-layouts" / "tulu1_in_alpaca_eval_layout.first60.json"
    feedback = load(path)
    assert feedback.report.format == "alpaca-eval"
    words = {1: ("left", None), 1.25: ("left", 0.75), 1.5: ("tie", None), 1.75: ("right", 0.75), 2: ("right", None)}
    expected = [words[record["preference"]] for record in json.loads(path.read_text())]
    assert list(zip(column(feedback, "outcome"), column(feedback, "confidence"), strict=True)) == expected
    # the same votes in the Arena layout
    arena = load(real_data / "raw" / "converted-layouts" / "tulu1_in_chatbot_arena_layout.first60.json")
    assert [word.replace("both_bad", "tie") for word in column(arena, "outcome")] == column(feedback, "outcome")
    round_trip(feedback, tmp_path)


def test_alpaca_eval_weights(made: Write) -> None:
    base = {"instruction": "p", "output_1": "x", "output_2": "y", "generator_1": "m", "generator_2": "n", "annotator": "weighted_gpt4"}
    feedback = made(*(base | {"preference": value} for value in (1.25, 1.75, 0, None, 1)), expect="alpaca-eval")
    assert column(feedback, "outcome") == ["left", "right", "tie", "skipped", "left"]
    assert column(feedback, "confidence") == [0.75, 0.75, None, None, None]


# ---------------------------------------------------------------------------------------------- ratings


def test_helpsteer(made: Write) -> None:
    record = {"prompt": "p", "response": "r", "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0}
    feedback = made(record, expect="helpsteer")
    assert column(feedback, "axis") == ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
    assert column(feedback, "rating") == [3.0, 4.0, 4.0, 1.0, 0.0]
    assert feedback.n_responses == 1


def test_ultrafeedback(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "raw" / "ultrafeedback" / "readme_example.first1.jsonl"
    first = json.loads(path.read_text())["completions"][0]
    feedback = load(path)
    assert feedback.report.format == "ultrafeedback"
    assert dict(zip(column(feedback, "axis"), column(feedback, "rating"), strict=True)) == {
        axis: float(given["Rating"]) for axis, given in first["annotations"].items()
    }
    assert column(feedback, "models") == [["falcon-40b-instruct"]] * 4
    assert all(column(feedback, "rationale"))
    round_trip(feedback, tmp_path)


def test_ultrafeedback_overall_and_not_applicable(made: Write) -> None:
    completion = {"model": "m", "response": "r", "overall_score": 7, "critique": "Good.", "annotations": {"honesty": {"Rating": "N/A"}}}
    feedback = made({"instruction": "p", "completions": [completion]}, expect="ultrafeedback")
    assert column(feedback, "outcome") == ["cannot_tell", "answered"]
    assert column(feedback, "rating") == [None, 7.0]
    assert column(feedback, "rationale") == [None, "Good."]


def test_summarize_from_feedback(made: Write) -> None:
    info = {"id": "t3_1", "post": "Long story.", "title": "Help", "subreddit": "r/x"}
    comparison = {
        "info": info | {"subreddit": "x"},
        "summaries": [{"text": "a", "policy": "sup1", "note": ""}, {"text": "b", "policy": "ref", "note": ""}],
        "choice": 1,
        "worker": "w1",
        "batch": "b1",
        "extra": {"confidence": 7},
    }
    feedback = made(comparison, expect="summarize-from-feedback")
    assert column(feedback, "outcome") == ["right"]
    assert column(feedback, "confidence") == [7.0]
    assert column(feedback, "models") == [["sup1", "ref"]]
    assert feedback.prompts["text"].to_list() == ["SUBREDDIT: r/x\n\nTITLE: Help\n\nPOST: Long story."]
    assert feedback.prompts["name"].to_list() == ["t3_1"]
    assert feedback.raters["id"].to_list() == ["w1"]


def test_summarize_axes(made: Write) -> None:
    summary = {"text": "a", "policy": "sup1", "note": "fine", "axes": {"overall": 6, "accuracy": 7, "coverage": None}}
    feedback = made({"info": {"id": "1", "article": "News."}, "summary": summary, "worker": "w"}, expect="summarize-from-feedback")
    assert column(feedback, "rating") == [6.0, 7.0, None]
    assert column(feedback, "outcome") == ["answered", "answered", "skipped"]


def test_prism(tmp_path: Path) -> None:
    folder = tmp_path / "prism"
    folder.mkdir()

    def write(name: str, *records: Mapping[str, Any]) -> None:
        (folder / name).write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))

    base = {"interaction_id": "int1", "conversation_id": "c1", "user_id": "user1", "turn": 0, "user_prompt": "Hi"}
    scored = [
        (f"ut{i}", text, score, chosen) for i, (text, score, chosen) in enumerate([("A", 80, True), ("B", 20, False), ("C", 1, False)])
    ]
    write(
        "utterances.jsonl",
        *(base | {"utterance_id": u, "model_response": t, "model_name": f"m{u}", "score": s, "if_chosen": c} for u, t, s, c in scored),
    )
    write("survey.jsonl", {"user_id": "user1", "age": "25-34", "location": {"birth_country": "Peru"}, "num_completed_conversations": 2})
    write(
        "conversations.jsonl",
        {"conversation_id": "c1", "user_id": "user1", "conversation_history": [], "generated_datetime": "2023-11-22 08:30:00"},
    )
    feedback = round_trip(load(folder), tmp_path)
    assert feedback.report.format == "prism"
    assert column(feedback, "kind") == ["rating"] * 3 + ["choice"]
    assert column(feedback, "rating") == [80.0, 20.0, 1.0, None]
    assert column(feedback, "best") == [None, None, None, 0]
    assert shown(feedback, 3) == ["A", "B", "C"]
    assert feedback.n_responses == 3
    assert feedback.rater_profile("age").to_list() == ["25-34"]
    assert feedback.rater_profile("location_birth_country").to_list() == ["Peru"]
    assert column(feedback, "time")[0].isoformat() == "2023-11-22T08:30:00+00:00"


# ---------------------------------------------------------------------------------------------- annotation tools


def test_crowd_kit_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("worker,task,label\nw1,t1,cat\nw2,t1,dog\nw1,t2,1\n")
    feedback = round_trip(load(tmp_path / "a.csv"), tmp_path)
    assert feedback.report.format == "crowd-kit"
    assert column(feedback, "label") == ["cat", "dog", "1"]
    assert feedback.responses["name"].to_list() == ["t1", "t2"]
    assert feedback.raters["id"].to_list() == ["w1", "w2"]


def test_crowd_kit_pairs(tmp_path: Path) -> None:
    pl.DataFrame({"worker": ["w1", "w2"], "left": ["x", "x"], "right": ["y", "y"], "label": ["x", "y"]}).write_parquet(
        tmp_path / "a.parquet"
    )
    feedback = round_trip(load(tmp_path / "a.parquet"), tmp_path)
    assert column(feedback, "outcome") == ["left", "right"]
    assert shown(feedback) == ["x", "y"]
    (tmp_path / "b.csv").write_text("worker,left,right,label\nw1,x,y,z\n")
    with pytest.raises(InvalidRecord, match="the item that won: 'x' or 'y'"):
        load(tmp_path / "b.csv")


TASK = {
    "id": 7,
    "data": {"prompt": "p", "answer1": "x", "answer2": "y"},
    "annotations": [
        {
            "id": 1,
            "completed_by": {"id": 3, "email": "ann@example.org"},
            "lead_time": 12.5,
            "created_at": "2024-05-31T12:00:00.000000Z",
            "result": [
                {"type": "pairwise", "from_name": "better", "to_name": "txt-1,txt-2", "value": {"selected": "right"}},
                {"type": "textarea", "from_name": "why", "to_name": "txt-1", "value": {"text": ["clearer"]}},
            ],
        },
        {"id": 2, "completed_by": 4, "was_cancelled": True, "result": []},
    ],
}


def test_label_studio_pairs(made: Write) -> None:
    feedback = made(TASK, expect="label-studio")
    assert column(feedback, "outcome") == ["right", "skipped"]
    assert shown(feedback) == ["x", "y"]
    assert feedback.raters["id"].to_list() == ["ann@example.org", "4"]
    assert column(feedback, "seconds") == [12.5, None]
    assert column(feedback, "rationale") == ["clearer", None]
    assert column(feedback, "time")[0].isoformat() == "2024-05-31T12:00:00+00:00"


def test_label_studio_ratings_and_choices(made: Write) -> None:
    results = [
        {"type": "rating", "from_name": "quality", "to_name": "text", "value": {"rating": 4}},
        {"type": "choices", "from_name": "topic", "to_name": "text", "value": {"choices": ["sport", "news"]}},
        {"type": "ranker", "from_name": "order", "to_name": "text", "value": {"ranker": {"rank": ["a", "b"]}}},
    ]
    feedback = made({"id": 1, "data": {"text": "x"}, "annotations": [{"completed_by": 1, "result": results}]}, expect="label-studio")
    assert column(feedback, "kind") == ["rating", "label", "label"]
    assert column(feedback, "axis") == ["quality", "topic", "topic"]
    assert column(feedback, "label") == [None, "sport", "news"]
    assert feedback.report.notes == ("1 results of type 'ranker' are left out: they are not read",)


def test_label_studio_where_the_fields_cannot_be_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(orjson.dumps([TASK | {"data": {"one": "x", "two": "y", "note": "n", "prompt": "p"}}]))
    with pytest.raises(InvalidRecord, match="2 text fields besides the prompt are needed"):
        load(path)
    feedback = load(path, format="label-studio", columns={"left": "two", "right": "one"})
    assert shown(feedback) == ["y", "x"]


def test_argilla_version_1(made: Write) -> None:
    answer = {"user_id": "u1", "status": "submitted", "values": {"quality": {"value": 4}, "topic": {"value": "sport"}}}
    left_out = {"user_id": "u2", "status": "discarded", "values": {"quality": {"value": 1}}}
    feedback = made({"fields": {"prompt": "p", "response": "x"}, "responses": [answer, left_out], "external_id": "e1"}, expect="argilla")
    assert column(feedback, "kind") == ["rating", "label"]
    assert column(feedback, "axis") == ["quality", "topic"]
    assert feedback.raters["id"].to_list() == ["u1"]


def test_argilla_rankings_and_choices(made: Write) -> None:
    fields = {"prompt": "p", "response-1": "x", "response-2": "y"}
    ranking = [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]
    values = {"order": {"value": ranking}, "better": {"value": "response_2"}, "both": {"value": 3}}
    feedback = made({"fields": fields, "responses": [{"user_id": "u", "values": values}]}, expect="argilla")
    assert column(feedback, "kind") == ["ranking", "pair"]
    assert column(feedback, "ranks") == [[2, 1], None]
    assert column(feedback, "outcome") == ["answered", "right"]
    assert feedback.report.notes == ("answers to 'both' are about several responses at once and were left out",)


def test_argilla_version_2(made: Write) -> None:
    responses = {"quality": [{"value": 4, "user_id": "u1"}, {"value": 2, "user_id": "u2"}]}
    feedback = made({"id": "r1", "fields": {"text": "x"}, "responses": responses, "metadata": {}}, expect="argilla")
    assert column(feedback, "rating") == [4.0, 2.0]
    assert feedback.n_raters == 2


# ---------------------------------------------------------------------------------------------- plain columns


def test_canonical_columns_need_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "prompt,left,right,outcome,rater,group,axis,time,seconds,strength,strength_levels,left_model,right_model,weight,position,session\n"
        "p,x,y,a,ann,g1,clarity,2024-05-31T12:00:00+02:00,3.5,2,3,m,n,0.5,4,s1\n"
        "p,x,y,tie,bob,,,,,,,,,,,\n"
    )
    feedback = round_trip(load(tmp_path / "a.csv"), tmp_path)
    assert feedback.report.format == "columns"
    assert feedback.report.notes == ()
    first = feedback.judgments.row(0, named=True)
    assert (first["outcome"], first["group"], first["axis"], first["seconds"], first["strength"]) == ("left", "g1", "clarity", 3.5, 2)
    assert (first["models"], first["weight"], first["position"], first["session"]) == (["m", "n"], 0.5, 4, "s1")
    assert first["time"].isoformat() == "2024-05-31T10:00:00+00:00"
    assert feedback.judgments.row(1, named=True)["strength"] is None


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("A", "left"),
        ("b", "right"),
        ("1", "left"),
        ("2", "right"),
        ("model_a", "left"),
        ("Model B", "right"),
        ("equal", "tie"),
        ("draw", "tie"),
        ("0", "tie"),
        ("both_bad", "both_bad"),
        ("cannot_tell", "cannot_tell"),
        ("Skipped", "skipped"),
        ("x", "left"),
        ("yy", "right"),
        ("m2", "right"),
    ],
)
def test_words_for_an_outcome(tmp_path: Path, said: str, outcome: str) -> None:
    (tmp_path / "a.csv").write_text(f"q,one,two,m_one,m_two,vote\np,x,yy,m1,m2,{said}\n")
    columns = {"prompt": "q", "left": "one", "right": "two", "left_model": "m_one", "right_model": "m_two", "winner": "vote"}
    assert column(load(tmp_path / "a.csv", columns=columns), "outcome") == [outcome]


def test_single_responses_in_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("answer,stars,ok,kind of,who\nx,4,yes,joke,ann\ny,,no,,bob\n")
    feedback = load(
        tmp_path / "a.csv", columns={"response": "answer", "rating": "stars", "thumb": "ok", "label": "kind of", "rater": "who"}
    )
    assert column(feedback, "kind") == ["rating", "thumbs", "label", "thumbs"]
    assert column(feedback, "thumb") == [None, True, None, False]
    assert feedback.raters["id"].to_list() == ["ann", "bob"]


def test_chosen_and_rejected_with_raters_lose_nothing(made: Write) -> None:
    feedback = made({"prompt": "p", "chosen": "x", "rejected": "y", "rater": "ann", "strength": 2, "comment": "!"}, expect="columns")
    assert feedback.raters["id"].to_list() == ["ann"]
    assert column(feedback, "strength") == [2]
    assert feedback.report.notes == ("a.jsonl: columns not used: comment",)


def test_a_folder_of_unrelated_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("z\n1\n")
    with pytest.raises(UnreadableSource, match="its fields are x, y, z"):
        load(tmp_path)
