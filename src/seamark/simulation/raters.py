"""Who answers, and when: raters with their reliability, tastes and habits, and the sessions in which they work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.simulation.settings import Confidence, Drift, Labels, Missing, Personas, Style, Tastes
from seamark.simulation.texts import standardise

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

CAREFUL, CARELESS, OPPOSED = "careful", "careless", "opposed"
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
_SESSION = 25
_MONTH_DAYS = 30


@dataclass(frozen=True, eq=False)
class Raters:
    """The raters, in the order of their names."""

    ids: list[str]
    kind: NDArray[np.str_]
    slope: Array
    leniency: Array
    group: Codes
    group_names: tuple[str, ...]
    position: Array
    """(n,) logits added to the response shown first."""
    length_taste: Array
    """(n,) what each adds to the common effect of length, logits per standard deviation."""
    persona: Codes
    """(n,) 0 for all where there are no personas."""
    taste: Array
    """(n, k) z"""
    team: Codes
    propensity: Array
    """(n,) to leave a judgment open, logits."""
    overconfident: NDArray[np.bool_]
    confusion: Array
    """(n, C, C) P(label | class)."""
    style: Array
    """(n, numbers) what each adds to the common effect of the numbers of what is shown, logits per unit."""


def recruit(settings: Mapping[str, Any], shares: Array, rng: np.random.Generator, streams: Mapping[str, np.random.Generator]) -> Raters:
    """Kinds, groups, personas and teams in the exact shares asked for, up to rounding, independent of each other."""
    n = settings["n_raters"]
    n_careless, n_opposed = round(settings["careless"] * n), round(settings["opposed"] * n)
    n_opposed = min(n_opposed, n - n_careless)
    kind = np.array([CARELESS] * n_careless + [OPPOSED] * n_opposed + [CAREFUL] * (n - n_careless - n_opposed))
    kind = kind[rng.permutation(n)]
    size = rng.lognormal(0.0, 0.25, n)
    group = _dealt(shares, n, rng)
    leniency = rng.normal(0.0, settings["leniency"], n)
    personas: Personas | None = settings["personas"]
    tastes: Tastes | None = settings["tastes"]
    missing: Missing | None = settings["missing"]
    confidence: Confidence | None = settings["confidence"]
    style: Style | None = settings["style"]
    n_teams = len(settings["teams"])
    sure = np.arange(n) < round((confidence.overconfident if confidence else 0.0) * n)
    return Raters(
        ids=[f"rater-{i:03d}" for i in range(n)],
        kind=kind,
        slope=np.where(kind == CAREFUL, size, np.where(kind == OPPOSED, -size, 0.0)),
        leniency=leniency,
        group=group,
        group_names=tuple(f"group {chr(ord('A') + g)}" for g in range(len(shares))),
        position=settings["position"] + settings["position_sd"] * streams["position"].normal(size=n),
        length_taste=settings["length_sd"] * streams["length"].normal(size=n),
        persona=_dealt(np.array(personas.shares), n, streams["personas"]) if personas else np.zeros(n, dtype=np.int64),
        taste=streams["tastes"].normal(size=(n, tastes.k if tastes else 0)),
        team=_dealt(np.full(n_teams, 1 / n_teams), n, streams["teams"]) if n_teams else np.zeros(n, dtype=np.int64),
        propensity=(missing.rater_sd if missing else 0.0) * streams["missing"].normal(size=n),
        overconfident=sure[streams["confidence"].permutation(n)],
        confusion=_confusion(settings["labels"] or Labels(), kind, streams["labels"]),
        style=style.rater_sd * streams["style"].normal(size=(n, len(style.names))) if style else np.zeros((n, 0)),
    )


def _dealt(shares: Array, n: int, rng: np.random.Generator) -> Codes:
    """(n,) codes in the given shares, up to rounding, in random order."""
    edges = np.round(np.cumsum(shares) * n)
    return np.searchsorted(edges, np.arange(n), side="right")[rng.permutation(n)].astype(np.int64)


def _confusion(labels: Labels, kind: NDArray[np.str_], rng: np.random.Generator) -> Array:
    """(n, C, C) a confusion matrix per rater: see `Labels`."""
    n, C = len(kind), len(labels.names)
    right = 1 / (1 + np.exp(-(np.log(labels.accuracy / (1 - labels.accuracy)) + labels.rater_sd * rng.normal(size=(n, C)))))
    wrong = rng.dirichlet(np.ones(C - 1), size=(n, C))
    careful = np.zeros((n, C, C))
    for c in range(C):
        careful[:, c, c] = right[:, c]
        careful[:, c, np.arange(C) != c] = (1 - right[:, c, None]) * wrong[:, c]
    turned = np.where((kind == OPPOSED)[:, None, None], careful[:, ::-1], careful)
    return np.where((kind == CARELESS)[:, None, None], 1 / C, turned)


# ------------------------------------------------------------------------------------ when


@dataclass(frozen=True, eq=False)
class Work:
    """When each judgment was made."""

    seconds: Array
    time: Array
    """Seconds since the start."""
    session: list[str]
    session_code: Codes
    """(n,) one number per session."""
    place: Codes
    """(n,) place in the session, from 0."""
    month: Codes
    hurry: Array
    """(n,) how fast for this rater: minus the log seconds less the rater's median, standardised."""


