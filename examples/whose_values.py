"""Two groups who want different things: what one reward costs whom, what other rules choose, and what nothing settles."""

from __future__ import annotations

import numpy as np

import seamark as sm
from seamark.aggregation import Profile, decide
from seamark.checks import check_charter, check_dissent

# 60 people in groups of 70% and 30% whose values differ; nobody answers at chance
society = sm.simulate(
    n_raters=60, n_prompts=60, n_judgments=12_000, group_shares=(0.7, 0.3), disagreement=1.5, careless=0.0, opposed=0.0, seed=0
)
feedback = society.feedback
print(f"{feedback}\n")

# without a fit: do groups disagree beyond chance and strictness?
print(check_dissent(feedback).get("group-conflict").title)

# who pays, under three charters for the same fit
fit = sm.fit(feedback, utility=sm.Tabular(), people=sm.Groups())
print(f"\n{'charter':28} {'group A loses':>14} {'group B loses':>14} {'dominated':>10}")
charters = {
    "one person, one vote": sm.Charter(),
    "groups alike": sm.Charter.model_validate({"electorate": {"weighting": "equal"}}),
    "the worst-off group": sm.Charter(rule="maximin"),
}
for name, charter in charters.items():
    found = check_charter(fit, charter, feedback)
    loses = {row["group"]: row["regret"] for row in found.get("regret").details["groups"]}
    print(f"{name:28} {loses['group A']:14.2f} {loses['group B']:14.2f} {found.get('compromise').estimate:10.0%}")

# what any choice of weights would turn, and what none would settle
found = check_charter(fit, sm.Charter(), feedback)
print(f"\n{found.get('weights-turn').title}")
print(found.get("unsettled").title)

# rules on any utilities or rankings: 51 of 100 say A > B > C, 49 say B > C > A
ballots = Profile.of_rankings(np.array([[0, 1, 2], [2, 0, 1]]), weights=np.array([51.0, 49.0]))
for rule in ("borda", "bradley-terry", "copeland", "maximal-lottery"):
    print(f"{rule:16} chooses {'ABC'[int(decide(ballots, rule).winners[0].argmax())]}")
