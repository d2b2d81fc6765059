"""From arrays to the rows of the two splits: divided, checked, with indices of names for labels and domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.names import twice
from tosca_cache.seeds import numpy_generator
from tosca_cache.store.content import NOT_FINITE, TOO_LARGE, ZERO, check_path, storable
from tosca_cache.store.exchange.external import Values
from tosca_cache.store.layout import SPLITS

BLOCK = 8 << 20  # bytes of features that are looked at together
MAX_NAME = 500
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ArraySource:
    """All arrays of an import.

    parts: of all rows, or (of train's, of test's): `features` [n, d] or [n, 1+V, d] with the clean view first, `labels`,
        and maybe `domains` and `paths`, of n rows. split: a value a row, which divides the one part.
    class_names, domain_names: what numbers refer to.
    """

    parts: tuple[Mapping[str, Values], ...]
    split: Values | None = None
    class_names: Sequence[str] | None = None
    domain_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            features, wrong, remedy = part["features"], "", "give [rows, d] or [rows, views, d]"
            if features.dtype.kind != "f" or features.dtype.itemsize > 8:
                wrong, remedy = f"type {features.dtype}", "save them as float16, float32 or float64"
            elif features.ndim not in (2, 3) or 0 in features.shape:
                wrong = f"shape {list(features.shape)}"
            if wrong:
                raise UsageError(f"features have {wrong}", where="features", remedy=remedy)
            for what, values in {**part, "values of the split": features if self.split is None else self.split}.items():
                if values.shape[:1] != features.shape[:1]:
                    problem = f"there are {len(features)} rows of features, but {sum(values.shape[:1])} {what}"
                    raise UsageError(problem, where=what, remedy="give one of them for each row, or none")


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split. features: [m, 1+V, d], of which `rows` [n] are its own; labels, domains: [n]; paths: n."""

    features: NDArray[Any]
    rows: IntArray
    labels: IntArray
    domains: IntArray
    paths: tuple[str, ...]


def divide(source: ArraySource, fraction: float | None, seed: int) -> tuple[dict[str, IntArray], list[str]]:
    """The rows of train and of test, of their own part or of the one, and what a user should know."""
    ways = len(source.parts) - 1 + (source.split is not None) + (fraction is not None)
    if ways > 1:
        remedy = "leave --test-fraction out, or add --split none"
        raise UsageError("train and test have a split already", where="--split or --test-fraction", remedy=remedy)
    if not ways:
        remedy = "give --split ARRAY, --features TRAIN,TEST and --labels TRAIN,TEST, or --test-fraction 0.2"
        raise UsageError("which rows are for testing is not said", where="--split", remedy=remedy)
    if source.split is not None:
        return _by_split(source.split)
    if fraction is None:
        return {s: np.arange(len(part["labels"])) for s, part in zip(SPLITS, source.parts, strict=True)}, []
    labels, names, _ = numbered(source.parts[0]["labels"], source.class_names, "labels")
    in_test = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(names):  # drawn by (seed, its name): other classes play no part in it
        rows = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        in_test[numpy_generator(seed, "test-fraction", name).permutation(rows)[:count]] = True
    return {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}, []


def _by_split(values: Values) -> tuple[dict[str, IntArray], list[str]]:
    """By true or false, or 1 and 0 (true is test); or by texts, of which `train` and `test` are looked at."""
    text = values.dtype.kind == "O"
    keys = np.array([v.lower() for v in values], dtype=object) if text else whole_numbers(values, "split")
    meaning = dict(zip(("train", "test") if text else (0, 1), SPLITS, strict=True))
    counts = dict(zip(*np.unique(keys, return_counts=True), strict=True))
    left = [f"{str(key)[:40]} ({count} rows)" for key, count in counts.items() if key not in meaning]
    if not meaning.keys() <= counts.keys() or (left and not text):
        shown = some([f"{str(key)[:40]} ({count} rows)" for key, count in counts.items()])
        remedy = "save a split of true (test) and false (train), or of texts train and test"
        raise UsageError(f"what the values of the split mean is not clear: {shown}", where="--split", remedy=remedy)
    notes = [f"rows of other splits are left out: {some(left)}"] if left else []
    return {split: np.flatnonzero(keys == key) for key, split in meaning.items()}, notes


def compose(
    source: ArraySource, rows: Mapping[str, IntArray]
) -> tuple[dict[str, SplitRows], tuple[str, ...], tuple[str, ...], list[str]]:
    """The two splits, names of classes and of domains, and what a user should know."""
    parts = dict(zip(SPLITS, (source.parts[0], source.parts[-1]), strict=True))

    def indices(role: str, names: Sequence[str] | None) -> tuple[dict[str, IntArray], tuple[str, ...], list[str]]:
        """Numbers of a role for the rows of each split, the names that they stand for, and names that no row has."""
        given = [parts[split][role][rows[split]] for split in SPLITS if role in parts[split]]
        if len(given) < 2 or (given[0].dtype.kind == "O") != (given[1].dtype.kind == "O"):
            remedy = f"give {role} of both splits in one form, or --{role} none"
            raise UsageError(f"{role} are numbers, texts or nothing in one split only", where=role, remedy=remedy)
        found, known, unused = numbered(np.concatenate(given), names, role)
        return dict(zip(SPLITS, np.split(found, [len(given[0])]), strict=True)), known, unused

    labels, class_names, unused = indices("labels", source.class_names)
    domain_names: tuple[str, ...] = ("",)
    domains = {split: np.zeros(len(part), dtype=np.int64) for split, part in labels.items()}
    if any("domains" in part for part in source.parts):
        domains, domain_names, _ = indices("domains", source.domain_names)
    splits = {}
    for split, part in parts.items():
        features, paths = part["features"], tuple(f"row-{row:08d}" for row in rows[split].tolist())
        if "paths" in part:
            paths = _checked_paths(tuple(part["paths"][rows[split]].tolist()), split)
        views = features[:, None] if features.ndim == 2 else features
        splits[split] = SplitRows(views, rows[split], labels[split], domains[split], paths)
    notes = [f"{len(unused)} classes have no rows and are left out: {some(unused)}"] if unused else []
    return splits, class_names, domain_names, notes


