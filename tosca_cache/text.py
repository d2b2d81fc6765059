"""Text from data, as a terminal may show it."""

from __future__ import annotations


def escaped(text: str) -> str:
    """The text with whatever is not to be seen (control characters, line breaks, bytes without meaning) as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
