"""How many labels does a wanted accuracy take? Ours, plain Bradley-Terry, and an oracle that knows every rater.

    python benchmarks/label_efficiency.py                    resume where the results file stands, then write docs/label_efficiency.md
    python benchmarks/label_efficiency.py --parts crowd      some parts
    python benchmarks/label_efficiency.py --seeds 2          seeds 0 and 1 alone
    python benchmarks/label_efficiency.py --write            only the page, from the results
    python benchmarks/label_efficiency.py --quick            a tiny society, to see that it runs: nothing is kept

Conventions
-----------
A *society* has P prompts of 4 responses and a crowd of raters; i is a response with value s_i (logits, standard normal), w a rater:

    P(left) = sigmoid(beta_w (s_l + g len_l - s_r - g len_r) + b_w)        g = 0 but in the part `length`

Of the six pairs of a prompt four, a circle, are judged equally often; the two diagonals are held out, and accuracy is the share of
those whose order by the estimated values is their order by the true s. Judgments come in passes over all judged pairs, so that n
judgments are the first n of any larger number, by the same raters: curves of one seed differ by what was made of the labels alone.
The values of a rater are theirs whatever n is. `per_pair` is judgments per judged pair.

Labels needed for an accuracy: where the curve over log n of one seed first reaches it, on straight lines between the points.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, ndtri
from scipy.stats import t as student

from seamark import models
from seamark.models import Fit, Linear, Observation, Position, Reliability, Tabular, fit
from seamark.models.features import HashEncoder
from seamark.models.utility import RESIDUALS, Basis, Rows
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Result = dict[str, Any]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "label_efficiency.jsonl"
PAGE = HERE.parent / "docs" / "label_efficiency.md"

HARNESS = 1
"""Raised whenever societies or methods change: lines of another harness are not counted."""
TARGETS = (0.80, 0.85, 0.90)
MIX = (0.60, 0.20, 0.15, 0.05)
"""Shares of careful, noisy, by position, opposed."""
TEXT_SHARE = 0.60
"""Share of the variance of s that the words of a response settle."""
LENGTH_BIAS = 0.5
"""g, in logits per standard deviation of length."""
LENGTH_VALUE = 0.3
"""Correlation of length and value."""

# ---------------------------------------------------------------------------------------------- truth


@dataclass(frozen=True)
class Society:
    """Responses with values, raters, and an endless sequence of judgments, all from one seed."""

    value: Array
    """(4 P,) s"""
    texts: tuple[str, ...]
    """(4 P,) words that settle `TEXT_SHARE` of the variance of s."""
    length: Array
    """(4 P,) standard normal."""
    bias: float
    """g"""
    kind: Codes
    """(R,) 0 careful, 1 noisy, 2 by position, 3 opposed."""
    slope: Array
    """(R,) beta"""
    shift: Array
    """(R,) b"""
    careful: tuple[Array, Array]
    """beta and b that each rater has, or would have if they were careful."""
    activity: Array
    """(R,) share of the judgments."""
    judged: Codes
    """(4 P, 2) pairs."""
    held: Codes
    """(2 P, 2) pairs that are not judged."""
    seed: int

    def judgments(self, per_pair: int) -> Judgments:
        passes = [self._one_pass(k) for k in range(per_pair)]
        return Judgments(*(np.concatenate(column) for column in zip(*passes, strict=True)))

    def _one_pass(self, k: int) -> tuple[Codes, Codes, Codes, NDArray[np.bool_]]:
        """Each judged pair once, in a random order: left, right, rater, whether left won."""
        rng = np.random.default_rng([self.seed, 6, len(self.value), k])
        pair = rng.permutation(self.judged)
        left, right = np.where(rng.random((len(pair), 1)) < 0.5, pair, pair[:, ::-1]).T
        rater = rng.choice(len(self.slope), len(pair), p=self.activity)
        liked = self.value + self.bias * self.length
        return left, right, rater, rng.random(len(pair)) < expit(self.slope[rater] * (liked[left] - liked[right]) + self.shift[rater])


@dataclass(frozen=True)
class Judgments:
    left: Codes
    right: Codes
    rater: Codes
    won: NDArray[np.bool_]
    """Whether the left one was preferred."""

    def __len__(self) -> int:
        return len(self.won)


@lru_cache(maxsize=4)
def society(seed: int, n_prompts: int, n_raters: int, *, bias: float = 0.0) -> Society:
    rng = np.random.default_rng([seed, 5, n_prompts, n_raters])
    n = 4 * n_prompts
    texts, shown = _texts(n, rng)
    value = np.sqrt(TEXT_SHARE) * shown + np.sqrt(1 - TEXT_SHARE) * rng.normal(size=n)
    length = LENGTH_VALUE * value + np.sqrt(1 - LENGTH_VALUE**2) * rng.normal(size=n)
    counts = np.diff(np.round(np.cumsum((0.0, *MIX)) * n_raters).astype(int))
    kind = rng.permutation(np.repeat(np.arange(4), counts))
    careful = rng.lognormal(0.4, 0.3, n_raters), rng.normal(0.1, 0.2, n_raters)
    noisy, opposed = rng.lognormal(-1.2, 0.3, n_raters), -rng.lognormal(0.2, 0.3, n_raters)
    slope = np.choose(kind, [careful[0], noisy, np.zeros(n_raters), opposed])
    shift = np.where(kind == 2, rng.normal(0.0, 1.0, n_raters), careful[1])
    circle = rng.permuted(np.tile(np.arange(4), (n_prompts, 1)), axis=1) + 4 * np.arange(n_prompts)[:, None]
    judged = np.stack([circle, np.roll(circle, -1, axis=1)], -1).reshape(-1, 2)
    held = np.concatenate([circle[:, [0, 2]], circle[:, [1, 3]]])
    activity = rng.lognormal(0.0, 1.0, n_raters)
    return Society(
        value, texts, length, bias, kind, slope, shift, careful, activity / activity.sum(), judged, held, seed
    )  # fmt: skip


_VOCABULARY = [first + last for first in ("ba", "de", "ki", "lo", "mu", "no", "sa", "ter", "vi", "zu") for last in (
    "n", "la", "rim", "so", "ve", "dor", "t", "pel", "gan", "ri", "mo", "sk")]  # fmt: skip


def _texts(n: int, rng: np.random.Generator) -> tuple[tuple[str, ...], Array]:
    """Texts of 30 to 50 words drawn evenly from 120, each of which has a merit (standard normal), and what each text shows:

    t_i = sum of the merits of its words / sqrt(number of its words), standardised over texts.
    """
    merit = rng.normal(size=len(_VOCABULARY))
    texts, shown = [], np.zeros(n)
    for i in range(n):
        words = rng.integers(0, len(_VOCABULARY), rng.integers(30, 51))
        texts.append(" ".join(_VOCABULARY[w] for w in words) + ".")
        shown[i] = merit[words].sum() / np.sqrt(len(words))
    return tuple(texts), (shown - shown.mean()) / shown.std()


def corrupted(made: Society, given: Judgments, how: str, share: float = 0.3) -> tuple[Judgments, NDArray[np.bool_]]:
    """The same judgments, but some raters' answers replaced, and (R,) whose: coin flips, or always the side that is theirs."""
    rng = np.random.default_rng([made.seed, 7, len(made.value)])
    n_raters = len(made.slope)
    bad = rng.permutation(n_raters) < round(share * n_raters)
    side = rng.random(n_raters) < 0.5
    coin = np.random.default_rng([made.seed, 8, len(made.value), len(given)]).random(len(given)) < 0.5
    answer = coin if how == "coin" else side[given.rater]
    return replace(given, won=np.where(bad[given.rater], answer, given.won)), bad


