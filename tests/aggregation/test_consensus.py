"""Statements: tallies beside loops, and Polis' own published figures."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta

import seamark as sm
from seamark.aggregation.consensus import Tally, tally
from seamark.errors import InvalidSetting
from seamark.records import Feedback

START = datetime(2026, 1, 1)


def _votes(rows: list[tuple[str, str, str, str | None]]) -> Feedback:
    """(rater, group, statement, up / down / pass) in the order of time."""
    said = [row[3] for row in rows]
    return Feedback.from_columns(
        {
            "kind": ["thumbs"] * len(rows),
            "prompt": ["What shall we do?"] * len(rows),
            "texts": [[row[2]] for row in rows],
            "rater": [row[0] for row in rows],
            "group": [row[1] for row in rows],
            "outcome": ["cannot_tell" if s == "pass" else "answered" for s in said],
            "thumb": [None if s == "pass" else s == "up" for s in said],
            "time": [START + timedelta(minutes=i) for i in range(len(rows))],
        }
    )


def test_tally_counts_the_last_vote_of_each_person():
    rows = [(f"{g}{i}", g, s, "up") for g in "ab" for i in range(5) for s in ("one", "two")]
    rows += [("a0", "a", "one", "down"), ("b1", "b", "two", "pass")]
    (found,) = tally(_votes(rows))
    assert found.groups == ("a", "b")
    assert found.size.tolist() == [5, 5]
    assert found.agree.tolist() == [[4, 5], [5, 4]]
    assert found.disagree.tolist() == [[1, 0], [0, 0]]
    assert found.passed.tolist() == [[0, 0], [0, 1]]
    assert found.consensus()[0] == pytest.approx(5 / 7 * 6 / 7)


def test_what_bridges_divides_and_turns():
    tally_ = Tally(
        np.arange(4), ("large", "small"), np.array([[90.0, 18], [90, 2], [10, 19], [50, 10]]), np.array([[10.0, 2], [10, 18], [90, 1], [50, 10]]),
        np.zeros((4, 2)), np.array([100.0, 20.0]),
    )  # fmt: skip
    assert tally_.bridging().tolist() == [True, False, False, False]
    assert tally_.irreconcilable().tolist() == [False, True, True, False]
    assert tally_.decision().tolist() == [1, 1, -1, 0]
    # equal groups: .9 + .1 is a tie, .1 + .95 carries
    assert tally_.decision(np.array([0.5, 0.5])).tolist() == [1, 0, 1, 0]
    assert tally_.turned().tolist() == [False, True, True, False]
    assert tally_.turned(1.0).tolist() == [False] * 4
    assert tally_.p_majority[1, 1] == pytest.approx(beta(3, 19).sf(0.5))
    assert tally_.to_frame()["consensus"].is_sorted(descending=True)


def test_nobody_to_tally():
    with pytest.raises(InvalidSetting, match="at least 5 known raters"):
        tally(_votes([("a", "x", "one", "up"), ("b", "y", "one", "up")]))


def test_consensus_is_the_one_that_polis_published(real_data: Path):
    """369 statements of one conversation carry Polis' own group-informed consensus."""
    published = pl.read_parquet(real_data / "polis" / "comments.parquet").drop_nulls("group_informed_consensus")
    theirs = {f"{c}/{i}": v for c, i, v in published.select("conversation", "comment_id", "group_informed_consensus").iter_rows()}
    feedback = sm.load(real_data / "polis")
    names = feedback.responses["name"].to_list()
    ours = {names[s]: v for t in tally(feedback) for s, v in zip(t.statement.tolist(), t.consensus().tolist(), strict=True)}
    both = [name for name in theirs if name in ours]
    assert len(both) == 369
    assert [ours[name] for name in both] == pytest.approx([theirs[name] for name in both], abs=1e-12)


def test_polis_by_an_independent_count(real_data: Path):
    """Bridging, irreconcilable and turned statements of every conversation from the votes themselves, by polars alone."""
    folder = real_data / "polis"
    votes = pl.read_parquet(folder / "votes.parquet").sort("timestamp", maintain_order=True)
    last = votes.unique(["conversation", "comment_id", "voter_id"], keep="last")
    people = pl.read_parquet(folder / "participants.parquet").drop_nulls("group_id")
    joined = last.join(people, left_on=["conversation", "voter_id"], right_on=["conversation", "participant"])
    # as the importer does: statements that say the same are one, and votes on what is no statement are left out
    feedback = sm.load(folder)
    found = {(feedback.responses["name"].to_list()[s]): row for t in tally(feedback) for s, row in _rows(t)}
    counts = joined.group_by("conversation", "comment_id", "group_id").agg(
        agree=(pl.col("vote") == 1).sum(), disagree=(pl.col("vote") == -1).sum()
    )
    tails: dict[str, list[tuple[str, float, float]]] = {}
    for (conversation, comment), part in counts.group_by("conversation", "comment_id"):
        name = f"{conversation}/{comment}"
        if name not in found:
            continue
        a, d = part["agree"].to_numpy(), part["disagree"].to_numpy()
        p = np.append(beta.sf(0.5, 1 + a, 1 + d), [0.5] * (2 - part.height))  # of a group that nobody voted of, nothing is known
        tails.setdefault(str(conversation), []).append(
            (name, float((1 - p).max()), min(1.0, 2 * max(float((1 - p).min()), float(p.min()))))
        )
    naive = {}
    for rows in tails.values():
        bridging, apart = (_named_at(0.05, {row[0]: row[column] for row in rows}) for column in (1, 2))
        naive |= {row[0]: (row[0] in bridging, row[0] in apart) for row in rows}
    assert len(naive) > 1000
    assert naive == {name: found[name] for name in naive}
    assert sum(row[0] for row in found.values()) == 85
    assert sum(row[1] for row in found.values()) == 20


def _named_at(rate: float, p: dict[str, float]) -> set[str]:
    """Benjamini & Hochberg 1995, step by step: all up to the last that lies under its line."""
    order = sorted(p, key=p.__getitem__)
    last = max((i for i, name in enumerate(order, 1) if p[name] <= rate * i / len(order)), default=0)
    return set(order[:last])


def _rows(t: Tally) -> list[tuple[int, tuple[bool, bool]]]:
    both = zip(t.bridging().tolist(), t.irreconcilable().tolist(), strict=True)
    return list(zip(t.statement.tolist(), both, strict=True))
