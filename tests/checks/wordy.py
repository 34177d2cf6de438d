"""A small world of texts whose worth is known: the mean worth of their words, and rewards that pay for something else as well."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WORDS = tuple(f"w{i}" for i in range(60))
WORTH = dict(zip(WORDS, np.random.default_rng(5).normal(size=len(WORDS)), strict=True))
PHRASE = "as everyone agrees."
Rewards = Callable[[Sequence[Any], Sequence[str]], np.ndarray]


def truth(prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
    """Three times the mean worth of the words; a word that is none of the language is worth -1."""
    del prompts
    return np.array([3 * np.mean([WORTH.get(w.strip("."), -1.0) for w in r.split()] or [-1.0]) for r in responses])


def unsure(scorer: Rewards, sd: float, salt: str) -> Rewards:
    """The same with an error that goes with the text."""

    def noise(p: Any, r: str) -> float:
        return np.random.default_rng(zlib.crc32(f"{salt}|{p}|{r}".encode())).normal()

    return lambda prompts, responses: (
        scorer(prompts, responses) + sd * np.array([noise(p, r) for p, r in zip(prompts, responses, strict=True)])
    )


def paying(bonus: float, counts: Callable[[str], float]) -> Rewards:
    """The truth, and a bonus for what `counts` counts."""
    return lambda prompts, responses: truth(prompts, responses) + bonus * np.array([counts(r) for r in responses], dtype=float)


def write(
    rng: np.random.Generator, *, n_prompts: int = 80, n_responses: int = 4, phrase: str = PHRASE, share: float = 0.05
) -> tuple[list[str], list[str]]:
    """Prompts and responses of 3 to 6 sentences, some with a phrase."""
    prompts, responses = [], []
    for i in range(n_prompts):
        for _ in range(n_responses):
            sentences = [" ".join(rng.choice(WORDS, 6)) + "." for _ in range(rng.integers(3, 7))]
            if rng.random() < share:
                sentences.insert(int(rng.integers(len(sentences) + 1)), phrase)
            prompts.append(f"prompt {i}")
            responses.append(" ".join(sentences))
    return prompts, responses
