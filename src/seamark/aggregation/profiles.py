"""What people think of the options of many questions, and what a rule may ask of that: margins, means, quantiles, first choices.

Conventions
-----------
Q questions, N people, M options. A question is a prompt; its options are its responses. Posterior draws are further questions: fold
(draws, Q, N, M) into (draws x Q, N, M). Absent options are NaN in whatever is returned. Everything over people is weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]
Floats = NDArray[np.float32 | np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]
Transform = Callable[[Floats], Floats | Mask]
"""Of a block of utilities, (q, M, N), to another of the same shape."""

TIE = 1e-9
"""Figures that differ by less, relative to the largest of their question (or to 1), are tied: sums over people are rounded."""

_BLOCK = 2**17
"""Utilities that are worked on at a time: their comparisons stay in the cache."""


@dataclass(frozen=True, eq=False)
class Profile:
    """What people think of the options of Q questions."""

    utilities: Floats
    """(Q, N, M) logits; equal is a tie; NaN for everyone where a question has fewer options."""
    weights: Array | None = None
    """(N,) or (Q, N): how much each person counts, not negative; None: all alike. Who was not asked a question weighs 0 in it."""
    groups: Codes | None = None
    """(N,) code of each person's group, negative where it is not known; such people belong to no group."""
    ordinal: bool = False
    """Whether the utilities only put the options in order, as rankings do."""

    def __post_init__(self) -> None:
        for name in ("utilities", "weights", "groups"):
            if not isinstance(given := getattr(self, name), np.ndarray) and (given is not None or name == "utilities"):
                raise InvalidSetting(name, given, f"Give a NumPy array: numpy.array(..., dtype={'int' if name == 'groups' else 'float'}).")
        u = self.utilities
        if u.ndim != 3 or 0 in u.shape or u.dtype.name not in ("float32", "float64"):
            raise InvalidSetting("utilities", f"{u.dtype} {u.shape}", "Give floats of shape (questions, people, options), each at least 1.")
        for at, block in self._blocks():
            lacking = np.isnan(block)
            if np.isinf(block).any():
                raise InvalidSetting("utilities", "infinite", f"Question {at.start + _first(np.isinf(block))} has one; give finite logits.")
            if (lacking != lacking[:, :, :1]).any():
                where = at.start + _first(lacking != lacking[:, :, :1])
                remedy = f"In question {where} some people have a utility for an option and some have none; NaN says that an option is absent for all."
                raise InvalidSetting("utilities", "NaN", remedy)
        if self.weights is not None:
            w = self.weights
            if w.shape not in ((self.n_people,), (self.n_questions, self.n_people)):
                raise InvalidSetting("weights", w.shape, "Give one per person, or one per question and person.")
            if not np.isfinite(w).all() or (w < 0).any():
                raise InvalidSetting("weights", float(w[~(w >= 0) | np.isinf(w)][0]), "Weights are finite and not negative.")
            if (w.sum(-1) <= 0).any():
                raise InvalidSetting(
                    "weights", 0.0, f"Nobody counts in question {_first(np.atleast_1d(w.sum(-1) <= 0))}; give someone a weight."
                )
        if self.groups is not None and (self.groups.shape != (self.n_people,) or self.groups.dtype.kind != "i"):
            raise InvalidSetting("groups", f"{self.groups.dtype} {self.groups.shape}", "Give one integer code per person.")

    @staticmethod
    def of_rankings(
        ranks: NDArray[np.float64] | NDArray[np.int64],
        *,
        weights: Array | None = None,
        groups: Codes | None = None,
        present: Mask | None = None,
    ) -> Profile:
        """Ballots that only put options in order.

        Parameters
        ----------
        ranks : (Q, N, M) or (N, M): smaller is better, equal is a tie, NaN is unranked: below all that the person ranked, and tied.
        weights, groups : as in `Profile`.
        present : (Q, M) which options the question has; None: all.
        """
        given = np.array(ranks, dtype=np.float64)
        given = given[None] if given.ndim == 2 else given
        if given.ndim != 3 or 0 in given.shape:
            raise InvalidSetting("ranks", given.shape, "Give (questions, people, options) or (people, options).")
        last = np.where(np.isnan(given), 0, given).max(-1, keepdims=True)
        utilities = -np.where(np.isnan(given), last + 1, given)
        if present is not None:
            utilities[np.broadcast_to(~present[:, None], utilities.shape)] = np.nan
        return Profile(utilities, weights, groups, ordinal=True)

    def __repr__(self) -> str:
        kind = "rankings" if self.ordinal else "utilities"
        groups = f", {self.n_groups} groups" if self.n_groups else ""
        return f"Profile({self.n_questions} questions, {self.n_people} people, {self.n_options} options, {kind}{groups})"

    @property
    def n_questions(self) -> int:
        return self.utilities.shape[0]

    @property
    def n_people(self) -> int:
        return self.utilities.shape[1]

    @property
    def n_options(self) -> int:
        """The most that a question has."""
        return self.utilities.shape[2]

    @property
    def n_groups(self) -> int:
        return 0 if self.groups is None else int(self.groups.max(initial=-1)) + 1

    @cached_property
    def present(self) -> Mask:
        """(Q, M) which options a question has."""
        return ~np.isnan(self.utilities[:, 0])

    def without(self, removed: Mask) -> Profile:
        """The profile without the options of `removed`, (Q, M); a question may be left with none."""
        left = Profile(
            np.where(removed[:, None], self.utilities.dtype.type(np.nan), self.utilities), self.weights, self.groups, self.ordinal
        )
        if "margins" in self.__dict__:  # those of the options that stay do not change, and are the dearest thing here
            gone = removed[:, :, None] | removed[:, None]
            left.__dict__["margins"] = np.where(gone, np.nan, self.margins)
        return left

    # ---------------------------------------------------------------------------------------------- passes over the people

    def _blocks(self) -> Iterator[tuple[slice, Floats]]:
        """A few questions at a time: which, and their utilities as (q, M, N), people last and contiguous."""
        step = max(1, _BLOCK // (self.n_people * self.n_options))
        for start in range(0, self.n_questions, step):
            at = slice(start, min(start + step, self.n_questions))
            yield at, np.ascontiguousarray(self.utilities[at].transpose(0, 2, 1))

    def _weights(self, at: slice) -> Array:
        """(q, N) weights of a block, or (1, N) where they are those of every question."""
        if self.weights is None:
            return np.ones((1, self.n_people))
        return self.weights[None] if self.weights.ndim == 1 else self.weights[at]

    @cached_property
    def total(self) -> Array:
        """(Q,) weight of all people."""
        if self.weights is None:
            return np.full(self.n_questions, float(self.n_people))
        return np.broadcast_to(self.weights.sum(-1), (self.n_questions,))

    @cached_property
    def margins(self) -> Array:
        """(Q, M, M) share that prefers i to j less the share that prefers j to i; NaN where either is absent.

        One pass: each utility is read from memory once, Q x N x M x itemsize bytes; what is compared stays in the cache. Shares are
        rounded to 12 decimals, so that margins that are equal but for the order of adding up are equal.
        """
        q, m = self.n_questions, self.n_options
        found = np.zeros((q, m, m))
        for at, u in self._blocks():
            w = self._weights(at)
            for i in range(m - 1):
                # int8, not two sums: half the conversions, and a tie is 0 without being looked for
                better = (u[:, i, None] > u[:, i + 1 :]).view(np.int8) - (u[:, i, None] < u[:, i + 1 :]).view(np.int8)
                found[at, i, i + 1 :] = _weighted_sum(better, w)
        found = np.round(found / self.total[:, None, None], 12)
        found -= found.transpose(0, 2, 1)
        found[~(self.present[:, :, None] & self.present[:, None])] = np.nan
        return found

    @cached_property
    def condorcet(self) -> Codes:
        """(Q,) the option that beats each other one by majority; -1 where there is none."""
        return _only(self._versus(lambda margin: margin > 0))

    @cached_property
    def condorcet_loser(self) -> Codes:
        """(Q,) the option that each other one beats by majority; -1 where there is none, or no other option."""
        return np.where(self.present.sum(-1) > 1, _only(self._versus(lambda margin: margin < 0)), -1)

    @cached_property
    def cyclic(self) -> Mask:
        """(Q,) whether majorities run in a circle: whichever option one takes, a majority prefers another."""
        return np.asarray(self.present.any(-1) & ~self._versus(lambda margin: margin >= 0).any(-1))

    def _versus(self, holds: Callable[[Array], Mask]) -> Mask:
        """(Q, M) present options for which something holds of the margins over all others that are present."""
        with np.errstate(invalid="ignore"):
            against = holds(self.margins) | np.isnan(self.margins) | np.eye(self.n_options, dtype=bool)
        return against.all(-1) & self.present

    def average(self, of: Transform | None = None) -> Array:
        """(Q, M) mean over people of the utilities, or of what `of` makes of them."""
        found = np.empty((self.n_questions, self.n_options))
        for at, u in self._blocks():
            found[at] = _weighted_sum(u if of is None else of(u), self._weights(at))
        return found / self.total[:, None]

    def group_average(self, of: Transform | None = None) -> tuple[Array, Array]:
        """Means of the groups, (Q, G, M), NaN where nobody of a group counts, and the groups' shares of the weight, (Q, G).

        Raises
        ------
        InvalidSetting
            If no groups are known, or a question has nobody of any.
        """
        if self.groups is None or self.n_groups == 0:
            raise InvalidSetting("groups", None, "Give each person's group, or use a rule that needs none.")
        member = (self.groups[:, None] == np.arange(self.n_groups)).astype(float)  # (N, G)
        sums = np.empty((self.n_questions, self.n_options, self.n_groups))
        size = np.empty((self.n_questions, self.n_groups))
        for at, u in self._blocks():
            w = self._weights(at)
            size[at] = w @ member
            shown = (u if of is None else of(u)).astype(np.float64, copy=False)
            sums[at] = shown @ (w[:, :, None] * member)
        if (size.sum(-1) <= 0).any():
            raise InvalidSetting("groups", None, f"Nobody who counts in question {_first(size.sum(-1) <= 0)} has a known group.")
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (sums / size[:, None]).transpose(0, 2, 1)
        means[np.broadcast_to((size <= 0)[:, :, None], means.shape)] = np.nan
        return means, size / size.sum(-1, keepdims=True)

    def quantile(self, share: float, of: Transform | None = None, *, member: Mask | None = None) -> Array:
        """(Q, M) the least utility u such that at least `share` of the people have u or less; of those in `member`, (N,), if given.

        It is always somebody's utility (the lower one where two would do), so that it means the same on any scale.
        """
        found = np.empty((self.n_questions, self.n_options))
        who = slice(None) if member is None else member
        for at, u in self._blocks():
            u = (u if of is None else of(u))[..., who]
            w = self._weights(at)[:, who]
            if (w == w[:, :1]).all() and (w > 0).all():
                k = max(0, int(np.ceil(share * u.shape[-1] - TIE)) - 1)
                found[at] = np.partition(u, k, axis=-1)[..., k]
                continue
            order = np.argsort(u, axis=-1)
            running = np.cumsum(np.take_along_axis(np.broadcast_to(w[:, None], u.shape), order, -1), axis=-1)
            # a person who weighs 0 is never reached: the sum does not grow there
            k = (running < np.maximum(share - TIE, TIE) * running[..., -1:]).sum(-1, keepdims=True)
            found[at] = np.take_along_axis(u, np.take_along_axis(order, np.minimum(k, u.shape[-1] - 1), -1), -1)[..., 0]
            found[at][running[..., -1] <= 0] = np.nan
        return found

    def shortfall(self, below: Array, of: Transform | None = None) -> Array:
        """(Q, M) mean over all people of how far they are below a level of each option."""
        found = np.empty((self.n_questions, self.n_options))
        for at, u in self._blocks():
            found[at] = _weighted_sum(np.maximum(below[at][:, :, None] - (u if of is None else of(u)), 0), self._weights(at))
        return found / self.total[:, None]

    def eliminations(self) -> Array:
        """(Q, M) how many options leave before this one, at best, when the one with the fewest first choices leaves, again and again.

        Where several have the fewest, each of them leaving is followed up (parallel universes). A person whose best options are tied
        gives each an equal part of the vote. Options that are nobody's first choice leave together, as they would one by one.
        """
        found = np.full((self.n_questions, self.n_options), -1.0)
        for at, u in self._blocks():
            w, present = self._weights(at), self.present[at]
            w = np.broadcast_to(w, (len(u), self.n_people))
            question, left = np.arange(len(u)), present.copy()
            while len(question):
                gone = present.sum(-1)[question] - left.sum(-1)
                np.maximum.at(found[at], question, np.where(left, gone[:, None], -1.0))
                going = left.sum(-1) > 1
                question, left = question[going], left[going]
                if not len(question):
                    break
                votes = _first_choices(u, w, question, left)
                with np.errstate(invalid="ignore"):
                    fewest = np.where(left, votes, np.inf).min(-1, keepdims=True)
                    last = left & (votes <= fewest + TIE * votes.sum(-1, keepdims=True))
                nobodys = (fewest <= TIE * votes.sum(-1, keepdims=True))[:, 0] & ~(last == left).all(-1)
                state, option = np.nonzero(last & ~nobodys[:, None])
                after = left[state].copy()
                after[np.arange(len(state)), option] = False
                question = np.concatenate([question[state], question[nobodys]])
                left = np.concatenate([after, (left & ~last)[nobodys]])
                # two orders of leaving that leave the same options are one from here on: at most 2^M states a question
                _, once = np.unique(np.column_stack([question, left]), axis=0, return_index=True)
                question, left = question[once], left[once]
        return np.where(self.present, found, np.nan)


def against(reference: Literal["given", "mean"] | int) -> Transform | None:
    """Utilities as gaps to a zero of the person's own: as `given`, the person's `mean` over the options, or one option (its number).

    Only differences of a person's utilities mean anything; a rule that compares people or groups needs to know from where.
    """
    if reference == "given":
        return None
    if reference == "mean":
        return lambda u: u - own_mean(u)
    if str(reference).isdigit():
        return lambda u: u - _option(u, reference)
    raise InvalidSetting("reference", reference, "Use 'given', 'mean', or the number of an option from 0.")


def own_mean(u: Floats) -> Array:
    """(q, 1, N) each person's mean over the options that are present; NaN where there are none."""
    known = ~np.isnan(u)
    with np.errstate(invalid="ignore"):
        return np.where(known, u, 0).sum(axis=1, keepdims=True, dtype=np.float64) / known.sum(axis=1, keepdims=True)


def _option(u: Floats, number: int) -> Floats:
    """(q, 1, N) utilities of one option."""
    if number >= u.shape[1] or np.isnan(u[:, number]).any():
        raise InvalidSetting("reference", number, "Not every question has this option.")
    return u[:, number, None]


def _weighted_sum(values: NDArray[np.generic], w: Array) -> Array:
    """(q, m) sums over people, in double precision: a product with a vector where weights are those of every question."""
    exact = values.astype(np.float64, copy=False)
    if len(w) == 1:
        return (exact.reshape(-1, exact.shape[-1]) @ w[0]).reshape(exact.shape[:-1])
    return (exact @ w[:, :, None])[..., 0]


def _first_choices(u: Floats, w: Array, question: Codes, left: Mask) -> Array:
    """(s, M) votes for the options that are left in each state."""
    shown = np.where(left[:, :, None], u[question], -np.inf)
    first = shown == shown.max(axis=1, keepdims=True)
    shared = first.sum(axis=1, keepdims=True)
    return _weighted_sum(first if (shared == 1).all() else first / shared, w[question])


def _only(mask: Mask) -> Codes:
    """(Q,) the one option of a mask; -1 where there is none."""
    return np.where(mask.any(-1), mask.argmax(-1), -1)


def _first(mask: NDArray[np.bool_]) -> int:
    """The first row with a True."""
    return int(np.flatnonzero(mask.reshape(len(mask), -1).any(-1))[0])
