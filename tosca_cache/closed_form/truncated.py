"""Least squares on very many random features through a truncated singular value decomposition (LoRanPAC, ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.expansion import RandomFeatures

KEPT = 0.75  # of the rows seen: directions that are kept, at most
NOTHING = 1e-12  # of the largest squared singular value: what is less is rounding


class TruncatedRidge(Solved):
    """W = U diag(1 / (s^2 + ridge)) U^T Q, with U diag(s^2) U^T near to G = sum h h^T, and Q = sum h y^T exact; float64.

    Of all rows H only A = diag(s) U^T [k, M] is kept, so that A^T A is near to G. A block of rows H_b is appended and the
    result truncated: the k leading eigenvectors V of the products [A; H_b] [A; H_b]^T give the new A as V^T [A; H_b], which
    are the leading right singular vectors of [A; H_b] times their singular values, as the update by QR and SVD of the paper
    finds them. k is at most `rank` and M, and at most 0.75 of the rows seen (rounded, at least 1).

    Arguments:
        features: random features in float64. rank: directions that are kept, at most; blocks have as many rows.
        ridge: what is added to s^2.
    """

    learned = ("axes", "Q", "rows")

    def __init__(self, features: RandomFeatures, *, rank: int, ridge: float = 0.0) -> None:
        self.features, self.rank, self.ridge = features, rank, ridge
        self.rows = 0
        self.axes = torch.empty(0, 0, dtype=torch.float64)  # A [k, M]
        self.Q = torch.empty(0, 0, dtype=torch.float64)  # [M, C]

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        for some, targets in zip(x.split(self.rank), labels.split(self.rank), strict=True):
            h = self.features.apply(some)
            if not self.rows:
                self.axes, self.Q = h[:0], h.new_zeros(h.shape[1], 0)
            self.Q = F.pad(self.Q, (0, classes - self.Q.shape[1])).index_add_(1, targets, h.T)
            self.rows += len(h)
            self._append(h)
        self._weights = None

    def solved(self) -> Tensor:
        """W, [M, C]."""
        squares = self.axes.square().sum(1)
        kept = squares > NOTHING * squares.max()
        axes, squares = self.axes[kept], squares[kept]
        return axes.T @ ((axes @ self.Q) / (squares * (squares + self.ridge)).unsqueeze(1))

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.features.times(x, self.weights())

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """That of the directions, and of a block beside them."""
        kept = min(self.rank, sum(rows))
        block = kept + min(self.rank, max(rows))
        return 8 * (self.features.size * (2 * block + 2 * classes + dim) + 3 * block**2)

    def _append(self, h: Tensor) -> None:
        products = torch.block_diag(self.axes.square().sum(1).diag(), h @ h.T)  # axes are orthogonal
        products[len(self.axes) :, : len(self.axes)] = h @ self.axes.T  # of which eigh reads the lower half
        count = min(max(1, round(KEPT * self.rows)), self.rank, len(products), h.shape[1])
        vectors = torch.linalg.eigh(products).eigenvectors[:, -count:].T
        self.axes = (vectors[:, : len(self.axes)] @ self.axes).addmm_(vectors[:, len(self.axes) :], h)
