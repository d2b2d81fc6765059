"""`tosca datasets`: which datasets have a name, which of them are here, and where the others can be had."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import make_console, print_rows

if TYPE_CHECKING:
    from tosca_cache.datasets import KnownDataset


def datasets(data_root: DataRoot = None) -> None:
    """List the named datasets: what they hold, whether they are here, where their archives are and who states checksums.

    `tosca fetch NAME` gets one that is missing.

    Any folder of images can be given instead of a name: train/CLASS and test/CLASS; DOMAIN/train/CLASS and
    DOMAIN/test/CLASS; or one folder of classes with --test-fraction. Or a CSV file that lists them, with columns
    path and label, and optionally split and domain. Or Arrow, Parquet and tar shards, which are read in place.
    """
    from tosca_cache.datasets import resolve_data_root

    print_datasets(resolve_data_root(data_root))


def print_datasets(data_root: Path) -> None:
    """The table, and below it a line an archive."""
    from tosca_cache.datasets import REGISTRY

    rows = []
    for known in REGISTRY.values():
        embedded, folder = known.layout == "embedded", data_root / known.place
        status = "embedded" if embedded else "here" if folder.is_dir() else "missing"
        rows.append([known.name, *map(str, known.counts), status, "in this package" if embedded else str(folder)])
    console, titles = make_console(), ("name", "classes", "train", "test", "status", "folder")
    print_rows(console, f"datasets below {data_root}", titles, rows)
    for known in REGISTRY.values():
        if known.archive:
            line = f"{known.name}: {known.archive}, {size_of(known)}, from {known.origin}; checksum: {known.stated_by}"
            console.print(line, soft_wrap=True)
    console.print("to get one: tosca fetch NAME", soft_wrap=True)


def size_of(known: KnownDataset) -> str:
    """The size of an archive, in words."""
    return f"{known.size / 1e6:,.0f} MB" if known.size else "size not published"
