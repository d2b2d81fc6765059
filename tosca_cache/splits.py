"""The splits of a store in memory, and whether a task stream can be made of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.shown import Shown

if TYPE_CHECKING:
    from tosca_cache.store import Store

IntArray = NDArray[np.int64]
FloatArray = NDArray[Any]  # float16 or float32, as stored
SMALL = 0.1  # root mean square of features: at 0.07 the router `sample` falls from 97.8 to 69.2 % on the digits
SAMPLED = 10_000  # rows that this is measured on
LARGEST = 1e15  # of a feature: the square norm of a row, times what sums of rows add, stays far below float32's 3e38


@dataclass(frozen=True, repr=False)
class Arrays(Shown):
    """One split of features in memory, or some rows of it.

    features: [N, views, d], held once however many parts of it are in use.
    labels: original labels of the rows that count, [n].
    rows: which rows of `features` these are, [n]; None: all of them, in order.
    domains: domain of the rows that count, [n]; None where no stream asks for it.
    """

    features: FloatArray
    labels: IntArray
    rows: IntArray | None = None
    domains: IntArray | None = None

    def facts(self) -> dict[str, Any]:
        """What it is."""
        _, views, dim = self.features.shape
        return {"rows": len(self.labels), "views": views, "dim": dim, "dtype": self.features.dtype.name}

    def part(self, positions: IntArray, labels: IntArray | None = None) -> Arrays:
        """Only the rows at some positions of [n], under other labels if given; no feature is copied."""
        rows = positions if self.rows is None else self.rows[positions]
        domains = None if self.domains is None else self.domains[positions]
        return Arrays(self.features, self.labels[positions] if labels is None else labels, rows, domains)


def load_splits(store: Store, incremental: str = "classes") -> tuple[Arrays, Arrays]:
    """Train (all views) and test (all views) of a store, read once.

    Warns of features and classes that there is little or nothing to learn of. Raises `StoreError` if tasks are to be
    domains and the store has only one, and for features that are not finite, or so large that their products are not.
    """
    if incremental == "domains" and len(store.domain_names) < 2:
        raise StoreError(
            f"the store has one domain only, {store.domain_names[0]!r}, so that there is nothing to learn one by one",
            where=store.path,
            remedy="extract a folder of DOMAIN/train/CLASS and DOMAIN/test/CLASS, or train with --incremental classes",
        )
    train, test = (
        Arrays(store.features(split), store.labels(split), domains=store.domains(split)) for split in ("train", "test")
    )
    _check_features(store, train, test)
    return train, test


def _check_features(store: Store, train: Arrays, test: Arrays) -> None:
    clean = train.features[:, 0]
    largest = float(np.max([np.abs(arrays.features).max(initial=0) for arrays in (train, test)]))
    if not np.isfinite(largest):
        raise StoreError(
            "some features are NaN or infinite", where=store.path, remedy=f"see which: tosca cache verify {store.path}"
        )
    if largest > LARGEST:
        raise StoreError(
            f"features reach {largest:.3g}, so that their products overflow",
            where=store.path,
            remedy=f"scale them below {LARGEST:.0e} (a factor for all changes no accuracy) and import them again",
        )
    if len(store.class_names) == 1:
        warnings.warn("the store has one class: every answer is right, whatever is learned", ToscaWarning, stacklevel=3)
    elif len(clean) and (clean == clean[:1]).all():
        warnings.warn("all train features are equal: nothing tells classes apart", ToscaWarning, stacklevel=3)
    some = clean[:: max(1, len(clean) // SAMPLED)].astype(np.float64)
    if len(some) and 0 < (size := float(np.sqrt(np.square(some).mean()))) < SMALL:
        warnings.warn(
            f"features are small (root mean square {size:.2g}): modules expect about 1 and learn little of these; multiply "
            f"all by one factor, such as {1 / size:.2g}, and import them again",
            ToscaWarning,
            stacklevel=3,
        )


def check_labels(split: str, arrays: Arrays, class_names: Sequence[str]) -> None:
    """Raises `StoreError` unless every row has a label, of an existing class."""
    labels, classes = arrays.labels, len(class_names)
    rows = len(arrays.features) if arrays.rows is None else len(arrays.rows)
    if len(labels) != rows:
        raise StoreError(
            f"{rows} feature rows but {len(labels)} labels",
            where=f"split {split}",
            remedy="extract again",
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise StoreError(
            f"labels run from {labels.min()} to {labels.max()}, but there are {classes} classes",
            where=f"split {split}",
            remedy="extract the dataset again",
        )


def check_every_class(split: str, arrays: Arrays, class_names: Sequence[str]) -> None:
    """Raises `StoreError` if a class has no rows."""
    missing = np.flatnonzero(np.bincount(arrays.labels, minlength=len(class_names)) == 0)
    if len(missing):
        raise StoreError(
            f"class {class_names[missing[0]]} has no {split} rows ({len(missing)} such classes)",
            where=f"split {split}",
            remedy="add images of it or remove the class, then extract again",
        )


def checked_domains(split: str, arrays: Arrays, domain_names: Sequence[str]) -> IntArray:
    """The domain of every row, [n]; raises `StoreError` unless each has one, of those that exist."""
    domains = np.empty(0, dtype=np.int64) if arrays.domains is None else arrays.domains
    if len(domains) != len(arrays.labels):
        raise StoreError(
            f"{len(arrays.labels)} rows, but {len(domains)} of them have a domain",
            where=f"split {split}",
            remedy="extract the dataset again",
        )
    if len(domains) and not (domains.min() >= 0 and domains.max() < len(domain_names)):
        raise StoreError(
            f"domains run from {domains.min()} to {domains.max()}, but there are {len(domain_names)}",
            where=f"split {split}",
            remedy="extract the dataset again",
        )
    return domains
