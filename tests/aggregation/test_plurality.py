"""Who is shown what, what it is worth to whom, and the value-bubble meter: against plain loops, on planted groups and planted bubbles."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seamark import intervals
from seamark.aggregation import Charter, Effects, Electorate
from seamark.aggregation.plurality import (
    Views,
    bubbles,
    charters_for,
    rank_biased_overlap,
    serve_maximin,
    serve_one,
    serve_own,
    views_of,
    views_of_fit,
    worth,
)
from seamark.errors import InvalidSetting
from seamark.models import Fit, Groups, Observation, Same, Tabular, fit
from seamark.records import Feedback
from seamark.simulation import Society, simulate

Array = NDArray[np.float64]
PLAIN = Observation(effects=(), lapse=False)
CAREFUL: dict[str, Any] = {
    "careless": 0.0, "opposed": 0.0, "position": 0.0, "length": 0.0, "lapse": 0.0, "tie": None, "spread": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    society = simulate(n_prompts=25, n_raters=30, n_judgments=3000, group_shares=(0.6, 0.4), disagreement=1.2, **CAREFUL, seed=5)
    return society, fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)


def _random_views(seed: int, *, prompts: int = 7, entries: int = 3, options: int = 5) -> Views:
    """Some prompts have fewer options; shares differ."""
    rng = np.random.default_rng(seed)
    n = rng.integers(2, options + 1, prompts)
    code = np.where(np.arange(options) < n[:, None], np.arange(prompts * options).reshape(prompts, options), -1)
    values = np.where((code >= 0)[:, None], rng.normal(size=(prompts, entries, options)), np.nan)
    share = rng.dirichlet(np.ones(entries))
    return Views(tuple("abcdefg"[:entries]), share, values - np.nanmean(values, 2, keepdims=True), code)


# ------------------------------------------------------------------------------------ views


def test_views_are_utilities_prompt_by_prompt():
    """Prompts of one known response, and responses that one entry cannot place, are no options."""
    feedback = Feedback.from_columns(
        {
            "kind": ["choice"] * 3, "prompt": ["p", "q", "r"], "texts": [["a", "b", "c"], ["d", "e"], ["f", "g", "h"]],
            "best": [0, 0, 0], "outcome": ["answered"] * 3,
        }
    )  # fmt: skip
    texts = feedback.responses["text"].to_list()
    utility_of = {
        "a": (1.0, 5.0),
        "b": (2.0, 4.0),
        "c": (3.0, 0.0),
        "d": (1.0, 1.0),
        "e": (np.nan, 1.0),
        "f": (7.0, 1.0),
        "g": (0.0, np.nan),
        "h": (5.0, 2.0),
    }
    found = views_of(np.array([utility_of[t] for t in texts]), feedback, names=["x", "y"], share=np.array([3.0, 1.0]))
    assert [[texts[r] if r >= 0 else "" for r in row] for row in found.response] == [["a", "b", "c"], ["f", "h", ""]]
    assert np.abs(found.share - [0.75, 0.25]).max() < 1e-12
    assert np.abs(found.values[0] - [[-1, 0, 1], [2, 1, -3]]).max() < 1e-12
    assert np.array_equal(found.values[1], [[1, -1, np.nan], [-0.5, 0.5, np.nan]], equal_nan=True)
    with pytest.raises(InvalidSetting, match="8 responses by 1 entries"):
        views_of(np.zeros((8, 2)), feedback, names=["x"])
    with pytest.raises(InvalidSetting, match="No prompt has two"):
        views_of(np.full((8, 1), np.nan), feedback, names=["x"])


def test_views_of_a_fit_are_its_groups(divided: tuple[Society, Fit]):
    society, result = divided
    views = views_of_fit(result, society.feedback)
    assert views.names == result.groups
    left, right = views.response[:, 0], views.response[:, 1]
    by_group = result.gaps(society.feedback, left, right).by_group
    assert np.abs(views.values[:, :, 0] - views.values[:, :, 1] - by_group).max() < 1e-9
    assert views.values.shape == (25, 2, 4)


# ------------------------------------------------------------------------------------ who is shown what


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), entries=st.integers(1, 4))
def test_serving_against_plain_loops(seed: int, entries: int):
    views = _random_views(seed, entries=entries)
    own, one, least = serve_own(views), serve_one(views), serve_maximin(views)
    gains = worth(views, least)
    by_hand = np.zeros((len(views.values), entries))
    for q, prompt in enumerate(views.values):
        options = [m for m in range(5) if views.response[q, m] >= 0]
        for e in range(entries):
            assert own[q, e].argmax() == max(options, key=lambda m, e=e: prompt[e, m])
        assert one[q, 0].argmax() == max(options, key=lambda m: float(views.share @ prompt[:, m]))
        best = [max(prompt[e, m] for m in options) for e in range(entries)]
        fair = max(options, key=lambda m: min(prompt[e, m] - best[e] for e in range(entries)))
        assert least[q, 0].argmax() == fair
        by_hand[q] = prompt[:, fair]
    for shown in (own, one, least):
        assert np.abs(shown.sum(2) - 1).max() < 1e-12
        assert np.isin(shown, (0.0, 1.0)).all()
    assert np.abs([w.gain.estimate for w in gains] - by_hand.mean(0)).max() < 1e-12
    assert (
        np.abs([w.gain.estimate + w.regret.estimate - np.nanmax(views.values, 2)[:, e].mean() for e, w in enumerate(gains)]).max() < 1e-12
    )


def test_equal_favourites_are_shown_alike_often():
    views = Views(("a",), np.ones(1), np.array([[[1.0, 1.0, -2.0]]]), np.array([[0, 1, 2]]))
    assert np.abs(serve_own(views)[0, 0] - [0.5, 0.5, 0.0]).max() < 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), copied=st.integers(0, 3), times=st.integers(1, 4))
def test_clones_change_nothing_for_anybody(seed: int, copied: int, times: int):
    """N25: near-duplicates of a response, however many, leave everybody's regret where it was under every way of serving; a rule that
    counts gains from the mean of the options fails this, and so does Bradley-Terry."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, 3, 4))
    cloned = np.concatenate([values, np.repeat(values[:, :, copied : copied + 1], times, 2)], 2)

    def made(v: Array) -> Views:
        return Views(tuple("abc"), np.full(3, 1 / 3), v - v.mean(2, keepdims=True), np.arange(4 * v.shape[2]).reshape(4, -1))

    for serve in (serve_own, serve_one, serve_maximin):
        before, after = (worth(views, serve(views)) for views in (made(values), made(cloned)))
        assert np.abs([b.regret.estimate - a.regret.estimate for b, a in zip(before, after, strict=True)]).max() < 1e-9


