"""Closed-form adaptation of features towards spread class means, and a ridge classifier of the adapted ones (AnaCP).

AnaCP, NeurIPS 2025, sections 4.1 to 4.3. With x at unit length, class means mu_c, their mean m, and Sigma the
covariance within classes of all rows plus 1e-4 I:

    (mu_c - m) Sigma^-1/2 = U S V^T           the whitened means, one row a class
    p_c = l2(U (S + alpha) V^T Sigma^1/2 + m)   spread: no direction in which classes differ stays small
    z_j = GELU(x A_j), A_j ~ N(0, 1), j = 1..H
    Theta_j = (sum z_j z_j^T + r I)^-1 sum_c n_c M_jc p_c^T   with M_jc the mean of z_j over class c
    u = mean_j l2(z_j Theta_j)                the adapted feature
    W = (sum h h^T + r I)^-1 sum h y^T        with h = GELU(u B), of samples of N(mu_c, Sigma), as many of every class

As sum_c n_c M_jc p_c^T = (sum z_j y^T) P, Theta_j is ridge regression onto the classes times P: `random_ridge` does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import unit
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.seeds import derive_seed

EXTRA = 1e-4  # of the identity, in Sigma
FLOOR = 1e-8  # of an eigenvalue of Sigma that is divided by
NOTHING = 1e-9  # of the largest singular value of the whitened means: a direction in which classes do not differ


class SpreadMeans(Solved):
    """Scores of AnaCP. Exact for any split of the rows into tasks; the weights are found anew after every task.

    Arguments:
        size: random features of each head and of the classifier. heads: H. ridge: r. alpha: added to singular values.
        per_class: samples of each class. seed: of A_j, B and the samples.
        dtype: of the ridge regressions; all else is in float64.
    """

    learned = ("gaussians", "heads")

    def __init__(
        self,
        size: int,
        *,
        heads: int,
        ridge: float,
        alpha: float,
        per_class: int,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.size, self.ridge, self.alpha = size, ridge, alpha
        self.dtype = dtype
        self.per_class, self.seed = per_class, seed
        self.gaussians = Lda()  # its sums: class means, and the covariance within classes
        self.heads = [RandomRidge(self._features("head", j), seed=seed, lam=ridge) for j in range(heads)]

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features of unit length [n, d], labels [n] below `classes`, the number so far."""
        self.gaussians.observe(x, labels, classes)
        for head in self.heads:
            head.observe(x, labels, classes)
        self._weights = None

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features of unit length [n, d], [n, C]."""
        thetas, classifier = self.weights()
        return classifier.scores(self._adapted(x, thetas))

    def samples(self, means: Tensor, sigma: Tensor) -> Tensor:
        """What the classifier is fitted to: `per_class` rows of N(mu_c, Sigma) for all c, one class after the other."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "samples", len(means)))
        shape = (len(means), self.per_class, means.shape[1])
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64).to(means.device)
        return (means.unsqueeze(1) + drawn @ torch.linalg.cholesky(sigma).T).flatten(0, 1)

    def classifier_features(self) -> RandomFeatures:
        """h of an adapted feature."""
        return self._features("classifier")

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """That of all heads and of the classifier on samples."""
        each = sum(head.memory_needed(rows, classes, dim) for head in self.heads)
        sampled = self.heads[0].memory_needed([self.per_class * classes], classes, dim)
        return each + sampled + 8 * 3 * dim**2

    def _features(self, *names: str | int) -> RandomFeatures:
        return RandomFeatures(self.size, seed=derive_seed(self.seed, *names), activation="gelu", dtype=self.dtype)

    def solved(self) -> tuple[list[Tensor], RandomRidge]:
        """Theta_j [M, d], and the classifier on samples."""
        means, sigma = self.gaussians.gaussian()
        sigma = sigma + EXTRA * torch.eye(len(sigma)).to(sigma)
        seen = self.gaussians.counts > 0
        targets = torch.zeros_like(means)
        targets[seen] = spread(means[seen], sigma, alpha=self.alpha)
        thetas = [head.weights() @ targets.to(self.dtype) for head in self.heads]
        classifier = RandomRidge(self.classifier_features(), seed=self.seed, lam=self.ridge)
        sampled = self._adapted(self.samples(means[seen], sigma), thetas)
        labels = seen.nonzero()[:, 0].repeat_interleave(self.per_class)
        classifier.observe(sampled, labels, len(means))
        return thetas, classifier

    def _adapted(self, x: Tensor, thetas: list[Tensor]) -> Tensor:
        found = [unit(head.features.times(x, theta).double()) for head, theta in zip(self.heads, thetas, strict=True)]
        return torch.stack(found).mean(0)


def spread(means: Tensor, sigma: Tensor, *, alpha: float) -> Tensor:
    """Target prototypes p_c [C, d] of class means [C, d] and the covariance within classes [d, d].

    Directions in which the means do not differ, such as the one that centring leaves over, are left alone: where alpha
    would move the means along them is up to rounding.
    """
    values, vectors = torch.linalg.eigh(sigma)
    root = (values.clamp_min(0) + FLOOR).sqrt()
    centre = means.mean(0)
    whitened = (means - centre) @ (vectors / root) @ vectors.T
    U, S, V = torch.linalg.svd(whitened, full_matrices=False)
    wider = torch.where(NOTHING * S.max() < S, S + alpha, S)
    return unit((U * wider) @ V @ (vectors * root) @ vectors.T + centre)
