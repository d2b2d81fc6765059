"""Recursive least squares: the ridge solution carried from batch to batch (ACIL and G-ACIL, methods.md 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.roots import RATIO

BATCH = 512  # rows of one update


class RecursiveRidge:
    """W = (sum h h^T + gamma I)^-1 sum h y^T after any batches of rows in any order, labels as they come; float64.

    R = (sum h h^T + gamma I)^-1 and W follow from the ones before by Woodbury's identity: with T = B R for a batch B [b, M]
    and K = (I + T B^T)^-1, R becomes R - T^T K T and W becomes W + T^T K (Y - B W), new classes starting as zero columns.

    While there are at most 1.5 M rows so far, R is kept as V [r, M] with R = (I - V^T V) / gamma: a batch adds the rows
    sqrt(gamma) D^-1/2 U^T T with I + T B^T = U D U^T. U is thrown away, so V says of the rows what R says. From then on R
    is kept itself, [M, M].

    Arguments:
        features: random features in float64. gamma: the ridge.
    """

    def __init__(self, features: RandomFeatures, *, gamma: float) -> None:
        self.features, self.gamma = features, gamma
        self.V: Tensor | None = None  # [r, M]; one of V and R is there once rows were seen
        self.R: Tensor | None = None  # [M, M]
        self.W = torch.empty(0, 0, dtype=torch.float64)  # [M, C]

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n] anywhere below `classes`, the number of classes so far."""
        h = self.features.apply(x)
        y = F.one_hot(labels, classes).to(h)
        if not self.W.numel():
            self.V, self.W = h[:0], h.new_zeros(h.shape[1], 0)
        self.W = F.pad(self.W, (0, classes - self.W.shape[1]))
        for batch, target in zip(h.split(BATCH), y.split(BATCH), strict=True):
            self._update(batch, target)

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.scores_of(self.features.apply(x))

    def scores_of(self, h: Tensor) -> Tensor:
        """Scores of all classes for random features [n, M], [n, C]."""
        return h @ self.W

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs; the features follow from their seed."""
        kept = {"V": self.V} if self.R is None else {"R": self.R.clone()}
        return {name: tensor for name, tensor in kept.items() if tensor is not None} | {"W": self.W}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same features and gamma was."""
        self.V, self.W = state.get("V"), state["W"]
        self.R = state["R"].clone() if "R" in state else None

    def _update(self, batch: Tensor, target: Tensor) -> None:
        if self.V is not None and len(self.V) + len(batch) > RATIO * batch.shape[1]:
            self.R = (torch.eye(batch.shape[1]).to(batch) - self.V.T @ self.V) / self.gamma
            self.V = None
        moved = self._times_inverse(batch)  # T
        values, vectors = torch.linalg.eigh(torch.eye(len(batch)).to(batch) + moved @ batch.T)
        whitened = (vectors / values.clamp_min(1).sqrt()).T @ moved  # its square is T^T K T
        residual = (vectors / values.clamp_min(1).sqrt()).T @ (target - batch @ self.W)
        self.W = self.W + whitened.T @ residual
        if self.V is not None:
            self.V = torch.cat([self.V, self.gamma**0.5 * whitened])
        elif self.R is not None:
            self.R.addmm_(whitened.T, whitened, alpha=-1)

    def _times_inverse(self, batch: Tensor) -> Tensor:
        """B R, [b, M]."""
        if self.V is None:
            assert self.R is not None
            return batch @ self.R
        return (batch - (batch @ self.V.T) @ self.V) / self.gamma
