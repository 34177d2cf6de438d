"""Shifts: what moves a contrast whatever the slope, as one matrix per block, D f.

Effects name them (`effects`); here they become columns: one for position, one per rater for leniency, one per source model, ... Most
are sparse; the numbers of slots are dense, and with them a block has as many rows as judgments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, eye_array

from seamark.models.design import Block, Design
from seamark.models.effects import PROMPT, Bias, Covariate, Leniency, Missingness, Position, Role, Source, Taste
from seamark.models.observation import Observation

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_CHUNK = 16_000
"""Rows weighed at once: they then stay in the processor's cache."""
_OF_PROMPTS = "leniency of prompts"


@dataclass(frozen=True)
class Shift:
    """A run of shift parameters that share a prior."""

    name: str
    """position, position of raters, leniency, leniency of prompts, source, taste, propensity, bias by NUMBER, or that of raters; position,
    leniency or source by COLUMN."""
    start: int
    names: tuple[str, ...]
    """Per parameter; empty where there is one per rater."""
    n: int
    estimated: bool
    """Whether the prior variance is estimated; else it is 1."""

    @property
    def stop(self) -> int:
        return self.start + self.n

    @property
    def per_rater(self) -> bool:
        return not self.names

    @property
    def of_many(self) -> bool:
        """Whether it is one of very many alike, of raters or of prompts, whose spread says more than they do."""
        return self.per_rater or self.name == _OF_PROMPTS


def shifts_of(design: Design, observation: Observation) -> tuple[Shift, ...]:
    """The runs of shift parameters that these effects have in this design."""
    shifts: list[Shift] = []

    def add(name: str, names: tuple[str, ...], n: int, *, estimated: bool) -> None:
        shifts.append(Shift(name, shifts[-1].stop if shifts else 0, names, n, estimated))

    def raters_in(blocks: list[Block]) -> int:
        known = [np.unique(b.rater[b.rater < design.n_raters]) for b in blocks]
        return len(np.unique(np.concatenate(known))) if known else 0

    placed = [b for b in design.blocks if _has_place(b) and b.ordered.any()]
    R = design.n_raters
    for effect in observation.effects:
        if isinstance(effect, Position) and placed:
            add("position", ("position",), 1, estimated=False)
            for c in _by(design, "position"):
                add(f"position by {c.by}", c.names, c.width, estimated=c.width > 1)
            if effect.per_rater and raters_in(placed) > 1:
                add("position of raters", (), R, estimated=True)
        # a shift per rater needs at least two raters, else it is the cut points under another name
        elif isinstance(effect, Leniency) and any(b.lenient for b in design.blocks):
            for c in _by(design, "leniency"):
                if c.by == PROMPT:
                    add(_OF_PROMPTS, c.levels, len(c.levels), estimated=True)
                else:
                    add(f"leniency by {c.by}", c.names, c.width, estimated=c.width > 1)
            if raters_in([b for b in design.blocks if b.lenient]) > 1:
                add("leniency", (), R, estimated=True)
        elif isinstance(effect, Source) and design.sources:
            add("source", design.sources, len(design.sources), estimated=True)
            for c in _by(design, "source"):
                names = tuple(f"{model}, {name}" for name in c.names for model in design.sources)
                add(f"source by {c.by}", names, len(names), estimated=True)
        elif isinstance(effect, Taste) and raters_in(list(design.blocks)) > 1:
            add(f"taste for {effect.of}", (), R, estimated=True)
        elif isinstance(effect, Bias) and effect.by in design.biases:
            add(f"bias by {effect.by}", (effect.by,), 1, estimated=False)
            if effect.per_rater and raters_in([b for b in design.blocks if b.numbers.shape[2]]) > 1:
                add(f"bias by {effect.by} of raters", (), R, estimated=True)
        elif isinstance(effect, Missingness) and raters_in([b for b in design.blocks if b.name == "pair/answered"]) > 1:
            add("propensity", (), R, estimated=True)
    return tuple(shifts)


def _by(design: Design, role: Role) -> list[Covariate]:
    """The columns by which an effect differs."""
    return [c for c in design.covariates if c.role == role]


