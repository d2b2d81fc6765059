"""Copies of finished stores on S3, Google Cloud Storage or any other file system of fsspec: pushed and pulled.

At ADDRESS/NAME lie the same objects as in the store's folder. The manifest is written last and read first, so that a torn
upload is never a store; pulled objects are compared with its digests before the store gets its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import Limit
from tosca_cache.names import STORE_NAME
from tosca_cache.store.catalogue import StoreSummary, choose_store, summary_of
from tosca_cache.store.disk import ObjectRecord, in_threads, storage, sync, sync_all, write_whole
from tosca_cache.store.locks import exclusive
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PROVENANCE, Manifest, unseal
from tosca_cache.store.reader import Store, open_store

THREADS = 8  # objects under way at a time
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}
Progress = Callable[[int, int], None]


def is_address(text: str | Path) -> bool:
    """Whether this is an address (SCHEME://...) and not a path."""
    return _ADDRESS.match(str(text)) is not None


def push(store: Store, address: str, progress: Progress | None = None) -> str:
    """Copies a store below an address and returns its own address; what is there of it already is not copied again.

    Every object is compared with its digest on the way. progress: is told how many bytes are there, of how many.

    Raises `StoreError` if the store is damaged, another one of this name is there, or the other side refuses.
    """
    target = f"{address.rstrip('/')}/{store.path.name}"
    records = store.manifest.objects
    with _remote(target) as (fs, base):
        there = _sizes(fs, base)
        manifest = (store.path / MANIFEST).read_bytes()
        if MANIFEST in there and fs.cat_file(f"{base}/{MANIFEST}") != manifest:
            raise StoreError(
                "Another store of this name is there.", where=target, remedy="Push to another address, or remove it."
            )

        def copy(key: str) -> None:
            """One object, unless it is there."""
            if there.get(key) != records[key].size:
                data = (store.path / key).read_bytes()
                if ObjectRecord.of(data) != records[key]:
                    remedy = "Mend the store first: `tosca cache verify STORE --repair`."
                    raise StoreError("The store is damaged.", where=store.path / key, remedy=remedy)
                if "file" in fs.protocol:  # elsewhere there are no folders, and s3fs would make the bucket
                    fs.makedirs(f"{base}/{key}".rpartition("/")[0], exist_ok=True)
                fs.pipe_file(f"{base}/{key}", data)

        _copy_all(copy, records, progress)
        for name in (PROVENANCE, MANIFEST_COPY, MANIFEST):
            if (store.path / name).exists():
                fs.pipe_file(f"{base}/{name}", (store.path / name).read_bytes())
    return target


def pull(address: str, root: Path, progress: Progress | None = None) -> Path:
    """Copies the store at an address (ADDRESS/NAME) into a root and returns its path; one that was begun is gone on with.

    It gets its name when all of it is there, compared with the digests of its manifest, and on the disk.

    Raises `StoreError` if there is no finished store, if an object is missing or damaged, or another store has its name.
    """
    name = address.rstrip("/").rpartition("/")[2]
    if not STORE_NAME.fullmatch(name):
        raise UsageError(f"{ascii(name)[:100]} is no name of a store", where=address[:200], remedy="give ADDRESS/NAME")
    path, folder = root / name, root / f".{name}.fetching"
    with _remote(address) as (fs, base), storage(root):
        manifest = _read(fs, f"{base}/{MANIFEST}", Limit.MANIFEST)
        if manifest is None:
            raise StoreError(
                "There is no finished store here.", where=address, remedy="See what there is: tosca cache ls --root ..."
            )
        if path.exists() and (path / MANIFEST).read_bytes() != manifest:
            remedy = "Pull into another --root, or remove the one that is here."
            raise StoreError(f"Another store of this name is here already: {path}.", where=address, remedy=remedy)
        if path.exists():
            return open_store(path).path
        with exclusive(path):
            _fetch(fs, base, folder, manifest, progress)
            folder.rename(path)
            sync(root)
    return path


def list_remote(address: str) -> list[StoreSummary]:
    """The finished stores at an address, by name; their `path` is the name alone. Unreadable ones are left out."""
    found: list[StoreSummary] = []
    entries: list[str] = []
    with _remote(address) as (fs, base):
        with suppress(FileNotFoundError):
            entries = fs.ls(base, detail=False, refresh=True)
        for name in sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries):
            data = _read(fs, f"{base}/{name}/{MANIFEST}", Limit.MANIFEST) if STORE_NAME.fullmatch(name) else None
            if data is not None:
                with suppress(StoreError):
                    manifest = unseal(data, Path(name) / MANIFEST, Manifest.from_dict)
                    found.append(summary_of(Path(name), manifest))
    return found


