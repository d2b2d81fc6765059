"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Root = Annotated[
    Path, typer.Option("--root", envvar="TOSCA_CACHE", help="Folder of the feature stores.", show_envvar=True)
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
