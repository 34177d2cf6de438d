"""Results of the literature found again, each in seconds but what is marked slow, with the expected value written out before the run.

Conventions
-----------
Gaps and utilities are in logits. What is expected is a published figure, a figure of an earlier run by others, or follows from an
equation given in the docstring. Where a figure does not come out, the docstring says so and the test holds what came out instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit, log_expit, log_ndtr, softmax

import seamark as sm
from seamark.checks.agreement import krippendorff_alpha
from seamark.models import Observation, Personas, Reliability, Same, Tabular, fit
from seamark.models.privacy import flip_rate
from seamark.models.targets import Channel, Target, bradley_terry, label_dp, robust, soft_label
from seamark.models.utility import Basis, FeatureMap, Rows
from seamark.records import Feedback
from seamark.simulation import simulate

Array = NDArray[np.float64]
BARE = Observation(effects=(), lapse=False)

# ---------------------------------------------------------------------------------------------- Borda


def all_pairs(p: Array) -> tuple[Array, Array]:
    """Differences (n_pairs, n), with 1 for the one and -1 for the other, and the probability (n_pairs,) that the one wins."""
    i, j = np.triu_indices(len(p), 1)
    return np.eye(len(p))[i] - np.eye(len(p))[j], p[i, j]


def bradley_terry_optimum(p: Array) -> Array:
    """Utilities (n,) whose Bradley-Terry probabilities are nearest to p (n, n) in cross-entropy, all pairs alike."""
    difference, wins = all_pairs(p)
    target = soft_label(wins)

    def objective(u: Array) -> tuple[float, Array]:
        gap = difference @ u
        return float(target.loss(gap).sum()), difference.T @ target.gradient(gap)

    found: Any = optimize.minimize(objective, np.zeros(len(p)), jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 2000})
    assert np.abs(found.jac).max() < 1e-5
    return found.x


def numbers_of(feedback: Feedback) -> NDArray[np.int64]:
    """(n_responses,) the number that each response was named by."""
    return feedback.responses["name"].cast(pl.Int64).to_numpy()


def kendall(a: Array, b: Array) -> float:
    found: Any = stats.kendalltau(a, b)
    return float(found.statistic)


CONTEXTS = pytest.mark.parametrize("shared", [True, False], ids=["context shared in a pair", "context drawn per response"])


def hidden_context(shared: bool) -> tuple[Array, Array]:
    """Expected utility a (50,) and P (50, 50): u(a, z) = a below .8 and 2 a z from there on, z a fair coin that nobody sees."""
    a = (np.arange(50) + 0.5) / 50
    states = [np.where(a < 0.8, a, 2 * a * z) for z in (0, 1)]
    contexts = [(u, u) for u in states] if shared else [(u, v) for u in states for v in states]
    p = np.mean([(u[:, None] > v) + 0.5 * (u[:, None] == v) for u, v in contexts], 0)
    np.fill_diagonal(p, 0.5)
    np.testing.assert_allclose(np.mean(states, 0), a)
    return a, p


@CONTEXTS
def test_bradley_terry_orders_as_borda_counts_and_not_as_expected_utility(shared: bool) -> None:
    """Siththaranjan, Laidlaw & Hadfield-Menell 2024, theorem 3.1: with a context z that is not seen, the optimum orders as BC.

    u(a, z) = a below .8 and 2 a z from there on, z a fair coin, so that the expected utility is a; 50 responses at the middles of
    fifty cells of [0, 1]. Expected: Kendall 1.000 with the Borda count and .673 with expected utility; with z drawn per response
    BC = .1 + a below .8 and .275 + .25 a above, exactly.
    """
    a, p = hidden_context(shared)
    borda = p.mean(1)
    u = bradley_terry_optimum(p)
    assert kendall(u, borda) == pytest.approx(1, abs=1e-12)
    assert kendall(u, a) == pytest.approx(0.673, abs=5e-4)
    exact = np.where(a < 0.8, 0.1 + a, 0.275 + 0.25 * a)
    assert np.abs(borda - exact).max() == pytest.approx(0.0225 if shared else 0, abs=1e-12)


@CONTEXTS
def test_a_fit_orders_as_borda_counts(shared: bool) -> None:
    """The same by `fit`, which is given each pair once with either outcome, weighing 1,000 times its probability.

    Expected: Kendall 1.000 and .673 as above, and the optimum above within .001 logits: a prior that is estimated pulls a gap of 1,000
    judgments a pair by less than that.
    """
    a, p = hidden_context(shared)
    i, j = np.triu_indices(50, 1)
    weight = 1000 * np.concatenate([p[i, j], p[j, i]])
    said = weight > 0
    feedback = Feedback.from_arrays(
        left_id=np.tile(i, 2)[said], right_id=np.tile(j, 2)[said], outcome=np.repeat([True, False], len(i))[said], weight=weight[said]
    )
    u = np.empty(50)
    u[numbers_of(feedback)] = fit(feedback, utility=Tabular(), observation=BARE).utilities(feedback)
    assert kendall(u, p.mean(1)) == pytest.approx(1, abs=1e-12)
    assert kendall(u, a) == pytest.approx(0.673, abs=5e-4)
    exact = bradley_terry_optimum(p)
    assert np.abs((u - u.mean()) - (exact - exact.mean())).max() < 1e-3


# ---------------------------------------------------------------------------------------------- distributional preference learning


def explained_share(p: Array, *, steep: bool = False) -> float:
    """r2 = Var[mu] / (Var[mu] + E[sd^2]) of mean-and-variance utilities fitted to the probabilities of all pairs.

    P(a over b) = link(z), z = (mu_a - mu_b) / sqrt(sd_a^2 + sd_b^2), with the normal link of the paper or, `steep`, the logistic
    one of its code, sigmoid(sqrt(2 pi) z).
    """
    n = len(p)
    difference, q = all_pairs(p)
    either, c = np.abs(difference), np.sqrt(2 * np.pi)

    def objective(x: Array) -> tuple[float, Array]:
        variance = np.exp(2 * x[n:])
        scale = np.sqrt(either @ variance)
        z = (difference @ x[:n]) / scale
        if steep:
            win, lose, slope = log_expit(c * z), log_expit(-c * z), c * (expit(c * z) - q)
        else:
            win, lose, log_density = log_ndtr(z), log_ndtr(-z), -0.5 * (z**2 + np.log(2 * np.pi))
            slope = (1 - q) * np.exp(log_density - lose) - q * np.exp(log_density - win)
        on_log_sd = -variance * (either.T @ (slope * z / scale**2))
        return float(-(q * win + (1 - q) * lose).sum()), np.concatenate([difference.T @ (slope / scale), on_log_sd])

    start = np.concatenate([2 * np.log(p.mean(1) / (1 - p.mean(1))), np.zeros(n)])
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 40}
    found: Any = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    assert np.abs(found.jac).max() < 1e-4
    mu, sd = found.x[:n], np.exp(found.x[n:])
    return float(mu.var() / (mu.var() + np.mean(sd**2)))


def one_population(u: Array, noise: float) -> Array:
    """P (n, n) for logistic noise of that scale on the difference of utilities."""
    return expit((u[:, None] - u) / noise)


def test_r2_falls_with_plain_noise() -> None:
    """Nobody disagrees here, and still r2 falls from .89 to .12 with the scale of iid noise alone.

    One population, 30 utilities from a standard normal (generator 0, variance .655), exact probabilities of all pairs. Expected,
    from an earlier run on another draw: .89, .67, .35, .12 at noise .25, .5, 1, 2; with the link of the paper's code .78, .47, .18,
    .05. Both within .02. With that link the model is exact at sd^2 = pi noise^2 for everyone, so r2 = V / (V + pi noise^2).
    """
    u = np.random.default_rng(0).normal(size=30)
    noise = np.array([0.25, 0.5, 1.0, 2.0])
    normal = np.array([explained_share(one_population(u, s)) for s in noise])
    steep = np.array([explained_share(one_population(u, s), steep=True) for s in noise])
    np.testing.assert_allclose(normal, [0.89, 0.67, 0.35, 0.12], atol=0.02)
    np.testing.assert_allclose(steep, [0.78, 0.47, 0.18, 0.05], atol=0.02)
    np.testing.assert_allclose(steep, u.var() / (u.var() + np.pi * noise**2), atol=0.005)


def test_r2_of_two_populations_is_that_of_a_noisy_one() -> None:
    """Two unrelated populations, half and half, at noise .25: r2 is low, but one population with more noise has the same.

    Expected from an earlier run, one draw: .11. That does not come out as typical: over 20 draws r2 runs from .02 to .59 with
    median .23 (.15 for generator 0), mostly with how far the two populations happen to agree (correlation .94 with that of their
    utilities). In each draw some noise scale between .5 and 8 gives one population the same r2, so r2 alone tells nothing.
    """
    share, agreement = np.zeros(20), np.zeros(20)
    for seed in range(20):
        u, v = np.random.default_rng(seed).normal(size=(2, 30))
        share[seed] = explained_share((one_population(u, 0.25) + one_population(v, 0.25)) / 2)
        agreement[seed] = np.corrcoef(u, v)[0, 1]
        assert explained_share(one_population(u, 8.0)) < share[seed] < explained_share(one_population(u, 0.5))
    assert share[0] == pytest.approx(0.15, abs=0.01)
    assert np.median(share) == pytest.approx(0.23, abs=0.01)
    assert np.corrcoef(share, agreement)[0, 1] > 0.9


# ---------------------------------------------------------------------------------------------- labels that were flipped

D, NORM, BOUND = 5, 2.0, 10.0
TRUTH = np.full(D, NORM / np.sqrt(D))
NODES = np.linspace(-12, 12, 24_001)
WEIGHTS = stats.norm.pdf(NODES) / stats.norm.pdf(NODES).sum()
"""Standard normal nodes: x is normal with independent entries, so the gap is NORM times a node, and only it depends on theta."""


def minimise(loss: Target | Channel, x: Array) -> Array:
    """theta (D,) of least mean loss within the norm bound; rows of x (n, D) point to the side of the label."""

    def objective(theta: Array) -> tuple[float, Array]:
        h = x @ theta
        return float(loss.loss(h).mean()), x.T @ loss.gradient(h) / len(x)

    def room(theta: Array) -> float:
        return float(BOUND**2 - theta @ theta)

    ball: Any = {"type": "ineq", "fun": room}
    found: Any = optimize.minimize(objective, np.zeros(D), jac=True, method="SLSQP", constraints=ball, options={"ftol": 1e-10})
    assert found.success
    return found.x


def pairs(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    """Features (n, D) and clean labels (n,), true when the side x points to was preferred."""
    x = rng.normal(size=(n, D))
    return x, rng.random(n) < expit(x @ TRUTH)


def pointed(x: Array, label: NDArray[np.bool_]) -> Array:
    return np.where(label[:, None], x, -x)


def privatised(rng: np.random.Generator, label: NDArray[np.bool_], e: float) -> NDArray[np.bool_]:
    return label ^ (rng.random(len(label)) < e)


def multiple(q: Array) -> float:
    """a such that a TRUTH is the optimum for mean labels q at the nodes: E[g (q - sigmoid(a NORM g))] = 0."""

    def excess(a: float) -> float:
        return float(WEIGHTS @ (NODES * (q - expit(a * NORM * NODES))))

    found: Any = optimize.brentq(excess, -50, 50)
    return found


def root_mean_square(errors: list[Array]) -> float:
    return float(np.sqrt(np.mean([e @ e for e in errors])))


@pytest.mark.slow
def test_correcting_for_flips_is_consistent_and_ignoring_them_is_not() -> None:
    """Error of theta at n = 2k, 8k, 32k under epsilon = 1 (27% flipped): both corrections shrink as n^-1/2, plain fitting never.

    Expected from the asymptotics of this design (5 independent normal features, |theta| = 2). Plain fitting tends to a multiple of
    theta, leaving 1.392 at any n. The rest is the sandwich tr(A^-1 B A^-1) / n with A the curvature and B the variance of the
    score: .477, .238, .119 for the corrected loss (rDPO, private DPO), .396, .198, .099 for the channel, which is the information
    bound. 20 rounds leave an uncertainty of about a tenth. Found: 1.37 to 1.40; .605, .227, .119; .389, .200, .089.

    An earlier run, of a design not recorded in full, had 1.20 throughout, .51, .29, .14 and .51, .26, .16: the same picture.
    """
    e = float(flip_rate(1.0))
    s = expit(NORM * NODES)
    q = (1 - 2 * e) * s + e
    curvature, score = s * (1 - s), q * (1 - q) / (1 - 2 * e) ** 2
    information = ((1 - 2 * e) * s * (1 - s)) ** 2 / (q * (1 - q))
    along, across = WEIGHTS * NODES**2, WEIGHTS
    sandwich = (along @ score) / (along @ curvature) ** 2 + (D - 1) * (across @ score) / (across @ curvature) ** 2
    channel = 1 / (along @ information) + (D - 1) / (across @ information)
    n = np.array([2_000, 8_000, 32_000])
    assert NORM * (1 - multiple(q)) == pytest.approx(1.392, abs=5e-4)
    np.testing.assert_allclose(np.sqrt(sandwich / n), [0.477, 0.238, 0.119], atol=5e-4)
    np.testing.assert_allclose(np.sqrt(channel / n), [0.396, 0.198, 0.099], atol=5e-4)

    losses = {"plain": bradley_terry(), "corrected": label_dp(1.0), "channel": Channel(e)}
    found: dict[str, list[float]] = {name: [] for name in losses}
    for size in n:
        errors: dict[str, list[Array]] = {name: [] for name in losses}
        for seed in range(20):
            rng = np.random.default_rng([seed, int(size)])
            x, label = pairs(rng, int(size))
            x = pointed(x, privatised(rng, label, e))
            for name, loss in losses.items():
                errors[name].append(minimise(loss, x) - TRUTH)
        for name in losses:
            found[name].append(root_mean_square(errors[name]))
    np.testing.assert_allclose(found["plain"], 1.392, rtol=0.03)
    np.testing.assert_allclose(found["corrected"], np.sqrt(sandwich / n), rtol=0.3)
    np.testing.assert_allclose(found["channel"], np.sqrt(channel / n), rtol=0.3)
    for name in ("corrected", "channel"):
        assert np.polyfit(np.log(n), np.log(found[name]), 1)[0] == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize(
    ("true", "assumed", "corrected", "channel"),
    [
        (0.3, 0.1, 0.334, 0.341),  # too little corrected: still shrunk
        (0.0, 0.05, 1.369, 1.232),  # clean labels, corrected all the same: stretched
        (0.0, 0.2, BOUND / NORM, 2.287),  # the corrected loss has no finite optimum and runs into its norm bound
    ],
)
def test_a_wrong_flip_rate_shows(true: float, assumed: float, corrected: float, channel: float) -> None:
    """theta comes out as a multiple of the truth: below 1 when flips are underrated, above when they are overrated.

    Expected: the multiples a that solve E[g (q - assumed) / (1 - 2 assumed)] = E[g sigmoid(a |theta| g)] for the corrected loss and
    minimise the expected loss of the channel, q being the mean label. One sample of 32,000 pairs each.
    """
    q = (1 - 2 * true) * expit(NORM * NODES) + true

    def expected_loss(a: float) -> float:
        h = a * NORM * NODES
        return float(WEIGHTS @ (q * Channel(assumed).loss(h) + (1 - q) * Channel(assumed).loss(-h)))

    least: Any = optimize.minimize_scalar(expected_loss, bounds=(0, 10), method="bounded")
    assert least.x == pytest.approx(channel, abs=5e-4)
    if corrected < BOUND / NORM:
        assert multiple((q - assumed) / (1 - 2 * assumed)) == pytest.approx(corrected, abs=5e-4)
    rng = np.random.default_rng(7)
    x, label = pairs(rng, 32_000)
    x = pointed(x, privatised(rng, label, true))
    assert minimise(robust(assumed), x) @ TRUTH / NORM**2 == pytest.approx(corrected, rel=0.06)
    assert minimise(Channel(assumed), x) @ TRUTH / NORM**2 == pytest.approx(channel, rel=0.06)


def test_corruption_after_privatisation_is_worse_than_before() -> None:
    """Zhou, Wu & Orabona 2025: error is flat in epsilon when labels went bad first (CTL), and grows with c(epsilon) after (LTC).

    An adversary sets the labels of the 5% of pairs with the widest gap to the wrong side, before or after randomised response.
    Expected at epsilon 1/2, 1, 2, where c = 4.08, 2.16, 1.31: the optimum for mean labels that are 0 (CTL) or -e / (1 - 2 e) (LTC)
    beyond the 97.5th percentile, mirrored below the other; error 1.128 in all three against 1.973, 1.495, 1.237. 32,000 pairs, 4
    rounds. (An earlier run with another adversary and design: 1.23, 1.21, 1.21 against 2.90, 1.85, 1.39.)
    """
    epsilon = [0.5, 1.0, 2.0]
    widest, wrong = np.abs(NODES) > stats.norm.ppf(0.975), (NODES < 0).astype(float)
    derived: list[list[float]] = []
    found: list[list[float]] = []
    for eps in epsilon:
        e = float(flip_rate(eps))
        bad = [wrong, (wrong - e) / (1 - 2 * e)]
        derived.append([NORM * (1 - multiple(np.where(widest, q, expit(NORM * NODES)))) for q in bad])
        errors: tuple[list[Array], list[Array]] = [], []
        for seed in range(4):
            rng = np.random.default_rng([seed, int(10 * eps)])
            x, label = pairs(rng, 32_000)
            gap = x @ TRUTH
            attacked = np.argsort(-np.abs(gap))[: len(x) // 20]
            before, after = label.copy(), privatised(rng, label, e)
            before[attacked] = after[attacked] = gap[attacked] < 0
            for labels, out in zip((privatised(rng, before, e), after), errors, strict=True):
                out.append(minimise(label_dp(eps), pointed(x, labels)) - TRUTH)
        found.append([root_mean_square(out) for out in errors])
    np.testing.assert_allclose(derived, [[1.128, 1.973], [1.128, 1.495], [1.128, 1.237]], atol=1e-3)
    np.testing.assert_allclose(found, derived, rtol=0.05)


# ---------------------------------------------------------------------------------------------- two groups of raters


def mixture(x: Array, rater: NDArray[np.int64], k: int, rng: np.random.Generator, *, starts: int = 3) -> tuple[Array, Array]:
    """Utilities (k, d) and shares (k,), largest first, of a mixture of Bradley-Terry raters: the naive reference.

    log L = sum_r log sum_g share_g prod_{j by r} sigmoid(x_j theta_g), less .005 |theta|^2; rows of x (n, d) are differences of
    features that point to the chosen side. EM with the exact posterior of each rater's group and one Newton step per
    maximisation, from random posteriors, best of `starts`. k = 1 is plain Bradley-Terry.
    """
    n_raters, d = int(rater.max()) + 1, x.shape[1]
    best, found = -np.inf, (np.zeros((k, d)), np.full(k, 1 / k))
    for _ in range(starts if k > 1 else 1):
        posterior, theta, before = rng.dirichlet(np.ones(k), n_raters), np.zeros((k, d)), -np.inf
        for round_ in range(100):
            share = posterior.mean(0)
            for g in range(k):
                weight, s = posterior[rater, g], expit(x @ theta[g])
                curvature = (x * (weight * s * (1 - s))[:, None]).T @ x + 0.01 * np.eye(d)
                theta[g] += np.linalg.solve(curvature, x.T @ (weight * (1 - s)) - 0.01 * theta[g])
            joint = np.log(share) + np.stack([np.bincount(rater, log_expit(x @ t), n_raters) for t in theta], 1)
            total = np.logaddexp.reduce(joint, 1)
            posterior = np.exp(joint - total[:, None])
            value = float(total.sum() - 0.005 * (theta**2).sum())
            if round_ > 5 and value - before < 1e-4:
                break
            before = value
        if before > best:
            order = np.argsort(-posterior.mean(0))
            best, found = before, (theta[order], posterior.mean(0)[order])
    return found


def planted_groups(seed: int, per_rater: int) -> tuple[Array, NDArray[np.int64], Array]:
    """2,000 pairs by raters of two groups, 10 to 1: x (n, 10) pointing to the chosen side, rater (n,), utilities (2, 10).

    The groups' utilities are orthogonal, of norm 3: two raters of one group agree on 77% of pairs, the 73 to 77% of Ouyang et al. 2022.
    """
    rng = np.random.default_rng([seed, per_rater])
    n, d = 2_000, 10
    basis, _ = np.linalg.qr(rng.normal(size=(d, 2)))
    utilities = 3 * basis.T
    rater = np.repeat(np.arange(n // per_rater), per_rater)
    group = (rater < round(n / per_rater / 11)).astype(int)
    x = rng.normal(size=(n, d))
    return pointed(x, rng.random(n) < expit((x * utilities[group]).sum(1))), rater, utilities


def test_raters_of_one_group_agree_as_said() -> None:
    s = expit(3 * NODES)
    assert WEIGHTS @ (s**2 + (1 - s) ** 2) == pytest.approx(0.77, abs=0.005)


@pytest.mark.parametrize(
    ("per_rater", "majority", "minority", "within"),
    [pytest.param(1, 0.96, 0.64, 0.03, marks=pytest.mark.slow), (5, 0.98, 0.90, 0.03), (20, 0.98, 0.93, 0.03)],
)
def test_a_minority_of_one_in_eleven_needs_several_labels_a_rater(per_rater: int, majority: float, minority: float, within: float) -> None:
    """MaxMin-RLHF (Chakraborty et al. 2024) at 10 : 1: one reward serves the majority alone, a mixture both, given repeats.

    Share of unseen pairs ordered as the group would, mean of 20 rounds of 2,000 labels in all. Expected from an earlier run: one
    reward .96 for the majority and .53 for the minority; mixture .96 / .56, .98 / .90, .98 / .93 with 1, 5, 20 labels a rater. All
    come out but one: with one label a rater the minority's is .64 here (sd .07 over rounds), not .56. Groups are then told apart
    by the shape of the response curve alone, the better the larger the utilities, whose size that run did not record.
    """
    single, mixed = np.zeros((20, 2)), np.zeros((20, 2))
    for seed in range(20):
        x, rater, utilities = planted_groups(seed, per_rater)
        rng = np.random.default_rng(seed)
        unseen = rng.normal(size=(4_000, 10))
        side = unseen @ utilities.T > 0
        single[seed] = ((unseen @ mixture(x, rater, 1, rng)[0].T > 0) == side).mean(0)
        mixed[seed] = ((unseen @ mixture(x, rater, 2, rng)[0].T > 0) == side).mean(0)
    np.testing.assert_allclose(single.mean(0), [0.96, 0.53], atol=0.02)
    np.testing.assert_allclose(mixed.mean(0), [majority, minority], atol=within)
    assert mixed.mean(0)[1] > single.mean(0)[1] + 0.05


@dataclass(frozen=True)
class Numbers:
    """Values linear in numbers of the responses, without texts."""

    matrix: Array
    """(n_responses, d) by the number that a response is named by."""

    def prepare(self, feedback: Feedback) -> Basis:
        x = self.matrix[numbers_of(feedback)]
        n, nowhere = len(x), np.zeros(len(x), dtype=bool)
        basis = Basis(n, x, (("values", slice(0, x.shape[1])),), response_ids=tuple(feedback.responses["id"].to_list()))
        basis._last.append((feedback.responses, Rows(x, np.arange(n), ~nowhere, np.zeros(n), nowhere)))
        return basis

    def factors(self, feedback: Feedback) -> tuple[Any, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Linear"}


@pytest.mark.parametrize(
    ("per_rater", "minority", "told"),
    [pytest.param(1, 0.56, False, marks=pytest.mark.slow), pytest.param(5, 0.90, True, marks=pytest.mark.slow), (20, 0.93, True)],
)
def test_a_fit_with_personas_serves_both_given_repeats(per_rater: int, minority: float, told: bool) -> None:
    """The same 10 : 1 groups by `fit(people=Personas(2))`, whose prior strengths are estimated: 6 rounds.

    Expected as above: one reward .96 and .53; personas .96 / .56, .98 / .90, .98 / .93 with 1, 5, 20 labels a rater. Found, mean of
    6 rounds: .951 / .572, .978 / .914, .978 / .926; the sd over rounds of the minority's is .03, .02, .02. With one label a rater the fit
    says of its own accord that the personas cannot be told apart (shares near one half); with 5 and 20 it says none of it, and the
    share of the minority, 1 in 11, is within .02.
    """
    rounds, served, share, alone = 6, np.zeros((6, 2)), np.zeros(6), np.zeros(2)
    for seed in range(rounds):
        x, rater, utilities = planted_groups(seed, per_rater)
        n = len(x)
        feedback = Feedback.from_arrays(left_id=np.arange(n), right_id=np.arange(n, 2 * n), rater=rater, outcome=np.ones(n, dtype=bool))
        utility = Numbers(np.vstack([x, -x]) / 2)
        found = fit(feedback, utility=utility, people=Personas(2), observation=BARE, require_identified=False)
        order = np.argsort(-found.group_share)
        unseen = np.random.default_rng(seed).normal(size=(4_000, 10))
        side = unseen @ utilities.T > 0
        served[seed] = ((unseen @ (found.loadings[order] @ found.weights).T > 0) == side).mean(0)
        share[seed] = found.group_share.min()
        assert found.latent is not None
        assert found.latent.collapsed != told
        if seed == 0:
            one = fit(feedback, utility=utility, people=Same(), observation=BARE, require_identified=False)
            alone = ((unseen @ one.weights[:1].T > 0) == side).mean(0)
    print(
        f"{per_rater} labels a rater: {served.mean(0).round(3)} +- {(served.std(0, ddof=1) / np.sqrt(rounds)).round(3)}, share {share.mean():.3f}"
    )
    np.testing.assert_allclose(alone, [0.96, 0.53], atol=0.05)  # of one round
    np.testing.assert_allclose(served.mean(0), [0.96 if per_rater == 1 else 0.98, minority], atol=0.03)
    if told:
        assert share.mean() == pytest.approx(1 / 11, abs=0.02)


# ---------------------------------------------------------------------------------------------- flips that raters make


def flipped_by_raters(seed: int) -> tuple[Feedback, NDArray[np.bool_], Array]:
    """1,600 pairs of 20 prompts with 4 responses by 40 raters, of whom 12 record the wrong side two times in three: a fifth of all labels.

    Also (n_judgments,) which were turned round, and (n_responses,) the true values.
    """
    society = simulate(
        n_prompts=20, n_responses=4, n_raters=40, n_judgments=1600, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, lapse=0.0,
        tie=None, position=0.0, length=0.0, unexplained=0.0, seed=seed,
    )  # fmt: skip
    rng, frame = np.random.default_rng(seed), society.feedback.judgments
    rater = frame["rater"].to_numpy()
    turned = (rng.permutation(40)[rater] < 12) & (rng.random(len(rater)) < 2 / 3)
    outcome = np.where(turned, frame["outcome"].replace({"left": "right", "right": "left"}).to_numpy(), frame["outcome"].to_numpy())
    return replace(society.feedback, judgments=frame.with_columns(outcome=pl.Series(outcome))), turned, society.truth.value


def cross_fitted_gap(feedback: Feedback, observation: Observation, seed: int) -> Array:
    """(n_judgments,) gap towards the side recorded, each by a fit of the other half of the judgments."""
    half = np.random.default_rng([seed, 1]).random(feedback.n_judgments) < 0.5
    shown = np.array(feedback.judgments["responses"].to_list())
    gap = np.zeros(len(half))
    for part in (half, ~half):
        u = fit(feedback.filter(~part), utility=Tabular(), observation=observation, require_identified=False).utilities(feedback)
        gap[part] = np.nan_to_num(u[shown[part, 0]] - u[shown[part, 1]])
    return np.where(feedback.judgments["outcome"].to_numpy() == "left", gap, -gap)


@pytest.mark.slow
def test_learning_who_flips_serves_better_than_uniform_weights() -> None:
    """A fifth of the labels flipped, by raters: who flips is learnt from the labels alone, and what is chosen by them is better.

    *Welfare* is the mean true value, in logits, of the best of 4 by fitted value, over 20 prompts. Three ways: plain Bradley-Terry with
    uniform weights; the same with each label weighed by its rater's learnt slope (per-example quality weights); the fit with
    `Reliability`. Expected: both beat uniform weights, and slopes near 1 for the others and 0 for those who flip two in three, whose
    answers follow -1/3 of the gap at most. Wang et al. 2024 (Secrets of RLHF II): planted flips are where the cross-fitted strength of the
    label is lowest; for utilities of sd 1.2 many flips are of pairs that could go either way, so the AUROC cannot be near 1 (the exact
    gaps have .85). Found over 8 societies: welfare 1.186, 1.263, 1.261 of 1.289 possible; AUROC .785, and .809 by the fit with reliability;
    64% of the lowest tenth are flips, against 20% of all.
    """
    bare, reliable = BARE, Observation(effects=(Reliability(),), lapse=False)
    rows: list[list[float]] = []
    for seed in range(8):
        feedback, turned, value = flipped_by_raters(seed)
        rater, prompt = feedback.judgments["rater"].to_numpy(), feedback.responses["prompt"].to_numpy()
        found = fit(feedback, utility=Tabular(), observation=reliable)
        assert found.raters["rater"].to_list() == feedback.raters["id"].to_list()
        slope = found.raters["slope"].to_numpy()
        flips = np.bincount(rater, turned) > 0
        weight = pl.Series(np.maximum(slope, 1e-3)[rater])
        weighed = replace(feedback, judgments=feedback.judgments.with_columns(weight=weight))
        fits = fit(feedback, utility=Tabular(), observation=bare), fit(weighed, utility=Tabular(), observation=bare), found

        def welfare(u: Array, prompt: Array = prompt, value: Array = value) -> float:
            return float(np.mean([value[prompt == p][u[prompt == p].argmax()] for p in np.unique(prompt)]))

        gaps = [cross_fitted_gap(feedback, o, seed) for o in (bare, reliable)]
        shown = np.array(feedback.judgments["responses"].to_list())
        exact = (value[shown[:, 0]] - value[shown[:, 1]]) * np.where(feedback.judgments["outcome"].to_numpy() == "left", 1, -1)
        auroc = [float(stats.mannwhitneyu(-g[turned], -g[~turned]).statistic / (turned.sum() * (~turned).sum())) for g in (*gaps, exact)]
        lowest = np.argsort(gaps[1])[: len(turned) // 10]
        rows.append([*(welfare(f.utilities(feedback)) for f in fits), welfare(value), *auroc, turned[lowest].mean() - turned.mean(),
                     np.median(slope[flips]), np.median(slope[~flips])])  # fmt: skip
    x = np.array(rows)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(0, ddof=1) / np.sqrt(len(x))
    print("welfare uniform, weighed, reliability, best; AUROC plain, reliability, exact; lowest tenth less all; slopes")
    print(x.mean(0).round(3), "+-", half.round(3))

    def above_0(gain: Array) -> bool:
        return bool(gain.mean() > stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))

    assert above_0(x[:, 2] - x[:, 0]), "the fit with reliability beats plain Bradley-Terry"
    assert above_0(x[:, 1] - x[:, 0]), "quality weights beat uniform ones"
    assert above_0(x[:, 5] - x[:, 4]), "and tell flips better"
    assert x[:, 5].mean() - half[5] > 0.75
    assert x[:, 5].mean() < x[:, 6].mean()
    assert x[:, 7].mean() - half[7] > 0.3
    assert abs(x[:, 8].mean()) < 0.2
    assert x[:, 9].mean() == pytest.approx(1, abs=0.15)


# ---------------------------------------------------------------------------------------------- published worked examples

ANAESTHETISTS = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111 "
    "1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121 "
    "1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222"
)
"""Dawid & Skene 1979, table 1: fitness for anaesthesia of 45 patients on a scale from 1 to 4; the first anaesthetist judged each
form three times, four others once."""

PUBLISHED_CLASSES = "142222132243121111222222112111131224233111212"
PUBLISHED_ERROR_RATES = [
    [[0.89, 0.11, 0.00, 0.00], [0.07, 0.88, 0.05, 0.00], [0.00, 0.34, 0.66, 0.00], [0.00, 0.00, 0.56, 0.44]],
    [[0.83, 0.17, 0.00, 0.00], [0.05, 0.63, 0.31, 0.00], [0.00, 0.00, 1.00, 0.00], [0.00, 0.00, 0.00, 1.00]],
    [[1.00, 0.00, 0.00, 0.00], [0.11, 0.79, 0.11, 0.00], [0.00, 0.40, 0.20, 0.40], [0.00, 0.00, 0.67, 0.33]],
    [[0.94, 0.06, 0.00, 0.00], [0.05, 0.84, 0.10, 0.00], [0.00, 0.00, 0.80, 0.20], [0.00, 0.00, 0.33, 0.67]],
    [[1.00, 0.00, 0.00, 0.00], [0.16, 0.73, 0.11, 0.00], [0.00, 0.21, 0.79, 0.00], [0.00, 0.00, 0.33, 0.67]],
]
"""Per observer, probability of each answer (column) given each true class (row)."""


def dawid_skene(counts: Array) -> tuple[Array, Array, Array]:
    """Class shares (k,), error rates (observers, k, k) and class probabilities (items, k) from counts (items, observers, k).

    Dawid & Skene 1979: EM from each item's shares of answers (3.1), maximising by (2.3) and (2.4), expecting by (2.5).
    """

    def maximised(posterior: Array) -> tuple[Array, Array]:
        errors = np.einsum("ij,iol->ojl", posterior, counts)
        return posterior.mean(0), errors / errors.sum(2, keepdims=True)

    posterior = counts.sum(1) / counts.sum((1, 2))[:, None]
    for _ in range(500):
        share, errors = maximised(posterior)
        joint = share * np.prod(errors ** counts[:, :, None, :], axis=(1, 3))
        posterior = joint / joint.sum(1, keepdims=True)
    return *maximised(posterior), posterior


def test_dawid_and_skene_1979() -> None:
    """The published estimates, all of them to the two decimals given.

    Shares .40, .42, .11, .07; all patients certain but 7 (.98 class 1), 35 (.95 class 2) and 38 (.98 class 3).
    """
    answers = np.array([[int(c) - 1 for c in row] for row in ANAESTHETISTS.split()])
    assert answers.shape == (45, 7)
    counts = np.zeros((45, 5, 4))
    for column, observer in enumerate([0, 0, 0, 1, 2, 3, 4]):
        counts[np.arange(45), observer, answers[:, column]] += 1
    share, errors, posterior = dawid_skene(counts)
    np.testing.assert_allclose(share, [0.40, 0.42, 0.11, 0.07], atol=0.005)
    np.testing.assert_allclose(errors, PUBLISHED_ERROR_RATES, atol=0.005)
    assert "".join(str(k + 1) for k in posterior.argmax(1)) == PUBLISHED_CLASSES
    certain = np.ones(45)
    certain[[6, 34, 37]] = 0.98, 0.95, 0.98
    np.testing.assert_allclose(posterior.max(1), certain, atol=0.005)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("0100000010", "1110010000", 0.095), ("aabbdcccedda", "babbbccceddd", 0.692)],
    ids=["binary", "nominal"],
)
def test_alpha_of_two_observers(one: str, other: str, expected: float) -> None:
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", examples A and B; C and D are with the agreement checks."""
    values = np.array([ord(c) for c in one + other], dtype=float)
    alpha = krippendorff_alpha(values, np.tile(np.arange(len(one)), 2), metric="nominal")
    assert alpha == pytest.approx(expected, abs=5e-4)


