"""How a property of responses, such as length, grows on its way from people to the reward, and to a policy that follows it."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from seamark.checks.comparisons import codes_of, compare, counted
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.intervals import beginning, figure, interval_of
from seamark.records import Feedback
from seamark.reward.policies import Pool, best_of_n, usual_size

Array = NDArray[np.float64]

_DRAWS = 1000
_FEW = 10
"""Fewer prompts have no interval."""
_STEPS = (
    ("", 2, 0, "From people to the policy"),
    ("/reward", 1, 0, "From people to the reward"),
    ("/policy", 2, 1, "From the reward to the policy"),
)
"""End of the code, where it ends and begins among people, reward and policy, and in words."""


def log_lengths(feedback: Feedback) -> Array:
    """(n_responses,) log(1 + characters) of each response; NaN where there is no text."""
    return np.log1p(feedback.responses["text"].str.len_chars().cast(pl.Float64).fill_null(float("nan")).to_numpy())


def check_bias_gain(
    feedback: Feedback,
    reward: ArrayLike,
    number: ArrayLike | None = None,
    *,
    name: str = "length",
    n: int | None = None,
    seed: int = 0,
) -> Findings:
    """How much of a property goes into what is chosen: by people, by the reward on the same pairs, and by best-of-n, and the gain at each step.

    The effect is in standard deviations of the property within a prompt: the mean of what is chosen less that of what was to choose from. Of a
    decided pair that is half the difference of winner and loser, the best of two by people; then the best of the same two by the reward;
    then the best of n. Gains are ratios, and multiply to the end-to-end one.

    Parameters
    ----------
    reward : (n_responses,) in the order of `feedback.responses`, or (n_responses, k) of several, whose effects count as their mean, prompt by prompt;
        rows that are not finite are left out.
    number : (n_responses,) the property; log(1 + characters) where left out.
    n : of best-of-n; as many as nine prompts in ten have, where left out. Prompts with fewer are left out.

    Returns
    -------
    `bias-gain` : from people to the policy; `bias-gain/policy` : from the reward to the policy; notices where they are surely above 1, as they are for
        all that a reward pays for.
    `bias-gain/reward` : from people to the reward, a notice where it is surely above 1: people answer with noise, and so choose less of everything than
        a reward that values all as they do.
    All with bootstrap intervals over prompts; not applicable where the effect in the data cannot be told from 0: a ratio to nothing says nothing.
    """
    r = np.asarray(reward, dtype=np.float64)
    x = log_lengths(feedback) if number is None else np.asarray(number, dtype=np.float64)
    for given, shape, whole in (("reward", r.shape[:1], r.shape), ("number", x.shape, x.shape)):
        if shape != (feedback.n_responses,):
            raise InvalidSetting(given, whole, f"Give one number for each of the {feedback.n_responses:,} responses.")
    r = r.reshape(len(x), -1)
    prompt = codes_of(feedback.responses["prompt"])
    usable = np.isfinite(r).all(1) & np.isfinite(x) & (prompt >= 0)
    compared = compare(feedback)
    pairs = compared.where(
        (compared.sign != 0) & (compared.left != compared.right) & usable[compared.left] & usable[compared.right]
        & (prompt[compared.left] == prompt[compared.right])
    )  # fmt: skip
    rows = np.flatnonzero(usable)
    sizes = np.bincount(prompt[rows], minlength=feedback.n_prompts)
    asked = (np.bincount(prompt[pairs.left], minlength=feedback.n_prompts) > 0) & (sizes > 1)
    most = n if n is not None else usual_size(sizes[asked]) if asked.any() else 2
    kept = np.flatnonzero(asked & (sizes >= most))
    if len(kept) < _FEW:
        have = "has" if len(kept) == 1 else "have"
        return bias_gain_unknown(
            f"{counted(len(kept), 'prompt')} {have} decided pairs, and {most} responses with text and reward; it takes {_FEW}.", name
        )
    place = np.full(feedback.n_prompts, -1)
    place[kept] = np.arange(len(kept))
    rows = rows[place[prompt[rows]] >= 0]
    of = place[prompt[rows]]
    centre = np.bincount(of, x[rows]) / np.bincount(of)
    unit = float(np.sqrt(((x[rows] - centre[of]) ** 2).mean()))
    if unit == 0:
        return bias_gain_unknown(f"All responses to a prompt have the same {name}.", name)
    policies = [best_of_n(Pool.of(of, column, x[rows] / unit), [most]) for column in r[rows].T]
    by_policy = np.mean([policy.gold[:, 0] - policy.start for policy in policies], axis=0)
    mine = place[prompt[pairs.left]] >= 0
    left, right, sign = pairs.left[mine], pairs.right[mine], pairs.sign[mine]
    where = place[prompt[left]]
    difference = (x[left] - x[right]) / unit / 2
    total = np.bincount(where, minlength=len(kept)).astype(np.float64)
    choices = (np.sign(sign), np.sign(r[left] - r[right]).mean(1))
    by_people, by_reward = (np.bincount(where, choice * difference, minlength=len(kept)) / total for choice in choices)
    effects = np.stack([by_people, by_reward, by_policy])
    rng = np.random.default_rng(seed)
    draws = np.stack([effects[:, rng.integers(0, len(kept), len(kept))].mean(1) for _ in range(_DRAWS)])
    at = effects.mean(1)
    ends = np.quantile(draws, [0.025, 0.975], axis=0)
    said = ", ".join(
        f"{figure(at[k], None, ends[0, k], ends[1, k])} sd {interval_of(ends[0, k], ends[1, k])} by {who}"
        for k, who in enumerate(("people", "the reward", f"best of {most}"))
    )
    if ends[0, 0] <= 0 <= ends[1, 0]:
        return bias_gain_unknown(f"In the data there is no effect that is sure: what is chosen differs by {said}.", name)
    left_out = int(asked.sum()) - len(kept)
    spared = f" {counted(left_out, 'prompt')} with fewer than {most} responses left out." if left_out else ""
    found: list[Finding] = []
    for step, to, start, words in _STEPS:
        code = f"bias-gain{step}"
        if ends[0, start] <= 0 <= ends[1, start]:
            found.append(Finding.not_applicable(code, f"{words} the gain cannot be told.", "The reward has no effect that is sure."))
            continue
        low, high = np.quantile(draws[:, to] / draws[:, start], [0.025, 0.975])
        gain = float(at[to] / at[start])
        noise = (
            " People answer with noise, and so choose less of everything than a reward that values all as they do."
            if step == "/reward"
            else ""
        )
        found.append(
            Finding(
                code=code, estimate=gain, low=float(low), high=float(high), n=len(kept), unit="ratio",
                verdict="notice" if low > 1 else "ok",
                title=f"{words} the bias for {beginning(name)} is multiplied by {figure(gain, None, low, high)} {interval_of(low, high)}.",
                reason=f"What is chosen differs from what was to choose from by {said}. Bootstrap over prompts, which are n. Best of n takes all that the reward pays "
                f"for as much further, the good with the bad. An association: {name} may be what people value, or go with it.{noise}{spared}",
                details={"effects": {who: float(at[k]) for k, who in enumerate(("people", "reward", "policy"))}, "n": most},
            )
        )  # fmt: skip
    return Findings(tuple(found))


def bias_gain_unknown(why: str, name: str = "length") -> Findings:
    """The findings of `check_bias_gain` where none can be computed."""
    title = f"How the bias for {beginning(name)} grows cannot be told."
    return Findings(tuple(Finding.not_applicable(f"bias-gain{step}", title, why) for step, *_ in _STEPS))
