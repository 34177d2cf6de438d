"""How near an answer comes to the truth: what `speed.py` prints beside the seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from data import Set
from numpy.typing import NDArray
from peers import LOG_TEN, by_item

Array = NDArray[np.float64]
Figures = dict[str, float]


def recovery(made: Set, strength: Array, seconds: float) -> Figures:  # noqa: ARG001 - all scores are called alike
    """Root mean square error of centred strengths, their slope on the truth, and how many pairs of items are told in the right order."""
    found, truth = strength - strength.mean(), made["strength"] - made["strength"].mean()
    error = float(np.sqrt(((found - truth) ** 2).mean()))
    one, two = np.random.default_rng(0).integers(0, len(truth), (2, 500_000))
    different = truth[one] != truth[two]
    right = _order(found[one] - found[two], truth[one] - truth[two])[different].mean()
    return {"RMSE": error, "slope": float(found @ truth / (truth @ truth)), "pair accuracy": float(right)}


def recovery_within(made: Set, strength: Array, seconds: float) -> Figures:  # noqa: ARG001
    """The same within prompts of four, beyond which strengths have no common zero."""
    found, truth = strength.reshape(-1, 4), made["strength"].reshape(-1, 4)
    found, truth = found - found.mean(1, keepdims=True), truth - truth.mean(1, keepdims=True)
    one, two = np.triu_indices(4, 1)
    right = _order(found[:, one] - found[:, two], truth[:, one] - truth[:, two]).mean()
    return {"RMSE": float(np.sqrt(((found - truth) ** 2).mean())), "pair accuracy": float(right)}


def held_out(made: Set, strength: Array, seconds: float) -> Figures:  # noqa: ARG001
    """The share of pairs that nobody judged told in the right order; a tie is half right."""
    left, right = made["held"].T
    truth = made["strength"][left] - made["strength"][right]
    return {"accuracy on pairs nobody judged": float(_order(strength[left] - strength[right], truth).mean())}


def _order(found: Array, truth: Array) -> Array:
    return np.where(found == 0, 0.5, (found > 0) == (truth > 0))


def style(made: Set, found: tuple[Array, Array], seconds: float) -> Figures:
    """Strengths as in `recovery`, and the first coefficient."""
    return recovery(made, found[0], seconds) | {"first coefficient (true 0.45)": float(found[1][0])}


def last_day(made: Set, strength: Array, seconds: float) -> Figures:
    """Error of centred strengths on the last day."""
    error = recovery(made, strength, seconds)["RMSE"]
    return {"RMSE of the last day": error, "judgments / s": len(made["left"]) / seconds}


def spread(made: Set, rounds: Array, seconds: float) -> Figures:  # noqa: ARG001
    """Mean standard deviation over rounds of centred strengths, over the root mean square error of their mean."""
    centred = rounds - rounds.mean(1, keepdims=True)
    truth = made["strength"] - made["strength"].mean()
    error = np.sqrt(((centred.mean(0) - truth) ** 2).mean())
    return {"mean se / error": float(centred.std(0, ddof=1).mean() / error)}


def coverage(made: Set, intervals: list[tuple[Array, Array]], seconds: float) -> Figures:
    """The share of gaps within their intervals, its standard error over repetitions, and the time of each."""
    shares = []
    for truth, (low, high) in zip(made["strength"], intervals, strict=False):
        one, two = np.triu_indices(len(truth), 1)
        gap = truth[one] - truth[two]
        shares.append(((low <= gap) & (gap <= high)).mean())
    error = np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else float("nan")
    return {"coverage of 95% intervals": float(np.mean(shares)), "standard error": float(error), "ms a fit": 1000 * seconds / len(shares)}


def value(made: Set, found: float, seconds: float) -> Figures:  # noqa: ARG001
    return {"alpha": found}


# ---------------------------------------------------------------------------------------------- what calls gave, as strengths


def as_is(made: Set) -> Set:
    return made


def pairs(found: Any, made: Set) -> Array:
    """(names, logits)."""
    return by_item(*found, made["strength"].shape[-1])


def crowd(scores: Any, made: Set) -> Array:
    return by_item(scores.index, scores.to_numpy(), len(made["strength"]))


def style_of(found: Any, made: Set) -> tuple[Array, Array]:
    models, ratings, coefficients = found
    return by_item(models, LOG_TEN * ratings, len(made["strength"])), coefficients


def style_weights(found: Array, made: Set) -> tuple[Array, Array]:
    n = len(made["strength"])
    return found[:n], found[n:]


def ours_rounds(found: Any, made: Set) -> Array:
    from ours import in_order  # here, so that the process of a peer does not load Seamark

    boot, given = found
    return np.array([in_order(given, values, len(made["strength"])) for values in boot.utilities])


def fastchat_rounds(found: Any, made: Set) -> Array:
    models, rounds = found
    return np.array([by_item(models, LOG_TEN * ratings, len(made["strength"])) for ratings in rounds])


def evalica_rounds(found: Any, made: Set) -> Array:
    rounds = found.distribution
    return np.array([by_item(rounds.columns, np.log(np.maximum(row, 1e-300)), len(made["strength"])) for row in rounds.to_numpy()])
