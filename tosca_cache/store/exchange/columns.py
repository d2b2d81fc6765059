"""Which array of an external file is what, by its name; and what labels, splits and paths in it mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.names import twice
from tosca_cache.store.content import check_path
from tosca_cache.store.exchange.external import ExternalFile, Values
from tosca_cache.store.layout import SPLITS

FEATURES, LABELS, SPLIT, DOMAINS, PATHS = "features", "labels", "split", "domains", "paths"
CLASS_NAMES, DOMAIN_NAMES = "class_names", "domain_names"
PER_ROW = (FEATURES, LABELS, DOMAINS, PATHS)
NONE = "none"
USUAL: Mapping[str, tuple[str, ...]] = {
    FEATURES: ("features", "feature", "embeddings", "x", "emb", "f"),
    LABELS: ("labels", "label", "y", "targets", "target"),
    SPLIT: ("split", "is_test", "is_train", "subset"),
    DOMAINS: ("domains", "domain"),
    PATHS: ("paths", "path", "filenames", "filename"),
    CLASS_NAMES: ("class_names", "classes", "label_names", "target_names"),
    DOMAIN_NAMES: ("domain_names",),
}
PAIRS = ("{name}_{split}", "{split}_{name}", "{split}/{name}")  # how arrays of separate splits are called
Name = str | tuple[str, str]  # of one array, or of train's and test's
MAX_NAME = 500
IntArray = NDArray[np.int64]
_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("test", "testing", "te", "eval"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}


def each(names: Mapping[str, Name]) -> list[str]:
    """Every name of an array, once."""
    found = [part for name in names.values() for part in (name if isinstance(name, tuple) else (name,))]
    return list(dict.fromkeys(name for name in found if name and name != NONE))


def parse_name(option: str, text: str) -> Name:
    """`NAME`, or `TRAIN,TEST` for arrays of separate splits, of which one may be empty (`x_train,`)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not any(parts):
        raise UsageError(
            f"{text!r} names no array", where=option, remedy="give NAME, or TRAIN,TEST for separate splits"
        )
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def find_columns(file: ExternalFile, named: Mapping[str, Name]) -> dict[str, Name]:
    """The array of every role that the file has, or the pair of train's and test's: as named, else of a usual name.

    Arguments:
        named: {role: name, pair of names, or `none`}.

    Raises `UsageError`, listing what there is, for an array that is missing.
    """
    if missing := [name for name in each(named) if name not in file.arrays]:
        raise UsageError(f"there is no array {missing[0]!r}", where=file.path, remedy=f"name one of: {file.listed()}")
    lower = {name.lower(): name for name in reversed(list(file.arrays))}
    pairs = {role: _usual_pair(lower, role) for role in PER_ROW}
    separate = any(isinstance(named.get(role), tuple) for role in PER_ROW) or (
        not named.keys() & {FEATURES, LABELS} and None not in (pairs[FEATURES], pairs[LABELS])
    )
    names: dict[str, Name] = {}
    for role, usual in USUAL.items():
        found: Name | None = next((lower[name] for name in usual if name in lower), None)
        if separate and role in (*PER_ROW, SPLIT):
            found = pairs.get(role)
        chosen = named.get(role, found)
        if chosen is not None and chosen != NONE:
            names[role] = chosen
    _check(names, separate, file)
    return names


def _usual_pair(lower: Mapping[str, str], role: str) -> tuple[str, str] | None:
    for name in USUAL[role]:
        for pattern in PAIRS:
            train, test = (lower.get(pattern.format(name=name, split=split)) for split in SPLITS)
            if train and test:
                return train, test
    return None


def _check(names: Mapping[str, Name], separate: bool, file: ExternalFile) -> None:
    for role in (FEATURES, LABELS):
        if role not in names:
            raise UsageError(
                f"which array holds the {role} is not said",
                where=file.path,
                remedy=f"add --{role} NAME, or --{role} TRAIN,TEST; there are: {file.listed()}",
            )
    for role in PER_ROW if separate else ():
        name, needed = names.get(role), role in (FEATURES, LABELS)
        if isinstance(name, str) or (needed and not all(name or ())):
            raise UsageError(
                f"train and test have separate arrays, but {role} has one: {name!r}",
                where=file.path,
                remedy=f"give --{role} TRAIN,TEST" + ("" if needed else f", or --{role} none"),
            )
    if separate and SPLIT in names:
        raise UsageError(
            f"train and test have separate arrays, and {names[SPLIT]!r} divides them once more",
            where=file.path,
            remedy="leave one of them out: --split none",
        )


def is_text(values: Values) -> bool:
    """Whether these are texts."""
    return not isinstance(values, np.ndarray) or values.dtype.kind in "UT"


def whole_numbers(values: NDArray[Any], what: str) -> IntArray:
    """Numbers [n] or [n, 1] as int64; raises `UsageError` for other shapes, and for any that is not whole."""
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if flat.ndim != 1 or flat.dtype.kind not in "biuf":
        hint = f"{what}.argmax(1) if they are one-hot" if values.ndim == 2 else "one number or text a row"
        raise UsageError(
            f"{what} have shape {list(values.shape)} and type {values.dtype}, not one value a row",
            where=what,
            remedy=f"save {hint}",
        )
    with np.errstate(invalid="ignore"):
        found = flat.astype(np.int64)
        bad = (found != flat) | (np.abs(flat.astype(np.float64)) >= 2.0**53)
    if bad.any():
        row = int(np.argmax(bad))
        raise UsageError(
            f"{int(bad.sum())} {what} are not whole numbers, the first in row {row}: {flat[row]}",
            where=what,
            remedy=f"save whole numbers or texts as {what}",
        )
    return found


