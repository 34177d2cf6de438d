"""Nominal labels: what each response is, and what each rater takes it for (Dawid & Skene 1979).

Labels have no order and no gap, so they stand beside the one likelihood, not inside it: each response has one true class, and
each rater a confusion matrix P(label | class) of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from seamark.errors import InvalidSetting, NotConverged, SeamarkError
from seamark.records import Feedback

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelFit:
    """True classes and confusion matrices. C classes, R raters, n responses of the feedback fitted."""

    classes: tuple[str, ...]
    shares: Array
    """(C,) share of each class."""
    posterior: Array
    """(n, C) probability of each class; NaN for responses without a label."""
    confusion: Array
    """(R + 1, C, C) P(label | class) of each rater; the last is that of all labels whose rater is not known."""
    accuracy: pl.DataFrame
    """Per rater: rater, n, accuracy (expected share of right labels over the classes as they occur), low, high."""
    log_likelihood: float
    iterations: int


def fit_labels(
    feedback: Feedback, *, axis: str | None = None, pseudo: float = 1.0, max_iterations: int = 1000, tolerance: float = 1e-8
) -> LabelFit:
    """Fit one class per response and one confusion matrix per rater, by EM from the shares of answers.

    Parameters
    ----------
    axis
        Which question, where labels answer several.
    pseudo
        How many labels by the average rater each rater's matrix counts besides their own: raters with few labels are judged by
        the crowd (partial pooling). 0 is Dawid & Skene's maximum likelihood.
    tolerance
        Largest change of a class probability at the end.

    Raises
    ------
    SeamarkError
        If there is no label, or a single class, to fit.
    NotConverged
        If `max_iterations` do not suffice.

    Source: Dawid & Skene 1979, equations 2.3 to 2.5.
    """
    frame = feedback.judgments.filter((pl.col("kind") == "label") & pl.col("label").is_not_null())
    axes = frame["axis"].unique().to_list()
    if axis is None and len(axes) > 1:
        raise InvalidSetting("axis", axis, f"The labels answer {len(axes)} questions; choose one of {sorted(map(str, axes))}.")
    if axis is not None:
        frame = frame.filter(pl.col("axis") == axis)
    classes = sorted(frame["label"].unique().to_list())
    if len(classes) < 2:
        raise SeamarkError(f"labels of {len(classes)} classes cannot be fitted; at least 2 are needed. Check the axis and the labels.")
    n, R, C = feedback.n_responses, feedback.n_raters, len(classes)
    item = frame["responses"].list.first().cast(pl.Int64).to_numpy()
    rater = frame["rater"].cast(pl.Int64).fill_null(R).to_numpy()
    label = frame["label"].replace_strict(classes, list(range(C)), return_dtype=pl.Int64).to_numpy()
    weight = frame["weight"].fill_null(1.0).to_numpy()
    given = csr_array((weight, (item, rater * C + label)), shape=(n, (R + 1) * C))  # equal entries are summed
    labelled = np.flatnonzero(np.asarray(given.sum(1)) > 0)
    given = given[labelled]
    posterior = np.asarray(given @ np.tile(np.eye(C), (R + 1, 1)))
    posterior /= posterior.sum(1, keepdims=True)
    shares, confusion, log_likelihood, moved = np.zeros(C), np.zeros((R + 1, C, C)), -np.inf, np.inf
    iterations = 0
    for iterations in range(1, max_iterations + 1):  # noqa: B007  # reported at the end
        shares = posterior.mean(0)
        counts = np.asarray(given.T @ posterior).reshape(R + 1, C, C).transpose(0, 2, 1)  # (rater, class, label)
        crowd = counts.sum(0) + 1e-12
        counts = counts + pseudo * crowd / crowd.sum(1, keepdims=True)
        # a class that a rater never met says nothing about them
        confusion = (counts + 1e-300) / (counts + 1e-300).sum(2, keepdims=True)
        log_joint = np.log(np.maximum(shares, 1e-300)) + given @ np.log(confusion).transpose(0, 2, 1).reshape(-1, C)
        top = log_joint.max(1, keepdims=True)
        likely = np.exp(log_joint - top)
        total = likely.sum(1, keepdims=True)
        log_likelihood = float((np.log(total) + top).sum())
        moved = float(np.abs(likely / total - posterior).max())
        posterior = likely / total
        if moved < tolerance:
            break
    else:
        raise NotConverged(max_iterations, moved, tolerance)
    whole = np.full((n, C), np.nan)
    whole[labelled] = posterior
    return LabelFit(tuple(classes), shares, whole, confusion, _accuracy(feedback, given, shares, confusion), log_likelihood, iterations)


def _accuracy(feedback: Feedback, given: csr_array, shares: Array, confusion: Array) -> pl.DataFrame:
    """Expected accuracy of each rater, with a 95% Wilson interval on the number of labels they gave."""
    R, C = feedback.n_raters, len(shares)
    n = np.asarray(given.sum(0)).reshape(R + 1, C).sum(1)[:R]
    p = np.einsum("c,rcc->r", shares, confusion[:R])
    z = 1.96
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    unknown = n == 0
    columns = {"n": n, "accuracy": p, "low": centre - half, "high": centre + half}
    table = {name: np.where(unknown & (name != "n"), np.nan, values) for name, values in columns.items()}
    return pl.DataFrame({"rater": feedback.raters["id"]} | table)
