"""Style features and hashed n-grams, against naive counters written apart from them."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from seamark.errors import InvalidSetting
from seamark.models.features import STYLE_NAMES, HashEncoder, _chunks, _ngrams, hash_features, style_features

TEXTS = [
    "The cat sat on the mat; the cat's mat!",
    "Perhaps   it IS raining -- 3.5 mm,\n\nor 4?",
    "",
    "你好，世界。再见！",
    "naïve café Ünïcödé straße ÉTÉ",
    "a",
    "!!!",
    "emoji 🎉🎉 and \ud800 a lone surrogate",
    "हिन्दी में एक वाक्य और कुछ शब्द",
    "x" * 5000,
    "The cat sat on the mat; the cat's mat!",
]

_MASK = (1 << 64) - 1


def _mix(h: int) -> int:
    h ^= h >> 30
    h = h * 0xBF58476D1CE4E5B9 & _MASK
    h ^= h >> 27
    h = h * 0x94D049BB133111EB & _MASK
    return h ^ h >> 31


def _hash(text: str, extra: int = 0) -> int:
    return _mix((sum(ord(c) * pow(0xD6E8FEB86659FD93, j, 1 << 64) for j, c in enumerate(text)) + extra) & _MASK)


def _reference(text: str) -> tuple[Counter[int], Counter[int]]:
    """Buckets of the word 1-2-grams and of the character 3-5-grams of one text, by a loop."""
    text = " ".join(text.lower().split())
    single = "[\u3400-\u9fff]"
    tokens = re.findall(rf"{single}|(?:(?!{single})[\w\u0900-\u0903\u093a-\u094f])+", text)
    words = Counter(_hash(t) >> 46 for t in tokens)
    for one, two in itertools.pairwise(tokens):
        words[_mix((_hash(one) * 0x9E6C63D0876A9A47 + _hash(two)) & _MASK) >> 46] += 1
    characters: Counter[int] = Counter()
    for word in text.split():
        padded = f" {word} "
        for order in (3, 4, 5):
            for i in range(len(padded) - order + 1):
                characters[_hash(padded[i : i + order], order) >> 46] += 1
    return words, characters


def _exact(texts: list[str], idf: np.ndarray | None = None) -> np.ndarray:
    """Inner products before projection: the mean of the two blocks' cosines."""
    total = np.zeros((len(texts), len(texts)))
    for block in (0, 1):
        rows = []
        for text in texts:
            x = {b: (1 + np.log(c)) * (1.0 if idf is None else idf[block, b]) for b, c in _reference(text)[block].items()}
            norm = np.sqrt(sum(v * v for v in x.values()))
            rows.append({b: v / norm for b, v in x.items()} if norm else {})
        total += [[sum(v * t.get(b, 0.0) for b, v in s.items()) for t in rows] for s in rows]
    return total / 2


def test_ngram_counts_agree_with_a_naive_counter() -> None:
    counted = _ngrams(TEXTS)
    for block in (0, 1):
        key, count = counted[block]
        for row, text in enumerate(TEXTS):
            mine = key >> 18 == row
            assert dict(zip((key[mine] & (2**18 - 1)).tolist(), count[mine].tolist(), strict=True)) == dict(_reference(text)[block])


def _sentences(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 9))) for _ in range(300)]
    return [" ".join(rng.choice(words, rng.integers(1, 80))) for _ in range(n)]


@pytest.mark.parametrize("learned", [False, True])
def test_projection_keeps_inner_products(learned: bool) -> None:
    """Error sd of <Rx, Ry> is at most sqrt((|x|^2 |y|^2 + <x, y>^2) / m), so at most sqrt(2 / m) (Li, Hastie, Church 2006, lemma 1).

    40 texts give 820 inner products; at 6 sd a false alarm has probability below 1e-5 for Gaussian errors. The seeds are
    fixed, so the test either always passes or never.
    """
    texts = _sentences(40, seed=1)
    idf = HashEncoder.fit(texts, keep="all").idf if learned else None
    assert idf is None or np.count_nonzero(idf) > 1024
    exact = _exact(texts, idf)
    mean_error = np.zeros_like(exact)
    for seed in range(4):
        x = HashEncoder(1024, seed, idf).encode(texts).astype(np.float64)
        error = x @ x.T - exact
        assert np.abs(error).max() < 6 * np.sqrt(2 / 1024)
        assert np.sqrt(np.mean(error**2)) < 1.1 * np.sqrt(np.mean((1 + exact**2) / 1024))
        mean_error += error / 4
    assert np.sqrt(np.mean(mean_error**2)) < 0.5 * np.sqrt(2 / 1024)  # unbiased: the error shrinks as 1 / sqrt(4)


