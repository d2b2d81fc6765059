"""Inputs for tools/fuzz_store.py: small valid files of every kind, and how they are broken."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Flips, cuts, splices, repeats, or another number where eight bytes stood; or JSON with another value somewhere."""
    if data[:1] == b"{" and chance.random() < 0.7:
        lines = [data] if data.rstrip().endswith(b"}") and data.count(b"\n{") == 0 else data.splitlines(keepends=True)
        place = chance.randrange(len(lines))
        try:
            lines[place] = json.dumps(mutate_json(json.loads(lines[place]), chance)).encode() + b"\n"
            return b"".join(lines)
        except (ValueError, RecursionError):
            pass
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not out:
            break
        place = chance.randrange(len(out))
        match chance.randrange(4 if data[:4] == b"\x89HDF" and chance.random() < 0.9 else 7):  # HDF5 knows its length
            case 0 | 1:
                out[place] ^= 1 << chance.randrange(8)
            case 4:
                del out[place:]
            case 5:
                out[place : place + chance.randrange(64)] = b""
            case 6:
                start = chance.randrange(len(data))
                out[place:place] = data[start : start + chance.randrange(256)]
            case 2:
                number = chance.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 10**12, len(data)))
                width = chance.choice((1, 2, 4, 8))
                out[place : place + width] = (number % 256**width).to_bytes(width, "little")
            case 3:
                out[place] = chance.randrange(256)
    return bytes(out)


def mutate_json(value: Any, chance: random.Random) -> Any:
    """The value with one of its parts, anywhere, replaced by something of another kind, left out, or doubled."""
    if isinstance(value, dict | list) and value and chance.random() < 0.85:
        copy = dict(value) if isinstance(value, dict) else list(value)
        key = chance.choice(list(copy)) if isinstance(copy, dict) else chance.randrange(len(copy))
        if chance.random() < 0.08:
            del copy[key]
        else:
            copy[key] = mutate_json(copy[key], chance)
        return copy
    deep: Any = 1
    for _ in range(chance.choice((3, 200, 5000))):
        deep = [deep]
    near = value + chance.choice((-1, 1)) if type(value) is int else 0
    others = [None, True, -1, 0, 1, near, 0.5, 1e308, 2**63, 10**30, math.pi, "", "a" * 70, "\ud800", "..", "../x"]
    return chance.choice([*others, [], {}, [[]], deep, {"": 0}, {"a.b": 1}])


def npz_seeds() -> list[bytes]:
    """Small files of arrays, stored and deflated."""
    chance, out = np.random.default_rng(0), []
    X, y = chance.normal(size=(12, 3)).astype(np.float32), np.arange(12) % 2
    for save in (np.savez, np.savez_compressed):
        for arrays in (
            {"x": X, "y": y, "is_test": np.arange(12) % 3 == 0, "classes": np.array(["a", "ä"])},
            {"x_train": np.asfortranarray(X), "y_train": y.astype(float), "x_test": X[:4], "y_test": y[:4]},
        ):
            held = io.BytesIO()
            save(held, **arrays)
            out.append(held.getvalue())
    return out


def hdf5_seeds() -> list[bytes]:
    """Small HDF5 files: contiguous, chunked, compressed, old and new groups, texts of both kinds."""
    import h5py

    chance, out = np.random.default_rng(0), []
    X, y = chance.normal(size=(12, 3)).astype(np.float32), np.arange(12) % 2
    for libver in ("earliest", "latest"):
        held = io.BytesIO()
        with h5py.File(held, "w", libver=libver) as file:
            file["x"], file["y"] = X, np.array(["a", "bb"], dtype=object)[y]
            file.create_dataset("is_test", data=np.arange(12) % 3 == 0)
        out.append(held.getvalue())
        held = io.BytesIO()
        with h5py.File(held, "w", libver=libver) as file:
            for split in ("train", "test"):
                file.create_dataset(f"{split}/features", data=X, chunks=(5, 3), compression="gzip", fletcher32=True)
                file.create_dataset(f"{split}/labels", data=y, chunks=(4,), shuffle=True, compression="lzf")
            file["class_names"] = np.array([b"a", b"b"])
            file.attrs["name"] = np.bytes_("s")
        out.append(held.getvalue())
    return out


def exported_seeds(folder: Path) -> list[bytes]:
    """An exported store of few rows."""
    from toy_store import build, toy_spec

    from tosca_cache.store.exchange import export_store

    rows, views = {"train": 6, "test": 4}, {"train": 2, "test": 1}
    store = build(folder / "seed" / "toy", toy_spec(rows, views, 3), rows=rows, views=views, dim=3, shard_rows=4)
    return [export_store(store, folder / "seed" / "toy.h5").read_bytes()]
