"""`tosca cache`: everything about feature stores but making and using them; one file a group of verbs."""

from __future__ import annotations

import typer

from tosca_cache.cli.cache.exchange import export, import_, pull, push
from tosca_cache.cli.cache.look import info, list_
from tosca_cache.cli.cache.verify import verify


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    cache = typer.Typer(no_args_is_help=True, help="Look after the feature stores.")
    for verb in (list_, info, verify, export, import_, push, pull):
        cache.command({"list_": "ls"}.get(verb.__name__, verb.__name__.rstrip("_")))(verb)
    app.add_typer(cache, name="cache")
