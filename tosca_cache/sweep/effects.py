"""What a sweep found: its best settings and the effect of each parameter, from the cells of its ledger.

Everything here is a pure function of cells. A larger score is a better one. Cells that were scored in different ways, on
different stores or by different arithmetic say nothing about each other: `groups` parts them.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tosca_cache.config.schema import KEYS
from tosca_cache.sweep.cells import mean_spread
from tosca_cache.sweep.ledger import DIVERGED, DONE, LedgerCell

MOST_VALUES = 8  # a number with more values than this (random search, TPE) is shown in ranges
RANGES = 4
LEAST_SETTINGS = 4  # effects of a parameter mean nothing where one or two settings differ in everything


@dataclass(frozen=True)
class Group:
    """Cells that may be compared: same store, same way of selecting, same arithmetic; in the order of the ledger."""

    store: str
    select: dict[str, Any]
    cells: tuple[LedgerCell, ...]


class BestSetting(NamedTuple):
    """One setting over its seeds: the keys that vary within the group, and its score; spread is NaN for one seed.

    seconds, sparsity: of training, of its modules; on average, NaN where not known. diverged: whether one of its cells did.
    """

    point: dict[str, Any]
    mean: float
    spread: float
    seeds: int
    seconds: float
    sparsity: float
    diverged: bool


class Level(NamedTuple):
    """All scored cells with one value of a key, or with a value in one range; label: that, for people."""

    label: str
    mean: float
    spread: float
    n: int
    best: float


class Effect(NamedTuple):
    """What one key does on its own; levels ascend in the value. reach: largest mean of a level minus the smallest."""

    key: str
    levels: list[Level]
    reach: float


def groups(cells: Iterable[LedgerCell]) -> list[Group]:
    """Parts cells by store, way of selecting and arithmetic; groups are in the order of their first cells."""
    names = ("store", "select", "arithmetic")
    parted = _parted(cells, lambda cell: _text([cell.content[name] for name in names]))
    return [Group(found[0].content["store"], found[0].content["select"], tuple(found)) for found in parted]


def varying_keys(cells: Sequence[LedgerCell]) -> list[str]:
    """Keys that do not have one and the same value in all cells, in the order of `tosca train --help`."""
    settings = [cell.content["setting"] for cell in cells]
    return [key for key in _keys(settings) if len({_text([s[key]] if key in s else []) for s in settings}) > 1]


def best_settings(cells: Sequence[LedgerCell], score: str) -> list[BestSetting]:
    """Every scored setting of a group, best mean first, but those of which a cell diverged after all others.

    Arguments:
        score: which number of a result to rank by.
    """
    keys, found = varying_keys(cells), []
    for members in _parted(cells, lambda cell: _text(cell.content["setting"])):
        scores = _numbers(members, score)
        if scores:
            whole = members[0].content["setting"]
            point = {key: whole[key] for key in keys if key in whole}
            seconds, sparsity = (mean_spread(_numbers(members, *of))[0] for of in (("seconds", "train"), ("sparsity",)))
            diverged = any(cell.state == DIVERGED for cell in members)
            found.append(BestSetting(point, *mean_spread(scores), len(scores), seconds, sparsity, diverged))
    return sorted(found, key=lambda best: (best.diverged, -best.mean, _text(best.point)))


def main_effects(cells: Sequence[LedgerCell], score: str) -> list[Effect]:
    """The effect of every key of a group with at least two values among scored cells, furthest reach first.

    Arguments:
        score: which number of a result to average.
    """
    scored = [cell for cell in cells if _numbers([cell], score)]
    effects = []
    for key in varying_keys(scored):
        having = [cell for cell in scored if key in cell.content["setting"]]
        levels = [_level(part, key, score) for part in _by_value(having, key)]
        if len(levels) > 1:
            means = [level.mean for level in levels]
            effects.append(Effect(key, levels, max(means) - min(means)))
    return sorted(effects, key=lambda effect: (-effect.reach, effect.key))


def cell_table(cells: Sequence[LedgerCell]) -> tuple[list[str], list[dict[str, Any]]]:
    """One row a cell, cells of all groups: names of the columns, and a row a cell; what a cell does not have is None.

    Columns: address, state, seed, store, select, arithmetic; every key of a setting; every metric but R and seconds;
    attempts, reason.
    """
    keys = _keys(cell.content["setting"] for cell in cells)
    results = [cell.result or {} for cell in cells]
    metrics = sorted({name for found in results for name in found if not isinstance(found[name], dict | list)})
    parts = ("seed", "store", "select", "arithmetic")
    rows = [
        {"address": cell.address, "state": cell.state}
        | {part: cell.content[part] for part in parts}
        | {key: cell.content["setting"].get(key) for key in keys}
        | {name: result.get(name) for name in metrics}
        | {"attempts": cell.attempts, "reason": cell.reason}
        for cell, result in zip(cells, results, strict=True)
    ]
    return list(dict.fromkeys(["address", "state", *parts, *keys, *metrics, "attempts", "reason"])), rows


def scored_on(select: Mapping[str, Any]) -> str:
    """Which rows the cells of a group were scored on, in words."""
    held_out = f"{select.get('fraction', 0):.0%} of the train rows, held out"
    tasks = "each domain a task, " if select.get("incremental") == "domains" else ""
    tasks += "after the last task, " if select.get("evaluated") == "last" else ""
    rows = {
        "val": held_out,
        "first-task": f"the first task alone, {held_out}",
        "half-1": "the test rows of the first half of the classes",
        "half-2": "the test rows of the second half of the classes: a report",
        "test": "test rows: a report, or an oracle's search",
    }
    return f"{tasks}scored on {rows[select['rows']]}"


def _numbers(cells: Iterable[LedgerCell], *names: str) -> list[float]:
    """A number of the result of each cell that is done, where it is defined; several names lead to one within another."""
    found = []
    for cell in cells:
        value: Any = cell.result if cell.state == DONE else None
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return found


def _keys(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys of these settings, in the order of `tosca train --help`; unknown ones of other versions come last."""
    found = {key for setting in settings for key in setting}
    return [key for key in KEYS if key in found] + sorted(found.difference(KEYS))


