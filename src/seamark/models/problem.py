"""A feedback model and the judgments that it is to explain, as one likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import NotIdentified
from seamark.models.design import Design, build_design, comparison_parts, distinct, read_covariates, tastes
from seamark.models.effects import Leniency, Position, Reliability, SlotNumbers, Source
from seamark.models.likelihood import Likelihood
from seamark.models.observation import Observation
from seamark.models.people import People, Same, Strata
from seamark.models.utility import Dynamic, Utility, default_utility
from seamark.models.walks import Walk
from seamark.records import Feedback, require_usable

Array = NDArray[np.float64]

_PROMPTS_RATED = 20
"""Fewer prompts with several rated responses do not tell whether prompts differ."""
_RATED_ALIKE = 0.1
"""Intraclass correlation from which it is said. On Arena-bench it is .22, and a leniency of prompts is worth .03 of accuracy (decision 0025)."""
_PARTS_NAMED = 20
"""Parts of a cut comparison graph that the error lists, the largest first."""


@dataclass(frozen=True)
class Problem:
    """Judgments, and the model that they are to be explained by."""

    given: Feedback
    feedback: Feedback
    """The same, counted where many judgments are alike."""
    utility: Utility
    people: People
    strata: Strata
    likelihood: Likelihood
    reliable: bool
    """Whether raters' slopes are fitted."""
    seen: Array
    """(n_raters,) judgments of each rater."""
    liked: dict[str, tuple[float, float]]
    """Mean and sd of the properties of responses that raters may differ in liking."""
    biases: dict[str, tuple[float, float]]
    """Mean and sd of the numbers of slots that shift them."""
    notes: tuple[str, ...]


def pose(
    given: Feedback, *, utility: Utility | None, people: People | None, observation: Observation | None, require_identified: bool
) -> Problem:
    """The likelihood of some judgments under a model, its parts left out being the usual ones; see `fit`."""
    observation = observation or Observation()
    feedback = distinct(given, ordered=observation.with_effect(Position))
    require_usable(feedback)
    utility = utility or default_utility(feedback)
    people = people or Same()
    graph = feedback
    walk = None
    if isinstance(utility, Dynamic) and utility.walks(feedback):
        walk, feedback = Walk.read(feedback, utility.every)
    strata = Strata.of([*filter(None, [people.factor(feedback)]), *utility.factors(feedback)], feedback)
    covariates, constant = read_covariates(feedback, observation)
    biases, same = SlotNumbers.scales(feedback, observation.effects)
    design = build_design(feedback, observation, strata, covariates=covariates, biases=biases)
    basis = utility.prepare(graph)
    if walk is not None:
        n = len(walk.response)
        basis = replace(basis, n_responses=n, parts=(("values", slice(0, n)),), walk=walk)
    values, liked = tastes(feedback, observation, None)
    design = replace(design, tastes=values)
    notes = list(design.notes)
    if walk is not None and (timeless := graph.n_judgments - feedback.n_judgments):
        notes.append(f"{timeless} judgments without a time are left out: values that move are of some time")
    if constant := (*constant, *same):
        notes.append(f"no effect of {', '.join(constant)}: the data says nothing of it, or the same of every judgment")
    if observation.with_effect(Source) and not design.sources:
        notes.append("no effect of source: the data does not say which models wrote the responses, or it was one")
    if not any(b.lenient for b in design.blocks) and any(isinstance(e, Leniency) and e.by for e in observation.effects):
        notes.append("no effect of leniency: there are no ratings and no thumbs")
    if basis.matrix is None:
        notes += _check_identified(graph, design, walk, require_identified)
    elif not any(isinstance(e, Leniency) and e.by for e in observation.effects):
        notes += _rated_by_prompt(feedback)
    seen = _judgments_per_rater(design)
    reliable = observation.with_effect(Reliability) and _reliability_is_learnable(seen)
    if observation.with_effect(Reliability) and not reliable:
        notes.append("rater reliability is not fitted: it needs at least 3 raters with 5 or more judgments each")
    return Problem(
        given, feedback, utility, people, strata, Likelihood(design, basis, observation), reliable, seen, liked, biases, tuple(notes)
    )


