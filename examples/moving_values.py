"""Values that move: what people thought of three answers on any date, before, between and after the judgments.

    python examples/moving_values.py

`Dynamic` gives each answer a value for each period (here 30 days), which moves by steps whose size is estimated. `at={"period": DATE}`
asks for any date; beyond the judgments the value stays where it was and what is not known of it grows.
"""

from datetime import datetime, timedelta

import numpy as np

import seamark as sm
from seamark.models import Dynamic, Observation

rng = np.random.default_rng(2)
start, days, n = datetime(2023, 1, 1), 365, 4000
names = ["steady", "rising", "fading"]
day = np.sort(rng.integers(0, days, n))
value = np.stack([np.zeros(n), -1 + 2 * day / days, 1 - 2 * day / days])  # over the year two answers change places
left = rng.integers(0, 3, n)
right = (left + rng.integers(1, 3, n)) % 3
gap = value[left, np.arange(n)] - value[right, np.arange(n)]
won = rng.random(n) < 1 / (1 + np.exp(-gap))

votes = sm.Feedback.from_arrays(
    left_id=left, right_id=right, outcome=won, time=[start + timedelta(days=int(d)) for d in day], names={"response": names}
)
fit = sm.fit(votes, utility=Dynamic(timedelta(days=30), sm.Tabular()), observation=Observation(effects=(), lapse=False))

print("date         rising preferred to steady   truth")
for date in ("2022-10-01", "2023-01-15", "2023-04-15", "2023-07-01", "2023-10-15", "2023-12-15", "2024-06-01"):
    said = fit.compare("rising", "steady", at={"period": date})
    share = (datetime.fromisoformat(date) - start).days / days
    truth = f"{1 / (1 + np.exp(1 - 2 * share)):.0%}" if 0 <= share <= 1 else "beyond the judgments"
    print(f"{date}   {said.p:6.0%} [{said.low:.0%}, {said.high:.0%}]            {truth}")
