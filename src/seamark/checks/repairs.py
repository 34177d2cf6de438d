"""Repair, and prove it again: what a change of judgments, model or charter makes better, and what it makes worse.

The judgments are split once, by prompt where responses have texts. One reward is learned from one part as it is, one after the repair, and both are
measured on the same held-out judgments (repeats among them count once) and the same policies over held-out responses; a draw of the bootstrap is
one for both. Steps of a repair never see what is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.aggregation import Charter, Collective
from seamark.checks.amplification import log_lengths
from seamark.checks.comparisons import codes_of, counted
from seamark.checks.findings import VERDICTS, Finding, Findings, Verdict
from seamark.checks.held_out import decided_cells
from seamark.checks.model import evaluate
from seamark.checks.probes import check_probes
from seamark.checks.repeats import find_repeats
from seamark.errors import InvalidSetting
from seamark.intervals import FEW_CLUSTERS, figure, interval_of
from seamark.models import fit
from seamark.models.effects import Bias, Leniency, Position, Reliability, Source, Taste
from seamark.models.label_quality import cross_fitted, softened
from seamark.models.observation import Observation
from seamark.models.people import People
from seamark.models.prediction import predict
from seamark.models.result import Fit
from seamark.models.utility import Linear, Tabular, Utility, default_utility
from seamark.records import Feedback
from seamark.reward.policies import Policies, Pool, best_of_n, usual_size
from seamark.reward.signal import OUT_OF_SUPPORT, Reward

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_DRAWS = 1000
_BINS = 10
_LEAST = 30
"""Fewer decided held-out judgments prove nothing."""
_PROBED = 100
"""Responses that each probe changes, once for each of the two rewards."""
_NAMED = 4
"""Checks named in a sentence; the table has all."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Plan:
    """Judgments, how they are to be learned from, and how the reward is read from what was learned."""

    learn: Feedback
    utility: Utility
    people: People | None = None
    observation: Observation | None = None
    charter: Charter = field(default_factory=lambda: Charter(ignorance_penalty=0.0))
    least_support: float = 0.0
    """Support below which the reward abstains."""
    careful: Mapping[str, float] | None = None
    """Share of each rater's answers that are no random click, by rater id, where the model does not say so itself."""
    flips: float = 0.0
    """Share of labels taken to be recorded the wrong way round."""
    notes: tuple[str, ...] = ()
    seed: int = 0

    def fitted(self) -> Fit:
        return fit(
            self.learn, utility=self.utility, people=self.people, observation=self.observation, require_converged=False,
            require_identified=False, seed=self.seed,
        )  # fmt: skip


Step = Callable[[Plan], Plan]
"""One operation of a repair."""


# ---------------------------------------------------------------------------------------------- the operations


def reweight_raters(plan: Plan) -> Plan:
    """Judgments count as far as their rater, by a fit with reliability, is not at chance. Who answers against the others is left as they
    are: that may be a minority."""
    raters = _raters_at_chance(plan)
    if raters is None:
        raise InvalidSetting("with", "reweight:raters", "Who answers at chance cannot be told: it takes 3 raters of 5 judgments or more.")
    keep = 1 - _of_rater(plan.learn, raters)
    told = plan.observation is not None and not plan.observation.with_effect(Reliability)
    careful = {name: 1 - p for name, p in raters.items()} if told else plan.careful
    return replace(_weighed(plan, keep), careful=careful, notes=(*plan.notes, f"raters lose {1 - keep.mean():.0%} of their weight"))


def reweight_duplicates(plan: Plan) -> Plan:
    """Of judgments by one rater that are the same in everything the first counts."""
    repeats, _ = find_repeats(plan.learn)
    keep = np.ones(plan.learn.n_judgments)
    keep[repeats] = 0.0
    return replace(_weighed(plan, keep), notes=(*plan.notes, f"{counted(len(repeats), 'repeat')} left out"))


