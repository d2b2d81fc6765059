"""The file of a ledger: one SQLite database, made, recognised and checked; its failures in words."""

from __future__ import annotations

import errno
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tosca_cache.errors import RunError
from tosca_cache.files import Limit, file_errors

OPTION = "--ledger"
BUSY_SECONDS = 60.0  # how long to wait for another process's transaction; each takes milliseconds
SCHEMA = 1
APPLICATION_ID = 0x544F5343  # "TOSC": stands in the file's header and tells it from other databases
_SMALLEST = 512  # bytes of SQLite's smallest page

_TABLES = (
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE owners (id TEXT NOT NULL PRIMARY KEY, host TEXT NOT NULL, place TEXT NOT NULL, pid INTEGER NOT NULL,"
    " started TEXT NOT NULL, beat REAL NOT NULL)",
    "CREATE TABLE cells (address TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'open'"
    " CHECK (state IN ('open', 'running', 'done', 'diverged', 'failed')), result TEXT, reason TEXT,"
    " owner TEXT REFERENCES owners (id), since TEXT, finished TEXT, attempts INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX cells_running ON cells (owner) WHERE state = 'running'",
)
_SYSTEM = {"FULL": errno.ENOSPC, "READONLY": errno.EACCES, "CANTOPEN": errno.EACCES, "IOERR": errno.EIO}


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Opens a ledger's database, after checking that it is one and undamaged; makes it if there is none.

    Arguments:
        read_only: change nothing, so that a ledger on a read-only medium can be looked at.

    Raises `RunError`.
    """
    with file_errors(path, RunError, option=OPTION):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            what = "a folder" if path.is_dir() else "a pipe or a device"
            raise RunError(f"A ledger is a file; this is {what}.", where=path, remedy="Give the ledger's own path.")
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()  # what is in the way has a name here; SQLite only says that it cannot
        elif not path.exists():
            raise RunError("There is no ledger here.", where=path, remedy="Check the path; `tosca sweep` makes one.")
        if 0 < path.stat().st_size < _SMALLEST:  # SQLite would take it for an empty database
            raise _not_a_ledger(path)
    # Transactions are begun explicitly; the threads of a sweep share the connection, one at a time.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with database_errors(path):
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, Limit.CELL)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA synchronous = FULL")  # what is recorded outlives a loss of power, too
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            else:
                _make_tables(connection)
            _check(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    """All tables or none, in an empty database; another process may be doing the same at this moment."""
    connection.execute("BEGIN IMMEDIATE")  # that it can be written is found now
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables == 0 and connection.execute("PRAGMA application_id").fetchone()[0] == 0:
        for statement in _TABLES:
            connection.execute(statement)
        facts = [("schema", str(SCHEMA)), ("id", uuid.uuid4().hex)]
        connection.executemany("INSERT INTO meta VALUES (?, ?)", facts)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")  # if it is not reached, closing the connection rolls back


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `RunError` for a database that is no ledger, one of another version, and a damaged one."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise _not_a_ledger(path)
    # Tables that were made otherwise are none of ours: a view in the place of one could go on for ever.
    made = dict(connection.execute("SELECT sql, type FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    if _TABLES[0] not in made:
        raise damaged(path)
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if found != (str(SCHEMA),):
        raise RunError(
            f"This ledger has the format {found[0] if found else '(none)'}; this tosca_cache knows format {SCHEMA}.",
            where=path,
            remedy=f"Use the version of tosca_cache that made it (a newer one?), or choose another file with {OPTION}.",
        )
    if not made.keys() >= set(_TABLES) or {"trigger", "view"} & set(made.values()):
        raise damaged(path)
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise damaged(path)


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turns what a user can mend of SQLite's failures into a `RunError` that says how; bugs stay what they are."""
    try:
        yield
    except sqlite3.Error as failure:
        name = getattr(failure, "sqlite_errorname", "")
        if name == "SQLITE_NOTADB":
            raise _not_a_ledger(path) from failure
        # A text that is no UTF-8 is Python's own complaint and has no name.
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_TOOBIG")) or (not name and "UTF-8" in str(failure)):
            raise damaged(path) from failure
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise RunError(
                f"Another process has kept this ledger locked for {BUSY_SECONDS:.0f} s.",
                where=path,
                remedy="Close what holds it open (a database browser?), then run the same command again.",
            ) from failure
        code = next((code for kind, code in _SYSTEM.items() if name.startswith(f"SQLITE_{kind}")), None)
        if code is None:
            raise
        then = "then run the same command again: finished cells are kept"
        with file_errors(path, RunError, option=OPTION, then=then):
            raise OSError(code, str(failure), str(path)) from failure


def damaged(path: Path) -> RunError:
    """The error for a ledger whose content does not hold together."""
    remedy = "Put back a copy of it, or move it away and run the same command again: all its cells run anew."
    return RunError("This ledger is damaged.", where=path, remedy=remedy)


def _not_a_ledger(path: Path) -> RunError:
    remedy = f"Choose another file with {OPTION}; this one is left as it is."
    return RunError("This file is not a sweep ledger.", where=path, remedy=remedy)
