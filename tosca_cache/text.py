"""Text of any origin on a terminal, in CSV, Markdown and LaTeX: what would mean something there is escaped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

# C0 but tab and newline, DEL, C1, line separators, marks that turn the direction of writing, lone surrogates.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters as escapes such as \\u001b, which are valid in JSON, too."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """A name that stands within a line: with all control characters as escapes, so that it makes no line of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


_NOT_IN_HTML = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)  # a parser drops or changes it


def html_text(text: str) -> str:
    """Text for an HTML page, to be escaped there: as it is, but for characters that no page can hold, which are escapes."""
    return _NOT_IN_HTML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, most: int = 200) -> str:
    """The text, cut if it is longer than so many characters."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


_FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # how a cell begins that a spreadsheet computes; some in full width
_MARKDOWN = re.compile(r"[\\`*_|\[\]<>~$&#]")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"`": r"\textasciigrave{}"}
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
