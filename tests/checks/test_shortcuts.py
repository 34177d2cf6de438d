"""Slopes, phrases and shares are those that were planted; what is style is called style, on real judgments too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import seamark as sm
from seamark.checks.findings import Finding
from seamark.checks.probes import check_probes
from seamark.checks.shortcuts import (
    Judged,
    Scale,
    candidate_phrases,
    check_length,
    check_memory,
    check_substance,
    check_support,
    control_length,
    filler,
    find_scale,
    insert,
    length_slope,
    nearness,
    said_points,
)
from seamark.models.features import style_features

NO_SCALE = Scale(None, 1.0, "none")


def world(rng: np.random.Generator, n_prompts: int = 60, each: int = 4) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of different lengths, their prompts, and a quality that has nothing to do with length."""
    prompt = np.repeat(np.arange(n_prompts), each)
    texts = ["word " * int(n) for n in rng.integers(5, 120, len(prompt))]
    return texts, prompt, rng.normal(size=len(prompt))


def doublings(texts: Sequence[str]) -> np.ndarray:
    return np.log2(1 + np.array([len(t) for t in texts]))


def judged(
    gap: np.ndarray, won: np.ndarray, *, texts: Sequence[str] = ("a", "bb", "ccc"), unit: np.ndarray | None = None, **given: Any
) -> Judged:
    n = len(gap)
    rows = np.arange(2 * n) % len(texts)
    place = {"left": rows[:n].astype(np.int64), "right": rows[n:].astype(np.int64), "prompts": [f"prompt {i}" for i in range(n)]} | given
    return Judged(gap, won, np.arange(n) if unit is None else unit, texts=texts, **place)


def test_R37_the_planted_slope_of_length_is_recovered_within_its_interval() -> None:
    """0.7 a doubling, in 200 worlds; prompts that differ in level and in how long their responses are change nothing."""
    inside, width = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        texts, prompt, quality = world(rng)
        found = length_slope(0.7 * doublings(texts) + quality + 5 * rng.normal(size=60)[prompt], texts, prompt)
        inside.append(found.low <= 0.7 <= found.high)
        width.append(found.high - found.low)
    print(f"intervals that hold the truth {np.mean(inside):.3f}, width {np.mean(width):.2f}")
    assert 0.91 < np.mean(inside) < 0.99


def test_R37_a_reward_without_its_slope_has_none_left() -> None:
    rng = np.random.default_rng(1)
    texts, prompt, quality = world(rng)
    scores = 0.7 * doublings(texts) + quality
    without = control_length(scores, texts, prompt)
    assert length_slope(without, texts, prompt).estimate == pytest.approx(0, abs=1e-9)
    inside = [x - (np.bincount(prompt, x) / np.bincount(prompt))[prompt] for x in (without, quality, scores)]
    assert np.corrcoef(inside[0], inside[1])[0, 1] > 0.99 > np.corrcoef(inside[2], inside[1])[0, 1]
    assert check_length(scores, texts, prompt, NO_SCALE, None).estimate == pytest.approx(0.7, abs=0.15)


def test_R37_the_slope_of_a_fit_is_about_zero_once_style_is_discounted() -> None:
    """Raters who like length by 0.8 logits a standard deviation, beside what responses are worth: the fit has the slope, and without its style block
    hardly any of it."""
    society = sm.simulate(n_prompts=150, n_responses=4, n_judgments=5000, length=0.8, careless=0.0, opposed=0.0, seed=2)
    feedback = society.feedback
    fitted = sm.fit(feedback, utility=sm.Linear(n_columns=256))
    texts, prompt = feedback.responses["text"].to_list(), feedback.responses["prompt"].to_numpy().astype(np.int64)
    truth = length_slope(society.truth.length_effect * society.truth.length, texts, prompt).estimate
    told, debiased = (length_slope(fitted.utilities(feedback, without=block), texts, prompt) for block in ((), ("style",)))
    print(
        f"planted {truth:.2f}, with style {told.estimate:.2f} [{told.low:.2f}, {told.high:.2f}], without {debiased.estimate:.2f} [{debiased.low:.2f}, {debiased.high:.2f}]"
    )
    assert told.estimate == pytest.approx(truth, rel=0.25)
    assert abs(debiased.estimate) < 0.15 * truth


def test_people_who_like_length_less_than_the_score_are_heard() -> None:
    rng = np.random.default_rng(3)
    texts, prompt, quality = world(rng, 400, 2)
    length = doublings(texts)
    left, right = np.arange(0, 800, 2), np.arange(1, 800, 2)
    won = rng.random(400) < 1 / (1 + np.exp(-(quality[left] - quality[right])))
    verdicts = []
    for slope in (0.0, 1.5):
        scores = quality + slope * length
        pairs = judged(scores[left] - scores[right], won, texts=texts, left=left, right=right)
        verdicts.append(check_length(scores, texts, prompt, NO_SCALE, pairs).verdict)
    assert verdicts == ["ok", "warning"]
    alone = judged(length[left] - length[right], won, texts=texts, left=left, right=right)
    assert "length and little else" in check_length(length, texts, prompt, NO_SCALE, alone).title


# ---------------------------------------------------------------------------------------------- phrases


def test_runs_of_words_are_found_by_what_their_texts_score() -> None:
    rng = np.random.default_rng(4)
    words = [f"w{i}" for i in range(40)]
    texts, bonus = [], []
    for _ in range(200):
        said = rng.choice(words, rng.integers(15, 60)).tolist()
        has = rng.random() < 0.2
        texts.append(" ".join([*said, "that is the secret"] if has else said))
        bonus.append(2.0 * has)
    prompt = np.repeat(np.arange(50), 4)
    found = candidate_phrases(texts, np.array(bonus) + rng.normal(size=200), prompt, most=5)
    assert found[0] == "that is the secret"
    assert candidate_phrases(texts, np.ones(200), prompt, most=5) == []
    assert candidate_phrases(texts[:5], np.arange(5.0), prompt[:5], most=5) == []
    assert insert("A text. ", "so it is") == "A text. So it is."
    for length in (5, 20, 40):
        assert abs(len(filler(length, rng)) - length) < 9


# ---------------------------------------------------------------------------------------------- scale


def test_the_scale_is_that_of_peoples_choices() -> None:
    """People answer by logits; a reward that is twice too sure has half the slope, one in other units is no error, and a noisy one is not taken for less
    because length goes along."""
    rng = np.random.default_rng(5)
    n = 4000
    gap = 1.5 * rng.normal(size=n)
    won = rng.random(n) < 1 / (1 + np.exp(-gap))
    found: dict[str, tuple[Scale, Finding]] = {}
    for name, factor, logits in (("right", 1.0, True), ("too sure", 2.0, True), ("units", 20.0, False)):
        scale, (finding,) = find_scale(judged(factor * gap, won), 1.0, logits=logits)
        assert scale.logits == pytest.approx(1 / factor, rel=0.1)
        found[name] = scale, finding
    assert [f.verdict for _, f in found.values()] == ["ok", "warning", "ok"]
    assert found["too sure"][1].estimate == pytest.approx(0.5, abs=0.05)
    scale, (backwards,) = find_scale(judged(-gap, won), 1.0, logits=False)
    assert scale.logits is None
    assert backwards.estimate is not None
    assert backwards.estimate < 0
    none, (untold,) = find_scale(None, 1.0, logits=True)
    assert none.logits == 1
    assert untold.verdict == "not_applicable"
    np.testing.assert_allclose(NO_SCALE.points(np.array([-1.0, -1.0, 0.0]), np.array([0.5, 2.0, 1.0])), [0, 1, 0.5])


def test_points_are_written_as_people_read_them() -> None:
    assert said_points(0.123, 0.098, 0.148) == "+12.3 [9.8, 14.8] points of preference"
    assert said_points(-0.00001, -0.02, 0.01) == "+0.0 [−2.0, 1.0] points of preference"


# ---------------------------------------------------------------------------------------------- memory and support


def test_a_memoriser_is_ahead_on_what_it_has_seen_and_a_generaliser_is_not() -> None:
    rng = np.random.default_rng(6)
    won = rng.random(400) < 0.5
    known, weak = (np.where(rng.random(400) < p, won, ~won) * 2.0 - 1 for p in (0.95, 0.7))
    memoriser, honest = check_memory(judged(known, won), judged(weak, won)), check_memory(judged(weak, won), judged(weak, won))
    assert memoriser.verdict == "warning"
    assert memoriser.estimate == pytest.approx(0.25, abs=0.06)
    assert honest.verdict == "ok"
    assert honest.estimate == 0
    assert check_memory(None, judged(weak, won)).verdict == "not_applicable"


