"""One command, several workers: the store is cut into parts, workers make them, and what they made is joined.

This process loads no backbone: workers do, on their own machines and devices, and the first of them begins the store. What
is done stands in the store's done-lists, so they are what is looked at: for progress, for what is still missing when a
worker has died, and when the same command is run again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from tosca_cache.datasets import known
from tosca_cache.datasets.catalogue import resolve_data_root
from tosca_cache.errors import StoreError
from tosca_cache.extract.parts import extract_part, join
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.progress import ExtractionProgress
from tosca_cache.extract.request import ExtractRequest, Outcome, command, prepare, source
from tosca_cache.store import (
    Part,
    StoreBusy,
    StoreInProgress,
    open_store,
    partial_path,
    read_unfinished,
)
from tosca_cache.store.locks import exclusive
from tosca_cache.workers import ClusterLost, WorkerDied, Workers, threads_here

PARTS_A_JOB = 8  # so that at the end nobody waits long for the slowest
MOST_PARTS = 256
TRIES = 3  # rounds in a row that end without one more shard
PAUSE = 1.0  # seconds between two looks at the done-lists
PATIENCE = 30.0  # seconds that another machine's files may take to be seen here
T = TypeVar("T")


@dataclass(frozen=True)
class Begun:
    """A store that a worker has found or begun.

    path: where it is or will be. finished: it is. host: where the worker runs. shards: of the whole store.
    lines: what there is to say about it. error: see `Extraction.relative_error`. workers: threads of a job.
    """

    path: Path
    finished: bool
    host: str
    shards: int = 0
    lines: tuple[str, ...] = ()
    error: float | None = None
    workers: int = 0


def run_shared(
    request: ExtractRequest,
    *,
    backend: str = "loky",
    n_jobs: int | None = None,
    scheduler: str | None = None,
    show_progress: bool = True,
) -> Outcome:
    """Extracts what is asked for on workers; see `workers.Workers` for backend, n_jobs and scheduler.

    A worker that dies costs the shards that it was making; others make them. If this ends early, by an error or by Ctrl-C,
    the same call goes on.

    Raises what `pipeline.extract` raises, and `WorkerDied` if workers die time and again without getting anything done.
    """
    started = time.monotonic()
    asked = _placed(request)
    later = replace(asked, options=replace(asked.options, restart=False))
    with Workers(backend, n_jobs, scheduler) as workers:
        begun = _one(workers, begin, asked, f"{workers.n_jobs} jobs ({backend})")
        _wait_until_seen(begun.path if begun.finished else partial_path(begun.path), begun.host)
        here = request.root / begun.path.name
        if begun.finished:
            return Outcome(open_store(here), True)
        found = _read(begun)
        _make_all(workers, later, begun, show_progress)
        last_run = {
            "seconds": round(time.monotonic() - started, 3),
            "images": found.rows - found.done_rows,
            "workers": begun.workers,
            "jobs": workers.n_jobs,
            "backend": backend,
        }
        _one(workers, finish, later, last_run, begun.error)
        _wait_until_seen(begun.path, begun.host)
        return Outcome(open_store(here), False)


def begin(request: ExtractRequest, how: str) -> Begun:
    """What the first job does: begins the store, or finds it; raises what `pipeline.extract` raises before it computes.

    how: who is going to make it, for the line that says what is going to happen.
    """
    extraction = _loaded(replace(request, options=replace(request.options, restart=False)))
    extraction = replace(extraction, options=replace(extraction.options, restart=request.options.restart))
    path, host = extraction.path, socket.gethostname()
    if path.exists():
        open_store(path)
        return Begun(path, True, host)
    with extraction.open_writer() as writer:
        error = extraction.relative_error()
        lines = extraction.summary(writer, f"{how} x {extraction.workers} workers", error)
        shards = sum(layout.shards for layout in writer.plan.layouts.values())
    return Begun(path, False, host, shards, tuple(lines), error, request.options.workers or threads_here())


def make_part(request: ExtractRequest, part: Part, host: str) -> str | None:
    """What the other jobs do: makes one part of the store that was begun on `host`; returns who else is at it.

    Raises `StoreError` if that store is not to be seen from here, and what `extract_part` raises.
    """
    extraction = _loaded(request)
    if not extraction.path.exists():
        _wait_until_seen(partial_path(extraction.path), host)
    try:
        extract_part(extraction, part, show_progress=False)
    except StoreBusy as busy:  # a worker that was taken for dead goes on with it
        return busy.problem
    return None


def finish(request: ExtractRequest, last_run: dict[str, Any], error: float | None) -> Path:
    """What the last job does: joins all parts; returns the finished store's path."""
    asked = _loaded(request)
    return join(asked, source=source(request), command=command(request), last_run=last_run, error=error).path


