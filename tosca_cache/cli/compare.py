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
from tosca_cache.cli.settings import dataset_of, store_for, with_settings
from tosca_cache.names import inside
from tosca_cache.terminal import echo, echo_json, make_console, resumable

if TYPE_CHECKING:
    from rich.console import Console

    from tosca_cache.compare.cells import CompareRequest
    from tosca_cache.config import TrainConfig
    from tosca_cache.store import Store

TEXT = "text"
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="text, csv, markdown or latex.", show_default="by the suffix of --out (.txt .csv .md .tex)"
    ),
]
Seeds = Annotated[
    str, typer.Option(help="How many, counted from 1993 (5 are the published ones), or the seeds: 1993,1994.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="METHOD.OPTION=VALUE", help="An option of a learner; may be given often."),
]


@partial(with_settings, without=("seeds", "method", "options"))
def compare(
    store: StoreOption = None,
    methods: Annotated[str, typer.Option(help="Names, comma-separated, or all.")] = "all",
    seeds: Seeds = "5",
    assignments: Assignments = None,
    config: Config = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="RUNS/DATASET-compare.sqlite")
    ] = None,
    form: Format = None,
    out: Annotated[Path | None, typer.Option(help="Write the table here, too.", metavar="FILE")] = None,
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

    from tosca_cache.config import resolve
    from tosca_cache.devices import resolve_device
    from tosca_cache.runs.directory import origin

    import_plugins(plugin)
    _check_format(form, out)
    dataset_of(store, settings, config)
    resolved = resolve(config=config, overrides=settings)
    request = _request(resolved.config, methods, seeds, assignments or [])
    console = make_console(stderr=True)
    opened, resolved = store_for(resolved, store, root, console)
    ledger = ledger or inside(runs, f"{resolved.config.dataset}-compare.sqlite")
    request = replace(request, config=resolved.config)
    made = origin(opened, resolve_device(request.config.device))
    page = LivePage(live, lambda: _facts_so_far(request, opened, ledger, made))
    found = _run(request, opened, ledger, console, page)
    page.finish()
    if published:
        from tosca_cache.compare.published import beside

        found["published"] = beside(found)
    _write(found, form, out, as_json=as_json)
    if not no_report:
        page_of_comparison(found, ledger, made)
    if any(row["failed"] for row in found["rows"]):
        raise typer.Exit(1)


def _check_format(form: str | None, out: Path | None) -> None:
    from tosca_cache.errors import UsageError
    from tosca_cache.report.compare import FORMATS, SUFFIXES

    known = (TEXT, *FORMATS)
    if form is not None and form not in known:
        raise UsageError(f"there is no format {form!r}", where="--format", remedy=f"choose of {', '.join(known)}")
    if out is not None and form is None and out.suffix not in SUFFIXES:
        raise UsageError(
            f"{out.suffix or 'no suffix'!r} says no format",
            where="--out",
            remedy=f"use {' '.join(SUFFIXES)}, or --format",
        )
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        wrong = "this is a folder" if out.is_dir() else "its folder does not exist"
        raise UsageError(f"the table cannot be written: {wrong}", where=f"--out {out}", remedy="give another path")


def _request(config: TrainConfig, methods: str, seeds: str, assignments: list[str]) -> CompareRequest:
    from tosca_cache.compare.cells import CompareRequest, parse_seeds
    from tosca_cache.learners.options import method_names, parse_assignments

    names = method_names(methods)
    return CompareRequest(config, names, parse_seeds(seeds), parse_assignments(assignments, names))


def _facts_so_far(request: CompareRequest, opened: Store, ledger: Path, made: dict[str, Any]) -> dict[str, Any] | None:
    """What is finished by now; None if nothing is."""
    from tosca_cache.compare.run import so_far

    found = so_far(request, opened, ledger)
    return None if found is None else comparison_facts(found, ledger, made)


def _run(request: CompareRequest, opened: Store, ledger: Path, console: Console, page: LivePage) -> dict[str, Any]:
    from tosca_cache.compare.run import run_compare
    from tosca_cache.sweep.progress import CellProgress

    console.print(f"ledger: {ledger}", soft_wrap=True)
    with resumable("it goes on with what is not finished"), CellProgress(console, after=page) as progress:
        return run_compare(request, opened, ledger, reporter=progress)


def _write(found: dict[str, Any], form: str | None, out: Path | None, *, as_json: bool) -> None:
    from tosca_cache.errors import RunError
    from tosca_cache.files import asked_file, file_errors
    from tosca_cache.report.compare import FORMATS, SUFFIXES, comparison

    table = comparison(found)
    shown = TEXT if form is None else form
    if out is not None:
        kind = form or SUFFIXES[out.suffix]
        text = _text(table) if kind == TEXT else FORMATS[kind](table)
        with file_errors(out, RunError, option="--out"), asked_file(out) as file:
            file.write(text)
    if as_json:
        echo_json(found)
    elif shown != TEXT:
        echo(FORMATS[shown](table), nl=False)
    else:
        _print(table)
    if out is not None:
        echo(f"table: {out}", err=True)


def _print(table: Any) -> None:
    from tosca_cache.report.compare import to_table

    console = make_console()
    if console.is_terminal:
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
