"""From feedback to what the likelihood needs: codes reduced to sufficient statistics, once.

Conventions
-----------
A *node* is a (response, group) with one utility; node = response * n_groups + group. A *block* holds all judgments with the
same outcome family and number of slots. Equal cells (same nodes, outcome, rater and order) are one row with a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seamark.errors import InvalidSetting, SeamarkError
from seamark.models.observation import Choice, Davidson, Link, Observation, Outcome, Rating, Strength, Thumbs
from seamark.models.people import Crowd
from seamark.records import Feedback

_PAIRED = pl.Enum(["left", "right", "tie", "both_bad", "cannot_tell", "skipped"])
MAX_GRADES = 10
"""A scale with more distinct values is cut at its quantiles: an ordinal model loses little beyond ten grades."""


@dataclass(frozen=True)
class Block:
    """Judgments that share an outcome family and a number of slots, as aggregated cells."""

    name: str
    family: Outcome
    shown: NDArray[np.int64]
    """(n, m) nodes, in the order shown."""
    outcome: NDArray[np.int64]
    """(n,) outcome code of the family."""
    rater: NDArray[np.int64]
    """(n,) rater code; raters not known share the last code."""
    ordered: NDArray[np.float64]
    """(n,) 1 where the order shown is known, else 0."""
    count: NDArray[np.float64]
    """(n,) number (weight) of judgments in the cell."""

    @property
    def lenient(self) -> bool:
        """Whether the family has cut points that a rater may shift."""
        return isinstance(self.family, Rating | Thumbs)


@dataclass(frozen=True)
class Design:
    """Everything the fit reads."""

    blocks: tuple[Block, ...]
    n_responses: int
    n_groups: int
    loadings: NDArray[np.float64]
    n_raters: int
    """Known raters; code n_raters stands for all that are not known."""
    n_judgments: float
    """Judgments used (sum of counts of answers; a ranking counts once per stage)."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Judgments without a likelihood, by reason."""
    notes: tuple[str, ...] = ()


def choose_outcomes(feedback: Feedback) -> dict[str, Outcome]:
    """The outcome family for each kind present: Davidson where pairs have ties, Strength where they are graded, ..."""
    frame = feedback.judgments
    outcomes: dict[str, Outcome] = {}
    pairs = frame.filter((pl.col("kind") == "pair") & pl.col("outcome").is_in(["left", "right", "tie", "both_bad"]))
    if pairs.height:
        decided = pairs.filter(pl.col("outcome").is_in(["left", "right"]))
        ties = decided.height < pairs.height
        graded = decided["strength"].drop_nulls()
        if len(graded) and graded.n_unique() > 1:
            stated = decided["strength_levels"].max()
            outcomes["pair"] = Strength(levels=int(stated if stated is not None else graded.max()), ties=ties)  # type: ignore[arg-type]  # polars types max() loosely
        else:
            outcomes["pair"] = Davidson() if ties else Choice()
    for kind, family in (("choice", Choice()), ("ranking", Choice()), ("thumbs", Thumbs())):
        if frame.filter((pl.col("kind") == kind) & (pl.col("outcome") == "answered")).height:
            outcomes[kind] = family
    if frame.filter((pl.col("kind") == "rating") & (pl.col("outcome") == "answered")).height:
        outcomes["rating"] = Rating(edges=())  # the edges are read from each scale
    return outcomes