def test_the_clone_test_can_fail():
    """Maximin of gains above the mean: copies of B's favourite raise what B counts from, and turn the choice to it."""

    def mean_maximin(values: Array) -> int:
        return int((values - values.mean(1, keepdims=True)).min(0).argmax())

    values = np.array([[1.0, 0.3, 0.0], [0.0, 0.6, 1.0]])
    cloned = np.concatenate([values, np.repeat(values[:, 2:], 6, 1)], 1)
    assert mean_maximin(values) == 1
    assert mean_maximin(cloned) == 2


def test_what_is_served_must_be_a_probability_of_options():
    views = _random_views(0)
    with pytest.raises(InvalidSetting, match="prompts, entries and options"):
        worth(views, np.ones((1, 1, 1)))
    shown = serve_own(views)
    with pytest.raises(InvalidSetting, match="sums to 1"):
        worth(views, shown * 0.9)
    absent = np.argwhere(views.response < 0)[0]
    shown[absent[0]] = 0.0
    shown[absent[0], :, absent[1]] = 1.0
    with pytest.raises(InvalidSetting, match="sums to 1"):
        bubbles(views, shown)


# ------------------------------------------------------------------------------------ planted groups


def _gains(seed: int, disagreement: float) -> dict[str, Array]:
    """(majority, minority) gain by the truth, of 40 raters and 4, under each way of serving that a fit to 3,000 judgments chooses."""
    society = simulate(n_prompts=20, n_raters=44, n_judgments=3000, group_shares=(10, 1), disagreement=disagreement, **CAREFUL, seed=seed)
    feedback, truth = society.feedback, society.truth
    people = views_of(truth.value_by_group, feedback, names=truth.group_names, share=truth.group_shares)
    pooled = fit(feedback, utility=Tabular(), people=Same(), observation=PLAIN).utilities(feedback)
    grouped = views_of_fit(fit(feedback, utility=Tabular(), people=Groups(), observation=PLAIN), feedback)
    single = views_of(np.stack([pooled, pooled], 1), feedback, names=truth.group_names)
    served = {
        "single": serve_one(single), "by share": serve_one(grouped), "maximin": serve_maximin(grouped), "own": serve_own(grouped),
    }  # fmt: skip
    return {how: np.array([w.gain.estimate for w in worth(people, shown)]) for how, shown in served.items()}


