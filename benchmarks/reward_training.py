"""Training a reward model beside TRL's RewardTrainer: the same model, the same labels, time, memory and tokens.

    python benchmarks/reward_training.py                       every case that has not been measured yet
    python benchmarks/reward_training.py --cases pairs chat    some of them (--list says which there are)
    python benchmarks/reward_training.py --learn               what both have learnt after equal epochs, on held-out prompts
    python benchmarks/reward_training.py --gpu                 the cases in bf16 on a model of half a billion weights; needs CUDA
    python benchmarks/reward_training.py --write               the tables of docs/, from what has been measured

A measurement is a fresh process: it trains on a few prompts to warm up, then times whole epochs, from the first batch to the last
step of the optimiser (tokenising is timed apart). Sides take turns, round by round, and a ratio is made within its round; shown are
the median over rounds and their range. Texts are made so that a small model can learn which is better: words have worths, a response is
worth their mean, and raters answer by it with noise. Every text is one token a word for either side, and nothing is cut or dropped.

Forward tokens are counted where both sides must pass, at the embedding, padding included. Distinct tokens are counted from the texts:
a prompt once and each of its responses once; where a model reads in both directions, whose states of a prompt depend on the
response, each prompt and response once.

Every finished run is a line of benchmarks/results/reward_training.jsonl, and is not run again: remove lines to measure anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results"
START, END = "<!-- reward training: written by benchmarks/reward_training.py --write -->", "<!-- end of reward training -->"
LEARNT_START = "<!-- what reward training learns: written by benchmarks/reward_training.py --write -->"
LEARNT_END = "<!-- end of what reward training learns -->"
PACKAGES = ("seamark", "torch", "transformers", "trl", "accelerate")
WORDS = 1000
"""Words of the vocabulary."""
PAIRS_A_STEP = 8
"""Pairs per step of TRL's trainer: its default."""
SIDES = ("trl", "seamark")
TERMS = ("contrastive", "meta")
"""Of `reward_terms.py`: Seamark's trainer with one more term."""


@dataclass(frozen=True)
class Case:
    """Prompts with responses and how they are judged."""

    key: str
    title: str
    n_prompts: int
    prompt_words: int
    """0: lengths of short chat, ragged."""
    response_words: int
    n_responses: int = 2
    n_raters: int = 1
    """Judgments of each pair, by different people."""
    kind: str = "llama"
    """Architecture of the model."""
    goals: tuple[tuple[str, float], ...] = ()
    """(what, goal): tokens at most, speed and default at least."""
    tokens_per_batch: int = 4096
    precisions: tuple[str, ...] = ("fp32", "bf16")


CASES: tuple[Case, ...] = (
    Case(
        "pairs",
        "pairs: a prompt of 400 tokens, two responses of 100",
        48,
        400,
        100,
        goals=(("tokens", 1.05), ("speed", 1.45)),
        tokens_per_batch=4864,
    ),
    Case("chat", "short chat, ragged lengths, two responses", 384, 0, 0, goals=(("tokens", 1.05), ("speed", 2.0))),
    Case(
        "rlhf",
        "four responses a prompt, all six pairs, three raters; 400 and 100 tokens",
        5,
        400,
        100,
        n_responses=4,
        n_raters=3,
        goals=(("tokens", 1.05), ("speed", 17.0), ("default", 20.0)),
        precisions=("fp32", "bf16", "default"),
    ),
    Case(
        "rlhf-qwen3",
        "the same with a Qwen3",
        5,
        400,
        100,
        n_responses=4,
        n_raters=3,
        kind="qwen3",
        precisions=("fp32",),
        goals=(("tokens", 1.05), ("speed", 17.0)),
    ),
    Case(
        "bidirectional",
        "the same with a BERT, which reads in both directions",
        5,
        400,
        100,
        n_responses=4,
        n_raters=3,
        kind="bert",
        precisions=("fp32",),
        goals=(("tokens", 1.05),),
    ),
)
LEARN: tuple[Case, ...] = (
    Case("learn-pairs", "pairs", 600, 48, 24, tokens_per_batch=1024),
    Case("learn-rlhf", "four responses, all six pairs, three raters", 40, 48, 24, n_responses=4, n_raters=3, tokens_per_batch=512),
)
"""Shorter texts and more of them: what is learnt, not how fast."""
RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates of which each side takes what is best on prompts held out for that."""


@dataclass(frozen=True)
class Shape:
    """Size of the model. By default four layers of 256: 3.2 million weights in blocks."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 4
    intermediate: int = 688


