"""What a sweep found: its best settings and the effect of each parameter, from the cells of its ledger.

Everything here is a pure function of cells. A larger score is a better one. Cells that were scored in different ways, on
different stores or by different arithmetic say nothing about each other: `groups` parts them, and the analyses refuse
a mixture.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev
from typing import Any

from tosca_cache.config.schema import KEYS
from tosca_cache.sweep.ledger.rows import DIVERGED, DONE, LedgerCell
from tosca_cache.text import csv_text

MOST_VALUES = 8  # a number with more values than this (random search, TPE) is shown in ranges
RANGES = 4
ABSENT = "(absent)"


@dataclass(frozen=True)
class Group:
    """Cells that may be compared: same store, same way of selecting, same arithmetic; in the order of the ledger."""

    store: str
    select: dict[str, Any]
    arithmetic: int
    cells: tuple[LedgerCell, ...]


@dataclass(frozen=True)
class BestSetting:
    """One setting over its seeds.

    setting: the keys that vary within the group; a key that this setting does not have is left out.
    mean, spread: of the score; the spread is the sample standard deviation, NaN for one seed.
    seeds: of the scored cells, ascending.
    cells: addresses of the scored cells, in the order of the seeds.
    diverged: how many of its cells diverged, which the mean does not know of.
    """

    setting: dict[str, Any]
    mean: float
    spread: float
    seeds: tuple[int, ...]
    cells: tuple[str, ...]
    diverged: int


@dataclass(frozen=True)
class Level:
    """All cells with one value of a key, or with a value in one range.

    label: the value or the range, for people.
    low, high: the value twice, or the smallest and largest value found in the range.
    mean, spread, n: of the scores; NaN where there are none, the spread also for one.
    best: the best score with this value; NaN where there is none.
    diverged: how many of the cells diverged.
    """

    label: str
    low: Any
    high: Any
    mean: float
    spread: float
    n: int
    best: float
    diverged: int


@dataclass(frozen=True)
class Effect:
    """What one key does on its own, all other keys left to vary as they do.

    levels: ascending in the value.
    reach: largest mean of a level minus the smallest; NaN with fewer than two scored levels.
    """

    key: str
    levels: tuple[Level, ...]
    reach: float


def groups(cells: Iterable[LedgerCell]) -> list[Group]:
    """Parts cells by store, way of selecting and arithmetic; groups are in the order of their first cells."""
    parted: dict[str, list[LedgerCell]] = defaultdict(list)
    for cell in cells:
        parted[_text({key: cell.content[key] for key in ("store", "select", "arithmetic")})].append(cell)
    return [
        Group(
            members[0].content["store"], members[0].content["select"], members[0].content["arithmetic"], tuple(members)
        )
        for members in parted.values()
    ]


def varying_keys(cells: Sequence[LedgerCell]) -> list[str]:
    """Keys that do not have one and the same value in all cells, in the order of `tosca train --help`."""
    settings = [cell.content["setting"] for cell in cells]
    return [key for key in _keys(settings) if len({_text(setting.get(key, ABSENT)) for setting in settings}) > 1]


def best_settings(cells: Sequence[LedgerCell], score: str = "score") -> list[BestSetting]:
    """Every setting with at least one score, best mean first, but those of which a cell diverged after all others.

    Arguments:
        cells: of one group; raises `ValueError` otherwise.
        score: which number of a result to rank by.
    """
    _check_comparable(cells)
    keys = varying_keys(cells)
    parted: dict[str, list[LedgerCell]] = defaultdict(list)
    for cell in cells:
        parted[_text(cell.content["setting"])].append(cell)
    ranked = []
    for text, members in parted.items():
        scored = sorted(
            (cell.content["seed"], cell.address, value)
            for cell in members
            if (value := score_of(cell, score)) is not None
        )
        if scored:
            mean, spread = _mean_and_spread([value for _, _, value in scored])
            setting = {key: value for key, value in members[0].content["setting"].items() if key in keys}
            ordered = {key: setting[key] for key in keys if key in setting}
            seeds, addresses = tuple(seed for seed, _, _ in scored), tuple(address for _, address, _ in scored)
            best = BestSetting(ordered, mean, spread, seeds, addresses, _diverged(members))
            ranked.append((best.diverged > 0, -mean, text, best))
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:3])]


def main_effects(cells: Sequence[LedgerCell], score: str = "score") -> list[Effect]:
    """The effect of every key with at least two values among scored and diverged cells, furthest reach first.

    Arguments:
        cells: of one group; raises `ValueError` otherwise.
        score: which number of a result to average.
    """
    _check_comparable(cells)
    ended = [cell for cell in cells if cell.state == DIVERGED or score_of(cell, score) is not None]
    effects = []
    for key in varying_keys(ended):
        levels = tuple(
            _level(part, key, score) for part in _parts([c for c in ended if key in c.content["setting"]], key)
        )
        if len(levels) > 1:
            means = [level.mean for level in levels if level.n]
            effects.append(Effect(key, levels, max(means) - min(means) if len(means) > 1 else math.nan))
    return sorted(effects, key=lambda effect: (-effect.reach if math.isfinite(effect.reach) else math.inf, effect.key))


def to_csv(cells: Sequence[LedgerCell]) -> str:
    """One row a cell, cells of all groups: what it is, its whole setting, its metrics, why it has none.

    Columns: address, state, seed, store, select, arithmetic; every key of a setting; every metric (the score first, R and
    seconds left to `to_json`); attempts, reason. What a cell does not have is empty; lists are JSON.
    """
    keys = _keys(cell.content["setting"] for cell in cells)
    plain = {
        name for cell in cells for name, value in (cell.result or {}).items() if not isinstance(value, dict | list)
    }
    metrics = sorted(plain, key=lambda name: (name != "score", name))
    parts = ("seed", "store", "select", "arithmetic")
    rows: list[list[object]] = [["address", "state", *parts, *keys, *metrics, "attempts", "reason"]]
    for cell in cells:
        setting, result = cell.content["setting"], cell.result or {}
        values = [
            *(cell.content[part] for part in parts),
            *(setting.get(key) for key in keys),
            *(result.get(name) for name in metrics),
        ]
        rows.append([cell.address, cell.state, *map(_field, values), cell.attempts, cell.reason])
    return csv_text(rows)


def to_json(cells: Sequence[LedgerCell]) -> str:
    """All that the ledger knows of these cells, as a JSON list with a line for each; what is not defined is null."""
    rows = ({part.name: getattr(cell, part.name) for part in fields(cell)} for cell in cells)
    lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]"


def score_of(cell: LedgerCell, score: str = "score") -> float | None:
    """A number of a cell's result; None if the cell is not done or the number is not defined."""
    value = cell.result.get(score) if cell.state == DONE and cell.result is not None else None
    return float(value) if isinstance(value, int | float) else None


