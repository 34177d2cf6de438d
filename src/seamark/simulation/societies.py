"""Societies with known truth: responses whose text carries their value, raters of known kind, judgments from a known law.

Conventions
-----------
Arrays of `Truth` are aligned with the rows of the society's `feedback`: responses, raters and judgments in its order.
Values, effects and gaps are in logits of the median careful rater. For judgment j by rater r of group g, with m slots shown:

    u_i  = value_by_group[i, g] + (length_effect + length_taste[r]) * length[i] + source_bias[source[i]]
           + axis_values[i, axis_j] + context_values[i, context_j] + persona_values[i, persona_r]
           + taste_values[i] . taste[r] + drift[i, month_j]
    a_j  = slope_r * exp(-fatigue * place_j + guidelines[..] + teams[..] + uis[..]),   place_j standardised over all judgments
    s_i  = a_j * u_i + (style + style_by_rater[r]) . style_numbers[j, i] + shift_j * (i is shown first),   shift_j = position + position of the rater + that of the version

    pair      P(left), P(right), P(tie) proportional to exp(gap/2), exp(-gap/2), exp(log_tie),   gap = s_left - s_right
              and P(both bad) to exp(bad - (s_left + s_right) / 2): exp(s_left), exp(s_right), exp(log_tie + mean), exp(bad)
    strength  P(at most this far to the left) = sigmoid(cut + gap), cuts -t_L, ..., -t_1, t_1, ..., t_L (with 0 where no tie can be)
    choice    P(i) = exp(s_i) / sum_j exp(s_j), exp(bad) joining the sum; the worst of the rest by exp(-s_i)
    ranking   a sequence of choices among those left; with ties, of sets S by exp(delta_|S| + mean of s over S)
    rating    P(grade <= c) = sigmoid(cut_c - s - leniency_r), s without shift_j
    thumbs    P(up) = sigmoid(s + leniency_r), s without shift_j
    label     P(label) = confusion[r, label_class[i]]

and with probability `lapse_by_judgment` the answer is uniform over the outcomes instead (in a ranking: at each stage): log odds
logit(lapse) + haste * hurry_j. Then it may be left open (`Missing`), randomised for privacy, and recorded the wrong way round, in
this order. These are the formulas of `seamark.models.observation`, written apart from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.columns import COVARIATE
from seamark.records import Feedback, LoadReport
from seamark.simulation.answers import (
    ANSWERED,
    CANNOT_TELL,
    NONE,
    SKIPPED,
    Answers,
    Forms,
    Seen,
    draw_answers,
    gaps,
    leave_open,
    probabilities,
    randomise,
    turn_round,
)
from seamark.simulation.raters import START, Raters, Work, recruit, schedule
from seamark.simulation.settings import (
    MAX_SHOWN,
    Axes,
    Confidence,
    Contexts,
    Drift,
    Labels,
    Missing,
    Personas,
    Style,
    Tastes,
    check,
    read_written,
    table_of,
)
from seamark.simulation.texts import Things, entries, properties, standardise, write

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_PARTS = (
    "position", "length", "personas", "tastes", "teams", "missing", "confidence", "labels", "when", "sources", "axes", "contexts",
    "drift", "uis", "worst", "privacy", "style",
)  # fmt: skip
"""Each has a stream of random numbers of its own, so that planting one changes nothing else. New ones go to the end."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the judgments were made from. What was not planted is 0, of no columns, or code 0."""

    value: Array
    """(n_responses,) mean of the groups' values, weighted by their share of the raters; length not included."""
    value_by_group: Array
    """(n_responses, n_groups)."""
    length: Array
    """(n_responses,) standardised log length; 0 where there is no text."""
    length_effect: float
    """Logits per standard deviation of log length."""
    position: float
    """Logits added to the response shown first."""
    log_tie: float | None
    """Log tie propensity; None where ties are not possible."""
    lapse: float
    slope: Array
    """(n_raters,) about 1 for careful raters, 0 for careless ones, about -1 for opposed ones."""
    leniency: Array
    """(n_raters,) added to the utility in ratings and thumbs."""
    rater_kind: NDArray[np.str_]
    """(n_raters,) careful, careless or opposed."""
    group: NDArray[np.int64]
    """(n_raters,) group of each rater."""
    group_names: tuple[str, ...]
    group_shares: Array
    """(n_groups,) share of the raters."""
    probabilities: Array
    """(n_judgments, n_options) of the answers, given that there is one, lapse included and before randomisation and reversal; rows
    sum to 1 and are padded with 0. Columns as in `seamark.simulation.answers`: pair: left, right, tie, both bad; choice and ranking:
    each slot being first; rating: grades 1 to 5; thumbs: up, down; label: the classes."""
    reversed: NDArray[np.bool_]
    """(n_judgments,) whether the answer was recorded the wrong way round afterwards (a planted defect)."""
    slots: Array
    """(n_judgments, 4) s of each slot, as the rater sees it; NaN where nothing is shown."""
    scale: Array
    """(n_judgments,) exp of fatigue, guideline, team and version: the slope counts this many times as much."""
    shift: Array
    """(n_judgments,) logits added to the response shown first."""
    lapse_by_judgment: Array
    """(n_judgments,)"""
    hurry: Array
    """(n_judgments,) how fast for this rater: minus the log seconds less the rater's median, standardised."""
    position_by_rater: Array
    """(n_raters,) logits, that of the population included, that of versions not."""
    length_taste: Array
    """(n_raters,) what each rater adds to the effect of length."""
    guideline: NDArray[np.int64]
    """(n_judgments,) version of the guideline."""
    team: NDArray[np.int64]
    """(n_raters,)"""
    ui: NDArray[np.int64]
    """(n_judgments,) version of the interface."""
    source: NDArray[np.int64]
    """(n_responses,) source model."""
    source_bias: Array
    """(n_sources,) logits."""
    axis: NDArray[np.int64]
    """(n_judgments,)"""
    axis_values: Array
    """(n_responses, n_axes) deviations from the value."""
    context: NDArray[np.int64]
    """(n_judgments,)"""
    context_values: Array
    """(n_responses, n_contexts) deviations from the value."""
    persona: NDArray[np.int64]
    """(n_raters,)"""
    persona_values: Array
    """(n_responses, n_personas) deviations from the value."""
    taste: Array
    """(n_raters, k) z."""
    taste_values: Array
    """(n_responses, k) T."""
    month: NDArray[np.int64]
    """(n_judgments,)"""
    drift: Array
    """(n_responses, n_months) how far the value has moved from `value`, 0 in the first month."""
    propensity: Array
    """(n_raters,) to leave a judgment open, logits."""
    missing: Array
    """(n_judgments, 2) probability of "cannot tell" and of "skipped"."""
    gap: Array
    """(n_judgments,) how clear the question is to the rater, in logits: see `Missing`."""
    overconfident: NDArray[np.bool_]
    """(n_raters,)"""
    label_class: NDArray[np.int64]
    """(n_responses,) true class."""
    confusion: Array
    """(n_raters, C, C) P(label | class); no classes where there are no labels."""
    randomised: NDArray[np.bool_]
    """(n_judgments,) whether the answer was replaced by a random one for privacy."""
    style_numbers: Array
    """(n_judgments, 4, numbers) of each slot, in standard deviations; 0 where nothing is shown."""
    style_by_rater: Array
    """(n_raters, numbers) what each rater adds to the effect of each number."""

    @property
    def utility_by_group(self) -> Array:
        """(n_responses, n_groups) value with the effect of length, which is what careful raters answer to."""
        return self.value_by_group + self.length_effect * self.length[:, None]


