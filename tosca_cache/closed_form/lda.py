"""Linear discriminant analysis from sums: one covariance within classes, shared by all (methods.md 2, "SLDA")."""

from __future__ import annotations

import torch
from torch import Tensor

SHRINKAGE = 1e-2
NOTHING = 1e-12  # of the second moment: what rounding leaves of a covariance of zero


class Lda:
    """Scores w_c . x + b_c with w_c = L mu_c, b_c = -mu_c . w_c / 2 and L = ((1 - e) S + e t I)^-1; float64.

    S is the covariance within classes of all rows so far, t its mean variance (trace / d), so that the shrinkage e does not
    depend on the scale of the features. Exact for any split of the rows into tasks.
    """

    def __init__(self, *, shrinkage: float = SHRINKAGE) -> None:
        self.shrinkage = shrinkage
        self.second = torch.empty(0, 0, dtype=torch.float64)  # sum x x^T, [d, d]
        self.sums = torch.empty(0, 0, dtype=torch.float64)  # of each class, [C, d]
        self.counts = torch.empty(0, dtype=torch.float64)
        self._weights: tuple[Tensor, Tensor] | None = None

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n]; classes: how many there are with these, C."""
        x = x.double()
        if not len(self.second):
            self.second, self.sums = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(0, x.shape[1])
            self.counts = x.new_zeros(0)
        new = classes - len(self.sums)
        self.second = self.second + x.T @ x
        self.sums = torch.cat([self.sums, x.new_zeros(new, x.shape[1])]).index_add(0, labels, x)
        self.counts = torch.cat([self.counts, x.new_zeros(new)]).index_add(0, labels, torch.ones_like(x[:, 0]))
        self._weights = None

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""
        if self._weights is None:
            self._weights = self._solved()
        weights, bias = self._weights
        return x.double() @ weights + bias

    def _solved(self) -> tuple[Tensor, Tensor]:
        means = self.sums / self.counts.unsqueeze(1).clamp_min(1)
        freedom = max(float(self.counts.sum()) - len(means), 1.0)
        within = (self.second - (means * self.counts.unsqueeze(1)).T @ means) / freedom
        scale, whole = float(within.diagonal().mean()), float(self.second.diagonal().mean() / self.counts.sum())
        # With one row a class there is no covariance, and the nearest mean is what is left.
        shrunk = identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
        if scale > NOTHING * whole:
            shrunk = (1 - self.shrinkage) * within + self.shrinkage * scale * identity
        weights = torch.linalg.solve(shrunk, means.T)  # [d, C]
        return weights, -0.5 * (means.T * weights).sum(0)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        return {"second": self.second, "sums": self.sums, "counts": self.counts}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Goes on where another one was."""
        self.second, self.sums, self.counts = state["second"], state["sums"], state["counts"]
        self._weights = None