def test_signals_of_their_own_beat_the_single_reward_on_planted_groups_and_tie_on_one():
    """R104: 10 to 1, six seeds. Both groups are shown, with 95% intervals over seeds.

    The single reward, and the mixture by share, give the minority little; served their own both get more in the mean, the minority by
    far, the majority no less; maximin raises the minority at the majority's cost, which is shown. Where the two are of one mind nothing
    is gained and next to nothing lost.
    """
    planted, alike = ([_gains(seed, d) for seed in range(6)] for d in (1.2, 0.0))

    def difference(runs: list[dict[str, Array]], how: str) -> tuple[Any, Any]:
        off = np.array([run[how] - run["single"] for run in runs])
        return intervals.mean(off[:, 0]), intervals.mean(off[:, 1])

    for how in ("by share", "maximin", "own"):
        for name, runs in (("10:1", planted), ("one mind", alike)):
            print(name, how, "- single: majority {}, minority {}".format(*difference(runs, how)))
    majority, minority = difference(planted, "own")
    assert minority.low > 0.5
    assert majority.low > -0.05
    majority, minority = difference(planted, "maximin")
    assert minority.low > 0
    assert majority.high < 0
    _, minority = difference(planted, "by share")
    assert abs(minority.estimate) < 0.3, "a mixture by share serves the minority a tenth"
    for how in ("by share", "maximin", "own"):
        for figure in difference(alike, how):
            assert figure.low <= 0.02
            assert abs(figure.estimate) < 0.08
            assert figure.high - figure.low < 0.2, "an interval this wide would contain anything"


# ------------------------------------------------------------------------------------ bubbles


def _naive_bubbles(views: Views, shown: Array) -> dict[str, float]:
    """The meter with loops: entropies from joint tables, orders by comparing pairs of options, overlap by sets."""
    E = len(views.names)
    pairs = list(combinations(range(E), 2))
    met = np.array([views.share[e] * views.share[f] for e, f in pairs])
    rows: dict[str, list[float]] = {name: [] for name in ("separation", "same", "disliked", "exposure", "disagreement", "overlap")}
    for q in range(len(shown)):
        options = [m for m in range(views.values.shape[2]) if views.response[q, m] >= 0]
        joint = np.array([[views.share[e] * shown[q, e, m] for m in options] for e in range(E)])
        product = np.outer(joint.sum(1), joint.sum(0))
        told = sum(j * np.log(j / p) for j, p in zip(joint.ravel(), product.ravel(), strict=True) if j > 0)
        rows["separation"].append(told / -sum(s * np.log(s) for s in views.share))
        rows["exposure"].append(
            -sum(j * np.log(j / s) for e, s in enumerate(views.share) for j in joint[e] if j > 0) / np.log(len(options))
        )
        rows["disliked"].append(sum(joint[e, i] for e in range(E) for i, m in enumerate(options) if views.values[q, e, m] < -1e-12))
        each: dict[str, list[float]] = {"same": [], "disagreement": [], "overlap": []}
        for e, f in pairs:
            u, v = views.values[q, e], views.values[q, f]
            each["same"].append(sum(shown[q, e, m] * shown[q, f, m] for m in options))
            each["disagreement"].append(float(np.mean([(u[a] - u[b]) * (v[a] - v[b]) < 0 for a, b in combinations(options, 2)])))
            one, two = (sorted(options, key=lambda m, w=w: -w[m]) for w in (u, v))
            overlap = 0.5 ** len(options)
            for d in range(1, len(options) + 1):
                overlap += len(set(one[:d]) & set(two[:d])) / d * 0.5**d
            each["overlap"].append(overlap)
        for name, values in each.items():
            rows[name].append(float(met @ values / met.sum()))
    return {name: float(np.mean(values)) for name, values in rows.items()}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), entries=st.integers(2, 4), own=st.booleans())
