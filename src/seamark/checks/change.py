"""Do values change? Whether, when and how fast raters' common preferences move; how a fit ages; what it costs to forget.

Conventions
-----------
A *comparison* j has an answer y_j (1: left won), a probability p_j of it under values that stand still, w_j = p_j (1 - p_j), and a
direction x_j that is +1 at the left response and -1 at the right. With g_j a pattern in time and S_r = sum of (y_j - p_j) g_j x_j over
the comparisons of rater r,

    U = sum over raters r != s of S_r . S_s,        D = sum over r != s of <V_r, V_s>,   V_r = sum over r of w_j g_j^2 x_j x_j'

U is what different raters move in common: the locally most powerful statistic for values that move by independent normal amounts, less
what each rater shares with itself. U / D estimates the variance of the amounts, in logits squared, up to a factor that is taken out.
Before, g is made to add up to nothing within each rater and each response: raters that differ, and come and go, and questions that do,
then give U nothing, however much they differ. The p_j are fitted to the same answers, which makes U too large by a known amount, taken off.
The distribution of U where nothing moves is that under random signs of the raters' S_r (wild bootstrap, Liu 1988), the same signs for all
patterns and parts, so that the largest of many standardised U has a distribution of its own (Westfall & Young 1993). More than 200 raters
are put together at random into as many; below 12 raters each comparison has a sign, and what is found holds for these raters. Days are
counted from the first judgment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array, hstack
from scipy.sparse.linalg import splu
from scipy.special import expit
from scipy.stats import norm

from seamark.checks.comparisons import Codes, Comparisons, code_text, codes_of, combine, compact, compare, counted
from seamark.checks.findings import Finding, Verdict
from seamark.checks.held_out import decided_cells
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, clustered_mean
from seamark.models.prediction import predict
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]

_DAY = timedelta(days=1)
_UNITS = 200
_FEW = 12
"""With fewer raters their signs have too few patterns."""
_FLIPS = 999
_CUTS = 17
"""Times at which values may have jumped: twentieths of the comparisons from 10% to 90%, as few make unreliable ends."""
_LEAST = 100
"""Comparisons below which nothing is looked for."""
_MOST = 10_000
"""Comparisons that are looked at; of more, a random part."""
_PRIOR = 0.25
"""Prior precision of the values that stand still: sd 2 logits."""
_ALARM, _SURE = 0.05, 0.01
"""p from which a change is a notice, and a warning."""
_LARGE = 1.0
"""Logits from which on the statistic, which is one of small changes, no longer tells how large."""
_OFTEN = 20
"""Comparisons of a response, on average, below which neither the size nor the day of a change is given."""
_GROUPS = 8
"""Up to so many groups of raters have values of their own that stand still."""


# ---------------------------------------------------------------------------------------------- answers, and what moves in common


@dataclass(frozen=True)
class Answers:
    """Comparisons with a winner and a time."""

    left: Codes
    right: Codes
    excess: Array
    """(n,) answer less its probability."""
    weight: Array
    """(n,) w."""
    rater: Codes
    day: Array
    part: Codes
    """(n,) code of the group of prompts or raters; -1 not known."""
    n_responses: int
    still: _Still | None = None
    """Where `excess` is from values fitted to these very answers, these values."""

    def __len__(self) -> int:
        return len(self.left)

    def where(self, rows: NDArray[Any]) -> Answers:
        names = ("left", "right", "excess", "weight", "rater", "day", "part")
        still = None if self.still is None else replace(self.still, x=self.still.x[rows], p=self.still.p[rows])
        return replace(self, still=still, **{name: getattr(self, name)[rows] for name in names})

    @property
    def shown(self) -> csr_array:
        """(n, n_responses) x."""
        n, rows = len(self), np.arange(len(self))
        signs = np.repeat([1.0, -1.0], n)
        return csr_array((signs, (np.tile(rows, 2), np.concatenate([self.left, self.right]))), shape=(n, self.n_responses))


@dataclass(frozen=True)
class _Still:
    """Values that stand still, of each group of raters where groups are known: the mode of Bradley & Terry's likelihood with normal priors
    on the values and on what groups differ by."""

    x: csr_array
    """(n, P) what each comparison contrasts."""
    p: Array
    """(n,) probability of the answer 1."""
    solve: Callable[[Array], Array]
    """By the curvature at the mode."""


def _stand_still(left: Codes, right: Codes, won: Array, n_responses: int, group: Codes | None = None) -> _Still:
    n, rows = len(left), np.tile(np.arange(len(left)), 2)
    signs, shown = np.repeat([1.0, -1.0], n), np.concatenate([left, right])
    x = csr_array((signs, (rows, shown)), shape=(n, n_responses))
    if group is not None:
        own, n_own = compact(shown + n_responses * np.tile(group, 2))
        x = csr_array(hstack([x, csr_array((signs, (rows, own)), shape=(n, n_own))]))

    def loss(u: Array) -> tuple[float, Array]:
        gap = x @ u
        return float(np.logaddexp(0, gap).sum() - won @ gap + _PRIOR / 2 * u @ u), x.T @ (expit(gap) - won) + _PRIOR * u

    best = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-9}).x  # type: ignore[index]  # scipy types the shape as optional
    p = expit(x @ best)
    curvature = x.T @ diags_array(p * (1 - p)) @ x + diags_array(np.full(x.shape[1], _PRIOR))  # type: ignore[index]  # scipy types the shape as optional
    return _Still(x, p, splu(curvature.tocsc()).solve)


def _answers(
    feedback: Feedback, part: Codes | None, comparisons: Comparisons | None, seed: int
) -> tuple[Answers | None, datetime | None, str]:
    """The comparisons that can show a change, the first time, or why there are none."""
    if not feedback.has("time"):
        return None, None, "No judgment has a time."
    found = (comparisons if comparisons is not None else compare(feedback, seed=seed)).most_direct().decided()
    time = feedback.judgments["time"]
    timed = time.is_not_null().to_numpy()[found.row]
    found = found.where(timed & (found.left != found.right))
    if len(found) > _MOST:
        found = found.where(np.isin(np.arange(len(found)), np.random.default_rng(seed).choice(len(found), _MOST, replace=False)))
    if len(found) < _LEAST:
        return None, None, f"{counted(len(found), 'comparison')} with a winner and a time; {_LEAST} are needed."
    when = time[found.row]
    first = when.min()
    assert isinstance(first, datetime)
    day = (when - first).dt.total_microseconds().to_numpy() / 86400e6
    if day.max() <= 0:
        return None, None, "All judgments have the same time."
    both, n = compact(np.concatenate([found.left, found.right]))
    left, right = both[: len(found)], both[len(found) :]
    won = (found.sign > 0).astype(np.float64)
    group, names = code_text(feedback.judgments["group"][found.row])
    still = _stand_still(left, right, won, n, group + 1 if 2 <= len(names) <= _GROUPS else None)
    p = still.p
    code = np.full(len(found), -1) if part is None else part[found.row]
    return Answers(left, right, won - p, p * (1 - p), found.rater, day, code, n, still), first, ""


@dataclass(frozen=True)
class _Common:
    """What raters move in common under one pattern."""

    K: Array
    """(R, R) S_r . S_s, 0 on the diagonal."""
    V: Array
    """(R, R) <V_r, V_s>, 0 on the diagonal."""
    bias: Array
    """(R,) what each row of K adds up to where nothing moves, since the values that stand still were fitted to the same answers."""

    def standardised(self, signs: Array) -> tuple[float, Array]:
        """U and U under random signs (B,), in standard deviations of the latter."""
        drawn = ((signs @ self.K) * signs).sum(1)
        sd = float(np.sqrt(2 * (self.K**2).sum()))
        return (float((self.K.sum() - self.bias.sum()) / sd), drawn / sd) if sd > 0 else (0.0, np.zeros(len(signs)))

    def variance(self) -> tuple[float, Array]:
        """Variance of the amounts, and the same without each rater in turn (R,)."""
        rows = self.K.sum(1) - self.bias
        u, d = rows.sum(), self.V.sum()
        least = 1e-12 + 1e-9 * abs(d)
        return float(_unbent(u / max(d, least))), _unbent((u - 2 * rows) / np.maximum(d - 2 * self.V.sum(1), least))


def _unbent(ratio: Any) -> Any:
    """The variance v of the amounts from U / D: of a gap that moves by a normal amount of variance 2 v, the mean answer moves by the
    factor 1 / sqrt(1 + 0.346 * 2 v) less than in a small step (MacKay 1992), and U / D = v / (1 + 0.69 v)."""
    return ratio / np.maximum(1 - 0.69 * ratio, 0.1)


def _common(answers: Answers, g: Array, unit: Codes, n_units: int, pulls: Array | None = None) -> _Common:
    rows, two = np.tile(unit, 2), np.concatenate([answers.left, answers.right])
    score = np.concatenate([answers.excess * g, -answers.excess * g])
    S = csr_array((score, (rows, two)), shape=(n_units, answers.n_responses))
    v = answers.weight * g**2
    pair, n_pairs = compact(combine(np.minimum(answers.left, answers.right), np.maximum(answers.left, answers.right)))
    diagonal = csr_array((np.tile(v, 2), (rows, two)), shape=(n_units, answers.n_responses))
    across = csr_array((np.sqrt(2) * v, (unit, pair)), shape=(n_units, n_pairs))
    K, V = (S @ S.T).toarray(), (diagonal @ diagonal.T + across @ across.T).toarray()
    np.fill_diagonal(K, 0.0)
    np.fill_diagonal(V, 0.0)
    return _Common(K, V, np.zeros(n_units) if pulls is None else _bias(answers, g, unit, S, pulls))


def _pulls(answers: Answers, unit: Codes, n_units: int) -> Array:
    """(n, R) by how much each rater's answers pull the gap at each comparison, in the fit of the values that stand still: X M X_r' e_r."""
    assert answers.still is not None
    x, own = answers.still.x, csr_array((answers.excess, (np.arange(len(unit)), unit)), shape=(len(unit), n_units))
    return x @ answers.still.solve((x.T @ own).toarray())


def _bias(answers: Answers, g: Array, unit: Codes, S: csr_array, pulls: Array) -> Array:
    """(R,) expectation of the rows of K where nothing moves.

    The fit follows everybody's answers, so that S_r less what the fit took of it contains, with the other sign, some of each S_s. With T_r
    the sum over r of w_j g_j x_j X_j', that is, over all r != s,

        - 2 sum_r S_r' (T - T_r) M X_r' e_r  +  sum_q (|T M X_q' e_q|^2 - sum_r |T_r M X_q' e_q|^2)

    Source: cluster-robust variances of residuals, as Bell & McCaffrey 2002, for the terms between clusters.
    """
    x, n_units, rows = answers.shown, S.shape[0], np.arange(len(unit))  # type: ignore[index]  # scipy types the shape as optional
    weighed = (answers.weight * g)[:, None] * pulls
    seen = x @ S.T.toarray()
    first = (seen * weighed).sum(0) - np.bincount(unit, seen[rows, unit] * weighed[rows, unit], n_units)
    key, n_keys = compact(combine(np.tile(unit, 2), np.concatenate([answers.left, answers.right])))
    within = csr_array((np.repeat([1.0, -1.0], len(unit)), (key, np.tile(rows, 2))), shape=(n_keys, len(unit)))
    total = -2 * first.sum() + ((x.T @ weighed) ** 2).sum() - ((within @ weighed) ** 2).sum()
    share = np.bincount(unit, answers.weight * g**2, n_units)
    return total * share / max(share.sum(), 1e-300)


def _within(patterns: Array, answers: Answers) -> Array:
    """(n, k) patterns less what raters and responses have on average: alternating projections, the raters' last."""
    rater, n_raters = compact(answers.rater)
    rows = np.arange(len(answers))
    by_rater = csr_array((np.ones(len(rows)), (rater, rows)), shape=(n_raters, len(rows)))
    by_response = abs(answers.shown).T.tocsr()
    of_rater = diags_array(1 / np.maximum(by_rater.sum(1), 1)) @ by_rater
    of_response = diags_array(1 / np.maximum(by_response.sum(1), 1)) @ by_response
    g = patterns - patterns.mean(0)
    for _ in range(15):
        g = g - (by_response.T @ (of_response @ g)) / 2  # two responses share what is taken off
        g = g - by_rater.T @ (of_rater @ g)
    return g


