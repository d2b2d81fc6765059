"""`tosca methods`: the learners that `tosca compare` knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from tosca_cache.cli.options import Plugins
from tosca_cache.terminal import echo_json, make_console


def methods(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Learners to show; all if none.")
    ] = None,
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the learners of `tosca compare`: what each is and keeps, where it comes from, and its options for --set.

    Each says how it stands to the official code: equal to it, equal to the paper, or how it differs.
    """
    from tosca_cache.learners import LEARNERS
    from tosca_cache.learners.base import learner_type
    from tosca_cache.learners.options import facts_of

    found = [facts_of(learner_type(name, "NAME")) for name in names or sorted(LEARNERS)]
    if as_json:
        echo_json(found)
    else:
        make_console().print(_table(found))


Facts = Mapping[str, Any]  # of a learner; see `learners.options.facts_of`


def _table(learners: Iterable[Facts]) -> Table:
    table = Table("method", "", title="learners on cached features", show_lines=True, box=SIMPLE)
    for facts in learners:
        agrees = f"official code: {facts['agrees']}" if facts["agrees"] else ""
        lines = [
            facts["what"],
            facts["keeps"],
            notes_of(facts),
            f"source: {facts['source']}",
            agrees,
            options_of(facts),
        ]
        table.add_row(facts["name"], "\n".join(line for line in lines if line))
    return table


def notes_of(facts: Facts) -> str:
    """What sets a learner apart from those that a table compares fairly."""
    notes = {
        "rehearsal": "keeps train rows (rehearsal)",
        "transductive": "its answer may depend on the other test rows (transductive)",
        "bound": "a bound, not a learner",
    }
    return "; ".join(text for name, text in notes.items() if facts[name])


def options_of(facts: Facts, mark: str = "") -> str:
    """METHOD.OPTION=VALUE of every option, as --set takes it."""
    return ", ".join(f"{mark}{facts['name']}.{name}={value}{mark}" for name, value in facts["options"].items())
