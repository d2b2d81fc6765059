"""AnaCP (NeurIPS 2025): features adapted in closed form towards class means that are spread apart, then ridge regression.

Sections 4.1 to 4.3. With x at unit length, class means mu_c, their mean m, and Sigma the covariance within classes of all
rows plus 1e-4 I:

    (mu_c - m) Sigma^-1/2 = U S V^T           the whitened means, one row a class
    p_c = l2(U (S + alpha) V^T Sigma^1/2 + m)   spread: no direction in which classes differ stays small
    z_j = GELU(x A_j), A_j ~ N(0, 1), j = 1..H
    Theta_j = (sum z_j z_j^T + r I)^-1 sum_c n_c M_jc p_c^T   with M_jc the mean of z_j over class c
    u = mean_j l2(z_j Theta_j)                the adapted feature
    W = (sum h h^T + r I)^-1 sum h y^T        with h = GELU(u B), of samples of N(mu_c, Sigma), as many of every class

As sum_c n_c M_jc p_c^T = (sum z_j y^T) P, Theta_j is ridge regression onto the classes times P: `random_ridge` does it.

What differs besides: in the official code's running covariance the 1e-4 I is added once, at the first task; here Sigma
follows from all rows (divisor n - C). It moves the means along the direction that centring leaves over as well, which only
rounding chooses. The paper has a sign for each direction, which the code and we set to plus. With one row of every class
the covariance is 1e-4 I. A class needs one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import unit
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import Positive, register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.learners.ranpac import PRECISIONS, Precision
from tosca_cache.seeds import derive_seed

EXTRA = 1e-4  # of the identity, in Sigma
FLOOR = 1e-8  # of an eigenvalue of Sigma that is divided by
NOTHING = 1e-9  # of the largest singular value of the whitened means: a direction in which classes do not differ


@register_learner
class AnaCp(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts; and of each head what `ranpac` stores.

    Arguments:
        expansion: random features of each head and of the classifier (5,000; the paper has 10,000 too).
        heads: how many adapt; their mean is classified. gamma: the ridge of heads and classifier.
        per_class: samples of each class that the classifier is fitted to.
        alpha: how far class means are spread.
        precision: of the ridge regressions, `float32` or `float64`; all else is in float64.
    """

    name = "anacp"
    source = "AnaCP without the first session (NeurIPS 2025)"
    agrees = (
        "differs: whitened means go back by the root of the covariance, as in the paper, where the official "
        "code (SalehMomeni/AnaCP, models/anacp.py, 480d9f3) divides by it again, and counts new"
        " rows twice in it; no first session."
    )
    unit_length = True
    all_threads = True

    def __init__(
        self,
        *,
        expansion: Count = 5000,
        heads: Count = 3,
        gamma: Positive = 100.0,
        per_class: Count = 100,
        alpha: float = 1.0,
        precision: Precision = "float32",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        seed, dtype = derive_seed(self.seed, "projection"), PRECISIONS[precision]
        self.classifier = SpreadMeans(expansion, heads, gamma, alpha, per_class, seed, dtype)


class SpreadMeans(Solved):
    """Scores of AnaCP; see `AnaCp`. Exact for any split of the rows into tasks; weights are found anew after every task."""

    learned = ("gaussians", "heads")

    def __init__(
        self, size: int, heads: int, ridge: float, alpha: float, per_class: int, seed: int, dtype: torch.dtype
    ) -> None:
        self.size, self.ridge, self.alpha, self.per_class = size, ridge, alpha, per_class
        self.seed, self.dtype = seed, dtype
        self.gaussians = Lda()  # its sums: class means, and the covariance within classes
        self.heads = [RandomRidge(self._features("head", j), seed=seed, lam=ridge) for j in range(heads)]

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features of unit length [n, d], labels [n] below `classes`, the number so far."""
        for part in (self.gaussians, *self.heads):
            part.observe(x, labels, classes)
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
