"""One option for each setting of `TrainConfig`, for the verbs that train."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tosca_cache.cli.options import DEFAULT_ROOT
from tosca_cache.config.schema import KEYS, SEED, TrainConfig, help_text
from tosca_cache.errors import ConfigError
from tosca_cache.files import Limit, read_limited

if TYPE_CHECKING:
    from rich.console import Console

    from tosca_cache.config import Resolved
    from tosca_cache.store import Store

OPTION_NAMES = {"seeds": "--seed", "shuffle": "--shuffle/--no-shuffle", "options": "--set"}
LISTS = {
    "seeds": "One or several, comma-separated.",
    "milestones": "Comma-separated.",
    "task_sizes": "Comma-separated; increment takes them back.",
    "class_order": "A text file with the name or index of a class on each line; seed takes it back.",
}
WORDS: ContextVar[Sequence[str]] = ContextVar("words", default=())  # of the command that is running
STORE = ("backbone", "normalize", "img_size", "views")  # which store is meant, besides its dataset
TASKS = ("task_sizes", "class_order", "shots")
SETTINGS_OF_ALL = tuple(key for key in KEYS if key not in ("seeds", "method", "options"))  # learners of a comparison
SETTINGS_OF_STEPS = (  # of `tosca run`; all else has its own command
    *("dataset", *STORE, "incremental", "init_cls", "increment", "task_sizes", "shuffle", "shots", "seeds"),
    *("method", "device"),
)


def with_settings(function: Callable[..., None], *, only: Collection[str] = KEYS) -> Callable[..., None]:
    """Gives `function` one option for each setting of `TrainConfig`, which is where their names, types and help stand.

    Arguments:
        function: takes the settings by **keyword; one that was not given is None.
        only: settings that get an option.
    """
    hints = get_type_hints(TrainConfig)
    signature = inspect.signature(function, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(key, hints[key]))
        for key in KEYS
        if key in only
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fixed]
    first = [option for option in options if option.name == "dataset"]
    parameters = [*first, *keyword, *(option for option in options if option.name != "dataset")]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*keyword, *options]}
    return function


def dataset_of(store: Path | None, settings: dict[str, Any], config: str | None) -> None:
    """Settles settings["dataset"]: a folder or a list stands for its name; a store given without one brings its own."""
    if settings["dataset"] is not None and Path(settings["dataset"]).exists():
        settings["dataset"] = Path(settings["dataset"]).resolve().name
    if store is not None and settings["dataset"] is None:
        from tosca_cache.store import open_store

        settings["dataset"] = open_store(store).spec.dataset["name"]


def store_for(resolved: Resolved, store: Path | None, root: str, console: Console) -> tuple[Store, Resolved]:
    """The store that settings ask for, and the settings as they are for it; prints which one, and what does not count.

    One at an address is pulled into the default cache first. Raises what `runs.stores.wanted_store` raises.
    """
    from tosca_cache.cli.cache.look import byte_bar
    from tosca_cache.runs.stores import wanted_fields, wanted_store
    from tosca_cache.store.sync import is_address, pull_wanted

    if store is None and is_address(root):
        asked = resolved.config.dataset, wanted_fields(resolved.config)
        with byte_bar(f"pull {asked[0]}") as progress:
            store = pull_wanted(root, DEFAULT_ROOT, *asked, progress)
    folder = DEFAULT_ROOT if is_address(root) else Path(root)
    opened, resolved, lines = wanted_store(resolved, store, folder, command=WORDS.get())
    foreign = [key for key in resolved.ignored if key not in KEYS]
    if foreign:
        lines.append(f"without effect here: {', '.join(foreign)} (--show-config says why)")
    if opened.spec.adapted is not None:
        lines.append(f"features: {opened.spec.features}, first task of {len(opened.spec.first_task or ())} classes")
    for line in [f"store: {opened.path}", *lines]:
        console.print(line, soft_wrap=True)
    return opened, resolved


def _option(key: str, hint: Any) -> Any:
    name = OPTION_NAMES.get(key, f"--{key.replace('_', '-')}")
    text = f"{help_text(key)} {LISTS.get(key, '')}".strip()
    if key == "class_order":
        return Annotated[Any, typer.Option(name, help=text, parser=read_class_order, metavar="FILE")]
    if key == "options":
        return Annotated[
            list[str] | None, typer.Option(name, help=f"{text} May be given often.", metavar="OPTION=VALUE")
        ]
    if hint in (bool, int, float):
        return Annotated[hint | None, typer.Option(name, help=text)]
    if hint == int | None:  # a number, or the word that a file has for none
        return Annotated[Any, typer.Option(name, help=text, parser=_integer_or_word, metavar="INTEGER")]
    return Annotated[str | None, typer.Option(name, help=text)]


def _integer_or_word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def read_class_order(file: str) -> tuple[str, ...] | str:
    """The lines of a file, empty ones left out; the word `seed` stands for itself: the order is drawn from the seed.

    What a line means is known with the classes: see `class_order.given_order`. Raises `ConfigError` if the file cannot be
    read as text, or says nothing.
    """
    if file == SEED:
        return SEED
    try:
        text = read_limited(Path(file), Limit.CLASS_ORDER).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        problem = f"the class order cannot be read: {getattr(error, 'strerror', error)}"
        remedy = "give a text file (UTF-8) with the name or index of a class on each line"
        raise ConfigError(problem, where=file[:200], remedy=remedy) from error
    return tuple(line.removesuffix("\r") for line in text.split("\n") if line.strip())
