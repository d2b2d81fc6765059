"""Who may write a remote store: one machine all of it, or several a part each, as `claims.py` has it for one machine.

An object store has no locks, so what is held is a lease: `.NAME.lock`, or `.NAME.part-I-of-N.lock`, an object that says who
made it and that its holder writes again every `RENEWED` seconds. A lease that has not been renewed for `STALE` seconds is
taken over, and so is at once one of a process of this very machine that is dead. Ages are differences of times that the
server gave to objects, so that clocks of machines play no part.

What it guarantees: where exclusive creation exists (AWS, moto, Google, recent MinIO, `memory://`) two that come at the same
time do not both get a lease that nobody holds. What it does not: taking over a stale lease is a write and then a look, so
of two that take over at the same moment both may believe that they hold it, until the first renewal, which comes after
`SETTLED` seconds; the same holds for servers that ignore exclusive creation. And a holder that is suspended for longer
than `STALE` seconds goes on until it renews. Whoever finds another's lease in its place stops before it writes anything
more. In between, two may have written objects of the same shard: a shard counts only with the digests that its
done-object or the manifest states, so at worst it is computed again, or a finished store fails its verification and is
fetched by nobody; it is never read as something that it is not.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.files import strict_json
from tosca_cache.processes import is_alive
from tosca_cache.store.claims import StoreBusy
from tosca_cache.store.parts import Part
from tosca_cache.store.remote.access import Access

RENEWED = 60.0  # seconds between two renewals
SETTLED = 2.0  # seconds until the first look at whether another one has written over the lease
STALE = 600.0  # seconds after which a lease that was not renewed is nobody's
MOST_BYTES = 4096


class Lease:
    """A held lease, renewed by a thread until `release`. Use `Lease.take`."""

    def __init__(self, access: Access, key: str) -> None:
        self.access, self.key = access, key
        self._since = _now()
        self._token = secrets.token_hex(8)
        self._lost: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(cls, access: Access, name: str, part: Part | None = None) -> Lease:
        """Takes a store, or a part; raises `StoreBusy`, naming pid and host, if somebody else has what excludes it."""
        lease = cls(access, lease_key(name, part))
        if not access.create(lease.key, lease._text()):
            who = holder(access, lease.key)
            if who is not None:
                raise _busy(access, name, part, who)
            access.write(lease.key, lease._text())
        lease._thread.start()
        try:
            if not lease._is_mine():
                raise _busy(access, name, part, lease._lost or "another process")
            for other in leases(access, name):
                if other != part and _exclude(part, other):
                    who = holder(access, lease_key(name, other))
                    if who is not None:
                        raise _busy(access, name, other, who)
                    access.remove(lease_key(name, other))
        except BaseException:
            lease.release()
            raise
        return lease

    def check(self) -> None:
        """Raises `StoreError` if the lease was lost: somebody else may be writing."""
        if self._lost is not None:
            raise StoreError(
                f"This process no longer holds the lease on the remote store: {self._lost}",
                where=self.access.where(self.key),
                remedy="Wait until nobody writes it, then run the same command again: what is done is kept.",
            )

    def release(self) -> None:
        """Gives the lease back; a lease that cannot be removed now becomes stale by itself."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(StoreError):
            if self._is_mine():
                self.access.remove(self.key)
        self._lost = "it was given back."

    def _keep(self) -> None:
        renewed, pause = time.monotonic(), SETTLED
        while not self._over.wait(pause):
            pause = RENEWED
            try:
                if not self._is_mine():
                    return
                self.access.write(self.key, self._text())
                renewed = time.monotonic()
            except StoreError as error:
                if time.monotonic() - renewed > STALE:
                    self._lost = f"it could not be renewed for {STALE:.0f} seconds. {error.problem}"
                    return

    def _is_mine(self) -> bool:
        found = _read(self.access, self.key)
        if found is not None and found.get("token") == self._token:
            return True
        self._lost = "it is gone." if found is None else f"{_who(found)} has it."
        return False

    def _text(self) -> bytes:
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": self._since, "renewed": _now()}
        return json.dumps(facts | {"machine": this_machine(), "token": self._token}).encode()


def lease_key(name: str, part: Part | None) -> str:
    """The object that a writer of a store, or of a part, holds."""
    return f".{name}.{'' if part is None else f'{part.name}.'}lock"


def leases(access: Access, name: str) -> list[Part | None]:
    """What of a store there are leases on, held or stale."""
    pattern = re.compile(rf"\.{re.escape(name)}\.(part-[0-9]+-of-[0-9]+\.)?lock")
    found = [match[1] for key in access.children("") if (match := pattern.fullmatch(key))]
    return [None if part is None else Part.named_in(part) for part in found]


def sweep(access: Access, name: str) -> None:
    """Removes what dead and stale holders have left of a store that nobody has to write any more."""
    for part in leases(access, name):
        if holder(access, lease_key(name, part)) is None:
            access.remove(lease_key(name, part))


def holder(access: Access, key: str) -> str | None:
    """Who holds a lease; None if it is gone or stale."""
    found, written = _read(access, key), access.modified(key)
    if found is None or written is None:
        return None
    if found.get("machine") == this_machine() and type(pid := found.get("pid")) is int and not is_alive(pid):
        return None
    probe = f"{key}.{secrets.token_hex(4)}.now"
    try:
        access.write(probe, b"now")
        now = access.modified(probe)
    finally:
        access.remove(probe)
    return None if now is None or (now - written).total_seconds() > STALE else _who(found)


def this_machine() -> str:
    """What process numbers of this machine, since it was started and within its container, have in common."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    with suppress(OSError):
        return f"{socket.gethostname()} {boot.read_text().strip()} {namespace.readlink()}"
    return secrets.token_hex(8)  # not to be told: nobody's process numbers are comparable


def _read(access: Access, key: str) -> dict[str, Any] | None:
    data = access.read(key, 0, MOST_BYTES)
    if data is None:
        return None
    try:
        found = strict_json(data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _who(found: dict[str, Any]) -> str:
    try:
        return f"process {int(found['pid'])} on {str(found['host'])[:100]}, since {str(found['since'])[:40]}"
    except (ValueError, KeyError, TypeError):
        return "a process that does not say who it is"


def _exclude(mine: Part | None, other: Part | None) -> bool:
    return mine is None or other is None or mine.count != other.count or mine == other


def _busy(access: Access, name: str, part: Part | None, who: str) -> StoreBusy:
    what = "this store" if part is None else f"{part.label} of this store"
    return StoreBusy(
        f"Another process is writing {what}: {who}.",
        where=access.where(name),
        remedy="Wait until it has finished or stop it, then run the same command again; the lease of one that died on "
        f"another machine runs out after {STALE / 60:.0f} minutes.",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
