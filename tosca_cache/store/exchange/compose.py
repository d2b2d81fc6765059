"""From arrays to the two splits of a store: which rows are train and test, their labels and domains as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.store.exchange.columns import IntArray, checked_paths, index_rows, numbered, split_rows
from tosca_cache.store.exchange.external import Values
from tosca_cache.store.layout import SPLITS

BLOCK = 8 << 20  # bytes of features that are looked at together
_NOT_FINITE, _TOO_LARGE, _ZERO = 1, 2, 3  # why a store cannot hold a row; 0 for good ones


@dataclass(frozen=True)
class Part:
    """Rows that came together: all of them, or those of one split. paths: None to number the rows.

    features: [n, d], or [n, 1+V, d] with the clean view first.
    Raises `UsageError` for other shapes and types.
    """

    features: NDArray[Any]
    labels: Values
    domains: Values | None = None
    paths: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.features.dtype.kind != "f" or self.features.dtype.itemsize > 8:
            problem, remedy = f"type {self.features.dtype}", "save them as float16, float32 or float64"
            raise UsageError(f"features have {problem}", where="features", remedy=remedy)
        if self.features.ndim not in (2, 3) or 0 in self.features.shape[1:]:
            problem, remedy = f"shape {list(self.features.shape)}", "give [rows, d] or [rows, views, d]"
            raise UsageError(f"features have {problem}", where="features", remedy=remedy)
        if not len(self.features):
            raise UsageError("there are no rows", where="features", remedy="give rows of features")
        for what, values in (("labels", self.labels), ("domains", self.domains), ("paths", self.paths)):
            if values is not None and len(values) != len(self.features):
                raise UsageError(
                    f"there are {len(self.features)} rows of features, but {len(values)} {what}",
                    where=what,
                    remedy="give one of them for each row",
                )


@dataclass(frozen=True)
class ArraySource:
    """All arrays of an import: one part to be divided, or one for each split.

    parts: {"": part}, or {"train": part, "test": part}. split: a value a row, or (train's, test's) row numbers.
    split_name: what the split vector is called, which says what true means.
    """

    parts: dict[str, Part]
    split: Values | tuple[NDArray[Any], NDArray[Any]] | None = None
    split_name: str = "split"
    class_names: Sequence[str] | None = None
    domain_names: Sequence[str] | None = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitRule:
    """How rows without a split of their own are divided, and what a split vector's values mean.

    fraction: share of each class for the test split. seed: which rows those are.
    values: the values of train and of test in the split vector; None for the usual ones.
    """

    fraction: float | None = None
    seed: int = 1993
    values: tuple[str, str] | None = None


@dataclass(frozen=True)
class SplitRows:
    """One split: `rows` of `features` [m, 1+V, d], in this order, with label and domain [n] and path of each."""

    features: NDArray[Any]
    rows: IntArray
    labels: IntArray
    domains: IntArray
    paths: tuple[str, ...]

    def kept(self, kept: IntArray) -> SplitRows:
        """Some of them."""
        paths = tuple(self.paths[row] for row in kept.tolist())
        return SplitRows(self.features, self.rows[kept], self.labels[kept], self.domains[kept], paths)


@dataclass(frozen=True)
class Composed:
    """What is to become a store. notes: what a user should know, a sentence each."""

    splits: Mapping[str, SplitRows]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    notes: tuple[str, ...]


def compose(source: ArraySource, rule: SplitRule) -> Composed:
    """Divides the rows and numbers labels and domains; raises `UsageError` for what cannot be a store to train on."""
    parts = list(source.parts.values())
    notes: list[str] = []
    labels, class_names, unused = numbered([part.labels for part in parts], source.class_names, "labels")
    if unused:
        notes.append(f"{len(unused)} classes have no rows and are left out: {_some(unused)}")
    domain_names: tuple[str, ...] = ("",)
    domains = [np.zeros(len(part.features), dtype=np.int64) for part in parts]
    known = [part.domains for part in parts if part.domains is not None]
    if len(known) == len(parts):
        domains, domain_names, _ = numbered(known, source.domain_names, "domains")
    elif known:
        raise UsageError("domains are given for one split only", where="domains", remedy="give both, or --domains none")
    chosen = _divide(source, rule, labels[0], class_names, notes)
    splits = {}
    for number, split in enumerate(SPLITS):
        own, rows = number if len(parts) == 2 else 0, chosen[split]
        if parts[own].paths is None:
            paths = tuple(f"row-{row:08d}" for row in range(len(parts[own].features)))
        else:
            paths = tuple(parts[own].paths or ())
            checked_paths([paths[row] for row in rows.tolist()], f"paths of {split}")
        every, found = np.arange(len(paths)), parts[own].features
        found = found[:, None] if found.ndim == 2 else found
        splits[split] = SplitRows(found, every, labels[own], domains[own], paths).kept(rows)
    return Composed(splits, class_names, domain_names, tuple(notes))


def without_bad_rows(composed: Composed, dtype: str) -> tuple[Composed, dict[str, int]]:
    """The same without rows that a store cannot hold, and how many those were in each split."""
    good = {split: np.flatnonzero(_problems(rows, dtype) == 0) for split, rows in composed.splits.items()}
    dropped = {split: len(rows.rows) - len(good[split]) for split, rows in composed.splits.items()}
    return replace(composed, splits={s: rows.kept(good[s]) for s, rows in composed.splits.items()}), dropped


def check(composed: Composed, dtype: str) -> None:
    """Raises `UsageError` for rows that a store cannot hold, and for splits that cannot be trained on."""
    for split, rows in composed.splits.items():
        if not len(rows.rows):
            raise UsageError(f"there are no rows of {split}", where="--split", remedy="give rows of both splits")
        missing = np.setdiff1d(np.arange(len(composed.class_names)), rows.labels)
        if missing.size:
            raise UsageError(
                f"{missing.size} classes have no rows of {split}: {_some([composed.class_names[c] for c in missing])}",
                where="--labels",
                remedy="leave the classes out, or add rows of them",
            )
    train, test = (composed.splits[split].features.shape[-1] for split in SPLITS)
    if train != test:
        raise UsageError(
            f"train features have width {train}, test features {test}",
            where="--features",
            remedy="give features of one backbone",
        )
    for split, rows in composed.splits.items():
        problems = _problems(rows, dtype)
        if problems.any():
            first, count = int(np.argmax(problems > 0)), np.count_nonzero(problems)
            larger = "add --store-dtype float32" if dtype == "float16" else "scale the features"
            problem, remedy = {
                _NOT_FINITE: ("a value is NaN or infinite", "leave such rows out"),
                _TOO_LARGE: (f"a value is too large for {dtype}", larger),
                _ZERO: (f"a view is all zeros in {dtype}, so that it has no direction", larger),
            }[int(problems[first])]
            raise UsageError(
                problem + (f" ({count} such rows)" if count > 1 else ""),
                where=f"row {int(rows.rows[first])} of the features ({split})",
                remedy=f"{remedy}, or add --drop-bad",
            )


def _problems(rows: SplitRows, dtype: str) -> NDArray[np.int64]:
    """For each row why a store cannot hold it; 0 for good ones."""
    found = np.zeros(len(rows.rows), dtype=np.int64)
    step = max(1, BLOCK // (4 * rows.features[0].size))
    for start in range(0, len(found), step):
        given = rows.features[rows.rows[start : start + step]]
        with np.errstate(over="ignore", invalid="ignore"):
            stored = given.astype(dtype)
        not_finite, too_large = (~np.isfinite(array).all(axis=(1, 2)) for array in (given, stored))
        zero = (stored == 0).all(axis=2).any(axis=1)
        found[start : start + step] = np.select(
            [not_finite, too_large, zero], [_NOT_FINITE, _TOO_LARGE, _ZERO], default=0
        )
    return found


def _divide(
    source: ArraySource, rule: SplitRule, labels: IntArray, names: Sequence[str], notes: list[str]
) -> dict[str, IntArray]:
    """The rows of train and of test in their part."""
    split, rows = source.split, len(labels)
    if len(source.parts) == 2:
        if split is not None or rule.fraction is not None or rule.values is not None:
            raise UsageError(
                "train and test are separate already",
                where="--split, --split-values or --test-fraction",
                remedy="leave this option out",
            )
        return {name: np.arange(len(part.features)) for name, part in source.parts.items()}
    if split is None:
        return _by_fraction(rule, labels, names)
    if rule.fraction is not None:
        raise UsageError(
            f"the file has a split already: {source.split_name!r}",
            where="--test-fraction",
            remedy="leave this option out, or add --split none",
        )
    if isinstance(split, tuple):
        return index_rows(split[0], split[1], rows)
    if len(split) != rows:
        raise UsageError(
            f"there are {rows} rows of features, but {len(split)} values of the split",
            where=source.split_name,
            remedy="give one of them for each row, or --split none",
        )
    found, left = split_rows(split, source.split_name, rule.values)
    if left:
        notes.append(f"rows of other splits are left out: {_some([f'{key} ({n} rows)' for key, n in left.items()])}")
    return found


def _by_fraction(rule: SplitRule, labels: IntArray, names: Sequence[str]) -> dict[str, IntArray]:
    """A share of each class, at least one row and not all, drawn by (seed, its name): other classes play no part in it."""
    if rule.fraction is None:
        raise UsageError(
            "which rows are for testing is not said",
            where="--split",
            remedy="give --split ARRAY, --features TRAIN,TEST and --labels TRAIN,TEST, or --test-fraction 0.2",
        )
    if not 0 < rule.fraction < 1:
        raise UsageError(
            f"the test fraction must lie between 0 and 1, not {rule.fraction}",
            where="--test-fraction",
            remedy="give for example --test-fraction 0.2",
        )
    in_test = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(names):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise UsageError(
                f"class {name!r} has one row, which cannot be in both train and test",
                where="--test-fraction",
                remedy="leave the class out, or add rows of it",
            )
        count = min(max(round(rule.fraction * len(rows)), 1), len(rows) - 1)
        in_test[numpy_generator(rule.seed, "test-fraction", name).permutation(rows)[:count]] = True
    return {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}


def _some(names: Sequence[Any]) -> str:
    return ", ".join(ascii(name).strip("'")[:40] for name in names[:5]) + (", ..." if len(names) > 5 else "")
