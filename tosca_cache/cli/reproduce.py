"""`tosca reproduce`: published values, and ours beside them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.extract import Device, Weights
from tosca_cache.cli.options import DEFAULT_ROOT, DataRoot, Plugins, Root, StoreOption
from tosca_cache.cli.settings import with_settings
from tosca_cache.terminal import echo, echo_json, make_console, resumable

if TYPE_CHECKING:
    from tosca_cache.compare.expectation import Paper


@partial(with_settings, only=("task_sizes", "class_order"))
def reproduce(
    paper: Annotated[str | None, typer.Option(help="Whose published values; --list has all.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A name of `tosca datasets`, or a folder.")] = None,
    expectation: Annotated[
        Path | None, typer.Option(help="A TOML file of values, instead of --paper.", metavar="FILE")
    ] = None,
    which: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET=VALUE",
            help="Which backbone, transform and split a published last accuracy of SimpleCIL or NCM implies; then stop.",
        ),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Print all published values (of --dataset), then stop.")
    ] = False,
    store: StoreOption = None,
    weights: Weights = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, for a program.")] = False,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    root: Root = DEFAULT_ROOT,
    **settings: Any,
) -> None:
    """Run what was published, on features made with the published transform, and print ours beside it.

    Features that are not there yet are extracted first.
    """
    if which:
        _which(which)
        return
    if list_all:
        _list(dataset, as_json=as_json)
        return
    from tosca_cache.compare.reproduce import Places
    from tosca_cache.compare.reproduce import reproduce as run
    from tosca_cache.config import config_of
    from tosca_cache.report.published import beside_table
    from tosca_cache.sweep.progress import CellProgress

    chosen = _chosen(paper, expectation)
    folder = dataset is not None and Path(dataset).exists()
    name = Path(dataset).resolve().name if dataset is not None and folder else dataset
    places = Places(root, dataset if folder else None, store, data_root, weights, device)
    asked = config_of(settings)  # the tasks of the command line, if it names some
    expected = [one.under(asked.task_sizes or (), asked.class_order or ()) for one in chosen.of(name)]
    console = make_console(stderr=True)
    with resumable("extraction goes on where it was"), CellProgress(console) as progress:
        entries = run(expected, places, on_note=progress.on_note, reporter=progress)
    if as_json:
        echo_json(entries)
    else:
        make_console().print(beside_table(entries, chosen.title))


def _chosen(paper: str | None, expectation: Path | None) -> Paper:
    from tosca_cache.compare.expectation import find_paper, read_paper, shipped_papers
    from tosca_cache.errors import UsageError

    if (paper is None) == (expectation is None):
        raise UsageError(
            "give --paper or --expectation, one of them",
            where="--paper",
            remedy=f"--paper is one of {', '.join(shipped_papers())}",
        )
    return read_paper(expectation) if expectation is not None else find_paper(str(paper))


def _which(asked: list[str]) -> None:
    from tosca_cache.compare.published import NEAR, implied
    from tosca_cache.errors import UsageError
    from tosca_cache.report.published import implied_text

    found = {}
    for text in asked:
        dataset, _, value = text.partition("=")
        try:
            found[dataset, float(value)] = implied(dataset, float(value))
        except ValueError:
            raise UsageError(
                f"{text!r} is no dataset and accuracy"[:200], where="--which", remedy="as in --which cub=86.7"
            ) from None
    for (dataset, accuracy), gaps in found.items():
        echo(implied_text(dataset, accuracy, gaps, NEAR))


def _list(dataset: str | None, *, as_json: bool) -> None:
    from tosca_cache.compare.expectation import find_paper, shipped_papers
    from tosca_cache.compare.published import by_protocol, published
    from tosca_cache.report.published import published_tables

    records = [one for one in published() if dataset in (None, one.dataset)]
    if as_json:
        echo_json([one.model_dump() for one in records])
        return
    console = make_console()
    for table in published_tables(by_protocol(records)):
        console.print(table)
    for paper in map(find_paper, shipped_papers()):
        console.print(f"--paper {paper.name}: {paper.title}; {', '.join(paper.datasets)}", soft_wrap=True)
