"""The population that is to be represented, and what is known of it from the raters who happened to answer.

Three ways lead from a pool of raters to a population. *Post-stratification* weighs each cell of profiles as the population does;
*raking* weighs each column of profiles so, one at a time until all fit; *multilevel regression* has values for each cell in the fit
itself (`Groups` by several columns), which `preferences` weighs. All three trust that within a cell those who answered are like
those who did not. Nothing here says that a pool is representative: where it differs in what it was not adjusted for,
`representation` shows by how much.

Conventions
-----------
Raters are a frame with a row per rater and a text column per column of the target, null where not known, as `rater_profiles` makes it.
Columns are named as `Groups(by=)` names them: profile.age, or a field of the judgments that is a rater's own, such as group. A
*cell* is a combination of levels. Weights are 0 for raters whose cell is not known or not in the target, and have mean 1 over the
others. Intervals are 90% unless `level` says otherwise; sampling units are raters.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seamark.aggregation.charter import InvalidCharter
from seamark.errors import InvalidSetting
from seamark.models.people import SEPARATOR, cell_name, labels
from seamark.models.result import Fit
from seamark.records import Feedback

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_ROUNDED = 0.0005
"""How far each share of a file may be from what it stands for: those of a census are printed with three digits."""
_ALONE = 1e-9
"""A leverage this near 1 is that of a rater whom the others say nothing about."""
_FAINT = 1e-3
"""A weight of no more than this beside a mean of 1 counts for nothing: a thousand such raters weigh as much as one."""


# ---------------------------------------------------------------------------------------------- the target


@dataclass(frozen=True)
class Target:
    """The population that is to be represented: how many of it have which profile."""

    margins: dict[str, dict[str, float]]
    """Per column, the share of each level; each adds up to 1."""
    cells: pl.DataFrame | None
    """The columns of `margins`, and the `share` of each combination; None where only margins are known."""
    source: str

    @staticmethod
    def read(path: str | Path) -> Target:
        """A target from a CSV, TSV, JSON lines or Parquet file.

        Either one row per cell, with a column per profile field (age, or profile.age; group is the field of the judgments) and a
        `count` or a `share`; or one row per level, with `column`, `level` and `share` (or `count`).

        Raises
        ------
        InvalidCharter
            If it cannot be read, a column is missing, or a share is not a share, with the row.
        """
        path, source = Path(path), str(path)
        try:
            match path.suffix.lower():
                case ".csv":
                    frame = pl.read_csv(path, infer_schema=False)
                case ".tsv":
                    frame = pl.read_csv(path, infer_schema=False, separator="\t")
                case ".jsonl" | ".ndjson":
                    frame = pl.read_ndjson(path, infer_schema_length=None)
                case ".parquet":
                    frame = pl.read_parquet(path)
                case other:
                    raise InvalidCharter(source, f"a population file of type {other!r}", "Use .csv, .tsv, .jsonl or .parquet.")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InvalidCharter(source, f"it cannot be read ({str(error).splitlines()[0]})", "Give a table of cells or margins.") from None
        return Target.of(frame, source=source)

    @staticmethod
    def of(frame: pl.DataFrame, *, source: str = "target") -> Target:
        """A target from a frame laid out as `read` says.

        Raises
        ------
        InvalidCharter
            If a column is missing, or a share is not a share, with the row.
        """
        amounts = [name for name in ("count", "share") if name in frame.columns]
        if len(amounts) != 1:
            has = "both" if amounts else "neither"
            raise InvalidCharter(source, f"it has {has} of the columns count and share", f"Give one; it has {', '.join(frame.columns)}.")
        amount, columns = amounts[0], [name for name in frame.columns if name not in amounts]
        if not columns or frame.height == 0:
            raise InvalidCharter(source, "it has no cells", "Give a column per profile field, such as age, and a row per cell.")
        for name in columns:
            if (row := _first(frame[name].is_null())) is not None:
                raise InvalidCharter(f"{source}, row {row}", f"{name} is empty", "Name the level, or leave the row out.")
        if "column" in columns and set(columns) != {"column", "level"}:
            has = f"it has a column named column, so it is of margins, and beside it {', '.join(name for name in columns if name != 'column') or 'no level'}"
            raise InvalidCharter(source, has, f"Margins have the columns column, level and {amount}: age,18-30,0.4.")
        given = frame.with_columns(pl.col(columns).cast(pl.String), pl.col(amount).cast(pl.Float64, strict=False).alias("share"))
        wrong = given["share"].is_null() | ~given["share"].is_finite() | (given["share"] < 0)
        if (row := _first(wrong)) is not None:
            value = frame[amount][row - 1]
            raise InvalidCharter(f"{source}, row {row}", f"{amount} is {value!r}", "Give a number that is 0 or more.")
        if (row := _first(~given.select(pl.struct(columns).is_first_distinct()).to_series())) is not None:
            raise InvalidCharter(f"{source}, row {row}", f"{_said(given, columns, row)} comes a second time", "Give each once.")
        if set(columns) == {"column", "level"}:
            margins = {
                _field(str(name)): _whole(part, amount, f"{source}, column {name}")
                for (name,), part in given.group_by("column", maintain_order=True)
            }
            return Target({name: dict(part.select("level", "share").iter_rows()) for name, part in margins.items()}, None, source)
        cells = _whole(given.select(*columns, "share"), amount, source).rename({name: _field(name) for name in columns})
        return Target(_margins(cells), cells, source)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.margins)

    def only(self, *columns: str) -> Target:
        """The same population by fewer columns, or in another order.

        Raises
        ------
        InvalidSetting
            If it does not have one of them.
        """
        if missing := [name for name in columns if name not in self.margins]:
            raise InvalidSetting("columns", missing, f"The target has {', '.join(self.columns)}.")
        if self.cells is None:
            return Target({name: self.margins[name] for name in columns}, None, self.source)
        cells = self.cells.group_by(columns, maintain_order=True).agg(pl.col("share").sum())
        return Target(_margins(cells), cells, self.source)

    def cell_shares(self) -> dict[str, float]:
        """The share of each cell by its name, as `Groups` by the same columns names it.

        Raises
        ------
        InvalidSetting
            If only margins of several columns are known, or two cells would have the same name.
        """
        if self.cells is None and len(self.margins) == 1:
            return dict(next(iter(self.margins.values())))
        if self.cells is None:
            raise InvalidSetting(
                "target",
                self.source,
                f"It has margins of {', '.join(self.columns)}, and not how they go together: give a table with a row per combination, take one "
                "column (only), or rake.",
            )
        named = {cell_name(cell): share for *cell, share in self.cells.iter_rows()}
        if len(named) < self.cells.height:
            raise InvalidSetting(
                "target", self.source, f"Two cells have the same name: a level contains {SEPARATOR!r}, so write it otherwise."
            )
        return named


def _first(wrong: pl.Series) -> int | None:
    """The number of the first row, from 1, that is wrong."""
    return None if (i := wrong.arg_max()) is None or not wrong[i] else i + 1


def _said(frame: pl.DataFrame, columns: Sequence[str], row: int) -> str:
    return ", ".join(f"{name} {frame[name][row - 1]!r}" for name in columns)


def _field(name: str) -> str:
    return name if name == "group" or name.startswith("profile.") else f"profile.{name}"


def _whole(part: pl.DataFrame, amount: str, place: str) -> pl.DataFrame:
    """Shares that add up to 1, from counts or from shares that do so up to rounding."""
    total = float(part["share"].sum())
    if amount == "share" and abs(total - 1) > _ROUNDED * part.height:
        percent = " They look like percentages: write 0.25 for 25%." if abs(total - 100) < 0.05 * part.height else ""
        raise InvalidCharter(place, f"the shares add up to {total:.6g}", f"They must add up to 1.{percent}")
    if total <= 0:
        raise InvalidCharter(place, "the counts add up to 0", "Count somebody.")
    return part.with_columns(pl.col("share") / total)


def _margins(cells: pl.DataFrame) -> dict[str, dict[str, float]]:
    columns = [name for name in cells.columns if name != "share"]
    return {name: dict(cells.group_by(name, maintain_order=True).agg(pl.col("share").sum()).iter_rows()) for name in columns}


def rater_profiles(feedback: Feedback, columns: Sequence[str]) -> pl.DataFrame:
    """A row per rater: `rater`, how many `judgments` they made, and their level of each column (null where not known).

    Raises
    ------
    InvalidSetting
        If no rater's level of a column is known, or a rater has two of them.
    """
    rater = feedback.judgments["rater"].cast(pl.Int64).alias("rater")
    out = pl.DataFrame({"rater": feedback.raters["id"], "code": np.arange(feedback.n_raters)})
    out = out.join(rater.to_frame().group_by("rater").agg(pl.len().alias("judgments")), left_on="code", right_on="rater", how="left")
    for name in columns:
        found = pl.DataFrame({"code": rater, name: labels(feedback, name, setting="columns")}).drop_nulls().unique(maintain_order=True)
        if found.height == 0:
            raise InvalidSetting(
                "columns", name, "It is not known of any rater; use a column that is, or take profiles up with the judgments."
            )
        if (twice := _first(found["code"].is_duplicated())) is not None:
            who = feedback.raters["id"][found["code"][twice - 1]]
            raise InvalidSetting("columns", name, f"Rater {who!r} has several levels of it; use what is a rater's own.")
        out = out.join(found, on="code", how="left", maintain_order="left")
    return out.with_columns(pl.col("judgments").fill_null(0)).drop("code")


# ---------------------------------------------------------------------------------------------- weights


@dataclass(frozen=True)
class Estimate:
    """A mean over the population, with its interval and what it leaves out."""

    estimate: float
    low: float
    high: float
    """Bounds for the part of the population that raters speak for."""
    worst_low: float
    worst_high: float
    """The same, whatever those in cells where nobody answered may think (Horowitz & Manski 1995); infinite where answers have no bounds."""
    level: float
    n: int
    effective: float
    covered: float
    """Share of the population that raters speak for."""


@dataclass(frozen=True)
class Weights:
    """How much each rater counts, so that those who answered weigh as the population does."""

    values: Array
    """(n_raters,) of mean 1 over the raters that count; 0 for the others."""
    method: str
    columns: tuple[str, ...]
    strata: Codes
    """(n_raters, m) what is held fixed: the cell of each rater, or their level of each of m columns; -1 where they do not count."""
    names: pl.Series
    """(n_raters,) the cell of each rater by name; null where they do not count."""
    empty: dict[str, float]
    """Cells (or levels, where only margins are known) of the target in which nobody answered, with their share."""
    covered: float
    """Share of the target that has somebody to speak for it. For raking, who fits every level that has somebody: a cell in which nobody
    answered is spoken for by those who share its levels, one by one, which is an assumption."""
    outside: dict[str, int]
    """Cells of raters that the target does not have, with the number of them; they do not count."""
    unknown: int
    """Raters of whom a column is not known; they do not count."""
    converged: bool = True
    rounds: int = 0
    error: float = 0.0
    """Largest difference that is left between a level's share of the weights and of what the raters can represent of the target."""

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(n_raters,) who counts: those with more than next to no weight. Raking that fails takes weights to 1e-290, and not to 0."""
        return self.values > _FAINT

    @property
    def faint(self) -> dict[str, int]:
        """Cells of the target whose raters have no weight or next to none, with the number of them."""
        return dict(self.names.filter(pl.Series(~self.counted)).drop_nulls().value_counts(sort=True).iter_rows())

    @property
    def effective_size(self) -> float:
        """Kish's: the number of raters of equal weight that would tell as much, if what they think had nothing to do with their weight."""
        return effective_size(self.values)

    def group_weights(self) -> dict[str, float]:
        """Share of the weights in each cell, for `Fit.gaps` and `Electorate.weights` of a fit with `Groups` by these columns."""
        frame = pl.DataFrame({"cell": self.names, "weight": self.values}).drop_nulls()
        total = float(self.values.sum())
        return {
            cell: weight / total for cell, weight in frame.group_by("cell", maintain_order=True).agg(pl.col("weight").sum()).iter_rows()
        }

    def mean(self, values: Array, *, level: float = 0.9, bounds: tuple[float, float] | None = None) -> Estimate:
        """The mean of a value of the raters over the population that they speak for.

            m = sum_i w_i y_i / sum_i w_i,  V = sum_i w_i^2 e_i^2 / (1 - h_i) / (sum_i w_i)^2

        e_i is what cells (or margins) leave of y_i in the weighted regression that the weights solve, h_i the leverage there. For
        cells V is that of a stratified sample, W_c^2 s_c^2 / n_c summed. A cell of one rater has no spread of its own and takes the
        pooled one. The quantile is Student's with Satterthwaite's degrees of freedom, since the spread in cells of two or three is
        a guess.

        Parameters
        ----------
        values : (n_raters,) y; NaN where a rater has none, who then does not count. Weights are not made anew for those who do.
        bounds : least and largest value there can be; the interval is then Wilson's at the effective n, and stays within them.

        Raises
        ------
        InvalidSetting
            If fewer than two raters count, or a value is outside the bounds.

        Source: Deville & Sarndal 1992 (residual variance of calibrated means), with the leverages of MacKinnon & White 1985 (HC2).
        """
        _require_level(level)
        use = np.isfinite(values) & (self.values > 0)
        if use.sum() < 2:
            raise InvalidSetting("values", f"{int(use.sum())} raters with a weight and a value", "An interval takes two at least.")
        y, w = values[use], self.values[use]
        if bounds is not None and not (bounds[0] <= y.min() and y.max() <= bounds[1]):
            raise InvalidSetting("bounds", bounds, f"Values go from {y.min():.4g} to {y.max():.4g}.")
        m = float(np.clip(w @ y / w.sum(), y.min(), y.max()))
        variance, freedom = _variance(y, w, self.strata[use])
        size = effective_size(w)
        low, high = _interval(m, variance, freedom, size, level, bounds)
        least, most = bounds or (-np.inf, np.inf)
        lost = 1 - self.covered
        worst = (self.covered * low + lost * least, self.covered * high + lost * most) if lost > 0 else (low, high)
        return Estimate(m, low, high, *worst, level, int(use.sum()), size, self.covered)


