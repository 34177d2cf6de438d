"""Language models under the one likelihood: the same gradient as a row per judgment, each token read once, runs that can be stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seamark as sm
from seamark.errors import InvalidSetting, SeamarkError, UnreadableSource

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from small_models import save_small, small_model, small_tokenizer  # noqa: E402

from seamark.models.checkpoint import open_classifier, sidecar  # noqa: E402
from seamark.models.conversations import Conversations, turns_of  # noqa: E402
from seamark.models.objective import Objective  # noqa: E402
from seamark.models.training import FeedbackTrainer, NetworkConfig, last_checkpoint, train_network  # noqa: E402
from seamark.models.trees import Tree, lay_out, seen_mask  # noqa: E402

WORDS = "apple river stone cloud green happy quick brown seven light paper music".split()
GOOD, BAD = "happy", "stone"


def worth(text: str) -> float:
    return 2.0 * text.split().count(GOOD) - 1.0 * text.split().count(BAD)


def society(
    n_prompts: int = 60, *, seed: int = 0, n_responses: int = 4, n_raters: int = 6, careless: int = 0, length: int = 12
) -> sm.Feedback:
    """Pairs among responses to prompts; a response is worth its words. The first `careless` raters answer at random."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("kind", "prompt", "texts", "outcome", "rater")}
    for p in range(n_prompts):
        prompt = f"Question {p}: " + " ".join(rng.choice(WORDS, 12))
        responses = [" ".join(rng.choice(WORDS, rng.integers(4, length))) + f" {i}" for i in range(n_responses)]
        for i in range(n_responses):
            for j in range(i):
                rater = int(rng.integers(n_raters))
                p_first = 0.5 if rater < careless else 1 / (1 + np.exp(worth(responses[j]) - worth(responses[i])))
                columns["kind"].append("pair")
                columns["prompt"].append(prompt)
                columns["texts"].append([responses[i], responses[j]])
                columns["outcome"].append("left" if rng.random() < p_first else "right")
                columns["rater"].append(f"rater {rater}")
    return sm.Feedback.from_columns(columns)


def settings(folder: Path, **more: Any) -> NetworkConfig:
    usual = {
        "tokens_per_batch": 1500,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": True,
        "logging_steps": 1000,
    }
    return NetworkConfig(output_dir=str(folder), **usual | more)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_tokenizer([" ".join(WORDS)] * 3)


# ---------------------------------------------------------------------------------------------- the gradient


def all_kinds() -> sm.Feedback:
    """Ties, strengths, ratings, thumbs, a choice among three and a ranking, by raters of two groups in a known order."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for p in range(4):
        prompt = f"Question {p}: " + " ".join(rng.choice(WORDS, 8))
        texts = [" ".join(rng.choice(WORDS, rng.integers(3, 9))) + f" {i}" for i in range(4)]
        for r in range(4):
            who = {"outcome": "answered", "prompt": prompt, "rater": f"rater {r}", "group": "ab"[r % 2], "order_known": True}
            rows += [
                who | {"kind": "pair", "texts": texts[:2], "outcome": ("left", "right", "tie")[int(rng.integers(3))]},
                who | {"kind": "pair", "texts": texts[1:3], "outcome": ("left", "right")[int(rng.integers(2))]},
                who
                | {"kind": "rating", "texts": texts[r : r + 1], "rating": float(rng.integers(1, 6)), "scale_low": 1.0, "scale_high": 5.0},
                who | {"kind": "thumbs", "texts": texts[3:], "thumb": bool(rng.integers(2))},
                who | {"kind": "choice", "texts": texts[:3], "best": int(rng.integers(3))},
                who | {"kind": "ranking", "texts": texts[:3], "ranks": [int(i) + 1 for i in rng.permutation(3)]},
            ]
    names = dict.fromkeys(name for row in rows for name in row)
    return sm.Feedback.from_columns({name: [row.get(name) for row in rows] for name in names})


@pytest.mark.parametrize("people", [None, sm.Groups(min_judgments=5), sm.Personas(2)], ids=["same", "groups", "personas"])
def test_the_gradient_is_that_of_a_row_for_each_judgment(tmp_path: Path, tokenizer: Any, people: Any) -> None:
    """In float64, against a forward pass for each slot of each judgment alone, differentiated by torch through `observation`'s formulas."""
    from seamark.models.observation import lapsed, log_probs

    feedback = all_kinds()
    observation = sm.Observation(effects=[sm.Reliability(), sm.Position()])
    # GPT-2 computes in the precision of its weights throughout; Llama normalises and rotates in 32 bits
    model = small_model("gpt2", tokenizer=tokenizer, hidden=16, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).double()
    trainer = FeedbackTrainer(
        model, settings(tmp_path, tokens_per_batch=80), train_dataset=feedback, processing_class=tokenizer, people=people, observation=observation
    )  # fmt: skip
    assert trainer.shares_prompts
    assert len(trainer.train_dataset) > 3
    rng = np.random.default_rng(0)
    with torch.no_grad():
        trainer.head.weight.normal_()
    trainer.objective.refit(rng.normal(size=trainer.table.shape))  # raters, position and cut points that are not where they start
    model.train()
    model.zero_grad()
    loss = 0.0
    for item in range(len(trainer.train_dataset)):
        one = trainer.compute_loss(model, trainer.train_dataset[item]) / trainer.train_dataset.loss_scale
        one.backward()
        loss += one.item()
    shared = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    objective, search = trainer.objective, trainer.objective.search
    likelihood, tokens = objective.likelihood, trainer.train_dataset.tokens
    t = search.x[likelihood.shape]
    expected = 0.0
    for c in likelihood.cells:
        b = c.block
        shift = (c.D.times(search.x[likelihood.shifts])).reshape(len(b.who), -1)
        for j in range(len(b.who)):
            values = []
            for code in b.shown[j]:  # each slot of each judgment on its own, as the stock model reads it
                ids = torch.from_numpy(tokens[code].astype(np.int64))[None]
                hidden = model.base_model(input_ids=ids).last_hidden_state[0, -1]
                values.append(trainer.head.weight @ hidden)
            u = torch.stack(values) @ torch.from_numpy(objective.loadings[b.group[j]])
            contrast = torch.from_numpy(c.K) @ u
            total = torch.zeros((), dtype=torch.float64)
            for q, mass in enumerate(search.posterior[b.who[j]]):
                if mass > 0:
                    z = search.nodes.slope[b.who[j], q] * contrast + torch.from_numpy(shift[j])
                    theta = torch.from_numpy(t[c.shape])
                    log_p = log_probs(b.family, z[None], theta)
                    log_p = lapsed(log_p, b.family.n_outcomes, torch.tensor(t[-1]))[0, int(b.outcome[j])]
                    total = total - mass * b.count[j] * log_p
            total.backward()
            expected += total.item()
    assert loss == pytest.approx(expected, rel=1e-9)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(shared[name], p.grad, atol=1e-9 * max(1.0, float(p.grad.abs().max())), err_msg=name)
