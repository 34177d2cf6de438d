"""What answering does to answers: anchoring, contrast, halo, satisficing; and whether raters reason: transitivity, conjunctions, base rates.

Each has an estimator here and a generator in `seamark.simulation.psychology`. What an estimate needs is stated with it, and where the data does not
have it the finding says so: most of it asks for several raters per response, answers in a known order, or items made for the purpose.

Conventions
-----------
y is a rating; e = y - c - m is what it is above c, the mean of the other raters of the same response, and m, the rater's own mean of y - c. The order of
a rater's answers is that of `time`, else of `position` within `session`. Where a coefficient on earlier answers is estimated, the same is done with
the rater's answers in random order: what it shows there comes from taking off the rater's mean (Nickell 1981), and is taken off the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binom

from seamark.checks.comparisons import Codes, Comparisons, codes_of, combine, compact, compare, counted
from seamark.checks.confounds import clustered_logistic
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting
from seamark.intervals import bootstrap, mean
from seamark.records import Feedback

Array = NDArray[np.float64]

_LEAST = 100
_SHUFFLES = 100
_RATERS = 5
_REMEDY = "Show raters the items in an order of their own, and tell them what the last one has to do with the next: nothing."


def check_psychology(feedback: Feedback, *, seed: int = 0) -> Findings:
    """Anchoring, contrast, halo and satisficing.

    Returns
    -------
    psychology/anchoring : how far a rating is pulled towards the rater's own last rating. In scale units per unit.
    psychology/contrast : how far it is pushed away from what the last response deserved. In scale units per unit.
    psychology/halo : correlation of a rater's deviations on two axes of one response.
    psychology/satisficing : log odds in favour of the response shown first, per standard deviation of the place in the session.

    Source: Tversky & Kahneman 1974 (anchoring); Helson 1964 (contrast); Thorndike 1920 (halo); Krosnick 1991 (satisficing).
    """
    return Findings((*_sequence(feedback, seed), _halo(feedback, seed), _satisficing(feedback))).with_access("outside-the-box")


@dataclass(frozen=True)
class _Ratings:
    """Ratings with what the others said of the same response; rows by rater and in order."""

    y: Array
    others: Array
    """(n,) mean of the other raters."""
    rater: Codes
    response: Codes
    axis: Codes

    def where(self, rows: NDArray[Any]) -> _Ratings:
        return _Ratings(self.y[rows], self.others[rows], self.rater[rows], self.response[rows], self.axis[rows])


def _ratings(feedback: Feedback, *, ordered: bool) -> _Ratings | str:
    """The ratings of responses that two raters or more rated, or why there are none."""
    frame = feedback.judgments.filter(pl.col("rating").is_not_null() & pl.col("rater").is_not_null())
    if not frame.height:
        return "There are no ratings by known raters."
    if ordered:
        if frame["time"].null_count() == 0:
            frame = frame.sort("rater", "time", maintain_order=True)
        elif frame["position"].null_count() == 0:
            frame = frame.sort(["rater", *(["session"] if frame["session"].null_count() == 0 else []), "position"], maintain_order=True)
        else:
            return "The order in which raters answered is not known (time, or position)."
    rater, response = codes_of(frame["rater"]), codes_of(frame["responses"].list.first())
    axis = np.unique(frame["axis"].fill_null("").to_numpy().astype(str), return_inverse=True)[1].astype(np.int64)
    y = frame["rating"].to_numpy().astype(np.float64)
    unit, n = compact(combine(response, axis))
    count, total = np.bincount(unit, minlength=n), np.bincount(unit, y, n)
    several = count[unit] > 1
    if several.sum() < _LEAST:
        return f"{counted(int(several.sum()), 'rating')} of a response that others rated as well; {_LEAST} are needed."
    found = _Ratings(y, (total[unit] - y) / np.maximum(count[unit] - 1, 1), rater, response, axis)
    return found.where(several)


# ---------------------------------------------------------------------------------------------- one answer after the other


def _sequence(feedback: Feedback, seed: int) -> list[Finding]:
    """Anchoring and contrast, from one regression: y - c = m + a e_before + b (c_before - its mean)."""
    found = _ratings(feedback, ordered=True)
    names = {"anchoring": "towards the rater's own last rating", "contrast": "by what the last response deserved"}
    why = found if isinstance(found, str) else None
    if not isinstance(found, str) and len(np.unique(found.rater)) < _RATERS:
        why = f"There are {counted(len(np.unique(found.rater)), 'rater')}; an interval takes {_RATERS}."
    if why is not None or isinstance(found, str):
        return [
            Finding.not_applicable(f"psychology/{name}", f"Whether ratings are pulled {words} cannot be told.", why or "")
            for name, words in names.items()
        ]
    rng = np.random.default_rng(seed)
    # one rater's runs on different axes of one response are no sequence: each response counts once, by its first axis
    once = np.unique(combine(found.rater, found.response), return_index=True)[1]
    found = found.where(np.sort(once))
    rater, n_raters = compact(found.rater)
    order = np.argsort(rater, kind="stable")
    sums = _moments(found.y[order], found.others[order], rater[order], n_raters)
    null = np.zeros(2)
    for _ in range(_SHUFFLES):
        mixed = order[np.lexsort((rng.random(len(order)), rater[order]))]
        null += _solve(*_moments(found.y[mixed], found.others[mixed], rater[mixed], n_raters)) / _SHUFFLES
    estimate = _solve(*sums) - null

    def each(k: int) -> tuple[float, float]:
        return bootstrap(
            lambda w: float(_solve(w[:, None, None] * sums[0], w[:, None] * sums[1])[k] - null[k]),
            np.arange(n_raters),
            rounds=300,
            seed=seed,
        )

    out: list[Finding] = []
    for k, name in enumerate(names):
        low, high = each(k)
        value = float(estimate[k])
        there = low > 0 if name == "anchoring" else high < 0
        verdict: Verdict = "notice" if there else "ok"
        said = f"{abs(value):.2f} of a unit {'towards' if value > 0 else 'away from'}"
        what = "the rater's own last deviation" if name == "anchoring" else "the value of the response before"
        out.append(
            Finding(
                code=f"psychology/{name}", estimate=value, low=low, high=high, n=len(found.y), unit="per unit", verdict=verdict,
                title=f"Per unit of {what}, a rating moves {said} it [{low:.2f}, {high:.2f}] ({counted(n_raters, 'rater')}).",
                reason="Above 0 it is pulled, below 0 pushed away. Both come from one regression on ratings less the mean of the others; what the same "
                "gives with answers in random order is taken off; bootstrap over raters. A rater whose mood changes slowly looks like one who is anchored.",
                remedy=_REMEDY if there else None,
                source="Tversky & Kahneman 1974" if name == "anchoring" else "Helson 1964", details={"shuffled": float(null[k])},
            )
        )  # fmt: skip
    return out


def _moments(y: Array, others: Array, rater: Codes, n_raters: int) -> tuple[Array, Array]:
    """Per rater, X'X (R, 2, 2) and X'e (R, 2), X what came before."""
    count = np.bincount(rater, minlength=n_raters)
    e = y - others
    e = e - (np.bincount(rater, e, n_raters) / count)[rater]
    c = others - (np.bincount(rater, others, n_raters) / count)[rater]
    follows = np.flatnonzero(rater[1:] == rater[:-1]) + 1
    x, target, who = np.stack([e[follows - 1], c[follows - 1]], 1), e[follows], rater[follows]
    cross, right = np.zeros((n_raters, 2, 2)), np.zeros((n_raters, 2))
    np.add.at(cross, who, x[:, :, None] * x[:, None, :])
    np.add.at(right, who, x * target[:, None])
    return cross, right


def _solve(cross: Array, right: Array) -> Array:
    total = cross.sum(0) + 1e-9 * np.eye(2)
    return np.linalg.solve(total, right.sum(0))


# ---------------------------------------------------------------------------------------------- one response on several axes


def _halo(feedback: Feedback, seed: int) -> Finding:
    title, code = "Whether one impression colours all axes cannot be told.", "psychology/halo"
    found = _ratings(feedback, ordered=False)
    if isinstance(found, str):
        return Finding.not_applicable(code, title, found)
    n_axes = int(found.axis.max()) + 1
    if n_axes < 2:
        return Finding.not_applicable(code, title, "Responses are rated on one axis only.")
    rater, n_raters = compact(found.rater)
    if n_raters < _RATERS:
        return Finding.not_applicable(code, title, f"There are {counted(n_raters, 'rater')}; an interval takes {_RATERS}.")
    e = found.y - found.others
    own = compact(combine(rater, found.axis))[0]
    e = e - (np.bincount(own, e) / np.bincount(own))[own]
    seat, n_seats = compact(combine(rater, found.response))
    table = np.full((n_seats, n_axes), np.nan)
    table[seat, found.axis] = e
    of = np.zeros(n_seats, dtype=np.int64)
    of[seat] = rater
    known = np.isfinite(table)
    both = known.sum(1) > 1
    if both.sum() < _LEAST:
        return Finding.not_applicable(
            code, title, f"{counted(int(both.sum()), 'response')} rated by one rater on two axes; {_LEAST} are needed."
        )
    table, known, of = np.where(known, table, 0.0)[both], known[both], of[both]
    k = known.sum(1)
    crossed = (table.sum(1) ** 2 - (table**2).sum(1)) / (k * (k - 1))
    squared = (table**2).sum(1) / k

    def correlation(weight: Array) -> float:
        return float((weight @ crossed) / (weight @ squared)) if weight @ squared > 0 else float("nan")

    estimate = correlation(np.ones(len(k)))
    low, high = bootstrap(correlation, of, rounds=300, seed=seed)
    there = low > 0
    return Finding(
        code=code, estimate=estimate, low=low, high=high, n=len(k), unit="correlation", verdict="notice" if there else "ok",
        title=f"What a rater gives a response above the others' mean on one axis goes with what they give it on another: correlation {estimate:.2f} [{low:.2f}, {high:.2f}].",
        reason=f"n counts a rater's responses rated on two axes or more; bootstrap over {counted(n_raters, 'rater')}. A taste that touches several axes does the same: "
        "it is a halo only where the axes have nothing to do with each other for one person.",
        remedy="Ask for one axis at a time, on different days, and compare." if there else None, source="Thorndike 1920",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- less and less care


def others_gap(feedback: Feedback, row: NDArray[Any], left: Codes, right: Codes, comparisons: Comparisons) -> Array:
    """(n,) difference of the log odds of winning of two responses, left less right, by pairs judged other than the judgment `row`; NaN where there are none."""
    decided = comparisons.where((comparisons.left != comparisons.right) & (comparisons.kind == 0)).decided()
    n = feedback.n_responses
    won = np.bincount(np.where(decided.sign > 0, decided.left, decided.right), minlength=n).astype(np.float64)
    lost = np.bincount(np.where(decided.sign > 0, decided.right, decided.left), minlength=n).astype(np.float64)
    own = np.zeros(feedback.n_judgments)
    own[decided.row] = decided.sign
    sign = own[row]
    odds: list[Array] = []
    for response, mine in ((left, sign), (right, -sign)):
        w, k = won[response] - (mine > 0), lost[response] - (mine < 0)
        odds.append(np.where(w + k > 0, np.log((w + 0.5) / (k + 0.5)), np.nan))
    return odds[0] - odds[1]


def _satisficing(feedback: Feedback) -> Finding:
    title, code = "Whether raters take the first answer that will do as they go on cannot be told.", "psychology/satisficing"
    frame = feedback.judgments.with_row_index("row").filter(
        (pl.col("kind") == "pair") & pl.col("outcome").is_in(["left", "right"]) & pl.col("order_known").fill_null(value=False)
    )
    frame = frame.filter(pl.col("position").is_not_null() & pl.col("rater").is_not_null())
    if frame.height < _LEAST or frame["position"].n_unique() < 3:
        return Finding.not_applicable(
            code, title, f"It takes {_LEAST} decided pairs whose order is known, with the place in the session and the rater."
        )
    rater, n_raters = compact(codes_of(frame["rater"]))
    if n_raters < _RATERS:
        return Finding.not_applicable(code, title, f"There are {counted(n_raters, 'rater')}; an interval takes {_RATERS}.")
    place = frame["position"].to_numpy().astype(np.float64)
    place = (place - place.mean()) / place.std()
    left, right = (codes_of(frame["responses"].list.get(slot)) for slot in (0, 1))
    gap = others_gap(feedback, frame["row"].to_numpy(), left, right, compare(feedback))
    gap = np.where(np.isfinite(gap), gap, 0.0)  # nothing is known of which is better
    beta, se = clustered_logistic(
        np.stack([np.ones(len(place)), place, gap], 1), (frame["outcome"] == "left").to_numpy().astype(np.float64), rater
    )
    low, high = (float(beta[1] + s * 1.96 * se[1]) for s in (-1, 1))
    there = low > 0
    return Finding(
        code=code, estimate=float(beta[1]), low=low, high=high, n=frame.height, unit="logits per sd", verdict="notice" if there else "ok",
        title=f"Per standard deviation of the place in a session, the log odds of the response shown first change by {beta[1]:+.2f} [{low:.2f}, {high:.2f}].",
        reason=f"Logistic regression on place and on which response wins against others, clustered by rater ({n_raters:,}). Who comes to late places is not "
        "random: people who go on for long and favour the first would look alike.",
        remedy="Shorten sessions, or model it: --effect position:raters and scale:position." if there else None, source="Krosnick 1991",
        details={"at_the_mean": float(beta[0])},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- do raters reason


@dataclass(frozen=True, kw_only=True)
class Riddles:
    """Answers to items with a right answer, one row each. All (n,); a field that does not apply is NaN."""

    rater: NDArray[np.str_]
    joint: Array
    """Probability that somebody gave to "A and B"."""
    single: Array
    """Probability that the same person gave to A, or to B: the lower of the two where both were asked."""
    posterior: Array
    """Probability that somebody gave to a hypothesis after hearing the evidence."""
    prior: Array
    """The base rate that they were told."""
    likelihood_ratio: Array
    """How many times as likely the evidence is if the hypothesis holds."""

    def __post_init__(self) -> None:
        for name in ("joint", "single", "posterior", "prior"):
            value = getattr(self, name)
            if len(value) != len(self.rater) or ((value < 0) | (value > 1)).any():
                raise InvalidSetting(f"riddles.{name}", len(value), "Give one probability for each rater asked, NaN where it was not.")


def check_rationality(feedback: Feedback | None = None, riddles: Riddles | None = None) -> Findings:
    """Whether raters, people or models, keep to three rules; and who surely does not.

    Returns
    -------
    rationality/transitivity : share of a rater's own triples (a over b, b over c, c over a) that are cycles, with raters who have surely more than others.
    rationality/conjunction : share of answers that give "A and B" more than A.
    rationality/base-rates : weight on the base rate in log odds: 1 is Bayes' rule, 0 ignores it.

    Source: Alsagheer et al. 2024; Tversky & Kahneman 1983 (conjunction), 1974 (base rates).
    """
    return Findings((_transitivity(feedback), _conjunction(riddles), _base_rates(riddles))).with_access("outside-the-box")


def _named(raters: list[str], p: Array) -> list[dict[str, Any]]:
    """Raters whose p is small, with a level of error over all of them (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    found: list[dict[str, Any]] = []
    for rank, k in enumerate(order.tolist()):
        if p[k] * (len(p) - rank) > THRESHOLDS.false_discoveries:
            break
        found.append({"rater": raters[k], "p": float(p[k])})
    return found


@dataclass(frozen=True)
class Triples:
    """Three responses whose three pairs one rater decided on one axis. All (n,)."""

    rater: Codes
    """-1 where it is not known: then each of the pairs was decided once, by whoever."""
    prompt: Codes
    cycle: NDArray[np.bool_]


def own_triples(feedback: Feedback, *, known: bool = True, most: int = 50_000, seed: int = 0) -> Triples:
    """The triples of raters; the last answer to a pair counts. Of more than `most` decided pairs, those of some prompts drawn at random.

    Parameters
    ----------
    known : only of raters who are known.
    """
    c = compare(feedback, seed=seed)
    c = c.where((c.kind == 0) & (c.left != c.right) & ((c.rater >= 0) | (not known))).decided()
    low, high = np.minimum(c.left, c.right), np.maximum(c.left, c.right)
    columns = {"rater": c.rater, "axis": c.axis, "low": low, "high": high, "up": c.sign * np.sign(c.right - c.left), "prompt": c.prompt}
    frame = pl.DataFrame({name: column.astype(np.int64) for name, column in columns.items()})
    if frame.height > most:
        drawn = np.random.default_rng(seed).permutation(feedback.n_prompts + 1) - 1
        size = np.bincount(frame["prompt"].to_numpy() + 1, minlength=feedback.n_prompts + 1)
        frame = frame.filter(pl.col("prompt").is_in(drawn[np.cumsum(size[drawn + 1]) <= most].tolist()))
    if not known:
        frame = frame.filter((pl.col("rater") >= 0) | (pl.len().over("axis", "low", "high") == 1))
    frame = frame.unique(["rater", "axis", "low", "high"], keep="last", maintain_order=True)
    keys = ["rater", "axis"]
    ab = frame.rename({"low": "a", "high": "b", "up": "ab"})
    bc = frame.rename({"low": "b", "high": "c", "up": "bc"})
    ac = frame.rename({"low": "a", "high": "c", "up": "ac"})
    found = ab.join(bc.drop("prompt"), on=[*keys, "b"]).join(ac.drop("prompt"), on=[*keys, "a", "c"])
    cycle = ((found["ab"] == found["bc"]) & (found["ac"] != found["ab"])).to_numpy()
    return Triples(found["rater"].to_numpy(), found["prompt"].to_numpy(), cycle)


def _transitivity(feedback: Feedback | None) -> Finding:
    code, title = "rationality/transitivity", "Whether raters contradict themselves in threes cannot be told."
    found = own_triples(feedback) if feedback is not None else None
    if feedback is None or found is None or len(found.rater) < 20:
        why = f"{counted(0 if found is None else len(found.rater), 'triple')} of responses whose three pairs one rater decided; 20 are needed."
        return Finding.not_applicable(code, title, why, remedy="Show a rater all pairs of three responses.")
    rater, cycle = found.rater, found.cycle
    who, n = compact(rater)
    asked, cycles = np.bincount(who, minlength=n), np.bincount(who, cycle, n)
    total = mean(np.divide(cycles, asked)) if n > 1 else None
    estimate = float(cycle.mean())
    low, high = (total.low, total.high) if total is not None else (None, None)
    # against what the others do: triples of one rater share pairs, so each counts as a third
    others = np.maximum((cycles.sum() - cycles) / np.maximum(asked.sum() - asked, 1), 0.01)
    p = binom.sf(np.ceil(cycles / 3) - 1, np.maximum(np.round(asked / 3).astype(int), 1), others)
    ids = feedback.raters["id"].to_list()
    names = [ids[r] for r in np.unique(rater).tolist()]
    named = _named(names, np.asarray(p)) if n > 2 else []
    for row in named:
        k = names.index(row["rater"])
        row |= {"triples": int(asked[k]), "cycles": int(cycles[k])}
    return Finding(
        code="rationality/transitivity", estimate=estimate, low=None if low is None else max(0.0, low), high=None if high is None else min(1.0, high), n=len(rater), unit="share",
        title=f"{estimate:.1%} of the {counted(len(rater), 'triple')} that one rater decided are cycles; {counted(len(named), 'rater')} of {n:,} "
        f"{'has' if len(named) == 1 else 'have'} surely more than the others (answers by chance make 25%).",
        verdict="notice" if named else "ok",
        reason="Interval over raters, who count alike. A rater is named by a binomial test against the others' share (Holm over raters), triples counting a third as they share pairs.",
        remedy="Look at their answers, and do not leave them out for this alone: near-equal responses make cycles too." if named else None,
        source="Kendall & Babington Smith 1940; Alsagheer et al. 2024", details={"raters": named},
    )  # fmt: skip


def _conjunction(riddles: Riddles | None) -> Finding:
    code, title = "rationality/conjunction", "Whether raters give 'A and B' more than A cannot be told."
    use = np.zeros(0, dtype=bool) if riddles is None else np.isfinite(riddles.joint) & np.isfinite(riddles.single)
    if riddles is None or not use.any():
        return Finding.not_applicable(
            code, title, "It takes items that ask for the probability of A and of A and B.", remedy="Ask a few such items in the session."
        )
    names, who = np.unique(riddles.rater[use], return_inverse=True)
    wrong = (riddles.joint[use] > riddles.single[use]).astype(np.float64)
    asked, times = np.bincount(who), np.bincount(who, wrong)
    found = _named(names.tolist(), binom.sf(times - 1, asked, 0.2))
    return _riddle(
        code, mean(times / asked) if len(names) > 1 else None, float(wrong.mean()), int(use.sum()), found, unit="share",
        title=f"In {wrong.mean():.0%} of {counted(int(use.sum()), 'item')} 'A and B' was given more than A; {counted(len(found), 'rater')} of {len(names):,} surely in more than one in five.",
        reason="Interval over raters, who count alike; a rater is named by a binomial test against one in five (Holm over raters).", source="Tversky & Kahneman 1983",
    )  # fmt: skip


def _base_rates(riddles: Riddles | None) -> Finding:
    code, title = "rationality/base-rates", "Whether raters use base rates cannot be told."
    fields = () if riddles is None else (riddles.posterior, riddles.prior, riddles.likelihood_ratio)
    use = np.all([np.isfinite(f) for f in fields], axis=0) if fields else np.zeros(0, dtype=bool)
    if riddles is None or use.sum() < 8 or np.unique(riddles.prior[use]).size < 2:
        return Finding.not_applicable(
            code, title, "It takes eight items or more that tell two base rates or more.", remedy="Ask a few such items in the session."
        )

    def logit(p: Array) -> Array:
        p = np.clip(p, 0.005, 0.995)
        return np.log(p / (1 - p))

    names, who = np.unique(riddles.rater[use], return_inverse=True)
    x = np.stack([logit(riddles.prior[use]), np.log(riddles.likelihood_ratio[use])], 1)
    y = logit(riddles.posterior[use])
    weights, p = np.full(len(names), np.nan), np.ones(len(names))
    from scipy.stats import t

    for k in range(len(names)):
        mine = who == k
        if mine.sum() < 4 or np.linalg.matrix_rank(x[mine]) < 2:
            continue
        solved = np.linalg.solve(x[mine].T @ x[mine], x[mine].T @ y[mine])
        left = y[mine] - x[mine] @ solved
        df = int(mine.sum()) - 2
        se = np.sqrt(max(left @ left / df, 1e-4) * np.linalg.inv(x[mine].T @ x[mine])[0, 0])
        weights[k], p[k] = solved[0], float(t.cdf((solved[0] - 0.5) / se, df))
    known = np.isfinite(weights)
    if not known.any():
        return Finding.not_applicable(code, title, "No rater answered four items or more with two base rates.")
    found = _named(names[known].tolist(), p[known])
    estimate = float(weights[known].mean())
    return _riddle(
        code, mean(weights[known]) if known.sum() > 1 else None, estimate, int(use.sum()), found, unit="weight",
        title=f"The weight on the base rate is {estimate:.2f} on average, of 1 by Bayes' rule; {counted(len(found), 'rater')} of {int(known.sum()):,} surely "
        f"{'gives' if len(found) == 1 else 'give'} it less than half.",
        reason="Regression of each rater's log odds on those of the base rate and the log likelihood ratio; interval over raters; t test against one half (Holm over raters).",
        source="Tversky & Kahneman 1974; Grether 1980",
    )  # fmt: skip


def _riddle(
    code: str, interval: Any, estimate: float, n: int, found: list[dict[str, Any]], *, unit: str, title: str, reason: str, source: str
) -> Finding:
    low, high = (None, None) if interval is None else interval.ends
    return Finding(
        code=code, estimate=estimate, low=low, high=high, n=n, unit=unit, title=title, reason=f"n counts items. {reason}", source=source,
        verdict="notice" if found else "ok", details={"raters": found},
        remedy="Use it as a covariate of these raters' answers, not as a reason to leave them out." if found else None,
    )  # fmt: skip
