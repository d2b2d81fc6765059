"""Who runs a cell, and whether that process still lives, however it died.

On one host a process is known by its number and the moment it started, so that another process that was given a dead
one's number is not taken for it. From elsewhere (another host, another container) nothing can be seen of a process, so
there it lives as long as it goes on saying so.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tosca_cache.processes import is_alive, this_place

STALE_AFTER = 120.0  # seconds of silence after which an owner that cannot be seen from here counts as dead

_here: set[str] = set()  # owners in this process that have not left; one process may use a ledger several times


@dataclass(frozen=True)
class Owner:
    """One use of a ledger by one process.

    id: random, hex.
    host: name of the machine, for people.
    place: within which process numbers mean something: host, its boot, its process namespace.
    pid, started: the process; `started` is opaque and only compared.
    beat: when the owner last said that it lives, seconds since 1970 by its own clock.
    """

    id: str
    host: str
    place: str
    pid: int
    started: str
    beat: float

    @classmethod
    def enter(cls) -> Owner:
        """A new owner in this process; it lives until it leaves or the process ends."""
        pid = os.getpid()
        owner = cls(uuid.uuid4().hex, socket.gethostname(), this_place(), pid, start_of(pid) or "", time.time())
        _here.add(owner.id)
        return owner

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Owner:
        """The owner of a row of the table; raises `ValueError` for values of other types."""
        kinds = (str, str, str, int, str, float)
        if any(type(value) is not kind for value, kind in zip(row, kinds, strict=True)):
            raise ValueError("no owner")
        return cls(*row)

    def leave(self) -> None:
        """Says that this owner of this process is done; does no harm the second time."""
        _here.discard(self.id)

    def alive(self, stale_after: float = STALE_AFTER) -> bool:
        """Whether the owner may still be running its cells.

        Arguments:
            stale_after: seconds without a beat after which an owner that cannot be seen is dead. The clocks of the hosts
                must agree to well within this time.
        """
        if self.place == this_place():
            started = start_of(self.pid)
            if started != "":
                return started == self.started and (self.pid != os.getpid() or self.id in _here)
        return time.time() - self.beat <= stale_after


def start_of(pid: int) -> str | None:
    """When a process of this place started, as an opaque text; None if there is none, "" if it may not be seen."""
    return _start_in_proc(pid) if sys.platform == "linux" else _start_from_ps(pid)


def _start_in_proc(pid: int) -> str | None:
    """Clock ticks from boot to the process's start (field 22 of stat, proc(5)); None for one that only awaits burial."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # /proc may hide other users' processes
        return "" if is_alive(pid) else None
    fields = stat.rpartition(")")[2].split()  # the name before it may contain anything
    return None if fields[0] in "ZX" else fields[19]


def _start_from_ps(pid: int) -> str | None:
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
