"""`fit`: a feedback model fitted to judgments, with its uncertainty and what there is to say of it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import InvalidSetting, MissingExtra, NotConverged, UnreadableSource
from seamark.models.coverage import unsupported
from seamark.models.likelihood import Likelihood
from seamark.models.observation import Choice, Missing, Observation
from seamark.models.people import People, Same, walk_factor
from seamark.models.posterior import State, covariance
from seamark.models.problem import Problem, pose
from seamark.models.result import RATER_COLUMNS, Convergence, Fit, Parameter, latent_summary
from seamark.models.search import optimise
from seamark.models.slopes import GRID, SHARES, Slopes
from seamark.models.threads import on_one_thread
from seamark.models.utility import Basis, Context, Dynamic, FeatureMap, MultiAxis, Network, Utility
from seamark.records import Feedback

Array = NDArray[np.float64]

_RUNAWAY = 2.0
"""A log scale four prior standard deviations out."""
_UNTOLD = 0.8
"""Share of a prior's variance that is left where the data says nearly nothing."""
_THIN = 40
"""Judgments of a response from which on the coefficients of numbers of slots are right to about 3% (docs/decisions/0013-style-control.md)."""


def fit(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    people: People | None = None,
    observation: Observation | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
    require_converged: bool = True,
    require_identified: bool = True,
    cluster: Literal["rater", "prompt"] | None = None,
    start: Fit | None = None,
    held_out: Feedback | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """The feedback model: who values what, how reliable each rater is, how sure we are.

    Parameters
    ----------
    utility, people, observation
        The parts of the model. Left out: Linear on hashed n-grams where all responses have texts, else Tabular; Same; the
        outcome families of the kinds present, with reliability, position, leniency and lapse.
    tolerance
        Largest root mean square of a Newton step at the end, in standard errors. Where one matrix holds everything and slopes are not
        fitted, a thousandth of it, which costs a step.
    cluster
        What the sandwich intervals take as independent: raters, or prompts. Left out: raters where they are known, else prompts.
    start
        An earlier fit of the same model to some of these judgments: the search starts there. What is found is the same within the
        tolerance, sooner.
    held_out
        Judgments that a `Network` is evaluated on at the end of each epoch of its training.
    progress
        Called with (iteration, decrement).

    Raises
    ------
    NotConverged
        If the first-order condition does not hold in time, unless `require_converged` is False.
    NotIdentified
        If id-only responses fall in parts that no judgment connects, unless `require_identified` is False.
    """
    if (network := _network(utility)) is not None and utility is not None:
        if start is not None:
            raise InvalidSetting("start", repr(start), "A network goes on from its folder; start is for what is fitted without training.")
        kept, linear = _trained(feedback, utility, network, people, observation, held_out, seed)
        found = fit(
            kept, utility=linear, people=people, observation=observation, max_iterations=max_iterations, tolerance=tolerance,
            require_converged=require_converged, require_identified=require_identified, cluster=cluster, seed=seed, progress=progress,
        )  # fmt: skip
        notes = found.notes
        if kept is feedback:
            notes = (*notes, "the last layer is fitted to judgments that its features were trained on: its intervals know nothing of that")
        return replace(found, spec=found.spec | {"utility": utility.to_dict()}, notes=notes)
    return _fitted(feedback, utility, people, observation, max_iterations, tolerance, require_converged, require_identified, cluster, start, seed, progress)  # fmt: skip


@on_one_thread
def _fitted(
    feedback: Feedback,
    utility: Utility | None,
    people: People | None,
    observation: Observation | None,
    max_iterations: int,
    tolerance: float,
    require_converged: bool,
    require_identified: bool,
    cluster: Literal["rater", "prompt"] | None,
    start: Fit | None,
    seed: int,
    progress: Callable[[int, float], None] | None,
) -> Fit:
    problem = pose(feedback, utility=utility, people=people, observation=observation, require_identified=require_identified)
    state = optimise(problem, max_iterations=max_iterations, tolerance=tolerance, seed=seed, progress=progress, start=start)
    if not state.convergence.converged and require_converged:
        raise NotConverged(state.convergence.iterations, state.convergence.decrement, tolerance)
    return _result(problem, state, cluster, seed)


def _network(utility: Utility | None) -> Network | None:
    """The network in a utility, or None."""
    if isinstance(utility, Dynamic) and isinstance(utility.utility, Network):
        raise InvalidSetting("utility", "Dynamic(Network)", "Train with Network, then fit Dynamic(utility=Linear(its folder)).")
    inside = utility.utility if isinstance(utility, MultiAxis | Context) else utility
    return inside if isinstance(inside, Network) else None


def _trained(
    feedback: Feedback,
    utility: Utility | None,
    network: Network,
    people: People | None,
    observation: Observation | None,
    held_out: Feedback | None,
    seed: int,
) -> tuple[Feedback, Utility]:
    """What the last layer is fitted to, and the utility that does it, once the network is trained."""
    try:
        from seamark.models.training import train_network
    except ModuleNotFoundError:
        raise MissingExtra("lm", "Training a network") from None
    learnt, kept = feedback.split(by="prompt", test=network.held_back, seed=seed) if network.held_back else (feedback, feedback)
    differ = utility if isinstance(utility, MultiAxis | Context) else None
    train_network(learnt, network, people=people, observation=observation, differ=differ, eval_feedback=held_out)
    linear = network.trained()
    return kept, linear if differ is None else replace(differ, utility=linear)


def _result(problem: Problem, state: State, cluster_by: Literal["rater", "prompt"] | None, seed: int) -> Fit:
    feedback, likelihood, people, strata, seen = problem.feedback, problem.likelihood, problem.people, problem.strata, problem.seen
    design, basis, observation, notes = likelihood.design, likelihood.basis, likelihood.observation, list(problem.notes)
    rng = np.random.default_rng(seed + 1)
    prompts = feedback.responses["prompt"].cast(pl.Int64).fill_null(feedback.n_prompts).to_numpy()
    known = design.n_raters >= 2 and float(seen.sum()) > 0.5 * design.n_judgments
    by_rater = known if cluster_by is None else cluster_by == "rater"
    if by_rater and not known:
        raise InvalidSetting("cluster", "rater", "Fewer than half of the judgments have a rater, or there is one; use prompt.")
    cluster = None if by_rater else prompts
    # responses of a leaderboard belong to no prompt, whatever their judgments do
    clustered = (design.n_raters if by_rater else len(np.unique(prompts))) >= 10
    spread = covariance(likelihood, state, cluster, seen > 0, rng, clustered=clustered)
    se, sandwich = spread.se, spread.sandwich
    notes += spread.notes
    k, P = design.loadings.shape[1], basis.n_columns
    x = state.x
    if not clustered:
        sandwich = None
        notes.append("no sandwich interval: fewer than 10 raters, or prompts where raters are not known")

    def parameter(name: str, index: int, unit: str = "logits") -> Parameter:
        return Parameter(
            name, float(x[index]), float(se[index]), None if sandwich is None or np.isnan(sandwich[index]) else float(sandwich[index]), unit
        )

    parameters = [
        parameter(
            s.name if len(s.names) == 1 and "=" not in name else f"{s.name}: {name}",
            likelihood.n_values + s.start + i,
            "logits per sd" if s.name.startswith("bias") else "logits",
        )
        for s in likelihood.parts
        if not s.of_many
        for i, name in enumerate(s.names)
    ]
    for c in likelihood.cells:
        for offset, name in enumerate(c.block.family.names):
            parameters.append(parameter(f"{c.block.name}: {name}", likelihood.shape.start + c.shape.start + offset, "logits"))
    shown_each = sum(float(c.block.count.sum()) * c.block.shown.shape[1] for c in likelihood.cells) / design.n_responses
    if state.prior.open_.size and shown_each < _THIN:
        notes.append(
            f"responses are judged {shown_each:.0f} times on average: with few judgments of each, effects of numbers (bias by ...) come out too "
            "large (by 15% at 6 judgments, 8% at 10, 5% at 40), and with many responses their intervals are too narrow to hold the truth"
        )
    if basis.walk is not None and design.biases:
        notes.append("values that move leave effects of numbers (bias by ...) too large where the numbers go along with the values")
    for name, index in likelihood.circumstances:
        if name.startswith("scale") and abs(x[index]) > _RUNAWAY:
            notes.append(
                f"{name} is {x[index]:+.1f}, more than circumstances do: values and scale have run apart, so leave this effect out"
            )
        parameters.append(parameter(name, index, "log scale" if name.startswith("scale") else "log odds"))
    untold = [name for name, index in likelihood.circumstances if se[index] ** 2 * state.prior.precision[index] > _UNTOLD]
    if untold:
        notes.append(f"the data does not tell {', '.join(untold)}: the intervals are those of the prior, and values may hold the effect")
    if observation.lapse:
        parameters.append(parameter("lapse (log odds)", likelihood.size - 1))
    if basis.features is not None:
        for column, name in enumerate(basis.features.style_names):
            if np.isfinite(basis.features.style_sd[column]):
                parameters.append(parameter(f"style: {name}", column, "logits per sd"))
    L = strata.levels
    nodes, posterior = state.nodes.slope, state.posterior
    if state.slopes is not None:
        # a rater not seen before: the prior, on a grid of its own
        fresh = state.slopes.unseen()
        weights = np.exp(fresh.log_prior[:-1])
        nodes = np.vstack([nodes[:-1], fresh.slope[:-1]]).reshape(design.n_raters + 1, L * nodes.shape[1])
        posterior = np.vstack([posterior[:-1], weights / weights.sum()]).reshape(design.n_raters + 1, -1)
    latent = None if strata.latent is None else replace(strata.latent, share=state.slopes.level_share if state.slopes else strata.share)
    factors = tuple(latent if f.latent and latent is not None else f for f in strata.factors)
    spreads = dict(state.variances)
    if (open_ := state.prior.open_).size:  # what is not pulled to 0 is as spread as it is found to be
        name, index = state.parts[0]
        spreads[name] += float(((open_.T @ x) ** 2).sum()) / len(index)
    if basis.walk is not None:
        factors = (*factors, walk_factor(basis.walk))
    prior = {f"{name}_sd": float(np.sqrt(v)) for name, v in spreads.items()}
    if isinstance(state.slopes, Slopes):
        prior |= {"slope_spread": state.slopes.spread} | {f"share {n}": float(s) for n, s in zip(SHARES, state.slopes.shares, strict=True)}
    repeated = known and float(np.median(seen[seen > 0])) >= 2
    shown = [c for c in likelihood.cells if not isinstance(c.block.family, Missing)]
    spec = {"utility": problem.utility.to_dict(), "people": people.to_dict(), "observation": observation.to_dict(), "seed": seed}
    families = {c.block.name: c.block.family for c in likelihood.cells}
    if (doubtful := unsupported(spec, families)) is not None:
        notes.append(doubtful)
    found = Fit(
        spec=spec,
        basis=basis,
        trained_on=problem.given,
        factors=factors,
        families=families,
        shapes={c.block.name: c.shape for c in likelihood.cells},
        weights=x[likelihood.values].reshape(k, P),
        factor=spread.factor,
        robust=spread.robust if clustered else None,
        shifts=x[likelihood.shifts],
        shift_parts=likelihood.parts,
        covariates=design.covariates,
        sources=design.sources,
        shape=x[likelihood.shape],
        lapse=float(1 / (1 + np.exp(-x[-1]))) if observation.lapse else 0.0,
        parameters=tuple(parameters),
        raters=_rater_table(feedback, likelihood, state, seen, se),
        slope_nodes=nodes,
        slope_weights=posterior,
        prior=prior,
        convergence=state.convergence,
        data={
            "n_judgments": problem.given.n_judgments,
            "n_responses": problem.given.n_responses,
            "n_prompts": feedback.n_prompts,
            "n_raters": feedback.n_raters,
            "left_out": dict(design.left_out),
            "clustered_by": "rater" if by_rater else "prompt",
            "tastes": problem.liked,
            "biases": problem.biases,
        },
        separates=not isinstance(people, Same) and repeated,
        notes=tuple(notes),
        versions=_versions(),
    )
    if latent is None:
        return found
    pairs = [c.block for c in shown if c.block.shown.shape[1] > 1]
    first, second, count = (
        np.concatenate([b.shown[:, 0] for b in pairs]), np.concatenate([b.shown[:, 1] for b in pairs]), np.concatenate([b.count for b in pairs])
    ) if pairs else (np.zeros(0, dtype=np.int64),) * 2 + (np.zeros(0),)  # fmt: skip
    membership = posterior[:-1].reshape(design.n_raters, L, -1).sum(2)
    gaps = found.gaps(feedback, first, second).by_group
    summary = latent_summary(latent, membership, seen, gaps, count, rng)
    # levels that data does not tell apart say nothing of whether answers differ by taste or by noise
    apart = found.separates and not summary.collapsed
    return replace(found, latent=summary, separates=apart, notes=(*found.notes, *((summary.alarm,) if summary.alarm else ())))


def open_reward_model(name: str | Path) -> Fit:
    """A reward model as a `Fit`: one written by Seamark with the fit of its last layer, any other of one score with its score alone.

    Of the second kind nothing is known but the values: there are no raters, no intervals, and its score is taken to be in logits, as
    that of a model trained by Bradley & Terry's likelihood is. What evaluates and uses a fit takes it like any other.

    Raises
    ------
    UnreadableSource
        If there is no such model, it has no reward head, or that gives more than one score.
    """
    from seamark.models.checkpoint import RewardModel, open_classifier, sidecar
    from seamark.models.network import model_folder

    folder = model_folder(str(name))
    if sidecar(folder) and (folder / "fit" / "fit.json").is_file():
        return Fit.load(folder / "fit").reading(str(folder))
    last = RewardModel.of(open_classifier(str(folder))).last
    if last.out_features != 1:
        raise UnreadableSource(
            str(name),
            f"it gives {last.out_features} scores",
            "Give a reward model of one score; fit Linear(its folder) for values of your own.",
        )
    weight = last.weight.detach().double().numpy()
    bias, H = 0.0 if last.bias is None else float(last.bias.detach()), weight.shape[1]
    # what is taken from the features before they are weighed adds the bias
    centre = -bias * weight[0] / float(weight[0] @ weight[0])
    nothing, plain = np.zeros(0), Observation(effects=(), lapse=False)
    features = FeatureMap(str(folder), (), nothing, nothing, centre, np.zeros((2, 0)))
    state = Convergence(True, 0, 0.0, 0.0, 0.0, float("nan"), ("It was trained elsewhere.",))
    raters = pl.DataFrame({"rater": pl.Series([], dtype=pl.String)} | {name: pl.Series([], dtype=pl.Float64) for name in RATER_COLUMNS})
    return Fit(
        spec={"utility": {"utility": "Network", "model": str(name)}, "people": Same().to_dict(), "observation": plain.to_dict(), "seed": 0},
        basis=Basis(0, np.zeros((0, H)), (("content", slice(0, H)),), features), trained_on="", factors=(), families={"pair": Choice()},
        shapes={"pair": slice(0, 0)}, weights=weight, factor=np.zeros((H, 0)), robust=None, shifts=nothing, shift_parts=(), covariates=(),
        sources=(), shape=nothing, lapse=0.0, parameters=(), raters=raters, slope_nodes=np.ones((1, 1)), slope_weights=np.ones((1, 1)),
        prior={}, convergence=state,
        data={"n_judgments": 0, "n_responses": 0, "n_prompts": 0, "n_raters": 0, "left_out": {}, "clustered_by": "prompt", "tastes": {}, "biases": {}},
        separates=False, notes=("a reward model that was trained elsewhere: nothing is known of its ignorance, or of who was asked",),
        versions=_versions(),
    )  # fmt: skip


@cache
def _versions() -> dict[str, str]:
    """What the fit was made with; reading it takes longer than a small fit."""
    return {name: version(name) for name in ("seamark", "numpy", "scipy", "polars", "torch")} | {"python": platform.python_version()}


def _rater_table(feedback: Feedback, likelihood: Likelihood, state: State, seen: Array, se: Array) -> pl.DataFrame:
    R = likelihood.design.n_raters
    L = state.nodes.levels
    width = L * state.posterior.shape[1]
    slope, posterior = state.nodes.slope[:-1].reshape(R, width), state.posterior[:-1].reshape(R, width)
    nothing = np.full(R, np.nan)
    if isinstance(state.slopes, Slopes):
        mean = (slope * posterior).sum(1)
        order = np.argsort(slope, axis=1)
        ordered, weight = np.take_along_axis(slope, order, 1), np.take_along_axis(posterior, order, 1)
        reached = np.cumsum(weight, 1)
        low = ordered[np.arange(R), np.minimum((reached < 0.025).sum(1), slope.shape[1] - 1)] if R else nothing
        high = ordered[np.arange(R), np.minimum((reached < 0.975).sum(1), slope.shape[1] - 1)] if R else nothing
        kind = posterior.reshape(R, L, width // L)
        careless, careful = kind[:, :, 0].sum(1), kind[:, :, 1 : 1 + GRID].sum((1, 2))
        opposed = kind[:, :, 1 + GRID :].sum((1, 2))
    else:
        mean = low = high = careless = careful = opposed = nothing
    lenient = likelihood.part("leniency")
    leniency = state.x[lenient] if lenient else nothing
    leniency_se = se[lenient] if lenient else nothing
    columns = (seen, mean, low, high, careful, careless, opposed, leniency, leniency_se)
    return pl.DataFrame(
        {"rater": feedback.raters["id"]} | {name: np.asarray(c, dtype=float) for name, c in zip(RATER_COLUMNS, columns, strict=True)}
    )
