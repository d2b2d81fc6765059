"""`tosca train`: stage two on a store."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from tosca_cache.cli.options import DEFAULT_ROOT, DEFAULT_RUNS, Root, Runs
from tosca_cache.config.schema import KEYS, TrainConfig, help_text

OPTION_NAMES = {"seeds": "--seed", "shuffle": "--shuffle/--no-shuffle"}
LISTS = {"seeds": "One or several, comma-separated.", "milestones": "Comma-separated."}


def train(
    store: Annotated[Path | None, typer.Option(help="The store itself, instead of a search in --root.")] = None,
    config: Annotated[
        str | None, typer.Option(help="A TOML file, a JSON file of the reference, or the name of a shipped config.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="official: the reference, with batch routing in file order (leaks the task).")
    ] = None,
    show_config: Annotated[bool, typer.Option(help="Print every setting and where it came from, then stop.")] = False,
    root: Root = DEFAULT_ROOT,
    runs: Runs = DEFAULT_RUNS,
    **settings: Any,
) -> None:
    """Train and route LuCA modules on a store, evaluate after every task, and write a run directory.

    Settings come from the command line, then the config file, then the preset; without a file, the shipped config of the
    dataset stands in for it.
    """
    from tosca_cache.config import resolve

    _dataset_of(store, settings, config)
    resolved = resolve(config=config, preset=preset, overrides=settings)
    if show_config:
        _print_settings(resolved)
        return
    _train(resolved, store, root, runs)


def _dataset_of(store: Path | None, settings: dict[str, Any], config: str | None) -> None:
    """A folder stands for its name; a store given without a dataset brings its own."""
    if settings["dataset"] is not None and Path(settings["dataset"]).is_dir():
        settings["dataset"] = Path(settings["dataset"]).resolve().name
    if store is not None and settings["dataset"] is None and config is None:
        from tosca_cache.store import open_store

        settings["dataset"] = open_store(store).spec.dataset["name"]


def _print_settings(resolved: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from tosca_cache.config import show

    table = Table("setting", "value", "from")
    for row in show(resolved):
        table.add_row(*row)
    Console().print(table)


def _train(resolved: Any, store: Path | None, root: Path, runs: Path) -> None:
    from rich.console import Console

    from tosca_cache.cli.progress import TrainingProgress
    from tosca_cache.cli.show import print_run
    from tosca_cache.methods.tosca import BATCH_ROUTER
    from tosca_cache.runs.stores import wanted_store
    from tosca_cache.runs.train import train_run

    console = Console()
    opened = wanted_store(resolved.config, store, root)
    console.print(f"store: {opened.path}", soft_wrap=True)
    with TrainingProgress(console, leaks=resolved.config.router == BATCH_ROUTER) as progress:
        run = train_run(resolved, opened, runs, progress)
    print_run(console, run)


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Gives `function` one option for each setting of `TrainConfig`, which is where their names, types and help stand."""
    hints = get_type_hints(TrainConfig)
    signature = inspect.signature(function, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(key, hints[key]))
        for key in KEYS
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fixed]
    function.__signature__ = signature.replace(parameters=[options[0], *keyword, *options[1:]])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*keyword, *options]}
    return function


def _option(key: str, hint: Any) -> Any:
    name = OPTION_NAMES.get(key, f"--{key.replace('_', '-')}")
    text = f"{help_text(key)} {LISTS.get(key, '')}".strip()
    if hint in (bool, int, float):
        return Annotated[hint | None, typer.Option(name, help=text)]
    if hint == int | None:  # a number, or the word that a file has for none
        return Annotated[Any, typer.Option(name, help=text, parser=_integer_or_word, metavar="INTEGER")]
    return Annotated[str | None, typer.Option(name, help=text)]


def _integer_or_word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(_with_settings(train))
