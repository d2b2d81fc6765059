"""What gradient-trained learners train: a linear head on the raw feature, or a LuCA module under a cosine head.

A model is two sets of named tensors, each with the model axis M first: `module`, which all classes share, and `rows`, with
the classes as their second axis.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.luca.initialise import initial_luca
from tosca_cache.luca.module import adapt, cosine_logits
from tosca_cache.luca.parameters import Head, Luca, LucaShape
from tosca_cache.seeds import derive_seed
from tosca_cache.train.gradient import Tensors

LINEAR_STD = 0.02


class LinearKind:
    """x W^T + b on the raw feature: W truncated normal of standard deviation 0.02, b zero; nothing is shared.

    Other kinds of models override how they start and what they compute.
    """

    def module(self, dim: int, settings: Settings, seed: int) -> Tensors:
        """What all classes share, as it starts before the first task, [1, ...]: nothing."""
        return {}

    def rows(self, dim: int, classes: int, seed: int, task: int) -> Tensors:
        """Rows of the head for the classes of a task, as they start: `weight` [1, classes, d] and `bias` [1, classes]."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "linear rows", task))
        weight = torch.empty(1, classes, dim)
        torch.nn.init.trunc_normal_(weight, std=LINEAR_STD, generator=generator)
        return {"weight": weight, "bias": torch.zeros(1, classes)}

    def adapt(self, module: Tensors, x: Tensor, settings: Settings) -> Tensor:
        """What the head sees of features x [M, n, d], [M, n, d]: themselves."""
        return x

    def logits(self, adapted: Tensor, module: Tensors, rows: Tensors) -> Tensor:
        """Logits of the classes in `rows`, [M, n, classes]: x W^T + b."""
        weight, bias = rows["weight"], rows["bias"].unsqueeze(1)
        return torch.baddbmm(bias, adapted.expand(len(weight), -1, -1), weight.transpose(1, 2))

    def l1(self, module: Tensors) -> Tensor | None:
        """Sum of |p| that the settings' L1 term weighs, [M]; None, as it is for modules."""
        return None


class LucaKind(LinearKind):
    """One LuCA module and a cosine head with a learned scale sigma; sigma counts to the module."""

    def module(self, dim: int, settings: Settings, seed: int) -> Tensors:
        """The tensors of `Luca` as they start before task 0, and `sigma`."""
        shape = LucaShape.from_ratios(dim, settings.mlp_ratio, settings.se_ratio)
        return {**initial_luca(shape, seed, 0)._asdict(), "sigma": torch.ones(1, 1)}

    def rows(self, dim: int, classes: int, seed: int, task: int) -> Tensors:
        """`weight` [1, classes, d], uniform within 1 / sqrt(d)."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "cosine rows", task))
        return {"weight": (torch.rand(1, classes, dim, generator=generator) * 2 - 1) / sqrt(dim)}

    def adapt(self, module: Tensors, x: Tensor, settings: Settings) -> Tensor:
        """The adapted feature, as LuCA gives it (not of unit length)."""
        return adapt(luca_of(module), x, settings.flow)

    def logits(self, adapted: Tensor, module: Tensors, rows: Tensors) -> Tensor:
        """sigma * cosine."""
        return cosine_logits(Head(rows["weight"], module["sigma"]), adapted)

    def l1(self, module: Tensors) -> Tensor | None:
        """Over the module, without sigma."""
        return torch.stack([t.abs().flatten(1).sum(1) for t in luca_of(module)]).sum(0)


def luca_of(module: Tensors) -> Luca:
    """The LuCA module among named tensors."""
    return Luca(*(module[name] for name in Luca._fields))


def joined(old: Tensors, new: Tensors) -> Tensors:
    """Rows of old and new classes as one head; `old` may be empty."""
    return {name: torch.cat([old[name].to(t), t], 1) if old else t for name, t in new.items()}
