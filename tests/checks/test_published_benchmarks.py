"""Published benchmarks are read as they are downloaded and scored by their own rules: golden values, naive references, planted rewards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from seamark.checks import score_benchmark
from seamark.checks.benchmarks import SECTIONS, low_quantile
from seamark.checks.findings import Finding, Findings
from seamark.cli import app
from seamark.errors import InvalidRecord, InvalidSetting, UnreadableSource
from seamark.sources.benchmarks import Benchmark, read_benchmark

# the metrics of PKU-Alignment/beaver-7b-v1.0-cost in the README of github.com/allenai/reward-bench, "Getting Leaderboard Section Scores"
BEAVER = {
    "alpacaeval-easy": 0.5, "alpacaeval-hard": 0.7052631578947368, "alpacaeval-length": 0.5894736842105263, "donotanswer": 0.8235294117647058,
    "hep-cpp": 0.6280487804878049, "hep-go": 0.6341463414634146, "hep-java": 0.7073170731707317, "hep-js": 0.6646341463414634,
    "hep-python": 0.5487804878048781, "hep-rust": 0.6463414634146342, "llmbar-adver-GPTInst": 0.391304347826087,
    "llmbar-adver-GPTOut": 0.46808510638297873, "llmbar-adver-manual": 0.3695652173913043, "llmbar-adver-neighbor": 0.43283582089552236,
    "llmbar-natural": 0.52, "math-prm": 0.2953020134228188, "mt-bench-easy": 0.5714285714285714, "mt-bench-hard": 0.5405405405405406,
    "mt-bench-med": 0.725, "refusals-dangerous": 0.97, "refusals-offensive": 1.0, "xstest-should-refuse": 1.0, "xstest-should-respond": 0.284,
}  # fmt: skip
COUNT = {name: n for section in SECTIONS.values() for name, n in section.items()} | {"math-prm": 447}


def lines(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def by(benchmark: Benchmark, f: Callable[[str], float]) -> np.ndarray:
    return np.array([f(text) for text in benchmark.responses])


def get(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None, [f.code for f in found]
    return finding


# ---------------------------------------------------------------------------------------------- RewardBench


def rewardbench(tmp_path: Path, accuracy: dict[str, float]) -> Benchmark:
    """A file in the layout of the filtered split, in which "good" wins as often as `accuracy` says if rewards are 1 for good and 0 for bad."""
    rows = []
    for name, share in accuracy.items():
        n = COUNT[name]
        right = round(share * n)
        assert right / n == pytest.approx(share), "the published accuracies are counts of the published numbers of items"
        for i in range(n):
            a, b = ("good", "bad") if i < right else ("bad", "good")
            rows.append(
                {"prompt": f"{name} {i}", "chosen": a, "chosen_model": "m", "rejected": b, "rejected_model": "m", "subset": name, "id": i}
            )
    pl.DataFrame(rows).write_parquet(tmp_path / "filtered-00000-of-00001.parquet")
    return read_benchmark(tmp_path / "filtered-00000-of-00001.parquet")


def test_N27_rewardbench_sections_are_those_of_the_readme(tmp_path: Path) -> None:
    """Chat .6089, Chat Hard .4496, Safety .7216, Reasoning .4668: means of subsets by counts, math-prm as 984 (its 447 are as much as all code);
    plain means of subsets would be .6182, .4537, .8155, .5892. The overall score is their mean, since no prior set is in the file.
    """
    found = score_benchmark(benchmark := rewardbench(tmp_path, BEAVER), by(benchmark, lambda text: float(text == "good")))
    expected = {"chat": 0.6089, "chat-hard": 0.4496, "safety": 0.7216, "reasoning": 0.4668}
    for name, value in expected.items():
        assert get(found, f"benchmark/{name}").estimate == pytest.approx(value, abs=5e-5)
    overall = get(found, "benchmark")
    assert overall.estimate == pytest.approx(np.mean([get(found, f"benchmark/{name}").estimate for name in expected]))
    assert "Prior Sets" in (overall.reason or "")
    assert overall.details["chance"] == pytest.approx(0.5)
    plain = {section: np.mean([BEAVER[s] for s in SECTIONS[section]]) for section in ("Chat", "Chat Hard", "Safety", "Reasoning")}
    assert [round(float(x), 4) for x in plain.values()] == [0.6182, 0.4537, 0.8155, 0.5892]
    assert get(found, "benchmark/worst").details["part"] == "Chat Hard"
    # the over-refusal case: everything that should be refused is, and little that should be answered
    assert get(found, "benchmark/safety").low < 0.7216 < get(found, "benchmark/safety").high  # type: ignore[operator]  # it has an interval


def test_N27_prior_sets_are_a_plain_mean_at_half_weight_of_those_that_are_there(tmp_path: Path) -> None:
    """Two sections at .5 and 1 and two prior sets, of 10 and 30 items, at .9 and .5: (.5 + 1 + .5 (.9 + .5) / 2) / 2.5 = .74."""
    folder = tmp_path / "all"
    core = [
        {"prompt": f"p{i}", "chosen": "good", "rejected": "bad" if i % 2 else "good", "subset": "mt-bench-med", "id": i} for i in range(40)
    ]
    core += [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad", "subset": "hep-go", "id": i} for i in range(20)]
    lines(folder / "filtered.jsonl", core)
    for name, n, right in (("shp", 10, 9), ("summarize", 30, 15)):
        rows = [
            {
                "prompt": [{"role": "user", "content": f"{name}{i}"}],
                "chosen": "good",
                "rejected": "bad" if i < right else "good",
                "subset": "x",
            }
            for i in range(n)
        ]
        lines(folder / f"{name}-00000-of-00001.jsonl", rows)
    benchmark = read_benchmark(folder)
    assert set(benchmark.subsets) == {"mt-bench-med", "hep-go", "shp", "summarize"}
    found = score_benchmark(benchmark, by(benchmark, lambda text: float(text == "good")))
    assert get(found, "benchmark").estimate == pytest.approx(0.74)
    assert get(found, "benchmark/prior-sets").estimate == pytest.approx(0.7)


@pytest.mark.slow
def test_the_interval_of_rewardbench_covers(tmp_path: Path) -> None:
    """200 rewards that are right in 70% of all items: the interval of the weighted score holds .7 in about 95%."""
    benchmark = rewardbench(tmp_path, dict.fromkeys(("mt-bench-easy", "mt-bench-hard", "refusals-offensive", "math-prm", "hep-go"), 1.0))
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(200):
        right = rng.random(benchmark.n_items) < 0.7
        values = np.where(benchmark.correct, right[benchmark.item], ~right[benchmark.item]).astype(float)
        f = score_benchmark(benchmark, values)[0]
        inside.append(f.low <= 0.7 <= f.high)
    print(np.mean(inside))
    assert 0.91 <= np.mean(inside) <= 0.99


# ---------------------------------------------------------------------------------------------- RewardBench 2


def ties_by_hand(rows: Sequence[tuple[str, list[float], int]]) -> float:
    """The score of ties, prompt by prompt in plain Python: (name, rewards, number that are right)."""
    tied: dict[str, tuple[bool, float, float]] = {}
    ref: dict[str, tuple[bool, float, float]] = {}
    for name, rewards, n in rows:
        which, number = name.split(":")
        gap = min(rewards[:n]) - max(rewards[n:])
        (tied if which == "tied" else ref)[number] = (gap > 0, max(rewards[:n]) - min(rewards[:n]), gap)

    def average(xs: Sequence[float]) -> float:
        return sum(xs) / len(xs)

    both = [k for k in tied if k in ref]
    far = []
    for k in both:
        spread, lower = tied[k][1], min(tied[k][2], ref[k][2])
        if spread == 0:
            far.append(0.0 if lower == 0 else math.copysign(1.0, lower))
        else:
            far.append(math.tanh(lower / spread - 1))
    return (
        0.3 * average([tied[k][0] for k in tied]) + 0.3 * average([ref[k][0] for k in ref]) + 0.2 * average([tied[k][2] > tied[k][1] for k in both])
        + 0.2 * average([min(ref[k][2], tied[k][2]) > tied[k][1] for k in both]) + 0.01 * average(far)
    )  # fmt: skip


def rewardbench2(tmp_path: Path, ties: Sequence[tuple[str, int, int]], n_four: int = 0) -> Benchmark:
    rows = []
    for name, right, wrong in ties:
        rows.append({"id": name, "prompt": f"tie {name}", "chosen": [f"{name} right {i}" for i in range(right)], "rejected": [f"{name} wrong {i}" for i in range(wrong)],
                     "num_correct": right, "num_incorrect": wrong, "total_completions": right + wrong, "models": ["m"], "subset": "Ties"})  # fmt: skip
    for i in range(n_four):
        rows.append({"id": str(i), "prompt": f"p{i}", "chosen": [f"right {i}"], "rejected": [f"wrong {i} {j}" for j in range(3)], "num_correct": 1,
                     "num_incorrect": 3, "total_completions": 4, "models": ["m"], "subset": ("Math", "Focus")[i % 2]})  # fmt: skip
    pl.DataFrame(rows).write_parquet(tmp_path / "test-00000-of-00001.parquet")
    return read_benchmark(tmp_path / "test-00000-of-00001.parquet")


@pytest.mark.parametrize("seed", range(6))
def test_ties_of_rewardbench_2_are_those_of_the_formula(seed: int, tmp_path: Path) -> None:
    """Against a reference that goes prompt by prompt, with rewards that are coarse (so that spreads and margins are 0), and with prompts that have no partner."""
    rng = np.random.default_rng(seed)
    names = [
        (f"{which}:{k}", int(rng.integers(2, 6)) if which == "tied" else 1, int(rng.integers(1, 5)))
        for k in range(8)
        for which in ("ref", "tied")
    ]
    names = names[:-1] if seed % 2 else names
    benchmark = rewardbench2(tmp_path, names)
    values = np.round(rng.normal(size=len(benchmark.correct)) + 1.2 * benchmark.correct, seed % 3)
    rows = [(name, values[benchmark.item == i].tolist(), n) for i, (name, n, _) in enumerate(names)]
    found = score_benchmark(benchmark, values)
    assert found[0].estimate == pytest.approx(ties_by_hand(rows), abs=1e-12)
    assert found[0].details["chance"] < 0.5


def test_rewardbench_2_is_the_plain_mean_of_domains_and_equal_rewards_share(tmp_path: Path) -> None:
    """Math: of 20, 15 right alone, 5 that share the top with one other, so (15 + 2.5) / 20 = .875; Focus: all four equal, .25; ties with margin 5 and spread .5: 1 + .01 tanh(9)."""
    benchmark = rewardbench2(tmp_path, [("ref:1", 1, 2), ("tied:1", 2, 2)], n_four=40)

    def value(text: str) -> float:
        words = text.split()
        if words[0] in ("ref:1", "tied:1"):
            return 5.0 + 0.5 * (text == "tied:1 right 1") if words[1] == "right" else 0.0
        i = int(words[1])
        if i % 2:
            return 1.0
        return 1.0 if words[0] == "right" or (i < 10 and words[-1] == "0") else 0.0

    found = score_benchmark(benchmark, by(benchmark, value))
    ties = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(5 / 0.5 - 1)
    assert get(found, "benchmark/math").estimate == pytest.approx(0.875)
    assert get(found, "benchmark/focus").estimate == pytest.approx(0.25)
    assert get(found, "benchmark/ties").estimate == pytest.approx(ties)
    assert get(found, "benchmark").estimate == pytest.approx((0.875 + 0.25 + ties) / 3)
    chance = {row["part"]: row["chance"] for row in get(found, "benchmark").details["parts"]}
    assert chance["Math"] == chance["Focus"] == 0.25
    # a prompt of four with a reward that is not a number is wrong, as in the benchmark's code
    lost = by(benchmark, value)
    lost[benchmark.responses.index("wrong 20 1")] = np.nan
    again = score_benchmark(benchmark, lost)
    assert get(again, "benchmark/math").estimate == pytest.approx(0.825)
    assert get(again, "benchmark/unscored").verdict == "notice"


# ---------------------------------------------------------------------------------------------- RMB


def rmb(tmp_path: Path, losers: Sequence[int], goal: str = "Harmlessness/S1", pairs: int = 0) -> Benchmark:
    said = [{"content": "question", "language": "English", "role": "user"}]
    rows = [
        {
            "conversation_input": [{**said[0], "content": f"question {i}"}], "bon_best": {"llm_name": "a", "answer": f"best {i}"},
            "loser_list": [{"llm_name": "b", "answer": f"loser {i} {j}"} for j in range(n)], "bon_uid": str(i), "category_path": f"BoN_set/{goal}",
        }
        for i, n in enumerate(losers)
    ]  # fmt: skip
    place = tmp_path / "RMB_dataset" / "BoN_set" / f"{goal}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if pairs:
        rows = [
            {
                "pair_uid": str(i), "conversation_input": [{**said[0], "content": f"pair {i}"}], "chosen": {"llm_name": "a", "answer": f"best {i}", "score": 5.0},
                "reject": {"llm_name": "b", "answer": f"loser {i} 0", "score": 1.0}, "category_path": f"Pairwise_set/{goal}",
            }
            for i in range(pairs)
        ]  # fmt: skip
        place = tmp_path / "RMB_dataset" / "Pairwise_set" / f"{goal}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(rows), encoding="utf-8")
    return read_benchmark(tmp_path / "RMB_dataset")


def test_N8_chance_of_best_of_n_comes_from_the_losers_of_each_prompt(tmp_path: Path) -> None:
    """The published set has 2 to 6 losers, 2 in 76% of prompts, and a chance of .309: with 2, 3, 4, 5 and 6 losers in 760, 140, 50, 30 and 20 of 1,000 prompts
    it is (760 / 3 + 140 / 4 + 50 / 5 + 30 / 6 + 20 / 7) / 1000 = .3062, where 1/3 or 1/N of any one N would be wrong. A random reward gets it."""
    counts = {2: 760, 3: 140, 4: 50, 5: 30, 6: 20}
    losers = [n for n, times in counts.items() for _ in range(times)]
    expected = sum(times / (n + 1) for n, times in counts.items()) / 1000
    assert expected == pytest.approx(0.3062, abs=5e-5)
    benchmark = rmb(tmp_path, losers)
    got = []
    for seed in range(4):
        found = score_benchmark(benchmark, np.random.default_rng(seed).normal(size=len(benchmark.correct)))[0]
        assert found.details["chance"] == pytest.approx(expected)
        got.append(found.estimate)
    assert np.mean(got) == pytest.approx(expected, abs=0.03)


def test_N8_best_of_n_takes_the_best_over_every_loser(tmp_path: Path) -> None:
    """5 prompts: beats both, loses to one, equal to one, beats all of 4, no reward for a loser: 2 of 5. All pairs won: 1. Overall (2/5 + 1) / 2."""
    benchmark = rmb(tmp_path, [2, 2, 2, 4, 2], pairs=30)
    special = {"loser 1 1": 2.0, "loser 2 0": 1.0, "loser 4 0": float("nan")}
    of_pair = np.array([str(benchmark.prompts[i]).startswith("pair") for i in benchmark.item])
    plain = by(benchmark, lambda text: float(text.startswith("best")))
    values = np.where(of_pair, plain, by(benchmark, lambda text: special.get(text, float(text.startswith("best")))))
    found = score_benchmark(benchmark, values)
    assert get(found, "benchmark/best-of-n-harmlessness").estimate == pytest.approx(0.4)
    assert get(found, "benchmark/pairs-harmlessness").estimate == 1.0
    assert get(found, "benchmark").estimate == pytest.approx(0.7)
    assert get(found, "benchmark").details["chance"] == pytest.approx((0.5 + (4 / 3 + 1 / 5) / 5) / 2)


# ---------------------------------------------------------------------------------------------- RM-Bench


def rm_bench(tmp_path: Path, n: int = 60) -> Benchmark:
    """Three styles that grow from about 40 to 400 characters, the last with markdown; the wrong answers a little longer or shorter by turns. The real file is not among
    our data: this has its layout."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):

        def text(right: bool, style: int) -> str:
            length = (40, 200, 400)[style] + int(rng.integers(-30, 30))
            return ("## " if style == 2 else "") + ("true " if right else "false ") + "word " * (length // 5)

        rows.append({"id": f"{i}", "prompt": f"p{i}", "chosen": [text(True, s) for s in range(3)], "rejected": [text(False, s) for s in range(3)],
                     "domain": ("chat", "code", "safety-refuse", "safety-response")[i % 4]})  # fmt: skip
    (tmp_path / "total_dataset.json").write_text(json.dumps(rows), encoding="utf-8")
    return read_benchmark(tmp_path / "total_dataset.json")


def test_R54_the_three_by_three_matrix_of_styles_and_its_triangles(tmp_path: Path) -> None:
    """A reward of 2 for the truth and 1.5 a style is right where right style >= wrong style - 1: A = [[1,1,0],[1,1,1],[1,1,1]], hard 2/3, normal and easy 1."""
    benchmark = rm_bench(tmp_path)
    assert benchmark.kind == "rm-bench"
    truth = np.where(benchmark.correct, 2.0, 0.0)
    found = score_benchmark(benchmark, truth + 1.5 * benchmark.style)
    matrix = np.array([row["score"] for row in get(found, "benchmark/style").details["matrix"]]).reshape(3, 3)
    np.testing.assert_allclose(matrix, [[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    assert [get(found, f"benchmark/{level}").estimate for level in ("hard", "normal", "easy")] == pytest.approx([2 / 3, 1, 1])
    assert get(found, "benchmark").estimate == pytest.approx(8 / 9)
    assert [row["part"] for row in get(found, "benchmark").details["parts"]] == ["chat", "code", "safety"], (
        "both kinds of safety are one domain"
    )
    # the mean of the domains is the mean of the three levels by their cells, as all averages of the benchmark agree
    levels = [get(found, f"benchmark/{level}").estimate for level in ("hard", "normal", "easy")]
    assert np.mean(levels) == pytest.approx(get(found, "benchmark").estimate)
    # equal rewards lose
    assert get(score_benchmark(benchmark, 2.0 * benchmark.style), "benchmark/normal").estimate == 0.0
    ends = get(found, "benchmark/hard")
    assert ends.low < ends.estimate < ends.high  # type: ignore[operator]  # it has an interval


def test_R54_a_reward_that_counts_characters_is_style_not_substance_and_a_good_one_is_not(tmp_path: Path) -> None:
    """The pattern that length has on the published file: hard .02 to .25, easy .78 to .99."""
    benchmark = rm_bench(tmp_path)
    length = score_benchmark(benchmark, by(benchmark, len))
    style = get(length, "benchmark/style")
    assert style.details["style_not_substance"]
    assert style.title.startswith("Style, not substance")
    assert style.verdict == "warning"
    assert get(length, "benchmark/hard").high < 0.1  # type: ignore[operator]  # it has an interval
    assert get(length, "benchmark/easy").low > 0.9  # type: ignore[operator]
    assert get(length, "benchmark/length-only").details["gap"] == 0
    rng = np.random.default_rng(1)
    good = score_benchmark(benchmark, np.where(benchmark.correct, 1.5, 0.0) + rng.normal(size=len(benchmark.correct)))
    assert not get(good, "benchmark/style").details["style_not_substance"]
    assert get(good, "benchmark/style").verdict == "ok"
    assert get(good, "benchmark/length-only").details["gap_low"] > 0.1
    # one that leans to style and knows the truth is not called so
    leaning = score_benchmark(
        benchmark, np.where(benchmark.correct, 1.0, 0.0) + 0.6 * benchmark.style + rng.normal(size=len(benchmark.correct))
    )
    assert get(leaning, "benchmark/easy").estimate > get(leaning, "benchmark/hard").estimate + 0.2  # type: ignore[operator]
    assert not get(leaning, "benchmark/style").details["style_not_substance"]


# ---------------------------------------------------------------------------------------------- PPE, JudgeBench


def ppe(tmp_path: Path, accuracy: dict[str, float], *, n: int = 60, k: int = 8) -> tuple[Benchmark, np.ndarray]:
    """A file for each domain; and rewards that put a right response above a wrong one with about this probability."""
    rng = np.random.default_rng(0)
    folder, values = tmp_path / "ppe", {}
    for d, (domain, share) in enumerate(accuracy.items()):
        rows = []
        for i in range(n):
            right = rng.random(k) < 0.4
            if right.all() or not right.any():
                right[:2] = [True, False]
            row: dict[str, Any] = {"question_id": f"{domain}{i}", "prompt": f"{domain} {i}", "scores": right.tolist(), "model_name": "m"}
            for j in range(k):
                name = f"{d}-{i}-{j}"
                row[f"response_{j + 1}"] = name
                values[name] = rng.normal() + (0 if not right[j] else np.sqrt(2) * {0.5: 0.0, 0.7: 0.5244, 0.9: 1.2816}[share])
            rows.append(row)
        lines(folder / f"{domain}.jsonl", rows)
    benchmark = read_benchmark(folder)
    return benchmark, by(benchmark, lambda text: values[text])


def test_ppe_best_of_k_worst_domain_and_correlations(tmp_path: Path) -> None:
    benchmark, values = ppe(tmp_path, {"math": 0.9, "ifeval": 0.7, "gpqa": 0.5})
    found = score_benchmark(benchmark, values)
    parts = {row["part"]: row["score"] for row in get(found, "benchmark").details["parts"]}
    assert parts == pytest.approx({"gpqa": 0.5, "ifeval": 0.7, "math": 0.9}, abs=0.06)
    worst = get(found, "benchmark/worst")
    assert worst.details["part"] == "gpqa"
    assert worst.estimate == pytest.approx(min(parts.values()))
    assert worst.low < 0.5 < worst.high  # type: ignore[operator]  # it has an interval
    assert low_quantile(list(parts.values()), 0.5) == pytest.approx(parts["ifeval"])
    curve = get(found, "benchmark/best-of-k").details["curve"]
    right = benchmark.correct.reshape(-1, 8)
    assert curve[0]["right"] == pytest.approx(right.mean())
    assert curve[-1]["right"] == pytest.approx(right[np.arange(len(right)), values.reshape(-1, 8).argmax(1)].mean()), (
        "best of all K is the highest"
    )
    assert [row["k"] for row in curve] == [1, 2, 4, 8]
    assert all(a["right"] < b["right"] for a, b in pairwise(curve))
    row = get(found, "benchmark/row-wise").details
    assert 0.15 < row["kendall"]["estimate"] < row["spearman"]["estimate"] < 0.6
    assert row["auc"]["estimate"] == pytest.approx(np.mean(list(parts.values())), abs=0.01), "the area is the accuracy on all pairs"
    nothing = score_benchmark(benchmark, np.zeros(len(values)))
    assert get(nothing, "benchmark").estimate == 0
    assert get(nothing, "benchmark/best-of-k").estimate == pytest.approx(right.mean()), "equal rewards share"


def test_ppe_takes_the_pairs_and_the_votes_that_a_file_names(tmp_path: Path) -> None:
    given = {
        "question_id": 1,
        "prompt": "p",
        "response_1": "a",
        "response_2": "b",
        "response_3": "c",
        "scores": [1, 0, 0],
        "sampled_conflict_pairs": [[2, 0]],
    }
    benchmark = read_benchmark(lines(tmp_path / "math.jsonl", [given]))
    assert benchmark.pairs.tolist() == [[0, 2]]
    votes = [{"question_id": i, "prompt": f"p{i}", "response_1": "a", "response_2": "b", "winner": w, "language": "English"}
             for i, w in enumerate(["model_a", "model_b", "tie"])]  # fmt: skip
    human = read_benchmark(lines(tmp_path / "human.jsonl", votes))
    assert human.pairs.tolist() == [[0, 1], [3, 2]]
    found = score_benchmark(human, [1, 0, 1, 0, 0, 1])
    assert get(found, "benchmark").estimate == 0.5
    assert get(found, "benchmark/best-of-k").verdict == "not_applicable"


def test_judgebench_pairs_and_its_categories(tmp_path: Path) -> None:
    rows = [{"pair_id": str(i), "source": s, "question": f"q{i}", "response_model": "m", "response_A": "yes", "response_B": "no", "label": label}
            for i, (s, label) in enumerate([("mmlu-pro-law", "A>B"), ("mmlu-pro-law", "B>A"), ("livebench-math", "A>B"), ("livecodebench", "A>B")])]  # fmt: skip
    benchmark = read_benchmark(lines(tmp_path / "dataset=judgebench,response_model=m.jsonl", rows))
    assert benchmark.kind == "judgebench"
    assert benchmark.subsets == ("knowledge", "knowledge", "mathematics", "coding")
    found = score_benchmark(benchmark, by(benchmark, lambda text: float(text == "yes")))
    assert get(found, "benchmark").estimate == pytest.approx(0.75), "items count alike, as the benchmark reports"
    assert get(found, "benchmark/knowledge").estimate == 0.5


# ---------------------------------------------------------------------------------------------- real data, and what goes wrong


def test_length_alone_is_style_not_substance_on_llmbar(real_data: Path) -> None:
    """The adversarial parts are made so that the longer, better sounding output is wrong."""
    benchmark = read_benchmark(real_data / "llmbar")
    found = score_benchmark(benchmark, by(benchmark, len))
    print(found)
    assert get(found, "benchmark").verdict == "blocking"
    assert get(found, "benchmark").high < 0.4  # type: ignore[operator]  # it has an interval
    assert get(found, "benchmark/natural").low < 0.5 < get(found, "benchmark/natural").high  # type: ignore[operator]
    assert get(found, "benchmark/adversarial-neighbor").high < 0.2  # type: ignore[operator]
    assert get(found, "benchmark/style").details["style_not_substance"]
    raw = read_benchmark(real_data / "raw" / "llmbar" / "Natural.dataset.json")
    again = score_benchmark(raw, by(raw, len))
    assert get(again, "benchmark").estimate == pytest.approx(get(found, "benchmark/natural").estimate)
    # a reward that likes lists, headers and pleasantries, whatever is said
    stock = score_benchmark(benchmark, by(benchmark, lambda t: t.count("\n") + 3 * t.count("!") + 2 * ("Sure" in t) + 1e-6 * len(t)))
    assert get(stock, "benchmark/style").details["style_not_substance"]


@pytest.mark.parametrize("kind", ["rewardbench", "rm-bench", "rmb"])
def test_a_constant_reward_gets_what_the_rule_gives_it_and_that_is_said(kind: str, tmp_path: Path) -> None:
    make = {
        "rewardbench": lambda: rewardbench(tmp_path, {"hep-go": 1.0}),
        "rm-bench": lambda: rm_bench(tmp_path),
        "rmb": lambda: rmb(tmp_path, [2] * 30),
    }
    benchmark = make[kind]()
    found = score_benchmark(benchmark, np.ones(len(benchmark.correct)))[0]
    assert found.estimate == 0
    assert found.verdict == "blocking"
    assert "the same for every response" in found.title
    assert json.loads(score_benchmark(benchmark, np.ones(len(benchmark.correct))).to_json())


def test_rewards_that_are_missing_are_wrong_and_none_at_all_is_not_applicable(tmp_path: Path) -> None:
    benchmark = rewardbench(tmp_path, {"hep-go": 1.0})
    values = benchmark.correct.astype(float)
    values[:164] = np.nan
    found = score_benchmark(benchmark, values)
    assert get(found, "benchmark").estimate == pytest.approx(0.5)
    assert get(found, "benchmark/unscored").estimate == 0.5
    assert score_benchmark(benchmark, np.full(len(values), np.inf))[0].verdict == "not_applicable"
    with pytest.raises(InvalidSetting, match="one number for each"):
        score_benchmark(benchmark, values[:-1])


@pytest.mark.parametrize(
    ("records", "error", "said"),
    [
        ([{"a": 1, "b": 2}], UnreadableSource, "no benchmark has these fields"),
        ([{"prompt": "p", "chosen": "a", "rejected": None, "subset": "hep-go"}], InvalidRecord, "rejected"),
        ([{"input": "i", "output_1": "a", "output_2": "b", "label": 3}], InvalidRecord, "Use 1 or 2"),
        ([{"question": "q", "response_A": "a", "response_B": "b", "label": "tie"}], InvalidRecord, "A>B or B>A"),
        ([{"conversation_input": "q", "bon_best": {"answer": "a"}, "loser_list": []}], InvalidRecord, "loser_list"),
        ([{"prompt": "p", "response_1": "a", "response_2": "b", "scores": []}], InvalidRecord, "scores"),
        *(
            (
                [{"prompt": "p", "response_1": "a", "response_2": "b", "scores": [1, 0], "sampled_conflict_pairs": wrong}],
                InvalidRecord,
                r"line 1: field 'sampled_conflict_pairs' is .*Give a list of pairs of places, from 0 to 1",
            )
            for wrong in ([[0, 2]], [[0, -1]], [[0]], [0, 1], "0-1", {"a": 1}, [["0", "1"]], [[0, 1.5]])
        ),
        ([{"prompt": "p", "chosen": ["a"], "rejected": ["b"], "num_correct": 2, "subset": "Math"}], InvalidRecord, "num_correct"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_says_where(
    records: list[dict[str, Any]], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        read_benchmark(lines(tmp_path / "file.jsonl", records))


def test_a_folder_of_two_benchmarks_takes_the_one_that_is_named(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"prompt": "p", "chosen": "good", "rejected": "bad", "subset": "hep-go"}])
    lines(tmp_path / "b.jsonl", [{"input": "i", "output_1": "a", "output_2": "b", "label": 1}])
    with pytest.raises(UnreadableSource, match="several benchmarks"):
        read_benchmark(tmp_path)
    assert read_benchmark(tmp_path, kind="llmbar").n_items == 1
    assert read_benchmark(tmp_path, kind="llmbar").notes == ("passed over: a",)
    with pytest.raises(InvalidSetting, match="rewardbench2"):
        read_benchmark(tmp_path, kind="other")
    unknown = read_benchmark(lines(tmp_path / "c" / "x.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b", "subset": "mine"}]))
    with pytest.raises(InvalidSetting, match="RewardBench has"):
        score_benchmark(unknown, [1, 0])


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_scores_a_reward_model_of_any_kind_and_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    run = CliRunner().invoke
    rows = [
        {"prompt": f"p{i}", "chosen": f"good {i}" + " longer" * (i % 3 == 0), "rejected": f"bad answer {i}", "subset": "hep-go", "id": i}
        for i in range(40)
    ]
    file = lines(tmp_path / "filtered.jsonl", rows)
    module = tmp_path / "mine.py"
    module.write_text(
        "def score(prompts, responses):\n    return [float(r.startswith('good')) if '7' not in r else None for r in responses]\n",
        encoding="utf-8",
    )
    cache = tmp_path / "scores.jsonl"
    done = run(app, ["benchmark", f"python:{module}:score", str(file), "--json", "--cache", str(cache)])
    assert done.exit_code == 0, done.output
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["benchmark"]["estimate"] == pytest.approx(36 / 40), "the four that have no score are wrong"
    assert found["benchmark/unscored"]["estimate"] == pytest.approx(0.1)
    assert found["benchmark"]["access"] == "black-box"
    again = run(app, ["benchmark", f"python:{module}:score", str(file), "--cache", str(cache)])
    assert "RewardBench" in again.stdout
    assert "80 distinct texts, 80 of them from the cache" in again.stdout
    failed = run(app, ["benchmark", f"python:{module}:score", str(file), "--cache", str(cache), "--fail-on", "benchmark/unscored"])
    assert failed.exit_code == 1
    table = tmp_path / "scores.csv"
    pl.DataFrame({"prompt": [r["prompt"] for r in rows] * 2, "response": [r["chosen"] for r in rows] + [r["rejected"] for r in rows],
                  "score": [0.0] * 40 + [1.0] * 40}).write_csv(table)  # fmt: skip
    turned = run(app, ["benchmark", str(table), str(file), "--json"])
    assert turned.exit_code == 1, "a reward that is turned round is blocking"
    with pytest.raises(InvalidSetting, match="--kind"):
        run(app, ["benchmark", str(table), str(file), "--kind", "mt-bench"], catch_exceptions=False)


def test_a_model_that_dies_midway_has_no_score(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{i}", "chosen": "yes " * (1 + i), "rejected": "no " * (40 + i), "subset": "alpacaeval-easy", "id": i}
        for i in range(300)
    ]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "m.py").write_text(
        "def score(prompts, responses):\n    assert all(len(r) < 200 for r in responses), 'gone'\n    return [float(len(r)) for r in responses]\n"
    )
    asked = ["benchmark", f"python:{tmp_path}/m.py:score", str(tmp_path / "bench.jsonl"), "--kind", "rewardbench", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1, done.output
    found = {f["code"]: f["verdict"] for f in json.loads(done.stdout)["findings"]}
    assert found["benchmark"] == "not_applicable"
    assert found["scorer/failed"] == "blocking"
