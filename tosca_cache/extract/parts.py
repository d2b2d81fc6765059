"""One store, several processes: a part each (`--part`, `--join`), or workers of one command that take parts (`--jobs`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.progress import ImageProgress
from tosca_cache.extract.request import ExtractRequest, Outcome, command, prepare, refuse_restart, source
from tosca_cache.store import (
    Part,
    Store,
    StoreBusy,
    StoreInProgress,
    StoreWriter,
    open_store,
    partial_path,
    read_unfinished,
)
from tosca_cache.store.locks import exclusive
from tosca_cache.workers import WorkerDied, Workers

PARTS_A_JOB = 8  # so that at the end nobody waits long for the slowest
MOST_PARTS = 256
TRIES = 3  # rounds in a row that end without one more shard
PAUSE = 1.0  # seconds between two looks at the done-lists


def run_part(request: ExtractRequest, part: Part) -> Store | StoreInProgress:
    """Makes one part of what is asked for; see `extract_part`. Raises `UsageError` for a restart."""
    refuse_restart(request, "--part", "what the other parts have done")
    return extract_part(prepare(request), part)


def run_join(request: ExtractRequest) -> Outcome:
    """Joins the parts of what is asked for; see `join`. Raises `UsageError` for a restart."""
    refuse_restart(request, "--join", "what is to be joined")
    asked = prepare(request)
    was_there = asked.path.exists()
    return Outcome(join(asked, source=source(request), command=command(request)), was_there)


def extract_part(extraction: Extraction, part: Part, *, show_progress: bool = True) -> Store | StoreInProgress:
    """Makes the shards of a part that nobody has made yet; other processes may make other parts at the same time.

    Returns the store as it is then, unfinished or not. Raises what `pipeline.extract` raises; `StoreBusy` if this part,
    or all of the store, is being written.
    """
    path = extraction.path
    if path.exists():
        return open_store(path)
    with extraction.open_writer(part) as writer:
        error = extraction.relative_error() if show_progress else None
        extraction.write_shards(writer, error, part.label, show_progress=show_progress)
    return read_unfinished(partial_path(path)) or open_store(path)


def join(
    extraction: Extraction,
    *,
    source: dict[str, Any] | None = None,
    command: str = "tosca extract",
    last_run: dict[str, Any] | None = None,
    error: float | None = None,
) -> Store:
    """Checks that all shards are there, gives the store its final name, and opens it; one that is finished is opened.

    command: the `tosca extract` command of this store, for messages. last_run: what the provenance says about the run.
    error: `Extraction.relative_error`, measured here if None.

    Raises `StoreError` if nothing was begun or shards are missing; `StoreBusy` while parts are being written.
    """
    path = extraction.path
    if path.exists():
        return open_store(path)
    # Nothing is computed here, so it does not matter what the bits would depend on if it were.
    facts = StoreWriter.recorded_numerics(path)
    if facts is None:
        raise StoreError(
            "There is nothing to join: no part of this store has been begun.",
            where=partial_path(path),
            remedy=f"Run {command} --part 1/n and the other parts first. If you have: this command must have the same "
            "options and precision as theirs (--precision auto differs from machine to machine); see `tosca cache ls`.",
        )
    kept = replace(extraction, options=replace(extraction.options, restart=False))
    with kept.open_writer(facts=facts) as writer:
        if writer.pending():
            raise _incomplete(_read(path), command)
        error = extraction.relative_error() if error is None else error
        return kept.finish(writer, source or {}, error, last_run or {})


def _incomplete(found: StoreInProgress, command: str) -> StoreError:
    left, total = len(found.shards) - len(found.done), len(found.shards)
    return StoreError(
        f"The store is not complete: {left} of {total} shards are missing.",
        where=found.folder,
        remedy=f"Make what is missing, by {command}, or by --part I/N of it in N processes.",
    )


def run_shared(request: ExtractRequest, n_jobs: int | None = None, *, show_progress: bool = True) -> Outcome:
    """Extracts what is asked for in `n_jobs` processes of this machine, which take parts until every shard is done.

    A process that dies costs the shards that it was making; others make them. If this ends early, by an error or by Ctrl-C,
    the same call goes on.

    Raises what `pipeline.extract` raises, and `WorkerDied` if workers die time and again without getting anything done.
    """
    started, asked = time.monotonic(), prepare(request)
    if asked.path.exists():
        return Outcome(open_store(asked.path), True)
    with Workers("loky", n_jobs) as workers:
        with asked.open_writer() as writer:
            error = asked.relative_error()
            lines, done = asked.summary(writer, f"{workers.n_jobs} jobs", error), writer.done_rows
        later = replace(request, options=replace(request.options, restart=False))
        rows = _make_all(workers, later, asked.path, lines, show_progress=show_progress)
    seconds = round(time.monotonic() - started, 3)
    last_run = {"seconds": seconds, "images": rows - done, "jobs": workers.n_jobs}
    return Outcome(join(asked, source=source(request), command=command(request), last_run=last_run, error=error), False)


def make_part(request: ExtractRequest, part: Part) -> str | None:
    """What a job does: makes one part of the store that was begun; returns who else is at it."""
    try:
        extract_part(_loaded(request), part, show_progress=False)
    except StoreBusy as busy:  # a worker that was taken for dead goes on with it
        return busy.problem
    return None


@lru_cache(maxsize=1)
def _loaded(request: ExtractRequest) -> Extraction:
    """Kept from one job of a worker to the next."""
    return prepare(request)


def _make_all(
    workers: Workers, request: ExtractRequest, path: Path, lines: Sequence[str], *, show_progress: bool
) -> int:
    """Gives parts to workers until every shard is done, showing how far they are; returns the rows of the store.

    The store says what is done, so it is looked at: for progress, and for what is missing when a worker
    has died.
    """
    found, stuck = _read(path), 0
    count = max(1, min(len(found.shards), PARTS_A_JOB * workers.n_jobs, MOST_PARTS))
    name = f"extract {found.plan.spec.dataset['name']}"
    with (
        exclusive(path, Part(count, 0)),  # who shares the parts out
        ImageProgress(name, found.rows, found.done_rows, quiet=not show_progress) as progress,
    ):
        for line in lines:
            progress.on_note(line)
        while missing := found.missing(count):
            problem: WorkerDied | StoreBusy | None = None
            try:
                for busy in workers.run(make_part, ((request, part) for part in missing)):
                    problem = StoreBusy(busy, where=path) if busy else problem
                    progress.advance(_read(path).done_rows - progress.done)
            except WorkerDied as death:
                problem = death
            before, found = len(found.done), _read(path)
            progress.advance(found.done_rows - progress.done)
            stuck = 0 if len(found.done) > before else stuck + 1
            if problem is not None and stuck <= 1:
                progress.on_note(f"{problem.problem.splitlines()[0]} Going on with what is missing.")
            # Who is busy is alive, and gets as long as it takes.
            if stuck >= TRIES and not isinstance(problem, StoreBusy):
                raise problem or StoreError("Workers make nothing.", where=path, remedy="Leave --jobs out.")
            time.sleep(PAUSE if stuck else 0)
    return found.rows


def _read(path: Path) -> StoreInProgress:
    found = read_unfinished(partial_path(path))
    if found is None:
        raise StoreError(
            "The unfinished store is gone: somebody has removed or finished it.",
            where=partial_path(path),
            remedy="Run the same command again.",
        )
    return found
