"""What is computed together: a group is a few neighbouring images of one shard with their views, in one forward pass.

Which images share a pass decides the last bits of their features. So groups follow from the shard, the batch size and what
is known of the shard alone: not from the number of workers, not from where an earlier run was interrupted, not from images
that cannot be read (their places hold zeros, and are left out when the store is finished).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import (
    VIEW_COLUMNS,
    Pixels,
    TransformSpec,
    as_rows,
    image_views,
    open_image,
    render,
)
from tosca_cache.errors import ImageError
from tosca_cache.extract.shard_buffer import Mask, ReusedRows
from tosca_cache.store import Shard

HEIGHT, WIDTH = VIEW_COLUMNS.index("height"), VIEW_COLUMNS.index("width")


@dataclass(frozen=True)
class Group:
    """Rows `start` to `stop` (exclusive) of a shard's split; what is known of the shard is not computed."""

    shard: Shard
    start: int
    stop: int
    reused: ReusedRows | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """How many images it has."""
        return self.stop - self.start

    @property
    def place(self) -> slice:
        """Its rows within the shard."""
        return slice(self.start - self.shard.start, self.stop - self.shard.start)

    def missing(self, views: int) -> Mask:
        """Which of `views` views of its rows are to be computed: a fresh mask [rows, views]."""
        return np.ones((self.rows, views), bool) if self.reused is None else self.reused.missing[self.place]


@dataclass(frozen=True)
class Rendered:
    """The pixels of a group, ready for the backbone.

    made: which views are here [rows, 1+V].
    pixels: [made.sum(), S, S, 3] bytes, the views of an image behind one another.
    views: parameters [rows, 1+V, 6]; zeros in rows of which nothing is here.
    skipped: row of the split -> why its image could not be read; its pixels are zeros.
    """

    group: Group
    made: Mask
    pixels: torch.Tensor
    views: IntArray
    skipped: dict[int, str]


class _OtherImage(Exception):
    """The image of a row has another size than the one that known views were made from."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True)
class Renderer:
    """Opens each image of a group of which views are missing once, and makes those.

    An image that has another size than the one that its known views were made from is another image: all its views are
    made.

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
        wanted = group.missing(1 + self.counts[group.shard.split])
        while True:
            try:
                return self._render(group, wanted)
            except _OtherImage as other:
                wanted[other.number] = True

    def _render(self, group: Group, wanted: Mask) -> Rendered:
        size, ends = self.transform.image_size, np.cumsum(wanted.sum(axis=1))
        pixels = torch.empty((int(ends[-1]), size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        images = pixels.numpy()
        views = np.zeros((*wanted.shape, len(VIEW_COLUMNS)), dtype=np.int64)
        skipped: dict[int, str] = {}
        for number in np.flatnonzero(wanted.any(axis=1)).tolist():
            row, part = group.start + number, images[ends[number] - wanted[number].sum() : ends[number]]
            try:
                views[number] = self._render_row(group, number, wanted[number], part)
            except ImageError as error:
                if not self.skip:
                    raise
                part[:] = 0
                skipped[row] = error.problem
        return Rendered(group, wanted, pixels, views, skipped)

    def _render_row(self, group: Group, number: int, wanted: NDArray[np.bool_], pixels: Pixels) -> IntArray:
        split, row = group.shard.split, group.start + number
        image = open_image(self.transform, self.dataset, split, row)
        if group.reused is not None and not wanted.all():
            width, height = image.size
            if group.reused.views[group.place][number, 0, [HEIGHT, WIDTH]].tolist() != [height, width]:
                raise _OtherImage(number)
        path = self.dataset.splits[split].paths[row]
        views = image_views(self.transform, image, seed=self.seed, split=split, path=path, count=len(wanted) - 1)
        for place, view in enumerate(np.flatnonzero(wanted).tolist()):
            pixels[place] = render(self.transform, image, views[view])
        return as_rows(views)


def plan_groups(
    shards: Iterable[Shard],
    counts: dict[str, int],
    batch_size: int,
    reused: Callable[[Shard], ReusedRows | None] = lambda shard: None,
) -> Iterator[Group]:
    """The groups of the shards, in order: as many images as have at most `batch_size` missing views, at least one.

    known: what of a shard need not be computed; asked when its turn comes. A shard with nothing missing is one group.
    """
    for shard in shards:
        found = reused(shard)
        missing = [1 + counts[shard.split]] * shard.rows if found is None else found.missing.sum(axis=1).tolist()
        for start, stop in _cut(missing, batch_size):
            yield Group(shard, shard.start + start, shard.start + stop, found)


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
