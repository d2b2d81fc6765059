"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def local_root(given: str | Path) -> Path:
    """The folder of a root; raises `UsageError` for an address, where stores are only copied from and to."""
    from tosca_cache.store.sync import is_address

    if is_address(given):
        from tosca_cache.errors import UsageError

        remedy = "copy stores with `tosca cache pull ADDRESS/NAME` and `tosca cache push STORE ADDRESS`"
        raise UsageError(
            "stores at an address are copies: this works on a folder", where=str(given)[:200], remedy=remedy
        )
    return Path(given)


Root = Annotated[
    Path,
    typer.Option(
        "--root",
        envvar="TOSCA_CACHE",
        help="Folder of the feature stores.",
        show_envvar=True,
        parser=local_root,
        metavar="PATH",
    ),
]
AnyRoot = Annotated[
    str,
    typer.Option(
        "--root",
        envvar="TOSCA_CACHE",
        help="Folder of the feature stores; or an address (s3://BUCKET/FOLDER), from which a store is pulled into cache/.",
        show_envvar=True,
        metavar="PATH|ADDRESS",
    ),
]
StoreOption = Annotated[Path | None, typer.Option(help="The store itself, instead of a search in --root.")]
Config = Annotated[
    str | None, typer.Option(help="A TOML file, a JSON file of the reference, or the name of a shipped config.")
]
Runs = Annotated[Path, typer.Option("--runs", envvar="TOSCA_RUNS", help="Folder of the runs.", show_envvar=True)]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", envvar="TOSCA_DATA", help="Folder of the datasets.", show_default="data", show_envvar=True
    ),
]
DEFAULT_ROOT = Path("cache")
DEFAULT_RUNS = Path("runs")


def import_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Makes the learners and routers of the user's files known; raises `UsageError` for a file that is of no use."""
    for path in paths or ():
        from tosca_cache.plugins import load_plugin

        load_plugin(path)
    return paths


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        callback=import_plugins,
        metavar="FILE.py",
        help="A file of yours that registers a learner or a router; may be given often.",
        show_default=False,
    ),
]
