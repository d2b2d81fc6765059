"""Getting a dataset: its archive is downloaded, checked, and unpacked beside its place, then put there whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tosca_cache.datasets.archives import unpack
from tosca_cache.datasets.catalogue import counts_of, load_published
from tosca_cache.datasets.registry import CIFAR_FOLDER, KnownDataset
from tosca_cache.datasets.rows import is_visible
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.files import file_errors

WORKPLACE = ".fetched"  # below the data root: archives on their way
TIMEOUT, RETRIES = (8.0, 60.0), 3  # seconds to connect and until the next bytes; times that a cut download goes on
Step = Callable[..., None]  # (description=, total=, completed=), as `bars.counting` yields it
Counts = tuple[int, int, int]
AGAIN = "get it again, from its source"


def fetch(
    source: KnownDataset,
    data_root: Path,
    *,
    mirror: str | None = None,
    file: Path | None = None,
    step: Step = lambda **changes: None,
) -> Counts:
    """Puts a dataset below the data root, whole; the same call goes on with a download that was interrupted.

    Arguments:
        mirror: an address below which the archive lies under its own name, instead of its source.
        file: the archive itself, which stays where it is.

    Returns (classes, train, test images).

    Raises:
        UsageError: it needs gdown, or a browser; there is no such file.
        DatasetError: it cannot be downloaded, its bytes or counts are not those wanted, or something is in the way.
    """
    if file is not None and not file.is_file():
        raise UsageError("there is no such archive", where=f"--from {file}", remedy="give the archive's path")
    folder, work = data_root / source.place, data_root / WORKPLACE
    if folder.exists():
        remedy = "move it, or give another folder with --data-root DIR"
        raise DatasetError(f"something else is where {source.name} is to lie", where=folder, remedy=remedy)
    with _alone(work, source.name):
        archive = file or _download(source, work, mirror, step)
        try:
            _check(source, archive, step)
        except DatasetError:
            if file is None:
                archive.unlink()
            raise
        counts = _place(source, archive, work, folder, step)
        if file is None:
            archive.unlink()
    return counts


def present(source: KnownDataset, data_root: Path) -> Counts | None:
    """(classes, train, test) of the dataset in its place; None if it is not there as it is wanted."""
    with suppress(DatasetError):
        return counts_of(load_published(source, data_root / source.place))
    return None


@contextmanager
def _alone(work: Path, name: str) -> Iterator[None]:
    lock = work / f"{name}.lock"
    with file_errors(work, DatasetError, option="--data-root"):
        work.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                "another process is fetching this dataset", where=lock, remedy="wait for its end, then try again"
            ) from error
        yield


def _download(source: KnownDataset, work: Path, mirror: str | None, step: Step) -> Path:
    """The archive in the workplace, by gdown, which resumes, from Google Drive and from other servers."""
    archive = work / str(source.archive)
    if archive.is_file():
        return archive
    url = source.url if mirror is None else f"{mirror.rstrip('/')}/{source.archive}"
    if url is None and source.drive is None:
        remedy = f"download {source.archive} there, then: tosca fetch {source.name} --from {source.archive}"
        raise UsageError(f"the archive of {source.name} needs a browser", where=source.page, remedy=remedy)
    try:
        import gdown
        import requests
    except ImportError as error:
        remedy = f"pip install 'tosca-cache[fetch]'; or get {source.archive} from {source.origin}, for --from FILE"
        raise UsageError("downloading needs the package gdown", where="tosca fetch", remedy=remedy) from error
    step(description=f"download {source.archive}", total=source.size, completed=0)
    how: dict[str, Any] = {"quiet": True, "use_cookies": False, "resume": True, "timeout": TIMEOUT, "retries": RETRIES}
    how |= {"id": source.drive} if url is None else {"url": url}
    for begun_anew in (False, True):
        try:
            gdown.download(
                output=str(archive),
                progress=lambda done, total: step(completed=done, total=source.size or total),
                **how,
            )
            return archive
        except (gdown.exceptions.DownloadError, requests.RequestException, ValueError) as error:
            if "byte range" in str(error) and not begun_anew:  # the server does not go on where it is asked to
                for part in work.glob(f"{source.archive}*.part"):
                    part.unlink()
                continue
            raise DatasetError(
                f"the archive of {source.name} could not be downloaded: {' '.join(str(error).split())[:300]}",
                where=url or source.origin,
                remedy="run the same command again, it goes on with the bytes that are here; or give another place with "
                "--mirror URL, or the archive with --from FILE",
            ) from error
    raise AssertionError("the second try returns or raises")


def _check(source: KnownDataset, archive: Path, step: Step) -> None:
    """Raises `DatasetError` for an archive of another size, or with another checksum, than is stated."""
    size = archive.stat().st_size
    step(description=f"check {source.archive}", total=None, completed=0)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if source.md5 not in (None, found) or source.size not in (None, size):
        raise DatasetError(
            f"the archive of {source.name} has {size:,} bytes with md5 {found}, but wanted are "
            f"{source.size or 'any number of'} with {source.md5} (stated by {source.stated_by})",
            where=archive,
            remedy=f"{AGAIN}; what was downloaded is thrown away",
        )


def _place(source: KnownDataset, archive: Path, work: Path, folder: Path, step: Step) -> Counts:
    """Unpacks the archive, counts what is in it, and puts the folder that is wanted in its place; all of it or nothing."""
    unpacked = work / f"{source.name}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        step(description=f"unpack {source.archive}", total=None, completed=0)
        unpack(archive, unpacked, lambda done: step(completed=done))
        tree = _tree(source, unpacked, archive)
        counts = counts_of(load_published(source, tree))
        with file_errors(folder, DatasetError, option="--data-root"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.sync()
            tree.rename(folder)
        return counts
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _tree(source: KnownDataset, unpacked: Path, archive: Path) -> Path:
    """The folder that is wanted, wherever the archive has it; the one that is least deep. A folder val becomes test."""
    cifar, level = source.layout == "cifar100", [unpacked]
    while level:
        for folder in level:
            if folder.name == CIFAR_FOLDER if cifar else (folder / "train").is_dir():
                if (folder / "val").is_dir() and not (folder / "test").exists():
                    (folder / "val").rename(folder / "test")
                return folder
        below = (path for folder in level for path in sorted(folder.iterdir()))
        level = [path for path in below if path.is_dir() and is_visible(path.name)]
    wanted = CIFAR_FOLDER if cifar else "train"
    raise DatasetError(f"the archive of {source.name} has no folder {wanted}", where=archive, remedy=AGAIN)
