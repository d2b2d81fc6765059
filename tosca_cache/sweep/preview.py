"""What a sweep would do, before it does it: groups, blocks, memory and time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tosca_cache.devices import resolve_device
from tosca_cache.store import Store
from tosca_cache.sweep.cells import Cell, cells_of, with_point
from tosca_cache.sweep.estimate import estimate
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, Ledger
from tosca_cache.sweep.plan import Group, plan_groups
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.run import Resources, sweep_engine
from tosca_cache.sweep.share import read_data
from tosca_cache.sweep.space.samplers import make_sampler
from tosca_cache.sweep.trials import distinct
from tosca_cache.train.engines import Engine
from tosca_cache.workers import cores, threads_here


@dataclass(frozen=True)
class Preview:
    """rows: a group each, as `report.sweeps.plan_table` takes them. whole: whether these are all cells that there will be.

    seconds, report_seconds: of the search's cells that are not finished, and of the report on two settings.
    """

    rows: list[tuple[dict[str, Any], int, int, int, int, int, float | None]]
    settings: int
    cells: int
    whole: bool
    engine: str
    jobs: int
    seconds: float
    report_seconds: float


def preview(request: SweepRequest, store: Store, ledger: Path, resources: Resources) -> Preview:
    """Plans the first round of a search (all of a grid) and times a few steps of each of its groups; writes nothing."""
    data, device = read_data(store, request.base.incremental), resolve_device(request.base.device)
    engine = sweep_engine(request, data, device)
    sampler = make_sampler(
        request.sampler, request.space, trials=request.trials, seed=request.sampler_seed, base=asdict(request.base)
    )
    most = 10**6 if request.sampler == "grid" else request.round_size
    if request.max_cells is not None:
        most = min(most, request.max_cells // len(request.seeds) // len(request.searched))
    points = distinct(sampler.ask(most), [], request.base)
    digest = store.spec.digest()
    cells = [
        cell
        for scenario in request.searched
        for point in points
        for cell in cells_of(with_point(request.base, point), request.seeds, scenario, digest)
    ]
    jobs = 1 if resources.in_process else resources.jobs or cores()
    known = _finished(cells, ledger)
    rows, seconds, worst = [], 0.0, 0.0
    inner = engine if resources.in_process else Engine(engine.name, max(1, min(threads_here(), cores() // jobs)))
    for group in plan_groups(cells, data, inner, device, jobs=jobs):
        took = estimate(group, inner, device).seconds / jobs
        finished = sum(cell.address in known for cell in group.cells)
        left = took * (1 - finished / len(group.cells))
        seconds, worst = seconds + left, max(worst, took / len(group.cells))
        rows.append(_row(group, finished, left))
    report = 2 * len(request.report_seeds) * worst
    whole = request.sampler == "grid" or request.max_cells is not None
    return Preview(rows, len(points), len(cells), whole, engine.name, jobs, seconds, report)


def _row(group: Group, finished: int, seconds: float) -> tuple[dict[str, Any], int, int, int, int, int, float | None]:
    models = min(group.most, len(group.models))
    return group.describe(), len(group.cells), finished, models, len(group.blocks), group.bytes, seconds


def _finished(cells: list[Cell], ledger: Path) -> set[str]:
    if not ledger.exists():
        return set()
    with Ledger.open(ledger, read_only=True) as book:
        known = book.cells([cell.address for cell in cells])
    return {cell.address for cell in known if cell.state in (DONE, DIVERGED, FAILED)}
