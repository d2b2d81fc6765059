"""Foreign features as they come, from a file or from memory: rows of numbers, and what belongs to each."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.store.exchange.roles import (
    CLASS_NAMES,
    DOMAIN_NAMES,
    DOMAINS,
    FEATURES,
    LABELS,
    PATHS,
    SPLIT,
    VIEWS,
    Roles,
)
from tosca_cache.store.exchange.values import Values
from tosca_cache.store.layout import SPLITS
from tosca_cache.untrusted import UntrustedFile
from tosca_cache.untrusted.headers import BFLOAT16, TEXT

_FLOATS = ("<f2", "<f4", "<f8")


@dataclass(frozen=True)
class Features:
    """Rows of features that need not be in memory.

    clean: [n, d], or [n, v, d] with the clean view first. views: further ones [n, V, d], or None.
    bfloat16: the bits of bfloat16 are kept as two-byte whole numbers.

    Raises `UsageError` for other shapes and types.
    """

    clean: NDArray[Any]
    views: NDArray[Any] | None = None
    bfloat16: bool = False

    def __post_init__(self) -> None:
        for what, array in ((FEATURES, self.clean), (VIEWS, self.views)):
            if array is None:
                continue
            allowed = ("<u2", "|V2") if self.bfloat16 else _FLOATS
            if array.dtype.newbyteorder("<").str not in allowed:
                raise UsageError(
                    f"{what} have type {array.dtype}" + (", which cannot hold bfloat16" if self.bfloat16 else ""),
                    where=what,
                    remedy="leave --bfloat16 out" if self.bfloat16 else _type_remedy(array.dtype),
                )
            if array.ndim not in (2, 3) or 0 in array.shape[1:]:
                raise UsageError(
                    f"{what} have shape {list(array.shape)}", where=what, remedy="give [rows, d] or [rows, views, d]"
                )
        if self.views is not None and (
            self.views.ndim != 3 or (len(self.views), self.views.shape[-1]) != (len(self.clean), self.clean.shape[-1])
        ):
            raise UsageError(
                f"views of shape {list(self.views.shape)} do not go with features of shape {list(self.clean.shape)}",
                where=VIEWS,
                remedy="give views [rows, V, d] of the same rows and width",
            )

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def dim(self) -> int:
        """Width d."""
        return int(self.clean.shape[-1])

    @property
    def width(self) -> int:
        """1+V: views of a row, the clean one included."""
        own = self.clean.shape[1] if self.clean.ndim == 3 else 1
        return int(own + (0 if self.views is None else self.views.shape[1]))

    @property
    def exact_dtype(self) -> str:
        """The stored dtype that keeps every value: float16 for float16; float32 else, which float64 is rounded to."""
        return "float16" if self.clean.dtype.newbyteorder("<").str == "<f2" and self._views_are("<f2") else "float32"

    def rows(self, chosen: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows [k, 1+V, d], floating."""
        found = _chosen(self.clean, chosen)
        if found.ndim == 2:
            found = found[:, None]
        if self.views is not None:
            found = np.concatenate([found, _chosen(self.views, chosen)], axis=1)
        if self.bfloat16:
            found = (np.ascontiguousarray(found).view("<u2").astype(np.uint32) << 16).view(np.float32)
        return found

    def _views_are(self, dtype: str) -> bool:
        return self.views is None or self.views.dtype.newbyteorder("<").str == dtype


@dataclass(frozen=True)
class Part:
    """Rows that came together: all of them, or those of one split. paths: None to number the rows."""

    features: Features
    labels: Values
    domains: Values | None = None
    paths: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for what, values in ((LABELS, self.labels), (DOMAINS, self.domains), (PATHS, self.paths)):
            if values is not None and len(values) != len(self.features):
                raise UsageError(
                    f"there are {len(self.features)} rows of features, but {len(values)} {what}",
                    where=what,
                    remedy="give one of them for each row",
                )


