"""`FeedbackTrainer`: a language model trained by the one likelihood, each prompt and each response read once per epoch.

Conventions
-----------
A training item is a batch: the trees of some prompts (`trees`), laid out within a budget of tokens, with all judgments about their
responses (`objective`). The loss of a batch is that of its judgments, times batches over judgments: on average over batches it is the
mean loss of a judgment in nats, and each judgment weighs the same whatever batch it falls in. (But for the last step of an epoch: where
fewer batches are left for it they count more, and where they do not divide among processes some are read twice, as in any `Trainer`.)
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SchedulerType

from seamark.errors import InvalidSetting
from seamark.models.checkpoint import (
    SIDECAR,
    RewardModel,
    open_classifier,
    open_tokenizer,
    runs,
    same_tokens,
    save_reward_model,
    sidecar,
    transformers_module,
)
from seamark.models.conversations import Conversations, Overlong, Tokens
from seamark.models.heads import Values, head_of
from seamark.models.objective import Objective, Piece
from seamark.models.observation import Observation
from seamark.models.people import People
from seamark.models.trees import Rows, Tree, lay_out
from seamark.models.utility import Context, MultiAxis, Network
from seamark.outputs import fresh_files
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_SHOWN = {"disable_tqdm", "logging_steps", "logging_strategy", "report_to", "save_steps", "save_strategy", "save_total_limit", "run_name"}
"""Settings that change nothing of what is learnt."""
_WINDOW = 50
"""Batches' worth of trees that are sorted by length together: rows of a batch are then about equally long, and batches still vary."""
_STATE = "objective.safetensors"
"""In a checkpoint: the raters and all else that is fitted beside the network."""
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Largest difference, in standard deviations of a feature, that two ways of reading the same tokens may have by rounding."""


@dataclass
class NetworkConfig(TrainingArguments):
    """Settings of a training run: those of transformers, with defaults for reward models, and how conversations are read."""

    tokens_per_batch: int = field(default=4096, metadata={"help": "Tokens of a batch on one device, pads included."})
    max_length: int | None = field(default=None, metadata={"help": "Most tokens of a conversation; as many as the model has positions."})
    overlong: Overlong = field(
        default="refuse", metadata={"help": "What becomes of longer conversations: refuse (an error), or cut (their oldest tokens)."}
    )
    pad_token: str | None = field(default=None, metadata={"help": "Pad token, added to the tokenizer if it is new."})
    share_prompts: bool = field(default=True, metadata={"help": "Read each prompt once, where the model's attention allows it."})
    row_tokens: int = field(default=0, metadata={"help": "Pack prompts into rows of so many tokens; 0: a row each, of about equal length."})
    attention: str | None = field(default=None, metadata={"help": "sdpa, eager or flex_attention; left out, what transformers takes."})
    refits_per_epoch: int = field(default=4, metadata={"help": "How often raters and all else beside the network are refitted."})
    lora_r: int = field(default=0, metadata={"help": "Rank of adapters (LoRA) that are trained in place of all weights; 0: all weights."})
    probe: bool | None = field(
        default=None,
        metadata={"help": "Start from a fit on what the untrained network reads; left out, where raters have latent levels."},
    )
    disable_dropout: bool = field(default=True, metadata={"help": "Without dropout: the noise in the labels is modelled already."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: SchedulerType | str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps of the warm-up, or below 1 their share of all."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the data."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two lines of the log."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept."})
    eval_strategy: IntervalStrategy | str = field(default="no", metadata={"help": "When to evaluate: no, steps or epoch."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens_per_batch < 1:
            raise InvalidSetting("tokens_per_batch", self.tokens_per_batch, "Use a positive number of tokens.")
        if self.refits_per_epoch < 0:
            raise InvalidSetting("refits_per_epoch", self.refits_per_epoch, "Use 0 (never) or more.")
        if self.overlong not in ("refuse", "cut"):
            raise InvalidSetting("overlong", self.overlong, "Use refuse or cut.")
        if self.per_device_train_batch_size != 1 and self.per_device_train_batch_size != 8:
            raise InvalidSetting(
                "per_device_train_batch_size", self.per_device_train_batch_size, "Batches are made by tokens: set tokens_per_batch."
            )
        # an item is a batch already, and holds what transformers knows nothing of
        self.per_device_train_batch_size = self.per_device_eval_batch_size = 1
        self.remove_unused_columns = False
        self.label_names = []


@dataclass(frozen=True)
class TokenCount:
    """Tokens of one pass over the data."""

    forward: int
    """That go through the model, pads included."""
    distinct: int
    """Each prompt's and each response's once."""
    conversations: int
    """Each distinct conversation whole: the least that a model reads whose prompt depends on the response."""
    judgments: float


class _Batches(Dataset[dict[str, Any]]):
    """The batches of some feedback, each laid out when it is asked for."""

    def __init__(self, feedback: Feedback, objective: Objective, conversations: Conversations, args: NetworkConfig, *, share: bool) -> None:
        self.tokens = conversations.of_feedback(feedback)
        self.objective, self.pad, self.row_tokens = objective, conversations.tokenizer.pad_token_id, args.row_tokens
        # judgments without a prompt are as if all had one and the same
        self.prompt = feedback.responses["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()
        self.lengths = np.array([len(t) for t in self.tokens])
        self.said = conversations.lengths(feedback.responses["text"].to_list())
        self.trunk = _trunks(self.tokens, self.prompt, feedback.n_prompts + 1)
        self.budget, self.seed = args.tokens_per_batch, args.seed
        self.share = share
        self.pieces: list[Piece] = []
        self.plan: list[list[int]] = []

    def deal(self) -> None:
        """Divide everything among batches."""
        found = self.objective.pieces(self._cost, self.budget, seed=self.seed)
        self.pieces = [Piece(p.responses[np.argsort(self.prompt[p.responses], kind="stable")], p.cells) for p in found]
        shapes = [self._shape(p) for p in self.pieces]
        widths = [width for _, width in shapes]
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(shapes))
        total = sum(rows * width for rows, width in shapes)
        window = max(1, int(np.ceil(len(order) / max(1, total / (_WINDOW * self.budget)))))
        self.plan = []
        for start in range(0, len(order), window):
            rows = width = 0
            batch: list[int] = []
            for number in sorted(order[start : start + window].tolist(), key=widths.__getitem__, reverse=True):
                more, wider = shapes[number][0], max(width, shapes[number][1])
                if batch and (rows + more) * wider > self.budget:
                    self.plan.append(batch)
                    rows, wider, batch = 0, shapes[number][1], []
                rows, width = rows + more, wider
                batch.append(int(number))
            self.plan.append(batch)

    def _cost(self, responses: Codes) -> int:
        rows, width = self._shape(Piece(responses, ()))
        return rows * width

    def _shape(self, piece: Piece) -> tuple[int, int]:
        """(rows, tokens of the longest)"""
        sizes = self._sizes(piece)
        return len(sizes), int(sizes.max())

    def _sizes(self, piece: Piece) -> Codes:
        """Tokens of each row."""
        lengths, prompt = self.lengths[piece.responses], self.prompt[piece.responses]
        if not self.share:
            return lengths
        prompts, row = np.unique(prompt, return_inverse=True)
        return self.trunk[prompts] + np.bincount(row, weights=lengths - self.trunk[prompt]).astype(np.int64)

    def trees(self, piece: Piece) -> list[Tree]:
        """One of each prompt, in the order of the piece's responses."""
        prompt = self.prompt[piece.responses]
        parts = np.split(piece.responses, np.flatnonzero(np.diff(prompt)) + 1)
        return [self._tree(part) for part in parts]

    def _tree(self, responses: Codes) -> Tree:
        depth = int(self.trunk[self.prompt[responses[0]]])
        return Tree(self.tokens[responses[0]][:depth], tuple(self.tokens[r][depth:] for r in responses))

    def examples(self) -> list[Tree]:
        """The longest conversation and its rivals, and the prompt with the most responses: where two ways of reading would differ."""
        by_prompt = np.argsort(self.prompt, kind="stable")
        groups = [g for g in np.split(by_prompt, np.flatnonzero(np.diff(self.prompt[by_prompt])) + 1) if len(g) > 1]
        groups = [g for g in groups if self.trunk[self.prompt[g[0]]]]
        if not groups:
            return []
        longest = max(groups, key=lambda g: self.lengths[g].max())
        most = max(groups, key=len)
        return [self._tree(g[np.argsort(-self.lengths[g])][:3]) for g in (longest, most)]

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def loss_scale(self) -> float:
        """Batches for each judgment."""
        return len(self.plan) / self.objective.n_judgments

    def __getitem__(self, item: int) -> dict[str, Any]:
        pieces = [self.pieces[i] for i in self.plan[item]]
        rows = self.rows(item)
        responses = np.concatenate([p.responses for p in pieces])
        cells = [np.concatenate(parts) for parts in zip(*(p.cells for p in pieces), strict=True)]
        inputs = rows.to_inputs() | {"lengths": torch.from_numpy(self.said[responses])}
        return inputs | {"responses": torch.from_numpy(responses), "cells": [torch.from_numpy(c) for c in cells]}

    def rows(self, item: int) -> Rows:
        trees = [tree for i in self.plan[item] for tree in self.trees(self.pieces[i])]
        return lay_out(trees, self.pad, share=self.share, row_tokens=self.row_tokens if self.share else 0)

    def _read(self, item: int) -> int:
        """Tokens of a batch that go through the model."""
        used = np.concatenate([self._sizes(self.pieces[i]) for i in self.plan[item]])
        if self.share and self.row_tokens:  # packed first fit
            used = (self.rows(item).tree >= 0).sum(1).numpy()
        return sum(len(run) * int(used[run[0]]) for run in runs(used))

    def count(self) -> TokenCount:
        """Tokens of one pass."""
        forward = sum(self._read(i) for i in range(len(self)))
        read = np.unique(np.concatenate([p.responses for p in self.pieces]))
        branches = int((self.lengths[read] - self.trunk[self.prompt[read]]).sum())
        distinct = branches + int(self.trunk[np.unique(self.prompt[read])].sum())
        return TokenCount(forward, distinct, int(self.lengths[read].sum()), self.objective.n_judgments)


