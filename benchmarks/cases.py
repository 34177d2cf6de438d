"""What is measured, one case per process: `python benchmarks/cases.py CASE FILE` prints one JSON object.

A case does what its library needs before the clock starts (imports, the library's own input), then times one call. `prepare_s` is
from NumPy arrays of codes to that input, `seconds` the call. Strengths are compared with the truth up to location and scale.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import data
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Result = dict[str, Any]


def _clock(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _recovery(made: data.Set, strength: Array) -> Result:
    """How well strengths agree with the truth."""
    truth = made["strength"]
    if "held" in made:
        left, right = made["held"].T
        gap = strength[left] - strength[right]
        right_way = np.where(gap == 0, 0.5, (gap > 0) == (truth[left] > truth[right]))
        return {"held_out": float(right_way.mean()), "n_held_out": len(gap)}
    x, y = strength - strength.mean(), truth - truth.mean()
    slope = (x @ y) / (x @ x)
    return {"correlation": float(np.corrcoef(x, y)[0, 1]), "rmse": float(np.sqrt(((slope * x - y) ** 2).mean())), "scale": float(1 / slope)}


def _fitted(prepare: Callable[[data.Set], Any], call: Callable[[Any], Array], *modules: str) -> Callable[[Path], Result]:
    """A case that imports the modules, prepares the input and times the call."""

    def case(path: Path) -> Result:
        for module in modules:
            import_module(module)
        made = dict(np.load(path))
        given, prepare_s = _clock(lambda: prepare(made))
        strength, seconds = _clock(lambda: call(given))
        return {"seconds": seconds, "prepare_s": prepare_s, **_recovery(made, np.asarray(strength, dtype=float))}

    return case


# ---------------------------------------------------------------------------------------------- seamark


def _feedback(made: data.Set) -> Any:
    import polars as pl

    import seamark as sm

    ids = pl.DataFrame({"left": made["left"], "right": made["right"]}).select(
        pl.concat_list(pl.col("left").cast(pl.String), pl.col("right").cast(pl.String)).alias("ids")
    )["ids"]
    n = len(made["left"])
    columns: dict[str, Any] = {"kind": ["pair"] * n, "ids": ids, "outcome": np.where(made["won"], "left", "right").tolist()}
    if "rater" in made:
        columns["rater"] = pl.Series(made["rater"]).cast(pl.String)
        columns["prompt_id"] = pl.Series(made["left"] // 4).cast(pl.String)
    columns["order_known"] = [True] * n
    return sm.Feedback.from_columns(columns), len(made["strength"])


def _in_order(feedback: Any, values: Array, n_items: int) -> Array:
    """Values by item code; an item nobody judged gets 0."""
    out = np.zeros(n_items)
    out[feedback.responses["name"].cast(int).to_numpy()] = values
    return out


def _seamark_plain(given: Any) -> Array:
    import seamark as sm

    feedback, n_items = given
    plain = sm.Observation(effects=(), lapse=False)
    fit = sm.fit(feedback, utility=sm.Tabular(), observation=plain, require_identified=False, require_converged=False)
    assert fit.convergence.converged, fit.convergence
    return _in_order(feedback, fit.utilities(feedback), n_items)


def _seamark_full(given: Any) -> Array:
    import seamark as sm

    feedback, n_items = given
    fit = sm.fit(feedback, utility=sm.Tabular(), require_identified=False, require_converged=False)
    assert fit.convergence.converged, fit.convergence
    return _in_order(feedback, fit.utilities(feedback), n_items)


# ---------------------------------------------------------------------------------------------- peers


def _wins(made: data.Set) -> Array:
    """(n_items, n_items) how often the row beat the column: the input choix's dense functions ask for."""
    n = len(made["strength"])
    winner, loser = np.where(made["won"], made["left"], made["right"]), np.where(made["won"], made["right"], made["left"])
    return np.bincount(winner * n + loser, minlength=n * n).reshape(n, n).astype(float)


def _choix_ilsr(wins: Array) -> Array:
    import choix

    return choix.ilsr_pairwise_dense(wins)


def _votes(made: data.Set) -> tuple[int, list[tuple[int, int]]]:
    winner, loser = np.where(made["won"], made["left"], made["right"]), np.where(made["won"], made["right"], made["left"])
    return len(made["strength"]), list(zip(winner.tolist(), loser.tolist(), strict=True))


def _choix_opt(given: tuple[int, list[tuple[int, int]]]) -> Array:
    import choix

    return choix.opt_pairwise(*given)


def _lists(made: data.Set) -> Any:
    import evalica

    words = np.array([evalica.Winner.Y, evalica.Winner.X], dtype=object)
    return made["left"].tolist(), made["right"].tolist(), words[made["won"].astype(int)].tolist(), len(made["strength"])


def _evalica(name: str) -> Callable[[Any], Array]:
    def call(given: Any) -> Array:
        import evalica

        left, right, winners, n_items = given
        scores = getattr(evalica, name)(left, right, winners).scores
        out = np.zeros(n_items)
        # scores are positive and multiply; ours are logits
        if not np.isfinite(scores.to_numpy()).all():
            raise ValueError(f"{(~np.isfinite(scores.to_numpy())).sum()} of {len(scores)} scores are not finite")
        if np.ptp(scores.to_numpy()) == 0:
            raise ValueError("all scores are equal, whatever the tolerance")
        logits = np.log(np.maximum(scores.to_numpy(), 1e-300))
        # an item that lost everything has no finite estimate: keep it at the end of the scale
        out[scores.index.to_numpy()] = np.clip(logits, np.median(logits) - 10, np.median(logits) + 10)
        return out

    return call


