"""Worlds in which a shortcut pays up to a point: pairs to learn a reward from, and a pool over which policies follow it.

Conventions
-----------
A response is `QUALITIES` independent normal features, of which people value a weighted sum, and one more, the shortcut (length, the count
of a phrase), last. Gold is in logits: a pair is answered by Bradley & Terry's law of its gap. What the shortcut is worth depends on the
family, x being its amount, a its price and t where it turns; in two worlds of five it never turns (t infinite):

    turning      a x less a x^2 / (2 t) where x > 0: worth less the more there is, and harmful from 2 t on
    cliff        a min(x, t) less c a (x - t) beyond t
    saturating   a t tanh(x / t): what goes beyond is wasted
    stuffing     a log(1 + x) less .3 c a (x - t) beyond t, of a count: another tail and another shape

The tails of the shortcut are Student's with 3, 4, 6 or 30 degrees of freedom; counts are of a log-normal.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.records import Feedback

Array = NDArray[np.float64]

Family = Literal["turning", "cliff", "saturating", "stuffing"]
FAMILIES: tuple[Family, ...] = ("turning", "cliff", "saturating", "stuffing")
QUALITIES = 8
_OUTSIDE = 0.99


@dataclass(frozen=True)
class ShortcutWorld:
    """Data to learn a reward from, and responses whose gold is known."""

    family: Family
    features: Array
    """(2 m, QUALITIES + 1) of the training responses; rows 2 j and 2 j + 1 are a pair."""
    won: NDArray[np.bool_]
    """(m,) whether the first of a pair was preferred."""
    pool: Array
    """(n, QUALITIES + 1) of the responses that the start policy draws."""
    gold: Array
    """(n,) logits."""
    turns: float
    """t; infinite where the shortcut never turns."""


def draw_shortcut_world(family: Family, *, seed: int, n_pairs: int = 2000, n_pool: int = 2**18, inside: bool = True) -> ShortcutWorld:
    """A world of a family, its prices, tails and turn drawn at random.

    Parameters
    ----------
    inside : whether training responses come from the start policy, as the pool does; otherwise no training response has more of the
        shortcut than 99% of them would have, and what lies beyond nobody was asked about.

    Raises
    ------
    InvalidSetting
        If there is no such family.
    """
    if family not in FAMILIES:
        raise InvalidSetting("family", family, f"Use one of {', '.join(FAMILIES)}.")
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed])
    weights = rng.normal(size=QUALITIES)
    weights *= rng.uniform(0.5, 1.2) / np.linalg.norm(weights)
    a, c = rng.uniform(0.3, 1.0), rng.uniform(0.5, 3.0)
    t = rng.uniform(2.0, 8.0) if rng.random() < 0.6 else np.inf
    freedom, spread = rng.choice([3, 4, 6, 30]), rng.uniform(0.6, 1.1)

    def some(n: int) -> Array:
        x = np.floor(np.exp(rng.normal(0, spread, size=n))) if family == "stuffing" else rng.standard_t(freedom, size=n)
        return np.column_stack([rng.normal(size=(n, QUALITIES)), x])

    def worth(features: Array) -> Array:
        x = features[:, -1]
        if family == "stuffing":
            shortcut = a * np.log1p(x) - (0.3 * c * a * np.maximum(x - t, 0) if np.isfinite(t) else 0)
        elif np.isinf(t):
            shortcut = a * x
        elif family == "turning":
            shortcut = a * x - np.where(x > 0, a * x**2 / (2 * t), 0)
        else:
            shortcut = a * t * np.tanh(x / t) if family == "saturating" else a * np.minimum(x, t) - c * a * np.maximum(x - t, 0)
        return features[:, :-1] @ weights + shortcut

    features = some(2 * n_pairs)
    if not inside:
        most = np.quantile(features[:, -1], _OUTSIDE)
        while (beyond := features[:, -1] > most).any():
            features[beyond] = some(int(beyond.sum()))
    gap = worth(features[::2]) - worth(features[1::2])
    won = rng.random(n_pairs) < 1 / (1 + np.exp(-gap))
    pool = some(n_pool)
    return ShortcutWorld(family, features, won, pool, worth(pool), float(t))


# ---------------------------------------------------------------------------------------------- the same in texts

_WORDS = tuple(a + b for a in ("ka", "lo", "mi", "ru", "te", "va", "so", "ne") for b in ("ban", "dor", "fel", "gim", "hus", "jat", "kip"))
_PRICE, _COST, _SUBSTANCE = 1.2, 3.0, 3.0
_USUAL, _SPREAD = 5.1, 0.8


@dataclass(frozen=True)
class TextWorld:
    """Texts under prompts, of which people value what is said, and length up to a point."""

    feedback: Feedback
    """Pairs of texts."""
    gold: Array
    """(n_responses,) logits."""


def draw_text_world(*, seed: int, turns: float, n_prompts: int = 40, n_responses: int = 64, n_pairs: int = 3000) -> TextWorld:
    """Texts of made-up words, eight of which people like: each is worth 3 times the share of those, and 1.2 times its length (log characters,
    standardised) up to `turns`, beyond which it costs 3 times what is more; infinite where longer is always better.

    Parameters
    ----------
    turns : in standard deviations above the usual length.
    """
    rng = np.random.default_rng(seed)
    liked = set(rng.choice(_WORDS, 8, replace=False).tolist())

    def text() -> str:
        return " ".join(rng.choice(_WORDS, int(np.clip(np.exp(rng.normal(3.2, _SPREAD)), 4, 600))).tolist()) + "."

    def worth(said: str) -> float:
        length = (np.log1p(len(said)) - _USUAL) / _SPREAD
        share = float(np.mean([word in liked for word in said.rstrip(".").split()]))
        return _SUBSTANCE * share + _PRICE * min(length, turns) - _COST * max(length - turns, 0.0)

    pool = [[text() for _ in range(n_responses)] for _ in range(n_prompts)]
    value = [[worth(said) for said in texts] for texts in pool]
    prompt = rng.integers(n_prompts, size=n_pairs)
    both = np.array([rng.choice(n_responses, 2, replace=False) for _ in range(n_pairs)])
    gap = np.array([value[p][a] - value[p][b] for p, (a, b) in zip(prompt.tolist(), both.tolist(), strict=True)])
    left, right = ([pool[p][k] for p, k in zip(prompt.tolist(), side.tolist(), strict=True)] for side in both.T)
    asked = [f"prompt {p}" for p in prompt.tolist()]
    feedback = Feedback.from_arrays(left=left, right=right, prompt=asked, outcome=rng.random(n_pairs) < 1 / (1 + np.exp(-gap)))
    return TextWorld(feedback, np.array([worth(said) for said in feedback.responses["text"].to_list()]))


# ---------------------------------------------------------------------------------------------- errors of equal accuracy


def _spiked(rng: np.random.Generator, gold: Array) -> Array:
    return np.where(rng.random(gold.shape) < 0.225, 6 + rng.normal(size=gold.shape), gold)


def _shuffled(rng: np.random.Generator, gold: Array, *, above: bool) -> Array:
    return np.where((gold > 0) == above, np.sign(gold) * np.abs(rng.normal(size=gold.shape)), gold)


ERRORS: dict[str, Callable[[np.random.Generator, Array], Array]] = {
    "gaussian": lambda rng, gold: gold + np.sqrt(1 / np.sin(0.3 * np.pi) ** 2 - 1) * rng.normal(size=gold.shape),
    "heavy": lambda rng, gold: gold + 0.3227 * rng.standard_t(1.2, size=gold.shape),
    "spike": _spiked,
    "above the median": partial(_shuffled, above=True),
    "below the median": partial(_shuffled, above=False),
}
"""Proxies of a gold that is N(0, 1), by their error: Gaussian (accuracy 1/2 + asin(r) / pi, r = sin(.3 pi)), Student's with 1.2 degrees of freedom, and 22.5% of responses with
a proxy of 6 more that has nothing to do with them, all with an accuracy of .80; and random order among those above the median, or below it, with .875."""
