"""What one value may be: a check takes a value from a file, the command line or Python, and returns it in its own type.

A check that refuses raises `RefusedError`; `expected` says in words what it would have taken. `accept` turns that into
the one error that users see.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from tosca_cache.errors import ConfigError


class RefusedError(Exception):
    """A value is not what a check takes; the message, if any, is a hint for the user."""


class Check(Protocol):
    """Accepts or refuses one value."""

    @property
    def expected(self) -> str:
        """What is accepted, in words that follow "give"."""

    def accept(self, value: object) -> object:
        """The value in its own type; raises `RefusedError` if it is not `expected`."""


def accept(check: Check, key: str, value: object, where: str) -> object:
    """The value of `key` in its own type; raises `ConfigError` that names `where` and what would have been taken."""
    try:
        return check.accept(value)
    except RefusedError as refusal:
        hint = f" ({refusal})" if str(refusal) else ""
        raise ConfigError(f"{key} cannot be {value!r}.", where=where, remedy=f"Give {check.expected}{hint}.") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, whatever the distance; capitals do not count."""
    folded = {candidate.casefold(): candidate for candidate in known}
    return folded[difflib.get_close_matches(name[:100].casefold(), folded, n=1, cutoff=0.0)[0]]


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int | None = None

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        return f"an integer of at least {self.low}" + ("" if self.high is None else f" and at most {self.high}")

    def accept(self, value: object) -> int:
        """The value, if it is taken; see `Check.accept`."""
        # bool is an int to Python, but `epochs = true` is a mistake.
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedError
        if value < self.low or (self.high is not None and value > self.high):
            raise RefusedError
        return value


@dataclass(frozen=True)
class Number:
    """A finite number in a range; the bounds are included unless `open_low` / `open_high`."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        text = f"a number {'above' if self.open_low else 'of at least'} {self.low:g}"
        if math.isfinite(self.high):
            text += f" and {'below' if self.open_high else 'at most'} {self.high:g}"
        return text

    def accept(self, value: object) -> float:
        """The value, if it is taken; see `Check.accept`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError
        try:
            number = float(value)
        except OverflowError:  # an integer beyond all floats
            raise RefusedError from None
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise RefusedError
        if (self.open_low and number == self.low) or (self.open_high and number == self.high):
            raise RefusedError
        return number


@dataclass(frozen=True)
class Flag:
    """True or false, and nothing that merely looks like it."""

    expected: str = "true or false"

    def accept(self, value: object) -> bool:
        """The value, if it is taken; see `Check.accept`."""
        if not isinstance(value, bool):
            raise RefusedError
        return value


@dataclass(frozen=True)
class Choice:
    """One of a few names."""

    names: tuple[str, ...]

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        return "one of " + ", ".join(self.names)

    def accept(self, value: object) -> str:
        """The value, if it is taken; see `Check.accept`."""
        if not isinstance(value, str):
            raise RefusedError
        if value not in self.names:
            raise RefusedError(f"the nearest is {nearest(value, self.names)}")
        return value


@dataclass(frozen=True)
class Text:
    """A non-empty line of text. `aliases` are other names for the same thing; `pattern` must match the whole."""

    expected: str = "a name"
    pattern: str = ".+"
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    def accept(self, value: object) -> str:
        """The value, if it is taken; see `Check.accept`."""
        if not isinstance(value, str) or re.fullmatch(self.pattern, value) is None:
            raise RefusedError
        # Control characters and lone surrogates could not be written to a TOML file and read back.
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
            raise RefusedError
        return self.aliases.get(value, value)


@dataclass(frozen=True)
class OrNone:
    """Either None or what `inner` takes. Files have no None, so there a word says it."""

    inner: Check
    word: str

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        return f'{self.inner.expected}, or "{self.word}"'

    def accept(self, value: object) -> object:
        """The value, if it is taken; see `Check.accept`."""
        return None if value is None or value == self.word else self.inner.accept(value)


@dataclass(frozen=True)
class Integers:
    """Whole numbers, in a list or separated by commas; all different unless `repeated`, in order if `increasing`."""

    item: Integer
    least: int = 0
    increasing: bool = False
    repeated: bool = False

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        count = "integers" if self.least == 0 else "one or more integers"
        order = "in increasing order" if self.increasing else "all different"
        return f"{count}, each {self.item.expected}" + ("" if self.repeated else f", {order}")

    def accept(self, value: object) -> tuple[int, ...]:
        """The value, if it is taken; see `Check.accept`."""
        numbers = tuple(self.item.accept(number) for number in _flatten(value))
        if len(numbers) < self.least or (len(set(numbers)) < len(numbers) and not self.repeated):
            raise RefusedError
        if self.increasing and list(numbers) != sorted(numbers):
            raise RefusedError
        return numbers


@dataclass(frozen=True)
class Labels:
    """A list of class names and class indices. Whether there are such classes is known to a store alone."""

    name: Check
    index: Check = field(default_factory=lambda: Integer(0))
    expected: str = "a list of class names, or of indices"

    def accept(self, value: object) -> tuple[int | str, ...]:
        """The value, if it is taken; see `Check.accept`."""
        if not isinstance(value, list | tuple) or not value:
            raise RefusedError
        return tuple(cast(int | str, (self.name if isinstance(v, str) else self.index).accept(v)) for v in value)


@dataclass(frozen=True)
class Texts:
    """A list of lines of text."""

    item: Text

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        return f"a list, each {self.item.expected}"

    def accept(self, value: object) -> tuple[str, ...]:
        """The value, if it is taken; see `Check.accept`."""
        if not isinstance(value, list | tuple):
            raise RefusedError
        return tuple(self.item.accept(text) for text in value)


def _flatten(value: object) -> Iterable[object]:
    """Integers out of 1993, "1993,1994", [1993, 1994] and ["1993,1994", "1995"]."""
    if isinstance(value, str):
        return [_whole(part.strip()) for part in value.split(",")] if value.strip() else []
    if isinstance(value, list | tuple):
        return [number for part in value for number in (_flatten(part) if isinstance(part, str) else [part])]
    return [value]


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 20:  # Python refuses to read thousands of digits
        raise RefusedError
    return int(text)
