"""From feedback to what the likelihood needs: codes reduced to sufficient statistics, once.

Conventions
-----------
A *block* holds all judgments with the same outcome family and number of slots. Equal cells (same responses, group, outcome, rater,
order and levels of the covariates) are one row with a count. The *group* of a cell is the row of Z that its values are weighed by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seamark.columns import OUTCOMES
from seamark.errors import InvalidSetting, SeamarkError
from seamark.models.effects import Covariate, Lapse, Leniency, Missingness, Position, Role, Scale, SlotNumbers, Source, Taste
from seamark.models.features import style_features
from seamark.models.observation import Choice, Davidson, Link, Luce, Missing, Observation, Outcome, Rating, Strength, Thumbs
from seamark.models.people import Strata
from seamark.models.privacy import Privacy
from seamark.records import Feedback

_PAIRED = pl.Enum(["left", "right", "tie", "both_bad", "cannot_tell", "skipped"])
MAX_GRADES = 10
"""A scale with more distinct values is cut at its quantiles: an ordinal model loses little beyond ten grades."""
MOST_TIED = 3
"""Largest set of tied responses that has a parameter of its own; larger ones enter by Breslow's approximation."""
_ENOUGH_MISSING = 30
"""Unanswered pairs from which on whether a pair is answered is fitted: its two parameters need some."""


@dataclass(frozen=True)
class Block:
    """Judgments that share an outcome family and a number of slots, as aggregated cells."""

    name: str
    family: Outcome
    shown: NDArray[np.int64]
    """(n, m) responses, in the order shown."""
    group: NDArray[np.int64]
    """(n,) row of the loadings."""
    outcome: NDArray[np.int64]
    """(n,) outcome code of the family."""
    rater: NDArray[np.int64]
    """(n,) rater code; raters not known share the last code."""
    ordered: NDArray[np.float64]
    """(n,) 1 where the order shown is known, else 0."""
    count: NDArray[np.float64]
    """(n,) number (weight) of judgments in the cell."""
    who: NDArray[np.int64]
    """(n,) rater and latent level: rater * levels + level; the rater where there are no latent levels."""
    covariate: NDArray[np.int64]
    """(n, n_covariates) row of each covariate's table."""
    source: NDArray[np.int64]
    """(n, m) source model of each slot, or (n, 0) where no effect asks for it."""
    numbers: NDArray[np.float64]
    """(n, d, C) contrasts of the numbers that are known of slots (`Bias`); with them equal cells stay apart."""
    replaced: NDArray[np.float64]
    """(n,) share of answers that a mechanism for privacy replaced by any answer at random."""
    row: NDArray[np.int64]
    """(n,) judgment of each cell where equal ones are kept apart, else -1."""

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
    """Rows of `loadings`: combinations of the levels of all factors."""
    loadings: NDArray[np.float64]
    n_raters: int
    """Known raters; code n_raters stands for all that are not known."""
    n_judgments: float
    """Judgments used (sum of counts of answers; a ranking counts once per stage)."""
    levels: int = 1
    """Latent levels, over which every cell of a known rater is repeated."""
    covariates: tuple[Covariate, ...] = ()
    sources: tuple[str, ...] = ()
    """Source models but the commonest, where an effect asks for them."""
    biases: tuple[str, ...] = ()
    """The numbers of slots that blocks have."""
    tastes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Properties of responses (n_responses,), standardised, that raters may differ in liking."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Judgments without a likelihood, by reason."""
    notes: tuple[str, ...] = ()


_SWAPPED = np.array([1, 0, 2, 3, 4, 5, 6])
"""What each of `OUTCOMES` of a pair is when the pair is turned round."""
_STEP = 1 << 19
"""Judgments counted at once: many, since every batch adds to all counts, and few, since their keys should stay in the cache."""


