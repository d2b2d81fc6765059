"""One writer a store: a lock that the operating system takes back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.store.disk import storage
from tosca_cache.store.layout import lock_path


class WriterLock:
    """An exclusive flock on a file beside the store, which also says who holds it.

    It lies beside the store and not in it, because the store's folder is renamed and removed while the lock is held.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self._announced = False
        _held.add(self)

    @classmethod
    def acquire(cls, store: Path) -> WriterLock:
        """Takes the lock of a store at once, or raises `StoreError` naming the process that holds it."""
        path = lock_path(store)
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                lock = cls(path, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if lock._is_current():
                        lock._say_who()
                        return lock
                except BlockingIOError as error:
                    raise _busy(store, os.pread(descriptor, 4096, 0)) from error
                finally:
                    if not lock._announced:
                        lock._forget()

    def release(self) -> None:
        """Gives the lock back; does nothing in a forked child, and the second time."""
        if self._descriptor is not None:
            try:
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
        os.ftruncate(self._descriptor, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
        self._announced = True

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _busy(store: Path, holder: bytes) -> StoreError:
    try:
        said = json.loads(holder)
        who = f"process {int(said['pid'])} on {said['host']}, since {said['since']}"
    except (ValueError, KeyError, TypeError):
        who = "a process that has not yet said who it is"
    return StoreError(
        f"Another process is writing this store: {who}.",
        where=store,
        remedy="Wait until it has finished or stop it, then run the same command again.",
    )


# A forked child (a data loader's worker, say) shares the lock's file and would hold the lock after its parent's death.
_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)