# ---------------------------------------------------------------------------------------------- few labels of clustered responses

OTHERS = 100
"""Responses that nobody judges, beside the 200 that somebody does."""


@dataclass(frozen=True)
class Clustered:
    """300 responses with vectors around centres, or around none, and up to 2,000 judgments of pairs of the first 200.

    value = 1.5 (sqrt(.5) cluster + sqrt(.3) linear + sqrt(.2) residual), each part with variance 1; without clusters .8 is linear.
    Centres and what lies around them are normal with sd 1 and .5. The judgments are Bradley-Terry's, without effects.
    """

    x: Array
    """(300, d)"""
    value: Array
    """(300,) logits"""
    judged: NDArray[np.int64]
    """(2000, 2)"""
    won: NDArray[np.bool_]
    """(2000,) whether the first was preferred."""
    held: NDArray[np.int64]
    """(n, 2) pairs of the judged responses of which none was judged."""
    unseen: NDArray[np.int64]
    """(n, 2) pairs of the other responses."""
    rng: np.random.Generator


def clustered(seed: int, k: int, d: int) -> Clustered:
    rng = np.random.default_rng([7, seed])
    n, total = 200, 200 + OTHERS
    if k:
        centre, which = rng.normal(size=(k, d)), rng.integers(k, size=total)
        x, cluster = centre[which] + 0.5 * rng.normal(size=(total, d)), rng.normal(size=k)[which]
        cluster = (cluster - cluster.mean()) / cluster.std()
    else:
        x, cluster = rng.normal(size=(total, d)), np.zeros(total)
    linear = x @ rng.normal(size=d)
    linear = (linear - linear.mean()) / linear.std()
    shares = (0.5, 0.3, 0.2) if k else (0.0, 0.8, 0.2)
    value = 1.5 * (np.sqrt(shares[0]) * cluster + np.sqrt(shares[1]) * linear + np.sqrt(shares[2]) * rng.normal(size=total))
    one = rng.integers(n, size=2000)
    other = (one + 1 + rng.integers(n - 1, size=2000)) % n
    won = rng.random(2000) < expit(value[one] - value[other])
    held, unseen = rng.integers(n, size=(2000, 2)), n + rng.integers(OTHERS, size=(2000, 2))
    taken = {frozenset(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)}
    held = held[[i != j and frozenset((i, j)) not in taken for i, j in held.tolist()]]
    return Clustered(x, value, np.stack([one, other], 1), won, held, unseen[unseen[:, 0] != unseen[:, 1]], rng)


