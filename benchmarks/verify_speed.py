"""Verifying a feature store: every checksum, count and range of a 1 GB store of float16 features.

Measures: `verify_store` on a store of --gigabytes of float16 features with 9 views of 768 numbers a row, in the page cache;
medians over --repeats rounds after one that is not counted, with one thread and with as many as there are cores.
Against: SHA-256 alone over the same bytes, read from the same files with one thread.
Target: 500 MB/s or better on 2 cores.

    python benchmarks/verify_speed.py [--gigabytes 1] [--repeats 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from common import report
from store_read import DIM, VIEWS, build

from tosca_cache.store.verify import verify_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where --gigabytes are written and removed again")
    options = parser.parse_args()
    rows = int(options.gigabytes * 1e9 / (VIEWS * DIM * 2))
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        store, _ = build(folder / "store", rows)
        calls = {
            "SHA-256 alone, one thread": lambda: hash_files(store.path),
            "verify, one thread": lambda: checked(store.path, 1),
            f"verify, {os.cpu_count()} threads": lambda: checked(store.path, os.cpu_count()),
        }
        seconds = {name: measure(call, options.repeats) for name, call in calls.items()}
        size = store.manifest.size
    finally:
        shutil.rmtree(folder)
    speeds = {name: size / 1e6 / value for name, value in seconds.items()}
    lines = [f"{name:<28} {seconds[name]:7.3f} s {speeds[name]:8.0f} MB/s" for name in calls]
    lines.append("target: 500 MB/s on 2 cores")
    sizes = {"rows": rows, "views": VIEWS, "dim": DIM, "bytes": size, "repeats": options.repeats}
    report("verify_speed", sizes, {"seconds": seconds, "megabytes_per_second": speeds}, lines)


def checked(path: Path, threads: int | None) -> None:
    """One verification, which must find nothing."""
    found = verify_store(path, threads=threads)
    assert found.ok, found.problems


def hash_files(path: Path) -> None:
    """Reads and hashes every file."""
    for file in path.rglob("*"):
        if file.is_file():
            hashlib.sha256(file.read_bytes()).hexdigest()


def measure(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats + 1):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
