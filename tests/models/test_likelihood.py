"""The likelihood against the naive reference of tests/reference.py, and its derivatives against finite differences.

The data of these tests is a random jumble: all kinds of judgment, tied ranks, worst choices, several scales, raters and groups
that are not known, weights. It is small enough for loops, and utilities are of order 1.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import reference
from scipy import integrate, stats
from scipy.sparse import issparse

import seamark.models.likelihood
from seamark.models.design import Design, build_design, read_covariates
from seamark.models.effects import Bias, Lapse, Missingness, Scale, SlotNumbers, Source, Taste
from seamark.models.likelihood import Likelihood, Nodes
from seamark.models.observation import Leniency, Observation, Position, Reliability
from seamark.models.people import Groups, Personas, Strata, Varying
from seamark.models.utility import Basis
from seamark.records import Feedback

N_RESPONSES, N_RATERS = 6, 4
EVERYTHING = Observation(effects=(Reliability(), Position(), Leniency()), lapse=True)
NOTHING = Observation(effects=(), lapse=False)
LIKING = Observation(effects=(*EVERYTHING.effects, Taste()), lapse=True)
GRADES = {"clarity": (1.0, 2.0, 4.0, 5.0), "": (0.0, 0.5, 1.0)}


def jumble(seed: int = 0, *, graded: bool = False, n: int = 90, rich: bool = False) -> Feedback:
    """Random judgments of every kind; answers are random, since a likelihood must hold for any.

    A rich one has "both bad", pairs without an answer, and circumstances that some effects ask for.
    """
    rng = np.random.default_rng(seed)
    more = np.random.default_rng(seed + 1000)
    rows: list[dict[str, object]] = []
    for j in range(n):
        kind = ("pair", "choice", "ranking", "rating", "thumbs")[j % 5]
        m = {"pair": 2, "choice": int(rng.integers(2, 5)), "ranking": int(rng.integers(2, 5)), "rating": 1, "thumbs": 1}[kind]
        shown = rng.permutation(N_RESPONSES)[:m]
        rater = rng.integers(-1, N_RATERS)
        row: dict[str, object] = {
            "kind": kind,
            "ids": [f"response {r}" for r in shown],
            "texts": None,
            "outcome": "answered",
            "rater": None if rater < 0 else f"rater {rater}",
            "group": [None, "one", "two"][rng.integers(3)],
            "order_known": bool(rng.random() < 0.7),
            "weight": None if rng.random() < 0.7 else float(rng.integers(1, 4)) / 2,
        }
        if kind == "pair":
            outcome = ("left", "right", "tie")[rng.integers(3)]
            if rich and more.random() < 0.3:
                outcome = ("both_bad", "cannot_tell", "skipped")[more.integers(3)]
            row["outcome"] = outcome
            if graded and outcome != "tie" and rng.random() < 0.7:
                row |= {"strength": int(rng.integers(1, 4)), "strength_levels": 3}
        elif kind == "choice":
            best = int(rng.integers(m))
            others = [i for i in range(m) if i != best]
            row |= {"best": best, "worst": int(rng.choice(others)) if rng.random() < 0.5 else None}
        elif kind == "ranking":
            row["ranks"] = (np.unique(rng.integers(1, m + 1, m), return_inverse=True)[1] + 1).tolist()
        elif kind == "rating":
            axis = ("clarity", None)[rng.integers(2)]
            grades = GRADES[axis or ""]
            row |= {"axis": axis, "rating": float(grades[rng.integers(len(grades))]), "scale_low": grades[0], "scale_high": grades[-1]}
        else:
            row["thumb"] = bool(rng.random() < 0.5)
        if rich:
            row |= {
                "confidence": (None, 1.0, 2.0, 4.0)[more.integers(4)],
                "team": (None, "north", "south")[more.integers(3)],
                "ui_version": ("old", "new")[more.integers(2)],
                "models": [("m1", "m2", "m3")[i] for i in more.integers(3, size=m)] if more.random() < 0.8 else None,
            }
            row["covariate.length"] = [None if odd < 0.1 else 50 + 20 * odd for odd in more.random(m)] if more.random() < 0.9 else None
            row["position"] = int(more.integers(20))
        rows.append(row)
    names = sorted({name for row in rows for name in row})
    return Feedback.from_columns({name: [row.get(name) for row in rows] for name in names})


@pytest.fixture(autouse=True, params=["written out", "sparse"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small models take one way through the derivatives and large ones another: every test here holds both to the reference."""
    if request.param == "sparse":
        monkeypatch.setattr(seamark.models.likelihood, "_WRITTEN_OUT", 0)
    return request.param


