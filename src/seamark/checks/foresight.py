"""What can be foreseen, without any gold, of policies that follow a reward: the alarm, and what else is looked at on the way.

The alarm is a forecast from the posterior of a fit. The other signals (doubt, outliers, drift, residuals) rise with optimisation also where it does
no harm, so they are notices at most (docs/decisions/0027-the-alarm-is-a-forecast.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from seamark.checks.amplification import check_bias_gain
from seamark.checks.comparisons import codes_of, compare, counted
from seamark.checks.confounds import clustered_logistic
from seamark.checks.findings import Finding, Findings
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import figure, interval_of
from seamark.models.result import Fit
from seamark.progress import Progress
from seamark.records import Feedback
from seamark.reward.alarm import drift, forecast, growth, outlyingness, residual_growth
from seamark.reward.policies import Pool, best_of_n_shares, usual_size

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FORESEEN = ("optimisation/alarm", "optimisation/ignorance", "optimisation/outliers", "optimisation/drift", "optimisation/residual")
_FEW = 10
"""Fewer prompts have no interval."""
_DRAWS = 400
"""Utilities that are drawn: a probability of .25 is then told to .04."""
_PAIRS = 200
"""Fewer judged pairs leave less than 20 to each of the bins by reward."""
_PARTS = 20
"""Groups of prompts that are left out in turn."""
_REFERENCE = 5000
"""Training responses that tell where the others lie."""


def check_alarm(
    fit: Fit, feedback: Feedback, *, scores: ArrayLike | None = None, penalty: float = 1.0, seed: int = 0, progress: Progress | None = None
) -> Findings:
    """What a fit, without any gold, expects of policies that follow it, or any reward model, over the responses of some feedback.

    Best-of-n follows the mean utility less `penalty` times the ignorance (1 is the charter's default), or `scores`; each of 400 utilities drawn from the posterior then
    says what that leads to (`seamark.reward.alarm.forecast`).

    Parameters
    ----------
    scores : (n_responses,) of the reward model that is followed; NaN where it has none. What it follows beyond the fit's own features, the fit cannot judge.

    Returns
    -------
    optimisation/alarm : the probability that gold falls before the strongest policy; a warning from `RAISED`, with the strength to stop at.
    optimisation/ignorance : the ignorance of what is chosen, as a multiple of the start's.
    optimisation/outliers : how far out among the fit's features what is chosen lies, as a multiple of the start's.
    optimisation/drift : how far the mean features of what is chosen are from the start's, in standard deviations.
    optimisation/residual : how much judgments contradict the reward that is chosen, as a multiple of the start's.
    bias-gain, bias-gain/reward, bias-gain/policy : of length, from people to the reward to the strongest policy (`check_bias_gain`).
    """
    followed = fit.utilities(feedback) if scores is None else np.asarray(scores, dtype=np.float64)
    if not fit.knows_ignorance:
        why = "The reward model was trained elsewhere, and does not say how sure it is."
        return unforeseen(why, remedy="Fit judgments with seamark fit.") + check_bias_gain(feedback, followed, seed=seed)
    say: Progress = progress or (lambda _stage, _share: None)
    say("foreseeing", 0.0)
    draws = fit.draws(feedback, _DRAWS, seed=seed)
    prompt = codes_of(feedback.responses["prompt"])
    rows = np.flatnonzero(np.isfinite(draws).all(1) & (prompt >= 0) & np.isfinite(followed))
    sizes = np.bincount(prompt[rows], minlength=feedback.n_prompts)
    least = usual_size(sizes[sizes > 1]) if (sizes > 1).any() else 0
    rows = rows[sizes[prompt[rows]] >= max(least, 4)]
    if least < 4 or len(np.unique(prompt[rows])) < _FEW:
        why = f"It takes {_FEW} prompts with four responses or more that the fit can place{'' if scores is None else ', and that have a score'}."
        return unforeseen(why) + check_bias_gain(feedback, followed, seed=seed)
    # within prompts: what a prompt is worth is nobody's choice, and its doubt no doubt about the choice
    _, of = np.unique(prompt[rows], return_inverse=True)
    known = draws[rows] - (np.stack([np.bincount(of, d) for d in draws[rows].T], 1) / np.bincount(of)[:, None])[of]
    mean, sd = known.mean(1), known.std(1, ddof=1)
    pool = Pool.of(of, mean - penalty * sd if scores is None else followed[rows], mean)
    strengths = [n for n in (2**k for k in range(20)) if n <= least]
    way = _Way(pool, strengths, best_of_n_shares(pool, strengths), seed)
    found = [_alarm(fit, way, known, own=scores is None)]
    space = _Space.of(fit, feedback, rows, seed)
    signals = (
        partial(_ignorance, way, sd), partial(_outliers, way, space), partial(_drift, way, space),
        partial(_residual, way, feedback, rows, None if scores is None else followed[rows]),
    )  # fmt: skip
    for k, signal in enumerate(signals):
        say("foreseeing", 0.5 + 0.1 * k)
        found.append(signal())
    reward = np.full(len(prompt), np.nan)
    reward[rows] = pool.proxy
    return Findings((*found, *check_bias_gain(feedback, reward, seed=seed)))


def unforeseen(why: str, *, remedy: str | None = None) -> Findings:
    """What `check_alarm` says of policies where it can foresee nothing."""
    title = "Whether gold will fall cannot be foreseen."
    return Findings(tuple(Finding.not_applicable(code, title, why, remedy=remedy) for code in FORESEEN))


@dataclass(frozen=True)
class _Way:
    """Policies of growing strength over a pool."""

    pool: Pool
    strengths: list[int]
    shares: Array
    """(n, K) how often each response is given to its prompt."""
    seed: int

    @property
    def chosen(self) -> Array:
        return self.shares / self.pool.n_prompts

    @property
    def end(self) -> str:
        return f"best of {self.strengths[-1]}"

    def curve(self, measure: Callable[[Mask, Array], Array], *, unbiased: bool = False) -> Array:
        """(3, K) estimate, low and high of a measure of what policies give, by a jackknife over groups of prompts.

        Parameters
        ----------
        measure : (n_prompts,) which prompts count, and (n, K) how often each of their responses is given -> (K,).
        unbiased : whether the jackknife's bias is taken out.

        Source: Kott 2001, of groups; Student's t with one degree of freedom less than groups.
        """
        n = self.pool.n_prompts
        parts = min(_PARTS, n)
        part = np.random.default_rng(self.seed).permutation(n) % parts

        def of(keep: Mask) -> Array:
            return measure(keep, self.shares[keep[self.pool.prompt]] / keep.sum())

        without = np.stack([of(part != k) for k in range(parts)])
        middle = without.mean(0)
        half = t.ppf(0.975, parts - 1) * np.sqrt((parts - 1) / parts * ((without - middle) ** 2).sum(0))
        whole = of(np.ones(n, dtype=np.bool_))
        estimate = parts * whole - (parts - 1) * middle if unbiased else whole
        return np.stack([estimate, estimate - half, estimate + half])

    def multiples(self, measure: Callable[[Mask, Array], Array]) -> Array:
        """`curve` of multiples of the start's, on the scale of their logarithms."""
        return np.exp(self.curve(lambda keep, chosen: np.log(np.maximum(measure(keep, chosen), 1e-12))))

    def rows(self, curve: Array) -> list[dict[str, float]]:
        return [
            {"n": n, "value": float(v), "low": float(low), "high": float(high)}
            for n, v, low, high in zip(self.strengths, *curve, strict=True)
        ]


def _alarm(fit: Fit, way: _Way, known: Array, *, own: bool) -> Finding:
    alarm = forecast(way.chosen, known)
    end = way.strengths[-1]
    share, where = f"{alarm.fall:.0%}", f"n = {way.strengths[alarm.at]}" if alarm.at is not None else ""
    said = (
        f"Of utilities that the data leave credible, {share} fall before n = {end}: stop at {where}."
        if alarm.raised
        else f"Of utilities that the data leave credible, {share} fall before n = {end}: too few to stop for."
    )
    curve = [
        {"n": n, "gain": float(alarm.gain[k]), "low": float(alarm.low[k]), "high": float(alarm.high[k])}
        for k, n in enumerate(way.strengths)
    ]
    straight = fit.basis.features is not None and not any(len(knots) for knots in fit.basis.features.knots)
    blind = " This fit is straight in all its features, so it cannot doubt that more of one is better." if straight else ""
    return Finding(
        code="optimisation/alarm", title=said, estimate=alarm.fall, n=_DRAWS, unit="share", verdict="warning" if alarm.raised else "notice" if straight else "ok",
        reason=f"n counts draws from the posterior over {counted(way.pool.n_prompts, 'prompt')}; a probability, which has no interval. It knows what the fit "
        f"can doubt: a trait that the features do not have is not among them.{blind}",
        remedy=f"Optimise no further than {where}, or "
        + ("raise the charter's ignorance_penalty." if own else "follow the fit itself, which knows of this.")
        if alarm.raised else "Fit with --utility hash+bends, which can." if straight else None,
        details={"curve": curve, "stop_at": way.strengths[alarm.at] if alarm.at is not None else None},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- what is looked at besides

_WEAK = "Jackknife over groups of prompts, which are n. It rises with optimisation also where that does no harm: optimisation/alarm says whether gold will fall."


def _said(curve: Array) -> str:
    estimate, low, high = curve[:, -1]
    return f"{figure(float(estimate), None, low, high)} {interval_of(low, high)}"


def _signal(
    way: _Way,
    code: str,
    curve: Array,
    title: str,
    unit: str,
    *,
    notice: float,
    reason: str,
    remedy: str,
    source: str | None = None,
    **details: object,
) -> Finding:
    estimate, low, high = (float(x) for x in curve[:, -1])
    surely = low > notice
    return Finding(
        code=code, title=title, estimate=estimate, low=low, high=high, n=way.pool.n_prompts, unit=unit, verdict="notice" if surely else "ok", reason=f"{reason} {_WEAK}",
        remedy=remedy if surely else None, source=source, details={"curve": way.rows(curve), **details},
    )  # fmt: skip


def _ignorance(way: _Way, sd: Array) -> Finding:
    curve = way.multiples(lambda keep, chosen: growth(chosen, sd[keep[way.pool.prompt]]))
    return _signal(
        way, "optimisation/ignorance", curve, f"What {way.end} chooses is {_said(curve)} times as uncertain as what the start policy gives.", "ratio",
        notice=float("inf"), reason="Posterior standard deviation of utilities within a prompt, over the draws as an ensemble.", remedy="",
    )  # fmt: skip


@dataclass(frozen=True)
class _Space:
    """Where responses lie among a fit's features."""

    pool: Array
    """(n, P)"""
    reference: Array
    """(m, P) of the responses that the fit learned from, where they are kept with it, else of the pool."""
    names: tuple[str, ...]
    """Of those columns that have one, which come first."""
    where: str
    """Which columns, and which reference, in words."""

    @staticmethod
    def of(fit: Fit, feedback: Feedback, rows: NDArray[np.int64], seed: int) -> _Space | None:
        """All columns but bends, and of hashed words style alone, since among those a short text is far out whatever it says; None where none varies."""
        features, matrix = fit.basis.features, fit.basis.matrix
        if features is None or matrix is None:
            return None
        columns = fit.basis.rows_for(feedback).columns
        assert columns is not None
        parts = dict(fit.basis.parts)
        style = features.features == "hash" and "style" in parts
        used = np.concatenate(
            [
                np.arange(features.n_columns)[parts[name]]
                for name in ("style", "content")
                if name in parts and not (style and name == "content")
            ]
        )
        learned = len(matrix) > 0
        pool, reference = columns[rows][:, used], (matrix if learned else columns[rows])[:, used]
        if len(reference) > _REFERENCE:
            reference = reference[np.random.default_rng(seed).choice(len(reference), _REFERENCE, replace=False)]
        varies = (reference.std(0) > 1e-9) & (pool.std(0) > 1e-9)
        if not varies.any():
            return None
        names = tuple(name for name, there in zip(features.style_names, varies, strict=False) if there)
        where = (
            f"Over the fit's {counted(int(varies.sum()), 'column')} {'of style' if style else 'of features'}, against the responses "
            + ("that it learned from." if learned else "judged here: those that it learned from are not kept with it.")
        )
        return _Space(pool[:, varies], reference[:, varies], names, where)


_NO_FEATURES = "The fit is a table of values, or its responses differ in no feature."


def _outliers(way: _Way, space: _Space | None) -> Finding:
    code = "optimisation/outliers"
    if space is None:
        return Finding.not_applicable(code, "Whether what is chosen is unlike what was judged cannot be told.", _NO_FEATURES)
    out = outlyingness(space.pool, space.reference)
    curve = way.multiples(lambda keep, chosen: growth(chosen, out[keep[way.pool.prompt]]))
    return _signal(
        way, code, curve, f"What {way.end} chooses lies {_said(curve)} times as far out among the features as what the start policy gives.", "ratio",
        notice=THRESHOLDS.outliers_notice, reason=f"Mean squared Mahalanobis distance. {space.where}",
        remedy="Have responses like these judged before a policy goes that far.", source="Miao et al. 2024; Ledoit & Wolf 2004",
        index=(way.chosen.T @ out).tolist(),
    )  # fmt: skip


def _drift(way: _Way, space: _Space | None) -> Finding:
    code = "optimisation/drift"
    if space is None:
        return Finding.not_applicable(code, "Whether what is chosen drifts away cannot be told.", _NO_FEATURES)
    features = space.pool
    # a square: chance alone moves every mean away, by as much on average as the jackknife takes out
    squared = way.curve(lambda keep, chosen: drift(chosen, features[keep[way.pool.prompt]]) ** 2, unbiased=True)
    curve = np.sqrt(np.maximum(squared, 0.0))
    start, end = way.chosen[:, 0], way.chosen[:, -1]
    moved = (end - start) @ features / np.sqrt(np.maximum(start @ features**2 - (start @ features) ** 2, 1e-24))
    named = {name: float(m) for name, m in zip(space.names, moved, strict=False)}
    top = max(named, key=lambda name: abs(named[name]), default=None)
    most = f", most of all in {top.replace('_', ' ')} ({named[top]:+.2f})" if top is not None and curve[1, -1] > 0 else ""
    return _signal(
        way, code, curve, f"The mean features of what {way.end} chooses are {_said(curve)} standard deviations from those of the start policy{most}.", "sd",
        notice=THRESHOLDS.drift_notice, reason=f"Root mean square over {counted(features.shape[1], 'feature')} of the fit, less what chance alone would make of it.",
        remedy="Have responses like these judged before a policy goes that far, or discount what it runs after.", features=named,
    )  # fmt: skip


def _residual(way: _Way, feedback: Feedback, rows: NDArray[np.int64], scores: Array | None) -> Finding:
    code, title = "optimisation/residual", "Whether the reward is contradicted more where policies go cannot be told."
    found = compare(feedback, seed=way.seed).most_direct().decided()
    place = np.full(feedback.n_responses, -1)
    place[rows] = np.arange(len(rows))
    both = np.stack([place[found.left], place[found.right]], 1)
    kept = (both >= 0).all(1) & (both[:, 0] != both[:, 1])
    kept[kept] = way.pool.prompt[both[kept, 0]] == way.pool.prompt[both[kept, 1]]
    both, won = both[kept], found.sign[kept] > 0
    if len(both) < _PAIRS:
        return Finding.not_applicable(code, title, f"Judgments decide {counted(len(both), 'pair')} of these responses; it takes {_PAIRS}.")
    of = way.pool.prompt[both[:, 0]]
    reward, scaled = way.pool.gold, ""
    if scores is not None:
        reward = scores - (np.bincount(way.pool.prompt, scores) / np.bincount(way.pool.prompt))[way.pool.prompt]
        gap = reward[both[:, 0]] - reward[both[:, 1]]
        spread = float(gap.std())
        worth = (
            float(clustered_logistic(gap[:, None] / spread, won.astype(np.float64), np.unique(of, return_inverse=True)[1])[0][0])
            if spread
            else 0.0
        )
        if worth <= 0:
            return Finding.not_applicable(code, title, "People's choices do not follow the scores, so that these are no logits.")
        reward, scaled = reward * (worth / spread), ", which a logistic regression of the answers on the scores gives"
    pair = reward[both]
    curve = way.multiples(
        lambda keep, chosen: residual_growth(chosen, reward[keep[way.pool.prompt]], pair=pair[keep[of]], won=won[keep[of]])
    )
    return _signal(
        way, code, curve, f"Answers contradict rewards like those that {way.end} chooses {_said(curve)} times as much as those that the start policy gives.", "ratio",
        notice=THRESHOLDS.residual_notice, reason=f"Mean squared standardised residual of {counted(len(both), 'decided pair')} in 20 bins of the reward within a prompt, in logits{scaled}.",
        remedy="The reward is wrong at its high end: look at the pairs there, fit with --utility hash+bends, or stop earlier.", source="Shen & Zhang 2024", pairs=len(both),
    )  # fmt: skip
