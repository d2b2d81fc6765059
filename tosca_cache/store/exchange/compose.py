"""From what came to the two splits of a store: which rows are train and test, their labels and domains as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tosca_cache.errors import UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.store.exchange.given import Features, Given, Part
from tosca_cache.store.exchange.values import IntArray, Values, checked_paths, index_rows, numbered, split_rows
from tosca_cache.store.layout import SPLITS

BLOCK = 8 << 20  # bytes of features that are looked at together


@dataclass(frozen=True)
class SplitRows:
    """One split: `rows` of `features`, in this order, with label and domain [n] and path of each."""

    features: Features
    rows: IntArray
    labels: IntArray
    domains: IntArray
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Division:
    """How rows without a split of their own are divided, and what a split vector's values mean.

    fraction: share of each class for the test split. seed: which rows those are.
    values: the values of train and of test in the split vector; None to guess.
    """

    fraction: float | None = None
    seed: int = 1993
    values: tuple[str, str] | None = None


@dataclass(frozen=True)
class Composed:
    """What is to become a store. notes: what a user should know, a sentence each."""

    splits: Mapping[str, SplitRows]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Width d."""
        return self.splits["train"].features.dim


def compose(given: Given, division: Division) -> Composed:
    """Divides the rows and numbers labels and domains; raises `UsageError` for what cannot be a store to train on."""
    parts = list(given.parts.values())
    notes: list[str] = []
    labels, class_names, unused = numbered([part.labels for part in parts], given.class_names, "labels")
    if unused:
        notes.append(f"{len(unused)} classes have no rows and are left out: {_some(unused)}")
    domains, domain_names = _domains(parts, given.domain_names)
    if len(parts) == 2:
        _refuse_division(given, division)
        chosen = {split: np.arange(len(part.features)) for split, part in given.parts.items()}
    else:
        chosen = _divide(given, division, labels[0], class_names, notes)
    splits = {}
    for number, split in enumerate(SPLITS):
        own = number if len(parts) == 2 else 0
        splits[split] = _rows(parts[own], split, chosen[split], labels[own], domains[own])
    composed = Composed(splits, class_names, domain_names, tuple(notes))
    _check(composed)
    return composed


