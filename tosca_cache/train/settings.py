"""What one training setting consists of, and the learning rate of every epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import cos, pi

from tosca_cache.config import TrainConfig, check_value

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of the published method; the defaults are its own (reference/tosca.md, "Training a task").

    flow: which branches of the module are used.
    mlp_ratio, se_ratio: hidden sizes are d // ratio.
    l1: weight of sum |p| over the module's parameters.
    lr, weight_decay, momentum: of the optimizer; momentum is SGD's.
    optimizer: `sgd`, `adam`, `adamw` (PyTorch's defaults for everything not named here).
    scheduler: `cosine` (down to `eta_min` at the last epoch), `steplr` (times `gamma` at each of `milestones`), `constant`.
    epochs, batch_size: passes over a task's rows, rows a step; the last short batch is kept.

    Raises `ConfigError` for a value that the setting of that name cannot have.
    """

    flow: str = "tosca"
    mlp_ratio: int = 16
    se_ratio: int = 16
    l1: float = 5e-4
    lr: float = 0.025
    weight_decay: float = 0.0
    momentum: float = 0.9
    optimizer: str = "sgd"
    scheduler: str = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    eta_min: float = 1e-8
    epochs: int = 20
    batch_size: int = 48

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, check_value(field.name, getattr(self, field.name)))

    @classmethod
    def of(cls, config: TrainConfig) -> Settings:
        """The part of a configuration that training depends on."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def steps(self, rows: Iterable[int]) -> int:
        """Training steps over tasks of so many rows."""
        return self.epochs * sum(-(-n // self.batch_size) for n in rows)

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of one epoch, counted from 0; it changes once an epoch."""
        if self.scheduler == "cosine":
            return self.eta_min + (self.lr - self.eta_min) * (1 + cos(pi * epoch / self.epochs)) / 2
        if self.scheduler == "steplr":
            return self.lr * self.gamma ** sum(milestone <= epoch for milestone in self.milestones)
        return self.lr
