"""What a worker does of an extraction that is shared out: it gets a request, and rebuilds dataset and backbone itself."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.extract.parts import extract_part, join
from tosca_cache.extract.pipeline import Extraction, describe_error
from tosca_cache.extract.request import ExtractRequest, command, prepare, source
from tosca_cache.store import Part, StoreBusy, is_shared_out, open_store
from tosca_cache.workers import threads_here


@dataclass(frozen=True)
class Begun:
    """A store that a worker has found or begun.

    path: where it is or will be. finished: it is. host: where the worker runs. shards: of the whole store.
    lines: what there is to say about it. error: see `Extraction.relative_error`. workers: threads of a job.
    """

    path: str
    finished: bool
    host: str
    shards: int = 0
    lines: tuple[str, ...] = ()
    error: float | None = None
    workers: int = 0


@dataclass(frozen=True)
class Made:
    """What became of a part: nothing to say, or who else was writing it."""

    part: str
    busy: str | None = None


def begin(request: ExtractRequest, how: str) -> Begun:
    """Begins the store, or finds it; raises what `pipeline.extract` raises before it computes anything.

    how: who is going to make it, for the line that says what is going to happen.
    """
    extraction = _loaded(_without_restart(request))
    extraction = replace(extraction, options=replace(extraction.options, restart=request.options.restart))
    path, host = str(extraction.path), socket.gethostname()
    if extraction.path.exists():
        open_store(extraction.path)
        return Begun(path, True, host)
    with extraction.open_writer() as writer:
        error = extraction.relative_error()
        summary = extraction.summary(writer, f"{how} x {extraction.workers} workers")
        lines = (summary, *extraction.remarks(), describe_error(error))
        shards = sum(layout.shards for layout in writer.plan.layouts.values())
    return Begun(path, False, host, shards, lines, error, request.options.workers or threads_here())


def make_part(request: ExtractRequest, part: Part, text: str) -> Made:
    """Makes one part, as long as the lock of who shares parts out is held and says `text`.

    Raises `StoreError` if that is not to be seen from here, and what `extract_part` raises.
    """
    extraction = _loaded(request)

    def given_up() -> bool:
        return not is_shared_out(extraction.path, part.count, text)

    if given_up():
        raise StoreError(
            f"A worker on {socket.gethostname()} does not see the store that was begun here: another run of the command "
            "has taken its place, or the folder is not the same on all machines.",
            where=extraction.path,
            remedy="Give a --root that all workers and this machine share, under the same path.",
        )
    try:
        extract_part(extraction, part, show_progress=False, stop=given_up)
    except StoreBusy as busy:  # a worker that was taken for dead goes on with it
        return Made(str(part), busy.problem)
    return Made(str(part))


def finish(request: ExtractRequest, last_run: dict[str, Any], error: float | None) -> str:
    """Joins all parts; returns the finished store's path."""
    asked = _loaded(request)
    return str(join(asked, source=source(request), command=command(request), last_run=last_run, error=error).path)


@lru_cache(maxsize=1)
def _loaded(request: ExtractRequest) -> Extraction:
    """Kept from one job of a worker to the next."""
    return prepare(request)


def _without_restart(request: ExtractRequest) -> ExtractRequest:
    return replace(request, options=replace(request.options, restart=False))
