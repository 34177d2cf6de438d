"""Populations: files refused with the row, weights against naive ones, intervals that hold a planted truth, and real people."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from seamark.aggregation import Charter, InvalidCharter
from seamark.aggregation.population import (
    Target,
    Weights,
    cell_weights,
    effective_size,
    explained,
    post_stratify,
    preferences,
    rake,
    rater_profiles,
    raters_needed,
    representation,
    unweighted,
)
from seamark.errors import InvalidSetting
from seamark.models import Fit, Groups, Observation, Same, Tabular, fit
from seamark.records import Feedback

PLAIN = Observation(effects=(), lapse=False)
AGES, GENDERS = ("18-29", "30-64", "65+"), ("man", "woman")
BY = ("profile.age", "profile.gender")


def cells_of(shares: dict[tuple[str, str], float]) -> Target:
    return Target.of(pl.DataFrame([(*cell, share) for cell, share in shares.items()], schema=["age", "gender", "share"], orient="row"))


def crowd(counts: dict[tuple[str, str], int]) -> pl.DataFrame:
    rows = [cell for cell, n in counts.items() for _ in range(n)]
    return pl.DataFrame(rows, schema=list(BY), orient="row")


EVEN = cells_of(dict.fromkeys(product(AGES, GENDERS), 1 / 6))
SKEWED = crowd(dict(zip(product(AGES, GENDERS), (30, 10, 20, 8, 5, 2), strict=True)))


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_target_is_the_same_in_every_format(suffix: str, tmp_path: Path):
    frame = pl.DataFrame({"age": ["18-29", "18-29", "65+"], "profile.gender": ["man", "woman", "man"], "count": [10, 30, 60]})
    path = tmp_path / f"people.{suffix}"
    match suffix:
        case "csv":
            frame.write_csv(path)
        case "tsv":
            frame.write_csv(path, separator="\t")
        case "jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_parquet(path)
    target = Target.read(path)
    assert target.columns == BY
    assert target.cell_shares() == pytest.approx({"18-29 · man": 0.1, "18-29 · woman": 0.3, "65+ · man": 0.6})
    assert target.only("profile.gender").cell_shares() == pytest.approx({"man": 0.7, "woman": 0.3})
    assert list(target.only("profile.gender", "profile.age").cell_shares()) == ["man · 18-29", "woman · 18-29", "man · 65+"]


def test_margins_do_not_say_how_columns_go_together():
    target = Target.of(
        pl.DataFrame(
            {"column": ["age", "age", "gender", "gender"], "level": ["18-29", "65+", "man", "woman"], "share": [0.2, 0.8, 0.5, 0.5]}
        )
    )
    assert target.margins == {"profile.age": {"18-29": 0.2, "65+": 0.8}, "profile.gender": {"man": 0.5, "woman": 0.5}}
    assert target.only("profile.age").cell_shares() == {"18-29": 0.2, "65+": 0.8}
    with pytest.raises(InvalidSetting, match="not how they go together"):
        target.cell_shares()
    with pytest.raises(InvalidSetting, match=r"profile.age, profile.gender"):
        target.only("profile.income")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"age": ["a", "b"], "share": ["0.5", "0.4"]}, r"people: the shares add up to 0\.9\. They must add up to 1"),
        ({"age": ["a", "b"], "share": [50.0, 50.0]}, "add up to 100.*0.25 for 25%"),
        ({"age": ["a", "b"], "count": [3, -1]}, r"people, row 2: count is -1\. Give a number that is 0 or more"),
        ({"age": ["a", "b"], "share": ["0.5", "half"]}, "row 2: share is 'half'"),
        ({"age": ["a", "b"], "share": [0.5, float("nan")]}, "row 2: share is nan"),
        ({"age": ["a", "b", "a"], "count": [1, 2, 3]}, r"row 3: age 'a' comes a second time"),
        ({"age": ["a", None], "count": [1, 2]}, "row 2: age is empty"),
        ({"age": ["a"], "people": [3]}, "neither of the columns count and share.*it has age, people"),
        ({"age": ["a"], "count": [3], "share": [1.0]}, "both of the columns"),
        ({"share": [1.0]}, "no cells"),
        ({"age": ["a"], "count": [0]}, "counts add up to 0"),
        ({"column": ["age"], "share": [0.4]}, "it is of margins, and beside it no level. Margins have the columns column, level and share"),
        ({"column": ["age"], "levels": ["a"], "count": [4]}, "beside it levels. Margins have the columns column, level and count"),
        ({"column": ["age", "age", "sex", "sex"], "level": ["a", "b", "m", "w"], "share": [0.5, 0.5, 0.5, 0.6]}, "column sex: the shares add up to 1.1"),
    ],
)  # fmt: skip
def test_a_bad_target_is_refused_with_its_place(columns: dict[str, list[Any]], said: str):
    with pytest.raises(InvalidCharter, match=said):
        Target.of(pl.DataFrame(columns), source="people")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path):
    (tmp_path / "people.csv").write_text("")
    for name in ("people.csv", "absent.csv", "people.docx"):
        with pytest.raises(InvalidCharter, match=name):
            Target.read(tmp_path / name)


def test_cells_of_one_name_are_refused():
    target = Target.of(pl.DataFrame({"one": ["a · b", "a"], "two": ["c", "b · c"], "count": [1, 2]}))
    with pytest.raises(InvalidSetting, match="same name"):
        target.cell_shares()


def test_shares_printed_with_three_digits_are_shares():
    assert sum(Target.of(pl.DataFrame({"age": ["a", "b", "c"], "share": [0.333, 0.333, 0.333]})).cell_shares().values()) == pytest.approx(1)


def test_a_level_that_no_rater_has_is_a_slip_until_it_is_said_to_be_none():
    target = Target.of(pl.DataFrame({"gender": ["man", "womann"], "share": [0.5, 0.5]}))
    for weigh in (post_stratify, rake):
        with pytest.raises(InvalidCharter, match=r"'womann' is not a level of any rater.*nearest is 'woman'.*--unseen"):
            weigh(SKEWED, target)
        weights = weigh(SKEWED, target, unseen=True)
        assert list(weights.empty.values()) == [0.5]
        assert weights.covered == 0.5
        assert weights.outside == {"woman": 20}
    with pytest.raises(InvalidSetting, match=r"profile.race"):
        post_stratify(SKEWED, Target.of(pl.DataFrame({"race": ["a"], "share": [1.0]})))


# ------------------------------------------------------------------------------------ weights


def test_post_stratified_weights_are_population_over_sample():
    weights = post_stratify(SKEWED, EVEN)
    n = SKEWED.height
    count = {cell: rows.height for cell, rows in SKEWED.group_by(BY)}
    assert weights.values == pytest.approx([(1 / 6) / (count[cell] / n) for cell in SKEWED.iter_rows()])
    assert weights.effective_size == pytest.approx(n**2 / sum(w**2 for w in weights.values))
    assert effective_size(np.ones(7)) == 7
    assert weights.group_weights() == pytest.approx(EVEN.cell_shares())


def test_empty_cells_are_named_and_not_filled():
    raters = SKEWED.filter(~((pl.col("profile.age") == "65+") & (pl.col("profile.gender") == "woman")))
    raters = pl.concat([raters, pl.DataFrame([("18-29", None), ("18-29", "other")], schema=list(BY), orient="row")])
    weights = post_stratify(raters, EVEN)
    assert weights.empty == pytest.approx({"65+ · woman": 1 / 6})
    assert weights.covered == pytest.approx(5 / 6)
    assert (weights.outside, weights.unknown) == ({"18-29 · other": 1}, 1)
    assert weights.values[-2:].tolist() == [0, 0]
    said = " ".join(explained(weights))
    assert "65+ · woman (16.7%)" in said
    assert "83.3% of it is covered" in said
    yes = np.ones(raters.height)
    found = weights.mean(yes, bounds=(0, 1))
    assert found.estimate == 1.0
    # were all of the empty cell of the other mind, five sixths would say yes
    assert found.worst_low == pytest.approx(5 / 6 * found.low)
    assert found.worst_high == 1
    assert weights.mean(yes).worst_high == np.inf


def naive_raking(raters: pl.DataFrame, target: Target) -> np.ndarray:
    w = np.ones(raters.height)
    for _ in range(500):
        for name, margin in target.margins.items():
            for level, share in margin.items():
                mine = np.array([x == level for x in raters[name]])
                now = w[mine].sum() / w.sum()
                w[mine] *= share * (1 - now) / (now * (1 - share))  # so that the level weighs its share of the new total
    return w / w.mean()


def test_raking_against_a_naive_one():
    target = cells_of(dict(zip(product(AGES, GENDERS), (0.1, 0.2, 0.15, 0.25, 0.2, 0.1), strict=True)))
    margins = Target(target.margins, None, "margins")
    for given in (target, margins):
        weights = rake(SKEWED, given)
        assert weights.converged
        assert weights.values == pytest.approx(naive_raking(SKEWED, target), rel=1e-5)
        for name, margin in target.margins.items():
            for level, share in margin.items():
                assert weights.values[(SKEWED[name] == level).to_numpy()].sum() / weights.values.sum() == pytest.approx(share, abs=1e-7)
    # weights of raking are a product of a factor per level (Deming & Stephan): no interaction of their own
    w = {cell: weights.values[i] for i, cell in enumerate(SKEWED.iter_rows())}
    assert w["18-29", "man"] * w["65+", "woman"] == pytest.approx(w["18-29", "woman"] * w["65+", "man"], rel=1e-6)


def test_raking_says_where_it_cannot_converge():
    """All women are old and all the old are women, but the target has more women than old."""
    raters = crowd({("18-29", "man"): 10, ("65+", "woman"): 10})
    target = Target.of(
        pl.DataFrame(
            {"column": ["age", "age", "gender", "gender"], "level": ["18-29", "65+", "man", "woman"], "share": [0.8, 0.2, 0.3, 0.7]}
        )
    )
    weights = rake(raters, target, max_rounds=50)
    assert not weights.converged
    assert weights.error == pytest.approx(0.5)
    assert "did not converge" in " ".join(explained(weights))


def test_trimmed_weights_stay_below_and_say_what_is_left():
    target = cells_of(dict(zip(product(AGES, GENDERS), (0.05, 0.1, 0.15, 0.1, 0.3, 0.3), strict=True)))
    plain, trimmed = rake(SKEWED, target), rake(SKEWED, target, trim=3.0)
    assert plain.values.max() > 3.5
    assert trimmed.values.max() <= 3.0 * (1 + 1e-6)
    assert trimmed.error > 0.01
    assert trimmed.effective_size > plain.effective_size
    assert "off by" in " ".join(explained(trimmed))
    with pytest.raises(InvalidSetting, match=r"trim is 0\.5"):
        rake(SKEWED, target, trim=0.5)


def test_the_interval_is_that_of_a_stratified_sample():
    """W_c^2 s_c^2 / n_c summed, and Satterthwaite's degrees of freedom, computed cell by cell."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=SKEWED.height)
    found = post_stratify(SKEWED, EVEN).mean(y)
    parts = [y[np.array([row == cell for row in SKEWED.iter_rows()])] for cell in product(AGES, GENDERS)]
    v = np.array([part.var(ddof=1) / len(part) / 36 for part in parts])
    # the degrees of freedom take spreads as equal, so they do not depend on y
    design = np.array([1 / len(part) / 36 for part in parts])
    freedom = design.sum() ** 2 / (design**2 / np.array([len(part) - 1 for part in parts])).sum()
    half = stats.t.ppf(0.95, freedom) * np.sqrt(v.sum())
    assert found.estimate == pytest.approx(np.mean([part.mean() for part in parts]))
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half))


