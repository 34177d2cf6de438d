"""Conversations as trees: each prompt is read once, and the responses to it are branches that cannot see each other.

Conventions
-----------
A *path* is the tokens of one conversation; the paths of a group that begin alike share a *trunk*, and what follows are *branches*. A row
of a batch holds one tree or several, one after the other: token t sees token s if s comes no later in the row, belongs to the same
tree, and is of the trunk or of t's own branch. Positions continue from the trunk, so every token sees what it would in a row of its own,
and the hidden states are the same (Krell et al. 2021 for packing; dpo-prefix-sharing for pairs) unless attention knows more than the
mask and positions: sliding windows, ALiBi, recurrent layers. `agrees` tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamark.models.conversations import Tokens

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """Responses to one prompt."""

    trunk: Tokens
    branches: tuple[Tokens, ...]
    """Each with at least one token."""

    @staticmethod
    def of(paths: Sequence[Tokens]) -> Tree:
        """The tree of some conversations: the trunk is what all begin with."""
        shared = 0
        if len(paths) > 1:
            longest = min(len(p) for p in paths) - 1  # a branch holds at least the token that is read
            first = paths[0][:longest]
            shared = min((_first_difference(first, p[:longest]) for p in paths[1:]), default=0)
        return Tree(paths[0][:shared], tuple(p[shared:] for p in paths))

    @property
    def size(self) -> int:
        """Tokens, each once."""
        return len(self.trunk) + sum(len(b) for b in self.branches)

    @property
    def paths(self) -> list[Tokens]:
        return [np.concatenate([self.trunk, b]) for b in self.branches]


def _first_difference(one: Tokens, two: Tokens) -> int:
    differs = np.flatnonzero(one != two)
    return int(differs[0]) if len(differs) else len(one)


@dataclass(frozen=True)
class Rows:
    """Trees laid out as a batch; what a model is given."""

    ids: Tensor
    """(B, L) tokens; pad where there is none."""
    positions: Tensor
    """(B, L)"""
    tree: Tensor
    """(B, L) number of the tree in its row, -1 for pads."""
    branch: Tensor
    """(B, L) 0 for the trunk, else number of the branch."""
    leaves: Tensor
    """(n,) place in the flattened batch of the last token of each branch, tree after tree."""
    lengths: Tensor
    """(n,) tokens of each branch."""

    def to_inputs(self) -> dict[str, Tensor]:
        return vars(self).copy()


def lay_out(trees: Sequence[Tree], pad: int, *, share: bool = True, row_tokens: int = 0) -> Rows:
    """A batch of trees, one in each row, or as many as fit in `row_tokens`, first fit.

    Without `share` every conversation is a row of its own, in the same order.
    """
    if not share:
        trees = [Tree(path[:0], (path,)) for tree in trees for path in tree.paths]
    capacity = max(row_tokens, max(t.size for t in trees)) if row_tokens else 0
    rows: list[list[int]] = []
    room: list[int] = []
    for number, tree in enumerate(trees):
        place = next((r for r, free in enumerate(room) if free >= tree.size), None) if capacity else None
        if place is None:
            rows.append([number])
            room.append(capacity - tree.size)
        else:
            rows[place].append(number)
            room[place] -= tree.size
    width = max(sum(trees[i].size for i in row) for row in rows)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    positions, branch = np.zeros_like(ids), np.zeros_like(ids)
    owner = np.full_like(ids, -1)
    leaves: list[list[int]] = [[] for _ in trees]
    for r, row in enumerate(rows):
        start = 0
        for local, number in enumerate(row):
            tree = trees[number]
            owner[r, start : start + tree.size] = local
            depth = len(tree.trunk)
            ids[r, start : start + depth] = tree.trunk
            positions[r, start : start + depth] = np.arange(depth)
            start += depth
            for b, tokens in enumerate(tree.branches, 1):
                stop = start + len(tokens)
                ids[r, start:stop], branch[r, start:stop] = tokens, b
                positions[r, start:stop] = depth + np.arange(len(tokens))
                leaves[number].append(r * width + stop - 1)
                start = stop
    lengths = [len(b) for t in trees for b in t.branches]
    flat = [leaf for each in leaves for leaf in each]
    return Rows(*(torch.from_numpy(a) for a in (ids, positions, owner, branch, np.array(flat), np.array(lengths))))


def seen_mask(tree: Tensor, branch: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, L) 0 where a token sees another, else the lowest number: a mask that is added to attention scores.

    A pad sees itself alone, since a token that sees nothing would be NaN.
    """
    L = tree.shape[1]
    order = torch.arange(L, device=tree.device)
    sees = tree[:, :, None] == tree[:, None, :]
    sees &= (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    sees &= (order[:, None] >= order[None, :]) & (tree[:, :, None] >= 0)
    sees |= order[:, None] == order[None, :]
    mask = torch.zeros(sees.shape, dtype=dtype, device=tree.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def block_mask(tree: Tensor, branch: Tensor) -> Any:
    """The same for FlexAttention, which skips the blocks that nothing sees."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same = (tree[b, q] == tree[b, k]) & ((branch[b, k] == 0) | (branch[b, q] == branch[b, k]))
        return (same & (q >= k) & (tree[b, q] >= 0)) | (q == k)

    B, L = tree.shape
    return create_block_mask(sees, B, None, L, L, device=tree.device)