def accuracy(made: Society, values: Array) -> float:
    """Share of held-out pairs in the right order; a gap of 0 counts half."""
    left, right = made.held.T
    gap = values[left] - values[right]
    return float(np.where(gap == 0, 0.5, (gap > 0) == (made.value[left] > made.value[right])).mean())


# ---------------------------------------------------------------------------------------------- those who know more


def oracle(made: Society, given: Judgments, *, bias: float = 0.0, tolerance: float = 1e-8) -> Array:
    """Mode of s under a standard normal prior, every beta_w, b_w and g known: Newton steps, one 4 x 4 block a prompt."""
    return _known_raters(made, given, bias=bias, tolerance=tolerance)[0]


def _known_raters(made: Society, given: Judgments, *, bias: float, tolerance: float = 1e-8) -> tuple[Array, float]:
    """The mode, and minus the log posterior there."""
    n = len(made.value)
    slope, won = made.slope[given.rater], given.won.astype(float)
    offset = made.shift[given.rater] + slope * bias * (made.length[given.left] - made.length[given.right])
    prompt, left, right = given.left // 4, given.left % 4, given.right % 4

    def objective(s: Array) -> float:
        eta = slope * (s[given.left] - s[given.right]) + offset
        return float(np.logaddexp(0, eta).sum() - won @ eta + s @ s / 2)

    s, now = np.zeros(n), np.inf
    for _ in range(100):
        now = objective(s)
        p = expit(slope * (s[given.left] - s[given.right]) + offset)
        pull, weight = slope * (won - p), slope**2 * p * (1 - p)
        gradient = np.bincount(given.left, pull, n) - np.bincount(given.right, pull, n) - s
        curve = np.tile(np.eye(4), (n // 4, 1, 1))
        for a, b, sign in ((left, left, 1), (right, right, 1), (left, right, -1), (right, left, -1)):
            np.add.at(curve, (prompt, a, b), sign * weight)
        step = np.linalg.solve(curve, gradient.reshape(-1, 4, 1)).ravel()
        if np.abs(step).max() < tolerance:
            return s, now
        length = 1.0
        while objective(s + length * step) > now and length > 1e-6:
            length /= 2
        s = s + length * step
    raise AssertionError("a concave problem that Newton steps do not solve")


def oracle_of_raters(made: Society, given: Judgments) -> tuple[Array, Result]:
    """As `oracle`, but g is not known: the joint mode of s and g, flat in g."""
    found = minimize_scalar(lambda g: _known_raters(made, given, bias=g, tolerance=1e-5)[1], bounds=(-3, 3), options={"xatol": 1e-3})
    return oracle(made, given, bias=float(found.x)), {"length": float(found.x)}


def population_known(made: Society, given: Judgments) -> tuple[Array, Result]:
    """Mode of s where how beta and b are distributed over raters is known exactly, but not which rater is which.

        log p(s) = sum_w log mean_k prod_j sigmoid(+-(beta_k (s_l - s_r) + b_k)) - s's / 2,    k over about 80 atoms of the four kinds

    What can be expected of a mode that must learn the raters from the same labels; it knows their distribution, which a fit estimates.
    """
    atoms, share = _atoms()
    order = np.argsort(given.rater, kind="stable")
    left, right, rater, won = (column[order] for column in (given.left, given.right, given.rater, given.won))
    sign = np.where(won, 1.0, -1.0)
    first = np.flatnonzero(np.diff(rater, prepend=-1))
    group = np.cumsum(np.diff(rater, prepend=rater[0]) > 0)
    slope, shift = atoms.T

    def objective(s: Array) -> tuple[float, Array]:
        eta = sign[:, None] * ((s[left] - s[right])[:, None] * slope + shift)
        rest = np.exp(-np.abs(eta))  # one exponential for both the probability and its logarithm
        log_p = np.minimum(eta, 0) - np.log1p(rest)
        per_rater = np.add.reduceat(log_p, first) + np.log(share)
        top = per_rater.max(1, keepdims=True)
        total = np.exp(per_rater - top)
        evidence = total.sum(1, keepdims=True)
        missed = np.where(eta >= 0, rest, 1.0) / (1 + rest)
        pull = sign * (((total / evidence)[group] * missed) @ slope)
        gradient = np.bincount(left, pull, len(s)) - np.bincount(right, pull, len(s)) - s
        return float(-(top + np.log(evidence)).sum() + s @ s / 2), -gradient

    # from what a crowd of equals would say, which sides with the majority
    start = _known_raters(replace(made, slope=np.full_like(made.slope, 0.8), shift=np.zeros_like(made.shift)), given, bias=0.0)[0]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-10, "gtol": 1e-3})
    return found.x, {"converged": bool(found.success), "steps": int(found.nit)}


