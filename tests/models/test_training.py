"""Language models under the one likelihood: the same gradient as a row per judgment, each token read once, runs that can be stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import save_small, small_model, small_tokenizer
from transformers import TrainerCallback

import seamark as sm
from seamark.errors import InvalidSetting, SeamarkError, UnreadableSource
from seamark.models.checkpoint import open_classifier, open_reader, sidecar
from seamark.models.conversations import Conversations
from seamark.models.heads import load_head
from seamark.models.training import FeedbackTrainer, NetworkConfig, last_checkpoint, train_network
from seamark.models.trees import Tree, lay_out, seen_mask

WORDS = ["apple", "river", "stone", "cloud", "green", "happy", "quick", "brown", "seven", "light", "paper", "music"]
GOOD, BAD = "happy", "stone"


def worth(text: str) -> float:
    return 2.0 * text.split().count(GOOD) - 1.0 * text.split().count(BAD)


def society(
    n_prompts: int = 60, *, seed: int = 0, n_responses: int = 4, n_raters: int = 6, careless: int = 0, length: int = 12
) -> sm.Feedback:
    """Pairs among responses to prompts; a response is worth its words. The first `careless` raters answer at random."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("kind", "prompt", "texts", "outcome", "rater", "group")}
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
                columns["group"].append("even" if rater % 2 == 0 else "odd")
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


@pytest.mark.parametrize(
    "people",
    [pytest.param(None, marks=pytest.mark.slow), pytest.param(sm.Groups(min_judgments=5), marks=pytest.mark.slow), sm.Personas(2)],
    ids=["same", "groups", "personas"],
)
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


# ---------------------------------------------------------------------------------------------- reading each token once


def values_of(trainer: FeedbackTrainer, *, share: bool) -> np.ndarray:
    batches = trainer.train_dataset
    batches.share = share
    batches.deal()
    return trainer.values(batches)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
def test_sharing_a_prompt_changes_no_value(tmp_path: Path, tokenizer: Any, kind: str) -> None:
    model = small_model(kind, tokenizer=tokenizer)
    trainer = FeedbackTrainer(model, settings(tmp_path), train_dataset=society(12), processing_class=tokenizer)
    assert trainer.shares_prompts
    with torch.no_grad():
        trainer.head.weight.normal_()
    shared, alone = values_of(trainer, share=True), values_of(trainer, share=False)
    np.testing.assert_allclose(shared, alone, atol=2e-5 * alone.std())
    # and they are those of the stock model, a conversation at a time
    ids = [torch.from_numpy(t.astype(np.int64))[None] for t in trainer.train_dataset.tokens]
    hidden = torch.stack([model.base_model(input_ids=i).last_hidden_state[0, -1] for i in ids])
    np.testing.assert_allclose(alone[:, 0], (hidden @ trainer.head.weight[0]).detach().numpy(), atol=2e-5 * alone.std())


@pytest.mark.parametrize(
    ("kind", "more"), [("bloom", {}), ("mistral", {"sliding_window": 8})], ids=["ALiBi", "a sliding window shorter than the conversations"]
)
def test_a_model_that_reads_trees_otherwise_is_read_plainly(tmp_path: Path, tokenizer: Any, kind: str, more: dict[str, Any]) -> None:
    model = small_model(kind, tokenizer=tokenizer, **more)
    with pytest.warns(UserWarning, match="Every conversation is read on its own"):
        trainer = FeedbackTrainer(model, settings(tmp_path), train_dataset=society(8), processing_class=tokenizer)
    assert not trainer.shares_prompts
    assert trainer.tokens.forward >= trainer.tokens.conversations