def _nodes(rng: np.random.Generator, n_raters: int, q: int = 3, levels: int = 1) -> Nodes:
    """Random slopes, one of them 0 and some negative; the last row is one node at slope 1, as the fit has it."""
    n_raters *= levels
    slope = np.vstack([rng.normal(0.5, 1, (n_raters, q)), np.ones((1, q))])
    slope[:, 0] *= np.append(np.zeros(n_raters), 1)
    prior = np.vstack([rng.dirichlet(np.ones(q), n_raters), np.eye(q)[:1]])
    with np.errstate(divide="ignore"):
        return Nodes(slope, np.log(prior), levels)


def _likelihood(
    feedback: Feedback,
    observation: Observation,
    *,
    groups: bool,
    columns: int | None = None,
    latent: Personas | Varying | None = None,
    seed: int = 3,
) -> Likelihood:
    """With `columns`, a basis of random features, else the identity. What raters differ in liking is random, too."""
    n = feedback.n_responses
    strata = _strata(feedback, groups=groups, latent=latent)
    covariates, _ = read_covariates(feedback, observation)
    matrix = None if columns is None else np.random.default_rng(seed).normal(size=(n, columns))
    basis = Basis(n, matrix, (("values", slice(0, n if columns is None else columns)),))
    biases, _ = SlotNumbers.scales(feedback, observation.effects)
    design = build_design(feedback, observation, strata, covariates=covariates, biases=biases)
    if any(isinstance(effect, Taste) for effect in observation.effects):
        design = replace(design, tastes={Taste().of: np.random.default_rng(seed + 1).normal(size=n)})
    return Likelihood(design, basis, observation)


def _strata(feedback: Feedback, *, groups: bool, latent: Personas | Varying | None = None) -> Strata:
    """Groups and latent levels, or some of them."""
    factors = [Groups(min_judgments=1).factor(feedback)] if groups else []
    return Strata.of([*factors, *([latent.factor(feedback)] if latent else [])], feedback)


def _x(likelihood: Likelihood, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.7, likelihood.size)
    x[likelihood.shape] = likelihood.shape_start() + rng.normal(0, 0.3, likelihood.n_shape)
    return x


def _ways(likelihood: Likelihood, n: int = 6) -> np.ndarray:
    """Directions of steps of 1 or -1 in every parameter: what is wrong in one shows along each of them, at a few evaluations."""
    return np.random.default_rng(15).choice([-1.0, 1.0], (n, likelihood.size))


def _marginal(likelihood: Likelihood, x: np.ndarray, nodes: Nodes) -> float:
    return float(nodes.posterior(likelihood.rater_log_likelihood(x, nodes) + nodes.log_prior)[0].sum())


def _posterior(likelihood: Likelihood, x: np.ndarray, nodes: Nodes) -> np.ndarray:
    return nodes.posterior(likelihood.rater_log_likelihood(x, nodes) + nodes.log_prior)[1]


def _grades(feedback: Feedback) -> dict[str, list[float]]:
    """The grades that were given on each scale, in order."""
    rated = feedback.judgments.filter(feedback.judgments["kind"] == "rating")
    return {axis or "": sorted(set(rows["rating"])) for (axis,), rows in rated.group_by("axis")}


def _slot_scale(feedback: Feedback, name: str) -> tuple[float, float]:
    """(mean, root mean square of the difference of two slots shown together) of a covariate; mean and sd of a field of the judgments."""
    if name in feedback.judgments.columns:
        given = feedback.judgments[name].drop_nulls().to_numpy()
        return float(given.mean()), float(given.std())
    slots = [[x for x in row or [] if x is not None] for row in feedback.judgments[f"covariate.{name}"].to_list()]
    squares = [np.mean([(x - y) ** 2 for i, x in enumerate(row) for y in row[:i]]) for row in slots if len(row) > 1]
    return float(np.mean([x for row in slots for x in row])), float(np.sqrt(np.mean(squares)))


