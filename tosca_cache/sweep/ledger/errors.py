"""What can go wrong with a ledger's file, in words: SQLite's failures become `RunError`."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tosca_cache.errors import RunError
from tosca_cache.files import file_errors, no_inodes

BUSY_SECONDS = 60.0  # how long to wait for another process's transaction; each takes milliseconds
OPTION = "--ledger"


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turns what a user can mend of SQLite's failures into a `RunError` that says how; bugs stay what they are."""
    try:
        yield
    except sqlite3.Error as failure:
        name = error_name(failure)
        error = _content_error(name, path, failure) or _system_error(name, path, failure)
        if error is None:
            raise
        raise error from failure


def error_name(failure: sqlite3.Error) -> str:
    """SQLite's name of a failure, such as SQLITE_BUSY; empty for one that Python raised itself."""
    return getattr(failure, "sqlite_errorname", "")


def not_a_ledger(path: Path) -> RunError:
    """The error for a file that is something else."""
    remedy = f"Choose another file with {OPTION}; this one is left as it is."
    return RunError("This file is not a sweep ledger.", where=path, remedy=remedy)


def damaged(path: Path) -> RunError:
    """The error for a ledger whose content does not hold together."""
    remedy = "Put back a copy of it, or move it away and run the same command again: all its cells run anew."
    return RunError("This ledger is damaged.", where=path, remedy=remedy)


def other_schema(path: Path, found: str, known: int) -> RunError:
    """The error for a ledger of a newer (or unknown) version."""
    return RunError(
        f"This ledger has the format {found}; this version of tosca_cache knows format {known}.",
        where=path,
        remedy=f"Use the version of tosca_cache that made it (a newer one?), or choose another file with {OPTION}.",
    )


def refusal_code(path: Path) -> int:
    """Why a file cannot be written: its file system, or the permissions."""
    read_only = path.parent.exists() and os.statvfs(path.parent).f_flag & os.ST_RDONLY
    return errno.EROFS if read_only else errno.EACCES


def _content_error(name: str, path: Path, failure: sqlite3.Error) -> RunError | None:
    if name == "SQLITE_NOTADB":
        return not_a_ledger(path)
    # A text that is no UTF-8 is Python's own complaint and has no name.
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_TOOBIG")) or (not name and "UTF-8" in str(failure)):
        return damaged(path)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return RunError(
            f"Another process has kept this ledger locked for {BUSY_SECONDS:.0f} s.",
            where=path,
            remedy="Close what holds it open (a database browser?), then run the same command again.",
        )
    return None


def _system_error(name: str, path: Path, failure: sqlite3.Error) -> RunError | None:
    """The words that failures of the file system have everywhere in the project."""
    if name == "SQLITE_FULL":
        code = errno.ENOSPC
    elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        code = errno.ENOSPC if no_inodes(path) else refusal_code(path)
    elif name.startswith(("SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_NOLFS")):
        # Shared memory that cannot grow is reported as a failure of the device.
        code = errno.ENOSPC if path.parent.exists() and os.statvfs(path.parent).f_bavail == 0 else errno.EIO
    else:
        return None
    try:
        with file_errors(
            path, RunError, option=OPTION, then="then run the same command again: finished cells are kept"
        ):
            raise OSError(code, str(failure), str(path))
    except RunError as error:
        return error
