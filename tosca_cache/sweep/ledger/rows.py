"""What stands in one row of a ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OPEN, RUNNING, DONE, DIVERGED, FAILED = "open", "running", "done", "diverged", "failed"
STATES = (OPEN, RUNNING, DONE, DIVERGED, FAILED)


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


@dataclass(frozen=True)
class Finished:
    """How a cell ended: `DONE` with a result, `DIVERGED` or `FAILED` with a reason."""

    address: str
    state: str
    result: Mapping[str, Any] | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.state not in (DONE, DIVERGED, FAILED):
            raise ValueError(f"a cell does not end as {self.state!r}")
        if (self.result is None) if self.state == DONE else (self.reason is None):
            raise ValueError(f"a cell that is {self.state} needs a {'result' if self.state == DONE else 'reason'}")


def canonical_json(value: Mapping[str, Any]) -> str:
    """The one JSON text of a value; raises `ValueError` for NaN."""
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def result_json(result: Mapping[str, Any] | None) -> str | None:
    """JSON text of a result; what is not a finite number (a metric that is not defined) becomes null."""
    if result is None:
        return None
    try:
        return canonical_json(result)
    except ValueError:
        return canonical_json(json.loads(json.dumps(dict(result)), parse_constant=lambda name: None))


def storable_text(reason: str | None) -> str | None:
    """A reason may quote the name of a file, which need not be text; SQLite stores only text."""
    return None if reason is None else reason.encode("utf-8", "backslashreplace").decode()