def _parted(cells: Iterable[LedgerCell], by: Callable[[LedgerCell], Hashable]) -> list[list[LedgerCell]]:
    """Cells with equal keys together, in the order of their first ones."""
    parted: dict[Hashable, list[LedgerCell]] = defaultdict(list)
    for cell in cells:
        parted[by(cell)].append(cell)
    return list(parted.values())


def _by_value(cells: Sequence[LedgerCell], key: str) -> list[list[LedgerCell]]:
    """Cells with equal values of a key together, ascending; many different numbers are joined to ranges of equal size."""

    def place(cell: LedgerCell) -> tuple[bool, float, str]:
        value = cell.content["setting"][key]
        if not _is_number(value):
            return True, 0.0, _text(value)
        return False, bisect_left(ends, value) if ranges else value, ""

    numbers = sorted(value for cell in cells if _is_number(value := cell.content["setting"][key]))
    ranges = RANGES if len(set(numbers)) > MOST_VALUES else 0
    # The last value of each range but the last one: equal values are never parted.
    ends = [numbers[math.ceil(len(numbers) * part / ranges) - 1] for part in range(1, ranges)]
    return _parted(sorted(cells, key=place), place)


def _level(cells: Sequence[LedgerCell], key: str, score: str) -> Level:
    """The level made of these cells, whose values of `key` are equal, or numbers of one range."""
    values = [cell.content["setting"][key] for cell in cells]
    scores = _numbers(cells, score)
    if not _is_number(values[0]):
        label = values[0] if isinstance(values[0], str) else _text(values[0])
    else:
        low, high = min(values), max(values)
        label = f"{low:g}" if low == high else f"{low:.3g} … {high:.3g}"
    return Level(label, *mean_spread(scores), len(scores), max(scores))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    """Equal values, and only they, have equal texts."""
    return json.dumps(value, sort_keys=True)
