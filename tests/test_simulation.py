"""The simulated societies obey the law they state; each generator is tested for its own spread.

Where chance decides, the seed is fixed, and the stated rate is how often a correct generator would fail over seeds.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from seamark.errors import InvalidSetting
from seamark.models.features import HashEncoder
from seamark.simulation import RATING_CUTS, Society, demo_society, simulate

KINDS = ("pair", "choice", "ranking", "rating", "thumbs")


@pytest.fixture(scope="module")
def society() -> Society:
    return simulate(seed=1)


@pytest.fixture(scope="module")
def mixed() -> Society:
    return simulate(kinds=KINDS, n_judgments=10_000, n_raters=100, seed=2)


def _answer_index(row: dict[str, object]) -> int:
    """Column of `Truth.probabilities` of the answer that was given."""
    match row["kind"]:
        case "pair":
            return ("left", "right", "tie").index(str(row["outcome"]))
        case "choice":
            return int(row["best"])  # type: ignore[call-overload]
        case "ranking":
            return row["ranks"].index(1)  # type: ignore[attr-defined]
        case "rating":
            return int(row["rating"]) - 1  # type: ignore[call-overload]
        case _:
            return 0 if row["thumb"] else 1


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _by_hand(society: Society, row: dict[str, object]) -> list[float]:
    """The probabilities of the module's docstring, from `Truth` and the record alone."""
    t = society.truth
    r = int(row["rater"])  # type: ignore[call-overload]
    g = t.group[r]
    shown = list(row["responses"])  # type: ignore[call-overload]
    u = [t.value_by_group[i, g] + t.length_effect * t.length[i] for i in shown]
    s = [t.slope[r] * x + (t.position if k == 0 else 0.0) for k, x in enumerate(u)]
    if row["kind"] == "pair":
        gap = s[0] - s[1]
        w = [math.exp(gap / 2), math.exp(-gap / 2)] + ([math.exp(t.log_tie)] if t.log_tie is not None else [])
        p = [x / sum(w) for x in w]
    elif row["kind"] in ("choice", "ranking"):
        w = [math.exp(x) for x in s]
        p = [x / sum(w) for x in w]
    elif row["kind"] == "rating":
        below = [_sigmoid(c - t.slope[r] * u[0] - t.leniency[r]) for c in RATING_CUTS]
        p = [b - a for a, b in zip([0.0, *below], [*below, 1.0], strict=True)]
    else:
        up = _sigmoid(t.slope[r] * u[0] + t.leniency[r])
        p = [up, 1 - up]
    return [(1 - t.lapse) * x + t.lapse / len(p) for x in p]


@pytest.mark.parametrize("tie", [-1.0, None])
def test_stated_probabilities_follow_the_formulas(tie: float | None) -> None:
    society = simulate(kinds=KINDS, n_judgments=600, n_prompts=40, groups=3, tie=tie, seed=3)
    for row, stated in zip(society.feedback.judgments.iter_rows(named=True), society.truth.probabilities, strict=True):
        by_hand = _by_hand(society, row)
        np.testing.assert_allclose(stated, by_hand + [0.0] * (5 - len(by_hand)), atol=1e-12)


