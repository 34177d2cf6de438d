"""Agreement, ceiling and self-agreement against golden values, the krippendorff package and plain loops."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import krippendorff
import numpy as np
import polars as pl
import pytest

from seamark.checks.agreement import check_agreement, check_ceiling, check_self_agreement, krippendorff_alpha
from seamark.errors import InvalidSetting
from seamark.records import Feedback

_ = np.nan
FOUR_BY_TWELVE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
"""Krippendorff 2004, four coders and twelve units: .743 nominal, .815 ordinal, .849 interval, .797 ratio."""
THREE_BY_FIFTEEN = [
    [_, _, _, _, _, 3, 4, 1, 2, 1, 1, 3, 3, _, 3],
    [1, _, 2, 1, 3, 3, 4, 3, _, _, _, _, _, _, _],
    [_, _, 2, 1, 3, 4, 4, _, 2, 1, 1, 3, 3, _, 4],
]
"""The encyclopaedia case: .691 nominal, .807 ordinal, .811 interval."""


def long(table: list[list[float]] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table (raters, units) with gaps as values and units."""
    values = np.array(table, dtype=float)
    units = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    known = ~np.isnan(values)
    return values[known], units[known]


def pairs(rows: list[tuple[str, str, str, str]], **more: list[object]) -> Feedback:
    """Feedback from (rater, left id, right id, outcome)."""
    return Feedback.from_columns(
        {
            "kind": ["pair"] * len(rows),
            "rater": [r[0] for r in rows],
            "ids": [[r[1], r[2]] for r in rows],
            "outcome": [r[3] for r in rows],
            **more,
        }
    )


def random_pairs(seed: int, n: int = 300, n_items: int = 6, n_raters: int = 9) -> Feedback:
    rng = np.random.default_rng(seed)
    rows = []
    for _i in range(n):
        a, b = rng.choice(n_items, 2, replace=False)
        outcome = rng.choice(["left", "right", "tie", "both_bad", "cannot_tell", "skipped"], p=[0.35, 0.35, 0.15, 0.05, 0.05, 0.05])
        if rng.random() < 0.4:
            outcome = "left" if a < b else "right"
        rows.append((f"r{rng.integers(n_raters)}", f"i{a}", f"i{b}", str(outcome)))
    return pairs(rows)


# ------------------------------------------------------------------------------------ alpha


@pytest.mark.parametrize(
    ("table", "metric", "expected"),
    [
        (FOUR_BY_TWELVE, "nominal", 0.743),
        (FOUR_BY_TWELVE, "ordinal", 0.815),
        (FOUR_BY_TWELVE, "interval", 0.849),
        (FOUR_BY_TWELVE, "ratio", 0.797),
        (THREE_BY_FIFTEEN, "nominal", 0.691),
        (THREE_BY_FIFTEEN, "ordinal", 0.807),
        (THREE_BY_FIFTEEN, "interval", 0.811),
    ],
)
def test_alpha_golden(table, metric, expected):
    assert krippendorff_alpha(*long(table), metric=metric) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval", "ratio"])