LEARNER = Shape(128, 2, 4, 4, 344)
"""Of what learns."""
HALF_A_BILLION = Shape(1024, 28, 16, 8, 3072)
"""That of Qwen3-0.6B: 0.44 billion weights in blocks."""


# ---------------------------------------------------------------------------------------------- texts and judgments


@dataclass(frozen=True)
class Judged:
    """Texts, what they are worth and what raters said."""

    prompts: list[str]
    responses: list[list[str]]
    worth: list[list[float]]
    """Of each response, in standard deviations."""
    judgments: list[tuple[int, int, int, int]]
    """(prompt, preferred response, other response, rater)."""


def judged(case: Case, n_prompts: int, *, seed: int) -> Judged:
    """Prompts, responses and judgments; P(left) = sigmoid(slope of the rater * 2 (worth left - worth right)).

    Half of the words have a worth, normal with sd 1; a response is worth the mean of its words, and responses of a prompt prefer good
    words by a tilt of their own, so that they differ by more than chance draws would.
    """
    rng = np.random.default_rng([seed, n_prompts, case.n_responses])
    # what a word is worth is the same for all seeds that split data: it is the thing to be learnt
    worth = np.where(np.arange(WORDS) % 2 == 0, np.random.default_rng(5).normal(0, 1.0, WORDS), 0.0)
    slope = np.exp(np.random.default_rng(6).normal(0, 0.5, 20))
    lengths = _lengths(case, n_prompts, rng)
    prompts, responses, worths, judgments = [], [], [], []
    for number in range(n_prompts):
        prompts.append(_text(rng.integers(0, WORDS, lengths[number][0])))
        made, value = [], []
        for count in lengths[number][1:]:
            weight = np.exp(rng.normal(0, 0.5) * worth)
            words = rng.choice(WORDS, count, p=weight / weight.sum())
            made.append(_text(words))
            value.append(float(worth[words].mean() / 0.4))
        responses.append(made)
        worths.append(value)
        for left, right in combinations(range(case.n_responses), 2):
            for rater in rng.choice(len(slope), case.n_raters, replace=False).tolist():
                won = rng.random() < 1 / (1 + np.exp(-slope[rater] * 2 * (value[left] - value[right])))
                judgments.append((number, left, right, rater) if won else (number, right, left, rater))
    order = rng.permutation(len(judgments))
    return Judged(prompts, responses, worths, [judgments[i] for i in order])


def _text(words: NDArray[np.int64]) -> str:
    """Words that a tokenizer can tell apart with or without spaces between texts."""
    return " " + " ".join(f"w{word}" for word in words.tolist())


def _lengths(case: Case, n_prompts: int, rng: np.random.Generator) -> list[list[int]]:
    """Words of each prompt and its responses."""
    if case.prompt_words:
        return [[case.prompt_words, *[case.response_words] * case.n_responses]] * n_prompts
    folder = os.environ.get("SEAMARK_TEST_DATA")
    path = Path(folder or "") / "hh_rlhf_harmless_test" / "pairs.parquet"
    if folder and path.exists():
        import polars as pl

        columns = ("prompt", "chosen_response", "rejected_response")
        counts = pl.read_parquet(path).select(pl.col(name).str.split(" ").list.len() for name in columns).to_numpy()
        drawn = counts[rng.integers(0, len(counts), n_prompts)]
    else:  # medians and spreads of that set
        prompt = np.exp(rng.normal(np.log(60), 1.1, n_prompts))
        drawn = np.column_stack([prompt, *np.exp(rng.normal(np.log(24), 1.0, (2, n_prompts)))])
    return np.clip(drawn, 2, 480).astype(int).tolist()


def lengths_of_chat() -> str:
    """Where the ragged lengths come from."""
    folder = os.environ.get("SEAMARK_TEST_DATA")
    real = folder and (Path(folder) / "hh_rlhf_harmless_test" / "pairs.parquet").exists()
    return "HH-RLHF harmless (words, up to 480)" if real else "log-normal, medians 60 and 24 words, sd of logs 1.1 and 1.0, up to 480"