def _world(feedback: Feedback, likelihood: Likelihood, x: np.ndarray, nodes: Nodes) -> reference.World:
    """The same parameters in the reference's terms."""
    t = x[likelihood.shape]
    runs = {part.name: x[likelihood.part(part.name) or slice(0, 0)].tolist() for part in likelihood.parts}
    by_rater = {name: dict(enumerate(runs.get(name, []))) for name in ("leniency", "position of raters", "propensity")}
    lapses = likelihood.observation.lapse
    world = reference.World(
        utility=likelihood.utilities(x),
        slope=nodes.slope,
        log_prior=nodes.log_prior,
        position=runs.get("position", [0.0])[0],
        leniency=by_rater["leniency"],
        position_of_raters=by_rater["position of raters"],
        propensity=by_rater["propensity"],
        source=dict(zip(likelihood.design.sources, runs.get("source", []), strict=False)),
        liked=likelihood.design.tastes.get(Taste().of, np.zeros(0)).tolist(),
        taste=dict(enumerate(runs.get(f"taste for {Taste().of}", []))),
        lapse=reference.sigmoid(t[-1]) if lapses else 0.0,
        grades=_grades(feedback),
    )
    world.bias = {
        part.name.removeprefix("bias by "): (runs[part.name][0], *_slot_scale(feedback, part.name.removeprefix("bias by ")))
        for part in likelihood.parts
        if part.name.startswith("bias by ") and not part.per_rater
    }
    world.bias_of_raters = {name: dict(enumerate(runs.get(f"bias by {name} of raters", []))) for name in world.bias}
    # a column of names counts as deviations from its mean; the commonest level has the parameter 0
    circumstances = {name: float(x[index]) for name, index in likelihood.circumstances}
    for column, names, values in (
        ("ui_version", *next(((p.names, runs[p.name]) for p in likelihood.parts if p.name.startswith("position by")), ((), []))),
        ("team", *zip(*((name, v) for name, v in circumstances.items() if "team=" in name), strict=True)) if "lapse" in str(circumstances)
        else ("team", (), []),
    ):  # fmt: skip
        if names:
            given = feedback.judgments[column].drop_nulls().to_list()
            values = {name.partition("=")[2].partition(" (")[0]: v for name, v in zip(names, values, strict=True)}
            commonest = names[0].partition("against ")[2].rstrip(")")
            assert all(given.count(commonest) >= given.count(level) for level in values)
            values[commonest] = 0.0
            mean = sum(value * given.count(level) / len(given) for level, value in values.items())
            centred = {level: value - mean for level, value in values.items()}
            if column == "ui_version":
                world.position_by = centred
            else:
                world.haste = centred
    if "scale: confidence" in circumstances:
        given = feedback.judgments["confidence"].drop_nulls().to_numpy()
        world.scale, world.confidence = circumstances["scale: confidence"], (float(given.mean()), float(given.std()))
    world.ties = {}
    cuts: dict[str, list[float]] = {}
    for cell in likelihood.cells:
        theta = t[cell.shape].tolist()
        name = cell.block.name
        if name == "pair/strength":
            world.steps, world.levels = theta, len(theta)
        elif name == "pair" and theta:
            world.log_tie = theta[0]
            world.log_none = theta[1] if len(theta) == 2 else None
        elif name == "pair/answered":
            world.missing = (theta[0], theta[1])
        elif name.startswith("ranking/") and theta:
            world.ties |= {cell.block.shown.shape[1]: theta}
        elif name.startswith("rating/"):
            cuts["clarity" if "clarity" in name else ""] = theta
        elif name == "thumbs":
            world.thumbs = theta[0]
    world.rating = cuts
    return world


