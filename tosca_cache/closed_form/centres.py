"""Mahalanobis distances to several centres of a class, all with the class's covariance (FeNeC, field.md A2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tosca_cache.closed_form.distance_logits import DistanceLogits
from tosca_cache.closed_form.mahalanobis import ClassCovariances, Shrinkage
from tosca_cache.seeds import derive_seed

LEAST_ROWS = 2  # of a centre, on average


class ClassCentres(ClassCovariances):
    """Minus the least distance to the centres of every class, in the form of `mahalanobis`, or logits; float64.

    Exact for any split that keeps classes whole. Of a class of n rows are kept the centres [k, d] that k-means finds, and
    what `ClassCovariances` keeps.

    Arguments:
        count: centres of a class; n // 2 where that is less, one at least, and no more than there are different rows.
        seed: of k-means. shrinkage: of each covariance.
        nearest: how many of a class's centres make its logit, see `distance_logits`; a class of fewer counts its farthest
            one again. 0: the least distance is the score.
    """

    def __init__(self, shrinkage: Shrinkage, *, count: int, seed: int, nearest: int = 0) -> None:
        super().__init__(shrinkage)
        if count < 1:
            raise ValueError(f"there cannot be {count} centres of a class")
        self.count, self.seed = count, seed
        self.centres: list[Tensor] = []  # of each class, [k, d]
        self.nearest, self.logits = nearest, DistanceLogits(seed)

    def observe(self, x: Tensor, labels: Tensor, classes: int, *, means: Tensor | None = None) -> None:
        """Adds the new classes: features [n, d], labels [n]; classes: how many there are with these, C."""
        super().observe(x, labels, classes, means=means)
        for c in range(len(self.centres), classes):
            rows = x[labels == c].double()
            self.centres.append(class_centres(rows, self.count, derive_seed(self.seed, "centres", c)))
        if self.nearest and not self.logits.trained:
            self.logits.fit(self.distances(x, self.nearest), labels)

    def scores(self, x: Tensor, start: int = 0) -> Tensor:
        """Logits of the classes from `start` on, or minus the least distances to their centres, [n, C - start]."""
        return (
            self.logits(self.distances(x, self.nearest, start))
            if self.nearest
            else -self.distances(x, 1, start)[..., 0]
        )

    def distances(self, x: Tensor, nearest: int, start: int = 0) -> Tensor:
        """The least distances to the centres of the classes from `start` on, ascending, [n, C - start, nearest]."""
        x, found = x.double(), []
        for centres, precision in zip(self.centres[start:], self.precisions[start:], strict=True):
            plain, factors, signs = precision.plain, precision.factors, precision.signs
            rows, points = x @ factors.T, centres @ factors.T
            squares = x.square() @ plain + rows.square() @ signs
            mixed = (x * plain) @ centres.T + (rows * signs) @ points.T
            each = squares.unsqueeze(1) - 2 * mixed + (centres.square() @ plain + points.square() @ signs)
            least = each.topk(min(nearest, each.shape[1]), largest=False).values
            found.append(torch.cat([least, least[:, -1:].expand(-1, nearest - least.shape[1])], 1))
        return torch.stack(found, 1)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        if not self.centres:
            return {}
        counts = torch.tensor([len(centres) for centres in self.centres])
        trained = {"logits": self.logits.numbers} if self.nearest else {}
        return super().state() | {"centres": torch.cat(self.centres), "centre_counts": counts} | trained

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same options was."""
        super().load_state(state)
        if state:
            self.centres = list(state["centres"].split(state["centre_counts"].tolist()))
            if self.nearest:
                self.logits.numbers, self.logits.trained = state["logits"], True


def class_centres(rows: Tensor, count: int, seed: int) -> Tensor:
    """Centres [k, d] of the rows of a class [n, d] by k-means; their mean where that is one centre."""
    points = rows.cpu().numpy()
    count = min(count, max(1, len(points) // LEAST_ROWS), len(np.unique(points, axis=0)))
    if count == 1:
        return rows.mean(0, keepdim=True)
    from sklearn.cluster import KMeans

    clusters = KMeans(count, n_init=1, random_state=seed % 2**32).fit(points)
    return torch.from_numpy(clusters.cluster_centers_).to(rows)
