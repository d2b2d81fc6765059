"""A finished store as one file of arrays: HDF5, npz or parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import file_errors, replacing
from tosca_cache.store.layout import SPLITS
from tosca_cache.store.reader import Store

FORMATS = (".h5", ".hdf5", ".npz", ".parquet")


def export_store(store: Store, target: Path, *, force: bool = False) -> Path:
    """Writes features, labels, domains, paths and names of a store into one file, and returns its path.

    The format follows from the suffix (docs/exchange.md). The file gets its name when all of it is on the disk; what goes
    wrong before leaves nothing, and an old file as it was. Every byte of the store is checked by its crc32c on the way.

    Arguments:
        force: replace a file of that name.

    Raises `UsageError` if the file exists or has another suffix, `StoreError` if the store is damaged or the disk refuses.
    """
    kind = target.suffix.lower()
    if kind not in FORMATS:
        raise UsageError(f"{target.name} names no format", where=target, remedy=f"use one of {', '.join(FORMATS)}")
    if target.exists() and (target.is_dir() or not force):
        raise UsageError("there is a file of this name", where=target, remedy="add --force, or choose another name")
    write = {".npz": _write_npz, ".parquet": _write_parquet}.get(kind, _write_hdf5)
    with file_errors(target, StoreError, option="another path"), replacing(target) as temporary:
        try:
            write(temporary, store)
        except RuntimeError as error:  # how libhdf5 says that the disk is full
            remedy = "Free space on this disk."
            raise StoreError(f"The file could not be written: {error}", where=target, remedy=remedy) from error
    return target


def _arrays(store: Store) -> dict[str, Any]:
    """Everything but the features: the fingerprint, names, and what a row of a split has, as `SPLIT/NAME`."""
    found: dict[str, Any] = {"class_names": list(store.class_names)}
    found |= {f"{split}/labels": store.labels(split) for split in SPLITS}
    found |= {f"{split}/paths": list(store.paths(split)) for split in SPLITS}
    if store.domain_names != ("",):
        found["domain_names"] = list(store.domain_names)
        found |= {f"{split}/domains": store.domains(split) for split in SPLITS}
    return found


def _spec(store: Store) -> str:
    return json.dumps(store.spec.to_dict(), sort_keys=True)


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
            for shard in store.manifest.plan.layouts[split].iterate(split):
                block = slice(shard.start, shard.stop)
                features[block] = store.features(split, block)


def _write_npz(path: Path, store: Store) -> None:
    arrays = {name.replace("/", "_"): np.asarray(values) for name, values in _arrays(store).items()}
    for split in SPLITS:
        arrays[f"{split}_features"] = store.features(split)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, store=np.array(_spec(store)), **arrays)


def _write_parquet(path: Path, store: Store) -> None:
    """Columns split, label, domain, path and features (lists of d numbers): the clean view."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        remedy = "pip install 'tosca-cache[exchange]', or export to .h5 or .npz"
        raise UsageError("writing .parquet needs pyarrow, which is not installed", where=path, remedy=remedy) from error
    value = pa.float16() if store.dtype == np.float16 else pa.float32()
    kinds = {"split": pa.string(), "label": pa.string(), "path": pa.string()}
    kinds |= {"domain": pa.string()} if store.domain_names != ("",) else {}
    schema = pa.schema([*kinds.items(), ("features", pa.list_(value, store.dim))], metadata={"store": _spec(store)})
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for split in SPLITS:
            labels, paths, domains = store.labels(split), store.paths(split), store.domains(split)
            for shard in store.manifest.plan.layouts[split].iterate(split):
                rows = range(shard.start, shard.stop)
                clean = store.features(split, slice(shard.start, shard.stop), 0)
                columns = {
                    "split": [split] * len(rows),
                    "label": [store.class_names[labels[row]] for row in rows],
                    "path": [paths[row] for row in rows],
                    "domain": [store.domain_names[domains[row]] for row in rows],
                }
                arrays = [pa.array(columns[name], kind) for name, kind in kinds.items()]
                flat = pa.array(clean.reshape(-1), value)
                writer.write_table(
                    pa.table([*arrays, pa.FixedSizeListArray.from_arrays(flat, store.dim)], schema=schema)
                )