def _rated_by_prompt(feedback: Feedback) -> list[str]:
    """A note where prompts differ much in how high their responses are rated: values of features learn that, too.

    The intraclass correlation of responses' mean ratings within prompts and axes, by one-way analysis of variance (Donner 1986).
    """
    rated = feedback.judgments.filter((pl.col("kind") == "rating") & (pl.col("outcome") == "answered")).select(
        "prompt",
        pl.col("axis").fill_null(""),
        pl.col("responses").list.first(),
        (pl.col("rating") - pl.col("scale_low")) / (pl.col("scale_high") - pl.col("scale_low")),
    )
    # a scale of one grade gives none
    each = rated.drop_nulls().filter(pl.col("rating").is_finite()).group_by("prompt", "axis", "responses").agg(pl.col("rating").mean())
    cells = each.group_by("prompt", "axis").agg(
        pl.len().alias("n"), pl.col("rating").mean().alias("mean"), pl.col("rating").var().alias("var")
    )
    n, mean, var = (cells.filter(pl.col("n") > 1)[name].to_numpy().astype(float) for name in ("n", "mean", "var"))
    if len(n) < _PROMPTS_RATED:
        return []
    between = float((n * (mean - np.average(mean, weights=n)) ** 2).sum() / (len(n) - 1))
    within = float(((n - 1) * var).sum() / (n - 1).sum())
    usual = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 1)
    if not between or (alike := (between - within) / (between + (usual - 1) * within)) < _RATED_ALIKE:
        return []
    return [
        f"answers to one prompt are rated alike (intraclass correlation {alike:.2f} over {len(n):,} prompts), and values learn which prompts are "
        'rated high: Leniency(by="prompt") (--effect leniency:prompt) keeps that out of them'
    ]


def _check_identified(feedback: Feedback, design: Design, walk: Walk | None, required: bool) -> list[str]:
    """Id-only responses are meant to be compared with each other: their graph must hang together."""
    alone = feedback.responses["text"].is_null().to_numpy()
    if not alone.any():
        return []
    if walk is not None:  # a path hangs together
        shown = [replace(b, shown=walk.response[b.shown]) for b in design.blocks]
        design = replace(design, blocks=tuple(shown), n_responses=feedback.n_responses)
    part = comparison_parts(design)[alone]
    names = np.array(feedback.responses["name"].to_list(), dtype=object)[alone]
    # responses that were only ever rated, or that meet within a prompt only, form parts by design of the data
    if feedback.n_prompts > 1 and not _shared_across_prompts(feedback):
        return []
    codes, counts = np.unique(part, return_counts=True)
    if len(codes) < 2:
        return []
    if required:
        parts = []
        for code in codes[np.argsort(-counts)][:_PARTS_NAMED]:
            members = names[part == code]
            shown = ", ".join(str(m) for m in members[:4]) + (f", ... ({len(members)} responses)" if len(members) > 4 else "")
            parts.append("{" + shown + "}")
        if len(codes) > _PARTS_NAMED:
            parts.append(f"and {len(codes) - _PARTS_NAMED:,} more")
        raise NotIdentified(
            parts, "Collect judgments across the parts, or fit each part on its own (require_identified=False sets each to mean 0)."
        )
    return [f"the comparison graph is cut in {len(codes)} parts; utilities are comparable within a part only"]


def _shared_across_prompts(feedback: Feedback) -> bool:
    """Whether some response is judged under several prompts."""
    pairs = feedback.judgments.select("prompt", "responses").explode("responses").drop_nulls("prompt").unique()
    return pairs.height > pairs["responses"].n_unique()


def _judgments_per_rater(design: Design) -> Array:
    total = np.zeros(design.n_raters + 1)
    for block in design.blocks:
        # a cell of a known rater stands once for each latent level
        times = np.where(block.rater < design.n_raters, design.levels, 1)
        total += np.bincount(block.rater, weights=block.count / times, minlength=design.n_raters + 1)
    return total[:-1]


def _reliability_is_learnable(seen: Array) -> bool:
    return int((seen >= 5).sum()) >= 3
