"""Multinomial logistic regression to its optimum: a convex problem, solved by L-BFGS in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-5  # of the largest entry of the gradient
STEPS = 2000
MEMORY = 20


class Solution(NamedTuple):
    """weight [d, C] and bias [C]. gradient: largest entry of the gradient of the objective in them, by size."""

    weight: Tensor
    bias: Tensor
    gradient: float

    def logits(self, x: Tensor) -> Tensor:
        """x W + b, [n, C]."""
        return x @ self.weight + self.bias


class Logistic:
    """min over W, b of mean CE(x W + b, y) + c/2 |W|^2, for rows that stay the same and several c.

    Solved in coordinates in which the problem is rounder: along the principal directions of the rows, each divided by
    the root of its curvature s^2 / C + c. The optimum is the same; L-BFGS gets there in far fewer steps.

    Arguments:
        x: rows, [n, d]. labels: [n]. classes: C.
    """

    def __init__(self, x: Tensor, labels: Tensor, classes: int) -> None:
        self.x, self.labels, self.classes = x.double(), labels, classes
        moments, self.directions = torch.linalg.eigh(self.x.T @ self.x / len(x))
        self.moments = moments.clamp_min(0)

    def solve(self, c: float, start: Solution | None = None, *, tolerance: float = TOLERANCE) -> Solution:
        """The optimum for one c, from a solution for another c if given."""
        d, C = self.x.shape[1], self.classes
        scale = (self.moments / C + c).rsqrt().unsqueeze(1)  # [d, 1]
        z = self.x @ (self.directions * scale.T)
        parameters = z.new_zeros(d + 1, C)  # W = V (scale * parameters[:d]), b = the last row
        if start is not None:
            parameters[:d], parameters[d] = (self.directions.T @ start.weight) / scale, start.bias
        parameters.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [parameters],
            max_iter=STEPS,
            max_eval=2 * STEPS,
            tolerance_grad=tolerance * float(scale.min().clamp_max(1)),
            tolerance_change=1e-14,
            history_size=MEMORY,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = z @ parameters[:d] + parameters[d]
            loss = F.cross_entropy(logits, self.labels) + c / 2 * (scale * parameters[:d]).square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        found = parameters.detach()
        weight, bias = self.directions @ (scale * found[:d]), found[d]
        return Solution(weight, bias, self.gradient(weight, bias, c))

    def gradient(self, weight: Tensor, bias: Tensor, c: float) -> float:
        """Largest entry of the gradient of the objective, by size."""
        wrong = (self.x @ weight + bias).softmax(1)
        wrong[torch.arange(len(wrong)), self.labels] -= 1
        inner = self.x.T @ wrong / len(wrong) + c * weight
        return max(float(inner.abs().max()), float(wrong.mean(0).abs().max()))