def distinct(feedback: Feedback, *, ordered: bool) -> Feedback:
    """The same pairs counted: one judgment per pair and outcome with the count as its weight, where that makes many times fewer.

    Only data of plain pairs can be counted, in which nothing but the responses, the outcome and whether the order is known differs
    between judgments. Unless `ordered`, a pair and the same pair turned round are one. Else the feedback itself.
    """
    frame, n, options = feedback.judgments, feedback.n_responses, len(OUTCOMES)
    constant = [name for name in frame.columns if name not in ("outcome", "responses")]
    if 2 * n * n * options > frame.height or frame["kind"][0] != "pair":
        return feedback
    for name in constant:
        column = frame[name]
        if column.null_count() not in (0, len(column)) or (
            column.null_count() == 0 and (column.dtype.is_nested() or column.n_unique() > 1)
        ):
            return feedback
    shown = frame["responses"].explode(empty_as_null=False).to_numpy()
    if len(shown) != 2 * frame.height:
        return feedback
    pairs, outcome = shown.reshape(-1, 2), frame["outcome"].cast(pl.Enum(OUTCOMES)).to_physical().to_numpy()
    options = max(int(outcome.max()), _SWAPPED[:2].max()) + 1  # those that nobody gave would only spread the counts over more memory
    counts = np.zeros(n * n * options, dtype=np.int64)
    key = np.empty(_STEP, dtype=np.int64)
    for start in range(0, len(pairs), _STEP):
        part = pairs[start : start + _STEP]
        k = key[: len(part)]
        np.multiply(part[:, 0], n, out=k, casting="unsafe")
        k += part[:, 1]
        k *= options
        k += outcome[start : start + _STEP]
        counts += np.bincount(k, minlength=len(counts))
    table = counts.reshape(n, n, options)
    if not ordered or not frame["order_known"][0]:
        turned = table.transpose(1, 0, 2)[:, :, _SWAPPED[:options]]
        table = np.where(np.tri(n, dtype=bool).T[:, :, None], table + turned, 0)
        table[np.arange(n), np.arange(n)] = counts.reshape(n, n, options)[np.arange(n), np.arange(n)]
    left, right, answer = np.nonzero(table)
    weight = table[left, right, answer].astype(np.float64)
    if frame["weight"].null_count() == 0:
        weight *= float(frame["weight"][0])
    first = frame.head(1).drop("outcome", "responses", "weight")
    rows = first.select(pl.all().repeat_by(pl.lit(len(left))).explode()) if len(left) else first.clear()
    codes = pl.Series("responses", np.stack([left, right], 1).astype(np.uint32)).cast(frame["responses"].dtype)
    answers = pl.Series("outcome", np.array(OUTCOMES)[answer], dtype=pl.String).cast(frame["outcome"].dtype)
    return replace(feedback, judgments=rows.with_columns(answers, codes, weight=weight).select(frame.columns))


def choose_outcomes(feedback: Feedback) -> dict[str, Outcome]:
    """The outcome family for each kind present: Davidson where pairs have ties, Luce where both may be bad, Strength where they are
    graded, ..."""
    frame = feedback.judgments
    outcomes: dict[str, Outcome] = {}
    pairs = frame.filter((pl.col("kind") == "pair") & pl.col("outcome").is_in(["left", "right", "tie", "both_bad"]))
    if pairs.height:
        counts = dict(pairs["outcome"].value_counts().iter_rows())
        ties, bad = counts.get("tie", 0) > 0, counts.get("both_bad", 0) > 0
        graded = pairs.filter(pl.col("outcome").is_in(["left", "right"]))["strength"].drop_nulls()
        if len(graded) and graded.n_unique() > 1:
            stated = pairs["strength_levels"].max()
            outcomes["pair"] = Strength(levels=int(stated if stated is not None else graded.max()), ties=ties or bad)  # type: ignore[arg-type]  # polars types max() loosely
        elif bad:
            outcomes["pair"] = Luce(2, most=2 if ties else 1, none=True)
        else:
            outcomes["pair"] = Davidson() if ties else Choice()
    for kind, family in (("choice", Choice()), ("ranking", Choice()), ("thumbs", Thumbs())):
        if frame.filter((pl.col("kind") == kind) & pl.col("outcome").is_in(["answered", "both_bad"])).height:
            outcomes[kind] = family
    if frame.filter((pl.col("kind") == "rating") & (pl.col("outcome") == "answered")).height:
        outcomes["rating"] = Rating(edges=())  # the edges are read from each scale
    return outcomes


