"""Features that were computed elsewhere, as arrays: rows of numbers, and what belongs to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.store.exchange.values import IntArray, Values

_FLOATS = ("<f2", "<f4", "<f8")


@dataclass(frozen=True)
class Features:
    """Rows of features. clean: [n, d], or [n, v, d] with the clean view first. views: further ones [n, V, d], or None.

    Raises `UsageError` for other shapes and types.
    """

    clean: NDArray[Any]
    views: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for what, array in (("features", self.clean), ("views", self.views)):
            if array is None:
                continue
            if array.dtype.newbyteorder("<").str not in _FLOATS:
                raise UsageError(
                    f"{what} have type {array.dtype}", where=what, remedy="save them as float16, float32 or float64"
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
                where="views",
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
        arrays = [array for array in (self.clean, self.views) if array is not None]
        return "float16" if all(array.dtype.newbyteorder("<").str == "<f2" for array in arrays) else "float32"

    def rows(self, chosen: IntArray) -> NDArray[Any]:
        """Some rows [k, 1+V, d]."""
        found = self.clean[chosen]
        if found.ndim == 2:
            found = found[:, None]
        return found if self.views is None else np.concatenate([found, self.views[chosen]], axis=1)


@dataclass(frozen=True)
class Part:
    """Rows that came together: all of them, or those of one split. paths: None to number the rows."""

    features: Features
    labels: Values
    domains: Values | None = None
    paths: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not len(self.features):
            raise UsageError("there are no rows", where="features", remedy="give rows of features")
        for what, values in (("labels", self.labels), ("domains", self.domains), ("paths", self.paths)):
            if values is not None and len(values) != len(self.features):
                raise UsageError(
                    f"there are {len(self.features)} rows of features, but {len(values)} {what}",
                    where=what,
                    remedy="give one of them for each row",
                )


@dataclass(frozen=True)
class ArraySource:
    """All arrays of an import: one part to be divided, or one for each split.

    parts: {"": part}, or {"train": part, "test": part}. split: a value a row, or (train's, test's) row numbers.
    split_name: what the split vector is called, which says what true means.
    """

    parts: dict[str, Part]
    split: Values | tuple[NDArray[Any], NDArray[Any]] | None = None
    split_name: str = "split"
    class_names: Sequence[str] | None = None
    domain_names: Sequence[str] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