def compared(judged: NDArray[np.int64], won: NDArray[np.bool_]) -> sm.Feedback:
    """Feedback in which the text of a response is its number."""
    text = np.arange(200 + OTHERS).astype(str)
    left, right = text[judged].T
    return sm.Feedback.from_arrays(
        left=left, right=right, prompt_id=np.zeros(len(won), int), rater=np.arange(len(won)), outcome=won, order_known=True
    )


def values_of(utility: Any, made: Clustered, n: int) -> Array:
    """(300,) values from the first n judgments, 0 where the fit knows nothing."""
    plain = Observation(effects=(), lapse=False)
    fit = sm.fit(compared(made.judged[:n], made.won[:n]), utility=utility, observation=plain, require_identified=False)
    chain = np.stack([np.arange(299), np.arange(1, 300)], 1)
    every = compared(chain, np.zeros(299, bool))
    values = np.zeros(300)
    values[every.responses["text"].cast(int).to_numpy()] = fit.utilities(every)
    return np.where(np.isnan(values), 0.0, values)


def error(made: Clustered, values: Array, pairs: NDArray[np.int64]) -> tuple[float, float]:
    """Root mean square error of the gaps, and the share of pairs in the right order; a tie counts half."""
    true, found = made.value[pairs] @ [1, -1], values[pairs] @ [1, -1]
    right = np.where(found == 0, 0.5, (found > 0) == (true > 0))
    return float(np.sqrt(np.mean((found - true) ** 2))), float(right.mean())


