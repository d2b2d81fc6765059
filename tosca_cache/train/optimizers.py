"""torch.optim's arithmetic on one flat buffer of stacked parameters: a few operations for any number of models."""

from __future__ import annotations

from math import sqrt
from typing import Protocol

import torch

from tosca_cache.luca.parameters import Parameters
from tosca_cache.train.settings import Settings

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


class Optimizer(Protocol):
    """Updates `parameters.flat` in place from `parameters.grad`."""

    def step(self, lr: float) -> None:
        """One update with learning rate `lr`."""


class Sgd:
    """SGD with momentum and coupled weight decay (torch.optim.SGD, dampening 0, no Nesterov)."""

    def __init__(self, parameters: Parameters, settings: Settings) -> None:
        self.parameters, self.settings = parameters, settings
        self.velocity = torch.zeros_like(parameters.flat)

    def step(self, lr: float) -> None:
        flat, grad = self.parameters.flat, self.parameters.grad
        if self.settings.weight_decay:
            grad.add_(flat, alpha=self.settings.weight_decay)
        self.velocity.mul_(self.settings.momentum).add_(grad)
        flat.add_(self.velocity, alpha=-lr)


class Adam:
    """Adam with coupled weight decay, or AdamW with decoupled weight decay (torch.optim.Adam, AdamW)."""

    def __init__(self, parameters: Parameters, settings: Settings, *, decoupled: bool) -> None:
        self.parameters, self.settings, self.decoupled = parameters, settings, decoupled
        self.mean, self.square = torch.zeros_like(parameters.flat), torch.zeros_like(parameters.flat)
        self.steps = 0

    def step(self, lr: float) -> None:
        flat, grad, decay = self.parameters.flat, self.parameters.grad, self.settings.weight_decay
        self.steps += 1
        if decay and self.decoupled:
            flat.mul_(1 - lr * decay)
        elif decay:
            grad.add_(flat, alpha=decay)
        self.mean.lerp_(grad, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        scale = sqrt(1 - BETA2**self.steps)
        denominator = self.square.sqrt().div_(scale).add_(ADAM_EPS)
        flat.addcdiv_(self.mean, denominator, value=-lr / (1 - BETA1**self.steps))


def make_optimizer(parameters: Parameters, settings: Settings) -> Optimizer:
    """A fresh optimizer (its state is zero) over module, head and sigma together."""
    if settings.optimizer == "sgd":
        return Sgd(parameters, settings)
    return Adam(parameters, settings, decoupled=settings.optimizer == "adamw")
