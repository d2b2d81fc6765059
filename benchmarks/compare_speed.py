"""Closed-form learners on CUB-sized random features, as `tosca compare` runs them: seconds and peak memory.

Measures: the thirteen that the target was set for, or with `--methods all` each registered learner that trains nothing by
gradient, keeps no rows and is no bound, with its default options (RanPAC: 10,000 projections), over 20 tasks of 9,430 x 9 x
768 train and 2,358 x 768 test features (float16, as from a store): learning, evaluation after every task and the timed
scoring, one seed, in a fresh process that has the features already. Peak memory is that process's, features and libraries
included; beside it that of RanPAC alone.
Against: the target that all of them together take less than 60 s on 2 CPU cores.

    python benchmarks/compare_speed.py [--repeats 3] [--methods ranpac,slda]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from time import perf_counter

import numpy as np
import torch
from common import repeat, report
from stage_two import CLASSES, DIM, INCREMENT, TEST, TRAIN, VIEWS

from tosca_cache.compare.cells import CompareRequest, cells_of
from tosca_cache.compare.measure import Workplace, measure_block
from tosca_cache.config import Settings, TrainConfig
from tosca_cache.learners import LEARNERS, Learner
from tosca_cache.sweep.scenario import Data
from tosca_cache.tasks import Arrays, TaskStream
from tosca_cache.train.engines import Engine

THIRTEEN = "acil,fecam,fecam-common,fetril,fsa-lda,garm,lame,nmc,ranpac,ranpac-raw,simplecil,slda,teen"


def closed_forms() -> list[str]:
    """Names of learners that train nothing, tried on a few rows, keep no rows and are no bounds."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 12)
    arrays = Arrays(generator.normal(size=(len(labels), 2, 32)).astype(np.float32), labels)
    stream = TaskStream(arrays, arrays, class_names="abcd", increment=2)
    candidates = [(name, kind) for name, kind in LEARNERS.items() if not (kind.rehearsal or kind.bound)]
    return sorted(name for name, kind in candidates if not _trains(kind, stream))


def _trains(kind: type[Learner], stream: TaskStream) -> bool:
    learner = kind(settings=Settings(epochs=1))
    for task in stream:
        learner.observe(task)
        if learner.trainable_parameters:
            return True
    return False


def gaussian(generator: np.random.Generator, means: np.ndarray, rows: int, views: int) -> Arrays:
    """Gaussian classes, class by class; made a class at a time, so that making them takes no memory worth mentioning."""
    labels = np.sort(np.arange(rows) % CLASSES)
    features = np.empty((rows, views, DIM), dtype=np.float16)
    for c in range(CLASSES):
        mine = labels == c
        noise = generator.standard_normal((int(mine.sum()), views, DIM), dtype=np.float32)
        features[mine] = means[c] + 3 * noise
    return Arrays(features, labels)


def once(names: list[str]) -> dict[str, float]:
    """Seconds of each learner, and the peak memory of this process in MiB."""
    generator = np.random.default_rng(0)
    means = generator.standard_normal((CLASSES, DIM), dtype=np.float32)
    train, test = gaussian(generator, means, TRAIN, 1 + VIEWS), gaussian(generator, means, TEST, 1)
    data = Data(train, test, tuple(str(c) for c in range(CLASSES)))
    request = CompareRequest(TrainConfig(increment=INCREMENT), tuple(names), seeds=(1993,))
    place = Workplace(data, torch.device("cpu"), Engine())
    found = {"MiB of features and libraries": _peak()}
    for name in names:
        start = perf_counter()
        (finished,) = measure_block(cells_of(request, name, "random"), place)
        if finished.reason is not None:
            raise RuntimeError(f"{name}: {finished.reason}")
        found[name] = perf_counter() - start
    return found | {"all together": sum(found[name] for name in names), "peak MiB": _peak()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_fresh_process(names: list[str]) -> dict[str, float]:
    """What `once` gives in a process of its own."""
    command = [sys.executable, __file__, "--once", "--methods", ",".join(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--methods", help="names, comma-separated; `all`: every closed form; the thirteen of the target by default"
    )
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = closed_forms() if arguments.methods == "all" else (arguments.methods or THIRTEEN).split(",")
    if arguments.once:
        print(json.dumps(once(names)))
        return
    figures = repeat(lambda: in_a_fresh_process(names), arguments.repeats)
    if "ranpac" in names:
        figures["peak MiB of ranpac alone"] = in_a_fresh_process(["ranpac"])["peak MiB"]
    sizes = {"train": [TRAIN, 1 + VIEWS, DIM], "test": [TEST, DIM], "tasks": CLASSES // INCREMENT, "seeds": 1}
    sizes |= {"learners": len(names), "threads": torch.get_num_threads(), "repeats": arguments.repeats}
    lines = [f"CUB-sized, {len(names)} closed-form learners, medians of {arguments.repeats}"]
    lines += [f"{name:>32} {value:9.2f}" for name, value in figures.items()]
    if arguments.methods is None:
        report("compare_speed", sizes, figures, lines)
    else:  # a part of them, to look at
        print("\n".join(lines))


if __name__ == "__main__":
    main()
