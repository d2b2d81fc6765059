"""What labels, domains, split vectors and paths mean, in the forms that people keep them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store.layout import SPLITS
from tosca_cache.store.rows import check_path

MAX_NAME = 500
IntArray = NDArray[np.int64]
Values = NDArray[Any] | Sequence[str]  # numbers [n], or n texts

_SPLIT_TEXTS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("test", "testing", "te", "eval"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}


def is_text(values: Values) -> bool:
    """Whether these are texts."""
    return not isinstance(values, np.ndarray) or values.dtype.kind in "UT"


def as_values(values: Any) -> Values:
    """What a caller has in memory as numbers or as a list of texts; raises `UsageError` for a mixture of things."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "USTO":
        return array
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("values are neither numbers nor texts", where=str(array.dtype), remedy="use one of both")
    return texts


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
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64)
        bad = ~np.isfinite(flat) | (flat != np.floor(flat)) | (np.abs(flat) >= 2.0**53)
    else:
        bad = flat.astype(np.uint64) >= 1 << 62 if flat.dtype.kind == "u" else np.zeros(len(flat), dtype=bool)
    if bad.any():
        row = int(np.argmax(bad))
        raise UsageError(
            f"{int(bad.sum())} {what} are not whole numbers, the first in row {row}: {flat[row]}",
            where=what,
            remedy=f"save whole numbers or texts as {what}",
        )
    return flat.astype(np.int64)


def numbered(
    parts: Sequence[Values], names: Sequence[str] | None, what: str
) -> tuple[list[IntArray], tuple[str, ...], list[str]]:
    """Labels (or domains) of several parts as indices of names that all occur.

    names: what numbers, or texts, refer to; None for the numbers or texts that occur, in their order.

    Returns the indices of each part, the names in use, and the names that no row has.
    Raises `UsageError` for numbers and texts that have no name, negative numbers, and names that occur twice.
    """
    texts = {is_text(part) for part in parts}
    if len(texts) > 1:
        raise UsageError(f"{what} are texts in one split and numbers in the other", where=what, remedy="use one form")
    for text in [*(names or ()), *(value for part in parts if is_text(part) for value in set(map(str, part)))]:
        _check_name(text, what)
    if names is not None and len(set(names)) != len(names):
        raise UsageError(f"two {what} have the same name", where=what, remedy="give every one a name of its own")
    found, every = _text_indices(parts, names, what) if texts == {True} else _number_indices(parts, names, what)
    used = np.unique(np.concatenate(found))
    kept = tuple(every[index] for index in used.tolist())
    unused = sorted(set(range(len(every))) - set(used.tolist()))
    return [np.searchsorted(used, part).astype(np.int64) for part in found], kept, [every[index] for index in unused]


