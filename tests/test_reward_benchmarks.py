"""The benchmarks of reward models run, at a size where they say nothing, and count and score as they say."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import expit
from small_models import save_small, small_tokenizer

import seamark as sm

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = {"hidden": 16, "layers": 1, "heads": 2, "key_value_heads": 2, "intermediate": 32}
pytestmark = pytest.mark.filterwarnings("ignore")
"""TRL's and its libraries' warnings are theirs."""


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import reward_training

        yield reward_training
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def quality() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import reward_quality

        yield reward_quality
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def optimisation() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import optimisation

        yield optimisation
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def probes() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import probes

        yield probes
    finally:
        sys.path.remove(str(BENCHMARKS))


# ---------------------------------------------------------------------------------------------- time and tokens


def test_texts_are_as_long_as_they_say_and_raters_follow_what_they_are_worth(training: ModuleType) -> None:
    case = next(case for case in training.CASES if case.key == "rlhf")
    made = training.judged(case, 30, seed=0)
    assert len(made.judgments) == 30 * 18
    assert {len(text.split()) for text in made.prompts} == {400}
    assert {len(text.split()) for some in made.responses for text in some} == {100}
    assert len({text for some in made.responses for text in some}) == 120
    gap = np.array([made.worth[p][a] - made.worth[p][b] for p, a, b, _ in made.judgments])
    assert 0.55 < (gap > 0).mean() < 0.95  # noisy, and far from a coin
    assert np.std(made.worth) > 0.3
    assert training.judged(case, 30, seed=0) == made


def test_distinct_tokens_by_a_naive_count(training: ModuleType) -> None:
    tokenizer = training.word_tokenizer()
    made = training.Judged([" w1 w2 w3"], [[" w4 w5", " w6", " w7 w8 w9"]], [[0.0, 0.0, 0.0]], [(0, 0, 1, 0), (0, 1, 0, 1)])
    # <s> w1 w2 w3 | w4 w5 </s> | w6 </s>; the third response was never judged
    assert training.distinct_tokens(made, tokenizer, bidirectional=False) == 4 + 3 + 2
    assert training.distinct_tokens(made, tokenizer, bidirectional=True) == 7 + 6
    assert tokenizer(" w1 w2" + " w3</s>")["input_ids"] == tokenizer(" w1 w2 w3")["input_ids"] + [tokenizer.eos_token_id]


def test_both_sides_read_the_same_judgments(training: ModuleType) -> None:
    made = training.judged(training.CASES[0], 6, seed=2)
    rows, feedback = training.as_pairs(made), training.as_feedback(made)
    texts = feedback.responses["text"].to_list()
    seen = [
        (texts[row["left"]], texts[row["right"]]) if row["outcome"] == "left" else (texts[row["right"]], texts[row["left"]])
        for row in feedback.pairs().iter_rows(named=True)
    ]
    assert [(a.strip(), b.strip()) for a, b in seen] == [
        (a.strip(), b.strip()) for a, b in zip(rows["chosen"], rows["rejected"], strict=True)
    ]
    assert feedback.n_prompts == 6


def _run(case: str, side: str, precision: str, index: int, seconds: float) -> dict[str, Any]:
    where = {"at": "", "python": "3", "load": 0.0, "versions": {"torch": "2"}}
    return where | {
        "case": case, "side": side, "precision": precision, "round": index, "device": "cpu", "epoch_s": [seconds, 9 * seconds, seconds],
        "cpu_s": [seconds] * 3, "judgments": 10, "steps": 5.0, "forward": 1000.0 if side == "trl" else 630.0, "padding": 0.0, "distinct": 600,
        "prepare_s": 0.1, "peak_mib": 100.0, "before_mib": 90.0, "block_weights": 10,
    }  # fmt: skip


def test_ratios_are_made_within_rounds(training: ModuleType, tmp_path: Path) -> None:
    runs = [_run("pairs", "trl", "fp32", 0, 2.0), _run("pairs", "seamark", "fp32", 0, 1.0)]
    runs += [_run("pairs", "trl", "fp32", 1, 9.0), _run("pairs", "seamark", "fp32", 1, 3.0)]
    runs += [_run("pairs", "trl", "fp32", 2, 70.0)]
    assert "2.5 [2, 3] of 2 rounds" in training.goals(runs)
    assert "| 1.050 |" in training.goals(runs)
    page, marks = tmp_path / "benchmarks.md", (training.START, training.END)
    other = f"{training.LEARNT_START}\nwhat was learnt elsewhere\n{training.LEARNT_END}"
    page.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\n{other}\nafter\n", encoding="utf-8")
    results = tmp_path / "results"
    results.mkdir()
    (results / "reward_training.jsonl").write_text("\n".join(map(json.dumps, runs)), encoding="utf-8")
    training.main(["--write", "--docs", str(tmp_path), "--results", str(results)])
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert "2.5 [2, 3] of 2" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert other in text, "what was not measured here stays"


def test_tables_of_what_was_measured_elsewhere_stay(quality: ModuleType, tmp_path: Path) -> None:
    here, there = "### Arena-bench v1: a frozen encoder", "### UKPConvArg1: a frozen encoder"
    page = tmp_path / "benchmarks.md"
    page.write_text(
        f"before\n{quality.START}\n\nstale words\n\n{here}\n\nstale\n\n{there}\n\nkept\n\n{quality.END}\nafter\n", encoding="utf-8"
    )
    unit = np.array(["a", "a", "b", "b"])
    found = quality.Scored(np.array([0.7, 0.6, 0.2, 0.9]), np.array([True, False, False, True]), unit, unit == "a", np.ones(4))
    (tmp_path / "results").mkdir()
    found.save(tmp_path / "results" / "frozen-arena-linear-prompt-0.npz")
    quality.main(["--write", "--docs", str(tmp_path), "--results", str(tmp_path / "results")])
    text = page.read_text(encoding="utf-8")
    assert "stale" not in text
    assert text.index(there) < text.index("kept") < text.index(here) < text.index("prompts lenient or strict, with style | 0.750")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def test_without_a_gpu_it_says_so(training: ModuleType, require: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(require("torch", "Install the extra lm.").cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        training.main(["--gpu"])


@pytest.mark.parametrize("side", ["trl", "seamark"])
@pytest.mark.parametrize("key", ["rlhf", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_a_side_trains_and_is_counted(training: ModuleType, side: str, key: str, require: Callable[[str, str], Any]) -> None:
    require("trl", "Install the extra trl.")
    case = next(case for case in training.CASES if case.key == key)
    small = training.Case(**(vars(case) | {"n_prompts": 4, "prompt_words": 20, "response_words": 5, "n_raters": 2}))
    found = training.child(small, side, training.Shape(**SMALL), training.Training(epochs=2), device="cpu")
    assert found["judgments"] == 4 * 6 * 2
    assert len(found["epoch_s"]) == 2
    assert found["distinct"] == (4 * 4 * 27 if key == "bidirectional" else 4 * (21 + 4 * 6))
    if side == "trl":
        # a row for each judgment, two sequences in it, and BERT's template ends a text that TRL has already ended
        assert found["forward"] == 48 * 2 * (28 if key == "bidirectional" else 27)
    else:
        assert found["forward"] <= 1.05 * found["distinct"]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["trl", "seamark"])
def test_what_is_planted_can_be_learnt(training: ModuleType, side: str, require: Callable[[str, str], Any]) -> None:
    require("trl", "Install the extra trl.")
    case = training.Case("tiny", "tiny", 200, 4, 8, n_responses=4, n_raters=1, tokens_per_batch=256)
    found = training.learn(case, side, training.Shape(64, 1, 2, 2, 64), seed=0, epochs=4, rates=(3e-3,))
    assert found["accuracy"] > 0.65


@pytest.mark.parametrize("side", ["contrastive", "meta"])
def test_a_term_changes_the_gradient_and_nothing_else(training: ModuleType, side: str, tmp_path: Path) -> None:
    """Weights stand where they stood: the meta step is taken back, dropout is off again."""
    tokenizer = training.word_tokenizer()
    made = training.judged(training.Case("small", "small", 8, 4, 6, n_responses=3, n_raters=1), 8, seed=1)
    gradients, losses = [], []
    for name in ("seamark", side):
        model = training.network("llama", tokenizer, training.Shape(16, 1, 2, 2, 16), seed=0)
        # a rate this large makes the meta step one that can be seen
        trainer = training.trainer_of(name, model, tokenizer, made, str(tmp_path), training.Training(rate=10.0, tokens_per_batch=4096), [])
        trainer.current_gradient_accumulation_steps = 1  # as its loop sets it
        before = [p.detach().clone() for p in model.parameters()]
        losses.append(float(trainer.training_step(model, trainer.batches[0])))
        assert all(torch.allclose(p, q, atol=1e-4) for p, q in zip(model.parameters(), before, strict=True))
        assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) > 0.01
    assert losses[1] != losses[0]


# ---------------------------------------------------------------------------------------------- quality


def _feedback(training: ModuleType, n_prompts: int = 12) -> sm.Feedback:
    case = training.Case("small", "small", n_prompts, 6, 9, n_responses=4, n_raters=1)
    return training.as_feedback(training.judged(case, n_prompts, seed=3))


def test_calibration_error_by_a_naive_count(quality: ModuleType) -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 500)
    won, count = rng.random(500) < p**2, rng.integers(1, 4, 500).astype(float)
    found = quality.Scored(p, won, np.repeat(["a", "b"], 250), np.ones(500, dtype=bool), count)
    gap = 0.0
    for low in np.arange(0.5, 1.0, 0.05):
        rows = [i for i in range(500) if low <= max(p[i], 1 - p[i]) < low + 0.05 - 1e-12]
        gap += abs(sum(count[i] * (((p[i] > 0.5) == won[i]) - max(p[i], 1 - p[i])) for i in rows))
    assert quality.ece(found) == pytest.approx(gap / count.sum(), abs=1e-9)
    perfect = quality.Scored(np.full(4000, 0.7), np.arange(4000) % 10 < 7, np.repeat("a", 4000), p > 2, np.ones(4000))
    assert quality.ece(perfect) == pytest.approx(0.0, abs=1e-12)


def test_units_count_alike_and_matched_lengths_are_their_own(quality: ModuleType) -> None:
    p, won = np.array([0.9, 0.9, 0.9, 0.5]), np.array([True, True, True, False])
    matched = np.array([True, False, False, False])
    found = quality.values(quality.Scored(p, won, np.array(["a", "a", "a", "b"]), matched, np.array([1.0, 1.0, 8.0, 1.0])))
    assert found["accuracy"] == ({"a": 1.0, "b": 0.5}, 11.0)
    assert found["length-matched"] == ({"a": 1.0}, 1.0)
    assert found["log loss"][0]["b"] == pytest.approx(np.log(2))


def test_higher_of_two_ratings_by_enumeration(quality: ModuleType) -> None:
    left, right = np.random.default_rng(1).dirichlet(np.ones(5), (2, 3))
    for row in range(3):
        above = sum(left[row, i] * right[row, j] for i in range(5) for j in range(i))
        under = sum(left[row, i] * right[row, j] for i in range(5) for j in range(i + 1, 5))
        assert quality.higher(left, right)[row] == pytest.approx(above / (above + under))


def test_ridge_solves_the_first_order_condition(quality: ModuleType) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 5))
    won = rng.random(200) < expit(x @ np.arange(5.0))
    w = quality.logistic(x, won, 3.0)
    assert np.abs(x.T @ (won - expit(x @ w)) - 3.0 * w).max() < 1e-8


def test_folds_share_no_prompt_and_hold_everything_out_once(quality: ModuleType, training: ModuleType) -> None:
    feedback = _feedback(training)
    seen: list[str] = []
    for train, held in quality.folds(feedback, "hh", 5):
        assert not set(train.prompts["id"]) & set(held.prompts["id"])
        seen += held.prompts["id"].to_list()
    assert sorted(seen) == sorted(feedback.prompts["id"].to_list())


def test_ratings_become_the_pairs_that_differ(quality: ModuleType) -> None:
    rating = [3.0, 5.0, 3.0, 1.0, 2.0, 2.0]
    columns = {
        "kind": ["rating"] * 6,
        "prompt": ["a", "a", "a", "b", "b", "b"],
        "texts": [[f"text {i}"] for i in range(6)],
        "rating": rating,
    }
    feedback = sm.Feedback.from_columns(columns | {"outcome": ["answered"] * 6, "scale_low": [1.0] * 6, "scale_high": [5.0] * 6})
    pairs = quality.decided(feedback)
    texts = feedback.responses["text"].to_list()
    value = {f"text {i}": rating[i] for i in range(6)}
    gap = [value[texts[a]] - value[texts[b]] for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)]
    assert len(gap) == 2 + 2
    assert [g > 0 for g in gap] == pairs.won.tolist()
    again = quality.as_judgments(feedback, pairs)
    assert again.n_judgments == 4
    assert quality.decided(again).won.tolist() == pairs.won.tolist()


def test_length_alone_takes_the_direction_of_training(quality: ModuleType) -> None:
    def made(outcome: str, n: int) -> sm.Feedback:
        texts = [[f"short {i}", f"a text that is much longer {i}"] for i in range(n)]
        prompts = [f"prompt {i}" for i in range(n)]
        return sm.Feedback.from_columns(
            {"kind": ["pair"] * n, "prompt": prompts, "texts": texts, "outcome": [outcome] * (n - 1) + ["right"]}
        )

    found = quality.length_alone(made("left", 10), made("left", 5), "hh")  # shorter wins, save once
    assert found.p == pytest.approx(0.9)
    assert quality.values(found)["accuracy"][0] | {} == dict(zip(found.unit, [1.0, 1.0, 1.0, 1.0, 0.0], strict=True))


def test_long_texts_are_cut_at_tokens(quality: ModuleType) -> None:
    tokenizer = small_tokenizer(bert=True)
    long = " ".join(f"word{i}" for i in range(400))
    columns = {"kind": ["pair"], "prompt": [long], "texts": [[long, "short"]], "outcome": ["left"]}
    prompts, responses = quality.cut(sm.Feedback.from_columns(columns), tokenizer)
    assert long.endswith(prompts[0])
    assert len(tokenizer(prompts[0], add_special_tokens=False)["input_ids"]) == pytest.approx(quality.PROMPT_TOKENS, abs=2)
    assert sorted(len(text) for text in responses)[0] == len("short")
    assert long.startswith(max(responses, key=len))
    assert len(tokenizer(max(responses, key=len), add_special_tokens=False)["input_ids"]) == quality.RESPONSE_TOKENS


def test_frozen_methods_score_every_held_out_pair(
    quality: ModuleType, training: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAMARK_CACHE", str(tmp_path / "cache"))
    encoder = str(save_small(tmp_path / "encoder", "bert"))
    train, held = next(quality.folds(_feedback(training), "hh", 3))
    n = held.n_judgments
    found = quality.linear(train, held, "hh", encoder=encoder) | {"length": quality.length_alone(train, held, "hh")}
    found |= {str(prompts): quality.plain(train, held, "hh", encoder=encoder, prompts=prompts) for prompts in (True, False)}
    assert set(found) == {"linear", "linear-controlled", "length", "True", "False"}
    for one in found.values():
        assert one.count.sum() == n
        assert ((one.p > 0) & (one.p < 1)).all()
    for name, one in found.items():
        one.save(tmp_path / f"frozen-hh-{ {'True': 'bt', 'False': 'bt-prompt'}.get(name, name) }-0.npz")
    text = "\n".join(f"{heading}\n{rest}" for heading, rest in quality.tables(argparse.Namespace(results=tmp_path)).items())
    assert f"{n} held-out judgments of 4 prompts" in text
    assert "**Seamark** Linear, with style - length alone" in text


@pytest.mark.parametrize("method", ["trl", "seamark"])
def test_trainers_see_one_sample_and_are_scored_alike(
    quality: ModuleType, training: ModuleType, tmp_path: Path, method: str, require: Callable[[str, str], Any]
) -> None:
    require("trl", "Install the extra trl.")
    encoder = str(save_small(tmp_path / "encoder", "bert"))
    train, held = next(quality.folds(_feedback(training), "hh", 3))
    found, rate, losses = quality.trained(train, held, "hh", method, encoder=encoder, n=20, epochs=1, seed=0, rates=(1e-4, 1e-3))
    assert len(found.p) == held.n_judgments
    assert set(losses) == {1e-4, 1e-3}
    assert losses[rate] == min(losses.values())
    assert np.ptp(found.p) > 0


@pytest.mark.parametrize("method", ["network", "network-held-back"])
def test_the_last_layer_fitted_anew_is_scored_on_the_same_judgments(
    quality: ModuleType, training: ModuleType, tmp_path: Path, method: str
) -> None:
    encoder = str(save_small(tmp_path / "encoder", "bert"))
    train, held = next(quality.folds(_feedback(training), "hh", 3))
    found, rate, losses = quality.trained(train, held, "hh", method, encoder=encoder, n=40, epochs=1, seed=0, rates=(1e-4,))
    assert (rate, losses) == (1e-4, {})
    assert found.count.sum() == held.n_judgments
    assert sorted(np.unique(found.unit)) == sorted(held.prompts["id"])
    assert ((found.p > 0) & (found.p < 1)).all()


def test_a_sample_of_ratings_gives_trl_its_pairs_and_seamark_the_ratings(quality: ModuleType) -> None:
    n_prompts, n_answers = 6, 10
    rng = np.random.default_rng(4)
    rows = [(f"question {q}", f"answer {q} {a}", float(rng.integers(1, 11))) for q, a in np.ndindex(n_prompts, n_answers)]
    n = len(rows)
    columns: dict[str, Any] = {"kind": ["rating"] * n, "prompt": [r[0] for r in rows], "texts": [[r[1]] for r in rows]}
    columns |= {"rating": [r[2] for r in rows], "outcome": ["answered"] * n, "scale_low": [1.0] * n, "scale_high": [10.0] * n}
    feedback = sm.Feedback.from_columns(columns)
    seen = quality.sample(feedback, "arena", small_tokenizer(bert=True), n=72, seed=0)
    assert seen.feedback.n_judgments == 3 * 8
    assert set(seen.feedback.judgments["kind"]) == {"rating"}
    value = {text: rating for _, text, rating in rows}
    asked = {p for p, _, _ in seen.pairs}
    assert all(value[a.strip()] > value[b.strip()] for _, a, b in seen.pairs)
    kept = seen.feedback.responses.with_columns(pl.col("text").str.strip_chars())
    by_prompt = [kept.filter(pl.col("prompt") == p)["text"].to_list() for p in range(seen.feedback.n_prompts)]
    assert len(asked) == len(by_prompt) == 3
    assert len(seen.pairs) == sum(value[a] != value[b] for some in by_prompt for a, b in combinations(some, 2))


# ---------------------------------------------------------------------------------------------- followed, and probed


def test_metrics_turned_by_some_are_judged_by_others(optimisation: ModuleType) -> None:
    """Sixty metrics of noise, turned by the ratings that judge them, would be right in more than half of the pairs; the sixty-first is the worst of the truth."""
    rng = np.random.default_rng(0)
    prompt, truth = np.repeat(np.arange(40), 5), rng.normal(size=200)
    one, others = truth + 0.5 * rng.normal(size=200), truth + 0.5 * rng.normal(size=200)
    proxies = np.column_stack([rng.normal(size=(200, 60)), -truth])
    first, second = (optimisation.Judged.of(prompt, proxies, gold) for gold in (one, others))
    found = optimisation.cross(first, second, (np.arange(20), np.arange(20, 40)))
    same = np.nanmean(second.right, 0)
    same = np.maximum(same, 1 - same)[:60]
    print(f"by the same ratings {same.mean():.3f}, by others {found.accuracy[:60].mean():.3f}, regret {found.regret[:60].mean():.2f}")
    assert same.mean() > 0.52
    assert abs(found.accuracy[:60].mean() - 0.5) < 0.01
    assert abs(found.regret[:60].mean() - 1) < 0.04
    assert not found.up[:, 60].any()
    assert found.accuracy[60] > 0.8
    assert found.regret[60] < 0.2
    assert (found.order[:, 0] == 60).all()


def test_a_curve_says_where_gold_turns(optimisation: ModuleType) -> None:
    rng = np.random.default_rng(1)
    prompt, x = np.repeat(np.arange(200), 8), rng.normal(size=1600)
    said = []
    for gold in (x + 0.1 * rng.normal(size=1600), x - np.where(x > 1, 4 * (x - 1), 0)):
        best = optimisation.check_optimisation(optimisation.Pool.of(prompt, x, gold))[0]
        rows, words = optimisation.curve_of("it", best)
        assert len(rows) == 4
        assert rows[2].startswith(f"| it | 4 | {np.log(4) - 0.75:.3f} | {np.sqrt(np.log(4) - 0.75):.2f} |")
        said.append(words)
    assert said[0] == "it (n = 200): highest at n = 8 [8, 8]; it does not turn."
    assert said[1].startswith("it (n = 200): highest at n = 2 [")
    assert "surely falls" in said[1]


def test_a_network_that_is_probed_was_trained_and_reads_prompts(probes: ModuleType, training: ModuleType, tmp_path: Path) -> None:
    encoder = str(save_small(tmp_path / "encoder", "bert"))
    feedback = _feedback(training)
    reward, seen = probes.trained(feedback, encoder, str(tmp_path))
    assert seen.n_judgments == feedback.n_judgments
    a, b, c = reward(["w1 w2", "w3 w4", "w1 w2"], ["w5 w6"] * 2 + ["w7 w8"])
    assert None not in (a, b, c)
    assert len({a, b, c}) == 3
    assert probes.phrases_alone([], ["Rivers flow downhill.", "I think perhaps I might."])[0] == 0.0
    assert probes.phrases_alone([], ["Rivers flow downhill.", "I think perhaps I might."])[1] > 0.0
