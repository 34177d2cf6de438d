"""The whole of Seamark in one page of NumPy: from records of who preferred what to a reward that knows how sure it is.

    python examples/mini_seamark.py [JUDGMENTS.jsonl]

A record is {"rater", "group", "first", "second", "winner"}: one person saw two things in this order and took one of them.

    gap   = value_g[first] - value_g[second],  value_g = shared + what group g adds                        [logits]
    P(first wins) = sigmoid(slope_rater * gap + position),   slope: careful N(1, spread^2) above 0, or 0 = at chance
"""

import json
import sys
from pathlib import Path

import numpy as np

NODES = np.concatenate([[0.0], np.linspace(0.1, 2.5, 25)])  # slopes a rater may have; the first is the rater who answers at chance
GAUSS = np.polynomial.hermite_e.hermegauss(15) / np.array([[1.0], [np.sqrt(2 * np.pi)]])  # nodes and weights of a standard normal


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def read(lines):
    """Columns of integer codes, and the names behind them."""
    records = [json.loads(line) for line in lines]
    things = sorted({r[side] for r in records for side in ("first", "second")})
    names = {"thing": things, "rater": sorted({r["rater"] for r in records}), "group": sorted({r["group"] for r in records})}
    code = {kind: {name: i for i, name in enumerate(of)} for kind, of in names.items()}
    columns = {"first": "thing", "second": "thing", "rater": "rater", "group": "group"}
    data = {field: np.array([code[kind][r[field]] for r in records]) for field, kind in columns.items()}
    return data | {"y": np.array([r["winner"] == r["first"] for r in records], float)}, names


def design(data, n_things, n_groups):
    """One row per judgment: which value counts for it and which against (shared, then one block per group)."""
    X, row = np.zeros((len(data["y"]), n_things * (1 + n_groups))), np.arange(len(data["y"]))
    for block in (0, n_things * (1 + data["group"])):
        X[row, block + data["first"]] += 1
        X[row, block + data["second"]] -= 1
    return X


def log_prior(share_at_chance, spread):
    """Log mass of the nodes: at chance, and careful around 1."""
    careful = np.exp(-0.5 * ((NODES[1:] - 1) / spread) ** 2)
    return np.log(np.append(share_at_chance, (1 - share_at_chance) * careful / careful.sum()))


def fit(data, n_things, n_raters, n_groups, rounds=40):
    """Values with their covariance, the raters' slopes, position; prior strengths by evidence and EM."""
    X, y, rater = design(data, n_things, n_groups), data["y"], data["rater"]
    n_values = X.shape[1]
    parts = [slice(0, n_things), slice(n_things, n_values)]  # shared values, groups' values: a prior variance each
    precision = np.ones(n_values + 1)  # the last parameter is position, with a prior sd of 1 logit
    precision[parts[1]] = 10.0
    x, share, spread, sd = np.zeros(n_values + 1), 0.1, 0.3, np.zeros(len(y))
    for _ in range(rounds):
        # E: how likely is each slope for each rater, given all that they answered; averaged over what the gaps may be, since
        # taking the best guess of both would let the slopes grow and the values shrink without end
        each = np.tile(log_prior(share, spread), (n_raters, 1))
        for z, w in zip(*GAUSS, strict=True):
            contrast = np.outer(X @ x[:-1] + z * sd, NODES) + x[-1]  # (judgments, nodes)
            np.add.at(each, rater, -w * np.logaddexp(0, np.where(y[:, None] > 0, -contrast, contrast)))
        posterior = np.exp(each - each.max(1, keepdims=True))
        posterior /= posterior.sum(1, keepdims=True)
        # M: a Newton step on the values and position, the slopes averaged out
        weight, p = posterior[rater], sigmoid(np.outer(X @ x[:-1], NODES) + x[-1])
        residual, w = y[:, None] - p, p * (1 - p)
        gradient = np.append(X.T @ (weight * residual * NODES).sum(1), (weight * residual).sum()) - precision * x
        cross = X.T @ (weight * w * NODES).sum(1)
        A = np.block([[X.T @ (X * (weight * w * NODES**2).sum(1)[:, None]), cross[:, None]], [cross, (weight * w).sum()]])
        A += np.diag(precision)
        x = x + np.linalg.solve(A, gradient)
        # prior variances: squares over the number of well determined values (MacKay 1992); a few imagined raters steady the rest
        inverse = np.linalg.inv(A)
        sd = np.sqrt(np.maximum(np.einsum("np,pq,nq->n", X, inverse[:-1, :-1], X), 0))
        for part in parts:
            size = part.stop - part.start
            determined = np.clip(size - np.diag(inverse)[part].sum() * precision[part.start], 1e-3 * size, size)
            precision[part] = determined / max((x[part] ** 2).sum(), 1e-6)
        careful = posterior[:, 1:]
        share = (posterior[:, 0].sum() + 0.5) / (n_raters + 4.5)
        spread = np.clip(np.sqrt(((careful * (NODES[1:] - 1) ** 2).sum() + 2 * 0.3**2) / (careful.sum() + 2)), 0.05, 0.5)
    # covariance: not knowing the slopes takes away the information that they would have given (Louis 1982)
    score = np.concatenate([X[:, None, :] * (residual * NODES)[:, :, None], residual[:, :, None]], 2)
    by_rater = np.zeros((n_raters, len(NODES), n_values + 1))
    np.add.at(by_rater, rater, score)
    mean = np.einsum("rq,rqp->rp", posterior, by_rater)
    missing = np.einsum("rq,rqp,rqs->ps", posterior, by_rater, by_rater) - mean.T @ mean
    covariance = np.linalg.inv(A - missing)[:-1, :-1]
    heads = np.bincount(np.unique(np.stack([rater, data["group"]]), axis=1)[1], minlength=n_groups)
    return {"x": x[:-1], "covariance": covariance, "position": x[-1], "slope": posterior @ NODES, "p_chance": posterior[:, 0],
            "share": heads / heads.sum(), "n_things": n_things}  # fmt: skip