def interval(difference: Array) -> tuple[float, float]:
    """95% of Student's t over seeds."""
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean() - half), float(difference.mean() + half)


class Vectors:
    """The columns given, each block with a prior variance of its own, beside a residual where Linear would have one."""

    style_names = ()

    def __init__(self, **blocks: Array) -> None:
        self.blocks = blocks
        self.x = np.hstack(list(blocks.values()))

    def columns(self, texts: list[str]) -> tuple[Array, NDArray[np.bool_]]:
        return self.x[[int(text) for text in texts]], np.zeros(len(texts), bool)

    def prepare(self, feedback: sm.Feedback) -> Basis:
        n, ends = feedback.n_responses, np.cumsum([0, *(block.shape[1] for block in self.blocks.values())])
        parts = [(name, slice(*ends[j : j + 2].tolist())) for j, name in enumerate(self.blocks)]
        if 2 * len(feedback.judgments) > 2 * n:
            parts.append(("residual", slice(int(ends[-1]), int(ends[-1]) + n)))
        ids, here = tuple(feedback.responses["id"].to_list()), self.columns(feedback.responses["text"].to_list())[0]
        return Basis(n, here, tuple(parts), cast("FeatureMap", self), ids if parts[-1][0] == "residual" else ())

    def factors(self, feedback: sm.Feedback) -> tuple[Any, ...]:  # noqa: ARG002  # the protocol's signature
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"utility": "Vectors"}


