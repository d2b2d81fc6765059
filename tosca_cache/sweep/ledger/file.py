"""The file of a sweep ledger: one SQLite database, made, recognised and opened so that it works everywhere."""

from __future__ import annotations

import os
import re
import sqlite3
import uuid
from pathlib import Path

from tosca_cache.errors import RunError
from tosca_cache.files import Limit, file_errors
from tosca_cache.sweep.ledger.errors import (
    BUSY_SECONDS,
    OPTION,
    damaged,
    database_errors,
    error_name,
    not_a_ledger,
    other_schema,
    refusal_code,
)

SCHEMA = 1
_SMALLEST = 512  # bytes of SQLite's smallest page
APPLICATION_ID = 0x544F5343  # "TOSC": stands in the file's header and tells it from other databases

_TABLES = (
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE owners (id TEXT NOT NULL PRIMARY KEY, host TEXT NOT NULL, place TEXT NOT NULL, pid INTEGER NOT NULL,"
    " started TEXT NOT NULL, beat REAL NOT NULL)",
    "CREATE TABLE cells (address TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'open'"
    " CHECK (state IN ('open', 'running', 'done', 'diverged', 'failed')), result TEXT, reason TEXT,"
    " owner TEXT REFERENCES owners (id), since TEXT, finished TEXT, attempts INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX cells_running ON cells (owner) WHERE state = 'running'",
)

# The write-ahead log has its index in memory that all users of the file share, so they must be on one machine. These file
# systems make sure of that. On others (NFS, Lustre, folders shared with a virtual machine) the older journal, which
# locks the whole file for each writer, is slower and right.
_ONE_MACHINE = frozenset(
    ["apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"]
)
MOUNTS = Path("/proc/self/mountinfo")


def connect(path: Path, *, create: bool, read_only: bool) -> sqlite3.Connection:
    """Opens a ledger's database, after checking that it is one and undamaged.

    Arguments:
        create: make the ledger, and the folder it lies in, if it is missing.
        read_only: change nothing, so that a ledger on a read-only medium can be looked at.

    Raises `RunError`.
    """
    with file_errors(path, RunError, option=OPTION):
        if path.is_dir():
            raise RunError("A ledger is a file; this is a folder.", where=path, remedy="Give the ledger's own path.")
        if not path.exists() and (read_only or not create):
            raise RunError("There is no ledger here.", where=path, remedy="Check the path; `tosca sweep` makes one.")
        if path.exists() and 0 < path.stat().st_size < _SMALLEST:  # SQLite would take it for an empty database
            raise not_a_ledger(path)
        # Asked for and not tried: closing the file would take away the locks of another connection in this process.
        if path.exists() and not os.access(path, os.R_OK if read_only else os.R_OK | os.W_OK):
            code = refusal_code(path)
            raise OSError(code, os.strerror(code), str(path))
        if create and not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
    with database_errors(path):
        return _open_to_read(path) if read_only else _open_to_write(path, create)


def _open_to_write(path: Path, create: bool) -> sqlite3.Connection:
    parameters = "mode=rwc" if create else "mode=rw"
    try:
        return _prepare(_open(path, parameters), path, create, wal=is_on_one_machine(path))
    except sqlite3.OperationalError as failure:
        if not error_name(failure).startswith(
            ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_PROTOCOL")
        ):
            raise
        try:
            _give_up_wal(path)
        except sqlite3.Error:  # so the log was not the reason
            raise failure from None
    return _prepare(_open(path, parameters), path, create, wal=False)


def _open(path: Path, parameters: str) -> sqlite3.Connection:
    # Transactions are begun explicitly; the threads of a sweep share the connection, one at a time.
    uri = f"{path.absolute().as_uri()}?{parameters}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, Limit.CELL)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, create: bool, *, wal: bool) -> sqlite3.Connection:
    """Makes what is missing, checks what is there, and makes sure that it can be written."""
    try:
        if create and _is_empty(connection):
            _make_tables(connection)
        _check(connection, path)
        _choose_journal(connection, "wal" if wal else "delete")
        connection.execute("PRAGMA synchronous = FULL")  # what is recorded outlives a loss of power, too
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_empty(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0 and connection.execute("PRAGMA application_id").fetchone()[0] == 0


def _make_tables(connection: sqlite3.Connection) -> None:
    """All tables or none; another process may be doing the same at this moment."""
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection):
        for statement in _TABLES:
            connection.execute(statement)
        facts = [("schema", str(SCHEMA)), ("id", uuid.uuid4().hex)]
        connection.executemany("INSERT INTO meta VALUES (?, ?)", facts)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")  # if it is not reached, closing the connection rolls back


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `RunError` for a database that is no ledger, one of another version, and a damaged one."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise not_a_ledger(path)
    # Tables that were made otherwise are none of ours: a view in the place of one could go on for ever.
    made = dict(connection.execute("SELECT sql, type FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    if _TABLES[0] not in made:
        raise damaged(path)
    schema = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if schema != (str(SCHEMA),):
        raise other_schema(path, schema[0] if schema else "(none)", SCHEMA)
    if not made.keys() >= set(_TABLES) or {"trigger", "view"} & set(made.values()):
        raise damaged(path)
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise damaged(path)


def _choose_journal(connection: sqlite3.Connection, mode: str) -> None:
    try:
        connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    except sqlite3.OperationalError as failure:
        # Changing it needs the file for oneself. Whoever uses it now does so in the other mode, which serves, too.
        if not error_name(failure).startswith("SQLITE_BUSY"):
            raise


def _give_up_wal(path: Path) -> None:
    """Frees a file from write-ahead logging where that cannot be had; needs no shared memory, but the file for itself."""
    connection = _open(path, "mode=rw")
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    finally:
        connection.close()


def is_on_one_machine(path: Path) -> bool:
    """Whether a file lies on a file system that only processes of this machine can see."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:  # not Linux
        return True
    found, system, resolved = Path(), "", path.resolve()
    for line in lines:  # proc(5): id parent device root MOUNT-POINT options [tags] - SYSTEM source options
        before, _, after = line.partition(" - ")
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        if resolved.is_relative_to(mount) and len(mount.parts) >= len(found.parts):  # of two on one point the later
            found, system = mount, after.split()[0]
    return system in _ONE_MACHINE


def _open_to_read(path: Path) -> sqlite3.Connection:
    # Not opened as read-only: such a connection cannot tidy up after itself. Its statements cannot change anything.
    connection = _open(path, "mode=rw")
    try:
        connection.execute("PRAGMA query_only = ON")
        _check(connection, path)
    except sqlite3.OperationalError as failure:
        connection.close()
        log = path.resolve().with_name(path.resolve().name + "-wal")
        unwritable = error_name(failure).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
        if not unwritable or (log.exists() and log.stat().st_size > 0):
            raise
        # A folder that cannot be written has no place for the log's index, so nobody can be writing here.
        connection = _open(path, "mode=ro&immutable=1")
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection
