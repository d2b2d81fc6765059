"""Class orders in files: the name or the index of a class on each line."""

from __future__ import annotations

from pathlib import Path

from tosca_cache.config.schema import SEED
from tosca_cache.errors import ConfigError
from tosca_cache.files import Limit, read_limited


def read_class_order(file: str) -> tuple[str, ...] | str:
    """The lines of a file, empty ones left out; the word `seed` stands for itself: the order is drawn from the seed.

    What a line means is known with the classes: see `numbering.given_order`. Raises `ConfigError` if the file cannot be
    read as text, or says nothing.
    """
    if file == SEED:
        return SEED
    try:
        text = read_limited(Path(file), Limit.CLASS_ORDER)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _wrong(f"the class order cannot be read: {reason}", file[:200]) from error
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise _wrong("this is not UTF-8 text", f"{file}, line {number}") from error
    found = [line for line in found if line.strip()]
    if not found:
        raise _wrong("the class order is empty", file)
    return tuple(found)


def _wrong(problem: str, where: str) -> ConfigError:
    return ConfigError(problem, where=where, remedy="give a text file with the name or index of a class on each line")
