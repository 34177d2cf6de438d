"""The matrix of a Newton step and of the covariance: an arrow of values, border and corner, solved in the way its shape allows.

    A = [ W   C ]      W  curvature of the values, with their prior
        [ C'  H ]      C  the border: shifts and shape;  H  the corner

Three ways, of which `make_solver` picks one:

    Dense       A is one dense matrix: features, or a table of few responses
    Blocks      W falls into small blocks, one per set of responses that meet (a prompt): each is inverted, exactly, and the border
                is eliminated by its Schur complement
    Iterative   W is large and hangs together: conjugate gradients; variances from draws (Papandreou & Yuille 2010), those of
                single values sharpened by what the matrix says exactly about each given its neighbours (Siden et al. 2018)

Each gives the same things: a step, variances, variances of gaps, and a factor of the covariance of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, get_lapack_funcs, solve_banded, solve_triangular
from scipy.sparse import csr_array, diags_array, hstack
from scipy.sparse.csgraph import connected_components

from seamark.models.likelihood import Derivatives, Likelihood
from seamark.models.walks import Walk

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

DENSE = 2500
"""Up to this many parameters a table is solved as one dense matrix."""
_SMALL = 400
"""Up to this many steps with one matrix, whatever its blocks."""
LARGEST_BLOCK = 64
"""Responses that meet in sets of at most this many are solved set by set."""
WIDEST_BORDER = 4000
"""A border up to this wide has its Schur complement written out."""
DRAWS = 64
"""Draws that stand for a covariance too large to keep: 9% error of a standard deviation of a gap, 2% of that of a single value."""
_DENSE_WALK = 800
"""The same where values move, whose paths are soon solved one by one."""
_TURNED = 500
"""Largest matrix whose wrong curvatures are turned round one by one."""
_PROJECTED = 64
"""Columns that stand for a wide low-rank part of a covariance."""


def _cholesky(matrix: Array) -> tuple[Array, bool]:
    """Lower factor. Far from the mode a shape parameter may curve the wrong way: a matrix that is not positive is then taken by the
    absolute values of its curvatures (Nocedal & Wright 2006, section 3.4), and where it is too large for that it is damped."""
    if not len(matrix):
        return matrix, True
    ridge, scale = 0.0, float(np.abs(np.diag(matrix)).max())
    while True:
        try:
            return cho_factor(matrix + ridge * np.eye(len(matrix)) if ridge else matrix, lower=True)
        except np.linalg.LinAlgError:
            if len(matrix) <= _TURNED:
                curve, axes = np.linalg.eigh((matrix + matrix.T) / 2)
                curve = np.maximum(np.abs(curve), 1e-3 * np.abs(curve).max())
                return cho_factor((axes * curve) @ axes.T, lower=True)
            ridge = max(10 * ridge, 1e-4 * scale)


def _upright(blocks: Array) -> Array:
    """(m, s, s) the same blocks, by the absolute values of their curvatures where one is not positive (far out, or with many lapses)."""
    try:
        np.linalg.cholesky(blocks)
    except np.linalg.LinAlgError:
        curve, axes = np.linalg.eigh(blocks)
        curve = np.maximum(np.abs(curve), 1e-3 * np.abs(curve).max(-1, keepdims=True))
        return np.asarray((axes * curve[:, None, :]) @ axes.transpose(0, 2, 1))
    return blocks


def _log_det(cholesky: tuple[Array, bool]) -> float:
    return 2 * float(np.log(cholesky[0].diagonal()).sum())


def _inverse_factor(cholesky: tuple[Array, bool]) -> Array:
    """F with F F' the inverse."""
    lower = cholesky[0]
    if not len(lower):
        return lower
    (trtri,) = get_lapack_funcs(("trtri",), (lower,))
    inverse, _ = trtri(lower, lower=1)
    return np.tril(inverse).T


