"""The functions of the package: open a store, build the task stream, train, route, evaluate, in one call each.

import tosca_cache as tosca

store = tosca.open_store("cache/digits--...")
store = tosca.import_features(embeddings, labels, dataset="birds", split=is_test)  # computed elsewhere
checked = tosca.verify_store("cache/digits--...")  # checked.ok, checked.problems
stream = tosca.task_stream(store, increment=2, seed=1993)  # or incremental="domains"
trained = tosca.train(stream, l1=5e-4)
labels, modules = tosca.route(trained, features)
report = tosca.evaluate(trained)
table = tosca.compare(store, methods="all", seeds=5, increment=10)
runs, cells = tosca.runs("runs"), tosca.ledger("runs/cub.sqlite")  # pandas DataFrames
found = tosca.sweep(store, {"l1": [1e-4, 5e-4], "lr": "log:0.005:0.1:5"}, ledger="runs/cub.sqlite", increment=10)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache import plots
from tosca_cache.api_searches import compare, ledger, runs, sweep
from tosca_cache.arguments import checked, checks, feature_rows, optional, plain_values, reporter, unknown
from tosca_cache.bars import given_or_bar
from tosca_cache.config import Settings, config_of
from tosca_cache.config.checks import one_of
from tosca_cache.devices import resolve_device
from tosca_cache.errors import UsageError
from tosca_cache.evaluate.summary import to_json
from tosca_cache.learners.options import check_options, full_options, make_learner, method_names
from tosca_cache.learners.tosca import BATCH_ROUTER, Tosca
from tosca_cache.routing import make_router
from tosca_cache.runs.experiment import Reporter, Trained, TrainingProgress, evaluate_trained, make_engine, train_stream
from tosca_cache.shown import Report
from tosca_cache.store import Store
from tosca_cache.store import open_store as _open_store
from tosca_cache.store.external import as_values
from tosca_cache.store.importing import ImportOptions, digest_of, import_arrays
from tosca_cache.store.verify import Verification
from tosca_cache.store.verify import verify_store as _verify_store
from tosca_cache.tasks import LABELS, TaskStream
from tosca_cache.terminal import make_console

_TRAIN = ("method", "options", "seed", "router", "device", "engine", "reporter")  # besides the training settings

__all__ = [
    "compare",
    "evaluate",
    "import_features",
    "ledger",
    "open_store",
    "predict",
    "route",
    "runs",
    "sweep",
    "task_stream",
    "train",
    "verify_store",
]

IntArray = NDArray[np.int64]

_LABELS = checks(one_of(LABELS))


@checked()
def open_store(path: str | Path) -> Store:
    """A finished feature store; raises `StoreError` if it is missing, unfinished or damaged."""
    return _open_store(path)


@checked()
def verify_store(path: str | Path) -> Verification:
    """Reads every byte of a finished store, and lists all that is wrong with it (`.ok`, `.problems`); changes nothing.

    `tosca cache verify` also mends stores, and computes parts of them again. Raises `StoreError` if there is no finished
    store.
    """
    return _verify_store(path)


@checked()
def import_features(
    features: NDArray[Any],
    labels: NDArray[Any] | Sequence[str],
    *,
    dataset: str,
    test_features: NDArray[Any] | None = None,
    test_labels: NDArray[Any] | Sequence[str] | None = None,
    split: NDArray[Any] | Sequence[str] | None = None,
    domains: NDArray[Any] | Sequence[str] | None = None,
    test_domains: NDArray[Any] | Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    domain_names: Sequence[str] | None = None,
    backbone: str = "imported",
    store_dtype: str | None = None,
    drop_bad: bool = False,
    root: str | Path = "cache",
) -> Store:
    """A store of features that were computed elsewhere, which says so; the one that is there if it is the same.

    Test rows come as `test_features` and `test_labels`, or are chosen by `split`.

    Arguments:
        features: [n, d], or [n, views, d] with the clean view first; float16, float32 or float64.
        labels: [n], whole numbers or texts.
        split: [n], true for test; or texts such as `train` and `test`.
        domains: [n], numbers or texts; for `incremental="domains"`.
        class_names, domain_names: what numbers refer to.
        backbone: what made the features.
        drop_bad: leave out rows of NaN, infinity or zeros, instead of an error.
        store_dtype: `float16` or `float32`; by default the one that keeps them (float64 is rounded to float32).

    Raises `UsageError` for arrays that cannot make a store, `StoreError` if the disk refuses.
    """

    given = [{"features": features, "labels": labels, "domains": domains}]
    if (test_features is None) != (test_labels is None):
        raise UsageError("test features and test labels go together", where="test_features", remedy="give both")
    if test_features is not None:
        given.append({"features": test_features, "labels": test_labels, "domains": test_domains})
    parts = [{role: as_values(values) for role, values in part.items() if values is not None} for part in given]
    options = ImportOptions(Path(root), dataset, backbone, store_dtype, drop_bad)
    return import_arrays(
        parts,
        options,
        {"arrays": "in memory", "sha256": digest_of(parts)},
        split=None if split is None else as_values(split),
        class_names=class_names,
        domain_names=domain_names,
    )[0]


@checked()
def task_stream(
    store: Store,
    *,
    increment: int | None = None,
    init_cls: int | None = None,
    task_sizes: Sequence[int] | None = None,
    class_order: Sequence[int | str] | None = None,
    shots: int | None = None,
    seed: int = 1993,
    shuffle: bool = True,
    incremental: str = "classes",
) -> TaskStream:
    """The tasks of one order of classes, or of domains; see `tasks.TaskStream`, and `class_order.Protocol` for the rest."""
    return TaskStream.from_store(
        store,
        increment=increment,
        init_cls=init_cls,
        task_sizes=task_sizes,
        class_order=class_order,
        shots=shots,
        seed=seed,
        shuffle=shuffle,
        incremental=incremental,
    )


@checked(reporter=optional(reporter("on_seed", "on_epoch", "on_task")))
def train(
    stream: TaskStream,
    *,
    method: str = "tosca",
    options: Mapping[str, Any] | None = None,
    seed: int = 1993,
    router: str = "sample",
    device: str = "auto",
    engine: str = "auto",
    reporter: Reporter | None = None,
    **settings: Any,
) -> Trained:
    """Trains a learner over a stream and fills R.

    Arguments:
        method: name of the learner (`tosca methods`). options: of it, by name.
        seed: of initialisation, batch order and views (the order of classes or domains is the stream's own).
        router: how learners with modules choose one for a sample (docs/routers.md).
        engine: what trains: `native`, `torch`, or `auto`; see `train.engines`.
        settings: fields of `config.Settings`: l1, lr, epochs, batch_size, flow, ...
    """
    names = [field.name for field in fields(Settings)]
    for key in settings:
        if key not in names:
            raise unknown(key, [*names, *_TRAIN], "train")
    fixed = {"method": method, "router": router, "device": device, "engine": engine}
    config = config_of(plain_values(settings) | fixed)
    check_options({method_names([method])[0]: options or {}})
    where, trainer = resolve_device(device), make_engine(config, stream, 1)
    chosen = full_options(method, config, plain_values(options or {}))
    learner = make_learner(method, config, chosen, seed=seed, device=where, engine=trainer)
    leaks = chosen.get("router") == BATCH_ROUTER
    with given_or_bar(reporter, lambda: TrainingProgress(make_console(), leaks=leaks)) as told:
        return train_stream(stream, learner, told)


@checked(labels=_LABELS)
def predict(trained: Trained, features: NDArray[Any], *, labels: str = "names") -> NDArray[Any]:
    """Predicted classes of features, [n].

    Arguments:
        features: clean ones, [n, d], or clean ones followed by augmented views, [n, 1+V, d].
        labels: how classes come: `names`; `original`, the indices of the store's labels; or `positions` in the class order,
            which is another one for every seed.
    """
    rows = feature_rows(features, trained.stream.dim)
    test_set = trained.learner.test_set()
    test_set.add(rows)
    found = test_set.predict().labels if len(rows) else np.empty(0, dtype=np.int64)
    return trained.stream.as_labels(trained.stream.class_of[found], labels)


@checked(labels=_LABELS)
def route(
    trained: Trained, features: NDArray[Any], router: str | None = None, *, labels: str = "names"
) -> tuple[NDArray[Any], IntArray]:
    """Predicted classes [n] and answering modules [n] for test features, without training; features, labels: as `predict`.

    The module is the number of a task (see `TaskStream.names` and `TaskStream.domain_names`).

    Arguments:
        router: another router than the one trained with; it is fitted on the stream's train rows first.
    """
    learner, stream = trained.learner, trained.stream
    rows = feature_rows(features, stream.dim)
    if not isinstance(learner, Tosca):
        raise UsageError(f"{learner.name} has no modules", where="trained", remedy="use predict")
    if not len(rows):
        nothing = np.empty(0, dtype=np.int64)
        return stream.as_labels(nothing, labels), nothing
    test_set = learner.test_set()
    test_set.add(rows)
    if router is None:
        found = learner.route(test_set.outputs())
    else:
        other = make_router(router)
        for task in stream:
            other.fit(task, learner.bank)
        found = other.predict(test_set.outputs())
    return stream.as_labels(stream.class_of[found.labels.cpu().numpy()], labels), found.modules.cpu().numpy()


@checked()
def evaluate(trained: Trained) -> dict[str, Any]:
    """R, every metric by its full name, and last accuracy under each routing condition, as plain JSON values."""
    evaluation = evaluate_trained(trained)
    report = to_json(
        {
            "R": trained.outcome.R,
            **evaluation.metrics,
            "last_accuracy_by_condition": evaluation.conditions,
            "seconds": evaluation.seconds,
        }
    )
    rows = [(name, f"{value:.2f}") for name, value in report.items() if isinstance(value, float)]
    return Report(report, "evaluation", ("metric", "percent"), rows, _evaluation_chart)


def _evaluation_chart(report: Mapping[str, Any]) -> Any:
    """The accuracy matrix as a heat map."""
    cells = [
        {"after": i + 1, "task": j + 1, "accuracy": value}
        for i, row in enumerate(report["R"])
        for j, value in enumerate(row)
        if value is not None
    ]
    return plots.chart(cells, "accuracy matrix", "rect", "task:O", "after:O", "accuracy:Q")
