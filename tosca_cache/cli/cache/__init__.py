"""`tosca cache`: everything about feature stores but making and using them; one file a group of verbs."""

from __future__ import annotations

from collections.abc import Callable

import typer

from tosca_cache.cli.cache.exchange import export, import_, pull, push
from tosca_cache.cli.cache.look import info, list_
from tosca_cache.cli.cache.verify import verify

VERBS: dict[str, Callable[..., None]] = {
    "ls": list_,
    "info": info,
    "verify": verify,
    "export": export,
    "import": import_,
    "push": push,
    "pull": pull,
}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    cache = typer.Typer(no_args_is_help=True, help="Look after the feature stores.")
    for name, function in VERBS.items():
        cache.command(name)(function)
    app.add_typer(cache, name="cache")