def centres(x: Array, k: int, rng: np.random.Generator) -> Array:
    """(k, d) k-means, the best of five starts of k-means++."""
    best, least = x[:k], np.inf
    for _ in range(5):
        c = x[rng.integers(len(x), size=1)]
        while len(c) < k:
            far = ((x[:, None] - c) ** 2).sum(-1).min(1)
            c = np.vstack([c, x[rng.choice(len(x), p=far / far.sum())]])
        for _ in range(30):
            nearest = ((x[:, None] - c) ** 2).sum(-1).argmin(1)
            c = np.stack([x[nearest == j].mean(0) if (nearest == j).any() else c[j] for j in range(k)])
        total = ((x[:, None] - c) ** 2).sum(-1).min(1).sum()
        best, least = (c, total) if total < least else (best, least)
    return best


def memberships(x: Array, c: Array) -> Array:
    """(n, k) centred softmax(-|x - c|^2 / 2 s^2), s^2 the variance of a column around its nearest centre."""
    squared = ((x[:, None] - c) ** 2).sum(-1)
    m = softmax(-squared * x.shape[1] / (2 * squared.min(1).mean()), axis=1)
    return m - m.mean(0)


def prototype_head(made: Clustered, c: Array, n: int) -> Array:
    """(300,) values .5 softmax(-|x - c|) v + .5 x b, with v and b from the first n judgments under standard normal priors."""
    distance = np.sqrt(((made.x[:, None] - c) ** 2).sum(-1))
    columns = np.hstack([softmax(-distance, axis=1), made.x - made.x.mean(0)]) / 2
    one, other = made.judged[:n].T
    difference = (columns[one] - columns[other]) * np.where(made.won[:n], 1, -1)[:, None]

    def objective(w: Array) -> tuple[float, Array]:
        gap = difference @ w
        return float(-log_expit(gap).sum() + w @ w / 2), w - difference.T @ expit(-gap)

    found: Any = optimize.minimize(objective, np.zeros(columns.shape[1]), jac=True, method="L-BFGS-B")
    assert found.success
    return columns @ found.x


