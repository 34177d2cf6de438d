"""What a text is turned into before a linear utility sees it: style features, and hashed n-grams.

Conventions
-----------
Texts are joined into one array of Unicode code points per chunk, each text with a line break before it, and everything is
counted there; nothing is counted in a Python loop over texts. No step depends on Python's `hash`, on the platform or on a
NumPy random stream, so a stored encoder gives the same columns in every process.

A *word* is a run of letters, marks, digits and underscores; every Chinese, Japanese kana, Thai, Lao or Khmer character is a
word of its own, because those scripts are written without spaces. An apostrophe ends a word: "I'm" is `i`, `m`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from seamark.errors import InvalidSetting

_CHUNK = 500_000
"""Code points per chunk: about 60 bytes each are held at the peak."""

_BITS = 18
_N_BUCKETS = 1 << _BITS
_MAX_ROWS = 1 << (32 - _BITS)  # row and bucket share one 32-bit sort key

# ------------------------------------------------------------------------------------ code points and words

_OTHER, _WORD, _SINGLE, _UPPER, _LOWER, _BLANK, _BREAK, _STOP, _ASK, _SHOUT = range(128, 138)


@lru_cache(maxsize=1 << 16)
def _kind(code: int) -> int:
    """What a code point is, as one byte: itself where ASCII, else one of the classes above."""
    if code < 128:
        return code if code not in (0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F) else 0x20
    character = chr(code)
    if character in "。．｡…":
        return _STOP
    if character in "？؟⸮":
        return _ASK
    if character in "！":
        return _SHOUT
    if character in "\x85\u2028\u2029":
        return _BREAK
    if character.isspace():
        return _BLANK
    if unicodedata.category(character)[0] not in "LNM":
        return _OTHER
    unspaced = (0x0E00, 0x0EFF), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)
    if any(low <= code <= high for low, high in unspaced):
        return _SINGLE
    return _UPPER if character.isupper() else _LOWER if character.islower() else _WORD


@dataclass(frozen=True, eq=False)
class _Joined:
    """Texts joined: one line break before each, one at the end."""

    code: NDArray[np.uint32]  # (n,) code points
    kind: NDArray[np.uint8]  # (n,) class of each, see _kind
    row: NDArray[np.uint32]  # (n,) text that each belongs to; the break before a text belongs to it
    n_texts: int


def _join(texts: Sequence[str]) -> _Joined:
    joined = "\n" + "\n".join(texts) + "\n"
    code = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    lengths = np.fromiter((len(t) + 1 for t in texts), dtype=np.int64, count=len(texts))
    lengths[-1] += 1
    table = np.full(int(code.max()) + 1, _OTHER, dtype=np.uint8)
    present = np.flatnonzero(np.bincount(code))
    table[present] = [_kind(int(c)) for c in present]
    return _Joined(code, table[code], np.repeat(np.arange(len(texts), dtype=np.uint32), lengths), len(texts))


def _chunks(texts: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    """(first row, texts) of runs with about `size` characters, at least one text each."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  data frames hold None
            raise InvalidSetting(f"texts[{row}]", text, "Text features need a text for every response; use utility='tabular' without.")
    first, total = 0, 0
    for row, text in enumerate(texts):
        if row > first and (total + len(text) > size or row - first == _MAX_ROWS):
            yield first, texts[first:row]
            first, total = row, 0
        total += len(text) + 1
    if len(texts) > first:
        yield first, texts[first:]


_ASCII_WORD = np.zeros(256, dtype=bool)
_ASCII_WORD[[*range(48, 58), *range(65, 91), *range(97, 123), 95, _WORD, _SINGLE, _UPPER, _LOWER]] = True

_RADIX = np.uint64(0xD6E8FEB86659FD93)
_WORD_RADIX = np.uint64(0x9E6C63D0876A9A47)


def _mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014): every output bit depends on every input bit."""
    h = h ^ (h >> np.uint64(30))
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return h


def _words(joined: _Joined) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Hash and text of every word, in order: sum_j code_j radix^j mod 2^64, mixed."""
    inside = _ASCII_WORD[joined.kind]
    single = joined.kind == _SINGLE
    starts = inside.copy()
    starts[1:] &= ~inside[:-1] | single[1:] | single[:-1]
    start = np.flatnonzero(starts)
    if not len(start):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32)
    position = np.flatnonzero(inside)
    first = np.flatnonzero(starts[position])
    offset = position - np.repeat(start, np.diff(np.append(first, len(position))))
    powers = np.full(int(offset.max()) + 1, _RADIX, dtype=np.uint64)
    powers[0] = 1
    powers = np.cumprod(powers)  # wraps mod 2^64, as intended
    return _mix(np.add.reduceat(joined.code[position] * powers[offset], first)), joined.row[start]


