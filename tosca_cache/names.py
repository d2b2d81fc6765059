"""Texts that come from data where they become something else: a part of a path, a cell of a spreadsheet."""

from __future__ import annotations

from pathlib import Path

from tosca_cache.errors import UsageError

LONGEST = 200  # bytes in UTF-8: file systems take 255, and names of runs and ledgers are longer by a date or a suffix


def name_problem(name: str) -> str | None:
    """Why a name cannot be a file's or a folder's; None if it can."""
    if name in ("", ".", ".."):
        return f"{name!r} is no name"
    if "/" in name or "\0" in name:
        return f"{name[:80]!r} holds a slash or a zero byte"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"{name[:80]!r} is no Unicode text"
    return f"{name[:80]!r}... has {size} bytes, more than {LONGEST}" if size > LONGEST else None


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; raises `UsageError` if the name would lead elsewhere."""
    if problem := name_problem(name):
        raise UsageError(f"this cannot be the name of a file: {problem}", where=folder, remedy="choose a plain name")
    return folder / name


def spreadsheet_text(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like a formula gets an apostrophe in front."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
