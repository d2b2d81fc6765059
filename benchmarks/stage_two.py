"""Stage two on synthetic features: seconds of one seed, all evaluation included, and where they go.

Measures: TOSCA on float16 features, as a store gives them, of 768 numbers, with the published hyperparameters: wall seconds
for everything after the store has been read, split into training, adapting test rows, the head's products, and the rest of
the evaluation; routed by least entropy, and (`cub` only) in all by the opinion pool, which learns and answers after every
task. Size `cub`: 9,430 x 9 train and 2,358 test rows, 200 classes in 20 tasks, 20 epochs. Size `large`: 1,000 classes of
50 x 2 train and 10 test rows in 50 tasks, 5 epochs.
Against: the same evaluation done plainly (every module adapts every test row again after every task; `cub` only); and the
time that PyTorch's products alone take, of every module's test rows with all classes seen, on as many cores.
Targets: `cub` at most 20 s on 2 CPU cores (at most 5 s on one H200); all evaluation cheaper than training, and at most 1.4
times its products.

    python benchmarks/stage_two.py [--size cub] [--repeats 3] [--threads N] [--device auto] [--engine auto]
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from common import repeat, report

from tosca_cache.config import Settings
from tosca_cache.devices import on_cores, one_thread, resolve_device
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.module import entropy_and_prediction
from tosca_cache.runs.experiment import Trained, evaluate_trained, train_stream
from tosca_cache.tasks import Arrays, TaskStream
from tosca_cache.train.engines import Engine, choose_engine

CLASSES, DIM, VIEWS, TRAIN, TEST, INCREMENT = 200, 768, 8, 9430, 2358, 10
BLOCK = 256  # rows of one product


class Size(NamedTuple):
    """Of a data set and its tasks; train and test are numbers of rows."""

    classes: int
    train: int
    test: int
    views: int
    increment: int
    epochs: int


SIZES = {"cub": Size(CLASSES, TRAIN, TEST, VIEWS, INCREMENT, 20), "large": Size(1000, 50_000, 10_000, 1, 20, 5)}


def synthetic(generator: np.random.Generator, means: np.ndarray, rows: int, views: int) -> Arrays:
    """Gaussian classes, class by class as in a folder dataset."""
    labels = np.sort(np.arange(rows) % len(means))
    noise = generator.standard_normal((rows, views, means.shape[1]), dtype=np.float32)
    return Arrays((means[labels][:, None] + 3 * noise).astype(np.float16), labels)


def stream_of(size: Size) -> TaskStream:
    """The tasks of one size."""
    generator = np.random.default_rng(0)
    means = generator.standard_normal((size.classes, DIM), dtype=np.float32)
    train, test = synthetic(generator, means, size.train, 1 + size.views), synthetic(generator, means, size.test, 1)
    return TaskStream(train, test, class_names=[str(c) for c in range(size.classes)], increment=size.increment)


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


def products(stream: TaskStream, threads: int) -> float:
    """Seconds of the products of all modules' test rows with all classes after every task, by their measured rate."""
    counts = np.cumsum([len(stream.test_labels(t)) for t in range(len(stream))])
    wanted = sum((t + 1) * int(n) * stream.classes(t).stop for t, n in enumerate(counts))
    head, blocks = torch.randn(DIM, len(stream.class_names)), [torch.randn(BLOCK, DIM) for _ in range(8 * threads)]
    on_cores(lambda block: block @ head, blocks, threads)
    start = perf_counter()
    on_cores(lambda block: block @ head, 4 * blocks, threads)
    return (perf_counter() - start) * wanted / (4 * len(blocks) * BLOCK * head.shape[1])


def measure(stream: TaskStream, size: str, device: str, engine: Engine, threads: int) -> dict[str, float]:
    """Seconds of one whole run and of its parts."""
    settings, where = Settings(epochs=SIZES[size].epochs), resolve_device(device)
    bound = products(stream, threads)
    start = perf_counter()
    trained = train_stream(stream, Tosca(settings, device=where, engine=engine))
    seconds = evaluate_trained(trained).seconds
    total = perf_counter() - start
    bound = (bound + products(stream, threads)) / 2
    figures = {
        "total": total,
        "train": seconds["train"],
        "evaluate": seconds["evaluate"],
        "evaluate: adapt": seconds["adapt"],
        "evaluate: head, entropy": seconds["head"],
        "audit": seconds["audit"],
        "closed forms": seconds["closed_forms"],
        "products alone": bound,
        "evaluate / train": seconds["evaluate"] / seconds["train"],
        "evaluate and audit / products": (seconds["evaluate"] + seconds["audit"]) / bound,
    }
    if size != "cub":
        return figures
    start = perf_counter()
    evaluate_trained(train_stream(stream, Tosca(settings, device=where, engine=engine, router="pool")))
    figures["total, router pool"] = perf_counter() - start
    figures["plain evaluation / evaluate"] = plain_evaluation(trained) / seconds["evaluate"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="cub")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = SIZES[arguments.size]
    stream = stream_of(size)
    steps = Settings(epochs=size.epochs).steps(stream.train_counts().tolist())
    engine = choose_engine(arguments.engine, resolve_device(arguments.device), steps=steps)
    given = arguments.size, arguments.device, engine, arguments.threads
    figures = repeat(lambda: measure(stream, *given), arguments.repeats)
    figures["compile"] = engine.compile_seconds
    sizes = size._asdict() | {"dim": DIM, "tasks": len(stream), "batch": 48, "threads": arguments.threads}
    sizes |= {"repeats": arguments.repeats, "device": arguments.device, "engine": engine.name}
    lines = [f"{arguments.size}, engine {engine.name}, median of {arguments.repeats}, {arguments.threads} threads"]
    name = "stage_two" if arguments.size == "cub" else f"stage_two_{arguments.size}"
    report(name, sizes, figures, lines + [f"{name:>30} {value:8.2f}" for name, value in figures.items()])


if __name__ == "__main__":
    main()
