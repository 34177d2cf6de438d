"""Who pays for a charter's choices: every finding from a society with two planted groups, and from one without."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

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
        assert {f.code for f in found} == set(_CODES)
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
    assert unsettled.details["pairs"]


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
    assert all(f.verdict == "not_applicable" and "one kind of people" in f.reason for f in found)


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
