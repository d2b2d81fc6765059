"""What a page is made of: parts (a target each) of sections of blocks. The template knows these and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tosca_cache.report.tables import with_spread

Value = Mapping[str, Any]
Cell = str | int | float | tuple[str, float] | None  # of two: the text, and the number that it is sorted by


@dataclass(frozen=True)
class Table:
    """A table that is sorted by its headings. reads: one sentence that says how to read it.

    marks: of each row, what the script calls it. search: with a field to search in. ticks: the first column has boxes that
    show and hide what has the row's mark. more: rows that are only in the JSON. grey: numbers that are not this run's.
    """

    title: str
    reads: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marks: Sequence[str] = ()
    search: bool = False
    ticks: Sequence[bool] = ()
    more: int = 0
    wide: bool = False
    grey: bool = False
    kind: str = "table"

    @property
    def numeric(self) -> Sequence[bool]:
        """Of each column, whether it holds numbers."""
        return [any(isinstance(row[n], int | float | tuple) for row in self.rows) for n in range(len(self.columns))]


@dataclass(frozen=True)
class Figure:
    """A chart with its numbers below it. wide: over the whole page."""

    title: str
    reads: str
    chart: Markup
    numbers: Table | None = None
    wide: bool = False
    kind: str = "figure"


@dataclass(frozen=True)
class Brush:
    """Fields that do what brushing does, and how many settings are left. axes: names, and the words of those of words."""

    axes: Sequence[tuple[str, Sequence[str]]]
    kind: str = "brush"


@dataclass(frozen=True)
class Facts:
    """Names and values. pre: values are blocks of text. wide: over the whole page."""

    title: str
    rows: Sequence[tuple[str, Cell]]
    reads: str = ""
    pre: bool = False
    wide: bool = False
    kind: str = "facts"


@dataclass(frozen=True)
class Gallery:
    """Rows of photos, each under a heading: (key among the photos, caption). paired: two and two belong together."""

    title: str
    reads: str
    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    paired: bool = False
    kind: str = "gallery"


Block = Table | Figure | Facts | Gallery | Brush


@dataclass(frozen=True)
class Part:
    """One target. numbers: the three that matter, (name, text). warnings: what to be careful with. sections: by heading."""

    title: str
    kind: str
    about: Sequence[tuple[str, Cell]]
    numbers: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    sections: Sequence[tuple[str, Sequence[Block]]]


def mean_cell(mean: float | None, spread: float | None) -> Cell:
    """A mean with its sample standard deviation in one cell, sorted by the mean."""
    return None if mean is None else (with_spread(mean, spread), mean)


def origin_facts(made: Value, more: Sequence[tuple[str, Cell]] = ()) -> Facts:
    """Version, time, store, engine and machine of `runs.directory.origin`, as far as they are known, and more rows."""
    store, machine = made.get("store") or {}, made.get("machine") or {}
    libraries = machine.get("libraries") or {}
    rows = [
        ("tosca_cache", made.get("tosca_cache")),
        ("begun", made.get("begun")),
        ("store", store.get("path")),
        ("fingerprint", store.get("fingerprint")),
        ("engine", made.get("engine")),
        *((key, value) for key, value in machine.items() if key != "libraries"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())),
        *more,
    ]
    known = [(name, str(value)) for name, value in rows if value not in (None, "")]
    reads = "What made these numbers; the same fingerprint means the same features, bit for bit."
    return Facts("Where the numbers come from", known, reads)


def repeat_facts(commands: Sequence[tuple[str, str | None]]) -> Facts:
    """The commands that repeat a part: (what, command), those that are known."""
    reads = "Commands that make these numbers again, to be typed in the folder in which the first was."
    return Facts("To repeat it", [(what, text) for what, text in commands if text], reads, pre=True)
