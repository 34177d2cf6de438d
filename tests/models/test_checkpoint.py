"""Reward models as folders: what is saved is what anyone reads, and any reward model is a fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.test_training import WORDS, pairs, society, worth
from small_models import save_small, small_model, small_tokenizer

import seamark as sm
from seamark.aggregation import Charter
from seamark.errors import InvalidSetting, UnreadableSource
from seamark.models.checkpoint import RewardModel, open_classifier, open_reader, runs, sidecar
from seamark.models.conversations import Conversations, plain_template, turns_of
from seamark.models.fitting import open_reward_model
from seamark.reward import export_reward_model, open_fit

KINDS = ("llama", "qwen3", "gpt2", "bert", "distilbert")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEAMARK_CACHE", str(tmp_path / "cache"))


def stock_scores(folder: Path, prompts: list[Any], completions: list[str]) -> np.ndarray:
    """What a user of transformers alone does with a saved reward model: the template, a padded batch, the first logit."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template(
            [*([{"role": "user", "content": p}] if isinstance(p, str) else p), {"role": "assistant", "content": c}], tokenize=False
        )
        for p, c in zip(prompts, completions, strict=True)
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        return model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].double().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_reward_model_scores_alike_wherever_it_is_loaded(tmp_path: Path, kind: str) -> None:
    base = save_small(tmp_path / "base", kind)
    feedback = society(30)
    train, test = feedback.split(by="prompt", seed=0)
    fit = sm.fit(train, utility=sm.Linear(str(base), style=False), people=sm.Groups(min_judgments=5))
    charter = Charter.model_validate({"electorate": {"weighting": "named", "weights": {"even": 0.75, "odd": 0.25}}})
    out = tmp_path / "out"
    made = export_reward_model(fit, out, charter=charter)
    assert made["digest"] == sidecar(out)["conversations"]["digest"] == open_reader(str(out)).conversations.digest
    prompts = [test.prompts["text"][code] for code in test.responses["prompt"]]
    completions = test.responses["text"].to_list()
    expected = fit.utilities(test, group_weights={"even": 3.0, "odd": 1.0})
    scores = stock_scores(out, prompts, completions)
    np.testing.assert_allclose(scores + made["intercept"], expected, atol=5e-4)  # 32 bits, of weights times features of some hundreds
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "regression"
    assert len(config["id2label"]) == 1
    assert config["pad_token_id"] != config.get("eos_token_id")
    assert (out / "chat_template.jinja").is_file()
    assert not [p for p in out.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    # moved elsewhere, it is the fit that it came from, with its ignorance
    shutil.move(out, tmp_path / "moved")
    shutil.rmtree(base)
    reward = sm.Reward(str(tmp_path / "moved"), charter=charter).score(prompts, completions)
    np.testing.assert_allclose(reward.mean, expected, atol=5e-4)
    assert (reward.ignorance > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_any_reward_model_is_a_fit_without_a_posterior(tmp_path: Path, kind: str) -> None:
    folder = save_small(tmp_path / "theirs", kind)
    if "bert" in kind:  # a bias of the last layer is part of the score
        model = open_classifier(str(folder))
        with torch.no_grad():
            model.classifier.bias.fill_(0.7)
        model.save_pretrained(folder)
    prompts, completions = (
        ["one question", [{"role": "user", "content": "another"}]],
        ["an answer", "a rather longer answer, with more to it"],
    )
    reward = sm.Reward(str(folder))
    if "bert" in kind:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = plain_template(tokenizer)
        tokenizer.save_pretrained(folder)
    np.testing.assert_allclose(reward(prompts=prompts, completions=completions), stock_scores(folder, prompts, completions), atol=1e-5)
    assert np.isnan(reward.score(prompts, completions).ignorance).all()
    test = society(12)
    findings = sm.evaluate(open_fit(folder), test)
    codes = {f.code: f.verdict for f in findings}
    assert codes["accuracy"] == "ok"
    assert codes["doubts"] == codes["convergence"] == "not_applicable"
    own = stock_scores(folder, [test.prompts["text"][c] for c in test.responses["prompt"]], test.responses["text"].to_list())
    left, right = (np.array([r[i] for r in test.judgments["responses"].to_list()]) for i in (0, 1))
    right_way = (own[left] > own[right]) == (test.judgments["outcome"] == "left").to_numpy()
    assert next(f.estimate for f in findings if f.code == "accuracy") == pytest.approx(right_way.mean(), abs=1e-9)


@pytest.mark.parametrize("pad", [None, "</s>"], ids=["no pad token", "padded with the end of a text"])
def test_a_reward_model_with_a_useless_pad_token_is_scored_all_the_same(tmp_path: Path, pad: str | None) -> None:
    tokenizer = small_tokenizer()
    tokenizer.pad_token = pad
    model = small_model("llama", tokenizer=tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    prompts, completions = ["one", "two", "three"], ["an answer", "a rather longer answer, with more to it", "a third"]
    scores = sm.Reward(str(tmp_path / "theirs"))(prompts=prompts, completions=completions)
    ids = [
        tokenizer(t, add_special_tokens=False)["input_ids"]
        for t in map(Conversations.of(tokenizer, positions=64, any_pad=True).render, prompts, completions)
    ]
    with torch.no_grad():
        last = [float(model.score(model.model(torch.tensor([i])).last_hidden_state[0, -1])) for i in ids]
    np.testing.assert_allclose(scores, last, atol=1e-5)


def test_what_cannot_be_folded_into_one_score_is_refused(tmp_path: Path) -> None:
    base = save_small(tmp_path / "base")
    feedback = society(20)
    with pytest.raises(InvalidSetting, match="not read by a language model"):
        export_reward_model(sm.fit(feedback), tmp_path / "out")
    fit = sm.fit(feedback, utility=sm.Linear(str(base)))
    with pytest.raises(InvalidSetting, match="no block of length and style"):
        export_reward_model(fit, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_reward_model(fit, tmp_path / "out", charter=Charter.model_validate({"effects": {"style": "discount"}}))


def test_models_that_are_no_reward_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableSource, match="not a fitted model"):
        sm.Reward(str(tmp_path / "empty"))
    tokenizer = small_tokenizer()
    small_model("llama", tokenizer=tokenizer, num_labels=3).save_pretrained(tmp_path / "three")
    tokenizer.save_pretrained(tmp_path / "three")
    with pytest.raises(UnreadableSource, match="it gives 3 scores"):
        open_reward_model(tmp_path / "three")
    save_small(tmp_path / "broken")
    (tmp_path / "broken" / "seamark.json").write_text("{", encoding="utf-8")
    with pytest.raises(UnreadableSource, match=r"seamark\.json: it cannot be read"):
        open_reward_model(tmp_path / "broken")


def test_a_plain_template_is_what_the_tokenizer_begins_and_ends_with() -> None:
    bare = small_tokenizer(chat=False)
    conversations = Conversations.of(bare, positions=64)
    assert conversations.render("ask", "say") == "<s>ask\n\nsay</s>"
    assert conversations.render(None, "say") == "<s>say</s>"
    assert conversations.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "d") == (
        "<s>a\n\nb\n\nc\n\nd</s>"
    )  # fmt: skip
    encoder = Conversations.of(small_tokenizer(bert=True), positions=64)
    assert encoder.render("ask", "say") == "[CLS]ask\n\nsay[SEP]"
    assert conversations.digest != encoder.digest


def test_features_do_not_depend_on_who_shares_the_batch_and_are_kept(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "model")
    reader = open_reader(str(folder))
    turns = turns_of(society(6))
    together = reader.read(turns, keep=False)
    alone = np.concatenate([reader.read([one], keep=False) for one in turns])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    kept = reader.read(turns)
    model = RewardModel.of(reader.reward.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "features", lambda *_: pytest.fail("read again"))
        np.testing.assert_array_equal(reader.read(turns), kept)


def test_runs_waste_little_and_hold_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 64)
    found = runs(lengths)
    assert sorted(np.concatenate(found)) == list(range(64))
    assert all(len(r) * lengths[r].max() <= 1.04 * lengths[r].sum() for r in found)
    assert len(found) < 40


def test_a_network_is_fitted_saved_and_loaded_like_any_utility(tmp_path: Path) -> None:
    base = save_small(tmp_path / "base")
    train, test = society(40).split(by="prompt", seed=0)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 2, "tokens_per_batch": 1500, "use_cpu": True, "disable_tqdm": True}
    network = sm.Network(str(base), str(tmp_path / "net"), settings=settings)
    fit = sm.fit(train, utility=network)
    assert fit.spec["utility"] == network.to_dict()
    assert any("trained on" in note for note in fit.notes)
    fit.save(tmp_path / "fit")
    np.testing.assert_allclose(sm.models.Fit.load(tmp_path / "fit").utilities(test), fit.utilities(test), atol=1e-9)
    # a finished training is not done again, and another one does not overwrite it
    stamp = (tmp_path / "net" / "model.safetensors").stat().st_mtime_ns
    sm.fit(train, utility=network)
    assert (tmp_path / "net" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(InvalidSetting, match="It holds a reward model of other judgments or settings"):
        sm.fit(test, utility=network)
    assert open_fit(tmp_path / "net").factor.shape[1] == 0  # without the fit of its last layer beside it, a score alone


def test_held_back_prompts_are_not_trained_on(tmp_path: Path) -> None:
    base = save_small(tmp_path / "base")
    feedback = society(30)
    settings = {"tokens_per_batch": 1500, "use_cpu": True, "disable_tqdm": True}
    fit = sm.fit(feedback, utility=sm.Network(str(base), str(tmp_path / "net"), held_back=0.5, settings=settings))
    trained = sidecar(tmp_path / "net")["tokens"]["judgments"]
    assert fit.data["n_judgments"] + trained == feedback.n_judgments
    assert not any("trained on" in note for note in fit.notes)


def test_pairs_helper_makes_turns() -> None:
    assert turns_of(pairs(([{"role": "user", "content": "q"}], "a", "b")))[0] == ([{"role": "user", "content": "q"}], "a")


def test_axes_are_trained_together_and_told_apart(tmp_path: Path) -> None:
    """Two axes that want opposite words, in one network: each axis' values follow its own."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("kind", "prompt", "texts", "outcome", "axis")}
    for p in range(60):
        texts = [" ".join(rng.choice(WORDS, rng.integers(4, 12))) + f" {i}" for i in range(3)]
        for i, j in ((0, 1), (1, 2), (0, 2)):
            for axis, sign in (("kind", 1.0), ("blunt", -1.0)):
                gap = sign * (worth(texts[i]) - worth(texts[j]))
                row = ("pair", f"Question {p}", [texts[i], texts[j]], "left" if rng.random() < 1 / (1 + np.exp(-gap)) else "right", axis)
                for name, value in zip(columns, row, strict=True):
                    columns[name].append(value)
    feedback = sm.Feedback.from_columns(columns)
    base = save_small(tmp_path / "base", tokenizer=small_tokenizer([" ".join(WORDS)] * 3))
    settings = {"learning_rate": 3e-3, "num_train_epochs": 12, "tokens_per_batch": 1500, "use_cpu": True, "disable_tqdm": True}
    fit = sm.fit(feedback, utility=sm.MultiAxis(sm.Network(str(base), str(tmp_path / "net"), settings=settings)))
    truth = np.array([worth(t) for t in feedback.responses["text"]])
    correlation = {axis: np.corrcoef(fit.utilities(feedback, at={"axis": axis}), truth)[0, 1] for axis in ("kind", "blunt")}
    assert correlation["kind"] > 0.7
    assert correlation["blunt"] < -0.7
