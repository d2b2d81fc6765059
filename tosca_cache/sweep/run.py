"""`tosca sweep` without its command line: a request, a store and a ledger in, a report out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tosca_cache.config import TrainConfig, to_toml
from tosca_cache.devices import resolve_device
from tosca_cache.errors import RunError
from tosca_cache.evaluate.audit import LEAKS
from tosca_cache.evaluate.summary import to_json
from tosca_cache.files import file_errors, write_json, write_text
from tosca_cache.learners.options import configured_learner
from tosca_cache.runs.directory import origin
from tosca_cache.runs.experiment import make_engine
from tosca_cache.shown import Shown, table_html
from tosca_cache.store import Store
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import Scored, setting_words, with_point
from tosca_cache.sweep.ledger import Ledger
from tosca_cache.sweep.plan import Group, Sizes, plan_groups
from tosca_cache.sweep.progress import CellProgress
from tosca_cache.sweep.runner import Runner, finished_in, in_process, on_workers
from tosca_cache.sweep.samplers import write_study
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario, read_data
from tosca_cache.sweep.search import Final, Search, SweepRequest, Trial
from tosca_cache.sweep.space import MOST_POINTS, grid
from tosca_cache.train.engines import Engine
from tosca_cache.workers import Workers, cores, threads_here

Row = tuple[dict[str, Any], int, int, int, int, int, float]  # see `report.sweeps.plan_table`


def workers_of(backend: str = "loky", jobs: int | None = None, scheduler: str | None = None) -> Workers | None:
    """What cells are run on, see `Workers`; None for this process alone. Raises `UsageError`."""
    alone = backend == "loky" and jobs in (None, 1) and scheduler is None
    return None if alone else Workers(backend, jobs, scheduler)


@dataclass(frozen=True, repr=False)
class SweepReport(Shown):
    """What a sweep found.

    how: how the setting was chosen, in words. settings, cells: how many were tried; lost: cells that diverged or failed.
    top: the best settings of the search, best first.
    finals: of the chosen setting, and of the base setting.
    seconds: `search`, `report`, `compile`.
    """

    how: str
    metric: str
    settings: int
    cells: int
    lost: int
    top: list[Scored]
    finals: list[Final]
    seconds: dict[str, float]
    report_seeds: tuple[int, ...]

    def facts(self) -> dict[str, Any]:
        """What it found."""
        best = self.top[0].words() if self.top else ""
        tried = {"settings": self.settings, "cells": self.cells, "lost": self.lost}
        finals = {final.name: f"{final.metrics[self.metric][0]:.2f}" for final in self.finals}
        return {"metric": self.metric} | tried | {"best": best} | finals

    def plot(self) -> Any:
        """The best settings of the search, and fresh runs on test rows, with one standard deviation; an Altair chart.

        Raises `UsageError` if Altair is not installed.
        """
        from tosca_cache.plots import chart

        rows = [
            {"name": setting_words(s.point), "value": s.mean, "spread": s.spread, "group": "search"} for s in self.top
        ]
        for final in self.finals:
            mean, spread = final.metrics[self.metric]
            name = f"{final.name}, on test rows"
            rows.append({"name": name, "value": mean, "spread": spread, "group": "fresh runs"})
        title = f"{self.metric.replace('_', ' ')} of the best settings, and of fresh runs of the choice"
        return chart(rows, title, "point", "value:Q", "name:N", "group:N", "spread:Q")

    def _repr_html_(self) -> str:
        rows = [(setting_words(s.point), f"{s.mean:.2f}", s.seeds) for s in self.top]
        return table_html(f"{self!r}, {self.how}", ("setting", self.metric, "seeds"), rows)


def run_sweep(
    request: SweepRequest,
    store: Store,
    ledger: Path,
    *,
    workers: Workers | None = None,
    reporter: CellProgress | None = None,
    storage: str | None = None,
) -> SweepReport:
    """Searches, chooses, retrains what was chosen, and writes LEDGER.report.json and LEDGER.best.toml beside the ledger.

    Arguments:
        workers: processes or machines that train; this process alone if None.
        storage: of Optuna, which gets a copy of all scored settings, as the study called like the ledger.

    Raises `UsageError` and `ConfigError` for what cannot be done before anything is trained, `RunError` if nothing worked.
    """
    reporter, begun = reporter or CellProgress(), perf_counter()
    if storage is not None:
        write_study(storage, ledger.stem, request.space, [], request.metric)  # what is wrong with it is said now
    if request.leaks:
        reporter.on_note(f"accuracies of batch routing are among those below: it {LEAKS}")
    with Ledger.open(ledger) as book, _runner(request, store, book, workers, reporter) as runner:
        search = Search(request, runner)
        search.run()
        if storage is not None:
            write_study(storage, ledger.stem, request.space, search.scored(), request.metric)
        best = search.best()
        middle = perf_counter()
        finals = [search.final("chosen", best.point, best.config)]
        finals.append(search.final("base setting", {}, request.base))
        seconds = {"search": middle - begun, "report": perf_counter() - middle}
        cells = [cell for trial in search.trials for cell in trial.cells]
        report = SweepReport(
            how=request.how + ("" if store.spec.adapted is None else f", {store.spec.features}"),
            metric=request.metric,
            settings=len(search.trials),
            cells=len(cells),
            lost=len(cells) - len(runner.results(cells)),
            top=search.scored()[:10],
            finals=finals,
            seconds=seconds | {"compile": runner.engine.compile_seconds},
            report_seeds=request.report_seeds,
        )
        made = origin(store, runner.device)
    write_report(report, request, ledger, best.config, made)
    return report


@contextmanager
def _runner(
    request: SweepRequest, store: Store, ledger: Ledger, workers: Workers | None, reporter: CellProgress
) -> Iterator[Runner]:
    """Everything that cells of one store need; wrong requests are found here, before anything is trained."""
    device = resolve_device(request.base.device)
    data = read_data(store, request.base.incremental)
    for scenario in (request.searched, request.reported):
        make_scenario(scenario, request.base, data, request.seeds[0])
    for router in {request.base.router, *request.space.listed("router")}:
        configured_learner(replace(request.base, router=router), request.seeds[0], device)
    engine = sweep_engine(request, data)
    if engine.compile_seconds:
        reporter.on_note(f"training kernels compiled in {engine.compile_seconds:.1f} s (kept for the next time)")
    digest = store.spec.digest()
    if workers is None:
        yield Runner(data, digest, in_process(data, engine, reporter.on_task), engine, device, ledger, reporter)
    else:
        with on_workers(store, engine, workers) as run_blocks:
            yield Runner(data, digest, run_blocks, engine, device, ledger, reporter, workers.n_jobs)


def sweep_engine(request: SweepRequest, data: Data) -> Engine:
    """What trains all cells of a request: a choice by its whole size, however much of it is finished already."""
    stream = make_scenario(Scenario("test"), request.base, data, request.seeds[0])
    points = len(grid(request.space)) if request.space.finite else MOST_POINTS
    runs = min(points, request.trials or points) * len(request.seeds) + len(request.report_seeds)
    return make_engine(request.base, stream, runs, threads_here())


@dataclass(frozen=True)
class Preview:
    """rows: a group each, as `report.sweeps.plan_table` takes them.

    seconds, report_seconds: of the search's cells that are not finished, and of the report on two settings.
    """

    rows: list[Row]
    settings: int
    cells: int
    engine: str
    jobs: int
    seconds: float
    report_seconds: float


def preview(request: SweepRequest, store: Store, ledger: Path, workers: Workers | None = None) -> Preview:
    """Plans the first round of a search (all of it but for tpe) and times a part of each of its groups; writes nothing."""
    data, device = read_data(store, request.base.incremental), resolve_device(request.base.device)
    engine = sweep_engine(request, data)
    points = request.sampled().ask(request.round)
    trials = [Trial.of(point, request, store.spec.digest()) for point in points]
    cells = [cell for trial in trials for cell in trial.cells]
    jobs = 1 if workers is None else workers.n_jobs
    known = finished_in(ledger, [cell.address for cell in cells])
    rows: list[Row] = []
    seconds, worst = 0.0, 0.0
    inner = engine if workers is None else Engine(engine.name, max(1, min(threads_here(), cores() // jobs)))
    for group in plan_groups(cells, data, inner, device, jobs=jobs):
        took = estimate(group, data, inner) / jobs
        finished = sum(cell.address in known for cell in group.cells)
        left = took * (1 - finished / len(group.cells))
        seconds, worst = seconds + left, max(worst, took / len(group.cells))
        models = min(group.most, len(group.models))
        rows.append((group.describe(), len(group.cells), finished, models, len(group.blocks), group.bytes, left))
    report = 2 * len(request.report_seeds) * worst
    return Preview(rows, len(points), len(cells), engine.name, jobs, seconds, report)


def estimate(group: Group, data: Data, engine: Engine) -> float:
    """Seconds of all cells of a group in one process, on the line through two beginnings of its first block."""
    runs, train, score = [], [group.sizes.training], [group.sizes.scoring(curve=group.cells[0].curve)]
    for tasks, epochs in ((1, 1), (1, 1), (2, min(5, group.cells[0].config.epochs))):  # the first warms up
        short = {"epochs": epochs, "scheduler": "constant", "milestones": ()}
        block = [replace(cell, config=with_point(cell.config, short)) for cell in group.blocks[0]]
        stream = make_scenario(block[0].scenario, block[0].config, data, block[0].seed).first(tasks)
        sizes = Sizes.of(block[0], stream, group.sizes.views)
        runs.append([f.result["seconds"] for f in run_block(block, data, engine, tasks=tasks) if f.result is not None])
        train.append(sizes.training)
        score.append(sizes.scoring(curve=group.cells[0].curve))

    def whole(name: str, work: Sequence[float]) -> float:
        """Seconds of one part over the whole stream."""
        one, two = (sum(seconds[name] for seconds in run) for run in runs[1:])
        return max(one, one + (two - one) * (work[0] - work[2]) / max(work[3] - work[2], 1))

    models = len(group.models) / len({cell.trained for cell in group.blocks[0]})
    cells = len(group.cells) / len(group.blocks[0]) / min(group.scored, len(group.blocks[0]))
    return models * whole("train", train) + cells * whole("evaluate", score)


def write_report(
    report: SweepReport, request: SweepRequest, ledger: Path, chosen: TrainConfig, made: Mapping[str, Any]
) -> None:
    """Writes LEDGER.report.json, and LEDGER.best.toml, which `tosca train --config` takes; an oracle's choice is none."""
    facts = ("how", "metric", "settings", "cells", "report_seeds", "seconds")
    plain = to_json(
        {name: getattr(report, name) for name in facts}
        | {
            "diverged_or_failed": report.lost,
            "top": [{name: getattr(s, name) for name in ("point", "mean", "spread", "seeds")} for s in report.top],
            "report": [
                {"name": f.name, "point": f.point, "seeds": f.seeds, "lost": f.lost}
                | {metric: {"mean": mean, "spread": spread} for metric, (mean, spread) in f.metrics.items()}
                for f in report.finals
            ],
            "made": made,
        }
    )
    with file_errors(ledger.parent, RunError, option="--ledger"):
        write_json(report_path(ledger), plain)
        if request.select == "test-oracle":
            best_path(ledger).unlink(missing_ok=True)
        else:
            write_text(best_path(ledger), to_toml(replace(chosen, seeds=request.report_seeds)))


def report_path(ledger: Path) -> Path:
    """Where the report of a sweep lies."""
    return ledger.with_suffix(".report.json")


def best_path(ledger: Path) -> Path:
    """Where the chosen setting lies, as a config file."""
    return ledger.with_suffix(".best.toml")
