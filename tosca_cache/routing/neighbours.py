"""The task of the nearest train rows: keeps every train row, so it is rehearsal in feature space and says so."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.closed_form.means import votes
from tosca_cache.luca.bank import Bank
from tosca_cache.luca.module import normalise
from tosca_cache.routing.base import ModuleOutputs, Router, register_router
from tosca_cache.tasks import Task

NEIGHBOURS = 20
TEMPERATURE = 0.1


@register_router
class NearestRows(Router):
    """The task of the class with most weight among the 20 nearest train rows by cosine, weighted by softmax(cos / 0.1)."""

    name = "knn"
    source = "the memory of AdaNPC (arXiv 2304.12566) without its updates (there k = 100)"
    stores = "all clean train rows, [N, d]"
    cost = "d N"
    rehearsal = True
    learned = ("memory", "labels")

    def __init__(self) -> None:
        self.memory = torch.empty(0, 0)  # unit length, [N, d]
        self.labels = torch.empty(0, dtype=torch.int64)

    def fit(self, task: Task, bank: Bank) -> None:
        """Keeps the clean train rows of a task."""
        rows = normalise(torch.from_numpy(task.train.features[:, 0]).float())
        self.memory = torch.cat([self.memory, rows]) if len(self.memory) else rows
        self.labels = torch.cat([self.labels, torch.from_numpy(task.train.labels)])

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of the class with most weight, [n]."""
        rows, classes = normalise(outputs.features.cpu().float()), outputs.task_classes[-1].stop
        labels = votes(rows, self.memory, self.labels, classes, k=NEIGHBOURS, tau=TEMPERATURE).argmax(1)
        return outputs.task_of_class[labels.to(outputs.features.device)]
