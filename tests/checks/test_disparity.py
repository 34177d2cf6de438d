"""Gaps between groups of people and texts: planted and found, absent and not found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from seamark.checks.disparity import (
    check_against_gold,
    check_blandness,
    check_homogenisation,
    check_matched_pairs,
    check_representation_gap,
    check_trade_offs,
    evasion,
)
from seamark.errors import InvalidSetting
from seamark.models import MultiAxis, Observation, Position, Tabular, fit
from seamark.records import Feedback
from seamark.simulation import Axes, simulate
from tests.checks.sentences import assert_written

PLAIN = Observation(effects=(Position(),), lapse=False)


def test_an_inherited_bias_that_survives_alignment_is_reported():
    """N7: group B is scored .5 lower by the base model, and alignment takes a tenth of that away; C is mended, A was never treated otherwise."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["A", "B", "C"], 120)
    template = np.tile(np.repeat(np.arange(30), 4), 3).astype(str)
    bias = {"A": (0.0, 0.0), "B": (-0.5, -0.45), "C": (-0.5, 0.0)}

    def scores(which: int) -> np.ndarray:
        plain = rng.normal(0, 1, 360)
        return np.stack([plain + np.array([bias[g][which] for g in groups]) + rng.normal(0, 0.2, 360), plain], axis=1)

    found = check_matched_pairs(scores(0), scores(1), groups.tolist(), template=template.tolist())
    assert_written(found)
    rows = {row["group"]: row for row in found.details["groups"]}
    assert {g for g, row in rows.items() if row["inherited"]} == {"B"}
    assert found.verdict == "warning"
    assert rows["B"]["aligned_low"] < -0.45 < rows["B"]["aligned_high"]
    assert rows["C"]["change_low"] > 0.3
    with pytest.raises(InvalidSetting, match="for each of the 360 rows"):
        check_matched_pairs(scores(0), scores(1), ["A"])


def test_matched_pairs_without_bias_are_seldom_named():
    """False discoveries: of 100 societies of four groups without bias, at nominal 5%, no more than 12 name one."""
    rng = np.random.default_rng(1)
    groups = ["a", "b", "c", "d"] * 25
    named = 0
    for _ in range(100):
        plain = rng.normal(size=(100, 2, 2))
        named += check_matched_pairs(plain[:, :, 0], plain[:, :, 1], groups).verdict == "warning"
    assert named <= 12


