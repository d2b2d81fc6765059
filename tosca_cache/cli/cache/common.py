"""What the verbs of `tosca cache` have in common: naming a store, and sizes in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
StoreArgument = Annotated[str, typer.Argument(help="Path of a store, or its name in --root.")]


def locate(store: str, root: Path) -> Path:
    """A path or an address as it is; else a name in the root, or the beginning of exactly one."""
    from tosca_cache.store import list_stores
    from tosca_cache.store.remote import is_address, local_path

    if is_address(store):
        return local_path(store)
    if Path(store).exists():
        return Path(store)
    if len(Path(store).parts) > 1:
        return root / store
    named = [found.path for found in list_stores(root) if found.path.name.startswith(store)]
    return named[0] if len(named) == 1 else root / store


def readable_size(size: int) -> str:
    """Bytes in powers of 1000."""
    units = ["B", "kB", "MB", "GB", "TB"]
    amount = float(size)
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
