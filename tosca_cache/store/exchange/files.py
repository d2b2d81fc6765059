"""`tosca cache import`: arrays of external files become a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.store.exchange.arrays import ArraySource, Features, Part
from tosca_cache.store.exchange.columns import (
    CLASS_NAMES,
    DOMAIN_NAMES,
    DOMAINS,
    FEATURES,
    LABELS,
    NONE,
    PATHS,
    SPLIT,
    VIEWS,
    Columns,
    Name,
    find_columns,
)
from tosca_cache.store.exchange.compose import SplitRule
from tosca_cache.store.exchange.external import ExternalFile
from tosca_cache.store.exchange.importing import Imported, StoreName, import_arrays
from tosca_cache.store.exchange.reading import open_external
from tosca_cache.store.layout import SPLITS


@dataclass(frozen=True)
class ImportRequest:
    """One `tosca cache import`.

    path: the file. test_path: of the test split, where it is a file of its own. named: {role: array, or (train's, test's)};
    see `columns.find_columns`. most: bytes that the files may claim to hold; see `reading.ExternalFile.check_sizes`.
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
class Listener:
    """Is told how an import goes on.

    on_columns: which array of the file at a path is what, and which are not used. on_rows: how many more rows are written.
    """

    on_columns: Callable[[Path, Columns, Sequence[str]], None] = lambda path, columns, left: None
    on_rows: Callable[[int], None] = lambda rows: None


def import_files(request: ImportRequest, listener: Listener | None = None) -> Imported:
    """Imports what the request names into its root; raises `UsageError` or `StoreError`, and then leaves nothing there."""
    listener = listener or Listener()
    paths = [request.path] + ([] if request.test_path is None else [request.test_path])
    with ExitStack() as stack:
        files = [_with_arrays(stack, path, request, number) for number, path in enumerate(paths)]
        found = [_columns(request, file, number, len(files)) for number, file in enumerate(files)]
        for file, columns in zip(files, found, strict=True):
            used = columns.used()
            listener.on_columns(file.path, columns, [name for name in file.arrays if name not in used])
            file.check_sizes(used, request.most)
        source = _load(list(zip(files, found, strict=True)))
    every = [*paths, *(Path(name) for name in _array_files(request))]
    described: dict[str, Any] = {
        "files": [{"name": path.name, "sha256": _digest(path)} for path in every],
        "arrays": source.columns,
    }
    facts = {"files": [str(path.absolute()) for path in every]}
    return import_arrays(
        source,
        request.root,
        request.name,
        request.rule,
        described,
        facts=facts,
        progress=listener.on_rows,
        drop_bad=request.drop_bad,
    )


def _array_files(request: ImportRequest) -> list[str]:
    """Names of arrays that are files of their own: .npy beside the file."""
    names = [part for name in request.named.values() for part in (name if isinstance(name, tuple) else (name,))]
    return list(dict.fromkeys(name for name in names if name.lower().endswith(".npy")))


def _with_arrays(stack: ExitStack, path: Path, request: ImportRequest, number: int) -> ExternalFile:
    file = stack.enter_context(open_external(path))
    arrays = dict(file.arrays)
    size = file.size
    for name in _array_files(request):
        if name not in arrays:
            one = stack.enter_context(open_external(Path(name)))
            arrays[name], size = one.arrays["features"], size + one.size
    return ExternalFile(file.path, size, arrays)


def _columns(request: ImportRequest, file: ExternalFile, number: int, files: int) -> Columns:
    """The columns of one file; where there are two, a pair names an array of each."""
    if files == 1:
        return find_columns(file, request.named)
    named = {role: name[number] if isinstance(name, tuple) else name for role, name in request.named.items()}
    columns = find_columns(file, {role: name or NONE for role, name in named.items()} | {SPLIT: NONE})
    if not columns.separate:
        return columns
    split = SPLITS[number]  # the names say the split in both files
    names = {role: columns.of(role, split) for role in columns.names}
    return Columns({role: name for role, name in names.items() if name}, columns.found)


def _load(files: Sequence[tuple[ExternalFile, Columns]]) -> ArraySource:
    """Reads everything that has a role. files: one file; or train's and test's."""
    file, columns = files[0]
    if len(files) == 2:
        parts = {split: _part(*one, None) for split, one in zip(SPLITS, files, strict=True)}
    elif columns.separate:
        parts = {split: _part(file, columns, split) for split in SPLITS}
    else:
        parts = {"": _part(file, columns, None)}
    name = columns.names.get(SPLIT)
    split: Any = tuple(map(file.read, name)) if isinstance(name, tuple) else name and file.read(name)
    names = {role: _names(file, columns.of(role)) for role in (CLASS_NAMES, DOMAIN_NAMES)}
    described = (
        columns.to_dict() if len(files) == 1 else {s: c.to_dict() for s, (_, c) in zip(SPLITS, files, strict=True)}
    )
    shown = name if isinstance(name, str) else SPLIT
    return ArraySource(parts, split, shown, names[CLASS_NAMES], names[DOMAIN_NAMES], described)


def _part(file: ExternalFile, columns: Columns, split: str | None) -> Part:
    names = {role: columns.of(role, split) for role in (FEATURES, VIEWS, LABELS, DOMAINS, PATHS)}
    found = {role: None if name is None else file.read(name) for role, name in names.items()}
    features, views = np.asarray(found[FEATURES]), found[VIEWS]
    labels, paths = found[LABELS], found[PATHS]
    assert labels is not None
    return Part(
        Features(features, None if views is None else np.asarray(views)),
        labels,
        found[DOMAINS],
        None if paths is None else _texts(paths, PATHS),
    )


def _names(file: ExternalFile, name: str | None) -> list[str] | None:
    return None if name is None else _texts(file.read(name), name)


def _texts(values: Any, what: str) -> list[str]:
    if not isinstance(values, list):
        raise UsageError(f"{what} are no texts", where=what, remedy="save texts, or name another array")
    return values


def _digest(path: Path) -> str:
    with file_errors(path, StoreError, option="another path"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
