"""What is computed together: a group is a few neighbouring images of one shard with their views, in one forward pass.

Which images share a pass decides the last bits of their features. So groups follow from the shard, the batch size and what
is reused of the shard alone: not from the number of workers, not from where an earlier run was interrupted, not from images
that cannot be read (their places hold zeros, and are left out when the store is finished).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import (
    VIEW_COLUMNS,
    Pixels,
    TransformSpec,
    image_views,
    open_image,
    render,
)
from tosca_cache.errors import DatasetError, ImageError
from tosca_cache.store import Shard

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ShardBuffer:
    """The n rows of a shard: reused views first, computed ones as they arrive.

    features: [n, 1+V, d], NaN until they are there. views: parameters [n, 1+V, 6]. missing: which views are not reused
    [n, 1+V]. skipped: row of the split -> why its image could not be read.
    """

    shard: Shard
    features: NDArray[np.float32]
    views: IntArray
    missing: Mask
    skipped: dict[int, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, shard: Shard, views: int, dim: int) -> ShardBuffer:
        """A shard of which nothing is there."""
        features = np.full((shard.rows, views, dim), np.nan, dtype=np.float32)
        parameters = np.zeros((shard.rows, views, len(VIEW_COLUMNS)), dtype=np.int64)
        return cls(shard, features, parameters, np.ones((shard.rows, views), dtype=bool))

    @property
    def reused(self) -> tuple[int, int]:
        """(rows, views) that are reused."""
        kept = ~self.missing
        kept[[row - self.shard.start for row in self.skipped]] = False
        return int(kept.any(axis=1).sum()), int(kept.sum())


@dataclass(frozen=True)
class Group:
    """Rows `start` to `stop` (exclusive), counted from the beginning of their shard."""

    buffer: ShardBuffer = field(repr=False)
    start: int
    stop: int

    @property
    def missing(self) -> Mask:
        """Which views of its rows are to be computed, [rows, 1+V]."""
        return self.buffer.missing[self.start : self.stop]

    @property
    def ends_its_shard(self) -> bool:
        """Whether the shard is complete when this and all groups before it are."""
        return self.stop == self.buffer.shard.rows

    def put(self, features: NDArray[np.float32]) -> None:
        """Adds the features of its missing views, [n, d]."""
        self.buffer.features[self.start : self.stop][self.missing] = features


@dataclass(frozen=True)
class Renderer:
    """Makes the missing views of a group's images, opening each image once, and notes their parameters.

    skip: keep going when an image cannot be read, instead of raising `ImageError`.
    pinned: put the pixels into pinned memory, from which a GPU fetches them without waiting.
    """

    dataset: ImageDataset
    transform: TransformSpec
    seed: int
    skip: bool = False
    pinned: bool = False

    def __call__(self, group: Group) -> torch.Tensor:
        """[missing views, S, S, 3] bytes, the views of an image behind one another; zeros for images that are skipped.

        Raises `ImageError` for the first image that cannot be read, unless they are skipped.
        """
        missing, size = group.missing, self.transform.image_size
        pixels = torch.empty((int(missing.sum()), size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        ends = np.cumsum(missing.sum(axis=1))
        for number in np.flatnonzero(missing.any(axis=1)).tolist():
            part = pixels.numpy()[ends[number] - missing[number].sum() : ends[number]]
            try:
                self._render_row(group.buffer, group.start + number, part)
            except ImageError as error:
                if not self.skip:
                    raise
                part[:] = 0
                group.buffer.views[group.start + number] = 0
                group.buffer.skipped[group.buffer.shard.start + group.start + number] = error.problem
        return pixels

    def _render_row(self, buffer: ShardBuffer, place: int, pixels: Pixels) -> None:
        split, row, missing = buffer.shard.split, buffer.shard.start + place, buffer.missing[place]
        image = open_image(self.transform, self.dataset, split, row)
        path = self.dataset.splits[split].paths[row]
        views = image_views(self.transform, image, seed=self.seed, split=split, path=path, count=len(missing) - 1)
        parameters = np.array(views, dtype=np.int64)
        if (parameters != buffer.views[place])[~missing].any():
            raise DatasetError(
                "this image has another size than the one that reused views were made of",
                where=self.dataset.where(split, row),
                remedy="give the file the date of today (touch FILE) and run the same command again: all of it is "
                "computed then",
            )
        buffer.views[place] = parameters
        for number, view in enumerate(np.flatnonzero(missing).tolist()):
            pixels[number] = render(self.transform, image, views[view])


def plan_groups(buffers: Iterable[ShardBuffer], batch_size: int) -> Iterator[Group]:
    """The groups of the shards, in order: as many images as have at most `batch_size` missing views, at least one.

    A shard is asked for when its turn comes; one with nothing missing is one group.
    """
    for buffer in buffers:
        for start, stop in _cut(buffer.missing.sum(axis=1).tolist(), batch_size):
            yield Group(buffer, start, stop)


def _cut(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of neighbours whose sizes sum up to `most` at most; a size above that stays by itself."""
    start = total = 0
    for number, size in enumerate(sizes):
        if total and size and total + size > most:
            yield start, number
            start, total = number, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)
