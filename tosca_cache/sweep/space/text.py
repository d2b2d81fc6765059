"""How values and ranges are written: `1e-4,5e-4`, `log:0.005:0.1:5`, `int:5:30:5`, `10+15`.

    value,value,...         true and false for switches; a+b+c for a key that takes a list, none for the empty list
    log:LOW:HIGH:COUNT      COUNT numbers from LOW to HIGH, neighbours in equal ratio
    lin:LOW:HIGH:COUNT      COUNT numbers from LOW to HIGH, neighbours at equal distance
    log:LOW:HIGH            any number between, for the samplers random and tpe; likewise lin:LOW:HIGH
    int:LOW:HIGH[:STEP]     whole numbers from LOW to at most HIGH

LOW and HIGH belong to a real range and are taken as written; what lies between is rounded to 6 significant digits.

On the command line `KEY=VALUES@KEY=value,value@...` adds conditions, all of which must hold, for instance
`momentum=0.8,0.9@optimizer=sgd`.
"""

from __future__ import annotations

import math
from itertools import pairwise

from tosca_cache.config.checks import Check, Flag, Integer, Integers, Number, OrNone, nearest
from tosca_cache.config.schema import check_of, check_value
from tosca_cache.errors import ConfigError
from tosca_cache.sweep.space.axis import (
    MOST_VALUES,
    Axis,
    Condition,
    Span,
    check_asked,
    check_key,
    condition,
    inner_check,
    rounded,
    too_many,
    values_axis,
)

KINDS = ("log", "lin", "int")
_REAL_FORMS = "log:LOW:HIGH[:COUNT] or lin:LOW:HIGH[:COUNT]"
_WHOLE_FORM = "int:LOW:HIGH[:STEP]"
_FLAGS = {"true": True, "false": False}
_EMPTY_LIST = "none"


def assigned_axis(assignment: str, option: str) -> Axis:
    """The axis of `KEY=VALUES[@KEY=value,...]...`. Raises `ConfigError` that names `option` and the key."""
    target, *conditions = assignment.split("@")
    key, text = _split(target, assignment, option)
    where = f"{option} {key}"
    when: dict[str, Condition] = {}
    for item in conditions:
        asked, values = _split(item, assignment, where)
        check_asked(asked, where)
        if asked in when:
            problem = f"The condition on {asked} stands twice."
            raise ConfigError(problem, where=where, remedy=f"Join them: @{asked}=VALUE,VALUE.")
        when[asked] = condition(asked, text_values(asked, values, where), where)
    return text_axis(key, text, where, tuple(when.values()))


def _split(item: str, assignment: str, where: str) -> tuple[str, str]:
    """Key and text of `KEY=TEXT`."""
    key, equals, text = item.partition("=")
    if not equals or not key.strip() or not text.strip():
        raise ConfigError(
            f"{assignment!r} does not say which key takes which values.",
            where=where,
            remedy="Write KEY=VALUES, for instance lr=0.01,0.02 or momentum=0.8,0.9@optimizer=sgd.",
        )
    return key.strip(), text.strip()


def text_axis(key: str, text: str, where: str, when: tuple[Condition, ...] = ()) -> Axis:
    """The axis that `text` describes. Raises `ConfigError` that names `where`."""
    check = inner_check(check_key(key, where))
    if isinstance(check, Integer | Number) and ":" in text:
        if "," in text:
            problem = f"{text!r} mixes a range with values."
            raise ConfigError(problem, where=where, remedy="Give one range alone, or values separated by commas.")
        return range_axis(key, text, where, when)
    return values_axis(key, text_values(key, text, where), where, when)


def text_values(key: str, text: str, where: str) -> list[object]:
    """Comma-separated values of `key` in their own types, not yet checked against its limits."""
    parts = [part.strip() for part in text.split(",")]
    if parts == [""]:
        return []
    if "" in parts:
        raise ConfigError(f"{key} has an empty value.", where=where, remedy="Leave out the comma too many.")
    return [_from_text(check_of(key), part) for part in parts]


def _from_text(check: Check, text: str) -> object:
    """The value that a text stands for; the text itself where it stands for none, so that its check refuses it."""
    if isinstance(check, OrNone):
        return None if text == check.word else _from_text(check.inner, text)
    if isinstance(check, Flag):
        return _FLAGS.get(text, text)
    if isinstance(check, Integers):
        return () if text == _EMPTY_LIST else text.replace("+", ",")
    try:
        if isinstance(check, Integer):
            return int(text)
        return float(text) if isinstance(check, Number) else text
    except ValueError:
        return text


