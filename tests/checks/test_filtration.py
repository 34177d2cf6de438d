"""A wider range explains more, and less reliable rewards are another matter: what filtering by reward does is told apart from what it seems to do."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats

from seamark.checks.filtration import _alike, check_filtration, kept, r_squared
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.reward import Pool
from seamark.reward.controls import KEEPS, follow


def get(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None
    return finding


def reliable_at_the_ends(seed: int, *, n_prompts: int = 200, m: int = 16) -> Pool:
    """Gold is the reward with noise: sd 1.3 where the reward lies within one standard deviation of its mean, .3 beyond."""
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(n_prompts, m))
    gold = reward + rng.normal(size=reward.shape) * np.where(np.abs(reward) < 1, 1.3, 0.3)
    return Pool.of(np.repeat(np.arange(n_prompts), m), reward.ravel(), gold.ravel())


def alike_everywhere(seed: int, *, n_prompts: int = 400, m: int = 5) -> Pool:
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=(n_prompts, m))
    return Pool.of(np.repeat(np.arange(n_prompts), m), (gold + rng.normal(size=gold.shape)).ravel(), gold.ravel())


def test_N12_r_squared_rises_on_what_is_kept_and_says_why() -> None:
    """Rewards that are reliable at both ends: R squared rises from all to best and worst, what is left unexplained is less there, and the middle fifth is named. Where the noise is the
    same everywhere R squared rises too (.50 all, .30 best, .52 best and random, .64 best and worst of 5), and it is said that this is the range."""
    found = check_filtration(reliable_at_the_ends(0))
    rows = {row["keep"]: row for row in get(found, "filtration").details["keeps"]}
    assert rows["best-worst"]["low"] > rows["all"]["high"]
    assert rows["best-worst"]["spread_high"] < 1
    assert "more reliable there" in get(found, "filtration").title
    reliability = get(found, "filtration/reliability")
    assert reliability.verdict == "notice"
    assert int(np.argmax([f["sd"] for f in reliability.details["fifths"]])) in (1, 2, 3)
    even = check_filtration(alike_everywhere(0))
    rows = {row["keep"]: row["r_squared"] for row in get(even, "filtration").details["keeps"]}
    assert rows == pytest.approx({"all": 0.50, "best": 0.30, "best-random": 0.52, "best-worst": 0.64}, abs=0.035)
    assert "the wider range" in get(even, "filtration").title
    assert r_squared([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    pool = alike_everywhere(1)
    assert kept(pool, "best-worst").sum() == pool.n_prompts


def test_fifths_keep_their_numbers_and_nothing_is_said_that_is_not_a_number() -> None:
    """Half of all rewards are tied below the others: two of the fifths are empty, and the noise that was planted at the top is in the fifth."""
    rng = np.random.default_rng(0)
    proxy = np.where(np.arange(600) % 2, rng.uniform(1, 2, 600), 0.0)
    prompt = np.repeat(np.arange(150), 4)
    found = get(
        check_filtration(Pool.of(prompt, proxy, proxy + rng.normal(size=600) * np.where(proxy > 1.8, 3, 0.3))), "filtration/reliability"
    )
    assert [row["fifth"] for row in found.details["fifths"]] == [3, 4, 5]
    assert [row["n"] for row in found.details["fifths"]] == [360, 120, 120]
    assert "of fifth 5 (1 the lowest)" in found.title
    perfect = check_filtration(Pool.of(prompt, rng.permutation(600), np.zeros(600) + proxy))
    same = check_filtration(Pool.of(prompt, proxy, proxy))
    stepped = check_filtration(Pool.of(prompt, proxy, np.where(proxy > 1.8, rng.normal(size=600), proxy)))
    tied = check_filtration(Pool.of(prompt, (np.arange(600) == 3) * 1.0, proxy))
    binary = check_filtration(Pool.of(prompt, np.arange(600) % 2, rng.normal(size=600)))
    for each in (perfect, same, stepped, tied, binary):
        assert "nan" not in json.dumps([f.to_dict() for f in each], allow_nan=False)
    assert get(same, "filtration/reliability").title.startswith("Gold does not spread about the rewards in any fifth (p = 1)")
    assert "and not at all in fifth 3" in get(stepped, "filtration/reliability").title
    assert get(stepped, "filtration/reliability").verdict == "notice"
    assert get(tied, "filtration/reliability").verdict == "not_applicable"


def test_responses_to_one_prompt_are_not_taken_for_so_many_proofs() -> None:
    """Noise whose size is that of the prompt, and rewards that are the prompt's: of 40 pools about 5% are said to differ, by responses alone nearly all."""
    said: list[list[bool]] = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        prompt = np.repeat(np.arange(60), 8)
        proxy = rng.normal(size=60)[prompt] + 0.01 * rng.normal(size=480)
        residual = np.exp(rng.normal(size=60))[prompt] * rng.normal(size=480)
        part = np.searchsorted(np.quantile(proxy, [0.2, 0.4, 0.6, 0.8]), proxy)
        alone = stats.levene(*(residual[part == k] for k in range(5)), center="median").pvalue
        said.append([_alike(residual, part, prompt) < 0.05, alone < 0.05])
    print(np.mean(said, axis=0))
    assert np.mean(said, axis=0)[0] < 0.15
    assert np.mean(said, axis=0)[1] > 0.5


