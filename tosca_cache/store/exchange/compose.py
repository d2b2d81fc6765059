"""From arrays to the two splits of a store: a table of rows, divided into train and test, with numbers for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.store.content import NOT_FINITE, TOO_LARGE, ZERO, storable
from tosca_cache.store.exchange.columns import IntArray, checked_paths, index_rows, numbered, split_rows
from tosca_cache.store.exchange.external import Values
from tosca_cache.store.layout import SPLITS

BLOCK = 8 << 20  # bytes of features that are looked at together


@dataclass(frozen=True)
class Table:
    """Rows, and what is known of each: whatever format they come in, this is what becomes a store.

    features: [m, d], or [m, 1+V, d] with the clean view first; kept as the latter, and never copied.
    labels, domains: [n] numbers or texts. paths: [n]; made of the rows' numbers if None.
    rows: [n], which rows of `features` these are, in this order; all of them if None.

    Raises `UsageError` for other shapes and types of all rows.
    """

    features: NDArray[Any]
    labels: Values
    domains: Values | None = None
    paths: Sequence[str] | None = None
    rows: IntArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.rows is not None:
            return
        given, wrong = self.features, ""
        if given.dtype.kind != "f" or given.dtype.itemsize > 8:
            wrong, remedy = f"type {given.dtype}", "save them as float16, float32 or float64"
        elif given.ndim not in (2, 3) or 0 in given.shape[1:]:
            wrong, remedy = f"shape {list(given.shape)}", "give [rows, d] or [rows, views, d]"
        elif not len(given):
            wrong, remedy = "no rows", "give some"
        if wrong:
            raise UsageError(f"features have {wrong}", where="features", remedy=remedy)
        for what, values in (("labels", self.labels), ("domains", self.domains), ("paths", self.paths)):
            _check_length(what, values, len(given))
        object.__setattr__(self, "features", given[:, None] if given.ndim == 2 else given)
        object.__setattr__(self, "rows", np.arange(len(given)))

    def part(self, chosen: IntArray) -> Table:
        """Some of the rows, in a given order."""
        labels, domains, paths = (_at(values, chosen) for values in (self.labels, self.domains, self.paths))
        return Table(self.features, labels, domains, paths, self.rows[chosen])


def _at(values: Any, chosen: IntArray) -> Any:
    if values is None or isinstance(values, np.ndarray):
        return values if values is None else values[chosen]
    return [values[row] for row in chosen.tolist()]


def _check_length(what: str, values: Values | None, rows: int, more: str = "") -> None:
    if values is not None and len(values) != rows:
        raise UsageError(
            f"there are {rows} rows of features, but {len(values)} {what}",
            where=what,
            remedy="give one of them for each row" + more,
        )


@dataclass(frozen=True)
class ArraySource:
    """All arrays of an import: one table to be divided, or one for each split.

    tables: (all rows,) or (train's, test's). split: a value a row, or (train's, test's) row numbers.
    split_name: what the split vector is called, which says what true means. columns: which arrays these were.
    """

    tables: tuple[Table, ...]
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
class Composed:
    """What is to become a store: tables whose labels and domains index names, and whose rows all have a path.

    notes: what a user should know, a sentence each.
    """

    splits: Mapping[str, Table]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    notes: tuple[str, ...]


def compose(source: ArraySource, rule: SplitRule) -> Composed:
    """Divides the rows and numbers labels and domains; raises `UsageError` for what cannot be a store to train on."""
    notes: list[str] = []
    train, test = _divide(source, rule, notes)
    labels, class_names, unused = numbered((train.labels, test.labels), source.class_names, "labels")
    if unused:
        notes.append(f"{len(unused)} classes have no rows and are left out: {_some(unused)}")
    domain_names: tuple[str, ...] = ("",)
    domains = [np.zeros(len(rows.rows), dtype=np.int64) for rows in (train, test)]
    if (train.domains is None) != (test.domains is None):
        raise UsageError("domains are given for one split only", where="domains", remedy="give both, or --domains none")
    if train.domains is not None and test.domains is not None:
        domains, domain_names, _ = numbered((train.domains, test.domains), source.domain_names, "domains")
    splits = {}
    for k, (split, rows) in enumerate(zip(SPLITS, (train, test), strict=True)):
        if rows.paths is not None:
            checked_paths(rows.paths, f"paths of {split}")
        paths = tuple(rows.paths or (f"row-{row:08d}" for row in rows.rows.tolist()))
        splits[split] = Table(rows.features, labels[k], domains[k], paths, rows.rows)
    return Composed(splits, class_names, domain_names, tuple(notes))


def without_bad_rows(composed: Composed, dtype: str) -> tuple[Composed, dict[str, int]]:
    """The same without rows that a store cannot hold, and how many those were in each split."""
    good = {split: np.flatnonzero(_problems(rows, dtype) == 0) for split, rows in composed.splits.items()}
    dropped = {split: len(rows.rows) - len(good[split]) for split, rows in composed.splits.items()}
    return replace(composed, splits={s: rows.part(good[s]) for s, rows in composed.splits.items()}), dropped


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
                NOT_FINITE: ("a value is NaN or infinite", "leave such rows out"),
                TOO_LARGE: (f"a value is too large for {dtype}", larger),
                ZERO: (f"a view is all zeros in {dtype}, so that it has no direction", larger),
            }[int(problems[first])]
            raise UsageError(
                problem + (f" ({count} such rows)" if count > 1 else ""),
                where=f"row {int(rows.rows[first])} of the features ({split})",
                remedy=f"{remedy}, or add --drop-bad",
            )


def _problems(table: Table, dtype: str) -> NDArray[np.int64]:
    """For each row why a store cannot hold it, as `storable` says it."""
    step = max(1, BLOCK // (4 * table.features[0].size))
    blocks = [table.features[table.rows[start : start + step]] for start in range(0, len(table.rows), step)]
    return np.concatenate([storable(block, dtype)[1] for block in blocks] or [np.zeros(0, dtype=np.int64)])


def _divide(source: ArraySource, rule: SplitRule, notes: list[str]) -> tuple[Table, Table]:
    """The rows of train and of test."""
    split, (table, *others) = source.split, source.tables
    if others:
        if split is not None or rule.fraction is not None or rule.values is not None:
            raise UsageError(
                "train and test are separate already",
                where="--split, --split-values or --test-fraction",
                remedy="leave this option out",
            )
        return table, others[0]
    if split is None:
        found = _by_fraction(rule, table.labels, source.class_names)
    elif rule.fraction is not None:
        raise UsageError(
            f"the file has a split already: {source.split_name!r}",
            where="--test-fraction",
            remedy="leave this option out, or add --split none",
        )
    elif isinstance(split, tuple):
        found = index_rows(split[0], split[1], len(table.rows))
    else:
        _check_length(f"values of the split {source.split_name}", split, len(table.rows), ", or --split none")
        found, left = split_rows(split, source.split_name, rule.values)
        if left:
            others_named = _some([f"{key} ({n} rows)" for key, n in left.items()])
            notes.append(f"rows of other splits are left out: {others_named}")
    return table.part(found["train"]), table.part(found["test"])


def _by_fraction(rule: SplitRule, given: Values, class_names: Sequence[str] | None) -> dict[str, IntArray]:
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
    (labels,), names, _ = numbered((given,), class_names, "labels")
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
