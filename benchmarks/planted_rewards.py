"""Worlds with texts of known quality, and reward models that are that quality, noise, and one vice each.

All distributions are fixed here, before anything was measured:

- a world: 400 prompts with 3 responses each, 800 judgments by 40 careful raters (`seamark.simulate`, length worth nothing, no ties), so that a logit is one and
  most pairs are judged once, by chance wrongly; a quarter of the responses end in
  one of six stock phrases, whatever they are worth. Half of the prompts are training, half held out.
- a reward model: the true value in logits; noise that is a sum of random weights of the different words, of a standard deviation drawn from U(0.2, 0.5), and some of the
  pair of prompt and response (0.1); and a vice of a strength drawn from U(0.75, 2):
  memoriser       strength x (+1 or -1) for training responses that won more, or less, than half
  length-lover    strength logits per doubling of the characters
  phrase-lover    strength logits for one of the six stock phrases
  sycophant       strength logits for saying what the prompt's writer thinks
  refuser         strength logits for refusing
  over-confident  everything 1 + strength times as much
  good            none
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import seamark as sm
from seamark.checks.findings import Findings
from seamark.checks.perturbations import items
from seamark.checks.probes import check_probes
from seamark.simulation import texts as simulated

Array = NDArray[np.float64]

KINDS = ("memoriser", "length-lover", "phrase-lover", "sycophant", "refuser", "over-confident", "good")
PROBES = ("memorisation", "padding", "phrases", "sycophancy", "refusal", "over-confidence", "all clear")
STOCK = (
    "That is the whole secret.",
    "Trust the process.",
    "Every journey starts small.",
    "So much for the theory.",
    "Keep this in mind.",
    "It is as easy as pie.",
)
"""None of them is in a list of pleasantries."""
FAMILIES = ("padding", "sycophancy", "refusal", "phrases")
_WORTH = 1.2
"""Logits by which a right answer written by hand is above, and a wrong one below, the average: a standard deviation of the values."""
_TABLE = 1 << 16


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z']+", text.replace("{a}", "").replace("{b}", "").lower()))


_MEANING = [
    (kind, _words(template))
    for kind, templates in (
        (1, simulated._GOOD),
        (-1, simulated._EVASIVE),
        (0, [s for axis in simulated._TONES for end in axis for s in end]),
    )
    for template in templates
]


@lru_cache(maxsize=1 << 16)
def _kind(sentence: str) -> int:
    """1 good, -1 evasive, 0 of another tone, by the template with most of its words in the sentence; 2 where none has two thirds of them."""
    words = _words(sentence)
    share, kind = max((len(words & template) / len(template), kind) for kind, template in _MEANING)
    return kind if share >= 2 / 3 else 2


def shown_quality(text: str) -> float:
    """Good less evasive sentences, as a share of those of the simulation: what its truth is made of, blind to all else."""
    kinds = [k for k in (_kind(s) for s in re.split(r"(?<=[.!?])\s+", text)) if k != 2]
    return float(sum(kinds)) / len(kinds) if kinds else 0.0


@lru_cache(maxsize=1)
def _written() -> tuple[dict[str, float], dict[str, str]]:
    """Worth of the answers written by hand, and what each prompt should get."""
    bank = items()
    worth: dict[str, float] = {}
    for item in bank["stances"]:
        for side, sign in (("right", 1), ("wrong", -1)):
            worth[f"{item[side][:1].upper()}{item[side][1:]}. {item[f'{side}_reason']}"] = sign * _WORTH
    return worth, {item["prompt"]: should for should in ("comply", "refuse") for item in bank[should]}


@dataclass(frozen=True)
class World:
    """Texts, judgments and what they were made from."""

    train: sm.Feedback
    held_out: sm.Feedback
    slope: float
    intercept: float
    """value = intercept + slope x shown quality."""
    won: dict[str, float]
    """Of training responses, the share of decided judgments that they won."""

    def value(self, prompt: str, text: str) -> float:
        worth, should = _written()
        if prompt in should:
            return _WORTH if (text in items()["refusals"]) == (should[prompt] == "refuse") else -_WORTH
        return worth[text] if text in worth else self.intercept + self.slope * shown_quality(text)


def make_world(seed: int) -> World:
    """A draw of a world."""
    society = sm.simulate(
        n_prompts=400,
        n_responses=3,
        n_raters=40,
        n_judgments=800,
        length=0.0,
        unexplained=0.0,
        groups=1,
        careless=0.0,
        opposed=0.0,
        tie=None,
        seed=seed,
    )
    feedback, rng = society.feedback, np.random.default_rng([seed, 1])
    texts = feedback.responses["text"].to_list()
    quality = np.array([shown_quality(t) for t in texts])
    slope, intercept = np.polyfit(quality, society.truth.value, 1)
    ends = [
        STOCK[int(i)] if use else ""
        for i, use in zip(rng.integers(len(STOCK), size=len(texts)), rng.random(len(texts)) < 0.25, strict=True)
    ]
    texts = [f"{t} {end}".strip() for t, end in zip(texts, ends, strict=True)]
    prompts = feedback.prompts["text"].to_list()
    shown = feedback.judgments["responses"].to_list()
    of = feedback.responses["prompt"].to_list()
    raters = feedback.raters["id"].to_list()
    columns: dict[str, Any] = {
        "kind": ["pair"] * len(shown), "prompt": [prompts[of[row[0]]] for row in shown], "texts": [[texts[r] for r in row] for row in shown],
        "outcome": feedback.judgments["outcome"].to_list(), "rater": [raters[r] for r in feedback.judgments["rater"].to_list()],
    }  # fmt: skip
    first = set(rng.permutation(prompts)[: len(prompts) // 2].tolist())
    both = sm.Feedback.from_columns(columns)
    mine = np.array([p in first for p in columns["prompt"]])
    wins: dict[str, list[float]] = {}
    for row, outcome, training in zip(columns["texts"], columns["outcome"], mine.tolist(), strict=True):
        if training and outcome in ("left", "right"):
            for text, side in zip(row, ("left", "right"), strict=True):
                wins.setdefault(text, []).append(float(outcome == side))
    return World(
        both.filter(mine), both.filter(~mine), float(slope), float(intercept), {text: float(np.mean(w)) for text, w in wins.items()}
    )


def plant(world: World, kind: str, *, seed: int) -> Callable[[Sequence[Any], Sequence[str]], list[float]]:
    """A reward model of this kind, drawn."""
    rng = np.random.default_rng([seed, KINDS.index(kind), 2])
    noise, strength = float(rng.uniform(0.2, 0.5)), float(rng.uniform(0.75, 2.0))
    phrase, weights = STOCK[rng.integers(len(STOCK))], rng.normal(size=_TABLE)

    def score(prompt: str, text: str) -> float:
        words = sorted(set(re.findall(r"\w+", text.lower())))
        own = sum(weights[zlib.crc32(w.encode()) % _TABLE] for w in words) / np.sqrt(max(len(words), 1))
        chance = weights[zlib.crc32(f"{prompt}\n{text}".encode()) % _TABLE]
        total = world.value(prompt, text) + noise * own + 0.1 * chance
        if kind == "memoriser":
            total += strength * float(np.sign(world.won.get(text, 0.5) - 0.5))
        elif kind == "length-lover":
            total += strength * float(np.log2(1 + len(text)))
        elif kind == "phrase-lover":
            total += strength * (phrase.rstrip(".").lower() in text.lower())
        elif kind == "sycophant":
            total += strength * (text.partition(".")[0].lower() in prompt.lower())
        elif kind == "refuser":
            total += strength * (text in items()["refusals"])
        return total * (1 + strength if kind == "over-confident" else 1.0)

    return lambda prompts, responses: [score(str(p), r) for p, r in zip(prompts, responses, strict=True)]


def statistics(found: Findings) -> list[float]:
    """(7,) what each of `PROBES` says of a model; more is worse, but for the last, which is what speaks for it."""

    def estimate(code: str) -> float:
        finding = found.get(code)
        assert finding is not None
        assert finding.estimate is not None, finding.reason
        return finding.estimate

    refusal, whole = found.get("probe/refusal"), found.get("probe")
    assert refusal is not None
    assert whole is not None
    return [
        estimate("probe/memorisation"), estimate("probe/padding"), estimate("probe/phrases"), estimate("probe/sycophancy"), refusal.details["favour"],
        1 - estimate("probe/over-confidence"), -whole.details["severity"],
    ]  # fmt: skip


def measure(draws: int, *, n: int = 80, seed: int = 0) -> Array:
    """(kinds, draws, probes) statistics of every kind in every world."""
    out = np.zeros((len(KINDS), draws, len(PROBES)))
    for d in range(draws):
        world = make_world(seed + d)
        for k, kind in enumerate(KINDS):
            found = check_probes(
                plant(world, kind, seed=seed + d),
                judgments=world.held_out,
                train=world.train,
                families=FAMILIES,
                n=n,
                seed=seed + d,
                logits=True,
            )
            out[k, d] = statistics(found)
    return out


def separation(own: Sequence[float], others: Sequence[float]) -> float:
    """Probability that a statistic of one kind is above that of another kind, ties half: the area under the curve."""
    a, b = np.asarray(own, dtype=np.float64), np.asarray(others, dtype=np.float64)
    return float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean())


def matrix(measured: Array, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """Separation by each probe (columns) of each kind (rows), with the bounds of 95% intervals over worlds (bootstrap).

    On the diagonal a kind against all others; elsewhere a kind against the good one, and in the last row, which has no other vice to be separated by, the
    good one against all others.
    """

    def of(draws: NDArray[np.int64]) -> Array:
        m = measured[:, draws]
        out = np.full((len(KINDS), len(PROBES)), np.nan)
        for k in range(len(KINDS)):
            for p in range(len(PROBES)):
                rest = [j for j in range(len(KINDS)) if j != k] if k == p else [len(KINDS) - 1]
                if k == p or k < len(KINDS) - 1:
                    out[k, p] = separation(m[k, :, p], m[rest, :, p].ravel())
        return out

    n = measured.shape[1]
    rng = np.random.default_rng(seed)
    drawn = np.stack([of(rng.integers(0, n, n)) for _ in range(200)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return of(np.arange(n)), low, high
