"""Whatever the bytes, a reader raises a SeamarkError or nothing; and whatever the judgments, JSONL keeps them."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamark.errors import SeamarkError
from seamark.records import Feedback, Judgment, Message, Rater, Response
from seamark.sources import FORMATS, load

EXAMPLES_EACH = 40
"""A load takes some hundredths of a second; more were run when the readers were written."""
quick = settings(
    max_examples=EXAMPLES_EACH, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def survives(name: str, content: bytes, format: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        for on_error in ("stop", "skip"):
            with suppress(SeamarkError):
                load(path, format=format, on_error=on_error)


@quick
@given(st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz", "a.xml"]), st.binary(max_size=300))
def test_random_bytes(name: str, content: bytes) -> None:
    survives(name, content)


_TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
EXAMPLES: list[dict[str, Any]] = [
    {"kind": "pair", "responses": [{"text": "a"}, {"id": "b"}], "outcome": "left", "rater": {"id": "r"}, "time": "2024-01-01T00:00:00"},
    {"kind": "ranking", "responses": [{"text": "a"}, {"text": "b"}], "ranks": [1, 2], "prompt": _TURNS[:1]},
    {"kind": "rating", "responses": [{"text": "a"}], "rating": 3, "scale": [1, 5], "strength": 1, "span": [0, 1], "position": 2},
    {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1.0},
    {"chosen": _TURNS, "rejected": _TURNS},
    {"prompt": _TURNS[:1], "completion": _TURNS[1:], "label": True},
    {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
    {"instruction": "i", "input": "j", "chosen": "a", "rejected": "b", "history": [["q", "a"]]},
    {
        "model_a": "m",
        "model_b": "n",
        "winner": "tie",
        "conversation_a": _TURNS,
        "conversation_b": _TURNS,
        "tstamp": 1.5e9,
        "judge": ["g", "h"],
    },
    {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["q"]', "response_a": '["a"]', "response_b": '["b"]'}
    | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    {"question_id": 1, "model_1": "m", "model_2": "n", "g1_winner": "model_1", "g2_winner": "tie", "judge": ["g", "h"], "turn": 2},
    {"question_id": 1, "model": "m", "judge": ["g", "h"], "score": 7, "turn": 1, "tstamp": 1.5},
    {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1.2, "annotator": "x", "time_per_example": 1.0},
    {"prompt": "p", "response": "r", "helpfulness": 1, "correctness": 1, "coherence": 1, "complexity": 1, "verbosity": 1},
    {
        "instruction": "i",
        "completions": [{"response": "r", "model": "m", "overall_score": 1, "annotations": {"x": {"Rating": "1", "Rationale": "y"}}}],
    },
    {"prompt": "p", "bon_best": "a", "loser_list": ["b", "c"]},
    {"instruction": "i", "input": "", "output": ["a", "b"], "history": []},
    {"context": _TURNS[:1], "completions": [{"rank": 0, "completion": _TURNS[1:]}, {"rank": 1, "completion": "x"}]},
    {
        "info": {"id": "1", "post": "p", "title": "t"},
        "summaries": [{"text": "a", "policy": "x"}, {"text": "b"}],
        "choice": 1,
        "worker": "w",
        "extra": {},
    },
    {"info": {"id": "1", "post": "p"}, "summary": {"text": "a", "policy": "x", "axes": {"overall": 7}}, "worker": "w"},
    {
        "utterance_id": "u",
        "conversation_id": "c",
        "user_id": "v",
        "user_prompt": "p",
        "model_response": "r",
        "score": 5,
        "if_chosen": True,
        "turn": 0,
    },
    {"worker": "w", "task": "t", "label": "l"},
    {"worker": "w", "left": "l", "right": "r", "label": "l"},
    {"id": 1, "data": {"prompt": "p", "a": "x", "b": "y"}}
    | {"annotations": [{"completed_by": 1, "lead_time": 1.0, "result": [{"type": "pairwise", "value": {"selected": "left"}}]}]},
    {
        "fields": {"prompt": "p", "r1": "x", "r2": "y"},
        "responses": [{"user_id": "u", "values": {"q": {"value": [{"value": "r1", "rank": 1}]}}}],
    },
    {"id": "1", "fields": {"r": "x"}, "responses": {"q": [{"user_id": "u", "value": 3}]}},
    {"left": "a", "right": "b", "outcome": "left", "rater": "r", "strength": 1, "time": 1.7e9, "weight": 1.0},
    {"response": "a", "rating": 1.0, "thumb": True, "label": "x", "scale_low": 0, "scale_high": 2},
]

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "nan", "inf", "-1", "1e400", "left", "é\u0301", "\x00", "x" * 300, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+10:00"]
    )
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=5
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in ((*path, key), *_places(item, (*path, key)))]


def _changed(record: dict[str, Any], place: tuple[Any, ...], value: object, *, drop: bool) -> dict[str, Any]:
    record = json.loads(json.dumps(record))
    holder: Any = record
    for key in place[:-1]:
        holder = holder[key]
    if drop:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return record


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda record: "-".join(list(record)[:3]))
def test_the_examples_themselves_are_read_or_refused(tmp_path: Path, example: dict[str, Any]) -> None:
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(example))
    if "responses" in example and "fields" in example and isinstance(example["responses"], list):
        with pytest.raises(SeamarkError, match="A ranking has a rank for each"):
            load(tmp_path / "a.jsonl")
    else:
        assert load(tmp_path / "a.jsonl").n_judgments >= 1


@quick
@given(st.data())
def test_changed_records(data: st.DataObject) -> None:
    example = data.draw(st.sampled_from(EXAMPLES))
    places = st.sampled_from(_places(example))
    changed = [_changed(example, data.draw(places), data.draw(_values), drop=data.draw(st.booleans())) for _ in range(6)]
    survives("a.jsonl", b"\n".join(map(orjson.dumps, [example] * 7 + changed)))


@quick
@given(st.data())
def test_changed_bytes(data: st.DataObject) -> None:
    raw = bytearray(orjson.dumps(data.draw(st.sampled_from(EXAMPLES))) + b"\n") * 2
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    survives(data.draw(st.sampled_from(["a.jsonl", "a.json"])), bytes(raw))


@quick
@given(st.sampled_from([known.name for known in FORMATS]), st.sampled_from(EXAMPLES))
def test_every_format_forced_on_every_layout(name: str, example: dict[str, Any]) -> None:
    survives("a.jsonl", orjson.dumps(example) + b"\n", format=name)


# ---------------------------------------------------------------------------------------------- round trips

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_id = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
_number = st.floats(-1e6, 1e6, allow_nan=False)
_time = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_profile = st.dictionaries(_id, st.booleans() | st.integers(-1000, 1000) | _text, max_size=2)


@st.composite
def _judgments(draw: st.DrawFn) -> Judgment:
    kind = draw(st.sampled_from(["pair", "choice", "ranking", "rating", "thumbs", "label"]))
    n = {"pair": 2, "rating": 1, "thumbs": 1, "label": 1}.get(kind) or draw(st.integers(2, 4))
    if draw(st.booleans()):
        responses = [
            Response(text=t, model=draw(st.none() | _id), act=draw(st.sampled_from([None, "refuse"])))
            for t in draw(st.lists(_text, min_size=n, max_size=n))
        ]
    else:
        responses = [Response(id=name) for name in draw(st.lists(_id, min_size=n, max_size=n))]
    prompt = draw(st.none() | _text | st.lists(st.builds(Message, role=_id, content=_text), min_size=1, max_size=2).map(tuple))
    answer: dict[str, Any] = {"outcome": "answered"}
    match kind:
        case "pair":
            answer = {
                "outcome": draw(st.sampled_from(["left", "right", "tie", "both_bad", "cannot_tell", "skipped"])),
                "strength": draw(st.none() | st.integers(1, 3)),
            }
        case "choice":
            answer["best"] = draw(st.integers(0, n - 1))
        case "ranking":
            answer["ranks"] = draw(st.lists(st.integers(1, n), min_size=n, max_size=n))
        case "rating":
            answer |= {"rating": draw(_number), "scale": draw(st.none() | st.just((-1e6, 1e6)))}
        case "thumbs":
            answer["thumb"] = draw(st.booleans())
        case _:
            answer["label"] = draw(_text)
    rater = draw(
        st.none()
        | st.builds(Rater, id=_id, kind=st.sampled_from([None, "person", "model"]), group=st.none() | _id, profile=st.none() | _profile)
    )
    return Judgment(
        kind=kind,
        responses=tuple(responses),
        prompt=prompt,
        prompt_id=draw(st.none() | _id),
        rater=rater,
        time=draw(st.none() | _time),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        position=draw(st.none() | st.integers(0, 1000)),
        rationale=draw(st.none() | _text),
        order_known=draw(st.none() | st.booleans()),
        weight=draw(st.none() | st.floats(0, 10)),
        axis=draw(st.none() | _id),
        **answer,
    )


@quick
@given(st.lists(_judgments(), min_size=1, max_size=6))
def test_jsonl_keeps_every_judgment(judgments: list[Judgment]) -> None:
    feedback = Feedback.from_judgments(judgments)
    with tempfile.TemporaryDirectory() as folder:
        feedback.to_jsonl(Path(folder) / "a.jsonl")
        feedback.to_parquet(Path(folder) / "saved")
        assert load(Path(folder) / "a.jsonl", format="seamark").fingerprint == feedback.fingerprint
        assert load(Path(folder) / "saved").fingerprint == feedback.fingerprint