def test_each_distinct_token_is_read_once(tmp_path: Path, tokenizer: Any) -> None:
    """Causal models read a prompt once and a response once; encoders, whose prompt depends on the response, each conversation once."""
    feedback = society(200, n_responses=4)
    trainer = FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer), settings(tmp_path, tokens_per_batch=4096), train_dataset=feedback, processing_class=tokenizer
    )  # fmt: skip
    tokens = trainer.train_dataset.tokens
    prompt = feedback.responses["prompt"].to_numpy()
    distinct = 0  # counted otherwise: a set of prefixes, as a trie has nodes, down to where all of a prompt part
    for code in np.unique(prompt):
        mine = [tokens[i] for i in np.flatnonzero(prompt == code)]
        trunk = next(i for i in range(99) if len({t[i] if i < len(t) - 1 else -1 for t in mine}) > 1 or any(i >= len(t) - 1 for t in mine))
        distinct += trunk + sum(len(t) - trunk for t in mine)
    assert trainer.tokens.distinct == distinct
    assert trainer.tokens.forward <= 1.05 * distinct
    assert trainer.tokens.judgments == feedback.n_judgments == 1200
    words = small_tokenizer([" ".join(WORDS)] * 3, bert=True)
    encoder = FeedbackTrainer(small_model("bert", tokenizer=words), settings(tmp_path), train_dataset=feedback, processing_class=words)
    assert encoder.tokens.conversations == sum(len(t) for t in encoder.train_dataset.tokens)
    assert encoder.tokens.forward <= 1.05 * encoder.tokens.conversations


def test_packed_rows_give_the_same_values(tmp_path: Path, tokenizer: Any) -> None:
    feedback = society(12)
    plain, packed = (
        FeedbackTrainer(
            small_model("llama", tokenizer=tokenizer), settings(tmp_path, row_tokens=n), train_dataset=feedback, processing_class=tokenizer
        )
        for n in (0, 400)
    )
    assert packed.train_dataset[0]["tree"].max() > 0
    np.testing.assert_allclose(packed.values(), plain.values(), atol=1e-6)