def read_covariates(feedback: Feedback, observation: Observation) -> tuple[tuple[Covariate, ...], tuple[str, ...]]:
    """(covariates that the effects name, columns that say the same of every judgment)."""
    found: list[Covariate] = []
    constant: list[str] = []
    for effect in observation.effects:
        if isinstance(effect, Position | Leniency | Source):
            if not effect.by:
                continue
            role: Role = "position" if isinstance(effect, Position) else "leniency" if isinstance(effect, Leniency) else "source"
            made = Covariate.read(feedback, effect.by, role, within_rater=False)
        elif isinstance(effect, Scale):
            made = Covariate.read(feedback, effect.by, "scale", within_rater=effect.within_rater)
        elif isinstance(effect, Lapse):
            made = Covariate.read(feedback, effect.by, "lapse", within_rater=effect.within_rater)
        else:
            continue
        if made is not None:
            found.append(made)
        else:
            constant.append(effect.by)
    return tuple(found), tuple(constant)


def build_design(
    feedback: Feedback,
    observation: Observation,
    strata: Strata,
    *,
    covariates: tuple[Covariate, ...] = (),
    sources: tuple[str, ...] | None = None,
    biases: Mapping[str, tuple[float, float]] | None = None,
    known: Mapping[str, Outcome] | None = None,
    repeated: bool = True,
    apart: bool = False,
) -> Design:
    """The design of all judgments that have a likelihood under this observation.

    `known` are the families of a fit by block name: judgments are then read as that fit reads them (the same grades), and
    those that it has no family for are left out. `sources` are then the fit's source models. `biases` are mean and sd of the numbers
    of slots. Without `repeated`, cells are not
    repeated over the latent levels, and their group is the row of the stratum; with `apart`, equal judgments are cells of their own.

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
        families["pair"] = known.get("pair/strength") or known.get("pair") or known.get("pair/private") or families["pair"]
    frame = feedback.judgments.select(
        "kind", "outcome", "responses", "strength", "best", "worst", "ranks", "rating", "scale_low", "scale_high", "thumb", "axis", "order_known", "weight", "label",
        pl.col("rater").cast(pl.Int64).fill_null(feedback.n_raters),
        pl.Series("group", strata.stratum), pl.Series("row", np.arange(feedback.n_judgments)),
        *(pl.Series(f"x{i}", c.codes(feedback)) for i, c in enumerate(covariates)),
    )  # fmt: skip
    if apart:
        frame = frame.with_columns(apart="row")
    epsilon, notes = _private(feedback)
    if epsilon is not None:
        frame = frame.with_columns(pl.Series("epsilon", epsilon))
    if observation.with_effect(Source):
        sources, coded = _source_codes(feedback, sources)
        frame = frame.with_columns(coded)
    frame = frame.with_columns(pl.col("weight").fill_null(1.0), pl.col("order_known").fill_null(False).cast(pl.Float64).alias("ordered"))
    numbers = SlotNumbers.read(feedback, biases) if biases else None
    blocks: list[Block] = []
    left_out: dict[str, int] = {}
    if known is None:
        notes += SlotNumbers.one_sided(feedback, biases or ())
    pairs = _where(frame, pl.col("kind") == "pair") if "pair" in families else frame.clear()
    missing = _missing_block(pairs) if observation.with_effect(Missingness) and (known is None or "pair/answered" in known) else None
    unanswered = int(frame["outcome"].is_in(["cannot_tell", "skipped"]).sum())
    if missing is not None:
        unanswered -= int(pairs["outcome"].is_in(["cannot_tell", "skipped"]).sum())
    if unanswered:
        left_out["cannot tell or skipped"] = unanswered
    if labels := int((frame["kind"] == "label").sum()):
        left_out["nominal labels"] = labels
    for kind, family in families.items():
        part = pairs if kind == "pair" else frame.filter(pl.col("kind") == kind)
        if kind == "pair":
            blocks += _pair_blocks(part, family, numbers)
            if bad := int((part["outcome"] == "both_bad").sum()):
                if isinstance(family, Choice):
                    left_out["both bad"] = bad
                elif not isinstance(family, Luce):
                    notes.append(f"{bad} 'both bad' answers enter as ties: {type(family).__name__} has no such answer")
        elif kind in ("choice", "ranking"):
            made, approximated = _choice_blocks(part.filter(pl.col("outcome").is_in(["answered", "both_bad"])), kind, known, numbers)
            blocks += made
            if approximated:
                notes.append(f"{approximated} stages of rankings tie more than {MOST_TIED} responses and enter by Breslow's approximation")
        elif kind == "rating":
            rated = part.filter(pl.col("outcome") == "answered")
            assert isinstance(family, Rating)
            scales = _rating_blocks(rated, family.link, known, numbers)
            if single := rated.height - sum(rows for _, rows in scales):
                left_out[_ONE_GRADE] = single
            blocks += [block for block, _ in scales]
        elif kind == "thumbs":
            assert isinstance(family, Thumbs)
            for axis, rows in _by_axis(part.filter(pl.col("outcome") == "answered")):
                coded = rows.with_columns(pl.when(pl.col("thumb")).then(0).otherwise(1).alias("code"))
                blocks.append(_block(f"thumbs{axis}", Thumbs(axis.lstrip("/"), family.link), coded, numbers=numbers))
        else:
            raise InvalidSetting("outcomes", kind, "Use pair, choice, ranking, rating or thumbs.")
    if missing is not None:
        blocks.append(missing)
    blocks = [b for b in blocks if len(b.outcome)]
    if known is not None:
        # one of two is read alike, private or not: by either name
        other = {"pair": "pair/private", "pair/private": "pair"}
        blocks = [
            replace(b, name=other[b.name]) if b.name not in known and isinstance(b.family, Choice) and other.get(b.name) in known else b
            for b in blocks
        ]
        for unread in [b for b in blocks if b.name not in known]:
            left_out[f"{unread.name}: no family in the fit"] = int(unread.count.sum())
        blocks = [b for b in blocks if b.name in known]
    total = float(sum(b.count.sum() for b in blocks if not isinstance(b.family, Missing)))
    if not blocks or total == 0:
        raise SeamarkError(_nothing_left(frame, left_out, "fitted" if known is None else "predicted"))
    if strata.latent is not None and repeated:
        blocks = [_over_levels(b, strata.levels, feedback.n_raters) for b in blocks]
    return Design(
        blocks=tuple(blocks),
        n_responses=feedback.n_responses,
        n_groups=len(strata.loadings),
        loadings=strata.loadings,
        n_raters=feedback.n_raters,
        n_judgments=total,
        levels=strata.levels if repeated else 1,
        covariates=covariates,
        sources=sources or (),
        biases=tuple(biases or ()),
        left_out=left_out,
        notes=tuple(notes),
    )


_ONE_GRADE = "ratings on a scale with one grade"


def _nothing_left(frame: pl.DataFrame, left_out: Mapping[str, int], purpose: str) -> str:
    """Why no judgment has a likelihood, and what to do about it."""
    if left_out.get(_ONE_GRADE) == frame.height:
        grades = frame["rating"].unique().sort().to_list()
        same = (
            f"all {frame.height:,} ratings are {grades[0]:g}"
            if len(grades) == 1
            else f"on each of their scales all {frame.height:,} ratings are the same"
        )
        remedy = "Collect ratings that differ, or ask which of two responses is better; or check which field holds the rating (--columns)."
        return f"no judgment can be {purpose}: {same}, and one grade alone does not say which response is better. {remedy}"
    why = "; ".join(f"{n:,} {what}" for what, n in left_out.items()) or f"all {frame.height:,} have weight 0"
    return f"no judgment can be {purpose}: {why}. Check the kinds of judgment, the outcomes and the weights."


def tastes(
    feedback: Feedback, observation: Observation, scale: Mapping[str, Sequence[float]] | None
) -> tuple[dict[str, NDArray[np.float64]], dict[str, tuple[float, float]]]:
    """((n_responses,) each, standardised: the properties of responses that raters may differ in liking; their mean and sd).

    `scale` holds mean and sd where they were learnt on other responses.

    Raises
    ------
    InvalidSetting
        If responses have no texts, or the style block has no such column.
    """
    wanted = [effect.of for effect in observation.effects if isinstance(effect, Taste)]
    if not wanted:
        return {}, {}
    if feedback.responses["text"].null_count():
        raise InvalidSetting("Taste(of=)", wanted[0], "Responses without text have no style that raters could differ in liking.")
    block = style_features(feedback.responses["text"].to_list())
    found: dict[str, NDArray[np.float64]] = {}
    scales: dict[str, tuple[float, float]] = {}
    for name in wanted:
        if name not in block.names:
            raise InvalidSetting("Taste(of=)", name, f"Use one of {', '.join(block.names)}.")
        column = block.values[:, block.names.index(name)]
        mean, sd = scale[name] if scale is not None else (float(column.mean()), max(float(column.std()), 1e-9))
        found[name], scales[name] = (column - mean) / sd, (mean, sd)
    return found, scales


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


def _where(frame: pl.DataFrame, holds: pl.Expr) -> pl.DataFrame:
    """The rows where it holds; the frame itself, not a copy, where it always does."""
    mask = frame.select(holds.alias("holds"))["holds"]
    return frame if mask.all() else frame.filter(mask)


def _private(feedback: Feedback) -> tuple[NDArray[np.float64] | None, list[str]]:
    """((n_judgments,) epsilon of the randomised response that gave each answer, infinite where none did, None where none did any; notes)."""
    stated = [(text, Privacy.parse(text)) for text in feedback.judgments["privacy"].drop_nulls().unique().to_list()]
    private = [(text, p) for text, p in stated if p.flips]
    if not private:
        return None, []
    read = {text: p.epsilon for text, p in private if p.cleaned != "after"}
    epsilon = feedback.judgments["privacy"].replace_strict(read, default=np.inf, return_dtype=pl.Float64).to_numpy()
    rows = feedback.judgments.filter(pl.Series(np.isfinite(epsilon)))
    several = rows.filter((pl.col("kind") == "ranking") | pl.col("worst").is_not_null()).height
    if several:
        raise InvalidSetting(
            "privacy", private[0][0], f"{several:,} of these answers are rankings, or best and worst: how likely a mechanism for privacy made "
            "one out of another is not worked out for them. Leave them out."
        )  # fmt: skip
    counted = int(np.isfinite(epsilon).sum())
    notes = [f"{counted:,} answers were randomised for privacy and are read as such: {', '.join(sorted(read))}"] if counted else []
    for text, p in private:
        if p.cleaned == "after":
            # correcting for the mechanism would multiply the harm of each label that was set after it
            notes.append(
                f"answers under {text!r} were picked or set after the mechanism: how many are flipped is not known, and they enter as they are"
            )
    return epsilon, notes


def _by_axis(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Parts by axis, named "" or "/axis"."""
    return [(f"/{axis}" if axis else "", part) for (axis,), part in frame.group_by(["axis"], maintain_order=True)]


