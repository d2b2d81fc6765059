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
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from tosca_cache.errors import RunError
from tosca_cache.files import strict_json
from tosca_cache.processes import is_alive, this_place
from tosca_cache.sweep.ledger_file import connect, damaged, database_errors

DONE, DIVERGED, FAILED = "done", "diverged", "failed"
LEASE = 120.0  # seconds of silence after which an owner is dead; clocks of several hosts must agree to well within it
LARGEST = 1e18  # of any result: sums and squares of a few of them are numbers, too

Setting = str | bool | float | None
Measured = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]

# Lists of addresses go into a statement as one JSON array: the number of variables is limited, its length is not.
_LISTED = "address IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Finished:
    """How a cell ended: `DONE` with a result, `DIVERGED` or `FAILED` with a reason."""

    address: str
    state: str
    result: Mapping[str, Any] | None = None
    reason: str | None = None


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Select(_Checked):
    rows: Literal["val", "first-task", "half-1", "half-2", "test"]
    fraction: Annotated[float, Field(ge=0, le=1)] = 0.0


class _Content(_Checked):
    setting: dict[str, Setting | list[Setting]]
    seed: int
    select: _Select
    store: str
    arithmetic: int


def _content(given: dict[str, Any]) -> dict[str, Any]:
    _Content.model_validate(given)
    return given


@checked_dataclass(frozen=True, config=_Checked.model_config)
class LedgerCell:
    """One row of the ledger; raises `ValueError` for what no cell can be: anybody may have written the file.

    address: names the cell, opaque.
    content: setting, seed, select, store, arithmetic: all that the result follows from.
    result: what was measured, plain JSON, numbers such that they can be added and printed; None unless done (or diverged,
        and something was measured).
    reason: why it diverged or failed; kept after `retry` until the next result.
    attempts: how often it was taken.
    """

    address: str
    content: Annotated[dict[str, Any], AfterValidator(_content)]
    state: Literal["open", "running", "done", "diverged", "failed"]
    result: dict[str, str | bool | Measured | list[Any] | dict[str, Any] | None] | None
    reason: str | None
    attempts: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> LedgerCell:
        """The cell of a row."""
        address, content, state, result, *rest = row
        if not isinstance(content, str) or not isinstance(result, str | None) or (state == DONE and result is None):
            raise ValueError("what should be text is none")
        return cls(address, strict_json(content), state, None if result is None else strict_json(result), *rest)


class Ledger:
    """A ledger in use; a context manager. Made by `Ledger.open`.

    Every method that changes something is one transaction: all of it happens, or nothing. Every method raises `RunError`
    if the file cannot be used any more (full disk, damage). Threads may share a ledger.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._id = uuid.uuid4().hex
        self._turn = threading.RLock()
        self._closed = threading.Event()
        self._speaker: threading.Thread | None = None

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Ledger:
        """Opens a ledger; makes it, and the folder it lies in, if it is missing.

        Arguments:
            path: the file.
            read_only: only look, and make none; works on a read-only medium, too.

        Raises `RunError` if there is none, if the file is something else, damaged or of another version, and if it
        cannot be written.
        """
        return cls(path, connect(path, read_only=read_only))

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
        rows = [
            (
                f.state,
                None if f.result is None else canonical_json(f.result),
                # A reason may quote the name of a file, which need not be text; SQLite stores only text.
                None if f.reason is None else f.reason.encode("utf-8", "backslashreplace").decode(),
                _now(),
                f.address,
                self._id,
            )
            for f in finished
        ]
        statement = """UPDATE cells SET state = ?, result = ?, reason = ?, finished = ?
            WHERE address = ? AND state = 'running' AND owner = ?"""
        with self._transaction() as connection:
            connection.executemany(statement, rows)

    def retry(self, addresses: Sequence[str]) -> None:
        """Opens failed cells again, which may have lacked memory; attempts and reason stay until the next result."""
        statement = f"""UPDATE cells SET state = 'open', result = NULL, owner = NULL, since = NULL, finished = NULL
            WHERE {_LISTED} AND state = 'failed'"""
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
        statement = f"""SELECT address, content, state, result, reason, attempts FROM cells
            WHERE (? IS NULL OR {_LISTED}) AND (? IS NULL OR state = ?) ORDER BY rowid"""
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

    def unfinished(self, addresses: Sequence[str]) -> set[str]:
        """Those of these cells that are open, or that somebody runs."""
        statement = f"SELECT address FROM cells WHERE {_LISTED} AND state IN ('open', 'running')"
        with self._using() as connection:
            return {address for (address,) in connection.execute(statement, (json.dumps(list(addresses)),))}

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

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _say_alive(self, connection: sqlite3.Connection) -> None:
        """Makes the lease begin anew."""
        statement = "INSERT INTO owners VALUES (?, ?, ?, ?, '', ?) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat"
        connection.execute(statement, (self._id, socket.gethostname(), this_place(), os.getpid(), time.time()))

    def _keep_saying(self) -> None:
        while not self._closed.wait(LEASE / 4):
            with suppress(RunError), self._turn:  # the disk may have room again at the next time
                if not self._closed.is_set():
                    with self._transaction() as connection:
                        self._say_alive(connection)

    def _dead(self, connection: sqlite3.Connection) -> list[str]:
        """Owners whose lease has ended; from here those are seen at once that are gone from this place."""
        owners = connection.execute("SELECT id, place, pid, beat FROM owners").fetchall()
        if not all(isinstance(pid, int) and isinstance(beat, float) for _, _, pid, beat in owners):
            raise damaged(self.path)
        here, late = this_place(), time.time() - LEASE
        return [id for id, place, pid, beat in owners if beat < late or (place == here and not is_alive(pid))]

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
