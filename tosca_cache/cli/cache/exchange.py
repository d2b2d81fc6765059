"""`tosca cache export`, `import`, `push`, `pull`: stores as files, features from elsewhere, and copies at addresses."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from tosca_cache.cli.cache.look import StoreArgument, byte_bar, locate
from tosca_cache.cli.options import DEFAULT_ROOT, Root
from tosca_cache.terminal import echo
from tosca_cache.text import one_line


def _array(help: str) -> Any:
    """An option that names an array."""
    return typer.Option(help=help, metavar="ARRAY", show_default="the one of a usual name", rich_help_panel=None)


Features = Annotated[str | None, _array("Features [n, d], or [n, views, d] with the clean view first.")]
Labels = Annotated[str | None, _array("Labels [n], whole numbers or texts.")]
Split = Annotated[str | None, _array("Which rows are for testing: is_test, or train/test as texts.")]
Domains = Annotated[str | None, _array("Domain of each row, numbers or texts.")]
Paths = Annotated[str | None, _array("Identity of each row, such as the path of its image.")]
ClassNames = Annotated[str | None, _array("Texts that numbers of labels refer to.")]
DomainNames = Annotated[str | None, _array("Texts that numbers of domains refer to.")]
Backbone = Annotated[str, typer.Option(help="What made the features, as `tosca train --backbone` asks for it.")]
StoreDtype = Annotated[
    str | None,
    typer.Option(help="float16 or float32.", show_default="float16 for float16 features, otherwise float32"),
]


def export(
    store: StoreArgument,
    file: Annotated[Path, typer.Argument(help="The file to write: .h5, .npz or .parquet.", metavar="FILE")],
    root: Root = DEFAULT_ROOT,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write features, labels, domains, paths and names of a store into one file (parquet: clean views only)."""
    from tosca_cache.store import open_store
    from tosca_cache.store.export import export_store

    opened = open_store(locate(store, root))
    export_store(opened, file, force=force)
    echo(f"{file}: {decimal(file.stat().st_size)}")


def import_(
    file: Annotated[
        Path, typer.Argument(help="Features and labels as .npz, .h5, .parquet, .csv or .npy.", metavar="FILE")
    ],
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    root: Root = DEFAULT_ROOT,
    backbone: Backbone = "imported",
    features: Features = None,
    labels: Labels = None,
    split: Split = None,
    domains: Domains = None,
    paths: Paths = None,
    class_names: ClassNames = None,
    domain_names: DomainNames = None,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Leave out rows of NaN, infinity or zeros, instead of an error.")
    ] = False,
    store_dtype: StoreDtype = None,
) -> None:
    """Make a store of features that were computed elsewhere.

    Arrays have a usual name (features, labels, split, ...) or are named by an option; those that were read are printed.
    Sizes are looked at before anything is read, and nothing is unpickled: docs/exchange.md.
    """
    from tosca_cache.extract.names import resolve_name
    from tosca_cache.store.external import USUAL
    from tosca_cache.store.importing import ImportOptions, import_file

    given = locals()
    named = {role: given[role] for role in USUAL if given[role] is not None}
    arch, tag = resolve_name(backbone)
    called = f"{arch}.{tag}" if tag else arch
    store, notes = import_file(file, ImportOptions(root, dataset, called, store_dtype, drop_bad), named)
    for note in notes:
        echo(one_line(note))
    echo(f"store: {store.path}")
    echo(f"use it: tosca train --store {shlex.quote(str(store.path))}")


def push(
    store: StoreArgument,
    address: Annotated[str, typer.Argument(help="Where to: s3://BUCKET/FOLDER.", metavar="ADDRESS")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a finished store to an address. Interrupt it at will: the same command copies the rest."""
    from tosca_cache.store import open_store
    from tosca_cache.store.sync import push as push_store

    opened = open_store(locate(store, root))
    with byte_bar(f"push {opened.path.name}") as progress:
        target = push_store(opened, address, progress)
    echo(f"pushed: {target}")


def pull(
    address: Annotated[str, typer.Argument(help="The store: s3://BUCKET/FOLDER/NAME.", metavar="ADDRESS/NAME")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a store from an address into a root, every byte checked. The same command goes on with what was interrupted."""
    from tosca_cache.store.sync import pull as pull_store

    with byte_bar(f"pull {address.rstrip('/').rpartition('/')[2]}") as progress:
        path = pull_store(address, root, progress)
    echo(f"store: {path}")