def _pearson(p: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """P value of observed against expected counts in bins of the stated probability; the variance is sum p (1 - p)."""
    bin_of = np.argsort(np.argsort(p, kind="stable")) * bins // len(p)
    excess = np.bincount(bin_of, hit - p)
    return float(stats.chi2.sf((excess**2 / np.bincount(bin_of, p * (1 - p))).sum(), bins))


def test_answers_follow_the_stated_probabilities(mixed: Society) -> None:
    """15 chi-square tests, one per kind and option (2 options per kind of several slots); false-alarm rate 15e-4 in all."""
    frame = mixed.feedback.judgments
    answer = np.array([_answer_index(row) for row in frame.iter_rows(named=True)])
    kind = frame["kind"].to_numpy()
    for name, options in zip(KINDS, (3, 4, 4, 5, 2), strict=True):
        rows = kind == name
        assert rows.sum() == 2000
        for option in range(options):
            p = mixed.truth.probabilities[rows, option]
            assert p.std() > 0.01, "the stated probabilities must differ, or the test sees nothing"
            assert _pearson(p, answer[rows] == option) > 1e-4


def test_later_ranks_follow_the_stages_of_plackett_luce() -> None:
    """With equal utilities, position alone decides: P(second | first) by hand; chi-square, false-alarm rate 1e-4."""
    society = simulate(
        kinds=("ranking",), spread=0, disagreement=0, length=0, careless=0, opposed=0, lapse=0.1, position=1.0, n_responses=3, seed=4
    )
    ranks = society.feedback.judgments["ranks"].to_list()
    w = np.array([math.e, 1.0, 1.0])
    expected = {}
    for a in range(3):
        for b in range(3):
            if a != b:
                rest = w.sum() - w[a]
                expected[a, b] = (0.9 * w[a] / w.sum() + 0.1 / 3) * (0.9 * w[b] / rest + 0.1 / 2)
    seen = Counter((r.index(1), r.index(2)) for r in ranks)
    assert sum(expected.values()) == pytest.approx(1)
    observed = [seen[key] for key in expected]
    assert stats.chisquare(observed, np.array(list(expected.values())) * len(ranks)).pvalue > 1e-4


def test_a_wrong_law_is_caught(society: Society) -> None:
    """The chi-square test has power: without the position effect, or with other slopes, it fails."""
    frame = society.feedback.judgments
    left = (frame["outcome"] == "left").to_numpy()
    p = society.truth.probabilities[:, 0]
    assert _pearson(p, left) > 1e-4
    assert _pearson(p * 0.9, left) < 1e-4
    assert _pearson(society.truth.probabilities[:, 1], left) < 1e-4


def test_values_have_the_spread_asked_for() -> None:
    society = simulate(n_prompts=300, spread=1.5, disagreement=0.8, n_judgments=9000, seed=5)
    truth = society.truth
    mean = truth.value_by_group.mean(1)
    assert mean.std() == pytest.approx(1.5, abs=0.1)  # standardised over written responses; hidden part adds sampling noise
    assert np.sqrt(np.mean((truth.value_by_group - mean[:, None]) ** 2)) == pytest.approx(0.8, abs=0.02)
    assert truth.length.std() == pytest.approx(1, abs=0.02)
    assert truth.length_effect == 0.4
    np.testing.assert_allclose(truth.utility_by_group - truth.value_by_group, 0.4 * truth.length[:, None].repeat(2, 1))


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_groups_disagree_as_much_as_asked(groups: int) -> None:
    truth = simulate(groups=groups, disagreement=0.6, n_prompts=100, n_judgments=1000, seed=6).truth
    gap = truth.value_by_group - truth.value_by_group.mean(1, keepdims=True)
    assert np.sqrt(np.mean(gap**2)) == pytest.approx(0.6 if groups > 1 else 0, abs=0.06)


def test_lengths_do_not_go_with_values_unless_asked() -> None:
    """800 responses: the correlation of independent columns has sd 0.035; at 4 sd the false-alarm rate is 6e-5."""
    free = simulate(n_judgments=4000, seed=7).truth
    assert abs(np.corrcoef(free.value, free.length)[0, 1]) < 0.14
    asked = simulate(n_judgments=2000, length_value_correlation=0.7, seed=7).truth
    assert np.corrcoef(asked.value, asked.length)[0, 1] > 0.3


def test_rater_kinds_groups_and_slopes() -> None:
    truth = simulate(n_raters=400, careless=0.2, opposed=0.1, group_shares=(0.7, 0.3), n_judgments=4000, seed=8).truth
    assert Counter(truth.rater_kind.tolist()) == {"careful": 280, "careless": 80, "opposed": 40}
    np.testing.assert_allclose(truth.group_shares, [0.7, 0.3])
    assert (truth.slope[truth.rater_kind == "careless"] == 0).all()
    assert (truth.slope[truth.rater_kind == "opposed"] < 0).all()
    log_slope = np.log(truth.slope[truth.rater_kind == "careful"])
    assert log_slope.mean() == pytest.approx(0, abs=4 * 0.25 / math.sqrt(280))
    assert log_slope.std() == pytest.approx(0.25, abs=4 * 0.25 / math.sqrt(2 * 280))
    assert truth.leniency.std() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * 400))
    np.testing.assert_allclose(truth.value, truth.value_by_group @ truth.group_shares)


def test_shapes_and_fields(mixed: Society) -> None:
    feedback, truth = mixed.feedback, mixed.truth
    assert truth.value.shape == truth.length.shape == (feedback.n_responses,)
    assert truth.value_by_group.shape == (feedback.n_responses, 2)
    assert truth.slope.shape == truth.rater_kind.shape == truth.group.shape == (feedback.n_raters,)
    assert truth.probabilities.shape == (len(feedback), 5)
    np.testing.assert_allclose(truth.probabilities.sum(1), 1)
    frame = feedback.judgments
    assert frame["order_known"].all()
    assert frame["axis"].null_count() == len(frame)
    assert frame["time"].is_sorted()
    assert not truth.reversed.any()
    groups = np.array(truth.group_names)[truth.group[frame["rater"].to_numpy()]]
    assert (frame["group"].to_numpy() == groups).all()
    per_rater = np.bincount(frame["rater"].to_numpy())
    assert per_rater.min() == per_rater.max() == 100
    shown = frame["responses"].list
    assert (shown.len() == shown.unique().list.len()).all()
    prompt_of = feedback.responses["prompt"].to_numpy()
    assert all((prompt_of[row["responses"]] == row["prompt"]).all() for row in frame.head(500).iter_rows(named=True))