def test_a_prompt_with_too_many_responses_is_dealt_into_parts(tmp_path: Path, tokenizer: Any) -> None:
    """Every judgment is in one batch, whose responses fit the budget or are two."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 12)) + f" {i}" for i in range(40)]
    pairs = [(int(i), int(j)) for i, j in rng.integers(40, size=(300, 2)) if i != j]
    feedback = sm.Feedback.from_columns(
        {
            "kind": ["pair"] * len(pairs),
            "prompt": ["one prompt"] * len(pairs),
            "texts": [[texts[i], texts[j]] for i, j in pairs],
            "outcome": [("left", "right")[int(rng.integers(2))] for _ in pairs],
        }
    )
    trainer = FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer), settings(tmp_path, tokens_per_batch=200), train_dataset=feedback, processing_class=tokenizer
    )  # fmt: skip
    batches = trainer.train_dataset
    assert len(batches) > 5
    rows = np.concatenate([batches[i]["cells"][0].numpy() for i in range(len(batches))])
    assert sorted(rows) == list(range(len(trainer.objective.cells(0).group)))
    for i in range(len(batches)):
        item = batches[i]
        assert item["ids"].numel() <= 200
        shown = trainer.objective.cells(0).block.shown[item["cells"][0].numpy()]
        assert set(shown.ravel()) == set(item["responses"].numpy())


def test_a_batch_mixes_prompts_that_are_too_large_for_it(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few judgments each about many responses: small parts cost hardly more to read, and no batch is of one prompt."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("kind", "prompt", "texts", "outcome")}
    for p in range(6):
        texts = [" ".join(rng.choice(WORDS, 12)) + f" {i}" for i in range(40)]
        for i, j in rng.integers(40, size=(50, 2)).tolist():
            if i != j:
                columns["kind"].append("pair")
                columns["prompt"].append(f"prompt {p}")
                columns["texts"].append([texts[i], texts[j]])
                columns["outcome"].append(("left", "right")[int(rng.integers(2))])
    feedback = sm.Feedback.from_columns(columns)

    def prompts_and_tokens() -> tuple[float, int]:
        # features of an encoder depend on the whole conversation, so that nothing is shared
        model = small_model("bert", tokenizer=tokenizer)
        trainer = FeedbackTrainer(model, settings(tmp_path), train_dataset=feedback, processing_class=tokenizer)
        items = [trainer.batches[i] for i in range(len(trainer.batches))]
        prompt = trainer.batches.prompt
        return float(np.mean([len(set(prompt[item["responses"].numpy()].tolist())) for item in items])), trainer.tokens.forward

    mixed, tokens = prompts_and_tokens()
    monkeypatch.setattr("seamark.models.objective._PARTS", (2,))
    plain, fewest = prompts_and_tokens()
    assert mixed > 1.5 * plain, (mixed, plain)
    assert tokens < 1.35 * fewest, (tokens, fewest)


def test_a_token_sees_its_own_branch_and_the_trunk() -> None:
    trees = [Tree.of([np.array(p, dtype=np.int32) for p in ([1, 2, 3, 4], [1, 2, 5])]), Tree.of([np.array([7, 8], dtype=np.int32)])]
    rows = lay_out([*trees, Tree.of([np.arange(1, 10, dtype=np.int32)])], 0, row_tokens=9)
    assert rows.ids.tolist() == [[1, 2, 3, 4, 5, 7, 8, 0, 0], list(range(1, 10))]
    assert rows.positions[0].tolist() == [0, 1, 2, 3, 2, 0, 1, 0, 0]
    assert rows.leaves.tolist() == [3, 4, 6, 17]
    sees = (seen_mask(rows.tree, rows.branch, torch.float32)[0, 0] == 0).int().tolist()
    assert sees == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]


# ---------------------------------------------------------------------------------------------- what it learns


def test_the_first_steps_push_values_apart_and_not_one_way(tmp_path: Path, tokenizer: Any) -> None:
    """Ratings that are mostly high: while all values are alike, cut points explain that, and no gradient does."""
    rng = np.random.default_rng(0)
    n = 120
    columns = {
        "kind": ["rating"] * n,
        "prompt": [f"question {i % 20}" for i in range(n)],
        "texts": [[f"{rng.choice(WORDS)} {i}"] for i in range(n)],
        "outcome": ["answered"] * n,
        "rating": rng.choice([7.0, 8.0, 9.0, 10.0], n).tolist(),
        "scale_low": [1.0] * n,
        "scale_high": [10.0] * n,
    }
    model = small_model("llama", tokenizer=tokenizer)
    feedback = sm.Feedback.from_columns(columns)
    objective = FeedbackTrainer(model, settings(tmp_path), train_dataset=feedback, processing_class=tokenizer).objective
    rows = np.arange(len(objective.cells(0).group))
    _, gradient = objective.observed(0, rows, np.zeros((len(rows), 1)))
    assert abs(gradient.sum()) < 0.02 * np.abs(gradient).sum()


def test_it_learns_what_was_planted_and_who_is_careless(tmp_path: Path, tokenizer: Any) -> None:
    feedback = society(150, careless=2)
    train, test = feedback.split(by="prompt", seed=0)
    observation = sm.Observation(effects=[sm.Reliability()])
    trainer = FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer), settings(tmp_path, learning_rate=5e-3, num_train_epochs=6), train_dataset=train, eval_dataset=test,
        processing_class=tokenizer, observation=observation,
    )  # fmt: skip
    trainer.train()
    trainer.refit()
    values = trainer.values(trainer.eval_dataset)[:, 0]
    truth = np.array([worth(t) for t in test.responses["text"]])
    assert np.corrcoef(values, truth)[0, 1] > 0.8
    slopes = trainer.objective.search
    mean = (slopes.posterior * slopes.nodes.slope).sum(1)[:6]
    careless = np.array([name in ("rater 0", "rater 1") for name in train.raters["id"]])
    assert mean[careless].max() < 0.5 * mean[~careless].min()


def test_personas_with_opposite_tastes_are_told_apart(tmp_path: Path, tokenizer: Any) -> None:
    rng = np.random.default_rng(3)
    rows: dict[str, list[Any]] = {name: [] for name in ("kind", "prompt", "texts", "outcome", "rater")}
    for p in range(80):
        texts = [" ".join(rng.choice(WORDS, rng.integers(4, 12))) + f" {i}" for i in range(2)]
        for r in rng.choice(12, 6, replace=False):
            gap = (worth(texts[0]) - worth(texts[1])) * (1 if r < 6 else -1)
            for name, value in zip(
                rows, ("pair", f"Q{p}", texts, "left" if rng.random() < 1 / (1 + np.exp(-gap)) else "right", f"r{r}"), strict=True
            ):
                rows[name].append(value)
    feedback = sm.Feedback.from_columns(rows)
    trainer = FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer), settings(tmp_path, learning_rate=3e-3, num_train_epochs=3), train_dataset=feedback,
        processing_class=tokenizer, people=sm.Personas(2), observation=sm.Observation(effects=[]),
    )  # fmt: skip
    trainer.train()
    trainer.refit()
    member = trainer.objective.search.posterior[:-1, 0].reshape(12, 2)[:, 0]
    first = np.array([int(name[1:]) < 6 for name in feedback.raters["id"]])
    assert abs(member[first].mean() - member[~first].mean()) > 0.9
    values, truth = trainer.values(), np.array([worth(t) for t in feedback.responses["text"]])
    own = values[:, :1] + values[:, 1:]
    correlation = [np.corrcoef(own[:, i], truth)[0, 1] for i in range(2)]
    assert min(correlation) < -0.7
    assert max(correlation) > 0.7


# ---------------------------------------------------------------------------------------------- stopping and going on


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_training import run_to_the_end

if __name__ == "__main__":
    run_to_the_end(Path(sys.argv[1]), kill_at=int(sys.argv[2]))
"""


