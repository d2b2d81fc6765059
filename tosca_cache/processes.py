"""Processes of this machine by their number, and what dead ones have left in its memory."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tosca_cache.files import Limit, read_limited

MEMORY = Path("/dev/shm")  # where Linux keeps named semaphores
_MARK = re.compile(r"tosca-workers-([0-9]+)")


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number, whoever it belongs to; True for numbers that say nothing of it."""
    if pid <= 0:  # these would mean groups of processes
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def this_place() -> str:
    """Where the numbers of this process's neighbours mean the same as here."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux: a host has one set of process numbers, and starting times tell its boots apart
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


@contextmanager
def tidied_memory() -> Iterator[None]:
    """Within it this process starts workers; what an earlier one left that was killed with all its helpers is removed.

    Who starts workers says so in a file, because other programs' semaphores look the same, and because in another
    container that shares the memory the same numbers mean other processes.
    """
    if not os.access(MEMORY, os.W_OK):  # not Linux: names of semaphores go with their processes
        yield
        return
    _remove_left_over()
    mark = MEMORY / f"tosca-workers-{os.getpid()}"
    with suppress(OSError):
        mark.write_text(this_place(), encoding="utf-8")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _remove_left_over() -> None:
    for mark in MEMORY.glob("tosca-workers-*"):
        found = _MARK.fullmatch(mark.name)
        with suppress(OSError):  # it is somebody else's, or another process is at it
            if found is None or mark.lstat().st_uid != os.getuid() or mark.is_symlink() or is_alive(int(found[1])):
                continue
            if read_limited(mark, Limit.NOTE) == this_place().encode():
                for path in MEMORY.glob(f"sem.loky-{found[1]}-*"):
                    path.unlink()
                mark.unlink()
