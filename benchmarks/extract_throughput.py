"""Stage one: views a second of `extract`, of the bare forward pass, and of the script that a good user would write.

Measures: `extract` of --images photos with 8 augmented views each, from JPEG to the finished store (measuring the relative
error, and waiting for the disk, included), ViT-S/14 at 224 pixels, default precision, batch and workers.
Against: (1) the bare forward pass of the same weights on ready tensors, with the same batch, precision and workers, one
thread each; also the plain way to run the same pass, one batch over all threads; (2) the peer, in a process of its own:
DataLoader with a worker a core, torchvision transforms, torch.autocast in bfloat16, one view at a time (view 0 and then 8
augmented ones), numpy.save, on --peer-images photos; its clock starts when model and data are loaded, after a warm-up.
All in one run, taking turns, after a short round that is not counted; medians over --repeats.
Writing is the time within the store's writer: beginning, publishing shards, finishing, waiting for the disk.
Target: at least 0.95 of the bare forward pass and 1.2 times the peer, on 2 CPU cores; writing below 3 % of the time.

    python benchmarks/extract_throughput.py [--images 300] [--peer-images 80] [--repeats 3] [--data ../shared/data/grocery]
        [--weights ../shared/weights/vit_small_patch14_dinov2.saliency.fp16.safetensors]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from common import report

from tosca_cache.datasets import ImageDataset, Split, load_dataset
from tosca_cache.datasets.decoding import open_rgb
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.engine import keep_freed_memory
from tosca_cache.extract.fingerprint import ExtractOptions, default_batch_size
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.store import StoreWriter
from tosca_cache.torchvision_compat import ensure_torchvision
from tosca_cache.workers import threads_here

BACKBONE, IMG_SIZE, VIEWS, PEER_BATCH = "vit_small_patch14_dinov2", 224, 8, 32
SHARED = Path(__file__).resolve().parents[2] / "shared"
WARM_UP = 20  # images
FORWARD_BATCHES = 12  # of each worker, in one measurement of the bare forward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--peer-images", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "grocery")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / f"{BACKBONE}.saliency.fp16.safetensors")
    parser.add_argument("--peer-batch", type=int, default=PEER_BATCH)
    parser.add_argument("--role", choices=("all", "peer"), default="all", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.data.is_dir() or not options.weights.is_file():
        sys.exit(f"skipped: {options.data} or {options.weights} is not there")
    photos = load_dataset(str(options.data))
    if options.role == "peer":
        model = load_backbone(BACKBONE, weights=options.weights, img_size=IMG_SIZE, precision="fp32").model
        print(json.dumps(peer(subset(photos, options.peer_images), model, options.peer_batch, torch.device("cpu"))))
        return
    backbone = load_backbone(BACKBONE, weights=options.weights, img_size=IMG_SIZE)
    batch, workers = default_batch_size(backbone), threads_here()
    extract_rate(subset(photos, WARM_UP), backbone)
    dataset, writing = subset(photos, options.images), list[float]()
    rates = measure(
        {
            "extract": lambda: extract_rate(dataset, backbone, writing),
            "bare forward pass, one batch a core": lambda: forward_rate(backbone, batch, workers),
            "bare forward pass, one batch on all": lambda: forward_rate(backbone, batch, 1, threads=workers),
            "peer": lambda: peer_rate(options),
        },
        options.repeats,
    )
    first, bare, _, other = rates
    figures = {
        "views_a_second": {name: statistics.median(values) for name, values in rates.items()},
        "extract_vs_bare": ratio(rates[first], rates[bare]),
        "extract_vs_peer": ratio(rates[first], rates[other]),
        "writing_share": statistics.median(writing),
        "all": rates,
    }
    lines = [f"{name:<36} {value:7.1f} views/s" for name, value in figures["views_a_second"].items()]
    lines += [
        f"extract: {figures['extract_vs_bare']:.3f} of the bare forward pass (target: at least 0.95)",
        f"extract: {figures['extract_vs_peer']:.2f} times the peer (target: at least 1.2)",
        f"writing: {100 * figures['writing_share']:.2f} % of the time of extract (target: below 3)",
    ]
    sizes = {
        "images": options.images,
        "peer_images": options.peer_images,
        "views": 1 + VIEWS,
        "backbone": BACKBONE,
        "img_size": IMG_SIZE,
        "precision": backbone.precision,
        "batch_size": batch,
        "peer_batch_size": options.peer_batch,
        "workers": workers,
        "repeats": options.repeats,
    }
    report("extract_throughput", sizes, figures, lines)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds of the ratio within a round, which a machine that slows down for a while hardly moves."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def measure(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Rates of each call, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        for name, call in calls.items():
            rates[name].append(call())
            print(f"{turn + 1}/{repeats} {name}: {rates[name][-1]:.1f} views/s", file=sys.stderr)
    return rates


def subset(dataset: ImageDataset, images: int) -> ImageDataset:
    """That many train images, spread evenly over the classes, and no test images."""
    train = dataset.splits["train"]
    rows = np.linspace(0, len(train) - 1, images).round().astype(int)
    kept = Split(tuple(train.paths[row] for row in rows), train.labels[rows], train.domains[rows])
    nothing = Split((), train.labels[:0], train.domains[:0])
    root = Path(str(dataset.root))
    return replace(
        dataset,
        splits={"train": kept, "test": nothing},
        opener=lambda split, row: open_rgb(root / kept.paths[row]),
    )


def extract_rate(dataset: ImageDataset, backbone: Backbone, writing: list[float] | None = None) -> float:
    """Views a second of the product, into a fresh store; adds the share of the time that writing took to `writing`."""
    with tempfile.TemporaryDirectory() as root, clocked(StoreWriter, "open", "publish", "finish") as spent:
        start = perf_counter()
        Extraction(dataset, backbone, Path(root), ExtractOptions(views=VIEWS)).run(show_progress=False)
        seconds = perf_counter() - start
    if writing is not None:
        writing.append(sum(spent) / seconds)
    return len(dataset.splits["train"]) * (1 + VIEWS) / seconds


@contextmanager
def clocked(kind: type, *names: str) -> Iterator[list[float]]:
    """Seconds of every call of these methods, which wait for the disk, within the block."""
    spent: list[float] = []

    def timing(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                spent.append(perf_counter() - start)

        return call

    kept = {name: vars(kind)[name] for name in names}
    for name, method in kept.items():
        bound = isinstance(method, classmethod)
        setattr(kind, name, classmethod(timing(method.__func__)) if bound else timing(method))
    try:
        yield spent
    finally:
        for name, method in kept.items():
            setattr(kind, name, method)


def forward_rate(backbone: Backbone, batch: int, workers: int, threads: int = 1) -> float:
    """Views a second of the model alone: each worker takes its own ready tensor through it again and again."""
    keep_freed_memory()
    transform = backbone.transform()
    forward = backbone.forward(transform)
    pixels = torch.randint(0, 256, (workers, batch, IMG_SIZE, IMG_SIZE, 3), dtype=torch.uint8)
    ready = [forward.prepare(part) for part in pixels]

    def work(x: torch.Tensor, passes: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for _ in range(passes):
                forward.model(x)

    def run(passes: int) -> float:
        pool = [threading.Thread(target=work, args=(x, passes)) for x in ready]
        start = perf_counter()
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
        return workers * batch * passes / (perf_counter() - start)

    before = torch.get_num_threads()
    run(2)
    rate = run(FORWARD_BATCHES * (2 if workers == 1 else 1))
    torch.set_num_threads(before)
    return rate


def peer_rate(options: argparse.Namespace) -> float:
    """Views a second of `peer`, in a process of its own."""
    command = [sys.executable, __file__, "--role", "peer", "--peer-images", str(options.peer_images)]
    command += ["--data", str(options.data), "--weights", str(options.weights), "--peer-batch", str(options.peer_batch)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


class Photos(torch.utils.data.Dataset[torch.Tensor]):
    """The peer's dataset: opens an image, and shows it in one view."""

    def __init__(self, dataset: ImageDataset, transform: Callable[..., torch.Tensor]) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset.splits["train"])

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(self.dataset.open("train", row))