CASES = [
    pytest.param({"observation": EVERYTHING, "groups": False}, id="everything, one population"),
    pytest.param({"observation": EVERYTHING, "groups": True}, id="everything, groups", marks=pytest.mark.slow),
    pytest.param({"observation": EVERYTHING, "groups": True, "columns": 4}, id="everything, groups, features"),
    pytest.param({"observation": NOTHING, "groups": False}, id="no effects, no lapse"),
    pytest.param(
        {"observation": Observation(effects=(Position(),), lapse=True), "groups": False, "columns": 3},
        id="position and lapse, features",
        marks=pytest.mark.slow,
    ),
    pytest.param({"observation": Observation(effects=(Leniency(),), lapse=False), "groups": True}, id="leniency, groups"),
    pytest.param({"observation": EVERYTHING, "groups": True, "latent": Personas(3)}, id="personas and groups"),
    pytest.param(
        {"observation": EVERYTHING, "groups": False, "latent": Personas(3), "columns": 4}, id="personas, features", marks=pytest.mark.slow
    ),
    pytest.param(
        {"observation": EVERYTHING, "groups": True, "latent": Varying(1, points=5)}, id="varying tastes and groups", marks=pytest.mark.slow
    ),
    pytest.param({"observation": LIKING, "groups": True}, id="taste for a property, groups", marks=pytest.mark.slow),
    pytest.param({"observation": LIKING, "groups": False, "columns": 4, "latent": Varying(1, points=5)}, id="both tastes, features"),
]
CIRCUMSTANCES = Observation(
    effects=(
        Reliability(), Position(per_rater=True, by="ui_version"), Leniency(), Source(), Scale("confidence"), Lapse("team"), Missingness(),
    )
)  # fmt: skip
TASTES = Observation(effects=(*CIRCUMSTANCES.effects, Taste()))
NUMBERS = Observation(
    effects=(*CIRCUMSTANCES.effects, Bias("length", per_rater=True), Bias("position")),
)
RICH = [
    pytest.param({"observation": CIRCUMSTANCES, "groups": False}, id="circumstances"),
    pytest.param({"observation": CIRCUMSTANCES, "groups": True, "columns": 4}, id="circumstances, groups, features"),
    pytest.param({"observation": CIRCUMSTANCES, "groups": True, "latent": Personas(3)}, id="circumstances, groups, personas"),
    pytest.param({"observation": TASTES, "groups": True, "latent": Varying(1, points=5)}, id="circumstances and tastes, groups"),
    pytest.param({"observation": NUMBERS, "groups": False}, id="numbers of slots"),
    pytest.param({"observation": NUMBERS, "groups": True, "columns": 4}, id="numbers of slots, groups, features"),
    pytest.param({"observation": NUMBERS, "groups": True, "latent": Personas(3)}, id="numbers of slots, groups, personas"),
]
cases = pytest.mark.parametrize("case", CASES)


def test_the_jumble_holds_everything():
    """The generator reaches what the tests are about."""
    frame = jumble(graded=True).judgments
    assert set(frame["kind"].unique()) == {"pair", "choice", "ranking", "rating", "thumbs"}
    assert frame["rater"].null_count() > 5
    assert set(frame["group"].unique()) == {None, "one", "two"}
    assert frame["worst"].drop_nulls().len() > 3
    assert set(frame["strength"].drop_nulls()) == {1, 2, 3}
    assert any(len(set(r)) < len(r) for r in frame["ranks"].drop_nulls())
    assert set(frame["order_known"]) == {True, False}


def _against_the_reference(feedback: Feedback, case: dict) -> None:
    likelihood = _likelihood(feedback, **case)
    levels = likelihood.design.levels
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(5), feedback.n_raters, levels=levels)
    stratum = _strata(feedback, groups=case["groups"]).stratum
    groups = (stratum * (levels + 1 if levels > 1 else 1)).tolist()
    world = _world(feedback, likelihood, x, nodes)
    rows = feedback.judgments.to_dicts()
    expected = reference.rater_log_likelihood(rows, groups, world, levels)
    possible = np.isfinite(nodes.log_prior)
    got = likelihood.rater_log_likelihood(x, nodes)
    assert np.abs(got[possible] - expected[possible]).max() < 1e-11
    assert (got[~possible] == -np.inf).all()
    assert abs(_marginal(likelihood, x, nodes) - reference.log_likelihood(rows, groups, world, levels)) < 1e-10