@pytest.mark.parametrize("n_values", [2, 5, 60])  # 60 values take the path by moments
@pytest.mark.parametrize("seed", range(3))
def test_alpha_agrees_with_package(metric, n_values, seed):
    rng = np.random.default_rng([seed, n_values])
    truth = rng.integers(1, n_values + 1, 80)
    table = np.where(rng.random((5, 80)) < 0.6, truth, rng.integers(1, n_values + 1, (5, 80))).astype(float)
    table[rng.random(table.shape) < 0.4] = np.nan
    assert krippendorff_alpha(*long(table), metric=metric) == pytest.approx(
        krippendorff.alpha(table, level_of_measurement=metric), abs=1e-10
    )


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval", "ratio"])
@pytest.mark.parametrize(("n_values", "first", "step"), [(2, 0, 1), (5, 1, 1), (9, -4, 1), (7, 1, 0.25), (60, 1, 1), (60, 1, 0.5)])
def test_alpha_is_the_package_s_to_twelve_digits(metric, n_values, first, step):
    rng = np.random.default_rng([n_values, abs(first)])
    levels = first + step * np.arange(n_values, dtype=float)
    truth = rng.integers(0, n_values, 200)
    table = levels[np.where(rng.random((7, 200)) < 0.6, truth, rng.integers(0, n_values, (7, 200)))]
    table[rng.random(table.shape) < 0.5] = np.nan
    table[:, :3] = np.nan
    values, units = long(table)
    expected = krippendorff.alpha(table, level_of_measurement=metric)
    found = krippendorff_alpha(values, units, metric=metric)
    assert found == pytest.approx(expected, abs=1e-12)
    raters = np.broadcast_to(np.arange(7)[:, None], table.shape)[~np.isnan(table)]
    mixed = rng.permutation(len(values))
    assert krippendorff_alpha(values[mixed], units[mixed], raters=raters[mixed], metric=metric) == pytest.approx(expected, abs=1e-12)
    if step == 1:
        whole = values.astype(np.int32)
        assert krippendorff_alpha(whole, units.astype(np.int32), raters=raters, metric=metric) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("wide", [1, 10_000])  # a table of the cells answered, or a sort of them
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_alpha_counts_the_first_answer_of_each_rater(wide, unknown):
    rng = np.random.default_rng(3)
    n = 400
    values, units = rng.integers(0, 3, n), rng.integers(0, 40, n)
    raters = np.where(rng.random(n) < unknown, -1, rng.integers(0, 6, n) * wide)
    seen: set[tuple[int, int]] = set()
    kept = []
    for row, seat in enumerate(zip(units.tolist(), raters.tolist(), strict=True)):
        if seat[1] < 0 or seat not in seen:
            kept.append(row)
        seen.add(seat)
    assert len(kept) < n
    assert krippendorff_alpha(values, units, raters=raters) == pytest.approx(krippendorff_alpha(values[kept], units[kept]), abs=1e-14)
    assert krippendorff_alpha(values, units, raters=np.full(n, -1)) == krippendorff_alpha(values, units)


def test_alpha_refuses_what_is_not_a_number():
    with pytest.raises(InvalidSetting, match="not known"):
        krippendorff_alpha(np.array([1.0, np.nan]), np.array([0, 0]))
    with pytest.raises(InvalidSetting, match="There are 2 values"):
        krippendorff_alpha(np.array([1.0, 2.0]), np.array([0, 0]), raters=np.array([1]))


def test_alpha_without_variation_or_repeats_is_none():
    assert krippendorff_alpha(np.ones(4), np.array([0, 0, 1, 1])) is None
    assert krippendorff_alpha(np.arange(4.0), np.arange(4)) is None
    assert krippendorff_alpha(np.zeros(0), np.zeros(0, dtype=np.int64)) is None


def naive_pair_alpha(feedback: Feedback) -> tuple[float, float]:
    """Alpha over pairs with D_e from the counts and their mirror image, and the share of equal answers, by loops."""
    units: dict[tuple, dict[str, str]] = defaultdict(dict)
    names = feedback.responses["name"].to_list()
    raters = feedback.raters["id"].to_list()
    for row in feedback.judgments.iter_rows(named=True):
        if row["outcome"] in ("cannot_tell", "skipped"):
            continue
        a, b = (names[r] for r in row["responses"])
        answer = {"left": a, "right": b}.get(row["outcome"], row["outcome"])
        mirror = {min(a, b): "low", max(a, b): "high"}
        units[min(a, b), max(a, b)].setdefault(raters[row["rater"]], mirror.get(answer, answer))
    observed, counts, n, agreeing, compared = 0.0, Counter(), 0, 0, 0
    for answers in units.values():
        values = list(answers.values())
        if len(values) < 2:
            continue
        n += len(values)
        counts.update(values)
        differ = sum(v != w for v, w in combinations(values, 2))
        observed += 2 * differ / (len(values) - 1)
        agreeing += len(values) * (len(values) - 1) // 2 - differ
        compared += len(values) * (len(values) - 1) // 2
    mean = (counts["low"] + counts["high"]) / 2
    counts["low"] = counts["high"] = mean
    expected = (n * n - sum(c * c for c in counts.values())) / (n - 1)
    return 1 - observed / expected, agreeing / compared