def run_to_the_end(folder: Path, *, kill_at: int = -1, accumulate: int = 1) -> None:
    """Train, from the last save if there is one, and write where it ends; the process kills itself after step `kill_at`."""

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002  # the callback's signature
            if state.global_step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    tokenizer = small_tokenizer([" ".join(WORDS)] * 3)
    args = settings(
        folder, tokens_per_batch=480, num_train_epochs=2, learning_rate=1e-3, save_strategy="steps", save_steps=3,
        gradient_accumulation_steps=accumulate, warmup_steps=0,
    )  # fmt: skip
    trainer = FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer),
        args,
        train_dataset=society(24, careless=2),
        processing_class=tokenizer,
        callbacks=[Stop()],
    )
    trainer.train(resume_from_checkpoint=True)
    values = trainer.values()
    if args.process_index == 0:
        np.savez(
            folder / "end.npz",
            values=values,
            posterior=trainer.objective.search.posterior,
            weights=np.concatenate([p.detach().numpy().ravel() for p in trainer.reward_model.model.parameters()]),
            steps=trainer.state.global_step,
            batches=len(trainer.train_dataset),
        )


def run_elsewhere(folder: Path, *, kill_at: int = -1, processes: int = 1) -> int:
    """The same in processes of its own; how they ended."""
    script = folder.parent / "run.py"
    script.write_text(SCRIPT.format(paths=[str(Path(__file__).parent), str(Path(__file__).parents[1])]), encoding="utf-8")
    launch = [sys.executable, str(script)]
    if processes > 1:
        launch = [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", str(script),
        ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*launch, str(folder), str(kill_at)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


def test_a_killed_run_goes_on_from_its_last_save_and_ends_where_it_would_have(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(whole)
    assert run_elsewhere(killed, kill_at=8) == -signal.SIGKILL
    last = last_checkpoint(killed)
    assert last is not None
    assert last.endswith("checkpoint-6")  # a save every three steps, killed at the eighth: two are lost
    (killed / "checkpoint-7").mkdir()  # one that was being written when the run ended is passed over
    (killed / "checkpoint-7" / "trainer_state.json").write_text("{", encoding="utf-8")
    run_to_the_end(killed)
    one, two = np.load(whole / "end.npz"), np.load(killed / "end.npz")
    assert one["steps"] == two["steps"] > 8
    np.testing.assert_allclose(two["weights"], one["weights"], atol=1e-7)
    np.testing.assert_allclose(two["posterior"], one["posterior"], atol=1e-7)


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    """The same steps: two processes with a batch each, or one with two batches to a step."""
    run_to_the_end(tmp_path / "one", accumulate=2)
    assert run_elsewhere(tmp_path / "two", processes=2) == 0
    one, two = np.load(tmp_path / "one" / "end.npz"), np.load(tmp_path / "two" / "end.npz")
    assert one["batches"] % 2 == 0
    assert one["steps"] == two["steps"]
    np.testing.assert_allclose(two["weights"], one["weights"], atol=2e-5)
    np.testing.assert_allclose(two["values"], one["values"], atol=2e-4)
    np.testing.assert_allclose(two["posterior"], one["posterior"], atol=1e-3)


# ---------------------------------------------------------------------------------------------- adapters, precision, settings


def test_adapters_are_trained_with_the_head_and_become_part_of_the_weights(tmp_path: Path, tokenizer: Any) -> None:
    """The head of a LoRA run is trained in full and is in what is written: what is read from the folder is what the trainer gave."""
    feedback = society(40)
    base = save_small(tmp_path / "base", tokenizer=tokenizer)
    network = sm.Network(
        str(base), str(tmp_path / "rm"), settings={"lora_r": 4, "learning_rate": 1e-2, "num_train_epochs": 3, "tokens_per_batch": 1500, "use_cpu": True, "disable_tqdm": True}
    )  # fmt: skip
    values: dict[str, np.ndarray] = {}

    class Keep(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002  # the callback's signature
            values["before"] = {name: p.detach().clone() for name, p in given["model"].named_parameters()}  # type: ignore[assignment]

    folder = train_network(feedback, network, callbacks=[Keep()])
    names = values["before"]
    assert any("lora_A" in name for name in names)
    assert any("modules_to_save" in name and "weight" in name for name in names)
    model, before = open_classifier(str(folder)), open_classifier(str(base))
    assert not torch.allclose(model.model.layers[0].self_attn.q_proj.weight, before.model.layers[0].self_attn.q_proj.weight)
    said = sidecar(folder)
    scores = (
        open_reader(str(folder)).reward.features(Conversations.of(tokenizer, positions=2048).of_feedback(feedback))
        @ model.score.weight[0].detach().numpy()
    )
    assert scores.mean() == pytest.approx(said["responses"]["mean"], abs=1e-4)
    assert scores.std() == pytest.approx(said["responses"]["sd"], rel=1e-3)
    truth = np.array([worth(t) for t in feedback.responses["text"]])
    assert np.corrcoef(scores, truth)[0, 1] > 0.5


@pytest.mark.parametrize(
    "head",
    [
        "linear",
        "mean_variance",
        "categorical",
        {"head": "bottleneck", "latent": 8, "beta": 0.001},
        "odin",
        {"head": "ensemble", "members": 3},
    ],
    ids=lambda h: h if isinstance(h, str) else h["head"],
)
def test_every_head_is_trained_written_and_read_by_anyone(tmp_path: Path, tokenizer: Any, head: Any) -> None:
    """What is written scores as the trainer's own values do; a head that is not linear says how near the written one comes."""
    feedback = society(40)
    trainer = FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer), settings(tmp_path, learning_rate=3e-3, num_train_epochs=3), train_dataset=feedback,
        processing_class=tokenizer, observation=sm.Observation(effects=[sm.Reliability()]), head=head,
    )  # fmt: skip
    before = [p.detach().clone() for p in trainer.head.parameters()]
    trainer.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.head.parameters(), strict=True))
    values = trainer.values()[:, 0]
    trainer.write(tmp_path / "rm")
    said = sidecar(tmp_path / "rm")
    scores = open_reader(str(tmp_path / "rm")).reward
    read = scores.features(trainer.batches.tokens) @ scores.last.weight[0].detach().numpy() + said["intercept"]
    if head == "categorical":
        assert np.corrcoef(read, values)[0, 1] ** 2 == pytest.approx(said["linear_r2"], abs=0.01)
    else:
        assert said["linear_r2"] == 1.0
        np.testing.assert_allclose(read, values, atol=1e-4)
    assert said["head"]["head"] == (head if isinstance(head, str) else head["head"])
    # what one score does not say is there too
    with torch.no_grad():
        whole = load_head(tmp_path / "rm")(torch.from_numpy(scores.features(trainer.batches.tokens)))
    np.testing.assert_allclose(whole.reward[:, 0].numpy(), values, atol=1e-4)
    assert (whole.ignorance is not None) == (said["head"]["head"] == "ensemble")
    assert (whole.spread is not None) == (head == "mean_variance")