def as_pairs(made: Judged) -> dict[str, list[str]]:
    """As TRL reads them: a row a judgment."""
    return {
        "prompt": [made.prompts[p] for p, _, _, _ in made.judgments],
        "chosen": [made.responses[p][a] for p, a, _, _ in made.judgments],
        "rejected": [made.responses[p][b] for p, _, b, _ in made.judgments],
    }


def as_feedback(made: Judged) -> Any:
    """As Seamark reads them; the preferred response is shown left and right in turn."""
    import seamark as sm

    texts, outcomes = [], []
    for row, (p, a, b, _) in enumerate(made.judgments):
        texts.append([made.responses[p][a], made.responses[p][b]] if row % 2 else [made.responses[p][b], made.responses[p][a]])
        outcomes.append("left" if row % 2 else "right")
    n = len(outcomes)
    columns = {"kind": ["pair"] * n, "prompt": [made.prompts[p] for p, _, _, _ in made.judgments], "texts": texts, "outcome": outcomes}
    return sm.Feedback.from_columns(columns | {"rater": [f"rater-{r}" for _, _, _, r in made.judgments]})


def conversation(made: Judged, prompt: int, response: int, tokenizer: Any) -> str:
    """What is read of a response; BERT's tokenizer ends texts by itself."""
    return made.prompts[prompt] + made.responses[prompt][response] + ("" if tokenizer.sep_token else tokenizer.eos_token)


def distinct_tokens(made: Judged, tokenizer: Any, *, bidirectional: bool) -> int:
    """Each prompt once and each response that was judged once; or each judged response with its prompt once."""
    shown = sorted({(p, r) for p, a, b, _ in made.judgments for r in (a, b)})
    prompt = {p: len(tokenizer(made.prompts[p], add_special_tokens=False)["input_ids"]) for p, _ in shown}
    whole = {(p, r): len(tokenizer(conversation(made, p, r, tokenizer))["input_ids"]) for p, r in shown}
    if bidirectional:
        return sum(whole.values())
    start = len(tokenizer("")["input_ids"])  # the token that texts begin with belongs to the prompt
    return sum(count + start for count in prompt.values()) + sum(whole[p, r] - prompt[p] - start for p, r in shown)


# ---------------------------------------------------------------------------------------------- models


def word_tokenizer(*, bert: bool = False) -> Any:
    """One token a word; texts begin with <s> (BERT: [CLS], and end with [SEP])."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if bert:
        special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    names = [*dict.fromkeys(special.values()), *(f"w{word}" for word in range(WORDS))]
    raw = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=special["unk_token"]))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"w\d+"), behavior="removed", invert=True)
    first = special["cls_token"] if bert else special["bos_token"]
    template = f"{first} $A {special['sep_token']}" if bert else f"{first} $A"
    used = [(name, raw.token_to_id(name)) for name in template.split() if name != "$A"]
    raw.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=2048, **special)


def network(kind: str, tokenizer: Any, shape: Shape, *, seed: int, **more: Any) -> Any:
    """A model with one score and random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": 1,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": 1024,
    }
    if kind == "bert":
        settings |= {"intermediate_size": 4 * shape.hidden}
    else:
        settings |= {"intermediate_size": shape.intermediate, "num_key_value_heads": shape.key_value_heads}
        settings |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        settings |= {"head_dim": shape.hidden // shape.heads} if kind == "qwen3" and shape != HALF_A_BILLION else {}
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **settings), **more)


def block_weights(model: Any) -> int:
    """Weights outside the embedding: what matrix products are made with."""
    return sum(w.numel() for w in model.parameters()) - sum(w.numel() for w in model.get_input_embeddings().parameters())


def scores(model: Any, tokenizer: Any, texts: Sequence[str], *, rows: int = 64) -> NDArray[np.float64]:
    """What the model gives whole texts, for either side alike."""
    import torch

    model.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), rows):
            batch = tokenizer(list(texts[start : start + rows]), padding=True, return_tensors="pt").to(model.device)
            found.append(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].double().cpu().numpy())
    return np.concatenate(found)


# ---------------------------------------------------------------------------------------------- the two sides


@dataclass(frozen=True)
class Training:
    """How a side trains."""

    precision: str = "fp32"
    """fp32, bf16 (autocast), or default: bf16 with gradient checkpointing, as TRL has it if nothing is said."""
    epochs: int = 1
    rate: float = 1e-3
    seed: int = 0
    tokens_per_batch: int = 4096


