"""Arrays of one kind of judgment, of whatever make and type, as the codes and columns of a `Feedback`.

Conventions
-----------
A *side* is a place where a response is shown: left and right of a pair, or response. Its parts are its text, its name (`_id`)
and its source model (`_model`). Whole numbers are places among the *words* of their field where these are given, and else
are words themselves, as they are written. Nothing here takes a step of Python per judgment, but for those that are not valid.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.columns import (
    COLUMNS,
    COVARIATE,
    JUDGMENT_COLUMNS,
    KIND,
    OUTCOME,
    OUTCOMES,
    Fault,
    absent,
    bad_rows,
    covariate_of,
    covariates_from,
)
from seamark.encoding import Coded, encode, fold, numbers_of, renumber, to_index
from seamark.errors import InvalidSetting, UnreadableSource

ArrayLike = pl.Series | NDArray[Any] | Sequence[Any] | str | float | datetime | None
"""What `Feedback.from_arrays` takes for a column."""

_PARTS = ("", "_id", "_model")
_CODED_ARRAYS = ("prompt", "prompt_id", "rater")
_ANSWERS = {"rating": "rating", "thumb": "thumbs", "label": "label"}
_NOT_ARRAYS = ("kind", "texts", "ids", "models", "acts", "revisions_of", "best", "worst", "ranks")
ARRAYS = (
    *(side + part for side in ("left", "right", "response") for part in _PARTS),
    *(name for name in COLUMNS if name not in _NOT_ARRAYS),
)
"""The columns that `Feedback.from_arrays` takes, beside the covariates of sides."""


@dataclass(frozen=True)
class Shown:
    """Judgments as they are coded."""

    frame: pl.DataFrame
    """Their columns, without what was shown and who answered."""
    n_shown: NDArray[np.int64]
    """(n,) how many responses each shows."""
    text: Coded | None
    """Texts, a row of the codes per judgment."""
    name: Coded | None
    """Names given to the responses."""
    coded: Mapping[str, Coded]
    """Prompt, prompt_id and rater, where they are known."""
    messages: list[str]
    """One per judgment left out."""


@dataclass(frozen=True)
class _Arrays:
    """The arguments of `from_arrays` as columns."""

    n: int
    columns: dict[str, pl.Series]
    """Of length n, or 1 where one value is given for all."""
    words: dict[str, pl.Series]
    """What whole numbers stand for: by field."""
    faults: list[Fault]

    def take(self, name: str) -> pl.Series | None:
        """A column of length n, or None where nothing is known about it."""
        column = self.columns.get(name)
        if column is None or column.null_count() == len(column):
            return None
        return column if len(column) == self.n else column.new_from_index(0, self.n)

    def coded(self, sides: Sequence[str], field: str) -> Coded | None:
        """Codes of columns that share their values; whole numbers are places among the field's words, or stand for themselves."""
        found = [self.take(side) for side in sides]
        if all(column is None for column in found):
            return None
        columns = [pl.Series([None], dtype=pl.String).new_from_index(0, self.n) if c is None else c for c in found]
        words = self.words.get(field)
        if all(column.dtype.is_integer() for column in columns):
            if words is None:
                coded = encode(columns)
                return Coded(coded.codes, coded.values.cast(pl.String))
            distinct = encode([words])
            numbers = [numbers_of(column, -1) for column in columns]
            if len(distinct.values) < len(words):  # two codes with one name are the same thing
                table = np.append(distinct.codes.ravel(), -1)
                numbers, words = [table[number] for number in numbers], distinct.values
            coded = renumber(numbers, len(words))
            return Coded(coded.codes, words.gather(coded.values))
        columns = [self.named(column, words) if column.dtype.is_integer() else column for column in columns]
        if not all(column.dtype == columns[0].dtype for column in columns):
            columns = [column.cast(pl.String) for column in columns]
        coded = encode(columns)
        return Coded(coded.codes, coded.values.cast(pl.String))

    @staticmethod
    def named(column: pl.Series, words: pl.Series | None) -> pl.Series:
        """Whole numbers as the text they stand for."""
        return column.cast(pl.String) if words is None else words.gather(to_index(numbers_of(column, -1)))


