"""What can be planted in a society: the settings that come in groups, their checks, and how they are written on a command line."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from seamark.errors import InvalidSetting

KINDS = ("pair", "choice", "ranking", "rating", "thumbs", "label")
MAX_SHOWN = 4
"""A choice or ranking shows up to this many responses."""


# ---------------------------------------------------------------------------------------------- groups of settings


@dataclass(frozen=True)
class Missing:
    """Judgments that are not answered: against answering, the log odds of each way out are m + m_r - gap * log(2 cosh(gap_j / 2)).

    gap_j is what the rater sees: s_left - s_right of a pair, the best slot less the second of a choice or ranking, the utility of a
    single response. With `gap` above 0 close calls are missing more often, so that what is left out is not left out at random.
    """

    cannot_tell: float | None = -2.0
    """m of "cannot tell", a log odds; None for never."""
    skipped: float | None = None
    """m of "skipped", a log odds; None for never."""
    rater_sd: float = 0.0
    """Standard deviation over raters of the propensity m_r, logits."""
    gap: float = 0.0
    """How strongly a clear gap keeps raters from leaving it open."""

    def __post_init__(self) -> None:
        if self.cannot_tell is None and self.skipped is None:
            raise InvalidSetting("missing.cannot_tell", None, "Give the log odds of cannot_tell, of skipped, or of both.")
        for name in ("cannot_tell", "skipped", "gap"):
            _finite(f"missing.{name}", getattr(self, name))
        _spread("missing.rater_sd", self.rater_sd)


@dataclass(frozen=True)
class Confidence:
    """Stated confidence, 0 to 1: its log odds are weight * (|gap| - 1) + noise * e + excess for those who are over-confident.

    |gap| is that of `Missing`, after slope and scales, so that confidence tells of the gap and of the reliability together.
    """

    weight: float = 1.0
    """Logits of confidence per logit of |gap|; 0 makes confidence say nothing."""
    noise: float = 0.5
    """Standard deviation of what has no cause, logits."""
    overconfident: float = 0.0
    """Share of raters who are more sure than others, whatever the gap."""
    excess: float = 2.0
    """By how much, logits."""

    def __post_init__(self) -> None:
        _finite("confidence.weight", self.weight)
        _finite("confidence.excess", self.excess)
        _spread("confidence.noise", self.noise)
        _share("confidence.overconfident", self.overconfident)


@dataclass(frozen=True)
class Axes:
    """Several axes: each judgment is about one, drawn at random, and each axis has values of its own around the shared ones."""

    names: tuple[str, ...] = ("helpful", "honest", "harmless")
    deviation: float = 0.5
    """Root mean square over responses and axes of (an axis' value - the mean of the axes), logits."""

    def __post_init__(self) -> None:
        _names(self, "axes.names", least=1)
        _spread("axes.deviation", self.deviation)


@dataclass(frozen=True)
class Contexts:
    """Contexts that interact with the value: each judgment happens in one, drawn at random and written to `pair_type`."""

    names: tuple[str, ...] = ("work", "leisure")
    deviation: float = 0.5
    """Root mean square over responses and contexts of (a context's value - the mean of the contexts), logits."""

    def __post_init__(self) -> None:
        _names(self, "contexts.names", least=2)
        _spread("contexts.deviation", self.deviation)


@dataclass(frozen=True)
class Personas:
    """Latent classes of raters, which no field tells, each with values of its own around the shared ones."""

    shares: tuple[float, ...] = (0.6, 0.4)
    """Share of the raters in each class."""
    deviation: float = 0.7
    """Root mean square over responses and raters of (a persona's value - their mean), logits."""

    def __post_init__(self) -> None:
        _listed(self, "personas.shares", least=2)
        if min(self.shares) <= 0:
            raise InvalidSetting("personas.shares", self.shares, "Give one positive share per persona.")
        object.__setattr__(self, "shares", tuple(float(s) / float(sum(self.shares)) for s in self.shares))
        _spread("personas.deviation", self.deviation)


@dataclass(frozen=True)
class Tastes:
    """Tastes that differ continuously, with low rank: rater r adds z_r . T_i to the utility of response i, z_r ~ N(0, I_k)."""

    k: int = 1
    sd: float = 0.5
    """Standard deviation over raters and responses of z_r . T_i, logits."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidSetting("tastes.k", self.k, "Use a whole number of 1 or more.")
        _spread("tastes.sd", self.sd)


@dataclass(frozen=True)
class Drift:
    """Judgments spread over months, in which values move, or raters come and go while values stay.

    A session of a rater falls at time t in [0, 1] with density proportional to exp(k (t - 1/2)): k is 0 where nothing changes, so
    that the log odds of two kinds of raters change linearly, by the difference of their k from the first day to the last.
    """

    months: int = 12
    """Of 30 days each."""
    value_sd: float = 0.0
    """Standard deviation of a month's step of the random walk of each response's value, logits; the walk starts at the value."""
    careless: float = 0.0
    """Change, from the first day to the last, of the log odds that who answers is careless."""
    groups: float = 0.0
    """The same for the last group against the first; groups between them change in between."""

    def __post_init__(self) -> None:
        if self.months < 1:
            raise InvalidSetting("drift.months", self.months, "Use a whole number of 1 or more.")
        _spread("drift.value_sd", self.value_sd)
        _finite("drift.careless", self.careless)
        _finite("drift.groups", self.groups)


@dataclass(frozen=True)
class Style:
    """Numbers of what is shown that belong to the judgment, as where a response is a model that writes another text each time.

    Slot i of judgment j has x_ijc = c v_i + sqrt(1 - c^2) e_ijc, v_i being the value, standardised over responses, and rater r adds
    (effect_c + rater_sd e_rc) x_ijc to it. They are written to `covariate.NAME`.
    """

    effect: tuple[float, ...] = (0.4,)
    """Logits per unit of each number, whose standard deviation over slots is 1."""
    names: tuple[str, ...] = ("length",)
    rater_sd: float = 0.0
    """Standard deviation over raters of their own effects, logits per unit."""
    correlation: float = 0.0
    """c: with the value, -1 to 1; better responses have higher numbers where it is above 0."""

    def __post_init__(self) -> None:
        _listed(self, "style.effect", least=1)
        _names(self, "style.names", least=1)
        for value in _numbers("style.effect", self.effect):
            _finite("style.effect", value)
        if len(self.effect) != len(self.names):
            raise InvalidSetting("style.effect", self.effect, f"Give one effect for each of {', '.join(self.names)}.")
        _spread("style.rater_sd", self.rater_sd)
        if not -1 <= self.correlation <= 1:
            raise InvalidSetting("style.correlation", self.correlation, "Use a number between -1 and 1.")


@dataclass(frozen=True)
class Labels:
    """Nominal labels: a response's true class, by the rank of its value, seen through each rater's confusion matrix.

    A careful rater names the class c with log odds logit(accuracy) + rater_sd * e_rc; what is left goes to the other classes in
    random proportions. A careless rater's rows are all alike and even; an opposed rater takes each class for its mirror image.
    """

    names: tuple[str, ...] = ("poor", "fair", "good")
    """Classes from the lowest value to the highest, equally many responses in each."""
    accuracy: float = 0.75
    rater_sd: float = 0.5

    def __post_init__(self) -> None:
        _names(self, "labels.names", least=2)
        if not 0 < self.accuracy < 1:
            raise InvalidSetting("labels.accuracy", self.accuracy, "Use a probability between 0 and 1, both left out.")
        _spread("labels.rater_sd", self.rater_sd)


GROUPED = {
    "missing": Missing,
    "confidence": Confidence,
    "axes": Axes,
    "contexts": Contexts,
    "personas": Personas,
    "tastes": Tastes,
    "drift": Drift,
    "labels": Labels,
    "style": Style,
}


# ---------------------------------------------------------------------------------------------- checks


def _finite(name: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise InvalidSetting(name, value, "Use a finite number.")


def _spread(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise InvalidSetting(name, value, "A standard deviation is 0 or more.")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InvalidSetting(name, value, "Use a share between 0 and 1.")


def _listed(group: Any, name: str, *, least: int) -> None:
    """A field of several values, as a tuple."""
    values = getattr(group, name.split(".")[1])
    if isinstance(values, str) or len(values) < least:
        raise InvalidSetting(name, values, f"Give {least} or more.")
    object.__setattr__(group, name.split(".")[1], tuple(values))


def _names(group: Any, name: str, *, least: int) -> None:
    _listed(group, name, least=least)
    values = getattr(group, name.split(".")[1])
    if len(set(values)) < len(values) or not all(isinstance(v, str) and v for v in values):
        raise InvalidSetting(name, values, "Give names that differ.")


def check(settings: Mapping[str, Any]) -> None:
    """Whether a society can be made with the arguments of `simulate`.

    Raises
    ------
    InvalidSetting
        At the first that cannot be used.
    """
    for name in ("n_prompts", "n_raters", "n_judgments", "groups", "n_components"):
        if settings[name] < 1:
            raise InvalidSetting(name, settings[name], "Use a whole number of 1 or more.")
    for name in ("careless", "opposed", "lapse", "unexplained", "reversed_labels", "leak"):
        _share(name, settings[name])
    for name in ("spread", "disagreement", "leniency", "position_sd", "length_sd"):
        _spread(name, settings[name])
    for name in ("position", "length", "tie", "bad", "fatigue", "haste"):
        _finite(name, settings[name])
    for name, group in GROUPED.items():
        if settings[name] is not None and not isinstance(settings[name], group):
            raise InvalidSetting(name, settings[name], f"Use seamark.simulation.{group.__name__}(...), or None.")
    kinds = settings["kinds"]
    if not kinds or not set(kinds) <= set(KINDS) or isinstance(kinds, str):
        raise InvalidSetting("kinds", kinds, f"Give one or more of {', '.join(KINDS)}.")
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
    for name in ("leak", "length_sd"):
        if settings[name] and not settings["text"]:
            raise InvalidSetting(name, settings[name], "It is about texts, and there are none; use text=True.")
    _check_circumstances(settings)
    _check_answers(settings)


def _check_circumstances(settings: Mapping[str, Any]) -> None:
    for name in ("guidelines", "teams", "sources"):
        for value in _numbers(name, settings[name]):
            _finite(name, value)
    for version in settings["uis"]:
        if isinstance(version, str | float | int) or len(version) != 2:
            raise InvalidSetting("uis", settings["uis"], "Give (log scale, position shift) for each version.")
        for value in version:
            _finite("uis", value)
    if len(settings["teams"]) > settings["n_raters"]:
        raise InvalidSetting("teams", settings["teams"], f"There are {settings['n_raters']} raters; each team needs one.")
    if settings["haste"] and not 0 < settings["lapse"] < 1:
        raise InvalidSetting("haste", settings["haste"], "It moves the log odds of a lapse; use a lapse above 0 and below 1.")


def _check_answers(settings: Mapping[str, Any]) -> None:
    kinds = settings["kinds"]
    steps = _numbers("strength", settings["strength"])
    if len(steps) and (steps[0] <= 0 or (np.diff(steps) <= 0).any() or not np.isfinite(steps).all()):
        raise InvalidSetting("strength", settings["strength"], "Thresholds are above 0 and rise.")
    ties = _numbers("rank_ties", settings["rank_ties"])
    if len(ties) > 2 or not np.isfinite(ties).all():
        raise InvalidSetting("rank_ties", settings["rank_ties"], "Give the log propensity of ties of two, or of two and of three.")
    for name, kind in (("strength", "pair"), ("rank_ties", "ranking"), ("labels", "label")):
        if settings[name] and kind not in kinds:
            raise InvalidSetting(name, settings[name], f"It is about judgments of kind {kind}; put {kind} among the kinds.")
    if settings["bad"] is not None and not {"pair", "choice"} & set(kinds):
        raise InvalidSetting("bad", settings["bad"], "Only pairs and choices can be answered so; put one among the kinds.")
    if settings["worst"] and "choice" not in kinds:
        raise InvalidSetting("worst", settings["worst"], "It is about judgments of kind choice; put choice among the kinds.")
    if settings["privacy"] is not None and not 0 <= settings["privacy"] < math.inf:
        raise InvalidSetting("privacy", settings["privacy"], "Epsilon is a number of 0 (pure chance) or more; None for no randomisation.")


def _numbers(name: str, values: Any) -> Any:
    """Several numbers as an array."""
    try:
        return np.array([float(v) for v in values])
    except (TypeError, ValueError):
        raise InvalidSetting(name, values, "Give a list of numbers.") from None


# ---------------------------------------------------------------------------------------------- written settings


def read_written(texts: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments written as NAME=VALUE: fatigue=0.4, sources=0,0.5, drift.months=6, personas=yes.

    Parameters
    ----------
    texts : one setting each; a value is as in TOML, a list may leave out its brackets and quotes.
    defaults : the arguments there are, with their defaults.

    Raises
    ------
    InvalidSetting
        If a name is not known (the nearest known one is named), or a value cannot be read.

    Examples
    --------
    >>> read_written(["fatigue=0.4", "drift.months=6"], {"fatigue": 0.0, "drift": None})
    {'fatigue': 0.4, 'drift': Drift(months=6, value_sd=0.0, careless=0.0, groups=0.0)}
    """
    plain: dict[str, Any] = {}
    grouped: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, sign, written = (part.strip() for part in text.partition("="))
        group, dot, part = name.partition(".")
        known = [f"{g}.{f.name}" for g, kind in GROUPED.items() for f in fields(kind)] if dot else list(defaults)
        if not sign or not written or name not in known:
            near = difflib.get_close_matches(name, [*defaults, *known], n=1, cutoff=0.5)
            raise InvalidSetting(
                "setting",
                text,
                "Write NAME=VALUE, such as fatigue=0.4." if name in known else f"There is no {name}{_hint(near)}.",
            )
        if dot:
            grouped.setdefault(group, {})[part] = _value(name, written, like=getattr(GROUPED[group], part, ()))
        elif name in GROUPED:
            if written not in ("yes", "true"):
                raise InvalidSetting(name, written, f"Use {name}=yes, or {name}.NAME=VALUE for one of its parts.")
            grouped.setdefault(name, {})
        else:
            plain[name] = _value(name, written, like=defaults[name])
    return plain | {name: GROUPED[name](**parts) for name, parts in grouped.items()}


def _hint(near: Sequence[str]) -> str:
    return f"; the nearest is {near[0]}" if near else ""


def _value(name: str, written: str, *, like: Any) -> Any:
    """The value of a setting, of the type of its default."""
    if written in ("none", "None"):
        return None
    if isinstance(like, tuple) or "," in written:
        # what is not a whole list is one without its brackets, and failing that without the quotes of its words
        value = _toml(written) if written.startswith("[") else None
        value = _toml(f"[{written}]") if not isinstance(value, list) else value
        value = [part.strip() for part in written.split(",")] if value is None else value
        return tuple(tuple(v) if isinstance(v, list) else v for v in value)
    value = _toml(written)
    if isinstance(like, bool) != isinstance(value, bool) or not isinstance(value, bool | int | float):
        raise InvalidSetting(name, written, "Write true or false." if isinstance(like, bool) else "Write a number, such as 0.5.")
    if isinstance(like, int) and not isinstance(like, bool) and not isinstance(value, int):
        raise InvalidSetting(name, written, "Write a whole number.")
    return value


def _toml(written: str) -> Any:
    """A value as TOML has it; None where it is none."""
    try:
        return tomllib.loads(f"x = {written}")["x"]
    except tomllib.TOMLDecodeError:
        return None


def table_of(defaults: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every name that `read_written` knows, with its default."""
    rows: list[tuple[str, str]] = []
    for name, default in defaults.items():
        if name in GROUPED:
            rows += [(f"{name}.{f.name}", f"{_written(f.default)} where {name} is planted") for f in fields(GROUPED[name])]
        else:
            rows.append((name, _written(default)))
    return rows


def _written(value: Any) -> str:
    assert value is not MISSING
    assert not is_dataclass(value)
    if isinstance(value, tuple):
        return ",".join(str(v) for v in value) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
