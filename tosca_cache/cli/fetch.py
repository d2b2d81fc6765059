"""`tosca datasets` and `tosca fetch`: the named datasets; they and weights, downloaded and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import echo, make_console, print_rows, resumable

if TYPE_CHECKING:
    from tosca_cache.datasets import KnownDataset

Mirror = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Get archives from URL/ARCHIVE instead of from where they were published."),
]
From = Annotated[
    Path | None, typer.Option("--from", metavar="FILE", help="The archive itself, got by other means; it stays there.")
]


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Datasets (see --list), addresses of archives; or backbones."),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Print what `tosca datasets` lists: sizes, sources, checksums.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="The names are backbones: arch.tag of timm, or hf-hub:OWNER/NAME[@REVISION]."),
    ] = False,
    mirror: Mirror = None,
    file: From = None,
    data_root: DataRoot = None,
) -> None:
    """Download datasets (or weights), check their bytes, unpack them safely, and put them where the other commands look.

    Interrupt it at will: the same command goes on with the download. A dataset is there as a whole or not at all.
    """
    from tosca_cache.datasets import resolve_data_root
    from tosca_cache.errors import UsageError

    root = resolve_data_root(data_root)
    if show_list:
        print_datasets(root)
        return
    if not names:
        raise UsageError(
            "there is nothing to fetch", where="NAME", remedy="name datasets; `tosca fetch --list` has them"
        )
    if len(names) > 1 and file is not None:
        raise UsageError("--from is for one dataset", where="--from", remedy="fetch them one by one")
    with resumable("it goes on with the download"):
        for name in names:
            if weights:
                _weights(name)
            else:
                _dataset(name, root, mirror=mirror, file=file)


def _dataset(name: str, data_root: Path, **how: Any) -> None:
    """Fetches one dataset with a bar, and says what it is; see `datasets.fetch.fetch` for `how`."""
    from tosca_cache.bars import counting
    from tosca_cache.datasets import known
    from tosca_cache.datasets.fetch import fetch as fetch_it
    from tosca_cache.datasets.fetch import present
    from tosca_cache.datasets.registry import source_of

    source = source_of(name)
    folder, counts = data_root / source.place, present(source, data_root)
    echo(f"{source.name}: {source.archive}, {size_of(source)}, from {how['mirror'] or how['file'] or source.origin}")
    if counts is None:
        with counting(make_console(stderr=True), bytes=True) as step:
            counts = fetch_it(source, data_root, step=step, **how)
        echo(f"  checked: {f'md5 stated by {source.stated_by}' if source.md5 else 'nothing, nobody states a checksum'}")
    else:
        echo("  was there already")
    echo("  here: {} ({} classes, {} train and {} test images)".format(folder, *counts))
    echo(f"  next: tosca extract --dataset {source.name if known(source.name) else folder}")


def _weights(name: str) -> None:
    """Fetches the weights of one backbone to where timm looks for them, and says which they are."""
    from tosca_cache.extract.backbone import load_backbone

    found = load_backbone(name, precision="fp32")
    echo(f"{name}: {found.name}.{found.tag}, digest {found.weights_digest}")
    echo(f"  next: tosca extract --backbone {name}")


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


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    app.command()(datasets)
    app.command()(fetch)
