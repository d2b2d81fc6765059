"""What a GPU gives: its tests, extraction, stage two, the opinion pool, a comparison; each step by itself, one JSON.

Measures: (1) tests/test_gpu.py. (2) Views a second of `extract` (ViT-B/16, random weights, 224 pixels, 8 views, bf16,
from JPEG to the finished store). (3) CIFAR-100 B0 Inc5 on synthetic features (50,000 x 9 x 768, 20 epochs): one setting,
and 64 settings trained and evaluated after every task. (4) The opinion pool learned and evaluated over the same tasks.
(5) `compare` of four closed forms.
Against: (2) the bare forward pass on ready pixels, and DataLoader + autocast + numpy.save; (3) the plain loop of
benchmarks/plain_loop.py on 2 settings, multiplied.
Aims on one H100: 64 settings evaluated in 15 s; extraction at 0.8 of the bare pass.
A step that fails is recorded with its error, and the others go on; the file is written after each.

    benchmarks/gpu.sh [--device cuda] [--small] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import extract_throughput as stage_one
import numpy as np
import sweep_speed
import torch
from PIL import Image
from plain_loop import train_and_evaluate
from safetensors.torch import save_file
from stage_two import synthetic

from tosca_cache.compare.cells import CompareRequest, cells_of
from tosca_cache.compare.measure import Workplace, measure_block
from tosca_cache.config import Settings, TrainConfig
from tosca_cache.datasets import ImageDataset, load_dataset
from tosca_cache.devices import describe_machine
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario
from tosca_cache.torchvision_compat import ensure_torchvision
from tosca_cache.train.engines import Engine
from tosca_cache.workers import threads_here

ROOT = Path(__file__).resolve().parents[1]
AIMS = {"settings evaluated (s)": 15, "extract / bare pass": 0.8, "all (s)": 480}
METHODS = ("nmc", "lda", "ranpac", "pool")


class Size(NamedTuple):
    """Of everything that is measured. photos: extracted; by the peer, `peer_photos`. loops: settings of the plain loop."""

    backbone: str = "vit_base_patch16_224"
    photos: int = 2000
    peer_photos: int = 400
    batch: int = 256
    classes: int = 100
    increment: int = 5
    train: int = 50_000
    test: int = 10_000
    views: int = 8
    settings: int = 64
    epochs: int = 20
    loops: int = 2


SMALL = Size("vit_tiny_patch16_224", 16, 8, 16, 20, 5, 400, 100, 2, 4, 2, 2)


class Bench:
    """The steps and what they share."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device = size, device
        generator = np.random.default_rng(0)
        means = generator.standard_normal((size.classes, sweep_speed.DIM), dtype=np.float32)
        parts = (synthetic(generator, means, size.train, 1 + size.views), synthetic(generator, means, size.test, 1))
        self.data = Data(*parts, tuple(map(str, range(size.classes))))
        self.config = TrainConfig(increment=size.increment, epochs=size.epochs, device=str(device), router="sample")
        self.stream = make_scenario(Scenario("test"), self.config, self.data, 1993)

    def tests(self) -> dict[str, Any]:
        """Those marked gpu; without one, what they run on the CPU."""
        chosen = ["-m", "gpu"] if self.device.type == "cuda" else ["-m", "not gpu"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_gpu.py", *chosen]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
        return {"passed": done.returncode == 0, "failed": failed, "output": done.stdout[-4000:]}

    def extraction(self) -> dict[str, Any]:
        """Views a second: extract, the bare forward pass, the peer."""
        with tempfile.TemporaryDirectory() as folder:
            photos = make_photos(Path(folder) / "photos", self.size.photos)
            backbone = random_backbone(self.size.backbone, Path(folder), self.device)
            stage_one.extract_rate(stage_one.subset(photos, min(64, self.size.photos)), backbone)
            ours = stage_one.extract_rate(photos, backbone)
            bare = bare_rate(backbone, self.size.batch)
            other = stage_one.peer(
                stage_one.subset(photos, self.size.peer_photos), backbone.model, self.size.batch, self.device
            )
        return {
            "views a second": {"extract": ours, "bare pass": bare, "peer": other},
            "extract / bare pass": ours / bare,
            "extract / peer": ours / other,
            "workers": threads_here(),
            "precision": backbone.precision,
        }

    def stage_two(self) -> dict[str, Any]:
        """Seconds of one setting and of many, and what the plain loop takes for as many."""
        size, engine = self.size, Engine()
        cells = sweep_speed.make_cells(self.config, size.settings)
        sweep_speed.ours(cells[:1], self.data, engine, self.device)
        one = sweep_speed.ours(cells[:1], self.data, engine, self.device)
        many = sweep_speed.ours(cells, self.data, engine, self.device)
        start = perf_counter()
        for cell in cells[: size.loops]:
            train_and_evaluate(self.stream, Settings.of(cell.config), self.device, evaluate=True)
        loop = (perf_counter() - start) / size.loops * size.settings
        evaluated = many[sweep_speed.EVALUATED]
        return {"one setting": one, f"{size.settings} settings": many, "loop": loop, "times faster": loop / evaluated}

    def pool(self) -> dict[str, float]:
        """Seconds of learning and evaluating all tasks."""
        learner = LEARNERS["pool"](seed=1, device=self.device)
        return dict(run_protocol(learner, self.stream).seconds)

    def compare(self) -> dict[str, float]:
        """Seconds of each method."""
        request, seconds = CompareRequest(self.config, METHODS, seeds=(1993,)), {}
        for name in METHODS:
            start = perf_counter()
            (finished,) = measure_block(
                cells_of(request, name, "synthetic"), Workplace(self.data, self.device, Engine())
            )
            seconds[name] = perf_counter() - start
            if finished.reason is not None:
                raise RuntimeError(f"{name}: {finished.reason}")
        return seconds


def make_photos(root: Path, count: int) -> ImageDataset:
    """A folder of JPEG files of the size of ImageNet's, of smooth noise."""
    generator = np.random.default_rng(0)
    for number in range(count + 10):  # the last ten are a test photo of each class, which a folder has to have
        folder = root / ("train" if number < count else "test") / f"class {number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(generator.integers(0, 256, (40, 53, 3), dtype=np.uint8))
        rough.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
    return stage_one.subset(load_dataset(str(root)), count)


def random_backbone(name: str, folder: Path, device: torch.device) -> Backbone:
    """A model of timm with random weights."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    path = folder / "random.safetensors"
    save_file(timm.create_model(name, pretrained=False, num_classes=0).state_dict(), path)
    return load_backbone(name, weights=path, device=device)


def bare_rate(backbone: Backbone, batch: int) -> float:
    """Views a second of the model alone, on pixels that are ready on the device."""
    if backbone.device.type == "cpu":
        return stage_one.forward_rate(backbone, batch, threads_here())
    forward = backbone.forward(backbone.transform())
    side = backbone.image_size
    x = forward.prepare(torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8))
    with torch.inference_mode():
        for passes in (5, 50):
            torch.cuda.synchronize()
            start = perf_counter()
            for _ in range(passes):
                forward.model(x)
            torch.cuda.synchronize()
    return batch * passes / (perf_counter() - start)


def measured(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a step gives and how long it took, or what went wrong."""
    start = perf_counter()
    try:
        found = step()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-3000:]}
    return found | {"seconds": perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU: a few minutes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", default="tests,extraction,stage_two,pool,compare")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no GPU of CUDA here: use --device cpu --small")
    size, device = SMALL if arguments.small else Size(), torch.device(arguments.device)
    out = arguments.out or ROOT / ("build/gpu-small.json" if arguments.small else "benchmarks/results/gpu.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    begun = perf_counter()
    bench, figures = Bench(size, device), {}
    for name in arguments.steps.split(","):
        figures[name] = measured(getattr(bench, name))
        figures["all (s)"] = perf_counter() - begun
        shown = {key: value for key, value in figures[name].items() if key not in ("output", "where")}
        print(f"{name}: {json.dumps(shown)}")
        value = {"machine": describe_machine(device), "sizes": size._asdict(), "aims": AIMS, "figures": figures}
        out.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    print(f"{out}: {figures['all (s)']:.0f} s")
    wrong = [name for name, found in figures.items() if isinstance(found, dict) and "error" in found]
    if wrong or not figures.get("tests", {}).get("passed", True):
        sys.exit(f"not all went well: {', '.join(wrong) or 'tests'}")


if __name__ == "__main__":
    main()