def _atoms() -> tuple[Array, Array]:
    """(k, 2) beta and b, and (k,) shares: the four kinds as grids of equally likely values."""
    z5, z7, z15 = (ndtri((np.arange(m) + 0.5) / m) for m in (5, 7, 15))
    ways = [(np.exp(0.4 + 0.3 * z7), 0.1 + 0.2 * z5), (np.exp(-1.2 + 0.3 * z5), 0.1 + 0.2 * z5), (np.zeros(1), z15),
            (-np.exp(0.2 + 0.3 * z5), 0.1 + 0.2 * z5[1::2])]  # fmt: skip
    grids = [np.stack(np.meshgrid(*way), -1).reshape(-1, 2) for way in ways]
    return np.concatenate(grids), np.concatenate([np.full(len(grid), share / len(grid)) for grid, share in zip(grids, MIX, strict=True)])


# ---------------------------------------------------------------------------------------------- seamark


@dataclass(frozen=True)
class LengthBeside:
    """A value of its own for each response, beside a style part of one column, its length."""

    length: Array
    """(4 P,) by response number, which is its name."""

    def prepare(self, feedback: Feedback) -> Basis:
        matrix = self.length[_numbers(feedback)][:, None]
        n = len(matrix)
        ids = tuple(feedback.responses["id"].to_list())
        basis = Basis(n, matrix, (("style", slice(0, 1)), ("residual", slice(1, 1 + n))), response_ids=ids)
        rows = Rows(matrix, np.arange(n), np.ones(n, dtype=bool), np.zeros(n), np.zeros(n, dtype=bool))
        basis._last.append((feedback.responses, rows))  # there is no text to make features of
        return basis

    def factors(self, feedback: Feedback) -> tuple[Any, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Linear"}


def _numbers(feedback: Feedback) -> Codes:
    return feedback.responses["name"].cast(pl.Int64).to_numpy()


def to_feedback(made: Society, given: Judgments, *, texts: bool = False) -> Feedback:
    shown: dict[str, Any] = {"left_id": given.left, "right_id": given.right}
    if texts:
        written = pl.Series(made.texts)
        shown |= {"left": written[given.left], "right": written[given.right]}
    return Feedback.from_arrays(**shown, prompt_id=given.left // 4, rater=given.rater, outcome=given.won, order_known=True)


EFFECTS: dict[str, tuple[Any, ...]] = {
    "ours": (Reliability(), Position()),
    "ours, position per rater": (Reliability(), Position(per_rater=True)),
    "plain": (),
}


def _fitted(made: Society, given: Judgments, effects: str, utility: Any, *, without: tuple[str, ...] = ()) -> tuple[Array, Result]:
    feedback = to_feedback(made, given, texts=isinstance(utility, Linear))
    observation = Observation(effects=EFFECTS[effects])
    found: Fit = fit(feedback, utility=utility, observation=observation, require_identified=False, require_converged=False)
    values = np.zeros(len(made.value))
    values[_numbers(feedback)] = found.utilities(feedback, without=without)
    detail: Result = {"converged": found.convergence.converged, "iterations": found.convergence.iterations}
    if without:
        whole = np.zeros(len(made.value))
        whole[_numbers(feedback)] = found.utilities(feedback)
        detail |= {"accuracy_with_style": accuracy(made, whole), "length": float(found.weights[0, 0])}
    return values, detail | {"prior": {name: round(float(x), 4) for name, x in found.prior.items()}}


Method = Callable[[Society, Judgments], tuple[Array, Result]]


def _tabular(effects: str) -> Method:
    return lambda made, given: _fitted(made, given, effects, Tabular())


def _linear(utility: Linear) -> Method:
    return lambda made, given: _fitted(made, given, "ours", utility)


def _beside_length(effects: str) -> Method:
    return lambda made, given: _fitted(made, given, effects, LengthBeside(made.length), without=("style",))


# ---------------------------------------------------------------------------------------------- what is run


@dataclass(frozen=True)
class Part:
    """Methods over numbers of labels, in societies of one size."""

    name: str
    n_prompts: int
    n_raters: int
    methods: dict[str, tuple[Method, tuple[int, ...]]]
    """And the judgments per pair that each is run at."""
    bias: float = 0.0


GRID = (2, 3, 4, 6, 9, 14, 20, 30)
LONG = (*GRID, 45, 64, 90)
"""Where labels cost little to fit, and plain Bradley-Terry needs more."""


def _part(name: str, n_prompts: int, n_raters: int, rows: Sequence[tuple[str, Method, tuple[int, ...]]], bias: float = 0.0) -> Part:
    return Part(name, n_prompts, n_raters, {key: (method, grid) for key, method, grid in rows}, bias)


def _knowing(made: Society, given: Judgments) -> tuple[Array, Result]:
    return oracle(made, given, bias=made.bias), {}


def _corrupting(how: str, method: str) -> Method:
    """Careful raters throughout, 30% of whom are then corrupted; to the oracle they are known, and their answers worth nothing."""

    def run(made: Society, given: Judgments) -> tuple[Array, Result]:
        good = replace(made, slope=made.careful[0], shift=made.careful[1])
        clean = good.judgments(len(given) // len(made.judged))
        if how == "clean":
            return good_method(good, clean)
        spoilt, bad = corrupted(good, clean, how)
        return good_method(replace(good, slope=np.where(bad, 0.0, good.slope)), spoilt)

    good_method = _knowing if method == "oracle" else _tabular(method)
    return run


CORRUPTIONS = ("clean", "coin", "side")


def all_parts() -> tuple[Part, ...]:
    """A fit with a value beside features inverts one matrix over all responses: such parts have 500 prompts, not 1,250.

    Their raters are in proportion, so that judgments per pair and per rater are those of the large society.
    """
    knowing = ("oracle", _knowing, LONG)
    far = (*GRID, 45)  # some large societies take more than 30 judgments a pair to reach the last target
    ours, per_rater = ((name, _tabular(name), far) for name in ("ours", "ours, position per rater"))
    plain = ("plain", _tabular("plain"), LONG)
    unnamed = ("population known", population_known, far[2:])
    corrupting = [(f"{method}: {how}", _corrupting(how, method), (3, 20)) for method in (*EFFECTS, "oracle") for how in CORRUPTIONS]
    lengths = [(name, _beside_length(name), LONG) for name in ("ours", "plain")]
    return (
        _part("crowd", 1250, 2000, [knowing, ours, per_rater, plain, unnamed]),
        _part("length", 500, 800, [knowing, ("oracle, length fitted", oracle_of_raters, LONG), *lengths], LENGTH_BIAS),
        _part("corrupted", 1250, 2000, corrupting),
        _part("text", 500, 800, [knowing, ("ours", ours[1], GRID), plain, ("Linear", _linear(Linear("hash")), GRID[1:])]),
        _part("text, large", 1250, 2000, [("Linear", _linear(Linear("hash")), (6, 14, 30))]),
    )


@dataclass(frozen=True)
class Task:
    part: Part
    seed: int
    method: str
    per_pair: int

    @property
    def key(self) -> tuple[Any, ...]:
        return self.part.name, self.part.n_prompts, self.part.n_raters, self.seed, self.method, self.per_pair

    def run(self) -> Result:
        made = society(self.seed, self.part.n_prompts, self.part.n_raters, bias=self.part.bias)
        given = made.judgments(self.per_pair)
        start = time.perf_counter()
        values, detail = self.part.methods[self.method][0](made, given)
        seconds = time.perf_counter() - start
        names = ("part", "n_prompts", "n_raters", "seed", "method", "per_pair")
        return dict(zip(names, self.key, strict=True)) | {
            "n": len(given),
            "accuracy": accuracy(made, values),
            "n_held": len(made.held),
            "seconds": round(seconds, 2),
            "harness": HARNESS,
            "code": fingerprint(),
            **detail,
        }


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Of the fitting code: results of other code are told apart."""
    folder = Path(models.__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:12]


def tasks(parts: Sequence[Part], seeds: int) -> Iterator[Task]:
    for seed in range(seeds):
        for part in parts:
            for method, (_, grid) in part.methods.items():
                yield from (Task(part, seed, method, k) for k in grid)


def read_results(path: Path) -> list[Result]:
    """The finished fits; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [row for row in map(json.loads, lines) if row["harness"] == HARNESS]


def _key(row: Result) -> tuple[Any, ...]:
    return row["part"], row["n_prompts"], row["n_raters"], row["seed"], row["method"], row["per_pair"]


def run(parts: Sequence[Part], seeds: int, path: Path) -> None:
    """Finish what the results file lacks, one line a fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # a line cut short would spoil the next
        text = path.read_text(encoding="utf-8")
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    done = {_key(row) for row in read_results(path)}
    todo = [task for task in tasks(parts, seeds) if task.key not in done]
    for i, task in enumerate(todo, 1):
        row = task.run()
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        state = "" if row.get("converged", True) else ", NOT CONVERGED"
        print(
            f"[{i}/{len(todo)}] {task.part.name} seed {task.seed} {task.method} n={row['n']:,}: "
            f"{row['accuracy']:.3f} in {row['seconds']:.1f} s{state}",
            flush=True,
        )


# ---------------------------------------------------------------------------------------------- what came out


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with a 95% t interval."""

    mean: float
    low: float
    high: float
    n: int

    @staticmethod
    def of(values: Sequence[float]) -> Interval:
        x = np.asarray(values, dtype=float)
        if len(x) < 2:
            return Interval(float(x.mean()) if len(x) else float("nan"), float("nan"), float("nan"), len(x))
        half = float(student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
        return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))

    def show(self, form: str) -> str:
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]" if self.n > 1 else f"{self.mean:{form}}"


def labels_needed(n: Sequence[float], reached: Sequence[float], target: float) -> float | None:
    """Labels at which the curve first reaches the target, on straight lines over log n; None if it never does.

    Where the first point is there already, that many or fewer would do: None, too, since fewer were not tried.
    """
    for (n0, a0), (n1, a1) in pairwise(zip(n, reached, strict=True)):
        if a0 < target <= a1:
            return float(np.exp(np.log(n0) + (target - a0) / (a1 - a0) * np.log(n1 / n0)))
    return None


@dataclass(frozen=True)
class Curves:
    """Accuracy over n of one part, by method and seed."""

    rows: tuple[Result, ...]

    @staticmethod
    def of(rows: Sequence[Result], part: str, measure: str = "accuracy") -> Curves:
        return Curves(tuple(row | {"accuracy": row[measure]} for row in rows if row["part"] == part and measure in row))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row["method"] for row in self.rows))

    @property
    def n_seeds(self) -> int:
        return len({row["seed"] for row in self.rows})

    def seeds(self, method: str) -> list[int]:
        return sorted({row["seed"] for row in self.rows if row["method"] == method})

    def needed(self, method: str, seed: int, target: float) -> float | None:
        mine = sorted((row["n"], row["accuracy"]) for row in self.rows if row["method"] == method and row["seed"] == seed)
        return labels_needed(*zip(*mine, strict=True), target) if mine else None

    def all_needed(self, method: str, target: float) -> dict[int, float]:
        found = {seed: self.needed(method, seed, target) for seed in self.seeds(method)}
        return {seed: n for seed, n in found.items() if n is not None}

    def ratios(self, method: str, other: str, target: float) -> list[float]:
        """Per seed, labels that the method needs over those that the other needs."""
        mine, theirs = self.all_needed(method, target), self.all_needed(other, target)
        return [mine[seed] / theirs[seed] for seed in mine if seed in theirs]

    def at(self, method: str, per_pair: int) -> list[float]:
        return [row["accuracy"] for row in self.rows if row["method"] == method and row["per_pair"] == per_pair]


