"""Unpacking an archive that anybody may have made: no path outside, no links, no more bytes than photos have."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Self

from tosca_cache.errors import DatasetError
from tosca_cache.files import file_errors
from tosca_cache.names import name_problem
from tosca_cache.text import one_line

MOST_FILES = 3_000_000  # ImageNet has 1.3 million
# Photos do not shrink: all files together have at most 20 times the archive's bytes and 64 MiB.
RATIO, SPARE = 20, 64 << 20
MOST_HEADER = 1 << 20  # bytes of a header of tar, which `tarfile` reads whole; one that says it has more is no name
CHUNK = 1 << 20
LONGEST = 255  # bytes of a file's name
_HEADERS = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError),
    *(OverflowError, ValueError),
)


class _Refused(ValueError):
    """What an archive may not have."""


class _Member(tarfile.TarInfo):
    """A header of tar; `tarfile` reads what belongs to it whole, however much it says that is."""

    def _proc_member(self, tar: tarfile.TarFile) -> Self | None:
        if self.type in _HEADERS and not 0 <= self.size <= MOST_HEADER:
            raise _Refused("it has a header that is too long")
        found: Self | None = super()._proc_member(tar)  # type: ignore[misc]
        return found


def unpack(archive: Path, folder: Path, on_bytes: Callable[[int], None] = lambda done: None) -> None:
    """Unpacks a zip or a tar (also gz, bz2 or xz) into a new folder.

    Files and folders only, each once, with plain names; permissions, owners and times stay behind.

    Arguments:
        on_bytes: is told how many bytes were written so far.

    Raises `DatasetError` for an archive that is damaged or cut off, and for one with a path outside, a link, a device, two
    files of one name, or more files or bytes than an archive of photos has; what was unpacked by then stays in the folder.
    """
    folder.mkdir(parents=True)
    count = said = written = 0
    most = RATIO * archive.stat().st_size + SPARE
    with file_errors(folder, DatasetError, option="--data-root"), archive_errors(archive):
        for name, size, content in _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_files(archive):
            target = folder.joinpath(*_plain_parts(name))
            count, said = count + 1, said + size
            if said > most:
                raise _Refused(f"its files have more than {most:,} bytes together, which photos have not")
            if count > MOST_FILES:
                raise _Refused(f"it has more than {MOST_FILES:,} files")
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                while chunk := content.read(CHUNK):
                    file.write(chunk)
                    on_bytes(written := written + len(chunk))


@contextmanager
def archive_errors(archive: Path, failed: str = "the archive cannot be unpacked") -> Iterator[None]:
    """Within it, whatever a hostile or damaged archive makes of its reader is a `DatasetError`."""
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        problem = str(error) if isinstance(error, _Refused) else f"it is damaged or cut off ({error})"
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            problem = f"{one_line(Path(str(error.filename)).name)!r} stands twice in it"
        elif isinstance(error, OSError) and error.errno is not None:  # the file system's
            raise
        remedy = "get it again, from where it was published"
        raise DatasetError(f"{failed}: {problem}", where=archive, remedy=remedy) from error


def _plain_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a path in an archive; raises `ValueError` for one that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _Refused(f"{one_line(name[:200])!r} would lie outside of the folder")
    for part in path.parts:
        if problem := name_problem(part, LONGEST):
            raise _Refused(f"it has a file that cannot be named so: {one_line(problem)}")
    return path.parts


def _tar_files(archive: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """(path, bytes, content) of every file, content None for a folder."""
    with archive.open("rb") as file:
        for tar, member in tar_members(file, "r:*"):
            yield member.name, member.size, tar.extractfile(member)


def tar_members(file: IO[bytes], mode: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every file and folder of a tar; raises `ValueError` for any other member, and for a tar without its end.

    mode: of `tarfile.open`: `r:` for plain ones, `r:*` for compressed ones as well.
    """
    with tarfile.open(fileobj=file, mode=mode, tarinfo=_Member) as tar:  # type: ignore[call-overload]
        end = 0
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]
            if member.size < 0:  # with which `tarfile` would go back, and round and round
                raise ValueError("a file of less than no bytes")
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise _Refused(f"{one_line(member.name[:200])!r} is neither a file nor a folder")
            yield tar, member
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        tar.fileobj.seek(end)  # `tarfile` takes a damaged header, and the end of the file, for the end of the archive
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError("its end is missing")
        for _ in range(SPARE // CHUNK):
            if not tar.fileobj.read(CHUNK):  # a compressed one has its checksum at its end
                return
        raise _Refused("far too much lies behind its end")


def _zip_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """As `_tar_files`; a file gives no more bytes than it says, and its CRC is checked at its end."""
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{one_line(info.filename[:200])!r} is neither a file nor a folder")
            if info.flag_bits & 1:
                raise _Refused("it is encrypted")
            if info.is_dir():
                yield info.filename, 0, None
            else:
                with packed.open(info) as content:
                    yield info.filename, info.file_size, content
