"""The nearest class mean: by cosine (SimpleCIL, arXiv 2303.07338; methods.md 1.2), or by distance at unit length (1.1).

And the votes of the nearest rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Classifier

FLOOR = 1e-12
QUERIES_AT_ONCE = 1024
CLOSE = 1e-5  # at most 4: scores that float32 may not tell apart


class NearestMean(Classifier):
    """score_c = cos(x, mean of class c); float64. Exact for any split of the rows into tasks."""

    learned = ("means", "counts")

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

    def forget(self, index: int) -> bool:
        """Drops what is known of a class; its scores mean nothing afterwards."""
        self.means, self.counts = self.means.clone(), self.counts.clone()
        self.means[index], self.counts[index] = 0, 0
        return True

    def scores(self, x: Tensor) -> Tensor:
        """Cosines with all class means, [n, C]."""
        return unit(x.double()) @ unit(self.means.to(x.device)).T


class NearestUnitMean(NearestMean):
    """score_c = -|x / |x| - mean of class c|^2, the mean over rows at unit length, which is not scaled to that again."""

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n]; classes: how many there are with these, C."""
        super().observe(unit(x.double()), labels, classes)

    def scores(self, x: Tensor) -> Tensor:
        """Minus the squared distances to all class means, [n, C]; computed in float32 unless x is in float64.

        Rows whose two largest scores float32 may not tell apart are computed in float64: predictions are always its own.
        """
        if x.dtype == torch.float64 or len(self.means) < 2:
            return self._scores(x.double())
        found = self._scores(x.float())
        best = found.topk(2, 1).values
        close = (best[:, 0] - best[:, 1] <= CLOSE).nonzero()[:, 0]
        found = found.double()
        found[close] = self._scores(x[close].double())
        return found

    def _scores(self, x: Tensor) -> Tensor:
        x, means = unit(x), self.means.to(x).T
        return 2 * x @ means - (x.square().sum(1, keepdim=True) + means.square().sum(0))


def unit(rows: Tensor) -> Tensor:
    """Rows [n, d] at unit length; a zero row stays zero."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(FLOOR)


def votes(queries: Tensor, memory: Tensor, labels: Tensor, classes: int, *, k: int, tau: float) -> Tensor:
    """score_c = sum over the k nearest i of softmax_i(cos(x, m_i) / tau) [y_i = c]; a row's scores add up to 1.

    Arguments:
        queries, memory: rows of unit length, [n, d] and [m, d]; all of the memory is asked if it has fewer than k.
        labels: of the memory, [m].

    Returns:
        [n, classes].
    """
    found = []
    for rows in queries.split(QUERIES_AT_ONCE):
        near = (rows @ memory.T).topk(min(k, len(memory)), dim=1)
        weights = torch.softmax(near.values / tau, 1)
        found.append(weights.new_zeros(len(rows), classes).scatter_add_(1, labels[near.indices], weights))
    return torch.cat(found)
