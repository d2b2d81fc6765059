"""FeNeC (KBS 2026): FeCAM's Mahalanobis distance, to several k-means centres of each class instead of its mean.

Features at unit length, their class covariances shrunk and made correlations as in `fecam`; the class of the nearest
centre answers (the vote of one neighbour, as published). Centres are no rows here: the code asks k-means for as many as it
is told and fails where there are fewer rows. With one centre it is FeCAM: so are classes of two or three rows, and with one
row their covariance is the identity. The published shrinkages and number of centres were found on the test rows of the
published datasets.

`log=3` is FeNeC-Log: logits of the (squared) distances to the three nearest centres of a class, by two numbers that the
first task trains. What differs: they start at 0 and -1, where the official code draws both from N(0, 1) and few steps leave
a sign that was drawn wrong; all rows of the task train them, where it holds out a fifth, which with its patience of as many
epochs as there are decides nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tosca_cache.closed_form.base import Stateful
from tosca_cache.closed_form.mahalanobis import ClassCovariances, Precision, Shrinkage
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.fecam import PerClass
from tosca_cache.seeds import derive_seed, numpy_generator

LEAST_ROWS = 2  # of a centre, on average
TINY, SLOPE = 1e-10, 0.01
RATE, EPOCHS, BATCH = 3e-3, 10, 64  # of Adam, as the official code has them


@register_learner
class FeNeC(PerClass):
    """Stores what `fecam` does, and up to k centres [k, d] of each class.

    Arguments:
        centres: of each class (26 on CIFAR-100, 1 on ImageNet-R).
        a1, a2: shrinkage of diagonal and off-diagonal, as found on CIFAR-100.
        log: nearest centres of a class that make its logit, 3 in FeNeC-Log; 0: the class of the nearest centre answers.
    """

    name = "fenec"
    what = "FeNeC (KBS 2026): FeCAM with several k-means centres of each class."
    source = "FeNeC (KBS 2026)"
    agrees = (
        "differs: no more centres of a class than half of its rows; otherwise the distances and the vote of "
        "one neighbour of the official code (btrojan-official/FeNeC, model.py, 1142cab)."
    )

    def __init__(self, *, centres: Count = 26, a1: float = 6.12, a2: float = 8.10, log: int = 0, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = ClassCentres(Shrinkage(a1, a2), centres, derive_seed(self.seed, "centres"), log)


class ClassCentres(ClassCovariances):
    """Minus the least distance to the centres of every class, in the form of `mahalanobis`, or logits; float64.

    Exact for any split that keeps classes whole. Of a class of n rows are kept the centres [k, d] that k-means finds, and
    what `ClassCovariances` keeps.

    Arguments:
        count: centres of a class; n // 2 where that is less, one at least, and no more than there are different rows.
        seed: of k-means.
        nearest: how many of a class's centres make its logit, see `DistanceLogits`; a class of fewer counts its farthest
            one again. 0: the least distance is the score.
    """

    learned = (*ClassCovariances.learned, "centres", "logits")

    def __init__(self, shrinkage: Shrinkage, count: int, seed: int, nearest: int) -> None:
        super().__init__(shrinkage)
        self.count, self.seed = count, seed
        self.centres: list[Tensor] = []  # of each class, [k, d]
        self.nearest, self.logits = nearest, DistanceLogits(seed) if nearest else None

    def observe(self, x: Tensor, labels: Tensor, classes: int, *, means: Tensor | None = None) -> None:
        """Adds the new classes: features [n, d], labels [n]; classes: how many there are with these, C."""
        super().observe(x, labels, classes, means=means)
        for c in range(len(self.centres), classes):
            rows = x[labels == c].double()
            self.centres.append(class_centres(rows, self.count, derive_seed(self.seed, "centres", c)))
        if self.logits is not None and not self.logits.trained:
            self.logits.fit(self.distances(x, self.nearest), labels)

    def scores(self, x: Tensor, start: int = 0) -> Tensor:
        """Logits of the classes from `start` on, or minus the least distances to their centres, [n, C - start]."""
        if self.logits is None:
            return -self.distances(x, 1, start)[..., 0]
        return self.logits(self.distances(x, self.nearest, start))

    def distances(self, x: Tensor, nearest: int, start: int = 0) -> Tensor:
        """The least distances to the centres of the classes from `start` on, ascending, [n, C - start, nearest]."""
        x, found = x.double(), []
        for c in range(start, len(self.centres)):
            precision = Precision(self.plain[c], self.factors[c], self.signs[c])
            each = precision.distances(x, self.centres[c])
            least = each.topk(min(nearest, each.shape[1]), largest=False).values
            found.append(torch.cat([least, least[:, -1:].expand(-1, nearest - least.shape[1])], 1))
        return torch.stack(found, 1)


class DistanceLogits(Stateful):
    """logit_c = sum over the k nearest centres j of class c of LeakyReLU(a + b log(d_cj + 1e-10)) (FeNeC-Log, field.md A2).

    a and b, float64, are the same for all classes and are trained on the first task alone, by cross-entropy over its
    classes. Before that a = 0 and b = -1: the nearer, the likelier.

    seed: of the order of rows.
    """

    learned = ("numbers", "trained")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.numbers = torch.tensor([0.0, -1.0], dtype=torch.float64)  # a, b
        self.trained = False

    def __call__(self, distances: Tensor) -> Tensor:
        """Logits [n, C] of distances [n, C, k]; rounding can take that of a row to itself below zero."""
        a, b = self.numbers
        return functional.leaky_relu(a + b * (distances.clamp_min(0) + TINY).log(), SLOPE).sum(-1)

    def fit(self, distances: Tensor, labels: Tensor) -> None:
        """Trains both on rows of the first task: distances [n, C, k], labels [n]."""
        self.numbers = self.numbers.to(distances).requires_grad_()
        optimizer, draw = torch.optim.Adam([self.numbers], RATE), numpy_generator(self.seed, "distance logits")
        for _ in range(EPOCHS):
            for rows in torch.from_numpy(draw.permutation(len(labels))).to(labels.device).split(BATCH):
                optimizer.zero_grad()
                loss = functional.cross_entropy(self(distances[rows]), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.numbers, self.trained = self.numbers.detach(), True


def class_centres(rows: Tensor, count: int, seed: int) -> Tensor:
    """Centres [k, d] of the rows of a class [n, d] by k-means; their mean where that is one centre."""
    points = rows.cpu().numpy()
    count = min(count, max(1, len(points) // LEAST_ROWS), len(np.unique(points, axis=0)))
    if count == 1:
        return rows.mean(0, keepdim=True)
    from sklearn.cluster import KMeans

    clusters = KMeans(count, n_init=1, random_state=seed % 2**32).fit(points)
    return torch.from_numpy(clusters.cluster_centers_).to(rows)
