"""FiLM on a cached feature: one gain and one shift a channel, trained on the rows of one task (methods.md 1.3 and 2).

FiLM layers inside the backbone cannot be had from a cache; this is one layer after it. A classifier that is invariant to
invertible affine maps (LDA without a ridge) cannot profit from it; cosine and nearest-mean classifiers can.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.luca.initialise import initial_head
from tosca_cache.luca.module import cosine_logits
from tosca_cache.luca.parameters import Head
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Group, Step, cross_entropy, fit, task_steps
from tosca_cache.train.loop import EpochDone


class Film:
    """x -> gamma * x + beta.

    gamma, beta: [d], float32; `Film.identity` has (1, 0).
    trained_numbers: how many numbers were trained for it, the head's included.
    """

    def __init__(self, gamma: Tensor, beta: Tensor) -> None:
        self.gamma, self.beta = gamma, beta
        self.trained_numbers = 0

    @classmethod
    def identity(cls, dim: int, device: torch.device | str = "cpu") -> Film:
        """The map that changes nothing."""
        return cls(torch.ones(dim, device=device), torch.zeros(dim, device=device))

    @classmethod
    def trained(
        cls,
        task: Task,
        settings: Settings,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        on_epoch: EpochDone | None = None,
    ) -> Film:
        """Trained from the identity on the train views of a task, under a cosine head over the task's own classes.

        The head and its scale start as TOSCA's, are trained along and thrown away. The loss is cross-entropy alone: the L1
        term of `settings` would draw the gains to zero. All else (optimizer, learning rates, epochs, batches) follows
        `settings`.
        """
        dim = task.train.features.shape[2]
        film, head = cls.identity(dim, device), initial_head(dim, len(task.classes), seed)
        leaves = [t.to(device) for t in (film.gamma, film.beta, head.weight, head.sigma)]
        gamma, beta, weight, sigma = leaves

        def loss(step: Step) -> Tensor:
            return cross_entropy(cosine_logits(Head(weight, sigma), gamma * step.x + beta), step)

        steps = task_steps([task], [seed], settings, torch.device(device), first_label=task.classes.start)
        fit([Group(leaves)], settings, steps, loss, on_epoch=on_epoch)
        film = cls(gamma, beta)
        film.trained_numbers = sum(t.numel() for t in leaves)
        return film

    def apply(self, x: Tensor) -> Tensor:
        """Adapted features [..., d] of features [..., d], on the device and in the dtype of `x`."""
        return self.gamma.to(x) * x + self.beta.to(x)

    def state(self) -> dict[str, Tensor]:
        """gamma and beta, on the CPU."""
        return {"gamma": self.gamma.cpu(), "beta": self.beta.cpu()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Film:
        """The FiLM that `state` described."""
        return cls(state["gamma"].to(device), state["beta"].to(device))
