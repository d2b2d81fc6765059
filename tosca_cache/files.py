"""Writing files so that a reader never sees half of one, and reading those that anybody may have written."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import IntEnum
from pathlib import Path
from typing import IO, Any, NoReturn

from tosca_cache.errors import ToscaError

_HUGE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")  # without one of these no number is larger than all floats
MAX_DEPTH = 64  # lists within lists: far beyond what any file of ours has, far below what Python can follow


class Limit(IntEnum):
    """Bytes that a file may have that is read whole, by what it is; one that has more is not read."""

    MANIFEST = 1 << 28  # also plans; they list every shard and every skipped row
    PROVENANCE = 1 << 26
    METADATA = 1 << 20  # zarr's own
    NOTE = 1 << 20  # of a finished shard
    CONFIG = 1 << 20  # settings, search spaces, published values
    CLASS_ORDER = 1 << 24  # a million names
    METRICS = 1 << 28  # of a run
    LEARNER = 1 << 34  # modules of a run
    MODEL_CARD = 1 << 28  # names a million classes
    CELL = 1 << 27  # one row of a ledger
    KERNELS = 1 << 26  # compiled


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
    errno.EFBIG: ("This file is far too large for what it should be.", "Put the right file there"),
    errno.EMFILE: ("This process may not have more files open.", "Raise the limit (`ulimit -n 4096`)"),
    errno.ENFILE: ("This machine may not have more files open.", "End other programs"),
}

_FULL_FILE = (  # while it was written; one that is too large to be read is told otherwise by `read_limited`
    "The system allows no file as large as this one.",
    "Raise the limit (`ulimit -f unlimited`), or choose a folder on another file system with {option}",
)
_NO_INODES = (
    "The file system has no room for further files: all its inodes are in use.",
    "Remove files that are not needed (`df -i` shows how many there are), or choose another folder with {option}",
)


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
        if failure.errno == errno.ENOSPC and no_inodes(where):
            known = _NO_INODES
        if failure.errno == errno.EFBIG and failure.strerror == os.strerror(errno.EFBIG):
            known = _FULL_FILE
        remedy = known[1].format(option=option) + (f"; {then}." if then else ".")
        cause = failure.strerror or str(failure)
        raise error(f"{known[0]} ({cause})", where=failure.filename or where, remedy=remedy) from failure


def no_inodes(path: Path) -> bool:
    """Whether the file system of a path has as many files as it can; False for one that knows no such limit."""
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path("/"))
    found = os.statvfs(existing)
    return found.f_files > 0 and found.f_favail == 0


def write_text(path: Path, text: str) -> None:
    """Writes a whole file and puts it in place by rename; an old file stays until the new one is on disk.

    A lone surrogate (a name that is no UTF-8 has some) is written as its escape, which JSON reads.
    """
    with writing_text(path) as file:
        file.write(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its place, whole and on the disk, at the end of the block; not if that raises."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        temporary.touch()  # a folder that refuses says so as the file system does, whatever library writes
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_text(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its place at the end of the block, see `write_text`; not if the block raises."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def asked_file(path: Path) -> AbstractContextManager[IO[str]]:
    """A text file that a user has named: a device or a pipe stays one, a link stays and what it leads to is replaced."""
    if path.exists() and not path.is_file():
        return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    return writing_text(path.resolve())


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON (no NaN), indented; see `write_text`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_limited(path: Path, most: int) -> bytes:
    """The bytes of a regular file that has at most `most` of them (see `Limit`).

    Raises `OSError`, of which `EFBIG` says that there are more, and `EINVAL` that it is a pipe, a device or a socket.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A pipe without a writer must not hold us up.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
        return file.read(found.st_size)


def strict_json(data: bytes | str) -> Any:
    """What a JSON text says; raises `ValueError` for anything else, for numbers without end, and for endless nesting."""
    text = data if isinstance(data, str) else data.decode()
    hooks: dict[str, Any] = {"parse_float": _finite} if _HUGE.search(text) else {}
    try:
        found = json.loads(text, parse_constant=_refuse_constant, **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(found) > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is larger than all numbers")
    return number


def _depth(value: Any) -> int:
    """How many lists and objects lie within each other; stops counting beyond `MAX_DEPTH`."""
    depth, level = 0, [value]
    while depth <= MAX_DEPTH and (level := [item for item in level if isinstance(item, list | dict)]):
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth
