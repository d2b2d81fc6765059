"""One-vs-rest linear SVMs with squared hinge, all classes side by side: the problem that scikit-learn's LinearSVC solves.

Conjugate gradients (Polak-Ribiere, every class with its own direction and an exact step) need two products with the rows
an iteration, which all classes share; liblinear solves one class after another.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tosca_cache.devices import one_thread

ITERATIONS = 50
TOLERANCE = 3e-4  # of the first gradient's norm, in the class where it is largest
ACTIVE = 0.02  # share of all rows assumed within the margin by the preconditioner; it changes the speed alone
STEPS = 4  # of Newton's method along a line, on which the objective is piecewise quadratic
TINY = 1e-30


@one_thread()
@torch.no_grad()
def squared_hinge(groups: Iterable[Tensor], *, C: float, device: torch.device | str = "cpu") -> Tensor:
    """Minimises |w_c|^2 / 2 + C sum_i max(0, 1 - y_ic w_c . (x_i, 1))^2 for every class c, with y_ic = 1 in it and else -1.

    Arguments:
        groups: rows of each class, [n_c, d].

    Returns:
        Weights over (x, 1), [d + 1, classes], float32.
    """
    rows = [group.to(device).float() for group in groups]
    x = torch.cat(rows)
    h = torch.cat([x, x.new_ones(len(x), 1)], 1)  # [n, d + 1]
    labels = torch.cat([torch.full((len(group),), c, device=x.device) for c, group in enumerate(rows)])
    y = -h.new_ones(len(h), len(rows)).scatter_(1, labels.unsqueeze(1), -1.0)  # [n, classes]
    curvature = 2 * C * ACTIVE * h.T @ h + torch.eye(h.shape[1], device=h.device)
    factor = torch.linalg.cholesky(curvature)
    W, slack = h.new_zeros(h.shape[1], len(rows)), torch.ones_like(y)  # slack = 1 - y f
    direction, old, old_step, first = torch.zeros_like(W), torch.zeros_like(W), torch.zeros_like(W), torch.empty(0)
    for iteration in range(ITERATIONS):
        gradient = W - 2 * C * (h.T @ (y * slack.clamp_min(0)))
        size = gradient.norm(dim=0)
        if iteration == 0:
            first = size.clamp_min(TINY)
        if float((size / first).max()) < TOLERANCE:
            break
        step = torch.cholesky_solve(gradient, factor)
        beta = ((step * (gradient - old)).sum(0) / (old * old_step).sum(0).clamp_min(TINY)).clamp_min(0)
        direction = beta * direction - step
        uphill = (direction * gradient).sum(0) >= 0
        direction = torch.where(uphill, -step, direction)
        along = y * (h @ direction)
        length = _minimum(W, direction, slack, along, C)
        W, slack = W + length * direction, slack - length * along
        old, old_step = gradient, step
    return W.cpu()


def _minimum(W: Tensor, direction: Tensor, slack: Tensor, along: Tensor, C: float) -> Tensor:
    """How far to go along each class's direction, [classes]: the slack falls by `along` a unit."""
    inner, square = (W * direction).sum(0), direction.square().sum(0)
    length = torch.zeros_like(inner)
    for _ in range(STEPS):
        within = slack - length * along
        active = along * (within > 0)
        slope = inner + length * square - 2 * C * (within * active).sum(0)
        length = length - slope / (square + 2 * C * active.square().sum(0)).clamp_min(TINY)
    return length