def _block(
    name: str,
    family: Outcome,
    coded: pl.DataFrame,
    slots: NDArray[np.int64] | None = None,
    places: NDArray[np.int64] | None = None,
    numbers: SlotNumbers | None = None,
) -> Block:
    """Aggregate equal cells; `coded` has responses (list), code, rater, group, ordered, weight, covariates x0, x1, ... and sources.

    Where `numbers` are known of slots, or there is a column `apart` with the judgment's row, no two cells are equal; `places` (n, m) are then the slots' in their judgment.
    """
    if slots is None:
        slots = coded["responses"].explode(empty_as_null=False).cast(pl.Int64).to_numpy().reshape(coded.height, -1)
    m = slots.shape[1]
    weight = coded["weight"].to_numpy()
    extra = [name for name in coded.columns if name[0] == "x" and name[1:].isdigit()]
    source = coded["source"].explode(empty_as_null=False).cast(pl.Int64).to_numpy().reshape(-1, m).T if "source" in coded.columns else []
    epsilon, private = np.full(1, np.inf), []
    if "epsilon" in coded.columns and not isinstance(family, Missing):  # whether there was an answer is no secret
        epsilon, which = np.unique(coded["epsilon"].to_numpy(), return_inverse=True)
        private = [which]
    columns = [*slots.T, *source, *private, *(coded[name].to_numpy() for name in (*extra, "code", "group", "ordered", "rater"))]
    kept = slice(None) if (weight > 0).all() else weight > 0
    columns, weight = [column[kept] for column in columns], weight[kept]
    if numbers is not None or "apart" in coded.columns:
        cells, count = [column.astype(np.int64, copy=False) for column in columns], weight.astype(np.float64)
    else:
        cells, count = _cells(columns, None if (weight == 1).all() else weight)
    contrast = np.zeros((len(count), len(family.contrast(m)), 0))
    if numbers is not None:
        # a response judged by itself is not shown before another
        order = np.ones(len(count)) if m == 1 else columns[-2].astype(np.float64)
        contrast = numbers.contrasts(family.contrast(m), coded["row"].to_numpy()[kept], None if places is None else places[kept], order)
    apart = coded["apart"].to_numpy()[kept].astype(np.int64) if "apart" in coded.columns else np.full(len(count), -1)
    code, group, ordered, rater = cells[-4:]
    before = m + len(source)
    models, levels = cells[m:before], cells[before + len(private) : -4]
    others = np.exp(-epsilon[cells[before]]) if private else np.zeros(len(code))  # odds of each other answer against the true one
    replaced = family.n_outcomes * others / (1 + (family.n_outcomes - 1) * others)
    nothing = np.zeros((len(code), 0), dtype=np.int64)
    return Block(
        name, family, np.stack(cells[:m], 1), group, code, rater, ordered.astype(np.float64), count, rater,
        np.stack(levels, 1) if levels else nothing, np.stack(models, 1) if models else nothing, contrast, replaced, apart,
    )  # fmt: skip


