"""One option for each setting of `TrainConfig`, for the verbs that train."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from tosca_cache.config.orders import read_class_order
from tosca_cache.config.schema import KEYS, TrainConfig, help_text

OPTION_NAMES = {"seeds": "--seed", "shuffle": "--shuffle/--no-shuffle"}
LISTS = {
    "seeds": "One or several, comma-separated.",
    "milestones": "Comma-separated.",
    "task_sizes": "Comma-separated; increment takes them back.",
    "class_order": "A text file with the name or index of a class on each line; seed takes it back.",
}
STORE = ("backbone", "normalize", "img_size", "views")  # which store is meant, besides its dataset
TASKS = ("task_sizes", "class_order", "shots")


def with_settings(
    function: Callable[..., None], *, without: Collection[str] = (), only: Collection[str] = KEYS
) -> Callable[..., None]:
    """Gives `function` one option for each setting of `TrainConfig`, which is where their names, types and help stand.

    Arguments:
        function: takes the settings by **keyword; one that was not given is None.
        without: settings that get no option. only: those that get one.
    """
    hints = get_type_hints(TrainConfig)
    signature = inspect.signature(function, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(key, hints[key]))
        for key in KEYS
        if key in only and key not in without
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fixed]
    first = [option for option in options if option.name == "dataset"]
    parameters = [*first, *keyword, *(option for option in options if option.name != "dataset")]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*keyword, *options]}
    return function


def dataset_of(store: Path | None, settings: dict[str, Any], config: str | None) -> None:
    """Settles settings["dataset"]: a folder stands for its name; a store given without a dataset brings its own."""
    if settings["dataset"] is not None and Path(settings["dataset"]).is_dir():
        settings["dataset"] = Path(settings["dataset"]).resolve().name
    if store is not None and settings["dataset"] is None and config is None:
        from tosca_cache.store import open_store

        settings["dataset"] = open_store(store).spec.dataset["name"]


def _option(key: str, hint: Any) -> Any:
    name = OPTION_NAMES.get(key, f"--{key.replace('_', '-')}")
    text = f"{help_text(key)} {LISTS.get(key, '')}".strip()
    if key == "class_order":
        return Annotated[Any, typer.Option(name, help=text, parser=read_class_order, metavar="FILE")]
    if hint in (bool, int, float):
        return Annotated[hint | None, typer.Option(name, help=text)]
    if hint == int | None:  # a number, or the word that a file has for none
        return Annotated[Any, typer.Option(name, help=text, parser=_integer_or_word, metavar="INTEGER")]
    return Annotated[str | None, typer.Option(name, help=text)]


def _integer_or_word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
