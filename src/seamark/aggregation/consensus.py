"""Statements that people agree or disagree with: what bridges groups, what divides them, and what another population would decide.

Conventions
-----------
A *statement* is a response that people judged yes or no (thumbs), and may have passed on. Groups are those of one question: the
opinion groups of one conversation say nothing about another's, so statements are tallied conversation by conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import betainc

from seamark.aggregation.regret import irreconcilable, reach, shared
from seamark.errors import InvalidSetting
from seamark.models.people import labels
from seamark.records import Feedback

Array = NDArray[np.float64]

_ROUNDING = 1e-12
"""Margins below it are ties: what adding up in another order makes."""


@dataclass(frozen=True)
class Tally:
    """Who agrees with what: the last vote of each person on each statement, by group."""

    statement: NDArray[np.int64]
    """(S,) codes of responses."""
    groups: tuple[str, ...]
    agree: Array
    disagree: Array
    passed: Array
    """(S, G) people."""
    size: Array
    """(G,) people of each group who voted on anything."""

    @property
    def share(self) -> Array:
        """(S, G) share that agrees, of those who agree or disagree; NaN where nobody does."""
        voted = self.agree + self.disagree
        return np.divide(self.agree, voted, out=np.full_like(voted, np.nan), where=voted > 0)

    @property
    def p_majority(self) -> Array:
        """(S, G) posterior probability that more of the group would agree than disagree, from a uniform prior of the share (Beta 1, 1)."""
        return 1 - betainc(1 + self.agree, 1 + self.disagree, 0.5)

    @property
    def weights(self) -> Array:
        """(G,) by how many people of each group voted on anything, whoever voted on a statement."""
        return self.size / self.size.sum()

    def consensus(self) -> Array:
        """(S,) group-informed consensus: the product over groups of the share that agrees, of all who saw it, smoothed.

        prod_g (1 + agree_g) / (2 + agree_g + disagree_g + passed_g), so that a large group cannot carry a statement that a small one rejects.

        Source: Small et al. 2021, Polis: scaling deliberation by mapping high dimensional opinion spaces.
        """
        return ((1 + self.agree) / (2 + self.agree + self.disagree + self.passed)).prod(1)

    def bridging(self, *, rate: float = 0.05) -> NDArray[np.bool_]:
        """(S,) whether surely a majority of every group agrees, at a false discovery rate over statements."""
        return shared(self.p_majority, rate=rate)

    def irreconcilable(self, *, rate: float = 0.05) -> NDArray[np.bool_]:
        """(S,) whether surely a majority of one group agrees and of another disagrees: on these no weighting of groups agrees."""
        return irreconcilable(self.p_majority, rate=rate)

    def decision(self, weights: Array | None = None, *, sure: bool = False) -> NDArray[np.int64]:
        """(S,) +1 carried, -1 rejected, 0 a tie, where each group's share counts by its weight; groups without a vote are left out.

        `sure`: a group whose majority is not sure (97.5%) counts as split.
        """
        w = self.weights if weights is None else weights
        return np.sign(self._rounded(self._sure() @ w) if sure else self._margin(w)).astype(np.int64)

    def turned(self, within: float = np.inf) -> NDArray[np.bool_]:
        """(S,) whether some admissible weighting (`regret.admissible`) of the groups would carry what their sizes reject, or reject what they
        carry, where a group whose majority is not sure (97.5%) counts as split. Whatever does either is other than a tie."""
        low, high = reach(self._sure(), self.weights, within)
        own = self.decision(sure=True)
        return np.where(own > 0, low < -_ROUNDING, np.where(own < 0, high > _ROUNDING, (high > _ROUNDING) | (low < -_ROUNDING)))

    def _sure(self) -> Array:
        """(S, G) `_margins` of groups whose majority is sure, else 0."""
        return np.where(np.abs(self.p_majority - 0.5) >= 0.475, self._margins(), 0.0)

    def _margins(self) -> Array:
        """(S, G) how far the share that agrees is from a half; a group without a vote is taken to be split."""
        return np.where(self.agree + self.disagree > 0, self.share - 0.5, 0.0)

    def _margin(self, weights: Array) -> Array:
        voted = self.agree + self.disagree > 0
        margin = (self._margins() * weights).sum(1) / np.maximum((voted * weights).sum(1), 1e-300)
        return self._rounded(margin)

    @staticmethod
    def _rounded(margin: Array) -> Array:
        return np.where(np.abs(margin) < _ROUNDING, 0.0, margin)

    def to_frame(self) -> pl.DataFrame:
        """A row per statement, most consensus first."""
        frame = pl.DataFrame(
            {
                "statement": self.statement,
                "consensus": self.consensus(),
                "bridging": self.bridging(),
                "irreconcilable": self.irreconcilable(),
            }
            | {"decision": self.decision(), "turned": self.turned()}
            | {f"agree {name}": self.share[:, g] for g, name in enumerate(self.groups)}
            | {f"n {name}": (self.agree + self.disagree + self.passed)[:, g].astype(np.int64) for g, name in enumerate(self.groups)}
        )
        return frame.fill_nan(None).sort("consensus", descending=True)


def tally(feedback: Feedback, *, by: str = "group", least: int = 5) -> list[Tally]:
    """The votes of each conversation (prompt) by group; conversations with fewer than two groups of `least` people are left out.

    Where a person voted several times on a statement, the last vote counts. "Cannot tell" is a pass; skips are no vote.

    Raises
    ------
    InvalidSetting
        If there are no yes-or-no judgments by known raters in groups.
    """
    frame = feedback.judgments.with_columns(labels(feedback, by).alias("by")).filter(
        (pl.col("kind") == "thumbs") & pl.col("rater").is_not_null() & (pl.col("outcome") != "skipped")
    )
    frame = frame.select(
        "prompt", "rater", "time", "by", pl.col("responses").list.first().cast(pl.Int64).alias("statement"),
        pl.when(pl.col("thumb").is_null()).then(0).when(pl.col("thumb")).then(1).otherwise(-1).alias("vote"),
    )  # fmt: skip
    # null times come first: a vote that has a time is later than one that has none
    frame = frame.sort("time", nulls_last=False, maintain_order=True).unique(["rater", "statement"], keep="last", maintain_order=True)
    found = []
    for _, part in frame.filter(pl.col("by").is_not_null()).group_by("prompt", maintain_order=True):
        people = part.group_by("by").agg(pl.col("rater").n_unique().alias("n")).filter(pl.col("n") >= least).sort("by")
        if people.height < 2:
            continue
        names = people["by"].to_list()
        part = part.filter(pl.col("by").is_in(names))
        statement, row = np.unique(part["statement"].to_numpy(), return_inverse=True)
        column = np.searchsorted(names, part["by"].to_numpy().astype(str))
        vote = part["vote"].to_numpy()
        cell, size = row * len(names) + column, (len(statement), len(names))
        agree, disagree, passed = (
            np.bincount(cell, weights=(vote == value).astype(float), minlength=size[0] * size[1]).astype(np.float64).reshape(size)
            for value in (1, -1, 0)
        )
        found.append(Tally(statement, tuple(names), agree, disagree, passed, people["n"].to_numpy().astype(float)))
    if not found:
        remedy = f"Yes-or-no judgments of at least {least} known raters in each of two groups are needed."
        raise InvalidSetting("by", by, remedy)
    return found
