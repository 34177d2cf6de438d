"""Why a reward decides as it does: readable features that move it, the judgments a decision rests on, and edits that turn one.

Conventions
-----------
Features are looked at as differences between responses to one prompt, so that what a prompt itself is worth cancels. R2 is the share of
the reward's variance within prompts. What a list of features says is about the list: a feature may stand for another that is not on it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.comparisons import codes_of, compare, counted
from seamark.checks.findings import Finding, Findings
from seamark.checks.scored import check_scored
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, beginning, clustered_share, shown
from seamark.models.features import style_features
from seamark.models.influence import Influence, influence
from seamark.models.observation import Observation
from seamark.models.people import people_from_dict
from seamark.models.result import Fit
from seamark.models.utility import utility_from_dict
from seamark.progress import Progress
from seamark.records import Feedback
from seamark.reward.scorers import TIMEOUT_S, Scored, Scorer, score_texts, texts_of
from seamark.reward.signal import Text

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_FOLDS = 5
_FEW = 10
"""Fewer prompts are no clusters: responses are dealt to folds instead."""
_WORDS = 200
"""Most words and phrases of two words in the list; the rarest that it takes is in this many responses."""
_RAREST = 10
_ROWS_EACH = 5
"""Responses for each feature: with fewer, most of the effects could not be told apart."""
_PAIRS_EACH = 200
"""Pairs of responses to one prompt that decisions are counted on."""
_DRAWS = 400
_STEPS = 5
"""Edits, one after the other, that a budget of scored texts is to last for."""
_RIDGES = tuple(float(10.0**k) for k in np.arange(-3.0, 4.1, 0.5))
_LEAST = 50
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""A run of letters and digits, or one character of a script that is written without spaces."""


# ---------------------------------------------------------------------------------------------- what there is to score


@dataclass(frozen=True)
class _Texts:
    """Responses with prompts, of which the reward says something."""

    prompts: list[Text]
    responses: list[str]
    prompt: Codes
    """(n,) code of each response's prompt."""

    def only(self, rows: Codes) -> _Texts:
        return _Texts([self.prompts[r] for r in rows.tolist()], [self.responses[r] for r in rows.tolist()], self.prompt[rows])


def _texts_of(feedback: Feedback) -> _Texts:
    prompts, texts = texts_of(feedback)
    return _Texts(prompts, [text or "" for text in texts], codes_of(feedback.responses["prompt"]))


def _comparable(feedback: Feedback, most: int, seed: int) -> Codes:
    """Responses with a text to prompts that have two different ones, whole prompts at random up to about so many."""
    table = feedback.responses.select("text", prompt=pl.Series(codes_of(feedback.responses["prompt"]))).with_row_index("row")
    several = table.drop_nulls("text").filter(pl.col("text").n_unique().over("prompt") > 1)
    prompts = several["prompt"].unique(maintain_order=True).to_numpy()
    order = np.random.default_rng(seed).permutation(len(prompts))
    size = dict(several.group_by("prompt").len().iter_rows())
    reached = np.cumsum([size[p] for p in prompts[order].tolist()])
    kept = prompts[order[: max(1, int((reached <= most).sum()))]] if len(prompts) else prompts
    return several.filter(pl.col("prompt").is_in(kept.tolist()))["row"].to_numpy().astype(np.int64)


# ---------------------------------------------------------------------------------------------- features


@dataclass(frozen=True)
class Effect:
    """What a feature goes along with, the others given, in standard deviations of the reward within prompts."""

    name: str
    per_sd: float
    low: float
    high: float
    """By one standard deviation of the feature within prompts; intervals hold for all features at once."""
    per_unit: float
    n: int
    """Responses that have it at all."""


@dataclass(frozen=True)
class Surrogate:
    """A reward told again as a sum of readable features."""

    effects: tuple[Effect, ...]
    """The largest first."""
    r2: Interval
    """On prompts that the surrogate has not seen."""
    decisions: Interval
    """Share of the pairs of responses to such prompts that it orders as the reward does."""
    r2_style: float
    """The same of length and style alone."""
    n_features: int
    by: str
    """What folds are made of: prompt or response."""


def find_features(responses: Sequence[str], prompt: Codes, reward: Array, *, seed: int = 0) -> Surrogate:
    """The additive surrogate of a reward, by ridge regression on named features of the text.

    Effects are debiased and cross-fitted: for feature j, with beta a ridge fit and e_j what the other features do not say of x_j, both
    learned on the other folds,

        theta_j = sum_i e_ij (y_i - x_i beta + x_ij beta_j) / sum_i e_ij x_ij

    with a variance clustered by prompt, so that the ridge shrinks no effect.

    Parameters
    ----------
    responses : (n,) texts; prompt : (n,) codes; reward : (n,) finite numbers.

    Raises
    ------
    InvalidSetting
        If there are fewer than 50 responses to prompts with two, or the reward is the same for all of them.

    Source: Zhang & Zhang 2014 (the debiased estimator), with a ridge in place of the lasso; cross-fitting: Chernozhukov et al. 2018.
    """
    from scipy.stats import t

    _, code, size = np.unique(prompt, return_inverse=True, return_counts=True)
    if (size[code] > 1).sum() < _LEAST:
        raise InvalidSetting("responses", int((size[code] > 1).sum()), f"Features take {_LEAST} responses to prompts with two or more.")
    y = _centred(reward[:, None], code)[:, 0]
    spread = float(np.sqrt((y**2).sum() / max(len(y) - len(size), 1)))
    if spread <= 1e-12:
        raise InvalidSetting("reward", float(reward[0]), "It is the same for all responses to a prompt: there is nothing to explain.")
    names, values, n_style = _features(responses, code)
    x = _centred(values, code)
    sd = np.sqrt((x**2).sum(0) / max(len(y) - len(size), 1))
    moving = sd > 1e-9
    n_style = int(moving[:n_style].sum())
    names, values, x, sd = (
        [n for n, kept in zip(names, moving, strict=True) if kept],
        values[:, moving],
        x[:, moving] / sd[moving],
        sd[moving],
    )
    y = y / spread
    rng = np.random.default_rng(seed)
    by_prompt = len(size) >= _FEW
    unit = code if by_prompt else np.arange(len(y))
    fold = (rng.permutation(int(unit.max()) + 1) % _FOLDS)[unit]
    predicted, style = np.zeros(len(y)), np.zeros(len(y))
    left_over, residual = np.zeros_like(x), np.zeros_like(x)
    for f in range(_FOLDS):
        learn, test = fold != f, fold == f
        beta, ridge = _ridge(x[learn], y[learn])
        predicted[test] = x[test] @ beta
        style[test] = x[test][:, :n_style] @ _ridge(x[learn][:, :n_style], y[learn])[0]
        inverse = np.linalg.inv(x[learn].T @ x[learn] + ridge * np.eye(x.shape[1]))
        left_over[test] = x[test] @ (inverse / np.diag(inverse))
        residual[test] = (y[test] - predicted[test])[:, None] + x[test] * beta
    bend = (left_over * x).sum(0)
    theta = (left_over * residual).sum(0) / bend
    scores = left_over * (residual - x * theta)
    clustered = np.zeros((len(size), x.shape[1]))
    np.add.at(clustered, code, scores)
    k = len(size) if by_prompt else len(y)
    meat = (clustered**2).sum(0) if by_prompt else (scores**2).sum(0)
    # as many degrees of freedom as features are spent on the nuisance, out of fold or not
    free = len(y) - len(size)
    small = k / max(k - 1, 1) * free / max(free - len(names), 1)
    half = t.ppf(1 - 0.025 / len(names), max(k - 1, 1)) * np.sqrt(meat * small) / np.abs(bend)
    has = (values != 0).sum(0)
    order = np.argsort(-np.abs(theta), kind="stable")
    effects = tuple(
        Effect(names[j], float(theta[j]), float(theta[j] - half[j]), float(theta[j] + half[j]), float(theta[j] / sd[j]), int(has[j]))
        for j in order.tolist()
    )
    r2 = _explained(y, predicted, unit, rng)
    hits, cluster, weight = _decisions(y, predicted, code, rng)
    decisions, _ = clustered_share(hits, {"prompt": cluster} if by_prompt else {}, weight=weight)
    return Surrogate(
        effects, r2, decisions, 1 - float(((y - style) ** 2).sum() / (y**2).sum()), len(names), "prompt" if by_prompt else "response"
    )


def _features(responses: Sequence[str], code: Codes) -> tuple[list[str], Array, int]:
    """Names, (n, p) values, and how many of the first are length and style."""
    style = style_features(responses)
    words = [set(_ngrams(text)) for text in responses]
    counts = Counter(word for these in words for word in these)
    room = max(0, min(_WORDS, len(responses) // _ROWS_EACH - len(style.names)))
    common = [word for word, n in counts.items() if _RAREST <= n <= len(responses) - _RAREST]
    place = {word: j for j, word in enumerate(common)}
    rows, columns = [], []
    for i, these in enumerate(words):
        mine = [place[word] for word in these if word in place]
        rows += [i] * len(mine)
        columns += mine
    has = np.zeros((len(responses), len(common)), dtype=np.float32)
    has[rows, columns] = 1
    varied = (_centred(has, code) ** 2).sum(0)
    # what tells most responses to one prompt apart; of equal ones, the first in the alphabet
    kept = sorted(range(len(common)), key=lambda j: (-round(float(varied[j]), 6), common[j]))[:room]
    named = [name.replace("_", " ") for name in style.names] + [f'says "{shown(common[j])}"' for j in kept]
    return named, np.hstack([style.values, has[:, kept].astype(np.float64)]), len(style.names)


def _ngrams(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _centred(values: NDArray[Any], code: Codes) -> NDArray[Any]:
    """(n, p) less the mean of the prompt's."""
    total = np.zeros((int(code.max()) + 1, values.shape[1]), dtype=values.dtype)
    np.add.at(total, code, values)
    return values - (total / np.bincount(code)[:, None].astype(values.dtype))[code]


def _ridge(x: Array, y: Array) -> tuple[Array, float]:
    """(coefficients, penalty), the penalty by generalised cross-validation (Golub, Heath & Wahba 1979)."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    along = u.T @ y
    rest = float(y @ y - along @ along)
    best: tuple[float, float] | None = None
    for penalty in (len(y) * r / 100 for r in _RIDGES):
        kept = s**2 / (s**2 + penalty)
        error = rest + float((((1 - kept) * along) ** 2).sum())
        value = error / (len(y) - float(kept.sum())) ** 2
        if best is None or value < best[0]:
            best = value, penalty
    assert best is not None
    return vt.T @ (s / (s**2 + best[1]) * along), best[1]


def _explained(y: Array, predicted: Array, unit: Codes, rng: np.random.Generator) -> Interval:
    """R2 with a bootstrap over the units of the folds."""
    _, unit = np.unique(unit, return_inverse=True)
    missed, total = np.bincount(unit, (y - predicted) ** 2), np.bincount(unit, y**2)
    drawn = rng.integers(0, len(total), (_DRAWS, len(total)))
    low, high = np.quantile(1 - missed[drawn].sum(1) / np.maximum(total[drawn].sum(1), 1e-12), [0.025, 0.975])
    return Interval(1 - float(missed.sum() / total.sum()), float(low), float(high), len(y), len(total))


def _decisions(y: Array, predicted: Array, code: Codes, rng: np.random.Generator) -> tuple[Array, Codes, Array]:
    """Whether pairs of responses to one prompt are ordered alike (1, 0, or 1/2 where undecided), their prompts, and their weights: a prompt's add up to 1."""
    hits, cluster, weight = list[Array](), list[Codes](), list[Array]()
    for number, rows in enumerate(np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])):
        a, b = np.triu_indices(len(rows), 1)
        if len(a) > _PAIRS_EACH:
            some = rng.choice(len(a), _PAIRS_EACH, replace=False)
            a, b = a[some], b[some]
        truth, told = np.sign(y[rows[a]] - y[rows[b]]), np.sign(predicted[rows[a]] - predicted[rows[b]])
        decided = truth != 0
        if decided.any():
            hits.append((1 + truth * told)[decided] / 2)
            cluster.append(np.full(int(decided.sum()), number))
            weight.append(np.full(int(decided.sum()), 1 / decided.sum()))
    return np.concatenate(hits), np.concatenate(cluster), np.concatenate(weight)


def check_features(surrogate: Surrogate, *, top: int = 20) -> list[Finding]:
    """`explain/fidelity`: how much of the reward the list tells; `explain/features`: what moves it."""
    r2, decisions, effects = surrogate.r2, surrogate.decisions, surrogate.effects
    little = r2.low < THRESHOLDS.fidelity_notice
    told = f"{r2.said('share')} of how the reward differs between responses to one prompt, and {decisions.said('share')} of its decisions between two"
    style = f"length and style alone {max(surrogate.r2_style, 0.0):.0%}"
    held_out = "prompts" if surrogate.by == "prompt" else "responses"
    fidelity = Finding.of(
        r2, code="explain/fidelity", unit="share", verdict="notice" if little else "ok",
        title=(f"A list of {surrogate.n_features} readable features explains little: it tells {told}; {style}." if r2.high < THRESHOLDS.fidelity_notice
               else f"A list of {surrogate.n_features} readable features tells {told}; {style}."),
        reason=f"R2 of an additive surrogate (ridge regression) on {held_out} that it has not seen, {_FOLDS} folds; bootstrap over {held_out}, n counts "
        f"responses, which come from {counted(r2.n_clusters, surrogate.by)}. Half of the pairs are ordered alike by chance.",
        remedy="Read the list of features as part of the story: look at `explain/counterfactual` and the probes for the rest." if little else None,
        source="Ribeiro et al. 2016 (additive surrogates and their fidelity)",
        details={
            "r2_style": surrogate.r2_style,
            "decisions": {"estimate": decisions.estimate, "low": decisions.low, "high": decisions.high, "n": decisions.n},
        },
    )  # fmt: skip
    first = effects[0]
    clear = sum(e.low > 0 or e.high < 0 for e in effects)
    caution = " The list explains little of the reward as a whole." if little else ""
    features = Finding.of(
        Interval(first.per_sd, first.low, first.high, r2.n, r2.n_clusters), code="explain/features", unit="sd of the reward",
        title=f"Of {counted(surrogate.n_features, 'readable feature')}, {clear} clearly move{'s' if clear == 1 else ''} the reward, given the others; most of all "
        f"{first.name}: one standard deviation more goes with {first.per_sd:+.2f} [{first.low:+.2f}, {first.high:+.2f}] standard deviations.{caution}",
        reason="Debiased and cross-fitted effects within prompts, each given all others; intervals are clustered by prompt and hold for all features at "
        "once. An association: a feature may stand for one that is not on the list.",
        source="Zhang & Zhang 2014; Chernozhukov et al. 2018",
        details={"features": [
            {"feature": e.name, "estimate": e.per_sd, "low": e.low, "high": e.high, "per_unit": e.per_unit, "n": e.n} for e in effects[:top]
        ]},
    )  # fmt: skip
    return [features, fidelity]


# ---------------------------------------------------------------------------------------------- the judgments behind a decision


def check_influence(found: Influence, *, top: int = 20, sample: int = 40, seed: int = 0) -> Finding:
    """`explain/influence`: how well first-order influence tells what leaving judgments out does, and what the decisions rest on.

    The estimate is the correlation between predicted and actual change over judgments drawn at random, each left out by itself with the
    strengths of priors kept, each gap in its own standard deviations; then, for each gap, the fewest judgments that are predicted to turn
    the decision are removed, and everything is fitted anew.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(found.cells), min(sample, len(found.cells)), replace=False)
    actual = found.leave_out([np.array([c]) for c in drawn], whole=False) - found.gap
    ones = np.minimum(found.cells["count"].to_numpy()[drawn], 1.0)[:, None]
    predicted = ones * found.change[drawn]
    scale = np.maximum(actual.std(0), 1e-12)
    moved, told = actual / scale, predicted / scale
    value = _correlation(told, moved)
    rows = rng.integers(0, len(drawn), (_DRAWS, len(drawn)))
    low, high = np.quantile([_correlation(told[r], moved[r]) for r in rows], [0.025, 0.975])
    slope = float((told * moved).sum() / max((told**2).sum(), 1e-300))
    decisions = [_decision(found, g, seed) for g in range(len(found.gap))]
    tried = [d for d in decisions if d["turned"] is not None]
    turned = sum(bool(d["turned"]) for d in tried)
    fewest = min(tried, key=lambda d: d["judgments"], default=None)
    said = (
        f" In {turned} of {counted(len(tried), 'decision')} a fit without the judgments that were predicted to turn it decides the other way"
        + (
            f"; the least firm rests on {counted(fewest['judgments'], 'judgment')} of {round(found.cells['count'].sum()):,}"
            if fewest
            else ""
        )
        + "."
        if tried
        else " No decision can be turned by leaving judgments out."
    )
    weak = low < THRESHOLDS.influence_notice
    return Finding(
        code="explain/influence",
        title=f"Influence tells what leaving one judgment out does: correlation {value:.2f} [{low:.2f}, {high:.2f}] with {counted(len(drawn), 'refit')}.{said}",
        estimate=value, low=float(low), high=float(high), n=len(drawn), unit="correlation", verdict="notice" if weak else "ok",
        reason="First-order change of gaps by the curvature of the fit, against modes found without the judgment, priors kept; bootstrap over the judgments drawn, "
        f"which are n. Actual changes are {slope:.2f} times the predicted. Removals of several judgments are fitted from the beginning.",
        remedy="Trust the order of influences little: refit without the judgments in question." if weak else None,
        source="Koh & Liang 2017; Broderick, Giordano & Meager 2020",
        details={"decisions": decisions, "slope": slope, "judgments": _responsible(found, 0, top)},
    )  # fmt: skip


def _correlation(a: Array, b: Array) -> float:
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 1e-12 else 0.0


def _decision(found: Influence, gap: int, seed: int) -> dict[str, Any]:
    """What turns a decision, by prediction and in fact."""
    responses = found.problem.given.responses["id"]
    cells = found.fewest(gap)
    predicted = float(found.predicted(cells)[gap]) if len(cells) else float(found.gap[gap])
    can = predicted * found.gap[gap] < 0
    actual = float(found.refit(cells, seed=seed)[gap]) if can else None
    return {
        "preferred": str(responses[int(found.left[gap])]), "over": str(responses[int(found.right[gap])]), "gap": float(found.gap[gap]),
        "judgments": round(float(found.cells["count"].to_numpy()[cells].sum())), "predicted": predicted, "refit": actual,
        "turned": None if actual is None else bool(actual * found.gap[gap] < 0),
    }  # fmt: skip


def _responsible(found: Influence, gap: int, top: int) -> list[dict[str, Any]]:
    """The judgments that a gap owes most to, either way."""
    given, total = found.problem.given, found.cells["count"].to_numpy() * found.change[:, gap]
    raters, responses, rows = given.raters["id"].to_list(), given.responses["id"].to_list(), list[dict[str, Any]]()
    for cell in np.argsort(-np.abs(total), kind="stable")[:top].tolist():
        row = found.cells.row(cell, named=True)
        rows.append(
            {
                "rater": raters[row["rater"]] if row["rater"] < len(raters) else None, "responses": ", ".join(str(responses[r]) for r in row["shown"]),
                "winner": None if row["winner"] is None else str(responses[row["winner"]]), "count": round(row["count"]), "without": float(total[cell]),
                "rows": ", ".join(str(r) for r in found.rows(cell)[:5].tolist()),
            }
        )  # fmt: skip
    return rows


def explain_fit(fit: Fit, feedback: Feedback, *, pairs: Sequence[tuple[int, int]] | None = None, top: int = 20, seed: int = 0) -> Finding:
    """`explain/influence` for decisions of a fit, which is fitted again to the judgments that it was fitted to.

    Parameters
    ----------
    pairs : (response, response) codes of the decisions; of those that judgments compare, three at random where left out.
    """
    code, title = "explain/influence", "Which judgments a decision rests on cannot be told."
    if fit.fingerprint != feedback.fingerprint:
        why = "These are not the judgments that the fit was fitted to."
        return Finding.not_applicable(code, title, why, remedy="Give the source that was fitted, as a whole.")
    if fit.basis.walk is not None:
        return Finding.not_applicable(code, title, "Values move in time, and no curvature is kept that one judgment could be taken out of.")
    if pairs is None:
        compared = compare(feedback, seed=seed).most_direct()
        known = np.flatnonzero(compared.left != compared.right)
        some = np.random.default_rng(seed).choice(known, min(3, len(known)), replace=False)
        pairs = list(zip(compared.left[some].tolist(), compared.right[some].tolist(), strict=True))
    if not pairs:
        return Finding.not_applicable(code, title, "No judgment compares two responses.")
    left, right = np.array(pairs, dtype=np.int64).T
    # preferred - other: what turns a decision then has one sign
    turn = fit.utilities(feedback)
    left, right = np.where(turn[left] >= turn[right], left, right), np.where(turn[left] >= turn[right], right, left)
    found = influence(
        feedback, left, right, utility=utility_from_dict(fit.spec["utility"]), people=people_from_dict(fit.spec["people"]),
        observation=Observation.from_dict(fit.spec["observation"]), require_identified=False, start=fit,
        seed=fit.spec["seed"],
    )  # fmt: skip
    return check_influence(found, top=top, seed=seed)


# ---------------------------------------------------------------------------------------------- edits that turn a decision


@dataclass(frozen=True)
class Counterfactual:
    """The smallest edit found that turns a decision between two responses."""

    text: str
    edited: str
    turned: bool
    words: int
    """Of the text."""
    changed: int
    """Words left out or put in."""
    edits: tuple[str, ...]
    """What is left out in the end, run by run, and what was swapped for what."""
    path: tuple[float, ...]
    """Score less that of the other response: of the text as it is, then step by step; the last is that of `edited`."""
    n_scored: int


@dataclass(frozen=True)
class _Draft:
    """A text with some of its words left out and some of its sentences swapped."""

    kept: NDArray[np.bool_]
    swapped: tuple[tuple[int, int], ...] = ()
    """(sentence, sentence of the other response that stands in its place)."""


@dataclass(frozen=True)
class _Source:
    """A text taken apart."""

    tokens: list[str]
    """Words with the blanks after them; joined, the text."""
    sentence: Codes
    """(n,) number of each word's sentence."""
    others: list[str]
    """Sentences of the other response."""

    @staticmethod
    def of(text: str, other: str) -> _Source:
        tokens, sentence = _tokens(text)
        theirs, number = _tokens(other)
        count = int(number.max(initial=-1)) + 1
        return _Source(tokens, sentence, ["".join(t for t, s in zip(theirs, number, strict=True) if s == k) for k in range(count)])

    def read(self, draft: _Draft) -> str:
        """The text of a draft."""
        if not draft.swapped:
            return "".join(t for t, kept in zip(self.tokens, draft.kept, strict=True) if kept).strip()
        place, out, done = dict(draft.swapped), list[str](), set[int]()
        for token, s, kept in zip(self.tokens, self.sentence.tolist(), draft.kept, strict=True):
            if s not in place:
                out += [token] if kept else []
            elif s not in done:
                done.add(s)
                out.append(self.others[place[s]].rstrip() + " ")
        return "".join(out).strip()

    def edits(self, draft: _Draft) -> tuple[str, ...]:
        """What a draft changes, in words."""
        out, run = list[str](), list[str]()
        swapped = {s for s, _ in draft.swapped}
        for token, s, kept in zip([*self.tokens, ""], [*self.sentence.tolist(), -1], [*draft.kept.tolist(), True], strict=True):
            if not kept and s not in swapped:
                run.append(token)
            elif run:
                out.append(f"left out: {''.join(run).strip()}")
                run = []
        for s, k in draft.swapped:
            gone = "".join(t for t, own in zip(self.tokens, self.sentence.tolist(), strict=True) if own == s)
            out.append(f"swapped: {gone.strip()} for: {self.others[k].strip()}")
        return tuple(out)

    def size(self, draft: _Draft) -> int:
        """Words left out, or put in where those are more."""
        gone = int((~draft.kept).sum())
        return gone + sum(max(0, len(self.others[k].split()) - int((self.sentence == s).sum())) for s, k in draft.swapped)


_TOKEN = re.compile(r"\s*\S+\s*")
_END = re.compile(r"[.!?\u3002\uff01\uff1f\u2026][\"'\u201d\u2019)\]]*\s+$|\n\s*$")


def _tokens(text: str) -> tuple[list[str], Codes]:
    tokens = _TOKEN.findall(text)
    ends = np.array([bool(_END.search(t)) for t in tokens], dtype=np.int64)
    return tokens, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(ends)[:-1]]) if len(tokens) else ends


