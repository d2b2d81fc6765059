"""`tosca conformance`: replay recorded trajectories of the reference arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tosca_cache.methods.conformance import Deviation


def conformance(
    files: Annotated[list[Path], typer.Argument(help="Recordings (.npz).", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
) -> None:
    """Replay recorded reference runs through training and routing, and print the worst relative deviations.

    Exit status 0 only if all are within 1e-5 and all predictions are equal.
    """
    from tosca_cache.methods.conformance import replay

    deviations = [replay(file) for file in files]
    if as_json:
        for deviation in deviations:
            typer.echo(json.dumps(_row(deviation)))
    else:
        _print(deviations)
    if not all(deviation.ok for deviation in deviations):
        raise typer.Exit(1)


def _row(deviation: Deviation) -> dict[str, Any]:
    from dataclasses import asdict

    from tosca_cache.evaluate.summary import to_json

    row = to_json(asdict(deviation) | {"ok": deviation.ok})
    assert isinstance(row, dict)
    return row


def _print(deviations: list[Deviation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="worst relative deviation from the recording")
    for name in _row(deviations[0]):
        table.add_column(name.replace("_", " "), overflow="fold")
    for deviation in deviations:
        table.add_row(*(f"{v:.1e}" if isinstance(v, float) else str(v) for v in _row(deviation).values()))
    Console().print(table)


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(conformance)