def test_the_order_shown_is_random(society: Society) -> None:
    """Left has no better value than right: 6,000 gaps, mean within 4 standard errors (false-alarm rate 6e-5)."""
    pairs = society.feedback.pairs()
    gap = society.truth.value[pairs["left"].to_numpy()] - society.truth.value[pairs["right"].to_numpy()]
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))


def test_texts_are_distinct_and_vary_in_length(society: Society) -> None:
    texts = society.feedback.responses["text"].to_list()
    assert len(set(texts)) == len(texts) == 800
    lengths = np.array([len(t) for t in texts])
    assert lengths.min() > 150
    assert lengths.max() < 1500
    assert 0.2 < np.log(lengths).std() < 0.6
    assert society.feedback.prompts["text"].n_unique() == 200


def test_text_shows_the_value_of_responses_to_other_prompts(society: Society) -> None:
    """Ridge on hashed n-grams learns the value on half of the prompts and explains over 60% of its variance on the rest.

    90% of the variance shows in the text (`unexplained`). Length alone explains nothing.
    """
    feedback, truth = society.feedback, society.truth
    texts = feedback.responses["text"].to_list()
    train = feedback.responses["prompt"].to_numpy() % 2 == 0
    x = HashEncoder.fit([t for t, keep in zip(texts, train, strict=True) if keep]).encode(texts).astype(np.float64)
    x -= x[train].mean(0)
    y = truth.value - truth.value[train].mean()
    w = np.linalg.solve(x[train].T @ x[train] + 0.1 * np.eye(x.shape[1]), x[train].T @ y[train])
    assert 1 - np.var(y[~train] - x[~train] @ w) / np.var(y[~train]) > 0.6
    taste = truth.value_by_group[:, 0] - truth.value_by_group[:, 1]
    w = np.linalg.solve(x[train].T @ x[train] + 0.1 * np.eye(x.shape[1]), x[train].T @ taste[train])
    assert np.corrcoef(taste[~train], x[~train] @ w)[0, 1] > 0.8


def test_careless_raters_are_faster_and_sessions_run_in_time(society: Society) -> None:
    frame = society.feedback.judgments
    kind = society.truth.rater_kind[frame["rater"].to_numpy()]
    seconds = frame["seconds"].to_numpy()
    assert np.median(seconds[kind == "careless"]) < 5 < 15 < np.median(seconds[kind == "careful"])
    for _, session in frame.group_by("session"):
        assert len(session) <= 25
        assert session["position"].to_list() == list(range(len(session)))
        assert session["rater"].n_unique() == 1
        gaps = session["time"].diff().dt.total_milliseconds().drop_nulls().to_numpy() / 1000
        np.testing.assert_allclose(gaps, session["seconds"].to_numpy()[1:], atol=0.06)


def test_the_same_seed_gives_the_same_society() -> None:
    one, two, other = (simulate(n_prompts=50, n_judgments=500, seed=s) for s in (9, 9, 10))
    assert one.feedback.fingerprint == two.feedback.fingerprint != other.feedback.fingerprint
    np.testing.assert_array_equal(one.truth.probabilities, two.truth.probabilities)


def test_records_survive_a_round_trip(mixed: Society, tmp_path) -> None:
    from seamark.records import Feedback

    mixed.feedback.to_parquet(tmp_path / "data")
    assert Feedback.from_parquet(tmp_path / "data").fingerprint == mixed.feedback.fingerprint


def test_leaderboard() -> None:
    society = simulate(text=False, n_responses=12, n_prompts=30, n_judgments=3000, seed=11)
    feedback = society.feedback
    assert feedback.n_responses == 12
    assert feedback.responses["text"].null_count() == 12
    assert feedback.n_prompts == 30
    assert society.truth.length_effect == 0
    assert society.truth.value_by_group.mean(1).std() == pytest.approx(1.2, abs=0.6)


def test_cut_leaderboard() -> None:
    for kinds in (("pair",), ("choice", "ranking")):
        society = simulate(text=False, n_responses=9, n_components=3, n_judgments=2000, kinds=kinds, seed=12)
        names = society.feedback.responses["name"].to_list()
        part = np.array([int(name[-3:]) % 3 for name in names])
        shown = [part[row] for row in society.feedback.judgments["responses"].to_list()]
        assert all((p == p[0]).all() for p in shown)
        assert len({int(p[0]) for p in shown}) == 3
        np.testing.assert_allclose(society.truth.probabilities.sum(1), 1)