@dataclass
class Dense:
    """One dense matrix, over the free parameters."""

    matrix: Array
    free: NDArray[np.bool_]
    n_values: int

    @cached_property
    def _cholesky(self) -> tuple[Array, bool]:
        return _cholesky(self.matrix)

    @cached_property
    def factor(self) -> Array:
        """(size, free) F with F F' the inverse; rows of fixed parameters are 0."""
        return spread(_inverse_factor(self._cholesky), self.free)

    def solve(self, gradient: Array) -> Array:
        return spread(cho_solve(self._cholesky, gradient[self.free]), self.free)

    walk: Walk | None = None

    def variances(self) -> Array:
        """(size,) of the coordinates in which the prior is independent."""
        if self.walk is None:
            return (self.factor**2).sum(1)
        moved = self.walk.coordinates(self.factor[: self.n_values])
        return np.concatenate([(moved**2).sum(1), (self.factor[self.n_values :] ** 2).sum(1)])

    def values_factor(self, rng: np.random.Generator) -> Array:
        """(n_values, r) with product the covariance of the values, for variances of gaps: drawn where there are many."""
        values = self.factor[: self.n_values]
        r = values.shape[1]
        return values if r <= _PROJECTED else values @ rng.standard_normal((r, _PROJECTED)) / np.sqrt(_PROJECTED)

    def gap_variances(self, likelihood: Likelihood, rng: np.random.Generator) -> Array:
        """(E,) variance of the gap of each edge."""
        if likelihood.basis.matrix is None:
            values = self.factor[: self.n_values]
            if likelihood.design.loadings.shape != (1, 1):
                return likelihood.edge_variances(values)
            e, covariance = likelihood.edges, values @ values.T
            own, right = covariance.diagonal(), np.maximum(e.right, 0)
            return own[e.left] + np.where(e.right < 0, 0.0, own[right] - 2 * covariance[e.left, right])
        return likelihood.edge_variances(self.values_factor(rng))

    def traced(self, likelihood: Likelihood) -> Array:
        """(E,) the same, unbiased in sums over many edges."""
        return self.gap_variances(likelihood, np.random.default_rng(0))

    def log_det(self, known: Codes) -> float:
        """Log determinant of the matrix of all parameters but these."""
        rest = self.free.copy()
        rest[known] = False
        rest = rest[self.free]
        return _log_det(_cholesky(self.matrix[np.ix_(rest, rest)]))


def one_matrix(likelihood: Likelihood) -> bool:
    """Whether the curvature is worked out, inverted and kept as one dense matrix."""
    return likelihood.basis.matrix is not None or likelihood.size <= (DENSE if likelihood.basis.walk is None else _DENSE_WALK)


class Components:
    """Which values meet, directly or through others, and where each stands in its block."""

    def __init__(self, pattern: csr_array) -> None:
        count, label = connected_components(pattern, directed=False)
        size = np.bincount(label, minlength=count)
        self.largest = int(size.max())
        if self.largest > LARGEST_BLOCK:
            return  # nobody asks for the rest
        self.local = np.empty(len(label), dtype=np.int64)
        order = np.argsort(label, kind="stable")
        starts = np.concatenate([[0], np.cumsum(size)])[:-1]
        self.local[order] = np.arange(len(label)) - np.repeat(starts, size)
        self.sizes = np.unique(size)
        number = np.empty(count, dtype=np.int64)
        for s in self.sizes:
            number[size == s] = np.arange(int((size == s).sum()))
        self.size_of, self.block_of = size[label], number[label]
        self.members = [order[starts[size == s][:, None] + np.arange(s)] for s in self.sizes]

    @staticmethod
    def of(likelihood: Likelihood, d: Derivatives) -> Components | None:
        """None where one dense matrix takes it all."""
        return None if one_matrix(likelihood) else Components(csr_array(d.values))

    @staticmethod
    def to_search(likelihood: Likelihood, d: Derivatives) -> Components | None:
        """The same, but not None where the one matrix falls into small blocks, and steps with them cost much less."""
        if not one_matrix(likelihood):
            return Components.of(likelihood, d)
        # directions without a prior, which numbers of slots have, are for the one matrix
        if (
            likelihood.basis.matrix is not None
            or likelihood.basis.walk is not None
            or likelihood.design.biases
            or likelihood.size <= _SMALL
        ):
            return None
        found = Components(csr_array(d.values))
        return found if found.largest <= LARGEST_BLOCK else None

    def blocks(self, matrix: csr_array) -> list[Array]:
        """Per size, the blocks (m, s, s)."""
        row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))  # type: ignore[index]  # scipy types the shape as optional
        column = matrix.indices
        out = []
        for s, members in zip(self.sizes, self.members, strict=True):
            mine = slice(None) if len(self.sizes) == 1 else self.size_of[row] == s
            block = np.zeros((len(members), s, s))
            block[self.block_of[row[mine]], self.local[row[mine]], self.local[column[mine]]] = matrix.data[mine]
            out.append(block)
        return out

    def matrix(self, blocks: list[Array]) -> csr_array:
        """The block-diagonal matrix of these blocks."""
        rows, columns, data = [], [], []
        for members, block in zip(self.members, blocks, strict=True):
            rows.append(np.broadcast_to(members[:, :, None], block.shape).ravel())
            columns.append(np.broadcast_to(members[:, None, :], block.shape).ravel())
            data.append(block.ravel())
        n = len(self.local)
        return csr_array((np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))