def text_share(made: Society, folds: int = 5) -> float:
    """Share of the variance of s that the hashed columns tell of texts not learnt from, given the true s of the others (ridge)."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    columns = HashEncoder.fit(made.texts).encode(made.texts)
    told = cross_val_predict(RidgeCV(alphas=np.logspace(-3, 1, 9)), columns, made.value, cv=folds)
    return float(1 - np.mean((made.value - told) ** 2) / made.value.var())


def sorted_right(correlation: float) -> float:
    """Accuracy on pairs of values that have this correlation with the truth, both normal: 1/2 + asin(r) / pi."""
    return 0.5 + float(np.arcsin(correlation)) / np.pi


# ---------------------------------------------------------------------------------------------- the page

GOAL = 1.15
"""Labels over the oracle's, of the crowd and with a length bias."""
TEXT_GOAL = 1.0
"""The same of `Linear`, which reads, over those of an oracle that does not."""
LOST_GOAL, LOST_AT = 1.0, 20
"""Hundredths of accuracy lost to corruption, and the judgments a pair at which."""
TITLES = {
    "oracle": "oracle: knows every rater",
    "oracle, length fitted": "knows every rater, not the length bias",
    "population known": "knows the mix of raters, not who is who",
    "ours": "Seamark",
    "ours, position per rater": "Seamark, position per rater",
    "plain": "Bradley-Terry, raters ignored",
    "Linear": "Seamark, `Linear` on the texts",
}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(row) + " |" for row in rows), ""]