def _to_arrays(columns: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> _Arrays:
    """Typed columns; what cannot be read as its type is null and a fault."""
    for name, value in columns.items():
        if name in ARRAYS:
            continue
        side, covariate = name.partition("_")[0], covariate_of(name)
        near = (
            difflib.get_close_matches(name, ARRAYS, n=1)
            if covariate is None
            else difflib.get_close_matches(name, _parts(side), n=1, cutoff=0.8)
        )
        meant = f"Did you mean {near[0]!r}? " if near else ""
        if covariate is None:
            raise InvalidSetting("from_arrays", name, f"{meant}Use {', '.join(ARRAYS)}.")
        if not _is_number(value):
            raise InvalidSetting(
                name,
                "not numbers",
                f"{meant}A name of your own that begins with a side is a covariate of what was shown there: give one number per judgment, "
                "None where it is not known.",
            )
    lengths = {name: len(value) for name, value in columns.items() if not _is_one(value)}
    if not lengths:
        raise InvalidSetting("from_arrays", sorted(columns), "Give at least one array.")
    first, n = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != n:
            raise InvalidSetting(name, f"an array of {length:,}", f"All arrays have an entry per judgment, and {first} has {n:,}.")
    words = {field: pl.Series(list(given), dtype=pl.String) for field, given in names.items()}
    out = _Arrays(n, {}, words, [])
    for name, value in columns.items():
        if value is not None:
            out.columns[name] = _typed(name, [value] if _is_one(value) else value, out)
    return out


def _is_one(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool | datetime | np.generic)


def _parts(side: str) -> list[str]:
    return [side + part for part in _PARTS]


def _is_number(value: object) -> bool:
    """Whether this is a column of numbers, as covariates are: a misspelt name of another column is told by its texts."""
    if isinstance(value, str | datetime):
        return False
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind in (None, "O") and not _is_one(value):
        dtype = pl.Series(value if isinstance(value, pl.Series) else list(value)[:100], strict=False).dtype  # type: ignore[call-overload,arg-type]  # it is a sequence, for it is not one value
        kind = "f" if dtype.is_numeric() or dtype == pl.Null else "O"
    return kind is None or kind in "iufb"


def _field(name: str) -> str:
    """Whose words the whole numbers of a column are."""
    for side in ("left", "right", "response"):
        if name.startswith(side):
            return "model" if name.endswith("_model") else "response"
    return name


def _typed(name: str, value: Any, arrays: _Arrays) -> pl.Series:
    """One column as its type, or as codes of words."""
    dtype = pl.Float64 if covariate_of(name) else COLUMNS.get(name, pl.String)
    column = _raw(name, value, dtype)
    words = arrays.words.get(_field(name))
    if dtype == pl.String:
        if column.dtype.is_integer() and words is not None:
            if column.null_count() < len(column) and (column.min() < -1 or column.max() >= len(words)):  # type: ignore[operator]  # polars types min() loosely
                off = (column < -1) | (column >= len(words))
                remedy = f"There are {len(words):,} names for codes from 0 (-1 where it is not known)."
                arrays.faults.append(Fault(name, pl.lit(off.fill_null(value=False)), remedy))
                return column.to_frame().select(pl.when(~off).then(name))[name]
            return column
        if name == "outcome" and column.dtype == pl.Boolean:
            return pl.Series(["right", "left"], dtype=OUTCOME).gather(column.cast(pl.UInt8))
        if name == "outcome" and column.dtype.is_integer():
            raise InvalidSetting("outcome", "whole numbers", "Say what they stand for: names={'outcome': ['right', 'left', 'tie']}.")
        if column.dtype.is_integer() or column.dtype.base_type() in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            return column
        if column.dtype.is_float() and (column.is_null() | (column.floor() == column)).all():
            return column.cast(pl.Int64)
        raise InvalidSetting(name, f"an array of {column.dtype}", "Give texts, or whole numbers.")
    if column.dtype == dtype:
        return column
    if dtype.base_type() == pl.Datetime:
        if column.dtype == pl.Date:
            column = column.cast(pl.Datetime("us"))
        if column.dtype.base_type() == pl.Datetime:
            zone = column.dtype.time_zone  # type: ignore[attr-defined]  # the base type is known on the line above
            column = column.dt.replace_time_zone("UTC") if zone is None else column.dt.convert_time_zone("UTC")
            return column.cast(dtype)
        raise InvalidSetting(name, f"an array of {column.dtype}", "Give times (datetime64, or a column of dates and times).")
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean or column.dtype == pl.Null):
        raise InvalidSetting(name, f"an array of {column.dtype}", "Give numbers.")
    cast = column.cast(dtype, strict=False)
    if dtype == pl.Float64:
        return cast
    # what does not come back as it was is no whole number, or neither 0 nor 1
    lost = column.is_not_null() & (cast.cast(column.dtype, strict=False) != column).fill_null(value=True)
    if lost.any():
        remedy = "Give true or false." if dtype == pl.Boolean else "Give whole numbers, and None where it is not known."
        arrays.faults.append(Fault(name, pl.lit(lost), remedy))
        cast = cast.to_frame().select(pl.when(~lost).then(name))[name]
    return cast


