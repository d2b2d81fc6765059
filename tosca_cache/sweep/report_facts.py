"""What a report says of a ledger, as plain JSON values: settings with their scores, effects, the choice, what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tosca_cache.evaluate.summary import to_json
from tosca_cache.files import Limit
from tosca_cache.runs.directory import read_json
from tosca_cache.runs.report_facts import command_text, store_warnings
from tosca_cache.sweep.effects import (
    LEAST_SETTINGS,
    Group,
    best_settings,
    groups,
    main_effects,
    scored_on,
    varying_keys,
)
from tosca_cache.sweep.ledger import DIVERGED, FAILED, Ledger
from tosca_cache.sweep.run import best_path, report_path


def is_comparison(path: Path) -> bool:
    """Whether a ledger is one of `tosca compare`."""
    with Ledger.open(path, read_only=True) as book:
        cells = book.cells()
    return any("method" in cell.content["setting"] for cell in cells)


def sweep_facts(path: Path, metric: str | None = None, made: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a ledger holds.

    Arguments:
        metric: what settings are ranked by, that of the report if None.
        made: where the numbers come from (`runs.directory.origin`), while there is no report that says it.

    Raises `RunError` if there is no such ledger, or if it is damaged.
    """
    with Ledger.open(path, read_only=True) as book:
        cells = book.cells()
    report = read_json(report_path(path), Limit.METRICS) or None
    metric = metric or (report or {}).get("metric") or "last_accuracy"
    parted = groups(cells)
    base = dict(cells[0].content["setting"]) if cells else {}
    varying = set(varying_keys(cells))
    made = (report or {}).get("made") or made or {}
    facts = {
        "kind": "sweep",
        "name": path.name,
        "path": str(path),
        "best_path": str(best_path(path)),
        "dataset": path.stem.removesuffix("-sweep"),
        "metric": metric,
        "cells": len(cells),
        "stores": list(dict.fromkeys(group.store[:16] for group in parted)),
        "made": made,
        "command": command_text(made.get("command")),
        "warnings": store_warnings(made),
        "leaks": any(cell.content["setting"].get("router") == "batch" for cell in cells),
        "report": report,
        "base": {key: value for key, value in base.items() if key not in varying},
        "groups": [_group(group, n, metric, report or {}) for n, group in enumerate(parted)],
        "lost": [
            {"state": cell.state, "seed": cell.content["seed"], "reason": cell.reason or ""}
            | {"point": {key: value for key, value in cell.content["setting"].items() if key in varying}}
            for cell in cells
            if cell.state in (DIVERGED, FAILED)
        ],
    }
    return to_json(facts)


def _group(group: Group, number: int, metric: str, report: Mapping[str, Any]) -> dict[str, Any]:
    states, select = [cell.state for cell in group.cells], group.select
    settings = best_settings(group.cells, metric)
    effects = main_effects(group.cells, metric) if len(settings) >= LEAST_SETTINGS else []
    return {
        "report": select["rows"] in ("test", "half-2") and bool(report) and "test rows" not in report.get("how", ""),
        "how": scored_on(select),
        "store": group.store,
        "keys": varying_keys(group.cells),
        "counted": ", ".join(f"{states.count(state)} cells {state}" for state in dict.fromkeys(states)),
        "settings": [s._asdict() | {"mark": f"g{number}-s{n}"} for n, s in enumerate(settings)],
        "effects": [e._asdict() | {"levels": [level._asdict() for level in e.levels]} for e in effects],
    }
