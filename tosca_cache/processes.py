"""Processes of this machine by their number."""

from __future__ import annotations

import os


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
