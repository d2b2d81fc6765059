"""The nearest class mean: by cosine (SimpleCIL, arXiv 2303.07338; methods.md 1.2), or by Euclidean distance (1.1)."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12


class NearestMean:
    """score_c = cos(x, mean of class c); float64. Exact for any split of the rows into tasks that keeps classes whole."""

    def __init__(self) -> None:
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]
        self._first, self._sums, self._counts = 0, self.means, self.means.sum(1)  # of the last task's classes

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows of new classes, or more of those that came last: features [n, d], labels [n]; C classes with these."""
        x = x.double()
        if classes > len(self.means):
            self._first, new = len(self.means), classes - len(self.means)
            self._sums, self._counts = x.new_zeros(new, x.shape[1]), x.new_zeros(new)
        mine = labels - self._first
        self._sums = self._sums.index_add(0, mine, x)
        self._counts = self._counts.index_add(0, mine, torch.ones_like(x[:, 0]))
        means = self._sums / self._counts.unsqueeze(1)
        self.means = torch.cat([self.means[: self._first].to(x), means]) if self._first else means

    def scores(self, x: Tensor) -> Tensor:
        """Cosines with all class means, [n, C]."""
        return unit(x.double()) @ unit(self.means.to(x.device)).T

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        return {"means": self.means}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Goes on where another one was."""
        self.means = state["means"]


class NearestMeanEuclidean(NearestMean):
    """score_c = -|x - mean of class c|^2; float64."""

    def scores(self, x: Tensor) -> Tensor:
        """Minus the squared distances to all class means, [n, C]."""
        x, means = x.double(), self.means.to(x.device)
        return 2 * x @ means.T - x.square().sum(1, keepdim=True) - means.square().sum(1)


def unit(rows: Tensor) -> Tensor:
    """Rows [n, d] at unit length; a zero row stays zero."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(FLOOR)