def _curve_table(curves: Curves, titles: dict[str, str]) -> list[str]:
    grid = sorted({row["per_pair"]: row["n"] for row in curves.rows}.items())
    rows = []
    for method in curves.methods:
        # a mean over some of the seeds does not compare with one over all
        found = [curves.at(method, k) for k, _ in grid]
        rows.append([titles[method], *(f"{np.mean(x):.3f}" if len(x) == curves.n_seeds else "" for x in found)])
    return _table(["mean accuracy at n =", *(f"{n:,}" for _, n in grid)], rows)


def _needed_table(curves: Curves, titles: dict[str, str]) -> list[str]:
    rows = []
    for method in curves.methods:
        cells = [titles[method]]
        for target in TARGETS:
            needed = list(curves.all_needed(method, target).values())
            ratios = Interval.of(curves.ratios(method, "oracle", target))
            if not needed:
                mine = [row["accuracy"] for row in curves.rows if row["method"] == method]
                cells += [f"not reached; best {max(mine):.3f}" if max(mine) < target else "fewer than tried", ""]
                continue
            of = f" ({len(needed)} of {len(curves.seeds(method))} seeds)" if len(needed) < len(curves.seeds(method)) else ""
            cells += [f"{np.mean(needed):,.0f}{of}", ratios.show(".2f") if method != "oracle" and ratios.n else ""]
        rows.append(cells)
    heads = ["", *(head for target in TARGETS for head in (f"labels for {target:.2f}", "over the oracle's"))]
    return _table(heads, rows)


