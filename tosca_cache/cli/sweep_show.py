"""`tosca sweep show`: what a ledger holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    ledger: Annotated[Path, typer.Argument(help="The ledger of a sweep.")],
    metric: Annotated[str, typer.Option(help="What settings are ranked by.")] = "last_accuracy",
    csv: Annotated[bool, typer.Option("--csv", help="One line a cell, for a spreadsheet.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything, for a program.")] = False,
) -> None:
    """Print the best settings of a ledger, the effect of each parameter, and what diverged or failed."""
    typer.echo("not yet")