@dataclass(frozen=True, eq=False)
class Society:
    """Judgments and what they were made from."""

    feedback: Feedback
    truth: Truth
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `simulate`, the seed among them."""

    def __repr__(self) -> str:
        kinds, counts = np.unique(self.truth.rater_kind, return_counts=True)
        raters = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts, strict=True))
        return f"Society({self.feedback!r}, raters {raters}, {len(self.truth.group_names)} groups, seed {self.settings.get('seed')})"


def demo_society(seed: int = 0) -> Society:
    """The built-in study: 8,000 judgments by 80 raters in two groups of 65% and 35% on 300 prompts with 4 responses each."""
    return simulate(n_prompts=300, n_responses=4, n_raters=80, n_judgments=8000, group_shares=(0.65, 0.35), disagreement=0.7, seed=seed)


def simulate(
    *,
    n_prompts: int = 200,
    n_responses: int = 4,
    n_raters: int = 60,
    n_judgments: int = 6000,
    kinds: Sequence[str] = ("pair",),
    spread: float = 1.2,
    unexplained: float = 0.1,
    groups: int = 2,
    disagreement: float = 0.5,
    group_shares: Sequence[float] | None = None,
    careless: float = 0.1,
    opposed: float = 0.05,
    position: float = 0.3,
    length: float = 0.4,
    length_value_correlation: float = 0.0,
    tie: float | None = -1.0,
    lapse: float = 0.02,
    leniency: float = 0.5,
    text: bool = True,
    n_components: int = 1,
    reversed_labels: float = 0.0,
    leak: float = 0.0,
    position_sd: float = 0.0,
    length_sd: float = 0.0,
    fatigue: float = 0.0,
    haste: float = 0.0,
    guidelines: Sequence[float] = (),
    teams: Sequence[float] = (),
    uis: Sequence[tuple[float, float]] = (),
    sources: Sequence[float] = (),
    bad: float | None = None,
    strength: Sequence[float] = (),
    rank_ties: Sequence[float] = (),
    worst: bool = False,
    labels: Labels | None = None,
    missing: Missing | None = None,
    confidence: Confidence | None = None,
    axes: Axes | None = None,
    contexts: Contexts | None = None,
    personas: Personas | None = None,
    tastes: Tastes | None = None,
    drift: Drift | None = None,
    privacy: float | None = None,
    style: Style | None = None,
    seed: int = 0,
) -> Society:
    """A society with known truth, and the judgments it gives.

    Parameters
    ----------
    n_prompts : distinct prompts.
    n_responses : per prompt; without text, entries of the leaderboard in all, each shown under every prompt.
    n_raters, n_judgments : each rater and each prompt gets an equal number of judgments, up to rounding.
    kinds : of judgments, in equal shares: pair, choice, ranking, rating, thumbs, label. A choice or ranking shows up to 4 responses.
    spread : standard deviation over responses of the value all groups share, logits.
    unexplained : share of that variance that the text does not show (0 to 1).
    groups : number of groups, told apart by what tone they like (warm or brisk; beyond two groups also technical or homely).
    disagreement : root mean square over responses and groups of (a group's value - the mean of the groups), logits.
    group_shares : share of the raters in each group; equal when None.
    careless : share of raters whose slope is 0: they answer by position, tie propensity and leniency alone.
    opposed : share of raters with slope minus a log-normal around 1.
    position : logits in favour of the response shown first.
    length : logits per standard deviation of log length, a nuisance beside the value.
    length_value_correlation : correlation between the wish for a long text and its value, -1 to 1.
    tie : log tie propensity of pairs; None for no ties.
    lapse : probability of a uniformly random answer.
    leniency : standard deviation over raters of the shift in ratings and thumbs, logits.
    text : False makes a leaderboard: entries with an id and no text, compared across prompts; there is no length then.
    n_components : with text=False, parts of the leaderboard that are never compared with each other.
    reversed_labels : share of the judgments recorded the wrong way round (defect).
    leak : share of the prompts that come back in other words with the same responses (defect: a split by prompt leaks).
    position_sd : standard deviation over raters of their own favour for the first, logits.
    length_sd : standard deviation over raters of their own taste for length, logits per standard deviation.
    fatigue : by how much the log of the gap falls per standard deviation of the place in a session.
    haste : by how much the log odds of a lapse rise per standard deviation of log speed, for this rater.
    guidelines : log scale of the gap under each version of the guideline; versions follow each other in time.
    teams : log scale of the gap in each team; raters are dealt to teams evenly.
    uis : (log scale of the gap, shift of the position) under each version of the interface, drawn for each session.
    sources : logits in favour of each source model, beside the value; responses are dealt to models at random.
    bad : logits of the outside option "both bad" of a pair, or "none is acceptable" of a choice; None for none.
    strength : thresholds of graded pairs, in logits, from the middle outwards. The first bounds the ties, where there are any.
    rank_ties : log propensity that two (and that three) share a rank.
    worst : whether a choice also names the worst.
    labels : classes and confusion of the labels; the default ones, where labels are among the kinds.
    missing, confidence, axes, contexts, personas, tastes, drift : see there; None for none.
    privacy : epsilon of the randomised response, in nats; None for none.
    style : numbers of what is shown that belong to the judgment, and move it; None for none.
    seed : of everything random.

    Returns
    -------
    Society
        Judgments are in order of time; `order_known` is true, `axis` is null unless there are axes.

    Raises
    ------
    InvalidSetting
        If a share, count or kind cannot be used.

    Examples
    --------
    >>> society = simulate(n_prompts=20, n_raters=10, n_judgments=200)
    >>> society.feedback
    Feedback(200 judgments, 80 responses, 20 prompts, 10 raters)
    >>> tired = simulate(n_prompts=20, n_raters=10, n_judgments=200, fatigue=0.5, missing=Missing(rater_sd=0.5))
    >>> sorted(set(tired.feedback.judgments["outcome"]))
    ['cannot_tell', 'left', 'right', 'tie']
    """
    settings = dict(locals())
    check(settings)
    first, *rest = np.random.SeedSequence(seed).spawn(4 + len(_PARTS))
    writing, recruiting, asking, answering = (np.random.default_rng(s) for s in (first, *rest[:3]))
    streams = {name: np.random.default_rng(s) for name, s in zip(_PARTS, rest[3:], strict=True)}
    shares = np.full(groups, 1 / groups) if group_shares is None else np.asarray(group_shares, dtype=np.float64)
    shares = shares / shares.sum()

    things = write(settings, writing) if text else entries(settings, writing)
    values = _values(settings, things, writing, streams)
    raters = recruit(settings, shares, recruiting, streams)
    shown, kind, rater, prompt = _ask(settings, things, asking)
    uniform, flipped = _chance(kind, shown, answering, reversed_labels)
    read = np.where(shown >= 0, things.characters[np.maximum(shown, 0)], 0.0).sum(1)
    work = schedule(settings, raters, rater, read, answering, streams)

    asked = _circumstances(settings, raters, rater, work, streams)
    forms = Forms.of(settings, len(values.class_names))
    numbers = _style(style, values.by_group @ shares, shown, streams["style"])
    seen = _see(settings, values, raters, kind, rater, shown, asked, work, numbers)
    p = probabilities(seen, forms)
    answers = draw_answers(seen, forms, p, uniform, streams["worst"].random(n_judgments))
    gap = gaps(seen)
    open_p = leave_open(missing, gap, raters.propensity[rater]) if missing else np.zeros((n_judgments, 2))
    state = (streams["missing"].random((n_judgments, 1)) < np.cumsum(open_p[:, ::-1], 1)).sum(1)  # 2: skipped, 1: cannot tell
    replaced = np.zeros(n_judgments, dtype=bool)
    if privacy is not None:
        answers, replaced = randomise(answers, kind, seen.present, forms, privacy, streams["privacy"].random((n_judgments, 2)))
        replaced &= state == ANSWERED
    flipped &= state == ANSWERED
    answers = turn_round(answers, kind, (shown >= 0).sum(1), forms, flipped)
    sure = _confidence(confidence, gap, raters.overconfident[rater], streams["confidence"]) if confidence else None

    columns = _answer_columns(kind, (shown >= 0).sum(1), answers, state, forms, values.class_names)
    columns |= _shown_columns(things, values, kind, shown, prompt, bool(sources)) | _rater_columns(raters, rater)
    columns |= _circumstance_columns(settings, raters, rater, asked, work) | _style_columns(style, numbers, shown)
    if sure is not None:
        said = zip(np.round(sure, 3).tolist(), (state == ANSWERED).tolist(), strict=True)
        columns["confidence"] = [c if answered else None for c, answered in said]
    order = np.argsort(work.time, kind="stable")
    columns = {name: [entry[j] for j in order] for name, entry in columns.items()}
    feedback = Feedback.from_columns(
        columns, source=f"simulation, seed {seed}", report=LoadReport(f"simulation, seed {seed}", "simulation")
    )

    # the rows of the feedback are in order of first appearance, and hold only what was judged
    response_row = {name: row for row, name in enumerate(things.ids)}
    rows = np.array([response_row[name] for name in feedback.responses["name"].to_list()])
    rater_row = {name: row for row, name in enumerate(raters.ids)}
    people = np.array([rater_row[name] for name in feedback.raters["id"].to_list()])
    truth = Truth(
        value=values.by_group[rows] @ shares,
        value_by_group=values.by_group[rows],
        length=values.length[rows],
        length_effect=length if text else 0.0,
        position=position,
        log_tie=tie,
        lapse=lapse,
        slope=raters.slope[people],
        leniency=raters.leniency[people],
        rater_kind=raters.kind[people],
        group=raters.group[people],
        group_names=raters.group_names,
        group_shares=np.bincount(raters.group, minlength=groups) / n_raters,
        probabilities=p[order],
        reversed=flipped[order],
        slots=np.where(seen.present, seen.slots, np.nan)[order],
        scale=asked.scale[order],
        shift=asked.shift[order],
        lapse_by_judgment=seen.lapse[order],
        hurry=work.hurry[order],
        position_by_rater=raters.position[people],
        length_taste=raters.length_taste[people],
        guideline=asked.guideline[order],
        team=raters.team[people],
        ui=asked.ui[order],
        source=values.source[rows],
        source_bias=np.array(sources, dtype=np.float64),
        axis=asked.axis[order],
        axis_values=values.axes[rows],
        context=asked.context[order],
        context_values=values.contexts[rows],
        persona=raters.persona[people],
        persona_values=values.personas[rows],
        taste=raters.taste[people],
        taste_values=values.tastes[rows],
        month=work.month[order],
        drift=values.drift[rows],
        propensity=raters.propensity[people],
        missing=open_p[order],
        gap=gap[order],
        overconfident=raters.overconfident[people],
        label_class=values.label_class[rows],
        confusion=raters.confusion[people] if values.class_names else np.zeros((len(people), 0, 0)),
        randomised=replaced[order],
        style_numbers=numbers[order],
        style_by_rater=raters.style[people],
    )
    return Society(feedback, truth, settings)


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments of `simulate` written as NAME=VALUE: fatigue=0.4, sources=0,0.5, drift.months=6, personas=yes.

    A value is as in TOML; a list may leave out its brackets and quotes; none is None.

    Raises
    ------
    InvalidSetting
        If a name is not known (the nearest known one is named), or a value cannot be read.

    Examples
    --------
    >>> read_settings(["fatigue=0.4", "sources=0,0.5"])
    {'fatigue': 0.4, 'sources': (0, 0.5)}
    """
    return read_written(texts, _defaults())


def table_of_settings() -> list[tuple[str, str]]:
    """Every name that `read_settings` knows, with its default."""
    return table_of(_defaults())


def _defaults() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(simulate).parameters.items()}


