"""Logits of a class from the distances to its nearest centres, by two trained numbers (FeNeC-Log, field.md A2).

logit_c = sum over the k nearest centres j of class c of LeakyReLU(a + b log(d_cj + 1e-10)), of slope 0.01 below zero. a and
b are the same for all classes and are trained on the first task alone, by cross-entropy over its classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tosca_cache.seeds import numpy_generator

TINY, SLOPE = 1e-10, 0.01
RATE, EPOCHS, BATCH = 3e-3, 10, 64  # of Adam, as the official code has them


class DistanceLogits:
    """The two numbers, float64. Before they are trained a = 0 and b = -1: the nearer, the likelier.

    seed: of the order of rows.
    """

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
