"""Replays recorded trajectories of the reference arithmetic through the product's own training and inference.

A recording (an .npz file) holds everything random of one short class-incremental run: start values, rows and views of every
step; and what came of it: losses, trained parameters, prototypes, logits, entropies and predictions after every task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.config import Settings
from tosca_cache.errors import ConformanceError, StoreError, UsageError
from tosca_cache.evaluate.audit import batch_modules, pick
from tosca_cache.files import strict_json
from tosca_cache.learners.tosca import CachedTestFeatures, Tosca
from tosca_cache.luca.parameters import Head, Luca
from tosca_cache.store.external import read_arrays
from tosca_cache.tasks import Rows, Task
from tosca_cache.train.batches import Batch
from tosca_cache.train.engines import Engine

Array = NDArray[Any]
TOLERANCE = 1e-5
_RECORDED = "norm.weight norm.bias mlp.0.weight mlp.0.bias mlp.2.weight mlp.2.bias se.0.weight se.2.weight"
RECORDED_NAMES = dict(zip(Luca._fields, _RECORDED.split(), strict=True))


@dataclass
class Deviation:
    """Worst relative deviations from a recording over all its tasks.

    loss: of any step's loss. module: of all parameters of a module, by norm. head_direction: of any trained head row, unit
    length, and of sigma. prototypes: of any head row after the prototypes were set, by norm. logits, entropy: by norm of a
    module's values. The two predictions: equal on every row.
    """

    file: str
    loss: float = 0.0
    module: float = 0.0
    head_direction: float = 0.0
    prototypes: float = 0.0
    logits: float = 0.0
    entropy: float = 0.0
    pred_sample_equal: bool = True
    pred_batch_equal: bool = True

    @property
    def ok(self) -> bool:
        """All deviations within `TOLERANCE` and all predictions equal."""
        numbers = [getattr(self, f.name) for f in fields(self) if f.type == "float"]
        return all(n <= TOLERANCE for n in numbers) and self.pred_sample_equal and self.pred_batch_equal

    def worst(self, name: str, value: float) -> None:
        """Keeps the larger deviation; NaN counts as infinite."""
        setattr(self, name, max(getattr(self, name), value if np.isfinite(value) else float("inf")))


class Recording:
    """One file of recorded arrays; raises `ConformanceError` if it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.arrays: dict[str, Array] = read_arrays(path, list)
            self.meta: dict[str, Any] = dict(strict_json(str(self["meta"])))
        except (StoreError, UsageError, ValueError, TypeError, AttributeError) as error:
            raise ConformanceError(
                f"not a readable recording: {getattr(error, 'problem', error)}",
                where=path,
                remedy="give .npz files laid out as the golden trajectories",
            ) from error
        self.tasks = len({name.split("/")[0] for name in self.arrays if name.startswith("task")})
        if not self.tasks:
            raise ConformanceError("the recording holds no task", where=path, remedy="record at least task0")
        self.seen = [len(self[f"task{t}/init/fc.weight"]) for t in range(self.tasks)]

    def __getitem__(self, name: str) -> Array:
        try:
            return self.arrays[name]
        except KeyError:
            raise ConformanceError(
                f"the recording has no array {name!r}", where=self.path, remedy="record it again with every key"
            ) from None

    def settings(self) -> Settings:
        """The recorded hyperparameters."""
        renamed = {"gamma": "step_gamma"}
        known = {f.name: self.meta.get(renamed.get(f.name, f.name)) for f in fields(Settings)}
        known["milestones"] = tuple(known["milestones"] or ())
        return Settings(**{name: value for name, value in known.items() if value is not None})

    def task(self, t: int) -> tuple[Task, Array]:
        """Task t, and the place of every train row of the file within it, [rows of the file]."""
        classes = range(self.seen[t - 1] if t else 0, self.seen[t])
        chosen = np.flatnonzero((self["ytr"] >= classes.start) & (self["ytr"] < classes.stop))
        place = np.full(len(self["ytr"]), -1)
        place[chosen] = np.arange(len(chosen))
        return Task(t, classes, Rows(self["xtr"][chosen], self["ytr"][chosen].astype(np.int64), chosen)), place

    def start(self, t: int) -> tuple[Luca, Head]:
        """Recorded start of module and head of task t, [1, ...]."""
        return Luca(*self._luca(t, "init")), self.head(t, "init")

    def head(self, t: int, when: str) -> Head:
        """Recorded head of task t, [1, ...]."""
        weight, sigma = (torch.from_numpy(self[f"task{t}/{when}/fc.{name}"]) for name in ("weight", "sigma"))
        return Head(weight.unsqueeze(0), sigma.reshape(1, 1))

    def module(self, t: int) -> Array:
        """All trained parameters of module t, flattened."""
        return torch.cat([part.flatten() for part in self._luca(t, "final")]).numpy()

    def _luca(self, t: int, when: str) -> list[torch.Tensor]:
        return [torch.from_numpy(self[f"task{t}/{when}/{name}"]).unsqueeze(0) for name in RECORDED_NAMES.values()]

    def batches(self, t: int, place: Array, epochs: int) -> Iterator[Batch]:
        """The recorded steps of task t."""
        rows, views = self[f"task{t}/batch_rows"], self[f"task{t}/batch_views"]
        steps_an_epoch = max(len(rows) // epochs, 1)
        for step, (row, view) in enumerate(zip(rows, views, strict=True)):
            real = row >= 0  # -1 pads a short last batch
            yield Batch(step // steps_an_epoch, place[row[real]], view[real].astype(np.int64))


def replay(path: Path, *, dtype: torch.dtype = torch.float32, engine: Engine | None = None) -> Deviation:
    """Runs every task of a recording from its recorded start, by PyTorch if no engine is given, and compares the ends.

    Raises `ConformanceError` for what is no recording, and for arrays that do not fit each other.
    """
    try:
        return _replay(path, dtype, engine)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConformanceError(
            f"the recording cannot be replayed: {type(error).__name__}: {error}",
            where=path,
            remedy="record it again with arrays that fit each other",
        ) from error


def _replay(path: Path, dtype: torch.dtype, engine: Engine | None) -> Deviation:
    recording = Recording(path)
    deviation = Deviation(str(path))
    tosca = Tosca(recording.settings(), dtype=dtype, engine=engine)
    test_set = tosca.test_set()
    order: Array = np.empty(0, dtype=np.int64)  # test rows of the file, in the order in which they were added
    for t in range(recording.tasks):
        task, place = recording.task(t)
        luca, head = recording.start(t)
        if tosca.bank.head is not None:  # the head must have been carried over, with new rows zero
            _compare_rows(
                deviation, "prototypes", tosca.bank.head.weight[0], head.weight[0, : task.classes.start].numpy()
            )
        learned = tosca.learn(task, luca, head, recording.batches(t, place, tosca.settings.epochs))
        _compare_training(deviation, recording, t, tosca, learned.losses[0], learned.head)
        added = np.flatnonzero((recording["yte"] >= task.classes.start) & (recording["yte"] < task.classes.stop))
        test_set.add(recording["xte"][added])
        order = np.concatenate([order, added])
        _compare_inference(deviation, recording, t, test_set, np.argsort(order))
    return deviation


def _compare_training(
    deviation: Deviation, recording: Recording, t: int, tosca: Tosca, losses: Array, trained: Head
) -> None:
    recorded = recording[f"task{t}/loss"]
    deviation.worst("loss", float(np.max(np.abs(losses - recorded) / np.abs(recorded))))
    module = torch.cat([part.flatten() for part in tosca.bank.modules[t]]).numpy()
    deviation.worst("module", _relative(module, recording.module(t)))
    final = recording.head(t, "final")
    _compare_rows(deviation, "head_direction", _unit(trained.weight[0]), _unit(final.weight[0]).numpy())
    deviation.worst("head_direction", _relative(trained.sigma.numpy(), final.sigma.numpy()))
    assert tosca.bank.head is not None
    _compare_rows(deviation, "prototypes", tosca.bank.head.weight[0], recording[f"task{t}/prototypes"])


def _compare_inference(
    deviation: Deviation, recording: Recording, t: int, test_set: CachedTestFeatures, file_order: Array
) -> None:
    outputs = test_set.outputs()
    entropy, prediction = outputs.entropy.numpy()[:, file_order], outputs.prediction.numpy()[:, file_order]
    for module in range(t + 1):
        logits = test_set.logits(module).numpy()[file_order]
        deviation.worst("logits", _relative(logits, recording[f"task{t}/test_logits"][module]))
        deviation.worst("entropy", _relative(entropy[module], recording[f"task{t}/test_entropy"][module]))
    routed = test_set.predict().labels[file_order]
    deviation.pred_sample_equal &= bool(np.array_equal(routed, recording[f"task{t}/pred_sample"]))
    for name in recording.arrays:
        if match := re.fullmatch(rf"task{t}/pred_batch(\d+)_in_order", name):
            chosen = pick(prediction, batch_modules(entropy, int(match[1])))
            deviation.pred_batch_equal &= bool(np.array_equal(chosen, recording[name]))


def _compare_rows(deviation: Deviation, name: str, ours: torch.Tensor, recorded: Array) -> None:
    for own, other in zip(ours.numpy(), recorded, strict=True):
        deviation.worst(name, _relative(own, other))


def _relative(ours: Array, recorded: Array) -> float:
    """|ours - recorded| / |recorded| by Euclidean norm, in float64."""
    ours, recorded = ours.astype(np.float64), recorded.astype(np.float64)
    if ours.shape != recorded.shape:
        return float("inf")
    gap, size = float(np.linalg.norm(ours - recorded)), float(np.linalg.norm(recorded))
    return 0.0 if gap == 0 else gap / max(size, 1e-300)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows.double() / rows.double().norm(dim=1, keepdim=True).clamp_min(1e-300)