def test_the_meter_against_plain_loops(seed: int, entries: int, own: bool):
    views = _random_views(seed, entries=entries)
    rng = np.random.default_rng(seed)
    drawn = np.where(views.present[:, None, :], rng.random(views.values.shape), 0.0)
    shown = serve_own(views) if own else drawn / drawn.sum(2, keepdims=True)
    found, expected = bubbles(views, shown), _naive_bubbles(views, shown)
    for name, value in expected.items():
        figure = getattr(found, name)
        assert figure.estimate == pytest.approx(value, abs=1e-9), name
        assert 0 <= figure.low <= figure.estimate <= figure.high <= 1
    assert found.same_by_pair.height == entries * (entries - 1) // 2


def test_overlap_of_orders_is_that_of_the_paper():
    """1 for the same order; by hand for a full reversal of three: nothing of 1, one of 2, three of 3 shared: (1/2)/4 + 1/8 + 1/8 = 3/8."""
    same, turned = np.array([[[0, 1, 2]]]), np.array([[[2, 1, 0]]])
    assert abs(rank_biased_overlap(same, same, np.array([3]))[0, 0] - 1) < 1e-12
    assert abs(rank_biased_overlap(same, turned, np.array([3]))[0, 0] - 0.375) < 1e-12


def test_planted_bubbles_raise_the_meter_and_one_shared_entry_gives_0():
    """R106: the further groups are planted apart, the more separate what they are shown; one reward for all of them is no bubble
    however much they disagree, and shows more of them what they dislike; one entry alone has nobody to be kept from."""
    separation: list[float] = []
    disliked: list[float] = []
    for disagreement in (0.0, 0.3, 0.8, 2.0):
        society = simulate(n_prompts=60, n_raters=12, n_judgments=60, groups=3, disagreement=disagreement, **CAREFUL, seed=2)
        views = views_of(society.truth.value_by_group, society.feedback, names=society.truth.group_names)
        own, shared = bubbles(views), bubbles(views, serve_one(views))
        separation.append(own.separation.estimate)
        assert (shared.separation.estimate, shared.separation.high < 0.08, shared.same.estimate) == (0.0, True, 1.0)
        assert own.disagreement.estimate == shared.disagreement.estimate
        assert own.disliked.estimate == 0.0
        disliked.append(shared.disliked.estimate)
    print("separation", separation, "disliked", disliked)
    assert disliked[0] == 0.0
    assert (np.diff(disliked) > 0).all()
    assert separation[0] == 0.0
    assert (np.diff(separation) > 0.1).all()
    alone = _random_views(0, entries=1)
    found = bubbles(alone)
    assert (found.separation.estimate, found.disagreement.estimate, found.same.estimate) == (0.0, 0.0, 1.0)
    assert abs(found.overlap.estimate - 1.0) < 1e-12


# ------------------------------------------------------------------------------------ signals of one fit


