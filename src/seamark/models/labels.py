"""Nominal labels: what each unit is, and what each rater takes it for (Dawid & Skene 1979).

Labels have no order and no gap, so they stand beside the one likelihood, not inside it: each unit (a response) has one true class,
and each rater a `Confusion`, a matrix P(label | class) of their own.

Conventions
-----------
n units, R raters, C classes, L labels: the C classes, and "cannot tell" where that is read as an answer. With s the shares of the
classes, z_i the class of unit i, y the labels, which are independent given the classes:

    z_i ~ s,    y_ir ~ pi[r, z_i],    pi[r, c] ~ Dirichlet(alpha[c])

Raters whose id is not known share the last row of every array over raters. A weight counts as so many labels. Labels are held as
triples and sums of them, never as a table of units by raters.

What is maximised. With alpha held, pi and z are integrated out by a variational bound on log p(y | s, alpha): q(z) and the Dirichlet
q(pi) in turn, then s, every step raising it (`LabelFit.history`; Kim & Ghahramani 2012, Simpson et al. 2013). With `pooling=0` there is
no prior, the bound is the log likelihood, and the steps are those of Dawid & Skene. Steps are stretched where that raises the bound
still further (Varadhan & Roland 2008). It has local maxima; the start, each unit's own share of answers, is in the basin of "labels
mostly mean what they say", unless gold says otherwise.

How raters differ, alpha, is estimated first, by a sampler: where units have few labels, expected counts make raters look more alike
than they are (alpha up to ten times too large at three labels a unit), draws of the classes do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import betaincinv, digamma, gammaln

from seamark.errors import InvalidSetting, NotConverged, SeamarkError
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

CANNOT_TELL = "cannot tell"
"""The label that stands for that answer, where it is read as one."""
_SHAPE, _RATE = 0.5, 0.05
"""Each alpha has a Gamma prior (shape 1.5, rate .05: mean 30, most likely 10), which decides only where few raters do."""
_EMPTY = 1e-12
"""Labels that every cell of a matrix counts without a prior, so that an answer never seen is not impossible."""
_SAMPLE, _SWEEPS = 100_000, 80
"""Labels at most that alpha is estimated from, and sweeps of its sampler."""
_HABIT = 10.0
"""Gold labels of a class against which "labels mean what they say" holds its own at the start."""
_LEAST = 0.05
"""Smallest share of the information on a cell that is left to it when the classes are not certain."""


@dataclass(frozen=True)
class Confusion:
    """What one rater takes each class for."""

    rater: str | None
    """None: of a rater not seen before."""
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    matrix: Array
    """(C, L) P(label | class); rows sum to 1."""
    low: Array
    """(C, L) 95% intervals, cell by cell."""
    high: Array
    n: Array
    """(C,) expected number of their labels on units of each class."""

    def to_frame(self) -> pl.DataFrame:
        """One row per class and label: class, label, p, low, high, n."""
        C, L = self.matrix.shape
        return pl.DataFrame(
            {
                "class": np.repeat(self.classes, L),
                "label": np.tile(self.labels, C),
                "p": self.matrix.ravel(),
                "low": self.low.ravel(),
                "high": self.high.ravel(),
                "n": np.repeat(self.n, L),
            }
        )


@dataclass(frozen=True)
class _Settings:
    """What `fit_labels` was asked for."""

    axis: str | None
    classes: tuple[str, ...] | None
    cannot_tell: str
    gold_in_shares: bool
    pooling: float | None
    draws: int
    max_iterations: int
    tolerance: float
    seed: int


@dataclass(frozen=True)
class _Tally:
    """All labels as triples of codes, each once, with what is known of units beforehand."""

    units: tuple[str, ...]
    names: tuple[str | None, ...]
    """Name given to each unit, where there is one."""
    raters: tuple[str, ...]
    unit: Codes
    rater: Codes
    """R where not known."""
    label: Codes
    """Code in the labels of the fit."""
    weight: Array
    gold: Codes
    """(n,) class known beforehand; -1 where it is not."""
    unanswered: tuple[Codes, Codes]
    """(R + 1,) "cannot tell" and skipped, by rater."""


@dataclass(frozen=True)
class LabelFit:
    """Classes of units and confusion of raters, with how sure the fit is of each."""

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    units: tuple[str, ...]
    """(n,) ids of the responses, in the order of the rows of `posterior`."""
    raters: tuple[str, ...]
    shares: Array
    """(C,) share of each class."""
    posterior: Array
    """(n, C) probability of each class: given the other estimates, or with `draws` averaged over what they may be; NaN without a label."""
    counts: Array
    """(R + 1, C, L) expected number of labels by rater and class."""
    alpha: Array
    """(C, L) pooling: the labels of each class that every rater is counted as having given besides their own, as the crowd would."""
    confusion: Array
    """(R + 1, C, L) P(label | class), posterior mean."""
    accuracy: pl.DataFrame
    """Per rater: rater, n (labels), accuracy, low, high, cannot_tell, skipped. Accuracy is the probability that they label a unit
    drawn by the shares of the classes with its class; where "cannot tell" is an answer it is never right. Null without labels."""
    history: tuple[float, ...]
    """The bound (log likelihood with `pooling=0`) after each step, in nats."""
    iterations: int
    settings: _Settings = field(repr=False)
    tally: _Tally = field(repr=False)
    spread: Array = field(repr=False)
    """(R + 1, C, L) how many labels on a cell's row would leave it as uncertain as it is."""
    drawn: tuple[Array, Array] | None = field(default=None, repr=False)
    """(R + 1, C, L) ends of the intervals, where they come from draws."""

    @property
    def log_likelihood(self) -> float:
        """The bound at the end, in nats."""
        return self.history[-1]

    @property
    def entropy(self) -> Array:
        """(n,) entropy of each unit's class, in nats: 0 is certain, log C knows nothing; NaN without a label."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return -np.where(self.posterior > 0, self.posterior * np.log(self.posterior), self.posterior).sum(1)

    def of(self, rater: str | None) -> Confusion:
        """The matrix of a rater with 95% intervals, or with None that of a rater not seen before, as wide as raters differ.

        Intervals are Beta, of the posterior mean and of as many labels as carry the information on the cell: those of its row less
        what is missing for want of the classes (Louis 1982, cell by cell), and the pooling. With `draws` they are quantiles of these.

        Raises
        ------
        InvalidSetting
            If the fit has no such rater, or knows nothing of others for want of pooling.
        """
        if rater is None:
            if not self.alpha.any():
                raise InvalidSetting("rater", rater, "Without pooling nothing is known of a rater not seen before.")
            total = self.alpha.sum(1, keepdims=True)
            low, high = _beta(self.alpha / total, np.broadcast_to(total, self.alpha.shape))
            return Confusion(None, self.classes, self.labels, self.alpha / total, low, high, np.zeros(len(self.classes)))
        if rater not in self.raters:
            raise InvalidSetting("rater", rater, f"It is none of the {len(self.raters)} raters fitted.")
        r = self.raters.index(rater)
        low, high = _beta(self.confusion[r], self.spread[r]) if self.drawn is None else (self.drawn[0][r], self.drawn[1][r])
        return Confusion(rater, self.classes, self.labels, self.confusion[r], low, high, self.counts[r].sum(1))

    def to_frame(self) -> pl.DataFrame:
        """One row per labelled unit: unit, class (the likeliest), p, entropy, and a column `p_CLASS` per class."""
        known = ~np.isnan(self.posterior[:, 0])
        posterior = self.posterior[known]
        best = posterior.argmax(1)
        return pl.DataFrame(
            {
                "unit": [unit for unit, use in zip(self.units, known, strict=True) if use],
                "class": [self.classes[k] for k in best],
                "p": posterior.max(1),
                "entropy": self.entropy[known],
            }
            | {f"p_{name}": posterior[:, k] for k, name in enumerate(self.classes)}
        )

    def add(self, feedback: Feedback, *, gold: Mapping[str, str] | None = None) -> LabelFit:
        """The fit of all labels so far and those of `feedback`, with the same settings, started from this one.

        It equals the fit of everything at once, within the tolerance, as long as both are led to the same maximum. Units and raters
        are told by their ids, so `feedback` may hold new ones, more about old ones, or a class not seen before; gold may be about any
        unit so far. A label given again counts again.
        """
        asked = self.settings
        gold = dict(gold or {})
        more = _read(feedback, asked.axis, asked.classes, asked.cannot_tell, gold, known=self.classes)
        return _fit(_with_gold(_merge((self.classes, self.labels, self.tally), more), gold), asked, self)


def fit_labels(
    feedback: Feedback,
    *,
    axis: str | None = None,
    classes: Sequence[str] | None = None,
    gold: Mapping[str, str] | None = None,
    gold_in_shares: bool = True,
    cannot_tell: Literal["missing", "answer"] = "missing",
    pooling: float | None = None,
    draws: int = 0,
    max_iterations: int = 2000,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> LabelFit:
    """Fit one class per unit and one confusion matrix per rater.

    Parameters
    ----------
    axis
        Which question, where labels answer several.
    classes
        All classes there are, where some were perhaps never given; left out: those of the labels and of the gold.
    gold
        Class of units known beforehand, by id or name of the response. These labels teach what the raters' labels mean.
    gold_in_shares
        Whether gold units were drawn like all others. Where they were chosen class by class, False keeps them out of the shares.
    cannot_tell
        "missing" leaves such answers out: whether somebody can tell is taken to say nothing about the class. "answer" reads them as
        one more label, with a column of its own in every matrix. Skipped questions are always left out. Both are counted.
    pooling
        How many labels by the crowd each row of each rater's matrix counts besides their own, so that raters with few labels are
        judged by the crowd. None: estimated, per class and label. 0: Dawid & Skene's maximum likelihood.
    draws
        Sweeps of a Gibbs sampler from the maximum on (a fifth of them again before these), alpha held: intervals and class
        probabilities then know that classes, shares and raters are uncertain together, and probabilities are less sure. It holds
        4 bytes per draw and cell of all matrices. 0: intervals from the information, rater by rater, which are somewhat wider.
    tolerance
        Largest change of a class probability in the last step.

    Raises
    ------
    SeamarkError
        If there is no label, or a single class, to fit.
    InvalidSetting
        If labels answer several questions and none is chosen; if a gold unit or class is not known; if a label is none of `classes`.
    NotConverged
        If `max_iterations` do not suffice.

    Source: Dawid & Skene 1979, equations 2.3 to 2.5; pooling as in the module's docstring.
    """
    if pooling is not None and not 0 <= pooling < np.inf:
        raise InvalidSetting("pooling", pooling, "Give a number of labels, 0 or more, or None to estimate it.")
    if draws < 0:
        raise InvalidSetting("draws", draws, "Give 0 or more; 400 settle the ends of an interval to a tenth of its length.")
    settings = _Settings(
        axis, None if classes is None else tuple(classes), cannot_tell, gold_in_shares, pooling, draws, max_iterations, tolerance, seed
    )
    gold = dict(gold or {})
    return _fit(_with_gold(_read(feedback, axis, classes, cannot_tell, gold), gold), settings, None)


# ---------------------------------------------------------------------------------------------- reading

_Read = tuple[tuple[str, ...], tuple[str, ...], _Tally]
"""classes, labels, tally"""


def _read(
    feedback: Feedback,
    axis: str | None,
    classes: Sequence[str] | None,
    cannot_tell: str,
    gold: Mapping[str, str],
    known: tuple[str, ...] = (),
) -> _Read:
    frame = feedback.judgments.filter(pl.col("kind") == "label")
    axes = frame["axis"].unique().to_list()
    if axis is None and len(axes) > 1:
        raise InvalidSetting("axis", axis, f"The labels answer {len(axes)} questions; choose one of {sorted(map(str, axes))}.")
    if axis is not None:
        frame = frame.filter(pl.col("axis") == axis)
    R = feedback.n_raters
    frame = frame.select(
        "outcome", "label", pl.col("responses").list.first().cast(pl.Int64).alias("unit"),
        pl.col("rater").cast(pl.Int64).fill_null(R), pl.col("weight").fill_null(1.0),
    )  # fmt: skip
    answered = frame.filter((pl.col("outcome") == "answered") & pl.col("label").is_not_null() & (pl.col("weight") > 0))
    given = answered["label"].unique().to_list()
    if classes is not None and (foreign := sorted({*given, *gold.values()} - set(classes))):
        raise InvalidSetting("classes", list(classes), f"{foreign} occur among the labels or the gold; add them, or leave classes out.")
    named = tuple(sorted({*given, *gold.values(), *known})) if classes is None else tuple(classes)
    if len(named) < 2:
        raise SeamarkError(f"labels of {len(named)} classes cannot be fitted; at least 2 are needed. Check the axis and the labels.")
    if not answered.height:
        raise SeamarkError("labels of 0 judgments cannot be fitted: none was answered. Check the axis and the labels.")
    labels = (*named, CANNOT_TELL) if cannot_tell == "answer" else named
    if len(set(labels)) < len(labels):
        raise InvalidSetting("cannot_tell", cannot_tell, f"There is a class named {CANNOT_TELL!r} already; use missing.")
    unsure = frame.filter(pl.col("outcome") == "cannot_tell")
    skipped = frame.filter(pl.col("outcome") == "skipped")
    left = tuple(np.bincount(part["rater"].to_numpy(), minlength=R + 1) for part in (unsure, skipped))
    code = answered["label"].replace_strict(list(named), list(range(len(named))), return_dtype=pl.Int64).to_numpy()
    columns = [answered["unit"].to_numpy(), answered["rater"].to_numpy(), code, answered["weight"].to_numpy()]
    if cannot_tell == "answer":
        extra = [unsure["unit"].to_numpy(), unsure["rater"].to_numpy(), np.full(unsure.height, len(named)), unsure["weight"].to_numpy()]
        columns = [np.concatenate([a, b]) for a, b in zip(columns, extra, strict=True)]
    units = tuple(feedback.responses["id"].to_list())
    unit, rater, label, weight = columns
    raters = tuple(feedback.raters["id"].to_list())
    tally = _Tally(
        units, tuple(feedback.responses["name"].to_list()), raters, unit, rater, label, weight, np.full(len(units), -1), (left[0], left[1])
    )
    return named, labels, tally


def _with_gold(read: _Read, gold: Mapping[str, str]) -> _Read:
    """The same with what is known of units, by id or name."""
    classes, labels, tally = read
    place = {name: row for row, name in enumerate(tally.names) if name is not None} | {name: row for row, name in enumerate(tally.units)}
    known = tally.gold.copy()
    for name, value in gold.items():
        if name not in place:
            raise InvalidSetting("gold", name, "No response has this id or name.")
        known[place[name]] = classes.index(value)
    return classes, labels, replace(tally, gold=known)


def _merge(one: _Read, other: _Read) -> _Read:
    """Both tallies as one, codes by id; where both know a unit's class the second holds, of its names the first."""
    classes = one[0] if set(other[0]) <= set(one[0]) else tuple(sorted({*one[0], *other[0]}))
    labels = (*classes, CANNOT_TELL) if len(one[1]) > len(one[0]) else classes
    units = tuple(dict.fromkeys((*one[2].units, *other[2].units)))
    raters = tuple(dict.fromkeys((*one[2].raters, *other[2].raters)))
    unit_of, rater_of = ({name: row for row, name in enumerate(names)} for names in (units, raters))
    gold, parts = np.full(len(units), -1), []
    left = np.zeros((2, len(raters) + 1), dtype=np.int64)
    for _, held, tally in (one, other):
        unit = np.array([unit_of[name] for name in tally.units], dtype=np.int64)
        rater = np.array([*(rater_of[name] for name in tally.raters), len(raters)], dtype=np.int64)
        label = np.array([labels.index(name) for name in held], dtype=np.int64)
        told = tally.gold >= 0
        gold[unit[told]] = label[tally.gold[told]]
        left[:, rater] += np.array(tally.unanswered)
        parts.append((unit[tally.unit], rater[tally.rater], label[tally.label], tally.weight))
    unit, rater, label, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    named = dict(zip((*other[2].units, *one[2].units), (*other[2].names, *one[2].names), strict=True))
    names = tuple(named[name] for name in units)
    return classes, labels, _Tally(units, names, raters, unit, rater, label, weight, gold, (left[0], left[1]))


