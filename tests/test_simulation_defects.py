"""Every defect that can be planted shows in the data as its formula says, is written down in `Truth`, and goes with every other.

A test of a number is an interval of 4.5 standard errors (false-alarm rate 7e-6 each), around what was planted; the same interval,
on data without the defect, must leave it out. Seeds are fixed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from seamark.errors import InvalidSetting
from seamark.records import Feedback
from seamark.simulation import (
    RATING_CUTS,
    Axes,
    Confidence,
    Contexts,
    Drift,
    Labels,
    Missing,
    Personas,
    Society,
    Style,
    Tastes,
    read_settings,
    simulate,
    table_of_settings,
)
from seamark.simulation.answers import SETS
from seamark.sources import load

KINDS = ("pair", "choice", "ranking", "rating", "thumbs", "label")
EVERYTHING: dict[str, Any] = {
    "position_sd": 0.4,
    "length_sd": 0.4,
    "fatigue": 0.4,
    "haste": 1.2,
    "guidelines": (0.0, -0.5),
    "teams": (0.3, -0.3),
    "uis": ((0.0, 0.0), (-0.4, 0.6)),
    "sources": (0.0, 0.7, -0.4),
    "bad": -1.0,
    "strength": (0.6, 1.6),
    "rank_ties": (-0.5, -1.0),
    "worst": True,
    "labels": Labels(names=("bad", "good"), accuracy=0.8),
    "missing": Missing(cannot_tell=-1.0, skipped=-2.0, rater_sd=0.6, gap=0.8),
    "confidence": Confidence(weight=0.8, overconfident=0.3),
    "axes": Axes(deviation=0.6),
    "contexts": Contexts(deviation=0.6),
    "personas": Personas(deviation=0.7),
    "tastes": Tastes(k=2, sd=0.6),
    "drift": Drift(months=6, value_sd=0.4, careless=1.0, groups=1.0),
    "style": Style(effect=(0.5, -0.3), names=("length", "lists"), rater_sd=0.3, correlation=0.4),
    "privacy": 2.0,
    "reversed_labels": 0.1,
    "leak": 0.1,
}


def _needs(name: str) -> tuple[str, ...]:
    """Kinds that a setting is about."""
    return {"strength": ("pair",), "rank_ties": ("ranking",), "worst": ("choice",), "labels": ("label",), "bad": ("pair",)}.get(name, KINDS)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, dtype=float)))


def _estimate(log_likelihood: Callable[[np.ndarray], np.ndarray], start: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood and its standard errors, from (n,) terms; Berndt, Hall, Hall & Hausman 1974."""
    theta = np.array(start, dtype=float)
    cov = np.eye(len(theta))
    for _ in range(60):
        columns = []
        for k in range(len(theta)):
            step = np.zeros(len(theta))
            step[k] = 1e-4
            columns.append((log_likelihood(theta + step) - log_likelihood(theta - step)) / 2e-4)
        G = np.stack(columns, 1)
        cov = np.linalg.inv(G.T @ G)
        move = cov @ G.sum(0)
        here, length = log_likelihood(theta).sum(), 1.0
        while log_likelihood(theta + length * move).sum() < here and length > 1e-3:
            length /= 2
        theta = theta + length * move
        if np.abs(move / np.sqrt(np.diag(cov))).max() < 0.01:
            return theta, np.sqrt(np.diag(cov))
    raise AssertionError("the estimate did not settle")


def _within(estimate: float, se: float, planted: float) -> bool:
    return abs(estimate - planted) < 4.5 * se


def _mean_within(terms: np.ndarray, expected: float) -> bool:
    return _within(float(terms.mean()), float(terms.std() / math.sqrt(len(terms))), expected)


