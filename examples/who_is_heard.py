"""Who is heard: a jury from another pool, a meter of value bubbles, two models side by side, and costs that are no preferences.

    python examples/who_is_heard.py

Two groups whose values differ, of 70% and 30%. Nothing here trains a language model: the two models are a policy that follows the reward a
little and one that follows it a lot, and two rewards that score the same texts.
"""

import numpy as np

import seamark as sm
from seamark.aggregation import bubbles, counterfactual_juries, other_pools, rater_profiles, views_of_fit
from seamark.aggregation.plurality import serve_one
from seamark.aggregation.quantities import Costs, Rewards, preferences_assuming_bradley_terry, rewards_assuming_exchange
from seamark.checks import check_homogenisation, check_matched_pairs

society = sm.simulate(
    n_raters=40, n_prompts=30, n_judgments=2400, group_shares=(0.7, 0.3), disagreement=1.5, careless=0.0, opposed=0.0, seed=0
)
feedback = society.feedback

# what would another pool of raters have decided, had the reward been learnt from it?
pools = other_pools(rater_profiles(feedback, ["group"]), "group")
pools = {name: pools[name] for name in ("only group B", "all alike")}
for jury in counterfactual_juries(feedback, pools, utility=sm.Tabular(), draws=19):
    print(jury)

# people are shown what their own group likes best, or everybody the same: how far apart does that keep them?
fit = sm.fit(feedback, utility=sm.Tabular(), people=sm.Groups())
views = views_of_fit(fit, feedback)
print("\nshown            separation   disagreement")
for name, served in (("one's own", None), ("one for all", serve_one(views))):
    meter = bubbles(views, served)
    print(f"{name:<16} {meter.separation.said():<17}   {meter.disagreement.said()}")

# the same policy before and after it was optimised for the mean reward: what becomes of variety
reward = np.einsum("qem,e->qm", views.values, views.share)


def policy(strength):
    """(prompts, responses) how often each is answered."""
    p = np.exp(strength * reward)
    return p / p.sum(1, keepdims=True)


print("\n" + check_homogenisation(policy(0.5), policy(4.0), views.values).title)

# two rewards on pairs of texts that differ in the name of a group alone: (the text that names it, its match that does not)
rng = np.random.default_rng(0)
named = np.repeat(["A", "B", "C"], 60)
plain = rng.normal(0, 1, 180)
bias = {"base": {"A": 0.0, "B": -0.5, "C": -0.5}, "aligned": {"A": 0.0, "B": -0.5, "C": 0.0}}
base, aligned = (np.stack([plain + [of[g] for g in named] + rng.normal(0, 0.3, 180), plain], axis=1) for of in bias.values())
print("\n" + check_matched_pairs(base, aligned, named.tolist()).title)

# preferences, rewards and costs are types of their own: what turns one into another is named after what it assumes
good, bad = Rewards(np.array([1.2]), "logits"), Rewards(np.array([0.2]), "logits")
wait = Costs(np.array([0.3]), "minute")
print(f"\nassuming Bradley-Terry, preferred by {preferences_assuming_bradley_terry(good, bad).values[0]:.0%}")
try:
    good + wait
except TypeError as error:
    print(f"rewards and costs do not add up: {error}")
net = good + rewards_assuming_exchange(wait, rate=2.0, unit="logits")
print(f"{net.values[0]:.1f} {net.unit}, assuming that {net.assumptions[0]}")