@pytest.mark.parametrize("seed", range(4))
def test_pair_agreement_against_loops(seed):
    feedback = random_pairs(seed)
    finding = check_agreement(feedback)[0]
    alpha, same = naive_pair_alpha(feedback)
    assert finding.estimate == pytest.approx(alpha, abs=1e-12)
    assert finding.details["same"]["share"] == pytest.approx(same, abs=1e-12)
    assert finding.low is not None
    assert finding.high is not None
    assert finding.low < finding.estimate < finding.high


def test_pair_agreement_does_not_depend_on_order():
    rows = [(f"r{i % 5}", f"i{i % 3}", f"i{(i % 3) + 1 + i % 2}", ["left", "right", "left"][i % 3]) for i in range(60)]
    swapped = [(r, b, a, {"left": "right", "right": "left"}[o]) for r, a, b, o in reversed(rows)]
    first, second = check_agreement(pairs(rows))[0], check_agreement(pairs(swapped))[0]
    assert first.estimate == pytest.approx(second.estimate, abs=1e-12)


def test_always_first_is_not_agreement_by_chance():
    """Chosen-first data: all answers read left, which a fixed orientation would take for a category without variation."""
    rows = [(f"r{j}", f"a{i}", f"b{i}", "left") for i in range(20) for j in range(3)]
    finding = check_agreement(pairs(rows))[0]
    assert finding.estimate == 1.0
    assert "no doubt" in (finding.reason or "")


def test_bootstrap_covers_planted_alpha():
    """Two raters, two thumbs: both answer the truth with probability q, else at random; alpha is q^2 in a large sample."""
    rng = np.random.default_rng(0)
    q, covered = 0.7, 0
    for _round in range(60):
        truth = rng.random(150) < 0.5
        answers = [np.where(rng.random(150) < q, truth, rng.random(150) < 0.5) for _ in range(2)]
        feedback = Feedback.from_columns(
            {
                "kind": ["thumbs"] * 300,
                "ids": [[f"i{i}"] for i in range(150)] * 2,
                "rater": ["a"] * 150 + ["b"] * 150,
                "outcome": ["answered"] * 300,
                "thumb": [bool(x) for a in answers for x in a],
            }
        )
        finding = check_agreement(feedback)[0]
        covered += finding.low <= q * q <= finding.high
    assert covered >= 52  # 57 expected; 51 or fewer has probability below 1%


def test_ratings_are_ordinal_and_slices_are_within_axis():
    rng = np.random.default_rng(1)
    columns: dict[str, list] = {name: [] for name in ("kind", "ids", "rater", "outcome", "rating", "axis")}
    tables = {}
    for axis, low in (("clarity", 1), ("truth", 4)):
        truth = rng.integers(low, low + 3, 40)
        table = truth + rng.integers(0, 2, (3, 40))
        tables[axis] = table.astype(float)
        for (rater, item), value in np.ndenumerate(table):
            for name, entry in zip(columns, ("rating", [f"i{item}"], f"r{rater}", "answered", float(value), axis), strict=True):
                columns[name].append(entry)
    found = {f.code: f for f in check_agreement(Feedback.from_columns(columns))}
    for axis, table in tables.items():
        assert found[f"agreement/{axis}"].estimate == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"), abs=1e-12)
    # pooling the two axes would read their difference as agreement
    pooled = krippendorff.alpha(np.hstack(list(tables.values())), level_of_measurement="ordinal")
    assert found["agreement"].estimate < pooled - 0.1
    assert found["agreement"].details["metric"] == "ordinal"


