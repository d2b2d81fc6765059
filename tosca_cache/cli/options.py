"""Options that several verbs share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def parse_root(given: str | Path) -> Path:
    """The folder of a root that was named by its path or by its address; raises `UsageError` for a useless address.

    An address must be read as text: a path that is made of it loses a slash.
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(given)):
        return Path(given)
    from tosca_cache.store.remote import local_root

    return local_root(given)


Root = Annotated[
    Path,
    typer.Option(
        "--root",
        envvar="TOSCA_CACHE",
        help="Folder of the feature stores, or an address: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER.",
        show_envvar=True,
        parser=parse_root,
        metavar="PATH|ADDRESS",
    ),
]
Runs = Annotated[Path, typer.Option("--runs", envvar="TOSCA_RUNS", help="Folder of the runs.", show_envvar=True)]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", envvar="TOSCA_DATA", help="Folder of the datasets.", show_default="data", show_envvar=True
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="A file of yours that registers a learner or a router; may be given often.",
        show_default=False,
    ),
]
DEFAULT_ROOT = Path("cache")
DEFAULT_RUNS = Path("runs")


def import_plugins(paths: list[Path] | None) -> None:
    """Makes the learners and routers of the user's files known; raises `UsageError` for a file that is of no use."""
    if paths:
        from tosca_cache.plugins import load_plugins

        load_plugins(paths)
