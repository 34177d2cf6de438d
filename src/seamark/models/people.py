"""Who values what: how a person in a group weighs the k values of a response, u = V . z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.records import Feedback


@dataclass(frozen=True)
class Crowd:
    """People as the fit sees them."""

    names: tuple[str, ...]
    """A name per group; the last may be "" for judgments whose group is not known."""
    group: NDArray[np.int64]
    """(n_judgments,) group of each judgment."""
    loadings: NDArray[np.float64]
    """Z (n_groups, k): how a person of the group weighs the k values."""

    @property
    def k(self) -> int:
        return self.loadings.shape[1]


class People(Protocol):
    def assign(self, feedback: Feedback) -> Crowd: ...

    def to_dict(self) -> dict[str, str | int]: ...


@dataclass(frozen=True)
class Same:
    """Everyone values alike: one value per response."""

    def assign(self, feedback: Feedback) -> Crowd:
        return Crowd(("everyone",), np.zeros(feedback.n_judgments, dtype=np.int64), np.ones((1, 1)))

    def to_dict(self) -> dict[str, str | int]:
        return {"people": "Same"}


@dataclass(frozen=True)
class Groups:
    """Groups with values of their own around a shared one: u_g = V_0 + V_g, partially pooled.

    The spread of the V_g is estimated by marginal likelihood, so groups that do not differ are pooled.
    """

    by: str = "group"
    """A field of the judgments, or profile.NAME for a field of the raters' profiles."""
    min_judgments: int = 30
    """Smaller groups are treated as not known: they inform the shared value only."""

    def labels(self, feedback: Feedback) -> pl.Series:
        """The group of each judgment as text; null where it is not known."""
        if self.by.startswith("profile."):
            profile = feedback.rater_profile(self.by.removeprefix("profile."))
            return profile.gather(feedback.judgments["rater"])
        if self.by not in feedback.judgments.columns:
            raise InvalidSetting("Groups(by=)", self.by, "Use a field of the judgments such as group, or profile.NAME.")
        return feedback.judgments[self.by].cast(pl.String)

    def assign(self, feedback: Feedback) -> Crowd:
        labels = self.labels(feedback)
        counts = labels.drop_nulls().value_counts(sort=True)
        names = sorted(counts.filter(pl.col("count") >= self.min_judgments)[labels.name].to_list())
        if len(names) < 2:
            raise InvalidSetting(
                "people", f"Groups({self.by!r})", f"Fewer than two groups have {self.min_judgments} judgments; use Same()."
            )
        lookup = {name: code for code, name in enumerate(names)}
        group = np.array([lookup.get(label, len(names)) for label in labels.to_list()], dtype=np.int64)
        loadings = np.hstack([np.ones((len(names) + 1, 1)), np.vstack([np.eye(len(names)), np.zeros((1, len(names)))])])
        return Crowd((*names, ""), group, loadings)

    def to_dict(self) -> dict[str, str | int]:
        return {"people": "Groups", "by": self.by, "min_judgments": self.min_judgments}
