"""What an object shows of itself: one line, and in a notebook a small table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tosca_cache.text import one_line

LONGEST = 60  # characters of a value


class Shown:
    """An object that is shown by a few facts. What it is made of is not printed, however much that is."""

    def facts(self) -> Mapping[str, Any]:
        """What is shown, by name; a number, or a text without which nobody would know which one it is."""
        raise NotImplementedError

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_short(value)}" for name, value in self.facts().items())
        return f"{type(self).__name__}({values})"

    def _repr_html_(self) -> str:
        return table_html(type(self).__name__, ("", ""), self.facts().items())


class Report(dict[str, Any]):
    """Plain JSON values that are shown by their first facts; equal to, and written like, the dictionary that it is."""

    def __init__(
        self,
        values: Mapping[str, Any],
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        chart: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        super().__init__(values)
        self._table, self._chart = (title, columns, rows), chart

    def plot(self) -> Any:
        """The values as an Altair chart; raises `UsageError` if that is not installed."""
        return self._chart(self)

    def __repr__(self) -> str:
        title, _, rows = self._table
        return f"<{title}: {len(rows)} rows; keys {', '.join(map(str, self))}>"

    def _repr_html_(self) -> str:
        return table_html(*self._table)


def table_html(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A small table; everything in it is text."""
    head = "".join(f"<th>{_text(column)}</th>" for column in columns) if any(columns) else ""
    body = "".join(f"<tr>{''.join(f'<td>{_text(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><caption>{_text(title)}</caption>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _text(value: Any) -> str:
    return escape(one_line(str(value)))
