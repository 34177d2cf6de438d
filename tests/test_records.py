"""Feedback: encoding, parts, identity and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.records import Feedback, Judgment, Message, Rater, Response, cluster_texts, parse_judgment
from seamark.simulation import simulate
from seamark.sources import load

_words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
_numbers = st.none() | st.dictionaries(st.sampled_from(["length", "lists", "é x"]), st.floats(-1e9, 1e9), max_size=2)
_shown = st.builds(
    Response,
    text=_words,
    id=st.none() | _words,
    model=st.none() | _words,
    act=st.sampled_from([None, "answer", "refuse"]),
    covariates=_numbers,
)
_rater = st.builds(Rater, id=_words, kind=st.sampled_from([None, "person", "model"]), group=st.none() | _words)
_common = {
    "prompt": st.none() | _words | st.tuples(st.builds(Message, role=st.just("user"), content=_words)),
    "rater": st.none() | _rater,
    "axis": st.none() | _words,
}
_judgment = st.one_of(
    st.builds(Judgment, kind=st.just("pair"), responses=st.tuples(_shown, _shown), outcome=st.sampled_from(["left", "right", "tie", "both_bad", "skipped"]), **_common),
    st.builds(Judgment, kind=st.just("rating"), responses=st.tuples(_shown), rating=st.integers(1, 5), scale=st.just((1.0, 5.0)), **_common),
    st.builds(Judgment, kind=st.just("ranking"), responses=st.tuples(_shown, _shown, _shown), ranks=st.just((1, 2, 2)), **_common),
    st.builds(Judgment, kind=st.just("choice"), responses=st.tuples(_shown, _shown, _shown), best=st.just(1), worst=st.sampled_from([None, 0]), **_common),
    st.builds(Judgment, kind=st.just("thumbs"), responses=st.tuples(_shown), thumb=st.booleans(), confidence=st.none() | st.floats(0, 1), **_common),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(_judgment, min_size=1, max_size=6))
def test_round_trips_lose_nothing(tmp_path_factory: pytest.TempPathFactory, judgments: list[Judgment]):
    folder = tmp_path_factory.mktemp("round")
    feedback = Feedback.from_judgments(judgments)
    feedback.to_jsonl(folder / "f.jsonl")
    feedback.to_parquet(folder / "f")
    assert load(folder / "f.jsonl", format="seamark").fingerprint == feedback.fingerprint
    assert load(folder / "f").fingerprint == feedback.fingerprint


def test_covariates_stay_with_what_was_shown():
    shown = (Response(id="a", covariates={"length": 3}), Response(id="b", covariates={"length": 5, "lists": 1}))
    feedback = Feedback.from_judgments(
        [Judgment(kind="pair", responses=shown, outcome="left"), Judgment(kind="rating", responses=shown[:1], rating=1.0)]
    )
    assert feedback.judgments["covariate.length"].to_list() == [[3, 5], [3]]
    assert feedback.judgments["covariate.lists"].to_list() == [[None, 1], None]
    columns = {"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"]}
    for wrong, said in ((([1.0],), "one number per response"), (([1.0, np.inf],), "finite")):
        with pytest.raises(InvalidRecord, match=said):
            Feedback.from_columns(columns | {"covariate.length": list(wrong)})


@pytest.mark.parametrize("covariates", [{"": 3}, {"length": 4, "": 3}])
def test_a_covariate_without_a_name_is_one_clear_error(tmp_path, covariates: dict[str, float]):
    good = {"kind": "pair", "responses": [{"text": "a"}, {"text": "b"}], "outcome": "left"}
    bad = good | {"responses": [{"text": "a", "covariates": covariates}, {"text": "b"}]}
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, (good, bad))))
    with pytest.raises(InvalidRecord, match=r"line 2: field 'responses\.0\.covariates' is .*a covariate needs a name"):
        load(tmp_path / "t.jsonl")
    assert load(tmp_path / "t.jsonl", on_error="skip").n_judgments == 1


def test_a_text_is_held_once_however_often_it_is_judged():
    pair = {"kind": "pair", "prompt": "p", "responses": [{"text": "a"}, {"text": "b"}], "outcome": "left"}
    feedback = Feedback.from_judgments([parse_judgment(pair, source="t", line=i) for i in range(5)])
    assert (feedback.n_judgments, feedback.n_responses, feedback.n_prompts) == (5, 2, 1)
    other = Feedback.from_judgments([parse_judgment(pair | {"prompt": q}, source="t", line=1) for q in ("p", "q")])
    assert other.n_responses == 4, "the same words under another prompt are another response"


@pytest.mark.parametrize("by", ["prompt", "rater", "group", "prompt_cluster", "judgment"])
def test_split_keeps_units_whole(by: str):
    feedback = simulate(n_prompts=40, n_judgments=800, n_raters=30, seed=3).feedback
    train, test = feedback.split(by=by, test=0.25, seed=1)
    assert train.n_judgments + test.n_judgments == feedback.n_judgments
    share = test.n_judgments / feedback.n_judgments
    assert 0.1 < share < 0.7
    if by in ("prompt", "rater"):
        table = {"prompt": "prompts", "rater": "raters"}[by]
        assert not set(getattr(train, table)["id"]) & set(getattr(test, table)["id"])
    again, _ = feedback.split(by=by, test=0.25, seed=1)
    assert again.fingerprint == train.fingerprint


def test_split_by_time_holds_out_the_latest():
    feedback = simulate(n_prompts=20, n_judgments=300, n_raters=10, seed=2).feedback
    train, test = feedback.split(by="time", test=0.3)
    assert train.judgments["time"].max() <= test.judgments["time"].min()


def test_impossible_splits_say_why():
    feedback = simulate(n_prompts=1, n_judgments=50, n_raters=5, seed=1).feedback
    with pytest.raises(InvalidSetting, match="only one prompt"):
        feedback.split(by="prompt")
    with pytest.raises(InvalidSetting, match="Use prompt, rater"):
        feedback.split(by="moon")


def test_filter_keeps_only_what_is_mentioned():
    feedback = simulate(n_prompts=20, n_judgments=300, n_raters=10, seed=2).feedback
    part = feedback.filter(pl.col("rater") == 3)
    assert part.raters["id"].to_list() == [feedback.raters["id"][3]]
    assert part.n_responses == len(np.unique(part.judgments["responses"].explode().to_numpy()))
    first = feedback.judgments.filter(pl.col("rater") == 3)["responses"][0][0]
    assert part.responses["text"][part.judgments["responses"][0][0]] == feedback.responses["text"][first]


def test_fingerprint_sees_every_change():
    base = [Judgment(kind="pair", prompt="p", responses=(Response(text="a"), Response(text="b")), outcome="left")]
    known = {Feedback.from_judgments(base).fingerprint}
    for change in ({"outcome": "right"}, {"prompt": "q"}, {"axis": "x"}, {"rater": Rater(id="r")}, {"weight": 2.0}, {"reason": "why"}):
        known.add(Feedback.from_judgments([base[0].model_copy(update=change)]).fingerprint)
    assert len(known) == 7


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["won"]}, "outcome"),
        ({"kind": ["pair"], "ids": [["a"]], "outcome": ["left"]}, "responses"),
        ({"kind": ["rating"], "ids": [["a"]], "outcome": ["answered"], "rating": [float("nan")]}, "rating"),
        ({"kind": ["rating"], "ids": [["a"]], "outcome": ["answered"], "rating": [9.0], "scale_low": [1.0], "scale_high": [5.0]}, "rating"),
        ({"kind": ["choice"], "ids": [["a", "b"]], "outcome": ["answered"], "best": [2]}, "best"),
        ({"kind": ["ranking"], "ids": [["a", "b"]], "outcome": ["answered"], "ranks": [[1]]}, "ranks"),
        ({"kind": ["thumbs"], "ids": [["a"]], "outcome": ["answered"]}, "thumb"),
        ({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"], "weight": [-1.0]}, "weight"),
    ],
)
def test_an_invalid_judgment_names_its_field(columns: dict[str, list[object]], field: str):
    with pytest.raises(InvalidRecord) as caught:
        Feedback.from_columns(columns | {"line": [7]}, source="f.jsonl")
    assert (caught.value.field, caught.value.line, caught.value.source) == (field, 7, "f.jsonl")
    with pytest.raises(UnreadableSource, match="no usable judgment"):
        Feedback.from_columns(columns, on_error="skip")


def test_a_changed_folder_is_refused(tmp_path: Path):
    feedback = simulate(n_prompts=5, n_judgments=50, n_raters=5, seed=1).feedback
    feedback.to_parquet(tmp_path / "f")
    feedback.judgments.head(49).write_parquet(tmp_path / "f" / "judgments.parquet")
    with pytest.raises(UnreadableSource, match="fingerprint"):
        Feedback.from_parquet(tmp_path / "f")


def test_clusters_put_like_prompts_together():
    cats, taxes = [f"how do I feed my cat {i}" for i in range(10)], [f"what tax do I owe in year {i}" for i in range(10)]
    label = cluster_texts([*cats, *taxes], n_clusters=2)
    assert len(set(label[:10])) == 1
    assert len(set(label[10:])) == 1
    assert label[0] != label[-1]
