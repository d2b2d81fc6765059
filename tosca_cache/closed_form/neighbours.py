"""Votes of the nearest rows of a memory (AdaNPC, arXiv 2304.12566; methods.md 13.1)."""

from __future__ import annotations

import torch
from torch import Tensor

QUERIES_AT_ONCE = 1024


def votes(queries: Tensor, memory: Tensor, labels: Tensor, classes: int, *, k: int, tau: float) -> Tensor:
    """score_c = sum over the k nearest i of softmax_i(cos(x, m_i) / tau) [y_i = c]; a row's scores add up to 1.

    Arguments:
        queries, memory: rows of unit length, [n, d] and [m, d]; all of the memory is asked if it has fewer than k.
        labels: of the memory, [m].

    Returns:
        [n, classes].
    """
    found = []
    for rows in queries.split(QUERIES_AT_ONCE):
        near = (rows @ memory.T).topk(min(k, len(memory)), dim=1)
        weights = torch.softmax(near.values / tau, 1)
        found.append(weights.new_zeros(len(rows), classes).scatter_add_(1, labels[near.indices], weights))
    return torch.cat(found)