def reweight_prompts(plan: Plan) -> Plan:
    """No prompt counts more than the one in the middle."""
    prompt = codes_of(plan.learn.judgments["prompt"])
    size = np.bincount(prompt[prompt >= 0], minlength=plan.learn.n_prompts).astype(np.float64)
    middle = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
    keep = np.where(prompt >= 0, np.minimum(1.0, middle / np.maximum(size[np.maximum(prompt, 0)], 1)), 1.0)
    return replace(_weighed(plan, keep), notes=(*plan.notes, f"no prompt counts as more than {middle:.0f} judgments"))


def reweight(plan: Plan) -> Plan:
    """Of raters and duplicates, what can be told."""
    plan = reweight_duplicates(plan)
    return plan if _raters_at_chance(plan) is None else reweight_raters(plan)


def relabel(plan: Plan) -> Plan:
    """Labels of pairs softened by what fits of the other folds say of them (`seamark.models.label_quality`)."""
    by = "judgment" if isinstance(plan.utility, Tabular) else "prompt"
    quality = cross_fitted(plan.learn, utility=plan.utility, observation=plan.observation, by=by, seed=plan.seed)
    learn = softened(plan.learn, quality)
    low, high = quality.flip_rate_low, quality.flip_rate_high
    return replace(
        plan, learn=learn, flips=quality.flip_rate, notes=(*plan.notes, f"flipped labels: {quality.flip_rate:.1%} [{low:.1%}, {high:.1%}]")
    )


def discount(what: str) -> Step:
    """An effect that is not to count: style (the charter), or position, leniency, source, taste, or a number of what was shown, which the
    observation then takes out."""
    effects = {"position": Position(), "leniency": Leniency(), "source": Source(), "taste": Taste()}

    def step(plan: Plan) -> Plan:
        if what == "style":
            if not (isinstance(plan.utility, Linear) and plan.utility.style):
                raise InvalidSetting("with", "discount:style", "The utility has no block of length and style: fit with --utility hash.")
            return replace(
                plan, charter=plan.charter.model_copy(update={"effects": plan.charter.effects.model_copy(update={"style": "discount"})})
            )
        observation = plan.observation or Observation()
        effect = effects.get(what) or Bias(what)
        if observation.with_effect(type(effect)) and what in effects:
            return replace(plan, notes=(*plan.notes, f"{what} was taken out already"))
        return replace(plan, observation=replace(observation, effects=(*observation.effects, effect)))

    return step


def abstain(least: float = OUT_OF_SUPPORT) -> Step:
    """No score where the data has removed less than this share of the prior variance."""
    return lambda plan: replace(plan, least_support=least)


def penalise(by: float = 1.0) -> Step:
    """A score less so many times its ignorance."""
    return lambda plan: replace(plan, charter=plan.charter.model_copy(update={"ignorance_penalty": by}))


_PLAIN: dict[str, Step] = {
    "reweight": reweight, "reweight:raters": reweight_raters, "reweight:duplicates": reweight_duplicates, "reweight:prompts": reweight_prompts,
    "relabel": relabel, "abstain": abstain(), "penalise": penalise(),
}  # fmt: skip


def read_step(text: str) -> Step:
    """The operation that a text names: reweight, reweight:raters, reweight:duplicates, reweight:prompts, relabel, discount:EFFECT, abstain,
    abstain:SUPPORT, penalise, penalise:TIMES.

    Raises
    ------
    InvalidSetting
        If there is none of this name.
    """
    if text in _PLAIN:
        return _PLAIN[text]
    what, _, of = text.partition(":")
    if what == "discount" and of:
        return discount(of)
    try:
        number = float(of)
        if what == "abstain" and 0 <= number <= 1:
            return abstain(number)
        if what == "penalise" and 0 <= number < np.inf:
            return penalise(number)
    except ValueError:
        pass
    raise InvalidSetting(
        "with", text, f"Use {', '.join(_PLAIN)}, discount:style (or position, leniency, source, NAME), abstain:0.2 or penalise:2."
    )


