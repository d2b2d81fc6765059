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

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tosca_cache.arguments import (
    axes,
    checked,
    checks,
    count,
    feature_rows,
    flag,
    instance,
    items,
    mapping,
    optional,
    path,
    plain,
    reporter,
    seed,
    unknown,
)
from tosca_cache.bars import in_notebook
from tosca_cache.compare.learners import method_names
from tosca_cache.compare.progress import CompareProgress
from tosca_cache.compare.request import CompareRequest, seeds_of
from tosca_cache.compare.run import CompareReporter, run_compare
from tosca_cache.compare.summary import MEASURES
from tosca_cache.config import check_value, config_of
from tosca_cache.config.checks import Choice, Text
from tosca_cache.config.schema import ENGINES
from tosca_cache.devices import resolve_device
from tosca_cache.errors import UsageError
from tosca_cache.evaluate.summary import to_json
from tosca_cache.methods.tosca import BATCH_ROUTER, Tosca
from tosca_cache.routing import make_router
from tosca_cache.runs.experiment import Reporter, Trained, evaluate_trained, train_stream
from tosca_cache.runs.progress import TrainingProgress
from tosca_cache.shown import Report
from tosca_cache.store import Store
from tosca_cache.store import open_store as _open_store
from tosca_cache.store.exchange import Division, Features, Given, Naming, Part, as_values, digest_of, import_given
from tosca_cache.store.verify import Verification
from tosca_cache.store.verify import verify_store as _verify_store
from tosca_cache.sweep.progress import SweepProgress
from tosca_cache.sweep.request import PUBLISHED_SEEDS, SweepRequest
from tosca_cache.sweep.run import Resources, SweepReport, run_sweep
from tosca_cache.sweep.settle import SweepReporter
from tosca_cache.sweep.space import make_space
from tosca_cache.tasks import LABELS, TaskStream
from tosca_cache.terminal import make_console
from tosca_cache.train.batches import check_plan
from tosca_cache.train.engines import choose_engine
from tosca_cache.train.settings import Settings

T = TypeVar("T")

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

_STORE = instance(Store, "open it first: tosca.open_store(path)")
_STREAM = instance(TaskStream, "make one first: tosca.task_stream(store, increment=10)")
_TRAINED = instance(Trained, "train first: tosca.train(stream)")
_TEXT = checks(Text("a text"))
_WHO = {"backend": _TEXT, "jobs": optional(count), "scheduler": optional(_TEXT)}


@checked(path=path)
def open_store(path: str | Path) -> Store:
    """A finished feature store; raises `StoreError` if it is missing, unfinished or damaged."""
    return _open_store(path)


@checked(path=path)
def verify_store(path: str | Path) -> Verification:
    """Reads every byte of a finished store, and lists all that is wrong with it (`.ok`, `.problems`); changes nothing.

    `tosca cache verify` also mends stores, and computes parts of them again. Raises `StoreError` if there is no finished
    store.
    """
    return _verify_store(path)


@checked(dataset=_TEXT, backbone=_TEXT, seed=seed, root=path, store_dtype=optional(_TEXT))
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


@checked(
    store=_STORE,
    increment=optional(count),
    init_cls=optional(count),
    task_sizes=optional(lambda name, value: [count(name, size) for size in items(name, value)]),
    class_order=optional(items),
    shots=optional(count),
    seed=seed,
    shuffle=flag,
    incremental=_TEXT,
)
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