# ------------------------------------------------------------------------------------ values


@dataclass(frozen=True, eq=False)
class _Values:
    """What the responses are worth, to whom, and what else they bring with them."""

    by_group: Array
    length: Array
    source: Codes
    axes: Array
    contexts: Array
    personas: Array
    tastes: Array
    drift: Array
    label_class: Codes
    class_names: tuple[str, ...]


def _values(settings: Mapping[str, Any], things: Things, rng: np.random.Generator, streams: Mapping[str, np.random.Generator]) -> _Values:
    groups, unexplained = settings["groups"], settings["unexplained"]
    tones = standardise(things.tone)
    angle = 2 * np.pi * np.arange(groups) / groups  # tastes spread over a circle: the groups' mean is the shared value
    taste = np.stack([np.cos(angle), np.sin(angle)]) * (settings["disagreement"] if groups > 1 else 0.0)
    hidden = standardise(rng.normal(size=(len(things.quality), 1)))[things.origin, 0]
    quality = standardise(things.quality[:, None])[:, 0]
    shared = settings["spread"] * (np.sqrt(1 - unexplained) * quality + np.sqrt(unexplained) * hidden)
    by_group = shared[:, None] + tones @ taste
    n = len(shared)

    def deviations(name: str, shares: Array, size: float) -> Array:
        """(n, levels) around their weighted mean, of this root mean square."""
        if not len(shares):
            return np.zeros((n, 0))
        apart = properties(things, len(shares), unexplained, streams[name])
        apart -= apart @ shares[:, None]
        rms = np.sqrt((apart**2 @ shares).mean())
        return apart * (size / rms if rms > 0 else 0.0)

    axes: Axes | None = settings["axes"]
    contexts: Contexts | None = settings["contexts"]
    personas: Personas | None = settings["personas"]
    tastes: Tastes | None = settings["tastes"]
    drift: Drift | None = settings["drift"]
    n_axes, n_contexts = len(axes.names) if axes else 0, len(contexts.names) if contexts else 0
    walk = np.zeros((n, 0))
    if drift is not None:
        steps = drift.value_sd * properties(things, drift.months - 1, unexplained, streams["drift"])
        walk = np.cumsum(np.hstack([np.zeros((n, 1)), steps]), axis=1)
    class_names: tuple[str, ...] = (settings["labels"] or Labels()).names if "label" in settings["kinds"] else ()
    source = streams["sources"].integers(max(len(settings["sources"]), 1), size=n)[things.origin]
    return _Values(
        by_group=by_group,
        length=standardise(np.log1p(things.characters)[:, None])[:, 0] if settings["text"] else np.zeros(n),
        source=source,
        axes=deviations("axes", np.full(n_axes, 1 / max(n_axes, 1)), axes.deviation if axes else 0.0),
        contexts=deviations("contexts", np.full(n_contexts, 1 / max(n_contexts, 1)), contexts.deviation if contexts else 0.0),
        personas=deviations("personas", np.array(personas.shares if personas else ()), personas.deviation if personas else 0.0),
        tastes=tastes.sd / np.sqrt(tastes.k) * properties(things, tastes.k, unexplained, streams["tastes"]) if tastes else np.zeros((n, 0)),
        drift=walk,
        label_class=(np.argsort(np.argsort(shared, kind="stable")) * max(len(class_names), 1)) // n,
        class_names=class_names,
    )


