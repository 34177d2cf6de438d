"""What other libraries do with the same judgments: their input made from our sets, the call that is timed, and strengths from it.

Conventions
-----------
A *prepare* function makes a library's own input from a set (`data.py`), a *call* works on it, a *read* makes of what the call gave
strengths in logits by item code. An item that nobody judged gets 0. FastChat is no library to be imported: `fastchat_*` do what its
rating_systems.py does (lm-sys/FastChat, fastchat/serve/monitor/rating_systems.py), step for step.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from data import Set, style_features
from numpy.typing import NDArray

Array = NDArray[np.float64]
LOG_TEN = float(np.log(10.0))
"""FastChat's scale: its ratings are in tens, times 400."""
_FAR = 10.0
"""Strengths that have no finite estimate are put so far from the median."""


def names_of(codes: NDArray[np.int32]) -> NDArray[Any]:
    """Model names as a leaderboard has them."""
    table = np.array([f"model-{i:06d}-chat" for i in range(int(codes.max(initial=0)) + 1)], dtype=object)
    return table[codes]


def code_of(name: str) -> int:
    """The item code in a name, or in a number written as text."""
    return int(name.split("-")[1]) if "-" in name else int(name)


def by_item(names: Any, values: Any, n_items: int) -> Array:
    """Values by item code, from values by name or code."""
    out = np.zeros(n_items)
    out[[code_of(name) if isinstance(name, str) else int(name) for name in names]] = np.asarray(values, dtype=float)
    return out


# ---------------------------------------------------------------------------------------------- choix


def wins(made: Set) -> Array:
    """(n_items, n_items) how often the row beat the column: the input of choix's dense functions."""
    n = made["strength"].shape[-1]
    winner, loser = np.where(made["won"] == 1, (made["left"], made["right"]), (made["right"], made["left"])).astype(np.int64)
    return np.bincount(winner * n + loser, minlength=n * n).reshape(n, n).astype(float)


def choix_dense(counts: Array) -> Array:
    import choix

    return choix.ilsr_pairwise_dense(counts)


def choix_from_names(given: Any) -> Any:
    """Names to codes by pandas, counts by NumPy, and the dense function: what a user of choix would write."""
    import choix
    import pandas as pd

    codes, models = pd.factorize(pd.concat([given["model_a"], given["model_b"]]))
    left, right = codes.reshape(2, -1)
    won = (given["winner"] == "model_a").to_numpy()
    n = len(models)
    winner, loser = np.where(won, left, right), np.where(won, right, left)
    return models, choix.ilsr_pairwise_dense(np.bincount(winner * n + loser, minlength=n * n).reshape(n, n).astype(float))


def votes(made: Set) -> tuple[int, list[tuple[int, int]]]:
    winner, loser = np.where(made["won"] == 1, (made["left"], made["right"]), (made["right"], made["left"]))
    return len(made["strength"]), list(zip(winner.tolist(), loser.tolist(), strict=True))


def choix_mm(given: tuple[int, list[tuple[int, int]]]) -> Array:
    import choix

    return choix.mm_pairwise(*given, alpha=0.1)


# ---------------------------------------------------------------------------------------------- evalica


def evalica_lists(made: Set) -> Any:
    import evalica

    words = np.array([evalica.Winner.Y, evalica.Winner.X, evalica.Winner.Draw], dtype=object)
    return made["left"].tolist(), made["right"].tolist(), words[made["won"]].tolist()


def evalica_names(made: Set) -> Any:
    winners = evalica_lists(made)[2]
    return names_of(made["left"]).tolist(), names_of(made["right"]).tolist(), winners


def evalica_fit(name: str, **settings: Any) -> Any:
    """The call of one of its methods."""

    def call(given: Any) -> Any:
        import evalica

        return getattr(evalica, name)(*given, **settings).scores

    return call


def evalica_logits(scores: Any, made: Set) -> Array:
    """Its scores are positive and multiply."""
    values = np.log(np.maximum(scores.to_numpy(), 1e-300))
    values = np.clip(values, np.median(values) - _FAR, np.median(values) + _FAR)
    return by_item(scores.index, values, made["strength"].shape[-1])


def evalica_bootstrap(given: Any) -> Any:
    import evalica

    # percentile: what FastChat does; the default BCa needs a jackknife of all rows besides
    return evalica.bootstrap(evalica.bradley_terry, *given, n_resamples=100, bootstrap_method="percentile", random_state=0)


# ---------------------------------------------------------------------------------------------- FastChat


