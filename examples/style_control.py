"""Style control: what longer texts gain by their length, and a leaderboard at equal length.

    python examples/style_control.py

Eight models answer, a new text for each vote, and better models write longer texts. What a vote knows of its two texts is given beside
it (left_length, right_length); `Bias("length")` takes it out, and with `per_rater=True` raters may differ in it. Length is a claim:
the same votes without `Bias` give the board on which length counts.
"""

import numpy as np

import seamark as sm
from seamark.models import Bias, Position, Reliability

# votes with known truth: model m has value v[m]; its texts are longer the better it is; length moves each rater by about 0.6 per 100 words
rng = np.random.default_rng(0)
names = ["ada", "bert", "cleo", "dino", "eve", "fred", "gus", "hal"]
value = np.array([1.0, 0.8, 0.4, 0.2, 0.0, -0.4, -0.8, -1.2])
n = 6000
left = rng.integers(0, 8, n)
right = (left + rng.integers(1, 8, n)) % 8
rater = rng.integers(0, 40, n)
words = {side: 150 + 60 * value[shown] + 80 * rng.normal(size=n) for side, shown in (("left", left), ("right", right))}
pull = 0.6 + 0.3 * rng.normal(size=40)  # of each rater, logits per 100 words
gap = value[left] - value[right] + pull[rater] * (words["left"] - words["right"]) / 100
won = rng.random(n) < 1 / (1 + np.exp(-gap))

votes = sm.Feedback.from_arrays(
    left_id=left, right_id=right, rater=rater, outcome=won, left_length=words["left"], right_length=words["right"],
    names={"response": names, "rater": [f"rater {r}" for r in range(40)]},
)  # fmt: skip

usual = (Reliability(), Position())
with_length = sm.fit(votes, utility=sm.Tabular(), observation=sm.Observation(effects=usual))
at_equal_length = sm.fit(votes, utility=sm.Tabular(), observation=sm.Observation(effects=(*usual, Bias("length", per_rater=True))))

_, sd = at_equal_length.data["biases"]["length"]
(bias,) = [p for p in at_equal_length.parameters if p.name == "bias by length"]
(spread,) = at_equal_length.spreads
for what, found, truth in (
    ("length gains", (bias.estimate, bias.low, bias.high), pull.mean()),
    ("raters differ by", (spread.sd, spread.low, spread.high), pull.std()),
):
    estimate, low, high = (100 * x / sd for x in found)  # from standard deviations of the difference to 100 words
    print(f"{what:<17} {estimate:.2f} [{low:.2f}, {high:.2f}] logits per 100 words, truth {truth:.2f}")

print("\nmodel   truth   at equal length   length counts     (logits above hal)")
row = np.array([votes.responses["name"].to_list().index(name) for name in names])
boards = [f.gaps(votes, row[:-1], row[-1:].repeat(7)) for f in (at_equal_length, with_length)]
for m, name in enumerate(names[:-1]):
    told = "     ".join(f"{b.mean[m]:+.2f} ± {1.96 * b.ignorance[m]:.2f}" for b in boards)
    print(f"{name:<6} {value[m] - value[-1]:+6.2f}   {told}")
