"""What a store writes about itself, and the suspicion with which that is read back.

`manifest.json` is written last, when every shard is there; `plan.json` says the same about a store that is still being
built, as far as it is known before the first row. Both are canonical JSON with their own digest, so that one flipped
bit, or a file written by hand, is noticed. Neither holds a time or a name of a machine: they are the same for an
interrupted and an uninterrupted extraction. Those facts are in `provenance.json`, which therefore cannot be vouched for
by the manifest; it is sealed in the same way by a digest of its own. `manifest.copy.json` has the manifest's bytes a
second time: nobody reads it but `verify`, which restores a damaged manifest from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.names import twice
from tosca_cache.shown import Shown
from tosca_cache.store.disk import ObjectRecord, regular_size, repair_hint, storage
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, metadata_keys
from tosca_cache.store.spec import FORMAT, StoreSpec, canonical, compare, plain

MANIFEST = "manifest.json"
MANIFEST_COPY = "manifest.copy.json"
PLAN = "plan.json"
PROVENANCE = "provenance.json"
LISTED = 100  # paths of a kind that were left out
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What a store is going to be.

    spec: the fingerprint. numerics: what the bits depend on besides it (batch size, threads, device, versions).
    class_names, domain_names: what labels and domains index. layouts: rows, views and shards of each split.
    """

    spec: StoreSpec
    numerics: Mapping[str, Any]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    layouts: Mapping[str, SplitLayout]

    def facts(self) -> dict[str, Any]:
        """What it is going to be."""
        rows = {split: self.layouts[split].rows for split in SPLITS}
        return {"dataset": self.spec.dataset["name"], **rows, "fingerprint": self.spec.digest()[:10]}

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
        for split, layout in layouts.items():
            if (layout.dim, layout.dtype) != (spec.backbone["dim"], spec.dtype):
                raise ValueError(f"the layout of {split} has another width or dtype than the fingerprint")
        numerics = plain(_mapping(value["numerics"], "numerics"), "numerics")
        return cls(spec, numerics, _names(value, "class_names"), _names(value, "domain_names"), layouts)

    def differences(self, other: Plan) -> list[tuple[str, Any, Any]]:
        """(dotted field, ours, theirs) of everything that differs, `fingerprint.` and `numerics.` as prefixes."""
        return compare(self._flat(), other._flat())

    def _flat(self) -> dict[str, Any]:
        flat = {f"fingerprint.{key}": value for key, value in self.spec.flat().items()}
        flat |= {f"numerics.{key}": value for key, value in plain(self.numerics, "numerics").items()}
        flat |= {"class_names": self.class_names, "domain_names": self.domain_names}
        for split, layout in self.layouts.items():
            flat |= {f"layout.{split}.{key}": value for key, value in asdict(layout).items()}
        return flat


@dataclass(frozen=True)
class SkippedRow:
    """A row of the dataset's listing that is not in the store: its number there, its path, and why."""

    row: int
    path: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """Files or folders that are no rows of the dataset: how many, and the paths of the first."""

    count: int
    paths: tuple[str, ...]

    @classmethod
    def of(cls, paths: Sequence[str]) -> LeftOut:
        """All of these."""
        return cls(len(paths), tuple(paths[:LISTED]))


@dataclass(frozen=True, repr=False)
class Manifest(Shown):
    """A finished store: its plan, the digests of everything in it, and what is not in it.

    shards: per split, one mapping of array to `ObjectRecord` a shard. metadata: zarr's own JSON objects by key.
    skipped: per split, the rows that could not be read, in the listing's order. left_out: why -> files and folders of the
        dataset that are no rows: how many, and up to 100 paths.
    """

    plan: Plan
    shards: Mapping[str, tuple[Mapping[str, ObjectRecord], ...]]
    metadata: Mapping[str, ObjectRecord]
    skipped: Mapping[str, tuple[SkippedRow, ...]]
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What it is."""
        return {**self.plan.facts(), "bytes": self.size}

    @property
    def size(self) -> int:
        """Bytes of all objects together."""
        records = [record for shards in self.shards.values() for shard in shards for record in shard.values()]
        return sum(record.size for record in [*records, *self.metadata.values()])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        counts = {s: {"rows": self.plan.layouts[s].rows, "skipped": len(self.skipped[s])} for s in SPLITS}
        return self.plan.to_dict() | {
            "counts": counts,
            "shards": {s: [{a: asdict(r) for a, r in shard.items()} for shard in self.shards[s]] for s in SPLITS},
            "metadata": {key: asdict(record) for key, record in self.metadata.items()},
            "skipped": {split: [asdict(row) for row in self.skipped[split]] for split in SPLITS},
            # Only where there is something, so that manifests stay what they were before there was this.
            **({"left_out": {why: asdict(found) for why, found in self.left_out.items()}} if self.left_out else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`; raises `ValueError` for what cannot be."""
        plan = Plan.from_dict(value)
        shards = {
            split: tuple(
                _records(found, plan.layouts[split], shard)
                for shard, found in zip(plan.layouts[split].iterate(split), value["shards"][split], strict=True)
            )
            for split in SPLITS
        }
        metadata = {key: _record(record) for key, record in _mapping(value["metadata"], "metadata").items()}
        if sorted(metadata) != sorted(metadata_keys()) or any(r.size > Limit.METADATA for r in metadata.values()):
            raise ValueError("metadata must list exactly zarr's own objects, which are small")
        skipped = {split: tuple(_skipped_row(row) for row in value["skipped"][split]) for split in SPLITS}
        left_out = {why: _left_out(found) for why, found in _mapping(value.get("left_out", {}), "left_out").items()}
        return cls(plan, shards, metadata, skipped, left_out)