def _units(answers: Answers, rng: np.random.Generator) -> tuple[Codes, int, str]:
    """What has a sign of its own, and in words."""
    known = answers.rater >= 0
    n_raters = len(np.unique(answers.rater[known]))
    if n_raters >= _FEW and known.mean() > 0.5:
        code, n = compact(answers.rater)
        words = f"{n_raters:,} raters, each against itself at other times"
    else:
        code, n = np.arange(len(answers)), len(answers)
        words = f"comparisons taken as independent given who answered (only {counted(n_raters, 'rater')})"
        if n_raters == 0:
            words = "comparisons taken as independent: without rater ids a change of the raters cannot be told from one of values"
    if n > _UNITS:
        code, n = rng.permutation(np.arange(n) % _UNITS)[code], _UNITS
    return code.astype(np.int64), n, words


# ---------------------------------------------------------------------------------------------- whether and when


@dataclass(frozen=True)
class Change:
    """Whether values moved, in one part of the judgments."""

    name: str
    """Of the part; empty for all."""
    n: int
    p: float
    """Of no change, for the largest of all patterns and parts."""
    gradual: bool
    """Whether a straight line says more than the best jump."""
    sd: float
    """How far values moved over the whole time (gradual) or at the jump: sd over responses, logits."""
    low: float
    high: float
    when: datetime | None
    """When values jumped, if they did so once; None where nothing is found (p above 0.05)."""
    earliest: datetime | None
    latest: datetime | None
    """95% interval of `when`, out to the next times looked at."""


