"""Where the loss comes from: each stage of the way from people to policy replaced by its ideal version, and what that gains.

Conventions
-----------
The stages are who was *asked*, how their answers were *observed*, how responses are *represented*, how people are *aggregated*, and how the reward is
*optimised*. Welfare is what the chosen responses are worth to the population, as a share of what can be had: 0 is a response at random, 1 the
best of each prompt's. It is known in simulated societies alone. A seed is a society with its judgments; stages are compared within a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.cross_fitting import kept
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.intervals import figure, interval_of, mean, wilson
from seamark.models import fit
from seamark.models.observation import Observation
from seamark.models.people import Groups, Same
from seamark.models.result import Fit
from seamark.models.utility import Linear
from seamark.progress import Progress
from seamark.records import Feedback
from seamark.reward.policies import Pool, best_of_n
from seamark.simulation import simulate

Array = NDArray[np.float64]
Run = Callable[[frozenset[str], int], float]
"""Stages that are ideal, seed -> welfare."""

STAGES = ("asked", "observed", "represented", "aggregated", "optimised")


# ---------------------------------------------------------------------------------------------- any pipeline


@dataclass(frozen=True)
class Attribution:
    """What the ideal version of each stage gains, in societies that are drawn anew."""

    stages: tuple[str, ...]
    actual: Array
    """(S,) welfare of the pipeline as it is."""
    ideal: Array
    """(S,) with all stages ideal at once."""
    gain: Array
    """(S, K) of each stage's ideal version alone."""

    @property
    def first(self) -> NDArray[np.int64]:
        """(S,) the stage that gains most; -1 where several do, or none gains."""
        most = self.gain.max(1, keepdims=True)
        return np.where((most[:, 0] > 0) & ((self.gain == most).sum(1) == 1), self.gain.argmax(1), -1)


def attribute(
    run: Run,
    stages: Sequence[str],
    *,
    seeds: Sequence[int],
    resume: Path | None = None,
    settings: str = "",
    progress: Progress | None = None,
) -> Attribution:
    """The loss of a pipeline, stage by stage, by ablation.

    Parameters
    ----------
    run : welfare of the pipeline with some stages ideal; the same seed has to give the same society.
    resume, settings : a folder of finished societies, and all that decides what `run` says of one: what was kept under other settings is not taken.

    Raises
    ------
    InvalidSetting
        If there are fewer than two stages or seeds.
    """
    if len(stages) < 2 or len(seeds) < 2:
        raise InvalidSetting("stages and seeds", (len(stages), len(seeds)), "Give two or more of each.")
    cases = [frozenset[str](), *(frozenset([name]) for name in stages), frozenset(stages)]
    found = np.zeros((len(seeds), len(cases)))
    for i, seed in enumerate(seeds):
        said = json.dumps([settings, list(stages), seed, version("seamark")])
        found[i] = kept(resume, said, (), lambda seed=seed: pl.DataFrame({"welfare": [run(case, seed) for case in cases]}))[
            "welfare"
        ].to_numpy()
        if progress is not None:
            progress("ablating", (i + 1) / len(seeds))
    return Attribution(tuple(stages), found[:, 0], found[:, -1], found[:, 1:-1] - found[:, :1])


def check_attribution(found: Attribution) -> Findings:
    """Which stage loses most.

    Returns
    -------
    `attribution` : the stage whose ideal version gains most on average, and in which share of the societies it comes first.
    `attribution/STAGE` : what the ideal version of each gains; a notice where that is surely above 0.
    """
    n = len(found.actual)
    means = found.gain.mean(0)
    top = int(means.argmax())
    wins = int((found.first == top).sum())
    low, high = wilson(wins, n)
    loss, rest = mean(100 * (1 - found.actual)), 100 * (1 - float(found.ideal.mean()))
    gained = (
        f"Most is lost where it is {found.stages[top]}: the ideal version of that stage gains {100 * means[top]:.1f} points of welfare, and comes first in "
        f"{wins:,} of {n:,} societies [{low:.0%}, {high:.0%}]."
        if means[top] > 0
        else "No stage loses anything: the ideal version of none gains welfare."
    )
    made = [
        Finding(
            code="attribution", estimate=wins / n, low=low, high=high, n=n, unit="share", verdict="ok",
            title=gained,
            reason=f"Wilson's interval; n is societies. Of what can be had, {figure(loss.estimate, None, loss.low, loss.high)} points {interval_of(loss.low, loss.high)} are lost, "
            f"{rest:.1f} with all stages ideal: that is what learning from so many judgments costs. Stages mend each other, so that gains need not add up.",
            remedy=f"Begin with how it is {found.stages[top]}." if means[top] > 0 else None,
            details={"loss": loss.estimate, "rest": rest, "first": {s: int((found.first == k).sum()) for k, s in enumerate(found.stages)}},
        )
    ]  # fmt: skip
    for k, stage in enumerate(found.stages):
        gain = mean(100 * found.gain[:, k])
        made.append(
            Finding.of(
                gain, code=f"attribution/{stage}", unit="points", verdict="notice" if gain.low > 0 else "ok",
                title=f"With the stage {stage} ideal, welfare is {figure(abs(gain.estimate), None, gain.low, gain.high)} points "
                f"{'higher' if gain.estimate >= 0 else 'lower'}, a change of {interval_of(gain.low, gain.high)}.",
                reason="Per cent of what can be had, paired by society; Student's t over societies, which are n.",
            )
        )  # fmt: skip
    return Findings(tuple(made))


# ---------------------------------------------------------------------------------------------- a pipeline on simulated societies