def trainer_of(side: str, model: Any, tokenizer: Any, made: Judged, folder: str, training: Training, callbacks: list[Any]) -> Any:
    """A trainer that has tokenised its data."""
    half, checkpointing = training.precision != "fp32", training.precision == "default"
    settings: dict[str, Any] = {"output_dir": folder, "learning_rate": training.rate, "num_train_epochs": training.epochs}
    settings |= {"bf16": half, "gradient_checkpointing": checkpointing, "seed": training.seed, "save_strategy": "no", "report_to": "none"}
    settings |= {
        "disable_tqdm": True,
        "logging_strategy": "no",
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "use_cpu": _on_cpu(model),
    }
    if side == "trl":
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        rows = as_pairs(made)
        args = RewardConfig(per_device_train_batch_size=PAIRS_A_STEP, **settings)
        trainer = RewardTrainer(model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer, callbacks=callbacks)
        if len(trainer.train_dataset) != len(rows["prompt"]):
            raise RuntimeError(f"TRL dropped {len(rows['prompt']) - len(trainer.train_dataset)} pairs over its max_length")
        return trainer
    from seamark.models.training import FeedbackTrainer, NetworkConfig

    args = NetworkConfig(tokens_per_batch=training.tokens_per_batch, **settings)
    given: dict[str, Any] = {"args": args, "train_dataset": as_feedback(made), "processing_class": tokenizer, "callbacks": callbacks}
    if side == "seamark":
        return FeedbackTrainer(model, **given)
    from reward_terms import TERMS as CLASSES

    if side == "meta":  # as many responses again that nobody judged, as a policy would write
        case = replace(LEARN[0], n_responses=len(made.responses[0]))
        given["eval_dataset"] = as_feedback(judged(case, len(made.prompts), seed=50_000 + training.seed))
    return CLASSES[side](model, **given)


def finish(side: str, trainer: Any, folder: str) -> Any:
    """The model as it is saved and loaded by others: Seamark's trainer reads it through a head of its own until then."""
    if side != "trl":
        trainer.write(Path(folder) / "reward")
    return trainer.model


def _on_cpu(model: Any) -> bool:
    return model.device.type == "cpu"


