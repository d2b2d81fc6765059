"""The train rows of the first task, which of them are held out, and their pixels. No test row is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch

from tosca_cache.class_order import Protocol
from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import Pixels, TransformSpec, clean_view, draw_view, open_image, render, view_seed
from tosca_cache.errors import DatasetError
from tosca_cache.extract.engine import ahead
from tosca_cache.seeds import numpy_generator

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


@dataclass(frozen=True)
class ImageBatches:
    """Images of the train split under one transform, opened and cropped by threads one batch ahead of the training.

    Every epoch sees another random crop and flip of each image, drawn by (seed, image, epoch) alone.
    """

    dataset: ImageDataset
    transform: TransformSpec
    seed: int
    pool: ThreadPoolExecutor

    def of(self, batches: Sequence[IntArray], epoch: int) -> Iterator[torch.Tensor]:
        """Bytes [n, S, S, 3] of the rows of each batch in turn; `epoch` from 1, or 0 for the clean view.

        Raises `ImageError` for the first image that cannot be read.
        """
        rows = chain.from_iterable(batch.tolist() for batch in batches)
        rendered = ahead(self.pool, partial(self._render, epoch), rows, 2 * max(map(len, batches)))
        for batch in batches:
            yield torch.from_numpy(np.stack(list(islice(rendered, len(batch)))))

    def _render(self, epoch: int, row: int) -> Pixels:
        image = open_image(self.transform, self.dataset, TRAIN, row)
        width, height = image.size
        if epoch == 0:
            return render(self.transform, image, clean_view(height, width))
        seed = view_seed(self.seed, "adapt", self.dataset.splits[TRAIN].paths[row], epoch)
        return render(self.transform, image, draw_view(self.transform, seed, height, width))
