"""LoRanPAC (ICLR 2025): RanPAC's least squares on many more random features, of which a truncated SVD is kept.

h = ReLU(x R), R ~ N(0, 1); scores h^T U diag(1 / s^2) U^T Q with the truncated singular value decomposition U, s of
all h so far and Q = sum h y^T. No lambda is chosen. What differs from the paper: M = 100,000 and rank 10,000 are 8 GB in
float64; the defaults are a fifth of both. What differs from the official code: it updates U by QR and SVD and
orthogonalises it again, in single precision; here the same directions follow from the products of the rows that are kept,
in float64. Directions that rounding alone fills (duplicate rows) are left out, where the code divides by them; its blocks
have up to 10,000 rows, here up to the rank.

With few rows a quarter of the directions is truncated too: after n rows, round(0.75 n) are left, and at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed

KEPT = 0.75  # of the rows seen: directions that are kept, at most
NOTHING = 1e-12  # of the largest squared singular value: what is less is rounding


@register_learner
class LoRanPac(ClosedForm):
    """Stores singular directions times their values, [k, M] with k <= rank and k <= 0.75 n of n rows, and Q [M, C].

    Arguments:
        expansion: number M of random features (100,000 in the paper).
        rank: directions that are kept, at most (10,000 in the paper). ridge: what is added to squared singular values.
    """

    name = "loranpac"
    what = "LoRanPAC (ICLR 2025): least squares on many random ReLU features through a truncated SVD, without a lambda."
    source = "LoRanPAC on frozen features (ICLR 2025)"
    agrees = (
        "differs: a fifth of the published features and rank, in float64, and directions that rounding alone "
        "fills are left out; otherwise the truncated updates of the official code (liangzu/loranpac, "
        "utils/inc_net.py, 7c3557c)."
    )
    all_threads = True

    def __init__(
        self, *, expansion: Count = 20_000, rank: Count = 2000, ridge: Annotated[float, Ge(0)] = 0.0, **common: Any
    ) -> None:
        super().__init__(**common)
        features = RandomFeatures(expansion, seed=derive_seed(self.seed, "projection"))
        self.classifier = TruncatedRidge(features, rank, ridge)


class TruncatedRidge(Solved):
    """W = U diag(1 / (s^2 + ridge)) U^T Q, with U diag(s^2) U^T near to G = sum h h^T, and Q = sum h y^T exact; float64.

    Of all rows H only A = diag(s) U^T [k, M] is kept, so that A^T A is near to G. A block of rows H_b, as many as the rank,
    is appended and the result truncated: the k leading eigenvectors V of the products [A; H_b] [A; H_b]^T give the new A as
    V^T [A; H_b], which are the leading right singular vectors of [A; H_b] times their singular values, as the update by QR
    and SVD of the paper finds them. k is at most `rank` and M, and at most 0.75 of the rows seen (rounded, at least 1).
    """

    learned = ("axes", "Q", "rows")

    def __init__(self, features: RandomFeatures, rank: int, ridge: float) -> None:
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
