"""One store, several processes: a part each (`--part`), or workers of one command that take parts (`--jobs`)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from tosca_cache.errors import StoreError, ToscaError
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.progress import ImageProgress
from tosca_cache.extract.request import ExtractRequest, prepare
from tosca_cache.store import Part, Store, StoreBusy, StoreInProgress, partial_path, read_unfinished
from tosca_cache.store.locks import exclusive
from tosca_cache.workers import WorkerDied, Workers

PARTS_A_JOB = 8  # so that at the end nobody waits long for the slowest
MOST_PARTS = 256
TRIES = 3  # rounds in a row that end without one more shard
PAUSE = 1.0  # seconds after such a round: a worker that was killed may not have ended yet


def extract_part(extraction: Extraction, part: Part, *, show_progress: bool = True) -> StoreInProgress:
    """Makes the shards of a part that nobody has made yet; other processes may make other parts at the same time.

    Returns the unfinished store as it is then: `Extraction.run` finishes it. Raises what that raises; `StoreBusy` if this
    part, or all of the store, is being written; `StoreError` if it is finished.
    """
    with extraction.open_writer(part) as writer:
        extraction.write_shards(writer, show_progress=show_progress)
    return _read(extraction.path)


def run_jobs(request: ExtractRequest, extraction: Extraction, n_jobs: int) -> Store:
    """Extracts what is asked for in `n_jobs` processes of this machine, which take parts until every shard is done.

    A process that dies costs the shards that it was making; others make them. If this ends early, by an error or by Ctrl-C,
    the same call goes on.

    Raises what `Extraction.run` raises, and `WorkerDied` if workers die time and again without getting anything done.
    """
    begun, path = time.monotonic(), extraction.path
    with Workers("loky", n_jobs) as workers:
        with extraction.open_writer() as writer:
            lines, done = extraction.summary(writer, f"{n_jobs} jobs"), writer.done_rows
        kept = replace(request.options, restart=False)
        name = f"extract {extraction.dataset.name}"
        with ImageProgress(name, writer.total_rows, done) as progress:
            for line in lines:
                progress.on_note(line)
            _make_all(workers, replace(request, options=kept), path, progress)
    last_run = {"seconds": round(time.monotonic() - begun, 3), "images": writer.total_rows - done, "jobs": n_jobs}
    extraction = replace(extraction, options=replace(extraction.options, restart=False))
    with extraction.open_writer() as writer:
        return extraction.finish(writer, last_run)


def _make_all(workers: Workers, request: ExtractRequest, path: Path, progress: ImageProgress) -> None:
    """Gives parts to workers until every shard is done; the store says what is, also when a worker has died."""
    found, fruitless = _read(path), 0
    count = max(1, min(len(found.shards), PARTS_A_JOB * workers.n_jobs, MOST_PARTS))
    with exclusive(path, Part(count, 0)):  # who shares the parts out
        while missing := [part for k in range(count) if found.pending(part := Part(count, k + 1))]:
            problem: ToscaError = StoreBusy(
                "Another process is making what is missing.", where=path, remedy="Run the same command again later."
            )
            try:
                for _ in workers.run(_make_part, ((request, part) for part in missing)):
                    progress.advance(_read(path).done_rows - progress.done)
            except WorkerDied as death:
                problem = death
                progress.on_note(f"{death.problem.splitlines()[0]} Going on with what is missing.")
            before, found = len(found.done), _read(path)
            progress.advance(found.done_rows - progress.done)
            fruitless = 0 if len(found.done) > before else fruitless + 1
            if fruitless >= TRIES:
                raise problem
            time.sleep(PAUSE if fruitless else 0)


def _make_part(request: ExtractRequest, part: Part) -> None:
    """What a job does: makes one part of the store that was begun, unless a worker that was killed is still at it."""
    with suppress(StoreBusy):
        extract_part(_loaded(request), part, show_progress=False)


@lru_cache(maxsize=1)
def _loaded(request: ExtractRequest) -> Extraction:
    """Kept from one job of a worker to the next."""
    return prepare(request)


def _read(path: Path) -> StoreInProgress:
    found = read_unfinished(partial_path(path))
    if found is None:
        raise StoreError(
            "The unfinished store is gone: somebody has removed or finished it.",
            where=partial_path(path),
            remedy="Run the same command again.",
        )
    return found
