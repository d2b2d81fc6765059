"""External files of arrays: what they hold, how large it is, which array is what, and reading it.

Sizes are looked at before anything is read, nothing is unpickled, and no link of HDF5 is followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.store.exchange.readers import READERS, ExternalArray
from tosca_cache.store.layout import SPLITS

Values = NDArray[Any]  # numbers [n, ...], or n texts as Python objects
FLOOR, RATIO = 256 << 20, 32  # bytes that a file may claim to hold: this much, or so many for each of its own
SHOWN = 12  # arrays that a message lists
PER_ROW = ("features", "labels", "domains", "paths")
TEXTS = ("paths", "class_names", "domain_names")
NONE = "none"
USUAL: Mapping[str, tuple[str, ...]] = {
    "features": ("features", "embeddings", "x", "emb", "f"),
    "labels": ("labels", "label", "y", "targets"),
    "split": ("split", "is_test"),
    "domains": ("domains", "domain"),
    "paths": ("paths", "path"),
    "class_names": ("class_names", "classes"),
    "domain_names": ("domain_names",),
}
PAIRS = ("{name}_{split}", "{split}_{name}", "{split}/{name}")  # how arrays of separate splits are called
Name = str | tuple[str, str]  # of one array, or of train's and test's


@dataclass(frozen=True)
class ExternalFile:
    """An open file, and the .npy files beside it that were named. paths: of all of them, the file itself first."""

    path: Path
    arrays: Mapping[str, ExternalArray]
    paths: tuple[Path, ...]

    def read(self, name: str) -> Values:
        """Numbers or texts; raises `StoreError` if the file is damaged, `UsageError` for Python objects."""
        with _readable(self.path):
            return as_values(self.arrays[name].load())

    def check_sizes(self, names: Iterable[str], most: int | None) -> None:
        """Raises `StoreError` if arrays claim more bytes than allowed: `most`, or what a file of this size can hold."""
        used, size = [self.arrays[name] for name in names], sum(path.stat().st_size for path in self.paths)
        claimed = sum(array.bytes for array in used)
        allowed = max(FLOOR, RATIO * size) if most is None else most
        if claimed > allowed:
            largest = max(used, key=lambda array: array.bytes)
            raise StoreError(
                f"The file has {size:,} bytes but claims to hold {claimed:,}, most of them in array {largest}; "
                f"{allowed:,} are allowed.",
                where=self.path,
                remedy=f"If you trust it, allow it: --max-bytes {claimed}.",
            )

    def listed(self) -> str:
        """Its arrays in words."""
        shown = list(map(str, self.arrays.values()))
        return "; ".join(shown[:SHOWN]) + (f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "") or "none"


@contextmanager
def open_external(path: Path, beside: Iterable[str] = ()) -> Iterator[ExternalFile]:
    """The arrays of a file; raises `StoreError` if it cannot be read, `UsageError` for a kind that is never read.

    beside: names of arrays, of which those that are .npy files are opened as well; the array is called as the file.
    """
    paths = (path, *(Path(name) for name in dict.fromkeys(beside) if name.lower().endswith(".npy")))
    with ExitStack() as stack:
        arrays = [array for each in paths for array in _opened(each, stack, None if each is path else str(each))]
        yield ExternalFile(path, {array.name: array for array in arrays}, paths)


def _opened(path: Path, stack: ExitStack, name: str | None) -> list[ExternalArray]:
    with _readable(path):
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        path.stat()
        if (reader := READERS.get(path.suffix.lower())) is None:
            raise UsageError(
                f"{path.suffix or path.name} is no format that is read here; pickled objects never are",
                where=path,
                remedy="save its arrays: numpy.savez('features.npz', features=..., labels=...)",
            )
        found = reader(path, stack)
    return found if name is None else [replace(array, name=name) for array in found]


def as_values(values: Any) -> Values:
    """Numbers, or texts as Python objects; raises `UsageError` for a mixture of things."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "USTO":
        return array
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("values are neither numbers nor texts", where=str(array.dtype), remedy="use one of both")
    return np.array(texts, dtype=object)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a library raises about a broken file becomes one `StoreError`."""
    try:
        yield
    except ToscaError:
        raise
    except FileNotFoundError as error:
        raise StoreError("There is no such file.", where=path, remedy="Correct its path.") from error
    except Exception as error:  # what these libraries raise has nothing in common
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise StoreError(
            f"This file cannot be read: {reason!a}.", where=path, remedy="Make or fetch it again."
        ) from error


def each(names: Mapping[str, Name]) -> list[str]:
    """Every name of an array, once."""
    found = [part for name in names.values() for part in (name if isinstance(name, tuple) else (name,))]
    return list(dict.fromkeys(name for name in found if name != NONE))


def parse_name(option: str, text: str) -> Name:
    """`NAME`, or `TRAIN,TEST` for arrays of separate splits."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not all(parts):
        remedy = "give NAME, or TRAIN,TEST for separate splits"
        raise UsageError(f"{text!r} names no array", where=option, remedy=remedy)
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def find_columns(file: ExternalFile, named: Mapping[str, Name]) -> dict[str, Name]:
    """The array of every role that the file has, or the pair of train's and test's: as named, else of a usual name.

    Arguments:
        named: {role: name, pair of names, or `none`}.

    Raises `UsageError`, listing what there is, for an array that is missing.
    """
    lower = {name.lower(): name for name in reversed(list(file.arrays))}
    pairs = {role: _usual_pair(lower, role) for role in PER_ROW}
    separate = isinstance(named.get("features", pairs["features"]), tuple)
    names: dict[str, Name] = {}
    for role, usual in USUAL.items():
        found: Name | None = next((lower[name] for name in usual if name in lower), None)
        if separate and role in (*PER_ROW, "split"):
            found = pairs.get(role)
        chosen = named.get(role, found)
        if chosen is not None and chosen != NONE:
            names[role] = chosen
    problem, remedy = _problem(names, file, separate=separate)
    if problem:
        raise UsageError(problem, where=file.path, remedy=remedy)
    return names


def _usual_pair(lower: Mapping[str, str], role: str) -> tuple[str, str] | None:
    for name in USUAL[role]:
        for pattern in PAIRS:
            train, test = (lower.get(pattern.format(name=name, split=split)) for split in SPLITS)
            if train and test:
                return train, test
    return None


def _problem(names: Mapping[str, Name], file: ExternalFile, *, separate: bool) -> tuple[str, str]:
    """What is wrong with a choice of arrays, and what to do; nothing if it is good."""
    there = f"there are: {file.listed()}"
    if missing := [name for name in each(names) if name not in file.arrays]:
        return f"there is no array {missing[0]!r}", there
    for role in ("features", "labels"):
        if role not in names:
            return f"which array holds the {role} is not said", f"add --{role} NAME, or --{role} TRAIN,TEST; {there}"
    for role in PER_ROW:
        if role in names and isinstance(names[role], tuple) != separate:
            return "train and test have separate arrays of some kinds only", f"give --{role} as --features, or none"
    if isinstance(names.get("split", ""), tuple) or (separate and "split" in names):
        return f"train and test are not divided by {names['split']!r}", "give one array, or --split none"
    return "", ""
