"""Text of any origin in CSV, Markdown and LaTeX: what would mean something there is escaped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from tosca_cache.terminal import printable

_FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # how a cell begins that a spreadsheet computes; some in full width
_MARKDOWN = re.compile(r"[\\`*_|\[\]<>~$&#]")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_LATEX |= {"[": "{[}", "]": "{]}", "*": "{*}"}  # behind the end of a line of a table they would belong to that


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV: None is empty, numbers are numbers, and a text that a spreadsheet would compute has a ' before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) if isinstance(value, str) else value for value in row])
    return text.getvalue()


def markdown(text: str) -> str:
    """One line of Markdown that shows this text."""
    return _MARKDOWN.sub(r"\\\g<0>", _line(text))


def latex(text: str) -> str:
    """One line of LaTeX that shows this text."""
    return "".join(_LATEX.get(character, character) for character in _line(text))


def _cell(text: str) -> str:
    disarmed = f"'{text}" if text[:1] and text[0] in _FORMULA and not _is_number(text) else text
    return printable(disarmed)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
