"""What a page is made of: parts (a target each) of sections of blocks. The template knows these and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from tosca_cache.report.tables import with_spread

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
class Axis:
    """One axis of parallel coordinates, for the fields below them. values: the words of an axis of words."""

    name: str
    values: Sequence[str] = ()


@dataclass(frozen=True)
class Brush:
    """Fields that do what brushing does, and how many settings are left."""

    title: str
    axes: Sequence[Axis]
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
class Photo:
    """A thumbnail (its key among the photos) with what stands below it."""

    key: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Rows of photos, each under a heading. paired: two and two belong together."""

    title: str
    reads: str
    groups: Sequence[tuple[str, Sequence[Photo]]]
    paired: bool = False
    kind: str = "gallery"


Block = Table | Figure | Facts | Gallery | Brush


@dataclass(frozen=True)
class Section:
    """One heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Part:
    """One target. numbers: the three that matter, (name, text). warnings: what to be careful with."""

    title: str
    kind: str
    about: Sequence[tuple[str, Cell]]
    numbers: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)


Value = Mapping[str, Any]


def mean_cell(value: float | None, spread: float | None) -> Cell:
    """A mean with its sample standard deviation in one cell, sorted by the mean."""
    return None if value is None else (with_spread(value, spread), value)
