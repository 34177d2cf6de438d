"""The same people, the same questions, before and after they talked."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.deliberation import change_of_mind, check_deliberation
from seamark.records import Feedback


def pairs(*rows: tuple[str, str, str, str, str, str | None]) -> Feedback:
    """Pairs from (rater, stage, left, right, outcome, reason)."""
    return Feedback.from_columns({
        "kind": ["pair"] * len(rows), "rater": [r[0] for r in rows], "session": [r[1] for r in rows], "prompt": ["Why?"] * len(rows),
        "texts": [[r[2], r[3]] for r in rows], "outcome": [r[4] for r in rows], "rationale": [r[5] for r in rows],
    })  # fmt: skip


def get(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None, code
    return finding


FOUR = pairs(
    ("1", "before", "a", "b", "left", "shorter"),
    ("2", "before", "a", "b", "left", None),
    ("3", "before", "b", "a", "right", None),  # also a
    ("4", "before", "a", "b", "right", None),
    ("1", "after", "b", "a", "right", None),  # a, as before: the order shown is no change
    ("2", "after", "a", "b", "right", "kinder"),
    ("4", "after", "b", "a", "right", "convinced by 1"),  # now a
    ("5", "after", "a", "b", "left", None),  # not there before
    ("3", "after", "a", "b", "skipped", None),
)


def test_R66_the_change_of_mind_statistic_by_hand() -> None:
    """Of three who came back, 2 left the others' majority (a) and 4 joined it."""
    found = change_of_mind(FOUR, before="before", after="after")
    assert found is not None
    assert (found.changed.estimate, found.changed.n, found.changed.n_clusters) == (pytest.approx(2 / 3), 3, 3)
    assert found.returns["changed"].to_list() == [False, True, True]
    assert found.returns["reason_before"].to_list() == ["shorter", None, None]
    assert found.returns["reason_after"].to_list() == [None, "kinder", "convinced by 1"]
    assert found.converged is not None
    assert (found.converged.estimate, found.converged.n) == (0.0, 3)
    assert found.moved is None
    assert found.again is None
    assert found.excess is None
    findings = check_deliberation(FOUR, before="before", after="after")
    assert "66.7% of answers were others after deliberation (3 returns by 3 people)" in get(findings, "deliberation").title
    assert "is not known, so this is not all deliberation's" in (get(findings, "deliberation").reason or "")
    assert get(findings, "deliberation/moved").verdict == "not_applicable"
    reasons = get(findings, "deliberation/reasons")
    assert (reasons.estimate, reasons.n, reasons.details["reasons"]) == (1.0, 2, ["kinder", "convinced by 1"])


def test_R66_the_majority_is_that_of_the_others() -> None:
    """Two against two: each is against a majority of the others, so all who change join it; a lone voice has no others."""
    rows = [(str(i), "x", "a", "b", "left" if i < 2 else "right", None) for i in range(4)]
    flipped = [(r[0], "y", r[2], r[3], "right" if r[4] == "left" else "left", None) for r in rows]
    found = change_of_mind(pairs(*rows, *flipped), before="x", after="y")
    assert found is not None
    assert found.converged is not None
    assert (found.converged.estimate, found.converged.n) == (1.0, 4)
    alone = change_of_mind(pairs(rows[0], flipped[0]), before="x", after="y")
    assert alone is not None
    assert alone.converged is None


def test_R66_answers_changed_when_merely_asked_again_are_told_apart() -> None:
    rows = [(f"{i}", "x", "a", "b", "left", None) for i in range(10)]
    repeated = [(f"{i}", "x", "b", "a", "left" if i < 3 else "right", None) for i in range(10)]  # 3 of 10 now say b
    later = [(f"{i}", "y", "a", "b", "left" if i < 5 else "right", None) for i in range(10)]
    found = change_of_mind(pairs(*rows, *repeated, *later), before="x", after="y")
    assert found is not None
    assert found.again is not None
    assert (found.again.estimate, found.again.n) == (0.3, 10)
    assert found.changed.estimate == 0.8  # against the last answer before: 0 to 2 went back to a, 5 to 9 went over to b
    assert found.excess == pytest.approx(0.5)