def test_a_mixture_lies_exactly_between_its_groups(divided: tuple[Society, Fit]):
    """R104: linear in the weights, the groups at its ends; what all groups prefer it prefers; its ignorance is at most the weighted one."""
    society, result = divided
    a, b = result.groups
    mixtures = {f"mix {w}": {a: w, b: 1 - w} for w in (0.0, 0.25, 0.5, 1.0)}
    made = charters_for(result, Charter(effects=Effects(style="discount")), mixtures=mixtures)
    assert list(made) == [a, b, *mixtures]

    def of(name: str, what: str) -> Array:
        return getattr(result, what)(society.feedback, group_weights=made[name].group_weights(result), without=made[name].without())

    u, ignorance = {n: of(n, "utilities") for n in made}, {n: of(n, "ignorance") for n in made}
    assert (u["mix 0.0"] == u[b]).all()
    assert (u["mix 1.0"] == u[a]).all()
    i, j = np.triu_indices(len(u[a]), 1)
    for w in (0.25, 0.5):
        name = f"mix {w}"
        assert np.abs(u[name] - (w * u[a] + (1 - w) * u[b])).max() < 1e-12
        assert (ignorance[name] <= w * ignorance[a] + (1 - w) * ignorance[b] + 1e-12).all()
        gaps = [u[n][i] - u[n][j] for n in (a, b, name)]
        agreed = (np.sign(gaps[0]) == np.sign(gaps[1])) & (gaps[0] != 0)
        assert agreed.sum() > 100
        assert (np.sign(gaps[2]) == np.sign(gaps[0]))[agreed].all()


def test_nobody_has_signed_other_weights(divided: tuple[Society, Fit]):
    """Those who signed a charter signed its weights, not those of the charters made from it."""
    _, result = divided
    signed = Charter(authors=("Ada",), title="Ours", date="2026-01-01", rationale="We met and chose this.")
    assert not any(c.signed for c in charters_for(result, signed).values())
    named = charters_for(result, signed, authors=["Bo"])
    assert {c.authors for c in named.values()} == {("Bo",)}
    assert all(c.signed for c in named.values())
    assert named["group A"].title == "Ours: group A"
    assert named["group A"].rationale.startswith("group A alone counts: one signal of several")
    mixed = charters_for(result, signed, mixtures={"most": {"group A": 0.75, "group B": 0.25}})["most"]
    assert mixed.rationale.startswith("Of groups there count group A 75%, group B 25%: ")
    assert len({c.hash for c in named.values()}) == 2


@pytest.mark.parametrize(
    ("mixtures", "said"),
    [
        ({"group A": {"group B": 1.0}}, "name of a group already"),
        ({"x": {"group C": 1.0}}, "Use group A, group B"),
        ({"x": {"group A": 0.5}}, "sum to 1"),
        ({"x": {"group A": 1.5, "group B": -0.5}}, "0 or more"),
        ({"x": {"group A": float("nan")}}, "0 or more"),
        ({"x": {}}, "sum to 1"),
    ],
)
def test_bad_mixtures(divided: tuple[Society, Fit], mixtures: dict[str, dict[str, float]], said: str):
    with pytest.raises(InvalidSetting, match=said):
        charters_for(divided[1], Charter(), mixtures=mixtures)


def test_what_a_charter_says_of_the_electorate_is_kept(divided: tuple[Society, Fit]):
    """How far weights may be off, and who counts: a group that does not has no signal, and a part in no mixture."""
    _, result = divided
    kept = charters_for(result, Charter(electorate=Electorate(within=5.0, weighting="equal")))
    assert {c.electorate.within for c in kept.values()} == {5.0}
    one = Charter(electorate=Electorate(groups=("group B",)))
    assert list(charters_for(result, one)) == ["group B"]
    assert charters_for(result, one)["group B"].electorate.groups == ("group B",)
    with pytest.raises(InvalidSetting, match="Use group B"):
        charters_for(result, one, mixtures={"x": {"group A": 1.0}})
