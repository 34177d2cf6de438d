"""Societies with known truth: responses whose text carries their value, raters of known kind, judgments from a known law.

Conventions
-----------
Arrays of `Truth` are aligned with the rows of the society's `feedback`: responses, raters and judgments in its order.
Values, effects and gaps are in logits of the median careful rater. For judgment j by rater r of group g, with m slots shown:

    u_i  = value_by_group[i, g] + length_effect * length[i]
    s_i  = slope_r * u_i + position * (i is shown first)

    pair      P(left), P(right), P(tie) proportional to exp(gap/2), exp(-gap/2), exp(log_tie),   gap = s_left - s_right
    choice    P(i) = exp(s_i) / sum_j exp(s_j); a ranking is a sequence of choices among those left
    rating    P(grade <= c) = sigmoid(cut_c - slope_r * u - leniency_r)
    thumbs    P(up) = sigmoid(slope_r * u + leniency_r)

and with probability `lapse` the answer is uniform over the outcomes instead (in a ranking: at each stage). These are the
formulas of `seamark.models.observation`, written apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.records import Feedback, LoadReport

Array = NDArray[np.float64]

CAREFUL, CARELESS, OPPOSED = "careful", "careless", "opposed"
RATING_CUTS = (-2.0, -0.7, 0.7, 2.0)
"""Cut points between the grades 1 to 5, in logits; symmetric, so that the middle grade is the most common."""
_KINDS = ("pair", "choice", "ranking", "rating", "thumbs")
_MAX_SHOWN = 4
_SESSION = 25


@dataclass(frozen=True, eq=False)
class Truth:
    """What the judgments were made from."""

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
    """(n_judgments, n_options) of the answers, lapse included, rows summing to 1 and padded with 0. Pair: left, right, tie;
    choice and ranking: each slot being first; rating: grades 1 to 5; thumbs: up, down."""
    reversed: NDArray[np.bool_]
    """(n_judgments,) whether the answer was recorded the wrong way round afterwards (a planted defect)."""

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
    seed: int = 0,
) -> Society:
    """A society with known truth, and the judgments it gives.

    Parameters
    ----------
    n_prompts : distinct prompts.
    n_responses : per prompt; without text, entries of the leaderboard in all, each shown under every prompt.
    n_raters, n_judgments : each rater and each prompt gets an equal number of judgments, up to rounding.
    kinds : of judgments, in equal shares: pair, choice, ranking, rating, thumbs. A choice or ranking shows up to 4 responses.
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
    seed : of everything random.

    Returns
    -------
    Society
        Judgments are in order of time; `order_known` is true, `axis` is null.

    Raises
    ------
    InvalidSetting
        If a share, count or kind cannot be used.

    Examples
    --------
    >>> society = simulate(n_prompts=20, n_raters=10, n_judgments=200)
    >>> society.feedback
    Feedback(200 judgments, 80 responses, 20 prompts, 10 raters)
    """
    settings = dict(locals())
    _check(settings)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
    shares = np.full(groups, 1 / groups) if group_shares is None else np.asarray(group_shares, dtype=np.float64)
    shares = shares / shares.sum()

    things = _write(settings, streams[0]) if text else _entries(settings, streams[0])
    tones = _standardise(things.tone)
    angle = 2 * np.pi * np.arange(groups) / groups  # tastes spread over a circle: the groups' mean is the shared value
    taste = np.stack([np.cos(angle), np.sin(angle)]) * (disagreement if groups > 1 else 0.0)
    hidden = _standardise(streams[0].normal(size=(len(things.quality), 1)))[things.origin, 0]
    quality = _standardise(things.quality[:, None])[:, 0]
    shared = spread * (np.sqrt(1 - unexplained) * quality + np.sqrt(unexplained) * hidden)
    value_by_group = shared[:, None] + tones @ taste
    size = _standardise(np.log1p(things.characters)[:, None])[:, 0] if text else np.zeros(len(shared))

    raters = _raters(settings, shares, streams[1])
    shown, kind, rater, prompt = _ask(settings, things, streams[2])
    u = (value_by_group + length * size[:, None])[np.maximum(shown, 0), raters.group[rater][:, None]]
    probabilities, answers = _answer(settings, raters, kind, rater, shown, u, streams[3])
    flipped = streams[3].random(n_judgments) < reversed_labels
    seconds, time, session, place = _when(raters, rater, shown, things.characters, streams[3])
    order = np.argsort(time, kind="stable")
    columns = _columns(things, raters, kind, shown, prompt, rater, answers, flipped)
    columns |= {
        "seconds": np.round(seconds, 1).tolist(),
        "time": [_START + timedelta(seconds=float(t)) for t in np.round(time, 3)],
        "session": session,
        "position": place.tolist(),
    }
    columns = {name: [values[j] for j in order] for name, values in columns.items()}
    feedback = Feedback.from_columns(
        columns, source=f"simulation, seed {seed}", report=LoadReport(f"simulation, seed {seed}", "simulation")
    )

    # the rows of the feedback are in order of first appearance, and hold only what was judged
    response_row = {name: row for row, name in enumerate(things.ids)}
    rows = np.array([response_row[name] for name in feedback.responses["name"].to_list()])
    rater_row = {name: row for row, name in enumerate(raters.ids)}
    people = np.array([rater_row[name] for name in feedback.raters["id"].to_list()])
    truth = Truth(
        value=value_by_group[rows] @ shares,
        value_by_group=value_by_group[rows],
        length=size[rows],
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
        probabilities=probabilities[order],
        reversed=flipped[order],
    )
    return Society(feedback, truth, settings)


def _check(settings: Mapping[str, Any]) -> None:
    for name in ("n_prompts", "n_raters", "n_judgments", "groups", "n_components"):
        if settings[name] < 1:
            raise InvalidSetting(name, settings[name], "Use a whole number of 1 or more.")
    for name in ("careless", "opposed", "lapse", "unexplained", "reversed_labels", "leak"):
        if not 0 <= settings[name] <= 1:
            raise InvalidSetting(name, settings[name], "Use a share between 0 and 1.")
    for name in ("spread", "disagreement", "leniency"):
        if settings[name] < 0:
            raise InvalidSetting(name, settings[name], "A standard deviation is 0 or more.")
    kinds = settings["kinds"]
    if not kinds or not set(kinds) <= set(_KINDS) or isinstance(kinds, str):
        raise InvalidSetting("kinds", kinds, f"Give one or more of {', '.join(_KINDS)}.")
    if settings["n_responses"] < 1 + bool(set(kinds) & {"pair", "choice", "ranking"}):
        raise InvalidSetting("n_responses", settings["n_responses"], "Comparing takes two responses or more.")
    if settings["careless"] + settings["opposed"] > 1:
        raise InvalidSetting(
            "careless", settings["careless"], "careless and opposed are shares of the same raters; keep their sum below 1."
        )
    if not -1 <= settings["length_value_correlation"] <= 1:
        raise InvalidSetting("length_value_correlation", settings["length_value_correlation"], "Use a number between -1 and 1.")
    shares = settings["group_shares"]
    if shares is not None and (len(shares) != settings["groups"] or min(shares) <= 0):
        raise InvalidSetting("group_shares", shares, "Give one positive share per group.")
    if settings["n_components"] > 1 and (settings["text"] or settings["n_responses"] < 2 * settings["n_components"]):
        raise InvalidSetting(
            "n_components", settings["n_components"], "A cut leaderboard needs text=False and two entries or more in each part."
        )
    if settings["leak"] and not settings["text"]:
        raise InvalidSetting("leak", settings["leak"], "Only prompts with text can come back in other words; use text=True.")


def _standardise(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1; a constant column becomes 0."""
    sd = x.std(0)
    return (x - x.mean(0)) / np.where(sd > 0, sd, 1)


