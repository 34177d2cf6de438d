"""The ways in which programs read a reward model: each scores the same conversations as that program does.

Conventions
-----------
A conversation is (prompt, response); the prompt is a text, turns (mappings with role and content), or None. Scores are raw, (n,)
float64. Where a program is installed its own code is run (transformers, TRL); where it answers over HTTP it is asked.
"""

from __future__ import annotations

import importlib
import json
import random
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from seamark.errors import InvalidSetting, MissingExtra, SeamarkError, UnreadableSource
from seamark.models.checkpoint import RewardModel, open_classifier, open_tokenizer, sidecar, transformers_module
from seamark.models.conversations import Conversations, Tokens
from seamark.models.network import quiet

Array = NDArray[np.float64]
Prompt = str | Sequence[Mapping[str, Any]] | None
Conversation = tuple[Prompt, str]
Data = Literal["conversational", "standard"]
"""In TRL's words: turns, or plain texts."""
Sent = Literal["messages", "text", "defaults"]
"""What is posted to vLLM: turns; text with the special tokens said to be in it; the same text and nothing else."""

_BATCH = 8
_LONGEST = 2048
"""Tokens of a conversation where neither the model nor the tokenizer says how many."""
_HEADLESS = "no reward head"
_TRIES = 3
_RETRY_S = 0.5
_QUOTED = 200
"""Characters of an answer that an error quotes."""


@dataclass(frozen=True)
class Reading:
    """What a program makes of n conversations."""

    scores: Array
    tokens: tuple[Tokens, ...] | None = None
    """What the model read, without pads; None where the program does not say."""
    dtype: str = "float32"
    """Of the weights, where it is known."""


# ---------------------------------------------------------------------------------------------- what the folder says


@dataclass(frozen=True)
class Described:
    """What a checkpoint says of itself, apart from its scores."""

    reference: Reference
    n_labels: int
    problem_type: str | None
    causal: bool
    """Whether it is read at its last token."""
    pad: str | None
    eos: str | None
    """Pad token and the token that ends a text, of the tokenizer."""
    model_pad: str | None
    """The pad token in the model's configuration, by which transformers finds the last token."""
    has_template: bool
    missing_head: str | None
    """The weights of the reward head, where the checkpoint does not hold them."""
    adapter: bool
    """Whether it is an adapter (PEFT) to another model."""
    as_trained: bool | None
    """Whether it is tokenised as seamark.json says it was in training; None where that says nothing."""


def describe(checkpoint: str) -> Described:
    """What a checkpoint says of itself, and the checkpoint opened.

    Raises
    ------
    UnreadableSource
        If it cannot be opened at all, even with a new head.
    """
    transformers, base, missing = transformers_module(), _base(checkpoint), False
    try:
        reference = Reference.open(checkpoint)
    except UnreadableSource as error:
        if _HEADLESS not in error.problem:
            raise
        reference, missing = Reference.open(checkpoint, fresh_head=True), True
    # PEFT wraps a head that it retrains
    head = RewardModel.of(reference.model).head_name.partition(".modules_to_save")[0].partition(".original_module")[0]
    if base is not None and not _holds(checkpoint, head):
        missing = _is_headless(base)
    with _said_by("transformers", checkpoint):
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        config = transformers.AutoConfig.from_pretrained(base or checkpoint)
    pad = config.get_text_config().pad_token_id
    said = sidecar(checkpoint).get("conversations", {})
    now = replace(reference.conversations, overlong=said.get("overlong", "refuse"))
    return Described(
        reference=reference,
        n_labels=reference.model.config.num_labels,
        problem_type=config.problem_type,
        causal=head == "score",
        pad=tokenizer.pad_token,
        eos=tokenizer.eos_token,
        model_pad=None if pad is None else str(tokenizer.convert_ids_to_tokens(pad)),
        has_template=bool(tokenizer.chat_template),
        missing_head=f"{head}.weight" if missing else None,
        adapter=base is not None,
        as_trained=None if "digest" not in said else said["digest"] == now.digest,
    )