@cases
@pytest.mark.parametrize("graded", [False, True])
def test_agrees_with_the_reference(case: dict, graded: bool):
    """Tolerance: sums of up to 90 log probabilities, some from differences of sigmoids of about 0.01."""
    _against_the_reference(jumble(graded=graded), case)


@pytest.mark.parametrize("case", RICH)
def test_circumstances_agree_with_the_reference(case: dict):
    """Both bad, no answer, stated confidence, teams, interfaces and source models, all at once."""
    feedback = jumble(21, n=1000, rich=True)
    outcomes = feedback.judgments["outcome"].to_list()
    assert outcomes.count("both_bad") > 5
    assert outcomes.count("skipped") + outcomes.count("cannot_tell") >= 30
    likelihood = _likelihood(feedback, **case)
    assert {"pair", "pair/answered"} <= {c.block.name for c in likelihood.cells}
    wanted = {"position", "position by ui_version", "position of raters", "leniency", "source", "propensity"}
    if case["observation"] is NUMBERS:
        wanted |= {"bias by length", "bias by length of raters", "bias by position"}
    if case["observation"] is TASTES:
        wanted |= {"taste for log_characters"}
    assert {part.name for part in likelihood.parts} == wanted
    assert len(likelihood.circumstances) == 2
    _against_the_reference(feedback, case)


@pytest.mark.parametrize("case", RICH)
def test_gradient_under_circumstances_is_that_of_the_marginal(case: dict):
    """As below; the value is of size 800 here."""
    feedback = jumble(22, n=1000, rich=True)
    likelihood = _likelihood(feedback, **case)
    assert "pair/answered" in {c.block.name for c in likelihood.cells}
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(6), feedback.n_raters, levels=likelihood.design.levels)
    gradient = likelihood.derivatives(x, nodes, _posterior(likelihood, x, nodes)).gradient
    for way in _ways(likelihood):
        slope = (_marginal(likelihood, x + 1e-5 * way, nodes) - _marginal(likelihood, x - 1e-5 * way, nodes)) / 2e-5
        assert abs(slope - gradient @ way) < 1e-6


@cases
@pytest.mark.parametrize("graded", [False, True])
def test_gradient_is_that_of_the_marginal(case: dict, graded: bool):
    """Central differences with h = 1e-5 of a value of size 200: rounding 200 x 1e-16 / 1e-5 = 2e-9, truncation 1e-7 over all
    parameters at once; 1e-6 asserted."""
    feedback = jumble(1, graded=graded)
    likelihood = _likelihood(feedback, **case)
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(6), feedback.n_raters, levels=likelihood.design.levels)
    gradient = likelihood.derivatives(x, nodes, _posterior(likelihood, x, nodes)).gradient
    for way in _ways(likelihood):
        slope = (_marginal(likelihood, x + 1e-5 * way, nodes) - _marginal(likelihood, x - 1e-5 * way, nodes)) / 2e-5
        assert abs(slope - gradient @ way) < 1e-6


@cases
def test_information_less_missing_is_the_observed_information(case: dict):
    """Louis 1982: -Hessian of the marginal = E[-Hessian given slopes] - Var[score given slopes], here by differences of gradients."""
    feedback = jumble(2)
    likelihood = _likelihood(feedback, **case)
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(7), feedback.n_raters, levels=likelihood.design.levels)

    def gradient(x: np.ndarray) -> np.ndarray:
        return likelihood.derivatives(x, nodes, _posterior(likelihood, x, nodes)).gradient

    posterior = _posterior(likelihood, x, nodes)
    information = likelihood.derivatives(x, nodes, posterior).whole()
    missing, _ = likelihood.score_products(x, nodes, posterior)
    h, ways = 1e-5, _ways(likelihood)
    curved = np.array([(gradient(x + h * way) - gradient(x - h * way)) / (2 * h) for way in ways])
    # nodes of posterior mass below 1e-5 are left out of `missing`: the more of them, and the larger their scores, the more is lost
    assert np.abs(ways @ (information - missing) + curved).max() < (5e-3 if case.get("latent") else 1e-4)
    assert np.abs(missing - missing.T).max() < 1e-10
    assert np.linalg.eigvalsh(missing).min() > -1e-9