@lru_cache(maxsize=1)
def _loaded(request: ExtractRequest) -> Extraction:
    """Kept from one job of a worker to the next."""
    return prepare(request)


def _make_all(workers: Workers, request: ExtractRequest, begun: Begun, show_progress: bool) -> None:
    """Gives parts to workers until every shard is done, showing how far they are."""
    count = max(1, min(begun.shards, PARTS_A_JOB * workers.n_jobs, MOST_PARTS))
    found = _read(begun)
    name = str(found.plan.spec.dataset["name"])
    with (
        exclusive(begun.path, Part(count, 0)),  # who shares the parts out
        ExtractionProgress(name, found.rows, found.done_rows, quiet=not show_progress) as progress,
    ):
        for line in begun.lines:
            progress.on_note(line)
        stuck, said = 0, ""
        while missing := found.missing(count):
            problem = _make_once(workers, request, list(missing), begun, progress)
            before, found = len(found.done), _read(begun)
            progress.advance(found.done_rows - progress.done)
            stuck = 0 if len(found.done) > before else stuck + 1
            if problem is not None and problem.problem != said:
                said = problem.problem
                progress.on_note(f"{said.splitlines()[0]} Going on with what is missing.")
            # Who is busy is alive, and gets as long as it takes.
            if stuck >= TRIES and not isinstance(problem, StoreBusy):
                raise problem or _unseen(begun.path, begun.host)
            if stuck:
                time.sleep(PAUSE)


def _make_once(
    workers: Workers, request: ExtractRequest, parts: list[Part], begun: Begun, progress: ExtractionProgress
) -> WorkerDied | StoreBusy | None:
    """One go at some parts; returns what kept some of them from being made, if it may be different next time."""
    busy = None
    try:
        for other in workers.run(make_part, ((request, part, begun.host) for part in parts)):
            busy = other or busy
            progress.advance(_read(begun).done_rows - progress.done)
    except ClusterLost:
        raise
    except WorkerDied as death:
        return death
    return None if busy is None else StoreBusy(busy, where=begun.path)


def _one(workers: Workers, function: Callable[..., T], *job: Any) -> T:
    """The result of a single job, given to another worker if one dies of it."""
    for _ in range(TRIES - 1):
        try:
            return next(iter(list(workers.run(function, [job]))))
        except ClusterLost:
            raise
        except WorkerDied:
            continue
    return next(iter(list(workers.run(function, [job]))))


def _read(begun: Begun) -> StoreInProgress:
    found = read_unfinished(partial_path(begun.path))
    if found is None:
        raise StoreError(
            "The unfinished store is gone: somebody has removed or finished it.",
            where=partial_path(begun.path),
            remedy="Run the same command again.",
        )
    return found


def _wait_until_seen(path: Path, host: str) -> None:
    """What was written on another machine may take a moment until it is seen here."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if not path.parent.exists() or time.monotonic() > deadline:
            raise _unseen(path, host)
        time.sleep(PAUSE)


def _unseen(path: Path, host: str) -> StoreError:
    return StoreError(
        f"{socket.gethostname()} does not see what a worker on {host} has written.",
        where=path,
        remedy="Give a --root that all workers and this machine share, under the same path.",
    )


def _placed(request: ExtractRequest) -> ExtractRequest:
    """The same request wherever it is carried out: workers may run in another folder."""
    dataset = request.dataset
    if known(dataset) is None and Path(dataset).exists():
        dataset = str(Path(dataset).absolute())
    return replace(
        request,
        dataset=dataset,
        root=Path(request.root).absolute(),
        weights=None if request.weights is None else Path(request.weights).absolute(),
        data_root=resolve_data_root(request.data_root).absolute(),
    )
