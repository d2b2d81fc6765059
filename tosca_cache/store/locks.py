"""Write locks of a store: exclusive for the whole store, or for the shards of a part.

They are locks on ranges of one file, `.NAME.lock`, which belong to the open file (`F_OFD_SETLK`): the operating system
takes them back when their owner dies, however it dies. The file lies beside the store and not in it, because the store's
folder is renamed and removed while they are held.

    byte 0                who shares parts out to workers
    byte 1                shared by parts that have no shards
    byte 2 + K            shard K
    all of these          who writes, repairs or fetches the whole store
    the byte after them   the gate: held for a moment by whoever takes or gives up one of the others

Whoever begins a store, or throws one away, still holds the gate. So of several processes that come at the same time one
writes the plan, and the others find it.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store.disk import make_folder, storage
from tosca_cache.store.layout import Shard

T = TypeVar("T")
_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid
_GATE = 1 << 40  # the byte after all others
_NOTE = 256  # bytes for each byte that is locked, in which its owner says who it is


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
    def label(self) -> str:
        """As it is in messages."""
        return f"part {self.index}/{self.count}" if self.index else f"{self.count} parts"

    def of(self, shards: Sequence[T]) -> list[T]:
        """The shards of this part; the parts 1 to n have all of them, and no two have one."""
        return list(shards[self.index - 1 :: self.count]) if self.index else []


class FileLock:
    """The gate of a lock file, for which it waits, and then ranges of the file; `StoreError` if the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path, self._descriptor = path, -1
        with storage(path):
            make_folder(path.parent)
            while not self.held:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                try:
                    self._ask(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _GATE)
                    if not self._is_current():
                        self._forget()
                except BaseException:
                    self._forget()
                    raise
        _open.add(self)

    @property
    def held(self) -> bool:
        """Whether this process still has the lock."""
        return self._descriptor >= 0

    def take(self, start: int, length: int, what: str, *, shared: bool = False) -> str | None:
        """Takes a range without waiting; if somebody has some of it, returns what that one has said: `what`, and who."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        with storage(self.path):
            while True:
                try:
                    self._ask(fcntl.F_OFD_SETLK, kind, start, length)
                    break
                except (BlockingIOError, PermissionError):  # POSIX allows both
                    found, _, place, _, _ = self._ask(fcntl.F_OFD_GETLK, kind, start, length)
                if found != fcntl.F_UNLCK:  # else its owner has just died
                    said = os.pread(self._descriptor, _NOTE, place * _NOTE).rstrip(b"\0").decode(errors="replace")
                    return ascii(said)[1:-1] or "it, and has not yet said who it is"
            since = datetime.now(UTC).isoformat(timespec="seconds")
            note = f"{what}: process {os.getpid()} on {socket.gethostname()}, since {since}".encode()[:_NOTE]
            os.pwrite(self._descriptor, note.ljust(_NOTE, b"\0"), start * _NOTE)
        return None

    def leave_gate(self) -> None:
        """Lets others take what is free."""
        self._ask(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _GATE)

    def release(self) -> None:
        """Gives everything back, and removes the file if nobody else has any of it; does nothing in a forked child."""
        if self.held:
            try:
                with suppress(OSError):  # a file that stays does no harm, a lock that is still held does
                    self._ask(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _GATE)
                    self._ask(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 0, _GATE)
                    self.path.unlink(missing_ok=True)
            finally:
                self._forget()

    def _ask(self, command: int, kind: int, start: int, length: int = 1) -> tuple[int, ...]:
        asked = struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
        return struct.unpack(_FLOCK, fcntl.fcntl(self._descriptor, command, asked))

    def _is_current(self) -> bool:
        """Whether the file is still the one under its name: its last owner may just have removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def _forget(self) -> None:
        if self.held:
            os.close(self._descriptor)
            self._descriptor = -1


# A forked child (a data loader's worker, say) shares the open file and would hold the lock after its parent's death.
_open: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_open):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


@contextmanager
def acquiring(store: Path, part: Part | None = None, shards: Sequence[Shard] = ()) -> Iterator[FileLock]:
    """Takes all of a store, or a part, for this process, which keeps it after the block unless that raises.

    Within the block nobody else takes anything of it. shards: all of the store's, if it is a part.

    Raises `StoreBusy`, naming the process, if some of it is being written.
    """
    lock = FileLock(store.with_name(f".{store.name}.lock"))
    try:
        places, what = [(0, _GATE)], "this store"
        if part is not None:
            places = [(2 + number, 1) for number in part.of(range(len(shards)))] or [(min(part.index, 1), 1)]
            what = f"{part.label} of this store"
        for start, length in places:
            if other := lock.take(start, length, what, shared=start == 1):
                raise StoreBusy(
                    f"Another process is writing {other}.",
                    where=store,
                    remedy="Wait until it has finished or stop it, then run the same command again.",
                )
        yield lock
        lock.leave_gate()
    except BaseException:
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
