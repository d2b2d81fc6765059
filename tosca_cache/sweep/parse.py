"""Search spaces as they are written: on the command line, in a TOML file, in Python.

    value,value,...         true and false for switches; a+b+c for a key that takes a list, none for the empty list
    log:LOW:HIGH:COUNT      COUNT numbers from LOW to HIGH, neighbours in equal ratio; lin: at equal distance
    log:LOW:HIGH            any number between, for the samplers random and tpe; likewise lin:LOW:HIGH
    int:LOW:HIGH[:STEP]     whole numbers from LOW to at most HIGH

LOW and HIGH are taken as written; what lies between is rounded to 6 significant digits. `KEY=VALUES@KEY=value,value@...`
adds conditions, all of which must hold, for instance `momentum=0.8,0.9@optimizer=sgd`. In a TOML file:

    [space]
    lr = "log:0.005:0.1:5"              # a range
    flow = ["tosca", "adapter"]         # a list of values
    [space.momentum]                    # the same with a condition
    values = [0.8, 0.9]                 # or range = "lin:0.8:0.99:3"
    when = { optimizer = "sgd" }        # a value or a list of them; several keys must hold together
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from tosca_cache.config.checks import INTEGERS, Kind, expected, is_kind, none_word
from tosca_cache.config.schema import KEYS, check_value, kind_of, unknown_key
from tosca_cache.errors import ConfigError
from tosca_cache.files import Limit, file_errors, read_limited
from tosca_cache.sweep.space import Axis, Space, rounded

OPTION = "--set"
MOST_VALUES = 10_000  # a longer axis is a slip of the keyboard
_FLAGS = {"true": True, "false": False}
_HOW = "Write a list of values, a range in quotes, or a table with values or range (and when)."

_STORE = ("It chooses the store, and a sweep runs on one store.", "Run one sweep for each store.")
_TASKS = ("It says what a task is, and scores of different tasks cannot be compared.", "Give it with --{}.")
_SEEDS = ("Seeds are not searched: every setting runs with the same ones.", "Give them with --seeds 1993,1994,1995.")
_WHERE = ("It says where or how a sweep computes, not what.", "Give it with --{}.")
NOT_SWEPT: dict[str, tuple[str, str]] = {  # key: why it is no axis, and what to do instead
    **dict.fromkeys(("dataset", "backbone", "normalize", "img_size", "views"), _STORE),
    **dict.fromkeys(("incremental", "task_sizes", "class_order", "shots"), _TASKS),
    **dict.fromkeys(("seeds", "seed"), _SEEDS),  # seed: the name that `tosca train --seed` has taught
    **dict.fromkeys(("device", "engine"), _WHERE),
}


def parse_set(assignments: Sequence[str]) -> Space:
    """The space of `--set KEY=VALUES[@KEY=value,...]`. Raises `ConfigError`."""
    return Space(tuple(_assigned_axis(assignment) for assignment in assignments))


def make_space(axes: Mapping[str, Sequence[Any] | str] | Sequence[str]) -> Space:
    """The space of {key: values or a range's text}, or of texts as for `parse_set`. Raises `ConfigError`."""
    if not isinstance(axes, Mapping):
        return parse_set(axes)
    return Space(
        tuple(
            _text_axis(key, values, key) if isinstance(values, str) else _listed_axis(key, values, key)
            for key, values in axes.items()
        )
    )


def read_space(path: Path) -> Space:
    """The space of a TOML file. Raises `ConfigError` that names file and place."""
    with file_errors(path, ConfigError, option="--space"):
        content = read_limited(path, Limit.CONFIG)
    try:
        document = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML (says at which line), lists too deep
        raise ConfigError(f"The file is not TOML: {error}.", where=path, remedy="Correct it.") from error
    entries = document.get("space")
    if document.keys() != {"space"} or not isinstance(entries, dict) or not entries:
        problem = f"The file does not hold axes below [space] alone, but {', '.join(map(repr, document)) or 'nothing'}."
        remedy = (
            "Write for instance a line [space], and below it lr = [0.01, 0.02]; settings belong in a --config file."
        )
        raise ConfigError(problem, where=path, remedy=remedy)
    return Space(tuple(_file_axis(key, entry, f"{path}, [space] {key}") for key, entry in entries.items()))


def _assigned_axis(assignment: str) -> Axis:
    """The axis of `KEY=VALUES[@KEY=value,...]...`."""
    target, *conditions = assignment.split("@")
    key, text = _split(target, assignment, OPTION)
    where, when = f"{OPTION} {key}", dict[str, tuple[Any, ...]]()
    for item in conditions:
        asked, values = _split(item, assignment, where)
        if asked in when:
            problem = f"The condition on {asked} stands twice."
            raise ConfigError(problem, where=where, remedy=f"Join them: @{asked}=VALUE,VALUE.")
        when |= _condition(asked, _text_values(asked, values, where), where)
    return replace(_text_axis(key, text, where), when=when)


def _split(item: str, assignment: str, where: str) -> tuple[str, str]:
    """Key and text of `KEY=TEXT`."""
    key, _, text = (part.strip() for part in item.partition("="))
    if not key or not text:
        raise ConfigError(
            f"{assignment!r} does not say which key takes which values.",
            where=where,
            remedy="Write KEY=VALUES, for instance lr=0.01,0.02 or momentum=0.8,0.9@optimizer=sgd.",
        )
    return key, text


def _file_axis(key: str, entry: Any, where: str) -> Axis:
    """The axis of an entry of a file: a list, a range, or a table with one of them."""
    kind = _check_key(key, where)
    table = entry if isinstance(entry, dict) else {"range" if isinstance(entry, str) else "values": entry}
    when, unknown = table.get("when", {}), table.keys() - {"values", "range", "when"}
    if unknown or ("values" in table) == ("range" in table) or not isinstance(when, dict):
        raise ConfigError(f"{key} cannot be described by {', '.join(map(repr, table))}.", where=where, remedy=_HOW)
    conditions = dict[str, tuple[Any, ...]]()
    for asked, values in when.items():
        conditions |= _condition(asked, values if isinstance(values, list) else [values], f"{where}, when")
    values, text = table.get("values"), table.get("range")
    if is_kind(kind, INTEGERS) and not (isinstance(values, list) and all(isinstance(v, list) for v in values)):
        raise ConfigError(f"Each value of {key} is a list.", where=where, remedy="Write a list of lists.")
    if isinstance(text, str):
        return replace(_range_axis(key, text, where), when=conditions)
    if not isinstance(values, list):
        raise ConfigError(f"{key} cannot be {table!r} here.", where=where, remedy=_HOW)
    return replace(_listed_axis(key, values, where), when=conditions)


def _check_key(key: str, where: str) -> Kind:
    """What an axis takes; raises `ConfigError` if there is no such key or it cannot be swept."""
    if key in NOT_SWEPT:
        reason, remedy = NOT_SWEPT[key]
        raise ConfigError(f"{key} cannot be swept. {reason}", where=where, remedy=remedy.format(key.replace("_", "-")))
    if key not in KEYS:
        raise unknown_key(key, tuple(known for known in KEYS if known not in NOT_SWEPT), where)
    return kind_of(key)


def _condition(key: str, values: Iterable[object], where: str) -> dict[str, tuple[Any, ...]]:
    """The condition that `key` has one of `values`."""
    if key not in KEYS:
        raise unknown_key(key, KEYS, where)
    checked = tuple(check_value(key, value, where=where) for value in values)
    if not checked:
        raise ConfigError(f"The condition on {key} has no values.", where=where, remedy="Give one or more.")
    return {key: checked}


def _listed_axis(key: str, values: Iterable[object], where: str, range: BaseDistribution | None = None) -> Axis:
    """An axis of listed values, each in the type of its key; equal ones count once."""
    _check_key(key, where)
    checked = tuple(dict.fromkeys(check_value(key, value, where=where) for value in values))
    if not checked:
        raise ConfigError(f"{key} has no values.", where=where, remedy="Give one or more.")
    _check_count(key, len(checked), where)
    return Axis(key, checked, range, where=where)


def _check_count(key: str, count: int, where: str) -> None:
    if count > MOST_VALUES:
        remedy = "Give fewer, or a larger step; a range without a count is drawn from by random and tpe."
        raise ConfigError(
            f"{key} would have {count} values; at most {MOST_VALUES} are taken.", where=where, remedy=remedy
        )


def _text_axis(key: str, text: str, where: str) -> Axis:
    """The axis that `text` describes: a range, or values."""
    if is_kind(_check_key(key, where), int, float) and ":" in text:
        return _range_axis(key, text, where)
    return _listed_axis(key, _text_values(key, text, where), where)


def _text_values(key: str, text: str, where: str) -> list[object]:
    """Comma-separated values of `key` in their own types, not yet checked against its limits."""
    parts = [part.strip() for part in text.split(",")]
    if parts != [""] and "" in parts:
        raise ConfigError(f"{key} has an empty value.", where=where, remedy="Leave out the comma too many.")
    kind = kind_of(key) if key in KEYS else bool  # an unknown key is refused by who takes the values
    return [_from_text(kind, part) for part in parts if part]


def _from_text(kind: Kind, text: str) -> object:
    """The value that a text stands for; the text itself where it stands for none, so that it is refused."""
    if text == none_word(kind):
        return None
    if is_kind(kind, bool):
        return _FLAGS.get(text, text)
    if is_kind(kind, INTEGERS):
        return () if text == "none" else text.replace("+", ",")
    try:
        return int(text) if is_kind(kind, int) else float(text) if is_kind(kind, float) else text
    except ValueError:
        return text


def _range_axis(key: str, text: str, where: str) -> Axis:
    """The axis of a range `KIND:LOW:HIGH[:COUNT or STEP]`."""
    kind_of_key = _check_key(key, where)
    whole = is_kind(kind_of_key, int)
    if not whole and not is_kind(kind_of_key, float):
        problem = f"{key} takes no range."
        raise ConfigError(problem, where=where, remedy=f"List its values: give {expected(kind_of_key)}.")
    form = "int:LOW:HIGH[:STEP]" if whole else "log:LOW:HIGH[:COUNT] or lin:LOW:HIGH[:COUNT]"
    kind, *parts = (part.strip() for part in text.split(":"))
    last = _from_text(int, parts[2]) if len(parts) == 3 else None
    least = 1 if whole else 2  # a step; a count
    right = kind in (("int",) if whole else ("log", "lin")) and len(parts) in (2, 3)
    if not right or not (last is None or (isinstance(last, int) and last >= least)):
        problem = f"{text!r} is no range that {key} takes."
        raise ConfigError(problem, where=where, remedy=f"Write {form}, the last a whole number of at least {least}.")
    low, high = (check_value(key, _from_text(kind_of_key, part), where=where) for part in parts[:2])
    assert isinstance(low, int | float) and isinstance(high, int | float)  # they have been checked as numbers
    if low >= high or (kind == "log" and low == 0):
        remedy = "Give the lower end first; a logarithmic range begins above 0."
        raise ConfigError(f"The range {text!r} is empty.", where=where, remedy=remedy)
    if isinstance(low, int) and isinstance(high, int):
        numbers = range(low, high + 1, last if isinstance(last, int) else 1)
        _check_count(key, len(numbers), where)
        return _listed_axis(key, numbers, where, IntDistribution(low, numbers[-1], step=numbers.step))
    if not isinstance(last, int):
        return Axis(key, None, FloatDistribution(low, high, log=kind == "log"), where=where)
    _check_count(key, last, where)
    between = (np.geomspace if kind == "log" else np.linspace)(low, high, last)[1:-1]
    return _listed_axis(key, (low, *(rounded(number) for number in between), high), where)
