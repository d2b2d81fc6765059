"""Tables of a sweep for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from tosca_cache.report.tables import METRICS, table, with_spread


def point_words(point: Mapping[str, Any]) -> str:
    """The values of a point."""
    return ", ".join(f"{key} {plain(value)}" for key, value in point.items()) or "the base setting"


def plain(value: Any) -> str:
    """A value of a setting in words."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def top_table(rows: Iterable[tuple[Mapping[str, Any], float, float, int]], *, metric: str, how: str) -> Table:
    """Best settings: (point, mean, spread, seeds)."""
    title = f"best settings by {metric.replace('_', ' ')}, {how}"
    shown = [[point_words(point), with_spread(mean, spread), str(seeds)] for point, mean, spread, seeds in rows]
    return table(title, ["setting", "percent", "seeds"], shown)


def final_table(
    finals: Sequence[tuple[str, Mapping[str, tuple[float, float]], int, int]], seeds: Sequence[int], how: str
) -> Table:
    """Fresh runs on all train rows: (name, {metric: (mean, spread)}, seeds done, seeds lost)."""
    columns = ["percent", *(f"{name} ({lost} seeds lost)" if lost else name for name, _, _, lost in finals)]
    shown = {key: title for key, title in METRICS.items() if all(key in metrics for _, metrics, _, _ in finals)}
    rows = [[title, *(with_spread(*metrics[key]) for _, metrics, _, _ in finals)] for key, title in shown.items()]
    return table(f"trained afresh, scored on test rows, seeds {', '.join(map(str, seeds))}; {how}", columns, rows)


def plan_table(groups: Sequence[tuple[Mapping[str, Any], int, int, int, int, int, float | None]]) -> Table:
    """Groups: (shape, cells, finished, models in a block, blocks, bytes, seconds)."""
    shapes = [shape for shape, *_ in groups]
    varying = [key for key in shapes[0] if len({str(shape[key]) for shape in shapes}) > 1] if shapes else []
    rows = []
    for shape, *counts, size, seconds in groups:
        time = "-" if seconds is None else duration(seconds)
        rows.append(
            [*([plain(shape[k]) for k in varying] or ["all"]), *map(str, counts), f"{size / 2**20:.0f} MiB", time]
        )
    shared = {key: value for key, value in (shapes[0] if shapes else {}).items() if key not in varying}
    caption = "; ".join(f"{key} {plain(value)}" for key, value in shared.items() if value is not None)
    columns = [*(varying or ["group"]), "cells", "finished", "models", "blocks", "memory", "time"]
    return table("plan: what is trained side by side", columns, rows, caption, left=len(varying or columns[:1]))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
