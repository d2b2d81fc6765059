"""How long a comparison takes, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from tosca_cache.compare.cells import CompareCell, CompareRequest, cells_of
from tosca_cache.compare.measure import Workplace, blocks_of, make_stream, run_cells
from tosca_cache.devices import resolve_device
from tosca_cache.learners import learner_type
from tosca_cache.runs.experiment import make_engine
from tosca_cache.store import Store
from tosca_cache.sweep.runner import finished_in
from tosca_cache.sweep.scenario import read_data
from tosca_cache.workers import threads_here

TASKS = 2  # that are timed, of one seed (or of all, where they learn together)
PATIENCE = 30.0  # seconds after which no other learner is timed


@dataclass(frozen=True)
class Estimate:
    """cells: of the comparison; finished: of these. seconds: of the others. untimed: learners that are not in them."""

    cells: int
    finished: int
    seconds: float
    untimed: tuple[str, ...]


def estimate(request: CompareRequest, store: Store, ledger: Path) -> Estimate:
    """Times the first two tasks of each learner that has something left to do, and takes the others for like the second.

    A learner that keeps train rows is taken to learn from all of them in each task. Learners that fail, or that there is no
    time for, are not timed.

    Raises `UsageError` for what cannot be done at all.
    """
    rows = [cells_of(request, method, store.spec.digest()) for method in request.methods]
    cells = [cell for row in rows for cell in row]
    known = finished_in(ledger, [cell.address for cell in cells])  # what failed is tried again
    data, device = read_data(store, request.config.incremental), resolve_device(request.config.device)
    engine = make_engine(request.config, make_stream(cells[0], data), len(cells), threads_here())
    place, begun, seconds, untimed = Workplace(data, device, engine), perf_counter(), 0.0, []
    for row in rows:
        blocks = blocks_of([cell for cell in row if cell.address not in known])
        try:
            if blocks and perf_counter() - begun > PATIENCE:
                raise TimeoutError
            seconds += len(blocks) * _seconds(blocks[0], place) if blocks else 0.0
        except Exception:  # a learner may be a user's own, and raise anything; it is told when it is run
            untimed.append(row[0].method)
    return Estimate(len(cells), len(known), seconds, tuple(untimed))


def _seconds(cells: Sequence[CompareCell], place: Workplace) -> float:
    """Of some cells of one learner that are run side by side."""
    done = [perf_counter()]
    run_cells(cells, replace(place, on_task=lambda number, tasks: done.append(perf_counter())), TASKS)
    first, *second = (after - before for before, after in pairwise(done))
    grows, tasks = learner_type(cells[0].method).rehearsal, len(make_stream(cells[0], place.data))
    return first + sum(second) * sum(number / 2 if grows else 1 for number in range(2, tasks + 1))