def peer(dataset: ImageDataset, model: torch.nn.Module, batch: int, device: torch.device) -> float:
    """What a good user would write: a DataLoader, autocast, one view after the other, numpy.save; views a second.

    model: in float32.
    """
    ensure_torchvision()
    from torchvision.transforms import v2

    end = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    bicubic = v2.InterpolationMode.BICUBIC
    clean = v2.Compose([v2.Resize(256, interpolation=bicubic), v2.CenterCrop(224), *end])
    augmented = v2.Compose([v2.RandomResizedCrop(224, scale=(0.05, 1.0)), v2.RandomHorizontalFlip(), *end])

    def view(transform: Callable[..., torch.Tensor], images: ImageDataset) -> np.ndarray:
        on_gpu = device.type == "cuda"
        loader = torch.utils.data.DataLoader(
            Photos(images, transform), batch_size=batch, num_workers=threads_here(), pin_memory=on_gpu
        )
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            return torch.cat([model(x.to(device, non_blocking=on_gpu)).float().cpu() for x in loader]).numpy()

    view(clean, subset(dataset, 2 * batch))
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        features = [view(augmented if number else clean, dataset) for number in range(1 + VIEWS)]
        np.save(Path(folder) / "features.npy", np.stack(features, axis=1).astype(np.float16))
        return len(dataset.splits["train"]) * (1 + VIEWS) / (perf_counter() - start)


if __name__ == "__main__":
    main()
