"""`tosca cache push` and `pull`: copies of stores on S3, Google Cloud Storage, or anything else that fsspec knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tosca_cache.cli.cache.common import StoreArgument, locate
from tosca_cache.cli.options import DEFAULT_ROOT, Root
from tosca_cache.terminal import echo, make_console

Begin = Callable[[str, int], Callable[[int], None]]  # of a store's name and bytes: what is told of more bytes


@contextmanager
def transfer(what: str) -> Iterator[Begin]:
    """A bar of bytes on a terminal, for a store whose size is known later."""
    from tosca_cache.bars import counting

    with counting(make_console(stderr=True), bytes=True) as change:

        def begin(name: str, size: int) -> Callable[[int], None]:
            change(description=f"{what} {name}", total=size)
            return lambda more: change(advance=more)

        yield begin


def push(
    store: StoreArgument,
    address: Annotated[str, typer.Argument(help="Where to: s3://BUCKET/FOLDER.", metavar="ADDRESS")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a finished store to an address. Interrupt it at will: the same command copies the rest."""
    from tosca_cache.store import open_store
    from tosca_cache.store.sync import push as push_store

    opened = open_store(locate(store, root))
    with transfer("push") as begin:
        target = push_store(opened, address, begin(opened.path.name, opened.manifest.size))
    echo(f"pushed: {target}")


def pull(
    address: Annotated[str, typer.Argument(help="The store: s3://BUCKET/FOLDER/NAME.", metavar="ADDRESS/NAME")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Copy a store from an address into a root, every byte checked. The same command goes on with what was interrupted."""
    from tosca_cache.store.sync import list_remote
    from tosca_cache.store.sync import pull as pull_store

    above, _, name = address.rstrip("/").rpartition("/")
    size = next((found.size for found in list_remote(above) if found.path.name == name), 0)
    with transfer("pull") as begin:
        path = pull_store(address, Path(root), begin(name, size))
    echo(f"store: {path}")
