"""Features that were computed elsewhere, in files or in memory, as a store that says so.

import_file(Path("clip.npz"), ImportOptions(root, "birds", "clip"), {})
import_arrays([{"features": ..., "labels": ...}], ImportOptions(root, "birds"), {}, split=is_test)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache import __version__
from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.names import STORE_NAME, twice
from tosca_cache.store.arrays import IntArray
from tosca_cache.store.catalogue import store_path
from tosca_cache.store.content import NOT_FINITE, TOO_LARGE, ZERO, check_path, storable
from tosca_cache.store.external import PER_ROW, Values, find_columns, read_arrays
from tosca_cache.store.layout import SPLITS, VIEW_PARAMETERS
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.spec import DTYPES, UNKNOWN, StoreSpec
from tosca_cache.store.writer import StoreWriter

IMPORTED = "imported"
MAX_NAME = 80
BLOCK = 8 << 20  # bytes of features that are looked at together
_MEANING = {"train": "train", "0": "train", "false": "train", "test": "test", "1": "test", "true": "test"}
Part = Mapping[str, Values]  # what all rows have, or those of one split, by role


@dataclass(frozen=True)
class ImportOptions:
    """What the store of imported features is called, and how rows become it.

    root: where it will be. dataset: name that it is asked for by. backbone: what made the features, `arch` or `arch.tag`.
    store_dtype: `float16` or `float32`; None for the one that keeps every value.
    drop_bad: leave out rows of NaN, infinity, zeros, or too large for the dtype; they are counted in the fingerprint.

    Raises `UsageError` for what cannot be.
    """

    root: Path
    dataset: str
    backbone: str = IMPORTED
    store_dtype: str | None = None
    drop_bad: bool = False

    def __post_init__(self) -> None:
        for option, name in (("--dataset", self.dataset), ("--backbone", self.backbone)):
            if not STORE_NAME.fullmatch(name) or len(name) > MAX_NAME:
                remedy = f"use letters, digits, dots, dashes and underscores, {MAX_NAME} of them at most"
                raise UsageError(f"{ascii(name)[:100]} is no name", where=option, remedy=remedy)
        if self.store_dtype not in (None, *DTYPES):
            problem = f"features cannot be stored as {self.store_dtype!r}"
            raise UsageError(problem, where="--store-dtype", remedy=f"use {' or '.join(DTYPES)}")


def import_file(path: Path, options: ImportOptions, named: Mapping[str, str]) -> tuple[Store, list[str]]:
    """The store of the arrays of a file, and what a user should know about it, a sentence each.

    Arguments:
        named: {role: array}, of which some may be .npy files; see `find_columns`.

    Raises `UsageError` or `StoreError`, and then leaves nothing there.
    """
    columns: dict[str, tuple[str, ...]] = {}

    def choose(there: list[str]) -> set[str]:
        """The arrays of all roles."""
        columns.update(find_columns(there, path, named))
        return {name for names in columns.values() for name in names}

    beside = sorted({name for name in named.values() if name.lower().endswith(".npy")})
    values = read_arrays(path, choose, beside)
    files, count = [path, *map(Path, beside)], len(columns["features"])
    parts = [{role: values[columns[role][k]] for role in PER_ROW if role in columns} for k in range(count)]
    whole: dict[str, Any] = {role: values[names[0]] for role, names in columns.items() if role not in PER_ROW}
    arrays = {role: names[0] if len(names) == 1 else list(names) for role, names in columns.items()}
    described = {"files": [{"name": one.name, "sha256": _sha256(one)} for one in files], "arrays": arrays}
    facts = {"files": [str(one.absolute()) for one in files]}
    store, notes = import_arrays(parts, options, described, facts=facts, **whole)
    read = "; ".join(f"{role.replace('_', ' ')}: {', '.join(names)}" for role, names in columns.items())
    return store, [f"read from {path.name}: {read}", *notes]


def import_arrays(
    parts: Sequence[Part],
    options: ImportOptions,
    described: Mapping[str, Any],
    *,
    split: Values | None = None,
    class_names: Sequence[str] | None = None,
    domain_names: Sequence[str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[Store, list[str]]:
    """Makes the store, or goes on with one whose import was killed; returns it, and what a user should know.

    Arguments:
        parts: of all rows, or train's and test's: `features` [n, d] or [n, 1+V, d] with the clean view first, `labels`,
            and maybe `domains` and `paths`, of n rows.
        described: by what this import differs from others (`StoreSpec.source`). facts: for the provenance.
        split: a value a row, which divides the one part. class_names, domain_names: what numbers refer to.

    Raises `UsageError` for features, labels or splits that cannot make a store, before anything is written.
    """
    for part in parts:
        _check_shapes(part if split is None else {**part, "values of the split": split})
    both = {"train": parts[0], "test": parts[-1]}
    rows, notes = _divide(parts, split)
    labels, classes = _numbered("labels", both, rows, class_names)
    domains, areas = _numbered("domains", both, rows, domain_names)
    widest = max(part["features"].dtype.itemsize for part in parts)
    dtype = options.store_dtype or ("float16" if widest == 2 else "float32")
    own: dict[str, dict[str, Any]] = {}
    for s, part in both.items():
        good = _good_rows(part["features"], rows[s], dtype, s, drop=options.drop_bad)
        own[s] = {"features": part["features"], "labels": labels[s][good], "domains": domains[s][good]}
        own[s] |= {"rows": rows[s][good], "paths": _paths(part, rows[s][good], s)}
        if (missing := np.setdiff1d(np.arange(len(classes)), own[s]["labels"])).size:
            problem = f"{missing.size} classes have no rows of {s}: {_some([classes[c] for c in missing])}"
            raise UsageError(problem, where="--labels", remedy="leave the classes out, or add rows of them")
    described = {"kind": IMPORTED, **described}
    dropped = {s: len(rows[s]) - len(own[s]["rows"]) for s in SPLITS}
    if any(dropped.values()):
        described["dropped"] = dropped
        counts = ", ".join(f"{count} of {s}" for s, count in dropped.items())
        notes.append(f"rows that no store can hold are left out: {counts}")
    spec = _spec(own, classes, areas, options, dtype, described)
    with file_errors(options.root, StoreError, option="--root"):
        options.root.mkdir(parents=True, exist_ok=True)
    path = store_path(options.root, spec)
    if path.exists():
        return open_store(path), [*notes, "this store is there already; nothing to do"]
    with StoreWriter.open(path, spec, class_names=classes, domain_names=areas, numerics={}) as writer:
        for shard in writer.pending():
            writer.publish(shard, _rows(own[shard.split], slice(shard.start, shard.stop)))
        return writer.finish({"tosca_cache": __version__, "source": dict(facts or {})}), notes


def _rows(own: Mapping[str, Any], at: slice) -> dict[str, Any]:
    """Some rows of a split as a shard has them."""
    features = own["features"][own["rows"][at]]
    features = features.reshape(len(features), -1, features.shape[-1])
    views = np.zeros((*features.shape[:2], VIEW_PARAMETERS), dtype=np.int64)
    return {name: own[name][at] for name in ("labels", "domains", "paths")} | {"features": features, "views": views}


def _paths(part: Part, rows: IntArray, split: str) -> tuple[str, ...]:
    """Paths of some rows, or their numbers; raises `UsageError` or `StoreError` for those that no store can hold."""
    paths = tuple(part["paths"][rows].tolist() if "paths" in part else (f"row-{row:08d}" for row in rows.tolist()))
    for path in paths:
        check_path(path)
    if (double := twice(paths)) is not None:
        where = f"paths of {split}: {ascii(double)[:200]}"
        raise UsageError("two rows of one split have the same path", where=where, remedy="save other paths, or none")
    return paths


def _sha256(path: Path) -> str:
    with file_errors(path, StoreError, option="another path"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(parts: Sequence[Part]) -> str:
    """SHA-256 of features in memory, where there is no file; all else that they have is in the listing's digest."""
    digest = hashlib.sha256()
    for part in parts:
        rows = part["features"]
        little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str} {little.shape}\n".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check_shapes(part: Part) -> None:
    features, wrong, remedy = part["features"], "", "give [rows, d] or [rows, views, d]"
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        wrong, remedy = f"type {features.dtype}", "save them as float16, float32 or float64"
    elif features.ndim not in (2, 3) or 0 in features.shape:
        wrong = f"shape {list(features.shape)}"
    if wrong:
        raise UsageError(f"features have {wrong}", where="features", remedy=remedy)
    for what, values in part.items():
        if values.shape[:1] != features.shape[:1]:
            problem = f"there are {len(features)} rows of features, but {sum(values.shape[:1])} {what}"
            raise UsageError(problem, where=what, remedy="give one of them for each row, or none")
        kinds = {"features": "f", "paths": "O"}.get(what, "biuO")
        if values.dtype.kind not in kinds or (values.ndim > 1 and what != "features"):
            problem = f"{what} have shape {list(values.shape)} and type {values.dtype}, not one value a row"
            form = "texts" if what == "paths" else "whole numbers or texts"
            raise UsageError(problem, where=what, remedy=f"save {form}")