@pytest.mark.parametrize("columns", [None, 4])
def test_information_of_numbers_of_slots_is_the_derivative_of_the_gradient(columns: int | None):
    """Slopes known: minus the Hessian, by central differences of gradients; dense columns beside sparse ones, d = 1 and more."""
    feedback = jumble(23, n=150, rich=True)
    effects = (Position(), Bias("length", per_rater=True), Bias("position"), Source())
    likelihood = _likelihood(feedback, Observation(effects=effects, lapse=True), groups=True, columns=columns)
    assert {len(c.D.columns) for c in likelihood.cells} == {2}
    assert {c.scalar for c in likelihood.cells} == {True, False}
    x, nodes = _x(likelihood), Nodes.fixed(feedback.n_raters)
    posterior = np.ones_like(nodes.slope)

    def gradient(x: np.ndarray) -> np.ndarray:
        return likelihood.derivatives(x, nodes, posterior).gradient

    h, ways = 1e-5, _ways(likelihood)
    curved = np.array([(gradient(x + h * way) - gradient(x - h * way)) / (2 * h) for way in ways])
    assert np.abs(ways @ likelihood.derivatives(x, nodes, posterior).whole() + curved).max() < 1e-6
    scores = likelihood.cluster_scores(x, nodes, posterior)
    total = scores.sum(0) if columns else np.asarray(scores.sum(0)).ravel()
    assert np.abs(total - gradient(x)).max() < 1e-9


def test_nothing_is_missing_when_slopes_are_known():
    feedback = jumble()
    likelihood = _likelihood(feedback, EVERYTHING, groups=False)
    x, nodes = _x(likelihood), Nodes.fixed(feedback.n_raters)
    missing, meat = likelihood.score_products(x, nodes, np.ones_like(nodes.slope))
    assert np.abs(missing).max() == 0
    assert np.linalg.eigvalsh(meat).min() > -1e-9


@pytest.mark.parametrize("by", ["rater", "prompt"])
def test_meat_is_the_sum_of_outer_products_of_scores(by: str):
    """Scores of each cluster by finite differences of the reference's log likelihood, slopes known.

    Clusters are raters (judgments of unknown raters by their first response), or a cluster of the first response. Rankings and
    worst choices are left out, since their stages are clustered by the first response of the stage.
    """
    whole = jumble(8, n=60)
    feedback = whole.filter((whole.judgments["kind"] != "ranking").to_numpy() & whole.judgments["worst"].is_null().to_numpy())
    half = np.arange(feedback.n_responses) % 2
    likelihood = _likelihood(feedback, EVERYTHING, groups=False)
    x, nodes = _x(likelihood), Nodes.fixed(feedback.n_raters)
    _, meat = likelihood.score_products(x, nodes, np.ones_like(nodes.slope), None if by == "rater" else half)
    clusters: dict[tuple[str, int], list[dict]] = {}
    for row in feedback.judgments.to_dicts():
        first, rater = row["responses"][0], row["rater"]
        key = ("half", int(half[first])) if by == "prompt" else ("response", first) if rater is None else ("rater", rater)
        clusters.setdefault(key, []).append(row)
    expected = np.zeros_like(meat)
    for mine in clusters.values():

        def value(x: np.ndarray, mine: list[dict] = mine) -> float:
            return float(reference.rater_log_likelihood(mine, [0] * len(mine), _world(feedback, likelihood, x, nodes)).sum())

        score = np.array([(value(x + e) - value(x - e)) / 2e-5 for e in 1e-5 * np.eye(likelihood.size)])
        expected += np.outer(score, score)
    assert np.abs(meat - expected).max() < 1e-6


def test_features_that_are_the_identity_are_the_table(way: str):
    """Basis with X = I as a matrix takes the other code path and must give the same derivatives."""
    feedback = jumble(10)
    table = _likelihood(feedback, EVERYTHING, groups=True)
    n = feedback.n_responses
    features = Likelihood(table.design, Basis(n, np.eye(n), (("values", slice(0, n)),)), EVERYTHING)
    x, nodes = _x(table), _nodes(np.random.default_rng(9), feedback.n_raters)
    posterior = _posterior(table, x, nodes)
    one, two = (model.derivatives(x, nodes, posterior) for model in (table, features))
    assert issparse(one.values) == (way == "sparse")
    assert issparse(one.border) == (way == "sparse")
    assert np.abs(one.gradient - two.gradient).max() < 1e-12
    assert np.abs(one.whole() - two.whole()).max() < 1e-12
    assert np.abs(table.score_products(x, nodes, posterior)[0] - features.score_products(x, nodes, posterior)[0]).max() < 1e-10