def clock() -> Any:
    """A callback that notes when epochs end, and how many steps were made."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []
            self.cpu: list[float] = []
            self.steps = 0

        def _mark(self) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())
            self.cpu.append(time.process_time())

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._mark()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self._mark()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.steps += 1

    return Clock()


def child(case: Case, side: str, shape: Shape, training: Training, *, device: str) -> dict[str, Any]:
    """Warm up on a few prompts, then train on all and count."""
    import torch

    bidirectional = case.kind == "bert"
    tokenizer = word_tokenizer(bert=bidirectional)
    more = {"dtype": torch.float32}
    counted = {"tokens": 0, "padding": 0}

    def count(_module: Any, inputs: tuple[Any, ...]) -> None:
        counted["tokens"] += inputs[0].numel()
        counted["padding"] += int((inputs[0] == tokenizer.pad_token_id).sum())

    with tempfile.TemporaryDirectory() as folder:
        warm = judged(case, max(2, min(case.n_prompts, 16) // (case.n_responses * case.n_raters)), seed=1)
        # a model of its own: Seamark's trainer takes a model over
        model = network(case.kind, tokenizer, shape, seed=training.seed, **more).to(device)
        trainer_of(side, model, tokenizer, warm, folder, training, []).train()
        model = network(case.kind, tokenizer, shape, seed=training.seed, **more).to(device)
        made = judged(case, case.n_prompts, seed=0)
        times = clock()
        start = time.perf_counter()
        trainer = trainer_of(side, model, tokenizer, made, folder, training, [times])
        prepare_s = time.perf_counter() - start
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        handle = model.get_input_embeddings().register_forward_pre_hook(count)
        trainer.train()
        handle.remove()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1024**2 if sys.platform == "darwin" else 1024
    epochs = [after - before for before, after in pairwise(times.marks)]
    distinct = distinct_tokens(made, tokenizer, bidirectional=bidirectional)
    found: dict[str, Any] = {
        "epoch_s": epochs,
        "cpu_s": [after - before for before, after in pairwise(times.cpu)],
        "judgments": len(made.judgments),
        "steps": times.steps / len(epochs),
        "forward": counted["tokens"] / len(epochs),
        "padding": counted["padding"] / len(epochs),
        "distinct": distinct,
        "prepare_s": prepare_s,
        "peak_mib": peak / scale,
        "before_mib": base / scale,
        "block_weights": block_weights(model),
    }
    if device == "cuda":
        found |= {"device_mib": torch.cuda.max_memory_allocated() / 2**20, "device": torch.cuda.get_device_name(), "rate": matrix_rate()}
    return found


def matrix_rate() -> float:
    """Floating-point operations a second of large bf16 matrix products, as measured here and now."""
    import torch

    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        left @ right
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start)


def learn(case: Case, side: str, shape: Shape, *, seed: int, epochs: int, rates: Sequence[float]) -> dict[str, Any]:
    """Accuracy on pairs of held-out prompts after equal epochs, against what is true, and the learning rate that was chosen for it.

    Each rate is tried on four fifths of the training prompts and tested on the fifth; then all are trained on with the best.
    """
    tokenizer = word_tokenizer(bert=case.kind == "bert")
    made, held = judged(case, case.n_prompts, seed=100 + seed), judged(case, 400, seed=10_000 + seed)
    cut = case.n_prompts * 4 // 5

    def accuracy(train: Judged, test: Judged, rate: float) -> tuple[float, list[float], float]:
        model = network(case.kind, tokenizer, shape, seed=seed)
        training = Training(epochs=epochs, rate=rate, seed=seed, tokens_per_batch=case.tokens_per_batch)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            trainer = trainer_of(side, model, tokenizer, train, folder, training, [])
            trainer.train()
            seconds = time.perf_counter() - start
            model = finish(side, trainer, folder)
        texts = [conversation(test, p, r, tokenizer) for p in range(len(test.prompts)) for r in range(case.n_responses)]
        value = scores(model, tokenizer, texts).reshape(len(test.prompts), case.n_responses)
        truth = np.array(test.worth)
        hits = [
            np.where(value[:, a] == value[:, b], 0.5, (value[:, a] > value[:, b]) == (truth[:, a] > truth[:, b]))
            for a, b in combinations(range(case.n_responses), 2)
        ]
        by_prompt = np.mean(hits, axis=0)
        return float(by_prompt.mean()), by_prompt.tolist(), seconds

    first, second = _prompts_below(made, cut), _prompts_from(made, cut)
    tried = {rate: accuracy(first, second, rate)[0] for rate in rates} if len(rates) > 1 else {rates[0]: 0.0}
    best = max(tried, key=lambda rate: tried[rate])
    reached, by_prompt, seconds = accuracy(made, held, best)
    return {"accuracy": reached, "by_prompt": by_prompt, "rate": best, "tried": tried, "seconds": seconds, "judgments": len(made.judgments)}


def _prompts_below(made: Judged, cut: int) -> Judged:
    return Judged(made.prompts[:cut], made.responses[:cut], made.worth[:cut], [j for j in made.judgments if j[0] < cut])


def _prompts_from(made: Judged, cut: int) -> Judged:
    rest = [(p - cut, a, b, r) for p, a, b, r in made.judgments if p >= cut]
    return Judged(made.prompts[cut:], made.responses[cut:], made.worth[cut:], rest)


# ---------------------------------------------------------------------------------------------- runs


def measured(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] if path.exists() else []


def machine() -> dict[str, Any]:
    """When, and with what, this was measured."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    load = round(os.getloadavg()[0], 1)
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%S"), "python": platform.python_version(), "load": load, "versions": versions}


def run(job: dict[str, Any], *, threads: int, timeout_s: float) -> dict[str, Any]:
    """What a process of its own reports, or why it does not."""
    environment = dict(os.environ) | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    environment |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(job)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=HERE, env=environment)
    late = threading.Timer(timeout_s, lambda: os.killpg(process.pid, signal.SIGKILL))
    late.start()
    out, errors = process.communicate()
    timed_out = not late.is_alive()
    late.cancel()
    if process.returncode == 0:
        return json.loads(out.decode().splitlines()[-1])
    said = errors.decode(errors="replace").strip().splitlines()
    return {"failed": f"over {timeout_s:.0f} s" if timed_out else (said[-1] if said else f"exit {process.returncode}")[:200]}


