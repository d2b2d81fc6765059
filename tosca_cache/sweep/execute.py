"""Running blocks of cells: in this process, or on workers through joblib. Results come back as each block is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from tosca_cache.devices import resolve_device
from tosca_cache.store import Store
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import Cell
from tosca_cache.sweep.ledger import Finished
from tosca_cache.sweep.scenario import Data
from tosca_cache.sweep.share import SharedFeatures, shared_data
from tosca_cache.train.engines import Engine, choose_engine
from tosca_cache.workers import ClusterLost, WorkerDied, Workers, threads_here

Block = tuple[Cell, ...]
MOST_DEATHS = 3  # of workers in a row without a result between them: then it is not chance


class Executor(Protocol):
    """Runs blocks; a context manager."""

    wave: int  # blocks to be handed over at a time

    def run(self, blocks: Sequence[Block]) -> Iterator[list[Finished]]:
        """The results of each block, in any order."""

    def __enter__(self) -> Self:
        """Starts what it needs."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""


@dataclass
class InProcess:
    """One block after the other, here. on_task: called with tasks learned by the running block, and its tasks."""

    data: Data
    engine: Engine
    on_task: Callable[[int, int], None] | None = None
    wave: int = 1

    def run(self, blocks: Sequence[Block]) -> Iterator[list[Finished]]:
        """The results of each block, as they come."""
        for block in blocks:
            yield run_block(block, self.data, self.engine, on_task=self.on_task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class OnWorkers:
    """Blocks on several processes or machines; what a dead worker had is given to another.

    Arguments:
        engine: its name; each worker trains as many models at a time as it may use threads.
        backend, jobs, scheduler: see `workers.Workers`.
    """

    def __init__(
        self, store: Store, data: Data, engine: Engine, *, backend: str, jobs: int | None, scheduler: str | None
    ) -> None:
        self.workers = Workers(backend, jobs, scheduler)
        self.store, self.data, self.engine = store, data, engine
        self.wave = 2 * self.workers.n_jobs  # with a scheduler, until it has said how many slots there are
        self._stack = ExitStack()
        self._folder = ""

    def run(self, blocks: Sequence[Block]) -> Iterator[list[Finished]]:
        """The results of each block, as they come."""
        left, deaths = dict(enumerate(blocks)), 0
        while left:
            path = str(self.store.path.resolve())  # a worker may stand in another folder
            jobs = [(path, self._folder, self.engine.name, n, block) for n, block in left.items()]
            try:
                for number, finished in self.workers.run(run_job, jobs):
                    deaths = 0
                    if left.pop(number, None) is not None:
                        yield finished
            except WorkerDied as error:
                deaths += 1
                if deaths == MOST_DEATHS or isinstance(error, ClusterLost):
                    raise

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = str(stack.enter_context(SharedFeatures(self.data)).folder)
            stack.enter_context(self.workers)
            self._stack = stack.pop_all()
        self.wave = 2 * self.workers.n_jobs
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def run_job(store: str, folder: str, engine: str, number: int, block: Block) -> tuple[int, list[Finished]]:
    """What a worker runs: a block, with its number. Raises `UsageError` if this machine cannot compile what was chosen."""
    device = resolve_device(block[0].config.device)
    here = choose_engine(engine, device, steps=0, threads=threads_here())
    return number, run_block(block, shared_data(store, folder), here)
