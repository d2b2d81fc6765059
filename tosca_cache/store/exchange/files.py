"""What `tosca cache import` does with the files it is given: an exported store is restored, other arrays become a store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.store.exchange.compose import Division
from tosca_cache.store.exchange.foreign import Imported, Naming, import_given
from tosca_cache.store.exchange.given import load
from tosca_cache.store.exchange.limits import check_promises
from tosca_cache.store.exchange.restore import is_exported_store, restore_store
from tosca_cache.store.exchange.roles import SPLIT, Pair, Roles, settle
from tosca_cache.store.layout import SPLITS
from tosca_cache.untrusted import UntrustedFile, open_regular, open_untrusted

_BLOCK = 4 << 20


@dataclass(frozen=True)
class ImportRequest:
    """One `tosca cache import`.

    path: the file. test_path: of the test split, where it is a file of its own. naming: None for an exported store, which
    brings its names. said: {role: array, or (train's, test's)}; see `roles.settle`. bfloat16: features are its bits.
    most: bytes that the files may claim to hold; see `limits.check_promises`.
    """

    path: Path
    root: Path
    naming: Naming | None = None
    test_path: Path | None = None
    said: Mapping[str, str | Pair] = field(default_factory=dict)
    division: Division = field(default_factory=Division)
    bfloat16: bool = False
    most: int | None = None


@dataclass(frozen=True)
class Listener:
    """Is told how an import goes on.

    on_roles: which array of the file at a path is what. on_rows: how many more rows are written.
    """

    on_roles: Callable[[Path, Roles, Sequence[str]], None] = lambda path, roles, left: None
    on_rows: Callable[[int], None] = lambda rows: None


def import_files(request: ImportRequest, listener: Listener | None = None) -> Imported:
    """Imports what the request names into its root; raises `UsageError` or `StoreError`, and then leaves nothing there."""
    listener = listener or Listener()
    with ExitStack() as stack:
        paths = [request.path] + ([] if request.test_path is None else [request.test_path])
        files = [stack.enter_context(open_untrusted(path)) for path in paths]
        if any(is_exported_store(file) for file in files):
            _refuse_options(request)
            done = restore_store(files[0], request.root, most=request.most, progress=listener.on_rows)
            return Imported(done.store, done.was_there, ())
        if request.naming is None:
            raise UsageError(
                "this file is no exported store, so the features in it need a name",
                where=request.path,
                remedy="add --dataset NAME, and perhaps --backbone NAME: what made the features",
            )
        return _import_foreign(request, request.naming, files, listener)


def _import_foreign(request: ImportRequest, naming: Naming, files: list[UntrustedFile], listener: Listener) -> Imported:
    roles = _settle(request, files)
    for file, found in zip(files, roles, strict=True):
        used = found.used()
        listener.on_roles(file.path, found, [name for name in file.arrays if name not in used])
        check_promises(file, [file.arrays[name] for name in used], request.most)
    with file_errors(request.root, StoreError, option="--root"):
        request.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        digests = [stack.enter_context(_unchanged(file.path)) for file in files]
        given = load(list(zip(files, roles, strict=True)), request.root, bfloat16=request.bfloat16)
    source: dict[str, Any] = {
        "files": [{"name": f.path.name, "sha256": digest} for f, digest in zip(files, digests, strict=True)],
        "arrays": given.roles,
    }
    if request.bfloat16:
        source["bfloat16"] = True
    facts = {"files": [str(file.path.absolute()) for file in files]}
    return import_given(given, request.root, naming, request.division, source, facts=facts, progress=listener.on_rows)


def _settle(request: ImportRequest, files: list[UntrustedFile]) -> list[Roles]:
    """The roles of each file's arrays; a pair names an array of each of two files."""
    if len(files) == 1:
        return [settle(files[0].arrays, request.said, str(files[0].path))]
    found = []
    for number, file in enumerate(files):
        said = {role: name[number] if isinstance(name, tuple) else name for role, name in request.said.items()}
        said = {role: name or "none" for role, name in said.items()} | {SPLIT: "none"}
        roles = settle(file.arrays, said, str(file.path))
        if roles.separate:  # a file of train and one of test, in both of which names say the split
            split = SPLITS[number]
            names = {role: roles.of(role, split) for role in roles.names if roles.of(role, split)}
            roles = Roles({role: name for role, name in names.items() if name}, roles.guessed)
        found.append(roles)
    return found


def _refuse_options(request: ImportRequest) -> None:
    given = {
        "--dataset": request.naming,
        "--test": request.test_path,
        "--test-fraction": request.division.fraction,
        "--split-values": request.division.values,
        "--bfloat16": request.bfloat16 or None,
        **{f"--{role.replace('_', '-')}": name for role, name in request.said.items()},
    }
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                "this file is an exported store, which brings its names and splits",
                where=option,
                remedy="leave this option out",
            )


@contextmanager
def _unchanged(path: Path) -> Iterator[str]:
    """The SHA-256 of a file; raises `StoreError` at the end if it was written to meanwhile."""
    descriptor = open_regular(path)
    try:
        before = os.fstat(descriptor)
        digest = hashlib.sha256()
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
        yield digest.hexdigest()
        after = path.stat()
    finally:
        os.close(descriptor)
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise StoreError("This file was changed while it was read.", where=path, remedy="Run the same command again.")
