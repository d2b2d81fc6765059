"""From arrays to the two splits of a store: which rows are train and test, their labels and domains as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.store.exchange.arrays import ArraySource, Features, Part
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
class SplitRule:
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


def compose(source: ArraySource, rule: SplitRule) -> Composed:
    """Divides the rows and numbers labels and domains; raises `UsageError` for what cannot be a store to train on."""
    parts = list(source.parts.values())
    notes: list[str] = []
    labels, class_names, unused = numbered([part.labels for part in parts], source.class_names, "labels")
    if unused:
        notes.append(f"{len(unused)} classes have no rows and are left out: {_some(unused)}")
    domains, domain_names = _domains(parts, source.domain_names)
    if len(parts) == 2:
        _refuse_rule(source, rule)
        chosen = {split: np.arange(len(part.features)) for split, part in source.parts.items()}
    else:
        chosen = _divide(source, rule, labels[0], class_names, notes)
    splits = {}
    for number, split in enumerate(SPLITS):
        own = number if len(parts) == 2 else 0
        splits[split] = _rows(parts[own], split, chosen[split], labels[own], domains[own])
    return Composed(splits, class_names, domain_names, tuple(notes))


def without_bad_rows(composed: Composed, dtype: str) -> tuple[Composed, dict[str, int]]:
    """The same without rows that a store cannot hold, and how many those were in each split."""
    splits, dropped = {}, {}
    for split, rows in composed.splits.items():
        kept = np.flatnonzero([not problem for problem in _problems(rows, dtype)])
        dropped[split] = len(rows.rows) - len(kept)
        paths = tuple(rows.paths[row] for row in kept.tolist())
        splits[split] = SplitRows(rows.features, rows.rows[kept], rows.labels[kept], rows.domains[kept], paths)
    return replace(composed, splits=splits), dropped


def check(composed: Composed, dtype: str) -> None:
    """Raises `UsageError` for rows that a store cannot hold, and for splits that cannot be trained on."""
    _check(composed)
    for split, rows in composed.splits.items():
        problems = _problems(rows, dtype)
        bad = [number for number, problem in enumerate(problems) if problem]
        if bad:
            problem, remedy = problems[bad[0]] or ("", "")
            more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
            raise UsageError(
                f"{problem}{more}",
                where=f"row {int(rows.rows[bad[0]])} of the features ({split})",
                remedy=f"{remedy}, or add --drop-bad",
            )


def _problems(rows: SplitRows, dtype: str) -> list[tuple[str, str] | None]:
    """For each row why a store cannot hold it, and what to do; None for good ones."""
    found: list[tuple[str, str] | None] = []
    step = max(1, BLOCK // (4 * rows.features.width * rows.features.dim))
    for start in range(0, len(rows.rows), step):
        given = rows.features.rows(rows.rows[start : start + step])
        with np.errstate(over="ignore", invalid="ignore"):
            stored = given.astype(dtype)
        not_finite, too_large = (~np.isfinite(array).all(axis=(1, 2)) for array in (given, stored))
        zero = (stored == 0).all(axis=2).any(axis=1)
        for row in range(len(given)):
            lost = f"a view is all zeros in {dtype}, so that it has no direction", _larger(dtype, given[row])
            reasons = (
                (not_finite[row], ("a value is NaN or infinite", "leave such rows out")),
                (too_large[row], (f"a value is too large for {dtype}", _larger(dtype, given[row]))),
                (zero[row], lost),
            )
            found.append(next((reason for holds, reason in reasons if holds), None))
    return found


def _larger(dtype: str, row: NDArray[Any]) -> str:
    if not row.any():
        return "leave such rows out"
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


def _refuse_rule(source: ArraySource, rule: SplitRule) -> None:
    for value, option in ((rule.fraction, "--test-fraction"), (rule.values, "--split-values")):
        if value is not None:
            raise UsageError("train and test are separate already", where=option, remedy="leave this option out")
    if source.split is not None:
        raise UsageError("train and test are separate already", where="--split", remedy="leave this option out")


def _divide(
    source: ArraySource, rule: SplitRule, labels: IntArray, names: Sequence[str], notes: list[str]
) -> dict[str, IntArray]:
    rows, split = len(labels), source.split
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
    order = np.argsort(labels, kind="stable")
    for name, rows in zip(names, np.split(order, np.flatnonzero(np.diff(labels[order])) + 1), strict=True):
        if len(rows) < 2:
            raise UsageError(
                f"class {name!r} has one row, which cannot be in both train and test",
                where="--test-fraction",
                remedy="leave the class out, or add rows of it",
            )
        count = min(max(round(rule.fraction * len(rows)), 1), len(rows) - 1)
        in_test[numpy_generator(rule.seed, "test-fraction", name).permutation(rows)[:count]] = True
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
