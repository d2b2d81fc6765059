"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tosca_cache.errors import ToscaError

_PROBLEMS = {
    errno.ENOSPC: ("The disk is full.", "Free space on this disk, or choose another folder with {option}"),
    errno.EDQUOT: ("Your quota is used up.", "Free space, or choose another folder with {option}"),
    errno.EROFS: ("The file system is read-only.", "Choose a folder on a writable file system with {option}"),
    errno.EACCES: ("You may not write or read here.", "Change the permissions, or choose another folder with {option}"),
    errno.EPERM: ("You may not write or read here.", "Change the permissions, or choose another folder with {option}"),
    errno.ENOTDIR: ("A part of this path is a file, not a folder.", "Choose another folder with {option}"),
    errno.EEXIST: ("A file is in the way.", "Move it, or choose another folder with {option}"),
    errno.ENOTEMPTY: ("A folder is in the way.", "Move it, or choose another folder with {option}"),
    errno.ENAMETOOLONG: ("This path is too long.", "Choose a folder with a shorter path with {option}"),
}


@contextmanager
def file_errors(where: Path, error: type[ToscaError], *, option: str, then: str = "") -> Iterator[None]:
    """Turns a failure of the file system into an `error` that says what to do about it.

    Arguments:
        where: named in the error if the failure itself names no file.
        option: the option that chooses the folder.
        then: what to do afterwards.
    """
    try:
        yield
    except OSError as failure:
        known = _PROBLEMS.get(
            failure.errno or 0, ("The file system refuses.", "Mend it, or choose another with {option}")
        )
        remedy = known[1].format(option=option) + (f"; {then}." if then else ".")
        cause = failure.strerror or str(failure)
        raise error(f"{known[0]} ({cause})", where=failure.filename or where, remedy=remedy) from failure


def write_text(path: Path, text: str) -> None:
    """Writes a whole file and puts it in place by rename; an old file stays until the new one is on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON (no NaN), indented; see `write_text`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
