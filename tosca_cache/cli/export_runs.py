"""`tosca export-runs`: runs, sweeps and comparisons for the tools that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tosca_cache.cli.options import DEFAULT_RUNS, Runs
from tosca_cache.terminal import echo

FORMATS = ("csv", "markdown", "latex", "parquet", "tensorboard", "mlflow", "wandb-offline")


def export_runs(
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="Runs and ledgers, as for report.")],
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(FORMATS)}.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PATH", help="File or folder; csv, markdown and latex are printed without."
        ),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Write parameters, seeds, curves and final metrics for other tools."""
    from importlib.util import find_spec

    from tosca_cache.cli.report import facts_of
    from tosca_cache.errors import RunError, UsageError
    from tosca_cache.files import file_errors, write_text
    from tosca_cache.report.records import TEXTS, TOOLS, records_of

    if to not in FORMATS:
        raise UsageError(f"there is no format {to!r}", where="--to", remedy=f"choose of {', '.join(FORMATS)}")
    package = TOOLS[to][0] if to in TOOLS else None
    if package is not None and find_spec(package) is None:
        raise UsageError(f"{to} needs the package {package}", where="--to", remedy=f"install it: pip install {package}")
    if package is not None and out is None:
        raise UsageError(f"{to} is no text to print", where="--to", remedy="say where it is written: --out PATH")
    facts = [facts_of(target, runs)[0] for target in targets]
    records = records_of(facts)
    if not records:
        raise UsageError("these have no results to export", where=targets[0], remedy="name runs, sweeps or comparisons")
    if package is None:
        text = TEXTS[to](facts)
        if out is None:
            echo(text, nl=False)
            return
        with file_errors(out, RunError, option="--out"):
            write_text(out, text)
    else:
        assert out is not None
        with file_errors(out, RunError, option="--out"):
            (out.parent if to == "parquet" else out).mkdir(parents=True, exist_ok=True)
            TOOLS[to][1](records, out)
    echo(f"{len(records)} records: {out}", err=True)
