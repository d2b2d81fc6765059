"""`tosca show`: print a run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DEFAULT_RUNS, Runs
from tosca_cache.terminal import echo, echo_json, make_console, print_rows
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from rich.console import Console


def show(
    run: Annotated[
        str | None, typer.Argument(help="Path or name of a run, or last; without it, all are listed.")
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json, or the list, as JSON.")] = False,
) -> None:
    """Print the tables of a run, or list all runs."""

    from tosca_cache.runs.directory import find_run, read_metrics

    if run is None:
        _list(runs, as_json)
    elif as_json:
        echo_json(read_metrics(find_run(run, runs)))
    else:
        print_run(make_console(), find_run(run, runs))


def print_run(console: Console, run: Path) -> None:
    """Metrics, routing conditions, seconds, and where everything is."""
    from tosca_cache.report.figures import CURVE, MATRIX
    from tosca_cache.report.tables import run_tables
    from tosca_cache.runs.directory import read_metrics

    metrics = read_metrics(run)
    for table in run_tables(metrics):
        console.print(table)
    console.print(f"run: {run}", soft_wrap=True)
    if pictures := [str(run / name) for name in (CURVE, MATRIX) if (run / name).exists()]:
        console.print(f"pictures: {', '.join(pictures)}", soft_wrap=True)


def _list(runs: Path, as_json: bool) -> None:
    """All runs, and below them those that cannot be read."""
    from tosca_cache.errors import RunError
    from tosca_cache.report.tables import learner_words, with_spread
    from tosca_cache.runs.directory import list_runs, read_metrics

    found: list[dict[str, Any]] = []
    for run in list_runs(runs):
        try:
            metrics = read_metrics(run)
        except RunError as error:
            found.append({"run": run.name, "problem": error.problem})
            continue
        facts = {"run": run.name, "dataset": metrics["dataset"], "method": learner_words(metrics)}
        facts["features"] = metrics.get("features") or "frozen"  # none were adapted when runs did not say it
        accuracies = {name: metrics[name] for name in ("average_accuracy", "last_accuracy")}
        found.append(facts | {"seeds": len(metrics["seeds"])} | accuracies)
    if as_json:
        echo_json(found)
        return
    good = [run for run in found if "problem" not in run]
    rows = [
        [one_line(with_spread(v, None) if k.endswith("accuracy") else str(v)) for k, v in run.items()] for run in good
    ]
    titles = ("run", "dataset", "method", "features", "seeds", "average accuracy", "last accuracy")
    print_rows(make_console(), f"runs in {runs}", titles, rows)
    for one in found:
        if "problem" in one:
            echo(f"{one_line(one['run'])}: {one_line(one['problem'])}")
