"""How time and memory of stage two grow with the store: seconds and peak memory by stage, and what ImageNet would take.

Measures: synthetic float16 stores of 768 numbers, of growing numbers of classes with a number of rows each, rows in no
order, made by import in a folder that is removed afterwards; and every stage of stage two in a process of its own, each
over all tasks with the evaluation after every task: `read` (one pass over every task's rows), `simplecil`, `pool`, `ranpac`
and `tosca`. Features stay in the store in all of them (`load_splits(most=0)`), as those of a store do that is larger than
a quarter of the free memory. Seconds begin when the process has imported what it needs; memory is the peak of the process,
less what it was then.
Against: the exponents of rows that they grow by, fitted to the sizes measured; and from these what ImageNet-1k (1,281,167
rows) and ImageNet-21k (14,197,122 rows) would take; from the third size on that is said before a size is run. The number of
tasks stays, so tasks grow as the store does. Target: memory that does not grow with the rows of earlier tasks.

    python benchmarks/scale.py --folder /tmp/scale [--classes 100,200,400] [--rows 50] [--views 0] [--stages read,pool]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import report

import tosca_cache as tosca
from tosca_cache.config import Settings
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.store import open_store
from tosca_cache.tasks import TaskStream, load_splits
from tosca_cache.train.engines import choose_engine

DIM, TEST_ROWS = 768, 5  # test rows of each class
STAGES = ("read", "simplecil", "pool", "ranpac", "tosca")
IMAGENET = {"ImageNet-1k": 1_281_167, "ImageNet-21k": 14_197_122}
MIB = 1 << 20


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


def exponent(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """(a, b) of value = a size^b by least squares of the logarithms."""
    b, log_a = np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-3)), 1)
    return float(np.exp(log_a)), float(b)


def said(stage: str, sizes: list[int], found: list[dict[str, float]]) -> tuple[dict[str, float], str]:
    """Exponents of one stage, what ImageNet would take by them, and both in a line."""
    figures, words = {}, []
    for what in ("seconds", "MiB"):
        a, b = exponent(sizes, [one[what] - one.get("MiB before", 0) * (what == "MiB") for one in found])
        figures[f"exponent of {what}"] = b
        words.append(f"{what} ~ rows^{b:.2f}")
        for name, rows in IMAGENET.items():
            figures[f"{what}, {name}"] = a * rows**b
            words.append(f"{name} {a * rows**b:,.0f} {'s' if what == 'seconds' else 'MiB'}")
    return figures, f"{stage:>10}: " + ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="where the stores are made and removed; a folder for temporary files"
    )
    parser.add_argument("--classes", default="100,200,400", help="numbers of classes, ascending")
    parser.add_argument("--rows", type=int, default=50, help="train rows of each class")
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    stages = arguments.stages.split(",")
    if arguments.once:
        print(json.dumps(once(arguments.once, stages[0], arguments.tasks, arguments.epochs)))
        return
    found: dict[str, list[dict[str, float]]] = {stage: [] for stage in ("import", *stages)}
    sizes = []
    for classes in map(int, arguments.classes.split(",")):
        rows = classes * arguments.rows
        if len(sizes) > 1:
            print("\n".join(["expected of what has been measured:", *_lines(found, sizes)]), flush=True)
        sizes.append(rows)
        need = rows * (1 + arguments.views) * DIM * 2
        if arguments.folder is not None:
            arguments.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="tosca-scale-", dir=arguments.folder))
        try:
            free = shutil.disk_usage(folder).free
            if 2.2 * need > free:
                raise SystemExit(
                    f"{classes} classes need {2.2 * need / MIB:,.0f} MiB on disk, {free / MIB:,.0f} are free"
                )
            before, start = _peak(), perf_counter()
            path = make_store(folder, classes, arguments.rows, arguments.views)
            found["import"].append({"seconds": perf_counter() - start, "MiB": _peak(), "MiB before": before})
            print(f"{classes:>6} classes, {rows:>8} rows: import {found['import'][-1]['seconds']:.1f} s", flush=True)
            for stage in stages:
                found[stage].append(in_a_fresh_process(path, stage, arguments.tasks, arguments.epochs))
                one = found[stage][-1]
                print(f"{stage:>17} {one['seconds']:9.2f} s {one['MiB']:9.0f} MiB", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    figures = {stage: {"measured": values} for stage, values in found.items()}
    for stage, values in found.items():
        if len(sizes) > 1:
            figures[stage] |= said(stage, sizes, values)[0]
    facts = {"rows": sizes, "classes": arguments.classes, "views": arguments.views, "tasks": arguments.tasks}
    facts |= {"dim": DIM, "epochs": arguments.epochs, "threads": torch.get_num_threads()}
    report("scale", facts, figures, _lines(found, sizes) if len(sizes) > 1 else [])


def _lines(found: dict[str, list[dict[str, float]]], sizes: list[int]) -> list[str]:
    return [said(stage, sizes[: len(values)], values)[1] for stage, values in found.items() if len(values) > 1]


if __name__ == "__main__":
    main()
