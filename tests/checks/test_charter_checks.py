"""Who pays for a charter's choices: every finding from a society with two planted groups, and from one without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from seamark.aggregation import Charter, Collective, Electorate, Floors, InvalidCharter
from seamark.aggregation.collective import lay_out
from seamark.checks.charter import _CODES, check_charter
from seamark.models import Fit, Groups, Observation, Position, Tabular, fit
from seamark.records import Feedback
from seamark.simulation import Society, simulate
from tests.checks.sentences import assert_written

PLAIN = Observation(effects=(Position(),), lapse=False)


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    apart: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "n_raters": 40, "group_shares": (0.7, 0.3), "disagreement": 2.0}
    society = simulate(n_prompts=30, n_responses=5, n_judgments=6000, **apart, seed=1)
    return society, fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)


def test_every_code_is_there_and_written(divided: tuple[Society, Fit]):
    society, result = divided
    for rule in ("expected-utility", "copeland", "maximin"):
        found = check_charter(result, Charter(rule=rule), society.feedback)  # type: ignore[arg-type]
        assert {f.code for f in found} == {*_CODES, "expiry", "inferred-groups"}
        for finding in found:
            assert_written(finding)
    assert check_charter(result, Charter(rule="copeland"), society.feedback).get("weights-turn").verdict == "not_applicable"


def test_the_outvoted_group_pays(divided: tuple[Society, Fit]):
    """R30, R62: regret by hand from the fit's own utilities; maximin serves the worst-off better."""
    society, result = divided
    found = check_charter(result, Charter(ignorance_penalty=0.0), society.feedback)
    laid = lay_out(society.feedback.responses["prompt"].cast(int).to_numpy().astype(np.int64), np.ones(150, dtype=bool))
    value = result.by_person(society.feedback)[:, laid]  # (G, Q, M)
    chosen = np.einsum("gqm,g->qm", value, result.group_share).argmax(1)
    regret = (value.max(2) - np.take_along_axis(value, chosen[None, :, None], 2)[:, :, 0]).mean(1)
    rows = {row["group"]: row["regret"] for row in found.get("regret").details["groups"]}
    assert rows == pytest.approx(dict(zip(result.groups, regret.tolist(), strict=True)))
    assert regret[1] > regret[0]
    assert found.get("regret").verdict == "notice"
    favourite = (value.argmax(2) == chosen).T @ result.group_share
    assert found.get("own-favourite").estimate == pytest.approx(favourite.mean())
    rules = {row["rule"]: row for row in found.get("compromise").details["rules"]}
    assert rules["maximin"]["worst_group"] > rules["expected-utility"]["worst_group"]
    assert rules["expected-utility"]["mean"] >= max(row["mean"] for row in rules.values()) - 1e-9
    assert rules["expected-utility"]["dominated"] == rules["maximin"]["dominated"] == 0


def test_what_other_weights_and_rules_would_choose(divided: tuple[Society, Fit]):
    """R60: with no room for other weights nothing turns; with any, what any group would choose otherwise does."""
    society, result = divided
    tight = Charter(electorate=Electorate(within=1.0))
    wide = Charter(electorate=Electorate(within=float("inf")))
    counts = [check_charter(result, c, society.feedback).get("weights-turn").estimate for c in (tight, Charter(), wide)]
    turn = check_charter(result, wide, society.feedback).get("weights-turn")
    assert len(turn.details["texts"]) == len(turn.details["chosen"]) > 0
    assert all(turn.details["texts"])
    assert counts[0] == 0
    assert 0 < counts[1] <= counts[2]
    rules = check_charter(result, Charter(), society.feedback).get("rules-turn").details["rules"]
    assert {row["rule"] for row in rules} >= {"borda", "copeland", "maximin", "nash", "kemeny"}


def test_conflicts_that_nothing_settles(divided: tuple[Society, Fit]):
    """R108: planted conflict is counted; it is a result."""
    society, result = divided
    unsettled = check_charter(result, Charter(), society.feedback).get("unsettled")
    assert unsettled.estimate > 0.1
    assert unsettled.verdict == "notice"
    laid = dict(zip(society.feedback.responses["id"], society.feedback.responses["prompt"], strict=True))
    for favourites in unsettled.details["prompts"]:
        assert set(favourites) == set(result.groups)
        assert len({laid[id] for id in favourites.values()}) == 1
        assert len(set(favourites.values())) > 1  # those who share a favourite have no conflict


@pytest.mark.parametrize(
    "charter",
    [
        Charter(electorate=Electorate(weighting="equal")),
        Charter(electorate=Electorate(groups=("group B",))),
        Charter(rule="maximin", ignorance_penalty=0.0),
        Charter(rule="copeland", ignorance_penalty=30.0),
    ],
)
def test_what_no_weighting_settles_is_the_same_under_every_weighting(divided: tuple[Society, Fit], charter: Charter):
    """It is said of the people alone: neither weights nor the rule nor the penalty, which goes by the mean person's ignorance, enter."""
    society, result = divided
    same, other = (check_charter(result, c, society.feedback).get("unsettled") for c in (Charter(), charter))
    assert same.estimate == other.estimate > 0
    assert same.details == other.details


