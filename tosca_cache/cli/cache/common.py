"""What the verbs of `tosca cache` have in common: naming a store, sizes in words, and a bar of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tosca_cache.terminal import make_console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StoreArgument = Annotated[str, typer.Argument(help="Path of a store, or its name in --root.")]


def locate(store: str, root: Path) -> Path:
    """A path as it is; else a name in the root, or the beginning of exactly one; `UsageError` names several."""
    from tosca_cache.errors import UsageError
    from tosca_cache.store import list_stores
    from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN

    exact = [path for path in (Path(store), root / store, root / f"{store}.partial") if path.exists()]
    if stores := [path for path in exact if any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY, PLAN))]:
        return stores[0]
    paths = {found.path.name.removesuffix(".partial"): found.path for found in reversed(list_stores(root))}
    fitting = sorted(name for name in paths if name.startswith(store))
    if len(fitting) > 1:
        raise UsageError(
            f"{len(fitting)} stores begin with {store}:\n" + "\n".join(f"    {name}" for name in fitting),
            where=store,
            remedy="give more of the name, or all of these names",
        )
    return paths[fitting[0]] if fitting else (*exact, root / store)[0]


def readable_size(size: int) -> str:
    """Bytes in powers of 1000."""
    units = ["B", "kB", "MB", "GB", "TB"]
    amount = float(size)
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


@contextmanager
def byte_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on a terminal; yields what is told how many are done, of how many."""
    from tosca_cache.bars import counting

    with counting(make_console(stderr=True), what, bytes=True) as change:
        yield lambda done, total: change(completed=done, total=total)
