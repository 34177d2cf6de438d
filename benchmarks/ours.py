"""What Seamark does with the same judgments: the feedback built from arrays, the call that is timed, and what is read from it.

A task that the library cannot do raises `NotImplementedError` with what is missing, and its row says so.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from data import Set, style_features
from numpy.typing import NDArray
from peers import code_of, names_of

from seamark import Feedback

Array = NDArray[np.float64]
_START = np.datetime64("2024-01-01T00:00:00", "us")
_ANSWERS = ["right", "left", "tie"]


def feedback(made: Set) -> Feedback:
    """Judgments from integer codes; the names of the items are their numbers."""
    more: dict[str, Any] = {}
    if "rater" in made:
        more = {"rater": made["rater"], "order_known": True}
    if "day" in made:
        more["time"] = _START + made["day"].astype("timedelta64[D]")
    return Feedback.from_arrays(left_id=made["left"], right_id=made["right"], outcome=made["won"], names={"outcome": _ANSWERS}, **more)


def strings(made: Set) -> dict[str, pl.Series]:
    """Two columns of names and one of answers, as a file of votes is read."""
    answers = pl.Series(_ANSWERS).gather(made["won"])
    left, right = (pl.Series(names_of(made[side]), dtype=pl.String) for side in ("left", "right"))
    return {"left_id": left, "right_id": right, "outcome": answers}


def _plain() -> dict[str, Any]:
    """Bradley-Terry and nothing else: no raters, no position, no lapses."""
    from seamark.models import Observation, Tabular

    return {"utility": Tabular(), "observation": Observation(effects=(), lapse=False), "require_identified": False}


def fit(given: Feedback) -> Any:
    from seamark.models import fit

    return fit(given, **_plain()), given


def fit_strings(columns: dict[str, pl.Series]) -> Any:
    return fit(Feedback.from_arrays(**columns))


def fit_raters(given: Feedback) -> Any:
    from seamark.models import Observation, Position, Reliability, fit

    observation = Observation(effects=(Reliability(), Position()), lapse=False)
    return fit(given, **_plain() | {"observation": observation}), given


def fit_path(given: Feedback) -> Any:
    """Values that move from day to day."""
    from seamark.models import Dynamic, Tabular, fit

    return fit(given, **_plain() | {"utility": Dynamic(utility=Tabular(), every=timedelta(days=1))}), given


def bootstrap(given: Feedback) -> Any:
    from seamark.models import bootstrap

    return bootstrap(given, rounds=100, by="judgment", **_plain()), given


_NUMBERS = ("tokens", "headers", "lists", "bold")


def style_columns(made: Set) -> Feedback:
    """Judgments with the difference that each covariate makes, which the method of the others takes, too."""
    x = style_features(made["left_style"], made["right_style"])
    more = {f"left_{name}": np.ascontiguousarray(x[:, i]) for i, name in enumerate(_NUMBERS)}
    return Feedback.from_arrays(left_id=made["left"], right_id=made["right"], outcome=made["won"], names={"outcome": _ANSWERS}, **more)


def style(given: Feedback) -> Any:
    from seamark.models import Bias, Observation, fit

    return fit(given, **_plain() | {"observation": Observation(effects=tuple(map(Bias, _NUMBERS)), lapse=False)}), given


def style_of(found: Any, made: Set) -> tuple[Array, Array]:
    """Strengths, and coefficients per standard deviation."""
    coefficient = {p.name: p.estimate for p in found[0].parameters}
    return strengths(found, made), np.array([coefficient[f"bias by {name}"] for name in _NUMBERS])


def strengths(found: Any, made: Set, **at: Any) -> Array:
    """Utilities by item code; 0 for an item that nobody judged."""
    model, given = found
    return in_order(given, model.utilities(given, **at), made["strength"].shape[-1])


def in_order(given: Feedback, values: Array, n_items: int) -> Array:
    out = np.zeros(n_items)
    out[[code_of(name) for name in given.responses["name"].to_list()]] = values
    return out


def last_strengths(found: Any, made: Set) -> Array:
    (period,) = (factor for factor in found[0].factors if factor.name == "period")
    return strengths(found, made, at={"period": period.levels[-1]})


def intervals(inputs: list[Feedback]) -> list[tuple[Array, Array]]:
    """(low, high) of the gaps of all pairs, for each repetition, as `Fit.gaps` gives them."""
    out = []
    for given in inputs:
        model, _ = fit(given)
        one, two = _pairs(given)
        gaps = model.gaps(given, one, two)
        out.append((gaps.mean - 1.96 * gaps.ignorance, gaps.mean + 1.96 * gaps.ignorance))
    return out


def sandwich_intervals(inputs: list[Feedback]) -> list[tuple[Array, Array]]:
    """The same by the wider of that and the sandwich, clustered by rater."""
    out = []
    for given in inputs:
        model, _ = fit(given)
        gaps = model.gaps(given, *_pairs(given))
        out.append((gaps.mean - 1.96 * gaps.wider, gaps.mean + 1.96 * gaps.wider))
    return out


def bootstrap_intervals(inputs: list[Feedback]) -> list[tuple[Array, Array]]:
    """The same from 100 rounds of the bootstrap, which weighs whole raters where they are known."""
    from seamark.models import bootstrap

    out = []
    for given in inputs:
        found = bootstrap(given, rounds=100, **_plain())
        out.append(found.gap(*_pairs(given)))
    return out


def _pairs(given: Feedback) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Response codes of all pairs of items i < j, by item code."""
    order = np.argsort([code_of(name) for name in given.responses["name"].to_list()])
    one, two = np.triu_indices(len(order), 1)
    return order[one], order[two]


def long_table(made: Set) -> Set:
    return made


def alpha(made: Set) -> float:
    from seamark.checks.agreement import krippendorff_alpha

    # no rater answers a unit twice, as in the tables of the others; looking for repeats (raters=) would take three times as long
    found = krippendorff_alpha(made["value"], made["unit"])
    assert found is not None
    return found
