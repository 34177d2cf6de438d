"""A reward model: trained on ties, ratings and pairs of several raters at once, then read by transformers.

    python examples/reward_model.py

`Network` trains a language model by the same likelihood that fits tables: each prompt and each answer is read once, whatever was said of it,
and raters' reliability is fitted beside the weights. The fit that follows puts intervals on its last layer. Any folder or hub name of a
model serves as `model`; here it is a Llama of 60,000 random weights, made on the spot.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast, logging

import seamark as sm
from seamark.reward import export_reward_model

logging.disable_progress_bar()
rng = np.random.default_rng(0)
WORDS = ["please", "thanks", "sorry", "never", "always", "perhaps", "sure", "fine", "wrong", "right", "good", "bad"]
WORTH = dict(zip(WORDS, rng.normal(size=len(WORDS)), strict=True))
folder = Path(tempfile.mkdtemp())

raw = Tokenizer(models.BPE({c: i for i, c in enumerate(["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}, []))
raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>").save_pretrained(folder / "base")
torch.manual_seed(0)
config = LlamaConfig(vocab_size=259, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=1)
AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "base")

judgments: list[sm.Judgment] = []
for q in range(100):
    answers = [" ".join(rng.choice(WORDS, 4)) for _ in range(3)]
    value = [sum(WORTH[w] for w in a.split()) for a in answers]
    for _ in range(3):
        rater = {"id": f"rater {rng.integers(9)}"}
        care = 0.0 if rater["id"] in ("rater 0", "rater 1") else 1.0  # two of nine answer at random
        gap = care * (value[0] - value[1]) + rng.logistic()
        shown = [{"text": a} for a in answers]
        asked = {"prompt": f"Question {q}", "rater": rater}
        said = "tie" if abs(gap) < 0.5 else "left" if gap > 0 else "right"
        judgments.append(sm.Judgment(kind="pair", responses=shown[:2], outcome=said, **asked))
        stars = float(np.clip(np.round(3 + care * value[2] / 2 + rng.normal() / 2), 1, 5))
        judgments.append(sm.Judgment(kind="rating", responses=shown[2:], rating=stars, scale=(1.0, 5.0), **asked))

train, test = sm.Feedback.from_judgments(judgments).split(by="prompt", seed=0)
how = {
    "learning_rate": 3e-3,
    "num_train_epochs": 6,
    "tokens_per_batch": 2000,
    "disable_tqdm": True,
    "logging_strategy": "no",
    "use_cpu": True,
}
network = sm.Network(str(folder / "base"), str(folder / "trained"), settings=how)
fit = sm.fit(train, utility=network)

truth = np.array([sum(WORTH[w] for w in text.split()) for text in test.responses["text"]])
slope = dict(zip(fit.raters["rater"], fit.raters["slope"], strict=True))
careless = [slope["rater 0"], slope["rater 1"]]
print(f"utilities of new answers and what they are worth correlate: {np.corrcoef(fit.utilities(test), truth)[0, 1] > 0.8}")
print(f"the two careless raters have the flattest slopes: {sorted(slope.values())[:2] == sorted(careless)}")

export_reward_model(fit, folder / "reward-model")
model, tokenizer = (c.from_pretrained(folder / "reward-model") for c in (AutoModelForSequenceClassification, AutoTokenizer))
turns = [{"role": "user", "content": "A new question"}, {"role": "assistant", "content": "sure fine good"}]
ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
ours = sm.Reward(folder / "reward-model").score(["A new question"], ["sure fine good"])
theirs = sm.Reward(folder / "reward-model").score(["A new question"], ["never wrong bad"])
with torch.no_grad():
    score = float(model(input_ids=ids).logits[0, 0])
    other = tokenizer.apply_chat_template(
        [turns[0], {"role": "assistant", "content": "never wrong bad"}], return_tensors="pt", return_dict=True
    )
    gap = score - float(model(input_ids=other["input_ids"]).logits[0, 0])
print(f"transformers alone finds the same gap as Seamark: {abs(gap - (ours.mean - theirs.mean)[0]) < 1e-3}")
print(f"and Seamark knows how sure it is of each score: {bool(ours.ignorance[0] > 0)}")
