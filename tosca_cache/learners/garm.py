"""Class-balanced analytic learning (AIR, arXiv 2408.10349): every class's Gram matrix divided by its count.

Rows of earlier classes may come in any task; a class needs one row. As in the official code the weights of the classes have
a mean of one, which is the unit of gamma. The official code keeps a Gram matrix [M, M] of every class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.roots import RATIO, Dual, bytes_needed, cholesky, column_major, square_root
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import Positive, register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed


@register_learner
class Garm(ClosedForm):
    """Stores square roots of the classes' Gram matrices, as many rows of M numbers as there were train rows.

    Arguments:
        buffer: number M of random features.
        gamma: multiplies the identity that is added to sum_c w_c G_c, the Gram matrices of all classes with weights
            w_c ~ 1 / n_c of mean 1 (n_c rows of class c). With as many rows of every class this is the ridge of `acil`.
            The default is that of the official code.
    """

    name = "garm"
    source = "AIR's GeneralizedARM (arXiv 2408.10349)"
    agrees = (
        "equal to the official code (ZHUANGHP/Analytic-continual-learning, analytic/AIR.py and AnalyticLinear.py, "
        "16c49d9) without its base training."
    )
    all_threads = True

    def __init__(self, *, buffer: Count = 8192, gamma: Positive = 0.1, **common: Any) -> None:
        super().__init__(**common)
        features = RandomFeatures(buffer, seed=derive_seed(self.seed, "projection"), law="uniform")
        self.classifier = BalancedRidge(features, gamma)


class BalancedRidge(Solved):
    """W = (sum_c w_c G_c + gamma I)^-1 [w_c Q_c], over all classes c with n_c rows so far; float64.

    G_c is the Gram matrix of the class's random features and Q_c the sum of them; w_c = (1 / n_c) / m with m the mean of
    1 / n_c over all C classes (0 for a class without rows), so that the weights have mean 1. With as many rows of every
    class all weights are 1. A class may get rows in any task; as n_c then changes, G_c must be known by itself. It is kept
    as a square root (`roots`) for every task in which the class had rows: as many rows of M numbers as there were train
    rows, mixed within class and task.

    features: random features in float64. gamma: it is gamma m beside sum_c G_c / n_c.
    """

    learned = ("counts", "dual", "heights", "owners")

    def __init__(self, features: RandomFeatures, gamma: float) -> None:
        self.features, self.gamma = features, gamma
        self.dual = Dual()
        self.heights: list[Tensor] = []  # of each block's rows: what stands in the column of their class, [n]
        self.owners: list[Tensor] = []  # of each block's rows: their class, [n]
        self.counts = torch.empty(0, dtype=torch.int64)  # n_c, [C]
        self._gram: tuple[Tensor, Tensor] | None = None  # sum_c G_c / n_c, and the weights of all rows in it

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n] anywhere below `classes`, the number of classes so far."""
        h = self.features.apply(x)
        self.counts = F.pad(self.counts.to(labels.device), (0, classes - len(self.counts)))
        self.counts = self.counts + labels.bincount(minlength=classes)
        roots, heights, owners = [], [], []
        for owner in labels.unique():
            rows = h[labels == owner]
            root, height = square_root(rows, torch.ones_like(rows[:, :1]), rows @ rows.T)
            roots.append(root)
            heights.append(height[:, 0])
            owners.append(owner.expand(len(rows)))
        self.dual.append(torch.cat(roots))
        self.heights.append(torch.cat(heights))
        self.owners.append(torch.cat(owners))
        self._weights = None

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.features.times(x, self.weights())

    def solved(self) -> Tensor:
        """W, [M, C]."""
        owners, heights = torch.cat(self.owners), torch.cat(self.heights)
        targets = F.one_hot(owners, len(self.counts)) * heights.unsqueeze(1)
        weights = 1 / self.counts[owners].to(heights)
        mean = float((1 / self.counts[self.counts > 0].double()).sum()) / len(self.counts)
        few = self.dual.count <= RATIO * self.features.size
        return (self.dual.solve if few else self._primal)(self.gamma * mean, targets, weights)

    def changed(self) -> None:
        """Drops the weights, and the sum of Gram matrices."""
        self._weights = self._gram = None

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that it takes at most; see `Learner.memory_needed`. Square roots of all rows are kept."""
        size, n = self.features.size, sum(rows)
        more = max(0, n - int(RATIO * size))
        return bytes_needed(n, size, classes, dim, itemsize=8, most=RATIO) + 8 * more * size

    def _primal(self, ridge: float, targets: Tensor, weights: Tensor) -> Tensor:
        size, rows = self.features.size, torch.cat(self.dual.blocks)
        gram, before = self._gram or (weights.new_zeros(size, size), weights[:0])
        change = weights - F.pad(before, (0, len(weights) - len(before)))
        changed = change.nonzero()[:, 0]
        gram.addmm_((rows[changed] * change[changed, None]).T, rows[changed])
        self._gram = gram, weights
        whole = column_major(size, size, gram, gram.dtype).copy_(gram)
        factor = cholesky(whole, ridge)
        assert factor is not None, "gamma is positive"
        return torch.cholesky_solve(rows.T @ (weights.unsqueeze(1) * targets), factor)
