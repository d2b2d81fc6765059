"""Streaming LDA row by row, as the official code has it (arXiv 1909.01520; tyler-hayes/Deep_SLDA, SLDA_Model.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.closed_form.lda import Lda


class StreamingLda(Lda):
    """`Lda` with the covariance of a base session and of updates row by row; float64. It depends on the order of the rows.

    The first rows are the base: S is their covariance about the class means (divisor n), shrunk by OAS (scikit-learn's).
    Each later row x, the (n + 1)-th, makes n S into n S + n / (n + 1) (x - m)(x - m)^T, divided by n + 1, with m the mean
    of its class before it: 0 if it is the first, so that the first row of a class enters uncentred.

    Arguments:
        shrinkage: e in ((1 - e) S + e I)^-1.
    """

    def __init__(self, *, shrinkage: float) -> None:
        super().__init__(shrinkage=shrinkage, relative=False)

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows in their order: features [n, d], labels [n]; classes: how many there are with these, C."""
        x, first = x.double(), not len(self.counts)
        if first:
            self.second = x.new_zeros(x.shape[1], x.shape[1])  # n S
            self.sums, self.counts = x.new_zeros(0, x.shape[1]), x.new_zeros(0)
        new = classes - len(self.sums)
        sums = torch.cat([self.sums, x.new_zeros(new, x.shape[1])])
        counts = torch.cat([self.counts, x.new_zeros(new)])
        self.sums = sums.index_add(0, labels, x)
        self.counts = counts.index_add(0, labels, torch.ones_like(x[:, 0]))
        if first:
            self.second = len(x) * _oas(x - self._means()[labels])
        else:
            before = float(counts.sum()) + torch.arange(len(x)).to(x)
            deviation = x - _means_before(x, labels, sums, counts)
            self.second = self.second + (deviation * (before / (before + 1)).unsqueeze(1)).T @ deviation
        self._weights = None

    def _covariance(self, means: Tensor, *, total: bool) -> Tensor:
        return self.second / self.counts.sum()


def _means_before(x: Tensor, labels: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """The mean of each row's class over all rows before it, 0 if there are none, [n, d]; of sums [C, d] and counts [C]."""
    found = torch.empty_like(x)
    for c in labels.unique().tolist():
        rows = (labels == c).nonzero()[:, 0]
        known = counts[c] + torch.arange(len(rows)).to(x)
        found[rows] = (sums[c] + x[rows].cumsum(0) - x[rows]) / known.clamp_min(1).unsqueeze(1)
    return found


def _oas(centred: Tensor) -> Tensor:
    from sklearn.covariance import oas

    covariance, _ = oas(centred.cpu().numpy(), assume_centered=True)
    return torch.from_numpy(covariance).to(centred)
