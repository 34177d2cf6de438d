"""Reward models as folders: opened for training or scoring, and saved in the one form that every consumer of rewards loads.

Conventions
-----------
A reward model is what transformers calls a model for sequence classification. Its *features* (n, H) are what its last linear layer
reads: the hidden state of the last token of a causal model, whatever an encoder pools. Its *head* turns features into values.

A saved one has one label, no bias, `problem_type` regression (vLLM then returns the raw score), a pad token that ends no text, its
tokenizer and the chat template. What does not fit into one row of weights, the intercept among it, is in seamark.json beside it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting, MissingExtra, SeamarkError, UnreadableSource
from seamark.models.conversations import Conversations, Overlong, Turns
from seamark.models.network import batches_of, model_folder, quiet, stored

if TYPE_CHECKING:
    from torch import Tensor

SIDECAR = "seamark.json"


def transformers_module(name: str = "transformers") -> Any:
    """The library, or a module of it.

    Raises
    ------
    MissingExtra
        Without it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingExtra("lm", "Training and reading reward models") from None


def open_tokenizer(name: str, *, pad_token: str | None = None) -> Any:
    """The tokenizer of a folder or a hub name, with this pad token.

    Raises
    ------
    UnreadableSource
        If there is none.
    """
    try:
        tokenizer = transformers_module().AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableSource(name, f"it has no tokenizer ({_first_line(error)})", "Give a folder or hub name that has one.") from None
    if pad_token is not None:
        tokenizer.add_special_tokens({"pad_token": pad_token})
    return tokenizer


def open_classifier(
    name: str, *, fresh_head: bool = False, n_labels: int | None = None, dtype: Any = None, attention: str | None = None
) -> Any:
    """The model of a folder or a hub name, in evaluation mode, in float32 unless `dtype` says otherwise.

    Parameters
    ----------
    fresh_head : whether a model without a reward head is given a random one, to be trained.
    n_labels : scores wanted; left out, as many as the model has.
    attention : sdpa, eager, flex_attention, ...; left out, what transformers takes.

    Raises
    ------
    UnreadableSource
        If there is no such model, or it has no reward head and none is to be made: a random one would score at random.
    """
    transformers = transformers_module()
    torch = importlib.import_module("torch")
    settings: dict[str, Any] = {"num_labels": n_labels} if n_labels is not None else {}
    settings |= {"attn_implementation": attention} if attention else {}
    remedy = "Give a folder or hub name of a reward model (AutoModelForSequenceClassification, safetensors)."
    try:
        with quiet(transformers):
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                name, dtype=dtype or torch.float32, output_loading_info=True, use_safetensors=True, trust_remote_code=False, **settings
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UnreadableSource(name, f"it cannot be opened as a reward model ({_first_line(error)})", remedy) from None
    missing = sorted(set(report["missing_keys"]) | {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]})
    head = _head_name(model)
    if adapted := _lacks_adapted_head(model_folder(name)):
        missing.append(f"{head}.weight")
        remedy = adapted
    of_head = [key for key in missing if key.startswith(head + ".") and not key.endswith(".bias")]
    others = [
        key
        for key in missing
        if not key.startswith(head.split(".")[0] + ".") and not key.startswith("pre_classifier") and "pooler" not in key
    ]
    if others:
        raise UnreadableSource(name, f"weights are missing: {', '.join(others[:3])}", "Download or save the model again, whole.")
    if of_head and not fresh_head:
        raise UnreadableSource(
            name,
            f"it has no reward head ({of_head[0]} is missing), and a random one would score at random",
            remedy + " Train one with seamark train.",
        )
    return model.eval()


def _lacks_adapted_head(folder: Path) -> str:
    """What to do about a folder of adapters that came without the reward head they were trained with; empty if all is well."""
    if not (folder / "adapter_config.json").is_file() or (folder / "config.json").is_file():
        return ""
    from safetensors import safe_open

    if not (folder / "adapter_model.safetensors").is_file():
        return "Save the adapters as safetensors, or export them merged."
    with safe_open(folder / "adapter_model.safetensors", framework="np") as weights:
        names = [name for name in weights.keys() if "lora_" not in name]  # noqa: SIM118  # it is no mapping
    if any(re.search(r"(^|\.)(score|classifier|out_proj|value_head)(\.|$)", name) for name in names):
        return ""
    return "Save the adapters again with modules_to_save naming the head, or export them merged."


