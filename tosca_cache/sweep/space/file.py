"""Search spaces in TOML files.

[space]
lr = "log:0.005:0.1:5"              # a range, written as on the command line
flow = ["tosca", "adapter"]         # a list of values
optimizer = ["sgd", "adam"]

[space.momentum]                    # the same with a condition
values = [0.8, 0.9]                 # or range = "lin:0.8:0.99:3"
when = { optimizer = "sgd" }        # a value or a list of them; several keys must hold together

[space.milestones]                  # the key takes a list, so that its values are lists
values = [[10, 15], [5, 10]]
when = { scheduler = ["steplr"] }
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import cast

from tosca_cache.config.checks import Integers, nearest
from tosca_cache.errors import ConfigError
from tosca_cache.files import Limit, file_errors, read_limited
from tosca_cache.sweep.space.axis import Axis, Condition, check_key, condition, inner_check, values_axis
from tosca_cache.sweep.space.text import range_axis

_FORMS = ("values", "range", "when")
_HOW = "Write a list of values, a range in quotes, or a table with values or range (and when)."


def read_axes(path: Path) -> tuple[Axis, ...]:
    """The axes of a space file, in its order.

    Raises `ConfigError` naming file and place if it is missing, unreadable, not TOML, or holds anything else than axes.
    """
    document = _load(path)
    for name in document:
        if name != "space":
            problem = f"A space file holds [space] alone, not {name!r}."
            remedy = f"Write axes below [space], for instance [space.{name}]; settings belong in a --config file."
            raise ConfigError(problem, where=path, remedy=remedy)
    entries = document.get("space")
    if not isinstance(entries, dict) or not entries:
        problem = "The file describes no search space."
        raise ConfigError(problem, where=path, remedy="Give axes below a line [space], for instance lr = [0.01, 0.02].")
    return tuple(_axis(key, entry, f"{path}, [space] {key}") for key, entry in entries.items())


def _load(path: Path) -> dict[str, object]:
    with file_errors(path, ConfigError, option="--space"):
        content = read_limited(path, Limit.CONFIG)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problem = f"The file is not text: byte {error.start} is not UTF-8."
        raise ConfigError(problem, where=path, remedy="Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:  # its message ends in (at line L, column C)
        raise ConfigError(f"The file is not TOML: {error}.", where=path, remedy="Correct that line.") from error
    except (ValueError, RecursionError) as error:
        problem = "The file holds a number too long or lists too deep to read."
        raise ConfigError(problem, where=path, remedy="Shorten it.") from error


def _axis(key: str, entry: object, where: str) -> Axis:
    check_key(key, where)
    if not isinstance(entry, dict):
        return _domain(key, entry, where, ())
    table = cast(dict[str, object], entry)
    for form in table:
        if form not in _FORMS:
            problem = f"Unknown entry {form!r}."
            raise ConfigError(problem, where=where, remedy=f"Did you mean {nearest(form, _FORMS)!r}? {_HOW}")
    given = [form for form in ("values", "range") if form in table]
    if len(given) != 1:
        problem = f"{key} has {'both values and a range' if given else 'neither values nor a range'}."
        raise ConfigError(problem, where=where, remedy="Give one of the two.")
    domain = table[given[0]]
    if isinstance(domain, str) != (given == ["range"]):
        remedy = 'Write a list of values, values = [...], or a range in quotes, range = "log:LOW:HIGH:COUNT".'
        raise ConfigError(f"{given[0]} cannot be {domain!r}.", where=where, remedy=remedy)
    return _domain(key, domain, where, _conditions(table.get("when", {}), where))


def _domain(key: str, entry: object, where: str, when: tuple[Condition, ...]) -> Axis:
    """The axis of a list of values or of a range in text."""
    if isinstance(entry, str):
        return range_axis(key, entry, where, when)
    if not isinstance(entry, list):
        raise ConfigError(f"{key} cannot be {entry!r} here.", where=where, remedy=_HOW)
    takes_lists = isinstance(inner_check(check_key(key, where)), Integers)
    if takes_lists and not all(isinstance(value, list) for value in entry):
        problem = f"Each value of {key} is a list."
        raise ConfigError(problem, where=where, remedy=f"Write a list of lists: [{entry!r}].")
    return values_axis(key, entry, where, when)


def _conditions(entry: object, where: str) -> tuple[Condition, ...]:
    if not isinstance(entry, dict):
        problem = f"when cannot be {entry!r}."
        raise ConfigError(problem, where=where, remedy='Write it as when = { optimizer = "sgd" }.')
    items = cast(dict[str, object], entry).items()
    return tuple(
        condition(key, value if isinstance(value, list) else [value], f"{where}, when") for key, value in items
    )
