"""Prototypes of classes with few rows, drawn towards similar classes with many (TEEN, arXiv 2312.05229; methods.md 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.closed_form.means import unit


def calibrated(means: Tensor, base: Tensor, *, alpha: float, tau: float) -> Tensor:
    """(1 - alpha) c + alpha l2(sum_b w_b p_b), with w = softmax_b(tau cos(c, p_b)); c and p_b have unit length.

    Arguments:
        means: class means of few rows, [K, d]. base: class means of many rows, [B, d].
        alpha: share of the base classes. tau: how much the most similar of them count for more.

    Returns:
        Prototypes [K, d].
    """
    new, known = unit(means), unit(base)
    weights = torch.softmax(tau * new @ known.T, 1)  # [K, B]
    return (1 - alpha) * new + alpha * unit(weights @ known)
