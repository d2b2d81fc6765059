"""`tosca methods`: the learners that `tosca compare` knows."""

from __future__ import annotations

from typing import Annotated

import typer

from tosca_cache.cli.options import Plugins, import_plugins
from tosca_cache.terminal import echo, make_console


def methods(
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the learners of `tosca compare`: what each is and keeps, where it comes from, and its options for --set."""
    import json

    from tosca_cache.learners import LEARNERS
    from tosca_cache.learners.options import facts_of
    from tosca_cache.report.learners import learners_table

    import_plugins(plugin)
    found = [facts_of(kind) for _, kind in sorted(LEARNERS.items())]
    if as_json:
        echo(json.dumps(found, indent=1))
    else:
        make_console().print(learners_table(found))


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(methods)
