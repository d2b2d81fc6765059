"""The task of the nearest class mean of the raw features."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.luca.bank import Bank
from tosca_cache.luca.module import normalise
from tosca_cache.routing.base import Evidence, Router, register_router
from tosca_cache.tasks import Task


@register_router
class NearestPrototype(Router):
    """The module whose task holds the class mean of the largest cosine with the sample, before any module."""

    name = "prototype"
    source = "nearest class mean (SimpleCIL, arXiv 2303.07338, as a router); methods.md 1"
    stores = "a mean of each class, [C, d]"

    def __init__(self) -> None:
        self.means: list[Tensor] = []

    def fit(self, task: Task, bank: Bank) -> None:
        clean = torch.from_numpy(task.train.features[:, 0]).float()
        labels = torch.from_numpy(task.train.labels)
        self.means += [clean[labels == c].mean(0) for c in task.classes]

    def route(self, evidence: Evidence) -> Tensor:
        means = torch.stack(self.means).to(evidence.features)
        nearest = (normalise(evidence.features) @ normalise(means).T).argmax(1)
        task_of_class = torch.cat([torch.full((len(block),), t) for t, block in enumerate(evidence.blocks)])
        return task_of_class.to(nearest.device)[nearest]

    def state(self) -> dict[str, Tensor]:
        return {"means": torch.stack(self.means)} if self.means else {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.means = list(state["means"]) if "means" in state else []