def _trunks(tokens: Sequence[Tokens], prompt: Codes, n_prompts: int) -> Codes:
    """(n_prompts,) tokens that all conversations of a prompt begin with; 0 where there is one conversation."""
    out = np.zeros(n_prompts, dtype=np.int64)
    order = np.argsort(prompt, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(prompt[order])) + 1):
        if len(group) > 1:
            out[prompt[group[0]]] = len(Tree.of([tokens[i] for i in group]).trunk)
    return out


def _one(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of one item is the item."""
    return items[0]


class FeedbackTrainer(Trainer):
    """Trains a language model on judgments of any kind, by any raters, as one likelihood.

    It is a `transformers.Trainer`: callbacks, `report_to`, accelerate, DDP, FSDP, DeepSpeed and resuming are its own.

    Parameters
    ----------
    model : a folder or hub name of a language model or reward model, or one in memory (for sequence classification).
    args : settings; `output_dir` is where checkpoints go.
    train_dataset, eval_dataset : judgments of responses with texts.
    processing_class : the tokenizer; that of the model's folder where left out.
    people, observation, differ : the parts of the model, as in `fit`; `differ` is a MultiAxis or Context without a utility.
    head : linear, mean_variance, categorical, bottleneck, odin or ensemble, or a mapping with "head" and its settings.
    peft_config : adapters to train in place of all weights.

    Raises
    ------
    InvalidSetting, SeamarkError
        If conversations cannot be read as they are (see `Conversations`), or the model of the feedback does not fit the data.
    """

    def __init__(
        self,
        model: str | nn.Module,
        args: NetworkConfig,
        *,
        train_dataset: Feedback,
        eval_dataset: Feedback | None = None,
        processing_class: Any = None,
        people: People | None = None,
        observation: Observation | None = None,
        differ: MultiAxis | Context | None = None,
        head: str | Mapping[str, Any] = "linear",
        peft_config: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        if processing_class is None:
            if not isinstance(model, str):
                raise InvalidSetting("processing_class", None, "Give the tokenizer that belongs to the model in memory.")
            processing_class = open_tokenizer(model, pad_token=args.pad_token)
        elif args.pad_token is not None:
            processing_class.add_special_tokens({"pad_token": args.pad_token})
        # the head's own start is random, too
        torch.manual_seed(args.seed)
        opened: Any = open_classifier(model, fresh_head=True, attention=args.attention) if isinstance(model, str) else model
        reward = RewardModel.of(opened)
        self.conversations = Conversations.of(
            processing_class, positions=reward.positions, max_length=args.max_length, overlong=args.overlong
        )
        processing_class = self.conversations.tokenizer
        same_tokens(opened, processing_class)
        opened.config.use_cache = False
        self.objective = Objective.of(train_dataset, people=people, observation=observation, differ=differ)
        self.head = head_of(head, reward.hidden, self.objective.n_values)
        if reward.last.weight.dtype == torch.float64:
            self.head.double()  # else 32 bits, however few the network is in
        if self.head.to_dict()["head"] == "linear" and len(reward.last.weight) == 1:
            shared = torch.zeros(self.objective.n_values, reward.hidden)
            shared[:1] = reward.last.weight.detach()
            self.head.start_from(shared)  # a reward model is trained on from where it is, and what values differ by from 0
        if args.disable_dropout:
            _disable_dropout(opened)
        if args.probe or (args.probe is None and self.objective.problem.strata.latent is not None):
            opened.to(args.device)
            features = reward.features(self.conversations.of_feedback(train_dataset)).astype(np.float64)
            self.head.start_from(torch.from_numpy(self.objective.probe(features, seed=args.seed)))
        reward.listen(self.head)
        self.reward_model, self.feedback = reward, train_dataset
        self.network: Any = opened
        """What is trained: the model, or its adapters around it."""
        peft = transformers_module("peft") if args.lora_r or peft_config is not None else None
        if peft is not None:
            peft_config = peft_config or peft.LoraConfig(
                task_type="SEQ_CLS",
                r=args.lora_r,
                lora_alpha=2 * args.lora_r,
                target_modules="all-linear",
                modules_to_save=[reward.head_place],
            )
            self.network = peft.get_peft_model(opened, peft_config)
            if args.to_dict().get("activation_checkpointing") or args.to_dict().get("gradient_checkpointing"):  # its newer and older name
                opened.enable_input_require_grads()  # else no gradient reaches adapters through frozen embeddings
        share = args.share_prompts and reward.causal
        self.batches = batches = _Batches(train_dataset, self.objective, self.conversations, args, share=share)
        held_out = None
        if eval_dataset is not None:
            # of held-out judgments only the comparisons are wanted: for a model of people they may be too few
            objective = Objective.of(eval_dataset, observation=Observation(effects=()))
            held_out = _Batches(eval_dataset, objective, self.conversations, args, share=share)
        refit = _Refit()
        refit.trainer = self
        super().__init__(
            model=self.network,
            args=args,
            data_collator=_one,
            train_dataset=batches,
            eval_dataset=held_out,
            processing_class=processing_class,
            callbacks=[refit, *(callbacks or [])],
            optimizers=optimizers,
        )
        if args.disable_tqdm:  # what is printed is the caller's; the log goes where progress goes
            self.remove_callback(PrinterCallback)
            if args.logging_strategy != "no":
                self.add_callback(_Log())
        # the loss of a batch is scaled by us; Trainer divides by the number of batches in a step
        self.model_accepts_loss_kwargs = False
        self.can_return_loss = True
        self.table = np.full((train_dataset.n_responses, self.objective.n_values), np.nan)
        """Values (n_responses, k) of each response when it was read last; NaN before."""
        self._read_at = np.full(train_dataset.n_responses, -1)
        # the model is where it will be trained only now
        self.shares_prompts = share and self._agrees(batches.examples())
        for part in (batches, held_out):
            if part is not None:
                part.share = self.shares_prompts
                part.deal()
        self.tokens = batches.count()

    def _agrees(self, examples: Sequence[Tree]) -> bool:
        """Whether features are the same read as trees as read one conversation a row; warns where they are not."""
        if not examples:
            return True
        pad = self.conversations.tokenizer.pad_token_id
        with torch.no_grad():
            self.network.eval()
            plain = self._features(lay_out(examples, pad, share=False))
            try:
                shared = self._features(lay_out(examples, pad))
            except (TypeError, ValueError, RuntimeError) as error:  # a model that takes no positions, or no mask of four dimensions
                difference, reason = np.inf, str(error)
            else:
                difference, reason = float((shared - plain).abs().max() / plain.std().clamp_min(1e-12)), ""
        # in the precision of the weights, which is mostly more than that of training: half of it differs by rounding as much as by reading
        dtype = next(p.dtype for p in self.network.parameters() if p.is_floating_point())
        if difference <= _TOLERANCE.get(dtype, 0.2):
            return True
        warnings.warn(
            f"{type(self.model).__name__} reads a response differently when its prompt is shared "
            f"({reason or f'features differ by {difference:.2g} sd'}): its attention knows more than mask and positions (a sliding window, "
            "ALiBi, recurrent layers). Every conversation is read on its own instead.",
            stacklevel=3,
        )
        return False

    def _features(self, rows: Rows) -> Tensor:
        """(n, .) what the head makes of the features."""
        device = next(self.network.parameters()).device  # not Trainer's where it has not moved the network there yet
        found = self.network(**self._model_inputs({name: part.to(device) for name, part in rows.to_inputs().items()}))
        return found["mean"].float().flatten(0, 1)

    @property
    def _sharded(self) -> bool:
        """Whether no process holds the whole network."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    # ------------------------------------------------------------------ the loss

    @staticmethod
    def _model_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"input_ids": inputs["ids"], "rows": {name: inputs[name] for name in ("positions", "tree", "branch", "leaves", "lengths")}}

    def _precision(self) -> torch.autocast:
        """What Trainer computes in while it trains."""
        half = self.args.bf16 or self.args.fp16
        return torch.autocast(self.args.device.type, dtype=self._working_dtype if half else None, enabled=half)

    @property
    def _working_dtype(self) -> torch.dtype:
        if self.args.bf16:
            return torch.bfloat16
        if self.args.fp16:
            return torch.float16
        return next(p.dtype for p in self.network.parameters() if p.is_floating_point())

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # the signature is Trainer's
        del num_items_in_batch
        batches = self.train_dataset if model.training else self.eval_dataset
        assert isinstance(batches, _Batches)
        found = model(**self._model_inputs(inputs))
        values = Values(**{name: found.get(name) for name in Values.__annotations__})
        responses = inputs["responses"].cpu().numpy()
        loss = self._judged(values, responses, [c.cpu().numpy() for c in inputs["cells"]], batches.objective) * batches.loss_scale
        loss = loss + values.penalty
        if model.training:
            self.table[responses] = values.mean.detach().double().mean(0).cpu().numpy()
            self._read_at[responses] = self.state.global_step
        return (loss, found) if return_outputs else loss

    def _judged(self, values: Values, responses: Codes, cells: Sequence[Codes], objective: Objective) -> Tensor:
        """Loss of all judgments of a batch, in nats, the mean over members of an ensemble."""
        place = np.full(objective.likelihood.design.n_responses, -1)
        place[responses] = np.arange(len(responses))
        device = values.mean.device
        loss = values.mean.new_zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32)
        for block, rows in enumerate(cells):
            if not len(rows):
                continue
            c = objective.cells(block)
            shown = torch.from_numpy(place[c.block.shown[rows]]).to(device)
            loadings = torch.from_numpy(objective.loadings[c.group[rows]]).to(device, values.mean.dtype)
            K = torch.from_numpy(c.K).to(device, values.mean.dtype)
            contrast = self.head.contrast(values, shown, loadings, K)
            weights = self.head.weights(objective.prompts(block, rows), seed=self.args.seed)
            loss = loss + _Observed.apply(contrast, objective, block, rows, weights)
        return loss

    def refit(self) -> None:
        """Fit raters and all else beside the network to the values as they were read last, on every process alike."""
        self._gather_table()
        self.objective.refit(self.table)

    def _gather_table(self) -> None:
        """Every process has every value as it was read last."""
        table, read_at = self.table, self._read_at
        if self.args.world_size > 1:
            parts = [None] * self.args.world_size
            torch.distributed.all_gather_object(parts, (table, read_at))
            for other, when in parts:  # type: ignore[misc]  # filled by the call
                newer = when > read_at
                table[newer], read_at[newer] = other[newer], when[newer]

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Loss and accuracy on decided comparisons for the mean person, without the raters' own effects: what TRL's figures mean.

        Ratings, choices and rankings count as the comparisons that they imply. A tie of two values is half right.
        """
        del ignore_keys
        batches = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(batches, _Batches):
            raise InvalidSetting("eval_dataset", batches, "Give the held-out feedback when the trainer is made.")
        values = self.values(batches)
        better, worse, weight = batches.objective.comparisons()
        mean = values @ self.objective.person
        gap = mean[better] - mean[worse]
        total = max(float(weight.sum()), 1e-300)
        metrics = {
            f"{metric_key_prefix}_loss": float(weight @ np.logaddexp(0, -gap)) / total,
            f"{metric_key_prefix}_accuracy": float(weight @ ((gap > 0) + 0.5 * (gap == 0))) / total,
            f"{metric_key_prefix}_margin": float(weight @ gap) / total,
            f"{metric_key_prefix}_comparisons": float(weight.sum()),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def values(self, batches: Any = None, *, alone: bool = False) -> Array:
        """(n_responses, k) values of the responses of the training data, or of the batches given; each is read once, by one of the
        processes, or `alone` by each."""
        batches = batches or self.batches
        sharded = self._sharded
        model: Any = self.model_wrapped if sharded else self.network
        was = model.training
        model.eval()
        out = np.full((batches.objective.likelihood.design.n_responses, self.objective.n_values), np.nan)
        processes = 1 if alone else self.args.world_size
        mine = list(range(self.args.process_index if processes > 1 else 0, len(batches), processes))
        if sharded:  # all processes take part in each pass
            mine += [len(batches) - 1] * (-(-len(batches) // self.args.world_size) - len(mine))
        with torch.no_grad(), self._precision():
            for item in mine:
                inputs = self._prepare_inputs(batches[item])
                found = model(**self._model_inputs(inputs))
                out[inputs["responses"].cpu().numpy()] = found["mean"].double().mean(0).cpu().numpy()
        model.train(was)
        if processes > 1:
            parts = [None] * self.args.world_size
            torch.distributed.all_gather_object(parts, out)
            for other in parts:
                out = np.where(np.isnan(out), other, out)  # type: ignore[arg-type]  # filled by the call
        return out

    # ------------------------------------------------------------------ what is left of it

    def write(self, folder: str | Path, run: Mapping[str, Any] | None = None) -> None:
        """Write the reward model: the network with the mean person's values folded into one score; the trainer is of no use afterwards.

        A head that is not linear in the features is written as its best linear approximation on the responses read, and seamark.json says how
        much of the variance that explains. Raters and all else beside the network are in seamark.safetensors.
        """
        self.table = self.values()  # without what is only there in training: noise on latents, a second value
        self._read_at[:] = self.state.global_step
        self.objective.refit(self.table)
        values = self.table @ self.objective.person
        known = np.isfinite(values)
        person = torch.from_numpy(self.objective.person)
        network: Any = self.accelerator.unwrap_model(self.network)
        if network is not self.reward_model.model:  # adapters become part of the weights they are beside
            self.head = network.get_base_model().score if self.reward_model.causal else network.get_base_model().value_head
            self.head = self.head.modules_to_save["default"] if "modules_to_save" in self.head._modules else self.head
            network.merge_and_unload()
        elif self._sharded:
            state: Any = self.accelerator.get_state_dict(self.model_wrapped)  # the whole of it on the process that writes
            if not self.args.should_save:
                self.accelerator.wait_for_everyone()
                return
            self.gather(state)
        linear, explained = self.head.linear(), 1.0
        if linear is not None:
            rows, bias = linear
            weight = person @ rows.detach().double().cpu()
            intercept = 0.0 if bias is None else float(person @ bias.detach().double().cpu())
        else:
            weight, intercept, explained = self._nearest_linear(values)
        if self.args.should_save:
            folder = Path(folder)
            with fresh_files(folder, last=SIDECAR) as fresh:
                spread = {"n": int(known.sum()), "mean": float(values[known].mean()), "sd": float(values[known].std())}
                record = {
                    "seamark": "reward model",
                    "version": 1,
                    "intercept": intercept,
                    "linear_r2": explained,
                    "conversations": {
                        "digest": self.conversations.digest,
                        "longest": self.conversations.longest,
                        "overlong": self.conversations.overlong,
                    },
                    "head": self.head.to_dict(),
                    "head_shape": {"hidden": self.reward_model.hidden, "values": self.objective.n_values},
                    "tokens": vars(self.tokens),
                    "shares_prompts": self.shares_prompts,
                    "responses": spread,
                    "run": dict(run or {}),
                    "versions": {name: version(name) for name in ("seamark", "torch", "transformers")},
                }
                save_reward_model(
                    self.reward_model, weight, self.processing_class, fresh, record=record, mean=spread["mean"] - intercept, sd=spread["sd"]
                )
                head = {f"head.{name}": tensor.detach().float().cpu().numpy() for name, tensor in self.head.state_dict().items()}
                save_file(self.objective.to_arrays() | head, fresh / "seamark.safetensors")
        self.accelerator.wait_for_everyone()

    def gather(self, state: Mapping[str, Tensor]) -> None:
        """Hold the whole of a network whose weights were divided among processes, from its whole state."""
        sharded = self.reward_model.model
        vars(sharded).pop("forward", None)
        whole = type(sharded)(sharded.config)
        self.reward_model = RewardModel.of(whole)
        self.head = head_of(self.head.to_dict(), self.reward_model.hidden, self.objective.n_values)
        self.reward_model.listen(self.head)
        whole.load_state_dict({name: tensor.cpu() for name, tensor in state.items()})
        self.network = whole

    def _nearest_linear(self, values: Array) -> tuple[Tensor, float, float]:
        """(weight (H,), intercept, share of the variance explained) of the values as read last, by least squares with a small ridge."""
        found: list[Array] = []

        def keep(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            found.append(given[0].double().cpu().numpy())

        hook = self.head.register_forward_pre_hook(keep)
        try:
            order = np.concatenate([p.responses for batch in self.batches.plan for p in (self.batches.pieces[i] for i in batch)])
            self.values(alone=True)
        finally:
            hook.remove()
        features, y = np.concatenate(found), values[order]
        centre, level = features.mean(0), y.mean()
        features, y = features - centre, y - level
        ridge = 1e-6 * float((features**2).sum(0).mean()) * np.eye(features.shape[1])
        weight = np.linalg.solve(features.T @ features + ridge, features.T @ y)
        explained = 1 - float(((y - features @ weight) ** 2).sum() / max(float((y**2).sum()), 1e-300))
        return torch.from_numpy(weight), float(level - centre @ weight), explained

    # ------------------------------------------------------------------ stopping and going on

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._gather_table()
        # first, so that a folder whose trainer_state.json is there holds everything
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            arrays = self.objective.to_arrays() | {"table": self.table, "read_at": self._read_at.astype(np.float64)}
            save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / _STATE)
        super()._save_checkpoint(model, trial)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: list[str] | None = None
    ) -> Any:
        """Train; with `resume_from_checkpoint=True` go on from the last checkpoint that is whole, or start where there is none."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(str(self.args.output_dir))
        if resume_from_checkpoint:
            arrays = load_file(Path(resume_from_checkpoint) / _STATE)
            if arrays["table"].shape != self.table.shape:
                raise InvalidSetting(
                    "resume_from_checkpoint", resume_from_checkpoint, "It is of other judgments; start afresh in another folder."
                )
            self.table, self._read_at = arrays.pop("table"), arrays.pop("read_at").astype(np.int64)
            self.objective.take_up(arrays)
        return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)


