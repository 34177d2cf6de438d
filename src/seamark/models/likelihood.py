"""The one likelihood: log probability of all judgments, its gradient and curvature, raters integrated out.

Conventions
-----------
The parameters form one vector x = [values | shifts | shape]:

    values  w (k * P,): weights of the P columns of the basis, for each of the k values; V = X W, u = V Z'
    shifts  f (S,): position, leniencies of raters, ... (`effects`)
    shape   t (T,): the families' own parameters, block after block, then g of the scales, l of the lapses, the log odds of a lapse

For judgment j by rater r with slope b: contrast c_j = b exp(x_j g) (K U[shown]) + D_j f. A rater's slope is unknown, and so is the
latent level (persona, taste) whose row of Z weighs the values; both are integrated over nodes, L rows of Q slopes for each rater, and a
last row for judgments whose rater is not known (slope 1). So

    log L(x) = sum_r log sum_{l, q} exp(log_prior[rl, q] + sum_{j by r} count_j log p(y_j | c_j(b[rl, q], Z_l)))

Responses meet in *edges*: the distinct pairs (or single responses) of a group that some judgment is about. Judgments enter values
by their edge only, so every sum over judgments is a sum per edge first.

Curvature comes in two parts (Louis 1982): the expected curvature given the slopes (`Derivatives`, positive for all our families, the
matrix of a Newton step), less the variance of the score over the posterior of the slopes (`missing`), which the covariance needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_array, csr_array, eye_array, hstack, kron
from scipy.special import logsumexp

from seamark.models.design import Block, Design, columns_of_role
from seamark.models.edges import Edges, Laplacian, contrasts_of_many, edge_keys, incidence, numbered
from seamark.models.observation import Missing, Observation
from seamark.models.shifts import Shift, ShiftMatrix, block_diagonal, shift_matrix, shifts_of
from seamark.models.terms import Terms, diluted, log_prob, randomised, terms, with_lapse_covariates, with_scales
from seamark.models.utility import Basis, squared_rows

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_CHUNK = 32_000
"""Elements (nodes x cells) evaluated at once: the temporaries of a pass then stay in the processor's cache."""
_LIVE = 1e-9
"""A node of less posterior mass than this is left out until the nodes are looked at again."""
_COUNTED = 1e-5
"""A node of less posterior mass than this adds nothing that shows to a covariance."""
_WIDTHS = (1, 3, 5, 8)
"""Raters are packed by how many live nodes they have, up to one of these, else all."""
_WRITTEN_OUT = 5e7
"""Multiplications of a curvature up to which cells against parameters is one dense matrix: small fits then spend no time on sparsity."""


@dataclass(frozen=True)
class Nodes:
    """Where each rater's slope is evaluated."""

    slope: Array
    """(R L + 1, Q)"""
    log_prior: Array
    """(R L + 1, Q), log of prior mass; -inf switches a node off."""
    levels: int = 1
    """L, latent levels: the rows of a rater."""

    @staticmethod
    def fixed(n_raters: int) -> Nodes:
        """Every slope is 1."""
        return Nodes(np.ones((n_raters + 1, 1)), np.zeros((n_raters + 1, 1)))

    def posterior(self, joint: Array) -> tuple[Array, Array]:
        """(log marginal likelihood of each rater (R + 1,), posterior over the rater's nodes, of the shape of `joint`)."""
        R = (len(joint) - 1) // self.levels
        known = joint[:-1].reshape(R, self.levels * joint.shape[1])
        marginal = np.append(np.asarray(logsumexp(known, axis=1)), np.asarray(logsumexp(joint[-1])))
        each = np.append(np.repeat(marginal[:-1], self.levels), marginal[-1])
        return marginal, np.exp(joint - each[:, None])


@dataclass(frozen=True)
class Cells:
    """A block, sorted by rater, with its place in the parameters."""

    block: Block
    K: Array
    """(d, m)"""
    group: Codes
    shape: slice
    """Where the family's parameters sit in t."""
    edge: Codes
    """(n,) where d is 1: the edge that the cell is about."""
    sign: Array
    """(n,) 1 where the contrast is that of the edge, -1 where it is turned round."""
    D: ShiftMatrix
    """(n * d, S) contrast per unit of each shift."""
    scale: Array | None
    """(n, C) what the logarithm of the scale is linear in, or None."""
    haste: Array | None
    """(n, C) what the log odds of a lapse are linear in, or None."""
    to_sites: csr_array | None = None
    """(n * d, G n_responses) where d > 1: contrast per unit of utility."""

    @property
    def scalar(self) -> bool:
        return len(self.K) == 1

    @cached_property
    def private(self) -> bool:
        """Whether some of the answers were replaced at random, at a known rate."""
        return bool(self.block.replaced.any())

    @property
    def lapses(self) -> bool:
        """Whether an answer may be a random click; that there is none cannot."""
        return not isinstance(self.block.family, Missing)


@dataclass(frozen=True)
class _Pack:
    """Raters with about equally many live nodes, side by side, and where their cells are."""

    raters: Codes
    columns: Codes
    """(a, m) nodes"""
    slope: Array
    """(a, m)"""
    rows: list[Codes | slice]
    """Per block, the cells of these raters."""
    local: list[Codes]
    """Per block, the column of `slope` of each of these cells, ascending."""
    plain: bool = False
    """Whether everyone has one node, with a slope of 1."""


@dataclass
class Moments:
    """Per cell, derivatives averaged over the rater's nodes, b being the slope; (n,) where the contrast has one dimension."""

    g1: Array
    """sum_q p count b dlogp/dc"""
    g0: Array
    """the same without b"""
    h2: Array
    """-sum_q p count b^2 d2logp/dc2"""
    h1: Array
    h0: Array
    cross1: Array
    """(n, [d,] T_b) -sum_q p count b d2logp/dc dt"""
    cross0: Array


