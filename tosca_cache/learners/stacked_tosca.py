"""Many TOSCA learners side by side on one model axis: each gives what it gives alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.config import Settings
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.parameters import Head, Luca, LucaShape, Parameters, initial_head, initial_luca
from tosca_cache.tasks import Task, TaskStream
from tosca_cache.train.engines import Engine, divergence, learn_task
from tosca_cache.train.loop import EpochDone
from tosca_cache.train.stack import Lane, Member


@dataclass(frozen=True)
class Source:
    """What members may share: a task stream, and the seed of their initialisation, batch order and views."""

    stream: TaskStream
    seed: int


NOTHING = 1e-3  # a weight that the L1 penalty holds near 0, where a step of gradient descent never leaves it exactly


@dataclass
class TrainedModules:
    """What one member learned of each task, on the CPU, [1, ...] each; for a diverged one up to where it diverged.

    modules: as frozen. heads: over all classes seen, with the prototypes. losses: before every step.
    diverged: why it stopped being a number, if it did.
    """

    modules: list[Luca] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    losses: list[NDArray[np.float64]] = field(default_factory=list)
    diverged: str | None = None

    def sparsity(self) -> float:
        """Percent of the modules' numbers that are at most `NOTHING` in size."""
        sizes = [torch.cat([tensor.flatten() for tensor in module]).abs() for module in self.modules]
        return 100 * float((torch.cat(sizes) <= NOTHING).float().mean())


class PretrainedTosca(Tosca):
    """A learner that has learned already: it takes recorded modules instead of training them."""

    def __init__(self, recorded: TrainedModules, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self.recorded = recorded

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Takes over what was recorded of this task, and fits the router."""
        luca, head = self.recorded.modules[task.number], self.recorded.heads[task.number]
        self.losses.append(self.recorded.losses[task.number])
        self.freeze(task, Luca(*(t.to(self.device) for t in luca)), Head(*(t.to(self.device) for t in head)))


def learn_stacked(
    sources: Sequence[Source],
    members: Sequence[Member],
    *,
    device: torch.device,
    engine: Engine,
    on_task: Callable[[int], None] | None = None,
) -> list[TrainedModules]:
    """Learns the streams of all members, task by task, side by side.

    Arguments:
        sources: their streams have the same number of classes in each task.
        members: their lane is the number of their source; batch size, epochs and hidden sizes are the same for all.
        on_task: called with the number of each task that all have learned.
    """
    stack = _Stack(sources, members, device, engine, [TrainedModules() for _ in members])
    for number in range(len(sources[0].stream)):
        if active := stack.active():
            stack.learn(number, active)
        if on_task is not None:
            on_task(number)
    return stack.records


@dataclass(frozen=True)
class _Stack:
    """Members on their way through their streams, and what they have learned so far."""

    sources: Sequence[Source]
    members: Sequence[Member]
    device: torch.device
    engine: Engine
    records: list[TrainedModules]

    def active(self) -> list[int]:
        """Members that have not diverged; those of one flow and optimizer together, to be computed as one."""

        def kind(m: int) -> tuple[str, str, int]:
            settings, lane = self.members[m]
            return settings.flow, settings.optimizer, lane

        return sorted((m for m, record in enumerate(self.records) if record.diverged is None), key=kind)

    def learn(self, number: int, active: Sequence[int]) -> None:
        """Learns one task and records what came of it."""
        members = [self.members[m] for m in active]
        used = sorted({member.lane for member in members})
        sources = [self.sources[lane] for lane in used]
        lanes = [Lane.of(one.stream.task(number), one.seed, members[0].settings, self.device) for one in sources]
        stacked = [Member(member.settings, used.index(member.lane)) for member in members]
        parameters = self._start(number, active)
        classes = self.sources[0].stream.classes(number)
        learned = learn_task(parameters, lanes, stacked, classes, self.engine)
        for place, (m, losses) in enumerate(zip(active, learned.losses, strict=True)):
            record, part = self.records[m], slice(place, place + 1)
            record.losses.append(losses)
            record.diverged = divergence(losses, parameters.flat[place], number)
            record.modules.append(Luca(*(t[part].detach().cpu().clone() for t in parameters.luca)))
            record.heads.append(Head(*(t[part].detach().cpu().clone() for t in parameters.head)))

    def _start(self, number: int, active: Sequence[int]) -> Parameters:
        """Fresh modules by seed, and the heads so far grown by zero rows (drawn by seed before the first task)."""
        stream, settings = self.sources[0].stream, self.members[active[0]].settings
        shape = LucaShape.from_ratios(stream.dim, settings.mlp_ratio, settings.se_ratio)
        classes = stream.classes(number).stop
        parameters = Parameters(shape, classes, models=len(active), device=self.device, dtype=torch.float32)
        seeds = [self.sources[self.members[m].lane].seed for m in active]
        lucas = {seed: initial_luca(shape, seed, number) for seed in set(seeds)}
        heads = [
            self.records[m].heads[-1] if number else initial_head(stream.dim, classes, seed)
            for m, seed in zip(active, seeds, strict=True)
        ]
        parameters.set_luca(Luca(*(torch.cat(parts) for parts in zip(*(lucas[seed] for seed in seeds), strict=True))))
        parameters.set_head(Head(*(torch.cat(parts) for parts in zip(*heads, strict=True))))
        return parameters
