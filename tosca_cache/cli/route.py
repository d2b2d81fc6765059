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
    from tosca_cache.report.routes import leak_table, routers_table
    from tosca_cache.routing import ROUTERS, make_router
    from tosca_cache.runs.directory import find_run
    from tosca_cache.runs.route import BATCH_SIZES, leak_curve, mean_over, route_again, stored_seeds

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
            found.append((s, route_again(s, names), leak_curve(s)))
    if as_json:
        named = [{"run": str(s.run), "seed": s.seed, "routers": a, "conditions": b} for s, a, b in found]
        echo_json(to_json(named))
        return
    leaks = mean_over([curve for _, _, curve in found])
    table = {name: mean_over([routed[name] for _, routed, _ in found]) for name in names}
    console = make_console()
    keeping = [name for name in names if ROUTERS[name].rehearsal]
    console.print(routers_table(table, leaks["oracle"], len(found), keeping))
    console.print(leak_table(leaks, BATCH_SIZES))
