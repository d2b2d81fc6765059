"""The nearest class mean: by cosine (SimpleCIL, arXiv 2303.07338; methods.md 1.2), or by Euclidean distance (1.1)."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12


class NearestMean:
    """score_c = cos(x, mean of class c); float64. Exact for any split of the rows into tasks that keeps classes whole."""

    def __init__(self) -> None:
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the means of the new classes: features [n, d], labels [n]; classes: how many there are with these, C."""
        x = x.double()
        new = torch.stack([x[labels == c].mean(0) for c in range(len(self.means), classes)])
        self.means = torch.cat([self.means.to(x), new]) if len(self.means) else new

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
