"""Removing stores and what killed processes left, and how much room everything takes.

NAME.partial                          an unfinished store
.NAME.compact .NAME.fetching          a store that is being built a second time; that is being pulled
.NAME.removed                         one that is being removed
.NAME.*lock                           a lock; its file alone says nothing, it counts while somebody holds it

A store vanishes by one rename, to `.NAME.removed`, and is emptied there, what vouches for it first. So a removal that is
interrupted leaves no store that looks whole, and `prune` sweeps the rest.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.store.catalogue import list_stores
from tosca_cache.store.disk import remove_tree, storage, sync
from tosca_cache.store.layout import SPLITS, compact_path, partial_path
from tosca_cache.store.locks import busy, exclusive
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN, PROVENANCE

UNFINISHED, IN_TRANSIT, LOCK = "unfinished store", "remains of a store", "lock of nobody"
_KINDS = {
    UNFINISHED: re.compile(r"(?P<store>[^.].*)\.partial"),
    IN_TRANSIT: re.compile(r"\.(?P<store>.+)\.(compact|fetching|removed)"),
    LOCK: re.compile(r"\.(?P<store>.+?)\.((part-[0-9]+-of-[0-9]+|deciding)\.)?lock"),
}
_OURS = re.compile(
    "|".join(re.escape(name) for name in (MANIFEST, MANIFEST_COPY, PROVENANCE, PLAN, "zarr.json", *SPLITS))
    + r"|done(\.part-[0-9]+-of-[0-9]+)?\.jsonl|\..+\.tmp"
)
_CHECKSUM_FILES = (MANIFEST, MANIFEST_COPY, PLAN)


@dataclass(frozen=True)
class StaleFile:
    """Something that no finished store needs.

    kind: `UNFINISHED`, `IN_TRANSIT` or `LOCK`. store: name of the store that it belongs to. size: bytes.
    busy: who is writing that store; None if nobody is.
    """

    path: Path
    kind: str
    store: str
    size: int
    busy: str | None


@dataclass(frozen=True)
class Pruned:
    """What `prune` has removed, or would; and what it left because somebody is writing it."""

    removed: list[StaleFile]
    kept: list[StaleFile]

    @property
    def size(self) -> int:
        """Bytes of what was removed."""
        return sum(found.size for found in self.removed)


@dataclass(frozen=True)
class Usage:
    """Bytes below a root: (name, state, bytes) of each store, what killed processes left, and what is free on that disk."""

    stores: list[tuple[str, str, int]]
    litter: int
    free: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with sums by state."""
        sums = {
            s: sum(size for _, state, size in self.stores if state == s) for s in sorted({s for _, s, _ in self.stores})
        }
        total = {"bytes": sum(sums.values()) + self.litter, **sums, "litter": self.litter}
        stores = [{"name": name, "state": state, "bytes": size} for name, state, size in self.stores]
        return {"stores": stores, "total": total, "free": self.free}


def stale_files(root: Path) -> list[StaleFile]:
    """Everything of that kind in a root, by store and path; empty if the root does not exist."""
    root, found = Path(root), []
    with storage(root):
        for path in root.iterdir() if root.is_dir() else ():
            for kind, pattern in _KINDS.items():
                name = pattern.fullmatch(path.name)
                if name is not None and not path.is_symlink() and path.is_dir() == (kind != LOCK):
                    found.append(StaleFile(path, kind, name["store"], folder_size(path), busy(root / name["store"])))
    return sorted(found, key=lambda stale: (stale.store, stale.path))


def prune(root: Path, *, dry_run: bool = False) -> Pruned:
    """Removes unfinished stores and whatever killed processes have left in a root; finished stores stay.

    dry_run: only say what would be removed. What somebody is writing, pulling or repairing is never touched.
    Raises `StoreError` if the disk refuses.
    """
    removed, kept = [], []
    for name, group in groupby(stale_files(Path(root)), key=lambda stale: stale.store):
        stale = list(group)
        if stale[0].busy is None:
            removed += stale
            if not dry_run:
                with exclusive(Path(root) / name), storage(Path(root)):
                    for found in stale:
                        _remove(found.path)
        else:
            kept += [found for found in stale if found.kind != LOCK]  # a lock that is held is no leftover
    return Pruned(removed, kept)


def sweep_up(path: Path) -> None:
    """Removes what a crash left of the building of a finished store, unless somebody is at it, or it cannot be removed."""
    remains = [folder for folder in (partial_path(path), compact_path(path)) if folder.exists()]
    if remains and (path / MANIFEST).exists():
        with suppress(StoreError), exclusive(path), storage(path):
            for folder in remains:
                _remove(folder)


def remove_store(path: Path) -> int:
    """Removes a store, finished, unfinished or damaged, and what is left of its building; returns the bytes of that.

    path: its folder; with `.partial`, or where there is no finished one, the unfinished store.

    Raises `StoreBusy`, naming the process, while somebody is writing it; `StoreError` if there is no store, if the folder
    holds anything that no store has, or if the disk refuses.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (`.` has no name; a link in place of a store stays one)
    store = path.with_name(path.name.removesuffix(".partial")) if path.name else path
    if path.is_symlink():
        raise StoreError("This is a link to a folder.", where=path, remedy="Name the folder itself.")
    whole = [] if path.name.endswith(".partial") else [store]
    folders = [folder for folder in (*whole, partial_path(store), compact_path(store)) if folder.is_dir()]
    if not folders or not path.name:
        raise StoreError(
            "There is no feature store here.", where=path, remedy="See `tosca cache ls` for the stores there are."
        )
    with storage(store.parent):
        for folder in folders:
            _check_ours(folder)
        with exclusive(store):
            size = sum(folder_size(folder) for folder in folders)
            removed = store.with_name(f".{store.name}.removed")
            for folder in folders:
                _remove(removed)  # of an earlier removal
                folder.rename(removed)
                sync(store.parent)
                _remove(removed)
    return size


def usage(root: Path) -> Usage:
    """How much room the stores below a root take; raises `StoreError` if the root cannot be read."""
    root = Path(root)
    with storage(root):
        existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
        found = list_stores(root)
        stores = [(store.path.name, store.state, folder_size(store.path)) for store in found]
        litter = sum(stale.size for stale in stale_files(root) if stale.path not in {store.path for store in found})
        return Usage(stores, litter, shutil.disk_usage(existing).free)


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder, links not followed; what vanishes in between counts for nothing."""
    sizes = []
    for file in path.rglob("*") if path.is_dir() else (path,):
        with suppress(FileNotFoundError):
            sizes.append(0 if file.is_dir() and not file.is_symlink() else file.lstat().st_size)
    return sum(sizes)


def _remove(path: Path) -> None:
    """Removes a folder, what vouches for its content first; or a file."""
    if path.is_dir():
        remove_tree(path, *_CHECKSUM_FILES)
    else:
        path.unlink(missing_ok=True)


def _check_ours(folder: Path) -> None:
    """Raises `StoreError` unless this is a store's folder, whatever state it is in, and holds nothing else."""
    names = {entry.name for entry in folder.iterdir()}
    foreign = sorted(name for name in names if not _OURS.fullmatch(name))
    built = folder.name.endswith((".partial", ".compact"))
    if foreign or not (built or names & {*_CHECKSUM_FILES, "zarr.json"}):
        raise StoreError(
            f"This folder holds something that no store has: {foreign[0]}." if foreign else "This is no feature store.",
            where=folder,
            remedy="Look what it is; nothing was removed.",
        )