def find_edit(
    scorer: Scorer,
    prompt: Text,
    text: str,
    other: str,
    *,
    budget: int = 200,
    cache: str | Path | None = None,
    name: str = "",
    timeout_s: float = TIMEOUT_S,
    seed: int = 0,
) -> Counterfactual | None:
    """The smallest edit of a text found that turns the decision between it and another response; None where either has no score, or both
    have the same.

    Greedy: of all single edits (a sentence or a word left out, a sentence swapped with one of the other response) the smallest that turns
    the decision, or else the one that moves it furthest, and again. Then words that need not be gone are put back. `budget` is the number of
    distinct texts that are scored; where it runs out the decision may stand.
    """
    source = _Source.of(text, other)
    rng = np.random.default_rng(seed)
    held: dict[str, float] = {}

    def scores(texts: Sequence[str]) -> list[float]:
        new = list(dict.fromkeys(t for t in texts if t not in held))
        if new:
            found = score_texts(scorer, [prompt] * len(new), new, cache=cache, name=name, timeout_s=timeout_s).values
            held.update(zip(new, found.tolist(), strict=True))
        return [held[t] for t in texts]

    start, against = scores([text, other])
    sign = np.sign(start - against)
    if not np.isfinite(start) or not np.isfinite(against) or sign == 0 or not source.tokens:
        return None
    whole = _Draft(np.ones(len(source.tokens), dtype=bool))
    draft, path = whole, [start - against]

    def margins(drafts: Sequence[_Draft]) -> Array:
        """How far each is from being turned: below 0 it is; without a score it is nowhere."""
        found = np.array(scores([source.read(d) for d in drafts]))
        return np.where(np.isfinite(found), sign * (found - against), np.inf)

    left = path[0] * sign
    while left > 0 and len(held) < budget:
        options = _single_edits(source, draft, rng, budget // _STEPS)[: budget - len(held)]
        if not options:
            break
        reached = margins(options)
        turns = np.flatnonzero(reached < 0)
        best = min(turns.tolist(), key=lambda i: (source.size(options[i]), reached[i])) if len(turns) else int(reached.argmin())
        if not reached[best] < left:
            break
        draft, left = options[best], float(reached[best])
        path.append(sign * left)
    if left < 0:
        smaller, left = _put_back(source, draft, left, margins, lambda: budget - len(held))
        if smaller is not draft:
            draft = smaller
            path.append(sign * left)
    return Counterfactual(
        text, source.read(draft), left < 0, len(source.tokens), source.size(draft), source.edits(draft), tuple(map(float, path)), len(held)
    )


def _single_edits(source: _Source, draft: _Draft, rng: np.random.Generator, room: int) -> list[_Draft]:
    """One more edit each: all sentences left out, and words left out or sentences swapped at random, `room` in all where there are as many."""
    swapped, kept = dict(draft.swapped), draft.kept
    sentences = [s for s in np.unique(source.sentence[kept]).tolist() if s not in swapped]
    out = [_Draft(kept & (source.sentence != s), draft.swapped) for s in sentences] if len(sentences) > 1 else []
    words = [t for t in np.flatnonzero(kept).tolist() if source.sentence[t] not in swapped]
    rest = [(t, -1) for t in words if len(words) > 1]
    rest += [(s, k) for s in sentences for k in range(len(source.others)) if k not in swapped.values()]
    for place in rng.permutation(len(rest))[: max(0, room - len(out))].tolist():
        where, k = rest[place]
        if k < 0:
            out.append(_Draft(kept & (np.arange(len(kept)) != where), draft.swapped))
        else:
            out.append(_Draft(kept & (source.sentence != where), (*draft.swapped, (where, k))))
    return out


def _put_back(
    source: _Source, draft: _Draft, left: float, margins: Callable[[Sequence[_Draft]], Array], room: Callable[[], int]
) -> tuple[_Draft, float]:
    """The draft with as many words put back as leave the decision turned: halves of what is gone, then halves of these."""
    swapped = {s for s, _ in draft.swapped}
    gone = np.array([t for t in np.flatnonzero(~draft.kept).tolist() if source.sentence[t] not in swapped], dtype=np.int64)
    runs = [gone] if len(gone) > 1 else []
    while runs and room() > 0:
        run = runs.pop(0)
        if len(run) < len(gone) or swapped:
            tried = _Draft(draft.kept.copy(), draft.swapped)
            tried.kept[run] = True
            if (now := float(margins([tried])[0])) < 0:
                draft, left = tried, now
                continue
        if len(run) > 1:
            runs += [run[: len(run) // 2], run[len(run) // 2 :]]
    return draft, left


def check_edits(found: Sequence[tuple[str, Counterfactual]], *, budget: int) -> Finding:
    """`explain/counterfactual`: how many decisions small edits turn, and how small they are.

    Parameters
    ----------
    found : for each decision, what was edited (preferred, or other) with the smaller of the two edits.
    """
    code = "explain/counterfactual"
    if not found:
        why = "The reward gave no pair of texts two different scores."
        return Finding.not_applicable(code, "No decision can be turned by edits.", why)
    turned = [(which, c) for which, c in found if c.turned]
    share, _ = clustered_share(np.array([float(c.turned) for _, c in found]), {})
    title = f"Of {counted(len(found), 'decision')} of the reward, {len(turned)} are turned by editing one of the two texts"
    if turned:
        changed = float(np.median([c.changed for _, c in turned]))
        part = float(np.median([c.changed / max(c.words, 1) for _, c in turned]))
        which, least = min(turned, key=lambda pair: (pair[1].changed, pair[1].words))
        title += (
            f": half of these change {counted(round(changed), 'word')} or fewer ({part:.0%} of the text). The smallest edits the {which} text: "
            f'"{beginning("; ".join(least.edits))}"'
        )
    rows = [
        {
            "edited": which, "turned": c.turned, "words": c.words, "changed": c.changed, "before": c.path[0], "after": c.path[-1], "scored": c.n_scored,
            "edits": "; ".join(shown(e) for e in c.edits), "text": c.text, "result": c.edited,
        }
        for which, c in found
    ]  # fmt: skip
    return Finding.of(
        share, code=code, title=f"{title}.", unit="share", reason=f"Sentences and words left out, sentences swapped with the other response's; greedy, at most {budget:,} "
        "texts scored for each side of a decision, so smaller edits may exist. n counts decisions; the estimate is the share turned.",
        source="Wachter, Mittelstadt & Russell 2018 (counterfactual explanations)",
        details={"pairs": rows, "paths": [list(c.path) for _, c in found]},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- all of it


def explain(
    scorer: Scorer,
    feedback: Feedback,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    limit: int = 3000,
    budget: int = 100,
    top: int = 20,
    cache: str | Path | None = None,
    name: str = "",
    timeout_s: float = TIMEOUT_S,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """What moves a reward, from its scores alone: features with their fidelity, and edits that turn its decisions.

    Parameters
    ----------
    feedback : whose responses are scored, at most about `limit`, whole prompts at random; its judgments are not looked at.
    pairs : (response, response) codes of the decisions that edits are to turn; five at random where left out.
    budget : texts scored for each side of a decision.
    cache, name, timeout_s : as in `score_texts`.

    Returns
    -------
    The findings about the scores (`scorer`), `explain/features`, `explain/fidelity`, `explain/counterfactual`.
    """
    rows = _comparable(feedback, limit, seed)
    everything = _texts_of(feedback)
    texts = everything.only(rows)
    scored = score_texts(scorer, texts.prompts, texts.responses, cache=cache, name=name, timeout_s=timeout_s, progress=progress)
    findings = [*check_scored(scored)]
    findings += _of_features(texts, scored, top, seed)
    pairs = _drawn_pairs(texts, rows, scored, 5, seed) if pairs is None else pairs
    edits: list[tuple[str, Counterfactual]] = []
    for number, (a, b) in enumerate(pairs):
        if found := _smaller(scorer, everything.only(np.array([a, b])), budget, cache, name, timeout_s, seed):
            edits.append(found)
        if progress is not None:
            progress("editing", (number + 1) / len(pairs))
    return Findings((*findings, check_edits(edits, budget=budget)))


def _of_features(texts: _Texts, scored: Scored, top: int, seed: int) -> list[Finding]:
    known = np.isfinite(scored.values)
    try:
        surrogate = find_features(
            [t for t, k in zip(texts.responses, known, strict=True) if k], texts.prompt[known], scored.values[known], seed=seed
        )
    except InvalidSetting as error:
        why = f"There are {error.value} of them. {error.remedy}" if error.name == "responses" else error.remedy
        return [
            Finding.not_applicable(f"explain/{code}", "What moves the reward cannot be told.", why) for code in ("features", "fidelity")
        ]
    return check_features(surrogate, top=top)


def decisions_of(feedback: Feedback, *, pair: int | None = None, prompts: Sequence[str] = ()) -> list[tuple[int, int]] | None:
    """The decisions that are named, as codes of responses: the N-th judgment of two, from 1, and, of prompts by id or name, neighbours in
    the order in which their responses came; None where none are.

    Raises
    ------
    InvalidSetting
        If there is no such judgment, or no such prompt with two responses with texts.
    """
    if pair is None and not prompts:
        return None
    out: list[tuple[int, int]] = []
    has_text = feedback.responses["text"].is_not_null().to_numpy()
    if pair is not None:
        judged = feedback.pairs()
        if not 1 <= pair <= judged.height:
            raise InvalidSetting("pair", pair, f"There are {counted(judged.height, 'judgment')} of two responses, counted from 1.")
        one, two = int(judged["left"][pair - 1]), int(judged["right"][pair - 1])
        if not (has_text[one] and has_text[two]):
            raise InvalidSetting("pair", pair, "One of its responses has no text to explain; take a pair of two texts.")
        out.append((one, two))
    table = feedback.prompts.with_row_index("code")
    for named in prompts:
        codes = table.filter((pl.col("id") == named) | (pl.col("name") == named))["code"].to_list()
        mine = np.flatnonzero(np.isin(codes_of(feedback.responses["prompt"]), codes) & has_text)
        if len(mine) < 2:
            raise InvalidSetting("prompt", named, "Name a prompt of the source, by id or name, that has two responses with texts.")
        out += list(pairwise(mine.tolist()))
    return out


def _drawn_pairs(texts: _Texts, rows: Codes, scored: Scored, n: int, seed: int) -> list[tuple[int, int]]:
    """Of some prompts at random, two responses that the reward tells apart."""
    rng = np.random.default_rng(seed)
    out: list[tuple[int, int]] = []
    for prompt in rng.permutation(np.unique(texts.prompt)).tolist():
        mine = np.flatnonzero((texts.prompt == prompt) & np.isfinite(scored.values))
        if len(np.unique(scored.values[mine])) > 1 and len(out) < n:
            a = int(rng.choice(mine))
            b = int(rng.choice(mine[scored.values[mine] != scored.values[a]]))
            out.append((int(rows[a]), int(rows[b])))
    return out


def _smaller(
    scorer: Scorer, texts: _Texts, budget: int, cache: str | Path | None, name: str, timeout_s: float, seed: int
) -> tuple[str, Counterfactual] | None:
    """The smaller of two edits: of the text that is preferred, and of the other one."""
    found: list[tuple[str, Counterfactual]] = []
    for text, other in (texts.responses, texts.responses[::-1]):
        edit = find_edit(scorer, texts.prompts[0], text, other, budget=budget, cache=cache, name=name, timeout_s=timeout_s, seed=seed)
        if edit is not None:
            found.append(("preferred" if edit.path[0] > 0 else "other", edit))
    return min(found, key=lambda pair: (not pair[1].turned, pair[1].changed), default=None)
