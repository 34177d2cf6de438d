"""Does the reward survive optimisation? Policies of growing strength follow it over pools of responses, and gold says what they lead to.

Gold is planted, or measured, or *cross-fitted*: two signals are fitted to judgments that share neither raters nor prompts, and each
judges the policies that follow the other on prompts that neither saw. That takes no more labels. What both signals have in common
(features, the raters' shared biases) gold of this kind cannot see: it tells what the noise of learning costs, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.amplification import bias_gain_unknown, check_bias_gain
from seamark.checks.comparisons import codes_of, counted
from seamark.checks.cross_fitting import kept, settings_of
from seamark.checks.filtration import check_filtration
from seamark.checks.findings import Finding, Findings
from seamark.checks.mismatch import rank_rewards
from seamark.checks.scored import check_scored
from seamark.errors import InvalidSetting
from seamark.intervals import beginning, figure, interval_of
from seamark.models import fit
from seamark.models.observation import Observation
from seamark.models.people import People
from seamark.models.utility import Utility
from seamark.records import Feedback
from seamark.reward.policies import Policies, Pool, best_of_n, tilt, usual_size
from seamark.reward.scorers import TIMEOUT_S, Scorer, score_responses

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_DRAWS = 1000
_FEW = 10
"""Fewer prompts have no interval."""
_OF_JUDGMENTS = "the signal of the judgments"
_TILTS = tuple(float(np.sqrt(2) * d) for d in np.arange(0.0, 2.01, 0.25))
"""Tilts that are looked at, in standard deviations of the proxy to a nat: sqrt(KL) up to 2 where rewards are normal, and as far as the pool
reaches."""


@dataclass(frozen=True)
class Curve:
    """Gold along policies of growing strength, over prompts."""

    policies: Policies
    distance: Array
    """(K,) square root of the KL from the start policy."""
    gain: Array
    """(K,) mean gold above that of the start policy."""
    low: Array
    high: Array
    """(K,) 95% interval of each by itself."""
    turning: int
    """Index of the strength at which gold is highest."""
    turning_low: int
    turning_high: int
    """95% of bootstrap draws have their highest between these."""
    fall: tuple[float, float, float]
    """(estimate, low, high) of gold at its highest less gold at the strongest; the low end allows for having looked for the highest."""
    regret: tuple[float, float, float]
    """(estimate, low, high) at the strongest (`Policies.regret`)."""
    bend: tuple[float, float, float]
    """(estimate, low, high) of b in gain = d (a - b d), d the distance: above 0 where gold bends down (Gao et al. 2023, eq. 1)."""
    rise: tuple[float, float, float]
    """(estimate, low, high) of a."""


def trace(policies: Policies, *, seed: int = 0) -> Curve:
    """The curve of some policies, with intervals over prompts by the bootstrap.

    Strengths are in ascending order. That gold falls is a comparison of every strength with the last one at once: the low end of `fall` is
    the largest of simultaneous lower bounds (max-t over the bootstrap; Westfall & Young 1993), so that looking for the highest point makes
    no fall where there is none.
    """
    n, distance = len(policies.start), np.sqrt(policies.kl)
    each = policies.gold - policies.start[:, None]
    gain = each.mean(0)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, n, (_DRAWS, n))
    drawn = np.stack([each[r].mean(0) for r in rows])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    tops = drawn.argmax(1)
    turning = int(gain.argmax())
    below, loss = gain - gain[-1], drawn - drawn[:, -1:]
    spread = np.maximum(loss.std(0, ddof=1), 1e-12)
    most = ((loss - below) / spread)[:, :-1].max(1) if len(gain) > 1 else np.zeros(_DRAWS)
    simultaneous = (below - np.quantile(most, 0.975) * spread)[:-1]
    fall = (float(below[turning]), float(max(simultaneous.max(initial=0.0), 0.0)), float(np.quantile(loss[:, turning], 0.975)))
    regrets = np.array([policies.regret(r)[-1] for r in rows])
    regret = float(policies.regret()[-1])
    law = np.stack([distance, -(distance**2)], 1)
    solve = np.linalg.pinv(law)
    coefficients, others = solve @ gain, drawn @ solve.T

    def interval(estimate: float, draws: Array) -> tuple[float, float, float]:
        low, high = np.nanquantile(draws, [0.025, 0.975])
        return estimate, float(low), float(high)

    first, last = np.quantile(tops, [0.025, 0.975], method="nearest")
    return Curve(
        policies, distance, gain, low, high, turning, int(first), int(last), fall,
        (regret, float("nan"), float("nan")) if np.isnan(regrets).all() else interval(regret, regrets),
        interval(float(coefficients[1]), others[:, 1]), interval(float(coefficients[0]), others[:, 0]),
    )  # fmt: skip


def check_optimisation(pool: Pool | Sequence[Pool], *, gold: str = "gold", unit: str = "logits", seed: int = 0) -> Findings:
    """What best-of-n and KL-tilted policies that follow the proxy lead to.

    Parameters
    ----------
    pool : responses with proxy and gold; several pools of the same prompts (`cross_fitted`) count as one, prompt by prompt.
    gold : what gold is, in words.
    unit : of gold.

    Returns
    -------
    optimisation/best-of-n, optimisation/tilt : whether gold rises to the end, with the strength at which it is highest; blocking where the strongest policy is
        surely worse than the start, a warning where gold surely falls before the end.
    optimisation/regret : 1 - what following the proxy gains, as a share of what following gold gains.
    """
    pools = [pool] if isinstance(pool, Pool) else list(pool)
    first = pools[0]
    if any(p.n_prompts != first.n_prompts for p in pools):
        raise InvalidSetting("pool", [p.n_prompts for p in pools], "Give pools of the same prompts.")
    sizes = np.min([np.bincount(p.prompt) for p in pools], axis=0)
    least = usual_size(sizes)
    kept = sizes >= least
    pools = [p.only(kept) for p in pools]
    if kept.sum() < _FEW:
        why = f"There are several responses to {counted(int(kept.sum()), 'prompt')}; an interval takes {_FEW}."
        return Findings(
            tuple(
                Finding.not_applicable(f"optimisation/{name}", "Whether the reward survives optimisation cannot be told.", why)
                for name in ("best-of-n", "tilt", "regret")
            )
        )
    left_out = f" {counted(int((~kept).sum()), 'prompt')} with fewer than {least} responses left out." if not kept.all() else ""
    strengths = [n for n in (2**k for k in range(20)) if n <= least]
    strengths += [least] if strengths[-1] < least else []
    uneven = any(p.uneven for p in pools)
    best = None if uneven else trace(_together([best_of_n(p, strengths) for p in pools]), seed=seed)
    # one beta for all pools is the same pressure on each
    scale = float(np.mean([np.sqrt(np.bincount(p.prompt, (p.proxy - _centre(p)) ** 2).sum() / len(p.prompt)) for p in pools]))
    tilted = trace(_together([tilt(p, [scale / max(d, 1e-6) for d in _TILTS]) for p in pools]), seed=seed) if scale > 0 else None
    found: list[Finding] = []
    if best is None:
        why = "It draws from a pool of samples, which count alike; these have weights. The tilt takes them."
        found += [Finding.not_applicable(f"optimisation/{name}", "Best-of-n is not computed.", why) for name in ("best-of-n", "regret")]
    else:
        found += [_found("best-of-n", best, gold, unit, [f"{n:,}" for n in strengths], "n", left_out), _regret(best, strengths[-1], gold)]
    if tilted is None:
        found.append(
            Finding.not_applicable("optimisation/tilt", "Tilts lead nowhere.", "The proxy is the same for all responses to a prompt.")
        )
    else:
        found.append(_found("tilt", tilted, gold, unit, [f"{s:.2g}" for s in tilted.policies.strength], "1 / beta", left_out))
    return Findings(tuple(found))


def _centre(pool: Pool) -> Array:
    """(n,) mean proxy of each response's prompt."""
    return (np.bincount(pool.prompt, pool.proxy) / np.bincount(pool.prompt))[pool.prompt]


