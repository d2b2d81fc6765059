"""What stands in one row of a ledger."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

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


# What a cell's content must have for anybody to read it.
_CONTENT = {"setting": dict, "seed": int, "select": dict, "store": str, "arithmetic": int}
DEEPEST = 16  # levels of lists and mappings


def checked_cell(row: Sequence[Any]) -> LedgerCell:
    """The cell in a row of the database (the fields of `LedgerCell` in order); raises `ValueError` for what is no cell."""
    address, content, state, result, reason, owner, since, finished, attempts = row
    texts = (address, *(text for text in (reason, owner, since, finished) if text is not None))
    if not all(type(text) is str for text in texts) or state not in STATES or type(attempts) is not int:
        raise ValueError("a field of a cell has another type")
    cell = LedgerCell(address, _mapping(content), state, None, reason, owner, since, finished, attempts)
    if any(type(cell.content.get(key)) is not kind for key, kind in _CONTENT.items()):
        raise ValueError("a cell's content lacks what it must have")
    if result is None and state == DONE:
        raise ValueError("a cell that is done has a result")
    return cell if result is None else replace(cell, result=_mapping(result))


def _mapping(text: Any) -> dict[str, Any]:
    """A JSON object of finite numbers that is not nested absurdly; raises `ValueError` for anything else."""
    if type(text) is not str:
        raise ValueError("JSON is a text")
    try:
        found = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict) or not _is_plain(found, DEEPEST):
        raise ValueError("not a plain JSON object")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _is_plain(value: Any, levels: int) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(item, levels - 1) for item in inner)
    return not isinstance(value, float) or math.isfinite(value)


def number_of(result: Mapping[str, Any], name: str) -> float | None:
    """A number of a result; None if it is missing, not defined, or no number."""
    value = result.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
