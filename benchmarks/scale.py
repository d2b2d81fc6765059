"""How time and memory of stage two grow with rows, classes and tasks; what ImageNet would take; which stage breaks first.

Measures: synthetic float16 stores of 768 numbers, rows in no order, made by import in a folder that is removed afterwards;
and every stage of stage two in a process of its own, each over all tasks with the evaluation after every task: `read` (one
pass over every task's rows), `simplecil`, `pool`, `ranpac` and `tosca`. Features stay in the store in all of them
(`load_splits(most=0)`), as those of a store do that is larger than a quarter of the free memory. The first of --classes,
--rows and --tasks is where it begins; each other value stands alone beside the first of the other two. Seconds begin when
the process has imported what it needs; memory is the peak of the process, less what it was then.
Against: the exponents of value ~ rows^a classes^b tasks^c, by least squares of the logarithms; from these, what
ImageNet-1k (1,000 classes of 1,281 rows) and ImageNet-21k (21,841 of 650) in 100 tasks would take, and at how many classes
of as many rows a stage needs more memory than this machine has, or more than --hours. Target: memory that does not grow
with the rows of earlier tasks.

    python benchmarks/scale.py --folder /tmp/scale [--classes 100,200,400] [--rows 50,100] [--tasks 20,10] [--views 0]
    python benchmarks/scale.py --folder /tmp/scale --classes 1000 --rows 1281 --tasks 100 --stages pool,ranpac
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from common import report

import tosca_cache as tosca
from tosca_cache.config import Settings
from tosca_cache.devices import total_memory
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.store import open_store
from tosca_cache.tasks import TaskStream, load_splits
from tosca_cache.train.engines import choose_engine

DIM, TEST_ROWS = 768, 5  # test rows of each class
STAGES = ("read", "simplecil", "pool", "ranpac", "tosca")
MIB = 1 << 20
FAR = 1_000_000  # classes: what breaks beyond them does not break


class Size(NamedTuple):
    """Classes, train rows of each, and tasks that they come in."""

    classes: int
    rows: int
    tasks: int


IMAGENET = {"ImageNet-1k": Size(1000, 1281, 100), "ImageNet-21k": Size(21_841, 650, 100)}


def make_store(folder: Path, classes: int, rows: int, views: int) -> Path:
    """A store of Gaussian classes, made by import; its features lie in a file while they are imported."""
    generator = np.random.default_rng(0)
    means = generator.standard_normal((classes, DIM), dtype=np.float32)
    labels = {"train": generator.permutation(np.repeat(np.arange(classes), rows))}
    labels["test"] = np.repeat(np.arange(classes), TEST_ROWS)
    features = {}
    for split, own in labels.items():
        width = 1 + views if split == "train" else 1
        shape = (len(own), width, DIM)
        features[split] = np.lib.format.open_memmap(folder / f"{split}.npy", mode="w+", dtype=np.float16, shape=shape)
        for start in range(0, len(own), 4096):
            part = own[start : start + 4096]
            noise = generator.standard_normal((len(part), width, DIM), dtype=np.float32)
            features[split][start : start + 4096] = means[part][:, None] + 3 * noise
    store = tosca.import_features(
        features["train"],
        labels["train"],
        dataset=f"scale-{classes}",
        test_features=features["test"],
        test_labels=labels["test"],
        root=folder,
    )
    for split in labels:
        (folder / f"{split}.npy").unlink()
    return Path(store.path)


def once(path: Path, stage: str, tasks: int, epochs: int) -> dict[str, float]:
    """Seconds and peak MiB of one stage in this process."""
    store = open_store(path)
    before, start = _peak(), perf_counter()
    train, test = load_splits(store, most=0)
    stream = TaskStream(train, test, class_names=store.class_names, increment=len(store.class_names) // tasks)
    if stage == "read":
        for task in stream:
            assert len(task.train)
        return {"seconds": perf_counter() - start, "MiB": _peak(), "MiB before": before}
    settings = Settings(epochs=epochs)
    steps = settings.steps(stream.train_counts().tolist())
    learner = LEARNERS[stage](settings=settings, engine=choose_engine("auto", torch.device("cpu"), steps=steps))
    seconds = run_protocol(learner, stream).seconds
    total = {"seconds": perf_counter() - start, "MiB": _peak(), "MiB before": before}
    return total | {f"{name} seconds": value for name, value in seconds.items()}


def _peak() -> float:
    """MiB of this program at its peak; `getrusage` would count what the process was before it became this program."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def in_a_fresh_process(path: Path, stage: str, tasks: int, epochs: int) -> dict[str, float]:
    """What `once` gives in a process of its own."""
    command = [sys.executable, __file__, "--once", str(path), "--stages", stage]
    command += ["--tasks", str(tasks), "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def exponents(sizes: list[Size], values: list[float]) -> dict[str, float] | None:
    """Of value = scale rows^a classes^b tasks^c; rows are those of all classes. None where an axis does not vary."""
    if any(len({size[axis] for size in sizes}) < 2 for axis in range(3)):
        return None
    x = np.log([[np.e, size.rows * size.classes, size.classes, size.tasks] for size in sizes])
    found = np.linalg.lstsq(x, np.log(np.maximum(values, 1e-3)), rcond=None)[0]
    return dict(zip(("scale", "rows", "classes", "tasks"), map(float, (np.exp(found[0]), *found[1:])), strict=True))


def expected(found: dict[str, float], size: Size) -> float:
    """What a stage takes at a size, by its exponents."""
    rows = size.rows * size.classes
    return found["scale"] * rows ** found["rows"] * size.classes ** found["classes"] * size.tasks ** found["tasks"]


def breaks(found: dict[str, float], most: float) -> float:
    """At how many classes a stage takes `most`, with rows and tasks of ImageNet-21k; infinity if it never does."""
    power = found["rows"] + found["classes"]
    one = expected(found, IMAGENET["ImageNet-21k"]._replace(classes=1))
    return (most / one) ** (1 / power) if power > 0.01 else np.inf


def said(stage: str, sizes: list[Size], measured: list[dict[str, float]], hours: float) -> tuple[dict[str, Any], str]:
    """Exponents of one stage, what ImageNet would take by them, where it breaks, and all of it in lines."""
    figures: dict[str, Any] = {}
    lines = []
    limits = {"seconds": 3600 * hours, "MiB": total_memory(torch.device("cpu")) / MIB}
    for what, most in limits.items():
        found = exponents(sizes, [one[what] - one["MiB before"] * (what == "MiB") for one in measured])
        if found is None:
            continue
        guesses = {name: expected(found, size) for name, size in IMAGENET.items()}
        guesses["breaks at classes"] = breaks(found, most)
        figures[what] = {"exponents": found} | guesses
        powers = ", ".join(f"{axis}^{found[axis]:.2f}" for axis in ("rows", "classes", "tasks"))
        taken = ", ".join(f"{name} {guesses[name]:,.0f}" for name in IMAGENET)
        at = guesses["breaks at classes"]
        where = f"{most:,.0f} at {at:,.0f} classes" if at < FAR else f"{most:,.0f} beyond {FAR:,} classes"
        lines.append(f"{stage:>10}: {what:7} ~ {powers}; {taken}; {where}")
    return figures, "\n".join(lines)


def sizes_of(arguments: argparse.Namespace) -> list[Size]:
    """The first of every list, then each other value alone beside the first ones."""
    axes = [[int(value) for value in text.split(",")] for text in (arguments.classes, arguments.rows, arguments.tasks)]
    first = [values[0] for values in axes]
    others = [
        Size(*first[:axis], value, *first[axis + 1 :]) for axis in (2, 1, 0) for value in axes[axis][1:]
    ]  # those that need no other store come first
    return [Size(*first), *others]


@contextmanager
def stored(folder: Path | None, size: Size, views: int) -> Iterator[tuple[Path, dict[str, float]]]:
    """A store of that size, and what its import took; removed at the end."""
    need = size.classes * size.rows * (1 + views) * DIM * 2
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tosca-scale-", dir=folder, ignore_cleanup_errors=True) as name:
        free = shutil.disk_usage(name).free
        if 2.2 * need > free:
            raise SystemExit(f"{size} needs {2.2 * need / MIB:,.0f} MiB on disk, {free / MIB:,.0f} are free")
        before, start = _peak(), perf_counter()
        path = make_store(Path(name), size.classes, size.rows, views)
        yield path, {"seconds": perf_counter() - start, "MiB": _peak(), "MiB before": before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where stores are made; a folder for temporary files by default")
    parser.add_argument("--classes", default="100,200,400", help="numbers of classes")
    parser.add_argument("--rows", default="50,100", help="numbers of train rows of each class")
    parser.add_argument("--tasks", default="20,10", help="numbers of tasks")
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--hours", type=float, default=24.0, help="what is too long")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    stages = arguments.stages.split(",")
    if arguments.once:
        print(json.dumps(once(arguments.once, stages[0], int(arguments.tasks), arguments.epochs)))
        return
    sizes = sizes_of(arguments)
    found: dict[str, list[dict[str, float]]] = {stage: [] for stage in stages}
    imports = []
    for size in sizes:
        with stored(arguments.folder, size, arguments.views) as (path, taken):
            imports.append(taken)
            print(f"{size.classes} classes of {size.rows} rows, {size.tasks} tasks: import {taken['seconds']:.1f} s")
            for stage in stages:
                one = in_a_fresh_process(path, stage, size.tasks, arguments.epochs)
                found[stage].append(one)
                print(f"{stage:>17} {one['seconds']:9.2f} s {one['MiB']:9.0f} MiB", flush=True)
    fitted = {stage: said(stage, sizes, values, arguments.hours) for stage, values in found.items()}
    figures = {stage: {"measured": found[stage]} | fitted[stage][0] for stage in stages}
    facts = {"classes, rows of each, tasks": sizes, "views": arguments.views, "dim": DIM, "epochs": arguments.epochs}
    facts |= {"threads": torch.get_num_threads(), "hours": arguments.hours}
    lines = [line for _, line in fitted.values() if line]
    limits = [(one["breaks at classes"], stage, what) for stage in stages for what, one in fitted[stage][0].items()]
    if limits:
        lines.append("first to break: {1}, by {2}, at {0:,.0f} classes".format(*min(limits)))
    report(name_of(arguments), facts, figures | {"import": imports}, lines)


def name_of(arguments: argparse.Namespace) -> str:
    """Of the file of results: views and a single size have one of their own."""
    single = "" if "," in arguments.classes else f"_{arguments.classes}"
    return f"scale{single}" + (f"_{arguments.views}_views" if arguments.views else "")


if __name__ == "__main__":
    main()