def check_features(rows: SplitRows, split: str, dtype: str) -> None:
    """Raises `UsageError` for rows that are not finite, too large for the stored dtype, or all zeros in it."""
    step = max(1, BLOCK // (4 * rows.features.width * rows.features.dim))
    for start in range(0, len(rows.rows), step):
        chosen = rows.rows[start : start + step]
        given = rows.features.rows(chosen)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = given.astype(dtype)
        for bad, what, remedy in (
            (~np.isfinite(given), "is not a finite number", "leave rows with NaN or infinity out"),
            (~np.isfinite(stored), f"is too large for {dtype}", _larger(dtype)),
        ):
            if bad.any():
                row, view, column = (int(axis[0]) for axis in np.nonzero(bad))
                raise UsageError(
                    f"a value {what}: {given[row, view, column]}",
                    where=f"row {int(chosen[row])}, view {view}, column {column} of the features ({split})",
                    remedy=remedy,
                )
        empty = ~stored.any(axis=2)
        if empty.any():
            row, view = (int(axis[0]) for axis in np.nonzero(empty))
            lost = bool(given[row, view].any())
            raise UsageError(
                f"a feature is all zeros in {dtype}, so that it has no direction",
                where=f"row {int(chosen[row])}, view {view} of the features ({split})",
                remedy=_larger(dtype) if lost else "leave such rows out",
            )


def _larger(dtype: str) -> str:
    return "add --store-dtype float32" if dtype == "float16" else "scale the features"


def _domains(parts: Sequence[Part], names: Sequence[str] | None) -> tuple[list[IntArray], tuple[str, ...]]:
    given = [part.domains for part in parts]
    if all(values is None for values in given):
        return [np.zeros(len(part.features), dtype=np.int64) for part in parts], ("",)
    known: list[Values] = [values for values in given if values is not None]
    if len(known) != len(parts):
        raise UsageError("domains are given for one split only", where="domains", remedy="give both, or --domains none")
    found, every, _ = numbered(known, names, "domains")
    return found, every


def _refuse_division(given: Given, division: Division) -> None:
    for value, option in ((division.fraction, "--test-fraction"), (division.values, "--split-values")):
        if value is not None:
            raise UsageError("train and test are separate already", where=option, remedy="leave this option out")
    if given.split is not None:
        raise UsageError("train and test are separate already", where="--split", remedy="leave this option out")


def _divide(
    given: Given, division: Division, labels: IntArray, names: Sequence[str], notes: list[str]
) -> dict[str, IntArray]:
    rows, split = len(labels), given.split
    if split is None:
        return _by_fraction(division, labels, names)
    if division.fraction is not None:
        raise UsageError(
            f"the file has a split already: {given.split_name!r}",
            where="--test-fraction",
            remedy="leave this option out, or add --split none",
        )
    if isinstance(split, tuple):
        return index_rows(split[0], split[1], rows)
    if len(split) != rows:
        raise UsageError(
            f"there are {rows} rows of features, but {len(split)} values of the split",
            where=given.split_name,
            remedy="give one of them for each row, or --split none",
        )
    found, left = split_rows(split, given.split_name, division.values)
    if left:
        notes.append(f"rows of other splits are left out: {_some([f'{key} ({n} rows)' for key, n in left.items()])}")
    return found


def _by_fraction(division: Division, labels: IntArray, names: Sequence[str]) -> dict[str, IntArray]:
    """A share of each class, at least one row and not all, drawn by (seed, its name): other classes play no part in it."""
    if division.fraction is None:
        raise UsageError(
            "which rows are for testing is not said",
            where="--split",
            remedy="give --split ARRAY, --features TRAIN,TEST and --labels TRAIN,TEST, or --test-fraction 0.2",
        )
    if not 0 < division.fraction < 1:
        raise UsageError(
            f"the test fraction must lie between 0 and 1, not {division.fraction}",
            where="--test-fraction",
            remedy="give for example --test-fraction 0.2",
        )
    in_test = np.zeros(len(labels), dtype=bool)
    order = np.argsort(labels, kind="stable")
    for name, rows in zip(names, np.split(order, np.flatnonzero(np.diff(labels[order])) + 1), strict=True):
        if len(rows) < 2:
            raise UsageError(
                f"class {name!r} has one row, which cannot be in both train and test",
                where="--test-fraction",
                remedy="leave the class out, or add rows of it",
            )
        count = min(max(round(division.fraction * len(rows)), 1), len(rows) - 1)
        in_test[numpy_generator(division.seed, "test-fraction", name).permutation(rows)[:count]] = True
    return {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}


def _rows(part: Part, split: str, chosen: IntArray, labels: IntArray, domains: IntArray) -> SplitRows:
    if part.paths is None:
        paths = tuple(f"row-{row:08d}" for row in chosen.tolist())
    else:
        paths = tuple(part.paths[row] for row in chosen.tolist())
        checked_paths(paths, f"paths of {split}")
    return SplitRows(part.features, chosen, labels[chosen], domains[chosen], paths)


def _check(composed: Composed) -> None:
    train, test = (composed.splits[split] for split in SPLITS)
    for split, rows in composed.splits.items():
        if not len(rows.rows):
            raise UsageError(f"there are no rows of {split}", where="--split", remedy="give rows of both splits")
    if train.features.dim != test.features.dim:
        raise UsageError(
            f"train features have width {train.features.dim}, test features {test.features.dim}",
            where="--features",
            remedy="give features of one backbone",
        )
    for split, rows in composed.splits.items():
        missing = np.setdiff1d(np.arange(len(composed.class_names)), rows.labels)
        if missing.size:
            raise UsageError(
                f"{missing.size} classes have no rows of {split}: {_some([composed.class_names[c] for c in missing])}",
                where="--labels",
                remedy="leave the classes out, or add rows of them",
            )


def _some(names: Sequence[Any]) -> str:
    return ", ".join(ascii(name).strip("'")[:40] for name in names[:5]) + (", ..." if len(names) > 5 else "")