@dataclass(frozen=True)
class Pipeline:
    """A way from people to policy, with what is wrong at each stage; the defaults are ideal."""

    population: tuple[float, ...] = (0.5, 0.5)
    """Share of each group in the population."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Of `seamark.simulate`: who was asked (group_shares)."""
    observed: Mapping[str, Any] = field(default_factory=dict)
    """Of `seamark.simulate`: how they answer (length, position, careless, reversed_labels, ...)."""
    represented: Mapping[str, Any] = field(default_factory=dict)
    """n_columns of the features, and `unexplained`, the share of the value that no text shows."""
    aggregated: Mapping[int, float] | None = None
    """Weight of each group in the reward; None for as many raters as it has."""
    optimised: int | None = None
    """n of best-of-n; None for all responses to a prompt."""
    size: Mapping[str, Any] = field(default_factory=dict)
    """Of `seamark.simulate`: how much there is of everything."""


OBSERVED = (
    "careless", "opposed", "position", "position_sd", "length", "length_sd", "lapse", "reversed_labels", "fatigue", "haste", "leniency", "tie", "kinds",
)  # fmt: skip
"""What `seamark.simulate` knows of how answers are observed."""
_IDEAL_OBSERVED: dict[str, Any] = {"position": 0.0, "length": 0.0, "careless": 0.0, "opposed": 0.0, "lapse": 0.0, "reversed_labels": 0.0}
_IDEAL_REPRESENTED: dict[str, Any] = {"n_columns": 48, "unexplained": 0.0}
_SIZE: dict[str, Any] = {"n_prompts": 100, "n_responses": 6, "n_raters": 40, "n_judgments": 3000, "disagreement": 2.0}


@dataclass(frozen=True)
class _Learned:
    """What was learned in one society."""

    fitted: Fit
    feedback: Feedback
    by_group: Array
    """(n_responses, n_groups) what each response is worth to each group."""
    groups: tuple[str, ...]
    rows: NDArray[np.int64]
    """Responses to prompts that nobody was asked about, where there are two."""


def _learn(pipeline: Pipeline, ideal: frozenset[str], seed: int) -> _Learned:
    asked: dict[str, Any] = {"group_shares": tuple(pipeline.population)} | ({} if "asked" in ideal else dict(pipeline.asked))
    observed = _IDEAL_OBSERVED | ({} if "observed" in ideal else dict(pipeline.observed))
    represented = _IDEAL_REPRESENTED | ({} if "represented" in ideal else dict(pipeline.represented))
    settings: dict[str, Any] = _SIZE | dict(pipeline.size) | {"groups": len(pipeline.population)} | asked | observed
    society = simulate(**settings, unexplained=represented["unexplained"], seed=seed)
    feedback = society.feedback
    dealt = np.random.default_rng(seed).permutation(feedback.n_prompts)
    learned = np.isin(feedback.judgments["prompt"].cast(pl.Int64).to_numpy(), dealt[: feedback.n_prompts // 2])
    known = feedback.filter(learned)
    several = known.judgments["group"].n_unique() > 1
    fitted = fit(
        known, utility=Linear(n_columns=represented["n_columns"], residual=False), people=Groups(min_judgments=1) if several else Same(),
        observation=Observation(effects=()), require_converged=False, seed=seed,
    )  # fmt: skip
    prompt = feedback.responses["prompt"].cast(pl.Int64).to_numpy()
    rows = np.flatnonzero(np.isin(prompt, dealt[feedback.n_prompts // 2 :]))
    rows = rows[np.bincount(prompt[rows], minlength=feedback.n_prompts)[prompt[rows]] > 1]
    return _Learned(fitted, feedback, society.truth.value_by_group, society.truth.group_names, rows)


def _choose(pipeline: Pipeline, ideal: frozenset[str], known: _Learned) -> float:
    weights = None
    if "aggregated" in ideal or pipeline.aggregated is not None:
        given = dict(enumerate(pipeline.population)) if "aggregated" in ideal else dict(pipeline.aggregated or {})
        weights = {name: given.get(g, 0.0) for g, name in enumerate(known.groups) if name in known.fitted.groups} or None
    reward = known.fitted.utilities(known.feedback, group_weights=weights)[known.rows]
    gold = (known.by_group @ np.asarray(pipeline.population))[known.rows]
    pool = Pool.of(known.feedback.responses["prompt"].cast(pl.Int64).to_numpy()[known.rows], reward, gold)
    most = int(np.bincount(pool.prompt).min())
    n = most if "optimised" in ideal or pipeline.optimised is None else min(pipeline.optimised, most)
    found = best_of_n(pool, [n, most])
    start = found.start.mean()
    return float((found.gold[:, 0].mean() - start) / (found.ideal[:, 1].mean() - start))


def welfare(pipeline: Pipeline, *, ideal: frozenset[str] = frozenset(), seed: int = 0) -> float:
    """What best-of-n by the fitted reward is worth to the population, on prompts that nobody was asked about: the share of what can be had.

    Half of the prompts are judged. Group values are fitted to features of the texts (`Linear`, `Groups`, or `Same` where one group alone was asked), without a model of how
    answers are observed, so that what goes wrong there stays in.
    """
    return _choose(pipeline, ideal, _learn(pipeline, ideal, seed))


def runs(pipeline: Pipeline) -> Run:
    """The pipeline as `attribute` takes it: stages that come after learning use what was learned before."""

    @lru_cache(maxsize=len(STAGES))
    def learned(ideal: frozenset[str], seed: int) -> _Learned:
        return _learn(pipeline, ideal, seed)

    return lambda ideal, seed: _choose(pipeline, ideal, learned(ideal - {"aggregated", "optimised"}, seed))