def _head_name(model: Any) -> str:
    """Where the last linear layer stands, which gives the labels."""
    torch = importlib.import_module("torch")
    inside = model.base_model_prefix + "."
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == model.config.num_labels and not name.startswith(inside)
    ]
    if not found:
        raise UnreadableSource(
            type(model).__name__, "its last layer is not linear, so it has no features to read", "Use a model with a linear head."
        )
    return found[-1]


@dataclass(frozen=True)
class RewardModel:
    """A model for sequence classification whose values are read by a head of ours."""

    model: Any
    head_name: str
    """Where its last linear layer stood."""
    causal: bool
    """Whether a conversation is read at its last token; else the class pools as it does."""
    hidden: int
    """H"""

    @staticmethod
    def of(model: Any) -> RewardModel:
        if "forward" in vars(model):
            raise InvalidSetting("model", type(model).__name__, "It is in another trainer, which has changed its head: open it again.")
        # an adapter's copy of the head stands in a wrapper under the head's own name
        last = _head_name(model)
        name = last.partition(".modules_to_save.")[0]
        # causal classes of transformers call the layer score, those of encoders classifier, out_proj, ...
        return RewardModel(model, name, name == "score", model.get_submodule(last).in_features)

    @property
    def last(self) -> Any:
        return self.model.get_submodule(_head_name(self.model))

    @property
    def head_place(self) -> str:
        """Where a head of ours stands once the model listens to it."""
        return self.head_name if self.causal else "value_head"

    @property
    def positions(self) -> int | None:
        """Most tokens of a conversation, where the configuration says."""
        text = self.model.config.get_text_config()
        stated = text.max_position_embeddings if "max_position_embeddings" in text.to_dict() else text.to_dict().get("n_positions")
        if stated is None:
            return None
        # RoBERTa and its kin count positions from the one after the pad token
        return stated - text.pad_token_id - 1 if text.model_type in ("roberta", "xlm-roberta", "camembert") else stated

    def features(self, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """(n, H) what the last layer reads of conversations: what transformers itself computes, one conversation a row."""
        torch = importlib.import_module("torch")
        device = next(self.model.parameters()).device
        lengths = np.array([len(row) for row in ids])
        out = np.empty((len(ids), self.hidden), dtype=np.float32)
        caught: list[Any] = []

        def catch(_module: Any, given: tuple[Any, ...]) -> None:
            caught.append(given[0])

        hook = self.last.register_forward_pre_hook(catch)
        pad = self.model.config.get_text_config().pad_token_id
        try:
            for rows in batches_of(lengths):
                width = int(lengths[rows].max())
                batch = np.full((len(rows), width), pad if pad is not None else 0, dtype=np.int64)
                for place, row in enumerate(rows):
                    batch[place, : lengths[row]] = ids[row]
                mask = torch.from_numpy((np.arange(width) < lengths[rows, None]).astype(np.int64)).to(device)
                with torch.inference_mode():
                    self.model(input_ids=torch.from_numpy(batch).to(device), attention_mask=mask)
                read = caught.pop()
                if self.causal:
                    read = read[torch.arange(len(rows)), torch.from_numpy(lengths[rows] - 1)]
                out[rows] = read.float().cpu().numpy()
        finally:
            hook.remove()
        return out

    def listen(self, head: Any) -> None:
        """From here on the model takes `Rows` and answers with what the head makes of the features, a dict of tensors.

        Its own forward would apply the head to every token, and read one place of each row. The new one is bound to the instance, so that
        whatever wraps the model (DDP, FSDP, PEFT) calls it as it would call any.
        """
        torch = importlib.import_module("torch")
        parent, _, leaf = self.head_name.rpartition(".")
        owner = self.model.get_submodule(parent) if parent else self.model
        if self.causal:
            setattr(owner, leaf, head)
            read = _read_last_tokens
        else:
            setattr(owner, leaf, torch.nn.Identity())
            self.model.value_head = head
            read = _read_pooled(type(self.model).forward)

        def forward(model: Any, input_ids: Tensor, rows: dict[str, Tensor], **given: Any) -> Any:
            del given  # what wrappers add of their own
            features = _read_in_runs(read, _read_trees, model, input_ids, rows)
            # in 32 bits whatever the rest is in: half precision makes ties that are none
            autocast = torch.autocast(features.device.type, enabled=False) if features.device.type in ("cpu", "cuda") else nullcontext()
            with autocast:
                wide = features if features.dtype == torch.float64 else features.float()
                return vars((model.score if self.causal else model.value_head)(wide, rows["lengths"]))

        self.model.forward = MethodType(forward, self.model)


def runs(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of a batch in runs of about equal length, so that at most a twenty-fifth of what is read of each is padding."""
    order = np.argsort(-lengths, kind="stable")
    out: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        ahead = lengths[order[start:]]
        room = np.arange(1, len(ahead) + 1) * ahead[0] <= _PADDED * np.cumsum(ahead)
        stop = start + int(np.flatnonzero(room)[-1]) + 1
        out.append(order[start:stop])
        start = stop
    return out


_PADDED = 1.04


def _read_in_runs(
    plainly: Callable[..., Tensor], as_trees: Callable[..., Tensor], model: Any, ids: Tensor, rows: dict[str, Tensor]
) -> Tensor:
    """(n, H) features of a batch of `trees.Rows`, its rows read in `runs`; where each row is one conversation, the usual mask does."""
    torch = importlib.import_module("torch")
    used = (rows["tree"] >= 0).sum(1)
    parts = runs(used.cpu().numpy())
    row, column = rows["leaves"] // ids.shape[1], rows["leaves"] % ids.shape[1]
    plain = bool((rows["tree"] < 1).all() and (rows["branch"] <= 1).all() and len(row) == len(ids))
    found: list[Tensor] = []
    order: list[Tensor] = []
    for part in parts:
        here, width = torch.from_numpy(part).to(ids.device), int(used[part[0]])
        if plain:
            mask = (rows["tree"][here, :width] >= 0).long()
            found.append(plainly(model, ids[here, :width], mask))
            order.append(here)
            continue
        place = torch.full((len(ids),), -1, device=ids.device)
        place[here] = torch.arange(len(here), device=ids.device)
        leaves = torch.nonzero(place[row] >= 0)[:, 0]
        hidden = as_trees(model, ids[here, :width], *(rows[name][here, :width] for name in ("positions", "tree", "branch")))
        found.append(hidden[place[row[leaves]], column[leaves]])
        order.append(leaves)
    return torch.cat(found)[torch.argsort(torch.cat(order))]


def _read_trees(model: Any, ids: Tensor, positions: Tensor, tree: Tensor, branch: Tensor) -> Tensor:
    """(rows, tokens, H) hidden states under the mask of trees."""
    from seamark.models.trees import block_mask, seen_mask

    torch = importlib.import_module("torch")
    if model.config._attn_implementation == "flex_attention":
        mask = block_mask(tree, branch)
    else:
        kind = ids.device.type
        half = torch.is_autocast_enabled(kind)
        mask = seen_mask(tree, branch, torch.get_autocast_dtype(kind) if half else model.get_input_embeddings().weight.dtype)
    return model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state


def _read_last_tokens(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden[list(range(len(hidden))), mask.sum(1) - 1]


def _read_pooled(stock: Callable[..., Any]) -> Callable[..., Any]:
    def read(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
        return stock(model, input_ids=ids, attention_mask=mask).logits

    return read


def save_reward_model(
    trained: RewardModel, weight: Any, tokenizer: Any, folder: Path, *, record: dict[str, Any], mean: float = 0.0, sd: float = 1.0
) -> None:
    """Write the model with one score, `weight` (H,) times the features, and the record beside it; changes the model.

    `mean` and `sd` of the scores of the training responses go where OpenRLHF looks for them.
    """
    torch = importlib.import_module("torch")
    model = trained.model
    parent, _, leaf = trained.head_name.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    vars(model).pop("forward", None)
    model._modules.pop("value_head", None)
    dtype = next(p.dtype for p in model.base_model.parameters() if p.is_floating_point())
    stock = torch.nn.Linear(len(weight), 1, bias=not trained.causal, dtype=dtype)
    with torch.no_grad():
        stock.weight.copy_(torch.as_tensor(weight).reshape(1, -1))
        if stock.bias is not None:  # classes of encoders have one, and it is nothing
            stock.bias.zero_()
    setattr(owner, leaf, stock)
    config = model.config
    config.num_labels = 1
    model.num_labels = 1
    config.problem_type = "regression"
    config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
    tokenizer = _without_additions(tokenizer)
    config.value_head_prefix, config.mean, config.std = leaf, float(mean), float(sd)
    with quiet(transformers_module()):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / SIDECAR).write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")


def _without_additions(tokenizer: Any) -> Any:
    """A copy that adds no tokens of its own to a text: the template has them all, and a server that asks for them would double them."""
    if not tokenizer.is_fast:
        return tokenizer
    processors = importlib.import_module("tokenizers").processors
    alone = deepcopy(tokenizer)
    alone.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    return alone


def sidecar(folder: str | Path) -> dict[str, Any]:
    """What seamark.json beside a reward model says; empty where there is none.

    Raises
    ------
    UnreadableSource
        If it cannot be read.
    """
    path = Path(folder).expanduser() / SIDECAR
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["seamark"] != "reward model":
            raise ValueError("it is not of a reward model")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableSource(str(path), f"it cannot be read ({error})", "Export the reward model again.") from None
    return record


def same_tokens(model: Any, tokenizer: Any) -> None:
    """The model's special tokens are the tokenizer's, and it has a row for each token.

    Raises
    ------
    SeamarkError
        If the vocabulary has grown beyond a model that cannot grow.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        try:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        except (NotImplementedError, ValueError) as error:
            raise SeamarkError(
                f"the tokenizer has {len(tokenizer):,} tokens and the model {rows:,} embeddings ({_first_line(error)}). "
                "Use a pad token that the vocabulary already has."
            ) from None
    text = model.config.get_text_config()
    text.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    for name in ("bos_token_id", "eos_token_id"):
        if (code := getattr(tokenizer, name)) is not None:
            setattr(text, name, code)
            setattr(model.config, name, code)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


# ---------------------------------------------------------------------------------------------- features of conversations


@dataclass(frozen=True)
class Reader:
    """A language model or reward model in memory, as a reader of conversations."""

    reward: RewardModel
    conversations: Conversations
    fingerprint: str
    """Of all that decides its features."""

    def read(self, turns: Sequence[Turns], *, keep: bool = True) -> NDArray[np.float32]:
        """(n, H) features of conversations, each distinct one read once; `keep` as in `encode_texts`."""
        texts = [self.conversations.render(prompt, response) for prompt, response in turns]
        if not texts:
            return np.empty((0, self.reward.hidden), dtype=np.float32)
        return stored(self.fingerprint, texts, lambda part: self.reward.features(self.conversations.encode(part)), keep=keep)


def open_reader(name: str, *, max_length: int | None = None, overlong: Overlong | None = None) -> Reader:
    """The reader in a folder or under a hub name; the last one opened is kept. What its seamark.json says of lengths holds.

    Raises
    ------
    UnreadableSource
        If there is no such model.
    """
    folder = model_folder(name)
    files = sorted(f for pattern in ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt") for f in folder.glob(pattern))
    return _reader(str(folder), tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files), max_length, overlong)


@lru_cache(maxsize=1)
def _reader(name: str, stamp: tuple[tuple[str, int, int], ...], max_length: int | None, overlong: Overlong | None) -> Reader:
    said = sidecar(name).get("conversations", {})
    tokenizer = open_tokenizer(name)
    reward = RewardModel.of(open_classifier(name, fresh_head=True))
    longest = max_length or said.get("longest")
    # a text that is scored must not stop a study or a policy's training: what is too long loses its oldest tokens
    conversations = Conversations.of(tokenizer, positions=reward.positions, max_length=longest, overlong=overlong or "cut", any_pad=True)
    torch = importlib.import_module("torch")
    reward.model.to("cuda" if torch.cuda.is_available() else "cpu")
    text = reward.model.config.get_text_config()
    if text.pad_token_id is None:  # the class asks for one to make batches; which does not matter to us, who know where texts end
        text.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id or 0
    digest = hashlib.sha256(conversations.digest.encode())
    for file, *_ in stamp:
        if file.endswith((".safetensors", "config.json")):
            with (Path(name) / file).open("rb") as stream:
                digest.update(file.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return Reader(reward, conversations, digest.hexdigest())
