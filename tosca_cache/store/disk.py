"""Files that are on the disk before anything says so, and failures of the file system in words."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tosca_cache.errors import StoreError
from tosca_cache.files import file_errors

A = TypeVar("A")
B = TypeVar("B")
Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class ObjectRecord:
    """What an object of a store must be: its bytes and their SHA-256."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: Bytes) -> ObjectRecord:
        """The record of these bytes."""
        return cls(memoryview(data).nbytes, hashlib.sha256(data).hexdigest())

    def fits(self, path: Path) -> bool:
        """Whether a regular file has so many bytes and this digest."""
        return regular_size(path) == self.size and ObjectRecord.of(path.read_bytes()) == self


def storage(where: Path) -> AbstractContextManager[None]:
    """Turns a failure of the file system into a `StoreError` that says what to do about it."""
    resume = "then run the same command again: finished shards are kept"
    return file_errors(where, StoreError, option="--root", then=resume)


def repair_hint(folder: Path) -> str:
    """What to do about a store, finished or not, that is damaged."""
    if folder.name.endswith(".partial"):
        return "Throw the unfinished store away: run the `tosca extract` command that began it with --restart."
    return f"Mend it: `tosca cache verify {shlex.quote(str(folder))} --repair`; or remove it and run `tosca extract` again."


def write_whole(path: Path, data: Bytes) -> None:
    """Writes all of these bytes, or nothing: a file that could not be finished is removed."""
    try:
        path.write_bytes(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def write_durably(files: Mapping[Path, Bytes]) -> None:
    """Writes files and waits until all of them, whole and under their names, are on the disk; old ones stay until then."""
    temporary = {path: path.with_name(f".{path.name}.tmp") for path in files}  # the same after a kill
    for path, data in files.items():
        write_whole(temporary[path], data)
    sync_all(temporary.values())
    for path in files:
        temporary[path].replace(path)
    sync_all({path.parent for path in files})


def sync_all(paths: Iterable[Path]) -> None:
    """Waits until files or folders are on the disk, all at once: file systems join what waits together."""
    waiting = list(paths)
    if len(waiting) == 1:
        return sync(waiting[0])
    in_threads(sync, waiting, 8)


def in_threads(
    work: Callable[[A], B], items: Iterable[A], count: int, then: Callable[[A, B], None] = lambda item, made: None
) -> None:
    """Does some work in threads, and then with each item and what was made of it, in order, what `then` does here.

    Raises what a thread or `then` raised; nothing that has not begun is begun after that.
    """
    waiting = list(items)
    with ThreadPoolExecutor(max(1, min(count, len(waiting)))) as pool:
        try:
            for item, made in zip(waiting, pool.map(work, waiting), strict=True):
                then(item, made)
        finally:
            pool.shutdown(cancel_futures=True)


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's renames, creations and removals, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents, where there are none, and waits until their names are on the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def remove_tree(folder: Path, *first: str) -> None:
    """Removes a folder if it exists; the files that vouch for its content go before the content."""
    if folder.exists():
        for name in first:
            (folder / name).unlink(missing_ok=True)
        sync(folder)
        shutil.rmtree(folder)
        sync(folder.parent)


def regular_size(path: Path) -> int | None:
    """Bytes of a regular file; None where there is none, or a link, which could lead out of the store."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def wrong_size(path: Path, size: int) -> str | None:
    """What is wrong with a file that must be a regular one of so many bytes; None if nothing is."""
    found = regular_size(path)
    if found is None:
        return "is no regular file, but a link, a folder or a device" if os.path.lexists(path) else "is missing"
    return None if found == size else f"has {found} bytes instead of {size}"