def build_design(feedback: Feedback, observation: Observation, crowd: Crowd, *, known: Mapping[str, Outcome] | None = None) -> Design:
    """The design of all judgments that have a likelihood under this observation.

    `known` are the families of a fit by block name: judgments are then read as that fit reads them (the same grades), and
    those that it has no family for are left out.

    Raises
    ------
    SeamarkError
        If costs and preferences are mixed, or no judgment can be used.
    """
    measures = feedback.judgments["measure"].drop_nulls().unique().to_list()
    if "cost" in measures:
        raise SeamarkError(
            "the data holds costs (measure 'cost'), which are not preferences. "
            "Turn them into preferences with seamark.models.design.costs_as_preferences(feedback), which states the assumption."
        )
    families = dict(observation.outcomes) or choose_outcomes(feedback)
    if known is not None and "pair" in families:
        families["pair"] = known.get("pair/strength") or known.get("pair") or families["pair"]
    frame = feedback.judgments.select(
        "kind", "outcome", "responses", "strength", "best", "worst", "ranks", "rating", "scale_low", "scale_high", "thumb", "axis", "order_known", "weight", "label",
        pl.col("rater").cast(pl.Int64).fill_null(feedback.n_raters),
        pl.Series("group", crowd.group),
    )  # fmt: skip
    frame = frame.with_columns(pl.col("weight").fill_null(1.0), pl.col("order_known").fill_null(False).cast(pl.Float64).alias("ordered"))
    n_groups = len(crowd.names)
    blocks: list[Block] = []
    left_out: dict[str, int] = {}
    unanswered = frame.filter(pl.col("outcome").is_in(["cannot_tell", "skipped"])).height
    if unanswered:
        left_out["cannot tell or skipped"] = unanswered
    if labels := frame.filter(pl.col("kind") == "label").height:
        left_out["nominal labels"] = labels
    for kind, family in families.items():
        part = frame.filter(pl.col("kind") == kind)
        if kind == "pair":
            blocks += _pair_blocks(part, family, n_groups)
        elif kind in ("choice", "ranking"):
            if none := part.filter(pl.col("outcome") == "both_bad").height:
                left_out["none acceptable"] = none
            blocks += _choice_blocks(part.filter(pl.col("outcome") == "answered"), kind, n_groups)
        elif kind == "rating":
            rated = part.filter(pl.col("outcome") == "answered")
            assert isinstance(family, Rating)
            scales = _rating_blocks(rated, family.link, n_groups, known)
            if single := rated.height - sum(rows for _, rows in scales):
                left_out["ratings on a scale with one grade"] = single
            blocks += [block for block, _ in scales]
        elif kind == "thumbs":
            assert isinstance(family, Thumbs)
            for axis, rows in _by_axis(part.filter(pl.col("outcome") == "answered")):
                coded = rows.with_columns(pl.when(pl.col("thumb")).then(0).otherwise(1).alias("code"))
                blocks.append(_block(f"thumbs{axis}", Thumbs(axis.lstrip("/"), family.link), coded, n_groups))
        else:
            raise InvalidSetting("outcomes", kind, "Use pair, choice, ranking, rating or thumbs.")
    blocks = [b for b in blocks if len(b.outcome)]
    if known is not None:
        for unread in [b for b in blocks if b.name not in known]:
            left_out[f"{unread.name}: no family in the fit"] = int(unread.count.sum())
        blocks = [b for b in blocks if b.name in known]
    total = float(sum(b.count.sum() for b in blocks))
    if not blocks or total == 0:
        raise SeamarkError("no judgment can be fitted: all are unanswered, nominal labels, or of weight 0. Check the outcomes.")
    notes = []
    both_bad = frame.filter((pl.col("kind") == "pair") & (pl.col("outcome") == "both_bad")).height
    if both_bad:
        notes.append(f"{both_bad} 'both bad' answers enter as ties: they say which is better no more than a tie does")
    return Design(
        blocks=tuple(blocks),
        n_responses=feedback.n_responses,
        n_groups=n_groups,
        loadings=crowd.loadings,
        n_raters=feedback.n_raters,
        n_judgments=total,
        left_out=left_out,
        notes=tuple(notes),
    )


def costs_as_preferences(feedback: Feedback) -> Feedback:
    """Ratings that are costs, turned round into preferences: value = low + high - cost on the stated scale.

    The assumption, which is the caller's: a person prefers exactly what costs less, in equal steps.

    Raises
    ------
    SeamarkError
        If a cost has no stated scale to be turned on.
    """
    frame = feedback.judgments
    cost = pl.col("measure") == "cost"
    if frame.filter(cost & (pl.col("scale_low").is_null() | pl.col("scale_high").is_null())).height:
        raise SeamarkError("a cost without scale_low and scale_high cannot be turned into a preference. State its scale.")
    turned = pl.col("scale_low") + pl.col("scale_high") - pl.col("rating")
    return Feedback(
        frame.with_columns(
            pl.when(cost).then(turned).otherwise(pl.col("rating")).alias("rating"),
            pl.when(cost).then(pl.lit("preference")).otherwise(pl.col("measure")).alias("measure"),
        ),
        feedback.responses,
        feedback.prompts,
        feedback.raters,
        feedback.report,
    )