@dataclass(frozen=True)
class Given:
    """Everything that came: one part to be divided, or one for each split.

    parts: {"": part}, or {"train": part, "test": part}. split: a value a row, or (train's, test's) row numbers.
    split_name: what the split vector is called, which says what true means.
    """

    parts: dict[str, Part]
    split: Values | tuple[NDArray[Any], NDArray[Any]] | None = None
    split_name: str = SPLIT
    class_names: Sequence[str] | None = None
    domain_names: Sequence[str] | None = None
    roles: dict[str, Any] = field(default_factory=dict)


def load(files: Sequence[tuple[UntrustedFile, Roles]], scratch: Path, *, bfloat16: bool) -> Given:
    """Reads everything that has a role. Features go to a file without a name in `scratch`, which ends with the process.

    files: one file; or train's and test's.
    """
    file, roles = files[0]
    if len(files) == 2:
        both = zip(SPLITS, files, strict=True)
        parts = {split: _load_part(file, roles, None, scratch, bfloat16) for split, (file, roles) in both}
    elif roles.separate:
        parts = {split: _load_part(file, roles, split, scratch, bfloat16) for split in SPLITS}
    else:
        parts = {"": _load_part(file, roles, None, scratch, bfloat16)}
    split_name = roles.names.get(SPLIT)
    split: Any = None
    if isinstance(split_name, tuple):
        split = tuple(file.read(name) for name in split_name)
    elif split_name is not None and len(files) == 1:
        split = _values(file, split_name)
    names = {role: _names(file, roles.of(role)) for role in (CLASS_NAMES, DOMAIN_NAMES)}
    mapping = roles.to_dict() if len(files) == 1 else {s: r.to_dict() for s, (_, r) in zip(SPLITS, files, strict=True)}
    shown = split_name if isinstance(split_name, str) else SPLIT
    return Given(parts, split, shown, names[CLASS_NAMES], names[DOMAIN_NAMES], mapping)


def _load_part(file: UntrustedFile, roles: Roles, split: str | None, scratch: Path, bfloat16: bool) -> Part:
    features, labels, views = (roles.of(role, split) for role in (FEATURES, LABELS, VIEWS))
    domains, paths = roles.of(DOMAINS, split), roles.of(PATHS, split)
    assert features is not None
    assert labels is not None
    return Part(
        Features(
            _spool(file, features, scratch), None if views is None else _spool(file, views, scratch), bfloat16=bfloat16
        ),
        _values(file, labels),
        None if domains is None else _values(file, domains),
        None if paths is None else file.texts(paths),
    )


def _spool(file: UntrustedFile, name: str, scratch: Path) -> NDArray[Any]:
    """An array on disk, mapped into memory; the file has no name, so that it is gone whatever happens to the process."""
    header = file.arrays[name]
    if header.dtype in ("", TEXT):
        file.read(name)  # raises
    if not header.bytes:
        raise UsageError(f"array {name!r} has no rows: {header.describe()}", where=file.path, remedy="name another one")
    with file_errors(scratch, StoreError, option="--root"), tempfile.TemporaryFile(dir=scratch) as spool:
        for start in range(0, header.rows, header.block_rows()):
            spool.write(file.read(name, start, min(header.rows, start + header.block_rows())).data)
        spool.flush()
        dtype = "<u2" if header.dtype == BFLOAT16 else header.dtype
        found: NDArray[Any] = np.memmap(spool, dtype=dtype, mode="r", shape=header.shape)
    return found.T if header.transposed else found


def _values(file: UntrustedFile, name: str) -> Values:
    header = file.arrays[name]
    if header.dtype == TEXT:
        return file.texts(name)
    found = file.read(name)
    return found.T if header.transposed else found


def _names(file: UntrustedFile, name: str | None) -> list[str] | None:
    return None if name is None else file.texts(name)


def _chosen(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    if rows.size and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.asarray(array[rows[0] : rows[-1] + 1])
    return np.asarray(array[rows])


def _type_remedy(dtype: np.dtype[Any]) -> str:
    if dtype.newbyteorder("<").str in ("<u2", "|V2"):
        return "add --bfloat16 if these are the bits of bfloat16, else save them as float32"
    return "save them as float16, float32 or float64"
