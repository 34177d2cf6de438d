"""Small models of real architectures with random weights, and a tokenizer trained on the spot: what tests and benchmarks train."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
TEXTS = (
    "The quick brown fox jumps over the lazy dog. How do I bake bread? Mix flour, water, salt and yeast, then wait.",
    "I cannot help with that. Here is a longer answer with several reasons: first, second, third and so on.",
    "<|user|>\nWhat is the capital of France?\n<|assistant|>\nParis is the capital of France.",
    "0123456789 !?.,:;()[]{}'\"-+*/= abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
)


def small_tokenizer(texts: Iterable[str] = TEXTS, *, vocabulary: int = 600, bert: bool = False, chat: bool = True) -> Any:
    """A byte-level BPE tokenizer trained on the texts; BERT's adds [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"} if bert else SPECIAL
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special.values()), initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    if bert:
        ids = [(name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids)
    else:
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=2048, **special)
    if chat and not bert:
        tokenizer.chat_template = CHAT
    return tokenizer


def small_model(
    kind: str = "llama", *, tokenizer: Any = None, hidden: int = 32, layers: int = 2, heads: int = 4, seed: int = 0, **settings: Any
) -> Any:
    """A model with one score and random weights: llama, qwen2, qwen3, mistral, gpt2 (learnt positions), bloom (ALiBi), bert, distilbert."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = tokenizer or small_tokenizer(bert="bert" in kind)
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "num_labels": 1}
    common |= {} if "bert" in kind else {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    if kind in ("gpt2", "bloom"):
        shape = {"n_embd": hidden, "hidden_size": hidden, "n_layer": layers, "n_head": heads} | (
            {"n_positions": 2048} if kind == "gpt2" else {}
        )
    elif kind == "distilbert":
        shape = {"dim": hidden, "n_layers": layers, "n_heads": heads, "hidden_dim": 4 * hidden, "max_position_embeddings": 512}
    else:
        shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * hidden}
        shape |= {"max_position_embeddings": 512 if kind == "bert" else 2048}
        shape |= {} if kind == "bert" else {"num_key_value_heads": heads // 2}
        shape |= {"head_dim": hidden // heads} if kind == "qwen3" else {}
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **(common | shape | settings)))
    if "bert" not in kind:
        torch.nn.init.normal_(model.score.weight, std=0.3)
    return model


def save_small(folder: Path, kind: str = "llama", *, tokenizer: Any = None, **settings: Any) -> Path:
    """A folder as the hub would have it: model, tokenizer and chat template."""
    tokenizer = tokenizer or small_tokenizer(bert="bert" in kind)
    small_model(kind, tokenizer=tokenizer, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
