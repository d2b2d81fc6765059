"""Mahalanobis distances to several centres of a class, all with the class's covariance (FeNeC, field.md A2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tosca_cache.closed_form.mahalanobis import ClassCovariances, Shrinkage
from tosca_cache.seeds import derive_seed

LEAST_ROWS = 2  # of a centre, on average


class ClassCentres(ClassCovariances):
    """Minus the least distance to the centres of every class, in the form of `mahalanobis`; float64.

    Exact for any split that keeps classes whole. Of a class of n rows are kept the centres [k, d] that k-means finds, and
    what `ClassCovariances` keeps.

    Arguments:
        count: centres of a class; n // 2 where that is less, one at least, and no more than there are different rows.
        seed: of k-means. shrinkage: of each covariance.
    """

    def __init__(self, shrinkage: Shrinkage, *, count: int, seed: int) -> None:
        super().__init__(shrinkage)
        if count < 1:
            raise ValueError(f"there cannot be {count} centres of a class")
        self.count, self.seed = count, seed
        self.centres: list[Tensor] = []  # of each class, [k, d]

    def observe(self, x: Tensor, labels: Tensor, classes: int, *, means: Tensor | None = None) -> None:
        """Adds the new classes: features [n, d], labels [n]; classes: how many there are with these, C."""
        super().observe(x, labels, classes, means=means)
        for c in range(len(self.centres), classes):
            rows = x[labels == c].double()
            self.centres.append(class_centres(rows, self.count, derive_seed(self.seed, "centres", c)))

    def scores(self, x: Tensor, start: int = 0) -> Tensor:
        """Minus the least distances to the centres of the classes from `start` on, [n, C - start]."""
        x, found = x.double(), []
        for centres, precision in zip(self.centres[start:], self.precisions[start:], strict=True):
            plain, factors, signs = precision.plain, precision.factors, precision.signs
            rows, points = x @ factors.T, centres @ factors.T
            squares = x.square() @ plain + rows.square() @ signs
            mixed = (x * plain) @ centres.T + (rows * signs) @ points.T
            each = squares.unsqueeze(1) - 2 * mixed + (centres.square() @ plain + points.square() @ signs)
            found.append(-each.amin(1))
        return torch.stack(found, 1)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        if not self.centres:
            return {}
        counts = torch.tensor([len(centres) for centres in self.centres])
        return super().state() | {"centres": torch.cat(self.centres), "centre_counts": counts}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same options was."""
        super().load_state(state)
        if state:
            self.centres = list(state["centres"].split(state["centre_counts"].tolist()))


def class_centres(rows: Tensor, count: int, seed: int) -> Tensor:
    """Centres [k, d] of the rows of a class [n, d] by k-means; their mean where that is one centre."""
    points = rows.cpu().numpy()
    count = min(count, max(1, len(points) // LEAST_ROWS), len(np.unique(points, axis=0)))
    if count == 1:
        return rows.mean(0, keepdim=True)
    from sklearn.cluster import KMeans

    clusters = KMeans(count, n_init=1, random_state=seed % 2**32).fit(points)
    return torch.from_numpy(clusters.cluster_centers_).to(rows)
