"""`tosca cache`: everything about feature stores but making and using them; one file a group of verbs."""

from __future__ import annotations

import typer

from tosca_cache.cli.cache import copies, exchange, look, remove, verify, why

VERBS = (look, verify, why, exchange, copies, remove)


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    cache = typer.Typer(no_args_is_help=True, help="Look after the feature stores.")
    for verbs in VERBS:
        verbs.register(cache)
    app.add_typer(cache, name="cache")
