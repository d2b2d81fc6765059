"""Removing stores and what killed processes left, and how much room everything takes.

A store vanishes by one rename, to `.NAME.removed`, and is emptied there, what vouches for it first. So a removal that is
interrupted leaves no store that looks whole, and `prune` sweeps the rest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.store.catalogue import DAMAGED, FINISHED, UNFINISHED
from tosca_cache.store.disk import remove_tree, storage, sync_folder
from tosca_cache.store.layout import ARRAYS, SPLITS, compact_path, partial_path
from tosca_cache.store.locks import acquire_lock, registry_lock
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN, PROVENANCE, load_manifest
from tosca_cache.store.stale_files import LOCK, StaleFile, busy, folder_size, stale_files
from tosca_cache.store.stale_files import UNFINISHED as UNFINISHED_STORE

_OURS = re.compile(
    "|".join(re.escape(name) for name in (MANIFEST, MANIFEST_COPY, PROVENANCE, PLAN, "zarr.json", *SPLITS))
    + r"|done(\.part-[0-9]+-of-[0-9]+)?\.jsonl|note\.part-[0-9]+-of-[0-9]+\.json|\..+\.tmp"
)
_CHECKSUM_FILES = (MANIFEST, MANIFEST_COPY, PLAN)


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
class StoreUsage:
    """Bytes that a store takes: its features, its views' parameters, everything else, and all that on the disk's blocks."""

    name: str
    state: str
    features: int
    views: int
    other: int
    on_disk: int

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.features + self.views + self.other


@dataclass(frozen=True)
class Usage:
    """Bytes below a root: of each store, of what killed processes left, and what is free on that disk."""

    stores: list[StoreUsage]
    litter: int
    free: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with sums by state."""
        sums = {s: sum(u.size for u in self.stores if u.state == s) for s in (FINISHED, UNFINISHED, DAMAGED)}
        stores = [asdict(usage) | {"bytes": usage.size} for usage in self.stores]
        total = {"bytes": sum(sums.values()) + self.litter, **sums, "litter": self.litter}
        return {"stores": stores, "total": total, "free": self.free}


def remove_store(path: Path) -> int:
    """Removes a store, finished, unfinished or damaged, and what is left of its building; returns the bytes of that.

    path: its folder; with `.partial`, or where there is no finished one, the unfinished store.

    Raises `StoreBusy`, naming the process, while somebody is writing it; `StoreError` if there is no store, if the folder
    holds anything that no store has, or if the disk refuses.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (`.` has no name; a link in place of a store stays one)
    if not path.name:
        raise StoreError(
            "There is no feature store here.", where=path, remedy="See `tosca cache ls` for those there are."
        )
    store = path.with_name(path.name.removesuffix(".partial"))
    with storage(store.parent):
        folders = _folders(path, store)
        for folder in folders:
            _check_ours(folder)
        with _alone(store):
            size = sum(folder_size(folder) for folder in folders)
            removed = store.with_name(f".{store.name}.removed")
            for folder in folders:
                remove_tree(removed, *_CHECKSUM_FILES)  # of an earlier removal
                folder.rename(removed)
                sync_folder(store.parent)
                remove_tree(removed, *_CHECKSUM_FILES)
    return size


def prune(root: Path, *, older_than: float = 0.0, dry_run: bool = False) -> Pruned:
    """Removes unfinished stores and whatever killed processes have left below a root; finished stores stay.

    older_than: seconds; what was changed since then stays. dry_run: only say what would be removed.

    What somebody is writing, fetching or mending is never touched. Raises `StoreError` if the disk refuses.
    """
    found = [stale for stale in stale_files(Path(root)) if stale.age >= older_than]
    free, kept = [item for item in found if item.busy is None], [item for item in found if item.busy is not None]
    kept = [item for item in kept if item.kind != LOCK]  # a lock that is held is no leftover
    if dry_run:
        return Pruned(free, kept)
    removed = []
    for stale in free:
        if _removed_now(Path(root), stale):
            removed.append(stale)
        else:
            kept.append(stale)
    return Pruned(removed, kept)


def usage(root: Path) -> Usage:
    """How much room the stores below a root take; raises `StoreError` if the root cannot be read."""
    root = Path(root)
    with storage(root):
        if not root.is_dir():
            existing = next(folder for folder in root.absolute().parents if folder.exists())
            return Usage([], 0, shutil.disk_usage(existing).free)
        stores = [_usage(path, state) for path, state in _stores(root)]
        litter = sum(found.size for found in stale_files(root) if found.kind != UNFINISHED_STORE)
        return Usage(stores, litter, shutil.disk_usage(root).free)


def _folders(path: Path, store: Path) -> list[Path]:
    whole = [] if path.name.endswith(".partial") else [store]
    found = [folder for folder in (*whole, partial_path(store), compact_path(store)) if folder.is_dir()]
    if path.is_symlink():
        raise StoreError("This is a link to a folder.", where=path, remedy="Name the folder itself.")
    if not found:
        raise StoreError(
            "There is no feature store here.", where=path, remedy="See `tosca cache ls` for the stores there are."
        )
    return found


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


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Nobody else writes, mends or fetches the store meanwhile; raises `StoreBusy`, naming who does."""
    with registry_lock(store):
        lock = acquire_lock(store, None)
        try:
            yield
        finally:
            lock.release()


def _removed_now(root: Path, stale: StaleFile) -> bool:
    """Removes a leftover unless somebody has begun to write its store in the meantime."""
    with storage(stale.path):
        if stale.store is None:
            stale.remove()
            return True
        with registry_lock(root / stale.store):
            if busy(root / stale.store, but="deciding.") is not None:
                return False
            stale.remove()
            return True


def _stores(root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or not path.is_dir() or path.is_symlink():
            continue
        if path.name.endswith(".partial"):
            yield path, UNFINISHED
        elif any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY)):
            try:
                load_manifest(path / MANIFEST)
                yield path, FINISHED
            except StoreError:
                yield path, DAMAGED


def _usage(path: Path, state: str) -> StoreUsage:
    sizes = dict.fromkeys((*ARRAYS, ""), 0)
    blocks = 0
    for file in path.rglob("*"):
        try:
            found = file.lstat()
        except FileNotFoundError:
            continue
        if file.is_dir() and not file.is_symlink():
            continue
        parts = file.relative_to(path).parts
        sizes[parts[1] if len(parts) > 2 and parts[1] in ARRAYS else ""] += found.st_size
        blocks += found.st_blocks * 512
    features, views = sizes["features"], sizes["views"]
    return StoreUsage(path.name, state, features, views, sum(sizes.values()) - features - views, blocks)
