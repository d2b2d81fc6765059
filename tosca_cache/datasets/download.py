"""Downloading an archive, from where it was published or from a mirror; what was interrupted goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tosca_cache.datasets.sources import Source
from tosca_cache.errors import DatasetError, UsageError

TIMEOUT = (8.0, 60.0)  # seconds to connect, and until the next bytes
NO_RANGE = "byte range"  # what gdown says of a server that does not go on where it is asked to
Step = Callable[..., None]  # (description=, total=, completed=), as `bars.counting` yields it


def address_below(mirror: str, source: Source) -> str:
    """Where a mirror has the archive of a source."""
    return f"{mirror.rstrip('/')}/{source.archive}"


def download(source: Source, work: Path, mirror: str | None, step: Step) -> Path:
    """The archive in the workplace; what is there of it already is kept."""
    archive = work / source.archive
    if archive.is_file():
        return archive
    if mirror is None and source.url is None and source.drive is None:
        raise UsageError(
            f"the archive of {source.name} can only be had with a browser",
            where=source.page,
            remedy=f"download {source.archive} there, then: tosca fetch {source.name} --from {source.archive}",
        )
    url = address_below(mirror, source) if mirror else source.url
    step(description=f"download {source.archive}", total=source.size, completed=0)
    begun_anew, before = False, _kept(archive)
    while (failure := _get(url, source, archive, step)) is not None:
        if NO_RANGE in str(failure) and not begun_anew:
            # It cannot go on, or what is here is no beginning of what it has.
            begun_anew = True
            _discard(archive)
        elif (kept := _kept(archive)) <= before:
            goes_on = (
                f"run the same command again, it goes on after the {kept:,} bytes that are here; or " if kept else ""
            )
            raise DatasetError(
                f"the archive of {source.name} could not be downloaded: {' '.join(str(failure).split())[:300]}",
                where=url or source.origin,
                remedy=f"{goes_on}give another place with --mirror URL, or the archive with --from FILE",
            )
        before = _kept(archive)
    return archive


def _get(url: str | None, source: Source, archive: Path, step: Step) -> Exception | None:
    """Downloads with gdown, which resumes, from Google Drive and from other servers; why it ended early, if it did."""
    try:
        import gdown
        import requests
    except ImportError as error:
        raise UsageError(
            "downloading needs the package gdown",
            where="tosca fetch",
            remedy=f"pip install 'tosca-cache[fetch]'; or get {source.archive} yourself ({source.origin}), and give it "
            "with --from FILE",
        ) from error

    def on_bytes(done: int, total: int | None) -> None:
        """Shows how far it is; ends a download of more bytes than were published."""
        found = max(done, total or 0)
        if source.size is not None and found > source.size:
            raise DatasetError(
                f"the archive of {source.name} has {found:,} bytes, but the published one has {source.size:,}",
                where=url or source.origin,
                remedy="get it from its source (leave --mirror out)",
            )
        step(completed=done, total=source.size or total)

    where: dict[str, Any] = {"id": source.drive} if url is None else {"url": url}
    how: dict[str, Any] = {"quiet": True, "use_cookies": False, "resume": True, "timeout": TIMEOUT, "retries": 1}
    try:
        gdown.download(**where, output=str(archive), progress=on_bytes, **how)
    except DatasetError:
        _discard(archive)
        raise
    except (gdown.exceptions.DownloadError, requests.RequestException) as error:
        return error
    return None


def _parts(archive: Path) -> list[Path]:
    """What an interrupted download has left of it: gdown writes beside, under a random name."""
    return [path for path in archive.parent.glob("*.part") if path.name.startswith(archive.name)]


def _kept(archive: Path) -> int:
    return sum(part.stat().st_size for part in _parts(archive))


def _discard(archive: Path) -> None:
    for part in _parts(archive):
        part.unlink(missing_ok=True)
