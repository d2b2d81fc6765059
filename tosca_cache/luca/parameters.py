"""Parameters of LuCA modules and of the cosine head, stacked along a leading model axis M in one flat buffer; their start.

One flat buffer [M, P] lets an optimizer update everything in a handful of operations, whatever the number of models; the
named tensors are views of it. LuCA's parameters come first, so `[:, :luca_size]` is what the L1 term sums over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from tosca_cache.seeds import derive_seed


class Luca(NamedTuple):
    """Weights of M modules; Linear weights are [out, in] (reference/tosca.md, "The module")."""

    norm_weight: Tensor  # [M, d]
    norm_bias: Tensor  # [M, d]
    down_weight: Tensor  # [M, d // mlp_ratio, d]
    down_bias: Tensor  # [M, d // mlp_ratio]
    up_weight: Tensor  # [M, d, d // mlp_ratio]
    up_bias: Tensor  # [M, d]
    squeeze_weight: Tensor  # [M, d // se_ratio, d]
    excite_weight: Tensor  # [M, d, d // se_ratio]


class Head(NamedTuple):
    """The cosine classifier of M models over the C classes seen."""

    weight: Tensor  # [M, C, d]
    sigma: Tensor  # [M, 1]


@dataclass(frozen=True)
class LucaShape:
    """Sizes of one module.

    dim: feature size d.
    mlp_hidden, se_hidden: d // mlp_ratio and d // se_ratio.
    """

    dim: int
    mlp_hidden: int
    se_hidden: int

    @classmethod
    def from_ratios(cls, dim: int, mlp_ratio: int, se_ratio: int) -> LucaShape:
        """Hidden sizes d // ratio; a ratio larger than d leaves one unit."""
        return cls(dim, max(dim // mlp_ratio, 1), max(dim // se_ratio, 1))

    def luca_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every LuCA tensor of one module, in buffer order."""
        d, h, s = self.dim, self.mlp_hidden, self.se_hidden
        shapes = ((d,), (d,), (h, d), (h,), (d, h), (d,), (s, d), (d, s))
        return dict(zip(Luca._fields, shapes, strict=True))

    @property
    def luca_size(self) -> int:
        """Number of LuCA parameters of one module (149,808 at d = 768 with ratios 16)."""
        return sum(prod(shape) for shape in self.luca_shapes().values())


class Parameters:
    """M modules and M heads over `classes` classes in one flat buffer, with a gradient buffer of the same form.

    flat, grad: [M, P], P = luca_size + classes * d + 1.
    luca, head: leaves for autograd, views of `flat`.
    """

    def __init__(
        self, shape: LucaShape, classes: int, *, models: int = 1, device: torch.device | str = "cpu", dtype: torch.dtype
    ) -> None:
        self.shape, self.classes, self.models = shape, classes, models
        named = shape.luca_shapes() | {"weight": (classes, shape.dim), "sigma": (1,)}
        size = sum(prod(s) for s in named.values())
        self.flat = torch.zeros(models, size, device=device, dtype=dtype)
        self.grad = torch.zeros_like(self.flat)
        leaves: dict[str, Tensor] = {}
        start = 0
        for name, tail in named.items():
            part = slice(start, start + prod(tail))
            leaves[name] = self.flat[:, part].unflatten(1, tail).requires_grad_()
            start = part.stop
        self.luca = Luca(*(leaves[name] for name in Luca._fields))
        self.head = Head(leaves["weight"], leaves["sigma"])

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """All parameters in buffer order."""
        return (*self.luca, *self.head)

    def gather_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Fills `grad` from one gradient a leaf; None, for a branch that the flow does not use, is zero."""
        parts = [
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(self.leaves, gradients, strict=True)
        ]
        torch.cat([part.flatten(1) for part in parts], dim=1, out=self.grad)

    @property
    def luca_flat(self) -> Tensor:
        """The LuCA part of the flat buffer, [M, luca_size]."""
        return self.flat[:, : self.shape.luca_size]

    @torch.no_grad()
    def set_luca(self, luca: Luca) -> None:
        """Copies module weights in; each tensor is [M, ...]."""
        for own, given in zip(self.luca, luca, strict=True):
            own.copy_(given)

    @torch.no_grad()
    def set_head(self, head: Head) -> None:
        """Copies a head in; one over fewer classes fills the first rows and leaves the new rows zero."""
        self.head.weight.zero_()
        self.head.weight[:, : head.weight.shape[1]].copy_(head.weight)
        self.head.sigma.copy_(head.sigma)


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
