"""Values that move: a response at a time is a response of its own, and a random walk ties those of one response together.

Conventions
-----------
A *node* is a response in a period in which it was judged; the nodes of a response, in the order of time, are its *path*, and paths
follow each other in the order of the responses. Only judged periods have nodes, so that there may be any number of periods: between
two nodes the walk is a Brownian bridge, and after the last it goes on. To the likelihood nodes are responses. The prior is normal and
independent in the *coordinates*

    y_i = x_i                                       at the first node of a path
    y_i = (x_i - x_(i-1)) / sqrt(t_i - t_(i-1))     at the others, t in periods

so that its precision in x is tridiagonal.

Source: Glickman 1999; Coulom 2008 (whole-history rating), with the size of the steps estimated instead of given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from seamark.errors import InvalidSetting
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Walk:
    """The nodes of all responses."""

    first: datetime
    """Beginning of period 0."""
    every: timedelta
    response: Codes
    """(N,) number of the response, ascending."""
    period: Codes
    """(N,), ascending within a response."""

    @staticmethod
    def read(feedback: Feedback, every: timedelta) -> tuple[Walk, Feedback]:
        """The paths of the judgments that have a time, and these judgments with nodes in place of responses.

        Raises
        ------
        InvalidSetting
            If fewer than half of the judgments have a time, or they fall in one period.
        """
        first, last = span(feedback)
        if not isinstance(every, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidSetting("Dynamic(every=)", every, "Use a timedelta, such as timedelta(days=30).")
        if every <= timedelta(0) or (last - first) < every:
            raise InvalidSetting("Dynamic(every=)", str(every), f"It makes one period of {first:%Y-%m-%d} to {last:%Y-%m-%d}.")
        timed = replace(feedback, judgments=feedback.judgments.filter(pl.col("time").is_not_null()))
        empty = Walk(first, every, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        response, period, nodes = empty.nodes_of(timed)
        return replace(empty, response=response, period=period), nodes

    def periods_of(self, time: pl.Series) -> Codes:
        """(n,) period of each time; the last one judged where it is not known."""
        since = (time - self.first).dt.total_microseconds() // _microseconds(self.every)
        return since.fill_null(self.last).cast(pl.Int64).to_numpy()

    def periods_at(self, other: Walk) -> Codes:
        """(N,) the period of this walk in which each node of another stands."""
        later = _microseconds(other.first - self.first)
        return (other.period * _microseconds(other.every) + later) // _microseconds(self.every)

    def nodes_of(self, feedback: Feedback) -> tuple[Codes, Codes, Feedback]:
        """(response, period) of each distinct pair of them, and the judgments with these pairs in place of responses."""
        frame = feedback.judgments
        size = frame["responses"].list.len().to_numpy().astype(np.int64)
        shown = frame["responses"].explode(empty_as_null=False).to_numpy().astype(np.int64)
        period = self.periods_of(frame["time"])
        low = int(period.min()) if len(period) else 0
        width = int(period.max()) - low + 1 if len(period) else 1
        key = shown * width + np.repeat(period - low, size)
        total = feedback.n_responses * width
        if total <= 8 * len(key) + 1_000_000:  # counting is faster than sorting
            present = np.zeros(total, dtype=bool)
            present[key] = True
            number = np.cumsum(present) - 1
            known, node = np.flatnonzero(present), number[key]
        else:
            known, node = np.unique(key, return_inverse=True)
        response, when = np.divmod(known, width)
        dtype = frame["responses"].dtype
        if len(size) and (size == size[0]).all():
            lists = pl.Series("responses", node.reshape(len(size), -1).astype(np.uint32)).cast(dtype)
        else:
            rows = pl.DataFrame({"row": np.repeat(np.arange(len(size)), size), "responses": node.astype(np.uint32)})
            lists = rows.group_by("row", maintain_order=True).agg("responses")["responses"].cast(dtype)
        return response, when + low, replace(feedback, judgments=frame.with_columns(lists), responses=feedback.responses[response])

    # ------------------------------------------------------------------ the prior

    @cached_property
    def begins(self) -> NDArray[np.bool_]:
        """(N,) whether a node is the first of its path."""
        return np.append(True, self.response[1:] != self.response[:-1])

    @cached_property
    def apart(self) -> Array:
        """(N,) periods since the node before; 1 at the first of a path."""
        return np.where(self.begins, 1.0, np.append(1.0, np.diff(self.period))).astype(float)

    @cached_property
    def _tied(self) -> Array:
        return (~self.begins).astype(float)

    def coordinates(self, x: Array) -> Array:
        """y (k N, ...) of x (k N, ...), the k values one below the other."""
        blocks = x.reshape(len(x) // len(self.response), len(self.response), *x.shape[1:])
        one = (...,) + (None,) * (x.ndim - 1)
        y = blocks.copy()
        y[:, 1:] -= self._tied[1:][one] * blocks[:, :-1]
        y /= np.sqrt(self.apart)[one]
        return y.reshape(x.shape)

    def transposed(self, y: Array) -> Array:
        """The transpose of `coordinates`."""
        blocks = y.reshape(len(y) // len(self.response), len(self.response), *y.shape[1:])
        one = (...,) + (None,) * (y.ndim - 1)
        scaled = blocks / np.sqrt(self.apart)[one]
        x = scaled.copy()
        x[:, :-1] -= self._tied[1:][one] * scaled[:, 1:]
        return x.reshape(y.shape)

    def variances(self, own: Array, before: Array) -> Array:
        """(k N,) of the coordinates, from the variances of the nodes and their covariances with the node before."""
        n = len(self.response)
        tied = np.tile(self._tied, len(own) // n)
        last = np.append(0.0, own[:-1])
        return (own + tied * (last - 2 * before)) / np.tile(self.apart, len(own) // n)

    def precision(self, p: Array) -> csr_array:
        """(k N, k N) tridiagonal precision of x, where that of y is p (k N,)."""
        n = len(self.response)
        scaled = p.reshape(-1, n) / self.apart
        across = scaled[:, 1:] * self._tied[1:]
        diagonal = scaled.copy()
        diagonal[:, :-1] += across
        off = np.hstack([-across, np.zeros((len(scaled), 1))]).ravel()[:-1]
        return csr_array(diags_array([off, diagonal.ravel(), off], offsets=[-1, 0, 1]))  # type: ignore[arg-type]  # scipy types lists of arrays narrowly

    # ------------------------------------------------------------------ at any time

    @property
    def last(self) -> int:
        return int(self.period.max()) if len(self.period) else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Beginning of each period with judgments."""
        return tuple(f"{self.first + int(p) * self.every:%Y-%m-%d %H:%M}" for p in np.unique(self.period))

    def period_at(self, asked: str) -> int:
        """Period of a date, or of one of `names`.

        Raises
        ------
        InvalidSetting
            If it is not a date.
        """
        if asked in self.names:
            return int(np.unique(self.period)[self.names.index(asked)])
        try:
            when = datetime.fromisoformat(asked)
        except (ValueError, TypeError):
            raise InvalidSetting("at['period']", asked, "Use a date such as 2024-05-31, or 2024-05-31T12:00.") from None
        zone = self.first.tzinfo
        when = when.replace(tzinfo=None) if zone is None else when if when.tzinfo else when.replace(tzinfo=zone)
        return int((when - self.first) // self.every)

    def place(self, response: Codes, period: Codes | int) -> tuple[Codes, Codes, Array, Array]:
        """Where responses (n,) stand in periods: value (1 - w) x[one] + w x[two], and the variance about it in squared steps.

        Between two nodes that is the Brownian bridge; before the first node and after the last the variance grows by a step a
        period. The answer for a response below 0 says nothing.
        """
        width = self.last + 2
        period = np.broadcast_to(np.asarray(period, dtype=np.int64), response.shape)
        inside = np.clip(period, -1, self.last + 1) + 1
        keys = self.response * (width + 1) + self.period + 1
        after = np.searchsorted(keys, response * (width + 1) + inside, side="right")  # the first node later than the period
        start, stop = np.searchsorted(self.response, response), np.searchsorted(self.response, response, side="right")
        one = np.clip(np.maximum(after - 1, start), 0, len(keys) - 1)
        two = np.clip(np.minimum(after, stop - 1), 0, len(keys) - 1)
        before, later = self.period[one], self.period[two]
        length = later - before
        weight = np.where(length > 0, (period - before) / np.maximum(length, 1), 0.0)
        weight = np.clip(weight, 0.0, 1.0)
        doubt = np.where((period > before) & (period < later), weight * (later - period), 0.0)
        doubt = np.where(period >= later, period - later, np.where(period < before, before - period, doubt)).astype(float)
        # at or past the last node, and at a node itself, the value is that node's
        return one, np.where(weight > 0, two, one), weight, np.where(response < 0, 0.0, np.where(period == before, 0.0, doubt))

    def since(self) -> Array:
        """(N,) periods since the path of a node began."""
        starts = np.flatnonzero(self.begins)
        return (self.period - np.repeat(self.period[starts], np.diff(np.append(starts, len(self.period))))).astype(float)

    def to_dict(self) -> dict[str, Any]:
        return {
            "first": self.first.isoformat(),
            "every_s": self.every.total_seconds(),
            "response": self.response.tolist(),
            "period": self.period.tolist(),
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Walk:
        return Walk(
            datetime.fromisoformat(record["first"]),
            timedelta(seconds=record["every_s"]),
            np.array(record["response"], dtype=np.int64),
            np.array(record["period"], dtype=np.int64),
        )


def _microseconds(time: timedelta) -> int:
    return time // timedelta(microseconds=1)


def span(feedback: Feedback) -> tuple[datetime, datetime]:
    """First and last time of a judgment.

    Raises
    ------
    InvalidSetting
        If fewer than half of the judgments have a time.
    """
    time = feedback.judgments["time"]
    if time.null_count() > 0.5 * len(time):
        raise InvalidSetting("Dynamic", "time", "Fewer than half of the judgments have a time; values cannot follow it.")
    first, last = time.min(), time.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return first, last