def test_the_chunk_size_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    from seamark.models import likelihood as module

    feedback = jumble(11)
    likelihood = _likelihood(feedback, EVERYTHING, groups=False)
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(10), feedback.n_raters)
    posterior = _posterior(likelihood, x, nodes)
    whole = likelihood.rater_log_likelihood(x, nodes), likelihood.derivatives(x, nodes, posterior)
    monkeypatch.setattr(module, "_CHUNK", 7)
    parts = likelihood.rater_log_likelihood(x, nodes), likelihood.derivatives(x, nodes, posterior)
    possible = np.isfinite(nodes.log_prior)
    assert np.abs(whole[0][possible] - parts[0][possible]).max() < 1e-12
    assert np.abs(whole[1].gradient - parts[1].gradient).max() < 1e-11
    assert np.abs(whole[1].whole() - parts[1].whole()).max() < 1e-11


# ------------------------------------------------------------------------------------ aggregation of cells


def _spelled_out(design: Design) -> Design:
    """Cells of count 2 as two cells of count 1, and so on; fractional weights stay."""
    blocks = []
    for b in design.blocks:
        times = np.where(b.count == np.round(b.count), b.count, 1).astype(int)
        rows = np.repeat(np.arange(len(b.count)), times)
        count = (b.count / times)[rows]
        cells = {f.name: getattr(b, f.name)[rows] for f in fields(b) if f.name not in ("name", "family", "count")}
        blocks.append(replace(b, **cells, count=count))
    return replace(design, blocks=tuple(blocks))


def test_equal_cells_are_one_cell_with_a_count():
    once = jumble(12, n=60)
    frame = once.judgments
    twice = replace(once, judgments=frame.vstack(frame).vstack(frame))
    aggregated = _likelihood(twice, EVERYTHING, groups=True)
    single = _likelihood(once, EVERYTHING, groups=True)
    for many, one in zip(aggregated.design.blocks, single.design.blocks, strict=True):
        assert len(many.count) == len(one.count)
        assert np.abs(many.count - 3 * one.count).max() < 1e-12
    spelled = Likelihood(_spelled_out(aggregated.design), aggregated.basis, EVERYTHING)
    assert sum(len(b.count) for b in spelled.design.blocks) > 1.5 * sum(len(b.count) for b in aggregated.design.blocks)
    x, nodes = _x(aggregated), _nodes(np.random.default_rng(11), once.n_raters)
    possible = np.isfinite(nodes.log_prior)
    one, two = (model.rater_log_likelihood(x, nodes)[possible] for model in (aggregated, spelled))
    assert np.abs(one - two).max() < 1e-11
    posterior = _posterior(aggregated, x, nodes)
    one, two = (model.derivatives(x, nodes, posterior) for model in (aggregated, spelled))
    assert np.abs(one.gradient - two.gradient).max() < 1e-11
    assert np.abs(one.whole() - two.whole()).max() < 1e-11
    for a, b in zip(aggregated.score_products(x, nodes, posterior), spelled.score_products(x, nodes, posterior), strict=True):
        assert np.abs(a - b).max() < 1e-10


# ------------------------------------------------------------------------------------ variance of the contrasts


