"""`tosca datasets`: which datasets have a name, and which of them are here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import echo_json, make_console

if TYPE_CHECKING:
    from tosca_cache.datasets import DatasetStatus


def datasets(
    data_root: DataRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the named datasets: what they hold, whether they are here, where they are published.

    `tosca fetch NAME` gets one that is missing.

    Any folder of images can be given instead of a name: train/CLASS and test/CLASS; DOMAIN/train/CLASS and
    DOMAIN/test/CLASS; or one folder of classes with --test-fraction. Or a CSV file that lists them, with columns
    path and label, and optionally split and domain. Or Arrow, Parquet and tar shards, which are read in place.
    """
    from tosca_cache.datasets import list_datasets, resolve_data_root

    statuses = list_datasets(data_root)
    if as_json:
        echo_json([_row(status) for status in statuses])
    else:
        _print(statuses, str(resolve_data_root(data_root)))


def _row(status: DatasetStatus) -> dict[str, Any]:
    known, counts = status.known, ("classes", "train", "test")
    return {
        "name": known.name,
        "status": status.state,
        "folder": None if status.folder is None else str(status.folder),
        **{name: getattr(known, name) for name in counts},
        "layout": known.wanted,
        "published": known.published,
        "md5": known.md5,
        "fetch": f"tosca fetch {known.name}" if known.layout != "embedded" else None,
    }


def _print(statuses: list[DatasetStatus], data_root: str) -> None:
    from rich.table import Table

    console = make_console()
    table = Table(title=f"datasets below {data_root}", title_justify="left")
    for name in ("name", "classes", "train", "test", "status", "folder"):
        table.add_column(name, justify="right" if name in ("classes", "train", "test") else "left", overflow="fold")
    for status in statuses:
        row = _row(status)
        cells = (str(row[name]) for name in ("name", "classes", "train", "test"))
        table.add_row(*cells, status.state, row["folder"] or "in this package")
    console.print(table)
    missing = [status.known.name for status in statuses if status.state == "missing"]
    if missing:
        console.print(
            f"\nto get one: tosca fetch {missing[0]} (`tosca fetch --list` has sizes and sources)",
            soft_wrap=True,
        )
