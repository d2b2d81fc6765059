"""Reading config files: ours in TOML, the reference's in JSON, by path or by the name of one that is shipped."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import cast

from tosca_cache.config import reference
from tosca_cache.config.checks import nearest
from tosca_cache.config.schema import KEYS, SECTIONS, check_value, section_of, unknown_key
from tosca_cache.errors import ConfigError
from tosca_cache.files import Limit, read_limited

Decoded = tuple[dict[str, object], dict[str, str]]  # values, ignored: see Layer


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    origin: the place, as it is shown to the user.
    values: checked settings by key; only those that the place gives.
    ignored: keys of a reference's file that have no effect here, with the reason.
    """

    origin: str
    values: dict[str, object]
    ignored: dict[str, str] = field(default_factory=dict)


def shipped_folder() -> Traversable:
    """Where our own configs lie: beside the package in a checkout, inside it in an installed wheel."""
    packaged = files("tosca_cache").joinpath("configs")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def shipped_configs() -> tuple[str, ...]:
    """Names of the configs that ship with the package, in alphabetical order."""
    folder = shipped_folder()
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def find_config(config: str | Path) -> tuple[Traversable, str]:
    """The config file of that path; failing that, the shipped one of that name (`cub`, `cub.toml`, `configs/cub.toml`).

    Returns the file and the name to show for it. Raises `ConfigError` naming what exists.
    """
    path = Path(config)
    try:
        if path.is_file():
            return path, str(config)
    except OSError as error:  # a folder on the way is closed, or the name is too long
        raise _unreadable(str(config), error) from error
    name = path.name.removesuffix(".toml")
    if path.parent in {Path(), Path("configs")} and name in shipped_configs():
        return shipped_folder().joinpath(f"{name}.toml"), f"configs/{name}.toml"
    known = shipped_configs()
    guess = f" Did you mean {nearest(path.stem, known)!r}?" if known else ""
    problem = "The config is a folder." if path.is_dir() else "No such config file, and none of that name is shipped."
    remedy = f"Give a .toml or .json file, or one of: {', '.join(known)}.{guess}"
    raise ConfigError(problem, where=config, remedy=remedy)


def read_config(config: str | Path, overruled: Collection[str] = ()) -> Layer:
    """Settings of one config file, checked one by one.

    Arguments:
        config: path of a TOML file of ours or a JSON file of the reference, or the name of a shipped config.
        overruled: settings that are given elsewhere; a dataset of the reference that we do not know is then no error.

    Raises `ConfigError` if it is missing, unreadable, not well formed (with line and column), or holds an unknown key
    or a value that the key cannot have.
    """
    source, label = find_config(config)
    return _read(source, label, f"file {label}", overruled)


def read_shipped(name: str) -> Layer:
    """Settings of the shipped config `name`, whatever files lie in the working folder."""
    label = f"configs/{name}.toml"
    return _read(shipped_folder().joinpath(f"{name}.toml"), label, f"shipped {label}")


def _read(source: Traversable, label: str, origin: str, overruled: Collection[str] = ()) -> Layer:
    decoder = _DECODERS.get(Path(source.name).suffix.lower())
    if decoder is None:
        raise ConfigError("A config file ends in .toml or .json.", where=label, remedy="Rename the file.")
    try:
        data = read_limited(source, Limit.CONFIG) if isinstance(source, Path) else source.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(label, error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The config is not text: byte {error.start} is not UTF-8.", where=label, remedy="Save it as UTF-8."
        ) from error
    values, ignored = decoder(text, label, overruled)
    return Layer(origin, values, ignored)


def _unreadable(label: str, error: OSError) -> ConfigError:
    return ConfigError(f"The config cannot be read: {error.strerror}.", where=label, remedy="Check its permissions.")


def _excessive(label: str) -> ConfigError:
    """The error for what is well formed, but what Python refuses to read: thousands of digits, deep nesting."""
    problem = "The config holds a number too long or lists too deep to read."
    return ConfigError(problem, where=label, remedy="Shorten it.")


def _decode_toml(text: str, label: str, overruled: Collection[str]) -> Decoded:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message ends in (at line L, column C)
        raise ConfigError(f"The config is not TOML: {error}.", where=label, remedy="Correct that line.") from error
    except (ValueError, RecursionError) as error:
        raise _excessive(label) from error
    values: dict[str, object] = {}
    for section, entries in raw.items():
        if section not in SECTIONS:
            raise _misplaced(section, label)
        if not isinstance(entries, dict):
            raise ConfigError(f"{section} is a section.", where=label, remedy=f"Write it as a line [{section}].")
        for key, value in cast(dict[str, object], entries).items():
            where = f"{label}, [{section}] {key}"
            if key in KEYS and section_of(key) != section:
                raise _misplaced(key, label)
            if key not in KEYS:
                raise unknown_key(key, KEYS, where)
            values[key] = check_value(key, value, where=where)
    return values, {}


def _misplaced(key: str, label: str) -> ConfigError:
    """The error for a key outside its section, or for a section that does not exist."""
    if key in KEYS:
        section = section_of(key)
        return ConfigError(f"{key} is not in its section.", where=label, remedy=f"Move it below a line [{section}].")
    known = tuple(SECTIONS)
    # A mistyped key outside all sections looks like a section here, so both kinds of names are offered.
    guess = nearest(key, (*known, *KEYS))
    remedy = f"Did you mean {guess!r}? Sections: {', '.join(known)}."
    return ConfigError(f"Unknown section or key {key!r}.", where=label, remedy=remedy)


def _decode_json(text: str, label: str, overruled: Collection[str]) -> Decoded:
    try:
        raw = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, label))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"The config is not JSON: {error.msg} (at line {error.lineno}, column {error.colno}).",
            where=label,
            remedy="Correct that line.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _excessive(label) from error
    if not isinstance(raw, dict):
        raise ConfigError("The config is not a JSON object.", where=label, remedy='Write it as { "key": value, ... }.')
    return reference.convert(raw, label, overruled)


def _unique(pairs: list[tuple[str, object]], label: str) -> dict[str, object]:
    """JSON lets a key stand twice and the last one wins; that is never meant."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"{twice} stands twice in the config.", where=label, remedy="Keep one of the two.")
    return result


_DECODERS: dict[str, Callable[[str, str, Collection[str]], Decoded]] = {".toml": _decode_toml, ".json": _decode_json}
