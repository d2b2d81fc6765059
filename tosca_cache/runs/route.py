"""Stored modules behind other routers, without training: what each router is worth, and what order and batches leak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.config import TrainConfig, resolve
from tosca_cache.devices import on_cores, resolve_device
from tosca_cache.errors import RunError
from tosca_cache.evaluate.audit import audit
from tosca_cache.evaluate.metrics import accuracy_given_right_task, task_identification_accuracy
from tosca_cache.learners.files import FILE, load_learner
from tosca_cache.learners.tosca import Tosca
from tosca_cache.routing import ModuleOutputs, RoutedPrediction, Router, make_router
from tosca_cache.routing.classifier import ClosedFormRouter
from tosca_cache.runs.directory import read_json, store_used
from tosca_cache.runs.experiment import make_engine, make_stream
from tosca_cache.tasks import Task, TaskStream, load_splits, memory_for_features

IntArray = NDArray[np.int64]
BATCH_SIZES = (8, 48, 256)


@dataclass(frozen=True)
class Stored:
    """One seed of a run, ready to be asked again.

    outputs: of all test rows after the last task, in file order. labels, tasks: the true ones, [n]; labels are classes
        as the stream reports them.
    """

    run: Path
    seed: int
    stream: TaskStream
    learner: Tosca
    outputs: ModuleOutputs
    labels: IntArray
    tasks: IntArray

    def reported(self, learned: Tensor) -> IntArray:
        """The classes that class indices stand for, of any shape."""
        return self.stream.class_of[learned.cpu().numpy()]


def stored_seeds(run: Path, store: Path | None = None, *, device: str = "auto") -> Iterator[Stored]:
    """The seeds of a finished run, with their modules as they were after the last task.

    Arguments:
        store: where the store is now, if it is not where the run found it.

    Raises `RunError` if the run's files are damaged or the store is another one.
    """
    config = resolve(config=run / "config.toml").config
    opened = store_used(read_json(run / "provenance.json"), run, store)
    splits = load_splits(opened, config.incremental, most=memory_for_features())
    for seed in config.seeds:
        stream = make_stream(config, splits, opened.class_names, seed, opened.domain_names)
        yield _ask(run, seed, stream, config, device)


def _ask(run: Path, seed: int, stream: TaskStream, config: TrainConfig, device: str) -> Stored:
    where = resolve_device(device)
    path = run / f"seed-{seed}" / FILE
    learner, facts = load_learner(path, device=where, engine=make_engine(config, stream, 1))
    if not isinstance(learner, Tosca):
        raise RunError(f"{learner.name} has no modules to route between", where=run, remedy="choose a run of tosca")
    sizes, wanted = facts["task_sizes"], (len(stream), sum(stream.sizes), stream.dim)
    if (sizes, learner.bank.shape) != (stream.sizes, wanted):
        raise RunError(
            f"the modules are of tasks of {sizes} classes (modules, classes and feature size {learner.bank.shape}), the "
            f"configuration and the store make {stream.sizes} of size {stream.dim}",
            where=path,
            remedy="train the run again",
        )
    return ask(stream, learner, run)


def ask(stream: TaskStream, learner: Tosca, run: Path = Path()) -> Stored:
    """What the modules of a learner that has seen a whole stream say of its test rows."""
    test_set = learner.test_set()
    tests = [stream.test(number) for number in range(len(stream))]
    for test in tests:
        test_set.add(test.features)
    labels = stream.class_of[np.concatenate([test.labels for test in tests])]
    tasks = np.repeat(np.arange(len(tests)), [len(test) for test in tests])
    return Stored(run, learner.seed, stream, learner, test_set.outputs(), labels, tasks)


def route_again(stored: Stored, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each router: last accuracy, task-identification accuracy, accuracy given the right task (percent), seconds.

    Seconds are of fitting on the train rows of all tasks and of routing all test rows, with one router a core; what modules
    say is computed before, and what several routers learn alike is in the seconds of the first of them.
    `without_modules` is the last accuracy of a router's own classifiers, NaN for a router that has none.
    """
    routers, cache = {name: make_router(name) for name in names}, dict[str, Any]()
    for router in routers.values():
        router.share_cache(cache)
    tasks = list(stored.stream)
    threads = torch.get_num_threads() if stored.outputs.features.device.type == "cpu" else 1
    found = on_cores(lambda router: _routed(stored, router, tasks), routers.values(), threads)
    return dict(zip(routers, found, strict=True))


@torch.inference_mode()
def _routed(stored: Stored, router: Router, tasks: Sequence[Task]) -> dict[str, float]:
    start = perf_counter()
    for task in tasks:
        router.fit(task, stored.learner.bank)
    answer = router.predict(stored.outputs)
    seconds = perf_counter() - start
    alone = float("nan")
    if isinstance(router, ClosedFormRouter):
        alone = 100 * float((stored.reported(router.classifier_only(stored.outputs)) == stored.labels).mean())
    return worth(stored, answer) | {"without_modules": alone, "seconds": seconds}


def worth(stored: Stored, answer: RoutedPrediction) -> dict[str, float]:
    """What the modules chosen and the classes answered are worth, in percent."""
    modules, prediction = answer.modules.cpu().numpy(), stored.reported(answer.labels)
    return {
        "last_accuracy": 100 * float((prediction == stored.labels).mean()),
        "task_identification_accuracy": task_identification_accuracy(modules, stored.tasks),
        "accuracy_given_right_task": accuracy_given_right_task(prediction, stored.labels, modules, stored.tasks),
    }


def leak_curve(stored: Stored) -> dict[str, float]:
    """Last accuracy (percent) of the same modules per sample, under the true task, and by batch votes of several sizes."""
    entropy, prediction = stored.outputs.entropy.cpu().numpy(), stored.reported(stored.outputs.prediction)
    found: dict[str, float] = {}
    for size in BATCH_SIZES:
        conditions = audit(entropy, prediction, stored.labels, stored.tasks, batch_size=size, seed=stored.seed)
        found |= {"per_sample": conditions["per_sample"], "oracle": conditions["oracle"]}
        found |= {f"batch_{size}_{order}": conditions[f"batch_{order}"] for order in ("shuffled", "in_order")}
    return found