def _check_comparable(cells: Sequence[LedgerCell]) -> None:
    if len(groups(cells)) > 1:
        raise ValueError("cells of several stores, ways of selecting or versions of the arithmetic; see groups()")


def _keys(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys of these settings, in the order of `tosca train --help`; unknown ones of other versions come last."""
    found = {key for setting in settings for key in setting}
    return [key for key in KEYS if key in found] + sorted(found.difference(KEYS))


def _parts(cells: Sequence[LedgerCell], key: str) -> list[list[LedgerCell]]:
    """Cells with equal values of a key together, ascending; many different numbers are joined to ranges of equal size."""
    values = [cell.content["setting"][key] for cell in cells]
    numbers = sorted(value for value in values if _is_number(value))
    ranges = RANGES if len(set(numbers)) > MOST_VALUES else 0
    # The last value of each range but the last one: equal values are never parted.
    ends = [numbers[math.ceil(len(numbers) * part / ranges) - 1] for part in range(1, ranges)]
    parted: dict[tuple[bool, float, str], list[LedgerCell]] = defaultdict(list)
    for cell, value in zip(cells, values, strict=True):
        if not _is_number(value):
            parted[True, 0.0, _text(value)].append(cell)
        else:
            parted[False, bisect_left(ends, value) if ranges else value, ""].append(cell)
    return [parted[place] for place in sorted(parted)]


def _level(cells: Sequence[LedgerCell], key: str, score: str) -> Level:
    """The level made of these cells, whose values of `key` are equal, or numbers of one range."""
    values = [cell.content["setting"][key] for cell in cells]
    low, high = (min(values), max(values)) if _is_number(values[0]) else (values[0], values[0])
    scores = [value for cell in cells if (value := score_of(cell, score)) is not None]
    label = _label(low) if low == high else f"{low:.3g} … {high:.3g}"
    best = max(scores, default=math.nan)
    return Level(label, low, high, *_mean_and_spread(scores), len(scores), best, _diverged(cells))


def _label(value: object) -> str:
    if _is_number(value):
        return f"{value:g}"
    return value if isinstance(value, str) else _text(value)


def _field(value: object) -> object:
    return value if value is None or isinstance(value, str) else _text(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean_and_spread(scores: Sequence[float]) -> tuple[float, float]:
    return fmean(scores) if scores else math.nan, stdev(scores) if len(scores) > 1 else math.nan


def _diverged(cells: Iterable[LedgerCell]) -> int:
    return sum(cell.state == DIVERGED for cell in cells)


def _text(value: object) -> str:
    """Equal values, and only they, have equal texts."""
    return json.dumps(value, sort_keys=True)