@checked(
    stream=_STREAM,
    seed=seed,
    router=_TEXT,
    device=_TEXT,
    engine=checks(Choice(ENGINES)),
    reporter=optional(reporter("on_seed", "on_epoch", "on_task")),
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
    names = [field.name for field in fields(Settings)]
    for key in settings:
        if key not in names:
            raise unknown(key, [*names, "seed", "router", "device", "engine", "reporter"], "train")
    setting, where = Settings(**_plain(settings)), resolve_device(device)
    counts = stream.train_counts().tolist()
    check_plan(max(counts), setting.epochs)
    trainer = choose_engine(engine, where, steps=setting.steps(counts))
    method = Tosca(setting, seed=seed, router=router, device=where, engine=trainer)
    with _told(reporter, lambda: TrainingProgress(make_console(), leaks=router == BATCH_ROUTER)) as told:
        return train_stream(stream, method, told)


@checked(trained=_TRAINED, router=optional(_TEXT), labels=checks(Choice(LABELS)))
def route(
    trained: Trained, features: NDArray[Any], router: str | None = None, *, labels: str = "names"
) -> tuple[NDArray[Any], IntArray]:
    """Predicted classes [n] and answering modules [n] for test features, without training.

    The module is the number of a task (see `TaskStream.names` and `TaskStream.domain_names`).

    Arguments:
        features: clean ones, [n, d], or clean ones followed by augmented views, [n, 1+V, d].
        router: another router than the one trained with; it is fitted on the stream's train rows first.
        labels: how classes come: `names`; `original`, the indices of the store's labels; or `positions` in the class order,
            which is another one for every seed.
    """
    method, stream = trained.method, trained.stream
    rows = feature_rows(features, stream.dim)
    if not len(rows):
        nothing = np.empty(0, dtype=np.int64)
        return stream.as_labels(nothing, labels), nothing
    watch = method.watch()
    watch.add(rows)
    if router is None:
        prediction = watch.predict()
        assert prediction.modules is not None
        return stream.as_labels(stream.class_of[prediction.labels], labels), prediction.modules
    other = make_router(router)
    for task in stream:
        other.fit(task, method.bank)
    answer = other.answer(watch.evidence())
    return stream.as_labels(stream.class_of[answer.labels.cpu().numpy()], labels), answer.modules.cpu().numpy()


@checked(trained=_TRAINED)
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
    rows = [(name, f"{value:.2f}") for name, value in report.items() if isinstance(value, float)]
    return Report(report, "evaluation", ("metric", "percent"), rows)


@checked(
    store=_STORE,
    space=axes,
    ledger=path,
    seeds=items,
    report_seeds=items,
    tune_store=optional(instance(Store, "open it first: tosca.open_store(path)")),
    **_WHO,
    search=optional(mapping),
    reporter=optional(reporter("on_stage", "on_finished", "on_task", "on_best", "on_note")),
)
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
        base=config_of({"dataset": store.spec.dataset["name"]} | _plain(base)),
        space=make_space(space),
        seeds=_seeds(seeds, "seeds"),
        report_seeds=_seeds(report_seeds, "report_seeds"),
        other_store=tune_store is not None,
        **_of_search(search or {}),
    )
    resources = Resources(backend, jobs, scheduler)
    with _told(reporter, lambda: SweepProgress(make_console())) as told:
        return run_sweep(request, store, Path(ledger), tune_store=tune_store, resources=resources, reporter=told)


@checked(
    store=_STORE,
    options=optional(mapping),
    shots=optional(count),
    ledger=optional(path),
    reporter=optional(reporter("on_begin", "on_block", "on_task", "on_finished", "on_note")),
)
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
    config = config_of({"dataset": store.spec.dataset["name"], "shots": shots} | _plain(base))
    names = method_names(methods if isinstance(methods, str) else map(str, items("methods", methods)))
    given = {name: _plain(mapping(f"options of {name}", values)) for name, values in (options or {}).items()}
    chosen = seeds_of(plain(seeds)) if isinstance(plain(seeds), int) else _seeds(seeds, "seeds")
    request = CompareRequest(config, names, chosen, given)
    with _told(reporter, lambda: CompareProgress(make_console())) as told:
        found = run_compare(request, store, None if ledger is None else Path(ledger), reporter=told)
    rows = [(row["method"], *(_percent(row["values"].get(column)) for column in MEASURES)) for row in found["rows"]]
    return Report(found, f"comparison on {config.dataset}", ("method", *MEASURES), rows)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plain(value) for key, value in values.items()}


def _percent(value: Mapping[str, float | None] | None) -> str:
    return "-" if value is None or value["mean"] is None else f"{value['mean']:.2f}"


def _seeds(given: Any, name: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], check_value("seeds", items(name, given), where=name))


def _of_search(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `SweepRequest` that `search` may have."""
    taken = ("base", "space", "seeds", "report_seeds", "other_store")
    known = [field.name for field in fields(SweepRequest) if field.name not in taken]
    for key in given:
        if key not in known:
            raise unknown(key, known, "search")
    return _plain(given)


def _told(given: T | None, bar: Callable[[], AbstractContextManager[T]]) -> AbstractContextManager[T | None]:
    """Who is told how work goes on: who was given, or in a notebook a bar."""
    return bar() if given is None and in_notebook() else nullcontext(given)
