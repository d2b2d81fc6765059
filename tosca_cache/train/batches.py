"""Which row and which cached view every training step uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tosca_cache.seeds import numpy_generator

IntArray = NDArray[np.int64]


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


def epoch_batches(rows: int, augmented: int, *, epochs: int, batch_size: int, seed: int, task: int) -> Iterator[Batch]:
    """Every step of one task: rows reshuffled each epoch, the last short batch kept."""
    generator = numpy_generator(seed, "batches", task)
    views = view_schedule(rows, augmented, epochs, generator)
    for epoch in range(epochs):
        order = generator.permutation(rows)
        for start in range(0, rows, batch_size):
            chosen = order[start : start + batch_size]
            yield Batch(epoch, chosen, views[epoch, chosen])
