"""`tosca cache push` and `pull`: copies of stores on S3, Google Cloud Storage, or anything else that fsspec knows."""

from __future__ import annotations

from typing import Annotated

import typer

from tosca_cache.cli.cache.common import StoreArgument, byte_bar, locate
from tosca_cache.cli.options import DEFAULT_ROOT, Root
from tosca_cache.terminal import echo


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
