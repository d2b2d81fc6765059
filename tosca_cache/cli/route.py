"""`tosca route` and `tosca audit`: stored modules behind other routers, and what batch routing leaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DEFAULT_RUNS, Plugins, Runs, import_plugins
from tosca_cache.terminal import echo, echo_json, make_console

if TYPE_CHECKING:
    from tosca_cache.runs.route import Stored

RunNames = Annotated[list[str], typer.Argument(help="Paths or names of runs.", metavar="RUN")]
StoreOf = Annotated[Path | None, typer.Option(help="Where the store is now, if it was moved.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print every seed's numbers instead of tables.")]
Sizes = Annotated[str, typer.Option(help="Rows that vote together, comma-separated.")]


def route(
    runs_named: RunNames,
    routers: Annotated[str, typer.Option(help="Names, comma-separated, or all.")] = "all",
    batch_sizes: Sizes = "8,48,256",
    store: StoreOf = None,
    runs: Runs = DEFAULT_RUNS,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Put the stored modules of runs behind other routers, without training, and audit batch routing beside them."""
    from rich.text import Text

    from tosca_cache.report.routes import leak_table, routers_table
    from tosca_cache.routing import ROUTERS
    from tosca_cache.runs.route import leak_curve, mean_over, route_again

    import_plugins(plugin)
    names, sizes = _router_names(routers), _sizes(batch_sizes)
    stored = _stored(runs_named, runs, store)
    if routers == "all" and not all(s.outputs.lazy.view_count for s in stored):
        names = _without_views(names)
    found = []
    with make_console(stderr=True).status("") as status:
        for s in stored:
            # A spinner takes a string for markup, whatever its console says.
            status.update(Text(f"{len(names)} routers behind {s.run.name}, seed {s.seed}"))
            found.append((s, route_again(s, names), leak_curve(s, sizes)))
    if as_json:
        _print_json([_named(s, {"routers": routed, "conditions": leaks}) for s, routed, leaks in found])
        return
    leaks = mean_over([curve for _, _, curve in found])
    table = {name: mean_over([routed[name] for _, routed, _ in found]) for name in names}
    console = make_console()
    keeping = [name for name in names if ROUTERS[name].rehearsal]
    console.print(routers_table(table, leaks["oracle"], len(found), keeping))
    console.print(leak_table(leaks, sizes))


def routers(
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the routers: what each keeps of the train rows, what it costs a sample, and where it comes from."""
    from tosca_cache.report.routes import facts_of, list_table
    from tosca_cache.routing import ROUTERS

    import_plugins(plugin)
    if as_json:
        _print_json([{"name": name} | facts_of(kind) for name, kind in sorted(ROUTERS.items())])
        return
    make_console().print(list_table(ROUTERS))


def audit(
    runs_named: RunNames,
    batch_sizes: Sizes = "8,48,256",
    store: StoreOf = None,
    runs: Runs = DEFAULT_RUNS,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show what choosing modules for whole test batches takes from the order of the test file."""
    from tosca_cache.report.routes import leak_table
    from tosca_cache.runs.route import leak_curve, mean_over

    import_plugins(plugin)
    sizes = _sizes(batch_sizes)
    found = [(s, leak_curve(s, sizes)) for s in _stored(runs_named, runs, store)]
    if as_json:
        _print_json([_named(s, {"conditions": curve}) for s, curve in found])
        return
    leaks = mean_over([curve for _, curve in found])
    console = make_console()
    console.print(leak_table(leaks, sizes))
    console.print(
        "The reference routes test batches of 48 whose rows come task by task: neighbours share a task, so the batch "
        "votes on it. Shuffled, the same vote fails. Only the first line depends on each image alone."
    )


def _stored(names: list[str], runs: Path, store: Path | None) -> list[Stored]:
    from tosca_cache.runs.directory import find_run
    from tosca_cache.runs.route import stored_seeds

    return [stored for name in names for stored in stored_seeds(find_run(name, runs), store)]


def _router_names(text: str) -> list[str]:
    from tosca_cache.routing import ROUTERS, make_router

    names = sorted(ROUTERS) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        make_router(name)
    return names


def _without_views(names: list[str]) -> list[str]:
    """Leaves out what cannot be had from a store without views of test rows, and says so."""
    from tosca_cache.routing import ROUTERS

    left_out = [name for name in names if ROUTERS[name].needs_views]
    echo(f"left out: {', '.join(left_out)} (no views of test rows in the store; extract with --test-views 8)", err=True)
    return [name for name in names if name not in left_out]


def _sizes(text: str) -> tuple[int, ...]:
    from tosca_cache.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{text!r} are no batch sizes", where="--batch-sizes", remedy="give for example 8,48,256")
    return tuple(int(part) for part in parts)


def _named(stored: Stored, values: dict[str, Any]) -> dict[str, Any]:
    return {"run": str(stored.run), "seed": stored.seed} | values


def _print_json(value: list[dict[str, Any]]) -> None:
    from tosca_cache.evaluate.summary import to_json

    echo_json(to_json(value))


def register(app: typer.Typer) -> None:
    """Adds the three verbs."""
    app.command()(routers)
    app.command()(route)
    app.command()(audit)
