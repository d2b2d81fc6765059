"""Every router over the stored modules of a CUB-sized run: seconds to fit it and to route all test rows.

Measures: 20 modules trained on synthetic features of CUB's size (9,430 x 768 clean train rows, 2,358 test rows, 200
classes), then each registered router as `tosca route` runs it: fitted on the train rows of all tasks, and asked about all
test rows.
Against: the target that all of them together take less than 10 s on 2 CPU cores after training. What the modules say of
the test rows (entropy and prediction) is computed once for all, and counted.

    python benchmarks/route_speed.py [--repeats 3]
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
import torch
from common import repeat, report
from stage_two import CLASSES, DIM, INCREMENT, TEST, TRAIN, VIEWS, synthetic

from tosca_cache.config import Settings
from tosca_cache.learners.tosca import Tosca
from tosca_cache.routing import ROUTERS
from tosca_cache.runs.experiment import train_stream
from tosca_cache.runs.route import ask, leak_curve, route_again
from tosca_cache.tasks import TaskStream
from tosca_cache.train.engines import choose_engine


def measure(stream: TaskStream, learner: Tosca) -> dict[str, float]:
    """Seconds of everything that `tosca route` does after it has read the run and the store."""
    start = perf_counter()
    stored = ask(stream, learner)
    asked = perf_counter()
    routed = route_again(stored, sorted(ROUTERS))
    done = perf_counter()
    leak_curve(stored)
    seconds = {f"router {name}": values["seconds"] for name, values in routed.items()}
    return {
        "modules asked": asked - start,
        **seconds,
        "audit": perf_counter() - done,
        "all together": perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    means = generator.standard_normal((CLASSES, DIM), dtype=np.float32)
    train, test = synthetic(generator, means, TRAIN, 1 + VIEWS), synthetic(generator, means, TEST, 1 + VIEWS)
    stream = TaskStream(train, test, class_names=[str(c) for c in range(CLASSES)], increment=INCREMENT)
    engine = choose_engine("auto", torch.device("cpu"), steps=Settings().steps(stream.train_counts().tolist()))
    learner = train_stream(stream, Tosca(engine=engine)).learner
    figures = repeat(lambda: measure(stream, learner), arguments.repeats)
    sizes = {"train": [TRAIN, DIM], "test": [TEST, DIM], "views": VIEWS, "modules": len(stream)}
    sizes |= {"repeats": arguments.repeats}
    lines = [f"CUB-sized, {len(stream)} modules, {len(ROUTERS)} routers, medians of {arguments.repeats}"]
    report("route_speed", sizes, figures, lines + [f"{name:>24} {value:8.2f}" for name, value in figures.items()])


if __name__ == "__main__":
    main()
