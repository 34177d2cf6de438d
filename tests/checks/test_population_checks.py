"""Who answered, beside a population: gaps, empty cells and weights of a pool made by hand."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from seamark.aggregation import InvalidCharter, Target
from seamark.checks import check_population
from seamark.errors import InvalidSetting
from seamark.records import Feedback
from tests.checks.sentences import assert_written

POOL = ["young,woman"] * 6 + ["young,man"] * 3 + ["old,woman"]
CENSUS = {("young", "woman"): 0.3, ("young", "man"): 0.2, ("old", "woman"): 0.25, ("old", "man"): 0.25}


def pool(cells: list[str] = POOL) -> Feedback:
    n = len(cells)
    columns: dict[str, Any] = {
        "kind": ["thumbs"] * n,
        "prompt": ["p"] * n,
        "texts": [["t"]] * n,
        "outcome": ["answered"] * n,
        "thumb": [True] * n,
    }
    age, gender = zip(*(cell.split(",") for cell in cells), strict=True)
    profiles = [json.dumps({"age": a, "gender": g}) for a, g in zip(age, gender, strict=True)]
    return Feedback.from_columns(columns | {"rater": [f"r{i}" for i in range(n)], "rater_profile": profiles})


def census() -> Target:
    rows = [{"age": age, "gender": gender, "share": share} for (age, gender), share in CENSUS.items()]
    return Target.of(pl.DataFrame(rows), source="census")


def test_gaps_by_hand():
    """R26, R27: nine of ten raters are young, half of the population is; the level furthest from it is said, and every one is in the table."""
    found = check_population(pool(), census())
    for finding in found:
        assert_written(finding)
    rows = {(row["column"], row["level"]): row for row in found.get("pool").details["levels"]}
    assert rows["profile.age", "young"]["gap"] == pytest.approx(0.4)
    assert rows["profile.gender", "woman"]["gap"] == pytest.approx(0.15)
    assert abs(found.get("pool").estimate) == pytest.approx(0.4)
    assert found.get("pool").verdict == "notice"


def test_empty_cells_are_named_and_not_filled():
    """R27: nobody is an old man; a quarter of the population is not spoken for, and no weight stands in for it."""
    found = check_population(pool(), census()).get("empty-cells")
    assert found.verdict == "warning"
    assert (found.estimate, found.details["cells"]) == (1, {"old · man": 0.25})
    assert "25%" in found.title
    whole = Target.of(pl.DataFrame([{"age": "young", "share": 0.5}, {"age": "old", "share": 0.5}]), source="ages")
    assert check_population(pool(), whole).get("empty-cells").verdict == "ok"


MARGINS = [("age", "young", 0.4), ("age", "old", 0.6), ("gender", "woman", 0.55), ("gender", "man", 0.45)]


def margins(rows: list[tuple[str, str, float]] = MARGINS) -> Target:
    return Target.of(pl.DataFrame(rows, schema=["column", "level", "share"], orient="row"), source="margins")


def test_raking_that_fails_is_blocking_and_says_what_is_left():
    """Nobody is an old woman: of women 55% and of the old 60% cannot both be had, since the old are men, 45%."""
    found = check_population(pool(["young,woman"] * 28 + ["young,man"] * 28 + ["old,man"] * 24), margins())
    for finding in found:
        assert_written(finding)
    shares = found.get("weighted-shares")
    assert shares.verdict == "blocking"
    assert "45% of the raters have profile.age old, of the population 60%" in shares.title
    assert "left over: profile.age 15% (old)" in shares.title
    assert shares.details["left"] == pytest.approx({"profile.age": 0.15, "profile.gender": 0}, abs=1e-6)
    assert "old · woman" in shares.remedy
    lost = found.get("uncounted-raters")
    assert (lost.verdict, lost.estimate, lost.details["faint"]) == ("warning", 28, {"young · man": 28})
    assert "young · man: 28" in lost.title
    assert "no rater is old · woman" in found.get("empty-cells").title
    assert found.get("effective-raters").n == 52


def test_raking_that_meets_its_margins_is_ok():
    found = check_population(pool(["young,woman"] * 5 + ["young,man"] * 3 + ["old,man"] * 2 + ["old,woman"] * 2), margins())
    for code in ("weighted-shares", "uncounted-raters", "empty-cells"):
        assert found.get(code).verdict == "ok", code
        assert_written(found.get(code))


def test_a_weighted_share_that_misses_its_target_is_a_finding():
    """Old men are a quarter of the population and nobody is one: of what is left, .25 / .75 are old, not a half."""
    found = check_population(pool(), census()).get("weighted-shares")
    assert found.verdict == "warning"
    assert found.details["left"]["profile.age"] == pytest.approx(0.5 / 0.75 - 0.5)
    assert found.details["left"]["profile.gender"] == pytest.approx(0.55 / 0.75 - 0.55)
    assert "26.7% of the raters have profile.gender man, of the population 45%" in found.title


def test_raters_outside_the_population_are_counted_by_cell():
    rows = [{"age": "young", "gender": "woman", "share": 0.5}, {"age": "old", "gender": "woman", "share": 0.5}]
    found = check_population(pool(), Target.of(pl.DataFrame(rows), source="census")).get("uncounted-raters")
    assert (found.verdict, found.estimate, found.details["outside"]) == ("warning", 3, {"young · man": 3})
    assert "3 of 10 raters count for nothing: 3 in cells that census does not have (young · man: 3)" in found.title


def test_the_weighed_raters_are_worth_fewer():
    """Weights .3/6, .2/3, .25/1 of three cells: (sum w)^2 / sum w^2."""
    weights = [0.3 / 6] * 6 + [0.2 / 3] * 3 + [0.25]
    expected = sum(weights) ** 2 / sum(w**2 for w in weights)
    found = check_population(pool(), census()).get("effective-raters")
    assert found.estimate == pytest.approx(expected)
    assert "post-stratification" in found.title
    raked = margins([("age", "young", 0.5), ("age", "old", 0.5), ("gender", "woman", 0.6), ("gender", "man", 0.4)])
    assert "raking" in check_population(pool(), raked).get("effective-raters").title


def test_levels_and_columns_that_are_not_in_the_data():
    with pytest.raises(InvalidCharter, match="elderly"):
        check_population(pool(), Target.of(pl.DataFrame([{"age": "young", "share": 0.5}, {"age": "elderly", "share": 0.5}]), source="ages"))
    with pytest.raises(InvalidSetting, match=r"profile\.country"):
        check_population(pool(), Target.of(pl.DataFrame([{"country": "x", "share": 1.0}]), source="countries"))
