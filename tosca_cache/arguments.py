"""Arguments of the Python interface, checked at the door: a wrong one is a `ToscaError` that says what to give instead."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from tosca_cache.config.checks import Count, Kind, accept, one_of, text
from tosca_cache.config.schema import ENGINES
from tosca_cache.errors import UsageError
from tosca_cache.runs.experiment import Trained
from tosca_cache.store import Store
from tosca_cache.tasks import TaskStream
from tosca_cache.text import one_line

LONGEST = 255  # bytes of a file's name
P = ParamSpec("P")
R = TypeVar("R")
Take = Callable[[str, Any], Any]  # of an argument's name and its value: the value as it is used


def checked(**own: Take) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: calls a function with its arguments as the checks of their names return them, see `TAKES`; or its own.

    Raises `UsageError` for an argument that the function has not, for one that is missing, and what the checks raise.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        """The function behind its checks."""
        signature, takes, name = inspect.signature(function), TAKES | own, function.__name__
        known = [p.name for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]

        @wraps(function)
        def door(*args: P.args, **kwargs: P.kwargs) -> R:
            """Checks the arguments, then calls the function."""
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                for key in set(kwargs) - set(known):
                    raise unknown(key, known, name) from None
                raise UsageError(
                    f"{name}: {error}", where=name, remedy=f"its arguments are {', '.join(known)}"
                ) from None
            for key in takes.keys() & bound.arguments.keys():
                bound.arguments[key] = takes[key](key, bound.arguments[key])
            return function(*bound.args, **bound.kwargs)

        return door

    return decorate


def unknown(key: str, known: Sequence[str], where: str) -> UsageError:
    """The error for a name that does not exist, with those that look like it."""
    near = get_close_matches(key[:100], known, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UsageError(
        f"{where} has no argument {key[:100]!r}", where=where, remedy=f"{hint}there are {', '.join(known)}"
    )


def plain(value: Any) -> Any:
    """A number of numpy as one of Python, and an array of numpy as a list; anything else as it is."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, each value as `plain` gives it."""
    return {key: plain(value) for key, value in values.items()}


def checks(kind: Kind) -> Take:
    """A value of a kind, as settings have them."""
    return lambda name, value: accept(kind, name, plain(value), name)


def optional(take: Take) -> Take:
    """None, or what another check takes."""
    return lambda name, value: None if value is None else take(name, value)


def instance(kind: type, remedy: str) -> Take:
    """An object of a type; `remedy` says where to get one."""

    def take(name: str, value: Any) -> Any:
        """The value, if it is one."""
        if not isinstance(value, kind):
            raise UsageError(f"{name} is {_what(value)}, not a {kind.__name__}", where=name, remedy=remedy)
        return value

    return take


def _asked(name: str, value: Any, right: bool, remedy: str) -> Any:
    """The value, if it is right; raises `UsageError` if not."""
    if not right:
        raise UsageError(f"{name} cannot be {_what(value)}", where=name, remedy=remedy)
    return value


def path(name: str, value: Any) -> Any:
    """A path, as a text or a `Path`, of which no part is too long; or an address, as a text."""
    right = isinstance(value, str | Path) and bool(str(value)) and "\0" not in str(value)
    short = right and all(len(os.fsencode(part)) <= LONGEST for part in Path(value).parts)
    return _asked(name, value, short, "give a path" if not right else "give a path without a part that is too long")


def items(name: str, value: Any) -> list[Any]:
    """A list, a tuple, a range or an array of one axis."""
    found = plain(value)
    right = isinstance(found, Sequence) and not isinstance(found, str | bytes)
    return list(_asked(name, found, right, "give a list"))


def axes(name: str, value: Any) -> Any:
    """A search space: a mapping of settings to values, or a list of texts such as `lr=0.1,0.2`."""
    if isinstance(value, Mapping):
        return plain_values(mapping(name, value))
    texts = items(name, value)
    return _asked(name, texts, all(isinstance(one, str) for one in texts), "give {setting: values}, or KEY=VALUES")


def mapping(name: str, value: Any) -> Any:
    """A mapping whose keys are texts."""
    right = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return _asked(name, value, right, "give a dictionary with texts as keys")


def reporter(*methods: str) -> Take:
    """An object with methods that are told how work goes on."""

    def take(name: str, value: Any) -> Any:
        """The value, if it has the methods."""
        missing = [method for method in methods if not callable(getattr(value, method, None))]
        if missing:
            raise UsageError(
                f"{name} has no {', '.join(missing)}", where=name, remedy=f"give an object with {', '.join(methods)}"
            )
        return value

    return take


TEXT, FLAG, COUNT = checks(text("a text")), checks(bool), checks(Count)
TAKES: dict[str, Take] = {  # by the name of an argument, which means the same in every function
    "store": instance(Store, "open it first: tosca.open_store(path)"),
    "stream": instance(TaskStream, "make one first: tosca.task_stream(store, increment=10)"),
    "trained": instance(Trained, "train first: tosca.train(stream)"),
    **dict.fromkeys(("path", "root", "folder"), path),
    **dict.fromkeys(("dataset", "backbone", "method", "device", "incremental", "backend"), TEXT),
    **dict.fromkeys(("router", "store_dtype", "scheduler"), optional(TEXT)),
    **dict.fromkeys(("shuffle", "drop_bad"), FLAG),
    **dict.fromkeys(("increment", "init_cls", "shots", "jobs"), optional(COUNT)),
    **dict.fromkeys(("options", "search"), optional(mapping)),
    "task_sizes": optional(lambda name, value: [COUNT(name, size) for size in items(name, value)]),
    "class_order": optional(items),
    "space": axes,
    "ledger": optional(path),
    "seed": checks(Annotated[int, Ge(0), Le(2**32 - 1)]),
    "engine": checks(one_of(ENGINES)),
}


def feature_rows(features: Any, dim: int, name: str = "features") -> NDArray[Any]:
    """Features [n, d] or [n, 1+V, d] as an array of numbers; raises `UsageError` for what no module can be asked about.

    Arguments:
        dim: d that is wanted.
    """
    try:
        found = np.asarray(features)
    except (TypeError, ValueError, RuntimeError) as error:
        remedy = "give one array, on the CPU and without gradient"
        raise UsageError(f"{name} are no array: {one_line(str(error))[:200]}", where=name, remedy=remedy) from error
    if found.dtype.kind not in "fiu":
        raise UsageError(f"{name} are of type {found.dtype}", where=name, remedy="give numbers, such as float32")
    if found.ndim not in (2, 3) or 0 in found.shape[1:]:
        one = f"; one row is {name}[None]" if found.ndim == 1 else ""
        remedy = f"give [n, {dim}], or [n, 1 + views, {dim}] with the clean view first{one}"
        raise UsageError(f"{name} have the shape {list(found.shape)}", where=name, remedy=remedy)
    if found.shape[-1] != dim:
        remedy = f"give features of the backbone that the store was made with: {dim} numbers each"
        problem = f"{name} have {found.shape[-1]} numbers each, and the modules were trained on {dim}"
        raise UsageError(problem, where=name, remedy=remedy)
    rows = found.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(rows).all(tuple(range(1, rows.ndim))))
    if len(bad):
        problem = (
            f"{len(bad)} of {len(rows)} rows hold NaN, infinity or numbers beyond float32, the first is row {bad[0]}"
        )
        raise UsageError(problem, where=name, remedy="leave these rows out, or compute them again")
    return rows


def _what(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:100]
    return f"a {type(value).__name__}"
