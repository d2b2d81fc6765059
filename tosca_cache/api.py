"""The functions of the package: open a store, build the task stream, train, route, evaluate, in one call each.

import tosca_cache as tosca

store = tosca.open_store("cache/digits--...")
store = tosca.import_features(embeddings, labels, dataset="birds", test_fraction=0.2)  # computed elsewhere
checked = tosca.verify_store("cache/digits--...")  # checked.ok, checked.problems
stream = tosca.task_stream(store, increment=2, seed=1993)  # or incremental="domains"
trained = tosca.train(stream, l1=5e-4)
labels, modules = tosca.route(trained, features)
report = tosca.evaluate(trained)
table = tosca.compare(store, methods="all", seeds=5, increment=10)
found = tosca.sweep(store, {"l1": [1e-4, 5e-4], "lr": "log:0.005:0.1:5"}, ledger="runs/cub.sqlite", increment=10)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.compare.learners import method_names
from tosca_cache.compare.request import CompareRequest, seeds_of
from tosca_cache.compare.run import CompareReporter, run_compare
from tosca_cache.config import config_of
from tosca_cache.devices import resolve_device
from tosca_cache.errors import UsageError
from tosca_cache.evaluate.summary import to_json
from tosca_cache.methods.tosca import Tosca
from tosca_cache.routing import make_router
from tosca_cache.runs.experiment import Reporter, Trained, evaluate_trained, train_stream
from tosca_cache.store import Store
from tosca_cache.store import open_store as _open_store
from tosca_cache.store.exchange import Division, Features, Given, Naming, Part, as_values, digest_of, import_given
from tosca_cache.store.verify import Verification
from tosca_cache.store.verify import verify_store as _verify_store
from tosca_cache.sweep.request import PUBLISHED_SEEDS, SweepRequest
from tosca_cache.sweep.run import Resources, SweepReport, run_sweep
from tosca_cache.sweep.settle import SweepReporter
from tosca_cache.sweep.space import make_space
from tosca_cache.tasks import TaskStream
from tosca_cache.train.batches import check_plan
from tosca_cache.train.engines import choose_engine
from tosca_cache.train.settings import Settings

__all__ = [
    "compare",
    "evaluate",
    "import_features",
    "open_store",
    "route",
    "sweep",
    "task_stream",
    "train",
    "verify_store",
]

IntArray = NDArray[np.int64]


def open_store(path: str | Path) -> Store:
    """A finished feature store; raises `StoreError` if it is missing, unfinished or damaged."""
    return _open_store(Path(path))


def verify_store(path: str | Path) -> Verification:
    """Reads every byte of a finished store, and lists all that is wrong with it (`.ok`, `.problems`); changes nothing.

    `tosca cache verify` also mends stores, and computes parts of them again. Raises `StoreError` if there is no finished
    store.
    """
    return _verify_store(path)


def import_features(
    features: NDArray[Any],
    labels: NDArray[Any] | Sequence[str],
    *,
    dataset: str,
    test_features: NDArray[Any] | None = None,
    test_labels: NDArray[Any] | Sequence[str] | None = None,
    split: NDArray[Any] | Sequence[str] | None = None,
    test_fraction: float | None = None,
    seed: int = 1993,
    domains: NDArray[Any] | Sequence[str] | None = None,
    test_domains: NDArray[Any] | Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    domain_names: Sequence[str] | None = None,
    backbone: str = "imported",
    store_dtype: str | None = None,
    root: str | Path = "cache",
) -> Store:
    """A store of features that were computed elsewhere, which says so; the one that is there if it is the same.

    Test rows come as `test_features` and `test_labels`, or are chosen by `split` or by `test_fraction`.

    Arguments:
        features: [n, d], or [n, views, d] with the clean view first; float16, float32 or float64.
        labels: [n], whole numbers or texts.
        split: [n], true for test; or texts such as `train` and `test`.
        test_fraction, seed: share of each class for the test split, and which rows those are.
        domains: [n], numbers or texts; for `incremental="domains"`.
        class_names, domain_names: what numbers refer to.
        backbone: what made the features.
        store_dtype: `float16` or `float32`; by default the one that keeps them (float64 is rounded to float32).

    Raises `UsageError` for arrays that cannot make a store, `StoreError` if the disk refuses.
    """

    def part(rows: NDArray[Any], own_labels: Any, own_domains: Any) -> Part:
        known = None if own_domains is None else as_values(own_domains)
        return Part(Features(np.asarray(rows)), as_values(own_labels), known)

    parts = {"": part(features, labels, domains)}
    if (test_features is None) != (test_labels is None):
        raise UsageError("test features and test labels go together", where="test_features", remedy="give both")
    if test_features is not None and test_labels is not None:
        parts = {"train": parts[""], "test": part(test_features, test_labels, test_domains)}
    given = Given(
        parts, None if split is None else as_values(split), class_names=class_names, domain_names=domain_names
    )
    naming, division = Naming(dataset, backbone, store_dtype), Division(test_fraction, seed)
    source = {"arrays": "in memory", "sha256": digest_of(given)}
    return import_given(given, Path(root), naming, division, source).store


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
    """The tasks of one order of classes, or of domains; see `tasks.TaskStream`.

    Arguments:
        increment, init_cls: classes of each task, of the first task. task_sizes: of every task, instead.
        class_order: the classes in the order in which they are learned, by names or original indices, instead of one
            drawn from the seed (or, without `shuffle`, that of the store).
        shots: few-shot: train rows kept of each class after the first task.
        incremental: what a task brings: `classes`, or `domains` (one, with all its classes).
    """
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


def train(
    stream: TaskStream,
    *,
    seed: int = 1993,
    router: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    reporter: Reporter | None = None,
    **settings: Any,
) -> Trained:
    """Trains TOSCA over a stream and fills R.

    Arguments:
        seed: of initialisation, batch order and views (the order of classes or domains is the stream's own).
        router: which module answers for a sample.
        engine: what trains: `native`, `torch`, or `auto`; see `train.engines`.
        settings: fields of `train.settings.Settings`: l1, lr, epochs, batch_size, flow, ...
    """
    setting, where = Settings(**settings), resolve_device(device)
    counts = stream.train_counts().tolist()
    check_plan(max(counts), setting.epochs)
    trainer = choose_engine(engine, where, steps=setting.steps(counts))
    method = Tosca(setting, seed=seed, router=router, device=where, engine=trainer)
    return train_stream(stream, method, reporter)


def route(trained: Trained, features: NDArray[Any], router: str | None = None) -> tuple[IntArray, IntArray]:
    """Predicted classes [n] and answering modules [n] for test features, without training.

    `stream.class_names[label]` is a class's name; the module is the number of a task (see `TaskStream.domain_names`).

    Arguments:
        features: clean ones, [n, d], or clean ones followed by augmented views, [n, 1+V, d].
        router: another router than the one trained with; it is fitted on the stream's train rows first.
    """
    method, class_of = trained.method, trained.stream.class_of
    watch = method.watch()
    watch.add(features)
    if router is None:
        prediction = watch.predict()
        assert prediction.modules is not None
        return class_of[prediction.labels], prediction.modules
    other = make_router(router)
    for task in trained.stream:
        other.fit(task, method.bank)
    answer = other.answer(watch.evidence())
    return class_of[answer.labels.cpu().numpy()], answer.modules.cpu().numpy()


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
    assert isinstance(report, dict)
    return report


def sweep(
    store: Store,
    space: Mapping[str, Sequence[Any] | str] | Sequence[str],
    *,
    ledger: str | Path,
    seeds: Sequence[int] = (1993,),
    report_seeds: Sequence[int] = PUBLISHED_SEEDS,
    tune_store: Store | None = None,
    backend: str = "loky",
    jobs: int | None = None,
    scheduler: str | None = None,
    search: Mapping[str, Any] | None = None,
    reporter: SweepReporter | None = None,
    **base: Any,
) -> SweepReport:
    """Trains many settings side by side, chooses one without looking at test rows, and reports on fresh runs of it.

    Call it again with the same ledger and nothing that is finished is run again.

    Arguments:
        space: {key: values, or a range as in `--set`}, or the texts of `--set` themselves.
        ledger: the SQLite file of results; LEDGER.report.json and LEDGER.best.toml are written beside it.
        seeds, report_seeds: of the search, and of the report on the chosen setting.
        tune_store: with select="two-phase": where settings are chosen.
        backend, jobs, scheduler: see `sweep.run.Resources`; without jobs everything happens in this process.
        search: further fields of `sweep.request.SweepRequest`: sampler, trials, select, metric, max_cells, time_budget, ...
        base: settings that the axes change; fields of `TrainConfig`.
    """
    request = SweepRequest(
        base=config_of({"dataset": store.spec.dataset["name"]} | base),
        space=make_space(space),
        seeds=tuple(seeds),
        report_seeds=tuple(report_seeds),
        other_store=tune_store is not None,
        **(search or {}),
    )
    resources = Resources(backend, jobs, scheduler)
    return run_sweep(request, store, Path(ledger), tune_store=tune_store, resources=resources, reporter=reporter)


def compare(
    store: Store,
    methods: str | Sequence[str] = "all",
    *,
    seeds: int | Sequence[int] = 5,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shots: int | None = None,
    ledger: str | Path | None = None,
    reporter: CompareReporter | None = None,
    **base: Any,
) -> dict[str, Any]:
    """Runs many learners under one protocol and returns one table of them, as plain JSON values.

    Keys of the table: dataset, seeds, task_sizes, columns (names of the measured values), rows: best last accuracy first,
    bounds last. A row has method, rehearsal, transductive, bound, options, values ({column: {mean, spread}}), seeds
    ({seed: all its numbers}) and failed ({seed: reason}).

    Arguments:
        methods: names of registered learners, or "all".
        seeds: how many, counted from 1993 (5 are the published ones), or which.
        options: {method: {option: value}} for the learners' constructors.
        shots: few-shot: train rows of each class after the first task.
        ledger: a SQLite file of results; called again with it, nothing that is finished is run again.
        base: protocol and training settings of all learners; fields of `TrainConfig`.
    """
    config = config_of({"dataset": store.spec.dataset["name"], "shots": shots} | base)
    request = CompareRequest(config, method_names(methods), seeds_of(seeds), options or {})
    return run_compare(request, store, None if ledger is None else Path(ledger), reporter=reporter)