# ------------------------------------------------------------------------------------ style


@dataclass(frozen=True, eq=False)
class StyleFeatures:
    """How texts are written, apart from what they say."""

    names: tuple[str, ...]
    """Name of each column; see `style_features`."""
    values: NDArray[np.float64]
    """(n_texts, n_columns)."""


STYLE_NAMES = (
    "log_characters",
    "log_words_per_sentence",
    "list_items",
    "headers",
    "bold",
    "code_blocks",
    "questions",
    "exclamations",
    "capitals",
    "hedging",
    "first_person",
    "refusals",
    "pleasantries",
)

_HEDGES = (
    "maybe|perhaps|possibly|probably|might|may|could|seems|seem|appears|likely|unlikely|somewhat|roughly|approximately|generally|"
    "usually|often|sometimes|typically|arguably|presumably|apparently|i think|i believe|i guess|i suppose|in my opinion|sort of|"
    "kind of|it depends|not sure|to some extent|more or less"
)
_FIRST_PERSON = "i|me|my|mine|myself|we|us|our|ours|ourselves"
_REFUSALS = (
    "i can not|i cannot|i can t|i won t|i will not|i m unable|i am unable|i m not able|i am not able|i m sorry|i am sorry|i apologize|"
    "i apologise|as an ai|i must decline|i have to decline|i don t feel comfortable|i m not comfortable|not appropriate|"
    "against my guidelines|i do not have access|i don t have access|i m just an ai|language model"
)
_PLEASANTRIES = (
    "happy to help|glad to help|great question|good question|excellent question|of course|certainly|absolutely|thank you for|thanks for|"
    "i hope this helps|hope that helps|hope this helps|let me know if|feel free to|you re welcome|glad you asked|i d be happy|"
    "i would be happy|please don t hesitate|have a great day|good luck|you re absolutely right|what a great"
)


@lru_cache(maxsize=1)
def _phrases() -> tuple[NDArray[np.uint64], list[list[tuple[NDArray[np.uint64], int]]]]:
    """The words that open phrases (sorted hashes), and per column, per phrase length, the phrase hashes.

    A phrase of words w_0 .. w_{m-1} hashes to sum_j w_j radix^j, which `style_features` forms at every word.
    """
    columns: list[list[tuple[NDArray[np.uint64], int]]] = []
    vocabulary: list[NDArray[np.uint64]] = []
    for listed in (_HEDGES, _FIRST_PERSON, _REFUSALS, _PLEASANTRIES):
        by_length: dict[int, list[int]] = {}
        for phrase in listed.split("|"):
            words = _words(_join([phrase]))[0]
            vocabulary.append(words[:1])
            by_length.setdefault(len(words), []).append(int((words * _word_powers(len(words))).sum()))
        columns.append([(np.array(sorted(hashes), dtype=np.uint64), length) for length, hashes in sorted(by_length.items())])
    return np.unique(np.concatenate(vocabulary)), columns


def _word_powers(n: int) -> NDArray[np.uint64]:
    return np.cumprod(np.full(n, _WORD_RADIX, dtype=np.uint64))