def _has_place(block: Block) -> bool:
    return not block.lenient and block.name != "pair/answered"


@dataclass(frozen=True)
class ShiftMatrix:
    """D (n * d, S), a row per cell and dimension of its contrast: a sparse part, and columns that are dense."""

    sparse: csr_array
    """(n * d, S), 0 in the dense columns."""
    dense: Array
    """(C, n * d)"""
    columns: Codes
    """(C,) where in S the dense ones stand."""

    @property
    def empty(self) -> bool:
        return not self.sparse.nnz and not len(self.columns)

    def times(self, f: Array) -> Array:
        """D f, for f of shape (S,) or (S, B)."""
        if not len(self.columns):
            return self.sparse @ f
        out = self.dense.T @ f[self.columns]
        return out + self.sparse @ f if self.sparse.nnz else out

    def transpose_times(self, v: Array) -> Array:
        """D' v, for v of shape (n * d,) or (n * d, B)."""
        out = self.sparse.T @ v
        out[self.columns] += self.dense @ v
        return out

    def after(self, left: csr_array) -> csr_array:
        """left D, for left of shape (r, n * d)."""
        return csr_array(left @ self.sparse + self._placed(left @ self.dense.T)) if len(self.columns) else csr_array(left @ self.sparse)

    def gram(self, h: Array) -> csr_array:
        """D' H D, H being diagonal (h of shape (n,)) or in blocks (n, d, d)."""
        S, C = self.sparse.shape[1], len(self.columns)  # type: ignore[index]  # scipy types the shape as optional
        H = block_diagonal(h) if h.ndim > 1 else None
        out = across = csr_array((S, S))
        if self.sparse.nnz:
            data = self.sparse.data * np.repeat(h, np.diff(self.sparse.indptr)) if H is None else self.sparse.data
            weighed = csr_array((data, self.sparse.indices, self.sparse.indptr), shape=self.sparse.shape)
            weighed = weighed if H is None else csr_array(H @ weighed)
            out = csr_array(self.sparse.T @ weighed)
            across = self._placed(np.asarray(weighed.T @ self.dense.T)) if C else across
        if not C:
            return out
        own = np.zeros((C, C)) if H is None else self.dense @ np.asarray(H @ self.dense.T)
        for start in range(0, self.dense.shape[1] if H is None else 0, _CHUNK):
            part = self.dense[:, start : start + _CHUNK]
            own += (part * h[start : start + _CHUNK]) @ part.T
        where = np.repeat(self.columns, C), np.tile(self.columns, C)
        return csr_array(out + across + across.T + coo_array((own.ravel(), where), shape=out.shape))

    def summed(self, weight: Array, code: Codes, total: int) -> csr_array:
        """(total, S) rows times weights (n * d,), summed over those of each code (n * d,)."""
        S = self.sparse.shape[1]  # type: ignore[index]  # scipy types the shape as optional
        out = csr_array((total, S))
        if self.sparse.nnz:
            row_of = np.diff(self.sparse.indptr)
            entries = self.sparse.data * np.repeat(weight, row_of), (np.repeat(code, row_of), self.sparse.indices)
            out = coo_array(entries, shape=(total, S)).tocsr()
        if not len(self.columns):
            return out
        return csr_array(
            out
            + self._placed(
                np.stack([np.bincount(code, weights=weight * x, minlength=total).astype(np.float64, copy=False) for x in self.dense], 1)
            )
        )

    def _placed(self, narrow: Array) -> csr_array:
        """(r, S) from (r, C)."""
        S = self.sparse.shape[1]  # type: ignore[index]  # scipy types the shape as optional
        rows, C = narrow.shape
        return csr_array((narrow.ravel(), np.tile(self.columns, rows), np.arange(0, rows * C + 1, C)), shape=(rows, S))


def block_diagonal(h: Array) -> csr_array:
    """(n, d, d) -> (n d, n d) sparse."""
    n, d, _ = h.shape
    if d == 1:
        return csr_array(eye_array(n).multiply(h[:, 0, 0][None]))
    row = np.arange(n * d).reshape(n, d, 1).repeat(d, 2).ravel()
    column = np.arange(n * d).reshape(n, 1, d).repeat(d, 1).ravel()
    return coo_array((h.ravel(), (row, column)), shape=(n * d, n * d)).tocsr()


