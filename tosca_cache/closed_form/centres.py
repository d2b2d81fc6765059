"""Mahalanobis distances to several centres of a class, all with the class's covariance (FeNeC, field.md A2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tosca_cache.closed_form.base import Stateful
from tosca_cache.closed_form.mahalanobis import ClassCovariances, Shrinkage
from tosca_cache.seeds import derive_seed, numpy_generator

LEAST_ROWS = 2  # of a centre, on average
TINY, SLOPE = 1e-10, 0.01
RATE, EPOCHS, BATCH = 3e-3, 10, 64  # of Adam, as the official code has them


class ClassCentres(ClassCovariances):
    """Minus the least distance to the centres of every class, in the form of `mahalanobis`, or logits; float64.

    Exact for any split that keeps classes whole. Of a class of n rows are kept the centres [k, d] that k-means finds, and
    what `ClassCovariances` keeps.

    Arguments:
        count: centres of a class; n // 2 where that is less, one at least, and no more than there are different rows.
        seed: of k-means. shrinkage: of each covariance.
        nearest: how many of a class's centres make its logit, see `DistanceLogits`; a class of fewer counts its farthest
            one again. 0: the least distance is the score.
    """

    learned = (*ClassCovariances.learned, "centres", "logits")

    def __init__(self, shrinkage: Shrinkage, *, count: int, seed: int, nearest: int = 0) -> None:
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
            centres, plain, factors, signs = self.centres[c], self.plain[c], self.factors[c], self.signs[c]
            rows, points = x @ factors.T, centres @ factors.T
            squares = x.square() @ plain + rows.square() @ signs
            mixed = (x * plain) @ centres.T + (rows * signs) @ points.T
            each = squares.unsqueeze(1) - 2 * mixed + (centres.square() @ plain + points.square() @ signs)
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
        """Logits [n, C] of distances [n, C, k]."""
        return _logits(distances, self.numbers)

    def fit(self, distances: Tensor, labels: Tensor) -> None:
        """Trains both on rows of the first task: distances [n, C, k], labels [n]."""
        numbers = self.numbers.to(distances).requires_grad_()
        optimizer, draw = torch.optim.Adam([numbers], RATE), numpy_generator(self.seed, "distance logits")
        for _ in range(EPOCHS):
            for rows in torch.from_numpy(draw.permutation(len(labels))).to(labels.device).split(BATCH):
                optimizer.zero_grad()
                loss = functional.cross_entropy(_logits(distances[rows], numbers), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.numbers, self.trained = numbers.detach(), True


def _logits(distances: Tensor, numbers: Tensor) -> Tensor:
    # Rounding can take the distance of a row to itself below zero.
    a, b = numbers
    return functional.leaky_relu(a + b * (distances.clamp_min(0) + TINY).log(), SLOPE).sum(-1)


def class_centres(rows: Tensor, count: int, seed: int) -> Tensor:
    """Centres [k, d] of the rows of a class [n, d] by k-means; their mean where that is one centre."""
    points = rows.cpu().numpy()
    count = min(count, max(1, len(points) // LEAST_ROWS), len(np.unique(points, axis=0)))
    if count == 1:
        return rows.mean(0, keepdim=True)
    from sklearn.cluster import KMeans

    clusters = KMeans(count, n_init=1, random_state=seed % 2**32).fit(points)
    return torch.from_numpy(clusters.cluster_centers_).to(rows)