def _among(values: NDArray[np.uint64], listed: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each value is in the sorted list."""
    return listed[np.minimum(np.searchsorted(listed, values), len(listed) - 1)] == values


def style_features(texts: Sequence[str]) -> StyleFeatures:
    """How each text is written: 13 columns, none of which looks at what it is about.

    ====================== ==========================================================================================
    log_characters         log(1 + characters)
    log_words_per_sentence log(1 + words / sentences); a line break ends a sentence
    list_items             log(1 + count) of lines that start with -, *, +, • or a number with . or )
    headers                log(1 + count) of lines that start with # to ######
    bold                   log(1 + count) of **bold** spans
    code_blocks            log(1 + count) of ``` blocks, one that is not closed included
    questions              question marks per 100 words
    exclamations           exclamation marks per 100 words
    capitals               capital letters as a share of the letters that have a case
    hedging                "perhaps", "I think", ... per 100 words
    first_person           "I", "my", "we", ... per 100 words
    refusals               log(1 + count) of "I cannot", "as an AI", ...
    pleasantries           log(1 + count) of "happy to help", "great question", ...
    ====================== ==========================================================================================

    Rates per 100 words take a text as at least 20 words long, and capitals as at least 20 letters, so that "OK!" is no
    outlier. Phrases are English; in other languages the last four columns are near 0.

    Parameters
    ----------
    texts : sequence of str, length n_texts

    Returns
    -------
    StyleFeatures
        values : (n_texts, 13), not standardised.

    Raises
    ------
    InvalidSetting
        If a text is None.

    Examples
    --------
    >>> style = style_features(["Great question! I think **yes**.", ""])
    >>> dict(zip(style.names, style.values[0].round(2).tolist()))["pleasantries"]
    0.69
    >>> style.values.shape
    (2, 13)
    """
    out = np.zeros((len(texts), len(STYLE_NAMES)))
    for first, part in _chunks(texts, _CHUNK):
        out[first : first + len(part)] = _style(part)
    return StyleFeatures(STYLE_NAMES, out)


def _style(texts: Sequence[str]) -> NDArray[np.float64]:
    joined = _join(texts)
    kind, row, n = joined.kind, joined.row, joined.n_texts

    def count(position: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.bincount(row[position], minlength=n).astype(np.float64)

    def after(position: NDArray[np.int64], steps: int) -> NDArray[np.uint8]:
        return kind[np.minimum(position + steps, len(kind) - 1)]

    line_break = (kind == 10) | (kind == _BREAK)
    blank = (kind == 32) | (kind == 9) | (kind == _BLANK)
    # everything about lines and sentences happens at characters that are not blanks
    solid = np.flatnonzero(~blank)
    ends_line = line_break[solid]
    opens = solid[1:][ends_line[:-1] & ~ends_line[1:]]
    closes = solid[:-1][~ends_line[:-1] & ends_line[1:]]
    mark, next1, next2, next3 = kind[opens], after(opens, 1), after(opens, 2), after(opens, 3)

    def is_digit(k: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return (k >= 48) & (k <= 57)

    def is_point(k: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return (k == ord(".")) | (k == ord(")"))

    bullet = ((mark == ord("-")) | (mark == ord("*")) | (mark == ord("+")) | (joined.code[opens] == 0x2022)) & (next1 == 32)
    number = is_digit(mark) & ((is_point(next1) & (next2 == 32)) | (is_digit(next1) & is_point(next2) & (next3 == 32)))
    hashes = opens[mark == ord("#")]
    header = np.zeros(len(hashes), dtype=bool)
    run = np.ones(len(hashes), dtype=bool)
    for depth in range(1, 7):
        header |= run & (after(hashes, depth) == 32)
        run &= after(hashes, depth) == ord("#")

    def runs(character: str, length: int) -> NDArray[np.int64]:
        """Where a run of at least `length` of the character starts."""
        here = np.flatnonzero(kind == ord(character))
        starts = here[kind[np.maximum(here - 1, 0)] != ord(character)]
        for step in range(1, length):
            starts = starts[after(starts, step) == ord(character)]
        return starts

    question = np.flatnonzero((kind == ord("?")) | (kind == _ASK))
    shout = np.flatnonzero((kind == ord("!")) | (kind == _SHOUT))
    stop = np.flatnonzero((kind == ord(".")) | (kind == _STOP))
    stops = np.concatenate([question, shout, stop])
    following = after(stops, 1)
    closing = (following == ord('"')) | (following == ord("'")) | (following == ord(")"))
    following = np.where(closing, after(stops, 2), following)
    spaced = (following == 32) | (following == 9) | (following == _BLANK)
    unspaced = kind[stops] >= 128  # full-width marks are not followed by a space
    inner = stops[(spaced | unspaced)]
    is_close = np.zeros(len(kind), dtype=bool)
    is_close[closes] = True
    sentences = count(closes) + count(inner[~is_close[inner] & ~is_close[np.minimum(inner + 1, len(kind) - 1)]])

    capital = (kind >= 65) & (kind <= 90)
    word, word_row = _words(replace(joined, code=joined.code + (capital.astype(np.uint32) << 5)))  # phrases are ASCII
    words = np.bincount(word_row, minlength=n).astype(np.float64)
    vocabulary, columns = _phrases()
    near = np.zeros(1 << 16, dtype=bool)  # a cheap sieve first: nearly all words open no phrase
    near[vocabulary >> np.uint64(48)] = True
    candidates = np.flatnonzero(near[word >> np.uint64(48)])
    padded = np.append(word, np.zeros(8, dtype=np.uint64))
    padded_row = np.append(word_row, np.full(8, n, dtype=np.uint32))
    phrases: list[NDArray[np.float64]] = []
    for by_length in columns:
        total = np.zeros(n)
        for listed, length in by_length:
            powers = _word_powers(length)
            h = np.zeros(len(candidates), dtype=np.uint64)
            for step in range(length):
                h += padded[candidates + step] * powers[step]
            found = _among(h, listed) & (padded_row[candidates + length - 1] == word_row[candidates])
            total += np.bincount(word_row[candidates[found]], minlength=n)
        phrases.append(total)
    hedging, first_person, refusals, pleasantries = phrases

    upper = count(np.flatnonzero(capital | (kind == _UPPER)))
    lower = count(np.flatnonzero(((kind >= 97) & (kind <= 122)) | (kind == _LOWER)))
    per_100 = 100 / np.maximum(words, 20)
    characters = np.fromiter((len(t) for t in texts), dtype=np.float64, count=n)
    return np.column_stack(
        [
            np.log1p(characters),
            np.log1p(words / np.maximum(sentences, 1)),
            np.log1p(count(opens[bullet | number])),
            np.log1p(count(hashes[header])),
            np.log1p(count(runs("*", 2)) // 2),
            np.log1p((count(runs("`", 3)) + 1) // 2),
            count(question) * per_100,
            count(shout) * per_100,
            upper / np.maximum(upper + lower, 20),
            hedging * per_100,
            first_person * per_100,
            np.log1p(refusals),
            np.log1p(pleasantries),
        ]
    )


