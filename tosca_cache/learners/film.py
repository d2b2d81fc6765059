"""FiLM on a cached feature: one gain and one shift a channel, trained on the rows of one task (methods.md 1.3 and 2).

FiLM layers inside the backbone cannot be had from a cache; this is one layer after it. A classifier that is invariant to
invertible affine maps (LDA without a ridge) cannot profit from it; cosine and nearest-mean classifiers can.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import attrgetter

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.devices import one_thread
from tosca_cache.luca.initialise import initial_head
from tosca_cache.luca.module import normalise
from tosca_cache.tasks import Task
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.gradient import make_optimizer
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
        leaves = [t.to(device).requires_grad_() for t in (film.gamma, film.beta, head.weight[0], head.sigma[0])]
        _fit(leaves, task, settings, seed=seed, on_epoch=on_epoch)
        film = cls(leaves[0].detach(), leaves[1].detach())
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


@one_thread()
def _fit(leaves: list[Tensor], task: Task, settings: Settings, *, seed: int, on_epoch: EpochDone | None) -> None:
    """Trains gamma, beta, the head's rows and its scale in place, over TOSCA's batches and views."""
    gamma, beta, weight, sigma = leaves
    optimizer = make_optimizer(leaves, settings)
    features = torch.from_numpy(task.train.features).to(gamma)  # [n, 1+V, d]
    labels = torch.from_numpy(task.train.labels - task.classes.start).to(gamma.device)
    n, views, _ = features.shape
    steps = epoch_batches(
        n, views - 1, epochs=settings.epochs, batch_size=settings.batch_size, seed=seed, task=task.number
    )
    for epoch, batches in groupby(steps, key=attrgetter("epoch")):
        optimizer.param_groups[0]["lr"] = settings.learning_rate(epoch)
        for batch in batches:
            rows, shown = (torch.from_numpy(index).to(gamma.device) for index in (batch.rows, batch.views))
            logits = sigma * (normalise(gamma * features[rows, shown] + beta) @ normalise(weight).T)
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[rows]).backward()
            optimizer.step()
        if on_epoch is not None:
            on_epoch(epoch)
