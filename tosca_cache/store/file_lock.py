"""A lock on a file that the operating system takes back when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tosca_cache.files import strict_json
from tosca_cache.store.disk import make_folder, storage


class LockHeld(Exception):
    """Somebody else has the lock; the text says who."""


class FileLock:
    """An exclusive flock on a file of its own, which also says who holds it. Use `FileLock.acquire`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.text = ""  # what the file says while this process holds it
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def acquire(cls, path: Path, *, wait: bool = False) -> FileLock:
        """Takes the lock at once, or waits for it; raises `Held` if it is held, `StoreError` if the disk refuses."""
        with storage(path):
            make_folder(path.parent)
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                lock = cls(path, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                    if lock._is_current():
                        lock._say_who()
                        return lock
                except BlockingIOError as error:
                    raise LockHeld(_who(os.pread(descriptor, 4096, 0))) from error
                finally:
                    if not lock.text:
                        lock._forget()

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

    def _is_current(self) -> bool:
        """Whether the locked file is still the one under this name: its last holder may just have removed it."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def _say_who(self) -> None:
        assert self._descriptor is not None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)
        except OSError as error:
            # Who removes a store to make room must get its lock on a full disk, too; it is held, said or not.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        self.text = text

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def owner(path: Path) -> str | None:
    """Who holds the lock on a file; None if nobody does, and then the file is removed.

    Takes the lock for a moment, so it must not happen while somebody else may be taking it.
    """
    try:
        FileLock.acquire(path).release()
    except LockHeld as held:
        return str(held)
    return None


def owner_now(path: Path) -> str | None:
    """Who holds the lock on a file; None if nobody does. Leaves the file as it is.

    Shares the lock for a moment: somebody who takes it just then without waiting may be told that it is held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _who(os.pread(descriptor, 4096, 0))
    finally:
        os.close(descriptor)
    return None


def _who(said: bytes) -> str:
    try:
        facts = strict_json(said)
        return f"process {int(facts['pid'])} on {facts['host']}, since {facts['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not yet said who it is"


# A forked child (a data loader's worker, say) shares the lock's file and would hold the lock after its parent's death.
_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)