def _over_levels(block: Block, levels: int, n_raters: int) -> Block:
    """Cells of known raters once per latent level; those of unknown raters inform the shared value, in the row after the levels."""
    times = np.where(block.rater < n_raters, levels, 1)
    row = np.repeat(np.arange(len(times)), times)
    level = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    known = block.rater[row] < n_raters
    parts = {
        f: getattr(block, f)[row]
        for f in ("shown", "outcome", "rater", "ordered", "count", "covariate", "source", "numbers", "replaced", "row")
    }
    group = block.group[row] * (levels + 1) + np.where(known, level, levels)
    return replace(block, **parts, group=group, who=block.rater[row] * levels + np.where(known, level, 0))


def _missing_block(pairs: pl.DataFrame) -> Block | None:
    """Whether each pair was answered; None where too few were not."""
    silent = pairs["outcome"].is_in(["cannot_tell", "skipped"])
    if silent.sum() < _ENOUGH_MISSING or silent.all():
        return None
    return _block("pair/answered", Missing(), pairs.with_columns(silent.cast(pl.Int64).alias("code")))


def _source_codes(feedback: Feedback, known: tuple[str, ...] | None) -> tuple[tuple[str, ...], pl.Series]:
    """(names of the source models but the commonest, per judgment a list with the code of each slot; the last code stands for that,
    and for not known)."""
    length = feedback.judgments["responses"].list.len()
    models = feedback.judgments["models"]
    nothing = pl.lit(None, dtype=pl.String).repeat_by("n")
    filled = pl.DataFrame({"models": models, "n": length}).select(models=pl.coalesce("models", nothing))["models"]
    flat = filled.explode(empty_as_null=False)
    by_count = flat.drop_nulls().alias("model").value_counts().sort("count", "model", descending=[True, False])["model"].to_list()
    names = tuple(sorted(by_count[1:])) if known is None else known
    lookup = pl.DataFrame({"model": pl.Series(names, dtype=pl.String), "code": pl.Series(range(len(names)), dtype=pl.Int64)})
    code = flat.alias("model").to_frame().join(lookup, on="model", how="left", maintain_order="left")["code"].fill_null(len(names))
    lists = (
        pl.DataFrame({"row": np.repeat(np.arange(len(length)), length.to_numpy()), "code": code})
        .group_by("row", maintain_order=True)
        .agg("code")
    )
    return names, lists["code"].alias("source")


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


