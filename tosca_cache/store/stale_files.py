"""What lies in a root besides finished stores: stores that are being built, and what killed processes left.

NAME.partial                      an unfinished store
.NAME.compact .NAME.fetching      a store on its way: being built a second time; being fetched
.NAME.removed .NAME.old           one that is being removed, or replaced
.NAME.*lock                       a lock; its file alone says nothing, it counts while somebody holds it
.*.tmp                            a file that has not got its name yet
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.store.disk import remove_tree, storage
from tosca_cache.store.file_lock import owner_now
from tosca_cache.store.layout import compact_path, partial_path
from tosca_cache.store.locks import acquire_lock, registry_lock
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN

UNFINISHED, IN_TRANSIT, LOCK, TEMPORARY = "unfinished store", "remains of a store", "lock of nobody", "temporary file"
YOUNG = 3600.0  # seconds; a temporary file of that age may still be somebody's
_IN_TRANSIT = re.compile(r"\.(.+)\.(compact|fetching|removed|old)")
_LOCK = re.compile(r"\.(.+?)\.((part-[0-9]+-of-[0-9]+|deciding|fetching)\.)?lock")
_CHECKSUM_FILES = (MANIFEST, MANIFEST_COPY, PLAN)


@dataclass(frozen=True)
class StaleFile:
    """Something that no finished store needs.

    kind: `UNFINISHED`, `WAY`, `LOCK` or `TEMPORARY`. store: the name of the store that it belongs to; None for a file of
    none. size: bytes. age: seconds since it was last changed. busy: who is writing that store; None if nobody is.
    """

    path: Path
    kind: str
    store: str | None
    size: int
    age: float
    busy: str | None

    def remove(self) -> None:
        """Removes it; what vouches for the content goes first."""
        if self.path.is_dir():
            remove_tree(self.path, *_CHECKSUM_FILES)
        else:
            self.path.unlink(missing_ok=True)


def stale_files(root: Path) -> list[StaleFile]:
    """Everything of that kind below a root, by path; empty if the root does not exist."""
    root = Path(root)
    with storage(root):
        return sorted(_find(root), key=lambda found: found.path) if root.is_dir() else []


def sweep_up(path: Path) -> None:
    """Removes what a crash left of the building of a finished store, unless somebody is at it, or it cannot be removed."""
    remains = [folder for folder in (partial_path(path), compact_path(path)) if folder.exists()]
    if not remains or not (path / MANIFEST).exists():
        return
    with suppress(StoreError), registry_lock(path):
        lock = acquire_lock(path, None)
        try:
            with storage(path):
                for folder in remains:
                    remove_tree(folder, *_CHECKSUM_FILES)
        finally:
            lock.release()


def busy(store: Path, *, but: str | None = None) -> str | None:
    """Who is writing, fetching or mending a store; None if nobody is. Leaves every lock as it is.

    but: the kind of lock that does not count, because the caller holds it.
    """
    with storage(store.parent):
        for path in sorted(store.parent.iterdir()):
            found = _LOCK.fullmatch(path.name)
            if found is None or found[1] != store.name or (but is not None and found[2] == but):
                continue
            who = owner_now(path)
            if who is not None:
                return who
    return None


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder, links not followed; what vanishes in between counts for nothing."""
    return sum(_size(path) for path in folder.rglob("*"))


@dataclass(frozen=True)
class _Place:
    """Who is busy below a root, asked once a store."""

    root: Path
    known: dict[str, str | None]

    def who(self, store: str | None) -> str | None:
        """Who is writing a store of this name; None if nobody is, or there is no name."""
        if store is not None and store not in self.known:
            self.known[store] = busy(self.root / store)
        return None if store is None else self.known[store]


def _find(root: Path) -> Iterator[StaleFile]:
    place = _Place(root, {})
    for path in sorted(root.iterdir()):
        kind, store = _kind(path)
        if kind is not None:
            yield _leftover(path, kind, store, place)
        elif path.is_dir() and not path.is_symlink() and (path / MANIFEST).exists():
            for temporary in sorted(path.rglob(".*.tmp")):
                yield _leftover(temporary, TEMPORARY, path.name, place)


def _kind(path: Path) -> tuple[str | None, str | None]:
    if path.is_symlink():
        return None, None
    if path.is_dir():
        if path.name.endswith(".partial") and not path.name.startswith("."):
            return UNFINISHED, path.name.removesuffix(".partial")
        found = _IN_TRANSIT.fullmatch(path.name)
        return (None, None) if found is None else (IN_TRANSIT, found[1])
    if found := _LOCK.fullmatch(path.name):
        return LOCK, found[1]
    return (TEMPORARY, None) if re.fullmatch(r"\..+\.tmp", path.name) else (None, None)


def _leftover(path: Path, kind: str, store: str | None, place: _Place) -> StaleFile:
    size = folder_size(path) if path.is_dir() else _size(path)
    age = max(0.0, time.time() - _changed(path))
    who = place.who(store)
    if kind == TEMPORARY and store is None and age < YOUNG:
        who = "somebody, perhaps: it is young"
    return StaleFile(path, kind, store, size, age, who)


def _changed(path: Path) -> float:
    """When something in a folder was last added, or a file last written."""
    inside = [found for found in path.iterdir() if found.is_file()] if path.is_dir() else []
    times = []
    for found in (path, *inside):
        with suppress(FileNotFoundError):
            times.append(found.lstat().st_mtime)
    return max(times, default=time.time())


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return 0 if path.is_dir() and not path.is_symlink() else found.st_size
