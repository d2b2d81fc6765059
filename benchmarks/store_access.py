"""Getting at a little of a store: one task of a CUB-sized one from the disk, and one class of a 10 GB one.

Measures, each in a fresh process that has imported the package and has not touched the store:
- opening a store of 9,430 rows with 9 views of 768 float16 numbers and reading one task's rows of it (ten classes, all
  views, labels included), with the store's files dropped from the page cache before (cold) and with them in it (warm);
  medians;
- reading all rows of one class of a store of --gigabytes: bytes that the process asked the kernel for (/proc/self/io).
Against: a target of 50 ms cold; and the bytes of the chunks that hold rows of the class, with their shards' indexes.

    python benchmarks/store_access.py [--gigabytes 10] [--repeats 9] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from common import report
from store_read import CLASSES, DIM, VIEWS, build

from tosca_cache.store import Store, open_store

ROWS, TASK = 9430, 10  # of the CUB-sized store; classes a task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where --gigabytes are written and removed again")
    parser.add_argument("--child", choices=("task", "class"), help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one_task(options.store) if options.child == "task" else one_class(options.store)))
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        build(folder / "cub", ROWS)
        build(folder / "large", int(options.gigabytes * 1e9 / (VIEWS * DIM * 2)))
        runs = {
            kind: [timed(folder / "cub", kind == "cold") for _ in range(options.repeats)] for kind in ("cold", "warm")
        }
        seconds = {
            kind: {n: statistics.median(run[n] for run in found) for n in found[0]} for kind, found in runs.items()
        }
        read = child(folder / "large", "class")
    finally:
        shutil.rmtree(folder)
    lines = [
        f"one task of a CUB-sized store, {kind}: {1000 * parts['all']:.1f} ms (open {1000 * parts['open']:.1f}, "
        f"labels {1000 * parts['labels']:.1f}, features {1000 * parts['features']:.1f})"
        for kind, parts in seconds.items()
    ]
    lines.append(
        f"one class of {options.gigabytes:g} GB: {read['bytes']:,} bytes read, {read['wanted']:,} in its chunks and their "
        f"indexes, {read['seconds'] * 1000:.1f} ms"
    )
    sizes = {"rows": ROWS, "views": VIEWS, "dim": DIM, "gigabytes": options.gigabytes, "repeats": options.repeats}
    report("store_access", sizes, {"seconds": seconds, "one_class": read}, lines)


def timed(store: Path, cold: bool) -> dict[str, float]:
    """Seconds of opening and reading in a fresh process."""
    for path in store.rglob("*"):
        if cold and path.is_file():
            drop(path)
    return child(store, "task")


def drop(path: Path) -> None:
    """Takes a file, which must be on the disk, out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def child(store: Path, what: str) -> dict[str, float]:
    """What this script finds in a fresh process."""
    command = [sys.executable, __file__, "--child", what, "--store", str(store)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one_task(path: Path) -> dict[str, float]:
    """Seconds of opening a store, reading its labels, and reading the rows of the classes of one task."""
    times = [perf_counter()]
    store = open_store(path)
    times.append(perf_counter())
    rows = np.flatnonzero(store.labels("train") // TASK == CLASSES // TASK // 2)
    times.append(perf_counter())
    features = store.features("train", rows)
    times.append(perf_counter())
    assert features.shape == (len(rows), VIEWS, DIM)
    names = ("open", "labels", "features")
    return dict(zip(names, np.diff(times).tolist(), strict=True)) | {"all": times[-1] - times[0]}


def one_class(path: Path) -> dict[str, float]:
    """Bytes read for all rows of one class, and the bytes of the chunks that hold them."""
    store = open_store(path)
    rows = np.flatnonzero(store.labels("train") == CLASSES // 2)
    store.features("train", rows[:1])  # whatever is loaded on the first reading
    looking = -(bytes_read() - bytes_read())  # looking reads, too
    before, start = bytes_read(), perf_counter()
    store.features("train", rows)
    seconds = perf_counter() - start
    return {
        "bytes": bytes_read() - before - looking,
        "wanted": in_chunks(store, rows),
        "rows": len(rows),
        "seconds": seconds,
    }


def in_chunks(store: Store, rows: np.ndarray) -> int:
    """Bytes of the chunks of features that hold these train rows, and of the indexes of their shards."""
    layout = store.manifest.plan.layouts["train"]
    chunks, shards = np.unique(rows // layout.chunk_rows), np.unique(rows // layout.shard_rows)
    return len(chunks) * layout.chunk_bytes + len(shards) * layout.index_bytes


def bytes_read() -> int:
    """Bytes that this process has read by system calls, before this call."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


if __name__ == "__main__":
    main()