def columns_of_role(block: Block, design: Design, role: Role) -> NDArray[np.float64]:
    """(n, C) the numbers of the covariates of one role, side by side."""
    return np.hstack([np.array(c.table)[block.covariate[:, i]] for i, c in enumerate(design.covariates) if c.role == role])


def _pair_blocks(part: pl.DataFrame, family: Outcome, numbers: SlotNumbers | None) -> list[Block]:
    part = part.with_columns(pl.col("outcome").cast(_PAIRED).to_physical().alias("side"))
    left, right, tie = pl.col("side") == 0, pl.col("side") == 1, pl.col("side").is_between(2, 3)
    if not isinstance(family, Choice) and "epsilon" in part.columns:
        private = pl.col("epsilon").is_finite()
        there = part.filter(private)
        if there.height and there["strength"].null_count() == there.height and not there["side"].is_between(2, 3).any():
            # a mechanism that gave one of two; where there is no tie, Davidson's answers are Bradley & Terry's
            blocks = _pair_blocks(there, Choice(link=family.link if isinstance(family, Strength) else "logistic"), numbers)
            rest = part.filter(~private).drop("epsilon", "side")
            return [replace(b, name="pair/private") for b in blocks] + (_pair_blocks(rest, family, numbers) if rest.height else [])
    if isinstance(family, Strength):
        k = family.levels
        if k == 1:  # Rao & Kupper: a decided pair needs no grade
            part = part.with_columns(pl.when(left | right).then(pl.lit(1)).otherwise(pl.col("strength")).alias("strength"))
        graded = part.filter((tie if family.ties else pl.lit(value=False)) | ((left | right) & pl.col("strength").is_not_null()))
        code = pl.when(left).then(k - pl.col("strength")).when(tie).then(k).otherwise(pl.col("strength") + (k if family.ties else k - 1))
        if graded["strength"].max() is not None and int(graded["strength"].max()) > k:  # type: ignore[arg-type]  # polars types max() loosely
            raise InvalidSetting("Strength(levels=)", k, f"The data has a strength of {graded['strength'].max()}.")
        blocks = [_block("pair/strength", family, graded.with_columns(code.alias("code")), numbers=numbers)]
        plain = part.filter((left | right) & pl.col("strength").is_null())
        return blocks + (_pair_blocks(plain, Choice(link=family.link), numbers) if plain.height else [])
    if isinstance(family, Luce):
        # the sets {left}, {right}, {left, right} and none, in this order, some of them possibly absent
        has = pl.Series([True, True, family.most > 1, family.none])
        code = pl.col("side").replace_strict({side: int(has[:side].sum()) for side in range(4) if has[side]}, default=None)
        answered = part.with_columns(code.alias("code")).filter(pl.col("code").is_not_null())
        return [_block("pair", family, answered, numbers=numbers)]
    decided = _where(part, left | right | tie) if isinstance(family, Davidson) else _where(part, left | right)
    return [_block("pair", family, decided.with_columns(pl.min_horizontal("side", pl.lit(2)).alias("code")), numbers=numbers)]


