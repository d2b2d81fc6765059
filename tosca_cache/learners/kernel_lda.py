"""Linear discriminant analysis on random Fourier features of a Gaussian kernel: KLDA, its ensemble, and RanDumb.

z(x) = sqrt(2 / M) cos(x W + b) with W ~ N(0, 2 gamma) and b ~ U(0, 2 pi); class means mu_c and the scatter within
classes S = sum_i (z_i - mu_y)(z_i - mu_y)^T are exact sums; the class of least Mahalanobis distance (z - mu_c)^T P (z
- mu_c) answers. P = (S + r I)^-1, S not divided by the number of rows, for `klda`, whose official code has a gamma and an r
for each backbone (DINOv2: 1e-4, 1e-3; MoCo-v3: 1e-2, 1e-4); the inverse of S / n shrunk by OAS for `randumb`.
`klda-e` averages softmaxes of distances of the covariance (S + r I) / n.

It follows from the ridge regression on the same features. With G = H^T H, Q = H^T Y and N = diag(n_c), the class means are
N^-1 Q^T and S = G - Q N^-1 Q^T. Let W = (G + r I)^-1 Q be the ridge solution and T = (N - Q^T W) / r = Y^T (H H^T + r
I)^-1 Y, [C, C]. By Woodbury's identity the weights of discriminant analysis are those of ridge regression, mixed among the
classes: (S + r I)^-1 Q N^-1 = W (r T)^-1; so that what makes a ridge system of many features small (`random_ridge`) serves
here, and nothing is inverted twice.

With one row of every class there is no scatter, and the nearest mean in z answers. A class needs one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Classifier
from tosca_cache.closed_form.expansion import FourierFeatures, RandomFeatures
from tosca_cache.closed_form.lda import oas_shrinkage
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.roots import Grown, padded
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import Positive, register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed

NOTHING = 1e-12  # of the second moment: what rounding leaves of a scatter of zero


class _KernelLda(ClosedForm):
    all_threads = True

    def _member(self, expansion: int, gamma: float | None, ridge: float | None, width: str, draw: int = 0) -> RandomLda:
        seed = derive_seed(self.seed, "projection", draw) if draw else derive_seed(self.seed, "projection")
        return RandomLda(FourierFeatures(expansion, seed=seed, gamma=gamma, width=width), seed=seed, ridge=ridge)


@register_learner
class Klda(_KernelLda):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    Arguments:
        expansion: number M of random features.
        gamma: of the kernel exp(-gamma |x - x'|^2); None: 1 / (2 median squared distance) in the first task.
        ridge: r, what is added to the diagonal of the scatter.
    """

    name = "klda"
    what = "KLDA (arXiv 2412.15571): linear discriminant analysis on random Fourier features of a Gaussian kernel."
    source = "KLDA (arXiv 2412.15571)"
    agrees = (
        "differs: gamma follows from the first task, where the official code (SalehMomeni/AnaCP, "
        "models/klda.py, 480d9f3) has one a backbone; and a class's rows of several tasks lie about their "
        "final mean, there each part about the mean of its time."
    )

    def __init__(
        self, *, expansion: Count = 5000, gamma: Positive | None = None, ridge: Positive = 1e-3, **common: Any
    ) -> None:
        super().__init__(**common)
        self.classifier = self._member(expansion, gamma, ridge, "median")


@register_learner
class KldaEnsemble(_KernelLda):
    """Stores what `klda` does, once for every draw.

    Arguments:
        draws: how many random projections. expansion, gamma, ridge: of each, as `klda` has them.
    """

    name = "klda-e"
    what = "KLDA-E (arXiv 2412.15571): the mean probability of several KLDAs of different random features."
    source = "KLDA-E (arXiv 2412.15571)"
    agrees = "differs: no official code of the ensemble was found; number of draws and scale of the distances are ours."

    def __init__(
        self,
        *,
        draws: Count = 3,
        expansion: Count = 5000,
        gamma: Positive | None = None,
        ridge: Positive = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.classifier = Ensemble([self._member(expansion, gamma, ridge, "median", draw) for draw in range(draws)])


@register_learner
class RanDumb(_KernelLda):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    Arguments:
        expansion: number M of random features (10,000 to 25,000 in the paper).
        gamma: of the kernel exp(-gamma |x - x'|^2); None: 1 / (d variance of all numbers) in the first task.
    """

    name = "randumb"
    what = "RanDumb (arXiv 2402.08823): discriminant analysis on random Fourier features, its covariance shrunk by OAS."
    source = "RanDumb (arXiv 2402.08823)"
    agrees = (
        "differs: one covariance is shrunk, as in the paper, and classes weigh the same, where the official "
        "code (drimpossible/RanDumb, src/main.py, 09dc225) shrinks each class's and weighs by rows; no "
        "flipped images."
    )

    def __init__(self, *, expansion: Count = 10_000, gamma: Positive | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = self._member(expansion, gamma, None, "scale")


class RandomLda(RandomRidge):
    """Scores v_c . h - mu_c . v_c / 2 with v_c = (S + r I)^-1 mu_c: minus half the distance, as far as classes differ.

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

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        self.features.fit(x)
        counts = F.pad(self.counts.to(x.device), (0, classes - len(self.counts)))
        self.counts = counts + labels.bincount(minlength=classes)
        super().observe(x, labels, classes)

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        weights, bias = self.weights()
        return self.features.times(x, weights) + bias

    def solved(self) -> tuple[Tensor, Tensor]:
        """All v_c, [M, C], and -mu_c . v_c / 2, [C]; a class without rows has zeros."""
        seen = self.counts > 0
        ridge_weights, mixed, means = self._dual_parts(seen) if self.sums is None else self._sum_parts(seen)
        weights = torch.zeros(self.features.size, len(seen), dtype=self.dtype, device=seen.device)
        weights[:, seen] = torch.linalg.solve(mixed, ridge_weights.T).T
        bias = weights.new_zeros(len(seen))
        bias[seen] = -0.5 * (means * weights[:, seen]).sum(0)
        return weights, bias

    def _dual_parts(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W [M, C], r T [C, C] and class means [M, C] of classes that have rows, from square roots of Gram matrices."""
        targets = padded(self.targets)[:, seen]
        if self.ridge is None:
            products = self.dual.products()
            centred = products - targets @ ((targets.T @ products) / self.counts[seen].unsqueeze(1))  # P K
            centred = centred - (centred @ targets / self.counts[seen]) @ targets.T
            self.lam = self._shrinkage(centred, products)
        coefficients = self.dual.coefficients(self.lam, targets)
        means = self.dual.combined(targets / self.counts[seen])
        return self.dual.combined(coefficients), self.lam * targets.T @ coefficients, means

    def _sum_parts(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.sums is not None
        G, Q = self.sums[0], self.sums[1][:, seen]
        counts = self.counts[seen]
        if self.ridge is None:
            self.lam = self._shrinkage(G - (Q / counts) @ Q.T, G)
        weights = Grown(G, self.lam).solve(Q)
        return weights, counts.diag() - Q.T @ weights, Q / counts

    def _shrinkage(self, scatter: Tensor, second: Tensor) -> float:
        """r of S, or of a matrix of its eigenvalues; second: a matrix of the trace of G."""
        size, whole = self.features.size, float(second.diagonal().sum())
        trace, squares = float(scatter.diagonal().sum()), float(scatter.square().sum())
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