# ---------------------------------------------------------------------------------------------- fitting


@dataclass(frozen=True)
class _Point:
    """Where the search stands; everything else follows from it."""

    counts: Array
    """(R + 1, C, L)"""
    shares: Array


class _Steps:
    """One step of the search: from a point to class probabilities to the next point, and the bound there."""

    def __init__(self, tally: _Tally, C: int, L: int, gold_in_shares: bool) -> None:
        R, n = len(tally.raters), len(tally.units)
        shape = (n, (R + 1) * L)
        given = csr_array((tally.weight, (tally.unit, tally.rater * L + tally.label)), shape=shape)  # equal entries are summed
        self.rows = np.flatnonzero((np.diff(given.indptr) > 0) | (tally.gold >= 0))
        self.given = given[self.rows]
        self.back = self.given.T.tocsr()
        self.shape = (R + 1, C, L)
        self.alpha = np.zeros((C, L))
        """Pooling; zeros: none."""
        gold = tally.gold[self.rows]
        self.told = np.flatnonzero(gold >= 0)
        self.gold = np.eye(C)[gold[self.told]]
        self.counted = np.ones(len(self.rows))
        if not gold_in_shares:
            self.counted[self.told] = 0.0
        if not self.counted.any():
            raise InvalidSetting("gold_in_shares", gold_in_shares, "All units are gold, so the shares must come from them.")

    def start(self) -> _Point:
        """Each unit's own share of answers; with gold, what raters made of that, the crowd's habit counting five labels."""
        R1, C, L = self.shape
        q = self.given @ np.tile(np.eye(L)[:, :C], (R1, 1))
        total = q.sum(1, keepdims=True)
        q = np.where(total > 0, q / np.maximum(total, 1e-300), 1 / C)
        q[self.told] = self.gold
        if len(self.told):
            on_gold = np.zeros_like(q)
            on_gold[self.told] = self.gold
            learnt = self.counts(on_gold)
            habit = _normalised(learnt.sum(0) + _HABIT * _normalised(self.counts(q).sum(0) + 0.5))
            q = self.classes(np.full(C, 1 / C), np.log(_normalised(learnt + 5 * habit)))
        return self.point(q)

    def counts(self, q: Array) -> Array:
        """(R + 1, C, L) expected labels for q (rows, C)."""
        R1, C, L = self.shape
        return np.ascontiguousarray((self.back @ q).reshape(R1, L, C).transpose(0, 2, 1))

    def point(self, q: Array) -> _Point:
        return _Point(self.counts(q), self.counted @ q / self.counted.sum())

    def classes(self, shares: Array, log_pi: Array) -> Array:
        """(rows, C) class probabilities."""
        R1, C, L = self.shape
        joint = self.given @ np.ascontiguousarray(log_pi.transpose(0, 2, 1)).reshape(R1 * L, C)
        joint += np.log(np.maximum(shares, 1e-300))
        # class by class: a reduction along a short last axis takes five times as long
        top = joint[:, 0].copy()
        for c in range(1, C):
            np.maximum(top, joint[:, c], out=top)
        joint -= top[:, None]
        np.exp(joint, out=joint)
        joint /= (joint @ np.ones(C))[:, None]
        joint[self.told] = self.gold
        return joint

    def expect(self, point: _Point) -> Array:
        """(rows, C) class probabilities at a point."""
        if not self.alpha.any():
            return self.classes(point.shares, np.log(_normalised(point.counts + _EMPTY)))
        total = point.counts + self.alpha
        return self.classes(point.shares, digamma(total) - digamma(total.sum(2, keepdims=True)))

    def bound(self, q: Array, point: _Point) -> float:
        """At class probabilities and the point they lead to, in nats."""
        out = float(self.counted @ q @ np.log(np.maximum(point.shares, 1e-300))) - float(np.sum(q * np.log(np.maximum(q, 1e-300))))
        counts, alpha = point.counts, self.alpha
        if not alpha.any():
            return out + float(np.sum(counts * np.log(_normalised(counts + _EMPTY))))
        kappa, size = alpha.sum(1), counts.sum(2)
        return out + float((gammaln(counts + alpha) - gammaln(alpha)).sum() - (gammaln(size + kappa) - gammaln(kappa)).sum())

    def drawn(self, q: Array, rng: np.random.Generator) -> Array:
        """(rows, C) classes drawn from q, as ones and zeros."""
        C = q.shape[1]
        level, left, chosen = rng.random(len(q)), np.zeros(len(q)), np.zeros(len(q), dtype=np.int64)
        for c in range(C - 1):
            left += q[:, c]
            chosen += left < level
        return np.eye(C)[chosen]


