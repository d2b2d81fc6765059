"""The nearest class mean: by cosine (SimpleCIL, arXiv 2303.07338; methods.md 1.2), or by Euclidean distance (1.1)."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12


class NearestMean:
    """score_c = cos(x, mean of class c); float64. Exact for any split of the rows into tasks."""

    def __init__(self) -> None:
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]
        self.counts = torch.empty(0, dtype=torch.float64)  # rows of each class, [C]

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n]; classes: how many there are with these, C."""
        x, old, self.means = x.double(), len(self.means), self.means.clone()
        for c in torch.unique(labels[labels < old]).tolist():
            rows = x[labels == c]
            total = float(self.counts[c]) + len(rows)
            self.means[c] += (rows - self.means[c]).sum(0) / total
            self.counts = self.counts.index_fill(0, torch.tensor(c), total)
        if classes > old:
            new = torch.stack([x[labels == c].mean(0) for c in range(old, classes)])
            self.means = torch.cat([self.means.to(x), new]) if old else new
            counts = torch.bincount(labels, minlength=classes)[old:].to(self.counts)
            self.counts = torch.cat([self.counts, counts])

    def forget(self, index: int) -> None:
        """Drops what is known of a class; its scores mean nothing afterwards."""
        self.means, self.counts = self.means.clone(), self.counts.clone()
        self.means[index], self.counts[index] = 0, 0

    def scores(self, x: Tensor) -> Tensor:
        """Cosines with all class means, [n, C]."""
        return unit(x.double()) @ unit(self.means.to(x.device)).T

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        return {"means": self.means, "counts": self.counts}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Goes on where another one was."""
        self.means, self.counts = state["means"], state["counts"]


class NearestMeanEuclidean(NearestMean):
    """score_c = -|x - mean of class c|^2; float64."""

    def scores(self, x: Tensor) -> Tensor:
        """Minus the squared distances to all class means, [n, C]."""
        x, means = x.double(), self.means.to(x.device)
        return 2 * x @ means.T - x.square().sum(1, keepdim=True) - means.square().sum(1)


def unit(rows: Tensor) -> Tensor:
    """Rows [n, d] at unit length; a zero row stays zero."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(FLOOR)