# ------------------------------------------------------------------------------------ judgments


def _ask(settings: Mapping[str, Any], things: Things, rng: np.random.Generator) -> tuple[Codes, NDArray[np.str_], Codes, Codes]:
    """Who is asked what: (n, 4) responses shown in order (-1: fewer were shown), and kind, rater and prompt (n,)."""
    n, parts = settings["n_judgments"], settings["n_components"]
    prompt = np.resize(np.arange(len(things.pool)), n)[rng.permutation(n)]
    rater = np.resize(np.arange(settings["n_raters"]), n)[rng.permutation(n)]
    kind = np.resize(np.array(settings["kinds"]), n)[rng.permutation(n)]
    # a random order of the pool, those of other parts of a cut leaderboard last
    key = rng.random((n, things.pool.shape[1]))
    part = np.arange(things.pool.shape[1]) % parts
    key[part != part[rng.integers(len(part), size=n)][:, None]] += 1
    order = np.argsort(key, axis=1)[:, :MAX_SHOWN]
    shown = np.full((n, MAX_SHOWN), -1, dtype=np.int64)
    shown[:, : order.shape[1]] = things.pool[prompt[:, None], order]
    if parts > 1:
        shown[:, : order.shape[1]][np.take_along_axis(key, order, 1) >= 1] = -1
    alone = (kind == "rating") | (kind == "thumbs") | (kind == "label")
    n_shown = np.select([kind == "pair", alone], [2, 1], MAX_SHOWN)
    shown[np.arange(MAX_SHOWN) >= n_shown[:, None]] = -1
    return shown, kind, rater, prompt


