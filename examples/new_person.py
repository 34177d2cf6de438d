"""A new person, known by a few labels: whose values they share, and what they would prefer.

    python examples/new_person.py

Raters are of kinds that no column tells (`Personas`): here two, who disagree about half of twelve answers. `for_person` places a new
person among them by their first labels. No training: a posterior over the kinds, which begins at everybody's shares.
"""

import numpy as np

import seamark as sm
from seamark.models import Observation, Personas, for_person

rng = np.random.default_rng(1)
names = [f"answer {i}" for i in range(12)]
shared = rng.normal(size=12)
apart = np.where(np.arange(12) < 6, 1.5, 0.0) * rng.choice([-1, 1], 12)  # what one kind likes and the other does not
values = {"kind one": shared + apart, "kind two": shared - apart}


def labels(kind, n, rater):
    """n votes of a person of this kind, on pairs drawn at random."""
    left = rng.integers(0, 12, n)
    right = (left + rng.integers(1, 12, n)) % 12
    gap = values[kind][left] - values[kind][right]
    return {"left": left, "right": right, "won": rng.random(n) < 1 / (1 + np.exp(-gap)), "rater": [rater] * n}


def feedback(parts):
    """Votes of several people as one feedback."""
    columns = {name: np.concatenate([p[name] for p in parts]) for name in ("left", "right", "won", "rater")}
    return sm.Feedback.from_arrays(
        left_id=columns["left"], right_id=columns["right"], outcome=columns["won"], rater=columns["rater"], names={"response": names}
    )


crowd = feedback([labels("kind one" if r % 3 else "kind two", 50, f"rater {r}") for r in range(90)])
everybody = sm.fit(crowd, utility=sm.Tabular(), people=Personas(2), observation=Observation(effects=(), lapse=False))
truth = {kind: 1 / (1 + np.exp(v[1] - v[0])) for kind, v in values.items()}
print(f"{names[0]} against {names[1]}: preferred by {truth['kind one']:.0%} of kind one, {truth['kind two']:.0%} of kind two\n")

new = labels("kind two", 20, "new")
print("labels   shares of the kinds   preferred   disagreement")
for n in (0, 1, 2, 5, 10, 20):
    person = everybody if n == 0 else for_person(everybody, feedback([{name: column[:n] for name, column in new.items()}]))
    said = person.compare(names[0], names[1])
    shares = " / ".join(f"{share:.0%}" for share in person.group_share)
    print(f"{n:6}   {shares:<19}   {said.p:9.0%}   {said.disagreement:.2f} logits")