def test_clustered_responses_are_as_they_say() -> None:
    """300 values have a standard deviation of about 1.5 (cluster and linear part go together by chance), the vectors of 1.1 or 1."""
    for k, d in ((8, 16), (0, 16)):
        made = [clustered(seed, k, d) for seed in range(20)]
        assert np.mean([m.value.std() for m in made]) == pytest.approx(1.5, abs=0.15)
        assert np.mean([m.x.std() for m in made]) == pytest.approx(np.sqrt(1.25) if k else 1, abs=0.05)
        assert all(m.judged.max() < 200 <= m.unseen.min() for m in made)
        assert all(abs(m.won.mean() - 0.5) < 0.06 for m in made)


def test_few_labels_of_clustered_responses_go_further_in_linear_than_in_bradley_terry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zhang et al. 2024 (Proto-RM): structure lets few labels go further. Here the structure is Linear's own, without prototypes.

    8 clusters in 16 dimensions, 5% of 2,000 judgments, 20 seeds; `Tabular` has its prior variance estimated too. Expected: the paired
    t interval of the error of gaps between judged responses lies below 0, that of accuracy above, and responses that nobody judged
    are told apart, where a table cannot. Found: error 1.99 to 1.44, -.55 [-.66, -.44]; accuracy .64 to .77, +.14 [.12, .15]; .76 of
    the pairs that nobody judged.
    """
    table, linear, unseen = np.zeros((20, 2)), np.zeros((20, 2)), np.zeros((20, 2))
    for seed in range(20):
        made = clustered(seed, 8, 16)

        def vectors(_name: str, texts: list[str], made: Clustered = made) -> Array:
            return made.x[[int(text) for text in texts]]

        monkeypatch.setattr("seamark.models.network.encode_texts", vectors)
        monkeypatch.setattr("seamark.models.network.reads_conversations", lambda _name: False)
        table[seed] = error(made, values_of(sm.Tabular(), made, 100), made.held)
        values = values_of(sm.Linear("vectors", style=False), made, 100)
        linear[seed], unseen[seed] = error(made, values, made.held), error(made, values, made.unseen)
    assert interval(linear[:, 0] - table[:, 0])[1] < -0.4
    assert interval(linear[:, 1] - table[:, 1])[0] > 0.1
    assert interval(unseen[:, 1])[0] > 0.7
    np.testing.assert_allclose([table.mean(0), linear.mean(0)], [[1.99, 0.64], [1.44, 0.77]], atol=0.03)


@pytest.mark.slow
def test_prototypes_help_where_there_are_clusters_and_harm_where_there_are_none() -> None:
    """Why Linear has no prototypes (decision 0016): 5% of the judgments, against the vectors alone.

    Expected of columns that say the cluster, 16 of them as nobody knows how many there are: they help where there are clusters in few
    dimensions (8 in 16), and cost a little where there are none, for they are columns with a prior to estimate. In 384 dimensions the
    cluster is linear in the vector already and little is left to gain. Found, over 60 seeds: error of gaps -.077 [-.097, -.056] with
    clusters; without, accuracy -.007 [-.010, -.004] and for responses that nobody judged -.009 [-.013, -.005], with their error
    +.023 [.008, .039]. The error between judged responses, +.007 [-.002, +.017], is no finding, though 20 other seeds had +.03.
    """
    changed = {(k, d): np.zeros((n, 4)) for k, d, n in ((8, 16, 60), (0, 16, 60), (20, 384, 20))}
    for (k, d), rows in changed.items():
        for seed, row in enumerate(rows, 100):
            made = clustered(seed, k, d)
            content, c = made.x - made.x.mean(0), centres(made.x, 16, made.rng)
            alone = values_of(Vectors(content=content), made, 100)
            both = values_of(Vectors(content=content, prototypes=memberships(made.x, c)), made, 100)
            for column, pairs in ((0, made.held), (2, made.unseen)):
                row[column : column + 2] = np.subtract(error(made, both, pairs), error(made, alone, pairs))
    clusters, none = changed[8, 16].T, changed[0, 16].T
    assert interval(clusters[0])[1] < -0.03
    assert interval(clusters[2])[1] < -0.01
    assert interval(none[1])[1] < 0
    assert interval(none[2])[0] > 0
    assert interval(none[3])[1] < 0
    assert np.abs(changed[20, 384].mean(0)).max() < 0.04


@pytest.mark.slow
def test_prototype_head_of_fixed_weights_falls_behind() -> None:
    """Zhang et al. 2024: .5 softmax(-|x - c|) v + .5 x b, 8 clusters in 16 dimensions, 20 seeds, against the vectors with their prior.

    Expected: prototypes with few labels, at the price of bias with many, since nothing fades in and no response has a value of its own;
    their code fades the prototypes out and ends in the plain reward. Found: error -.07 [-.11, -.03] at 5% and +.29 [.26, .32] at all.
    """
    few, many = np.zeros(20), np.zeros(20)
    for seed in range(20):
        made = clustered(seed, 8, 16)
        content, c = made.x - made.x.mean(0), centres(made.x, 8, made.rng)
        for n, found in ((100, few), (2000, many)):
            ours = values_of(Vectors(content=content), made, n)
            found[seed] = error(made, prototype_head(made, c, n), made.held)[0] - error(made, ours, made.held)[0]
    assert interval(few)[1] < 0
    assert interval(many)[0] > 0.2