# ------------------------------------------------------------------------------------ responses


@dataclass(frozen=True, eq=False)
class _Things:
    """All that can be shown, by prompt."""

    prompts: list[str | None]
    prompt_ids: list[str]
    pool: NDArray[np.int64]  # (n_prompts, n_per_prompt) response rows
    ids: list[str]
    texts: list[str | None]
    origin: NDArray[np.int64]  # row of the response that this one copies, its own where it copies none
    quality: Array
    tone: Array  # (n, 2)
    characters: Array


def _entries(settings: Mapping[str, Any], rng: np.random.Generator) -> _Things:
    """Leaderboard entries without text."""
    n, n_prompts = settings["n_responses"], settings["n_prompts"]
    return _Things(
        prompts=[None] * n_prompts,
        prompt_ids=[f"prompt-{i:04d}" for i in range(n_prompts)],
        pool=np.tile(np.arange(n), (n_prompts, 1)),
        ids=[f"entry-{i:03d}" for i in range(n)],
        texts=[None] * n,
        origin=np.arange(n),
        quality=rng.normal(size=n),
        tone=rng.normal(size=(n, 2)),
        characters=np.full(n, 500.0),
    )


def _write(settings: Mapping[str, Any], rng: np.random.Generator) -> _Things:
    """Prompts, and responses whose sentences show their quality and tone, in as many sentences as chance says."""
    n_prompts, per_prompt = settings["n_prompts"], settings["n_responses"]
    n_copies = min(round(settings["leak"] * n_prompts), n_prompts // 2)
    n_written = n_prompts - n_copies
    combinations = len(_TOPICS) * len(_SITUATIONS) * len(_QUESTIONS)
    if n_written > combinations:
        raise InvalidSetting("n_prompts", n_prompts, f"There are {combinations:,} prompts to choose from.")
    prompts: list[str | None] = []
    nouns: list[tuple[str, ...]] = []
    for pick in rng.choice(combinations, n_written, replace=False).tolist():
        pick, question = divmod(pick, len(_QUESTIONS))
        topic, situation = divmod(pick, len(_SITUATIONS))
        task, *things = _TOPICS[topic].split("|")
        prompts.append(_QUESTIONS[question].format(task=task, situation=_SITUATIONS[situation]))
        nouns.append(tuple(things))
    n = n_written * per_prompt
    wish = rng.normal(size=n)
    rho = settings["length_value_correlation"]
    long = rho * wish + np.sqrt(1 - rho**2) * rng.normal(size=n)
    # 4 to 12 sentences by the rank of `long`, so that the lengths are evenly spread
    n_sentences = 4 + (np.argsort(np.argsort(long)) * 9) // n
    lean = rng.normal(size=(n, 2))
    texts: list[str | None] = []
    quality, tone = np.zeros(n), np.zeros((n, 2))
    seen: set[str] = set()
    for i in range(n):
        while True:
            text, quality[i], tone[i] = _response(nouns[i // per_prompt], int(n_sentences[i]), wish[i], lean[i], settings["groups"], rng)
            if text not in seen:
                break
        seen.add(text)
        texts.append(text)
    pool = np.arange(n).reshape(n_written, per_prompt)
    copied = rng.choice(n_written, n_copies, replace=False)
    prompts += [f"{rng.choice(_OPENERS)} {prompts[p]}" for p in copied]
    origin = np.concatenate([np.arange(n), pool[copied].ravel()]).astype(np.int64)
    pool = np.vstack([pool, n + np.arange(n_copies * per_prompt).reshape(n_copies, per_prompt)])
    texts = [texts[i] for i in origin]
    return _Things(
        prompts=prompts,
        prompt_ids=[f"prompt-{i:04d}" for i in range(n_prompts)],
        pool=pool,
        ids=[f"response-{p:04d}-{k}" for p in range(n_prompts) for k in range(per_prompt)],
        texts=texts,
        origin=origin,
        quality=quality[origin],
        tone=tone[origin],
        characters=np.array([len(t or "") for t in texts], dtype=np.float64),
    )


def _response(
    nouns: tuple[str, ...], n_sentences: int, wish: float, lean: Array, groups: int, rng: np.random.Generator
) -> tuple[str, float, Array]:
    """A text, and the quality and tone that its sentences show: balance of good and evasive, of warm and brisk, ..."""
    axes = 0 if groups == 1 else 1 if groups == 2 else 2
    n_tone = round(n_sentences * (0.25, 0.25, 0.4)[axes])
    n_plain = n_sentences - n_tone
    # a wish of +-2 sd is all good or all evasive
    n_good = rng.binomial(n_plain, np.clip(0.5 + wish / 4, 0.02, 0.98))
    sentences = _some(_GOOD, n_good, rng) + _some(_EVASIVE, n_plain - n_good, rng)
    tone = np.zeros(2)
    for k in range(n_tone):
        axis = k % max(axes, 1)
        high = rng.random() < np.clip(0.5 + lean[axis] / 4, 0.02, 0.98)
        sentences += _some(_TONES[axis][0 if high else 1], 1, rng)
        tone[axis] += (1.0 if high else -1.0) / n_tone
    if axes == 0:  # with one group no one minds the tone; it is still there
        tone[:] = 0
    rng.shuffle(sentences)
    filled = [s.format(a=nouns[rng.integers(len(nouns))], b=_MATERIALS[rng.integers(len(_MATERIALS))]) for s in sentences]
    return " ".join(filled), (2 * n_good - n_plain) / n_sentences, tone


def _some(templates: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """n of the templates, none twice before all have been used."""
    picked: list[str] = []
    while len(picked) < n:
        picked += [templates[int(i)] for i in rng.permutation(len(templates))]
    return picked[:n]


# ------------------------------------------------------------------------------------ raters


@dataclass(frozen=True, eq=False)
class _Raters:
    ids: list[str]
    kind: NDArray[np.str_]
    slope: Array
    leniency: Array
    group: NDArray[np.int64]
    group_names: tuple[str, ...]


def _raters(settings: Mapping[str, Any], shares: Array, rng: np.random.Generator) -> _Raters:
    """Kinds and groups in the exact shares asked for, up to rounding, independent of each other."""
    n = settings["n_raters"]
    n_careless, n_opposed = round(settings["careless"] * n), round(settings["opposed"] * n)
    n_opposed = min(n_opposed, n - n_careless)
    kind = np.array([CARELESS] * n_careless + [OPPOSED] * n_opposed + [CAREFUL] * (n - n_careless - n_opposed))
    kind = kind[rng.permutation(n)]
    size = rng.lognormal(0.0, 0.25, n)
    edges = np.round(np.cumsum(shares) * n)
    group = np.searchsorted(edges, np.arange(n), side="right")[rng.permutation(n)].astype(np.int64)
    return _Raters(
        ids=[f"rater-{i:03d}" for i in range(n)],
        kind=kind,
        slope=np.where(kind == CAREFUL, size, np.where(kind == OPPOSED, -size, 0.0)),
        leniency=rng.normal(0.0, settings["leniency"], n),
        group=group,
        group_names=tuple(f"group {chr(ord('A') + g)}" for g in range(len(shares))),
    )


# ------------------------------------------------------------------------------------ judgments


def _ask(
    settings: Mapping[str, Any], things: _Things, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.int64], NDArray[np.int64]]:
    """Who is asked what: (n, 4) responses shown in order (-1: fewer were shown), and kind, rater and prompt (n,)."""
    n, parts = settings["n_judgments"], settings["n_components"]
    prompt = np.resize(np.arange(len(things.pool)), n)[rng.permutation(n)]
    rater = np.resize(np.arange(settings["n_raters"]), n)[rng.permutation(n)]
    kind = np.resize(np.array(settings["kinds"]), n)[rng.permutation(n)]
    # a random order of the pool, those of other parts of a cut leaderboard last
    key = rng.random((n, things.pool.shape[1]))
    part = np.arange(things.pool.shape[1]) % parts
    key[part != part[rng.integers(len(part), size=n)][:, None]] += 1
    order = np.argsort(key, axis=1)[:, :_MAX_SHOWN]
    shown = np.full((n, _MAX_SHOWN), -1, dtype=np.int64)
    shown[:, : order.shape[1]] = things.pool[prompt[:, None], order]
    if parts > 1:
        shown[:, : order.shape[1]][np.take_along_axis(key, order, 1) >= 1] = -1
    n_shown = np.select([kind == "pair", (kind == "rating") | (kind == "thumbs")], [2, 1], _MAX_SHOWN)
    shown[np.arange(_MAX_SHOWN) >= n_shown[:, None]] = -1
    return shown, kind, rater, prompt


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def _answer(
    settings: Mapping[str, Any],
    raters: _Raters,
    kind: NDArray[np.str_],
    rater: NDArray[np.int64],
    shown: NDArray[np.int64],
    u: Array,
    rng: np.random.Generator,
) -> tuple[Array, NDArray[np.int64]]:
    """Probabilities (n, 5) and answers (n, 4): an outcome in the first column, or each slot's rank for a ranking."""
    n = len(kind)
    slope, leniency = raters.slope[rater], raters.leniency[rater]
    present = shown >= 0
    s = slope[:, None] * u
    s[:, 0] += settings["position"]
    p = np.zeros((n, 5))
    pair, rating, thumbs = kind == "pair", kind == "rating", kind == "thumbs"
    gap = (s[:, 0] - s[:, 1])[pair]
    tie = np.full(len(gap), -np.inf if settings["tie"] is None else settings["tie"])
    weight = np.stack([gap / 2, -gap / 2, tie], 1)
    weight = np.exp(weight - weight.max(1, keepdims=True))
    p[pair, :3] = weight / weight.sum(1, keepdims=True)
    one = slope * u[:, 0] + leniency
    below = _sigmoid(np.array(RATING_CUTS) - one[rating, None])
    p[rating] = np.diff(below, axis=1, prepend=0.0, append=1.0)
    p[thumbs, 0] = _sigmoid(one[thumbs])
    p[thumbs, 1] = _sigmoid(-one[thumbs])
    several = ~(pair | rating | thumbs)
    left = present.copy()
    n_options = np.select([pair, rating, thumbs], [2 + (settings["tie"] is not None), 5, 2], present.sum(1))

    def lapsed(p: Array, allowed: NDArray[np.bool_]) -> Array:
        return (1 - settings["lapse"]) * p + settings["lapse"] * allowed / np.maximum(allowed.sum(1, keepdims=True), 1)

    p[several, :_MAX_SHOWN] = _softmax(s[several], left[several])
    p = lapsed(p, np.arange(5) < n_options[:, None])
    answers = np.zeros((n, _MAX_SHOWN), dtype=np.int64)
    answers[:, 0] = _draw(p, rng)
    ranking = np.flatnonzero(kind == "ranking")
    left = left[ranking]
    first = answers[ranking, 0]
    answers[ranking] = 0
    for stage in range(1, _MAX_SHOWN + 1):
        going = left.any(1)
        rows = np.flatnonzero(going)
        pick = first[rows] if stage == 1 else _draw(lapsed(_softmax(s[ranking][rows], left[rows]), left[rows]), rng)
        answers[ranking[rows], pick] = stage
        left[rows, pick] = False
    return p, answers


def _softmax(s: Array, allowed: NDArray[np.bool_]) -> Array:
    """Over the allowed slots; a row must have one."""
    s = np.where(allowed, s, -np.inf)
    weight = np.exp(s - s.max(1, keepdims=True, initial=-1e300))
    return weight / weight.sum(1, keepdims=True)


def _draw(p: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """An option per row."""
    total = np.cumsum(p, axis=1)
    return (rng.random((len(p), 1)) * total[:, -1:] >= total).sum(1)


_START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def _when(
    raters: _Raters, rater: NDArray[np.int64], shown: NDArray[np.int64], characters: Array, rng: np.random.Generator
) -> tuple[Array, Array, list[str], NDArray[np.int64]]:
    """Seconds each judgment took, when it was made (seconds since the start), its session, and its place in the session.

    Careful and opposed raters read: 6 s and 1 s per 60 characters, median; careless ones take 3 s whatever is shown. A
    session is 25 judgments of one rater, one per day, begun within the same 8 hours. Nobody tires.
    """
    read = np.where(shown >= 0, characters[np.maximum(shown, 0)], 0.0).sum(1)
    hasty = raters.kind[rater] == CARELESS
    seconds = np.where(hasty, 3.0, 6.0 + read / 60) * rng.lognormal(0.0, 0.4, len(rater))
    by_rater = np.argsort(rater, kind="stable")
    first = np.searchsorted(rater[by_rater], np.arange(len(raters.ids)))
    nth = np.zeros(len(rater), dtype=np.int64)
    nth[by_rater] = np.arange(len(rater)) - first[rater[by_rater]]
    day, place = np.divmod(nth, _SESSION)
    begin = rng.uniform(0, 8 * 3600, (len(raters.ids), int(day.max()) + 1))
    # time within the session: all seconds up to and including this judgment's
    run = np.cumsum(seconds[by_rater])
    opens = place[by_rater] == 0
    before = np.maximum.accumulate(np.where(opens, run - seconds[by_rater], 0.0))
    time = np.zeros(len(rater))
    time[by_rater] = run - before
    time += day * 86400.0 + begin[rater, day]
    session = [f"{raters.ids[r]}-{d + 1}" for r, d in zip(rater.tolist(), day.tolist(), strict=True)]
    return seconds, time, session, place


def _columns(
    things: _Things,
    raters: _Raters,
    kind: NDArray[np.str_],
    shown: NDArray[np.int64],
    prompt: NDArray[np.int64],
    rater: NDArray[np.int64],
    answers: NDArray[np.int64],
    flipped: NDArray[np.bool_],
) -> dict[str, list[Any]]:
    """Fields of the records, one entry per judgment."""
    n = len(kind)
    slots = [[r for r in row if r >= 0] for row in shown.tolist()]
    columns: dict[str, list[Any]] = {name: [None] * n for name in ("best", "ranks", "rating", "scale_low", "scale_high", "thumb")}
    outcome: list[str] = []
    for j, (what, answer, flip) in enumerate(zip(kind.tolist(), answers.tolist(), flipped.tolist(), strict=True)):
        one = answer[0]
        if what == "pair":
            outcome.append(("right", "left", "tie")[one] if flip else ("left", "right", "tie")[one])
            continue
        outcome.append("answered")
        m = len(slots[j])
        if what == "choice":
            columns["best"][j] = (one + 1) % m if flip else one
        elif what == "ranking":
            columns["ranks"][j] = [m + 1 - r if flip else r for r in answer[:m]]
        elif what == "rating":
            columns["rating"][j] = float(5 - one if flip else one + 1)
            columns["scale_low"][j], columns["scale_high"][j] = 1.0, 5.0
        else:
            columns["thumb"][j] = (one == 0) != flip
    has_text = things.texts[0] is not None
    return columns | {
        "kind": kind.tolist(),
        "outcome": outcome,
        "prompt": [things.prompts[p] for p in prompt.tolist()],
        "prompt_is_messages": [False if has_text else None] * n,
        "prompt_id": [things.prompt_ids[p] for p in prompt.tolist()],
        "texts": [[things.texts[r] for r in row] if has_text else None for row in slots],
        "ids": [[things.ids[r] for r in row] for row in slots],
        "order_known": [True] * n,
        "rater": [raters.ids[r] for r in rater.tolist()],
        "rater_kind": ["person"] * n,
        "group": [raters.group_names[raters.group[r]] for r in rater.tolist()],
    }


# ------------------------------------------------------------------------------------ words

_QUESTIONS = (
    "How do I {task} {situation}?",
    "What is the best way to {task} {situation}?",
    "I want to {task} {situation}. Where should I begin?",
    "Can you explain how to {task} {situation}?",
    "What should I know before I {task} {situation}?",
    "Please help me to {task} {situation}.",
)
_OPENERS = ("Hello.", "Quick question:", "Hi there,", "One more thing:", "Sorry to ask again.")
_SITUATIONS = (
    "for the first time",
    "with very little time",
    "on a small budget",
    "without special tools",
    "together with two children",
    "in a small flat",
    "before the weekend",
    "after a failed attempt",
    "with a bad back",
    "in cold weather",
    "in a hot climate",
    "for an elderly neighbour",
    "with a group of beginners",
    "when nobody can help",
    "in one afternoon",
    "while travelling",
    "without making a mess",
    "so that it lasts",
    "as a present",
    "on a busy weekday",
)
_TOPICS = (
    "repot a houseplant|the roots|the soil|the pot|the drainage",
    "bake sourdough bread|the starter|the dough|the oven|the crust",
    "fix a flat bicycle tyre|the inner tube|the rim|the valve|the pump",
    "write a cover letter|the opening line|the job advert|the closing line|the tone",
    "train for a long race|the weekly distance|the shoes|the rest days|the pace",
    "paint a wooden fence|the old paint|the brush|the primer|the wood",
    "learn basic Spanish|the verbs|the vocabulary|the pronunciation|the exercises",
    "plan a vegetable garden|the seedlings|the beds|the watering|the compost",
    "repair a leaking tap|the washer|the valve seat|the water supply|the handle",
    "prepare a short speech|the first sentence|the notes|the pauses|the audience",
    "adopt an old dog|the vet|the sleeping place|the food|the walks",
    "sew a simple curtain|the fabric|the hem|the thread|the rail",
    "set up a home network|the router|the password|the cables|the signal",
    "cook a vegetable curry|the spices|the onions|the rice|the sauce",
    "read a balance sheet|the assets|the debts|the footnotes|the totals",
    "build a birdhouse|the boards|the entrance hole|the nails|the roof",
    "organise old photographs|the albums|the scanner|the dates|the boxes",
    "start a monthly budget|the fixed costs|the receipts|the savings|the spreadsheet",
    "clean a cast iron pan|the rust|the oil|the heat|the surface",
    "take photographs at night|the tripod|the exposure|the lens|the focus",
    "insulate an attic|the beams|the gaps|the vapour barrier|the hatch",
    "teach a child to swim|the water|the breathing|the float|the first lesson",
    "brew good coffee|the beans|the grinder|the water temperature|the filter",
    "hang a heavy mirror|the wall|the anchors|the drill|the level",
    "keep bees|the hive|the queen|the frames|the smoker",
    "choose a used car|the engine|the papers|the tyres|the test drive",
    "grow tomatoes|the seedlings|the stakes|the leaves|the sunlight",
    "sharpen kitchen knives|the stone|the angle|the edge|the burr",
    "write a will|the witnesses|the property|the signature|the executor",
    "make a podcast|the microphone|the script|the room|the editing",
)
_MATERIALS = ("a notebook", "a damp cloth", "a good lamp", "an old towel", "a cheap timer", "a sharp pencil", "a clean table", "a friend")

_GOOD = (
    "First check {a} carefully, because a small problem there spoils every later step.",
    "Measure {a} twice and write the exact numbers down before you change anything.",
    "For example, set aside twenty minutes for {a} and keep {b} within reach.",
    "The most common mistake is to rush {a}, so test it in a hidden spot first.",
    "Work in this order: prepare {a}, test it once, then correct what you see.",
    "A reliable sign that {a} is ready is that nothing moves when you press gently.",
    "If {a} turns out wrong, undo the last step and repeat it more slowly.",
    "Compare {a} with the maker's instructions, since the safe limits are printed there.",
    "You need three items for this: {b}, clean hands and a clear view of {a}.",
    "Protect {a} from damage by covering it before the next stage begins.",
    "The reason this works is simple: {a} needs time to settle before any strain.",
    "Verify the result after one day, and adjust {a} by a small amount if needed.",
    "Use {b} to mark where {a} should end up, then follow the mark exactly.",
    "Divide the work on {a} into short stages and confirm each one before going on.",
)
_EVASIVE = (
    "It all depends, and nobody can really say very much about {a} in general.",
    "You could just look up {a} somewhere else, there must be some page about it.",
    "Perhaps {a} matters or perhaps not, opinions differ and I have none of my own.",
    "Whatever you do about {a} is probably fine, so there is no point in details.",
    "Many people have had some sort of experience with {a} or something like it.",
    "I am not sure what you mean by {a}, but things usually work out somehow.",
    "There are various ways to handle {a}, and all of them are more or less the same.",
    "Anyway, {a} is a big subject and this is not the place to go into it.",
    "Maybe ask somebody who knows about {a}, since it is hard to tell from here.",
    "As everyone knows, {a} is what it is, and that is basically all there is to it.",
    "Things like {b} or {a} could be involved, or possibly something quite different.",
    "Just try anything with {a} and see what happens, it hardly makes a difference.",
    "Generally speaking, stuff such as {a} is kind of complicated and kind of not.",
    "Some say one thing about {a} and some say another, so who can really tell.",
)
_TONES = (
    (
        (
            "You are doing wonderfully already, and {a} will feel friendlier with every try.",
            "Be kind to yourself while you learn about {a}, everyone starts somewhere.",
            "What a lovely project, enjoy the quiet moments you get to spend with {a}.",
            "Take a deep breath and trust your heart, {a} forgives a gentle beginner.",
        ),
        (
            "No fuss: deal with {a} now, get it done and move straight to the next job.",
            "Skip the feelings, {a} is a task like any other and takes plain discipline.",
            "Keep it short, finish {a} today and waste no further thought on the matter.",
            "Bottom line: {a} is work, so stop stalling and get on with it right away.",
        ),
    ),
    (
        (
            "In technical terms the tolerance of {a} follows from its load and its geometry.",
            "The governing parameter is the ratio of {a} to its nominal specification.",
            "Formally, {a} is a system with one input, one output and a known delay.",
            "The underlying mechanism for {a} is described by a standard reference table.",
        ),
        (
            "My grandmother always told a story about {a} when we sat in her warm kitchen.",
            "Back in our village {a} was something the whole street would gather around.",
            "It reminds me of a rainy Sunday when {a} brought the entire family together.",
            "There is an old saying that {a} brings good luck to those who are patient.",
        ),
    ),
)
