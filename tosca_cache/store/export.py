"""A finished store as one file of arrays: HDF5, npz or parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors, replacing
from tosca_cache.store.layout import SPLITS
from tosca_cache.store.reader import Store


def export_store(store: Store, target: Path, *, force: bool = False) -> Path:
    """Writes features, labels, domains, paths and names of a store into one file, and returns its path.

    The format follows from the suffix (docs/exchange.md). The file gets its name when all of it is on the disk; what goes
    wrong before leaves nothing, and an old file as it was. Every byte of the store is checked by its crc32c on the way.

    Arguments:
        force: replace a file of that name.

    Raises `UsageError` if the file exists or has another suffix, `StoreError` if the store is damaged or the disk refuses.
    """
    writers = {".h5": _write_hdf5, ".hdf5": _write_hdf5, ".npz": _write_npz, ".parquet": _write_parquet}
    if (write := writers.get(target.suffix.lower())) is None:
        raise UsageError(f"{target.name} names no format", where=target, remedy=f"use one of {', '.join(writers)}")
    if target.exists() and (target.is_dir() or not force):
        raise UsageError("there is a file of this name", where=target, remedy="add --force, or choose another name")
    with file_errors(target, StoreError, option="another path"), replacing(target) as temporary:
        try:
            write(temporary, store)
        except RuntimeError as error:  # how libhdf5 says that the disk is full
            remedy = "Free space on this disk."
            raise StoreError(f"The file could not be written: {error}", where=target, remedy=remedy) from error
        except ImportError as error:
            remedy = "pip install 'tosca-cache[exchange]', or export to .h5 or .npz"
            raise UsageError(f"writing this format needs pyarrow: {error}", where=target, remedy=remedy) from error
    return target


def _arrays(store: Store) -> dict[str, Any]:
    """Everything but the features: names, and what a row of a split has, as `SPLIT/NAME`."""
    found: dict[str, Any] = {"class_names": list(store.class_names), "domain_names": list(store.domain_names)}
    for split in SPLITS:
        found |= {f"{split}/labels": store.labels(split), f"{split}/domains": store.domains(split)}
        found[f"{split}/paths"] = list(store.paths(split))
    return found


def _spec(store: Store) -> str:
    return json.dumps(store.spec.to_dict(), sort_keys=True)


def _blocks(store: Store, split: str) -> Iterator[slice]:
    """The rows of a split, as many at a time as a shard has."""
    size = store.manifest.plan.layouts[split].shard_rows
    return (slice(start, min(start + size, store.rows(split))) for start in range(0, store.rows(split), size))


def _write_hdf5(path: Path, store: Store) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["store"] = _spec(store)
        for name, values in _arrays(store).items():
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if isinstance(values, list) else None)
        for split in SPLITS:
            shape = (store.rows(split), store.views(split), store.dim)
            how = {"chunks": True, "fletcher32": True, "maxshape": shape}
            features = file.create_dataset(f"{split}/features", shape, store.dtype, **how)
            for block in _blocks(store, split):
                features[block] = store.features(split, block)


def _write_npz(path: Path, store: Store) -> None:
    arrays = {f"{split}/features": store.features(split) for split in SPLITS}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, store=np.array(_spec(store)), **arrays, **_arrays(store))


def _write_parquet(path: Path, store: Store) -> None:
    """Columns split, label, domain, path and features (lists of d numbers): the clean view."""
    import pyarrow as pa
    import pyarrow.parquet

    value = pa.from_numpy_dtype(store.dtype)
    texts = [(name, pa.string()) for name in ("split", "label", "domain", "path")]
    schema = pa.schema([*texts, ("features", pa.list_(value, store.dim))], metadata={"store": _spec(store)})
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for split in SPLITS:
            labels, domains, paths = store.labels(split), store.domains(split), store.paths(split)
            for rows in _blocks(store, split):
                names = [store.class_names[label] for label in labels[rows]]
                areas = [store.domain_names[domain] for domain in domains[rows]]
                flat = pa.array(store.features(split, rows, 0).reshape(-1), value)
                features = pa.FixedSizeListArray.from_arrays(flat, store.dim)
                columns = [pa.array([split] * len(names)), pa.array(names), pa.array(areas), pa.array(paths[rows])]
                writer.write_table(pa.table([*columns, features], schema=schema))