@pytest.mark.parametrize("columns", [None, 4])
def test_contrast_variances_are_a_covariance_seen_through_the_contrast(columns: int | None):
    """Var(K u) for u_ig = sum_a Z_ga X_i w_a with Cov(w) = F F', cell by cell."""
    feedback = jumble(13, n=50)
    likelihood = _likelihood(feedback, EVERYTHING, groups=True, columns=columns)
    rng = np.random.default_rng(12)
    factor = rng.normal(size=(likelihood.n_values, 5))
    covariance = factor @ factor.T
    X = np.eye(feedback.n_responses) if columns is None else likelihood.basis.matrix
    Z = likelihood.design.loadings
    assert X is not None
    edges = likelihood.edges
    variances = likelihood.edge_variances(factor)
    assert (edges.right < 0).any()
    for left, right, group, variance in zip(edges.left, edges.right, edges.group, variances, strict=True):
        row = X[left] - (X[right] if right >= 0 else 0)
        a = np.kron(Z[group], row)
        assert variance == pytest.approx(a @ covariance @ a, rel=1e-10)
    for cell in likelihood.cells:
        if cell.scalar:
            for j, shown in enumerate(cell.block.shown):
                gap = sum(w * X[response] for w, response in zip(cell.K[0], shown, strict=True))
                edge = X[edges.left[cell.edge[j]]] - (X[edges.right[cell.edge[j]]] if edges.right[cell.edge[j]] >= 0 else 0)
                assert np.allclose(cell.sign[j] * edge, gap)


def test_uncertainty_offset_is_what_not_knowing_the_utilities_costs():
    """Against the integral E_u[log p(y | b u)] - log p(y | b E u) by adaptive quadrature over +-8 sd.

    Five Gauss-Hermite nodes are exact up to degree 9; at contrast sd 0.5 and slopes up to 2 the rest is below 2e-4 a judgment.
    """
    whole = jumble(14, n=50)
    feedback = whole.filter(whole.judgments["kind"].is_in(["pair", "rating", "thumbs"]).to_numpy())
    observation = Observation(effects=(Position(), Leniency()), lapse=True)
    likelihood = _likelihood(feedback, observation, groups=False)
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(13), feedback.n_raters)
    nodes = Nodes(np.clip(nodes.slope, -2, 2), nodes.log_prior)
    offset = likelihood.uncertainty_offset(x, nodes, np.full(len(likelihood.edges.left), 0.25))
    world = _world(feedback, likelihood, x, nodes)
    expected, judged = np.zeros_like(offset), np.zeros(len(offset))
    for row in feedback.judgments.to_dicts():
        r = feedback.n_raters if row["rater"] is None else row["rater"]
        weight = 1.0 if row["weight"] is None else row["weight"]
        judged[r] += weight
        for q, slope in enumerate(nodes.slope[r]):

            def log_p(shift: float, row: dict = row, slope: float = slope) -> float:
                moved = replace(world, utility=world.utility.copy())
                moved.utility[row["responses"][0], 0] += shift  # the contrast's weight on the first slot is 1
                ((p, given),) = reference.answers(row, moved, slope, 0)
                return float(np.log((1 - world.lapse) * p[given] + world.lapse / len(p)))

            mean = integrate.quad(lambda z, f=log_p: f(0.5 * z) * stats.norm.pdf(z), -8, 8, epsabs=1e-9)[0]
            expected[r, q] += weight * (mean - log_p(0.0))
    expected[~np.isfinite(nodes.log_prior)] = 0  # nodes that are switched off are not looked at
    assert np.abs(offset - expected).max() < 2e-4 * judged.max()
    assert np.abs(expected).max() > 0.05  # there is something to compare


def test_contrasts_of_several_dimensions_have_no_offset():
    whole = jumble(14, n=50)
    feedback = whole.filter(whole.judgments["responses"].list.len().to_numpy() > 2)
    likelihood = _likelihood(feedback, Observation(effects=(), lapse=True), groups=False)
    several = [c for c in likelihood.cells if c.K.shape[0] > 1]
    assert several
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(13), feedback.n_raters)
    only = replace(likelihood.design, blocks=tuple(c.block for c in several))
    alone = Likelihood(only, likelihood.basis, likelihood.observation)
    assert np.abs(alone.uncertainty_offset(x, nodes, np.full(len(alone.edges.left), 0.25))).max() == 0


def test_uncertainty_offset_is_nothing_where_utilities_are_known():
    feedback = jumble(15)
    likelihood = _likelihood(feedback, EVERYTHING, groups=False)
    x, nodes = _x(likelihood), _nodes(np.random.default_rng(14), feedback.n_raters)
    assert np.abs(likelihood.uncertainty_offset(x, nodes, np.zeros(len(likelihood.edges.left)))).max() < 1e-12
