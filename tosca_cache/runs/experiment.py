"""One setting with one seed on one task stream: train TOSCA, then report what its modules are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import TrainConfig
from tosca_cache.devices import resolve_device
from tosca_cache.evaluate.audit import audit
from tosca_cache.evaluate.metrics import average_accuracy, last_accuracy
from tosca_cache.evaluate.summary import summarise
from tosca_cache.methods.protocol import Outcome, below_chance, run_protocol
from tosca_cache.methods.simplecil import SimpleCil
from tosca_cache.methods.tosca import BATCH_ROUTER, AdaptedRows, Tosca
from tosca_cache.shown import Shown
from tosca_cache.tasks import Arrays, Protocol, TaskStream
from tosca_cache.train.batches import check_plan
from tosca_cache.train.engines import Engine, choose_engine
from tosca_cache.train.settings import Settings

FloatArray = NDArray[np.float64]


class Reporter(Interface):
    """Is told how training goes on."""

    def on_seed(self, seed: int, tasks: int, epochs: int) -> None:
        """A seed begins."""

    def on_epoch(self, task: int, epoch: int) -> None:
        """An epoch ended."""

    def on_task(self, task: int, row: FloatArray) -> None:
        """A task was learned and evaluated; `row` is its row of R."""


@dataclass(frozen=True, repr=False)
class Trained(Shown):
    """A learner that has seen a whole stream. method: with its bank; outcome: R and all predictions on the way."""

    stream: TaskStream
    method: Tosca
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
            "method": type(self.method).name,
            "tasks": len(self.stream),
            "classes": len(self.stream.class_names),
            "router": self.method.router.name if self.method.router is not None else BATCH_ROUTER,
            "seed": self.seed,
            "last_accuracy": f"{last_accuracy(self.outcome.R, self.outcome.counts):.2f}",
            "average_accuracy": f"{average_accuracy(self.outcome.R, self.outcome.counts):.2f}",
        }

    @property
    def seed(self) -> int:
        """Seed of initialisation, batch order and views."""
        return self.method.seed


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """What the modules of a trained stream are worth.

    metrics: percent, by full name; see `evaluate.summary.summarise`.
    conditions: last accuracy (percent) of the same modules under each routing condition, and of the nearest class mean.
    entropy, prediction: of every module for every test row after the last task, [T, n], rows in file order; a prediction is
        the class that is reported.
    seconds: `train`, `evaluate` (within it `adapt` and `head`), `audit`.
    """

    metrics: dict[str, float]
    conditions: dict[str, float]
    entropy: NDArray[np.floating[Any]]
    prediction: NDArray[np.int64]
    seconds: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """The metrics."""
        return {name: f"{value:.2f}" for name, value in self.metrics.items()}


def train_stream(stream: TaskStream, method: Tosca, reporter: Reporter | None = None) -> Trained:
    """Observes every task in turn, evaluating on all tasks seen after each; warns of accuracy below chance."""
    if reporter is None:
        outcome = run_protocol(method, stream)
    else:
        reporter.on_seed(method.seed, len(stream), method.settings.epochs)
        outcome = run_protocol(method, stream, on_task=reporter.on_task, on_epoch=reporter.on_epoch)
    below_chance(method, stream, outcome)
    return Trained(stream, method, outcome)


def evaluate_trained(trained: Trained) -> Evaluation:
    """All metrics, and the audit of routing conditions on the test rows of the whole stream."""
    outcome, method = trained.outcome, trained.method
    start = perf_counter()
    watch, last = outcome.watch, outcome.predictions[-1]
    assert isinstance(watch, AdaptedRows)
    assert last.modules is not None
    evidence = watch.evidence()
    entropy, prediction = evidence.entropy.cpu().numpy(), trained.stream.class_of[evidence.prediction.cpu().numpy()]
    conditions = audit(
        entropy,
        prediction,
        outcome.labels,
        outcome.tasks,
        batch_size=method.routing_batch_size,
        seed=trained.seed,
    )
    conditions["nearest_class_mean"] = nearest_class_mean_accuracy(trained.stream, outcome)
    few_shot = trained.stream.protocol.shots is not None
    answers = last.labels, last.modules, outcome.labels, outcome.tasks
    metrics = summarise(outcome.R, outcome.counts, *answers, few_shot=few_shot)
    seconds = outcome.seconds | watch.seconds | {"audit": perf_counter() - start}
    return Evaluation(metrics, conditions, entropy, prediction, seconds)


def nearest_class_mean_accuracy(stream: TaskStream, outcome: Outcome) -> float:
    """Last accuracy (percent) of cosine similarity to the raw class means on the same stream: the floor to beat.

    Where tasks are domains, every class of every domain has a mean, and the nearest one's class is the answer.
    """
    floor = SimpleCil()
    for task in stream:
        floor.observe(task)
    clean = np.concatenate([stream.test(number).features[:, 0] for number in range(len(stream))])
    return 100 * float((stream.class_of[floor.scores(clean).argmax(1)] == outcome.labels).mean())


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


def make_settings(config: TrainConfig) -> Settings:
    """The part of a configuration that training depends on."""
    return Settings(**{f.name: getattr(config, f.name) for f in fields(Settings)})


def make_engine(config: TrainConfig, stream: TaskStream, runs: int) -> Engine:
    """What trains `runs` runs of a configuration over streams such as this one; raises `UsageError` if it cannot fit."""
    counts = stream.train_counts().tolist()
    check_plan(max(counts), config.epochs)
    steps = runs * make_settings(config).steps(counts)
    return choose_engine(config.engine, resolve_device(config.device), steps=steps)


def make_method(config: TrainConfig, seed: int, engine: Engine | None = None) -> Tosca:
    """A fresh TOSCA learner of a configuration."""
    return Tosca(
        make_settings(config),
        seed=seed,
        router=config.router,
        routing_batch_size=config.routing_batch_size,
        device=resolve_device(config.device),
        engine=engine,
    )
