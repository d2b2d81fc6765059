"""Getting a dataset: its archive is downloaded, checked, and unpacked beside its place, then put there whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tosca_cache.datasets.archives import CHUNK, unpack
from tosca_cache.datasets.download import Step, address_below, download
from tosca_cache.datasets.folders import count_images
from tosca_cache.datasets.names import is_visible
from tosca_cache.datasets.rows import SPLITS
from tosca_cache.datasets.sources import Source
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.files import file_errors, strict_json, write_json

WORKPLACE = ".fetched"  # below the data root: archives on their way, and what is recorded of those that arrived
Wanted = tuple[Literal["md5", "sha256"], str | None, str]  # which digest, what it must be, and who says so


@dataclass(frozen=True)
class Fetched:
    """A dataset that is there. folder: where. counts: classes, train and test images. record: see `read_record`.

    was_there: nothing was done.
    """

    source: Source
    folder: Path
    counts: tuple[int, int, int]
    record: dict[str, Any] | None
    was_there: bool


def fetch(
    source: Source,
    data_root: Path,
    *,
    mirror: str | None = None,
    file: Path | None = None,
    sha256: str | None = None,
    step: Step = lambda **changes: None,
) -> Fetched:
    """Puts a dataset below the data root, whole; the same call goes on with a download that was interrupted.

    Arguments:
        mirror: an address below which the archive lies under its own name, instead of its source.
        file: the archive itself, which stays where it is.
        sha256: of the archive; it then stands for the published checksum, as of an archive that was packed anew.

    Raises:
        UsageError: it needs gdown, or a browser; the mirror or the checksum cannot be one.
        DatasetError: it cannot be downloaded, its bytes or counts are not those wanted, or something is in the way.
    """
    _check(mirror, file, sha256)
    folder, work = data_root / source.place, data_root / WORKPLACE
    recorded = read_record(source.name, data_root)
    if (found := present(source, data_root)) is not None and found == (source.counts or found):
        return Fetched(source, folder, found, recorded, True)
    if folder.exists():
        raise DatasetError(
            f"something else is where {source.name} is to lie",
            where=folder,
            remedy="move it, or give another folder with --data-root DIR",
        )
    with file_errors(work, DatasetError, option="--data-root"):
        work.mkdir(parents=True, exist_ok=True)
    with _alone(work / f"{source.name}.lock"):
        archive = file or download(source, work, mirror, step)
        origin = str(file) if file else (address_below(mirror, source) if mirror else source.origin)
        wanted = _wanted(source, sha256, recorded, data_root)
        record = _verified(source, archive, origin, wanted, step, ours=file is None)
        counts = _place(source, archive, work, folder, step)
        write_json(_record_path(source.name, data_root), record)
        if file is None:
            archive.unlink()
    return Fetched(source, folder, counts, record, False)


def present(source: Source, data_root: Path) -> tuple[int, int, int] | None:
    """(classes, train, test) of what lies in its place; None if there is nothing that could be counted."""
    folder = data_root / source.place
    return _count(source, folder) if folder.is_dir() else None


def read_record(name: str, data_root: Path) -> dict[str, Any] | None:
    """What was recorded of an archive when it was unpacked (origin, bytes, md5, sha256, checked, when), if it was."""
    try:
        found = strict_json(_record_path(name, data_root).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _record_path(name: str, data_root: Path) -> Path:
    return data_root / WORKPLACE / f"{name}.json"


def _check(mirror: str | None, file: Path | None, sha256: str | None) -> None:
    if mirror is not None and file is not None:
        raise UsageError("there is either a mirror or a file", where="--from", remedy="leave one of them out")
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise UsageError(
            "this is no address of a mirror",
            where=f"--mirror {mirror[:200]}",
            remedy="give one with http:// or https://",
        )
    if file is not None and not file.is_file():
        raise UsageError("there is no such archive", where=f"--from {file}", remedy="give the archive's path")
    if sha256 is not None and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
        raise UsageError("this is no SHA-256", where="--sha256", remedy="give its 64 hexadecimal digits")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with file_errors(lock, DatasetError, option="--data-root"), lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                "another process is fetching this dataset", where=lock, remedy="wait for its end, then try again"
            ) from error
        yield


def _verified(source: Source, archive: Path, origin: str, wanted: Wanted, step: Step, *, ours: bool) -> dict[str, Any]:
    """What is to be recorded of the archive; if its bytes are wrong, removes one of ours and raises `DatasetError`."""
    size = archive.stat().st_size
    step(description=f"check {source.archive}", total=size, completed=0)
    found = dict(zip(("md5", "sha256"), _digests(archive, step), strict=True))
    kind, digest, checked = wanted
    if digest is not None and found[kind] != digest:
        if ours:
            archive.unlink()
        raise DatasetError(
            f"the archive of {source.name} has {size:,} bytes with {kind} {found[kind]}, "
            f"but wanted is {digest} ({checked})",
            where=origin,
            remedy="get it again, from its source; what was downloaded is thrown away" if ours else "get it again",
        )
    return {"origin": origin, "bytes": size, **found, "checked": checked, "when": time.strftime("%Y-%m-%d %H:%M:%S")}


def _wanted(source: Source, sha256: str | None, recorded: dict[str, Any] | None, data_root: Path) -> Wanted:
    """What the archive is held to: what the user says, what is published, or what the first one had."""
    if sha256 is not None:
        return "sha256", sha256.lower(), "sha256 given with --sha256"
    if source.sha256 is not None:
        return "sha256", source.sha256, f"sha256 stated by {source.stated_by}"
    if source.md5 is not None:
        return "md5", source.md5, f"md5 stated by {source.stated_by}"
    if recorded is not None and isinstance(recorded.get("sha256"), str):
        return "sha256", recorded["sha256"], f"sha256 of the first download, in {_record_path(source.name, data_root)}"
    return "sha256", None, "nothing, for nobody states a checksum; --sha256 holds the next download to this one"


def _digests(path: Path, step: Step) -> tuple[str, str]:
    """md5 and SHA-256 of a file."""
    md5, sha256, done = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
            step(completed=(done := done + len(chunk)))
    return md5.hexdigest(), sha256.hexdigest()


def _place(source: Source, archive: Path, work: Path, folder: Path, step: Step) -> tuple[int, int, int]:
    """Unpacks the archive, counts what is in it, and puts the folder that is wanted in its place; all of it or nothing."""
    unpacked = work / f"{source.name}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        step(description=f"unpack {source.archive}", total=None, completed=0)
        unpack(archive, unpacked, lambda done: step(completed=done))
        tree = _tree(source, unpacked, archive)
        for old, new in source.renamed:
            (tree / old).rename(tree / new)
        counts = _count(source, tree)
        if counts is None or counts != (source.counts or counts):
            raise DatasetError(
                "the archive of {} has {} classes, {} train and {} test images, but wanted are {}, {} and {}".format(
                    source.name, *(counts or "???"), *(source.counts or "???")
                ),
                where=archive,
                remedy="get it again, from its source",
            )
        with file_errors(folder, DatasetError, option="--data-root"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.sync()
            tree.rename(folder)
        return counts
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _tree(source: Source, unpacked: Path, archive: Path) -> Path:
    """The folder that is wanted, wherever the archive has it; the one that is least deep."""
    level = [unpacked]
    while level:
        for folder in level:
            if all((folder / name).is_dir() for name in source.inside):
                return folder / (source.take or "")
        level = [
            path for folder in level for path in sorted(folder.iterdir()) if path.is_dir() and is_visible(path.name)
        ]
    raise DatasetError(
        f"the archive of {source.name} has no folder with {' and '.join(source.inside)}",
        where=archive,
        remedy="get it again, from its source",
    )


def _count(source: Source, folder: Path) -> tuple[int, int, int] | None:
    if source.name == "cifar100":
        from tosca_cache.datasets.cifar import load_cifar100

        with suppress(DatasetError):
            dataset = load_cifar100(folder.parent)
            return len(dataset.class_names), len(dataset.splits["train"]), len(dataset.splits["test"])
        return None
    found = count_images(folder, (".",) if source.counts and not source.counts[2] else SPLITS)
    return None if found is None else (found[0], found[1], found[2] if len(found) > 2 else 0)