# ------------------------------------------------------------------------------------ hashed n-grams

_WORDS, _CHARACTERS = 0, 1
_CHARACTER_ORDERS = (3, 4, 5)
_SPREAD = 2
"""Columns that each bucket is spread over. The expected error does not depend on it; two keep a text of a single n-gram from
coinciding with another, and eight are no better on argument pairs."""


def _ngrams(texts: Sequence[str]) -> tuple[tuple[NDArray[np.uint32], NDArray[np.int64]], ...]:
    """Per block (words, characters): sorted keys `row << 18 | bucket` of the distinct n-grams, and how often each occurs."""
    joined = _join([" ".join(t.lower().split()) for t in texts])
    word, row = _words(joined)
    next_word = _mix(word[:-1] * _WORD_RADIX + word[1:])
    same = row[:-1] == row[1:]
    keys = [_keys(word, row), _keys(next_word[same], row[:-1][same])]
    word_counts = _tally(np.concatenate(keys))

    # n-grams within a word and the one blank on either side of it: no blank but at the ends
    gap = (joined.kind == 32) | (joined.kind == 10)
    code = joined.code.astype(np.uint64)
    code[gap] = 32
    keys = []
    h = code.copy()
    clear = np.ones(len(code), dtype=bool)  # no blank strictly inside
    power = np.uint64(1)
    for order in range(2, max(_CHARACTER_ORDERS) + 1):
        power = np.multiply(power, _RADIX, dtype=np.uint64) if order > 2 else _RADIX
        h = h[:-1] + code[order - 1 :] * power
        clear = clear[:-1] if order == 2 else clear[:-1] & ~gap[order - 2 : len(gap) - 1]
        if order in _CHARACTER_ORDERS:
            keys.append(_keys(_mix(h[clear] + np.uint64(order)), joined.row[: len(h)][clear]))
    return word_counts, _tally(np.concatenate(keys))


