"""`tosca cache`: what stores there are, and what one of them is; how all its verbs name a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from tosca_cache.cli.options import DEFAULT_ROOT, AnyRoot, Root
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo, echo_json, make_console, print_rows
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from tosca_cache.store import StoreSummary

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StoreArgument = Annotated[str, typer.Argument(help="Path of a store, or its name in --root.")]


def locate(store: str, root: Path) -> Path:
    """A path as it is; else a store by its name in the root, or by the beginning of one; `UsageError` if several fit."""
    from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN

    exact = [path for path in (Path(store), root / store, root / f"{store}.partial") if path.exists()]
    paths = [*exact, *(path for path in sorted(root.glob("*")) if path.name.startswith(store))]
    stores = [path for path in paths if any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY, PLAN))]
    if len(stores) > 1 and stores[0] not in exact:
        problem = "\n    ".join([f"{len(stores)} stores begin with {store}:", *(path.name for path in stores)])
        raise UsageError(problem, where=store, remedy="give more of the name")
    return (*stores, *exact, root / store)[0]


@contextmanager
def byte_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on a terminal; yields what is told how many are done, of how many."""
    from tosca_cache.bars import counting

    with counting(make_console(stderr=True), what, bytes=True) as change:
        yield lambda done, total: change(completed=done, total=total)


def list_(root: AnyRoot = str(DEFAULT_ROOT), as_json: AsJson = False) -> None:
    """List the feature stores, finished and unfinished; at an address those that can be pulled."""
    from tosca_cache.store import list_stores
    from tosca_cache.store.sync import is_address, list_remote

    stores = list_remote(root) if is_address(root) else list_stores(Path(root))
    if as_json:
        echo_json([store.to_dict() for store in stores])
    elif stores:
        _print_list(root, stores)
        if not is_address(root):
            free = decimal(shutil.disk_usage(root).free)
            echo(f"in all {decimal(sum(store.size for store in stores))}; free on this disk: {free}")
    else:
        echo(f"There are no stores in {root}. Make one: tosca extract --dataset digits")


def info(store: StoreArgument, root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> None:
    """Show what a store is: rows, views, the full fingerprint, what was skipped, where it came from."""
    from rich.pretty import Pretty

    found = _facts(locate(store, root))
    if as_json:
        echo_json(found)
    else:
        make_console().print(Pretty(found, expand_all=True, max_length=30))


def _facts(path: Path) -> dict[str, Any]:
    from tosca_cache.datasets.decoding import Decoding
    from tosca_cache.store import SPLITS, list_stores, open_store

    for found in list_stores(path.parent):
        if found.path.name == path.name and found.state == "unfinished":
            return found.to_dict()
    store = open_store(path)
    manifest = store.manifest
    decoding = {} if store.spec.imported else {"decoding": Decoding.recorded_in(store.spec.transform).to_dict()}
    return {
        "path": str(store.path),
        "name": store.path.name,
        "state": "finished",
        "bytes": manifest.size,
        "rows": {split: store.rows(split) for split in SPLITS},
        "views": {split: store.views(split) for split in SPLITS},
        "classes": len(store.class_names),
        "class_names": list(store.class_names),
        "domain_names": list(store.domain_names),
        "fingerprint": store.spec.to_dict(),
        "fingerprint_digest": store.spec.digest(),
        "numerics": dict(manifest.plan.numerics),
        **decoding,
        "skipped": {split: [vars(row) for row in manifest.skipped[split]] for split in SPLITS},
        "left_out": dict(manifest.left_out),
        "provenance": store.provenance,
    }


def _print_list(root: str, stores: list[StoreSummary]) -> None:
    rows = [(one_line(s.path.name), _state(s), *_cells(s), decimal(s.size)) for s in stores]
    console = make_console()
    print_rows(console, f"stores in {root}", ("store", "state", "train", "test", "features", "size"), rows)
    for store in stores:
        if store.problem is not None:
            console.print(f"{one_line(store.path.name)}: {one_line(store.problem)}", soft_wrap=True)


def _cells(store: StoreSummary) -> list[str]:
    if store.spec is None or store.rows is None or store.views is None:
        return ["?"] * 3
    rows = [f"{store.rows[split]} x {store.views[split]}" for split in ("train", "test")]
    return [*rows, f"{store.spec.backbone['dim']} {store.spec.dtype}"]


def _state(store: StoreSummary) -> str:
    if store.state != "unfinished" or store.rows is None:
        return store.state
    return f"unfinished: {store.done_rows} of {sum(store.rows.values())} rows"
