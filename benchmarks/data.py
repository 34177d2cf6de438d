"""Judgments with known truth for the benchmarks, and their files.

Conventions
-----------
Strengths are logits. A set is a dict of arrays: `left`, `right` (item codes, int32), `won` (int8: 1 the left one was preferred, 0 the
right one, 2 a tie), `strength` (the truth) and what else the set is made from. The same name, size and seed give the same set on
every machine; the formulas and the order of the draws are those of the reference generator that peers were first measured with.
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


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def dense(n: int, *, n_items: int = 200, sd: float = 0.8, seed: int = 0) -> Set:
    """A leaderboard: few items, some judged far more often than others; no ties."""
    rng = np.random.default_rng([seed, n, n_items])
    strength = rng.normal(0, sd, n_items)
    strength -= strength.mean()
    popularity = np.exp(rng.normal(0, 0.8, n_items))
    popularity /= popularity.sum()
    left = rng.choice(n_items, n, p=popularity).astype(np.int32)
    right = rng.choice(n_items, n, p=popularity).astype(np.int32)
    same = left == right
    right[same] = (left[same] + rng.integers(1, n_items, same.sum())) % n_items
    won = (rng.random(n) < _sigmoid(strength[left] - strength[right])).astype(np.int8)
    return {"left": left, "right": right, "won": won, "strength": strength}


def sparse(n: int, *, n_items: int | None = None, seed: int = 1) -> Set:
    """A random graph with 20 comparisons an item: 100,000 items at a million judgments."""
    n_items = n // 10 if n_items is None else n_items
    rng = np.random.default_rng([seed, n, n_items])
    strength = rng.normal(0, 1.0, n_items)
    left = rng.integers(0, n_items, n).astype(np.int32)
    right = ((left + rng.integers(1, n_items, n)) % n_items).astype(np.int32)
    won = (rng.random(n) < _sigmoid(strength[left] - strength[right])).astype(np.int8)
    return {"left": left, "right": right, "won": won, "strength": strength}


def grouped(n: int, *, k: int = 4, votes_per_pair: int = 3, seed: int = 2) -> Set:
    """Responses that meet only within their prompt of k: about n judgments, each pair judged three times."""
    n_prompts = -(-n // (votes_per_pair * k * (k - 1) // 2))
    rng = np.random.default_rng([seed, n_prompts, k])
    strength = rng.normal(0, 1.0, n_prompts * k)
    one, two = np.triu_indices(k, 1)
    base = np.arange(n_prompts)[:, None] * k
    left = np.repeat((base + one).ravel(), votes_per_pair)
    right = np.repeat((base + two).ravel(), votes_per_pair)
    flip = rng.random(left.size) < 0.5
    left, right = np.where(flip, right, left), np.where(flip, left, right)
    order = rng.permutation(left.size)
    left, right = left[order].astype(np.int32), right[order].astype(np.int32)
    won = (rng.random(left.size) < _sigmoid(strength[left] - strength[right])).astype(np.int8)
    return {"left": left, "right": right, "won": won, "strength": strength}


def style(n: int, *, n_items: int = 200, seed: int = 3) -> Set:
    """Four counts a side (tokens, headers, lists, bold) that move votes, and of which stronger items have more (confounded).

    The log odds are s_left - s_right + x @ coef, x the standardised (count_left - count_right) / (count_left + count_right + 1).
    """
    rng = np.random.default_rng([seed, n])
    made = dense(n, n_items=n_items, seed=seed)
    strength = made["strength"]
    level = 0.5 * strength[:, None] / strength.std() + rng.normal(0, 0.5, (n_items, 4))
    base = np.array([np.log(350), np.log(2.0), np.log(8.0), np.log(6.0)])

    def counts(item: NDArray[np.int32]) -> NDArray[np.int32]:
        mean = np.exp(np.clip(base + 0.6 * level[item] + rng.normal(0, 0.5, (n, 4)), None, 9))
        return rng.poisson(mean).astype(np.int32)

    left, right = counts(made["left"]), counts(made["right"])
    coefficient = np.array([0.45, 0.10, 0.12, 0.08])
    gap = strength[made["left"]] - strength[made["right"]]
    won = (rng.random(n) < _sigmoid(gap + style_features(left, right) @ coefficient)).astype(np.int8)
    return made | {"won": won, "left_style": left, "right_style": right, "coefficient": coefficient}


def style_features(left: NDArray[np.int32], right: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n, 4) normalised differences, as the truth of `style` and arena leaderboards have them."""
    share = (left - right) / (left + right + 1.0)
    return (share - share.mean(0)) / share.std(0)


KINDS = ("careful", "noisy", "by position", "opposed")


