"""What goes into a model and comes out of it: lessons, what they changed, and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.shown import Shown

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
DIGEST = 16  # bytes
TAUGHT = np.dtype([("digests", np.uint8, DIGEST), ("indices", np.int64), ("steps", np.int64), ("rows", np.int64)])


@dataclass(frozen=True)
class Lesson:
    """Rows to be taught at once.

    features: [n, 1+V, d]. names: class of each row, [n]. digests: what tells photos (or rows) apart, [n, 16] bytes.
    source: where they come from. store, fingerprint, rows: the store that has them, and their numbers in it, [n].
    """

    features: FloatArray
    names: Sequence[str]
    digests: NDArray[np.uint8]
    source: str | None = None
    store: str | None = None
    fingerprint: str | None = None
    rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))


def taught_rows(digests: NDArray[np.uint8], indices: IntArray, step: int, rows: IntArray | int) -> NDArray[np.void]:
    """A table of `TAUGHT`: digest, class number, step of the history and row of its store (-1 without) of every row."""
    table = np.empty(len(indices), TAUGHT)
    table["digests"], table["indices"], table["steps"], table["rows"] = digests, indices, step, rows
    return table


@dataclass(frozen=True)
class Taught(Shown):
    """What a lesson changed: images of each new and each known class; accuracies on held-out photos in percent, or None.

    before: of the old classes, before. old, new: of the old and of the new classes, afterwards.
    """

    new: Mapping[str, int]
    known: Mapping[str, int]
    seconds: float
    before: float | None
    old: float | None
    new_accuracy: float | None

    def facts(self) -> dict[str, Any]:
        """What it is."""
        return {"new": len(self.new), "known": len(self.known), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Answers(Shown):
    """Answers for n rows, likeliest first.

    labels: names, [n, k]. probabilities: [n, k]. novelty: [n]; above `novelty.LIMIT` a row looks like none of the classes.
    """

    labels: NDArray[np.object_]
    probabilities: NDArray[np.float64]
    novelty: NDArray[np.float64]

    def facts(self) -> dict[str, Any]:
        """What they are."""
        return {"rows": len(self.labels), "top": self.labels.shape[1]}
