"""`tosca conformance`: replay recorded trajectories of the reference arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.terminal import echo, make_console, print_rows

if TYPE_CHECKING:
    from tosca_cache.runs.conformance import Deviation


def conformance(
    files: Annotated[list[Path], typer.Argument(help="Recordings (.npz).", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
    engine: Annotated[str, typer.Option(help="What trains: torch, or native (the compiled kernels).")] = "torch",
) -> None:
    """Replay recorded reference runs through training and routing, and print the worst relative deviations.

    Exit status 0 only if all are within 1e-5 and all predictions are equal.
    """
    import torch

    from tosca_cache.runs.conformance import replay
    from tosca_cache.train.engines import choose_engine

    trainer = choose_engine(engine, torch.device("cpu"), steps=0)
    deviations = [replay(file, engine=trainer) for file in files]
    if as_json:
        for deviation in deviations:
            echo(json.dumps(_row(deviation)))
    else:
        _print(deviations)
    if not all(deviation.ok for deviation in deviations):
        raise typer.Exit(1)


def _row(deviation: Deviation) -> dict[str, Any]:
    from dataclasses import asdict

    from tosca_cache.evaluate.summary import to_json

    return to_json(asdict(deviation) | {"ok": deviation.ok})


def _print(deviations: list[Deviation]) -> None:
    titles = ("file", "loss", "module", "head", "protos", "logits", "entropy", "sample", "batch", "ok")
    rows = [[Path(one.file).name, *map(_cell, list(_row(one).values())[1:])] for one in deviations]
    print_rows(make_console(), "worst relative deviation from the recording; predictions equal", titles, rows)


def _cell(value: float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "inf" if value is None else f"{value:.0e}"