def _keys(hashes: NDArray[np.uint64], row: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (row << np.uint32(_BITS)) | (hashes >> np.uint64(64 - _BITS)).astype(np.uint32)


def _tally(keys: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Distinct keys, sorted, and their counts."""
    keys.sort()
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return keys[first], np.diff(np.append(first, len(keys)))


@lru_cache(maxsize=2)
def _projection(n_columns: int, seed: int) -> tuple[csr_array, csr_array]:
    """R_b' of each block, (n_buckets, n_columns); a function of (bucket, seed) alone, 0.1 s and 8 MB to make."""
    bucket = np.arange(2 * _N_BUCKETS * _SPREAD, dtype=np.uint64)
    h = _mix(bucket * np.uint64(0x9E3779B97F4A7C15) + _mix(np.array([seed + 1], dtype=np.uint64)))
    h = h.reshape(2, -1, _SPREAD)
    edge = np.arange(_SPREAD + 1) * n_columns // _SPREAD  # one entry in each of `spread` ranges of columns
    width = np.diff(edge).astype(np.uint64)
    column = ((h >> np.uint64(33)) * width >> np.uint64(31)).astype(np.int32) + edge[:-1].astype(np.int32)
    sign = (h & np.uint64(1)).astype(np.float32) * 2 - 1
    pointer = np.arange(0, _N_BUCKETS * _SPREAD + 1, _SPREAD, dtype=np.int32)
    words, characters = (
        csr_array((s.ravel() / np.float32(np.sqrt(_SPREAD)), c.ravel(), pointer), shape=(_N_BUCKETS, n_columns))
        for s, c in zip(sign, column, strict=True)
    )
    return words, characters


@dataclass(frozen=True, eq=False)
class HashEncoder:
    """A map from texts to columns: tf-idf weighted word and character n-grams, as many as there are columns for.

    Per text and block b (words: 1-2 words; characters: 3-5 characters within a word and its blanks), with count c_t of
    n-gram bucket t:

        x_bt = (1 + log c_t) idf_bt,    phi = sum_b  R_b x_b / |x_b| / sqrt(2)

    If no more than n_columns buckets have a positive idf, as `fit` sees to, each has a column of its own and phi(s) . phi(t)
    is the mean over the two blocks of the cosine of s and t. Otherwise R_b is a sparse random matrix, 2 entries of
    +-1 / sqrt(2) per bucket, one in each half of the columns, and that product carries an error of about 1 / sqrt(n_columns).
    `HashEncoder(n_columns=, seed=, idf=None)` is of the second kind: all n-grams alike, and no corpus needed.

    Why `fit` picks instead of projecting: on argument pairs of debates not trained on, 1,024 projected columns decide 64% of
    the pairs as people did, the 1,024 most frequent n-grams 71%, and all n-grams without projection 71%; with 4,096 projected
    columns it is 69%. Two texts on different subjects have a cosine near the error of the projection, which drowns it.

    Source: sublinear tf and smoothed idf as scikit-learn; signs after Achlioptas 2003 and Li, Hastie, Church 2006, placed
    as in Kane and Nelson 2014 (block construction), which keeps every bucket's norm exactly.
    """

    n_columns: int = 1024
    seed: int = 0
    """Of the projection, where there is one."""
    idf: NDArray[np.float32] | None = None
    """(2 blocks, 2^18 buckets) or None; n-grams in a bucket with 0 are ignored."""

    def __post_init__(self) -> None:
        if not _SPREAD <= self.n_columns <= 1 << 16:
            raise InvalidSetting("n_columns", self.n_columns, f"Use a number from {_SPREAD} to {1 << 16}.")
        if self.seed < 0:
            raise InvalidSetting("seed", self.seed, "Use a whole number of 0 or more.")
        if self.idf is not None and self.idf.shape != (2, _N_BUCKETS):
            raise InvalidSetting("idf", self.idf.shape, f"Its shape must be (2, {_N_BUCKETS}).")

    @staticmethod
    def fit(texts: Sequence[str], *, n_columns: int = 1024, seed: int = 0, keep: Literal["frequent", "all"] = "frequent") -> HashEncoder:
        """The encoder with idf = 1 + log((1 + n) / (1 + df)) learned from the texts, df being the texts with the n-gram.

        Parameters
        ----------
        texts : sequence of str
            Distinct responses of the training data; their order does not matter.
        n_columns : columns of the result.
        seed : of the projection.
        keep : frequent, the n-grams found in most texts, half of the columns for words and half for characters (what one
            block leaves over goes to the other); or all, projected if they are more than `n_columns`.

        Raises
        ------
        InvalidSetting
            If there are no texts, or one is None.
        """
        if not len(texts):
            raise InvalidSetting("texts", texts, "Learning how common n-grams are needs at least one text.")
        df = np.zeros((2, _N_BUCKETS), dtype=np.int64)
        for _, part in _chunks(texts, _CHUNK):
            for block, (key, _) in enumerate(_ngrams(part)):
                df[block] += np.bincount(key & np.uint32(_N_BUCKETS - 1), minlength=_N_BUCKETS)
        kept = df > 0
        if keep == "frequent":
            distinct = kept.sum(1)
            n_words = min(distinct[_WORDS], max(n_columns // 2, n_columns - distinct[_CHARACTERS]))
            for block, n in ((_WORDS, n_words), (_CHARACTERS, n_columns - n_words)):
                kept[block, np.argsort(-df[block], kind="stable")[n:]] = False
        idf = np.where(kept, 1 + np.log((1 + len(texts)) / (1 + df)), 0).astype(np.float32)
        return HashEncoder(n_columns, seed, idf)

    def encode(self, texts: Sequence[str], *, chunk: int = _CHUNK) -> NDArray[np.float32]:
        """The features of each text.

        Parameters
        ----------
        texts : sequence of str, length n_texts
        chunk : characters handled at a time; bounds the memory (about 60 bytes each), never changes the result.

        Returns
        -------
        (n_texts, n_columns) float32; rows have length 1 (about 1 when projected), sqrt(1/2) for a text without words or in
        which all n-grams of one block are unknown, and exactly 0 for an empty text or one without known n-grams.
        """
        out = np.zeros((len(texts), self.n_columns), dtype=np.float32)
        own = None if self.idf is None or np.count_nonzero(self.idf) > self.n_columns else np.cumsum(self.idf > 0, dtype=np.int32) - 1
        projections = _projection(self.n_columns, self.seed) if own is None else None
        for first, part in _chunks(texts, chunk):
            for block, (key, count) in enumerate(_ngrams(part)):
                bucket = (key & np.uint32(_N_BUCKETS - 1)).astype(np.int32)
                row = (key >> np.uint32(_BITS)).astype(np.int32)
                if self.idf is not None:
                    known = self.idf[block][bucket] > 0
                    bucket, row, count = bucket[known], row[known], count[known]
                weight = 1 + np.log(count)
                if self.idf is not None:
                    weight *= self.idf[block][bucket]
                norm = np.sqrt(np.bincount(row, weight**2, minlength=len(part)))
                weight *= (np.sqrt(0.5) / np.where(norm > 0, norm, 1))[row]
                pointer = np.searchsorted(row, np.arange(len(part) + 1, dtype=np.int32)).astype(np.int32)
                if projections is None:
                    assert own is not None
                    column = own[block * _N_BUCKETS + bucket]
                    coded = csr_array((weight.astype(np.float32), column, pointer), shape=(len(part), self.n_columns))
                else:
                    x = csr_array((weight.astype(np.float32), bucket, pointer), shape=(len(part), _N_BUCKETS))
                    coded = csr_array(x @ projections[block])
                out[first : first + len(part)] += coded.toarray()
        return out

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The encoder as arrays, for npz or safetensors."""
        arrays: dict[str, NDArray[np.generic]] = {"hash_settings": np.array([_VERSION, self.n_columns, self.seed], dtype=np.int64)}
        if self.idf is not None:
            arrays["hash_idf"] = self.idf
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> HashEncoder:
        """The encoder that `to_arrays` wrote.

        Raises
        ------
        InvalidSetting
            If the arrays were written by a version whose columns mean something else.
        """
        version, n_columns, seed = (int(v) for v in arrays["hash_settings"])
        if version != _VERSION:
            raise InvalidSetting("hash_settings", version, f"This Seamark reads encoders of version {_VERSION}; fit again.")
        idf = arrays["hash_idf"].astype(np.float32) if "hash_idf" in arrays else None
        return HashEncoder(n_columns, seed, idf)


_VERSION = 1
"""Raised when the same text would get other columns."""


def hash_features(texts: Sequence[str], *, n_columns: int = 1024, seed: int = 0, chunk: int = _CHUNK) -> NDArray[np.float32]:
    """Hashed n-gram features of each text without a corpus: `HashEncoder` with all n-grams weighted alike.

    Returns
    -------
    (n_texts, n_columns) float32

    Examples
    --------
    >>> a, b, c = hash_features(["The cat sat down.", "the cats sat", "Quarterly tax forms"])
    >>> bool(a @ b > 0.3 > a @ c)
    True
    """
    return HashEncoder(n_columns, seed).encode(texts, chunk=chunk)
