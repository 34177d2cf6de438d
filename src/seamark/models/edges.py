"""Where judgments meet: the distinct pairs and single responses that they are about, as a graph with its incidence and its Laplacian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from seamark.models.design import Block, Design

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """The distinct pairs and single responses that judgments of one group are about, pairs in the order of their codes."""

    left: Codes
    """(E,)"""
    right: Codes
    """(E,); -1 for a single response."""
    group: Codes
    """(E,), ascending"""

    def sites(self, n_responses: int) -> tuple[Codes, Codes]:
        """(E,) sites of the two ends, g n + i of response i as group g sees it; right is -1 for a single response."""
        start = self.group * n_responses
        return start + self.left, np.where(self.right >= 0, start + self.right, -1)


class Laplacian:
    """D' diag(h) D of the incidence D of edges (left, right), whose sparsity is worked out once."""

    def __init__(self, left: Codes, right: Codes, n: int) -> None:
        # a response beside itself has no gap, and no curvature
        pair, apart = (right >= 0) & (right != left), right != left
        self.left, self.right, self.n = left, right[pair], n
        self.pair = None if pair.all() else pair
        self.apart = None if apart.all() else apart
        m = len(self.right)
        rows, columns = np.concatenate([left[pair], self.right, np.arange(n)]), np.concatenate([self.right, left[pair], np.arange(n)])
        place = coo_array((np.arange(1.0, 2 * m + n + 1), (rows, columns)), shape=(n, n)).tocsr()
        order = place.data.astype(np.int64) - 1
        self.pattern = place
        self.on_diagonal = np.flatnonzero(order >= 2 * m)
        # which edge each entry is of; those of the diagonal are overwritten
        self.edge = np.where(order >= 2 * m, 0, order % max(m, 1)).astype(np.int32)

    def __call__(self, h: Array) -> csr_array:
        h = h if self.apart is None else np.where(self.apart, h, 0.0)
        across = h if self.pair is None else h[self.pair]
        data = across[self.edge] if len(across) else np.zeros(len(self.edge))
        np.negative(data, out=data)
        data[self.on_diagonal] = np.bincount(self.left, weights=h, minlength=self.n)
        data[self.on_diagonal] += np.bincount(self.right, weights=across, minlength=self.n)
        return csr_array((data, self.pattern.indices, self.pattern.indptr), shape=(self.n, self.n))


def numbered(keys: Codes) -> tuple[Codes, Codes]:
    """(distinct keys in order, the number of each key); where few are possible, without sorting them."""
    possible = int(keys.max(initial=0)) + 1
    if possible > len(keys):
        known, number = np.unique(keys, return_inverse=True)
        return known, number
    seen = np.zeros(possible, dtype=bool)
    seen[keys] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[keys]


def edge_keys(block: Block, design: Design) -> tuple[Codes, Array]:
    """(key, sign) of each cell whose contrast has one dimension: a number per (group, pair of responses), whatever their order."""
    m = block.shown.shape[1]
    if len(block.family.contrast(m)) > 1:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    n = design.n_responses
    first, group = block.shown[:, 0], block.group
    if m == 1:
        return (group * (n + 1) + n) * n + first, np.ones(len(first))
    second = block.shown[:, 1]
    key = (group * (n + 1) + np.maximum(first, second)) * n + np.minimum(first, second)
    K = block.family.contrast(2)
    return key, np.where(first <= second, K[0, 0], -K[0, 0])


def contrasts_of_many(block: Block, K: Array, n_responses: int, n_groups: int) -> csr_array:
    """(n * d, G n_responses): contrast per unit of utility."""
    n, m = block.shown.shape
    d = len(K)
    row = np.arange(n * d).reshape(n, d, 1).repeat(m, 2)
    weight = np.broadcast_to(K, (n, d, m))
    nonzero = weight != 0
    column = np.broadcast_to((block.group[:, None] * n_responses + block.shown)[:, None, :], (n, d, m))
    return coo_array((weight[nonzero], (row[nonzero], column[nonzero])), shape=(n * d, n_groups * n_responses)).tocsr()


def incidence(left: Codes, right: Codes, n: int) -> csr_array:
    """(E, n): u[left] - u[right]."""
    pair = right >= 0
    start = np.append(0, np.cumsum(1 + pair))
    ends, entries = np.empty(start[-1], dtype=np.int32), np.ones(start[-1])
    ends[start[:-1]], ends[start[:-1][pair] + 1] = left, right[pair]
    entries[start[:-1][pair] + 1] = -1.0
    matrix = csr_array((entries, ends, start), shape=(len(left), n))
    matrix.sum_duplicates()  # a response beside itself
    return matrix
