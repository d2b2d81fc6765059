"""A block of cells, trained side by side and scored a few at a time: the job that a process runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch

from tosca_cache.devices import on_cores, resolve_device
from tosca_cache.errors import ToscaError
from tosca_cache.evaluate.summary import summarise, to_json
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.stacked_tosca import PretrainedTosca, Source, TrainedModules, learn_stacked
from tosca_cache.sweep.cells import LAST, Cell
from tosca_cache.sweep.ledger import Finished
from tosca_cache.sweep.plan import scored_at_once
from tosca_cache.sweep.scenario import Data, make_scenario
from tosca_cache.train.engines import Engine
from tosca_cache.train.stack import Member

# What may go wrong in one cell without being a mistake of ours: it is reported, and the other cells go on.
CELL_ERRORS = (ToscaError, MemoryError, RuntimeError, ArithmeticError)


def run_block(
    cells: Sequence[Cell],
    data: Data,
    engine: Engine,
    *,
    on_task: Callable[[int, int], None] | None = None,
    tasks: int | None = None,
) -> list[Finished]:
    """Trains cells of one group (see `sweep.plan`) and scores each; what does not fit into memory is split in two.

    Arguments:
        on_task: called with the number of each task that all have learned, and how many tasks there are.
        tasks: how many are learned; all if None.
    """
    try:
        return _run(cells, data, engine, on_task, tasks)
    except CELL_ERRORS as error:
        if len(cells) == 1:
            return [Finished(cells[0].address, "failed", reason=f"{type(error).__name__}: {error}")]
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
    # Outside of `except`, where the error would keep everything alive that did not fit.
    half = len(cells) // 2
    halves = (run_block(some, data, engine, on_task=on_task, tasks=tasks) for some in (cells[:half], cells[half:]))
    return [finished for some in halves for finished in some]


def _run(
    cells: Sequence[Cell], data: Data, engine: Engine, on_task: Callable[[int, int], None] | None, most: int | None
) -> list[Finished]:
    device = resolve_device(cells[0].config.device)
    seeds = sorted({cell.seed for cell in cells})
    streams = [make_scenario(cells[0].scenario, cells[0].config, data, seed) for seed in seeds]
    sources = [Source(stream.first(most), seed) for stream, seed in zip(streams, seeds, strict=True)]
    trained = list(dict.fromkeys(cell.trained for cell in cells))  # several cells may ask of one model
    members = [Member(settings, seeds.index(seed)) for settings, seed in trained]
    tasks = len(sources[0].stream)
    start = perf_counter()
    records = learn_stacked(
        sources,
        members,
        device=device,
        engine=engine,
        on_task=None if on_task is None else lambda number: on_task(number, tasks),
    )
    seconds = (perf_counter() - start) / len(cells)
    models = [trained.index(cell.trained) for cell in cells]
    learners = [_learner(cell, records[m], members[m], engine) for cell, m in zip(cells, models, strict=True)]
    _share_caches([(members[m].lane, learner) for m, learner in zip(models, learners, strict=True)])

    def score(place: int) -> Finished:
        """Evaluates the cell at a place of the block, unless its training diverged."""
        cell, learner = cells[place], learners[place]
        if learner.recorded.diverged is not None:
            return Finished(cell.address, "diverged", reason=learner.recorded.diverged)
        found = _score(cell, learner, sources[members[models[place]].lane])
        found["seconds"]["train"] = seconds
        found["sparsity"] = learner.recorded.sparsity()
        return Finished(cell.address, "done", found | {"engine": engine.name})

    return on_cores(score, range(len(cells)), min(scored_at_once(engine, device), len(cells)))


def _learner(cell: Cell, record: TrainedModules, member: Member, engine: Engine) -> PretrainedTosca:
    config = cell.config
    return PretrainedTosca(
        record,
        member.settings,
        seed=cell.seed,
        router=config.router,
        routing_batch_size=config.routing_batch_size,
        device=resolve_device(config.device),
        engine=engine,
    )


def _share_caches(learners: Sequence[tuple[int, PretrainedTosca]]) -> None:
    """What routers fit without the modules is the same for all cells of a source, and fitted once."""
    caches: dict[int, dict[str, Any]] = {}
    for source, learner in learners:
        if learner.router is not None:
            learner.router.share_cache(caches.setdefault(source, {"same rows": True}))


def _score(cell: Cell, learner: PretrainedTosca, source: Source) -> dict[str, Any]:
    """Evaluates what a cell learned as `tosca train` does: routed, over all classes seen; only as often as is needed."""
    start = perf_counter()
    outcome = run_protocol(learner, source.stream, curve=cell.curve)
    last = outcome.predictions[-1]
    assert last.modules is not None
    answers = last.labels, last.modules, outcome.labels, outcome.tasks
    metrics = summarise(outcome.R, outcome.counts, *answers, few_shot=cell.config.shots is not None)
    if cell.curve:
        found: dict[str, Any] = metrics | {"R": outcome.R}
    else:  # what needs the rows of R before the last is not defined
        found = {name: value for name, value in metrics.items() if np.isfinite(value) or name in LAST}
    return to_json(found | {"seconds": {"evaluate": perf_counter() - start}})
