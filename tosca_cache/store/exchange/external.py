"""An external file as it is seen before it is read: its arrays, their shapes and sizes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.store.exchange.values import Values, as_values
from tosca_cache.text import one_line

FLOOR, RATIO = 256 << 20, 32  # bytes that a file may claim to hold: this much, or so many for each of its own
SHOWN = 12  # arrays that a message lists
TEXT = "text"


@dataclass(frozen=True)
class ExternalArray:
    """One array of a file. dtype: numpy's, or `text`. bytes: that it takes in memory, at least. load: reads it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    load: Callable[[], Values]

    def describe(self) -> str:
        """In words."""
        return f"{one_line(self.name)} {list(self.shape)} {self.dtype}"


@dataclass(frozen=True)
class ExternalFile:
    """An open file. size: its bytes."""

    path: Path
    size: int
    arrays: Mapping[str, ExternalArray]

    def read(self, name: str) -> Values:
        """Numbers, or a list of texts; raises `StoreError` if the file is damaged, `UsageError` for Python objects."""
        with readable(self.path):
            return as_values(self.arrays[name].load())

    def check_sizes(self, names: Iterable[str], most: int | None) -> None:
        """Raises `StoreError` if arrays claim more bytes than allowed: `most`, or what a file of this size can hold."""
        used = [self.arrays[name] for name in names]
        claimed = sum(array.bytes for array in used)
        allowed = max(FLOOR, RATIO * self.size) if most is None else most
        if claimed > allowed:
            largest = max(used, key=lambda array: array.bytes)
            raise StoreError(
                f"The file has {self.size:,} bytes but claims to hold {claimed:,}, most of them in array "
                f"{largest.describe()}; {allowed:,} are allowed.",
                where=self.path,
                remedy=f"If you trust it, allow it: --max-bytes {claimed}.",
            )

    def listed(self) -> str:
        """Its arrays in words."""
        shown = [array.describe() for array in self.arrays.values()]
        return "; ".join(shown[:SHOWN]) + (f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "") or "none"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever a library raises about a broken file becomes one `StoreError`."""
    try:
        yield
    except ToscaError:
        raise
    except FileNotFoundError as error:
        raise StoreError("There is no such file.", where=path, remedy="Correct its path.") from error
    except (OSError, ValueError, LookupError, EOFError, TypeError, ArithmeticError, MemoryError) as error:
        raise damaged(path, error) from error
    except (RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:  # also what has no implementation
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException) -> StoreError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return StoreError(f"This file cannot be read: {reason!a}.", where=path, remedy="Make or fetch it again.")


def refusing(name: str, problem: str, remedy: str) -> Callable[[], Values]:
    def load() -> Values:
        raise UsageError(problem, where=f"array {name!a}", remedy=remedy)

    return load
