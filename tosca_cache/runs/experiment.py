"""One setting with one seed on one task stream: train a learner, then evaluate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import TimeRemainingColumn

from tosca_cache.bars import LiveDisplay
from tosca_cache.closed_form.pool import OpinionPool
from tosca_cache.config import Settings, TrainConfig
from tosca_cache.devices import resolve_device
from tosca_cache.evaluate.audit import audit
from tosca_cache.evaluate.metrics import accuracy_curve, average_accuracy, last_accuracy
from tosca_cache.learners.base import FloatArray, IntArray, Learner
from tosca_cache.learners.protocol import Outcome, below_chance, run_protocol
from tosca_cache.learners.tosca import CachedTestFeatures, Tosca
from tosca_cache.routing.combine import Pool
from tosca_cache.shown import Shown
from tosca_cache.tasks import Arrays, Protocol, Rows, TaskStream
from tosca_cache.train.batches import check_plan
from tosca_cache.train.engines import Engine, choose_engine


class Reporter(Interface):
    """Is told how training goes on."""

    def on_seed(self, seed: int, tasks: int, epochs: int) -> None:
        """A seed begins."""

    def on_epoch(self, task: int, epoch: int) -> None:
        """An epoch ended."""

    def on_task(self, task: int, row: NDArray[np.float64]) -> None:
        """A task was learned and evaluated; `row` is its row of R."""


@dataclass(frozen=True, repr=False)
class Trained(Shown):
    """A learner that has seen a whole stream. outcome: R and all predictions on the way."""

    stream: TaskStream
    learner: Learner
    outcome: Outcome

    def targets(self, *, labels: str = "names") -> NDArray[Any]:
        """The true classes of all test rows, in file order, [n]; see `TaskStream.as_labels`."""
        return self.stream.as_labels(self.outcome.labels, labels)

    def predictions(self, after: int = -1, *, labels: str = "names") -> NDArray[Any]:
        """The classes predicted after a task (the last one, if none is named) for the test rows of all tasks seen, [n]."""
        if after != -1:
            self.stream.classes(after)
        return self.stream.as_labels(self.outcome.predictions[after].labels, labels)

    def facts(self) -> dict[str, Any]:
        """What it reached."""
        return {
            "method": self.learner.name,
            "tasks": len(self.stream),
            "classes": len(self.stream.class_names),
            **({"router": self.learner.router_name} if isinstance(self.learner, Tosca) else {}),
            "seed": self.seed,
            "last_accuracy": f"{last_accuracy(self.outcome.R, self.outcome.counts):.2f}",
            "average_accuracy": f"{average_accuracy(self.outcome.R, self.outcome.counts):.2f}",
        }

    def plot(self) -> Any:
        """Accuracy after each task, as an Altair chart; `UsageError` without it."""
        from tosca_cache.plots import curves

        curve = accuracy_curve(self.outcome.R, self.outcome.counts).tolist()
        return curves({self.learner.name: curve}, "accuracy over all classes seen")

    @property
    def seed(self) -> int:
        """Seed of initialisation, batch order and views."""
        return self.learner.seed


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """All metrics of a trained stream.

    metrics: percent, by full name; see `evaluate.summary.summarise`.
    conditions: last accuracy (percent) of the same modules under each routing condition, and without modules of the nearest
        class mean, LDA and the opinion pool.
    outputs: entropy and prediction of every module for every test row after the last task, [T, n] each, rows in file order;
        a prediction is the class that is reported. None without modules.
    seconds: `train`, `evaluate` (within it `adapt` and `head`), `audit`, `closed_forms`.
    """

    metrics: dict[str, float]
    conditions: dict[str, float]
    outputs: tuple[FloatArray, IntArray] | None
    seconds: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """The metrics."""
        return {name: f"{value:.2f}" for name, value in self.metrics.items()}


def train_stream(stream: TaskStream, learner: Learner, reporter: Reporter | None = None) -> Trained:
    """Observes every task in turn, evaluating on all tasks seen after each; warns of accuracy below chance."""
    if reporter is None:
        outcome = run_protocol(learner, stream)
    else:
        reporter.on_seed(learner.seed, len(stream), learner.settings.epochs)
        outcome = run_protocol(learner, stream, on_task=reporter.on_task, on_epoch=reporter.on_epoch)
    below_chance(learner, stream, outcome)
    return Trained(stream.seen_by(learner.pieces), learner, outcome)


def evaluate_trained(trained: Trained) -> Evaluation:
    """All metrics; of modules also the audit of routing conditions on the test rows of the whole stream."""
    outcome = trained.outcome
    metrics = outcome.metrics(few_shot=trained.stream.protocol.shots is not None)
    seconds, outputs, conditions = dict(outcome.seconds), None, dict[str, float]()
    if isinstance(outcome.test_set, CachedTestFeatures):
        start = perf_counter()
        outputs = _module_outputs(trained.stream, outcome.test_set)
        size = outcome.test_set.learner.routing_batch_size
        conditions = audit(*outputs, outcome.labels, outcome.tasks, batch_size=size, seed=trained.seed)
        seconds |= outcome.test_set.seconds | {"audit": perf_counter() - start}
    start = perf_counter()
    conditions |= without_modules(trained)
    seconds["closed_forms"] = perf_counter() - start
    return Evaluation(metrics, conditions, outputs, seconds)


def _module_outputs(stream: TaskStream, test_set: CachedTestFeatures) -> tuple[FloatArray, IntArray]:
    outputs = test_set.outputs()
    return outputs.entropy.cpu().numpy(), stream.class_of[outputs.prediction.cpu().numpy()]


def without_modules(trained: Trained) -> dict[str, float]:
    """Last accuracy (percent) of closed-form classifiers of the raw features on the same stream.

    Where tasks are domains, every class of every domain is a class of its own to them, and counts as the class it is of.
    """
    stream, router = trained.stream.seen_by("last"), getattr(trained.learner, "router", None)
    pool = router.pool if isinstance(router, Pool) else OpinionPool.fitted(stream)
    return pool_accuracies(pool, stream, [stream.test(number) for number in range(len(stream))])


def pool_accuracies(pool: OpinionPool, stream: TaskStream, tests: Sequence[Rows]) -> dict[str, float]:
    """Accuracy (percent) on the test rows of the first tasks, of a pool that has seen these, and two of its classifiers."""
    seen = len(tests)
    clean = torch.from_numpy(np.concatenate([test.features[:, 0] for test in tests]))
    labels = stream.class_of[np.concatenate([test.labels for test in tests])]
    found = {
        "nearest_class_mean": pool.classifiers["mean"].scores(clean, seen),
        "lda": pool.classifiers["lda"].scores(clean, seen),
        "pool": pool.log_probs(clean, seen),
    }
    return {n: 100 * float((stream.class_of[s.argmax(1).numpy()] == labels).mean()) for n, s in found.items()}


def make_stream(
    config: TrainConfig,
    splits: tuple[Arrays, Arrays],
    class_names: Sequence[str],
    seed: int,
    domain_names: Sequence[str] = (),
) -> TaskStream:
    """The task stream of one seed under a configuration's protocol."""
    protocol = vars(protocol_of(config, seed))
    return TaskStream(*splits, class_names=class_names, domain_names=domain_names, **protocol)