# ---------------------------------------------------------------------------------------------- blocks


def _by_axis(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Parts by axis, named "" or "/axis"."""
    return [(f"/{axis}" if axis else "", part) for (axis,), part in frame.group_by(["axis"], maintain_order=True)]


def _block(name: str, family: Outcome, coded: pl.DataFrame, n_groups: int, slots: NDArray[np.int64] | None = None) -> Block:
    """Aggregate equal cells; `coded` has responses (list), code, rater, group, ordered, weight."""
    if slots is None:
        slots = coded["responses"].explode(empty_as_null=False).cast(pl.Int64).to_numpy().reshape(coded.height, -1)
    weight = coded["weight"].to_numpy()
    columns = [*slots.T, *(coded[name].to_numpy() for name in ("code", "group", "ordered", "rater"))]
    if not (weight > 0).all():
        columns, weight = [column[weight > 0] for column in columns], weight[weight > 0]
    cells, count = _cells(columns, None if (weight == 1).all() else weight)
    m = slots.shape[1]
    code, group, ordered, rater = cells[m:]
    return Block(name, family, np.stack(cells[:m], 1) * n_groups + group[:, None], code, rater, ordered.astype(np.float64), count)


def _cells(columns: list[NDArray[Any]], weight: NDArray[np.float64] | None) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    """(columns of the distinct rows, how often each occurs), sorted by the last column, then by the first, the second, ...

    Rows become one integer each, in which the last column counts most. Where few such integers are possible they are counted in
    one pass; else they are sorted, which reads and writes one number a row.
    """
    columns = [columns[-1], *columns[:-1]]
    sizes = [int(column.max()) + 1 if len(column) else 1 for column in columns]
    if float(np.prod(np.array(sizes, dtype=np.float64))) > 2.0**62:
        table = np.stack([column.astype(np.int64) for column in columns], 1)
        rows, which = np.unique(table, axis=0, return_inverse=True)
        counts = np.bincount(which.ravel(), weights=weight, minlength=len(rows))
        ordered = list(rows.T)
        return [*ordered[1:], ordered[0]], counts.astype(np.float64)
    key = columns[0].astype(np.int64)
    for column, size in zip(columns[1:], sizes[1:], strict=True):
        if size > 1:
            key *= size
            key += column.astype(np.int64, copy=False)
    possible = int(np.prod(sizes))
    if possible <= 4 * len(key) + 1024:
        counts = np.bincount(key, weights=weight, minlength=possible)
        key = np.flatnonzero(counts)
        counts = counts[key]
    elif weight is None:
        key.sort()
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        counts, key = np.diff(starts, append=len(key)), key[starts]
    else:
        key, which = np.unique(key, return_inverse=True)
        counts = np.bincount(which, weights=weight)
    out = []
    for size in reversed(sizes[1:]):
        key, part = np.divmod(key, size)
        out.append(part)
    return [*reversed(out), key], counts.astype(np.float64)


def _pair_blocks(part: pl.DataFrame, family: Outcome, n_groups: int) -> list[Block]:
    part = part.with_columns(pl.col("outcome").cast(_PAIRED).to_physical().alias("side"))
    left, right, tie = pl.col("side") == 0, pl.col("side") == 1, pl.col("side").is_between(2, 3)
    if isinstance(family, Strength):
        k = family.levels
        if k == 1:  # Rao & Kupper: a decided pair needs no grade
            part = part.with_columns(pl.when(left | right).then(pl.lit(1)).otherwise(pl.col("strength")).alias("strength"))
        graded = part.filter(tie | ((left | right) & pl.col("strength").is_not_null()))
        code = pl.when(left).then(k - pl.col("strength")).when(tie).then(k).otherwise(pl.col("strength") + (k if family.ties else k - 1))
        if graded["strength"].max() is not None and int(graded["strength"].max()) > k:  # type: ignore[arg-type]  # polars types max() loosely
            raise InvalidSetting("Strength(levels=)", k, f"The data has a strength of {graded['strength'].max()}.")
        blocks = [_block("pair/strength", family, graded.with_columns(code.alias("code")), n_groups)]
        plain = part.filter((left | right) & pl.col("strength").is_null())
        return blocks + (_pair_blocks(plain, Choice(link=family.link), n_groups) if plain.height else [])
    decided = part.filter(left | right | tie) if isinstance(family, Davidson) else part.filter(left | right)
    return [_block("pair", family, decided.with_columns(pl.min_horizontal("side", pl.lit(2)).alias("code")), n_groups)]


def _choice_blocks(part: pl.DataFrame, kind: str, n_groups: int) -> list[Block]:
    """Choices and rankings as stages: who is chosen out of those still there."""
    stages: dict[tuple[int, bool], list[tuple[list[int], int, dict[str, float]]]] = {}

    def add(shown: list[int], chosen: int, row: dict[str, float], worst: bool = False) -> None:
        if len(shown) > 1:
            stages.setdefault((len(shown), worst), []).append((shown, chosen, row))

    for row in part.iter_rows(named=True):
        shown = row["responses"]
        rest = {"rater": row["rater"], "group": row["group"], "weight": row["weight"], "ordered": row["ordered"]}
        if kind == "choice":
            add(shown, row["best"], rest)
            if row["worst"] is not None:
                remaining = [i for i in range(len(shown)) if i != row["best"]]
                add([shown[i] for i in remaining], remaining.index(row["worst"]), rest | {"ordered": 0.0}, worst=True)
            continue
        ranks = row["ranks"]
        for i, rank in enumerate(ranks):
            # Breslow: each member of a tied group is chosen against the group's worse-ranked responses
            rivals = [j for j in range(len(ranks)) if ranks[j] > rank]
            if rivals:
                kept = sorted([i, *rivals])
                add([shown[j] for j in kept], kept.index(i), rest | {"ordered": 0.0})
    blocks = []
    for (m, worst), rows in sorted(stages.items()):
        slots = np.array([r[0] for r in rows], dtype=np.int64)
        coded = pl.DataFrame([r[2] for r in rows]).with_columns(pl.Series("code", [r[1] for r in rows]))
        blocks.append(_block(f"{kind}/{'worst' if worst else 'best'} of {m}", Choice(m=m, worst=worst), coded, n_groups, slots))
    return blocks


def _rating_blocks(part: pl.DataFrame, link: Link, n_groups: int, known: Mapping[str, Outcome] | None) -> list[tuple[Block, int]]:
    """A block per axis and scale, each with its number of ratings."""
    blocks: list[tuple[Block, int]] = []
    for (axis, low, high), rows in part.group_by(["axis", "scale_low", "scale_high"], maintain_order=True):
        scale = f"{axis or ''}[{low}, {high}]" if low is not None else f"{axis or ''}"
        fitted = known.get(f"rating/{scale}") if known is not None else None
        values = np.sort(rows["rating"].unique().to_numpy())
        if isinstance(fitted, Rating):
            edges = np.array(fitted.edges)
        elif len(values) < 2:
            continue  # one grade only says nothing about utilities
        elif len(values) <= MAX_GRADES:
            edges = values[:-1]
        else:
            edges = np.unique(np.quantile(rows["rating"].to_numpy(), np.linspace(0, 1, MAX_GRADES + 1)[1:-1]))
            edges = edges[edges < values[-1]]
        codes = np.searchsorted(edges, rows["rating"].to_numpy(), side="left")
        coded = rows.with_columns(pl.Series("code", codes))
        blocks.append((_block(f"rating/{scale}", Rating(tuple(edges.tolist()), scale, link), coded, n_groups), rows.height))
    return blocks


# ---------------------------------------------------------------------------------------------- graph


def comparison_parts(design: Design) -> NDArray[np.int64]:
    """(n_responses,) the connected part of the comparison graph that each response belongs to.

    Ratings and thumbs place their responses on one common scale, so all of them are connected.
    """
    rows, cols = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    anchor = design.n_responses
    for block in design.blocks:
        responses = block.shown // design.n_groups
        if block.lenient:
            rows.append(responses[:, 0])
            cols.append(np.full(len(responses), anchor))
        for slot in range(1, responses.shape[1]):
            rows.append(responses[:, 0])
            cols.append(responses[:, slot])
    i, j = np.concatenate(rows), np.concatenate(cols)
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(anchor + 1, anchor + 1))
    return connected_components(graph, directed=False)[1][:anchor]
