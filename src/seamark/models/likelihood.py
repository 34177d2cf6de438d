"""The one likelihood: log probability of all judgments, its gradient and curvature, raters integrated out.

Conventions
-----------
The parameters form one vector x = [values | shifts | shape]:

    values  w (k * P,): weights of the P columns of the basis, for each of the k values; V = X W, u = V Z'
    shifts  f (S,): position, then one leniency per rater
    shape   t (T,): the families' own parameters, block after block, then the log odds of a lapse

For judgment j by rater r with slope b: contrast c_j = b * (K U[shown]) + shift_j. A rater's slope is unknown; it is integrated
over nodes (R + 1, Q) with log prior weights, the last row standing for judgments whose rater is not known (slope 1). So

    log L(x) = sum_r log sum_q exp(log_prior[r, q] + sum_{j by r} count_j log p(y_j | c_j(b[r, q])))

Curvature comes in two parts (Louis 1982): the expected curvature given the slopes (`information`, positive for all our families,
the matrix of a Newton step), less the variance of the score over the posterior of the slopes (`missing`), which the covariance needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_array, block_diag, coo_array, csr_array, eye_array, hstack, kron, vstack

from seamark.models.design import Block, Design
from seamark.models.observation import Leniency, Observation, Position, lapsed
from seamark.models.utility import Basis

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]

_CHUNK = 1_500_000
"""Elements (nodes x cells) evaluated at once; bounds the memory of the temporaries to about 200 MB."""


@dataclass(frozen=True)
class Nodes:
    """Where each rater's slope is evaluated."""

    slope: Array
    """(R + 1, Q)"""
    log_prior: Array
    """(R + 1, Q), log of prior mass; -inf switches a node off."""

    @staticmethod
    def fixed(n_raters: int) -> Nodes:
        """Every slope is 1."""
        return Nodes(np.ones((n_raters + 1, 1)), np.zeros((n_raters + 1, 1)))


@dataclass(frozen=True)
class Cells:
    """A block with its Jacobians."""

    block: Block
    K: Array
    to_responses: csr_array
    """(n * d, n_responses): contrast per unit of utility."""
    to_shifts: csr_array
    """(n * d, S): contrast per unit of shift."""
    group: NDArray[np.int64]
    shape: slice
    """Where the family's parameters sit in t."""


@dataclass
class Moments:
    """Per cell, derivatives averaged over the rater's nodes. d is the dimension of the contrast."""

    g1: Array
    """(n, d) sum_q p count b dlogp/dc"""
    g0: Array
    """(n, d) the same without b"""
    h2: Array
    """(n, d, d) -sum_q p count b^2 d2logp/dc2"""
    h1: Array
    h0: Array
    cross1: Array
    """(n, d, T_b) -sum_q p count b d2logp/dc dt"""
    cross0: Array


@dataclass
class _CellGradient:
    """Per cell of a block at one node: the slope, and the gradient by contrast (n, d) and by shape (n, T), times the count."""

    slope: Array
    contrast: Array
    shape: Array
    weight: Array
    """(n,) what each cell counts for in a sum."""


@dataclass
class Derivatives:
    """Gradient (size,) and expected curvature given the slopes, of the log likelihood without priors."""

    gradient: Array
    information: Any
    """(size, size) dense array or sparse csr"""
    root: Any = None
    """For a sparse one, B (size, .) sparse with B B' = information, to draw from."""