def find_change(
    feedback: Feedback, *, by: str | None = None, comparisons: Comparisons | None = None, seed: int = 0, flips: int = _FLIPS
) -> list[Change]:
    """Whether raters' common preferences moved, over all judgments and in each part; empty where it cannot be told.

    Parameters
    ----------
    by
        Parts, with a level of error over all of them: what `Feedback.units` takes (group, axis, prompt_cluster, a text field).

    Raises
    ------
    InvalidSetting
        If `by` is not known, or the judgments cannot tell: fewer than 100 comparisons with a winner and a time.
    """
    part, names = _parts(feedback, by)
    answers, first, why = _answers(feedback, part, comparisons, seed)
    if answers is None or first is None:
        raise InvalidSetting("feedback", repr(feedback), why)
    return _changes(answers, first, names, flips, seed)


def _parts(feedback: Feedback, by: str | None) -> tuple[Codes | None, list[str]]:
    """A code per judgment, and what the parts are called."""
    if by is None:
        return None, []
    code = feedback.units(by)
    frame = pl.DataFrame({"code": code, "row": np.arange(len(code))}).group_by("code").agg(pl.col("row").first()).sort("code")
    rows = frame["row"].to_numpy()
    if by in feedback.judgments.columns and feedback.judgments[by].dtype == pl.String:
        said = feedback.judgments[by].gather(rows).fill_null("not known").to_list()
    elif by in ("prompt", "rater"):
        ids = [*(feedback.prompts if by == "prompt" else feedback.raters)["id"].to_list(), "not known"]
        said = [str(ids[c]) for c in codes_of(feedback.judgments[by].gather(rows))]
    else:
        said = [f"{by} {c}" for c in frame["code"].to_list()]
    return code.astype(np.int64), [str(name) for name in said]


