"""Reading config files: ours in TOML, the reference's in JSON, by path or by the name of one that is shipped."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from tosca_cache.config import reference
from tosca_cache.config.checks import nearest
from tosca_cache.config.schema import KEYS, check_value, unknown_key
from tosca_cache.errors import ConfigError
from tosca_cache.files import Limit, read_limited, strict_json


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
    if path.is_file():
        return path, str(config)
    name, known = path.name.removesuffix(".toml"), shipped_configs()
    if path.parent in {Path(), Path("configs")} and name in known:
        return shipped_folder().joinpath(f"{name}.toml"), f"configs/{name}.toml"
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
    kind = Path(source.name).suffix.lower().removeprefix(".")
    if kind not in ("toml", "json"):
        raise ConfigError("A config file ends in .toml or .json.", where=label, remedy="Rename the file.")
    try:
        data = read_limited(source, Limit.CONFIG) if isinstance(source, Path) else source.read_bytes()
        text = data.decode("utf-8-sig")
        raw = tomllib.loads(text) if kind == "toml" else strict_json(text)
    except OSError as error:
        problem, remedy = f"The config cannot be read: {error.strerror}.", "Check its permissions."
        raise ConfigError(problem, where=label, remedy=remedy) from error
    except (ValueError, RecursionError) as error:  # all say where, but of what is too long or too deep to be read
        raise ConfigError(f"The config is not {kind.upper()}: {error}.", where=label, remedy="Correct it.") from error
    if not isinstance(raw, dict):
        raise ConfigError("The config is not a JSON object.", where=label, remedy='Write it as { "key": value, ... }.')
    if kind == "json":
        return Layer(origin, *reference.convert(raw, label, overruled))
    values: dict[str, object] = {}
    for section, entries in raw.items():  # a section is a heading: what a key means does not depend on it
        for key, value in (entries if isinstance(entries, dict) else {section: entries}).items():
            where = f"{label}, {key}"
            if key not in KEYS:
                raise unknown_key(key, KEYS, where)
            if key in values:
                raise ConfigError(f"{key} stands twice.", where=where, remedy="Keep one of the two.")
            values[key] = check_value(key, value, where=where)
    return Layer(origin, values)