def _state(found: Interval, goal: float) -> str:
    """What an interval says of a goal that is an upper bound: held, missed, undecided, or that one seed says nothing."""
    return "one seed" if found.n < 2 else "held" if found.high <= goal else "missed" if found.low > goal else "undecided"


def _verdict(curves: Curves, method: str, titles: dict[str, str], goal: float = GOAL) -> str:
    """Whether the method needs at most `goal` times the oracle's labels; held only where every seed's curve passes through the target."""
    said = []
    for target in TARGETS:
        ratio = Interval.of(curves.ratios(method, "oracle", target))
        if not ratio.n:
            said.append(f"{target:.2f} not reached")
            continue
        state, seeds = _state(ratio, goal), len(set(curves.seeds(method)) & set(curves.seeds("oracle")))
        if ratio.n < seeds:
            state = f"{'undecided' if state == 'held' else state}, {ratio.n} of {seeds} seeds"
        said.append(f"{ratio.mean:.2f} at {target:.2f} ({state})")
    return f"{titles[method]}, labels over the oracle's: " + ", ".join(said) + "."


def _saved(curves: Curves, method: str, titles: dict[str, str]) -> str:
    found = {target: Interval.of(curves.ratios("plain", method, target)) for target in TARGETS}
    said = [f"{x.show('.2f')} at {target:.2f}" for target, x in found.items() if x.n]
    return f"Bradley-Terry's labels over those of {titles[method]}: " + ", ".join(said) + "."


def _lost(rows: Sequence[Result], method: str, how: str, per_pair: int) -> list[float]:
    """Per seed that has both, hundredths of accuracy that the corruption costs the method."""
    reached = {(r["method"], r["seed"]): r["accuracy"] for r in rows if r["per_pair"] == per_pair}
    seeds = sorted(seed for name, seed in reached if name == f"{method}: {how}" and (f"{method}: clean", seed) in reached)
    return [100 * (reached[f"{method}: clean", seed] - reached[f"{method}: {how}", seed]) for seed in seeds]


def _corruption_table(rows: Sequence[Result]) -> list[str]:
    out = []
    for per_pair in sorted({row["per_pair"] for row in rows}):
        for method in dict.fromkeys(row["method"].split(": ")[0] for row in rows):
            clean = [row["accuracy"] for row in rows if row["method"] == f"{method}: clean" and row["per_pair"] == per_pair]
            lost = [_lost(rows, method, how, per_pair) for how in CORRUPTIONS[1:]]
            cells = [str(per_pair), TITLES[method], f"{np.mean(clean):.3f}" if clean else ""]
            out.append([*cells, *(Interval.of(x).show(".1f") if x else "" for x in lost)])
    return _table(["judgments a pair", "", "accuracy, all careful", "points lost to coin flips", "points lost to answers by side"], out)


def _corruption_verdict(rows: Sequence[Result], method: str) -> str:
    """Whether the method loses less than `LOST_GOAL` points at `LOST_AT` judgments a pair."""
    said = []
    for how, name in zip(CORRUPTIONS[1:], ("to coin flips", "to answers by side"), strict=True):
        lost = Interval.of(_lost(rows, method, how, LOST_AT))
        said.append(f"{lost.mean:.1f} {name} ({_state(lost, LOST_GOAL)})" if lost.n else f"not run {name}")
    return f"{TITLES[method]}, points lost at {LOST_AT} judgments a pair: " + ", ".join(said) + "."


