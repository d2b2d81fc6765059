"""Reading a feature store: a whole 1 GB of float16 into RAM, view 0 alone, and the rows of one class.

Measures: `Store.features` on a store of --gigabytes of float16 features with 9 views of 768 numbers a row, opened by
`open_store` before; medians over --repeats rounds, in each of which every reader takes its turn, after one round that is
not counted; everything in the page cache. Each reader returns a fresh C-contiguous array, which is freed before the next.
Against: numpy.load of one .npy file with the same bytes (no checksums); zarr's own reading of the same store, with its
defaults and with as many workers as cores.
Target: the whole store at no less than 0.8 of the speed of numpy.load.

    python benchmarks/store_read.py [--gigabytes 1] [--repeats 9] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import zarr
from common import report

from tosca_cache.store import Store, StoreSpec, StoreWriter, open_store

DIM, VIEWS, CLASSES = 768, 9, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where 2 x --gigabytes are written and removed again")
    options = parser.parse_args()
    rows = int(options.gigabytes * 1e9 / (VIEWS * DIM * 2))
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        store, writing = build(folder / "store", rows)
        np.save(folder / "features.npy", store.features("train"))
        seconds = measure(readers(store, folder / "features.npy"), options.repeats)
    finally:
        shutil.rmtree(folder)
    figures = {"write_seconds": writing, "read_seconds": seconds}
    figures["whole_vs_numpy"] = seconds["numpy.load"] / seconds["store, whole"]
    lines = [f"{name:<36} {value:7.3f} s" for name, value in seconds.items()]
    lines += [
        f"writing, all shards on the disk      {writing:7.3f} s",
        f"whole store: {figures['whole_vs_numpy']:.2f} of the speed of numpy.load (target: at least 0.8)",
    ]
    sizes = {"rows": rows, "views": VIEWS, "dim": DIM, "bytes": rows * VIEWS * DIM * 2, "repeats": options.repeats}
    report("store_read", sizes, figures, lines)


def build(path: Path, rows: int) -> tuple[Store, float]:
    """A store of random features, sorted by class, and the seconds that writing it took."""
    spec = StoreSpec(
        dataset={"name": "random", "listing_digest": "", "classes": CLASSES, "splits": {"train": rows, "test": 0}},
        backbone={"name": "none", "tag": "", "weights_digest": "", "dim": DIM},
        transform={},
        views={"count": VIEWS - 1, "seed": 0, "test_count": 0},
        precision="fp32",
        dtype="float16",
    )
    labels = np.sort(np.arange(rows) % CLASSES)
    block = np.random.default_rng(0).standard_normal((2048, VIEWS, DIM), dtype=np.float32).astype(np.float16)
    start = perf_counter()
    with StoreWriter.open(
        path,
        spec,
        class_names=[str(label) for label in range(CLASSES)],
        domain_names=[""],
        numerics={},
    ) as writer:
        for shard in writer.pending():
            rows = {
                "features": block[: shard.rows] + np.float16(shard.index),
                "labels": labels[shard.start : shard.stop],
                "domains": np.zeros(shard.rows, dtype=np.int64),
                "views": np.zeros((shard.rows, VIEWS, 6), dtype=np.int64),
                "paths": [f"{row}.jpg" for row in range(shard.start, shard.stop)],
            }
            writer.publish(shard, rows)
        store = writer.finish({})
    return store, perf_counter() - start


def readers(store: Store, file: Path) -> dict[str, Callable[[], Any]]:
    """What is compared, each a call that returns the array."""
    array = zarr.open_array(store=str(store.path), path="train/features", mode="r")
    one_class = np.flatnonzero(store.labels("train") == CLASSES // 2)

    def zarr_with_workers() -> Any:
        workers = os.cpu_count() or 1
        with zarr.config.set({"async.concurrency": workers, "threading.max_workers": workers}):
            return array[:]

    return {
        "zarr, whole": lambda: array[:],
        "zarr, whole, one worker a core": zarr_with_workers,
        "numpy.load": lambda: np.load(file),
        "store, whole": lambda: store.features("train"),
        "store, view 0": lambda: store.features("train", views=0),
        "store, rows of one class": lambda: store.features("train", one_class),
        "store, opened": lambda: open_store(store.path),
    }


def measure(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = perf_counter()
            call()  # the array is freed before the next one is made
            seconds[name].append(perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