def _together(policies: list[Policies]) -> Policies:
    """Of pools of the same prompts, their means prompt by prompt."""

    def mean(name: str) -> Any:
        return np.mean([getattr(p, name) for p in policies], axis=0)

    return Policies(*(mean(name) for name in ("strength", "kl", "proxy", "gold", "ideal", "start")))


def _found(name: str, curve: Curve, gold: str, unit: str, labels: list[str], what: str, left_out: str) -> Finding:
    """The curve as a finding: how far gold rises, and whether it falls."""
    end, k = len(labels) - 1, curve.turning
    worse, falls = curve.high[end] < 0, curve.fall[1] > 0
    gain = f"{figure(float(curve.gain[k]), unit, curve.low[k], curve.high[k])} {interval_of(curve.low[k], curve.high[k])}"
    at = f"{what} = {labels[k]} (sqrt KL {curve.distance[k]:.2f}; between {labels[curve.turning_low]} and {labels[curve.turning_high]})"
    if worse:
        title = f"Optimisation does harm: at {what} = {labels[end]} {gold} is {-curve.gain[end]:.2f} {unit} below the start."
    elif falls:
        title = f"{gold.capitalize()} rises by {gain} {unit} up to {at}, and has lost {curve.fall[0]:.2f} {unit} of it at {what} = {labels[end]}."
    elif curve.low[end] > 0:
        title = f"{gold.capitalize()} rises by {gain} {unit} up to {at}, and surely falls nowhere up to {what} = {labels[end]}."
    else:
        title = f"Following the reward gains nothing that is sure: {gold} is highest at {at}, by {gain} {unit}."
    rows = [
        {
            what: labels[i], "kl": float(curve.policies.kl[i]), "sqrt_kl": float(curve.distance[i]),
            "proxy": float(curve.policies.proxy[:, i].mean()), "gold_gain": float(curve.gain[i]), "low": float(curve.low[i]),
            "high": float(curve.high[i]), "ideal_gain": float((curve.policies.ideal[:, i] - curve.policies.start).mean()),
        }
        for i in range(len(labels))
    ]  # fmt: skip
    return Finding(
        code=f"optimisation/{name}", title=title, estimate=float(curve.distance[k]), low=float(curve.distance[curve.turning_low]),
        high=float(curve.distance[curve.turning_high]), n=len(curve.policies.start), unit="sqrt nats",
        verdict="blocking" if worse else "warning" if falls else "ok" if curve.low[end] > 0 else "notice",
        reason="The estimate is the square root of the KL at which gold is highest, with a bootstrap over prompts, which are n. That gold falls is said "
        f"where one strength is above the last by simultaneous bounds for all.{left_out}",
        remedy=f"Go no further than {what} = {labels[curve.turning_low]}, or mend the reward first." if worse or falls else None,
        source="Gao et al. 2023; Beirami et al. 2024" if name == "best-of-n" else "Gao et al. 2023; Korbak et al. 2022",
        details={
            "curve": rows, "fall": dict(zip(("estimate", "low", "high"), curve.fall, strict=True)),
            "law": {name: dict(zip(("estimate", "low", "high"), x, strict=True)) for name, x in (("a", curve.rise), ("b", curve.bend))},
            "stop_at": labels[curve.turning_low],
        },
    )  # fmt: skip