def test_half_precision_trains_and_checkpointing_changes_nothing(tmp_path: Path, tokenizer: Any) -> None:
    feedback = society(16)
    losses = {}
    for name, more in {"plain": {}, "bf16": {"bf16": True}, "checkpointing": {"activation_checkpointing": True}}.items():
        trainer = FeedbackTrainer(
            small_model("llama", tokenizer=tokenizer), settings(tmp_path / name, **more), train_dataset=feedback, processing_class=tokenizer
        )
        assert trainer.shares_prompts
        losses[name] = trainer.train().training_loss
    assert losses["checkpointing"] == pytest.approx(losses["plain"], abs=1e-6)
    assert losses["bf16"] == pytest.approx(losses["plain"], abs=2e-2)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_encoders_are_trained_as_their_class_reads_them(tmp_path: Path, kind: str) -> None:
    words = small_tokenizer([" ".join(WORDS)] * 3, bert=True)
    model = small_model(kind, tokenizer=words)
    stock = small_model(kind, tokenizer=words)
    feedback = society(20)
    trainer = FeedbackTrainer(model, settings(tmp_path), train_dataset=feedback, processing_class=words)
    assert not trainer.shares_prompts
    with torch.no_grad():
        stock.eval()
        last = stock.classifier
        last.bias.zero_()
        trainer.head.weight.copy_(last.weight)
        expected = [float(stock(input_ids=torch.from_numpy(t.astype(np.int64))[None]).logits[0, 0]) for t in trainer.train_dataset.tokens]
    np.testing.assert_allclose(trainer.values()[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_network_divided_among_devices_is_put_together_to_be_written(tmp_path: Path, kind: str) -> None:
    """FSDP takes devices that are not here; what it gives at the end is the whole state, and that is written as a plain run's is."""
    words = small_tokenizer([" ".join(WORDS)] * 3, bert=kind == "bert")
    trainer = FeedbackTrainer(small_model(kind, tokenizer=words), settings(tmp_path), train_dataset=society(12), processing_class=words)
    trainer.train()
    state = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.write(tmp_path / "plain")
    trainer.gather(state)
    trainer.write(tmp_path / "gathered")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "gathered"))
    assert one == two


