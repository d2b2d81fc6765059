"""The train rows of the first task, and which of them are held out. No test row is looked at here or behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tosca_cache.class_order import Protocol
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.errors import DatasetError
from tosca_cache.seeds import numpy_generator

IntArray = NDArray[np.int64]
TRAIN = "train"


@dataclass(frozen=True)
class FirstTask:
    """Rows of the dataset's train split.

    classes: names, in the order in which they are learned. class_order: of all classes.
    rows, labels: what is trained on, [n]; labels are places in `classes`.
    held_rows, held_labels: what decides when to stop, [m].
    """

    classes: tuple[str, ...]
    class_order: tuple[str, ...]
    rows: IntArray
    labels: IntArray
    held_rows: IntArray
    held_labels: IntArray


def first_task(dataset: ImageDataset, protocol: Protocol, held_out: float) -> FirstTask:
    """The first task of a protocol over a dataset.

    held_out: share of each class's train rows, at least one of a class that has two; drawn by (seed, class).

    Raises `DatasetError` if the task has one class, or a class has no train rows, and what `Protocol` raises.
    """
    names = dataset.class_names
    sizes, order = protocol.sizes_of(len(names)), protocol.order_of(names)
    chosen = order[: sizes[0]]
    if len(chosen) < 2:
        raise DatasetError(
            "the first task has one class, so that there is nothing to tell apart",
            where=dataset.name,
            remedy="adapt on a larger first task: --init-cls",
        )
    labels, kept, held = dataset.splits[TRAIN].labels, [], []
    for place, c in enumerate(chosen.tolist()):
        rows = np.flatnonzero(labels == c)
        if not len(rows):
            raise DatasetError(
                f"class {names[c]} has no train images",
                where=dataset.root,
                remedy="add images of it, or remove the class",
            )
        count = max(round(held_out * len(rows)), 1 if held_out else 0) if len(rows) > 1 else 0
        away = numpy_generator(protocol.seed, "adapt held out", names[c]).permutation(len(rows)) < count
        kept.append(np.stack((rows[~away], np.full(int((~away).sum()), place))))
        held.append(np.stack((rows[away], np.full(int(away.sum()), place))))
    rows, of_class = np.concatenate(kept, 1)
    held_rows, held_class = np.concatenate(held, 1)
    listed = tuple(names[c] for c in order)
    return FirstTask(listed[: sizes[0]], listed, rows, of_class, held_rows, held_class)
