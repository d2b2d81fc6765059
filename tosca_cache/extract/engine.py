"""Rendering and the forward pass side by side, in bounded memory, on a CPU or on a GPU.

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
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.groups import Group, Renderer

AHEAD = 2  # groups a worker may be ahead of the collector: bounds the memory
T = TypeVar("T")
R = TypeVar("R")


def compute(groups: Iterable[Group], renderer: Renderer, forward: Forward, workers: int) -> Generator[Group]:
    """Yields all groups, in order, as soon as their features are in their buffers; whatever a worker raises is raised here.

    workers: threads; on a CPU each of them also runs the backbone.

    Closing the iterator early (an error, Ctrl-C) drops what has not begun and waits for what has.
    """
    run = _on_cores if forward.device.type == "cpu" else _on_device
    threads = torch.get_num_threads()
    try:
        with _pool(workers) as pool:
            yield from run(pool, groups, renderer, forward, workers * AHEAD)
    finally:
        torch.set_num_threads(threads)  # part of which (MKL's) is one for the whole process


def _on_cores(
    pool: ThreadPoolExecutor, groups: Iterable[Group], renderer: Renderer, forward: Forward, most: int
) -> Iterator[Group]:
    def work(group: Group) -> Group:
        group.put(_features(forward, renderer(group)).numpy())
        return group

    keep_freed_memory()
    yield from _ahead(pool, work, groups, most)


def _on_device(
    pool: ThreadPoolExecutor, groups: Iterable[Group], renderer: Renderer, forward: Forward, most: int
) -> Iterator[Group]:
    """The device computes batch k + 1 while the features of batch k are fetched; pixels live until theirs are there."""
    waiting: deque[tuple[Group, torch.Tensor, Callable[[], torch.Tensor]]] = deque()
    for group, pixels in _ahead(pool, lambda group: (group, renderer(group)), groups, most):
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


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    # torch's number of threads belongs to the thread that sets it, so each worker sets its own.
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], most: int) -> Generator[R]:
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
