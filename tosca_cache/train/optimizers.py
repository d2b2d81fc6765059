"""torch.optim's arithmetic on one flat buffer of stacked parameters: a few operations for any number of models.

Everything that may differ between models (learning rate, momentum, weight decay) is a column [M, 1]; models with the same
kind of optimizer stand together and are updated as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.luca.parameters import Parameters
from tosca_cache.train.stack import runs_of

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


class StackedOptimizer:
    """Fresh optimizers (their state is zero) of all models, over module, head and sigma together."""

    def __init__(self, parameters: Parameters, settings: Sequence[Settings]) -> None:
        self.parts = [
            _PARTS[kind](parameters.flat[models], parameters.grad[models], settings[models])
            for kind, models in runs_of([s.optimizer for s in settings])
        ]
        self.slices = [models for _, models in runs_of([s.optimizer for s in settings])]

    def step(self, lr: Tensor, number: Tensor) -> None:
        """Updates the parameters in place from `parameters.grad`.

        Arguments:
            lr: [M, 1].
            number: how many steps there have been, this one included, as a tensor of one float.
        """
        for part, models in zip(self.parts, self.slices, strict=True):
            part.step(lr[models], number)

    def state(self) -> list[Tensor]:
        """All that `step` remembers."""
        return [tensor for part in self.parts for tensor in part.state()]


class Sgd:
    """SGD with momentum and coupled weight decay (torch.optim.SGD, dampening 0, no Nesterov)."""

    def __init__(self, flat: Tensor, grad: Tensor, settings: Sequence[Settings]) -> None:
        self.flat, self.grad = flat, grad
        self.velocity = torch.zeros_like(flat)
        self.momentum = column([s.momentum for s in settings], flat)
        self.decay = column([s.weight_decay for s in settings], flat) if any(s.weight_decay for s in settings) else None

    def step(self, lr: Tensor, number: Tensor) -> None:
        """One update of its models; see `StackedOptimizer.step`."""
        if self.decay is not None:
            self.grad.addcmul_(self.flat, self.decay)
        self.velocity.mul_(self.momentum).add_(self.grad)
        self.flat.addcmul_(self.velocity, lr, value=-1)

    def state(self) -> list[Tensor]:
        """All that `step` remembers."""
        return [self.velocity]


class Adam:
    """Adam with coupled weight decay, or AdamW with decoupled weight decay (torch.optim.Adam, AdamW)."""

    decoupled = False

    def __init__(self, flat: Tensor, grad: Tensor, settings: Sequence[Settings]) -> None:
        self.flat, self.grad = flat, grad
        self.mean, self.square = torch.zeros_like(flat), torch.zeros_like(flat)
        self.decay = column([s.weight_decay for s in settings], flat) if any(s.weight_decay for s in settings) else None

    def step(self, lr: Tensor, number: Tensor) -> None:
        """One update of its models; see `StackedOptimizer.step`."""
        if self.decay is not None and self.decoupled:
            self.flat.mul_(1 - lr * self.decay)
        elif self.decay is not None:
            self.grad.addcmul_(self.flat, self.decay)
        self.mean.lerp_(self.grad, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(self.grad, self.grad, value=1 - BETA2)
        scale = (1 - BETA2**number).sqrt().to(lr.dtype)
        denominator = self.square.sqrt().div_(scale).add_(ADAM_EPS)
        rate = lr / (1 - BETA1**number).to(lr.dtype)
        self.flat.addcmul_(self.mean.div(denominator), rate, value=-1)

    def state(self) -> list[Tensor]:
        """All that `step` remembers."""
        return [self.mean, self.square]


class AdamW(Adam):
    """Decoupled weight decay."""

    decoupled = True


_PARTS: dict[str, type[Sgd | Adam]] = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One number a model, [M, 1]."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)