def test_without_weights_the_interval_is_students():
    y = np.random.default_rng(1).normal(size=20)
    found = unweighted(20).mean(y, level=0.95)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 19, y.mean(), stats.sem(y)))


def test_nothing_is_said_where_nothing_tells_a_spread():
    raters = crowd({("18-29", "man"): 1, ("65+", "woman"): 1})
    target = cells_of({("18-29", "man"): 0.5, ("65+", "woman"): 0.5})
    found = post_stratify(raters, target).mean(np.array([0.0, 1.0]), bounds=(0, 1))
    assert (found.low, found.high) == (0, 1)
    with pytest.raises(InvalidSetting, match="two at least"):
        post_stratify(raters, target).mean(np.array([0.0, np.nan]))
    with pytest.raises(InvalidSetting, match="bounds"):
        post_stratify(raters, target).mean(np.array([0.0, 2.0]), bounds=(0, 1))


# ------------------------------------------------------------------------------------ the pool


def test_what_was_not_adjusted_for_is_shown():
    """The pool is schooled; weights by age make ages right and leave that as it is."""
    rng = np.random.default_rng(2)
    age = rng.choice(["young", "old"], 400, p=[0.8, 0.2])
    school = rng.random(400) < 0.75
    raters = pl.DataFrame({"profile.age": age, "profile.school": np.where(school, "yes", "no"), "judgments": rng.integers(1, 9, 400)})
    target = Target.of(pl.DataFrame({"age": ["young", "young", "old", "old"], "school": ["yes", "no"] * 2, "share": [0.25] * 4}))
    weights = post_stratify(raters, target.only("profile.age"))
    table = representation(raters, target, weights)
    rows = {(r["column"], r["level"]): r for r in table.iter_rows(named=True)}
    young, yes = rows["profile.age", "young"], rows["profile.school", "yes"]
    assert (young["adjusted"], yes["adjusted"]) == (True, False)
    assert young["sample"] == pytest.approx((age == "young").mean())
    assert young["gap_low"] > 0.2
    assert young["residual"] == pytest.approx(0)
    assert young["judgments"] == pytest.approx(
        raters.filter(pl.col("profile.age") == "young")["judgments"].sum() / raters["judgments"].sum()
    )
    expected = 0.5 * school[age == "young"].mean() + 0.5 * school[age == "old"].mean() - 0.5
    assert yes["residual"] == pytest.approx(expected)
    assert yes["residual_low"] > 0.15
    assert yes["residual_low"] < expected < yes["residual_high"]


