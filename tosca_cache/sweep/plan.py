"""Which cells are trained side by side: groups of one shape, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch

from tosca_cache.config import Settings
from tosca_cache.devices import free_memory
from tosca_cache.luca.parameters import LucaShape
from tosca_cache.sweep.cells import Cell, tasks_of
from tosca_cache.sweep.scenario import Data, make_scenario
from tosca_cache.tasks import TaskStream
from tosca_cache.train.engines import Engine

# What changes the shape of a tensor, or the steps of a loop; all else varies along the model axis.
SHAPE_KEYS = (
    "mlp_ratio",
    "se_ratio",
    "epochs",
    "batch_size",
    "increment",
    "init_cls",
    "task_sizes",
    "shuffle",
    "class_order",
)
SIDE_BY_SIDE = {"native": 4, "torch": 8, "cuda": 512}  # models in a block: a thread, for the caches, to fill a GPU
SCORED_ON_GPU = 4  # cells: while one waits for Python, the others keep the GPU busy
FLOAT = 4
USABLE = 0.6  # of the free memory: the rest is for the store's pages, other processes, and what no estimate knows


@dataclass(frozen=True)
class Sizes:
    """What the cost of one cell follows from.

    shape: of a module. classes: seen after each task, [T]. train, test: rows of each task, [T]. steps: of all tasks.
    """

    shape: LucaShape
    classes: tuple[int, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    views: int
    batch: int
    steps: int

    @classmethod
    def of(cls, cell: Cell, stream: TaskStream, views: int) -> Sizes:
        """Of one cell over its stream."""
        settings, train = Settings.of(cell.config), stream.train_counts().tolist()
        shape = LucaShape.from_ratios(stream.dim, settings.mlp_ratio, settings.se_ratio)
        test = tuple(len(stream.test_labels(number)) for number in range(len(stream)))
        return cls(shape, tuple(stream.stops), tuple(train), test, views, settings.batch_size, settings.steps(train))

    @property
    def training(self) -> float:
        """What training takes grows with this: steps, times the numbers that each changes."""
        return self.steps * (self.shape.luca_size + self.shape.dim * sum(self.classes) / len(self.classes))

    def scoring(self, *, curve: bool) -> int:
        """What scoring takes grows with this: every module meets every test row, and every such row the classes seen, after
        every task (`curve`) or after the last one."""
        seen = [sum(self.test[: number + 1]) for number in range(len(self.test))]
        heads = [(number + 1) * rows * self.classes[number] for number, rows in enumerate(seen)]
        adapted = len(seen) * seen[-1] * 2 * (self.shape.mlp_hidden + self.shape.se_hidden)
        return adapted + (sum(heads) if curve else heads[-1])

    @property
    def bytes_a_model(self) -> int:
        """Of one more model in a block: parameters with gradient and state, a minibatch, and what is kept of each task."""
        d, C = self.shape.dim, self.classes[-1]
        parameters = self.shape.luca_size + C * d
        minibatch = self.batch * (16 * d + 4 * C + 4 * self.shape.mlp_hidden + 4 * self.shape.se_hidden)
        kept = len(self.classes) * self.shape.luca_size + sum(self.classes) * d
        return FLOAT * (5 * parameters + minibatch + kept)

    @property
    def bytes_at_scoring(self) -> int:
        """Of one cell being scored: adapted test rows of every module, and the logits of one."""
        rows = sum(self.test)
        return FLOAT * (rows * self.shape.dim * (len(self.classes) + 2) + 4 * min(rows, 4096) * self.classes[-1])

    @property
    def bytes_a_lane(self) -> int:
        """Of one task's features, in their own dtype and in float32."""
        return 2 * FLOAT * max(self.train) * self.views * self.shape.dim


@dataclass(frozen=True)
class Group:
    """Cells of one shape and scenario. most: models in a block. scored: cells of a block that are scored at a time."""

    cells: tuple[Cell, ...]
    sizes: Sizes
    most: int
    scored: int

    @cached_property
    def models(self) -> list[tuple[Cell, ...]]:
        """The cells of each model that is trained: those that differ in nothing but how its modules are routed."""
        found: dict[object, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.trained, []).append(cell)
        return [tuple(cells) for cells in found.values()]

    @property
    def blocks(self) -> list[tuple[Cell, ...]]:
        """Blocks of about as many models each, settings together with all their seeds as far as they fit."""
        count = -(-len(self.models) // self.most)
        cuts = [round(i * len(self.models) / count) for i in range(count + 1)]
        return [tuple(cell for cells in self.models[a:b] for cell in cells) for a, b in pairwise(cuts)]

    @property
    def bytes(self) -> int:
        """Memory that one block takes at most."""
        lanes = len({cell.seed for cell in self.cells})
        members = min(self.most, len(self.models))
        return (
            members * self.sizes.bytes_a_model
            + min(lanes, members) * self.sizes.bytes_a_lane
            + min(self.scored, members) * self.sizes.bytes_at_scoring
        )

    def describe(self) -> dict[str, object]:
        """The values that its cells have in common and other groups have not."""
        config = self.cells[0].config
        shape: dict[str, object] = {key: getattr(config, key) for key in SHAPE_KEYS if key not in config.idle}
        if config.class_order is not None:
            shape["class_order"] = "given"
        if config.incremental == "domains":
            shape["classes of each domain"] = tuple(b - a for a, b in pairwise((0, *self.sizes.classes)))
        evaluated = "after every task" if self.cells[0].curve else "after the last task"
        return {"rows": self.cells[0].scenario.rows, "evaluated": evaluated} | tasks_of(config) | shape


def plan_groups(
    cells: Sequence[Cell], data: Data, engine: Engine, device: torch.device, *, memory: int | None = None, jobs: int = 1
) -> list[Group]:
    """Groups in order of their first cell.

    Arguments:
        memory: bytes that all jobs together may take; `free_memory` if None.
        jobs: blocks that are trained at the same time.
    """
    memory = int(free_memory(device) * USABLE) if memory is None else memory
    streams: dict[object, TaskStream] = {}
    by_shape: dict[object, tuple[TaskStream, list[Cell]]] = {}
    for cell in cells:
        shape = tuple(getattr(cell.config, name) for name in SHAPE_KEYS)
        order = cell.seed if cell.config.incremental == "domains" else None  # another has other sizes in its places
        asked = (cell.scenario, shape, cell.config.incremental, order)
        if asked not in streams:
            streams[asked] = make_scenario(cell.scenario, cell.config, data, cell.seed)
        key = (cell.scenario, cell.curve, shape, cell.config.device, tuple(streams[asked].sizes))
        by_shape.setdefault(key, (streams[asked], []))[1].append(cell)
    groups, scored = [], scored_at_once(engine, device)
    for stream, members in by_shape.values():
        sizes = Sizes.of(members[0], stream, data.train.features.shape[1])
        most = _most(sizes, engine, device, memory // jobs - scored * sizes.bytes_at_scoring)
        groups.append(Group(tuple(members), sizes, most, scored))
    return groups


def scored_at_once(engine: Engine, device: torch.device) -> int:
    """Cells of a block that are scored at a time: one a core, or a few that share a GPU."""
    return engine.threads if device.type == "cpu" else SCORED_ON_GPU


def _most(sizes: Sizes, engine: Engine, device: torch.device, memory: int) -> int:
    """Models in a block: as many as pay on this device, as far as they fit; one always runs."""
    fit = memory // (sizes.bytes_a_model + sizes.bytes_a_lane)
    pays = SIDE_BY_SIDE["cuda" if device.type == "cuda" else engine.name] * engine.threads
    return max(1, min(pays, fit))