def test_strength_is_ordinal_and_mirrored():
    rng = np.random.default_rng(2)
    table = np.clip(rng.integers(-2, 3, 50) + rng.integers(-1, 2, (4, 50)), -2, 2)
    rows = [(f"r{r}", f"a{u}", f"b{u}", "tie" if v == 0 else "left" if v > 0 else "right") for (r, u), v in np.ndenumerate(table)]
    strength = [int(abs(v)) or None for v in table.ravel()]
    found = {f.code: f for f in check_agreement(pairs(rows, strength=strength, strength_levels=[2] * len(rows)))}
    # the mirror image of the data has the same disagreements, and its marginals are what the averaging stands for
    both = np.hstack([table, -table]).astype(float)
    assert found["agreement/strength"].estimate == pytest.approx(krippendorff.alpha(both, level_of_measurement="ordinal"), abs=3e-3)


def test_groups_and_names_that_collide():
    rows = [(f"r{j}", f"a{i}", f"b{i}", "left" if (i + j) % 3 else "right") for i in range(12) for j in range(4)]
    group = ["self" if j < 2 else "other" for _i in range(12) for j in range(4)]
    axis = ["self" if i < 6 else "x" for i in range(12) for _j in range(4)]
    codes = [f.code for f in check_agreement(pairs(rows, group=group, axis=axis))]
    assert len(codes) == len(set(codes))
    assert "agreement/self" not in codes
    assert {"agreement/axis:self", "agreement/group:self", "agreement/other"} <= set(codes)


def test_choice_and_ranking_and_label():
    n = 30
    rng = np.random.default_rng(3)
    columns = {
        "kind": ["choice"] * n + ["ranking"] * n + ["label"] * n,
        "ids": [[f"c{i % 5}x", f"c{i % 5}y", f"c{i % 5}z"] for i in range(2 * n)] + [[f"l{i % 5}"] for i in range(n)],
        "rater": [f"r{i // 5}" for i in range(n)] * 3,
        "outcome": ["answered"] * 3 * n,
        "best": [int(rng.integers(3)) for _ in range(n)] + [None] * 2 * n,
        "ranks": [None] * n + [[1, 2, 3]] * n + [None] * n,
        "label": [None] * 2 * n + [str(rng.integers(3)) for _ in range(n)],
    }
    findings = check_agreement(Feedback.from_columns(columns))
    found = {f.details["kind"]: f for f in findings}
    assert found["ranking"].estimate == 1.0
    assert abs(found["choice"].estimate) < 0.3
    table = np.array([float(v) for v in columns["label"][2 * n :]]).reshape(6, 5)
    assert found["label"].estimate == pytest.approx(krippendorff.alpha(table, level_of_measurement="nominal"), abs=1e-12)


def test_agreement_not_applicable():
    finding = check_agreement(pairs([("r", "a", "b", "left"), ("r", "b", "c", "left")]))[0]
    assert finding.verdict == "not_applicable"
    all_ties = check_agreement(pairs([("r1", "a", "b", "tie"), ("r2", "a", "b", "tie")]))[0]
    assert all_ties.verdict == "not_applicable"
    assert "category" in (all_ties.reason or "")


def test_severity_of_convabuse(real_data: Path):
    """One answer per annotator and unit (the first), against the package."""
    frame = pl.read_parquet(real_data / "convabuse" / "judgments.parquet")
    feedback = Feedback.from_columns(
        {
            "kind": ["rating"] * frame.height,
            "ids": [[str(u)] for u in frame["unit_id"]],
            "rater": frame["annotator_id"].to_list(),
            "outcome": ["answered"] * frame.height,
            "rating": frame["severity"].cast(pl.Float64).to_list(),
        }
    )
    first = frame.unique(["unit_id", "annotator_id"], keep="first", maintain_order=True)
    table = first.pivot("unit_id", index="annotator_id", values="severity").drop("annotator_id").to_numpy().astype(float)
    finding = check_agreement(feedback)[0]
    assert finding.estimate == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"), abs=1e-9)
    assert finding.details["alpha_interval"]["alpha"] == pytest.approx(krippendorff.alpha(table, level_of_measurement="interval"), abs=1e-9)
    own = check_self_agreement(feedback)[0]
    again = frame.group_by("unit_id", "annotator_id").agg(pl.col("severity").alias("all")).filter(pl.col("all").list.len() > 1)
    same = [v == w for values in again["all"].to_list() for v, w in combinations(values, 2)]
    assert own.estimate == pytest.approx(np.mean(same), abs=1e-12)
    assert own.n == again.height