def shift_matrix(block: Block, K: Array, shifts: tuple[Shift, ...], design: Design, rater: Codes, n_raters: int) -> ShiftMatrix:
    """D (n * d, S): contrast per unit of each shift. `rater` (n,) and `n_raters` are in the codes of the fit, n_raters unknown."""
    n, d = len(rater), len(K)
    rows, columns, data = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    every = np.arange(n * d).reshape(n, d)
    known = np.flatnonzero(rater < n_raters)

    def level(s: Shift, role: Role) -> Array:
        """(n, C) the numbers of the column by which this effect differs."""
        i = next(i for i, c in enumerate(design.covariates) if c.role == role and s.name == f"{role} by {c.by}")
        return np.array(design.covariates[i].table)[block.covariate[:, i]]

    def put(cells: Codes, column: Codes | int, value: Array) -> None:
        """value (len(cells), d) at one column per cell."""
        rows.append(every[cells].ravel())
        columns.append(np.broadcast_to(np.asarray(column).reshape(-1, 1), (len(cells), d)).ravel())
        data.append(value.ravel())

    dense: dict[int, int] = {}
    numbered = {f"bias by {by}": i for i, by in enumerate(design.biases)} if block.numbers.shape[2] else {}
    placed = block.ordered[:, None] * K[:, 0] if _has_place(block) else np.zeros((n, d))
    for s in shifts:
        if s.name in numbered:
            dense[s.start] = numbered[s.name]
        elif s.name.removesuffix(" of raters") in numbered:
            put(known, s.start + rater[known], block.numbers[known, :, numbered[s.name.removesuffix(" of raters")]])
        elif s.name == "position":
            put(np.arange(n), s.start, placed)
        elif s.name == "position of raters":
            put(known, s.start + rater[known], placed[known])
        elif s.name.startswith("position by "):
            for j, x in enumerate(level(s, "position").T):
                put(np.arange(n), s.start + j, placed * x[:, None])
        elif s.name.startswith("leniency by ") and block.lenient:
            for j, x in enumerate(level(s, "leniency").T):
                put(np.arange(n), s.start + j, np.repeat(x[:, None], d, axis=1))
        elif s.name == _OF_PROMPTS and block.lenient:
            prompt = block.covariate[:, next(i for i, c in enumerate(design.covariates) if c.by == PROMPT)]
            here = np.flatnonzero(prompt < s.n)
            put(here, s.start + prompt[here], np.ones((len(here), d)))
        elif s.name == "leniency" and block.lenient:
            put(known, s.start + rater[known], np.ones((len(known), d)))
        elif s.name == "propensity" and block.name == "pair/answered":
            put(known, s.start + rater[known], np.tile([0.0, 1.0], (len(known), 1)))
        elif s.name.startswith("source") and block.name != "pair/answered":
            M = len(design.sources)
            times = np.ones((n, 1)) if s.name == "source" else level(s, "source")
            for slot in range(block.source.shape[1]):
                from_known = np.flatnonzero(block.source[:, slot] < M)
                for j, x in enumerate(times[from_known].T):
                    put(from_known, s.start + j * M + block.source[from_known, slot], x[:, None] * K[:, slot])
        elif s.name.startswith("taste for "):
            put(known, s.start + rater[known], design.tastes[s.name.removeprefix("taste for ")][block.shown[known]] @ K.T)
    where = (np.concatenate(rows), np.concatenate(columns))
    matrix = coo_array((np.concatenate(data), where), shape=(n * d, shifts[-1].stop if shifts else 0)).tocsr()
    matrix.eliminate_zeros()
    numbers, picked = np.ascontiguousarray(np.moveaxis(block.numbers, -1, 0)).reshape(-1, n * d), list(dense.values())
    kept = numbers if picked == list(range(len(numbers))) else numbers[picked]
    return ShiftMatrix(matrix, kept, np.array(list(dense), dtype=np.int64))