@dataclass
class Blocks:
    """Values in small blocks, with a border."""

    components: Components
    values: csr_array
    border: csr_array
    """(n_values, b)"""
    corner: Array
    """(b, b)"""
    kept: NDArray[np.bool_]
    """(S + T,) what the border holds."""
    alone: Array
    """Curvature of each of the others, which step by themselves."""

    @cached_property
    def _inverses(self) -> list[Array]:
        return [np.asarray(np.linalg.inv(_upright(block)), dtype=np.float64) for block in self.components.blocks(self.values)]

    def _solved(self, right: Array) -> Array:
        """W^-1 times (n_values, r)."""
        out = np.empty_like(right)
        for members, inverse in zip(self.components.members, self._inverses, strict=True):
            out[members] = inverse @ right[members]
        return out

    @cached_property
    def _own(self) -> Array:
        """(n_values,) diagonal of W^-1."""
        out = np.empty(self.values.shape[0])  # type: ignore[index]  # scipy types the shape as optional
        for members, inverse in zip(self.components.members, self._inverses, strict=True):
            out[members] = inverse.diagonal(axis1=1, axis2=2)
        return out

    @cached_property
    def _through(self) -> Any:
        """W^-1 C, dense where the border is narrow."""
        # a sparse product keeps its zeros only while responses have few raters each
        narrow = self.border.shape[1] <= _PROJECTED  # type: ignore[index]  # scipy types the shape as optional
        return self._solved(self.border.toarray()) if narrow else self.components.matrix(self._inverses) @ self.border

    @cached_property
    def _schur(self) -> tuple[Array, bool]:
        product = self.border.T @ self._through
        return _cholesky(self.corner - (product if isinstance(product, np.ndarray) else product.toarray()))

    @cached_property
    def _corner_factor(self) -> Array:
        """Of the covariance of shifts and shape."""
        return _inverse_factor(self._schur)

    def solve(self, gradient: Array) -> Array:
        n = self.values.shape[0]  # type: ignore[index]  # scipy types the shape as optional
        g, s = gradient[:n], gradient[n:][self.kept]
        corner = cho_solve(self._schur, s - self._through.T @ g) if len(s) else s
        return np.concatenate(
            [self._solved(g[:, None])[:, 0] - self._through @ corner, self._placed(corner, gradient[n:][~self.kept] / self.alone)]
        )

    def _placed(self, kept: Array, alone: Array) -> Array:
        out = np.empty(len(self.kept))
        out[self.kept], out[~self.kept] = kept, alone
        return out

    def _low_rank(self, rng: np.random.Generator) -> Array:
        """(n_values, r): factor of what not knowing shifts and shape adds to the covariance of the values."""
        if len(self.corner) <= _PROJECTED:
            return self._through @ self._corner_factor
        draws = rng.standard_normal((len(self.corner), _PROJECTED)) / np.sqrt(_PROJECTED)
        return self._through @ solve_triangular(self._schur[0], draws, lower=True, trans=1, check_finite=False)

    def variances(self) -> Array:
        rng = np.random.default_rng(0)
        values = self._own + (self._low_rank(rng) ** 2).sum(1)
        return np.concatenate([values, self._placed((self._corner_factor**2).sum(1), 1 / self.alone)])

    def values_factor(self, rng: np.random.Generator) -> csr_array:
        """(n_values, r) sparse: a block of its own for each set of responses, and shared columns for the border."""
        roots = self.components.matrix([np.asarray(np.linalg.cholesky(inverse), dtype=np.float64) for inverse in self._inverses])
        return csr_array(hstack([roots, csr_array(self._low_rank(rng))]))

    def gap_variances(self, likelihood: Likelihood, rng: np.random.Generator) -> Array:
        """(E,) variance of the gap of each edge."""
        if likelihood.design.loadings.shape != (1, 1):
            return likelihood.edge_variances(self.values_factor(rng))
        e, place = likelihood.edges, self.components
        own, pair = self._own, e.right >= 0
        left, right = e.left[pair], e.right[pair]
        variance = own[e.left]
        variance[pair] += own[right]
        for number, (size, inverse) in enumerate(zip(place.sizes, self._inverses, strict=True)):
            mine = slice(None) if number == 0 and len(place.sizes) == 1 else place.size_of[left] == size
            both = inverse[place.block_of[left[mine]], place.local[left[mine]], place.local[right[mine]]]
            variance[np.flatnonzero(pair)[mine]] -= 2 * both
        return variance + likelihood.edge_variances(self._low_rank(rng)) if self.corner.size else variance

    def traced(self, likelihood: Likelihood) -> Array:
        """(E,) the same, unbiased in sums over many edges."""
        return self.gap_variances(likelihood, np.random.default_rng(0))

    def log_det(self, known: Codes) -> float:
        """Log determinant of the matrix of all parameters but these, none of which is a value."""
        rest = np.ones(len(self.kept), dtype=bool)
        rest[known - self.values.shape[0]] = False  # type: ignore[index]  # scipy types the shape as optional
        within = rest[self.kept]
        blocks = sum(float(np.linalg.slogdet(_upright(block))[1].sum()) for block in self.components.blocks(self.values))
        through = self._through[:, within]
        product = self.border[:, within].T @ through
        schur = self.corner[np.ix_(within, within)] - (product if isinstance(product, np.ndarray) else product.toarray())
        return blocks + _log_det(_cholesky(schur)) + float(np.log(np.abs(self.alone[rest[~self.kept]])).sum())

    def rows(self, index: Codes) -> Array:
        """(len(index), size) rows of the inverse, for parameters of the border."""
        corner = cho_solve(self._schur, np.eye(len(self.corner))[:, index]).T
        return np.hstack([-(self._through @ corner.T).T, corner])