def test_the_launch_configurations_are_read_by_accelerate() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    folder = Path(__file__).parents[2] / "examples" / "accelerate"
    read = {path.stem: load_config_from_file(str(path)) for path in sorted(folder.glob("*.yaml"))}
    assert {name: (c.distributed_type.value, c.num_processes, c.num_machines) for name, c in read.items()} == {
        "fsdp_2_machines": ("FSDP", 16, 2),
        "fsdp_8_gpus": ("FSDP", 8, 1),
        "two_processes": ("MULTI_GPU", 2, 1),
    }
    assert read["fsdp_8_gpus"].fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"


# ---------------------------------------------------------------------------------------------- bad input


def trainer_of(tmp_path: Path, feedback: sm.Feedback, tokenizer: Any, **more: Any) -> FeedbackTrainer:
    return FeedbackTrainer(
        small_model("llama", tokenizer=tokenizer), settings(tmp_path, **more), train_dataset=feedback, processing_class=tokenizer
    )


def pairs(*rows: tuple[Any, str, str]) -> sm.Feedback:
    return sm.Feedback.from_columns(
        {
            "kind": ["pair"] * len(rows),
            "prompt": [p if isinstance(p, str) else json.dumps(p) for p, *_ in rows],
            "prompt_is_messages": [not isinstance(p, str) for p, *_ in rows],
            "texts": [[a, b] for _, a, b in rows],
            "outcome": ["left"] * len(rows),
        }
    )