def _design(made: data.Set) -> Any:
    from scipy.sparse import csr_array

    n = len(made["left"])
    rows = np.repeat(np.arange(n), 2)
    columns = np.stack([made["left"], made["right"]], 1).ravel()
    return csr_array((np.tile([1.0, -1.0], n), (rows, columns)), shape=(n, len(made["strength"]))), made["won"].astype(int)


def _logistic(given: Any) -> Array:
    from sklearn.linear_model import LogisticRegression

    # C=1 is a normal prior with standard deviation 1 logit. The default tol is for the mean gradient, which many items make so
    # small that it stops early, with 100,000 items at the start.
    return LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000, tol=1e-8).fit(*given).coef_[0]


def _tasks(made: data.Set) -> Any:
    import pandas as pd

    low, high = np.minimum(made["left"], made["right"]), np.maximum(made["left"], made["right"])
    low_won = (made["left"] == low) == made["won"]
    pair = low * len(made["strength"]) + high
    frame = pd.DataFrame({"task": pair, "worker": made["rater"], "label": low_won.astype(int)})
    return frame, len(made["strength"])


def _dawid_skene(given: Any) -> Array:
    """Dawid-Skene labels per pair, then a Bradley-Terry fit to the labels."""
    from crowdkit.aggregation import DawidSkene

    frame, n_items = given
    labels = DawidSkene(n_iter=100).fit_predict(frame)
    pair = labels.index.to_numpy()
    return _logistic(
        _design({"left": pair // n_items, "right": pair % n_items, "won": labels.to_numpy() == 1, "strength": np.empty(n_items)})
    )


def _labelled(made: data.Set) -> Any:
    import pandas as pd

    winner = np.where(made["won"], made["left"], made["right"])
    frame = pd.DataFrame({"worker": made["rater"], "left": made["left"], "right": made["right"], "label": winner})
    return frame, len(made["strength"])


def _noisy_bradley_terry(given: Any) -> Array:
    from crowdkit.aggregation import NoisyBradleyTerry

    frame, n_items = given
    scores = NoisyBradleyTerry(n_iter=10).fit_predict(frame)
    out = np.zeros(n_items)
    out[scores.index.to_numpy()] = scores.to_numpy()
    return out


# ---------------------------------------------------------------------------------------------- loading and studies


def _load(path: Path) -> Result:
    from seamark import load

    feedback, seconds = _clock(lambda: load(path))
    return {"seconds": seconds, "n_responses": feedback.n_responses}


def _read_plain(path: Path) -> Result:
    """The floor: a fast parser over the same bytes, keeping nothing of ours."""
    import orjson
    import polars as pl

    def lines() -> int:
        with path.open("rb") as stream:
            return sum(1 for line in stream if orjson.loads(line))

    rows, seconds = _clock(lines if path.suffix == ".jsonl" else lambda: pl.read_csv(path).height)
    return {"seconds": seconds, "rows": rows}


def _study(path: Path) -> Result:
    import seamark as sm

    stages: dict[str, float] = {}
    state = ["importing", time.perf_counter()]

    def progress(stage: str, _share: float) -> None:
        now = time.perf_counter()
        stages[state[0]] = stages.get(state[0], 0.0) + now - state[1]
        state[:] = [stage, now]

    out = path.with_suffix(".study")
    study, seconds = _clock(lambda: sm.run_study(path, out, progress=progress))
    accuracy = study.findings.get("accuracy")
    return {
        "seconds": seconds,
        "stages": {name: round(s, 2) for name, s in stages.items()},
        "converged": study.fit is not None and study.fit.convergence.converged,
        "held_out": None if accuracy is None else accuracy.estimate,
        "n_held_out": None if accuracy is None else accuracy.n,
    }


_OURS = ("torch", "seamark.models.fitting")
CASES: dict[str, Callable[[Path], Result]] = {
    "load": _load,
    "parse": _read_plain,
    "seamark": _fitted(_feedback, _seamark_plain, *_OURS),
    "seamark with raters": _fitted(_feedback, _seamark_full, *_OURS),
    "choix ilsr": _fitted(_wins, _choix_ilsr, "choix"),
    "choix opt": _fitted(_votes, _choix_opt, "choix"),
    "evalica bradley_terry": _fitted(_lists, _evalica("bradley_terry"), "evalica"),
    "evalica newman": _fitted(_lists, _evalica("newman"), "evalica"),
    "scikit-learn": _fitted(_design, _logistic, "sklearn.linear_model"),
    "crowd-kit DawidSkene, BT": _fitted(_tasks, _dawid_skene, "crowdkit.aggregation", "sklearn.linear_model"),
    "crowd-kit NoisyBradleyTerry": _fitted(_labelled, _noisy_bradley_terry, "crowdkit.aggregation"),
    "study": _study,
}


# ---------------------------------------------------------------------------------------------- files of a run


def make(kind: str, path: Path, n: int) -> None:
    """Write the data set or file that a case reads."""
    if kind == "dialogues":
        data.write_dialogues(path, n)
    elif kind == "society":
        import seamark as sm

        n_prompts = min(3000, max(20, n // 20))
        sm.simulate(n_prompts=n_prompts, n_raters=max(20, n // 50), n_judgments=n).feedback.to_jsonl(path)
    elif path.suffix == ".npz":
        np.savez(path, **data.SETS[kind](n))
    else:
        data.write_ids(path, data.SETS[kind](n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help=f"make:SET, or one of {', '.join(CASES)}")
    parser.add_argument("path", type=Path)
    parser.add_argument("--n", type=int, default=0, help="judgments, for make")
    arguments = parser.parse_args()
    if arguments.case.startswith("make:"):
        make(arguments.case.removeprefix("make:"), arguments.path, arguments.n)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        json.dump(CASES[arguments.case](arguments.path), sys.stdout)


if __name__ == "__main__":
    main()
