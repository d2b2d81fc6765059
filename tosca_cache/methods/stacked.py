"""Many TOSCA learners side by side on one model axis: each gives what it gives alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.luca.initialise import initial_head, initial_luca
from tosca_cache.luca.parameters import Head, Luca, LucaShape, Parameters
from tosca_cache.methods.tosca import Tosca
from tosca_cache.tasks import Task, TaskStream
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.engines import Engine
from tosca_cache.train.loop import EpochDone
from tosca_cache.train.settings import Settings
from tosca_cache.train.stack import Lane, Member
from tosca_cache.train.task import learn_task


@dataclass(frozen=True)
class Source:
    """What members may share: a task stream, and the seed of their initialisation, batch order and views."""

    stream: TaskStream
    seed: int


@dataclass
class Recorded:
    """What one member learned of each task, on the CPU, [1, ...] each; for a diverged one up to where it diverged.

    modules: as frozen. heads: over all classes seen, with the prototypes. losses: before every step.
    diverged: why it stopped being a number, if it did.
    """

    modules: list[Luca] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    losses: list[NDArray[np.float64]] = field(default_factory=list)
    diverged: str | None = None


class Replayed(Tosca):
    """A learner that has learned already: it takes recorded modules instead of training them."""

    def __init__(self, recorded: Recorded, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self.recorded = recorded

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        recorded, number = self.recorded, task.number
        self.bank.modules.append(Luca(*(t.to(self.device) for t in recorded.modules[number])))
        self.bank.head = Head(*(t.to(self.device) for t in recorded.heads[number]))
        self.blocks.append(task.classes)
        self.losses.append(recorded.losses[number])
        if self.router is not None:
            self.router.fit(task, self.bank)


def learn_stacked(
    sources: Sequence[Source],
    members: Sequence[Member],
    *,
    device: torch.device,
    engine: Engine,
    on_task: Callable[[int], None] | None = None,
) -> list[Recorded]:
    """Learns the streams of all members, task by task, side by side.

    Arguments:
        sources: their streams have the same number of classes in each task.
        members: their lane is the number of their source; batch size, epochs and hidden sizes are the same for all.
        on_task: called with the number of each task that all have learned.
    """
    records = [Recorded() for _ in members]
    # Those of one flow and optimizer together, so that they are computed as one.
    active = sorted(
        range(len(members)), key=lambda m: (members[m].settings.flow, members[m].settings.optimizer, members[m].lane)
    )
    for number in range(len(sources[0].stream)):
        if active:
            _learn_task(sources, members, records, active, number, device, engine)
            active = [m for m in active if records[m].diverged is None]
        if on_task is not None:
            on_task(number)
    return records


def _learn_task(
    sources: Sequence[Source],
    members: Sequence[Member],
    records: Sequence[Recorded],
    active: Sequence[int],
    number: int,
    device: torch.device,
    engine: Engine,
) -> None:
    used = sorted({members[m].lane for m in active})
    lanes = [_lane(sources[lane], number, members[active[0]].settings, device) for lane in used]
    stacked = [Member(members[m].settings, used.index(members[m].lane)) for m in active]
    parameters = _start(sources, members, records, active, number, device)
    classes = sources[0].stream.classes(number)
    learned = learn_task(parameters, lanes, stacked, classes, engine)
    for place, (m, losses) in enumerate(zip(active, learned.losses, strict=True)):
        record, part = records[m], slice(place, place + 1)
        record.losses.append(losses)
        record.diverged = _divergence(losses, parameters.flat[place], number)
        record.modules.append(Luca(*(t[part].detach().cpu().clone() for t in parameters.luca)))
        record.heads.append(Head(*(t[part].detach().cpu().clone() for t in parameters.head)))


def _lane(source: Source, number: int, settings: Settings, device: torch.device) -> Lane:
    rows = source.stream.task(number).train
    n, views, _ = rows.features.shape
    batches = epoch_batches(
        n, views - 1, epochs=settings.epochs, batch_size=settings.batch_size, seed=source.seed, task=number
    )
    features = torch.from_numpy(rows.features).to(device).float()
    return Lane(features, torch.from_numpy(rows.labels).to(device), list(batches))


def _start(
    sources: Sequence[Source],
    members: Sequence[Member],
    records: Sequence[Recorded],
    active: Sequence[int],
    number: int,
    device: torch.device,
) -> Parameters:
    """Fresh modules by seed, and the heads so far grown by zero rows (drawn by seed before the first task)."""
    stream, settings = sources[0].stream, members[active[0]].settings
    shape = LucaShape.from_ratios(stream.dim, settings.mlp_ratio, settings.se_ratio)
    parameters = Parameters(shape, stream.classes(number).stop, models=len(active), device=device, dtype=torch.float32)
    seeds = [sources[members[m].lane].seed for m in active]
    lucas = {seed: initial_luca(shape, seed, number) for seed in set(seeds)}
    heads = [
        records[m].heads[-1] if number else initial_head(stream.dim, parameters.classes, seed)
        for m, seed in zip(active, seeds, strict=True)
    ]
    parameters.set_luca(Luca(*(torch.cat(parts) for parts in zip(*(lucas[seed] for seed in seeds), strict=True))))
    parameters.set_head(Head(*(torch.cat(parts) for parts in zip(*heads, strict=True))))
    return parameters


def _divergence(losses: NDArray[np.float64], flat: torch.Tensor, number: int) -> str | None:
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        return f"the loss was {losses[wrong[0]]} before step {wrong[0] + 1} of {len(losses)} of task {number + 1}"
    if not isfinite(float(torch.linalg.vector_norm(flat, float("inf")))):
        return f"a parameter was not finite after task {number + 1}"
    return None
