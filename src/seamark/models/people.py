"""Who values what: how the person, the axis, the context and the time of a judgment weigh the k values of a response, u = V . z.

Conventions
-----------
A *factor* splits judgments into levels: groups of raters, axes, contexts, periods. The values of a level are a shared value plus
deviations: z of a judgment is 1, then per factor the loadings of its level. Factors add up; they do not interact. A *latent* factor
is a property of raters that no column tells (personas, tastes): its levels are integrated out, with `share` as their prior.

Groups by several columns are *cells*: one factor whose levels are the combinations of the columns' levels, and whose loadings are
ones at the level of each column. The values of a cell are the shared ones plus a deviation per column, each column with a spread of
its own, which is the structure of multilevel regression and post-stratification (Gelman & Little 1997). A cell in which nobody
answered has values all the same, from its columns; with `interaction` it also has the doubt about what its columns do not tell.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.errors import InvalidSetting
from seamark.models.walks import Walk, span
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_MOST_CELLS = 2000
"""Of groups by several columns: every one is a column of each table of gaps by group."""
_WIDEST_TASTE = 2.4
"""Standard deviations of a taste that the grid of `Varying` reaches to either side."""


@dataclass(frozen=True)
class Factor:
    """What splits judgments into levels with values of their own."""

    name: str
    """group, persona, taste, axis, context, or period."""
    by: str | tuple[str, ...]
    """The column of the judgments (or profile.NAME) that says the level, or the columns that say the cell; empty where none does."""
    levels: tuple[str, ...]
    loadings: Array
    """(n_levels + 1, k): how a judgment at each level weighs the k deviations; the last row, zeros, is for a level not known."""
    share: Array
    """(n_levels,) of the raters, or of the judgments where raters are not known; prior mass where the factor is latent."""
    latent: bool = False
    learnt: bool = False
    """Whether the share of a latent factor is estimated."""
    starts: tuple[datetime, ...] = ()
    """Beginning of each period but the first; where each response has a path of its own there is no need of it, nor of loadings."""
    parts: tuple[tuple[str, int], ...] = ()
    """Of cells: per column, in words, how many of the k deviations, one after the other, are its own and share a spread."""

    def codes(self, feedback: Feedback) -> Codes:
        """(n_judgments,) level of each judgment; n_levels where it is not known."""
        unknown = len(self.levels)
        if self.name == "period":
            time = feedback.judgments["time"]
            bounds = pl.Series("time", list(self.starts), dtype=time.dtype)
            codes = bounds.search_sorted(time, side="right").cast(pl.Int64)
            return codes.set(time.is_null(), unknown).to_numpy()
        lookup = pl.DataFrame({"level": pl.Series(self.levels, dtype=pl.String), "code": pl.Series(range(unknown), dtype=pl.Int64)})
        given = _levels_of(feedback, self.by) if isinstance(self.by, str) else _cell_levels(feedback, self.by)
        levels = given.alias("level").to_frame()
        return levels.join(lookup, on="level", how="left", maintain_order="left")["code"].fill_null(unknown).to_numpy()

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "by": self.by if isinstance(self.by, str) else list(self.by), "levels": list(self.levels), "loadings": self.loadings.tolist(), "share": self.share.tolist(),
            "latent": self.latent, "learnt": self.learnt, "starts": [s.isoformat() for s in self.starts],
            "parts": [list(part) for part in self.parts],
        }  # fmt: skip

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Factor:
        by = record["by"]
        return Factor(
            record["name"], by if isinstance(by, str) else tuple(by), tuple(record["levels"]), np.array(record["loadings"], dtype=np.float64),
            np.array(record["share"], dtype=np.float64), record["latent"], record["learnt"],
            tuple(datetime.fromisoformat(s) for s in record["starts"]), tuple((name, int(n)) for name, n in record.get("parts", ())),
        )  # fmt: skip


def labels(feedback: Feedback, by: str, *, setting: str = "by") -> pl.Series:
    """The level of each judgment as text; null where it is not known.

    Raises
    ------
    InvalidSetting
        If `by` is neither a field of the judgments nor profile.NAME of a rater's profile; `setting` is what it was given as.
    """
    names = [f"profile.{name}" for name in feedback.profile_names]
    if by.startswith("profile.") and by not in names:
        said = f"the nearest that is known is {difflib.get_close_matches(by, names, n=1, cutoff=0)[0]}" if names else "none has a profile"
        raise InvalidSetting(setting, by, f"It is not known of any rater; {said}.")
    return _levels_of(feedback, by, setting)


def _levels_of(feedback: Feedback, by: str, setting: str = "by") -> pl.Series:
    """The level of each judgment as text; null where it is not known, as of judgments by raters without such a profile."""
    if by.startswith("profile."):
        profile = feedback.rater_profile(by.removeprefix("profile."))
        return profile.gather(feedback.judgments["rater"])
    if by not in feedback.judgments.columns:
        known = [*feedback.judgments.columns, *(f"profile.{name}" for name in feedback.profile_names)]
        near = difflib.get_close_matches(by, known, n=1, cutoff=0)[0]
        raise InvalidSetting(
            setting, by, f"Use a field of the judgments such as group, axis or team, or profile.NAME; the nearest known is {near}."
        )
    return feedback.judgments[by].cast(pl.String)


SEPARATOR = " · "
"""Between the levels in the name of a cell."""


def cell_name(levels: Sequence[str]) -> str:
    """The name of a cell: 18-24 · woman."""
    return SEPARATOR.join(levels)


def _cell_levels(feedback: Feedback, by: Sequence[str]) -> pl.Series:
    """The cell of each judgment as text; null where one of the columns is not known."""
    parts = [_levels_of(feedback, column).alias(str(i)) for i, column in enumerate(by)]
    return pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator=SEPARATOR))["0"]


def _known_levels(feedback: Feedback, name: str, by: str, min_judgments: int, remedy: str) -> list[str]:
    """The levels of a column with enough judgments, sorted."""
    given = labels(feedback, by, setting=name)
    counts = given.drop_nulls().value_counts(sort=True)
    levels = sorted(counts.filter(pl.col("count") >= min_judgments)[given.name].to_list())
    if len(levels) < 2:
        raise InvalidSetting(name, by, f"Fewer than two levels have {min_judgments} judgments; {remedy}.")
    return levels


def split(feedback: Feedback, name: str, by: str, min_judgments: int, remedy: str) -> Factor:
    """A factor of the levels that a column names, each with deviations of its own around the shared value.

    Raises
    ------
    InvalidSetting
        If fewer than two levels have enough judgments.
    """
    levels = _known_levels(feedback, name, by, min_judgments, remedy)
    factor = Factor(name, by, tuple(levels), np.vstack([np.eye(len(levels)), np.zeros((1, len(levels)))]), np.zeros(0))
    return replace(factor, share=_shares(feedback, factor))


def cells(feedback: Feedback, by: tuple[str, ...], min_judgments: int, *, interaction: bool) -> Factor:
    """A factor of the combinations of levels of several columns, of which every one has values: a deviation per column added up.

    Raises
    ------
    InvalidSetting
        If a column comes twice or has fewer than two levels with enough judgments, there are more than `_MOST_CELLS` combinations, or
        two of them would have the same name.
    """
    if len(by) < 2 or len(set(by)) < len(by):
        raise InvalidSetting("Groups(by=)", by, "Cells take two columns or more, each once; for one, give its name alone.")
    levels = [_known_levels(feedback, "group", column, min_judgments, "leave this column out") for column in by]
    n = int(np.prod([len(own) for own in levels]))
    if n > _MOST_CELLS:
        raise InvalidSetting("Groups(by=)", by, f"Their levels combine to {n:,} cells; up to {_MOST_CELLS:,} can be fitted, so use fewer.")
    names = [cell_name(cell) for cell in product(*levels)]
    if len(set(names)) < n:
        raise InvalidSetting(
            "Groups(by=)", by, f"Two cells would have the same name: a level contains {SEPARATOR!r}, so write it otherwise."
        )
    ones = [np.eye(len(own)) for own in levels]
    rows = np.array(
        [np.concatenate([one[i] for one, i in zip(ones, cell, strict=True)]) for cell in product(*(range(len(o)) for o in levels))]
    )
    parts = tuple((f"group by {column}", len(own)) for column, own in zip(by, levels, strict=True))
    if interaction:
        rows, parts = np.hstack([rows, np.eye(n)]), (*parts, ("group by cell", n))
    factor = Factor("group", by, tuple(names), np.vstack([rows, np.zeros((1, rows.shape[1]))]), np.zeros(0), parts=parts)
    return replace(factor, share=_shares(feedback, factor))


def _shares(feedback: Feedback, factor: Factor) -> Array:
    """(n_levels,) one person, one vote: a level weighs as many raters as it has; where few are known, as many judgments."""
    codes, n = factor.codes(feedback), len(factor.levels)
    rater = feedback.judgments["rater"].cast(pl.Int64)
    if feedback.n_raters >= 2 and rater.null_count() < 0.5 * len(rater) and factor.name == "group":
        pairs = pl.DataFrame({"rater": rater, "level": codes}).drop_nulls().unique()
        codes = pairs["level"].to_numpy()
    share = np.bincount(codes, minlength=n + 1)[:n].astype(float)
    return share / share.sum()


# ---------------------------------------------------------------------------------------------- people


class People(Protocol):
    def factor(self, feedback: Feedback) -> Factor | None: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Same:
    """Everyone values alike: one value per response."""

    def factor(self, feedback: Feedback) -> None:  # noqa: ARG002  # the protocol's signature
        return None

    def to_dict(self) -> dict[str, Any]:
        return {"people": "Same"}


@dataclass(frozen=True)
class Groups:
    """Groups with values of their own around a shared one: u_g = V_0 + V_g, partially pooled.

    The spread of the V_g is estimated by marginal likelihood, so groups that do not differ are pooled. By several columns the groups
    are cells, u_c = V_0 + sum over columns j of V_j[level of c], each column with a spread of its own.

    Source: for cells, Gelman & Little 1997 (multilevel regression and post-stratification), on the utilities in place of a vote.
    """

    by: str | tuple[str, ...] = "group"
    """A field of the judgments, or profile.NAME for a field of the raters' profiles; several for cells. A rater of whom one of
    several is not known informs the shared value only."""
    min_judgments: int = 30
    """Smaller groups, or levels of one of several columns, are treated as not known: they inform the shared value only."""
    interaction: bool = False
    """Of cells: whether each also has a deviation of its own, which its columns do not tell."""

    def __post_init__(self) -> None:
        if isinstance(self.by, str) and self.interaction:
            raise InvalidSetting("Groups(interaction=)", True, "It takes two columns or more to interact: name them in by=.")

    def factor(self, feedback: Feedback) -> Factor:
        if isinstance(self.by, str):
            return split(feedback, "group", self.by, self.min_judgments, "use Same()")
        return cells(feedback, tuple(self.by), self.min_judgments, interaction=self.interaction)

    def to_dict(self) -> dict[str, Any]:
        by = self.by if isinstance(self.by, str) else list(self.by)
        spec = {"people": "Groups", "by": by, "min_judgments": self.min_judgments}
        return spec | {"interaction": True} if self.interaction else spec


@dataclass(frozen=True)
class Personas:
    """Latent classes of raters, each with values of its own around a shared one: u_c = V_0 + V_c.

    Which class a rater belongs to is integrated out exactly; shares and values are found by EM. It takes raters with several
    judgments each: `Fit.latent` says how many would tell the classes apart, and whether they have collapsed into one.

    Source: Dempster, Laird & Rubin 1977; for preferences, Chakraborty et al. 2024 (MaxMin-RLHF), who assign raters for certain.
    """

    k: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 20:
            raise InvalidSetting("Personas(k=)", self.k, "Use 2 to 20; Same() is one persona.")

    def factor(self, feedback: Feedback) -> Factor:
        _require_raters(feedback, "Personas")
        names = tuple(f"persona {i + 1}" for i in range(self.k))
        loadings = np.vstack([np.eye(self.k), np.zeros((1, self.k))])
        return Factor("persona", "", names, loadings, np.full(self.k, 1 / self.k), latent=True, learnt=True)

    def to_dict(self) -> dict[str, Any]:
        return {"people": "Personas", "k": self.k}


@dataclass(frozen=True)
class Varying:
    """Tastes that vary continuously: u_i = V_0 + z_i . V, z_i ~ N(0, I_k): a low-rank deviation of each rater.

    The integral over z_i is a trapezoid rule on a grid of `points` per dimension, which for a Gaussian is nearly exact. V is
    determined up to a rotation and sign of z; what it implies for gaps is not affected.

    Source: the normal latent trait of item response theory (Bock & Aitkin 1981), as in variational preference learning
    (Poddar et al. 2024) with the posterior computed instead of learnt by an encoder.
    """

    k: int = 1
    points: int = 9

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 2:
            raise InvalidSetting(
                "Varying(k=)", self.k, "Use 1 or 2: the grid grows as points ** k. For more kinds of people, use Personas."
            )
        if not 5 <= self.points <= 25:
            raise InvalidSetting("Varying(points=)", self.points, "Use 5 to 25.")

    def factor(self, feedback: Feedback) -> Factor:
        _require_raters(feedback, "Varying")
        line = np.linspace(-_WIDEST_TASTE, _WIDEST_TASTE, self.points)
        mass = np.exp(-0.5 * line**2)
        mass /= mass.sum()
        line = line / np.sqrt(mass @ line**2)  # variance 1 on the grid, too
        grid = np.array(list(product(line, repeat=self.k)))
        share = np.prod(np.array(list(product(mass, repeat=self.k))), axis=1)
        names = tuple("taste " + ", ".join(f"{z:+.2f}" for z in row) for row in grid)
        return Factor("taste", "", names, np.vstack([grid, np.zeros((1, self.k))]), share, latent=True)

    def to_dict(self) -> dict[str, Any]:
        return {"people": "Varying", "k": self.k, "points": self.points}


def people_from_dict(record: Mapping[str, Any]) -> People:
    """The people that `to_dict` described."""
    kinds: dict[str, type[Any]] = {"Same": Same, "Groups": Groups, "Personas": Personas, "Varying": Varying}
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items() if name != "people"}
    return kinds[record["people"]](**rest)


def _require_raters(feedback: Feedback, people: str) -> None:
    if feedback.judgments["rater"].drop_nulls().n_unique() < 3:
        raise InvalidSetting("people", people, "It takes raters with ids, at least 3, and several judgments of each; use Same().")


# ---------------------------------------------------------------------------------------------- how they combine


@dataclass(frozen=True)
class Strata:
    """Factors put together: the distinct combinations of levels that occur, and how each weighs the values."""

    factors: tuple[Factor, ...]
    stratum: Codes
    """(n_judgments,) combination of the levels of the observed factors."""
    loadings: Array
    """Z (n_strata * (n_latent + 1), k), of combination s and latent level l in row s * (n_latent + 1) + l; without a latent factor
    (n_strata, k)."""
    share: Array
    """(n_latent,) prior mass of the latent levels; (1,) ones without."""
    learnt: bool = False

    @property
    def latent(self) -> Factor | None:
        return next((f for f in self.factors if f.latent), None)

    @property
    def levels(self) -> int:
        """Latent levels, 1 if there is no latent factor."""
        return len(self.share)

    @staticmethod
    def of(factors: Sequence[Factor], feedback: Feedback) -> Strata:
        """The strata of some judgments.

        Raises
        ------
        InvalidSetting
            If two factors are latent.
        """
        latent = [f for f in factors if f.latent]
        if len(latent) > 1:
            raise InvalidSetting("people", [f.name for f in latent], "Only one factor can be latent.")
        widths = [f.loadings.shape[1] for f in factors]
        place = np.concatenate([[1], 1 + np.cumsum(widths)]).astype(int)
        k = 1 + sum(widths)
        code = np.zeros(feedback.n_judgments, dtype=np.int64)
        observed = [(f, start) for f, start in zip(factors, place[:-1], strict=True) if not f.latent]
        for f, _ in observed:
            code = code * (len(f.levels) + 1) + f.codes(feedback)
        present, stratum = np.unique(code, return_inverse=True)
        rows = np.zeros((len(present), k))
        rows[:, 0] = 1.0
        for f, start in reversed(observed):
            present, level = np.divmod(present, len(f.levels) + 1)
            rows[:, start : start + f.loadings.shape[1]] = f.loadings[level]
        if not latent:
            return Strata(tuple(factors), stratum, rows, np.ones(1))
        start = int(place[list(factors).index(latent[0])])
        L = len(latent[0].levels)
        full = np.repeat(rows, L + 1, axis=0)
        full[:, start : start + latent[0].loadings.shape[1]] = np.tile(latent[0].loadings, (len(rows), 1))
        return Strata(tuple(factors), stratum, full, latent[0].share, latent[0].learnt)


def walk_factor(walk: Walk) -> Factor:
    """The periods with judgments, as a factor that values weigh nothing by: where each response stands in them its path says."""
    names = walk.names
    return Factor("period", "time", names, np.zeros((len(names) + 1, 0)), np.full(len(names), 1 / len(names)))


def columns_of(factors: Sequence[Factor]) -> dict[str, range]:
    """Which of the k values, beyond the shared one, belong to each factor."""
    out, start = {}, 1
    for f in factors:
        out[f.name] = range(start, start + f.loadings.shape[1])
        start += f.loadings.shape[1]
    return out


def parts_of(factors: Sequence[Factor]) -> dict[str, range]:
    """Which of the k values share a spread: all of a factor, or of cells those of each column."""
    out: dict[str, range] = {}
    for f, mine in zip(factors, columns_of(factors).values(), strict=True):
        start = mine.start
        for name, n in f.parts or ((f.name, len(mine)),):
            out[name] = range(start, start + n)
            start += n
    return out


def periods(feedback: Feedback, every: timedelta, most: int) -> Factor:
    """Periods of equal length from the first judgment to the last; values of a period are those of the one before plus a step.

    Raises
    ------
    InvalidSetting
        If fewer than half of the judgments have a time, or they fall in fewer than two periods or more than `most`.
    """
    first, last = span(feedback)
    n = int((last - first) / every) + 1
    if not 2 <= n <= most:
        raise InvalidSetting(
            "Dynamic(every=)", str(every), f"It makes {n} periods of {first:%Y-%m-%d} to {last:%Y-%m-%d}; 2 to {most} can be fitted."
        )
    starts = tuple(first + i * every for i in range(1, n))
    names = tuple(f"{first + i * every:%Y-%m-%d %H:%M}" for i in range(n))
    walk = np.tril(np.ones((n, n)))[:, 1:]  # no step leads to the first period
    factor = Factor("period", "time", names, np.vstack([walk, walk.mean(0)]), np.zeros(0), starts=starts)
    return replace(factor, share=_shares(feedback, factor))
