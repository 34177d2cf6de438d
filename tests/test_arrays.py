"""Feedback from arrays: the same as from columns, whatever the arrays are made of, and the same errors."""

from __future__ import annotations

import hashlib
import re
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from seamark import encoding
from seamark.columns import JUDGMENT_COLUMNS
from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.records import Feedback

TABLES = ("judgments", "responses", "prompts", "raters")


def same(one: Feedback, other: Feedback) -> None:
    for name in TABLES:
        assert_frame_equal(getattr(one, name), getattr(other, name))
    assert one.fingerprint == other.fingerprint


def lists(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same judgments as `from_columns` takes them."""
    sides = ("left", "right") if {"left", "left_id"} & set(columns) else ("response",)
    n = len(next(iter(columns.values())))
    out = {name: values for name, values in columns.items() if not name.startswith(sides)}
    for part, field in (("", "texts"), ("_id", "ids"), ("_model", "models")):
        if any(side + part in columns for side in sides):
            shown = [list(row) for row in zip(*(columns.get(side + part, [None] * n) for side in sides), strict=True)]
            out[field] = [None if row.count(None) == len(row) else row for row in shown]
    kind = (
        "pair"
        if len(sides) == 2
        else next(k for name, k in (("rating", "rating"), ("thumb", "thumbs"), ("label", "label")) if name in columns)
    )
    return {"outcome": ["answered"] * n, **out, "kind": [kind] * n}


def made(rng: np.random.Generator, n: int, *, text: bool, kind: str, ids: bool = True) -> dict[str, list[Any]]:
    """Random judgments with nulls wherever they may be."""

    def pick(words: list[Any], unknown: float = 0.0) -> list[Any]:
        return [None if rng.random() < unknown else words[i] for i in rng.integers(0, len(words), n)]

    items = [f"item {i}" for i in range(8)]
    columns: dict[str, list[Any]] = {}
    for side in ("left", "right") if kind == "pair" else ("response",):
        if text:
            columns[side] = pick(["", "yes", "no", "é😀"], 0.2 if ids else 0.0)
        if ids:
            columns[f"{side}_id"] = pick(items)
        columns[f"{side}_model"] = pick(["gpt", "llama"], 0.5)
    if kind == "pair":
        columns["outcome"] = pick(["left", "right", "tie", "both_bad", "cannot_tell", "skipped"])
        columns |= {"strength": pick([1, 2, 3], 0.3), "strength_levels": [3] * n, "order_known": pick([True, False], 0.2)}
    elif kind == "rating":
        columns |= {"rating": pick([1.0, 2.5, 5.0]), "scale_low": [1.0] * n, "scale_high": [5.0] * n}
    else:
        columns |= {"thumb": pick([True, False])} if kind == "thumbs" else {"label": pick(["a", "b"])}
    moments = [datetime(2024, 5, 31, hour, tzinfo=UTC) for hour in range(5)]
    columns |= (
        {"prompt": pick(["Why?", "How?"], 0.3), "prompt_id": pick(["p1", "p2", "p3"], 0.3)} if text else {"prompt_id": pick(["p1"], 0.2)}
    )
    columns |= {
        "rater": pick([f"r{i}" for i in range(5)], 0.2),
        "rater_kind": pick(["person", "model"], 0.3),
        "group": pick(["x", "y"], 0.3),
    }
    return columns | {"axis": pick(["a"], 0.5), "weight": pick([1.0, 0.5], 0.1), "time": pick(moments, 0.2), "seconds": pick([3.0], 0.5)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("text", "ids"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("kind", ["pair", "rating", "thumbs", "label"])
def test_same_as_from_columns(kind: str, text: bool, ids: bool, seed: int) -> None:
    columns = made(np.random.default_rng([seed, text, ids]), 60, text=text, kind=kind, ids=ids)
    expected = Feedback.from_columns(lists(columns))
    same(Feedback.from_arrays(**columns), expected)
    typed = {name: pl.Series(name, values) for name, values in columns.items()}
    same(Feedback.from_arrays(**typed), expected)
    same(Feedback.from_arrays(**{name: series.to_arrow() for name, series in typed.items()}), expected)
    objects = {name: np.array(values, dtype=object) if name != "time" else values for name, values in columns.items()}
    same(Feedback.from_arrays(**objects), expected)
    categories = {name: s.cast(pl.Categorical) if s.dtype == pl.String else s for name, s in typed.items()}
    same(Feedback.from_arrays(**categories), expected)


def test_same_where_values_come_late_or_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows tell only some of the values; then most; then none."""
    rng = np.random.default_rng(5)
    n = 3000
    for most in (4, 40, 4000):
        late = np.where(np.arange(n) < 64, rng.integers(0, 4, n), rng.integers(0, most, n))
        columns: dict[str, list[Any]] = {
            "left_id": [f"i{i}" for i in late],
            "right_id": [f"i{i}" for i in rng.permutation(late)],
            "outcome": ["left"] * n,
            "rater": [f"r{i}" if i % 7 else None for i in late],
        }
        expected = Feedback.from_columns(lists(columns))
        monkeypatch.setattr(encoding, "_HEAD", 64)
        same(Feedback.from_arrays(**columns), expected)
        same(Feedback.from_columns(lists(columns)), expected)
        monkeypatch.undo()
        first: dict[str, int] = {}
        told = [[first.setdefault(name, len(first)) for name in row] for row in zip(columns["left_id"], columns["right_id"], strict=True)]
        assert expected.judgments["responses"].to_list() == told
        assert expected.responses["name"].to_list() == list(first)


def test_two_texts_with_one_hash_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_HEAD", 2)
    monkeypatch.setattr(pl.Series, "hash", lambda self: pl.Series(np.zeros(len(self), dtype=np.uint64)))
    coded = encoding.encode([pl.Series(["a", "b", None, "a"]), pl.Series(["c", "a", "b", None])])
    assert coded.codes.tolist() == [[0, 1], [2, 0], [-1, 2], [0, -1]]
    assert coded.values.to_list() == ["a", "c", "b"]


def test_whole_numbers_stand_for_names() -> None:
    names = {
        "response": ["gpt", "llama", "qwen", "gpt"],
        "outcome": ["right", "left", "tie"],
        "rater": ["ann", "bob"],
        "axis": ["help", "harm"],
    }
    codes = {
        "left_id": np.array([2, 0, 3], dtype=np.int8),
        "right_id": np.array([1, 2, 1], dtype=np.int64),
        "outcome": np.array([1, 0, 2], dtype=np.uint8),
        "rater": np.array([1, -1, 0]),
        "axis": pl.Series([0, None, 1]),
    }
    expected = Feedback.from_columns(
        {
            "kind": ["pair"] * 3,
            "ids": [["qwen", "llama"], ["gpt", "qwen"], ["gpt", "llama"]],
            "outcome": ["left", "right", "tie"],
            "rater": ["bob", None, "ann"],
            "axis": ["help", None, "harm"],
        }
    )
    same(Feedback.from_arrays(**codes, names=names), expected)
    assert expected.n_responses == 3


def test_whole_numbers_without_names_are_names() -> None:
    feedback = Feedback.from_arrays(left_id=[10**14, 3], right_id=[3, -5], outcome=[True, False], rater=[7.0, 8.0])
    assert feedback.responses["name"].to_list() == ["100000000000000", "3", "-5"]
    assert feedback.raters["id"].to_list() == ["7", "8"]
    assert feedback.judgments["outcome"].to_list() == ["left", "right"]


def test_one_value_stands_for_all() -> None:
    given = np.arange(9) % 3, np.arange(9) % 7
    feedback = Feedback.from_arrays(left_id=given[0], right_id=given[1], outcome="left", axis="help", order_known=True, rater="ann")
    expected = Feedback.from_arrays(
        left_id=given[0], right_id=given[1], outcome=["left"] * 9, axis=["help"] * 9, order_known=[True] * 9, rater=["ann"] * 9
    )
    same(feedback, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_not_given_takes_no_memory() -> None:
    def held() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()

    n = 2_000_000
    left, right, won = np.arange(n, dtype=np.int32) % 9, np.arange(n, dtype=np.int32) % 7, np.arange(n) % 2 == 0
    before = held()
    feedback = Feedback.from_arrays(left_id=left, right_id=right, outcome=won)
    # two codes of 4 bytes, an offset of 8, and the outcome; thirty columns of 8 or 16 bytes would be 800 MB
    assert set(feedback.judgments.columns) == {*JUDGMENT_COLUMNS, "prompt", "responses", "rater"}
    assert held() - before < 200e6


BAD: list[tuple[dict[str, Any], str, int, object]] = [
    ({"left_id": ["a", None], "right_id": ["b", "c"], "outcome": ["left", "left"]}, "responses", 2, [None, "c"]),
    ({"left": ["a", "b"], "right": ["b", None], "outcome": ["left", "left"]}, "responses", 2, ["b", None]),
    ({"left_id": ["a", "b"], "right_id": ["b", "c"], "outcome": ["left", "won"]}, "outcome", 2, "won"),
    ({"left_id": ["a", "b"], "right_id": ["b", "c"], "outcome": [None, "left"]}, "outcome", 1, None),
    ({"left_id": ["a", "b"], "right_id": ["b", "c"], "outcome": ["left", "answered"]}, "outcome", 2, "answered"),
    ({"left_id": ["a", "b"], "right_id": ["b", "c"], "outcome": ["left", "left"], "weight": [1.0, -1.0]}, "weight", 2, -1.0),
    (
        {"left_id": ["a", "b"], "right_id": ["b", "c"], "outcome": ["left", "left"], "strength": [4, 1], "strength_levels": [3, 3]},
        "strength",
        1,
        4,
    ),
    ({"response_id": ["a", "b"], "rating": [1.0, None]}, "rating", 2, None),
    ({"response_id": ["a", "b"], "rating": [1.0, float("nan")]}, "rating", 2, float("nan")),
    ({"response_id": ["a", "b"], "rating": [1.0, 9.0], "scale_low": [1.0, 1.0], "scale_high": [5.0, 5.0]}, "rating", 2, 9.0),
    ({"response_id": ["a", "b"], "thumb": [None, True]}, "thumb", 1, None),
    ({"response_id": ["a", "b"], "label": ["x", "y"], "rater": ["r", "s"], "rater_kind": ["person", "alien"]}, "rater_kind", 2, "alien"),
]


@pytest.mark.parametrize(("columns", "field", "line", "value"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_judgments_say_the_same_as_from_columns(columns: dict[str, Any], field: str, line: int, value: object) -> None:
    with pytest.raises(InvalidRecord) as caught:
        Feedback.from_arrays(**columns, source="here")
    error = caught.value
    assert (error.field, error.line, repr(error.value)) == (field, line, repr(value))
    with pytest.raises(InvalidRecord, match=re.escape(str(error))):
        Feedback.from_columns(lists(columns), source="here")
    kept = Feedback.from_arrays(**columns, source="here", on_error="skip")
    assert kept.report.skipped == (str(error),)
    same(kept, Feedback.from_columns(lists(columns), source="here", on_error="skip"))
    given = Feedback.from_arrays(**columns, line=[70, 80], on_error="skip").report.skipped
    assert f"line {[70, 80][line - 1]}" in given[0]


def test_numbers_that_do_not_fit_say_where() -> None:
    pair: dict[str, Any] = {"left_id": np.array([0, 1, 2]), "right_id": np.array([1, 2, 0]), "outcome": np.array([True, False, True])}
    with pytest.raises(InvalidRecord, match=r"line 2: field 'right_id' is 2. There are 2 names"):
        Feedback.from_arrays(**pair, names={"response": ["a", "b"]})
    with pytest.raises(InvalidRecord, match=r"line 2: field 'strength' is 1.5. Give whole numbers"):
        Feedback.from_arrays(**pair, strength=[1.0, 1.5, 2.0])
    with pytest.raises(InvalidRecord, match=r"line 1: field 'order_known' is 2. Give true or false"):
        Feedback.from_arrays(**pair, order_known=np.array([2, 1, 0]))
    kept = Feedback.from_arrays(**pair, strength=[1.0, 1.5, 2.0], on_error="skip")
    assert kept.judgments["strength"].to_list() == [1, 2]
    with pytest.raises(UnreadableSource, match="no usable judgment"):
        Feedback.from_arrays(**pair, weight=-1.0, on_error="skip")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"left_id": ["a"], "rigth_id": ["b"], "outcome": ["left"]}, "Did you mean 'right_id'"),
        ({"left_id": ["a", "b"], "right_id": ["b"], "outcome": ["left"]}, "right_id is 'an array of 1'.*left_id has 2"),
        ({"left_id": ["a"], "right_id": ["b"]}, "A pair needs an outcome"),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": [1]}, "Say what they stand for"),
        ({"left_id": ["a"], "outcome": ["left"]}, "Give left and right"),
        ({"response_id": ["a"], "rating": [1.0], "thumb": [True]}, "one of rating, thumb and label"),
        ({"left_id": [1.5], "right_id": ["b"], "outcome": ["left"]}, "Give texts, or whole numbers"),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "weight": ["heavy"]}, "Give numbers"),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "time": [12]}, "Give times"),
        ({"left_id": np.zeros((2, 2)), "right_id": ["b", "c"], "outcome": ["left", "left"]}, "one dimension"),
        ({"left_id": "a", "right_id": "b", "outcome": "left"}, "at least one array"),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "left_modle": ["gpt"]}, "Did you mean 'left_model'"),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "right_length": [3]}, "Give left_length too"),
        (
            {"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "left_length": ["x"]},
            "^left_length is 'not numbers'. A name of your own",
        ),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "left_length": "x"}, "^left_length is 'not numbers'"),
        ({"left_id": ["a"], "right_id": ["b"], "outcome": ["left"], "response_length": [3]}, "these judgments show left and right"),
        ({"response_id": ["a"], "rating": [1.0], "left_length": [3]}, "these judgments show response"),
    ],
)
def test_arrays_that_make_no_judgment(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        Feedback.from_arrays(**columns)


def test_covariates_of_sides() -> None:
    pair: dict[str, Any] = {"left_id": ["a", "b"], "right_id": ["b", "c"], "outcome": ["left", "tie"]}
    made = Feedback.from_arrays(
        **pair, left_length=np.array([1, 2]), right_length=[4.0, None], left_lists=pl.Series([3, None]), left_price=2
    )
    columns = lists(pair) | {
        "covariate.length": [[1, 4], [2, None]],
        "covariate.lists": [[1.5, -1.5], None],
        "covariate.price": [[1, -1], [1, -1]],
    }
    same(made, Feedback.from_columns(columns))
    nothing = Feedback.from_arrays(**pair, left_length=[None, None], right_length=np.array([None, None]))
    same(nothing, Feedback.from_columns(lists(pair)))
    mixed = Feedback.from_arrays(**pair, left_length=np.array([None, 2], dtype=object), right_length=[1, 2.5])
    same(mixed, Feedback.from_columns(lists(pair) | {"covariate.length": [[None, 1], [2, 2.5]]}))
    alone = Feedback.from_arrays(response_id=["a", "b"], rating=[1.0, 2.0], response_length=[3, 4])
    assert alone.judgments["covariate.length"].to_list() == [[3], [4]]
    with pytest.raises(InvalidRecord, match=r"line 2.*covariate\.length.*finite"):
        Feedback.from_arrays(**pair, left_length=[1.0, np.inf], right_length=[1.0, 1.0])


def test_makes_of_arrays() -> None:
    left, right = ["a", "b", "a"], ["b", "c", "c"]
    expected = Feedback.from_arrays(left_id=left, right_id=right, outcome=["left", "right", "left"])
    won = np.array([True, False, True])
    for make in (
        np.array,
        lambda v: np.array(v, dtype=np.dtypes.StringDType()),
        pa.array,
        lambda v: pa.array(v).dictionary_encode(),
        pl.Series,
    ):
        same(Feedback.from_arrays(left_id=make(left), right_id=make(right), outcome=won), expected)
    mixed = Feedback.from_arrays(left_id=pl.Series(left, dtype=pl.Enum(["c", "b", "a"])), right_id=right, outcome=won)
    same(mixed, expected)
    when = np.array(["2024-05-31T12:00:00", "NaT"], dtype="datetime64[s]")
    assert Feedback.from_arrays(response_id=["a", "b"], thumb=[1, 0], time=when).judgments["time"].to_list() == [
        datetime(2024, 5, 31, 12, tzinfo=UTC),
        None,
    ]


@pytest.mark.parametrize("lengths", [[2, 2, 2], [0, 3, 1, 3], [0, 0], [], [1] * 5, list(range(100))])
def test_fold_and_pad_are_inverse(lengths: list[int]) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    folded = encoding.fold(pl.Series(np.arange(sizes.sum())), sizes)
    ends = np.cumsum(sizes)
    assert folded.to_list() == [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    if sizes.sum():
        assert encoding.pad(folded, sizes).to_list() == list(range(sizes.sum()))


def test_content_hashes_are_blake2b() -> None:
    """The first 8 bytes of BLAKE2b with that digest size, read as a little-endian number."""
    expected = hashlib.blake2b(b"a", digest_size=8).digest()[::-1].hex()
    assert encoding.written(encoding.content_hashes(pl.Series(["a", None]))).to_list() == [expected, "0" * 16]
