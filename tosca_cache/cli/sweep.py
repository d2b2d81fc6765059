"""`tosca sweep`: many settings side by side, an honest choice, and a report on fresh runs of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tosca_cache.cli.options import DEFAULT_ROOT, DEFAULT_RUNS, AnyRoot, Runs, StoreOption
from tosca_cache.cli.report import Live, LivePage, NoReport, beside, try_page
from tosca_cache.cli.settings import STORE, TASKS, dataset_of, store_for, with_settings
from tosca_cache.names import inside
from tosca_cache.terminal import make_console, resumable

if TYPE_CHECKING:
    from tosca_cache.config import TrainConfig
    from tosca_cache.store import Store
    from tosca_cache.sweep.search import SweepRequest
    from tosca_cache.workers import Workers

# What stands under the axes: which store, what a task is, and where it is computed. All else is set by --set.
SETTINGS = ("dataset", *STORE, "incremental", *TASKS, "device", "engine")

Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUES",
        help="An axis: l1=1e-4,5e-4 or lr=log:0.005:0.1:5 (lin too; without a count a range to draw from). "
        "One value sets it for all. May be given often.",
    ),
]
Select = Annotated[
    str,
    typer.Option(
        help="How settings are chosen: val (train rows held out), first-task, two-phase (other classes), or "
        "test-oracle (on test rows; not a result)."
    ),
]
Seeds = Annotated[
    str, typer.Option(help="Seeds of every setting of the search, comma-separated; random and tpe draw by the first.")
]
ReportSeeds = Annotated[str, typer.Option(help="Seeds of the report, comma-separated.")]
Metric = Annotated[str, typer.Option(help="What is maximised: last_accuracy or average_accuracy (.._over_tasks).")]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Copy the trials there, for optuna-dashboard: sqlite:///study.db."),
]
Backend = Annotated[str, typer.Option(help="loky (processes here); dask or ray, a cluster at --scheduler.")]


@partial(with_settings, only=SETTINGS)
def sweep(
    store: StoreOption = None,
    assignments: Assignments = None,
    config: Annotated[str | None, typer.Option(help="The setting that axes change: as for train.")] = None,
    seeds: Seeds = "1993",
    report_seeds: ReportSeeds = "1993,1994,1995,1996,1997",
    sampler: Annotated[str, typer.Option(help="grid, random, or tpe.")] = "grid",
    trials: Annotated[int | None, typer.Option(help="Settings that are tried at most.")] = None,
    select: Select = "val",
    val_fraction: Annotated[float, typer.Option(help="Held-out part of each class's train rows.")] = 0.2,
    metric: Metric = "last_accuracy",
    ledger: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="RUNS/DATASET-sweep.sqlite")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print groups, memory and time, then stop.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Processes; none: this one, with all its cores.")] = None,
    backend: Backend = "loky",
    scheduler: Annotated[str | None, typer.Option(help="Address of a running cluster: tcp://host:8786.")] = None,
    optuna_storage: Storage = None,
    root: AnyRoot = str(DEFAULT_ROOT),
    runs: Runs = DEFAULT_RUNS,
    no_report: NoReport = False,
    live: Live = None,
    **settings: Any,
) -> None:
    """Train many settings side by side on a store, choose one without looking at test rows, and report on it.

    Interrupt it at will: the same command goes on where it was, and cells that are finished are never run again.
    """
    _sweep(dict(locals()))


def _sweep(given: dict[str, Any]) -> None:
    from dataclasses import replace

    from tosca_cache.config import resolve
    from tosca_cache.devices import resolve_device
    from tosca_cache.runs.directory import origin
    from tosca_cache.runs.stores import FIELDS
    from tosca_cache.sweep.progress import CellProgress
    from tosca_cache.sweep.report_facts import sweep_facts
    from tosca_cache.sweep.run import best_path, report_path, run_sweep, workers_of

    dataset_of(given["store"], given["settings"], given["config"])
    resolved = resolve(config=given["config"], overrides=given["settings"])
    request = request_of(given, resolved.config)
    opened, resolved = store_for(resolved, given["store"], given["root"], make_console())
    request = replace(request, base=replace(request.base, **{key: getattr(resolved.config, key) for key in FIELDS}))
    ledger = given["ledger"] or inside(given["runs"], f"{resolved.config.dataset}-sweep.sqlite")
    workers = workers_of(given["backend"], given["jobs"], given["scheduler"])
    if given["plan"]:
        _print_plan(request, opened, ledger, workers)
        return
    made, console = origin(opened, resolve_device(resolved.config.device)), make_console()
    live = LivePage(given["live"], lambda: sweep_facts(ledger, made=made))
    how = {"workers": workers, "storage": given["optuna_storage"]}
    with resumable("it goes on with what is not finished"), CellProgress(console, after=live) as progress:
        report = run_sweep(request, opened, ledger, reporter=progress, **how)
    _print_report(console, report)
    for what, path in (("ledger", ledger), ("report", report_path(ledger))):
        console.print(f"{what}: {path}", soft_wrap=True)
    if best_path(ledger).exists():
        console.print(f"chosen setting: tosca train --config {best_path(ledger)}", soft_wrap=True)
    live.finish()
    if not given["no_report"]:
        try_page(lambda: sweep_facts(ledger), beside(ledger))


def request_of(given: dict[str, Any], base: TrainConfig) -> SweepRequest:
    """What the options of `sweep`, by their names, ask for; raises `UsageError` for what cannot be."""
    from tosca_cache.config.schema import check_value
    from tosca_cache.sweep.search import SweepRequest
    from tosca_cache.sweep.space import parse_set

    seeds, report_seeds = (
        cast(tuple[int, ...], check_value("seeds", given[name], where=f"--{name.replace('_', '-')}"))
        for name in ("seeds", "report_seeds")
    )
    return SweepRequest(
        base=base,
        space=parse_set(given["assignments"] or []),
        seeds=seeds,
        report_seeds=report_seeds,
        fraction=given["val_fraction"],
        **{name: given[name] for name in ("sampler", "trials", "select", "metric")},
    )


def _print_report(console: Any, report: Any) -> None:
    from tosca_cache.report.sweeps import duration, final_table, point_words, top_table

    top = [(s.point, s.mean, s.spread, s.seeds) for s in report.top]
    console.print(top_table(top, metric=report.metric, how=report.how))
    finals = [(final.name, final.metrics, final.seeds, final.lost) for final in report.finals]
    console.print(final_table(finals, report.report_seeds, report.how))
    for final in report.finals[:-1]:
        console.print(f"{final.name}: {point_words(final.point)}", soft_wrap=True)
    lost = f", {report.lost} diverged or failed" if report.lost else ""
    compiled = f" (of it {report.seconds['compile']:.1f} s compiling)" if report.seconds["compile"] else ""
    console.print(
        f"{report.settings} settings, {report.cells} cells{lost} in {duration(report.seconds['search'])}{compiled}, "
        f"report in {duration(report.seconds['report'])}",
        soft_wrap=True,
    )


def _print_plan(request: SweepRequest, store: Store, ledger: Path, workers: Workers | None) -> None:
    from tosca_cache.report.sweeps import duration, plan_table
    from tosca_cache.sweep.run import preview

    console = make_console()
    found = preview(request, store, ledger, workers)
    console.print(plan_table(found.rows))
    note = " of the first round" if request.sampler == "tpe" else ""
    console.print(
        f"{found.settings} settings, {found.cells} cells{note}; engine {found.engine}, {found.jobs} at a time; "
        f"about {duration(found.seconds)} in all, and {duration(found.report_seconds)} for the report",
        soft_wrap=True,
    )
