"""Many runs from Python: `tosca_cache.sweep` and `compare`; `runs` and `ledger`, which give DataFrames."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from tosca_cache import plots
from tosca_cache.arguments import checked, items, mapping, optional, path, plain, plain_values, reporter, unknown
from tosca_cache.bars import given_or_bar
from tosca_cache.compare.cells import CompareRequest, seeds_of
from tosca_cache.compare.run import run_compare
from tosca_cache.compare.summary import MEASURES
from tosca_cache.config import check_value, config_of
from tosca_cache.errors import RunError, ToscaWarning
from tosca_cache.learners.options import method_names
from tosca_cache.shown import Report
from tosca_cache.store import Store
from tosca_cache.sweep.cells import PUBLISHED_SEEDS
from tosca_cache.sweep.progress import CellProgress
from tosca_cache.terminal import make_console

if TYPE_CHECKING:
    from pandas import DataFrame

    from tosca_cache.sweep.run import SweepReport

_REPORTER = optional(reporter("on_stage", "on_block", "on_task", "on_finished", "on_best", "on_note"))


@checked(ledger=path, reporter=_REPORTER)
def sweep(
    store: Store,
    space: Mapping[str, Sequence[Any] | str] | Sequence[str],
    *,
    ledger: str | Path,
    seeds: Sequence[int] = (1993,),
    report_seeds: Sequence[int] = PUBLISHED_SEEDS,
    backend: str = "loky",
    jobs: int | None = None,
    scheduler: str | None = None,
    search: Mapping[str, Any] | None = None,
    reporter: CellProgress | None = None,
    **base: Any,
) -> SweepReport:
    """Trains many settings side by side, chooses one without looking at test rows, and reports on fresh runs of it.

    Call it again with the same ledger and nothing that is finished is run again.

    Arguments:
        space: {key: values, or a range as in `--set`}, or the texts of `--set` themselves.
        ledger: the SQLite file of results; LEDGER.report.json and LEDGER.best.toml are written beside it.
        seeds, report_seeds: of the search, and of the report on the chosen setting.
        backend, jobs, scheduler: see `workers.Workers`; without jobs everything happens in this process.
        search: further fields of `sweep.search.SweepRequest`: sampler, trials, select, metric, ...
        base: settings that the axes change; fields of `TrainConfig`.
    """
    # Optuna is loaded by who searches.
    from tosca_cache.sweep.run import run_sweep, workers_of
    from tosca_cache.sweep.search import SweepRequest
    from tosca_cache.sweep.space import make_space

    request = SweepRequest(
        base=config_of({"dataset": store.spec.dataset["name"]} | plain_values(base)),
        space=make_space(space),
        seeds=_seeds(seeds, "seeds"),
        report_seeds=_seeds(report_seeds, "report_seeds"),
        **_of_search(search or {}),
    )
    workers = workers_of(backend, jobs, scheduler)
    with given_or_bar(reporter, lambda: CellProgress(make_console())) as told:
        return run_sweep(request, store, Path(ledger), workers=workers, reporter=told)


@checked(reporter=_REPORTER)
def compare(
    store: Store,
    methods: str | Sequence[str] = "all",
    *,
    seeds: int | Sequence[int] = 5,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shots: int | None = None,
    ledger: str | Path | None = None,
    reporter: CellProgress | None = None,
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
    config = config_of({"dataset": store.spec.dataset["name"], "shots": shots} | plain_values(base))
    names = method_names(methods if isinstance(methods, str) else map(str, items("methods", methods)))
    given = {name: plain_values(mapping(f"options of {name}", values)) for name, values in (options or {}).items()}
    chosen = seeds_of(plain(seeds)) if isinstance(plain(seeds), int) else _seeds(seeds, "seeds")
    request = CompareRequest(config, names, chosen, given)
    with given_or_bar(reporter, lambda: CellProgress(make_console())) as told:
        found = run_compare(request, store, None if ledger is None else Path(ledger), reporter=told)
    rows = [(row["method"], *(_percent(row["values"].get(column)) for column in MEASURES)) for row in found["rows"]]
    return Report(found, f"comparison on {config.dataset}", ("method", *MEASURES), rows, _comparison_chart)


def _comparison_chart(found: Mapping[str, Any]) -> Any:
    """Mean accuracy after each task of every learner."""
    curves: dict[str, list[float | None]] = {}
    for row in found["rows"]:
        seeds = [seed["accuracy_curve"] for seed in row["seeds"].values() if seed.get("accuracy_curve")]
        known = [[value for value in values if value is not None] for values in zip(*seeds, strict=False)]
        curves[row["method"]] = [fmean(values) if values else None for values in known]
    return plots.curves(curves, "accuracy over all classes seen, mean over seeds")


def _percent(value: Mapping[str, float | None] | None) -> str:
    return "-" if value is None or value["mean"] is None else f"{value['mean']:.2f}"


def _seeds(given: Any, name: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], check_value("seeds", items(name, given), where=name))


def _of_search(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `SweepRequest` that `search` may have."""
    from tosca_cache.sweep.search import SweepRequest

    taken = ("base", "space", "seeds", "report_seeds")
    known = [field.name for field in fields(SweepRequest) if field.name not in taken]
    for key in given:
        if key not in known:
            raise unknown(key, known, "search")
    return plain_values(given)


@checked()
def runs(folder: str | Path = "runs") -> DataFrame:
    """Every finished run of a folder as a DataFrame: a row a seed, oldest run first.

    Columns: run, seed; dataset, method and router; every setting; every metric of the seed, in percent. What a run lacks
    is missing. A run that cannot be read is left out, with a warning.

    Raises `UsageError` if pandas is not installed, `RunError` if there is no such folder.
    """
    pandas = plots.needed("pandas", "runs()")
    from tosca_cache.report.records import columns_of, records_of
    from tosca_cache.runs.directory import list_runs
    from tosca_cache.runs.report_facts import run_facts

    if not Path(folder).is_dir():
        raise RunError("there is no folder of runs", where=folder, remedy="give the folder that --runs named")
    found = []
    for run in list_runs(Path(folder)):
        try:
            found.append(run_facts(run))
        except RunError as error:
            warnings.warn(f"{run.name} is left out: {error.problem}", ToscaWarning, stacklevel=3)
    columns, rows = columns_of(records_of(found))
    table = pandas.DataFrame(rows, columns=columns).rename(columns={"group": "run"})
    return table.astype({"seed": int}) if len(table) else table


@checked()
def ledger(path: str | Path) -> DataFrame:
    """The ledger of a sweep or a comparison as a DataFrame: a row a cell, in the order in which they were asked for.

    Columns: address, state, seed, store, select (the rows it was scored on), arithmetic; every key of its setting; every
    metric; attempts, reason. What a cell has not is missing.

    Raises `UsageError` if pandas is not installed, `RunError` if there is no such ledger, or if it is damaged.
    """
    pandas = plots.needed("pandas", "ledger()")
    from tosca_cache.sweep.effects import cell_table
    from tosca_cache.sweep.ledger import Ledger

    with Ledger.open(Path(path), read_only=True) as book:
        columns, rows = cell_table(book.cells())
    return pandas.DataFrame(rows, columns=columns)