def _changes(answers: Answers, first: datetime, names: Sequence[str], flips: int, seed: int) -> list[Change]:
    rng = np.random.default_rng(seed)
    cuts = np.unique(np.quantile(answers.day, np.linspace(0.1, 0.9, _CUTS)))
    cuts = cuts[(cuts >= answers.day.min()) & (cuts < answers.day.max())]
    span = float(answers.day.max() - answers.day.min())
    patterns = np.hstack([(answers.day / span)[:, None], (answers.day[:, None] > cuts).astype(np.float64)])
    unit, n_units, _ = _units(answers, rng)
    signs = rng.choice([-1.0, 1.0], (flips, n_units))
    pulls = _pulls(answers, unit, n_units)
    looked: list[tuple[str, Answers, Codes, Array, list[_Common], Array]] = []
    largest = np.full(flips, -np.inf)
    for code, name in [(-2, ""), *enumerate(names)]:
        rows = np.flatnonzero(answers.part == code) if code >= 0 else np.arange(len(answers))
        if len(rows) < _LEAST:
            continue
        own = answers.where(rows)
        # values of a part stand still at a level of their own, which g leaves no room for
        g = _within(patterns[rows], own)
        common = [_common(own, g[:, k], unit[rows], n_units, pulls[rows]) for k in range(g.shape[1])]
        found, drawn = zip(*(c.standardised(signs) for c in common), strict=True)
        largest = np.maximum(largest, np.max(drawn, axis=0))
        looked.append((name, own, unit[rows], g, common, np.array(found)))
    changes = []
    for name, own, who, g, common, found in looked:
        p = float((1 + (largest >= found.max()).sum()) / (1 + flips))
        best = int(found.argmax())
        sd, low, high = _moved(common[best])
        when = earliest = latest = None
        if p <= _ALARM and len(cuts):
            at, low_at, high_at = _jump(own, g[:, 1:], common[1:], who)
            edges = np.concatenate([[answers.day.min()], cuts, [answers.day.max()]])
            when, earliest, latest = (first + d * _DAY for d in (edges[at + 1], edges[low_at], edges[high_at + 2]))
        changes.append(Change(name, len(own), p, best == 0, sd, low, high, when, earliest, latest))
    return changes


def _moved(common: _Common) -> tuple[float, float, float]:
    """sd of the amounts by which values moved, with a 95% interval: the variance's jackknife over raters, cut at 0."""
    variance, without = common.variance()
    half = 1.96 * _jackknife(without[common.V.sum(1) > 0])
    sd, low, high = (float(np.sqrt(max(v, 0.0))) for v in (variance, variance - half, variance + half))
    return sd, low, high


def _jackknife(without: Array) -> float:
    n = len(without)
    return float(np.sqrt((n - 1) / n * ((without - without.mean(0)) ** 2).sum(0))) if n > 1 else float("inf")


def _jump(answers: Answers, g: Array, common: Sequence[_Common], unit: Codes) -> tuple[int, int, int]:
    """The likeliest cut (a column of g), and the first and the last of those that hold the middle 95% of the posterior.

    Values jump once by independent normal amounts whose variance is that of the best cut; the comparisons' information is divided by how
    much more raters' scores vary than comparisons that are independent would, and all cuts are alike beforehand.
    """
    best = int(np.argmax([(found.K.sum() - found.bias.sum()) / np.sqrt((found.K**2).sum() or 1.0) for found in common]))
    x, n = answers.shown, answers.n_responses
    variance = max(common[best].variance()[0], 1e-3)
    own = csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(int(unit.max()) + 1, len(unit)))
    score = own @ (diags_array(answers.excess * g[:, best]) @ x)
    spread = max(1.0, float((np.asarray(score.data) ** 2).sum() / (2 * (answers.weight * g[:, best] ** 2).sum())))
    evidence = np.empty(g.shape[1])
    for c in range(g.shape[1]):
        s = x.T @ (answers.excess * g[:, c]) / spread
        information = (x.T @ diags_array(answers.weight * g[:, c] ** 2 / spread) @ x + diags_array(np.full(n, 1 / variance))).tocsc()
        solved = splu(information)
        log_det = float(np.log(np.abs(solved.U.diagonal())).sum()) + n * np.log(variance)
        evidence[c] = (s @ solved.solve(s) - log_det) / 2
    mass = np.cumsum(np.exp(evidence - evidence.max()))
    low, high = np.searchsorted(mass / mass[-1], [0.025, 0.975])
    return int(evidence.argmax()), int(low), min(int(high), g.shape[1] - 1)


