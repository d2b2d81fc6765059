"""Replays recorded trajectories of the reference arithmetic through the product's own training and inference.

A recording (an .npz file) holds everything random of one short class-incremental run: start values, rows and views of every
step; and what came of it: losses, trained parameters, prototypes, logits, entropies and predictions after every task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.config import Settings
from tosca_cache.errors import ConformanceError, ToscaError
from tosca_cache.evaluate.audit import batch_modules, pick
from tosca_cache.files import strict_json
from tosca_cache.learners.tosca import CachedTestFeatures, Tosca
from tosca_cache.luca.parameters import Head, Luca
from tosca_cache.store.external import read_arrays
from tosca_cache.tasks import Rows, Task
from tosca_cache.train.batches import Batch
from tosca_cache.train.engines import Engine

Array = NDArray[Any]
Arrays = Mapping[str, Array]
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

    def worst(self, name: str, ours: Any, recorded: Any) -> None:
        """Keeps the larger deviation, |ours - recorded| / |recorded| by Euclidean norm; NaN counts as infinite."""
        one, other = (np.asarray(values, np.float64) for values in (ours, recorded))
        value = float("inf")
        if one.shape == other.shape:
            gap, size = float(np.linalg.norm(one - other)), float(np.linalg.norm(other))
            value = 0.0 if gap == 0 else gap / max(size, 1e-300)
        setattr(self, name, max(getattr(self, name), value if np.isfinite(value) else float("inf")))

    def worst_row(self, name: str, ours: Any, recorded: Any) -> None:
        """The same of each row."""
        for one, other in zip(ours, recorded, strict=True):
            self.worst(name, one, other)


def replay(path: Path, *, dtype: torch.dtype = torch.float32, engine: Engine | None = None) -> Deviation:
    """Runs every task of a recording from its recorded start, by PyTorch if no engine is given, and compares the ends.

    Raises `ConformanceError` for what is no recording, and for arrays that do not fit each other.
    """
    try:
        return _replay(str(path), read_arrays(path, list), dtype, engine)
    except (ToscaError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        why = error.problem if isinstance(error, ToscaError) else f"{type(error).__name__}: {error}"
        remedy = "give .npz files laid out as the golden trajectories, with arrays that fit each other"
        raise ConformanceError(f"not a recording that can be replayed: {why}", where=path, remedy=remedy) from error


def _replay(file: str, arrays: Arrays, dtype: torch.dtype, engine: Engine | None) -> Deviation:
    tasks = len({name.split("/")[0] for name in arrays if name.startswith("task")})
    if not tasks:
        raise ValueError("it holds no task")
    deviation = Deviation(file)
    tosca = Tosca(_settings(dict(strict_json(str(arrays["meta"])))), dtype=dtype, engine=engine)
    test_set, labels = tosca.test_set(), arrays["ytr"].astype(np.int64)
    order, start = np.empty(0, np.int64), 0  # test rows of the file, in the order in which they were added
    for t in range(tasks):
        mine = {k.removeprefix(f"task{t}/"): array for k, array in arrays.items() if k.startswith(f"task{t}/")}
        classes = range(start, start := len(mine["init/fc.weight"]))
        rows = np.flatnonzero(np.isin(labels, classes))
        place = np.full(len(labels), -1)  # of every train row of the file within the task
        place[rows] = np.arange(len(rows))
        task, head = Task(t, classes, Rows(arrays["xtr"][rows], labels[rows], rows)), _head(mine, "init")
        if tosca.bank.head is not None:  # the head must have been carried over, with new rows zero
            deviation.worst_row("prototypes", tosca.bank.head.weight[0], head.weight[0, : classes.start])
        batches = _batches(mine, place, tosca.settings.epochs)
        learned = tosca.learn(task, Luca(*_module(mine, "init")), head, batches)
        for ours, recorded in zip(learned.losses[0], mine["loss"], strict=True):
            deviation.worst("loss", ours, recorded)
        deviation.worst("module", _flat(tosca.bank.modules[t]), _flat(_module(mine, "final")))
        trained, final = learned.head, _head(mine, "final")
        deviation.worst_row("head_direction", _unit(trained.weight[0]), _unit(final.weight[0]))
        deviation.worst("head_direction", trained.sigma, final.sigma)
        assert tosca.bank.head is not None
        deviation.worst_row("prototypes", tosca.bank.head.weight[0], mine["prototypes"])
        added = np.flatnonzero(np.isin(arrays["yte"], classes))
        test_set.add(arrays["xte"][added])
        order = np.concatenate([order, added])
        _compare_inference(deviation, mine, test_set, np.argsort(order))
    return deviation


def _compare_inference(deviation: Deviation, mine: Arrays, test_set: CachedTestFeatures, file_order: Array) -> None:
    outputs = test_set.outputs()
    entropy, prediction = outputs.entropy.numpy()[:, file_order], outputs.prediction.numpy()[:, file_order]
    for module in range(len(entropy)):
        deviation.worst("logits", test_set.logits(module).numpy()[file_order], mine["test_logits"][module])
        deviation.worst("entropy", entropy[module], mine["test_entropy"][module])
    deviation.pred_sample_equal &= np.array_equal(test_set.predict().labels[file_order], mine["pred_sample"])
    for name, recorded in mine.items():
        if match := re.fullmatch(r"pred_batch(\d+)_in_order", name):
            chosen = pick(prediction, batch_modules(entropy, int(match[1])))
            deviation.pred_batch_equal &= np.array_equal(chosen, recorded)


def _settings(meta: dict[str, Any]) -> Settings:
    """The recorded hyperparameters."""
    renamed = {"gamma": "step_gamma"}
    known = {f.name: meta.get(renamed.get(f.name, f.name)) for f in fields(Settings)}
    known["milestones"] = tuple(known["milestones"] or ())
    return Settings(**{name: value for name, value in known.items() if value is not None})


def _head(mine: Arrays, when: str) -> Head:
    """Recorded head of a task, [1, ...]."""
    weight, sigma = (torch.from_numpy(mine[f"{when}/fc.{name}"]) for name in ("weight", "sigma"))
    return Head(weight.unsqueeze(0), sigma.reshape(1, 1))


def _module(mine: Arrays, when: str) -> list[torch.Tensor]:
    """Recorded module of a task, [1, ...]."""
    return [torch.from_numpy(mine[f"{when}/{name}"]).unsqueeze(0) for name in RECORDED_NAMES.values()]


def _batches(mine: Arrays, place: Array, epochs: int) -> Iterator[Batch]:
    """The recorded steps of a task."""
    rows, views = mine["batch_rows"], mine["batch_views"]
    steps_an_epoch = max(len(rows) // epochs, 1)
    for step, (row, view) in enumerate(zip(rows, views, strict=True)):
        real = row >= 0  # -1 pads a short last batch
        yield Batch(step // steps_an_epoch, place[row[real]], view[real].astype(np.int64))


def _flat(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows.double() / rows.double().norm(dim=1, keepdim=True).clamp_min(1e-300)