def _base(checkpoint: str) -> str | None:
    """The model that an adapter is for; None where the checkpoint is whole."""
    path = Path(checkpoint).expanduser() / "adapter_config.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]) if path.is_file() else None


def _holds(adapter: str, head: str) -> bool:
    """Whether the weights of an adapter include the head's."""
    with safe_open(Path(adapter).expanduser() / "adapter_model.safetensors", "numpy") as file:
        # PEFT saves a retrained module under its own name, and low-rank factors of it beneath
        return any(f".{head}." in f".{name}" for name in file.keys())  # noqa: SIM118  # it is no mapping


def _is_headless(checkpoint: str) -> bool:
    try:
        open_classifier(checkpoint)
    except UnreadableSource as error:
        if _HEADLESS not in error.problem:
            raise
        return True
    return False


# ---------------------------------------------------------------------------------------------- Seamark


@dataclass(frozen=True)
class Reference:
    """A checkpoint opened as it is meant to be read: one conversation a row, no pads, at its very last token."""

    model: Any
    conversations: Conversations

    @staticmethod
    def open(checkpoint: str, *, dtype: str = "float32", fresh_head: bool = False) -> Reference:
        """In this precision; with `fresh_head` also where there is no head, and it is then random.

        Raises
        ------
        UnreadableSource
            If there is no such reward model.
        """
        torch = importlib.import_module("torch")
        model = open_classifier(checkpoint, fresh_head=fresh_head, dtype=torch.__dict__[dtype]).to(_device())
        positions = RewardModel.of(model).positions
        # without a pad token, transformers reads the last token whichever it is
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = None
        said = sidecar(checkpoint).get("conversations", {})
        # what is wrong with pads is to be found out, and nobody else refuses what is too long
        conversations = Conversations.of(
            open_tokenizer(checkpoint), positions=positions, max_length=said.get("longest"), overlong="cut", any_pad=True
        )
        return Reference(model, conversations)

    def encode(self, conversations: Sequence[Conversation]) -> list[Tokens]:
        """The tokens of conversations."""
        return self.conversations.encode([self.conversations.render(prompt, response) for prompt, response in conversations])

    def score(self, rows: Sequence[Tokens]) -> Array:
        """(n,) scores of any tokens."""
        torch = importlib.import_module("torch")
        out = np.empty(len(rows))
        with torch.inference_mode():
            for i, row in enumerate(rows):
                ids = torch.as_tensor(row, dtype=torch.long, device=self.model.device)[None]
                out[i] = float(self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
        return out


def by_seamark(checkpoint: str, conversations: Sequence[Conversation]) -> Reading:
    """As Seamark trained it and reads it.

    Raises
    ------
    UnreadableSource
        If there is no such reward model.
    """
    reference = Reference.open(checkpoint)
    rows = reference.encode(conversations)
    return Reading(reference.score(rows), tuple(rows))


# ---------------------------------------------------------------------------------------------- transformers


def by_transformers(
    checkpoint: str,
    conversations: Sequence[Conversation],
    *,
    read: Literal["template", "text"] = "template",
    batch: int = _BATCH,
    padding_side: Literal["left", "right"] | None = None,
    seed: int | None = None,
) -> Reading:
    """As a user of transformers does: AutoTokenizer, AutoModelForSequenceClassification, logits[:, 0].

    Parameters
    ----------
    read : the tokens that the chat template gives, or its text, tokenised as any text is (a pipeline, RewardBench).
    batch : conversations of a padded batch; 1 is without pads.
    padding_side : where the pads go; left out, where the tokenizer puts them.
    seed : of weights that the checkpoint lacks.

    Raises
    ------
    SeamarkError
        With what transformers says, where it cannot.
    """
    transformers, torch = transformers_module(), importlib.import_module("torch")
    with _said_by("transformers", checkpoint), quiet(transformers), _own_seeds():
        if seed is not None:
            torch.manual_seed(seed)
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        tokenizer.padding_side = padding_side or tokenizer.padding_side
        model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint, use_safetensors=True).eval().to(_device())
        scores: list[Array] = []
        with _watch(model) as seen, torch.inference_mode():
            for start in range(0, len(conversations), batch):
                turns = [messages_of(prompt, response) for prompt, response in conversations[start : start + batch]]
                how = {"padding": batch > 1, "return_tensors": "pt"}
                if read == "template":
                    inputs = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, **how)
                else:
                    inputs = tokenizer([tokenizer.apply_chat_template(t, tokenize=False) for t in turns], **how)
                inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
                scores.append(model(**inputs).logits[:, 0].double().cpu().numpy())
    return Reading(np.concatenate(scores), tuple(seen), str(model.dtype).removeprefix("torch."))