def _weighed(plan: Plan, keep: Array) -> Plan:
    frame = plan.learn.judgments
    weight = frame["weight"].fill_null(1.0).to_numpy() * keep
    if not weight.any():
        raise InvalidSetting("with", "reweight", "No judgment is left that counts.")
    return replace(plan, learn=replace(plan.learn, judgments=frame.with_columns(weight=pl.Series(weight))))


def _raters_at_chance(plan: Plan) -> dict[str, float] | None:
    """Posterior probability of each rater to answer at chance, by a fit with reliability; None where it cannot be told."""
    observation = plan.observation or Observation()
    if not observation.with_effect(Reliability):
        observation = replace(observation, effects=(Reliability(), *observation.effects))
    if plan.learn.n_raters < 3:
        return None
    raters = replace(plan, observation=observation).fitted().raters
    known = raters.filter(pl.col("p_careless").is_finite())
    return dict(zip(known["rater"].to_list(), known["p_careless"].to_list(), strict=True)) if known.height else None


def _of_rater(feedback: Feedback, table: Mapping[str, float]) -> Array:
    """(n_judgments,) the number of each judgment's rater; that of the mean rater for those who are not in the table."""
    default = float(np.mean(list(table.values())))
    values = np.array([table.get(name, default) for name in feedback.raters["id"].to_list()] + [default])
    return values[codes_of(feedback.judgments["rater"])]


# ---------------------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class _Measured:
    """One reward on the held-out part."""

    p: Array
    """(n,) forecast of the recorded answer: that the first wins."""
    gap: Array
    """(n,) reward of the first less the second; 0 where it abstains from either."""
    score: Array
    """(n_responses,) NaN where it abstains."""
    policies: Policies | None
    chance: Array | None
    """(2, n_raters) weight of each rater in what was learned from, and how much of it is at chance."""
    repeated: float | None
    """The same on repeats."""


@dataclass(frozen=True)
class Row:
    """A statistic before and after."""

    name: str
    words: str
    unit: str
    better: str
    """higher, or lower."""
    before: float
    after: float
    low: float | None
    high: float | None
    """95% interval of after less before, all statistics together; None for an exact count."""
    n: int
    of: str
    """What n counts, and how it was clustered."""

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """better, worse, or no clear change."""
        low, high = (self.change, self.change) if self.low is None or self.high is None else (self.low, self.high)
        up, down = ("better", "worse") if self.better == "higher" else ("worse", "better")
        return up if low > _ROUNDING else down if high < -_ROUNDING else "no clear change"


@dataclass(frozen=True)
class Repair:
    """What a repair did to every statistic."""

    rows: tuple[Row, ...]
    start: Plan
    """Before the repair."""
    plan: Plan
    """After the repair, of the judgments learned from."""
    absent: tuple[str, ...]
    """Statistics that could not be computed, and why."""
    gold: str
    checks: tuple[tuple[Finding, Finding], ...] = ()
    """What every check says before and after, of the evaluation on the held-out judgments and of probes; where both could be made."""

    @property
    def better(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.verdict == "better")

    @property
    def worse(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.verdict == "worse")

    def __str__(self) -> str:
        table = [("", "before", "after", "change", "")]
        for row in self.rows:
            before, after = (figure(x, row.unit, decimals=1 if row.unit == "share" else 3) for x in (row.before, row.after))
            change = f"{figure(row.change, row.unit, decimals=1 if row.unit == 'share' else 3)} {interval_of(row.low, row.high, row.unit, decimals=1 if row.unit == 'share' else 3)}"
            table.append((row.words, before, after, change.strip(), row.verdict))
        width = [max(len(line[i]) for line in table) for i in range(5)]
        return "\n".join(f"{a:<{width[0]}}  {b:>{width[1]}}  {c:>{width[2]}}  {d:<{width[3]}}  {e}".rstrip() for a, b, c, d, e in table)


