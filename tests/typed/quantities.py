"""What the type checker must accept, and must refuse: a line that ends in the comment `error` is one, and no other is (R111)."""

import numpy as np

from seamark.aggregation.quantities import Costs, Preferences, Rewards, preferences_assuming_bradley_terry, rewards_assuming_exchange

cost = Costs(np.array([1.0]), "minutes")
reward = Rewards(np.array([1.0]), "logits")
preference = Preferences(np.array([0.7]))

fine = cost + cost
better = reward - reward + reward
converted = reward + rewards_assuming_exchange(cost, rate=0.5, unit="logits")


def refused() -> None:
    cost + preference  # error
    preference + cost  # error
    preference + preference  # error
    reward + cost  # error
    cost + reward  # error
    reward - preference  # error
    reward + 1.0  # error
    cost + np.array([1.0])  # error
    preferences_assuming_bradley_terry(reward, cost)  # error