def report_of(job: dict[str, Any]) -> dict[str, Any]:
    """A job's result, in the process made for it."""
    import torch
    import transformers

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    transformers.logging.set_verbosity_error()
    known = {case.key: case for case in (*CASES, *LEARN)}
    case = Case(**(asdict(known[job["case"]]) | job.get("size", {})))
    shape = Shape(**job["shape"])
    if "seed" in job:
        return learn(case, job["side"], shape, seed=job["seed"], epochs=job["epochs"], rates=job["rates"])
    training = Training(precision=job["precision"], epochs=job["epochs"], tokens_per_batch=case.tokens_per_batch)
    return child(case, job["side"], shape, training, device=job["device"])


def run_cases(cases: Sequence[Case], given: argparse.Namespace) -> None:
    """Rounds in which all sides and precisions take turns."""
    log, done = _log(given)
    shape = HALF_A_BILLION if given.gpu else Shape(**(given.shape or {}))
    device = "cuda" if given.gpu else "cpu"
    for index in range(given.rounds):
        for case in cases:
            for precision in ("bf16", "default") if given.gpu else given.precisions:
                # the variants of rlhf show that other architectures do the same
                if not given.gpu and precision not in case.precisions:
                    continue
                for side in ("trl",) if precision == "default" else SIDES if index % 2 == 0 else SIDES[::-1]:
                    epochs = given.epochs if side == "seamark" else 1
                    job = {"case": case.key, "side": side, "precision": precision, "round": index, "device": device}
                    if tuple(job.values()) in done:
                        continue
                    found = run(
                        job | {"shape": asdict(shape), "size": given.size, "epochs": epochs}, threads=given.threads, timeout_s=given.timeout
                    )
                    _keep(log, job | found)
                    shown = found.get("failed") or f"{median(found['epoch_s']) / found['judgments']:.4g} s a judgment"
                    print(f"{case.key:14} {precision:8} {side:8} round {index + 1}: {shown}", file=sys.stderr, flush=True)


def run_learn(given: argparse.Namespace) -> None:
    """What both have learnt, seed by seed."""
    log, done = _log(given)
    for seed in range(given.seeds):
        for case in LEARN:
            for side in (*SIDES, *(TERMS if given.terms else ())):
                job = {"case": case.key, "side": side, "seed": seed}
                if tuple(job.values()) in done:
                    continue
                more = {"shape": given.shape or asdict(LEARNER), "size": given.size, "epochs": given.learn_epochs, "rates": given.rates}
                found = run(job | more, threads=given.threads, timeout_s=given.timeout)
                _keep(log, job | {"epochs": given.learn_epochs} | found)
                shown = found.get("failed") or f"{found['accuracy']:.3f} at {found['rate']:g}"
                print(f"{case.key:14} {side:8} seed {seed}: {shown}", file=sys.stderr, flush=True)


def _log(given: argparse.Namespace) -> tuple[Path, set[tuple[Any, ...]]]:
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / "reward_training.jsonl"
    keys = ("case", "side", "precision", "round", "device", "seed")
    return path, {tuple(r[key] for key in keys if key in r) for r in measured(path) if "failed" not in r}


def _keep(log: Path, record: dict[str, Any]) -> None:
    with log.open("a", encoding="utf-8") as out:
        out.write(json.dumps(record | machine()) + "\n")


# ---------------------------------------------------------------------------------------------- tables


def _seconds(run: dict[str, Any], of: str = "epoch_s") -> float:
    """Of a judgment, on the clock or (cpu_s) of the processor."""
    return median(run[of]) / run["judgments"]


def _ratios(runs: list[dict[str, Any]], case: str, theirs: str, ours: str, by: str = "epoch_s") -> list[float]:
    """TRL's seconds over ours, round by round."""

    def of(side: str, precision: str) -> dict[int, float]:
        return {r["round"]: _seconds(r, by) for r in runs if (r["case"], r["side"], r["precision"]) == (case, side, precision)}

    them, us = of("trl", theirs), of("seamark", ours)
    return [them[index] / us[index] for index in sorted(them.keys() & us.keys())]


def _spread(values: list[float], form: str = ".3g") -> str:
    """Median, range and n."""
    if not values:
        return "not measured"
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}] of {len(values)}"