@dataclass
class Iterative:
    """Values that hang together and are too many for a dense matrix."""

    values: csr_array
    border: Array
    """(n_values, b) dense; 0 for shifts of raters and prompts, which step by themselves: their coupling would make it wide."""
    corner: Array
    likelihood: Likelihood
    derivatives: Derivatives
    prior_root: Array
    """(n_values,) square roots of the prior precisions."""
    rng: np.random.Generator

    @property
    def _walk(self) -> Walk | None:
        return self.likelihood.basis.walk

    @cached_property
    def _near(self) -> Alone | Chains:
        return Alone.of(self.values) if self._walk is None else Chains.of(self.values, len(self._walk.response))

    def _solved(self, right: Array, tolerance: float) -> Array:
        return conjugate_gradients(self.values, right, tolerance=tolerance, near=self._near)

    @cached_property
    def _through(self) -> Array:
        return self._solved(self.border, 1e-5)

    @cached_property
    def _schur(self) -> tuple[Array, bool]:
        return _cholesky(self.corner - self.border.T @ self._through)

    def solve(self, gradient: Array) -> Array:
        n = len(self.border)
        g, s = gradient[:n], gradient[n:]
        alone = self._solved(g, 1e-3)
        corner = cho_solve(self._schur, s - self._through.T @ g) if len(s) else s
        return np.concatenate([alone - self._through @ corner, corner])

    @cached_property
    def _probed(self) -> tuple[Array, Array]:
        """Random signs and their solutions (Hutchinson 1990): the more values, the fewer probes a sum over them needs."""
        n = len(self.border)
        probes = _signs(n, max(1, min(16, 100_000 // n)), self.rng).astype(np.float64)
        return probes, self._solved(probes, 1e-3)

    def _walked_variances(self, walk: Walk, near: Chains) -> Array:
        """(n_values,) of the coordinates: what paths say one by one is known exactly, the rest from signs.

        They are signs of the coordinates, lest the doubt about all nodes gets into the sum over the few at which paths begin; the same
        at each step, or the sizes of steps would never settle. A sum of many variances is all but the prior's, and what is determined
        is the little that is left, hence the tolerance.
        """
        n = len(self.border)
        signs = _signs(n, max(1, min(16, 50_000 // n)), np.random.default_rng(0)).astype(np.float64)
        moved = walk.transposed(signs)
        rest = walk.coordinates(self._solved(moved, 1e-4) - near.solve(moved))
        exact = walk.variances(near.variances(), near.covariances())
        exact += np.tile(walk.begins, len(near.level)) * np.repeat(np.diag(near.level), len(walk.response))
        return exact + (signs * rest).mean(1)

    def gap_variances(self, likelihood: Likelihood, rng: np.random.Generator) -> Array:
        """(E,) variance of the gap of each edge."""
        return likelihood.edge_variances(self.values_factor(rng))

    def traced(self, likelihood: Likelihood) -> Array:
        """(E,) the same, noisy for a single edge and unbiased in sums over many."""
        return likelihood.edge_products(*self._probed)

    def variances(self) -> Array:
        """Unbiased; precise in sums over many parameters, which is what prior strengths are read off.

        Of the coordinates in which the prior is independent.
        """
        factor = _inverse_factor(self._schur)
        through = self._through @ factor
        if self._walk is not None and isinstance(self._near, Chains):
            through, values = self._walk.coordinates(through), self._walked_variances(self._walk, self._near)
        else:
            probes, solved = self._probed
            values = (probes * solved).mean(1)
        return np.concatenate([values + (through**2).sum(1), (factor**2).sum(1)])

    def corner_variances(self) -> Array:
        """Of shifts and shape."""
        return (_inverse_factor(self._schur) ** 2).sum(1)

    def values_factor(self, rng: np.random.Generator, draws: int = 32) -> Array:
        n = len(self.border)
        root = self.likelihood.root(self.derivatives)  # B B' is the curvature, so that A^-1 (B e + prior_root e') has variance A^-1
        # single precision is far finer than the draws, and half the memory to move
        root, values, near = csr_array(root, dtype=np.float32), csr_array(self.values, dtype=np.float32), self._near.single()
        factor, around = np.empty((n, draws), dtype=np.float32), np.zeros(n)
        for start in range(0, draws, 16):
            width = min(16, draws - start)
            # signs have the covariance of normal draws, which is all that is asked of them
            noise = root @ _signs(root.shape[1], width, rng)  # type: ignore[index]  # scipy types the shape as optional
            own: Any = self.prior_root.astype(np.float32)[:, None] * _signs(n, width, rng)
            noise += own if self._walk is None else self._walk.transposed(own)
            drawn = conjugate_gradients(values, noise, tolerance=1e-2, near=near)
            factor[:, start : start + width] = drawn
            # the variance given the neighbours is known exactly; only what the neighbours' own doubt adds is left to the draws
            around += ((near.alone(values @ drawn) - drawn) ** 2).sum(1)
        factor /= np.sqrt(np.float32(draws))
        exact = self._near.variances() + around / draws
        scale = np.sqrt(exact / np.maximum((factor**2).sum(1), 1e-30))
        return np.hstack([factor * scale[:, None], self._through @ _inverse_factor(self._schur)])


Solver = Dense | Blocks | Iterative


def make_solver(
    likelihood: Likelihood,
    d: Derivatives,
    precision: Array,
    components: Components | None,
    rng: np.random.Generator,
    *,
    whole: bool = True,
    open_: Array | None = None,
) -> Solver:
    """The way to solve A with priors of this precision (size,); `components` are None where one dense matrix takes it all.

    Along `open_` (size, r) there is no prior, which the one matrix alone can say: for the others the step is a little short there, and a
    covariance takes it away afterwards (`posterior`). Unless
    `whole`, shifts of raters that hardly move with the values step by themselves, which is enough for a step.
    """
    n, free, walk = d.values.shape[0], likelihood.free, likelihood.basis.walk
    if components is None:
        matrix = d.whole()
        if walk is not None:
            matrix[:n, :n] += walk.precision(precision[:n]).toarray()
            matrix[np.arange(n, len(matrix)), np.arange(n, len(matrix))] += precision[n:]
        else:
            matrix[np.diag_indices_from(matrix)] += precision
        if open_ is not None and open_.size:
            matrix -= (precision[:, None] * open_) @ open_.T
        return Dense(matrix if free.all() else matrix[np.ix_(free, free)], free, n, walk)
    values = csr_array(d.values + (_diagonal(precision[:n]) if walk is None else walk.precision(precision[:n])))
    corner = d.corner.toarray()
    corner[np.diag_indices_from(corner)] += precision[n:]
    if walk is None and components.largest <= LARGEST_BLOCK and len(corner) <= WIDEST_BORDER:
        kept = np.ones(len(corner), dtype=bool)
        if not whole:
            kept[: likelihood.n_shifts] = ~likelihood.loose
        return Blocks(components, values, csr_array(d.border)[:, kept], corner[np.ix_(kept, kept)], kept, np.diag(corner)[~kept])
    kept = np.ones(len(corner))
    kept[: likelihood.n_shifts][likelihood.of_many] = 0.0
    return Iterative(values, (d.border @ diags_array(kept)).toarray(), corner, likelihood, d, np.sqrt(precision[:n]), rng)


@dataclass(frozen=True)
class Alone:
    """The diagonal of A: each value given all others."""

    diagonal: NDArray[np.floating[Any]]

    @staticmethod
    def of(A: csr_array) -> Alone:
        return Alone(np.asarray(A.diagonal()).astype(np.float32 if A.dtype == np.float32 else np.float64))

    def single(self) -> Alone:
        return Alone(self.diagonal.astype(np.float32))

    def solve(self, right: Any) -> Any:
        return right / self.diagonal[:, None]

    alone = solve

    def variances(self) -> Array:
        return 1 / self.diagonal


@dataclass(frozen=True)
class Chains:
    """The tridiagonal part of A, where values follow each other in time: each path given all others, factored as L D L'."""

    d: NDArray[np.floating[Any]]
    e: NDArray[np.floating[Any]]
    """(n - 1,) below the diagonal of L."""
    level: NDArray[np.floating[Any]]
    """(k, k) inverse curvature of the levels of the k values, that of all paths together, which comparisons say nothing about."""

    @staticmethod
    def of(A: csr_array, n: int) -> Chains:
        d, e, failed = get_lapack_funcs(("pttrf",), (A.data,))[0](A.diagonal(), A.diagonal(1))
        assert not failed, "a curvature that is not positive"
        k = len(d) // n
        return Chains(d, e, np.linalg.inv((A @ np.repeat(np.eye(k), n, axis=0)).reshape(k, n, k).sum(1)))

    def single(self) -> Chains:
        return Chains(self.d.astype(np.float32), self.e.astype(np.float32), self.level.astype(np.float32))

    def solve(self, right: Any) -> Any:
        """Nearly A^-1: paths one by one, and the level."""
        k = len(self.level)
        out = self.alone(right)
        blocks = out.reshape(k, -1, right.shape[1])
        blocks += (self.level @ right.reshape(k, -1, right.shape[1]).sum(1))[:, None]
        return out

    def alone(self, right: Any) -> Any:
        return np.ascontiguousarray(get_lapack_funcs(("pttrs",), (self.d,))[0](self.d, self.e, right)[0])

    def covariances(self) -> Array:
        """(n,) of each value with the one before, given all other paths; 0 for the first."""
        return np.append(0.0, -self.e * self.variances()[1:])

    def variances(self) -> Array:
        # of the inverse, from the end: s_i = 1 / d_i + e_i^2 s_(i+1) (Takahashi, Fagan & Chin 1973)
        return solve_banded((0, 1), np.stack([np.append(0.0, -(self.e**2)), np.ones(len(self.d))]), 1 / self.d)


def conjugate_gradients(A: csr_array, right: Any, *, tolerance: float = 1e-8, limit: int = 2000, near: Alone | Chains | None = None) -> Any:
    """Solve A X = B for all columns at once, preconditioned by a part of A that is easily solved: left out, its diagonal (Jacobi)."""
    if not right.size:
        return right
    B = right[:, None] if right.ndim == 1 else right
    near = near or Alone.of(A)
    solution = np.zeros_like(B)
    residual = B.copy()
    z = near.solve(residual)
    direction = z.copy()
    rz = np.einsum("ij,ij->j", residual, z)
    tiny = np.finfo(B.dtype).tiny
    target = tolerance**2 * np.maximum(rz, tiny)
    for _ in range(limit):
        Ad = A @ direction
        step = rz / np.maximum(np.einsum("ij,ij->j", direction, Ad), tiny)
        solution += step * direction
        residual -= step * Ad
        z = near.solve(residual)
        new = np.einsum("ij,ij->j", residual, z)
        if (new <= target).all():
            break
        direction *= new / np.maximum(rz, tiny)
        direction += z
        rz = new
    return solution[:, 0] if right.ndim == 1 else solution


def _diagonal(values: Array) -> csr_array:
    """Rows of one entry, which add faster than scipy's own diagonal."""
    n = len(values)
    return csr_array((values, np.arange(n, dtype=np.int32), np.arange(n + 1, dtype=np.int32)), shape=(n, n))


def _signs(n: int, columns: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, columns) of -1 and 1: noise of variance 1 from a bit each."""
    bits = np.unpackbits(rng.integers(0, 256, (n, -(-columns // 8)), dtype=np.uint8), axis=1, count=columns)
    return 2 * bits.astype(np.float32) - 1


def without_prior(d: Derivatives, likelihood: Likelihood) -> Array:
    """(size, r) orthonormal directions of the values along which the numbers of slots (`Bias`) differ between responses.

    Values that are pulled towards 0 leave to the numbers what they do not explain themselves: where better responses have higher
    numbers, the coefficient of the numbers grows by that (Mundlak 1978). Without a prior along the regression of the numbers on the
    responses, A^-1 C of the arrow without its prior, the coefficient is that of how numbers differ beside the same responses.
    """
    size, P = likelihood.size, likelihood.basis.n_columns
    columns = [s.start for s in likelihood.parts if s.name.startswith("bias by") and not s.per_rater]
    if not columns or likelihood.basis.matrix is not None or likelihood.basis.walk is not None:
        return np.zeros((size, 0))
    values = csr_array(csr_array(d.values)[:P, :P])
    border = csr_array(csr_array(d.border)[:P, columns]).toarray()
    # where nothing but gaps is judged their level is open already: the ridge keeps it out of the directions
    ridge = 1e-6 * float(values.diagonal().mean())
    held = csr_array(values + diags_array(np.full(P, ridge)))
    along = conjugate_gradients(held, border, tolerance=1e-6)
    left, singular, _ = np.linalg.svd(along, full_matrices=False)
    out = np.zeros((size, len(columns)))
    out[:P] = left
    return out[:, singular > 1e-6 * max(float(singular.max()), 1e-3)]


def spread(values: Array, free: NDArray[np.bool_]) -> Array:
    """Rows for all parameters from rows for the free ones; fixed parameters have none of the variance."""
    if free.all():
        return values
    out = np.zeros((len(free), *values.shape[1:]))
    out[free] = values
    return out
