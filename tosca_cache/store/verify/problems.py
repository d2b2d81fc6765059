"""What can be wrong with a store, each thing with its place, and whether `repair` can mend it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.shown import Shown
from tosca_cache.store.layout import Shard
from tosca_cache.store.manifest import Manifest

MANIFEST_BAD = "manifest"  # restored from its copy
COPY_BAD = "manifest copy"  # restored from the manifest
PROVENANCE_BAD = "provenance"  # sealed again, as far as it can be read
METADATA_BAD = "zarr metadata"  # written again
OBJECT_BAD = "object"  # computed again
LITTER = "litter"  # a killed writer's temporary file: removed
FOREIGN = "foreign"  # a file, folder or link that does not belong here: for its owner to remove
CONTENT = "content"  # as it was written, but not as it should have been
MENDABLE = frozenset((MANIFEST_BAD, COPY_BAD, PROVENANCE_BAD, METADATA_BAD, OBJECT_BAD, LITTER))
SHOWN = 5  # rows that a problem names


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    kind: one of the constants above. where: the file or folder, relative to the store. what: what is wrong with it.
    shard, array: the object concerned, if it is one; rows: the rows concerned, the first and one past the last.
    """

    kind: str
    where: str
    what: str
    shard: Shard | None = None
    array: str | None = None
    rows: tuple[int, int] | None = None

    @property
    def mendable(self) -> bool:
        """Whether `repair` can do something about it."""
        return self.kind in MENDABLE

    def __str__(self) -> str:
        if self.shard is None:
            return f"{self.where}: {self.what}"
        first, stop = self.rows or (self.shard.start, self.shard.stop)
        rows = f"row {first}" if stop - first == 1 else f"rows {first} to {stop - 1}"
        return (
            f"{self.where}: {self.array} of shard {self.shard.index} of split {self.shard.split}, {rows}: {self.what}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `rows` are the first and the last."""
        rows = self.rows or (None if self.shard is None else (self.shard.start, self.shard.stop))
        return {
            "kind": self.kind,
            "where": self.where,
            "what": self.what,
            "mendable": self.mendable,
            "split": None if self.shard is None else self.shard.split,
            "shard": None if self.shard is None else self.shard.index,
            "array": self.array,
            "rows": None if rows is None else [rows[0], rows[1] - 1],
        }


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """What looking at every byte of a store has found.

    path: the store's folder. manifest: what was believed: the manifest, or its copy where that is damaged; None if both
    are. problems: all of them. objects, bytes: what was read. seconds: how long it took.
    """

    path: Path
    manifest: Manifest | None
    problems: tuple[Problem, ...]
    objects: int
    bytes: int
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What it has found."""
        found = {"ok": self.ok, "problems": len(self.problems)}
        first = {"first": str(self.problems[0])} if self.problems else {}
        return found | first | {"objects": self.objects, "bytes": self.bytes, "path": str(self.path)}

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def mendable(self) -> bool:
        """Whether `repair` can do something about any of it."""
        return self.manifest is not None and any(problem.mendable for problem in self.problems)

    @property
    def damaged(self) -> Mapping[Shard, frozenset[str]]:
        """The arrays of each shard whose objects are not as they were written, train first, in order."""
        found: dict[Shard, set[str]] = {}
        for problem in self.problems:
            if problem.kind == OBJECT_BAD and problem.shard is not None and problem.array is not None:
                found.setdefault(problem.shard, set()).add(problem.array)
        ordered = sorted(found, key=lambda shard: (shard.split != "train", shard.index))
        return {shard: frozenset(found[shard]) for shard in ordered}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "ok": self.ok,
            "problems": [problem.to_dict() for problem in self.problems],
            "objects": self.objects,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 4),
        }


def name_rows(rows: NDArray[np.integer[Any]] | Iterable[int]) -> str:
    """Rows in words, the first few of many by number."""
    numbers = [int(row) for row in rows]
    shown = ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
    return f"row {shown}" if len(numbers) == 1 else f"{len(numbers)} rows ({shown})"
