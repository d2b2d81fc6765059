"""What goes into a model and comes out of it: lessons, what they changed, and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
DIGEST = 16  # bytes
TAUGHT = np.dtype([("digests", np.uint8, DIGEST), ("indices", np.int64), ("steps", np.int64), ("rows", np.int64)])


@dataclass(frozen=True)
class Lesson:
    """Rows to be taught at once.

    features: [n, 1+V, d]. names: class of each row, [n]. digests: what tells photos (or rows) apart, [n, 16] bytes.
    source: where they come from. store, fingerprint, rows: the store that has them, and their numbers in it, [n].
    left_out: how many photos are not among them because the model knows them.
    """

    features: FloatArray
    names: Sequence[str]
    digests: NDArray[np.uint8]
    source: str | None = None
    store: str | None = None
    fingerprint: str | None = None
    rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    left_out: int = 0

    def part(self, kept: NDArray[np.bool_]) -> Lesson:
        """Some of the rows."""
        return replace(
            self,
            features=self.features[kept],
            names=[name for name, keep in zip(self.names, kept.tolist(), strict=True) if keep],
            digests=self.digests[kept],
            rows=self.rows[kept] if len(self.rows) else self.rows,
        )


def taught_rows(
    digests: NDArray[np.uint8], indices: IntArray, steps: IntArray | int, rows: IntArray | int
) -> NDArray[np.void]:
    """A table of `TAUGHT`: digest, class number, step of the history and row of its store (-1 without) of every row."""
    table = np.empty(len(indices), TAUGHT)
    table["digests"], table["indices"], table["steps"], table["rows"] = digests, indices, steps, rows
    return table


@dataclass(frozen=True)
class Taught:
    """What a lesson changed: images of each new and each known class; accuracies on held-out photos in percent, or None.

    before: of the old classes, before. old, new_accuracy: of the old and of the new classes, afterwards. left_out: how many
    photos the model knew already.
    """

    new: Mapping[str, int]
    known: Mapping[str, int]
    seconds: float = 0.0
    before: float | None = None
    old: float | None = None
    new_accuracy: float | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Answers:
    """Answers for n rows, likeliest first.

    labels: names, [n, k]. probabilities: [n, k]. novelty: [n]; above `novelty.LIMIT` a row looks like none of the classes.
    """

    labels: NDArray[np.object_]
    probabilities: NDArray[np.float64]
    novelty: NDArray[np.float64]