def test_reversed_labels() -> None:
    plain, turned = simulate(n_judgments=500, seed=13), simulate(n_judgments=500, reversed_labels=1.0, seed=13)
    swap = {"left": "right", "right": "left", "tie": "tie"}
    assert [swap[o] for o in plain.feedback.judgments["outcome"]] == turned.feedback.judgments["outcome"].to_list()
    assert turned.truth.reversed.all()
    some = simulate(reversed_labels=0.2, kinds=KINDS, seed=13)
    assert some.truth.reversed.mean() == pytest.approx(0.2, abs=0.02)
    frame = some.feedback.judgments
    kind, p = frame["kind"].to_numpy(), some.truth.probabilities
    answer = np.array([_answer_index(row) for row in frame.iter_rows(named=True)])
    rows = (kind == "rating") & some.truth.reversed
    assert _pearson(p[rows][:, ::-1][:, 0], answer[rows] == 0, bins=5) > 1e-4


def test_leak() -> None:
    feedback = simulate(leak=0.2, n_prompts=100, seed=14).feedback
    prompts = feedback.prompts["text"].to_list()
    copies = [p for p in prompts if any(p != q and p.endswith(q) for q in prompts)]
    assert len(copies) == 20
    assert feedback.responses["text"].n_unique() == 320
    assert feedback.n_responses == 400


def test_copies_have_the_value_of_their_origin() -> None:
    society = simulate(leak=0.3, n_prompts=50, seed=15)
    values: dict[str, set[float]] = {}
    for text, value in zip(society.feedback.responses["text"], society.truth.value, strict=True):
        values.setdefault(text, set()).add(round(float(value), 9))
    assert all(len(v) == 1 for v in values.values())


def test_ties_can_be_ruled_out() -> None:
    society = simulate(tie=None, n_judgments=1000, seed=16)
    assert set(society.feedback.judgments["outcome"]) == {"left", "right"}
    assert not society.truth.probabilities[:, 2].any()


def test_demo() -> None:
    society = demo_society(seed=0)
    assert repr(society.feedback) == "Feedback(8,000 judgments, 1,200 responses, 300 prompts, 80 raters)"
    assert "4 opposed, 2 groups, seed 0" in repr(society)
    assert (society.feedback.judgments["outcome"] == "tie").mean() == pytest.approx(0.14, abs=0.05)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("n_raters", {"n_raters": 0}),
        ("careless", {"careless": 1.5}),
        ("careless", {"careless": 0.7, "opposed": 0.7}),
        ("spread", {"spread": -1.0}),
        ("kinds", {"kinds": ("pairs",)}),
        ("kinds", {"kinds": "pair"}),
        ("n_responses", {"n_responses": 1}),
        ("n_components", {"n_components": 2}),
        ("n_components", {"n_components": 3, "text": False, "n_responses": 4}),
        ("group_shares", {"group_shares": (1.0,)}),
        ("length_value_correlation", {"length_value_correlation": 2.0}),
        ("leak", {"leak": 0.1, "text": False}),
        ("n_prompts", {"n_prompts": 10_000}),
    ],
)
def test_settings_that_cannot_be_used(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match=f"^{name} is"):
        simulate(**settings)  # type: ignore[arg-type]


def test_the_law_is_the_one_the_library_fits(mixed: Society) -> None:
    """`seamark.models.observation` gives every answer the probability that `Truth` states (first choice, for rankings)."""
    import torch

    from seamark.models.observation import Choice, Davidson, Rating, Thumbs, lapsed, log_probs

    truth, frame = mixed.truth, mixed.feedback.judgments
    families = {
        "pair": (Davidson(), [truth.log_tie]),
        "choice": (Choice(m=4), []),
        "ranking": (Choice(m=4), []),
        "rating": (Rating(edges=(1, 2, 3, 4)), [RATING_CUTS[0], *np.log(np.diff(RATING_CUTS))]),
        "thumbs": (Thumbs(), [0.0]),
    }
    odds = torch.tensor(math.log(truth.lapse / (1 - truth.lapse)), dtype=torch.float64)
    for kind, (family, theta) in families.items():
        rows = np.flatnonzero(frame["kind"].to_numpy() == kind)
        shown = np.array([frame["responses"][int(j)].to_list() for j in rows])
        rater = frame["rater"].to_numpy()[rows]
        slots = truth.slope[rater][:, None] * truth.utility_by_group[shown, truth.group[rater][:, None]]
        if kind in ("rating", "thumbs"):
            slots[:, 0] += truth.leniency[rater]
        else:
            slots[:, 0] += truth.position
        contrast = torch.from_numpy(slots @ family.contrast(shown.shape[1]).T)
        every = log_probs(family, contrast, torch.tensor(theta, dtype=torch.float64))
        stated = lapsed(every, family.n_outcomes, odds).exp().numpy()
        np.testing.assert_allclose(truth.probabilities[rows, : stated.shape[1]], stated, atol=1e-10)
