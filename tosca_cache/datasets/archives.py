"""Unpacking an archive that anybody may have made: no path outside, no links, no more bytes than photos have."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tosca_cache.errors import DatasetError
from tosca_cache.files import file_errors
from tosca_cache.names import name_problem
from tosca_cache.text import one_line

MOST_FILES = 3_000_000  # ImageNet has 1.3 million
# Photos do not shrink: all files together have at most 20 times the archive's bytes and 64 MiB.
RATIO, SPARE = 20, 64 << 20
MOST_AT_ONCE = 1 << 20  # bytes of a header of tar; one that says it has more is no name
BLOCK = 512  # of tar
CHUNK = 1 << 20
LONGEST = 255  # bytes of a file's name
_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError),
    OverflowError,
    ValueError,
)


class _Refused(ValueError):
    """What an archive may not have."""


class Bounded:
    """A file for `tarfile` that gives at most `most` bytes in all and `MOST_AT_ONCE` at a time.

    Raises `ValueError` beyond: a header's length is whatever an archive says, and `tarfile` reads headers whole.
    """

    def __init__(self, file: Any, most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        """Like a file's."""
        if not 0 <= size <= MOST_AT_ONCE:
            raise _Refused("it has a header that is too long")
        data: bytes = self._file.read(size)
        self._check(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Like a file's, from the start only."""
        if whence != 0:
            raise ValueError("only from the start")
        self._check(offset)
        return int(self._file.seek(offset))

    def tell(self) -> int:
        """Like a file's."""
        return int(self._file.tell())

    def _check(self, place: int) -> None:
        if place > self._most:
            raise _Refused(f"its files have more than {self._most:,} bytes together, which photos have not")


def unpack(archive: Path, folder: Path, on_bytes: Callable[[int], None] = lambda done: None) -> int:
    """Unpacks a zip or a tar (also gz, bz2 or xz) into a new folder; returns the number of files.

    Files and folders only, each once, with plain names; permissions, owners and times stay behind.

    Arguments:
        on_bytes: is told how many bytes were written so far.

    Raises `DatasetError` for an archive that is damaged or cut off, and for one with a path outside, a link, a device, two
    files of one name, or more files or bytes than an archive of photos has; what was unpacked by then stays in the folder.
    """
    folder.mkdir(parents=True)
    count = written = 0
    with file_errors(folder, DatasetError, option="--data-root"), archive_errors(archive):
        for name, content in _members(archive, RATIO * archive.stat().st_size + SPARE):
            target = folder.joinpath(*plain_parts(name))
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            count += 1
            if count > MOST_FILES:
                raise _Refused(f"it has more than {MOST_FILES:,} files")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                while chunk := content.read(CHUNK):
                    file.write(chunk)
                    written += len(chunk)
                    on_bytes(written)
    return count


@contextmanager
def archive_errors(archive: Path, failed: str = "the archive cannot be unpacked") -> Iterator[None]:
    """Within it, whatever a hostile or damaged archive makes of its reader is a `DatasetError`."""
    try:
        yield
    except _DAMAGE as error:
        problem = str(error) if isinstance(error, _Refused) else f"it is damaged or cut off ({error})"
        raise _refused(archive, f"{failed}: {problem}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = one_line(Path(str(error.filename)).name)
        raise _refused(archive, f"{failed}: {name!r} stands twice in it") from error
    except OSError as error:
        if error.errno is not None:  # the file system's
            raise
        raise _refused(archive, f"{failed}: it is damaged or cut off ({error})") from error


def plain_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a path in an archive; raises `ValueError` for one that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _Refused(f"{one_line(name[:200])!r} would lie outside of the folder")
    for part in path.parts:
        if problem := name_problem(part, LONGEST):
            raise _Refused(f"it has a file that cannot be named so: {one_line(problem)}")
    return path.parts


def _members(archive: Path, most: int) -> Iterator[tuple[str, IO[bytes] | None]]:
    """(path, content) of every file, (path, None) of every folder."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive, most)
        return
    with archive.open("rb") as file:
        begin = file.read(8)
        file.seek(0)
        opened = next((opener(file) for magic, opener in _OPENERS if begin.startswith(magic)), file)
        for tar, member in tar_members(Bounded(opened, most)):
            if member.isdir():
                yield member.name, None
            else:
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content


def tar_members(file: Bounded) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every file and folder of a tar; raises `ValueError` for any other member, and for a tar without its end."""
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
        end = 0
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]
            if member.size < 0:  # with which `tarfile` would go back, and round and round
                raise ValueError("a file of less than no bytes")
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise _Refused(f"{one_line(member.name[:200])!r} is neither a file nor a folder")
            yield tar, member
            end = member.offset_data + -(-member.size // BLOCK) * BLOCK
        file.seek(end)  # `tarfile` takes a damaged header, and the end of the file, for the end of the archive
        if file.read(BLOCK) != bytes(BLOCK):
            raise ValueError("its end is missing")
        while file.read(MOST_AT_ONCE):  # a compressed one has its checksum at its end
            pass


def _zip_members(archive: Path, most: int) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as packed:
        if sum(info.file_size for info in packed.infolist()) > most:
            raise _Refused(f"its files have more than {most:,} bytes together, which photos have not")
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{one_line(info.filename[:200])!r} is neither a file nor a folder")
            if info.flag_bits & 1:
                raise _Refused("it is encrypted")
            if info.is_dir():
                yield info.filename, None
            else:
                with packed.open(
                    info
                ) as content:  # gives no more bytes than `file_size`, and checks the CRC at its end
                    yield info.filename, content


def _refused(archive: Path, problem: str) -> DatasetError:
    return DatasetError(
        problem,
        where=archive,
        remedy="get it again, from where it was published",
    )