def gap(model, a, b):
    """For pairs of things: gap for each group (n, G), for the mean person (n,), and the posterior sd of the latter."""
    n_groups, n = len(model["share"]), model["n_things"]
    rows = [design({"first": a, "second": b, "group": np.full(len(a), g), "y": a}, n, n_groups) for g in range(n_groups)]
    mean_person = np.tensordot(model["share"], rows, 1)
    sd = np.sqrt(np.einsum("np,pq,nq->n", mean_person, model["covariance"], mean_person))
    return np.stack([row @ model["x"] for row in rows], 1), mean_person @ model["x"], sd


def doubts(model, a, b):
    """p that a person prefers a, and p (1 - p) as noise + disagreement + ignorance: the law of total variance."""
    by_group, _, sd = gap(model, a, b)
    z, w = GAUSS
    s = sigmoid(by_group[:, :, None] + sd[:, None, None] * z)  # (pairs, groups, what the values may be)
    people = np.einsum("ngq,g->nq", s, model["share"])
    p = people @ w
    noise = np.einsum("ngq,g,q->n", s * (1 - s), model["share"], w)
    disagreement = (np.einsum("ngq,g->nq", s**2, model["share"]) - people**2) @ w
    return p, noise, disagreement, people**2 @ w - p**2


def reward(model, penalty=1.0):
    """One number per thing: its value for the mean person, less a penalty for not knowing it; against the average thing."""
    n, G = model["n_things"], len(model["share"])
    rows = np.hstack([np.eye(n) - 1 / n, *(share * (np.eye(n) - 1 / n) for share in model["share"])]).reshape(n, n * (1 + G))
    sd = np.sqrt(np.einsum("np,pq,nq->n", rows, model["covariance"], rows))
    return rows @ model["x"] - penalty * sd, rows @ model["x"], sd


def made_up(n=3000, seed=0):
    """Judgments of eight things by thirty raters of two tastes, three of whom answer at chance and all of whom favour the first."""
    rng = np.random.default_rng(seed)
    value, slope = rng.normal(size=(2, 8)) * 0.8 + rng.normal(size=8), np.where(np.arange(30) < 3, 0.0, 1.0)
    for _ in range(n):
        (a, b), r = rng.choice(8, 2, replace=False), rng.integers(30)
        first = rng.random() < sigmoid(slope[r] * (value[r % 2, a] - value[r % 2, b]) + 0.3)
        yield json.dumps(
            {"rater": f"r{r:02d}", "group": "AB"[r % 2], "first": f"t{a}", "second": f"t{b}", "winner": f"t{a if first else b}"}
        )


def main(lines):
    data, names = read(lines)
    held = np.arange(len(data["y"])) % 5 == 0
    model = fit({k: v[~held] for k, v in data.items()}, *(len(names[k]) for k in ("thing", "rater", "group")))
    test = {k: v[held] for k, v in data.items()}
    print("reward   value  ignorance")
    for name, score, value, sd in sorted(zip(names["thing"], *reward(model), strict=True), key=lambda row: -row[1]):
        print(f"{score:+6.2f}  {value:+6.2f}     {sd:5.2f}   {name}")
    print(f"\nshown first: {model['position']:+.2f} logits; at chance: {', '.join(np.array(names['rater'])[model['p_chance'] > 0.5])}")
    p, *parts = doubts(model, test["first"], test["second"])
    print("doubt: {:.0%} noise, {:.0%} disagreement, {:.0%} ignorance".format(*(part.sum() / (p * (1 - p)).sum() for part in parts)))
    by_group = gap(model, test["first"], test["second"])[0][np.arange(held.sum()), test["group"]]
    p = sigmoid(model["slope"][test["rater"]] * by_group + model["position"])
    for low in (0.0, 0.25, 0.5, 0.75):
        if (use := (p >= low) & (p < low + 0.25)).any():
            print(f"held out: said {p[use].mean():.0%}, was {test['y'][use].mean():.0%} of {use.sum()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if len(sys.argv) > 1 else made_up())
