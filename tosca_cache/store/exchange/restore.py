"""An exported store back into a root: exactly the store it was, or nothing.

The file is not believed (see `untrusted`). The store is built beside its final place, shard by shard, and each object must
have the digest that the manifest in the file states; only a store that opens gets its name, by one rename. A folder that a
killed import left behind is thrown away by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import zarr

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, file_errors, strict_json
from tosca_cache.store.arrays import create_arrays, write_shard
from tosca_cache.store.claims import claim, deciding
from tosca_cache.store.disk import ObjectRecord, remove_tree, storage, write_durably
from tosca_cache.store.exchange.form import (
    FORMAT,
    MANIFEST_SET,
    METADATA_GROUP,
    NAMES,
    PROVENANCE_SET,
    VERSION,
    every_set,
    is_store_name,
    row_shapes,
    shown,
)
from tosca_cache.store.exchange.limits import check_promises
from tosca_cache.store.finish import publish_sealed
from tosca_cache.store.layout import SPLITS, Shard, compact_path, metadata_keys
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PROVENANCE, Manifest, load_manifest, parse_provenance
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.remote import settle
from tosca_cache.store.rows import checked_rows
from tosca_cache.store.spec import canonical
from tosca_cache.untrusted import UntrustedFile
from tosca_cache.untrusted.headers import TEXT

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Restored:
    """The imported store, and whether it was there already."""

    store: Store
    was_there: bool


def is_exported_store(file: UntrustedFile) -> bool:
    """Whether a file says that it is one of ours."""
    return file.attributes.get("format") == FORMAT


def restore_store(
    file: UntrustedFile, root: Path, *, most: int | None = None, progress: Progress | None = None
) -> Restored:
    """Imports an exported store under `root`, with the name that it had.

    Arguments:
        most: bytes that the file may claim to hold; see `limits.check_promises`.
        progress: is told how many more rows are written.

    Raises `StoreError` if the file is not, array by array, the store that its manifest describes, if another store has
    its name, if somebody is writing it, or if the disk refuses; nothing is left then.
    """
    name = _checked_name(file)
    check_promises(file, file.arrays.values(), most)
    path = settle(Path(root) / name)
    data = file.read(MANIFEST_SET).tobytes()
    manifest = _load(file, data)
    _check_sets(file, manifest)
    with deciding(path):
        lock = claim(path, None)
    try:
        if path.exists():
            return Restored(_same(path, manifest), True)
        with _staging(path) as folder:
            create_arrays(folder, manifest.plan.layouts)
            for split in SPLITS:
                for shard in manifest.plan.layouts[split].iterate(split):
                    _write_rows(file, folder, manifest, shard)
                    if progress is not None:
                        progress(shard.rows)
            _write_metadata(file, folder, manifest)
            _seal(folder, data, _provenance(file))
            publish_sealed(folder, path)
    finally:
        lock.release()
    return Restored(open_store(settle(path)), False)


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """An empty folder beside the store that is to be, which is gone at the end unless it has become the store."""
    folder = compact_path(path)
    with storage(path):
        remove_tree(folder, MANIFEST)
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove_tree(folder, MANIFEST)


def _seal(folder: Path, manifest: bytes, provenance: bytes | None) -> None:
    with storage(folder):
        if provenance is not None:
            write_durably(folder / PROVENANCE, provenance)
        write_durably(folder / MANIFEST_COPY, manifest)
        write_durably(folder / MANIFEST, manifest)


def _checked_name(file: UntrustedFile) -> str:
    version, name = file.attributes.get("version"), file.attributes.get("name")
    if version != VERSION:
        raise StoreError(
            f"This file has version {version!r} of the form of exported stores; version {VERSION} is read here.",
            where=file.path,
            remedy="Use the version of tosca that wrote it.",
        )
    if not isinstance(name, str) or not is_store_name(name):
        raise _untrue(file, f"its store would be called {ascii(name)[:80]}, which is no name of a folder in a root")
    missing = [each for each in every_set() if each not in file.arrays]
    if missing:
        raise _untrue(file, f"it lacks {missing[0]}")
    for each in (MANIFEST_SET, PROVENANCE_SET, *(f"{METADATA_GROUP}/{key}" for key in metadata_keys())):
        header = file.arrays.get(each)
        if header is not None and ((header.dtype, len(header.shape)) != ("|u1", 1) or not header.plain):
            raise _untrue(file, f"{each} is no list of bytes")
    return name


def _load(file: UntrustedFile, data: bytes) -> Manifest:
    with TemporaryDirectory(prefix="tosca-import-") as folder:
        candidate = Path(folder) / MANIFEST
        with file_errors(candidate, StoreError, option="TMPDIR"):
            candidate.write_bytes(data)
        try:
            return load_manifest(candidate)
        except StoreError as error:
            raise _untrue(file, f"its manifest cannot be trusted: {error.problem}") from error


def _check_sets(file: UntrustedFile, manifest: Manifest) -> None:
    """Every dataset must have the shape and the type that the manifest gives it, before any of them is read."""
    plan = manifest.plan
    for name, shape in row_shapes(plan).items():
        split, _, array = name.partition("/")
        features = "<f2" if plan.layouts[split].dtype == "float16" else "<f4"
        dtype = {"features": features, "paths": TEXT}.get(array, "<i8")
        header = file.arrays[name]
        if (header.shape, header.dtype) != (shape, dtype):
            raise _untrue(file, f"{header.describe()} is not the {list(shape)} that the manifest describes")
        if not header.plain and array != "paths":
            raise _untrue(file, f"{name} is compressed, which exported stores never are")
    for name in NAMES:
        names = getattr(plan, name)
        if file.arrays[name].shape != (len(names),) or file.texts(name) != [shown(text) for text in names]:
            raise _untrue(file, f"{name} are not those of the manifest")


def _write_metadata(file: UntrustedFile, folder: Path, manifest: Manifest) -> None:
    """Puts zarr's metadata in place as the file has them, which another version of zarr may have worded otherwise."""
    for key in metadata_keys():
        record, header = manifest.metadata[key], file.arrays[f"{METADATA_GROUP}/{key}"]
        data = file.read(header.name).tobytes() if header.rows == record.size else b""
        if ObjectRecord.of(data) != record:
            raise _untrue(file, f"{header.name} is not what the manifest describes")
        with storage(folder):
            ours = (folder / key).read_bytes()
            if not _same_meaning(data, ours):
                raise _untrue(file, f"{header.name} describes another array than the manifest")
            if data != ours:
                write_durably(folder / key, data)