def protocol_of(config: TrainConfig, seed: int) -> Protocol:
    """What a task brings, and in which order, with one seed of a configuration."""
    return Protocol(
        increment=None if "increment" in config.idle else config.increment,
        init_cls=config.init_cls,
        task_sizes=config.task_sizes,
        seed=seed,
        shuffle=config.shuffle,
        class_order=config.class_order,
        shots=config.shots,
        incremental=config.incremental,
    )


def make_engine(config: TrainConfig, stream: TaskStream, runs: int, threads: int = 1) -> Engine:
    """What trains `runs` runs of a configuration over streams such as this one; raises `UsageError` if it cannot fit."""
    counts = stream.train_counts().tolist()
    check_plan(max(counts), config.epochs)
    steps = runs * Settings.of(config).steps(counts)
    return choose_engine(config.engine, resolve_device(config.device), steps=steps, threads=threads)


MOST_NUMBERS = 10  # of a line: of a row with more, the average, the last and the lowest are printed


class TrainingProgress(LiveDisplay):
    """Shows epochs done over all tasks of a seed; see `runs.experiment.Reporter`.

    leaks: accuracies come from routing that leaks the task, and are labelled so.
    """

    def __init__(self, console: Console, *, leaks: bool = False) -> None:
        super().__init__(console, "epochs", TimeRemainingColumn())
        self.leaks, self.seed, self.tasks, self.epochs = leaks, 0, 0, 0
        self.bar = self.progress.add_task("train", total=None, visible=False)

    def on_seed(self, seed: int, tasks: int, epochs: int) -> None:
        """Starts the bar of a seed anew."""
        self.seed, self.tasks, self.epochs = seed, tasks, epochs
        words = f"train seed {seed}, task 1/{tasks}"
        self.progress.reset(self.bar, total=tasks * epochs, description=words, visible=True)

    def on_epoch(self, task: int, epoch: int) -> None:
        """Moves the bar on."""
        self._move(task, task * self.epochs + epoch + 1)

    def on_task(self, task: int, row: NDArray[np.float64]) -> None:
        """Moves the bar on, for learners without epochs, too; where it is not to be seen, prints the row of R."""
        self._move(task, (task + 1) * self.epochs)
        if not self.progress.shown:
            done = f"seed {self.seed}: task {task + 1}/{self.tasks} learned"
            label = " (routing leaks the task)" if self.leaks else ""
            self.console.print(f"{done}, accuracy by task{label} {row_words(row)}", soft_wrap=True)

    def _move(self, task: int, epochs: int) -> None:
        words = f"train seed {self.seed}, task {task + 1}/{self.tasks}"
        self.progress.update(self.bar, completed=epochs, description=words)


def row_words(row: NDArray[np.float64]) -> str:
    """A row of R, [tasks]: every number, or of many tasks what matters. The run's log has all of them."""
    if len(row) <= MOST_NUMBERS:
        return " ".join(f"{a:.1f}" for a in row)
    lowest = int(row.argmin())
    return f"{row.mean():.1f} on average, {row[-1]:.1f} the last, {row[lowest]:.1f} the lowest (task {lowest + 1})"
