"""Learners by name, with their own options: which there are, what they take, and making one."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import torch

from tosca_cache.config import Settings, TrainConfig
from tosca_cache.config.checks import nearest
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


@cache
def options_of(method: type[Learner]) -> Mapping[str, Any]:
    """The options of a learner's constructor that can be written down, and their defaults; what all learners take is no
    option, and neither is what a learner settles for the class that it builds on."""
    found: dict[str, Any] = {}
    own = True
    for kind in method.__mro__:
        if "__init__" not in vars(kind):
            continue
        parameters = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            name, default = parameter.name, parameter.default
            if name not in (*COMMON, *found) and isinstance(default, _PLAIN) and (own or _takes(method, name, default)):
                found[name] = default
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
    """{method: {option: value}} of METHOD.OPTION=VALUE texts; a value is read as what the option's default is.

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
        default = _known_option(method, option, where)
        found.setdefault(method, {})[option] = _value(value.strip(), default, option, where)
    return found


def parse_options(method: str, texts: Sequence[str]) -> dict[str, Any]:
    """{option: value} of OPTION=VALUE texts (or METHOD.OPTION=VALUE) for one learner; raises as `parse_assignments`."""
    prefix = f"{method}."
    whole = [text if text.startswith(prefix) else prefix + text for text in texts]
    return parse_assignments(whole, [method]).get(method, {})


def check_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `UsageError` for a method that does not exist, an option that it has not, and a value of another type."""
    for method, values in options.items():
        learner_type(method)
        for option, value in values.items():
            where = f"{method}.{option}"
            default = _known_option(method, option, where)
            if not _is_like(value, default):
                raise _not_like(value, default, option, where)


def _known_option(method: str, option: str, where: str) -> Any:
    known = options_of(learner_type(method))
    if option not in known:
        hint = f"did you mean {nearest(option, known)!r}? Its options: {', '.join(known)}" if known else "it has none"
        raise UsageError(f"{method} has no option {option!r}", where=where, remedy=hint)
    return known[option]


def _value(text: str, default: Any, option: str, where: str) -> Any:
    if isinstance(default, tuple):
        return tuple(_literal(part.strip()) for part in text.split(",") if part.strip())
    if isinstance(default, str):
        return text
    value = _literal(text)
    if not _is_like(value, default):
        raise _not_like(text, default, option, where)
    return float(value) if type(default) is float else value


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value can stand in the place of a default; whatever it is in the place of None."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if type(default) is int:
        return type(value) is int and value >= 0
    return default is None or type(value) is type(default) or (type(default) is float and type(value) is int)


def _not_like(value: Any, default: Any, option: str, where: str) -> UsageError:
    kinds = {
        type(None): "a finite number",
        bool: "true or false",
        int: "a whole number from 0 on",
        float: "a finite number",
        str: "a text",
        tuple: "a list",
    }
    remedy = f"give {kinds[type(default)]}, for example {str(default).lower()}"
    return UsageError(f"{option} cannot be {value!r}"[:200], where=where, remedy=remedy)


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
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
