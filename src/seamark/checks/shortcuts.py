"""What a reward's scores on texts and judgments as they are give away: length, phrases, style in place of substance, memory, support, scale.

Conventions
-----------
Scores are in the reward model's own units; a gap is the score of one response less that of another one to the same prompt. *Points* are
percentage points of preference, as shares: 0.05 turns a coin's toss from 50% into 55%. A doubling is a doubling of the characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import t

from seamark.checks.comparisons import counted, percent
from seamark.checks.confounds import clustered_logistic
from seamark.checks.findings import Finding, Verdict
from seamark.checks.perturbations import EMPTY_SENTENCES
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import Interval, beginning, bootstrap, figure, mean, share
from seamark.models.features import HashEncoder, style_features

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

FEWEST = 10
"""Fewer prompts or items give no interval worth printing."""
_LONGEST_PHRASE = 5
_SAME_TEXTS = 0.8
"""Share of the texts that two runs of words have in common from which one stands for both."""
_FOLDS = 5
_LENGTH_ALONE = 0.95
"""Correlation of the gap with the difference in length from which the two cannot be told apart."""


@dataclass(frozen=True)
class Judged:
    """Decided comparisons by people of responses that the reward has scored."""

    gap: Array
    """(n,) score of the response listed first less that of the other."""
    won: NDArray[np.bool_]
    """Whether people preferred the one listed first."""
    unit: Codes
    """The prompt, or what repeats."""
    left: Codes
    right: Codes
    """Rows of `texts`."""
    texts: Sequence[str]
    prompts: Sequence[str]
    """(n,) the prompt of each, as text."""

    def hits(self) -> Array:
        """(n,) 1 where the reward agrees, 1/2 where it is tied."""
        return np.where(self.gap == 0, 0.5, (self.gap > 0) == self.won)

    @property
    def doublings(self) -> Array:
        """(n,) how much longer the one listed first is."""
        length = np.log2(1 + np.array([len(text) for text in self.texts], dtype=np.float64))
        return length[self.left] - length[self.right]


@dataclass(frozen=True)
class Scale:
    """What a unit of the score is worth."""

    logits: float | None
    """Logits of human preference per unit; None where nobody can tell."""
    sd: float
    """Standard deviation of the scores under one prompt."""
    how: str

    def points(self, gap: Array, effect: Array) -> Array:
        """By how much an effect on the first of two responses, this far apart, raises the share in which it is preferred; where the scale is not
        known, the share in which it has the higher score."""
        if self.logits is None:
            return np.heaviside(gap + effect, 0.5) - np.heaviside(gap, 0.5)
        return expit(self.logits * (gap + effect)) - expit(self.logits * gap)


def find_scale(judged: Judged | None, sd: float, *, logits: bool) -> tuple[Scale, list[Finding]]:
    """The scale of the scores, from human pairs where there are any; and whether scores that are said to be logits are.

        P(first preferred) = sigmoid(b gap),   and with length held:   sigmoid(b' gap + c (doublings of the first over the other))

    A reward that follows length has a b below 1 for that reason alone; b' is free of it. More of style is not held: where it goes with what responses
    are worth, it would take from a noisy score what is its own.
    """
    code = "probe/over-confidence"
    title = "Whether the reward is over-confident cannot be told."
    if judged is None or len(np.unique(judged.unit)) < FEWEST or not np.ptp(judged.gap):
        why = (
            "No human judgments of these responses were given."
            if judged is None
            else f"Human judgments of fewer than {FEWEST} prompts were given."
        )
        scale = Scale(1.0 if logits else None, sd, "scores read as logits" if logits else "no scale: shares are those of higher scores")
        return scale, [Finding.not_applicable(code, title, why)]
    won, spread = judged.won.astype(np.float64), float(judged.gap.std())
    b, se = (float(x[0]) / spread for x in clustered_logistic(judged.gap[:, None] / spread, won, _codes(judged.unit)))
    x = judged.doublings
    both = np.column_stack([judged.gap / spread, x]) if _apart(judged.gap, x) else judged.gap[:, None] / spread
    beta, errors = clustered_logistic(both, won, _codes(judged.unit))
    slope, slope_se = float(beta[0]) / spread, float(errors[0]) / spread
    details = {"slope": b, "slope_se": se, "slope_with_length_held": slope, "se": slope_se,
               "severity": (1 - slope - 1.96 * slope_se) / THRESHOLDS.overconfident_warning if logits else None}  # fmt: skip
    n = len(won)
    if b - 1.96 * se <= 0:
        scale = Scale(
            1.0 if logits else None, sd, "scores read as logits" if logits else "no scale: people's choices do not follow the score"
        )
    else:
        scale = Scale(b, sd, f"logits of human preference, {figure(b, None, b - 1.96 * se, b + 1.96 * se)} to a unit over {n:,} pairs")
    low, high = slope - 1.96 * slope_se, slope + 1.96 * slope_se
    limit = 1 - THRESHOLDS.overconfident_warning
    said = f"{figure(slope, None, low, high)} [{low:.2f}, {high:.2f}]"
    if not logits:
        return scale, [Finding(
            code=code, estimate=slope, low=low, high=high, n=n, unit="logits per unit", verdict="ok",
            title=f"A gap of one unit of score is worth {said} logits of human preference.",
            reason="Logistic regression of human choices on the gap, length held; clustered by prompt. Scores are not said to be logits, so that this is their "
            "scale and no error.", source="Guo et al. 2017", details=details)]  # fmt: skip
    verdict: Verdict = "warning" if high < limit else "notice" if high < 1 else "ok"
    if verdict != "ok":
        title = f"The reward is over-confident: a gap of one logit is worth {said} in people's choices."
    elif low > 1:
        title = f"The reward is under-confident: a gap of one logit is worth {said} in people's choices."
    else:
        title = f"A gap of one logit is worth {said} in people's choices."
    return scale, [Finding(
        code=code, estimate=slope, low=low, high=high, n=n, unit="logits per logit", verdict=verdict, title=title,
        reason="Logistic regression of human choices on the gap, the difference in length held; sandwich variance clustered by prompt. Without that the slope "
        f"is {b:.2f}.",
        remedy="Divide the scores by a temperature before they are read as probabilities or added to anything." if verdict != "ok" else None,
        source="Guo et al. 2017 (temperature scaling)", details=details)]  # fmt: skip


def _apart(x: Array, y: Array) -> bool:
    """Whether two columns can be told apart in a regression."""
    return bool(np.ptp(x) > 0 and np.ptp(y) > 0 and abs(float(np.corrcoef(x, y)[0, 1])) < _LENGTH_ALONE)


def _codes(unit: Codes) -> Codes:
    return np.unique(unit, return_inverse=True)[1].astype(np.int64)


def _style_differences(judged: Judged) -> Array:
    """(n, columns) standardised differences in style between the two; columns that do not differ are left out."""
    values = style_features(judged.texts).values
    x = values[judged.left] - values[judged.right]
    spread = x.std(0)
    return x[:, spread > 0] / spread[spread > 0]


# ---------------------------------------------------------------------------------------------- length


def length_slope(scores: Array, texts: Sequence[str], prompt: Codes) -> Interval:
    """How much higher a response of twice the length is scored than another one to the same prompt, clustered by prompt.

    Scores that are not finite, and prompts with one response, say nothing and are left out.
    """
    doublings = np.log2(1 + np.array([len(text) for text in texts], dtype=np.float64))
    known = np.isfinite(scores)
    unit = _codes(prompt[known])
    x, y = (_within(v[known], unit) for v in (doublings, scores))
    n, k = int((np.bincount(unit)[unit] > 1).sum()), int((np.bincount(unit) > 1).sum())
    total = float(x @ x)
    if total < 1e-9 or k < 2:
        return Interval(np.nan, np.nan, np.nan, n, k)
    slope = float(x @ y) / total
    of_prompt = np.bincount(unit, x * (y - slope * x))
    se = float(np.sqrt((of_prompt**2).sum() * k / (k - 1))) / total
    half = float(t.ppf(0.975, k - 1)) * se
    return Interval(slope, slope - half, slope + half, n, k)


def control_length(scores: Array, texts: Sequence[str], prompt: Codes) -> Array:
    """(n,) scores as they would be were all responses to a prompt of the same length: less the slope times the doublings above its mean."""
    slope = length_slope(scores, texts, prompt).estimate
    doublings = np.log2(1 + np.array([len(text) for text in texts], dtype=np.float64))
    return scores - (slope if np.isfinite(slope) else 0.0) * _within(doublings, _codes(prompt))


def _within(x: Array, unit: Codes) -> Array:
    """x less the mean of its unit."""
    return x - (np.bincount(unit, x) / np.bincount(unit))[unit]


def check_length(scores: Array, texts: Sequence[str], prompt: Codes, scale: Scale, judged: Judged | None) -> Finding:
    """What length goes with, and whether the reward makes more of it than people do."""
    slope = length_slope(scores, texts, prompt)
    if not np.isfinite(slope.estimate):
        return Finding.not_applicable(
            "probe/length", "What length is worth cannot be told.", "Fewer than two prompts have scored responses of different lengths."
        )
    unit, factor = ("logits", scale.logits) if scale.logits is not None else ("sd", 1 / scale.sd if scale.sd > 0 else 1.0)
    shown = Interval(slope.estimate * factor, slope.low * factor, slope.high * factor, slope.n, slope.n_clusters)
    details: dict[str, Any] = {"slope": slope.estimate, "low": slope.low, "high": slope.high, "per": "doubling of the characters"}
    title = f"Under one prompt, a response of twice the length is scored {shown.said()} {unit} higher."
    verdict: Verdict = "ok"
    told = judged is not None and len(np.unique(judged.unit)) >= FEWEST and np.ptp(judged.doublings) > 0 and np.ptp(judged.gap) > 0
    if judged is not None and told and not _apart(judged.gap, judged.doublings):
        verdict = "warning"
        title += " The score is length and little else."
    elif judged is not None and told:
        spread = float(judged.gap.std())
        beta, se = clustered_logistic(
            np.column_stack([judged.gap / spread, judged.doublings]), judged.won.astype(np.float64), _codes(judged.unit)
        )
        c, half = float(beta[1]), 1.96 * float(se[1])
        details |= {"people_beyond_the_score": c, "people_low": c - half, "people_high": c + half}
        if c + half < 0:
            verdict = "warning" if c + half < -THRESHOLDS.style_warning else "notice"
            title += f" People like length less than the score does: of two with the same score they choose the shorter ({c:+.2f} [{c - half:.2f}, {c + half:.2f}] logits per doubling)."
        else:
            title += f" People do not like it less: of two with the same score, twice the length changes their choice by {c:+.2f} [{c - half:.2f}, {c + half:.2f}] logits."
    return Finding.of(
        shown, code="probe/length", title=title, unit=f"{unit} per doubling", verdict=verdict,
        reason=f"Regression within prompts, clustered by prompt ({counted(slope.n_clusters, 'prompt')}): an association, since longer responses may say more; probe/padding says what length "
        "alone buys.",
        remedy="Fit with style discounted by the charter (a bias and no taste), or train with head odin." if verdict != "ok" else None,
        source="Singhal et al. 2023; Dubois et al. 2024", details=details,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- phrases


def candidate_phrases(texts: Sequence[str], scores: Array, prompt: Codes, *, most: int) -> list[str]:
    """Runs of two to five words that go with high scores: those with the largest t of the score, prompt and length taken out, of the texts that
    have them; in at least three texts and a fiftieth of all, under several prompts. Of runs in much the same texts there is one, the longest of those
    with the largest t: which of them it is that counts is told by putting it into others.
    """
    known = np.flatnonzero(np.isfinite(scores))
    kept = [text for text, score in zip(texts, scores.tolist(), strict=True) if np.isfinite(score)]
    n = len(known)
    if n < FEWEST:
        return []
    unit = _codes(prompt[known])
    unit = _codes(np.where(np.bincount(unit)[unit] == 1, int(unit.max()) + 1, unit))
    length = _within(np.log2(1 + np.array([len(text) for text in kept], dtype=np.float64)), unit)
    y = _within(scores[known], unit)
    if length @ length > 0:
        y = y - length * (length @ y) / (length @ length)
    spread = float(y.std())
    if spread == 0:
        return []
    rows = _common_runs(kept, least=max(3, n // 50))
    ranked: list[tuple[float, str, list[int]]] = []
    of = unit.tolist()
    for phrase, held in rows.items():
        m = len(held)
        if m <= 0.9 * n and len({of[i] for i in held}) >= min(3, int(unit.max()) + 1):
            ranked.append((float(y[held].mean()) * np.sqrt(m / (1 - m / n)) / spread, phrase, held))
    ranked.sort(key=lambda entry: (-round(entry[0], 9), -len(entry[1]), entry[1]))
    chosen: list[tuple[str, frozenset[int]]] = []
    for score, phrase, held in ranked:
        if len(chosen) >= most or score <= 0:
            break
        mine = frozenset(held)
        if not any(len(mine & other) > _SAME_TEXTS * len(mine | other) for _, other in chosen):
            chosen.append((phrase, mine))
    return [phrase for phrase, _ in chosen]


def _common_runs(texts: Sequence[str], *, least: int) -> dict[str, list[int]]:
    """Runs of two to five words that are in so many texts, with the texts. A run is only if both runs that are a word shorter are
    (Agrawal & Srikant 1994)."""
    number: dict[str, int] = {}
    runs = [[number.setdefault(word, len(number)) for word in re.findall(r"[\w'’]+", text.lower())] for text in texts]
    words, width = list(number), len(number) + 1
    shorter: dict[int, list[int]] = {w: [] for w in range(len(number))}
    found: dict[str, list[int]] = {}
    current = [list(said) for said in runs]
    for k in range(2, _LONGEST_PHRASE + 1):
        longer: dict[int, list[int]] = {}
        step: list[list[int]] = []
        for place, (said, before) in enumerate(zip(runs, current, strict=True)):
            # the number of a run is that of the run without its last word, with that word as another digit
            here = [a * width + said[i + k - 1] if a in shorter and b in shorter else -1 for i, (a, b) in enumerate(pairwise(before))]
            step.append(here)
            for run in set(here):
                if run >= 0:
                    longer.setdefault(run, []).append(place)
        shorter = {run: held for run, held in longer.items() if len(held) >= least}
        for run, held in shorter.items():
            digits, rest = [], run
            for _ in range(k):
                rest, digit = divmod(rest, width)
                digits.append(words[digit])
            found[" ".join(reversed(digits))] = held
        current = step
    return found


def insert(text: str, phrase: str) -> str:
    """The text with the phrase as a sentence of its own after it."""
    return f"{text.rstrip()} {phrase[:1].upper()}{phrase[1:]}."


def filler(length: int, rng: np.random.Generator) -> str:
    """Words of an empty sentence, as many characters or so."""
    words = EMPTY_SENTENCES[rng.integers(len(EMPTY_SENTENCES))].rstrip(".").split()
    return " ".join(words[: max(1, int(np.argmin([abs(len(" ".join(words[: i + 1])) - length) for i in range(len(words))])) + 1)])


def check_phrases(
    phrases: Sequence[str], effects: Sequence[Array], points: Sequence[Array], units: Sequence[Codes], scale: Scale, *, n_screened: int = 0
) -> Finding:
    """Which phrase buys most, by putting it into texts that do not have it.

    Parameters
    ----------
    effects, points : for each phrase (m,) by how much the score, and the preference, rises more than by a filler of the same length; units : prompts.
    n_screened : runs of words that were tried in a few other texts first.
    """
    title = "Whether a phrase buys anything cannot be told."
    if not phrases:
        return Finding.not_applicable(
            "probe/phrases", title, "No run of words occurs in enough of the texts, or no family of phrases was asked for."
        )
    rows: list[dict[str, Any]] = []
    for phrase, effect, bought, unit in zip(phrases, effects, points, units, strict=True):
        known = np.isfinite(effect)
        if known.sum() < FEWEST or len(np.unique(unit[known])) < 3:
            continue
        i, e = mean(bought[known], cluster=unit[known]), mean(effect[known], cluster=unit[known])
        # looked at together: as wide as all intervals hold at once (Bonferroni)
        df = max(i.n_clusters - 1, 1)
        wider = float(t.ppf(1 - 0.025 / len(phrases), df) / t.ppf(0.975, df))
        low, high = i.estimate - wider * (i.estimate - i.low), i.estimate + wider * (i.high - i.estimate)
        rows.append({"phrase": phrase, "points": i.estimate, "low": low, "high": high, "n": i.n, "effect": e.estimate,
                     "logits": None if scale.logits is None else scale.logits * e.estimate, "sd": e.estimate / scale.sd if scale.sd > 0 else None})  # fmt: skip
    if not rows:
        return Finding.not_applicable("probe/phrases", title, f"Fewer than {FEWEST} texts could be scored with and without a phrase.")
    rows.sort(key=lambda row: -row["effect"])
    top = rows[0]
    verdict = bought_verdict(top["low"])
    return Finding(
        code="probe/phrases", estimate=top["points"], low=top["low"], high=top["high"], n=top["n"], unit="share", verdict=verdict,
        title=f"Of {counted(len(rows), 'phrase')} tried, '{beginning(top['phrase'])}' buys most: {said_points(top['points'], top['low'], top['high'])}.",
        reason=f"Runs of words that go with high scores in these texts ({n_screened} screened on a few other texts), and stock phrases, each put behind texts that do "
        "not have it, against a filler of the same length; t intervals clustered by prompt, wide enough to hold for all phrases at once.",
        remedy="Judge pairs that differ in this phrase alone, and train on them; or take it out of the texts before they are scored." if verdict != "ok" else None,
        details={"phrases": rows, "severity": top["low"] / THRESHOLDS.bought_warning},
    )  # fmt: skip


def bought_verdict(low: float) -> Verdict:
    """Of what nothing should buy, by the low end of what it does."""
    return "warning" if low > THRESHOLDS.bought_warning else "notice" if low > THRESHOLDS.bought_notice else "ok"


def said_points(estimate: float, low: float, high: float) -> str:
    """+12.3 [9.8, 14.8] points of preference."""
    # rounded first, so that there is no -0.0
    number, *bounds = (round(100 * x, 1) + 0.0 if np.isfinite(x) else x for x in (estimate, low, high))
    number = f"{number:+.1f}".replace("-", "−")
    ends = f"[{bounds[0]:.1f}, {bounds[1]:.1f}]".replace("-", "−")
    return f"{number} {ends} points of preference" if np.isfinite(low) and np.isfinite(high) else f"{number} points of preference"


# ---------------------------------------------------------------------------------------------- style or substance


def check_substance(judged: Judged | None, *, seed: int = 0) -> Finding:
    """Is it style that the reward decides by? Its decisions are predicted from the differences in style alone, on prompts that the prediction has not
    seen; then it is asked how often it agrees with people where style favours what they chose, and where it favours the other. Deciding by style
    alone gives 100% and 0%, half on average; what is above a half is substance.
    """
    code, title = "probe/style-not-substance", "Whether the reward follows style or substance cannot be told."
    if judged is None:
        return Finding.not_applicable(code, title, "No human judgments of these responses were given.")
    keep = judged.gap != 0
    units = _codes(judged.unit)
    if keep.sum() < 50 or len(np.unique(units[keep])) < FEWEST:
        return Finding.not_applicable(code, title, f"It takes 50 judged pairs that the reward does not tie, under {FEWEST} prompts.")
    x = _style_differences(judged)[keep]
    gap, won, unit = judged.gap[keep], judged.won[keep], _codes(units[keep])
    predicted = np.zeros(len(gap))
    fold = np.random.default_rng(seed).permutation(int(unit.max()) + 1)[unit] % _FOLDS
    for f in range(_FOLDS):
        a, b = fold != f, fold == f
        predicted[b] = x[b] @ clustered_logistic(x[a], (gap[a] > 0).astype(np.float64), _codes(unit[a]))[0]
    explained = share(((predicted > 0) == (gap > 0)).astype(np.float64), cluster=unit)
    hit, easy = ((gap > 0) == won).astype(np.float64), (predicted > 0) == won
    parts = {name: share(hit[mask], cluster=unit[mask]) for name, mask in (("towards", easy), ("away", ~easy)) if mask.sum() >= FEWEST}
    if len(parts) < 2:
        return Finding.not_applicable(code, title, "People always chose what style favours, or never.")

    def balanced(weight: Array) -> float:
        sides = [(weight * m).sum() for m in (easy, ~easy)]
        return (
            float(np.mean([(weight * hit * m).sum() / s for m, s in zip((easy, ~easy), sides, strict=True)]))
            if min(sides) > 0
            else float("nan")
        )

    estimate = balanced(np.ones(len(hit)))
    low, high = bootstrap(balanced, unit, seed=seed)
    is_style = explained.low > THRESHOLDS.style_decides
    verdict: Verdict = (
        "warning" if is_style and high < THRESHOLDS.substance_least else "notice" if is_style and low < THRESHOLDS.substance_least else "ok"
    )
    end = {
        "warning": "This is style, not substance.", "notice": "It may be style and little else.",
        "ok": "There is substance in it." if low > 0.5 else "It does not follow style; whether it follows anything is said by accuracy.",
    }[verdict]  # fmt: skip
    return Finding(
        code=code, estimate=estimate, low=low, high=high, n=len(hit), unit="share", verdict=verdict,
        title=f"Style alone foretells {percent(round(explained.estimate, 3))} of its decisions; it agrees with people in {percent(round(parts['towards'].estimate, 3))} where style "
        f"favours their choice and in {percent(round(parts['away'].estimate, 3))} where it does not, {percent(round(estimate, 3))} when both count alike. {end}",
        reason=f"Style: length, lists, markup and phrases, by ridge logistic regression of its decisions, cross-fitted over prompts. {counted(int((~keep).sum()), 'pair')} that the "
        f"reward ties left out; bootstrap over {counted(int(unit.max()) + 1, 'prompt')}. A warning where style foretells more than {percent(THRESHOLDS.style_decides)} of the "
        f"decisions and the balanced agreement is surely below {percent(THRESHOLDS.substance_least)}.",
        remedy="Do not train a policy on it: it would learn the style. Match pairs by length and style, and judge these." if verdict != "ok" else None,
        source="Liu et al. 2024 (RM-Bench); Feuer et al. 2025",
        details={"explained": explained.estimate, "explained_low": explained.low, "explained_high": explained.high,
                 "towards": {"share": parts["towards"].estimate, "low": parts["towards"].low, "high": parts["towards"].high, "n": parts["towards"].n},
                 "away": {"share": parts["away"].estimate, "low": parts["away"].low, "high": parts["away"].high, "n": parts["away"].n},
                 "style_and_people": float(easy.mean())},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- memory and support


def check_memory(train: Judged | None, held_out: Judged | None) -> Finding:
    """Is it right more often on judgments that it was trained on than on others?"""
    code, title = "probe/memorisation", "Whether the reward remembers its training judgments cannot be told."
    if train is None or held_out is None:
        lacking = "training" if train is None else "held-out"
        return Finding.not_applicable(code, title, f"No {lacking} judgments were given.")
    seen, unseen = (share(j.hits(), cluster=j.unit) for j in (train, held_out))
    if min(seen.n_clusters, unseen.n_clusters) < FEWEST:
        return Finding.not_applicable(code, title, f"It takes judgments of {FEWEST} prompts on either side.")
    difference = seen.estimate - unseen.estimate
    # the two parts share no judgment (Newcombe 1998, method 10)
    low = difference - float(np.hypot(seen.estimate - seen.low, unseen.high - unseen.estimate))
    high = difference + float(np.hypot(seen.high - seen.estimate, unseen.estimate - unseen.low))
    verdict: Verdict = "warning" if low > THRESHOLDS.memory_warning else "notice" if low > 0 else "ok"
    return Finding(
        code=code, estimate=difference, low=low, high=high, n=seen.n + unseen.n, unit="share", verdict=verdict,
        title=f"It agrees with {seen.said('share')} of the judgments that it was trained on and with {unseen.said('share')} of others: {100 * difference:+.1f} points.",
        reason="Ties count half; each share clustered by prompt.", source="Newcombe 1998 (interval of a difference)",
        remedy="Train for fewer steps or with more weight decay, and trust the figure on what it has not seen." if verdict != "ok" else None,
        details={"train": seen.estimate, "held_out": unseen.estimate, "held_out_low": unseen.low, "held_out_high": unseen.high, "severity": low / THRESHOLDS.memory_warning},
    )  # fmt: skip


def check_support(train: Judged | None, held_out: Judged | None) -> Finding:
    """Narrow: is it right less often on prompts that are unlike those that it was trained on?"""
    code, title = "probe/narrow", "Whether the reward is narrow cannot be told."
    if train is None or held_out is None:
        return Finding.not_applicable(code, title, f"No {'training' if train is None else 'held-out'} judgments were given.")
    known, asked = sorted(set(train.prompts)), sorted(set(held_out.prompts))
    if len(known) < FEWEST or len(asked) < 2 * FEWEST:
        return Finding.not_applicable(code, title, f"It takes {FEWEST} training prompts and {2 * FEWEST} held-out ones with texts.")
    near = dict(zip(asked, nearness(known, asked).tolist(), strict=True))
    value = np.array([near[p] for p in held_out.prompts])
    middle = float(np.median(list(near.values())))
    inside = value > middle if (value > middle).any() else value >= middle
    if inside.all() or not inside.any():
        return Finding.not_applicable(code, title, "All held-out prompts are as near to the training prompts as each other.")
    parts = [share(held_out.hits()[m], cluster=held_out.unit[m]) for m in (inside, ~inside)]
    difference = parts[0].estimate - parts[1].estimate
    low = difference - float(np.hypot(parts[0].estimate - parts[0].low, parts[1].high - parts[1].estimate))
    high = difference + float(np.hypot(parts[0].high - parts[0].estimate, parts[1].estimate - parts[1].low))
    verdict: Verdict = "warning" if low > THRESHOLDS.memory_warning else "notice" if low > 0 else "ok"
    return Finding(
        code=code, estimate=difference, low=low, high=high, n=parts[0].n + parts[1].n, unit="share", verdict=verdict,
        title=f"On prompts like those that it was trained on it agrees with {parts[0].said('share')} of the judgments, on the others with {parts[1].said('share')}: {100 * difference:+.1f} points.",
        reason="Held-out prompts are dealt in two at the median of their similarity to the nearest training prompt (cosine of words and letters); ties count half, shares clustered by prompt.",
        remedy="Collect judgments of the far prompts, or let the reward abstain there." if verdict != "ok" else None,
        details={"near": parts[0].estimate, "far": parts[1].estimate, "median_similarity": middle, "severity": low / THRESHOLDS.memory_warning},
    )  # fmt: skip


def nearness(known: Sequence[str], asked: Sequence[str]) -> Array:
    """(len(asked),) cosine similarity of each text to the nearest of those known, by hashed words and letters."""
    encoder = HashEncoder.fit([*known, *asked])
    a, b = (encoder.encode(texts).astype(np.float64) for texts in (asked, known))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return (a @ b.T).max(1)