def without_bad(splits: Mapping[str, SplitRows], dtype: str, *, drop: bool) -> dict[str, SplitRows]:
    """The rows that a store can hold; raises `UsageError` if there are others, unless they are to be dropped."""
    found = {}
    for split, part in splits.items():
        step = max(1, BLOCK // (4 * part.features[0].size))
        blocks = [part.features[part.rows[start : start + step]] for start in range(0, len(part.rows), step)]
        problems = np.concatenate([storable(block, dtype)[1] for block in blocks] or [np.zeros(0, dtype=np.int64)])
        count, larger = np.count_nonzero(problems), "add --store-dtype float32"
        if count and not drop:
            first = int(np.argmax(problems > 0))
            problem, remedy = {
                NOT_FINITE: ("a value is NaN or infinite", "leave such rows out"),
                TOO_LARGE: (f"a value is too large for {dtype}", larger),
                ZERO: (f"a view is all zeros in {dtype}, so that it has no direction", larger),
            }[int(problems[first])]
            raise UsageError(
                problem + (f" ({count} such rows)" if count > 1 else ""),
                where=f"row {int(part.rows[first])} of the features ({split})",
                remedy=f"{remedy}, or add --drop-bad",
            )
        good = np.flatnonzero(problems == 0)
        paths = tuple(part.paths[k] for k in good.tolist())
        found[split] = SplitRows(part.features, part.rows[good], part.labels[good], part.domains[good], paths)
    return found


def _checked_paths(found: tuple[str, ...], split: str) -> tuple[str, ...]:
    for path in found:
        check_path(path)
    if (double := twice(found)) is not None:
        where, remedy = f"paths of {split}: {ascii(double)[:200]}", "save other paths, or leave them out: --paths none"
        raise UsageError("two rows of one split have the same path", where=where, remedy=remedy)
    return found


def whole_numbers(values: Values, what: str) -> IntArray:
    """Numbers [n] or [n, 1] as int64; raises `UsageError` for other shapes, and for any that is not whole."""
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if flat.ndim != 1 or flat.dtype.kind not in "biuf":
        problem = f"{what} have shape {list(values.shape)} and type {values.dtype}, not one value a row"
        raise UsageError(
            problem, where=what, remedy=f"save one number or text a row ({what}.argmax(1) of one-hot ones)"
        )
    with np.errstate(invalid="ignore"):
        found = flat.astype(np.int64)
        bad = (found != flat) | (np.abs(flat.astype(np.float64)) >= 2.0**53)
    if bad.any():
        row = int(np.argmax(bad))
        problem = f"{int(bad.sum())} {what} are not whole numbers, the first in row {row}: {flat[row]}"
        raise UsageError(problem, where=what, remedy=f"save whole numbers or texts as {what}")
    return found


def numbered(values: Values, names: Sequence[str] | None, what: str) -> tuple[IntArray, tuple[str, ...], list[str]]:
    """Labels (or domains) as indices of names that all occur, these names, and the names that no row has.

    names: what numbers, or texts, refer to; None for the numbers or texts that occur, in their order.

    Raises `UsageError` for numbers and texts that have no name, and for names that occur twice or are none.
    """
    text = values.dtype.kind == "O"
    occurring, indices = np.unique(values if text else whole_numbers(values, what), return_inverse=True)
    shown = list(map(str, occurring.tolist() if names is None else names))
    keys = occurring.tolist() if names is None else shown if text else list(range(len(shown)))
    place = {key: k for k, key in enumerate(keys)}
    nameless = [key for key in occurring.tolist() if key not in place or (not text and key < 0)]
    if nameless:
        remedy = "leave rows without a label out; where there are names, count from 0, or give all of them"
        raise UsageError(f"{len(nameless)} {what} have no name: {some(nameless)}", where=what, remedy=remedy)
    if (name := twice(tuple(shown))) is not None:
        raise UsageError(f"two {what} have the same name: {name!a}", where=what, remedy="give each one of its own")
    if odd := [name for name in shown if not name.isprintable() or not 0 < len(name) <= MAX_NAME]:
        remedy = f"give printable texts of 1 to {MAX_NAME} letters"
        raise UsageError(f"{ascii(odd[0])[:100]} cannot be a name", where=what, remedy=remedy)
    kept, back = np.unique([place[key] for key in occurring.tolist()], return_inverse=True)
    unused = np.setdiff1d(np.arange(len(shown)), kept)
    return back[indices], tuple(shown[k] for k in kept.tolist()), [shown[k] for k in unused.tolist()]


def some(names: Sequence[Any]) -> str:
    """The first few, as text."""
    return ", ".join(ascii(name).strip("'")[:60] for name in names[:5]) + (", ..." if len(names) > 5 else "")
