"""Fused training of many settings against the plain loop over them, and against what the machine can do at best.

Measures: a grid of lr x l1 on synthetic features of a real dataset's size (cub: 9,430 x 9 x 768 in 20 tasks of 10;
cifar100: 50,000 x 9 x 768 in 20 tasks of 5), 20 epochs, batch 48, tensors in memory: seconds of training, and of training
with all evaluation, for the blocks that `tosca sweep` runs, and with one evaluation at the end, as a search by last
accuracy has it. Compiling the kernels (once a machine) is shown apart.
Against: benchmarks/plain_loop.py, one setting at a time, same tensors, same threads. It runs --peer settings of the grid,
which all cost the same, and is multiplied; both sides take turns.
Beside it the roofline: operations and bytes counted, rates measured on this machine, the fraction reached.
Targets: CPU, 16 settings: 4 times faster than the loop, aim 8. One H200, 64 settings, evaluation included: 30 s, 40 times.

    python benchmarks/sweep_speed.py [--size cub] [--settings 16] [--repeats 3] [--peer 2] [--device auto]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import median
from time import perf_counter

import numpy as np
import torch
from common import report
from plain_loop import train_and_evaluate
from roofline import bytes_moved, measured_peak, operations
from stage_two import synthetic

from tosca_cache.config import Settings, TrainConfig
from tosca_cache.devices import resolve_device
from tosca_cache.learners.stacked_tosca import Source, learn_stacked
from tosca_cache.luca.parameters import LucaShape
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import Cell, cells_of, with_point
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario
from tosca_cache.train.engines import Engine, choose_engine
from tosca_cache.train.stack import Member
from tosca_cache.workers import cores

SIZES = {"cub": (200, 10, 9430, 2358), "cifar100": (100, 5, 50_000, 10_000)}  # classes, increment, train, test
DIM, VIEWS = 768, 8
EVALUATED, LAST = "train and evaluate", "train and evaluate at the end"


def make_data(size: str) -> tuple[Data, int]:
    classes, increment, train, test = SIZES[size]
    generator = np.random.default_rng(0)
    means = generator.standard_normal((classes, DIM), dtype=np.float32)
    parts = (synthetic(generator, means, train, 1 + VIEWS), synthetic(generator, means, test, 1))
    return Data(*parts, tuple(map(str, range(classes)))), increment


def make_cells(config: TrainConfig, count: int) -> list[Cell]:
    side = max(1, round(count**0.5))
    rates, weights = np.geomspace(0.005, 0.1, side), np.geomspace(1e-4, 1e-3, -(-count // side))
    points = [{"lr": float(lr), "l1": float(l1)} for lr in rates for l1 in weights][:count]
    settings = [with_point(config, point) for point in points]
    return [cell for s in settings for cell in cells_of(s, (1993,), Scenario("test"), "synthetic")]


def ours(cells: list[Cell], data: Data, engine: Engine, device: torch.device) -> dict[str, float]:
    """Seconds of training alone, and of whole blocks: evaluated after every task, and as a search by last accuracy does."""
    blocks = [block for group in plan_groups(cells, data, engine, device) for block in group.blocks]
    last = [[replace(cell, curve=False) for cell in block] for block in blocks]
    start = perf_counter()
    for block in blocks:
        source = Source(make_scenario(block[0].scenario, block[0].config, data, 1993), 1993)
        members = [Member(Settings.of(cell.config)) for cell in block]
        learn_stacked([source], members, device=device, engine=engine)
    seconds = {"train": perf_counter() - start}
    for name, each in ((EVALUATED, blocks), (LAST, last)):
        start = perf_counter()
        for block in each:
            assert all(finished.state == "done" for finished in run_block(block, data, engine))
        seconds[name] = perf_counter() - start
    return seconds


def peer(cells: list[Cell], data: Data, device: torch.device) -> dict[str, float]:
    """Seconds of the loop over these settings, without and with evaluation."""
    stream = make_scenario(cells[0].scenario, cells[0].config, data, 1993)
    seconds = {}
    for name, evaluate in (("train", False), (EVALUATED, True)):
        start = perf_counter()
        for cell in cells:
            train_and_evaluate(stream, Settings.of(cell.config), device, evaluate=evaluate)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[name] = perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="cub")
    parser.add_argument("--settings", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=int, default=2, help="settings that the loop really runs, each time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    data, increment = make_data(arguments.size)
    config = TrainConfig(increment=increment, device=arguments.device, router="sample")
    cells = make_cells(config, arguments.settings)
    stream = make_scenario(Scenario("test"), config, data, 1993)
    steps = Settings.of(config).steps(stream.train_counts().tolist())
    engine = choose_engine(arguments.engine, device, steps=steps * len(cells), threads=cores())
    rounds = [
        (ours(cells, data, engine, device), peer(cells[: arguments.peer], data, device))
        for _ in range(arguments.repeats)
    ]
    figures: dict[str, float] = {"compile": engine.compile_seconds}
    for name, against in (("train", "train"), (EVALUATED, EVALUATED), (LAST, EVALUATED)):
        figures[name] = median(mine[name] for mine, _ in rounds)
        figures[f"loop: {against}"] = median(theirs[against] for _, theirs in rounds) * len(cells) / arguments.peer
        ratios = [theirs[against] * len(cells) / arguments.peer / mine[name] for mine, theirs in rounds]
        figures[f"times faster: {name}"] = median(ratios)
    figures |= roofline(figures["train"], steps, len(cells), stream.stops, device, engine.threads)
    sizes = {name: getattr(arguments, name) for name in ("size", "settings", "repeats", "peer", "device")}
    sizes |= {"steps a setting": steps, "engine": engine.name, "threads": torch.get_num_threads()}
    lines = [f"{arguments.size}-sized, {len(cells)} settings, engine {engine.name}, medians of {arguments.repeats}"]
    name = "sweep_speed" if arguments.size == "cub" else f"sweep_speed_{arguments.size}"
    report(name, sizes, figures, lines + [f"{key:>34} {value:10.3f}" for key, value in figures.items()])


def roofline(
    seconds: float, steps: int, settings: int, stops: list[int], device: torch.device, threads: int
) -> dict[str, float]:
    """Milliseconds of one step of one setting, what it would take at the machine's measured rates, and the fraction."""
    shape, classes = LucaShape.from_ratios(DIM, 16, 16), float(np.mean(stops))
    counted, moved = operations(shape, classes, 48), bytes_moved(shape, classes, 48)
    rates = measured_peak(threads, device)
    peak = rates.get("multiply-adds", rates["matmul"])
    step, least = seconds / steps / settings, max(counted / peak, moved / rates["bytes"])
    return {
        "ms a step": step * 1e3,
        "MFLOP a step": counted / 1e6,
        "MB a step": moved / 1e6,
        "GFLOP/s of multiply-adds": peak / 1e9,
        "GFLOP/s of PyTorch's matmul": rates["matmul"] / 1e9,
        "GB/s of copies": rates["bytes"] / 1e9,
        "ms a step at these rates": least * 1e3,
        "fraction reached": least / step,
    }


if __name__ == "__main__":
    main()