# ------------------------------------------------------------------------------------ ceiling


def naive_ceiling(answers: dict[tuple, dict[str, str]]) -> tuple[float, int]:
    """answers: unit -> rater -> "low", "high" or something undecided."""
    hits = []
    for unit in answers.values():
        for rater, own in unit.items():
            if own not in ("low", "high") or len(unit) < 2:
                continue
            others = [v for r, v in unit.items() if r != rater]
            net = others.count(own) - others.count("high" if own == "low" else "low")
            hits.append(0.5 if net == 0 else float(net > 0))
    return float(np.mean(hits)), len(hits)


def answers_of(feedback: Feedback) -> dict[tuple, dict[str, str]]:
    units: dict[tuple, dict[str, str]] = defaultdict(dict)
    for row in feedback.judgments.iter_rows(named=True):
        if row["outcome"] in ("cannot_tell", "skipped"):
            continue
        a, b = row["responses"]
        if a == b:
            continue
        low = (row["outcome"] == "left") == (a < b)
        answer = ("low" if low else "high") if row["outcome"] in ("left", "right") else "undecided"
        units[row["prompt"], min(a, b), max(a, b)].setdefault(row["rater"], answer)
    return units


@pytest.mark.parametrize("seed", range(4))
def test_ceiling_against_loops(seed):
    feedback = random_pairs(seed)
    finding = check_ceiling(feedback)
    expected, n = naive_ceiling(answers_of(feedback))
    assert finding.estimate == pytest.approx(expected, abs=1e-12)
    assert finding.n == n


@pytest.mark.parametrize("seed", range(3))
def test_ceiling_of_labels_against_loops(seed):
    rng = np.random.default_rng(seed)
    n = 200
    unit, label = rng.integers(0, 30, n), rng.integers(0, 4, n)
    feedback = Feedback.from_columns(
        {
            "kind": ["label"] * n,
            "ids": [[f"i{u}"] for u in unit],
            "outcome": ["answered"] * n,
            "label": [f"L{v}" for v in label],
            "rater": [f"r{i}" for i in range(n)],
        }
    )
    hits = []
    for i in range(n):
        others = Counter(label[j] for j in range(n) if j != i and unit[j] == unit[i])
        if others:
            modes = [v for v, c in others.items() if c == max(others.values())]
            hits.append((label[i] in modes) / len(modes))
    finding = check_ceiling(feedback)
    assert finding.estimate == pytest.approx(np.mean(hits), abs=1e-12)
    assert finding.n == len(hits)


def test_ceiling_of_ratings_uses_each_raters_own_order():
    """Three raters order three items alike but use the scale differently: the others always predict the one left out."""
    shift = {"a": 0.0, "b": 3.0, "c": 10.0}
    columns = {
        "kind": ["rating"] * 9,
        "prompt": ["p"] * 9,
        "texts": [[t] for t in "xyz"] * 3,
        "rater": [r for r in shift for _ in range(3)],
        "outcome": ["answered"] * 9,
        "rating": [s + i for s in shift.values() for i in range(3)],
    }
    finding = check_ceiling(Feedback.from_columns(columns))
    assert finding.estimate == 1.0
    assert finding.n == 9


def test_ceiling_not_applicable_when_judged_once():
    finding = check_ceiling(pairs([("r1", "a", "b", "left"), ("r2", "b", "c", "right")]))
    assert finding.verdict == "not_applicable"
    assert "one rater" in (finding.reason or "")


def test_ceiling_of_coins_is_a_warning_and_covers_one_half():
    rng = np.random.default_rng(5)
    rows = [(f"r{j}", f"a{i}", f"b{i}", str(rng.choice(["left", "right"]))) for i in range(2000) for j in range(3)]
    finding = check_ceiling(pairs(rows))
    assert finding.low < 0.5 < finding.high
    assert finding.verdict == "warning"


