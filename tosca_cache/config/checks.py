"""Values checked by pydantic: which type a value may have, that in words, and the one error that users see.

A kind is a type as pydantic takes it, built of those below. pydantic is imported when the first value is checked.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate

from tosca_cache.errors import ConfigError

Kind = Any
INTEGERS = "integers"


@dataclass(frozen=True)
class Described:
    """What a kind takes, in words that follow "give", where its type does not say."""

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


def integers(item: Kind, least: int = 0, order: Predicate | None = None) -> Kind:
    """Whole numbers, in a list or separated by commas, in an order of `ORDERS`."""
    return Annotated[tuple[item, ...], MinLen(least), order]


def texts(item: Kind, words: str) -> Kind:
    """A list of texts."""
    return Annotated[tuple[item, ...], Described(words)]


def labels() -> Kind:
    """A list of class names and class indices. Whether there are such classes is known to a store alone."""
    item: Kind = Annotated[int, Ge(0)] | text("a name")
    return Annotated[tuple[item, ...], MinLen(1), Described("a list of class names, or of indices")]


Count = Annotated[int, Ge(1)]
DIFFERENT = Predicate(lambda numbers: len(set(numbers)) == len(numbers))
INCREASING = Predicate(lambda numbers: list(numbers) == sorted(set(numbers)))
ORDERS = {DIFFERENT: "all different", INCREASING: "in increasing order"}


def is_kind(kind: Kind, *types: Any) -> bool:
    """Whether the values of a kind are of one of some types, None aside; `INTEGERS` stands for lists of whole numbers."""
    found = _plain(kind)
    if get_origin(found) is tuple and is_kind(get_args(found)[0], int):
        return INTEGERS in types
    return (get_origin(found) or found) in types


def none_word(kind: Kind) -> str | None:
    """The word for None of a kind that takes it."""
    return next((mark.word for mark in _marks(kind) if isinstance(mark, OrNone)), None)


def expected(kind: Kind) -> str:
    """What a kind takes, in words that follow "give"."""
    words = _expected(kind)
    return words if none_word(kind) is None else f'{words}, or "{none_word(kind)}"'


def accept(kind: Kind, key: str, value: object, where: str) -> Any:
    """The value of `key` in its own type; raises `ConfigError` that names `where` and what would have been taken."""
    from pydantic import ValidationError

    word = none_word(kind)
    if word is not None and (value is None or value == word):
        return None
    try:
        return _adapter(kind).validate_python(_as_tuple(kind, value))
    except ValidationError:
        names = get_args(_plain(kind)) if is_kind(kind, Literal) else ()
        hint = f" (the nearest is {nearest(value, names)})" if names and isinstance(value, str) else ""
        problem, remedy = f"{key} cannot be {value!r}.", f"Give {expected(kind)}{hint}."
        raise ConfigError(problem, where=where, remedy=remedy) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, whatever the distance; capitals do not count."""
    folded = {candidate.casefold(): candidate for candidate in known}
    return folded[difflib.get_close_matches(name[:100].casefold(), folded, n=1, cutoff=0.0)[0]]


@cache
def _adapter(kind: Kind) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _plain(kind: Kind) -> Any:
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _marks(kind: Kind) -> tuple[Any, ...]:
    return getattr(kind, "__metadata__", ())


def _expected(kind: Kind) -> str:
    marks = _marks(kind)
    for mark in marks:
        if isinstance(mark, Described):
            return mark.words
    if is_kind(kind, bool):
        return "true or false"
    if is_kind(kind, INTEGERS):
        many = "one or more integers" if MinLen(1) in marks else "integers"
        order = [ORDERS[mark] for mark in marks if isinstance(mark, Predicate)]
        return ", ".join([many, f"each {_expected(get_args(_plain(kind))[0])}", *order])
    if is_kind(kind, Literal):
        return "one of " + ", ".join(get_args(_plain(kind)))
    bounds: dict[Any, str] = {Gt: "above {.gt}", Ge: "of at least {.ge}", Lt: "below {.lt}", Le: "at most {.le}"}
    said = [bounds[type(mark)].format(mark) for mark in marks if type(mark) in bounds]
    return f"{'an integer' if is_kind(kind, int) else 'a number'} {' and '.join(said)}"


def _as_tuple(kind: Kind, value: object) -> object:
    """A list as a tuple, for integers also 1993, "1993,1994" and ["1993,1994", "1995"]; anything else as it is."""
    if not is_kind(kind, INTEGERS):
        return tuple(value) if isinstance(value, list) else value
    parts = [part.split(",") if isinstance(part, str) else [part] for part in _listed(value)]
    return tuple(_whole(item) if isinstance(item, str) else item for part in parts for item in part)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [] if value == "" else [value]


def _whole(text: str) -> int | str:
    """The number that a text stands for; the text itself where it stands for none (Python reads no endless digits)."""
    return int(text) if text.strip().isdecimal() and len(text) <= 20 else text
