"""One learner with some seeds on one store: trained, evaluated after every task, and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from traceback import extract_tb
from typing import Any

import numpy as np
import torch

from tosca_cache.compare.cells import CompareCell
from tosca_cache.errors import RunError, short_of_memory
from tosca_cache.evaluate.metrics import accuracy_curve
from tosca_cache.evaluate.summary import to_json
from tosca_cache.learners import Learner, learner_type
from tosca_cache.learners.options import learns_together, make_learner
from tosca_cache.learners.protocol import Outcome, below_chance, run_protocol, run_protocols
from tosca_cache.runs.experiment import make_stream as stream_of
from tosca_cache.sweep.ledger import Finished
from tosca_cache.sweep.scenario import Data
from tosca_cache.tasks import TaskStream
from tosca_cache.train.engines import Engine

SCORINGS = 3  # of all test rows; the median counts
OnTask = Callable[[int, int], None]


@dataclass(frozen=True)
class Workplace:
    """What all cells of a store share. on_task: called with the number of the task just learned, and how many there are."""

    data: Data
    device: torch.device
    engine: Engine
    on_task: OnTask = lambda number, tasks: None


def blocks_of(cells: Sequence[CompareCell]) -> list[list[CompareCell]]:
    """Cells of one learner as they are run: all seeds side by side if the learner has a way to, else one by one."""
    return [list(cells)] if cells and learns_together(learner_type(cells[0].method)) else [[cell] for cell in cells]


def measure_block(cells: Sequence[CompareCell], place: Workplace) -> list[Finished]:
    """Runs cells of one learner side by side; where that fails, one by one, so that only those fail that must."""
    try:
        found = [_numbers(cell, *one) for cell, one in zip(cells, run_cells(cells, place), strict=True)]
        results = to_json([numbers | {"engine": place.engine.name} for numbers in found])
        return [Finished(cell.address, "done", result) for cell, result in zip(cells, results, strict=True)]
    except (Exception, SystemExit) as error:  # a learner may be a user's own, and raise anything; the others go on
        if len(cells) == 1:
            return [Finished(cells[0].address, "failed", reason=_reason(error))]
    # Outside of `except`, where the error would keep everything alive that may not have fitted into memory.
    return [finished for cell in cells for finished in measure_block([cell], place)]


def run_cells(
    cells: Sequence[CompareCell], place: Workplace, tasks: int | None = None
) -> list[tuple[Learner, TaskStream, Outcome]]:
    """Cells of one learner, run side by side if their tasks are of the same sizes.

    Arguments:
        tasks: how many are learned; all if None.
    """
    streams = [make_stream(cell, place.data).first(tasks) for cell in cells]
    learners = [
        make_learner(cell.method, cell.config, cell.options, seed=cell.seed, device=place.device, engine=place.engine)
        for cell in cells
    ]
    if len({tuple(stream.sizes) for stream in streams}) == 1 < len(cells):
        outcomes = run_protocols(learners, streams, on_task=lambda number: place.on_task(number, len(streams[0])))
    else:
        outcomes = [  # one by one where domains of unequal size come in another order for each seed
            run_protocol(learner, stream, on_task=lambda number, row: place.on_task(number, len(streams[0])))
            for learner, stream in zip(learners, streams, strict=True)
        ]
    return list(zip(learners, streams, outcomes, strict=True))


def make_stream(cell: CompareCell, data: Data) -> TaskStream:
    """The task stream of a cell."""
    splits = data.train, data.test
    return stream_of(cell.config, splits, data.class_names, cell.seed, data.domain_names)


def _numbers(cell: CompareCell, learner: Learner, stream: TaskStream, outcome: Outcome) -> dict[str, Any]:
    if reason := learner.diverged:
        raise RunError(f"training diverged: {reason}", remedy="give a smaller --lr")
    return {
        **outcome.metrics(few_shot=cell.config.shots is not None),
        "R": outcome.R,
        "accuracy_curve": accuracy_curve(outcome.R, outcome.counts),
        "below_chance": below_chance(learner, stream, outcome),
        "stored_numbers": learner.stored_numbers,
        "trainable_parameters": learner.trainable_parameters,
        "train_seconds": outcome.seconds["train"],
        "milliseconds": 1000 * scoring_seconds(learner, stream),
    }


def scoring_seconds(learner: Learner, stream: TaskStream) -> float:
    """Seconds from a test row's features to its prediction: all test rows asked about afresh, a row."""
    seen = stream.seen_by(learner.pieces)
    rows = np.concatenate([seen.test(number).features for number in range(len(seen))])

    def once() -> float:
        start = perf_counter()
        test_set = learner.test_set()
        test_set.add(rows)
        test_set.predict()
        return perf_counter() - start

    return median(once() for _ in range(SCORINGS)) / len(rows)


def _reason(error: BaseException) -> str:
    if short_of_memory(error):
        return "memory is not enough"
    frames = extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
