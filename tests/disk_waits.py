"""Tests that pull no plug need not wait for the disk, nor start the threads that wait for it."""

import os


def without_waiting(patch):
    """Until `patch` (a pytest.MonkeyPatch) is undone, fsync does nothing, and many files are waited for in turn."""
    patch.setattr(os, "fsync", lambda descriptor: None)
    for module in ("disk", "journal", "sync"):
        patch.setattr(f"tosca_cache.store.{module}.sync_all", sync_in_turn)


def sync_in_turn(paths):
    """What `disk.sync_all` does, without threads: they make no difference here, but to start them takes its time."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
