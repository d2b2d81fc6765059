"""Sums of products over rows: each pair of columns is multiplied once."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH = 256  # of a block of columns
ROWS = 512  # that are summed in float32 at most, before the sum is added in float64


def add_gram(G: Tensor, x: Tensor, rows: int = ROWS) -> Tensor:
    """G + x^T x in the place of G [M, M], symmetric, for rows x [n, M] of its precision or, with G in float64, of float32.

    Blocks below the diagonal are computed and copied to the other side: a half of the work for many blocks, and exactly
    symmetric. Rows of float32 are multiplied in float32 about their mean, `rows` at a time, and these sums are added in
    float64, so that rounding is relative to what varies and not to what is the same in all rows.
    """
    narrow: tuple[Tensor, ...] = ()
    if x.dtype != G.dtype:
        total = x.sum(0, dtype=G.dtype)
        mean = (total / max(len(x), 1)).to(x.dtype)
        narrow, about = (x - mean).split(rows), mean.to(G.dtype)
        x = torch.stack([total - len(x) * about, about])  # what centring takes from x^T x: the first is rounding's
    other = torch.stack([about, total]) if narrow else x
    for start in range(0, len(G), WIDTH):
        stop = start + WIDTH
        block = G[start:, start:stop].addmm_(x[:, start:].T, other[:, start:stop])
        for some in narrow:
            block += some[:, start:].T @ some[:, start:stop]
        G[start:stop, stop:] = G[stop:, start:stop].T
        corner = G[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).T)
    return G
