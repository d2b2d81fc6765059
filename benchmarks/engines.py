"""Whether another engine runs the backbone's forward pass faster than PyTorch on a CPU, and what it changes in features.

Measures: processor seconds of a batch of photos through ViT-S/14 at 224 pixels on one thread, engines taking turns, after a
batch of each that is not counted: PyTorch in float32 and bfloat16 as `tosca extract` runs it, torch.compile of both,
OpenVINO in float32, bfloat16 and, quantised with NNCF on other photos, int8; onnxruntime in float32. Medians.
What is not installed is left out, with a line.
Against: PyTorch as `tosca extract` runs it, in the same precision; int8 against bfloat16. Errors are the relative distances
|f - f32| / |f32| of the features to those of PyTorch in float32, the largest of all photos.
Target: at least 1.2 times as fast at an error below what a store of that precision may deviate by.

    python benchmarks/engines.py [--repeats 5] [--batch 16] [--data ../shared/data/grocery] [--weights FILE]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import torch
from common import report
from extract_throughput import BACKBONE, IMG_SIZE, SHARED, subset

from tosca_cache.datasets import load_dataset
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.engine import Group, Renderer, ShardBuffer
from tosca_cache.extract.reuse import TOLERANCE
from tosca_cache.store import Shard

Engine = Callable[[torch.Tensor], torch.Tensor]
PEERS = {"bf16": "torch bf16", "int8": "torch bf16"}  # what an engine of that precision is compared with
CALIBRATION = 32  # photos that int8 is calibrated on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "grocery")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / f"{BACKBONE}.saliency.fp16.safetensors")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(BACKBONE, weights=given.weights, img_size=IMG_SIZE, precision="fp32")
    photos = prepared(backbone, given.data, 2 * max(CALIBRATION, given.batch))
    calibration, photos = photos[::2][:CALIBRATION], photos[1::2][: given.batch]
    engines = made(backbone, photos, calibration)
    features = {name: engine(photos) for name, engine in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(given.repeats):
        for name, engine in engines.items():
            start = process_time()
            engine(photos)
            seconds[name].append(process_time() - start)
    figures, lines = {}, [f"{'':>16}  images/s   times PyTorch   largest error"]
    exact = features["torch fp32"]
    for name in engines:
        own = statistics.median(seconds[name])
        ratio = statistics.median(seconds[PEERS.get(name.split()[-1], "torch fp32")]) / own
        error = float(((features[name] - exact).norm(dim=1) / exact.norm(dim=1)).max())
        figures[name] = {"images per second": given.batch / own, "times PyTorch": ratio, "error": error}
        lines.append(f"{name:>16} {given.batch / own:9.1f} {ratio:15.2f} {error:15.1e}")
    sizes = {"backbone": BACKBONE, "pixels": IMG_SIZE, "batch": given.batch, "repeats": given.repeats, "threads": 1}
    report("engines", sizes | {"tolerances": dict(TOLERANCE)}, figures, lines)


def prepared(backbone: Backbone, data: Path, count: int) -> torch.Tensor:
    """Clean views of photos as the backbone takes them, [n, 3, S, S] float32."""
    transform, dataset = backbone.transform(), subset(load_dataset(str(data)), count)
    shard = ShardBuffer.empty(Shard("train", 0, 0, count), 1, 0)
    pixels = Renderer(dataset, transform, seed=0)(Group(shard, 0, count))
    return backbone.forward(transform).prepare(pixels)


def made(backbone: Backbone, photos: torch.Tensor, calibration: torch.Tensor) -> dict[str, Engine]:
    """All engines that are installed, by name and precision."""
    transform = backbone.transform()
    engines: dict[str, Engine] = {}
    for precision in ("fp32", "bf16"):
        forward = backbone.forward(transform, precision)
        engines[f"torch {precision}"] = plain(forward.model, forward.dtype)
        engines[f"compile {precision}"] = plain(torch.compile(forward.model), forward.dtype)
    return engines | open_vino(backbone, photos, calibration) | onnx_runtime(backbone, photos)


def plain(model: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> Engine:
    """A module as an engine."""

    @torch.inference_mode()
    def run(photos: torch.Tensor) -> torch.Tensor:
        return model(photos.to(dtype)).float()

    return run


def open_vino(backbone: Backbone, photos: torch.Tensor, calibration: torch.Tensor) -> dict[str, Engine]:
    """OpenVINO's CPU plugin on one thread."""
    try:
        import openvino as ov
    except ImportError:
        print("openvino is not installed: left out")
        return {}
    core, one = ov.Core(), {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    graph = ov.convert_model(backbone.model, example_input=photos[:1])

    def engine(model: ov.Model, precision: str) -> Engine:
        compiled = core.compile_model(model, "CPU", one | {"INFERENCE_PRECISION_HINT": precision})
        return lambda asked: torch.from_numpy(compiled(asked.numpy())[0].copy())

    found: dict[str, Engine] = {"openvino fp32": engine(graph, "f32"), "openvino bf16": engine(graph, "bf16")}
    try:
        import nncf
    except ImportError:
        print("nncf is not installed: int8 is left out")
        return found
    shown = nncf.Dataset([one.unsqueeze(0).numpy() for one in calibration])
    quantised = nncf.quantize(graph, shown, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
    return found | {"openvino int8": engine(quantised, "f32")}


def onnx_runtime(backbone: Backbone, photos: torch.Tensor) -> dict[str, Engine]:
    """onnxruntime on one thread."""
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: left out")
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.onnx"
        batch = torch.export.Dim("batch")
        torch.onnx.export(backbone.model, (photos[:2],), path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {"onnxruntime fp32": lambda asked: torch.from_numpy(session.run(None, {name: asked.numpy()})[0])}


if __name__ == "__main__":
    main()
