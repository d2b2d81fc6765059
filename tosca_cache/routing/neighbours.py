"""The task of the nearest train rows: keeps every train row, so it is rehearsal in feature space and says so."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.luca.bank import Bank
from tosca_cache.luca.module import normalise
from tosca_cache.routing.base import ModuleOutputs, Router, register_router
from tosca_cache.tasks import Task

NEIGHBOURS = 20
TEMPERATURE = 0.1
ROWS_AT_ONCE = 1024


@register_router
class NearestRows(Router):
    """The task of the class with most weight among the 20 nearest train rows by cosine, weighted by softmax(cos / 0.1)."""

    name = "knn"
    source = "the memory of AdaNPC (arXiv 2304.12566) without its updates (there k = 100)"
    stores = "all clean train rows, [N, d]"
    cost = "d N"
    rehearsal = True

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
        rows = normalise(outputs.features.cpu().float())
        votes = torch.cat([self._votes(part, outputs.task_classes[-1].stop) for part in rows.split(ROWS_AT_ONCE)])
        return outputs.task_of_class[votes.argmax(1).to(outputs.features.device)]

    def _votes(self, rows: Tensor, classes: int) -> Tensor:
        cosines, nearest = (rows @ self.memory.T).topk(min(NEIGHBOURS, len(self.memory)), dim=1)
        weights = torch.softmax(cosines / TEMPERATURE, 1)
        return rows.new_zeros(len(rows), classes).scatter_add_(1, self.labels[nearest], weights)

    def state(self) -> dict[str, Tensor]:
        """All rows and their labels."""
        return {"memory": self.memory, "labels": self.labels}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """All rows and their labels."""
        self.memory, self.labels = state["memory"], state["labels"]