def repair(
    feedback: Feedback,
    operations: Sequence[str | Step],
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    charter: Charter | None = None,
    gold: Array | None = None,
    test: float = 0.3,
    checks: bool = True,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Repair:
    """What some operations, one after the other, make of a reward that is learned from judgments.

    Parameters
    ----------
    operations : names (`read_step`), or functions from a `Plan` to a plan.
    utility, people, observation : as in `fit`, before the repair.
    charter : by which the reward is read before the repair; the default one without a penalty for ignorance where left out.
    gold : (n_responses,) what responses are worth, where that is known; left out, a fit to the held-out judgments is gold.
    test : share held out.
    checks : whether to set what every check says before and after side by side, too, which takes longer than all else.

    Returns
    -------
    accuracy (the reward's decisions against gold where that is given, else against the held-out answers; an abstention is half right), log loss and
    calibration (of the forecast of the answers as they were recorded), length (how far the reward goes along with length), best-of-n regret and
    the turning point (as in `seamark.checks.optimisation`), coverage; and what the judgments learned from weigh: raters at chance, repeats.

    Raises
    ------
    InvalidSetting
        If an operation cannot be done here, or fewer than 30 decided pairs are held out.
    """
    steps = [read_step(o) if isinstance(o, str) else o for o in operations]
    if not steps:
        raise InvalidSetting("with", [], "Name at least one operation.")

    def say(stage: str, share: float) -> None:
        if progress is not None:
            progress(stage, share)

    utility = utility or default_utility(feedback)
    by = "judgment" if isinstance(utility, Tabular) else "prompt"
    # the codes of responses stay those of the whole, so that gold and both rewards speak of the same ones
    learned, held = (replace(feedback, judgments=part) for part in _parts(feedback, by, test, seed))
    held = _once(held)
    start = Plan(learned, utility, people, observation, charter or Charter(ignorance_penalty=0.0), seed=seed)
    say("fitting", 0.05)
    before = start.fitted()
    truth, said = (gold, "gold") if gold is not None else (replace(start, learn=held).fitted().utilities(feedback), "the held-out signal")
    if truth.shape != (feedback.n_responses,):
        raise InvalidSetting("gold", truth.shape, f"Give one number for each of the {feedback.n_responses:,} responses.")
    plan = start
    for number, step in enumerate(steps):
        say("repairing", 0.2 + 0.5 * number / len(steps))
        plan = step(plan)
    after = plan.fitted()
    say("measuring", 0.8)
    cells = _common(before, after, held)
    if cells["count"].sum() < _LEAST:
        raise InvalidSetting(
            "feedback", f"{round(cells['count'].sum())} decided pairs held out", f"A repair is proved on {_LEAST} or more."
        )
    chance = _raters_at_chance(start)
    pair = [_measured(p, f, held, cells, side, truth, chance) for p, f, side in ((start, before, "p_before"), (plan, after, "p_after"))]
    rows, absent = _compare(feedback, cells, pair[0], pair[1], truth, given=gold is not None, seed=seed)
    if not checks:
        return Repair(rows, start, plan, absent, said)
    say("checking", 0.9)
    one, two = (_checked(p, fitted, held) for p, fitted in ((start, before), (plan, after)))
    return Repair(rows, start, plan, absent, said, tuple((one[code], two[code]) for code in one if code in two))


def _checked(plan: Plan, fitted: Fit, held: Feedback) -> dict[str, Finding]:
    """Every check of one reward that could be made, by its code."""
    found = evaluate(fitted, held, seed=plan.seed)
    if fitted.basis.features is not None:  # a table of values scores no text that it has not seen
        found += check_probes(Reward(fitted, charter=plan.charter), judgments=held, n=_PROBED, seed=plan.seed)
    return {f.code: f for f in found if f.verdict != "not_applicable"}


def mend(found: Repair, feedback: Feedback, operations: Sequence[str | Step]) -> tuple[Fit, Charter]:
    """The repaired fit of all judgments, by the same operations, and the charter that goes with it."""
    plan = replace(found.start, learn=feedback)
    for operation in operations:
        plan = (read_step(operation) if isinstance(operation, str) else operation)(plan)
    return plan.fitted(), plan.charter


def _parts(feedback: Feedback, by: str, test: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judgments to learn from, and those held out."""
    if not 0 < test < 1:
        raise InvalidSetting("test", test, "Use a share between 0 and 1.")
    unit = feedback.units(by)
    n = int(unit.max()) + 1
    held = (np.random.default_rng(seed).permutation(n) < max(1, round(test * n)))[unit]
    return feedback.judgments.filter(pl.Series(~held)), feedback.judgments.filter(pl.Series(held))


def _once(held: Feedback) -> Feedback:
    """The held-out judgments without repeats, which would prove a reward that has learned from repeats right."""
    once = np.ones(held.n_judgments, dtype=bool)
    once[find_repeats(held)[0]] = False
    return replace(held, judgments=held.judgments.filter(pl.Series(once)))


def _common(before: Fit, after: Fit, held: Feedback) -> pl.DataFrame:
    """Decided held-out pairs that both fits place: count, rater, prompt, first, second, won, p_before, p_after."""
    keys = ["first", "second", "rater", "prompt", "won"]
    frames: list[pl.DataFrame] = []
    for name, fitted in (("p_before", before), ("p_after", after)):
        frame = decided_cells(fitted, held, predict(fitted, held)).frame
        frames.append(frame.group_by(keys, maintain_order=True).agg(pl.col("count").sum(), pl.col("p").mean().alias(name)))
    return frames[0].join(frames[1].drop("count"), on=keys, how="inner", maintain_order="left")


def _measured(
    plan: Plan, fitted: Fit, held: Feedback, cells: pl.DataFrame, side: str, truth: Array, chance: Mapping[str, float] | None
) -> _Measured:
    prompt = codes_of(held.responses["prompt"])
    score = Collective.of(fitted, plan.charter, held).scores(prompt)
    if plan.least_support > 0:
        score = np.where(fitted.support(held) >= plan.least_support, score, np.nan)
    first, second = cells["first"].to_numpy(), cells["second"].to_numpy()
    gap = score[first] - score[second]
    p = cells[side].to_numpy()
    p = (1 - plan.flips) * p + plan.flips * (1 - p)
    if plan.careful is not None:
        names = held.raters["id"].to_list()
        usual = float(np.mean(list(plan.careful.values())))
        sure = np.array([plan.careful.get(name, usual) for name in names] + [usual])[np.minimum(cells["rater"].to_numpy(), len(names))]
        p = sure * p + (1 - sure) / 2
    weight = plan.learn.judgments["weight"].fill_null(1.0).to_numpy()
    repeats, _ = find_repeats(plan.learn) if plan.learn.n_raters else (np.zeros(0, dtype=np.int64), None)
    return _Measured(
        p, np.where(np.isfinite(gap), gap, 0.0), score, _policies(held, prompt, score, truth),
        None if chance is None else _by_rater(plan.learn, weight, chance),
        float(weight[repeats].sum() / weight.sum()) if plan.learn.n_raters else None,
    )  # fmt: skip


def _by_rater(learn: Feedback, weight: Array, chance: Mapping[str, float]) -> Array:
    rater = codes_of(learn.judgments["rater"])
    known = rater >= 0
    each = np.bincount(rater[known], weight[known], learn.n_raters).astype(np.float64)
    return np.stack([each, each * np.array([chance.get(name, 0.0) for name in learn.raters["id"].to_list()])])


def _policies(held: Feedback, prompt: Codes, score: Array, truth: Array) -> Policies | None:
    """Best-of-n over the responses to held-out prompts; what has no score comes last."""
    judged = np.unique(held.judgments["responses"].explode().drop_nulls().cast(pl.Int64).to_numpy())
    judged = judged[np.isfinite(truth[judged]) & (prompt[judged] >= 0)]
    _, code, size = np.unique(prompt[judged], return_inverse=True, return_counts=True)
    if (size > 1).sum() < FEW_CLUSTERS:
        return None
    least = usual_size(size[size > 1])
    mine = judged[size[code] >= least]
    known = score[mine][np.isfinite(score[mine])]
    worst = float(known.min()) - 1.0 if len(known) else 0.0
    strengths = sorted({*(n for n in (2**k for k in range(20)) if n <= least), least})
    return best_of_n(Pool.of(prompt[mine], np.where(np.isfinite(score[mine]), score[mine], worst), truth[mine]), strengths)


# ---------------------------------------------------------------------------------------------- before and after


def _compare(
    feedback: Feedback, cells: pl.DataFrame, before: _Measured, after: _Measured, truth: Array, *, given: bool, seed: int
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """All statistics, with intervals of the differences that hold together."""
    count, won = cells["count"].to_numpy(), cells["won"].to_numpy()
    first, second = cells["first"].to_numpy(), cells["second"].to_numpy()
    rng = np.random.default_rng(seed)
    found: list[tuple[Row, Array | None]] = []
    absent: list[str] = []
    clusters = {by: cells[by].to_numpy() for by in ("rater", "prompt") if cells[by].n_unique() > 1} or {"judgment": np.arange(len(cells))}
    weights: dict[str, Array] = {}
    for by, code in clusters.items():
        k = len(np.unique(code))
        weights[by] = rng.multinomial(k, np.full(k, 1 / k), _DRAWS).astype(np.float64)[:, np.unique(code, return_inverse=True)[1]] * count

    def over_cells(name: str, words: str, unit: str, better: str, statistic: Callable[[_Measured, Array], Array], use: Array) -> None:
        """A statistic of the cells: the wider of the differences by rater and by prompt."""
        one = (count * use)[None]
        drawn = {by: statistic(after, w * use) - statistic(before, w * use) for by, w in weights.items()}
        by = max(drawn, key=lambda key: float(np.ptp(np.nanquantile(drawn[key], [0.025, 0.975]))))
        of = f"decided held-out judgments, clustered by {by}"
        ends = [float(statistic(m, one)[0]) for m in (before, after)]
        found.append((_row(name, words, unit, better, ends, round(one.sum()), of), drawn[by]))

    gold_gap = truth[first] - truth[second]
    right = np.sign(gold_gap) if given else np.where(won, 1.0, -1.0)
    use = ((right != 0) & np.isfinite(right)).astype(np.float64)
    right = np.where(use > 0, right, 0.0)
    words, every = "accuracy against gold" if given else "accuracy", np.ones(len(cells))
    over_cells("accuracy", words, "share", "higher", lambda m, w: w @ ((1 + np.sign(m.gap) * right) / 2) / w.sum(1), use)
    over_cells(
        "log-loss", "log loss", "nats", "lower", lambda m, w: w @ -np.log(np.clip(np.where(won, m.p, 1 - m.p), 1e-12, 1)) / w.sum(1), every
    )
    over_cells("calibration", "calibration error", "share", "lower", lambda m, w: _ece(m.p, won, w), every)
    length = log_lengths(feedback)
    longer = length[first] - length[second]
    there = np.isfinite(longer)
    if there.sum() > 1 and np.ptp(longer[there]) > 0:
        longer = np.where(there, longer, 0.0)
        words = "reward goes along with length"
        over_cells("length", words, "correlation", "lower", lambda m, w: np.abs(_correlations(m.gap, longer, w)), there.astype(np.float64))
    else:
        absent.append("length: responses have no texts that differ in it")
    if before.policies is not None and after.policies is not None:
        found += _optimised(before.policies, after.policies, rng)
    else:
        absent.append(f"regret and turning point: fewer than {FEW_CLUSTERS} held-out prompts have several responses with gold")
    judged = np.unique(np.concatenate([first, second]))
    covered = [float(np.isfinite(m.score[judged]).mean()) for m in (before, after)]
    of = "held-out responses; an exact count"
    found.append((_row("coverage", "responses with a score", "share", "higher", covered, len(judged), of), None))
    if before.chance is not None and after.chance is not None:
        found.append(_at_chance(before.chance, after.chance, rng))
    else:
        absent.append("weight on raters at chance: who these are cannot be told")
    if before.repeated is not None and after.repeated is not None:
        both, of = [before.repeated, after.repeated], "judgments; an exact count"
        found.append((_row("repeated", "weight on repeated judgments", "share", "lower", both, feedback.n_judgments, of), None))
    several = sum(draws is not None for _, draws in found)
    rows: list[Row] = []
    for row, draws in found:
        if draws is not None:
            low, high = np.nanquantile(draws, (0.025 / several, 1 - 0.025 / several))
            row = replace(row, low=float(low), high=float(high))
        rows.append(row)
    return tuple(rows), tuple(absent)


def _row(name: str, words: str, unit: str, better: str, ends: Sequence[float], n: int, of: str) -> Row:
    """A statistic before and after, its interval to come."""
    return Row(name, words, unit, better, ends[0], ends[1], None, None, n, of)


def _at_chance(before: Array, after: Array, rng: np.random.Generator) -> tuple[Row, Array]:
    """Weight on raters at chance; who these are is known with doubt, so each draw decides it anew, once for both."""
    raters = before.shape[1]
    drawn = rng.multinomial(raters, np.full(raters, 1 / raters), _DRAWS).astype(np.float64)
    doubtful = np.divide(before[1], before[0], out=np.zeros(raters), where=before[0] > 0)
    is_so = rng.random((_DRAWS, raters)) < doubtful
    one, two = (((drawn * is_so) @ c[0]) / np.maximum(drawn @ c[0], 1e-12) for c in (before, after))
    whole = [float(c[1].sum() / c[0].sum()) for c in (before, after)]
    return _row("at-chance", "weight on raters at chance", "share", "lower", whole, raters, "raters"), two - one


def _ece(p: Array, won: NDArray[np.bool_], weight: Array) -> Array:
    """(draws,) expected calibration error of the predicted winner, ten bins of equal count, under weights (draws, n)."""
    sure, hit = np.maximum(p, 1 - p), np.where(p >= 0.5, won, ~won).astype(np.float64)
    bins = np.empty(len(p), dtype=np.int64)
    bins[np.argsort(sure, kind="stable")] = np.arange(len(p)) * _BINS // len(p)
    off = (hit - sure)[:, None] * (bins[:, None] == np.arange(_BINS))
    return np.abs(weight @ off).sum(1) / weight.sum(1)


def _correlations(x: Array, y: Array, weight: Array) -> Array:
    """(draws,) weighted correlation under weights (draws, n); 0 where one does not vary."""
    total = weight.sum(1)
    mx, my = weight @ x / total, weight @ y / total
    across = weight @ (x * y) / total - mx * my
    spread = np.sqrt(np.maximum(weight @ x**2 / total - mx**2, 0) * np.maximum(weight @ y**2 / total - my**2, 0))
    return np.divide(across, spread, out=np.zeros_like(across), where=spread > 1e-12)


def _optimised(before: Policies, after: Policies, rng: np.random.Generator) -> list[tuple[Row, Array | None]]:
    """Regret at the strongest policy, and the strength at which gold is highest."""
    n = len(before.start)
    rows = rng.integers(0, n, (_DRAWS, n))
    distance, of = np.sqrt(before.kl), "held-out prompts"
    one, two = (np.array([p.regret(r)[-1] for r in rows]) for p in (before, after))
    out: list[tuple[Row, Array | None]] = []
    if np.isfinite(one).any():
        ends = [float(p.regret()[-1]) for p in (before, after)]
        out.append((_row("regret", f"regret of best of {before.strength[-1]:.0f}", "ratio", "lower", ends, n, of), two - one))
    one, two = (distance[np.array([p.gold[r].mean(0) for r in rows]).argmax(1)] for p in (before, after))
    ends = [float(distance[p.gold.mean(0).argmax()]) for p in (before, after)]
    out.append((_row("turning", "gold is highest at sqrt KL", "sqrt nats", "higher", ends, n, of), two - one))
    return out


# ---------------------------------------------------------------------------------------------- findings


def check_repair(found: Repair, *, named: str = "The repair") -> Findings:
    """`repair`: what got better and what got worse; then `repair/STATISTIC` with the change of each."""
    better, worse = found.better, found.worse
    lists = [", ".join(f"{row.words} ({_said(row)})" for row in rows) for rows in (better, worse)]
    title = (
        f"{named} makes {counted(len(worse), 'statistic')} worse: {lists[1]}" + (f"; better: {lists[0]}" if better else "")
        if worse
        else f"{named} makes better: {lists[0]}; nothing got surely worse"
        if better
        else f"{named} changes nothing for sure"
    )
    verdict: Verdict = "warning" if worse else "ok" if better else "notice"
    notes = "".join(f" {note[:1].upper()}{note[1:]}." for note in (*found.plan.notes, *(f"not measured: {why}" for why in found.absent)))
    whole = Finding(
        code="repair", title=f"{title}.", estimate=float(len(worse)), n=len(found.rows), unit="count", verdict=verdict,
        reason=f"Both rewards on the same held-out judgments and policies, gold being {found.gold}; 95% intervals of the differences hold together for all "
        f"statistics (bootstrap, one draw for both). The estimate counts what got surely worse, so it has no interval; n counts statistics.{notes}",
        remedy="Weigh what got worse against what got better, and try the operations one by one." if worse
        else None if better else "Look for another repair, or hold out more judgments.",
        details={"statistics": [
            {"name": r.words, "code": r.name, "unit": r.unit, "goal": r.better, "before": r.before, "after": r.after, "change": r.change, "low": r.low,
             "high": r.high, "n": r.n, "verdict": r.verdict} for r in found.rows
        ]},
    )  # fmt: skip
    return Findings((whole, *(_finding(row) for row in found.rows), *([_verdicts(found)] if found.checks else [])))


def _verdicts(found: Repair) -> Finding:
    """What every check says after the repair that it did not say before."""
    moved = [(before, after, VERDICTS.index(before.verdict) - VERDICTS.index(after.verdict)) for before, after in found.checks]
    graver, milder = (sorted((x for x in moved if sign * x[2] > 0), key=lambda x: -sign * x[2]) for sign in (1, -1))
    said = [f"{len(some)} {how}" + (f" ({', '.join(f'{a.code}: {a.verdict} to {b.verdict}' for a, b, _ in some[:_NAMED])}{', ...' if len(some) > _NAMED else ''})" if some else "")
            for some, how in ((graver, "graver"), (milder, "milder"))]  # fmt: skip
    return Finding(
        code="repair/checks", title=f"Of {counted(len(moved), 'check')} of both rewards, {' and '.join(said)} after the repair.",
        estimate=float(len(graver)), n=len(moved), unit="count", verdict="notice" if graver else "ok",
        reason="Evaluation on the held-out judgments, and probes, which could be made of both; each as if run alone, so that a verdict may turn by chance. A count, so there is no interval.",
        remedy="Look at what these checks say of both in the table." if graver else None,
        details={"checks": [
            {"check": a.code, "unit": b.unit, "before": a.estimate, "after": b.estimate, "verdict_before": a.verdict, "verdict": b.verdict, "says": b.title} for a, b in found.checks
        ]},
    )  # fmt: skip


def _said(row: Row) -> str:
    decimals = 1 if row.unit == "share" else 2
    return f"{figure(row.before, row.unit, decimals=decimals)} to {figure(row.after, row.unit, decimals=decimals)}"


def _finding(row: Row) -> Finding:
    words = {"better": "better", "worse": "worse", "no clear change": "no clear change"}[row.verdict]
    return Finding(
        code=f"repair/{row.name}", title=f"{row.words[:1].upper()}{row.words[1:]}: {_said(row)}, {words}.", estimate=row.change, low=row.low, high=row.high,
        n=row.n, unit=row.unit, verdict="warning" if row.verdict == "worse" else "ok",
        reason=f"After the repair less before; {row.better} is better; n counts {row.of}.",
        remedy="See what the other statistics gained by it." if row.verdict == "worse" else None,
        details={"before": row.before, "after": row.after},
    )  # fmt: skip