class _Log(TrainerCallback):
    """A line of the log on stderr."""

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del args, control
        if state.is_world_process_zero:
            said = {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in (given.get("logs") or {}).items()}
            print(json.dumps({"step": state.global_step} | said), file=sys.stderr, flush=True)


class _Refit(TrainerCallback):
    """Refits everything beside the network, a few times per epoch."""

    trainer: FeedbackTrainer

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del control, given
        if not args.refits_per_epoch:
            return
        steps = -(-len(self.trainer.batches) // (args.gradient_accumulation_steps * args.world_size))
        if state.global_step % max(1, steps // args.refits_per_epoch) == 0:
            self.trainer.refit()


class _Observed(torch.autograd.Function):
    """What the likelihood says of contrasts (members, n, d): a loss in nats, and its gradient back to the network."""

    @staticmethod
    def forward(ctx: Any, contrast: Tensor, objective: Objective, block: int, rows: Codes, weights: Array | None) -> Tensor:
        given = contrast.detach().double().cpu().numpy()
        loss, gradients = 0.0, np.empty_like(given)
        for member, c in enumerate(given):
            one, gradients[member] = objective.observed(block, rows, c, None if weights is None else weights[member])
            loss += one / len(given)
        ctx.save_for_backward(torch.from_numpy(gradients / len(given)).to(contrast.device, contrast.dtype))
        return contrast.new_tensor(loss, dtype=torch.float64 if contrast.device.type == "cpu" else torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return grads[0].to(gradient.dtype) * gradient, None, None, None, None


def train_network(
    feedback: Feedback,
    network: Network,
    *,
    people: People | None = None,
    observation: Observation | None = None,
    differ: MultiAxis | Context | None = None,
    eval_feedback: Feedback | None = None,
    callbacks: list[TrainerCallback] | None = None,
) -> Path:
    """Train a network and write it to its folder as a reward model; a run that was stopped goes on, one that is finished stays.

    Beside the model lies seamark.json: how conversations are read and the digest of that, how it was trained and on what. While it
    is trained there is a folder training/ with checkpoints, which are those of transformers.

    Raises
    ------
    InvalidSetting
        If the folder holds another reward model or a stopped run of another one, or a setting does not exist.
    """
    out = Path(network.out).expanduser()
    run = {
        "network": network.to_dict(),
        "feedback": feedback.fingerprint,
        "people": people.to_dict() if people else None,
        "observation": observation.to_dict() if observation else None,
        "differ": replace(differ, utility=None).to_dict() if differ else None,
    }
    run = json.loads(json.dumps(run, default=str))
    done = sidecar(out)
    if done:
        if not _same_run(done.get("run", {}), run):
            raise InvalidSetting(
                "out", str(out), "It holds a reward model of other judgments or settings. Give another folder, or remove it."
            )
        return out
    working = out / "training"
    begun = working / "run.json"
    if begun.is_file() and not _same_run(json.loads(begun.read_text(encoding="utf-8")), run):
        raise InvalidSetting("out", str(out), "It holds a stopped run of other judgments or settings. Give another folder, or remove it.")
    if out.exists() and not begun.is_file() and any(out.iterdir()):
        raise InvalidSetting("out", str(out), "It is a folder with something else in it. Give another name.")
    known = {f.name for f in fields(NetworkConfig)}
    if unknown := sorted(set(network.settings) - known):
        nearest = get_close_matches(unknown[0], sorted(known), 1)
        raise InvalidSetting("settings", unknown[0], f"There is no such setting{f'; did you mean {nearest[0]}?' if nearest else '.'}")
    usual: dict[str, Any] = {"eval_strategy": "epoch"} if eval_feedback is not None else {}
    args = NetworkConfig(output_dir=str(working), **usual | dict(network.settings))
    trainer = FeedbackTrainer(
        network.model, args, train_dataset=feedback, eval_dataset=eval_feedback, people=people, observation=observation, differ=differ,
        head=network.head, callbacks=callbacks,
    )  # fmt: skip
    if args.should_save:
        working.mkdir(parents=True, exist_ok=True)
        begun.write_text(json.dumps(run), encoding="utf-8")
    trainer.train(resume_from_checkpoint=True)
    trainer.write(out, run)
    if args.should_save:
        shutil.rmtree(working)  # checkpoints of transformers hold pickles, which nothing of ours does
    return out


def _same_run(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two runs end alike: how they are shown and logged may differ."""

    def told(run: Mapping[str, Any]) -> dict[str, Any]:
        network = dict(run.get("network", {}))
        network["settings"] = {name: value for name, value in network.get("settings", {}).items() if name not in _SHOWN}
        return {**run, "network": network}

    return told(one) == told(two)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in a training folder that is whole: one that was being written when the run ended is passed over."""
    found: list[tuple[int, Path]] = []
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            load_file(path / _STATE)
            found.append((int(path.name.rsplit("-", 1)[1]), path))
        except (OSError, ValueError, SafetensorError):
            continue
    return str(max(found)[1]) if found else None


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():  # attention modules hold the probability as a number
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