def _chance(kind: NDArray[np.str_], shown: Codes, rng: np.random.Generator, flipped: float) -> tuple[Array, NDArray[np.bool_]]:
    """(n, 4) uniform numbers for the answer, a ranking's later stages in the later columns, and (n,) which are to be reversed."""
    uniform = np.zeros((len(kind), MAX_SHOWN))
    uniform[:, 0] = rng.random(len(kind))
    for stage in range(1, MAX_SHOWN):
        rows = np.flatnonzero((kind == "ranking") & (shown[:, stage] >= 0))
        uniform[rows, stage] = rng.random(len(rows))
    return uniform, rng.random(len(kind)) < flipped


@dataclass(frozen=True, eq=False)
class _Circumstances:
    """Under what each judgment was made. All (n,)."""

    guideline: Codes
    ui: Codes
    axis: Codes
    context: Codes
    scale: Array
    shift: Array


def _circumstances(
    settings: Mapping[str, Any], raters: Raters, rater: Codes, work: Work, streams: Mapping[str, np.random.Generator]
) -> _Circumstances:
    n = len(rater)
    guidelines, teams = np.array(settings["guidelines"], dtype=np.float64), np.array(settings["teams"], dtype=np.float64)
    uis = np.array(settings["uis"], dtype=np.float64).reshape(-1, 2)
    log_scale = -settings["fatigue"] * standardise(work.place.astype(np.float64)[:, None])[:, 0]
    shift = raters.position[rater]
    guideline = np.zeros(n, dtype=np.int64)
    if len(guidelines):
        guideline[np.argsort(work.time, kind="stable")] = np.arange(n) * len(guidelines) // n
        log_scale = log_scale + guidelines[guideline]
    if len(teams):
        log_scale = log_scale + teams[raters.team[rater]]
    ui = streams["uis"].integers(max(len(uis), 1), size=int(work.session_code.max()) + 1)[work.session_code]
    if len(uis):
        log_scale, shift = log_scale + uis[ui, 0], shift + uis[ui, 1]
    axes: Axes | None = settings["axes"]
    contexts: Contexts | None = settings["contexts"]
    return _Circumstances(
        guideline=guideline,
        ui=ui,
        axis=streams["axes"].integers(len(axes.names) if axes else 1, size=n),
        context=streams["contexts"].integers(len(contexts.names) if contexts else 1, size=n),
        scale=np.exp(log_scale),
        shift=shift,
    )


