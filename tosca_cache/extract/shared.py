"""One command, several workers: the store is cut into parts, workers make them, and what they made is joined.

This process loads no backbone: workers do, on their own machines and devices, and the first of them begins the store. What
is done stands in the store's done-lists, so they are what is looked at: for progress, for what is still missing when a
worker has died, and when the same command is run again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tosca_cache.datasets import known
from tosca_cache.datasets.catalogue import resolve_data_root
from tosca_cache.errors import StoreError, ToscaError
from tosca_cache.extract.jobs import Begun, begin, finish, make_part
from tosca_cache.extract.progress import ExtractionProgress
from tosca_cache.extract.request import ExtractRequest, Outcome
from tosca_cache.store import Part, StoreBusy, StoreInProgress, open_store, partial_path, read_unfinished, sharing_out
from tosca_cache.workers import ClusterLost, WorkerDied, Workers

PARTS_A_JOB = 8  # so that at the end nobody waits long for the slowest
MOST_PARTS = 256
TRIES = 3  # rounds in a row that end without one more shard
PAUSE = 1.0  # seconds between two looks at the done-lists
PATIENCE = 30.0  # seconds that another machine's files may take to be seen here
T = TypeVar("T")


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
    begun = time.monotonic()
    asked = _placed(request)
    with Workers(backend, n_jobs, scheduler) as workers:
        state = _one(workers, begin, asked, f"{workers.n_jobs} jobs ({backend})")
        path = Path(state.path)
        _wait_until_seen(state, path if state.finished else partial_path(path))
        here = request.root / path.name
        if state.finished:
            return Outcome(open_store(here), True)
        found = _read(path)
        later = replace(asked, options=replace(asked.options, restart=False))
        _Sharing(workers, later, state).make_all(show_progress)
        last_run = {
            "seconds": round(time.monotonic() - begun, 3),
            "images": found.rows - found.done_rows,
            "workers": state.workers,
            "jobs": workers.n_jobs,
            "backend": backend,
        }
        _one(workers, finish, later, last_run, state.error)
        _wait_until_seen(state, path)
        return Outcome(open_store(here), False)


@dataclass(frozen=True)
class _Sharing:
    """The parts of one store, given to workers until nothing is missing."""

    workers: Workers
    request: ExtractRequest
    begun: Begun

    @property
    def path(self) -> Path:
        """Where the finished store will be."""
        return Path(self.begun.path)

    @property
    def count(self) -> int:
        """How many parts the store is cut into."""
        return max(1, min(self.begun.shards, PARTS_A_JOB * self.workers.n_jobs, MOST_PARTS))

    def make_all(self, show_progress: bool) -> None:
        """Gives parts to workers until every shard is done, showing how far they are."""
        found = _read(self.path)
        name = str(found.plan.spec.dataset["name"])
        with (
            sharing_out(self.path, self.count) as lock,
            ExtractionProgress(name, found.rows, found.done_rows, quiet=not show_progress) as progress,
        ):
            for line in self.begun.lines:
                progress.announce(line)
            with _watching(self.path, progress):
                self._until_complete(lock.text, progress)

    def _until_complete(self, text: str, progress: ExtractionProgress) -> None:
        stuck, said = 0, ""
        while True:
            found = _read(self.path)
            missing = found.missing(self.count)
            if not missing:
                return
            problem = self._once(list(missing), text)
            stuck = 0 if len(_read(self.path).done) > len(found.done) else stuck + 1
            if problem is not None and problem.problem != said:
                said = problem.problem
                progress.announce(f"{said.splitlines()[0]} Going on with what is missing.")
            # Who is busy is alive, and gets as long as it takes.
            if stuck >= TRIES and not isinstance(problem, StoreBusy):
                raise problem or _unseen(self.begun)
            if stuck:
                time.sleep(PAUSE)

    def _once(self, parts: list[Part], text: str) -> WorkerDied | StoreBusy | None:
        """One go at these parts; returns what kept some of them from being made, if it may be different next time."""
        busy = None
        try:
            for made in self.workers.run(make_part, ((self.request, part, text) for part in parts)):
                busy = made.busy or busy
        except ClusterLost:
            raise
        except WorkerDied as death:
            return death
        return None if busy is None else StoreBusy(busy, where=self.path)


@contextmanager
def _watching(path: Path, progress: ExtractionProgress) -> Iterator[None]:
    """Shows what the done-lists say, while workers add to them."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(PAUSE):
            with suppress(ToscaError):  # a file system that stumbles; whoever needs the files will say so
                progress.advance(_read(path).done_rows - progress.done)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(ToscaError):
            progress.advance(_read(path).done_rows - progress.done)


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


def _read(path: Path) -> StoreInProgress:
    found = read_unfinished(partial_path(path))
    if found is None:
        raise StoreError(
            "The unfinished store is gone: somebody has removed or finished it.",
            where=partial_path(path),
            remedy="Run the same command again.",
        )
    return found


def _wait_until_seen(begun: Begun, path: Path) -> None:
    """What a worker on another machine has written may take a moment until it is seen here."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if not path.parent.exists() or time.monotonic() > deadline:
            raise _unseen(begun)
        time.sleep(PAUSE)


def _unseen(begun: Begun) -> StoreError:
    return StoreError(
        f"This machine does not see what a worker on {begun.host} has written.",
        where=begun.path,
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