def effective_size(weights: Array) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _variance(y: Array, w: Array, strata: Codes) -> tuple[float, float]:
    """V of `Weights.mean`, and its degrees of freedom: (tr A S)^2 / tr A S A S, S = I - Q Q' and A = diag(a) with V = sum a e^2."""
    X = np.hstack([np.eye(int(column.max()) + 1)[column] for column in strata.T])
    root = np.sqrt(w)
    left, singular, _ = np.linalg.svd(root[:, None] * X[:, X.any(0)], full_matrices=False)
    Q = left[:, singular > 1e-10 * singular[0]]
    # sqrt(w) e rather than e: raking can take a weight to 1e-290, where e says nothing and costs nothing
    e = root * y - Q @ (Q.T @ (root * y))
    free = 1 - (Q**2).sum(1)
    alone = free < _ALONE
    if alone.all():
        return np.inf, 1.0
    a = np.where(alone, 0.0, w**2 / np.where(alone, 1.0, free)) / w.sum() ** 2
    pooled, spare = float((e[~alone] ** 2).sum() / (w @ free)), float(free.sum())
    single = float((w[alone] ** 2).sum()) / w.sum() ** 2
    between = float((a**2 * (2 * free - 1)).sum() + ((Q.T @ (a[:, None] * Q)) ** 2).sum())
    total = float(a @ free) + single
    freedom = total**2 / max(between + single**2 / spare, 1e-300)
    return float((a / w) @ e**2) + single * pooled, max(freedom, 1.0)