def _see(
    settings: Mapping[str, Any],
    values: _Values,
    raters: Raters,
    kind: NDArray[np.str_],
    rater: Codes,
    shown: Codes,
    asked: _Circumstances,
    work: Work,
    numbers: Array,
) -> Seen:
    """The slots as the rater sees them: the equations of u, a and s above."""
    rows = np.maximum(shown, 0)
    common = settings["length"] if settings["text"] else 0.0
    u = (values.by_group + common * values.length[:, None])[rows, raters.group[rater][:, None]]
    if settings["length_sd"]:
        u += raters.length_taste[rater][:, None] * values.length[rows]
    if len(settings["sources"]):
        u += np.array(settings["sources"], dtype=np.float64)[values.source[rows]]
    for table, level in (
        (values.axes, asked.axis),
        (values.contexts, asked.context),
        (values.personas, raters.persona[rater]),
        (values.drift, work.month),
    ):
        if table.shape[1]:
            u += table[rows, level[:, None]]
    for k in range(values.tastes.shape[1]):
        u += values.tastes[rows, k] * raters.taste[rater, k][:, None]
    slope = raters.slope[rater] * asked.scale
    slots = slope[:, None] * u
    style: Style | None = settings["style"]
    if style is not None:
        slots += np.einsum("jic,jc->ji", numbers, np.array(style.effect) + raters.style[rater])
    single = slots[:, 0] + raters.leniency[rater]
    slots[:, 0] += asked.shift
    lapse = np.full(len(rater), float(settings["lapse"]))
    if settings["haste"]:
        odds = settings["lapse"] / (1 - settings["lapse"]) * np.exp(settings["haste"] * work.hurry)
        lapse = odds / (1 + odds)
    present = shown >= 0
    confusion = raters.confusion[rater, values.label_class[rows[:, 0]]] if values.class_names else np.zeros((0, 0))
    return Seen(kind, present, np.where(present, slots, 0.0), single, confusion, lapse)


