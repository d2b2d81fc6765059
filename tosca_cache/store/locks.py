"""Write locks of a store: exclusive for the whole store, or one lock per part.

They are flock locks on files of their own, which the operating system takes back when their owner dies, however it dies.
They lie beside the store and not in it, because its folder is renamed and removed while they are held:

    .NAME.lock                  all of it
    .NAME.part-I-of-N.lock      part I of N; part 0: who shares the parts out to workers
    .NAME.deciding.lock         held for a moment by whoever looks at the others and then takes one of them

Whoever begins a store, or throws one away, does so while deciding. So of several processes that come at the same time one
writes the plan, and the others find it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import strict_json
from tosca_cache.store.disk import make_folder, storage

T = TypeVar("T")
_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class StoreBusy(StoreError):
    """Another process is writing what was to be written."""


@dataclass(frozen=True, order=True)
class Part:
    """Part `index` of `count`, from 1: every `count`-th shard, so that parts are about equally long.

    Index 0 has no shards: it stands for who shares all parts out to workers.
    """

    count: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Reads `i/n`; raises `UsageError` unless 1 <= i <= n."""
        found = _WRITTEN.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"{text!r} is not a part: i/n with i from 1 to n",
                where="--part",
                remedy="give for example --part 1/4, and in three more processes 2/4, 3/4 and 4/4",
            )
        return cls(int(found[2]), int(found[1]))

    @property
    def name(self) -> str:
        """As it is in names of files."""
        return f"part-{self.index}-of-{self.count}"

    @property
    def label(self) -> str:
        """As it is in messages."""
        return f"part {self.index}/{self.count}" if self.index else f"{self.count} parts"

    def of(self, shards: Sequence[T]) -> list[T]:
        """The shards of this part; the parts 1 to n have all of them, and no two have one."""
        return list(shards[self.index - 1 :: self.count]) if self.index else []


class FileLock:
    """An exclusive flock on a file, which also says who holds it; waits for it. `StoreError` if the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        with storage(path):
            make_folder(path.parent)
            while self._descriptor is None:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                    if _is_current(self._descriptor, path):
                        _say_who(self._descriptor)
                    else:
                        self._forget()
                except BaseException:
                    self._forget()
                    raise
        _held.add(self)

    def release(self) -> None:
        """Gives the lock back; does nothing in a forked child, and the second time."""
        if self._descriptor is not None:
            try:
                with suppress(OSError):  # a file that stays does no harm, a lock that is still held does
                    self.path.unlink(missing_ok=True)
            finally:
                self._forget()

    @property
    def held(self) -> bool:
        """Whether this process still has the lock."""
        return self._descriptor is not None

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one under this name: its last owner may just have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _say_who(descriptor: int) -> None:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(who).encode(), 0)


# A forked child (a data loader's worker, say) shares the lock's file and would hold the lock after its parent's death.
_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


@contextmanager
def acquiring(store: Path, part: Part | None = None) -> Iterator[FileLock]:
    """Takes all of a store, or a part, for this process, which keeps it after the block unless that raises.

    Within the block nobody else takes anything of it. Raises `StoreBusy`, naming the process, if all of it or this part is
    being written, or parts of another number.
    """
    lock = None
    try:
        deciding = FileLock(store.with_name(f".{store.name}.deciding.lock"))
        try:
            with storage(store.parent):
                lock = _take(store, part)
            yield lock
        finally:
            deciding.release()
    except BaseException:
        if lock is not None:
            lock.release()
        raise


@contextmanager
def exclusive(store: Path, part: Part | None = None) -> Iterator[None]:
    """Nobody else writes, repairs, fetches or removes the store meanwhile; raises `StoreBusy` if somebody does already."""
    with acquiring(store, part) as lock:
        pass
    try:
        yield
    finally:
        lock.release()


def _take(store: Path, mine: Part | None) -> FileLock:
    """Shares each lock there is for a moment, which nobody notices, to see who has it; then takes one's own."""
    others = _parts_with_a_file(store)
    for other in (None, *others):
        apart = mine is not None and other is not None and mine.count == other.count and mine != other
        if not apart and (who := _owner(_path(store, other))):
            what = "this store" if other is None else f"{other.label} of this store"
            raise StoreBusy(
                f"Another process is writing {what}: {who}.",
                where=store,
                remedy="Wait until it has finished or stop it, then run the same command again.",
            )
    for other in others if mine is None else ():
        _path(store, other).unlink(missing_ok=True)  # of the dead
    return FileLock(_path(store, mine))


def _parts_with_a_file(store: Path) -> list[Part]:
    pattern = re.compile(rf"\.{re.escape(store.name)}\.part-([0-9]{{1,9}})-of-([0-9]{{1,9}})\.lock")
    names = [pattern.fullmatch(file.name) for file in store.parent.iterdir()]
    return sorted(Part(int(name[2]), int(name[1])) for name in names if name is not None)


def _path(store: Path, part: Part | None) -> Path:
    return store.with_name(f".{store.name}.lock" if part is None else f".{store.name}.{part.name}.lock")


def _owner(path: Path) -> str | None:
    """Who holds the lock on a file; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        try:
            facts = strict_json(os.pread(descriptor, 4096, 0))
            return f"process {int(facts['pid'])} on {facts['host']}, since {facts['since']}"
        except (ValueError, KeyError, TypeError):
            return "a process that has not yet said who it is"
    finally:
        os.close(descriptor)