def _normalised(counts: Array) -> Array:
    return counts / counts.sum(-1, keepdims=True)


def _dirichlet(alpha: Array, rng: np.random.Generator) -> Array:
    return _normalised(np.maximum(rng.standard_gamma(alpha), 1e-300))


def _pooling(tally: _Tally, C: int, L: int, gold_in_shares: bool, seed: int) -> Array:
    """(C, L) alpha: classes and matrices are drawn in turn, and after each draw alpha moves towards its maximum given the counts.

    Stochastic EM (Celeux & Diebolt 1985) with Minka's fixed point; the logarithm is averaged over the second half. A sample of the units is as good as all of
    them, being data of the same model. Everything is put in the order of ids first, so that the same labels give the same alpha.
    """
    rng = np.random.default_rng(seed)
    per_unit = np.bincount(tally.unit, minlength=len(tally.units))
    order = rng.permutation(np.array(sorted(np.flatnonzero(per_unit), key=tally.units.__getitem__)))
    chosen = order[: int(np.searchsorted(np.cumsum(per_unit[order]), _SAMPLE)) + 1]
    place = np.full(len(tally.units), -1)
    place[chosen] = np.arange(len(chosen))
    use = place[tally.unit] >= 0
    seen = sorted(set(tally.rater[use].tolist()), key=(*tally.raters, "\x7f").__getitem__)
    R = len(tally.raters)
    known = [r for r in seen if r < R]
    code = np.full(R + 1, len(known))
    code[known] = np.arange(len(known))
    part = _Tally(
        tuple(tally.units[i] for i in chosen), (), tuple(tally.raters[r] for r in known), place[tally.unit[use]], code[tally.rater[use]],
        tally.label[use], tally.weight[use], tally.gold[chosen], tally.unanswered,
    )  # fmt: skip
    # units whose class is known teach it, too, when they are all there are
    steps = _Steps(part, C, L, gold_in_shares or bool((part.gold >= 0).all()))
    told = slice(0, len(known)) if known else slice(0, 1)
    point = steps.start()
    shares, crowd = point.shares, point.counts.sum(0) + 0.5
    alpha = 5 * _normalised(crowd)
    pi = _normalised(point.counts + alpha)
    kept = np.zeros((C, L))
    for sweep in range(_SWEEPS):
        z = steps.drawn(steps.classes(shares, np.log(pi)), rng)
        counts = steps.counts(z)
        r, c, label = np.nonzero(counts[told])  # the rest adds nothing
        n, size = counts[told][r, c, label], counts[told].sum(2)
        for _ in range(3 if sweep < _SWEEPS // 2 else 1):
            kappa = alpha.sum(1)
            grown = digamma(n + alpha[c, label]) - digamma(alpha)[c, label]
            gained = alpha * np.bincount(c * L + label, grown, C * L).reshape(C, L) + _SHAPE
            alpha = gained / ((digamma(size + kappa) - digamma(kappa)).sum(0) + _RATE)[:, None]
        pi, shares = _dirichlet(counts + alpha, rng), _dirichlet(steps.counted @ z + 1, rng)
        if sweep >= _SWEEPS // 2:
            kept += np.log(alpha) / (_SWEEPS - _SWEEPS // 2)
    return np.exp(kept)


def _stretched(a: _Point, b: _Point, c: _Point) -> _Point | None:
    """The point that squared extrapolation from three in a row leads to (Varadhan & Roland 2008, scheme S3)."""
    r, v = b.counts - a.counts, c.counts - 2 * b.counts + a.counts
    bend = float(np.sum(v * v))
    step = float(np.sqrt(np.sum(r * r) / bend)) if bend > 0 else 0.0
    if step <= 1.0:
        return None

    def along(x: Array, y: Array, z: Array) -> Array:
        return x + 2 * step * (y - x) + step**2 * (z - 2 * y + x)

    return _Point(np.maximum(along(a.counts, b.counts, c.counts), 0.0), _normalised(np.maximum(along(a.shares, b.shares, c.shares), 1e-12)))


def _fit(read: _Read, settings: _Settings, start: LabelFit | None) -> LabelFit:
    classes, labels, tally = read
    tolerance, limit = settings.tolerance, settings.max_iterations
    steps = _Steps(tally, len(classes), len(labels), settings.gold_in_shares)
    if settings.pooling != 0:
        steps.alpha = _pooling(tally, len(classes), len(labels), settings.gold_in_shares, settings.seed)
        if settings.pooling is not None:
            steps.alpha = settings.pooling * _normalised(steps.alpha)
    point = steps.start() if start is None else _continued(start, steps.start(), tally, classes)
    history: list[float] = []
    before = [point]
    q = steps.expect(point)
    moved = np.inf
    while len(history) < limit:
        point = steps.point(q)
        history.append(steps.bound(q, point))
        fresh = steps.expect(point)
        moved = float(np.abs(fresh - q).max())
        q = fresh
        if moved < tolerance:
            break
        before = [*before[-2:], point]
        if len(before) == 3 and len(history) > 3:
            if (guess := _stretched(*before)) is not None:
                tried = steps.expect(guess)
                there = steps.point(tried)
                reached = steps.bound(tried, there)
                if reached > history[-1]:
                    point, q = there, steps.expect(there)
                    history.append(reached)
            before = [point]
    else:
        raise NotConverged(limit, moved, tolerance)
    posterior = np.full((len(tally.units), len(classes)), np.nan)
    posterior[steps.rows] = q
    confusion = _normalised(point.counts + (steps.alpha if steps.alpha.any() else _EMPTY))
    table, drawn = _accuracy(tally, steps, q, point, confusion), None
    if settings.draws:
        drawn, ends, posterior[steps.rows] = _sampled(steps, point, settings.draws, np.random.default_rng(settings.seed))
        heard = table["n"].to_numpy() > 0
        table = table.with_columns(
            *(pl.Series(name, np.where(heard, end, np.nan)).fill_nan(None) for name, end in zip(("low", "high"), ends, strict=True))
        )
    return LabelFit(
        classes, labels, tally.units, tally.raters, point.shares, posterior, point.counts, steps.alpha, confusion, table, tuple(history),
        len(history), settings, tally, _information(steps, q, point.counts, confusion), drawn,
    )  # fmt: skip


def _continued(start: LabelFit, fresh: _Point, tally: _Tally, classes: tuple[str, ...]) -> _Point:
    """A fit's point in the codes of more labels; raters not in it start afresh."""
    if classes != start.classes:
        return fresh  # a class that nobody could give before: what the others mean may change with it
    of = {name: row for row, name in enumerate(tally.raters)}
    rows = np.array([*(of[name] for name in start.raters), len(tally.raters)], dtype=np.int64)
    counts = fresh.counts.copy()
    counts[rows] = np.where(start.counts.sum((1, 2), keepdims=True) > 0, start.counts, counts[rows])
    return _Point(counts, start.shares)


# ---------------------------------------------------------------------------------------------- how sure


def _beta(p: Array, n: Array) -> tuple[Array, Array]:
    """95% intervals of Beta distributions with mean p and n labels."""
    a, b = np.maximum(p * n, 1e-9), np.maximum((1 - p) * n, 1e-9)
    return betaincinv(a, b, 0.025), betaincinv(a, b, 0.975)


def _information(steps: _Steps, q: Array, counts: Array, confusion: Array) -> Array:
    """(R + 1, C, L) labels on a cell's row that carry its information.

    With the classes known, the log odds of cell (c, l) have information n pi (1 - pi), n the labels on units of class c; the variance of its score
    over the classes, sum_i q_ic (1 - q_ic) (y_il - pi)^2, is missing.
    """
    size = counts.sum(2, keepdims=True)
    doubt = steps.counts(q * (1 - q))
    missing = (1 - 2 * confusion) * doubt + confusion**2 * doubt.sum(2, keepdims=True)
    left = size - missing / np.maximum(confusion * (1 - confusion), 1e-12)
    # without a prior, one label more than was given: what was never answered is not impossible
    return np.maximum(left, _LEAST * size) + (steps.alpha.sum(1)[None, :, None] if steps.alpha.any() else 1.0)


def _accuracy(tally: _Tally, steps: _Steps, q: Array, point: _Point, confusion: Array) -> pl.DataFrame:
    """Expected accuracy of each rater; a Beta interval on their labels less the information that is missing, and the pooling.

    A label on unit i is right with probability rho = q_i[label]. Of the information on p, n / (p (1 - p)), the share
    sum rho (1 - rho) / (n p (1 - p)) is missing.
    """
    C = steps.shape[1]
    p = np.einsum("c,rcc->r", point.shares, confusion[:, :, :C])
    n = point.counts.sum((1, 2))
    doubt = np.einsum("rcc->r", steps.counts(q * (1 - q))[:, :, :C])
    left = np.maximum(n - doubt / np.maximum(p * (1 - p), 1e-12), _LEAST * n)
    low, high = _beta(p, left + (float(point.shares @ steps.alpha.sum(1)) if steps.alpha.any() else 1.0))
    heard = (n > 0)[:-1]
    columns = {
        name: pl.Series(np.where(heard, values[:-1], np.nan)).fill_nan(None)
        for name, values in (("accuracy", p), ("low", low), ("high", high))
    }
    unsure, skipped = tally.unanswered
    return pl.DataFrame(
        {"rater": pl.Series(tally.raters, dtype=pl.String), "n": n[:-1]} | columns | {"cannot_tell": unsure[:-1], "skipped": skipped[:-1]}
    )


def _sampled(steps: _Steps, point: _Point, draws: int, rng: np.random.Generator) -> tuple[tuple[Array, Array], Array, Array]:
    """Ends of 95% intervals of every cell (R + 1, C, L) and of every known rater's accuracy (2, R), and class probabilities (rows, C).

    By a Gibbs sampler: classes, matrices and shares in turn, alpha held at its estimate, or at 1 (uniform) without a prior.
    """
    R1, C, L = steps.shape
    alpha = steps.alpha if steps.alpha.any() else np.ones((C, L))
    shares, pi = point.shares, _normalised(point.counts + alpha)
    kept, right = np.zeros((draws, R1, C, L), dtype=np.float32), np.zeros((draws, R1))
    total = np.zeros((len(steps.rows), C))
    for sweep in range(-max(draws // 5, 1), draws):
        q = steps.classes(shares, np.log(pi))
        z = steps.drawn(q, rng)
        pi, shares = _dirichlet(steps.counts(z) + alpha, rng), _dirichlet(steps.counted @ z + 1, rng)
        if sweep >= 0:
            total += q
            kept[sweep], right[sweep] = pi, np.einsum("c,rcc->r", shares, pi[:, :, :C])
    low, high = np.quantile(kept, [0.025, 0.975], axis=0).astype(np.float64)
    ends = np.quantile(right[:, :-1], [0.025, 0.975], axis=0)
    return (low, high), ends, total / draws
