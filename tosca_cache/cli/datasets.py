"""`tosca datasets`: which datasets have a name, which of them are here, and where the others can be had."""

from __future__ import annotations

from pathlib import Path

from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import make_console, print_rows


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
    from tosca_cache.datasets import list_datasets
    from tosca_cache.datasets.fetch import read_record
    from tosca_cache.datasets.sources import SOURCES

    rows = []
    for status in list_datasets(data_root):
        known = status.known
        found = [known.classes, known.train, known.test, status.state, status.folder or "in this package"]
        rows.append([known.name, *found])
    for source in SOURCES.values():
        if source.name not in [row[0] for row in rows]:
            place = data_root / source.place
            rows.append([source.name, *(source.counts or "???"), "here" if place.is_dir() else "missing", place])
    console, titles = make_console(), ("name", "classes", "train", "test", "status", "folder")
    print_rows(console, f"datasets below {data_root}", titles, [[str(value) for value in row] for row in rows])
    for source in SOURCES.values():
        size = (read_record(source.name, data_root) or {}).get("bytes") or source.size
        shown = f"{size / 1e6:,.0f} MB" if size else "size not published"
        line = f"{source.name}: {source.archive}, {shown}, from {source.origin}; checksum: {source.stated_by}"
        console.print(line, soft_wrap=True)
    console.print("to get one: tosca fetch NAME", soft_wrap=True)