def test_ukp(real_data: Path):
    judgments = pl.read_parquet(real_data / "ukp_convarg" / "judgments.parquet")
    table = pl.read_parquet(real_data / "ukp_convarg" / "pairs.parquet")
    frame = judgments.join(table, on="pair_id", how="left", maintain_order="left")
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * frame.height,
            "prompt": frame["side"].to_list(),
            "texts": [list(t) for t in zip(frame["arg1"], frame["arg2"], strict=True)],
            "outcome": [{"a1": "left", "a2": "right", "equal": "tie"}[v] for v in frame["value"]],
            "rater": frame["worker"].to_list(),
        }
    )
    expected, n = naive_ceiling(answers_of(feedback))
    finding = check_ceiling(feedback)
    assert finding.estimate == pytest.approx(expected, abs=1e-12)
    assert finding.n == n
    alpha = check_agreement(feedback)[0]
    assert alpha.low < 0.26 < alpha.high
    # the same question by the published pair ids, in the published orientation
    first = judgments.unique(["pair_id", "worker"], keep="first")
    code = first["value"].replace_strict({"a1": 0.0, "a2": 1.0, "equal": 2.0}, return_dtype=pl.Float64).to_numpy()
    published = krippendorff_alpha(code, first["pair_id"].rank("dense").cast(pl.Int64).to_numpy())
    assert alpha.estimate == pytest.approx(published, abs=0.005)


# ------------------------------------------------------------------------------------ oneself


@pytest.mark.parametrize("seed", range(3))
def test_self_agreement_against_loops(seed):
    feedback = random_pairs(seed, n=250, n_items=4, n_raters=4)
    same, seats, against = [], Counter(), []
    answers: dict[tuple, list[str]] = defaultdict(list)
    for row in feedback.judgments.iter_rows(named=True):
        if row["outcome"] in ("cannot_tell", "skipped"):
            continue
        a, b = row["responses"]
        low = (row["outcome"] == "left") == (a < b)
        answers[row["rater"], min(a, b), max(a, b)].append(
            ("low" if low else "high") if row["outcome"] in ("left", "right") else row["outcome"]
        )
    for key, given in answers.items():
        if len(given) > 1:
            seats[key] += 1
            same += [v == w for v, w in combinations(given, 2)]
        decided = [v for v in given if v in ("low", "high")]
        if len(decided) > 1:
            against.append(len(set(decided)) > 1)
    found = {f.code: f for f in check_self_agreement(feedback)}
    assert found["agreement/self"].estimate == pytest.approx(np.mean(same), abs=1e-12)
    assert found["agreement/self"].n == len(seats)
    assert found["rater-consistency"].estimate == pytest.approx(np.mean(against), abs=1e-12)


def test_self_agreement_not_applicable():
    assert check_self_agreement(pairs([("r", "a", "b", "left"), ("s", "a", "b", "left")]))[0].verdict == "not_applicable"
    nobody = Feedback.from_columns({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"]})
    assert check_self_agreement(nobody)[0].verdict == "not_applicable"


def test_two_questions_give_no_interval():
    """A bootstrap over two equal questions would say that there is no doubt at all."""
    judged = Feedback.from_columns(
        {
            "kind": ["pair"] * 8, "prompt": ["p"] * 4 + ["q"] * 4, "texts": [["a", "b"]] * 8,
            "outcome": ["left", "left", "left", "right"] * 2, "rater": ["r1", "r2", "r3", "r4"] * 2,
        }
    )  # fmt: skip
    found = check_agreement(judged)[0]
    assert found.estimate is not None
    assert (found.low, found.high) == (None, None)
    assert "fewer than 10 questions" in str(found.reason)


def test_answers_without_raters_are_said_to_be_taken_as_different_people():
    judged = Feedback.from_columns(
        {
            "kind": ["pair"] * 40,
            "prompt": [f"p{i // 2}" for i in range(40)],
            "texts": [["a", "b"]] * 40,
            "outcome": ["left", "left", "left", "right"] * 10,
        }
    )
    found, ceiling = check_agreement(judged)[0], check_ceiling(judged)
    assert "without a rater id, taken to be by different people" in found.title
    assert "without a rater id" in ceiling.title
    for finding in (found, ceiling):
        assert "each answer is taken to be by a different person" in str(finding.reason)