def table(runs: list[dict[str, Any]], device: str) -> str:
    """Every case, side and precision."""
    heads = [
        "case",
        "what",
        "precision",
        "judgments / s",
        "times TRL",
        "forward tokens",
        "of them padding",
        "distinct",
        "forward / distinct",
    ]
    heads += ["judgments a step", "tokenising s", "peak MiB"] + (["share of the matrix rate"] if device == "cuda" else [])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for case in CASES:
        for precision in ("fp32", "bf16", "default"):
            for side in SIDES:
                good = [r for r in runs if (r["case"], r.get("precision"), r["side"]) == (case.key, precision, side) and "epoch_s" in r]
                good = [r for r in good if r["device"] == device]
                if not good:
                    continue
                last, name = good[-1], "**Seamark**" if side == "seamark" else "TRL"
                both = [r for r in runs if "epoch_s" in r and r["device"] == device]
                ratio, by_cpu = (_spread(_ratios(both, case.key, precision, precision, by)) for by in ("epoch_s", "cpu_s"))
                cells = [case.title, name, {"default": "bf16, checkpointing (TRL's default)"}.get(precision, precision)]
                cells += [_spread([1 / _seconds(r) for r in good]), *((ratio, by_cpu) if side == "seamark" else ("1", "1"))]
                cells += [f"{last[key]:,.0f}" for key in ("forward", "padding", "distinct")]
                cells += [f"{last['forward'] / last['distinct']:.3f}", f"{last['judgments'] / last['steps']:.3g}"]
                cells += [f"{median(r['prepare_s'] for r in good):.2g}"]
                cells += [f"{median(r.get('device_mib', r['peak_mib']) for r in good):,.0f}"]
                if device == "cuda":
                    work = 6 * last["block_weights"] * last["forward"]
                    cells.append(f"{median(work / median(r['epoch_s']) / r['rate'] for r in good):.2f}")
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(runs: list[dict[str, Any]]) -> str:
    """What was asked for and what was reached."""
    lines = ["| goal | reached |", "| --- | --- |"]
    for case in CASES:
        own = [r for r in runs if r["case"] == case.key and "epoch_s" in r and r["device"] == "cpu"]
        for what, goal in case.goals:
            if what == "tokens":
                ratio = [r["forward"] / r["distinct"] for r in own if r["side"] == "seamark"]
                each = "prompt with its response" if case.kind == "bert" else "prompt and response"
                shown = f"{max(ratio):.3f}" if ratio else "not measured"
                lines.append(f"| `{case.key}`: at most {goal:g} forward tokens for a token of each distinct {each} | {shown} |")
                continue
            for precision in ("fp32", "bf16") if what == "speed" else ("bf16",):
                found = _ratios(own, case.key, "default" if what == "default" else precision, precision)
                against = "TRL's defaults" if what == "default" else f"TRL, {precision}, no checkpointing in either"
                if found:
                    lines.append(f"| `{case.key}`: {goal:g} times {against} | {_spread(found)} rounds |")
    return "\n".join(lines)


def learnt(runs: list[dict[str, Any]]) -> str:
    """Held-out accuracy at equal epochs, and the paired difference with its interval over seeds."""
    from scipy.stats import t as student

    titles = {
        "trl": "TRL",
        "seamark": "Seamark",
        "contrastive": "Seamark with a contrastive term",
        "meta": "Seamark with a meta-learning step",
    }
    lines = ["| case | epochs | judgments | what | accuracy | beside | difference | seeds |", "|" + " --- |" * 8]
    for case in LEARN:
        for side, other in (("seamark", "trl"), *((term, "seamark") for term in TERMS)):
            ours, theirs = (
                {r["seed"]: r for r in runs if (r["case"], r["side"]) == (case.key, name) and "accuracy" in r} for name in (side, other)
            )
            seeds = sorted(ours.keys() & theirs.keys())
            if not seeds:
                continue
            a, b = (np.array([found[seed]["accuracy"] for seed in seeds]) for found in (ours, theirs))
            gap, one = a - b, ours[seeds[0]]
            half = student.ppf(0.975, len(seeds) - 1) * gap.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else float("inf")
            lines.append(
                f"| {case.title} | {one['epochs']} | {one['judgments']:,} | {titles[side]} | {a.mean():.3f} | {titles[other]}: {b.mean():.3f} "
                f"| {gap.mean():+.3f} [{gap.mean() - half:+.3f}, {gap.mean() + half:+.3f}] | {len(seeds)} |"
            )
    return "\n".join(lines)


