"""Buffer of one shard: reused rows first, computed rows as they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.base import IntArray
from tosca_cache.datasets.transforms import VIEW_COLUMNS
from tosca_cache.store import Shard

if TYPE_CHECKING:
    from tosca_cache.extract.engine import Computed

Mask = NDArray[np.bool_]
COMPUTED = -1  # the source of what does not come from another store


@dataclass(frozen=True)
class ReusedRows:
    """What other stores give to a shard of n rows.

    features: [n, 1+V, d]. views: their parameters [n, 1+V, 6]. source: [n, 1+V], the number of the store that gives a view,
    `COMPUTED` for what none gives (its features and parameters are zeros). Whoever gives any view of a row gives view 0.
    """

    features: NDArray[np.floating[Any]]
    views: IntArray
    source: IntArray

    @classmethod
    def nothing(cls, rows: int, views: int, dim: int, dtype: str) -> ReusedRows:
        """Of as many rows and views, no view is known."""
        parameters = np.zeros((rows, views, len(VIEW_COLUMNS)), dtype=np.int64)
        return cls(np.zeros((rows, views, dim), dtype), parameters, np.full((rows, views), COMPUTED))

    @property
    def missing(self) -> Mask:
        """Which views are to be computed, [n, 1+V]."""
        return self.source == COMPUTED


@dataclass(frozen=True)
class ShardBuffer:
    """The rows of a shard; see `Known` for the arrays. skipped: row of the split -> why its image could not be read."""

    shard: Shard
    features: NDArray[np.float32]
    views: IntArray
    source: IntArray
    skipped: dict[int, str] = field(default_factory=dict)

    @classmethod
    def begun(cls, first: Computed, dim: int) -> ShardBuffer:
        """What is known of the shard of its first group; features that are not are NaN."""
        shard, reused = first.group.shard, first.group.reused
        reused = reused or ReusedRows.nothing(shard.rows, first.made.shape[1], dim, "float32")
        features = np.where(reused.missing[..., None], np.float32("nan"), reused.features.astype(np.float32))
        return cls(shard, features, reused.views.copy(), reused.source.copy())

    def put(self, computed: Computed) -> None:
        """Adds what was computed of a group; it takes the place of what was known."""
        place, made = computed.group.place, computed.made
        self.features[place][made] = computed.features
        self.views[place][made] = computed.views[made]
        self.source[place][made] = COMPUTED
        for row, reason in computed.skipped.items():
            self.views[row - self.shard.start] = 0
            self.source[row - self.shard.start] = COMPUTED
            self.skipped[row] = reason

    def taken(self, stores: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """(rows, views) that each store that gave something gave; `stores` are their names by number."""
        counts = {name: count(self.source == number) for number, name in enumerate(stores)}
        return {name: found for name, found in counts.items() if found[1]}


def count(mask: Mask) -> tuple[int, int]:
    """(rows with any view, views) of a mask [n, 1+V]."""
    return int(mask.any(axis=1).sum()), int(mask.sum())


def gather(computed: Iterator[Computed], dim: int) -> Iterator[tuple[Computed, ShardBuffer | None]]:
    """Every group as it comes, in order; with the last one of a shard the whole shard."""
    rows: ShardBuffer | None = None
    for part in computed:
        rows = rows or ShardBuffer.begun(part, dim)
        rows.put(part)
        done = part.group.stop == rows.shard.stop
        yield part, rows if done else None
        rows = None if done else rows
