"""The ledger of a sweep: which cells there are, which are taken and by whom, and what came out of each.

One SQLite file, which any number of processes use at once. A cell is taken in one transaction and recorded in another, so
that a process may be killed at any moment: what it recorded stays, and what it had taken is taken over by the next that
asks. A finished cell is never given out again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tosca_cache.errors import RunError
from tosca_cache.sweep.ledger.errors import damaged, database_errors
from tosca_cache.sweep.ledger.file import connect
from tosca_cache.sweep.ledger.owners import STALE_AFTER, Owner
from tosca_cache.sweep.ledger.rows import (
    DIVERGED,
    DONE,
    FAILED,
    OPEN,
    RUNNING,
    STATES,
    Finished,
    LedgerCell,
    canonical_json,
    result_json,
    storable_text,
)

__all__ = ["DIVERGED", "DONE", "FAILED", "OPEN", "RUNNING", "STATES", "Finished", "Ledger", "LedgerCell"]

# Lists of addresses go into a statement as one JSON array: the number of variables is limited, its length is not.
_LISTED = "cells.address IN (SELECT value FROM json_each(?))"
_DEAD = "cells.state = 'running' AND cells.owner IN (SELECT value FROM json_each(?))"
_ROW = (
    "cells.address, content, state, result, reason, 'process ' || owners.pid || ' on ' || owners.host, since, finished,"
    " attempts"
)


class Ledger:
    """A ledger in use; a context manager. Made by `Ledger.open`.

    Every method that changes something is one transaction: all of it happens, or nothing. Every method raises `RunError`
    if the file cannot be used any more (full disk, damage). Threads may share a ledger; a forked child may not use its
    parent's.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, stale_after: float) -> None:
        self.path = path
        self.stale_after = stale_after
        self._connection = connection
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._closed = threading.Event()
        self._owner: Owner | None = None
        identity = self._read("SELECT value FROM meta WHERE key = 'id'")
        if not identity or not isinstance(identity[0][0], str):
            connection.close()
            raise damaged(path)
        self.id = identity[0][0]

    @classmethod
    def open(
        cls, path: Path, *, create: bool = True, read_only: bool = False, stale_after: float = STALE_AFTER
    ) -> Ledger:
        """Opens a ledger, or makes it.

        Arguments:
            path: the file.
            create: make the ledger, and the folder it lies in, if it is missing.
            read_only: only look; works on a read-only medium, too.
            stale_after: seconds of silence after which a process on another host counts as dead. All users of a ledger
                must agree. A ledger that has taken cells speaks up four times in this time, from a thread of its own.

        Raises `RunError` if there is none, if the file is something else, damaged or of another version, and if it
        cannot be written.
        """
        return cls(path, connect(path, create=create, read_only=read_only), stale_after)

    def add(self, cells: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        """Adds cells (address, content) as open ones; leaves known addresses alone. Returns how many are new."""
        rows = [(address, canonical_json(content)) for address, content in cells]
        statement = "INSERT INTO cells (address, content) VALUES (?, ?) ON CONFLICT (address) DO NOTHING"
        with self._transaction() as connection:
            return connection.executemany(statement, rows).rowcount if rows else 0

    def claim(self, addresses: Sequence[str], limit: int | None = None) -> list[str]:
        """Takes cells for this ledger's user: those that are open, and those whose owner died while running them.

        Arguments:
            addresses: which cells are wanted, in order of preference; unknown ones are passed over.
            limit: how many at most; None takes all there are.

        Returns the addresses taken, in the order of preference. Nobody else is given them while this ledger is open.
        """
        free = f"SELECT address FROM cells WHERE {_LISTED} AND (state = 'open' OR ({_DEAD}))"
        take = f"UPDATE cells SET state = 'running', owner = ?, since = ?, attempts = attempts + 1 WHERE {_LISTED}"
        with self._transaction() as connection:
            found = connection.execute(free, (_array(addresses), _array(self._dead())))
            available = {address for (address,) in found}
            taken = [address for address in dict.fromkeys(addresses) if address in available][:limit]
            if taken:
                connection.execute(take, (self._enter(connection).id, _now(), _array(taken)))
        return taken

    def record(self, finished: Iterable[Finished]) -> int:
        """Writes down how cells ended. Returns how many were this ledger's to record.

        Others are left alone: they were taken over by somebody who could not know that this owner still lives. Nothing
        is lost, for a cell's content decides its result.
        """
        ended = _now()
        me = self._owner.id if self._owner else ""
        rows = [
            (end.state, result_json(end.result), storable_text(end.reason), ended, end.address, me) for end in finished
        ]
        statement = """UPDATE cells SET state = ?, result = ?, reason = ?, finished = ?
            WHERE address = ? AND state = 'running' AND owner = ?"""
        with self._transaction() as connection:
            return connection.executemany(statement, rows).rowcount if rows else 0

    def done(self, address: str, result: Mapping[str, Any]) -> bool:
        """Records one result; NaN in it becomes null. Returns whether the cell was this ledger's to record."""
        return self.record([Finished(address, DONE, result)]) == 1

    def diverged(self, address: str, reason: str, result: Mapping[str, Any] | None = None) -> bool:
        """Records that a cell diverged. Returns whether it was this ledger's to record."""
        return self.record([Finished(address, DIVERGED, result, reason)]) == 1

    def failed(self, address: str, reason: str) -> bool:
        """Records that a cell failed. Returns whether it was this ledger's to record."""
        return self.record([Finished(address, FAILED, None, reason)]) == 1

    def retry(self, addresses: Sequence[str]) -> int:
        """Opens failed and diverged cells again; attempts and reason stay until the next result. Returns how many."""
        statement = f"""UPDATE cells SET state = 'open', result = NULL, owner = NULL, since = NULL, finished = NULL
            WHERE {_LISTED} AND state IN ('failed', 'diverged')"""
        with self._transaction() as connection:
            return connection.execute(statement, (_array(addresses),)).rowcount

    def release(self) -> int:
        """Gives back what this ledger has taken and not recorded (the user pressed Ctrl-C). Returns how many."""
        statement = """UPDATE cells SET state = 'open', owner = NULL, since = NULL
            WHERE state = 'running' AND owner = ?"""
        if self._owner is None:
            return 0
        with self._transaction() as connection:
            return connection.execute(statement, (self._owner.id,)).rowcount

    def heartbeat(self) -> None:
        """Tells other hosts that this ledger's user lives. A thread does this; it is never needed in the same host."""
        with self._turn:
            if self._owner is not None and not self._closed.is_set():
                with self._transaction() as connection:
                    connection.execute("UPDATE owners SET beat = ? WHERE id = ?", (time.time(), self._owner.id))

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
        rows = self._read(
            f"""SELECT {_ROW} FROM cells LEFT JOIN owners ON owners.id = cells.owner
            WHERE (? IS NULL OR {_LISTED}) AND (? IS NULL OR state = ?) ORDER BY cells.rowid""",
            *2 * (None if addresses is None else _array(addresses),),
            *2 * (state,),
        )
        try:
            found = [LedgerCell.of_row(row) for row in rows]
        except ValueError as error:
            raise damaged(self.path) from error
        needed = set(needs)
        if any(needed - cell.measured for cell in found if cell.state == DONE):
            raise damaged(self.path)
        return found

    def counts(self, addresses: Sequence[str] | None = None) -> dict[str, int]:
        """How many cells, or how many of these, are in each of `STATES`."""
        listed = None if addresses is None else _array(addresses)
        statement = f"SELECT state, count(*) FROM cells WHERE ? IS NULL OR {_LISTED} GROUP BY state"
        return dict.fromkeys(STATES, 0) | dict(self._read(statement, listed, listed))

    def abandoned(self) -> list[str]:
        """Cells that are marked as running, but whose owner is dead; the next `claim` takes them over."""
        return [row[0] for row in self._read(f"SELECT address FROM cells WHERE {_DEAD}", _array(self._dead()))]

    def close(self) -> None:
        """Gives back what is still taken, and closes the file; does nothing in a forked child, and the second time."""
        if os.getpid() != self._pid:
            return
        with self._turn:
            if not self._closed.is_set():
                self._closed.set()
                with suppress(RunError):  # a cell that cannot be given back is seen to be abandoned
                    self.release()
                if self._owner is not None:
                    self._owner.leave()
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self, connection: sqlite3.Connection) -> Owner:
        """This ledger's owner, written down as alive."""
        if self._owner is None:
            self._owner = Owner.enter()
            for stop in (self._owner.leave, self._closed.set):  # a ledger that is dropped and never closed runs nothing
                weakref.finalize(self, stop)
            speak = (weakref.ref(self), self._closed, self.stale_after / 4)
            threading.Thread(target=_keep_speaking, args=speak, name="ledger heartbeat", daemon=True).start()
        statement = "INSERT INTO owners VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET beat = ?"
        now = time.time()
        connection.execute(statement, (*astuple(self._owner)[:-1], now, now))
        return self._owner

    def _dead(self) -> list[str]:
        """Owners that are dead, among those that left cells running."""
        running = "SELECT * FROM owners WHERE id IN (SELECT owner FROM cells WHERE state = 'running')"
        try:
            owners = [Owner.of_row(row) for row in self._read(running)]
        except ValueError as error:
            raise damaged(self.path) from error
        return [owner.id for owner in owners if not owner.alive(self.stale_after)]

    def _read(self, statement: str, *values: object) -> list[Any]:
        with self._using() as connection:
            return connection.execute(statement, values).fetchall()

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
        if os.getpid() != self._pid:
            raise RuntimeError("a ledger can only be used by the process that opened it")
        with self._turn, database_errors(self.path):
            yield self._connection


def _keep_speaking(ledger: weakref.ref[Ledger], closed: threading.Event, seconds: float) -> None:
    while not closed.wait(seconds):
        found = ledger()
        if found is None:
            return
        with suppress(RunError):  # the disk may have room again at the next time
            found.heartbeat()
        del found


def _array(addresses: Sequence[str]) -> str:
    return json.dumps(list(addresses))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