@pytest.mark.slow
def test_the_test_of_reliability_keeps_its_level() -> None:
    """Of 60 pools whose noise is alike everywhere, about 5% are said to differ."""
    said = [get(check_filtration(alike_everywhere(seed, n_prompts=60)), "filtration/reliability").verdict == "notice" for seed in range(60)]
    print(np.mean(said))
    assert np.mean(said) < 0.13


@pytest.mark.slow
def test_N12_what_a_policy_makes_of_filtered_responses() -> None:
    """Policy gradient for 100 steps on rewards that are reliable at both ends, 8 seeds, gold at the end. Learning from the best alone is clearly worse than from all, best and worst clearly
    better, by little; best and random lies between best and all or at all: the filters change the size of a step more than they change what is learnt."""
    gold = {keep: np.array([follow(reliable_at_the_ends(s), keep=keep, steps=100, seed=s).gold[-1] for s in range(8)]) for keep in KEEPS}
    gaps = {keep: gold[keep] - gold["all"] for keep in KEEPS}
    print(
        {
            keep: (float(gold[keep].mean().round(3)), float(gap.mean().round(3)), float((gap.std(ddof=1) / np.sqrt(8)).round(3)))
            for keep, gap in gaps.items()
        }
    )
    t = {keep: gap.mean() / (gap.std(ddof=1) / np.sqrt(8)) for keep, gap in gaps.items() if keep != "all"}
    assert t["best"] < -3
    assert t["best-worst"] > 2
    assert gold["best"].mean() < gold["best-random"].mean()


def test_shares_of_variance_are_those_of_the_draws_written_out() -> None:
    """Every way to keep one of three responses to each of four prompts, with its probability: the weighted R squared is that of this long list."""
    rng = np.random.default_rng(5)
    proxy, gold = rng.normal(size=(2, 12))
    pool = Pool.of(np.repeat(np.arange(4), 3), proxy, gold)
    order = {"all": (1 / 3, 1 / 3, 1 / 3), "best": (1, 0, 0), "best-random": (0.5, 0.25, 0.25), "best-worst": (0.5, 0, 0.5)}
    for keep in KEEPS:
        rows, weights = [], []
        for places in product(range(3), repeat=4):
            for prompt, place in enumerate(places):
                mine = np.arange(3 * prompt, 3 * prompt + 3)
                rows.append(mine[np.argsort(-proxy[mine])[place]])
                weights.append(np.prod([order[keep][k] for k in places]))
        w = np.array(weights)
        covariance = np.cov(proxy[rows], gold[rows], aweights=w, ddof=0)
        naive = covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1])
        assert r_squared(proxy, gold, kept(pool, keep)) == pytest.approx(naive)
    assert np.isnan(r_squared(np.ones(12), gold))


def test_what_does_not_vary_is_refused_and_few_prompts_have_no_interval() -> None:
    gold = np.random.default_rng(6).normal(size=60)
    with pytest.raises(InvalidSetting, match="must vary"):
        check_filtration(Pool.of(np.repeat(np.arange(20), 3), np.ones(60), gold))
    few = check_filtration(Pool.of(np.repeat(np.arange(19), 3), gold[:57], gold[:57]))
    assert [f.verdict for f in few] == ["not_applicable"] * 2
    assert "There are 19 prompts; an interval takes 20." in (few[0].reason or "")
