"""The files of a store besides its shards: the manifest and its copy, the provenance, zarr's metadata, and none else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.store.arrays import check_metadata, encode_metadata
from tosca_cache.store.disk import ObjectRecord, regular_size, storage
from tosca_cache.store.layout import ARRAYS, SPLITS, SplitLayout, metadata_keys, object_key
from tosca_cache.store.manifest import (
    MANIFEST,
    MANIFEST_COPY,
    PROVENANCE,
    Manifest,
    load_manifest,
    parse_provenance,
)
from tosca_cache.store.verify.problems import (
    CONTENT,
    COPY_BAD,
    FOREIGN,
    LITTER,
    MANIFEST_BAD,
    METADATA_BAD,
    PROVENANCE_BAD,
    Problem,
)


def read_manifests(folder: Path) -> tuple[Manifest | None, list[Problem]]:
    """What to believe of a store, the manifest before its copy, and what is wrong with the two."""
    manifest, problem = _attempt(folder / MANIFEST, MANIFEST_BAD)
    if manifest is not None and _same_bytes(folder / MANIFEST, folder / MANIFEST_COPY):
        return manifest, []
    copy, copy_problem = _attempt(folder / MANIFEST_COPY, COPY_BAD)
    problems = [found for found in (problem, copy_problem) if found is not None]
    if manifest is not None and copy is not None and manifest != copy:
        problems.append(Problem(COPY_BAD, MANIFEST_COPY, f"differs from {MANIFEST}, which is believed"))
    return manifest or copy, problems


def _same_bytes(first: Path, second: Path) -> bool:
    with storage(first):
        same_size = regular_size(first) == regular_size(second)
        return same_size and read_limited(first, Limit.MANIFEST) == read_limited(second, Limit.MANIFEST)


def _attempt(path: Path, kind: str) -> tuple[Manifest | None, Problem | None]:
    if regular_size(path) is None:
        return None, Problem(kind, path.name, "is no regular file" if path.is_symlink() else "is missing")
    try:
        return load_manifest(path), None
    except StoreError as error:
        return None, Problem(kind, path.name, error.problem)


def check_counts(manifest: Manifest) -> Iterator[Problem]:
    """What a manifest says about numbers of rows, views and classes, in several places that must agree."""
    spec, plan = manifest.plan.spec, manifest.plan

    def differ(what: str, here: object, there: object) -> Iterator[Problem]:
        if here != there:
            yield Problem(CONTENT, MANIFEST, f"{what}: {here} in one place, {there} in another")

    yield from differ("classes", len(plan.class_names), spec.dataset["classes"])
    for split, augmented in (("train", spec.views["count"]), ("test", spec.views["test_count"])):
        layout, skipped = plan.layouts[split], manifest.skipped[split]
        yield from differ(f"views of {split}", layout.views, 1 + augmented)
        listed = spec.dataset["splits"].get(split)
        yield from differ(f"rows of {split}, skipped ones included", layout.rows + len(skipped), listed)
        rows = [row.row for row in skipped]
        if rows != sorted(set(rows)) or (rows and not 0 <= rows[0] <= rows[-1] < layout.rows + len(rows)):
            yield Problem(CONTENT, MANIFEST, f"the rows of {split} that were skipped are not rows of it, each once")


def check_provenance(folder: Path) -> Iterator[Problem]:
    """That the provenance is there and as it was sealed; the manifest knows nothing of it."""
    path = folder / PROVENANCE
    size = regular_size(path)
    if size is None or size > Limit.PROVENANCE:
        yield Problem(PROVENANCE_BAD, PROVENANCE, "is missing, no regular file, or far too large")
        return
    try:
        with storage(path):
            _, intact = parse_provenance(read_limited(path, Limit.PROVENANCE))
    except ValueError:
        yield Problem(PROVENANCE_BAD, PROVENANCE, "is no valid JSON")
        return
    if not intact:
        yield Problem(PROVENANCE_BAD, PROVENANCE, "is not, byte for byte, the text that was written with its digest")


def check_all_metadata(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """zarr's own objects: as the manifest records them, and describing what the manifest promises."""
    expected = expected_metadata(*(manifest.plan.layouts[split] for split in SPLITS))
    for key, record in manifest.metadata.items():
        size = regular_size(folder / key)
        if size is None:
            yield Problem(METADATA_BAD, key, "is missing or no regular file")
            continue
        if size != record.size or size > Limit.METADATA:
            yield Problem(METADATA_BAD, key, f"has {size} bytes instead of {record.size}")
            continue
        with storage(folder / key):
            data = (folder / key).read_bytes()
        if ObjectRecord.of(data) != record:
            yield Problem(METADATA_BAD, key, "does not have its SHA-256")
        elif data != expected[key] and not _says_the_same(folder, key, data, manifest):
            yield Problem(METADATA_BAD, key, "does not describe what the manifest promises")


def expected_metadata(*layouts: SplitLayout) -> dict[str, bytes]:
    """zarr's objects of a store with the layouts of its splits, as this version of zarr writes them."""
    return encode_metadata(dict(zip(SPLITS, layouts, strict=True)))


def _says_the_same(folder: Path, key: str, data: bytes, manifest: Manifest) -> bool:
    """Whether metadata that another version of zarr wrote mean what this one would have written."""
    parts = key.split("/")
    if len(parts) < 3:
        try:
            found = strict_json(data)
            return bool((found["zarr_format"], found["node_type"]) == (3, "group"))
        except (ValueError, KeyError, TypeError):
            return False
    try:
        check_metadata(folder, parts[0], parts[1], manifest.plan.layouts[parts[0]])
    except StoreError:
        return False
    return True


def check_files(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """That nothing else is in the store's folder: no further files and folders, no links, no litter of killed writers."""
    files, folders = _names(manifest)
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            entries = sorted(os.scandir(folder / inside), key=lambda entry: entry.name)
        except OSError as error:
            yield Problem(FOREIGN, inside or ".", f"cannot be listed ({error.strerror})")
            continue
        for entry in entries:
            key = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                yield Problem(FOREIGN, key, "is a link")
            elif entry.is_dir(follow_symlinks=False):
                if key in folders:
                    waiting.append(key)
                else:
                    yield Problem(FOREIGN, key, "is a folder that does not belong here")
            elif key not in files:
                yield _unknown(key, files, regular=entry.is_file(follow_symlinks=False))


def linked_folders(folder: Path) -> set[str]:
    """The splits and arrays, as `train` or `train/labels`, whose folders are links: what is in them is not in the store."""
    return {key for key in _folders() if (folder / key).is_symlink()}


def _unknown(key: str, files: set[str], *, regular: bool) -> Problem:
    head, _, name = key.rpartition("/")
    meant = f"{head}/{name[1:-4]}".removeprefix("/")
    if regular and name.startswith(".") and name.endswith(".tmp") and meant in files:
        return Problem(LITTER, key, "was left behind by a writer that was killed")
    return Problem(FOREIGN, key, "does not belong here")


def _folders() -> set[str]:
    return {*SPLITS, *(f"{split}/{array}" for split in SPLITS for array in ARRAYS)}


def _names(manifest: Manifest) -> tuple[set[str], set[str]]:
    objects = {
        object_key(split, array, index)
        for split in SPLITS
        for index in range(manifest.plan.layouts[split].shards)
        for array in ARRAYS
    }
    return {MANIFEST, MANIFEST_COPY, PROVENANCE, *metadata_keys(), *objects}, _folders()