def _interval(
    m: float, variance: float, freedom: float, size: float, level: float, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    from scipy.stats import t

    z = float(t.ppf((1 + level) / 2, freedom))
    if bounds is None:
        return m - z * float(np.sqrt(variance)), m + z * float(np.sqrt(variance))
    if not np.isfinite(variance):
        return bounds
    width = bounds[1] - bounds[0]
    p, v = (m - bounds[0]) / width, variance / width**2
    n = p * (1 - p) / v if v > 0 and 0 < p < 1 else size  # all of one mind: as many raters as they are worth
    centre, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n * n)) / (1 + z**2 / n)
    return bounds[0] + width * max(0.0, float(centre - half)), bounds[0] + width * min(1.0, float(centre + half))


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidSetting("level", level, "Use the probability of an interval, such as 0.9.")


def unweighted(n_raters: int) -> Weights:
    """Everyone who answered counts alike: what is said without a target."""
    ones = np.zeros((n_raters, 1), dtype=np.int64)
    return Weights(np.ones(n_raters), "none", (), ones, pl.Series(["everyone"] * n_raters, dtype=pl.String), {}, 1.0, {}, 0)


def post_stratify(raters: pl.DataFrame, target: Target, *, unseen: bool = False) -> Weights:
    """Weights with which each cell of the target weighs as much as it does in the population: N_c / n_c.

    Cells in which nobody answered are named, and the others share what is left: the mean is that of the part that is covered.

    Parameters
    ----------
    unseen : whether the target may have levels that no rater has. Otherwise they are taken for a slip of spelling.

    Raises
    ------
    InvalidSetting
        If only margins of several columns are known, or no rater is in a cell of the target.
    InvalidCharter
        If a level of the target is not in the data, unless `unseen`.
    """
    shares = target.cell_shares()
    found = _placed(raters, target, unseen=unseen)
    names = list(shares)
    code = found.names.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()
    count = np.bincount(code[code >= 0], minlength=len(names))
    share = np.array(list(shares.values()))
    covered = float(share[count > 0].sum())
    if covered <= 0:
        raise InvalidSetting("raters", f"{raters.height} of them", f"None is in a cell of {target.source} that anybody is in.")
    each = np.where(count > 0, share / np.maximum(count, 1), 0.0)
    values = np.where(code >= 0, each[code], 0.0)
    values *= (values > 0).sum() / values.sum()
    empty = {name: float(s) for name, s, n in zip(names, share, count, strict=True) if n == 0 and s > 0}
    return Weights(values, "post-stratification", target.columns, code[:, None], found.names, empty, covered, found.outside, found.unknown)