def range_axis(key: str, text: str, where: str, when: tuple[Condition, ...] = ()) -> Axis:
    """The axis of a range `KIND:LOW:HIGH[:COUNT or STEP]`. Raises `ConfigError` that names `where`."""
    check = inner_check(check_key(key, where))
    kind, *numbers = [part.strip() for part in text.split(":")]
    form = _form(key, check, kind, where)
    if len(numbers) not in (2, 3):
        raise ConfigError(f"{text!r} is not a whole range.", where=where, remedy=f"Write it as {form}.")
    low, high = (check_value(key, _from_text(check, number), where=where) for number in numbers[:2])
    # The kind of range fits the key, so that its ends have passed Integer or Number.
    assert isinstance(low, int | float) and isinstance(high, int | float)
    if low >= high:
        raise ConfigError(f"The range {text!r} is empty.", where=where, remedy="Give the lower end first.")
    last = _positive(numbers[2], key, form, where) if len(numbers) == 3 else None
    if kind == "int":
        return _whole_axis(key, int(low), int(high), last or 1, where, when)
    if kind == "log" and low == 0:
        problem = "A logarithmic range cannot begin at 0."
        raise ConfigError(problem, where=where, remedy=f"Begin above 0, or write lin:{':'.join(numbers)}.")
    if last is None:
        return Axis(key, None, Span(kind, low, high), when, where)
    return Axis(key, _spaced(key, kind, low, high, last, where), when=when, where=where)


def _form(key: str, check: Check, kind: str, where: str) -> str:
    """How a range of this kind of key is written; raises `ConfigError` if it has none, or not of this kind."""
    if not isinstance(check, Integer | Number):
        problem = f"{key} takes no range."
        raise ConfigError(problem, where=where, remedy=f"List its values: give {check.expected}.")
    form = _WHOLE_FORM if isinstance(check, Integer) else _REAL_FORMS
    if kind not in KINDS:
        problem = f"There is no range {kind!r}."
        raise ConfigError(problem, where=where, remedy=f"Did you mean {nearest(kind, KINDS)!r}? Write {form}.")
    if (kind == "int") != isinstance(check, Integer):
        kinds = "whole numbers" if isinstance(check, Integer) else "real numbers"
        raise ConfigError(f"{key} takes {kinds}, which {kind} does not give.", where=where, remedy=f"Write {form}.")
    return form


def _positive(text: str, key: str, form: str, where: str) -> int:
    """The count or the step of a range."""
    number = _from_text(Integer(1), text)
    if not isinstance(number, int) or number < 1:
        problem = f"{text!r} is no count or step for a range of {key}."
        raise ConfigError(problem, where=where, remedy=f"Write {form}, the last a whole number of at least 1.")
    return number


def _whole_axis(key: str, low: int, high: int, step: int, where: str, when: tuple[Condition, ...]) -> Axis:
    numbers = range(low, high + 1, step)
    if len(numbers) > MOST_VALUES:
        raise too_many(key, len(numbers), where)
    return Axis(key, tuple(numbers), Span("int", low, numbers[-1], step), when, where)


def _spaced(key: str, kind: str, low: float, high: float, count: int, where: str) -> tuple[float, ...]:
    """`count` rising numbers from `low` to `high`; the ends exact, the others to 6 significant digits."""
    if count < 2:
        problem = "A range has at least its two ends."
        raise ConfigError(problem, where=where, remedy="Give a count of at least 2, or the one value alone.")
    if count > MOST_VALUES:
        raise too_many(key, count, where)
    parts = [index / (count - 1) for index in range(1, count - 1)]
    if kind == "log":
        ratio = math.log(high) - math.log(low)  # high / low overflows where low is tiny
        between = [math.exp(math.log(low) + part * ratio) for part in parts]
    else:
        between = [low + part * (high - low) for part in parts]
    numbers = (low, *(rounded(number) for number in between), high)
    if any(one >= other for one, other in pairwise(numbers)):
        problem = f"{count} numbers from {low} to {high} do not differ in 6 significant digits."
        raise ConfigError(problem, where=where, remedy="Give a lower count or a wider range, or list the values.")
    return numbers