@dataclass
class Derivatives:
    """Gradient of the log likelihood, and its expected curvature given the slopes as an arrow: values, border, corner."""

    gradient: Array
    """(size,)"""
    values: Any
    """(k P, k P): sparse for the identity basis, else dense."""
    border: Any
    """(k P, S + T): values against shifts and shape; sparse for the identity basis, else dense."""
    corner: csr_array
    """(S + T, S + T)"""
    by_edge: Array
    """(E,) curvature along each edge"""
    many: list[tuple[Cells, Moments]]
    """Blocks with contrasts of several dimensions, whose curvature is not along edges."""

    def whole(self) -> Array:
        """(size, size) dense."""
        border = _dense(self.border)
        return np.block([[_dense(self.values), border], [border.T, self.corner.toarray()]])


@dataclass
class Likelihood:
    """The log likelihood of a design under a basis and an observation."""

    design: Design
    basis: Basis
    observation: Observation
    cells: list[Cells] = field(init=False)
    edges: Edges = field(init=False)
    parts: tuple[Shift, ...] = field(init=False)
    """Runs of the shifts."""
    n_values: int = field(init=False)
    n_shifts: int = field(init=False)
    n_shape: int = field(init=False)

    def __post_init__(self) -> None:
        design, observation = self.design, self.observation
        self.parts = shifts_of(design, observation)
        self.n_values = self.basis.n_columns * design.loadings.shape[1]
        self.n_shifts = self.parts[-1].stop if self.parts else 0
        sizes = [b.family.size for b in design.blocks]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self._n_scales = sum(c.width for c in design.covariates if c.role == "scale")
        self._n_hastes = sum(c.width for c in design.covariates if c.role == "lapse") if observation.lapse else 0
        self._first_scale = sum(sizes)
        self.n_shape = sum(sizes) + self._n_scales + self._n_hastes + int(observation.lapse)
        blocks = [_by_rater(b) for b in design.blocks]
        keys = [edge_keys(b, design) for b in blocks]
        known_keys, inverse = numbered(np.concatenate([k for k, _ in keys]))
        n, G = design.n_responses, design.n_groups
        group, pair = np.divmod(known_keys, (n + 1) * n)
        right, left = np.divmod(pair, n)  # a single response has right = n in place of none
        self.edges = Edges(left, np.where(right == n, -1, right), group)
        self.cells, seen = [], 0
        for i, (block, (key, sign)) in enumerate(zip(blocks, keys, strict=True)):
            K = block.family.contrast(block.shown.shape[1])
            edge = inverse[seen : seen + len(key)]
            seen += len(key)
            to_sites = None if len(K) == 1 else contrasts_of_many(block, K, n, G)
            shape = slice(int(starts[i]), int(starts[i + 1]))
            D = shift_matrix(block, K, self.parts, design, block.rater, design.n_raters)
            answered = not isinstance(block.family, Missing)
            scale = columns_of_role(block, design, "scale") if self._n_scales and answered else None
            haste = columns_of_role(block, design, "lapse") if self._n_hastes and answered else None
            self.cells.append(Cells(block, K, block.group, shape, edge, sign, D, scale, haste, to_sites))
        Z = design.loadings
        self._ends = self.edges.sites(n)
        self._incidence = incidence(*self._ends, G * n)
        self._incidence_t = csr_array(self._incidence.T)
        self._spread = None if Z.shape == (1, 1) and Z[0, 0] == 1 else csr_array(kron(csr_array(Z), eye_array(n)))
        self._laplacian = Laplacian(*self._ends, G * n)
        self._packed: list[_Pack] | None = None
        self._last_contrasts: tuple[Array, list[tuple[Array, Array]]] | None = None
        self._last_joint: tuple[Array, Array, Array] | None = None
        cells, columns = sum(len(b.group) * len(c.K) for b, c in zip(blocks, self.cells, strict=True)), self.n_values + self.n_shifts
        small = cells * columns**2 <= _WRITTEN_OUT and G * n * self.n_values <= _WRITTEN_OUT
        self._rows = self._write_out() if small else None

    def weighed(self, counts: list[Array]) -> Likelihood:
        """The same cells counted otherwise, (n,) per block."""
        other = copy(self)
        other.cells = [replace(c, block=replace(c.block, count=count)) for c, count in zip(self.cells, counts, strict=True)]
        other._last_joint = None
        return other

    def thinned(self, step: int) -> Likelihood:
        """The same of every so many cells of a block, each counting so many times: about the same mode, where cells are many."""
        blocks: list[Block] = []
        for c in self.cells:
            parts = {f.name: getattr(c.block, f.name)[::step] for f in fields(Block) if f.name not in ("name", "family")}
            blocks.append(replace(c.block, **parts | {"count": parts["count"] * step}))
        return Likelihood(replace(self.design, blocks=tuple(blocks)), self.basis, self.observation)

    @property
    def size(self) -> int:
        return self.n_values + self.n_shifts + self.n_shape

    @property
    def free(self) -> NDArray[np.bool_]:
        """(size,) parameters that are estimated; a group's residuals stay 0, since groups differ in features only."""
        free = np.ones(self.size, dtype=bool)
        if self.basis.residual is not None:
            for a in range(1, self.design.loadings.shape[1]):
                free[a * self.basis.n_columns + np.arange(self.basis.n_columns)[self.basis.residual]] = False
        return free

    @property
    def values(self) -> slice:
        return slice(0, self.n_values)

    @property
    def shifts(self) -> slice:
        return slice(self.n_values, self.n_values + self.n_shifts)

    @property
    def shape(self) -> slice:
        return slice(self.n_values + self.n_shifts, self.size)

    def part(self, name: str) -> slice | None:
        """Where in x a run of shifts stands; None if there is none of this name."""
        for s in self.parts:
            if s.name == name:
                return slice(self.n_values + s.start, self.n_values + s.stop)
        return None

    @property
    def of_many(self) -> NDArray[np.bool_]:
        """(S,) shifts of which there is one per rater or prompt."""
        out = np.zeros(self.n_shifts, dtype=bool)
        for s in self.parts:
            out[s.start : s.stop] = s.of_many
        return out

    @property
    def loose(self) -> NDArray[np.bool_]:
        """(S,) shifts of raters that hardly move with the values, being about where or how a pair was shown, not about its worth."""
        out = self.of_many
        for s in self.parts:
            if s.name.startswith("leniency"):
                out[s.start : s.stop] = False
        return out

    @property
    def circumstances(self) -> list[tuple[str, int]]:
        """(name, index in x) of the parameters of scales and hastes."""
        names = [f"{role}: {name}" for role in ("scale", "lapse") for c in self.design.covariates if c.role == role for name in c.names]
        start = self.shape.start + self._first_scale
        return list(zip(names[: self._n_scales + self._n_hastes], range(start, start + self._n_scales + self._n_hastes), strict=True))

    @property
    def nuisance(self) -> Codes:
        """Where in x the few parameters stand that multiply or dilute the values, or lead to no answer: scales, lapses, `Missing`."""
        silent = [self.shape.start + np.arange(c.shape.start, c.shape.stop) for c in self.cells if isinstance(c.block.family, Missing)]
        return np.concatenate([*silent, np.arange(self.shape.start + self._first_scale, self.size)]).astype(np.int64)

    def shape_start(self) -> Array:
        """Start, and centre of the weak prior, of t. A lapse starts at 2%: Wichmann & Hill 2001 find 0-5% usual."""
        parts = [b.family.start() for b in self.design.blocks]
        return np.concatenate([*parts, np.zeros(self._n_scales + self._n_hastes), [-4.0] if self.observation.lapse else []])

    def _shape_of(self, c: Cells) -> list[int]:
        """Where in t the parameters of a block's terms stand."""
        scales = range(self._first_scale, self._first_scale + self._n_scales) if c.scale is not None else ()
        hastes = range(self._first_scale + self._n_scales, self.n_shape - 1) if c.haste is not None else ()
        return [*range(c.shape.start, c.shape.stop), *scales, *hastes, *([self.n_shape - 1] if self.observation.lapse and c.lapses else [])]

    # ------------------------------------------------------------------ evaluation

    def _at_sites(self, weights: Any) -> Any:
        """(G n, B) utilities of responses as groups see them, group after group, from weights (k P, B)."""
        P = self.basis.n_columns
        if self.basis.matrix is not None:
            weights = np.vstack([self.basis.times(weights[a : a + P]) for a in range(0, self.n_values, P)])
        return weights if self._spread is None else self._spread @ weights

    def _from_sites(self, at_sites: Array) -> Array:
        """(k P, B) from (G n, B), the transpose of `_at_sites`."""
        n = self.design.n_responses
        values = at_sites if self._spread is None else self._spread.T @ at_sites
        if self.basis.matrix is None:
            return values
        return np.vstack([self.basis.transpose_times(values[a : a + n]) for a in range(0, len(values), n)])

    def _write_out(self) -> list[Array]:
        """Per block, (n d, k P + S) contrast per unit of values and of shifts."""
        sites = np.kron(self.design.loadings, self.basis.times(np.eye(self.basis.n_columns)))
        out = []
        for c in self.cells:
            gaps = self._incidence[c.edge] * c.sign[:, None] if c.to_sites is None else c.to_sites
            out.append(np.hstack([gaps @ sites, c.D.times(np.eye(self.n_shifts))]))
        return out

    def utilities(self, x: Array) -> Array:
        """(n_responses, n_groups) utility of each response for each group, in logits."""
        return self._at_sites(x[self.values][:, None]).reshape(self.design.n_groups, -1).T

    def _scales(self, x: Array) -> list[Array | None]:
        """Per block, (n,) what the gap counts times, or None where that is 1."""
        g = x[self.shape][self._first_scale : self._first_scale + self._n_scales]
        return [None if c.scale is None else np.exp(c.scale @ g) for c in self.cells]

    def _contrasts(self, x: Array) -> list[tuple[Array, Array]]:
        """Per block, the part that slopes scale and the part that they do not: (n,), or (n, d) where d > 1.

        Those of the last x are kept: a step asks for them several times.
        """
        if self._last_contrasts is None or not np.array_equal(self._last_contrasts[0], x):
            self._last_contrasts = (x.copy(), self._new_contrasts(x))
        return self._last_contrasts[1]

    def _new_contrasts(self, x: Array) -> list[tuple[Array, Array]]:
        f, scales = x[self.shifts], self._scales(x)
        out = []
        u = np.append(self._at_sites(x[self.values][:, None])[:, 0] if self._rows is None else [], 0.0)
        gap = u[self._ends[0]] - u[self._ends[1]] if self._rows is None else u
        for number, (c, scale) in enumerate(zip(self.cells, scales, strict=True)):
            if self._rows is not None:
                scaled, shift = self._rows[number][:, : self.n_values] @ x[self.values], self._rows[number][:, self.n_values :] @ f
            else:
                scaled = c.sign * gap[c.edge] if c.to_sites is None else c.to_sites @ u[:-1]
                shift = c.D.times(f) if self.n_shifts else np.zeros(len(scaled))
            if not c.scalar:
                scaled, shift = scaled.reshape(-1, len(c.K)), shift.reshape(-1, len(c.K))
            if scale is not None:
                scaled = scaled * (scale if c.scalar else scale[:, None])
            out.append((scaled, shift))
        return out

    def _packs(self, nodes: Nodes, posterior: Array | None) -> list[_Pack]:
        """Raters by how many of their nodes are live; all nodes that the prior allows, where no posterior is given."""
        R, Q = nodes.slope.shape
        if Q == 1 and nodes.levels == 1 and (nodes.slope == 1).all():
            if self._packed is None:
                rows: list[Codes | slice] = [slice(None)] * len(self.cells)
                whole = _Pack(np.arange(R), np.zeros((1, R), dtype=np.int64), nodes.slope.T, rows, [c.block.who for c in self.cells], True)
                self._packed = [whole]
            return self._packed
        live = np.isfinite(nodes.log_prior) if posterior is None else posterior > _LIVE
        counts = live.sum(1)
        widths = [w for w in _WIDTHS if w < Q] + [Q]
        class_of = np.searchsorted(widths, np.maximum(counts, 1))
        order = np.argsort(~live, axis=1, kind="stable")
        packs = []
        for number, width in enumerate(widths):
            raters = np.flatnonzero(class_of == number)
            if not len(raters):
                continue
            columns = order[raters, :width].T
            index = np.full(R, -1)
            index[raters] = np.arange(len(raters))
            rows = [slice(None) if len(raters) == R else np.flatnonzero(class_of[c.block.who] == number) for c in self.cells]
            local = [index[c.block.who[r]] for c, r in zip(self.cells, rows, strict=True)]
            packs.append(_Pack(raters, columns, nodes.slope[raters, columns], rows, local))
        return packs

    def _pieces(self, pack: _Pack, number: int, contrast: tuple[Array, Array]) -> Iterator[tuple[Any, Codes, Array]]:
        """Pieces of a pack's cells in a block: (rows of the block, columns of the pack's slopes, contrasts (a, n[, d]))."""
        c, local, rows = self.cells[number], pack.local[number], pack.rows[number]
        scaled, shift = contrast
        step = max(1, _CHUNK // (len(pack.slope) * len(c.K)))
        if pack.plain:
            for start in range(0, len(local), step):
                part = slice(start, start + step)
                yield part, local[part], (scaled[part] + shift[part] if self.n_shifts else scaled[part])[None]
            return
        for start in range(0, len(local), step):
            mine = local[start : start + step]
            part = slice(start, start + len(mine)) if isinstance(rows, slice) else rows[start : start + step]
            z = pack.slope[:, mine] if c.scalar else pack.slope[:, mine, None]
            z = z * scaled[part]
            if self.n_shifts:
                z += shift[part]
            yield part, mine, z

    def rater_log_likelihood(self, x: Array, nodes: Nodes, posterior: Array | None = None) -> Array:
        """(R + 1, Q) log likelihood of each rater's judgments at each node.

        Given a posterior, nodes that carry nothing of it are -inf without being looked at.
        """
        if posterior is None and self._last_joint is not None:
            last_x, last_slope, joint = self._last_joint
            if last_slope is nodes.slope and np.array_equal(last_x, x):
                return joint.copy()
        out = np.full(nodes.slope.shape, -np.inf)
        contrasts = self._contrasts(x)
        for pack in self._packs(nodes, posterior):
            total = np.zeros_like(pack.slope)
            for number, c in enumerate(self.cells):
                for part, mine, z in self._pieces(pack, number, contrasts[number]):
                    lp = self._log_prob(c, z, part, x)
                    lp *= c.block.count[part]
                    _add_runs(total, mine, lp)
            out[pack.raters, pack.columns] = total
        if posterior is None:
            self._last_joint = (x.copy(), nodes.slope, out.copy())
        return out

    def _lapse_odds(self, c: Cells, rows: Any, t: Array) -> float | Array | None:
        """Log odds of a lapse: one number, or (n,) where they move with the circumstances."""
        if not self.observation.lapse or not c.lapses:
            return None
        if c.haste is None:
            return float(t[-1])
        return t[-1] + c.haste[rows] @ t[self._first_scale + self._n_scales : -1]

    def _log_prob(self, c: Cells, z: Array, rows: Any, x: Array) -> Array:
        t = x[self.shape]
        found = log_prob(c.block.family, z, c.block.outcome[rows], t[c.shape], self._lapse_odds(c, rows, t))
        return diluted(found, c.block.family.n_outcomes, c.block.replaced[rows]) if c.private else found

    def _terms(self, c: Cells, z: Array, rows: Any, x: Array, shift: Array) -> Terms:
        """Derivatives by the contrast z and by the parameters of `_shape_of`; `shift` (n[, d]) is the part of z that is not scaled."""
        t = x[self.shape]
        found = self._plain_terms(c, z, rows, t)
        if c.scale is not None:
            size = c.shape.stop - c.shape.start
            found = with_scales(found, z - shift[rows], c.scale[rows], slice(size, size))
        return found if c.haste is None else with_lapse_covariates(found, c.haste[rows])

    def _plain_terms(self, c: Cells, z: Array, rows: Any, t: Array) -> Terms:
        """Derivatives by the contrast z, the family's own parameters and the log odds of a lapse."""
        found = terms(c.block.family, z, c.block.outcome[rows], t[c.shape], self._lapse_odds(c, rows, t))
        return randomised(found, c.block.family.n_outcomes, c.block.replaced[rows]) if c.private else found

    # ------------------------------------------------------------------ many parameter vectors at once

    def edge_gaps(self, x: Array) -> Array:
        """(E, B) gap along each edge under each of B parameter vectors (size, B)."""
        return self._incidence @ self._at_sites(x[self.values])

    def edge_sums(self, by_edge: Array) -> Array:
        """(n_values, B): what (E, B) along the edges adds up to for the values, the transpose of `edge_gaps`."""
        return self._from_sites(self._incidence_t @ by_edge)

    def scores(self, c: Cells, z: Array, x: Array) -> tuple[Array, Array]:
        """(B, n) derivative of log p by the contrast z (B, n), and (n_shape, B, n) by the shape, under B parameter vectors (size, B)."""
        t, mine = x[self.shape], self._shape_of(c)
        shape = np.zeros((self.n_shape, *z.shape))
        if not mine:
            return self._plain_terms(c, z, slice(None), t[:, 0]).first, shape
        first = np.empty_like(z)
        for b in range(len(z)):
            found = self._plain_terms(c, z[b : b + 1], slice(None), t[:, b])
            first[b], shape[mine, b] = found.first[0], found.first_t[:, 0]
        return first, shape

    # ------------------------------------------------------------------ uncertainty

    def edge_variances(self, factor: Any) -> Array:
        """(E,) posterior variance of the gap of each edge, from a factor (n_values, r) of the values' covariance."""
        P = self.basis.n_columns
        if self.basis.matrix is not None:
            factor = np.vstack([self.basis.times(factor[a : a + P]) for a in range(0, self.n_values, P)])
        gaps = self._incidence if self._spread is None else csr_array(self._incidence @ self._spread)
        out = np.empty(len(self.edges.left))
        step = max(1, 4_000_000 // max(factor.shape[1], 1))
        for start in range(0, len(out), step):
            out[start : start + step] = squared_rows(gaps[start : start + step] @ factor)
        return out

    def edge_products(self, one: Array, two: Array) -> Array:
        """(E,) mean over columns of the products of the gaps that two matrices (n_values, r) have along each edge."""
        return ((self._incidence @ self._at_sites(one)) * (self._incidence @ self._at_sites(two))).mean(1)

    def uncertainty_offset(self, x: Array, nodes: Nodes, variance: Array, posterior: Array | None = None) -> Array:
        """(R + 1, Q): what a rater's expected log likelihood loses, at each node, to the utilities not being known exactly.

        E_u[log p(y | b u)] - log p(y | b E[u]) with u Gaussian of the given variance per edge, by 3 Gauss-Hermite nodes. Without it
        the mode of a product of values and slopes drifts: values shrink without end and slopes grow (mean-field in place of joint
        MAP; Bishop 2006, 10.1). Contrasts of more than one dimension are left as they are. 0 at nodes that are not live.
        """
        known = self.rater_log_likelihood(x, nodes)
        out = np.zeros(nodes.slope.shape)
        contrasts = self._contrasts(x)
        sd = np.sqrt(3 * variance)  # the outer nodes lie at sqrt(3) sd with weight 1/6 each, the middle one is `known`
        scales = self._scales(x)
        for pack in self._packs(nodes, posterior):
            total, covered = np.zeros_like(pack.slope), np.zeros_like(pack.slope)
            for number, c in enumerate(self.cells):
                for part, mine, z in self._pieces(pack, number, contrasts[number]):
                    if not c.scalar:
                        _add_runs(covered, mine, self._log_prob(c, z, part, x) * c.block.count[part])
                        continue
                    scale = scales[number]
                    spread = pack.slope[:, mine] * sd[c.edge[part]]
                    if scale is not None:
                        spread *= scale[part]
                    around = self._log_prob(c, z + spread, part, x)
                    around += self._log_prob(c, z - spread, part, x)
                    around *= c.block.count[part]
                    _add_runs(total, mine, around)
            here = known[pack.raters, pack.columns]
            # a pack holds some nodes that the prior has switched off
            out[pack.raters, pack.columns] = np.where(np.isfinite(here), total - 2 * (here - covered), 0.0) / 6
        return out

    def _moments(self, x: Array, nodes: Nodes, posterior: Array) -> tuple[list[Moments], Array, Array]:
        """Per block moments; gradient (T,) and curvature (T, T) of the shape parameters."""
        gradient_t, hessian_t = np.zeros(self.n_shape), np.zeros((self.n_shape, self.n_shape))
        contrasts, scales = self._contrasts(x), self._scales(x)
        packs = self._packs(nodes, posterior)
        joint = np.zeros((1, len(nodes.slope)))
        out: list[Moments] = []
        for number, c in enumerate(self.cells):
            n, T = len(c.block.rater), len(self._shape_of(c))
            d = () if c.scalar else (len(c.K),)
            m = Moments(
                *(np.empty((n, *d)) for _ in range(2)),
                *(np.empty((n, *d, *d)) for _ in range(3)),
                *(np.empty((n, *d, T)) for _ in range(2)),
            )
            weigh = _weigh if packs[0].plain else _average
            mine = self._shape_of(c)
            for pack in packs:
                mass = posterior[pack.raters, pack.columns]
                for part, local, z in self._pieces(pack, number, contrasts[number]):
                    weight = c.block.count[None, part] if pack.plain else mass[:, local] * c.block.count[part]
                    term = self._terms(c, z, part, x, contrasts[number][1])
                    weigh(m, part, pack.slope[:, local], weight, term)
                    if pack.plain:
                        _add_runs(joint, local, term.log_prob * weight)
                    if T:
                        gradient_t[mine] += term.first_t.reshape(T, -1) @ weight.ravel()
                        hessian_t[np.ix_(mine, mine)] -= term.second_t(weight)
            if packs[0].plain:
                m.g1, m.h1, m.h2, m.cross1 = m.g0, m.h0, m.h0, m.cross0
            if (scale := scales[number]) is not None:
                scale = scale.reshape(-1, *(1 for _ in d))
                square = scale[..., None] if d else scale
                m.g1, m.h1, m.h2, m.cross1 = m.g1 * scale, m.h1 * square, m.h2 * square**2, m.cross1 * scale[..., None]
            out.append(m)
        if packs[0].plain:
            self._last_joint = (x.copy(), nodes.slope, joint.T)
        return out, gradient_t, hessian_t

    def derivatives(self, x: Array, nodes: Nodes, posterior: Array, *, stale: Derivatives | None = None) -> Derivatives:
        """Gradient of log L and the expected curvature, given the posterior of the slopes at x.

        With features the curvature of the values costs more than all the rest: `stale` lends that of an earlier point.
        """
        moments, gradient_t, hessian_t = self._moments(x, nodes, posterior)
        S, T, E = self.n_shifts, self.n_shape, len(self.edges.left)
        curve_e = np.zeros(E)
        for c, m in zip(self.cells, moments, strict=True):
            if c.scalar:
                curve_e += np.bincount(c.edge, weights=m.h2, minlength=E)
        if self._rows is not None:
            return self._dense_derivatives(moments, gradient_t, hessian_t, curve_e)
        slope_e, shape_e, shifted_e = np.zeros(E), np.zeros((E, T)), csr_array((E, S))
        many: list[tuple[Cells, Moments]] = []
        for c, m in zip(self.cells, moments, strict=True):
            if not c.scalar:
                many.append((c, m))
                continue
            slope_e += np.bincount(c.edge, weights=c.sign * m.g1, minlength=E)
            for t, index in enumerate(self._shape_of(c)):
                shape_e[:, index] += np.bincount(c.edge, weights=c.sign * m.cross1[:, t], minlength=E)
            if not c.D.empty:
                shifted_e = shifted_e + c.D.summed(c.sign * m.h1, c.edge, E)
        D = self._incidence_t
        at_sites, laplacian, to_shape = D @ slope_e, self._laplacian(curve_e), D @ shape_e
        to_shifts = csr_array(D @ shifted_e) if S else csr_array((len(at_sites), 0))
        for c, m in many:  # contrasts of several dimensions are not along edges
            J = c.to_sites
            assert J is not None
            at_sites += J.T @ m.g1.ravel()
            laplacian = csr_array(laplacian + J.T @ block_diagonal(m.h2) @ J)
            to_shape[:, self._shape_of(c)] += J.T @ m.cross1.reshape(len(m.g1) * len(c.K), -1)
            if not c.D.empty:
                to_shifts = csr_array(to_shifts + c.D.after(csr_array(J.T @ block_diagonal(m.h1))))
        beside, corner = self._beside(moments, gradient_t, hessian_t)
        gradient = np.concatenate([self._from_sites(at_sites[:, None])[:, 0], beside])
        values, border = (stale.values, stale.border) if stale else self._through_basis(laplacian, to_shifts, to_shape)
        return Derivatives(gradient, values, border, corner, curve_e, many)

    def _beside(self, moments: list[Moments], gradient_t: Array, hessian_t: Array) -> tuple[Array, csr_array]:
        """(S + T,) gradient and (S + T, S + T) curvature of shifts and shape."""
        S, T = self.n_shifts, self.n_shape
        gradient_f, f_t, f_f = np.zeros(S), np.zeros((S, T)), csr_array((S, S))
        for c, m in zip(self.cells, moments, strict=True):
            mine = self._shape_of(c)
            if S:
                gradient_f += c.D.transpose_times(m.g0.ravel())
                if mine:
                    f_t[:, mine] += c.D.transpose_times(m.cross0.reshape(len(c.group) * len(c.K), -1))
                f_f = f_f + c.D.gram(m.h0)
        corner = block_array([[f_f, csr_array(f_t)], [csr_array(f_t.T), csr_array(hessian_t)]]) if S and T else f_f if S else hessian_t
        return np.concatenate([gradient_f, gradient_t]), csr_array(corner)

    def beside_values(self, x: Array, nodes: Nodes, posterior: Array) -> tuple[Array, csr_array]:
        """(S + T,) gradient of log L and (S + T, S + T) expected curvature of all but the values, given the posterior of the slopes at x."""
        return self._beside(*self._moments(x, nodes, posterior))

    def _dense_derivatives(self, moments: list[Moments], gradient_t: Array, hessian_t: Array, by_edge: Array) -> Derivatives:
        """The same by the cells' rows, written out."""
        assert self._rows is not None
        n, S, T = self.n_values, self.n_shifts, self.n_shape
        gradient, whole = np.concatenate([np.zeros(n + S), gradient_t]), np.zeros((n + S + T, n + S + T))
        whole[n + S :, n + S :] = hessian_t
        for c, m, rows in zip(self.cells, moments, self._rows, strict=True):
            V, F = rows[:, :n], rows[:, n:]
            mine = [n + S + i for i in self._shape_of(c)]
            gradient[:n] += V.T @ m.g1.ravel()
            gradient[n : n + S] += F.T @ m.g0.ravel()
            whole[:n, :n] += V.T @ _curved(m.h2, V)
            if S:
                bent = _curved(m.h1, F)
                whole[:n, n : n + S] += V.T @ bent
                whole[n : n + S, n : n + S] += F.T @ (bent if m.h0 is m.h1 else _curved(m.h0, F))
            if mine:
                whole[:n, mine] += V.T @ m.cross1.reshape(len(V), -1)
                whole[n : n + S, mine] += F.T @ m.cross0.reshape(len(F), -1)
        corner = whole[n:, n:]
        corner[S:, :S] = corner[:S, S:].T
        return Derivatives(gradient, whole[:n, :n], whole[:n, n:], csr_array(corner), by_edge, [])

    def _through_basis(self, laplacian: csr_array, to_shifts: csr_array, to_shape: Array) -> tuple[Any, Any]:
        """Curvature of the values and its border, from the sums per site."""
        Z, basis, n = self.design.loadings, self.basis, self.design.n_responses
        G, k = Z.shape
        P = basis.n_columns
        if basis.matrix is None:
            side = hstack([to_shifts, csr_array(to_shape)]).tocsr()
            if self._spread is None:
                return laplacian, side
            return csr_array(self._spread.T @ laplacian @ self._spread), csr_array(self._spread.T @ side)
        values, border = np.zeros((k * P, k * P)), np.zeros((k * P, self.size - k * P))
        for g in range(G):
            here = slice(g * n, (g + 1) * n)
            curvature = basis.gram(csr_array(laplacian[here, here]))
            side = basis.transpose_times(np.hstack([to_shifts[here].toarray(), to_shape[here]]))
            for a in np.flatnonzero(Z[g]):
                rows = slice(a * P, (a + 1) * P)
                border[rows] += Z[g, a] * side
                for b in np.flatnonzero(Z[g]):
                    values[rows, b * P : (b + 1) * P] += Z[g, a] * Z[g, b] * curvature
        return values, border

    def edge_curvature(self, x: Array, nodes: Nodes, posterior: Array) -> Array:
        """(E,) curvature along each edge, the posterior of the slopes being given; contrasts of several dimensions are left out."""
        out = np.zeros(len(self.edges.left))
        contrasts, scales = self._contrasts(x), self._scales(x)
        packs = self._packs(nodes, posterior)
        for number, c in enumerate(self.cells):
            if not c.scalar:
                continue
            curve = np.empty(len(c.edge))
            for pack in packs:
                mass = posterior[pack.raters, pack.columns] * pack.slope**2
                for part, local, z in self._pieces(pack, number, contrasts[number]):
                    second = self._terms(c, z, part, x, contrasts[number][1]).second
                    curve[part] = np.einsum("an,an->n", mass[:, local], second) * c.block.count[part]
            if (scale := scales[number]) is not None:
                curve *= scale**2
            out -= np.bincount(c.edge, weights=curve, minlength=len(out))
        return out

    def root(self, d: Derivatives) -> csr_array:
        """B (n_values, .) with B B' the curvature of the values, for the identity basis."""
        h = np.sqrt(np.maximum(d.by_edge, 0))
        D = self._incidence_t
        parts = [csr_array((D.data * h[D.indices], D.indices, D.indptr), shape=D.shape)]
        for c, m in d.many:
            assert c.to_sites is not None
            curve, axes = np.linalg.eigh((m.h2 + m.h2.transpose(0, 2, 1)) / 2)
            half = block_diagonal(axes * np.sqrt(np.maximum(curve, 0))[:, None, :])
            parts.append(csr_array(c.to_sites.T @ half))
        sites = csr_array(hstack(parts)) if len(parts) > 1 else parts[0]
        return sites if self._spread is None else csr_array(self._spread.T @ sites)

    # ------------------------------------------------------------------ scores per rater

    def cell_log_likelihood(self, x: Array, nodes: Nodes, posterior: Array) -> list[Array]:
        """Per block, (n,) log probability of one judgment of each cell, averaged over a posterior of the slopes."""
        contrasts = self._contrasts(x)
        out = [np.zeros(len(c.group)) for c in self.cells]
        for pack in self._packs(nodes, posterior):
            mass = posterior[pack.raters, pack.columns]
            for number, c in enumerate(self.cells):
                for part, mine, z in self._pieces(pack, number, contrasts[number]):
                    out[number][part] = (mass[:, mine] * self._log_prob(c, z, part, x)).sum(0)
        return out

    def slope_border(self, x: Array, nodes: Nodes, posterior: Array) -> tuple[csr_array, Array]:
        """(C, precision): how each rater's score moves with the rater's slope (size, R), and 1 / posterior variance of the slope (R,).

        The variance of the score over the posterior of the slopes is then close to C diag(1 / precision) C', for the identity
        basis: exactly, where scores are linear in the slope. Raters whose slope is known for certain have no column.
        """
        R = nodes.slope.shape[0] - 1
        mean = (posterior * nodes.slope).sum(1, keepdims=True)
        variance = (posterior * (nodes.slope - mean) ** 2).sum(1)[:R]
        use = np.flatnonzero(variance > 1e-10)
        number = np.full(R + 1, -1)
        number[use] = np.arange(len(use))
        # the slope of a regression of the score on the rater's slope
        tilt = posterior * (nodes.slope - mean)
        tilt[use] /= variance[use, None]
        summed = self._summed_scores(self._cell_scores(x, nodes, tilt), [number[c.block.who] for c in self.cells], len(use))
        return csr_array(summed.T), 1 / variance[use]

    def score_products(
        self, x: Array, nodes: Nodes, posterior: Array, cluster: Codes | None = None, *, clustered: bool = True
    ) -> tuple[Array, Array | None]:
        """(missing, meat): the information lost to not knowing the slopes, and, where it is asked for, the sum over clusters of outer
        products of scores.

        `cluster` (n_responses,) groups judgments by the prompt of their first response; None groups them by rater, the unknown
        ones by response.
        """
        rows, R = nodes.slope.shape[0] - 1, self.design.n_raters
        missing = np.zeros((self.size, self.size))
        mean = np.zeros((R, self.size))
        contrasts, scales = self._contrasts(x), self._scales(x)
        order = np.argsort(-posterior, axis=1, kind="stable")
        every = np.arange(rows + 1)
        for q in range(int((posterior > _COUNTED).sum(1).max()) if posterior.shape[1] * nodes.levels > 1 else 0):
            # the most probable node of every rater (and level), then the second, ...
            mass, slope = posterior[every, order[:, q]], nodes.slope[every, order[:, q]]
            raters = np.flatnonzero(mass[:rows] > _COUNTED)
            number = np.full(rows + 1, -1)
            number[raters] = np.arange(len(raters))
            gradients = []
            for c, (scaled, shift), scale in zip(self.cells, contrasts, scales, strict=True):
                b = slope[c.block.who] if c.scalar else slope[c.block.who, None]
                term = self._terms(c, (b * scaled + shift)[None], slice(None), x, shift)
                first = term.first[0] * (c.block.count if c.scalar else c.block.count[:, None])
                along = b * first if scale is None else b * first * (scale if c.scalar else scale[:, None])
                gradients.append((along, first, term.first_t[:, 0].T * c.block.count[:, None]))
            scores = _dense(self._summed_scores(gradients, [number[c.block.who] for c in self.cells], len(raters)))
            weighted = mass[raters, None] * scores
            missing += scores.T @ weighted
            np.add.at(mean, raters // nodes.levels, weighted)
        missing -= mean.T @ mean
        if not clustered:
            return missing, None
        meat = self.cluster_scores(x, nodes, posterior, cluster)
        return missing, _dense(meat.T @ meat)

    def cluster_scores(self, x: Array, nodes: Nodes, posterior: Array, cluster: Codes | None = None) -> Any:
        """(clusters, size) mean score of each cluster's judgments; sparse where the basis is the identity."""
        known = self.design.n_raters
        if cluster is None:
            codes = [np.where(c.block.rater < known, c.block.rater, known + c.block.shown[:, 0]) for c in self.cells]
            total = known + self.design.n_responses
        else:
            codes = [cluster[c.block.shown[:, 0]] for c in self.cells]
            total = int(cluster.max()) + 1
        return self._summed_scores(self._cell_scores(x, nodes, posterior), codes, total)

    def _cell_scores(self, x: Array, nodes: Nodes, weights: Array) -> list[tuple[Array, Array, Array]]:
        """Per block, each cell's gradient of log p, summed over nodes with these weights (R + 1, Q): by the contrast times the slope
        and by the contrast, (n,) or (n, d) each, and by its terms' shape parameters (n, T)."""
        contrasts, scales = self._contrasts(x), self._scales(x)
        packs = self._packs(nodes, np.abs(weights))
        out = []
        for number, c in enumerate(self.cells):
            n, d = len(c.block.rater), () if c.scalar else (len(c.K),)
            along, alone, shape = np.zeros((n, *d)), np.zeros((n, *d)), np.zeros((n, len(self._shape_of(c))))
            summed = "an,an->n" if c.scalar else "an,and->nd"
            for pack in packs:
                mass = weights[pack.raters, pack.columns]
                for part, local, z in self._pieces(pack, number, contrasts[number]):
                    weight = mass[:, local] * c.block.count[part]
                    term = self._terms(c, z, part, x, contrasts[number][1])
                    along[part] = np.einsum(summed, weight * pack.slope[:, local], term.first)
                    alone[part] = np.einsum(summed, weight, term.first)
                    shape[part] = np.einsum("an,tan->nt", weight, term.first_t)
            if (scale := scales[number]) is not None:
                along *= scale if c.scalar else scale[:, None]
            out.append((along, alone, shape))
        return out

    def _summed_scores(self, scores: list[tuple[Array, Array, Array]], codes: list[Codes], total: int) -> Any:
        """(total, size) scores summed over the cells of each code (below 0: left out); sparse where the basis is the identity."""
        S = self.n_shifts
        dense = self._rows is not None
        sites: Any = csr_array((total, self._incidence.shape[1]))  # type: ignore[index]  # scipy types the shape as optional
        values: Any = np.zeros((total, self.n_values)) if dense else 0.0
        shifts = csr_array((total, S))
        shapes = np.zeros((total, self.n_shape))
        for number, (c, (along, alone, shape), code) in enumerate(zip(self.cells, scores, codes, strict=True)):
            d = len(c.K)
            use = np.flatnonzero(code >= 0)
            every = (use[:, None] * d + np.arange(d)).ravel()
            row, n = np.repeat(code[use], d), len(code) * d
            if self._rows is not None:
                values += csr_array((along[use].ravel(), (row, every)), shape=(total, n)) @ self._rows[number][:, : self.n_values]
            elif c.to_sites is None:
                by_edge = csr_array(((c.sign * along)[use], (row, c.edge[use])), shape=(total, len(self.edges.left)))
                sites = sites + by_edge @ self._incidence
            else:
                sites = sites + csr_array((along[use].ravel(), (row, every)), shape=(total, n)) @ c.to_sites
            if not c.D.empty:
                shifts = shifts + c.D.after(csr_array((alone[use].ravel(), (row, every)), shape=(total, n)))
            if shape.shape[1]:
                shapes[:, self._shape_of(c)] += csr_array((np.ones(len(use)), (code[use], use)), shape=(total, len(code))) @ shape
        if dense:
            return np.hstack([values, shifts.toarray(), shapes])
        per_value = sites if self._spread is None else csr_array(sites @ self._spread)
        if self.basis.matrix is None:
            return hstack([per_value, shifts, csr_array(shapes)]).tocsr()
        n = self.design.n_responses
        blocks = [csr_array(per_value[:, a : a + n]) for a in range(0, per_value.shape[1], n)]  # type: ignore[index]  # as above
        return np.hstack([*(self.basis.times_left(v) for v in blocks), shifts.toarray(), shapes])


# ---------------------------------------------------------------------------------------------- parts


def _by_rater(block: Block) -> Block:
    """The block with its cells sorted by rater, so that a rater's cells are one run."""
    if len(block.who) < 2 or (np.diff(block.who) >= 0).all():
        return block
    order = np.argsort(block.who, kind="stable")
    return replace(block, **{f.name: getattr(block, f.name)[order] for f in fields(block) if f.name not in ("name", "family")})


def _curved(h: Array, rows: Array) -> Array:
    """(n d, p): curvatures (n,) or (n, d, d) times rows (n d, p)."""
    if h.ndim == 1:
        return h[:, None] * rows
    n, d, _ = h.shape
    return (h @ rows.reshape(n, d, -1)).reshape(n * d, -1)


def _add_runs(total: Array, code: Codes, values: Array) -> None:
    """total[:, code] += values, where code is ascending."""
    starts = np.append(0, np.flatnonzero(code[1:] != code[:-1]) + 1)
    total[:, code[starts]] += np.add.reduceat(values, starts, axis=1)


def _weigh(m: Moments, rows: Any, _slope: Array, weight: Array, term: Terms) -> None:
    """`_average` where there is one node, with a slope of 1: what counts the slope and what does not are the same, and written once."""
    count = weight[0]
    m.g0[rows], m.h0[rows] = (term.first[0].T * count).T, -(term.second[0].T * count).T
    for t, cross in enumerate(term.cross):
        m.cross0[rows, ..., t] = -(cross[0].T * count).T


def _average(m: Moments, rows: Any, slope: Array, weight: Array, term: Terms) -> None:
    """Moments of some cells, from the terms at their nodes."""
    many = term.first.ndim == 3
    mean = "an,and->nd" if many else "an,an->n"
    square = "an,ande->nde" if many else "an,an->n"
    tilted = weight * slope
    m.g0[rows], m.g1[rows] = np.einsum(mean, weight, term.first), np.einsum(mean, tilted, term.first)
    m.h0[rows], m.h1[rows] = -np.einsum(square, weight, term.second), -np.einsum(square, tilted, term.second)
    m.h2[rows] = -np.einsum(square, tilted * slope, term.second)
    for t, cross in enumerate(term.cross):
        m.cross0[rows, ..., t], m.cross1[rows, ..., t] = -np.einsum(mean, weight, cross), -np.einsum(mean, tilted, cross)


def _dense(matrix: Any) -> Array:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
