"""Rendering and the forward pass side by side, in bounded memory, on a CPU or on a GPU.

What is computed together is a group: a few neighbouring images of one shard with their views, in one forward pass. Which
images share a pass decides the last bits of their features. So groups follow from the shard, the batch size and what is
reused of the shard alone: not from the number of workers, not from where an earlier run was interrupted, not from images
that cannot be read (their places hold zeros, and are left out when the store is finished).

CPU: one batch a core. Each worker thread decodes a group, makes its views and takes it through the backbone by itself, with
one thread inside torch. Cores never wait for each other at the end of every layer, as they do when they share one batch,
and never fight over decoding; and the bits of the features do not depend on how many there are. (Threads, not processes:
Pillow and torch both let go of the interpreter while they compute, and all workers share one copy of the weights.)

GPU: worker threads decode into pinned memory; one thread feeds the device, one batch ahead of what it waits for.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import VIEW_COLUMNS, Pixels, TransformSpec, image_views, open_image, render
from tosca_cache.errors import DatasetError, ImageError
from tosca_cache.extract.backbone import Forward
from tosca_cache.store import Shard

AHEAD = 2  # groups a worker may be ahead of the collector: bounds the memory
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class ShardBuffer:
    """The n rows of a shard: reused views first, computed ones as they arrive.

    features: [n, 1+V, d], NaN until they are there. views: parameters [n, 1+V, 6]. missing: which views are to be computed,
    [n, 1+V]. skipped: row of the split -> why its image could not be read.
    """

    shard: Shard
    features: NDArray[np.float32]
    views: IntArray
    missing: NDArray[np.bool_]
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
    def ends_its_shard(self) -> bool:
        """Whether the shard is complete when this and all groups before it are."""
        return self.stop == self.buffer.shard.rows

    def put(self, features: NDArray[np.float32]) -> None:
        """Adds the features of its missing views, [n, d]."""
        rows = slice(self.start, self.stop)
        self.buffer.features[rows][self.buffer.missing[rows]] = features


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
        counts, size = group.buffer.missing.sum(axis=1), self.transform.image_size
        total = int(counts[group.start : group.stop].sum())
        pixels = torch.empty((total, size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        begin = 0
        for place in range(group.start, group.stop):
            part = pixels.numpy()[begin : begin + counts[place]]
            begin += int(counts[place])
            try:
                if len(part):
                    self._render_row(group.buffer, place, part)
            except ImageError as error:
                if not self.skip:
                    raise
                part[:] = 0
                group.buffer.views[place] = 0
                group.buffer.skipped[group.buffer.shard.start + place] = error.problem
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
        start = total = 0
        for number, size in enumerate(buffer.missing.sum(axis=1).tolist()):
            if total and size and total + size > batch_size:
                yield Group(buffer, start, number)
                start, total = number, 0
            total += size
        if start < buffer.shard.rows:
            yield Group(buffer, start, buffer.shard.rows)


def compute(groups: Iterable[Group], renderer: Renderer, forward: Forward, workers: int) -> Generator[Group]:
    """Yields all groups, in order, as soon as their features are in their buffers; whatever a worker raises is raised here.

    workers: threads; on a CPU each of them also runs the backbone.

    Closing the iterator early (an error, Ctrl-C) drops what has not begun and waits for what has.
    """
    run = _on_cores if forward.device.type == "cpu" else _on_device
    threads = torch.get_num_threads()
    # torch's number of threads belongs to the thread that sets it, so each worker sets its own.
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from run(pool, groups, renderer, forward, workers * AHEAD)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # part of which (MKL's) is one for the whole process


def _on_cores(
    pool: ThreadPoolExecutor, groups: Iterable[Group], renderer: Renderer, forward: Forward, most: int
) -> Iterator[Group]:
    def work(group: Group) -> Group:
        group.put(_features(forward, renderer(group)).numpy())
        return group

    keep_freed_memory()
    yield from ahead(pool, work, groups, most)


def _on_device(
    pool: ThreadPoolExecutor, groups: Iterable[Group], renderer: Renderer, forward: Forward, most: int
) -> Iterator[Group]:
    """The device computes batch k + 1 while the features of batch k are fetched; pixels live until theirs are there."""
    waiting: deque[tuple[Group, torch.Tensor, Callable[[], torch.Tensor]]] = deque()
    for group, pixels in ahead(pool, lambda group: (group, renderer(group)), groups, most):
        waiting.append((group, pixels, _copy_begun(_features(forward, pixels))))
        if len(waiting) > 1:
            yield _fetched(*waiting.popleft())
    while waiting:
        yield _fetched(*waiting.popleft())


def _fetched(group: Group, _: torch.Tensor, fetch: Callable[[], torch.Tensor]) -> Group:
    group.put(fetch().numpy())
    return group


def _features(forward: Forward, pixels: torch.Tensor) -> torch.Tensor:
    """The forward pass, which a group of which all views are reused does not need."""
    return forward(pixels) if len(pixels) else torch.empty(0, forward.dim)


def _copy_begun(features: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Queues the copy to the host right behind the forward pass; what is returned waits for it, and no longer."""
    if features.device.type != "cuda":
        return features.cpu
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    host.copy_(features, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def fetch() -> torch.Tensor:
        copied.synchronize()
        return host

    return fetch


def ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], most: int) -> Generator[R]:
    """`map` over a pool, in order, with at most `most` items begun and not yet collected."""
    begun: deque[Future[R]] = deque()
    for item in items:
        if len(begun) == most:
            yield begun.popleft().result()
        begun.append(pool.submit(work, item))
    while begun:
        yield begun.popleft().result()


# Names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: 64 << 20}


@cache
def keep_freed_memory() -> bool:
    """Tells glibc's allocator, for the rest of this process, to keep what is freed; does nothing where there is none.

    The process then stays as large as its largest pass made it. Returns whether the allocator was told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in _SETTINGS.items())
