"""`tosca datasets`: which datasets have a name, and which of them are here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import echo_json, make_console

if TYPE_CHECKING:
    from tosca_cache.datasets import KnownDataset


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
    from tosca_cache.datasets import REGISTRY, resolve_data_root

    root = resolve_data_root(data_root)
    rows = [_row(known, root) for known in REGISTRY.values()]
    if as_json:
        echo_json(rows)
    else:
        _print(rows, root)


def _row(known: KnownDataset, data_root: Path) -> dict[str, Any]:
    from tosca_cache.datasets import find_known

    embedded, found = known.layout == "embedded", find_known(known, data_root)
    folder = found or next(iter(known.candidates(data_root)), None)
    return {
        "name": known.name,
        "status": "embedded" if embedded else "here" if found else "missing",
        "folder": None if folder is None else str(folder),
        **{name: getattr(known, name) for name in ("classes", "train", "test")},
        "layout": known.wanted,
        "published": known.published,
        "md5": known.md5,
        "fetch": None if embedded else f"tosca fetch {known.name}",
    }


def _print(rows: list[dict[str, Any]], data_root: Path) -> None:
    from rich.table import Table

    console = make_console()
    table = Table(title=f"datasets below {data_root}", title_justify="left")
    names = ("name", "classes", "train", "test", "status", "folder")
    for name in names:
        table.add_column(name, justify="right" if name in ("classes", "train", "test") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name]) for name in names[:-1]), row["folder"] or "in this package")
    console.print(table)
    missing = [row["fetch"] for row in rows if row["status"] == "missing"]
    if missing:
        console.print(f"\nto get one: {missing[0]} (`tosca fetch --list` has sizes and sources)", soft_wrap=True)
