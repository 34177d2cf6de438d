"""Raters with the habits that `seamark.checks.psychology` looks for: each habit has one number, and 0 is without it.

Conventions
-----------
A response i has a true value v_i ~ N(0, 1) on a scale of its own; rater r sees v_i plus noise, and gives

    y_rt = v_i + leniency_r + noise e + habits,     on each axis a of n_axes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from seamark.errors import InvalidSetting
from seamark.records import Feedback

_START = datetime(2024, 1, 1, tzinfo=UTC)


def simulate_ratings(
    *,
    anchoring: float = 0.0,
    contrast: float = 0.0,
    halo: float = 0.0,
    n_raters: int = 20,
    n_responses: int = 60,
    n_axes: int = 1,
    noise: float = 0.7,
    leniency: float = 0.5,
    seed: int = 0,
) -> Feedback:
    """Ratings of the same responses by all raters, each in a random order of their own.

    Parameters
    ----------
    anchoring : by how much a rating follows the rater's own last deviation, per unit (0 to below 1).
    contrast : by how much a rating is pushed away from the value of the response before, per unit.
    halo : share of the noise's variance that a rater's impression of a response puts on all axes alike (0 to 1).
    noise, leniency : standard deviations.
    """
    if not 0 <= anchoring < 1 or not 0 <= halo <= 1:
        raise InvalidSetting("anchoring, halo", (anchoring, halo), "Use 0 to below 1, and 0 to 1.")
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(n_responses, n_axes))
    columns: dict[str, list[object]] = {
        name: [] for name in ("kind", "outcome", "ids", "rating", "scale_low", "scale_high", "rater", "axis", "time", "position")
    }
    for r in range(n_raters):
        shift = leniency * rng.normal()
        last, before = np.zeros(n_axes), np.zeros(n_axes)
        for place, i in enumerate(rng.permutation(n_responses).tolist()):
            impression = rng.normal()
            e = noise * (np.sqrt(halo) * impression + np.sqrt(1 - halo) * rng.normal(size=n_axes)) + anchoring * last - contrast * before
            last, before = e, value[i]
            for a in range(n_axes):
                given = float(np.clip(value[i, a] + shift + e[a], -10, 10))
                when = _START + timedelta(seconds=10_000 * r + 60 * place + a)
                row = ("rating", "answered", [f"response {i}"], given, -10.0, 10.0, f"rater {r}", f"axis {a}", when, place)
                for name, entry in zip(columns, row, strict=True):
                    columns[name].append(entry)
    return Feedback.from_columns(columns)


def simulate_pairs(
    *,
    satisficing: float = 0.0,
    irrational: int = 0,
    n_raters: int = 20,
    n_responses: int = 8,
    n_judgments: int = 100,
    spread: float = 1.5,
    seed: int = 0,
) -> Feedback:
    """Pairs in a session per rater: P(left) = sigmoid(v_left - v_right + satisficing * place), place standardised.

    Parameters
    ----------
    satisficing : logits in favour of the first response per standard deviation of the place in the session.
    irrational : so many of the raters, the first ones, prefer i to j where j follows i on a circle within half of it: in cycles.
    spread : standard deviation of the values, logits.
    """
    rng = np.random.default_rng(seed)
    value = spread * rng.normal(size=n_responses)
    columns: dict[str, list[object]] = {name: [] for name in ("kind", "ids", "outcome", "rater", "position", "order_known")}
    place = (np.arange(n_judgments) - (n_judgments - 1) / 2) / np.arange(n_judgments).std()
    every = [(i, j) for i in range(n_responses) for j in range(i)]
    for r in range(n_raters):
        order = [
            every[k] for k in np.concatenate([rng.permutation(len(every)) for _ in range(-(-n_judgments // len(every)))])[:n_judgments]
        ]
        for t, (i, j) in enumerate(order):
            left, right = (i, j) if rng.random() < 0.5 else (j, i)
            gap = value[left] - value[right] + satisficing * place[t]
            p = 1 / (1 + np.exp(-gap))
            if r < irrational:
                p = 0.95 if (right - left) % n_responses <= n_responses // 2 else 0.05
            row = ("pair", [f"response {left}", f"response {right}"], "left" if rng.random() < p else "right", f"rater {r}", t, True)
            for name, entry in zip(columns, row, strict=True):
                columns[name].append(entry)
    return Feedback.from_columns(columns)


def simulate_riddles(
    *, neglect: int = 0, fallacy: int = 0, n_raters: int = 20, n_items: int = 12, noise: float = 0.4, seed: int = 0
) -> dict[str, np.ndarray]:
    """Answers to conjunction and base-rate items: the fields of `seamark.checks.psychology.Riddles`.

    Parameters
    ----------
    neglect : so many raters, the first ones, ignore the base rate; the others follow Bayes' rule.
    fallacy : so many raters, the first ones, give "A and B" more than A in nine items of ten; the others hardly ever.
    noise : standard deviation of an answer, in log odds.
    """
    rng = np.random.default_rng(seed)
    names = ("rater", "joint", "single", "posterior", "prior", "likelihood_ratio")
    rows: dict[str, list[object]] = {name: [] for name in names}
    for r in range(n_raters):
        for _ in range(n_items):
            single = rng.uniform(0.2, 0.9)
            wrong = rng.random() < (0.9 if r < fallacy else 0.03)
            joint = min(single + rng.uniform(0.02, 0.1), 1.0) if wrong else single * rng.uniform(0.3, 0.95)
            prior, ratio = rng.choice([0.05, 0.2, 0.5, 0.8]), rng.choice([0.25, 2.0, 5.0, 10.0])
            odds = np.log(prior / (1 - prior)) * (r >= neglect) + np.log(ratio) + noise * rng.normal()
            for name, entry in zip(names, (f"rater {r}", joint, single, 1 / (1 + np.exp(-odds)), prior, ratio), strict=True):
                rows[name].append(entry)
    return {name: np.array(values) for name, values in rows.items()}
