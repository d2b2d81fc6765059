"""Tests that pull no plug need not wait for the disk, nor start the threads that wait for it."""

import os

from tosca_cache.store import disk


def without_waiting(patch):
    """Until `patch` (a pytest.MonkeyPatch) is undone, fsync does nothing, and many files are waited for in turn."""
    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(disk, "in_threads", in_turn)


def in_turn(work, items, count, then=lambda item, made: None):
    """What `disk.in_threads` does, without threads: they make no difference here, but to start them takes its time."""
    for item in items:
        then(item, work(item))
