"""`tosca compare` without its command line: a request, a store and a ledger in, a table as plain values out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tosca_cache.compare.cells import CompareCell, CompareRequest, cells_of
from tosca_cache.compare.measure import Workplace, blocks_of, make_stream, measure_block
from tosca_cache.compare.summary import columns_of, summary
from tosca_cache.devices import resolve_device
from tosca_cache.learners.base import check_memory
from tosca_cache.learners.options import make_learner
from tosca_cache.runs.experiment import make_engine
from tosca_cache.store import Store
from tosca_cache.sweep.ledger import DONE, FAILED, Finished, Ledger, LedgerCell
from tosca_cache.sweep.ledger_file import damaged
from tosca_cache.sweep.runner import FINISHED, finish_cells
from tosca_cache.sweep.scenario import read_data
from tosca_cache.workers import threads_here


class CompareReporter:
    """Is told how a comparison goes on; this one says nothing of it."""

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
    told = reporter or CompareReporter()
    cells = [cells_of(request, method, store.spec.digest()) for method in request.methods]
    place = _workplace(request, store, cells, told)
    with Ledger.open(ledger) as book:
        _run_cells(cells, book, place, told)
        return summary(request, store, _finished(book, [cell for row in cells for cell in row], request))


def _finished(book: Ledger, cells: Sequence[CompareCell], request: CompareRequest) -> list[LedgerCell]:
    """What the ledger has of these cells; raises `RunError` if that is not what was asked, or not what was measured."""
    contents = {cell.address: cell.content for cell in cells}
    found = book.cells(list(contents), needs=columns_of(request))
    if any(cell.content != contents[cell.address] for cell in found):
        raise damaged(book.path)
    return found


def so_far(request: CompareRequest, store: Store, ledger: Path) -> dict[str, Any] | None:
    """The table of the cells that are done by now; None if there are none."""
    cells = [cell for method in request.methods for cell in cells_of(request, method, store.spec.digest())]
    with Ledger.open(ledger, create=False, read_only=True) as book:
        done = [cell for cell in _finished(book, cells, request) if cell.state == DONE]
    known = {cell.content["setting"]["method"] for cell in done}
    if not known:
        return None
    return summary(replace(request, methods=tuple(m for m in request.methods if m in known)), store, done)


def _workplace(
    request: CompareRequest, store: Store, cells: Sequence[Sequence[CompareCell]], told: CompareReporter
) -> Workplace:
    """What all cells need; wrong protocols and options are found here, before anything is trained."""
    data, device = read_data(store, request.config.incremental), resolve_device(request.config.device)
    streams = [make_stream(cell, data) for cell in cells[0]]
    runs = len(request.methods) * len(request.seeds)
    engine = make_engine(request.config, streams[0], runs, threads_here())
    if engine.compile_seconds:
        told.on_note(f"training kernels compiled in {engine.compile_seconds:.1f} s (kept for the next time)")
    for first, *_ in cells:
        options = first.options
        learner = make_learner(first.method, first.config, options, seed=first.seed, device=device, engine=engine)
        check_memory(learner, streams[0])
    return Workplace(data, device, engine, told.on_task)


def _run_cells(cells: Sequence[Sequence[CompareCell]], book: Ledger, place: Workplace, told: CompareReporter) -> None:
    """Returns when all are finished; those that failed are run again."""
    contents = {cell.address: cell.content for row in cells for cell in row}
    addresses = list(contents)

    def run(left: set[str]) -> bool:
        """Runs those of these cells that nobody else has taken."""
        for row in cells:
            for block in blocks_of([cell for cell in row if cell.address in left]):
                taken = book.claim([cell.address for cell in block])
                mine = [cell for cell in block if cell.address in taken]
                if mine:  # others may be running it, or have finished it meanwhile
                    told.on_block(mine[0].method, [cell.seed for cell in mine])
                    finished = measure_block(mine, place)
                    book.record(finished)
                    told.on_finished(mine[0].method, finished)
        return True

    book.retry([cell.address for cell in book.cells(addresses, state=FAILED)])
    counts = book.counts(addresses)
    told.on_begin(len(addresses), sum(counts[state] for state in FINISHED))
    finish_cells(book, contents, run, told.on_note)
