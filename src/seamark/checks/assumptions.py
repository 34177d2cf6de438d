"""What has to be true for a reward to be learned from this feedback at all: one finding for each assumption, with the data's word on it; and how good the
channel is that the feedback came through.

Most of it is read off other findings, which are named; what no other check looks at is computed here: whether cycles are more than noise, whether
answers to one prompt were given independently, and whether what was left open depends on the question.

Conventions
-----------
Of a pair (i, j), n_ij people decided and k_ij preferred i. Under one scale of values (Bradley & Terry) the number of wins of each response is
sufficient: given these, all outcomes of the n_ij answers are equally likely whatever the values are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.checks.agreement import check_ceiling, left_out
from seamark.checks.change import check_change, find_change
from seamark.checks.comparisons import Codes, Comparisons, codes_of, combine, compact, compare, counted
from seamark.checks.confounds import clustered_logistic
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.graph import check_connectivity
from seamark.checks.psychology import others_gap, own_triples
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, clustered_mean, clustered_share, figure, interval_of, share
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]

ASSUMPTIONS = ("transitivity", "independence", "stationarity", "comparability", "ignorability")
_ALARM, _SURE = 0.05, 0.01
_CHAINS = 199
_SWEEPS = 20
_TRIANGLES = 3000
_NODES = 60
"""Responses up to which the second dimension of the whole matrix is looked at."""
_TRIPLES = 100
_TOO_SURE = 0.02
"""Error of an answer below which answers to one prompt are not believed to be independent: people who are asked the same question again answer otherwise
more often than that."""
_LEAST = 100
_OFTEN = 20
"""Comparisons of a response, on average, below which how far values moved is not told."""


def check_assumptions(feedback: Feedback, fit: Fit | None = None, *, found: Findings | None = None, seed: int = 0) -> Findings:
    """The ledger: transitivity, independence, stationarity, comparability and ignorability, each with the data's verdict.

    Parameters
    ----------
    fit : of this feedback; its gaps say how close the questions are that were left open.
    found : what `diagnose` found, if at hand; otherwise the checks that are read are made.

    Source: transitivity: Besag & Clifford 1989 for the exact test; Jiang et al. 2011 (HodgeRank) for the statistic.
    """
    comparisons = compare(feedback, seed=seed)
    ledger = [
        check_scalar(feedback, comparisons=comparisons, seed=seed),
        _independence(feedback, found),
        _stationarity(feedback, found, comparisons, seed),
        _comparability(feedback, found, comparisons, seed),
        _ignorability(feedback, fit, comparisons),
    ]
    said = {verdict: [f.code.partition("/")[2] for f in ledger if f.verdict in names] for verdict, names in _GROUPS.items()}
    words = [f"{len(names)} {how} ({', '.join(names)})" for how, names in said.items() if names]
    worst: Verdict = "warning" if any(f.verdict in ("warning", "blocking") for f in ledger) else "notice" if said["in doubt"] else "ok"
    head = Finding(
        code="assumption", title=f"Of {len(ledger)} assumptions, {'; '.join(words)}.", estimate=float(len(said["in doubt"])), n=len(ledger), unit="count",
        verdict=worst, reason="That an assumption is not contradicted does not make it true. A count of findings: no interval.",
        remedy="Read those in doubt before relying on any interval." if worst != "ok" else None, details={name: list(names) for name, names in said.items()},
    )  # fmt: skip
    return Findings((head, *ledger)).with_access("outside-the-box")


_GROUPS: Mapping[str, tuple[str, ...]] = {
    "not contradicted by the data": ("ok",), "in doubt": ("notice", "warning", "blocking"), "cannot be checked": ("not_applicable",),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------- one scale


@dataclass(frozen=True)
class _Triangles:
    """Counts of pairs, and the triples of pairs that form a triangle i < j < l: edges (ij, jl, il)."""

    wins: NDArray[np.int64]
    """(E,) k of the lower node."""
    asked: NDArray[np.int64]
    """(E,) n."""
    low: Codes
    high: Codes
    edges: NDArray[np.int64]
    """(T, 3)"""
    colour: Codes
    """(T,) triangles of one colour share no edge."""
    prompt: Codes
    """(T,)"""
    n_nodes: int


def _triangles(feedback: Feedback, comparisons: Comparisons, seed: int) -> _Triangles | None:
    decided = comparisons.where((comparisons.left != comparisons.right) & (comparisons.kind == 0)).decided()
    if not len(decided):
        return None
    node, n_nodes = compact(combine(np.tile(decided.axis, 2), np.concatenate([decided.left, decided.right])))
    a, b = node[: len(decided)], node[len(decided) :]
    frame = pl.DataFrame(
        {
            "low": np.minimum(a, b),
            "high": np.maximum(a, b),
            "won": (decided.sign * np.sign(b - a) > 0).astype(np.int64),
            "prompt": decided.prompt,
        }
    )
    pairs = frame.group_by("low", "high", maintain_order=True).agg(pl.col("won").sum(), pl.len().alias("n"), pl.col("prompt").first())
    rng = np.random.default_rng(seed)
    if pairs.height > 100_000:  # a random part of the prompts, whose triangles stay whole
        kept = rng.permutation(feedback.n_prompts)[: max(1, feedback.n_prompts * 100_000 // pairs.height)]
        pairs = pairs.filter(pl.col("prompt").is_in(kept.tolist()))
    pairs = pairs.with_row_index("e")
    degree = np.bincount(np.concatenate([pairs["low"].to_numpy(), pairs["high"].to_numpy()]), minlength=n_nodes)
    usable = pairs.filter(pl.Series(degree[pairs["low"].to_numpy()] > 1) & pl.Series(degree[pairs["high"].to_numpy()] > 1))
    ij = usable.select(pl.col("low").alias("i"), pl.col("high").alias("j"), pl.col("e").alias("ij"), "prompt")
    jl = usable.select(pl.col("low").alias("j"), pl.col("high").alias("l"), pl.col("e").alias("jl"))
    il = usable.select(pl.col("low").alias("i"), pl.col("high").alias("l"), pl.col("e").alias("il"))
    if ij.height > 2 * _TRIANGLES and n_nodes < ij.height // 20:  # a dense leaderboard has far more triangles than are needed
        ij = ij.sample(_TRIANGLES, seed=seed)
    found = ij.join(jl, on="j").join(il, on=["i", "l"])
    if not found.height:
        return None
    if found.height > _TRIANGLES:
        found = found.sample(_TRIANGLES, seed=seed)
    edges = found.select("ij", "jl", "il").to_numpy().astype(np.int64)
    taken: list[set[int]] = []
    colour = np.zeros(len(edges), dtype=np.int64)
    for t, three in enumerate(edges.tolist()):
        c = next((c for c, used in enumerate(taken) if used.isdisjoint(three)), len(taken))
        if c == len(taken):
            taken.append(set())
        taken[c].update(three)
        colour[t] = c
    won, asked, low, high = (pairs[name].to_numpy().astype(np.int64) for name in ("won", "n", "low", "high"))
    return _Triangles(won, asked, low, high, edges, colour, found["prompt"].to_numpy().astype(np.int64), n_nodes)


def _shuffled(found: _Triangles, wins: NDArray[np.int64], order: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Chains (M, E) after reversing cycles at random, colour by colour, which keeps every response's number of wins."""
    wins, n = wins.copy(), found.asked
    by_colour = [found.edges[found.colour == c] for c in range(int(found.colour.max()) + 1)]
    for c in order.tolist():
        e = by_colour[c]
        k, size = wins[:, e], n[e]
        # i > j > l > i turned round, or the other way: k moves by (-1, -1, +1) or (+1, +1, -1)
        step = np.array([1, 1, -1]) * rng.choice([-1, 1], (len(wins), len(e), 1))
        up = step > 0
        ratio = np.where(up, (size - k) / (k + 1), k / (size - k + 1)).prod(2)
        accept = rng.random(ratio.shape) < ratio
        wins[:, e] = k + step * accept[..., None]
    return wins


