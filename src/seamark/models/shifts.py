"""Shifts: what moves a contrast whatever the slope, as one sparse matrix per block, D f.

Effects name them (`effects`); here they become columns: one for position, one per rater for leniency, one per source model, ...
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from seamark.models.design import Block, Design
from seamark.models.effects import Leniency, Missingness, Position, Source, Taste
from seamark.models.observation import Observation

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Shift:
    """A run of shift parameters that share a prior."""

    name: str
    """position, position of raters, leniency, source, taste, propensity, or position by COLUMN."""
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
            for c in design.covariates:
                if c.role == "position":
                    add(f"position by {c.by}", c.names, c.width, estimated=c.width > 1)
            if effect.per_rater and raters_in(placed) > 1:
                add("position of raters", (), R, estimated=True)
        # a shift per rater needs at least two raters, else it is the cut points under another name
        elif isinstance(effect, Leniency) and raters_in([b for b in design.blocks if b.lenient]) > 1:
            add("leniency", (), R, estimated=True)
        elif isinstance(effect, Source) and design.sources:
            add("source", design.sources, len(design.sources), estimated=True)
        elif isinstance(effect, Taste) and raters_in(list(design.blocks)) > 1:
            add(f"taste for {effect.of}", (), R, estimated=True)
        elif isinstance(effect, Missingness) and raters_in([b for b in design.blocks if b.name == "pair/answered"]) > 1:
            add("propensity", (), R, estimated=True)
    return tuple(shifts)


def _has_place(block: Block) -> bool:
    return not block.lenient and block.name != "pair/answered"


def shift_matrix(block: Block, K: Array, shifts: tuple[Shift, ...], design: Design, rater: Codes, n_raters: int) -> csr_array:
    """D (n * d, S): contrast per unit of each shift. `rater` (n,) and `n_raters` are in the codes of the fit, n_raters unknown."""
    n, d = len(rater), len(K)
    rows, columns, data = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    every = np.arange(n * d).reshape(n, d)
    known = np.flatnonzero(rater < n_raters)

    def put(cells: Codes, column: Codes | int, value: Array) -> None:
        """value (len(cells), d) at one column per cell."""
        rows.append(every[cells].ravel())
        columns.append(np.broadcast_to(np.asarray(column).reshape(-1, 1), (len(cells), d)).ravel())
        data.append(value.ravel())

    placed = block.ordered[:, None] * K[:, 0] if _has_place(block) else np.zeros((n, d))
    for s in shifts:
        if s.name == "position":
            put(np.arange(n), s.start, placed)
        elif s.name == "position of raters":
            put(known, s.start + rater[known], placed[known])
        elif s.name.startswith("position by "):
            i = next(i for i, c in enumerate(design.covariates) if c.role == "position" and s.name == f"position by {c.by}")
            table = np.array(design.covariates[i].table)[block.covariate[:, i]]
            for j in range(table.shape[1]):
                put(np.arange(n), s.start + j, placed * table[:, j, None])
        elif s.name == "leniency" and block.lenient:
            put(known, s.start + rater[known], np.ones((len(known), d)))
        elif s.name == "propensity" and block.name == "pair/answered":
            put(known, s.start + rater[known], np.tile([0.0, 1.0], (len(known), 1)))
        elif s.name == "source" and block.name != "pair/answered":
            for slot in range(block.source.shape[1]):
                from_known = np.flatnonzero(block.source[:, slot] < s.n)
                put(from_known, s.start + block.source[from_known, slot], np.broadcast_to(K[:, slot], (len(from_known), d)))
        elif s.name.startswith("taste for "):
            put(known, s.start + rater[known], design.tastes[s.name.removeprefix("taste for ")][block.shown[known]] @ K.T)
    where = (np.concatenate(rows), np.concatenate(columns))
    matrix = coo_array((np.concatenate(data), where), shape=(n * d, shifts[-1].stop if shifts else 0)).tocsr()
    matrix.eliminate_zeros()
    return matrix
