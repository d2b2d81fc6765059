"""The tables of `adaptation_study.py`: which variant is chosen, and how much better than the pool it is."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

SEEDS = (1993, 1994, 1995, 1996, 1997)
SHOTS = (1, 2, 5, 16)
CONDITIONS = (
    "all-rows",
    "domains",
    "few-rows",
    *(f"shots-{k}" for k in SHOTS),
    "random-weights",
    "adapted",
    "on-adapted",
)
REFERENCES = {"lda": "lda", "mean": "class means"}  # beside the pool: of its classifiers, and how they are called here
STUDENT = {3: 4.303, 4: 3.182, 5: 2.776}  # of 95 %, by the number of seeds


class Difference(NamedTuple):
    """accuracy: mean over seeds, percent. gap, half: mean difference to the pool, and half of its 95 % interval.

    best: whether it is better beyond the interval than each classifier in closed form.
    """

    accuracy: float
    gap: float
    half: float
    best: bool


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """All results of a folder by the name of their file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def chosen(results: dict[str, dict[str, Any]], stream: str) -> dict[str, str]:
    """The variant of each arm of a stream by held-out train rows: the key of its accuracies, by arm."""
    held = results[stream]["cells"].get("val") or results.get(stream.replace("shots-1--", "shots-2--"), {}).get(
        "cells", {}
    ).get("val", {})
    found: dict[str, str] = {}
    for key in next(iter(results[stream]["cells"].values())):
        arm = key.partition("|")[0]
        if arm not in found or held.get(key, -1.0) > held.get(found[arm], -1.0):
            found[arm] = key
    found.pop("seconds")
    return found


def gap(cells: list[dict[str, float]], key: str, reference: str) -> tuple[float, float]:
    """Mean over seeds of how much more accurate one arm is than another, and half of its 95 % interval (Student)."""
    gaps = [cell[key] - cell[reference] for cell in cells]
    return mean(gaps), STUDENT[len(gaps)] * stdev(gaps) / len(gaps) ** 0.5


def differences(results: dict[str, dict[str, Any]], stream: str) -> dict[str, Difference]:
    """What each arm of a stream reaches, and by how much more than the pool."""
    cells, found = [cell for name, cell in results[stream]["cells"].items() if name != "val"], {}
    forms = ("pool", *REFERENCES.values())
    for arm, key in chosen(results, stream).items():
        above = {form: gap(cells, key, form) for form in forms}
        beats = all(value > half for form, (value, half) in above.items() if form != arm)
        found[arm] = Difference(mean(cell[key] for cell in cells), *above["pool"], beats and arm not in forms)
    return found


def tables(results: dict[str, dict[str, Any]]) -> list[str]:
    """A table a condition, then which arms are better than the pool beyond their interval, and the searches."""
    lines, better = [], dict[str, list[tuple[str, str, bool]]]()
    for condition in CONDITIONS:
        streams = [name for name in results if name.startswith(f"{condition}--") and whole(results[name])]
        columns = {results[name]["store"]: differences(results, name) for name in streams}
        for store, column in columns.items():
            for arm, one in column.items():
                if one.gap > one.half and arm != "pool" and condition != "adapted":
                    better.setdefault(arm, []).append((condition, store, one.best))
        lines += [f"### {condition}", "", *table(columns), ""] if streams else []
    lines += ["### Better than the pool beyond the interval", "", "In bold: and than LDA and class means as well.", ""]
    lines += ["| arm | streams | stores | of them best | where |", "|---|---|---|---|---|"]
    for arm, where in sorted(better.items(), key=lambda item: -len(item[1])):
        said = ", ".join(f"**{c} {s}**" if best else f"{c} {s}" for c, s, best in where)
        best = len({store for _, store, is_best in where if is_best})
        lines.append(f"| {arm} | {len(where)} | {len({s for _, s, _ in where})} | {best} | {said} |")
    lines += ["", "### The searches", "", "| store | settings | held-out rows | chosen |", "|---|---|---|---|"]
    for name, one in results.items():
        if name.startswith("sweep--"):
            setting = ", ".join(f"{key} {value}" for key, value in one["setting"].items())
            lines.append(f"| {one['store']} | {one['settings']} | {one['held_out']:.2f} | {setting} |")
    return lines


def whole(result: dict[str, Any]) -> bool:
    """Whether a stream has all its seeds; of adapted backbones, of which each seed has its own, at least three."""
    done = [str(seed) in result.get("cells", {}) for seed in SEEDS]
    return sum(done) >= (3 if str(result.get("condition")).endswith("adapted") else len(SEEDS))


def table(columns: dict[str, dict[str, Difference]]) -> list[str]:
    """Accuracy of the pool, and of every arm the difference to it, bold where it is above 0 beyond its interval."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for arm in dict.fromkeys(arm for column in columns.values() for arm in column):
        cells = []
        for one in (column[arm] for column in columns.values()):
            said = f"{one.gap:+.2f} ± {one.half:.2f}"
            cells.append(f"{one.accuracy:.2f}" if arm == "pool" else f"**{said}**" if one.gap > one.half else said)
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines
