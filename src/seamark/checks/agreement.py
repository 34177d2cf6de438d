"""Do raters agree, how well can anyone predict one of them, and do they agree with themselves?

Conventions
-----------
A *unit* is one question (see `comparisons`). Values of a unit are the answers of its raters; where rater ids are known, each
rater counts once per unit, with the first answer (the others are the subject of `agreement/self`).

Krippendorff's alpha is 1 - D_o / D_e. With m_u values in unit u, n_uc of them equal to c, and units with m_u < 2 left out,

    o_ck = sum_u (n_uc n_uk - [c = k] n_uc) / (m_u - 1),   n_c = sum_k o_ck,   n = sum_c n_c
    D_o = sum_ck o_ck d_ck / n,   D_e = sum_ck n_c n_k d_ck / (n (n - 1))

with d nominal [c != k], interval (c - k)^2, ratio ((c - k) / (c + k))^2, ordinal (r_c - r_k)^2 where r_c counts the values
below c plus half of those equal to c. Source: Krippendorff 2004, Content Analysis, ch. 11.

Deviation for pairs and choices: which response is called "first" is arbitrary, so n_c is averaged over the names that a unit's
responses could have been given (for a pair: n_c = the mean over "this one" and "that one"). Alpha then does not depend on the
order in which responses happen to be listed. With several axes, D_o and D_e are summed over axes, so that a difference
between axes does not pass for agreement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.comparisons import (
    Codes,
    Comparisons,
    bracket,
    bracket_number,
    code_text,
    codes_of,
    combine,
    compact,
    compare,
    counted,
    percent,
)
from seamark.checks.findings import Finding, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import FEW_CLUSTERS, clustered_share, share
from seamark.records import Feedback

Metric = Literal["nominal", "ordinal", "interval", "ratio"]
Floats = NDArray[np.float64]

_MANY_VALUES = 25  # above it, only moments are kept: a table of value pairs per block would not be bounded
_BLOCKS = 1000
_ROUNDS = 300
_LARGEST = 12
SOURCE = "Krippendorff 2004, Content Analysis, ch. 11"


def krippendorff_alpha(
    values: NDArray[np.float64] | NDArray[np.integer] | NDArray[np.bool_],
    units: NDArray[np.integer],
    *,
    raters: NDArray[np.integer] | None = None,
    metric: Metric = "nominal",
) -> float | None:
    """Krippendorff's alpha of a long table, or None where no value varies or no unit has two values.

    Time and memory grow with the rows, not with units x raters: no table of who answered what is made.

    Parameters
    ----------
    values : (n,) answers as numbers; units : (n,) code of the question each answers, 0 or more.
    raters : (n,) code of who answered, -1 where it is not known. Of several answers by one rater to a unit the first counts; without
    raters every answer is taken to be by someone else.
    metric : how far two values are apart; see the top of the module.

    Raises
    ------
    InvalidSetting
        If the arrays are of unequal length, a value is not a finite number, or ratio is asked of more than 400 distinct values.

    Examples
    --------
    >>> round(krippendorff_alpha(np.array([1.0, 1, 2, 2, 1, 2]), np.array([0, 0, 1, 1, 2, 2])), 3)
    0.444
    """
    for name, column in (("units", units), ("raters", raters)):
        if column is not None and len(column) != len(values):
            raise InvalidSetting(name, f"an array of {len(column):,}", f"There are {len(values):,} values.")
    if values.dtype.kind == "f" and not np.isfinite(values.sum()) and not np.isfinite(values).all():
        raise InvalidSetting("values", "not finite", "Leave out the rows of answers that are not known.")
    if raters is not None and (first := _first_answers(units, raters)) is not None:
        values, units = values[first], units[first]
    table = _tabulate(values, units, None, metric=metric)
    return None if table is None else table.alpha()


def _first_answers(units: NDArray[np.integer], raters: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Which rows hold the first answer of a rater to a unit; None where all of them do. Raters that are not known (-1) are different people."""
    n = len(units)
    if not n or (raters < 0).all():
        return None
    known = None if raters.min() >= 0 else np.flatnonzero(raters >= 0)
    unit, rater = (units, raters) if known is None else (units[known], raters[known])
    n_raters = int(rater.max()) + 1
    cells = (int(unit.max()) + 1) * n_raters
    key = unit.astype(np.int64) * n_raters + rater
    if cells <= 16 * n + 1024:
        answered = np.zeros(cells, dtype=bool)
        answered[key] = True
        if np.count_nonzero(answered) == len(key):
            return None
        row = np.empty(cells, dtype=np.int64)
        row[key[::-1]] = np.arange(len(key))[::-1]  # of several writes to one cell the last stands: the first answer
        first = row[key] == np.arange(len(key))
    else:
        row = np.unique(key, return_index=True)[1]
        if len(row) == len(key):
            return None
        first = np.zeros(len(key), dtype=bool)
        first[row] = True
    if known is None:
        return first
    out = np.ones(n, dtype=bool)
    out[known] = first
    return out