# ---------------------------------------------------------------------------------------------- TRL


def by_trl(checkpoint: str, conversations: Sequence[Conversation], *, data: Data = "conversational") -> Reading:
    """As TRL's GRPO and RLOO score completions with a model: `GRPOTrainer._calculate_rewards` is run, with a policy of no account.

    Parameters
    ----------
    data : standard takes prompts that are texts, or None.

    Raises
    ------
    MissingExtra
        Without TRL.
    SeamarkError
        With what TRL says, where it cannot.
    """
    trl, transformers = _trl(), transformers_module()
    prompts, completions = _trl_columns(conversations, data)
    with _said_by("TRL", checkpoint), tempfile.TemporaryDirectory() as folder, quiet(transformers), _own_seeds(), _no_bars():
        # the trainer wants a policy; that it shares the tokenizer makes no difference to how a reward is read
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
        policy = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokenizer), **shape))
        args = trl.GRPOConfig(output_dir=folder, per_device_train_batch_size=2, num_generations=2, **_trl_settings())
        trainer = trl.GRPOTrainer(
            model=policy, reward_funcs=checkpoint, args=args, train_dataset=_dataset([{"prompt": prompts[0]}]), processing_class=tokenizer
        )
        model = trainer.reward_funcs[0]
        scores: list[Array] = []
        with _watch(model) as seen:
            for start in range(0, len(prompts), _BATCH):
                rows = slice(start, start + _BATCH)
                inputs = [{"prompt": prompt} for prompt in prompts[rows]]
                found = trainer._calculate_rewards(inputs, prompts[rows], completions[rows], [[0]] * len(inputs))
                scores.append(found[:, 0].double().cpu().numpy())
    return Reading(np.concatenate(scores), tuple(seen), str(model.dtype).removeprefix("torch."))


def by_trl_trainer(checkpoint: str, conversations: Sequence[Conversation], *, data: Data = "conversational") -> Reading:
    """As TRL's `RewardTrainer` reads them: its own preparation of a data set, its own batches, its model.

    Raises
    ------
    MissingExtra
        Without TRL.
    SeamarkError
        With what TRL says, where it cannot.
    """
    trl, transformers, torch = _trl(), transformers_module(), importlib.import_module("torch")
    prompts, completions = _trl_columns(conversations, data)
    rows = [{"prompt": p, "chosen": c, "rejected": c} for p, c in zip(prompts, completions, strict=True)]
    with _said_by("TRL", checkpoint), tempfile.TemporaryDirectory() as folder, quiet(transformers), _own_seeds(), _no_bars():
        args = trl.RewardConfig(output_dir=folder, max_length=None, **_trl_settings())
        trainer = trl.RewardTrainer(model=checkpoint, args=args, train_dataset=_dataset(rows))
        examples = list(trainer.train_dataset)
        model = trainer.model.eval()
        scores: list[Array] = []
        with torch.inference_mode():
            for start in range(0, len(examples), _BATCH):
                part = examples[start : start + _BATCH]
                inputs = trainer._prepare_inputs(trainer.data_collator(part))
                scores.append(model(**inputs).logits[: len(part), 0].double().cpu().numpy())
    tokens = tuple(np.asarray(e["chosen_ids"], dtype=np.int32) for e in examples)
    return Reading(np.concatenate(scores), tokens, str(model.dtype).removeprefix("torch."))


