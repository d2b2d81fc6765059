"""From everywhere a setting can come from to one `TrainConfig`, which remembers where; and back to a file, and to rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tosca_cache.config.checks import none_word
from tosca_cache.config.files import Layer, read_config, read_shipped, shipped_configs
from tosca_cache.config.schema import (
    KEYS,
    SECTIONS,
    TrainConfig,
    check_value,
    deciders,
    default_of,
    kind_of,
    no_effect,
    unknown_key,
    why_idle,
)
from tosca_cache.errors import ConfigError
from tosca_cache.text import shortened

COMMAND_LINE = "command line"
DEFAULT = "default"


@dataclass(frozen=True)
class Resolved:
    """The settings of a run and where they came from.

    origin: for every key of `TrainConfig`: "command line", "file PATH", "shipped configs/NAME.toml" or "default".
    ignored: keys that have no effect here, with the reason: of a reference's file, or of tasks that are domains.
    """

    config: TrainConfig
    origin: dict[str, str]
    ignored: dict[str, str] = field(default_factory=dict)


def resolve(*, config: str | Path | None = None, overrides: Mapping[str, object] | None = None) -> Resolved:
    """Settings by precedence: command line, file, the shipped config of the dataset (if no file), defaults.

    Arguments:
        config: path of a config file, or the name of a shipped one.
        overrides: values from the command line by key; None means that it was not given.

    Raises `ConfigError`, naming the key and where its value came from.
    """
    layers = [_given(overrides or {}, COMMAND_LINE)]
    dataset = layers[0].values.get("dataset", default_of("dataset"))
    if config is not None:
        layers.append(read_config(config, layers[0].values))
    elif dataset in shipped_configs():
        layers.append(read_shipped(str(dataset)))
    return _merge(layers)


def config_of(given: Mapping[str, object]) -> TrainConfig:
    """The configuration of values given in Python, by key. Raises `ConfigError` as `resolve` does."""
    return _merge([_given(given, "arguments")]).config


def _given(given: Mapping[str, object], origin: str) -> Layer:
    values: dict[str, object] = {}
    for key, value in given.items():
        if key not in KEYS:
            raise unknown_key(key, KEYS, origin)
        if value is not None:
            values[key] = check_value(key, value, where=_where(key, origin))
    return Layer(origin, values)


def _merge(layers: list[Layer]) -> Resolved:
    """One config out of layers, the first having the last word."""
    values: dict[str, object] = {}
    origin: dict[str, str] = {}
    for key in KEYS:
        layer = next((layer for layer in layers if key in layer.values), None)
        values[key] = default_of(key) if layer is None else layer.values[key]
        origin[key] = DEFAULT if layer is None else layer.origin
    ignored = {key: reason for layer in layers for key, reason in layer.ignored.items()}
    ignored |= _without_idle(values, origin, [layer.origin for layer in layers])
    try:
        config = TrainConfig(**cast(dict[str, Any], values))
    except ConfigError as error:  # values are right one by one, but not together
        key = error.where or ""
        raise ConfigError(error.problem, where=_where(key, origin[key]), remedy=error.remedy) from None
    return Resolved(config, origin, ignored)


def _without_idle(values: dict[str, object], origin: dict[str, str], places: list[str]) -> dict[str, str]:
    """Puts settings that have no effect beside others back to their defaults, and returns why they have none.

    A place that says that tasks are domains, for instance, overrules their sizes from the places below it. Raises
    `ConfigError` if a setting is given in the place of the one that decides instead, or above.
    """
    idle = deciders(values)
    for key, decider in idle.items():
        above = places[: places.index(origin[decider]) + 1]
        if origin[key] in above and values[key] is not None:
            raise no_effect(key, decider, _where(key, origin[key]))
        values[key], origin[key] = default_of(key), DEFAULT
    return {key: why_idle(decider) for key, decider in idle.items()}


def _where(key: str, origin: str) -> str:
    return f"{key} ({origin})"


def to_toml(config: TrainConfig) -> str:
    """Every setting that has an effect as a TOML file of ours; `resolve(config=that file)` gives an equal `TrainConfig`."""
    lines = ["# Every setting of one run. Repeat it with: tosca train --config THIS_FILE"]
    for section, keys in SECTIONS.items():
        written = (key for key in keys if key not in config.idle)
        lines += ["", f"[{section}]", *(f"{key} = {_toml_value(key, getattr(config, key))}" for key in written)]
    return "\n".join(lines) + "\n"


def show(resolved: Resolved) -> list[tuple[str, str, str]]:
    """Rows (key, value, where it came from) of every setting that counts, then of the keys without effect and why."""
    config = resolved.config
    used = [key for key in KEYS if key not in config.idle]
    rows = [(key, shortened(_toml_value(key, getattr(config, key))), resolved.origin[key]) for key in used]
    return rows + [(key, "(no effect)", reason) for key, reason in resolved.ignored.items()]


def _toml_value(key: str, value: object) -> str:
    """A value as TOML writes it; None as the word that the key has for it."""
    value = none_word(kind_of(key)) if value is None else value
    # What JSON writes for booleans, finite numbers, strings and flat lists is TOML too. Text holds no control
    # characters (see checks.text), and non-ASCII is kept, as TOML has no surrogate pairs.
    return json.dumps(value, ensure_ascii=False)