def schedule(
    settings: Mapping[str, Any],
    raters: Raters,
    rater: Codes,
    read: Array,
    rng: np.random.Generator,
    streams: Mapping[str, np.random.Generator],
) -> Work:
    """The sessions of all raters; `read` (n,) are the characters shown.

    Careful and opposed raters read: 6 s and 1 s per 60 characters, median; careless ones take 3 s whatever is shown. A
    session is 25 judgments of one rater, one per day, begun within the same 8 hours. With drift they are spread over its months.
    """
    n_raters = len(raters.ids)
    hasty = raters.kind[rater] == CARELESS
    seconds = np.where(hasty, 3.0, 6.0 + read / 60) * rng.lognormal(0.0, 0.4, len(rater))
    by_rater = np.argsort(rater, kind="stable")
    first = np.searchsorted(rater[by_rater], np.arange(n_raters))
    nth = np.zeros(len(rater), dtype=np.int64)
    nth[by_rater] = np.arange(len(rater)) - first[rater[by_rater]]
    sitting, place = np.divmod(nth, _SESSION)
    begin = rng.uniform(0, 8 * 3600, (n_raters, int(sitting.max()) + 1))
    # time within the session: all seconds up to and including this judgment's
    run = np.cumsum(seconds[by_rater])
    opens = place[by_rater] == 0
    before = np.maximum.accumulate(np.where(opens, run - seconds[by_rater], 0.0))
    time = np.zeros(len(rater))
    time[by_rater] = run - before
    drift: Drift | None = settings["drift"]
    day, month = sitting, np.zeros(len(rater), dtype=np.int64)
    if drift is not None:
        n_sittings = -(-np.bincount(rater, minlength=n_raters) // _SESSION)
        day = _days(drift, raters, n_sittings, streams["when"])[rater, sitting]
        month = np.minimum(day // _MONTH_DAYS, drift.months - 1)
    time += day * 86400.0 + begin[rater, sitting]
    session = [f"{raters.ids[r]}-{d + 1}" for r, d in zip(rater.tolist(), sitting.tolist(), strict=True)]
    return Work(
        seconds=seconds,
        time=time,
        session=session,
        session_code=rater * (int(sitting.max()) + 1) + sitting,
        place=place,
        month=month,
        hurry=-standardise((np.log(seconds) - _medians(np.log(seconds), rater, n_raters)[rater])[:, None])[:, 0],
    )


def _days(drift: Drift, raters: Raters, n_sittings: Codes, rng: np.random.Generator) -> Codes:
    """(n_raters, sittings) the day of each session: density exp(k (t - 1/2)) over the period, one session a day."""
    last = max(len(raters.group_names) - 1, 1)
    k = (drift.careless * (raters.kind == CARELESS) + drift.groups * (raters.group / last - 0.5))[:, None]
    u = rng.random((len(k), int(n_sittings.max())))
    steep = np.abs(k) > 1e-9
    safe = np.where(steep, k, 1.0)
    t = np.where(steep, np.log1p(u * np.expm1(safe)) / safe, u)
    sitting = np.arange(t.shape[1])
    t = np.sort(np.where(sitting < n_sittings[:, None], t, np.inf), axis=1)
    day = np.where(np.isfinite(t), np.floor(np.where(np.isfinite(t), t, 0.0) * _MONTH_DAYS * drift.months), 0.0).astype(np.int64)
    return np.maximum.accumulate(day - sitting, axis=1) + sitting


def _medians(values: Array, code: Codes, n: int) -> Array:
    """(n,) median of the values of each code; 0 where there are none."""
    order = np.lexsort((values, code))
    start = np.searchsorted(code[order], np.arange(n + 1))
    count = np.diff(start)
    low, high = (start[:-1] + np.maximum(count - 1, 0) // 2), (start[:-1] + count // 2)
    ordered = np.append(values[order], [0.0, 0.0])
    return np.where(count > 0, (ordered[low] + ordered[high]) / 2, 0.0)