def _regret(curve: Curve, n: int, gold: str) -> Finding:
    code = "optimisation/regret"
    estimate, low, high = curve.regret
    if not np.isfinite(estimate):
        return Finding.not_applicable(code, "Regret cannot be computed.", "Gold is the same for all responses to a prompt.")
    return Finding(
        code=code, estimate=estimate, low=low, high=high, n=len(curve.policies.start), unit="ratio",
        verdict="blocking" if low >= 1 else "warning" if low > 0.5 else "ok",
        title=f"Best of {n:,} by the reward forgoes {estimate:.0%} [{low:.0%}, {high:.0%}] of what best of {n:,} by {gold} would gain.",
        reason="1 less the normalised drop ratio: 0 is as good as gold, 1 gains nothing, above 1 does harm. A warning where it is surely more than half, "
        "blocking where surely nothing is gained. Bootstrap over prompts, which are n.",
        source="Wen et al. 2024",
    )  # fmt: skip


def check_rewards(pools: Mapping[str, Pool], *, gold: str = "gold", unit: str = "units", seed: int = 0) -> Findings:
    """What following one reward leads to, and whether it is as reliable everywhere; of several over the same responses, which is worth following."""
    if len(pools) > 1:
        return rank_rewards(pools, unit=unit, seed=seed)
    pool = next(iter(pools.values()))
    varies = np.ptp(pool.proxy) > 0 and np.ptp(pool.gold) > 0
    return check_optimisation(pool, gold=gold, unit=unit, seed=seed) + (check_filtration(pool, seed=seed) if varies else ())


