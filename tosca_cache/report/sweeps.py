"""Tables of a sweep for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from tosca_cache.report.tables import METRICS, with_spread


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
    table = Table("setting", title=f"best settings by {metric.replace('_', ' ')}, {how}")
    table.add_column("percent", justify="right")
    table.add_column("seeds", justify="right")
    for point, mean, spread, seeds in rows:
        table.add_row(point_words(point), with_spread(mean, spread), str(seeds))
    return table


def final_table(
    finals: Sequence[tuple[str, Mapping[str, tuple[float, float]], int, int]], seeds: Sequence[int], how: str
) -> Table:
    """Fresh runs on all train rows: (name, {metric: (mean, spread)}, seeds done, seeds lost)."""
    names = ", ".join(map(str, seeds))
    table = Table("percent", title=f"trained afresh, scored on test rows, seeds {names}; {how}")
    for name, _, _, lost in finals:
        table.add_column(f"{name} ({lost} seeds lost)" if lost else name, justify="right")
    for metric, title in METRICS.items():
        if all(metric in metrics for _, metrics, _, _ in finals):
            table.add_row(title, *(with_spread(*metrics[metric]) for _, metrics, _, _ in finals))
    return table


def plan_table(groups: Sequence[tuple[Mapping[str, Any], int, int, int, int, int, float | None]]) -> Table:
    """Groups: (shape, cells, finished, models in a block, blocks, bytes, seconds)."""
    shapes = [shape for shape, *_ in groups]
    varying = [key for key in shapes[0] if len({str(shape[key]) for shape in shapes}) > 1] if shapes else []
    table = Table(*(varying or ["group"]), title="plan: what is trained side by side")
    for title in ("cells", "finished", "models", "blocks", "memory", "time"):
        table.add_column(title, justify="right")
    for shape, cells, finished, most, blocks, size, seconds in groups:
        table.add_row(
            *([plain(shape[key]) for key in varying] or ["all"]),
            str(cells),
            str(finished),
            str(most),
            str(blocks),
            f"{size / 2**20:.0f} MiB",
            "-" if seconds is None else duration(seconds),
        )
    common = [
        f"{key} {plain(value)}"
        for key, value in (shapes[0] if shapes else {}).items()
        if key not in varying and value is not None
    ]
    table.caption = "; ".join(common)
    return table


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