# ---------------------------------------------------------------------------------------------- alpha


@dataclass(frozen=True)
class _Table:
    """Per block of units, what alpha needs: coincidences, or moments where there are many values."""

    per_block: Floats
    """(n_blocks, K * K) coincidences; or moments (n_blocks, 4): n D_o, n, sum x, sum x^2."""
    values: Floats | None
    """(K,) the distinct values, None for moments."""
    metric: Metric
    average: Floats | None
    """(K, K) map of n_c to its mean over the names of the responses, or None."""
    n_units: int
    concentration: float = 0.0
    """sum (n_c / n)^2, for nominal moments; taken as known when blocks are redrawn."""

    def parts(self, weight: Floats) -> tuple[Floats, Floats]:
        """n D_o and n D_e for each row of block weights (rounds, n_blocks)."""
        total = weight @ self.per_block
        if self.values is None:
            observed, n, s1, s2 = total.T
            if self.metric == "nominal":
                return observed, n * n * (1 - self.concentration) / np.maximum(n - 1, 1)
            return observed, 2 * (n * s2 - s1 * s1) / np.maximum(n - 1, 1)
        k = len(self.values)
        o = total.reshape(-1, k, k)
        counts = o.sum(2)
        if self.average is not None:
            counts = counts @ self.average
        n = counts.sum(1)
        if self.metric == "nominal":
            return n - np.trace(o, axis1=1, axis2=2), (n * n - (counts * counts).sum(1)) / np.maximum(n - 1, 1)
        if self.metric == "ordinal":
            place = np.cumsum(counts, axis=1) - counts / 2
            distance = (place[:, :, None] - place[:, None, :]) ** 2
        else:
            x = self.values
            gap = x[:, None] - x[None, :]
            if self.metric == "ratio":
                both = x[:, None] + x[None, :]
                gap = np.divide(gap, both, out=np.zeros_like(gap), where=both != 0)
            distance = np.broadcast_to(gap**2, o.shape)
        return (o * distance).sum((1, 2)), (counts[:, :, None] * counts[:, None, :] * distance).sum((1, 2)) / np.maximum(n - 1, 1)

    def whole(self) -> tuple[float, float]:
        observed, expected = self.parts(np.ones((1, len(self.per_block))))
        return float(observed[0]), float(expected[0])

    def alpha(self) -> float | None:
        observed, expected = self.whole()
        return 1 - observed / expected if expected > 1e-12 else None

    def resampled(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """n D_o and n D_e when blocks are drawn with replacement."""
        k = len(self.per_block)
        return self.parts(rng.multinomial(k, np.full(k, 1 / k), size=_ROUNDS).astype(np.float64))


def _tabulate(
    values: NDArray[np.float64] | NDArray[np.integer] | NDArray[np.bool_],
    units: NDArray[np.integer],
    cluster: Codes | None,
    *,
    metric: Metric,
    names: int = 0,
    mirrored: bool = False,
    seed: int = 0,
) -> _Table | None:
    """The table of the units with two or more values, dealt at random into at most `_BLOCKS` blocks of whole clusters (None: one block).

    `names`: the first so many values are names of responses, which could be exchanged; `mirrored`: so could x and -x.
    """
    if not len(values):
        return None
    unit, count = _counted(units)
    if (count < 2).any():
        several = (count > 1)[unit]
        values, unit = values[several], unit[several]
        cluster = None if cluster is None else cluster[several]
        if not len(values):
            return None
        unit, count = _counted(unit)
    n_units = len(count)
    size = count.astype(np.float64)
    block, n_blocks = np.zeros(n_units, dtype=np.int64), 1
    if cluster is not None:
        owner, n_blocks = compact(cluster)
        if n_blocks > _BLOCKS:
            owner, n_blocks = (np.random.default_rng(seed).permutation(n_blocks) % _BLOCKS)[owner], _BLOCKS
        block[unit] = owner
    distinct, code = _levels(values)
    if names or mirrored:
        # a name that nobody chose is a name nevertheless
        more = np.union1d(distinct, np.arange(names, dtype=np.float64) if names else -distinct)
        code, distinct = np.searchsorted(more, distinct)[code], more
    k = len(distinct)
    frequency = np.bincount(code, minlength=k)

    if k > _MANY_VALUES and metric != "ratio":
        concentration = 0.0
        if metric == "nominal":
            _, pair, together = np.unique(unit.astype(np.int64) * k + code, return_index=True, return_counts=True)
            agreeing = np.bincount(unit[pair], weights=together * (together - 1.0), minlength=n_units)
            columns = [(size * (size - 1) - agreeing) / (size - 1), size, np.zeros(n_units), np.zeros(n_units)]
            concentration = float(((frequency / len(values)) ** 2).sum())
        else:
            x = values.astype(np.float64)
            x -= x.mean()  # alpha does not change, and the sums of squares keep their digits
            if metric == "ordinal":
                x = ((np.cumsum(frequency) - frequency / 2)[code] - len(values) / 2) / len(values)
            s1, s2 = np.bincount(unit, weights=x), np.bincount(unit, weights=x * x)
            columns = [2 * (size * s2 - s1 * s1) / (size - 1), size, s1, s2]
        per_block = np.stack([np.bincount(block, weights=c, minlength=n_blocks).astype(np.float64) for c in columns], 1)
        return _Table(per_block, None, metric, None, n_units, concentration)

    if k > 400:
        raise InvalidSetting("metric", metric, f"There are {k} distinct values; ratio takes at most 400, interval any number.")
    if k > _MANY_VALUES:
        block, n_blocks = np.zeros_like(block), 1
    counts = np.bincount(unit.astype(np.int64) * k + code, minlength=n_units * k).reshape(n_units, k).astype(np.float64)
    per_block = np.zeros((n_blocks, k, k))
    if n_blocks == 1:
        shares = counts / (size - 1)[:, None]
        per_block[0] = counts.T @ shares - np.diag(shares.sum(0))
    else:
        for c in range(k):
            for d in range(c, k):
                seen = counts[:, c] * (counts[:, d] - (c == d)) / (size - 1)
                per_block[:, c, d] = per_block[:, d, c] = np.bincount(block, weights=seen, minlength=n_blocks)
    average = None
    if names:
        named = distinct < names
        average = np.diag((~named).astype(np.float64))
        average[np.ix_(named, named)] = 1 / names
    elif mirrored:
        average = (np.eye(k) + np.eye(k)[::-1]) / 2
    return _Table(per_block.reshape(n_blocks, k * k), distinct, metric, average, n_units)


def _counted(codes: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Codes without gaps, and how often each occurs."""
    if codes.min() >= 0 and codes.max() < 4 * len(codes):
        count = np.bincount(codes)
        if count.all():
            return codes, count
    dense, n = compact(codes.astype(np.int64))
    return dense, np.bincount(dense, minlength=n)


def _levels(values: NDArray[np.float64] | NDArray[np.integer] | NDArray[np.bool_]) -> tuple[Floats, NDArray[np.integer]]:
    """The distinct values in order, and the place of each value among them: by counting where they are whole numbers of a short range."""
    low, high = float(values.min()), float(values.max())
    if high - low < 4096 and abs(low) < 2**52:
        whole: NDArray[np.integer] = values if values.dtype.kind in "iu" else values.astype(np.int64)  # type: ignore[assignment]  # whole by its kind
        if values.dtype.kind != "f" or (whole == values).all():
            code = whole if low == 0 else whole.astype(np.int64) - int(low)
            present = np.bincount(code) > 0
            distinct = np.flatnonzero(present).astype(np.float64) + low
            return distinct, code if present.all() else (np.cumsum(present) - 1)[code]
    distinct, code = np.unique(values, return_inverse=True)
    return distinct.astype(np.float64), code


# ---------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class _Answers:
    """The answers of one kind, as numbers per unit."""

    kind: str
    value: Floats
    unit: Codes
    rater: Codes
    cluster: Codes
    """Units that are not independent of each other: the unit itself, or the prompt for pairs implied by a ranking."""
    axis: Codes
    group: Codes
    names: Codes
    """How many of the lowest values are names of responses (0: none are)."""
    metric: Metric = "nominal"
    mirrored: bool = False

    def where(self, mask: NDArray[np.bool_]) -> _Answers:
        fields = (
            self.value[mask],
            self.unit[mask],
            self.rater[mask],
            self.cluster[mask],
            self.axis[mask],
            self.group[mask],
            self.names[mask],
        )
        return _Answers(self.kind, *fields, self.metric, self.mirrored)

    def one_per_rater(self) -> _Answers:
        """Only the first answer of each rater to each unit."""
        first = _first_answers(self.unit, self.rater)
        return self if first is None else self.where(first)


def _answers(feedback: Feedback, comparisons: Comparisons) -> list[_Answers]:
    """The answers of each kind in the data, most judgments first; a second entry for pairs whose strength is known."""
    frame = feedback.judgments
    unit, rater = comparisons.question, codes_of(frame["rater"])
    axis, group = code_text(frame["axis"])[0], code_text(frame["group"])[0]
    kinds, outcome = frame["kind"].cast(pl.String), frame["outcome"].cast(pl.String)
    answered = ~outcome.is_in(["cannot_tell", "skipped"]).to_numpy()
    out: list[_Answers] = []

    def take(kind: str, rows: Codes, value: Floats, names: Codes | int, *, metric: Metric = "nominal", mirrored: bool = False) -> None:
        if len(rows):
            per_row = np.broadcast_to(np.asarray(names, dtype=np.int64), rows.shape).copy()
            columns = (unit[rows], rater[rows], unit[rows], axis[rows], group[rows], per_row)
            out.append(_Answers(kind, value, *columns, metric=metric, mirrored=mirrored))

    def rows_of(kind: str) -> Codes:
        return np.flatnonzero((kinds == kind).to_numpy() & answered)

    rows = rows_of("pair")
    if len(rows):
        part = frame[rows]
        left, right = codes_of(part["responses"].list.get(0)), codes_of(part["responses"].list.get(1))
        said = part["outcome"].cast(pl.String)
        sign = (said == "left").to_numpy().astype(np.int64) - (said == "right").to_numpy().astype(np.int64)
        low_wins = sign * np.sign(right - left)  # +1: the response with the lower code
        value: Floats = np.select([(said == "both_bad").to_numpy(), low_wins > 0, low_wins < 0], [3.0, 0.0, 1.0], 2.0).astype(np.float64)
        two = left != right
        take("pair", rows[two], value[two], 2)
        if feedback.has("strength"):
            strength = part["strength"].cast(pl.Float64).fill_null(0.0).to_numpy()
            graded = two & (((said == "tie").to_numpy()) | ((sign != 0) & (strength > 0)))
            if (sign[graded] != 0).any():
                take("strength", rows[graded], (low_wins * strength)[graded].astype(np.float64) + 0.0, 0, metric="ordinal", mirrored=True)

    rows = rows_of("choice")
    if len(rows):
        part = frame[rows]
        n_shown = part["responses"].list.len().cast(pl.Int64).to_numpy()
        response, best = codes_of(part["responses"].explode()), codes_of(part["best"])
        start = np.cumsum(n_shown) - n_shown
        winner = response[start + np.maximum(best, 0)]
        place = np.add.reduceat((response < np.repeat(winner, n_shown)).astype(np.int64), start)  # of the winner among the sorted
        both_bad = (part["outcome"].cast(pl.String) == "both_bad").to_numpy()
        take("choice", rows, np.where(both_bad, n_shown, place).astype(np.float64), n_shown)

    ranked = comparisons.where(comparisons.kind == Comparisons.KIND_NAMES.index("ranking"))
    if len(ranked):
        low_wins = ranked.sign * np.sign(ranked.right - ranked.left)
        value = np.select([low_wins > 0, low_wins < 0], [0.0, 1.0], 2.0)
        two = np.full(len(ranked), 2, dtype=np.int64)
        out.append(_Answers("ranking", value, ranked.units(), ranked.rater, ranked.topic(), ranked.axis, group[ranked.row], two))

    rows = rows_of("rating")
    if len(rows):
        value = frame["rating"][rows].to_numpy()
        ordinal: Metric = "ordinal" if len(np.unique(value)) <= _MANY_VALUES else "interval"
        take("rating", rows, value, 0, metric=ordinal)
    rows = rows_of("thumbs")
    take("thumbs", rows, frame["thumb"][rows].cast(pl.Float64).to_numpy(), 0)
    rows = rows_of("label")
    take("label", rows, code_text(frame["label"][rows])[0].astype(np.float64), 0)
    return sorted(out, key=lambda a: (a.kind == "strength", -len(np.unique(a.unit)) if a.kind == "ranking" else -len(a.value)))


# ---------------------------------------------------------------------------------------------- agreement between raters


@dataclass(frozen=True)
class _Agreement:
    alpha: float | None
    low: float | None
    high: float | None
    same: float
    same_low: float
    same_high: float
    n_units: int
    n_answers: int


def _measure(answers: _Answers, *, metric: Metric | None = None, seed: int = 0) -> _Agreement | None:
    """Alpha and the share of equal answers between two raters; None where no unit has two."""
    metric = metric or answers.metric
    stratum, n_strata = compact(combine(answers.axis, answers.names))
    sizes = np.bincount(stratum, minlength=n_strata)
    observed = expected = 0.0
    rounds = np.zeros((2, _ROUNDS))
    redrawn = 0
    for s in np.argsort(-sizes, kind="stable")[:200]:  # beyond 200 axes the rest changes nothing that is shown
        part = answers.where(stratum == s) if n_strata > 1 else answers
        names = int(part.names[0])
        table = _tabulate(part.value, part.unit, part.cluster, metric=metric, names=names, mirrored=answers.mirrored, seed=seed)
        if table is None:
            continue
        o, e = table.whole()
        observed, expected = observed + o, expected + e
        rounds += np.stack(table.resampled(np.random.default_rng([seed, int(s)])))
        redrawn += len(table.per_block)
    unit, n = compact(answers.unit)
    size = np.bincount(unit, minlength=n).astype(np.float64)
    _, first, together = np.unique(combine(unit, compact(answers.value.view(np.int64))[0]), return_index=True, return_counts=True)
    agreeing = np.bincount(unit[first], weights=together * (together - 1.0), minlength=n)
    several = size > 1
    if not several.any():
        return None
    cluster = np.zeros(n, dtype=np.int64)
    cluster[unit] = answers.cluster
    pairs = size[several] * (size[several] - 1)
    same = share(agreeing[several] / pairs, cluster=cluster[several], weight=pairs)
    alpha = low = high = None
    if expected > 1e-12:
        alpha = 1 - observed / expected
        fine = rounds[1] > 1e-12
        if redrawn >= FEW_CLUSTERS and fine.any():
            low, high = (float(q) for q in np.quantile(1 - rounds[0][fine] / rounds[1][fine], [0.025, 0.975]))
    return _Agreement(alpha, low, high, same.estimate, same.low, same.high, int(several.sum()), int(size[several].sum()))


_ASSUMED = "Where the rater is not known, each answer is taken to be by a different person: if some are repeats by one, people agree less than this. "

_NOUNS = {
    "pair": "pairs",
    "choice": "choices",
    "ranking": "pairs of ranked responses",
    "rating": "ratings",
    "thumbs": "thumbs",
    "label": "labels",
    "strength": "graded pairs",
}


def _agreement_finding(
    code: str, answers: _Answers, found: _Agreement, *, where: str = "", by: str | None = None, seed: int = 0
) -> Finding:
    """The sentence for one measurement of agreement."""
    noun = _NOUNS[answers.kind]
    who = (
        "Answers without a rater id, taken to be by different people, are the same"
        if (answers.rater < 0).all()
        else "Raters give the same answer"
    )
    same = f"{who} on {percent(found.same)} of {noun}{where}"
    counting = f"{counted(found.n_units, 'question')} with two or more raters, {found.n_answers:,} answers"
    details = {
        "same": {"share": found.same, "low": found.same_low, "high": found.same_high},
        "metric": answers.metric,
        "n_units": found.n_units,
        "n_answers": found.n_answers,
        "kind": answers.kind,
    }
    if by:
        details["slice"] = by
    if found.alpha is None:
        return Finding(
            code=code,
            title=f"{same}; alpha cannot be computed, because every answer is the same.",
            verdict="not_applicable",
            reason=f"All {counting.split(', ')[1]} fall into one category, so the disagreement expected by chance is 0.",
            details=details,
        )
    interval = f" {bracket_number(found.low, found.high)}" if found.low is not None and found.high is not None else ""
    verdict: Verdict = "ok"
    if found.high is not None and found.high < THRESHOLDS.alpha_warning:
        verdict = "warning"
    elif found.alpha < THRESHOLDS.alpha_notice:
        verdict = "notice"
    reason = f"Krippendorff's alpha ({answers.metric}); n counts questions: {counting}, one answer per rater and question. "
    if answers.kind in ("pair", "choice", "ranking", "strength"):
        reason += "Chance agreement does not depend on which response is listed first. "
    if len(np.unique(answers.axis)) > 1:
        reason += "Disagreement is summed over axes. "
    over = "prompts" if answers.kind == "ranking" else "questions"
    if (answers.rater < 0).any():
        reason += _ASSUMED
    if found.low is None:
        reason += f"No interval: with fewer than {FEW_CLUSTERS} {over} a bootstrap does not show the spread."
    else:
        reason += f"Interval: {_ROUNDS} bootstrap rounds over {over} (seed {seed})."
        if found.low == found.high:
            reason += " No question differs from another, so the bootstrap shows no doubt; with few questions that is not certainty."
    return Finding(
        code=code,
        title=f"{same}; alpha is {found.alpha:.2f}{interval}.",
        estimate=found.alpha,
        low=found.low,
        high=found.high,
        n=found.n_units,
        unit="alpha",
        verdict=verdict,
        reason=reason,
        remedy="Low agreement is noise, disagreement, or an unclear question: read the questions with split answers "
        "before choosing a model."
        if verdict != "ok"
        else None,
        source=SOURCE,
        details=details,
    )


def check_agreement(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> list[Finding]:
    """Whether raters agree: `agreement`, and slices by kind, strength, axis and group (the 12 largest of each)."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    measured = [(a, _measure(a, seed=seed)) for a in (a.one_per_rater() for a in _answers(feedback, comparisons))]
    findings: list[Finding] = []
    used: set[str] = {"agreement/self"}
    present = [(a, m) for a, m in measured if m is not None]
    if not present:
        return [
            Finding.not_applicable(
                "agreement",
                "Agreement between raters cannot be measured.",
                "No question (same prompt, responses, axis and kind) was answered by two raters.",
                remedy="Have a share of the questions, say one in ten, answered by two or more raters.",
            )
        ]

    def name(word: str, by: str) -> str:
        code = f"agreement/{word}"
        if code in used:
            code = f"agreement/{by}:{word}"
        used.add(code)
        return code

    headline, found = present[0]
    findings.append(_agreement_finding("agreement", headline, found, seed=seed))
    for answers, also in present[1:]:
        findings.append(_agreement_finding(name(answers.kind, "kind"), answers, also, by="kind", seed=seed))
    if headline.kind == "rating" and headline.metric == "ordinal":
        as_interval = _measure(headline, metric="interval", seed=seed)
        if as_interval is not None and as_interval.alpha is not None:
            findings[0].details["alpha_interval"] = {"alpha": as_interval.alpha, "low": as_interval.low, "high": as_interval.high}
    for by in ("axis", "group"):
        code, words = code_text(feedback.judgments[by])
        if len(words) + bool((code < 0).any()) < 2:
            continue
        column = headline.axis if by == "axis" else headline.group
        for value in range(min(len(words), _LARGEST)):
            mask = column == value
            part = _measure(headline.where(mask), seed=seed) if mask.any() else None
            if part is not None:
                where = f" on axis {words[value]}" if by == "axis" else f" within {words[value]}"
                one = headline.where(mask)
                findings.append(_agreement_finding(name(words[value], by), one, part, where=where, by=by, seed=seed))
    return findings


# ---------------------------------------------------------------------------------------------- the ceiling


def check_ceiling(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> Finding:
    """How often the majority of the other raters gives the answer of the rater left out."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    kinds = feedback.judgments["kind"].cast(pl.String)
    thumbs = (kinds == "thumbs").to_numpy()[comparisons.row]  # their answer is up or down, below
    usable = comparisons.where((comparisons.left != comparisons.right) & np.isin(comparisons.kind, (0, 2, 3)) & ~thumbs)
    parts: list[tuple[str, Floats, Codes, Codes]] = []  # kind, hit, rater, what repeats
    repeated = "question"
    if len(usable):
        implied = usable.kind != 0
        across = (usable.kind == 3) & (usable.rater < 0)  # a rating compared with another rater's is nobody's answer
        if comparisons.sampled:
            usable = usable.where(~implied)
        elif across.any():
            usable = usable.where(~across)
    if len(usable):
        scored, hit, _ = left_out(usable)
        unit = combine(scored.kind, scored.units())
        if (usable.kind != 0).any():  # pairs implied by one ranking are not independent
            unit, repeated = scored.topic(), "prompt"
        parts.append(("order", hit, scored.rater, unit))
    categorical = kinds.is_in(["choice", "thumbs", "label"]).any()
    for answers in _answers(feedback, comparisons) if categorical else []:
        if answers.kind not in ("choice", "thumbs", "label"):
            continue
        answers = answers.one_per_rater()
        hit, scored = _left_out_category(answers.value, answers.unit)
        parts.append((answers.kind, hit[scored], answers.rater[scored], answers.unit[scored]))
    parts = [p for p in parts if len(p[1])]
    if not parts:
        return Finding.not_applicable(
            "ceiling",
            "How well people predict each other cannot be measured.",
            "Every question was decided by one rater only, so there is no other rater to predict.",
            remedy="Have a share of the questions answered by three or more raters; without it no accuracy can be called good or bad.",
        )
    hits, rater = np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])
    unit = combine(np.repeat(np.arange(len(parts)), [len(p[1]) for p in parts]), np.concatenate([p[3] for p in parts]))
    interval, clustering = clustered_share(hits, {"rater": rater, repeated: unit})
    verdict: Verdict = "warning" if interval.high < THRESHOLDS.ceiling_warning else "ok"
    assumed = "If answers without a rater id are by different people, the" if (rater < 0).all() else "The"
    return Finding.of(
        interval,
        code="ceiling",
        title=f"{assumed} majority of the other raters gives the left-out rater's answer {percent(interval.estimate)} "
        f"{bracket(interval)} of the time.",
        unit="share",
        verdict=verdict,
        reason=(
            "Estimand: for a decided answer by a random rater to a question that others answered too, the chance that the majority "
            "of those others decides alike; a majority that is split, or undecided, counts half. It is what the label of a few "
            "raters can reach on one more rater, not the most that a model can: more raters would do better. n "
            f"counts answers left out; {clustering}. " + (_ASSUMED if (rater < 0).any() else "")
        ).strip(),
        remedy="Compare a model's held-out accuracy with this figure, not with 100%."
        if verdict == "ok"
        else "Look at the questions and the guideline: the answers are close to a coin's toss.",
        details={
            "n_split": int((hits == 0.5).sum()),
            "by_kind": [{"kind": p[0], "share": float(p[1].mean()), "n": len(p[1])} for p in parts],
        },
    )


def left_out(comparisons: Comparisons) -> tuple[Comparisons, Floats, Floats]:
    """Decided comparisons whose question others answered too, and how well those others predict them.

    Returns
    -------
    scored : the comparisons, the first of each rater per question; hit : 1 where the majority of the others decides alike, 1/2 where
    it is split or undecided, else 0; alike : (k + 1) / (n + 2), k of the n others who decided deciding alike (Laplace's rule).
    """
    unit = combine(comparisons.kind, comparisons.units())
    own = np.where(comparisons.rater >= 0, comparisons.rater, comparisons.rater.max(initial=0) + 1 + np.arange(len(comparisons)))
    first = np.sort(np.unique(combine(unit, own), return_index=True)[1])
    kept = comparisons.where(np.isin(np.arange(len(comparisons)), first))
    unit, n = compact(unit[first])
    answer = kept.sign * np.sign(kept.right - kept.left)  # +1: the response with the lower code
    others = np.bincount(unit, minlength=n)[unit] - 1
    net = np.bincount(unit, weights=answer, minlength=n)[unit] - answer
    decided = np.bincount(unit, weights=answer != 0, minlength=n)[unit] - (answer != 0)
    scored = (answer != 0) & (others > 0)
    hit = np.where(net == 0, 0.5, (np.sign(net) == answer).astype(np.float64))
    alike = ((decided + net * answer) / 2 + 1) / (decided + 2)
    return kept.where(scored), hit[scored], alike[scored]


def _left_out_category(value: Floats, units: Codes) -> tuple[Floats, NDArray[np.bool_]]:
    """Per answer: 1 / t where it is one of the t most frequent among the others, else 0; and whether there are others."""
    unit, n = compact(units)
    k = int(value.max()) + 1
    cell, inverse, count = np.unique(unit * k + value.astype(np.int64), return_inverse=True, return_counts=True)
    cell_unit = cell // k
    start = np.searchsorted(cell_unit, np.arange(n))
    top = np.maximum.reduceat(count, start)
    is_top = count == top[cell_unit]
    n_top = np.bincount(cell_unit, weights=is_top, minlength=n).astype(np.int64)
    # removing one answer matters only where it is the single most frequent: its rivals then are those one below the top
    n_rivals = np.bincount(cell_unit, weights=count == top[cell_unit] - 1, minlength=n).astype(np.int64)
    own = count[inverse]
    alone = (own == top[unit]) & (n_top[unit] == 1)
    scored = np.bincount(unit, minlength=n)[unit] > 1
    return np.where(alone, 1 / (1 + n_rivals[unit]), 0.0), scored


# ---------------------------------------------------------------------------------------------- agreement with oneself


def check_self_agreement(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> list[Finding]:
    """How often a rater who meets the same question again gives the same answer, and who contradicts themselves."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    if not feedback.n_raters:
        return [
            Finding.not_applicable(
                "agreement/self",
                "Whether raters agree with themselves cannot be measured.",
                "The data has no rater ids.",
                remedy="Record a rater id.",
            )
        ]
    hits: list[Floats] = []
    weights: list[Floats] = []
    raters: list[Codes] = []
    units: list[Codes] = []
    contradictions: list[tuple[Codes, NDArray[np.bool_]]] = []
    difference: tuple[float, int] | None = None
    for index, answers in enumerate(_answers(feedback, comparisons)):
        if answers.kind in ("strength", "ranking"):
            continue
        answers = answers.where(answers.rater >= 0)
        if not len(answers.value):
            continue
        seat, n = compact(combine(answers.unit, answers.rater))
        size = np.bincount(seat, minlength=n).astype(np.float64)
        repeated = size > 1
        if not repeated.any():
            continue
        _, first, together = np.unique(combine(seat, compact(answers.value.view(np.int64))[0]), return_index=True, return_counts=True)
        agreeing = np.bincount(seat[first], weights=together * (together - 1.0), minlength=n)
        rater = np.zeros(n, dtype=np.int64)
        unit = np.zeros(n, dtype=np.int64)
        rater[seat], unit[seat] = answers.rater, answers.unit
        hits.append((agreeing / np.maximum(size * (size - 1), 1))[repeated])
        weights.append((size * (size - 1) / 2)[repeated])
        raters.append(rater[repeated])
        units.append(unit[repeated] + index * 2**40)
        if answers.kind == "pair":
            low = np.bincount(seat, weights=answers.value == 0, minlength=n)
            high = np.bincount(seat, weights=answers.value == 1, minlength=n)
            twice = low + high > 1
            if twice.any():
                contradictions.append((rater[twice], ((low > 0) & (high > 0))[twice]))
        if answers.kind == "rating":
            spread = (
                np.bincount(seat, weights=answers.value**2, minlength=n) / size
                - (np.bincount(seat, weights=answers.value, minlength=n) / size) ** 2
            )
            unbiased = np.maximum(spread, 0) * size / np.maximum(size - 1, 1)
            difference = float(np.sqrt(unbiased[repeated].mean())), int(repeated.sum())
    if not hits:
        return [
            Finding.not_applicable(
                "agreement/self",
                "Whether raters agree with themselves cannot be measured.",
                "No rater answered the same question twice.",
                remedy="Show each rater a few questions again, some time later: it separates noise from disagreement.",
            )
        ]
    all_raters = np.concatenate(raters)
    interval, clustering = clustered_share(
        np.concatenate(hits), {"rater": all_raters, "question": np.concatenate(units)}, weight=np.concatenate(weights)
    )
    details: dict[str, object] = {"n_raters": len(np.unique(all_raters))}
    if difference:
        details["rating_sd_within_rater"] = difference[0]
    findings = [
        Finding.of(
            interval,
            code="agreement/self",
            title=f"Asked the same question again, a rater gives the same answer {percent(interval.estimate)} "
            f"{bracket(interval)} of the time.",
            unit="share",
            verdict="notice" if interval.estimate < THRESHOLDS.self_notice else "ok",
            reason=f"Share of equal pairs of answers by one rater to one question; n counts rater and question; {clustering}. "
            "Records that repeat by mistake count as agreement: see `duplicates`.",
            details=details,
        )
    ]
    if contradictions:
        rater = np.concatenate([c[0] for c in contradictions])
        against = np.concatenate([c[1] for c in contradictions])
        if against.any():
            interval, clustering = clustered_share(against.astype(np.float64), {"rater": rater})
            ids = feedback.raters["id"].to_list()
            times = np.bincount(rater[against], minlength=feedback.n_raters)
            worst = np.argsort(-times, kind="stable")[:_LARGEST]
            n_raters = int((times > 0).sum())
            findings.append(
                Finding.of(
                    interval,
                    code="rater-consistency",
                    title=f"{counted(n_raters, 'rater')} chose both ways on the same pair: {int(against.sum()):,} of "
                    f"{counted(len(against), 'pair')} that one rater decided more than once ({percent(interval.estimate)}).",
                    unit="share",
                    verdict="notice",
                    reason=f"n counts rater and pair; {clustering}.",
                    remedy="Keep both answers: a model of the raters reads them as noise. Drop a rater only for "
                    "reasons known before looking.",
                    details={"raters": [{"rater": ids[r], "n": int(times[r])} for r in worst if times[r]]},
                )
            )
    return findings