def _pearson(p: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """P value of observed against expected counts in bins of the stated probability; the variance is sum p (1 - p)."""
    bin_of = np.argsort(np.argsort(p, kind="stable")) * bins // len(p)
    excess = np.bincount(bin_of, hit - p)
    return float(stats.chi2.sf((excess**2 / np.bincount(bin_of, p * (1 - p))).sum(), bins))


# ---------------------------------------------------------------------------------------------- the law, by hand


def _slots_by_hand(society: Society, j: int, row: dict[str, Any]) -> tuple[list[float], float]:
    """(s of each slot, scaled utility with leniency of the first) from the parts of `Truth` and what the record says."""
    t, st, r = society.truth, society.settings, row["rater"]
    place = society.feedback.judgments["position"].to_numpy()
    log_scale = -st["fatigue"] * (row["position"] - place.mean()) / place.std() if st["fatigue"] else 0.0
    shift = t.position_by_rater[r]
    if st["guidelines"]:
        log_scale += st["guidelines"][int(row["guideline_version"].split()[1]) - 1]
    if st["teams"]:
        log_scale += st["teams"][int(row["team"].split()[1]) - 1]
    if st["uis"]:
        scale, move = st["uis"][int(row["ui_version"].split()[1]) - 1]
        log_scale, shift = log_scale + scale, shift + move
    slots = []
    for k, i in enumerate(row["responses"]):
        u = t.value_by_group[i, t.group[r]] + (t.length_effect + t.length_taste[r]) * t.length[i]
        if st["sources"]:
            u += st["sources"][ord(row["models"][k][-1]) - ord("A")]
        if st["axes"]:
            u += t.axis_values[i, st["axes"].names.index(row["axis"])]
        if st["contexts"]:
            u += t.context_values[i, st["contexts"].names.index(row["pair_type"])]
        if st["personas"]:
            u += t.persona_values[i, t.persona[r]]
        if st["tastes"]:
            u += sum(a * b for a, b in zip(t.taste_values[i], t.taste[r], strict=True))
        if st["drift"]:
            u += t.drift[i, t.month[j]]
        s = t.slope[r] * math.exp(log_scale) * u
        if st["style"]:
            for c, (effect, name) in enumerate(zip(st["style"].effect, st["style"].names, strict=True)):
                s += (effect + t.style_by_rater[r, c]) * row[f"covariate.{name}"][k]
        slots.append(s)
    single = slots[0] + t.leniency[r]
    slots[0] += shift
    return slots, single


def _by_hand(society: Society, j: int, row: dict[str, Any]) -> list[float]:
    """The probabilities of the answers to one judgment, one at a time."""
    t, st = society.truth, society.settings
    s, single = _slots_by_hand(society, j, row)
    tie, bad, steps = st["tie"], st["bad"], list(st["strength"])
    possible: list[bool] | None = None
    match row["kind"]:
        case "pair" if steps:
            cuts = [-c for c in reversed(steps)] + ([0.0] if tie is None else []) + steps
            below = [0.0, *(float(_sigmoid(c + s[0] - s[1])) for c in cuts), 1.0]
            p = [b - a for a, b in itertools.pairwise(below)]
            none = math.exp(bad) / (math.exp(bad) + math.exp(s[0]) + math.exp(s[1])) if bad is not None else 0.0
            p = [x * (1 - none) for x in p]
            if tie is None:
                p.insert(len(p) // 2, 0.0)
            possible = [x > 0 for x in p] + [bad is not None]
            p.append(none)
        case "pair":
            w = [math.exp(s[0]), math.exp(s[1]), 0.0 if tie is None else math.exp(tie + (s[0] + s[1]) / 2)]
            w.append(0.0 if bad is None else math.exp(bad))
            p, possible = [x / sum(w) for x in w], [x > 0 for x in w]
        case "choice":
            w = [math.exp(x) for x in s] + [0.0] * (4 - len(s)) + [0.0 if bad is None else math.exp(bad)]
            p, possible = [x / sum(w) for x in w], [x > 0 for x in w]
        case "ranking":
            w = _set_weights(s, list(range(len(s))), st["rank_ties"])
            p, possible = [x / sum(w) for x in w], [x > 0 for x in w]
        case "rating":
            below = [0.0, *(float(_sigmoid(c - single)) for c in RATING_CUTS), 1.0]
            p = [b - a for a, b in itertools.pairwise(below)]
        case "thumbs":
            p = [float(_sigmoid(single)), float(_sigmoid(-single))]
        case _:
            p = list(t.confusion[row["rater"], t.label_class[row["responses"][0]]])
    possible = possible or [True] * len(p)
    lapse = st["lapse"]
    if st["haste"]:
        lapse = float(_sigmoid(math.log(lapse / (1 - lapse)) + st["haste"] * t.hurry[j]))
    return [(1 - lapse) * x + lapse * ok / sum(possible) for x, ok in zip(p, possible, strict=True)]


def _set_weights(s: list[float], left: list[int], ties: Any) -> list[float]:
    """Davidson-Luce weights of every set of slots, 0 for those that cannot come next."""
    delta = [0.0, *ties]
    return [
        math.exp(delta[len(c) - 1] + sum(s[i] for i in c) / len(c)) if len(c) <= len(delta) and set(c) <= set(left) else 0.0 for c in SETS
    ]


LAWS: dict[str, dict[str, Any]] = {
    "everything": {**EVERYTHING, "kinds": KINDS},
    "strength without ties": {"kinds": ("pair",), "strength": (0.7,), "tie": None, "bad": -0.5},
    "strength, ties": {"kinds": ("pair",), "strength": (0.7, 1.5)},
    "both bad": {"kinds": ("pair", "choice"), "bad": -0.3},
    "both bad, no ties": {"kinds": ("pair",), "bad": 0.2, "tie": None},
    "ties of three": {"kinds": ("ranking",), "rank_ties": (-0.3, -0.6)},
    "ties of two": {"kinds": ("ranking",), "rank_ties": (-0.3,), "n_responses": 3},
    "best and worst": {"kinds": ("choice",), "worst": True},
    "labels": {"kinds": ("label",)},
    "axes": {"axes": Axes()},
    "entries": {"text": False, "n_responses": 9, "kinds": KINDS, "sources": (0.0, 0.5), "tastes": Tastes(2), "drift": Drift(value_sd=0.3)},
}


@pytest.mark.parametrize("name", LAWS)
def test_stated_probabilities_follow_the_formulas(name: str) -> None:
    society = simulate(**({"n_judgments": 400, "n_prompts": 30, "n_raters": 20, "seed": 3} | LAWS[name]))
    t = society.truth
    for j, row in enumerate(society.feedback.judgments.iter_rows(named=True)):
        slots, _ = _slots_by_hand(society, j, row)
        np.testing.assert_allclose(t.slots[j][: len(slots)], slots, atol=1e-9)
        assert np.isnan(t.slots[j][len(slots) :]).all()
        by_hand = _by_hand(society, j, row)
        stated = t.probabilities[j]
        np.testing.assert_allclose(stated, np.resize([*by_hand, *[0.0] * len(stated)], len(stated)), atol=1e-9)
        assert sum(by_hand) == pytest.approx(1)


def _answer(row: dict[str, Any], levels: int) -> int:
    """Column of `Truth.probabilities` of what was recorded."""
    match row["kind"]:
        case "pair" if levels:
            if row["outcome"] == "both_bad":
                return 2 * levels + 1
            return {"left": levels - (row["strength"] or 0), "tie": levels, "right": levels + (row["strength"] or 0)}[row["outcome"]]
        case "pair":
            return ("left", "right", "tie", "both_bad").index(row["outcome"])
        case "choice":
            return 4 if row["outcome"] == "both_bad" else row["best"]
        case "ranking":
            return SETS.index(tuple(i for i, rank in enumerate(row["ranks"]) if rank == 1))
        case "rating":
            return int(row["rating"]) - 1
        case "thumbs":
            return 0 if row["thumb"] else 1
        case _:
            return 0 if row["label"] == "bad" else 1


def _levels(society: Society) -> int:
    st = society.settings
    return len(st["strength"]) + (st["tie"] is None) if st["strength"] else 0


@pytest.mark.parametrize("name", LAWS)
def test_answers_follow_the_stated_probabilities(name: str) -> None:
    """A chi-square test per kind and option, up to 45 of them: false-alarm rate 45e-5 at most."""
    recorded = {"privacy": None, "reversed_labels": 0.0, "missing": None, "labels": None}
    recorded |= {"labels": EVERYTHING["labels"]} if "label" in LAWS[name].get("kinds", ()) else {}
    society = simulate(**({"n_judgments": 9000, "n_prompts": 100, "n_raters": 60, "seed": 5} | LAWS[name] | recorded))
    frame, p = society.feedback.judgments, society.truth.probabilities
    answer = np.array([_answer(row, _levels(society)) for row in frame.iter_rows(named=True)])
    kind = frame["kind"].to_numpy()
    for what in np.unique(kind):
        rows = kind == what
        for option in np.flatnonzero(p[rows].sum(0) > 60):
            assert _pearson(p[rows, option], answer[rows] == option, bins=5) > 1e-5, (what, option)


# ---------------------------------------------------------------------------------------------- what bends a pair

BENT = {
    "kinds": ("pair",), "n_judgments": 20_000, "n_prompts": 150, "n_raters": 80, "tie": None, "careless": 0.0, "opposed": 0.0,
    "groups": 1, "disagreement": 0.0, "lapse": 0.05, "seed": 11,
}  # fmt: skip
PARTS: dict[str, tuple[str, Any, Any]] = {
    # coefficient, where 1 (or the planted number) is what the formula says: setting, with it, without it
    "taste for length": ("length_sd", 0.4, 0.0),
    "source": ("sources", (0.0, 0.7, -0.4), (0.0, 0.0, 0.0)),
    "axis": ("axes", Axes(deviation=0.6), Axes(deviation=0.0)),
    "context": ("contexts", Contexts(deviation=0.6), Contexts(deviation=0.0)),
    "persona": ("personas", Personas(deviation=0.7), Personas(deviation=0.0)),
    "taste": ("tastes", Tastes(k=2, sd=0.6), Tastes(k=2, sd=0.0)),
    "drift": ("drift", Drift(months=6, value_sd=0.4), Drift(months=6, value_sd=0.0)),
    "fatigue": ("fatigue", 0.4, 0.0),
    "guideline": ("guidelines", (0.0, -0.5), (0.0, 0.0)),
    "team": ("teams", (0.3, -0.3), (0.0, 0.0)),
    "version scale": ("uis", ((0.0, 0.0), (-0.4, 0.6)), ((0.0, 0.0), (0.0, 0.6))),
    "version shift": ("uis", ((0.0, 0.0), (-0.4, 0.6)), ((0.0, 0.0), (-0.4, 0.0))),
    "position of raters": ("position_sd", 0.5, 0.0),
    "style": ("style", Style((0.5,), rater_sd=0.3, correlation=0.4), Style((0.0,), rater_sd=0.0, correlation=0.4)),
    "haste": ("haste", 1.2, 0.0),
}
PLANTED = [1.0] * 7 + [0.4, -0.5, 0.3, -0.4, 0.6, 1.0, 1.0, 1.2]


def _bent(society: Society, parts: Society) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of all coefficients, from the answers of one society and the parts that another one states for the same questions."""
    t, frame = parts.truth, parts.feedback.judgments
    pairs = np.array(frame["responses"].to_list())
    r = frame["rater"].to_numpy()
    left = society.feedback.judgments["outcome"].to_numpy() == "left"

    def gap(values: np.ndarray) -> np.ndarray:
        return values[:, 0] - values[:, 1]

    base = gap(t.value[pairs] + t.length_effect * t.length[pairs])
    X = [
        t.length_taste[r] * gap(t.length[pairs]),
        gap(t.source_bias[t.source[pairs]]),
        gap(t.axis_values[pairs, t.axis[:, None]]),
        gap(t.context_values[pairs, t.context[:, None]]),
        gap(t.persona_values[pairs, t.persona[r][:, None]]),
        gap((t.taste_values[pairs] * t.taste[r][:, None]).sum(2)),
        gap(t.drift[pairs, t.month[:, None]]),
    ]
    place = frame["position"].to_numpy()
    Z = [-(place - place.mean()) / place.std(), t.guideline == 1, 1 - 2 * t.team[r], t.ui == 1]
    own = (0.5 + t.style_by_rater[r, 0]) * gap(t.style_numbers[..., 0])
    W = [t.ui == 1, t.position_by_rater[r] - t.position, own]
    slope = society.truth.slope[r]

    def log_likelihood(theta: np.ndarray) -> np.ndarray:
        x, z, w, haste = np.split(theta, [7, 11, 14])
        u = base + sum(a * b for a, b in zip(x, X, strict=True))
        scale = np.exp(sum(a * b for a, b in zip(z, Z, strict=True)))
        c = slope * scale * u + t.position + sum(a * b for a, b in zip(w, W, strict=True))
        lapse = _sigmoid(math.log(0.05 / 0.95) + haste[0] * t.hurry)
        return np.log((1 - lapse) * _sigmoid(np.where(left, c, -c)) + lapse / 2)

    return _estimate(log_likelihood, [0.5] * 7 + [0.1] * 4 + [0.1, 0.5, 0.5, 0.5])


@pytest.fixture(scope="module")
def bent() -> Society:
    return simulate(**BENT, **{setting: with_it for setting, with_it, _ in PARTS.values()})


def test_pairs_are_bent_as_planted_all_at_once(bent: Society) -> None:
    estimate, se = _bent(bent, bent)
    for name, e, s, planted in zip(PARTS, estimate, se, PLANTED, strict=True):
        assert _within(e, s, planted), (name, e, s)
        assert not _within(e, s, 0.0), (name, e, s)


@pytest.mark.parametrize("name", [name if i % 5 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(PARTS)])
def test_what_is_not_planted_does_not_bend(name: str, bent: Society) -> None:
    """One part is turned off; random numbers of the others stay, so the questions are the same, and only that coefficient falls to 0."""
    setting, _, without = PARTS[name]
    settings = {s: with_it for s, with_it, _ in PARTS.values()} | {setting: without}
    society = simulate(**BENT, **settings)
    np.testing.assert_array_equal(society.feedback.judgments["seconds"], bent.feedback.judgments["seconds"])
    estimate, se = _bent(society, bent)
    k = list(PARTS).index(name)
    assert _within(estimate[k], se[k], 0.0)
    assert not _within(estimate[k], se[k], PLANTED[k])
    others = [i for i in range(len(PARTS)) if i != k]
    assert all(_within(estimate[i], se[i], PLANTED[i]) for i in others)


def test_numbers_of_slots_are_written_as_they_were_shown(bent: Society) -> None:
    """Standard normal but for their correlation of .4 with the value; a pair has no third slot."""
    t, frame = bent.truth, bent.feedback.judgments
    written = np.array(frame["covariate.length"].to_list())
    np.testing.assert_array_equal(written, t.style_numbers[:, :2, 0])
    assert (t.style_numbers[:, 2:] == 0).all()
    assert written.std() == pytest.approx(1, abs=0.03)
    assert np.corrcoef(written.ravel(), t.value[np.array(frame["responses"].to_list())].ravel())[0, 1] == pytest.approx(0.4, abs=0.03)


def test_effects_spread_over_raters_and_responses_as_asked(bent: Society) -> None:
    t = bent.truth
    n = len(t.slope)
    for values, sd in ((t.position_by_rater - t.position, 0.5), (t.length_taste, 0.4), (t.style_by_rater[:, 0], 0.3)):
        assert stats.chi2.ppf(1e-5, n) < (values**2).sum() / sd**2 < stats.chi2.ppf(1 - 1e-5, n)
    assert (t.taste**2).mean() == pytest.approx(1, abs=4.5 * math.sqrt(2 / t.taste.size))
    for values, size in ((t.axis_values, 0.6), (t.context_values, 0.6), (t.persona_values @ np.diag(np.sqrt([0.6, 0.4])), 0.7)):
        rms = np.sqrt((values**2).mean()) if size < 0.7 else np.sqrt((values**2).sum(1).mean())
        assert rms == pytest.approx(size, rel=0.01)
    np.testing.assert_allclose(t.axis_values.mean(1), 0, atol=1e-9)
    np.testing.assert_allclose(t.persona_values @ [0.6, 0.4], 0, atol=1e-9)
    np.testing.assert_allclose(np.sqrt((t.taste_values**2).sum(1).mean()), 0.6, rtol=0.01)
    assert Counter(t.persona.tolist()) == {0: 48, 1: 32}
    assert Counter(t.team.tolist()) == {0: 40, 1: 40}
    steps = np.diff(t.drift, axis=1)
    assert (t.drift[:, 0] == 0).all()
    np.testing.assert_allclose(steps.std(0), 0.4, rtol=0.02)
    for values in (t.axis_values[:, 0], t.context_values[:, 0], t.persona_values[:, 0], steps[:, 0]):
        assert abs(np.corrcoef(t.value, values)[0, 1]) < 4.5 / math.sqrt(len(t.value))


def test_texts_show_what_people_differ_about() -> None:
    """Ridge on hashed n-grams learns a persona's deviation on half of the prompts and explains over 40% of it on the rest."""
    from seamark.models.features import HashEncoder

    society = simulate(personas=Personas(), seed=2)
    texts = society.feedback.responses["text"].to_list()
    train = society.feedback.responses["prompt"].to_numpy() % 2 == 0
    x = HashEncoder.fit([t for t, keep in zip(texts, train, strict=True) if keep]).encode(texts).astype(np.float64)
    x -= x[train].mean(0)
    y = society.truth.persona_values[:, 0]
    w = np.linalg.solve(x[train].T @ x[train] + 0.1 * np.eye(x.shape[1]), x[train].T @ (y - y[train].mean())[train])
    assert np.corrcoef(y[~train], x[~train] @ w)[0, 1] ** 2 > 0.4


def test_records_say_under_what(bent: Society) -> None:
    frame, t = bent.feedback.judgments, bent.truth
    assert frame["guideline_version"].to_list() == [f"guideline {v + 1}" for v in t.guideline]
    assert (np.diff(t.guideline) >= 0).all(), "versions of a guideline follow each other"
    assert frame["team"].to_list() == [f"team {t.team[r] + 1}" for r in frame["rater"]]
    assert frame["ui_version"].to_list() == [f"ui {v + 1}" for v in t.ui]
    assert frame.group_by("session").agg(pl.col("ui_version").n_unique())["ui_version"].max() == 1
    assert frame["axis"].to_list() == [("helpful", "honest", "harmless")[v] for v in t.axis]
    assert frame["pair_type"].to_list() == [("work", "leisure")[v] for v in t.context]
    models = [["model " + "ABC"[t.source[i]] for i in row] for row in frame["responses"].to_list()]
    assert frame["models"].to_list() == models
    assert "persona" not in str(frame.columns)
    days = (frame["time"] - frame["time"].min()).dt.total_days().to_numpy()
    assert (np.abs(days // 30 - t.month) <= (days % 30 > 28)).all()


def test_haste_shows_in_seconds() -> None:
    """Fast answers lapse more: right answers about wide gaps get rarer with speed, as the stated lapse says; not without haste."""
    for haste in (1.5, 0.0):
        society = simulate(haste=haste, lapse=0.1, tie=None, careless=0.0, opposed=0.0, n_judgments=12_000, spread=3.0, seed=4)
        frame = society.feedback.judgments
        log_s = frame.select(pl.col("seconds").log() - pl.col("seconds").log().median().over("rater")).to_series().to_numpy()
        fast = log_s < np.quantile(log_s, 0.2)
        gap = society.truth.slots[:, 0] - society.truth.slots[:, 1]
        wide = np.abs(gap) > 4
        wrong = (frame["outcome"].to_numpy() == "left") != (gap > 0)
        rows = fast & wide
        assert _mean_within(wrong[rows] - (society.truth.lapse_by_judgment / 2)[rows], 0.01)
        assert _mean_within(wrong[rows] * 1.0, 0.05) != bool(haste)


# ---------------------------------------------------------------------------------------------- missing and confidence


def _missing_fit(society: Society) -> tuple[np.ndarray, np.ndarray]:
    t, frame = society.truth, society.feedback.judgments
    state = frame["outcome"].replace_strict({"cannot_tell": 1, "skipped": 2}, default=0).to_numpy()
    closeness, own = np.logaddexp(t.gap / 2, -t.gap / 2), t.propensity[frame["rater"].to_numpy()]

    def log_likelihood(theta: np.ndarray) -> np.ndarray:
        against = theta[3] * own - theta[2] * closeness
        w = np.stack([np.ones(len(own)), np.exp(theta[0] + against), np.exp(theta[1] + against)], 1)
        return np.log(w[np.arange(len(w)), state] / w.sum(1))

    return _estimate(log_likelihood, [-1.0, -1.0, 0.0, 0.5])


def test_missing_judgments_follow_their_log_odds() -> None:
    planted = Missing(cannot_tell=-0.5, skipped=-1.5, rater_sd=0.8, gap=0.9)
    society = simulate(kinds=KINDS, n_judgments=15_000, n_raters=100, missing=planted, seed=6)
    estimate, se = _missing_fit(society)
    for e, s, expected in zip(estimate, se, (-0.5, -1.5, 0.9, 1.0), strict=True):
        assert _within(e, s, expected)
        assert not _within(e, s, 0.0)
    t, frame = society.truth, society.feedback.judgments
    assert stats.chi2.ppf(1e-5, 100) < (t.propensity**2).sum() / 0.8**2 < stats.chi2.ppf(1 - 1e-5, 100)
    for k, outcome in enumerate(("cannot_tell", "skipped")):
        assert _pearson(t.missing[:, k], frame["outcome"].to_numpy() == outcome) > 1e-5
    gone = frame.filter(pl.col("outcome").is_in(["cannot_tell", "skipped"]))
    assert all(gone[name].null_count() == len(gone) for name in ("best", "worst", "ranks", "rating", "thumb", "label", "strength"))
    pairs = (frame["kind"] == "pair").to_numpy()
    np.testing.assert_allclose(t.gap[pairs], (t.slots[:, 0] - t.slots[:, 1])[pairs])
    blind = simulate(kinds=KINDS, n_judgments=15_000, n_raters=100, missing=Missing(-0.5, -1.5, 0.8, 0.0), seed=6)
    estimate, se = _missing_fit(blind)
    assert _within(estimate[2], se[2], 0.0)
    assert not _within(estimate[2], se[2], 0.9)
    assert not simulate(seed=6).feedback.judgments["outcome"].is_in(["cannot_tell", "skipped"]).any()


def test_confidence_tells_of_the_gap_or_of_nothing() -> None:
    for weight in (0.8, 0.0):
        society = simulate(confidence=Confidence(weight=weight, noise=0.5, overconfident=0.25, excess=1.5), n_judgments=4000, seed=7)
        t, frame = society.truth, society.feedback.judgments
        c = np.clip(frame["confidence"].to_numpy(), 0.0005, 0.9995)
        over = t.overconfident[frame["rater"].to_numpy()]
        assert t.overconfident.mean() == 0.25
        gap = np.abs(t.slots[:, 0] - t.slots[:, 1])
        rows = gap < 3  # beyond, what is written to three places says less than was meant
        X = np.stack([np.ones(len(c)), gap - 1, over], 1)[rows]
        y = np.log(c / (1 - c))[rows]
        beta, rest, *_ = np.linalg.lstsq(X, y, rcond=None)
        se = np.sqrt(np.diag(np.linalg.inv(X.T @ X)) * rest[0] / len(y))
        assert all(_within(b, s, e) for b, s, e in zip(beta, se, (0.0, weight, 1.5), strict=True))
        assert not _within(beta[1], se[1], 0.8 - weight)
    assert simulate(n_judgments=100, seed=7).feedback.judgments["confidence"].null_count() == 100


# ---------------------------------------------------------------------------------------------- forms of answers

FLAT = {"spread": 0.0, "disagreement": 0.0, "length": 0.0, "position": 0.0, "lapse": 0.0, "text": False, "n_judgments": 6000}
"""All are equal, so the propensities alone decide."""


def test_both_bad_is_chosen_as_often_as_its_weight_says() -> None:
    """With s = 0: exp(0), exp(0), exp(-1), exp(bad); without it there is none."""
    seen = simulate(**FLAT, bad=0.3, seed=1).feedback.judgments["outcome"].to_list()
    w = np.array([1, 1, math.exp(-1), math.exp(0.3)])
    counts = Counter(seen)
    observed = [counts[name] for name in ("left", "right", "tie", "both_bad")]
    assert stats.chisquare(observed, w / w.sum() * 6000).pvalue > 1e-5
    assert stats.chisquare(observed, np.array([0.3, 0.3, 0.2, 0.2]) * 6000).pvalue < 1e-5
    assert "both_bad" not in simulate(**FLAT, seed=1).feedback.judgments["outcome"].to_list()
    # the worse both are, the more often: exp(bad) against what they are worth, not against their gap
    society = simulate(bad=-0.5, careless=0.0, opposed=0.0, seed=2)
    t = society.truth
    none = (society.feedback.judgments["outcome"] == "both_bad").to_numpy()
    level = t.slots[:, :2].mean(1)
    assert none[level < -1].mean() > 3 * none[level > 1].mean() > 0


def test_none_of_a_choice() -> None:
    outcomes = Counter(simulate(**FLAT, kinds=("choice",), bad=1.0, seed=3).feedback.judgments["outcome"].to_list())
    assert _within(outcomes["both_bad"] / 6000, math.sqrt(0.25 / 6000), math.e / (math.e + 4))
    assert set(simulate(**FLAT, kinds=("choice",), seed=3).feedback.judgments["outcome"]) == {"answered"}


@pytest.mark.parametrize("tie", [-1.0, None])
def test_strengths_follow_their_thresholds(tie: float | None) -> None:
    frame = simulate(**FLAT, strength=(0.5, 1.5), tie=tie, seed=4).feedback.judgments
    levels = 2 if tie is not None else 3
    assert set(frame["strength_levels"].drop_nulls()) == {levels}
    assert ("tie" in frame["outcome"].to_list()) == (tie is not None)
    cuts = [-1.5, -0.5, *([] if tie is not None else [0.0]), 0.5, 1.5]
    expected = np.diff([0.0, *_sigmoid(cuts), 1.0])
    signed = frame.select(
        pl.when(pl.col("outcome") == "left")
        .then(-pl.col("strength"))
        .when(pl.col("outcome") == "tie")
        .then(0)
        .otherwise(pl.col("strength"))
    ).to_series()
    order = [-3, -2, -1, 1, 2, 3] if tie is None else [-2, -1, 0, 1, 2]
    observed = [(signed == v).sum() for v in order]
    assert stats.chisquare(observed, expected * 6000).pvalue > 1e-5
    assert stats.chisquare(observed, np.full(len(order), 6000 / len(order))).pvalue < 1e-5
    assert simulate(**FLAT, seed=4).feedback.judgments["strength"].null_count() == 6000


def _every_ranking(s: list[float], ties: tuple[float, ...], lapse: float) -> dict[tuple[int, ...], float]:
    """Probability of every ranking of the slots, by enumeration."""
    out: dict[tuple[int, ...], float] = {}

    def go(left: list[int], ranks: dict[int, int], p: float) -> None:
        if not left:
            key = tuple(ranks[i] for i in range(len(s)))
            out[key] = out.get(key, 0.0) + p
            return
        w = _set_weights(s, left, ties)
        allowed = [x > 0 for x in w]
        for c, x, ok in zip(SETS, w, allowed, strict=True):
            if ok:
                q = (1 - lapse) * x / sum(w) + lapse / sum(allowed)
                go([i for i in left if i not in c], ranks | dict.fromkeys(c, max(ranks.values(), default=0) + 1), p * q)

    go(list(range(len(s))), {}, 1.0)
    return out


@pytest.mark.parametrize("ties", [(), (0.4,), (0.4, -0.2)])
def test_rankings_with_ties_follow_davidson_luce(ties: tuple[float, ...]) -> None:
    settings = FLAT | {"position": 0.8, "lapse": 0.1, "n_responses": 3, "kinds": ("ranking",), "rank_ties": ties}
    seen = Counter(tuple(r) for r in simulate(**settings, seed=5).feedback.judgments["ranks"].to_list())
    expected = _every_ranking([0.8, 0.0, 0.0], ties, 0.1)
    assert sum(expected.values()) == pytest.approx(1)
    assert set(seen) <= set(expected)
    assert len(expected) == {0: 6, 1: 12, 2: 13}[len(ties)]
    assert stats.chisquare([seen[k] for k in expected], np.array(list(expected.values())) * 6000).pvalue > 1e-5
    wrong = _every_ranking([0.8, 0.0, 0.0], tuple(d - 1 for d in ties), 0.1) if ties else _every_ranking([0.0] * 3, ties, 0.1)
    assert stats.chisquare([seen[k] for k in expected], np.array([wrong[k] for k in expected]) * 6000).pvalue < 1e-5


def test_the_worst_is_the_least_likely_to_be_best() -> None:
    settings = FLAT | {"position": 0.8, "lapse": 0.1, "n_responses": 3, "kinds": ("choice",)}
    frame = simulate(**settings, worst=True, seed=6).feedback.judgments
    seen = Counter(zip(frame["best"].to_list(), frame["worst"].to_list(), strict=True))
    s = [0.8, 0.0, 0.0]
    expected = {}
    for best, worst in itertools.permutations(range(3), 2):
        rest = [i for i in range(3) if i != best]
        first = 0.9 * math.exp(s[best]) / sum(map(math.exp, s)) + 0.1 / 3
        expected[best, worst] = first * (0.9 * math.exp(-s[worst]) / sum(math.exp(-s[i]) for i in rest) + 0.1 / 2)
    assert stats.chisquare([seen[k] for k in expected], np.array(list(expected.values())) * 6000).pvalue > 1e-5
    assert stats.chisquare([seen[k] for k in expected], np.full(6, 1000)).pvalue < 1e-5
    assert simulate(**settings, seed=6).feedback.judgments["worst"].null_count() == 6000


def test_labels_are_seen_through_confusion_matrices() -> None:
    planted = Labels(names=("low", "middle", "high"), accuracy=0.8, rater_sd=0.6)
    society = simulate(kinds=("label",), labels=planted, n_judgments=20_000, n_raters=200, careless=0.2, opposed=0.1, lapse=0.0, seed=7)
    t, frame = society.truth, society.feedback.judgments
    given = frame["label"].replace_strict(planted.names, [0, 1, 2], return_dtype=pl.Int64).to_numpy()
    rater, item = frame["rater"].to_numpy(), frame["responses"].list.first().to_numpy()
    true = t.label_class[item]
    for kind, expected in (("careful", 0.0), ("careless", 1 / 3)):
        rows = t.rater_kind[rater] == kind
        for c in range(3):
            hit = given[rows] == c
            p = t.confusion[rater, true, c][rows]
            assert abs((hit - p).sum()) < 4.5 * math.sqrt((p * (1 - p)).sum())
        assert _mean_within((given == true)[rows] * 1.0, expected) == (kind == "careless")
    opposed = t.rater_kind[rater] == "opposed"
    assert (given == 2 - true)[opposed].mean() > 0.6
    careful = t.confusion[t.rater_kind == "careful"]
    right = np.log(careful[:, range(3), range(3)] / (1 - careful[:, range(3), range(3)])).ravel()
    assert _mean_within(right, math.log(4))
    assert right.std() == pytest.approx(0.6, abs=4.5 * 0.6 / math.sqrt(2 * len(right)))
    assert np.bincount(t.label_class).max() - np.bincount(t.label_class).min() <= 2
    assert [t.value[t.label_class == c].mean() for c in range(3)] == sorted(t.value[t.label_class == c].mean() for c in range(3))


# ---------------------------------------------------------------------------------------------- time and privacy


@pytest.mark.parametrize("who", ["careless", "groups"])
def test_who_answers_changes_over_time_while_values_stay(who: str) -> None:
    """Times of sessions of the two kinds have density exp(k (t - 1/2)): mean 1 / (1 - exp(-k)) - 1 / k, 1/2 where k is 0."""
    settings = {"n_raters": 400, "n_judgments": 10_000, "n_prompts": 100, "careless": 0.4, "opposed": 0.0, "tie": None}
    for k in (3.0, 0.0):
        drift = Drift(months=10, **{who: k})
        society = simulate(**settings, drift=drift, seed=8)
        t, frame = society.truth, society.feedback.judgments
        assert not t.drift.any()
        start = frame.group_by("session").agg(pl.col("time").min(), pl.col("rater").first())
        at = (start["time"] - start["time"].dt.truncate("1y")).dt.total_seconds().to_numpy() / 86400
        at = (at - 4.375) / 300  # the first session is on the fifth of January, at nine
        rater = start["rater"].to_numpy()
        late = t.rater_kind[rater] == "careless" if who == "careless" else t.group[rater] == 1
        for rows, slope in ((late, k if who == "careless" else k / 2), (~late, 0.0 if who == "careless" else -k / 2)):
            assert _mean_within(at[rows], 1 / (1 - math.exp(-slope)) - 1 / slope if slope else 0.5)
        assert _mean_within(at[late], 0.5) == (k == 0)


def test_values_walk() -> None:
    """Sums of squared steps grow with the months; without drift all judgments fall within days."""
    society = simulate(drift=Drift(months=12, value_sd=0.2), n_judgments=3000, seed=9)
    t = society.truth
    assert t.drift.shape == (society.feedback.n_responses, 12)
    np.testing.assert_allclose(t.drift.std(0)[1:], 0.2 * np.sqrt(np.arange(1, 12)), rtol=0.15)
    assert np.bincount(t.month, minlength=12).min() > 100
    plain = simulate(n_judgments=3000, seed=9).feedback.judgments["time"]
    assert (plain.max() - plain.min()).days < 10


@pytest.mark.parametrize("kind", KINDS)
def test_privacy_is_randomised_response(kind: str) -> None:
    """The record agrees with the true answer with odds exp(epsilon) against each other one; answers without it are the same draw."""
    epsilon, n = 1.5, 4000
    usual = {"kinds": (kind,), "n_judgments": n, "n_responses": 3, "seed": 10, "worst": kind == "choice"}
    settings = usual | ({"rank_ties": (0.0,)} if kind == "ranking" else {})
    private, plain = simulate(**settings, privacy=epsilon), simulate(**settings)
    C = {"pair": 3, "choice": 6, "ranking": 12, "rating": 5, "thumbs": 2, "label": 3}[kind]
    fields = ("outcome", "best", "worst", "ranks", "rating", "thumb", "label")
    rows = [society.feedback.judgments.select(fields).rows() for society in (private, plain)]
    same = np.array([str(a) == str(b) for a, b in zip(*rows, strict=True)])
    agree = math.exp(epsilon) / (math.exp(epsilon) + C - 1)
    assert _mean_within(same * 1.0, agree)
    assert not _mean_within(same * 1.0, 1.0)
    assert same[~private.truth.randomised].all()
    assert _within(private.truth.randomised.mean(), math.sqrt(0.25 / n), C / (math.exp(epsilon) + C - 1))
    others = Counter(str(b) for a, b in zip(*rows[::-1], strict=True) if str(a) != str(b))
    assert len(others) == C, "every answer is given in place of another"
    assert set(private.feedback.judgments["privacy"]) == {"randomised_response(epsilon=1.5)"}
    assert plain.feedback.judgments["privacy"].null_count() == n
    np.testing.assert_array_equal(private.truth.probabilities, plain.truth.probabilities)


def test_without_any_privacy_loss_the_record_says_nothing() -> None:
    society = simulate(privacy=0.0, n_judgments=6000, seed=11)
    assert society.truth.randomised.all()
    counts = society.feedback.judgments["outcome"].value_counts()["count"].to_list()
    assert stats.chisquare(counts).pvalue > 1e-5


@pytest.mark.parametrize("name", ["everything", "strength without ties", "ties of three", "best and worst", "labels", "both bad"])
def test_reversed_answers_are_mirrored(name: str) -> None:
    settings = {"n_judgments": 900, "n_prompts": 40, "seed": 12} | LAWS[name] | {"privacy": None, "reversed_labels": 0.0}
    plain, turned = simulate(**settings), simulate(**(settings | {"reversed_labels": 1.0}))
    swap = {"left": "right", "right": "left"}
    for a, b in zip(plain.feedback.judgments.iter_rows(named=True), turned.feedback.judgments.iter_rows(named=True), strict=True):
        assert swap.get(a["outcome"], a["outcome"]) == b["outcome"]
        assert a["strength"] == b["strength"]
        if a["worst"] is not None:
            assert (a["best"], a["worst"]) == (b["worst"], b["best"])
        elif a["best"] is not None:
            assert b["best"] == (a["best"] + 1) % len(a["responses"])
        if a["ranks"] is not None:
            assert b["ranks"] == [max(a["ranks"]) + 1 - r for r in a["ranks"]]
        if a["label"] is not None:
            assert a["label"] != b["label"]
        assert a["rating"] is None or a["rating"] + b["rating"] == 6
    answered = ~turned.feedback.judgments["outcome"].is_in(["cannot_tell", "skipped"]).to_numpy()
    np.testing.assert_array_equal(turned.truth.reversed, answered)


# ---------------------------------------------------------------------------------------------- together


def _runs(settings: dict[str, Any], *, text: bool) -> None:
    about_text = () if text else ("leak", "length_sd")
    kept = {name: value for name, value in settings.items() if name not in about_text}
    society = simulate(text=text, n_prompts=25, n_raters=12, n_judgments=240, **kept)
    feedback, t = society.feedback, society.truth
    assert len(feedback) == 240
    np.testing.assert_allclose(t.probabilities.sum(1), 1)
    assert feedback.judgments["time"].is_sorted()
    for name, size in (
        ("missing", 240),
        ("slots", 240),
        ("scale", 240),
        ("axis_values", feedback.n_responses),
        ("taste", feedback.n_raters),
    ):
        assert len(getattr(t, name)) == size
    assert all(np.isfinite(getattr(t, name)).all() for name in ("value", "scale", "shift", "lapse_by_judgment", "drift", "gap", "missing"))


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("name", EVERYTHING)
def test_each_alone(name: str, text: bool) -> None:
    if text or name not in ("leak", "length_sd"):
        _runs({name: EVERYTHING[name], "kinds": _needs(name), "seed": 1}, text=text)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_some_together(seed: int, text: bool) -> None:
    """Half of the defects, drawn at random, with all kinds."""
    rng = np.random.default_rng(seed)
    picked = [name for name in EVERYTHING if rng.random() < 0.5]
    _runs({name: EVERYTHING[name] for name in picked} | {"kinds": KINDS, "seed": seed}, text=text)


@pytest.mark.parametrize("text", [True, False])
def test_all_together(text: bool, tmp_path: Path) -> None:
    _runs(EVERYTHING | {"kinds": KINDS, "seed": 2}, text=text)
    if text:
        feedback = simulate(n_prompts=25, n_judgments=600, kinds=KINDS, **EVERYTHING).feedback
        feedback.to_parquet(tmp_path / "data")
        assert Feedback.from_parquet(tmp_path / "data").fingerprint == feedback.fingerprint
        feedback.to_jsonl(tmp_path / "data.jsonl")
        assert load(tmp_path / "data.jsonl").fingerprint == feedback.fingerprint


def test_planting_one_changes_nothing_else() -> None:
    """Values, raters and questions are those of the plain society, whatever is planted."""
    few = {"n_judgments": 500, "n_prompts": 40, "seed": 13}
    plain = simulate(**few)
    for name, value in EVERYTHING.items():
        if name in ("leak", "drift") or _needs(name) not in (KINDS, ("pair",)):
            continue
        planted = simulate(**few, **{name: value})
        for field in ("value_by_group", "slope", "leniency", "group", "length"):
            np.testing.assert_array_equal(getattr(plain.truth, field), getattr(planted.truth, field), err_msg=name)
        for column in ("responses", "rater", "seconds", "time"):
            assert plain.feedback.judgments[column].to_list() == planted.feedback.judgments[column].to_list(), name


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("fatigue", lambda: simulate(fatigue=math.nan)),
        ("position_sd", lambda: simulate(position_sd=-1.0)),
        ("haste", lambda: simulate(haste=1.0, lapse=0.0)),
        ("teams", lambda: simulate(teams=(0.0,) * 100)),
        ("teams", lambda: simulate(teams=0.3)),  # type: ignore[arg-type]
        ("uis", lambda: simulate(uis=((0.0,),))),  # type: ignore[arg-type]
        ("uis", lambda: simulate(uis=(0.3,))),  # type: ignore[arg-type]
        ("sources", lambda: simulate(sources=(0.0, math.inf))),
        ("strength", lambda: simulate(strength=(1.0, 0.5))),
        ("strength", lambda: simulate(strength=(0.5,), kinds=("rating",))),
        ("rank_ties", lambda: simulate(rank_ties=(0.0,))),
        ("rank_ties", lambda: simulate(rank_ties=(0.0, 0.0, 0.0), kinds=("ranking",))),
        ("bad", lambda: simulate(bad=0.0, kinds=("rating",))),
        ("worst", lambda: simulate(worst=True)),
        ("labels", lambda: simulate(labels=Labels())),
        ("missing", lambda: simulate(missing=0.3)),  # type: ignore[arg-type]
        ("privacy", lambda: simulate(privacy=-1.0)),
        ("length_sd", lambda: simulate(length_sd=1.0, text=False)),
        ("missing.cannot_tell", lambda: Missing(cannot_tell=None)),
        ("missing.rater_sd", lambda: Missing(rater_sd=-1.0)),
        ("confidence.overconfident", lambda: Confidence(overconfident=2.0)),
        ("axes.names", lambda: Axes(names=("a", "a"))),
        ("axes.names", lambda: Axes(names="ab")),  # type: ignore[arg-type]
        ("contexts.names", lambda: Contexts(names=("a",))),
        ("personas.shares", lambda: Personas(shares=(0.5, 0.0))),
        ("personas.shares", lambda: Personas(shares=(1.0,))),
        ("tastes.k", lambda: Tastes(k=0)),
        ("drift.months", lambda: Drift(months=0)),
        ("drift.value_sd", lambda: Drift(value_sd=math.inf)),
        ("labels.accuracy", lambda: Labels(accuracy=1.0)),
        ("style.effect", lambda: Style(effect=(0.1, 0.2))),
        ("style.rater_sd", lambda: Style(rater_sd=-0.1)),
        ("style.correlation", lambda: Style(correlation=1.5)),
    ],
)
def test_settings_that_cannot_be_used(name: str, make: Callable[[], object]) -> None:
    with pytest.raises(InvalidSetting, match=rf"^{name} is .*\. \w"):
        make()


def test_settings_are_read_as_written() -> None:
    texts = [
        "fatigue=0.4",
        "sources=0,0.5",
        "uis=[0,0],[-0.3,0.4]",
        "kinds=pair,rating",
        "missing.rater_sd=0.5",
        "personas=yes",
        "tie=none",
    ]
    texts += ["group_shares=0.7,0.3", "axes.names=kind,true", "worst=true", "groups=3", "privacy=1"]
    read = read_settings(texts)
    assert read == {
        "fatigue": 0.4, "sources": (0, 0.5), "uis": ((0, 0), (-0.3, 0.4)), "kinds": ("pair", "rating"), "tie": None, "worst": True,
        "groups": 3, "group_shares": (0.7, 0.3), "privacy": 1, "missing": Missing(rater_sd=0.5), "personas": Personas(), "axes": Axes(names=("kind", "true")),
    }  # fmt: skip
    assert read_settings([]) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fatige=0.4", "the nearest is fatigue"),
        ("drift.month=3", "the nearest is drift.months"),
        ("fatigue", "NAME=VALUE"),
        ("fatigue=", "NAME=VALUE"),
        ("fatigue=high", "Write a number"),
        ("fatigue=true", "Write a number"),
        ("worst=1", "true or false"),
        ("groups=2.5", "whole number"),
        ("drift=6", "drift=yes"),
    ],
)
def test_settings_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        read_settings([text])


def test_every_setting_is_listed() -> None:
    listed = dict(table_of_settings())
    assert listed["fatigue"] == "0.0"
    assert listed["drift.months"] == "12 where drift is planted"
    assert "drift" not in listed
    assert {
        name
        for name in EVERYTHING
        if name not in ("labels", "missing", "confidence", "axes", "contexts", "personas", "tastes", "drift", "style")
    } <= set(listed)
