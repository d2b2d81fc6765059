"""`tosca sweep show`: what a ledger holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tosca_cache.terminal import echo, make_console
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from tosca_cache.sweep.effects import Group

MOST_LOST = 10  # diverged or failed cells that are printed; --json has all


def show(
    ledger: Annotated[Path, typer.Argument(help="The ledger of a sweep.")],
    metric: Annotated[str, typer.Option(help="What settings are ranked by.")] = "last_accuracy",
    top: Annotated[int, typer.Option(min=0, help="How many settings are printed.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Everything, for a program.")] = False,
) -> None:
    """Print the best settings of a ledger, the effect of each parameter, and what diverged or failed.

    Cells that were scored in different ways stand in tables of their own: they say nothing about each other.
    """
    from tosca_cache.sweep.cells import METRICS, check_choice
    from tosca_cache.sweep.effects import groups, to_json
    from tosca_cache.sweep.ledger import Ledger

    check_choice("--metric", metric, METRICS)
    with Ledger.open(ledger, read_only=True) as book:
        cells = book.cells()
    if json:
        echo(to_json(cells), nl=False)
        return

    console = make_console()
    for group in groups(cells):
        _print_group(console, group, metric, top)


def _print_group(console: Console, group: Group, metric: str, top: int) -> None:
    from tosca_cache.report.sweeps import effects_table, top_table
    from tosca_cache.sweep.effects import LEAST_SETTINGS, best_settings, main_effects, scored_on

    states = [cell.state for cell in group.cells]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.rule(f"{scored_on(group.select)}; store {group.store[:10]}")
    console.print(counted, soft_wrap=True)
    best = best_settings(group.cells, metric)
    console.print(top_table([one[:4] for one in best[:top]], metric=metric, how=f"{len(best)} settings"))
    for effect in main_effects(group.cells, metric) if len(best) >= LEAST_SETTINGS else ():
        console.print(effects_table(effect.key, effect.levels))
    _print_lost(console, group)


def _print_lost(console: Console, group: Group) -> None:
    from tosca_cache.report.sweeps import point_words
    from tosca_cache.sweep.effects import varying_keys

    keys = varying_keys(group.cells)
    lost = [cell for cell in group.cells if cell.state in ("diverged", "failed")]
    for cell in lost[:MOST_LOST]:
        point = {key: value for key, value in cell.content["setting"].items() if key in keys}
        words = f"{point_words(point)}, seed {cell.content['seed']}: {cell.reason}"
        console.print(f"{cell.state}: {one_line(words)}", soft_wrap=True)
    if len(lost) > MOST_LOST:
        console.print(f"and {len(lost) - MOST_LOST} more; --json lists all")
