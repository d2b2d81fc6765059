"""Learners by name, with their own options: which there are, what they take, and making one."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from annotated_types import Ge

from tosca_cache.config import Settings, TrainConfig
from tosca_cache.config.checks import Described, Kind, OrNone, accept, is_kind, nearest
from tosca_cache.config.schema import default_of
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import LEARNERS, Learner, learner_type
from tosca_cache.learners.tosca import BATCH_ROUTER
from tosca_cache.train.engines import Engine

COMMON = ("seed", "settings", "device", "engine")
FROM_CONFIG = ("router", "routing_batch_size")  # settings that only learners with options of these names know
ALL = "all"
OPTION = "--set"
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None}
_PLAIN = (bool, int, float, str, tuple, type(None))


def method_names(asked: str | Iterable[str]) -> tuple[str, ...]:
    """Names of learners, each once: all that are registered, or a list (separated by commas in a text).

    Raises `UsageError` for a name that is not known, with the nearest that is.
    """
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    wanted = list(dict.fromkeys(name.strip() for name in names))
    if wanted == [ALL]:
        return tuple(sorted(LEARNERS))
    for name in wanted:
        learner_type(name)
    return tuple(wanted)


def options_of(method: type[Learner]) -> Mapping[str, Any]:
    """The options of a learner's constructor that can be written down, and their defaults; what all learners take is no
    option, and neither is what a learner settles for the class that it builds on."""
    return {name: default for name, (default, _) in _options(method).items()}


@cache
def _options(method: type[Learner]) -> Mapping[str, tuple[Any, Kind]]:
    """The default of each option, and what it takes: as the constructor annotates it, or as the default is."""
    found: dict[str, tuple[Any, Kind]] = {}
    own = True
    for init in (vars(kind)["__init__"] for kind in method.__mro__ if "__init__" in vars(kind)):
        hints: dict[str, Any] = {}
        with suppress(NameError, TypeError):  # of a plugin whose annotations stand for nothing
            hints = get_type_hints(init, include_extras=True)
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for parameter in parameters:
            name, default = parameter.name, parameter.default
            if name not in (*COMMON, *found) and isinstance(default, _PLAIN) and (own or _takes(method, name, default)):
                found[name] = default, _kind(hints.get(name, float | None if default is None else type(default)))
        own = False
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break  # it hands nothing on that it does not name
    return MappingProxyType(found)


def _takes(method: type[Learner], option: str, value: Any) -> bool:
    """Whether a constructor hands an option on to the class above, instead of settling it itself."""
    try:
        method(**{option: value})
    except TypeError as error:
        return "multiple values" not in str(error)
    return True


def parse_assignments(texts: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{method: {option: value}} of METHOD.OPTION=VALUE texts; a value is read as what the option takes.

    Raises `UsageError` for a text that is none, a method that is not compared, an option that it has not, and a value
    that the option cannot have.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        method, dot, option = target.strip().partition(".")
        if not (equals and dot and method and option):
            raise UsageError(f"{text!r} sets nothing", where=OPTION, remedy=f"write it as {OPTION} METHOD.OPTION=VALUE")
        where = f"{OPTION} {text}"
        if method not in methods:
            raise UsageError(
                f"{method!r} is not among the methods compared",
                where=where,
                remedy=f"did you mean {nearest(method, methods)!r}? Compared: {', '.join(methods)}",
            )
        kind = _known_kind(method, option, where)
        found.setdefault(method, {})[option] = accept(kind, option, _read(value.strip(), kind), where)
    return found


def parse_options(method: str, texts: Sequence[str]) -> dict[str, Any]:
    """{option: value} of OPTION=VALUE texts (or METHOD.OPTION=VALUE) for one learner; raises as `parse_assignments`."""
    prefix = f"{method}."
    whole = [text if text.startswith(prefix) else prefix + text for text in texts]
    return parse_assignments(whole, [method]).get(method, {})


def check_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `UsageError` for a method that does not exist, an option that it has not, or a value that it does not take."""
    for method, values in options.items():
        learner_type(method)
        for option, value in values.items():
            where = f"{method}.{option}"
            accept(_known_kind(method, option, where), option, value, where)