def _trl() -> Any:
    try:
        import trl
    except ModuleNotFoundError:
        raise MissingExtra("policy", "Comparing scores with TRL's") from None
    return trl


def _trl_settings() -> dict[str, Any]:
    torch = importlib.import_module("torch")
    # with several GPUs and no launcher TRL refuses to run
    return {"report_to": "none", "bf16": False, "disable_tqdm": True, "use_cpu": torch.cuda.device_count() != 1}


def _trl_columns(conversations: Sequence[Conversation], data: Data) -> tuple[list[Any], list[Any]]:
    """Prompts and completions as TRL passes them on."""
    if data == "conversational":
        turns = [messages_of(prompt, response) for prompt, response in conversations]
        return [t[:-1] for t in turns], [t[-1:] for t in turns]
    if wrong := next((p for p, _ in conversations if not (p is None or isinstance(p, str))), None):
        raise InvalidSetting("prompt", wrong, "Standard data has prompts of one text.")
    return [prompt or "" for prompt, _ in conversations], [response for _, response in conversations]


def _dataset(rows: list[dict[str, Any]]) -> Any:
    return importlib.import_module("datasets").Dataset.from_list(rows)


# ---------------------------------------------------------------------------------------------- HTTP


def by_http(checkpoint: str, conversations: Sequence[Conversation], url: str, *, send: Sent = "text", timeout_s: float = 60.0) -> Reading:
    """As a server answers. The path of the URL says in what shape: /classify (vLLM, SGLang), /get_reward (OpenRLHF), or
    /v1/score/evaluation (LLaMA-Factory).

    Parameters
    ----------
    checkpoint : whose chat template makes the text, where text is sent.
    url : http or https.
    send : for /classify; the other two take text alone.
    timeout_s : of one request; three tries.

    Raises
    ------
    UnreadableSource
        If nobody answers, or not with one finite score for each conversation.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidSetting("url", url, "Give one that begins with http:// or https://, such as http://127.0.0.1:8000/classify.")
    path = parts.path.rstrip("/") or "/classify"
    url = parts._replace(path=path).geturl()
    shape = next((name for name in ("classify", "get_reward", "evaluation") if path.endswith("/" + name)), None)
    if shape is None:
        raise InvalidSetting("url", url, "Its path must end in /classify (vLLM, SGLang), /get_reward (OpenRLHF) or /v1/score/evaluation.")
    tokenizer = open_tokenizer(checkpoint)
    one_by_one = shape == "get_reward" or (shape == "classify" and send == "messages")
    size = 1 if one_by_one else _BATCH
    scores: list[float] = []
    for start in range(0, len(conversations), size):
        part = conversations[start : start + size]
        turns = [messages_of(prompt, response) for prompt, response in part]
        texts = [str(tokenizer.apply_chat_template(t, tokenize=False)) for t in turns] if send != "messages" else []
        if shape == "classify":
            payload: dict[str, Any] = {"messages": turns[0]} if send == "messages" else {"input": texts}
            payload |= {} if send == "defaults" else {"use_activation": False}
            payload |= {"add_special_tokens": False} if send == "text" else {}
        elif shape == "get_reward":
            prompts = [p if isinstance(p, str) else json.dumps(list(p or []), ensure_ascii=False) for p, _ in part]
            payload = {"query": texts, "prompts": prompts, "labels": [None] * len(part)}
        else:
            payload = {"model": "reward", "messages": texts}
        answer = post_json(url, payload, timeout_s)
        try:
            found = _scores_in(answer, shape)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise _not_an_answer(url, f"{type(error).__name__} {error} in {_short(answer)}") from None
        if len(found) != len(part) or not np.isfinite(found).all():
            raise _not_an_answer(url, f"{len(part)} conversations were sent, and this came back: {_short(answer)}")
        scores += found
    return Reading(np.array(scores))


def _scores_in(answer: Any, shape: str) -> list[float]:
    if shape == "classify":
        rows = sorted(answer["data"], key=lambda row: row.get("index", 0))
        if several := [row for row in rows if len(row["probs"]) != 1]:
            raise ValueError(f"({len(several[0]['probs'])} scores for one conversation)")
        return [float(row["probs"][0]) for row in rows]
    return [float(score) for score in answer["rewards" if shape == "get_reward" else "scores"]]


def post_json(url: str, payload: Mapping[str, Any], timeout_s: float = 60.0) -> Any:
    """The JSON that a server answers; what may pass (a refused connection, a status from 500) is tried again."""
    body = json.dumps(payload, ensure_ascii=False).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", "Accept": "application/json"})
    # a proxy knows nothing of this machine
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if _is_local(url) else []))
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_RETRY_S * attempt)
        try:
            with opener.open(request, timeout=timeout_s) as response:
                text = response.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                said = _short(error.read(10_000).decode("utf-8", "replace"))
            problem = f"it answers {error.code} ({said})"
            if error.code < 500:
                break
        except (OSError, ValueError) as error:  # refused, reset, timed out, not HTTP
            problem = f"it does not answer ({error})"
        else:
            try:
                return json.loads(text)
            except ValueError:
                raise _not_an_answer(url, f"not JSON but {_short(text)}") from None
    raise UnreadableSource(url, problem, "Check that the server is up, that its path is right and that it serves a reward model.")


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _not_an_answer(url: str, problem: str) -> UnreadableSource:
    return UnreadableSource(
        url, f"it does not answer with one score for each conversation: {problem}", "Check that it serves this reward model."
    )


def _short(answer: Any) -> str:
    text = " ".join((answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)).split())
    return text if len(text) <= _QUOTED else text[: _QUOTED - 3] + "..."


# ---------------------------------------------------------------------------------------------- beside the way


def messages_of(prompt: Prompt, response: str) -> list[dict[str, Any]]:
    """A conversation as messages: a prompt that is one text is the user's turn."""
    before = [{"role": "user", "content": prompt or ""}] if prompt is None or isinstance(prompt, str) else [dict(m) for m in prompt]
    return [*before, {"role": "assistant", "content": response}]