def _choice_blocks(
    part: pl.DataFrame, kind: str, known: Mapping[str, Outcome] | None, numbers: SlotNumbers | None
) -> tuple[list[Block], int]:
    """(choices and rankings as stages: who is chosen out of those still there; stages with ties that are approximated)."""
    fitted = [f for name, f in (known or {}).items() if name.startswith(f"{kind}/best") and isinstance(f, Luce)]
    cap = MOST_TIED if known is None else max((f.most for f in fitted), default=1)
    stages: dict[tuple[int, bool], list[tuple[list[int], list[int], dict[str, Any], list[int]]]] = {}
    carried = [
        name
        for name in part.columns
        if name in ("rater", "group", "weight", "ordered", "row", "apart", "epsilon") or (name[0] == "x" and name[1:].isdigit())
    ]
    sourced, approximated, most = "source" in part.columns, 0, 1
    none = bool((part["outcome"] == "both_bad").any()) if known is None else any(f.none for f in fitted)

    def add(slots: list[int], chosen: list[int], row: dict[str, Any], worst: bool = False, ordered: bool = True) -> None:
        if len(slots) < 2:
            return
        rest = {name: row[name] for name in carried}
        if not ordered:
            rest["ordered"] = 0.0
        if sourced:
            rest["source"] = [row["source"][i] for i in slots]
        stages.setdefault((len(slots), worst), []).append(
            ([row["responses"][i] for i in slots], [slots.index(i) for i in chosen], rest, slots)
        )

    for row in part.iter_rows(named=True):
        everyone = list(range(len(row["responses"])))
        if kind == "choice":
            if row["outcome"] != "both_bad" or none:
                add(everyone, [] if row["outcome"] == "both_bad" else [row["best"]], row)
            if row["worst"] is not None and row["outcome"] != "both_bad":
                add([i for i in everyone if i != row["best"]], [row["worst"]], row, worst=True, ordered=False)
            continue
        ranks = row["ranks"]
        for rank in sorted(set(ranks)):
            left = [i for i in everyone if ranks[i] >= rank]
            tied = [i for i in left if ranks[i] == rank]
            if len(tied) == len(left):
                # all that are left tie: the last stage, which says something only where ties are counted
                if 1 < len(tied) <= cap:
                    most = max(most, len(tied))
                    add(left, tied, row, ordered=False)
            elif len(tied) <= cap:
                most = max(most, len(tied))
                add(left, tied, row, ordered=False)
            else:
                # Breslow: each member of a tied set is chosen against those ranked worse
                approximated += 1
                for i in tied:
                    add(sorted([i, *(j for j in left if ranks[j] > rank)]), [i], row, ordered=False)
    blocks = []
    for (m, worst), rows in sorted(stages.items()):
        slots, places = (np.array([r[i] for r in rows], dtype=np.int64) for i in (0, 3))
        most = most if known is None else cap
        family = Luce(m, min(most, m), none) if not worst and (most > 1 or none) else Choice(m=m, worst=worst)
        members = family.sets if isinstance(family, Luce) else [(i,) for i in range(m)]
        sets = {chosen: code for code, chosen in enumerate(members)}
        coded = pl.DataFrame([r[2] for r in rows]).with_columns(pl.Series("code", [sets[tuple(sorted(r[1]))] for r in rows]))
        blocks.append(_block(f"{kind}/{'worst' if worst else 'best'} of {m}", family, coded, slots, places, numbers))
    return blocks, approximated