def annot(n: int, *, n_prompts: int = 1250, k: int = 4, n_raters: int = 2000, seed: int = 4) -> Set:
    """A crowd of mixed reliability on prompts of four responses; in each prompt two of the six pairs are judged by nobody.

    P(left) = sigmoid(slope_rater (s_left - s_right) + shift_rater); those who answer by position have slope 0. `held` (n_held, 2) has
    the pairs that were not judged.
    """
    rng = np.random.default_rng([seed, n, n_prompts])
    strength = rng.normal(0, 1.0, n_prompts * k)
    kind = rng.permutation(np.repeat(np.arange(4), np.round(np.array([0.60, 0.20, 0.15, 0.05]) * n_raters).astype(int)))
    slopes = [np.exp(rng.normal(0.4, 0.3, n_raters)), np.exp(rng.normal(-1.2, 0.3, n_raters)), np.zeros(n_raters)]
    slope = np.select([kind == 0, kind == 1, kind == 2, kind == 3], [*slopes, -np.exp(rng.normal(0.2, 0.3, n_raters))])
    shift = np.where(kind == 2, rng.normal(0, 1.0, n_raters), rng.normal(0.1, 0.2, n_raters))
    # the four responses in a random circle: neighbours are judged, opposites are held out
    circle = np.argsort(rng.random((n_prompts, k)), axis=1) + np.arange(n_prompts)[:, None] * k
    judged = np.stack([circle, np.roll(circle, -1, axis=1)], -1).reshape(-1, 2)
    held = np.stack([circle[:, :2], circle[:, 2:]], -1).reshape(-1, 2)
    uneven = n % len(judged)
    which = rng.integers(0, len(judged), n) if uneven else rng.permutation(np.repeat(np.arange(len(judged)), n // len(judged)))
    pair = judged[which]
    flip = rng.random(n) < 0.5
    left = np.where(flip, pair[:, 1], pair[:, 0]).astype(np.int32)
    right = np.where(flip, pair[:, 0], pair[:, 1]).astype(np.int32)
    activity = np.exp(rng.normal(0, 1.0, n_raters))
    rater = rng.choice(n_raters, n, p=activity / activity.sum()).astype(np.int32)
    won = (rng.random(n) < _sigmoid(slope[rater] * (strength[left] - strength[right]) + shift[rater])).astype(np.int8)
    truth = {"strength": strength, "slope": slope, "shift": shift, "kind": kind, "held": held.astype(np.int32)}
    return {"left": left, "right": right, "won": won, "rater": rater, **truth}


def thin(n: int, *, seed: int = 4) -> Set:
    """The usual budget of preference data: three judgments a pair, so that 100,000 judgments are spread over 33,332 responses."""
    return annot(n - n % 12, n_prompts=max(n // 12, 1), seed=seed)


def ties(n: int, *, n_items: int = 50, tie: float = 0.6, seed: int = 5) -> Set:
    """Davidson ties: P(tie) is proportional to tie * sqrt(pi_left pi_right)."""
    rng = np.random.default_rng([seed, n, n_items])
    made = dense(n, n_items=n_items, seed=seed)
    one, two = np.exp(made["strength"][made["left"]]), np.exp(made["strength"][made["right"]])
    drawn = rng.random(n) * (one + two + tie * np.sqrt(one * two))
    return made | {"won": np.where(drawn < one, 1, np.where(drawn < one + two, 0, 2)).astype(np.int8), "tie": np.array(tie)}


def drift(n: int, *, n_items: int = 100, n_days: int = 365, sd: float = 0.8, step: float = 0.04, seed: int = 6) -> Set:
    """Strengths that walk at random, a normal step a day; votes spread evenly over the days. `path` is (n_days, n_items)."""
    rng = np.random.default_rng([seed, n, n_items])
    path = rng.normal(0, sd, n_items) + np.vstack([np.zeros(n_items), rng.normal(0, step, (n_days - 1, n_items)).cumsum(0)])
    day = np.sort(rng.integers(0, n_days, n)).astype(np.int32)
    left = rng.integers(0, n_items, n).astype(np.int32)
    right = ((left + rng.integers(1, n_items, n)) % n_items).astype(np.int32)
    won = (rng.random(n) < _sigmoid(path[day, left] - path[day, right])).astype(np.int8)
    return {"left": left, "right": right, "won": won, "day": day, "strength": path[-1], "path": path, "step": np.array(step)}


def tastes(n: int, *, repetitions: int = 1, n_items: int = 20, n_raters: int = 40, sd: float = 0.5, seed: int = 7) -> Set:
    """Raters whose own tastes differ from the shared strengths, normal with this sd per item; `repetitions` sets of n votes in rows.

    `strength` (repetitions, n_items) is what a Bradley-Terry fit to endlessly many raters would find: shares of votes averaged over
    tastes are nearer to one half than those of the average taste.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    out: dict[str, list[NDArray[Any]]] = {name: [] for name in ("left", "right", "won", "rater", "strength")}
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, n, n_items, repetition])
        shared = rng.normal(0, 0.8, n_items)
        taste = rng.normal(0, sd, (n_raters, n_items))
        left = rng.integers(0, n_items, n).astype(np.int32)
        right = ((left + rng.integers(1, n_items, n)) % n_items).astype(np.int32)
        rater = (rng.permutation(n) % n_raters).astype(np.int32)
        own = shared + taste[rater]
        out["won"].append((rng.random(n) < _sigmoid(own[np.arange(n), left] - own[np.arange(n), right])).astype(np.int8))
        gap = shared[:, None] - shared[None, :]
        share = (_sigmoid(gap[..., None] + np.sqrt(2) * sd * node) * weight).sum(-1) / weight.sum()
        out["strength"].append(_bradley_terry(share))
        for name, column in (("left", left), ("right", right), ("rater", rater)):
            out[name].append(column)
    return {name: np.stack(columns) for name, columns in out.items()}


def _bradley_terry(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strengths of mean 0 that fit shares of wins of each over each, every pair met equally often; Newton's method."""
    n = len(share)
    strength = np.zeros(n)
    for _ in range(50):
        p = _sigmoid(strength[:, None] - strength[None, :])
        gradient = np.where(np.eye(n, dtype=bool), 0, share - p).sum(1)
        weight = np.where(np.eye(n, dtype=bool), 0, p * (1 - p))
        strength = strength + np.linalg.solve(np.diag(weight.sum(1)) - weight + 1 / n, gradient)
    return strength - strength.mean()


def length(n: int, *, bias: float = 0.4, seed: int = 8) -> Set:
    """`grouped`, with words per response: stronger responses are longer, and a vote moves by `bias` per sd of log words besides."""
    made = grouped(n, seed=seed)
    rng = np.random.default_rng([seed, n])
    log_words = 0.3 * made["strength"] + rng.normal(0, 1.0, len(made["strength"]))
    log_words = (log_words - log_words.mean()) / log_words.std()
    left, right = made["left"], made["right"]
    gap = made["strength"][left] - made["strength"][right] + bias * (log_words[left] - log_words[right])
    words = np.maximum(1, np.exp(3.5 + 0.6 * log_words)).astype(np.int32)
    won = (rng.random(len(left)) < _sigmoid(gap)).astype(np.int8)
    return made | {"won": won, "words": words, "log_words": log_words, "bias": np.array(bias)}


def agreement(n: int, *, n_raters: int = 2000, n_units: int = 5000, seed: int = 9) -> Set:
    """n answers of yes or no by raters to units, no rater twice to one: the truth with probability 0.7, else a coin's."""
    rng = np.random.default_rng([seed, n])
    n_units = max(n_units, -(-4 * n // n_raters))
    cell = rng.choice(n_raters * n_units, n, replace=False)
    unit, rater = (cell % n_units).astype(np.int32), (cell // n_units).astype(np.int32)
    truth = rng.random(n_units) < 0.5
    value = np.where(rng.random(n) < 0.7, truth[unit], rng.random(n) < 0.5).astype(np.int8)
    return {"unit": unit, "rater": rater, "value": value, "shape": np.array([n_raters, n_units])}


SETS: dict[str, Callable[..., Set]] = {
    "dense": dense,
    "sparse": sparse,
    "grouped": grouped,
    "style": style,
    "annot": annot,
    "thin": thin,
    "ties": ties,
    "drift": drift,
    "tastes": tastes,
    "length": length,
    "agreement": agreement,
}


# ---------------------------------------------------------------------------------------------- files

_WORDS = [
    first + last for first in ("ba", "de", "ki", "lo", "mu", "no", "sa", "ter") for last in ("n", "la", "rim", "so", "ve", "dor", "t")
]


def texts(words: NDArray[np.int32], *, seed: int = 0) -> list[str]:
    """A text of so many words per entry, all different."""
    rng = np.random.default_rng([seed, 10])
    table = np.array(_WORDS)
    return [f"{' '.join(table[rng.integers(0, len(table), count)])} {row}." for row, count in enumerate(words.tolist())]


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
    columns = [[f"item-{i}" for i in made["left"]], [f"item-{i}" for i in made["right"]]]
    columns.append([("right", "left", "tie")[answer] for answer in made["won"].tolist()])
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