def _kind(hint: Any) -> Kind:
    """A type as `config.checks` has it: None is written `none`, whole numbers count from 0 unless they say otherwise."""
    if get_origin(hint) in (Union, UnionType):
        return Annotated[_kind(next(part for part in get_args(hint) if part is not type(None))), OrNone("none")]
    if get_origin(hint) is tuple or hint is tuple:
        return Annotated[tuple[Any, ...], Described("a list")]
    plain = {int: Ge(0), float: Described("a finite number"), str: Described("a text")}
    return Annotated[hint, plain[hint]] if hint in plain else hint


def _known_kind(method: str, option: str, where: str) -> Kind:
    known = _options(learner_type(method))
    if option not in known:
        hint = f"did you mean {nearest(option, known)!r}? Its options: {', '.join(known)}" if known else "it has none"
        raise UsageError(f"{method} has no option {option!r}", where=where, remedy=hint)
    return known[option][1]


def _read(text: str, kind: Kind) -> Any:
    """The value that a text stands for."""
    if is_kind(kind, tuple):
        return tuple(_literal(part.strip()) for part in text.split(",") if part.strip())
    return text if is_kind(kind, str, Literal) else _literal(text)


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def full_options(name: str, config: TrainConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a learner: as given, else (a router) as the configuration says, else its default.

    A router is its learner's own where the configuration has nothing but the default: `mos` stays MOS.
    """
    settings = {key: getattr(config, key) for key in FROM_CONFIG if getattr(config, key) != default_of(key)}
    return {key: given.get(key, settings.get(key, default)) for key, default in options_of(learner_type(name)).items()}


def configured_options(config: TrainConfig) -> dict[str, Any]:
    """Every option of the learner of a configuration."""
    learner_type(config.method, "--method")
    return full_options(config.method, config, parse_options(config.method, config.options))


def leaks_task(config: TrainConfig) -> bool:
    """Whether predictions of the learner of a configuration use the order of the test rows, which leaks the task."""
    return bool(configured_options(config).get("router") == BATCH_ROUTER)


def configured_learner(
    config: TrainConfig, seed: int, device: torch.device | str, engine: Engine | None = None
) -> Learner:
    """A fresh learner of a configuration, with one seed; raises `UsageError` for a method or option that does not exist."""
    options = configured_options(config)
    return make_learner(config.method, config, options, seed=seed, device=device, engine=engine)


def make_learner(
    name: str,
    config: TrainConfig,
    options: Mapping[str, Any],
    *,
    seed: int,
    device: torch.device | str,
    engine: Engine | None,
) -> Learner:
    """A fresh learner under the training settings of a configuration; raises `UsageError` if it refuses the options."""
    settings = Settings.of(config)
    try:
        return learner_type(name)(seed=seed, settings=settings, device=device, engine=engine, **options)
    except (TypeError, ValueError) as error:
        said = ", ".join(f"{option}={value!r}" for option, value in options.items())
        remedy = f"change one of {said[:300]}" if said else "mend its constructor"
        raise UsageError(f"{name} cannot be made: {error}"[:300], where=name, remedy=remedy) from error


def learns_together(method: type[Learner]) -> bool:
    """Whether learners of several seeds have a way of their own to learn side by side."""
    return method.observe_together.__func__ is not Learner.observe_together.__func__  # type: ignore[attr-defined]


def facts_of(method: type[Learner]) -> dict[str, Any]:
    """What a learner says of itself: name, what it is, source, options with their defaults, and how it may be compared."""
    module, own = sys.modules[method.__module__].__doc__ or "", method.__doc__ or ""
    return {
        "name": method.name,
        "what": method.what or _first_paragraph(module),
        "keeps": _first_paragraph(own),
        "source": method.source,
        "agrees": method.agrees,
        "options": dict(options_of(method)),
        "rehearsal": method.rehearsal,
        "transductive": _may_be_transductive(method),
        "bound": method.bound,
    }


def _may_be_transductive(method: type[Learner]) -> bool:
    return isinstance(method.transductive, property) or bool(method.transductive)


def _first_paragraph(text: str) -> str:
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return re.sub(r" \((?:arXiv [0-9.]+; )?methods\.md [^)]*\)|; methods\.md [0-9.]+", "", paragraph)