def test_a_tokenizer_without_a_pad_token_is_refused_and_given_one_by_name(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.pad_token = None
    feedback = pairs(("a question", "one answer", "another"))
    with pytest.raises(InvalidSetting, match=r"pad_token is None\. The tokenizer has none.*pad_token='<pad>' adds it"):
        trainer_of(tmp_path, feedback, tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(InvalidSetting, match=r"pad_token is '</s>'\. It is also the token that ends a text"):
        trainer_of(tmp_path, feedback, tokenizer)
    trainer = trainer_of(tmp_path, feedback, tokenizer, pad_token="<padding>")
    assert trainer.model.config.pad_token_id == tokenizer.convert_tokens_to_ids("<padding>") != tokenizer.eos_token_id
    assert trainer.model.get_input_embeddings().weight.shape[0] >= len(tokenizer)


def test_a_conversation_longer_than_the_model_reads_is_refused_or_cut(tmp_path: Path, tokenizer: Any) -> None:
    feedback = pairs(("word " * 80, "one answer", "another"), ("short", "one answer", "another"))
    with pytest.raises(InvalidSetting, match=r"max_length is 40\. 2 of 4 conversations are longer; the longest has \d+ tokens"):
        trainer_of(tmp_path, feedback, tokenizer, max_length=40)
    cut = trainer_of(tmp_path, feedback, tokenizer, max_length=40, overlong="cut")
    assert max(len(t) for t in cut.train_dataset.tokens) == 40
    assert tokenizer.decode(cut.train_dataset.tokens[0]).rstrip().endswith("one answer</s>")
    with pytest.raises(InvalidSetting, match=r"max_length is 4096\. The model has 2048 positions"):
        trainer_of(tmp_path, feedback, tokenizer, max_length=4096)


def test_an_empty_response_and_one_cut_to_its_rival_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(SeamarkError, match=r"1 of 4 responses are empty \(to the prompts 'second'\)"):
        trainer_of(tmp_path, pairs(("first", "one", "two"), ("second", "one", " ")), tokenizer)
    same = "the same end of both answers that is longer than what is read of them, far longer than that"
    with pytest.raises(SeamarkError, match="1 responses are the same tokens as another to the same prompt once they are cut"):
        trainer_of(tmp_path, pairs(("first", "one " + same, "two " + same)), tokenizer, max_length=12, overlong="cut")


def test_turns_and_plain_prompts_do_not_mix(tmp_path: Path, tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "a question"}]
    with pytest.raises(SeamarkError, match=r"1 of 2 prompts are turns of a conversation .* turn one kind into the other before loading"):
        trainer_of(tmp_path, pairs((turns, "one", "two"), ("plain", "one", "two")), tokenizer)
    one, two = (trainer_of(tmp_path, pairs((prompt, "one", "two")), tokenizer) for prompt in (turns, "a question"))
    assert [t.tolist() for t in one.train_dataset.tokens] == [
        t.tolist() for t in two.train_dataset.tokens
    ]  # a plain prompt is the user's turn


def test_a_template_that_cannot_render_the_turns_says_which(tmp_path: Path) -> None:
    strict = small_tokenizer()
    strict.chat_template = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}" + strict.chat_template
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a question"}]
    with pytest.raises(SeamarkError, match=r"cannot render a conversation of system, user, assistant \(user first\)"):
        trainer_of(tmp_path, pairs((turns, "one", "two")), strict)


def test_a_model_without_a_reward_head_is_trained_but_never_scored(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    whole = small_model("llama", tokenizer=tokenizer)
    AutoModelForCausalLM.from_config(whole.config).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(
        UnreadableSource, match=r"it has no reward head \(score\.weight is missing\), and a random one would score at random"
    ):
        open_classifier(str(tmp_path / "lm"))
    with pytest.raises(UnreadableSource, match="no reward head"):
        sm.Reward(str(tmp_path / "lm"))
    FeedbackTrainer(str(tmp_path / "lm"), settings(tmp_path), train_dataset=pairs(("q", "one", "two")))


def test_a_reward_model_is_trained_on_from_its_own_head(tmp_path: Path, tokenizer: Any) -> None:
    """In memory as from a folder: scores before the first step are the model's."""
    model = small_model("llama", tokenizer=tokenizer)
    model.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    head = model.score.weight.detach().clone()
    feedback = pairs(("q", "one", "two"))
    for given in (model, str(tmp_path / "reward")):
        trainer = FeedbackTrainer(given, settings(tmp_path / "run"), train_dataset=feedback, processing_class=tokenizer)
        assert torch.equal(trainer.head.weight.detach(), head)


def test_a_model_that_is_in_a_trainer_is_not_taken_into_another(tmp_path: Path, tokenizer: Any) -> None:
    model, feedback = small_model("llama", tokenizer=tokenizer), pairs(("q", "one", "two"))
    FeedbackTrainer(model, settings(tmp_path), train_dataset=feedback, processing_class=tokenizer)
    with pytest.raises(InvalidSetting, match="It is in another trainer"):
        FeedbackTrainer(model, settings(tmp_path), train_dataset=feedback, processing_class=tokenizer)


def test_settings_that_do_not_exist_or_contradict_are_refused(tmp_path: Path) -> None:
    feedback = pairs(("q", "one", "two"))
    with pytest.raises(InvalidSetting, match="There is no such setting; did you mean learning_rate"):
        train_network(feedback, sm.Network("model", str(tmp_path / "out"), settings={"learningrate": 1}))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidSetting, match="Batches are made by tokens"):
        settings(tmp_path, per_device_train_batch_size=4)
    with pytest.raises(InvalidSetting, match="tokens_per_batch is 0"):
        settings(tmp_path, tokens_per_batch=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidSetting, match="something else in it"):
        train_network(feedback, sm.Network("model", str(tmp_path / "full")))