def _raw(name: str, value: Any, dtype: Any) -> pl.Series:
    """An array of any make as a column, of whatever type it holds."""
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise InvalidSetting(name, f"an array of shape {value.shape}", "Give an array of one dimension.")
        if value.dtype.kind in "UT":  # in pieces, for each text is an object of Python on its way
            pieces = [pl.Series(name, value[i : i + 500_000].astype(object), dtype=pl.String) for i in range(0, len(value), 500_000)]
            return pl.concat(pieces, rechunk=True) if pieces else pl.Series(name, [], dtype=pl.String)
        value = value.tolist() if value.dtype.kind == "O" else value.astype("datetime64[us]") if value.dtype.kind == "M" else value
    try:
        return pl.Series(name, value)
    except (TypeError, pl.exceptions.PolarsError):  # more than one type, as where NaN stands for a text that is not known
        try:
            known = [None if isinstance(v, float) and v != v else v for v in value]
            return pl.Series(name, known, dtype=dtype)
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise InvalidSetting(name, "an array of mixed types", f"Give values of one type ({error}).") from None


def _side_columns(arrays: _Arrays) -> tuple[tuple[str, ...], str]:
    """The sides shown, and the kind of judgment."""
    given = set(arrays.columns)
    shown = [side for side in ("left", "right", "response") if {side, f"{side}_id"} & given]
    if shown == ["left", "right"]:
        if "outcome" not in given:
            raise InvalidSetting("outcome", None, "A pair needs an outcome: left, right, tie, ..., or whether the left one was preferred.")
        return ("left", "right"), "pair"
    answers = [name for name in _ANSWERS if name in given]
    if shown == ["response"] and len(answers) == 1:
        return ("response",), _ANSWERS[answers[0]]
    raise InvalidSetting(
        "from_arrays",
        ", ".join(sorted(given)),
        "Give left and right (or left_id and right_id) with outcome; or response (or response_id) with one of rating, thumb and label.",
    )


def _covariates(arrays: _Arrays, sides: Sequence[str]) -> dict[str, pl.Series]:
    """Covariates as lists, one number for each side."""
    mine: dict[str, pl.Series] = {}
    for column in filter(covariate_of, arrays.columns):
        name, side = covariate_of(column), column.partition("_")[0]
        if side not in sides:
            raise InvalidSetting("from_arrays", column, f"Nothing is shown there: these judgments show {' and '.join(sides)}.")
        if f"{sides[0]}_{name}" not in arrays.columns:
            raise InvalidSetting(
                "from_arrays", column, f"Give {sides[0]}_{name} too; it alone is a difference, that of the first side less the other."
            )
        if (known := arrays.take(column)) is not None:
            mine[column] = known
    return covariates_from(mine, sides, arrays.n)


def _outcomes(column: pl.Series | None, words: pl.Series | None, n: int) -> pl.Series:
    """Answers as `OUTCOME`, null where the word is none of it. A word at a time: many times faster than a look-up per row."""
    if column is None:
        return pl.Series([None], dtype=OUTCOME).new_from_index(0, n)
    if column.dtype == OUTCOME:
        return column
    table = pl.Series(OUTCOMES, dtype=OUTCOME)
    if column.dtype.is_integer():
        assert words is not None
        return words.cast(OUTCOME, strict=False).gather(to_index(numbers_of(column, -1)))
    if column.dtype != pl.String:
        coded = encode([column])
        return coded.values.cast(pl.String).cast(OUTCOME, strict=False).gather(to_index(coded.codes.ravel()))
    code = np.zeros(len(column), dtype=np.uint8)
    left = len(column) - column.null_count()
    known: list[pl.Series] = []
    for place, word in enumerate(OUTCOMES):
        hit = column == word
        if count := hit.sum():
            known.append(hit)
            left -= int(count)
            if place:
                code += hit.fill_null(value=False).cast(pl.UInt8).to_numpy() * np.uint8(place)
            if not left:
                break
    found = table.gather(pl.Series(code))
    if left or column.null_count():
        any_known = pl.DataFrame({str(i): hit for i, hit in enumerate(known)} or {"0": column.is_null() & False})
        found = any_known.select(pl.when(pl.any_horizontal(pl.all().fill_null(value=False))).then(found).alias("outcome"))["outcome"]
    return found


