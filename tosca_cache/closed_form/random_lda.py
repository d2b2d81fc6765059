"""Linear discriminant analysis on many random features, from the ridge regression on them.

With G = H^T H, Q = H^T Y and N = diag(n_c), the class means are N^-1 Q^T and the scatter within classes is S = G - Q
N^-1 Q^T. Let W = (G + r I)^-1 Q be the ridge solution and T = (N - Q^T W) / r = Y^T (H H^T + r I)^-1 Y, [C, C]. By
Woodbury's identity the weights of discriminant analysis are those of ridge regression, mixed among the classes:

    (S + r I)^-1 Q N^-1 = W (r T)^-1

so that what makes a ridge system of many features small (`random_ridge`) serves here, and nothing is inverted twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Classifier
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.lda import oas_shrinkage
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.roots import Grown, padded

NOTHING = 1e-12  # of the second moment: what rounding leaves of a scatter of zero


class RandomLda(RandomRidge):
    """Scores v_c . h - mu_c . v_c / 2 with v_c = (S + r I)^-1 mu_c: minus half the distance, as far as classes differ.

    S is the scatter within classes of all rows so far, not divided by their number n; class priors are equal.

    Arguments:
        features: random features in float64.
        seed: of a random order, of no consequence here.
        ridge: r. None: S / n is shrunk by `lda.oas_shrinkage` to (1 - e) S / n + e tr(S) / (n M) I, which has the same
            predictions as r = e tr(S) / ((1 - e) M).
    """

    learned = (*RandomRidge.learned, "features", "counts")

    def __init__(self, features: RandomFeatures, *, seed: int, ridge: float | None = None) -> None:
        super().__init__(features, seed=seed, lam=1.0 if ridge is None else ridge)
        self.ridge = ridge
        self.counts = torch.empty(0, dtype=torch.float64)  # n_c, [C]
        self._discriminants: tuple[Tensor, Tensor] | None = None

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        self.features.fit(x)
        counts = F.pad(self.counts.to(x.device), (0, classes - len(self.counts)))
        self.counts = counts + labels.bincount(minlength=classes)
        super().observe(x, labels, classes)
        self._discriminants = None

    def finalize(self) -> None:
        """Solves for all v_c, if that has not been done since the last rows."""
        self.discriminants()

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        weights, bias = self.discriminants()
        return self.features.times(x, weights) + bias

    def discriminants(self) -> tuple[Tensor, Tensor]:
        """All v_c, [M, C], and -mu_c . v_c / 2, [C]; a class without rows has zeros."""
        if self._discriminants is None:
            seen = self.counts > 0
            ridge_weights, mixed, means = self._dual_parts(seen) if self.sums is None else self._sum_parts(seen)
            weights = torch.zeros(self.features.size, len(seen), dtype=self.dtype, device=seen.device)
            weights[:, seen] = torch.linalg.solve(mixed, ridge_weights.T).T
            bias = weights.new_zeros(len(seen))
            bias[seen] = -0.5 * (means * weights[:, seen]).sum(0)
            self._discriminants = weights, bias
        return self._discriminants

    def changed(self) -> None:
        """Drops what was solved for."""
        super().changed()
        self._discriminants = None

    def _dual_parts(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W [M, C], r T [C, C] and class means [M, C] of classes that have rows, from square roots of Gram matrices."""
        targets = padded(self.targets)[:, seen]
        products = self.dual.products()
        if self.ridge is None:
            centred = products - targets @ ((targets.T @ products) / self.counts[seen].unsqueeze(1))  # P K
            centred = centred - (centred @ targets / self.counts[seen]) @ targets.T
            self.lam = self._shrinkage(float(centred.diagonal().sum()), float(centred.square().sum()), products)
        coefficients = self.dual.coefficients(self.lam, targets)
        means = self.dual.combined(targets / self.counts[seen])
        return self.dual.combined(coefficients), self.lam * targets.T @ coefficients, means

    def _sum_parts(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.sums is not None
        G, Q = self.sums[0], self.sums[1][:, seen]
        counts = self.counts[seen]
        if self.ridge is None:
            scatter = G - (Q / counts) @ Q.T
            self.lam = self._shrinkage(float(scatter.diagonal().sum()), float(scatter.square().sum()), G)
        weights = Grown(G, self.lam).solve(Q)
        return weights, counts.diag() - Q.T @ weights, Q / counts

    def _shrinkage(self, trace: float, squares: float, second: Tensor) -> float:
        """r of the trace of S and that of S S; second: a matrix of the trace of G."""
        size = self.features.size
        whole = float(second.diagonal().sum())
        if not trace > NOTHING * whole:
            return max(whole, 1.0)  # no scatter: nearest means, whatever r
        shrinkage = min(oas_shrinkage(trace, squares, size, self.rows), 1 - 1e-9)
        return shrinkage * trace / ((1 - shrinkage) * size)


class Ensemble(Classifier):
    """The mean over several classifiers of the softmax of n times their scores; scores are log of that."""

    learned = ("members",)

    def __init__(self, members: list[RandomLda]) -> None:
        self.members = members

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`."""
        for member in self.members:
            member.observe(x, labels, classes)

    def finalize(self) -> None:
        """Solves for the weights of all."""
        for member in self.members:
            member.finalize()

    def scores(self, x: Tensor) -> Tensor:
        """Log of the mean probability of all classes for features [n, d], [n, C]."""
        each = [torch.log_softmax(member.rows * member.scores(x), 1) for member in self.members]
        return torch.stack(each).logsumexp(0)

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """What all take."""
        return sum(member.memory_needed(rows, classes, dim) for member in self.members)
