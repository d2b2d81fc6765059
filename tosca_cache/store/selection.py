"""From what a caller asks for, rows and views, to the chunks that have to be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.store.layout import SplitLayout

Selection = slice | NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int] | None
Positions = slice | NDArray[np.int64]  # a slice is ascending, without gaps, with both ends given


@dataclass(frozen=True)
class Piece:
    """Rows `local` of one chunk of one shard, which go to rows `target` of the result.

    whole: both are the full chunk in order, so that it can be read into its place.
    """

    shard: int
    chunk: int
    local: Positions
    target: Positions
    whole: bool


def positions(chosen: Selection, size: int, what: str) -> Positions:
    """The chosen numbers below `size`, negative ones counted from the end; raises `IndexError` for others."""
    if chosen is None:
        return slice(0, size)
    if isinstance(chosen, slice):
        numbers = np.arange(size, dtype=np.int64)[chosen]
    else:
        given = np.asarray(chosen)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iub"):
            raise IndexError(f"{what}s are chosen by a slice or a list of whole numbers, not by {chosen!r}")
        if given.dtype.kind == "b" and len(given) != size:
            raise IndexError(f"a mask of {what}s must have {size} entries, not {len(given)}")
        numbers = np.flatnonzero(given) if given.dtype.kind == "b" else given.astype(np.int64)
        if numbers.size and not -size <= numbers.min() <= numbers.max() < size:
            raise IndexError(f"there are {size} {what}s, but {numbers.min()} to {numbers.max()} were asked for")
        numbers = np.where(numbers < 0, numbers + size, numbers)
    return _as_run(numbers)


def count(chosen: Positions) -> int:
    """How many numbers were chosen."""
    return chosen.stop - chosen.start if isinstance(chosen, slice) else len(chosen)


def is_all(chosen: Positions, size: int) -> bool:
    """Whether these are all numbers below `size`, in order."""
    return isinstance(chosen, slice) and (chosen.start, chosen.stop) == (0, size)


def pieces_by_shard(rows: Positions, layout: SplitLayout) -> list[list[Piece]]:
    """What has to be read, one list a shard."""
    pieces = _run_pieces(rows, layout) if isinstance(rows, slice) else _scattered_pieces(rows, layout)
    return [list(group) for _, group in groupby(pieces, key=lambda piece: piece.shard)]


def _run_pieces(rows: slice, layout: SplitLayout) -> Iterator[Piece]:
    size = layout.chunk_rows
    for number in range(rows.start // size, -(-rows.stop // size)):
        first = number * size
        start, stop = max(rows.start, first), min(rows.stop, first + size)
        local, target = slice(start - first, stop - first), slice(start - rows.start, stop - rows.start)
        shard, chunk = divmod(number, layout.chunks)
        yield Piece(shard, chunk, local, target, whole=stop - start == size)


def _scattered_pieces(rows: NDArray[np.int64], layout: SplitLayout) -> Iterator[Piece]:
    size = layout.chunk_rows
    order = np.argsort(rows, kind="stable")
    numbers, starts = np.unique(rows[order] // size, return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        local, target = _as_run(rows[places] - number * size), _as_run(places)
        whole = is_all(local, size) and isinstance(target, slice)
        shard, chunk = divmod(number, layout.chunks)
        yield Piece(shard, chunk, local, target, whole)


def _as_run(numbers: NDArray[np.int64]) -> Positions:
    if numbers.size == 0:
        return slice(0, 0)
    if numbers[-1] - numbers[0] == numbers.size - 1 and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers.astype(np.int64, copy=False)