def read_arrays(columns: Mapping[str, Any], names: Mapping[str, Sequence[str]], *, source: str, on_error: Literal["stop", "skip"]) -> Shown:
    """The valid judgments in arrays (see `Feedback.from_arrays`).

    Raises
    ------
    InvalidRecord
        At the first judgment that is not valid, unless `on_error` is skip.
    InvalidSetting
        If the arrays do not make a judgment, are of unequal length, or are of a type that cannot be read.
    UnreadableSource
        If nothing usable is left.
    """
    arrays = _to_arrays(columns, names)
    sides, kind = _side_columns(arrays)
    if "outcome" not in arrays.columns:
        arrays.columns["outcome"] = pl.Series(["answered"])
    n = arrays.n
    shown = {part: [arrays.take(side + part) for side in sides] for part in _PARTS}
    unnamed = [
        pl.lit(value=True) if not known else pl.lit(functools.reduce(lambda a, b: a & b, (column.is_null() for column in known)))
        for known in ([c for c in slot if c is not None] for slot in zip(shown[""], shown["_id"], strict=True))
    ]
    complete = all(any(c is not None and not c.null_count() for c in slot) for slot in zip(shown[""], shown["_id"], strict=True))
    outcome = arrays.columns["outcome"]
    plain = [name for name in arrays.columns if name in COLUMNS and name not in (*_CODED_ARRAYS, "outcome")]
    told = pl.DataFrame({"row": np.zeros(n, dtype=np.uint8)}).with_columns(
        *(_whole(arrays.columns[name], arrays.words.get(name)).alias(name) for name in plain),
        *(column.alias(name) for name, column in _covariates(arrays, sides).items()),
        *(absent(name) for name in (*JUDGMENT_COLUMNS, "line") if name not in (*plain, "kind", "outcome")),
        pl.lit(kind, dtype=KIND).alias("kind"),
        _whole(_outcomes(outcome, arrays.words.get("outcome"), len(outcome)), None).alias("outcome"),
        pl.lit(len(sides)).alias("n_shown"),
        pl.lit(value=False).alias("uneven"),
        (pl.lit(value=False) if complete else pl.any_horizontal(unnamed)).alias("unnamed"),
    )

    def value(name: str, row: int) -> Any:
        if name == "responses":
            texts = [None if column is None else _as_text(column[row], arrays.words.get("response")) for column in shown[""]]
            ids = [None if column is None else _as_text(column[row], arrays.words.get("response")) for column in shown["_id"]]
            return ids if texts.count(None) == len(texts) else texts
        if name.startswith(COVARIATE):
            return told[name][row]
        given = columns.get(name)
        if given is None or _is_one(given):
            return given
        found = pl.Series(given[row : row + 1])[0] if isinstance(given, np.ndarray) else given[row]
        return arrays.words["outcome"][found] if name == "outcome" and isinstance(found, int) and "outcome" in arrays.words else found

    bad, messages = bad_rows(told, value, source=source, on_error=on_error, faults=arrays.faults)
    if bad is not None:
        kept = ~bad
        told = told.filter(kept)
        arrays = replace(
            arrays, n=told.height, columns={name: c.filter(kept) if len(c) == n else c for name, c in arrays.columns.items()}, faults=[]
        )
        n = arrays.n
    if not n:
        raise UnreadableSource(source, "no usable judgment is left", "Check the arrays.")
    models = [arrays.take(f"{side}_model") for side in sides]
    if any(column is not None for column in models):
        coded = arrays.coded([f"{side}_model" for side in sides], "model")
        assert coded is not None
        lists = fold(coded.series(), np.full(n, len(sides), dtype=np.int64))
        if (nobody := (coded.codes < 0).all(1)).any():
            lists = pl.DataFrame({"models": lists, "known": ~nobody}).select(pl.when("known").then("models"))["models"]
        told = told.with_columns(lists.alias("models"))
    coded = {name: arrays.coded([name], name) for name in _CODED_ARRAYS}
    return Shown(
        told,
        np.full(n, len(sides), dtype=np.int64),
        arrays.coded(sides, "response"),
        arrays.coded([f"{side}_id" for side in sides], "response"),
        {name: found for name, found in coded.items() if found is not None},
        messages,
    )


def _whole(column: pl.Series, words: pl.Series | None) -> pl.Expr:
    """A column to be put into a frame; one value for all stays one."""
    if column.dtype.is_integer() and words is not None:
        column = _Arrays.named(column, words)
    column = column.cast(pl.String) if column.dtype == pl.Categorical else column
    return pl.lit(column[0], dtype=column.dtype) if len(column) == 1 else pl.lit(column)


def _as_text(value: Any, words: pl.Series | None) -> str | None:
    if value is None or (isinstance(value, int) and words is not None and value < 0):
        return None
    return words[value] if isinstance(value, int) and words is not None else str(value)
