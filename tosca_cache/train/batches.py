"""Which row and which cached view every training step uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import Settings
from tosca_cache.devices import free_memory
from tosca_cache.errors import UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Task

IntArray = NDArray[np.int64]
BYTES = 40  # of a row in an epoch while all steps of a task are drawn: its view, its place, and what they are made of


class Batch(NamedTuple):
    """One step: rows of the task and the view each of them shows; `epoch` selects the learning rate."""

    epoch: int
    rows: IntArray  # [b]
    views: IntArray  # [b]


def view_schedule(rows: int, augmented: int, epochs: int, generator: np.random.Generator) -> IntArray:
    """The view of every row in every epoch, [epochs, rows].

    A row's views 1..`augmented` come in random order without repetition until used up, then in a new random order. Without
    augmented views every epoch shows view 0.
    """
    if augmented == 0:
        return np.zeros((epochs, rows), dtype=np.int64)
    rounds = -(-epochs // augmented)
    order = generator.random((rounds, rows, augmented)).argsort(-1) + 1  # [rounds, rows, augmented]
    return order.transpose(0, 2, 1).reshape(rounds * augmented, rows)[:epochs].astype(np.int64)


def check_plan(rows: int, epochs: int) -> None:
    """Raises `UsageError` if the order of minibatches over so many epochs of so many rows does not fit into memory."""
    needed, free = BYTES * rows * epochs, free_memory()
    if needed > free:
        raise UsageError(
            f"{epochs} epochs of {rows} rows: their minibatches alone take {needed / 2**30:,.0f} GiB of memory, and "
            f"{free / 2**30:,.1f} GiB are free",
            where="--epochs",
            remedy="train for fewer epochs",
        )


def epoch_batches(rows: int, augmented: int, *, epochs: int, batch_size: int, seed: int, task: int) -> Iterator[Batch]:
    """Every step of one task: rows reshuffled each epoch, the last short batch kept."""
    check_plan(rows, epochs)
    generator = numpy_generator(seed, "batches", task)
    views = view_schedule(rows, augmented, epochs, generator)
    for epoch in range(epochs):
        order = generator.permutation(rows)
        for start in range(0, rows, batch_size):
            chosen = order[start : start + batch_size]
            yield Batch(epoch, chosen, views[epoch, chosen])


def task_batches(task: Task, seed: int, settings: Settings) -> Iterator[Batch]:
    """Every step of a task under some settings."""
    n, views, _ = task.train.features.shape
    plan = {"epochs": settings.epochs, "batch_size": settings.batch_size}
    return epoch_batches(n, views - 1, **plan, seed=seed, task=task.number)
