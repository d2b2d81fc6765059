"""`tosca compare` without its command line: a request, a store and a ledger in, a table as plain values out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from tosca_cache.compare.cells import CompareCell, CompareRequest, cells_of
from tosca_cache.compare.measure import Workplace, blocks_of, make_stream, measure_block
from tosca_cache.compare.summary import columns_of, summary
from tosca_cache.devices import resolve_device
from tosca_cache.learners.base import check_memory
from tosca_cache.learners.options import make_learner
from tosca_cache.runs.experiment import make_engine
from tosca_cache.store import Store
from tosca_cache.sweep.ledger import DONE, Ledger, LedgerCell
from tosca_cache.sweep.ledger_file import damaged
from tosca_cache.sweep.progress import CellProgress
from tosca_cache.sweep.runner import finish_cells
from tosca_cache.sweep.scenario import read_data
from tosca_cache.workers import threads_here


def run_compare(
    request: CompareRequest, store: Store, ledger: Path | None = None, *, reporter: CellProgress | None = None
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
    told = reporter or CellProgress()
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
    with Ledger.open(ledger, read_only=True) as book:
        done = [cell for cell in _finished(book, cells, request) if cell.state == DONE]
    known = {cell.content["setting"]["method"] for cell in done}
    if not known:
        return None
    return summary(replace(request, methods=tuple(m for m in request.methods if m in known)), store, done)


def _workplace(
    request: CompareRequest, store: Store, cells: Sequence[Sequence[CompareCell]], told: CellProgress
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


def _run_cells(cells: Sequence[Sequence[CompareCell]], book: Ledger, place: Workplace, told: CellProgress) -> None:
    """Returns when all are finished; those that failed are run again."""
    contents = {cell.address: cell.content for row in cells for cell in row}
    bests = list[tuple[float, str]]()

    def run(left: set[str]) -> None:
        """Runs those of these cells that nobody else has taken."""
        for row in cells:
            for block in blocks_of([cell for cell in row if cell.address in left]):
                taken = book.claim([cell.address for cell in block])
                if mine := [cell for cell in block if cell.address in taken]:  # others may have finished it meanwhile
                    bests.extend(_run_block(mine, book, place, told))
                    if bests:
                        score, method = max(bests, key=lambda best: best[0])
                        told.on_best(score, f"{score:.2f}: {method}")

    finish_cells(book, "compare", contents, run, told)


def _run_block(
    cells: Sequence[CompareCell], book: Ledger, place: Workplace, told: CellProgress
) -> list[tuple[float, str]]:
    """Runs and records cells of one learner; returns the last accuracy of each, and the learner's name."""
    name, begun = f"{cells[0].method}, seed {', '.join(str(cell.seed) for cell in cells)}", monotonic()
    told.on_block(name)
    finished = measure_block(cells, place)
    book.record(finished)
    told.on_finished(finished)
    reached = [cell.result["last_accuracy"] for cell in finished if cell.result is not None]
    if reached:
        told.on_note(f"{name}: A_T {' '.join(f'{value:.2f}' for value in reached)}, {monotonic() - begun:.1f} s")
    return [(value, cells[0].method) for value in reached]