def arena_codes(made: Set) -> Any:
    """The table of battles that its functions take, models as whole numbers."""
    import pandas as pd

    words = np.array(["model_b", "model_a", "tie"], dtype=object)
    return pd.DataFrame({"model_a": made["left"], "model_b": made["right"], "winner": words[made["won"]]})


def arena_names(made: Set) -> Any:
    return arena_codes(made).assign(model_a=names_of(made["left"]), model_b=names_of(made["right"]))


def _matchups(battles: Any) -> tuple[NDArray[Any], Any]:
    import pandas as pd

    n = len(battles)
    codes, models = pd.factorize(pd.concat([battles["model_a"], battles["model_b"]]))
    return np.column_stack([codes[:n], codes[n:]]), models


def _outcomes(battles: Any) -> tuple[NDArray[Any], Array, Any, Array]:
    """preprocess_for_bt: distinct (model, model, outcome) rows and their counts; 2 a win, 1 a tie, 0 a loss."""
    schedule = np.full((len(battles), 3), fill_value=1, dtype=np.int32)
    schedule[:, [0, 1]], models = _matchups(battles)
    schedule[battles["winner"] == "model_a", 2] = 2
    schedule[battles["winner"] == "model_b", 2] = 0
    rows, weights = np.unique(schedule, return_counts=True, axis=0)
    return rows[:, [0, 1]], rows[:, 2].astype(np.float64) / 2.0, models, weights.astype(np.float64)


def _loss(ratings: Array, matchups: NDArray[Any], outcomes: Array, weights: Array) -> tuple[float, Array]:
    from scipy.special import expit

    pair = ratings[matchups]
    p = expit(LOG_TEN * (pair[:, 0] - pair[:, 1]))
    loss = -((np.log(p) * outcomes + np.log(1.0 - p) * (1.0 - outcomes)) * weights).sum()
    gradient = np.zeros_like(ratings)
    np.add.at(gradient, matchups, (-LOG_TEN * (outcomes - p) * weights)[:, None] * np.array([1.0, -1.0]))
    return loss, gradient


def _fit_bt(weights: Array, matchups: NDArray[Any], outcomes: Array, n_models: int) -> Array:
    from scipy.optimize import minimize

    settings = {"maxiter": 100, "gtol": 1e-6}
    with np.errstate(all="ignore"):
        found = minimize(_loss, np.zeros(n_models), (matchups, outcomes, weights), jac=True, method="L-BFGS-B", options=settings)
    return found["x"]


def fastchat(battles: Any) -> Any:
    """compute_bt, in its units."""
    matchups, outcomes, models, weights = _outcomes(battles)
    return models, _fit_bt(weights, matchups, outcomes, len(models))


def fastchat_logits(found: Any, made: Set) -> Array:
    models, ratings = found
    return by_item(models, LOG_TEN * np.asarray(ratings), made["strength"].shape[-1])


def fastchat_bootstrap(battles: Any, *, rounds: int = 100, processes: int | None = None) -> Any:
    """compute_bootstrap_bt: counts of distinct rows drawn anew, every round a fit from the start, in a pool of processes."""
    import functools
    import multiprocessing

    matchups, outcomes, models, weights = _outcomes(battles)
    drawn = np.random.default_rng(0).multinomial(len(battles), weights / weights.sum(), size=rounds)
    fitted = functools.partial(_fit_bt, matchups=matchups, outcomes=outcomes, n_models=len(models))
    shares = drawn.astype(np.float64) / len(battles)
    if processes == 1:
        return models, np.array([fitted(share) for share in shares])
    with multiprocessing.get_context("fork").Pool(processes or os.cpu_count()) as pool:
        return models, np.array(pool.map(fitted, shares))


def style_table(made: Set) -> Any:
    return arena_codes(made), style_features(made["left_style"], made["right_style"])


def fastchat_style(given: Any) -> Any:
    """compute_style_control: one row a vote, ratings and coefficients under a ridge of 1/2, L-BFGS."""
    from scipy.optimize import minimize
    from scipy.special import expit

    battles, features = given
    matchups, models = _matchups(battles)
    outcomes = np.full(len(battles), 0.5)
    outcomes[battles["winner"] == "model_a"] = 1.0
    outcomes[battles["winner"] == "model_b"] = 0.0
    n = len(models)

    def loss(parameters: Array) -> tuple[float, Array]:
        pair = parameters[:n][matchups]
        p = expit(LOG_TEN * (pair[:, 0] - pair[:, 1]) + features @ parameters[n:])
        value = -(np.log(p) * outcomes + np.log(1.0 - p) * (1.0 - outcomes)).sum() + 0.5 * parameters @ parameters
        gradient = parameters.copy()
        error = outcomes - p
        np.add.at(gradient, matchups, (-LOG_TEN * error)[:, None] * np.array([1.0, -1.0]))
        gradient[n:] -= features.T @ error
        return value, gradient

    found = minimize(loss, np.zeros(n + features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 100, "gtol": 1e-6})
    return models, found["x"][:n], found["x"][n:]


