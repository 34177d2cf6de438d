"""Conflict between groups: planted and found, absent and not found at the nominal size, beside naive loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import false_discovery_control

import seamark as sm
from seamark.checks.agreement import krippendorff_alpha
from seamark.checks.dissent import (
    Answers,
    _across,
    _alpha,
    _rand_index,
    answers_by,
    arrange,
    check_dissent,
    cohesion,
    interactions,
    majorities_kept,
    rater_clusters,
)
from seamark.errors import InvalidSetting
from seamark.records import Feedback, LoadReport
from tests.checks.sentences import assert_written

CODES = {"group-conflict", "group-items", "cohesion", "outvoted", "bridging", "irreconcilable", "other-population", "rater-kinds"}


def society(seed: int, *, planted: float = 0.0, n_raters: int = 40, n_items: int = 30, share: float = 0.4, strict: float = 0.0) -> Answers:
    """Yes-or-no answers of two groups; `planted` is added to the logit of the second group in the first third of the items."""
    rng = np.random.default_rng(seed)
    group = (np.arange(n_raters) < share * n_raters).astype(np.int64)
    logit = rng.normal(0, 0.7, n_items)[None] + rng.normal(0, 0.7, n_raters)[:, None] + strict * group[:, None]
    logit = logit + planted * group[:, None] * (np.arange(n_items) < n_items // 3) * rng.choice([-1, 1], n_items)
    value = np.where(rng.random(logit.shape) < 1 / (1 + np.exp(-logit)), 1.0, -1.0)
    # who answers what is not balanced, and goes with the group
    asked = rng.random(logit.shape) < np.where(group[:, None] == 1, 0.8, 0.5)
    rater, item = np.nonzero(asked)
    return Answers(
        value[asked], item, rater, group, np.zeros(n_raters, dtype=np.int64), ("many", "few"), rater, item, "thumbs"
    )  # fmt: skip


# ------------------------------------------------------------------------------------ group by item


def test_planted_items_are_found_at_the_controlled_rate():
    """R28: items that one group answers otherwise are named, and of those named few are not planted."""
    named, wrong, missed = 0, 0, 0
    for seed in range(10):
        found = interactions(society(seed, planted=3.0, n_raters=80), draws=1999, seed=seed)
        planted = np.arange(30) < 10
        hits = found.q <= 0.05
        named, wrong, missed = named + int(hits.sum()), wrong + int((hits & ~planted).sum()), missed + int((~hits & planted).sum())
    assert missed <= 40  # of 100
    # planting moves raters' centres, so that other items move a little, too: within twice the nominal rate
    assert wrong <= 0.1 * named


def test_noise_alone_is_no_conflict():
    """R61: at p <= .05 among 60 societies without any, at most what a binomial with .05 exceeds once in 1,000 times; strictness is none."""
    for strict in (0.0, 0.7, 1.5):
        p = [interactions(society(seed, strict=strict), draws=199, seed=seed).overall_p for seed in range(60)]
        assert sum(x <= 0.05 for x in p) <= 10
        assert 0.3 < np.mean(p) < 0.7


def test_conflict_is_found():
    """R61: two groups that want other things are told from noise."""
    found = [interactions(society(seed, planted=2.0), draws=199, seed=seed) for seed in range(10)]
    assert sum(f.overall_p <= 0.05 for f in found) >= 9
    assert np.mean([f.explained for f in found]) > 0.02
    assert all(f.low <= f.explained <= f.high for f in found)


def _without_strictness(answers: Answers) -> np.ndarray:
    """Residuals of a ridge logistic regression on raters and items, by an optimiser of scipy."""
    y, n_raters, n_items = (answers.value + 1) / 2, len(answers.group_of), answers.n_items

    def loss(w: np.ndarray) -> float:
        z = w[answers.block] + w[n_raters + answers.item]
        return float((np.logaddexp(0, z) - y * z).sum() + 0.05 * w @ w)

    w = minimize(loss, np.zeros(n_raters + n_items), method="BFGS", options={"gtol": 1e-8}).x
    return 2 * (y - 1 / (1 + np.exp(-w[answers.block] - w[n_raters + answers.item])))


def test_interactions_are_those_of_loops():
    answers = society(3, n_raters=9, n_items=6)
    found = interactions(answers, draws=99)
    value = _without_strictness(answers)
    for code in (answers.item, answers.block):
        value = value - np.array([value[code == c].mean() for c in code])
    for i in range(6):
        own, group = value[answers.item == i], answers.group[answers.item == i]
        between = sum((group == g).sum() * (own[group == g].mean() - own.mean()) ** 2 for g in np.unique(group))
        alike = np.ptp(answers.value[answers.item == i]) == 0  # where everyone says the same nothing differs
        assert found.statistic[i] == pytest.approx(0.0 if alike else between / (own**2).mean(), abs=1e-4)
        for g in np.unique(group):
            said = answers.value[(answers.item == i) & (answers.group == g)]
            assert found.means[i, g] == pytest.approx(said.mean())
            assert found.counts[i, g] == len(said)
    assert found.q == pytest.approx(false_discovery_control(found.p))


def test_few_raters_are_arranged_in_every_way_and_the_floor_is_said():
    """Six raters in two groups of three: ten arrangements differ, so that no p is below .1 (evaluation.md 3.4)."""
    answers = society(5, n_raters=6, share=0.5)
    arrangements = arrange(answers.group_of, answers.stratum_of)
    assert arrangements.exact
    assert len(arrangements.labels) == 20
    assert arrangements.floor == pytest.approx(0.05)
    found = interactions(answers)
    assert found.floor == pytest.approx(0.1)
    assert found.p.min() >= 0.1
    assert found.p * 20 == pytest.approx(np.round(found.p * 20))


def test_labels_stay_in_their_stratum():
    group, stratum = np.array([0, 0, 1, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 1, 1])
    drawn = arrange(group, stratum, draws=50)
    assert not drawn.exact
    assert (np.sort(drawn.labels[:, :3], 1) == [0, 0, 1]).all()
    assert (np.sort(drawn.labels[:, 3:], 1) == [0, 1, 1, 2]).all()
    assert len(np.unique(drawn.labels, axis=0)) > 10


# ------------------------------------------------------------------------------------ cohesion


def test_cohesion_is_that_of_loops():
    answers = society(7, n_raters=10, n_items=8)
    for g in (0, 1):
        mine = answers.group == g
        counts = np.stack(
            [[[((answers.item == i) & (answers.value == v) & side).sum() for v in (-1, 1)] for i in range(8)] for side in (mine, ~mine)]
        ).astype(float)
        alpha = krippendorff_alpha(answers.value[mine], answers.item[mine])
        assert _alpha(counts[:1])[0] == pytest.approx(alpha)
        rows = [
            (i, a, b)
            for i in range(8)
            for a in answers.value[mine & (answers.item == i)]
            for b in answers.value[~mine & (answers.item == i)]
        ]
        observed = np.mean([a != b for _, a, b in rows])
        shared = [i for i in range(8) if (answers.item[mine] == i).any() and (answers.item[~mine] == i).any()]
        one, two = (answers.value[side & np.isin(answers.item, shared)] for side in (mine, ~mine))
        expected = np.mean([a != b for a in one for b in two])
        assert _across(counts[:1], counts[1:])[0] == pytest.approx(1 - observed / expected)


def test_a_group_that_agrees_with_itself_is_found():
    found = cohesion(society(1, planted=4.0, n_raters=60), draws=199)
    assert found.q.min() <= 0.05
    assert np.nanmax(found.inside - found.across) > 0
    clear = found.across > 1.96 * found.across_sd
    assert np.isnan(found.index[~clear]).all()  # a ratio over next to nothing is any number
    assert found.index[clear] == pytest.approx(found.inside[clear] / found.across[clear])
    quiet = [cohesion(society(seed), draws=99, seed=seed).p for seed in range(40)]
    assert (np.array(quiet) <= 0.05).mean() < 0.15


# ------------------------------------------------------------------------------------ kinds of raters


def test_kinds_of_raters_are_found_again():
    rng = np.random.default_rng(0)
    kind = np.arange(60) < 18
    taste = rng.normal(0, 1.5, 80)
    logit = np.where(kind[:, None], -taste, taste)
    value = np.where(rng.random(logit.shape) < 1 / (1 + np.exp(-logit)), 1.0, -1.0)
    rater, item = (x.ravel() for x in np.indices(logit.shape))
    answers = Answers(
        value.ravel(), item, rater, np.zeros(60, dtype=np.int64), np.zeros(60, dtype=np.int64), ("all",), rater, item, "thumbs"
    )
    found = rater_clusters(answers, splits=10)
    assert _rand_index(found.member, kind.astype(np.int64)) > 0.9
    assert found.member.sum() == 18
    assert found.stability > 0.9 > 0.2 > found.null
    assert found.kept[0] > 0.9
    assert found.kept[1] < 0.4  # the smaller kind is outvoted


def test_without_kinds_nothing_is_found_again():
    found = [rater_clusters(society(seed, n_raters=60, n_items=60), splits=10, seed=seed) for seed in range(5)]
    assert np.mean([f.stability for f in found]) < 0.1
    # strict and lenient raters are kinds where strictness is left in
    assert rater_clusters(society(0, n_raters=60, n_items=60), centred=False, splits=10).stability > 0.1


def test_rand_index_is_that_of_pairs():
    rng = np.random.default_rng(1)
    one, two = rng.integers(0, 3, 25), rng.integers(0, 2, 25)
    pairs = list(combinations(range(25), 2))
    same = [(one[i] == one[j], two[i] == two[j]) for i, j in pairs]
    both, a, b = (sum(f(s) for s in same) for f in (all, lambda s: s[0], lambda s: s[1]))
    expected = a * b / len(pairs)
    assert _rand_index(one, two) == pytest.approx((both - expected) / ((a + b) / 2 - expected))
    assert _rand_index(one, one) == 1.0


# ------------------------------------------------------------------------------------ from feedback


def _feedback(answers: Answers) -> Feedback:
    n = len(answers.value)
    return Feedback.from_columns(
        {
            "kind": ["thumbs"] * n,
            "prompt": ["What shall we do?"] * n,
            "texts": [[f"statement {i}"] for i in answers.item.tolist()],
            "rater": [f"r{r}" for r in answers.rater.tolist()],
            "group": [answers.groups[g] for g in answers.group.tolist()],
            "outcome": ["answered"] * n,
            "thumb": (answers.value > 0).tolist(),
        }
    )


def test_every_finding_is_there_and_written():
    conflict = check_dissent(_feedback(society(2, planted=4.0, n_raters=60)))
    assert {f.code for f in conflict} == CODES
    for finding in conflict:
        assert_written(finding)
    assert conflict.get("group-conflict").verdict == "notice"
    assert conflict.get("group-items").estimate >= 1
    for code in ("group-conflict", "group-items", "cohesion"):
        assert "no p-value can be below" in conflict.get(code).title
        assert "--derived" in conflict.get(code).reason
    for code in ("group-conflict", "cohesion"):
        assert "made from these answers" in conflict.get(code).title
    quiet = check_dissent(_feedback(society(2)))
    assert quiet.get("group-conflict").verdict == "ok"
    assert quiet.get("group-items").estimate == 0


def test_answers_from_feedback_are_those_given():
    given = society(4)
    found = answers_by(_feedback(given))
    assert found.n_items == given.n_items
    assert sorted(found.groups) == sorted(given.groups)
    names = np.array(found.groups)
    own = interactions(given, draws=99).explained
    assert interactions(found, draws=99).explained == pytest.approx(own, abs=0.01)
    assert set(names[found.group].tolist()) == {"many", "few"}


def test_without_groups_every_code_says_why():
    feedback = sm.simulate(n_prompts=10, n_raters=8, n_judgments=200, seed=0).feedback
    plain = Feedback.from_columns(
        {"kind": ["pair"] * 3, "prompt": ["p"] * 3, "texts": [["a", "b"]] * 3, "outcome": ["left"] * 3, "rater": ["x", "y", "z"]}
    )
    found = check_dissent(plain)
    assert {f.code for f in found} == CODES
    assert all(f.verdict == "not_applicable" and f.reason for f in found)
    with pytest.raises(InvalidSetting, match=r"profile\.NAME"):
        check_dissent(feedback, by="tribe")


def test_a_rater_in_several_groups_is_told_apart_by_stratum():
    n = 24
    columns = {
        "kind": ["thumbs"] * n * 2,
        "prompt": ["one"] * n + ["two"] * n,
        "texts": [[f"a{i % 2}"] for i in range(2 * n)],
        "rater": [f"r{i // 2 % 12}" for i in range(2 * n)],
        "group": ["for" if (i // 2 % 12 < 6) == (i < n) else "against" for i in range(2 * n)],
        "outcome": ["answered"] * n * 2,
        "thumb": [True] * n * 2,
    }
    feedback = Feedback.from_columns(columns)
    with pytest.raises(InvalidSetting, match="within"):
        answers_by(feedback)
    found = answers_by(feedback, within="prompt")
    assert len(found.group_of) == 24
    assert len(np.unique(found.stratum_of)) == 2


def test_one_answer_per_rater_cannot_tell_taste_from_strictness():
    """Opposed groups of whom each answered once: no figure, rather than no conflict."""
    n = 40
    feedback = Feedback.from_columns(
        {
            "kind": ["thumbs"] * n, "prompt": ["p"] * n, "texts": [[f"s{i % 2}"] for i in range(n)], "rater": [f"r{i}" for i in range(n)],
            "group": ["a" if i < n // 2 else "b" for i in range(n)], "outcome": ["answered"] * n, "thumb": [i < n // 2 for i in range(n)],
        }
    )  # fmt: skip
    found = check_dissent(feedback)
    for code in ("group-conflict", "group-items", "cohesion", "outvoted"):
        assert found.get(code).verdict == "not_applicable"
    assert "at most one question" in found.get("group-conflict").reason
    alone = Feedback.from_columns(
        {
            "kind": ["thumbs"] * n, "prompt": ["p"] * n, "texts": [[f"s{i}"] for i in range(n)], "rater": [f"r{i % 20}" for i in range(n)],
            "group": ["a" if i % 20 < 10 else "b" for i in range(n)], "outcome": ["answered"] * n, "thumb": [True] * n,
        }
    )  # fmt: skip
    assert "No question was answered by two groups" in check_dissent(alone).get("outvoted").reason


def test_unanimous_answers_have_no_kinds_of_raters():
    answers = society(0, n_raters=25, n_items=25)
    same = replace(answers, value=np.ones_like(answers.value))
    found = check_dissent(_feedback(same))
    assert "same answer to everything" in found.get("rater-kinds").reason
    assert found.get("group-conflict").estimate == 0


def test_groups_made_from_the_answers_are_not_tested():
    """Clusters of noise differ at p = 0.0002; whoever knows how they were made can say so, or the reader of the format."""
    answers = society(6, n_raters=60)
    kind = rater_clusters(answers, splits=2).member
    made = _feedback(replace(answers, group_of=kind.astype(np.int64)))
    naive = check_dissent(made)
    assert naive.get("group-conflict").verdict == "notice"
    for found in (check_dissent(made, derived=True), check_dissent(replace(made, report=LoadReport(derived=("group",))))):
        assert {f.code for f in found} == CODES
        for code in ("group-conflict", "group-items", "cohesion"):
            assert found.get(code).verdict == "not_applicable"
            assert "made from these answers" in found.get(code).reason
        assert found.get("outvoted").estimate == naive.get("outvoted").estimate
        assert "by construction" in found.get("irreconcilable").reason


def test_statements_are_named_with_the_beginning_of_their_texts():
    n = 40
    long = "We should \x1b[31mplant\n trees " + "everywhere " * 20
    texts = [long if i % 2 else "Cars" for i in range(2 * n)]
    feedback = Feedback.from_columns(
        {
            "kind": ["thumbs"] * 2 * n, "prompt": ["?"] * 2 * n, "texts": [[t] for t in texts], "rater": [f"r{i // 2}" for i in range(2 * n)],
            "group": [f"g{(i // 2) % 2}" for i in range(2 * n)], "outcome": ["answered"] * 2 * n,
            "thumb": [t == long or (i // 2) % 2 == 0 for i, t in enumerate(texts)],
        }
    )  # fmt: skip
    found = check_dissent(feedback)
    (tree,), (car,) = (found.get(code).details["statements"] for code in ("bridging", "irreconcilable"))
    assert tree["text"] == r"We should \u001b[31mplant trees everywhere everywhere..."
    assert f"{tree['statement']} “{tree['text']}”" in found.get("bridging").title
    assert car["text"] == "Cars"
    assert f"{car['statement']} “Cars”" in found.get("irreconcilable").title


def test_some_weighting_turns_at_least_what_equal_weights_do():
    rng = np.random.default_rng(11)
    answers = society(12, n_raters=60)
    shares = np.where(answers.group == 0, 0.35, 0.7)
    feedback = _feedback(replace(answers, value=np.where(rng.random(len(shares)) < shares, 1.0, -1.0)))
    found = check_dissent(feedback).get("other-population")
    assert 0 < found.details["equal_sure"] <= found.details["some_weighting"]
    assert f"{found.details['equal']:,} of" in found.title


def test_a_stratum_that_is_no_column_is_an_error():
    with pytest.raises(InvalidSetting, match=r"profile\.NAME"):
        check_dissent(_feedback(society(0)), within="nope")


def test_raters_of_one_group_are_permuted_whole_whatever_the_stratum():
    """Tastes that a rater carries through prompts would be taken for so many people else: 12 raters, 20 prompts, no conflict."""
    rejected = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        taste, kind = rng.normal(0, 1.5, (12, 2)), rng.normal(size=(40, 2))
        logit = taste @ kind.T
        value = rng.random((12, 40)) < 1 / (1 + np.exp(-logit))
        rater, item = (x.ravel() for x in np.indices(value.shape))
        group = rng.permutation(["a"] * 6 + ["b"] * 6)
        feedback = Feedback.from_columns(
            {
                "kind": ["thumbs"] * 480, "prompt": [f"p{i // 2}" for i in item], "texts": [[f"s{i}"] for i in item],
                "rater": [f"r{r}" for r in rater], "group": group[rater].tolist(), "outcome": ["answered"] * 480, "thumb": value.ravel().tolist(),
            }
        )  # fmt: skip
        answers = answers_by(feedback, within="prompt")
        assert len(answers.group_of) == 12
        rejected += interactions(answers, draws=99, seed=seed).overall_p <= 0.05
    assert rejected <= 10


def test_saying_a_thing_twice_is_no_agreement_with_others():
    answers = society(3)
    twice = replace(
        answers, value=np.tile(answers.value, 2), item=np.tile(answers.item, 2), block=np.tile(answers.block, 2),
        rater=np.tile(answers.rater, 2), response=np.tile(answers.response, 2),
    )  # fmt: skip
    assert cohesion(twice, draws=19).inside == pytest.approx(cohesion(answers, draws=19).inside)


def test_the_floor_counts_strata():
    """Six strata of one rater on either side: 64 arrangements, so that no p below 1/64 can be reached."""
    group, stratum = np.tile([0, 1], 6), np.repeat(np.arange(6), 2)
    assert arrange(group, stratum, draws=4999).floor == pytest.approx(1 / 64)


# ------------------------------------------------------------------------------------ real people


def test_stances_in_ukp(real_data: Path):
    """Convincingness by stance: groups of people for and against a debate's side."""
    answers = answers_by(sm.load(real_data / "ukp_convarg"), within="prompt")
    everyone, groups = majorities_kept(answers)
    kept = {name: float((everyone == groups[:, g])[groups[:, g] != 0].mean()) for g, name in enumerate(answers.groups)}
    naive: dict[str, list[bool]] = {name: [] for name in answers.groups}
    by_item: dict[int, list[tuple[float, int, int]]] = {}
    for value, item, block, group in zip(
        answers.value.tolist(), answers.item.tolist(), answers.block.tolist(), answers.group.tolist(), strict=True
    ):
        by_item.setdefault(item, []).append((value, block, group))
    for rows in by_item.values():
        votes: dict[tuple[int, int], list[float]] = {}
        for value, block, group in rows:
            votes.setdefault((block, group), []).append(value)
        said = {key: np.sign(np.mean(v)) for key, v in votes.items()}
        total = np.sign(sum(said.values()))
        for g, name in enumerate(answers.groups):
            own = np.sign(sum(v for (_, group), v in said.items() if group == g))
            if own:
                naive[name].append(bool(total == own))
    assert kept == pytest.approx({name: np.mean(v) for name, v in naive.items()})
    assert kept["opposite"] == pytest.approx(0.844, abs=0.001)


def test_the_minority_that_majority_vote_erases_in_dices(real_data: Path):
    """123 raters of 350 conversations: strict raters are a kind that is found again, and everyone's majority keeps less of theirs."""
    answers = answers_by(sm.load(real_data / "dices_350"), by=None)
    assert (len(answers.group_of), answers.n_items) == (123, 350)
    found = rater_clusters(answers, centred=False)
    assert found.stability > 0.6 > found.null
    assert found.kept[0] - found.kept[1] > 0.1
    values = rater_clusters(answers)
    assert values.stability > 0.4 > values.null
