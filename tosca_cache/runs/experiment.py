"""One setting with one seed on one store: TOSCA over its task stream, and what there is to report of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import TrainConfig
from tosca_cache.devices import resolve_device
from tosca_cache.evaluate.audit import audit
from tosca_cache.evaluate.summary import summarise
from tosca_cache.methods.protocol import Outcome, run_protocol
from tosca_cache.methods.simplecil import SimpleCil
from tosca_cache.methods.tosca import AdaptedRows, Tosca
from tosca_cache.tasks import Arrays, TaskStream
from tosca_cache.train.settings import Settings

FloatArray = NDArray[np.float64]


class Reporter(Protocol):
    """Is told how training goes on."""

    def on_seed(self, seed: int, tasks: int, epochs: int) -> None:
        """A seed begins."""

    def on_epoch(self, task: int, epoch: int) -> None:
        """An epoch ended."""

    def on_task(self, task: int, row: FloatArray) -> None:
        """A task was learned and evaluated; `row` is its row of R."""


class Silent:
    """A reporter that says nothing."""

    def on_seed(self, seed: int, tasks: int, epochs: int) -> None: ...

    def on_epoch(self, task: int, epoch: int) -> None: ...

    def on_task(self, task: int, row: FloatArray) -> None: ...


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave.

    stream, method, outcome: the tasks, the trained learner, and R with all predictions.
    entropy, prediction: of every module for every test row after the last task, [T, n], rows in file order.
    metrics: see `evaluate.summary.summarise`.
    conditions: last accuracy (percent) of the same modules under each routing condition, and of the nearest class mean.
    seconds: `train`, `evaluate` (within it `adapt` and `head`), `audit`.
    """

    seed: int
    stream: TaskStream
    method: Tosca
    outcome: Outcome
    entropy: NDArray[np.float32]
    prediction: NDArray[np.int64]
    metrics: dict[str, float]
    conditions: dict[str, float]
    seconds: dict[str, float]


def settings_of(config: TrainConfig) -> Settings:
    """The part of a configuration that training itself needs."""
    return Settings(**{f.name: getattr(config, f.name) for f in fields(Settings)})


def make_stream(
    config: TrainConfig, splits: tuple[Arrays, Arrays], class_names: Sequence[str], seed: int
) -> TaskStream:
    """The task stream of one seed under the configuration's protocol."""
    return TaskStream(
        *splits,
        class_names=class_names,
        increment=config.increment,
        init_cls=config.init_cls,
        seed=seed,
        shuffle=config.shuffle,
    )


def run_seed(
    config: TrainConfig,
    splits: tuple[Arrays, Arrays],
    class_names: Sequence[str],
    seed: int,
    reporter: Reporter | None = None,
) -> SeedResult:
    """Trains, routes and evaluates one seed."""
    reporter = reporter or Silent()
    stream = make_stream(config, splits, class_names, seed)
    method = Tosca(
        settings_of(config),
        seed=seed,
        router=config.router,
        routing_batch_size=config.routing_batch_size,
        device=resolve_device(config.device),
    )
    reporter.on_seed(seed, len(stream), config.epochs)
    outcome = run_protocol(method, stream, on_task=reporter.on_task, on_epoch=reporter.on_epoch)
    assert isinstance(outcome.watch, AdaptedRows)
    start = perf_counter()
    evidence = outcome.watch.evidence()
    entropy, prediction = evidence.entropy.cpu().numpy(), evidence.prediction.cpu().numpy()
    conditions = audit(
        entropy, prediction, outcome.labels, outcome.tasks, batch_size=config.routing_batch_size, seed=seed
    )
    conditions["nearest_class_mean"] = nearest_class_mean_accuracy(stream, outcome)
    last = outcome.predictions[-1]
    assert last.modules is not None
    metrics = summarise(outcome.R, outcome.counts, last.labels, last.modules, outcome.labels, outcome.tasks)
    seconds = outcome.seconds | outcome.watch.seconds | {"audit": perf_counter() - start}
    return SeedResult(seed, stream, method, outcome, entropy, prediction, metrics, conditions, seconds)


def nearest_class_mean_accuracy(stream: TaskStream, outcome: Outcome) -> float:
    """Last accuracy (percent) of cosine similarity to the raw class means on the same stream: the floor to beat."""
    floor = SimpleCil()
    for task in stream:
        floor.observe(task)
    clean = np.concatenate([stream.test(number).features[:, 0] for number in range(len(stream))])
    return 100 * float((floor.scores(clean).argmax(1) == outcome.labels).mean())