def seal(content: Mapping[str, Any]) -> bytes:
    """The text of a manifest or plan: canonical, readable JSON with the format and its own digest."""
    complete = {"format": FORMAT, **content}
    complete["digest"] = hashlib.sha256(canonical(complete).encode()).hexdigest()
    return (json.dumps(complete, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def seal_provenance(content: Mapping[str, Any]) -> bytes:
    """The text of a provenance: readable, sorted JSON with its own digest. Raises `ValueError` for what is no JSON."""
    body = {key: value for key, value in content.items() if key != "digest"}
    complete = body | {"digest": hashlib.sha256(canonical(body).encode()).hexdigest()}
    return (json.dumps(complete, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def parse_provenance(data: bytes) -> tuple[dict[str, Any], bool]:
    """What a provenance says, and whether it is bit for bit as it was sealed; raises `ValueError` if it is no JSON."""
    found = strict_json(data)
    if not isinstance(found, dict):
        return {}, False
    intact = seal_provenance(found) == data
    return {key: value for key, value in found.items() if key != "digest"}, intact


def load_manifest(path: Path) -> Manifest:
    """Reads a manifest; raises `StoreError` if it is not, bit for bit, one that `seal` wrote."""
    content = _unseal(path)
    try:
        return Manifest.from_dict(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_ours(path, str(error)) from error


def load_plan(path: Path) -> Plan:
    """Reads a plan; raises `StoreError` if it is not, bit for bit, one that `seal` wrote."""
    content = _unseal(path)
    try:
        return Plan.from_dict(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_ours(path, str(error)) from error


def _unseal(path: Path) -> dict[str, Any]:
    size = regular_size(path)
    if size is None or size > Limit.MANIFEST:
        raise _not_ours(path, "it is missing, no regular file, or far too large")
    with storage(path):
        data = read_limited(path, Limit.MANIFEST)
    try:
        content = strict_json(data)
        version = content["format"]
        if version != FORMAT:
            raise StoreError(
                f"This store has format {version!r}, but this version of tosca reads format {FORMAT}.",
                where=path,
                remedy="Use the version of tosca that wrote it, or extract again.",
            )
        body = {key: value for key, value in content.items() if key not in ("digest", "format")}
        intact = seal(body) == data
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_ours(path, str(error)) from error
    if not intact:
        raise _not_ours(path, "it is not, byte for byte, the text that was written with its digest")
    return body


def _not_ours(path: Path, why: str) -> StoreError:
    return StoreError(
        f"The store is damaged: its {path.name} cannot be trusted ({why}).",
        where=path,
        remedy=repair_hint(path.parent),
    )


def _records(found: Any, layout: SplitLayout, shard: Shard) -> dict[str, ObjectRecord]:
    records = {array: _record(_mapping(found, "shard")[array]) for array in ARRAYS}
    if len(found) != len(ARRAYS):
        raise ValueError(f"shard {shard.index} lists other arrays than {', '.join(ARRAYS)}")
    for array, record in records.items():
        least, most = layout.object_bounds(array, shard)
        if not least <= record.size <= most:
            raise ValueError(f"{array} of shard {shard.index} cannot have {record.size} bytes")
    return records


def _record(found: Any) -> ObjectRecord:
    record = ObjectRecord(**_mapping(found, "object"))
    if type(record.size) is not int or type(record.sha256) is not str or not _SHA256.fullmatch(record.sha256):
        raise ValueError(f"{found!r} is not the size and SHA-256 of an object")
    return record


def _skipped_row(found: Any) -> SkippedRow:
    skipped = SkippedRow(**_mapping(found, "skipped row"))
    if (type(skipped.row), type(skipped.path), type(skipped.reason)) != (int, str, str):
        raise ValueError(f"{found!r} is not a skipped row")
    return skipped


def _left_out(found: Any) -> LeftOut:
    left_out = LeftOut(**_mapping(found, "left_out"))
    if type(left_out.count) is not int or not 0 < len(left_out.paths) <= min(left_out.count, LISTED):
        raise ValueError(f"{found!r} does not say how many were left out")
    return LeftOut(left_out.count, _texts(left_out.paths))


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(type(text) is str for text in value):
        raise ValueError(f"{value!r} is no list of texts")
    return tuple(value)


def _names(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Names that labels or domains index: a prediction that is one of two equal names would say nothing."""
    found = value[key]
    if not isinstance(found, list) or not all(type(text) is str for text in found):
        raise ValueError(f"{key} must be a list of texts")
    if (name := twice(tuple(found))) is not None:
        raise ValueError(f"{key} has {name!r} twice")
    return tuple(found)
