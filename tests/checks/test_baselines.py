"""Trivial rules against plain loops, and the two ways in which they once spoke about what they did not know."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from sentences import assert_written

from seamark.checks.baselines import check_baselines
from seamark.checks.findings import Finding
from seamark.checks.held_out import Cells, decided_cells
from seamark.models import Observation, fit, predict
from seamark.records import Feedback


def pairs(shown: list[tuple[str, str]], outcomes: list[str], **more: list[Any]) -> Feedback:
    """Pairs about one prompt; the names are the texts."""
    n = len(shown)
    return Feedback.from_columns(
        {"kind": ["pair"] * n, "prompt": ["p"] * n, "texts": [list(s) for s in shown], "outcome": outcomes, **more}
    )


def cells_of(held_out: Feedback, hit: float = 1.0) -> Cells:
    """Cells of a fit that is right with this frequency, one per judgment."""
    frame = held_out.pairs()
    n = frame.height
    right = np.arange(n) < round(hit * n)
    won = (frame["outcome"] == "left").to_numpy()
    columns = {
        "count": np.ones(n), "rater": np.arange(n) % 20, "prompt": np.arange(n), "group": np.zeros(n, dtype=np.int64),
        "first": frame["left"].cast(int).to_numpy(), "second": frame["right"].cast(int).to_numpy(),
        "p": np.where(right == won, 0.9, 0.1), "won": won, "hit": right.astype(float), "loss": np.ones(n),
        "ordered": frame["order_known"].fill_null(False).to_numpy(),
    }  # fmt: skip
    names = {"rater": tuple(f"r{i}" for i in range(20)), "prompt": tuple(map(str, range(n))), "group": ("everyone",)}
    return Cells(pl.DataFrame(columns), names)


def found(held_out: Feedback, train: Feedback | None, hit: float = 1.0) -> dict[str, Finding]:
    findings = check_baselines(held_out, cells_of(held_out, hit), train)
    for finding in findings:
        assert_written(finding)
    return {f.code: f for f in findings}


# ------------------------------------------------------------------------------------ the training majority


def test_majority_of_the_same_pair_then_of_the_responses_then_nothing():
    train = pairs(
        [("a", "b"), ("b", "a"), ("a", "b"), ("a", "c"), ("d", "e"), ("e", "d")],
        ["left", "right", "right", "left", "left", "left"],  # a beats b 2 to 1, beats c; d and e 1 to 1
    )
    asked = {
        ("a", "b"): 1.0,  # the same pair
        ("b", "a"): 0.0,  # in the other order
        ("b", "c"): 1.0,  # b won 1 of 3, c 0 of 1
        ("d", "e"): 0.5,  # a split majority, and equal shares
        ("x", "y"): 0.5,  # never judged
        ("x", "c"): 1.0,  # a response never judged counts as even, c lost all
    }
    for shown, expected in asked.items():
        rule = found(pairs([shown, ("a", "b")], ["left", "left"]), train)["baseline/training-majority"]
        assert rule.estimate == pytest.approx((expected + 1) / 2), shown


def test_majority_against_loops():
    rng = np.random.default_rng(0)
    names = [f"t{'x' * i}" for i in range(7)]

    def some(n: int) -> Feedback:
        shown = [tuple(rng.choice(names, 2, replace=False)) for _ in range(n)]
        return pairs(shown, rng.choice(["left", "right", "tie"], n).tolist())

    train, held_out = some(25), some(40)
    held_out = held_out.filter((held_out.judgments["outcome"] != "tie").to_numpy())
    wins: Counter[tuple[str, str]] = Counter()
    for shown, outcome in train.judgments["responses", "outcome"].iter_rows():
        a, b = (train.responses["text"][r] for r in shown)
        if outcome != "tie":
            wins[(a, b) if outcome == "left" else (b, a)] += 1

    def share(name: str) -> float:
        won, lost = sum(n for (w, _), n in wins.items() if w == name), sum(n for (_, v), n in wins.items() if v == name)
        return won / (won + lost) if won + lost else 0.5

    expected = []
    for shown, outcome in held_out.judgments["responses", "outcome"].iter_rows():
        a, b = (held_out.responses["text"][r] for r in shown)
        net = wins[a, b] - wins[b, a] or share(a) - share(b)
        expected.append(0.5 if net == 0 else float((net > 0) == (outcome == "left")))
    assert 0.5 in expected
    assert found(held_out, train)["baseline/training-majority"].estimate == pytest.approx(np.mean(expected))


def test_majority_says_why_it_was_not_tried():
    held_out = pairs([("a", "b")] * 2, ["left"] * 2)
    assert "'training majority' was not tried: no training part" in (found(held_out, None)["baseline"].reason or "")
    elsewhere = found(held_out, pairs([("x", "y")] * 2, ["left"] * 2))
    assert "baseline/training-majority" not in elsewhere
    assert "nothing in train favours" in (elsewhere["baseline"].reason or "")


# ------------------------------------------------------------------------------------ what is shown first


def test_shown_first_is_scored_only_where_the_order_is_known():
    """A source that lists the chosen response first, mixed with a few pairs whose order is known: that is no position effect."""
    n, known = 300, 30
    shown = [(f"a{i:03}", f"b{i:03}") for i in range(n)]
    outcomes = ["left"] * (n - known) + ["left", "right"] * (known // 2)
    held_out = pairs(shown, outcomes, order_known=[False] * (n - known) + [True] * known)
    got = found(held_out, None, hit=0.7)
    assert got["baseline/shown-first-wins"].estimate == pytest.approx(0.5)
    assert got["baseline"].verdict == "ok"
    nowhere = found(pairs(shown, outcomes, order_known=[None] * n), None, hit=0.7)
    assert "baseline/shown-first-wins" not in nowhere
    assert "the order shown is not known" in (nowhere["baseline"].reason or "")


def test_whether_the_order_is_known_reaches_the_cells():
    """Through a fit and its predictions, where equal judgments have become one row."""
    n = 200
    rng = np.random.default_rng(0)
    shown = [tuple(rng.choice(list("abcdef"), 2, replace=False)) for _ in range(n)]
    known = rng.random(n) < 0.3
    raters = [f"r{i}" for i in range(n)]
    feedback = pairs(shown, rng.choice(["left", "right"], n).tolist(), order_known=known.tolist(), rater=raters)
    result = fit(feedback, observation=Observation(effects=(), lapse=False), require_identified=False)
    cells = decided_cells(result, feedback, predict(result, feedback))
    truth = dict(zip(raters, known.tolist(), strict=True))
    assert [truth[cells.names["rater"][r]] for r in cells["rater"]] == cells["ordered"].tolist()
    # where one rater answered the same question with and without a known order, it is not known for the cell
    both = pairs([("a", "b")] * 2, ["left"] * 2, order_known=[True, False], rater=["r0"] * 2)
    assert not decided_cells(result, both, predict(result, both))["ordered"].any()


# ------------------------------------------------------------------------------------ length


def test_length_points_where_the_rankings_of_train_point():
    """No pair was judged in train, and longer wins there all the same."""
    n = 60
    rankings = {"kind": ["ranking"] * n, "prompt": [f"p{i}" for i in range(n)], "outcome": ["answered"] * n}
    texts = [["a" * (i % 7 + 1), "b" * (i % 7 + 3), "c" * (i % 7 + 9)] for i in range(n)]
    for ranks, name in (([3, 2, 1], "longer-wins"), ([1, 2, 3], "shorter-wins")):
        train = Feedback.from_columns({**rankings, "texts": texts, "ranks": [ranks] * n})
        got = found(pairs([("aa", "bbbb"), ("aa", "b")], ["right", "left"]), train)
        assert got[f"baseline/{name}"].estimate == (1.0 if name == "longer-wins" else 0.0)


def test_who_is_chosen_as_the_worst_has_lost():
    """Best and worst of three: the worst is chosen out of the two that are left, and it is the shorter one."""
    n = 40
    texts = [["a" * (i % 5 + 1), "b" * (i % 5 + 7), "c" * (i % 5 + 20)] for i in range(n)]
    feedback = Feedback.from_columns(
        {
            "kind": ["choice"] * n,
            "prompt": ["p"] * n,
            "texts": texts,
            "outcome": ["answered"] * n,
            "best": [2] * n,
            "worst": [0] * n,
            "rater": [f"r{i % 12}" for i in range(n)],
        }
    )  # fmt: skip
    result = fit(feedback, observation=Observation(effects=(), lapse=False))
    cells = decided_cells(result, feedback, predict(result, feedback))
    assert cells.n == n
    got = {f.code: f for f in check_baselines(feedback, cells, feedback)}
    assert got["baseline/longer-wins"].estimate == 1.0
    assert cells["hit"].mean() == 1.0


def test_texts_that_are_not_there_say_nothing():
    names = Feedback.from_columns({"kind": ["pair"] * 2, "ids": [["a", "b"]] * 2, "outcome": ["left"] * 2})
    got = found(names, None)
    assert "baseline/longer-wins" not in got
    assert "no held-out texts differ in length" in (got["baseline"].reason or "")
