"""Rows for classes whose rows are gone: the current rows moved to past means (FeTrIL, arXiv 2211.13131; methods.md 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from tosca_cache.closed_form.means import unit
from tosca_cache.closed_form.ridge import solve

METRICS = ("cosine", "euclidean")


def nearest(past: Tensor, current: Tensor, *, metric: str) -> Tensor:
    """For each past mean [P, d] the nearest of the current ones [K, d] by a metric of `METRICS`, [P]."""
    if metric == "cosine":
        return (unit(past) @ unit(current).T).argmax(1)
    return torch.cdist(past, current).argmin(1)


def rows_of_every_class(x: Tensor, labels: Tensor, means: Tensor, current: range, *, metric: str) -> Iterator[Tensor]:
    """The rows to train on, one [n_c, d] for each class in order.

    A past class p has x - mean(n) + mean(p) for every row x of its nearest current class n; a current class has its own.

    Arguments:
        x, labels: rows of the current classes, [n, d] and [n].
        means: of all classes, [C, d], C = current.stop.
    """
    chosen = nearest(means[: current.start], means[current.start :], metric=metric) + current.start
    for p, n in enumerate(chosen.tolist()):
        yield x[labels == n] - means[n] + means[p]
    for c in current:
        yield x[labels == c]


def balanced_ridge(groups: Iterable[Tensor], *, lam: float) -> Tensor:
    """Ridge regression onto one-hot classes where every class weighs the same, whatever its number of rows.

    Arguments:
        groups: rows of each class, [n_c, d].
        lam: added to sum w h h^T, in which the weights w add up to the number of rows.

    Returns:
        Weights over h = (x, 1), [d + 1, C].
    """
    G, sums, rows = torch.zeros(()), [], 0
    for x in groups:
        h = torch.cat([x, x.new_ones(len(x), 1)], 1)
        G = G.to(h) + h.T @ h / len(h)
        sums.append(h.mean(0))
        rows += len(h)
    weight = rows / len(sums)  # of a class
    return solve(weight * G, weight * torch.stack(sums, 1), lam)
