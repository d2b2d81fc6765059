"""Files that are on the disk before anything says so, and failures of the file system in words."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import StoreError

Bytes = bytes | bytearray | memoryview

_RESUME = "then run the same command again: finished shards are kept"
_REMEDIES = {
    errno.ENOSPC: ("The disk is full.", f"Free space on this disk, or choose another folder with --root; {_RESUME}."),
    errno.EDQUOT: ("Your quota is used up.", f"Free space, or choose another folder with --root; {_RESUME}."),
    errno.EROFS: ("The file system is read-only.", "Choose a folder on a writable file system with --root."),
    errno.EACCES: ("You may not write or read here.", "Change the permissions, or choose another folder with --root."),
    errno.EPERM: ("You may not write or read here.", "Change the permissions, or choose another folder with --root."),
    errno.ENOTDIR: ("A part of this path is a file, not a folder.", "Choose another folder with --root."),
    errno.EEXIST: ("A file is in the way.", "Move it, or choose another folder with --root."),
    errno.ENOTEMPTY: ("A folder is in the way.", "Move it, or choose another folder with --root."),
    errno.ENAMETOOLONG: ("This path is too long.", "Choose a folder with a shorter path with --root."),
}


@dataclass(frozen=True)
class ObjectRecord:
    """What an object of a store must be: its bytes and their SHA-256."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: Bytes) -> ObjectRecord:
        """The record of these bytes."""
        return cls(memoryview(data).nbytes, hashlib.sha256(data).hexdigest())


@contextmanager
def storage(where: Path) -> Iterator[None]:
    """Turns a failure of the file system into a `StoreError` that says what to do about it."""
    try:
        yield
    except OSError as failure:
        problem, remedy = _REMEDIES.get(failure.errno or 0, ("The file system refuses.", f"Mend it, {_RESUME}."))
        cause = failure.strerror or str(failure)
        raise StoreError(f"{problem} ({cause})", where=failure.filename or where, remedy=remedy) from failure


def temporary_path(path: Path) -> Path:
    """Where a file is written before it gets its name. It follows from the name, so that a killed writer's is reused."""
    return path.with_name(f".{path.name}.tmp")


def write_whole(path: Path, data: Bytes) -> None:
    """Writes all of these bytes, or nothing: a file that could not be finished is removed."""
    try:
        with path.open("wb", buffering=0) as file:
            left = memoryview(data).cast("B")
            while left.nbytes:
                left = left[file.write(left) :]
    except OSError:
        path.unlink(missing_ok=True)
        raise


def write_durably(path: Path, data: Bytes) -> None:
    """Writes a file and waits until it, whole and under its name, is on the disk; an old one stays until then."""
    temporary = temporary_path(path)
    write_whole(temporary, data)
    _sync(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_all(paths: Iterable[Path]) -> None:
    """Waits until files or folders are on the disk, all at once: file systems join what waits together."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(_sync, paths):  # raises what a thread raised
            pass


def sync_folder(folder: Path) -> None:
    """Makes renames, creations and removals in a folder survive a loss of power."""
    _sync(folder)


def remove_tree(folder: Path, *first: str) -> None:
    """Removes a folder if it exists; the files that vouch for its content go before the content."""
    if folder.exists():
        for name in first:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        shutil.rmtree(folder)
        sync_folder(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def regular_size(path: Path) -> int | None:
    """Bytes of a regular file; None where there is none, or a link, which could lead out of the store."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