def test_frequent_ngrams_have_columns_of_their_own() -> None:
    """Then there is no projection and no error: inner products are the cosines over the n-grams kept."""
    texts = _sentences(40, seed=1)
    encoder = HashEncoder.fit(texts, n_columns=200)
    assert encoder.idf is not None
    assert (encoder.idf > 0).sum(1).tolist() == [100, 100]
    x = encoder.encode(texts).astype(np.float64)
    np.testing.assert_allclose(x @ x.T, _exact(texts, encoder.idf), atol=1e-6)
    df = Counter(bucket for text in texts for bucket in _reference(text)[0])
    least = min(df[b] for b in np.flatnonzero(encoder.idf[0]))
    assert max(n for b, n in df.items() if not encoder.idf[0, b]) <= least


def test_columns_one_block_cannot_use_go_to_the_other() -> None:
    texts = ["abcdefghij klmnopqrst"] * 2
    for n_columns in (8, 40, 60, 100):
        idf = HashEncoder.fit(texts, n_columns=n_columns).idf
        assert idf is not None
        words, characters = (idf > 0).sum(1).tolist()
        assert words == min(3, n_columns // 2)
        assert characters == min(2 * (10 + 9 + 8), n_columns - words)  # two words of 12 characters with their blanks


def test_the_columns_are_fixed_forever() -> None:
    """A stored fit must mean the same tomorrow: if this digest moves, raise `_VERSION`."""
    x = hash_features(TEXTS, n_columns=32, seed=3)
    assert hashlib.sha256(np.round(x * 1000).astype("<i4").tobytes()).hexdigest()[:16] == "4092b29bbb48e141"
    assert not np.array_equal(x, hash_features(TEXTS, n_columns=32, seed=4))


def test_another_process_with_another_hash_seed_agrees() -> None:
    program = (
        "from seamark.models.features import hash_features as h; print(h(['The cat, the mat.', '你好'], n_columns=64).tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hash_features(["The cat, the mat.", "你好"], n_columns=64).tobytes().hex()


def test_chunks_do_not_change_rows() -> None:
    texts = TEXTS * 3
    assert len(list(_chunks(texts, 40))) > 5
    encoder = HashEncoder.fit(texts, n_columns=256)
    whole = encoder.encode(texts)
    np.testing.assert_array_equal(encoder.encode(texts, chunk=40), whole)
    np.testing.assert_array_equal(np.vstack([encoder.encode([t]) for t in texts]), whole)
    np.testing.assert_array_equal(np.vstack([style_features([t]).values for t in texts]), style_features(texts).values)


def test_texts_that_differ_in_case_and_blanks_alone_have_one_row() -> None:
    one, other, third = hash_features(["The  cat\nsat ", "the CAT sat", "the cat sits"])
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
    assert one @ third > 0.3


def test_empty_texts_and_unknown_ngrams_are_zero_rows() -> None:
    assert not hash_features(["", "  \n"]).any()
    assert hash_features([]).shape == (0, 1024)
    encoder = HashEncoder.fit(["alpha beta", "gamma"])
    assert not encoder.encode(["zzz qqq"]).any()
    assert style_features([]).values.shape == (0, len(STYLE_NAMES))
    assert not style_features([""]).values.any()


def test_neither_block_swamps_the_other() -> None:
    """A text with words has half its squared length from each block; one without words has half in all."""
    with_words, without = hash_features(["many words in one long enough sentence here", "!!! ??? ###"]).astype(np.float64)
    assert with_words @ with_words == pytest.approx(1, abs=0.15)
    assert without @ without == pytest.approx(0.5, abs=0.1)


def test_idf_follows_its_formula() -> None:
    encoder = HashEncoder.fit(["the cat", "the dog", "the the bird"])
    assert encoder.idf is not None
    words = encoder.idf[0]
    assert words[_hash("the") >> 46] == pytest.approx(1)
    assert words[_hash("cat") >> 46] == pytest.approx(1 + np.log(4 / 2))
    assert words[_hash("absent") >> 46] == 0


def test_arrays_round_trip() -> None:
    for encoder in (HashEncoder.fit(TEXTS, n_columns=64, seed=5), HashEncoder(128, 2)):
        again = HashEncoder.from_arrays(encoder.to_arrays())
        np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    arrays = HashEncoder(128, 2).to_arrays() | {"hash_settings": np.array([99, 128, 2])}
    with pytest.raises(InvalidSetting, match="version"):
        HashEncoder.from_arrays(arrays)


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(InvalidSetting, match=r"texts\[1\]"):
        hash_features(["a", None])  # type: ignore[list-item]  # what a data frame holds
    with pytest.raises(InvalidSetting, match=r"texts\[0\]"):
        style_features([None])  # type: ignore[list-item]  # what a data frame holds
    with pytest.raises(InvalidSetting, match="n_columns"):
        HashEncoder(1)
    with pytest.raises(InvalidSetting, match="seed"):
        HashEncoder(seed=-1)
    with pytest.raises(InvalidSetting, match="idf"):
        HashEncoder(idf=np.zeros((2, 4), dtype=np.float32))
    with pytest.raises(InvalidSetting, match="at least one"):
        HashEncoder.fit([])


MARKDOWN = """Great question! I'm happy to help.

# Title
- **one** item
* two, __not__ bold
1. three
12) four
```py
x = 1
```
Perhaps it depends. I can’t say...  Sorry!"""


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        (MARKDOWN, "list_items", np.log1p(4)),
        (MARKDOWN, "headers", np.log1p(1)),
        (MARKDOWN, "bold", np.log1p(1)),
        (MARKDOWN, "code_blocks", np.log1p(1)),
        (MARKDOWN, "pleasantries", np.log1p(2)),
        (MARKDOWN, "refusals", np.log1p(1)),
        (MARKDOWN, "log_characters", np.log1p(len(MARKDOWN))),
        ("```\nnot closed", "code_blocks", np.log1p(1)),
        ("#hashtag\n####### seven\n2024. x", "headers", 0),
        ("-5 degrees\n3.5 mm", "list_items", 0),
        ("One two three. Four five six? Seven!", "log_words_per_sentence", np.log1p(7 / 3)),
        ("One two (three.) Four\nfive six", "log_words_per_sentence", np.log1p(2)),
        ("Dr.No cost 3.50 today", "log_words_per_sentence", np.log1p(6)),
        ("你好。你好吗？", "log_words_per_sentence", np.log1p(5 / 2)),
        ("Why? " * 30, "questions", 100),
        ("Why！", "exclamations", 5),
        ("OK!", "exclamations", 5),
        ("ABCDE" * 4 + "fghij" * 4, "capitals", 0.5),
        ("ÀÉÎÕÜ" * 4 + "àéîõü" * 4, "capitals", 0.5),
        ("word " * 22 + "I think", "hedging", 100 / 24),
        ("word " * 22 + "i, THINK", "first_person", 100 / 24),
        ("of", "pleasantries", 0),
    ],
)
def test_style_counts(text: str, column: str, expected: float) -> None:
    style = style_features(["filler, of", text, "course - i think"])  # neighbours must not leak in
    assert style.values[1, style.names.index(column)] == pytest.approx(expected)


def test_speed() -> None:
    """Loose: processor time, 5 times what a 2.5 GHz core needs."""
    texts = [" ".join(t.split()[:40] * 3)[:500] for t in _sentences(2000, seed=2)]
    hash_features(texts[:2])
    start = time.process_time()
    hash_features(texts)
    middle = time.process_time()
    style_features(texts)
    assert middle - start < 4
    assert time.process_time() - middle < 1