def test_R66_ratings_and_thumbs_move_in_a_direction() -> None:
    rows: dict[str, Any] = {
        "kind": ["rating", "rating", "thumbs", "thumbs"], "rater": ["1"] * 4, "ui_version": ["v1", "v2"] * 2, "texts": [["a"]] * 4,
        "rating": [2.0, 4.0, None, None], "scale_low": [1.0, 1.0, None, None], "scale_high": [5.0, 5.0, None, None], "thumb": [None, None, True, False],
        "outcome": ["answered"] * 4,
    }  # fmt: skip
    found = change_of_mind(Feedback.from_columns(rows), before="v1", after="v2", by="ui_version")
    assert found is not None
    assert found.moved is not None
    assert (found.moved.estimate, found.moved.n, found.moved.n_clusters) == (pytest.approx((0.5 - 1.0) / 2), 2, 1)
    assert not found.moved.bounded
    assert sorted(found.returns["before"].to_list()) == ["2.0", "true"]


def test_R66_rankings_and_choices_are_compared_by_response() -> None:
    rows: dict[str, Any] = {
        "kind": ["ranking", "ranking", "choice", "choice"], "rater": ["1"] * 4, "session": ["x", "y"] * 2,
        "texts": [["a", "b", "c"], ["c", "a", "b"], ["a", "b", "c"], ["b", "a", "c"]],
        "ranks": [[1, 2, 3], [3, 1, 2], None, None], "best": [None, None, 0, 0], "outcome": ["answered"] * 4,
    }  # fmt: skip
    found = change_of_mind(Feedback.from_columns(rows), before="x", after="y")
    assert found is not None
    assert dict(zip(found.returns["before"].str.contains(":").to_list(), found.returns["changed"].to_list(), strict=True)) == {
        True: False,
        False: True,
    }


@pytest.mark.parametrize("seed", range(3))
def test_R66_agrees_with_loops_over_the_records(seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        (str(rng.randrange(6)), rng.choice(["x", "y"]), *rng.choice([("a", "b"), ("b", "a"), ("a", "c"), ("b", "c")]), rng.choice(["left", "right", "tie"]), None)
        for _ in range(120)
    ]  # fmt: skip
    last: dict[str, dict[tuple[str, frozenset[str]], str]] = {"x": {}, "y": {}}
    for rater, stage, left, right, outcome, _ in rows:
        last[stage][rater, frozenset((left, right))] = {"left": left, "right": right, "tie": "tie"}[outcome]
    both = sorted(last["x"].keys() & last["y"].keys(), key=str)
    changed = [last["x"][key] != last["y"][key] for key in both]
    moves = []
    for rater, question in both:
        others = [answer for (r, q), answer in last["x"].items() if q == question and r != rater]
        top = [a for a in set(others) if others.count(a) == max(map(others.count, others))] if others else []
        if len(top) == 1:
            moves.append((last["y"][rater, question] == top[0]) - (last["x"][rater, question] == top[0]))
    found = change_of_mind(pairs(*rows), before="x", after="y")
    assert found is not None
    assert found.changed.n == len(both) > 10
    assert found.changed.estimate == pytest.approx(np.mean(changed))
    assert found.converged is not None
    assert (found.converged.n, found.converged.estimate) == (len(moves), pytest.approx(np.mean(moves)))
    assert found.changed.low < found.changed.estimate <= found.changed.high


def test_R66_nobody_came_back_or_there_is_no_such_stage() -> None:
    two = pairs(("1", "x", "a", "b", "left", None), ("2", "y", "a", "b", "left", None))
    assert change_of_mind(two, before="x", after="y") is None
    assert check_deliberation(two, before="x", after="y")[0].verdict == "not_applicable"
    with pytest.raises(InvalidSetting, match=r"after is 'z'\. No judgment has it as its session; there are x, y"):
        change_of_mind(two, before="x", after="z")
    with pytest.raises(InvalidSetting, match="Use a text field"):
        change_of_mind(two, before="x", after="y", by="position")