def test_raters_needed_are_enough_and_no_more():
    found = raters_needed(SKEWED, EVEN, 0.1, sd=0.5, level=0.9)
    n = found["needed"][0]
    width = [stats.t.ppf(0.95, m - 1) * 0.5 / np.sqrt(m) for m in (n - 1, n)]
    assert width[0] > 0.1 >= width[1]
    assert found["missing"].to_list() == [n - have for have in found["n"]]
    by_age = raters_needed(SKEWED, EVEN, 0.1, by="profile.age")
    assert by_age["n"].to_list() == [40, 28, 7]
    # half of the intervals of so many are within the half width: their own spread varies about sd
    rng = np.random.default_rng(3)
    halves = stats.t.ppf(0.95, n - 1) * rng.normal(0, 0.5, (2000, n)).std(1, ddof=1) / np.sqrt(n)
    assert (halves <= 0.1).mean() == pytest.approx(0.5, abs=0.1)


# ------------------------------------------------------------------------------------ a planted population


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "population.py"
    spec = importlib.util.spec_from_file_location("benchmarks_population", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def planted() -> dict[str, Any]:
    """12 replications of 12 pairs in which columns add up, and of the wrong columns."""
    study = _benchmark()
    cases, methods = {case.name: case for case in study.CASES}, ("raw", "cells", "cells, covered", "cells, worst", "raked", "multilevel")
    return {name: study.run(cases[name], 12, 1000, methods)["rows"] for name in ("columns add up", "the wrong columns")}


def test_a_skewed_pool_is_told_right_by_who_adjusts_for_it(planted: dict[str, Any]):
    """R26. 144 intervals, of which the 12 of a replication share its raters: counted as 48 independent ones (a design effect of 3), the
    binomial standard error of a coverage of .9 is .043, and 2.6 of them .11, once in two hundred. The raw share holds the truth half the time."""
    rows = planted["columns add up"]
    for name in ("cells", "cells, covered", "raked", "multilevel"):
        assert rows[name]["coverage"][0] > 0.9 - 0.11
        assert abs(rows[name]["bias"][0]) < 0.5 * rows["raw"]["bias"][0]
    assert rows["raw"]["coverage"][0] < 0.75
    assert rows["multilevel"]["rmse"][0] < min(rows[name]["rmse"][0] for name in ("raw", "cells", "raked"))
    assert rows["cells, worst"]["coverage"][0] >= rows["cells"]["coverage"][0]


def test_the_wrong_columns_leave_the_bias(planted: dict[str, Any]):
    """What differs and was not adjusted for is as wrong as before, whatever the method, and the intervals do not know it."""
    rows = planted["the wrong columns"]
    for name in ("cells", "raked", "multilevel"):
        assert rows[name]["bias"][1] > 0.015
        assert rows[name]["coverage"][0] < 0.87


def test_the_planted_truth_is_what_people_of_the_population_do():
    """The benchmark's integral against 40,000 people drawn from the population: within 4 standard errors."""
    study = _benchmark()
    world = study.plant(study.CASES[0], 3)
    assert world.answers.std(0).min() > 0.2
    assert 0.02 < np.abs(world.drawn - world.truth).max() < 0.5
    assert (world.truth > 0.05).all()
    assert (world.truth < 0.95).all()
    assert np.abs(world.answers.mean(0) - world.drawn).max() < 4.5 * 0.5 / np.sqrt(len(world.answers))


# ------------------------------------------------------------------------------------ a fit


def answered(counts: dict[tuple[str, str], int], gaps: dict[tuple[str, str], float], seed: int, n_pairs: int = 8) -> Feedback:
    """Everyone judges every pair; the gap of a cell is that of all its pairs."""
    rng = np.random.default_rng(seed)
    raters = [cell for cell, n in counts.items() for _ in range(n)]
    rows = [(i, cell, p) for i, cell in enumerate(raters) for p in range(n_pairs)]
    won = [rng.random() < 1 / (1 + np.exp(-gaps[cell])) for _, cell, _ in rows]
    return Feedback.from_columns(
        {
            "kind": ["pair"] * len(rows),
            "ids": [[f"left {p}", f"right {p}"] for _, _, p in rows],
            "prompt": [f"pair {p}" for _, _, p in rows],
            "outcome": ["left" if w else "right" for w in won],
            "rater": [f"rater {i}" for i, _, _ in rows],
            "rater_profile": [json.dumps(dict(zip(("age", "gender"), cell, strict=True))) for _, cell, _ in rows],
        }
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[Feedback, Fit]:
    cells = list(product(AGES, GENDERS))
    gaps = {(age, gender): (-1.0, 0.0, 1.0)[AGES.index(age)] + (0.5 if gender == "man" else -0.5) for age, gender in cells}
    counts = dict(zip(cells, (90, 90, 90, 90, 0, 90), strict=True))
    feedback = answered(counts, gaps, 0)
    return feedback, fit(feedback, utility=Tabular(), people=Groups(BY), observation=PLAIN)


def sides(feedback: Feedback) -> tuple[np.ndarray, np.ndarray]:
    place = {name: i for i, name in enumerate(feedback.responses["name"].to_list())}
    return np.array([place[f"left {i}"] for i in range(8)]), np.array([place[f"right {i}"] for i in range(8)])


def test_an_empty_cell_is_inferred_from_its_columns_and_named(fitted: tuple[Feedback, Fit]):
    """Old men: nobody answered, old women and young men did. Truth 1.5 logits."""
    feedback, result = fitted
    target = cells_of({("65+", "man"): 0.5, ("18-29", "woman"): 0.5})
    found = preferences(result, feedback, *sides(feedback), target)
    assert found.inferred == {"65+ · man": 0.5}
    assert (found.lost, found.covered) == ({}, 1.0)
    truth = 0.5 / (1 + np.exp(-1.5)) + 0.5 / (1 + np.exp(1.5))
    assert ((found.low <= truth) & (truth <= found.high)).mean() >= 0.75
    assert found.share.mean() == pytest.approx(truth, abs=0.05)
    alone = preferences(result, feedback, *sides(feedback), cells_of({("65+", "man"): 1.0}))
    assert alone.share.mean() == pytest.approx(1 / (1 + np.exp(-1.5)), abs=0.08)
    gaps = result.gaps(feedback, *sides(feedback), group_weights={"65+ · man": 1.0})
    seen = result.gaps(feedback, *sides(feedback), group_weights={"18-29 · man": 1.0})
    assert (gaps.ignorance > seen.ignorance).all()


def test_the_interval_is_that_of_draws_from_the_posterior(fitted: tuple[Feedback, Fit]):
    """The first-order interval against 4,000 draws of all values: bounds within a tenth of its width."""
    feedback, result = fitted
    left, right = sides(feedback)
    found = preferences(result, feedback, left, right, EVEN)
    rng = np.random.default_rng(0)
    k, P = result.weights.shape
    rows = result.basis.rows_for(feedback)
    factors = [f.toarray() if not isinstance(f, np.ndarray) else f for f in (result.factor, result.robust) if f is not None]
    bounds = []
    for factor in factors:
        draws = result.weights.ravel() + rng.normal(size=(4000, factor.shape[1])) @ factor.T
        values = np.stack([rows.times(d.reshape(k, P).T) @ result.loadings[:6].T for d in draws])
        share = (1 / (1 + np.exp(-(values[:, left] - values[:, right])))).mean(2)
        bounds.append(np.quantile(share, [0.05, 0.95], axis=0))
    wider = np.argmax([b[1] - b[0] for b in bounds], axis=0)
    low, high = (np.array([bounds[w][side][i] for i, w in enumerate(wider)]) for side in (0, 1))
    width = high - low
    assert np.abs((found.low - low) / width).max() < 0.1
    assert np.abs((found.high - high) / width).max() < 0.1


def test_cells_without_values_are_named(fitted: tuple[Feedback, Fit]):
    feedback, result = fitted
    target = cells_of({("18-29", "man"): 0.6, ("18-29", "other"): 0.3, ("65+", "woman"): 0.1})
    inside, lost = cell_weights(result, target)
    assert set(inside) == {"18-29 · man", "65+ · woman"}
    assert lost == pytest.approx({"18-29 · other": 0.3})
    assert preferences(result, feedback, *sides(feedback), target).covered == pytest.approx(0.7)
    with pytest.raises(InvalidSetting, match="None of its cells"):
        cell_weights(result, cells_of({("1", "2"): 1.0}))
    same = fit(feedback, utility=Tabular(), people=Same(), observation=PLAIN)
    with pytest.raises(InvalidSetting, match="fit Groups"):
        cell_weights(same, target)


def _margins(age: dict[str, float], man: float) -> Target:
    rows = [*(("age", level, share) for level, share in age.items()), ("gender", "man", man), ("gender", "woman", 1 - man)]
    return Target.of(pl.DataFrame(rows, schema=["column", "level", "share"], orient="row"), source="margins.csv")


def test_groups_of_a_fit_are_raked_to_margins(fitted: tuple[Feedback, Fit]):
    """As the raters themselves are: nobody is an old man, and the weights of the others are those of `rake`."""
    feedback, result = fitted
    target = _margins({"18-29": 0.2, "30-64": 0.5, "65+": 0.3}, 0.4)
    inside, lost = cell_weights(result, target)
    assert lost == {}
    assert inside == pytest.approx(rake(rater_profiles(feedback, BY), target).group_weights(), abs=1e-6)
    assert "65+ · man" not in inside
    assert preferences(result, feedback, *sides(feedback), target).covered == pytest.approx(1)
    inside, lost = cell_weights(result, _margins({"18-29": 0.2, "30-64": 0.5, "65+": 0.2, "older": 0.1}, 0.4))
    assert lost == pytest.approx({"profile.age older": 0.1})
    assert sum(inside.values()) == pytest.approx(0.9)


def test_margins_that_the_groups_of_a_fit_cannot_meet_are_refused(fitted: tuple[Feedback, Fit], tmp_path: Path):
    """Nobody is an old man, so the old, 70%, are women, of whom there are to be 40%."""
    _, result = fitted
    with pytest.raises(InvalidCharter, match=r"did not converge: profile\.age 65\+ is off by -30\.0 points"):
        cell_weights(result, _margins({"18-29": 0.2, "30-64": 0.1, "65+": 0.7}, 0.6))
    (tmp_path / "margins.csv").write_text(
        "column,level,share\nage,18-29,0.2\nage,30-64,0.5\nage,65+,0.3\ngender,man,0.4\ngender,woman,0.6\n", encoding="utf-8"
    )
    (tmp_path / "charter.toml").write_text('[electorate]\nweighting = "target"\ntarget = "margins.csv"\n', encoding="utf-8")
    weights = Charter.from_toml(tmp_path / "charter.toml").group_weights(result)
    assert weights is not None
    assert sum(share for name, share in weights.items() if name.endswith("· man")) == pytest.approx(0.4)


def test_weights_of_raters_weigh_the_groups_of_a_fit(fitted: tuple[Feedback, Fit]):
    feedback, result = fitted
    raters = rater_profiles(feedback, BY)
    assert raters["judgments"].to_list() == [8] * 450
    weights: Weights = post_stratify(raters, EVEN)
    assert weights.empty == {"65+ · man": pytest.approx(1 / 6)}
    shares = weights.group_weights()
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) < set(result.groups)
    gaps = result.gaps(feedback, *sides(feedback), group_weights=shares)
    named = [result.groups.index(name) for name in shares]
    assert gaps.mean == pytest.approx(gaps.by_group[:, named].mean(1))


def test_profiles_that_are_not_there_are_refused(fitted: tuple[Feedback, Fit]):
    feedback, _ = fitted
    with pytest.raises(InvalidSetting, match="not known of any rater"):
        rater_profiles(feedback, ["profile.income"])
    said: dict[str, Any] = {"kind": ["thumbs"] * 2, "outcome": ["answered"] * 2, "texts": [["a"], ["b"]], "thumb": [True, False]}
    twice = Feedback.from_columns(said | {"rater": ["x", "x"], "group": ["1", "2"]})
    with pytest.raises(InvalidSetting, match="Rater 'x' has several levels"):
        rater_profiles(twice, ["group"])


# ------------------------------------------------------------------------------------ real people


def test_d3code_as_a_target_frame(real_data: Path):
    """4,309 people in 21 countries are the population, those of two regions the pool: weights, sizes and empty cells by plain polars."""
    people = pl.read_parquet(real_data / "d3code_raters" / "raters.parquet")
    frame = people.group_by("age", "gender", "region").len("count").sort("age", "gender", "region")
    target = Target.of(frame)
    pool = people.filter(pl.col("region").is_in(["North America", "Western Europe"]) & (pl.col("age") != "50+"))
    raters = pool.select(**{f"profile.{name}": name for name in ("age", "gender", "region")})
    assert frame["count"].sum() == 4309
    weights = post_stratify(raters, target, unseen=True)
    # one: the share that the pool can speak for
    inside = people.join(pool.select("age", "gender", "region").unique(), on=["age", "gender", "region"], how="semi")
    assert weights.covered == pytest.approx(inside.height / 4309)
    assert sum(weights.empty.values()) == pytest.approx(1 - inside.height / 4309)
    assert len(weights.empty) == frame.height - pool.select("age", "gender", "region").n_unique()
    # two: Kish's size, from counts alone
    both = frame.join(pool.group_by("age", "gender", "region").len("n"), on=["age", "gender", "region"])
    ratio = both["count"] / both["n"]
    assert weights.effective_size == pytest.approx(both["count"].sum() ** 2 / (both["n"] * ratio**2).sum())
    # three: the gap of men under 31 in the table
    table = representation(raters, target)
    row = table.row(by_predicate=(pl.col("column") == "profile.age") & (pl.col("level") == "18-30"), named=True)
    assert row["gap"] == pytest.approx((pool["age"] == "18-30").mean() - (people["age"] == "18-30").mean())
    assert row["gap_low"] > 0.05
    with pytest.raises(InvalidCharter, match="not a level of any rater"):
        post_stratify(raters, target)


def test_real_pools_drawn_askew_are_put_right(real_data: Path):
    """The mean purity score of all 4,309, from 200 pools of 300 that are mostly young men of two regions: what they say raw, and
    weighed by age, gender and region. Truth is known, and nothing is planted. 200 draws: the binomial standard error of .9 is .021."""
    people = pl.read_parquet(real_data / "d3code_raters" / "raters.parquet").filter(pl.col("gender") != "Other")
    raters = people.select(**{f"profile.{name}": name for name in ("age", "gender", "region")})
    target = Target.of(raters.group_by(raters.columns).len("count"))
    purity = people["purity"].to_numpy()
    west = people["region"].is_in(["North America", "Western Europe"]).to_numpy()
    odds = np.where(west, 6.0, 1.0) * np.where(people["age"] == "18-30", 3.0, 1.0) * np.where(people["gender"] == "Man", 2.0, 1.0)
    rng = np.random.default_rng(4)
    hits, errors = np.zeros((200, 2), dtype=bool), np.zeros((200, 2))
    for i in range(200):
        mine = rng.choice(people.height, 300, replace=False, p=odds / odds.sum())
        for j, weights in enumerate((unweighted(300), rake(raters[mine], target, unseen=True))):
            found = weights.mean(purity[mine])
            hits[i, j], errors[i, j] = found.low <= purity.mean() <= found.high, found.estimate - purity.mean()
    assert hits[:, 0].mean() < 0.5
    assert hits[:, 1].mean() > 0.9 - 3 * 0.021
    assert abs(errors[:, 1].mean()) < 0.35 * abs(errors[:, 0].mean())


def test_dices_says_nothing_of_who_its_raters_are(real_data: Path):
    """The public copy has no profiles, so no table can be made of them, and that is said."""
    import seamark as sm

    with pytest.raises(InvalidSetting, match=r"profile\.gender.*not known of any rater"):
        rater_profiles(sm.load(real_data / "dices_350"), ["profile.gender"])