def _rating_blocks(
    part: pl.DataFrame, link: Link, known: Mapping[str, Outcome] | None, numbers: SlotNumbers | None
) -> list[tuple[Block, int]]:
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
        rating = Rating(tuple(edges.tolist()), scale, link)
        blocks.append((_block(f"rating/{scale}", rating, coded, numbers=numbers), rows.height))
    return blocks


# ---------------------------------------------------------------------------------------------- graph


def comparison_parts(design: Design) -> NDArray[np.int64]:
    """(n_responses,) the connected part of the comparison graph that each response belongs to.

    Ratings and thumbs place their responses on one common scale, so all of them are connected.
    """
    rows, cols = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    anchor = design.n_responses
    for block in design.blocks:
        responses = block.shown
        if block.lenient or (isinstance(block.family, Luce) and block.family.none):  # an answer about the level, not the gap
            rows.append(responses[:, 0])
            cols.append(np.full(len(responses), anchor))
        for slot in range(1, responses.shape[1]):
            rows.append(responses[:, 0])
            cols.append(responses[:, slot])
    i, j = np.concatenate(rows), np.concatenate(cols)
    if (anchor + 1) ** 2 <= len(i):  # each pair once, without sorting them
        met = np.zeros((anchor + 1) ** 2, dtype=bool)
        met[i * (anchor + 1) + j] = True
        i, j = np.divmod(np.flatnonzero(met), anchor + 1)
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(anchor + 1, anchor + 1))
    return connected_components(graph, directed=False)[1][:anchor]