def test_rank_correlation_shares_ranks_of_ties():
    """N30: the published .849 took ties in arbitrary order and .858 shares their ranks; the file is not ours to have, so ties are planted."""
    rng = np.random.default_rng(2)
    level = np.repeat([f"country {i:02}" for i in range(21)], 30)
    truth = rng.normal(size=21)
    scores = np.repeat(truth, 30) + rng.normal(0, 0.1, 630)
    reference = {f"country {i:02}": float(np.round(truth[i])) for i in range(21)}
    found = check_representation_gap(scores, level.tolist(), by="country", reference=reference)
    assert_written(found)
    means = scores.reshape(21, 30).mean(1)
    ranks = rankdata(means), rankdata(list(reference.values()))
    assert found.details["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    arbitrary = np.corrcoef(ranks[0], np.argsort(np.argsort(list(reference.values()), kind="stable")) + 1)[0, 1]
    assert abs(found.details["spearman"] - arbitrary) > 1e-3
    assert found.estimate == pytest.approx(np.ptp(means))
    assert found.verdict == "notice"
    assert check_representation_gap(scores, ["one"] * 630, by="country").verdict == "not_applicable"


def test_a_slice_with_its_sign_flipped_is_found():
    """R36: of four kinds of probes, one is answered the wrong way round."""
    rng = np.random.default_rng(3)
    kind = np.repeat(["code", "maths", "safety", "prose"], 60)
    gap = rng.normal(0.8, 1, 240) * np.where(kind == "safety", -1, 1)
    found = check_against_gold(gap, kind.tolist())
    assert_written(found)
    assert found.verdict == "blocking"
    assert [row["slice"] for row in found.details["slices"] if row["q"] <= 0.05] == ["safety"]
    assert check_against_gold(np.abs(gap), kind.tolist()).verdict == "ok"
    assert check_against_gold(np.zeros(4), ["a"] * 4).verdict == "not_applicable"


HEDGES = [
    "Perhaps it might be possible that it could rain, but I think it may depend on several things, and it is hard to say.",
    "It could perhaps be argued either way; it might possibly depend, and I think there may be several views on this.",
    "I cannot answer that. As an AI, I am not able to say, though perhaps it may depend on what you mean.",
]
COMMITTED = [
    "It will rain tomorrow from eight in the morning until noon, so take a coat and leave the bicycle at home.",
    "The first argument is wrong: the tax raised prices by four per cent, and wages did not follow for two years.",
    "Use the second method. It is faster, it needs half the memory, and its error is below one part in a thousand.",
]


def test_hedges_are_ranked_above_committed_answers():
    """R63: every planted hedge is more evasive than every committed answer."""
    score = evasion(HEDGES + COMMITTED)
    assert score[:3].min() > score[3:].max()


def test_blandness_of_what_is_chosen():
    """R63: a reward that chooses hedges is found, and one that chooses committed answers is not."""
    rng = np.random.default_rng(4)
    texts, chosen, prompt = [], [], []
    for p in range(12):
        texts += [HEDGES[p % 3], COMMITTED[rng.integers(3)]]
        chosen += [True, False]
        prompt += [p, p]
    found = check_blandness(texts, np.array(chosen), np.array(prompt))
    assert_written(found)
    assert found.verdict == "notice"
    assert found.low > 0
    assert check_blandness(texts, ~np.array(chosen), np.array(prompt)).verdict == "ok"
    assert check_blandness(texts, np.ones(24, dtype=bool), np.array(prompt)).verdict == "not_applicable"


def test_homogenisation_is_measured_before_and_after():
    """R31: a mode-seeking policy answers with fewer responses, and serves fewer groups."""
    rng = np.random.default_rng(5)
    utilities = rng.normal(size=(100, 3, 6))
    before = np.full((100, 6), 1 / 6)
    after = np.exp(4 * utilities[:, 0])
    after /= after.sum(1, keepdims=True)
    found = check_homogenisation(before, after, utilities)
    assert_written(found)
    assert found.verdict == "notice"
    assert found.details["before"] == pytest.approx(6)
    assert found.high < 0
    assert found.details["groups_served"]["before"] > found.details["groups_served"]["after"]
    assert check_homogenisation(before, before).verdict == "ok"


def test_a_switch_of_the_balance_between_contexts_is_recovered():
    """R32: at work helpful counts and harmless does not; at leisure the other way round."""
    society = simulate(n_prompts=60, n_judgments=6000, axes=Axes(("helpful", "harmless"), deviation=1.0), careless=0.0, opposed=0.0, seed=6)
    result = fit(society.feedback, utility=MultiAxis(Tabular()), observation=PLAIN)
    feedback = society.feedback
    rng = np.random.default_rng(7)
    value = {axis: result.utilities(feedback, at={"axis": axis}) for axis in ("helpful", "harmless")}
    prompt = feedback.responses["prompt"].to_numpy()
    text, name = feedback.responses["text"].to_list(), feedback.prompts["text"].to_list()
    columns: dict[str, list[object]] = {"kind": [], "prompt": [], "texts": [], "outcome": [], "pair_type": []}
    for _ in range(1500):
        a = int(rng.integers(len(text)))
        b = int(rng.choice(np.flatnonzero((prompt == prompt[a]) & (np.arange(len(text)) != a))))
        context = str(rng.choice(["work", "leisure"]))
        counted = value["helpful" if context == "work" else "harmless"]
        left = rng.random() < 1 / (1 + np.exp(-(counted[a] - counted[b])))
        row = ("pair", name[int(prompt[a])], [text[a], text[b]], "left" if left else "right", context)
        for key, item in zip(columns, row, strict=True):
            columns[key].append(item)
    overall = Feedback.from_columns(columns)
    found = check_trade_offs(result, overall, by="pair_type")
    assert_written(found)
    rows = {row["context"]: row for row in found.details["contexts"]}
    for context, counts, other in (("work", "helpful", "harmless"), ("leisure", "harmless", "helpful")):
        assert rows[context][counts]["low"] < 1.0 < rows[context][counts]["high"] + 0.15
        assert rows[context][other]["low"] < 0.1
        assert rows[context][other]["high"] > -0.1
    assert found.verdict == "notice"
    with pytest.raises(InvalidSetting, match="Use a field"):
        check_trade_offs(result, overall, by="mood")
    with pytest.raises(InvalidSetting, match="MultiAxis"):
        check_trade_offs(fit(feedback, utility=Tabular(), observation=PLAIN), overall, by="pair_type")


def test_scores_that_are_not_there_are_left_out_and_counted():
    """An abstention prefers nothing: it is no error of the reward."""
    gap = np.array([np.nan] * 8 + [1.0, 2.0])
    found = check_against_gold(gap, ["a"] * 10)
    assert (found.verdict, found.n) == ("ok", 2)
    assert "8 probes without a finite score" in found.reason
    silent = check_against_gold(np.array([1.0, 2.0, np.nan, np.nan]), ["a", "a", "b", "b"])
    assert silent.verdict == "notice"
    assert silent.title.endswith("Nothing can be told of b.")
    assert check_against_gold(np.full(3, np.nan), ["a"] * 3).verdict == "not_applicable"
    levels = ["x"] * 6 + ["y"] * 6
    scores = np.array([0.0, 1, 2, 3, 4, np.nan] * 2)
    assert "2 rows without a finite score" in check_representation_gap(scores, levels, by="language").reason
    nothing = np.zeros((0, 2))
    assert check_matched_pairs(nothing, nothing, []).verdict == "not_applicable"
    few = np.ones((2, 2))
    assert check_matched_pairs(few, few, ["a", "a"]).verdict == "not_applicable"


def test_the_largest_of_many_gaps_is_not_a_notice_by_itself():
    """Twenty levels of noise: their range is large, and permuting levels says so."""
    rng = np.random.default_rng(9)
    levels = [f"l{i}" for i in range(20) for _ in range(20)]
    noticed = sum(check_representation_gap(rng.normal(size=400), levels, by="level").verdict == "notice" for _ in range(20))
    assert noticed <= 4


def test_pairs_and_levels_without_a_name_are_counted_and_the_level_that_is_lost_is_named():
    rng = np.random.default_rng(10)
    base, aligned = rng.normal(size=(2, 40, 2))
    groups = ["a"] * 20 + ["b"] * 20
    base[20:] = np.nan
    found = check_matched_pairs(base, aligned, groups)
    assert_written(found)
    assert "20 pairs of 40 could not be used. Nothing can be told of b." in found.title
    nobody = check_matched_pairs(aligned, aligned, [None] * 40)
    assert nobody.verdict == "not_applicable"
    assert "40 pairs of 40" in nobody.reason
    with pytest.raises(InvalidSetting, match=r"shape of aligned is \(40, 3\)"):
        check_matched_pairs(base, np.zeros((40, 3)), groups)
    with pytest.raises(InvalidSetting, match=r"base is .* Give an array of numbers with 2 axes"):
        check_matched_pairs([["x", "y"]], aligned, groups)
    levels = ["x", "x", "y", "y", None, "z"]
    gap = check_representation_gap(np.array([0.0, 1, 2, 3, 4, np.nan]), levels, by="country")
    assert_written(gap)
    assert gap.title.startswith("Of 2 levels of country, y is scored 2.00 above x")
    assert gap.title.endswith("Nothing can be told of z.")
    assert "2 rows without" in gap.reason
    assert check_representation_gap(np.full(6, np.nan), levels, by="country").reason == "No row has a finite score and a level."


def test_a_reference_that_names_other_levels_is_an_error_and_too_few_are_said():
    scores, levels = np.arange(6.0), list("xxyyzz")
    with pytest.raises(InvalidSetting, match="names no country that is scored, such as x, y, z"):
        check_representation_gap(scores, levels, by="country", reference={"q": 1.0})
    with pytest.raises(InvalidSetting, match="reference of 'x' is nan"):
        check_representation_gap(scores, levels, by="country", reference={"x": np.nan})
    for reference in ({"x": 1.0, "q": 2.0}, {"x": 1.0, "y": 1.0, "z": 1.0}):
        found = check_representation_gap(scores, levels, by="country", reference=reference)
        assert (
            f"No rank correlation: the reference has {len(set(reference) & set('xyz'))} of them, and it takes 3 that differ." in found.title
        )


def test_blandness_is_of_english():
    """Its phrases are English: of German it cannot say that nothing hedges, nor of texts without any phrase that it knows."""
    german = ["Das kommt darauf an, vielleicht ist es so, vielleicht auch nicht.", "Nimm den Hammer und schlag zweimal auf den Nagel."] * 10
    chosen, prompt = np.array([True, False] * 10), np.repeat(np.arange(10), 2)
    found = check_blandness(german, chosen, prompt)
    assert found.verdict == "not_applicable"
    assert "phrases are English" in found.reason
    assert check_blandness(COMMITTED[:2] * 10, chosen, prompt).verdict == "not_applicable"
    english = check_blandness([HEDGES[0], COMMITTED[0]] * 9 + [None, COMMITTED[0]], chosen, prompt)
    assert "English hedges" in english.reason
    assert "1 response without text or prompt left out" in english.reason
    assert english.n == 9
    with pytest.raises(InvalidSetting, match="True or False for each of the 20 texts"):
        check_blandness(german, np.ones(20), prompt)


def test_probabilities_that_are_none_are_refused_and_what_is_not_known_is_counted():
    even, sharp = np.full((8, 4), 0.25), np.tile([0.97, 0.01, 0.01, 0.01], (8, 1))
    with pytest.raises(InvalidSetting, match=r"before\[0\] is .* these sum to 2"):
        check_homogenisation(2 * even, sharp)
    with pytest.raises(InvalidSetting, match="shape of after"):
        check_homogenisation(even, sharp[:2])
    assert check_homogenisation(np.full((8, 4), np.nan), sharp).verdict == "not_applicable"
    sharp[3, 0] = np.nan
    found = check_homogenisation(even, sharp, np.random.default_rng(0).normal(size=(8, 2, 4)))
    assert_written(found)
    assert found.n == 7
    assert found.title.endswith("1 prompt of 8 had a probability that is not known, and is left out.")
