"""`tosca compare`: many learners on one store, one table."""

from __future__ import annotations

from functools import partial
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
from tosca_cache.cli.report import Live, LivePage, NoReport, beside, try_page
from tosca_cache.cli.settings import SETTINGS_OF_ALL, dataset_of, store_for, with_settings
from tosca_cache.names import inside
from tosca_cache.terminal import echo, echo_json, make_console, print_whole, resumable

Seeds = Annotated[
    str, typer.Option(help="How many, counted from 1993 (5 are the published ones), or the seeds: 1993,1994.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="METHOD.OPTION=VALUE", help="An option of a learner; may be given often."),
]


@partial(with_settings, only=SETTINGS_OF_ALL)
def compare(
    store: StoreOption = None,
    methods: Annotated[str, typer.Option(help="Names, comma-separated, or all.")] = "all",
    seeds: Seeds = "5",
    assignments: Assignments = None,
    config: Config = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="RUNS/DATASET-compare.sqlite")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every seed's numbers instead of the table.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Add what was published under the same protocol, with its sources.")
    ] = False,
    plugin: Plugins = None,
    root: AnyRoot = str(DEFAULT_ROOT),
    runs: Runs = DEFAULT_RUNS,
    no_report: NoReport = False,
    live: Live = None,
    **settings: Any,
) -> None:
    """Run many learners under one protocol on one store, and print one table of what they reach and what they cost.

    Interrupt it at will: the same command goes on where it was, and what is finished is never run again.
    """
    _compare(dict(locals()))


def _compare(given: dict[str, Any]) -> None:
    from dataclasses import replace

    from tosca_cache.compare.cells import CompareRequest, parse_seeds
    from tosca_cache.compare.run import run_compare, so_far
    from tosca_cache.config import resolve
    from tosca_cache.devices import resolve_device
    from tosca_cache.errors import RunError
    from tosca_cache.files import file_errors, write_json
    from tosca_cache.learners.options import method_names, parse_assignments
    from tosca_cache.runs.directory import origin
    from tosca_cache.runs.report_facts import command_text, store_warnings
    from tosca_cache.sweep.progress import CellProgress
    from tosca_cache.sweep.run import report_path

    dataset_of(given["store"], given["settings"], given["config"])
    resolved = resolve(config=given["config"], overrides=given["settings"])
    names = method_names(given["methods"])
    options = parse_assignments(given["assignments"] or [], names)
    request = CompareRequest(resolved.config, names, parse_seeds(given["seeds"]), options)
    console = make_console(stderr=True)
    opened, resolved = store_for(resolved, given["store"], given["root"], console)
    ledger = given["ledger"] or inside(given["runs"], f"{resolved.config.dataset}-compare.sqlite")
    request = replace(request, config=resolved.config)
    made = origin(opened, resolve_device(request.config.device))
    known = {"made": made, "command": command_text(made["command"]), "warnings": store_warnings(made)}
    facts = {"kind": "comparison", "name": ledger.name, **known}

    def finished_so_far() -> dict[str, Any] | None:
        """For the live page; None if nothing is finished."""
        found = so_far(request, opened, ledger)
        return None if found is None else facts | {"found": found}

    page = LivePage(given["live"], finished_so_far)
    console.print(f"ledger: {ledger}", soft_wrap=True)
    with resumable("it goes on with what is not finished"), CellProgress(console, after=page) as progress:
        found = run_compare(request, opened, ledger, reporter=progress)
    page.finish()
    if given["published"]:
        from tosca_cache.compare.published import beside as published_beside

        found["published"] = published_beside(found)
    with file_errors(ledger, RunError, option="--ledger"):
        write_json(report_path(ledger), facts | {"found": found})
    if given["as_json"]:
        echo_json(found)
    else:
        _print(found)
    if not given["no_report"]:
        try_page(lambda: facts | {"found": found}, beside(ledger))
    if any(row["failed"] for row in found["rows"]):
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    """On a terminal as wide as that; in a file as wide as it needs, the best marked **so**."""
    from tosca_cache.report.compare import comparison, to_table

    table, console = comparison(found), make_console()
    shown = to_table(table, marks=not console.is_terminal)
    (console.print if console.is_terminal else partial(print_whole, console))(shown)
    for note in (*([] if console.is_terminal else ["** best"]), *table.notes):
        echo(note)
