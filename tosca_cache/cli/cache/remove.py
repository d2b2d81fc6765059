"""`tosca cache rm`, `prune` and `du`: removing stores and what killed processes left, and how much room they take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tosca_cache.cli.cache.common import AsJson, locate, readable_size
from tosca_cache.cli.options import DEFAULT_ROOT, Root
from tosca_cache.terminal import confirm, echo, echo_json, make_console, print_rows
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from tosca_cache.store import StoreSummary
    from tosca_cache.store.clean import Usage

Stores = Annotated[list[str], typer.Argument(help="Paths of stores, or their names in --root, or beginnings of them.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")]


def rm(stores: Stores, root: Root = DEFAULT_ROOT, yes: Yes = False) -> None:
    """Remove feature stores, finished, unfinished or damaged; asks before, unless --yes.

    A store that is being written is not removed.
    """
    from tosca_cache.store.clean import remove_store

    paths = list(dict.fromkeys(locate(store, Path(root)) for store in stores))
    if not yes:
        for path in paths:
            echo(_loss(path))
        confirm(f"Remove {'it' if len(paths) == 1 else f'these {len(paths)} stores'}?", otherwise="add --yes")
    for path in paths:
        echo(f"removed {path} ({readable_size(remove_store(path))})")


def prune(root: Root = DEFAULT_ROOT, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Remove unfinished stores and what killed processes have left; finished stores stay. Asks before, unless --yes.

    What is being written is never touched.
    """
    from tosca_cache.store import clean

    found = clean.prune(Path(root), dry_run=True)
    for stale in found.kept:
        echo(f"kept:   {stale.path.name}: {stale.kind}, in use by {stale.busy}")
    if not found.removed:
        echo(f"nothing to remove in {root}")
        return
    for stale in found.removed:
        echo(f"remove: {stale.path.name}: {stale.kind}, {readable_size(stale.size)}")
    if dry_run:
        echo(f"{readable_size(found.size)} would be freed")
        return
    if not yes:
        confirm(f"Remove these {len(found.removed)} ({readable_size(found.size)})?", otherwise="add --yes")
    done = clean.prune(Path(root))
    echo(f"removed {len(done.removed)}, {readable_size(done.size)} freed")


def du(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> None:
    """Show how much room the feature stores take, and what is free on their disk."""
    from tosca_cache.store.clean import usage

    found = usage(Path(root))
    if as_json:
        echo_json(found.to_dict())
    else:
        _print_usage(Path(root), found)


def _loss(path: Path) -> str:
    """What removing a store loses, in one line."""
    from tosca_cache.store import list_stores
    from tosca_cache.store.clean import folder_size

    size = folder_size(path)
    for found in list_stores(path.parent):
        if found.path.name == path.name:
            return f"{path.name}: {_content(found)}; {readable_size(size or found.size)}"
    return f"{path.name}: {readable_size(size)}"


def _content(store: StoreSummary) -> str:
    if store.spec is None or store.rows is None or store.views is None:
        return f"{store.state} ({store.problem})"
    rows, views = sum(store.rows.values()), store.views["train"]
    what = f"{rows} images of {store.spec.dataset['name']}, {views} views a train image, {store.spec.shown_backbone}"
    return f"{what}; {store.done_rows} of them are done" if store.state == "unfinished" else what


def _print_usage(root: Path, found: Usage) -> None:
    rows = [(one_line(name), state, readable_size(size)) for name, state, size in found.stores]
    console = make_console()
    print_rows(console, f"room that {root} takes", ("store", "state", "size"), rows)
    sums = found.to_dict()["total"]
    words = ", ".join(f"{kind} {readable_size(size)}" for kind, size in sums.items() if size and kind != "bytes")
    total = f"in all {readable_size(sums['bytes'])}" + (f" ({words})" if words else "")
    console.print(f"{total}; free on this disk: {readable_size(found.free)}", soft_wrap=True)