def _divide(parts: Sequence[Part], split: Values | None) -> tuple[dict[str, IntArray], list[str]]:
    """The rows of train and of test, of their own part or of the one, and what a user should know."""
    if (split is None) == (len(parts) == 1):
        problem = "which rows are for testing is not said" if split is None else "train and test have a split already"
        remedy = "give either an array that says it (--split), or arrays of train and of test"
        raise UsageError(problem, where="--split", remedy=remedy)
    if split is None:
        return {s: np.arange(len(part["features"])) for s, part in zip(SPLITS, parts, strict=True)}, []
    found = np.array([_MEANING.get(str(value).lower(), "") for value in split.tolist()])
    others = _some(sorted({str(value) for value in split[found == ""].tolist()}))
    if not {*SPLITS} <= {*found} or (others and split.dtype.kind != "O"):
        problem = f"what the values of the split mean is not clear: {_some(sorted({*map(str, split.tolist())}))}"
        remedy = "save a split of true (test) and false (train), or of texts train and test"
        raise UsageError(problem, where="--split", remedy=remedy)
    notes = [f"rows of other splits are left out: {others} ({np.count_nonzero(found == '')} rows)"] if others else []
    return {s: np.flatnonzero(found == s) for s in SPLITS}, notes


def _numbered(
    role: str, both: Mapping[str, Part], rows: Mapping[str, IntArray], names: Sequence[str] | None
) -> tuple[dict[str, IntArray], tuple[str, ...]]:
    """Labels or domains of the rows of each split as indices of names that all occur, and these names.

    names: what numbers refer to; None for the numbers or texts that occur, in their order.
    """
    given = [both[s][role][rows[s]] for s in SPLITS if role in both[s]]
    if role == "domains" and not given:
        return {s: np.zeros(len(rows[s]), np.int64) for s in SPLITS}, ("",)
    if len(given) < 2 or (given[0].dtype.kind == "O") != (given[1].dtype.kind == "O"):
        problem = f"{role} are numbers, texts or nothing in one split only"
        raise UsageError(problem, where=role, remedy=f"give {role} of both splits in one form")
    occurring, indices = np.unique(np.concatenate(given), return_inverse=True)
    keys = occurring.tolist()
    if given[0].dtype.kind != "O":
        if nameless := [key for key in keys if key < 0 or (names is not None and key >= len(names))]:
            problem = f"{len(nameless)} {role} have no name: {_some(nameless)}"
            raise UsageError(problem, where=role, remedy="count from 0, give all names, or leave such rows out")
        keys = keys if names is None else [names[key] for key in keys]
    shown = tuple(map(str, keys))
    if (name := twice(shown)) is not None:
        raise UsageError(f"two {role} have the same name: {name!a}", where=role, remedy="give each one of its own")
    return dict(zip(SPLITS, np.split(indices, [len(given[0])]), strict=True)), shown


