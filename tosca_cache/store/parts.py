"""Parts of a store: which shards each of n processes writes, what they have done, and what they say about it.

Part i of n has every n-th shard, train and test behind one another, so that parts are about equally long. Whatever n was,
a shard that is listed in anyone's done-list is done: other parts, and a run without parts, go on from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tosca_cache.errors import UsageError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.store.disk import regular_size, storage, write_durably
from tosca_cache.store.layout import Shard

_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_NAME = re.compile(r"part-([0-9]{1,9})-of-([0-9]{1,9})")


@dataclass(frozen=True, order=True)
class Part:
    """Part `index` of `count`, from 1. Index 0 has no shards: it stands for who shares all parts out to workers."""

    count: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Reads `i/n`; raises `UsageError` unless 1 <= i <= n."""
        found = _WRITTEN.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"{text!r} is not a part: i/n with i from 1 to n",
                where="--part",
                remedy="give for example --part 1/4, and in three more processes 2/4, 3/4 and 4/4",
            )
        return cls(int(found[2]), int(found[1]))

    @classmethod
    def named_in(cls, name: str) -> Part | None:
        """The part whose `name` is in a file's name; None if there is none."""
        found = _NAME.search(name)
        return None if found is None else cls(int(found[2]), int(found[1]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """As it is in names of files."""
        return f"part-{self.index}-of-{self.count}"

    @property
    def label(self) -> str:
        """As it is in messages."""
        return f"part {self}" if self.index else f"a run that shares {self.count} parts out to workers"

    def of(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards of this part; the parts 1 to n have all of them, and no two have one."""
        return list(shards[self.index - 1 :: self.count]) if self.index else []


def write_note(folder: Path, part: Part, facts: Mapping[str, Any]) -> None:
    """Keeps what a part says about how it was made, until the store is finished and has it in its provenance."""
    with storage(folder):
        write_durably(_note_path(folder, part), json.dumps(facts, sort_keys=True, allow_nan=False).encode())


def read_note(folder: Path, part: Part) -> dict[str, Any]:
    """What a part says about how it was made; empty if nothing, or nothing that can be read."""
    path = _note_path(folder, part)
    size = regular_size(path)
    if size is None or size > Limit.NOTE:
        return {}
    try:
        with storage(path):
            found = strict_json(read_limited(path, Limit.NOTE))
    except ValueError:
        return {}  # it is of no account to the store
    return found if isinstance(found, dict) else {}


def read_notes(folder: Path) -> dict[str, dict[str, Any]]:
    """{"i/n": facts} of all parts that left a note."""
    parts = sorted({part for path in note_paths(folder) if (part := Part.named_in(path.name))})
    return {str(part): note for part in parts if (note := read_note(folder, part))}


def note_paths(folder: Path) -> list[Path]:
    """The files that hold notes."""
    with storage(folder):
        return sorted(folder.glob("note.part-*.json"))


def missing_by_part(parts: Iterable[Part], shards: Sequence[Shard], done: Iterable[Shard]) -> dict[Part, list[Shard]]:
    """The shards that each part has still to write; parts that are complete are left out."""
    finished = set(done)
    left = {part: [shard for shard in part.of(shards) if shard not in finished] for part in parts}
    return {part: missing for part, missing in left.items() if missing}


def _note_path(folder: Path, part: Part) -> Path:
    return folder / f"note.{part.name}.json"
