"""`tosca compare` without its command line: a request, a store and a ledger in, a table as plain values out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tosca_cache.compare.cells import CompareCell, cells_of
from tosca_cache.compare.measure import Workplace, blocks_of, make_stream, measure_block
from tosca_cache.compare.request import CompareRequest
from tosca_cache.compare.summary import columns_of, summary
from tosca_cache.devices import resolve_device
from tosca_cache.learners.options import make_learner
from tosca_cache.store import Store
from tosca_cache.sweep.ledger import FAILED, OPEN, RUNNING, Finished, Ledger, LedgerCell
from tosca_cache.sweep.ledger.errors import damaged
from tosca_cache.sweep.run_cells import POLL
from tosca_cache.sweep.share import read_data
from tosca_cache.train.batches import check_plan
from tosca_cache.train.engines import choose_engine
from tosca_cache.train.settings import Settings
from tosca_cache.workers import threads_here


class CompareReporter(Protocol):
    """Is told how a comparison goes on."""

    def on_begin(self, cells: int, finished: int) -> None:
        """So many cells, of which so many were finished before."""

    def on_block(self, method: str, seeds: Sequence[int]) -> None:
        """A learner begins with these seeds."""

    def on_task(self, number: int, tasks: int) -> None:
        """The running learner has learned this task of so many."""

    def on_finished(self, method: str, finished: Sequence[Finished]) -> None:
        """Cells of a learner were run and are in the ledger."""

    def on_note(self, text: str) -> None:
        """Something that the user should know."""


class Silent:
    """Reports nothing."""

    def on_begin(self, cells: int, finished: int) -> None:
        """Says nothing."""

    def on_block(self, method: str, seeds: Sequence[int]) -> None:
        """Says nothing."""

    def on_task(self, number: int, tasks: int) -> None:
        """Says nothing."""

    def on_finished(self, method: str, finished: Sequence[Finished]) -> None:
        """Says nothing."""

    def on_note(self, text: str) -> None:
        """Says nothing."""


def run_compare(
    request: CompareRequest, store: Store, ledger: Path | None = None, *, reporter: CompareReporter | None = None
) -> dict[str, Any]:
    """Runs what the ledger does not know yet and returns the table; see `compare.summary.summary` for what is in it.

    Arguments:
        ledger: the SQLite file of results; None keeps them in memory only.

    Raises `UsageError` for what cannot be done before anything is trained. A learner that fails is in the table's
    `failed`; the next call tries it again.
    """
    if ledger is None:
        with tempfile.TemporaryDirectory() as folder:
            return run_compare(request, store, Path(folder) / "compare.sqlite", reporter=reporter)
    told = reporter or Silent()
    cells = [cells_of(request, method, store.spec.digest()) for method in request.methods]
    place = _workplace(request, store, cells, told)
    with Ledger.open(ledger) as book:
        _Settling(book, place, told).run_cells(cells)
        return summary(request, store, _finished(book, [cell for row in cells for cell in row], request))


def _finished(book: Ledger, cells: Sequence[CompareCell], request: CompareRequest) -> list[LedgerCell]:
    """What the ledger has of these cells; raises `RunError` if that is not what was asked, or not what was measured."""
    contents = {cell.address: cell.content for cell in cells}
    found = book.cells(list(contents), needs=columns_of(request))
    if any(cell.content != contents[cell.address] for cell in found):
        raise damaged(book.path)
    return found


def _workplace(
    request: CompareRequest, store: Store, cells: Sequence[Sequence[CompareCell]], told: CompareReporter
) -> Workplace:
    """What all cells need; wrong protocols and options are found here, before anything is trained."""
    data, device = read_data(store, request.config.incremental), resolve_device(request.config.device)
    streams = [make_stream(cell, data) for cell in cells[0]]
    counts = streams[0].train_counts().tolist()
    check_plan(max(counts), request.config.epochs)
    steps = Settings.of(request.config).steps(counts)
    runs = len(request.methods) * len(request.seeds)
    engine = choose_engine(request.config.engine, device, steps=steps * runs, threads=threads_here())
    if engine.compile_seconds:
        told.on_note(f"training kernels compiled in {engine.compile_seconds:.1f} s (kept for the next time)")
    for first, *_ in cells:
        make_learner(first.method, first.config, first.options, seed=first.seed, device=device, engine=engine)
    return Workplace(data, device, engine, told.on_task)


@dataclass
class _Settling:
    """Getting cells finished: what the ledger knows is not run again, what another process runs is waited for."""

    book: Ledger
    place: Workplace
    told: CompareReporter

    def run_cells(self, cells: Sequence[Sequence[CompareCell]]) -> None:
        """Returns when all are finished. What was taken and not finished is open again, whatever happens."""
        addresses = [cell.address for row in cells for cell in row]
        self.book.add((cell.address, cell.content) for row in cells for cell in row)
        self.book.retry([cell.address for cell in self.book.cells(addresses, state=FAILED)])
        self.told.on_begin(len(addresses), len(addresses) - len(self._unfinished(addresses)))
        noted = False
        try:
            while left := self._unfinished(addresses):
                for row in cells:
                    for block in blocks_of([cell for cell in row if cell.address in left]):
                        self._run(block)
                if others := self._unfinished(addresses):
                    if not noted:
                        self.told.on_note(f"waiting for {len(others)} cells that another process is running")
                        noted = True
                    time.sleep(POLL)
        finally:
            self.book.release()

    def _unfinished(self, addresses: Sequence[str]) -> set[str]:
        return {cell.address for state in (OPEN, RUNNING) for cell in self.book.cells(addresses, state=state)}

    def _run(self, block: Sequence[CompareCell]) -> None:
        """Runs those of a block that nobody else is running or has finished meanwhile."""
        taken = set(self.book.claim([cell.address for cell in block]))
        mine = [cell for cell in block if cell.address in taken]
        if not mine:
            return
        self.told.on_block(mine[0].method, [cell.seed for cell in mine])
        finished = measure_block(mine, self.place)
        self.book.record(finished)
        self.told.on_finished(mine[0].method, finished)
