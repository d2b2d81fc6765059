"""The ledger of a sweep: which cells there are, which are taken and by whom, and what came out of each.

One SQLite file, which any number of processes use at once. A cell is taken in one transaction and recorded in another, so
that a process may be killed at any moment: what it recorded stays, and what it had taken is free again. What is taken is
leased: its owner says every few seconds that it lives, and one that is silent for `LEASE` seconds, or whose process is seen
to be gone, has lost its cells. A finished cell is never given out again.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tosca_cache.errors import RunError
from tosca_cache.files import strict_json
from tosca_cache.processes import is_alive, this_place
from tosca_cache.sweep.ledger_file import connect, damaged, database_errors

OPEN, RUNNING, DONE, DIVERGED, FAILED = "open", "running", "done", "diverged", "failed"
STATES = (OPEN, RUNNING, DONE, DIVERGED, FAILED)
LEASE = (
    120.0  # seconds of silence after which an owner is dead; the clocks of several hosts must agree to well within it
)
SCORED_ON = ("val", "first-task", "half-1", "half-2", "test")
LARGEST = 1e18  # of any result: sums and squares of a few of them are numbers, too

# Lists of addresses go into a statement as one JSON array: the number of variables is limited, its length is not.
_LISTED = "cells.address IN (SELECT value FROM json_each(?))"
_CELL = (
    "SELECT cells.address, content, state, result, reason, 'process ' || owners.pid || ' on ' || owners.host, since,"
    " finished, attempts FROM cells LEFT JOIN owners ON owners.id = cells.owner"
)


@dataclass(frozen=True)
class Finished:
    """How a cell ended: `DONE` with a result, `DIVERGED` or `FAILED` with a reason."""

    address: str
    state: str
    result: Mapping[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class LedgerCell:
    """One row of the ledger.

    address: names the cell, opaque.
    content: setting, seed, select, store, arithmetic: all that the result follows from.
    state: one of `STATES`.
    result: what was measured, plain JSON; None unless done (or diverged, and something was measured).
    reason: why it diverged or failed; kept after `retry` until the next result.
    owner: the process that runs it or ran it last, for people; None if none did.
    since, finished: when it was last taken and recorded, ISO 8601 in UTC.
    attempts: how often it was taken.
    """

    address: str
    content: dict[str, Any]
    state: str
    result: dict[str, Any] | None
    reason: str | None
    owner: str | None
    since: str | None
    finished: str | None
    attempts: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> LedgerCell:
        """The cell of a row; raises `ValueError` for what no cell can be: anybody may have written the file."""
        address, content, state, result, *rest = row
        if not all(isinstance(text, str | None) for text in (content, result, *rest[:-1])):
            raise ValueError("what should be text is none")
        if not isinstance(address, str) or state not in STATES or type(rest[-1]) is not int:
            raise ValueError("it has no address, state or number of attempts")
        cell = cls(address, strict_json(content or ""), state, None if result is None else strict_json(result), *rest)
        _check_content(cell.content)
        if cell.result is not None or state == DONE:
            _check_result(cell.result, LARGEST if state == DONE else sys.float_info.max)
        return cell


def _check_content(content: Any) -> None:
    known = {"setting": dict, "seed": int, "select": dict, "store": str, "arithmetic": int}
    if not isinstance(content, dict) or any(type(content.get(key)) is not kind for key, kind in known.items()):
        raise ValueError(f"the content of a cell has {', '.join(known)}")
    select = content["select"]
    if select.get("rows") not in SCORED_ON or not 0 <= _number(select.get("fraction", 0)) <= 1:
        raise ValueError("no rows are selected so")
    for value in (*content["setting"].values(), *select.values(), content["seed"], content["arithmetic"]):
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | None):
                _number(item)


def _check_result(result: Any, most: float) -> None:
    if not isinstance(result, dict):
        raise ValueError("a result is no mapping")
    for value in result.values():
        if not isinstance(value, str | list | dict | None):
            _number(value, most)


def _number(value: Any, most: float = sys.float_info.max) -> float:
    if not isinstance(value, int | float) or not -most <= value <= most:
        raise ValueError("it has no number where one belongs")
    return value


class Ledger:
    """A ledger in use; a context manager. Made by `Ledger.open`.

    Every method that changes something is one transaction: all of it happens, or nothing. Every method raises `RunError`
    if the file cannot be used any more (full disk, damage). Threads may share a ledger.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lease: float) -> None:
        self.path = path
        self._connection = connection
        self._lease = lease
        self._id = uuid.uuid4().hex
        self._turn = threading.RLock()
        self._closed = threading.Event()
        self._speaker: threading.Thread | None = None

    @classmethod
    def open(cls, path: Path, *, create: bool = True, read_only: bool = False, lease: float = LEASE) -> Ledger:
        """Opens a ledger, or makes it.

        Arguments:
            path: the file.
            create: make the ledger, and the folder it lies in, if it is missing.
            read_only: only look; works on a read-only medium, too.
            lease: see `LEASE`; all users of a ledger must agree.

        Raises `RunError` if there is none, if the file is something else, damaged or of another version, and if it
        cannot be written.
        """
        return cls(path, connect(path, create=create, read_only=read_only), lease)

    def add(self, cells: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Adds cells (address, content) as open ones; leaves known addresses alone."""
        rows = [(address, canonical_json(content)) for address, content in cells]
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO cells (address, content) VALUES (?, ?)", rows)

    def claim(self, addresses: Sequence[str]) -> set[str]:
        """Takes those cells that are open, and those whose owner died while running them; nobody else is given them.

        Returns the addresses taken; unknown ones are passed over.
        """
        take = f"""UPDATE cells SET state = 'running', owner = ?, since = ?, attempts = attempts + 1
            WHERE {_LISTED} AND (state = 'open'
                OR (state = 'running' AND owner IN (SELECT value FROM json_each(?)))) RETURNING address"""
        with self._transaction() as connection:
            self._say_alive(connection)
            values = (self._id, _now(), json.dumps(list(addresses)), json.dumps(self._dead(connection)))
            taken = {address for (address,) in connection.execute(take, values)}
        if self._speaker is None:
            self._speaker = threading.Thread(target=self._keep_saying, name="ledger lease", daemon=True)
            self._speaker.start()
        return taken

    def record(self, finished: Sequence[Finished]) -> None:
        """Writes down how cells ended.

        Cells that are not this ledger's any more are left alone: they were taken over by somebody who could not know that
        this owner still lives. Nothing is lost, for a cell's content decides its result.
        """
        rows = [(f.state, _text(f.result), _storable(f.reason), _now(), f.address, self._id) for f in finished]
        statement = """UPDATE cells SET state = ?, result = ?, reason = ?, finished = ?
            WHERE address = ? AND state = 'running' AND owner = ?"""
        with self._transaction() as connection:
            connection.executemany(statement, rows)

    def retry(self, addresses: Sequence[str]) -> None:
        """Opens failed and diverged cells again; attempts and reason stay until the next result."""
        statement = f"""UPDATE cells SET state = 'open', result = NULL, owner = NULL, since = NULL, finished = NULL
            WHERE {_LISTED} AND state IN ('failed', 'diverged')"""
        with self._transaction() as connection:
            connection.execute(statement, (json.dumps(list(addresses)),))

    def release(self) -> None:
        """Gives back what this ledger has taken and not recorded (the user pressed Ctrl-C)."""
        statement = "UPDATE cells SET state = 'open', owner = NULL, since = NULL WHERE state = 'running' AND owner = ?"
        if self._speaker is not None:
            with self._transaction() as connection:
                connection.execute(statement, (self._id,))

    def cells(
        self, addresses: Sequence[str] | None = None, *, state: str | None = None, needs: Iterable[str] = ()
    ) -> list[LedgerCell]:
        """Cells in the order in which they were added.

        Arguments:
            addresses: only these; unknown ones are passed over.
            state: only those in this state.
            needs: what the result of every cell that is done must have, numbers or null.

        Raises `RunError` if one of them is not what a cell can be.
        """
        listed = None if addresses is None else json.dumps(list(addresses))
        statement = f"{_CELL} WHERE (? IS NULL OR {_LISTED}) AND (? IS NULL OR state = ?) ORDER BY cells.rowid"
        with self._using() as connection:
            rows = connection.execute(statement, (listed, listed, state, state)).fetchall()
        try:
            found = [LedgerCell.of_row(row) for row in rows]
        except ValueError as error:
            raise damaged(self.path) from error
        for cell in found:
            measured = {name for name, value in (cell.result or {}).items() if isinstance(value, int | float | None)}
            if cell.state == DONE and set(needs) - measured:
                raise damaged(self.path)
        return found

    def counts(self, addresses: Sequence[str]) -> dict[str, int]:
        """How many of these cells are in each of `STATES`."""
        statement = f"SELECT state, count(*) FROM cells WHERE {_LISTED} GROUP BY state"
        with self._using() as connection:
            return dict.fromkeys(STATES, 0) | dict(connection.execute(statement, (json.dumps(list(addresses)),)))

    def close(self) -> None:
        """Gives back what is still taken, and closes the file; does nothing the second time."""
        with self._turn:
            if not self._closed.is_set():
                self._closed.set()
                with suppress(RunError):  # a cell that cannot be given back is free when the lease ends
                    self.release()
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say_alive(self, connection: sqlite3.Connection) -> None:
        """Makes the lease begin anew."""
        statement = "INSERT INTO owners VALUES (?, ?, ?, ?, '', ?) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat"
        connection.execute(statement, (self._id, socket.gethostname(), this_place(), os.getpid(), time.time()))

    def _keep_saying(self) -> None:
        while not self._closed.wait(self._lease / 4):
            with suppress(RunError), self._turn:  # the disk may have room again at the next time
                if not self._closed.is_set():
                    with self._transaction() as connection:
                        self._say_alive(connection)

    def _dead(self, connection: sqlite3.Connection) -> list[str]:
        """Owners of running cells whose lease has ended; from here those are seen at once that are gone from this place."""
        running = (
            "SELECT id, place, pid, beat FROM owners WHERE id IN (SELECT owner FROM cells WHERE state = 'running')"
        )
        owners = connection.execute(running).fetchall()
        if not all(isinstance(pid, int) and isinstance(beat, float) for _, _, pid, beat in owners):
            raise damaged(self.path)
        here, now = this_place(), time.time()
        return [
            owner
            for owner, place, pid, beat in owners
            if now - beat > self._lease or (place == here and not is_alive(pid))
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Nobody else writes from its beginning on, so what was read is still so when it is changed."""
        with self._using() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._turn, database_errors(self.path):
            yield self._connection


def canonical_json(value: Mapping[str, Any]) -> str:
    """The one JSON text of a value; raises `ValueError` for NaN."""
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _text(result: Mapping[str, Any] | None) -> str | None:
    return None if result is None else canonical_json(result)


def _storable(reason: str | None) -> str | None:
    """A reason may quote the name of a file, which need not be text; SQLite stores only text."""
    return None if reason is None else reason.encode("utf-8", "backslashreplace").decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