def rake(
    raters: pl.DataFrame,
    target: Target,
    *,
    unseen: bool = False,
    trim: float | None = None,
    max_rounds: int = 1000,
    tolerance: float = 1e-8,
) -> Weights:
    """Weights with which each level of each column weighs as much as in the population, as near to equal as that allows.

    Columns take turns to be made right until all are (iterative proportional fitting, Deming & Stephan 1940). Where they cannot all
    be, as when two levels only occur together and weigh differently, the result says so: `converged`, and the `error` that is left.

    Parameters
    ----------
    unseen : as for `post_stratify`.
    trim : largest weight, as a multiple of the mean. It lowers the variance and leaves a bias, which `error` shows. None: none.

    Raises
    ------
    InvalidSetting
        If `trim` is not above 1, or no rater is in a cell of the target.
    InvalidCharter
        If a level of the target is not in the data, unless `unseen`.
    """
    if trim is not None and not trim > 1:
        raise InvalidSetting("trim", trim, "Use a multiple of the mean weight above 1, or None.")
    found = _placed(raters, target, unseen=unseen)
    use = found.codes.min(1) >= 0
    if not use.any():
        raise InvalidSetting("raters", f"{raters.height} of them", f"None is in {target.source}.")
    codes, empty, wanted = found.codes[use], dict[str, float](), list[Array]()
    covered = 1.0
    for column, (name, margin) in zip(codes.T, target.margins.items(), strict=True):
        share = np.array(list(margin.values()))
        present = np.bincount(column, minlength=len(share)) > 0
        covered -= float(share[~present].sum())
        empty |= {f"{name} {level}": float(s) for level, s, there in zip(margin, share, present, strict=True) if s > 0 and not there}
        wanted.append(np.where(present, share, 0.0) / share[present].sum())
    if target.cells is not None:
        there = set(found.names.drop_nulls())
        empty = {cell: s for cell, s in target.cell_shares().items() if s > 0 and cell not in there}
        level = [pl.col(name).is_in(sorted(set(raters.filter(use)[name]))) for name in target.columns]
        covered = float(target.cells.filter(pl.all_horizontal(level))["share"].sum())
    w, rounds, error = _in_turns(np.ones(len(codes)), codes, wanted, trim=trim, max_rounds=max_rounds, tolerance=tolerance)
    values = np.zeros(raters.height)
    values[use] = w * ((w > 0).sum() / w.sum())
    strata = np.where(use[:, None], found.codes, -1)
    return Weights(
        values, "raking", target.columns, strata, found.names, empty, max(covered, 0.0), found.outside, found.unknown,
        error < tolerance or (trim is not None and rounds < max_rounds), rounds, error,
    )  # fmt: skip