def check_change(
    feedback: Feedback, *, by: str | None = None, comparisons: Comparisons | None = None, seed: int = 0, flips: int = _FLIPS
) -> list[Finding]:
    """Whether raters' common preferences moved over time, in all judgments and in parts of them, and when.

    Source: variance-component score test under random signs of raters (Liu 1988), the largest of all patterns and parts (Westfall & Young
    1993).
    """
    title = "Whether values change over time cannot be told."
    part, names = _parts(feedback, by)
    answers, first, why = _answers(feedback, part, comparisons, seed)
    if answers is None or first is None:
        remedy = None if feedback.has("time") else "Record when each judgment was made."
        return [Finding.not_applicable("change", title, why, remedy=remedy)]
    repeated = np.bincount(np.concatenate([answers.left, answers.right])) > 1
    if not (repeated[answers.left] & repeated[answers.right]).any():
        why = "No two responses that were compared were both compared again, so nothing was asked at two times."
        return [Finding.not_applicable("change", title, why, remedy="Ask some questions again at other times.")]
    *_, words = _units(answers, np.random.default_rng(seed))
    often = 2 * len(answers) / answers.n_responses
    findings = []
    for change in _changes(answers, first, names, flips, seed):
        moved = change.p <= _ALARM
        where = f" in {by} {change.name}" if change.name else ""
        sized = often >= _OFTEN and change.sd <= _LARGE
        size = f"by {change.sd:.2f} [{change.low:.2f}, {change.high:.2f}] logits" if sized else f"by {_LARGE:g} logit or more"
        if not moved:
            said = f"No common change of values over time is seen{where} (p = {change.p:.2g}, {counted(change.n, 'comparison')})."
        else:
            how = "gradually over the whole time"
            if not change.gradual:
                how = f"at about {change.when:%Y-%m-%d} [{change.earliest:%Y-%m-%d}, {change.latest:%Y-%m-%d}]"
            said = f"Values changed{where} {size} {how} (p = {change.p:.2g}, {counted(change.n, 'comparison')})."
            if often < _OFTEN:
                said = (
                    f"Values seem to have changed{where} (p = {change.p:.2g}, {counted(change.n, 'comparison')}); {often:.0f} comparisons of a "
                    "response are too few to say when and by how much."
                )
        findings.append(
            Finding(
                code=f"change/{by}/{change.name}" if change.name else "change",
                title=said, estimate=change.sd if sized else None, low=change.low if sized else None, high=change.high if sized else None,
                n=change.n, unit="logits", verdict="warning" if change.p <= _SURE else "notice" if moved else "ok",
                reason=f"The sd over responses of what raters moved in common, {words}; a mix of raters or questions that changes gives none, a "
                f"change of how careful all are does. p is that of the largest of {_CUTS} jumps and a straight line"
                + (" over all parts." if by else ".") + " The interval leaves out one rater at a time.",
                remedy="Fit values that move (Dynamic), or recent judgments (by_age), and say in the charter until when the reward holds."
                if moved else None,
                source="Liu 1988; Westfall & Young 1993",
                details={
                    "p": change.p, "gradual": change.gradual,
                    **{k: t.isoformat() if often >= _OFTEN and (t := getattr(change, k)) else None for k in ("when", "earliest", "latest")},
                },
            )
        )  # fmt: skip
    return findings


# ---------------------------------------------------------------------------------------------- as feedback arrives


@dataclass(frozen=True)
class Look:
    """One of several looks at feedback that arrives."""

    until: datetime
    n: int
    p: float
    alarm: bool


def watch(feedback: Feedback, *, every: timedelta, looks: int, alpha: float = 0.05, seed: int = 0) -> list[Look]:
    """The test for change again after each `every`, of what had arrived by then, up to the first alarm.

    Each of the planned looks spends alpha / looks (Bonferroni), so that over all of them a false alarm has at most probability alpha,
    however alike the looks are. Looks at fewer than 100 comparisons spend theirs and see nothing.

    Raises
    ------
    InvalidSetting
        If the judgments have no time, or looks or alpha are out of range.
    """
    if looks < 1 or not 0 < alpha < 1:
        raise InvalidSetting("looks, alpha", (looks, alpha), "Plan one look or more, with alpha between 0 and 1.")
    if every <= timedelta(0):
        raise InvalidSetting("every", str(every), "Use a positive timedelta.")
    time = feedback.judgments["time"]
    if time.null_count() == len(time):
        raise InvalidSetting("feedback", repr(feedback), "The judgments have no time; record when each was made.")
    first = time.min()
    assert isinstance(first, datetime)
    flips = max(_FLIPS, int(np.ceil(10 * looks / alpha)) - 1)
    done: list[Look] = []
    for k in range(1, looks + 1):
        until = first + k * every
        part = feedback.filter((time < until).fill_null(value=False).to_numpy())
        answers, start, _ = _answers(part, None, None, seed) if len(part) else (None, None, "")
        p = 1.0 if answers is None or start is None else _changes(answers, start, [], flips, seed)[0].p
        done.append(Look(until, len(part), p, p <= alpha / looks))
        if done[-1].alarm:
            break
    return done


