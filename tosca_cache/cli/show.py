"""`tosca show`: print a run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tosca_cache.cli.options import DEFAULT_RUNS, Runs
from tosca_cache.terminal import echo, make_console, print_rows
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from rich.console import Console


def show(
    run: Annotated[
        str | None, typer.Argument(help="Path or name of a run, or last; without it, all are listed.")
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of tables.")] = False,
) -> None:
    """Print the tables of a run, or list all runs."""

    from tosca_cache.runs.directory import find_run

    if run is None:
        _list(make_console(), runs)
    elif as_json:
        _print_json(find_run(run, runs))
    else:
        print_run(make_console(), find_run(run, runs))


def print_run(console: Console, run: Path) -> None:
    """Metrics, routing conditions, seconds, and where everything is."""
    from tosca_cache.report.figures import CURVE, MATRIX
    from tosca_cache.report.tables import conditions_table, last_row_table, metrics_table, seconds_table
    from tosca_cache.runs.metrics_file import read_metrics

    metrics = read_metrics(run)
    for table in (
        metrics_table(metrics),
        last_row_table(metrics),
        conditions_table(metrics),
        seconds_table(metrics["seconds"]),
    ):
        console.print(table)
    console.print(f"run: {run}", soft_wrap=True)
    console.print(f"pictures: {run / CURVE}, {run / MATRIX}", soft_wrap=True)


def _print_json(run: Path) -> None:
    import json

    from tosca_cache.runs.metrics_file import read_metrics

    echo(json.dumps(read_metrics(run), indent=1, allow_nan=False, ensure_ascii=False))


def _list(console: Console, runs: Path) -> None:
    """All runs, and below them those that cannot be read."""
    from tosca_cache.errors import RunError
    from tosca_cache.report.tables import learner_words, with_spread
    from tosca_cache.runs.directory import list_runs
    from tosca_cache.runs.metrics_file import read_metrics

    titles = ("run", "dataset", "method", "seeds", "average accuracy", "last accuracy")
    rows, broken = [], []
    for run in list_runs(runs):
        try:
            metrics = read_metrics(run)
        except RunError as error:
            broken.append(f"{one_line(run.name)}: {one_line(error.problem)}")
            continue
        accuracies = (with_spread(metrics[name], None) for name in ("average_accuracy", "last_accuracy"))
        facts = (run.name, metrics["dataset"], learner_words(metrics), str(len(metrics["seeds"])), *accuracies)
        rows.append(tuple(map(one_line, facts)))
    print_rows(console, f"runs in {runs}", titles, rows)
    for line in broken:
        console.print(line, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(show)
