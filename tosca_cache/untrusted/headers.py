"""What is said about an array before any of its values are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

TEXT = "text"  # the dtype of texts; everything else is a numpy dtype string such as "<f4"
BFLOAT16 = "|V2"  # two bytes of no declared meaning, as ml_dtypes' bfloat16 is saved
MAX_ARRAYS = 1024
MAX_DIMENSIONS = 8
MAX_NAME = 512
TEXT_BYTES = 64 << 10  # longest text, in UTF-8
BLOCK_BYTES = 8 << 20  # most bytes of one reply, unless one row has more
TEXT_ROWS = 4096  # texts of one reply
ROW_BYTES = 64 << 20  # most bytes of one row
_LIMIT = 1 << 62
_NUMBERS = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}


class Refused(Exception):
    """Something in a file that is not accepted: what is wrong with it, and what to do about it."""

    def __init__(self, problem: str, remedy: str = "Write the file again with numpy.savez or h5py.") -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


@dataclass(frozen=True)
class Header:
    """One array of a file.

    shape: in C order; `transposed` means that the array proper has these dimensions backwards.
    dtype: little-endian numpy dtype string, or `text`; empty if it cannot be read, and then `why` says why not.
    item_bytes: bytes of one value in the file. chunk_rows: rows that the file keeps together.
    plain: whether nothing compresses it, so that it cannot be larger than its file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    item_bytes: int
    chunk_rows: int = 1
    transposed: bool = False
    plain: bool = True
    why: str = ""

    def __post_init__(self) -> None:
        kinds = {"name": str, "dtype": str, "why": str, "item_bytes": int, "chunk_rows": int}
        kinds |= {"transposed": bool, "plain": bool, "shape": tuple}
        for field, kind in kinds.items():
            if type(getattr(self, field)) is not kind:
                raise ValueError(f"{field} of an array is {getattr(self, field)!r}")
        if not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable() or len(self.why) > MAX_NAME:
            raise ValueError("an array has no name, an endless one, or one that cannot be printed")
        if len(self.shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < _LIMIT for n in self.shape):
            raise ValueError(f"array {self.name!r} has no possible shape")
        if self.dtype not in ("", TEXT) and number_dtype(np.dtype(self.dtype)) != self.dtype:
            raise ValueError(f"array {self.name!r} has no possible dtype")
        if not 0 <= self.item_bytes < _LIMIT or not 0 < self.chunk_rows < _LIMIT:
            raise ValueError(f"array {self.name!r} has no possible size")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Header:
        """The inverse of `to_dict`; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        return cls(**{**value, "shape": tuple(value["shape"])})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def true_shape(self) -> tuple[int, ...]:
        """The shape of the array proper."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def rows(self) -> int:
        """Length of the first stored dimension; 1 for a single value."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes that the header promises for each of them."""
        return math.prod(self.shape[1:]) * self.item_bytes

    @property
    def bytes(self) -> int:
        """Bytes that the header promises."""
        return self.rows * self.row_bytes

    def block_rows(self) -> int:
        """Rows to read at once: whole chunks, as many as a block takes, at least one."""
        fits = TEXT_ROWS if self.dtype == TEXT else max(1, BLOCK_BYTES // max(1, self.row_bytes))
        return fits - fits % self.chunk_rows or fits

    def describe(self) -> str:
        """Such as `emb [60000, 768] float32`."""
        shape = ", ".join(map(str, self.true_shape))
        kind = self.dtype if self.dtype in ("", TEXT) else str(np.dtype(self.dtype))
        return f"{self.name} [{shape}] {kind or self.why}"


def number_dtype(dtype: np.dtype[Any]) -> str:
    """The little-endian dtype string of numbers that can be read; empty for anything else."""
    if dtype.names is not None or dtype.subdtype is not None or dtype.hasobject:
        return ""
    if dtype.kind == "V" and dtype.itemsize == 2:
        return BFLOAT16
    if dtype.itemsize not in _NUMBERS.get(dtype.kind, ()):
        return ""
    return dtype.newbyteorder("<").str
