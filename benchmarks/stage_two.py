"""Stage two on CUB-sized synthetic features: seconds of one seed, all evaluation included, and where they go.

Measures: TOSCA on 9,430 x 9 x 768 train and 2,358 x 768 test features (float16, as a store gives them), 200 classes in 20
tasks, 20 epochs, batch 48, published hyperparameters: wall seconds for everything after the store has been read, split into
training, adapting test rows, the head's products, and the rest of the evaluation; routed by least entropy, and in all
by the default router, whose closed forms learn and answer after every task.
Against: the same evaluation done plainly (every module adapts every test row again after every task).
Targets: at most 20 s on 2 CPU cores (at most 5 s on one H200); all evaluation cheaper than training.

    python benchmarks/stage_two.py [--repeats 3] [--threads N] [--device auto] [--engine auto]
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
import torch
from common import repeat, report

from tosca_cache.devices import one_thread, resolve_device
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.module import entropy_and_prediction
from tosca_cache.runs.experiment import Trained, evaluate_trained, train_stream
from tosca_cache.tasks import Arrays, TaskStream
from tosca_cache.train.engines import Engine, choose_engine
from tosca_cache.train.settings import Settings

CLASSES, DIM, VIEWS, TRAIN, TEST, INCREMENT = 200, 768, 8, 9430, 2358, 10


def synthetic(generator: np.random.Generator, means: np.ndarray, rows: int, views: int) -> Arrays:
    """Gaussian classes, class by class as in a folder dataset."""
    labels = np.sort(np.arange(rows) % CLASSES)
    noise = generator.standard_normal((rows, views, DIM), dtype=np.float32)
    return Arrays((means[labels][:, None] + 3 * noise).astype(np.float16), labels)


@one_thread()
def plain_evaluation(trained: Trained) -> float:
    """Seconds to evaluate after every task without keeping any adapted feature."""
    bank, tests = trained.learner.bank, []
    start = perf_counter()
    for t in range(len(trained.stream)):
        tests.append(trained.learner.tensor(trained.stream.test(t).features[:, 0]))
        rows = torch.cat(tests)
        for module in range(t + 1):
            entropy_and_prediction(bank.logits(bank.adapted(module, rows)))
    return perf_counter() - start


def measure(stream: TaskStream, device: str, engine: Engine) -> dict[str, float]:
    """Seconds of one whole run and of its parts."""
    start = perf_counter()
    trained = train_stream(stream, Tosca(device=resolve_device(device), engine=engine))
    seconds = evaluate_trained(trained).seconds
    total = perf_counter() - start
    start = perf_counter()
    evaluate_trained(train_stream(stream, Tosca(device=resolve_device(device), engine=engine, router="auto")))
    return {
        "total": total,
        "total, router auto": perf_counter() - start,
        "train": seconds["train"],
        "evaluate": seconds["evaluate"],
        "evaluate: adapt": seconds["adapt"],
        "evaluate: head, entropy": seconds["head"],
        "audit": seconds["audit"],
        "plain evaluation": plain_evaluation(trained),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = np.random.default_rng(0)
    means = generator.standard_normal((CLASSES, DIM), dtype=np.float32)
    train, test = synthetic(generator, means, TRAIN, 1 + VIEWS), synthetic(generator, means, TEST, 1)
    stream = TaskStream(train, test, class_names=[str(c) for c in range(CLASSES)], increment=INCREMENT)
    steps = Settings().steps(stream.train_counts().tolist())
    engine = choose_engine(arguments.engine, resolve_device(arguments.device), steps=steps)
    figures = repeat(lambda: measure(stream, arguments.device, engine), arguments.repeats)
    figures["compile"] = engine.compile_seconds
    figures["evaluate / train"] = figures["evaluate"] / figures["train"]
    figures["plain evaluation / evaluate"] = figures["plain evaluation"] / figures["evaluate"]
    sizes = {"train": [TRAIN, 1 + VIEWS, DIM], "test": [TEST, DIM], "tasks": CLASSES // INCREMENT, "epochs": 20}
    sizes |= {"batch": 48, "threads": arguments.threads, "repeats": arguments.repeats, "device": arguments.device}
    sizes["engine"] = engine.name
    lines = [f"CUB-sized, one seed, engine {engine.name}, median of {arguments.repeats}, {arguments.threads} threads"]
    report("stage_two", sizes, figures, lines + [f"{name:>28} {value:8.2f}" for name, value in figures.items()])


if __name__ == "__main__":
    main()