def _same_meaning(theirs: bytes, ours: bytes) -> bool:
    """Whether two metadata objects say the same, but for keys that are empty or of no account in one of them."""
    try:
        one, other = strict_json(theirs), strict_json(ours)
        keys = one.keys() | other.keys()
        return all(
            canonical(one.get(key)) == canonical(other.get(key)) for key in keys if one.get(key) or other.get(key)
        )
    except (ValueError, AttributeError, TypeError):
        return False


def _write_rows(file: UntrustedFile, folder: Path, manifest: Manifest, shard: Shard) -> None:
    split, span = shard.split, (shard.start, shard.stop)
    try:
        rows = checked_rows(
            manifest.plan,
            shard,
            features=file.read(f"{split}/features", *span),
            labels=file.read(f"{split}/labels", *span),
            domains=file.read(f"{split}/domains", *span),
            views=file.read(f"{split}/views", *span),
            paths=file.texts(f"{split}/paths", *span),
            skipped={},
        )
    except ValueError as error:
        raise _untrue(file, f"{split}, rows {shard.start} to {shard.stop - 1}: {error}") from error
    except StoreError as error:
        raise StoreError(error.problem, where=f"{file.path}: {error.where}", remedy=_REMEDY) from error
    for array, record in write_shard(folder, shard, rows).items():
        if record != manifest.shards[split][shard.index][array]:
            raise _untrue(
                file,
                f"rows {shard.start} to {shard.stop - 1} of {split}/{array} are not what the manifest describes "
                f"(or zarr {file.attributes.get('zarr')}, which wrote them, does so otherwise than {zarr.__version__})",
            )


def _provenance(file: UntrustedFile) -> bytes | None:
    header = file.arrays.get(PROVENANCE_SET)
    if header is None:
        return None
    if header.rows > Limit.PROVENANCE:
        raise _untrue(file, "its provenance is absurdly long")
    data = file.read(PROVENANCE_SET).tobytes()
    try:
        parse_provenance(data)
    except ValueError as error:
        raise _untrue(file, f"its provenance is no valid JSON ({error})") from error
    return data


def _same(path: Path, manifest: Manifest) -> Store:
    """The store that has the name already, if it is the one that is to be imported."""
    store = open_store(path)
    if store.manifest != manifest:
        raise StoreError(
            "Another store has this name already; nothing was changed.",
            where=path,
            remedy="Import into another --root, or move that store.",
        )
    return store


_REMEDY = "Use a sound copy of the file, or export the store again."


def _untrue(file: UntrustedFile, what: str) -> StoreError:
    return StoreError(f"This file is no sound exported store: {what}.", where=file.path, remedy=_REMEDY)