def check_scalar(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> Finding:
    """Whether cycles, and what a second dimension explains, are more than noise about one scale of values.

    The statistic is the curl of the smoothed log odds over triangles, squared and weighed by its precision; for up to 60 responses also the largest
    singular value of what the best scale leaves of the matrix. Their distribution under one scale is exact: chains that reverse cycles keep the
    number of wins of each response, given which every outcome is equally likely, and start from one state that the data itself leads to (the
    parallel method), so that it holds however slowly they mix.

    Source: Besag & Clifford 1989; Jiang, Lim, Yao & Ye 2011.
    """
    code, title = "assumption/transitivity", "Whether one scale of values can hold all preferences cannot be told."
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    found = _triangles(feedback, comparisons, seed)
    if found is None:
        return Finding.not_applicable(code, title, "No three responses were all compared with each other by pairs with a winner.")
    rng = np.random.default_rng(seed)
    colours = int(found.colour.max()) + 1
    order = rng.integers(0, colours, max(30, min(_SWEEPS * colours, 600)))
    root = _shuffled(found, found.wins[None], order[::-1], rng)
    chains = _shuffled(found, np.repeat(root, _CHAINS, axis=0), order, rng)
    both = np.vstack([found.wins[None], chains])
    precision = 1 / (4 / np.maximum(found.asked[found.edges], 1)).sum(1)
    odds = np.log((both + 0.5) / (found.asked - both + 0.5))
    curl = odds[:, found.edges[:, 0]] + odds[:, found.edges[:, 1]] - odds[:, found.edges[:, 2]]
    statistic = (curl**2) @ precision
    null = statistic[1:]
    if null.std() < 1e-9 * max(null.mean(), 1e-9):
        why = "Every pair of a triangle was decided once, so that the numbers of wins fix how many cycles there are, whatever the values."
        return Finding.not_applicable(code, title, why, remedy="Ask several people, or one several times, about the pairs of some triples.")
    p = [_exceeded(statistic)]
    details: dict[str, Any] = {"triangles": len(found.edges), "p_cycles": p[0]}
    if found.n_nodes <= _NODES:
        p.append(_exceeded(_second(found, odds)))
        details["p_second_dimension"] = p[1]
    level = min(1.0, len(p) * min(p))
    ratio = float(statistic[0] / null.mean())
    low, high = (float(statistic[0] / q) for q in np.quantile(null, [0.975, 0.025]))
    verdict: Verdict = "warning" if level <= _SURE else "notice" if level <= _ALARM else "ok"
    more = (
        "go round in circles more than noise about one scale would have them"
        if level <= _ALARM
        else "do not go round in circles more than noise about one scale would have them"
    )
    return Finding(
        code=code, estimate=ratio, low=low, high=high, n=len(found.edges), unit="ratio", verdict=verdict,
        title=f"Preferences {more}: {ratio:.2f} [{low:.2f}, {high:.2f}] times as much, over {counted(len(found.edges), 'triangle')} (p = {level:.2g}).",
        reason="Squared curl of log odds, beside what it is where one scale of values makes the same number of wins; the interval is that of noise. Answers by one rater to a "
        "pair again, which depend on each other, count as cycles do. See `intransitivity` for how many there are.",
        remedy="One number per response loses this: fit several values (Groups, Personas, MultiAxis), or look at which responses go round." if verdict != "ok" else None,
        source="Besag & Clifford 1989; Jiang et al. 2011", details=details | {"p": level},
    )  # fmt: skip


def _exceeded(statistic: Array) -> float:
    return float((1 + (statistic[1:] >= statistic[0] * (1 - 1e-12)).sum()) / len(statistic))


def _second(found: _Triangles, odds: Array) -> Array:
    """(M,) largest singular value of what is left of each matrix of log odds when the best scale is taken off, entries weighed by their precision."""
    n, root = found.n_nodes, np.sqrt(found.asked / 4)
    incidence = np.zeros((len(found.asked), n))
    rows = np.arange(len(found.asked))
    incidence[rows, found.low], incidence[rows, found.high] = 1.0, -1.0
    weighed = incidence * root[:, None]
    solve = np.linalg.pinv(weighed)
    scaled = odds * root
    left = scaled - scaled @ solve.T @ weighed.T
    matrix = np.zeros((len(odds), n, n))
    matrix[:, found.low, found.high], matrix[:, found.high, found.low] = left, -left
    return np.asarray(np.linalg.svd(matrix, compute_uv=False)[:, 0], dtype=np.float64)


# ---------------------------------------------------------------------------------------------- the others


def _read(found: Findings | None, code: str) -> Finding | None:
    return found.get(code) if found is not None else None


def _independence(feedback: Feedback, found: Findings | None) -> Finding:
    """Answers of one person to the pairs of a triple that never contradict each other were not given one by one."""
    code, title = "assumption/independence", "Whether answers were given independently cannot be told."
    triples = own_triples(feedback, known=False)
    if len(triples.cycle) < _TRIPLES:
        why = f"{counted(len(triples.cycle), 'triple')} of responses whose three pairs were decided by one person; {_TRIPLES} are needed to see noise in them."
        return Finding.not_applicable(code, title, why, remedy="Show some raters all pairs of three responses, or the same pair again.")
    cycles = triples.cycle.astype(np.float64)
    clusters = {"prompt": triples.prompt, "rater": triples.rater}
    rate, how = clustered_share(cycles, {name: c for name, c in clusters.items() if (c >= 0).all() and len(np.unique(c)) > 1})
    error, low, high = (float((1 - np.sqrt(max(1 - 4 * c, 0.0))) / 2) for c in (rate.estimate, rate.low, rate.high))
    doubtful = high < _TOO_SURE
    again = _read(found, "agreement/self")
    beside = (
        f" Asked again, raters change {1 - again.estimate:.0%} of their answers (`agreement/self`)."
        if again is not None and again.estimate is not None
        else ""
    )
    return Finding(
        code=code, estimate=error, low=low, high=high, n=len(cycles), unit="share", verdict="warning" if doubtful else "ok",
        title=f"{int(cycles.sum()):,} of {counted(len(cycles), 'triple')} decided by one person are cycles, as if an answer went wrong in {error:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
        + (": the pairs look taken from rankings, and are not independent." if doubtful
           else ": pairs were answered one by one." if low > _TOO_SURE or error > _TOO_SURE else ": too few to tell people who are sure from pairs taken from rankings."),
        reason=f"Independent errors e in answers that follow one order make cycles of a share e (1 - e) of triples; {how}.{beside} Close responses make cycles without any error, so that "
        "few cycles are the more telling. That answers by one rater, or about one prompt, go together is allowed for by the clustering of all intervals.",
        remedy="Count prompts, not pairs, as evidence: keep the ranking as one judgment of kind ranking." if doubtful else None,
        details={"triples": len(cycles), "cycles": int(cycles.sum()), "share": {"estimate": rate.estimate, "low": rate.low, "high": rate.high}},
    )  # fmt: skip


def _stationarity(feedback: Feedback, found: Findings | None, comparisons: Comparisons, seed: int) -> Finding:
    change = _read(found, "change") or check_change(feedback, comparisons=comparisons, seed=seed)[0]
    return _as("stationarity", change, "Whether values stood still while they were asked for cannot be told.")


def _as(name: str, finding: Finding, otherwise: str) -> Finding:
    """Another check's finding, as what it says about an assumption."""
    if finding.verdict == "not_applicable":
        return Finding.not_applicable(f"assumption/{name}", otherwise, finding.reason or finding.title, remedy=finding.remedy)
    return replace(finding, code=f"assumption/{name}", reason=f"From `{finding.code}`. {finding.reason or ''}".strip())


def _comparability(feedback: Feedback, found: Findings | None, comparisons: Comparisons, seed: int) -> Finding:
    """Whether what was compared hangs together, could be compared, and was put on scales that are used alike."""
    connected = _read(found, "connectivity") or check_connectivity(feedback, comparisons=comparisons, seed=seed)[0]
    outcome = feedback.judgments["outcome"].cast(pl.String)
    asked = feedback.judgments["kind"].cast(pl.String).is_in(["pair", "choice", "ranking"]).to_numpy()
    said: list[str] = []
    details: dict[str, Any] = {"connectivity": connected.verdict}
    interval: Interval | None = None
    grave = connected.verdict in ("blocking", "warning")
    doubt = grave
    if connected.verdict != "not_applicable":
        said.append(connected.title.rstrip(".").lower() if connected.title.startswith("The comparison") else connected.title.rstrip("."))
    if asked.any():
        clusters = {name: codes_of(feedback.judgments[name])[asked] for name in ("rater", "prompt")}
        interval, _ = clustered_share(
            (outcome == "cannot_tell").to_numpy()[asked].astype(np.float64), {n: c for n, c in clusters.items() if (c >= 0).all()}
        )
        said.append(f"people could not tell in {figure(interval.estimate, 'share', *interval.ends)} of comparisons")
        doubt |= interval.low > 0.1
        details["cannot_tell"] = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
    scales = _scale_use(feedback)
    if scales is not None:
        said.append(f"{scales.estimate:.0%} of the variance of ratings is between raters of the same responses")
        doubt |= scales.low > 0.1
        details["scale_use"] = {"estimate": scales.estimate, "low": scales.low, "high": scales.high}
        interval = interval or scales
    if not said:
        return Finding.not_applicable(
            "assumption/comparability",
            "Whether responses can be compared cannot be told.",
            "No judgment compares responses, and too few ratings are by known raters of the same responses.",
        )
    return Finding(
        code="assumption/comparability", title=f"{'; '.join(said)}."[:1].upper() + f"{'; '.join(said)}."[1:], estimate=None if interval is None else interval.estimate,
        low=None if interval is None else interval.ends[0], high=None if interval is None else interval.ends[1], n=feedback.n_judgments, unit="share",
        verdict="blocking" if connected.verdict == "blocking" else "warning" if grave else "notice" if doubt else "ok",
        reason="From `connectivity` and the answers. The estimate is the share that could not be told, where responses were compared, else that of raters in the variance of ratings.",
        remedy=connected.remedy if grave else "Fit what differs (leniency of raters; a value for each axis), or ask which of the two is better on one axis at a time." if doubt else None,
        details=details,
    )  # fmt: skip


def _scale_use(feedback: Feedback) -> Interval | None:
    """Share of the variance of ratings that is between raters of the same responses: their mean difference from the others, noise taken off."""
    frame = feedback.judgments.filter(pl.col("rating").is_not_null() & pl.col("rater").is_not_null())
    if frame.height < _LEAST:
        return None
    y = frame["rating"].to_numpy().astype(np.float64)
    unit, n = compact(
        combine(
            codes_of(frame["responses"].list.first()),
            np.unique(frame["axis"].fill_null("").to_numpy().astype(str), return_inverse=True)[1].astype(np.int64),
        )
    )
    rater, n_raters = compact(codes_of(frame["rater"]))
    count = np.bincount(unit, minlength=n)
    several = count[unit] > 1
    if several.sum() < _LEAST or n_raters < 3 or y.std() == 0:
        return None
    e = y - (np.bincount(unit, y, n) / count)[unit]
    e, who = e[several], rater[several]
    m = np.bincount(who, minlength=n_raters)
    total = np.bincount(who, e, n_raters)
    # products of two different answers of a rater: what answers of one rater share
    own = (total**2 - np.bincount(who, e**2, n_raters)) / np.maximum(m * (m - 1.0), 1)
    use = m > 1
    found, _ = clustered_mean(own[use] / y.var(), {"rater": np.flatnonzero(use)}, weight=m[use].astype(np.float64))
    return Interval(max(found.estimate, 0.0), max(found.low, 0.0), min(found.high, 1.0), int(several.sum()), int(use.sum()))


def _ignorability(feedback: Feedback, fit: Fit | None, comparisons: Comparisons) -> Finding:
    """Whether questions that were left open are like those that were answered."""
    code, title = "assumption/ignorability", "Whether what was left open depends on the question cannot be told."
    frame = feedback.judgments.with_row_index("row").filter(pl.col("kind") == "pair")
    opened = frame["outcome"].cast(pl.String).is_in(["cannot_tell", "skipped"]).to_numpy()
    if not opened.any():
        why = "No pair was skipped or answered 'cannot tell': what was asked and not answered is not in the data."
        return Finding.not_applicable(code, title, why, remedy="Record every question that was shown, answered or not.")
    left, right = codes_of(frame["responses"].list.get(0)), codes_of(frame["responses"].list.get(1))
    if fit is not None:
        value = fit.utilities(feedback)
        gap, by = np.abs(value[left] - value[right]), "the fit's gap"
    else:
        gap, by = (
            np.abs(others_gap(feedback, frame["row"].to_numpy(), left, right, comparisons)),
            "the gap that other judgments of the two responses tell",
        )
    use = np.isfinite(gap)
    if use.sum() < _LEAST or opened[use].sum() < 10 or gap[use].std() == 0:
        return Finding.not_applicable(
            code,
            title,
            f"{counted(int(opened[use].sum()), 'pair')} left open, of {use.sum():,} whose gap is known; 10 of {_LEAST} are needed.",
        )
    z = (gap[use] - gap[use].mean()) / gap[use].std()
    cluster = next(
        (c for c in (codes_of(frame["rater"])[use], codes_of(frame["prompt"])[use]) if (c >= 0).all() and len(np.unique(c)) > 9),
        np.arange(use.sum()),
    )
    cluster = compact(cluster)[0]
    beta, se = clustered_logistic(np.stack([np.ones(len(z)), z], 1), opened[use].astype(np.float64), cluster)
    low, high = float(beta[1] - 1.96 * se[1]), float(beta[1] + 1.96 * se[1])
    depends = low > 0 or high < 0
    which = "close" if beta[1] < 0 else "clear"
    return Finding(
        code=code, estimate=float(beta[1]), low=low, high=high, n=int(use.sum()), unit="logits per sd", verdict="notice" if depends else "ok",
        title=f"{opened.mean():.1%} of {counted(len(opened), 'pair')} were left open, "
        + (f"the {which} ones more often" if depends else "and it is not seen to depend on how close they are")
        + f": {beta[1]:+.2f} [{low:.2f}, {high:.2f}] log odds per standard deviation of the gap.",
        reason=f"Logistic regression on {by}; clustered by rater or prompt. Missing at random given the gap is what a fit of answered pairs needs; that who answers depends on something that "
        "was not recorded cannot be seen.",
        remedy="Fit with the Missingness effect, and do not read the share of ties as that of all questions." if depends else None, source="Rubin 1976",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- the channel


def check_channel(feedback: Feedback, *, seed: int = 0) -> Finding:
    """How good the channel is that the feedback came through: reliability, information per label, coverage, bias, drift and missingness.

    Returns
    -------
    channel : the estimate is the information of a label in bits; `details["scores"]` has each score with its interval, or why there is none.
        reliability: how often the majority of the other raters gives a rater's answer. information: bits by which the others' answers
        predict it better than a coin. coverage: effective number of prompts. bias: how far the share of the response shown first is from one half.
        drift: logits that values moved. missingness: share of questions left open.
    """
    comparisons = compare(feedback, seed=seed)
    scores: dict[str, dict[str, Any]] = {}

    def put(name: str, unit: str, interval: Interval | None, why: str = "") -> None:
        ends = (None, None) if interval is None else interval.ends
        scores[name] = (
            {"reason": why}
            if interval is None
            else {"estimate": interval.estimate, "low": ends[0], "high": ends[1], "n": interval.n, "unit": unit}
        )

    ceiling = check_ceiling(feedback, comparisons=comparisons, seed=seed)
    told = None
    if ceiling.estimate is not None and ceiling.low is not None and ceiling.high is not None:
        told = Interval(ceiling.estimate, ceiling.low, ceiling.high, ceiling.n or 0, 0)
    put("reliability", "share", told, ceiling.reason or "")
    usable = comparisons.where((comparisons.left != comparisons.right) & (comparisons.kind == 0))
    scored, _, alike = left_out(usable) if len(usable) else (usable, np.zeros(0), np.zeros(0))
    clusters = {name: code for name, code in (("rater", scored.rater), ("prompt", scored.topic())) if len(code) and (code >= 0).all()}
    bits = clustered_mean(1 + np.log2(alike), clusters)[0] if len(alike) > 1 else None
    put("information", "bits", bits, "No question was decided by two people.")
    put("coverage", "prompts", _effective(codes_of(feedback.judgments["prompt"]), seed), "No judgment has a prompt.")
    ordered = feedback.judgments.filter(
        (pl.col("kind") == "pair") & pl.col("order_known").fill_null(value=False) & pl.col("outcome").is_in(["left", "right"])
    )
    bias = None
    if ordered.height > 1:
        codes = {name: codes_of(ordered[name]) for name in ("rater", "prompt")}
        first, _ = clustered_share((ordered["outcome"] == "left").to_numpy().astype(np.float64), codes)
        ends = sorted((abs(first.low - 0.5), abs(first.high - 0.5)))
        bias = Interval(abs(first.estimate - 0.5), 0.0 if first.low <= 0.5 <= first.high else ends[0], ends[1], first.n, first.n_clusters)
    put("bias", "share", bias, "The order in which pairs were shown is not known.")
    put("drift", "logits", *_drift(feedback, comparisons, seed))
    missing = feedback.judgments["outcome"].is_in(["cannot_tell", "skipped"]).to_numpy().astype(np.float64)
    raters = codes_of(feedback.judgments["rater"])
    put("missingness", "share", share(missing, cluster=raters if (raters >= 0).all() else None))
    known = [
        f"{name} {figure(s['estimate'], s['unit'], s['low'], s['high'])} {interval_of(s['low'], s['high'], s['unit'])}".strip()
        for name, s in scores.items()
        if "estimate" in s
    ]
    unknown = [name for name, s in scores.items() if "estimate" not in s]
    return Finding(
        code="channel", title=f"The channel: {', '.join(known)}{'; not known: ' + ', '.join(unknown) if unknown else ''}.",
        estimate=scores["information"].get("estimate"), low=scores["information"].get("low"), high=scores["information"].get("high"),
        n=feedback.n_judgments, unit="bits", verdict="ok", access="outside-the-box", details={"scores": scores},
        reason="The estimate is the information of a label. Intervals are clustered by rater or prompt. The verdicts on each are those of `ceiling`, `coverage`, `position`, `change` and `ties`.",
    )  # fmt: skip


def _drift(feedback: Feedback, comparisons: Comparisons, seed: int) -> tuple[Interval | None, str]:
    """How far values moved, or why it is not known; above a logit it is an underestimate, as `check_change` says."""
    shown = comparisons.most_direct().decided()
    if len(shown) and 2 * len(shown) / len(np.unique(np.concatenate([shown.left, shown.right]))) < _OFTEN:
        return None, f"Responses were compared fewer than {_OFTEN} times each."
    try:
        found = find_change(feedback, comparisons=comparisons, seed=seed, flips=99)
    except InvalidSetting as error:
        return None, error.remedy
    return (Interval(found[0].sd, found[0].low, found[0].high, found[0].n, 0), "") if found else (None, "No part is large enough.")


def _effective(prompt: Codes, seed: int) -> Interval | None:
    """(sum n)^2 / sum n^2 of the prompts, with a bootstrap over judgments, which makes it smaller by about as much as the data is smaller than the truth."""
    known = prompt[prompt >= 0]
    if not len(known):
        return None
    counts = np.bincount(known).astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(known), counts / counts.sum(), 200).astype(np.float64)
    spread = np.log((drawn.sum(1) ** 2) / (drawn**2).sum(1)).std()
    estimate = float(counts.sum() ** 2 / (counts**2).sum())
    return Interval(
        estimate, estimate * float(np.exp(-1.96 * spread)), estimate * float(np.exp(1.96 * spread)), len(known), int((counts > 0).sum())
    )
