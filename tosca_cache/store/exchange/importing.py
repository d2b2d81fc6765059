"""Features that were computed elsewhere, in files or in memory, as a store that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache import __version__
from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.names import STORE_NAME
from tosca_cache.store.catalogue import store_path
from tosca_cache.store.exchange.external import PER_ROW, TEXTS, ExternalFile, Name, each, find_columns, open_external
from tosca_cache.store.exchange.rows import ArraySource, SplitRows, compose, divide, some, without_bad
from tosca_cache.store.layout import SPLITS, VIEW_PARAMETERS
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.spec import DTYPES, UNKNOWN, StoreSpec
from tosca_cache.store.writer import StoreWriter

IMPORTED = "imported"
MAX_NAME = 80
OnColumns = Callable[[Path, Mapping[str, Name], Sequence[str]], None]


@dataclass(frozen=True)
class ImportOptions:
    """What the store of imported features is called, and how rows become it.

    root: where it will be. dataset: name that it is asked for by. backbone: what made the features, `arch` or `arch.tag`.
    store_dtype: `float16` or `float32`; None for the one that keeps every value.
    test_fraction, seed: share of each class for the test split where there is none, and which rows those are.
    drop_bad: leave out rows of NaN, infinity, zeros, or too large for the dtype; they are counted in the fingerprint.

    Raises `UsageError` for what cannot be.
    """

    root: Path
    dataset: str
    backbone: str = IMPORTED
    store_dtype: str | None = None
    test_fraction: float | None = None
    seed: int = 1993
    drop_bad: bool = False

    def __post_init__(self) -> None:
        for option, name in (("--dataset", self.dataset), ("--backbone", self.backbone)):
            if not STORE_NAME.fullmatch(name) or len(name) > MAX_NAME:
                remedy = f"use letters, digits, dots, dashes and underscores, {MAX_NAME} of them at most"
                raise UsageError(f"{ascii(name)[:100]} is no name", where=option, remedy=remedy)
        if self.store_dtype not in (None, *DTYPES):
            problem = f"features cannot be stored as {self.store_dtype!r}"
            raise UsageError(problem, where="--store-dtype", remedy=f"use {' or '.join(DTYPES)}")
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            problem = f"the test fraction must lie between 0 and 1, not {self.test_fraction}"
            raise UsageError(problem, where="--test-fraction", remedy="give for example --test-fraction 0.2")


@dataclass(frozen=True)
class Imported:
    """The store, whether it was there already, and what a user should know about how it came about, a sentence each."""

    store: Store
    was_there: bool
    notes: tuple[str, ...]


def import_file(
    path: Path,
    options: ImportOptions,
    named: Mapping[str, Name],
    *,
    most: int | None = None,
    on_columns: OnColumns | None = None,
) -> Imported:
    """Imports the arrays of a file.

    Arguments:
        named: {role: array, or (train's, test's)}, of which some may be .npy files; see `find_columns`.
        most: bytes that the file may claim to hold; see `ExternalFile.check_sizes`.
        on_columns: is told which arrays have a role, and which are not used.

    Raises `UsageError` or `StoreError`, and then leaves nothing there.
    """
    with open_external(path, each(named)) as file:
        columns = find_columns(file, named)
        if on_columns is not None:
            on_columns(path, columns, [name for name in file.arrays if name not in each(columns)])
        file.check_sizes(each(columns), most)
        source = _load(file, columns)
    digests = [{"name": one.name, "sha256": _sha256(one)} for one in file.paths]
    arrays = {role: list(name) if isinstance(name, tuple) else name for role, name in columns.items()}
    facts = {"files": [str(one.absolute()) for one in file.paths]}
    return import_arrays(source, options, {"files": digests, "arrays": arrays}, facts)


def _sha256(path: Path) -> str:
    with file_errors(path, StoreError, option="another path"), path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _load(file: ExternalFile, columns: Mapping[str, Name]) -> ArraySource:
    """Reads everything that has a role."""

    def read(role: str, place: int = 0) -> Any:
        """The array of a role; of a pair the one at a place. Paths and names are texts."""
        name = columns.get(role)
        name = name[place] if isinstance(name, tuple) else name
        found = file.read(name) if name else None
        if role in TEXTS and found is not None and found.dtype.kind != "O":
            remedy = "save texts, or name another array"
            raise UsageError(f"{name} holds no texts", where=file.path, remedy=remedy)
        return found

    places = range(2 if isinstance(columns["features"], tuple) else 1)
    parts = tuple({role: read(role, place) for role in PER_ROW if role in columns} for place in places)
    return ArraySource(parts, read("split"), read("class_names"), read("domain_names"))


def import_arrays(
    source: ArraySource,
    options: ImportOptions,
    described: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> Imported:
    """Makes the store; goes on with one whose import was killed.

    Arguments:
        described: by what this import differs from others (`StoreSpec.source`). facts: for the provenance.

    Raises `UsageError` for features, labels or splits that cannot make a store, before anything is written.
    """
    divided, notes = divide(source, options.test_fraction, options.seed)
    every, class_names, domain_names, more = compose(source, divided)
    widest = max(part.features.dtype.itemsize for part in every.values())
    dtype = options.store_dtype or ("float16" if widest == 2 else "float32")
    splits, notes = without_bad(every, dtype, drop=options.drop_bad), notes + more
    described = {"kind": "imported", **described}
    if options.test_fraction is not None:
        described |= {"test_fraction": options.test_fraction, "seed": options.seed}
    if any((dropped := {s: len(every[s].rows) - len(splits[s].rows) for s in SPLITS}).values()):
        described["dropped"] = dropped
        counts = ", ".join(f"{count} of {split}" for split, count in dropped.items())
        notes.append(f"rows that no store can hold are left out: {counts}")
    _check(splits, class_names)
    spec = _spec(splits, class_names, domain_names, options, dtype, described)
    with file_errors(options.root, StoreError, option="--root"):
        options.root.mkdir(parents=True, exist_ok=True)
    path = store_path(options.root, spec)
    if path.exists():
        return Imported(open_store(path), True, tuple(notes))
    if widest == 8:
        notes.append(f"float64 features are rounded to {dtype}")
    with StoreWriter.open(
        path,
        spec,
        class_names=class_names,
        domain_names=domain_names,
        numerics={},
    ) as writer:
        _write(writer, splits)
        store = writer.finish({"tosca_cache": __version__, "source": dict(facts or {})})
    return Imported(store, False, tuple(notes))


def digest_of(source: ArraySource) -> str:
    """SHA-256 of features in memory, where there is no file; all else that they have is in the listing's digest."""
    digest = hashlib.sha256()
    for split, part in zip(SPLITS if len(source.parts) == 2 else ("",), source.parts, strict=True):
        rows = part["features"]
        rows = rows[:, 0] if rows.ndim == 3 and rows.shape[1] == 1 else rows
        little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        digest.update(f"{split} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check(splits: Mapping[str, SplitRows], class_names: Sequence[str]) -> None:
    """Raises `UsageError` for splits that cannot be trained on."""
    for split, part in splits.items():
        if (missing := np.setdiff1d(np.arange(len(class_names)), part.labels)).size:
            problem = f"{missing.size} classes have no rows of {split}: {some([class_names[c] for c in missing])}"
            raise UsageError(problem, where="--labels", remedy="leave the classes out, or add rows of them")
    train, test = (splits[split].features.shape[-1] for split in SPLITS)
    if train != test:
        problem = f"train features have width {train}, test features {test}"
        raise UsageError(problem, where="--features", remedy="give features of one backbone")


def _spec(
    splits: Mapping[str, SplitRows],
    class_names: Sequence[str],
    domain_names: Sequence[str],
    options: ImportOptions,
    dtype: str,
    source: Mapping[str, Any],
) -> StoreSpec:
    arch, _, tag = options.backbone.partition(".")
    widths = {split: rows.features.shape[1:] for split, rows in splits.items()}
    listed = [[rows.paths, rows.labels.tolist(), rows.domains.tolist()] for rows in splits.values()]
    listing = {
        "classes": class_names,
        "domains": domain_names,
        "splits": dict(sorted(zip(splits, listed, strict=True))),
    }
    text = json.dumps(listing, ensure_ascii=True, separators=(",", ":"))  # as `ImageDataset.listing_digest` has it
    return StoreSpec(
        dataset={
            "name": options.dataset,
            "listing_digest": hashlib.sha256(text.encode()).hexdigest(),
            "classes": len(class_names),
            "splits": {split: len(rows.rows) for split, rows in splits.items()},
        },
        backbone={"name": arch, "tag": tag, "weights_digest": UNKNOWN, "dim": widths["train"][1]},
        transform={},
        views={"count": widths["train"][0] - 1, "seed": 0, "test_count": widths["test"][0] - 1},
        precision=UNKNOWN,
        dtype=dtype,
        source=source,
    )


def _write(writer: StoreWriter, splits: Mapping[str, SplitRows]) -> None:
    for shard in writer.pending():
        rows, part = splits[shard.split], slice(shard.start, shard.stop)
        features = rows.features[rows.rows[part]]
        writer.publish(
            shard,
            features=features,
            labels=rows.labels[part],
            domains=rows.domains[part],
            views=np.zeros((*features.shape[:2], VIEW_PARAMETERS), dtype=np.int64),
            paths=rows.paths[part],
        )