def _style(style: Style | None, value: Array, shown: Codes, rng: np.random.Generator) -> Array:
    """(n, 4, numbers) numbers of each slot: see `Style`."""
    if style is None:
        return np.zeros((*shown.shape, 0))
    noise = rng.normal(size=(*shown.shape, len(style.names)))
    c = style.correlation
    x = c * standardise(value[:, None])[np.maximum(shown, 0)] + np.sqrt(1 - c * c) * noise
    return np.where((shown >= 0)[..., None], x, 0.0)


def _confidence(confidence: Confidence, gap: Array, over: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """(n,) stated confidence: see `Confidence`."""
    log_odds = confidence.weight * (np.abs(gap) - 1) + confidence.noise * rng.normal(size=len(gap)) + confidence.excess * over
    return 1 / (1 + np.exp(-log_odds))


# ------------------------------------------------------------------------------------ fields of the records


def _answer_columns(
    kind: NDArray[np.str_], n_shown: Codes, answers: Answers, state: Codes, forms: Forms, class_names: tuple[str, ...]
) -> dict[str, list[Any]]:
    """Fields that say what was answered, one entry per judgment."""
    n, levels = len(kind), forms.levels
    names = ("best", "worst", "ranks", "rating", "scale_low", "scale_high", "thumb", "label", "strength", "strength_levels")
    columns: dict[str, list[Any]] = {name: [None] * n for name in names}
    outcome: list[str] = []
    sides = ["left"] * levels + ["tie"] + ["right"] * levels if levels else ["left", "right", "tie"]
    sides.append("both_bad")
    plain = zip(kind.tolist(), answers.code.tolist(), answers.worst.tolist(), state.tolist(), n_shown.tolist(), strict=True)
    for j, (what, answer, worst, missing, m) in enumerate(plain):
        one = answer[0]
        if what == "rating":
            columns["scale_low"][j], columns["scale_high"][j] = 1.0, 5.0
        if missing != ANSWERED:
            outcome.append({CANNOT_TELL: "cannot_tell", SKIPPED: "skipped"}[missing])
        elif what == "pair":
            outcome.append(sides[one])
            if levels and sides[one] in ("left", "right"):
                columns["strength"][j], columns["strength_levels"][j] = abs(one - levels), levels
        elif what == "choice" and one == NONE:
            outcome.append("both_bad")
        else:
            outcome.append("answered")
            if what == "choice":
                columns["best"][j] = one
                columns["worst"][j] = worst if worst >= 0 else None
            elif what == "ranking":
                columns["ranks"][j] = answer[:m]
            elif what == "rating":
                columns["rating"][j] = float(one + 1)
            elif what == "thumbs":
                columns["thumb"][j] = one == 0
            else:
                columns["label"][j] = class_names[one]
    return columns | {"outcome": outcome}


def _shown_columns(
    things: Things, values: _Values, kind: NDArray[np.str_], shown: Codes, prompt: Codes, named: bool
) -> dict[str, list[Any]]:
    """Fields that say what was shown; the source models only where they are `named`."""
    n = len(kind)
    slots = [[r for r in row if r >= 0] for row in shown.tolist()]
    has_text = things.texts[0] is not None
    return {
        "kind": kind.tolist(),
        "prompt": [things.prompts[p] for p in prompt.tolist()],
        "prompt_is_messages": [False if has_text else None] * n,
        "prompt_id": [things.prompt_ids[p] for p in prompt.tolist()],
        "texts": [[things.texts[r] for r in row] if has_text else None for row in slots],
        "ids": [[things.ids[r] for r in row] for row in slots],
        "order_known": [True] * n,
        "models": [[f"model {chr(ord('A') + values.source[r])}" for r in row] for row in slots] if named else [None] * n,
    }


def _style_columns(style: Style | None, numbers: Array, shown: Codes) -> dict[str, list[Any]]:
    """Covariates of what is shown."""
    n_shown = (shown >= 0).sum(1).tolist()
    return {
        COVARIATE + name: [row[:m] for row, m in zip(numbers[..., c].tolist(), n_shown, strict=True)]
        for c, name in enumerate(style.names if style else ())
    }


def _rater_columns(raters: Raters, rater: Codes) -> dict[str, list[Any]]:
    return {
        "rater": [raters.ids[r] for r in rater.tolist()],
        "rater_kind": ["person"] * len(rater),
        "group": [raters.group_names[raters.group[r]] for r in rater.tolist()],
    }


def _circumstance_columns(
    settings: Mapping[str, Any], raters: Raters, rater: Codes, asked: _Circumstances, work: Work
) -> dict[str, list[Any]]:
    """Fields that say how; those of what was not planted are left out."""
    columns: dict[str, list[Any]] = {
        "seconds": np.round(work.seconds, 1).tolist(),
        "time": [START + timedelta(seconds=float(t)) for t in np.round(work.time, 3)],
        "session": work.session,
        "position": work.place.tolist(),
    }
    if settings["guidelines"]:
        columns["guideline_version"] = [f"guideline {v + 1}" for v in asked.guideline.tolist()]
    if settings["teams"]:
        columns["team"] = [f"team {v + 1}" for v in raters.team[rater].tolist()]
    if settings["uis"]:
        columns["ui_version"] = [f"ui {v + 1}" for v in asked.ui.tolist()]
    for name, group, code in (("axis", settings["axes"], asked.axis), ("pair_type", settings["contexts"], asked.context)):
        if group is not None:
            columns[name] = [group.names[v] for v in code.tolist()]
    if settings["privacy"] is not None:
        columns["privacy"] = [f"randomised_response(epsilon={float(settings['privacy'])!r})"] * len(rater)
    return columns
