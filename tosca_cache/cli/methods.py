"""`tosca methods`: the learners that `tosca compare` knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from tosca_cache.cli.options import Plugins, import_plugins
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

    import_plugins(plugin)
    found = [facts_of(learner_type(name, "NAME")) for name in names or sorted(LEARNERS)]
    if as_json:
        echo_json(found)
    else:
        make_console().print(learners_table(found))


Facts = Mapping[str, Any]  # of a learner; see `learners.options.facts_of`


def learners_table(learners: Iterable[Facts]) -> Table:
    """What each learner is, keeps and takes."""
    table = Table("method", "", title="learners on cached features", show_lines=True, box=SIMPLE)
    for facts in learners:
        agrees = f"official code: {facts['agrees']}" if facts["agrees"] else ""
        lines = [
            facts["what"],
            facts["keeps"],
            _notes(facts),
            f"source: {facts['source']}",
            agrees,
            _options(facts, ""),
        ]
        table.add_row(facts["name"], "\n".join(line for line in lines if line))
    return table


def learners_markdown(learners: Iterable[Facts]) -> str:
    """The same as a table of Markdown."""
    heads = ["method", "what it is", "keeps, or differs in", "against the official code", "options and defaults"]
    rows = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for facts in learners:
        what = " ".join(part for part in (facts["what"], f"*{_notes(facts)}*" if _notes(facts) else "") if part)
        cells = [f"`{facts['name']}`", what, facts["keeps"], facts["agrees"], _options(facts, "`")]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _notes(facts: Facts) -> str:
    notes = {
        "rehearsal": "keeps train rows (rehearsal)",
        "transductive": "its answer may depend on the other test rows (transductive)",
        "bound": "a bound, not a learner",
    }
    return "; ".join(text for name, text in notes.items() if facts[name])


def _options(facts: Facts, mark: str) -> str:
    return ", ".join(f"{mark}{facts['name']}.{name}={value}{mark}" for name, value in facts["options"].items())