def test_unsettled_prompts_by_hand(divided: tuple[Society, Fit]):
    """Each response of an unsettled prompt surely loses to a group's favourite, and in the others one does not: by loops over pairs."""
    society, result = divided
    feedback = society.feedback
    found = check_charter(result, Charter(), feedback).get("unsettled")
    prompt = feedback.responses["prompt"].cast(int).to_numpy()
    u = result.by_person(feedback)
    tails: list[float] = []
    for q in range(30):
        codes = np.flatnonzero(prompt == q)
        best: dict[int, float] = dict.fromkeys(codes.tolist(), 1.0)
        for g, name in enumerate(result.groups):
            top = int(codes[u[g, codes].argmax()])
            for other in best:
                if other != top:
                    gap = result.gaps(feedback, np.array([top]), np.array([other]), group_weights={name: 1.0})
                    best[other] = min(best[other], float(ndtr(-gap.mean[0] / gap.wider[0])))
        tails.append(max(best.values()) * 2 * (len(codes) - 1))
    hit = false_discovery_control(np.minimum(tails, 1.0)) <= 0.05
    assert found.estimate == pytest.approx(hit.mean())


def test_who_nobody_speaks_for_is_named(tmp_path: Path):
    """A cell without raters that the population weighs is a warning, and its regret is called inferred."""
    society = simulate(n_prompts=20, n_raters=40, n_judgments=2500, careless=0.0, opposed=0.0, disagreement=1.0, seed=4)
    profiles = [{"age": "old" if i < 15 else "young", "sex": "f" if i >= 15 and i % 2 else "m"} for i in range(society.feedback.n_raters)]
    raters = society.feedback.raters.with_columns(profile=pl.Series([json.dumps(p) for p in profiles]))
    feedback = replace(society.feedback, raters=raters)
    result = fit(feedback, utility=Tabular(), people=Groups(by=("profile.age", "profile.sex")), observation=PLAIN)
    assert result.inferred == ("old · f",)
    (tmp_path / "census.csv").write_text("age,sex,share\nold,f,0.35\nold,m,0.25\nyoung,f,0.2\nyoung,m,0.2\n", encoding="utf-8")
    (tmp_path / "charter.toml").write_text('[electorate]\nweighting = "target"\ntarget = "census.csv"\n', encoding="utf-8")
    charter = Charter.from_toml(tmp_path / "charter.toml")
    assert charter.inferred(result) == pytest.approx({"old · f": 0.35})
    found = check_charter(result, charter, feedback)
    said = found.get("inferred-groups")
    assert (said.verdict, said.estimate) == ("warning", pytest.approx(0.35))
    assert "old · f, 35% of the electorate" in said.title
    rows = {row["group"]: row["inferred"] for row in found.get("regret").details["groups"]}
    assert rows == {"old · m": False, "old · f": True, "young · m": False, "young · f": False}
    assert "having no rater: old · f." in found.get("regret").reason
    assert all("old · f" not in favourites for favourites in found.get("unsettled").details["prompts"])
    for finding in found:
        assert_written(finding)
    # by the sizes it weighs nothing, and a floor makes it count all the same
    assert check_charter(result, Charter(), feedback).get("inferred-groups").verdict == "ok"
    assert Charter(floors=Floors(groups={"old · f": -99.0})).inferred(result) == {"old · f": 0.0}


def test_a_charter_that_has_expired_is_a_finding(divided: tuple[Society, Fit]):
    society, result = divided
    for until, verdict in (("", "ok"), ("2999-12-31", "ok"), ("2020-01-31", "blocking")):
        charter = Charter(valid_until=until)
        found = check_charter(result, charter, society.feedback).get("expiry")
        assert (found.verdict, found.details["hash"], until in found.title) == (verdict, charter.hash, True)
        assert_written(found)


def test_sentences_say_nothing_twice(divided: tuple[Society, Fit]):
    """No rule is compared with itself, none differs most often in 0, ties are called so, and a share that nobody set is."""
    society, result = divided
    alone = Charter(electorate=Electorate(groups=("group A",)))
    found = check_charter(result, alone, society.feedback)
    assert "and no more under any other rule" in found.get("compromise").title
    for rule in ("expected-utility", "maximin", "approval"):
        for code in ("compromise", "rules-turn"):
            one = check_charter(result, Charter(rule=rule), society.feedback).get(code)  # type: ignore[arg-type]
            assert "which the charter does not set" in one.reason
            assert one.title.count(f"under {rule}") <= 1
            assert "most often, in 0." not in one.title
    dominated = check_charter(result, Charter(rule="approval"), society.feedback).get("compromise")
    assert dominated.estimate > 0
    assert "by the lot among winners that are tied" in dominated.title
    set_by = check_charter(result, Charter(rule="cvar", share=0.4), society.feedback).get("compromise")
    assert "the share is 0.4, of the charter." in set_by.reason


