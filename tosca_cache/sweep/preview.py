"""What a sweep would do, before it does it: groups, blocks, memory and time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tosca_cache.devices import one_thread, resolve_device
from tosca_cache.luca.initialise import initial_head, initial_luca
from tosca_cache.luca.module import normalise
from tosca_cache.luca.parameters import Head, Luca, Parameters
from tosca_cache.store import Store
from tosca_cache.sweep.cells import Cell
from tosca_cache.sweep.ledger import Ledger
from tosca_cache.sweep.plan import Group, Sizes, plan_groups
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.run import Resources, sweep_engine
from tosca_cache.sweep.runner import FINISHED
from tosca_cache.sweep.scenario import read_data
from tosca_cache.sweep.search import Trial
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.engines import Engine
from tosca_cache.train.settings import Settings
from tosca_cache.train.stack import Lane, Member
from tosca_cache.workers import cores, threads_here

Row = tuple[dict[str, Any], int, int, int, int, int, float | None]


@dataclass(frozen=True)
class Preview:
    """rows: a group each, as `report.sweeps.plan_table` takes them. whole: whether these are all cells that there will be.

    seconds, report_seconds: of the search's cells that are not finished, and of the report on two settings.
    """

    rows: list[Row]
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
    points = request.make_sampler().ask(request.round if request.most is None else min(request.round, request.most))
    trials = [Trial.of(point, request, store.spec.digest()) for point in points]
    cells = [cell for scenario in request.searched for trial in trials for cell in trial.cells[scenario]]
    jobs = 1 if resources.in_process else resources.jobs or cores()
    known = _finished(cells, ledger)
    rows: list[Row] = []
    seconds, worst = 0.0, 0.0
    inner = engine if resources.in_process else Engine(engine.name, max(1, min(threads_here(), cores() // jobs)))
    for group in plan_groups(cells, data, inner, device, jobs=jobs):
        took = estimate(group, inner, device).seconds / jobs
        finished = sum(cell.address in known for cell in group.cells)
        left = took * (1 - finished / len(group.cells))
        seconds, worst = seconds + left, max(worst, took / len(group.cells))
        models = min(group.most, len(group.models))
        rows.append((group.describe(), len(group.cells), finished, models, len(group.blocks), group.bytes, left))
    report = 2 * len(request.report_seeds) * worst
    whole = request.sampler == "grid" or request.max_cells is not None
    return Preview(rows, len(points), len(cells), whole, engine.name, jobs, seconds, report)


def _finished(cells: list[Cell], ledger: Path) -> set[str]:
    if not ledger.exists():
        return set()
    with Ledger.open(ledger, read_only=True) as book:
        return {cell.address for cell in book.cells([cell.address for cell in cells]) if cell.state in FINISHED}


ROWS = 256  # made-up train rows, and made-up test rows
STEPS = 12


@dataclass(frozen=True)
class Estimate:
    """Seconds of all cells of a group in one process. train, score: of their two parts."""

    train: float
    score: float

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.train + self.score


def estimate(group: Group, engine: Engine, device: torch.device) -> Estimate:
    """Times a few steps at the mean number of classes, and the scoring of a few rows, and multiplies."""
    sizes = group.sizes
    classes = max(2, sum(sizes.classes) // len(sizes.classes))
    members = min(group.most, len(group.models))
    each = _step_seconds(group, engine, device, members, classes) / members
    at_a_time = engine.threads if engine.name == "native" else 1
    scored = _scoring_seconds(sizes, engine, classes, device, curve=group.cells[0].curve) / at_a_time
    return Estimate(len(group.models) * sizes.steps * each, len(group.cells) * scored)


def _step_seconds(group: Group, engine: Engine, device: torch.device, members: int, classes: int) -> float:
    sizes = group.sizes
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(ROWS, 1, sizes.shape.dim, generator=generator).to(device)
    labels = (torch.arange(ROWS) % classes).to(device)
    epochs = -(-STEPS * sizes.batch // ROWS)
    batches = list(epoch_batches(ROWS, 0, epochs=epochs, batch_size=sizes.batch, seed=0, task=0))
    parameters = Parameters(sizes.shape, classes, models=members, device=device, dtype=torch.float32)
    parameters.set_luca(Luca(*(t.expand(members, *t.shape[1:]) for t in initial_luca(sizes.shape, 0, 0))))
    parameters.set_head(Head(*(t.expand(members, *t.shape[1:]) for t in initial_head(sizes.shape.dim, classes, 0))))
    stacked = [Member(Settings.of(cells[0].config)) for cells in group.models[:members]]
    stacked.sort(key=lambda member: (member.settings.flow, member.settings.optimizer))
    lane = Lane(features, labels, [batch._replace(epoch=0) for batch in batches])
    seconds = []
    for _ in range(2):  # the first one also pays for what happens once
        start = perf_counter()
        engine.fit(parameters, [lane], stacked)
        seconds.append(perf_counter() - start)
    return min(seconds) / len(batches)


@one_thread()
@torch.inference_mode()
def _scoring_seconds(sizes: Sizes, engine: Engine, classes: int, device: torch.device, *, curve: bool) -> float:
    """Every module meets every test row once, and then every row of the classes seen the head: after every task (`curve`),
    or after the last one."""
    rows = normalise(torch.randn(ROWS, sizes.shape.dim, device=device))
    directions = normalise(initial_head(sizes.shape.dim, classes, 0).weight[0].to(device))
    sigma = torch.ones(1, device=device)
    engine.entropy_and_prediction([rows], directions, sigma)
    start = perf_counter()
    engine.entropy_and_prediction([rows], directions, sigma)
    each = (perf_counter() - start) / ROWS / classes
    seen = 0
    total = 0
    for number, (test, stop) in enumerate(zip(sizes.test, sizes.classes, strict=True)):
        seen += test
        if curve or number == len(sizes.test) - 1:
            total += (number + 1) * seen * stop
    hidden = 2 * (sizes.shape.mlp_hidden + sizes.shape.se_hidden)
    adapted = len(sizes.classes) * seen * hidden  # as many products a row as a head of so many classes
    return each * (total + adapted)
