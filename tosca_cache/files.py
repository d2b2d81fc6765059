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

_REMEDIES = {
    errno.ENOSPC: "free space on this disk, or choose another folder",
    errno.EDQUOT: "free space within your quota, or choose another folder",
    errno.EROFS: "choose a folder on a writable file system",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.ENOTDIR: "choose a path whose parents are folders",
    errno.EEXIST: "choose a path that is not in use",
}


@contextmanager
def writing(where: Path, error: type[ToscaError]) -> Iterator[None]:
    """Turns a failure of the file system while writing at `where` into an `error` that says what to do."""
    try:
        yield
    except OSError as failure:
        remedy = _REMEDIES.get(failure.errno or 0, "choose another folder")
        raise error(f"cannot write: {failure.strerror or failure}", where=where, remedy=remedy) from failure


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
