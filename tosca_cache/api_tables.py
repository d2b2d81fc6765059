"""Runs and ledgers as pandas DataFrames: `tosca_cache.runs` and `tosca_cache.ledger`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tosca_cache.arguments import checked, path
from tosca_cache.errors import RunError, ToscaWarning
from tosca_cache.plots import needed

if TYPE_CHECKING:
    from pandas import DataFrame


@checked(folder=path)
def runs(folder: str | Path = "runs") -> DataFrame:
    """Every finished run of a folder as a DataFrame: a row a seed, oldest run first.

    Columns: run, seed; dataset, method and router; every setting; every metric of the seed, in percent. What a run lacks
    is missing. A run that cannot be read is left out, with a warning.

    Raises `UsageError` if pandas is not installed, `RunError` if there is no such folder.
    """
    pandas = needed("pandas", "runs()")
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


@checked(path=path)
def ledger(path: str | Path) -> DataFrame:
    """The ledger of a sweep or a comparison as a DataFrame: a row a cell, in the order in which they were asked for.

    Columns: address, state, seed, store, select (the rows it was scored on), arithmetic; every key of its setting; every
    metric; attempts, reason. What a cell has not is missing.

    Raises `UsageError` if pandas is not installed, `RunError` if there is no such ledger, or if it is damaged.
    """
    pandas = needed("pandas", "ledger()")
    from tosca_cache.sweep.effects import cell_table
    from tosca_cache.sweep.ledger import Ledger

    with Ledger.open(Path(path), read_only=True) as book:
        columns, rows = cell_table(book.cells())
    return pandas.DataFrame(rows, columns=columns)
