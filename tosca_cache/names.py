"""Names from data that become a part of a path: one component, never a way out of the folder."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from tosca_cache.errors import UsageError

STORE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")  # one visible folder, nowhere else
LONGEST = 200  # bytes in UTF-8: file systems take 255, and names of runs and ledgers are longer by a date or a suffix
LONGER = 235  # bytes of such a longer name, which gets `.partial` or `-journal` behind it


def name_problem(name: str, most: int = LONGEST) -> str | None:
    """Why a name cannot be a file's or a folder's; None if it can."""
    if name in ("", ".", ".."):
        return f"{name!r} is no name"
    if "/" in name:
        return f"{name[:80]!r} holds a slash"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return f"{name[:80]!r} holds a control character"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"{name[:80]!r} is not valid UTF-8"
    return f"{name[:80]!r}... has {size} bytes, more than {most}" if size > most else None


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; raises `UsageError` if the name would lead elsewhere."""
    if problem := name_problem(name, LONGER):
        raise UsageError(f"this cannot be the name of a file: {problem}", where=folder, remedy="choose a plain name")
    return folder / name


def twice(names: tuple[str, ...]) -> str | None:
    """A name that stands twice among these; None if each stands once."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