# ---------------------------------------------------------------------------------------------- how a fit ages

Way = Callable[[Feedback], Fit]
"""What makes a fit of the judgments so far."""


@dataclass(frozen=True)
class Backtest:
    """How fits of the past did on what came after them."""

    curve: pl.DataFrame
    """Per way and period of age: way, age (days, middle), n (judgments), accuracy, log_loss (nats), each with _low and _high, over all cuts."""
    summary: pl.DataFrame
    """Per way: way, n, accuracy and log_loss over all ages with their intervals, gain (nats, over the first way on the same judgments)
    with its interval, and restless: the sd of what values move from one cut to the next, logits. The trade-off between being recent and being stable."""
    rate: pl.DataFrame
    """Per way: step (variance by which current values get farther from the fit's, logits^2 per 30 days) and loss (accuracy per 30 days),
    with their intervals by leaving out one rater at a time."""


def backtest(
    feedback: Feedback, ways: Mapping[str, Way], *, cuts: int = 3, horizon: timedelta, every: timedelta = timedelta(days=30)
) -> Backtest:
    """Train on what was judged up to a time, test on what was judged after it, by age, for several times and ways to fit.

    Parameters
    ----------
    ways
        Names of what is compared, and the function from the judgments so far to a fit. There is no usual one: which way is right depends
        on how values move, and on whether the reward is to follow them.
    cuts
        Times at which fits are made, evenly spread from the middle of the time to `horizon` before the end.
    horizon, every
        How far ahead judgments count, and the length of the periods of age.

    Raises
    ------
    InvalidSetting
        If judgments have no times, or none is left to train or to test on.
    """
    time = feedback.judgments["time"]
    if time.null_count() == len(time):
        raise InvalidSetting("feedback", repr(feedback), "The judgments have no time; record when each was made.")
    first, last = time.min(), time.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    if every <= timedelta(0) or horizon < every or last - first < 2 * horizon or cuts < 1 or not ways:
        raise InvalidSetting(
            "horizon, every, cuts", (str(horizon), str(every), cuts),
            f"Use a positive period, a horizon of one or more of them and of at most half of the {last - first}, one cut or more, and a way to fit.",
        )  # fmt: skip
    start = max(first + (last - first) / 2, first + horizon)
    marks = [start + (last - horizon - start) * k / max(cuts - 1, 1) for k in range(cuts)]
    bins = int(horizon // every)
    rows: list[pl.DataFrame] = []
    before: dict[str, tuple[Feedback, Fit]] = {}
    moves: dict[str, list[float]] = {name: [] for name in ways}
    for k, mark in enumerate(marks):
        train = feedback.filter((time <= mark).fill_null(value=False).to_numpy())
        for name, way in ways.items():
            fitted = way(train)
            if name in before:
                moves[name].append(_restless(before[name], fitted))
            before[name] = train, fitted
            for b in range(bins):
                later = feedback.filter(((time > mark + b * every) & (time <= mark + (b + 1) * every)).fill_null(value=False).to_numpy())
                if not len(later):
                    continue
                cells = decided_cells(fitted, later, predict(fitted, later))
                texts, people = np.array(later.responses["id"].to_list()), np.array([*later.raters["id"].to_list(), "?"])
                frame = cells.frame.select("count", "loss", "p", "won", "hit")
                sides = {side: texts[cells[side]] for side in ("first", "second")}
                rows.append(frame.with_columns(pl.lit(name).alias("way"), pl.lit(k).alias("cut"), pl.lit(b).alias("bin"),
                                               pl.Series("rater", people[cells["rater"]]), **{s: pl.Series(v) for s, v in sides.items()}))  # fmt: skip
    tested = pl.concat(rows) if rows else None
    if tested is None or not tested.height:
        raise InvalidSetting("cuts", cuts, "No later pair was decided between responses that a fit can place.")
    curve, summary, rate = [], [], []
    period = every / _DAY
    reference = tested.filter(pl.col("way") == next(iter(ways)))
    for name in ways:
        mine = tested.filter(pl.col("way") == name)
        for b in range(bins):
            part = mine.filter(pl.col("bin") == b)
            if part.height:
                curve.append({"way": name, "age": (b + 0.5) * period} | _figures(part))
        gains: dict[str, float] = {}
        if round(mine["count"].sum()) == round(reference["count"].sum()):  # the same judgments, counted by cells of each way's own
            both = _by_rater(reference).join(_by_rater(mine), on="rater", suffix="_mine")
            gained = (both["loss"] - both["loss_mine"]) / both["count"]
            gains = _ends("gain", _mean(gained.to_numpy(), both))
        summary.append({"way": name} | _figures(mine) | gains | {"restless": float(np.mean(moves[name])) if moves[name] else None})
        rate.append({"way": name} | _rates(mine, bins, period))
    return Backtest(pl.DataFrame(curve), pl.DataFrame(summary), pl.DataFrame(rate))


def _restless(earlier: tuple[Feedback, Fit], now: Fit) -> float:
    """sd over the responses that both know of what their values moved, less what all moved."""
    data, fitted = earlier
    moved = now.utilities(data) - fitted.utilities(data)
    moved = moved[np.isfinite(moved)]
    return float(moved.std()) if len(moved) else 0.0


def _by_rater(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by("rater", maintain_order=True).agg((pl.col("loss") * pl.col("count")).sum(), pl.col("count").sum())


def _mean(values: Array, frame: pl.DataFrame) -> Interval:
    code = frame["rater"].rank("dense").cast(pl.Int64).to_numpy()
    found = clustered_mean(values, {"rater": code}, weight=frame["count"].to_numpy())[0]
    return replace(found, n=round(frame["count"].sum()))


def _ends(name: str, found: Interval) -> dict[str, float]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _figures(frame: pl.DataFrame) -> dict[str, float]:
    hit, loss = (_mean(frame[column].to_numpy(), frame) for column in ("hit", "loss"))
    return {"n": hit.n, **_ends("accuracy", hit), **_ends("log_loss", loss)}


def _rates(frame: pl.DataFrame, bins: int, period: float) -> dict[str, float | None]:
    """Slopes on age, weighted by what each period tells, with jackknife intervals over raters."""
    unit, n_units = compact(frame["rater"].rank("dense").cast(pl.Int64).to_numpy())
    both = pl.concat([frame["first"], frame["second"]]).rank("dense").cast(pl.Int64).to_numpy()
    both, n = compact(both)
    left, right = both[: frame.height], both[frame.height :]
    p, count = frame["p"].to_numpy(), frame["count"].to_numpy()
    # a judgment counts once for every cut before it, and is of one rater throughout; cells count with their root, so that V adds up
    excess, weight = (frame["won"].to_numpy() - p) * count, p * (1 - p) * count
    none = np.zeros(frame.height, dtype=np.int64)
    answers = Answers(left, right, excess, weight, unit, np.zeros(frame.height), none, n)
    per, per_d, hits, counts = [], [], [], []
    cut, when = frame["cut"].to_numpy(), frame["bin"].to_numpy()
    for b in range(bins):
        moved, told = np.zeros(n_units + 1), np.zeros(n_units + 1)
        for c in np.unique(cut):
            rows = np.flatnonzero((when == b) & (cut == c))
            if len(rows):
                found = _common(answers.where(rows), np.ones(len(rows)), unit[rows], n_units)
                moved += np.append(found.K.sum() - 2 * found.K.sum(1), found.K.sum())
                told += np.append(found.V.sum() - 2 * found.V.sum(1), found.V.sum())
        per.append(moved)
        per_d.append(told)
        rows = when == b
        total = np.bincount(unit[rows], count[rows], n_units)
        hit = np.bincount(unit[rows], count[rows] * frame["hit"].to_numpy()[rows], n_units)
        hits.append(np.append(hit.sum() - hit, hit.sum()))
        counts.append(np.append(total.sum() - total, total.sum()))
    months = (np.arange(bins) + 0.5) * period / 30
    out: dict[str, float | None] = {}
    for name, value, weight in (("step", np.array(per), np.array(per_d)), ("loss", -np.array(hits), np.array(counts))):
        kept = (weight > 1e-9 * weight.max()).all(1)
        if kept.sum() < 2:
            out |= {name: None, f"{name}_low": None, f"{name}_high": None}
            continue
        w, y, x = weight[kept], value[kept] / weight[kept], months[kept][:, None]
        if name == "step":
            y = _unbent(y)
        x = x - (w * x).sum(0) / w.sum(0)
        slope = (w * x * y).sum(0) / (w * x**2).sum(0)
        half = 1.96 * _jackknife(slope[:-1])
        out |= {name: float(slope[-1]), f"{name}_low": float(slope[-1] - half), f"{name}_high": float(slope[-1] + half)}
    return out


def check_direction(fit: Fit, current: Feedback, *, by: str, level: float = 0.05) -> list[Finding]:
    """Whether a fit still points where current feedback does, in each part: the factor b by which its gaps predict the answers now.

    P(left wins) = sigmoid(b (u_left - u_right)) without a constant, u the values of the fit; b is 1 where nothing changed, 0 where it says
    nothing, below 0 where current feedback wants the opposite. Intervals are clustered by rater and hold for all parts at once (Bonferroni).

    Parameters
    ----------
    by : the parts: what `Feedback.units` takes (group, axis, prompt_cluster, a text field).
    """
    part, names = _parts(current, by)
    assert part is not None
    found = compare(current).most_direct().decided()
    gap = (lambda u: u[found.left] - u[found.right])(fit.utilities(current))
    use = np.isfinite(gap) & (found.left != found.right)
    part, gap, won, rater = part[found.row][use], gap[use], (found.sign > 0)[use].astype(float), found.rater[use]
    findings: list[Finding] = []
    z = float(norm.isf(level / (2 * max(len(names), 1))))
    for code, name in enumerate(names):
        rows = part == code
        title = f"Whether the fit is of today in {by} {name} cannot be told."
        n, x = int(rows.sum()), gap[rows]
        if n < 20 or not (np.abs(x) > 0).any():
            findings.append(
                Finding.not_applicable(f"stale/{by}/{name}", title, f"{counted(n, 'comparison')} that the fit can place; 20 are needed.")
            )
            continue
        y, b = won[rows], 0.0
        for _ in range(30):  # Newton from 0 with a weak prior (sd 3), which keeps separated answers finite
            p = expit(b * x)
            b = float(np.clip(b + (x @ (y - p) - b / 9) / (x**2 @ (p * (1 - p)) + 1 / 9), -20, 20))
        p = expit(b * x)
        own = np.where(rater[rows] >= 0, rater[rows], -1 - np.arange(n))
        unit, k = compact(own)
        score = np.bincount(unit, x * (y - p), k)
        se = float(np.sqrt(k / max(k - 1, 1) * (score**2).sum()) / (x**2 @ (p * (1 - p)) + 1 / 9))
        low, high = b - z * se, b + z * se
        opposite = high < 0
        verdict: Verdict = "warning" if opposite else "notice" if high < 1 else "ok"
        how = (
            "the opposite of what current feedback wants" if opposite else "weaker than it was" if high < 1 else "not seen to have changed"
        )
        findings.append(
            Finding(
                code=f"stale/{by}/{name}",
                title=f"In {by} {name} the fit's direction is {how}: factor {b:.2f} [{low:.2f}, {high:.2f}] ({counted(n, 'comparison')}).",
                estimate=b, low=low, high=high, n=n, unit="factor", verdict=verdict,
                reason=f"1 where nothing changed; interval clustered by rater ({k:,}) at {1 - level:.0%} over {counted(len(names), 'part')} together.",
                remedy="Fit current feedback before this fit is used here." if opposite else None,
                details={"raters": k}, access="white-box",
            )
        )  # fmt: skip
    return findings


# ---------------------------------------------------------------------------------------------- what the model does to its raters


def check_exposure(feedback: Feedback, exposed: ArrayLike, propensity: ArrayLike, *, seed: int = 0, flips: int = _FLIPS) -> Finding:
    """Whether raters who were shown what the model says answer otherwise afterwards: feedback that the model makes itself.

    The pattern g is exposure less its logged propensity, in place of time; see Conventions.

    Parameters
    ----------
    exposed, propensity : (n_judgments,), as in `seamark.models.by_exposure`.
    """
    shown, p = np.asarray(exposed, dtype=np.float64), np.asarray(propensity, dtype=np.float64)
    if shown.shape != (feedback.n_judgments,) or p.shape != shown.shape:
        raise InvalidSetting("exposed, propensity", (shown.shape, p.shape), f"Give one of each for the {feedback.n_judgments:,} judgments.")
    found = compare(feedback, seed=seed).most_direct().decided()
    found = found.where(found.left != found.right)
    if len(found) < _LEAST:
        why = f"{counted(len(found), 'comparison')} with a winner; {_LEAST} are needed."
        return Finding.not_applicable("exposure", "Whether exposure moves answers cannot be told.", why)
    both, n = compact(np.concatenate([found.left, found.right]))
    left, right = both[: len(found)], both[len(found) :]
    won = (found.sign > 0).astype(np.float64)
    still = _stand_still(left, right, won, n)
    q = still.p
    answers = Answers(left, right, won - q, q * (1 - q), found.rater, np.zeros(len(found)), np.zeros(len(found), dtype=np.int64), n, still)
    rng = np.random.default_rng(seed)
    unit, n_units, words = _units(answers, rng)
    common = _common(answers, _within((shown - p)[found.row][:, None], answers)[:, 0], unit, n_units, _pulls(answers, unit, n_units))
    own, drawn = common.standardised(rng.choice([-1.0, 1.0], (flips, n_units)))
    level = float((1 + (drawn >= own).sum()) / (1 + flips))
    sd, low, high = _moved(common)
    moved = level <= _ALARM
    return Finding(
        code="exposure",
        title=f"Answers after exposure to the model differ by {sd:.2f} [{low:.2f}, {high:.2f}] logits (p = {level:.2g}, "
        f"{counted(len(found), 'comparison')}).",
        estimate=sd, low=low, high=high, n=len(found), unit="logits", verdict="warning" if moved else "ok",
        reason=f"The sd over responses of what exposure changed in common, {words}. The interval leaves out one rater at a time.",
        remedy="This feedback is partly the model's own: fit by_exposure(feedback, exposed, propensity)." if moved else None,
        source="Liu 1988", details={"p": level}, access="outside-the-box",
    )  # fmt: skip
