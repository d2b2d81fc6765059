"""`tosca route`: stored modules behind other routers, and what batch routing leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tosca_cache.cli.options import DEFAULT_RUNS, Plugins, Runs
from tosca_cache.terminal import echo, echo_json, make_console


def route(
    runs_named: Annotated[list[str], typer.Argument(help="Paths or names of runs.", metavar="RUN")],
    routers: Annotated[str, typer.Option(help="Names, comma-separated, or all.")] = "all",
    store: Annotated[Path | None, typer.Option(help="Where the store is now, if it was moved.")] = None,
    runs: Runs = DEFAULT_RUNS,
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every seed's numbers instead of tables.")] = False,
) -> None:
    """Put the stored modules of runs behind other routers, without training, and audit batch routing beside them.

    The published code routes test batches of 48 whose rows come task by task: neighbours share a task, so the batch votes
    on it. Shuffled, the same vote fails. Routers depend on each image alone.
    """
    from rich.text import Text

    from tosca_cache.evaluate.summary import to_json
    from tosca_cache.report.routes import route_tables
    from tosca_cache.routing import ROUTERS, make_router
    from tosca_cache.runs.directory import find_run
    from tosca_cache.runs.route import leak_curve, route_again, stored_seeds

    names = sorted(ROUTERS) if routers == "all" else [name.strip() for name in routers.split(",")]
    for name in names:
        make_router(name)  # raises for one that does not exist
    stored = [seed for name in runs_named for seed in stored_seeds(find_run(name, runs), store)]
    if routers == "all" and not all(s.outputs.lazy.view_count for s in stored):
        blind = [name for name in names if ROUTERS[name].needs_views]
        why = "no views of test rows in the store; extract with --test-views 8"
        echo(f"left out: {', '.join(blind)} ({why})", err=True)
        names = [name for name in names if name not in blind]
    found = []
    with make_console(stderr=True).status("") as status:
        for s in stored:
            # A spinner takes a string for markup, whatever its console says.
            status.update(Text(f"{len(names)} routers behind {s.run.name}, seed {s.seed}"))
            numbers = {"routers": route_again(s, names), "conditions": leak_curve(s)}
            found.append(to_json({"run": str(s.run), "seed": s.seed} | numbers))
    if as_json:
        echo_json(found)
        return
    for table in route_tables(found, [name for name in names if ROUTERS[name].rehearsal]):
        make_console().print(table)
