"""`tosca run`: from nothing to a result, by the commands that do each step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tosca_cache.cli.extract import TestFraction
from tosca_cache.cli.options import DEFAULT_ROOT, DEFAULT_RUNS, Config, DataRoot, Root, Runs
from tosca_cache.cli.run_steps import Steps
from tosca_cache.cli.settings import SETTINGS_OF_STEPS, with_settings


@partial(with_settings, only=SETTINGS_OF_STEPS)
def run(
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Adapt the backbone on the first task first; one seed, the first.")
    ] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Choose l1 and lr on held-out train rows first.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Put the standard baselines beside it.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the steps and what they take, then stop.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Local weights instead of a download.", metavar="FILE")] = None,
    test_fraction: TestFraction = None,
    config: Config = None,
    data_root: DataRoot = None,
    root: Root = DEFAULT_ROOT,
    runs: Runs = DEFAULT_RUNS,
    **settings: Any,
) -> None:
    """Fetch a dataset, extract its features, train on them, and write one page: each step by its own command.

    Interrupt it at will: run again, it skips what is finished and goes on with what is not.
    """
    Steps(dict(locals())).all()