# ---------------------------------------------------------------------------------------------- scikit-learn


def design(made: Set) -> Any:
    """A row a vote, +1 for the left item and -1 for the right one: the way of the notebooks."""
    return _rows(made["left"], made["right"], len(made["strength"])), made["won"].astype(int)


def _rows(left: NDArray[Any], right: NDArray[Any], n_items: int) -> Any:
    from scipy.sparse import csr_array

    n = len(left)
    columns = np.stack([left, right], 1).ravel()
    return csr_array((np.tile([1.0, -1.0], n), columns, np.arange(0, 2 * n + 1, 2)), shape=(n, n_items))


def logistic(C: float, tol: float = 1e-4) -> Any:
    """C=1e4: next to no prior, as the notebooks have it. C=1 is a normal prior with a standard deviation of 1 logit.

    Its tolerance is of the mean gradient, which with many items is below the usual 1e-4 before anything has been learned.
    """

    def call(given: Any) -> Array:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=C, tol=tol, fit_intercept=False, max_iter=1000).fit(*given).coef_[0]

    return call


def logistic_from_names(battles: Any) -> Any:
    matchups, models = _matchups(battles)
    won = (battles["winner"] == "model_a").to_numpy().astype(int)
    return models, logistic(1e4)((_rows(matchups[:, 0], matchups[:, 1], len(models)), won))


def style_design(made: Set) -> Any:
    from scipy.sparse import csr_array, hstack

    rows, won = design(made)
    return csr_array(hstack([rows, csr_array(style_features(made["left_style"], made["right_style"]))])), won


# ---------------------------------------------------------------------------------------------- annotators


def labelled(made: Set) -> Any:
    import pandas as pd

    winner = np.where(made["won"] == 1, made["left"], made["right"])
    return pd.DataFrame({"worker": made["rater"], "left": made["left"], "right": made["right"], "label": winner})


def noisy_bradley_terry(frame: Any) -> Any:
    from crowdkit.aggregation import NoisyBradleyTerry

    return NoisyBradleyTerry().fit_predict(frame)


def tasks(made: Set) -> Any:
    import pandas as pd

    low, high = np.minimum(made["left"], made["right"]).astype(np.int64), np.maximum(made["left"], made["right"])
    low_won = (made["left"] == low) == (made["won"] == 1)
    return pd.DataFrame({"task": low * len(made["strength"]) + high, "worker": made["rater"], "label": low_won.astype(int)}), len(
        made["strength"]
    )


