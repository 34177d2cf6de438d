"""Whole columns at once: values to integer codes, runs to lists, contents to hashes.

Conventions
-----------
A *code* is the place of a value among the distinct values of its columns, in order of first appearance; -1 stands for null.
Codes of several columns share their values and are numbered row by row, across the columns: (n, k) int32, C order.
Nothing here takes a step of Python per row; content hashes take one per distinct value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Codes = NDArray[np.int32]

_HEAD = 2**14
"""Rows looked at first: where they hold most of the values, the others need no dictionary of their own."""
_CHUNK = 2**18
_CLASSES = 64
"""Lists of more lengths than this are folded by grouping rows instead of length by length."""


@dataclass(frozen=True)
class Coded:
    """Columns as codes."""

    codes: Codes
    """(n, k)."""
    values: pl.Series
    """The distinct values, without null."""

    def series(self) -> pl.Series:
        """The values again, row by row."""
        return self.values.gather(to_index(self.codes.ravel()))


# ---------------------------------------------------------------------------------------------- values to codes


def encode(columns: Sequence[pl.Series]) -> Coded:
    """Codes of one or more columns of the same length and type: texts, whole numbers or categories."""
    if columns[0].dtype.is_integer():
        return _by_range(columns)
    if columns[0].dtype != pl.String:
        return _by_category(columns)
    n = len(columns[0])
    head = interleave([column[:_HEAD] for column in columns]).drop_nulls().unique(maintain_order=True)
    if len(head) > _HEAD * len(columns) // 2:
        return _by_hash(columns)
    codes = np.empty((n, len(columns)), dtype=np.int32)
    late = np.zeros((n, len(columns)), dtype=bool)
    dictionary = pl.Enum(head)
    for place, column in enumerate(columns):
        found = column.cast(dictionary, strict=False).to_physical()
        codes[:, place] = numbers_of(found, -1)
        if found.null_count() > column.null_count():
            late[:, place] = (found.is_null() & column.is_not_null()).to_numpy()
    if not late.any():
        return Coded(codes, head)
    # every value of the head appears before these, so their numbers follow
    slots = np.flatnonzero(late.ravel())
    more = _by_hash([_at(columns, slots)])
    codes.ravel()[slots] = more.codes[:, 0] + len(head)
    return Coded(codes, pl.concat([head, more.values], rechunk=True))


def interleave(columns: Sequence[pl.Series]) -> pl.Series:
    """The entries row by row."""
    if len(columns) == 1:
        return columns[0]
    n = len(columns[0])
    return pl.concat(columns, rechunk=True).gather(np.arange(n * len(columns)).reshape(len(columns), n).T.ravel())


def _at(columns: Sequence[pl.Series], slots: NDArray[np.int64]) -> pl.Series:
    """Some of the entries, counted row by row."""
    if len(columns) == 1:
        return columns[0].gather(slots)
    row, place = np.divmod(slots, len(columns))
    owned = [np.flatnonzero(place == j) for j in range(len(columns))]
    parts = pl.concat([column.gather(row[mine]) for column, mine in zip(columns, owned, strict=True)], rechunk=True)
    return parts.gather(np.argsort(np.concatenate(owned)))


def _by_hash(columns: Sequence[pl.Series]) -> Coded:
    """Codes of texts that are mostly different: of their hashes, and then compared, so that no two texts share a code."""
    keys = np.empty((len(columns[0]), len(columns)), dtype=np.uint64)
    for place, column in enumerate(columns):
        keys[:, place] = column.hash().to_numpy()
    flat = pl.Series(keys.ravel())
    if any(column.null_count() for column in columns):
        known = np.stack([column.is_not_null().to_numpy() for column in columns], 1).ravel()
        flat = pl.DataFrame({"key": flat, "known": known}).select(pl.when("known").then("key"))["key"]
    code = _by_table(flat)
    values = _at(columns, _first_row(code >= 0, code, int(code.max(initial=-1)) + 1))
    codes = code.reshape(keys.shape)
    for place, column in enumerate(columns):
        if not (values.gather(to_index(codes[:, place])) == column).all():  # one hash for two texts: about never
            flat = interleave(columns)
            return Coded(_by_table(flat).reshape(keys.shape), flat.drop_nulls().unique(maintain_order=True))
    return Coded(codes, values)


def _by_table(flat: pl.Series) -> Codes:
    """(n,) codes by a hash table."""
    values = flat.drop_nulls().unique(maintain_order=True)
    table = pl.LazyFrame({"value": values, "code": np.arange(len(values), dtype=np.int32)})
    rows = pl.LazyFrame({"value": flat}).with_row_index("row")
    found = rows.join(table, on="value", how="inner", maintain_order="none").select("row", "code").collect()
    out = np.full(len(flat), -1, dtype=np.int32)
    out[found["row"].to_numpy()] = found["code"].to_numpy()  # a join that keeps the order takes four times as long
    return out


def _by_range(columns: Sequence[pl.Series]) -> Coded:
    """Codes of whole numbers: by their place between the smallest and the largest, where that range is short."""
    ends = [(column.min(), column.max()) for column in columns if column.null_count() < len(column)]
    low = min((int(least) for least, _ in ends), default=0)  # type: ignore[arg-type]  # polars types min() loosely
    high = max((int(most) for _, most in ends), default=-1)  # type: ignore[arg-type]  # and max()
    if high - low >= 4 * len(columns) * len(columns[0]) + 1024:
        flat = interleave([column.cast(pl.Int64) for column in columns])
        return Coded(_by_table(flat).reshape(-1, len(columns)), flat.drop_nulls().unique(maintain_order=True))
    coded, _ = _renumbered([numbers_of(column, low - 1) for column in columns], high - low + 1, low)
    return Coded(coded.codes, pl.Series(coded.values.to_numpy() + low))


def _by_category(columns: Sequence[pl.Series]) -> Coded:
    """Codes of columns that are dictionaries already."""
    if not all(column.dtype == columns[0].dtype for column in columns):
        columns = [column.cast(pl.Categorical) for column in columns]
    numbers = [column.to_physical() for column in columns]
    n = max((int(most) for number in numbers if (most := number.max()) is not None), default=-1) + 1  # type: ignore[arg-type]
    coded, slots = _renumbered([numbers_of(number, -1) for number in numbers], n, 0)
    return Coded(coded.codes, _at(columns, slots).cast(pl.String))


def numbers_of(column: pl.Series, value: int) -> NDArray[np.integer]:
    """Whole numbers with `value` for null."""
    if not column.null_count():
        return column.to_numpy()
    return column.cast(pl.Int64).fill_null(value).to_numpy()


def renumber(columns: Sequence[NDArray[np.integer]], n: int) -> Coded:
    """Numbers below n (-1: null) as codes; `values` are the numbers that appear."""
    return _renumbered(columns, n, 0)[0]


def _renumbered(columns: Sequence[NDArray[np.integer]], n: int, base: int) -> tuple[Coded, NDArray[np.int64]]:
    """Numbers from `base` to `base + n - 1` (base - 1: null) as codes, their values less `base`, and the slot where each appears first."""
    rows = len(columns[0])
    out = np.empty((rows, len(columns)), dtype=np.int32)
    rank = np.full(n + 1, -2, dtype=np.int32)
    rank[n] = -1  # null is the number before the first, and so the last of the table
    seen: list[NDArray[np.int64]] = []
    slots: list[NDArray[np.int64]] = []
    total = 0
    start, size = 0, 2**12  # most values come early: small steps first keep the search for new ones short
    while start < rows:
        part = out[start : start + size]
        for place, column in enumerate(columns):
            piece = column[start : start + size]
            part[:, place] = piece.astype(np.int64) - base if base else piece
        coded = rank[part]
        if total < n and len(fresh := np.flatnonzero(coded.ravel() == -2)):
            number = part.ravel()[fresh]
            first = np.arange(len(number), dtype=np.int32)
            rank[number[::-1]] = first[::-1]  # of several writes to one entry the last stands: the first appearance
            new = np.flatnonzero(rank[number] == first)
            rank[number[new]] = np.arange(total, total + len(new), dtype=np.int32)
            seen.append(number[new].astype(np.int64))
            slots.append(fresh[new] + start * len(columns))
            total += len(new)
            coded = rank[part]
        part[:] = coded
        start += size
        size = min(4 * size, _CHUNK)
    nothing = [np.zeros(0, dtype=np.int64)]
    return Coded(out, pl.Series(np.concatenate(seen or nothing))), np.concatenate(slots or nothing)


def to_index(codes: NDArray[np.integer]) -> pl.Series:
    """Codes as row numbers, with null for -1."""
    if not len(codes) or codes.min() >= 0:
        codes = np.ascontiguousarray(codes)
        return pl.Series(codes.view(np.uint32) if codes.dtype == np.int32 else codes.astype(np.uint32))
    return pl.DataFrame({"code": codes}).select(pl.when(pl.col("code") >= 0).then(pl.col("code")).cast(pl.UInt32))["code"]


def first_known(values: pl.Series, codes: NDArray[np.integer], n: int) -> pl.Series:
    """Per code (n of them), the first value that is not null, and null where there is none."""
    if values.null_count() == len(values):
        return pl.Series(values.name, [None], dtype=values.dtype).new_from_index(0, n)
    known = codes >= 0 if not values.null_count() else (codes >= 0) & values.is_not_null().to_numpy()
    return values.gather(to_index(_first_row(known, codes, n)))


def first_value(values: Coded, codes: NDArray[np.integer], n: int) -> pl.Series:
    """`first_known` of one column that is coded itself."""
    column = values.codes.ravel()
    row = _first_row((codes >= 0) & (column >= 0), codes, n)
    return values.values.gather(to_index(np.where(row >= 0, column[row], -1)))


def _first_row(known: NDArray[np.bool_], codes: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    row = np.flatnonzero(known)[::-1]
    first = np.full(n, -1, dtype=np.int64)
    first[codes[row]] = row  # of several writes to one entry the last stands
    return first


# ---------------------------------------------------------------------------------------------- lists


def fold(flat: pl.Series, lengths: NDArray[np.int64]) -> pl.Series:
    """Consecutive runs of `flat`, of these lengths, as lists."""
    n = len(lengths)
    sizes = np.flatnonzero(np.bincount(lengths)) if n and lengths.max() < 2**20 else np.unique(lengths)
    if len(sizes) == 1 and sizes[0]:
        return flat.rechunk().reshape((n, int(sizes[0]))).arr.to_list()
    if len(sizes) > _CLASSES:
        row = np.repeat(np.arange(n), lengths)
        some = pl.DataFrame({"row": row, "value": flat}).group_by("row", maintain_order=True).agg("value")
        every = pl.DataFrame({"row": np.arange(n)}).join(some, on="row", how="left", maintain_order="left")
        return every.select(pl.col("value").fill_null(pl.lit([], dtype=pl.List(flat.dtype))))["value"]
    start = np.cumsum(lengths) - lengths
    parts: list[pl.Series] = []
    rows: list[NDArray[np.int64]] = []
    for size in sizes.tolist():
        row = np.flatnonzero(lengths == size)
        rows.append(row)
        if size:
            parts.append(flat.gather((start[row][:, None] + np.arange(size)).ravel()).reshape((len(row), size)).arr.to_list())
        else:
            parts.append(pl.Series([[]], dtype=pl.List(flat.dtype)).new_from_index(0, len(row)))
    if not parts:
        return pl.Series([], dtype=pl.List(flat.dtype))
    return pl.concat(parts, rechunk=True).gather(np.argsort(np.concatenate(rows)))


def pad(series: pl.Series, lengths: NDArray[np.int64]) -> pl.Series:
    """The entries of a column of lists, `lengths` of them a row; a null list gives a null for each of its slots."""
    total = int(lengths.sum())
    if series.null_count() == len(series):
        return pl.Series([None], dtype=pl.String).new_from_index(0, total)
    if not series.null_count():
        return series.explode(empty_as_null=False)
    out = np.full(total, -1, dtype=np.int64)
    values = series.drop_nulls().explode(empty_as_null=False)
    out[np.repeat(series.is_not_null().to_numpy(), lengths)] = np.arange(len(values))
    return values.gather(to_index(out))


# ---------------------------------------------------------------------------------------------- contents to hashes


def content_hashes(values: pl.Series) -> NDArray[np.uint64]:
    """A 64-bit content hash (BLAKE2b) per text; null hashes as 0."""
    blake2b = hashlib.blake2b
    known = values.cast(pl.Binary).to_list()
    joined = b"".join([bytes(8) if v is None else blake2b(v, digest_size=8).digest() for v in known])
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64, copy=False)


def written(hashes: NDArray[np.uint64]) -> pl.Series:
    """Hashes as 16 hexadecimal digits."""
    digits = hashes.astype(">u8").tobytes().hex()
    return pl.Series([digits[i : i + 16] for i in range(0, len(digits), 16)], dtype=pl.String)