def numbered(
    parts: Sequence[Values], names: Sequence[str] | None, what: str
) -> tuple[list[IntArray], tuple[str, ...], list[str]]:
    """Labels (or domains) of several parts as indices of names that all occur.

    names: what numbers, or texts, refer to; None for the numbers or texts that occur, in their order.

    Returns the indices of each part, the names in use, and the names that no row has.
    Raises `UsageError` for numbers and texts that have no name, negative numbers, and names that occur twice.
    """
    text = is_text(parts[0])
    if any(is_text(part) != text for part in parts):
        raise UsageError(f"{what} are texts in one split and numbers in the other", where=what, remedy="use one form")
    keys: list[list[Any]] = [
        list(map(str, part)) if text else whole_numbers(np.asarray(part), what).tolist() for part in parts
    ]
    occurring = sorted({key for part in keys for key in part})
    every = occurring if names is None else list(names) if text else list(range(len(names)))
    shown = tuple(map(str, every)) if names is None else tuple(names)
    place = {key: index for index, key in enumerate(every)}
    nameless = [key for key in occurring if key not in place or (not text and key < 0)]
    if nameless:
        raise UsageError(
            f"{len(nameless)} {what} have no name: {', '.join(map(ascii, nameless[:5]))[:300]}",
            where=what,
            remedy="leave rows without a label out; where there are names, count from 0, or give all of them",
        )
    if (name := twice(shown)) is not None:
        raise UsageError(f"two {what} have the same name: {name!a}", where=what, remedy="give each one of its own")
    for name in shown:
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise UsageError(
                f"{ascii(name)[:100]} cannot be a name",
                where=what,
                remedy=f"give printable texts of 1 to {MAX_NAME} letters",
            )
    indices = [np.array([place[key] for key in part], dtype=np.int64) for part in keys]
    used = np.unique(np.concatenate(indices))
    unused = np.setdiff1d(np.arange(len(shown)), used)
    kept = tuple(shown[index] for index in used.tolist())
    return [np.searchsorted(used, part).astype(np.int64) for part in indices], kept, [shown[i] for i in unused.tolist()]


def split_rows(values: Values, name: str, chosen: tuple[str, str] | None) -> tuple[dict[str, IntArray], dict[str, int]]:
    """The rows of `train` and of `test` by a split vector, and how many rows each value has that belongs to neither.

    values: true or false, or 1 and 0 (true is test; or train if the array's name speaks of train and not of test), or
        texts such as train, val and test (val is test where there is no test).
    chosen: the values of train and of test, instead.
    """
    text = is_text(values)
    keys = list(map(str, values)) if text else list(map(str, whole_numbers(np.asarray(values), name).tolist()))
    counts = Counter(keys)
    if chosen is not None:
        meaning = dict(zip(chosen, SPLITS, strict=True))
    elif text:
        meaning = {key: _WORDS[key.lower()] for key in counts if key.lower() in _WORDS}
        last = "test" if "test" in meaning.values() else "val"
        meaning = {key: "test" if word == last else word for key, word in meaning.items() if word in ("train", last)}
    else:
        turned = "train" in name.lower() and "test" not in name.lower()
        meaning = dict(zip(("1", "0") if turned else ("0", "1"), SPLITS, strict=True))
    left = {key: count for key, count in counts.items() if key not in meaning}
    if {meaning[key] for key in counts if key in meaning} != set(SPLITS) or (left and not text and chosen is None):
        shown = ", ".join(f"{key[:40]!r} ({count} rows)" for key, count in list(counts.items())[:6])
        raise UsageError(
            f"what the values of {name} mean is not clear: {shown}",
            where=name,
            remedy="say which of them is train and which is test: --split-values TRAIN,TEST, such as --split-values 0,2",
        )
    lookup = np.array([meaning.get(key, "") for key in keys])
    return {split: np.flatnonzero(lookup == split) for split in SPLITS}, left


def index_rows(train: NDArray[Any], test: NDArray[Any], rows: int) -> dict[str, IntArray]:
    """The rows of train and of test by two lists of row numbers; raises `UsageError` for numbers that cannot be."""
    found = {s: whole_numbers(np.asarray(v), f"row numbers of {s}") for s, v in zip(SPLITS, (train, test), strict=True)}
    both = np.concatenate(list(found.values()))
    if both.size and not 0 <= both.min() <= both.max() < rows:
        raise UsageError(
            f"row numbers run from {both.min()} to {both.max()}, but there are {rows} rows",
            where="split",
            remedy="count rows from 0",
        )
    if len(np.unique(both)) != len(both):
        raise UsageError("a row is listed twice", where="split", remedy="list each row once, in train or in test")
    return found


def checked_paths(paths: Sequence[str], what: str) -> None:
    """Raises `UsageError` for paths that a store cannot keep, or that two rows have."""
    problem, remedy = "two rows of one split have the same path", "--paths none"
    double = twice(tuple(paths))
    for path in paths if double is None else ():
        try:
            check_path(path)
        except StoreError:
            problem, double = "the path of a row must be relative, without `..`, valid Unicode and not too long", path
            break
    if double is not None:
        raise UsageError(
            problem, where=f"{what}: {ascii(double)[:200]}", remedy=f"save other paths, or leave them out: {remedy}"
        )