def _in_turns(
    w: Array, codes: Codes, wanted: Sequence[Array], *, trim: float | None, max_rounds: int, tolerance: float
) -> tuple[Array, int, float]:
    """Weights made right for one column (n, m of `codes`) after the other, the rounds that took, and the largest difference left."""
    rounds, error = 0, np.inf
    while rounds < max_rounds:
        rounds += 1
        for column, share in zip(codes.T, wanted, strict=True):
            now = np.bincount(column, weights=w, minlength=len(share))
            w = w * np.divide(share * w.sum(), now, out=np.zeros_like(share), where=now > 0)[column]
        if trim is not None:
            w = _capped(w, trim)
        off = [np.abs(np.bincount(c, weights=w, minlength=len(s)) / w.sum() - s).max() for c, s in zip(codes.T, wanted, strict=True)]
        last, error = error, float(max(off))
        if error < tolerance or (trim is not None and abs(last - error) < tolerance):
            break
    return w, rounds, error


def _capped(w: Array, most: float) -> Array:
    """Weights of mean 1 over those above 0, none above `most`: what is cut off goes to the others."""
    counts = w > 0
    n = int(counts.sum())
    w, full = w * (n / w.sum()), np.zeros(len(w), dtype=bool)
    while (over := (w > most) & ~full).any():
        full |= over
        rest = counts & ~full
        w = np.where(full, most, w)
        w[rest] *= (n - most * full.sum()) / w[rest].sum()
    return w


@dataclass(frozen=True)
class _Placed:
    """Where raters stand in a target."""

    codes: Codes
    """(n_raters, m) level of each column, in the order of the margins; -1 where not known or not in the target."""
    names: pl.Series
    outside: dict[str, int]
    unknown: int


