"""What stands in one row of a ledger, and what can stand there: a file may have been damaged, or made, by anybody."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tosca_cache.files import strict_json

OPEN, RUNNING, DONE, DIVERGED, FAILED = "open", "running", "done", "diverged", "failed"
STATES = (OPEN, RUNNING, DONE, DIVERGED, FAILED)
SCORED_ON = ("val", "first-task", "half-1", "half-2", "test")
LARGEST = 1e18  # of any result: sums and squares of a few of them are numbers, too


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
        """The cell of a row of the table, content and result as JSON; raises `ValueError` for what no cell can be."""
        address, content, state, result, *rest = row
        if not isinstance(content, str) or not isinstance(result, str | None):
            raise ValueError("content or result is no text")
        cell = cls(address, strict_json(content), state, None if result is None else strict_json(result), *rest)
        cell._check()
        return cell

    @property
    def measured(self) -> set[str]:
        """The numbers of its result, also those that are not defined (null)."""
        return {name for name, value in (self.result or {}).items() if isinstance(value, int | float | None)}

    def _check(self) -> None:
        texts = (self.reason, self.owner, self.since, self.finished)
        if not isinstance(self.address, str) or not all(isinstance(text, str | None) for text in texts):
            raise ValueError("what should be text is none")
        if self.state not in STATES or type(self.attempts) is not int:
            raise ValueError(f"no such state: {self.state!r} after {self.attempts!r} attempts")
        if self.state == DONE and self.result is None:
            raise ValueError("it is done, but has no result")
        _check_content(self.content)
        if self.result is not None:
            _check_result(self.result, LARGEST if self.state == DONE else sys.float_info.max)


def _check_content(content: Any) -> None:
    known = {"setting": dict, "seed": int, "select": dict, "store": str, "arithmetic": int}
    if not isinstance(content, dict) or any(type(content.get(key)) is not kind for key, kind in known.items()):
        raise ValueError(f"the content of a cell has {', '.join(known)}")
    select = content["select"]
    if select.get("rows") not in SCORED_ON or not 0 <= _number(select.get("fraction", 0)) <= 1:
        raise ValueError(f"no rows are selected so: {select!r}"[:200])
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
        raise ValueError(f"{value!r}"[:80] + " is no number that a cell can have")
    return value


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
