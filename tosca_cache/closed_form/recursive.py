"""Recursive least squares: the ridge solution carried from batch to batch (ACIL and G-ACIL, methods.md 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Classifier, Solved
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.roots import GROUP, RATIO, Dual, bytes_needed, padded, square_root


class RecursiveRidge(Solved):
    """W = (sum h h^T + gamma I)^-1 sum h y^T after any batches of rows in any order, labels as they come; float64.

    R = (sum h h^T + gamma I)^-1 and W follow from the ones before by Woodbury's identity: with T = B R for a batch B [b, M]
    and K = (I + T B^T)^-1, R becomes R - T^T K T and W becomes W + T^T K (Y - B W), new classes starting as zero columns.

    R starts as I / gamma, so that after few rows the same identity gives R = (I - S^T (S S^T + gamma I)^-1 S) / gamma for
    any S with S^T S = sum h h^T. While there are at most 1.5 M rows, such S and the targets that belong to it are kept
    instead of R and W, as square roots of the batches' Gram matrices (`roots`), and a batch borders the Cholesky factor of
    S S^T + gamma I. From then on R [M, M] and W [M, C] are kept themselves.

    Arguments:
        features: random features in float64. gamma: the ridge.
    """

    learned = ("features", "dual", "targets", "R", "W")

    def __init__(self, features: RandomFeatures, *, gamma: float) -> None:
        self.features, self.gamma = features, gamma
        self.dual = Dual()
        self.targets: list[Tensor] = []  # of each square root, [n, C at its time]
        self.R: Tensor | None = None  # [M, M], None while square roots are kept
        self.W: Tensor | None = None  # [M, C], None as long

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n] anywhere below `classes`, the number of classes so far."""
        self.features.fit(x)
        h = self.features.apply(x)
        self.add(h, F.one_hot(labels, classes).to(h))

    def add(self, h: Tensor, y: Tensor) -> None:
        """Adds rows: random features [n, M], targets [n, C] of as many classes as before or more."""
        for batch, target in zip(h.split(GROUP), y.split(GROUP), strict=True):
            if self.R is None and self.dual.count + len(batch) > RATIO * self.features.size:
                self._leave_dual(h)
            if self.R is not None:
                self._update(batch, target)
            else:
                root, mixed = square_root(batch, target, batch @ batch.T)
                self.dual.append(root)
                self.targets.append(mixed)
                self._weights = None

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.features.times(x, self.weights())

    def solved(self) -> Tensor:
        """W, [M, C]."""
        return self.dual.solve(self.gamma, padded(self.targets)) if self.W is None else self.W

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """That of the square roots, or of R."""
        return bytes_needed(sum(rows), self.features.size, classes, dim, itemsize=8, most=RATIO)

    def state(self) -> dict[str, Tensor]:
        """What is kept; R is copied, which is subtracted from in place."""
        return {name: t.clone() if name == "R" else t for name, t in super().state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As any other; R is copied."""
        super().load_state(state)
        self.R = None if self.R is None else self.R.clone()

    def _leave_dual(self, h: Tensor) -> None:
        self.W = self.weights() if self.targets else h.new_zeros(h.shape[1], 0)
        gram = self.gamma * torch.eye(h.shape[1]).to(h)
        for block in self.dual.blocks:
            gram.addmm_(block.T, block)
        self.R = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        self.dual, self.targets = Dual(), []

    def _update(self, batch: Tensor, target: Tensor) -> None:
        assert self.R is not None and self.W is not None
        weights = F.pad(self.W, (0, target.shape[1] - self.W.shape[1]))
        moved = batch @ self.R  # T
        factor = torch.linalg.cholesky(torch.eye(len(batch)).to(batch) + moved @ batch.T)
        whitened = torch.linalg.solve_triangular(factor, moved, upper=False)  # its square is T^T K T
        residual = torch.linalg.solve_triangular(factor, target - batch @ weights, upper=False)
        self.W, self._weights = weights + whitened.T @ residual, None
        self.R.addmm_(whitened.T, whitened, alpha=-1)


class DualStream(Classifier):
    """Scores f_main(x P) W_main + C f_comp(x P) W_comp: the second ridge learns what the first leaves (DS-AL, field.md A2).

    W_main is ridge regression onto the classes. After it has learned a task, W_comp learns from the same rows what is left
    of their targets, Y - f_main(x P) W_main, with zeros for all classes but those that are new.

    Arguments:
        main, comp: random features of the same P with their own activations. gamma, gamma_comp: ridges. ratio: C.
    """

    learned = ("main", "comp", "classes")

    def __init__(
        self, main: RandomFeatures, comp: RandomFeatures, *, gamma: float, gamma_comp: float, ratio: float
    ) -> None:
        self.main, self.comp = RecursiveRidge(main, gamma=gamma), RecursiveRidge(comp, gamma=gamma_comp)
        self.ratio, self.classes = ratio, 0

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        h = self.main.features.apply(x)
        y = F.one_hot(labels, classes).to(h)
        self.main.add(h, y)
        left = y - h @ self.main.weights()
        left[:, : self.classes] = 0
        self.comp.add(self.comp.features.apply(x), left)
        self.classes = classes

    def finalize(self) -> None:
        """Solves for both weights, if that has not been done since the last rows."""
        self.main.finalize()
        self.comp.finalize()

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.main.scores(x) + self.ratio * self.comp.scores(x)

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that both take at most; see `Learner.memory_needed`."""
        return self.main.memory_needed(rows, classes, dim) + self.comp.memory_needed(rows, classes, dim)
