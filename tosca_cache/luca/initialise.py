"""How modules and heads start (reference/tosca.md, "The module" and "The head")."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from tosca_cache.luca.parameters import Head, Luca, LucaShape
from tosca_cache.seeds import derive_seed


def initial_luca(shape: LucaShape, seed: int, task: int) -> Luca:
    """One fresh module, [1, ...] on the CPU in float32.

    Task 0 has PyTorch's default Linear initialisation, uniform within 1 / sqrt(fan_in) for weights and biases; every later
    task is Xavier-uniform with zero biases. LayerNorm starts at (1, 0).
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "luca", task))
    first = task == 0
    tensors: dict[str, Tensor] = {}
    fan_in = 1
    for name, size in shape.luca_shapes().items():
        if name.startswith("norm"):
            tensors[name] = torch.full((1, *size), 1.0 if name == "norm_weight" else 0.0)
        elif len(size) == 2:
            fan_out, fan_in = size
            bound = 1 / sqrt(fan_in) if first else sqrt(6 / (fan_in + fan_out))
            tensors[name] = _uniform((1, *size), bound, generator)
        else:  # the bias that follows its weight
            tensors[name] = _uniform((1, *size), 1 / sqrt(fan_in) if first else 0.0, generator)
    return Luca(**tensors)


def initial_head(dim: int, classes: int, seed: int) -> Head:
    """The head before task 0, [1, ...]: W uniform within 1 / sqrt(d), sigma 1."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "head"))
    return Head(_uniform((1, classes, dim), 1 / sqrt(dim), generator), torch.ones(1, 1))


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