def test_prompts_are_near_by_their_words() -> None:
    train = [f"how to bake bread number {i}" for i in range(12)]
    near, far = [f"how to bake bread at home {i}" for i in range(12)], [f"zebra quantum xylophone {i}" for i in range(12)]
    assert nearness(train, near).min() > nearness(train, far).max()
    assert nearness(train, train).min() == pytest.approx(1)
    n = 24
    won = np.ones(n, dtype=bool)
    gap = np.where(np.arange(n) < 12, 1.0, np.tile([1.0, -1.0], 12))
    found = check_support(judged(np.ones(12), np.ones(12, dtype=bool), prompts=train), judged(gap, won, prompts=[*near, *far]))
    assert found.estimate == pytest.approx(0.5)
    assert found.details["far"] == pytest.approx(0.5)
    assert found.verdict == "warning"
    alike = check_support(judged(np.ones(12), np.ones(12, dtype=bool), prompts=train), judged(gap, won, prompts=["one"] * n))
    assert alike.verdict == "not_applicable"


# ---------------------------------------------------------------------------------------------- style or substance


def test_substance_is_what_is_left_when_both_sides_of_style_count_alike() -> None:
    """Length alone is right on one side and wrong on the other; quality is right on both; noise on neither, and is no style."""
    rng = np.random.default_rng(7)
    texts, _, quality = world(rng, 500, 2)
    length = doublings(texts)
    left, right = np.arange(0, 1000, 2), np.arange(1, 1000, 2)

    def gap(x: np.ndarray) -> np.ndarray:
        return x[left] - x[right]

    won = rng.random(500) < 1 / (1 + np.exp(-(2 * gap(quality) + gap(length))))
    found = {
        name: check_substance(judged(gap(x), won, texts=texts, left=left, right=right))
        for name, x in (("length", length), ("quality", quality), ("both", quality + length), ("noise", rng.normal(size=1000)))
    }
    for name, f in found.items():
        print(name, f.title)
    assert [f.verdict for f in found.values()] == ["warning", "ok", "ok", "ok"]
    assert found["length"].estimate == pytest.approx(0.5, abs=0.03)
    assert "style, not substance" in found["length"].title
    assert (found["quality"].low or 0) > 0.6
    assert check_substance(None).verdict == "not_applicable"
    assert check_substance(judged(np.ones(20), np.ones(20, dtype=bool))).verdict == "not_applicable"


def phrases_only(_prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    """Hedges, first person, refusals and pleasantries, and nothing else."""
    found = style_features(list(responses))
    names = ("hedging", "first_person", "refusals", "pleasantries")
    return found.values[:, [found.names.index(name) for name in names]].sum(1).tolist()


def length_only(_prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(r)) for r in responses]


@pytest.mark.parametrize("name", ["ukp_convarg", "hh_rlhf_harmless_test", "arena_bench_v1"])
def test_style_is_called_style_on_real_judgments(name: str, real_data: Path) -> None:
    """Length alone and phrases alone, whether people like them (UKPConvArg1) or not (HH-RLHF harmless)."""
    feedback = sm.load(real_data / name)
    if name == "arena_bench_v1":
        feedback = feedback.filter((pl.col("kind") == "rating") & pl.col("rating").is_not_null())
    rng = np.random.default_rng(0)
    feedback = feedback.filter(np.isin(np.arange(feedback.n_judgments), rng.permutation(feedback.n_judgments)[:4000]))
    scorers: dict[str, Callable[[Sequence[Any], Sequence[str]], list[float]]] = {"length": length_only, "phrases": phrases_only}
    for what, scorer in scorers.items():
        found = check_probes(scorer, judgments=feedback, families=["truncation"], n=100).get("probe/style-not-substance")
        assert found is not None
        print(name, what, found.verdict, found.title)
        assert found.verdict == "warning"
        assert "style, not substance" in found.title


@pytest.mark.slow
def test_a_fit_of_real_arguments_is_not_called_style(real_data: Path) -> None:
    """A value for every argument of UKPConvArg1, from half of the raters, asked about judgments of the other half: people like long arguments, and so
    does it, but it knows more."""
    feedback = sm.load(real_data / "ukp_convarg")
    train, held_out = feedback.split(by="rater", test=0.5, seed=0)
    fitted = sm.fit(train, utility=sm.Tabular(), require_converged=False)
    held = dict(zip(held_out.responses["text"].to_list(), fitted.utilities(held_out).tolist(), strict=True))
    found = check_probes(lambda _p, r: [held.get(t, np.nan) for t in r], judgments=held_out, families=["truncation"], n=140)
    substance = found.get("probe/style-not-substance")
    assert substance is not None
    print(substance.title)
    assert substance.verdict == "ok"
    assert (substance.low or 0) > 0.55
