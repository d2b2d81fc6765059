"""Sums of products over rows: each pair of columns is multiplied once."""

from __future__ import annotations

from torch import Tensor

WIDTH = 256  # of a block of columns


def add_gram(G: Tensor, x: Tensor) -> Tensor:
    """G + x^T x in the place of G [M, M], symmetric, for rows x [n, M] of its precision.

    Blocks below the diagonal are computed and copied to the other side: a half of the work for many blocks, and exactly
    symmetric.
    """
    for start in range(0, len(G), WIDTH):
        stop = start + WIDTH
        G[start:, start:stop].addmm_(x[:, start:].T, x[:, start:stop])
        G[start:stop, stop:] = G[stop:, start:stop].T
    return G