@dataclass
class Likelihood:
    """The log likelihood of a design under a basis and an observation."""

    design: Design
    basis: Basis
    observation: Observation
    cells: list[Cells] = field(init=False)
    n_values: int = field(init=False)
    n_shifts: int = field(init=False)
    n_shape: int = field(init=False)
    has_position: bool = field(init=False)
    has_leniency: bool = field(init=False)

    def __post_init__(self) -> None:
        design, observation = self.design, self.observation
        self.has_position = observation.with_effect(Position) and any(b.ordered.any() and not b.lenient for b in design.blocks)
        # a shift per rater needs at least two raters, else it is the cut points under another name
        known = [np.unique(b.rater[b.rater < design.n_raters]) for b in design.blocks if b.lenient]
        self.has_leniency = observation.with_effect(Leniency) and bool(known) and len(np.unique(np.concatenate(known))) > 1
        self.n_values = self.basis.n_columns * design.loadings.shape[1]
        self.n_shifts = int(self.has_position) + (design.n_raters if self.has_leniency else 0)
        sizes = [b.family.size for b in design.blocks]
        self.n_shape = sum(sizes) + int(observation.lapse)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self.cells = [self._cells(b, slice(int(starts[i]), int(starts[i + 1]))) for i, b in enumerate(design.blocks)]

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

    @property
    def leniency(self) -> slice:
        return slice(self.n_values + int(self.has_position), self.n_values + self.n_shifts)

    def shape_start(self) -> Array:
        """Start, and centre of the weak prior, of t. A lapse starts at 2%: Wichmann & Hill 2001 find 0-5% usual."""
        parts = [b.family.start() for b in self.design.blocks]
        return np.concatenate([*parts, [-4.0] if self.observation.lapse else []])

    def _cells(self, block: Block, shape: slice) -> Cells:
        n, m = block.shown.shape
        K = block.family.contrast(m)
        d = K.shape[0]
        response = block.shown // self.design.n_groups
        row = np.arange(n * d).reshape(n, d, 1).repeat(m, 2)
        weight = np.broadcast_to(K, (n, d, m))
        nonzero = weight != 0
        column = np.broadcast_to(response[:, None, :], (n, d, m))
        to_responses = coo_array((weight[nonzero], (row[nonzero], column[nonzero])), shape=(n * d, self.design.n_responses)).tocsr()
        rows, cols, vals = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
        if self.has_position and not block.lenient:
            vals.append((block.ordered[:, None] * K[:, 0]).ravel())
            rows.append(np.arange(n * d))
            cols.append(np.zeros(n * d, dtype=int))
        if self.has_leniency and block.lenient:
            known = np.flatnonzero(block.rater < self.design.n_raters)
            rows.append(known)
            cols.append(int(self.has_position) + block.rater[known])
            vals.append(np.ones(len(known)))
        entries = (np.concatenate(vals), (np.concatenate(rows), np.concatenate(cols)))
        to_shifts = coo_array(entries, shape=(n * d, self.n_shifts)).tocsr()
        return Cells(block, K, to_responses, to_shifts, block.shown[:, 0] % self.design.n_groups, shape)

    # ------------------------------------------------------------------ evaluation

    def utilities(self, x: Array) -> Array:
        """(n_responses, n_groups) utility of each response for each group, in logits."""
        W = x[self.values].reshape(self.design.loadings.shape[1], self.basis.n_columns).T
        return self.basis.times(W) @ self.design.loadings.T

    def _contrasts(self, x: Array) -> list[tuple[Array, Array]]:
        """Per block, the part that slopes scale and the part that they do not: (n, d) each."""
        U = self.utilities(x)
        f = x[self.shifts]
        out = []
        for c in self.cells:
            n = len(c.block.shown)
            scaled = U[c.block.shown // self.design.n_groups, c.group[:, None]] @ c.K.T
            shift = (c.to_shifts @ f).reshape(n, -1) if self.n_shifts else np.zeros_like(scaled)
            out.append((scaled, shift))
        return out

    def _log_probs(self, c: Cells, contrast: Tensor, t: Tensor, rows: slice) -> Tensor:
        """(Q, n) log probability of what was answered."""
        import torch

        family = c.block.family
        log_prob = family.log_prob(contrast, torch.from_numpy(c.block.outcome[rows]), t[c.shape])
        return lapsed(log_prob, family.n_outcomes, t[-1] if self.observation.lapse else None)

    def _slices(self, c: Cells, q: int) -> list[slice]:
        n = len(c.block.outcome)
        step = max(1, _CHUNK // (q * c.K.shape[0]))
        return [slice(i, min(i + step, n)) for i in range(0, n, step)]

    def rater_log_likelihood(self, x: Array, nodes: Nodes) -> Array:
        """(R + 1, Q) log likelihood of each rater's judgments at each node."""
        import torch

        R, Q = nodes.slope.shape
        total = torch.zeros((R, Q), dtype=torch.float64)
        t = torch.from_numpy(x[self.shape])
        with torch.no_grad():
            for c, (scaled, shift) in zip(self.cells, self._contrasts(x), strict=True):
                for rows in self._slices(c, Q):
                    rater = c.block.rater[rows]
                    slope = torch.from_numpy(nodes.slope[rater].T[..., None])
                    contrast = slope * torch.from_numpy(scaled[rows]) + torch.from_numpy(shift[rows])
                    lp = self._log_probs(c, contrast, t, rows) * torch.from_numpy(c.block.count[rows])
                    total.index_add_(0, torch.from_numpy(rater), lp.T.contiguous())
        return total.numpy()

    def contrast_variances(self, factor: Array) -> list[Array]:
        """Per block, the posterior variance (n, d) of the contrast, from a factor (n_values, r) of the values' covariance."""
        k, P = self.design.loadings.shape[1], self.basis.n_columns
        out = [np.zeros((len(c.block.outcome), c.K.shape[0])) for c in self.cells]
        for g in range(self.design.n_groups):
            seen = self.basis.times(np.einsum("k,kpr->pr", self.design.loadings[g], factor.reshape(k, P, -1)))
            for c, variance in zip(self.cells, out, strict=True):
                rows = np.flatnonzero(c.group == g)
                step = max(1, 4_000_000 // max(seen.shape[1], 1))
                for start in range(0, len(rows), step):
                    part = rows[start : start + step]
                    shown = c.block.shown[part] // self.design.n_groups
                    for e, weights in enumerate(c.K):
                        spread = np.einsum("s,nsr->nr", weights, seen[shown])
                        variance[part, e] = (spread**2).sum(1)
        return out

    def uncertainty_offset(self, x: Array, nodes: Nodes, variances: list[Array]) -> Array:
        """(R + 1, Q): what a rater's expected log likelihood loses, at each node, to the utilities not being known exactly.

        E_u[log p(y | b u)] - log p(y | b E[u]) with u Gaussian, by 3 Gauss-Hermite nodes. Without it the mode of a product of
        values and slopes drifts: values shrink without end and slopes grow (mean-field in place of joint MAP; Bishop 2006, 10.1).
        Contrasts of more than one dimension are left as they are.
        """
        import torch

        points, weights = np.polynomial.hermite_e.hermegauss(3)
        weights = weights / weights.sum()
        R, Q = nodes.slope.shape
        total = torch.zeros((R, Q), dtype=torch.float64)
        t = torch.from_numpy(x[self.shape])
        with torch.no_grad():
            for c, (scaled, shift), variance in zip(self.cells, self._contrasts(x), variances, strict=True):
                if c.K.shape[0] > 1:
                    continue
                sd = np.sqrt(variance)
                for rows in self._slices(c, Q):
                    rater = c.block.rater[rows]
                    slope = torch.from_numpy(nodes.slope[rater].T[..., None])
                    level = torch.from_numpy(shift[rows])
                    count = torch.from_numpy(c.block.count[rows])
                    expected = -self._log_probs(c, slope * torch.from_numpy(scaled[rows]) + level, t, rows)
                    for point, weight in zip(points, weights, strict=True):
                        moved = slope * torch.from_numpy(scaled[rows] + point * sd[rows]) + level
                        expected += weight * self._log_probs(c, moved, t, rows)
                    total.index_add_(0, torch.from_numpy(rater), (expected * count).T.contiguous())
        return total.numpy()

    def _moments(self, x: Array, nodes: Nodes, posterior: Array) -> tuple[list[Moments], Array, Array]:
        """Per block moments; gradient (T,) and curvature (T, T) of the shape parameters."""
        import torch

        Q = nodes.slope.shape[1]
        gradient_t, hessian_t = np.zeros(self.n_shape), np.zeros((self.n_shape, self.n_shape))
        out: list[Moments] = []
        for c, (scaled, shift) in zip(self.cells, self._contrasts(x), strict=True):
            n, d = scaled.shape
            mine = list(range(c.shape.start, c.shape.stop)) + ([self.n_shape - 1] if self.observation.lapse else [])
            T = len(mine)
            m = Moments(
                np.zeros((n, d)), np.zeros((n, d)), np.zeros((n, d, d)), np.zeros((n, d, d)), np.zeros((n, d, d)),
                np.zeros((n, d, T)), np.zeros((n, d, T)),
            )  # fmt: skip
            for rows in self._slices(c, Q):
                rater = c.block.rater[rows]
                slope = torch.from_numpy(nodes.slope[rater].T.copy())  # (Q, n)
                weight = torch.from_numpy(posterior[rater].T * c.block.count[rows])
                contrast = slope[..., None] * torch.from_numpy(scaled[rows]) + torch.from_numpy(shift[rows])
                contrast.requires_grad_(True)
                t = torch.from_numpy(x[self.shape].copy()).requires_grad_(True)
                value = (weight * self._log_probs(c, contrast, t, rows)).sum()
                inputs = [contrast, t] if self.n_shape else [contrast]
                first = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
                g = first[0]
                _put(m.g1, m.g0, rows, g, slope)
                for e in range(d):
                    (h,) = torch.autograd.grad(g[..., e].sum(), contrast, retain_graph=True)
                    h = -h
                    m.h2[rows, e] = _sum(h * slope[..., None] ** 2)
                    m.h1[rows, e] = _sum(h * slope[..., None])
                    m.h0[rows, e] = _sum(h)
                if mine:
                    gradient_t += first[1].detach().numpy()
                    for position, index in enumerate(mine):
                        second = torch.autograd.grad(first[1][index], [contrast, t], retain_graph=True, allow_unused=True)
                        if second[0] is not None:  # pyright: ignore[reportUnnecessaryComparison]  # torch's stubs forget allow_unused
                            m.cross1[rows, :, position] = _sum(-second[0] * slope[..., None])
                            m.cross0[rows, :, position] = _sum(-second[0])
                        if second[1] is not None:  # pyright: ignore[reportUnnecessaryComparison]
                            hessian_t[index] -= second[1].numpy()
            out.append(m)
        return out, gradient_t, hessian_t

    def derivatives(self, x: Array, nodes: Nodes, posterior: Array, *, sparse: bool) -> Derivatives:
        """Gradient of log L and the expected curvature, given the posterior of the slopes at x."""
        moments, gradient_t, hessian_t = self._moments(x, nodes, posterior)
        design, basis = self.design, self.basis
        k, G, P, S, T = design.loadings.shape[1], design.n_groups, basis.n_columns, self.n_shifts, self.n_shape
        Z = design.loadings
        node_gradient = np.zeros((design.n_responses, G))
        gradient_f = np.zeros(S)
        laplacian = [csr_array((design.n_responses, design.n_responses)) for _ in range(G)]
        to_f = [csr_array((design.n_responses, S)) for _ in range(G)]
        to_t = np.zeros((G, design.n_responses, T))
        f_f, f_t = csr_array((S, S)), np.zeros((S, T))
        for c, m in zip(self.cells, moments, strict=True):
            mine = list(range(c.shape.start, c.shape.stop)) + ([T - 1] if self.observation.lapse else [])
            n, d = m.g1.shape
            D0, D1, D2 = _block_diagonal(m.h0), _block_diagonal(m.h1), _block_diagonal(m.h2)
            gradient_f += c.to_shifts.T @ m.g0.ravel()
            f_f = f_f + c.to_shifts.T @ D0 @ c.to_shifts
            f_t[:, mine] += c.to_shifts.T @ m.cross0.reshape(n * d, -1)
            for g in range(G):
                # the rows of other groups drop out of J, so the whole of D and of the shifts can stay
                J = c.to_responses if G == 1 else c.to_responses.multiply((c.group == g).repeat(d)[:, None]).tocsr()  # pyright: ignore[reportConstantRedefinition]
                node_gradient[:, g] += J.T @ m.g1.ravel()
                laplacian[g] = laplacian[g] + J.T @ D2 @ J
                if S:
                    to_f[g] = to_f[g] + J.T @ D1 @ c.to_shifts
                if T:
                    to_t[g][:, mine] += J.T @ m.cross1.reshape(n * d, -1)
        gradient = np.concatenate([basis.transpose_times(node_gradient @ Z).T.ravel(), gradient_f, gradient_t])
        if sparse:
            # only the identity basis is ever this large
            w_w = sum((kron(np.outer(Z[g], Z[g]), laplacian[g]) for g in range(G)), start=csr_array((k * P, k * P)))
            w_f = sum((kron(Z[g][:, None], to_f[g]) for g in range(G)), start=csr_array((k * P, S)))
            # the few shape parameters step by themselves, along |curvature|: a sparse system has no Cholesky to tell it is indefinite
            curve, axes = np.linalg.eigh(hessian_t)
            t_root = axes * np.sqrt(np.maximum(np.abs(curve), 1e-6))
            t_t = csr_array(t_root @ t_root.T)
            blocks = [[w_w, w_f, None], [w_f.T, f_f, None], [None, None, t_t]]
            keep = [i for i, size in enumerate((k * P, S, T)) if size]
            root = csr_array(block_diag([self._root(moments), t_root] if T else [self._root(moments)]))
            return Derivatives(gradient, csr_array(block_array([[blocks[i][j] for j in keep] for i in keep])), root)
        information = np.zeros((self.size, self.size))
        vs, fs, ts = self.values, self.shifts, self.shape
        for g in range(G):
            curvature = basis.gram(laplacian[g])
            shifts = basis.transpose_times(to_f[g].toarray()) if S else np.zeros((P, 0))
            shapes = basis.transpose_times(to_t[g])
            for a in range(k):
                if not Z[g, a]:
                    continue
                rows = slice(a * P, (a + 1) * P)
                information[rows, fs] += Z[g, a] * shifts
                information[rows, ts] += Z[g, a] * shapes
                for b in range(k):
                    if Z[g, b]:
                        information[rows, b * P : (b + 1) * P] += Z[g, a] * Z[g, b] * curvature
        information[fs, vs], information[ts, vs] = information[vs, fs].T, information[vs, ts].T
        information[fs, fs] = f_f.toarray()
        information[fs, ts], information[ts, fs], information[ts, ts] = f_t, f_t.T, hessian_t
        return Derivatives(gradient, information)

    def _root(self, moments: list[Moments]) -> csr_array:
        """B (n_values + n_shifts, .) with B B' the expected curvature of values and shifts, for the identity basis.

        A cell's curvature by (scaled part, shift) is an average of (slope, 1)(slope, 1)' times its own, so it has a root of its own.
        """
        parts = []
        for c, m in zip(self.cells, moments, strict=True):
            n, d = m.g1.shape
            cell = np.block([[m.h2, m.h1], [m.h1.transpose(0, 2, 1), m.h0]])
            curve, axes = np.linalg.eigh((cell + cell.transpose(0, 2, 1)) / 2)
            half = axes * np.sqrt(np.maximum(curve, 0))[:, None, :]  # (n, 2 d, 2 d); a lapse may curve a cell a trifle the wrong way
            row = np.arange(n * d).reshape(n, d, 1).repeat(2 * d, 2).ravel()
            column = np.arange(n * 2 * d).reshape(n, 1, 2 * d).repeat(d, 1).ravel()
            top, low = (coo_array((h.ravel(), (row, column)), shape=(n * d, 2 * n * d)).tocsr() for h in (half[:, :d], half[:, d:]))
            z = self.design.loadings[c.group.repeat(d)]
            values = [c.to_responses.multiply(z[:, a][:, None]).tocsr().T @ top for a in range(z.shape[1])]
            parts.append(vstack([*values, c.to_shifts.T @ low]))
        return csr_array(hstack(parts))

    def score_products(self, x: Array, nodes: Nodes, posterior: Array, cluster: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
        """(missing, meat): the information lost to not knowing the slopes, and the sum over clusters of outer products of scores.

        `cluster` (n_responses,) groups judgments by the prompt of their first response; None groups them by rater, the unknown
        ones by response.
        """
        R, Q = nodes.slope.shape
        known = R - 1
        contrasts = self._contrasts(x)
        missing = np.zeros((self.size, self.size))
        mean: Any = 0.0
        meat: Any = 0.0
        for q in range(Q):
            gradients = self._node_gradients(x, nodes, posterior, contrasts, q)
            if Q > 1 and known:
                codes = [np.where(c.block.rater < known, c.block.rater, -1) for c in self.cells]
                scores = self._summed_scores(gradients, codes, known)
                weighted = _scaled_rows(scores, posterior[:known, q])
                missing += _dense(scores.T @ weighted)
                mean = mean + weighted
            if cluster is None:
                codes = [
                    np.where(c.block.rater < known, c.block.rater, known + c.block.shown[:, 0] // self.design.n_groups) for c in self.cells
                ]
                total = known + self.design.n_responses
            else:
                codes = [cluster[c.block.shown[:, 0] // self.design.n_groups] for c in self.cells]
                total = int(cluster.max()) + 1
            for c, gradient in zip(self.cells, gradients, strict=True):
                gradient.weight = posterior[c.block.rater, q]
            meat = meat + self._summed_scores(gradients, codes, total)
        if Q > 1 and known:
            missing -= _dense(mean.T @ mean)
        return missing, _dense(meat.T @ meat)

    def _node_gradients(
        self, x: Array, nodes: Nodes, posterior: Array, contrasts: list[tuple[Array, Array]], q: int
    ) -> list[_CellGradient]:
        """Per block, the gradient of each cell's log probability at one node of the slopes."""
        import torch

        t = torch.from_numpy(x[self.shape].copy())
        out = []
        for c, (scaled, shift) in zip(self.cells, contrasts, strict=True):
            rater = c.block.rater
            slope = nodes.slope[rater, q]
            if (posterior[rater, q] > 1e-9).any():
                contrast = torch.from_numpy(slope[:, None] * scaled + shift)[None].requires_grad_(True)
                shape, g = self._cell_scores(c, contrast, t)
            else:
                shape, g = np.zeros((len(rater), self.n_shape)), np.zeros_like(scaled)
            count = c.block.count[:, None]
            out.append(_CellGradient(slope, g * count, shape * count, np.ones(len(rater))))
        return out

    def _summed_scores(self, gradients: list[_CellGradient], codes: list[NDArray[np.int64]], total: int) -> Any:
        """(total, size) scores summed over the cells of each code (below 0: left out); sparse where the basis is the identity."""
        k, G = self.design.loadings.shape[1], self.design.n_groups
        values: list[Any] = [csr_array((total, self.design.n_responses)) for _ in range(k)]
        shifts: Any = csr_array((total, self.n_shifts))
        shapes = np.zeros((total, self.n_shape))
        for c, gradient, code in zip(self.cells, gradients, codes, strict=True):
            n, d = gradient.contrast.shape
            use = np.where(code >= 0, gradient.weight, 0.0)
            row = np.maximum(code, 0)
            entries = np.repeat(use, d) * gradient.contrast.ravel()
            where = (np.repeat(row, d), np.arange(n * d))
            for a in range(k):
                z = self.design.loadings[np.minimum(c.group, G - 1), a] * gradient.slope
                if z.any():
                    values[a] = values[a] + csr_array((entries * np.repeat(z, d), where), shape=(total, n * d)) @ c.to_responses
            if self.n_shifts:
                shifts = shifts + csr_array((entries, where), shape=(total, n * d)) @ c.to_shifts
            if self.n_shape:
                shapes += csr_array((use, (row, np.arange(n))), shape=(total, n)) @ gradient.shape
        if self.basis.matrix is None:
            return hstack([*values, shifts, csr_array(shapes)]).tocsr()
        return np.hstack([*(self.basis.times_left(v) for v in values), shifts.toarray(), shapes])

    def _cell_scores(self, c: Cells, contrast: Tensor, t: Tensor) -> tuple[Array, Array]:
        """Per cell, the gradient of log p with respect to t (n, T) and to the contrast (n, d)."""
        import torch

        n = contrast.shape[1]
        t = t.detach().clone().requires_grad_(True)
        value = self._log_probs(c, contrast, t, slice(0, n))[0]
        (g,) = torch.autograd.grad(value.sum(), contrast, retain_graph=True)
        shape_grad = np.zeros((n, self.n_shape))
        mine = list(range(c.shape.start, c.shape.stop)) + ([self.n_shape - 1] if self.observation.lapse else [])
        if mine:
            # the families take one t for all cells, so reverse mode sums over them: differentiate that sum by a weight per cell
            weight = torch.ones(n, dtype=torch.float64, requires_grad=True)
            (along,) = torch.autograd.grad((value * weight).sum(), t, create_graph=True)
            for index in mine:
                (column,) = torch.autograd.grad(along[index], weight, retain_graph=True)
                shape_grad[:, index] = column.numpy()
        return shape_grad, g[0].detach().numpy()


def _dense(matrix: Any) -> Array:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def _scaled_rows(matrix: Any, weight: Array) -> Any:
    return matrix * weight[:, None] if isinstance(matrix, np.ndarray) else matrix.multiply(weight[:, None]).tocsr()


def _sum(values: Tensor) -> Array:
    return values.detach().sum(0).numpy()


def _put(g1: Array, g0: Array, rows: slice, g: Tensor, slope: Tensor) -> None:
    g1[rows] = _sum(g * slope[..., None])
    g0[rows] = _sum(g)


def _block_diagonal(h: Array) -> csr_array:
    """(n, d, d) -> (n d, n d) sparse."""
    n, d, _ = h.shape
    if d == 1:
        return csr_array(eye_array(n).multiply(h[:, 0, 0][None]))
    row = np.arange(n * d).reshape(n, d, 1).repeat(d, 2).ravel()
    column = np.arange(n * d).reshape(n, 1, d).repeat(d, 1).ravel()
    return coo_array((h.ravel(), (row, column)), shape=(n * d, n * d)).tocsr()