def _placed(raters: pl.DataFrame, target: Target, *, unseen: bool) -> _Placed:
    require_columns(raters, target.columns)
    codes = np.empty((raters.height, len(target.margins)), dtype=np.int64)
    for i, (name, margin) in enumerate(target.margins.items()):
        given = raters[name].cast(pl.String)
        known = sorted(given.drop_nulls().unique())
        strange = [level for level, share in margin.items() if share > 0 and level not in set(known)]
        if strange and not unseen:
            near = difflib.get_close_matches(strange[0], known, n=1, cutoff=0)
            raise InvalidCharter(
                target.source, f"{name} {strange[0]!r} is not a level of any rater",
                f"The nearest is {near[0]!r}; where nobody of it answered, say so: --unseen, in Python unseen=True." if near else "Its raters have none.",
            )  # fmt: skip
        codes[:, i] = given.replace_strict(list(margin), range(len(margin)), default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()
    whole = raters.select(pl.concat_str([pl.col(c).cast(pl.String) for c in target.columns], separator=SEPARATOR).alias("cell"))["cell"]
    unknown = whole.is_null()
    inside = pl.Series(codes.min(1) >= 0)
    if target.cells is not None:
        inside &= whole.is_in([cell for cell, share in target.cell_shares().items() if share > 0]).fill_null(value=False)
        codes = np.where(inside.to_numpy()[:, None], codes, -1)
    stray = whole.filter(~inside & ~unknown).value_counts(sort=True)
    outside: dict[str, int] = dict(stray.iter_rows())
    named = pl.DataFrame({"cell": whole, "inside": inside}).select(pl.when("inside").then("cell"))["cell"]
    return _Placed(codes, named, outside, int(unknown.sum()))


def require_columns(raters: pl.DataFrame, columns: Collection[str]) -> None:
    """Nothing, where the frame has the columns.

    Raises
    ------
    InvalidSetting
        With those that it lacks.
    """
    if missing := [name for name in columns if name not in raters.columns]:
        raise InvalidSetting("raters", missing, f"These columns are missing; there are {', '.join(raters.columns)}.")


# ---------------------------------------------------------------------------------------------- what the pool is like


def representation(raters: pl.DataFrame, target: Target, weights: Weights | None = None, *, level: float = 0.9) -> pl.DataFrame:
    """A row per column and level of the target, and how the pool, and the weighed pool, differ from it.

    Columns that the weights do not adjust are the ones to look at: what is left there tells what else may be left, of which nothing is
    known. A `target` with more columns than the weights were made for has them.

    Returns
    -------
    column, level, adjusted (whether the weights were made for the column), target (share), n (raters), sample (share of the raters whose
    level is known), judgments (their share), gap (sample - target) with gap_low, gap_high, weighted (share of the weights) and residual
    (weighted - target) with residual_low, residual_high. The bounds are null where there is nobody to tell a spread from.

    Raises
    ------
    InvalidSetting
        If the raters lack a column.
    """
    _require_level(level)
    require_columns(raters, target.columns)
    weights = weights or unweighted(raters.height)
    judgments = raters["judgments"].cast(pl.Float64).to_numpy() if "judgments" in raters.columns else np.ones(raters.height)
    rows: list[dict[str, object]] = []
    for name, margin in target.margins.items():
        given = raters[name].cast(pl.String)
        known = given.is_not_null().to_numpy()
        for group in dict.fromkeys([*margin, *sorted(given.drop_nulls().unique())]):
            mine = (given == group).fill_null(value=False).to_numpy()
            share = margin.get(group, 0.0)
            row: dict[str, object] = {
                "column": name,
                "level": group,
                "adjusted": name in weights.columns,
                "target": share,
                "n": int(mine.sum()),
            }
            here = np.where(known, mine.astype(float), np.nan)
            row |= {
                "sample": float(mine.sum() / max(known.sum(), 1)),
                "judgments": float(judgments[mine].sum() / max(judgments[known].sum(), 1)),
            }
            for what, by in (("gap", unweighted(raters.height)), ("residual", weights)):
                told = by.mean(here, level=level, bounds=(0.0, 1.0)) if (known & (by.values > 0)).sum() > 1 else None
                if what == "residual":
                    row["weighted"] = told.estimate if told else None
                row[what] = told.estimate - share if told else None
                row |= {f"{what}_low": told.low - share, f"{what}_high": told.high - share} if told else {}
            rows.append(row)
    order = ["column", "level", "adjusted", "target", "n", "sample", "judgments", "gap", "gap_low", "gap_high", "weighted", "residual"]
    return pl.DataFrame(rows, infer_schema_length=None).select(*order, "residual_low", "residual_high")


def raters_needed(
    raters: pl.DataFrame, target: Target, half_width: float, *, sd: float = 0.5, level: float = 0.9, by: str | None = None
) -> pl.DataFrame:
    """How many raters each group takes for the mean of what its people think to be known to within a half width.

        n = ceil((t sd / half width)^2), t Student's quantile with n - 1 degrees of freedom

    Parameters
    ----------
    half_width : of the interval of one group's mean, in the unit of `sd`.
    sd : over the people of a group, of a rater's value. .5 is the most that the share of a yes or no can have.
    by : the column whose levels are the groups; None: the cells of the target.

    Returns
    -------
    group, target (share), n (raters there are), needed, missing. A population sampled in its own shares would need
    max(needed / target) raters in all.

    Raises
    ------
    InvalidSetting
        If `half_width` or `sd` is not positive.
    """
    from scipy.stats import norm, t

    _require_level(level)
    if not (half_width > 0 and sd > 0):
        raise InvalidSetting("half_width and sd", (half_width, sd), "Use positive numbers.")
    target = target if by is None else target.only(by)
    n = max(2, int(np.ceil((norm.ppf((1 + level) / 2) * sd / half_width) ** 2)))  # never too many: Student's quantile is larger
    while t.ppf((1 + level) / 2, n - 1) * sd / np.sqrt(n) > half_width:
        n += 1
    found = _placed(raters, target, unseen=True)
    have: dict[str, int] = dict(found.names.drop_nulls().value_counts().iter_rows())
    groups = [(name, share, have.get(name, 0)) for name, share in target.cell_shares().items() if share > 0]
    frame = pl.DataFrame(groups, schema={"group": pl.String, "target": pl.Float64, "n": pl.Int64}, orient="row")
    return frame.with_columns(needed=pl.lit(n, dtype=pl.Int64), missing=pl.max_horizontal(n - pl.col("n"), 0).cast(pl.Int64))


# ---------------------------------------------------------------------------------------------- from a fit


@dataclass(frozen=True)
class Preferences:
    """What share of the population prefers the first of each pair, by multilevel regression and post-stratification."""

    share: Array
    """(n,)"""
    low: Array
    high: Array
    """(n,) bounds for the part of the population that is covered."""
    level: float
    covered: float
    """Share of the population in cells that the fit has values for."""
    lost: dict[str, float]
    """Cells of the target that it has none for, since a level of theirs has too few judgments: left out, with their share."""
    inferred: dict[str, float]
    """Cells in which nobody answered, whose values come from their columns, with their share."""


def cell_weights(fit: Fit, target: Target) -> tuple[dict[str, float], dict[str, float]]:
    """Weights for `Fit.gaps` of the groups of a fit, and the cells of the target that are not among them, each with its share.

    A target of margins is raked: the groups weigh as near to their numbers of raters as lets every margin be right, and groups that no
    rater is of weigh nothing. What is not among the groups is then a level.

    Raises
    ------
    InvalidSetting
        If the fit has no groups, the target does not have their columns, or no group is in the target.
    InvalidCharter
        If raking does not converge, with what is left over by margin.
    """
    groups = next((f for f in fit.factors if f.name == "group"), None)
    if groups is None:
        raise InvalidSetting("fit", repr(fit), "Its people do not differ by a known column: fit Groups(by=) the columns of the target.")
    target = target.only(*([groups.by] if isinstance(groups.by, str) else groups.by))
    if target.cells is None and len(target.margins) > 1:
        return _raked_groups(dict(zip(fit.groups, fit.group_share.tolist(), strict=True)), target)
    shares = target.cell_shares()
    inside = {name: share for name, share in shares.items() if name in groups.levels and share > 0}
    if not inside:
        raise InvalidSetting("target", target.source, f"None of its cells is a group of the fit, such as {groups.levels[0]!r}.")
    return inside, {name: share for name, share in shares.items() if name not in inside and share > 0}


def _raked_groups(held: dict[str, float], target: Target) -> tuple[dict[str, float], dict[str, float]]:
    """`cell_weights` of margins: the share of the raters in each cell, raked."""
    margins = [list(margin.items()) for margin in target.margins.values()]
    cells = [(cell_name([margin[i][0] for i, margin in zip(cell, margins, strict=True)]), cell) for cell in np.ndindex(*map(len, margins))]
    there = [(name, cell) for name, cell in cells if held.get(name, 0) > 0]
    if not there:
        raise InvalidSetting("target", target.source, f"None of its cells is a group of the fit, such as {next(iter(held))!r}.")
    codes, lost, wanted = np.array([cell for _, cell in there]), dict[str, float](), list[Array]()
    for column, name, margin in zip(codes.T, target.columns, margins, strict=True):
        share = np.array([share for _, share in margin])
        present = np.bincount(column, minlength=len(share)) > 0
        lost |= {f"{name} {level}": s for (level, s), known in zip(margin, present, strict=True) if s > 0 and not known}
        wanted.append(np.where(present, share, 0.0) / share[present].sum())
    w, _, error = _in_turns(np.array([held[name] for name, _ in there]), codes, wanted, trim=None, max_rounds=1000, tolerance=1e-8)
    w /= w.sum()
    if error > _ROUNDED:
        left: list[str] = []
        for column, name, margin, share in zip(codes.T, target.columns, margins, wanted, strict=True):
            off = np.bincount(column, weights=w, minlength=len(share)) - share
            most = int(np.abs(off).argmax())
            left += [f"{name} {margin[most][0]} is off by {100 * off[most]:+.1f} points"] if abs(off[most]) > _ROUNDED else []
        remedy = "No weights of the fit's groups meet these margins: ask people of the groups that nobody is of, join levels, or leave out a column."
        raise InvalidCharter(target.source, f"raking to its margins did not converge: {', '.join(left)}", remedy)
    covered = max(0.0, 1 - sum(lost.values()))
    return {name: covered * float(weight) for (name, _), weight in zip(there, w, strict=True) if weight > 0}, lost


def preferences(fit: Fit, feedback: Feedback, left: Codes, right: Codes, target: Target, *, level: float = 0.9) -> Preferences:
    """The share of the target population that prefers `left` to `right` (response codes of `feedback`), for each pair.

        p = sum_c W_c s(g_c),  Var p = |sum_c W_c s'(g_c) z_c (x_left - x_right) F|^2

    s is the logistic function, g_c the gap of cell c, z_c its loadings, F the factor of the covariance of the weights: Laplace's, or that
    of the sandwich where it is wider. The interval is that of log odds, to first order.

    Raises
    ------
    InvalidSetting
        As `cell_weights`; and if the fit has no posterior.

    Source: Gelman & Little 1997; Park, Gelman & Bafumi 2004.
    """
    from scipy.stats import norm

    _require_level(level)
    if not fit.knows_ignorance:
        raise InvalidSetting("fit", repr(fit), "It has no posterior, so nothing can be said of its doubt.")
    weights, lost = cell_weights(fit, target)
    gaps = fit.gaps(feedback, left, right, group_weights=weights)
    s = 1 / (1 + np.exp(-gaps.by_group))
    p = s @ gaps.share
    slope = (s * (1 - s) * gaps.share) @ (fit.loadings[: len(fit.groups)] + fit.circumstances(None))  # (n, k)
    variance = _placed_variance(fit, feedback, left, right, slope, robust=False)
    if gaps.sandwich is not None:
        variance = np.maximum(variance, _placed_variance(fit, feedback, left, right, slope, robust=True))
    log_odds = np.log(p) - np.log1p(-p)
    half = float(norm.ppf((1 + level) / 2)) * np.sqrt(variance) / (p * (1 - p))
    low, high = (1 / (1 + np.exp(-(log_odds + sign * half))) for sign in (-1, 1))
    held = dict(zip(fit.groups, fit.group_share, strict=True))
    inferred = {name: share for name, share in weights.items() if held[name] == 0}
    unknown = ~gaps.known
    share, low, high = (np.where(unknown, np.nan, found) for found in (p, low, high))
    return Preferences(share, low, high, level, sum(weights.values()), lost, inferred)


def _placed_variance(fit: Fit, feedback: Feedback, left: Codes, right: Codes, slope: Array, *, robust: bool) -> Array:
    """(n,) squared length of sum_a slope_a (x_left - x_right) F_a: the variance of what the values move by these slopes (n, k)."""
    rows = fit.basis.rows_for(feedback)
    total: Array = np.zeros((len(left), 0))
    for a, unit in enumerate(np.eye(slope.shape[1])):
        placed = rows.times(fit.factor_for(unit, robust=robust))
        apart = placed[left] - placed[right]
        dense: Array = apart if isinstance(apart, np.ndarray) else apart.toarray()
        moved = slope[:, a, None] * dense
        total = moved if a == 0 else total + moved
    new = rows.new[left] + rows.new[right]
    own = np.array([fit.new_variance(z) if n else 0.0 for z, n in zip(slope, new, strict=True)])
    return (total**2).sum(1) + new * own


def explained(weights: Weights) -> tuple[str, ...]:
    """What to know of some weights before they are used, one sentence each."""
    said = [f"{weights.method}: {np.count_nonzero(weights.values)} raters count as much as {weights.effective_size:.1f} of equal weight"]
    if weights.empty:
        named = ", ".join(f"{name} ({share:.1%})" for name, share in _largest(weights.empty))
        said.append(f"nobody answered in {len(weights.empty)} of the target's: {named}; {weights.covered:.1%} of it is covered")
    if weights.outside:
        said.append(
            f"{sum(weights.outside.values())} raters are in none of the target's cells and do not count: {', '.join(weights.outside)}"
        )
    if weights.unknown:
        said.append(f"{weights.unknown} raters of whom a column is not known do not count")
    if weights.faint:
        said.append(f"{sum(weights.faint.values())} raters have next to no weight: {', '.join(weights.faint)}")
    if not weights.converged:
        said.append(f"raking did not converge in {weights.rounds} rounds: a level is off by {weights.error:.2%}")
    elif weights.error > 1e-6:
        said.append(f"trimmed, so that a level is off by {weights.error:.2%}")
    return tuple(said)


def _largest(shares: Mapping[str, float], most: int = 10) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])[:most]
