"""What is computed together: a group is a few neighbouring images of one shard with all their views, in one forward pass.

Which images share a pass decides the last bits of their features. So groups follow from the shard and the batch size alone:
not from the number of workers, not from where an earlier run was interrupted, not from images that cannot be read (their
places hold zeros, and are left out when the store is finished).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import VIEW_COLUMNS, Pixels, TransformSpec, as_rows, image_views, render
from tosca_cache.errors import ImageError
from tosca_cache.store import Shard


@dataclass(frozen=True)
class Group:
    """Rows `start` to `stop` (exclusive) of a shard's split."""

    shard: Shard
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many images it has."""
        return self.stop - self.start


@dataclass(frozen=True)
class Rendered:
    """The pixels of a group, ready for the backbone.

    pixels: [rows * (1+V), S, S, 3] bytes, the views of an image behind one another.
    views: their parameters [rows, 1+V, 6].
    skipped: row of the split -> why its image could not be read; its pixels are zeros.
    """

    group: Group
    pixels: torch.Tensor
    views: IntArray
    skipped: dict[int, str]


@dataclass(frozen=True)
class Renderer:
    """Opens each image of a group once, and makes all its views.

    counts: split -> number V of augmented views.
    skip: keep going when an image cannot be read, instead of raising `ImageError`.
    pinned: put the pixels into pinned memory, from which a GPU fetches them without waiting.
    """

    dataset: ImageDataset
    transform: TransformSpec
    seed: int
    counts: dict[str, int]
    skip: bool = False
    pinned: bool = False

    def __call__(self, group: Group) -> Rendered:
        """Raises `ImageError` for the first image that cannot be read, unless they are skipped."""
        size, count = self.transform.image_size, 1 + self.counts[group.shard.split]
        pixels = torch.empty((group.rows * count, size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        images = pixels.numpy().reshape(group.rows, count, size, size, 3)
        views = np.empty((group.rows, count, len(VIEW_COLUMNS)), dtype=np.int64)
        skipped: dict[int, str] = {}
        for number, row in enumerate(range(group.start, group.stop)):
            try:
                self._render_row(group.shard.split, row, images[number], views[number])
            except ImageError as error:
                if not self.skip:
                    raise
                images[number], views[number] = 0, 0
                skipped[row] = error.problem
        return Rendered(group, pixels, views, skipped)

    def _render_row(self, split: str, row: int, pixels: Pixels, parameters: IntArray) -> None:
        image = self.dataset.open(split, row)
        path = self.dataset.splits[split].paths[row]
        views = image_views(self.transform, image, seed=self.seed, split=split, path=path, count=len(parameters) - 1)
        for number, view in enumerate(views):
            pixels[number] = render(self.transform, image, view)
        parameters[:] = as_rows(views)


def plan_groups(shards: Iterable[Shard], counts: dict[str, int], batch_size: int) -> Iterator[Group]:
    """The groups of the shards, in order: as many whole images as fit `batch_size` views, at least one."""
    for shard in shards:
        images = images_a_group(counts[shard.split], batch_size)
        for start in range(shard.start, shard.stop, images):
            yield Group(shard, start, min(start + images, shard.stop))


def images_a_group(count: int, batch_size: int) -> int:
    """How many images with 1 + `count` views make a batch."""
    return max(1, batch_size // (1 + count))