def pull_wanted(
    address: str,
    root: Path,
    dataset: str,
    wanted: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Pulls the one store of a dataset at an address that has the wanted values; see `catalogue.find_store` for errors."""
    chosen = choose_store(list_remote(address), address, dataset, wanted)
    return pull(f"{address.rstrip('/')}/{chosen.path.name}", root, progress)


def _fetch(fs: Any, base: str, folder: Path, manifest: bytes, progress: Progress | None) -> None:
    """Brings all objects of a store into a folder; whole ones of an earlier attempt are kept."""
    records = unseal(manifest, folder / MANIFEST, Manifest.from_dict).objects
    there = _sizes(fs, base)

    def copy(key: str) -> None:
        """One object, unless it is here whole."""
        path, record = folder / key, records[key]
        if not record.fits(path):
            data = fs.cat_file(f"{base}/{key}") if there.get(key) == record.size else b""
            if ObjectRecord.of(data) != record:
                problem = "The store is damaged: an object is missing, or is not what its manifest says."
                raise StoreError(problem, where=f"{base}/{key}", remedy="Push the store again.")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)

    _copy_all(copy, records, progress)
    for name, most in ((PROVENANCE, Limit.PROVENANCE), (MANIFEST_COPY, Limit.MANIFEST), (MANIFEST, Limit.MANIFEST)):
        if (data := _read(fs, f"{base}/{name}", most)) is not None:
            write_whole(folder / name, manifest if name == MANIFEST else data)
    sync_all(path for path in (folder, *folder.rglob("*")))


def _copy_all(copy: Callable[[str], None], records: Mapping[str, ObjectRecord], progress: Progress | None) -> None:
    """Copies all objects, telling `progress` how many bytes are there, and how many there will be."""
    done, total = 0, sum(record.size for record in records.values())

    def tell(key: str, _: None) -> None:
        """One more is there."""
        nonlocal done
        done += records[key].size
        if progress is not None:
            progress(done, total)

    in_threads(copy, records, THREADS, tell)


def _sizes(fs: Any, base: str) -> dict[str, int]:
    """{key: bytes} of every object below an address."""
    fs.invalidate_cache()
    found = fs.find(base, detail=True)
    start = fs._strip_protocol(base).rstrip("/") + "/"
    return {name.removeprefix(start): int(entry["size"]) for name, entry in found.items()}


def _read(fs: Any, key: str, most: int) -> bytes | None:
    """An object that has at most so many bytes; None if there is none."""
    try:
        size = int(fs.info(key)["size"])
    except FileNotFoundError:
        return None
    if size > most:
        raise StoreError(f"This object has {size:,} bytes, more than {most:,}.", where=key, remedy="Push it again.")
    data: bytes = fs.cat_file(key)
    return data


@contextmanager
def _remote(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path there; whatever it raises becomes a `StoreError` that says what to do."""
    import fsspec

    scheme = address.partition("://")[0]
    try:
        fs, base = fsspec.core.url_to_fs(address)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install 'tosca-cache[{extra}]'" if extra else f"install what fsspec needs for {scheme}://"
        raise UsageError(f"{scheme}:// needs a library: {error}", where=address[:200], remedy=remedy) from error
    except ValueError as error:
        raise UsageError(
            f"this is no address: {error}", where=address[:200], remedy="give s3://BUCKET/FOLDER"
        ) from error
    try:
        yield fs, base
    except (StoreError, UsageError):
        raise
    except Exception as error:  # what the libraries of all these services raise has nothing in common
        raise StoreError(
            f"{scheme}:// failed: {ascii((str(error).strip() or type(error).__name__).splitlines()[0])[1:-1][:300]}",
            where=address,
            remedy="Check the address, credentials and network, then run the same command again: what is copied is kept.",
        ) from error
