"""Features that were computed elsewhere, in files or in memory, as a store that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache import __version__
from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.names import STORE_NAME
from tosca_cache.store.catalogue import store_path
from tosca_cache.store.exchange.columns import (
    CLASS_NAMES,
    DOMAIN_NAMES,
    FEATURES,
    NONE,
    PATHS,
    PER_ROW,
    SPLIT,
    Name,
    each,
    find_columns,
)
from tosca_cache.store.exchange.compose import (
    ArraySource,
    Composed,
    SplitRule,
    Table,
    check,
    compose,
    without_bad_rows,
)
from tosca_cache.store.exchange.external import ExternalFile, open_external
from tosca_cache.store.layout import SPLITS, VIEW_PARAMETERS
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.spec import DTYPES, UNKNOWN, StoreSpec
from tosca_cache.store.writer import StoreWriter

IMPORTED = "imported"
MAX_NAME = 80
Progress = Callable[[int], None]
OnColumns = Callable[[Path, Mapping[str, Name], Sequence[str]], None]


@dataclass(frozen=True)
class StoreName:
    """What the store of imported features is called.

    dataset: name that it is asked for by. backbone: what made the features, `arch` or `arch.tag`.
    store_dtype: `float16` or `float32`; None for the one that keeps every value.

    Raises `UsageError` for names that cannot be part of a folder's name.
    """

    dataset: str
    backbone: str = IMPORTED
    store_dtype: str | None = None

    def __post_init__(self) -> None:
        for option, name in (("--dataset", self.dataset), ("--backbone", self.backbone)):
            if not STORE_NAME.fullmatch(name) or len(name) > MAX_NAME:
                raise UsageError(
                    f"{ascii(name)[:100]} is no name",
                    where=option,
                    remedy=f"use letters, digits, dots, dashes and underscores, {MAX_NAME} of them at most",
                )
        if self.store_dtype not in (None, *DTYPES):
            raise UsageError(
                f"features cannot be stored as {self.store_dtype!r}",
                where="--store-dtype",
                remedy=f"use {' or '.join(DTYPES)}",
            )


@dataclass(frozen=True)
class ImportRequest:
    """One `tosca cache import`.

    path: the file. test_path: of the test split, where it is a file of its own. named: {role: array, or (train's, test's)};
    see `columns.find_columns`. most: bytes that the files may claim to hold; see `ExternalFile.check_sizes`.
    drop_bad: rows that a store cannot hold are left out.
    """

    path: Path
    root: Path
    name: StoreName
    test_path: Path | None = None
    named: Mapping[str, Name] = field(default_factory=dict)
    rule: SplitRule = field(default_factory=SplitRule)
    most: int | None = None
    drop_bad: bool = False


@dataclass(frozen=True)
class Imported:
    """The store, whether it was there already, and what a user should know about how it came about, a sentence each."""

    store: Store
    was_there: bool
    notes: tuple[str, ...]


def import_files(
    request: ImportRequest, *, on_columns: OnColumns | None = None, on_rows: Progress | None = None
) -> Imported:
    """Imports what the request names into its root.

    Arguments:
        on_columns: is told which arrays of the file at a path have a role, and which are not used.
        on_rows: is told how many more rows are written.

    Raises `UsageError` or `StoreError`, and then leaves nothing there.
    """
    paths = [request.path] + ([] if request.test_path is None else [request.test_path])
    with ExitStack() as stack:
        opened = [stack.enter_context(open_external(path)) for path in paths]
        file, named = opened[0], request.named
        if len(opened) == 2:
            file, named = _joined(opened), {role: _of_splits(name) for role, name in named.items()}
        for name in each(named):
            if name.lower().endswith(".npy") and name not in file.arrays:  # an array that is a file of its own
                one = stack.enter_context(open_external(Path(name)))
                file = replace(file, size=file.size + one.size, arrays={**file.arrays, name: one.arrays["features"]})
                paths.append(Path(name))
        columns = find_columns(file, named)
        if on_columns is not None:
            on_columns(file.path, columns, [name for name in file.arrays if name not in each(columns)])
        file.check_sizes(each(columns), request.most)
        source = _load(file, columns)
    with file_errors(request.path, StoreError, option="another path"):
        digests = [{"name": path.name, "sha256": _digest(path)} for path in paths]
    return import_arrays(
        source,
        request.root,
        request.name,
        request.rule,
        {"files": digests, "arrays": source.columns},
        facts={"files": [str(path.absolute()) for path in paths]},
        progress=on_rows,
        drop_bad=request.drop_bad,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(files: Sequence[ExternalFile]) -> ExternalFile:
    """Train's and test's file as one, whose arrays are called `train/NAME` and `test/NAME`."""
    arrays = {
        f"{s}/{name}": array for s, file in zip(SPLITS, files, strict=True) for name, array in file.arrays.items()
    }
    return ExternalFile(files[0].path, sum(file.size for file in files), arrays)


def _of_splits(name: Name) -> Name:
    """What an array, or a pair, is called in `_joined` files."""
    train, test = name if isinstance(name, tuple) else (name, name)
    return name if name == NONE else (train and f"train/{train}", test and f"test/{test}")


def _load(file: ExternalFile, columns: Mapping[str, Name]) -> ArraySource:
    """Reads everything that has a role."""

    def read(role: str, place: int = 0) -> Any:
        """The array of a role; of a pair the one at a place. Paths and names are texts."""
        name = columns.get(role)
        name = name[place] if isinstance(name, tuple) else name
        found = file.read(name) if name else None
        if role in (PATHS, CLASS_NAMES, DOMAIN_NAMES) and not isinstance(found, list | None):
            remedy = "save texts, or name another array"
            raise UsageError(f"{name} holds no texts", where=file.path, remedy=remedy)
        return found

    tables = []
    for place in range(2 if isinstance(columns[FEATURES], tuple) else 1):
        features, *others = (read(role, place) for role in PER_ROW)
        tables.append(Table(np.asarray(features), *others))
    name = columns.get(SPLIT)
    split: Any = tuple(map(file.read, name)) if isinstance(name, tuple) else read(SPLIT)
    plain = {role: list(name) if isinstance(name, tuple) else name for role, name in columns.items()}
    split_name = name if isinstance(name, str) else SPLIT
    return ArraySource(tuple(tables), split, split_name, read(CLASS_NAMES), read(DOMAIN_NAMES), plain)


def import_arrays(
    source: ArraySource,
    root: Path,
    name: StoreName,
    rule: SplitRule,
    described: Mapping[str, Any],
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    drop_bad: bool = False,
) -> Imported:
    """Makes the store; goes on with one whose import was killed.

    Arguments:
        described: by what this import differs from others (`StoreSpec.source`). facts: for the provenance.
        progress: is told how many more rows are written.
        drop_bad: leave out rows of NaN, infinity, zeros, or too large for the dtype; they are counted in the fingerprint.

    Raises `UsageError` for features, labels or splits that cannot make a store, before anything is written.
    """
    composed, described = compose(source, rule), dict(described)
    features = [rows.features for rows in composed.splits.values()]
    widest = max(one.dtype.itemsize for one in features)  # float64 is rounded
    dtype, notes = name.store_dtype or ("float16" if widest == 2 else "float32"), list(composed.notes)
    if drop_bad:
        composed, dropped = without_bad_rows(composed, dtype)
        if any(dropped.values()):
            described["dropped"] = dropped
            counts = ", ".join(f"{count} of {split}" for split, count in dropped.items())
            notes.append(f"rows that no store can hold are left out: {counts}")
    check(composed, dtype)
    spec = _spec(composed, name, dtype, described, rule)
    with file_errors(root, StoreError, option="--root"):
        root.mkdir(parents=True, exist_ok=True)
    path = store_path(root, spec)
    if path.exists():
        return Imported(open_store(path), True, tuple(notes))
    if widest == 8:
        notes.append(f"float64 features are rounded to {dtype}")
    store = _write(composed, path, spec, {"tosca_cache": __version__, "source": dict(facts or {})}, progress)
    return Imported(store, False, tuple(notes))


def digest_of(source: ArraySource) -> str:
    """SHA-256 of features in memory, where there is no file; all else that they have is in the listing's digest."""
    digest = hashlib.sha256()
    for split, table in zip(SPLITS if len(source.tables) == 2 else ("",), source.tables, strict=True):
        rows = table.features[:, 0] if table.features.shape[1] == 1 else table.features
        little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        digest.update(f"{split} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _spec(composed: Composed, name: StoreName, dtype: str, source: Mapping[str, Any], rule: SplitRule) -> StoreSpec:
    arch, _, tag = name.backbone.partition(".")
    counts = {split: composed.splits[split].features.shape[1] - 1 for split in SPLITS}
    divided: dict[str, Any] = {} if rule.fraction is None else {"test_fraction": rule.fraction, "seed": rule.seed}
    if rule.values is not None:
        divided["split_values"] = list(rule.values)
    return StoreSpec(
        dataset={
            "name": name.dataset,
            "listing_digest": _listing_digest(composed),
            "classes": len(composed.class_names),
            "splits": {split: len(composed.splits[split].rows) for split in SPLITS},
        },
        backbone={
            "name": arch,
            "tag": tag,
            "weights_digest": UNKNOWN,
            "dim": composed.splits["train"].features.shape[-1],
        },
        transform={},
        views={"count": counts["train"], "seed": 0, "test_count": counts["test"]},
        precision=UNKNOWN,
        dtype=dtype,
        source={"kind": IMPORTED, **source, **divided},
    )


def _listing_digest(composed: Composed) -> str:
    """As `ImageDataset.listing_digest` has it."""
    listing = {
        "classes": composed.class_names,
        "domains": composed.domain_names,
        "splits": {
            name: [rows.paths, np.asarray(rows.labels).tolist(), np.asarray(rows.domains).tolist()]
            for name, rows in sorted(composed.splits.items())
        },
    }
    return hashlib.sha256(json.dumps(listing, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def _write(
    composed: Composed, path: Path, spec: StoreSpec, provenance: dict[str, Any], progress: Progress | None
) -> Store:
    writer = StoreWriter.open(
        path,
        spec,
        class_names=composed.class_names,
        domain_names=composed.domain_names,
        rows={split: len(composed.splits[split].rows) for split in SPLITS},
        views={split: composed.splits[split].features.shape[1] for split in SPLITS},
        numerics={},
    )
    with writer:
        for shard in writer.pending():
            rows = composed.splits[shard.split].part(np.arange(shard.start, shard.stop))
            features = rows.features[rows.rows]
            writer.publish(
                shard,
                features=features,
                labels=np.asarray(rows.labels),
                domains=np.asarray(rows.domains),
                views=np.zeros((*features.shape[:2], VIEW_PARAMETERS), dtype=np.int64),
                paths=rows.paths or (),
            )
            if progress is not None:
                progress(shard.rows)
        return writer.finish(provenance)