def split_rows(values: Values, name: str, chosen: tuple[str, str] | None) -> tuple[dict[str, IntArray], dict[str, int]]:
    """The rows of `train` and of `test` by a split vector, and how many rows each value has that belongs to neither.

    values: true or false (false is train, or true if the array's name speaks of train and not of test), 0 and 1 (likewise),
        or texts such as train, val and test (val is test where there is no test).
    chosen: the values of train and of test, instead.
    """
    keys = list(values) if is_text(values) else whole_numbers(np.asarray(values), name).tolist()
    counts: dict[Any, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    meaning = _chosen_meaning(counts, name, chosen) if chosen is not None else _meaning(counts, name)
    lookup = np.array([SPLITS.index(meaning[key]) if key in meaning else -1 for key in keys], dtype=np.int64)
    left = {str(key): count for key, count in counts.items() if key not in meaning}
    return {split: np.flatnonzero(lookup == index) for index, split in enumerate(SPLITS)}, left


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
    for path in paths:
        try:
            check_path(path)
        except StoreError as error:
            raise UsageError(
                "the path of a row must be relative, without `..`, valid Unicode and not too long",
                where=f"{what}: {ascii(path)[:200]}",
                remedy="save other paths, or leave them out: --paths none",
            ) from error
    if len(set(paths)) != len(paths):
        seen: set[str] = set()
        double = next(path for path in paths if path in seen or seen.add(path))  # type: ignore[func-returns-value]
        raise UsageError(
            "two rows of one split have the same path",
            where=f"{what}: {ascii(double)[:200]}",
            remedy="save paths that are unique within a split, or leave them out: --paths none",
        )


def _check_name(name: str, what: str) -> None:
    """A name is printed, and is part of tables: it must be text of a sensible length that can be shown."""
    if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise UsageError(
            f"{ascii(name)[:100]} cannot be a name",
            where=what,
            remedy=f"give printable texts of 1 to {MAX_NAME} letters",
        )


def _text_indices(
    parts: Sequence[Values], names: Sequence[str] | None, what: str
) -> tuple[list[IntArray], Sequence[str]]:
    occurring = sorted({str(value) for part in parts for value in part})
    every = occurring if names is None else list(names)
    place: Mapping[str, int] = {name: index for index, name in enumerate(every)}
    missing = [text for text in occurring if text not in place]
    if missing:
        raise UsageError(
            f"{len(missing)} {what} are not among the names: {', '.join(map(ascii, missing[:5]))[:300]}",
            where=what,
            remedy="give all names, or none",
        )
    return [np.array([place[str(value)] for value in part], dtype=np.int64) for part in parts], every


def _number_indices(
    parts: Sequence[Values], names: Sequence[str] | None, what: str
) -> tuple[list[IntArray], Sequence[str]]:
    numbers = [whole_numbers(np.asarray(part), what) for part in parts]
    every = np.unique(np.concatenate(numbers))
    stop = None if names is None else len(names)
    if every.size and (every[0] < 0 or (stop is not None and every[-1] >= stop)):
        limits = "0 or more" if stop is None else f"from 0 to {stop - 1}, because there are {stop} names"
        raise UsageError(
            f"{what} run from {every[0]} to {every[-1]}, but must be {limits}",
            where=what,
            remedy="leave rows without a label out, and count from 0 where there are names",
        )
    if names is not None:
        return numbers, names
    return [np.searchsorted(every, part).astype(np.int64) for part in numbers], [str(n) for n in every.tolist()]


def _meaning(counts: Mapping[Any, int], name: str) -> dict[Any, str]:
    if all(isinstance(key, str) for key in counts):
        meaning = {key: _SPLIT_TEXTS[key.lower()] for key in counts if key.lower() in _SPLIT_TEXTS}
        last = "test" if "test" in meaning.values() else "val"
        found = {key: "test" if split == last else split for key, split in meaning.items() if split in ("train", last)}
    else:
        zero, one = SPLITS if "test" in name.lower() or "train" not in name.lower() else SPLITS[::-1]
        found = {0: zero, 1: one}
        found = found if set(counts) == {0, 1} else {}
    if set(found.values()) != set(SPLITS):
        shown = ", ".join(f"{str(key)[:40]!r} ({count} rows)" for key, count in list(counts.items())[:6])
        raise UsageError(
            f"what the values of {name} mean cannot be guessed: {shown}",
            where=name,
            remedy="add --split-values TRAIN,TEST, such as --split-values 0,2",
        )
    return found


def _chosen_meaning(counts: Mapping[Any, int], name: str, chosen: tuple[str, str]) -> dict[Any, str]:
    meaning = {}
    for split, value in zip(SPLITS, chosen, strict=True):
        fits = [key for key in counts if str(key) == value]
        if not fits:
            raise UsageError(
                f"no row of {name} has the value {value!r}",
                where="--split-values",
                remedy=f"there are {', '.join(str(key)[:40] for key in list(counts)[:12])}",
            )
        meaning[fits[0]] = split
    if len(meaning) != len(SPLITS):
        raise UsageError("train and test cannot have the same value", where="--split-values", remedy="give two values")
    return meaning
