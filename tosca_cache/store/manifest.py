"""What a store writes about itself, and the suspicion with which that is read back.

`manifest.json` is written last, when every shard is there; `plan.json` says the same about a store that is still being
built, as far as it is known before the first row. Both are canonical JSON with their own digest, so that one flipped
bit, or a file written by hand, is noticed. Neither holds a time or a name of a machine: they are the same for an
interrupted and an uninterrupted extraction. Those facts are in `provenance.json`, which therefore cannot be vouched for
by the manifest; it is sealed by a digest of its own. `manifest.copy.json` has the manifest's bytes a
second time: nobody reads it but `verify`, which restores a damaged manifest from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.names import twice
from tosca_cache.shown import Shown
from tosca_cache.store.arrays import encode_metadata
from tosca_cache.store.disk import ObjectRecord, regular_size, repair_hint, storage
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, object_key
from tosca_cache.store.spec import FORMAT, StoreSpec, canonical, compare, flatten, plain

MANIFEST = "manifest.json"
MANIFEST_COPY = "manifest.copy.json"
PLAN = "plan.json"
PROVENANCE = "provenance.json"
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Plan:
    """What a store is going to be.

    spec: the fingerprint. numerics: what the bits depend on besides it (batch size, threads, device, versions).
    class_names, domain_names: what labels and domains index. layouts: rows, views and shards of each split.

    Raises `ValueError` if the fingerprint and the rest do not agree.
    """

    spec: StoreSpec
    numerics: Mapping[str, Any]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    layouts: Mapping[str, SplitLayout]

    def __post_init__(self) -> None:
        spec = self.spec
        if len(self.class_names) != spec.dataset["classes"]:
            raise ValueError(f"{len(self.class_names)} class_names, but {spec.dataset['classes']} classes")
        for split, layout in self.layouts.items():
            wanted = spec.view_count(split), spec.backbone["dim"], spec.dtype
            if (layout.views, layout.dim, layout.dtype) != wanted:
                raise ValueError(f"views, width or dtype of {split} are not those of the fingerprint")
        for key, names in (("class_names", self.class_names), ("domain_names", self.domain_names)):
            if (name := twice(names)) is not None:  # a prediction that is one of two equal names would say nothing
                raise ValueError(f"{key} has {name!r} twice")

    @property
    def shards(self) -> list[Shard]:
        """All shards, train first, in order."""
        return [shard for split in SPLITS for shard in self.layouts[split].iterate(split)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "fingerprint": self.spec.to_dict(),
            "fingerprint_digest": self.spec.digest(),
            "numerics": plain(self.numerics, "numerics"),
            "class_names": list(self.class_names),
            "domain_names": list(self.domain_names),
            "layout": {split: asdict(self.layouts[split]) for split in SPLITS},
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`; raises `ValueError` for what cannot be."""
        spec = StoreSpec.from_dict(value["fingerprint"])
        if value["fingerprint_digest"] != spec.digest():
            raise ValueError("fingerprint_digest is not the digest of the fingerprint")
        layouts = {split: SplitLayout(**value["layout"][split]) for split in SPLITS}
        numerics = plain(_mapping(value["numerics"], "numerics"), "numerics")
        class_names, domain_names = (_texts(value[key], key) for key in ("class_names", "domain_names"))
        return cls(spec, numerics, class_names, domain_names, layouts)

    def differences(self, other: Plan) -> list[tuple[str, Any, Any]]:
        """(dotted field, ours, theirs) of everything that differs, `fingerprint.` and `numerics.` as prefixes."""
        found = compare(*(dict(flatten(plan.to_dict())) for plan in (self, other)))
        return [field for field in found if field[0] != "fingerprint_digest"]


@dataclass(frozen=True)
class SkippedRow:
    """A row of the dataset's listing that is not in the store: its number there, its path, and why."""

    row: int
    path: str
    reason: str


