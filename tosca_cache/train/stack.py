"""What is trained side by side: members of one model axis, and the rows that each of them sees.

A lane is one task as one stream of classes and batches sees it; members that differ only in their settings share a lane,
and its features are held once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.luca.module import adapt
from tosca_cache.luca.parameters import Luca
from tosca_cache.tasks import Task
from tosca_cache.train.batches import Batch, task_batches

T = TypeVar("T")


class Lane(NamedTuple):
    """Features [n, views, d] in the dtype of the parameters, view 0 being the clean one; class indices [n]; all steps."""

    features: Tensor
    labels: Tensor
    batches: Sequence[Batch]

    @classmethod
    def of(cls, task: Task, seed: int, settings: Settings, device: torch.device, *, first_label: int = 0) -> Lane:
        """A task in float32, its steps by seed and settings; first_label: what is taken from the labels."""
        features = torch.from_numpy(task.train.features).to(device).float()
        labels = torch.from_numpy(task.train.labels - first_label).to(device)
        return cls(features, labels, list(task_batches(task, seed, settings)))


class Member(NamedTuple):
    """One model: its settings, and the number of its lane."""

    settings: Settings
    lane: int = 0


def runs_of(values: Sequence[T]) -> Iterator[tuple[T, slice]]:
    """Consecutive equal values and where they stand: what can be computed as one."""
    start = 0
    for stop in range(1, len(values) + 1):
        if stop == len(values) or values[stop] != values[start]:
            yield values[start], slice(start, stop)
            start = stop


def adapt_stack(luca: Luca, x: Tensor, flows: Sequence[str]) -> Tensor:
    """`luca.module.adapt` for models of different flows, [n, d] or [M, n, d] to [M, n, d]."""
    parts = [
        adapt(Luca(*(t[part] for t in luca)), x if x.dim() == 2 else x[part], flow) for flow, part in runs_of(flows)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Steps:
    """All steps of a task for all members, as tensors on the device: nothing between two steps waits for a copy.

    Lanes of fewer steps, and short batches, are padded by rows of weight 0; a member that has finished has learning rate 0.

    count: steps of the longest lane, K. sizes: rows of the largest batch of each step, [K]. epochs: of lane 0, [K].
    index: rows of `flat`, [K, L, b]. targets: [K, L, b]. weights: 1 / rows of the batch, or 0, [K, L, b].
    lr: [K, M, 1]. flat: features of all lanes, [rows, d]. lane_of: lane of every member, [M], None if there is one lane.
    """

    def __init__(self, lanes: Sequence[Lane], members: Sequence[Member]) -> None:
        device, dtype = lanes[0].features.device, lanes[0].features.dtype
        self.count = max(len(lane.batches) for lane in lanes)
        sizes = np.zeros((self.count, len(lanes)), dtype=np.int64)
        for number, lane in enumerate(lanes):
            sizes[: len(lane.batches), number] = [len(batch.rows) for batch in lane.batches]
        self.sizes = sizes.max(1).tolist() if self.count else []
        self.epochs = [batch.epoch for batch in lanes[0].batches]
        shape = (self.count, len(lanes), max(self.sizes, default=0))
        index, rows = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        first_row = first = 0
        for number, lane in enumerate(lanes):
            n, views, _ = lane.features.shape
            for k, batch in enumerate(lane.batches):
                index[k, number, : len(batch.rows)] = first + batch.rows * views + batch.views
                rows[k, number, : len(batch.rows)] = first_row + batch.rows
            first, first_row = first + n * views, first_row + n
        weights = (np.arange(shape[2]) < sizes[..., None]) / np.maximum(sizes, 1)[..., None]
        self.flat = _joined([lane.features.flatten(0, 1) for lane in lanes])
        labels = _joined([lane.labels for lane in lanes])
        self.index = torch.from_numpy(index).to(device)
        self.targets = labels[torch.from_numpy(rows).to(device)]
        self.weights = torch.from_numpy(weights).to(device, dtype)
        self.lr = torch.from_numpy(_rates(lanes, members, self.count)).to(device, dtype).unsqueeze(2)
        self.lane_of = torch.tensor([member.lane for member in members], device=device) if len(lanes) > 1 else None

    def minibatch(self, k: int | Tensor, size: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Features [n, d] or [M, n, d], targets [M or 1, n] and weights [M or 1, n] of step k, at most `size` rows."""
        index, targets, weights = (_at(t, k)[:, :size] for t in (self.index, self.targets, self.weights))
        if self.lane_of is None:
            return self.flat[index[0]], targets, weights
        return self.flat[index][self.lane_of], targets[self.lane_of], weights[self.lane_of]


def _at(table: Tensor, k: int | Tensor) -> Tensor:
    return table[k] if isinstance(k, int) else table.index_select(0, k)[0]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rates(lanes: Sequence[Lane], members: Sequence[Member], count: int) -> np.ndarray:
    rates = np.zeros((count, len(members)))
    for m, (settings, lane) in enumerate(members):
        rates[: len(lanes[lane].batches), m] = learning_rates(settings, lanes[lane].batches)
    return rates


def learning_rates(settings: Settings, batches: Sequence[Batch]) -> list[float]:
    """The learning rate of every step."""
    by_epoch = [settings.learning_rate(epoch) for epoch in range(settings.epochs)]
    return [by_epoch[batch.epoch] for batch in batches]
