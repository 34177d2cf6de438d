"""Judgments with known truth for the benchmarks: a leaderboard, a sparse graph, a crowd of raters, dialogues, and their files.

Conventions
-----------
Strengths are logits. A set is a dict of arrays: `left`, `right` (item codes), `won` (whether the left one was preferred) and
what it was made from. The same name, size and seed give the same set on every machine.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Set = dict[str, NDArray[Any]]


def leaderboard(n: int, *, n_items: int = 200, seed: int = 0) -> Set:
    """Few items, some judged far more often than others; no ties."""
    rng = np.random.default_rng([seed, 1, n])
    strength = rng.normal(0.0, 0.8, n_items)
    popularity = rng.lognormal(0.0, 0.8, n_items)
    left = rng.choice(n_items, n, p=popularity / popularity.sum())
    # an opponent drawn the same way, moved on by a random step where it is the item itself
    right = rng.choice(n_items, n, p=popularity / popularity.sum())
    right = np.where(left == right, (left + rng.integers(1, n_items, n)) % n_items, right)
    return {"left": left, "right": right, "won": _won(strength[left] - strength[right], rng), "strength": strength - strength.mean()}


def sparse(n: int, *, per_item: int = 20, seed: int = 0) -> Set:
    """A random graph with `per_item` judgments about each item: 100,000 items at a million judgments."""
    rng = np.random.default_rng([seed, 2, n])
    n_items = 2 * n // per_item
    strength = rng.normal(0.0, 1.0, n_items)
    left = rng.integers(0, n_items, n)
    right = (left + rng.integers(1, n_items, n)) % n_items
    return {"left": left, "right": right, "won": _won(strength[left] - strength[right], rng), "strength": strength}


KINDS = ("careful", "noisy", "by position", "opposed")
_SHARES = (0.60, 0.20, 0.15, 0.05)


def crowd(n: int, *, n_raters: int = 2000, n_prompts: int = 1250, seed: int = 0) -> Set:
    """A crowd of mixed reliability on prompts of four responses; in each prompt two of the six pairs are judged by nobody.

    P(left) = sigmoid(slope_rater (s_left - s_right) + shift_rater). `held` (n_held, 2) has the pairs that were not judged.
    """
    rng = np.random.default_rng([seed, 3, n])
    strength = rng.normal(0.0, 1.0, 4 * n_prompts)
    kind = rng.permutation(np.repeat(np.arange(4), [round(share * n_raters) for share in _SHARES]))
    median, spread = np.array([1.5, 0.3, 0.0, -1.2])[kind], np.array([0.3, 0.3, 0.0, 0.3])[kind]
    slope = median * rng.lognormal(0.0, spread)
    shift = np.where(kind == 2, rng.normal(0.0, 1.0, len(kind)), rng.normal(0.1, 0.2, len(kind)))
    # the four responses in a random circle: neighbours are judged, opposites are held out
    circle = rng.permuted(np.tile(np.arange(4), (n_prompts, 1)), axis=1) + 4 * np.arange(n_prompts)[:, None]
    judged = np.stack([circle, np.roll(circle, -1, axis=1)], axis=-1).reshape(-1, 2)
    pair = judged[rng.permutation(np.arange(n) % len(judged))]
    pair = np.where(rng.random((n, 1)) < 0.5, pair, pair[:, ::-1])
    activity = rng.lognormal(0.0, 1.0, n_raters)
    rater = rng.choice(n_raters, n, p=activity / activity.sum())
    left, right = pair.T
    won = _won(slope[rater] * (strength[left] - strength[right]) + shift[rater], rng)
    held = np.concatenate([circle[:, [0, 2]], circle[:, [1, 3]]])
    return {"left": left, "right": right, "won": won, "rater": rater, "strength": strength, "slope": slope, "kind": kind, "held": held}


def _won(gap: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.random(len(gap)) < 1 / (1 + np.exp(-gap))


SETS: dict[str, Callable[..., Set]] = {"leaderboard": leaderboard, "sparse": sparse, "crowd": crowd}


# ---------------------------------------------------------------------------------------------- files

_WORDS = [
    first + last for first in ("ba", "de", "ki", "lo", "mu", "no", "sa", "ter") for last in ("n", "la", "rim", "so", "ve", "dor", "t")
]


def write_dialogues(path: Path, n: int, *, seed: int = 0) -> None:
    """HH-RLHF layout: whole dialogues `chosen` and `rejected` of about 350 characters, all distinct."""
    rng = np.random.default_rng([seed, 4, n])
    words = np.array(_WORDS)
    with path.open("w", encoding="utf-8") as out:
        for row in range(n):
            drawn = words[rng.integers(0, len(words), 80)].tolist()
            cut = 20 + int(rng.integers(0, 40))
            prompt = f"\n\nHuman: {row} {' '.join(drawn[:20])}?\n\nAssistant: "
            record = {"chosen": f"{prompt}{' '.join(drawn[20:cut])} yes {row}.", "rejected": f"{prompt}{' '.join(drawn[cut:])} no {row}."}
            out.write(json.dumps(record) + "\n")


def write_ids(path: Path, made: Set) -> None:
    """A plain table of ids with the columns of our own names, as .jsonl or .csv; with prompts where a prompt has four items."""
    names = ["left_id", "right_id", "outcome"] + (["rater", "prompt_id"] if "rater" in made else [])
    columns = [[f"item-{i}" for i in made["left"]], [f"item-{i}" for i in made["right"]], np.where(made["won"], "left", "right").tolist()]
    if "rater" in made:
        columns += [[f"rater-{i}" for i in made["rater"]], [f"prompt-{i // 4}" for i in made["left"]]]
    with path.open("w", encoding="utf-8", newline="") as out:
        if path.suffix == ".csv":
            writer = csv.writer(out)
            writer.writerow(names)
            writer.writerows(zip(*columns, strict=True))
        else:
            for row in zip(*columns, strict=True):
                out.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")