@dataclass(frozen=True, repr=False)
class Manifest(Shown):
    """A finished store: its plan, the digests of everything in it, and what is not in it.

    shards: what the objects of every shard must be, by array.
    skipped: per split, the rows that could not be read, in order: they have a place in the arrays, but readers do not see
        them.
    left_out: why -> files and folders of the dataset that are no rows: {"count": how many, "paths": the first 100}.
    """

    plan: Plan
    shards: Mapping[Shard, Mapping[str, ObjectRecord]]
    skipped: Mapping[str, tuple[SkippedRow, ...]]
    left_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What it is."""
        spec = self.plan.spec
        return {"dataset": spec.dataset["name"], "fingerprint": spec.digest()[:10], "bytes": self.size}

    @property
    def size(self) -> int:
        """Bytes of all objects together."""
        return sum(record.size for record in self.objects.values())

    def rows(self, split: str) -> int:
        """Rows of a split that readers see."""
        return self.plan.layouts[split].rows - len(self.skipped[split])

    @cached_property
    def kept(self) -> dict[str, NDArray[np.int64]]:
        """Per split, the places of the rows in the arrays: all but those that were skipped."""
        gone = {split: [row.row for row in self.skipped[split]] for split in SPLITS}
        return {s: np.setdiff1d(np.arange(self.plan.layouts[s].rows), gone[s], assume_unique=True) for s in SPLITS}

    @cached_property
    def objects(self) -> dict[str, ObjectRecord]:
        """The record of every object by its key: zarr's metadata, which follow from the layout, then all shards."""
        found = {key: ObjectRecord.of(data) for key, data in encode_metadata(self.plan.layouts).items()}
        for shard, records in self.shards.items():
            found |= {object_key(shard.split, array, shard.index): record for array, record in records.items()}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        shards: dict[str, list[Any]] = {split: [] for split in SPLITS}
        for shard, records in self.shards.items():
            shards[shard.split].append({array: asdict(record) for array, record in records.items()})
        return self.plan.to_dict() | {
            "shards": shards,
            "skipped": {split: [asdict(row) for row in self.skipped[split]] for split in SPLITS},
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: Path | None = None) -> Manifest:
        """The inverse of `to_dict`; raises `ValueError` for what cannot be, `StoreError` for what an earlier version made.

        where: what it was read from.
        """
        plan = Plan.from_dict(value)
        shards = {
            shard: _records(found)
            for split, layout in plan.layouts.items()
            for shard, found in zip(layout.iterate(split), value["shards"][split], strict=True)
        }
        skipped = {split: tuple(parse_fields(SkippedRow, row) for row in value["skipped"][split]) for split in SPLITS}
        left_out = _mapping(value.get("left_out", {}), "left_out")
        for why, found in left_out.items():
            if type(found["count"]) is not int or not _texts(found["paths"], why):
                raise ValueError(f"{found!r} does not say how many were left out")
        for split, layout in plan.layouts.items():
            listed, gone = plan.spec.rows(split), [row.row for row in skipped[split]]
            if layout.rows != listed and layout.rows + len(gone) == listed:
                raise StoreError(
                    "This store was made by an earlier version of tosca, which gave rows that it skipped no place.",
                    where=where,
                    remedy="Remove its folder, then extract it again.",
                )
            if layout.rows != listed or gone != sorted({row for row in gone if 0 <= row < listed}):
                raise ValueError(f"rows of {split} and those skipped are not those that were listed, each once")
        return cls(plan, shards, skipped, left_out)


def seal(content: Mapping[str, Any]) -> bytes:
    """The text of a file that a store writes about itself: readable, sorted JSON with the format and its own digest."""
    complete = {key: value for key, value in content.items() if key != "digest"} | {"format": FORMAT}
    complete["digest"] = hashlib.sha256(canonical(complete).encode()).hexdigest()
    return (json.dumps(complete, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def read_provenance(folder: Path) -> tuple[dict[str, Any], str]:
    """What the provenance of a store says, as far as it can be read, and what is wrong with it."""
    path = folder / PROVENANCE
    if regular_size(path) is None:
        return {}, "is missing, or no regular file"
    try:
        data = read_limited(path, Limit.PROVENANCE)
        found = strict_json(data)
        facts = {key: value for key, value in found.items() if key not in ("digest", "format")}
        return facts, "" if seal(found) == data else "is not, byte for byte, the text that was written with its digest"
    except (ValueError, OSError, AttributeError) as error:
        return {}, f"cannot be read ({error})"


def load_manifest(path: Path) -> Manifest:
    """Reads a manifest; raises `StoreError` if it is not, bit for bit, one that `seal` wrote."""
    return load(path, partial(Manifest.from_dict, where=path))


def load(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """Reads a plan or manifest; raises `StoreError` if it is not, bit for bit, one that `seal` wrote."""
    size = regular_size(path)
    if size is None or size > Limit.MANIFEST:
        raise _refused(path, "it is missing, no regular file, or far too large")
    with storage(path):
        return unseal(read_limited(path, Limit.MANIFEST), path, parse)


def unseal(data: bytes, path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """What the text of a manifest or plan says; raises `StoreError` if it is not, bit for bit, one that `seal` wrote."""
    try:
        content = strict_json(data)
        if content["format"] != FORMAT:
            raise StoreError(
                f"This store has format {content['format']!r}, but this version of tosca reads format {FORMAT}.",
                where=path,
                remedy="Use the version of tosca that wrote it, or extract again.",
            )
        if seal(content) != data:
            raise ValueError("it is not, byte for byte, the text that was written with its digest")
        return parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(path, str(error)) from error


def _refused(path: Path, why: str) -> StoreError:
    problem = f"The store is damaged: its {path.name} cannot be trusted ({why})."
    return StoreError(problem, where=path, remedy=repair_hint(path.parent))


def _records(found: Any) -> dict[str, ObjectRecord]:
    if sorted(_mapping(found, "shard")) != sorted(ARRAYS):
        raise ValueError(f"a shard lists other arrays than {', '.join(ARRAYS)}")
    return {array: parse_fields(ObjectRecord, found[array]) for array in ARRAYS}


def parse_fields(kind: type[T], found: Any) -> T:
    """A dataclass from a mapping of its fields, which must have exactly the types of `kind`: whole numbers and texts."""
    types = get_type_hints(kind)
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != types:
        raise ValueError(f"{found!r} is not a {kind.__name__}")
    return kind(**found)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping")
    return value


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(type(text) is str for text in value):
        raise ValueError(f"{what} must be a list of texts")
    return tuple(value)
