"""Random features h = ReLU(x P): one fixed random layer that makes classes easier to separate by a linear map."""

from __future__ import annotations

import torch
from torch import Tensor

LAWS = ("gaussian", "uniform")
KEPT_BYTES = 2**28  # of random features of rows that are asked about again
ROWS_AT_ONCE = 2048


class RandomFeatures:
    """h = ReLU(x P) with P [d, M] from a seed; P is drawn when first needed and is no part of any state.

    Arguments:
        size: M.
        seed: of P, which is drawn in float64 and then rounded.
        law: `gaussian`: P ~ N(0, 1) (RanPAC, methods.md 5); `uniform`: P ~ U(-1/sqrt d, 1/sqrt d) (ACIL, methods.md 4).
        dtype: of P and h.
    """

    def __init__(self, size: int, *, seed: int, law: str = "gaussian", dtype: torch.dtype = torch.float64) -> None:
        if law not in LAWS:
            raise ValueError(f"law is {law!r}; it is one of {', '.join(LAWS)}")
        self.size, self.seed, self.law, self.dtype = size, seed, law, dtype
        self._projection: Tensor | None = None
        self._asked: tuple[Tensor, list[Tensor]] | None = None  # rows, and their random features in blocks

    def apply(self, x: Tensor) -> Tensor:
        """Random features [n, M] of features [n, d], on the device of `x`."""
        if self._projection is None:
            self._projection = self.projection(x.shape[1]).to(x.device)
        return (x.to(self.dtype) @ self._projection).relu_()

    def times(self, x: Tensor, weights: Tensor) -> Tensor:
        """h W [n, C] for features x [n, d] and weights W [M, C].

        Test rows are asked about after every task, each time with more of them at the end: the random features of the
        first ones, up to `KEPT_BYTES`, are kept. Those of the others are made for a block of rows at a time.
        """
        rows, kept = self._asked or (x[:0], [])
        known = len(rows) if rows.dtype == x.dtype and torch.equal(rows, x[: len(rows)]) else 0
        kept = kept[:] if known else []
        parts, room = [h @ weights for h in kept], KEPT_BYTES // (self.size * self.dtype.itemsize) - known
        for block in x[known:].split(ROWS_AT_ONCE):
            h = self.apply(block)
            parts.append(h @ weights)
            if len(block) <= room:
                kept.append(h)
                known, room = known + len(block), room - len(block)
            else:
                room = 0
        if known > len(rows):
            self._asked = x[:known].clone(), kept
        return torch.cat(parts)

    def projection(self, dim: int) -> Tensor:
        """P for features of `dim` numbers, [dim, M], drawn anew on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.law == "gaussian":
            return torch.randn(dim, self.size, generator=generator, dtype=torch.float64).to(self.dtype)
        uniform = torch.rand(dim, self.size, generator=generator, dtype=torch.float64)
        return ((2 * uniform - 1) / dim**0.5).to(self.dtype)