def picture(rows: Sequence[Result], path: Path) -> bool:
    """The curves as SVG; False where the renderer is not installed."""
    try:
        import altair as alt
        import vl_convert  # noqa: F401  # what altair saves with
    except ModuleNotFoundError:
        return False
    wanted = {"crowd": "crowd", "length": "crowd with length bias", "text": "crowd, with texts"}
    colours = dict(zip(TITLES, ("#222222", "#888888", "#b8860b", "#1f6fb4", "#7fb2dd", "#c0392b", "#2e8b57"), strict=True))
    panels = []
    for part, title in wanted.items():
        curves = Curves.of(rows, part)
        points = [
            {"n": row["n"], "accuracy": float(np.mean(curves.at(method, row["per_pair"]))), "method": TITLES[method].replace("`", "")}
            for method in curves.methods
            for row in {r["per_pair"]: r for r in curves.rows if r["method"] == method}.values()
            if len(curves.at(method, row["per_pair"])) == curves.n_seeds
        ]
        if not points:
            continue
        line = (
            alt.Chart(alt.Data(values=points))
            .mark_line(point=True)
            .encode(
                x=alt.X("n:Q", scale=alt.Scale(type="log", nice=False), title="labels", axis=alt.Axis(format="~s", tickCount=6)),
                y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0.6, 0.96]), title="accuracy on pairs nobody judged"),
                color=alt.Color(
                    "method:N",
                    title=None,
                    sort=None,
                    scale=alt.Scale(domain=[title.replace("`", "") for title in TITLES.values()], range=list(colours.values())),
                    legend=alt.Legend(orient="bottom", columns=2, labelLimit=400),
                ),
            )
        )
        rule = alt.Chart(alt.Data(values=[{"accuracy": y} for y in TARGETS])).mark_rule(strokeDash=[4, 4], color="#999999")
        rule = rule.encode(y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0.6, 0.96])))
        panels.append((rule + line).properties(width=300, height=280, title=title))
    if not panels:
        return False
    alt.hconcat(*panels).configure(background="white").save(str(path))
    return True


def page(rows: Sequence[Result], *, drawn: str | None) -> str:
    """docs/label_efficiency.md"""
    seeds = len({row["seed"] for row in rows})
    stuck = [row for row in rows if not row.get("converged", True)]
    codes = sorted({row["code"] for row in rows})
    out = [
        "# Label efficiency",
        "",
        "How many labels does it take until pairs that nobody judged are put in the right order? `python benchmarks/label_efficiency.py`",
        f"resumes where it stood and writes this page: {len(rows):,} fits over {seeds} seed{'s' * (seeds > 1)},"
        f" {sum(row['seconds'] for row in rows) / 60:.0f} minutes on one busy core. {len(stuck)} of them",
        f"had not converged. Fitting code {', '.join(f'`{code}`' for code in codes)} (a hash of `src/seamark/models`).",
        "",
        "A crowd of 60% careful, 20% noisy, 15% who answer by position and 5% opposed raters judges prompts of four responses whose values",
        "are standard normal, in logits: `P(left) = sigmoid(slope_rater (s_left - s_right) + shift_rater)`. Four of the six pairs of a prompt,",
        "a circle, are judged equally often; accuracy is on the other two. The oracle is a posterior mode that is given the slope and the",
        "shift of every rater. Labels needed are read off each seed's own curve, on straight lines over log n; ratios are per seed, and brackets",
        "are 95% t intervals over seeds. Nothing was tuned on these numbers: fits are `seamark.models.fit` with the effects named, and the rest",
        "at its defaults.",
        "",
    ]
    if drawn:
        out += [f"![Accuracy over the number of labels, mean over seeds]({drawn})", ""]
    crowd = Curves.of(rows, "crowd")
    if crowd.rows:
        out += _crowd_section(crowd)
    text, large = Curves.of(rows, "text"), Curves.of(rows, "text, large")
    if text.rows:
        out += _text_section(text, large)
    if any(row["part"] == "length" for row in rows):
        out += _length_section(rows)
    spoilt = [row for row in rows if row["part"] == "corrupted"]
    if spoilt:
        out += [
            "## The same labels, 30% of the raters corrupted",
            "",
            f"{_size(spoilt)}, all of them careful. Then the answers of",
            "30% of the raters are replaced by coin flips, or by always the side, left or right, that is theirs. Points are hundredths of accuracy;",
            f"the goal is less than {LOST_GOAL:.0f} point lost at {LOST_AT} judgments a pair. The oracle is told who was corrupted and takes nothing from them: what it",
            "loses is what 30% of the labels were worth.",
            "",
            *_corruption_table(spoilt),
            *(f"- {_corruption_verdict(spoilt, method)}" for method in (*EFFECTS, "oracle")),
        ]
    return "\n".join(out).rstrip("\n") + "\n"


def _size(rows: Sequence[Result]) -> str:
    row, seeds = rows[0], len({row["seed"] for row in rows})
    society = f"{row['n_prompts']:,} prompts, {row['n_raters']:,} raters, {row['n_held']:,} held-out pairs"
    return f"{society}; {seeds} {'societies' if seeds > 1 else 'society'}"