def test_groups_that_agree_pay_nothing():
    same: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "n_raters": 40, "group_shares": (0.7, 0.3), "disagreement": 0.0}
    society = simulate(n_prompts=30, n_responses=5, n_judgments=6000, **same, seed=2)
    result = fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)
    found = check_charter(result, Charter(), society.feedback)
    assert found.get("regret").estimate < 0.1
    assert found.get("unsettled").estimate == 0
    assert found.get("weights-turn").estimate < 0.2
    assert found.get("own-favourite").verdict == "ok"


def test_one_kind_of_people_says_why():
    society = simulate(n_prompts=8, n_responses=4, n_judgments=400, groups=1, seed=3)
    found = check_charter(fit(society.feedback, utility=Tabular(), observation=PLAIN), Charter(), society.feedback)
    assert all(f.verdict == "not_applicable" and "one kind of people" in f.reason for f in found if f.code != "expiry")


def test_floors_that_nobody_meets_stop(divided: tuple[Society, Fit]):
    society, result = divided
    with pytest.raises(InvalidCharter, match="meets the floors"):
        check_charter(result, Charter(floors=Floors(groups={result.groups[0]: 99.0})), society.feedback)


def test_floors_leave_prompts_undecided(divided: tuple[Society, Fit]):
    """R108: where every response is below a floor there is no consensus, which is counted."""
    society, result = divided
    least = float(np.quantile(result.by_person(society.feedback)[1], 0.9))
    charter = Charter(floors=Floors(groups={result.groups[1]: least}))
    found = check_charter(result, charter, society.feedback).get("regret")
    assert found.details["undecided"] > 0
    assert "no consensus" in found.reason
    assert Collective.of(result, charter, society.feedback).shortfall.max() > 0


def test_the_group_that_a_charter_leaves_out_is_shown(divided: tuple[Society, Fit]):
    """R30: who does not count pays, and is named."""
    society, result = divided
    A, B = result.groups
    found = check_charter(result, Charter(electorate=Electorate(groups=(A,))), society.feedback)
    rows = {row["group"]: row for row in found.get("regret").details["groups"]}
    assert rows[B]["weight"] == 0
    assert rows[B]["regret"] > rows[A]["regret"]
    assert f"{B}, which does not count in the electorate," in found.get("regret").title
    turn = found.get("weights-turn")
    assert turn.estimate == 0  # within a factor of two of nothing is nothing
    assert turn.details["n_any"] > 0


def test_figures_are_of_what_the_rule_sees(divided: tuple[Society, Fit], monkeypatch: pytest.MonkeyPatch):
    """A large penalty chooses what is known best, and every figure is of that: no weights but the charter's would turn it within 1."""
    society, result = divided
    rng = np.random.default_rng(0)
    doubt = rng.uniform(0, 3, society.feedback.n_responses)
    charter = Charter(ignorance_penalty=1.0, electorate=Electorate(within=1.0))
    real = Collective.of(result, charter, society.feedback)
    monkeypatch.setattr(Collective, "of", staticmethod(lambda *_: replace(real, ignorance=doubt)))
    found = check_charter(result, charter, society.feedback)
    assert found.get("weights-turn").estimate == 0
    prudent = result.by_person(society.feedback) - doubt
    laid = lay_out(society.feedback.responses["prompt"].cast(int).to_numpy().astype(np.int64), np.ones(150, dtype=bool))
    value = prudent[:, laid]
    chosen = np.einsum("gqm,g->qm", value, result.group_share).argmax(1)
    regret = (value.max(2) - np.take_along_axis(value, chosen[None, :, None], 2)[:, :, 0]).mean(1)
    assert [row["regret"] for row in found.get("regret").details["groups"]] == pytest.approx(regret.tolist())


def test_one_prompt_has_no_interval_and_is_written():
    """JSON has no infinity: a study of one prompt with groups is whole."""
    society = simulate(
        text=False, n_prompts=5, n_responses=6, n_raters=40, n_judgments=900, group_shares=(0.6, 0.4), disagreement=1.0, seed=5
    )
    rows = society.feedback.judgments
    names = society.feedback.responses["name"].to_list()
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * rows.height,
            "prompt": ["Which?"] * rows.height,
            "texts": [[f"{names[a]} says so", f"{names[b]} says so"] for a, b in rows["responses"].to_list()],
            "outcome": rows["outcome"].cast(str).to_list(),
            "rater": [f"r{code}" for code in rows["rater"].to_list()],
            "group": rows["group"].to_list(),
        }
    )
    result = fit(feedback, utility=Tabular(), people=Groups(), observation=PLAIN)
    found = check_charter(result, Charter(), feedback)
    assert found.get("regret").low is None
    json.dumps([f.to_dict() for f in found], allow_nan=False)
