"""`tosca train`: stage two on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tosca_cache.cli.options import (
    DEFAULT_ROOT,
    DEFAULT_RUNS,
    AnyRoot,
    Config,
    Plugins,
    Runs,
    StoreOption,
)
from tosca_cache.cli.report import NoReport, try_page
from tosca_cache.cli.settings import dataset_of, store_for, with_settings
from tosca_cache.terminal import make_console, print_rows


@with_settings
def train(
    store: StoreOption = None,
    config: Config = None,
    show_config: Annotated[bool, typer.Option(help="Print every setting and where it came from, then stop.")] = False,
    root: AnyRoot = str(DEFAULT_ROOT),
    runs: Runs = DEFAULT_RUNS,
    no_report: NoReport = False,
    plugin: Plugins = None,
    **settings: Any,
) -> None:
    """Train and route LuCA modules on a store, evaluate after every task, and write a run directory.

    Settings come from the command line, then the config file; without a file, the shipped config of the dataset stands in
    for it.
    """
    from tosca_cache.config import resolve, show

    dataset_of(store, settings, config)
    resolved = resolve(config=config, overrides=settings)
    if show_config:
        print_rows(make_console(), None, ("setting", "value", "from"), show(resolved))
        return
    _train(resolved, store, root, runs, page=not no_report)


def _train(resolved: Any, store: Path | None, root: str, runs: Path, *, page: bool) -> None:
    from tosca_cache.cli.show import print_run
    from tosca_cache.errors import RunError
    from tosca_cache.learners.options import leaks_task
    from tosca_cache.runs.directory import read_metrics
    from tosca_cache.runs.experiment import TrainingProgress
    from tosca_cache.runs.report_facts import run_facts
    from tosca_cache.runs.train import train_run

    console = make_console()
    opened, resolved = store_for(resolved, store, root, console)
    with TrainingProgress(console, leaks=leaks_task(resolved.config)) as progress:
        run = train_run(resolved, opened, runs, progress)
    print_run(console, run)
    if page:
        try_page(lambda: run_facts(run), run / "report.html")
    if diverged := read_metrics(run).get("diverged"):
        seed, reason = next(iter(diverged.items()))
        raise RunError(
            f"training diverged (seed {seed}: {reason})", where=run, remedy="train again with a smaller --lr"
        )