def dawid_skene(given: Any) -> Array:
    """Dawid-Skene labels per pair, then a Bradley-Terry fit to the labels."""
    from crowdkit.aggregation import DawidSkene

    frame, n_items = given
    labels = DawidSkene(n_iter=100).fit_predict(frame)
    pair = labels.index.to_numpy()
    return logistic(1.0)((_rows(pair // n_items, pair % n_items, n_items), labels.to_numpy().astype(int)))


def coded(made: Set) -> Set:
    return made


def numpyro_svi(made: Set) -> Array:
    """Strengths, slopes and shifts of raters, all normal with scales that are learnt; mean-field variational inference."""
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    left, right, rater = jnp.array(made["left"]), jnp.array(made["right"]), jnp.array(made["rater"])
    won = jnp.array(made["won"])
    n_items, n_raters = len(made["strength"]), len(made["slope"])

    def model() -> None:
        slope_sd, shift_sd = numpyro.sample("slope_sd", dist.HalfNormal(1.0)), numpyro.sample("shift_sd", dist.HalfNormal(1.0))
        mean, lean = numpyro.sample("mean", dist.Normal(1.0, 0.5)), numpyro.sample("lean", dist.Normal(0.0, 0.5))
        strength = numpyro.sample("strength", dist.Normal(0.0, 1.0).expand([n_items]).to_event(1))
        slope = numpyro.sample("slope", dist.Normal(mean, slope_sd).expand([n_raters]).to_event(1))
        shift = numpyro.sample("shift", dist.Normal(lean, shift_sd).expand([n_raters]).to_event(1))
        numpyro.sample("won", dist.Bernoulli(logits=slope[rater] * (strength[left] - strength[right]) + shift[rater]), obs=won)

    guide = AutoNormal(model, init_scale=0.1)
    found = SVI(model, guide, numpyro.optim.Adam(0.03), Trace_ELBO()).run(jax.random.PRNGKey(0), 1500, progress_bar=False)
    return np.asarray(guide.median(found.params)["strength"], dtype=float)


def oracle(made: Set) -> Array:
    """Strengths under their true prior, with the raters' true slopes and shifts: what knowing the raters is worth at most."""
    from scipy.optimize import minimize
    from scipy.special import expit

    left, right, n = made["left"], made["right"], len(made["strength"])
    slope, shift, won = made["slope"][made["rater"]], made["shift"][made["rater"]], made["won"]

    def loss(strength: Array) -> tuple[float, Array]:
        z = slope * (strength[left] - strength[right]) + shift
        error = slope * (expit(z) - won)
        value = (np.logaddexp(0, z) - won * z).sum() + 0.5 * strength @ strength
        return value, np.bincount(left, error, n) - np.bincount(right, error, n) + strength

    return minimize(loss, np.zeros(n), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-4}).x


# ---------------------------------------------------------------------------------------------- many repetitions


def each(prepare: Any, repetitions: int) -> Any:
    """The inputs of the first so many sets of `tastes`."""

    def made_each(made: Set) -> Any:
        rows = range(min(repetitions, len(made["left"])))
        return [prepare({name: values[row] for name, values in made.items()}) for row in rows]

    return made_each


def evalica_intervals(inputs: Any) -> Any:
    """(low, high) of the gaps of all pairs, for each repetition, from the percentiles of 100 rounds."""
    out = []
    for given in inputs:
        rounds = evalica_bootstrap(given).distribution
        order = np.argsort([int(item) for item in rounds.columns])
        out.append(gap_quantiles(np.log(np.maximum(rounds.to_numpy()[:, order], 1e-300))))
    return out


def fastchat_intervals(inputs: Any) -> Any:
    out = []
    for battles in inputs:
        models, rounds = fastchat_bootstrap(battles, processes=1)
        out.append(gap_quantiles(LOG_TEN * rounds[:, np.argsort(models)]))
    return out


def gap_quantiles(strengths: Array) -> tuple[Array, Array]:
    """Ends of the 95% intervals of all gaps i - j, i < j, from rounds of strengths (rounds, n_items)."""
    one, two = np.triu_indices(strengths.shape[1], 1)
    low, high = np.quantile(strengths[:, one] - strengths[:, two], [0.025, 0.975], axis=0)
    return low, high


# ---------------------------------------------------------------------------------------------- time, agreement


def games(made: Set) -> Any:
    days, step = zip(made["day"].tolist(), strict=True), float(made["step"])
    winners = np.array(["W", "B"], dtype=object)[made["won"]].tolist()
    sides = zip(map(str, made["left"].tolist()), map(str, made["right"].tolist()), winners, days, strict=True)
    return [[left, right, winner, day, 0.0] for left, right, winner, (day,) in sides], step


def whole_history(given: Any) -> Any:
    """Twenty sweeps, given the true size of the daily steps: whr counts in Elo points."""
    from whr import Base

    rows, step = given
    base = Base(config={"w2": (step * 400 / LOG_TEN) ** 2})
    for row in rows:
        base.create_game(*row)
    base.iterate(20)
    return base


def last_ratings(base: Any, made: Set) -> Array:
    n = len(made["strength"])
    seen = np.union1d(made["left"], made["right"])
    return by_item(seen, [base.ratings_for_player(str(item))[-1][1] * LOG_TEN / 400 for item in seen.tolist()], n)


def units_by_raters(made: Set) -> Any:
    """The dense table that both packages take: a row a rater, NaN where nothing was said."""
    table = np.full(tuple(made["shape"].tolist()), np.nan)
    table[made["rater"], made["unit"]] = made["value"]
    return table


def units_by_raters_frame(made: Set) -> Any:
    import pandas as pd

    return pd.DataFrame(units_by_raters(made))


def evalica_alpha(frame: Any) -> float:
    import evalica

    return float(evalica.alpha(frame).alpha)


def krippendorff_alpha(table: Any) -> float:
    import krippendorff

    return float(krippendorff.alpha(table, level_of_measurement="nominal"))
