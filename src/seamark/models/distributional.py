"""Utilities that are distributions: how much each response is worth, and how widely that varies with what nobody recorded.

Conventions
-----------
A pair says which response was preferred under a context nobody recorded (who, which aim, which mood). Each response r has a
distribution D_r of utility over those contexts, drawn anew for each response of a pair:

    P(left preferred) = e + (1 - 2 e) P(U_left > U_right),   U ~ D_left x D_right,  an equal draw counting half

with e the flip rate. A family turns c columns of values V (n, c) into the D_r; V = X W with X the `Basis` that `Utility.prepare`
gives, as everywhere. Weights have proper normal priors, one strength per part of the basis and kind of column, all estimated.
P weights a column, n responses, E cells (distinct pairs). Pairs alone are read: ties and "both bad" as half a win for each side,
strength, order, and who answered not at all.

What pairs cannot tell. Any increasing change of all utilities at once leaves every answer as likely as before, so neither zero
nor unit are data, and the expected utility is identified by the shape of the family alone (Siththaranjan et al. 2024, theorem
3.4). Spread is whatever makes answers less sure than the means say: hidden context, disagreement and carelessness look the same.

Source: Siththaranjan, Laidlaw & Hadfield-Menell 2024, Distributional Preference Learning. Ours are fits of a posterior to all
pairs at once, not networks trained by batches; see the families for where else we deviate.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.linalg import cholesky, get_lapack_funcs
from scipy.optimize import minimize
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, ndtri, softmax
from scipy.stats import norm

from seamark.errors import InvalidSetting, NotConverged, SeamarkError, UnreadableSource
from seamark.models.observation import PROBIT_SCALE
from seamark.models.threads import on_one_thread
from seamark.models.utility import Basis, Rows, Utility, default_utility
from seamark.outputs import whole_folder
from seamark.records import Feedback

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

UNIT_SD = PROBIT_SCALE / np.sqrt(2)
"""Spread of each of two responses under which the link is the library's probit, so that gaps are in logits: the two normal draws
differ by a normal of sd 1.702, which is within .0095 of the logistic."""
DENSE = 4096
"""Up to this many weights (half of it without features) the information is factored; beyond, it is only multiplied."""
_EXACT, _KEPT, _SOLVED = 1024, 512, 64
"""Weights up to which a covariance is kept whole; draws that stand for it beyond (3% error of an sd), and beyond DENSE (9%)."""
_ROUNDS, _SETTLED = 25, 0.05
"""Most updates of the prior strengths, and the relative change of a prior variance at which they stop."""
_STALE = 150
"""Steps after which a search starts again in the metric of where it has come to."""
_FLIP_PRIOR = (-2.0, 2.0)
"""Centre and sd of the log odds of 2 e: a flip rate of .06, between .001 and .44 with probability .95."""


# ---------------------------------------------------------------------------------------------- families


@dataclass(frozen=True)
class Normal:
    """U_r ~ N(mean_r, sd_r^2): P(a over b) = Phi((mean_a - mean_b) / sqrt(sd_a^2 + sd_b^2)). Columns: mean; log(sd / UNIT_SD).

    Gauge: means average 0 over the responses fitted and so do log spreads, whose unit is set so that where spreads are equal this
    is Thurstone's probit with gaps in logits (`Choice(link="probit")`). The link is the normal distribution function, as in the
    paper's text; the paper's code has sigmoid(sqrt(2 pi) z) in its place, off by up to .095. sd comes from a logarithm, not from
    the code's softplus; there is no variance penalty but the prior.

    Source: Siththaranjan et al. 2024, section 4 (mean-and-variance DPL); Thurstone 1927, case III.
    """

    equal: bool = False
    """Whether all spreads are the same, which is Thurstone's case V: nothing but a probit Bradley-Terry."""

    @property
    def n_columns(self) -> int:
        """c, columns of values per response."""
        return 1 if self.equal else 2

    @property
    def kinds(self) -> tuple[tuple[str, int, int, float, float], ...]:
        """Name, first column, last + 1, expected and largest prior sd of each kind of column: a kind shares a prior strength."""
        return (("mean", 0, 1, 1.0, 10.0),) if self.equal else (("mean", 0, 1, 1.0, 10.0), ("spread", 1, 2, 0.3, 1.0))

    @property
    def centred(self) -> bool:
        """Whether the gauge sets the mean of each column over the responses fitted to 0."""
        return True

    def log_wins(self, values: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """log P(U_left > U_right) and log P(U_right > U_left), equal draws shared: (n, c) and two codes (E,) -> (E,), (E,)."""
        import torch

        gap = values[left, 0] - values[right, 0]
        narrower = 1 / np.sqrt(2) if self.equal else torch.exp(-0.5 * torch.logaddexp(2 * values[left, 1], 2 * values[right, 1]))
        z = gap * narrower / UNIT_SD
        return torch.special.log_ndtr(z), torch.special.log_ndtr(-z)

    def moments(self, values: Array) -> tuple[Array, Array]:
        """(n,) means and (n,) standard deviations from (n, c) values."""
        spread = np.zeros(len(values)) if self.equal else values[:, 1]
        return values[:, 0].copy(), UNIT_SD * np.exp(spread)

    def slopes(self, values: Array) -> tuple[Array, Array]:
        """(n, c) derivatives of the mean, and of the logarithm of the standard deviation."""
        on_mean, on_log_sd = np.zeros_like(values), np.zeros_like(values)
        on_mean[:, 0] = 1.0
        on_log_sd[:, 1:] = 1.0
        return on_mean, on_log_sd

    def quantile(self, values: Array, q: float) -> Array:
        """(n,) value below which a share q of the distribution lies."""
        mean, sd = self.moments(values)
        return mean + sd * float(ndtri(q))

    def to_dict(self) -> dict[str, Any]:
        return {"family": "Normal", "equal": self.equal}


@dataclass(frozen=True)
class Categorical:
    """U_r is one of `atoms` values, evenly spaced from 0 to 1: P(a over b) = sum_ij p_i(a) p_j(b) [1{i > j} + 1/2 1{i = j}].

    Columns: log odds of the atoms, a prior N(0, strength^2) on each. Gauge: the atoms stay where they are put. Only their order
    enters the likelihood, so means, spreads and quantiles are in units of a ladder that is a convention, not in logits. With features
    each column of theirs has a weight per atom: 300 columns are a minute's work, 1,000 many.

    Source: Siththaranjan et al. 2024, section 4 (categorical DPL).
    """

    atoms: int = 10
    """10 for their language models, 20 for their example in one dimension."""
    entropy: float = 0.0
    """Reward, in nats a judgment, for the entropy of the mean distribution over the responses as often as they are shown: keeps
    atoms in use. The paper has .1, of each batch, as it has no prior. It grows with the data, so it is a bias that never fades,
    and errors and prior strengths know nothing of it."""

    def __post_init__(self) -> None:
        if self.atoms < 2:
            raise InvalidSetting("Categorical(atoms=)", self.atoms, "Use at least 2.")
        if not 0 <= self.entropy < np.inf:
            raise InvalidSetting("Categorical(entropy=)", self.entropy, "Use 0 or more; the paper has 0.1.")

    @property
    def n_columns(self) -> int:
        return self.atoms

    @property
    def kinds(self) -> tuple[tuple[str, int, int, float, float], ...]:
        return (("atoms", 0, self.atoms, 1.0, 10.0),)

    @property
    def centred(self) -> bool:
        return False

    @property
    def ladder(self) -> Array:
        """(atoms,) the values."""
        return np.linspace(0.0, 1.0, self.atoms)

    def log_wins(self, values: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        p = torch.softmax(values, -1)
        below = torch.cumsum(p, -1) - p / 2
        # each side is a sum of positive terms, so that neither is lost in 1 - the other; only below 1e-300 is there nothing left
        if len(p) ** 2 <= 16 * len(left):  # a table of all pairs costs less than two gathers of rows
            table = p @ below.T
            wins, loses = table[left, right], table[right, left]
        else:
            wins, loses = (p[left] * below[right]).sum(-1), (p[right] * below[left]).sum(-1)
        return torch.log(wins.clamp_min(1e-300)), torch.log(loses.clamp_min(1e-300))

    def moments(self, values: Array) -> tuple[Array, Array]:
        p = softmax(values, axis=1)
        mean = p @ self.ladder
        return mean, np.sqrt((p * (self.ladder - mean[:, None]) ** 2).sum(1))

    def slopes(self, values: Array) -> tuple[Array, Array]:
        p = softmax(values, axis=1)
        mean, sd = self.moments(values)
        off = self.ladder - mean[:, None]
        return p * off, p * (off**2 / np.maximum(sd, 1e-150)[:, None] ** 2 - 1) / 2

    def quantile(self, values: Array, q: float) -> Array:
        """Mass of an atom is spread evenly over its bin, half a step to either side, and the ends cut at 0 and 1."""
        p = softmax(values, axis=1)
        upper = np.cumsum(p, axis=1)
        atom = np.minimum((upper < q).sum(1), self.atoms - 1)
        row = np.arange(len(p))
        inside = (q - (upper[row, atom] - p[row, atom])) / np.maximum(p[row, atom], 1e-300)
        return np.clip(self.ladder[atom] + (np.clip(inside, 0, 1) - 0.5) * self.ladder[1], 0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        return {"family": "Categorical", "atoms": self.atoms, "entropy": self.entropy}


_FAMILIES: dict[str, type[Any]] = {"Normal": Normal, "Categorical": Categorical}


# ---------------------------------------------------------------------------------------------- what was fitted


@dataclass(frozen=True)
class Misfit:
    """How far the answers to repeated pairs lie from the probabilities fitted."""

    chi2: float
    """Sum over the cells of (wins - n p)^2 / (n p (1 - p))."""
    cells: int
    """Cells of at least 5 judgments and 1 expected either way."""
    excess: float
    """(chi2 - expected) / its standard deviation, where cells that the model describes give 1 each, less one for each weight that
    the data decide. Above 3 the model is wrong about these pairs."""
    p: float
    """Probability of so much or more if the model holds, by a normal approximation. Ties make it too large, as half wins scatter
    less than wins do."""


@dataclass(frozen=True)
class Distribution:
    """A distribution of utility for each response. Made by `fit_distribution`; saved and loaded whole."""

    family: Normal | Categorical
    utility: dict[str, Any]
    """The utility asked for."""
    basis: Basis
    weights: Array
    """W (c, P)."""
    factor: Array
    """(c P + 1 if the flip rate was estimated, r): covariance of the weights (and of the log odds of 2 e) is factor @ factor.T,
    from the expected information at the mode (Laplace), prior strengths taken as known."""
    centre: Array
    """(P,) mean row of X over the responses fitted: where the gauge has its zero."""
    flips: float | None
    """Flip rate e; None where it differs by judgment."""
    flips_se: float | None
    """Its standard error; None where it was given."""
    prior: dict[str, float]
    """Estimated prior sd of the weights, by PART.KIND."""
    n_judgments: float
    """Pairs used (sum of weights)."""
    left_out: dict[str, int]
    """Judgments not used, by reason."""
    log_likelihood: float
    """At the mode, in nats."""
    largest_gradient: float
    """Of the log posterior at the end, in nats per standard error of a weight."""
    iterations: int
    converged: bool
    misfit: Misfit | None
    """None where no pair was judged 5 times."""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        state = "" if self.converged else ", NOT CONVERGED"
        return f"Distribution({self.family}, {self.utility['utility']}; {self.n_judgments:,.0f} pairs, {self.iterations} iterations{state})"

    # ------------------------------------------------------------------ what each response is worth

    def _values(self, rows: Rows) -> Array:
        """(n, c) values, in the gauge."""
        values = rows.times(self.weights.T)
        return values - self.centre @ self.weights.T if self.family.centred else values

    def mean(self, feedback: Feedback) -> Array:
        """(n,) expected utility: logits (Normal) or place on the ladder from 0 to 1 (Categorical); NaN where not known.

        Identified by the shape of the family only, see the top of this module.
        """
        return self._of(feedback, lambda values: self.family.moments(values)[0])

    def sd(self, feedback: Feedback) -> Array:
        """(n,) standard deviation over hidden contexts, in the unit of `mean`; NaN where not known.

        It is not an error of estimation: more data do not make it smaller. For that see `mean_se`.
        """
        return self._of(feedback, lambda values: self.family.moments(values)[1])

    def quantile(self, feedback: Feedback, q: float) -> Array:
        """(n,) utility that a share q of the contexts falls short of; NaN where not known. q = .01 is the paper's cautious score.

        Raises
        ------
        InvalidSetting
            For q outside (0, 1).
        """
        if not 0 < q < 1:
            raise InvalidSetting("q", q, "A quantile is between 0 and 1.")
        return self._of(feedback, lambda values: self.family.quantile(values, q))

    def mean_se(self, feedback: Feedback) -> Array:
        """(n,) standard error of `mean` within the gauge (delta method), in its unit; NaN where not known."""
        return self._se(feedback, lambda values: self.family.slopes(values)[0])

    def log_sd_se(self, feedback: Feedback) -> Array:
        """(n,) standard error of the logarithm of `sd`, within the gauge (delta method); NaN where not known."""
        return self._se(feedback, lambda values: self.family.slopes(values)[1])

    def p(self, feedback: Feedback, left: Codes, right: Codes) -> Array:
        """(n,) P(U_left > U_right) for codes of responses of `feedback`, without flips, at the mode; NaN where not known."""
        import torch

        rows = self.basis.rows_for(feedback)
        values = torch.from_numpy(np.ascontiguousarray(self._values(rows)))
        with torch.no_grad():
            wins, _ = self.family.log_wins(values, torch.from_numpy(left), torch.from_numpy(right))
        return np.where(rows.known[left] & rows.known[right], np.exp(wins.numpy()), np.nan)

    def r2(self, feedback: Feedback) -> float:
        """Var[mean] / (Var[mean] + E[sd^2]) over the known responses of `feedback`: the paper's share explained without context.

        Low is read there as much hidden context. It does not follow: plain noise of one and the same population lowers it as well
        (from .89 to .12 as the scale of logistic noise rises from 1/4 to 2, utilities of sd .8), two groups that disagree have
        the r2 of one noisier group, and it depends on the link and on how different the responses are. It can compare sets of
        responses judged alike; to tell disagreement from noise takes raters with repeated labels (`seamark.fit`).
        """
        mean, sd = self.mean(feedback), self.sd(feedback)
        known = ~np.isnan(mean)
        between, within = float(mean[known].var()), float((sd[known] ** 2).mean())
        return between / (between + within)

    def _of(self, feedback: Feedback, of: Callable[[Array], Array]) -> Array:
        rows = self.basis.rows_for(feedback)
        return np.where(rows.known, of(self._values(rows)), np.nan)

    def _se(self, feedback: Feedback, slopes: Callable[[Array], Array]) -> Array:
        """(n,) standard error of what has these derivatives (n, c) in the values."""
        rows = self.basis.rows_for(feedback)
        slope = slopes(self._values(rows))
        P = self.weights.shape[1]
        variance = np.zeros(len(slope))
        for start in range(0, self.factor.shape[1], 256):  # a block of columns at a time: the rows of all are n by 256
            part = np.zeros((len(slope), min(256, self.factor.shape[1] - start)))
            for k in range(self.family.n_columns):
                piece = self.factor[k * P : (k + 1) * P, start : start + 256]
                placed = rows.times(piece)
                part += slope[:, k : k + 1] * (placed - self.centre @ piece if self.family.centred else placed)
            variance += (part**2).sum(1)
        if rows.new.any():  # a text not seen has a value of its own that only its prior speaks about
            for name, first, last, *_ in self.family.kinds:
                variance += rows.new * (slope[:, first:last] ** 2).sum(1) * self.prior[f"residual.{name}"] ** 2
        return np.where(rows.known, np.sqrt(variance), np.nan)

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> None:
        """Write distribution.json and arrays.safetensors; `Distribution.load` gives the same values."""
        from safetensors.numpy import save

        basis, features = self.basis.to_record()
        arrays: dict[str, NDArray[Any]] = {"weights": self.weights, "factor": self.factor, "centre": self.centre} | features
        told = ("utility", "flips", "flips_se", "prior", "n_judgments", "left_out", "log_likelihood", "largest_gradient", "iterations")
        record = {
            "seamark": "distribution",
            "version": 1,
            "family": self.family.to_dict(),
            "misfit": None if self.misfit is None else vars(self.misfit),
            "basis": basis,
        } | {name: getattr(self, name) for name in (*told, "converged", "notes")}
        with whole_folder(Path(folder), mark="distribution.json") as fresh:
            (fresh / "arrays.safetensors").write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
            (fresh / "distribution.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: str | Path) -> Distribution:
        """Read what `save` wrote.

        Raises
        ------
        UnreadableSource
            If the folder does not hold one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            record = json.loads((folder / "distribution.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "arrays.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise UnreadableSource(
                str(folder), f"not a fitted distribution ({error})", "Give a folder that Distribution.save wrote."
            ) from None
        basis, misfit = Basis.from_record(record.pop("basis"), arrays), record.pop("misfit")
        family = record.pop("family")
        return Distribution(
            family=_FAMILIES[family.pop("family")](**family),
            basis=basis,
            weights=arrays["weights"],
            factor=arrays["factor"],
            centre=arrays["centre"],
            misfit=None if misfit is None else Misfit(**misfit),
            notes=tuple(record.pop("notes")),
            **{name: value for name, value in record.items() if name not in ("seamark", "version")},
        )


# ---------------------------------------------------------------------------------------------- the fit


@on_one_thread
def fit_distribution(
    feedback: Feedback,
    *,
    utility: Utility | None = None,
    family: Normal | Categorical | None = None,
    flips: float | Array | Literal["estimate"] = 0.0,
    max_iterations: int = 2000,
    tolerance: float = 1e-2,
    require_converged: bool = True,
    seed: int = 0,
) -> Distribution:
    """A distribution of utility for each response: the posterior mode, its prior strengths and its uncertainty.

    Between searches for the mode (L-BFGS on the exact gradient, in coordinates in which the information is 1) the prior variances
    move to the maximum of the marginal likelihood: sd^2 = (|w|^2 + s^2) / (g + 1), g being how many of the weights w the data
    decide (MacKay 1992, equation 4.20) and s the kind's expected size, which counts as one weight: 1 for means and atoms, .3 for
    log spreads. No sd passes 10, and that of log spreads not 1: where some answers are certain, nothing else would bound them. Then they are frozen and the mode is found to `tolerance`.

    Parameters
    ----------
    utility
        Left out: Linear on hashed n-grams where all responses have texts, else Tabular.
    family
        Normal() if left out.
    flips
        Flip rate e: a number, one number per judgment (n_judgments,) (see `privacy.flip_rates` for private labels), or "estimate"
        for one unknown rate. Spread also draws answers towards 1/2, but never below the share that flips leave to the better of
        two responses far apart: the data must have such pairs for the rate to be told apart from spread.
    tolerance
        Largest entry of the gradient of the log posterior at the end, in nats per standard error.
    seed
        Of the draws that stand for a large covariance.

    Raises
    ------
    SeamarkError
        If there is no pair that was answered.
    InvalidSetting
        If a flip rate is outside [0, 1/2), or their number is not that of the judgments.
    NotConverged
        If the gradient does not get there, unless `require_converged` is False.
    """
    family = family or Normal()
    utility = utility or default_utility(feedback)
    cells, left_out = _read(feedback, 0.0 if isinstance(flips, str) else flips)
    basis = utility.prepare(feedback)
    problem = _Problem(basis, family, cells, estimate=isinstance(flips, str))
    rng = np.random.default_rng(seed)
    x, strengths, iterations = problem.prior_centre(), problem.start(), 0
    state = problem.state(x, problem.precision(strengths), rng, n_draws=8)
    for _ in range(_ROUNDS):
        precision = problem.precision(strengths)
        x, steps = _search(problem, x, precision, state, tolerance=0.1, max_iterations=min(_STALE, max_iterations - iterations))
        iterations += steps
        state = problem.state(x, precision, rng, n_draws=8)
        moved = problem.updated(x, state.variance, strengths)
        change = max(abs(np.log(moved[name] / strengths[name])) for name in strengths)
        strengths = moved
        if change < _SETTLED or iterations >= max_iterations:
            break
    precision, largest = problem.precision(strengths), np.inf
    while True:
        x, steps = _search(problem, x, precision, state, tolerance=tolerance / 2, max_iterations=min(_STALE, max_iterations - iterations))
        iterations += max(steps, 1)
        state = problem.state(x, precision, rng, n_draws=_SOLVED)
        largest = float(np.abs(state.whiten(problem.objective(x, precision)[1])).max())
        if largest < tolerance or iterations >= max_iterations:
            break
    if not largest < tolerance and require_converged:
        raise NotConverged(iterations, largest, tolerance)
    return _result(utility, problem, x, strengths, state, left_out, flips, largest, iterations, tolerance, rng)


@dataclass(frozen=True)
class _Cells:
    """Distinct pairs with the same flip rate."""

    left: Codes
    right: Codes
    wins: Array
    """Weight of the answers for left, ties counted half."""
    total: Array
    flips: Array


def _read(feedback: Feedback, flips: float | Array) -> tuple[_Cells, dict[str, int]]:
    rates = np.asarray(flips, dtype=np.float64)
    if rates.ndim and rates.shape != (feedback.n_judgments,):
        raise InvalidSetting("flips", f"an array of shape {rates.shape}", f"Give one rate for each of {feedback.n_judgments:,} judgments.")
    frame = feedback.pairs().with_columns(pl.col("weight").fill_null(1.0), pl.col("left").cast(pl.Int64), pl.col("right").cast(pl.Int64))
    left_out = {"not pairs": feedback.n_judgments - frame.height}
    answered = frame.filter(pl.col("outcome").is_in(["left", "right", "tie", "both_bad"]) & (pl.col("weight") > 0))
    left_out["cannot tell, skipped or of weight 0"] = frame.height - answered.height
    used = answered.filter(pl.col("left") != pl.col("right"))
    left_out["a response beside itself"] = answered.height - used.height
    if used.height == 0:
        raise SeamarkError("no pair was answered, so there is nothing to fit. Distributions of utility are learnt from pairs alone.")
    row = used["row"].to_numpy()
    rate = np.broadcast_to(rates, feedback.n_judgments)[row]
    if not ((rate >= 0) & (rate < 0.5)).all():
        raise InvalidSetting("flips", float(rate[~((rate >= 0) & (rate < 0.5))][0]), "A flip rate is in [0, 1/2) for every pair answered.")
    score = pl.when(pl.col("outcome") == "left").then(1.0).when(pl.col("outcome") == "right").then(0.0).otherwise(0.5)
    turned = pl.col("left") > pl.col("right")
    cells = (
        used.select(
            pl.min_horizontal("left", "right").alias("left"),
            pl.max_horizontal("left", "right").alias("right"),
            (pl.when(turned).then(1 - score).otherwise(score) * pl.col("weight")).alias("wins"),
            pl.col("weight").alias("total"),
            pl.Series("flips", rate),
        )
        .group_by("left", "right", "flips")
        .agg(pl.col("wins").sum(), pl.col("total").sum())
        .sort("left", "right", "flips")
    )
    return _Cells(*(cells[name].to_numpy().copy() for name in ("left", "right", "wins", "total", "flips"))), {
        reason: n for reason, n in left_out.items() if n
    }


@dataclass(frozen=True)
class _Told:
    """Roots of the expected information: a cell of n answers with probability p tells n p (1 - p) (d logit p)^2, whatever they were."""

    left: Array
    """(E, c) of the left response's values."""
    right: Array
    flips: Array
    """(E,) of the log odds of 2 e."""
    J: csr_array
    """(E, c n): both, by column of values and response."""


@dataclass(frozen=True)
class _State:
    """Information at a point: a metric to search in, and what stays unknown."""

    inverse: Array | None
    """L^-1, information and prior together being L L'; None where that is only multiplied."""
    scale: Array
    """(size,) 1 / sqrt of its diagonal, for what is not in `blocks`."""
    members: Codes
    """(c, n) places of the weights that responses have of their own."""
    blocks: Array
    """(n, c, c) L^-1 of each response's own weights among themselves."""
    variance: Array
    """(size,) posterior variance of each weight."""
    draws: Array | None
    """(size, r) factor of the covariance, where there is no `inverse`."""

    def whiten(self, gradient: Array) -> Array:
        """(size, ...) in coordinates in which the information is 1, or near it."""
        if self.inverse is not None:
            return self.inverse @ gradient
        out = (gradient.T * self.scale).T
        out[self.members] = np.einsum("nij,jn...->in...", self.blocks, gradient[self.members])
        return out

    def step(self, z: Array) -> Array:
        """Back from there."""
        if self.inverse is not None:
            return self.inverse.T @ z
        out = (z.T * self.scale).T
        out[self.members] = np.einsum("nji,jn...->in...", self.blocks, z[self.members])
        return out


@dataclass
class _Problem:
    """Log posterior of the weights x = [W.ravel() (c P), log odds of 2 e, if estimated], its gradient and expected information."""

    basis: Basis
    family: Normal | Categorical
    cells: _Cells
    estimate: bool

    def __post_init__(self) -> None:
        import torch

        self.c, self.P = self.family.n_columns, self.basis.n_columns
        self.size = self.c * self.P + self.estimate
        n = self.basis.n_responses
        self.centre = np.asarray(self.basis.transpose_times(np.full((n, 1), 1.0 / n)))[:, 0]
        self._left, self._right = torch.from_numpy(self.cells.left), torch.from_numpy(self.cells.right)
        self._wins, self._total = torch.from_numpy(self.cells.wins), torch.from_numpy(self.cells.total)
        self._flips = torch.from_numpy(self.cells.flips)
        self._plain = not self.estimate and not self.cells.flips.any()
        shown = np.bincount(self.cells.left, self.cells.total, n) + np.bincount(self.cells.right, self.cells.total, n)
        self._shown = torch.from_numpy(shown / shown.sum())

    # ------------------------------------------------------------------ values

    def values(self, x: Array) -> Array:
        """(n, c)"""
        values = self.basis.times(x[: self.c * self.P].reshape(self.c, self.P).T)
        return values - values.mean(0) if self.family.centred else values

    def _back(self, on_values: Array) -> Array:
        """(c P,) from derivatives (n, c) in the values."""
        if self.family.centred:
            on_values = on_values - on_values.mean(0)
        return np.asarray(self.basis.transpose_times(on_values)).T.ravel()

    def _log_answers(self, values: Tensor, left: Tensor, right: Tensor, odds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log probability of either answer, behind the flips."""
        import torch

        wins, loses = self.family.log_wins(values, left, right)
        if self._plain:
            return wins, loses
        e = torch.sigmoid(odds) / 2 if odds is not None else self._flips
        # a rate of 0 beside others in one array: its term is nothing, and its logarithm must not be infinite
        kept, flipped = (
            torch.log1p(-e),
            torch.log(torch.clamp_min(e, 1e-300)) if odds is None else torch.nn.functional.logsigmoid(odds) - np.log(2),
        )
        return torch.logaddexp(kept + wins, flipped + loses), torch.logaddexp(kept + loses, flipped + wins)

    # ------------------------------------------------------------------ posterior

    def log_likelihood(self, x: Array) -> float:
        return -self.objective(x, np.zeros(self.size), plain=True)[0]

    def objective(self, x: Array, precision: Array, *, plain: bool = False) -> tuple[float, Array]:
        """Minus the log posterior, and its gradient; `plain` leaves out the reward for entropy."""
        import torch

        values = torch.from_numpy(np.ascontiguousarray(self.values(x))).requires_grad_()
        odds = torch.tensor(x[-1], dtype=torch.float64, requires_grad=True) if self.estimate else None
        wins, loses = self._log_answers(values, self._left, self._right, odds)
        loss = -(self._wins * wins + (self._total - self._wins) * loses).sum()
        if isinstance(self.family, Categorical) and self.family.entropy and not plain:
            mean = self._shown @ torch.softmax(values, -1)
            loss = loss + self.family.entropy * self._total.sum() * torch.xlogy(mean, mean).sum()
        leaves = [values] if odds is None else [values, odds]
        slopes = torch.autograd.grad(loss, leaves)
        gradient = self._back(slopes[0].numpy())
        if self.estimate:
            gradient = np.append(gradient, float(slopes[1]))
        away = x - self.prior_centre()
        return float(loss.detach()) + 0.5 * float(precision @ away**2), gradient + precision * away

    def prior_centre(self) -> Array:
        centre = np.zeros(self.size)
        if self.estimate:
            centre[-1] = _FLIP_PRIOR[0]
        return centre

    # ------------------------------------------------------------------ priors

    def start(self) -> dict[str, float]:
        """Prior variances by PART.KIND, at their expected sizes."""
        return {f"{part}.{kind}": size**2 for part, _ in self.basis.parts for kind, _, _, size, _ in self.family.kinds}

    def _members(self, part: slice, first: int, last: int) -> Codes:
        """Places in x of a part's weights in columns first to last - 1."""
        return (np.arange(first, last)[:, None] * self.P + np.arange(part.start, part.stop)).ravel()

    def precision(self, strengths: dict[str, float]) -> Array:
        """(size,)"""
        out = np.full(self.size, 1 / _FLIP_PRIOR[1] ** 2)
        for part, columns in self.basis.parts:
            for kind, first, last, *_ in self.family.kinds:
                out[self._members(columns, first, last)] = 1 / strengths[f"{part}.{kind}"]
        return out

    def updated(self, x: Array, variance: Array, strengths: dict[str, float]) -> dict[str, float]:
        moved = {}
        for part, columns in self.basis.parts:
            for kind, first, last, size, largest in self.family.kinds:
                members, name = self._members(columns, first, last), f"{part}.{kind}"
                decided = max(len(members) - float(variance[members].sum()) / strengths[name], 0.0)
                moved[name] = min((float((x[members] ** 2).sum()) + size**2) / (decided + 1.0), largest**2)
        return moved

    # ------------------------------------------------------------------ information

    def told(self, x: Array) -> _Told:
        import torch

        values = torch.from_numpy(np.ascontiguousarray(self.values(x)))
        E, n = len(self._wins), self.basis.n_responses
        # a row of its own for each side of each cell, so that derivatives stay apart
        shown = torch.cat([values[self._left], values[self._right]]).requires_grad_()
        odds = torch.full((E,), float(x[-1]), dtype=torch.float64, requires_grad=True) if self.estimate else None
        wins, loses = self._log_answers(shown, torch.arange(E), torch.arange(E, 2 * E), odds)
        slopes = [s.numpy() for s in torch.autograd.grad((wins - loses).sum(), [shown] if odds is None else [shown, odds])]
        size = np.sqrt(self.cells.total) * np.exp(0.5 * (wins + loses).detach().numpy())
        left, right = size[:, None] * slopes[0][:E], size[:, None] * slopes[0][E:]
        column = n * np.arange(self.c)
        where = np.hstack([self.cells.left[:, None] + column, self.cells.right[:, None] + column]).ravel()
        J = csr_array((np.hstack([left, right]).ravel(), where, 2 * self.c * np.arange(E + 1)), shape=(E, self.c * n))
        return _Told(left, right, size * slopes[1] if self.estimate else np.zeros(E), J)

    def state(self, x: Array, precision: Array, rng: np.random.Generator, *, n_draws: int) -> _State:
        told = self.told(x)
        alone = self.basis.matrix is None
        none = np.zeros((self.c, 0), dtype=np.int64), np.zeros((0, self.c, self.c))
        if self.size <= (DENSE // 2 if alone else DENSE):
            A = self._information(told)
            A[np.diag_indices(self.size)] += precision
            (trtri,) = get_lapack_funcs(("trtri",), (A,))
            inverse, _ = trtri(cholesky(A, lower=True, overwrite_a=True), lower=1, overwrite_c=1)
            return _State(inverse, np.ones(self.size), *none, (inverse**2).sum(0), None)
        scale, members, blocks = self._metric(told, precision)
        state = _State(None, scale, members, blocks, np.zeros(0), None)
        noise = np.sqrt(precision)[:, None] * rng.normal(size=(self.size, n_draws))
        # A^-1 (J' e + precision^1/2 h) has covariance A^-1
        drawn = _solve(
            lambda v: self._back_from_cells(told, self._to_cells(told, v)) + precision[:, None] * v,
            self._back_from_cells(told, rng.normal(size=(len(told.flips), n_draws))) + noise,
            state,
        )
        factor = drawn / np.sqrt(n_draws)
        return replace(state, variance=(factor**2).sum(1), draws=factor)

    def _information(self, told: _Told) -> Array:
        """J' J through the basis, dense (size, size)."""
        P, c, n = self.P, self.c, self.basis.n_responses
        A = np.zeros((self.size, self.size))
        met = (told.J.T @ told.J).tocsr()
        for a in range(c):
            for b in range(a, c):
                part = met[a * n : (a + 1) * n, b * n : (b + 1) * n].tocsr()
                image = self.basis.times_left(part)
                if self.family.centred:
                    image = image - np.outer(np.asarray(part.sum(1)), self.centre)
                    image -= image.mean(0)
                block = np.asarray(self.basis.transpose_times(image))
                A[a * P : (a + 1) * P, b * P : (b + 1) * P] = block
                A[b * P : (b + 1) * P, a * P : (a + 1) * P] = block.T
        if self.estimate:
            A[-1, :-1] = A[:-1, -1] = self._back(np.asarray(told.J.T @ told.flips).reshape(c, n).T)
            A[-1, -1] = told.flips @ told.flips
        return A

    def _metric(self, told: _Told, precision: Array) -> tuple[Array, Codes, Array]:
        """(size,) scale, (c, n) members and (n, c, c) blocks of a `_State`, centring apart."""
        c, n, E, matrix = self.c, self.basis.n_responses, len(told.flips), self.basis.matrix
        diagonal = precision.copy()
        if matrix is not None:
            for k in range(c):
                for start in range(0, E, 20_000):
                    placed = told.J[start : start + 20_000, k * n : (k + 1) * n] @ matrix
                    diagonal[k * self.P : k * self.P + matrix.shape[1]] += (placed**2).sum(0)
        if self.estimate:
            diagonal[-1] += told.flips @ told.flips
        members, blocks = np.zeros((c, 0), dtype=np.int64), np.zeros((0, c, c))
        if matrix is None or self.basis.residual is not None:
            members = np.arange(c)[:, None] * self.P + (0 if matrix is None else matrix.shape[1]) + np.arange(n)
            blocks = np.zeros((n, c * c))
            for side, codes in ((told.left, self.cells.left), (told.right, self.cells.right)):
                of = csr_array((np.ones(E), (codes, np.arange(E))), shape=(n, E))
                blocks += of @ (side[:, :, None] * side[:, None, :]).reshape(E, c * c)
            blocks = blocks.reshape(n, c, c) + precision[members].T[:, :, None] * np.eye(c)
            blocks = np.linalg.inv(np.linalg.cholesky(blocks)).astype(np.float64)
        return 1 / np.sqrt(diagonal), members, blocks

    def _to_cells(self, told: _Told, v: Array) -> Array:
        """(E, r) from (size, r)."""
        placed = [self.basis.times(v[k * self.P : (k + 1) * self.P]) for k in range(self.c)]
        if self.family.centred:
            placed = [column - column.mean(0) for column in placed]
        out = told.J @ np.concatenate(placed)
        return out + told.flips[:, None] * v[-1] if self.estimate else out

    def _back_from_cells(self, told: _Told, y: Array) -> Array:
        """(size, r) from (E, r)."""
        placed = np.split(told.J.T @ y, self.c)
        if self.family.centred:
            placed = [column - column.mean(0) for column in placed]
        parts = [np.asarray(self.basis.transpose_times(column)) for column in placed]
        return np.vstack([*parts, told.flips @ y] if self.estimate else parts)


def _solve(times: Callable[[Array], Array], b: Array, state: _State, *, tolerance: float = 1e-2, most: int = 200) -> Array:
    """Columns x of A x = b by conjugate gradients in the metric of `state`, each on its own, to a relative error of `tolerance`."""
    x, residual = np.zeros_like(b), b.copy()
    z = state.step(state.whiten(residual))
    direction, rz = z.copy(), (residual * z).sum(0)
    enough = tolerance**2 * rz
    for _ in range(most):
        live = rz > enough
        if not live.any():
            break
        image = times(direction)
        step = np.where(live, rz / np.maximum((direction * image).sum(0), 1e-300), 0.0)
        x += step * direction
        residual -= step * image
        z = state.step(state.whiten(residual))
        after = (residual * z).sum(0)
        direction = z + np.where(live, after / np.maximum(rz, 1e-300), 0.0) * direction
        rz = np.where(live, after, rz)
    return x


def _search(problem: _Problem, x: Array, precision: Array, state: _State, *, tolerance: float, max_iterations: int) -> tuple[Array, int]:
    """The mode from x, in coordinates in which the information at `state` is 1."""

    start = problem.objective(x, precision)[0]

    def objective(z: Array) -> tuple[float, Array]:
        value, gradient = problem.objective(x + state.step(z), precision)
        # what is left to gain is small beside the log likelihood of many judgments: the search would stop for that
        return value - start, state.whiten(gradient)

    options = {"maxiter": max(max_iterations, 1), "maxfun": 4 * max(max_iterations, 1), "gtol": tolerance, "ftol": 1e-15, "maxcor": 20}
    found: Any = minimize(objective, np.zeros(problem.size), jac=True, method="L-BFGS-B", options=options)
    return x + state.step(found.x), int(found.nit)


def _result(
    utility: Utility,
    problem: _Problem,
    x: Array,
    strengths: dict[str, float],
    state: _State,
    left_out: dict[str, int],
    flips: float | Array | str,
    largest: float,
    iterations: int,
    tolerance: float,
    rng: np.random.Generator,
) -> Distribution:
    P, c, cells = problem.P, problem.c, problem.cells
    if state.draws is not None:
        factor = state.draws
    elif problem.size <= _EXACT:
        factor = state.step(np.eye(problem.size))
    else:
        factor = state.step(rng.normal(size=(problem.size, _KEPT))) / np.sqrt(_KEPT)
    notes: list[str] = []
    if problem.basis.matrix is None:
        graph = coo_array((np.ones(len(cells.left)), (cells.left, cells.right)), shape=(P, P))
        judged = np.unique(np.concatenate([cells.left, cells.right]))
        parts = len(np.unique(connected_components(graph, directed=False)[1][judged]))
        if parts > 1:
            notes.append(f"the comparison graph is cut in {parts} parts; utilities are comparable within a part only")
    rate = rate_se = None
    if problem.estimate:
        rate = float(expit(x[-1]) / 2)
        rate_se = float(rate * (1 - 2 * rate) * np.sqrt((factor[-1] ** 2).sum()))
    elif np.ndim(flips) == 0:
        rate = float(flips)  # type: ignore[arg-type]  # not an array, nor a word
    decided = float(problem.size - (state.variance * problem.precision(strengths)).sum())
    return Distribution(
        family=problem.family,
        utility=utility.to_dict(),
        basis=problem.basis,
        weights=x[: c * P].reshape(c, P).copy(),
        factor=factor,
        centre=problem.centre,
        flips=rate,
        flips_se=rate_se,
        prior={name: float(np.sqrt(value)) for name, value in strengths.items()},
        n_judgments=float(cells.total.sum()),
        left_out=left_out,
        log_likelihood=problem.log_likelihood(x),
        largest_gradient=largest,
        iterations=iterations,
        converged=largest < tolerance,
        misfit=_misfit(problem, x, decided),
        notes=tuple(notes),
    )


def _misfit(problem: _Problem, x: Array, decided: float) -> Misfit | None:
    """Pearson's statistic over cells that were judged often enough, with its exact variance given the probabilities."""
    import torch

    values = torch.from_numpy(np.ascontiguousarray(problem.values(x)))
    odds = torch.tensor(x[-1], dtype=torch.float64) if problem.estimate else None
    with torch.no_grad():
        wins, loses = problem._log_answers(values, problem._left, problem._right, odds)
    p, q, n = np.exp(wins.numpy()), np.exp(loses.numpy()), problem.cells.total
    use = (n >= 5) & (n * p * q >= 1)
    if not use.any():
        return None
    p, q, n, won = p[use], q[use], n[use], problem.cells.wins[use]
    chi2 = float(((won - n * p) ** 2 / (n * p * q)).sum())
    # the weights that the data decide are spent on all cells; these have their share by information
    spent = decided * float((n * p * q).sum() / max((problem.cells.total * np.exp((wins + loses).numpy())).sum(), 1e-300))
    expected = max(len(n) - spent, 0.0)
    sd = float(np.sqrt((2 + (1 - 6 * p * q) / (n * p * q)).sum() * max(expected, 1.0) / len(n)))
    excess = (chi2 - expected) / sd
    return Misfit(chi2, int(use.sum()), excess, float(norm.sf(excess)))
