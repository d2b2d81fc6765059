"""Values checked by pydantic, and the one error that users see. pydantic is imported when the first value is checked.

A kind is a type as pydantic takes it, built of those below.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, MinLen, Predicate

from tosca_cache.errors import ConfigError

Kind = Any
INTEGERS = "integers"
Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Described:
    """What a kind takes, in words that follow "give", where pydantic does not say it."""

    words: str


@dataclass(frozen=True)
class OrNone:
    """Marks a kind that takes None, too. Files have no None, so there a word says it."""

    word: str


def one_of(names: Iterable[str]) -> Kind:
    """One of a few names."""
    return Literal[tuple(names)]


def text(words: str, pattern: str = ".+") -> Kind:
    """A line of text that matches a pattern and can be written to a TOML file and read back."""

    def is_line(value: str) -> bool:
        odd = any(unicodedata.category(character) in {"Cc", "Cs"} for character in value)
        return not odd and re.fullmatch(pattern, value) is not None

    return Annotated[str, Predicate(is_line), Described(words)]


def several(item: Kind, words: str, least: int = 0, order: Predicate | None = None) -> Kind:
    """A list, as a tuple; whole numbers also as a text that is separated by commas."""
    return Annotated[tuple[item, ...], MinLen(least), order, Described(words)]


def is_kind(kind: Kind, *types: Any) -> bool:
    """Whether the values of a kind are of one of some types, None aside; `INTEGERS` stands for lists of whole numbers."""
    found = _bare(kind)
    origin = get_origin(found)
    if origin is tuple and is_kind(get_args(found)[0], int):
        return INTEGERS in types
    return (origin or found) in types


def none_word(kind: Kind) -> str | None:
    """The word for None of a kind that takes it."""
    return next((mark.word for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, OrNone)), None)


def accept(kind: Kind, key: str, value: object, where: str) -> Any:
    """The value of `key` in its own type; raises `ConfigError` that names `where` and what would have been taken."""
    from pydantic import ValidationError

    word = none_word(kind)
    if word is not None and (value is None or value == word):
        return None
    try:
        return _adapter(kind).validate_python(_as_tuple(kind, value))
    except ValidationError as error:
        words = [mark.words for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Described)]
        names = get_args(_bare(kind)) if is_kind(kind, Literal) else ()
        words += [f"one of {', '.join(names)}"] if names else []
        remedy = f"Give {words[0]}" if words else re.sub("^Input should", "It should", error.errors()[0]["msg"])
        near = f" (the nearest is {nearest(value, names)})" if names and isinstance(value, str) else ""
        remedy += ("" if word is None else f', or "{word}"') + f"{near}."
        raise ConfigError(f"{key} cannot be {value!r}.", where=where, remedy=remedy) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, whatever the distance; capitals do not count."""
    folded = {candidate.casefold(): candidate for candidate in known}
    return folded[difflib.get_close_matches(name[:100].casefold(), folded, n=1, cutoff=0.0)[0]]


def _bare(kind: Kind) -> Any:
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


@cache
def _adapter(kind: Kind) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _as_tuple(kind: Kind, value: object) -> object:
    """A list as a tuple, for integers also 1993 and "1993,1994"; anything else as it is. Python reads no endless digits."""
    if isinstance(value, int | str) and is_kind(kind, INTEGERS):
        parts = [value] if isinstance(value, int) else value.split(",") if value else []
        return tuple(int(p) if isinstance(p, str) and p.strip().isdecimal() and len(p) <= 20 else p for p in parts)
    return tuple(value) if isinstance(value, list) else value