def _crowd_section(curves: Curves) -> list[str]:
    return [
        "## A mixed crowd",
        "",
        f"{_size(curves.rows)}. Goal: at most {GOAL} times the oracle's labels.",
        "",
        *_needed_table(curves, TITLES),
        *(f"- {_verdict(curves, method, TITLES)}" for method in ("ours", "ours, position per rater", "population known")),
        *(f"- {_saved(curves, method, TITLES)}" for method in ("oracle", "ours")),
        "",
        "The last row is the mode of the values with raters integrated out over the exact mix that they were drawn from: all that can be known",
        "of them before the first label. What it needs beyond the oracle is what not knowing who is who costs, which is much while a rater",
        "has given ten labels, and little at fifty. Seamark estimates the mix as well.",
        "",
        *_curve_table(curves, TITLES),
    ]


def _text_section(text: Curves, large: Curves) -> list[str]:
    shares = [text_share(society(seed, text.rows[0]["n_prompts"], text.rows[0]["n_raters"])) for seed in text.seeds("oracle")]
    out = [
        "## With texts",
        "",
        f"{_size(text.rows)}. Texts are 30 to 50 words out of 120,",
        f"each with a merit; the merits of its words settle {TEXT_SHARE:.0%} of the variance of a response's value, so that text alone, perfectly",
        f"understood, would get {sorted_right(TEXT_SHARE**0.5):.3f} of the pairs right. The hashed columns that `Linear` sees",
        f"tell {Interval.of(shares).show('.2f')} of the variance of texts not learnt from, when the values of the",
        "others are given (ridge, 5 folds). The oracle does not read. Goal: `Linear` needs fewer labels than the oracle;",
        f"without the texts at most {GOAL} times as many.",
        "",
        *_needed_table(text, TITLES),
        *(
            f"- {_verdict(text, method, TITLES, goal)}"
            for method, goal in (("Linear", TEXT_GOAL), ("ours", GOAL))
            if method in text.methods
        ),
        "",
        *_curve_table(text, TITLES),
    ]
    if large.rows:
        out += [
            f"`Linear` gives each response a value of its own beside its features only up to {RESIDUALS:,} responses. In the large society",
            f"({_size(large.rows)}) it has the features alone, and stops where they stop:",
            "",
            *_curve_table(large, TITLES),
        ]
    return out


def _length_section(rows: Sequence[Result]) -> list[str]:
    curves, whole = Curves.of(rows, "length"), Curves.of(rows, "length", "accuracy_with_style")
    titles = (
        TITLES | {name: f"{TITLES[name]}, with length" for name in EFFECTS} | {"oracle": "oracle: knows every rater, and the length bias"}
    )
    with_style = (1 + LENGTH_BIAS * LENGTH_VALUE) / np.sqrt(1 + LENGTH_BIAS**2 + 2 * LENGTH_BIAS * LENGTH_VALUE)
    return [
        "## A length bias",
        "",
        f"{_size(curves.rows)}. Answers follow s + {LENGTH_BIAS} length, and length,",
        f"standard normal, has a correlation of {LENGTH_VALUE} with s. Seamark and Bradley-Terry have a style part, length, beside a value for each",
        "response; accuracy is that of the values without it.",
        "",
        *_needed_table(curves, titles),
        *(f"- {_verdict(curves, method, titles)}" for method in ("ours", "oracle, length fitted")),
        *(f"- {_saved(curves, method, titles)}" for method in ("oracle", "ours")),
        "",
        "How much of what length predicts is bias and how much is merit, answers alone do not say: the part of s that goes along with length is",
        "set aside together with the bias. However many the labels, values without style then have a correlation of",
        f"{np.sqrt(1 - LENGTH_VALUE**2):.3f} with s, an accuracy of {sorted_right(np.sqrt(1 - LENGTH_VALUE**2)):.3f}; with style left in it is"
        f" {with_style:.3f}, {sorted_right(with_style):.3f}. Only who is told the bias passes the first.",
        "",
        *_curve_table(curves, titles),
        "The same fits with style left in:",
        "",
        *_curve_table(whole, titles),
    ]


# ---------------------------------------------------------------------------------------------- main


def quick_parts() -> tuple[Part, ...]:
    """Every part and method in a society so small that the numbers mean nothing."""
    return tuple(
        replace(part, n_prompts=24, n_raters=20, methods={name: (method, tuple(k for k in (3, 6, 20) if k in grid)) for name, (method, grid)
                                                         in part.methods.items()})
        for part in all_parts()
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Labels needed for an accuracy: ours, plain Bradley-Terry and an oracle.")
    names = [part.name for part in all_parts()]
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--write", action="store_true", help="only write the page, from the results")
    parser.add_argument("--quick", action="store_true", help="a tiny society and one seed; the page is printed")
    given = parser.parse_args(arguments)
    if given.quick:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "results.jsonl"
            run([part for part in quick_parts() if part.name in given.parts], 1, path)
            print(page(read_results(path), drawn=None))
        return 0
    if not given.write:
        run([part for part in all_parts() if part.name in given.parts], given.seeds, given.results)
    rows = [row for row in read_results(given.results) if row["seed"] < given.seeds]
    svg = given.page.with_suffix(".svg")
    given.page.write_text(page(rows, drawn=svg.name if picture(rows, svg) else None), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
