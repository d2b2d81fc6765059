"""The splits of a store, in memory or left in the store, and whether a task stream can be made of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.devices import free_memory
from tosca_cache.errors import FingerprintMismatch, StoreError, ToscaWarning
from tosca_cache.shown import Shown

if TYPE_CHECKING:
    from tosca_cache.store import Store

IntArray = NDArray[np.int64]
FloatArray = NDArray[Any]  # float16 or float32, as stored
SMALL = 0.1  # root mean square of features: at 0.07 the router `sample` falls from 97.8 to 69.2 % on the digits
SAMPLED = 10_000  # rows that this is measured on
MOST_HELD = 0.25  # of the free memory: features that take more are left in the store if they may be
BLOCK_BYTES = 2**26  # of features that are looked at together
LARGEST = 1e15  # of a feature: the square norm of a row, times what sums of rows add, stays far below float32's 3e38


@dataclass(frozen=True)
class StoredFeatures:
    """Features of a split that stay in its store, [N, views, d]; rows are read, and checked, when they are asked for."""

    store: Store
    split: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """[N, views, d]."""
        return self.store.rows(self.split), self.store.views(self.split), self.store.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.store.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: IntArray | slice) -> FloatArray:
        return self.store.features(self.split, rows)


@dataclass(frozen=True, repr=False)
class Arrays(Shown):
    """One split of features, or some rows of it.

    features: [N, views, d], in memory once however many parts of it are in use, or in the store.
    labels: original labels of the rows that count, [n].
    rows: which rows of `features` these are, [n]; None: all of them, in order.
    domains: domain of the rows that count, [n]; None where no stream asks for it.
    adapted_on: names of the classes that the backbone was adapted on; None for features of a frozen one.
    last: where the last piece of a feature begins, of d numbers; see `StoreSpec.pieces`.
    """

    features: FloatArray | StoredFeatures
    labels: IntArray
    rows: IntArray | None = None
    domains: IntArray | None = None
    adapted_on: tuple[str, ...] | None = None
    last: int = 0

    def facts(self) -> dict[str, Any]:
        """What it is."""
        _, views, dim = self.features.shape
        return {"rows": len(self.labels), "views": views, "dim": dim, "dtype": self.features.dtype.name}

    def part(self, positions: IntArray, labels: IntArray | None = None) -> Arrays:
        """Only the rows at some positions of [n], under other labels if given; no feature is copied."""
        rows = positions if self.rows is None else self.rows[positions]
        domains = None if self.domains is None else self.domains[positions]
        kept = self.labels[positions] if labels is None else labels
        return Arrays(self.features, kept, rows, domains, self.adapted_on, self.last)


def load_splits(store: Store, incremental: str = "classes", *, most: float | None = None) -> tuple[Arrays, Arrays]:
    """Train (all views) and test (all views) of a store.

    Arguments:
        most: bytes of features that are read once and held in memory; those of a larger store stay in it and are read
            task by task. None: all are held; see `memory_for_features`.

    Warns of features and classes that there is little or nothing to learn of. Raises `StoreError` if tasks are to be
    domains and the store has only one, and for features that are not finite, or so large that their products are not.
    """
    if incremental == "domains" and len(store.domain_names) < 2:
        raise StoreError(
            f"the store has one domain only, {store.domain_names[0]!r}, so that there is nothing to learn one by one",
            where=store.path,
            remedy="extract a folder of DOMAIN/train/CLASS and DOMAIN/test/CLASS, or train with --incremental classes",
        )
    stay = most is not None and features_bytes(store) > most
    train, test = (
        Arrays(
            StoredFeatures(store, split) if stay else store.features(split),
            store.labels(split),
            domains=store.domains(split),
            adapted_on=store.spec.first_task,
            last=store.spec.columns("last").start,
        )
        for split in ("train", "test")
    )
    _check_features(store, train, test)
    return train, test


def features_bytes(store: Store) -> int:
    """Bytes that all features of a store take in memory."""
    return sum(store.rows(split) * store.views(split) for split in ("train", "test")) * store.dim * store.dtype.itemsize


def memory_for_features() -> float:
    """Bytes of features that may be held in memory, for `load_splits`."""
    return MOST_HELD * free_memory()


def _blocks(features: FloatArray | StoredFeatures) -> Iterator[FloatArray]:
    """All rows, some at a time."""
    rows = max(1, BLOCK_BYTES // max(1, int(np.prod(features.shape[1:])) * features.dtype.itemsize))
    return (features[start : start + rows] for start in range(0, len(features), rows))


def _check_features(store: Store, train: Arrays, test: Arrays) -> None:
    largest, first, equal, every = 0.0, None, True, max(1, len(train.features) // SAMPLED)
    sampled, start = [np.empty((0, store.dim - train.last), dtype=store.dtype)], 0
    for arrays in (train, test):
        for block in _blocks(arrays.features):
            largest = float(np.maximum.reduce([largest, block.max(), -block.min()]))  # NaN if one is
            if arrays is train:
                clean = block[:, 0, train.last :]
                first = clean[:1] if first is None else first
                equal = equal and bool((clean == first).all())
                sampled.append(clean[-start % every :: every].copy())  # a view would keep the block
                start += len(block)
    if not largest <= LARGEST:  # NaN is not, either
        finite = np.isfinite(largest)
        raise StoreError(
            f"features reach {largest:.3g}, so that their products overflow"
            if finite
            else "some features are NaN or infinite",
            where=store.path,
            remedy=f"scale them below {LARGEST:.0e} (a factor for all changes no accuracy) and import them again"
            if finite
            else f"see which: tosca cache verify {store.path}",
        )
    if len(store.class_names) == 1:
        warnings.warn("the store has one class: every answer is right, whatever is learned", ToscaWarning, stacklevel=3)
    elif first is not None and equal:
        warnings.warn("all train features are equal: nothing tells classes apart", ToscaWarning, stacklevel=3)
    some = np.concatenate(sampled).astype(np.float64)
    if len(some) and 0 < (size := float(np.sqrt(np.square(some).mean()))) < SMALL:
        warnings.warn(
            f"features are small (root mean square {size:.2g}): modules expect about 1 and learn little of these; multiply "
            f"all by one factor, such as {1 / size:.2g}, and import them again",
            ToscaWarning,
            stacklevel=3,
        )


def check_numbers(split: str, what: str, found: IntArray, rows: int, count: int) -> None:
    """Raises `StoreError` unless every row of a split has a number (its label, or its domain) of those that exist."""
    problem = None
    if len(found) != rows:
        problem = f"{rows} rows, but {len(found)} of them have a {what}"
    elif len(found) and not (found.min() >= 0 and found.max() < count):
        problem = f"{what}s run from {found.min()} to {found.max()}, but there are {count}"
    if problem is not None:
        raise StoreError(problem, where=f"split {split}", remedy="extract the dataset again")


def check_first_task(arrays: Arrays, first: Sequence[str]) -> None:
    """Raises `FingerprintMismatch` if the backbone was adapted on other classes than those of a stream's first task.

    Such features have seen images of later tasks, or lack what the first task was to give them: no result of a
    class-incremental protocol would mean what it says.
    """
    adapted = arrays.adapted_on
    if adapted is None or set(adapted) == set(first):
        return
    other = sorted(set(adapted) ^ set(first))
    raise FingerprintMismatch(
        f"the backbone was adapted on a first task of {len(adapted)} classes, and the stream's first task is another one "
        f"of {len(first)} ({other[0]!r} is in one of them only)",
        where="--init-cls, --seed",
        remedy="train with the seed, class order and first task of `tosca adapt`, or adapt for this stream and extract",
    )
