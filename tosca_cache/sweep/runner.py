"""Getting cells finished: what the ledger knows is not run again, what another process runs is waited for.

Blocks of cells are run in this process, or on workers, which map one copy of the store's features into their memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tosca_cache.devices import resolve_device
from tosca_cache.errors import StoreError
from tosca_cache.files import file_errors
from tosca_cache.store import SPLITS, Store, open_store
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import Cell
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, OPEN, RUNNING, Finished, Ledger
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.sweep.scenario import Data, read_data
from tosca_cache.tasks import Arrays
from tosca_cache.train.engines import Engine, choose_engine
from tosca_cache.workers import ClusterLost, WorkerDied, Workers, threads_here

Block = tuple[Cell, ...]
RunBlocks = Callable[[Sequence[Block]], Iterator[list[Finished]]]  # the results of each block, in any order
FINISHED = (DONE, DIVERGED, FAILED)
POLL = 0.5  # seconds between two looks at cells that another process is running
MOST_DEATHS = 3  # of workers in a row without a result between them: then it is not chance


def finished_in(path: Path, addresses: Sequence[str], states: Sequence[str] = FINISHED) -> set[str]:
    """Those of some cells that a ledger, if it is there, has in one of these states."""
    if not path.exists():
        return set()
    with Ledger.open(path, read_only=True) as book:
        return {cell.address for cell in book.cells(list(addresses)) if cell.state in states}


class CellReporter:
    """Is told how a sweep or a comparison goes on; this one says nothing of it."""

    def on_stage(self, name: str, cells: int, finished: int) -> None:
        """A stage begins: so many cells, of which so many were finished before."""

    def on_block(self, name: str) -> None:
        """A learner of a comparison begins with some of its seeds."""

    def on_finished(self, finished: Sequence[Finished]) -> None:
        """Cells were run and are in the ledger."""

    def on_task(self, done: int, tasks: int) -> None:
        """The running block has learned so many of its tasks."""

    def on_best(self, score: float, text: str) -> None:
        """The best so far: its score, and it in words."""

    def on_note(self, text: str) -> None:
        """Something that the user should know."""


def finish_cells(
    ledger: Ledger,
    contents: Mapping[str, Mapping[str, Any]],
    run: Callable[[set[str]], bool],
    note: Callable[[str], None],
) -> bool:
    """Returns true when all cells of a ledger are finished, and false as soon as `run` gives up.

    Arguments:
        contents: of the cells, by address; new ones are added.
        run: runs those of the unfinished cells that can be claimed. Whatever it claims and does not record is open again
            afterwards, also if it raises.
        note: is told once that others are running cells.
    """

    def unfinished() -> set[str]:
        """Addresses of cells that are open, or that somebody runs."""
        return {cell.address for state in (OPEN, RUNNING) for cell in ledger.cells(list(contents), state=state)}

    ledger.add(contents.items())
    noted = False
    try:
        while left := unfinished():
            if not run(left):
                return False
            if others := unfinished():
                if not noted:
                    note(f"waiting for {len(others)} cells that another process is running")
                    noted = True
                time.sleep(POLL)
    finally:
        ledger.release()
    return True


@dataclass
class Runner:
    """Cells of one store, a ledger, and what runs them.

    jobs: blocks that are trained at the same time.
    known: results of cells that are done, by address, as far as they were asked for: reading them from the ledger again
        after every block would cost more than the block.
    """

    data: Data
    store: str
    run_blocks: RunBlocks
    engine: Engine
    device: torch.device
    ledger: Ledger
    reporter: CellReporter = field(default_factory=CellReporter)
    jobs: int = 1
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run_stage(
        self,
        name: str,
        cells: Sequence[Cell],
        *,
        retry: bool,
        deadline: float | None = None,
        after_block: Callable[[], str] = lambda: "",
    ) -> bool:
        """`run_cells`, and what the user is told of it.

        Arguments:
            retry: run those again that failed or diverged.
            after_block: called after every block that was run; says the best so far, in words.
        """
        addresses, begun = [cell.address for cell in cells], time.monotonic()
        if retry:
            self.ledger.retry(addresses)
        self.reporter.on_stage(name, len(cells), self.finished(cells))
        after_block()
        whole = self.run_cells(cells, deadline=deadline, after_block=after_block)
        finished, seconds = self.finished(cells), time.monotonic() - begun
        lost = finished - len(self.results(cells))
        words = f"{name}: {finished}/{len(cells)} cells in {seconds:.1f} s"
        words += f", {lost} diverged or failed" if lost else ""
        words += f"; best {best}" if (best := after_block()) else ""
        self.reporter.on_note(words)
        return whole

    def run_cells(
        self,
        cells: Sequence[Cell],
        *,
        deadline: float | None = None,
        after_block: Callable[[], object] = lambda: None,
    ) -> bool:
        """Returns when every cell is finished, or false when the deadline has passed before.

        Arguments:
            deadline: of `time.monotonic`, after which no further block begins.
            after_block: called after every block that was run.

        Raises what a worker raises; cells that were begun and not finished are then open again.
        """
        self.results(cells)
        by_address = {cell.address: cell for cell in cells if cell.address not in self.known}

        def run(left: set[str]) -> bool:
            """Runs those that can be claimed, a few blocks at a time; false after the deadline."""
            wanted = [cell for address, cell in by_address.items() if address in left]
            groups = plan_groups(wanted, self.data, self.engine, self.device, jobs=self.jobs)
            blocks = [block for group in groups for block in group.blocks]
            wave = 1 if self.jobs == 1 else 2 * self.jobs
            for start in range(0, len(blocks), wave):
                if deadline is not None and time.monotonic() > deadline:
                    return False
                for finished in self.run_blocks(self._claim(blocks[start : start + wave])):
                    self.ledger.record(finished)
                    self.known |= {f.address: dict(f.result) for f in finished if f.state == DONE and f.result}
                    self.reporter.on_finished(finished)
                    after_block()
            return True

        contents = {address: cell.content for address, cell in by_address.items()}
        return finish_cells(self.ledger, contents, run, self.reporter.on_note)

    def _claim(self, blocks: Sequence[Block]) -> list[Block]:
        """The blocks, without the cells that another process has taken or finished meanwhile."""
        taken = self.ledger.claim([cell.address for block in blocks for cell in block])
        kept = [tuple(cell for cell in block if cell.address in taken) for block in blocks]
        return [block for block in kept if block]

    def finished(self, cells: Sequence[Cell]) -> int:
        """How many of these are finished already."""
        known = self.results(cells)
        counts = self.ledger.counts([cell.address for cell in cells if cell.address not in known])
        return len(known) + sum(counts[state] for state in FINISHED)

    def results(self, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
        """What was measured of those cells that are done, by address; a cell with the whole curve serves one without."""
        for curve in (False, True):
            unknown = [cell for cell in cells if cell.address not in self.known and cell.curve <= curve]
            asked = {replace(cell, curve=curve).address: cell.address for cell in unknown}
            if asked:
                needs = replace(unknown[0], curve=curve).measures
                for found in self.ledger.cells(list(asked), state=DONE, needs=needs):
                    self.known[asked[found.address]] = found.result or {}
        addresses = [cell.address for cell in cells]
        return {address: self.known[address] for address in addresses if address in self.known}


def in_process(data: Data, engine: Engine, on_task: Callable[[int, int], None] | None = None) -> RunBlocks:
    """Runs one block after the other, here. on_task: called with tasks learned by the running block, and its tasks."""

    def run(blocks: Sequence[Block]) -> Iterator[list[Finished]]:
        for block in blocks:
            yield run_block(block, data, engine, on_task=on_task)

    return run


@contextmanager
def on_workers(store: Store, data: Data, engine: Engine, workers: Workers) -> Iterator[RunBlocks]:
    """Runs blocks on several processes or machines, within the context; what a dead worker had is given to another.

    Each worker trains as many models at a time as it may use threads.
    """
    path = str(store.path.resolve())  # a worker may stand in another folder

    def run(blocks: Sequence[Block]) -> Iterator[list[Finished]]:
        """What the blocks give, each as soon as it is there."""
        left, deaths = dict(enumerate(blocks)), 0
        while left:
            jobs = [(path, str(folder), engine.name, n, block) for n, block in left.items()]
            try:
                for number, finished in workers.run(_run_job, jobs):
                    deaths = 0
                    if left.pop(number, None) is not None:
                        yield finished
            except WorkerDied as error:
                deaths += 1
                if deaths == MOST_DEATHS or isinstance(error, ClusterLost):
                    raise

    with workers, shared_features(data) as folder:
        yield run


def _run_job(store: str, folder: str, engine: str, number: int, block: Block) -> tuple[int, list[Finished]]:
    """What a worker runs: a block, with its number. Raises `UsageError` if this machine cannot compile what was chosen."""
    device = resolve_device(block[0].config.device)
    here = choose_engine(engine, device, steps=0, threads=threads_here())
    return number, run_block(block, shared_data(store, folder), here)


@contextmanager
def shared_features(data: Data) -> Iterator[Path]:
    """A folder with the features of both splits, one copy for all processes of a machine, within the context.

    A killed process leaves its files; the next one that starts workers removes them (`processes.tidied_memory`).
    """
    with ExitStack() as stack:
        with file_errors(Path(tempfile.gettempdir()), StoreError, option="the environment variable TMPDIR"):
            folder = Path(tempfile.mkdtemp(prefix=f"tosca-sweep-{os.getpid()}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)  # who maps a file keeps it until it ends
            for split in SPLITS:
                np.save(folder / f"{split}.npy", getattr(data, split).features)
        yield folder


@lru_cache(maxsize=2)
def shared_data(path: str, folder: str) -> Data:
    """A store's splits, features mapped from `folder`; on a machine that has no such folder, read from the store."""
    store = open_store(Path(path))
    files = {split: Path(folder) / f"{split}.npy" for split in SPLITS}
    if not all(file.exists() for file in files.values()):
        return read_data(store)
    parts = {
        split: Arrays(
            np.load(file, mmap_mode="r", allow_pickle=False),
            store.labels(split),
            domains=store.domains(split),
            adapted_on=store.spec.first_task,
            last=store.spec.columns("last").start,
        )
        for split, file in files.items()
    }
    return Data(parts["train"], parts["test"], store.class_names, store.domain_names)
