"""`tosca compare`: many learners on one store, one table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import (
    DEFAULT_ROOT,
    DEFAULT_RUNS,
    AnyRoot,
    Config,
    Plugins,
    Runs,
    StoreOption,
    import_plugins,
)
from tosca_cache.cli.report import Live, LivePage, NoReport, comparison_facts, page_of_comparison
from tosca_cache.cli.settings import SETTINGS_OF_ALL, dataset_of, store_for, with_settings
from tosca_cache.errors import UsageError
from tosca_cache.names import inside
from tosca_cache.terminal import echo, echo_json, make_console, resumable

if TYPE_CHECKING:
    from tosca_cache.compare.cells import CompareRequest
    from tosca_cache.config import TrainConfig

TEXT = "text"
Format = Annotated[str, typer.Option("--format", help="What is printed: text, csv, markdown or latex.")]
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
    form: Format = TEXT,
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
    from dataclasses import replace

    from tosca_cache.compare.run import run_compare, so_far
    from tosca_cache.config import resolve
    from tosca_cache.devices import resolve_device
    from tosca_cache.report.compare import FORMATS
    from tosca_cache.runs.directory import origin
    from tosca_cache.sweep.progress import CellProgress

    import_plugins(plugin)
    if form not in (TEXT, *FORMATS):
        remedy = f"choose of {', '.join((TEXT, *FORMATS))}"
        raise UsageError(f"there is no format {form!r}", where="--format", remedy=remedy)
    dataset_of(store, settings, config)
    resolved = resolve(config=config, overrides=settings)
    request = _request(resolved.config, methods, seeds, assignments or [])
    console = make_console(stderr=True)
    opened, resolved = store_for(resolved, store, root, console)
    ledger = ledger or inside(runs, f"{resolved.config.dataset}-compare.sqlite")
    request = replace(request, config=resolved.config)
    made = origin(opened, resolve_device(request.config.device))

    def finished_so_far() -> dict[str, Any] | None:
        """For the live page; None if nothing is finished."""
        known = so_far(request, opened, ledger)
        return None if known is None else comparison_facts(known, ledger, made)

    page = LivePage(live, finished_so_far)
    console.print(f"ledger: {ledger}", soft_wrap=True)
    with resumable("it goes on with what is not finished"), CellProgress(console, after=page) as progress:
        found = run_compare(request, opened, ledger, reporter=progress)
    page.finish()
    _say(found, form, published=published, as_json=as_json)
    if not no_report:
        page_of_comparison(found, ledger, made)
    if any(row["failed"] for row in found["rows"]):
        raise typer.Exit(1)


def _say(found: dict[str, Any], form: str, *, published: bool, as_json: bool) -> None:
    """Prints a comparison, which gets what was published beside it if that is asked for."""
    if published:
        from tosca_cache.compare.published import beside

        found["published"] = beside(found)
    if as_json:
        echo_json(found)
    else:
        _print(found, form)


def _request(config: TrainConfig, methods: str, seeds: str, assignments: list[str]) -> CompareRequest:
    from tosca_cache.compare.cells import CompareRequest, parse_seeds
    from tosca_cache.learners.options import method_names, parse_assignments

    names = method_names(methods)
    return CompareRequest(config, names, parse_seeds(seeds), parse_assignments(assignments, names))


def _print(found: dict[str, Any], form: str) -> None:
    from tosca_cache.report.compare import FORMATS, comparison, to_table

    table, console = comparison(found), make_console()
    if form != TEXT:
        echo(FORMATS[form](table), nl=False)
    elif console.is_terminal:
        console.print(to_table(table))
    else:
        echo(_text(table), nl=False)


def _text(table: Any) -> str:
    """The table for a file: no colours, no bold type, as wide as it is."""
    import io

    from tosca_cache.report.compare import to_table

    shown = to_table(table, marks=True)
    shown.caption = None
    file = io.StringIO()
    console = make_console(file=file, width=10_000)
    width = console.measure(shown).maximum
    make_console(file=file, width=max(width, len(table.title))).print(shown)
    return file.getvalue() + "".join(f"{note}\n" for note in ("** best", *table.notes))
