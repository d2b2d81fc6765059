"""Getting cells finished: what the ledger knows is not run again, what another process runs is waited for.

Blocks of cells are run in this process, or on workers, each of which reads the store for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tosca_cache.devices import resolve_device
from tosca_cache.store import Store, open_store
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import Cell
from tosca_cache.sweep.ledger import DIVERGED, DONE, Finished, Ledger
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.sweep.progress import CellProgress
from tosca_cache.sweep.scenario import Data, read_data
from tosca_cache.tasks import memory_for_features
from tosca_cache.train.engines import Engine, choose_engine
from tosca_cache.workers import ClusterLost, WorkerDied, Workers, threads_here

Block = tuple[Cell, ...]
RunBlocks = Callable[[Sequence[Block]], Iterator[list[Finished]]]  # the results of each block, in any order
POLL = 0.5  # seconds between two looks at cells that another process is running
MOST_DEATHS = 3  # of workers in a row without a result between them: then it is not chance


def finished_in(path: Path, addresses: Sequence[str]) -> set[str]:
    """Those of some cells that a ledger, if it is there, has and that are not run again: done or diverged."""
    if not path.exists():
        return set()
    with Ledger.open(path, read_only=True) as book:
        return {cell.address for cell in book.cells(list(addresses)) if cell.state in (DONE, DIVERGED)}


def finish_cells(
    ledger: Ledger,
    name: str,
    contents: Mapping[str, Mapping[str, Any]],
    run: Callable[[set[str]], None],
    told: CellProgress,
) -> None:
    """Returns when all cells of a stage are finished; those that failed before are tried again.

    Arguments:
        contents: of the cells, by address; new ones are added.
        run: runs those of the unfinished cells that can be claimed. Whatever it claims and does not record is open again
            afterwards, also if it raises.
    """
    addresses = list(contents)
    ledger.add(contents.items())
    ledger.retry(addresses)
    left, waiting = ledger.unfinished(addresses), False
    told.on_stage(name, len(addresses), len(addresses) - len(left))
    try:
        while left:
            run(left)
            left = ledger.unfinished(addresses)
            if left and not waiting:
                told.on_note(f"waiting for {len(left)} cells that another process is running")
            waiting = bool(left)
            time.sleep(POLL if left else 0)
    finally:
        ledger.release()


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
    reporter: CellProgress = field(default_factory=CellProgress)
    jobs: int = 1
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run_stage(self, name: str, cells: Sequence[Cell], after_block: Callable[[], str] = lambda: "") -> None:
        """Returns when every cell is finished, and tells the user.

        Arguments:
            after_block: called after every block that was run; says the best so far, in words.

        Raises what a worker raises; cells that were begun and not finished are then open again.
        """
        begun, by_address = time.monotonic(), {cell.address: cell for cell in cells}
        self.results(cells)

        def run(left: set[str]) -> None:
            """Runs those that can be claimed, a few blocks at a time."""
            wanted = [cell for address, cell in by_address.items() if address in left]
            groups = plan_groups(wanted, self.data, self.engine, self.device, jobs=self.jobs)
            blocks = [block for group in groups for block in group.blocks]
            wave = 1 if self.jobs == 1 else 2 * self.jobs
            for start in range(0, len(blocks), wave):
                for finished in self.run_blocks(self._claim(blocks[start : start + wave])):
                    self.ledger.record(finished)
                    self.known |= {f.address: dict(f.result) for f in finished if f.state == DONE and f.result}
                    self.reporter.on_finished(finished)
                    after_block()

        contents = {address: cell.content for address, cell in by_address.items()}
        finish_cells(self.ledger, name, contents, run, self.reporter)
        lost = len(cells) - len(self.results(cells))
        words = f"{name}: {len(cells)}/{len(cells)} cells in {time.monotonic() - begun:.1f} s"
        words += f", {lost} diverged or failed" if lost else ""
        words += f"; best {best}" if (best := after_block()) else ""
        self.reporter.on_note(words)

    def _claim(self, blocks: Sequence[Block]) -> list[Block]:
        """The blocks, without the cells that another process has taken or finished meanwhile."""
        taken = self.ledger.claim([cell.address for block in blocks for cell in block])
        kept = [tuple(cell for cell in block if cell.address in taken) for block in blocks]
        return [block for block in kept if block]

    def results(self, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
        """What was measured of those cells that are done, by address."""
        for measures in {cell.measures for cell in cells}:
            unknown = [c.address for c in cells if c.address not in self.known and c.measures == measures]
            found = self.ledger.cells(unknown, state=DONE, needs=measures) if unknown else []
            self.known |= {cell.address: cell.result or {} for cell in found}
        return {cell.address: self.known[cell.address] for cell in cells if cell.address in self.known}


def in_process(data: Data, engine: Engine, on_task: Callable[[int, int], None] | None = None) -> RunBlocks:
    """Runs one block after the other, here. on_task: called with tasks learned by the running block, and its tasks."""
    return lambda blocks: (run_block(block, data, engine, on_task=on_task) for block in blocks)


@contextmanager
def on_workers(store: Store, engine: Engine, workers: Workers) -> Iterator[RunBlocks]:
    """Runs blocks on several processes or machines, within the context; what a dead worker had is given to another.

    Each worker trains as many models at a time as it may use threads.
    """
    path = str(store.path.resolve())  # a worker may stand in another folder

    def run(blocks: Sequence[Block]) -> Iterator[list[Finished]]:
        """What the blocks give, each as soon as it is there."""
        left, deaths = dict(enumerate(blocks)), 0
        while left:
            jobs = [(path, engine.name, workers.n_jobs, n, block) for n, block in left.items()]
            try:
                for number, finished in workers.run(_run_job, jobs):
                    deaths = 0
                    if left.pop(number, None) is not None:
                        yield finished
            except WorkerDied as error:
                deaths += 1
                if deaths == MOST_DEATHS or isinstance(error, ClusterLost):
                    raise

    with workers:
        yield run


def _run_job(store: str, engine: str, jobs: int, number: int, block: Block) -> tuple[int, list[Finished]]:
    """What a worker runs: a block, with its number. Raises `UsageError` if this machine cannot compile what was chosen."""
    config = block[0].config
    here = choose_engine(engine, resolve_device(config.device), steps=0, threads=threads_here())
    return number, run_block(block, _data(store, block[0].store, config.incremental, jobs), here)


@lru_cache(maxsize=1)
def _data(path: str, store: str, incremental: str, jobs: int) -> Data:
    """The store's splits, read once a worker; features that memory would not hold `jobs` times stay in the store.

    store: digest of the fingerprint, which tells apart what lay at one path at different times.
    """
    return read_data(open_store(Path(path)), incremental, most=memory_for_features() / jobs)