def _device() -> str:
    torch = importlib.import_module("torch")
    return "cuda" if torch.cuda.device_count() == 1 else "cpu"


@contextmanager
def _watch(model: Any) -> Generator[list[Tokens]]:
    """The rows of tokens that go into a model from here on, without pads."""
    seen: list[Tokens] = []

    def note(_model: Any, _given: Any, named: Mapping[str, Any]) -> None:
        for ids, mask in zip(named["input_ids"].cpu().numpy(), named["attention_mask"].cpu().numpy(), strict=True):
            seen.append(ids[mask > 0].astype(np.int32))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def _said_by(program: str, checkpoint: str) -> Generator[None]:
    """Errors of another program as ours; its warnings are about other uses than this one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SeamarkError:
        raise
    except Exception as error:  # whatever the other program raises
        said = str(error).strip().splitlines()
        raise UnreadableSource(
            checkpoint,
            f"{program} cannot score with it ({type(error).__name__}: {said[0][:_QUOTED] if said else ''})",
            "Mend what it names.",
        ) from None


@contextmanager
def _own_seeds() -> Generator[None]:
    """Trainers seed every generator of the process; afterwards they are as before."""
    torch = importlib.import_module("torch")
    old, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # what is kept is that of others
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(old)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _no_bars() -> Generator[None]:
    """Without the progress bars of datasets."""
    bars = importlib.import_module("datasets.utils")
    was = bars.is_progress_bar_enabled()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        if was:
            bars.enable_progress_bars()
