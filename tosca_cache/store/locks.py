"""Write locks of a store: one for the whole store, or one per part.

The locks lie beside the store and not in it, because its folder is renamed and removed while they are held:

    .NAME.lock                  all of it
    .NAME.part-I-of-N.lock      part I of N; part 0: who shares the parts out to workers
    .NAME.deciding.lock         held for a moment by whoever looks at the others and then takes one of them

Whoever begins a store, or throws one away, does so while deciding. So of several processes that come at the same time one
writes the plan, and the others find it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, read_limited
from tosca_cache.store.disk import storage
from tosca_cache.store.file_lock import FileLock, owner
from tosca_cache.store.layout import lock_path
from tosca_cache.store.parts import Part

SHOWN = 5  # writers that a message names


class StoreBusy(StoreError):
    """Another process is writing what was to be written."""


@contextmanager
def registry_lock(store: Path) -> Iterator[None]:
    """Keeps everybody else from taking a lock of this store, and from beginning it; waits for its turn."""
    lock = FileLock.acquire(lock_path(store, "deciding."), wait=True)
    try:
        yield
    finally:
        lock.release()


def acquire_lock(store: Path, part: Part | None) -> FileLock:
    """Takes all of a store, or a part, for this process; only within `deciding`.

    Raises `StoreBusy`, naming the processes, if all of it or this part is being written, or parts of another number.
    """
    found = writers(store)
    in_the_way = [(other, who) for other, who in found if _exclude(part, other)]
    if in_the_way:
        raise _busy(store, part, in_the_way)
    return FileLock.acquire(_path(store, part))


@contextmanager
def sharing_out(store: Path, count: int) -> Iterator[FileLock]:
    """Held by who lets workers write the `count` parts of a store; the workers can see the lock's file, and what it says.

    Raises `StoreBusy` like `claim`.
    """
    with registry_lock(store):
        lock = acquire_lock(store, Part(count, 0))
    try:
        yield lock
    finally:
        lock.release()


def is_shared_out(store: Path, count: int, text: str) -> bool:
    """Whether the lock of `sharing_out` is there for this process, too, says `text`, and is still held."""
    path = _path(store, Part(count, 0))
    with registry_lock(store), storage(path):
        return path.exists() and read_limited(path, Limit.NOTE) == text.encode() and owner(path) is not None


def writers(store: Path) -> list[tuple[Part | None, str]]:
    """Who is writing a store: (part, or None for all of it; who), sorted; only within `deciding`."""
    pattern = re.compile(rf"\.{re.escape(store.name)}\.part-[0-9]+-of-[0-9]+\.lock")
    with storage(store.parent):
        names = [path.name for path in store.parent.iterdir() if pattern.fullmatch(path.name)]
    parts = sorted(part for name in names if (part := Part.named_in(name.removeprefix(f".{store.name}"))) is not None)
    found: list[tuple[Part | None, str]] = []
    for part in (None, *parts):
        who = owner(_path(store, part))
        if who is not None:
            found.append((part, who))
    return found


def wait_until_free(store: Path, part: Part | None, pause: float = 0.5) -> None:
    """Returns as soon as all of a store, or a part, could be claimed; somebody else may be quicker then."""
    while True:
        with registry_lock(store):
            if not any(_exclude(part, other) for other, _ in writers(store)):
                return
        time.sleep(pause)


def _path(store: Path, part: Part | None) -> Path:
    return lock_path(store, "" if part is None else f"{part.name}.")


def _exclude(mine: Part | None, other: Part | None) -> bool:
    return mine is None or other is None or mine.count != other.count or mine == other


def _busy(store: Path, mine: Part | None, others: list[tuple[Part | None, str]]) -> StoreBusy:
    remedy = "Wait until it has finished or stop it, then run the same command again."
    part, who = others[0]
    if part is None:
        return StoreBusy(f"Another process is writing this store: {who}.", where=store, remedy=remedy)
    if part == mine:
        return StoreBusy(f"Another process is writing {part.label} of this store: {who}.", where=store, remedy=remedy)
    lines = [f"    {other.label}: {who}" for other, who in others[:SHOWN] if other is not None]
    lines += [f"    and {len(others) - SHOWN} more"] if len(others) > SHOWN else []
    remedy = "Wait until they have finished or stop them, then run the same command again."
    if mine is not None:
        remedy = f"{remedy[:-1]}; or take one of these parts, --part I/{part.count}."
    return StoreBusy("Parts of this store are being written:\n" + "\n".join(lines), where=store, remedy=remedy)