def check_scorers(
    scorers: Mapping[str, Scorer],
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    cache: str | Path | None = None,
    timeout_s: float = TIMEOUT_S,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Findings:
    """`check_rewards` of any reward models over the responses that were judged, a signal fitted to all the judgments being gold; and
    `check_bias_gain` of each for length.

    Gold of this kind is fair to reward models that did not learn from these judgments, nor from others by the same people about the same responses.

    Parameters
    ----------
    scorers : by name. Their scores are kept in `cache` under these names (`seamark.reward.scorers.scorer_name`).

    Raises
    ------
    InvalidSetting
        If fewer than two responses to a prompt have a gold and scores by all reward models.
    """
    prompt = codes_of(feedback.responses["prompt"])
    judged = np.unique(codes_of(feedback.judgments["responses"].explode().drop_nulls()))
    faults: list[Finding] = []
    values: dict[str, Array] = {}
    for name, scorer in scorers.items():
        found, scored = score_responses(scorer, feedback, judged, cache=cache, name=name, timeout_s=timeout_s, progress=progress)
        said = check_scored(scored)
        if not any(fault.verdict == "blocking" for fault in said):
            values[name] = found
        faults += [replace(fault, code=f"{fault.code}/{_label(name)}") for fault in said] if len(scorers) > 1 else said
    if not values:
        title, why = "What following these scores leads to cannot be told.", next(f.title for f in faults if f.verdict == "blocking")
        if len(scorers) > 1:
            return Findings((Finding.not_applicable("usefulness", title, why), *faults))
        codes = ("optimisation/best-of-n", "optimisation/tilt", "optimisation/regret")
        return Findings((*(Finding.not_applicable(code, title, why) for code in codes), *bias_gain_unknown(why), *faults))
    if progress is not None:
        progress("fitting", 0.9)
    fitted = fit(feedback, utility=utility, people=people, observation=observation, require_converged=False, seed=seed)
    signal = fitted.utilities(feedback)
    rows = judged[(np.isfinite(signal) & np.all([np.isfinite(v) for v in values.values()], axis=0) & (prompt >= 0))[judged]]
    rows = rows[np.bincount(prompt[rows], minlength=feedback.n_prompts)[prompt[rows]] > 1]
    if not len(rows):
        remedy = "Name judgments of several responses to a prompt."
        raise InvalidSetting("SOURCE", "no prompt with two responses that have a gold and scores", remedy)
    pools = {_label(name): Pool.of(prompt[rows], v[rows], signal[rows]) for name, v in values.items()}
    gold = Finding(
        code="optimisation/gold", title=f"Gold is a signal fitted to {counted(feedback.n_judgments, 'judgment')}, over {counted(len(rows), 'response')}.",
        estimate=float(len(rows)), n=feedback.n_judgments, unit="count", verdict="ok" if fitted.convergence.converged else "warning",
        reason=("" if fitted.convergence.converged else "Its fit has not converged. ")
        + "It is as good as these judgments, of which the reward models must not have learned. An exact count, so there is no interval.",
        remedy=None if fitted.convergence.converged else "Fit these judgments by themselves (seamark fit), which says why it does not converge.",
    )  # fmt: skip
    several = len(scorers) > 1  # though one alone may be left
    followed = (
        rank_rewards(pools, unit="logits", seed=seed) if several else check_rewards(pools, gold=_OF_JUDGMENTS, unit="logits", seed=seed)
    )
    gains = [_named(gain, name) if several else gain for name, v in values.items() for gain in check_bias_gain(feedback, v, seed=seed)]
    return Findings((*followed, gold, *gains, *faults))


def _named(finding: Finding, name: str) -> Finding:
    """One of several models', with its name in code and title."""
    label, title = _label(name), finding.title
    return replace(finding, code=f"{finding.code}/{label}", title=f"By {beginning(label)}: {title[0].lower()}{title[1:]}")


def _label(name: str) -> str:
    """A scorer's name as people know it: without what tells versions of a file apart."""
    return name.partition("\n")[0]


@dataclass(frozen=True)
class Signals:
    """Two signals that learned from other prompts than those of the responses they value."""

    feedback: Feedback
    """The judgments of responses with texts."""
    values: Array
    """(n_responses, 2) of these; NaN where a prompt has no two that were judged."""
    how: str
    """How they were made, in words."""

    @property
    def pools(self) -> tuple[Pool, Pool]:
        """Over the same prompts, each signal being the proxy of one and the gold of the other."""
        rows = np.flatnonzero(np.isfinite(self.values).all(1))
        prompt = codes_of(self.feedback.responses["prompt"])[rows]
        one, two = self.values[rows].T
        return Pool.of(prompt, one, two), Pool.of(prompt, two, one)


def cross_fitted(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
    resume: str | Path | None = None,
) -> Signals:
    """Two signals, each of which can judge the policies that follow the other.

    Prompts are dealt into three parts and raters into two; signal A is fitted to the first part by the first raters, signal B to the second
    by the others, and both score all responses to the third. The parts take turns, so that every prompt is valued once. Where fewer
    than 20 raters are known, all judge for both, which `how` says.

    Judgments of responses without texts are left out.

    Parameters
    ----------
    resume : folder in which what each signal says is kept; a run that was stopped goes on from there, to the same signals.

    Raises
    ------
    InvalidSetting
        If fewer than 30 prompts have two texts that were judged.
    """
    known = np.flatnonzero(feedback.responses["text"].is_not_null().to_numpy()).tolist()
    if len(known) < feedback.n_responses:  # signals go from some prompts to others by texts
        feedback = feedback.filter(pl.col("responses").list.eval(pl.element().is_in(known)).list.all().fill_null(value=False))
    prompt = codes_of(feedback.responses["prompt"])
    judged = np.unique(codes_of(feedback.judgments["responses"].explode().drop_nulls()))
    sizes = np.bincount(prompt[judged][prompt[judged] >= 0], minlength=feedback.n_prompts)
    usable = np.flatnonzero(sizes > 1)
    if len(usable) < 30:
        raise InvalidSetting("feedback", f"{len(usable)} prompts with two texts that were judged", "Cross-fitting takes 30, and texts.")
    rng = np.random.default_rng(seed)
    part = np.full(feedback.n_prompts + 1, -1)
    part[rng.permutation(feedback.n_prompts)] = np.arange(feedback.n_prompts) % 3
    apart = feedback.n_raters >= 20
    half = rng.permutation(feedback.n_raters) % 2
    of_judgment = part[feedback.judgments["prompt"].cast(pl.Int64).fill_null(-1).to_numpy()]
    rater = feedback.judgments["rater"].cast(pl.Int64).fill_null(-1).to_numpy()
    values = np.full((feedback.n_responses, 2), np.nan)
    settings = f"signal {settings_of(feedback, utility, people, observation, seed)}"
    said: dict[bytes, Array] = {}  # where raters judge for both sides, the three parts make three signals and not six

    def signal(mine: NDArray[np.bool_]) -> Array:
        def made() -> pl.DataFrame:
            fitted = fit(feedback.filter(mine), utility=utility, people=people, observation=observation, require_converged=False, seed=seed)
            return pl.DataFrame({"value": fitted.utilities(feedback)})

        if (key := mine.tobytes()) not in said:
            said[key] = kept(None if resume is None else Path(resume), settings, (mine,), made)["value"].to_numpy()
        return said[key]

    for turn in range(3):
        rows = judged[(part[prompt[judged]] == turn) & np.isin(prompt[judged], usable)]
        for side in (0, 1):
            mine = of_judgment == (turn + 1 + side) % 3
            if apart:
                mine &= (rater >= 0) & (half[rater] == side)
            values[rows, side] = signal(mine)[rows]
            if progress is not None:
                progress("fitting", (2 * turn + side + 1) / 6)
    in_common = f"{counted(feedback.n_raters, 'rater')} in common" if feedback.n_raters else "raters not known"
    how = "raters and prompts apart" if apart else f"prompts apart, {in_common}"
    return Signals(feedback, values, f"two signals, {how}")