def report(runs: list[dict[str, Any]]) -> str:
    """All that has been measured."""
    where = runs[-1]
    named = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    parts = [
        "`python benchmarks/reward_training.py`, with `--learn`, then with `--write`. A random model of four layers of 256 (3.2 million weights "
        "in blocks), two threads. A run is a fresh process that warms up on a few prompts and then times whole epochs; sides take turns, and "
        "ratios are made within a round; shown are median, range and number of rounds. Forward tokens are counted at the embedding, padding "
        f"included, an epoch. Lengths of short chat: {lengths_of_chat()}. Peak MiB is that of the whole process, imports included. Python "
        f"{where['python']}, {named}; load of the machine while measuring {min(r['load'] for r in runs):g} to {max(r['load'] for r in runs):g}.",
        goals(runs),
        table(runs, "cpu"),
    ]
    if any(r.get("device") == "cuda" for r in runs):
        one = next(r for r in runs if r.get("device") == "cuda" and "rate" in r)
        said = (
            f"On {one['device']}, random models of {one['block_weights'] / 1e9:.2f} billion weights in blocks; the matrix rate is that of bf16 "
            f"products of 8,192 x 8,192 there, {one['rate'] / 1e12:.0f} TFLOP/s, and the share counts six operations a weight and forward token."
        )
        parts += [said, table(runs, "cuda")]
    return "\n\n".join(parts)


def report_learnt(runs: list[dict[str, Any]]) -> str:
    """What was learnt, with how it was measured."""
    said = (
        "`python benchmarks/reward_training.py --learn --terms`, then `--write`. After equal epochs on the same judgments: the share of pairs of 400 "
        "held-out prompts put in their true order. Prompts of 48 tokens, responses of 24, a Llama of two layers of 128; raters are noisy, their "
        f"slopes differ. Each side takes the best of the learning rates {', '.join(map(str, RATES))} on a fifth of its training prompts. Intervals are "
        "Student's t over seeds: data, model and order differ."
    )
    return f"{said}\n\n{learnt(runs)}"


def write(given: argparse.Namespace) -> None:
    """The parts of docs/benchmarks.md between the marks, as far as they have been measured here."""
    runs = measured(given.results / "reward_training.jsonl")
    if not runs:
        raise SystemExit("nothing has been measured yet; run without --write first")
    page = given.docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    timed, learning = [r for r in runs if "accuracy" not in r], [r for r in runs if "accuracy" in r]
    for start, end, made in (
        (START, END, report(timed) if timed else ""),
        (LEARNT_START, LEARNT_END, report_learnt(learning) if learning else ""),
    ):
        if start not in text or end not in text:
            raise SystemExit(f"{page} has no line {start!r} and {end!r} to write between")
        if made:
            text = f"{text.split(start)[0]}{start}\n\n{made}\n\n{end}{text.split(end, 1)[1]}"
    page.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="what to measure (default: everything)")
    parser.add_argument("--list", action="store_true", help="the cases, and end")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of ours that are timed in a run; TRL's is one")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "default"])
    parser.add_argument("--learn", action="store_true", help="held-out accuracy at equal epochs instead of time")
    parser.add_argument(
        "--terms", action="store_true", help="in --learn, also the trainer with a contrastive term, and with a meta-learning step"
    )
    parser.add_argument("--learn-epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5, help="of --learn")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="learning rates to choose from in --learn")
    parser.add_argument("--gpu", action="store_true", help="on a CUDA device, bf16, a model of 0.4 billion weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds after which a process is stopped")
    parser.add_argument("--shape", type=json.loads, default={}, help="another size of model, as JSON")
    parser.add_argument("--size", type=json.loads, default={}, help="other settings of the cases, as JSON, to see that they run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished runs")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md, for --write")
    parser.add_argument("--write", action="store_true", help="write the tables of what has been measured, and measure nothing")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(report_of(given.child)))
        return 0
    known = {case.key: case for case in CASES}
    if given.list:
        print("\n".join(f"{case.key:14} {case.title}" for case in CASES))
        return 0
    if unknown := set(given.cases or ()) - set(known):
        parser.error(f"unknown case {sorted(unknown)[0]!r}; use {', '.join(known)}")
    given.results = given.results.resolve()  # a child runs in another folder
    if given.write:
        write(given)
        return 0
    if given.gpu:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("There is no CUDA device here; --gpu measures nothing without one.")
    if given.learn:
        run_learn(given)
        print(learnt(measured(given.results / "reward_training.jsonl")))
        return 0
    run_cases([known[key] for key in given.cases or known], given)
    runs = measured(given.results / "reward_training.jsonl")
    print(f"{goals(runs)}\n\n{table(runs, 'cuda' if given.gpu else 'cpu')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