def _good_rows(features: Values, rows: IntArray, dtype: str, split: str, *, drop: bool) -> IntArray:
    """Which of some rows a store can hold; raises `UsageError` if there are others, unless they are to be dropped."""
    step = max(1, BLOCK // (4 * features[0].size))
    blocks = (features[rows[start : start + step]] for start in range(0, len(rows), step))
    problems = np.concatenate([storable(block.reshape(len(block), -1, block.shape[-1]), dtype)[1] for block in blocks])
    if problems.any() and not drop:
        first, count = int(np.argmax(problems > 0)), np.count_nonzero(problems)
        problem, remedy = {
            NOT_FINITE: ("a value is NaN or infinite", "leave such rows out"),
            TOO_LARGE: (f"a value is too large for {dtype}", "add --store-dtype float32"),
            ZERO: (f"a view is all zeros in {dtype}, so that it has no direction", "add --store-dtype float32"),
        }[int(problems[first])]
        raise UsageError(
            problem + (f" ({count} such rows)" if count > 1 else ""),
            where=f"row {int(rows[first])} of the features ({split})",
            remedy=f"{remedy}, or add --drop-bad",
        )
    return np.flatnonzero(problems == 0)


def _spec(
    own: Mapping[str, Any],
    classes: Sequence[str],
    areas: Sequence[str],
    options: ImportOptions,
    dtype: str,
    source: Mapping[str, Any],
) -> StoreSpec:
    shapes = {s: own[s]["features"].shape for s in SPLITS}
    dim, views = shapes["train"][-1], {s: shape[1] if len(shape) == 3 else 1 for s, shape in shapes.items()}
    if dim != shapes["test"][-1]:
        problem = f"train features have width {dim}, test features {shapes['test'][-1]}"
        raise UsageError(problem, where="--features", remedy="give features of one backbone")
    listed = {s: [own[s]["paths"], own[s]["labels"].tolist(), own[s]["domains"].tolist()] for s in sorted(SPLITS)}
    listing = {"classes": classes, "domains": areas, "splits": listed}
    text = json.dumps(listing, ensure_ascii=True, separators=(",", ":"))  # as `ImageDataset.listing_digest` has it
    arch, _, tag = options.backbone.partition(".")
    return StoreSpec(
        dataset={
            "name": options.dataset,
            "listing_digest": hashlib.sha256(text.encode()).hexdigest(),
            "classes": len(classes),
            "splits": {s: len(own[s]["rows"]) for s in SPLITS},
        },
        backbone={"name": arch, "tag": tag, "weights_digest": UNKNOWN, "dim": dim},
        transform={},
        views={"count": views["train"] - 1, "seed": 0, "test_count": views["test"] - 1},
        precision=UNKNOWN,
        dtype=dtype,
        source=source,
    )


def _some(names: Sequence[Any]) -> str:
    """The first few, as text."""
    return ", ".join(ascii(name).strip("'")[:60] for name in names[:5]) + (", ..." if len(names) > 5 else "")
